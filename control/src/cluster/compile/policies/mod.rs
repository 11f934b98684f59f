//! Policies: which pods are in which groups, and which rules decide for them.
//!
//! ```text
//!   peers of rules ─→ groups (one a distinct selector)  ─┐
//!                                                        ├─→ Subject of each pod: its groups, its rulesets
//!   subjects of policies ─→ lists of policies ─→ Ruleset ┘
//! ```
//!
//! Events only note what is to be looked at again; [`Policies::settle`] looks once at each pod and each ruleset that was
//! noted, whatever happened to it. So a first load and a label that changed take the same way.
//!
//! Worked example: pod `shop/web-0` gets label `tier=front`. It alone is looked at: the index finds the one group that
//! asks for `tier=front` and the one policy that selects it; its list of policies is one that `shop/web-1` has already,
//! so one `Change::Subject` follows. When the label goes, so does that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{GroupId, NamedPort, PortName, Ruleset, RulesetId};

use crate::cluster::model::{ClusterPolicy, Labels, Named, Namespaces, NetworkPolicy, Node, Pod, PodSelector, Text};

mod guards;
mod interned;
mod rules;
mod rulesets;
mod selectors;
mod subjects;
#[cfg(test)]
pub(crate) mod tests;

use interned::{Interned, Shared};
pub(crate) use rules::Source;
use rules::{Compiled, Resolve};
use rulesets::Rulesets;
pub(crate) use rulesets::otherwise;
use selectors::Selectors;
pub(super) use subjects::{Holder, identity};

/// A direction, as a pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    Ingress,
    Egress,
}

/// A policy, in the order in which policies are asked: tier Admin by priority, those of namespaces, tier Baseline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PolicyKey {
    /// Priority and name.
    Admin(u16, Text),
    Network(Named),
    /// Priority and name.
    Baseline(u16, Text),
}

/// All that policies are about.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    policies: BTreeMap<PolicyKey, Compiled>,
    /// ClusterNetworkPolicies by name.
    cluster: BTreeMap<Text, PolicyKey>,
    /// Which policies select a pod.
    subjects: Selectors<PolicyKey>,
    groups: Groups,
    names: Names,
    spaces: BTreeMap<Text, Space>,
    pods: BTreeMap<Named, Member>,
    rulesets: Rulesets,
    group_lists: Shared<GroupId>,
    port_lists: Shared<NamedPort>,
    /// Pods to look at again, be they there or not.
    touched: BTreeSet<Named>,
    /// All of them are in `touched`.
    all_touched: bool,
    /// How many pods were looked through to find those to be touched.
    searched: usize,
}

/// Distinct selectors of peers.
#[derive(Debug, Default)]
struct Groups {
    numbers: Interned<PodSelector>,
    members: Selectors<GroupId>,
    /// Selectors of which the group came or went.
    changed: Vec<PodSelector>,
}

/// Names of container ports that rules use.
#[derive(Debug, Default)]
struct Names {
    numbers: Interned<Text>,
    /// Pods that have a port of a name, whether a rule uses it or not.
    pods: HashMap<Text, BTreeSet<Named>, ahash::RandomState>,
    changed: Vec<Text>,
}

/// A namespace, as far as its pods are concerned.
#[derive(Debug)]
struct Space {
    /// With `kubernetes.io/metadata.name`, which is always its name (rule N10).
    labels: Arc<Labels>,
    pods: BTreeSet<Named>,
    /// There is a Namespace object.
    object: bool,
}

/// A pod that is in the network and has not ended.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pod: Arc<Pod>,
    name: Arc<str>,
    groups: Arc<[GroupId]>,
    ports: Arc<[NamedPort]>,
    pub(crate) ingress: Option<RulesetId>,
    pub(crate) egress: Option<RulesetId>,
}

