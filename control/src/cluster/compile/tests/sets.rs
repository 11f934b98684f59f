//! Which endpoints serve whom: rows 1.3 and 1.4 of the specification, by policy and place.

use super::*;

const PORT: [(&str, Proto, u16); 1] = [("", Proto::Tcp, 80)];

/// What is behind `ADDRESS PROTO PORT`, in a line: backends, what drains, the local ones where the policy is Local,
/// and whether there are others elsewhere. Addresses by their last part, without the port.
fn told(world: &World, text: &str) -> String {
    let service = world.at(text);
    let list = |addresses: &[std::net::SocketAddr]| {
        let last = |address: &std::net::SocketAddr| {
            let ip = address.ip().to_string();
            ip.rsplit(['.', ':']).next().unwrap().to_owned()
        };
        addresses.iter().map(last).collect::<Vec<_>>().join(" ")
    };
    let mut line = format!("[{}] -[{}]", list(&service.backends), list(&service.draining));
    if let Some(local) = service.external.as_ref().and_then(|external| external.local.as_ref()) {
        line += &format!(" local[{}]", list(local));
    }
    line + if service.elsewhere { " elsewhere" } else { "" }
}

/// A node `n1` at 192.0.2.1 in zone `a`, and a service at 10.96.0.10, node port 30080, with these policies and endpoints.
fn world(internal_policy: Policy, policy: Policy, endpoints: &[&str]) -> World {
    let mut world = World::new();
    let labels = BTreeMap::from([("topology.kubernetes.io/zone".into(), "a".into())]);
    world.set_node(Node { labels, ..node("n1", &["10.1.0.0/24"], &["192.0.2.1"]) });
    let mut web = service("web", &["10.96.0.10"], &PORT);
    web.kind = ServiceKind::NodePort;
    web.ports[0].node_port = Some(30080);
    web.internal_policy = internal_policy;
    web.external.policy = policy;
    world.set_service(web);
    world.set_slice(slice("web-1", "web", &PORT, endpoints));
    world
}

#[test]
fn row_1_3_the_cluster_set_and_the_local_set_are_those_of_kube_proxy() {
    use Policy::{Cluster, Local};
    const OWN: &str = "10.1.0.2 rs @n1";
    const OWN_ENDING: &str = "10.1.0.3 st @n1";
    const OTHER: &str = "10.2.0.4 rs @n2";
    const OTHER_ENDING: &str = "10.2.0.5 st @n2";
    const GONE: &str = "10.1.0.6 t @n1";
    const STARTING: &str = "10.1.0.7 - @n1";
    const NOWHERE: &str = "10.3.0.8 rs";
    for (name, endpoints, cluster, of_cluster_ip, of_node_port) in [
        ("nobody", &[][..], "[] -[]", "[] -[]", "[] -[] local[]"),
        ("only who is gone, or starts", &[GONE, STARTING], "[] -[]", "[] -[]", "[] -[] local[]"),
        ("here and elsewhere", &[OWN, OTHER], "[2 4] -[]", "[2] -[4]", "[2 4] -[] local[2]"),
        ("elsewhere only", &[OTHER, GONE], "[4] -[]", "[] -[4] elsewhere", "[4] -[] local[] elsewhere"),
        ("on no node", &[NOWHERE], "[8] -[]", "[] -[8] elsewhere", "[8] -[] local[] elsewhere"),
        ("ready before ending", &[OWN, OWN_ENDING], "[2] -[3]", "[2] -[3]", "[2] -[3] local[2]"),
        // The local set falls back by itself: what ends here serves here, while others are ready elsewhere.
        ("ending here, ready elsewhere", &[OWN_ENDING, OTHER], "[4] -[3]", "[3] -[4]", "[4] -[] local[3]"),
        ("ending everywhere", &[OWN_ENDING, OTHER_ENDING], "[3 5] -[]", "[3] -[5]", "[3 5] -[] local[3]"),
        ("ending elsewhere", &[OTHER_ENDING], "[5] -[]", "[] -[5] elsewhere", "[5] -[] local[] elsewhere"),
    ] {
        let all = world(Cluster, Cluster, endpoints);
        assert_eq!(told(&all, "10.96.0.10 TCP 80"), cluster, "{name}: internalTrafficPolicy Cluster");
        assert_eq!(told(&all, "192.0.2.1 TCP 30080"), cluster, "{name}: externalTrafficPolicy Cluster");
        let own = world(Local, Local, endpoints);
        assert_eq!(told(&own, "10.96.0.10 TCP 80"), of_cluster_ip, "{name}: internalTrafficPolicy Local");
        assert_eq!(told(&own, "192.0.2.1 TCP 30080"), of_node_port, "{name}: externalTrafficPolicy Local");
        // One policy is nothing to the other.
        let mixed = world(Local, Cluster, endpoints);
        assert_eq!(told(&mixed, "10.96.0.10 TCP 80"), of_cluster_ip, "{name}");
        assert_eq!(told(&mixed, "192.0.2.1 TCP 30080"), cluster, "{name}");
    }
}

