//! Rows 4.1: the network model.

use std::net::{SocketAddr, UdpSocket};

use crate::kit::*;

#[test]
fn m1_processes_of_a_pod_share_its_localhost_and_nobody_else_does() {
    on_a_node("m1_processes_of_a_pod_share_its_localhost_and_nobody_else_does", |bed| {
        let _servers = [bed.a.serve(8080), bed.b.serve(8080)];
        for localhost in ["127.0.0.1:8080", "[::1]:8080"] {
            let to: SocketAddr = localhost.parse().unwrap();
            assert_eq!([bed.a.tcp(to).who, bed.b.tcp(to).who], ["a", "b"]);
            bed.c.is_refused(to);
        }
    });
}

#[test]
fn m1_an_address_is_one_pods() {
    on_a_node("m1_an_address_is_one_pods", |bed| {
        let _server = bed.b.serve(8080);
        let thief = pod_manifest(&bed.b, "").replace("name: b,", "name: thief,");
        let why = bed.refused(&thief);
        assert!(why.contains("10.1.0.3"), "{why}");
        FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.tcp(bed.b.at(family, 8080)).who, "b"));
    });
}

#[test]
fn m4_a_pod_of_the_host_network_is_reached_at_the_nodes_address_and_serves() {
    on_a_node("m4_a_pod_of_the_host_network_is_reached_at_the_nodes_address_and_serves", |bed| {
        let _server = bed.node.serve(8080);
        let agent = pod_manifest(&bed.node, "").replace("name: node,", "name: agent,");
        bed.apply(&agent.replace("spec: {nodeName", "spec: {hostNetwork: true, nodeName"));
        bed.apply(&service_with("agent", 10, PORTS, "", ", selector: {app: node}"));
        for family in FAMILIES {
            for at in [bed.node.at(family, 8080), vip(family, 10, 80)] {
                let seen = [bed.a.tcp(at), bed.b.udp(at)];
                assert_eq!(seen.map(|answer| answer.from()), [bed.a.address(family), bed.b.address(family)]);
            }
        }
    });
}

#[test]
fn m2_m3_m4_everybody_of_the_cluster_reaches_everybody_and_is_seen_as_itself() {
    on_a_node("m2_m3_m4_everybody_of_the_cluster_reaches_everybody_and_is_seen_as_itself", |bed| {
        let all = [&bed.a, &bed.b, &bed.c, &bed.node];
        let _servers = all.map(|host| host.serve(8080));
        for family in FAMILIES {
            for (from, to) in all.iter().flat_map(|from| all.map(|to| (from, to))) {
                if from.name == to.name {
                    continue;
                }
                for seen in [from.tcp(to.at(family, 8080)), from.udp(to.at(family, 8080))] {
                    assert_eq!((seen.who.as_str(), seen.from()), (to.name, from.address(family)), "{}", from.name);
                }
            }
        }
    });
}

#[test]
fn m6_a_cluster_may_have_one_ip_version_alone() {
    on_a_node("m6_a_cluster_may_have_one_ip_version_alone", |bed| {
        let _servers = [bed.b.serve(8080), bed.outside.serve(8080)];
        for family in FAMILIES {
            // All of the other version goes.
            for host in [&bed.a, &bed.b, &bed.c] {
                bed.delete("pod", host.name);
            }
            bed.delete("node", "n1");
            let one = |text: String| only(family, &text);
            bed.apply(&one(node_manifest(&bed.node)));
            for host in [&bed.a, &bed.b, &bed.c] {
                bed.apply(&one(pod_manifest(host, "")));
            }
            bed.apply(&one(service("web", 10)));
            bed.apply(&behind("web", &[&bed.b]));
            assert_eq!(bed.a.tcp(bed.b.at(family, 8080)).from(), bed.a.address(family));
            assert_eq!(bed.a.tcp(vip(family, 10, 80)).from(), bed.a.address(family));
            assert_eq!(bed.a.tcp(bed.outside.at(family, 8080)).from(), bed.node.address(family));
            bed.a.meets_silence(vip(1 - family, 10, 80));
            bed.delete("service", "web");
        }
    });
}

