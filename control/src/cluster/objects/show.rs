//! `get`: objects in force as kubectl shows them.

use std::sync::Arc;

use api::reply::{Got, ObjectTable};
use api::request::Output;
use serde_json::{Value, json};

use super::Store;
use super::check::shown;
use super::kind::{KINDS, Kind, KindDef};
use crate::Refusal;
use crate::cluster::Wanted;
use crate::cluster::model::{Changed, ClusterPolicy, Named, NetworkPolicy, Node, Pod, Requirement, Selector, Service};
use crate::cluster::model::{ServiceKind, Slice, Test, Text, Tier};

/// What is said where there is nothing; kubectl's word.
const NONE: &str = "<none>";

/// There is no such kind.
pub(crate) fn no_kind(word: &str) -> Refusal {
    let kinds: Vec<_> = KINDS.iter().map(|def| def.plural).collect();
    Refusal(format!("\"{}\": no kind of object that is kept here; there are {}", shown(word), kinds.join(", ")))
}

/// Objects that are wanted: tables, or text.
///
/// # Errors
/// When there is no such kind, or none of a name.
pub(crate) fn get(store: &Store, wanted: &Wanted<'_>) -> Result<Got, Refusal> {
    let mut kinds = Vec::new();
    for word in wanted.kind.split(',') {
        kinds.push(KindDef::typed(word).ok_or_else(|| no_kind(word))?);
    }
    let mut keys = Vec::new();
    for def in &kinds {
        for name in wanted.names {
            let key = def.key(wanted.namespace.filter(|_| def.namespaced).unwrap_or_default(), name);
            if !exists(store, &key) {
                return Err(Refusal(format!("{} \"{}\" not found", def.plural, shown(name))));
            }
        }
        keys.push(match wanted.names {
            [] => all(store, def.kind, wanted.namespace),
            names => names.iter().map(|name| def.key(wanted.namespace.unwrap_or_default(), name)).collect(),
        });
    }
    match wanted.output {
        None | Some(Output::Wide) => {
            let wide = wanted.output.is_some();
            let tables = kinds.iter().zip(&keys).filter(|(_, keys)| !keys.is_empty() || kinds.len() == 1);
            Ok(Got::Tables(
                tables.map(|(def, keys)| table(store, def, keys, wide, wanted.namespace.is_none())).collect(),
            ))
        }
        Some(output) => text(store, &keys.concat(), wanted.names.len() == 1 && kinds.len() == 1, output),
    }
}

fn exists(store: &Store, key: &Changed) -> bool {
    let objects = store.objects();
    match key {
        Changed::Node(name) => objects.nodes.contains_key(name),
        Changed::Namespace(name) => objects.namespaces.contains_key(name),
        Changed::Pod(id) => objects.pods.contains_key(id),
        Changed::Service(id) => objects.services.contains_key(id),
        Changed::Slice(id) => objects.slices.contains_key(id),
        Changed::ServiceCidr(name) => objects.service_cidrs.contains_key(name),
        Changed::Policy(id) => objects.policies.contains_key(id),
        Changed::ClusterPolicy(name) => objects.cluster_policies.contains_key(name),
    }
}

fn all(store: &Store, kind: Kind, namespace: Option<&str>) -> Vec<Changed> {
    let objects = store.objects();
    let here = |id: &&Named| namespace.is_none_or(|namespace| *id.namespace == *namespace);
    match kind {
        Kind::Node => objects.nodes.keys().cloned().map(Changed::Node).collect(),
        Kind::Namespace => objects.namespaces.keys().cloned().map(Changed::Namespace).collect(),
        Kind::Pod => objects.pods.keys().filter(here).cloned().map(Changed::Pod).collect(),
        Kind::Service => objects.services.keys().filter(here).cloned().map(Changed::Service).collect(),
        Kind::EndpointSlice => objects.slices.keys().filter(here).cloned().map(Changed::Slice).collect(),
        Kind::ServiceCidr => objects.service_cidrs.keys().cloned().map(Changed::ServiceCidr).collect(),
        Kind::NetworkPolicy => objects.policies.keys().filter(here).cloned().map(Changed::Policy).collect(),
        Kind::ClusterNetworkPolicy => objects.cluster_policies.keys().cloned().map(Changed::ClusterPolicy).collect(),
    }
}

fn text(store: &Store, keys: &[Changed], single: bool, output: Output) -> Result<Got, Refusal> {
    let mut items: Vec<Value> = Vec::new();
    for key in keys {
        items.push(match (store.text(key), key) {
            (Some(text), _) => serde_json::from_str(text).map_err(|e| Refusal(e.to_string()))?,
            (None, Changed::Slice(id)) => store.objects().slices.get(id).map_or(Value::Null, |slice| manifest(slice)),
            (None, _) => Value::Null,
        });
    }
    let value = match items.pop() {
        Some(only) if single => only,
        last => {
            items.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        }
    };
    let written = match output {
        Output::Yaml => serde_saphyr::to_string(&value).map_err(|e| e.to_string()),
        _ => serde_json::to_string_pretty(&value).map_err(|e| e.to_string()),
    };
    written.map(|text| Got::Text(text.trim_end().to_owned())).map_err(Refusal)
}

