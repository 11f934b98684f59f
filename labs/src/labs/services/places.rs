//! Whom do pods see, of those who come to a node port, an external address or a load balancer's?

use super::objects::{WEB, beyond};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{BOTH, Outcome, ask};
use crate::host::Host;
use crate::labs::cluster::{BEYOND, Cluster, Dual, FAMILIES, Ip, NODE};
use crate::labs::ways::{all, any, at_once};

pub(super) const REACHED: &str =
    "the outside and pods reach a service at its node port, its external address and its load balancer's";
pub(super) const HIDDEN: &str = "under traffic policy Cluster its pods see the node, whoever comes";
pub(super) const SEEN: &str = "under traffic policy Local they see who comes: the outside's address, and the pod's";

pub(super) fn seen(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    // A pod that is sent to itself cannot see its own address.
    cluster.unready(&cluster.c, || seen_by_others(report, cluster))
}

fn seen_by_others(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { c, outside, .. } = cluster;
    let clients = [(outside, BEYOND), (&c.host, c.address)];
    let hidden = clients.map(|(client, _)| (client, NODE));
    let with =
        |policy: &str| cluster.daemon.apply(&WEB.manifest(&format!(", externalTrafficPolicy: {policy}{}", beyond())));

    with("Cluster")?;
    let reached = everywhere(&clients, |_, _, outcome| outcome.any())?;
    let (as_node, not_as_client) = (everywhere(&hidden, sees)?, everywhere(&clients, sees)?);
    with("Local")?;
    let (as_client, not_as_node) = (everywhere(&clients, sees)?, everywhere(&hidden, sees)?);
    cluster.daemon.vsctl(&format!("delete service {}", WEB.name))?;
    let gone = everywhere(&clients, |_, _, outcome| outcome.any())?;
    cluster.daemon.apply(&WEB.manifest(""))?;

    report.reaches(REACHED, &all(&reached), Control::new("the service deleted", any(&gone)));
    report.reaches(HIDDEN, &all(&as_node), Control::new("the same question under policy Local", any(&not_as_node)));
    report.reaches(SEEN, &all(&as_client), Control::new("the same question under policy Cluster", any(&not_as_client)));
    Ok(())
}

/// Each client at each place, over everything.
fn everywhere(
    clients: &[(&Host, Dual)],
    judge: impl Fn(Ip, Dual, Outcome) -> Probe + Sync,
) -> anyhow::Result<Vec<Probe>> {
    let mut cases = Vec::new();
    for (client, address) in clients {
        for ip in FAMILIES {
            let places = WEB.places(ip);
            cases.extend(places.iter().flat_map(|to| BOTH.map(|over| (*client, *address, ip, over, *to))));
        }
    }
    at_once(&cases, |(client, address, ip, over, to)| {
        let probe = judge(*ip, *address, ask(client, *over, *to)?);
        let text = format!("{} at {to} {over}: {}", client.name(), probe.text());
        Ok(if probe.arrived() { Probe::Arrived(text) } else { Probe::Silent(text) })
    })
}

/// Arrived if whoever answered saw this address.
fn sees(ip: Ip, address: Dual, outcome: Outcome) -> Probe {
    match outcome {
        Outcome::Answer(name, peer) if peer.ip() == address.of(ip) => Probe::Arrived(format!("{name} saw {peer}")),
        other => Probe::Silent(other.to_string()),
    }
}
