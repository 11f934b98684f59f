//! admit: may this frame come in by this port, and into which VLAN of its bridge?
//!
//! Worked example: port 3 is an access port of VLAN 10. An untagged frame, or one with a priority tag (VLAN id 0,
//! IEEE 802.1Q 6.9), is in VLAN 10; a frame tagged 20 is dropped as `vlan-not-member`. On the way out of port 3
//! (see `bridge`) frames of VLAN 10 lose their tag, so what port 3 hears is what it could have said.

use std::collections::BTreeMap;

use api::{BridgeId, Change, Delta, Port, PortId, Vlan};

use crate::drop::DropReason;
use crate::key::{Field, FlowKey, KeyMask, VLAN_TAGGED};
use crate::probe::cells::Touched;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::walk::Walk;
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "admit",
    help: "may this frame come in by this port, and into which VLAN?",
    first_packet: false,
    build: || Box::new(Admit::new()),
};

/// What frames of a port need to be let in.
#[derive(Clone, Debug)]
struct Admission {
    bridge: BridgeId,
    vlan: Vlan,
}

#[derive(Clone, Debug)]
struct Admit {
    ports: Exact<PortId, Admission>,
}

impl Admit {
    fn new() -> Self {
        Self { ports: Exact::new("port") }
    }
}

/// The VLAN of a frame with this tag (`vlan` of the key) coming in by a port with these VLANs; `None` if the port is
/// no member.
pub fn ingress_vlan(port: &Vlan, tag: u16) -> Option<u16> {
    let (tagged, vid) = (tag & VLAN_TAGGED != 0, tag & 0xfff);
    let member = |trunks: &[u16]| trunks.is_empty() || trunks.contains(&vid);
    match port {
        Vlan::Access { tag } => (vid == 0).then_some(*tag),
        Vlan::Trunk { trunks } => member(trunks).then_some(vid),
        Vlan::NativeTagged { tag, .. } | Vlan::NativeUntagged { tag, .. } if !tagged || vid == 0 || vid == *tag => {
            Some(*tag)
        }
        Vlan::NativeTagged { trunks, .. } | Vlan::NativeUntagged { trunks, .. } => member(trunks).then_some(vid),
    }
}

impl Stage for Admit {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            if let Change::Port(delta) = change
                && let Some(id) = delta.new.as_ref().or(delta.old.as_ref()).map(|port| port.id)
            {
                let row = |port: &Port| Admission { bridge: port.bridge, vlan: port.vlan.clone() };
                self.ports.set(id, delta.new.as_ref().map(row), touched);
            }
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        let port = |(&id, admission): (&PortId, &Admission)| Port {
            id,
            name: String::new(),
            bridge: admission.bridge,
            ofport: 0,
            kind: String::new(),
            options: BTreeMap::new(),
            vlan: admission.vlan.clone(),
            mac: None,
            mtu: Port::MTU,
            external_ids: BTreeMap::new(),
        };
        rows.extend(self.ports.iter().map(|row| Change::Port(Delta::add(port(row)))));
    }

    fn mask(&self, _port: PortId, _routed: bool) -> KeyMask {
        const MASK: KeyMask = FlowKey::mask(&[Field::IN_PORT, Field::VLAN]);
        MASK
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let Some(port) = self.ports.get(walk.key.in_port(), &mut walk.asked) else {
            return Next::Drop(DropReason::NoBridge);
        };
        let Some(vlan) = ingress_vlan(&port.vlan, walk.key.vlan()) else {
            return Next::Drop(DropReason::VlanNotMember);
        };
        (walk.bridge, walk.vlan) = (port.bridge, vlan);
        walk.router = walk.topology.router(port.bridge, &mut walk.asked);
        walk.routed = walk.router.is_some();
        let listed = walk.topology.listed(port.bridge, &mut walk.asked);
        (walk.listed, walk.tracked) = (listed.is_some(), walk.routed || listed.is_some_and(|listed| listed.stateful));
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED_10: u16 = VLAN_TAGGED | 10;
    const TAGGED_20: u16 = VLAN_TAGGED | 20;
    const PRIORITY: u16 = VLAN_TAGGED;

    #[test]
    fn a_frame_is_in_the_vlan_that_its_port_and_its_tag_say() {
        let access = Vlan::Access { tag: 10 };
        let all = Vlan::Trunk { trunks: vec![] };
        let some = Vlan::Trunk { trunks: vec![0, 20] };
        let native = Vlan::NativeUntagged { tag: 10, trunks: vec![20] };
        let rows = [
            (&access, 0, Some(10)),
            (&access, PRIORITY, Some(10)),
            (&access, TAGGED_10, None),
            (&access, TAGGED_20, None),
            (&all, 0, Some(0)),
            (&all, TAGGED_20, Some(20)),
            (&some, 0, Some(0)),
            (&some, TAGGED_10, None),
            (&some, TAGGED_20, Some(20)),
            (&native, 0, Some(10)),
            (&native, PRIORITY, Some(10)),
            (&native, TAGGED_10, Some(10)),
            (&native, TAGGED_20, Some(20)),
            (&native, VLAN_TAGGED | 30, None),
        ];
        for (port, tag, vlan) in rows {
            assert_eq!(ingress_vlan(port, tag), vlan, "{port:?} {tag:#06x}");
        }
    }
}
