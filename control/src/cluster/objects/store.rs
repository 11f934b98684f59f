//! Objects by source, and which of them are in force.
//!
//! One object may be said in several places: applied by hand, and in files of the manifests directory. In force is what was
//! applied, else what the first file says, by name. The others wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::check::{Checked, fault};
use super::kind::Kind;
use super::taken::Taken;
use super::{Object, Texts};
use crate::cluster::endpointslices::{Controller, set_slice};
use crate::cluster::model::{Changed, Named, Objects, Pod, Service, ServiceKind, Text};

/// Name of an object, with its kind.
pub(crate) type Key = Changed;

/// Who says what an object is. In order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// `vsctl apply`.
    Applied,
    /// A file of the manifests directory, by name.
    File(Text),
}

/// What an object came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Created,
    Configured,
    Unchanged,
}

/// An object as one source says it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    source: Source,
    object: Object,
    /// The original, as compact JSON.
    text: Box<str>,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) texts: Texts,
    objects: Objects,
    /// Versions of each object, the one in force first.
    versions: BTreeMap<Key, Vec<Version>>,
    taken: Taken,
    /// Pods of the host network that have the addresses of their node, by node.
    hosted: BTreeMap<Text, BTreeSet<Named>>,
    /// Addresses that pods were given when they were attached here: no API server knows them better.
    given: BTreeMap<Named, Vec<IpAddr>>,
    controller: Controller,
    changed: BTreeSet<Changed>,
    /// Octets of what was applied.
    applied: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("vsctl apply"),
            Self::File(name) => f.write_str(name),
        }
    }
}

impl Store {
    /// Objects in force.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The original of an object in force; `None` for one that was made here.
    pub(crate) fn text(&self, key: &Key) -> Option<&str> {
        self.versions.get(key).and_then(|versions| versions.first()).map(|version| &*version.text)
    }

    /// Who says the object that is in force.
    pub(crate) fn source(&self, key: &Key) -> Option<&Source> {
        self.versions.get(key).and_then(|versions| versions.first()).map(|version| &version.source)
    }

    /// What was applied: originals, in the order of kinds and names.
    pub(crate) fn applied(&self) -> impl Iterator<Item = &str> {
        let of = |versions: &Vec<Version>| versions.iter().position(|version| version.source == Source::Applied);
        self.versions.values().filter_map(move |versions| versions.get(of(versions)?).map(|version| &*version.text))
    }

    /// Octets of what was applied.
    pub(crate) fn applied_size(&self) -> usize {
        self.applied
    }

