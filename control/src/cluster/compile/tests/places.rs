//! Where a service is reached, who may come there, and who has what several want.

use super::*;

/// A service of type LoadBalancer at 10.96.0.10 and fd00:96::10, port 80, node port 30080.
fn balanced() -> Service {
    let mut web = service("web", &["10.96.0.10", "fd00:96::10"], &[("", Proto::Tcp, 80)]);
    web.kind = ServiceKind::LoadBalancer;
    web.ports[0].node_port = Some(30080);
    web
}

fn ingress(address: &str) -> Ingress {
    Ingress { address: ip(address), proxied: false }
}

/// Every place, and the cluster address that it stands for, if it is for clients from beyond.
fn places(world: &World) -> Vec<String> {
    let line = |service: &api::Service| {
        let api::ServiceKey { address, proto, port } = service.key;
        let cluster = service.external.as_ref().map(|external| format!(" = {}", external.cluster)).unwrap_or_default();
        format!("{address} {proto} {port}{cluster}")
    };
    world.switch.services.values().map(line).collect()
}

fn with(node_ports: NodePortAddresses, node: Node) -> World {
    let mut world = World::of(&NodeSettings { node_ports, ..settings() });
    world.set_node(node);
    world
}

#[test]
fn v7_node_ports_are_at_the_first_address_of_each_family_or_at_those_in_prefixes() {
    let own = Node {
        external: vec![ip("203.0.113.7")],
        ..node("n1", &["10.1.0.0/24"], &["192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8::2"])
    };
    let only_external = Node { addresses: vec![ip("2001:db8::1")], ..own.clone() };
    let within = |prefixes: &[&str]| NodePortAddresses::Within(prefixes.iter().map(|p| p.parse().unwrap()).collect());
    for (node_ports, node, wanted) in [
        (NodePortAddresses::Primary, &own, &["192.0.2.1", "2001:db8::1"][..]),
        (NodePortAddresses::Primary, &only_external, &["203.0.113.7", "2001:db8::1"]),
        (within(&["0.0.0.0/0"]), &own, &["192.0.2.1", "198.51.100.1", "203.0.113.7"]),
        (within(&["198.51.100.0/24", "2001:db8::2/128"]), &own, &["198.51.100.1", "2001:db8::2"]),
        (within(&["172.16.0.0/12", "127.0.0.0/8"]), &own, &[]),
    ] {
        let mut world = with(node_ports.clone(), node.clone());
        world.set_service(balanced());
        let mut wanted: Vec<_> = wanted
            .iter()
            .map(|address| match ip(address).is_ipv4() {
                true => format!("{address} TCP 30080 = 10.96.0.10:80"),
                false => format!("{address} TCP 30080 = [fd00:96::10]:80"),
            })
            .collect();
        wanted.extend(["10.96.0.10 TCP 80".to_owned(), "fd00:96::10 TCP 80".to_owned()]);
        wanted.sort();
        let mut told = places(&world);
        told.sort();
        assert_eq!(told, wanted, "{node_ports:?}");
    }
}

#[test]
fn v7_an_external_address_that_serves_node_ports_is_the_nodes_own() {
    let own = Node { external: vec![ip("203.0.113.7")], ..node("n1", &["10.1.0.0/24"], &["192.0.2.1"]) };
    let addresses = |world: &World| {
        let of_node = |e: &&api::Endpoint| e.kind == EndpointKind::Node;
        world.switch.endpoints.values().filter(of_node).map(|e| e.key.address.to_string()).collect::<Vec<_>>()
    };
    for (node_ports, wanted) in [
        (NodePortAddresses::Primary, &["192.0.2.1"][..]),
        (NodePortAddresses::Within(vec!["203.0.113.0/24".parse().unwrap()]), &["192.0.2.1", "203.0.113.7"]),
    ] {
        let mut world = with(node_ports, own.clone());
        world.rebind(Some(context(&[], None)));
        assert_eq!(addresses(&world), wanted);
    }
}

