//! Routing: the router of a bridge, and where prefixes lead.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{BridgeId, MacAddr, PortId};

/// A bridge with a router is the network of a node: its IP traffic is routed, tracked and translated. Other bridges are
/// plain switches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Key: the bridge.
    pub bridge: BridgeId,
    /// The router's Ethernet address, the same on every port of the bridge; also that of all gateways.
    pub mac: MacAddr,
    /// Its addresses, each with the prefix of the link (the first address of each podCIDR). Each is an
    /// [`crate::Endpoint`] of kind gateway too.
    pub gateways: Vec<IpNet>,
    /// The node's addresses, at most one of each family: what masqueraded traffic comes from. Each is an
    /// [`crate::Endpoint`] of kind node too.
    pub node: Vec<IpAddr>,
    /// The port behind which the outside is; traffic of pods that leaves by it is masqueraded.
    pub uplink: Option<PortId>,
    /// The port behind which the node's own processes are: what comes in there is the node's, whatever it says of itself.
    pub local: Option<PortId>,
    /// First and last source port of masqueraded traffic (`--snat-ports`).
    pub snat_ports: (u16, u16),
}

impl Router {
    /// Source ports of masqueraded traffic unless others are asked for: the dynamic range of RFC 6335, 6.
    pub const SNAT_PORTS: (u16, u16) = (49152, 65535);
}

/// Key of a [`Route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// The bridge whose router it belongs to.
    pub bridge: BridgeId,
    /// The destinations; host bits are zero.
    pub prefix: IpNet,
}

/// Where a prefix leads. The longest prefix wins (RFC 1812, 5.2.4.3); an [`crate::Endpoint`] wins over every route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Key.
    pub key: RouteKey,
    /// Where to.
    pub to: Hop,
    /// Who says so: `node/NAME`, `pod-cidr`, `uplink`, `static`. For people.
    pub origin: String,
}

/// Where a [`Route`] leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "hop")]
pub enum Hop {
    /// The destination is a neighbour on the link of a port.
    OnLink {
        /// The port.
        port: PortId,
    },
    /// By way of a neighbour on the link of a port.
    Via {
        /// The port.
        port: PortId,
        /// The neighbour's address.
        gateway: IpAddr,
    },
    /// To the endpoint of the destination address, and nowhere when there is none (ICMP host unreachable). What a
    /// podCIDR of this node is.
    Endpoint,
    /// Refused with ICMP network unreachable.
    Unreachable,
    /// Dropped by name, without an answer.
    Blackhole,
}
