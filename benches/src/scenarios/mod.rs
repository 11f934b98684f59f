//! What `vsbench` can measure: one file a scenario, one row in [`SCENARIOS`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::frames::{Frames, Size};
use crate::machine::Machine;
use crate::report::Outcome;

/// The scenarios, in the order in which `list` shows and `all` runs them.
pub const SCENARIOS: &[&ScenarioDef] = &[];

/// A scenario.
#[derive(Debug)]
pub struct ScenarioDef {
    /// What users type.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Numbers of flows that are run when the user asks for none.
    pub ladder: &'static [usize],
    /// Run it once.
    pub run: fn(&Params, &Machine) -> Result<Outcome>,
}

/// What a scenario is run with.
#[derive(Clone, Debug)]
pub struct Params {
    /// Flows: pairs of stations, or stations where only one side counts.
    pub flows: usize,
    /// Sizes of the frames.
    pub size: Size,
    /// Frames to send instead of our own, divided between the ports as [`Frames::sides`] does.
    pub pcap: Option<PathBuf>,
    /// CPUs to run on, in the order of the workers; the system chooses where there are none.
    pub cpus: Vec<u16>,
    /// How long to measure, without warm-up.
    pub duration: Duration,
}

impl Params {
    /// What the two ports send.
    ///
    /// # Errors
    /// When the capture cannot be read, or there are too many flows.
    pub fn frames(&self) -> Result<[Arc<Frames>; 2]> {
        if let Some(path) = &self.pcap {
            return Ok(Frames::read_pcap(path)?.sides().map(Arc::new));
        }
        Ok(Frames::pairs(self.flows, self.size)?.map(Arc::new))
    }
}
