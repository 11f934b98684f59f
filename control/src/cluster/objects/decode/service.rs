//! Services: their addresses, ports, and whom they select.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Checked, check, core, labels};
use crate::cluster::model::{
    Distribution, Family, Labels, Named, Policy, Service, ServiceKind, ServicePort, TargetPort,
};
use crate::cluster::objects::Texts;

mod external;

/// Ports of a service at most. Kubernetes has no limit but the size of the object.
const PORT_LIMIT: usize = 1000;
/// Seconds that a client is remembered for when nobody says how long, and at most (`DefaultClientIPServiceAffinitySeconds`,
/// `MaxClientIPServiceAffinitySeconds` of Kubernetes).
const AFFINITY: i32 = 10_800;
const AFFINITY_LIMIT: i32 = 86_400;

pub(super) fn service(object: core::Service, id: Named, texts: &mut Texts) -> Checked<Service> {
    let own_labels = labels(&object.metadata, texts)?;
    let annotations = annotations(object.metadata.annotations.iter().flatten(), texts);
    let Some(spec) = object.spec else { return Err("spec: must be given".to_owned()) };
    let selector = texts.labels(spec.selector.iter().flatten());
    check::labels("spec.selector", &selector)?;
    let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (None | Some("" | "ClusterIP"), Some("None")) => ServiceKind::Headless,
        (None | Some("" | "ClusterIP"), _) => ServiceKind::ClusterIp,
        (Some("NodePort"), _) => ServiceKind::NodePort,
        (Some("LoadBalancer"), _) => ServiceKind::LoadBalancer,
        (Some("ExternalName"), _) => ServiceKind::ExternalName,
        (Some(other), _) => {
            return Err(check::fault("spec.type", other, "must be ClusterIP, NodePort, LoadBalancer or ExternalName"));
        }
    };
    let cluster_ips = cluster_ips(kind, &spec)?;
    let families = families(kind, &spec, &cluster_ips)?;
    if kind == ServiceKind::ExternalName {
        match spec.external_name.as_deref() {
            None | Some("") => return Err("spec.externalName: must be given for type ExternalName".to_owned()),
            Some(name) => check::subdomain("spec.externalName", name.strip_suffix('.').unwrap_or(name))?,
        }
    }
    let ports = ports(kind, spec.ports.as_deref().unwrap_or_default(), texts)?;
    let affinity = affinity(&spec)?;
    let internal_policy = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref())?;
    let distribution = distribution(spec.traffic_distribution.as_deref())?;
    let external = external::external(kind, &spec, object.status.as_ref())?;
    Ok(Service {
        id,
        labels: own_labels,
        annotations,
        kind,
        cluster_ips,
        families,
        selector,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        ports,
        created: object.metadata.creation_timestamp.map(|time| time.0.as_second()),
        affinity,
        internal_policy,
        distribution,
        external,
    })
}

/// `sessionAffinity` and its configuration, as seconds.
fn affinity(spec: &core::ServiceSpec) -> Checked<Option<u32>> {
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    match (spec.session_affinity.as_deref(), seconds) {
        (None | Some("" | "None"), None) => Ok(None),
        (None | Some("" | "None"), Some(seconds)) => {
            Err(check::fault(field, seconds, "may be given for sessionAffinity ClientIP only"))
        }
        (Some("ClientIP"), seconds) => {
            let seconds = seconds.unwrap_or(AFFINITY);
            let good = u32::try_from(seconds).ok().filter(|_| (1..=AFFINITY_LIMIT).contains(&seconds));
            let rule = format!("must be between 1 and {AFFINITY_LIMIT}");
            good.map(Some).ok_or_else(|| check::fault(field, seconds, &rule))
        }
        (Some(other), _) => Err(check::fault("spec.sessionAffinity", other, "must be None or ClientIP")),
    }
}

/// A traffic policy; Cluster when none is given.
fn policy(field: &str, value: Option<&str>) -> Checked<Policy> {
    match value {
        None | Some("" | "Cluster") => Ok(Policy::Cluster),
        Some("Local") => Ok(Policy::Local),
        Some(other) => Err(check::fault(field, other, "must be Cluster or Local")),
    }
}

fn distribution(value: Option<&str>) -> Checked<Distribution> {
    match value {
        None | Some("") => Ok(Distribution::Even),
        Some("PreferSameZone" | "PreferClose") => Ok(Distribution::SameZone),
        Some("PreferSameNode") => Ok(Distribution::SameNode),
        Some(other) => {
            let rule = "must be PreferSameZone, PreferSameNode or PreferClose";
            Err(check::fault("spec.trafficDistribution", other, rule))
        }
    }
}

