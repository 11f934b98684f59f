//! End to end over memory ports, without privilege: real workers on threads of their own, one and two of them.

use std::time::{Duration, Instant};

use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Station, StationKey, Transaction, Vlan};
use control::Switch as _;
use pipeline::Limits;
use pipeline::raw::Stash;
use vswitch::keeper::Keeper;
use vswitch::ports::memory::{Wire, pair};
use vswitch::switch::{Options, Switch};

const BR: BridgeId = BridgeId(1);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets of a frame.
const OCTETS: usize = 64;

pub(crate) fn options(workers: usize) -> Options {
    let limits = Limits { v4: 1 << 14, v6: 1 << 10, wide: 1 << 8 };
    Options { workers, frames: 16 * 1024, spills: 4, limits, ..Options::default() }
}

pub(crate) fn mac(n: u16) -> [u8; 6] {
    let [a, b] = n.to_be_bytes();
    [2, 0, 0, 0, a, b]
}

/// A frame with a number.
pub(crate) fn frame(dst: [u8; 6], src: [u8; 6], number: u64) -> [u8; OCTETS] {
    let mut frame = [0; OCTETS];
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number_of(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

fn port(id: u16) -> Port {
    Port {
        id: PortId(id),
        name: format!("p{id}"),
        bridge: BR,
        ofport: id,
        kind: "memory".to_owned(),
        options: Default::default(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: Default::default(),
    }
}

/// The bridge and these ports.
pub(crate) fn transaction(ports: &[u16]) -> Transaction {
    let bridge = Bridge {
        id: BR,
        name: "br0".to_owned(),
        mac_table_size: Bridge::MAC_TABLE_SIZE,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: Default::default(),
    };
    let ports = ports.iter().map(|&id| Change::Port(Delta::add(port(id))));
    Transaction { changes: std::iter::once(Change::Bridge(Delta::add(bridge))).chain(ports).collect() }
}

/// A running switch and the far ends of its ports.
struct Net {
    switch: Switch,
    /// By port number, from 1.
    wires: Vec<Wire>,
    stash: Stash,
}

impl Net {
    /// A switch with plain ports on one bridge; each has a ring of so many frames.
    fn new(workers: usize, depths: &[usize]) -> Self {
        let mut switch = Switch::start(&options(workers), Keeper::none()).unwrap();
        let ids: Vec<u16> = (1..=depths.len() as u16).collect();
        let wires = ids.iter().zip(depths).map(|(id, &depth)| offer(&switch, *id, depth)).collect();
        switch.apply(&transaction(&ids)).unwrap();
        let stash = switch.pool().stash();
        Self { switch, wires, stash }
    }

    fn change(&mut self, change: Change) {
        self.switch.apply(&Transaction { changes: vec![change] }).unwrap();
    }

    /// Place hosts by hand: host n is behind port n.
    fn place(&mut self, hosts: &[u16]) {
        for &host in hosts {
            let key = StationKey { bridge: BR, vlan: 0, mac: MacAddr(mac(host)) };
            self.change(Change::Station(Delta::add(Station { key, port: PortId(host) })));
        }
    }

    /// Send a frame; waits while the ring is full.
    fn send(&mut self, port: u16, octets: &[u8]) {
        send(&mut self.wires[usize::from(port) - 1], &mut self.stash, octets);
    }

    /// The numbers of the frames that left by a port so far.
    fn receive(&mut self, port: u16) -> Vec<u64> {
        receive(&mut self.wires[usize::from(port) - 1], &mut self.stash)
    }

    /// As [`Self::receive`], until there are `count`, and a little longer in case there are more.
    fn receive_all(&mut self, port: u16, count: usize) -> Vec<u64> {
        let mut all = Vec::new();
        let start = Instant::now();
        while all.len() < count && start.elapsed() < PATIENCE {
            all.extend(self.receive(port));
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        all.extend(self.receive(port));
        all
    }

    /// Frames that came in by a port and were dropped for a reason.
    fn dropped(&self, port: u16, reason: &str) -> u64 {
        let row = |row: &api::state::DropState| row.port == PortId(port) && row.reason == reason;
        self.switch.drops().into_iter().find(row).map_or(0, |row| row.packets)
    }

    /// Frames that came in by a port and were dropped.
    fn lost(&self, port: u16) -> u64 {
        self.stats(port).rx_dropped
    }

    fn stats(&self, port: u16) -> api::state::PortStats {
        self.switch.ports().into_iter().find(|state| state.id == PortId(port)).unwrap().stats
    }
}

pub(crate) fn offer(switch: &Switch, id: u16, depth: usize) -> Wire {
    let (opened, wire) = pair(depth, false).unwrap();
    switch.offer(&format!("p{id}"), opened);
    wire
}

pub(crate) fn send(wire: &mut Wire, stash: &mut Stash, octets: &[u8]) {
    let start = Instant::now();
    let mut frame = loop {
        match stash.take() {
            Some(frame) => break frame,
            None => assert!(start.elapsed() < PATIENCE, "the pool stays empty"),
        }
    };
    assert!(frame.fill(octets));
    while let Err(back) = wire.send(frame) {
        assert!(start.elapsed() < PATIENCE, "the ring stays full");
        frame = back;
        wire.kick();
        std::thread::yield_now();
    }
    wire.kick();
}

pub(crate) fn receive(wire: &mut Wire, stash: &mut Stash) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(frame) = wire.receive() {
        numbers.push(number_of(frame.head()));
        stash.give(frame);
    }
    numbers
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn frames_cross_in_their_order_hits_and_misses_mixed() {
    for workers in [1, 2] {
        let mut net = Net::new(workers, &[4096, 4096]);
        net.place(&[2]);
        for number in 0..3000u64 {
            // Every third frame is the first of a flow.
            let host = if number % 3 == 0 { 1000 + number as u16 } else { 1 };
            net.send(1, &frame(mac(2), mac(host), number));
        }
        assert_eq!(net.receive_all(2, 3000), (0..3000).collect::<Vec<_>>(), "{workers} workers");
        assert_eq!((net.receive(1), net.lost(1)), (vec![], 0));
        let (one, two) = (net.stats(1), net.stats(2));
        assert_eq!((one.rx_packets, one.rx_bytes), (3000, 3000 * OCTETS as u64));
        assert_eq!((two.tx_packets, two.tx_bytes), (3000, 3000 * OCTETS as u64));
        net.switch.stop();
    }
}

#[test]
fn a_full_port_starves_no_other_and_every_frame_is_accounted() {
    for workers in [1, 2] {
        // Nobody reads behind port 3, and its ring is short.
        let mut net = Net::new(workers, &[1024, 1024, 16]);
        net.place(&[2, 3]);
        let mut arrived = Vec::new();
        for number in 0..2000 {
            net.send(1, &frame(mac(2), mac(1), number));
            net.send(1, &frame(mac(3), mac(1), number));
            arrived.extend(net.receive(2));
        }
        let missing = 2000 - arrived.len();
        arrived.extend(net.receive_all(2, missing));
        assert_eq!(arrived, (0..2000).collect::<Vec<_>>(), "{workers} workers");
        wait_for("what a full port held is dropped after a millisecond", || net.dropped(1, "tx-full") == 2000 - 16);
        assert_eq!(net.receive_all(3, 16), (0..16).collect::<Vec<_>>());
        assert_eq!((net.lost(1), net.stats(3).tx_dropped, net.stats(3).tx_packets), (1984, 1984, 16));
        // It is read again: it carries again.
        net.send(1, &frame(mac(3), mac(1), 7));
        assert_eq!(net.receive_all(3, 1), [7]);
        net.switch.stop();
    }
}

#[test]
fn a_port_comes_and_goes_under_traffic_and_no_frame_is_lost_uncounted() {
    for workers in [1, 2] {
        let mut net = Net::new(workers, &[1024, 1024]);
        let mut sent = 0;
        let mut received = 0;
        for _ in 0..20 {
            for _ in 0..300 {
                net.send(1, &frame(mac(2), mac(1), sent));
                sent += 1;
                received += net.receive(2).len() as u64;
            }
            let gone = std::mem::replace(&mut net.wires[1], pair(16, false).unwrap().1);
            net.change(Change::Port(Delta::remove(port(2))));
            (0..50).for_each(|_| {
                net.send(1, &frame(mac(2), mac(1), sent));
                sent += 1;
            });
            // What its ring held when it went had left.
            let mut gone = gone;
            received += receive(&mut gone, &mut net.stash).len() as u64;
            net.wires[1] = offer(&net.switch, 2, 1024);
            net.change(Change::Port(Delta::add(port(2))));
        }
        wait_for("every frame came in", || net.stats(1).rx_packets == sent);
        received += net.receive_all(2, 0).len() as u64;
        assert_eq!(received + net.lost(1), sent, "{workers} workers: {:?}", net.switch.drops());
        assert!(received >= 3000, "{received} of {sent}");
        net.switch.stop();
    }
}

#[test]
fn a_storm_of_first_packets_from_one_port_costs_another_nothing() {
    for workers in [1, 2] {
        let mut net = Net::new(workers, &[1024, 1024, 4096, 4096]);
        net.place(&[3, 4]);
        // The victim's flow is known.
        net.send(2, &frame(mac(4), mac(2), 0));
        assert_eq!(net.receive_all(4, 1), [0]);
        let (mut arrived, mut stormed, mut through) = (Vec::new(), 0u64, 0);
        for number in 0..2000u64 {
            for _ in 0..8 {
                let [.., a, b, c, d] = stormed.to_be_bytes();
                net.send(1, &frame(mac(3), [6, 6, a, b, c, d], stormed));
                stormed += 1;
            }
            net.send(2, &frame(mac(4), mac(2), number));
            arrived.extend(net.receive(4));
            through += net.receive(3).len() as u64;
        }
        let missing = 2000 - arrived.len();
        arrived.extend(net.receive_all(4, missing));
        assert_eq!(arrived, (0..2000).collect::<Vec<_>>(), "{workers} workers");
        assert_eq!(net.lost(2), 0);
        wait_for("the storm came in", || net.stats(1).rx_packets == stormed);
        through += net.receive_all(3, 0).len() as u64;
        assert_eq!(through + net.lost(1), stormed, "{:?}", net.switch.drops());
        assert_eq!(net.lost(1), net.dropped(1, "miss-overload"), "nothing but first packets was lost");
        net.switch.stop();
    }
}

#[test]
fn first_packets_of_a_port_that_has_the_switch_to_itself_are_all_served() {
    let mut net = Net::new(1, &[4096, 4096]);
    net.place(&[2]);
    (0..3000).for_each(|number| net.send(1, &frame(mac(2), mac(1000 + number as u16), number)));
    assert_eq!(net.receive_all(2, 3000).len(), 3000, "{:?}", net.switch.drops());
    net.switch.stop();
}

#[test]
fn an_idle_worker_sleeps_and_wakes_for_a_frame() {
    for workers in [1, 2] {
        let mut net = Net::new(workers, &[64, 64]);
        net.place(&[1, 2]);
        for (from, to) in [(1, 2), (2, 1)] {
            net.send(from, &frame(mac(to), mac(from), 0));
            assert_eq!(net.receive_all(to, 1), [0]);
        }
        wait_for("workers sleep", || net.switch.workers().iter().all(|worker| worker.sleeps > 0));
        let before = net.switch.workers();
        std::thread::sleep(Duration::from_millis(300));
        for (before, after) in before.iter().zip(net.switch.workers()) {
            assert_eq!(after.busy_ticks, before.busy_ticks);
            assert!(after.sleeps - before.sleeps <= 3, "it sleeps on: {} naps", after.sleeps - before.sleeps);
        }
        // The quickest of some, for the machine may be busy; a worker that was not woken would sleep for a second.
        let quickest = (0..5).map(|number| {
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            net.send(1, &frame(mac(2), mac(1), number));
            while net.receive(2).is_empty() {
                assert!(start.elapsed() < PATIENCE);
                std::thread::yield_now();
            }
            start.elapsed()
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < Duration::from_millis(100), "{quickest:?}");
        net.switch.stop();
    }
}

#[test]
fn every_copy_of_a_flood_is_held_against_the_mtu_of_its_port() {
    let mut net = Net::new(1, &[64, 64, 64]);
    let mut flood = |octets: usize| {
        let mut long = vec![0; octets];
        long[..OCTETS].copy_from_slice(&frame([0xff; 6], mac(1), octets as u64));
        net.send(1, &long);
        wait_for("it came in", || net.stats(1).rx_packets > 0);
        [net.receive_all(2, 0).len(), net.receive_all(3, 0).len()]
    };
    assert_eq!([flood(1514), flood(1515)], [[1, 1], [0, 0]]);
    assert_eq!(net.dropped(1, "exceeds-mtu"), 2);
    net.switch.stop();
}

#[test]
fn a_port_that_changes_its_vlan_takes_its_stations_with_it() {
    for workers in [1, 2] {
        let mut net = Net::new(workers, &[64, 64]);
        net.send(2, &frame([0xff; 6], mac(2), 1));
        assert_eq!(net.receive_all(1, 1), [1]);
        net.send(1, &frame(mac(2), mac(1), 2));
        assert_eq!(net.receive_all(2, 1), [2]);
        assert_eq!(net.switch.stations(BR).len(), 2);
        let moved = Port { vlan: Vlan::Access { tag: 10 }, ..port(2) };
        net.change(Change::Port(Delta::replace(port(2), moved)));
        let left: Vec<PortId> = net.switch.stations(BR).iter().map(|station| station.port).collect();
        assert_eq!(left, [PortId(1)], "who was heard in the old VLAN is forgotten");
        net.send(1, &frame(mac(2), mac(1), 3));
        wait_for("the frame has no port to go to", || net.dropped(1, "no-port") == 1);
        assert!(net.receive(2).is_empty());
    }
}

#[test]
fn a_burst_sees_one_transaction_however_often_they_come() {
    let options = Options { shadow: 1, ..options(2) };
    let mut switch = Switch::start(&options, Keeper::none()).unwrap();
    let mut wires = [offer(&switch, 1, 512), offer(&switch, 2, 512)];
    switch.apply(&transaction(&[1, 2])).unwrap();
    let mut stash = switch.pool().stash();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for (wire, dst, src) in [(0, 2, 1), (1, 1, 2)] {
                    let mut one = stash.take().unwrap();
                    assert!(one.fill(&frame(mac(dst), mac(src), 1)));
                    if let Err(full) = wires[wire].send(one) {
                        stash.give(full);
                    }
                    wires[wire].kick();
                    receive(&mut wires[wire], &mut stash);
                }
            }
        });
        let (plain, tagged) = (port(2), Port { vlan: Vlan::Access { tag: 10 }, ..port(2) });
        for round in 0..1000 {
            let (old, new) = if round % 2 == 0 { (&plain, &tagged) } else { (&tagged, &plain) };
            let change = Change::Port(Delta::replace(old.clone(), new.clone()));
            switch.apply(&Transaction { changes: vec![change] }).unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let count = |name: &str| switch.coverage().iter().find(|row| row.name == name).map_or(0, |row| row.total);
    assert!(count("shadow_walk") > 10, "only {} hits were walked again", count("shadow_walk"));
    assert_eq!(count("cache_divergence"), 0);
    switch.stop();
}
