//! A history: transactions, frames and the passing of time, with a fresh walk beside every frame. What plays it makes it up
//! at random (`same.rs`) or out of octets (the fuzz target `path`).

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Bridge, BridgeId, Change, Delta, Port, PortId, Station, StationKey, Vlan};
use pipeline::probe::cells::Cells;
use pipeline::resolve::stages::STAGES;

use super::net::{bridge, port};
use super::{Bench, Fate};

/// Ports are numbered below this; so are those that do not exist.
pub(crate) const PORTS: u16 = 8;
/// Frames that are sent again after every change.
const RECENT: usize = 10;

/// One noun as it shall be.
#[derive(Clone, Debug)]
pub(crate) enum Noun {
    Bridge(BridgeId, Option<(u32, u32, bool)>),
    Port(u16, Option<(BridgeId, Vlan, u16)>),
    Station(StationKey, Option<u16>),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Transaction(Vec<Noun>),
    Frame(u16, Vec<u8>),
    Burst(u16, Vec<Vec<u8>>),
    /// Time passes with the sweep, or all at once.
    Pass(u64),
    Jump(u64),
    Flush(BridgeId, Option<u16>),
}

/// What is programmed: the sum of all transactions.
#[derive(Default)]
struct Sum {
    bridges: BTreeMap<BridgeId, Bridge>,
    ports: BTreeMap<u16, Port>,
    stations: BTreeMap<StationKey, Station>,
}

impl Sum {
    /// The changes that make a noun what it shall be, in the order in which nouns depend on each other. What cannot be
    /// (a port of no bridge) is left out.
    fn changes(&mut self, noun: Noun) -> Vec<Change> {
        let mut changes = Vec::new();
        match noun {
            Noun::Bridge(id, Some((limit, ageing, forward_bpdu))) => {
                let new = Bridge { mac_table_size: limit, mac_ageing: ageing, forward_bpdu, ..bridge(id) };
                changes.push(Change::Bridge(Delta { old: self.bridges.insert(id, new.clone()), new: Some(new) }));
            }
            Noun::Bridge(id, None) => {
                let Some(old) = self.bridges.remove(&id) else { return changes };
                let ports: Vec<u16> = self.ports.values().filter(|p| p.bridge == id).map(|p| p.id.0).collect();
                ports.into_iter().for_each(|port| changes.extend(self.changes(Noun::Port(port, None))));
                let keys: Vec<StationKey> = self.stations.keys().filter(|key| key.bridge == id).copied().collect();
                keys.into_iter().for_each(|key| changes.extend(self.changes(Noun::Station(key, None))));
                changes.push(Change::Bridge(Delta::remove(old)));
            }
            Noun::Port(id, Some((bridge, vlan, mtu))) => {
                if !self.bridges.contains_key(&bridge) {
                    return changes;
                }
                if self.ports.get(&id).is_some_and(|old| old.bridge != bridge) {
                    changes.extend(self.changes(Noun::Port(id, None)));
                }
                let new = Port { bridge, mtu, ..port(id, vlan) };
                changes.push(Change::Port(Delta { old: self.ports.insert(id, new.clone()), new: Some(new) }));
            }
            Noun::Port(id, None) => {
                let Some(old) = self.ports.remove(&id) else { return changes };
                let here = |station: &&Station| station.port.0 == id && station.key.bridge == old.bridge;
                let keys: Vec<StationKey> = self.stations.values().filter(here).map(|station| station.key).collect();
                keys.into_iter().for_each(|key| changes.extend(self.changes(Noun::Station(key, None))));
                changes.push(Change::Port(Delta::remove(old)));
            }
            Noun::Station(key, Some(port)) => {
                if !self.bridges.contains_key(&key.bridge) {
                    return changes;
                }
                let new = Station { key, port: PortId(port) };
                changes.push(Change::Station(Delta { old: self.stations.insert(key, new), new: Some(new) }));
            }
            Noun::Station(key, None) => {
                changes.extend(self.stations.remove(&key).map(|old| Change::Station(Delta::remove(old))));
            }
        }
        changes
    }

