//! A bridge: ports that hear each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::BridgeId;

/// A learning bridge (IEEE 802.1Q), as the switch is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Key: the number that ports name it by.
    pub id: BridgeId,
    /// What operators call it; unique, at most 15 bytes (its LOCAL port is an interface of that name).
    pub name: String,
    /// Learned stations at most (`other_config:mac-table-size`; 8192 as in OVS).
    pub mac_table_size: u32,
    /// Seconds after which a silent station is forgotten (`other_config:mac-aging-time`; 300 as in OVS).
    pub mac_ageing: u32,
    /// Forward 01:80:c2:00:00:00 to :0f instead of dropping them (`other_config:forward-bpdu`).
    pub forward_bpdu: bool,
    /// The operator's own notes; the switch does not look at them.
    pub external_ids: BTreeMap<String, String>,
}

impl Bridge {
    /// OVS's default of `mac-table-size`.
    pub const MAC_TABLE_SIZE: u32 = 8192;
    /// OVS's default of `mac-aging-time`, seconds.
    pub const MAC_AGEING: u32 = 300;
}
