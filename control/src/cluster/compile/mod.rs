//! From cluster objects to the nouns of the switch, and from changes of objects to changes of nouns.
//!
//! ```text
//!   Node (ours)   → the router, its gateways, the node's own addresses, routes to its podCIDRs, eligibility;
//!                   node ports, and what hints mean here
//!   Node (others) → routes to their podCIDRs
//!   Pod           → endpoints, where a port of the cluster bridge is bound to it; how much may pass that
//!   Service, EndpointSlice → services, health checks
//!   ServiceCIDR   → ranges of service addresses
//!   Pod, Namespace, policies → subjects, rulesets, guards of ports: see `policies`
//! ```
//!
//! A change of objects costs what it touches. What the switch has follows from the objects, the bridge's ports and the
//! settings alone, never from their history: see the property in `tests/history.rs`.
//!
//! Worked example: an EndpointSlice of service `default/web` loses an endpoint. `Changed::Slice` names the slice, the
//! slice its service; the service's claims are computed anew from its slices, the one port whose backends differ is a
//! touched key, and [`Compiler::update`] returns one `Change::Service` with the backends before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{
    AddressKey, BridgeId, Change, Delta, Eligibility, Endpoint, Guard, HealthCheck, MacAddr, Neighbor, Port, PortId,
    Route, RouteKey, Router, Ruleset, RulesetId, ServiceKey, ServiceRange, Shaper, Subject,
};
use ipnet::IpNet;

use super::model::{Changed, Named, Node, Objects, Pod, Service, Text};
use crate::NodeSettings;
use crate::store::config::port_of;

mod attachments;
pub(crate) mod binding;
mod claims;
mod contests;
mod endpoints;
pub(crate) mod here;
pub(crate) mod host_ports;
pub(crate) mod node;
mod pods;
pub(crate) mod policies;
pub(crate) mod services;
mod shapers;
pub(crate) mod stable;
#[cfg(test)]
pub(crate) mod tests;

use binding::NodeContext;
use claims::Claims;
use contests::{Claimant, Contests};
use here::Here;
use policies::{Holder, Policies};
use shapers::Limiter;

/// The nouns that follow from the cluster's objects on this node, and what the switch was told of them.
#[derive(Debug)]
pub(crate) struct Compiler {
    settings: NodeSettings,
    /// The router's Ethernet address.
    mac: MacAddr,
    /// There is an object: the cluster is here.
    any: bool,
    /// This node, as services see it.
    here: Here,
    context: Option<NodeContext>,
    // What of the objects is looked at again when ports change.
    nodes: BTreeMap<Text, Arc<Node>>,
    pods: BTreeMap<Named, Arc<Pod>>,
    services: BTreeMap<Named, Arc<Service>>,
    /// The service of each slice, as it was when the slice last changed.
    service_of: BTreeMap<Named, Named>,
    policies: Policies,
    contested: Contests<ServiceKey>,
    contested_checks: Contests<u16>,
    told: Told,
}

/// The nouns, by kind. Those with the claimant `()` have one source; those whose claimant is their key are each of their
/// own.
#[derive(Debug, Default)]
struct Told {
    stack: Claims<PortId, (), Port>,
    routers: Claims<BridgeId, (), Router>,
    endpoints: Claims<AddressKey, Owner, Endpoint>,
    neighbors: Claims<AddressKey, (), Neighbor>,
    routes: Claims<RouteKey, Origin, Route>,
    services: Claims<ServiceKey, Claimant, api::Service>,
    ranges: Claims<IpNet, RangeOrigin, ServiceRange>,
    checks: Claims<u16, Claimant, HealthCheck>,
    eligibility: Claims<(), (), Eligibility>,
    guards: Claims<PortId, PortId, Guard>,
    rulesets: Claims<RulesetId, RulesetId, Ruleset>,
    subjects: Claims<AddressKey, Holder, Subject>,
    shapers: Claims<PortId, Limiter, Shaper>,
}

