//! Services at addresses by which they are reached from beyond the cluster, and session affinity: through all stages, as a
//! miss and as a hit, with one worker and with two, on the node of [`crate::kit::node`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::{Change, Choice, Delta, External, PortId, Proto, Service, ServiceKey};
use pipeline::drop::DropReason;
use pipeline::live::connections::Limits;
use pipeline::resolve::trace::trace;

use crate::kit::net::mac;
use crate::kit::node::*;
use crate::kit::{Bench, Fate, MODES};
use crate::translate::{Talk, converse};

/// The host beyond the uplink.
const HOST: u16 = 9;

fn backends(list: &[&str]) -> Arc<[SocketAddr]> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// A service at an external address, for TCP and UDP: all its backends, and under policy Local those of this node.
fn outside(at: &str, all: &[&str], local: Option<&[&str]>) -> Vec<Service> {
    let end: SocketAddr = at.parse().unwrap();
    let external = External { local: local.map(backends), sources: None, cluster: end };
    let one = |proto| {
        let key = ServiceKey { address: end.ip(), proto, port: end.port() };
        let external = Some(Arc::new(external.clone()));
        Service { external, ..Service::new(key, format!("default/{at}").into(), backends(all)) }
    };
    [Proto::Tcp, Proto::Udp].map(one).to_vec()
}

/// The node with these services, too.
fn node_with(workers: usize, services: &[Service]) -> Bench {
    let mut bench = node(workers);
    bench.apply(services.iter().map(|service| Change::Service(Delta::add(service.clone()))).collect());
    bench
}

