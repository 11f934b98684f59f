//! route: where does the destination address lead, for what is sent to the router or was translated?
//!
//! ```text
//!   gateway ─▶ the switch's own stack            longest prefix: on link, via ─▶ neighbour, known or asked for
//!   endpoint ─▶ its port                                         endpoint     ─▶ host unreachable: nobody has it
//!                                                                unreachable, none ─▶ network unreachable
//!                                                                blackhole    ─▶ silence
//! ```
//!
//! What is not for the router's Ethernet address and goes where it was sent is bridged, as on any switch. IPv4 options
//! and IPv6 extension headers are carried, not looked at: none of them asks anything of this router.
//!
//! Worked example: pod 10.0.0.5 sends to 198.51.100.1, hence to its gateway's Ethernet address, the router's. The route
//! 0.0.0.0/0 leads via 192.0.2.1 on the uplink, which is a neighbour: the frame leaves there, from the router's Ethernet
//! address to the neighbour's, one hop poorer. The answer comes back to the node's address; `connection` translates its
//! destination to 10.0.0.5, so it is routed: to the endpoint's port and Ethernet address.
//!
//! *Not done*: a packet that is too large is not cut into fragments, IPv4 without "don't fragment" is dropped as
//! `exceeds-mtu` like everything else, without an answer (its sender takes none); ICMP redirects are not sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{AddressKey, Change, EndpointKind, Hop, MacAddr, PortId, Router, Vlan};
use ipnet::IpNet;

use crate::burst::{VlanEdit, guard};
use crate::drop::DropReason;
use crate::key::{Field, FlowKey, KeyMask};
use crate::probe::cells::Touched;
use crate::reply::Request;
use crate::resolve::stage::{IcmpError, Next, Reply, Stage, StageDef};
use crate::resolve::topology::{Topology, own_address};
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
    topology: Topology,
    routes: Prefixes<Arc<Hop>>,
    exits: Exact<PortId, Exit>,
}

impl Routing {
    fn new() -> Self {
        Self {
            topology: Topology::default(),
            routes: Prefixes::new("route region", "route wide"),
            exits: Exact::new("route port"),
        }
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
        if let Some(resident) = self.topology.resident(key, &mut walk.asked).filter(|resident| resident.port == port) {
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
            return if may_be_cut(walk) {
                Next::Drop(DropReason::ExceedsMtu)
            } else {
                passage.refuse(IcmpError::TooBig(exit.mtu), DropReason::ExceedsMtu)
            };
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

impl Stage for Routing {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        self.topology.apply(changes, touched);
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
        if !walk.routed {
            return Next::Continue;
        }
        let Some(router) = self.topology.router(walk.bridge, &mut walk.asked) else { return Next::Continue };
        let translated = walk.key.destination() != walk.start.destination();
        if !translated && walk.key.eth_dst() != router.mac {
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
        let endpoint = self.topology.endpoint(key, &mut walk.asked);
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
