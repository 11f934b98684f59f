//! Rows 1.5: whose address is seen.

use vswitch::sys::netlink::Netlink;

use crate::kit::*;

#[test]
fn row_1_5_who_comes_to_a_service_from_outside_is_seen_as_the_node() {
    on_a_node("row_1_5_who_comes_to_a_service_from_outside_is_seen_as_the_node", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        bed.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            for family in FAMILIES {
                let gateway: std::net::IpAddr = GATEWAY[family].parse().unwrap();
                let range: ipnet::IpNet = SERVICE_CIDR[family].parse().unwrap();
                netlink.add_route((gateway, [32, 128][family]), None, Some(index)).unwrap();
                netlink.add_route((range.addr(), range.prefix_len()), Some(gateway), Some(index)).unwrap();
            }
        });
        for family in FAMILIES {
            for seen in [bed.outside.tcp(vip(family, 10, 80)), bed.outside.udp(vip(family, 10, 80))] {
                assert_eq!((seen.who.as_str(), seen.from()), ("b", bed.node.address(family)));
            }
        }
    });
}

#[test]
fn row_1_5_m8_a_pod_is_seen_outside_as_the_node_and_by_pods_as_itself() {
    on_a_node("row_1_5_m8_a_pod_is_seen_outside_as_the_node_and_by_pods_as_itself", |bed| {
        let _servers = [bed.outside.serve(53), bed.b.serve(53)];
        for family in FAMILIES {
            for (to, seen_as) in [(&bed.outside, &bed.node), (&bed.b, &bed.a)] {
                let seen = [bed.a.tcp(to.at(family, 53)), bed.a.udp(to.at(family, 53))];
                assert_eq!(seen.map(|answer| answer.from()), [seen_as.address(family); 2], "by {}", to.name);
            }
            // An echo comes back to who asked.
            assert!(bed.a.ping(bed.outside.address(family), PATIENCE));
        }
    });
}

#[test]
fn row_1_5_two_pods_leave_from_one_port_and_neither_hears_the_others_answers() {
    on_a_node("row_1_5_two_pods_leave_from_one_port_and_neither_hears_the_others_answers", |bed| {
        let _server = bed.outside.serve(53);
        for family in FAMILIES {
            let to = bed.outside.at(family, 53);
            let flows = [&bed.a, &bed.b, &bed.c].map(|pod| pod.flow(5353, to));
            let peers = flows.each_ref().map(|flow| flow.answer().peer);
            assert!(peers[0] != peers[1] && peers[1] != peers[2] && peers[0] != peers[2], "{peers:?}");
            for _ in 0..20 {
                assert_eq!(flows.each_ref().map(|flow| flow.answer().peer), peers);
            }
        }
    });
}
