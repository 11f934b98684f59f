//! Pods: where they are, their addresses, their named ports, whether they serve.

use std::collections::BTreeSet;

use super::bandwidth::bandwidth;
use super::{Checked, check, core, labels};
use crate::cluster::model::{ContainerPort, Family, Named, Pod};
use crate::cluster::objects::Texts;

pub(super) fn pod(object: core::Pod, id: Named, texts: &mut Texts) -> Checked<Pod> {
    let labels = labels(&object.metadata, texts)?;
    let bandwidth = bandwidth(object.metadata.annotations.as_ref())?;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let node = spec.node_name.filter(|node| !node.is_empty());
    if let Some(node) = &node {
        check::subdomain("spec.nodeName", node)?;
    }
    let mut ports = Vec::new();
    container_ports("spec.containers", &spec.containers, &mut ports, texts)?;
    // A container that restarts is a sidecar: it runs beside the others.
    let init = spec.init_containers.unwrap_or_default();
    let mut of_sidecars = Vec::new();
    for (i, container) in init.iter().enumerate() {
        let mut own = Vec::new();
        one_container(&format!("spec.initContainers[{i}]"), container, &mut own, texts)?;
        if container.restart_policy.as_deref() == Some("Always") {
            of_sidecars.extend(own);
        }
    }
    ports.extend(of_sidecars);
    let ips = status.pod_ips.unwrap_or_default();
    let addresses = addresses(status.pod_ip.as_deref().filter(|ip| !ip.is_empty()), &ips)?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    Ok(Pod {
        id,
        uid: texts.of(object.metadata.uid.as_deref().unwrap_or_default()),
        labels,
        node: node.map(|node| texts.of(&node)),
        host_network: spec.host_network.unwrap_or(false),
        addresses,
        ready: condition("Ready").is_some_and(|ready| ready.status == "True"),
        terminating: object.metadata.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ports,
        bandwidth,
    })
}

/// `status.podIP` and `status.podIPs`: rule M5.
fn addresses(first: Option<&str>, all: &[core::PodIP]) -> Checked<Vec<std::net::IpAddr>> {
    if all.is_empty() {
        return first.map(|ip| check::address("status.podIP", ip)).into_iter().collect();
    }
    let each = |(i, ip): (usize, &core::PodIP)| check::address(format_args!("status.podIPs[{i}].ip"), &ip.ip);
    let addresses = all.iter().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    if let (Some(first), Some(of_list)) = (first, addresses.first())
        && check::address("status.podIP", first)? != *of_list
    {
        return Err(check::fault("status.podIPs[0].ip", of_list, "must be that of status.podIP"));
    }
    let families: Vec<_> = addresses.iter().map(Family::of).collect();
    check::one_each("status.podIPs", &addresses, &families)?;
    Ok(addresses)
}

fn container_ports(
    field: &str,
    containers: &[core::Container],
    ports: &mut Vec<ContainerPort>,
    texts: &mut Texts,
) -> Checked<()> {
    let mut each = containers.iter().enumerate();
    each.try_for_each(|(i, container)| one_container(&format!("{field}[{i}]"), container, ports, texts))
}

fn one_container(
    field: &str,
    container: &core::Container,
    ports: &mut Vec<ContainerPort>,
    texts: &mut Texts,
) -> Checked<()> {
    let mut names = BTreeSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let field = |name: &str| format!("{field}.ports[{i}].{name}");
        let number = check::port(field("containerPort"), port.container_port)?;
        let proto = check::protocol(field("protocol"), port.protocol.as_deref())?;
        let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        check::port_name(&field("name"), name)?;
        if !names.insert(name) {
            return Err(check::fault(field("name"), name, "another port of this container has this name"));
        }
        ports.push(ContainerPort { name: texts.of(name), proto, port: number });
    }
    Ok(())
}