#[test]
fn e1_of_two_entries_the_one_that_does_not_terminate_says_where_it_is() {
    let mut world = world(Policy::Local, Policy::Local, &["10.1.0.2 rst @n2"]);
    world.set_slice(slice("web-2", "web", &PORT, &["10.1.0.2 rs @n1"]));
    assert_eq!(told(&world, "10.96.0.10 TCP 80"), "[2] -[]");
}

#[test]
fn t4_hints_choose_the_node_then_the_zone_then_all() {
    for (name, endpoints, wanted) in [
        ("same node", &["10.1.0.2 @n1 node=n1 zone=a", "10.2.0.3 @n2 node=n2 zone=a"][..], "[2] -[3]"),
        ("no node of ours", &["10.2.0.2 node=n2 zone=a", "10.2.0.3 node=n3 zone=b"], "[2] -[3]"),
        ("no zone of ours", &["10.2.0.2 node=n2 zone=b", "10.2.0.3 node=n3 zone=c"], "[2 3] -[]"),
        ("several zones", &["10.2.0.2 zone=b zone=a", "10.2.0.3 zone=b"], "[2] -[3]"),
        ("one without hints stands for all", &["10.2.0.2 zone=a", "10.2.0.3"], "[2 3] -[]"),
        ("one without a hint of the node", &["10.1.0.2 node=n1 zone=b", "10.2.0.3 zone=a"], "[3] -[2]"),
        ("hints of who is not ready do not count", &["10.2.0.2 zone=b", "10.2.0.3 st zone=a"], "[2] -[3]"),
        ("who is not ready needs none", &["10.2.0.2 zone=a", "10.2.0.3 zone=b", "10.2.0.4 st"], "[2] -[3 4]"),
        ("nobody ready: no hints", &["10.2.0.2 st zone=a", "10.2.0.3 st zone=b"], "[2 3] -[]"),
    ] {
        let world = world(Policy::Cluster, Policy::Cluster, endpoints);
        assert_eq!(told(&world, "10.96.0.10 TCP 80"), wanted, "{name}");
        assert_eq!(told(&world, "192.0.2.1 TCP 30080"), wanted, "{name}");
    }
}

#[test]
fn t5_hints_are_nothing_to_a_local_policy() {
    let endpoints = ["10.1.0.2 @n1 zone=b", "10.1.0.3 @n1 zone=a", "10.2.0.4 @n2 zone=a"];
    let world = world(Policy::Local, Policy::Local, &endpoints);
    assert_eq!(told(&world, "10.96.0.10 TCP 80"), "[2 3] -[4]");
    // Who drains for pods, since the hints are for others, still serves clients from beyond.
    assert_eq!(told(&world, "192.0.2.1 TCP 30080"), "[3 4] -[] local[2 3]");
}

#[test]
fn t5_the_zone_of_the_node_counts_as_it_is_now() {
    let mut world = world(Policy::Cluster, Policy::Cluster, &["10.2.0.2 zone=a", "10.2.0.3 zone=b"]);
    assert_eq!(told(&world, "10.96.0.10 TCP 80"), "[2] -[3]");
    let mut own = (*world.objects.nodes["n1"]).clone();
    own.labels.insert("topology.kubernetes.io/zone".into(), "b".into());
    assert_eq!(world.set_node(own.clone()), 2, "the service at both its places");
    assert_eq!(told(&world, "10.96.0.10 TCP 80"), "[3] -[2]");
    for zone in ["", "c"] {
        own.labels.insert("topology.kubernetes.io/zone".into(), zone.into());
        world.set_node(own.clone());
        assert_eq!(told(&world, "10.96.0.10 TCP 80"), "[2 3] -[]", "zone \"{zone}\"");
    }
    own.labels.insert("something/else".into(), "x".into());
    assert_eq!(world.set_node(own), 0, "nothing follows from other labels");
}