#[test]
fn v7_node_ports_follow_the_addresses_of_the_node() {
    let mut world = with(NodePortAddresses::Primary, node("n1", &["10.1.0.0/24"], &["192.0.2.1"]));
    world.set_service(Service { cluster_ips: vec![ip("10.96.0.10")], ..balanced() });
    assert_eq!(places(&world), ["10.96.0.10 TCP 80", "192.0.2.1 TCP 30080 = 10.96.0.10:80"]);
    world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.2"]));
    assert_eq!(places(&world), ["10.96.0.10 TCP 80", "192.0.2.2 TCP 30080 = 10.96.0.10:80"]);
    world.set_node(node("n2", &["10.2.0.0/24"], &["192.0.2.9"]));
    world.objects.nodes.remove("n1");
    world.update(Changed::Node("n1".into()));
    assert_eq!(places(&world), ["10.96.0.10 TCP 80"], "another node is not ours");
}

#[test]
fn v9_v10_external_addresses_and_load_balancers_have_the_port_of_the_service() {
    let mut world = World::new();
    let mut web = balanced();
    web.external.ips = vec![ip("198.51.100.1"), ip("2001:db8:1::1")];
    let proxied = Ingress { proxied: true, ..ingress("203.0.113.6") };
    web.external.ingress = vec![ingress("203.0.113.5"), proxied, ingress("2001:db8:2::1")];
    world.set_service(web.clone());
    let all = [
        "10.96.0.10 TCP 80",
        "198.51.100.1 TCP 80 = 10.96.0.10:80",
        "203.0.113.5 TCP 80 = 10.96.0.10:80",
        "2001:db8:1::1 TCP 80 = [fd00:96::10]:80",
        "2001:db8:2::1 TCP 80 = [fd00:96::10]:80",
        "fd00:96::10 TCP 80",
    ];
    assert_eq!(places(&world), all, "without a Node object no node ports; with ipMode Proxy no place");
    // Rule S3: the other family's addresses are nothing to a service of one family.
    web.cluster_ips.pop();
    world.set_service(web.clone());
    assert_eq!(places(&world), all[..3]);
    web.labels.insert("service.kubernetes.io/service-proxy-name".into(), "other".into());
    world.set_service(web);
    assert!(places(&world).is_empty());
}

#[test]
fn v11_source_ranges_are_those_of_the_family_and_of_load_balancers_only() {
    let prefixes = |all: &[&str]| all.iter().map(|p| p.parse().unwrap()).collect::<Vec<ipnet::IpNet>>();
    for (name, ranges, v4, v6) in [
        ("none", &[][..], None, None),
        ("of one family", &["198.51.100.0/24"], Some(&["198.51.100.0/24"][..]), None),
        ("of the other", &["2001:db8:9::/48"], None, Some(&["2001:db8:9::/48"][..])),
        ("all of a family", &["198.51.100.0/24", "0.0.0.0/0", "2001:db8:9::/48"], None, Some(&["2001:db8:9::/48"])),
        // What the node sends to an address that it has, it sends from there.
        ("with the node", &["192.0.2.0/24"], Some(&["192.0.2.0/24", "203.0.113.5/32"]), None),
        ("with the node", &["2001:db8::/64"], None, Some(&["2001:db8::/64", "2001:db8:2::1/128"])),
        ("with an address of the node that is not its first", &["192.0.3.1/32"], Some(&["192.0.3.1/32"]), None),
    ] {
        let mut world = World::new();
        world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.1", "192.0.3.1", "2001:db8::1"]));
        let mut web = balanced();
        web.external.ips = vec![ip("198.51.100.1")];
        web.external.ingress = vec![ingress("203.0.113.5"), ingress("2001:db8:2::1")];
        web.external.sources = prefixes(ranges);
        world.set_service(web);
        let sources = |text: &str| world.at(text).external.as_ref().unwrap().sources.as_deref().map(<[_]>::to_vec);
        assert_eq!(sources("203.0.113.5 TCP 80"), v4.map(&prefixes), "{name}");
        assert_eq!(sources("2001:db8:2::1 TCP 80"), v6.map(&prefixes), "{name}");
        for open in ["198.51.100.1 TCP 80", "192.0.2.1 TCP 30080", "2001:db8::1 TCP 30080"] {
            assert_eq!(sources(open), None, "{name}: {open}");
        }
    }
}

