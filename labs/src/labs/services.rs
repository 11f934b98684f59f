//! `services`: what kube-proxy does for a node, by kernel sockets of pods and of a host outside.
//!
//! Node ports, external addresses and a load balancer's lead to pods; who is seen there is what the traffic policy says;
//! clients meet the same pod again where that is asked for; who has nobody to meet is told, or not told, as the policy has
//! it; and pods come and go under load while nobody notices. Every claim is tried over IPv4 and IPv6, and most over TCP
//! and UDP: one holds only if it does over all.

use super::cluster::{Cluster, NODE};
use super::{LabDef, Needs, Options, linger};
use crate::claim::Report;

mod load;
mod objects;
mod places;
mod policy;
mod spread;

use objects::{BALANCER, EXTERNAL};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "services",
    help: "services as kube-proxy has them: node ports, external addresses, policies, affinity, load",
    needs: Needs::Interfaces,
    claims: &[
        spread::FOUR,
        spread::HAIRPIN,
        spread::AFFINITY,
        places::REACHED,
        places::HIDDEN,
        places::SEEN,
        policy::SILENT,
        policy::REFUSED,
        policy::SOURCES,
        load::LOAD,
    ],
    run,
};

const DRAWING: &str = "
    pod a            pod b            pod c              outside
    10.244.1.11      10.244.1.12      10.244.1.13        192.0.2.1
    :8080 :8081      :8080 :8081      :8080                │
      │ TAP            │ TAP            │ TAP              │ TAP, port up
      └────────────────┴── br-pods ─────┴──────────────────┘
                             │
           the node, 192.0.2.10, node ports from 30080
           203.0.113.250 external, 203.0.113.251 load balancer (and IPv6 likewise)
";

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut cluster = Cluster::build(options, objects::manifests())?;
    for address in [EXTERNAL, BALANCER] {
        cluster.lead_outside_to(address, NODE)?;
    }
    cluster.apply()?;
    spread::four(report, &cluster)?;
    spread::hairpin(report, &cluster)?;
    spread::affinity(report, &cluster)?;
    places::seen(report, &cluster)?;
    policy::nobody(report, &cluster)?;
    policy::sources(report, &cluster)?;
    load::load(report, &cluster)?;
    cluster.daemon.check_cache()?;
    if options.keep {
        linger(&cluster.daemon, &cluster.hosts());
    }
    cluster.daemon.stop()
}
