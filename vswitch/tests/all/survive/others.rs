//! What else survives, or does not: stations of a plain bridge, the node's own way, UDP flows whose service went.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use vswitch::sys::netlink::Netlink;
use vswitch::sys::routes::{FAMILIES, Routes};

use super::alone;
use super::load::{Echo, Load, Shape};
use super::node::{End, Node, PODS, SERVICE};

/// Stations are written down once a second.
const WRITTEN: Duration = Duration::from_millis(1500);

/// Ports of the stations of a bridge, by address.
fn stations(node: &Node) -> Vec<String> {
    let text = node.vsctl("fdb/show br0");
    let mut rows: Vec<String> =
        text.lines().skip(1).map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    rows.sort();
    rows
}

#[test]
fn stations_of_a_plain_bridge_are_known_after_every_end() {
    let _alone = alone();
    let Some(mut node) = Node::new("stations_of_a_plain_bridge_are_known_after_every_end", 2, 1) else { return };
    node.vsctl("add-br br0");
    (0..2).for_each(|number| node.add_port("br0", number));
    let socket = node.pods[1].run(|| UdpSocket::bind("0.0.0.0:7").unwrap());
    node.pods[0].run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", (PODS[1], 7)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
    socket.send_to(b"hello", from).unwrap();
    std::thread::sleep(WRITTEN);
    let before = stations(&node);
    assert_eq!(before.len(), 2, "{before:?}");
    for end in [End::DataPlane, End::Both, End::Restart] {
        node.end(end);
        assert_eq!(stations(&node), before, "{end:?}");
    }
    // The control: without what was written down they would have to be heard of first.
    node.kill(End::Both);
    std::fs::remove_file(node.run_dir().join("learned")).unwrap();
    node.start();
    assert!(stations(&node).is_empty());
}

#[test]
fn connections_of_the_nodes_own_processes_wait_for_a_restart_and_routes_go_with_an_end_for_good() {
    let _alone = alone();
    let test = "connections_of_the_nodes_own_processes_wait_for_a_restart_and_routes_go_with_an_end_for_good";
    let Some(mut node) = Node::new(test, 2, 1) else { return };
    node.make_cluster();
    let _server = Echo::new(&node.pods[1], 8080);
    let to: SocketAddr = SERVICE.parse().unwrap();
    let shape = Shape { connections: 20, octets: 64, every: Duration::from_millis(20) };
    let load = Load::start(&node.space, to, shape);
    let routes = |node: &Node| node.space.run(|| Routes::open().unwrap().list(FAMILIES[0]).unwrap());
    let before = routes(&node);
    assert!(!before.is_empty());
    node.stop(Signal::TERM);
    assert_eq!(routes(&node), before, "a packet of the node would leave by another way");
    std::thread::sleep(Duration::from_millis(500));
    node.start();
    load.settle(Duration::from_secs(10));
    let outcome = load.outcome();
    assert!(outcome.broken.is_empty() && outcome.octets > 0, "{:?}", outcome.broken);
    drop(load);
    node.stop(Signal::INT);
    assert!(routes(&node).is_empty());
}

#[test]
fn a_udp_flow_whose_backend_went_while_nobody_looked_goes_to_another_one() {
    let _alone = alone();
    let test = "a_udp_flow_whose_backend_went_while_nobody_looked_goes_to_another_one";
    let Some(mut node) = Node::new(test, 3, 1) else { return };
    node.make_cluster();
    let servers: Vec<UdpSocket> =
        node.pods[1..].iter().map(|pod| pod.run(|| UdpSocket::bind("0.0.0.0:8080").unwrap())).collect();
    servers.iter().for_each(|server| server.set_read_timeout(Some(Duration::from_millis(300))).unwrap());
    let client = node.pods[0].run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let meets = || {
        client.send_to(b"who", SERVICE).unwrap();
        servers.iter().position(|server| server.recv_from(&mut [0; 16]).is_ok())
    };
    let first = meets().expect("a backend");
    // The same one, as long as it serves.
    node.end(End::Both);
    assert_eq!(meets(), Some(first));
    node.kill(End::Both);
    // What the cluster says now, as if it had changed while nobody looked.
    let file = state_of_cluster(&node);
    let text = std::fs::read_to_string(&file).unwrap();
    let gone = PODS[1 + first];
    let endpoint = text.replace(&format!("\"addresses\":[\"{gone}\"]"), "\"addresses\":[\"10.1.0.77\"]");
    assert_ne!(endpoint, text, "{text}");
    std::fs::write(&file, endpoint).unwrap();
    node.start();
    // Or the address that nobody has any more: then it is dropped, but never told to who serves no more.
    assert_ne!(meets(), Some(first));
}

/// The file in which the daemon keeps the cluster's objects.
fn state_of_cluster(node: &Node) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(node.dir.path().join("state")).unwrap().flatten().map(|entry| entry.path());
    files.find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("EndpointSlice"))).expect("a file")
}

#[test]
fn no_port_is_made_anew_by_any_end() {
    let _alone = alone();
    let Some(mut node) = Node::new("no_port_is_made_anew_by_any_end", 2, 1) else { return };
    node.make_cluster();
    let index = |node: &Node| {
        let index = || Netlink::open().unwrap().index("eth0").unwrap();
        [0, 1].map(|number: usize| node.pods[number].run(index))
    };
    let before = index(&node);
    for end in [End::DataPlane, End::Keeper, End::Both, End::Restart, End::Upgrade] {
        node.end(end);
        assert_eq!(index(&node), before, "{end:?}");
    }
    let refused = node.pods[0].run(|| TcpStream::connect_timeout(&SERVICE.parse().unwrap(), Duration::from_secs(5)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "the backend itself answers");
}
