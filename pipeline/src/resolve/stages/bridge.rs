//! bridge: to which port does the destination address lead? Learn where the sender is.
//!
//! IEEE 802.1Q, clause 8. Worked example: A (port 1) pings B (port 2), neither known. A's frame is flooded to every
//! port of the VLAN but its own, and A is learned at port 1; the flood rests on B's absence, and says so. B's answer
//! goes to port 1 alone, and B is learned at port 2: that touches the cell of B's absence, so A's next frame is decided
//! anew, and goes to port 2 alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{BridgeId, Change, Delta, Endpoint, EndpointKind, MacAddr, Port, PortId, StationKey, Vlan};

use crate::burst::VlanEdit;
use crate::drop::DropReason;
use crate::key::{Field, FlowKey, KeyMask, VLAN_TAGGED};
use crate::live::stations::{Address, Slot, Station, Stations};
use crate::probe::cells::Touched;
use crate::probe::trail::Trail;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::walk::{Copy, Effect, Walk};
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "bridge",
    help: "to which port does the destination address lead? learn where the sender is",
    first_packet: false,
    build: || Box::new(Bridging::new()),
};

/// What bridging needs to know of a bridge.
#[derive(Clone, Debug, Default)]
struct Domain {
    /// 01:80:c2:00:00:00 to :0f are forwarded.
    forward_bpdu: bool,
    /// Its ports in order of their numbers.
    members: Arc<Vec<Member>>,
}

#[derive(Clone, Debug)]
struct Member {
    port: PortId,
    vlan: Vlan,
}

#[derive(Clone, Debug)]
struct Bridging {
    bridges: Exact<BridgeId, Domain>,
    stations: Exact<StationKey, Placed>,
}

/// Who says where a station is. The operator's word goes before that of endpoints.
#[derive(Clone, Debug, Default)]
struct Placed {
    operator: Option<PortId>,
    /// The endpoints with this Ethernet address, one for each of a pod's addresses. Should they be behind several ports, that
    /// of the first address counts, whoever was told of first.
    endpoints: BTreeMap<IpAddr, PortId>,
}

impl Placed {
    fn port(&self) -> Option<PortId> {
        self.operator.or_else(|| self.endpoints.values().next().copied())
    }
}

impl Bridging {
    fn new() -> Self {
        Self { bridges: Exact::new("bridge"), stations: Exact::new("static station") }
    }

    /// Rewrite the row of a station that somebody places.
    fn place(&mut self, key: StationKey, touched: &mut Touched<'_>, edit: impl FnOnce(&mut Placed)) {
        let mut placed = self.stations.peek(&key).cloned().unwrap_or_default();
        edit(&mut placed);
        self.stations.set(key, placed.port().map(|_| placed), touched);
    }

    /// Rewrite the row of a bridge.
    fn edit(&mut self, bridge: BridgeId, touched: &mut Touched<'_>, edit: impl FnOnce(&mut Domain)) {
        let mut domain = self.bridges.peek(&bridge).cloned().unwrap_or_default();
        edit(&mut domain);
        self.bridges.set(bridge, Some(domain), touched);
    }
}

fn is_stack(delta: &Delta<Port>) -> bool {
    delta.new.as_ref().or(delta.old.as_ref()).is_some_and(|port| port.id == PortId::STACK)
}

/// Endpoints are in VLAN 0 of their bridge.
fn station_of(endpoint: &Endpoint) -> StationKey {
    StationKey { bridge: endpoint.key.bridge, vlan: 0, mac: endpoint.mac }
}

/// How a frame of `vlan` leaves by a port with these VLANs: tagged or not; `None` if the port is no member.
fn egress_tagged(port: &Vlan, vlan: u16) -> Option<bool> {
    let member = |trunks: &[u16]| trunks.is_empty() || trunks.contains(&vlan);
    match port {
        Vlan::Access { tag } => (*tag == vlan).then_some(false),
        Vlan::Trunk { trunks } => member(trunks).then_some(vlan != 0),
        Vlan::NativeTagged { tag, .. } if *tag == vlan => Some(true),
        Vlan::NativeUntagged { tag, .. } if *tag == vlan => Some(false),
        Vlan::NativeTagged { trunks, .. } | Vlan::NativeUntagged { trunks, .. } => member(trunks).then_some(vlan != 0),
    }
}

