//! route: where does the destination address lead, for what is sent to the router or was translated?
//!
//! ```text
//!   gateway ─▶ the switch's own stack            longest prefix: on link, via ─▶ neighbour, known or asked for
//!   endpoint ─▶ its port                                         endpoint     ─▶ host unreachable: nobody has it
//!                                                                unreachable, none ─▶ network unreachable
//!                                                                blackhole    ─▶ silence
//! ```
//!
//! What is not for the router's Ethernet address and goes where it was sent is bridged, as on any switch; but for what the
//! outside sends to pods by way of the node's. IPv4 options
//! and IPv6 extension headers are carried, not looked at: none of them asks anything of this router.
//!
//! Worked example: pod 10.0.0.5 sends to 198.51.100.1, hence to its gateway's Ethernet address, the router's. The route
//! 0.0.0.0/0 leads via 192.0.2.1 on the uplink, which is a neighbour: the frame leaves there, from the router's Ethernet
//! address to the neighbour's, one hop poorer. The answer comes back to the node's address; `connection` translates its
//! destination to 10.0.0.5, so it is routed: to the endpoint's port and Ethernet address.
//!
//! A packet that is too large is refused, and its sender told what fits; IPv4 without "don't fragment" is cut. ICMP redirects
//! are not sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{AddressKey, Change, Delta, EndpointKind, Hop, MacAddr, PortId, Route, RouteKey, Router, Vlan};
use ipnet::IpNet;

use crate::burst::{VlanEdit, guard};
use crate::drop::DropReason;
use crate::key::{Field, FlowKey, KeyMask};
use crate::probe::cells::Touched;
use crate::reply::Request;
use crate::resolve::stage::{IcmpError, Next, Reply, Stage, StageDef};
use crate::resolve::topology::{is_pods, own_address};
use crate::resolve::walk::{Copy, Effect, Walk};
use crate::tables::{Exact, Prefixes};

use super::bridge::tag_edit;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "route",
    help: "where does the destination address lead?",
    first_packet: false,
    build: || Box::new(Routing::new()),
};

/// What routing must know of a way out.
#[derive(Clone, Copy, Debug)]
struct Exit {
    /// The VLAN of frames that the router sends: the port's native one.
    vlan: u16,
    /// They are tagged.
    tagged: bool,
    mtu: u16,
}

impl Exit {
    fn new(vlan: &Vlan, mtu: u16) -> Self {
        let (vlan, tagged) = match vlan {
            Vlan::Access { tag } | Vlan::NativeUntagged { tag, .. } => (*tag, false),
            Vlan::Trunk { .. } => (0, false),
            Vlan::NativeTagged { tag, .. } => (*tag, true),
        };
        Self { vlan, tagged, mtu }
    }

    /// What is done to a frame that came in as `tag` (of the key).
    fn edit(self, tag: u16) -> VlanEdit {
        tag_edit(tag, self.vlan, self.tagged)
    }
}

#[derive(Clone, Debug)]
struct Routing {
    routes: Prefixes<Arc<Hop>>,
    exits: Exact<PortId, Exit>,
}

impl Routing {
    fn new() -> Self {
        Self { routes: Prefixes::new("route region", "route wide"), exits: Exact::new("port") }
    }
}

/// Packets from or to such an address never pass a router: groups and everybody, this host and this network, loopback,
/// this link (RFC 1812, 5.3.7; RFC 4291, 2.5; RFC 3927, 7).
fn stays_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first == 0 || address.is_loopback() || address.is_link_local() || is_group(address)
        }
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local(address)
        }
    }
}

fn is_group(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_broadcast()
}

fn is_link_local(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 0xfe && second & 0xc0 == 0x80
}

/// The first and the last address of an IPv4 link are nobody's (RFC 1122, 3.2.1.3), unless it has only two (RFC 3021).
fn is_everybody_of(link: IpNet, address: IpAddr) -> bool {
    link.addr().is_ipv4() && link.prefix_len() < 31 && (address == link.network() || address == link.broadcast())
}

