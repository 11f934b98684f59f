//! Rows 1.4: what becomes of what is sent to a service.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use etherparse::PacketBuilder;
use rustix::net::{AddressFamily, RawProtocol, SocketType};

use crate::kit::*;

#[test]
fn row_1_4_a_service_without_endpoints_is_refused_to_pods_and_to_the_node() {
    on_a_node("row_1_4_a_service_without_endpoints_is_refused_to_pods_and_to_the_node", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&service("web", 10));
        for family in FAMILIES {
            bed.a.is_refused(vip(family, 10, 80));
            bed.node.is_refused(vip(family, 10, 80));
        }
        // What is established is not touched by that.
        bed.apply(&behind("web", &[&bed.b]));
        let mut streams = FAMILIES.map(|family| bed.a.connect(0, vip(family, 10, 80)).unwrap().0);
        bed.apply(&behind("web", &[]));
        for family in FAMILIES {
            bed.a.is_refused(vip(family, 10, 80));
            host::echo(&mut streams[family], b"still here");
        }
    });
}

#[test]
fn row_1_4_a_port_that_a_service_has_not_is_refused() {
    on_a_node("row_1_4_a_port_that_a_service_has_not_is_refused", |bed| {
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            bed.a.is_refused(vip(family, 10, 81));
            bed.node.is_refused(vip(family, 10, 81));
        }
    });
}

#[test]
fn row_1_4_an_unallocated_address_of_a_service_range_meets_silence_and_is_counted() {
    on_a_node("row_1_4_an_unallocated_address_of_a_service_range_meets_silence_and_is_counted", |bed| {
        bed.apply(&service("web", 10));
        for family in FAMILIES {
            bed.a.meets_silence(vip(family, 99, 80));
            bed.node.meets_silence(vip(family, 99, 80));
            assert!(!bed.a.ping(vip(family, 99, 80).ip(), SILENCE));
        }
        let drops = bed.vsctl("drops");
        assert!(drops.contains("unknown-service"), "{drops}");
    });
}

#[test]
fn row_1_4_a_service_address_answers_ping_with_and_without_endpoints() {
    on_a_node("row_1_4_a_service_address_answers_ping_with_and_without_endpoints", |bed| {
        bed.apply(&service("web", 10));
        for family in FAMILIES {
            assert!(bed.a.ping(vip(family, 10, 80).ip(), PATIENCE));
            assert!(bed.node.ping(vip(family, 10, 80).ip(), PATIENCE));
        }
    });
}

#[test]
fn v1_new_connections_meet_every_endpoint_as_often() {
    on_a_node("v1_new_connections_meet_every_endpoint_as_often", |bed| {
        let _servers = [bed.a.serve(8080), bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.a, &bed.b, &bed.c])));
        for family in FAMILIES {
            let mut seen = BTreeMap::<String, f64>::new();
            for _ in 0..300 {
                *seen.entry(bed.node.udp(vip(family, 10, 80)).who).or_default() += 1.0;
            }
            let chi_squared: f64 = seen.values().map(|times| (times - 100.0).powi(2) / 100.0).sum();
            // Two degrees of freedom: one run in a million is beyond this.
            assert!(seen.len() == 3 && chi_squared < 27.6, "{seen:?}");
        }
    });
}

#[test]
fn v2_a_connection_stays_with_its_endpoint_while_others_come_and_go() {
    on_a_node("v2_a_connection_stays_with_its_endpoint_while_others_come_and_go", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            bed.apply(&behind("web", &[&bed.b]));
            let (mut stream, answer) = bed.a.connect(0, vip(family, 10, 80)).unwrap();
            let flow = bed.a.flow(0, vip(family, 10, 80));
            assert_eq!((answer.who.as_str(), flow.answer().who.as_str()), ("b", "b"));
            for _ in 0..5 {
                for hosts in [&[&bed.c, &bed.b][..], &[&bed.b]] {
                    bed.apply(&behind("web", hosts));
                    host::echo(&mut stream, b"still here");
                    assert_eq!(flow.answer().who, "b");
                }
            }
        }
    });
}

