//! A node for tests: two pods, the node itself, the outside behind an uplink, services; and frames between them.
//!
//! ```text
//!   port 1  pod a   10.0.0.1  fd00::1      port 4     uplink, with a neighbour 203.0.113.9  2001:db8:9::9
//!   port 2  pod b   10.0.0.2  fd00::2      port 4095  the switch's own stack; gateway 10.0.0.254  fd00::fe
//! ```

use std::net::{IpAddr, SocketAddr};

use api::{
    AddressKey, Change, Delta, Endpoint, EndpointKind, Hop, MacAddr, Neighbor, PortId, Proto, Route, RouteKey, Router,
    Service, ServiceKey, Vlan,
};
use etherparse::PacketBuilder;

use super::Bench;
use super::net::*;

pub(crate) const A: u16 = 1;
pub(crate) const B: u16 = 2;
/// The node's own port, which is also its host number.
pub(crate) const NODE: u16 = 3;
pub(crate) const UPLINK: u16 = 4;
pub(crate) const STACK: u16 = PortId::STACK.0;
/// The host number in the router's Ethernet address.
pub(crate) const ROUTER: u16 = 0xfe;
/// An address of [`BR`].
pub(crate) fn key(address: &str) -> AddressKey {
    AddressKey { bridge: BR, address: address.parse().unwrap() }
}

pub(crate) fn endpoint(address: &str, port: u16, host: u16, kind: EndpointKind) -> Change {
    let name = address.to_owned();
    let identity = u64::from(host);
    let row = Endpoint { key: key(address), port: PortId(port), mac: MacAddr(mac(host)), kind, identity, name };
    Change::Endpoint(Delta::add(row))
}

pub(crate) fn route(prefix: &str, to: Hop) -> Change {
    let key = RouteKey { bridge: BR, prefix: prefix.parse().unwrap() };
    Change::Route(Delta::add(Route { key, to, origin: "static".to_owned() }))
}

pub(crate) fn service(at: &str, backend: &str) -> [Change; 2] {
    let at: SocketAddr = at.parse().unwrap();
    [Proto::Tcp, Proto::Udp].map(|proto| {
        let key = ServiceKey { address: at.ip(), proto, port: at.port() };
        let backends = [backend.parse().unwrap()].into();
        let name = format!("default/{at}").into();
        Change::Service(Delta::add(Service::new(key, name, backends)))
    })
}

/// The node, with services whose backend is pod b (port 80) and pod a (port 81).
pub(crate) fn node(workers: usize) -> Bench {
    let mut bench = Bench::new(workers);
    bench.apply(nouns((50_000, 50_000)));
    bench
}

/// What makes a bridge that node, with these source ports for what leaves.
pub(crate) fn nouns(snat_ports: (u16, u16)) -> Vec<Change> {
    let mut changes = ports(&[A, B, NODE, UPLINK, STACK].map(|id| (id, Vlan::default())));
    changes.extend([
        endpoint("10.0.0.1", A, A, EndpointKind::Pod),
        endpoint("fd00::1", A, A, EndpointKind::Pod),
        endpoint("10.0.0.2", B, B, EndpointKind::Pod),
        endpoint("fd00::2", B, B, EndpointKind::Pod),
        endpoint("192.0.2.1", NODE, NODE, EndpointKind::Node),
        endpoint("2001:db8::1", NODE, NODE, EndpointKind::Node),
        endpoint("10.0.0.254", STACK, ROUTER, EndpointKind::Gateway),
        endpoint("fd00::fe", STACK, ROUTER, EndpointKind::Gateway),
        route("10.0.0.0/24", Hop::Endpoint),
        route("fd00::/64", Hop::Endpoint),
        route("0.0.0.0/0", Hop::OnLink { port: PortId(UPLINK) }),
        route("::/0", Hop::OnLink { port: PortId(UPLINK) }),
    ]);
    for address in ["203.0.113.9", "2001:db8:9::9"] {
        let row = Neighbor { key: key(address), port: PortId(UPLINK), mac: MacAddr(mac(9)) };
        changes.push(Change::Neighbor(Delta::add(row)));
    }
    changes.push(Change::Router(Delta::add(Router {
        bridge: BR,
        mac: MacAddr(mac(ROUTER)),
        gateways: ["10.0.0.254/24", "fd00::fe/64"].map(|text| text.parse().unwrap()).to_vec(),
        node: ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec(),
        uplink: Some(PortId(UPLINK)),
        local: None,
        snat_ports,
    })));
    for [at, backend] in [
        ["10.96.0.1:80", "10.0.0.2:8080"],
        ["10.96.0.1:81", "10.0.0.1:8080"],
        ["[fd00:96::1]:80", "[fd00::2]:8080"],
        ["[fd00:96::1]:81", "[fd00::1]:8080"],
    ] {
        changes.extend(service(at, backend));
    }
    changes
}

/// What a frame carries: TCP with these flags, or UDP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Carries {
    Ack,
    Syn,
    SynAck,
    FinAck,
    Rst,
    Datagram,
}

/// A frame from host to host with right checksums.
pub(crate) fn packet(hosts: (u16, u16), from: &str, to: &str, hops: u8, carries: Carries) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let link = PacketBuilder::ethernet2(mac(hosts.0), mac(hosts.1));
    let network = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), hops),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), hops),
        _ => panic!("of one version"),
    };
    let mut frame = Vec::new();
    let (sport, dport) = (from.port(), to.port());
    match carries {
        Carries::Ack => network.tcp(sport, dport, 1, 9).ack(2).write(&mut frame, b"some octets"),
        Carries::Syn => network.tcp(sport, dport, 1, 9).syn().write(&mut frame, b""),
        Carries::SynAck => network.tcp(sport, dport, 1, 9).syn().ack(2).write(&mut frame, b""),
        Carries::FinAck => network.tcp(sport, dport, 1, 9).fin().ack(2).write(&mut frame, b""),
        Carries::Rst => network.tcp(sport, dport, 1, 9).rst().write(&mut frame, b""),
        Carries::Datagram => network.udp(sport, dport).write(&mut frame, b"some octets"),
    }
    .unwrap();
    frame
}
