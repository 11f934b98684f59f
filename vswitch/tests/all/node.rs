//! A node against the real kernel: pods and the node's own processes in namespaces, a router between them, programmed by
//! hand-made transactions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use api::{
    AddressKey, Bridge, BridgeId, Change, Delta, Endpoint, EndpointKind, Hop, MacAddr, Port, PortId, Proto, Route,
    RouteKey, Router, Service, ServiceKey, ServiceRange, Transaction,
};
use control::Switch as _;
use rustix::net::{AddressFamily, SocketType, ipproto};
use vswitch::keeper::Keeper;
use vswitch::switch::Switch;
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;
use vswitch::sys::routes::{FAMILIES, Routes};

use crate::memory::options;

mod redirect;

const BR: BridgeId = BridgeId(1);
const LOCAL: PortId = PortId(1);
const PODS: [PortId; 2] = [PortId(2), PortId(3)];
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// By family: the gateway, the pods, the node, a service, and an address of the service range that no service has.
const GATEWAY: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
const POD: [[&str; 2]; 2] = [["10.1.0.2", "10.1.0.3"], ["fd00:1::2", "fd00:1::3"]];
const NODE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const VIP: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const NOBODY: [&str; 2] = ["10.96.0.99", "fd00:96::99"];
const PREFIX: [u8; 2] = [24, 64];
/// How long an answer may take, and how long silence is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

/// The node's namespace and two pods', if we may make them.
struct Hosts {
    node: Namespace,
    pods: [Namespace; 2],
}

fn hosts(test: &str) -> Option<Hosts> {
    let possible = std::path::Path::new(vswitch::sys::tun::PATH).exists();
    match (possible, Namespace::new(), Namespace::new(), Namespace::new()) {
        (true, Ok(node), Ok(a), Ok(b)) => {
            node.run(|| {
                let netlink = Netlink::open().unwrap();
                netlink.add_veth("eth0", "wire", None).unwrap();
                for name in ["lo", "wire", "eth0"] {
                    let index = netlink.index(name).unwrap();
                    netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
                }
                let eth0 = netlink.index("eth0").unwrap();
                for (address, prefix) in NODE.iter().zip(PREFIX) {
                    netlink.add_address(eth0, address.parse().unwrap(), prefix).unwrap();
                }
            });
            Some(Hosts { node, pods: [a, b] })
        }
        (_, node, ..) => {
            println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", node.map(|_| ()));
            None
        }
    }
}

fn port(id: PortId, name: &str, kind: &str, ofport: u16, options: &[(&str, &str)]) -> Port {
    Port {
        id,
        name: name.to_owned(),
        bridge: BR,
        ofport,
        kind: kind.to_owned(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        vlan: api::Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: BTreeMap::new(),
    }
}

fn router() -> Router {
    let gateways = GATEWAY.iter().zip(PREFIX).map(|(gateway, len)| format!("{gateway}/{len}").parse().unwrap());
    Router {
        bridge: BR,
        mac: ROUTER,
        gateways: gateways.collect(),
        node: NODE.iter().map(|address| address.parse().unwrap()).collect(),
        uplink: None,
        local: None,
        snat_ports: Router::SNAT_PORTS,
    }
}

fn endpoint(address: &str, port: PortId, mac: MacAddr, kind: EndpointKind, name: &str) -> Endpoint {
    let key = AddressKey { bridge: BR, address: address.parse().unwrap() };
    Endpoint { key, port, mac, kind, identity: u64::from(port.0), name: name.to_owned() }
}

/// The service at `VIP` of a family.
fn service(family: usize, proto: Proto, backends: &[&str]) -> Service {
    let backends = backends.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 8080)).collect();
    let key = ServiceKey { address: VIP[family].parse().unwrap(), proto, port: 80 };
    Service::new(key, "default/web".into(), backends)
}

