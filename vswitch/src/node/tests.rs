//! The kernel's tables after what a switch was told, in namespaces of their own.

use api::{PortId, Proto, ServiceKey, ServiceRange, Vlan};

use super::*;
use crate::sys::netlink::Netlink;
use crate::sys::netns::Namespace;

const BRIDGE: BridgeId = BridgeId(1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

pub(super) fn local() -> Port {
    Port {
        id: PortId(1),
        name: "br-pods".to_owned(),
        bridge: BRIDGE,
        ofport: Port::LOCAL,
        kind: "internal".to_owned(),
        options: Default::default(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: Default::default(),
    }
}

pub(super) fn router() -> Router {
    Router {
        bridge: BRIDGE,
        mac: MAC,
        gateways: vec!["10.1.0.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()],
        node: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        uplink: None,
        local: None,
        snat_ports: Router::SNAT_PORTS,
    }
}

fn range(prefix: &str) -> ServiceRange {
    ServiceRange { prefix: prefix.parse().unwrap(), origin: "--service-cidr".to_owned() }
}

fn service(address: &str, port: u16) -> Service {
    let key = ServiceKey { address: address.parse().unwrap(), proto: Proto::Tcp, port };
    Service::new(key, "default/web".into(), [].into())
}

pub(super) fn tell(node: &mut Node, changes: Vec<Change>) {
    node.record(&Transaction { changes });
    node.settle();
}

/// A namespace with a veth that stands for the bridge's interface, and one that has the node's addresses.
pub(super) fn namespace() -> Option<Namespace> {
    let Ok(namespace) = Namespace::new() else {
        println!("SKIPPED: needs CAP_SYS_ADMIN and CAP_NET_ADMIN");
        return None;
    };
    namespace.run(|| {
        let netlink = Netlink::open().unwrap();
        for (name, peer) in [("br-pods", "far"), ("eth0", "wire"), ("br-other", "other")] {
            netlink.add_veth(name, peer, None).unwrap();
            for end in [peer, name] {
                let up = end != "br-pods";
                let index = netlink.index(end).unwrap();
                netlink.set(index, &Settings { up: Some(up), ..Settings::default() }).unwrap();
            }
        }
        let eth0 = netlink.index("eth0").unwrap();
        netlink.add_address(eth0, "192.0.2.10".parse().unwrap(), 24).unwrap();
        netlink.add_address(eth0, "2001:db8::10".parse().unwrap(), 64).unwrap();
    });
    Some(namespace)
}

/// Our routes as `ip route` would print the most of them, neighbours, and whether each family has the rule.
fn kernel() -> (Vec<String>, Vec<String>, [bool; 2]) {
    let line = Routes::open().unwrap();
    let index = line.netlink().index("br-pods").unwrap();
    let mut routes = Vec::new();
    for family in FAMILIES {
        for route in line.list(family).unwrap() {
            let dev = if route.interface == index { "" } else { " elsewhere" };
            let source = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
            routes.push(format!("{} via {}{source}{dev}", route.prefix, route.gateway));
        }
    }
    let neighbours = line.neighbours(index).unwrap();
    let neighbours = neighbours.iter().map(|(address, mac)| format!("{address} {mac}")).collect();
    (routes, neighbours, FAMILIES.map(|family| line.has_rule(family).unwrap()))
}

const POD_ROUTES: [&str; 2] = ["10.1.0.0/24 via 10.1.0.1 src 192.0.2.10", "fd00:1::/64 via fd00:1::1 src 2001:db8::10"];
const NEIGHBOURS: [&str; 2] = ["10.1.0.1 02:00:00:00:00:01", "fd00:1::1 02:00:00:00:00:01"];

#[track_caller]
fn assert_kernel(routes: &[&str], neighbours: &[&str], rules: [bool; 2]) {
    let (there, known, ruled) = kernel();
    assert_eq!(there, routes);
    assert_eq!(known, neighbours);
    assert_eq!(ruled, rules);
}

fn nothing() {
    assert_kernel(&[], &[], [false; 2]);
}

#[test]
fn a_router_brings_routes_rules_and_neighbours_and_takes_them_away() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local()))]);
        nothing();
        tell(&mut node, vec![Change::Router(Delta::add(router()))]);
        assert_kernel(&POD_ROUTES, &NEIGHBOURS, [true; 2]);
        let link = Netlink::open().unwrap().link("br-pods").unwrap().unwrap();
        assert!(link.up, "it was switched on");
        for (file, value) in [("ipv4/conf/br-pods/rp_filter", "2"), ("ipv6/conf/br-pods/accept_ra", "0")] {
            let text = std::fs::read_to_string(format!("/proc/sys/net/{file}")).unwrap();
            assert_eq!(text.trim(), value, "{file}");
        }
        assert!(node.complaint.is_empty(), "{}", node.complaint);
        // Another MAC and one family less.
        let changed =
            Router { mac: MacAddr([2, 0, 0, 0, 0, 9]), gateways: router().gateways[..1].to_vec(), ..router() };
        tell(&mut node, vec![Change::Router(Delta::replace(router(), changed.clone()))]);
        assert_kernel(&POD_ROUTES[..1], &["10.1.0.1 02:00:00:00:00:09"], [true, false]);
        tell(&mut node, vec![Change::Router(Delta::remove(changed))]);
        nothing();
    });
}

