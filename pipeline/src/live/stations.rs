//! Stations: where Ethernet addresses were last heard (IEEE 802.1Q, 8.8: the dynamic part of the filtering database).
//!
//! One table a bridge, behind a lock that is met on misses and by the sweep only. A bridge has a limit; at the limit
//! the port with the most stations gives one up, so that a port that floods addresses evicts its own
//! (as OVS does, `lib/mac-learning.c` in its tree).
//!
//! *Validity.* A cached decision may rest on a station being absent. Only where one does, learning touches a cell:
//! asking for an absent station marks the cell, in the same critical section, and the next learner of that cell finds
//! the mark. A move, an expiry and a flush always touch.
//!
//! *Lock order*: the table, then the writer of the cells. Never the other way round.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use api::{BridgeId, MacAddr, PortId};
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

use crate::live::Now;
use crate::probe::cells::{Asked, CELLS, Cell, Cells, TableName};

/// The name of this table in questions.
const NAME: TableName = TableName::new("stations");
/// A station moves at most this often, milliseconds; frames in between are forwarded, but not learned from.
const MOVE_INTERVAL: u32 = 100;
/// Stations looked at to find an old one of a port.
const SAMPLE: usize = 8;
/// Stations that one expiry pass looks at before it lets others at the lock.
const EXPIRY_STRIDE: usize = 1024;

/// What a station is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// VLAN within the bridge.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
}

/// A learned station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// What it is known by.
    pub address: Address,
    /// Where it was last heard.
    pub port: PortId,
    /// When it was last heard, seconds.
    pub heard: u32,
    /// When it last came to `port`, milliseconds.
    moved: u32,
    /// Its place in the list of its port.
    place: u32,
}

/// Number of a station within its bridge; another station may have it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

/// What came of hearing an address at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is known there.
    Known(Slot),
    /// It was learned, or moved.
    Learned(Slot),
    /// It moved a moment ago: not now.
    TooSoon,
}

/// The learned stations of all bridges.
#[derive(Debug, Default)]
pub struct Stations {
    bridges: RwLock<HashMap<BridgeId, Arc<Mutex<Table>>, RandomState>>,
}

#[derive(Debug)]
struct Table {
    limit: usize,
    /// Seconds.
    ageing: u32,
    hasher: RandomState,
    index: HashTable<u32>,
    /// By slot; `None` is free.
    stations: Vec<Option<Station>>,
    free: Vec<u32>,
    /// Slots by port, in no order.
    by_port: HashMap<PortId, Vec<u32>, RandomState>,
    /// The port that had the most stations when last looked at.
    largest: PortId,
    /// Cells that were asked in vain, one bit each.
    marks: Box<[u64]>,
    /// A xorshift generator: which stations a sample takes.
    random: u64,
}

impl Stations {
    fn table(&self, bridge: BridgeId) -> Option<Arc<Mutex<Table>>> {
        self.bridges.read().get(&bridge).cloned()
    }

    /// A bridge appears, or its limits change: at most `limit` stations, each forgotten after `ageing` seconds.
    pub fn configure(&self, bridge: BridgeId, limit: usize, ageing: u32, cells: &Cells) {
        let table =
            Arc::clone(self.bridges.write().entry(bridge).or_insert_with(|| Arc::new(Mutex::new(Table::new()))));
        let mut table = table.lock();
        (table.limit, table.ageing) = (limit.max(1), ageing);
        cells.change(|touched| {
            while table.len() > table.limit {
                let Some(address) = table.evict() else { break };
                touched.touch(NAME, (bridge, address));
            }
        });
    }

    /// A bridge goes.
    pub fn remove(&self, bridge: BridgeId) {
        self.bridges.write().remove(&bridge);
    }

    /// Where a station is. Decisions that rest on its absence are found again by [`Self::hear`].
    pub fn find(&self, bridge: BridgeId, address: Address, asked: &mut Asked<'_>) -> Option<(Slot, Station)> {
        let cell = asked.note(NAME, (bridge, address));
        let table = self.table(bridge)?;
        let mut table = table.lock();
        let found = table.find(table.hash(address), address);
        if found.is_none() {
            table.mark(cell);
        }
        found
    }

