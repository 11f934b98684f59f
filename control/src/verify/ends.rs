//! Who may send or receive, and who of them are alike.
//!
//! Proving all pairs of a thousand pods one by one takes too long, and proves little more than a pair of each kind: ends are
//! alike when neither a policy nor a live row tells them apart. A row of one pod that is not as those of its likes makes a
//! kind of its own, and is found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use api::{AddressKey, GroupId, NamedPort, PortId, Proto, RulesetId, Subject};
use ipnet::IpNet;

use super::live::Live;
use super::oracle::{Oracle, Side};
use super::{Entrance, Ground};
use crate::cluster::model::{Node, Pod, Text};

/// One who may send or receive, at one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) address: IpAddr,
    pub(super) who: Who<'a>,
    /// Where its packets come in; `None`: nowhere.
    pub(super) entrance: Option<Entrance>,
    /// Where it is attached.
    pub(super) port: Option<PortId>,
}

/// What an end is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    Pod(&'a Pod),
    /// Another node.
    Node(&'a Node),
    /// Nobody of the cluster.
    Outside,
}

impl<'a> End<'a> {
    pub(super) fn side(&self) -> Side<'a> {
        Side { address: self.address, pod: self.pod() }
    }

    pub(super) fn pod(&self) -> Option<&'a Pod> {
        match self.who {
            Who::Pod(pod) => Some(pod),
            Who::Node(_) | Who::Outside => None,
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self.who {
            Who::Pod(pod) => format!("pod/{}/{} {}", pod.id.namespace, pod.id.name, self.address),
            Who::Node(node) => format!("node/{} {}", node.name, self.address),
            Who::Outside => self.address.to_string(),
        }
    }
}

/// All ends: of living pods, attached here or not; of other nodes; and addresses beyond, on both sides of each border that
/// policies draw. `asked`: addresses that are to be among them, whoever has them.
pub(super) fn ends<'a>(ground: &Ground<'a>, oracle: &Oracle<'a>, asked: &BTreeSet<IpAddr>) -> Vec<End<'a>> {
    let mut ends = Vec::new();
    for pod in ground.pods() {
        let at = ground.attached(pod);
        let entrance = at.or(ground.beyond);
        let port = at.map(|at| at.port);
        ends.extend(pod.addresses.iter().map(|&address| End { address, who: Who::Pod(pod), entrance, port }));
    }
    let families: BTreeSet<bool> = ends.iter().map(|end| end.address.is_ipv4()).collect();
    let others = ground.objects.nodes.values().filter(|node| *node.name != *ground.node);
    let others = others.flat_map(|node| node.all_addresses().map(move |address| (address, Who::Node(node))));
    let mut beyond: BTreeMap<IpAddr, Who<'a>> = others.collect();
    let borders = oracle.prefixes().into_iter().flat_map(|net| {
        [Some(net.network()), Some(net.broadcast()), step(net.network(), false), step(net.broadcast(), true)]
    });
    let nobodys = ["198.18.77.77", "2001:2:0:77::77"].into_iter().filter_map(|text| text.parse().ok());
    for address in borders.flatten().chain(nobodys).chain(asked.iter().copied()) {
        beyond.entry(address).or_insert(Who::Outside);
    }
    let inside: BTreeSet<IpAddr> = ends.iter().map(|end| end.address).collect();
    let wanted = |address: &IpAddr| {
        families.contains(&address.is_ipv4()) && !inside.contains(address) && ground.is_beyond(*address)
    };
    let beyond = beyond.into_iter().filter(|(address, _)| wanted(address));
    ends.extend(beyond.map(|(address, who)| End { address, who, entrance: ground.beyond, port: None }));
    ends
}

/// The address next to another, if there is one.
fn step(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let bits = v4.to_bits();
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

/// What tells ends apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Mark<'a> {
    v4: bool,
    kind: u8,
    attached: bool,
    /// The node of what is not attached here: it is always let through to its pods.
    node: Option<&'a Text>,
    /// One bit a selector.
    selected: Vec<u64>,
    /// One bit a prefix.
    within: Vec<u64>,
    /// Container ports whose name some policy has.
    named: Vec<(&'a Text, Proto, u16)>,
    /// What the switch has of it.
    row: Option<Row<'a>>,
    /// It says that the pod is not to be reached: as if its policies were not known.
    isolated: bool,
}

/// What of a live row is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row<'a> {
    attached: bool,
    groups: &'a [GroupId],
    ports: &'a [NamedPort],
    ingress: Option<RulesetId>,
    egress: Option<RulesetId>,
}

