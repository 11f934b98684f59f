//! Between pods, the node and the outside: who reaches whom, and whom does the other end see?

use std::net::IpAddr;

use crate::claim::{Control, Probe, Report};
use crate::greeter::ask;
use crate::hop::{Said, With, hop};
use crate::host::Host;
use crate::labs::cluster::{BEYOND, Cluster, Dual, GATEWAY, GREETER, INTERNET, NO_NODE, NO_POD, NODE};
use crate::labs::ways::{all, any, every, every_way, some, some_way};
use crate::ping::{echo, ping, ping_translated};

pub(super) const GATEWAY_PING: &str = "the gateway answers the pings of pods";
pub(super) const PING: &str = "pods ping each other";
pub(super) const PODS: &str = "a pod reaches a pod, which sees its own address";
pub(super) const TO_NODE: &str = "a pod reaches the node, which sees the pod's own address";
pub(super) const FROM_NODE: &str = "the node reaches a pod, which sees the node's address";
pub(super) const LEAVES: &str = "a pod reaches the outside, which sees the node's address";
pub(super) const PING_LEAVES: &str = "a pod pings the outside, which sees the node's address";
pub(super) const NODE_LEAVES: &str = "the node reaches the outside, and the outside the node, each by its own address";
pub(super) const TRACEROUTE: &str = "traceroute of UDP and ICMP names the gateway, and then who is outside";

/// Of all that a probe may come to nothing for.
const NOBODY_POD: &str = "an address that no pod has";
const NO_ROUTE: &str = "the routes to the outside taken away";

pub(super) fn pods(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    let probe = every(|ip| echo(&a.host, GATEWAY.of(ip)))?;
    let control = some(|ip| echo(&a.host, NO_POD.of(ip)))?;
    report.reaches(GATEWAY_PING, &probe, Control::new(NOBODY_POD, control));

    let probe = every(|ip| ping(&a.host, &b.host, b.address.of(ip)))?;
    let control = some(|ip| ping(&a.host, &b.host, NO_POD.of(ip)))?;
    report.reaches(PING, &probe, Control::new(NOBODY_POD, control));

    reach(report, PODS, [(&a.host, a.address, &b.host, b.address)], (NO_POD, NOBODY_POD))
}

pub(super) fn node(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, node, .. } = cluster;
    reach(report, TO_NODE, [(&a.host, a.address, node, NODE)], (NO_NODE, "an address beside the node's"))?;
    reach(report, FROM_NODE, [(node, NODE, &a.host, a.address)], (NO_POD, NOBODY_POD))
}

pub(super) fn outside(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, node, outside, .. } = cluster;
    let out = || every_way(|ip, over| Ok(ask(&a.host, over, INTERNET.at(ip, GREETER))?.from(outside, NODE.of(ip))));
    let pings = || every(|ip| ping_translated(&a.host, outside, INTERNET.of(ip), NODE.of(ip)));
    let (probe, pinged, traced) = (out()?, pings()?, every(|ip| traceroute(&a.host, INTERNET.of(ip), GATEWAY.of(ip)))?);
    cluster.route_outside(false)?;
    let control = some_way(|ip, over| Ok(ask(&a.host, over, INTERNET.at(ip, GREETER))?.any()))?;
    let ping_control = some(|ip| ping_translated(&a.host, outside, INTERNET.of(ip), NODE.of(ip)))?;
    let trace_control = some(|ip| traceroute(&a.host, INTERNET.of(ip), GATEWAY.of(ip)))?;
    cluster.route_outside(true)?;
    report.reaches(LEAVES, &probe, Control::new(NO_ROUTE, control));
    report.reaches(PING_LEAVES, &pinged, Control::new(NO_ROUTE, ping_control));
    report.reaches(TRACEROUTE, &traced, Control::new(NO_ROUTE, trace_control));
    let both = [(node, NODE, outside, INTERNET), (outside, BEYOND, node, NODE)];
    reach(report, NODE_LEAVES, both, (NO_NODE, "an address that nobody outside has"))
}

/// Each asks the greeter of the next, which is to see that address of the first; nobody answers at the other address.
fn reach<'h, const N: usize>(
    report: &mut Report,
    claim: &'static str,
    ways: [(&'h Host, Dual, &'h Host, Dual); N],
    (nobody, why): (Dual, &'static str),
) -> anyhow::Result<()> {
    let (mut probes, mut controls) = (Vec::new(), Vec::new());
    for (from, seen, to, address) in ways {
        probes.push(every_way(|ip, over| Ok(ask(from, over, address.at(ip, GREETER))?.from(to, seen.of(ip))))?);
        controls.push(some_way(|ip, over| Ok(ask(from, over, nobody.at(ip, GREETER))?.any()))?);
    }
    report.reaches(claim, &all(&probes), Control::new(why, any(&controls)));
    Ok(())
}

/// With one hop to go a router speaks, with two the end of the way.
fn traceroute(from: &Host, to: IpAddr, router: IpAddr) -> anyhow::Result<Probe> {
    let (mut texts, mut right) = (Vec::new(), true);
    for with in [With::Udp, With::Echo] {
        for (hops, wanted) in [(1, Said::Exceeded(router)), (2, Said::Reached(to))] {
            let said = hop(from, with, to, hops)?;
            right &= said == Some(wanted);
            texts.push(match said {
                Some(said) => format!("{hops}: {said}"),
                None => format!("{hops}: silence"),
            });
        }
    }
    let text = texts.join(", ");
    Ok(if right { Probe::Arrived(text) } else { Probe::Silent(text) })
}