/// Where a packet goes next.
struct Hopped {
    port: PortId,
    mac: MacAddr,
}

/// One packet on its way.
struct Passage<'r> {
    router: &'r Router,
    in_port: PortId,
    /// As it came in.
    source: IpAddr,
    /// As it is to leave.
    destination: IpAddr,
}

impl Passage<'_> {
    /// Tell the sender of an error, if we have an address to do so from.
    fn refuse(&self, error: IcmpError, reason: DropReason) -> Next {
        match own_address(self.router, self.in_port, self.source) {
            Some(from) => Next::Reply(Reply::Error(error, from, reason)),
            None => Next::Drop(reason),
        }
    }
}

impl Routing {
    /// The next hop by routes; or how the walk ends.
    fn by_route(&self, walk: &mut Walk<'_>, passage: &Passage<'_>) -> Result<Hopped, Next> {
        let destination = passage.destination;
        let Some((prefix, hop)) = self.routes.get(walk.bridge, destination, &mut walk.asked) else {
            walk.say(|| format!("no route to {destination}"));
            return Err(passage.refuse(IcmpError::NetUnreachable, DropReason::NoRoute));
        };
        walk.say(|| format!("route {prefix}"));
        match **hop {
            // RFC 2644: a broadcast to a link is not carried there.
            Hop::OnLink { .. } if is_everybody_of(prefix, destination) => Err(Next::Drop(DropReason::NotRoutable)),
            Hop::OnLink { port } => self.neighbor(walk, passage, port, destination),
            Hop::Via { port, gateway } => self.neighbor(walk, passage, port, gateway),
            Hop::Endpoint => Err(passage.refuse(IcmpError::HostUnreachable, DropReason::NoEndpoint)),
            Hop::Unreachable => Err(passage.refuse(IcmpError::NetUnreachable, DropReason::NoRoute)),
            Hop::Blackhole => Err(Next::Drop(DropReason::Blackhole)),
        }
    }

    /// The neighbour of this address behind `port`; or it is waited for.
    fn neighbor(
        &self,
        walk: &mut Walk<'_>,
        passage: &Passage<'_>,
        port: PortId,
        address: IpAddr,
    ) -> Result<Hopped, Next> {
        let key = AddressKey { bridge: walk.bridge, address };
        if let Some(resident) = walk.topology.resident(key, &mut walk.asked).filter(|resident| resident.port == port) {
            let (name, mac) = (&resident.name, resident.mac);
            walk.say(|| format!("neighbor {address} ({name})"));
            return Ok(Hopped { port, mac });
        }
        let known = walk.live.neighbors.find(key, walk.now, &mut walk.asked).filter(|known| known.port == port);
        if known.is_none_or(|known| known.stale) {
            self.solicit(walk, passage.router, key, port, known.map(|known| known.mac));
        }
        match known {
            Some(known) => {
                walk.say(|| format!("neighbor {address} at {}", known.mac));
                Ok(Hopped { port, mac: known.mac })
            }
            None => {
                walk.transient = true;
                if walk.live.neighbors.has_failed(key) {
                    walk.say(|| format!("neighbor {address} does not answer"));
                    return Err(passage.refuse(IcmpError::HostUnreachable, DropReason::NoNeighbor));
                }
                walk.say(|| format!("neighbor {address} is asked for"));
                Err(Next::Wait(key, port))
            }
        }
    }

    fn solicit(&self, walk: &mut Walk<'_>, router: &Router, key: AddressKey, port: PortId, to: Option<MacAddr>) {
        let exit = self.exits.get(port, &mut walk.asked);
        let source = own_address(router, port, key.address);
        if let (Some(exit), Some(source)) = (exit, source) {
            let request = Request { target: key.address, source, mac: router.mac, to };
            walk.effects.push(Effect::Solicit { key, port, vlan: exit.edit(0), request });
        }
    }