/// Bridge and ports; then, knowing the MACs of their devices, the router and all that is behind it.
fn program(switch: &mut Switch, hosts: &Hosts) {
    let bridge = Bridge {
        id: BR,
        name: "br-pods".to_owned(),
        mac_table_size: Bridge::MAC_TABLE_SIZE,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: BTreeMap::new(),
    };
    let mut changes = vec![Change::Bridge(Delta::add(bridge))];
    changes.push(Change::Port(Delta::add(port(LOCAL, "br-pods", "internal", Port::LOCAL, &[]))));
    for (number, pod) in hosts.pods.iter().enumerate() {
        let options = [("netns", pod.path().to_str().unwrap()), ("ifname", "eth0")];
        let tap = port(PODS[number], &format!("pod{number}"), "tap", 1 + number as u16, &options);
        changes.push(Change::Port(Delta::add(tap)));
    }
    switch.apply(&Transaction { changes }).unwrap();
    hosts.pods.iter().enumerate().for_each(|(number, pod)| configure(pod, number));
    let macs: BTreeMap<PortId, MacAddr> =
        switch.ports().into_iter().filter_map(|state| Some((state.id, state.mac?))).collect();

    let mut changes = vec![
        Change::Port(Delta::add(port(PortId::STACK, "stack", "stack", 0, &[]))),
        Change::Router(Delta::add(router())),
    ];
    let mut add = |address: &str, port: PortId, mac, kind, name: &str| {
        changes.push(Change::Endpoint(Delta::add(endpoint(address, port, mac, kind, name))));
    };
    for family in 0..2 {
        add(GATEWAY[family], PortId::STACK, ROUTER, EndpointKind::Gateway, "gateway");
        add(NODE[family], LOCAL, macs[&LOCAL], EndpointKind::Node, "node/n1");
        for (number, id) in PODS.into_iter().enumerate() {
            add(POD[family][number], id, macs[&id], EndpointKind::Pod, &format!("pod/default/{number}"));
        }
    }
    for family in 0..2 {
        let gateway: ipnet::IpNet = router().gateways[family];
        let key = RouteKey { bridge: BR, prefix: gateway.trunc() };
        changes.push(Change::Route(Delta::add(Route { key, to: Hop::Endpoint, origin: "pod-cidr".to_owned() })));
        let prefix = ["10.96.0.0/16", "fd00:96::/64"][family].parse().unwrap();
        changes.push(Change::ServiceRange(Delta::add(ServiceRange { prefix, origin: "--service-cidr".to_owned() })));
        for proto in [Proto::Tcp, Proto::Udp] {
            changes.push(Change::Service(Delta::add(service(family, proto, &[POD[family][1]]))));
        }
    }
    switch.apply(&Transaction { changes }).unwrap();
}

/// Switch `eth0` of a pod on, with its addresses and default routes.
fn configure(pod: &Namespace, number: usize) {
    pod.run(|| {
        let netlink = Netlink::open().unwrap();
        let index = netlink.index("eth0").unwrap();
        netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
        for family in 0..2 {
            netlink.add_address(index, POD[family][number].parse().unwrap(), PREFIX[family]).unwrap();
            let all = (["0.0.0.0", "::"][family].parse().unwrap(), 0);
            netlink.add_route(all, Some(GATEWAY[family].parse().unwrap()), Some(index)).unwrap();
        }
    });
}

/// Ask an address for an echo. `None`: nothing came back in this time.
fn ping(address: &str, patience: Duration) -> Option<()> {
    // Whoever is in a group of this range may ask without privilege: everybody of this namespace.
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let address: IpAddr = address.parse().unwrap();
    let (family, proto, ask, answer) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = UdpSocket::from(rustix::net::socket(family, SocketType::DGRAM, Some(proto)).unwrap());
    let end = Instant::now() + patience;
    while Instant::now() < end {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut question = vec![ask, 0, 0, 0, 0, 0, 0, 1];
        question.extend(b"are you there");
        // There may be no route (yet).
        if socket.send_to(&question, (address, 0)).is_err() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let mut octets = [0; 64];
        if let Ok((len, from)) = socket.recv_from(&mut octets) {
            assert_eq!((octets[0], &octets[8..len], from.ip()), (answer, &b"are you there"[..], address));
            return Some(());
        }
    }
    None
}

/// Listens in one namespace, is spoken to by name from another: what the listener saw of the speaker.
fn spoken(to: &Namespace, listen: &str, from: &Namespace, call: SocketAddr) -> Option<IpAddr> {
    let listener = to.run(|| TcpListener::bind((listen, 8080)).unwrap());
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| {
            listener.set_nonblocking(true).unwrap();
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                if let Ok((mut stream, peer)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    stream.write_all(b"hello").unwrap();
                    return Some(peer.ip());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        });
        let said = from.run(|| {
            let mut stream = TcpStream::connect_timeout(&call, PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = [0; 5];
            stream.read_exact(&mut text).ok()?;
            Some(text)
        });
        let heard = heard.join().unwrap();
        assert_eq!(said.is_some(), heard.is_some());
        heard
    })
}

/// Run `work` on a node with its router, with one worker and with two.
fn on_a_node(test: &str, work: impl Fn(&Hosts, &mut Switch) + Sync) {
    for workers in [1, 2] {
        let Some(hosts) = hosts(test) else { return };
        hosts.node.run(|| {
            let mut switch = Switch::start(&options(workers), Keeper::none()).unwrap();
            program(&mut switch, &hosts);
            work(&hosts, &mut switch);
            switch.stop();
        });
    }
}

