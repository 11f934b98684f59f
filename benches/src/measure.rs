//! The loop that measures: work in windows of equal time, ticks a packet from each, the median of all.
//!
//! A window in which the system or the hypervisor gave the CPU to others is an outlier, not an average: hence the
//! median, and the best window beside it. Windows are shorter than what a scheduler gives others at a time, so that on a
//! machine that is shared most windows are either whole or one that was hit.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use pipeline::raw::ticks;

use crate::machine::Machine;
use crate::report::Outcome;

/// Length of a window.
const WINDOW: Duration = Duration::from_micros(500);
/// Times as long as what is measured a run may take.
const PATIENCE: u32 = 6;
/// Steps that may be told apart.
const STEPS: usize = 8;

/// Something that moves packets, a burst at a time.
pub trait Step {
    /// Names of the steps that [`Laps`] are taken of, in their order; at most eight.
    fn names(&self) -> &'static [&'static str];

    /// Move one burst.
    fn step(&mut self, laps: &mut Laps) -> Moved;
}

/// What one burst came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Packets that were taken in.
    pub packets: u64,
    /// Of those, packets that did not come out.
    pub drops: u64,
    /// Ticks that count, where preparing the burst is not part of the work; 0 when everything counts.
    pub ticks: u64,
}

/// Where the ticks of a burst went.
#[derive(Debug, Default)]
pub struct Laps {
    last: u64,
    sums: [u64; STEPS],
}

impl Laps {
    /// The burst begins, or what was done since the last lap is to be forgotten.
    #[inline]
    pub fn start(&mut self) {
        self.last = ticks();
    }

    /// Ticks a packet of each step, when there were so many packets.
    pub fn shares(&self, names: &[&str], packets: u64) -> BTreeMap<String, f64> {
        let share = |sum: u64| sum as f64 / packets.max(1) as f64;
        names.iter().zip(self.sums).map(|(name, sum)| ((*name).to_owned(), share(sum))).collect()
    }

    /// Step `n` is done. Returns how long it took.
    #[inline]
    pub fn lap(&mut self, n: usize) -> u64 {
        let now = ticks();
        let took = now.wrapping_sub(self.last);
        if let Some(sum) = self.sums.get_mut(n) {
            *sum += took;
        }
        self.last = now;
        took
    }
}

/// Everything that was counted in a run.
#[derive(Debug)]
pub struct Tally {
    /// Ticks a packet of each window.
    windows: Vec<f64>,
    /// Ticks a burst, once for each of its packets.
    latency: Histogram<u64>,
    packets: u64,
    /// Ticks that they took all together.
    spent: u64,
    drops: u64,
    steps: BTreeMap<String, f64>,
}

/// Run `work` as fast as it goes for `duration`, after `warm_up` packets that do not count.
///
/// # Errors
/// When the work moves no packet at all.
pub fn closed_loop(work: &mut dyn Step, warm_up: u64, duration: Duration, machine: &Machine) -> Result<Tally> {
    let ticks_of = |time: Duration| (time.as_secs_f64() * machine.tsc_mhz * 1e6) as u64;
    let (patience, window) = (ticks_of(Duration::from_secs(10)), ticks_of(WINDOW).max(1));
    let mut laps = Laps::default();
    let (start, mut warmed) = (ticks(), 0);
    loop {
        warmed += work.step(&mut laps).packets;
        if warmed >= warm_up.max(1) {
            break;
        }
        anyhow::ensure!(warmed > 0 || ticks() - start < patience, "no packet came through");
    }
    laps = Laps::default();
    // Three digits hold 0.1 %; what takes longer than a minute is counted as a minute.
    let mut latency = Histogram::new_with_bounds(1, ticks_of(Duration::from_secs(60)).max(2), 3)?;
    let (mut windows, mut packets, mut drops, mut all) = (Vec::new(), 0, 0, 0);
    let first = ticks();
    loop {
        let begin = ticks();
        let (mut before, mut in_window, mut spent) = (begin, 0, 0);
        loop {
            let moved = work.step(&mut laps);
            let now = ticks();
            let took = if moved.ticks == 0 { now - before } else { moved.ticks };
            if moved.packets > 0 {
                latency.saturating_record_n(took.max(1), moved.packets);
            }
            (in_window, spent, drops, before) = (in_window + moved.packets, spent + took, drops + moved.drops, now);
            if now - begin >= window {
                break;
            }
        }
        if in_window > 0 {
            windows.push(spent as f64 / in_window as f64);
        }
        (packets, all) = (packets + in_window, all + spent);
        // What is not part of the work may take its time, too.
        if all >= ticks_of(duration) || ticks() - first >= ticks_of(duration * PATIENCE) {
            break;
        }
    }
    anyhow::ensure!(packets > 0, "no packet came through");
    let steps = laps.shares(work.names(), packets);
    windows.sort_by(f64::total_cmp);
    Ok(Tally { windows, latency, packets, spent: all, drops, steps })
}

impl Tally {
    /// Ticks a packet in the median window.
    pub fn median(&self) -> f64 {
        self.windows.get(self.windows.len() / 2).copied().unwrap_or_default()
    }

    /// Ticks a packet over all windows, interruptions included.
    pub fn mean(&self) -> f64 {
        self.spent as f64 / self.packets.max(1) as f64
    }

    /// What is told of it. `octets` is the mean size of the frames, FCS included.
    pub fn outcome(&self, scenario: &str, octets: f64, generator_tsc: f64, machine: &Machine) -> Outcome {
        let tsc = self.median();
        let mpps = machine.tsc_mhz / tsc.max(f64::MIN_POSITIVE);
        let at = |quantile| machine.ns(self.latency.value_at_quantile(quantile) as f64);
        Outcome {
            scenario: scenario.to_owned(),
            tsc_per_packet: tsc,
            tsc_best: self.windows.first().copied().unwrap_or_default(),
            ns_per_packet: machine.ns(tsc),
            mpps,
            gbps: mpps * octets * 8.0 / 1000.0,
            steps: self.steps.clone(),
            generator_tsc,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            drops: self.drops,
            packets: self.packets,
            ..Outcome::default()
        }
    }
}

/// The middle one; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Spin(u64);

    impl Step for Spin {
        fn names(&self) -> &'static [&'static str] {
            &["spin"]
        }

        fn step(&mut self, laps: &mut Laps) -> Moved {
            laps.start();
            let until = ticks() + 10_000;
            while ticks() < until {}
            laps.lap(0);
            Moved { packets: self.0, drops: u64::from(self.0 > 0), ticks: 0 }
        }
    }

    fn machine() -> Machine {
        Machine { tsc_mhz: 1000.0, ..Machine::default() }
    }

    #[test]
    fn a_step_of_known_length_is_measured_as_that_long() {
        let tally = closed_loop(&mut Spin(100), 100, Duration::from_millis(50), &machine()).unwrap();
        let outcome = tally.outcome("spin", 64.0, 0.0, &machine());
        assert!(outcome.tsc_best >= 100.0 && outcome.tsc_best < 150.0, "{outcome:?}");
        assert!(outcome.p50_ns >= 9_900.0, "a packet is in the switch as long as its burst");
        assert!(outcome.steps["spin"] >= 99.0);
        assert_eq!(outcome.drops, outcome.packets / 100);
    }
}
