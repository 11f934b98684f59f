//! Services and their EndpointSlices, as nouns: one for each port at each address.
//!
//! Rules S1 to S6 and E1 to E5 are those of kube-proxy (`pkg/proxy` of Kubernetes), each family on its own: what is of a
//! family in which the service has no cluster address is not there for it.
//!
//! Worked example, on node n1 at 192.0.2.1: `default/web`, type LoadBalancer, cluster address 10.96.0.10, port 80, node
//! port 30080, a balancer at 203.0.113.5, externalTrafficPolicy Local; endpoints 10.1.0.2 on n1 and 10.2.0.2 on n2, both
//! ready. It has three nouns. `10.96.0.10 TCP 80` has both as backends. `203.0.113.5 TCP 80` and `192.0.2.1 TCP 30080` have
//! both as backends too, for whoever is on this node, and 10.1.0.2 alone as `local`, for everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::reply::AddressKind;
use api::{Choice, External, HealthCheck, ServiceKey};
use ipnet::IpNet;

use super::endpoints::Endpoints;
use super::here::Here;
use crate::cluster::model::{Family, Ingress, Policy, Service, ServiceKind, ServicePort, Slice};

/// Label of services that another proxy serves, and those that want none (rule S1).
const FOREIGN: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
/// How a backend is chosen: `maglev`, or at random.
const CHOICE: &str = "vswitch.io/load-balancing";

/// Why a service is not programmed (rule S1); `None` when it is.
pub(crate) fn not_programmed(service: &Service) -> Option<&'static str> {
    match service.kind {
        ServiceKind::ExternalName => return Some("type ExternalName"),
        ServiceKind::Headless => return Some("headless"),
        ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => {}
    }
    let label = FOREIGN.into_iter().find(|label| service.labels.contains_key(*label));
    label.or_else(|| service.cluster_ips.is_empty().then_some("no clusterIP"))
}

/// How the service's backends are chosen, and what is wrong with its wish.
pub(crate) fn choice(service: &Service) -> (Choice, Option<String>) {
    match service.annotations.get(CHOICE).map(AsRef::as_ref) {
        None => (Choice::Random, None),
        Some("maglev") => (Choice::Maglev, None),
        Some(other) => {
            let id = &service.id;
            let other: String = other.chars().take(64).flat_map(char::escape_debug).collect();
            let why = format!(
                "service {}/{}: metadata.annotations[{CHOICE}]: \"{other}\": not maglev: backends are chosen at random",
                id.namespace, id.name
            );
            (Choice::Random, Some(why))
        }
    }
}

/// `NAMESPACE/NAME:PORTNAME`, without the colon when the port has no name.
pub(crate) fn name(service: &Service, port: &ServicePort) -> String {
    let id = &service.id;
    let colon = if port.name.is_empty() { "" } else { ":" };
    format!("{}/{}{colon}{}", id.namespace, id.name, port.name)
}

/// One address and port where a service is reached, or would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) key: ServiceKey,
    pub(crate) kind: AddressKind,
    /// Why this one is not programmed; `None` when it is.
    pub(crate) why_not: Option<&'static str>,
}

/// Where a port of a service is reached, on this node. Of two places with one key the first counts.
pub(crate) fn places(service: &Service, port: &ServicePort, here: &Here) -> Vec<Place> {
    let place = |kind, address, number, why_not| {
        let key = ServiceKey { address, proto: port.proto, port: number };
        Place { key, kind, why_not }
    };
    let alone = |address| cluster_ip_beside(service, address).is_none();
    let orphan = |address| alone(address).then_some("no clusterIP of its family");
    let crate::cluster::model::External { ips, ingress, .. } = &service.external;
    let mut places = Vec::with_capacity(service.cluster_ips.len() + ips.len() + ingress.len());
    places.extend(service.cluster_ips.iter().map(|&address| place(AddressKind::Cluster, address, port.port, None)));
    places.extend(ingress.iter().map(|&Ingress { address, proxied }| {
        let why_not = proxied.then_some("ipMode Proxy").or_else(|| orphan(address));
        place(AddressKind::LoadBalancer, address, port.port, why_not)
    }));
    places.extend(ips.iter().map(|&address| place(AddressKind::External, address, port.port, orphan(address))));
    if let Some(number) = port.node_port {
        let addresses = here.node_ports.iter().filter(|address| !alone(**address));
        places.extend(addresses.map(|&address| place(AddressKind::NodePort, address, number, None)));
    }
    places
}

/// Everything that a service is to the switch.
#[derive(Debug, Default)]
pub(super) struct Nouns {
    /// At its cluster addresses.
    pub(super) cluster: Vec<(ServiceKey, api::Service)>,
    /// At the addresses that are for clients from beyond the cluster.
    pub(super) beyond: Vec<(ServiceKey, api::Service)>,
    pub(super) check: Option<(u16, HealthCheck)>,
}