/// Those that change how a service is programmed: ours, and those of topology.
fn annotations<'a>(all: impl Iterator<Item = (&'a String, &'a String)>, texts: &mut Texts) -> Labels {
    const WANTED: [&str; 2] = ["vswitch.io/", "service.kubernetes.io/topology-"];
    texts.labels(all.filter(|(key, _)| WANTED.iter().any(|wanted| key.starts_with(wanted))))
}

fn cluster_ips(kind: ServiceKind, spec: &core::ServiceSpec) -> Checked<Vec<IpAddr>> {
    let first = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    match kind {
        ServiceKind::ExternalName => {
            return match first {
                Some(ip) if ip != "None" => {
                    Err(check::fault("spec.clusterIP", ip, "a service of type ExternalName has none"))
                }
                _ => Ok(Vec::new()),
            };
        }
        ServiceKind::Headless => {
            return match all.iter().find(|ip| *ip != "None") {
                Some(ip) => {
                    Err(check::fault("spec.clusterIPs[0]", ip, "must be that of spec.clusterIP, which is None"))
                }
                None => Ok(Vec::new()),
            };
        }
        _ => {}
    }
    let Some(first) = first else {
        return Err("spec.clusterIP: must be given: nobody assigns addresses here".to_owned());
    };
    let first = check::address("spec.clusterIP", first)?;
    if all.is_empty() {
        return Ok(vec![first]);
    }
    let each = |(i, ip): (usize, &String)| check::address(format_args!("spec.clusterIPs[{i}]"), ip);
    let addresses = all.iter().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    if addresses.first() != Some(&first) {
        let of_list = all.first().map_or("", |ip| ip);
        return Err(check::fault("spec.clusterIPs[0]", of_list, "must be that of spec.clusterIP"));
    }
    let families: Vec<_> = addresses.iter().map(Family::of).collect();
    check::one_each("spec.clusterIPs", &addresses, &families)?;
    Ok(addresses)
}

fn families(kind: ServiceKind, spec: &core::ServiceSpec, cluster_ips: &[IpAddr]) -> Checked<Vec<Family>> {
    let given = spec.ip_families.as_deref().unwrap_or_default();
    let each = |(i, name): (usize, &String)| check::family(format_args!("spec.ipFamilies[{i}]"), name);
    let families = given.iter().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    check::one_each("spec.ipFamilies", given, &families)?;
    let of_addresses: Vec<_> = cluster_ips.iter().map(Family::of).collect();
    for (i, (family, of_address)) in families.iter().zip(&of_addresses).enumerate() {
        if family != of_address {
            let rule = format!("spec.clusterIPs[{i}] is of {}", of_address.name());
            return Err(check::fault(format_args!("spec.ipFamilies[{i}]"), family.name(), &rule));
        }
    }
    Ok(match kind {
        ServiceKind::ExternalName => Vec::new(),
        ServiceKind::Headless if families.is_empty() => vec![Family::V4, Family::V6],
        ServiceKind::Headless => families,
        _ => of_addresses,
    })
}

fn ports(kind: ServiceKind, ports: &[core::ServicePort], texts: &mut Texts) -> Checked<Vec<ServicePort>> {
    if ports.is_empty() && !matches!(kind, ServiceKind::Headless | ServiceKind::ExternalName) {
        return Err("spec.ports: must hold at least one port".to_owned());
    }
    if ports.len() > PORT_LIMIT {
        return Err(check::fault("spec.ports", ports.len(), &format!("may hold {PORT_LIMIT} ports")));
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut checked = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            check::label(&field("name"), name)?;
        } else if ports.len() > 1 {
            return Err(format!("{}: must be given when there are several ports", field("name")));
        }
        if !names.insert(name) {
            return Err(check::fault(field("name"), name, "another port has this name"));
        }
        let number = check::port(field("port"), port.port)?;
        let proto = check::protocol(field("protocol"), port.protocol.as_deref())?;
        if !numbers.insert((proto, number)) {
            let rule = format!("another port of {proto} has this number");
            return Err(check::fault(field("port"), number, &rule));
        }
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(check::port(field("targetPort"), *target)?),
            Some(IntOrString::String(target)) if target.is_empty() => TargetPort::Number(number),
            Some(IntOrString::String(target)) => {
                check::port_name(&field("targetPort"), target)?;
                TargetPort::Name(texts.of(target))
            }
        };
        let node_port = external::node_port(kind, &field("nodePort"), port.node_port)?;
        if let Some(number) = node_port.filter(|number| !node_ports.insert((proto, *number))) {
            let rule = format!("another port of {proto} has this number");
            return Err(check::fault(field("nodePort"), number, &rule));
        }
        checked.push(ServicePort { name: texts.of(name), proto, port: number, target, node_port });
    }
    Ok(checked)
}
