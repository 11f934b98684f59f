//! `tap-pps`, `tap-tcp`: two hosts with kernel stacks and the switch between them, on real TAP interfaces.
//!
//! The figures are what the right host's socket received, so they bound the switch from below: the hosts' own stacks
//! take their share of the machine. Ticks a packet are those that the worker was busy, divided by what it forwarded.

use std::time::Duration;

use anyhow::{Context, Result};
use api::Transaction;
use api::state::WorkerState;
use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::affinity::usable;

use super::{Params, ScenarioDef};
use crate::hosts::{Hosts, IFNAME};
use crate::machine::Machine;
use crate::report::Outcome;
use crate::world::{PORTS, bridge, port};

/// Small datagrams.
pub const PPS: ScenarioDef = ScenarioDef {
    name: "tap-pps",
    help: "small UDP frames between two namespaces on TAPs; wants root",
    ladder: &[1],
    privileged: true,
    run: |params, machine| run(PPS.name, Traffic::Pps, params, machine),
};

/// One stream.
pub const TCP: ScenarioDef = ScenarioDef {
    name: "tap-tcp",
    help: "one TCP stream between two namespaces on TAPs; wants root",
    ladder: &[1],
    privileged: true,
    run: |params, machine| run(TCP.name, Traffic::Tcp, params, machine),
};

enum Traffic {
    Pps,
    Tcp,
}

fn run(name: &str, traffic: Traffic, params: &Params, machine: &Machine) -> Result<Outcome> {
    // The worker has a CPU to itself, and the hosts share another, where there are two.
    let cpus = usable();
    let worker_cpu = params.cpus.first().or_else(|| cpus.last()).copied().unwrap_or_default();
    let hosts_cpu = cpus.iter().copied().find(|&cpu| cpu != worker_cpu).unwrap_or(worker_cpu);
    let hosts = Hosts::new(hosts_cpu)?;
    let options = Options { workers: 1, cpus: vec![worker_cpu], ..Options::default() };
    let mut switch = Switch::start(&options, Keeper::none()).context("the switch does not start")?;
    let tap = |id, path: &std::path::Path| {
        port(id, "tap", &[("netns", path.display().to_string()), ("ifname", IFNAME.to_owned())])
    };
    let changes = vec![bridge(1000)?, tap(PORTS[0], hosts.left.path()), tap(PORTS[1], hosts.right.path())];
    switch.apply(&Transaction { changes })?;
    hosts.configure()?;
    let before = worker(&switch);
    let measured = measure(&traffic, &hosts, params.duration);
    let after = worker(&switch);
    let drops = switch.drops().iter().map(|row| row.packets).sum();
    switch.stop();
    let (mpps, gbps) = measured?;
    let packets = after.packets - before.packets;
    let tsc = (after.busy_ticks - before.busy_ticks) as f64 / packets.max(1) as f64;
    Ok(Outcome {
        scenario: name.to_owned(),
        tsc_per_packet: tsc,
        tsc_best: tsc,
        ns_per_packet: machine.ns(tsc),
        mpps: if mpps > 0.0 { mpps } else { packets as f64 / params.duration.as_secs_f64() / 1e6 },
        gbps,
        drops,
        packets,
        ..Outcome::default()
    })
}

/// Millions of datagrams a second (0 for a stream), and gigabits of payload or frames a second.
fn measure(traffic: &Traffic, hosts: &Hosts, duration: Duration) -> Result<(f64, f64)> {
    match traffic {
        Traffic::Tcp => Ok((0.0, hosts.tcp(duration)?)),
        Traffic::Pps => {
            let rate = hosts.udp(duration)?.received;
            Ok((rate / 1e6, rate * 64.0 * 8.0 / 1e9))
        }
    }
}

fn worker(switch: &Switch) -> WorkerState {
    switch.workers().into_iter().next().unwrap_or_default()
}
