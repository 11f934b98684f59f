//! Neighbours: the Ethernet addresses of what is on the link of a port and no endpoint of ours (RFC 826, RFC 4861).
//!
//! States are those of `ip neighbour`, driven by use and not by timers of their own:
//!
//! ```text
//!   (asked for) ─▶ incomplete ─ answer ─▶ reachable ─ 30 s ─▶ stale ─ 10 min ─▶ (forgotten)
//!                      │                      ▲ answer          │ used: asked again, once a second, used meanwhile
//!                  5 requests                 └─────────────────┤
//!                      ▼                                    5 requests ─▶ (forgotten)
//!                   failed ─ 20 s ─▶ (forgotten: asked for again)
//! ```
//!
//! *Use is seen through validity.* A hit does not come here. When a neighbour turns stale its cell is touched, so the
//! next packet to it walks, finds it stale and asks; while the answer is outstanding its cell is touched once a second,
//! so that a packet, if there is one, asks again. A neighbour that nobody uses is not asked for.
//!
//! *Bounds*, for each port: neighbours that are known and neighbours that are asked for, apart from each other, so that
//! a scan of a subnet does not push out who is there. The one heard (asked for) longest ago goes.
//!
//! *Lock order*: the table, then the writer of the cells, as for stations.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use api::state::NeighborState;
use api::{AddressKey, MacAddr, PortId};
use parking_lot::Mutex;

use crate::live::Now;
use crate::probe::cells::{Asked, CELLS, Cell, Cells, TableName, Touched};

/// The name of this table in questions.
const NAME: TableName = TableName::new("neighbors");
/// Known neighbours of a port.
const KNOWN: usize = 1024;
/// Neighbours of a port that are asked for, or did not answer.
const AWAITED: usize = 256;
/// Milliseconds for which a neighbour that spoke is believed without asking (RFC 4861, 10: REACHABLE_TIME).
const REACHABLE: u64 = 30_000;
/// Milliseconds after which a silent neighbour is forgotten.
const IDLE: u64 = 600_000;
/// Milliseconds between two requests (RFC 4861, 10: RETRANS_TIMER).
const RETRY: u64 = 1000;
/// Requests without an answer after which nobody is there.
const REQUESTS: u8 = 5;
/// Milliseconds for which one that did not answer is not asked for again (RFC 1122, 2.3.2.1 wants the rate bounded).
const FAILED: u64 = 20_000;
/// A neighbour moves at most this often, milliseconds.
const MOVE_INTERVAL: u64 = 100;

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The port.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// It was silent for long: it may be used, but is to be asked for.
    pub stale: bool,
}

/// What is known of one address.
#[derive(Clone, Copy, Debug)]
struct Row {
    port: PortId,
    /// `None` while it is asked for.
    mac: Option<MacAddr>,
    /// When it last spoke, or was first asked for, milliseconds: its place in the order of its port.
    since: u64,
    /// When it last came to its port and Ethernet address, milliseconds.
    moved: u64,
    /// When it was last asked for, milliseconds; says nothing without `requests`.
    asked: u64,
    /// Requests since it last spoke.
    requests: u8,
    /// Its cell was touched so that the next packet asks for it, and none has done so since.
    woken: bool,
}

impl Row {
    fn is_stale(&self, now: u64) -> bool {
        self.requests != 0 || now.saturating_sub(self.since) >= REACHABLE
    }

    fn has_failed(&self) -> bool {
        self.mac.is_none() && self.requests >= REQUESTS
    }

    fn state(&self, now: u64) -> &'static str {
        match self.mac {
            Some(_) if self.is_stale(now) => "stale",
            Some(_) => "reachable",
            None if self.has_failed() => "failed",
            None => "incomplete",
        }
    }
}

/// Neighbours of one port in the order in which they give way.
#[derive(Debug, Default)]
struct Order {
    known: BTreeSet<(u64, AddressKey)>,
    awaited: BTreeSet<(u64, AddressKey)>,
}

/// The learned neighbours of all bridges.
#[derive(Debug)]
pub struct Neighbors {
    table: Mutex<Table>,
    /// How often an answer became another.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<AddressKey, Row, RandomState>,
    by_port: HashMap<PortId, Order, RandomState>,
    /// Cells that were asked in vain, one bit each.
    marks: Box<[u64]>,
}

