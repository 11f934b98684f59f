//! What policies say, straight from the objects: who may open a connection to whom.
//!
//! It is written to be read beside the specification (rows N1 to N27, and ClusterNetworkPolicy v1alpha2), not to be fast, and
//! shares nothing with what compiles policies for the switch: a mistake would have to be made twice to go unseen.
//!
//! ```text
//!   tier Admin, by priority: the first rule that matches accepts, denies, or passes the tier
//!   NetworkPolicies: if any selects the pod, one of their rules must match, or it is denied
//!   else tier Baseline, as tier Admin
//!   else it is accepted
//! ```
//!
//! A connection is let through if that is the answer of both ends: egress of the one, ingress of the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::{Action, Proto};
use ipnet::IpNet;

use crate::cluster::model::{
    ClusterPolicy, Labels, Named, Namespaces, Objects, Pod, PodSelector, PolicyPeer, PolicyPort, PolicyPorts,
    PolicyRule, Requirement, Selector, Test, Text, Tier,
};

/// Which way, seen from the pod whose policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    Ingress,
    Egress,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) address: IpAddr,
    /// Whose it is, if it is a pod's: neither of the host network (N20) nor ended (N26).
    pub(super) pod: Option<&'a Pod>,
}

impl Side<'_> {
    /// Both are ends of one pod.
    pub(super) fn is_same_pod(&self, other: &Self) -> bool {
        matches!((self.pod, other.pod), (Some(one), Some(other)) if one.id == other.id)
    }
}

/// The objects, for questions about policies.
#[derive(Debug)]
pub(super) struct Oracle<'a> {
    objects: &'a Objects,
    /// Labels of namespaces, with the one that every namespace has (N10).
    namespaces: BTreeMap<Text, Labels>,
    /// By tier, then priority, then name.
    cluster: Vec<&'a ClusterPolicy>,
}

/// The rules that decide for a pod in one direction, in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Deciding<'a> {
    pub(super) rules: Vec<Asked<'a>>,
    /// NetworkPolicies that select the pod: it is isolated (N1).
    pub(super) isolators: Vec<&'a Named>,
}

/// A rule and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) rule: &'a PolicyRule,
    standing: Standing,
    policy: Policy<'a>,
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Tier(Tier),
    Network,
}

/// Whether the other end is among a rule's peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Met {
    /// As anybody, or as a pod: names of ports mean the pod's.
    by_name: bool,
    /// By its address.
    by_address: bool,
}

impl Met {
    /// In one way or the other.
    pub(super) fn any(self) -> bool {
        self.by_name || self.by_address
    }
}

/// What was decided, and who did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling<'a> {
    pub(super) allow: bool,
    by: By<'a>,
}

#[derive(Clone, Copy, Debug)]
enum By<'a> {
    /// No policy has anything to say.
    Nobody,
    /// The first of the policies that isolate the pod: no rule of theirs matched.
    Isolated(&'a Named),
    /// A pod and itself.
    Itself,
    Rule(Asked<'a>),
}

impl fmt::Display for Ruling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allow { "allow" } else { "deny" };
        match self.by {
            By::Nobody => write!(f, "{verdict}: no policy says otherwise"),
            By::Isolated(policy) => {
                write!(f, "{verdict}: {} isolates, and no rule lets it through", Policy::Network(policy))
            }
            By::Itself => write!(f, "{verdict}: it is the same pod"),
            By::Rule(Asked { policy, index, .. }) => write!(f, "{verdict}: {policy} rule {index}"),
        }
    }
}

/// A policy, by kind.
#[derive(Clone, Copy, Debug)]
enum Policy<'a> {
    Network(&'a Named),
    Cluster(&'a Text),
}

impl fmt::Display for Policy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(Named { namespace, name }) => write!(f, "networkpolicy {namespace}/{name}"),
            Self::Cluster(name) => write!(f, "clusternetworkpolicy {name}"),
        }
    }
}

