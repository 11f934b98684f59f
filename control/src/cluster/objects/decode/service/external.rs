//! What of a Service is for clients from beyond the cluster: node ports, external addresses, load balancers.
//!
//! A field that its type has no use for is refused, as the API server does: somebody relies on it, and nothing would come
//! of it.

use std::net::IpAddr;

use super::{Checked, check, core, policy};
use crate::cluster::model::{External, Ingress, Policy, ServiceKind};

/// Addresses of a kind, and source ranges, of a service at most. Kubernetes has no limit but the size of the object.
const ADDRESS_LIMIT: usize = 100;
const RANGE_LIMIT: usize = 1000;

pub(super) fn external(
    kind: ServiceKind,
    spec: &core::ServiceSpec,
    status: Option<&core::ServiceStatus>,
) -> Checked<External> {
    let ips = external_ips(spec.external_ips.as_deref().unwrap_or_default())?;
    let sources = sources(kind, spec.load_balancer_source_ranges.as_deref().unwrap_or_default())?;
    let policy = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref())?;
    let reached = match kind {
        ServiceKind::NodePort | ServiceKind::LoadBalancer => true,
        ServiceKind::ClusterIp | ServiceKind::Headless => !ips.is_empty(),
        ServiceKind::ExternalName => false,
    };
    if policy == Policy::Local && !reached {
        let rule = "may be given for type NodePort or LoadBalancer, or with externalIPs, only";
        return Err(check::fault("spec.externalTrafficPolicy", "Local", rule));
    }
    let health_port = health_port(kind, policy, spec.health_check_node_port)?;
    // The status of a service that was of type LoadBalancer once says nothing.
    let ingress = match kind {
        ServiceKind::LoadBalancer => ingress(status)?,
        _ => Vec::new(),
    };
    Ok(if reached { External { policy, ips, ingress, sources, health_port } } else { External::default() })
}

/// `nodePort` of one port; 0 is none.
pub(super) fn node_port(kind: ServiceKind, field: &str, value: Option<i32>) -> Checked<Option<u16>> {
    match (kind, value.filter(|&port| port != 0)) {
        (ServiceKind::NodePort | ServiceKind::LoadBalancer, Some(port)) => check::port(field, port).map(Some),
        // A load balancer may do without: rule V12.
        (ServiceKind::NodePort, None) => {
            Err(format!("{field}: must be given for type NodePort: nobody assigns node ports here"))
        }
        (_, Some(port)) => Err(check::fault(field, port, "may be given for type NodePort or LoadBalancer only")),
        (_, None) => Ok(None),
    }
}

fn external_ips(texts: &[String]) -> Checked<Vec<IpAddr>> {
    if texts.len() > ADDRESS_LIMIT {
        return Err(check::fault("spec.externalIPs", texts.len(), &format!("may hold {ADDRESS_LIMIT} addresses")));
    }
    let mut ips = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let ip = check::address(format_args!("spec.externalIPs[{i}]"), text)?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

fn sources(kind: ServiceKind, texts: &[String]) -> Checked<Vec<ipnet::IpNet>> {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    match texts {
        [] => return Ok(Vec::new()),
        [first, ..] if kind != ServiceKind::LoadBalancer => {
            return Err(check::fault(format_args!("{FIELD}[0]"), first, "may be given for type LoadBalancer only"));
        }
        all if all.len() > RANGE_LIMIT => {
            return Err(check::fault(FIELD, all.len(), &format!("may hold {RANGE_LIMIT} prefixes")));
        }
        _ => {}
    }
    let each = |(i, text): (usize, &String)| check::range(format_args!("{FIELD}[{i}]"), text);
    texts.iter().enumerate().map(each).collect()
}

/// Load balancers ask at this port whether to send traffic to the node: for policy Local only.
fn health_port(kind: ServiceKind, policy: Policy, value: Option<i32>) -> Checked<Option<u16>> {
    const FIELD: &str = "spec.healthCheckNodePort";
    match value.filter(|&port| port != 0) {
        None => Ok(None),
        Some(port) if kind == ServiceKind::LoadBalancer && policy == Policy::Local => {
            check::port(FIELD, port).map(Some)
        }
        Some(port) => {
            Err(check::fault(FIELD, port, "may be given for type LoadBalancer with externalTrafficPolicy Local only"))
        }
    }
}

fn ingress(status: Option<&core::ServiceStatus>) -> Checked<Vec<Ingress>> {
    const FIELD: &str = "status.loadBalancer.ingress";
    let all = status.and_then(|status| status.load_balancer.as_ref()).and_then(|balancer| balancer.ingress.as_ref());
    let all = all.map_or(&[][..], |all| all);
    if all.len() > ADDRESS_LIMIT {
        return Err(check::fault(FIELD, all.len(), &format!("may hold {ADDRESS_LIMIT} addresses")));
    }
    let mut ingress: Vec<Ingress> = Vec::with_capacity(all.len());
    for (i, one) in all.iter().enumerate() {
        // One that is known by a name only is found by its clients themselves.
        let Some(ip) = one.ip.as_deref().filter(|ip| !ip.is_empty()) else { continue };
        let address = check::address(format_args!("{FIELD}[{i}].ip"), ip)?;
        let proxied = match one.ip_mode.as_deref() {
            None | Some("" | "VIP") => false,
            Some("Proxy") => true,
            Some(other) => {
                return Err(check::fault(format_args!("{FIELD}[{i}].ipMode"), other, "must be VIP or Proxy"));
            }
        };
        if ingress.iter().all(|before| before.address != address) {
            ingress.push(Ingress { address, proxied });
        }
    }
    Ok(ingress)
}