/// Who has an address. The switch's own come first: a pod must not take the gateway's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Gateway,
    Node,
    Pod(Named),
    /// A container's that is no pod's.
    Attachment(PortId),
}

/// Who says where a prefix leads. Operators come first: they know why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Static,
    /// Our own podCIDRs.
    Own,
    Node(Text),
}

/// Who says that a prefix is of services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RangeOrigin {
    Settings,
    Object(Text),
}

impl Compiler {
    /// A compiler that knows of no object, for a switch that was told of none.
    pub(crate) fn new(settings: &NodeSettings) -> Self {
        Self {
            settings: settings.clone(),
            mac: stable::router_mac(&settings.name),
            any: false,
            here: Here::of(settings, None),
            context: None,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            service_of: BTreeMap::new(),
            policies: Policies::default(),
            contested: Contests::default(),
            contested_checks: Contests::default(),
            told: Told::default(),
        }
    }

    /// Objects changed. The first call must bring a complete set: until then nothing is programmed, so that no service
    /// is refused only because its slices were not read yet (rule S2).
    ///
    /// Returns what the switch must be told; if it refuses, say so with [`Self::undo`].
    pub(crate) fn update(&mut self, objects: &Objects, changed: &BTreeSet<Changed>) -> Vec<Change> {
        let had_any = std::mem::replace(&mut self.any, !is_empty(objects));
        let mut services = BTreeSet::new();
        let (mut router, mut nodes) = (false, false);
        for change in changed {
            match change {
                Changed::Node(name) => {
                    copy(&mut self.nodes, &objects.nodes, name);
                    self.claim_node_routes(name);
                    router |= **name == *self.settings.name;
                    nodes = true;
                }
                Changed::Namespace(name) => self.policies.namespace(name, objects.namespaces.get(name)),
                Changed::Pod(id) => {
                    copy(&mut self.pods, &objects.pods, id);
                    self.claim_pod(id);
                    self.policies.pod(id, self.pods.get(id));
                }
                Changed::Service(id) => {
                    self.release_service(id, objects.services.get(id).map(|service| &**service));
                    copy(&mut self.services, &objects.services, id);
                    let complaint = self.services.get(id).and_then(|service| services::choice(service).1);
                    complaint.inspect(|why| tracing::warn!("{why}"));
                    services.insert(id.clone());
                }
                Changed::Slice(id) => {
                    let now = objects.slices.get(id).and_then(|slice| slice.service.clone());
                    services.extend(match &now {
                        Some(service) => self.service_of.insert(id.clone(), service.clone()),
                        None => self.service_of.remove(id),
                    });
                    services.extend(now);
                }
                Changed::ServiceCidr(name) => {
                    let prefixes = objects.service_cidrs.get(name).map_or(&[][..], |cidrs| &cidrs.prefixes);
                    let origin = format!("servicecidr/{name}");
                    let range = |prefix: &IpNet| ServiceRange { prefix: prefix.trunc(), origin: origin.clone() };
                    let ranges = prefixes.iter().map(range).map(|range| (range.prefix, range));
                    self.told.ranges.set(&RangeOrigin::Object(name.clone()), ranges);
                }
                Changed::Policy(id) => self.policies.network(id, objects.policies.get(id), &self.nodes),
                Changed::ClusterPolicy(name) => {
                    self.policies.cluster(name, objects.cluster_policies.get(name), &self.nodes);
                }
            }
        }
        if nodes {
            self.policies.nodes(&self.nodes);
        }
        if router && self.look_here() {
            services.extend(self.services.keys().cloned());
            self.claim_host_ports(&BTreeMap::new());
        }
        for id in services {
            self.claim_service(objects, &id);
        }
        if had_any != self.any {
            self.claim_all();
            self.claim_attachments(None);
        } else if router {
            self.claim_router();
            self.claim_eligibility();
        }
        self.claim_policies();
        self.settle()
    }