    /// Where the sender of a frame is known to be. Its absence is not a fact that a decision rests on, since deciding
    /// the frame ends it.
    pub fn find_sender(&self, bridge: BridgeId, address: Address, asked: &mut Asked<'_>) -> Option<(Slot, Station)> {
        asked.note(NAME, (bridge, address));
        let table = self.table(bridge)?;
        let table = table.lock();
        table.find(table.hash(address), address)
    }

    /// A station moved too lately to move again.
    pub fn may_move(station: &Station, now: Now) -> bool {
        now.millis().wrapping_sub(station.moved) >= MOVE_INTERVAL
    }

    /// A frame from `address` came in by `port`.
    pub fn hear(&self, bridge: BridgeId, address: Address, port: PortId, now: Now, cells: &Cells) -> Option<Heard> {
        let table = self.table(bridge)?;
        let mut table = table.lock();
        let hash = table.hash(address);
        if let Some((slot, station)) = table.find(hash, address) {
            if station.port == port {
                table.refresh(slot, now);
                return Some(Heard::Known(slot));
            }
            if !Self::may_move(&station, now) {
                return Some(Heard::TooSoon);
            }
            // The lock of the table is held inside the change: whoever asks after it sees the new place.
            cells.change(|touched| {
                table.relocate(slot, port, now);
                touched.touch(NAME, (bridge, address));
            });
            return Some(Heard::Learned(slot));
        }
        let evicts = table.len() >= table.limit;
        let awaited = table.unmark(cells.cell(NAME, (bridge, address)));
        let slot = if evicts || awaited {
            cells.change(|touched| {
                if evicts && let Some(old) = table.evict() {
                    touched.touch(NAME, (bridge, old));
                }
                if awaited {
                    touched.touch(NAME, (bridge, address));
                }
                table.learn(hash, address, port, now)
            })
        } else {
            table.learn(hash, address, port, now)
        };
        Some(Heard::Learned(slot))
    }

    /// The stations of cached decisions that were used lately: they were heard.
    pub fn refresh(&self, bridge: BridgeId, slots: &[Slot], now: Now) {
        if let Some(table) = self.table(bridge) {
            let mut table = table.lock();
            slots.iter().for_each(|&slot| table.refresh(slot, now));
        }
    }

    /// Forget the stations that were silent for too long. Returns how many there were.
    pub fn expire(&self, now: Now, cells: &Cells) -> usize {
        let bridges: Vec<_> = self.bridges.read().iter().map(|(id, table)| (*id, Arc::clone(table))).collect();
        let mut gone = 0;
        for (bridge, table) in bridges {
            let slots = table.lock().stations.len();
            for from in (0..slots).step_by(EXPIRY_STRIDE) {
                let mut table = table.lock();
                gone += cells.change(|touched| {
                    let expired = table.expire(from, now);
                    expired.iter().for_each(|&address| touched.touch(NAME, (bridge, address)));
                    expired.len()
                });
            }
        }
        gone
    }

    /// Forget stations: those of one port, or all. Returns how many there were.
    pub fn flush(&self, bridge: BridgeId, port: Option<PortId>, cells: &Cells) -> usize {
        let Some(table) = self.table(bridge) else { return 0 };
        let mut table = table.lock();
        cells.change(|touched| {
            let of_port = |station: &Station| port.is_none_or(|port| station.port == port);
            let slots: Vec<u32> = (0u32..)
                .zip(&table.stations)
                .filter(|(_, station)| station.as_ref().is_some_and(of_port))
                .map(|(slot, _)| slot)
                .collect();
            for &slot in &slots {
                if let Some(address) = table.forget(slot) {
                    touched.touch(NAME, (bridge, address));
                }
            }
            slots.len()
        })
    }

    /// All stations of all bridges, for who writes them down.
    pub fn all(&self) -> Vec<(BridgeId, Station)> {
        let bridges: Vec<BridgeId> = self.bridges.read().keys().copied().collect();
        let of = |bridge: BridgeId| self.list(bridge).into_iter().map(move |station| (bridge, station));
        bridges.into_iter().flat_map(of).collect()
    }

