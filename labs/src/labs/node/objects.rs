//! The services of the lab, and their manifests.

use std::net::SocketAddr;

use crate::labs::cluster::{Dual, FAMILIES, GREETER, Ip};

/// A service: its name, its addresses, whom it selects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) address: Dual,
    selector: &'static str,
}

/// Port of every service that leads to the greeters.
pub(super) const PORT: u16 = 80;
/// Port of every service that leads to the same port of the pod.
pub(super) const BULK: u16 = 5001;

/// All pods.
pub(super) const WEB: Service =
    Service { name: "web", address: Dual("10.96.0.10", "fd00:96::10"), selector: "app: web" };
/// One pod, by two names.
pub(super) const ONLY_B: Service =
    Service { name: "only-b", address: Dual("10.96.0.11", "fd00:96::11"), selector: "pod: b" };
pub(super) const ALSO_B: Service =
    Service { name: "also-b", address: Dual("10.96.0.12", "fd00:96::12"), selector: "pod: b" };
/// Nobody.
pub(super) const EMPTY: Service =
    Service { name: "empty", address: Dual("10.96.0.13", "fd00:96::13"), selector: "app: none" };
/// The pod of the host's network.
pub(super) const AGENT: Service =
    Service { name: "agent", address: Dual("10.96.0.14", "fd00:96::14"), selector: "app: agent" };

const SERVICES: [Service; 5] = [WEB, ONLY_B, ALSO_B, EMPTY, AGENT];

impl Service {
    pub(super) fn at(self, ip: Ip) -> SocketAddr {
        self.address.at(ip, PORT)
    }

    pub(super) fn bulk(self, ip: Ip) -> SocketAddr {
        self.address.at(ip, BULK)
    }

    /// Its object.
    pub(super) fn manifest(self) -> String {
        let Self { name, selector, .. } = self;
        let [v4, v6] = FAMILIES.map(|ip| self.address.of(ip));
        let port = |name: &str, protocol: &str, port: u16, target: u16| {
            format!("{{name: {name}, protocol: {protocol}, port: {port}, targetPort: {target}}}")
        };
        let ports = [
            port("tcp", "TCP", PORT, GREETER),
            port("udp", "UDP", PORT, GREETER),
            port("bulk-tcp", "TCP", BULK, BULK),
            port("bulk-udp", "UDP", BULK, BULK),
        ];
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{clusterIP: \"{v4}\", clusterIPs: [\"{v4}\", \"{v6}\"], ipFamilies: [IPv4, IPv6], \
             ipFamilyPolicy: RequireDualStack, selector: {{{selector}}}, ports: [{}]}}\n",
            ports.join(", ")
        )
    }
}

/// The objects of all.
pub(super) fn manifests() -> String {
    SERVICES.map(Service::manifest).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_an_address_of_both_versions() {
        for Service { address, .. } in SERVICES {
            assert_eq!(FAMILIES.map(|ip| address.of(ip).is_ipv4()), [true, false], "{address:?}");
            assert!(!address.of(Ip::V4).is_unspecified(), "{address:?}");
        }
    }
}
