//! When a worker sleeps: the policy in one place.
//!
//! After the last frame a worker looks on for a while, because the next one often follows at once and waking costs more
//! than looking: on a virtual CPU some 50 µs, which is a whole super-frame at 10 Gbit/s. How long it looks on follows
//! what sleeping has brought, as the kernel's own halt polling does (`Documentation/virt/kvm/halt-polling.rst`): a sleep
//! that was short should not have been, so the worker looks on twice as long next time, and after a long one half as
//! long. So one stream keeps its worker awake, and a ping now and then costs 30 µs each.

/// Ticks that a worker looks on at least: about 30 µs at 2.6 GHz.
const LEAST: u64 = 80_000;
/// Ticks that it looks on at most, and the longest sleep that counts as short: about 400 µs. One TCP stream over two
/// TAPs: 12.2 Gbit/s with 30 µs, 14.7 with 100, 17.5 with 400.
const MOST: u64 = 1_000_000;

/// Since when there was nothing to do.
#[derive(Debug)]
pub(super) struct Idle {
    since: u64,
    /// Ticks to look on.
    patience: u64,
}

impl Default for Idle {
    fn default() -> Self {
        Self { since: 0, patience: LEAST }
    }
}

impl Idle {
    /// There were frames, at this time.
    #[inline]
    pub(super) fn worked(&mut self, ticks: u64) {
        self.since = ticks;
    }

    /// There has been nothing to do for long enough.
    pub(super) fn is_time_to_sleep(&self, ticks: u64) -> bool {
        std::hint::spin_loop();
        ticks.wrapping_sub(self.since) > self.patience
    }

    /// The worker slept from one time to another. It looks on for a while before it sleeps again.
    pub(super) fn slept(&mut self, from: u64, to: u64) {
        let short = to.wrapping_sub(from) < MOST;
        self.patience = if short { (self.patience * 2).min(MOST) } else { (self.patience / 2).max(LEAST) };
        self.since = to;
    }

    /// The worker slept until a time that it had set itself: that says nothing of when frames come.
    pub(super) fn rested(&mut self, to: u64) {
        self.since = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a worker that goes to sleep at `at` has looked on before.
    fn patience(idle: &Idle, at: u64) -> u64 {
        (0..=MOST).step_by(1000).find(|&ticks| idle.is_time_to_sleep(at + ticks)).unwrap_or(MOST)
    }

    #[test]
    fn short_sleeps_make_a_worker_patient_and_long_ones_end_that() {
        let mut idle = Idle::default();
        idle.worked(0);
        assert!(patience(&idle, 0) <= LEAST + 1000);
        for end in (10_000..100_000).step_by(10_000) {
            idle.slept(end - 10_000, end);
        }
        assert_eq!(idle.patience, MOST);
        for _ in 0..4 {
            idle.slept(1_000_000, 1_000_000 + 2 * MOST);
        }
        assert_eq!(idle.patience, LEAST);
    }
}
