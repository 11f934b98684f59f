//! A node of labs whose pods are of several namespaces, and the outside.

use std::net::IpAddr;

use anyhow::Context;

use super::Options;
use super::cluster::{BEYOND, DAEMON, Dual, FAMILIES, GATEWAY, Ip, NODE, join_outside, node_manifest, take_down};
use crate::daemon::Daemon;
use crate::host::Host;

/// What a pod is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// `NAMESPACE/NAME`.
    pub(super) name: &'static str,
    pub(super) address: Dual,
    /// Labels: `app: web`.
    pub(super) labels: &'static str,
    /// Container ports: `{name: web, containerPort: 80}`.
    pub(super) ports: &'static str,
}

impl Spec {
    /// Namespace and name.
    fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('/').unwrap_or(("default", self.name))
    }

    /// From its IPv4 address.
    fn mac(&self) -> String {
        match self.address.of(Ip::V4) {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("02:44:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
            }
            IpAddr::V6(_) => String::new(),
        }
    }

    /// Its object.
    pub(super) fn manifest(&self) -> String {
        self.labelled(self.labels)
    }

    /// Its object, with other labels.
    pub(super) fn labelled(&self, labels: &str) -> String {
        let (namespace, name) = self.parts();
        let [v4, v6] = FAMILIES.map(|ip| self.address.of(ip));
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
             spec: {{nodeName: node-a, containers: [{{name: main, image: none, ports: [{}]}}]}}\n\
             status: {{phase: Running, podIP: \"{v4}\", podIPs: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}], \
             conditions: [{{type: Ready, status: \"True\"}}]}}\n",
            self.ports
        )
    }
}

/// The object of a namespace.
pub(super) fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// The node, its pods, and the outside.
#[derive(Debug)]
pub(super) struct Tenants {
    pub(super) daemon: Daemon,
    pub(super) node: Host,
    pub(super) outside: Host,
    /// Of all pods, attached or not, in the order of their specifications.
    pub(super) pods: Vec<Host>,
    specs: &'static [Spec],
}

impl Tenants {
    /// Hosts, ports and routes; no object yet. The last `later` pods are not attached. Behind the outside are these
    /// addresses.
    pub(super) fn build(
        options: &Options,
        specs: &'static [Spec],
        later: usize,
        internet: &[Dual],
    ) -> anyhow::Result<Self> {
        let (node, outside) = (Host::of_daemon("node"), Host::new("outside")?);
        node.loopback(&[])?;
        let pods = specs.iter().map(|spec| Host::new(spec.name)).collect::<anyhow::Result<Vec<_>>>()?;
        pods.iter().try_for_each(|host| host.loopback(&[]))?;
        let daemon = Daemon::with(options.workers, options.keep, DAEMON)?;
        let tenants = Self { daemon, node, outside, pods, specs };
        tenants.daemon.vsctl("add-br br-pods")?;
        tenants.node.configure("br-pods", NODE.on_link())?;
        for spec in &specs[..specs.len() - later] {
            tenants.attach(spec.name)?;
        }
        let internet: Vec<IpAddr> = internet.iter().flat_map(|dual| FAMILIES.map(|ip| dual.of(ip))).collect();
        join_outside(&tenants.daemon, &tenants.node, &tenants.outside, &internet)?;
        Ok(tenants)
    }

    /// The specification and host of a pod.
    pub(super) fn pod(&self, name: &str) -> anyhow::Result<(&'static Spec, &Host)> {
        let mut pods = self.specs.iter().zip(&self.pods);
        pods.find(|(spec, _)| spec.name == name).with_context(|| format!("the lab has no pod {name}"))
    }

    /// Give a pod its interface, addresses and routes.
    pub(super) fn attach(&self, name: &str) -> anyhow::Result<()> {
        let (spec, host) = self.pod(name)?;
        // As long as an interface's name may be.
        let port = name.replace('/', "-");
        self.daemon.vsctl(&format!(
            "add-port br-pods {port} -- set Interface {port} type=tap options:netns={} options:ifname=eth0 mac=\"{}\" \
             external_ids:pod={name}",
            host.path().display(),
            spec.mac(),
        ))?;
        host.configure("eth0", spec.address.on_link())?;
        FAMILIES.into_iter().try_for_each(|ip| host.default_route(GATEWAY.of(ip)))
    }

    /// Let the outside send to this pod.
    pub(super) fn lead_outside_to(&self, name: &str) -> anyhow::Result<()> {
        let (spec, _) = self.pod(name)?;
        FAMILIES.into_iter().try_for_each(|ip| self.outside.route(spec.address.of(ip), NODE.of(ip)))
    }

    /// The objects of the node and of the first pods.
    pub(super) fn objects(&self, pods: usize) -> String {
        node_manifest() + &self.specs[..pods].iter().map(Spec::manifest).collect::<String>()
    }

    /// All of it that has a network.
    pub(super) fn hosts(&self) -> Vec<&Host> {
        [&self.node, &self.outside].into_iter().chain(&self.pods).collect()
    }

    /// Where one of them is seen to come from.
    pub(super) fn address(&self, name: &str) -> anyhow::Result<Dual> {
        match name {
            "node" => Ok(NODE),
            "outside" => Ok(BEYOND),
            pod => Ok(self.pod(pod)?.0.address),
        }
    }

    /// A host by its name.
    pub(super) fn host(&self, name: &str) -> anyhow::Result<&Host> {
        match name {
            "node" => Ok(&self.node),
            "outside" => Ok(&self.outside),
            pod => Ok(self.pod(pod)?.1),
        }
    }
}

impl Drop for Tenants {
    /// The lab's namespace goes on to other labs.
    fn drop(&mut self) {
        take_down(&mut self.daemon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_namespace_and_an_ethernet_address_of_its_own() {
        let spec = Spec { name: "x/a", address: Dual("10.244.1.17", "fd00:244:1::11"), labels: "pod: a", ports: "" };
        assert_eq!(spec.mac(), "02:44:0a:f4:01:11");
        let text = spec.labelled("pod: b");
        assert!(text.contains("name: a, namespace: x, labels: {pod: b}"), "{text}");
    }
}
