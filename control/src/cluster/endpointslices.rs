//! The EndpointSlice controller, for clusters that are described by manifests: a Service with a selector and no
//! EndpointSlice gets its slices from the pods that it selects. As soon as anybody else describes one, ours are gone.
//!
//! What goes into a slice is what the controller of Kubernetes puts there (`pkg/controller/endpointslice`), with two
//! differences. A pod counts even if there is no Node object of its node. And `topology-mode: Auto` makes no hints: they
//! would follow from the CPUs of all nodes of a zone, which nobody states here; those of somebody else's slices count.
//!
//! A change costs what it touches: services are found by one label of their selector, and each knows its pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::model::{
    Changed, Distribution, Family, Hints, Labels, Named, Objects, Pod, Service, ServiceKind, ServicePort, Slice,
    SliceEndpoint, SlicePort, TargetPort, Text,
};
use super::objects::Texts;

/// Endpoints of a slice at most (`--max-endpoints-per-slice` of kube-controller-manager).
const SLICE_LIMIT: usize = 100;

/// Annotations by which a service asks for hints by the sizes of zones (the second is the older). They count more than
/// `trafficDistribution`.
const TOPOLOGY: [&str; 2] = ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];

/// Which pods are whose.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    /// Services with a selector, by namespace and the first label of the selector.
    by_label: HashMap<(Text, Text, Text), BTreeSet<Named>, ahash::RandomState>,
    /// Each service's selector, as it stands in `by_label`.
    selectors: BTreeMap<Named, Labels>,
    /// Names of the pods that a service selects.
    pods_of: BTreeMap<Named, BTreeSet<Text>>,
    /// The services that select a pod.
    services_of: HashMap<Named, Vec<Named>, ahash::RandomState>,
    /// The service of each slice that is not ours.
    theirs: BTreeMap<Named, Named>,
    /// Our slices of each service, and the service of each of our slices.
    made: BTreeMap<Named, BTreeSet<Named>>,
    made_for: BTreeMap<Named, Named>,
    /// The zone of each node that is in one.
    zones: BTreeMap<Text, Text>,
}

/// Put a slice among the objects, or take it away.
pub(super) fn set_slice(objects: &mut Objects, id: &Named, slice: Option<Arc<Slice>>) {
    let service = slice.as_ref().and_then(|slice| slice.service.clone());
    let old = match slice {
        Some(slice) => objects.slices.insert(id.clone(), slice),
        None => objects.slices.remove(id),
    };
    if let Some(service) = old.as_ref().and_then(|old| old.service.as_ref())
        && let Some(slices) = objects.slices_of.get_mut(service)
    {
        slices.remove(id);
        if slices.is_empty() {
            objects.slices_of.remove(service);
        }
    }
    if let Some(service) = service {
        objects.slices_of.entry(service).or_default().insert(id.clone());
    }
}

impl Controller {
    /// Bring our slices up to what `changed` says has changed; slices that change are added to it.
    pub(super) fn update(&mut self, objects: &mut Objects, changed: &mut BTreeSet<Changed>, texts: &mut Texts) {
        let mut services = BTreeSet::new();
        self.reselect(objects, changed);
        for change in changed.iter() {
            match change {
                Changed::Service(id) => drop(services.insert(id.clone())),
                Changed::Pod(id) => self.pod_changed(objects, id, &mut services),
                Changed::Slice(id) => self.slice_changed(objects, id, &mut services),
                Changed::Node(_)
                | Changed::Namespace(_)
                | Changed::ServiceCidr(_)
                | Changed::Policy(_)
                | Changed::ClusterPolicy(_) => {}
            }
        }
        self.nodes_changed(objects, changed, &mut services);
        for service in services {
            self.make(objects, &service, changed, texts);
        }
    }

    /// Services whose selector came, changed or went: find their pods, in one pass over each namespace.
    fn reselect(&mut self, objects: &Objects, changed: &BTreeSet<Changed>) {
        let mut new: BTreeMap<&Text, BTreeSet<&Named>> = BTreeMap::new();
        for change in changed {
            let Changed::Service(id) = change else { continue };
            let selector = objects.services.get(id).and_then(|service| selector(service));
            if self.selectors.get(id) == selector {
                continue;
            }
            self.forget(id);
            if let Some(selector) = selector {
                if let Some(label) = first_label(id, selector) {
                    self.by_label.entry(label).or_default().insert(id.clone());
                }
                self.selectors.insert(id.clone(), selector.clone());
                new.entry(&id.namespace).or_default().insert(id);
            }
        }
        for (namespace, services) in new {
            for pod in objects.pods.range(from(namespace)..).map(|(_, pod)| pod) {
                if pod.id.namespace != *namespace {
                    break;
                }
                for service in self.selecting(pod).into_iter().filter(|service| services.contains(service)) {
                    self.pods_of.entry(service.clone()).or_default().insert(pod.id.name.clone());
                    self.services_of.entry(pod.id.clone()).or_default().push(service);
                }
            }
        }
    }

