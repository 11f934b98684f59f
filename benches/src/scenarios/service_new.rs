//! `service-new`: each frame is the first of a new connection to a service: a datagram of a tuple that was not seen
//! before. `service-new-tcp`: SYN, and in the burst after it the SYN-ACK of its backend, so two walks a connection.
//!
//! What counts is everything from port to port: the walk with its choice of a backend, the connection in the table, the
//! entries in the cache. When all tuples are used, the connections are ended, rest as long as they must, and are freed, none
//! of which is part of the figure; then the list begins anew.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::Change;
use control::Switch as _;
use pipeline::burst::LANES;
use pipeline::raw::ticks;

use super::service::flows;
use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::{Flows, Segment};
use crate::frames::Frames;
use crate::machine::{Machine, resident};
use crate::measure::{Laps, Moved, Step, closed_loop};
use crate::node::{self, Family};
use crate::port::{Playlist, alone};
use crate::report::Outcome;
use crate::world::{Driven, World};

/// Datagrams.
pub const UDP: ScenarioDef = ScenarioDef {
    name: "service-new",
    help: "first datagrams to service addresses, each a new connection; Mpps are millions of connections a second",
    ladder: &[1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(UDP.name, [Some(Segment::Datagram), None], params, machine),
};

/// Handshakes.
pub const TCP: ScenarioDef = ScenarioDef {
    name: "service-new-tcp",
    help: "SYN to service addresses and SYN-ACK of the backends, each a new connection; two packets a connection",
    ladder: &[1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(TCP.name, [Some(Segment::Syn), Some(Segment::SynAck)], params, machine),
};

/// Dead connections keep their tuples for two whole seconds of the clock.
const REST: Duration = Duration::from_millis(3100);
/// Records that one step of housekeeping frees, or more.
const FREED: usize = 32 * 1024;

/// A switch to which new connections come.
pub(super) struct New {
    world: World,
    playlists: [Arc<Playlist>; 2],
    /// How many of the playlists have frames.
    speakers: usize,
    /// Bursts of all lists together, and how many of them have been sent.
    bursts: usize,
    sent: usize,
    /// Time that this thread had a CPU for them, and how many packets there were.
    cpu: Duration,
    packets: u64,
    /// What the lists left when they had been sent once: connections, and octets that the process grew by.
    live: usize,
    grown: u64,
}

impl New {
    /// A switch with these services, to which these frames come once before anything is measured: the first time that memory
    /// is used is not what is measured.
    pub(super) fn ready(lists: [&Arc<Frames>; 2], changes: Vec<Change>) -> Result<Self> {
        let playlists = lists.map(|frames| Playlist::new(vec![Arc::clone(frames)]));
        playlists.iter().for_each(|playlist| playlist.pause(true));
        let world = World::routed(playlists.each_ref().map(Arc::clone), changes, 1)?;
        let speakers = lists.iter().filter(|frames| !frames.is_empty()).count();
        let bursts = lists.iter().map(|frames| frames.len()).sum::<usize>() / LANES;
        let (cpu, before) = (Duration::ZERO, resident("self")?);
        let mut new = Self { world, playlists, speakers, bursts, sent: 0, cpu, packets: 0, live: 0, grown: 0 };
        for _ in 0..bursts {
            new.step(&mut Laps::default());
        }
        new.grown = resident("self")?.saturating_sub(before);
        new.live = new.world.switch.connections().len();
        (new.cpu, new.packets) = (Duration::ZERO, 0);
        Ok(new)
    }

    /// Frames dropped so far.
    pub(super) fn drops(&self) -> u64 {
        self.world.drops()
    }

    /// Nanoseconds of CPU time a connection.
    pub(super) fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 * self.speakers as f64 / self.packets.max(1) as f64
    }

    /// End all connections, and let their records be free again.
    fn end(&mut self) {
        let ended = self.world.switch.flush_connections(&|_| true);
        std::thread::sleep(REST);
        for _ in 0..=ended / FREED {
            self.world.switch.look_after_connections();
        }
    }
}

impl Step for New {
    fn names(&self) -> &'static [&'static str] {
        self.world.workers.first().map_or(&[], Driven::names)
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        // The lists were sent once: they begin anew by themselves.
        if self.sent == self.bursts {
            self.end();
            self.sent = 0;
        }
        // One speaks at a time, so that neither loses first packets to the other's share of the worker.
        let speaker = self.sent % self.speakers;
        self.playlists.iter().enumerate().for_each(|(port, playlist)| playlist.pause(port != speaker));
        self.sent += 1;
        let (start, cpu) = (ticks(), cpu_time());
        let moved = self.world.workers.first_mut().map(|worker| worker.step(laps)).unwrap_or_default();
        let spent = ticks() - start;
        self.cpu += cpu_time().saturating_sub(cpu);
        self.packets += moved.packets;
        Moved { ticks: spent, ..moved }
    }
}

/// Time that this thread had a CPU. A burst of walks takes as long as others leave us alone, or longer: on a machine that is
/// shared, what a connection costs is better told by this than by the clock.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// As many flows as parameters ask for, or a few more: a whole number of bursts, so that the lists begin anew with a burst.
pub(super) fn whole_bursts(params: &Params) -> Flows {
    let flows = flows(Family::Four, params);
    Flows { count: flows.count.next_multiple_of(LANES), ..flows }
}

fn run(name: &str, segments: [Option<Segment>; 2], params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    let flows = whole_bursts(params);
    let frames = |segment: Option<Segment>| segment.map_or(Ok(Frames::default()), |segment| flows.in_order(segment));
    let [ask, answer] = segments.map(frames);
    let (ask, answer) = (Arc::new(ask?), Arc::new(answer?));
    let generator = alone(&ask, SHORT, machine)?;
    let mut work = New::ready([&ask, &answer], node::services(Family::Four, flows.place, params.services))?;
    let drops = work.drops();
    let tally = closed_loop(&mut work, 1, params.duration, machine)?;
    let drops = work.drops() - drops;
    let mut outcome = tally.outcome(name, ask.mean_size(), generator, machine);
    outcome.figures = [
        ("connections_mps".to_owned(), outcome.mpps / work.speakers as f64),
        ("cpu_ns".to_owned(), work.cpu_ns()),
        ("live".to_owned(), work.live as f64),
        ("live_mb".to_owned(), work.grown as f64 / 1e6),
    ]
    .into();
    outcome.params = [("services".to_owned(), params.services.into())].into();
    Ok(Outcome { drops, ..outcome })
}
