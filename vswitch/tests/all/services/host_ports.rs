//! Row M7, and bandwidth of pods: what containers ask for when they are attached, by requests as the CNI plugin makes them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::{Addressing, Attach, AttachReply, AttachmentId, Bandwidth, HostPort, PodRef, Proto, Request};
use vswitch::sys::netns::Namespace;

use super::sctp::{INIT, hear, packet, raw, whole};
use crate::kit::*;

/// The port of the node.
const PORT: u16 = 18080;

fn id() -> AttachmentId {
    AttachmentId { network: "vswitch".to_owned(), container: "d".to_owned(), ifname: "eth0".to_owned() }
}

/// Pod d, which nobody has attached yet.
fn pod_d(bed: &Bed) -> Host {
    let d = Host { name: "d", addresses: ["10.1.0.9", "fd00:1::9"], space: Namespace::new().unwrap() };
    bed.apply(&pod_manifest(&d, ""));
    d
}

/// A port of the node, at an address or at all, that leads to port 8080.
fn host_port(proto: Proto, address: Option<SocketAddr>) -> HostPort {
    HostPort { address: address.map(|at| at.ip()), proto, port: PORT, container: 8080 }
}

/// Attach d with these ports of the node.
fn attach(bed: &Bed, d: &Host, host_ports: Vec<HostPort>) -> AttachReply {
    let wanted = FAMILIES.map(|family| d.address(family)).to_vec();
    let attach = Attach {
        protocol: api::attachment::PROTOCOL,
        id: id(),
        netns: d.space.path().display().to_string(),
        bridge: None,
        kind: "tap".to_owned(),
        mtu: None,
        mac: None,
        addresses: Addressing::Daemon { wanted },
        pod: Some(PodRef { namespace: "default".to_owned(), name: "d".to_owned(), uid: None }),
        host_ports,
        bandwidth: Bandwidth::default(),
    };
    serde_json::from_value(bed.ask(&Request::Attach(Box::new(attach))).unwrap()).unwrap()
}

/// Attach d, whom it must be possible to attach.
fn attached(bed: &Bed, host_ports: Vec<HostPort>) -> Host {
    let d = pod_d(bed);
    let reply = attach(bed, &d, host_ports);
    assert!(matches!(reply, AttachReply::Attached(_)), "{reply:?}");
    d
}

fn detach(bed: &Bed) {
    bed.ask(&Request::Detach { id: id() }).unwrap();
}

#[test]
fn m7_a_host_port_leads_to_its_container_from_everywhere_and_clients_keep_their_addresses() {
    on_a_node("m7_a_host_port_leads_to_its_container_from_everywhere_and_clients_keep_their_addresses", |bed| {
        bed.lead_the_outside_here();
        let d = attached(bed, vec![host_port(Proto::Tcp, None), host_port(Proto::Udp, None)]);
        let _servers = [d.serve(8080), bed.node.serve(9090)];
        for family in FAMILIES {
            let to = bed.node.at(family, PORT);
            for client in [&bed.outside, &bed.a, &bed.node] {
                for _ in 0..2 {
                    let (mut stream, answer) = client.connect(0, to).unwrap_or_else(|why| panic!("{to}: {why}"));
                    let seen = [answer, client.udp(to)].map(|answer| (answer.who.clone(), answer.from()));
                    let expected = ("d".to_owned(), client.address(family));
                    assert_eq!(seen, [expected.clone(), expected], "{} to {to}", client.name);
                    host::echo(&mut stream, &[7; 5000]);
                }
            }
            // Who is its own client sees another.
            let seen = d.tcp(to);
            assert!(seen.who == "d" && seen.from() != d.address(family), "{to}: {seen:?}");
            assert_eq!(bed.outside.tcp(bed.node.at(family, 9090)).who, "node", "all other ports are the node's");
        }
        let services = bed.vsctl("services");
        let rows: Vec<_> = services.lines().filter(|row| row.contains("hostport")).collect();
        assert!(rows.len() == 4 && rows.iter().all(|row| row.contains("default/d:18080")), "{services}");
    });
}

#[test]
fn m7_a_host_port_at_one_address_leaves_all_others_alone() {
    on_a_node("m7_a_host_port_at_one_address_leaves_all_others_alone", |bed| {
        bed.lead_the_outside_here();
        let d = attached(bed, vec![host_port(Proto::Tcp, Some(bed.node.at(0, 0)))]);
        let _server = d.serve(8080);
        for client in [&bed.outside, &bed.a, &bed.node] {
            assert_eq!(client.tcp(bed.node.at(0, PORT)).who, "d");
            assert!(client.try_tcp(bed.node.at(1, PORT)).is_err(), "not asked for at the other family");
            assert!(client.try_udp(bed.node.at(0, PORT)).is_err(), "nor for UDP");
        }
    });
}