#[test]
fn v5_affinity_is_told_at_every_place() {
    let mut world = world(Policy::Cluster, Policy::Local, &["10.1.0.2 @n1"]);
    let web = (*world.objects.services[&named("web")]).clone();
    for affinity in [Some(1), Some(10_800), None] {
        world.set_service(Service { affinity, ..web.clone() });
        assert_eq!(world.at("10.96.0.10 TCP 80").affinity, affinity);
        assert_eq!(world.at("192.0.2.1 TCP 30080").affinity, affinity);
    }
}

#[test]
fn v13_a_health_check_counts_the_ready_endpoints_of_this_node() {
    let mut world = World::new();
    world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.1", "2001:db8::1"]));
    let mut web = service("web", &["10.96.0.10", "fd00:96::1"], &[("a", Proto::Tcp, 80), ("b", Proto::Udp, 80)]);
    web.kind = ServiceKind::LoadBalancer;
    web.external = External { policy: Policy::Local, health_port: Some(32000), ..External::default() };
    world.set_service(web.clone());
    let told = |world: &World| {
        let check = world.switch.checks.get(&32000)?;
        assert_eq!((&*check.service.0, &*check.service.1), ("default", "web"));
        let addresses: Vec<_> = check.addresses.iter().map(ToString::to_string).collect();
        Some((check.local_endpoints, addresses.join(" ")))
    };
    let both = || "192.0.2.1 2001:db8::1".to_owned();
    assert_eq!(told(&world), Some((0, both())));
    let ports = [("a", Proto::Tcp, 8080), ("b", Proto::Udp, 53)];
    // Each address once, whatever its ports and families; who ends, starts or is elsewhere does not count.
    let v4 = ["10.1.0.2 @n1", "10.1.0.3 @n1", "10.1.0.4 st @n1", "10.1.0.5 - @n1", "10.2.0.6 @n2", "10.3.0.7"];
    world.set_slice(slice("web-4", "web", &ports, &v4));
    world.set_slice(slice("web-6", "web", &ports, &["fd00::2 @n1", "fd00::3 @n1"]));
    assert_eq!(told(&world), Some((2, both())));
    world.set_slice(slice("web-4", "web", &ports, &["10.1.0.4 st @n1"]));
    world.set_slice(slice("web-6", "web", &ports, &["fd00::4 st @n1"]));
    assert_eq!(told(&world), Some((0, both())), "who terminates serves, and is not counted");
    assert_eq!(world.at("10.96.0.10 TCP 80").backends.len(), 1);

    web.cluster_ips.pop();
    world.set_service(web.clone());
    assert_eq!(told(&world), Some((0, "192.0.2.1".to_owned())), "a family that the service has not");
    web.external.health_port = None;
    world.set_service(web);
    assert_eq!(told(&world), None);
}

#[test]
fn v14_load_balancers_may_use_a_node_that_is_there_and_stays() {
    let mut world = World::new();
    let told = |world: &World| world.switch.eligibility.get(&()).map(|eligibility| eligibility.why_not.clone());
    assert_eq!(told(&world), None);
    world.set_pod(pod("p2", "10.1.0.2"));
    assert_eq!(told(&world), Some(Some("node/n1: there is no such object".to_owned())));
    let own = node("n1", &["10.1.0.0/24"], &["192.0.2.1"]);
    world.set_node(own.clone());
    assert_eq!(told(&world), Some(None));
    world.set_node(Node { leaving: Some("is being deleted"), ..own });
    assert_eq!(told(&world), Some(Some("node/n1 is being deleted".to_owned())));
    world.objects.nodes.clear();
    world.update(Changed::Node("n1".into()));
    world.objects.pods.clear();
    world.update(Changed::Pod(named("p2")));
    assert_eq!(told(&world), None, "no cluster any more");
}
