//! `churn`: what changes of services cost those who talk to them. Connections as in `service`, while another thread adds an
//! endpoint to a service, or takes one away, 10 and 1,000 times a second, each in a transaction of its own.
//!
//! Slices without changes, with few and with many alternate in one run. Ratios are of packets a second, over whole slices:
//! what a change costs is not in the median window. A connection whose backend stays must stay too: drops are to be 0.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::{Change, Delta, Proto, Service, Transaction};
use control::Switch as _;
use vswitch::switch::Switch;
use vswitch::sys::affinity;

use super::service::{Talk, flows};
use super::{Params, Scale, ScenarioDef};
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop, median};
use crate::node::{self, BACKEND_PORT, Family, Place};
use crate::report::Outcome;
use crate::world::World;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "churn",
    help: "service, while endpoints of services come and go: throughput to that without changes",
    ladder: &[1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// Changes a second of the slices; the first is what the others are held against.
const RATES: [u32; 3] = [0, 10, 1000];
/// Times that the slices take turns.
const ROUNDS: usize = 3;

/// Adds an endpoint to one service after the other, and then takes them away again.
struct Churn {
    services: Vec<Service>,
    next: usize,
    extra: SocketAddr,
}

impl Churn {
    fn new(family: Family, services: usize) -> Self {
        Self {
            services: (0..services).map(|n| node::service(family, Place::Cluster, Proto::Tcp, n)).collect(),
            next: 0,
            // Nobody new comes in this scenario, so nobody is sent there.
            extra: SocketAddr::new(family.client(0), BACKEND_PORT),
        }
    }

    fn change(&mut self) -> Transaction {
        let number = self.next % self.services.len();
        self.next += 1;
        let Some(service) = self.services.get_mut(number) else { return Transaction::default() };
        let old = service.clone();
        let more = !old.backends.contains(&self.extra);
        let kept = old.backends.iter().copied().filter(|backend| *backend != self.extra);
        service.backends = kept.chain(more.then_some(self.extra)).collect();
        Transaction { changes: vec![Change::Service(Delta::replace(old, service.clone()))] }
    }

    /// Until told to end, so many changes a second. Returns how many there were.
    fn go_on(&mut self, switch: &mut Switch, rate: u32, end: &AtomicBool) -> Result<u32> {
        let start = Instant::now();
        let mut done = 0;
        while !end.load(Ordering::Acquire) {
            let due = if rate == 0 { Duration::MAX } else { Duration::from_secs(1) / rate * done };
            let early = due.saturating_sub(start.elapsed());
            if !early.is_zero() {
                std::thread::sleep(early.min(Duration::from_millis(10)));
                continue;
            }
            switch.apply(&self.change())?;
            done += 1;
        }
        Ok(done)
    }
}

/// Throughput with so many changes a second, and how many there really were.
fn slice(
    world: &mut World,
    churn: &mut Churn,
    rate: u32,
    (params, apart): (&Params, Option<u16>),
    machine: &Machine,
) -> Result<(Tally, f64)> {
    let duration = params.duration / ROUNDS as u32;
    let World { switch, workers, .. } = world;
    let worker = workers.first_mut().context("a switch without workers")?;
    let (end, start) = (AtomicBool::new(false), Instant::now());
    let (tally, done) = std::thread::scope(|scope| {
        // A thread begins where the one that started it is pinned: there it would be measured as if it were packets.
        let changes = scope.spawn(|| {
            apart.map_or(Ok(()), affinity::pin)?;
            churn.go_on(switch, rate, &end)
        });
        let tally = closed_loop(worker, 1, duration, machine);
        end.store(true, Ordering::Release);
        // A change that has begun waits for the worker.
        while !changes.is_finished() {
            crate::measure::Step::step(worker, &mut Default::default());
        }
        let done = changes.join().unwrap_or_else(|_| bail!("the thread of changes panicked"));
        anyhow::Ok((tally?, done?))
    })?;
    Ok((tally, f64::from(done) / start.elapsed().as_secs_f64()))
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.own_frames(SCENARIO.name)?;
    let mut talk = Talk::new(&flows(Family::Four, params))?;
    let mut churn = Churn::new(Family::Four, params.services);
    let drops = talk.world.drops();
    let mut rows: BTreeMap<u32, Vec<(Tally, f64)>> = BTreeMap::new();
    // Asked for before anybody is pinned; with one CPU there is no other.
    let apart = affinity::usable().get(1).copied();
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            params.pin_apart(0)?;
            for round in 0..ROUNDS {
                // Who goes first takes turns too.
                for n in 0..RATES.len() {
                    let rate = RATES[(round + n) % RATES.len()];
                    let row = slice(&mut talk.world, &mut churn, rate, (params, apart), machine)?;
                    rows.entry(rate).or_default().push(row);
                }
            }
            anyhow::Ok(())
        });
        measured.join().unwrap_or_else(|_| bail!("the worker panicked"))
    })?;
    let drops = talk.world.drops() - drops;
    let mut figures = BTreeMap::new();
    let none = rows.remove(&0).context("no slice without changes")?;
    figures.insert("none_tsc".to_owned(), median(none.iter().map(|(tally, _)| tally.mean()).collect()));
    for (rate, slices) in &rows {
        // Each against its neighbour in time.
        let ratios = none.iter().zip(slices).map(|((alone, _), (with, _))| alone.mean() / with.mean());
        figures.insert(format!("throughput_{rate}"), median(ratios.collect()));
        figures.insert(format!("changes_{rate}"), median(slices.iter().map(|(_, changes)| *changes).collect()));
    }
    let (tally, _) = rows.pop_last().and_then(|(_, mut slices)| slices.pop()).context("no slice with changes")?;
    Ok(Outcome {
        drops,
        figures,
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(SCENARIO.name, talk.octets, 0.0, machine)
    })
}
