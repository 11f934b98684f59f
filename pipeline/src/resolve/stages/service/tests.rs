mod affinity;
mod outside;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use api::Choice;
use api::state::TraceStep;

use super::*;
use crate::live::Now;
use crate::resolve::trial::{ACK, RST, SYN, Trial, ZONE, add_service, end, flow, icmp, ip, packet, service};
use crate::resolve::walk::Reached;

const PAIRS: [(&str, &str, &str); 2] =
    [("10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:8080"), ("[fd00::1]:4000", "[fd00:96::1]:80", "[fd00::2]:8080")];
const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];

fn range(prefix: &str) -> Change {
    Change::ServiceRange(Delta::add(ServiceRange { prefix: prefix.parse().unwrap(), origin: String::new() }))
}

fn trial(changes: &[Change]) -> Trial {
    Trial::new(&STAGE, changes)
}

/// What becomes of a frame, and where it goes: nobody looks at more.
fn fate(trial: &Trial, frame: &[u8]) -> (Next, (IpAddr, u16)) {
    let (next, walk) = trial.decide(1, frame, |_| ());
    (next, (walk.key.destination().unwrap(), walk.key.tp_dst()))
}

/// The last octets of the backends of so many connections, from one source port each.
fn spread(trial: &Trial, connections: u16) -> BTreeMap<u8, u32> {
    let mut seen = BTreeMap::new();
    for port in 1..=connections {
        let (next, (IpAddr::V4(backend), _)) = fate(trial, &flow(6, &format!("10.0.0.1:{port}"), "10.96.0.1:80", SYN))
        else {
            panic!("IPv4")
        };
        assert_eq!(next, Next::Continue);
        *seen.entry(backend.octets()[3]).or_default() += 1;
    }
    seen
}

#[test]
fn row_1_4_a_first_packet_to_a_service_goes_to_its_backend_and_keeps_its_source_v3() {
    for proto in PROTOS {
        for (from, to, backend) in PAIRS {
            let trial = trial(&[add_service(to, proto, &[backend])]);
            let frame = flow(proto as u8, from, to, SYN);
            let (next, walk) = trial.decide(1, &frame, |walk| walk.steps = Some(vec![TraceStep::default()]));
            assert_eq!(next, Next::Continue);
            let now = Carried::of(&walk.key, ZONE);
            let ((src, sport), (dst, dport)) = (end(from), end(backend));
            assert_eq!(now, Carried::Flow(Tuple { zone: ZONE, proto: proto as u8, src, dst, sport, dport }));
            let backend = SocketAddr::new(dst, dport);
            assert_eq!(walk.service, Some(Chosen { backend, reached: Reached::Cluster, visit: None }));
            let name = walk.steps.unwrap().remove(0).note;
            assert_eq!(name, format!("service default/{to}, backend {backend}"));
            assert!(!walk.transient);
        }
    }
}

#[test]
fn row_1_4_a_service_without_backends_is_refused_tcp_by_reset_the_rest_by_icmp() {
    for proto in PROTOS {
        for (from, to, _) in PAIRS {
            let trial = trial(&[add_service(to, proto, &[])]);
            let expected = match proto {
                Proto::Tcp => Reply::Reset(DropReason::NoBackend),
                _ => Reply::Error(IcmpError::PortUnreachable, end(to).0, DropReason::NoBackend),
            };
            assert_eq!(fate(&trial, &flow(proto as u8, from, to, SYN)).0, Next::Reply(expected));
        }
    }
}

#[test]
fn row_1_4_a_port_that_a_service_has_not_is_refused_by_its_own_name() {
    for (from, to, backend) in PAIRS {
        let trial = trial(&[add_service(to, Proto::Tcp, &[backend])]);
        let elsewhere = to.replace(":80", ":81");
        let refused = fate(&trial, &flow(6, from, &elsewhere, SYN)).0;
        assert_eq!(refused, Next::Reply(Reply::Reset(DropReason::NoServicePort)));
        for proto in [Proto::Udp, Proto::Sctp] {
            // Rule S5: the same number of another protocol is another port.
            let error = Reply::Error(IcmpError::PortUnreachable, end(to).0, DropReason::NoServicePort);
            assert_eq!(fate(&trial, &flow(proto as u8, from, to, 0)).0, Next::Reply(error));
        }
        let gre = packet(end(from).0, end(to).0, 47, &[0; 8]);
        assert_eq!(fate(&trial, &gre).0, Next::Drop(DropReason::NoServicePort));
    }
}