    /// A station that was written down is where it was, if its bridge is there and nobody has heard of it since. What comes
    /// from the future was heard just now.
    pub fn recall(&self, bridge: BridgeId, address: Address, port: PortId, heard: u32, now: Now, cells: &Cells) {
        let Some(table) = self.table(bridge) else { return };
        let is_known = {
            let table = table.lock();
            table.find(table.hash(address), address).is_some()
        };
        if !is_known {
            let heard = Now(Duration::from_secs(heard.min(now.second()).into()));
            self.hear(bridge, address, port, heard, cells);
        }
    }

    /// All stations of a bridge.
    pub fn list(&self, bridge: BridgeId) -> Vec<Station> {
        self.table(bridge).map_or_else(Vec::new, |table| table.lock().stations.iter().flatten().copied().collect())
    }
}

impl Table {
    fn new() -> Self {
        Self {
            limit: 1,
            ageing: 1,
            hasher: RandomState::new(),
            index: HashTable::new(),
            stations: Vec::new(),
            free: Vec::new(),
            by_port: HashMap::default(),
            largest: PortId::NONE,
            marks: vec![0; CELLS / 64].into_boxed_slice(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(&self, address: Address) -> u64 {
        let MacAddr([a, b, c, d, e, f]) = address.mac;
        let [v, w] = address.vlan.to_ne_bytes();
        // One word, one multiplication: this is met for every new address.
        self.hasher.hash_one(u64::from_ne_bytes([a, b, c, d, e, f, v, w]))
    }

    fn find(&self, hash: u64, address: Address) -> Option<(Slot, Station)> {
        let station = |slot: u32| self.stations.get(slot as usize).copied().flatten();
        let slot = *self.index.find(hash, |&slot| station(slot).is_some_and(|s| s.address == address))?;
        Some((Slot(slot), station(slot)?))
    }

    fn mark(&mut self, cell: Cell) {
        if let Some(word) = self.marks.get_mut(cell.index() / 64) {
            *word |= 1 << (cell.index() % 64);
        }
    }

    /// Take the mark off a cell. Returns whether there was one.
    fn unmark(&mut self, cell: Cell) -> bool {
        let bit = 1 << (cell.index() % 64);
        self.marks.get_mut(cell.index() / 64).is_some_and(|word| std::mem::replace(word, *word & !bit) & bit != 0)
    }

    fn refresh(&mut self, slot: Slot, now: Now) {
        if let Some(Some(station)) = self.stations.get_mut(slot.0 as usize) {
            station.heard = station.heard.max(now.second());
        }
    }

    fn learn(&mut self, hash: u64, address: Address, port: PortId, now: Now) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.stations.push(None);
            self.stations.len() as u32 - 1
        });
        let place = self.join(port, slot);
        let station = Station { address, port, heard: now.second(), moved: now.millis(), place };
        if let Some(at) = self.stations.get_mut(slot as usize) {
            *at = Some(station);
        }
        let (stations, hasher) = (&self.stations, &self.hasher);
        let rehash = |slot: &u32| {
            let address = stations.get(*slot as usize).copied().flatten().map(|station| station.address);
            address.map_or(0, |Address { vlan, mac: MacAddr([a, b, c, d, e, f]) }| {
                let [v, w] = vlan.to_ne_bytes();
                hasher.hash_one(u64::from_ne_bytes([a, b, c, d, e, f, v, w]))
            })
        };
        self.index.insert_unique(hash, slot, rehash);
        Slot(slot)
    }

    /// Put a slot on the list of a port. Returns its place there.
    fn join(&mut self, port: PortId, slot: u32) -> u32 {
        let list = self.by_port.entry(port).or_default();
        list.push(slot);
        let (place, len) = (list.len() as u32 - 1, list.len());
        if len > self.by_port.get(&self.largest).map_or(0, Vec::len) {
            self.largest = port;
        }
        place
    }

    /// Take a slot off the list of its port.
    fn leave(&mut self, port: PortId, place: u32) {
        let Some(list) = self.by_port.get_mut(&port) else { return };
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        if list.is_empty() {
            self.by_port.remove(&port);
        }
        if let Some(moved) = moved
            && let Some(Some(station)) = self.stations.get_mut(moved as usize)
        {
            station.place = place;
        }
        if port == self.largest {
            let largest = self.by_port.iter().max_by_key(|(_, list)| list.len());
            self.largest = largest.map_or(PortId::NONE, |(port, _)| *port);
        }
    }