#[test]
fn m7_a_host_port_of_sctp_is_told_from_tcp_of_the_same_number() {
    on_a_node("m7_a_host_port_of_sctp_is_told_from_tcp_of_the_same_number", |bed| {
        let d = attached(bed, vec![host_port(Proto::Sctp, None)]);
        for family in FAMILIES {
            for client in [&bed.outside, &bed.a] {
                let (near, far) = (raw(client, family), raw(&d, family));
                for _ in 0..2 {
                    near.send_to(&packet(4000, PORT, INIT), whole(bed.node.address(family))).unwrap();
                    assert_eq!(hear(&far, family), (packet(4000, 8080, INIT), client.address(family)));
                }
                assert!(client.try_tcp(bed.node.at(family, PORT)).is_err());
            }
        }
    });
}

#[test]
fn m7_a_host_port_goes_with_its_container_and_comes_with_the_next() {
    on_a_node("m7_a_host_port_goes_with_its_container_and_comes_with_the_next", |bed| {
        bed.lead_the_outside_here();
        let ports = || vec![host_port(Proto::Tcp, None), host_port(Proto::Udp, None)];
        let d = attached(bed, ports());
        let to = bed.node.at(0, PORT);
        let flow = {
            let _server = d.serve(8080);
            let flow = bed.outside.flow(0, to);
            assert_eq!(flow.answer().who, "d");
            flow
        };
        detach(bed);
        assert!(!bed.vsctl("services").contains("hostport"));
        assert!(flow.ask(b"", SILENCE).is_err(), "the flow has ended");
        for client in [&bed.outside, &bed.a, &bed.node] {
            client.is_refused(to);
        }
        let next = attached(bed, ports());
        let _server = next.serve(8080);
        eventually("the flow goes to the next container", || flow.ask(b"", SILENCE).is_ok());
        assert_eq!(bed.outside.tcp(to).who, "d");
        bed.stop();
        bed.start();
        eventually("it is there after a restart", || bed.outside.try_tcp(to).is_ok_and(|answer| answer.who == "d"));
    });
}

#[test]
fn m7_a_host_port_that_cannot_be_is_refused_and_nothing_is_left_behind() {
    on_a_node("m7_a_host_port_that_cannot_be_is_refused_and_nothing_is_left_behind", |bed| {
        let d = pod_d(bed);
        let reply = attach(bed, &d, vec![host_port(Proto::Tcp, Some("203.0.113.77:0".parse().unwrap()))]);
        let AttachReply::Refused(refusal) = reply else { panic!("{reply:?}") };
        let says = "portMappings[0]: hostPort 18080/TCP: hostIP 203.0.113.77: no address of node n1";
        assert_eq!((refusal.code, refusal.what.as_str()), (api::attachment::code::INVALID_CONFIG, says));
        let reply = attach(bed, &d, vec![host_port(Proto::Tcp, None)]);
        assert!(matches!(reply, AttachReply::Attached(_)), "{reply:?}");
    });
}

/// How long a pod's way to another takes for a million octets and back.
fn time_for_a_megabyte(bed: &Bed) -> Duration {
    let (mut stream, _) = bed.a.connect(0, bed.b.at(0, 8080)).unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        host::echo(&mut stream, &[7; 20_000]);
    }
    start.elapsed()
}

#[test]
fn annotations_of_a_pod_limit_its_bandwidth_until_they_go() {
    on_a_node("annotations_of_a_pod_limit_its_bandwidth_until_they_go", |bed| {
        let _server = bed.b.serve(8080);
        let limited = |way: &str, rate: &str| {
            pod_manifest(&bed.a, &format!(", annotations: {{kubernetes.io/{way}-bandwidth: '{rate}'}}"))
        };
        let free = time_for_a_megabyte(bed);
        assert!(free < Duration::from_millis(700), "{free:?}");
        for way in ["ingress", "egress"] {
            bed.apply(&limited(way, "8M"));
            let time = time_for_a_megabyte(bed);
            // A tenth of a second's worth passes at once.
            assert!((Duration::from_millis(850)..Duration::from_millis(2500)).contains(&time), "{way}: {time:?}");
            bed.apply(&pod_manifest(&bed.a, ""));
            let free = time_for_a_megabyte(bed);
            assert!(free < Duration::from_millis(700), "{free:?}");
        }
        let refused = bed.refused(&limited("egress", "8Mbit"));
        let says = "metadata.annotations[kubernetes.io/egress-bandwidth]: 8Mbit: not a quantity, such as 10M";
        assert!(refused.contains(says), "{refused}");
    });
}
