//! Answers that tell of network policies: all of them, or what decides for one pod.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::table;

/// Answer to `policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Policies {
    /// Every policy, in the order in which they are asked.
    All(Vec<PolicyRow>),
    /// What decides for a pod.
    Pod(PodPolicies),
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// `NAMESPACE/NAME`, or `NAME`.
    pub policy: String,
    /// `Admin` or `Baseline`; none of a NetworkPolicy, which is between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Lower is asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// `ingress`, `egress`: where it decides.
    pub directions: Vec<String>,
    /// How many pods it selects.
    pub pods: u64,
    /// Packets that its rules denied, or its default.
    pub denied: u64,
}

/// What decides for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPolicies {
    /// `pod/NAMESPACE/NAME`.
    pub pod: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Name of the port where it is attached here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Why no policy is about it, or why nothing but the node reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Ingress and egress, unless no policy is about it.
    pub directions: Vec<PodDirection>,
}

/// What decides for a pod in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDirection {
    /// `ingress` or `egress`.
    pub direction: String,
    /// What no rule accepts is denied.
    pub isolated: bool,
    /// What decides when no rule does: `default`, or `default of NS/NAME, …`.
    pub otherwise: String,
    /// The policies that select it and have this direction, in the order in which they are asked.
    pub policies: Vec<PodPolicy>,
    /// What was denied, by what.
    pub denied: Vec<DeniedRow>,
}

/// A policy that selects a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPolicy {
    /// `networkpolicy NS/NAME` or `clusternetworkpolicy NAME`.
    pub policy: String,
    /// Why it is not asked; `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_asked: Option<String>,
    /// Its rules.
    pub rules: Vec<PodRule>,
}

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRule {
    /// Its place in the policy's list.
    pub index: u32,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `accept`, `deny` or `pass`.
    pub action: String,
    /// The other end.
    pub peers: String,
    /// Protocols and ports.
    pub ports: String,
}

/// Packets that were denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedRow {
    /// What denied them.
    pub by: String,
    /// How many.
    pub packets: u64,
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(rows) => table(
                f,
                &["KIND", "POLICY", "TIER", ">PRIORITY", "DIRECTIONS", ">PODS", ">DENIED"],
                rows.iter().map(|row| {
                    let priority = row.priority.map_or_else(|| "-".to_owned(), |priority| priority.to_string());
                    let tier = row.tier.clone().unwrap_or_else(|| "-".to_owned());
                    let directions = if row.directions.is_empty() { "-".to_owned() } else { row.directions.join(",") };
                    let counts = [row.pods, row.denied].map(|count| count.to_string());
                    let mut cells = vec![row.kind.clone(), row.policy.clone(), tier, priority, directions];
                    cells.extend(counts);
                    cells
                }),
            ),
            Self::Pod(pod) => pod.fmt(f),
        }
    }
}

impl fmt::Display for PodPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pod)?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))?;
        match &self.port {
            Some(port) => writeln!(f, ", at port {port}")?,
            None => writeln!(f, ", not attached here")?,
        }
        if let Some(note) = &self.note {
            writeln!(f, "note: {note}")?;
        }
        self.directions.iter().try_for_each(|direction| write!(f, "{direction}"))
    }
}

impl fmt::Display for PodDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preposition = if self.direction == "ingress" { "from" } else { "to" };
        let default = if self.isolated { "deny" } else { "accept" };
        writeln!(f, "{}: {default} what no rule decides ({})", self.direction, self.otherwise)?;
        for policy in &self.policies {
            let not_asked = policy.not_asked.iter().map(|why| format!(", not asked: {why}")).collect::<String>();
            writeln!(f, "  {}{not_asked}", policy.policy)?;
            for rule in &policy.rules {
                let name = if rule.name.is_empty() { String::new() } else { format!(" ({})", rule.name) };
                let PodRule { index, action, peers, ports, .. } = rule;
                writeln!(f, "    rule {index}{name}: {action} {preposition} {peers}, {ports}")?;
            }
        }
        self.denied.iter().try_for_each(|row| writeln!(f, "  denied {} packets: {}", row.packets, row.by))
    }
}
