//! The switch that is measured: one bridge, two `port`s, and the workers of `vswitchd` itself, driven
//! turn by turn by whoever measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Station, StationKey, Transaction, Vlan};
use control::Switch as _;
use pipeline::burst::LANES;
use pipeline::key::KeyMask;
use pipeline::live::connections;
use pipeline::probe::cells::Cells;
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;
use pipeline::{Limits, Step as PipelineStep};
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::worker::{Lap, Worker};

use crate::frames::Frames;
use crate::measure::{Laps, Moved, Step};
use crate::node;
use crate::port::{self, Playlist, Sink};

/// The only bridge.
pub const BRIDGE: BridgeId = BridgeId(1);
/// The longest that a warm-up may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Its ports.
pub const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

/// The switch, and its workers for the taking.
pub struct World {
    /// The switch.
    pub switch: Switch,
    /// Its workers; with two, each reads one of the ports.
    pub workers: Vec<Driven>,
    sinks: [Arc<Sink>; 2],
}

/// A worker as something to measure. Workers stand side by side in a list here, which they do not in `vswitchd`: hence
/// the alignment, so that the end of one is not on a cache line with the beginning of the next.
#[repr(align(128))]
pub struct Driven(pub(crate) Worker);

/// The bridge, which may learn `stations` stations.
///
/// # Errors
/// When there are more than a bridge can count.
pub fn bridge(stations: usize) -> Result<Change> {
    Ok(Change::Bridge(Delta::add(Bridge {
        id: BRIDGE,
        name: "br0".to_owned(),
        mac_table_size: u32::try_from(stations)?,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: Default::default(),
    })))
}

/// One of its ports, to be added.
pub fn port(id: PortId, kind: &str, options: &[(&str, String)]) -> Change {
    Change::Port(Delta::add(port_spec(id, kind, options)))
}

/// One of its ports.
pub fn port_spec(id: PortId, kind: &str, options: &[(&str, String)]) -> Port {
    Port {
        id,
        name: format!("p{id}"),
        bridge: BRIDGE,
        ofport: id.0,
        kind: kind.to_owned(),
        options: options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: Default::default(),
    }
}

/// The mask of an ordinary bridge port.
pub fn bridge_mask() -> KeyMask {
    let cells = Cells::default();
    let changes = bridge(16).into_iter().chain([port(PORTS[0], "memory", &[])]).collect();
    let program = Program::cold(STAGES, &Transaction { changes }, &cells);
    program.ingress(PORTS[0]).map_or(KeyMask::EMPTY, |ingress| ingress.mask)
}

impl World {
    /// A bridge that may learn `stations` stations, whose ports send `frames` as fast as its workers take them.
    ///
    /// # Errors
    /// When the system has no memory or descriptor left.
    pub fn new(frames: [Arc<Frames>; 2], stations: usize, workers: usize) -> Result<Self> {
        // Two ports of a million pairs are two million flows, and a set must not be full before the cache is.
        let limits = Limits { v4: 1 << 22, ..Limits::default() };
        let options = Options { workers, limits, ..Options::default() };
        Self::build(&options, frames.map(|frames| Playlist::new(vec![frames])), stations, Vec::new())
    }

