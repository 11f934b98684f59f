//! `node`: a node of a cluster, its pods, its services, and the outside.
//!
//! What a network plugin and kube-proxy do together, with kernel TCP, UDP and ICMP at every end: pods reach each other, the
//! node and services; processes of the node reach both; what leaves the cluster has the node's address. Every claim
//! is tried over IPv4 and IPv6, and most over TCP and UDP: one holds only if it does over all.

use super::cluster::Cluster;
use super::{LabDef, Needs, Options, linger};
use crate::claim::Report;

mod kernel;
mod network;
mod objects;
mod services;

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "node",
    help: "a node of a cluster: pods, services, the node itself, and the outside",
    needs: Needs::Interfaces,
    claims: &[
        network::GATEWAY_PING,
        network::PING,
        network::PODS,
        network::TO_NODE,
        network::FROM_NODE,
        network::LEAVES,
        network::PING_LEAVES,
        network::NODE_LEAVES,
        network::TRACEROUTE,
        services::SERVICE,
        services::FROM_NODE,
        services::HAIRPIN,
        services::AGENT_POD,
        services::SPREAD,
        services::PINNED,
        services::MOVES,
        services::REFUSED,
        services::UNKNOWN,
        services::PING,
        services::LARGE,
        services::BULK,
        services::TWINS,
        services::TRACE,
        services::NARROWED,
        services::RESTART,
        kernel::UNTOUCHED,
        kernel::WITHDRAWN,
    ],
    run,
};

const DRAWING: &str = "
    pod a            pod b            pod c              outside
    10.244.1.11      10.244.1.12      10.244.1.13        192.0.2.1, 198.51.100.1
      │ TAP            │ TAP            │ TAP              │ TAP, port up
      └────────────────┴── br-pods ─────┴──────────────────┘
                             │  gateway 10.244.1.1, services 10.96.0.0/16
                             │  internal port br-pods
                           the node, 192.0.2.10          (and IPv6 likewise)
";

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut cluster = Cluster::build(options, objects::manifests())?;
    let bare = kernel::Snapshot::take()?;
    cluster.apply()?;
    network::pods(report, &cluster)?;
    network::node(report, &cluster)?;
    network::outside(report, &cluster)?;
    services::reached(report, &cluster)?;
    services::host_network(report, &cluster)?;
    services::backends(report, &cluster)?;
    services::nobody(report, &cluster)?;
    services::throughput(report, &cluster)?;
    services::narrow(report, &cluster)?;
    kernel::untouched(report, &bare)?;
    // Its counters go with the data plane.
    cluster.daemon.check_cache()?;
    services::restart(report, &mut cluster)?;
    cluster.daemon.check_cache()?;
    if options.keep {
        linger(&cluster.daemon, &cluster.hosts());
    }
    cluster.daemon.stop()?;
    kernel::withdrawn(report, &bare)
}
