//! `learn`: every frame is the first of its station, so that each is decided, learned and cached.
//!
//! When all have been heard, the bridge forgets them (which is not part of the figure), and they begin anew.

use std::sync::Arc;

use anyhow::{Result, ensure};
use control::Switch as _;
use pipeline::burst::LANES;
use pipeline::raw::ticks;

use super::{Params, Scale, ScenarioDef};
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Laps, Moved, Step, closed_loop};
use crate::report::Outcome;
use crate::world::{BRIDGE, Driven, PORTS, World};

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "learn",
    help: "new stations, one frame each, to a known one; Mpps are millions of stations learned a second",
    ladder: &[10_000, 100_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

struct Learn {
    world: World,
    /// Frames of the list, and how many of them have been sent.
    stations: u64,
    sent: u64,
}

impl Step for Learn {
    fn names(&self) -> &'static [&'static str] {
        self.world.workers.first().map_or(&[], Driven::names)
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        if self.sent >= self.stations {
            self.world.switch.flush_stations(Some(BRIDGE));
            self.sent = 0;
        }
        let start = ticks();
        let Some(worker) = self.world.workers.first_mut() else { return Moved::default() };
        let moved = worker.step(laps);
        self.sent += moved.packets;
        Moved { ticks: ticks() - start, ..moved }
    }
}

/// A whole number of bursts, so that the list begins anew with a burst.
fn newcomers(params: &Params) -> Result<Frames> {
    if params.pcap.is_empty() {
        return Frames::sources(params.flows.next_multiple_of(LANES));
    }
    let mut all = Frames::default();
    for path in &params.pcap {
        all.extend(&Frames::read_pcap(path)?)?;
    }
    let mut frames = all.newcomers();
    let bursts = frames.len() / LANES;
    ensure!(bursts > 0, "--pcap: {} stations speak in it; {LANES} are wanted at least", frames.len());
    frames.truncate(bursts * LANES);
    Ok(frames)
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    let frames = Arc::new(newcomers(params)?);
    let nothing = Arc::new(Frames::default());
    let mut world = World::new([Arc::clone(&frames), nothing], frames.len() + 1000, 1)?;
    world.place(Frames::ANYBODY, PORTS[1])?;
    let stations = frames.len() as u64;
    // Making the world has moved some frames already: the first list ends early.
    let before = world.drops();
    let mut work = Learn { world, stations, sent: stations };
    let tally = closed_loop(&mut work, stations, params.duration, machine)?;
    let drops = work.world.drops() - before;
    Ok(Outcome { drops, ..tally.outcome(SCENARIO.name, frames.mean_size(), 0.0, machine) })
}