    /// The frame leaves by `port`: does it fit, and what becomes of its tag?
    fn leave(&self, walk: &mut Walk<'_>, passage: &Passage<'_>, hop: Hopped) -> Next {
        let Some(&exit) = self.exits.get(hop.port, &mut walk.asked) else {
            return Next::Drop(DropReason::NoPort);
        };
        if walk.size() > u32::from(exit.mtu) {
            walk.transient = true;
            if !may_be_cut(walk) {
                return passage.refuse(IcmpError::TooBig(exit.mtu), DropReason::ExceedsMtu);
            }
            walk.say(|| format!("cut to {} octets", exit.mtu));
            walk.cut = Some(exit.mtu);
        }
        walk.guard_size(exit.mtu);
        let vlan = exit.edit(walk.key.vlan());
        walk.key.set_eth_dst(hop.mac);
        walk.key.set_eth_src(passage.router.mac);
        walk.outputs.push(Copy { port: hop.port, vlan, mtu: exit.mtu });
        Next::Continue
    }
}

/// IPv4 without "don't fragment": its sender expects routers to cut it.
fn may_be_cut(walk: &mut Walk<'_>) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    let flags = usize::from(walk.layers.l3) + 6;
    walk.key.destination().is_some_and(|destination| destination.is_ipv4())
        && walk.frame().get(flags).is_some_and(|flags| flags & DONT_FRAGMENT == 0)
}

/// The outside sends to a pod by way of the node, whose address it knows: the switch is the node's network, and need not
/// trouble its kernel.
fn is_by_way_of_the_node(walk: &mut Walk<'_>, router: &Router) -> bool {
    let Some(destination) = walk.key.destination() else { return false };
    if router.uplink != Some(walk.key.in_port()) || !is_pods(router, destination) {
        return false;
    }
    let (bridge, to) = (walk.bridge, walk.key.eth_dst());
    let same = |address: &&IpAddr| address.is_ipv4() == destination.is_ipv4();
    let node = router.node.iter().find(same).map(|&address| AddressKey { bridge, address });
    node.and_then(|key| walk.topology.endpoint(key, &mut walk.asked)).is_some_and(|node| node.mac == to)
}