    fn forget(&mut self, service: &Named) {
        let Some(selector) = self.selectors.remove(service) else { return };
        if let Some(label) = first_label(service, &selector)
            && let Some(services) = self.by_label.get_mut(&label)
        {
            services.remove(service);
            if services.is_empty() {
                self.by_label.remove(&label);
            }
        }
        for name in self.pods_of.remove(service).unwrap_or_default() {
            let pod = Named { namespace: service.namespace.clone(), name };
            if let Some(services) = self.services_of.get_mut(&pod) {
                services.retain(|other| other != service);
                if services.is_empty() {
                    self.services_of.remove(&pod);
                }
            }
        }
    }

    /// Services whose selector a pod meets.
    fn selecting(&self, pod: &Pod) -> Vec<Named> {
        let namespace = &pod.id.namespace;
        let labels = pod.labels.iter().map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let services = labels.filter_map(|label| self.by_label.get(&label)).flatten();
        let meets = |service: &&Named| {
            let selector = self.selectors.get(*service);
            selector.is_some_and(|selector| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
        };
        services.filter(meets).cloned().collect()
    }

    fn pod_changed(&mut self, objects: &Objects, id: &Named, services: &mut BTreeSet<Named>) {
        let before = self.services_of.remove(id).unwrap_or_default();
        for service in &before {
            if let Some(pods) = self.pods_of.get_mut(service) {
                pods.remove(&id.name);
            }
        }
        let now = objects.pods.get(id).map(|pod| self.selecting(pod)).unwrap_or_default();
        for service in &now {
            self.pods_of.entry(service.clone()).or_default().insert(id.name.clone());
        }
        services.extend(before);
        services.extend(now.iter().cloned());
        if !now.is_empty() {
            self.services_of.insert(id.clone(), now);
        }
    }

    /// Nodes that are in another zone now take their pods with them, in one pass over all pods.
    fn nodes_changed(&mut self, objects: &Objects, changed: &BTreeSet<Changed>, services: &mut BTreeSet<Named>) {
        let mut moved = BTreeSet::new();
        for change in changed {
            let Changed::Node(name) = change else { continue };
            let zone = objects.nodes.get(name).and_then(|node| node.zone());
            if self.zones.get(name) == zone {
                continue;
            }
            match zone {
                Some(zone) => self.zones.insert(name.clone(), zone.clone()),
                None => self.zones.remove(name),
            };
            moved.insert(name);
        }
        if moved.is_empty() {
            return;
        }
        let on_moved = |pod: &Pod| pod.node.as_ref().is_some_and(|node| moved.contains(node));
        for (id, _) in objects.pods.iter().filter(|(_, pod)| on_moved(pod)) {
            services.extend(self.services_of.get(id).into_iter().flatten().cloned());
        }
    }

    fn slice_changed(&mut self, objects: &Objects, id: &Named, services: &mut BTreeSet<Named>) {
        services.extend(self.theirs.remove(id));
        // Somebody's slice has the name that ours had.
        services.extend(self.made_for.get(id).cloned());
        let theirs = objects.slices.get(id).filter(|slice| !slice.ours);
        if let Some(service) = theirs.and_then(|slice| slice.service.as_ref()) {
            self.theirs.insert(id.clone(), service.clone());
            services.insert(service.clone());
        }
    }

    /// Make the slices of a service, and remove those that it had and needs no more.
    fn make(&mut self, objects: &mut Objects, id: &Named, changed: &mut BTreeSet<Changed>, texts: &mut Texts) {
        let slices = objects.slices_of.get(id).into_iter().flatten();
        let theirs = slices.filter_map(|slice| objects.slices.get(slice)).any(|slice| !slice.ours);
        let service = objects.services.get(id).filter(|service| !theirs && selector(service).is_some());
        let wanted = service.map(|service| self.slices(objects, service, texts)).unwrap_or_default();
        for old in self.made.remove(id).unwrap_or_default() {
            self.made_for.remove(&old);
            let is_ours = objects.slices.get(&old).is_some_and(|slice| slice.ours);
            if is_ours && !wanted.contains_key(&old) {
                set_slice(objects, &old, None);
                changed.insert(Changed::Slice(old));
            }
        }
        for (name, slice) in wanted {
            self.made.entry(id.clone()).or_default().insert(name.clone());
            self.made_for.insert(name.clone(), id.clone());
            if objects.slices.get(&name).is_none_or(|old| **old != slice) {
                set_slice(objects, &name, Some(Arc::new(slice)));
                changed.insert(Changed::Slice(name));
            }
        }
    }

    /// The slices that a service shall have.
    fn slices(&self, objects: &Objects, service: &Service, texts: &mut Texts) -> BTreeMap<Named, Slice> {
        let names = self.pods_of.get(&service.id).into_iter().flatten();
        let pod = |name: &Text| {
            let id = Named { namespace: service.id.namespace.clone(), name: name.clone() };
            objects.pods.get(&id).filter(|pod| !pod.finished)
        };
        let pods: Vec<_> = names.filter_map(pod).collect();
        let mut slices = BTreeMap::new();
        for &family in &service.families {
            // Pods for which a named port means different numbers are told in different slices.
            let mut groups: BTreeMap<Vec<SlicePort>, Vec<SliceEndpoint>> = BTreeMap::new();
            for pod in &pods {
                let zone = pod.node.as_ref().and_then(|node| self.zones.get(node));
                if let Some(endpoint) = endpoint(service, pod, family, zone) {
                    groups.entry(ports(service, pod)).or_default().push(endpoint);
                }
            }
            if groups.is_empty() {
                // So that it can be seen that there is none.
                groups.insert(Vec::new(), Vec::new());
            }
            for (ports, endpoints) in groups {
                let chunks: Vec<_> = match endpoints.is_empty() {
                    true => vec![&[][..]],
                    false => endpoints.chunks(SLICE_LIMIT).collect(),
                };
                for (i, endpoints) in chunks.into_iter().enumerate() {
                    let id = self.name(objects, service, (family, &ports, i), &slices, texts);
                    let slice = Slice {
                        id: id.clone(),
                        service: Some(service.id.clone()),
                        family,
                        ports: ports.clone(),
                        endpoints: endpoints.to_vec(),
                        ours: true,
                    };
                    slices.insert(id, slice);
                }
            }
        }
        slices
    }

    /// `SERVICE-xxxxx`: the same for the same slice, and nobody else's.
    fn name(
        &self,
        objects: &Objects,
        service: &Service,
        what: (Family, &[SlicePort], usize),
        others: &BTreeMap<Named, Slice>,
        texts: &mut Texts,
    ) -> Named {
        /// The letters of `generateName`: none that make words.
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut salt = 0u32;
        loop {
            let mut hash = fnv(format!("{what:?}{salt}").as_bytes());
            let mut name = format!("{}-", service.id.name);
            for _ in 0..5 {
                let letter = LETTERS.get(usize::try_from(hash % 27).unwrap_or(0)).copied().unwrap_or(b'b');
                name.push(char::from(letter));
                hash /= 27;
            }
            let name = Named { namespace: service.id.namespace.clone(), name: texts.of(&name) };
            let anothers = match self.made_for.get(&name) {
                Some(owner) => *owner != service.id,
                None => false,
            } || objects.slices.get(&name).is_some_and(|slice| !slice.ours);
            if !anothers && !others.contains_key(&name) {
                return name;
            }
            salt = salt.wrapping_add(1);
        }
    }
}

/// The selector of a service that has its pods told here. An empty one selects nothing: somebody else tells them.
fn selector(service: &Service) -> Option<&Labels> {
    let selects = service.kind != ServiceKind::ExternalName && !service.selector.is_empty();
    selects.then_some(&service.selector)
}

fn first_label(service: &Named, selector: &Labels) -> Option<(Text, Text, Text)> {
    selector.first_key_value().map(|(key, value)| (service.namespace.clone(), key.clone(), value.clone()))
}

/// Before every object of a namespace.
fn from(namespace: &Text) -> Named {
    Named { namespace: namespace.clone(), name: "".into() }
}

/// Conditions as the controller sets them: rule E6 is here and nowhere else.
fn endpoint(service: &Service, pod: &Pod, family: Family, zone: Option<&Text>) -> Option<SliceEndpoint> {
    let address = *pod.addresses.iter().find(|address| Family::of(address) == family)?;
    let ready = service.publish_not_ready || pod.ready && !pod.terminating;
    Some(SliceEndpoint {
        address,
        ready,
        serving: pod.ready,
        terminating: pod.terminating,
        node: pod.node.clone(),
        zone: zone.cloned(),
        hints: if ready { hints(service, pod.node.as_ref(), zone) } else { None },
        pod: Some(pod.id.name.clone()),
    })
}

/// What `trafficDistribution` makes of where a ready pod is (`staging/src/k8s.io/endpointslice/trafficdist` of Kubernetes).
fn hints(service: &Service, node: Option<&Text>, zone: Option<&Text>) -> Option<Box<Hints>> {
    let wish = TOPOLOGY.into_iter().find_map(|annotation| service.annotations.get(annotation));
    if wish.is_some_and(|wish| matches!(&**wish, "Auto" | "auto")) {
        return None;
    }
    let node = match service.distribution {
        Distribution::Even => return None,
        Distribution::SameZone => None,
        Distribution::SameNode => node,
    };
    let hints = Hints { zones: zone.cloned().into_iter().collect(), nodes: node.cloned().into_iter().collect() };
    (zone.is_some() || node.is_some()).then(|| Box::new(hints))
}

/// The service's ports as numbers of this pod. A name that the pod does not have is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<SlicePort> {
    let number = |port: &ServicePort| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            pod.ports.iter().find(|own| own.name == *name && own.proto == port.proto).map(|own| own.port)
        }
    };
    let each = |port: &ServicePort| Some(SlicePort { name: port.name.clone(), proto: port.proto, port: number(port)? });
    service.ports.iter().filter_map(each).collect()
}

/// FNV-1a: short, and the same in every build, so that names stay over restarts.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