/// What follows from what was noted.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Pods that may be others, or are gone.
    pub(super) pods: BTreeSet<Named>,
    /// Rulesets that changed; `None` for those that went.
    pub(super) rulesets: Vec<(RulesetId, Option<Ruleset>)>,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As Kubernetes spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl PolicyKey {
    /// `NS/NAME` of a policy that isolates.
    pub(crate) fn isolating(&self) -> Option<String> {
        match self {
            Self::Network(Named { namespace, name }) => Some(format!("{namespace}/{name}")),
            Self::Admin(..) | Self::Baseline(..) => None,
        }
    }
}

impl Resolve for (&mut Groups, &mut Names) {
    fn group(&mut self, selector: &PodSelector) -> GroupId {
        let groups = &mut self.0;
        let (number, new) = groups.numbers.acquire(selector);
        let id = GroupId(number);
        if new {
            groups.members.insert(selector, id);
            groups.changed.push(selector.clone());
        }
        id
    }

    fn port_name(&mut self, name: &Text) -> PortName {
        let (number, new) = self.1.numbers.acquire(name);
        if new {
            self.1.changed.push(name.clone());
        }
        PortName(number)
    }
}

impl Policies {
    /// A NetworkPolicy came, changed or went.
    pub(super) fn network(
        &mut self,
        id: &Named,
        policy: Option<&Arc<NetworkPolicy>>,
        nodes: &BTreeMap<Text, Arc<Node>>,
    ) {
        self.replace(&PolicyKey::Network(id.clone()), policy.cloned().map(Source::Network), nodes);
    }

    /// A ClusterNetworkPolicy came, changed or went.
    pub(super) fn cluster(
        &mut self,
        name: &Text,
        policy: Option<&Arc<ClusterPolicy>>,
        nodes: &BTreeMap<Text, Arc<Node>>,
    ) {
        let source = policy.cloned().map(Source::Cluster);
        let key = source.as_ref().map(Source::key);
        let before = match &key {
            Some(key) => self.cluster.insert(name.clone(), key.clone()),
            None => self.cluster.remove(name),
        };
        // The new one first: what both name keeps its number.
        if let Some(key) = &key {
            self.replace(key, source, nodes);
        }
        if let Some(before) = before.filter(|before| Some(before) != key.as_ref()) {
            self.replace(&before, None, nodes);
        }
    }

    /// Nodes changed: rules that are about nodes are made again.
    pub(super) fn nodes(&mut self, nodes: &BTreeMap<Text, Arc<Node>>) {
        let about = self.policies.values().filter(|policy| policy.source.looks_at_nodes());
        let about: Vec<Source> = about.map(|policy| policy.source.clone()).collect();
        for source in about {
            self.replace(&source.key(), Some(source), nodes);
        }
    }

    fn replace(&mut self, key: &PolicyKey, source: Option<Source>, nodes: &BTreeMap<Text, Arc<Node>>) {
        let now = source.map(|source| Compiled::new(source, nodes, &mut (&mut self.groups, &mut self.names)));
        let before = self.policies.remove(key);
        let selects = |policy: &Compiled| (policy.subjects.clone(), Way::BOTH.map(|way| policy.rules(way).is_some()));
        if before.as_ref().map(selects) != now.as_ref().map(selects) {
            if let Some(before) = &before {
                self.subjects.remove(&before.subjects, key);
                self.touch_selected(&before.subjects);
            }
            if let Some(now) = &now {
                self.subjects.insert(&now.subjects, key.clone());
                self.touch_selected(&now.subjects);
            }
        }
        self.rulesets.touch(key);
        if let Some(now) = now {
            self.policies.insert(key.clone(), now);
        }
        let Some(before) = before else { return };
        for selector in before.source.peer_selectors() {
            if let Some(number) = self.groups.numbers.release(selector) {
                self.groups.members.remove(selector, &GroupId(number));
                self.groups.changed.push(selector.clone());
            }
        }
        for name in before.source.port_names() {
            if self.names.numbers.release(name).is_some() {
                self.names.changed.push(name.clone());
            }
        }
    }

