//! `tap-idle`: what idle ports cost, and what idleness costs.
//!
//! - 110 TAPs that say nothing stand beside the two busy ones: ticks a packet with them and, alternating in the same
//!   run, without (`alone_tsc`; `to_alone` is the ratio). Frames wait in the queues, as in [`taps`](crate::taps).
//! - The same 112 ports with a worker on its own thread and no traffic: CPU time of that thread (`idle_percent`).
//! - The way of a small datagram through that worker, from socket to socket: one after the other (`busy_*`), and each
//!   after a pause, in which the worker goes to sleep (`slept_*`); `first_us` is what the median of the second has more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vswitch::sys::affinity::pin;

use super::tap::Live;
use super::{Params, Scale, ScenarioDef};
use crate::machine::Machine;
use crate::measure::Laps;
use crate::report::Outcome;
use crate::taps::{Cpus, IdleHosts, Rounds, Taps};

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "tap-idle",
    help: "two busy TAPs among 110 idle ones, CPU time of an idle worker, and its first packet; wants root",
    ladder: &[1],
    scale: Scale::Flows,
    privileged: true,
    run,
};

/// Ports that say nothing: with the two that speak as many as a node has pods.
const IDLE: u16 = 110;
/// Pause before a datagram: a worker spins for 30 microseconds before it sleeps.
const PAUSE: Duration = Duration::from_millis(10);
/// Datagrams of either kind.
const SAMPLES: usize = 200;
/// What coming up makes hosts and workers do is over after this time.
const SETTLE: Duration = Duration::from_millis(300);

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    let cpus = Cpus::choose(&params.cpus);
    let mut outcome = Outcome { scenario: SCENARIO.name.to_owned(), ..Outcome::default() };
    among_idle_ones(params, cpus, machine, &mut outcome)?;
    while_idle(params, cpus, &mut outcome.figures)?;
    Ok(outcome)
}

/// Two busy ports, with and without the idle ones.
fn among_idle_ones(params: &Params, cpus: Cpus, machine: &Machine, outcome: &mut Outcome) -> Result<()> {
    let frames = params.two_sided()?;
    let octets = frames[0].mean_size();
    let taps = |idle| Taps::new(frames.each_ref().map(Arc::clone), params.stations(), idle, cpus);
    let (mut alone, mut crowded) = (taps(0)?, taps(IDLE)?);
    pin(cpus.worker)?;
    let drops = crowded.drops();
    let (mut laps, mut with, mut without) = (Laps::default(), Rounds::default(), Rounds::default());
    let start = Instant::now();
    while start.elapsed() < params.duration || without.len() < 2 {
        if without.len() % 2 == 0 {
            without.push(alone.by_the_switch(&mut Laps::default())?);
            with.push(crowded.by_the_switch(&mut laps)?);
        } else {
            with.push(crowded.by_the_switch(&mut laps)?);
            without.push(alone.by_the_switch(&mut Laps::default())?);
        }
    }
    with.tell(outcome, machine);
    outcome.steps = laps.shares(crowded.steps(), outcome.packets);
    outcome.drops = crowded.drops() - drops;
    outcome.mpps = machine.tsc_mhz / outcome.tsc_per_packet;
    outcome.gbps = outcome.mpps * octets * 8.0 / 1000.0;
    outcome.figures = BTreeMap::from([
        ("alone_tsc".to_owned(), without.median()),
        ("to_alone".to_owned(), with.median() / without.median()),
    ]);
    Ok(())
}

/// All ports open, no traffic; then a little.
fn while_idle(params: &Params, cpus: Cpus, figures: &mut BTreeMap<String, f64>) -> Result<()> {
    let idle = IdleHosts::new(IDLE)?;
    let live = Live::start(cpus, Some(&idle))?;
    std::thread::sleep(SETTLE);
    let (cpu_time, start) = (worker_cpu_time()?, Instant::now());
    std::thread::sleep(params.duration);
    let used = worker_cpu_time()?.saturating_sub(cpu_time);
    figures.insert("idle_percent".to_owned(), 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64());
    // A short run has few samples.
    let samples = ((params.duration.as_secs_f64() / PAUSE.as_secs_f64()) as usize).clamp(10, SAMPLES);
    let busy = live.hosts.trips(samples, Duration::ZERO)?;
    let slept = live.hosts.trips(samples, PAUSE)?;
    let at = |times: &[f64], quantile: usize| times.get(times.len() * quantile / 100).copied().unwrap_or_default();
    for (name, times) in [("busy", &busy), ("slept", &slept)] {
        figures.insert(format!("{name}_p50_us"), at(times, 50));
        figures.insert(format!("{name}_p99_us"), at(times, 99));
    }
    figures.insert("first_us".to_owned(), at(&slept, 50) - at(&busy, 50));
    live.switch.stop();
    Ok(())
}

/// CPU time that the worker's thread has used: of all threads of this process, the one of its name.
fn worker_cpu_time() -> Result<Duration> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // Threads come and go while we look.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        if name.trim_end() == "worker-0" {
            let stat = std::fs::read_to_string(path.join("schedstat")).context("CPU time of the worker")?;
            let nanoseconds = stat.split(' ').next().unwrap_or_default().parse().context("CPU time of the worker")?;
            return Ok(Duration::from_nanos(nanoseconds));
        }
    }
    anyhow::bail!("the worker has no thread")
}
