//! Rows 1.6: flows that outlive what they were decided by.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use vswitch::sys::netlink::Netlink;

use crate::kit::*;

#[test]
fn u1_a_udp_flow_moves_when_its_endpoint_goes_or_gets_another_port() {
    on_a_node("u1_a_udp_flow_moves_when_its_endpoint_goes_or_gets_another_port", |bed| {
        let (old, _other, _new) = (bed.b.serve(8080), bed.c.serve(8080), bed.b.serve(8081));
        bed.apply(&service("web", 10));
        for family in FAMILIES {
            bed.apply(&behind("web", &[&bed.b]));
            let flow = bed.a.flow(5000 + family as u16, vip(family, 10, 80));
            (0..3).for_each(|_| assert_eq!(flow.answer().who, "b"));
            bed.apply(&behind("web", &[&bed.c]));
            (0..3).for_each(|_| assert_eq!(flow.answer().who, "c"));
            // The same address, but another port.
            bed.apply(&behind("web", &[&bed.b]));
            assert_eq!(flow.answer().who, "b");
            bed.apply(&behind_with("web", "", &TARGETS.replace("8080", "8081"), &[(&bed.b, READY)]));
            let before = old.heard();
            assert_eq!(flow.answer().who, "b");
            assert_eq!(old.heard(), before, "the old port heard of it");
        }
    });
}

#[test]
fn u1_a_udp_flow_stays_with_an_endpoint_that_terminates_and_still_serves() {
    on_a_node("u1_a_udp_flow_stays_with_an_endpoint_that_terminates_and_still_serves", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let flows = FAMILIES.map(|family| bed.a.flow(0, vip(family, 10, 80)));
        flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "b"));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, TERMINATING), (&bed.c, READY)]));
        flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "b"));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, FAILING), (&bed.c, READY)]));
        flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "c"));
    });
}

#[test]
fn u2_a_udp_flow_that_met_nobody_is_served_when_the_first_endpoint_appears() {
    on_a_node("u2_a_udp_flow_that_met_nobody_is_served_when_the_first_endpoint_appears", |bed| {
        let _server = bed.b.serve(8080);
        for (family, n) in [(0, 10), (1, 11)] {
            let flow = bed.a.flow(5000, vip(family, n, 80));
            // No service yet, no endpoint yet, none that is ready.
            assert!(flow.ask(b"", SILENCE).is_err());
            bed.apply(&service(["v4", "v6"][family], n));
            assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bed.apply(&behind_with(["v4", "v6"][family], "", TARGETS, &[(&bed.b, UNREADY)]));
            assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bed.apply(&behind(["v4", "v6"][family], &[&bed.b]));
            assert_eq!(flow.answer().who, "b");
        }
    });
}

#[test]
fn u2_a_udp_flow_that_went_outside_is_served_when_the_service_of_its_address_appears() {
    on_a_node("u2_a_udp_flow_that_went_outside_is_served_when_the_service_of_its_address_appears", |bed| {
        let _server = bed.b.serve(8080);
        // Addresses of no service range, which somebody outside has.
        let somewhere = ["10.97.0.10", "fd00:97::10"].map(|address| address.parse::<IpAddr>().unwrap());
        let sockets = bed.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            somewhere.map(|address| {
                netlink.add_address(index, address, if address.is_ipv4() { 32 } else { 128 }).unwrap();
                UdpSocket::bind((address, 80)).unwrap()
            })
        });
        let flows = somewhere.map(|address| bed.a.flow(0, SocketAddr::new(address, 80)));
        for (family, (flow, socket)) in flows.iter().zip(&sockets).enumerate() {
            flow.socket.send(b"anybody?").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let (len, peer) = socket.recv_from(&mut [0; 64]).unwrap();
            assert_eq!((len, peer.ip()), (8, bed.node.address(family)));
        }
        let [v4, v6] = somewhere.map(|address| address.to_string());
        let text = service("web", 10).replace("10.96.0.10", &v4).replace("fd00:96::10", &v6);
        bed.apply(&(text + &behind("web", &[&bed.b])));
        flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "b"));
    });
}

