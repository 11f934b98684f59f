//! What the switch has after objects changed, one row of the specification at a time, and the property over all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    Bridge, BridgeId, Change, Choice, Delta, EndpointKind, Hop, MacAddr, Port, PortId, Proto, Transaction, Vlan,
};

use super::binding::{Attached, Bound, NodeContext};
use super::{Compiler, everything};
use crate::cluster::model::{
    Changed, Cidrs, Distribution, External, Family, Hints, Ingress, Named, Node, Objects, Pod, Policy, Service,
    ServiceKind, ServicePort, Slice, SliceEndpoint, SlicePort, TargetPort,
};
use crate::fake::FakeSwitch;
use crate::{NodePortAddresses, NodeSettings, Switch};

mod attachments;
mod history;
mod load;
mod places;
mod policies;
mod sets;

const BRIDGE: BridgeId = BridgeId(1);

pub(crate) fn named(name: &str) -> Named {
    Named { namespace: "default".into(), name: name.into() }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn node(name: &str, cidrs: &[&str], addresses: &[&str]) -> Node {
    Node {
        name: name.into(),
        labels: BTreeMap::new(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        external: Vec::new(),
        leaving: None,
    }
}

pub(crate) fn pod(name: &str, address: &str) -> Pod {
    Pod {
        id: named(name),
        uid: format!("uid-{name}").into(),
        labels: BTreeMap::new(),
        node: Some("n1".into()),
        host_network: false,
        addresses: vec![ip(address)],
        ready: true,
        terminating: false,
        finished: false,
        ports: Vec::new(),
        bandwidth: api::Bandwidth::default(),
    }
}

pub(crate) fn service(name: &str, addresses: &[&str], ports: &[(&str, Proto, u16)]) -> Service {
    let port = |&(name, proto, port): &(&str, Proto, u16)| ServicePort {
        name: name.into(),
        proto,
        port,
        target: TargetPort::Number(port),
        node_port: None,
    };
    Service {
        id: named(name),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        kind: ServiceKind::ClusterIp,
        cluster_ips: addresses.iter().map(|address| ip(address)).collect(),
        families: Vec::new(),
        selector: BTreeMap::new(),
        publish_not_ready: false,
        ports: ports.iter().map(port).collect(),
        created: None,
        affinity: None,
        internal_policy: Policy::Cluster,
        distribution: Distribution::Even,
        external: External::default(),
    }
}

/// An endpoint: its address; then `r`eady, `s`erving, `t`erminating (else it is ready and serves); then, in any order,
/// `@NODE`, and what it is hinted for: `zone=ZONE`, `node=NODE`.
fn endpoint(text: &str) -> SliceEndpoint {
    let mut words = text.split(' ');
    let address = ip(words.next().unwrap());
    let words: Vec<_> = words.collect();
    let is_detail = |word: &str| word.contains(['@', '=']);
    let conditions = words.iter().copied().find(|word| !is_detail(word)).unwrap_or("rs");
    let (ready, serving) = (conditions.contains('r'), conditions.contains('s'));
    let after =
        |mark: &str| words.iter().filter_map(|word| word.strip_prefix(mark)).map(Into::into).collect::<Vec<_>>();
    let hints = Hints { zones: after("zone="), nodes: after("node=") };
    SliceEndpoint {
        address,
        ready,
        serving,
        terminating: conditions.contains('t'),
        node: after("@").pop(),
        zone: None,
        hints: (hints.zones.len() + hints.nodes.len() > 0).then(|| Box::new(hints)),
        pod: None,
    }
}

pub(crate) fn slice(name: &str, of: &str, ports: &[(&str, Proto, u16)], endpoints: &[&str]) -> Slice {
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let v6 = endpoints.first().is_some_and(|endpoint| endpoint.address.is_ipv6());
    Slice {
        id: named(name),
        service: Some(named(of)),
        family: if v6 { Family::V6 } else { Family::V4 },
        ports: ports.iter().map(|&(name, proto, port)| SlicePort { name: name.into(), proto, port }).collect(),
        endpoints,
        ours: false,
    }
}

/// Objects, a compiler that follows them, and the switch that it tells.
struct World {
    objects: Objects,
    compiler: Compiler,
    switch: FakeSwitch,
}

fn settings() -> NodeSettings {
    NodeSettings { name: "n1".to_owned(), service_cidrs: vec!["10.96.0.0/16".parse().unwrap()], ..Default::default() }
}

fn port(number: u16) -> Port {
    Port {
        id: PortId(number),
        name: format!("p{number}"),
        bridge: BRIDGE,
        ofport: number,
        kind: "tap".to_owned(),
        options: BTreeMap::new(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: BTreeMap::new(),
    }
}

fn attached(number: u16) -> Attached {
    Attached { port: PortId(number), mac: MacAddr([2, 0, 0, 0, 0, u8::try_from(number).unwrap()]) }
}

fn bound(number: u16) -> Bound {
    let Attached { port, mac } = attached(number);
    Bound { port, mac: Some(mac), spoof: true }
}

/// The bridge with LOCAL as port 1; pods `p2` and so on are bound to the ports of that number.
fn context(pods: &[u16], uplink: Option<u16>) -> NodeContext {
    NodeContext {
        bridge: BRIDGE,
        local: Some(attached(1)),
        uplink: uplink.map(PortId),
        pods: pods.iter().map(|&number| (named(&format!("p{number}")), attached(number))).collect(),
        bound: pods.iter().map(|&number| (named(&format!("p{number}")), vec![bound(number)])).collect(),
        ..NodeContext::default()
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self::without_bridge();
        world.rebind(Some(context(&[2, 3], None)));
        world
    }

    fn without_bridge() -> Self {
        Self::of(&settings())
    }

    fn of(settings: &NodeSettings) -> Self {
        let mut switch = FakeSwitch::default();
        let bridge = Bridge {
            id: BRIDGE,
            name: "br-pods".to_owned(),
            mac_table_size: Bridge::MAC_TABLE_SIZE,
            mac_ageing: Bridge::MAC_AGEING,
            forward_bpdu: false,
            external_ids: BTreeMap::new(),
        };
        switch.bridges.insert(BRIDGE, bridge);
        switch.ports.extend((1..8).map(|number| (PortId(number), port(number))));
        Self { objects: Objects::default(), compiler: Compiler::new(settings), switch }
    }

    fn rebind(&mut self, context: Option<NodeContext>) {
        let changes = self.compiler.rebind(context);
        self.tell(changes);
    }

    fn tell(&mut self, changes: Vec<Change>) -> usize {
        let count = changes.len();
        self.switch.apply(&Transaction { changes }).unwrap();
        count
    }

    /// Tell the compiler what changed. Returns how much the switch was told.
    fn update(&mut self, changed: Changed) -> usize {
        let changes = self.compiler.update(&self.objects, &BTreeSet::from([changed]));
        self.tell(changes)
    }

    fn set_node(&mut self, node: Node) -> usize {
        let name = node.name.clone();
        self.objects.nodes.insert(name.clone(), Arc::new(node));
        self.update(Changed::Node(name))
    }

    fn set_pod(&mut self, pod: Pod) -> usize {
        let id = pod.id.clone();
        self.objects.pods.insert(id.clone(), Arc::new(pod));
        self.update(Changed::Pod(id))
    }

    fn set_service(&mut self, service: Service) -> usize {
        let id = service.id.clone();
        self.objects.services.insert(id.clone(), Arc::new(service));
        self.update(Changed::Service(id))
    }

    fn set_slice(&mut self, slice: Slice) -> usize {
        let id = slice.id.clone();
        self.unlink(&id);
        if let Some(service) = slice.service.clone() {
            self.objects.slices_of.entry(service).or_default().insert(id.clone());
        }
        self.objects.slices.insert(id.clone(), Arc::new(slice));
        self.update(Changed::Slice(id))
    }

    fn unlink(&mut self, id: &Named) {
        self.objects.slices_of.values_mut().for_each(|slices| {
            slices.remove(id);
        });
        self.objects.slices_of.retain(|_, slices| !slices.is_empty());
        self.objects.slices.remove(id);
    }

    fn remove_slice(&mut self, name: &str) {
        self.unlink(&named(name));
        self.update(Changed::Slice(named(name)));
    }

    /// The service at `ADDRESS PROTO PORT`.
    fn at(&self, text: &str) -> &api::Service {
        self.find(text).unwrap_or_else(|| panic!("{text}: not programmed"))
    }

    fn find(&self, text: &str) -> Option<&api::Service> {
        self.switch.services.values().find(|service| {
            let api::ServiceKey { address, proto, port } = service.key;
            format!("{address} {proto} {port}") == text
        })
    }

    /// Backends and draining ones behind `ADDRESS PROTO PORT`; `None` when it is not programmed.
    fn behind(&self, text: &str) -> Option<(Vec<String>, Vec<String>)> {
        let service = self.find(text)?;
        let list = |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        Some((list(&service.backends), list(&service.draining)))
    }

    fn backends(&self, text: &str) -> Vec<String> {
        self.behind(text).unwrap_or_else(|| panic!("{text}: not programmed")).0
    }

    fn endpoints(&self) -> Vec<(String, u16, String)> {
        let row = |e: &api::Endpoint| (e.key.address.to_string(), e.port.0, e.name.clone());
        self.switch.endpoints.values().map(row).collect()
    }
}

#[test]
fn nothing_is_programmed_until_there_is_an_object_and_nothing_stays_when_there_is_none() {
    let mut world = World::new();
    assert_eq!(world.switch.applied, 1, "an empty transaction");
    let fresh = (world.switch.ports.clone(), world.switch.routers.clone());
    world.set_node(node("n1", &["10.244.1.0/24", "fd00:1::/64"], &["192.168.0.1", "192.168.0.9", "fd01::1"]));
    let router = &world.switch.routers[&BRIDGE];
    assert_eq!(router.gateways, ["10.244.1.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()]);
    assert_eq!(router.node, [ip("192.168.0.1"), ip("fd01::1")], "the first of each family");
    assert_eq!(world.switch.ports[&PortId::STACK].mac, Some(router.mac));
    let row = |address: &str, port, name: &str| (address.to_owned(), port, name.to_owned());
    let wanted = [
        row("10.244.1.1", PortId::STACK.0, "gateway"),
        row("192.168.0.1", 1, "node/n1"),
        row("192.168.0.9", 1, "node/n1"),
        row("fd00:1::1", PortId::STACK.0, "gateway"),
        row("fd01::1", 1, "node/n1"),
    ];
    assert_eq!(world.endpoints(), wanted);
    assert_eq!(world.switch.ranges.len(), 1);
    let routes: Vec<_> = world.switch.routes.values().map(|r| (r.key.prefix.to_string(), r.to, &*r.origin)).collect();
    let own = |prefix: &str| (prefix.to_owned(), Hop::Endpoint, "pod-cidr");
    assert_eq!(routes, [own("10.244.1.0/24"), own("fd00:1::/64")]);
    world.objects.nodes.clear();
    world.update(Changed::Node("n1".into()));
    let FakeSwitch { endpoints, routes, services, ranges, .. } = &world.switch;
    assert!(endpoints.is_empty() && routes.is_empty() && services.is_empty() && ranges.is_empty());
    assert_eq!((world.switch.ports, world.switch.routers), fresh);
}

#[test]
fn pod_cidrs_of_other_nodes_lead_nowhere_yet() {
    let mut world = World::new();
    world.set_node(node("n2", &["10.244.2.0/24"], &["192.168.0.2"]));
    let route = world.switch.routes.values().next().unwrap();
    assert_eq!((route.to, &*route.origin), (Hop::Unreachable, "node/n2"));
    assert!(world.endpoints().is_empty());
    world.set_node(node("n2", &["10.244.3.0/24"], &[]));
    let prefixes: Vec<_> = world.switch.routes.keys().map(|key| key.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.244.3.0/24"]);
}

#[test]
fn a_pod_has_endpoints_where_a_port_is_bound_to_it() {
    let mut world = World::new();
    world.set_pod(pod("p2", "10.244.1.2"));
    world.set_pod(pod("p4", "10.244.1.4"));
    assert_eq!(world.endpoints(), [("10.244.1.2".to_owned(), 2, "pod/default/p2".to_owned())]);
    let endpoint = world.switch.endpoints.values().next().unwrap().clone();
    assert_eq!((endpoint.kind, endpoint.mac), (EndpointKind::Pod, attached(2).mac));
    // The same name again is another pod.
    world.set_pod(Pod { uid: "another".into(), ..pod("p2", "10.244.1.2") });
    assert_ne!(world.switch.endpoints.values().next().unwrap().identity, endpoint.identity);
    world.rebind(Some(context(&[4], None)));
    assert_eq!(world.endpoints(), [("10.244.1.4".to_owned(), 4, "pod/default/p4".to_owned())]);
}

#[test]
fn pods_of_the_host_network_of_other_nodes_and_finished_ones_have_no_endpoint() {
    for no in [
        Pod { host_network: true, ..pod("p2", "192.168.0.1") },
        Pod { node: Some("n2".into()), ..pod("p2", "10.244.1.2") },
        Pod { finished: true, ..pod("p2", "10.244.1.2") },
    ] {
        let mut world = World::new();
        world.set_pod(pod("p2", "10.244.1.2"));
        assert_eq!(world.endpoints().len(), 1);
        world.set_pod(no);
        assert_eq!(world.endpoints(), []);
        world.set_pod(Pod { node: None, ..pod("p2", "10.244.1.2") });
        assert_eq!(world.endpoints().len(), 1, "not given to a node: it is where its port is");
    }
}

#[test]
fn a_pod_does_not_take_the_address_of_the_gateway() {
    let mut world = World::new();
    world.set_pod(pod("p2", "10.244.1.1"));
    assert_eq!(world.endpoints()[0].2, "pod/default/p2");
    world.set_node(node("n1", &["10.244.1.0/24"], &[]));
    assert_eq!(world.endpoints(), [("10.244.1.1".to_owned(), PortId::STACK.0, "gateway".to_owned())]);
}

#[test]
fn s1_services_of_another_proxy_headless_ones_and_external_names_are_not_programmed() {
    let web = || service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]);
    let labelled = |label: &str| Service { labels: [(label.into(), "".into())].into(), ..web() };
    for no in [
        labelled("service.kubernetes.io/service-proxy-name"),
        labelled("service.kubernetes.io/headless"),
        Service { kind: ServiceKind::ExternalName, ..web() },
        Service { kind: ServiceKind::Headless, cluster_ips: Vec::new(), ..web() },
    ] {
        let mut world = World::new();
        world.set_slice(slice("web-1", "web", &[("", Proto::Tcp, 8080)], &["10.244.1.2"]));
        for _ in 0..2 {
            world.set_service(web());
            assert_eq!(world.backends("10.96.0.10 TCP 80"), ["10.244.1.2:8080"]);
            world.set_service(no.clone());
            assert_eq!(world.switch.services.len(), 0);
        }
    }
}

#[test]
fn s2_a_service_comes_with_all_of_its_slices() {
    let mut world = World::new();
    let web = service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]);
    world.objects.services.insert(web.id.clone(), Arc::new(web));
    let slice = slice("web-1", "web", &[("", Proto::Tcp, 80)], &["10.244.1.2"]);
    world.objects.slices_of.insert(named("web"), [slice.id.clone()].into());
    world.objects.slices.insert(slice.id.clone(), Arc::new(slice));
    let changes = world.compiler.update(&world.objects, &everything(&world.objects));
    let told: Vec<_> = changes.iter().filter(|change| matches!(change, Change::Service(_))).collect();
    let [Change::Service(Delta { old: None, new: Some(service) })] = told[..] else { panic!("{told:?}") };
    assert_eq!(service.backends.len(), 1);
}

#[test]
fn s3_families_are_independent() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10", "fd00:96::10"], &[("", Proto::Tcp, 80)]));
    world.set_slice(slice("web-4", "web", &[("", Proto::Tcp, 8080)], &["10.244.1.2"]));
    assert_eq!(world.backends("10.96.0.10 TCP 80"), ["10.244.1.2:8080"]);
    assert_eq!(world.backends("fd00:96::10 TCP 80"), [""; 0]);
    let one = world.set_slice(slice("web-6", "web", &[("", Proto::Tcp, 8080)], &["fd00:1::2"]));
    assert_eq!(world.backends("fd00:96::10 TCP 80"), ["[fd00:1::2]:8080"]);
    assert_eq!(one, 1, "the other family was not touched");
}

#[test]
fn s5_two_ports_of_one_number_and_two_protocols_are_independent() {
    let mut world = World::new();
    let ports = [("t", Proto::Tcp, 53), ("u", Proto::Udp, 53)];
    world.set_service(service("dns", &["10.96.0.10"], &ports));
    world.set_slice(slice("dns-1", "dns", &ports, &["10.244.1.2"]));
    assert_eq!(world.backends("10.96.0.10 UDP 53"), ["10.244.1.2:53"]);
    assert_eq!(world.set_service(service("dns", &["10.96.0.10"], &ports[1..])), 1);
    assert_eq!(world.behind("10.96.0.10 TCP 53"), None);
    assert_eq!(world.backends("10.96.0.10 UDP 53"), ["10.244.1.2:53"]);
}

#[test]
fn s6_a_renumbered_port_moves_and_the_others_stay() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10"], &[("a", Proto::Tcp, 80), ("b", Proto::Tcp, 443)]));
    let touched = world.set_service(service("web", &["10.96.0.10"], &[("a", Proto::Tcp, 81), ("b", Proto::Tcp, 443)]));
    assert_eq!(touched, 2, "one port goes, one comes");
    assert_eq!(world.behind("10.96.0.10 TCP 80"), None);
    assert!(world.behind("10.96.0.10 TCP 81").is_some() && world.behind("10.96.0.10 TCP 443").is_some());
}

