//! Whose each address is: no two objects in force may have one, and no service's may be where pods are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Object;
use super::check::{Checked, fault};
use crate::cluster::compile::node::gateway;
use crate::cluster::model::{Named, Node, Pod, Service, Text};

/// Addresses of the objects in force.
#[derive(Debug, Default)]
pub(super) struct Taken {
    services: BTreeMap<IpAddr, Named>,
    nodes: BTreeMap<IpAddr, Text>,
    /// Of live pods that are not of the host network.
    pods: BTreeMap<IpAddr, Named>,
    /// By first address. No two overlap, so the one that holds an address begins at or next before it.
    pod_cidrs: BTreeMap<IpAddr, (IpNet, Text)>,
}

/// Whether two prefixes have an address in common.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl Taken {
    /// Why an object cannot be beside those in force: field, value, and the other. Its own older self does not count.
    pub(super) fn check(&self, object: &Object) -> Checked<()> {
        match object {
            Object::Node(node) => self.check_node(node),
            Object::Pod(pod) if owns_addresses(pod) => self.check_pod(pod),
            Object::Service(service) => self.check_service(service),
            _ => Ok(()),
        }
    }

    pub(super) fn add(&mut self, object: &Object) {
        match object {
            Object::Node(node) => {
                self.nodes.extend(node.addresses.iter().map(|address| (*address, node.name.clone())));
                let cidrs = node.pod_cidrs.iter();
                self.pod_cidrs.extend(cidrs.map(|net| (net.network(), (*net, node.name.clone()))));
            }
            Object::Pod(pod) if owns_addresses(pod) => {
                self.pods.extend(pod.addresses.iter().map(|address| (*address, pod.id.clone())));
            }
            Object::Service(service) => {
                self.services.extend(service.cluster_ips.iter().map(|address| (*address, service.id.clone())));
            }
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        match object {
            Object::Node(node) => {
                node.addresses.iter().for_each(|address| drop(self.nodes.remove(address)));
                node.pod_cidrs.iter().for_each(|net| drop(self.pod_cidrs.remove(&net.network())));
            }
            Object::Pod(pod) if owns_addresses(pod) => {
                pod.addresses.iter().for_each(|address| drop(self.pods.remove(address)));
            }
            Object::Service(service) => {
                service.cluster_ips.iter().for_each(|address| drop(self.services.remove(address)));
            }
            _ => {}
        }
    }

    fn check_node(&self, node: &Node) -> Checked<()> {
        for (i, net) in node.pod_cidrs.iter().enumerate() {
            let field = format_args!("spec.podCIDRs[{i}]");
            let before = self.pod_cidrs.range(..=net.broadcast()).rev();
            // At most one that begins before it reaches into it; those of this node do not count.
            let other = before.map(|(_, (other, name))| (other, name)).find(|(_, name)| **name != node.name);
            if let Some((other, name)) = other.filter(|(other, _)| overlap(other, net)) {
                return Err(fault(field, net, &format!("overlaps {other} of node/{name}")));
            }
            let service = self.services.range(net.network()..=net.broadcast()).next();
            if let Some((address, service)) = service {
                return Err(fault(field, net, &format!("holds {address}, the address of {}", of("service", service))));
            }
            let gateway = gateway(net).map(|gateway| gateway.addr());
            if let Some((gateway, pod)) = gateway.and_then(|gateway| Some((gateway, self.pods.get(&gateway)?))) {
                return Err(fault(field, net, &format!("its gateway {gateway} is the address of {}", of("pod", pod))));
            }
        }
        for address in &node.addresses {
            let field = "status.addresses";
            if let Some(other) = self.nodes.get(address).filter(|other| **other != node.name) {
                return Err(fault(field, address, &format!("is the address of node/{other}")));
            }
            if let Some(service) = self.services.get(address) {
                return Err(fault(field, address, &format!("is the address of {}", of("service", service))));
            }
            if let Some(pod) = self.pods.get(address) {
                return Err(fault(field, address, &format!("is the address of {}", of("pod", pod))));
            }
        }
        Ok(())
    }

    fn check_pod(&self, pod: &Pod) -> Checked<()> {
        for (i, address) in pod.addresses.iter().enumerate() {
            let field = format_args!("status.podIPs[{i}].ip");
            if let Some(other) = self.pods.get(address).filter(|other| **other != pod.id) {
                return Err(fault(field, address, &format!("is the address of {}", of("pod", other))));
            }
            if let Some(service) = self.services.get(address) {
                return Err(fault(field, address, &format!("is the address of {}", of("service", service))));
            }
            if let Some(node) = self.nodes.get(address) {
                return Err(fault(field, address, &format!("is the address of node/{node}")));
            }
            if let Some((net, node)) = self.pod_cidr(address)
                && gateway(net).is_some_and(|gateway| gateway.addr() == *address)
            {
                return Err(fault(field, address, &format!("is the gateway of {net}, the pods of node/{node}")));
            }
        }
        Ok(())
    }

    /// The podCIDR that an address is in, and its node.
    fn pod_cidr(&self, address: &IpAddr) -> Option<&(IpNet, Text)> {
        let (_, found) = self.pod_cidrs.range(..=address).next_back()?;
        found.0.contains(address).then_some(found)
    }

    fn check_service(&self, service: &Service) -> Checked<()> {
        for (i, address) in service.cluster_ips.iter().enumerate() {
            let field = if i == 0 { "spec.clusterIP".to_owned() } else { format!("spec.clusterIPs[{i}]") };
            if let Some(other) = self.services.get(address).filter(|other| **other != service.id) {
                return Err(fault(field, address, &format!("is the address of {}", of("service", other))));
            }
            if let Some(node) = self.nodes.get(address) {
                return Err(fault(field, address, &format!("is the address of node/{node}")));
            }
            if let Some(pod) = self.pods.get(address) {
                return Err(fault(field, address, &format!("is the address of {}", of("pod", pod))));
            }
            if let Some((net, node)) = self.pod_cidr(address) {
                return Err(fault(field, address, &format!("is in {net}, the pods of node/{node}")));
            }
        }
        Ok(())
    }
}

fn owns_addresses(pod: &Pod) -> bool {
    !pod.host_network && !pod.finished
}

fn of(kind: &str, id: &Named) -> String {
    format!("{kind}/{} in namespace {}", id.name, id.namespace)
}
