//! Sums of what the workers count.
//!
//! Workers count by port number and never start anew; a number is used again by a later port. So a port remembers what
//! its number stood at when it was made, and shows what was counted since.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use api::PortId;
use api::state::{PortStats, WorkerState};
use pipeline::counters::{Count, Counters};
use pipeline::drop::DropReason;

/// Counters of a port, summed over the workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// What went through the port.
    pub(crate) stats: PortStats,
    /// Frames that came in and were dropped, in the order of [`DropReason::ALL`].
    pub(crate) drops: Vec<u64>,
}

impl Totals {
    /// What all workers counted for the number of a port since they started.
    pub(crate) fn of<'a>(port: PortId, workers: impl Iterator<Item = &'a Counters>) -> Self {
        let mut totals = Self { stats: PortStats::default(), drops: vec![0; DropReason::COUNT] };
        for counts in workers.map(|worker| worker.port(port)) {
            let stats = &mut totals.stats;
            stats.rx_packets += counts.rx_packets.get();
            stats.rx_bytes += counts.rx_bytes.get();
            stats.rx_errors += counts.rx_errors.get();
            stats.tx_packets += counts.tx_packets.get();
            stats.tx_bytes += counts.tx_bytes.get();
            stats.tx_dropped += counts.tx_dropped.get();
            stats.tx_errors += counts.tx_errors.get();
            for (total, (reason, ..)) in totals.drops.iter_mut().zip(DropReason::ALL) {
                *total += counts.drops.of(reason).map_or(0, Count::get);
            }
        }
        totals
    }

    /// What was counted since `baseline`.
    pub(crate) fn since(mut self, baseline: &Self) -> Self {
        let base = &baseline.stats;
        let stats = &mut self.stats;
        for (now, then) in [
            (&mut stats.rx_packets, base.rx_packets),
            (&mut stats.rx_bytes, base.rx_bytes),
            (&mut stats.rx_errors, base.rx_errors),
            (&mut stats.tx_packets, base.tx_packets),
            (&mut stats.tx_bytes, base.tx_bytes),
            (&mut stats.tx_dropped, base.tx_dropped),
            (&mut stats.tx_errors, base.tx_errors),
        ] {
            *now = now.saturating_sub(then);
        }
        for (now, then) in self.drops.iter_mut().zip(&baseline.drops) {
            *now = now.saturating_sub(*then);
        }
        stats.rx_dropped = self.drops.iter().sum();
        self
    }
}

/// What a worker counts of itself; what else is known of it is for the caller to fill in.
pub(crate) fn worker(counters: &Counters) -> WorkerState {
    let Counters { coverage, bursts, busy_ticks, idle_ticks, sleeps, entries, .. } = counters;
    WorkerState {
        entries: entries.load(Ordering::Relaxed),
        packets: coverage.cache_hit.get() + coverage.cache_miss.get(),
        bursts: bursts.get(),
        hits: coverage.cache_hit.get(),
        misses: coverage.cache_miss.get(),
        busy_ticks: busy_ticks.get(),
        idle_ticks: idle_ticks.get(),
        sleeps: sleeps.get(),
        ..WorkerState::default()
    }
}

/// Events by name, summed over the workers.
pub(crate) fn coverage<'a>(workers: impl Iterator<Item = &'a Counters>) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in workers.flat_map(|worker| worker.coverage.list()) {
        *sums.entry(name).or_default() += count;
    }
    sums
}
