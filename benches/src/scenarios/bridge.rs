//! `bridge`, `bridge-2w`: known stations talk to each other, both ways, at full rate.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::{Params, ScenarioDef};
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::closed_loop;
use crate::port::alone;
use crate::report::Outcome;
use crate::world::{Driven, World};

/// One worker reads both ports.
pub const ONE: ScenarioDef = ScenarioDef {
    name: "bridge",
    help: "learning bridge, pairs of stations talking, one worker, every frame a hit",
    ladder: &[1, 1000, 10_000, 100_000, 1_000_000],
    privileged: false,
    run: one,
};

/// Two workers read a port each, and send to the other's.
pub const TWO: ScenarioDef = ScenarioDef {
    name: "bridge-2w",
    help: "the same with two workers, a port each; ticks are of one of them, rates of both",
    ladder: &[1, 10_000, 100_000],
    privileged: false,
    run: two,
};

/// A loop around generator and sink alone is steady at once.
const SHORT: Duration = Duration::from_millis(300);

fn one(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    let frames = params.frames()?;
    let generator = alone(&frames[0], SHORT, machine)?;
    let octets = mean_size(&frames);
    let warm_up = frames[0].len() + frames[1].len();
    let mut world = World::new(frames, params.stations(), 1)?;
    world.warm_up(warm_up);
    let drops = world.drops();
    let worker = world.workers.first_mut().context("a switch without workers")?;
    let tally = closed_loop(worker, 1, params.duration, machine)?;
    Ok(Outcome { drops: world.drops() - drops, ..tally.outcome(ONE.name, octets, generator, machine) })
}

fn two(params: &Params, machine: &Machine) -> Result<Outcome> {
    let frames = params.two_sided()?;
    let generator = alone(&frames[0], SHORT, machine)?;
    let octets = mean_size(&frames);
    let warm_up = frames[0].len().max(frames[1].len());
    let mut world = World::new(frames, params.stations(), 2)?;
    world.warm_up(warm_up);
    let drops = world.drops();
    let barrier = Barrier::new(2);
    let work = |n: usize, worker: &mut Driven| -> Result<_> {
        let pinned = params.pin(n);
        // A worker that failed must still let the other go on.
        barrier.wait();
        pinned?;
        closed_loop(worker, 1, params.duration, machine)
    };
    let [left, right] = world.workers.as_mut_slice() else { bail!("a switch without two workers") };
    let tallies = std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1, right));
        let tally = work(0, left);
        (tally, other.join())
    });
    let (first, second) = (tallies.0?, tallies.1.map_err(|_| anyhow!("a worker panicked"))??);
    let [first, second] = [first, second].map(|tally| tally.outcome(TWO.name, octets, generator, machine));
    // Rates add up; ticks are what one packet costs the worker that has it.
    Ok(Outcome {
        mpps: first.mpps + second.mpps,
        gbps: first.gbps + second.gbps,
        tsc_per_packet: (first.tsc_per_packet + second.tsc_per_packet) / 2.0,
        tsc_best: first.tsc_best.min(second.tsc_best),
        ns_per_packet: (first.ns_per_packet + second.ns_per_packet) / 2.0,
        drops: world.drops() - drops,
        packets: first.packets + second.packets,
        ..first
    })
}

/// Octets of a frame of either side, on average. Sides of a capture may be of different lengths, and a side is sent as
/// often as its port's turn comes: a burst each.
fn mean_size(frames: &[Arc<Frames>; 2]) -> f64 {
    let sides = frames.iter().filter(|side| !side.is_empty());
    sides.clone().map(|side| side.mean_size()).sum::<f64>() / sides.count().max(1) as f64
}