    /// Ports of the bridge, or what operators stated on it, changed. `None` while the bridge is not in force.
    ///
    /// Returns what the switch must be told; if it refuses, say so with [`Self::undo`].
    pub(crate) fn rebind(&mut self, context: Option<NodeContext>) -> Vec<Change> {
        if self.context != context {
            let before = std::mem::replace(&mut self.context, context);
            self.touch_bound(before.as_ref());
            self.claim_attachments(before.as_ref());
            let (bridge, before_bridge) = (self.context.as_ref().map(|c| c.bridge), before.as_ref().map(|c| c.bridge));
            if let Some(context) = &before {
                self.claim_attached_shapers(context.attachments.keys().copied());
                self.claim_host_ports(&context.attachments);
            } else {
                self.claim_attached_shapers(std::iter::empty());
                self.claim_host_ports(&BTreeMap::new());
            }
            let pods = before.into_iter().flat_map(|context| context.pods.into_keys()).collect();
            self.claim_bound(pods, bridge != before_bridge);
            self.claim_policies();
        }
        self.settle()
    }

    /// What the switch must be told before these changes of bridges and ports: nothing may name what goes. To be
    /// followed by [`Self::rebind`], or by [`Self::undo`] if the switch refused.
    pub(crate) fn release(&mut self, changes: &[Change]) -> Vec<Change> {
        let gone = |change: &Change| match change {
            Change::Port(Delta { old: Some(port), new: None }) => Some(port.id),
            _ => None,
        };
        let ports: BTreeSet<PortId> = changes.iter().filter_map(gone).collect();
        let gone = |change: &Change| match change {
            Change::Bridge(Delta { old: Some(bridge), new: None }) => Some(bridge.id),
            _ => None,
        };
        let bridges: BTreeSet<BridgeId> = changes.iter().filter_map(gone).collect();
        if ports.is_empty() && bridges.is_empty() {
            return Vec::new();
        }
        let of = |bridge: BridgeId, port: Option<PortId>| {
            bridges.contains(&bridge) || port.is_some_and(|port| ports.contains(&port))
        };
        let Told { stack, routers, endpoints, neighbors, routes, guards, subjects, shapers, .. } = &mut self.told;
        let mut out = Vec::new();
        out.extend(endpoints.release(|e| of(e.key.bridge, Some(e.port))).into_iter().map(Change::Endpoint));
        out.extend(neighbors.release(|n| of(n.key.bridge, Some(n.port))).into_iter().map(Change::Neighbor));
        out.extend(routes.release(|r| of(r.key.bridge, port_of(r.to))).into_iter().map(Change::Route));
        out.extend(routers.release(|router| bridges.contains(&router.bridge)).into_iter().map(Change::Router));
        let cut = routers.told().values().find(|router| router.uplink.is_some_and(|port| ports.contains(&port)));
        if let Some(router) = cut.cloned() {
            let without = routers.tell(router.bridge, Router { uplink: None, ..router });
            out.extend(without.map(Change::Router));
        }
        out.extend(guards.release(|guard| of(guard.bridge, Some(guard.port))).into_iter().map(Change::Guard));
        out.extend(subjects.release(|s| of(s.key.bridge, s.port)).into_iter().map(Change::Subject));
        out.extend(shapers.release(|shaper| ports.contains(&shaper.port)).into_iter().map(Change::Shaper));
        out.extend(stack.release(|port| bridges.contains(&port.bridge)).into_iter().map(Change::Port));
        out
    }

