//! A worker's idea of the time: read from the system now and then, not per burst.

use std::time::Duration;

use pipeline::live::Now;
use rustix::time::{ClockId, clock_gettime};

/// Ticks after which the system is asked again: some twenty microseconds, at the price of a few ticks a burst.
const STALE: u64 = 50_000;

/// The time, as bursts are told it.
#[derive(Debug)]
pub(super) struct Clock {
    now: Now,
    asked: u64,
}

/// Since the machine was started: the same for all workers, and for a process that goes on with what another one left.
fn boot_time() -> Now {
    let time = clock_gettime(ClockId::Monotonic);
    Now(Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0)))
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { now: boot_time(), asked: 0 }
    }

    /// The counter stands at `ticks`.
    #[inline]
    pub(super) fn advance(&mut self, ticks: u64) {
        if ticks.wrapping_sub(self.asked) > STALE {
            self.now = boot_time();
            self.asked = ticks;
        }
    }

    /// The time, asked for now: after a sleep, and before one.
    pub(super) fn fresh(&mut self, ticks: u64) -> Now {
        (self.now, self.asked) = (boot_time(), ticks);
        self.now
    }

    /// The time.
    #[inline]
    pub(super) fn now(&self) -> Now {
        self.now
    }
}

/// The time of all clocks, for those who are no worker.
pub(crate) fn now() -> Now {
    boot_time()
}
