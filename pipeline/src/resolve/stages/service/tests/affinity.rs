//! Session affinity.

use super::outside::{WORLD, node, told};
use super::*;
use crate::live::Live;
use crate::live::affinity::Client;
use crate::live::connections::{Committed, Plan, Source};
use crate::resolve::trial::external;

/// The backend that a first packet meets, which is then remembered as if its connection was made.
fn meet(trial: &Trial, proto: Proto, from: &str, to: &str) -> SocketAddr {
    let frame = flow(proto as u8, from, to, SYN);
    let (_, walk) = trial.decide(1, &frame, |_| ());
    let Chosen { backend, visit, .. } = walk.service.expect("it is served");
    if let Some(visit) = visit {
        let kept = trial.live.affinity.keep(&visit, backend, PortId(1), trial.now, || made(&walk, &trial.live));
        assert!(matches!(kept, Committed::New(_)), "{kept:?}");
    }
    backend
}

fn made(walk: &Walk<'_>, live: &Live) -> Committed {
    let (original, event) = (walk.tuple.unwrap(), walk.event());
    let dst = (walk.key.destination().unwrap(), walk.key.tp_dst());
    let plan = Plan { original, dst, src: Source::Own, port: PortId(1), identities: [0; 2], event };
    live.connections.commit(&plan, walk.now, &live.cells)
}

/// A service with affinity at each of these addresses.
fn sticky(at: &[&str], proto: Proto, choice: Choice, backends: &[&str]) -> Vec<Service> {
    let one = |at: &&str| {
        let name = "default/sticky".into();
        Service { affinity: Some(100), name, ..service(at, proto, choice, backends) }
    };
    at.iter().map(one).collect()
}

#[test]
fn v5_a_client_meets_the_backend_that_it_met_at_whatever_address_of_the_service_and_whatever_choice() {
    let many = |six: bool| -> Vec<String> {
        (1..=50).map(|i| if six { format!("[fd00:7::{i}]:80") } else { format!("10.0.7.{i}:80") }).collect()
    };
    for (world, proto) in WORLD.iter().flat_map(|world| PROTOS.map(|proto| (world, proto))) {
        let [node_port, vip] = world.external;
        let cluster = if end(vip).0.is_ipv4() { "10.96.0.1:80" } else { "[fd00:96::1]:80" };
        let backends = many(end(vip).0.is_ipv6());
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        for choice in [Choice::Random, Choice::Maglev] {
            let [a, b, c] = &sticky(&[cluster, vip, node_port], proto, choice, &backends)[..] else { unreachable!() };
            let outside = [b, c].map(|service| external(service.clone(), None, None));
            let mut trial = node([a.clone()].into_iter().chain(outside));
            for client in [world.pod, world.node, world.beyond] {
                let from = |port: u16| SocketAddr::new(end(client).0, port).to_string();
                let first = meet(&trial, proto, &from(1), cluster);
                for (port, to) in (2..).zip([cluster, vip, node_port].repeat(4)) {
                    trial.now.0 += Duration::from_secs(99);
                    assert_eq!(meet(&trial, proto, &from(port), to), first, "{client} to {to}");
                }
                trial.now.0 += Duration::from_secs(100);
                let later = (100..200).map(|port| {
                    trial.now.0 += Duration::from_secs(100);
                    meet(&trial, proto, &from(port), cluster)
                });
                assert!(later.collect::<std::collections::BTreeSet<_>>().len() > 10, "after its time is over");
            }
        }
    }
}

#[test]
fn v5_what_a_client_met_counts_for_nothing_where_it_is_no_backend_for_who_speaks() {
    for world in &WORLD {
        let [at, _] = world.external;
        let [service] = &sticky(&[at], Proto::Tcp, Choice::Random, &[world.there])[..] else { unreachable!() };
        let cluster = external(service.clone(), None, None);
        let local = external(service.clone(), Some(&[world.here]), None);
        let mut trial = node([cluster.clone()]);
        assert_eq!(meet(&trial, Proto::Tcp, world.beyond, at).to_string(), world.there);
        trial.apply(&[Change::Service(Delta::replace(cluster.clone(), local.clone()))]);
        let again = world.beyond.replace(":4000", ":4001");
        assert_eq!(meet(&trial, Proto::Tcp, &again, at).to_string(), world.here, "policy Local");
        let (_, _, note) = told(&trial, &flow(6, world.beyond, at, SYN));
        assert!(note.ends_with("of this node's, which the client met before"), "{note}");
        // Its backend goes, and comes back: what counts is what it met last.
        trial.apply(&[Change::Service(Delta::replace(local, cluster))]);
        let later = world.beyond.replace(":4000", ":4002");
        assert_eq!(meet(&trial, Proto::Tcp, &later, at).to_string(), world.there);
    }
}

#[test]
fn v5_affinity_comes_and_goes_with_the_service_and_a_walk_alone_changes_nothing() {
    let backends = ["10.0.7.1:80", "10.0.7.2:80", "10.0.7.3:80", "10.0.7.4:80"];
    let [with] = &sticky(&["10.96.0.1:80"], Proto::Tcp, Choice::Random, &backends)[..] else { unreachable!() };
    let without = Service { affinity: None, ..with.clone() };
    let mut trial = node([without.clone()]);
    assert!(spread(&trial, 100).len() > 1);
    trial.apply(&[Change::Service(Delta::replace(without.clone(), with.clone()))]);
    assert!(spread(&trial, 100).len() > 1, "no connection was made");
    assert!(trial.live.affinity.is_empty());
    meet(&trial, Proto::Tcp, "10.0.0.1:1", "10.96.0.1:80");
    assert_eq!(spread(&trial, 100).len(), 1);
    let client = |service| Client { service, zone: ZONE, address: ip("10.0.0.1") };
    assert_eq!(trial.live.affinity.find(&client(0), 100, trial.now), None, "known by the service's name");
    trial.apply(&[Change::Service(Delta::replace(with.clone(), without))]);
    assert!(spread(&trial, 100).len() > 1);
}

#[test]
fn v6_each_port_of_a_service_remembers_its_clients_for_itself() {
    let backends = ["10.0.7.1:80", "10.0.7.2:80", "10.0.7.3:80", "10.0.7.4:80"];
    let named = |at, name: &str| Service {
        affinity: Some(100),
        name: name.into(),
        ..service(at, Proto::Tcp, Choice::Random, &backends)
    };
    let trial = node([named("10.96.0.1:80", "default/web:http"), named("10.96.0.1:443", "default/web:https")]);
    let both = |number: u8| {
        let from = format!("10.0.0.{number}:1");
        ["10.96.0.1:80", "10.96.0.1:443"].map(|to| meet(&trial, Proto::Tcp, &from, to))
    };
    assert!((1..50).map(both).any(|[http, https]| http != https));
}