#[test]
fn v3_an_endpoint_sees_the_pod_that_speaks_to_the_service() {
    on_a_node("v3_an_endpoint_sees_the_pod_that_speaks_to_the_service", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            for pod in [&bed.a, &bed.c] {
                let seen = [pod.tcp(vip(family, 10, 80)), pod.udp(vip(family, 10, 80))];
                assert_eq!(seen.map(|answer| answer.from()), [pod.address(family); 2]);
            }
        }
    });
}

#[test]
fn v4_who_is_its_own_endpoint_reaches_itself_and_sees_another() {
    on_a_node("v4_who_is_its_own_endpoint_reaches_itself_and_sees_another", |bed| {
        for (host, n) in [(&bed.a, 10), (&bed.node, 11)] {
            let _server = host.serve(8080);
            bed.apply(&(service(host.name, n) + &behind(host.name, &[host])));
            for family in FAMILIES {
                for seen in [host.tcp(vip(family, n, 80)), host.udp(vip(family, n, 80))] {
                    assert_eq!((seen.who.as_str(), seen.from().to_string().as_str()), (host.name, GATEWAY[family]));
                }
            }
        }
    });
}

#[test]
fn v18_one_port_speaks_at_once_to_two_services_with_one_endpoint() {
    on_a_node("v18_one_port_speaks_at_once_to_two_services_with_one_endpoint", |bed| {
        let _server = bed.b.serve(8080);
        for (name, n) in [("one", 10), ("two", 11)] {
            bed.apply(&(service(name, n) + &behind(name, &[&bed.b])));
        }
        for (round, family) in FAMILIES.into_iter().enumerate() {
            both_speak(&bed.a, 5000 + round as u16, [vip(family, 10, 80), vip(family, 11, 80)]);
        }
    });
}

#[test]
fn v19_one_port_speaks_at_once_to_a_service_and_to_its_endpoint() {
    on_a_node("v19_one_port_speaks_at_once_to_a_service_and_to_its_endpoint", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for (round, family) in FAMILIES.into_iter().enumerate() {
            both_speak(&bed.a, 5000 + round as u16, [vip(family, 10, 80), bed.b.at(family, 8080)]);
            both_speak(&bed.a, 5100 + round as u16, [bed.b.at(family, 8080), vip(family, 10, 80)]);
        }
    });
}

/// From one port of ours to two addresses at a time, by TCP and by UDP; whoever answers sees two of us.
#[track_caller]
pub(super) fn both_speak(client: &Host, from: u16, to: [SocketAddr; 2]) {
    let mut streams = to.map(|to| client.connect(from, to).unwrap_or_else(|why| panic!("{from} to {to}: {why}")));
    for _ in 0..3 {
        streams.iter_mut().for_each(|(stream, _)| host::echo(stream, b"both"));
    }
    assert_ne!(streams[0].1.peer, streams[1].1.peer);
    let socket = client.space.run(|| std::net::UdpSocket::bind((client.address(usize::from(to[0].is_ipv6())), from)));
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        to.iter().for_each(|to| assert_eq!(socket.send_to(b"both", to).unwrap(), 4));
        let mut heard = [(); 2].map(|()| socket.recv_from(&mut [0; 256]).unwrap().1);
        heard.sort();
        let mut asked = to;
        asked.sort();
        assert_eq!(heard, asked);
    }
}

#[test]
fn v20_m4_the_nodes_own_processes_reach_services_as_the_node() {
    on_a_node("v20_m4_the_nodes_own_processes_reach_services_as_the_node", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            let seen = [bed.node.tcp(vip(family, 10, 80)), bed.node.udp(vip(family, 10, 80))];
            assert_eq!(seen.map(|answer| answer.from()), [bed.node.address(family); 2]);
        }
    });
}

#[test]
fn v21_a_service_of_the_node_itself_is_reached_by_pods() {
    on_a_node("v21_a_service_of_the_node_itself_is_reached_by_pods", |bed| {
        let _server = bed.node.serve(6443);
        let targets = TARGETS.replace("8080", "6443");
        bed.apply(&(service("kubernetes", 1) + &behind_with("kubernetes", "", &targets, &[(&bed.node, READY)])));
        for family in FAMILIES {
            for seen in [bed.a.tcp(vip(family, 1, 80)), bed.a.udp(vip(family, 1, 80))] {
                assert_eq!((seen.who.as_str(), seen.from()), ("node", bed.a.address(family)));
            }
        }
    });
}

