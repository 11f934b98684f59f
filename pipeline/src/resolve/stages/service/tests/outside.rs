//! Services at addresses by which they are reached from beyond the cluster.

use api::EndpointKind;

use super::*;
use crate::resolve::trial::{endpoint, endpoints, external, router};

/// Of each IP version: a pod's address, the node's, one from beyond, and at each of them a service may be reached from
/// beyond; backends on this node and on another.
pub(super) const WORLD: [World; 2] = [
    World {
        pod: "10.0.0.1:4000",
        node: "192.0.2.1:4000",
        beyond: "203.0.113.9:4000",
        external: ["192.0.2.1:30080", "198.51.100.7:80"],
        here: "10.0.0.2:8080",
        there: "10.0.7.2:8080",
    },
    World {
        pod: "[fd00::1]:4000",
        node: "[2001:db8::1]:4000",
        beyond: "[2001:db8:9::9]:4000",
        external: ["[2001:db8::1]:30080", "[2001:db8:7::7]:80"],
        here: "[fd00::2]:8080",
        there: "[fd00:7::2]:8080",
    },
];

pub(super) struct World {
    pub(super) pod: &'static str,
    pub(super) node: &'static str,
    pub(super) beyond: &'static str,
    pub(super) external: [&'static str; 2],
    pub(super) here: &'static str,
    pub(super) there: &'static str,
}

fn add(service: Service) -> Change {
    Change::Service(Delta::add(service))
}

/// The node of [`crate::resolve::trial`], with these services.
pub(super) fn node(services: impl IntoIterator<Item = Service>) -> Trial {
    let mut changes = endpoints();
    changes.push(Change::Router(Delta::add(router())));
    changes.extend(services.into_iter().map(add));
    trial(&changes)
}

/// What becomes of a first packet, and what a trace says of it.
pub(super) fn told(trial: &Trial, frame: &[u8]) -> (Next, Option<Chosen>, String) {
    let (next, walk) = trial.decide(1, frame, |walk| walk.steps = Some(vec![TraceStep::default()]));
    (next, walk.service, walk.steps.unwrap().remove(0).note)
}

/// The refusal of a first packet, whose destination is this.
fn refusal(proto: Proto, to: &str) -> Next {
    Next::Reply(match proto {
        Proto::Tcp => Reply::Reset(DropReason::NoBackend),
        _ => Reply::Error(IcmpError::PortUnreachable, end(to).0, DropReason::NoBackend),
    })
}

#[test]
fn row_1_4_an_external_address_leads_to_what_its_policy_leaves_for_who_speaks() {
    let (served, silence) = (Next::Continue, Next::Drop(DropReason::NoLocalEndpoint));
    for world in &WORLD {
        let World { pod, node: itself, beyond, here, there, .. } = *world;
        // All backends, those of this node under policy Local; and for each who may speak, the backend that is met.
        type Row<'a> = (&'a [&'a str], Option<&'a [&'a str]>, [Option<&'a str>; 3]);
        let rows: [Row<'_>; 6] = [
            (&[there], None, [Some(there); 3]),
            (&[], None, [None; 3]),
            (&[there], Some(&[here]), [Some(there), Some(there), Some(here)]),
            (&[there], Some(&[]), [Some(there), Some(there), None]),
            (&[here], Some(&[here]), [Some(here); 3]),
            (&[], Some(&[]), [None; 3]),
        ];
        for ((backends, local, met), at) in rows.into_iter().flat_map(|row| world.external.map(|at| (row, at))) {
            for proto in PROTOS {
                let trial = node([external(service(at, proto, Choice::Random, backends), local, None)]);
                for (from, met) in [pod, itself, beyond].into_iter().zip(met) {
                    let (next, chosen, note) = told(&trial, &flow(proto as u8, from, at, SYN));
                    let what = format!("{from} to {at}: {backends:?}, {local:?}: {note}");
                    let reached = if local.is_some() { Reached::ExternalLocal } else { Reached::External };
                    assert_eq!(
                        chosen,
                        met.map(|met| Chosen { backend: met.parse().unwrap(), reached, visit: None }),
                        "{what}"
                    );
                    let expected = match met {
                        Some(_) => served,
                        None if backends.is_empty() => refusal(proto, at),
                        None => silence,
                    };
                    assert_eq!(next, expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn row_1_4_a_service_that_is_served_elsewhere_only_meets_silence_at_every_address() {
    for proto in PROTOS {
        for ((from, to, _), world) in PAIRS.into_iter().zip(&WORLD) {
            // Internal traffic policy Local: what is on other nodes is not told, but that it is there.
            let bare = Service { elsewhere: true, ..service(to, proto, Choice::Random, &[]) };
            let trial = node([bare]);
            let (next, _, note) = told(&trial, &flow(proto as u8, from, to, SYN));
            assert_eq!(next, Next::Drop(DropReason::NoLocalEndpoint));
            assert_eq!(note, format!("service default/{to} has no backend, and some elsewhere"));
            let [at, _] = world.external;
            let bare = Service { elsewhere: true, ..service(at, proto, Choice::Random, &[]) };
            let trial = node([external(bare, Some(&[]), None)]);
            for from in [world.pod, world.beyond] {
                let (next, ..) = told(&trial, &flow(proto as u8, from, at, SYN));
                assert_eq!(next, Next::Drop(DropReason::NoLocalEndpoint));
            }
        }
    }
}

#[test]
fn v11_source_ranges_keep_out_whoever_speaks_before_anything_else_is_asked() {
    for world in &WORLD {
        let [_, at] = world.external;
        let ranges: [(&[&str], [bool; 3]); 4] = [
            (&["203.0.113.0/24", "2001:db8:9::/48"], [false, false, true]),
            (&["10.0.0.0/24", "fd00::/64"], [true, false, false]),
            (&["192.0.2.1/32", "203.0.113.9/32", "2001:db8::1/128", "2001:db8:9::9/128"], [false, true, true]),
            (&[], [false; 3]),
        ];
        for (ranges, admitted) in ranges {
            for (proto, backends) in PROTOS.into_iter().flat_map(|proto| [(proto, vec![world.here]), (proto, vec![])]) {
                let trial = node([external(service(at, proto, Choice::Random, &backends), None, Some(ranges))]);
                for (from, admitted) in [world.pod, world.node, world.beyond].into_iter().zip(admitted) {
                    let (next, _, note) = told(&trial, &flow(proto as u8, from, at, SYN));
                    let expected = match (admitted, backends.is_empty()) {
                        (false, _) => Next::Drop(DropReason::SourceRange),
                        (true, true) => refusal(proto, at),
                        (true, false) => Next::Continue,
                    };
                    assert_eq!(next, expected, "{from} within {ranges:?}: {note}");
                    assert_eq!(note.contains("source ranges"), !admitted);
                }
            }
        }
    }
}

#[test]
fn v7_a_node_port_leaves_the_nodes_other_ports_to_the_node() {
    for world in &WORLD {
        let [node_port, vip] = world.external;
        for proto in PROTOS {
            let services =
                [node_port, vip].map(|at| external(service(at, proto, Choice::Random, &[world.here]), None, None));
            let mut trial = node(services.clone());
            let ssh = |to: &str| format!("{}", SocketAddr::new(end(to).0, 22));
            for from in [world.pod, world.beyond] {
                for other in PROTOS {
                    let frame = flow(other as u8, from, &ssh(node_port), SYN);
                    assert_eq!(fate(&trial, &frame), (Next::Continue, end(&ssh(node_port))), "{other} {from}");
                    let expected = match other {
                        Proto::Tcp => Reply::Reset(DropReason::NoServicePort),
                        _ => Reply::Error(IcmpError::PortUnreachable, end(vip).0, DropReason::NoServicePort),
                    };
                    let frame = flow(other as u8, from, &ssh(vip), SYN);
                    assert_eq!(
                        fate(&trial, &frame).0,
                        Next::Reply(expected),
                        "the address is nobody's but the service's"
                    );
                }
                // Whatever is not to the node port: ping, its answer, an error, another protocol.
                let (src, dst) = (end(from).0.to_string(), end(node_port).0.to_string());
                for kind in if end(from).0.is_ipv4() { [8, 0, 3, 13] } else { [128, 129, 1, 9] } {
                    assert_eq!(fate(&trial, &icmp(&src, &dst, kind, 7)).0, Next::Continue, "{kind}");
                }
                assert_eq!(fate(&trial, &packet(ip(&src), ip(&dst), 47, &[0; 8])).0, Next::Continue);
                let ping = icmp(&src, &end(vip).0.to_string(), if end(vip).0.is_ipv4() { 8 } else { 128 }, 7);
                assert_eq!(fate(&trial, &ping).0, Next::Enter("deliver"));
            }
            let frame = flow(proto as u8, world.beyond, &ssh(node_port), SYN);
            let (_, walk) = trial.decide(1, &frame, |_| ());
            let (deps, made) = (walk.asked.deps(false), trial.live.cells.now());
            let [node_port, _] = services;
            trial.apply(&[Change::Service(Delta::remove(node_port))]);
            assert!(!trial.live.cells.unchanged_since(&deps.cells(), made), "who asked the node asks again");
        }
    }
}

#[test]
fn a_decision_falls_with_who_the_client_is_and_with_the_policy() {
    let [world, _] = &WORLD;
    let [at, _] = world.external;
    let before = external(service(at, Proto::Udp, Choice::Random, &[world.there]), Some(&[]), None);
    let after = external(service(at, Proto::Udp, Choice::Random, &[world.there]), None, None);
    let pod = Change::Endpoint(Delta::add(endpoint("203.0.113.9", 2, EndpointKind::Pod, 9)));
    for change in [Change::Service(Delta::replace(before.clone(), after)), pod] {
        let mut trial = node([before.clone()]);
        let frame = flow(17, world.beyond, at, 0);
        let (next, walk) = trial.decide(1, &frame, |_| ());
        assert_eq!((next, walk.transient), (Next::Drop(DropReason::NoLocalEndpoint), false));
        let (deps, made) = (walk.asked.deps(false), trial.live.cells.now());
        trial.apply(&[change]);
        assert!(!trial.live.cells.unchanged_since(&deps.cells(), made));
        assert_eq!(fate(&trial, &frame), (Next::Continue, end(world.there)));
    }
}

#[test]
fn a_trace_tells_the_backends_of_which_set_were_asked() {
    let [world, _] = &WORLD;
    let [at, _] = world.external;
    for (local, from, note) in [
        (None, world.beyond, "service default/192.0.2.1:30080, backend 10.0.7.2:8080 of all"),
        (Some(&[world.here][..]), world.pod, "service default/192.0.2.1:30080, backend 10.0.7.2:8080 of all"),
        (Some(&[world.here]), world.beyond, "service default/192.0.2.1:30080, backend 10.0.0.2:8080 of this node's"),
        (Some(&[]), world.beyond, "service default/192.0.2.1:30080 has no backend of this node's, and some elsewhere"),
    ] {
        let trial = node([external(service(at, Proto::Tcp, Choice::Random, &[world.there]), local, None)]);
        assert_eq!(told(&trial, &flow(6, from, at, SYN)).2, note);
    }
}