impl<'a> Oracle<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let named = objects.pods.keys().map(|id| &id.namespace);
        let names: BTreeSet<&Text> = objects.namespaces.keys().chain(named).collect();
        let labels = |name: &Text| {
            let mut labels = objects.namespaces.get(name).cloned().unwrap_or_default();
            labels.insert("kubernetes.io/metadata.name".into(), name.clone());
            (name.clone(), labels)
        };
        let mut cluster: Vec<&ClusterPolicy> = objects.cluster_policies.values().map(AsRef::as_ref).collect();
        cluster.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
        Self { objects, namespaces: names.into_iter().map(labels).collect(), cluster }
    }

    /// The rules that decide for a pod.
    pub(super) fn deciding(&self, pod: &Pod, way: Way) -> Deciding<'a> {
        let mut deciding = Deciding::default();
        for tier in [Tier::Admin, Tier::Baseline] {
            let selecting = self.cluster.iter().filter(|policy| policy.tier == tier);
            for policy in selecting.filter(|policy| self.is_selected(pod, &policy.subjects)) {
                let rules = if way == Way::Ingress { &policy.ingress } else { &policy.egress };
                deciding.add(Standing::Tier(tier), Policy::Cluster(&policy.name), rules);
            }
            if tier == Tier::Baseline {
                break;
            }
            for (id, policy) in &self.objects.policies {
                // N25: of its own namespace. N5: only in the directions that it is of.
                let rules = if way == Way::Ingress { &policy.ingress } else { &policy.egress };
                if let (true, true, Some(rules)) =
                    (id.namespace == pod.id.namespace, has(&pod.labels, &policy.subjects), rules)
                {
                    deciding.isolators.push(id);
                    deciding.add(Standing::Network, Policy::Network(id), rules);
                }
            }
        }
        deciding
    }

    /// Whether a pod is selected (N9).
    pub(super) fn is_selected(&self, pod: &Pod, selector: &PodSelector) -> bool {
        let namespace = &pod.id.namespace;
        let there = match &selector.namespaces {
            Namespaces::Own(own) => own == namespace,
            Namespaces::With(labels) => self.namespaces.get(namespace).is_some_and(|of| has(of, labels)),
        };
        there && has(&pod.labels, &selector.pods)
    }

    /// Which rules have the other end among their peers.
    pub(super) fn met(&self, deciding: &Deciding<'a>, other: &Side<'_>) -> Vec<Met> {
        let met = |asked: &Asked<'_>| {
            // N8: without peers, everybody.
            let Some(peers) = &asked.rule.peers else { return Met { by_name: true, by_address: false } };
            let mut met = Met::default();
            for peer in peers {
                match peer {
                    PolicyPeer::Pods(selector) => {
                        met.by_name |= other.pod.is_some_and(|pod| self.is_selected(pod, selector));
                    }
                    // N14, N15: of any address, be it a pod's.
                    PolicyPeer::Block { cidr, except } => met.by_address |= holds(cidr, except, other.address),
                    PolicyPeer::Nodes(selector) => {
                        let nodes = self.objects.nodes.values().filter(|node| has(&node.labels, selector));
                        met.by_address |= nodes.flat_map(|node| node.all_addresses()).any(|own| own == other.address);
                    }
                }
            }
            met
        };
        deciding.rules.iter().map(met).collect()
    }

    /// What one end's policies say of a connection with an end that `met` is of; `to` is where it goes, `port` its protocol
    /// and port (`None`: a protocol without ports, N21), `itself` that both ends are one pod.
    pub(super) fn judge(
        &self,
        (deciding, way): (&Deciding<'a>, Way),
        met: &[Met],
        (to, port): (&Side<'_>, Option<(Proto, u16)>),
        itself: bool,
    ) -> Ruling<'a> {
        let matching = |standing: Standing| {
            let rules = deciding.rules.iter().zip(met).filter(move |(asked, _)| asked.standing == standing);
            rules.filter(|(asked, met)| is_for(asked.rule, way, **met, to, port)).map(|(asked, _)| *asked)
        };
        let by_tier = |tier: Tier| {
            let first = matching(Standing::Tier(tier)).next()?;
            let allow = match first.rule.action {
                Action::Accept => true,
                Action::Deny => false,
                Action::Pass => return None,
            };
            Some(Ruling { allow, by: By::Rule(first) })
        };
        if let Some(ruling) = by_tier(Tier::Admin) {
            return ruling;
        }
        if let Some(first) = deciding.isolators.first() {
            if itself {
                // N19: no NetworkPolicy keeps a pod from itself.
                return Ruling { allow: true, by: By::Itself };
            }
            // N2, N3: policies and rules only add.
            return match matching(Standing::Network).next() {
                Some(rule) => Ruling { allow: true, by: By::Rule(rule) },
                None => Ruling { allow: false, by: By::Isolated(first) },
            };
        }
        by_tier(Tier::Baseline).unwrap_or(Ruling { allow: true, by: By::Nobody })
    }

    /// Every selector of pods that a policy has for its peers or subjects, each once.
    pub(super) fn selectors(&self) -> Vec<PodSelector> {
        let mut all = BTreeSet::new();
        for (id, policy) in &self.objects.policies {
            all.insert(PodSelector {
                namespaces: Namespaces::Own(id.namespace.clone()),
                pods: policy.subjects.clone(),
            });
        }
        all.extend(self.cluster.iter().map(|policy| policy.subjects.clone()));
        let peers = self.rules().flat_map(|rule| rule.peers.iter().flatten());
        all.extend(peers.filter_map(|peer| match peer {
            PolicyPeer::Pods(selector) => Some(selector.clone()),
            PolicyPeer::Block { .. } | PolicyPeer::Nodes(_) => None,
        }));
        all.into_iter().collect()
    }

    /// Every prefix that a policy names, each once.
    pub(super) fn prefixes(&self) -> BTreeSet<IpNet> {
        let peers = self.rules().flat_map(|rule| rule.peers.iter().flatten());
        let nets = peers.flat_map(|peer| match peer {
            PolicyPeer::Block { cidr, except } => [cidr].into_iter().chain(except).map(IpNet::trunc).collect(),
            PolicyPeer::Nodes(selector) => {
                let nodes = self.objects.nodes.values().filter(|node| has(&node.labels, selector));
                nodes.flat_map(|node| node.all_addresses()).map(IpNet::from).collect()
            }
            PolicyPeer::Pods(_) => Vec::new(),
        });
        nets.collect()
    }

    /// Every name of a port that a policy has.
    pub(super) fn port_names(&self) -> BTreeSet<Text> {
        let ports = self.rules().flat_map(|rule| rule.ports.iter().flatten());
        let name = |port: &PolicyPort| match &port.ports {
            PolicyPorts::Named(name) => Some(name.clone()),
            PolicyPorts::Range(..) => None,
        };
        ports.filter_map(name).collect()
    }

    fn rules(&self) -> impl Iterator<Item = &'a PolicyRule> {
        let network = self.objects.policies.values();
        let network = network.flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
        network.chain(
            self.objects.cluster_policies.values().flat_map(|policy| policy.ingress.iter().chain(&policy.egress)),
        )
    }
}

