//! Policies, resolved: their rules as the switch has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{Block, GroupId, Peers, PortMatch, PortName, Ports, Proto, Rule};
use ipnet::IpNet;

use super::{PolicyKey, Way};
use crate::cluster::model::{
    ClusterPolicy, Named, Namespaces, NetworkPolicy, Node, PodSelector, PolicyPeer, PolicyPort, PolicyPorts,
    PolicyRule, Selector, Text, Tier,
};

/// A policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Of a namespace.
    Network(Arc<NetworkPolicy>),
    /// Of the cluster.
    Cluster(Arc<ClusterPolicy>),
}

/// A policy, and what was made of it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) source: Source,
    pub(super) subjects: PodSelector,
    /// By direction; `None` where it decides nothing.
    pub(super) rules: [Option<Vec<Arc<Rule>>>; 2],
}

/// Numbers of what rules name.
pub(super) trait Resolve {
    /// The group that a selector selects.
    fn group(&mut self, selector: &PodSelector) -> GroupId;
    /// The number of a name of container ports.
    fn port_name(&mut self, name: &Text) -> PortName;
}

impl Source {
    pub(crate) fn key(&self) -> PolicyKey {
        match self {
            Self::Network(policy) => PolicyKey::Network(policy.id.clone()),
            Self::Cluster(policy) => match policy.tier {
                Tier::Admin => PolicyKey::Admin(policy.priority, policy.name.clone()),
                Tier::Baseline => PolicyKey::Baseline(policy.priority, policy.name.clone()),
            },
        }
    }

    /// Its pods. A NetworkPolicy selects none of another namespace (rule N25).
    pub(super) fn subjects(&self) -> PodSelector {
        match self {
            Self::Network(policy) => {
                PodSelector { namespaces: Namespaces::Own(policy.id.namespace.clone()), pods: policy.subjects.clone() }
            }
            Self::Cluster(policy) => policy.subjects.clone(),
        }
    }

    /// Its rules of a direction. A ClusterNetworkPolicy without any decides nothing; a NetworkPolicy isolates (rule N7).
    pub(crate) fn rules(&self, way: Way) -> Option<&[PolicyRule]> {
        match (self, way) {
            (Self::Network(policy), Way::Ingress) => policy.ingress.as_deref(),
            (Self::Network(policy), Way::Egress) => policy.egress.as_deref(),
            (Self::Cluster(policy), Way::Ingress) => Some(&policy.ingress[..]).filter(|rules| !rules.is_empty()),
            (Self::Cluster(policy), Way::Egress) => Some(&policy.egress[..]).filter(|rules| !rules.is_empty()),
        }
    }

    /// As [`Rule::policy`] has it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Network(policy) => {
                let Named { namespace, name } = &policy.id;
                format!("networkpolicy {namespace}/{name}")
            }
            Self::Cluster(policy) => format!("clusternetworkpolicy {}", policy.name),
        }
    }

    fn all_rules(&self) -> impl Iterator<Item = &PolicyRule> {
        Way::BOTH.into_iter().filter_map(|way| self.rules(way)).flatten()
    }

    fn all_peers(&self) -> impl Iterator<Item = &PolicyPeer> {
        self.all_rules().filter_map(|rule| rule.peers.as_deref()).flatten()
    }

    /// Every selector of its peers, as often as it is there.
    pub(super) fn peer_selectors(&self) -> impl Iterator<Item = &PodSelector> {
        self.all_peers().filter_map(|peer| match peer {
            PolicyPeer::Pods(selector) => Some(selector),
            _ => None,
        })
    }

    /// Every name of ports in its rules, as often as it is there.
    pub(super) fn port_names(&self) -> impl Iterator<Item = &Text> {
        let ports = self.all_rules().filter_map(|rule| rule.ports.as_deref()).flatten();
        ports.filter_map(|port| match &port.ports {
            PolicyPorts::Named(name) => Some(name),
            PolicyPorts::Range(..) => None,
        })
    }

    /// Some rule of it is about nodes.
    pub(super) fn looks_at_nodes(&self) -> bool {
        self.all_peers().any(|peer| matches!(peer, PolicyPeer::Nodes(_)))
    }
}

impl Compiled {
    pub(super) fn new(source: Source, nodes: &BTreeMap<Text, Arc<Node>>, resolve: &mut impl Resolve) -> Self {
        let policy: Arc<str> = source.name().into();
        let rules = Way::BOTH.map(|way| {
            let rules = source.rules(way)?.iter().zip(0..);
            let rules = rules.map(|(rule, index)| Arc::new(compile(rule, index, &policy, nodes, resolve)));
            Some(rules.collect())
        });
        Self { subjects: source.subjects(), source, rules }
    }

    pub(super) fn rules(&self, way: Way) -> Option<&[Arc<Rule>]> {
        let [ingress, egress] = &self.rules;
        match way {
            Way::Ingress => ingress.as_deref(),
            Way::Egress => egress.as_deref(),
        }
    }
}

fn compile(
    rule: &PolicyRule,
    index: u32,
    policy: &Arc<str>,
    nodes: &BTreeMap<Text, Arc<Node>>,
    resolve: &mut impl Resolve,
) -> Rule {
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    for peer in rule.peers.iter().flatten() {
        match peer {
            PolicyPeer::Pods(selector) => groups.push(resolve.group(selector)),
            PolicyPeer::Block { cidr, except } => {
                blocks.push(Block { cidr: cidr.trunc(), except: except.iter().map(IpNet::trunc).collect() });
            }
            PolicyPeer::Nodes(selector) => blocks.extend(addresses(nodes, selector).map(host)),
        }
    }
    groups.sort_unstable();
    groups.dedup();
    let peers = Peers { any: rule.peers.is_none(), groups: groups.into(), blocks: blocks.into() };
    let ports = rule.ports.as_ref().map(|ports| ports.iter().flat_map(|port| matches(port, resolve)).collect());
    Rule { action: rule.action, policy: policy.clone(), index, peers, ports }
}

/// Addresses of the nodes that a selector selects.
fn addresses(nodes: &BTreeMap<Text, Arc<Node>>, selector: &Selector) -> impl Iterator<Item = IpAddr> {
    nodes.values().filter(|node| selector.selects(&node.labels)).flat_map(|node| node.all_addresses())
}

fn host(address: IpAddr) -> Block {
    Block { cidr: address.into(), except: [].into() }
}

fn matches(port: &PolicyPort, resolve: &mut impl Resolve) -> Vec<PortMatch> {
    let ports = match &port.ports {
        PolicyPorts::Range(first, last) => Ports::Range(*first, *last),
        PolicyPorts::Named(name) => Ports::Named(resolve.port_name(name)),
    };
    let every = [Proto::Tcp, Proto::Udp, Proto::Sctp];
    let protocols = every.into_iter().filter(|proto| port.proto.is_none_or(|wanted| wanted == *proto));
    protocols.map(|proto| PortMatch { proto, ports }).collect()
}
