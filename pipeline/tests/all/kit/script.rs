//! Octets become what happens on a node: so one description serves proptest, which shrinks the octets, and the fuzz target
//! `node`, which changes them. Addresses, ports and hosts are few, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use api::{
    AclKey, AclPlace, AclRule, AclWay, Action, AddressKey, Block, BridgeId, Choice, Endpoint, EndpointKind, External,
    GroupId, Guard, Hop, MacAddr, NamedPort, Neighbor, Peers, PortId, PortMatch, PortName, Ports, Proto, Route,
    RouteKey, Router, Rule, Ruleset, RulesetId, Service, ServiceKey, Subject, Vlan,
};
use pipeline::checksum::{Sum, checksum};

use super::history::{Event, Noun, PORTS};
use super::net::{BR, BROADCAST, access, frame, mac};
use super::node::{ROUTER, STACK};

/// Octets, taken one by one; zeros when they are used up.
pub(crate) struct Octets<'a>(pub(crate) &'a [u8]);

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
/// Transport ports, of clients, services, backends, and what is masqueraded.
const NUMBERS: [u16; 8] = [4000, 4001, 80, 81, 8080, 9090, 50_000, 50_001];
/// TCP: SYN, ACK, SYN and ACK, FIN and ACK, RST, RST and ACK, PSH and ACK, none.
const FLAGS: [u8; 8] = [0x02, 0x10, 0x12, 0x11, 0x04, 0x14, 0x18, 0];
/// First chunks of SCTP packets: DATA, INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, ABORT, SHUTDOWN ACK, SHUTDOWN COMPLETE.
const CHUNKS: [u8; 8] = [0, 1, 2, 10, 11, 6, 8, 14];

/// Access lists.
const LISTS: [&str; 8] = [
    "2 tcp,tp_dst=80 allow-related\n1 \"\" drop",
    "1 tcp,nw_dst=10.0.0.2 drop",
    "2 udp,tp_dst=80-81 reject\n1 ipv6,ipv6_src=fd00::1 allow-related",
    "1 tcp,tcp_flags=+syn-ack drop",
    "3 icmp,icmp_type=8 drop\n2 icmp6,icmp_type=128 reject",
    "1 ip allow-related",
    "1 ipv6 drop",
    "9 tcp,nw_src=10.0.0.0/30,tp_src=4000 allow\n8 tcp6,tp_dst=80 reject\n1 ip,nw_proto=47 drop",
];

/// Classes of fragments.
const STRAY: u16 = 0x8000;
const WHOLE: u16 = 0x4000;

/// Who there is: pods, the gateway, the node, two hosts outside, two services, an address of a service range that no service
/// has, one that no route leads to, this link's, everybody's.
fn address(six: bool, number: u8) -> IpAddr {
    let (four, long) = match number % 16 {
        pod @ 0..=3 => (Ipv4Addr::new(10, 0, 0, 1 + pod), format!("fd00::{}", 1 + pod)),
        4 => (Ipv4Addr::new(10, 0, 0, 254), "fd00::fe".to_owned()),
        5 => (Ipv4Addr::new(192, 0, 2, 1), "2001:db8::1".to_owned()),
        6 | 7 => (Ipv4Addr::new(203, 0, 113, 9), "2001:db8:9::9".to_owned()),
        8 => (Ipv4Addr::new(198, 51, 100, 7), "2001:db8:7::7".to_owned()),
        9 | 10 => (Ipv4Addr::new(10, 96, 0, 1), "fd00:96::1".to_owned()),
        11 => (Ipv4Addr::new(10, 96, 0, 2), "fd00:96::2".to_owned()),
        12 => (Ipv4Addr::new(10, 96, 0, 9), "fd00:96::9".to_owned()),
        13 => (Ipv4Addr::new(172, 16, 0, 1), "fc01::1".to_owned()),
        14 => (Ipv4Addr::new(169, 254, 0, 1), "fe80::1".to_owned()),
        _ => (Ipv4Addr::new(224, 0, 0, 1), "ff02::1".to_owned()),
    };
    if six { IpAddr::V6(long.parse().unwrap()) } else { IpAddr::V4(four) }
}

