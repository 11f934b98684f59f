//! Access lists of operators: ordered rules on a bridge or a port.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{BridgeId, PortId};

pub mod text;

/// Key of an [`Acl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AclKey {
    /// Where it is asked.
    pub at: AclPlace,
    /// For what goes which way.
    pub way: AclWay,
}

/// Where an [`Acl`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclPlace {
    /// At each port of a bridge.
    Bridge(BridgeId),
    /// At this port, behind the list of its bridge.
    Port(PortId),
}

/// Which way frames go, as OVN says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclWay {
    /// `from-lport`: into the switch.
    #[serde(rename = "from-lport")]
    FromPort,
    /// `to-lport`: out of the switch.
    #[serde(rename = "to-lport")]
    ToPort,
}

/// An access list: the rule of the highest priority that matches decides; of equal ones the first. What no rule matches
/// passes. If one of its rules is [`AclAction::AllowRelated`], packets of connections that were let through pass unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Key.
    pub key: AclKey,
    /// In the order in which they are asked.
    pub rules: Arc<[AclRule]>,
}

/// A rule of an [`Acl`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRule {
    /// 0 to 32767, the highest first.
    pub priority: u16,
    /// What it is about.
    pub matches: AclMatch,
    /// What becomes of it.
    pub action: AclAction,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclAction {
    /// It passes.
    Allow,
    /// It passes, and so does all of its connection from now on, both ways.
    AllowRelated,
    /// It is dropped.
    Drop,
    /// It is dropped, and its sender is told: TCP RST, else ICMP port unreachable.
    Reject,
}

/// Facts of a packet; those that are `None` do not matter. An empty match is of every IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclMatch {
    /// IPv4 (4) or IPv6 (6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u8>,
    /// Source; host bits are zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpNet>,
    /// Destination; host bits are zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpNet>,
    /// IP protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// First and last source port, of TCP, UDP and SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<(u16, u16)>,
    /// First and last destination port, of TCP, UDP and SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<(u16, u16)>,
    /// TCP flags (RFC 9293, 3.1): values and which of them matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<(u16, u16)>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
}
