//! Who answers: each service its own pods, a pod itself, and for a client that comes again the same pod.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::objects::{FOUR as SERVICES, SECOND, WEB};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{Greeter, Outcome, Over, ask};
use crate::host::Host;
use crate::labs::cluster::{Cluster, Ip};
use crate::labs::ways::{all, any, every, every_way, some, some_way};

pub(super) const FOUR: &str = "four services onto two pods with two ports each, and each leads to its own";
pub(super) const HAIRPIN: &str = "a pod reaches itself by the cluster address and the node port of its own service";
pub(super) const AFFINITY: &str =
    "a client of a service with affinity meets one pod, at the cluster address and the node port";

/// Connections of one look at who answers.
const CONNECTS: usize = 15;

pub(super) fn four(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, c, .. } = cluster;
    let second = [Greeter::called("a:8081", &a.host, SECOND)?, Greeter::called("b:8081", &b.host, SECOND)?];
    let names = ["a", "a:8081", "b", "b:8081"];
    let look = || {
        let each = SERVICES.iter().zip(names);
        each.map(|(service, name)| {
            every_way(|ip, over| Ok(ask(&c.host, over, service.at(ip))?.by(name, c.address.of(ip))))
        })
        .collect::<anyhow::Result<Vec<_>>>()
    };
    let probes = look()?;
    drop(second);
    let controls = look()?;
    // Those of the first ports go on.
    let first = all(&[controls[0].clone(), controls[2].clone()]);
    let second = any(&[controls[1].clone(), controls[3].clone()]);
    let probe = if first.arrived() { all(&probes) } else { first };
    report.reaches(FOUR, &probe, Control::new("nobody at the second ports, at the services of these", second));
    Ok(())
}

pub(super) fn hairpin(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, .. } = cluster;
    let own = SERVICES[0];
    let met = |outcome: Outcome, ip: Ip| match outcome {
        // Its kernel takes nothing from outside that has its own address.
        Outcome::Answer(name, peer) if name == a.name() && peer.ip() != a.address.of(ip) => {
            Probe::Arrived(format!("{name} saw {peer}"))
        }
        other => Probe::Silent(other.to_string()),
    };
    let by_cluster = |ip: Ip, over| Ok(met(ask(&a.host, over, own.at(ip))?, ip));
    let by_node = |ip: Ip, over| Ok(met(ask(&a.host, over, own.node_port(ip))?, ip));
    let probe = all(&[every_way(by_cluster)?, every_way(by_node)?]);
    let control =
        cluster.without((own.name, &own.manifest("")), || Ok(any(&[some_way(by_cluster)?, some_way(by_node)?])))?;
    report.reaches(HAIRPIN, &probe, Control::new("the service deleted", control));
    Ok(())
}

pub(super) fn affinity(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { c, outside, .. } = cluster;
    let from_pod = |ip| one_answers(&c.host, &[WEB.at(ip), WEB.node_port(ip)]);
    let from_outside = |ip| one_answers(outside, &[WEB.node_port(ip)]);
    cluster.daemon.apply(&WEB.manifest(", sessionAffinity: ClientIP"))?;
    let probe = all(&[every(from_pod)?, every(from_outside)?]);
    cluster.daemon.apply(&WEB.manifest(", sessionAffinity: None"))?;
    let control = any(&[some(from_pod)?, some(from_outside)?]);
    report.reaches(AFFINITY, &probe, Control::new("without affinity", control));
    Ok(())
}

/// Arrived if new connections to these addresses, in turns, are all answered by the same pod.
fn one_answers(from: &Host, addresses: &[SocketAddr]) -> anyhow::Result<Probe> {
    let mut answers = BTreeMap::<String, usize>::new();
    for address in addresses.iter().cycle().take(CONNECTS) {
        match ask(from, Over::Tcp, *address)? {
            Outcome::Answer(name, _) => *answers.entry(name).or_default() += 1,
            other => return Ok(Probe::Silent(other.to_string())),
        }
    }
    let text: Vec<String> = answers.iter().map(|(name, times)| format!("{name} {times}")).collect();
    let text = format!("{} of {CONNECTS} connections: {}", from.name(), text.join(", "));
    Ok(if answers.len() == 1 { Probe::Arrived(text) } else { Probe::Silent(text) })
}