impl Octets<'_> {
    pub(crate) fn next(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// One of so many.
    fn of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[usize::from(self.next()) % N]
    }

    fn port(&mut self) -> u16 {
        match self.next() % 12 {
            port @ 1..=7 => port.into(),
            0 | 8 => 1,
            9 => 2,
            10 => 4,
            _ => STACK,
        }
    }

    fn bridge(&mut self) -> BridgeId {
        self.of([BR, BR, BR, BridgeId(2)])
    }

    fn host(&mut self) -> u16 {
        self.of([1, 2, 3, 4, 9, ROUTER])
    }

    fn address(&mut self) -> IpAddr {
        let what = self.next();
        address(what & 0x80 != 0, what & 0xf)
    }

    fn key(&mut self) -> AddressKey {
        AddressKey { bridge: self.bridge(), address: self.address() }
    }

    fn backend(&mut self, six: bool) -> SocketAddr {
        let host = self.of([0, 1, 1, 2, 3, 5, 6, 9]);
        SocketAddr::new(address(six, host), self.of([8080, 80]))
    }

    fn noun(&mut self) -> Noun {
        let what = self.next();
        let stays = what & 0xc0 != 0;
        match what % 19 {
            // Guards drop much: few of them, so that the rest is met too.
            16 if self.of([true, false, false]) => {
                let port = PortId(self.port());
                Noun::Guard(port, (what & 0x80 != 0).then(|| self.guard(port)))
            }
            16 | 17 => {
                let id = self.of([RulesetId(1), RulesetId(2)]);
                Noun::Ruleset(id, stays.then(|| self.ruleset(id)))
            }
            18 => {
                let key = self.key();
                Noun::Subject(key, stays.then(|| self.subject(key)))
            }
            0 => Noun::Bridge(self.bridge(), stays.then_some((1024, 300, false))),
            1 | 2 => {
                let (id, bridge) = (self.port(), self.bridge());
                let vlan = self.of([Vlan::default, Vlan::default, Vlan::default, || access(1)])();
                let mtu = self.of([1500, 1500, 600, 1280]);
                Noun::Port(id, stays.then_some((bridge, vlan, mtu)))
            }
            3 | 4 => {
                let bridge = self.bridge();
                Noun::Router(bridge, stays.then(|| self.router(bridge)))
            }
            5..=8 => {
                let key = self.key();
                Noun::Endpoint(key, stays.then(|| self.endpoint(key)))
            }
            9 => {
                let key = self.key();
                let row = Neighbor { key, port: PortId(self.port()), mac: MacAddr(mac(self.host())) };
                Noun::Neighbor(key, stays.then_some(row))
            }
            10 => {
                let at = self.address();
                let octets = self.of([0, 1, 2, 3]);
                let bits = octets * if at.is_ipv4() { 8 } else { 16 };
                let prefix = ipnet::IpNet::new(at, bits).unwrap().trunc();
                let key = RouteKey { bridge: self.bridge(), prefix };
                Noun::Route(key, stays.then(|| Route { key, to: self.hop(), origin: String::new() }))
            }
            12 => {
                let prefix = self.of(["10.96.0.0/16", "fd00:96::/112", "10.96.0.0/24", "10.0.0.0/30"]);
                Noun::ServiceRange(prefix.parse().unwrap(), stays)
            }
            11 => {
                let at = if self.next() & 1 == 0 {
                    AclPlace::Bridge(self.bridge())
                } else {
                    AclPlace::Port(PortId(self.port()))
                };
                let key = AclKey { at, way: self.of([AclWay::FromPort, AclWay::ToPort]) };
                let text = self.of(LISTS);
                Noun::Acl(key, stays.then(|| AclRule::list(text).unwrap().into()))
            }
            _ => {
                let six = self.next() & 1 != 0;
                let service = self.service(six);
                let key = service.key;
                Noun::Service(key, stays.then_some(service))
            }
        }
    }

    /// Of a pod's port that is as the pod is, or not.
    fn guard(&mut self, port: PortId) -> Guard {
        let what = self.next();
        let own = [false, true].map(|six| address(six, (port.0.wrapping_sub(1) & 3) as u8));
        Guard {
            port,
            bridge: BR,
            name: "pod/test/guarded".into(),
            mac: MacAddr(mac(self.of([port.0, port.0, port.0, 9]))),
            addresses: if what & 0x30 == 0 { [].into() } else { own.into() },
            spoof: what & 3 == 0,
            groups: what & 4 != 0,
            local: self.of([None, Some(PortId(3)), Some(PortId(2))]),
            isolated: (what & 0xc8 == 0).then(|| "a test".into()),
        }
    }

    fn ruleset(&mut self, id: RulesetId) -> Ruleset {
        let count = self.next() % 4;
        let rules: Arc<[_]> = (0..count).map(|_| Arc::new(self.rule())).collect();
        let admin = u32::from(self.next()).min(rules.len() as u32);
        Ruleset { id, rules, admin, isolates: self.next() & 1 != 0, otherwise: "default".into() }
    }

    fn rule(&mut self) -> Rule {
        let what = self.next();
        let of_port = PortMatch {
            proto: self.of([Proto::Tcp, Proto::Udp, Proto::Sctp]),
            ports: self.of([Ports::Range(0, 65535), Ports::Range(80, 8080), Ports::Named(PortName(1))]),
        };
        let cidr = self.of(["10.0.0.0/30", "203.0.113.0/24", "fd00::/64", "0.0.0.0/0"]).parse().unwrap();
        let groups = [GroupId(u32::from(what >> 4 & 3))];
        Rule {
            action: self.of([Action::Accept, Action::Accept, Action::Deny, Action::Pass]),
            policy: "networkpolicy test/p".into(),
            index: 0,
            peers: Peers {
                any: what & 3 == 0,
                groups: groups.into(),
                blocks: if what & 4 == 0 { [].into() } else { [Block { cidr, except: [].into() }].into() },
            },
            ports: (what & 8 != 0).then(|| [of_port].into()),
        }
    }

    fn subject(&mut self, key: AddressKey) -> Subject {
        let mut rules =
            || self.of([None, Some(RulesetId(1)), Some(RulesetId(1)), Some(RulesetId(2)), Some(RulesetId(3))]);
        let (ingress, egress) = (rules(), rules());
        Subject {
            key,
            name: "pod/test/subject".into(),
            identity: self.next().into(),
            port: self.of([None, Some(()), Some(()), Some(())]).map(|()| PortId(self.port())),
            groups: [GroupId(u32::from(self.next() & 3))].into(),
            ports: [NamedPort { name: PortName(1), proto: Proto::Tcp, port: self.of([80, 8080]) }].into(),
            ingress,
            egress,
        }
    }

    /// At a cluster address, the node's own or one beyond; there are two names, and affinity and traffic policies as it comes.
    fn service(&mut self, six: bool) -> Service {
        let number = self.of([9, 11, 12, 5, 5, 8]);
        let proto = self.of([Proto::Tcp, Proto::Udp, Proto::Sctp]);
        let key = ServiceKey { address: address(six, number), proto, port: self.of([80, 81]) };
        let what = self.next();
        let name = if what & 1 == 0 { "default/service" } else { "default/other" };
        let outside = (matches!(number, 5 | 8) || what & 0x70 == 0).then(|| self.outside(six));
        Service {
            choice: self.of([Choice::Random, Choice::Maglev]),
            affinity: self.of([None, Some(1), Some(30), Some(10_800)]),
            elsewhere: what & 0x0e == 0,
            external: outside.map(Arc::new),
            ..Service::new(key, name.into(), self.backends(six))
        }
    }

    fn backends(&mut self, six: bool) -> Arc<[SocketAddr]> {
        let count = self.next() % 4;
        let mut backends: Vec<SocketAddr> = (0..count).map(|_| self.backend(six)).collect();
        backends.sort_unstable();
        backends.dedup();
        backends.into()
    }

    fn outside(&mut self, six: bool) -> External {
        let local = (self.next() & 1 != 0).then(|| self.backends(six));
        let sources = match self.next() % 6 {
            0 => Some(Vec::new()),
            1 => Some(vec![if six { "fd00::/64" } else { "10.0.0.0/24" }]),
            2 => Some(vec![if six { "2001:db8::/32" } else { "203.0.113.8/31" }]),
            _ => None,
        };
        let sources = sources.map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
        External { local, sources, cluster: SocketAddr::new(address(six, 9), 80) }
    }

    fn router(&mut self, bridge: BridgeId) -> Router {
        let node = self.of([&["192.0.2.1", "2001:db8::1"][..], &["192.0.2.1"], &[]]);
        let gateways = self.of([&["10.0.0.254/24", "fd00::fe/64"][..], &["10.0.0.254/30"]]);
        Router {
            bridge,
            mac: MacAddr(mac(self.of([ROUTER, ROUTER, ROUTER, 0xfd]))),
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            node: node.iter().map(|text| text.parse().unwrap()).collect(),
            uplink: self.of([Some(PortId(4)), Some(PortId(4)), Some(PortId(3)), None]),
            local: self.of([None, Some(PortId(3))]),
            snat_ports: self.of([(50_000, 50_003), (50_000, 50_000), (50_002, 50_010)]),
        }
    }

    fn endpoint(&mut self, key: AddressKey) -> Endpoint {
        let kind = self.of([EndpointKind::Pod, EndpointKind::Pod, EndpointKind::Node, EndpointKind::Gateway]);
        let mac = MacAddr(mac(self.host()));
        Endpoint {
            key,
            port: PortId(self.port()),
            mac,
            kind,
            identity: u64::from(self.next() % 3),
            name: String::new(),
        }
    }

    fn hop(&mut self) -> Hop {
        let port = PortId(self.of([4, 3, 1, 7]));
        match self.next() % 6 {
            0 | 1 => Hop::OnLink { port },
            2 => Hop::Via { port, gateway: self.address() },
            3 => Hop::Endpoint,
            4 => Hop::Unreachable,
            _ => Hop::Blackhole,
        }
    }

    /// Addresses of a frame: mostly to the router.
    fn link(&mut self) -> ([u8; 6], [u8; 6]) {
        let what = self.next();
        let dst = match what & 7 {
            0..=4 => mac(ROUTER),
            5 => mac(1),
            6 => mac(2),
            _ => BROADCAST,
        };
        (dst, mac([1, 2, 3, 9][usize::from(what >> 3) % 4]))
    }

    /// What follows an IP header: its protocol number and itself.
    fn transport(&mut self, six: bool) -> (u8, Vec<u8>) {
        let (sport, dport) = (self.of(NUMBERS), self.of([80u16, 80, 81, 4000, 8080, 50_000, 53, 0]));
        let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        let octets = self.of([0usize, 11, 11, 700]);
        let payload = vec![7; octets];
        match self.next() % 12 {
            0..=4 => {
                let flags = self.of(FLAGS);
                (TCP, [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0x12, 0x34, 0, 0], &payload].concat())
            }
            5..=7 => {
                let length = (8 + octets as u16).to_be_bytes();
                let sum = self.of([[0x56, 0x78], [0x56, 0x78], [0, 0]]);
                (UDP, [&ports[..], &length, &sum, &payload].concat())
            }
            8 => (SCTP, [&ports[..], &[0, 0, 0, 9, 1, 2, 3, 4, self.of(CHUNKS), 0, 0, 4], &payload].concat()),
            9 | 10 => {
                let kind = if six { self.of([128, 129, 1, 3]) } else { self.of([8, 0, 3, 11]) };
                let echo = [&[kind, 0, 0, 0, 0, self.next() % 3, 0, 1], &payload[..]].concat();
                (if six { 58 } else { 1 }, echo)
            }
            _ => (47, [&[0, 0, 8, 0], &payload[..]].concat()),
        }
    }

    /// Source, destination, hop limit.
    fn ends(&mut self) -> (IpAddr, IpAddr, u8) {
        let six = self.next() & 1 != 0;
        let source = self.of([0, 0, 1, 1, 2, 5, 6, 9, 13, 14]);
        let (source, destination) = (address(six, source), address(six, self.next()));
        (source, destination, self.of([64, 64, 64, 1, 2, 0]))
    }

    fn ip(&mut self) -> Vec<u8> {
        let (dst, src) = self.link();
        let (source, destination, hops) = self.ends();
        let (proto, transport) = self.transport(source.is_ipv6());
        let dont_fragment = self.of([0x4000, 0x4000, 0]);
        let tags: &[(u16, u16)] = self.of([&[], &[], &[], &[(0x8100, 1)]]);
        let (kind, packet) = packet(source, destination, hops, proto, (1, dont_fragment), &transport);
        frame(dst, src, tags, kind, &packet)
    }

    /// All fragments of a UDP datagram, in an order that the octets choose. `class`: of its identification, so that those of
    /// which some stay away are no part of the others.
    fn fragments(&mut self, class: u16) -> Vec<Vec<u8>> {
        let (dst, src) = self.link();
        let (source, destination, hops) = self.ends();
        let ports = [self.of(NUMBERS).to_be_bytes(), self.of([80u16, 81, 8080]).to_be_bytes()].concat();
        let payload = vec![9; 600];
        let datagram = [&ports[..], &608u16.to_be_bytes(), &[0x56, 0x78], &payload].concat();
        let id = class | u16::from(self.next());
        let cut = 8 * (1 + usize::from(self.next()) % 70);
        let mut pieces: Vec<Vec<u8>> = [(0, cut), (cut, datagram.len())]
            .into_iter()
            .map(|(from, to)| {
                let more = u16::from(to != datagram.len());
                let (kind, packet) = if source.is_ipv6() {
                    let at = (from as u16 | more).to_be_bytes();
                    let header = [&[UDP, 0], &at[..], &[0, 0], &id.to_be_bytes()].concat();
                    packet(source, destination, hops, 44, (0, 0), &[&header[..], &datagram[from..to]].concat())
                } else {
                    let at = (from as u16 >> 3) | more << 13;
                    packet(source, destination, hops, UDP, (id, at), &datagram[from..to])
                };
                frame(dst, src, &[], kind, &packet)
            })
            .collect();
        if self.next() & 1 != 0 {
            pieces.reverse();
        }
        pieces
    }

    fn arp(&mut self) -> Vec<u8> {
        let (sender, target) = (address(false, self.next()), address(false, self.next()));
        let (dst, src) = self.link();
        let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { return Vec::new() };
        let sender = if self.next() & 7 == 0 { Ipv4Addr::UNSPECIFIED } else { sender };
        let operation = self.of([1, 1, 2, 3]);
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        let packet = [&head[..], &src, &sender.octets(), &[0; 6], &target.octets()].concat();
        frame(dst, src, &[], ARP, &packet)
    }

    fn discovery(&mut self) -> Vec<u8> {
        let (dst, src) = self.link();
        let (sender, target) = (address(true, self.next()), address(true, self.next()));
        let (kind, flags, option) = self.of([(135, 0, 1), (136, 0x60, 2), (136, 0x40, 2), (133, 0, 1)]);
        let IpAddr::V6(about) = target else { return Vec::new() };
        let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0], &about.octets()[..], &[option, 1], &src].concat();
        let (IpAddr::V6(from), IpAddr::V6(to)) = (sender, address(true, self.next())) else { return Vec::new() };
        let sum = Sum::pseudo6(from.octets(), to.octets(), 58, message.len() as u32).plus(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let (_, packet) = packet(sender, to.into(), 255, 58, (0, 0), &message);
        frame(dst, src, &[], IPV6, &packet)
    }

    /// A frame that comes in.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        match self.next() % 16 {
            0 => self.arp(),
            1 => self.discovery(),
            2 => {
                let mut octets = self.ip();
                let at = usize::from(self.next()) % octets.len();
                octets[at] ^= 1 << (self.next() % 8);
                octets
            }
            3 => self.fragments(STRAY).remove(0),
            _ => self.ip(),
        }
    }

    /// Something that happens.
    pub(crate) fn event(&mut self) -> Event {
        match self.next() % 32 {
            0..=9 => Event::Frame(self.port(), self.frame()),
            10..=17 => Event::Answer(self.next().into(), self.of(FLAGS)),
            18 | 19 => Event::Unreachable(self.next().into()),
            20 => Event::Fragments(self.port(), self.fragments(WHOLE)),
            21 => {
                let (port, count) = (self.port(), 1 + self.next() % 6);
                Event::Burst(port, (0..count).map(|_| self.frame()).collect())
            }
            22..=26 => {
                let count = 1 + self.next() % 3;
                Event::Transaction((0..count).map(|_| self.noun()).collect())
            }
            27 => Event::Kill(self.next().into()),
            28 => Event::Pass(1 + 5 * u64::from(self.next())),
            29 => Event::Pass(if self.next() < 64 { 31_000 } else { 3000 }),
            30 => Event::Jump(1 + 4 * u64::from(self.next())),
            _ => Event::Flush(self.bridge(), (self.next() & 1 != 0).then_some(self.port() % PORTS)),
        }
    }
}