/// A slice of ours as a manifest that would say the same.
fn manifest(slice: &Slice) -> Value {
    let endpoint = |endpoint: &crate::cluster::model::SliceEndpoint| {
        let mut value = json!({
            "addresses": [endpoint.address.to_string()],
            "conditions": {"ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating},
        });
        if let Some(node) = &endpoint.node {
            value["nodeName"] = json!(**node);
        }
        if let Some(zone) = &endpoint.zone {
            value["zone"] = json!(**zone);
        }
        if let Some(hints) = &endpoint.hints {
            let names = |names: &[Text]| names.iter().map(|name| json!({"name": **name})).collect::<Vec<_>>();
            let lists = [("forZones", names(&hints.zones)), ("forNodes", names(&hints.nodes))];
            value["hints"] = lists.into_iter().filter(|(_, names)| !names.is_empty()).collect();
        }
        if let Some(pod) = &endpoint.pod {
            value["targetRef"] = json!({"kind": "Pod", "name": **pod, "namespace": *slice.id.namespace});
        }
        value
    };
    let port = |port: &crate::cluster::model::SlicePort| json!({"name": *port.name, "protocol": port.proto.name(), "port": port.port});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": *slice.id.name,
            "namespace": *slice.id.namespace,
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "vswitch",
                "kubernetes.io/service-name": slice.service.as_ref().map(|service| &*service.name),
            },
        },
        "addressType": slice.family.name(),
        "ports": slice.ports.iter().map(port).collect::<Vec<_>>(),
        "endpoints": slice.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn table(store: &Store, def: &KindDef, keys: &[Changed], wide: bool, every_namespace: bool) -> ObjectTable {
    let (headings, more): (&[&str], &[&str]) = match def.kind {
        Kind::Node => (&["NAME", "INTERNAL-IP", "POD-CIDRS"], &["LABELS", "EXTERNAL-IP"]),
        Kind::Namespace => (&["NAME"], &["LABELS"]),
        Kind::Pod => (&["NAME", "READY", "STATUS"], &["IP", "NODE"]),
        Kind::Service => (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"], &["SELECTOR"]),
        Kind::EndpointSlice => (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "MANAGED-BY"], &["SERVICE"]),
        Kind::ServiceCidr => (&["NAME", "CIDRS"], &[]),
        Kind::NetworkPolicy => (&["NAME", "POD-SELECTOR"], &["POLICY-TYPES", "INGRESS-RULES", "EGRESS-RULES"]),
        Kind::ClusterNetworkPolicy => (&["NAME", "TIER", "PRIORITY"], &["INGRESS-RULES", "EGRESS-RULES"]),
    };
    let with_namespace = every_namespace && def.namespaced;
    let width = headings.len() + if wide { more.len() } else { 0 };
    let headings =
        with_namespace.then_some("NAMESPACE").into_iter().chain(headings.iter().chain(more).take(width).copied());
    let line = |key: &Changed| {
        let (_, namespace, name) = super::parts(key);
        let mut cells = vec![name.to_owned()];
        cells.extend(cells_of(store, key, wide));
        cells.truncate(width);
        with_namespace.then(|| namespace.to_owned()).into_iter().chain(cells).collect()
    };
    ObjectTable { headings: headings.map(str::to_owned).collect(), rows: keys.iter().map(line).collect() }
}

/// What stands behind the name; with the columns of `wide`.
fn cells_of(store: &Store, key: &Changed, wide: bool) -> Vec<String> {
    let objects = store.objects();
    let none = Vec::new;
    match key {
        Changed::Node(name) => objects.nodes.get(name).map_or_else(none, |node| of_node(node)),
        Changed::Namespace(name) => objects.namespaces.get(name).map_or_else(none, |labels| vec![pairs(labels)]),
        Changed::Pod(id) => objects.pods.get(id).map_or_else(none, |pod| of_pod(pod)),
        Changed::Service(id) => objects.services.get(id).map_or_else(none, |service| of_service(service)),
        Changed::Slice(id) => objects.slices.get(id).map_or_else(none, |slice| of_slice(store, key, slice, wide)),
        Changed::ServiceCidr(name) => objects.service_cidrs.get(name).map_or_else(none, |c| vec![list(&c.prefixes)]),
        Changed::Policy(id) => objects.policies.get(id).map_or_else(none, |policy| of_policy(policy)),
        Changed::ClusterPolicy(name) => {
            objects.cluster_policies.get(name).map_or_else(none, |policy| of_cluster(policy))
        }
    }
}

