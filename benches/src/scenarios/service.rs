//! `service`, `service6`: clients behind port 1 talk to services whose backends are behind port 2, both ways, in random
//! order. All connections are established: a hit translates an address and a port, corrects both checksums, gives the frame
//! the Ethernet addresses of its next hop and takes one off its hop limit.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::{Flows, Segment};
use crate::machine::Machine;
use crate::measure::closed_loop;
use crate::node::{self, Family};
use crate::port::{Playlist, alone};
use crate::report::Outcome;
use crate::world::World;

/// IPv4.
pub const FOUR: ScenarioDef = ScenarioDef {
    name: "service",
    help: "established TCP connections to service addresses, both ways, one worker, every frame a hit",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(FOUR.name, Family::Four, params, machine),
};

/// IPv6.
pub const SIX: ScenarioDef = ScenarioDef {
    name: "service6",
    help: "the same over IPv6",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(SIX.name, Family::Six, params, machine),
};

/// Places in the lists of the ports: handshake, then talk; none.
const HANDSHAKE: usize = 0;
const TALK: usize = 1;
const SILENCE: usize = 2;

/// What is measured, and what it sends.
pub(super) struct Talk {
    /// The switch.
    pub(super) world: World,
    /// What the clients and the backends send.
    pub(super) playlists: [Arc<Playlist>; 2],
    /// Frames in both lists.
    pub(super) frames: usize,
    /// Octets of a frame on average.
    octets: f64,
}

impl Talk {
    /// Services, and these connections to them, all established.
    pub(super) fn new(flows: &Flows) -> Result<Self> {
        let list = |first, then| -> Result<_> {
            Ok(Playlist::new(vec![Arc::new(flows.frames(first, false)?), Arc::new(flows.frames(then, true)?)]))
        };
        let playlists = [list(Segment::Syn, Segment::Ask)?, list(Segment::SynAck, Segment::Answer)?];
        let talk = |playlist: &Arc<Playlist>| playlist.list(TALK).cloned().unwrap_or_default();
        let lists = playlists.each_ref().map(talk);
        let octets = lists.iter().map(|frames| frames.mean_size()).sum::<f64>() / 2.0;
        playlists[1].play(SILENCE);
        let changes = node::services(flows.family, flows.services);
        let mut world = World::routed(playlists.each_ref().map(Arc::clone), changes, 1)?;
        // The backends answer when all have asked: a backend that spoke first would open a connection of its own.
        for (port, playlist) in playlists.iter().enumerate() {
            playlists.iter().for_each(|other| other.play(SILENCE));
            playlist.play(HANDSHAKE);
            let through = world.pass(flows.count);
            ensure!(through >= flows.count as u64, "port {}: {through} of {} handshakes arrive", port + 1, flows.count);
        }
        playlists.iter().for_each(|playlist| playlist.play(TALK));
        let frames = lists.iter().map(|frames| frames.len()).sum();
        world.warm_up(frames);
        Ok(Self { world, playlists, frames, octets })
    }
}

/// The connections that parameters ask for.
pub(super) fn flows(family: Family, params: &Params) -> Flows {
    Flows { family, count: params.flows, services: params.services, size: params.size }
}

fn run(name: &str, family: Family, params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    let mut talk = Talk::new(&flows(family, params))?;
    let generator = alone(talk.playlists[0].list(TALK).context("no frames")?, SHORT, machine)?;
    let drops = talk.world.drops();
    let worker = talk.world.workers.first_mut().context("a switch without workers")?;
    let tally = closed_loop(worker, talk.frames as u64, params.duration, machine)?;
    Ok(Outcome {
        drops: talk.world.drops() - drops,
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(name, talk.octets, generator, machine)
    })
}