    /// All nouns as one transaction.
    fn as_one(&self) -> Vec<Change> {
        let bridges = self.bridges.values().map(|bridge| Change::Bridge(Delta::add(bridge.clone())));
        let ports = self.ports.values().map(|port| Change::Port(Delta::add(port.clone())));
        let stations = self.stations.values().map(|station| Change::Station(Delta::add(*station)));
        bridges.chain(ports).chain(stations).collect()
    }
}

/// What the frame's fate must be.
fn expected(bench: &mut Bench, port: u16, frame: &[u8]) -> Option<Fate> {
    let decided = bench.walk(port, frame)?;
    Some(bench.fate_of(frame, &decided))
}

/// One frame alone: its fate is what a walk says now.
pub(crate) fn agrees(bench: &mut Bench, port: u16, frame: &[u8]) {
    let expected = expected(bench, port, frame);
    let fate = bench.send(port, frame);
    match expected {
        Some(expected) => assert_eq!(fate, expected, "port {port}, {frame:02x?}"),
        None => assert!(fate.sent.is_empty() && fate.drops.len() == 1, "malformed, port {port}, {frame:02x?}"),
    }
}

/// Two bridges and some ports, so that the first frames have somewhere to go.
fn beginning() -> Event {
    let both = [1, 2].map(|id| Noun::Bridge(BridgeId(id), Some((4, 3, false))));
    let ports = (1..PORTS - 1).map(|id| Noun::Port(id, Some((BridgeId(1 + id / 5), Vlan::default(), 1500))));
    Event::Transaction(both.into_iter().chain(ports).collect())
}

/// Play a history on so many workers with so large caches, from this generation on. Returns the bench as it is then.
pub(crate) fn play(workers: usize, entries: usize, generation: u32, events: impl IntoIterator<Item = Event>) -> Bench {
    let mut bench = Bench::with(workers, STAGES, Cells::starting_at(generation));
    bench.caches(entries, 1);
    let mut sum = Sum::default();
    let mut recent: Vec<(u16, Vec<u8>)> = Vec::new();
    for event in std::iter::once(beginning()).chain(events) {
        match event {
            Event::Transaction(nouns) => {
                let changes: Vec<Change> = nouns.into_iter().flat_map(|noun| sum.changes(noun)).collect();
                bench.apply(changes);
            }
            Event::Frame(port, frame) => {
                agrees(&mut bench, port, &frame);
                agrees(&mut bench, port, &frame);
                recent.insert(0, (port, frame));
                recent.truncate(RECENT);
                continue;
            }
            Event::Burst(port, frames) => {
                // A burst goes by what was in force when it began; what it taught shows in what follows.
                let fates = bench.burst(port, &frames);
                let undecided = |fate: &Fate| fate.sent.is_empty() && fate.drops.is_empty();
                assert!(!fates.iter().any(undecided));
            }
            Event::Pass(millis) => bench.pass(Duration::from_millis(millis)),
            Event::Jump(millis) => bench.jump(Duration::from_millis(millis)),
            Event::Flush(bridge, port) => _ = bench.live.stations.flush(bridge, port.map(PortId), &bench.live.cells),
        }
        for (port, frame) in &recent {
            agrees(&mut bench, *port, frame);
        }
    }
    let cold = bench.cold(sum.as_one());
    for port in 0..=PORTS {
        assert_eq!(bench.program.ingress(PortId(port)), cold.ingress(PortId(port)), "port {port}");
        for (_, frame) in &recent {
            assert_eq!(bench.walk(port, frame), bench.walk_by(&cold, port, frame), "port {port}, {frame:02x?}");
        }
    }
    // Every hit was walked again by the pipeline itself, too.
    assert_eq!(bench.events().get("cache_divergence"), None);
    bench
}
