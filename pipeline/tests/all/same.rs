//! FASTPATH, test 1: after every change a cached verdict is that of a fresh walk, and the tables after any sequence of
//! transactions are those that their sum builds from nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Station, StationKey, Vlan};
use pipeline::probe::cells::Cells;
use pipeline::resolve::stages::STAGES;
use proptest::prelude::*;

use crate::kit::net::*;
use crate::kit::{Bench, Fate};

/// Ports are numbered below this; so are those that do not exist.
const PORTS: u16 = 8;
/// Frames that are sent again after every change.
const RECENT: usize = 10;

/// One noun as it shall be.
#[derive(Clone, Debug)]
enum Noun {
    Bridge(BridgeId, Option<(u32, u32, bool)>),
    Port(u16, Option<(BridgeId, Vlan, u16)>),
    Station(StationKey, Option<u16>),
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Transaction(Vec<Noun>),
    Frame(u16, Vec<u8>),
    Burst(u16, Vec<Vec<u8>>),
    /// Time passes with the sweep, or all at once.
    Pass(u64),
    Jump(u64),
    Flush(BridgeId, Option<u16>),
}

fn bridge_id() -> impl Strategy<Value = BridgeId> {
    (1u16..=2).prop_map(BridgeId)
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let some = || prop::sample::subsequence(vec![0u16, 1, 2, 4095], 0..=3);
    prop_oneof![
        2 => Just(Vlan::default()),
        2 => (0u16..3).prop_map(access),
        1 => some().prop_map(|trunks| Vlan::Trunk { trunks }),
        1 => (0u16..3, some()).prop_map(|(tag, trunks)| Vlan::NativeTagged { tag, trunks }),
        1 => (0u16..3, some()).prop_map(|(tag, trunks)| Vlan::NativeUntagged { tag, trunks }),
    ]
}

/// Few addresses, so that they meet.
fn unicast() -> impl Strategy<Value = [u8; 6]> {
    (1u16..6).prop_map(mac)
}

fn destination() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![6 => unicast(), 1 => Just(BROADCAST), 1 => Just([0x01, 0x80, 0xc2, 0, 0, 1])]
}

fn noun() -> impl Strategy<Value = Noun> {
    let settings = (1u32..6, 1u32..4, any::<bool>());
    let port = (bridge_id(), vlan(), prop_oneof![Just(50u16), Just(1500)]);
    let key = (bridge_id(), 0u16..3, unicast()).prop_map(|(bridge, vlan, mac)| StationKey {
        bridge,
        vlan,
        mac: MacAddr(mac),
    });
    prop_oneof![
        1 => (bridge_id(), prop::option::weighted(0.8, settings)).prop_map(|(id, row)| Noun::Bridge(id, row)),
        4 => (1..PORTS, prop::option::weighted(0.8, port)).prop_map(|(id, row)| Noun::Port(id, row)),
        2 => (key, prop::option::weighted(0.6, 1..PORTS)).prop_map(|(key, row)| Noun::Station(key, row)),
    ]
}

fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![
        3 => Just(vec![]),
        2 => (0u16..4, 0u16..2).prop_map(|(vid, priority)| vec![(0x8100, priority << 13 | vid)]),
        1 => (0u16..3).prop_map(|vid| vec![(0x88a8, vid), (0x8100, 7)]),
    ];
    let sound = (destination(), unicast(), tags, prop_oneof![Just(10usize), Just(51)])
        .prop_map(|(dst, src, tags, octets)| frame(dst, src, &tags, 0x88b5, &vec![1; octets]));
    prop_oneof![12 => sound, 1 => Just(vec![0xff; 20]), 1 => prop::collection::vec(any::<u8>(), 0..80)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::collection::vec(noun(), 1..4).prop_map(Event::Transaction),
        12 => (1..PORTS, some_frame()).prop_map(|(port, frame)| Event::Frame(port, frame)),
        2 => (1..PORTS, prop::collection::vec(some_frame(), 1..12)).prop_map(|(port, frames)| Event::Burst(port, frames)),
        1 => (1u64..1200).prop_map(Event::Pass),
        2 => (1u64..1200).prop_map(Event::Jump),
        1 => (bridge_id(), prop::option::of(1..PORTS)).prop_map(|(bridge, port)| Event::Flush(bridge, port)),
    ]
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
fn agrees(bench: &mut Bench, port: u16, frame: &[u8]) {
    let expected = expected(bench, port, frame);
    let fate = bench.send(port, frame);
    match expected {
        Some(expected) => assert_eq!(fate, expected, "port {port}, {frame:02x?}"),
        None => assert!(fate.sent.is_empty() && fate.drops.len() == 1, "malformed, port {port}, {frame:02x?}"),
    }
}

fn play(workers: usize, entries: usize, generation: u32, events: Vec<Event>) {
    let mut bench = Bench::with(workers, STAGES, Cells::starting_at(generation));
    bench.limit_entries(entries);
    let mut sum = Sum::default();
    let mut recent: Vec<(u16, Vec<u8>)> = Vec::new();
    for event in events {
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
}

/// Two bridges and some ports, so that the first frames have somewhere to go.
fn beginning() -> Event {
    let both = [1, 2].map(|id| Noun::Bridge(BridgeId(id), Some((4, 3, false))));
    let ports = (1..PORTS - 1).map(|id| Noun::Port(id, Some((BridgeId(1 + id / 5), Vlan::default(), 1500))));
    Event::Transaction(both.into_iter().chain(ports).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_cached_verdict_is_that_of_a_fresh_walk_after_every_change(
        workers in 1usize..=2,
        entries in prop_oneof![3 => Just(4096usize), 1 => Just(8usize)],
        generation in prop_oneof![Just(1u32), (u32::MAX - 60..=u32::MAX)],
        events in prop::collection::vec(event(), 1..120),
    ) {
        play(workers, entries, generation, std::iter::once(beginning()).chain(events).collect());
    }
}

#[test]
fn a_change_and_its_inverse_leave_nothing_behind() {
    let mut bench = Bench::new(1);
    bench.apply(plain(3));
    let frame = eth(mac(2), mac(1));
    let before: Vec<_> = (0..5).map(|port| bench.walk(port, &frame)).collect();
    let changes = vec![
        add_bridge(bridge(BridgeId(2))),
        add_port(Port { bridge: BridgeId(2), ..port(4, access(3)) }),
        Change::Port(Delta::replace(port(1, Vlan::default()), port(1, access(5)))),
        add_station(station(0, mac(2), 3)),
    ];
    let undo = api::Transaction { changes: changes.clone() }.inverse();
    bench.apply(changes);
    assert_ne!(bench.walk(1, &frame), before[1]);
    (0..3).for_each(|_| agrees(&mut bench, 1, &frame));
    bench.apply(undo.changes);
    let after: Vec<_> = (0..5).map(|port| bench.walk(port, &frame)).collect();
    assert_eq!(before, after);
}