    /// What changed since this was asked last. Slices for services without any are made now.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Changed> {
        let mut changed = std::mem::take(&mut self.changed);
        self.controller.update(&mut self.objects, &mut changed, &mut self.texts);
        changed
    }

    /// Whether an object may come into force beside the others, in place of what is there under its name.
    ///
    /// # Errors
    /// Field, value, rule.
    pub(crate) fn check(&self, object: &Object, source: &Source) -> Checked<()> {
        let waits = self.source(&object.key()).is_some_and(|first| first < source);
        if waits {
            return Ok(());
        }
        if let Object::Service(new) = object
            && let Some(old) = self.objects.services.get(&new.id)
        {
            same_address(old, new)?;
        }
        self.taken.check(object)
    }

    /// Take what a source says of an object, which passed [`Self::check`]. Returns what became of it, and what the source
    /// said before.
    pub(crate) fn put(&mut self, object: Object, text: Box<str>, source: &Source) -> (Done, Option<Version>) {
        let key = object.key();
        let versions = self.versions.entry(key.clone()).or_default();
        let was_known = !versions.is_empty();
        let version = Version { source: source.clone(), object, text };
        let before = match versions.binary_search_by(|version| version.source.cmp(source)) {
            Ok(at) => versions.get_mut(at).map(|old| std::mem::replace(old, version)),
            Err(at) => {
                if let Some(other) = versions.first() {
                    let (first, second) = if at == 0 { (source, &other.source) } else { (&other.source, source) };
                    tracing::info!("{}: said by {first} and by {second}: the former is in force", told(&key));
                }
                versions.insert(at, version);
                None
            }
        };
        let new = versions.iter().find(|version| version.source == *source);
        let done = match (&before, new) {
            (Some(old), Some(new)) if old.text == new.text => Done::Unchanged,
            _ if was_known => Done::Configured,
            _ => Done::Created,
        };
        if *source == Source::Applied {
            let old = before.as_ref().map_or(0, |version| version.text.len());
            self.applied = (self.applied + new.map_or(0, |version| version.text.len())).saturating_sub(old);
        }
        self.settle(&key);
        (done, before)
    }

    /// Forget what a source says of an object. Returns what it was.
    pub(crate) fn remove(&mut self, key: &Key, source: &Source) -> Option<Version> {
        let versions = self.versions.get_mut(key)?;
        let at = versions.iter().position(|version| version.source == *source)?;
        let removed = versions.remove(at);
        if removed.source == Source::Applied {
            self.applied = self.applied.saturating_sub(removed.text.len());
        }
        // The next comes into force, if there is room for it.
        while let Some(next) = self.versions.get(key).and_then(|versions| versions.first()) {
            let (own, object, source) = (self.in_force(key), next.object.clone(), next.source.clone());
            if own.as_ref() == Some(&object) {
                break;
            }
            match self.taken.check(&object) {
                Ok(()) => {
                    tracing::info!("{}: in force as {source} says", told(key));
                    break;
                }
                Err(why) => {
                    tracing::warn!("{source}: {}: {why}", told(key));
                    self.versions.get_mut(key).map(|versions| versions.remove(0));
                }
            }
        }
        if self.versions.get(key).is_some_and(Vec::is_empty) {
            self.versions.remove(key);
        }
        self.settle(key);
        Some(removed)
    }

    /// Take back what [`Self::put`] or [`Self::remove`] did, in the reverse order.
    pub(crate) fn restore(&mut self, key: &Key, before: Option<Version>, source: &Source) {
        match before {
            Some(Version { object, text, source }) => drop(self.put(object, text, &source)),
            None => drop(self.remove(key, source)),
        }
    }

    /// Bring the first version of an object into force.
    fn settle(&mut self, key: &Key) {
        let version = self.versions.get(key).and_then(|versions| versions.first());
        let object = version.map(|version| version.object.clone());
        self.set(key, object);
        if let Changed::Node(node) = key {
            for pod in self.hosted.get(node).cloned().unwrap_or_default() {
                self.settle(&Changed::Pod(pod));
            }
        }
    }

    fn set(&mut self, key: &Key, object: Option<Object>) {
        let object = match object {
            Some(Object::Pod(pod)) => {
                let hosted = self.hosted(pod);
                Some(Object::Pod(self.given(hosted)))
            }
            object => {
                if let (Changed::Pod(id), Some(Object::Pod(old))) = (key, self.in_force(key))
                    && let Some(node) = &old.node
                    && let Some(pods) = self.hosted.get_mut(node)
                {
                    pods.remove(id);
                }
                object
            }
        };
        let old = self.in_force(key);
        if old == object {
            return;
        }
        if let Some(old) = &old {
            self.taken.remove(old);
        }
        if let Some(new) = &object {
            self.taken.add(new);
        }
        put_or_remove(&mut self.objects, key, object);
        self.changed.insert(key.clone());
    }

    /// Pods are attached here, with these addresses, and no others.
    pub(crate) fn observe(&mut self, given: BTreeMap<Named, Vec<IpAddr>>) {
        if self.given == given {
            return;
        }
        let before = std::mem::replace(&mut self.given, given);
        let all: BTreeSet<Named> = before.keys().chain(self.given.keys()).cloned().collect();
        for id in all {
            if before.get(&id) != self.given.get(&id) {
                self.settle(&Changed::Pod(id));
            }
        }
    }

    /// A pod that is attached here has the addresses that it was given, whatever its object says, or does not say yet.
    fn given(&self, pod: Arc<Pod>) -> Arc<Pod> {
        match self.given.get(&pod.id) {
            Some(given) if !pod.host_network && !pod.finished && pod.addresses != *given => {
                Arc::new(Pod { addresses: given.clone(), ..(*pod).clone() })
            }
            _ => pod,
        }
    }

    /// A pod of the host network that does not say its addresses has those of its node.
    fn hosted(&mut self, pod: Arc<Pod>) -> Arc<Pod> {
        let (true, true, Some(node)) = (pod.host_network, pod.addresses.is_empty(), &pod.node) else { return pod };
        self.hosted.entry(node.clone()).or_default().insert(pod.id.clone());
        match self.objects.nodes.get(node) {
            Some(node) => Arc::new(Pod { addresses: first_of_each_family(&node.addresses), ..(*pod).clone() }),
            None => pod,
        }
    }

    fn in_force(&self, key: &Key) -> Option<Object> {
        let objects = &self.objects;
        match key {
            Changed::Node(name) => objects.nodes.get(name).cloned().map(Object::Node),
            Changed::Namespace(name) => {
                objects.namespaces.get(name).map(|labels| Object::Namespace(name.clone(), labels.clone()))
            }
            Changed::Pod(id) => objects.pods.get(id).cloned().map(Object::Pod),
            Changed::Service(id) => objects.services.get(id).cloned().map(Object::Service),
            Changed::Slice(id) => objects.slices.get(id).cloned().map(Object::Slice),
            Changed::ServiceCidr(name) => objects.service_cidrs.get(name).cloned().map(Object::Cidrs),
            Changed::Policy(id) => objects.policies.get(id).cloned().map(Object::Policy),
            Changed::ClusterPolicy(name) => objects.cluster_policies.get(name).cloned().map(Object::ClusterPolicy),
        }
    }
}

