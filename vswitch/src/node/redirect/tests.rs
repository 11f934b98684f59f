//! The kernel's packet filter after what a node was told, in namespaces of their own.

use std::time::Instant;

use api::{Change, External, Proto, Transaction};

use crate::node::Node;
use crate::node::tests::{local, namespace, router, tell};
use crate::sys::netlink::Netlink;
use crate::sys::nftables::{Batch, Nftables, Words, key, target};
use crate::sys::routes::{FAMILIES, Family};

use super::*;

const TABLE: &str = "vswitch-br-pods";

/// A node port or an external address, by which a cluster address is meant.
fn external(at: &str, cluster: &str, sources: Option<&[&str]>) -> Service {
    let at: std::net::SocketAddr = at.parse().unwrap();
    let key = ServiceKey { address: at.ip(), proto: Proto::Tcp, port: at.port() };
    let sources = sources.map(|ranges| ranges.iter().map(|range| range.parse().unwrap()).collect());
    let external = External { local: None, sources, cluster: cluster.parse().unwrap() };
    Service { external: Some(Arc::new(external)), ..Service::new(key, "default/web".into(), [].into()) }
}

fn add(service: &Service) -> Change {
    Change::Service(Delta::add(service.clone()))
}

fn remove(service: &Service) -> Change {
    Change::Service(Delta::remove(service.clone()))
}

/// A node with its router, told of these services.
fn node(services: &[&Service]) -> Node {
    let mut node = Node::default();
    let mut changes = vec![Change::Port(Delta::add(local())), Change::Router(Delta::add(router()))];
    changes.extend(services.iter().map(|service| add(service)));
    tell(&mut node, changes);
    node
}

/// What the map of a family has, and how many rules there are.
fn kernel(family: Family) -> (BTreeMap<Words, Words>, usize) {
    let mut line = Nftables::open().unwrap();
    let elements = line.elements(family, TABLE, MAP).unwrap();
    (elements, line.rules(family, TABLE).unwrap().len())
}

fn as_elements(services: &[&Service]) -> BTreeMap<Words, Words> {
    let element = |service: &&Service| {
        let cluster = service.external.as_ref().unwrap().cluster;
        (key(service.key.address, Proto::Tcp, service.key.port), target(cluster.ip(), cluster.port()))
    };
    services.iter().map(element).collect()
}

#[track_caller]
fn assert_kernel(family: Family, services: &[&Service]) {
    let rules = if services.is_empty() { 0 } else { 2 };
    assert_eq!(kernel(family), (as_elements(services), rules));
}

#[track_caller]
fn assert_no_table() {
    let mut line = Nftables::open().unwrap();
    assert_eq!(FAMILIES.map(|family| line.has_table(family, TABLE).unwrap()), [false; 2]);
}

#[test]
fn the_table_is_there_while_an_interface_has_an_address_of_a_service() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let far = external("198.51.100.7:80", "10.96.0.10:80", None);
        let mut node = node(&[&far]);
        node.complete();
        assert_no_table();
        let (port, six) = (
            external("192.0.2.10:30080", "10.96.0.10:80", None),
            external("[2001:db8::10]:30080", "[fd00:96::a]:80", None),
        );
        tell(&mut node, vec![add(&port), add(&six)]);
        assert_kernel(Family::V4, &[&far, &port]);
        assert_kernel(Family::V6, &[&six]);
        tell(&mut node, vec![remove(&port)]);
        assert!(!Nftables::open().unwrap().has_table(Family::V4, TABLE).unwrap());
        assert_kernel(Family::V6, &[&six]);
        // An interface gets the address.
        let netlink = Netlink::open().unwrap();
        netlink.add_address(netlink.index("eth0").unwrap(), far.key.address, 32).unwrap();
        node.upkeep();
        assert_kernel(Family::V4, &[&far]);
        node.withdraw();
        assert_no_table();
    });
}

#[test]
fn changes_are_told_singly_and_the_rest_of_the_table_stays() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let [one, two] = ["192.0.2.10:30080", "192.0.2.10:30081"].map(|at| external(at, "10.96.0.10:80", None));
        let mut node = node(&[&one]);
        let rules = Nftables::open().unwrap().rules(Family::V4, TABLE).unwrap();
        tell(&mut node, vec![add(&two)]);
        assert_kernel(Family::V4, &[&one, &two]);
        let moved = external("192.0.2.10:30080", "10.96.0.11:80", None);
        tell(&mut node, vec![Change::Service(Delta::replace(one.clone(), moved.clone())), remove(&two)]);
        assert_kernel(Family::V4, &[&moved]);
        // A change that says nothing to the kernel, and one that comes to nothing.
        tell(&mut node, vec![Change::Service(Delta::replace(moved.clone(), moved.clone())), add(&two), remove(&two)]);
        assert_kernel(Family::V4, &[&moved]);
        assert_eq!(Nftables::open().unwrap().rules(Family::V4, TABLE).unwrap(), rules, "it was never made anew");
    });
}