    /// A namespace came, changed or went.
    pub(super) fn namespace(&mut self, name: &Text, labels: Option<&Labels>) {
        let pods = self.spaces.remove(name).map(|space| space.pods).unwrap_or_default();
        if labels.is_none() && pods.is_empty() {
            self.groups.members.remove_namespace(name);
            self.subjects.remove_namespace(name);
            return;
        }
        let mut all = labels.cloned().unwrap_or_default();
        all.insert("kubernetes.io/metadata.name".into(), name.clone());
        let space = Space { labels: Arc::new(all), pods, object: labels.is_some() };
        let in_groups = self.groups.members.set_namespace(name, &space.labels);
        if self.subjects.set_namespace(name, &space.labels) || in_groups {
            self.touched.extend(space.pods.iter().cloned());
        }
        self.spaces.insert(name.clone(), space);
    }

    /// A pod came, changed or went.
    pub(super) fn pod(&mut self, id: &Named, pod: Option<&Arc<Pod>>) {
        self.touched.insert(id.clone());
        // Rules N20 and N26.
        let pod = pod.filter(|pod| !pod.host_network && !pod.finished);
        let before = self.pods.get(id).map(|member| member.pod.clone());
        for port in before.iter().flat_map(|pod| &pod.ports) {
            if let Some(pods) = self.names.pods.get_mut(&port.name) {
                pods.remove(id);
                if pods.is_empty() {
                    self.names.pods.remove(&port.name);
                }
            }
        }
        let Some(pod) = pod else { return self.forget(id) };
        for port in &pod.ports {
            self.names.pods.entry(port.name.clone()).or_default().insert(id.clone());
        }
        if let Some(member) = self.pods.get_mut(id) {
            member.pod = pod.clone();
            return;
        }
        if !self.spaces.contains_key(&id.namespace) {
            let labels = Labels::from([("kubernetes.io/metadata.name".into(), id.namespace.clone())]);
            let space = Space { labels: Arc::new(labels), pods: BTreeSet::new(), object: false };
            self.groups.members.set_namespace(&id.namespace, &space.labels);
            self.subjects.set_namespace(&id.namespace, &space.labels);
            self.spaces.insert(id.namespace.clone(), space);
        }
        if let Some(space) = self.spaces.get_mut(&id.namespace) {
            space.pods.insert(id.clone());
        }
        let member = Member {
            pod: pod.clone(),
            name: format!("pod/{}/{}", id.namespace, id.name).into(),
            groups: self.group_lists.of(Vec::new()),
            ports: self.port_lists.of(Vec::new()),
            ingress: None,
            egress: None,
        };
        self.pods.insert(id.clone(), member);
    }

    fn forget(&mut self, id: &Named) {
        let Some(member) = self.pods.remove(id) else { return };
        member.ingress.into_iter().chain(member.egress).for_each(|id| self.rulesets.release(id));
        let Some(space) = self.spaces.get_mut(&id.namespace) else { return };
        space.pods.remove(id);
        if space.pods.is_empty() && !space.object {
            self.namespace(&id.namespace, None);
        }
    }

    /// Look at a pod again.
    pub(super) fn touch(&mut self, id: &Named) {
        self.touched.insert(id.clone());
    }

    /// Look at every pod again.
    pub(super) fn touch_all(&mut self) {
        if !std::mem::replace(&mut self.all_touched, true) {
            self.touched.extend(self.pods.keys().cloned());
        }
    }

    /// Look again at the pods that a selector selects.
    fn touch_selected(&mut self, selector: &PodSelector) {
        if self.all_touched || self.touched.len() >= self.pods.len() {
            // A first load: each is looked at anyway.
            return self.touch_all();
        }
        let spaces: Vec<&Space> = match &selector.namespaces {
            Namespaces::Own(namespace) => self.spaces.get(namespace).into_iter().collect(),
            Namespaces::With(namespaces) => {
                self.spaces.values().filter(|space| namespaces.selects(&space.labels)).collect()
            }
        };
        self.searched += spaces.iter().map(|space| space.pods.len()).sum::<usize>();
        if self.searched > 8 * self.pods.len() {
            // Looking at a pod costs as much as searching it a few times.
            return self.touch_all();
        }
        let selected = |id: &&Named| self.pods.get(id).is_some_and(|member| selector.pods.selects(&member.pod.labels));
        self.touched.extend(spaces.into_iter().flat_map(|space| &space.pods).filter(selected).cloned());
    }

