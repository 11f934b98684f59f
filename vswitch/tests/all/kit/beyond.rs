//! Services that are reached from beyond the cluster: at node ports, external addresses and load balancers'.

use std::net::SocketAddr;

use vswitch::sys::netlink::Netlink;

use super::{Bed, FAMILIES, Host, TARGETS, service_with, slice};

/// Node port of [`beyond`], TCP and UDP.
pub(crate) const NODE_PORT: u16 = 30080;
/// By IP version: addresses that the node has not, nor anybody else.
pub(crate) const EXTERNAL: [&str; 2] = ["198.51.100.250", "2001:db8:e::250"];
pub(crate) const BALANCER: [&str; 2] = ["198.51.100.251", "2001:db8:e::251"];
/// The ports of [`beyond`].
pub(crate) const NODE_PORTS: &str = "{name: t, protocol: TCP, port: 80, targetPort: 8080, nodePort: 30080}, \
                                     {name: u, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080}";
/// What makes an EndpointSlice's endpoint this node's, or another's.
pub(crate) const HERE: &str = "n1";
pub(crate) const THERE: &str = "n2";

/// A Service of type LoadBalancer at the `n`th address, with a node port, an external address and a load balancer's.
pub(crate) fn beyond(name: &str, n: u16, spec: &str) -> String {
    beyond_with(name, n, NODE_PORTS, spec)
}

/// The same with ports of its own.
pub(crate) fn beyond_with(name: &str, n: u16, ports: &str, spec: &str) -> String {
    let ([v4, v6], [balancer4, balancer6]) = (EXTERNAL, BALANCER);
    let spec = format!(", type: LoadBalancer, externalIPs: [{v4}, '{v6}']{spec}");
    service_with(name, n, ports, "", &spec)
        + &format!("status: {{loadBalancer: {{ingress: [{{ip: {balancer4}}}, {{ip: '{balancer6}'}}]}}}}\n")
}

/// EndpointSlices of both IP versions of a service: hosts at port 8080, their nodes, and what else is to be said of each.
pub(crate) fn on_nodes(service: &str, hosts: &[(&Host, &str, &str)]) -> String {
    let of = |family: usize| {
        let endpoint = |(host, node, more): &(&Host, &str, &str)| {
            format!("{{addresses: ['{}'], nodeName: {node}, {more}}}", host.addresses[family])
        };
        let endpoints: Vec<_> = hosts.iter().map(endpoint).collect();
        slice(service, ["v4", "v6"][family], ["IPv4", "IPv6"][family], TARGETS, &endpoints.join(", "))
    };
    of(0) + &of(1)
}

impl Bed {
    /// Where [`beyond`] is reached: its node port, its external address, its load balancer's.
    pub(crate) fn places(&self, family: usize) -> [SocketAddr; 3] {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 80);
        [self.node.at(family, NODE_PORT), at(EXTERNAL[family]), at(BALANCER[family])]
    }

    /// The outside sends to the node what is for services, and the node answers the outside for itself.
    pub(crate) fn lead_the_outside_here(&self) {
        self.node.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("br-pods").unwrap();
            for family in FAMILIES {
                let to = (self.outside.address(family), [32, 128][family]);
                netlink.add_route(to, None, Some(index)).unwrap();
            }
        });
        self.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            for family in FAMILIES {
                for address in [EXTERNAL[family], BALANCER[family]] {
                    let to = (address.parse().unwrap(), [32, 128][family]);
                    netlink.add_route(to, Some(self.node.address(family)), Some(index)).unwrap();
                }
            }
        });
    }
}
