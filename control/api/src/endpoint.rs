//! An endpoint: an address that lives behind a port of this node's switch.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{BridgeId, MacAddr, PortId, addr};

/// Key of an [`Endpoint`] and of a [`crate::Neighbor`]: an address within a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressKey {
    /// The bridge.
    pub bridge: BridgeId,
    /// The address.
    pub address: IpAddr,
}

impl Hash for AddressKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(addr::bits(self.address));
        state.write_u16(self.bridge.0);
    }
}

/// An address that the switch knows for certain: of a pod, of the node itself, or its own. A pod with two addresses is
/// two endpoints of one name and identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Key.
    pub key: AddressKey,
    /// Where it is.
    pub port: PortId,
    /// The Ethernet address behind which it is; ARP and ND answer with it.
    pub mac: MacAddr,
    /// What it is.
    pub kind: EndpointKind,
    /// Tells one owner of the address from the next (hash of the attachment or the Pod's UID): connections of another
    /// identity are dead.
    pub identity: u64,
    /// `pod/NAMESPACE/NAME`, `node/NAME` or `gateway`.
    pub name: String,
}

/// What an [`Endpoint`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// A pod: what it sends out of the cluster is masqueraded.
    Pod,
    /// The node's own address, behind the LOCAL port.
    Node,
    /// An address of the switch itself, behind [`PortId::STACK`].
    Gateway,
}

/// A neighbour that an operator stated (`neigh/add`): it neither ages nor moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Key.
    pub key: AddressKey,
    /// Where it is.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
}
