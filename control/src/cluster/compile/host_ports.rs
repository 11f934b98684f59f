//! Host ports: ports of the node that lead to a port of one container, as its attachment was asked for.
//!
//! They are services with one backend, at the addresses at which node ports are served or at the one that was asked for,
//! behind all services of Kubernetes: a host port never takes a node port away. Clients from beyond the node keep their
//! address (as under externalTrafficPolicy Local), and the node's own processes are led to the container itself.
//!
//! Worked example, on a node at 192.0.2.1: the attachment of pod `default/web`, 10.1.0.2, asks for 8080 → TCP 80. There is one
//! noun: `192.0.2.1 TCP 8080`, named `default/web:8080`, with 10.1.0.2:80 as its backend and as `local`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{External, HostPort, Interface, PortId, Service, ServiceKey};

use super::Compiler;
use super::contests::Claimant;
use super::here::Here;
use crate::cluster::model::Named;
use crate::store::attachments::Attachment;

/// Octets of a container's name that people are shown.
const SHORT: usize = 12;

/// Whom people see behind the host ports of an attachment: its pod, else its container and interface.
pub(crate) fn owner(attachment: &Attachment) -> Named {
    match &attachment.pod {
        Some(pod) => Named { namespace: pod.namespace.as_str().into(), name: pod.name.as_str().into() },
        None => {
            let container: String = attachment.id.container.chars().take(SHORT).collect();
            Named { namespace: container.into(), name: attachment.id.ifname.as_str().into() }
        }
    }
}

/// `NAMESPACE/NAME:PORT`.
pub(crate) fn name(attachment: &Attachment, port: &HostPort) -> String {
    let Named { namespace, name } = owner(attachment);
    format!("{namespace}/{name}:{}", port.port)
}

/// Where a host port is reached, and the container's address that is behind it there.
pub(crate) fn places(port: &HostPort, interface: &Interface, here: &Here) -> Vec<(ServiceKey, SocketAddr)> {
    let mut places = Vec::new();
    for address in addresses(port, here) {
        let behind = interface.addresses.iter().map(|own| own.address.addr());
        let behind =
            behind.filter(|own| own.is_ipv4() == address.is_ipv4()).map(|own| SocketAddr::new(own, port.container));
        let key = ServiceKey { address, proto: port.proto, port: port.port };
        // Its first address of the family.
        places.extend(behind.take(1).map(|behind| (key, behind)));
    }
    places
}

/// The node's addresses that a host port is at. The unspecified address stands for all of its family.
fn addresses(port: &HostPort, here: &Here) -> Vec<IpAddr> {
    let of_family = |family: Option<IpAddr>| {
        let wanted = move |address: &&IpAddr| family.is_none_or(|family| family.is_ipv4() == address.is_ipv4());
        here.node_ports.iter().filter(wanted).copied().collect()
    };
    match port.address {
        Some(address) if !address.is_unspecified() => here.all.iter().filter(|own| **own == address).copied().collect(),
        family => of_family(family),
    }
}

/// The nouns of an attachment.
fn nouns(attachment: &Attachment, here: &Here) -> Vec<(ServiceKey, Service)> {
    let mut nouns = Vec::new();
    for port in &attachment.host_ports {
        let name: Arc<str> = name(attachment, port).into();
        for (key, behind) in places(port, &attachment.interface, here) {
            let backends: Arc<[SocketAddr]> = Arc::from([behind]);
            let external = External { local: Some(Arc::clone(&backends)), sources: None, cluster: behind };
            let service = Service::new(key, Arc::clone(&name), backends);
            nouns.push((key, Service { external: Some(Arc::new(external)), ..service }));
        }
    }
    nouns
}

impl Compiler {
    /// Claim the host ports of attachments, those that were there `before` included.
    pub(super) fn claim_host_ports(&mut self, before: &BTreeMap<PortId, Attachment>) {
        let now = self.context.as_ref().map(|context| &context.attachments);
        let claimant = |attachment: &Attachment| Claimant::host_port(attachment.port, owner(attachment));
        let has_some = |attachment: &&Attachment| !attachment.host_ports.is_empty();
        for gone in before.values().filter(has_some) {
            if now.and_then(|now| now.get(&gone.port)) != Some(gone) {
                self.told.services.set(&claimant(gone), []);
            }
        }
        for attachment in now.into_iter().flat_map(BTreeMap::values).filter(has_some) {
            self.told.services.set(&claimant(attachment), nouns(attachment, &self.here));
        }
    }

    /// Whether a host port is at an address that can be served.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn check_host_port(&self, port: &HostPort) -> Result<(), String> {
        match port.address.filter(|address| !address.is_unspecified()) {
            Some(address) if !self.here.all.contains(&address) => {
                Err(format!("hostIP {address}: no address of node {}", self.settings.name))
            }
            _ => Ok(()),
        }
    }
}
