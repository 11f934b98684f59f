//! Attachments: interfaces of containers on ports of the switch, as the CNI plugin asks for them.
//!
//! ```text
//!   runtime ── ADD ──► vswitch-cni ── Request::Attach ──► vswitchd: port, address, services, policies in force
//!   runtime ◄─ result ─ vswitch-cni ◄── AttachReply ─────
//! ```
//!
//! Plugin and daemon are exchanged at different times: what the plugin says carries [`PROTOCOL`], and a daemon answers one
//! that it does not know by naming those that it does.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{MacAddr, PortId, Proto};

/// Version of the sentences between plugin and daemon.
pub const PROTOCOL: u16 = 1;

/// Names an attachment: CNI's pair of container and interface, within a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentId {
    /// `name` of the network configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// What is asked of an interface that shall be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u16,
    /// What it is called.
    pub id: AttachmentId,
    /// Path of the container's network namespace (`CNI_NETNS`).
    pub netns: String,
    /// The bridge; the cluster's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Kind of the port (`tap`, `afxdp`).
    pub kind: String,
    /// MTU of the interface; what fits when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Ethernet address of the interface; one of the daemon's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Where its addresses come from.
    pub addresses: Addressing,
    /// The pod whose sandbox it is (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`, `K8S_POD_UID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Ports of the node that lead to it (`runtimeConfig.portMappings`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// How much may pass it (`runtimeConfig.bandwidth`).
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
}

/// Where the addresses of an interface come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Addressing {
    /// The daemon gives one out of each of the node's podCIDRs; these ones, where some are wished for
    /// (`runtimeConfig.ips`).
    Daemon {
        /// The wishes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        wanted: Vec<IpAddr>,
    },
    /// An IPAM plugin gave these.
    Given(Interface),
    /// It has none: a bridge without addresses of ours.
    None,
}

/// A pod of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid` of the Pod object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Addresses and routes of an interface inside its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Addresses.
    pub addresses: Vec<Assigned>,
    /// Routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<InterfaceRoute>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assigned {
    /// The address, with the length of its link's prefix.
    pub address: IpNet,
    /// Who leads out of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceRoute {
    /// The destinations.
    pub prefix: IpNet,
    /// By way of whom; on the link when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A port of the node that leads to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// At this address of the node only; at all that serve node ports when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Protocol.
    pub proto: Proto,
    /// Port of the node.
    pub port: u16,
    /// Port of the container.
    pub container: u16,
}

/// How much may pass an interface, seen from its container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// To the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// From the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
}

impl Bandwidth {
    /// Nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bits a second, of Ethernet frames without preamble and checksum.
    pub bits: u64,
    /// Bits that may pass at once.
    pub burst: u64,
}

/// The bandwidth of a port. Key: the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaper {
    /// The port.
    pub port: PortId,
    /// How much may pass it.
    pub bandwidth: Bandwidth,
}

/// What an interface shall be like, to be compared with what it is (CNI's CHECK).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Path of the container's network namespace.
    pub netns: String,
    /// Its Ethernet address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Its MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Addresses and routes that it must have; it may have more.
    pub interface: Interface,
}

/// What an interface was made, or is, like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu: u16,
    /// Addresses and routes.
    pub interface: Interface,
}

/// Why there is no attachment, in the words and numbers of CNI (SPEC.md, "Error").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}")]
pub struct AttachRefusal {
    /// CNI's code, of [`code`].
    pub code: u32,
    /// The thing, the value and the rule.
    pub what: String,
}

/// Codes of CNI's errors (SPEC.md, "Error").
pub mod code {
    /// A field has a value that is not supported.
    pub const UNSUPPORTED: u32 = 2;
    /// No such container: nothing is left of it.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// The network configuration cannot be.
    pub const INVALID_CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// No container can be attached now (STATUS).
    pub const NOT_AVAILABLE: u32 = 50;
    /// What is attached is not as it shall be (CHECK). From 100 on the codes are a plugin's own.
    pub const DIFFERENT: u32 = 100;
    /// The switch could not do it.
    pub const FAILED: u32 = 101;
}

/// Answer to what the plugin asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachReply {
    /// It is there, and in force.
    Attached(Attached),
    /// It is as it shall be.
    Fine,
    /// It is not, and nothing was left behind.
    Refused(AttachRefusal),
}