#[test]
fn row_1_5_v7_v9_v10_clients_of_external_addresses_are_served_and_seen_as_the_policy_says() {
    struct Six {
        pod: &'static str,
        node: &'static str,
        host: &'static str,
        at: [&'static str; 2],
        backend: &'static str,
        hidden: &'static str,
    }
    for Six { pod, node, host, at, backend, hidden } in [
        Six {
            pod: "10.0.0.1:4000",
            node: "192.0.2.1:4000",
            host: "203.0.113.9:4000",
            at: ["192.0.2.1:30080", "198.51.100.7:80"],
            backend: "10.0.0.2:8080",
            hidden: "192.0.2.1:50000",
        },
        Six {
            pod: "[fd00::1]:4000",
            node: "[2001:db8::1]:4000",
            host: "[2001:db8:9::9]:4000",
            at: ["[2001:db8::1]:30080", "[2001:db8:7::7]:80"],
            backend: "[fd00::2]:8080",
            hidden: "[2001:db8::1]:50000",
        },
    ] {
        let local: &[&str] = &[backend];
        for (from, client, policy, seen) in [
            ((A, A), pod, None, hidden),
            ((UPLINK, HOST), host, None, hidden),
            ((NODE, NODE), node, None, hidden),
            ((A, A), pod, Some(local), pod),
            ((UPLINK, HOST), host, Some(local), host),
            ((NODE, NODE), node, Some(local), hidden),
        ] {
            for (workers, to) in MODES.into_iter().flat_map(|workers| at.map(|to| (workers, to))) {
                let services = outside(to, &[backend], policy);
                converse(|| node_with(workers, &services), &Talk { from, client, to, server: (B, B), seen, backend });
            }
        }
    }
}

#[test]
fn row_1_4_policy_local_without_an_endpoint_here_is_silent_to_who_is_beyond_and_a_change_is_seen_at_once() {
    for workers in MODES {
        let [before, after] = [None, Some("10.0.0.2:8080")]
            .map(|here| outside("192.0.2.1:30080", &["10.0.0.2:8080"], Some(here.as_slice())));
        let mut bench = node_with(workers, &before);
        let from_host = packet((HOST, ROUTER), "203.0.113.9:4000", "192.0.2.1:30080", 64, Carries::Syn);
        let from_pod = packet((A, ROUTER), "10.0.0.1:4000", "192.0.2.1:30080", 64, Carries::Syn);
        for _ in 0..3 {
            assert_eq!(bench.send(UPLINK, &from_host), Fate::drop(DropReason::NoLocalEndpoint));
            assert_eq!(bench.send(A, &from_pod).ports(), [B]);
        }
        let replace = |(old, new): (&Service, &Service)| Change::Service(Delta::replace(old.clone(), new.clone()));
        bench.apply(before.iter().zip(&after).map(replace).collect());
        assert_eq!(bench.send(UPLINK, &from_host).ports(), [B]);
    }
}

#[test]
fn the_nodes_other_ports_are_the_nodes() {
    for workers in MODES {
        let mut bench = node_with(workers, &outside("192.0.2.1:30080", &["10.0.0.2:8080"], None));
        for (port, host, client) in [(A, A, "10.0.0.1:4000"), (UPLINK, HOST, "203.0.113.9:4000")] {
            for carries in [Carries::Syn, Carries::Datagram] {
                let sent = packet((host, ROUTER), client, "192.0.2.1:22", 64, carries);
                let arrives = packet((ROUTER, NODE), client, "192.0.2.1:22", 64, carries);
                for _ in 0..3 {
                    assert_eq!(bench.send(port, &sent), Fate::out(&[NODE], &arrives), "{client}");
                }
            }
        }
    }
}

/// Pods that are backends by their host number: at port b of the switch all of them.
const PODS: std::ops::RangeInclusive<u16> = 20..=27;

/// A service with affinity, whose backends are many pods behind port b.
fn sticky(workers: usize) -> Bench {
    let pods = PODS.map(|host| endpoint(&format!("10.0.0.{host}"), B, host, api::EndpointKind::Pod));
    let backends = PODS.map(|host| SocketAddr::from(([10, 0, 0, host as u8], 8080))).collect();
    let key = ServiceKey { address: IpAddr::from([10, 96, 0, 7]), proto: Proto::Tcp, port: 80 };
    let service = Service { affinity: Some(100), ..Service::new(key, "default/sticky".into(), backends) };
    let mut bench = node(workers);
    bench.apply(pods.chain([Change::Service(Delta::add(service))]).collect());
    bench
}

fn syn(number: u16) -> Vec<u8> {
    packet((A, ROUTER), &format!("10.0.0.1:{}", 4000 + number), "10.96.0.7:80", 64, Carries::Syn)
}

/// The host that a frame went to.
fn met(fate: &Fate) -> [u8; 6] {
    let [(B, frame)] = fate.sent.as_slice() else { panic!("it goes to a pod: {fate:?}") };
    frame[..6].try_into().unwrap()
}

#[test]
fn v5_all_connections_of_a_client_meet_one_backend_until_it_is_away_for_too_long() {
    for workers in MODES {
        let mut bench = sticky(workers);
        let first = met(&bench.send(A, &syn(0)));
        let burst: Vec<_> = (1..50).map(syn).collect();
        assert!(bench.burst(A, &burst).iter().all(|fate| met(fate) == first));
        bench.pass(Duration::from_secs(99));
        assert_eq!(met(&bench.send(A, &syn(50))), first);
        let mut others = BTreeSet::new();
        for number in 51..100 {
            bench.now.0 += Duration::from_secs(100);
            others.insert(met(&bench.send(A, &syn(number))));
        }
        assert!(others.len() > 3, "{others:?}");
    }
}

#[test]
fn v5_packets_of_a_known_connection_do_not_count() {
    let mut bench = sticky(1);
    let first = met(&bench.send(A, &syn(0)));
    let data = packet((A, ROUTER), "10.0.0.1:4000", "10.96.0.7:80", 64, Carries::Ack);
    for _ in 0..20 {
        bench.pass(Duration::from_secs(10));
        assert_eq!(met(&bench.send(A, &data)), first, "a connection stays where it is");
    }
    let client = bench.live.affinity.len();
    let seen: BTreeSet<_> = (1..30).map(|number| note(&bench, &syn(number))).collect();
    assert!(client == 1 && seen.len() > 3, "{seen:?}");
}

/// What a trace says of the service.
fn note(bench: &Bench, frame: &[u8]) -> String {
    trace(&bench.program, &bench.live, (PortId(A), frame), false, bench.now).decided_by
}

#[test]
fn v5_what_makes_no_connection_is_not_remembered() {
    for workers in MODES {
        let mut bench = sticky(workers);
        (0..20).for_each(|number| _ = note(&bench, &syn(number)));
        assert!(bench.live.affinity.is_empty(), "a trace");
        // Another connection, which is answered and so not to be taken back, is all that there is room for.
        let (a, b) = ("10.0.0.1:4000", "10.0.0.2:53");
        bench.send(A, &packet((A, ROUTER), a, b, 64, Carries::Datagram));
        bench.send(B, &packet((B, ROUTER), b, a, 64, Carries::Datagram));
        bench.live.connections.configure(1);
        assert_eq!(bench.send(A, &syn(0)), Fate::drop(DropReason::ConnectionsFull));
        assert!(bench.live.affinity.is_empty(), "no room");
        bench.live.connections.configure(Limits::default());
        let first = met(&bench.send(A, &syn(0)));
        let told = note(&bench, &syn(1));
        let [.., a, b] = first;
        let host = u16::from_be_bytes([a, b]);
        assert_eq!(mac(host), first);
        assert_eq!(told, format!("service default/sticky, backend 10.0.0.{host}:8080, which the client met before"));
    }
}

#[test]
fn a_choice_that_leads_nowhere_is_made_anew_for_each_packet() {
    let mut bench = node(1);
    bench.apply(vec![route("10.7.0.0/16", api::Hop::Blackhole)]);
    let key = ServiceKey { address: IpAddr::from([10, 96, 0, 7]), proto: Proto::Udp, port: 80 };
    let list = backends(&["10.7.0.1:80", "10.0.0.2:8080"]);
    let service = Service { choice: Choice::Random, ..Service::new(key, "default/half".into(), list) };
    bench.apply(vec![Change::Service(Delta::add(service))]);
    for number in 0..20 {
        let sent = packet((A, ROUTER), &format!("10.0.0.1:{}", 4000 + number), "10.96.0.7:80", 64, Carries::Datagram);
        let mut tries = (0..100).map(|_| {
            bench.now.0 += Duration::from_millis(1);
            bench.send(A, &sent)
        });
        assert!(tries.any(|fate| fate.ports() == [B]), "the other backend is met in the end");
    }
}