    /// The switch refused what it was told last: it has what it had before. It will be told again, when next something
    /// changes.
    pub(crate) fn undo(&mut self, changes: Vec<Change>) {
        let told = &mut self.told;
        for change in changes.into_iter().rev() {
            match change {
                Change::Port(delta) => {
                    // Others than the stack's are the store's.
                    if delta.new.as_ref().or(delta.old.as_ref()).is_some_and(|port| port.id == PortId::STACK) {
                        undo(&mut told.stack, |port| port.id, delta);
                    }
                }
                Change::Router(delta) => undo(&mut told.routers, |router| router.bridge, delta),
                Change::Endpoint(delta) => undo(&mut told.endpoints, |endpoint| endpoint.key, delta),
                Change::Neighbor(delta) => undo(&mut told.neighbors, |neighbor| neighbor.key, delta),
                Change::Route(delta) => undo(&mut told.routes, |route| route.key, delta),
                Change::Service(delta) => undo(&mut told.services, |service| service.key, delta),
                Change::ServiceRange(delta) => undo(&mut told.ranges, |range| range.prefix, delta),
                Change::HealthCheck(delta) => undo(&mut told.checks, |check| check.port, delta),
                Change::Eligibility(delta) => undo(&mut told.eligibility, |_| (), delta),
                Change::Guard(delta) => undo(&mut told.guards, |guard| guard.port, delta),
                Change::Ruleset(delta) => undo(&mut told.rulesets, |ruleset| ruleset.id, delta),
                Change::Subject(delta) => undo(&mut told.subjects, |subject| subject.key, delta),
                Change::Shaper(delta) => undo(&mut told.shapers, |shaper| shaper.port, delta),
                Change::Bridge(_) | Change::Station(_) | Change::Acl(_) => {}
            }
        }
    }

    /// What goes goes first, what comes comes last, the router with its port in between.
    fn settle(&mut self) -> Vec<Change> {
        self.tell_of_contests();
        self.claim_contested_guards();
        let Told {
            stack,
            routers,
            endpoints,
            neighbors,
            routes,
            services,
            ranges,
            checks,
            eligibility,
            guards,
            rulesets,
            subjects,
            shapers,
        } = &mut self.told;
        let (mut going, mut coming, mut coming_last, mut going_last) = Default::default();
        sort(endpoints.settle(), Change::Endpoint, &mut going, &mut coming);
        sort(neighbors.settle(), Change::Neighbor, &mut going, &mut coming);
        sort(routes.settle(), Change::Route, &mut going, &mut coming);
        sort(services.settle(), Change::Service, &mut going, &mut coming);
        sort(ranges.settle(), Change::ServiceRange, &mut going, &mut coming);
        sort(checks.settle(), Change::HealthCheck, &mut going, &mut coming);
        sort(eligibility.settle(), Change::Eligibility, &mut going, &mut coming);
        sort(guards.settle(), Change::Guard, &mut going, &mut coming);
        sort(shapers.settle(), Change::Shaper, &mut going, &mut coming);
        // Subjects name rulesets: these are there before they are named, and as long.
        sort(subjects.settle(), Change::Subject, &mut going, &mut coming_last);
        sort(rulesets.settle(), Change::Ruleset, &mut going_last, &mut coming);
        let mut router_coming = Vec::new();
        sort(routers.settle(), Change::Router, &mut going, &mut router_coming);
        going.extend(stack.settle().into_iter().map(Change::Port));
        going.append(&mut router_coming);
        going.append(&mut coming);
        going.append(&mut coming_last);
        going.append(&mut going_last);
        going
    }

    /// All that depends on whether there is a cluster at all.
    fn claim_all(&mut self) {
        let cidrs = if self.any { &self.settings.service_cidrs[..] } else { &[] };
        let range = |prefix: &IpNet| ServiceRange { prefix: prefix.trunc(), origin: "--service-cidr".to_owned() };
        let ranges: Vec<_> = cidrs.iter().map(range).map(|range| (range.prefix, range)).collect();
        self.told.ranges.set(&RangeOrigin::Settings, ranges);
        self.claim_eligibility();
        self.claim_bound(BTreeSet::new(), true);
    }

