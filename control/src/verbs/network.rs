//! What a node's network looks like: services, routes, neighbours, connections.

use api::filter::Filter;
use api::reply::{
    AddressKind, ConnectionRow, NeighborRow, Neighbors, RouteRow, Routes, ServiceRow, Services, TrafficPolicy,
};
use api::state::ConnectionState;
use api::{AddressKey, Choice, Hop, Proto, Route, ServiceKey};

use crate::Switch;
use crate::cluster::compile::services::{Place, choice, name, not_programmed, places};
use crate::cluster::compile::{Compiler, host_ports};
use crate::cluster::model::{Policy, Service};
use crate::store::Store;

/// Why what was stated of a bridge does nothing there.
const NO_ROUTER: &str = "the bridge has no router";

/// Services, of one namespace or of all.
pub(super) fn services(namespace: Option<&str>, cluster: &Compiler, switch: &dyn Switch) -> Services {
    let wanted = |service: &Service| namespace.is_none_or(|namespace| *service.id.namespace == *namespace);
    let services = cluster.services().values().filter(|service| wanted(service));
    let mut rows: Vec<_> = services.flat_map(|service| service_rows(service, cluster)).collect();
    rows.extend(host_port_rows(namespace, cluster));
    for row in rows.iter_mut().filter(|row| row.not_programmed.is_none()) {
        if let (Some(address), Some(proto), Some(port)) = (row.address, row.proto, row.port) {
            row.unreached_by_node = switch.unreached_by_node(&ServiceKey { address, proto, port });
        }
    }
    Services(rows)
}

fn service_rows(service: &Service, cluster: &Compiler) -> Vec<ServiceRow> {
    let empty = ServiceRow {
        service: format!("{}/{}", service.id.namespace, service.id.name),
        address: None,
        proto: None,
        port: None,
        kind: AddressKind::Cluster,
        policy: policy(service.internal_policy),
        choice: choice(service).0,
        affinity: service.affinity,
        backends: Vec::new(),
        local: None,
        sources: None,
        draining: Vec::new(),
        not_programmed: not_programmed(service).map(str::to_owned),
        unreached_by_node: None,
    };
    if service.ports.is_empty() {
        return vec![empty];
    }
    let mut rows = Vec::new();
    for port in &service.ports {
        let places = places(service, port, cluster.here());
        let of_port = ServiceRow {
            service: name(service, port),
            proto: Some(port.proto),
            port: Some(port.port),
            ..empty.clone()
        };
        if service.cluster_ips.is_empty() {
            rows.push(of_port.clone());
        }
        if port.node_port.is_some() && !places.iter().any(|place| place.kind == AddressKind::NodePort) {
            let why = empty.not_programmed.clone().unwrap_or_else(|| "no address of the node serves it".to_owned());
            let (kind, policy) = (AddressKind::NodePort, policy(service.external.policy));
            rows.push(ServiceRow { port: port.node_port, kind, policy, not_programmed: Some(why), ..of_port.clone() });
        }
        rows.extend(places.iter().map(|place| placed(of_port.clone(), service, place, cluster)));
    }
    rows
}

/// The rows of the host ports of containers, of those of a namespace if one is named.
fn host_port_rows(namespace: Option<&str>, cluster: &Compiler) -> Vec<ServiceRow> {
    let mut rows = Vec::new();
    for attachment in cluster.context().into_iter().flat_map(|context| context.attachments.values()) {
        if namespace.is_some_and(|namespace| *host_ports::owner(attachment).namespace != *namespace) {
            continue;
        }
        for port in &attachment.host_ports {
            let row = ServiceRow {
                service: host_ports::name(attachment, port),
                address: None,
                proto: Some(port.proto),
                port: Some(port.port),
                kind: AddressKind::HostPort,
                policy: TrafficPolicy::Local,
                choice: Choice::default(),
                affinity: None,
                backends: Vec::new(),
                local: None,
                sources: None,
                draining: Vec::new(),
                not_programmed: None,
                unreached_by_node: None,
            };
            let places = host_ports::places(port, &attachment.interface, cluster.here());
            if places.is_empty() {
                let why = "no address of the node serves it".to_owned();
                rows.push(ServiceRow { not_programmed: Some(why), ..row.clone() });
            }
            rows.extend(places.into_iter().map(|(key, behind)| {
                let mut row = ServiceRow { address: Some(key.address), ..row.clone() };
                match cluster.service_at(&key) {
                    Some((_, noun)) if *noun.name == *row.service => {
                        (row.backends, row.local) = (vec![behind], Some(vec![behind]));
                    }
                    Some((_, noun)) => {
                        row.not_programmed = Some(format!("service {} has this address and port", noun.name))
                    }
                    None => row.not_programmed = Some("the switch refused it".to_owned()),
                }
                row
            }));
        }
    }
    rows
}

/// The row of a port at one of its places.
fn placed(mut row: ServiceRow, service: &Service, place: &Place, cluster: &Compiler) -> ServiceRow {
    row.address = Some(place.key.address);
    row.port = Some(place.key.port);
    row.kind = place.kind;
    if place.kind != AddressKind::Cluster {
        row.policy = policy(service.external.policy);
    }
    row.not_programmed = row.not_programmed.or_else(|| place.why_not.map(str::to_owned));
    if row.not_programmed.is_none() {
        in_force(&mut row, service, &place.key, cluster);
    }
    row
}

