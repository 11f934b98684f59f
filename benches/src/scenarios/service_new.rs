//! `service-new`: each frame is the first of a new connection to a service: a datagram of a tuple that was not seen
//! before. `service-new-tcp`: SYN, and in the burst after it the SYN-ACK of its backend, so two walks a connection.
//!
//! What counts is everything from port to port: the walk with its choice of a backend, the connection in the table, the
//! entries in the cache. When all tuples are used, the connections are ended, rest as long as they must, and are freed, none
//! of which is part of the figure; then the list begins anew.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use control::Switch as _;
use pipeline::burst::LANES;
use pipeline::raw::ticks;

use super::service::flows;
use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::Segment;
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

struct New {
    world: World,
    playlists: [Arc<Playlist>; 2],
    /// How many of the playlists have frames.
    speakers: usize,
    /// Bursts of all lists together, and how many of them have been sent.
    bursts: usize,
    sent: usize,
}

impl New {
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
        let start = ticks();
        let moved = self.world.workers.first_mut().map(|worker| worker.step(laps)).unwrap_or_default();
        Moved { ticks: ticks() - start, ..moved }
    }
}

fn run(name: &str, segments: [Option<Segment>; 2], params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    // A whole number of bursts, so that the lists begin anew with a burst.
    let params = Params { flows: params.flows.next_multiple_of(LANES), ..params.clone() };
    let flows = flows(Family::Four, &params);
    let frames = |segment: Option<Segment>| segment.map_or(Ok(Frames::default()), |segment| flows.in_order(segment));
    let [ask, answer] = segments.map(frames);
    let (ask, answer) = (Arc::new(ask?), Arc::new(answer?));
    let generator = alone(&ask, SHORT, machine)?;
    let playlists = [&ask, &answer].map(|frames| Playlist::new(vec![Arc::clone(frames)]));
    playlists.iter().for_each(|playlist| playlist.pause(true));
    let changes = node::services(Family::Four, params.services);
    let world = World::routed(playlists.each_ref().map(Arc::clone), changes, 1)?;
    let speakers = segments.iter().flatten().count();
    let bursts = speakers * params.flows / LANES;
    let mut work = New { world, playlists, speakers, bursts, sent: 0 };
    // The first time that memory is used is not what is measured: once through the lists.
    let before = resident("self")?;
    for _ in 0..bursts {
        work.step(&mut Laps::default());
    }
    let grown = resident("self")?.saturating_sub(before);
    let live = work.world.switch.connections().len();
    let drops = work.world.drops();
    let tally = closed_loop(&mut work, 1, params.duration, machine)?;
    let drops = work.world.drops() - drops;
    let mut outcome = tally.outcome(name, ask.mean_size(), generator, machine);
    outcome.figures = [
        ("connections_mps".to_owned(), outcome.mpps / speakers as f64),
        ("live".to_owned(), live as f64),
        ("live_mb".to_owned(), grown as f64 / 1e6),
    ]
    .into();
    outcome.params = [("services".to_owned(), params.services.into())].into();
    Ok(Outcome { drops, ..outcome })
}
