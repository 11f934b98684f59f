//! A worker's idea of the time: read from the system now and then, not per burst.

use std::time::Instant;

use pipeline::live::Now;

/// Ticks after which the system is asked again: some twenty microseconds, at the price of a few ticks a burst.
const STALE: u64 = 50_000;

/// The time, as bursts are told it.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    now: Now,
    asked: u64,
}

impl Clock {
    /// All clocks of a process start together, so that workers agree on the age of a station.
    pub(super) fn new() -> Self {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        Self { start, now: Now(start.elapsed()), asked: 0 }
    }

    /// The counter stands at `ticks`.
    #[inline]
    pub(super) fn advance(&mut self, ticks: u64) {
        if ticks.wrapping_sub(self.asked) > STALE {
            self.now = Now(self.start.elapsed());
            self.asked = ticks;
        }
    }

    /// The time, asked for now: after a sleep, and before one.
    pub(super) fn fresh(&mut self, ticks: u64) -> Now {
        (self.now, self.asked) = (Now(self.start.elapsed()), ticks);
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
    Clock::new().now
}
