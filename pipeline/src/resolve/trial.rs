//! For tests of stages that track and translate: one stage with its tables, packets that are whole and true, and the nouns
//! of a small node.
//!
//! ```text
//!   port 1  pod a   10.0.0.1  fd00::1        port 3     LOCAL, the node  192.0.2.1  2001:db8::1
//!   port 2  pod b   10.0.0.2  fd00::2        port 4     uplink
//!                                            port 4095  gateway          10.0.0.254 fd00::fe
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{
    AddressKey, BridgeId, Change, Choice, Delta, Endpoint, EndpointKind, External, MacAddr, PortId, Proto, Router,
    Service, ServiceKey,
};

use crate::checksum::{Sum, checksum};
use crate::key::FlowKey;
use crate::live::{Live, Now};
use crate::parse;
use crate::probe::cells::Asked;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::topology::Topology;
use crate::resolve::tracking;
use crate::resolve::walk::Walk;

pub(crate) const ZONE: BridgeId = BridgeId(1);
pub(crate) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub(crate) const UPLINK: PortId = PortId(4);
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// One stage of the switch, and what packets wrote.
pub(crate) struct Trial {
    pub(crate) live: Live,
    pub(crate) now: Now,
    pub(crate) stage: Box<dyn Stage>,
    first_packet: bool,
    topology: Topology,
}

impl Trial {
    pub(crate) fn new(def: &StageDef, changes: &[Change]) -> Self {
        let mut trial = Self {
            live: Live::default(),
            now: Now::default(),
            stage: (def.build)(),
            first_packet: def.first_packet,
            topology: Topology::default(),
        };
        trial.apply(changes);
        trial
    }

    pub(crate) fn apply(&mut self, changes: &[Change]) {
        let Self { live, stage, topology, .. } = self;
        live.cells.change(|touched| {
            stage.apply(changes, touched);
            topology.apply(changes, touched);
        });
    }

    /// What the stage decides of a frame that came in by `port`, on a walk that is as `before` makes it.
    pub(crate) fn decide<'a>(
        &'a self,
        port: u16,
        frame: &'a [u8],
        before: impl FnOnce(&mut Walk<'a>),
    ) -> (Next, Walk<'a>) {
        let layers = parse::layers(frame, frame.len(), None).expect("a sound frame");
        let mask = self.stage.mask(PortId(port), true);
        let key = parse::key(PortId(port), frame, &layers).masked(&mask);
        let mut walk = Walk::new(key, layers, frame, &self.topology, &self.live, self.now);
        // As `admit` leaves it.
        (walk.bridge, walk.routed, walk.tracked) = (ZONE, true, true);
        walk.router = self.topology.router(ZONE, &mut Asked::new(&self.live.cells));
        // As `connection` leaves it for a first packet.
        if let tracking::Carried::Flow(tuple) = tracking::Carried::of(&walk.key, ZONE) {
            walk.tuple = Some(tuple);
        }
        walk.asked.first_packet = self.first_packet;
        before(&mut walk);
        (self.stage.decide(&mut walk), walk)
    }

    /// What the stage looks at for frames of a port.
    pub(crate) fn mask(&self, port: PortId) -> crate::key::KeyMask {
        self.stage.mask(port, true)
    }

    /// What the stage decides of a frame, and what the frame is to say.
    pub(crate) fn becomes(&self, port: u16, frame: &[u8]) -> (Next, FlowKey) {
        let (next, walk) = self.decide(port, frame, |_| ());
        (next, walk.key)
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn end(text: &str) -> (IpAddr, u16) {
    let end: SocketAddr = text.parse().unwrap();
    (end.ip(), end.port())
}

/// An Ethernet frame to the router with a whole packet; checksums are right.
pub(crate) fn packet(src: IpAddr, dst: IpAddr, proto: u8, transport: &[u8]) -> Vec<u8> {
    let mut frame = ROUTER.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1]);
    let ethertype: u16 = if src.is_ipv4() { 0x0800 } else { 0x86dd };
    frame.extend(ethertype.to_be_bytes());
    frame.extend(network(src, dst, proto, transport));
    frame
}