/// The nouns of a service, given its slices.
pub(super) fn nouns(service: &Service, slices: &[&Slice], here: &Here) -> Nouns {
    let mut nouns = Nouns::default();
    if not_programmed(service).is_some() {
        return nouns;
    }
    // Each address once, for each family.
    let mut ready: BTreeMap<Family, BTreeSet<IpAddr>> = BTreeMap::new();
    for port in &service.ports {
        let name: Arc<str> = name(service, port).into();
        let of_family = |&address: &IpAddr| {
            let endpoints = Endpoints::of(slices, Family::of(&address), port, here);
            ready.entry(Family::of(&address)).or_default().extend(endpoints.ready_here());
            Behind::of(service, port, &name, address, &endpoints)
        };
        let behind: Vec<_> = service.cluster_ips.iter().map(of_family).collect();
        for Place { key, kind, .. } in places(service, port, here).into_iter().filter(|place| place.why_not.is_none()) {
            let Some(behind) = behind.iter().find(|behind| behind.is_for(key.address)) else { continue };
            match kind {
                AddressKind::Cluster => nouns.cluster.push((key, api::Service { key, ..behind.inside.clone() })),
                kind => {
                    let sources =
                        (kind == AddressKind::LoadBalancer).then(|| sources(service, key.address, here)).flatten();
                    nouns.beyond.push((key, behind.outside(key, sources)));
                }
            }
        }
    }
    if let Some(port) = service.external.health_port {
        let addresses = here.node_ports.iter().copied().filter(|&own| cluster_ip_beside(service, own).is_some());
        let check = HealthCheck {
            port,
            service: (service.id.namespace.clone(), service.id.name.clone()),
            // A pod has an address of each family, and is one endpoint.
            local_endpoints: ready.values().map(|ips| u32::try_from(ips.len()).unwrap_or(u32::MAX)).max().unwrap_or(0),
            addresses: addresses.collect(),
        };
        nouns.check = Some((port, check));
    }
    nouns
}

/// A port of a service in one family: what is alike at all its addresses.
struct Behind {
    /// As it is at the cluster address.
    inside: api::Service,
    /// Backends, draining and elsewhere as they are at addresses for clients from beyond.
    outside: api::Service,
    external: Arc<External>,
}

impl Behind {
    fn of(service: &Service, port: &ServicePort, name: &Arc<str>, cluster_ip: IpAddr, endpoints: &Endpoints) -> Self {
        let key = ServiceKey { address: cluster_ip, proto: port.proto, port: port.port };
        let (cluster, local) = (endpoints.cluster(), endpoints.local());
        let backends = match service.internal_policy {
            Policy::Cluster => &cluster,
            Policy::Local => &local,
        };
        let inside = api::Service {
            choice: choice(service).0,
            affinity: service.affinity,
            draining: endpoints.beside(&[backends]),
            // When a set is empty, what the other has is on other nodes.
            elsewhere: backends.is_empty() && !cluster.is_empty(),
            ..api::Service::new(key, name.clone(), backends.clone())
        };
        let local = (service.external.policy == Policy::Local).then_some(local);
        let outside = api::Service {
            draining: endpoints.beside(&[&cluster, local.as_deref().unwrap_or_default()]),
            elsewhere: local.as_ref().is_some_and(|local| local.is_empty()) && !cluster.is_empty(),
            backends: cluster,
            ..inside.clone()
        };
        let external = External { local, sources: None, cluster: SocketAddr::new(cluster_ip, port.port) };
        Self { inside, outside, external: Arc::new(external) }
    }

    fn is_for(&self, address: IpAddr) -> bool {
        self.inside.key.address.is_ipv4() == address.is_ipv4()
    }

    fn outside(&self, key: ServiceKey, sources: Option<Arc<[IpNet]>>) -> api::Service {
        let external = match sources {
            None => self.external.clone(),
            sources => Arc::new(External { sources, ..(*self.external).clone() }),
        };
        api::Service { key, external: Some(external), ..self.outside.clone() }
    }
}

/// Who may come to a load balancer's address (rule V11); `None`: everybody.
fn sources(service: &Service, address: IpAddr, here: &Here) -> Option<Arc<[IpNet]>> {
    let own = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
    let mut sources: Vec<IpNet> = service.external.sources.iter().filter(own).copied().collect();
    // A list without an entry of the family says nothing of it.
    if sources.is_empty() || sources.iter().any(|net| net.prefix_len() == 0) {
        return None;
    }
    // What this node sends to an address that its own kernel has, it sends from there.
    let of_node = here.primary_beside(address);
    if of_node.is_some_and(|node| sources.iter().any(|net| net.contains(&node))) {
        sources.push(address.into());
    }
    Some(sources.into())
}

/// The cluster address of a service that is of the family of another address.
fn cluster_ip_beside(service: &Service, other: IpAddr) -> Option<IpAddr> {
    service.cluster_ips.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
}
