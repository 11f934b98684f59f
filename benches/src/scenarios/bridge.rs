//! `bridge`, `bridge-2w`: known stations talk to each other, both ways, at full rate.
//!
//! `bridge-2w` also says how many times faster two workers are than one that reads both ports (`to_one`): they take
//! turns in one run, since rates of different minutes do not compare on a shared machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop};
use crate::port::alone;
use crate::report::Outcome;
use crate::world::{Driven, World};

/// One worker reads both ports.
pub const ONE: ScenarioDef = ScenarioDef {
    name: "bridge",
    help: "learning bridge, pairs of stations talking, one worker, every frame a hit",
    ladder: &[1, 1000, 10_000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: one,
};

/// Two workers read a port each, and send to the other's.
pub const TWO: ScenarioDef = ScenarioDef {
    name: "bridge-2w",
    help: "the same with two workers, a port each; ticks are of one of them, rates of both",
    ladder: &[1, 10_000, 100_000],
    scale: Scale::Flows,
    privileged: false,
    run: two,
};

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

/// Times that one worker and two take turns.
const ROUNDS: u32 = 3;

fn two(params: &Params, machine: &Machine) -> Result<Outcome> {
    let frames = params.two_sided()?;
    let generator = alone(&frames[0], SHORT, machine)?;
    let octets = mean_size(&frames);
    let warm_up = frames[0].len() + frames[1].len();
    let mut single = World::new(frames.each_ref().map(Arc::clone), params.stations(), 1)?;
    let mut world = World::new(frames, params.stations(), 2)?;
    single.warm_up(warm_up);
    world.warm_up(warm_up);
    let drops = world.drops();
    let part = params.duration / (2 * ROUNDS);
    let [reference] = single.workers.as_mut_slice() else { bail!("a switch without a worker") };
    let [left, right] = world.workers.as_mut_slice() else { bail!("a switch without two workers") };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = std::thread::scope(|scope| {
            let measured = scope.spawn(|| {
                params.pin_apart(0)?;
                closed_loop(reference, 1, part, machine)
            });
            measured.join().unwrap_or_else(|_| bail!("a worker panicked"))
        })?;
        let together = side_by_side([&mut *left, &mut *right], params, part, machine)?;
        let one = alone.outcome(TWO.name, octets, generator, machine);
        let [first, second] = together.map(|tally| tally.outcome(TWO.name, octets, generator, machine));
        // Rates add up; ticks are what one packet costs the worker that has it.
        let mpps = first.mpps + second.mpps;
        rounds.push(Outcome {
            mpps,
            gbps: first.gbps + second.gbps,
            tsc_per_packet: (first.tsc_per_packet + second.tsc_per_packet) / 2.0,
            tsc_best: first.tsc_best.min(second.tsc_best),
            ns_per_packet: (first.ns_per_packet + second.ns_per_packet) / 2.0,
            packets: first.packets + second.packets,
            figures: BTreeMap::from([("to_one".to_owned(), mpps / one.mpps), ("one_mpps".to_owned(), one.mpps)]),
            ..first
        });
    }
    rounds.sort_by(|a, b| a.figures["to_one"].total_cmp(&b.figures["to_one"]));
    let median = rounds.swap_remove(rounds.len() / 2);
    Ok(Outcome { drops: world.drops() - drops, ..median })
}

/// Two workers at the same time, each on a CPU of its own where there are two.
fn side_by_side(
    workers: [&mut Driven; 2],
    params: &Params,
    duration: Duration,
    machine: &Machine,
) -> Result<[Tally; 2]> {
    let barrier = Barrier::new(2);
    let work = |n: usize, worker: &mut Driven| -> Result<Tally> {
        let pinned = params.pin_apart(n);
        // A worker that failed must still let the other go on.
        barrier.wait();
        pinned?;
        closed_loop(worker, 1, duration, machine)
    };
    let [left, right] = workers;
    let work = &work;
    std::thread::scope(|scope| {
        let threads = [scope.spawn(move || work(0, left)), scope.spawn(move || work(1, right))];
        let [left, right] = threads.map(|thread| thread.join().unwrap_or_else(|_| bail!("a worker panicked")));
        Ok([left?, right?])
    })
}

/// Octets of a frame of either side, on average. Sides of a capture may be of different lengths, and a side is sent as
/// often as its port's turn comes: a burst each.
fn mean_size(frames: &[Arc<Frames>; 2]) -> f64 {
    let sides = frames.iter().filter(|side| !side.is_empty());
    sides.clone().map(|side| side.mean_size()).sum::<f64>() / sides.count().max(1) as f64
}