    /// All that depends on the bridge and its ports. `pods`: those that had ports before.
    fn claim_bound(&mut self, mut pods: BTreeSet<Named>, other_bridge: bool) {
        self.claim_router();
        if other_bridge {
            let names: Vec<Text> = self.nodes.keys().cloned().collect();
            names.iter().for_each(|name| self.claim_node_routes(name));
            self.policies.touch_all();
            self.context.iter().flat_map(|context| context.bound.keys()).for_each(|id| self.policies.touch(id));
        }
        pods.extend(self.context.iter().flat_map(|context| context.pods.keys().cloned()));
        pods.iter().for_each(|id| self.claim_pod(id));
        let (mut neighbors, mut routes) = (Vec::new(), Vec::new());
        if let Some(context) = self.active() {
            neighbors.extend(context.neighbors.iter().map(|neighbor| (neighbor.key, *neighbor)));
            routes.extend(context.routes.iter().map(|route| (route.key, route.clone())));
        }
        self.told.neighbors.set(&(), neighbors);
        self.told.routes.set(&Origin::Static, routes);
    }

    fn claim_service(&mut self, objects: &Objects, id: &Named) {
        let Some(service) = self.services.get(id) else { return };
        let names = objects.slices_of.get(id).into_iter().flatten();
        let slices: Vec<_> = names.filter_map(|name| objects.slices.get(name)).map(AsRef::as_ref).collect();
        let services::Nouns { cluster, beyond, check } = services::nouns(service, &slices, &self.here);
        let [inside, outside] = Claimant::both(service);
        self.told.services.set(&inside, cluster);
        self.told.services.set(&outside, beyond);
        self.told.checks.set(&outside, check);
    }

    /// A service goes, or is another of the same name: what it claimed is free.
    fn release_service(&mut self, id: &Named, new: Option<&Service>) {
        let Some(old) = self.services.get(id) else { return };
        if new.is_some_and(|new| new.created == old.created) {
            return;
        }
        for claimant in Claimant::both(old) {
            self.told.services.set(&claimant, []);
            self.told.checks.set(&claimant, []);
        }
    }

    /// Look at this node again as services see it. Returns whether it is another.
    fn look_here(&mut self) -> bool {
        let now = Here::of(&self.settings, self.nodes.get(&*self.settings.name).map(AsRef::as_ref));
        std::mem::replace(&mut self.here, now) != self.here
    }

    /// Log what services want that another has, once each.
    fn tell_of_contests(&mut self) {
        let Told { services, checks, .. } = &self.told;
        self.contested.tell(services, |ServiceKey { address, proto, port }| format!("{address} {proto} {port}"));
        self.contested_checks.tell(checks, |port| format!("health-check port {port}"));
    }

    /// The bridge, when there are objects and it is in force.
    fn active(&self) -> Option<&NodeContext> {
        self.context.as_ref().filter(|_| self.any)
    }

    /// Whether there is an object: then the cluster bridge must stay.
    pub(crate) fn has_objects(&self) -> bool {
        self.any
    }

    /// Whether the switch has nothing that came from here.
    pub(crate) fn is_idle(&self) -> bool {
        let Told { stack, routers, services, ranges, checks, eligibility, guards, rulesets, shapers, .. } = &self.told;
        // What is left out is never without a router.
        let cluster = stack.is_idle() && routers.is_idle() && services.is_idle() && ranges.is_idle();
        cluster
            && shapers.is_idle()
            && checks.is_idle()
            && eligibility.is_idle()
            && guards.is_idle()
            && rulesets.is_idle()
    }

    /// The settings it compiles for.
    pub(crate) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// What the network is bound to.
    pub(crate) fn context(&self) -> Option<&NodeContext> {
        self.context.as_ref()
    }

    /// Nodes, by name.
    pub(crate) fn nodes(&self) -> &BTreeMap<Text, Arc<Node>> {
        &self.nodes
    }

