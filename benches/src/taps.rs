//! Two TAPs, the switch between them driven by hand, and a bare forwarder on the same two descriptors.
//!
//! ```text
//!   round:  the hosts fill the kernel's queue of each TAP (other CPU)  →  drain it, and count the ticks:
//!             by the switch:          Worker::turn until nothing is left
//!             by the bare forwarder:  read, write, read, write
//! ```
//!
//! Nothing drains while the hosts send, so what is counted is the work and never the waiting: neither wake-ups nor the
//! hosts' share of the machine are in it. The frames are addressed to stations that no host is, so the far host's stack
//! drops them in its first step, whoever wrote them. Ticks of the bare forwarder are what the two system calls allow.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::{Change, PortId, Transaction};
use control::Switch as _;
use pipeline::raw::ticks;
use rustix::io::Errno;
use vswitch::keeper::Keeper;
use vswitch::ports::{Environment, Offered, Opened, tap};
use vswitch::switch::{Options, Switch};
use vswitch::sys::affinity::{pin, usable};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;
use vswitch::sys::packet;

use crate::frames::Frames;
use crate::hosts::{Hosts, IFNAME};
use crate::machine::Machine;
use crate::measure::{Laps, Step};
use crate::report::Outcome;
use crate::world::{Driven, PORTS, apply, bridge, port, port_spec};

/// Frames that a host sends before the queue is drained: whole bursts, and less than the kernel's queue of 500 holds.
pub const FILL: usize = 384;
/// Empty turns after which a drain is over: some more than the worker lets pass between two looks at its descriptors.
const EMPTY_TURNS: u32 = 64;
/// The longest that a warm-up may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of the bare forwarder's buffer: a frame that fits a slot, and its offload header.
const BUFFER: usize = 2112;

/// CPUs of a run: the worker has one to itself, and the hosts share another, where there are two.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Of whoever forwards.
    pub worker: u16,
    /// Of the hosts.
    pub hosts: u16,
}

impl Cpus {
    /// The first of `asked` for the worker, or the last there is.
    pub fn choose(asked: &[u16]) -> Self {
        let cpus = usable();
        let worker = asked.first().or_else(|| cpus.last()).copied().unwrap_or_default();
        Self { worker, hosts: cpus.iter().copied().find(|&cpu| cpu != worker).unwrap_or(worker) }
    }
}

/// Interfaces of hosts that never say anything, in a namespace of their own.
#[derive(Debug)]
pub struct IdleHosts {
    namespace: Namespace,
    count: u16,
}

impl IdleHosts {
    /// `count` hosts, without interfaces.
    ///
    /// # Errors
    /// Without the privilege to make namespaces.
    pub fn new(count: u16) -> Result<Self> {
        let namespace = Namespace::new().context("a network namespace cannot be made")?;
        crate::hosts::quiet(&namespace);
        Ok(Self { namespace, count })
    }

    /// Their ports, numbered after the busy ones.
    pub fn ports(&self) -> Vec<Change> {
        let path = self.namespace.path().display().to_string();
        let one =
            |n: u16| port(PortId(PORTS[1].0 + n), "tap", &[("netns", path.clone()), ("ifname", format!("idle{n}"))]);
        (1..=self.count).map(one).collect()
    }