impl Default for Neighbors {
    fn default() -> Self {
        let table = Table { marks: vec![0; CELLS / 64].into_boxed_slice(), ..Table::default() };
        Self { table: Mutex::new(table), changes: AtomicU64::new(0) }
    }
}

fn millis(now: Now) -> u64 {
    now.0.as_millis() as u64
}

impl Neighbors {
    /// Where a neighbour is, if that is known. Decisions that rest on its absence are found again by [`Self::learn`].
    pub fn find(&self, key: AddressKey, now: Now, asked: &mut Asked<'_>) -> Option<Place> {
        let cell = asked.note(NAME, key);
        let mut table = self.table.lock();
        let found = table
            .rows
            .get(&key)
            .and_then(|row| Some(Place { port: row.port, mac: row.mac?, stale: row.is_stale(millis(now)) }));
        if found.is_none() {
            table.mark(cell);
        }
        found
    }

    /// The Ethernet address of a neighbour is known. Decisions that ask this hold for one frame.
    pub fn is_known(&self, key: AddressKey) -> bool {
        self.table.lock().rows.get(&key).is_some_and(|row| row.mac.is_some())
    }

    /// A neighbour of this address is known, or asked for, behind `port`: what it says of itself was waited for. Decisions
    /// that ask this hold for one frame.
    pub fn is_expected(&self, key: AddressKey, port: PortId) -> bool {
        self.table.lock().rows.get(&key).is_some_and(|row| row.port == port)
    }

    /// A neighbour said, at `port`, that its Ethernet address is `mac`. Returns false if it moved too lately to move again.
    pub fn learn(&self, key: AddressKey, port: PortId, mac: MacAddr, now: Now, cells: &Cells) -> bool {
        let at = millis(now);
        let mut table = self.table.lock();
        let old = table.rows.get(&key).copied();
        let stays = old.is_some_and(|old| old.port == port && old.mac == Some(mac));
        let moves = !stays && old.is_some_and(|old| old.mac.is_some());
        if moves && old.is_some_and(|old| at.saturating_sub(old.moved) < MOVE_INTERVAL) {
            return false;
        }
        let moved = old.filter(|_| stays).map_or(at, |old| old.moved);
        let row = Row { port, mac: Some(mac), since: at, moved, asked: 0, requests: 0, woken: false };
        if stays {
            table.put(key, row);
            return true;
        }
        // Somebody may wait for it, or have been told that it is elsewhere.
        let awaited = table.unmark(cells.cell(NAME, key)) || moves;
        let evicts = table.is_full(port, true, &key);
        if awaited || evicts {
            // The lock of the table is held inside the change: whoever asks after it sees the new place.
            cells.change(|touched| {
                if awaited {
                    touched.touch(NAME, key);
                }
                if evicts {
                    table.evict(port, true, touched);
                }
                table.put(key, row);
            });
        } else {
            table.put(key, row);
        }
        drop(table);
        self.changes.fetch_add(1, Ordering::Release);
        true
    }

    /// Somebody wants to send to a neighbour that is unknown, or stale. Returns true, at most once a second, if a request
    /// is to be sent now; false too when it did not answer the last five.
    pub fn solicit(&self, key: AddressKey, port: PortId, now: Now, cells: &Cells) -> bool {
        let at = millis(now);
        let mut table = self.table.lock();
        let old = table.rows.get(&key).copied();
        let Some(mut row) = old.filter(|row| row.port == port) else {
            let evicts = table.is_full(port, false, &key);
            cells.change(|touched| {
                if evicts {
                    table.evict(port, false, touched);
                }
                // It was known at another port, and routes lead here now.
                if old.is_some() {
                    touched.touch(NAME, key);
                }
                table.put(key, Row { port, mac: None, since: at, moved: at, asked: at, requests: 1, woken: false });
            });
            return true;
        };
        let answered = row.mac.is_some() && !row.is_stale(at);
        if answered || row.requests >= REQUESTS || (row.requests != 0 && at.saturating_sub(row.asked) < RETRY) {
            return false;
        }
        (row.asked, row.requests, row.woken) = (at, row.requests + 1, false);
        table.put(key, row);
        true
    }

    /// Nobody of this address answers: the last five requests went unheard. Whoever waits for it may be told.
    pub fn has_failed(&self, key: AddressKey) -> bool {
        self.table.lock().rows.get(&key).is_some_and(Row::has_failed)
    }