fn of_node(node: &Node) -> Vec<String> {
    vec![list(&node.addresses), list(&node.pod_cidrs), pairs(&node.labels), list(&node.external)]
}

fn of_pod(pod: &Pod) -> Vec<String> {
    let status = match pod {
        Pod { finished: true, .. } => "Finished",
        Pod { terminating: true, .. } => "Terminating",
        Pod { addresses, .. } if addresses.is_empty() => "Pending",
        _ => "Running",
    };
    let node = pod.node.as_ref().map_or(NONE, |node| node);
    vec![pod.ready.to_string(), status.to_owned(), list(&pod.addresses), node.to_owned()]
}

fn of_service(service: &Service) -> Vec<String> {
    let kind = match service.kind {
        ServiceKind::ClusterIp | ServiceKind::Headless => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::ExternalName => "ExternalName",
    };
    let addresses = if service.kind == ServiceKind::Headless { "None".to_owned() } else { list(&service.cluster_ips) };
    let port = |port: &crate::cluster::model::ServicePort| match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.proto),
        None => format!("{}/{}", port.port, port.proto),
    };
    let ports: Vec<_> = service.ports.iter().map(port).collect();
    let external = &service.external;
    let beyond: Vec<_> = external.ingress.iter().map(|ingress| ingress.address).chain(external.ips.clone()).collect();
    let beyond = match service.kind {
        ServiceKind::LoadBalancer if beyond.is_empty() => "<pending>".to_owned(),
        _ => list(&beyond),
    };
    vec![kind.to_owned(), addresses, beyond, list(&ports), pairs(&service.selector)]
}

fn of_slice(store: &Store, key: &Changed, slice: &Arc<Slice>, wide: bool) -> Vec<String> {
    /// Endpoints and ports that are told when not all are wanted; kubectl's number.
    const SHORT: usize = 3;
    let some = |all: Vec<String>| match all.len() {
        0 => "<unset>".to_owned(),
        len if len > SHORT && !wide => format!("{} + {} more...", all[..SHORT].join(","), len - SHORT),
        _ => all.join(","),
    };
    let by = match store.text(key) {
        None => "vswitch".to_owned(),
        Some(text) => managed_by(text).unwrap_or_else(|| NONE.to_owned()),
    };
    let service = slice.service.as_ref().map_or(NONE, |service| &service.name);
    vec![
        slice.family.name().to_owned(),
        some(slice.ports.iter().map(|port| port.port.to_string()).collect()),
        some(slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()),
        by,
        service.to_owned(),
    ]
}

/// The label that says who made a slice.
fn managed_by(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let label = value.pointer("/metadata/labels/endpointslice.kubernetes.io~1managed-by")?;
    label.as_str().map(str::to_owned)
}

fn of_policy(policy: &NetworkPolicy) -> Vec<String> {
    let NetworkPolicy { id: _, subjects, ingress, egress } = policy;
    let directions = [("Ingress", ingress), ("Egress", egress)];
    let types: Vec<_> = directions.iter().filter(|(_, rules)| rules.is_some()).map(|(name, _)| *name).collect();
    let count =
        |rules: &Option<Vec<_>>| rules.as_ref().map_or_else(|| NONE.to_owned(), |rules| rules.len().to_string());
    vec![selector(subjects), list(&types), count(ingress), count(egress)]
}

fn of_cluster(policy: &ClusterPolicy) -> Vec<String> {
    let tier = match policy.tier {
        Tier::Admin => "Admin",
        Tier::Baseline => "Baseline",
    };
    let (ingress, egress) = (policy.ingress.len(), policy.egress.len());
    vec![tier.to_owned(), policy.priority.to_string(), ingress.to_string(), egress.to_string()]
}

/// A selector as kubectl writes it.
fn selector(selector: &Selector) -> String {
    let some_of = |values: &[Text]| values.iter().map(|value| &**value).collect::<Vec<_>>().join(",");
    let one = |Requirement { key, test }: &Requirement| match test {
        Test::In(values) if values.len() == 1 => format!("{key}={}", some_of(values)),
        Test::In(values) => format!("{key} in ({})", some_of(values)),
        Test::NotIn(values) => format!("{key} notin ({})", some_of(values)),
        Test::Exists => key.to_string(),
        Test::DoesNotExist => format!("!{key}"),
    };
    list(&selector.0.iter().map(one).collect::<Vec<_>>())
}

fn list<T: ToString>(all: &[T]) -> String {
    match all {
        [] => NONE.to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

fn pairs(labels: &crate::cluster::model::Labels) -> String {
    list(&labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
}
