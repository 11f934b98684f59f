//! `parse`, `parse-scalar`: the first step alone, for the mask of a bridge port. `parse4`, `parse6`, `parse46`: for a port
//! whose flows are told apart by the addresses of both versions and by ports; `parse4` is what `parse6` is to be held
//! against.
//!
//! Receiving a burst is not part of the figure: it leaves the frames in the cache, as it does in the switch.

use std::sync::Arc;

use anyhow::Result;
use pipeline::burst::{Burst, LANES};
use pipeline::key::{Field, FlowKey, KeyMask};
use pipeline::parse::{Kernel, KeyHasher, parse_with};
use pipeline::raw::Stash;
use vswitch::ports::RxQueue;

use super::{Params, Scale, ScenarioDef};
use crate::frames::Version;
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
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse", Kernel::best(), Version::Four, bridge_mask(), params, machine),
};

/// Without vector instructions.
pub const SCALAR: ScenarioDef = ScenarioDef {
    name: "parse-scalar",
    help: "the same without vector instructions",
    ladder: &[1, 10_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse-scalar", Kernel::Scalar, Version::Four, bridge_mask(), params, machine),
};

/// IPv4 where IPv6 counts, too.
pub const FOUR: ScenarioDef = ScenarioDef {
    name: "parse4",
    help: "parse IPv4 for a port whose flows are told apart by addresses of both versions, and ports",
    ladder: &[1, 10_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse4", Kernel::best(), Version::Four, tuple_mask(), params, machine),
};

/// IPv6.
pub const SIX: ScenarioDef = ScenarioDef {
    name: "parse6",
    help: "the same with IPv6 frames",
    ladder: &[1, 10_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse6", Kernel::best(), Version::Six, tuple_mask(), params, machine),
};

/// Both.
pub const BOTH: ScenarioDef = ScenarioDef {
    name: "parse46",
    help: "the same with frames of both versions in random order",
    ladder: &[1, 10_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse46", Kernel::best(), Version::Both, tuple_mask(), params, machine),
};

/// IPv6 without vector instructions.
pub const SIX_SCALAR: ScenarioDef = ScenarioDef {
    name: "parse6-scalar",
    help: "parse6 without vector instructions",
    ladder: &[1, 10_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run("parse6-scalar", Kernel::Scalar, Version::Six, tuple_mask(), params, machine),
};

/// The mask of a port whose flows are told apart by all that is common.
fn tuple_mask() -> KeyMask {
    const FIELDS: &[Field] = &[
        Field::ETH_TYPE,
        Field::IP_PROTO,
        Field::IP_FRAG,
        Field::IPV4_SRC,
        Field::IPV4_DST,
        Field::TP_SRC,
        Field::TP_DST,
        Field::IPV6_SRC,
        Field::IPV6_DST,
    ];
    bridge_mask().union(&FlowKey::mask(FIELDS))
}

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

fn run(
    name: &str,
    kernel: Kernel,
    version: Version,
    mask: KeyMask,
    params: &Params,
    machine: &Machine,
) -> Result<Outcome> {
    params.pin(0)?;
    let [frames, _] = params.versions(version)?;
    let pool = vswitch::pool::frame_pool(SLOTS, 0)?;
    let mut work = Parse {
        kernel,
        queue: Generator::new(Arc::clone(&frames)),
        burst: Burst::new(),
        stash: pool.stash(),
        mask,
        hasher: KeyHasher::new(),
    };
    let tally = closed_loop(&mut work, frames.len() as u64, params.duration, machine)?;
    Ok(tally.outcome(name, frames.mean_size(), 0.0, machine))
}
