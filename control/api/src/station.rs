//! A station: an Ethernet address that an operator placed at a port by hand (`fdb/add`).

use serde::{Deserialize, Serialize};

use crate::{BridgeId, MacAddr, PortId};

/// Key of a [`Station`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StationKey {
    /// The bridge.
    pub bridge: BridgeId,
    /// VLAN id, 0 to 4095.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
}

/// A static entry of a bridge's MAC table: it neither ages nor moves by traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Key.
    pub key: StationKey,
    /// Where the station is.
    pub port: PortId,
}
