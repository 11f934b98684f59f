//! `learn`: every frame is the first of its station, so that each is decided, learned and cached.
//!
//! When all have been heard, the bridge forgets them (which is not part of the figure), and they begin anew.

use std::sync::Arc;

use anyhow::Result;

use super::{Params, ScenarioDef};
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Laps, Moved, Step, closed_loop};
use crate::report::Outcome;
use crate::world::{BRIDGE, PORTS, Shared, World};

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "learn",
    help: "new stations, one frame each, to a known one; Mpps are millions of stations learned a second",
    ladder: &[10_000, 100_000],
    run,
};

struct Learn {
    shared: Arc<Shared>,
    world: World,
}

impl Step for Learn {
    fn names(&self) -> &'static [&'static str] {
        self.world.names()
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        if self.world.at_start() {
            self.shared.live.stations.flush(BRIDGE, Some(PORTS[0]), &self.shared.live.cells);
        }
        self.world.step(laps)
    }
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    // A whole number of bursts, so that the list begins anew with a burst.
    let frames = Arc::new(Frames::sources(params.flows.next_multiple_of(pipeline::burst::LANES))?);
    let shared = Arc::new(Shared::new(2 * frames.len() + 1000, 2)?);
    let mut known = World::new(Arc::clone(&shared), vec![(PORTS[1], Arc::new(Frames::anybody()?))], machine);
    known.step(&mut Laps::default());
    drop(known);
    let world = World::new(Arc::clone(&shared), vec![(PORTS[0], Arc::clone(&frames))], machine);
    let mut work = Learn { shared, world };
    let tally = closed_loop(&mut work, frames.len() as u64, params.duration, machine)?;
    Ok(tally.outcome(SCENARIO.name, frames.mean_size(), 0.0, machine))
}
