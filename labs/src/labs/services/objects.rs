//! The services of the lab, and their manifests.

use std::net::SocketAddr;

use crate::labs::cluster::{Dual, FAMILIES, GREETER, Ip, NODE};

/// Where the lab's services are reached from beyond the cluster, but for node ports.
pub(super) const EXTERNAL: Dual = Dual("203.0.113.250", "2001:db8:e::250");
pub(super) const BALANCER: Dual = Dual("203.0.113.251", "2001:db8:e::251");
/// Port of every service.
const PORT: u16 = 80;
/// The second port of pods a and b.
pub(super) const SECOND: u16 = 8081;

/// A service: its name, its cluster address, its pods and their port, and its node port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    address: Dual,
    /// Labels of its pods; without any, its endpoints are given by a slice.
    selector: &'static str,
    target: u16,
    node_port: u16,
}

/// Four services onto two pods with two ports each.
pub(super) const FOUR: [Service; 4] = [
    Service::new("a-1", Dual("10.96.0.11", "fd00:96::11"), "pod: a", GREETER, 30081),
    Service::new("a-2", Dual("10.96.0.12", "fd00:96::12"), "pod: a", SECOND, 30082),
    Service::new("b-1", Dual("10.96.0.13", "fd00:96::13"), "pod: b", GREETER, 30083),
    Service::new("b-2", Dual("10.96.0.14", "fd00:96::14"), "pod: b", SECOND, 30084),
];
/// All pods.
pub(super) const WEB: Service = Service::new("web", Dual("10.96.0.10", "fd00:96::10"), "app: web", GREETER, 30080);
/// Whoever its slices say.
pub(super) const FAR: Service = Service::new("far", Dual("10.96.0.15", "fd00:96::15"), "", GREETER, 30085);

/// The objects that are there from the beginning.
pub(super) fn manifests() -> String {
    WEB.manifest("") + &FOUR.map(|service| service.manifest("")).concat()
}

/// What makes a service's places outside the cluster its own.
pub(super) fn beyond() -> String {
    let [external, balancer] = [EXTERNAL, BALANCER].map(|address| FAMILIES.map(|ip| address.of(ip)));
    format!(
        ", externalIPs: [\"{}\", \"{}\"]}}\nstatus: {{loadBalancer: {{ingress: [{{ip: \"{}\"}}, {{ip: \"{}\"}}]}}",
        external[0], external[1], balancer[0], balancer[1]
    )
}

impl Service {
    const fn new(name: &'static str, address: Dual, selector: &'static str, target: u16, node_port: u16) -> Self {
        Self { name, address, selector, target, node_port }
    }

    /// At its cluster address.
    pub(super) fn at(self, ip: Ip) -> SocketAddr {
        self.address.at(ip, PORT)
    }

    /// At the node's address.
    pub(super) fn node_port(self, ip: Ip) -> SocketAddr {
        NODE.at(ip, self.node_port)
    }

    /// At the places of whichever service has [`beyond`], and at its own node port.
    pub(super) fn places(self, ip: Ip) -> [SocketAddr; 3] {
        [self.node_port(ip), EXTERNAL.at(ip, PORT), BALANCER.at(ip, PORT)]
    }

    /// Its object; `more` goes into its specification, and may go on behind it.
    pub(super) fn manifest(self, more: &str) -> String {
        let Self { name, selector, target, node_port, .. } = self;
        let [v4, v6] = FAMILIES.map(|ip| self.address.of(ip));
        let port = |protocol: &str| {
            format!(
                "{{name: {}, protocol: {protocol}, port: {PORT}, targetPort: {target}, nodePort: {node_port}}}",
                protocol.to_lowercase()
            )
        };
        let selector = if selector.is_empty() { String::new() } else { format!("selector: {{{selector}}}, ") };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{type: LoadBalancer, clusterIP: \"{v4}\", clusterIPs: [\"{v4}\", \"{v6}\"], ipFamilies: [IPv4, IPv6], \
             ipFamilyPolicy: RequireDualStack, {selector}ports: [{}, {}]{more}}}\n",
            port("TCP"),
            port("UDP")
        )
    }

    /// Slices with this endpoint on a node of this name, or with none.
    pub(super) fn slices(self, endpoint: Option<Dual>, node: &str) -> String {
        let of = |ip: Ip| {
            let endpoint = endpoint.map_or_else(String::new, |address| {
                format!("{{addresses: [\"{}\"], nodeName: {node}, conditions: {{ready: true}}}}", address.of(ip))
            });
            let (name, target) = (self.name, self.target);
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {name}-{}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 addressType: {}\nports: [{{name: tcp, protocol: TCP, port: {target}}}, {{name: udp, protocol: UDP, port: {target}}}]\n\
                 endpoints: [{endpoint}]\n",
                if ip == Ip::V4 { "v4" } else { "v6" },
                if ip == Ip::V4 { "IPv4" } else { "IPv6" },
            )
        };
        FAMILIES.map(of).concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_of_its_version_and_no_two_are_the_same() {
        let services = FOUR.into_iter().chain([WEB, FAR]);
        for ip in FAMILIES {
            let own = services.clone().flat_map(|service| [service.at(ip), service.node_port(ip)]);
            let mut all: Vec<SocketAddr> = own.chain(WEB.places(ip).into_iter().skip(1)).collect();
            assert!(all.iter().all(|at| at.is_ipv4() == (ip == Ip::V4) && !at.ip().is_unspecified()), "{all:?}");
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