    /// A bridge with a router, of a node with clients behind port 1 and whatever else `changes` say; its ports send what
    /// is on.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn routed(playlists: [Arc<Playlist>; 2], changes: Vec<Change>, workers: usize) -> Result<Self> {
        let limits = Limits { v4: 1 << 22, v6: 1 << 22, ..Limits::default() };
        // Nobody answers to `route`, and no connection is to give way to another.
        let connections = connections::Limits { total: 1 << 23, unanswered: 1 << 23 };
        let options = Options { workers, limits, connections, ..Options::default() };
        let changes = node::router().into_iter().chain(changes).collect();
        Self::build(&options, playlists, 1000, changes)
    }

    /// Bridge and ports, then `changes`.
    fn build(options: &Options, playlists: [Arc<Playlist>; 2], stations: usize, changes: Vec<Change>) -> Result<Self> {
        let (mut switch, mut workers) = Switch::assemble(options, Keeper::none())?;
        let [left, right] = playlists.map(port::open);
        let sinks = [left.1, right.1];
        switch.offer("p1", left.0);
        switch.offer("p2", right.0);
        let ports = [bridge(stations)?, port(PORTS[0], "memory", &[]), port(PORTS[1], "memory", &[])];
        // Before the ports send, what becomes of their frames is to be known.
        let changes = ports.into_iter().chain(changes).collect();
        apply(&mut switch, &mut workers, &Transaction { changes })?;
        Ok(Self { switch, workers: workers.into_iter().map(Driven).collect(), sinks })
    }

    /// One more port, which sends what is on.
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn open(&mut self, id: PortId, playlist: Arc<Playlist>) -> Result<()> {
        self.switch.offer(&format!("p{id}"), port::open(playlist).0);
        self.apply(&Transaction { changes: vec![port(id, "memory", &[])] })
    }

    /// Carry out a transaction while the workers turn.
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        Ok(self.ask(|switch| switch.apply(transaction))?)
    }

    /// Ask the switch for something that it waits for its workers with.
    pub fn ask<T>(&mut self, question: impl FnOnce(&mut Switch) -> T) -> T {
        let mut workers: Vec<Worker> = self.workers.drain(..).map(|driven| driven.0).collect();
        let answer = meanwhile(&mut self.switch, &mut workers, question);
        self.workers = workers.into_iter().map(Driven).collect();
        answer
    }

    /// Say for good that a station is at a port.
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn place(&mut self, mac: MacAddr, port: PortId) -> Result<()> {
        let station = Station { key: StationKey { bridge: BRIDGE, vlan: 0, mac }, port };
        let changes = vec![Change::Station(Delta::add(station))];
        self.apply(&Transaction { changes })
    }

    /// Let the workers take in at least so many frames. Returns how many of them arrived.
    pub fn pass(&mut self, frames: usize) -> u64 {
        let (before, mut moved) = (self.arrived(), 0);
        while moved < frames as u64 {
            moved += self.workers.iter_mut().map(|worker| worker.step(&mut Laps::default()).packets).sum::<u64>();
        }
        self.arrived() - before
    }

    /// Let the workers turn until nearly every frame is a hit: first packets are budgeted, so many flows take many
    /// rounds. `frames` is how many a worker's ports send before they begin anew. After half a minute what still
    /// misses is part of the work: the steps and the drops show it.
    pub fn warm_up(&mut self, frames: usize) {
        let start = Instant::now();
        let misses = |switch: &Switch| switch.workers().iter().map(|worker| worker.misses).sum::<u64>();
        let turns = (frames / LANES).max(100);
        loop {
            let (before, mut moved) = (misses(&self.switch), 0);
            for _ in 0..turns {
                moved += self.workers.iter_mut().map(|worker| worker.step(&mut Laps::default()).packets).sum::<u64>();
            }
            if (misses(&self.switch) - before) * 1000 <= moved {
                return;
            }
            if start.elapsed() > PATIENCE {
                eprintln!("warm-up: not every frame is a hit after {} s", PATIENCE.as_secs());
                return;
            }
        }
    }

    /// Frames that arrived at either port's sink.
    pub fn arrived(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.packets()).sum()
    }

    /// Frames that arrived at the sink of one port.
    pub fn arrived_at(&self, port: usize) -> u64 {
        self.sinks.get(port).map_or(0, |sink| sink.packets())
    }

    /// Frames dropped, for whatever reason.
    pub fn drops(&self) -> u64 {
        self.switch.drops().iter().map(|row| row.packets).sum()
    }
}

/// Carry out a transaction while the workers turn, since the switch waits for them.
pub(crate) fn apply(switch: &mut Switch, workers: &mut [Worker], transaction: &Transaction) -> Result<()> {
    Ok(meanwhile(switch, workers, |switch| switch.apply(transaction))?)
}

/// Ask the switch while the workers turn.
fn meanwhile<T>(switch: &mut Switch, workers: &mut [Worker], question: impl FnOnce(&mut Switch) -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for worker in workers.iter_mut() {
                    worker.obey();
                    worker.turn();
                }
            }
        });
        let answer = question(switch);
        done.store(true, Ordering::Release);
        answer
    })
}

impl Step for Driven {
    fn names(&self) -> &'static [&'static str] {
        &["rx", "parse", "probe", "resolve", "rewrite", "tx"]
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        laps.start();
        let packets = self.0.turn_measured(|lap| {
            laps.lap(match lap {
                Lap::Rx => 0,
                Lap::Step(PipelineStep::Parse) => 1,
                Lap::Step(PipelineStep::Probe) => 2,
                Lap::Step(PipelineStep::Resolve) => 3,
                Lap::Step(PipelineStep::Rewrite) => 4,
                Lap::Tx => 5,
            });
        });
        Moved { packets: packets as u64, ..Moved::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Size;

    #[test]
    fn every_frame_between_stations_arrives_with_one_worker_and_with_two() {
        for workers in [1, 2] {
            let frames = Frames::pairs(10, Size::Fixed(64)).unwrap().map(Arc::new);
            let mut world = World::new(frames, 1000, workers).unwrap();
            for _ in 0..100 {
                world.workers.iter_mut().for_each(|worker| _ = worker.step(&mut Laps::default()));
            }
            let received: u64 = world.switch.ports().iter().map(|port| port.stats.rx_packets).sum();
            assert!(received >= 100 * 256);
            assert_eq!((world.arrived(), world.drops()), (received, 0));
            let hits: u64 = world.switch.workers().iter().map(|worker| worker.hits).sum();
            assert!(hits > received * 9 / 10, "{hits} of {received}");
        }
    }
}
