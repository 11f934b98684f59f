//! Meters: how often the switch may speak for itself, by ingress port (FASTPATH 6).
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): one word a port and kind holds the time at which the next
//! frame is due; one that comes earlier than a burst's worth before it is refused. No clock, no timer, one compare and
//! swap.

use std::sync::atomic::{AtomicU64, Ordering};

use api::PortId;

use crate::live::Now;

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// ICMP errors and TCP RST.
    Errors,
    /// ARP replies, neighbour advertisements, and requests for neighbours.
    Neighbors,
    /// What the switch's own host stack is asked.
    Stack,
}

impl Meter {
    const COUNT: usize = 3;

    /// Nanoseconds from one frame to the next, and how many frames may come at once.
    fn rate(self) -> (u64, u64) {
        match self {
            Self::Errors => (1_000_000, 100),
            Self::Neighbors => (200_000, 500),
            Self::Stack => (500_000, 200),
        }
    }
}

/// The meters of all ports.
#[derive(Debug)]
pub struct Meters {
    /// When the next frame is due, nanoseconds: [`Meter::COUNT`] words a port.
    due: Box<[AtomicU64]>,
}

impl Default for Meters {
    fn default() -> Self {
        Self { due: std::iter::repeat_with(AtomicU64::default).take(PortId::LIMIT * Meter::COUNT).collect() }
    }
}

impl Meters {
    /// May a frame that `port` brought be answered now? It counts if so.
    pub fn admit(&self, port: PortId, meter: Meter, now: Now) -> bool {
        let Some(due) = self.due.get(port.index() * Meter::COUNT + meter as usize) else { return false };
        let now = now.0.as_nanos() as u64;
        let (interval, burst) = meter.rate();
        let next = |due: u64| {
            let next = due.max(now) + interval;
            (next - now <= interval * burst).then_some(next)
        };
        due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admitted(meters: &Meters, port: u16, meter: Meter, frames: usize, now: Duration) -> usize {
        (0..frames).filter(|_| meters.admit(PortId(port), meter, Now(now))).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let meters = Meters::default();
        for (meter, burst, rate) in
            [(Meter::Errors, 100, 1000), (Meter::Neighbors, 500, 5000), (Meter::Stack, 200, 2000)]
        {
            let start = Duration::from_secs(5);
            assert_eq!(admitted(&meters, 1, meter, 10_000, start), burst, "{meter:?}");
            let later = (1..=1000).map(|ms| admitted(&meters, 1, meter, 10, start + Duration::from_millis(ms)));
            assert_eq!(later.sum::<usize>(), rate, "{meter:?}");
        }
    }

    #[test]
    fn ports_and_kinds_are_apart_and_silence_saves_no_more_than_a_burst() {
        let meters = Meters::default();
        let start = Duration::from_secs(1);
        assert_eq!(admitted(&meters, 1, Meter::Errors, 200, start), 100);
        assert_eq!(admitted(&meters, 2, Meter::Errors, 200, start), 100);
        assert_eq!(admitted(&meters, 1, Meter::Neighbors, 1000, start), 500);
        assert_eq!(admitted(&meters, 1, Meter::Errors, 200, start + Duration::from_secs(100)), 100);
        assert_eq!(admitted(&meters, u16::MAX, Meter::Errors, 1, start), 0, "there is no such port");
    }
}
