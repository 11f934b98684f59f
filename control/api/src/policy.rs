//! Network policy, resolved: which pods are in which groups, which rules decide for whom, and who may speak from a port.
//!
//! Selectors, labels and names stay with who resolves them. What a switch is told is small, so that a change touches only
//! whom it concerns: a label that changes is one [`Subject`] with other groups; the rules that name a group are not
//! touched by who is in it.
//!
//! ```text
//!   Subject 10.1.0.5 (pod/shop/web-0): groups 4, 9        ingress → Ruleset 7: 1. accept groups 9, tcp 8080
//!   Subject 10.1.0.6 (pod/shop/db-0):  groups 4, 11       egress  → none              otherwise deny
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AddressKey, BridgeId, MacAddr, PortId, Proto};

/// Number of a group: the pods that one selector of a rule's peers selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u32);

/// Number of a [`Ruleset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RulesetId(pub u32);

/// Number of a name of container ports that some rule uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortName(pub u32);

/// A pod of the cluster at one of its addresses, attached here or not. Pods of the host network are none, nor are those
/// that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Key.
    pub key: AddressKey,
    /// `pod/NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// Tells pods apart: the addresses of one pod have the same, and it is that of its [`crate::Endpoint`]s.
    pub identity: u64,
    /// Where it is attached; `None` when it is not attached here: then its rules are enforced where it is.
    pub port: Option<PortId>,
    /// The groups that it is in, in order.
    pub groups: Arc<[GroupId]>,
    /// Its container ports that have a name which some rule uses.
    pub ports: Arc<[NamedPort]>,
    /// What decides on connections to it; without any they are let through.
    pub ingress: Option<RulesetId>,
    /// What decides on connections from it; without any they are let through.
    pub egress: Option<RulesetId>,
}

/// A container port with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// The name.
    pub name: PortName,
    /// Its protocol.
    pub proto: Proto,
    /// Its number.
    pub port: u16,
}

/// Rules in the order in which they are asked; the first that matches decides. Shared by all subjects to which the same
/// policies apply in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Key.
    pub id: RulesetId,
    /// The rules: those of tier Admin, then those of NetworkPolicies or, where none of them selects, of tier Baseline.
    pub rules: Arc<[Arc<Rule>]>,
    /// How many of them are of tier Admin.
    pub admin: u32,
    /// NetworkPolicies select: the rules behind tier Admin are theirs, and `otherwise` is [`Action::Deny`]. What a pod sends
    /// to itself (by way of a service) passes in spite of them.
    pub isolates: bool,
    /// What decides when no rule does, for people: `NS/NAME` of the policies that isolate, or `default`. What it decides is
    /// deny where `isolates`, else accept.
    pub otherwise: Arc<str>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What becomes of a connection that it matches.
    pub action: Action,
    /// The policy: `networkpolicy NS/NAME` or `clusternetworkpolicy NAME`.
    pub policy: Arc<str>,
    /// Its place in the policy's list of that direction, from 0.
    pub index: u32,
    /// The other end.
    pub peers: Peers,
    /// The destination's protocol and port, any of these; any protocol, with ports or without, when `None`.
    pub ports: Option<Arc<[PortMatch]>>,
}

/// What a [`Rule`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Let it through, and its answers.
    Accept,
    /// Do not.
    Deny,
    /// Leave the tier: go on behind it.
    Pass,
}

/// The other end of a connection: matched by any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Everybody, be it a pod or not.
    pub any: bool,
    /// Pods of these groups, in order.
    pub groups: Arc<[GroupId]>,
    /// These addresses, be they pods' or not.
    pub blocks: Arc<[Block]>,
}

/// A prefix without some of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The prefix; host bits are zero.
    pub cidr: IpNet,
    /// What is not in it; each within `cidr`.
    pub except: Arc<[IpNet]>,
}

/// A protocol and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMatch {
    /// The protocol.
    pub proto: Proto,
    /// The ports.
    pub ports: Ports,
}

/// Destination ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// First and last; 0 and 65535 for all.
    Range(u16, u16),
    /// The container port of this name, of the destination pod. It is nothing where the destination is no pod, or is matched
    /// as an address.
    Named(PortName),
}

/// Who may speak from a port that is a pod's, and whether anybody but the node may hear it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Key: the port.
    pub port: PortId,
    /// Its bridge.
    pub bridge: BridgeId,
    /// `pod/NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// The pod's Ethernet address.
    pub mac: MacAddr,
    /// The pod's addresses.
    pub addresses: Arc<[IpAddr]>,
    /// It sends from that Ethernet address and from these addresses only, ARP and ND included.
    pub spoof: bool,
    /// IP traffic to groups reaches it (ND and MLD always do); not where a policy isolates it.
    pub groups: bool,
    /// The port behind which the node is, which reaches it whatever its rules say.
    pub local: Option<PortId>,
    /// Why nothing passes but to and from the node; `None` when its policies are known.
    pub isolated: Option<Arc<str>>,
}
