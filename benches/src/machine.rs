//! What a figure was measured on: without it, a figure means nothing.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pipeline::raw::ticks;
use serde::{Deserialize, Serialize};

/// The machine, as it was when the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// `model name` of the first CPU.
    pub cpu: String,
    /// CPUs online.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Ticks of the time-stamp counter in a microsecond, measured.
    pub tsc_mhz: f64,
    /// Core clocks in a tick: above 1 when the core runs faster than its time-stamp counter.
    pub clock_ratio: f64,
    /// Load average of the last minute.
    pub load: f64,
    /// Of all CPU time during the run, what the hypervisor gave to others, percent.
    pub steal_percent: f64,
    /// The build is optimised; figures of a debug build say nothing.
    pub optimised: bool,
}

impl Machine {
    /// Look and measure: takes about a twentieth of a second.
    pub fn measure() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            tsc_mhz: tsc_mhz(Duration::from_millis(40)),
            clock_ratio: clock_ratio(),
            load: load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default(),
            steal_percent: 0.0,
            optimised: !cfg!(debug_assertions),
        }
    }

    /// Nanoseconds of `ticks` ticks.
    pub fn ns(&self, ticks: f64) -> f64 {
        ticks * 1000.0 / self.tsc_mhz.max(1.0)
    }
}

/// Ticks in a microsecond, over a time of `window`.
fn tsc_mhz(window: Duration) -> f64 {
    let (time, count) = (Instant::now(), ticks());
    while time.elapsed() < window {
        std::hint::spin_loop();
    }
    let (count, time) = (ticks() - count, time.elapsed());
    count as f64 / (time.as_secs_f64() * 1e6)
}

/// Core clocks in a tick: a chain of additions, each of which needs the one before, takes a clock each. The best of many
/// short runs, since interruptions only ever add ticks.
fn clock_ratio() -> f64 {
    const ROUNDS: u64 = 10_000;
    let chain = |seed: u64| (0..ROUNDS).fold(seed, |sum, i| sum.wrapping_add(sum ^ i));
    let once = || {
        let start = ticks();
        std::hint::black_box(chain(std::hint::black_box(1)));
        ticks() - start
    };
    let best = (0..200).map(|_| once()).min().unwrap_or(1);
    // Two dependent operations a round: the exclusive or keeps the compiler from finding a closed form.
    2.0 * ROUNDS as f64 / best.max(1) as f64
}

/// Octets of memory that a process has in use; `self` is this one.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub fn resident(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    // proc_pid_status(5): `VmRSS:     1234 kB`.
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("{path}: no VmRSS"))? * 1024)
}

/// CPU time of the whole machine at one moment, from `/proc/stat`.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    total: u64,
    steal: u64,
}

impl CpuTime {
    /// Now; nothing has passed where there is no `/proc`.
    pub fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// proc_stat(5): user nice system idle iowait irq softirq steal, then guest times which user contains.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let fields: Vec<u64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        Self { total: fields.iter().sum(), steal: fields.get(7).copied().unwrap_or_default() }
    }

    /// Percent of the CPU time since then that the hypervisor gave to others.
    pub fn steal_percent(&self) -> f64 {
        Self::percent(*self, Self::now())
    }

    fn percent(from: Self, to: Self) -> f64 {
        let total = to.total.saturating_sub(from.total).max(1);
        100.0 * to.steal.saturating_sub(from.steal) as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_and_guest_time_is_not_counted_twice() {
        let from = CpuTime::parse("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1 2 3\n");
        let to = CpuTime::parse("cpu  60 0 10 90 0 0 0 40 55 5\n");
        assert_eq!(CpuTime::percent(from, to), 30.0);
        assert_eq!(CpuTime::parse("nonsense").total, 0);
    }

    #[test]
    fn the_machine_is_measured_in_believable_numbers() {
        let machine = Machine::measure();
        assert!(machine.tsc_mhz > 100.0 && machine.tsc_mhz < 20_000.0, "{machine:?}");
        assert!(machine.clock_ratio > 0.01, "{machine:?}");
    }
}