/// A manifest of the kit without what it says of the other IP version.
fn only(family: usize, text: &str) -> String {
    let pairs = [
        ("[10.1.0.0/24, 'fd00:1::/64']", ["[10.1.0.0/24]", "['fd00:1::/64']"]),
        ("[10.96.0.10, 'fd00:96::10']", ["[10.96.0.10]", "['fd00:96::10']"]),
        ("clusterIP: 10.96.0.10", ["clusterIP: 10.96.0.10", "clusterIP: 'fd00:96::10'"]),
        ("[IPv4, IPv6]", ["[IPv4]", "[IPv6]"]),
        ("RequireDualStack", ["SingleStack", "SingleStack"]),
    ];
    let mut text = pairs.iter().fold(text.to_owned(), |text, (both, one)| text.replace(both, one[family]));
    // Lists of addresses: the version's own entry.
    for (start, end) in [("podIPs: [", "]"), ("addresses: [", "]")] {
        let Some(from) = text.find(start).map(|at| at + start.len()) else { continue };
        let to = from + text[from..].find(end).unwrap();
        let entries: Vec<_> =
            text[from..to].split("}, ").map(|entry| entry.trim_end_matches('}').to_owned() + "}").collect();
        text.replace_range(from..to, &entries[family]);
    }
    if family == 1
        && let Some(from) = text.find("podIP: ")
    {
        let to = from + text[from..].find(',').unwrap();
        let start = text.find("podIPs: [{ip: ").unwrap() + "podIPs: [{ip: ".len();
        let own = text[start..start + text[start..].find('}').unwrap()].to_owned();
        text.replace_range(from..to, &format!("podIP: {own}"));
    }
    text
}

#[test]
fn m10_pods_the_node_and_the_outside_answer_ping() {
    on_a_node("m10_pods_the_node_and_the_outside_answer_ping", |bed| {
        for family in FAMILIES {
            for (from, to) in [(&bed.a, &bed.b), (&bed.b, &bed.a), (&bed.a, &bed.node), (&bed.node, &bed.c)] {
                assert!(from.ping(to.address(family), PATIENCE), "{} to {}", from.name, to.name);
            }
            assert!(bed.a.ping(bed.outside.address(family), PATIENCE));
            assert!(bed.a.ping(GATEWAY[family].parse().unwrap(), PATIENCE));
        }
    });
}

#[test]
fn m13_large_datagrams_and_streams_pass_between_pods_and_by_way_of_services() {
    on_a_node("m13_large_datagrams_and_streams_pass_between_pods_and_by_way_of_services", |bed| {
        let _servers = [bed.b.serve(8080), bed.node.serve(8080), bed.outside.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let octets: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        for family in FAMILIES {
            let ways = [
                (&bed.a, bed.b.at(family, 8080)),
                (&bed.a, vip(family, 10, 80)),
                (&bed.b, vip(family, 10, 80)),
                (&bed.node, vip(family, 10, 80)),
                (&bed.a, bed.node.at(family, 8080)),
                (&bed.a, bed.outside.at(family, 8080)),
            ];
            for (from, to) in ways {
                for len in [2000, 9000, 40_000] {
                    let asked = from.flow(0, to).ask(&octets[..len], PATIENCE);
                    let back = asked.unwrap_or_else(|why| panic!("{} to {to}: {len} octets: {why}", from.name)).1;
                    assert!(back == octets[..len], "{} to {to}: other octets than the {len} sent", from.name);
                }
                let (mut stream, _) = from.connect(0, to).unwrap();
                octets.chunks(50_000).for_each(|part| host::echo(&mut stream, part));
            }
        }
    });
}

#[test]
fn m14_questions_from_one_socket_at_the_same_time_are_all_answered_by_one_endpoint() {
    on_a_node("m14_questions_from_one_socket_at_the_same_time_are_all_answered_by_one_endpoint", |bed| {
        let _servers = [bed.b.serve(53), bed.c.serve(53)];
        let ports = "{name: dns, protocol: UDP, port: 53}, {name: dns-tcp, protocol: TCP, port: 53}";
        bed.apply(&service_with("dns", 10, ports, "", ""));
        bed.apply(&behind_with("dns", "", ports, &[(&bed.b, READY), (&bed.c, READY)]));
        for family in FAMILIES {
            let to = vip(family, 10, 53);
            assert_eq!(bed.a.tcp(to).from(), bed.a.address(family));
            let sockets: Vec<UdpSocket> = bed.a.space.run(|| {
                let socket = || UdpSocket::bind((bed.a.address(family), 0)).unwrap();
                (0..200).map(|_| socket()).collect()
            });
            for round in sockets.chunks(20) {
                for socket in round {
                    for question in [b"A   ", b"AAAA"] {
                        assert_eq!(socket.send_to(question, to).unwrap(), 4);
                    }
                }
                for socket in round {
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    let answer = || {
                        let mut octets = [0; 128];
                        let (len, from) = socket.recv_from(&mut octets).expect("no question is lost");
                        assert_eq!(from, to);
                        String::from_utf8(octets[..len].to_vec()).unwrap()
                    };
                    let answers = [answer(), answer()];
                    let [one, two] = answers.each_ref().map(|answer| answer.split_once('\n').unwrap());
                    assert_eq!(one.0, two.0, "one endpoint, and one source");
                    assert_ne!(one.1, two.1, "one answer to each question");
                }
            }
        }
    });
}