fn policy(policy: Policy) -> TrafficPolicy {
    match policy {
        Policy::Cluster => TrafficPolicy::Cluster,
        Policy::Local => TrafficPolicy::Local,
    }
}

/// Put into a row what the switch has of it, or why it has nothing.
fn in_force(row: &mut ServiceRow, service: &Service, key: &ServiceKey, cluster: &Compiler) {
    match cluster.service_at(key) {
        Some((owner, noun)) if *owner == service.id && *noun.name == *row.service => {
            row.choice = noun.choice;
            row.affinity = noun.affinity;
            row.backends = noun.backends.to_vec();
            row.draining = noun.draining.to_vec();
            let external = noun.external.as_deref();
            row.local = external.and_then(|external| external.local.as_deref()).map(<[_]>::to_vec);
            row.sources = external.and_then(|external| external.sources.as_deref()).map(<[_]>::to_vec);
        }
        Some((_, noun)) => row.not_programmed = Some(format!("service {} has this address and port", noun.name)),
        None => row.not_programmed = Some("the switch refused it".to_owned()),
    }
    if row.not_programmed.is_some() {
        row.choice = Choice::default();
    }
}

/// Routes that the switch has, and those that operators stated where there is no router.
pub(super) fn routes(store: &Store) -> Routes {
    let told = store.cluster().routes();
    let idle = store.static_routes().values().filter(|route| !told.contains_key(&route.key));
    let row = |route: &Route, error: Option<&str>| {
        let (hop, gateway, port) = match route.to {
            Hop::OnLink { port } => ("on-link", None, Some(port)),
            Hop::Via { port, gateway } => ("via", Some(gateway), Some(port)),
            Hop::Endpoint => ("endpoint", None, None),
            Hop::Unreachable => ("unreachable", None, None),
            Hop::Blackhole => ("blackhole", None, None),
        };
        RouteRow {
            bridge: store.bridge_name(route.key.bridge).to_owned(),
            prefix: route.key.prefix,
            hop: hop.to_owned(),
            gateway,
            port: port.map(|port| store.port_name(port)),
            origin: route.origin.clone(),
            error: error.map(str::to_owned),
        }
    };
    let mut rows: Vec<_> = told.values().map(|route| row(route, None)).collect();
    rows.extend(idle.map(|route| row(route, Some(NO_ROUTER))));
    rows.sort_by(|a, b| (&a.bridge, a.prefix).cmp(&(&b.bridge, b.prefix)));
    Routes(rows)
}

/// Neighbours that the switch has, and those that operators stated where there is no router.
pub(super) fn neighbors(store: &Store, switch: &dyn Switch) -> Neighbors {
    let told = store.cluster().neighbors();
    let idle = store.static_neighbors().values().filter(|neighbor| !told.contains_key(&neighbor.key));
    let row = |key: AddressKey, mac, port, state: &str, age, error: Option<&str>| NeighborRow {
        bridge: store.bridge_name(key.bridge).to_owned(),
        address: key.address,
        mac,
        port: store.port_name(port),
        state: state.to_owned(),
        age,
        error: error.map(str::to_owned),
    };
    let live = switch.neighbors();
    let mut rows: Vec<_> = live.iter().map(|n| row(n.key, n.mac, n.port, &n.state, n.age, None)).collect();
    rows.extend(idle.map(|n| row(n.key, Some(n.mac), n.port, "permanent", None, Some(NO_ROUTER))));
    rows.sort_by(|a, b| (&a.bridge, a.address).cmp(&(&b.bridge, b.address)));
    Neighbors(rows)
}

/// Connections that are meant.
pub(super) fn connections(filter: &Filter, store: &Store, switch: &dyn Switch) -> Vec<ConnectionRow> {
    let connections = switch.connections().into_iter().filter(|connection| is_meant(filter, connection, store));
    let row = |c: ConnectionState| ConnectionRow {
        bridge: store.bridge_name(c.bridge).to_owned(),
        port: store.port_name(c.port),
        service: service_of(&c, store).map(str::to_owned),
        proto: c.proto,
        state: c.state,
        original: c.original,
        reply: c.reply,
        expires: c.expires,
    };
    let mut rows: Vec<_> = connections.map(row).collect();
    rows.sort_by(|a, b| (&a.bridge, a.proto, a.original).cmp(&(&b.bridge, b.proto, b.original)));
    rows
}

/// Forget the connections that are meant.
pub(super) fn flush(filter: &Filter, store: &Store, switch: &mut dyn Switch) {
    switch.flush_connections(&|connection| is_meant(filter, connection, store));
}

fn is_meant(filter: &Filter, connection: &ConnectionState, store: &Store) -> bool {
    filter.is_all() || filter.matches(connection, &store.port_name(connection.port), service_of(connection, store))
}

/// Name of the service to whose address a connection went, as the services are now.
fn service_of<'a>(connection: &ConnectionState, store: &'a Store) -> Option<&'a str> {
    let address = connection.original.dst;
    let key = ServiceKey { address: address.ip(), proto: Proto::of(connection.proto)?, port: address.port() };
    store.cluster().service_at(&key).map(|(_, service)| &*service.name)
}
