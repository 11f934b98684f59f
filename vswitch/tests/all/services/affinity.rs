//! Rows V5 and V6: who comes again meets the same endpoint.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use vswitch::sys::netlink::Netlink;

use crate::kit::*;

const STICKY: &str = ", sessionAffinity: ClientIP";

/// Who answers TCP, asked so often at each of these.
fn met(client: &Host, times: usize, to: &[SocketAddr]) -> BTreeSet<String> {
    to.iter().cycle().take(times * to.len()).map(|to| client.tcp(*to).who).collect()
}

/// Servers of all pods.
fn servers(bed: &Bed) -> [server::Server; 3] {
    [&bed.a, &bed.b, &bed.c].map(|pod| pod.serve(8080))
}

fn all_pods(bed: &Bed) -> String {
    behind("web", &[&bed.a, &bed.b, &bed.c])
}

#[test]
fn v5_a_client_meets_one_endpoint_at_all_places_of_a_service() {
    on_a_node("v5_a_client_meets_one_endpoint_at_all_places_of_a_service", |bed| {
        let _servers = servers(bed);
        bed.lead_the_outside_here();
        bed.apply(&(beyond("web", 10, STICKY) + &all_pods(bed)));
        for family in FAMILIES {
            let [node_port, external, balancer] = bed.places(family);
            let places = [vip(family, 10, 80), node_port, external, balancer];
            assert_eq!(met(&bed.a, 5, &places).len(), 1);
            assert_eq!(met(&bed.outside, 5, &places[1..]).len(), 1);
            let of_udp: BTreeSet<_> = (0..15).map(|_| bed.outside.udp(node_port).who).collect();
            assert_eq!(of_udp.len(), 1);
        }
        // It is switched off and on live.
        bed.apply(&beyond("web", 10, ""));
        FAMILIES.into_iter().for_each(|family| assert_ne!(met(&bed.outside, 15, &bed.places(family)).len(), 1));
        bed.apply(&beyond("web", 10, STICKY));
        FAMILIES.into_iter().for_each(|family| assert_eq!(met(&bed.outside, 5, &bed.places(family)).len(), 1));
    });
}

#[test]
fn v5_clients_are_told_apart_by_the_address_they_came_from_though_all_are_seen_as_the_node() {
    on_a_node("v5_clients_are_told_apart_by_the_address_they_came_from_though_all_are_seen_as_the_node", |bed| {
        const CLIENTS: u16 = 20;
        let _servers = servers(bed);
        bed.apply(&(beyond("web", 10, STICKY) + &all_pods(bed)));
        for family in FAMILIES {
            let address = |n: u16| -> IpAddr {
                let text = [format!("203.0.113.{n}"), format!("2001:db8:9::{n}")];
                text[family].parse().unwrap()
            };
            let numbers = 100..100 + CLIENTS;
            bed.outside.space.run(|| {
                let netlink = Netlink::open().unwrap();
                let index = netlink.index("eth0").unwrap();
                numbers.clone().for_each(|n| netlink.add_address(index, address(n), PREFIX[family]).unwrap());
            });
            let who_answers = |n: u16| {
                let socket = bed.outside.space.run(|| UdpSocket::bind((address(n), 0)).unwrap());
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send_to(b"", bed.node.at(family, NODE_PORT)).unwrap();
                let mut octets = [0; 128];
                let (len, _) = socket.recv_from(&mut octets).unwrap();
                let text = String::from_utf8_lossy(&octets[..len]).into_owned();
                let (who, peer) = text.trim_end().split_once(' ').unwrap();
                assert_eq!(peer.parse::<SocketAddr>().unwrap().ip(), bed.node.address(family));
                who.to_owned()
            };
            let first: Vec<String> = numbers.clone().map(who_answers).collect();
            assert_ne!(first.iter().collect::<BTreeSet<_>>().len(), 1, "one endpoint for all clients");
            for _ in 0..3 {
                assert_eq!(numbers.clone().map(who_answers).collect::<Vec<_>>(), first);
            }
        }
    });
}

#[test]
fn v5_an_endpoint_that_is_none_any_more_is_forgotten() {
    on_a_node("v5_an_endpoint_that_is_none_any_more_is_forgotten", |bed| {
        let _servers = servers(bed);
        bed.apply(&service_with("web", 10, PORTS, "", STICKY));
        for family in FAMILIES {
            bed.apply(&behind("web", &[&bed.b]));
            assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "b");
            bed.apply(&all_pods(bed));
            assert_eq!(met(&bed.a, 15, &[vip(family, 10, 80)]), BTreeSet::from(["b".to_owned()]));
            bed.apply(&behind("web", &[&bed.c]));
            assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "c");
            bed.apply(&all_pods(bed));
            assert_eq!(met(&bed.a, 15, &[vip(family, 10, 80)]), BTreeSet::from(["c".to_owned()]));
        }
    });
}

#[test]
fn v5_a_client_is_remembered_from_its_last_connection_on_and_not_for_longer_than_the_timeout() {
    on_a_node("v5_a_client_is_remembered_from_its_last_connection_on_and_not_for_longer", |bed| {
        const TIMEOUT: u64 = 3;
        let _servers = servers(bed);
        let sticky = format!("{STICKY}, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {TIMEOUT}}}}}");
        bed.apply(&(service_with("web", 10, PORTS, "", &sticky) + &all_pods(bed)));
        let who = || FAMILIES.map(|family| bed.a.tcp(vip(family, 10, 80)).who);
        let first = who();
        // For longer than the timeout, but never silent for so long.
        for _ in 0..5 {
            std::thread::sleep(Duration::from_secs(TIMEOUT) / 4);
            assert_eq!(who(), first);
        }
        // One in three comes back to where it was; of two, all sixteen times: one in 10^15.
        let another = (0..16).any(|_| {
            std::thread::sleep(Duration::from_millis(TIMEOUT * 1000 + 200));
            who() != first
        });
        assert!(another, "they are remembered for ever");
    });
}

#[test]
fn v6_each_port_of_a_service_has_its_own_memory_of_clients() {
    on_a_node("v6_each_port_of_a_service_has_its_own_memory_of_clients", |bed| {
        let _servers = servers(bed);
        let ports =
            format!("{PORTS}, {{name: x, port: 81, targetPort: 8080}}, {{name: y, port: 82, targetPort: 8080}}");
        let targets = format!("{TARGETS}, {{name: x, port: 8080}}, {{name: y, port: 8080}}");
        let pods = [&bed.a, &bed.b, &bed.c];
        bed.apply(&service_with("web", 10, &ports, "", STICKY));
        bed.apply(&behind_with("web", "", &targets, &pods.map(|pod| (pod, READY))));
        let mut differ = 0;
        for family in FAMILIES {
            for client in [&bed.a, &bed.b, &bed.c, &bed.node] {
                let mut of_ports = [80, 81, 82].map(|port| met(client, 5, &[vip(family, 10, port)])).to_vec();
                of_ports.push((0..5).map(|_| client.udp(vip(family, 10, 80)).who).collect());
                assert!(of_ports.iter().all(|met| met.len() == 1), "{of_ports:?}");
                of_ports.dedup();
                differ += usize::from(of_ports.len() > 1);
            }
        }
        // Four ports agree by chance for one client in 27.
        assert!(differ > 0, "all ports agree for all clients");
    });
}
