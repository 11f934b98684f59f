//! Rows V7, V9, V10, V12 and V16: where services are reached from beyond the cluster.

use std::net::SocketAddr;

use vswitch::sys::netlink::Netlink;

use super::outcomes::both_speak;
use crate::kit::*;

/// Who comes from beyond, and who from a pod.
fn clients(bed: &Bed) -> [&Host; 2] {
    [&bed.outside, &bed.a]
}

/// The address is no service's: whoever is there instead may say so, or say nothing.
#[track_caller]
fn nobody_answers(client: &Host, to: SocketAddr) {
    assert!(client.connect_within(to, SILENCE).is_err(), "{} to {to} by TCP", client.name);
    assert!(client.flow(0, to).ask(b"", SILENCE).is_err(), "{} to {to} by UDP", client.name);
}

#[test]
fn v7_v9_v10_pods_and_the_outside_reach_a_service_at_each_of_its_places() {
    on_a_node("v7_v9_v10_pods_and_the_outside_reach_a_service_at_each_of_its_places", |bed| {
        let _server = bed.b.serve(8080);
        bed.lead_the_outside_here();
        bed.apply(&(beyond("web", 10, "") + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            for to in bed.places(family) {
                for client in clients(bed) {
                    let (mut stream, answer) = client.connect(0, to).unwrap_or_else(|why| panic!("{to}: {why}"));
                    assert_eq!(
                        (answer.who.as_str(), client.udp(to).who.as_str()),
                        ("b", "b"),
                        "{} to {to}",
                        client.name
                    );
                    host::echo(&mut stream, &[7; 5000]);
                }
            }
            // Who is its own endpoint sees another.
            for to in bed.places(family) {
                let seen = bed.b.tcp(to);
                assert!(seen.who == "b" && seen.from() != bed.b.address(family), "{to}: {seen:?}");
            }
        }
    });
}

#[test]
fn v7_a_node_port_leaves_all_other_ports_to_the_node_and_moves_live() {
    on_a_node("v7_a_node_port_leaves_all_other_ports_to_the_node_and_moves_live", |bed| {
        let _servers = [bed.b.serve(8080), bed.node.serve(9090), bed.node.serve(30081)];
        bed.lead_the_outside_here();
        let moved = NODE_PORTS.replace("30080", "30081");
        for family in FAMILIES {
            bed.apply(&(beyond("web", 10, "") + &behind("web", &[&bed.b])));
            for client in clients(bed) {
                let seen = [client.tcp(bed.node.at(family, 9090)), client.udp(bed.node.at(family, 9090))];
                assert_eq!(seen.map(|answer| answer.from()), [client.address(family); 2]);
                // The node's own server, until it is a node port.
                assert_eq!(client.tcp(bed.node.at(family, 30081)).who, "node");
                assert_eq!(client.tcp(bed.node.at(family, NODE_PORT)).who, "b");
            }
            let (mut stream, _) = bed.outside.connect(0, bed.node.at(family, NODE_PORT)).unwrap();
            bed.apply(&beyond_with("web", 10, &moved, ""));
            host::echo(&mut stream, b"the port moved");
            for client in clients(bed) {
                assert_eq!(client.tcp(bed.node.at(family, 30081)).who, "b");
                client.is_refused(bed.node.at(family, NODE_PORT));
            }
        }
    });
}

#[test]
fn v9_an_external_address_comes_and_goes_live() {
    on_a_node("v9_an_external_address_comes_and_goes_live", |bed| {
        let _server = bed.b.serve(8080);
        bed.lead_the_outside_here();
        for family in FAMILIES {
            let to = bed.places(family)[1];
            bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
            clients(bed).into_iter().for_each(|client| nobody_answers(client, to));
            bed.apply(&beyond("web", 10, ""));
            for client in clients(bed) {
                assert_eq!([client.tcp(to).who, client.udp(to).who], ["b", "b"]);
            }
            bed.delete("service", "web");
            clients(bed).into_iter().for_each(|client| nobody_answers(client, to));
        }
    });
}

#[test]
fn v10_a_load_balancer_that_is_a_proxy_is_left_to_the_outside() {
    on_a_node("v10_a_load_balancer_that_is_a_proxy_is_left_to_the_outside", |bed| {
        let _servers = [bed.b.serve(8080), bed.outside.serve(80)];
        bed.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            for family in FAMILIES {
                netlink.add_address(index, BALANCER[family].parse().unwrap(), [32, 128][family]).unwrap();
            }
        });
        let text = beyond("web", 10, "");
        for (text, who) in [(text.clone(), "b"), (text.replace("ip: ", "ipMode: Proxy, ip: "), "outside")] {
            bed.apply(&(text + &behind("web", &[&bed.b])));
            FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.tcp(bed.places(family)[2]).who, who));
        }
    });
}

