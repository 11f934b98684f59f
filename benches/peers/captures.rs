//! Two looping pcap ports: the same frames for everyone.

use std::path::PathBuf;

use anyhow::Result;
use benches::frames::{Frames, Size};
use benches::machine::Machine;

use crate::process::Directory;
use crate::{Contest, ours, ovs, testpmd};

/// The files of one contest.
#[derive(Clone, Debug)]
pub(crate) struct Captures {
    /// Pairs of stations.
    pub(crate) flows: usize,
    /// Frames of each port.
    pub(crate) frames: usize,
    /// What each port sends.
    pub(crate) ports: [PathBuf; 2],
}

/// The bridge's work with `flows` pairs of stations.
pub(crate) fn contest<'a>(
    flows: usize,
    cpu: u16,
    machine: &'a Machine,
    directory: &'a Directory,
) -> Result<Contest<'a>> {
    let [left, right] = Frames::pairs(flows, Size::Fixed(64))?;
    let file = |side: &str| directory.file(format!("{flows}-{side}.pcap"));
    let captures = Captures { flows, frames: left.len(), ports: [file("left"), file("right")] };
    left.write_pcap(&captures.ports[0])?;
    right.write_pcap(&captures.ports[1])?;
    Ok(Contest {
        work: format!("bridge flows={flows}"),
        unit: "tsc/pkt",
        less_is_better: true,
        peers: vec![
            Box::new(ours::Bridge { captures: captures.clone(), cpu, directory }),
            Box::new(ovs::Bridge { captures: captures.clone(), cpu, directory }),
            Box::new(testpmd::Forward { mode: "macswap", captures: captures.clone(), cpu, machine, directory }),
            Box::new(testpmd::Forward { mode: "io", captures, cpu, machine, directory }),
        ],
    })
}