/// What is done to the tag of a frame that came in as `tag` (of the key) and leaves in `vlan`.
pub(super) fn tag_edit(tag: u16, vlan: u16, leaves_tagged: bool) -> VlanEdit {
    match (tag & VLAN_TAGGED != 0, leaves_tagged) {
        (false, false) => VlanEdit::Keep,
        (false, true) => VlanEdit::Push(vlan),
        (true, false) => VlanEdit::Pop,
        (true, true) if tag & 0xfff == vlan => VlanEdit::Keep,
        (true, true) => VlanEdit::Set(vlan),
    }
}

/// 01:80:c2:00:00:00 to :0f: never forwarded by a bridge (IEEE 802.1Q, table 8-1).
fn is_link_local(mac: MacAddr) -> bool {
    let MacAddr([a, b, c, d, e, f]) = mac;
    [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && f <= 0x0f
}

/// Where a decision finds a station.
enum Place {
    Static,
    Learned(Slot, Station),
    Unknown,
}

impl Bridging {
    /// The sender: learn it, or note that it is used.
    fn source(&self, walk: &mut Walk<'_>) {
        let in_port = walk.key.in_port();
        let address = Address { vlan: walk.vlan, mac: walk.key.eth_src() };
        let key = StationKey { bridge: walk.bridge, vlan: walk.vlan, mac: address.mac };
        let place = match self.stations.get(key, &mut walk.asked) {
            Some(_) => Place::Static,
            None => match walk.live.stations.find_sender(walk.bridge, address, &mut walk.asked) {
                Some((slot, station)) => Place::Learned(slot, station),
                None => Place::Unknown,
            },
        };
        match place {
            // What an operator placed does not move, wherever it seems to speak.
            Place::Static => {}
            Place::Learned(slot, station) if station.port == in_port => {
                walk.trail = Trail::Station(slot);
                // The entry of its last frames may be worthless by now, and what is worthless accounts to nobody.
                if station.heard != walk.now.second() {
                    walk.effects.push(Effect::Hear { bridge: walk.bridge, address });
                }
            }
            // It has just moved here or there: this frame goes its way, but the next one asks again.
            Place::Learned(_, station) if !Stations::may_move(&station, walk.now) => walk.transient = true,
            Place::Learned(..) | Place::Unknown => walk.effects.push(Effect::Hear { bridge: walk.bridge, address }),
        }
    }

    /// The port of the destination, if it is known.
    fn destination(&self, walk: &mut Walk<'_>) -> Option<PortId> {
        let address = Address { vlan: walk.vlan, mac: walk.key.eth_dst() };
        let key = StationKey { bridge: walk.bridge, vlan: walk.vlan, mac: address.mac };
        if let Some(port) = self.stations.get(key, &mut walk.asked).and_then(Placed::port) {
            return Some(port);
        }
        walk.live.stations.find(walk.bridge, address, &mut walk.asked).map(|(_, station)| station.port)
    }
}

impl Stage for Bridging {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Bridge(delta) => match (&delta.old, &delta.new) {
                    (_, Some(bridge)) => {
                        self.edit(bridge.id, touched, |domain| domain.forward_bpdu = bridge.forward_bpdu);
                    }
                    (Some(bridge), None) => self.bridges.set(bridge.id, None, touched),
                    (None, None) => {}
                },
                // The switch's own stack hears what is routed to it, and nothing else.
                Change::Port(delta) if is_stack(delta) => {}
                Change::Port(delta) => {
                    if let Some(port) = &delta.old {
                        self.edit(port.bridge, touched, |domain| {
                            Arc::make_mut(&mut domain.members).retain(|member| member.port != port.id);
                        });
                    }
                    if let Some(port) = &delta.new {
                        self.edit(port.bridge, touched, |domain| {
                            let members = Arc::make_mut(&mut domain.members);
                            let at = members.partition_point(|member| member.port < port.id);
                            members.insert(at, Member { port: port.id, vlan: port.vlan.clone() });
                        });
                    }
                }
                Change::Station(delta) => {
                    if let Some(station) = delta.new.as_ref().or(delta.old.as_ref()) {
                        self.place(station.key, touched, |placed| placed.operator = delta.new.map(|new| new.port));
                    }
                }
                Change::Endpoint(delta) => {
                    // A gateway is behind every port: its frames are routed, not bridged.
                    let stations = |endpoint: &&Endpoint| endpoint.kind != EndpointKind::Gateway;
                    if let Some(old) = delta.old.as_ref().filter(stations) {
                        self.place(station_of(old), touched, |placed| _ = placed.endpoints.remove(&old.key.address));
                    }
                    if let Some(new) = delta.new.as_ref().filter(stations) {
                        self.place(station_of(new), touched, |placed| {
                            placed.endpoints.insert(new.key.address, new.port);
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        // Those that endpoints placed follow from these.
        let stated = self.stations.iter().filter_map(|(&key, placed)| Some((key, placed.operator?)));
        rows.extend(stated.map(|(key, port)| Change::Station(Delta::add(api::Station { key, port }))));
    }

    fn mask(&self, _port: PortId, _routed: bool) -> KeyMask {
        const MASK: KeyMask = FlowKey::mask(&[Field::IN_PORT, Field::VLAN, Field::ETH_DST, Field::ETH_SRC]);
        MASK
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        // Routed already.
        if !walk.outputs.is_empty() {
            return Next::Continue;
        }
        let Some(domain) = self.bridges.get(walk.bridge, &mut walk.asked) else {
            return Next::Drop(DropReason::NoBridge);
        };
        let (in_port, destination) = (walk.key.in_port(), walk.key.eth_dst());
        if is_link_local(destination) && !domain.forward_bpdu {
            return Next::Drop(DropReason::LinkLocal);
        }
        self.source(walk);
        let (tag, vlan) = (walk.key.vlan(), walk.vlan);
        let way = |member: &Member| {
            let leaves_tagged = egress_tagged(&member.vlan, vlan)?;
            Some(Copy { port: member.port, vlan: tag_edit(tag, vlan, leaves_tagged), mtu: u16::MAX })
        };
        let known = if destination.is_group() { None } else { self.destination(walk) };
        match known {
            Some(port) if port == in_port => return Next::Drop(DropReason::Reflection),
            Some(port) => {
                let member = domain.members.binary_search_by_key(&port, |member| member.port);
                let member = member.ok().and_then(|at| domain.members.get(at));
                walk.outputs.extend(member.and_then(way));
            }
            None => walk.outputs.extend(domain.members.iter().filter(|member| member.port != in_port).filter_map(way)),
        }
        if walk.outputs.is_empty() { Next::Drop(DropReason::NoPort) } else { Next::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_with_the_tag_that_the_port_expects() {
        let access = Vlan::Access { tag: 10 };
        let trunk = Vlan::Trunk { trunks: vec![] };
        let native = Vlan::NativeUntagged { tag: 10, trunks: vec![20] };
        let native_tagged = Vlan::NativeTagged { tag: 10, trunks: vec![20] };
        for (port, vlan, tagged) in [
            (&access, 10, Some(false)),
            (&access, 20, None),
            (&trunk, 0, Some(false)),
            (&trunk, 10, Some(true)),
            (&native, 10, Some(false)),
            (&native, 20, Some(true)),
            (&native, 30, None),
            (&native_tagged, 10, Some(true)),
        ] {
            assert_eq!(egress_tagged(port, vlan), tagged, "{port:?} {vlan}");
        }
        assert_eq!(tag_edit(0, 10, true), VlanEdit::Push(10));
        assert_eq!(tag_edit(VLAN_TAGGED | 10, 10, true), VlanEdit::Keep);
        assert_eq!(tag_edit(VLAN_TAGGED, 10, true), VlanEdit::Set(10));
        assert_eq!(tag_edit(VLAN_TAGGED | 10, 10, false), VlanEdit::Pop);
    }

    #[test]
    fn addresses_that_bridges_keep_to_themselves_are_sixteen() {
        assert!(
            is_link_local(MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]))
                && is_link_local(MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]))
        );
        assert!(!is_link_local(MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x10])) && !is_link_local(MacAddr::BROADCAST));
    }
}
