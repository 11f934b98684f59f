//! Policies made by hand, and what the nouns say of a connection, evaluated in the plainest way.

use std::net::IpAddr;

use api::{Action, Block, PortMatch, Ports, Proto, Rule, Subject};

use super::*;
use crate::cluster::model::{PolicyPeer, PolicyPort, PolicyPorts, PolicyRule, Requirement, Selector, Test, Tier};
use crate::fake::FakeSwitch;

/// `KEY=VALUE,…`
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// Requirements with commas between them: `KEY=VALUE`, `KEY in A|B`, `KEY notin A|B`, `KEY`, `!KEY`.
pub(crate) fn selector(text: &str) -> Selector {
    let list = |values: &str| {
        let mut values: Vec<Text> = values.split('|').map(Into::into).collect();
        values.sort();
        values
    };
    let requirement = |text: &str| {
        let (key, test) = if let Some((key, values)) = text.split_once(" in ") {
            (key, Test::In(list(values)))
        } else if let Some((key, values)) = text.split_once(" notin ") {
            (key, Test::NotIn(list(values)))
        } else if let Some((key, value)) = text.split_once('=') {
            (key, Test::In(vec![value.into()]))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Test::DoesNotExist)
        } else {
            (text, Test::Exists)
        };
        Requirement { key: key.into(), test }
    };
    let mut requirements: Vec<_> = text.split(',').filter(|text| !text.is_empty()).map(requirement).collect();
    requirements.sort();
    Selector(requirements)
}

/// A NetworkPolicy of namespace `default` that selects pods and decides nothing yet.
pub(crate) fn policy(name: &str, subjects: &str) -> NetworkPolicy {
    let id = Named { namespace: "default".into(), name: name.into() };
    NetworkPolicy { id, subjects: selector(subjects), ingress: None, egress: None }
}

/// A ClusterNetworkPolicy of all pods without rules.
pub(crate) fn cluster_policy(name: &str, tier: Tier, priority: u16) -> ClusterPolicy {
    let subjects = PodSelector { namespaces: Namespaces::With(selector("")), pods: selector("") };
    ClusterPolicy { name: name.into(), tier, priority, subjects, ingress: Vec::new(), egress: Vec::new() }
}

/// A rule that accepts; any peer, any port when there is none.
pub(crate) fn rule(peers: &[PolicyPeer], ports: &[PolicyPort]) -> PolicyRule {
    let peers = (!peers.is_empty()).then(|| peers.to_vec());
    let ports = (!ports.is_empty()).then(|| ports.to_vec());
    PolicyRule { action: Action::Accept, name: "".into(), peers, ports }
}

pub(crate) fn pods(text: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodSelector { namespaces: Namespaces::Own("default".into()), pods: selector(text) })
}

pub(crate) fn pods_of(namespaces: &str, text: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodSelector { namespaces: Namespaces::With(selector(namespaces)), pods: selector(text) })
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    PolicyPeer::Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|except| except.parse().unwrap()).collect(),
    }
}

pub(crate) fn ports(proto: Proto, first: u16, last: u16) -> PolicyPort {
    PolicyPort { proto: Some(proto), ports: PolicyPorts::Range(first, last) }
}

pub(crate) fn port_named(proto: Option<Proto>, name: &str) -> PolicyPort {
    PolicyPort { proto, ports: PolicyPorts::Named(name.into()) }
}

fn within(block: &Block, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
}

/// What a connection has to do with a pod.
struct Asked<'a> {
    peer: IpAddr,
    peer_pod: Option<&'a Subject>,
    to_pod: Option<&'a Subject>,
    proto: Option<Proto>,
    port: u16,
}