    /// Look at all that was noted.
    pub(super) fn settle(&mut self) -> Settled {
        for selector in std::mem::take(&mut self.groups.changed) {
            self.touch_selected(&selector);
        }
        for name in std::mem::take(&mut self.names.changed) {
            self.touched.extend(self.names.pods.get(&name).into_iter().flatten().cloned());
        }
        let pods = std::mem::take(&mut self.touched);
        pods.iter().for_each(|id| self.look_at(id));
        let rulesets = self.rulesets.settle(&self.policies);
        self.groups.numbers.recycle();
        self.names.numbers.recycle();
        (self.searched, self.all_touched) = (0, false);
        Settled { pods, rulesets }
    }

    fn look_at(&mut self, id: &Named) {
        let Some(member) = self.pods.get(id) else { return };
        let pod = &member.pod;
        let mut groups = self.groups.members.selecting(&id.namespace, &pod.labels);
        groups.sort_unstable();
        let number = |port: &crate::cluster::model::ContainerPort| {
            let name = PortName(self.names.numbers.get(&port.name)?);
            Some(NamedPort { name, proto: port.proto, port: port.port })
        };
        let mut ports: Vec<_> = pod.ports.iter().filter_map(number).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut selecting = self.subjects.selecting(&id.namespace, &pod.labels);
        selecting.sort_unstable();
        let [ingress, egress] = Way::BOTH.map(|way| {
            let list = self.deciding(&selecting, way);
            (!list.is_empty()).then(|| self.rulesets.acquire(&(way, list)))
        });
        let (groups, ports) = (self.group_lists.of(groups), self.port_lists.of(ports));
        let Some(member) = self.pods.get_mut(id) else { return };
        let before = [member.ingress, member.egress];
        (member.groups, member.ports, member.ingress, member.egress) = (groups, ports, ingress, egress);
        before.into_iter().flatten().for_each(|id| self.rulesets.release(id));
    }

    /// Of policies that select a pod, in order, those that decide in a direction: where one of a namespace does, none of
    /// tier Baseline.
    fn deciding(&self, selecting: &[PolicyKey], way: Way) -> Vec<PolicyKey> {
        let decides = |key: &&PolicyKey| self.policies.get(key).is_some_and(|policy| policy.rules(way).is_some());
        let mut list: Vec<_> = selecting.iter().filter(decides).cloned().collect();
        if list.iter().any(|key| matches!(key, PolicyKey::Network(_))) {
            list.retain(|key| !matches!(key, PolicyKey::Baseline(..)));
        }
        list
    }

    /// Each policy, in the order in which they are asked.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&PolicyKey, &Source)> {
        self.policies.iter().map(|(key, policy)| (key, &policy.source))
    }

    /// Pods that policies can be about.
    pub(crate) fn pods(&self) -> &BTreeMap<Named, Member> {
        &self.pods
    }

    /// The policies that select a pod, in the order in which they are asked.
    pub(crate) fn selecting(&self, pod: &Pod) -> Vec<PolicyKey> {
        let mut selecting = self.subjects.selecting(&pod.id.namespace, &pod.labels);
        selecting.sort_unstable();
        selecting
    }

    /// The policies that decide for whoever has a ruleset, in the order in which they are asked.
    pub(crate) fn list(&self, ruleset: RulesetId) -> &[PolicyKey] {
        self.rulesets.policies(ruleset)
    }

    /// A policy.
    pub(crate) fn get(&self, key: &PolicyKey) -> Option<&Source> {
        self.policies.get(key).map(|policy| &policy.source)
    }
}