#[test]
fn e1_slices_are_joined_and_of_two_with_one_address_the_one_that_stays_counts() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]));
    let port = [("", Proto::Tcp, 8080)];
    world.set_slice(slice("web-1", "web", &port, &["10.244.1.2 st", "10.244.1.3"]));
    assert_eq!(world.backends("10.96.0.10 TCP 80"), ["10.244.1.3:8080"]);
    world.set_slice(slice("web-2", "web", &port, &["10.244.1.9", "10.244.1.2 rs"]));
    let all = ["10.244.1.2:8080", "10.244.1.3:8080", "10.244.1.9:8080"];
    assert_eq!(world.backends("10.96.0.10 TCP 80"), all);
    world.remove_slice("web-1");
    assert_eq!(world.backends("10.96.0.10 TCP 80"), ["10.244.1.2:8080", "10.244.1.9:8080"]);
    let moved = Slice { service: Some(named("other")), ..slice("web-2", "web", &port, &["10.244.1.9"]) };
    world.set_slice(moved);
    assert_eq!(world.backends("10.96.0.10 TCP 80"), [""; 0], "the slice is another service's now");
}

#[test]
fn e2_slices_of_names_are_ignored() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]));
    let names = Slice { family: Family::Name, ..slice("web-1", "web", &[("", Proto::Tcp, 80)], &["10.244.1.2"]) };
    world.set_slice(names);
    assert_eq!(world.backends("10.96.0.10 TCP 80"), [""; 0]);
}