    /// Counts what was learned, moved or lost. Whoever waits for a neighbour looks again when it has changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Bring states up to date; called about once a second. Returns how many neighbours were forgotten.
    pub fn expire(&self, now: Now, cells: &Cells) -> usize {
        let at = millis(now);
        let mut table = self.table.lock();
        let mut gone = Vec::new();
        let mut woken = Vec::new();
        for (key, row) in &mut table.rows {
            let unanswered = row.requests != 0 && at.saturating_sub(row.asked) >= RETRY;
            let over = match row.mac {
                Some(_) => at.saturating_sub(row.since) >= IDLE || (unanswered && row.requests >= REQUESTS),
                None => at.saturating_sub(row.asked) >= FAILED,
            };
            if over {
                gone.push(*key);
            } else if row.mac.is_some() && !row.woken && (unanswered || (row.requests == 0 && row.is_stale(at))) {
                row.woken = true;
                woken.push(*key);
            }
        }
        if gone.is_empty() && woken.is_empty() {
            return 0;
        }
        cells.change(|touched| {
            for key in &gone {
                touched.touch(NAME, key);
                table.forget(key);
            }
            woken.iter().for_each(|key| touched.touch(NAME, key));
        });
        drop(table);
        if !gone.is_empty() {
            self.changes.fetch_add(1, Ordering::Release);
        }
        gone.len()
    }

    /// A port goes, or what is behind it is another link: forget its neighbours. Returns how many there were.
    pub fn flush_port(&self, port: PortId, cells: &Cells) -> usize {
        let mut table = self.table.lock();
        let Some(order) = table.by_port.remove(&port) else { return 0 };
        let keys: Vec<AddressKey> = order.known.into_iter().chain(order.awaited).map(|(_, key)| key).collect();
        cells.change(|touched| {
            for key in &keys {
                touched.touch(NAME, key);
                table.rows.remove(key);
            }
        });
        drop(table);
        self.changes.fetch_add(1, Ordering::Release);
        keys.len()
    }

    /// All neighbours, in order of their keys.
    pub fn list(&self, now: Now) -> Vec<NeighborState> {
        let at = millis(now);
        let table = self.table.lock();
        let state = |(key, row): (&AddressKey, &Row)| NeighborState {
            key: *key,
            port: row.port,
            mac: row.mac,
            state: row.state(at).to_owned(),
            age: Some((at.saturating_sub(row.since) / 1000) as u32),
        };
        let mut list: Vec<_> = table.rows.iter().map(state).collect();
        drop(table);
        list.sort_unstable_by_key(|neighbor| neighbor.key);
        list
    }
}

impl Table {
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

    /// The order that a row stands in.
    fn order(&mut self, port: PortId, known: bool) -> &mut BTreeSet<(u64, AddressKey)> {
        let order = self.by_port.entry(port).or_default();
        if known { &mut order.known } else { &mut order.awaited }
    }

    fn put(&mut self, key: AddressKey, row: Row) {
        if let Some(old) = self.rows.insert(key, row) {
            self.order(old.port, old.mac.is_some()).remove(&(old.since, key));
        }
        self.order(row.port, row.mac.is_some()).insert((row.since, key));
    }

    fn forget(&mut self, key: &AddressKey) {
        if let Some(old) = self.rows.remove(key) {
            self.order(old.port, old.mac.is_some()).remove(&(old.since, *key));
            if self.by_port.get(&old.port).is_some_and(|order| order.known.is_empty() && order.awaited.is_empty()) {
                self.by_port.remove(&old.port);
            }
        }
    }

    /// One more would be too many, unless `key` is among them already.
    fn is_full(&self, port: PortId, known: bool, key: &AddressKey) -> bool {
        let counted = self.rows.get(key).is_some_and(|row| row.port == port && row.mac.is_some() == known);
        let rows =
            self.by_port.get(&port).map_or(0, |order| if known { order.known.len() } else { order.awaited.len() });
        !counted && rows >= if known { KNOWN } else { AWAITED }
    }