    /// Bring their interfaces up, now that they have them.
    ///
    /// # Errors
    /// When one is not there.
    pub fn configure(&self) -> Result<()> {
        self.namespace.run(|| -> std::io::Result<()> {
            let netlink = Netlink::open()?;
            for n in 1..=self.count {
                netlink
                    .set(netlink.index(&format!("idle{n}"))?, &Settings { up: Some(true), ..Settings::default() })?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Sends a list of frames out of a host's interface, some at a time.
struct Source {
    socket: OwnedFd,
    frames: Arc<Frames>,
    next: usize,
}

impl Source {
    fn open(host: &Namespace, frames: Arc<Frames>) -> Result<Self> {
        let socket = host.run(|| packet::sender(Netlink::open()?.index(IFNAME)?)).context("a packet socket")?;
        Ok(Self { socket, frames, next: 0 })
    }

    /// Send the next frames; returns how many the interface took.
    fn fill(&mut self) -> usize {
        let mut sent = 0;
        for _ in 0..FILL {
            sent += usize::from(rustix::io::write(&self.socket, self.frames.nth(self.next)).is_ok());
            self.next = (self.next + 1) % self.frames.len();
        }
        sent
    }
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drained {
    /// Frames.
    pub packets: u64,
    /// Until the last of them was on its way.
    pub ticks: u64,
}

impl Drained {
    /// Ticks a packet.
    pub fn each(&self) -> f64 {
        self.ticks as f64 / self.packets.max(1) as f64
    }
}

/// The two hosts, their TAPs, and the switch, which does nothing by itself.
pub struct Taps {
    sources: [Source; 2],
    /// Duplicates of the descriptors that the switch's ports have.
    descriptors: [OwnedFd; 2],
    worker: Driven,
    cpus: Cpus,
    /// Not to be dropped before their ports.
    switch: Switch,
    _hosts: Hosts,
    _idle: Option<IdleHosts>,
}

impl Taps {
    /// TAPs of two hosts that send `frames`, beside those of `idle` hosts that send nothing.
    ///
    /// # Errors
    /// Without the privilege to make namespaces and interfaces.
    pub fn new(frames: [Arc<Frames>; 2], stations: usize, idle: u16, cpus: Cpus) -> Result<Self> {
        let hosts = Hosts::new(cpus.hosts)?;
        let options = Options { workers: 1, ..Options::default() };
        let (mut switch, mut workers) = Switch::assemble(&options, Keeper::none())?;
        let mut changes = vec![bridge(stations)?];
        let mut open = |id: PortId, host: &Namespace| -> Result<OwnedFd> {
            let (opened, descriptor) = open_tap(id, host.path(), &switch)?;
            // The real device under a kind that a caller may bring along: that is how its descriptor is shared.
            switch.offer(&port_spec(id, "memory", &[]).name, opened);
            changes.push(port(id, "memory", &[]));
            Ok(descriptor)
        };
        let descriptors = [open(PORTS[0], &hosts.left)?, open(PORTS[1], &hosts.right)?];
        let idle = if idle == 0 { None } else { Some(IdleHosts::new(idle)?) };
        changes.extend(idle.iter().flat_map(IdleHosts::ports));
        apply(&mut switch, &mut workers, &Transaction { changes })?;
        hosts.configure()?;
        if let Some(idle) = &idle {
            idle.configure()?;
        }
        let [left, right] = frames;
        let sources = [Source::open(&hosts.left, left)?, Source::open(&hosts.right, right)?];
        let worker = Driven(workers.pop().context("a switch without workers")?);
        let mut taps = Self { sources, descriptors, worker, cpus, switch, _hosts: hosts, _idle: idle };
        taps.warm_up()?;
        Ok(taps)
    }

    /// Until nearly every frame is a hit: first packets are budgeted, so many flows take many rounds. After
    /// [`PATIENCE`] what still misses is part of the work: the steps show it.
    fn warm_up(&mut self) -> Result<()> {
        let longest = self.sources.iter().map(|source| source.frames.len()).max().unwrap_or_default();
        let misses = |switch: &Switch| switch.workers().iter().map(|worker| worker.misses).sum::<u64>();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let (before, mut moved) = (misses(&self.switch), 0);
            for _ in 0..=longest / FILL {
                moved += self.by_the_switch(&mut Laps::default())?.packets;
            }
            if (misses(&self.switch) - before) * 1000 <= moved {
                break;
            }
        }
        Ok(())
    }

    /// Let the hosts send, on their CPU. Returns how many frames wait.
    fn fill(&mut self) -> Result<usize> {
        let (sources, cpu) = (&mut self.sources, self.cpus.hosts);
        let filled = std::thread::scope(|scope| {
            let filling = scope.spawn(move || -> Result<usize> {
                pin(cpu)?;
                Ok(sources.iter_mut().map(Source::fill).sum())
            });
            filling.join().unwrap_or_else(|_| bail!("a host's thread panicked"))
        })?;
        ensure!(filled > 0, "the hosts' interfaces took no frame");
        Ok(filled)
    }

    /// A round of the switch's own worker; `laps` are taken of its steps.
    ///
    /// # Errors
    /// When nothing was there to be forwarded.
    pub fn by_the_switch(&mut self, laps: &mut Laps) -> Result<Drained> {
        let waiting = self.fill()? as u64;
        let start = ticks();
        let (mut drained, mut empty) = (Drained::default(), 0);
        while drained.packets < waiting && empty < EMPTY_TURNS {
            match self.worker.step(laps).packets {
                0 => empty += 1,
                moved => {
                    empty = 0;
                    drained = Drained { packets: drained.packets + moved, ticks: ticks() - start };
                }
            }
        }
        ensure!(drained.packets > 0, "no frame came through the switch");
        Ok(drained)
    }

    /// A round of the bare forwarder: one descriptor to the other until the first has nothing left, then back.
    ///
    /// # Errors
    /// When nothing was there to be forwarded.
    pub fn by_hand(&mut self) -> Result<Drained> {
        self.fill()?;
        let [left, right] = &self.descriptors;
        let mut buffer = [0; BUFFER];
        let (start, mut packets) = (ticks(), 0);
        for (from, to) in [(left, right), (right, left)] {
            loop {
                match rustix::io::read(from, &mut buffer) {
                    Ok(len) => _ = rustix::io::write(to, buffer.get(..len).unwrap_or_default())?,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
                packets += 1;
            }
        }
        let ticks = ticks() - start;
        ensure!(packets > 0, "no frame waited");
        Ok(Drained { packets, ticks })
    }

    /// Names of the steps that laps are taken of.
    pub fn steps(&self) -> &'static [&'static str] {
        self.worker.names()
    }

    /// Frames that the switch dropped so far.
    pub fn drops(&self) -> u64 {
        self.switch.drops().iter().map(|row| row.packets).sum()
    }
}

/// The device of a host, opened as the switch opens it, and a duplicate of its descriptor.
fn open_tap(id: PortId, netns: &Path, switch: &Switch) -> Result<(Opened, OwnedFd)> {
    let spec = port_spec(id, "tap", &[("netns", netns.display().to_string()), ("ifname", IFNAME.to_owned())]);
    let (keeper, offered) = (Keeper::none(), Offered::default());
    let opened = (tap::PORT.open)(&spec, &Environment { pool: switch.pool(), keeper: &keeper, offered: &offered })?;
    let queue = opened.queues.first().and_then(|queue| queue.fd()).context("a TAP without a descriptor")?;
    let descriptor = queue.as_fd().try_clone_to_owned()?;
    Ok((opened, descriptor))
}

/// Ticks a packet of rounds, in order of size.
#[derive(Debug, Default)]
pub struct Rounds {
    ticks: Vec<f64>,
    packets: u64,
}

impl Rounds {
    /// One more round.
    pub fn push(&mut self, drained: Drained) {
        let place = self.ticks.partition_point(|ticks| *ticks < drained.each());
        self.ticks.insert(place, drained.each());
        self.packets += drained.packets;
    }

    /// Rounds so far.
    pub fn len(&self) -> usize {
        self.ticks.len()
    }

    /// None so far.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// The median round.
    pub fn median(&self) -> f64 {
        self.ticks.get(self.ticks.len() / 2).copied().unwrap_or_default()
    }

    /// The best round.
    pub fn best(&self) -> f64 {
        self.ticks.first().copied().unwrap_or_default()
    }

    /// Put ticks and packets into what is told of the run.
    pub fn tell(&self, outcome: &mut Outcome, machine: &Machine) {
        outcome.tsc_per_packet = self.median();
        outcome.tsc_best = self.best();
        outcome.ns_per_packet = machine.ns(self.median());
        outcome.packets = self.packets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Size;

    #[test]
    fn both_ways_of_forwarding_move_every_frame_that_waits() {
        if Namespace::new().is_err() {
            return println!("SKIPPED: both_ways_of_forwarding_move_every_frame_that_waits: not allowed");
        }
        let frames = Frames::pairs(1, Size::Fixed(64)).unwrap().map(Arc::new);
        let mut taps = Taps::new(frames, 100, 2, Cpus::choose(&[])).unwrap();
        let before = taps.drops();
        for _ in 0..3 {
            // A host may have something of its own to say.
            let all = 2 * FILL as u64..2 * FILL as u64 + 20;
            assert!(all.contains(&taps.by_the_switch(&mut Laps::default()).unwrap().packets));
            assert!(all.contains(&taps.by_hand().unwrap().packets));
        }
        assert_eq!(taps.drops(), before);
    }

    #[test]
    fn a_median_is_not_moved_by_one_bad_round() {
        let mut rounds = Rounds::default();
        for ticks in [30, 1000, 10, 20, 40] {
            rounds.push(Drained { packets: 1, ticks });
        }
        assert_eq!((rounds.median(), rounds.best()), (30.0, 10.0));
        assert_eq!(Rounds::default().median(), 0.0);
    }
}