/// A packet with its Ethernet type; of IPv4 with identification, flags and fragment offset.
fn packet(
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    proto: u8,
    (id, cut): (u16, u16),
    payload: &[u8],
) -> (u16, Vec<u8>) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[6..8].copy_from_slice(&cut.to_be_bytes());
            (header[8], header[9]) = (hops, proto);
            header[12..16].copy_from_slice(&source.octets());
            header[16..].copy_from_slice(&destination.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (IPV4, [&header[..], payload].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => (IPV6, six(source, destination, hops, proto, payload)),
        _ => unreachable!("both are of one version"),
    }
}

fn six(source: Ipv6Addr, destination: Ipv6Addr, hops: u8, proto: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0], &length[..], &[proto, hops], &source.octets(), &destination.octets(), payload].concat()
}

/// Ethernet type and packet of a frame without a tag.
fn untagged(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (link, packet) = frame.split_first_chunk::<14>()?;
    Some((u16::from_be_bytes([link[12], link[13]]), packet))
}

/// The switch asks for a neighbour.
pub(crate) fn asks_for_a_neighbor(frame: &[u8]) -> bool {
    match untagged(frame) {
        Some((ARP, packet)) => packet.get(7) == Some(&1),
        Some((IPV6, packet)) => packet.get(6) == Some(&58) && packet.get(40) == Some(&135),
        _ => false,
    }
}

