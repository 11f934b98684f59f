//! Nodes: the router of ours, whether it may get traffic, and where the podCIDRs of all lead.

use std::net::IpAddr;

use api::{AddressKey, Eligibility, Endpoint, EndpointKind, Hop, Port, PortId, Route, RouteKey, Router, Vlan};
use ipnet::IpNet;

use super::binding::NodeContext;
use super::{Compiler, Origin, Owner, stable};
use crate::cluster::model::Node;

/// Kind and name of the port [`PortId::STACK`].
pub(crate) const STACK: &str = "stack";

impl Compiler {
    /// The router, its port, its addresses and those of the node.
    pub(super) fn claim_router(&mut self) {
        let node = self.nodes.get(&*self.settings.name).cloned();
        let (mut stack, mut router, mut gateways, mut own) = (None, None, Vec::new(), Vec::new());
        if let Some(context) = self.active() {
            let made = self.router(context, node.as_deref());
            let endpoint = |address, kind, port, mac, name: String| {
                let key = AddressKey { bridge: context.bridge, address };
                (key, Endpoint { key, port, mac, kind, identity: stable::hash(&name), name })
            };
            gateways.extend(made.gateways.iter().map(|gateway| {
                endpoint(gateway.addr(), EndpointKind::Gateway, PortId::STACK, self.mac, "gateway".to_owned())
            }));
            if let (Some(local), Some(node)) = (context.local, node) {
                // An external address at which node ports are served is the node's; any other may be a gateway's, far off.
                let served = node.external.iter().filter(|address| self.here.node_ports.contains(address));
                own.extend(node.addresses.iter().chain(served).map(|&address| {
                    endpoint(address, EndpointKind::Node, local.port, local.mac, format!("node/{}", node.name))
                }));
            }
            stack = Some((PortId::STACK, self.stack(context)));
            router = Some((context.bridge, made));
        }
        self.told.stack.set(&(), stack);
        self.told.routers.set(&(), router);
        self.told.endpoints.set(&Owner::Gateway, gateways);
        self.told.endpoints.set(&Owner::Node, own);
    }

    /// Whether load balancers may send traffic to this node.
    pub(super) fn claim_eligibility(&mut self) {
        let name = &self.settings.name;
        let why_not = match self.nodes.get(&**name) {
            None => Some(format!("node/{name}: there is no such object")),
            Some(node) => node.leaving.map(|leaving| format!("node/{name} {leaving}")),
        };
        self.told.eligibility.set(&(), self.any.then_some(((), Eligibility { why_not })));
    }

    /// Where the podCIDRs of a node lead.
    pub(super) fn claim_node_routes(&mut self, name: &crate::cluster::model::Text) {
        let own = **name == *self.settings.name;
        // To other nodes there is no tunnel yet: better refused than lost.
        let (claimant, to, origin) = match own {
            true => (Origin::Own, Hop::Endpoint, "pod-cidr".to_owned()),
            false => (Origin::Node(name.clone()), Hop::Unreachable, format!("node/{name}")),
        };
        let mut routes = Vec::new();
        if let (Some(context), Some(node)) = (self.active(), self.nodes.get(name)) {
            routes.extend(node.pod_cidrs.iter().map(|prefix| {
                let key = RouteKey { bridge: context.bridge, prefix: prefix.trunc() };
                (key, Route { key, to, origin: origin.clone() })
            }));
        }
        self.told.routes.set(&claimant, routes);
    }

    fn router(&self, context: &NodeContext, node: Option<&Node>) -> Router {
        Router {
            bridge: context.bridge,
            mac: self.mac,
            gateways: node.iter().flat_map(|node| node.pod_cidrs.iter().filter_map(gateway)).collect(),
            node: node.into_iter().flat_map(Node::primary).collect(),
            uplink: context.uplink,
            local: context.local.map(|local| local.port),
            snat_ports: self.settings.snat_ports,
        }
    }

    fn stack(&self, context: &NodeContext) -> Port {
        Port {
            id: PortId::STACK,
            name: STACK.to_owned(),
            bridge: context.bridge,
            ofport: 0,
            kind: STACK.to_owned(),
            options: Default::default(),
            vlan: Vlan::default(),
            mac: Some(self.mac),
            mtu: Port::MTU,
            external_ids: Default::default(),
        }
    }
}

/// The first address of a podCIDR, with its prefix length; `None` for a prefix of one address, which has no room for a
/// gateway beside a pod.
pub(crate) fn gateway(prefix: &IpNet) -> Option<IpNet> {
    let network = prefix.network();
    let first = match network {
        IpAddr::V4(address) => IpAddr::V4(u32::from(address).checked_add(1)?.into()),
        IpAddr::V6(address) => IpAddr::V6(u128::from(address).checked_add(1)?.into()),
    };
    prefix.contains(&first).then(|| IpNet::new(first, prefix.prefix_len()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_first_address_of_a_pod_cidr() {
        let gateway = |prefix: &str| gateway(&prefix.parse().unwrap()).map(|gateway| gateway.to_string());
        assert_eq!(gateway("10.244.1.0/24").unwrap(), "10.244.1.1/24");
        assert_eq!(gateway("fd00:1::/64").unwrap(), "fd00:1::1/64");
        assert_eq!(gateway("255.255.255.255/32"), None);
        assert_eq!(gateway("10.0.0.0/32"), None);
    }
}
