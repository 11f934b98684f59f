//! `node`: a node of a cluster, its pods, its services, and the outside.
//!
//! What kube-proxy and a CNI plugin do together, with kernel TCP, UDP and ICMP at every end: pods reach each other, the
//! node and services; processes of the node reach both; what leaves the cluster has the node's address. Every claim
//! is tried over IPv4 and IPv6, and holds only if it does for both.

use super::{LabDef, Needs, Options};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{BOTH, ask};
use crate::ping::{echo, ping};

mod cluster;

use cluster::{Cluster, FAMILIES, GATEWAY, GREETER, Ip, NO_NODE, NO_POD, NODE, WEB};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "node",
    help: "a node of a cluster: pods, services, the node itself, and the outside",
    needs: Needs::Interfaces,
    claims: &[GATEWAY_PING, PING, PODS, TO_NODE, FROM_NODE, SERVICE],
    run,
};

const GATEWAY_PING: &str = "the gateway answers a pod's ping";
const PING: &str = "pods ping each other";
const PODS: &str = "a pod reaches a pod, which sees its own address";
const TO_NODE: &str = "a pod reaches the node, which sees the pod's own address";
const FROM_NODE: &str = "the node reaches a pod, which sees the node's address";
const SERVICE: &str = "a pod reaches a service, whose backend sees the pod's own address";

const DRAWING: &str = "
    pod a            pod b            pod c                         outside
    10.244.1.11      10.244.1.12      10.244.1.13                   192.0.2.1, 198.51.100.1
      │ TAP            │ TAP            │ TAP                         │ TAP, port up
      └────────────────┴── br-pods ─────┴─────────────────────────────┘
                             │  gateway 10.244.1.1, services 10.96.0.0/16
                             │  internal port br-pods
                           the node, 192.0.2.10                    (IPv6 likewise)
";

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut cluster = Cluster::build(options)?;
    cluster.apply()?;
    pods(report, &cluster)?;
    node(report, &cluster)?;
    service(report, &cluster)?;
    cluster.daemon.check_cache()?;
    cluster.daemon.stop()
}

/// One probe for each version of IP: arrived if all did.
fn every(probe: impl FnMut(Ip) -> anyhow::Result<Probe>) -> anyhow::Result<Probe> {
    let probes = FAMILIES.into_iter().map(probe).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(all(&probes))
}

/// Arrived if all did; silent with the text of those that did not.
fn all(probes: &[Probe]) -> Probe {
    let text = |arrived: bool| {
        let texts: Vec<&str> = probes.iter().filter(|probe| probe.arrived() == arrived).map(Probe::text).collect();
        texts.join("; ")
    };
    if probes.iter().all(Probe::arrived) { Probe::Arrived(text(true)) } else { Probe::Silent(text(false)) }
}

/// One control for each version of IP: silent if all were.
fn none(probe: impl FnMut(Ip) -> anyhow::Result<Probe>) -> anyhow::Result<Probe> {
    let probes = FAMILIES.into_iter().map(probe).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(any(&probes))
}

/// Arrived if any did.
fn any(probes: &[Probe]) -> Probe {
    let text = |arrived: bool| {
        let texts: Vec<&str> = probes.iter().filter(|probe| probe.arrived() == arrived).map(Probe::text).collect();
        texts.join("; ")
    };
    if probes.iter().any(Probe::arrived) { Probe::Arrived(text(true)) } else { Probe::Silent(text(false)) }
}

fn pods(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    let probe = every(|ip| echo(&a.host, GATEWAY.of(ip)))?;
    let control = none(|ip| echo(&a.host, NO_POD.of(ip)))?;
    report.reaches(GATEWAY_PING, &probe, Control::new("an address that no pod has", control));

    let probe = every(|ip| ping(&a.host, &b.host, b.address.of(ip)))?;
    let control = none(|ip| ping(&a.host, &b.host, NO_POD.of(ip)))?;
    report.reaches(PING, &probe, Control::new("an address that no pod has", control));

    let probe = every(|ip| over_both(|over| Ok(ask(&a.host, over, b.address.at(ip, GREETER))?.from(&b.host, a.address.of(ip)))))?;
    let control = none(|ip| over_any(|over| Ok(ask(&a.host, over, NO_POD.at(ip, GREETER))?.any())))?;
    report.reaches(PODS, &probe, Control::new("an address that no pod has", control));
    Ok(())
}

fn over_both(probe: impl FnMut(crate::greeter::Over) -> anyhow::Result<Probe>) -> anyhow::Result<Probe> {
    Ok(all(&BOTH.into_iter().map(probe).collect::<anyhow::Result<Vec<_>>>()?))
}

fn over_any(probe: impl FnMut(crate::greeter::Over) -> anyhow::Result<Probe>) -> anyhow::Result<Probe> {
    Ok(any(&BOTH.into_iter().map(probe).collect::<anyhow::Result<Vec<_>>>()?))
}

fn node(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, node, .. } = cluster;
    let probe = every(|ip| over_both(|over| Ok(ask(&a.host, over, NODE.at(ip, GREETER))?.from(node, a.address.of(ip)))))?;
    let control = none(|ip| over_any(|over| Ok(ask(&a.host, over, NO_NODE.at(ip, GREETER))?.any())))?;
    report.reaches(TO_NODE, &probe, Control::new("an address beside the node's", control));

    let probe = every(|ip| over_both(|over| Ok(ask(node, over, a.address.at(ip, GREETER))?.from(&a.host, NODE.of(ip)))))?;
    let control = none(|ip| over_any(|over| Ok(ask(node, over, NO_POD.at(ip, GREETER))?.any())))?;
    report.reaches(FROM_NODE, &probe, Control::new("an address that no pod has", control));
    Ok(())
}

fn service(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    let to = cluster::ONLY_B;
    let probe = every(|ip| over_both(|over| Ok(ask(&a.host, over, to.at(ip))?.from(&b.host, a.address.of(ip)))))?;
    let control = cluster.without(to, || none(|ip| over_any(|over| Ok(ask(&a.host, over, to.at(ip))?.any()))))?;
    report.reaches(SERVICE, &probe, Control::new("the service deleted", control));
    let _ = WEB;
    Ok(())
}