    /// The oldest goes.
    fn evict(&mut self, port: PortId, known: bool, touched: &mut Touched<'_>) {
        if let Some((_, key)) = self.order(port, known).first().copied() {
            touched.touch(NAME, key);
            self.forget(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use api::BridgeId;

    use super::*;
    use crate::live::Live;

    const PORT: PortId = PortId(7);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 8]);

    fn key(i: u16) -> AddressKey {
        let [a, b] = i.to_be_bytes();
        AddressKey { bridge: BridgeId(1), address: Ipv4Addr::new(192, 0, a, b).into() }
    }

    fn at(millis: u64) -> Now {
        Now(Duration::from_millis(millis))
    }

    fn learn(live: &Live, i: u16, port: PortId, mac: MacAddr, now: u64) -> bool {
        live.neighbors.learn(key(i), port, mac, at(now), &live.cells)
    }

    fn find(live: &Live, i: u16, now: u64) -> Option<Place> {
        live.neighbors.find(key(i), at(now), &mut Asked::new(&live.cells))
    }

    fn solicit(live: &Live, i: u16, now: u64) -> bool {
        live.neighbors.solicit(key(i), PORT, at(now), &live.cells)
    }

    fn state(live: &Live, now: u64) -> Vec<String> {
        live.neighbors.list(at(now)).into_iter().map(|neighbor| neighbor.state).collect()
    }

    /// Whether a decision that asks for neighbour 1 now stands after `change`.
    fn stands(live: &Live, now: u64, change: impl FnOnce()) -> bool {
        let (mut asked, made) = (Asked::new(&live.cells), live.cells.now());
        live.neighbors.find(key(1), at(now), &mut asked);
        change();
        live.cells.unchanged_since(&asked.deps(false).cells(), made)
    }

    #[test]
    fn a_neighbour_is_where_it_last_spoke() {
        let live = Live::default();
        assert_eq!(find(&live, 1, 0), None);
        assert!(learn(&live, 1, PORT, MAC, 0));
        assert_eq!(find(&live, 1, 0), Some(Place { port: PORT, mac: MAC, stale: false }));
        assert!(learn(&live, 1, PortId(8), OTHER, 1000));
        assert_eq!(find(&live, 1, 1000), Some(Place { port: PortId(8), mac: OTHER, stale: false }));
        assert_eq!(live.neighbors.list(at(1000)).len(), 1);
    }

    #[test]
    fn one_that_just_moved_does_not_move_again_at_once() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 1000);
        assert!(!learn(&live, 1, PORT, OTHER, 1050));
        assert_eq!(find(&live, 1, 1050).map(|place| place.mac), Some(MAC));
        assert!(learn(&live, 1, PORT, OTHER, 1100));
    }

    #[test]
    fn learning_touches_a_cell_only_where_it_was_asked_in_vain_or_moves() {
        let live = Live::default();
        let before = live.cells.now();
        learn(&live, 2, PORT, MAC, 0);
        learn(&live, 2, PORT, MAC, 500);
        assert_eq!(live.cells.now(), before, "nobody had asked");
        assert!(!stands(&live, 0, || _ = learn(&live, 1, PORT, MAC, 0)), "it was awaited");
        assert!(stands(&live, 0, || _ = learn(&live, 1, PORT, MAC, 10)), "it is where it was");
        assert!(!stands(&live, 0, || _ = learn(&live, 1, PORT, OTHER, 1000)), "it moved");
    }

    #[test]
    fn an_unknown_neighbour_is_asked_for_once_a_second_until_it_has_failed() {
        let live = Live::default();
        let sent: Vec<u64> = (0..100).map(|i| i * 100).filter(|&now| solicit(&live, 1, now)).collect();
        assert_eq!(sent, [0, 1000, 2000, 3000, 4000]);
        assert_eq!((state(&live, 9900), live.neighbors.has_failed(key(1))), (vec!["failed".to_owned()], true));
        assert_eq!(live.neighbors.expire(at(23_999), &live.cells), 0);
        assert_eq!(live.neighbors.expire(at(24_000), &live.cells), 1);
        assert!(solicit(&live, 1, 24_000), "it is asked for again after a while");
        assert_eq!(state(&live, 24_000), ["incomplete"]);
        assert!(learn(&live, 1, PORT, MAC, 24_001));
        assert_eq!(state(&live, 24_001), ["reachable"]);
        assert!(!solicit(&live, 1, 24_002), "it has just spoken");
    }

    #[test]
    fn a_stale_neighbour_is_used_and_asked_for_while_it_is() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        assert!(stands(&live, 29_999, || _ = live.neighbors.expire(at(29_999), &live.cells)));
        assert!(!stands(&live, 30_000, || _ = live.neighbors.expire(at(30_000), &live.cells)), "nobody would ask");
        assert!(stands(&live, 31_000, || _ = live.neighbors.expire(at(31_000), &live.cells)), "nobody has asked");
        assert_eq!(find(&live, 1, 31_000), Some(Place { port: PORT, mac: MAC, stale: true }));
        assert!(solicit(&live, 1, 31_000) && !solicit(&live, 1, 31_500));
        learn(&live, 1, PORT, MAC, 31_600);
        assert_eq!(state(&live, 31_600), ["reachable"]);
    }

    #[test]
    fn a_used_neighbour_that_does_not_answer_is_forgotten_after_five_requests() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        for i in 0..5 {
            let now = 40_000 + i * 1000;
            assert!(solicit(&live, 1, now) && find(&live, 1, now).is_some());
            let changes = live.neighbors.changes();
            let woken = !stands(&live, now, || _ = live.neighbors.expire(at(now + 1000), &live.cells));
            assert!(woken, "the next packet would not ask again");
            assert_eq!(live.neighbors.changes() != changes, i == 4);
        }
        assert_eq!(find(&live, 1, 45_000), None);
    }

    #[test]
    fn a_neighbour_that_did_not_answer_and_is_not_used_any_more_is_let_alone() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        assert!(solicit(&live, 1, 40_000));
        assert!(!stands(&live, 41_000, || _ = live.neighbors.expire(at(41_000), &live.cells)));
        for second in 42..600 {
            assert!(stands(&live, 42_000, || _ = live.neighbors.expire(at(second * 1000), &live.cells)), "{second}");
        }
        assert_eq!(state(&live, 599_000), ["stale"]);
    }

    #[test]
    fn a_neighbour_that_nobody_uses_is_forgotten_after_ten_minutes() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        assert_eq!(live.neighbors.expire(at(599_999), &live.cells), 0);
        assert_eq!((live.neighbors.expire(at(600_000), &live.cells), find(&live, 1, 600_000)), (1, None));
        assert!(live.neighbors.table.lock().by_port.is_empty());
    }

    #[test]
    fn a_neighbour_that_is_elsewhere_is_asked_for_where_routes_lead() {
        let live = Live::default();
        learn(&live, 1, PortId(8), MAC, 0);
        assert!(!stands(&live, 0, || assert!(solicit(&live, 1, 0))));
        assert_eq!((find(&live, 1, 0), live.neighbors.is_expected(key(1), PORT)), (None, true));
        assert_eq!(live.neighbors.list(at(0)).len(), 1);
    }

    #[test]
    fn a_port_has_so_many_neighbours_and_its_oldest_goes() {
        let live = Live::default();
        learn(&live, 60_000, PortId(8), MAC, 0);
        (0..KNOWN as u16).for_each(|i| _ = learn(&live, i, PORT, MAC, 1 + u64::from(i)));
        learn(&live, 0, PORT, MAC, 5000);
        assert!(!stands(&live, 6000, || _ = learn(&live, 2000, PORT, MAC, 6000)), "the oldest is 1, and it went");
        let there: Vec<bool> = [0, 1, 2, 2000, 60_000].iter().map(|&i| find(&live, i, 6000).is_some()).collect();
        assert_eq!(there, [true, false, true, true, true]);
        assert_eq!(live.neighbors.list(at(6000)).len(), KNOWN + 1);
    }

    #[test]
    fn a_scan_does_not_push_out_who_is_there() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        (1000..9000).for_each(|i| assert!(solicit(&live, i, u64::from(i))));
        assert!(find(&live, 1, 9000).is_some());
        assert_eq!(live.neighbors.list(at(9000)).len(), AWAITED + 1);
    }

    #[test]
    fn a_port_that_goes_takes_its_neighbours_with_it() {
        let live = Live::default();
        learn(&live, 1, PORT, MAC, 0);
        learn(&live, 2, PortId(8), MAC, 0);
        solicit(&live, 3, 0);
        assert!(!stands(&live, 0, || assert_eq!(live.neighbors.flush_port(PORT, &live.cells), 2)));
        assert_eq!((find(&live, 1, 0), find(&live, 2, 0).map(|place| place.port)), (None, Some(PortId(8))));
        assert!(!live.neighbors.is_expected(key(3), PORT) && live.neighbors.is_expected(key(2), PortId(8)));
    }
}
