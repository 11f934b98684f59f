//! Rows V7, V8, V13, V14, V20 and 1.5: what the node itself has of services: its own processes as clients, and what it tells
//! load balancers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use crate::kit::*;

const READY_IS_ALL: &str = "conditions: {ready: true}";
const LOCAL: &str = ", externalTrafficPolicy: Local, healthCheckNodePort: 31234";
const CHECK: u16 = 31234;
const LOOPBACK4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The status and the body that a host gets for a path.
fn get(host: &Host, to: SocketAddr, path: &str) -> Option<(u16, serde_json::Value)> {
    let mut stream = host.space.run(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

#[test]
fn v7_v8_v20_row_1_5_the_nodes_own_processes_reach_a_service_at_each_of_its_places() {
    on_a_node("v7_v8_v20_row_1_5_the_nodes_own_processes_reach_a_service_at_each_of_its_places", |bed| {
        let _server = bed.b.serve(8080);
        // Of another node, as the slices say: under policy Local the node's processes have all endpoints, the outside none.
        let elsewhere = on_nodes("web", &[(&bed.b, THERE, READY_IS_ALL)]);
        let rows =
            [(String::new(), behind("web", &[&bed.b])), (", externalTrafficPolicy: Local".to_owned(), elsewhere)];
        for family in FAMILIES {
            let places = bed.places(family);
            bed.node.is_refused(places[0]);
            for (policy, slices) in &rows {
                bed.apply(&(beyond("web", 10, policy) + slices));
                for to in places {
                    for seen in [bed.node.tcp(to), bed.node.udp(to)] {
                        assert_eq!((seen.who.as_str(), seen.from()), ("b", bed.node.address(family)), "{to}{policy}");
                    }
                }
            }
            // V8: of loopback addresses nothing is caught.
            bed.node.is_refused(SocketAddr::new([LOOPBACK4, LOOPBACK6][family], NODE_PORT));
            bed.delete("service", "web");
            bed.node.is_refused(places[0]);
            bed.delete("endpointslice", "web-v4");
            bed.delete("endpointslice", "web-v6");
        }
    });
}

#[test]
fn v13_a_load_balancer_is_told_whether_an_endpoint_is_here() {
    on_a_node("v13_a_load_balancer_is_told_whether_an_endpoint_is_here", |bed| {
        bed.lead_the_outside_here();
        for family in FAMILIES {
            let told = |(status, body): (u16, serde_json::Value)| (status, body["localEndpoints"].as_u64());
            let check = || get(&bed.outside, bed.node.at(family, CHECK), "/any").map(told);
            for (node, more, says) in [
                (HERE, READY_IS_ALL, (200, Some(1))),
                (THERE, READY_IS_ALL, (503, Some(0))),
                // What terminates still serves, and is not to be sent to.
                (HERE, "conditions: {ready: false, serving: true, terminating: true}", (503, Some(0))),
                (HERE, READY_IS_ALL, (200, Some(1))),
            ] {
                bed.apply(&(beyond("web", 10, LOCAL) + &on_nodes("web", &[(&bed.b, node, more)])));
                assert_eq!(check(), Some(says), "{node} {more}");
            }
            bed.apply(&beyond("web", 10, ""));
            assert_eq!(check(), None, "policy Cluster has no such port");
        }
    });
}

#[test]
fn v14_a_node_that_is_to_go_says_so_and_lives_on() {
    on_a_node("v14_a_node_that_is_to_go_says_so_and_lives_on", |bed| {
        let status = |path: &str| get(&bed.node, bed.node.at(0, 10256), path).map(|(status, _)| status);
        assert_eq!([status("/healthz"), status("/livez")], [Some(200); 2]);
        let taint = "spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}], ";
        bed.apply(&node_manifest(&bed.node).replace("spec: {", taint));
        assert_eq!([status("/healthz"), status("/livez")], [Some(503), Some(200)]);
        bed.apply(&node_manifest(&bed.node));
        assert_eq!(status("/healthz"), Some(200));
    });
}
