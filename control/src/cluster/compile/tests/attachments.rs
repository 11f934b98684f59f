//! What follows from attachments: how much may pass their ports, and ports of the node that lead to them.

use api::{Assigned, AttachmentId, Bandwidth, HostPort, Interface, PodRef, Rate, Shaper};

use super::*;
use crate::store::attachments::Attachment;

/// An attachment on a port, of the pod of that number.
pub(super) fn attachment(port: u16, address: &str) -> Attachment {
    let pod = PodRef { namespace: "default".to_owned(), name: format!("p{port}"), uid: None };
    let assigned = Assigned { address: address.parse().unwrap(), gateway: None };
    let id = AttachmentId {
        network: "vswitch".to_owned(),
        container: format!("0123456789abcdef{port}"),
        ifname: "eth0".to_owned(),
    };
    Attachment {
        port: PortId(port),
        id,
        netns: "/run/netns/x".to_owned(),
        pod: Some(pod),
        interface: Interface { addresses: vec![assigned], routes: Vec::new() },
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    }
}

/// A port of the node, at an address or at none in particular, that leads to port 80.
pub(super) fn host_port(address: &str, port: u16) -> HostPort {
    let address = (!address.is_empty()).then(|| ip(address));
    HostPort { address, proto: Proto::Tcp, port, container: 80 }
}

/// So many bits a second to a pod; none: any.
pub(super) fn limit(bits: u64) -> Bandwidth {
    Bandwidth { ingress: (bits != 0).then_some(Rate { bits, burst: 7 }), egress: None }
}

fn attached_to(attachments: &[Attachment]) -> NodeContext {
    let attachments = attachments.iter().map(|attachment| (attachment.port, attachment.clone())).collect();
    NodeContext { attachments, ..context(&[2, 3], None) }
}

fn with_ports(port: u16, host_ports: &[HostPort]) -> Attachment {
    Attachment { host_ports: host_ports.to_vec(), ..attachment(port, &format!("10.244.1.{port}/24")) }
}

fn limits(world: &World) -> Vec<(u16, u64)> {
    let rate = |shaper: &Shaper| (shaper.port.0, shaper.bandwidth.ingress.unwrap().bits);
    world.switch.shapers.values().map(rate).collect()
}

/// A world whose node has two addresses, of which the first serves node ports.
fn world() -> World {
    let mut world = World::new();
    world.set_node(node("n1", &["10.244.1.0/24"], &["192.168.0.1", "192.168.0.9", "2001:db8::7"]));
    world
}

#[test]
fn a_pod_that_asks_for_bandwidth_has_it_on_its_port() {
    let mut world = world();
    world.set_pod(Pod { bandwidth: limit(5000), ..pod("p2", "10.244.1.2") });
    world.set_pod(pod("p3", "10.244.1.3"));
    assert_eq!(limits(&world), [(2, 5000)]);
    world.set_pod(Pod { bandwidth: limit(6000), ..pod("p2", "10.244.1.2") });
    world.set_pod(Pod { bandwidth: limit(7000), ..pod("p4", "10.244.1.4") });
    assert_eq!(limits(&world), [(2, 6000)], "p4 has no port");
    world.rebind(Some(context(&[3, 4], None)));
    assert_eq!(limits(&world), [(4, 7000)]);
    world.set_pod(Pod { finished: true, bandwidth: limit(7000), ..pod("p4", "10.244.1.4") });
    assert_eq!(limits(&world), []);
}

#[test]
fn what_an_attachment_asked_for_counts_before_the_pod_and_without_any_object() {
    let mut world = World::new();
    let limited = Attachment { bandwidth: limit(9000), ..attachment(2, "10.244.1.2/24") };
    world.rebind(Some(attached_to(std::slice::from_ref(&limited))));
    assert_eq!(limits(&world), [(2, 9000)]);
    assert!(!world.compiler.is_idle());
    world.set_pod(Pod { bandwidth: limit(5000), ..pod("p2", "10.244.1.2") });
    assert_eq!(limits(&world), [(2, 9000)]);
    world.rebind(Some(attached_to(&[attachment(2, "10.244.1.2/24")])));
    assert_eq!(limits(&world), [(2, 5000)]);
    world.rebind(Some(attached_to(&[limited])));
    assert_eq!(limits(&world), [(2, 9000)]);
}

#[test]
fn a_limit_goes_before_its_port() {
    let mut world = world();
    let limited = Attachment { bandwidth: limit(9000), ..attachment(2, "10.244.1.2/24") };
    world.rebind(Some(attached_to(&[limited])));
    let gone = world.compiler.release(&[Change::Port(Delta::remove(port(2)))]);
    assert!(gone.iter().any(|change| matches!(change, Change::Shaper(Delta { new: None, .. }))), "{gone:?}");
    // The switch refused it.
    world.compiler.undo(gone.clone());
    assert_eq!(world.compiler.release(&[Change::Port(Delta::remove(port(2)))]), gone);
    world.tell(gone);
    world.rebind(Some(context(&[3], None)));
    assert_eq!(limits(&world), []);
}