#[test]
fn ranges_are_routed_and_service_addresses_only_where_no_range_has_them() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut node = Node::default();
        let inside = service("10.96.0.10", 80);
        let (outside, twice, six) = (service("10.200.0.7", 80), service("10.200.0.7", 81), service("fd00:96::7", 80));
        let all = [inside.clone(), outside.clone(), twice.clone(), six.clone()];
        let mut changes = vec![
            Change::Port(Delta::add(local())),
            Change::Router(Delta::add(router())),
            Change::ServiceRange(Delta::add(range("10.96.0.0/12"))),
        ];
        changes.extend(all.iter().cloned().map(|service| Change::Service(Delta::add(service))));
        tell(&mut node, changes);
        let [pods4, pods6] = POD_ROUTES;
        let ranged = "10.96.0.0/12 via 10.1.0.1 src 192.0.2.10";
        let single = "10.200.0.7/32 via 10.1.0.1 src 192.0.2.10";
        let single6 = "fd00:96::7/128 via fd00:1::1 src 2001:db8::10";
        assert_kernel(&[pods4, ranged, single, pods6, single6], &NEIGHBOURS, [true; 2]);
        // An address goes with the last port of it, and comes back alone.
        tell(&mut node, vec![Change::Service(Delta::remove(outside.clone()))]);
        assert_kernel(&[pods4, ranged, single, pods6, single6], &NEIGHBOURS, [true; 2]);
        tell(&mut node, vec![Change::Service(Delta::remove(twice)), Change::Service(Delta::remove(six))]);
        assert_kernel(&[pods4, ranged, pods6], &NEIGHBOURS, [true; 2]);
        tell(&mut node, vec![Change::Service(Delta::add(outside.clone()))]);
        assert_kernel(&[pods4, ranged, single, pods6], &NEIGHBOURS, [true; 2]);
        // What a range has stays when single addresses come and go, and is routed singly when the range goes.
        tell(&mut node, vec![Change::Service(Delta::replace(inside.clone(), inside))]);
        tell(&mut node, vec![Change::ServiceRange(Delta::remove(range("10.96.0.0/12")))]);
        let moved = "10.96.0.10/32 via 10.1.0.1 src 192.0.2.10";
        assert_kernel(&[pods4, moved, single, pods6], &NEIGHBOURS, [true; 2]);
        node.withdraw();
        nothing();
    });
}

#[test]
fn addresses_that_the_kernel_has_itself_are_not_routed() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let netlink = Netlink::open().unwrap();
        let eth0 = netlink.index("eth0").unwrap();
        netlink.add_address(eth0, "198.51.100.7".parse().unwrap(), 32).unwrap();
        // The node's own, whether or not an interface has it already, and another that one has.
        let services = ["192.0.2.10", "192.0.2.11", "198.51.100.7", "198.51.100.8"].map(|address| service(address, 80));
        let mut twice = router();
        twice.node.push("192.0.2.11".parse().unwrap());
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local())), Change::Router(Delta::add(twice))]);
        tell(&mut node, services.iter().map(|service| Change::Service(Delta::add(service.clone()))).collect());
        let [pods4, pods6] = POD_ROUTES;
        let routed = |address: &str| format!("{address}/32 via 10.1.0.1 src 192.0.2.10");
        assert_kernel(&[pods4, &routed("198.51.100.8"), pods6], &NEIGHBOURS, [true; 2]);
        netlink.remove_address(eth0, "198.51.100.7".parse().unwrap(), 32).unwrap();
        netlink.add_address(eth0, "198.51.100.8".parse().unwrap(), 32).unwrap();
        node.complete();
        node.upkeep();
        assert_kernel(&[pods4, &routed("198.51.100.7"), pods6], &NEIGHBOURS, [true; 2]);
    });
}