impl<'a> Deciding<'a> {
    fn add(&mut self, standing: Standing, policy: Policy<'a>, rules: &'a [PolicyRule]) {
        let asked = rules.iter().enumerate().map(|(index, rule)| Asked { rule, standing, policy, index });
        self.rules.extend(asked);
    }

    /// Nothing decides: everything is let through.
    pub(super) fn is_nothing(&self) -> bool {
        self.rules.is_empty() && self.isolators.is_empty()
    }

    /// Of what it is made: equal for pods that the same policies select.
    pub(super) fn made_of(&self) -> Vec<usize> {
        let rules = self.rules.iter().map(|asked| std::ptr::from_ref(asked.rule).addr());
        let isolators = self.isolators.iter().map(|id| std::ptr::from_ref::<Named>(id).addr());
        rules.chain([0]).chain(isolators).collect()
    }
}

/// Whether labels meet a selector (N10).
fn has(labels: &Labels, selector: &Selector) -> bool {
    selector.0.iter().all(|Requirement { key, test }| {
        let value = labels.get(key);
        match test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    })
}

/// Whether an address is in a prefix and in none of its exceptions (N14).
fn holds(cidr: &IpNet, except: &[IpNet], address: IpAddr) -> bool {
    cidr.contains(&address) && !except.iter().any(|part| part.contains(&address))
}

/// Whether a rule is for a connection with an end that was met so.
fn is_for(rule: &PolicyRule, way: Way, met: Met, to: &Side<'_>, port: Option<(Proto, u16)>) -> bool {
    if !met.any() {
        return false;
    }
    let Some(ports) = &rule.ports else { return true };
    // N21: a rule with ports is of protocols with ports.
    let Some((proto, number)) = port else { return false };
    // N12: a name is resolved where the connection goes, and never for who is an address only.
    let resolves = way == Way::Ingress || met.by_name;
    ports.iter().any(|PolicyPort { proto: of, ports }| {
        of.is_none_or(|of| of == proto)
            && match ports {
                PolicyPorts::Range(first, last) => (*first..=*last).contains(&number),
                PolicyPorts::Named(name) => {
                    let named = to.pod.into_iter().filter(|_| resolves).flat_map(|pod| &pod.ports);
                    named.into_iter().any(|port| (&port.name, port.proto, port.port) == (name, proto, number))
                }
            }
    })
}
