//! A port: where frames enter and leave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BridgeId, MacAddr, PortId};

/// A port of a bridge, as the switch is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Key: dense number, chosen by the store, never shared by two ports at a time.
    pub id: PortId,
    /// What operators call it; unique over all bridges, at most 15 bytes.
    pub name: String,
    /// The bridge it belongs to.
    pub bridge: BridgeId,
    /// OpenFlow number within its bridge: 1 to 65279; 65534 is LOCAL.
    pub ofport: u16,
    /// Device kind, a row of the switch's `PORT_TYPES` (`tap`, `internal`, `memory`, `pcap`, `null`).
    pub kind: String,
    /// `options:` of the kind, checked by the kind when the port is opened.
    pub options: BTreeMap<String, String>,
    /// VLANs of the port.
    pub vlan: Vlan,
    /// Address the device shall have (`Interface.mac`).
    pub mac: Option<MacAddr>,
    /// Largest layer-3 packet in octets that may leave by this port (`Interface.mtu_request`; 1500 unless asked).
    pub mtu: u16,
    /// The operator's own notes; the switch does not look at them.
    pub external_ids: BTreeMap<String, String>,
}

impl Port {
    /// MTU of a port that was not asked for another.
    pub const MTU: u16 = 1500;
    /// OpenFlow number of a bridge's LOCAL port.
    pub const LOCAL: u16 = 65534;
    /// Largest OpenFlow number of an ordinary port (OFPP_MAX - 1, OpenFlow 1.0).
    pub const OFPORT_MAX: u16 = 65279;
}

/// How a port takes part in VLANs (`Port.tag`, `Port.trunks`, `Port.vlan_mode` of OVS). Ids are 0 to 4095; an empty
/// trunk list means every VLAN. Frames without a tag are in VLAN 0 on a plain trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mode")]
pub enum Vlan {
    /// Untagged on the wire, member of one VLAN; tagged frames are refused, except with VLAN id 0 (priority tag).
    Access {
        /// The VLAN.
        tag: u16,
    },
    /// Tagged on the wire.
    Trunk {
        /// Member VLANs.
        trunks: Vec<u16>,
    },
    /// A trunk whose untagged frames are in VLAN `tag`; frames of that VLAN leave tagged.
    NativeTagged {
        /// The native VLAN.
        tag: u16,
        /// Member VLANs beside the native one.
        trunks: Vec<u16>,
    },
    /// A trunk whose untagged frames are in VLAN `tag`; frames of that VLAN leave untagged.
    NativeUntagged {
        /// The native VLAN.
        tag: u16,
        /// Member VLANs beside the native one.
        trunks: Vec<u16>,
    },
}

impl Default for Vlan {
    fn default() -> Self {
        Self::Trunk { trunks: Vec::new() }
    }
}

impl Vlan {
    /// As OVS tells it: `vlan_mode`, `tag` and `trunks`.
    pub fn columns(&self) -> (&'static str, Option<u16>, &[u16]) {
        match self {
            Self::Access { tag } => ("access", Some(*tag), &[]),
            Self::Trunk { trunks } => ("trunk", None, trunks),
            Self::NativeTagged { tag, trunks } => ("native-tagged", Some(*tag), trunks),
            Self::NativeUntagged { tag, trunks } => ("native-untagged", Some(*tag), trunks),
        }
    }
}
