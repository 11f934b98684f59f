//! Namespaces, services and policies of the application.

use std::net::{IpAddr, SocketAddr};

use super::{ELSEWHERE, PARTNER};
use crate::labs::cluster::{BEYOND, Dual, FAMILIES, Ip, NODE};
use crate::labs::tenants::namespace;

pub(super) const HTTP: &str = "{name: http, containerPort: 8080}";
pub(super) const SQL: &str = "{name: sql, containerPort: 5432}";
pub(super) const DOMAIN: &str = "{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}";

/// A service: where it is reached, and which pods are behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    namespace: &'static str,
    name: &'static str,
    address: Dual,
    selector: &'static str,
    /// Its port.
    pub(super) port: u16,
    /// Its pods' port.
    pub(super) target: u16,
    /// Over UDP as well.
    udp: bool,
    node_port: u16,
}

pub(super) const WEB: Service = Service {
    namespace: "shop",
    name: "web",
    address: Dual("10.96.0.20", "fd00:96::20"),
    selector: "tier: web",
    port: 80,
    target: 8080,
    udp: false,
    node_port: 30080,
};
pub(super) const BACKEND: Service = Service {
    name: "backend",
    address: Dual("10.96.0.21", "fd00:96::21"),
    selector: "tier: backend",
    node_port: 0,
    ..WEB
};
pub(super) const DATABASE: Service = Service {
    name: "database",
    address: Dual("10.96.0.22", "fd00:96::22"),
    selector: "tier: database",
    port: 5432,
    target: 5432,
    node_port: 0,
    ..WEB
};
pub(super) const DNS: Service = Service {
    namespace: "kube-system",
    name: "kube-dns",
    address: Dual("10.96.0.10", "fd00:96::10"),
    selector: "k8s-app: kube-dns",
    port: 53,
    target: 53,
    udp: true,
    node_port: 0,
};

impl Service {
    /// At its cluster address.
    pub(super) fn at(self, ip: Ip) -> SocketAddr {
        self.address.at(ip, self.port)
    }

    /// At the node's address.
    pub(super) fn node_port(self, ip: Ip) -> SocketAddr {
        NODE.at(ip, self.node_port)
    }

    fn manifest(self) -> String {
        let Self { namespace, name, selector, port, target, node_port, .. } = self;
        let [v4, v6] = FAMILIES.map(|ip| self.address.of(ip));
        let (kind, beyond) = match node_port {
            0 => ("ClusterIP", String::new()),
            port => ("NodePort", format!(", nodePort: {port}")),
        };
        let entry = |protocol: &str| {
            let name = protocol.to_lowercase();
            format!("{{name: {name}, protocol: {protocol}, port: {port}, targetPort: {target}{beyond}}}")
        };
        let ports = if self.udp { format!("{}, {}", entry("TCP"), entry("UDP")) } else { entry("TCP") };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{type: {kind}, clusterIP: \"{v4}\", clusterIPs: [\"{v4}\", \"{v6}\"], ipFamilies: [IPv4, IPv6], \
             ipFamilyPolicy: RequireDualStack, selector: {{{selector}}}, ports: [{ports}]}}\n"
        )
    }
}

/// Namespaces and services; no policy.
pub(super) fn everything() -> String {
    let namespaces = ["shop", "guest", "kube-system"].map(|name| namespace(name, "")).concat();
    namespaces + &[WEB, BACKEND, DATABASE, DNS].map(Service::manifest).concat()
}

/// Nothing passes.
pub(super) fn deny() -> String {
    policy("deny", "podSelector: {}, policyTypes: [Ingress, Egress]")
}

/// What passes all the same.
pub(super) fn allow() -> String {
    let of = |tier: &str| format!("podSelector: {{matchLabels: {{tier: {tier}}}}}");
    let dns = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, \
               podSelector: {matchLabels: {k8s-app: kube-dns}}";
    [
        policy(
            "web",
            &format!(
                "{}, policyTypes: [Ingress, Egress], \
                 ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}}}, \
                 {{ipBlock: {{cidr: \"::/0\", except: [\"fd00:244::/32\"]}}}}], ports: [{{port: http}}]}}], \
                 egress: [{{to: [{{{}}}], ports: [{{port: 8080}}]}}, \
                 {{to: [{{{dns}}}], ports: [{{protocol: UDP, port: 53}}, {{protocol: TCP, port: 53}}]}}]",
                of("web"),
                of("backend")
            ),
        ),
        policy(
            "backend",
            &format!(
                "{}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{{}}}], ports: [{{port: 8080}}]}}], \
                 egress: [{{to: [{{{}}}], ports: [{{port: sql}}]}}, \
                 {{to: [{{ipBlock: {{cidr: 203.0.113.0/24}}}}, {{ipBlock: {{cidr: \"2001:db8:113::/48\"}}}}], ports: [{{port: 443}}]}}]",
                of("backend"),
                of("web"),
                of("database")
            ),
        ),
        policy(
            "database",
            &format!("{}, ingress: [{{from: [{{{}}}], ports: [{{port: 5432}}]}}]", of("database"), of("backend")),
        ),
    ]
    .concat()
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{{spec}}}\n"
    )
}

/// Where the outside listens.
pub(super) fn outside_addresses() -> Vec<IpAddr> {
    // The first of each version is what its own packets of SCTP come from.
    [BEYOND, PARTNER, ELSEWHERE].iter().flat_map(|dual| FAMILIES.map(|ip| dual.of(ip))).collect()
}
