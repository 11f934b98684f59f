//! Manifests of the test cluster, with the few words that tests change.

use std::net::SocketAddr;

use super::Host;

/// Ranges of service addresses, by IP version.
pub(crate) const SERVICE_CIDR: [&str; 2] = ["10.96.0.0/16", "fd00:96::/64"];
/// The ports of [`service`], in a Service: TCP and UDP 80.
pub(crate) const PORTS: &str =
    "{name: t, protocol: TCP, port: 80, targetPort: 8080}, {name: u, protocol: UDP, port: 80, targetPort: 8080}";
/// The ports behind them, in an EndpointSlice.
pub(crate) const TARGETS: &str = "{name: t, protocol: TCP, port: 8080}, {name: u, protocol: UDP, port: 8080}";

/// Port `port` of the `n`th service address.
pub(crate) fn vip(family: usize, n: u16, port: u16) -> SocketAddr {
    let address = [format!("10.96.0.{n}"), format!("fd00:96::{n}")];
    SocketAddr::new(address[family].parse().unwrap(), port)
}

/// The Node that the switch is on.
pub(crate) fn node_manifest(node: &Host) -> String {
    let [v4, v6] = node.addresses;
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\n\
         spec: {{podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}}\n\
         status: {{addresses: [{{type: InternalIP, address: {v4}}}, {{type: InternalIP, address: '{v6}'}}]}}\n"
    )
}

/// A ready Pod; `more` goes into its metadata.
pub(crate) fn pod_manifest(pod: &Host, more: &str) -> String {
    let (name, [v4, v6]) = (pod.name, pod.addresses);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}{more}}}\n\
         spec: {{nodeName: n1, containers: [{{name: main, ports: [{{name: main, containerPort: 8080}}]}}]}}\n\
         status: {{podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}], conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

/// A Service of both IP versions at the `n`th address; TCP and UDP 80.
pub(crate) fn service(name: &str, n: u16) -> String {
    service_with(name, n, PORTS, "", "")
}

/// The same with ports of its own; `meta` and `spec` go where their names say.
pub(crate) fn service_with(name: &str, n: u16, ports: &str, meta: &str, spec: &str) -> String {
    let [v4, v6] = [vip(0, n, 0).ip(), vip(1, n, 0).ip()];
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}{meta}}}\n\
         spec: {{clusterIP: {v4}, clusterIPs: [{v4}, '{v6}'], ipFamilies: [IPv4, IPv6], \
         ipFamilyPolicy: RequireDualStack, ports: [{ports}]{spec}}}\n"
    )
}

/// EndpointSlices of both IP versions of a service: these hosts, ready, at port 8080.
pub(crate) fn behind(service: &str, hosts: &[&Host]) -> String {
    behind_with(service, "", TARGETS, &hosts.iter().map(|host| (*host, READY)).collect::<Vec<_>>())
}

/// Conditions of an endpoint.
pub(crate) const READY: &str = "ready: true, serving: true, terminating: false";
pub(crate) const TERMINATING: &str = "ready: false, serving: true, terminating: true";
pub(crate) const FAILING: &str = "ready: false, serving: false, terminating: true";
pub(crate) const UNREADY: &str = "ready: false, serving: false, terminating: false";

/// The same with ports and conditions, in slices of which the names end in `suffix`.
pub(crate) fn behind_with(service: &str, suffix: &str, ports: &str, hosts: &[(&Host, &str)]) -> String {
    let of = |family: usize| {
        let endpoint = |(host, conditions): &(&Host, &str)| {
            format!("{{addresses: ['{}'], conditions: {{{conditions}}}}}", host.addresses[family])
        };
        let endpoints: Vec<_> = hosts.iter().map(endpoint).collect();
        slice(
            service,
            &format!("{}{suffix}", ["v4", "v6"][family]),
            ["IPv4", "IPv6"][family],
            ports,
            &endpoints.join(", "),
        )
    };
    of(0) + &of(1)
}

/// One EndpointSlice, word by word.
pub(crate) fn slice(service: &str, suffix: &str, kind: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-{suffix}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: {kind}\nports: [{ports}]\nendpoints: [{endpoints}]\n"
    )
}