#[test]
fn v11_the_address_is_allowed_as_long_as_the_node_is() {
    let mut world = World::new();
    let mut web = balanced();
    web.external.ingress = vec![ingress("203.0.113.5")];
    web.external.sources = vec!["192.0.2.0/24".parse().unwrap()];
    world.set_service(web);
    let mut count = |address: &str| {
        world.set_node(node("n1", &["10.1.0.0/24"], &[address]));
        world.at("203.0.113.5 TCP 80").external.as_ref().unwrap().sources.as_ref().unwrap().len()
    };
    assert_eq!((count("192.0.2.1"), count("192.0.3.1"), count("192.0.2.2")), (2, 1, 2));
}

/// Who has what, and the two services that want it: `a` and `b`.
fn contest(a: Service, b: Service, address: &str) -> [String; 2] {
    let name = |world: &World| world.at(address).name.to_string();
    let mut world = World::new();
    world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.1"]));
    world.set_service(b);
    world.set_service(a.clone());
    let winner = name(&world);
    let first: &str = winner.rsplit('/').next().unwrap();
    world.objects.services.remove(&named(first));
    world.update(Changed::Service(named(first)));
    [winner.clone(), name(&world)]
}

#[test]
fn of_several_services_the_first_has_an_address_and_the_next_inherits_it() {
    let of = |name: &str, cluster: &str, created: Option<i64>| {
        let mut made = service(name, &[cluster], &[("", Proto::Tcp, 80)]);
        (made.kind, made.created) = (ServiceKind::NodePort, created);
        made
    };
    let on_node = |mut made: Service| {
        made.ports[0].node_port = Some(30080);
        made
    };
    let at = |mut made: Service, address: &str| {
        made.external.ips.push(ip(address));
        made
    };
    let (a, b) = (|created| of("a", "10.96.0.1", created), |created| of("b", "10.96.0.2", created));
    let (first, second) = (["default/a", "default/b"], ["default/b", "default/a"]);
    let port = "192.0.2.1 TCP 30080";
    assert_eq!(contest(on_node(a(None)), on_node(b(None)), port), first, "by name");
    assert_eq!(contest(on_node(a(Some(2))), on_node(b(Some(1))), port), second, "the older first");
    assert_eq!(contest(on_node(a(Some(1))), on_node(b(None)), port), second, "what was always there is older");
    let (x, y) = (at(a(None), "203.0.113.9"), at(b(None), "203.0.113.9"));
    assert_eq!(contest(x, y, "203.0.113.9 TCP 80"), first);
    // The address of another service, as an external address: never taken away, whoever is older.
    let thief = at(a(Some(1)), "10.96.0.2");
    assert_eq!(contest(thief, b(Some(2)), "10.96.0.2 TCP 80"), second);
    // The node's own address at the number of a node port.
    let mut outside = at(a(Some(2)), "192.0.2.1");
    outside.ports[0].port = 30080;
    assert_eq!(contest(outside, on_node(b(Some(1))), port), second);
}

#[test]
fn a_service_that_is_made_again_is_as_old_as_its_new_object() {
    let mut world = World::new();
    world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.1"]));
    let of = |name: &str, created| {
        let mut made = service(name, &["10.96.0.1"], &[(name, Proto::Tcp, 80)]);
        (made.kind, made.created, made.ports[0].node_port) = (ServiceKind::NodePort, Some(created), Some(30080));
        made.external = External { policy: Policy::Local, health_port: Some(32000), ..External::default() };
        made
    };
    world.set_service(of("a", 1));
    world.set_service(of("b", 2));
    let told = |world: &World| {
        let check = &world.switch.checks[&32000];
        format!("{} {}", world.at("192.0.2.1 TCP 30080").name, check.service.1)
    };
    assert_eq!(told(&world), "default/a:a a");
    world.set_service(of("a", 3));
    assert_eq!(told(&world), "default/b:b b");
    assert_eq!(world.switch.services.len(), 2);
}
