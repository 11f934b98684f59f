//! A node of labs, its pods, the outside, and the manifests that make them a cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use vswitch::sys::netlink::Netlink;

use super::Options;
use crate::daemon::Daemon;
use crate::greeter::Greeter;
use crate::host::Host;

/// Words of the daemon's command line.
pub(super) const DAEMON: &str = "--node node-a --uplink up --service-cidr 10.96.0.0/16,fd00:96::/112";

/// The cluster's bridge, and its device in the node.
const BRIDGE: &str = "br-pods";

/// The port of every greeter, which the services call `targetPort`.
pub(super) const GREETER: u16 = 8080;

/// The versions of IP: every address of the lab has one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

/// Both.
pub(super) const FAMILIES: [Ip; 2] = [Ip::V4, Ip::V6];

/// An address of each version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dual(pub(super) &'static str, pub(super) &'static str);

impl Dual {
    pub(super) fn of(self, ip: Ip) -> IpAddr {
        let text = if ip == Ip::V4 { self.0 } else { self.1 };
        // They are written below.
        text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    pub(super) fn at(self, ip: Ip, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(ip), port)
    }

    /// With its prefix lengths.
    pub(super) fn on_link(self) -> [(IpAddr, u8); 2] {
        [(self.of(Ip::V4), 24), (self.of(Ip::V6), 64)]
    }
}

pub(super) const GATEWAY: Dual = Dual("10.244.1.1", "fd00:244:1::1");
pub(super) const NODE: Dual = Dual("192.0.2.10", "2001:db8::10");
/// A router outside, and whom it leads to.
pub(super) const BEYOND: Dual = Dual("192.0.2.1", "2001:db8::1");
pub(super) const INTERNET: Dual = Dual("198.51.100.1", "2001:db8:1::1");
/// Addresses that nobody has: in the podCIDR, beside the node, among the services.
pub(super) const NO_POD: Dual = Dual("10.244.1.99", "fd00:244:1::99");
pub(super) const NO_NODE: Dual = Dual("192.0.2.99", "2001:db8::99");
pub(super) const NO_SERVICE: Dual = Dual("10.96.0.99", "fd00:96::99");

/// A pod: where it is, and what its port and its object say.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) host: Host,
    pub(super) address: Dual,
    mac: &'static str,
    _greeter: Greeter,
}

impl Pod {
    fn new(name: &'static str, address: Dual, mac: &'static str) -> anyhow::Result<Self> {
        let host = Host::new(name)?;
        host.loopback(&[])?;
        let greeter = Greeter::start(&host, GREETER)?;
        Ok(Self { host, address, mac, _greeter: greeter })
    }

    pub(super) fn name(&self) -> &'static str {
        self.host.name()
    }

    fn attach(&self, daemon: &Daemon) -> anyhow::Result<()> {
        let name = self.name();
        daemon.vsctl(&format!(
            "add-port br-pods pod-{name} -- set Interface pod-{name} type=tap options:netns={} options:ifname=eth0 \
             mac=\"{}\" external_ids:pod=default/{name}",
            self.host.path().display(),
            self.mac
        ))?;
        self.host.configure("eth0", self.address.on_link())?;
        FAMILIES.into_iter().try_for_each(|ip| self.host.default_route(GATEWAY.of(ip)))
    }

    /// Its object.
    pub(super) fn manifest(&self, ready: bool) -> String {
        let (name, status) = (self.name(), if ready { "True" } else { "False" });
        let [v4, v6] = FAMILIES.map(|ip| self.address.of(ip));
        format!(
            "---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, namespace: default, labels: {{app: web, pod: {name}}}}}\n\
             spec: {{nodeName: node-a, containers: [{{name: main, image: none, ports: [{{name: greet, containerPort: {GREETER}}}]}}]}}\n\
             status: {{phase: Running, podIP: \"{v4}\", podIPs: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}], \
             conditions: [{{type: Ready, status: \"{status}\"}}]}}\n"
        )
    }
}

/// The whole lab.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) daemon: Daemon,
    pub(super) node: Host,
    pub(super) a: Pod,
    pub(super) b: Pod,
    pub(super) c: Pod,
    pub(super) outside: Host,
    /// Manifests of its services.
    services: String,
    _greeters: [Greeter; 2],
}

impl Cluster {
    /// Ports, addresses and routes; no object yet, but these will be its services.
    pub(super) fn build(options: &Options, services: String) -> anyhow::Result<Self> {
        let (node, outside) = (Host::of_daemon("node"), Host::new("outside")?);
        node.loopback(&[])?;
        let a = Pod::new("a", Dual("10.244.1.11", "fd00:244:1::11"), "02:44:00:00:00:11")?;
        let b = Pod::new("b", Dual("10.244.1.12", "fd00:244:1::12"), "02:44:00:00:00:12")?;
        let c = Pod::new("c", Dual("10.244.1.13", "fd00:244:1::13"), "02:44:00:00:00:13")?;
        let daemon = Daemon::with(options.workers, options.keep, DAEMON)?;
        daemon.vsctl("add-br br-pods")?;
        node.configure("br-pods", NODE.on_link())?;
        for pod in [&a, &b, &c] {
            pod.attach(&daemon)?;
        }
        let internet = FAMILIES.map(|ip| INTERNET.of(ip));
        join_outside(&daemon, &node, &outside, &internet)?;
        let greeters = [Greeter::start(&node, GREETER)?, Greeter::at(&outside, &internet, GREETER)?];
        Ok(Self { daemon, node, a, b, c, outside, services, _greeters: greeters })
    }

