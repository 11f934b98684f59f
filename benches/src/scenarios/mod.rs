//! What `vsbench` can measure: one file a scenario, one row in [`SCENARIOS`].

pub mod acl;
pub mod affinity;
pub mod attach;
pub mod bandwidth;
pub mod bridge;
pub mod churn;
pub mod learn;
pub mod nodeport;
pub mod parse;
pub mod policy;
pub mod policy_miss;
pub mod policy_program;
pub mod program;
pub mod rolling;
pub mod route;
pub mod service;
pub mod service_new;
pub mod storm;
pub mod tap;
pub mod tap_idle;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::frames::{Frames, Size, Version};
use crate::machine::Machine;
use crate::report::Outcome;

/// The scenarios, in the order in which `list` shows and `all` runs them.
pub const SCENARIOS: &[&ScenarioDef] = &[
    &parse::BEST,
    &parse::SCALAR,
    &parse::FOUR,
    &parse::SIX,
    &parse::BOTH,
    &parse::SIX_SCALAR,
    &bridge::ONE,
    &bridge::TWO,
    &learn::SCENARIO,
    &route::FOUR,
    &route::SIX,
    &service::FOUR,
    &service::SIX,
    &nodeport::SCENARIO,
    &service_new::UDP,
    &service_new::TCP,
    &affinity::SCENARIO,
    &acl::SCENARIO,
    &churn::SCENARIO,
    &policy::WHOLE,
    &policy::RULES,
    &policy_miss::SCENARIO,
    &storm::SCENARIO,
    &rolling::SCENARIO,
    &program::SCENARIO,
    &policy_program::SCENARIO,
    &attach::SCENARIO,
    &tap::PPS,
    &tap::TCP,
    &tap_idle::SCENARIO,
    &bandwidth::SCENARIO,
];

/// A loop around generator and sink alone is steady at once.
const SHORT: Duration = Duration::from_millis(300);

/// A scenario.
#[derive(Debug)]
pub struct ScenarioDef {
    /// What users type.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Numbers of flows, or of what [`Self::scale`] says, that are run when the user asks for none.
    pub ladder: &'static [usize],
    /// What the ladder counts.
    pub scale: Scale,
    /// It makes network namespaces and interfaces, which `all` leaves out where that is not allowed.
    pub privileged: bool,
    /// Run it once.
    pub run: fn(&Params, &Machine) -> Result<Outcome>,
}

/// What the ladder of a scenario counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Flows.
    Flows,
    /// Prefixes of the routing table.
    Prefixes,
}

impl Scale {
    /// As parameters are named.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Prefixes => "prefixes",
        }
    }
}

/// What a scenario is run with.
#[derive(Clone, Debug)]
pub struct Params {
    /// Flows: pairs of stations, or stations where only one side counts.
    pub flows: usize,
    /// Prefixes of the routing table.
    pub prefixes: usize,
    /// Services.
    pub services: usize,
    /// Rules of network policies.
    pub rules: usize,
    /// Sizes of the frames.
    pub size: Size,
    /// Frames to send instead of our own: a capture for each port, or one that is divided as [`Frames::sides`] does.
    pub pcap: Vec<PathBuf>,
    /// CPUs to run on, in the order of the workers; the system chooses where there are none.
    pub cpus: Vec<u16>,
    /// How long to measure, without warm-up.
    pub duration: Duration,
}

impl Params {
    /// The CPU of the `n`-th worker: does nothing where the system is to choose.
    ///
    /// # Errors
    /// When there is no such CPU, or it may not be used.
    pub fn pin(&self, n: usize) -> Result<()> {
        match self.cpus.get(n) {
            Some(&cpu) => vswitch::sys::affinity::pin(cpu).with_context(|| format!("--cpus: {cpu}")),
            None => Ok(()),
        }
    }

    /// The CPU of the `n`-th of several workers that run at once: where the user names none, each has one of its own as
    /// far as there are so many.
    ///
    /// # Errors
    /// As [`Self::pin`].
    pub fn pin_apart(&self, n: usize) -> Result<()> {
        let usable = vswitch::sys::affinity::usable();
        match usable.get(n % usable.len()) {
            Some(&cpu) if self.cpus.is_empty() => Ok(vswitch::sys::affinity::pin(cpu)?),
            _ => self.pin(n),
        }
    }

    /// Check that no capture is to be sent, by a scenario whose frames must be of its own connections.
    ///
    /// # Errors
    /// When there is one.
    pub fn own_frames(&self, scenario: &str) -> Result<()> {
        ensure!(self.pcap.is_empty(), "--pcap: {scenario} sends frames of its own connections; bridge sends captures");
        Ok(())
    }

    /// What the two ports send.
    ///
    /// # Errors
    /// When the capture cannot be read, or there are too many flows.
    pub fn frames(&self) -> Result<[Arc<Frames>; 2]> {
        self.versions(Version::Four)
    }

    /// As [`Self::frames`], of this version where they are our own.
    ///
    /// # Errors
    /// As [`Self::frames`].
    pub fn versions(&self, version: Version) -> Result<[Arc<Frames>; 2]> {
        match self.pcap.as_slice() {
            [] => Ok(Frames::versions(self.flows, self.size, version)?.map(Arc::new)),
            [path] => Ok(Frames::read_pcap(path)?.sides().map(Arc::new)),
            [left, right, ..] => Ok([Arc::new(Frames::read_pcap(left)?), Arc::new(Frames::read_pcap(right)?)]),
        }
    }

    /// As [`Self::frames`], for work that needs frames from either side.
    ///
    /// # Errors
    /// When a capture has none from the right, too.
    pub fn two_sided(&self) -> Result<[Arc<Frames>; 2]> {
        let frames = self.frames()?;
        ensure!(
            !frames[1].is_empty(),
            "--pcap: nobody answers in this capture, and frames are wanted from either side"
        );
        Ok(frames)
    }

    /// Room for both stations of every pair, whatever a capture holds.
    pub fn stations(&self) -> usize {
        (2 * self.flows + 1000).max(if self.pcap.is_empty() { 0 } else { 1 << 21 })
    }
}
