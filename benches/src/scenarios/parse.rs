//! `parse`, `parse-scalar`: the first step alone, for the mask of a bridge port.
//!
//! Receiving a burst is not part of the figure: it leaves the frames in the cache, as it does in the switch.

use std::sync::Arc;

use anyhow::Result;
use pipeline::burst::{Burst, LANES};
use pipeline::key::KeyMask;
use pipeline::parse::{Kernel, KeyHasher, parse_with};
use pipeline::raw::Stash;
use vswitch::ports::RxQueue;

use super::{Params, ScenarioDef};
use crate::machine::Machine;
use crate::measure::{Laps, Moved, Step, closed_loop};
use crate::port::{Generator, SLOTS};
use crate::report::Outcome;
use crate::world::{PORTS, bridge_mask};

/// With the fastest kernel that the CPU has.
pub const BEST: ScenarioDef = ScenarioDef {
    name: "parse",
    help: "bytes to a flow key and its hash, with the best vector kernel of this CPU",
    ladder: &[1, 10_000],
    privileged: false,
    run: |params, machine| run("parse", Kernel::best(), params, machine),
};

/// Without vector instructions.
pub const SCALAR: ScenarioDef = ScenarioDef {
    name: "parse-scalar",
    help: "the same without vector instructions",
    ladder: &[1, 10_000],
    privileged: false,
    run: |params, machine| run("parse-scalar", Kernel::Scalar, params, machine),
};

struct Parse {
    kernel: Kernel,
    queue: Generator,
    burst: Box<Burst>,
    stash: Stash,
    mask: KeyMask,
    hasher: KeyHasher,
}

impl Step for Parse {
    fn names(&self) -> &'static [&'static str] {
        &["parse"]
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        self.burst.reset(PORTS[0]);
        let _ = self.queue.rx(&mut self.burst, LANES, &mut self.stash);
        laps.start();
        parse_with(self.kernel, &mut self.burst, &self.mask, &self.hasher);
        let spent = laps.lap(0);
        let packets = self.burst.len();
        for frame in self.burst.frames.iter_mut().take(packets).filter_map(Option::take) {
            self.stash.give(frame);
        }
        Moved { packets: packets as u64, drops: 0, ticks: spent }
    }
}

fn run(name: &str, kernel: Kernel, params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    let [frames, _] = params.frames()?;
    let pool = vswitch::pool::frame_pool(SLOTS, 0)?;
    let mut work = Parse {
        kernel,
        queue: Generator::new(Arc::clone(&frames)),
        burst: Burst::new(),
        stash: pool.stash(),
        mask: bridge_mask(),
        hasher: KeyHasher::new(),
    };
    let tally = closed_loop(&mut work, frames.len() as u64, params.duration, machine)?;
    Ok(tally.outcome(name, frames.mean_size(), 0.0, machine))
}