    /// State where the outside is, or take that back.
    pub(super) fn route_outside(&self, there: bool) -> anyhow::Result<()> {
        route_outside(&self.daemon, there)
    }

    /// Let the outside send what is for this address to that one.
    pub(super) fn lead_outside_to(&self, address: Dual, via: Dual) -> anyhow::Result<()> {
        FAMILIES.into_iter().try_for_each(|ip| self.outside.route(address.of(ip), via.of(ip)))
    }

    /// The objects of the cluster.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        let mut all = node_manifests();
        all.extend([&self.a, &self.b, &self.c].map(|pod| pod.manifest(true)));
        all.push_str(&self.services);
        self.daemon.apply(&all).context("the cluster's objects")
    }

    /// All of it that has a network.
    pub(super) fn hosts(&self) -> [&Host; 5] {
        [&self.node, &self.a.host, &self.b.host, &self.c.host, &self.outside]
    }

    /// Do something while this service is deleted.
    pub(super) fn without<T>(
        &self,
        (name, manifest): (&str, &str),
        probe: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.daemon.vsctl(&format!("delete service {name}"))?;
        let result = probe();
        self.daemon.apply(manifest)?;
        result
    }

    /// Do something while this pod is not ready.
    pub(super) fn unready<T>(&self, pod: &Pod, probe: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.daemon.apply(&pod.manifest(false))?;
        let result = probe();
        self.daemon.apply(&pod.manifest(true))?;
        result
    }
}

impl Drop for Cluster {
    /// The lab's namespace goes on to other labs, and the device of the bridge outlives the daemon in it.
    fn drop(&mut self) {
        take_down(&mut self.daemon);
    }
}

/// Stop the daemon and delete the device of its bridge.
pub(super) fn take_down(daemon: &mut Daemon) {
    let _ = daemon.stop();
    if let Ok(netlink) = Netlink::open()
        && let Ok(index) = netlink.index(BRIDGE)
    {
        let _ = netlink.delete(index);
    }
}

/// Plug in a host outside, a router to these addresses: it is where everything goes that is not of the cluster.
pub(super) fn join_outside(daemon: &Daemon, node: &Host, outside: &Host, internet: &[IpAddr]) -> anyhow::Result<()> {
    daemon.vsctl(&format!(
        "add-port br-pods up -- set Interface up type=tap options:netns={} options:ifname=eth0",
        outside.path().display()
    ))?;
    outside.configure("eth0", BEYOND.on_link())?;
    outside.loopback(internet)?;
    for ip in FAMILIES {
        node.default_route(BEYOND.of(ip))?;
    }
    route_outside(daemon, true)
}

fn route_outside(daemon: &Daemon, there: bool) -> anyhow::Result<()> {
    for ip in FAMILIES {
        let (link, all) = match ip {
            Ip::V4 => ("192.0.2.0/24", "0.0.0.0/0"),
            Ip::V6 => ("2001:db8::/64", "::/0"),
        };
        if there {
            daemon.vsctl(&format!("route/add br-pods {link} dev up"))?;
            daemon.vsctl(&format!("route/add br-pods {all} dev up via {}", BEYOND.of(ip)))?;
        } else {
            daemon.vsctl(&format!("route/del br-pods {all}"))?;
            daemon.vsctl(&format!("route/del br-pods {link}"))?;
        }
    }
    Ok(())
}

/// The node.
pub(super) fn node_manifest() -> String {
    let [v4, v6] = FAMILIES.map(|ip| NODE.of(ip));
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: node-a}}\n\
         spec: {{podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, \"fd00:244:1::/64\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: \"{v4}\"}}, {{type: InternalIP, address: \"{v6}\"}}]}}\n"
    )
}

/// The node, the namespace, and a pod of the host's network.
fn node_manifests() -> String {
    let [v4, v6] = FAMILIES.map(|ip| NODE.of(ip));
    let node = node_manifest();
    format!(
        "{node}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: default}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: agent, namespace: default, labels: {{app: agent}}}}\n\
         spec: {{nodeName: node-a, hostNetwork: true, containers: [{{name: main, image: none}}]}}\n\
         status: {{phase: Running, podIP: \"{v4}\", podIPs: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}], \
         conditions: [{{type: Ready, status: \"True\"}}]}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_lab_has_both_versions() {
        for address in [GATEWAY, NODE, BEYOND, INTERNET, NO_POD, NO_NODE, NO_SERVICE] {
            assert_eq!(FAMILIES.map(|ip| address.of(ip).is_ipv4()), [true, false], "{address:?}");
            assert!(!address.of(Ip::V4).is_unspecified(), "{address:?}");
        }
    }
}