#[test]
fn gateways_and_service_addresses_answer_ping_and_unknown_ones_do_not() {
    on_a_node("gateways_and_service_addresses_answer_ping_and_unknown_ones_do_not", |hosts, switch| {
        for family in 0..2 {
            for from in [&hosts.pods[0], &hosts.node] {
                for address in [GATEWAY[family], VIP[family]] {
                    let answered = from.run(|| ping(address, PATIENCE));
                    assert!(answered.is_some(), "{address}: {:?}", switch.drops());
                }
                assert!(from.run(|| ping(NOBODY[family], SILENCE)).is_none(), "{}", NOBODY[family]);
            }
        }
    });
}

#[test]
fn a_pod_that_asks_the_stack_too_much_loses_the_excess_by_name_and_its_neighbour_nothing() {
    on_a_node("a_pod_that_asks_the_stack_too_much_loses_the_excess_by_name", |hosts, switch| {
        let dropped = |switch: &Switch, port: PortId| {
            let row = |row: &api::state::DropState| row.port == port && row.reason == "reply-limit";
            switch.drops().into_iter().find(row).map_or(0, |row| row.packets)
        };
        hosts.pods[0].run(|| {
            ping(GATEWAY[0], PATIENCE).unwrap();
            let ping = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).unwrap();
            let socket = UdpSocket::from(ping);
            for _ in 0..2000 {
                // A full socket buffer is no matter.
                let _ = socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 1], (GATEWAY[0], 0));
            }
        });
        let end = Instant::now() + PATIENCE;
        while dropped(switch, PODS[0]) == 0 {
            assert!(Instant::now() < end, "nothing was dropped: {:?}", switch.drops());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(hosts.pods[1].run(|| ping(GATEWAY[0], PATIENCE)).is_some());
        assert_eq!(dropped(switch, PODS[1]), 0);
    });
}

#[test]
fn pods_and_the_node_reach_one_another_under_their_own_addresses() {
    on_a_node("pods_and_the_node_reach_one_another_under_their_own_addresses", |hosts, switch| {
        let Hosts { node, pods } = hosts;
        for family in 0..2 {
            let [one, two] = POD[family];
            let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 8080);
            let own = |address: &str| Some(address.parse::<IpAddr>().unwrap());
            assert_eq!(spoken(&pods[1], two, &pods[0], at(two)), own(one), "pod to pod: {:?}", switch.drops());
            assert_eq!(spoken(&pods[0], one, node, at(one)), own(NODE[family]), "node to pod: {:?}", switch.drops());
            assert_eq!(spoken(node, NODE[family], &pods[0], at(NODE[family])), own(one), "pod to node");
        }
    });
}

#[test]
fn pods_and_the_node_reach_a_service() {
    on_a_node("pods_and_the_node_reach_a_service", |hosts, switch| {
        let Hosts { node, pods } = hosts;
        for family in 0..2 {
            let backend = POD[family][1];
            let service = SocketAddr::new(VIP[family].parse().unwrap(), 80);
            for (from, address) in [(&pods[0], POD[family][0]), (node, NODE[family])] {
                let seen = spoken(&pods[1], backend, from, service);
                assert_eq!(seen, Some(address.parse().unwrap()), "{service}: {:?}", switch.drops());
            }
        }
    });
}

#[test]
fn a_trace_tells_what_a_packet_would_meet_and_sends_nothing() {
    on_a_node("a_trace_tells_what_a_packet_would_meet_and_sends_nothing", |hosts, switch| {
        let macs: BTreeMap<PortId, MacAddr> =
            switch.ports().into_iter().filter_map(|state| Some((state.id, state.mac?))).collect();
        for family in 0..2 {
            let probe = |dst: &str| api::state::Probe {
                port: PODS[0],
                eth_src: macs[&PODS[0]],
                eth_dst: None,
                src: POD[family][0].parse().unwrap(),
                dst: dst.parse().unwrap(),
                proto: 6,
                sport: 40000,
                dport: 80,
                everywhere: false,
            };
            let listener = hosts.pods[1].run(|| TcpListener::bind((POD[family][1], 8080)).unwrap());
            listener.set_nonblocking(true).unwrap();
            let served = switch.trace(&probe(VIP[family]));
            assert_eq!((served.verdict.as_str(), &served.outputs[..]), ("allow", &PODS[1..]), "{served:?}");
            assert!(served.decided_by.contains("default/web"), "{served:?}");
            let near = switch.trace(&probe(POD[family][1]));
            assert_eq!((near.verdict.as_str(), &near.outputs[..]), ("allow", &PODS[1..]), "{near:?}");
            let nobody = switch.trace(&probe(NOBODY[family]));
            assert_ne!(nobody.verdict, "allow", "{nobody:?}");
            assert!(listener.accept().is_err() && switch.connections().is_empty());
        }
    });
}