#[test]
fn e4_ports_are_matched_by_name_and_may_have_different_numbers() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10"], &[("http", Proto::Tcp, 80), ("admin", Proto::Tcp, 81)]));
    world.set_slice(slice("web-1", "web", &[("http", Proto::Tcp, 8080), ("other", Proto::Tcp, 1)], &["10.244.1.2"]));
    world.set_slice(slice("web-2", "web", &[("http", Proto::Tcp, 9090), ("admin", Proto::Udp, 2)], &["10.244.1.3"]));
    assert_eq!(world.backends("10.96.0.10 TCP 80"), ["10.244.1.2:8080", "10.244.1.3:9090"]);
    assert_eq!(world.backends("10.96.0.10 TCP 81"), [""; 0], "the protocol is another");
}

#[test]
fn t1_to_t3_terminating_endpoints_are_used_when_nothing_else_is_ready() {
    let mut world = World::new();
    world.set_service(service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]));
    let port = [("", Proto::Tcp, 80)];
    let behind = |world: &mut World, endpoints: &[&str]| {
        world.set_slice(slice("web-1", "web", &port, endpoints));
        let (backends, draining) = world.behind("10.96.0.10 TCP 80").unwrap();
        (backends.join(" "), draining.join(" "))
    };
    let (ready, ending, gone, starting) = ("10.244.1.2", "10.244.1.3 st", "10.244.1.4 t", "10.244.1.5 -");
    let told = |backends: &str, draining: &str| (backends.to_owned(), draining.to_owned());
    assert_eq!(behind(&mut world, &[ready, ending, gone, starting]), told("10.244.1.2:80", "10.244.1.3:80"));
    assert_eq!(behind(&mut world, &[ending, gone, starting]), told("10.244.1.3:80", ""));
    assert_eq!(behind(&mut world, &[gone, starting]), told("", ""));
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_has_it() {
    let mut world = World::new();
    world.set_service(service("b", &["10.96.0.10"], &[("", Proto::Tcp, 80), ("x", Proto::Tcp, 81)]));
    world.set_service(service("a", &["10.96.0.10"], &[("", Proto::Tcp, 80)]));
    let names = |world: &World| world.switch.services.values().map(|s| s.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&world), ["default/a", "default/b:x"]);
    world.objects.services.remove(&named("a"));
    world.update(Changed::Service(named("a")));
    assert_eq!(names(&world), ["default/b", "default/b:x"]);
}