#[test]
fn row_1_4_a_service_address_answers_ping_and_an_answer_to_nothing_is_invalid_v24() {
    for (from, to, backend) in PAIRS {
        let trial = trial(&[add_service(to, Proto::Tcp, &[backend])]);
        let (src, dst) = (end(from).0.to_string(), end(to).0.to_string());
        let [request, reply, error, stray] = if end(to).0.is_ipv4() { [8, 0, 3, 13] } else { [128, 129, 1, 9] };
        let ping = icmp(&src, &dst, request, 7);
        let (next, walk) = trial.decide(1, &ping, |_| ());
        assert_eq!(next, Next::Enter("deliver"));
        assert_eq!(walk.outputs, [Copy { port: PortId::STACK, vlan: VlanEdit::Keep, mtu: u16::MAX }]);
        assert_eq!(walk.key, walk.start, "the stack hears it as it came");
        for (kind, reason) in
            [(reply, DropReason::Invalid), (error, DropReason::Invalid), (stray, DropReason::NoServicePort)]
        {
            assert_eq!(fate(&trial, &icmp(&src, &dst, kind, 7)).0, Next::Drop(reason), "{kind}");
        }
        for to in [to.to_owned(), to.replace(":80", ":81")] {
            let reset = flow(6, from, &to, RST | ACK);
            let (next, walk) = trial.decide(1, &reset, |_| ());
            assert_eq!((next, walk.transient), (Next::Drop(DropReason::Invalid), true));
        }
    }
}

#[test]
fn row_1_4_an_address_of_a_range_that_no_service_has_is_dropped_by_name() {
    let [v4, v6] = ["10.96.0.0/16", "fd00:96::/112"].map(range);
    let mut trial = trial(&[v4.clone(), v6, add_service("10.96.0.1:80", Proto::Tcp, &[])]);
    for (from, to) in [("10.0.0.1:1", "10.96.0.2:80"), ("[fd00::1]:1", "[fd00:96::2]:80")] {
        for proto in PROTOS {
            let dropped = Next::Drop(DropReason::UnknownService);
            assert_eq!(fate(&trial, &flow(proto as u8, from, to, SYN)).0, dropped);
        }
        assert_eq!(fate(&trial, &flow(6, from, &to.replace("96", "97"), SYN)).0, Next::Continue);
    }
    let ping = icmp("10.0.0.1", "10.96.0.2", 8, 1);
    assert_eq!(fate(&trial, &ping).0, Next::Drop(DropReason::UnknownService));
    let Change::ServiceRange(delta) = v4 else { unreachable!() };
    trial.apply(&[Change::ServiceRange(delta.inverse())]);
    assert_eq!(fate(&trial, &ping).0, Next::Continue);
}

#[test]
fn what_is_to_no_service_or_of_a_known_connection_or_on_a_plain_bridge_goes_on_as_it_is() {
    let trial = trial(&[range("10.96.0.0/16"), add_service("10.96.0.1:80", Proto::Tcp, &["10.0.0.2:8080"])]);
    let (direct, served) = (flow(6, "10.0.0.1:1", "10.0.0.2:8080", SYN), flow(6, "10.0.0.1:1", "10.96.0.1:80", SYN));
    let (next, walk) = trial.decide(1, &direct, |_| ());
    assert_eq!((next, walk.key), (Next::Continue, walk.start));
    let (next, walk) = trial.decide(1, &served, |walk| walk.routed = false);
    assert_eq!((next, walk.key), (Next::Continue, walk.start));
    assert_eq!(walk.asked.deps(false), crate::probe::cells::Deps::default(), "no table was asked");
}