#[test]
fn u1_a_udp_flow_ends_when_its_backend_goes_and_a_tcp_connection_does_not() {
    on_a_node("u1_a_udp_flow_ends_when_its_backend_goes_and_a_tcp_connection_does_not", |hosts, switch| {
        let Hosts { pods, .. } = hosts;
        let service_at = SocketAddr::new(VIP[0].parse().unwrap(), 80);
        let listener = pods[1].run(|| TcpListener::bind((POD[0][1], 8080)).unwrap());
        let server = pods[1].run(|| UdpSocket::bind((POD[0][1], 8080)).unwrap());
        let stream = pods[0].run(|| TcpStream::connect_timeout(&service_at, PATIENCE).unwrap());
        let client = pods[0].run(|| UdpSocket::bind((POD[0][0], 5000)).unwrap());
        client.send_to(b"hello", service_at).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = [0; 16];
        assert_eq!(server.recv(&mut text).unwrap(), 5);
        let tracked = |switch: &Switch| -> Vec<u8> {
            let to_service = switch.connections().into_iter().filter(|state| state.original.dst == service_at);
            let mut protos: Vec<u8> = to_service.map(|state| state.proto).collect();
            protos.sort_unstable();
            protos
        };
        assert_eq!(tracked(switch), [6, 17]);
        let gone = |proto| {
            let before = service(0, proto, &[POD[0][1]]);
            Change::Service(Delta::replace(before, service(0, proto, &[POD[0][0]])))
        };
        switch.apply(&Transaction { changes: vec![gone(Proto::Tcp), gone(Proto::Udp)] }).unwrap();
        assert_eq!(tracked(switch), [6]);
        drop((stream, listener));
    });
}

#[test]
fn the_nodes_routes_are_repaired_and_go_when_the_switch_stops() {
    let Some(hosts) = hosts("the_nodes_routes_are_repaired_and_go_when_the_switch_stops") else { return };
    hosts.node.run(|| {
        let mut switch = Switch::start(&options(1), Keeper::none()).unwrap();
        program(&mut switch, &hosts);
        let line = Routes::open().unwrap();
        let there = FAMILIES.map(|family| line.list(family).unwrap());
        assert_eq!(there.clone().map(|routes| routes.len()), [2, 2]);
        switch.tick();
        for route in there.iter().flatten() {
            line.remove(route).unwrap();
        }
        let end = Instant::now() + Duration::from_secs(10);
        while FAMILIES.map(|family| line.list(family).unwrap()) != there {
            assert!(Instant::now() < end, "they are not put back");
            std::thread::sleep(Duration::from_millis(50));
        }
        switch.withdraw();
        for family in FAMILIES {
            assert!(line.list(family).unwrap().is_empty() && !line.has_rule(family).unwrap());
        }
    });
}

#[test]
fn nouns_that_name_what_is_not_there_are_refused_and_leave_nothing() {
    let mut switch = Switch::start(&options(1), Keeper::none()).unwrap();
    let bridge = crate::memory::transaction(&[]);
    switch.apply(&bridge).unwrap();
    let mut refused = |change: Change| {
        let refusal = switch.apply(&Transaction { changes: vec![change] }).unwrap_err().0;
        assert!(switch.ports().is_empty());
        refusal
    };
    let elsewhere = Router { bridge: BridgeId(9), ..router() };
    assert_eq!(refused(Change::Router(Delta::add(elsewhere))), "router: no bridge numbered 9");
    let nobody = Router { mac: MacAddr([0; 6]), ..router() };
    let why = "router: mac 00:00:00:00:00:00: not the address of one station";
    assert_eq!(refused(Change::Router(Delta::add(nobody))), why);
    let uplink = Router { uplink: Some(PortId(7)), ..router() };
    assert_eq!(refused(Change::Router(Delta::add(uplink))), "router: no port numbered 7");
    let pod = endpoint("10.1.0.2", PortId(7), ROUTER, EndpointKind::Pod, "pod/default/0");
    assert_eq!(refused(Change::Endpoint(Delta::add(pod))), "pod/default/0: no port numbered 7");
    let key = RouteKey { bridge: BR, prefix: "10.9.0.0/16".parse().unwrap() };
    let route = Route { key, to: Hop::OnLink { port: PortId(7) }, origin: "static".to_owned() };
    assert_eq!(refused(Change::Route(Delta::add(route))), "10.9.0.0/16: no port numbered 7");
    let stranger = port(PortId(3), "mine", "stack", 3, &[]);
    let why = "mine: type=stack: the switch makes its one such port itself";
    assert_eq!(refused(Change::Port(Delta::add(stranger))), why);
    let taken = port(PortId::STACK, "mine", "null", 3, &[]);
    assert_eq!(refused(Change::Port(Delta::add(taken))), "mine: port number 4095 is the switch's own");
    switch.stop();
}
