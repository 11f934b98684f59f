//! `tap-pps`, `tap-tcp`: two hosts with kernel stacks and the switch between them, on real TAP interfaces.
//!
//! Rates are what the right host's socket received, so they bound the switch from below: the hosts' own stacks take
//! their share of the machine. Ticks of `tap-pps` are of [`taps`](crate::taps): frames wait, the worker forwards them,
//! and a bare loop of read and write does the same in turn, which is what the system calls allow. Ticks of `tap-tcp`
//! are those that the worker was busy, divided by what it forwarded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use api::Transaction;
use api::state::WorkerState;
use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::affinity::pin;

use super::{Params, Scale, ScenarioDef};
use crate::frames::Frames;
use crate::hosts::{Hosts, IFNAME};
use crate::machine::Machine;
use crate::measure::Laps;
use crate::report::Outcome;
use crate::taps::{Cpus, IdleHosts, Rounds, Taps};
use crate::world::{PORTS, bridge, port};

/// Small datagrams.
pub const PPS: ScenarioDef = ScenarioDef {
    name: "tap-pps",
    help: "small UDP frames between two namespaces on TAPs, beside a bare loop of read and write; wants root",
    ladder: &[1],
    scale: Scale::Flows,
    privileged: true,
    run: pps,
};

/// One stream.
pub const TCP: ScenarioDef = ScenarioDef {
    name: "tap-tcp",
    help: "one TCP stream between two namespaces on TAPs; wants root",
    ladder: &[1],
    scale: Scale::Flows,
    privileged: true,
    run: tcp,
};

/// The time of a run is divided: sockets, and rounds of frames that wait.
const PARTS: u32 = 2;

fn pps(params: &Params, machine: &Machine) -> Result<Outcome> {
    let cpus = Cpus::choose(&params.cpus);
    let mut outcome = Outcome { scenario: PPS.name.to_owned(), ..Outcome::default() };
    let [left, right] = params.two_sided()?;
    let mut taps = Taps::new([Arc::clone(&left), right], params.stations(), 0, cpus)?;
    pin(cpus.worker)?;
    let drops = taps.drops();
    let (mut laps, mut switch, mut bare) = (Laps::default(), Rounds::default(), Rounds::default());
    let start = Instant::now();
    while start.elapsed() < params.duration / PARTS || bare.len() < 2 {
        // Who goes first takes turns too.
        if bare.len() % 2 == 0 {
            bare.push(taps.by_hand()?);
            switch.push(taps.by_the_switch(&mut laps)?);
        } else {
            switch.push(taps.by_the_switch(&mut laps)?);
            bare.push(taps.by_hand()?);
        }
    }
    switch.tell(&mut outcome, machine);
    outcome.steps = laps.shares(taps.steps(), outcome.packets);
    outcome.drops = taps.drops() - drops;
    outcome.figures = BTreeMap::from([
        ("bare_tsc".to_owned(), bare.median()),
        ("bare_tsc_best".to_owned(), bare.best()),
        ("bare_to_switch".to_owned(), bare.median() / switch.median()),
    ]);
    outcome.mpps = machine.tsc_mhz / outcome.tsc_per_packet;
    outcome.gbps = outcome.mpps * left.mean_size() * 8.0 / 1000.0;
    if params.pcap.is_empty() {
        drop(taps);
        let live = Live::start(cpus, None)?;
        let before = live.worker();
        let sent = live.hosts.udp(params.duration / PARTS)?;
        outcome.figures.insert("busy_tsc".to_owned(), live.worker().busy_since(&before));
        outcome.figures.insert("sent_mpps".to_owned(), sent.sent / 1e6);
        outcome.mpps = sent.received / 1e6;
        outcome.gbps = sent.received * Frames::SMALLEST as f64 * 8.0 / 1e9;
        live.switch.stop();
    }
    Ok(outcome)
}

fn tcp(params: &Params, machine: &Machine) -> Result<Outcome> {
    ensure!(params.pcap.is_empty(), "--pcap: a capture is no TCP connection; tap-pps sends its frames");
    let live = Live::start(Cpus::choose(&params.cpus), None)?;
    let before = live.worker();
    let gbps = live.hosts.tcp(params.duration)?;
    let after = live.worker();
    let drops = live.switch.drops().iter().map(|row| row.packets).sum();
    live.switch.stop();
    let (tsc, packets) = (after.busy_since(&before), after.0.packets - before.0.packets);
    Ok(Outcome {
        scenario: TCP.name.to_owned(),
        tsc_per_packet: tsc,
        tsc_best: tsc,
        ns_per_packet: machine.ns(tsc),
        mpps: packets as f64 / params.duration.as_secs_f64() / 1e6,
        gbps,
        drops,
        packets,
        ..Outcome::default()
    })
}

/// Two hosts, and the switch at work between them on a thread of its own.
pub(super) struct Live {
    /// The hosts.
    pub(super) hosts: Hosts,
    /// The switch.
    pub(super) switch: Switch,
}

/// What a worker has counted.
pub(super) struct Counted(WorkerState);

impl Counted {
    /// Ticks that the worker was busy since `before`, for each frame.
    fn busy_since(&self, before: &Self) -> f64 {
        let packets = self.0.packets - before.0.packets;
        (self.0.busy_ticks - before.0.busy_ticks) as f64 / packets.max(1) as f64
    }
}

impl Live {
    /// With the ports of idle hosts, if there are any.
    pub(super) fn start(cpus: Cpus, idle: Option<&IdleHosts>) -> Result<Self> {
        let hosts = Hosts::new(cpus.hosts)?;
        let options = Options { workers: 1, cpus: vec![cpus.worker], ..Options::default() };
        let mut switch = Switch::start(&options, Keeper::none()).context("the switch does not start")?;
        let tap = |id, path: &std::path::Path| {
            port(id, "tap", &[("netns", path.display().to_string()), ("ifname", IFNAME.to_owned())])
        };
        let mut changes = vec![bridge(1000)?, tap(PORTS[0], hosts.left.path()), tap(PORTS[1], hosts.right.path())];
        changes.extend(idle.into_iter().flat_map(IdleHosts::ports));
        switch.apply(&Transaction { changes })?;
        hosts.configure()?;
        if let Some(idle) = idle {
            idle.configure()?;
        }
        Ok(Self { hosts, switch })
    }

    /// What its worker has counted.
    pub(super) fn worker(&self) -> Counted {
        Counted(self.switch.workers().into_iter().next().unwrap_or_default())
    }
}