#[test]
fn an_address_stays_a_services_until_its_last_port_goes_s6() {
    let services = [
        service("10.96.0.1:80", Proto::Tcp, Choice::Random, &["10.0.0.2:80"]),
        service("10.96.0.1:53", Proto::Udp, Choice::Random, &["10.0.0.2:53"]),
    ];
    let mut trial = trial(&services.clone().map(|service| Change::Service(Delta::add(service))));
    let ping = icmp("10.0.0.1", "10.96.0.1", 8, 1);
    let [web, dns] = services;
    trial.apply(&[Change::Service(Delta::remove(web.clone()))]);
    assert_eq!(fate(&trial, &ping).0, Next::Enter("deliver"));
    let gone = fate(&trial, &flow(6, "10.0.0.1:1", "10.96.0.1:80", SYN)).0;
    assert_eq!(gone, Next::Reply(Reply::Reset(DropReason::NoServicePort)));
    let kept = fate(&trial, &flow(17, "10.0.0.1:1", "10.96.0.1:53", 0));
    assert_eq!(kept, (Next::Continue, end("10.0.0.2:53")));
    trial.apply(&[Change::Service(Delta::replace(dns.clone(), dns.clone()))]);
    trial.apply(&[Change::Service(Delta::remove(dns))]);
    assert_eq!(fate(&trial, &ping).0, Next::Continue);
}

#[test]
fn v1_random_choice_meets_every_backend_as_often() {
    let backends = ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080", "10.0.0.5:8080"];
    let mut trial = trial(&[add_service("10.96.0.1:80", Proto::Tcp, &backends)]);
    let seen = spread(&trial, 4000);
    assert_eq!(seen.len(), 4);
    // Five standard deviations of a binomial distribution with n = 4000 and p = 1/4.
    assert!(seen.values().all(|&n| (863..=1137).contains(&n)), "{seen:?}");
    // One source port that comes again and again is not bound to one backend either.
    let again = flow(6, "10.0.0.1:7", "10.96.0.1:80", SYN);
    let mut met = std::collections::BTreeSet::new();
    for second in 0..200 {
        trial.now = Now(Duration::from_secs(second));
        met.insert(fate(&trial, &again).1);
    }
    assert_eq!(met.len(), 4);
}

#[test]
fn maglev_choice_stays_when_time_passes_and_when_another_backend_leaves() {
    let all = ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080", "10.0.0.5:8080"];
    let [before, after] = [&all[..], &all[..3]].map(|list| service("10.96.0.1:80", Proto::Tcp, Choice::Maglev, list));
    let mut trial = trial(&[Change::Service(Delta::add(before.clone()))]);
    let chosen = |trial: &Trial| -> Vec<_> {
        let frame = |port| flow(6, &format!("10.0.0.1:{port}"), "10.96.0.1:80", SYN);
        (1..500).map(|port| fate(trial, &frame(port)).1.0).collect()
    };
    let first = chosen(&trial);
    trial.now = Now(Duration::from_secs(5));
    assert_eq!(chosen(&trial), first);
    trial.apply(&[Change::Service(Delta::replace(before, after))]);
    let then = chosen(&trial);
    let stayed = first.iter().zip(&then).filter(|(a, _)| **a != ip("10.0.0.5"));
    let (kept, moved): (Vec<_>, Vec<_>) = stayed.partition(|(a, b)| a == b);
    assert!(kept.len() > 300 && moved.len() < 20, "{} stayed, {} moved", kept.len(), moved.len());
    assert!(!then.contains(&ip("10.0.0.5")));
}

#[test]
fn a_refusal_is_asked_again_when_the_service_appears() {
    let mut trial = trial(&[range("10.96.0.0/16")]);
    let frame = flow(6, "10.0.0.1:1", "10.96.0.1:80", SYN);
    let (_, walk) = trial.decide(1, &frame, |_| ());
    let (deps, made) = (walk.asked.deps(false), trial.live.cells.now());
    assert!(trial.live.cells.unchanged_since(&deps.cells(), made));
    trial.apply(&[add_service("10.96.0.1:80", Proto::Tcp, &[])]);
    assert!(!trial.live.cells.unchanged_since(&deps.cells(), made));
}
