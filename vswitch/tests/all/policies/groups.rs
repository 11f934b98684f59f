//! Row N21: what has no ports, and what is for many.

use std::net::{Ipv4Addr, Ipv6Addr};

use vswitch::sys::netlink::Netlink;

use super::*;

#[test]
fn n21_an_isolated_pod_answers_no_ping_unless_a_rule_without_ports_lets_it_in() {
    on_a_node("n21_an_isolated_pod_answers_no_ping_unless_a_rule_without_ports_lets_it_in", |bed| {
        let Bed { a, b, node, .. } = bed;
        let of_a = "from: [{podSelector: {matchLabels: {app: a}}}]";
        for (rule, answers) in [
            (String::new(), false),
            (format!("{{{of_a}, ports: [{{}}, {{protocol: UDP}}, {{protocol: SCTP}}]}}"), false),
            (format!("{{{of_a}}}"), true),
        ] {
            bed.apply(&to_b(&rule));
            for family in FAMILIES {
                for _ in 0..2 {
                    assert_eq!(a.ping(b.address(family), if answers { PATIENCE } else { QUIET }), answers, "{rule}");
                }
                // Its own pings are answered, and those of the node.
                assert!(b.ping(a.address(family), PATIENCE) && node.ping(b.address(family), PATIENCE));
            }
        }
    });
}

const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x1234);

/// Sockets that hear a group of each IP version and what is for everybody.
fn listeners(host: &Host) -> [UdpSocket; 2] {
    let sockets = host.space.run(|| {
        let index = Netlink::open().unwrap().index("eth0").unwrap();
        let [v4, v6] = ["0.0.0.0:7000", "[::]:7001"].map(|at| UdpSocket::bind(at).unwrap());
        let std::net::IpAddr::V4(own) = host.address(0) else { panic!("an IPv4 address") };
        v4.join_multicast_v4(&GROUP4, &own).unwrap();
        v6.join_multicast_v6(&GROUP6, index).unwrap();
        [v4, v6]
    });
    sockets.iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
    sockets
}

fn say(host: &Host) {
    host.space.run(|| {
        let index = Netlink::open().unwrap().index("eth0").unwrap();
        let [v4, v6] = ["0.0.0.0:0", "[::]:0"].map(|at| UdpSocket::bind(at).unwrap());
        v4.set_broadcast(true).unwrap();
        let std::net::IpAddr::V4(own) = host.address(0) else { panic!("an IPv4 address") };
        rustix::net::sockopt::set_ip_multicast_if(&v4, &own).unwrap();
        v4.send_to(b"group", (GROUP4, 7000)).unwrap();
        v4.send_to(b"all", "10.1.0.255:7000").unwrap();
        v6.send_to(b"group", std::net::SocketAddrV6::new(GROUP6, 7001, 0, index)).unwrap();
    });
}

/// All three of them came.
fn hears(sockets: &[UdpSocket; 2]) {
    let mut octets = [0; 64];
    for socket in [&sockets[0], &sockets[0], &sockets[1]] {
        socket.recv(&mut octets).expect("it comes");
    }
}

#[test]
fn n21_what_is_for_many_does_not_reach_an_isolated_pod() {
    on_a_node("n21_what_is_for_many_does_not_reach_an_isolated_pod", |bed| {
        let Bed { a, b, c, .. } = bed;
        let (of_b, of_c) = (listeners(b), listeners(c));
        say(a);
        hears(&of_b);
        hears(&of_c);
        // Even who lets some in is isolated.
        bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: a}}}]}"));
        for _ in 0..2 {
            say(a);
            hears(&of_c);
        }
        for socket in &of_b {
            socket.set_read_timeout(Some(QUIET)).unwrap();
            assert!(socket.recv(&mut [0; 64]).is_err(), "b hears what is for many");
        }
        bed.delete("netpol", "to-b");
        say(a);
        hears(&of_b);
        hears(&of_c);
    });
}