#[test]
fn u3_a_udp_flow_is_refused_when_the_last_endpoint_goes() {
    on_a_node("u3_a_udp_flow_is_refused_when_the_last_endpoint_goes", |bed| {
        let server = bed.b.serve(8080);
        bed.apply(&service("web", 10));
        for family in FAMILIES {
            for gone in [behind("web", &[]), behind_with("web", "", TARGETS, &[(&bed.b, UNREADY)])] {
                bed.apply(&behind("web", &[&bed.b]));
                let flow = bed.a.flow(0, vip(family, 10, 80));
                (0..3).for_each(|_| assert_eq!(flow.answer().who, "b"));
                bed.apply(&gone);
                let heard = server.heard();
                assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
                assert_eq!(server.heard(), heard, "who is gone heard of it");
            }
        }
    });
}

#[test]
fn u4_u6_tcp_connections_outlive_their_endpoint_and_their_service_and_udp_flows_do_not() {
    on_a_node("u4_u6_tcp_connections_outlive_their_endpoint_and_their_service_and_udp_flows_do_not", |bed| {
        let server = bed.b.serve(8080);
        for family in FAMILIES {
            bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
            let (mut stream, _) = bed.a.connect(0, vip(family, 10, 80)).unwrap();
            let flow = bed.a.flow(0, vip(family, 10, 80));
            assert_eq!(flow.answer().who, "b");
            bed.apply(&behind("web", &[]));
            host::echo(&mut stream, b"without its endpoint");
            bed.delete("service", "web");
            host::echo(&mut stream, b"without its service");
            let heard = server.heard();
            assert!(flow.ask(b"", SILENCE).is_err());
            assert_eq!(server.heard(), heard, "the service is gone");
            bed.a.meets_silence(vip(family, 10, 80));
        }
    });
}

#[test]
fn u5_a_udp_flow_goes_on_after_a_restart_and_after_objects_that_say_nothing_new() {
    on_a_node("u5_a_udp_flow_goes_on_after_a_restart_and_after_objects_that_say_nothing_new", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        let text = service("web", 10) + &behind("web", &[&bed.b, &bed.c]);
        bed.apply(&text);
        let flow = bed.a.flow(5000, vip(0, 10, 80));
        let first = flow.answer();
        for _ in 0..10 {
            bed.apply(&text);
            bed.apply(&service("other", 11));
            assert_eq!(flow.answer(), first);
            bed.delete("service", "other");
        }
        bed.stop();
        bed.start();
        flow.answer();
    });
}

#[test]
fn u1_u2_u3_u6_udp_flows_of_the_outside_at_a_node_port_follow_its_endpoints() {
    on_a_node("u1_u2_u3_u6_udp_flows_of_the_outside_at_a_node_port_follow_its_endpoints", |bed| {
        let servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.lead_the_outside_here();
        for family in FAMILIES {
            for (n, to) in bed.places(family).into_iter().enumerate() {
                bed.apply(&(beyond("web", 10, "") + &behind("web", &[])));
                let flow = bed.outside.flow(5000 + n as u16, to);
                assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
                // U2: the first endpoint; U1: another, or one that terminates and still serves.
                bed.apply(&behind("web", &[&bed.b]));
                assert_eq!(flow.answer().who, "b");
                bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, TERMINATING), (&bed.c, READY)]));
                assert_eq!(flow.answer().who, "b");
                bed.apply(&behind("web", &[&bed.c]));
                assert_eq!(flow.answer().who, "c");
                // U3: none is left.
                bed.apply(&behind("web", &[]));
                let heard = servers.each_ref().map(server::Server::heard);
                assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
                assert_eq!(servers.each_ref().map(server::Server::heard), heard, "who is gone heard of it");
            }
            // U6: the service goes, and its TCP connections stay.
            bed.apply(&behind("web", &[&bed.b]));
            let to = bed.node.at(family, NODE_PORT);
            let (mut stream, flow) = (bed.outside.connect(0, to).unwrap().0, bed.outside.flow(0, to));
            assert_eq!(flow.answer().who, "b");
            bed.delete("service", "web");
            host::echo(&mut stream, b"without its service");
            // The port is the node's own again, and nobody listens there.
            assert_eq!(flow.ask(b"", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bed.outside.is_refused(to);
        }
    });
}