#[test]
fn v12_a_load_balancer_without_node_ports_is_reached_at_its_addresses_alone() {
    on_a_node("v12_a_load_balancer_without_node_ports_is_reached_at_its_addresses_alone", |bed| {
        let _server = bed.b.serve(8080);
        bed.lead_the_outside_here();
        bed.apply(
            &(beyond_with("web", 10, PORTS, ", allocateLoadBalancerNodePorts: false") + &behind("web", &[&bed.b])),
        );
        for family in FAMILIES {
            let [node_port, external, balancer] = bed.places(family);
            for client in clients(bed) {
                client.is_refused(node_port);
                assert_eq!([client.tcp(external).who, client.udp(balancer).who], ["b", "b"]);
            }
        }
    });
}

#[test]
fn v16_a_service_of_one_ip_version_has_no_place_in_the_other() {
    on_a_node("v16_a_service_of_one_ip_version_has_no_place_in_the_other", |bed| {
        let _server = bed.b.serve(8080);
        bed.lead_the_outside_here();
        let families = "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack";
        let both = beyond("web", 10, "");
        for family in FAMILIES {
            let own = vip(family, 10, 0).ip();
            let single = format!("ipFamilies: [{}], ipFamilyPolicy: SingleStack", ["IPv4", "IPv6"][family]);
            let addresses = "clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, 'fd00:96::10']";
            // Addresses of both versions are still listed.
            let text = both.replace(families, &single);
            let text = text.replace(addresses, &format!("clusterIP: '{own}', clusterIPs: ['{own}']"));
            assert_ne!(text, both);
            bed.apply(&(text + &behind("web", &[&bed.b])));
            for client in clients(bed) {
                for to in bed.places(family) {
                    assert_eq!([client.tcp(to).who, client.udp(to).who], ["b", "b"]);
                }
                let [node_port, external, balancer]: [SocketAddr; 3] = bed.places(1 - family);
                client.is_refused(node_port);
                [external, balancer].into_iter().for_each(|to| nobody_answers(client, to));
            }
            bed.delete("service", "web");
        }
    });
}

#[test]
fn v18_one_port_of_the_outside_speaks_at_once_to_two_places_of_one_endpoint() {
    on_a_node("v18_one_port_of_the_outside_speaks_at_once_to_two_places_of_one_endpoint", |bed| {
        let _server = bed.b.serve(8080);
        bed.lead_the_outside_here();
        bed.apply(&on_nodes("web", &[(&bed.b, HERE, "conditions: {ready: true}")]));
        for (round, policy) in ["Cluster", "Local"].into_iter().enumerate() {
            bed.apply(&beyond("web", 10, &format!(", externalTrafficPolicy: {policy}")));
            for family in FAMILIES {
                let [node_port, external, balancer] = bed.places(family);
                let from = 5000 + 10 * round as u16 + family as u16;
                both_speak(&bed.outside, from, [node_port, external]);
                both_speak(&bed.outside, from + 5, [external, balancer]);
            }
        }
    });
}