impl<'a> Row<'a> {
    fn of(subject: &'a Subject) -> Self {
        let Subject { port, groups, ports, ingress, egress, .. } = subject;
        Self { attached: port.is_some(), groups, ports, ingress: *ingress, egress: *egress }
    }
}

/// Ends that are alike, and the row that the switch has of each of them.
#[derive(Debug)]
pub(super) struct Class<'a> {
    pub(super) ends: Vec<End<'a>>,
    pub(super) row: Option<&'a Subject>,
    /// The switch lets nobody but the node reach it.
    pub(super) isolated: bool,
}

impl<'a> Class<'a> {
    /// Who stands for all.
    pub(super) fn first(&self) -> Option<End<'a>> {
        self.ends.first().copied()
    }
}

/// Ends by what tells them apart, in an order that does not depend on chance.
pub(super) fn classes<'a>(
    ground: &Ground<'_>,
    oracle: &Oracle<'a>,
    live: &'a Live,
    ends: &[End<'a>],
) -> Vec<Class<'a>> {
    let (selectors, names) = (oracle.selectors(), oracle.port_names());
    let mut prefixes = oracle.prefixes();
    let rules = live.rulesets.values().flat_map(|set| set.rules.iter());
    let blocks = rules.flat_map(|rule| rule.peers.blocks.iter());
    prefixes.extend(blocks.flat_map(|block| block.except.iter().chain([&block.cidr]).map(IpNet::trunc)));
    let prefixes: Vec<IpNet> = prefixes.into_iter().collect();
    // Both addresses of a pod are selected alike.
    let mut selected: HashMap<*const Pod, Vec<u64>> = HashMap::new();
    let mut classes: Vec<Class<'a>> = Vec::new();
    let mut by_mark: HashMap<Mark<'a>, usize> = HashMap::new();
    for end in ends {
        let row = live.subjects.get(&AddressKey { bridge: ground.bridge, address: end.address });
        let pod = end.pod();
        let selected = pod.map_or_else(Vec::new, |pod| {
            let of = || bits(selectors.iter().map(|selector| oracle.is_selected(pod, selector)));
            selected.entry(std::ptr::from_ref(pod)).or_insert_with(of).clone()
        });
        let mut named: Vec<_> = pod.into_iter().flat_map(|pod| &pod.ports).collect();
        named.retain(|port| names.contains(&port.name));
        let mut named: Vec<_> = named.into_iter().map(|port| (&port.name, port.proto, port.port)).collect();
        named.sort();
        let node = match end.who {
            Who::Pod(pod) => pod.node.as_ref().filter(|_| end.port.is_none()),
            Who::Node(node) => Some(&node.name),
            Who::Outside => None,
        };
        let isolated = end.port.and_then(|port| live.guards.get(&port)).is_some_and(|guard| guard.isolated.is_some());
        let mark = Mark {
            v4: end.address.is_ipv4(),
            kind: match end.who {
                Who::Pod(_) => 0,
                Who::Node(_) => 1,
                Who::Outside => 2,
            },
            attached: end.port.is_some(),
            node,
            selected,
            within: bits(prefixes.iter().map(|net| net.contains(&end.address))),
            named,
            row: row.map(Row::of),
            isolated,
        };
        let next = classes.len();
        let at = *by_mark.entry(mark).or_insert(next);
        match classes.get_mut(at) {
            Some(class) => class.ends.push(*end),
            None => classes.push(Class { ends: vec![*end], row, isolated }),
        }
    }
    classes
}

fn bits(all: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut words = Vec::new();
    for (at, bit) in all.enumerate() {
        if at % 64 == 0 {
            words.push(0);
        }
        if let (true, Some(word)) = (bit, words.last_mut()) {
            *word |= 1 << (at % 64);
        }
    }
    words
}