#[test]
fn a_host_port_is_a_service_at_the_addresses_of_node_ports_with_the_container_behind_it() {
    let mut world = world();
    world.rebind(Some(attached_to(&[with_ports(2, &[host_port("", 8080)])])));
    let service = world.at("192.168.0.1 TCP 8080");
    let behind = "10.244.1.2:80".parse().unwrap();
    assert_eq!((&*service.name, &service.backends[..]), ("default/p2:8080", &[behind][..]));
    let external = service.external.as_ref().unwrap();
    assert_eq!((external.local.as_deref(), external.cluster), (Some(&[behind][..]), behind));
    assert_eq!(world.switch.services.len(), 1, "at the primary address of its family only");
    world.rebind(Some(attached_to(&[])));
    assert!(world.switch.services.is_empty());
}

#[test]
fn a_host_port_is_at_the_address_that_was_asked_for() {
    for (address, places) in [
        ("", &["192.168.0.1"][..]),
        ("0.0.0.0", &["192.168.0.1"]),
        ("192.168.0.9", &["192.168.0.9"]),
        ("2001:db8::7", &[]),
        ("192.0.2.1", &[]),
        ("::", &[]),
    ] {
        let mut world = world();
        world.rebind(Some(attached_to(&[with_ports(2, &[host_port(address, 8080)])])));
        let told: Vec<_> = world.switch.services.keys().map(|key| key.address.to_string()).collect();
        assert_eq!(told, places, "{address}");
    }
    let mut world = world();
    let mut both = with_ports(2, &[host_port("", 8080)]);
    both.interface.addresses.push(Assigned { address: "fd00:1::2/64".parse().unwrap(), gateway: None });
    world.rebind(Some(attached_to(&[both])));
    assert_eq!(world.backends("2001:db8::7 TCP 8080"), ["[fd00:1::2]:80"]);
    assert_eq!(world.backends("192.168.0.1 TCP 8080"), ["10.244.1.2:80"]);
}

#[test]
fn host_ports_follow_the_addresses_of_the_node() {
    let mut world = World::new();
    world.rebind(Some(attached_to(&[with_ports(2, &[host_port("", 8080)])])));
    assert!(world.switch.services.is_empty(), "nobody said which addresses the node has");
    world.set_node(node("n1", &["10.244.1.0/24"], &["192.168.0.1"]));
    assert_eq!(world.backends("192.168.0.1 TCP 8080"), ["10.244.1.2:80"]);
    world.set_node(node("n1", &["10.244.1.0/24"], &["192.168.0.2"]));
    assert_eq!(world.switch.services.len(), 1);
    assert_eq!(world.backends("192.168.0.2 TCP 8080"), ["10.244.1.2:80"]);
}

#[test]
fn a_host_port_waits_for_services_and_for_containers_that_came_before() {
    let mut world = world();
    world.rebind(Some(attached_to(&[with_ports(2, &[host_port("", 80)]), with_ports(3, &[host_port("", 80)])])));
    assert_eq!(world.backends("192.168.0.1 TCP 80"), ["10.244.1.2:80"]);
    let web = service("web", &["10.96.0.1"], &[("http", Proto::Tcp, 80)]);
    let external = External { ips: vec![ip("192.168.0.1")], ..External::default() };
    world.set_service(Service { external, ..web });
    assert_eq!(&*world.at("192.168.0.1 TCP 80").name, "default/web:http");
    world.objects.services.clear();
    world.update(Changed::Service(named("web")));
    assert_eq!(&*world.at("192.168.0.1 TCP 80").name, "default/p2:80");
    world.rebind(Some(attached_to(&[with_ports(3, &[host_port("", 80)])])));
    assert_eq!(&*world.at("192.168.0.1 TCP 80").name, "default/p3:80");
}

#[test]
fn a_host_port_at_an_address_that_is_not_the_nodes_is_refused() {
    let world = world();
    for fine in ["", "0.0.0.0", "::", "192.168.0.1", "192.168.0.9", "2001:db8::7"] {
        assert_eq!(world.compiler.check_host_port(&host_port(fine, 8080)), Ok(()), "{fine}");
    }
    for other in ["192.0.2.1", "127.0.0.1", "::1", "10.244.1.1"] {
        let refused = world.compiler.check_host_port(&host_port(other, 8080));
        assert_eq!(refused, Err(format!("hostIP {other}: no address of node n1")));
    }
}