impl Stage for Routing {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Route(delta) => {
                    if let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|route| route.key) {
                        let hop = delta.new.as_ref().map(|route| Arc::new(route.to));
                        self.routes.set(key.bridge, key.prefix, hop, touched);
                    }
                }
                Change::Port(delta) => {
                    if let Some(id) = delta.new.as_ref().or(delta.old.as_ref()).map(|port| port.id) {
                        let exit = delta.new.as_ref().map(|port| Exit::new(&port.vlan, port.mtu));
                        self.exits.set(id, exit, touched);
                    }
                }
                _ => {}
            }
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        rows.extend(self.routes.iter().map(|(bridge, prefix, hop)| {
            let key = RouteKey { bridge, prefix };
            Change::Route(Delta::add(Route { key, to: **hop, origin: String::new() }))
        }));
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        const MASK: KeyMask = FlowKey::mask(&[
            Field::IN_PORT,
            Field::VLAN,
            Field::ETH_DST,
            Field::ETH_SRC,
            Field::ETH_TYPE,
            Field::IPV4_SRC,
            Field::IPV4_DST,
            Field::IPV6_SRC,
            Field::IPV6_DST,
        ]);
        if routed { MASK } else { KeyMask::EMPTY }
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let (true, Some(router)) = (walk.routed, walk.router) else { return Next::Continue };
        let translated = walk.key.destination() != walk.start.destination();
        if !translated && walk.key.eth_dst() != router.mac && !is_by_way_of_the_node(walk, router) {
            return Next::Continue;
        }
        let (Some(source), Some(destination)) = (walk.start.source(), walk.key.destination()) else {
            return Next::Drop(DropReason::NotRoutable);
        };
        if stays_on_link(source) {
            return Next::Drop(DropReason::NotRoutable);
        }
        let passage = Passage { router, in_port: walk.key.in_port(), source, destination };
        let key = AddressKey { bridge: walk.bridge, address: destination };
        let endpoint = walk.topology.endpoint(key, &mut walk.asked);
        if let Some(endpoint) = endpoint {
            let name = &endpoint.name;
            walk.say(|| format!("endpoint {name}"));
            // The switch and the node are one host to others: on the way to itself nothing is taken off the hop limit.
            if endpoint.is_gateway() {
                return self.leave(walk, &passage, Hopped { port: PortId::STACK, mac: endpoint.mac });
            }
            if endpoint.kind == Some(EndpointKind::Node) {
                return self.leave(walk, &passage, Hopped { port: endpoint.port, mac: endpoint.mac });
            }
        }
        if stays_on_link(destination) {
            return Next::Drop(DropReason::NotRoutable);
        }
        walk.guard_flags(guard::HOP_LIMIT);
        if walk.has(guard::HOP_LIMIT) {
            walk.transient = true;
            return passage.refuse(IcmpError::TimeExceeded, DropReason::TtlExceeded);
        }
        walk.hops = 1;
        let hop = match endpoint {
            Some(endpoint) => Ok(Hopped { port: endpoint.port, mac: endpoint.mac }),
            None => self.by_route(walk, &passage),
        };
        match hop {
            Err(end) => end,
            // It would come back to who sent it, as it was sent.
            Ok(hop) if !translated && hop.port == passage.in_port && hop.mac == walk.key.eth_src() => {
                Next::Drop(DropReason::Reflection)
            }
            Ok(hop) => self.leave(walk, &passage, hop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::live::Now;
    use crate::reply::samples::{ROUTER_MAC, arp, ethernet, ipv4, ipv6, udp};
    use crate::resolve::stages::kit::*;

    const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 1]);

    /// UDP from the Ethernet address behind `port` to the router, with this hop limit and payload.
    fn sized(port: PortId, source: &str, destination: &str, hops: u8, payload: usize) -> Vec<u8> {
        let datagram = udp(&vec![7; payload]);
        let mut frame = match (ip(source), ip(destination)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = ipv4(17, 0x4000, &datagram);
                packet[8] = hops;
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                ethernet(&[], 0x0800, &packet)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = ipv6(17, &datagram);
                packet[7] = hops;
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
                ethernet(&[], 0x86dd, &packet)
            }
            _ => panic!("two families"),
        };
        frame[6..12].copy_from_slice(&mac(port).0);
        frame
    }

    fn packet(port: PortId, source: &str, destination: &str) -> Vec<u8> {
        sized(port, source, destination, 64, 8)
    }

    fn out(port: PortId) -> Vec<Copy> {
        vec![Copy { port, vlan: VlanEdit::Keep, mtu: 1500 }]
    }

    fn refused(error: IcmpError, from: &str, reason: DropReason) -> Next {
        Next::Reply(Reply::Error(error, ip(from), reason))
    }

    fn bench() -> Bench {
        let bench = Bench::new(&STAGE, &node());
        for address in ["192.0.2.1", "192.0.2.50", "fe80::1", "2001:db8::50"] {
            bench.live.neighbors.learn(key(address), UPLINK, NEXT, bench.now, &bench.live.cells);
        }
        bench
    }

    #[test]
    fn a_packet_leaves_where_its_destination_is() {
        let bench = bench();
        for (port, source, destination, to, to_mac, hops) in [
            (POD, "10.0.0.5", "10.0.0.6", OTHER, mac(OTHER), 1),
            (POD, "fd00::5", "fd00::6", OTHER, mac(OTHER), 1),
            (UPLINK, "198.51.100.1", "10.0.0.5", POD, mac(POD), 1),
            (POD, "10.0.0.5", "192.0.2.9", LOCAL, mac(LOCAL), 0),
            (POD, "10.0.0.5", "10.0.0.1", PortId::STACK, ROUTER_MAC, 0),
            (POD, "fd00::5", "fd00::1", PortId::STACK, ROUTER_MAC, 0),
            (POD, "10.0.0.5", "192.0.2.50", UPLINK, NEXT, 1),
            (POD, "10.0.0.5", "198.51.100.1", UPLINK, NEXT, 1),
            (POD, "fd00::5", "2001:db8::50", UPLINK, NEXT, 1),
            (POD, "fd00::5", "2001:db8:1::1", UPLINK, NEXT, 1),
        ] {
            let decided = bench.decide(port, &packet(port, source, destination));
            let what = format!("{source} to {destination}: {}", decided.note);
            assert_eq!((decided.next, &decided.outputs), (Next::Continue, &out(to)), "{what}");
            assert_eq!((decided.key.eth_dst(), decided.key.eth_src()), (to_mac, ROUTER_MAC), "{what}");
            assert_eq!((decided.hops, decided.transient, &decided.effects[..]), (hops, false, &[][..]), "{what}");
            assert_eq!((decided.key.source(), decided.key.destination()), (Some(ip(source)), Some(ip(destination))));
            assert_eq!(decided.guard & guard::HOP_LIMIT != 0, hops == 1, "{what}");
            assert_eq!(decided.guard >> guard::SIZE_SHIFT, 1500, "{what}");
        }
    }

    #[test]
    fn what_is_not_for_the_router_is_bridged_unless_it_was_translated() {
        let bench = bench();
        let mut frame = packet(POD, "10.0.0.5", "10.0.0.6");
        frame[..6].copy_from_slice(&mac(OTHER).0);
        let decided = bench.decide(POD, &frame);
        assert_eq!((decided.next, decided.outputs.len()), (Next::Continue, 0));
        assert_eq!(decided.key, decided.start);
        let decided = bench.decide_with(POD, &frame, |walk| walk.key.set_destination(ip("198.51.100.1")));
        assert_eq!((decided.next, decided.outputs), (Next::Continue, out(UPLINK)));
        assert_eq!((decided.key.eth_dst(), decided.key.eth_src(), decided.hops), (NEXT, ROUTER_MAC, 1));
        let decided = bench.decide_with(POD, &frame, |walk| walk.routed = false);
        assert_eq!((decided.deps, bench.stage.mask(POD, false)), (Default::default(), KeyMask::EMPTY));
    }

    #[test]
    fn what_the_outside_sends_to_a_pod_by_way_of_the_node_is_routed() {
        let bench = bench();
        let sent = |port, to: MacAddr, destination| {
            let mut frame = packet(port, "198.51.100.1", destination);
            frame[..6].copy_from_slice(&to.0);
            bench.decide(port, &frame).outputs
        };
        assert_eq!(sent(UPLINK, mac(LOCAL), "10.0.0.5"), out(POD));
        assert_eq!(sent(UPLINK, mac(LOCAL), "203.0.113.1"), [], "the node's own business");
        assert_eq!(sent(UPLINK, mac(OTHER), "10.0.0.5"), [], "somebody else's");
        assert_eq!(sent(OTHER, mac(LOCAL), "10.0.0.5"), [], "pods know the gateway");
    }

    #[test]
    fn a_packet_goes_back_where_it_came_from_only_as_another() {
        let bench = bench();
        let frame = packet(POD, "10.0.0.5", "10.0.0.5");
        assert_eq!(bench.decide(POD, &frame).next, Next::Drop(DropReason::Reflection));
        // To a service whose backend is the client itself.
        let frame = packet(POD, "10.0.0.5", "10.96.0.1");
        let decided = bench.decide_with(POD, &frame, |walk| walk.key.set_destination(ip("10.0.0.5")));
        assert_eq!((decided.next, decided.outputs), (Next::Continue, out(POD)));
        // From one host outside to another.
        let decided = bench.decide(UPLINK, &packet(UPLINK, "192.0.2.60", "192.0.2.50"));
        assert_eq!((decided.next, decided.outputs), (Next::Continue, out(UPLINK)));
    }

    #[test]
    fn a_hop_limit_that_runs_out_is_told_to_the_sender() {
        let bench = bench();
        for hops in [0, 1] {
            for (port, source, destination, from) in [
                (POD, "10.0.0.5", "10.0.0.6", "10.0.0.1"),
                (POD, "10.0.0.5", "198.51.100.1", "10.0.0.1"),
                (UPLINK, "198.51.100.1", "10.0.0.5", "192.0.2.9"),
                (POD, "fd00::5", "fd00::6", "fd00::1"),
            ] {
                let decided = bench.decide(port, &sized(port, source, destination, hops, 8));
                let next = refused(IcmpError::TimeExceeded, from, DropReason::TtlExceeded);
                assert_eq!((decided.next, decided.transient), (next, true), "{source} to {destination}");
            }
            for destination in ["10.0.0.1", "192.0.2.9"] {
                let decided = bench.decide(POD, &sized(POD, "10.0.0.5", destination, hops, 8));
                assert_eq!((decided.next, decided.outputs.len()), (Next::Continue, 1), "{destination} is ours");
            }
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_as_the_route_says() {
        let mut bench = bench();
        bench.apply(&[
            route("203.0.113.0/24", Hop::Unreachable),
            route("203.0.113.128/25", Hop::Blackhole),
            route("2001:db8:dead::/48", Hop::Unreachable),
        ]);
        let nobody = |from| refused(IcmpError::HostUnreachable, from, DropReason::NoEndpoint);
        let no_route = |from| refused(IcmpError::NetUnreachable, from, DropReason::NoRoute);
        for (source, destination, next) in [
            ("10.0.0.5", "10.0.0.99", nobody("10.0.0.1")),
            ("fd00::5", "fd00::99", nobody("fd00::1")),
            ("10.0.0.5", "203.0.113.1", no_route("10.0.0.1")),
            ("fd00::5", "2001:db8:dead::1", no_route("fd00::1")),
            ("10.0.0.5", "203.0.113.200", Next::Drop(DropReason::Blackhole)),
        ] {
            let decided = bench.decide(POD, &packet(POD, source, destination));
            assert_eq!((decided.next, decided.outputs.len()), (next, 0), "{destination}: {}", decided.note);
        }
        let default = RouteKey { bridge: BR, prefix: "0.0.0.0/0".parse().unwrap() };
        let via = Hop::Via { port: UPLINK, gateway: ip("192.0.2.1") };
        let gone = Change::Route(Delta::remove(Route { key: default, to: via, origin: "test".to_owned() }));
        bench.apply(&[gone]);
        assert_eq!(bench.decide(POD, &packet(POD, "10.0.0.5", "198.51.100.1")).next, no_route("10.0.0.1"));
    }

    #[test]
    fn what_is_no_business_of_a_router_is_dropped() {
        let bench = bench();
        let not_routable = Next::Drop(DropReason::NotRoutable);
        for (source, destination) in [
            ("10.0.0.5", "224.0.0.1"),
            ("10.0.0.5", "255.255.255.255"),
            ("10.0.0.5", "127.0.0.1"),
            ("10.0.0.5", "0.0.0.0"),
            ("10.0.0.5", "169.254.169.254"),
            ("10.0.0.5", "192.0.2.255"),
            ("10.0.0.5", "192.0.2.0"),
            ("127.0.0.1", "10.0.0.6"),
            ("0.0.0.0", "10.0.0.6"),
            ("169.254.1.1", "10.0.0.6"),
            ("224.0.0.1", "10.0.0.6"),
            ("fd00::5", "ff02::1"),
            ("fd00::5", "fe80::1"),
            ("fd00::5", "::1"),
            ("fe80::5", "2001:db8::50"),
            ("::", "2001:db8::50"),
        ] {
            let decided = bench.decide(POD, &packet(POD, source, destination));
            assert_eq!((decided.next, decided.outputs.len()), (not_routable, 0), "{source} to {destination}");
        }
        let request = ethernet(&[], 0x0806, &arp(1, [10, 0, 0, 5].into(), [10, 96, 0, 1].into()));
        assert_eq!(bench.decide(POD, &request).next, not_routable);
        assert_eq!(bench.decide(POD, &ethernet(&[], 0x88b5, b"payload")).next, not_routable);
    }

    #[test]
    fn an_unknown_neighbour_is_asked_for_and_waited_for() {
        let mut bench = Bench::new(&STAGE, &node());
        let frame = packet(POD, "10.0.0.5", "198.51.100.1");
        let request = Request { target: ip("192.0.2.1"), source: ip("192.0.2.9"), mac: ROUTER_MAC, to: None };
        let solicit = Effect::Solicit { key: key("192.0.2.1"), port: UPLINK, vlan: VlanEdit::Keep, request };
        let mut requests = 0;
        for second in 0..5 {
            bench.now = Now(Duration::from_millis(100_000 + second * 1000));
            let decided = bench.decide(POD, &frame);
            assert_eq!((decided.next, decided.transient), (Next::Wait(key("192.0.2.1"), UPLINK), true));
            assert_eq!(decided.effects, std::slice::from_ref(&solicit));
            requests += bench.settle(POD, &decided) + bench.settle(POD, &bench.decide(POD, &frame));
        }
        assert_eq!(requests, 5, "one a second");
        let decided = bench.decide(POD, &frame);
        let next = refused(IcmpError::HostUnreachable, "10.0.0.1", DropReason::NoNeighbor);
        assert_eq!((decided.next, decided.transient), (next, true));
        bench.live.neighbors.learn(key("192.0.2.1"), UPLINK, NEXT, bench.now, &bench.live.cells);
        assert_eq!(bench.decide(POD, &frame).outputs, out(UPLINK));
    }

    #[test]
    fn a_stale_neighbour_is_used_and_asked_where_it_was() {
        let mut bench = bench();
        bench.now = Now(Duration::from_secs(200));
        let decided = bench.decide(POD, &packet(POD, "10.0.0.5", "192.0.2.50"));
        assert_eq!((decided.next, &decided.outputs, decided.transient), (Next::Continue, &out(UPLINK), false));
        let request = Request { target: ip("192.0.2.50"), source: ip("192.0.2.9"), mac: ROUTER_MAC, to: Some(NEXT) };
        let vlan = VlanEdit::Keep;
        assert_eq!(decided.effects, [Effect::Solicit { key: key("192.0.2.50"), port: UPLINK, vlan, request }]);
        assert_eq!((bench.settle(POD, &decided), bench.settle(POD, &decided)), (1, 0));
    }

    #[test]
    fn a_static_neighbour_is_not_asked_for_and_one_elsewhere_is_not_used() {
        let mut bench = Bench::new(&STAGE, &node());
        bench.apply(&[neighbor("192.0.2.1", UPLINK, NEXT), neighbor("192.0.2.50", OTHER, NEXT)]);
        let decided = bench.decide(POD, &packet(POD, "10.0.0.5", "198.51.100.1"));
        assert_eq!((decided.outputs, decided.effects), (out(UPLINK), vec![]));
        bench.live.neighbors.learn(key("192.0.2.60"), OTHER, NEXT, bench.now, &bench.live.cells);
        for address in ["192.0.2.50", "192.0.2.60"] {
            let decided = bench.decide(POD, &packet(POD, "10.0.0.5", address));
            assert_eq!(decided.next, Next::Wait(key(address), UPLINK), "{address} is not behind the uplink");
        }
    }

    #[test]
    fn what_is_too_large_for_the_way_is_told_the_size_that_fits() {
        let mut bench = bench();
        bench.apply(&[port(UPLINK, Vlan::default(), 1400)]);
        for (source, destination, header, from) in
            [("10.0.0.5", "198.51.100.1", 28, "10.0.0.1"), ("fd00::5", "2001:db8::50", 48, "fd00::1")]
        {
            let of = |size: usize| bench.decide(POD, &sized(POD, source, destination, 64, size - header));
            let fits = of(1400);
            assert_eq!((fits.next, fits.transient, fits.guard >> guard::SIZE_SHIFT), (Next::Continue, false, 1400));
            let next = refused(IcmpError::TooBig(1400), from, DropReason::ExceedsMtu);
            let too_big = of(1401);
            assert_eq!((too_big.next, too_big.transient, too_big.outputs.len()), (next, true, 0), "{source}");
        }
        let mut may_be_cut = sized(POD, "10.0.0.5", "198.51.100.1", 64, 1400);
        may_be_cut[14 + 6] = 0;
        let decided = bench.decide(POD, &may_be_cut);
        assert_eq!((decided.next, decided.transient, decided.outputs.len()), (Next::Continue, true, 1));
    }

    #[test]
    fn a_frame_leaves_in_the_native_vlan_of_its_way_out() {
        let mut bench = bench();
        let untagged = packet(POD, "10.0.0.5", "10.0.0.6");
        let mut tagged = untagged.clone();
        tagged.splice(12..12, [0x81, 0, 0, 20]);
        let native = Vlan::NativeTagged { tag: 30, trunks: vec![] };
        for (vlan, edits) in [
            (Vlan::default(), [VlanEdit::Keep, VlanEdit::Pop]),
            (Vlan::Access { tag: 10 }, [VlanEdit::Keep, VlanEdit::Pop]),
            (native, [VlanEdit::Push(30), VlanEdit::Set(30)]),
        ] {
            bench.apply(&[port(OTHER, vlan.clone(), 1500)]);
            for (frame, edit) in [&untagged, &tagged].into_iter().zip(edits) {
                let outputs = bench.decide(POD, frame).outputs;
                assert_eq!(outputs, [Copy { port: OTHER, vlan: edit, mtu: 1500 }], "{vlan:?}");
            }
        }
    }

    #[test]
    fn a_change_that_moves_a_packet_elsewhere_ends_the_decision() {
        let frame = packet(POD, "10.0.0.5", "198.51.100.1");
        let other = MacAddr([2, 0, 0, 0, 9, 2]);
        type Alter = Box<dyn Fn(&mut Bench)>;
        let changes: [(&str, Alter); 6] = [
            ("a longer prefix", Box::new(|bench| bench.apply(&[route("198.51.100.0/24", Hop::Blackhole)]))),
            ("a shorter prefix", Box::new(|bench| bench.apply(&[route("198.0.0.0/8", Hop::Unreachable)]))),
            ("an endpoint", {
                let endpoint = endpoint("198.51.100.1", OTHER, EndpointKind::Pod);
                Box::new(move |bench| bench.apply(&[Change::Endpoint(Delta::add(endpoint.clone()))]))
            }),
            ("a static neighbour", Box::new(move |bench| bench.apply(&[neighbor("192.0.2.1", UPLINK, other)]))),
            ("the neighbour moved", {
                Box::new(move |bench| {
                    let later = Now(bench.now.0 + Duration::from_secs(1));
                    bench.live.neighbors.learn(key("192.0.2.1"), UPLINK, other, later, &bench.live.cells);
                })
            }),
            ("the way out", Box::new(|bench| bench.apply(&[port(UPLINK, Vlan::default(), 1300)]))),
        ];
        for (why, change) in changes {
            let mut bench = bench();
            let (decided, made) = (bench.decide(POD, &frame), bench.live.cells.now());
            assert!(bench.live.cells.unchanged_since(&decided.deps.cells(), made), "{why}");
            change(&mut bench);
            assert!(!bench.live.cells.unchanged_since(&decided.deps.cells(), made), "{why}");
        }
        let mut bench = bench();
        let (decided, made) = (bench.decide(POD, &packet(POD, "10.0.0.5", "10.0.0.6")), bench.live.cells.now());
        bench.apply(&[route("203.0.113.0/24", Hop::Unreachable)]);
        assert!(bench.live.cells.unchanged_since(&decided.deps.cells(), made), "a route elsewhere");
    }
}