/// Offset of the transport header of a packet without options and extensions, and its protocol. `None` for fragments: one
/// alone, turned round twice, would be taken for a part of the datagram that it is from.
fn layout(frame: &[u8]) -> Option<(usize, u8)> {
    match untagged(frame)? {
        (IPV4, packet) if packet.len() >= 28 && packet[0] == 0x45 && packet[6] & 0x3f == 0 && packet[7] == 0 => {
            Some((34, packet[9]))
        }
        (IPV6, packet) if packet.len() >= 48 && packet[6] != 44 => Some((54, packet[6])),
        _ => None,
    }
}

/// Whoever got this frame answers it. TCP with these flags.
pub(crate) fn answer(sent: &[u8], flags: u8) -> Option<Vec<u8>> {
    let (l4, proto) = layout(sent)?;
    let mut back = sent.to_vec();
    back[..12].rotate_left(6);
    if l4 == 34 {
        back[26..34].rotate_left(4);
        back[22] = 64;
    } else {
        back[22..54].rotate_left(16);
        back[21] = 64;
    }
    match proto {
        TCP | UDP | SCTP => back[l4..l4 + 4].rotate_left(2),
        1 if back[l4] == 8 => back[l4] = 0,
        58 if back[l4] == 128 => back[l4] = 129,
        _ => {}
    }
    if proto == TCP
        && let Some(octet) = back.get_mut(l4 + 13)
    {
        *octet = flags;
    }
    Some(back)
}