impl Asked<'_> {
    fn is_matched(&self, rule: &Rule) -> bool {
        let grouped = |subject: &Subject| rule.peers.groups.iter().any(|group| subject.groups.contains(group));
        let by_group = self.peer_pod.is_some_and(grouped);
        let by_block = rule.peers.blocks.iter().any(|block| within(block, self.peer));
        // A name means nothing where the destination is matched as an address.
        let of_pod = rule.peers.any || by_group;
        let matched = |port: &PortMatch| {
            Some(port.proto) == self.proto
                && match port.ports {
                    Ports::Range(first, last) => (first..=last).contains(&self.port),
                    Ports::Named(name) => {
                        let here = |it: &api::NamedPort| (it.name, it.proto, it.port) == (name, port.proto, self.port);
                        of_pod && self.to_pod.is_some_and(|pod| pod.ports.iter().any(here))
                    }
                }
        };
        (rule.peers.any || by_group || by_block) && rule.ports.as_ref().is_none_or(|ports| ports.iter().any(matched))
    }

    /// What one ruleset says: who decides, and whether it lets through.
    fn decided_by(&self, ruleset: &Ruleset) -> (bool, String) {
        let (admin, mut tier_left) = (ruleset.admin as usize, false);
        for (place, rule) in ruleset.rules.iter().enumerate() {
            if tier_left && place < admin || !self.is_matched(rule) {
                continue;
            }
            let told = format!("{} rule {}", rule.policy, rule.index);
            match rule.action {
                Action::Accept => return (true, told),
                Action::Deny => return (false, told),
                Action::Pass if place < admin => tier_left = true,
                Action::Pass => break,
            }
        }
        (!ruleset.isolates, ruleset.otherwise.to_string())
    }
}

/// What the nouns of a switch say of a connection between two addresses: whether it is let through, and who decided last.
/// Without a protocol it is of one that has no ports.
pub(crate) fn decides(switch: &FakeSwitch, from: &str, to: &str, proto: Option<Proto>, port: u16) -> (bool, String) {
    let [from, to]: [IpAddr; 2] = [from, to].map(|text| text.parse().unwrap());
    let pod = |address: IpAddr| switch.subjects.values().find(|subject| subject.key.address == address);
    let (from_pod, to_pod) = (pod(from), pod(to));
    let ruleset = |id: Option<RulesetId>| id.map(|id| &switch.rulesets[&id]);
    let mut told = (true, "nothing".to_owned());
    let egress = ruleset(from_pod.and_then(|pod| pod.egress)).map(|ruleset| (ruleset, to, to_pod));
    let ingress = ruleset(to_pod.and_then(|pod| pod.ingress)).map(|ruleset| (ruleset, from, from_pod));
    for (ruleset, peer, peer_pod) in [egress, ingress].into_iter().flatten() {
        told = Asked { peer, peer_pod, to_pod, proto, port }.decided_by(ruleset);
        if !told.0 {
            break;
        }
    }
    told
}

impl Policies {
    /// A ruleset without numbers: they tell of what happened before.
    pub(crate) fn canonical(&self, ruleset: &Ruleset) -> String {
        let rule = |rule: &Arc<Rule>| {
            let groups: BTreeSet<String> = rule.peers.groups.iter().map(|group| self.selector_of(*group)).collect();
            let ports = |ports: &Arc<[PortMatch]>| ports.iter().map(|port| self.port_of(port)).collect::<Vec<_>>();
            let (action, peers) = (rule.action, (rule.peers.any, groups, &rule.peers.blocks));
            format!("{action:?} {} {} {peers:?} {:?}", rule.policy, rule.index, rule.ports.as_ref().map(ports))
        };
        let rules: Vec<_> = ruleset.rules.iter().map(rule).collect();
        format!("{} {} {} {rules:?}", ruleset.admin, ruleset.isolates, ruleset.otherwise)
    }

    pub(crate) fn selector_of(&self, group: GroupId) -> String {
        format!("{:?}", self.groups.numbers.thing(group.0).expect("a group that is there"))
    }

    pub(crate) fn name_of(&self, name: PortName) -> Text {
        self.names.numbers.thing(name.0).expect("a name that is used").clone()
    }

    fn port_of(&self, port: &PortMatch) -> String {
        match port.ports {
            Ports::Range(first, last) => format!("{} {first}-{last}", port.proto),
            Ports::Named(name) => format!("{} {}", port.proto, self.name_of(name)),
        }
    }
}