    /// Pods, by namespace and name.
    pub(crate) fn pods(&self) -> &BTreeMap<Named, Arc<Pod>> {
        &self.pods
    }

    /// This node, as services see it.
    pub(crate) fn here(&self) -> &Here {
        &self.here
    }

    /// Policies, and the pods that they are about.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Services, by namespace and name, programmed or not.
    pub(crate) fn services(&self) -> &BTreeMap<Named, Arc<Service>> {
        &self.services
    }

    /// The service that has a key, if one does.
    pub(crate) fn service_at(&self, key: &ServiceKey) -> Option<(&Named, &api::Service)> {
        Some((&self.told.services.claimants(key).next()?.id, self.told.services.told().get(key)?))
    }

    /// Guards of ports that the switch has.
    pub(crate) fn guards(&self) -> &BTreeMap<PortId, Guard> {
        self.told.guards.told()
    }

    /// Endpoints that the switch has.
    pub(crate) fn endpoints(&self) -> &BTreeMap<AddressKey, Endpoint> {
        self.told.endpoints.told()
    }

    /// Neighbours that the switch was told of.
    pub(crate) fn neighbors(&self) -> &BTreeMap<AddressKey, Neighbor> {
        self.told.neighbors.told()
    }

    /// Routes that the switch has.
    pub(crate) fn routes(&self) -> &BTreeMap<RouteKey, Route> {
        self.told.routes.told()
    }
}

/// Whether there is no object at all.
pub(crate) fn is_empty(objects: &Objects) -> bool {
    let Objects { nodes, namespaces, pods, services, slices, service_cidrs, policies, cluster_policies, slices_of: _ } =
        objects;
    let cluster_wide = nodes.is_empty() && namespaces.is_empty() && service_cidrs.is_empty();
    let policies = policies.is_empty() && cluster_policies.is_empty();
    cluster_wide && policies && pods.is_empty() && services.is_empty() && slices.is_empty()
}

/// Everything that there is, as changed: for a compiler that knows nothing yet.
#[cfg(test)]
pub(crate) fn everything(objects: &Objects) -> BTreeSet<Changed> {
    let mut all: BTreeSet<_> = objects.nodes.keys().cloned().map(Changed::Node).collect();
    all.extend(objects.namespaces.keys().cloned().map(Changed::Namespace));
    all.extend(objects.pods.keys().cloned().map(Changed::Pod));
    all.extend(objects.services.keys().cloned().map(Changed::Service));
    all.extend(objects.slices.keys().cloned().map(Changed::Slice));
    all.extend(objects.service_cidrs.keys().cloned().map(Changed::ServiceCidr));
    all.extend(objects.policies.keys().cloned().map(Changed::Policy));
    all.extend(objects.cluster_policies.keys().cloned().map(Changed::ClusterPolicy));
    all
}

/// A delta was refused.
fn undo<K: Ord + Copy, C: Ord + Clone, T: Clone + PartialEq>(
    claims: &mut Claims<K, C, T>,
    key: impl Fn(&T) -> K,
    delta: Delta<T>,
) {
    if let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(key) {
        claims.undo(key, delta.old);
    }
}

/// Changes, what goes and what comes or stays apart.
fn sort<T>(deltas: Vec<Delta<T>>, kind: fn(Delta<T>) -> Change, going: &mut Vec<Change>, coming: &mut Vec<Change>) {
    for delta in deltas {
        let list = if delta.new.is_none() { &mut *going } else { &mut *coming };
        list.push(kind(delta));
    }
}

/// Let `mine` have of an object what `theirs` has.
fn copy<K: Ord + Clone, T>(mine: &mut BTreeMap<K, Arc<T>>, theirs: &BTreeMap<K, Arc<T>>, key: &K) {
    match theirs.get(key) {
        Some(object) => mine.insert(key.clone(), object.clone()),
        None => mine.remove(key),
    };
}