/// The same without Ethernet.
pub(crate) fn network(src: IpAddr, dst: IpAddr, proto: u8, transport: &[u8]) -> Vec<u8> {
    let mut transport = transport.to_vec();
    let len = transport.len() as u16;
    let (mut packet, pseudo) = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 64, proto, 0, 0]);
            header.extend(src.octets().into_iter().chain(dst.octets()));
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (header, Sum::pseudo4(src.octets(), dst.octets(), proto, len))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([proto, 64]);
            header.extend(src.octets().into_iter().chain(dst.octets()));
            (header, Sum::pseudo6(src.octets(), dst.octets(), proto, len.into()))
        }
        _ => panic!("addresses of two versions"),
    };
    let place = match proto {
        6 => Some((16, pseudo)),
        17 => Some((6, pseudo)),
        58 => Some((2, pseudo)),
        1 => Some((2, Sum::EMPTY)),
        _ => None,
    };
    if let Some((at, sum)) = place {
        transport[at..at + 2].fill(0);
        let sum = match sum.plus(&transport).checksum() {
            0 if proto == 17 => 0xffff,
            sum => sum,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(transport);
    packet
}

/// A transport header with a little payload: TCP (with these flags), UDP or SCTP.
pub(crate) fn transport(proto: u8, sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    let mut octets: Vec<u8> = sport.to_be_bytes().into_iter().chain(dport.to_be_bytes()).collect();
    match proto {
        6 => octets.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]),
        17 => octets.extend([0, 12, 0, 0]),
        132 => octets.extend([9, 9, 9, 9, 1, 2, 3, 4]),
        _ => panic!("no ports"),
    }
    octets.extend(b"ping");
    octets
}

/// TCP (with these flags), UDP or SCTP.
pub(crate) fn flow(proto: u8, from: &str, to: &str, flags: u8) -> Vec<u8> {
    let ((src, sport), (dst, dport)) = (end(from), end(to));
    packet(src, dst, proto, &transport(proto, sport, dport, flags))
}

/// An ICMP message over the protocol of the addresses' version: type and identifier.
pub(crate) fn icmp(src: &str, dst: &str, kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let proto = if ip(src).is_ipv4() { 1 } else { 58 };
    packet(ip(src), ip(dst), proto, &[kind, 0, 0, 0, high, low, 0, 1, b'p', b'i', b'n', b'g'])
}

pub(crate) fn endpoint(address: &str, port: u16, kind: EndpointKind, identity: u64) -> Endpoint {
    let key = AddressKey { bridge: ZONE, address: ip(address) };
    Endpoint { key, port: PortId(port), mac: MacAddr([2, 0, 0, 0, 0, port as u8]), kind, identity, name: String::new() }
}

/// The endpoints of the node of this module.
pub(crate) fn endpoints() -> Vec<Change> {
    let rows = [
        ("10.0.0.1", 1, EndpointKind::Pod, 101),
        ("fd00::1", 1, EndpointKind::Pod, 101),
        ("10.0.0.2", 2, EndpointKind::Pod, 102),
        ("fd00::2", 2, EndpointKind::Pod, 102),
        ("192.0.2.1", 3, EndpointKind::Node, 103),
        ("2001:db8::1", 3, EndpointKind::Node, 103),
        ("10.0.0.254", PortId::STACK.0, EndpointKind::Gateway, 104),
        ("fd00::fe", PortId::STACK.0, EndpointKind::Gateway, 104),
    ];
    let add = |(address, port, kind, identity)| Change::Endpoint(Delta::add(endpoint(address, port, kind, identity)));
    rows.into_iter().map(add).collect()
}

/// Its router.
pub(crate) fn router() -> Router {
    Router {
        bridge: ZONE,
        mac: MacAddr(ROUTER),
        gateways: ["10.0.0.254/24", "fd00::fe/64"].map(|text| text.parse().unwrap()).to_vec(),
        node: ["192.0.2.1", "2001:db8::1"].map(ip).to_vec(),
        uplink: Some(UPLINK),
        local: None,
        snat_ports: Router::SNAT_PORTS,
    }
}

pub(crate) fn service(at: &str, proto: Proto, choice: Choice, backends: &[&str]) -> Service {
    let (address, port) = end(at);
    let key = ServiceKey { address, proto, port };
    let backends = backends.iter().map(|text| text.parse().unwrap()).collect();
    Service { choice, ..Service::new(key, format!("default/{at}").into(), backends) }
}

/// The same at an address by which it is reached from beyond the cluster; `local`: under traffic policy Local.
pub(crate) fn external(service: Service, local: Option<&[&str]>, sources: Option<&[&str]>) -> Service {
    let local = local.map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
    let sources = sources.map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
    let cluster = if service.key.address.is_ipv4() { "10.96.0.1:80" } else { "[fd00:96::1]:80" };
    let external = External { local, sources, cluster: cluster.parse().unwrap() };
    Service { external: Some(Arc::new(external)), ..service }
}

pub(crate) fn add_service(at: &str, proto: Proto, backends: &[&str]) -> Change {
    Change::Service(Delta::add(service(at, proto, Choice::Random, backends)))
}