fn put_or_remove(objects: &mut Objects, key: &Key, object: Option<Object>) {
    match (key, object) {
        (_, Some(Object::Node(node))) => drop(objects.nodes.insert(node.name.clone(), node)),
        (_, Some(Object::Namespace(name, labels))) => drop(objects.namespaces.insert(name, labels)),
        (_, Some(Object::Pod(pod))) => drop(objects.pods.insert(pod.id.clone(), pod)),
        (_, Some(Object::Service(service))) => drop(objects.services.insert(service.id.clone(), service)),
        (_, Some(Object::Slice(slice))) => set_slice(objects, &slice.id.clone(), Some(slice)),
        (_, Some(Object::Cidrs(cidrs))) => drop(objects.service_cidrs.insert(cidrs.name.clone(), cidrs)),
        (_, Some(Object::Policy(policy))) => drop(objects.policies.insert(policy.id.clone(), policy)),
        (_, Some(Object::ClusterPolicy(policy))) => drop(objects.cluster_policies.insert(policy.name.clone(), policy)),
        (Changed::Node(name), None) => drop(objects.nodes.remove(name)),
        (Changed::Namespace(name), None) => drop(objects.namespaces.remove(name)),
        (Changed::Pod(id), None) => drop(objects.pods.remove(id)),
        (Changed::Service(id), None) => drop(objects.services.remove(id)),
        (Changed::Slice(id), None) => set_slice(objects, id, None),
        (Changed::ServiceCidr(name), None) => drop(objects.service_cidrs.remove(name)),
        (Changed::Policy(id), None) => drop(objects.policies.remove(id)),
        (Changed::ClusterPolicy(name), None) => drop(objects.cluster_policies.remove(name)),
    }
}

/// Rule S6: the first address stays as long as the service has one to keep.
fn same_address(old: &Service, new: &Service) -> Checked<()> {
    if [old.kind, new.kind].contains(&ServiceKind::ExternalName) {
        return Ok(());
    }
    let first = |service: &Service| service.cluster_ips.first().map_or_else(|| "None".to_owned(), ToString::to_string);
    let (was, is) = (first(old), first(new));
    if was == is { Ok(()) } else { Err(fault("spec.clusterIP", is, &format!("may not change: it is {was}"))) }
}

fn first_of_each_family(addresses: &[std::net::IpAddr]) -> Vec<std::net::IpAddr> {
    let first = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    let v4_first = addresses.first().is_none_or(|address| address.is_ipv4());
    [first(v4_first), first(!v4_first)].into_iter().flatten().collect()
}

/// An object as logs name it.
pub(crate) fn told(key: &Key) -> String {
    let (kind, namespace, name) = parts(key);
    super::decode::label_of(kind.def(), namespace, name)
}

/// Kind, namespace (empty when it is in none) and name.
pub(crate) fn parts(key: &Key) -> (Kind, &str, &str) {
    match key {
        Changed::Node(name) => (Kind::Node, "", name),
        Changed::Namespace(name) => (Kind::Namespace, "", name),
        Changed::Pod(id) => (Kind::Pod, &id.namespace, &id.name),
        Changed::Service(id) => (Kind::Service, &id.namespace, &id.name),
        Changed::Slice(id) => (Kind::EndpointSlice, &id.namespace, &id.name),
        Changed::ServiceCidr(name) => (Kind::ServiceCidr, "", name),
        Changed::Policy(id) => (Kind::NetworkPolicy, &id.namespace, &id.name),
        Changed::ClusterPolicy(name) => (Kind::ClusterNetworkPolicy, "", name),
    }
}