#[test]
fn backends_are_chosen_by_maglev_when_that_is_asked_for_and_else_at_random() {
    let mut world = World::new();
    for (wish, wanted) in [("maglev", Choice::Maglev), ("Maglev", Choice::Random), ("", Choice::Random)] {
        let annotations = [("vswitch.io/load-balancing".into(), wish.into())].into();
        world.set_service(Service { annotations, ..service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]) });
        assert_eq!(world.switch.services.values().next().unwrap().choice, wanted, "{wish}");
    }
}

#[test]
fn what_names_a_port_goes_before_it() {
    let mut world = World::new();
    world.set_node(node("n1", &["10.244.1.0/24"], &["192.168.0.1"]));
    world.set_pod(pod("p2", "10.244.1.2"));
    let mut stated = context(&[2], Some(4));
    let via = Hop::Via { port: PortId(4), gateway: ip("192.0.2.1") };
    let key = api::RouteKey { bridge: BRIDGE, prefix: "0.0.0.0/0".parse().unwrap() };
    stated.routes = vec![api::Route { key, to: via, origin: "static".to_owned() }];
    let key = api::AddressKey { bridge: BRIDGE, address: ip("192.0.2.1") };
    stated.neighbors = vec![api::Neighbor { key, port: PortId(4), mac: MacAddr([2; 6]) }];
    world.rebind(Some(stated.clone()));
    assert_eq!(world.switch.routers[&BRIDGE].uplink, Some(PortId(4)));
    let before = (world.switch.endpoints.clone(), world.switch.routes.clone(), world.switch.routers.clone());

    let ports = [2, 4].map(|number| Change::Port(Delta::remove(port(number))));
    let mut changes = world.compiler.release(&ports);
    changes.extend(ports);
    // The switch is strict: it would refuse a name of what is not there. It is asked twice: once it refuses.
    world.switch.refuse = true;
    let transaction = Transaction { changes: changes.clone() };
    assert!(world.switch.apply(&transaction).is_err());
    world.switch.refuse = false;
    world.compiler.undo(transaction.changes);
    world.rebind(Some(stated));
    assert_eq!((world.switch.endpoints.clone(), world.switch.routes.clone(), world.switch.routers.clone()), before);

    let ports = [2, 4].map(|number| Change::Port(Delta::remove(port(number))));
    let mut changes = world.compiler.release(&ports);
    changes.extend(ports);
    world.tell(changes);
    world.rebind(Some(context(&[], None)));
    assert!(world.endpoints().iter().all(|(_, port, _)| *port != 2));
    assert_eq!((world.switch.neighbors.len(), world.switch.routes.len()), (0, 1));
    assert_eq!(world.switch.routers[&BRIDGE].uplink, None);
}

#[test]
fn without_the_bridge_there_are_services_and_nothing_that_names_it() {
    let mut world = World::without_bridge();
    world.set_node(node("n1", &["10.244.1.0/24"], &["192.168.0.1"]));
    world.set_service(service("web", &["10.96.0.10"], &[("", Proto::Tcp, 80)]));
    assert_eq!((world.switch.routers.len(), world.switch.routes.len(), world.switch.services.len()), (0, 0, 1));
    world.rebind(Some(context(&[], None)));
    assert_eq!((world.switch.routers.len(), world.switch.routes.len(), world.switch.endpoints.len()), (1, 1, 2));
    world.rebind(None);
    assert_eq!((world.switch.routers.len(), world.switch.routes.len(), world.switch.endpoints.len()), (0, 0, 0));
}
