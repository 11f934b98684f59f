//! Who is told that nobody is there, who is told nothing, and who is not let in.

use super::objects::{BALANCER, FAR, WEB, beyond};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{Outcome, ask};
use crate::labs::cluster::{BEYOND, Cluster, Dual, FAMILIES, Ip};
use crate::labs::ways::{all, any, every_way, some_way};

pub(super) const SILENT: &str =
    "a Local policy with endpoints on another node only meets the outside with silence, counted as no-local-endpoint";
pub(super) const REFUSED: &str = "a service without any endpoint refuses at its node port, the outside and pods alike";
pub(super) const SOURCES: &str =
    "a load balancer's address is silent to who is in no source range, counted as source-range";

/// A pod of another node.
const ELSEWHERE: Dual = Dual("10.244.2.11", "fd00:244:2::11");

pub(super) fn nobody(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, outside, .. } = cluster;
    let local = FAR.manifest(", externalTrafficPolicy: Local");
    let refuses = |ip: Ip, over| Ok(ask(outside, over, FAR.node_port(ip))?.refused());
    let refuses_pod = |ip: Ip, over| Ok(ask(&b.host, over, FAR.node_port(ip))?.refused());
    let answers = |ip: Ip, over| Ok(ask(outside, over, FAR.node_port(ip))?.any());

    cluster.daemon.apply(&(local.clone() + &FAR.slices(None, "node-a")))?;
    let refused = all(&[every_way(refuses)?, every_way(refuses_pod)?]);
    cluster.daemon.apply(&FAR.slices(Some(ELSEWHERE), "node-b"))?;
    let not_refused = some_way(refuses)?;
    let silent = some_way(|ip, over| match ask(outside, over, FAR.node_port(ip))? {
        Outcome::Silence(text) => Ok(Probe::Silent(text)),
        said => Ok(Probe::Arrived(said.to_string())),
    })?;
    let silent = counted(cluster, silent, "no-local-endpoint")?;
    cluster.daemon.apply(&FAR.slices(Some(a.address), "node-a"))?;
    let answered = every_way(answers)?;
    cluster.daemon.vsctl(&format!("delete service {}", FAR.name))?;
    report.reaches(
        REFUSED,
        &refused,
        Control::new("an endpoint on another node, at which the outside looks", not_refused),
    );
    report.separates(SILENT, &silent, Control::new("an endpoint on this node", answered));
    Ok(())
}

pub(super) fn sources(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { b, outside, .. } = cluster;
    let only = |who: Dual| {
        let [v4, v6] = FAMILIES.map(|ip| who.of(ip));
        WEB.manifest(&format!(", loadBalancerSourceRanges: [\"{v4}/32\", \" {v6}/128\"]{}", beyond()))
    };
    let from_outside = |ip, over| Ok(ask(outside, over, BALANCER.at(ip, 80))?.any());
    let from_pod = |ip, over| Ok(ask(&b.host, over, BALANCER.at(ip, 80))?.any());
    cluster.daemon.apply(&only(BEYOND))?;
    let (outside_in, pod_out) = (every_way(from_outside)?, some_way(from_pod)?);
    cluster.daemon.apply(&only(b.address))?;
    let (pod_in, outside_out) = (every_way(from_pod)?, some_way(from_outside)?);
    cluster.daemon.apply(&WEB.manifest(""))?;
    let silent = counted(cluster, any(&[pod_out, outside_out]), "source-range")?;
    report.separates(SOURCES, &silent, Control::new("who is in them", all(&[outside_in, pod_in])));
    Ok(())
}

/// Silent only if the drops name this reason, too.
fn counted(cluster: &Cluster, probe: Probe, reason: &str) -> anyhow::Result<Probe> {
    let drops = cluster.daemon.vsctl("drops")?;
    let rows = drops.lines().filter(|line| line.contains(reason));
    let rows: Vec<String> = rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    Ok(match probe {
        Probe::Silent(text) if rows.is_empty() => Probe::Arrived(format!("{text}; but not counted:\n{drops}")),
        Probe::Silent(text) => Probe::Silent(format!("{text}; {}", rows.join(", "))),
        arrived => arrived,
    })
}