#[test]
fn what_somebody_removes_or_adds_in_our_name_is_set_right() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local())), Change::Router(Delta::add(router()))]);
        node.complete();
        let line = Routes::open().unwrap();
        let index = line.netlink().index("br-pods").unwrap();
        // Somebody switches it off, by which the kernel forgets its routes, and removes the rest.
        line.netlink().set(index, &Settings { up: Some(false), ..Settings::default() }).unwrap();
        line.remove_neighbour(index, "10.1.0.1".parse().unwrap()).unwrap();
        line.remove_rule(Family::V4).unwrap();
        assert_ne!(kernel().0, POD_ROUTES);
        node.upkeep();
        assert_kernel(&POD_ROUTES, &NEIGHBOURS, [true; 2]);
        // A route that nobody asks for.
        let stale = Route {
            prefix: "10.77.0.0/16".parse().unwrap(),
            gateway: "10.1.0.1".parse().unwrap(),
            interface: index,
            source: None,
        };
        line.add(&stale).unwrap();
        node.upkeep();
        assert_kernel(&POD_ROUTES, &NEIGHBOURS, [true; 2]);
    });
}

#[test]
fn what_an_earlier_daemon_left_is_kept_until_all_is_told_and_then_set_right() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut earlier = Node::default();
        let before = vec![
            Change::Port(Delta::add(local())),
            Change::Router(Delta::add(router())),
            Change::ServiceRange(Delta::add(range("10.96.0.0/12"))),
        ];
        tell(&mut earlier, before);
        drop(earlier);
        let there = kernel();
        // It comes back without the range, and while it does, traffic goes on.
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local()))]);
        node.upkeep();
        assert_eq!(kernel(), there);
        tell(&mut node, vec![Change::Router(Delta::add(router()))]);
        assert_kernel(&POD_ROUTES, &NEIGHBOURS, [true; 2]);
        drop(node);
        // It comes back without a router at all.
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local()))]);
        node.upkeep();
        assert_kernel(&POD_ROUTES, &NEIGHBOURS, [true; 2]);
        node.complete();
        node.upkeep();
        nothing();
    });
}

#[test]
fn another_daemon_of_the_same_namespace_keeps_its_routes() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut theirs = Node::default();
        let other = Router { gateways: vec!["10.2.0.1/24".parse().unwrap()], ..router() };
        tell(
            &mut theirs,
            vec![
                Change::Port(Delta::add(Port { name: "br-other".to_owned(), ..local() })),
                Change::Router(Delta::add(other)),
            ],
        );
        let mut node = Node::default();
        tell(&mut node, vec![Change::Port(Delta::add(local())), Change::Router(Delta::add(router()))]);
        node.withdraw();
        assert_kernel(&["10.2.0.0/24 via 10.2.0.1 src 192.0.2.10 elsewhere"], &[], [true, false]);
        theirs.withdraw();
        nothing();
    });
}

#[test]
fn an_address_of_the_node_that_no_interface_has_is_complained_of_and_used_when_it_is_there() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut node = Node::default();
        let elsewhere = Router { node: vec!["192.0.2.99".parse().unwrap()], ..router() };
        tell(&mut node, vec![Change::Port(Delta::add(local())), Change::Router(Delta::add(elsewhere))]);
        assert_eq!(node.complaint, "192.0.2.99: no interface of this network namespace has this address of the node");
        assert_kernel(&["10.1.0.0/24 via 10.1.0.1", "fd00:1::/64 via fd00:1::1"], &NEIGHBOURS, [true; 2]);
        let netlink = Netlink::open().unwrap();
        netlink.add_address(netlink.index("eth0").unwrap(), "192.0.2.99".parse().unwrap(), 24).unwrap();
        node.complete();
        node.upkeep();
        let [_, pods6] = ["", "fd00:1::/64 via fd00:1::1"];
        assert_kernel(&["10.1.0.0/24 via 10.1.0.1 src 192.0.2.99", pods6], &NEIGHBOURS, [true; 2]);
        assert!(node.complaint.is_empty());
    });
}

#[test]
fn without_a_device_in_the_kernel_nothing_is_done() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut node = Node::default();
        let memory = Port { kind: "memory".to_owned(), ..local() };
        tell(&mut node, vec![Change::Port(Delta::add(memory)), Change::Router(Delta::add(router()))]);
        nothing();
    });
}
