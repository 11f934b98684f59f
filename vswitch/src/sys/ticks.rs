//! The time-stamp counter: the currency in which packets are paid.
//!
//! Reading it costs some twenty ticks and orders nothing: measure bursts, never single packets. On machines without one
//! a tick is a nanosecond of the monotonic clock.

/// Ticks since some moment in the past.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is part of the x86-64 baseline; Linux leaves it enabled for user space unless a process asked
    // otherwise (prctl PR_SET_TSC), which we do not.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_forward() {
        let before = ticks();
        std::hint::black_box((0..10_000u64).fold(0, |a, b| std::hint::black_box(a ^ b)));
        assert!(ticks() > before);
    }
}
