//! Services and their EndpointSlices, as nouns: one for each port at each virtual address.
//!
//! Rules S1 to S6 and E1 to E5 are those of kube-proxy (`pkg/proxy` of Kubernetes), each family on its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{Choice, ServiceKey};

use crate::cluster::model::{Family, Service, ServiceKind, ServicePort, Slice};

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

/// Everything that a service is to the switch, given its slices.
pub(crate) fn nouns(service: &Service, slices: &[&Slice]) -> Vec<(ServiceKey, api::Service)> {
    if not_programmed(service).is_some() {
        return Vec::new();
    }
    let (choice, _) = choice(service);
    let mut nouns = Vec::with_capacity(service.ports.len() * service.cluster_ips.len());
    for port in &service.ports {
        let name: Arc<str> = name(service, port).into();
        for &address in &service.cluster_ips {
            let key = ServiceKey { address, proto: port.proto, port: port.port };
            let (backends, draining) = behind(slices, address, port);
            let service = api::Service { choice, draining, ..api::Service::new(key, name.clone(), backends) };
            nouns.push((key, service));
        }
    }
    nouns
}

/// `NAMESPACE/NAME:PORTNAME`, without the colon when the port has no name.
pub(crate) fn name(service: &Service, port: &ServicePort) -> String {
    let id = &service.id;
    let colon = if port.name.is_empty() { "" } else { ":" };
    format!("{}/{}{colon}{}", id.namespace, id.name, port.name)
}

/// An endpoint of a service, as far as its use depends on it. In the order of preference: of two of one address and
/// port, what is not terminating counts, since an address is used again while the old pod's object is still there
/// (rule E1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    address: SocketAddr,
    terminating: bool,
    not_ready: bool,
    not_serving: bool,
}

/// Backends that get new connections, and those that keep the ones they have, behind a port at one address.
fn behind(slices: &[&Slice], address: IpAddr, port: &ServicePort) -> (Arc<[SocketAddr]>, Arc<[SocketAddr]>) {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut all = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        // By name, so that pods with different numbers serve one port (rule E4).
        for number in slice.ports.iter().filter(|p| p.name == port.name && p.proto == port.proto) {
            let endpoints = slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == address.is_ipv4());
            all.extend(endpoints.map(|endpoint| Standing {
                address: SocketAddr::new(endpoint.address, number.port),
                terminating: endpoint.terminating,
                not_ready: !endpoint.ready,
                not_serving: !endpoint.serving,
            }));
        }
    }
    all.sort_unstable();
    all.dedup_by_key(|standing| standing.address);
    // `CategorizeEndpoints` of pkg/proxy/topology.go: the ready ones; when there is none, those that still serve while
    // they terminate.
    let any_ready = all.iter().any(|standing| !standing.not_ready);
    let used = |s: &Standing| if any_ready { !s.not_ready } else { !s.not_serving && s.terminating };
    let addresses = |wanted: &dyn Fn(&Standing) -> bool| -> Arc<[SocketAddr]> {
        all.iter().filter(|standing| wanted(standing)).map(|standing| standing.address).collect()
    };
    (addresses(&used), addresses(&|s| !s.not_serving && !used(s)))
}