    fn relocate(&mut self, slot: Slot, port: PortId, now: Now) {
        let Some(Some(station)) = self.stations.get(slot.0 as usize).copied() else { return };
        self.leave(station.port, station.place);
        let place = self.join(port, slot.0);
        if let Some(at) = self.stations.get_mut(slot.0 as usize) {
            *at = Some(Station { port, heard: now.second(), moved: now.millis(), place, ..station });
        }
    }

    fn forget(&mut self, slot: u32) -> Option<Address> {
        let station = self.stations.get_mut(slot as usize)?.take()?;
        self.leave(station.port, station.place);
        if let Ok(entry) = self.index.find_entry(self.hash(station.address), |&other| other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(station.address)
    }

    /// Forget an old station of the port that has the most.
    fn evict(&mut self) -> Option<Address> {
        let mut random = self.random;
        let list = self.by_port.get(&self.largest)?;
        let mut oldest: Option<(u32, u32)> = None;
        for _ in 0..SAMPLE {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let slot = *list.get((random % list.len().max(1) as u64) as usize)?;
            let heard = self.stations.get(slot as usize).copied().flatten()?.heard;
            if oldest.is_none_or(|(age, _)| heard < age) {
                oldest = Some((heard, slot));
            }
        }
        self.random = random;
        self.forget(oldest?.1)
    }

    /// Forget the silent ones among [`EXPIRY_STRIDE`] slots.
    fn expire(&mut self, from: usize, now: Now) -> Vec<Address> {
        let to = (from + EXPIRY_STRIDE).min(self.stations.len());
        let silent = |station: &Station| now.second().saturating_sub(station.heard) >= self.ageing;
        let slots: Vec<u32> = (from as u32..to as u32)
            .filter(|&slot| self.stations.get(slot as usize).is_some_and(|s| s.as_ref().is_some_and(silent)))
            .collect();
        slots.into_iter().filter_map(|slot| self.forget(slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;

    const BRIDGE: BridgeId = BridgeId(1);

    fn address(i: u32) -> Address {
        let [a, b, c, d] = i.to_be_bytes();
        Address { vlan: 0, mac: MacAddr([2, 0, a, b, c, d]) }
    }

    fn at(second: u64) -> Now {
        Now(Duration::from_secs(second))
    }

    fn live(limit: usize) -> Live {
        let live = Live::default();
        live.stations.configure(BRIDGE, limit, 300, &live.cells);
        live
    }

    fn hear(live: &Live, i: u32, port: u16, now: Now) -> Heard {
        live.stations.hear(BRIDGE, address(i), PortId(port), now, &live.cells).unwrap()
    }

    fn place(live: &Live, i: u32) -> Option<PortId> {
        let mut asked = Asked::new(&live.cells);
        live.stations.find_sender(BRIDGE, address(i), &mut asked).map(|(_, station)| station.port)
    }

    #[test]
    fn a_station_is_where_it_was_last_heard() {
        let live = live(100);
        assert!(matches!(hear(&live, 1, 7, at(0)), Heard::Learned(_)));
        assert!(matches!(hear(&live, 1, 7, at(1)), Heard::Known(_)));
        assert_eq!(place(&live, 1), Some(PortId(7)));
        assert!(matches!(hear(&live, 1, 8, at(2)), Heard::Learned(_)));
        assert_eq!(place(&live, 1), Some(PortId(8)));
    }

    #[test]
    fn a_station_that_just_moved_does_not_move_again_at_once() {
        let live = live(100);
        hear(&live, 1, 7, at(10));
        hear(&live, 1, 8, at(11));
        assert_eq!(hear(&live, 1, 7, Now(Duration::from_millis(11_050))), Heard::TooSoon);
        assert_eq!(place(&live, 1), Some(PortId(8)));
        assert!(matches!(hear(&live, 1, 7, at(12)), Heard::Learned(_)));
    }

    #[test]
    fn learning_touches_a_cell_only_where_the_station_was_asked_for_in_vain() {
        let live = live(100);
        let before = live.cells.now();
        hear(&live, 1, 7, at(0));
        assert_eq!(live.cells.now(), before, "nobody had asked");
        let mut asked = Asked::new(&live.cells);
        assert!(live.stations.find(BRIDGE, address(2), &mut asked).is_none());
        hear(&live, 2, 7, at(0));
        assert!(!live.cells.unchanged_since(&asked.deps(false).cells(), before));
    }

    #[test]
    fn moves_expiry_and_flush_touch_the_cell_of_the_station() {
        for change in 0..3 {
            let live = live(100);
            hear(&live, 1, 7, at(0));
            let made = live.cells.now();
            let mut asked = Asked::new(&live.cells);
            assert!(live.stations.find(BRIDGE, address(1), &mut asked).is_some());
            match change {
                0 => _ = hear(&live, 1, 8, at(1)),
                1 => assert_eq!(live.stations.expire(at(300), &live.cells), 1),
                _ => assert_eq!(live.stations.flush(BRIDGE, Some(PortId(7)), &live.cells), 1),
            }
            assert!(!live.cells.unchanged_since(&asked.deps(false).cells(), made), "change {change}");
        }
    }

    #[test]
    fn a_station_that_is_heard_does_not_expire() {
        let live = live(100);
        hear(&live, 1, 7, at(0));
        let Heard::Learned(slot) = hear(&live, 2, 7, at(0)) else { panic!("it is new") };
        live.stations.refresh(BRIDGE, &[slot], at(200));
        assert_eq!(live.stations.expire(at(299), &live.cells), 0);
        assert_eq!(live.stations.expire(at(300), &live.cells), 1);
        assert_eq!((place(&live, 1), place(&live, 2)), (None, Some(PortId(7))));
    }

    #[test]
    fn old_stations_expire_though_new_ones_keep_coming() {
        let live = live(10_000);
        for second in 0..=300 {
            (0..10).for_each(|i| _ = hear(&live, second * 10 + i, 7, at(second.into())));
            live.stations.expire(at(second.into()), &live.cells);
        }
        assert_eq!((place(&live, 0), place(&live, 10)), (None, Some(PortId(7))));
    }

    #[test]
    fn at_the_limit_the_port_with_the_most_stations_gives_one_up() {
        let live = live(100);
        (0..10).for_each(|i| _ = hear(&live, i, 1, at(0)));
        (1000..3000).for_each(|i| _ = hear(&live, i, 2, at(1)));
        let stations = live.stations.list(BRIDGE);
        assert_eq!(stations.len(), 100);
        assert_eq!(stations.iter().filter(|s| s.port == PortId(1)).count(), 10, "a flood took a quiet port's stations");
        assert!((0..10).all(|i| place(&live, i) == Some(PortId(1))));
    }

    #[test]
    fn flush_forgets_the_stations_of_one_port_and_leaves_the_others() {
        let live = live(1000);
        (0..50).for_each(|i| _ = hear(&live, i, 1 + (i % 2) as u16, at(0)));
        assert_eq!(live.stations.flush(BRIDGE, Some(PortId(1)), &live.cells), 25);
        assert!((0..50).all(|i| place(&live, i) == (i % 2 == 1).then_some(PortId(2))));
        assert_eq!(live.stations.flush(BRIDGE, None, &live.cells), 25);
        assert!(live.stations.list(BRIDGE).is_empty());
    }

    #[test]
    fn what_was_written_down_is_recalled_with_its_age_and_never_in_place_of_what_is_known() {
        let before = live(100);
        (0..3).for_each(|i| _ = hear(&before, i, 7, at(100 + u64::from(i))));
        let written = before.stations.all();
        assert_eq!(written.len(), 3);
        let after = live(100);
        hear(&after, 2, 8, at(200));
        for (bridge, Station { address, port, heard, .. }) in written {
            after.stations.recall(bridge, address, port, heard, at(200), &after.cells);
            after.stations.recall(BridgeId(9), address, port, heard, at(200), &after.cells);
        }
        after.stations.recall(BRIDGE, address(3), PortId(7), u32::MAX, at(200), &after.cells);
        assert_eq!([0, 1, 2, 3].map(|i| place(&after, i)), [7, 7, 8, 7].map(|port| Some(PortId(port))));
        assert_eq!(after.stations.expire(at(400), &after.cells), 1);
        assert_eq!(after.stations.expire(at(500), &after.cells), 3);
    }
}