#[test]
fn v22_an_endpoint_outside_is_reached_under_the_nodes_address() {
    on_a_node("v22_an_endpoint_outside_is_reached_under_the_nodes_address", |bed| {
        let _server = bed.outside.serve(8080);
        bed.apply(&(service("far", 10) + &behind("far", &[&bed.outside])));
        for family in FAMILIES {
            for from in [&bed.a, &bed.node] {
                for seen in [from.tcp(vip(family, 10, 80)), from.udp(vip(family, 10, 80))] {
                    assert_eq!((seen.who.as_str(), seen.from()), ("outside", bed.node.address(family)));
                }
            }
        }
    });
}

#[test]
fn v23_a_client_learns_by_way_of_the_service_what_size_fits() {
    on_a_node("v23_a_client_learns_by_way_of_the_service_what_size_fits", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        bed.vsctl("set Interface b mtu_request=1400");
        let octets: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for family in FAMILIES {
            let (mut stream, _) = bed.a.connect(0, vip(family, 10, 80)).unwrap();
            octets.chunks(20_000).for_each(|part| host::echo(&mut stream, part));
            let flow = bed.a.flow(0, vip(family, 10, 80));
            assert_eq!(flow.answer().who, "b");
            // The kernel forbids to cut it, until it is told what fits: the first one is lost, and that is said.
            let lost = flow.ask(&octets[..1440], SILENCE);
            assert!(lost.is_err(), "nobody said that it is too large: {lost:?}");
            let mut back = Vec::new();
            eventually("the kernel cuts what does not fit", || match flow.ask(&octets[..1440], SILENCE) {
                Ok((_, octets)) => {
                    back = octets;
                    true
                }
                Err(_) => false,
            });
            assert_eq!(back, octets[..1440]);
        }
    });
}

#[test]
fn v24_what_an_endpoint_says_out_of_turn_does_not_reset_its_client() {
    on_a_node("v24_what_an_endpoint_says_out_of_turn_does_not_reset_its_client", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let (mut stream, answer) = bed.a.connect(0, vip(0, 10, 80)).unwrap();
        let address = |host: &Host| match host.address(0) {
            std::net::IpAddr::V4(address) => address.octets(),
            other => panic!("{other}"),
        };
        // As the "boom server" of Kubernetes' tests: of the connection, and far outside of its window.
        let builder = PacketBuilder::ipv4(address(&bed.b), address(&bed.a), 64);
        let mut packet = Vec::new();
        builder.tcp(8080, answer.peer.port(), 1, 8192).ack(0x7000_0001).write(&mut packet, b"boom").unwrap();
        let raw = bed.b.space.run(|| {
            // include/uapi/linux/in.h: IPPROTO_RAW, headers are ours
            let raw = Some(rustix::net::Protocol::from_raw(RawProtocol::new(255).unwrap()));
            rustix::net::socket(AddressFamily::INET, SocketType::RAW, raw).unwrap()
        });
        for _ in 0..5 {
            let to = SocketAddr::new(bed.a.address(0), 0);
            rustix::net::sendto(&raw, &packet, rustix::net::SendFlags::empty(), &to).unwrap();
            host::echo(&mut stream, b"still here");
        }
        std::thread::sleep(SILENCE);
        host::echo(&mut stream, b"and here");
        // The control: what the endpoint says in its turn is heard.
        drop(_server);
        eventually("the connection ends with its server", || {
            use std::io::{Read, Write};
            let _ = stream.write_all(b"anybody?");
            matches!(stream.read(&mut [0; 8]).map_err(|why| why.kind()), Ok(0) | Err(ErrorKind::ConnectionReset))
        });
    });
}

#[test]
fn v25_a_half_closed_connection_carries_on_in_the_other_direction() {
    on_a_node("v25_a_half_closed_connection_carries_on_in_the_other_direction", |bed| {
        use std::io::{Read, Write};
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            let listener = bed.b.space.run(|| std::net::TcpListener::bind(bed.b.at(family, 8080)).unwrap());
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"server 127.0.0.1:1\n").unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
                std::thread::sleep(SILENCE);
                stream.write_all(b"after the other side had finished").unwrap();
            });
            let (mut stream, _) = bed.a.connect(0, vip(family, 10, 80)).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "after the other side had finished");
            server.join().unwrap();
        }
    });
}