#[test]
fn what_somebody_else_does_to_the_table_is_set_right_and_their_tables_stay() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let [one, two] = ["192.0.2.10:30080", "192.0.2.10:30081"].map(|at| external(at, "10.96.0.10:80", None));
        let mut node = node(&[&one, &two]);
        node.complete();
        let mut line = Nftables::open().unwrap();
        line.commit(Batch::of(Family::V4, "theirs").begin_anew().add_map("services")).unwrap();
        let gone = key(one.key.address, Proto::Tcp, one.key.port);
        let strange = (key(one.key.address, Proto::Udp, 9), target(one.key.address, 9));
        let damages = [
            Batch::of(Family::V4, TABLE).remove_elements(MAP, &[&gone]).clone(),
            Batch::of(Family::V4, TABLE).add_elements(MAP, &[(&strange.0, &strange.1)]).clone(),
            Batch::of(Family::V4, TABLE).remove_table().clone(),
            Batch::of(Family::V4, TABLE).begin_anew().clone(),
        ];
        for damage in &damages {
            line.commit(damage).unwrap();
            assert_ne!(kernel(Family::V4).0, as_elements(&[&one, &two]));
            node.upkeep();
            assert_kernel(Family::V4, &[&one, &two]);
        }
        // Nor does a change fail by it.
        line.commit(&damages[0]).unwrap();
        tell(&mut node, vec![remove(&one)]);
        assert_kernel(Family::V4, &[&two]);
        node.withdraw();
        assert!(line.has_table(Family::V4, "theirs").unwrap());
    });
}

#[test]
fn what_an_earlier_daemon_left_serves_until_all_is_told_and_is_not_there_twice() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let [one, two] = ["192.0.2.10:30080", "192.0.2.10:30081"].map(|at| external(at, "10.96.0.10:80", None));
        drop(node(&[&one]));
        assert_kernel(Family::V4, &[&one]);
        let mut later = node(&[]);
        assert_kernel(Family::V4, &[&one]);
        tell(&mut later, vec![add(&two)]);
        assert_kernel(Family::V4, &[&two]);
        drop(later);
        // It comes back with nothing for it.
        let mut last = node(&[]);
        last.complete();
        last.upkeep();
        assert_no_table();
    });
}

#[test]
fn a_service_that_does_not_admit_the_node_is_left_out() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let shut = external("192.0.2.10:80", "10.96.0.10:80", Some(&["203.0.113.0/24"]));
        let open = external("192.0.2.10:81", "10.96.0.10:81", Some(&["203.0.113.0/24", "192.0.2.0/24"]));
        let _node = node(&[&shut, &open]);
        assert_kernel(Family::V4, &[&open]);
    });
}

#[test]
fn a_kernel_that_refuses_is_complained_of_and_asked_again() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        // Whoever owns a table is the only one to change it.
        let mut owner = Nftables::open().unwrap();
        owner.commit(Batch::of(Family::V4, TABLE).own_table()).unwrap();
        let (port, far) =
            (external("192.0.2.10:30080", "10.96.0.10:80", None), external("198.51.100.7:80", "10.96.0.10:80", None));
        let six = external("[2001:db8::10]:30080", "[fd00:96::a]:80", None);
        let mut node = node(&[&port, &far, &six]);
        node.complete();
        assert_eq!(node.unreached(&port.key).as_deref(), Some("Operation not permitted (os error 1)"));
        assert_eq!(node.unreached(&far.key), None, "there is a route");
        assert_eq!(node.unreached(&six.key), None, "the other family has its table");
        assert_kernel(Family::V6, &[&six]);
        drop(owner);
        node.upkeep();
        assert_eq!(node.unreached(&port.key), None);
        assert_kernel(Family::V4, &[&port, &far]);
    });
}

#[test]
fn ten_thousand_services_are_told_at_once_and_one_more_costs_little() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let all: Vec<_> =
            (0..10_000u16).map(|n| external(&format!("192.0.2.10:{}", 30_000 + n), "10.96.0.10:80", None)).collect();
        let start = Instant::now();
        let mut node = node(&all.iter().collect::<Vec<_>>());
        let whole = start.elapsed();
        assert_eq!(kernel(Family::V4).0.len(), all.len());
        node.complete();
        let start = Instant::now();
        node.upkeep();
        let look = start.elapsed();
        let start = Instant::now();
        node.upkeep();
        let again = start.elapsed();
        let one = external("192.0.2.10:80", "10.96.0.10:80", None);
        let start = Instant::now();
        tell(&mut node, vec![add(&one)]);
        let more = start.elapsed();
        println!(
            "10,000 services: told in {whole:?}, compared in {look:?}, undisturbed {again:?}; one more in {more:?}"
        );
        assert_eq!(kernel(Family::V4).0.len(), all.len() + 1);
        node.record(&Transaction { changes: all.iter().map(remove).collect() });
        node.settle();
        assert_kernel(Family::V4, &[&one]);
    });
}