/// Whoever got this frame says that its port is unreachable.
pub(crate) fn unreachable(sent: &[u8]) -> Option<Vec<u8>> {
    let (l4, _) = layout(sent)?;
    let ends = |at: usize, octets: usize| (sent[at..at + octets].to_vec(), sent[at + octets..at + 2 * octets].to_vec());
    let quoted = &sent[14..];
    let (dst, src) = (sent[6..12].try_into().ok()?, sent[..6].try_into().ok()?);
    if l4 == 34 {
        let (from, to) = ends(26, 4);
        let (from, to) = (<[u8; 4]>::try_from(from).ok()?, <[u8; 4]>::try_from(to).ok()?);
        let mut error = [&[3, 3, 0, 0, 0, 0, 0, 0], quoted].concat();
        let sum = checksum(&error);
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        let (kind, packet) = packet(to.into(), from.into(), 64, 1, (0, 0), &error);
        return Some(frame(dst, src, &[], kind, &packet));
    }
    let (from, to) = ends(22, 16);
    let (from, to) = (<[u8; 16]>::try_from(from).ok()?, <[u8; 16]>::try_from(to).ok()?);
    let mut error = [&[1, 4, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = Sum::pseudo6(to, from, 58, error.len() as u32).plus(&error).checksum();
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(frame(dst, src, &[], IPV6, &six(to.into(), from.into(), 64, 58, &error)))
}
