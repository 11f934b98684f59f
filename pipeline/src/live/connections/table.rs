//! The table: finding connections, making them, and hearing of them.
//!
//! *Lock order*: shards by number, then the writer of the cells; the ledger is taken alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::index::{Hashed, Index};
use super::ledger::{Ledger, Limits, Refused};
use super::memory::{CHUNK, Private, Provider};
use super::record::{Life, Reading, Records};
use super::states::{Status, flag};
use super::{Committed, Direction, Event, Found, Name, Plan, Tuple, ports};
use crate::live::Now;
use crate::probe::cells::{Asked, CELLS, Cell, Cells, TableName};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// The name of this table in questions. Not a volatile one: decisions for known connections rest on it.
pub(super) const NAME: TableName = TableName::new("connections");
/// A tuple that another worker opens and ends again and again is left to it after so many attempts.
const ATTEMPTS: usize = 4;

/// All connections.
#[derive(Debug)]
pub struct Connections {
    pub(super) records: Records,
    pub(super) index: Index,
    pub(super) ledger: CachePadded<Mutex<Ledger>>,
    /// Cells of tuples whose absence a remembered decision rests on, one bit each. A bit is set and cleared under the lock of
    /// the tuple's shard.
    marks: Box<[AtomicU64]>,
    /// Where the next scan for silent connections begins.
    pub(super) scanned: Mutex<u32>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::with(Box::new(Private))
    }
}

impl Connections {
    /// No connections, in this memory.
    pub(super) fn with(provider: Box<dyn Provider>) -> Self {
        Self {
            records: Records::from(provider),
            index: Index::default(),
            ledger: CachePadded::default(),
            marks: std::iter::repeat_with(AtomicU64::default).take(CELLS / 64).collect(),
            scanned: Mutex::new(1),
        }
    }
}

/// What came of one attempt at a pair of tuples.
enum Attempt {
    /// It is done.
    New,
    /// The reply tuple is another connection's, alive or resting.
    Taken,
    /// The original tuple is this connection's.
    Occupied(Reading, Name),
}

/// A connection as it is when it was just made.
fn new(name: Name, plan: &Plan, reply: Tuple) -> Found {
    let Plan { original, identities, .. } = *plan;
    Found { name, direction: Direction::Original, original, reply, identities, answered: false }
}

impl Connections {
    /// From now on there may be so many connections. Those that there are stay.
    pub fn configure(&self, limits: impl Into<Limits>) {
        self.ledger.lock().configure(limits.into());
    }

    /// Connections that live.
    pub fn len(&self) -> usize {
        self.ledger.lock().live()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection of a tuple. That it was asked for is noted, found or not; a decision that rests on its absence and is
    /// to be remembered calls [`Self::rest_on_absence`] too.
    pub fn find(&self, tuple: &Tuple, asked: &mut Asked<'_>) -> Option<Found> {
        let hashed = Hashed::of(tuple);
        hashed.note(asked);
        let (slot, direction) = self.index.lock(hashed.at()).find(&hashed, &self.records)?;
        let reading = self.records.read(slot)?;
        (reading.word.life == Life::LIVE).then(|| reading.found(slot, direction))
    }

    /// A tuple will be asked for soon.
    #[inline]
    pub fn look_ahead(&self, tuple: &Tuple) {
        self.index.prefetch(Hashed::of(tuple).at());
    }

    /// A remembered decision rests on there being no connection of this tuple: whoever makes one touches its cell. Returns
    /// false when there is one already.
    pub fn rest_on_absence(&self, tuple: &Tuple, cells: &Cells) -> bool {
        let hashed = Hashed::of(tuple);
        let shard = self.index.lock(hashed.at());
        let found = shard.find(&hashed, &self.records).and_then(|(slot, _)| self.records.word(slot));
        if found.is_some_and(|word| word.life == Life::LIVE) {
            return false;
        }
        let cell = hashed.cell(cells);
        if let Some(word) = self.marks.get(cell.index() / 64) {
            word.fetch_or(1 << (cell.index() % 64), Ordering::AcqRel);
        }
        true
    }

    /// Take the mark off a cell. Returns whether there was one.
    fn unmark(&self, cell: Cell) -> bool {
        let bit = 1 << (cell.index() % 64);
        // Marks are few: most commits leave the line to its readers.
        self.marks.get(cell.index() / 64).is_some_and(|word| {
            word.load(Ordering::Acquire) & bit != 0 && word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
        })
    }

    /// Make a connection: one operation over both tuples. One that has ended ([`Self::is_reopened`]) gives way to it.
    pub fn commit(&self, plan: &Plan, now: Now, cells: &Cells) -> Committed {
        let die = |victim| self.records.die(victim, flag::EVICTED);
        let name = loop {
            let admitted = self.ledger.lock().admit(plan.port, now.second(), die);
            match admitted {
                Ok(name) => break name,
                Err(Refused::NoMemory) if self.provide(0) => {}
                Err(_) => return Committed::Full,
            }
        };
        let committed = self.commit_to(name, plan, now, cells);
        if !matches!(committed, Committed::New(_)) {
            self.ledger.lock().cancel(name);
        }
        committed
    }

    /// See to it that there is memory for so many connections more, and for one. Returns whether there is.
    pub(super) fn provide(&self, near: u32) -> bool {
        let Some(slot) = self.ledger.lock().wants(near) else { return true };
        let provided = self.records.provide(slot);
        if provided {
            self.ledger.lock().provided((slot / CHUNK + 1) * CHUNK);
        }
        provided
    }

    fn commit_to(&self, name: Name, plan: &Plan, now: Now, cells: &Cells) -> Committed {
        let original = Hashed::of(&plan.original);
        let random = |i| original.random((now.0.as_nanos(), i));
        let mut attempts = 0;
        for tuple in ports::replies(plan, random) {
            let reply = Hashed::of(&tuple);
            loop {
                match self.attempt(name, plan, (&original, &reply), now, cells) {
                    Attempt::New => return Committed::New(new(name, plan, tuple)),
                    Attempt::Taken => break,
                    Attempt::Occupied(old, old_name) => {
                        attempts += 1;
                        if attempts > ATTEMPTS {
                            return Committed::Lost;
                        }
                        if let Some(refusal) = self.displace(&old, old_name, plan, (&original, &reply), now, cells) {
                            return refusal;
                        }
                    }
                }
            }
        }
        Committed::NoPort
    }

    /// Let a record live under these tuples, if they are nobody's.
    fn attempt(
        &self,
        name: Name,
        plan: &Plan,
        (original, reply): (&Hashed, &Hashed),
        now: Now,
        cells: &Cells,
    ) -> Attempt {
        // What a packet sends to itself would be its own answer.
        if original.packed == reply.packed {
            return Attempt::Taken;
        }
        let mut shards = self.index.lock_both(original.at(), reply.at());
        if let Some((slot, _)) = shards.find(original, &self.records)
            && let Some(old) = self.records.read(slot)
        {
            return Attempt::Occupied(old, Name { slot, incarnation: old.word.incarnation });
        }
        if shards.find(reply, &self.records).is_some() {
            return Attempt::Taken;
        }
        let mut insert = || {
            self.records.publish(name, plan, &original.packed, &reply.packed, now.second());
            shards.insert(name.slot, &self.index);
        };
        let awaited = [original, reply].map(|tuple| self.unmark(tuple.cell(cells)));
        if awaited == [false; 2] {
            insert();
        } else {
            // The locks are held inside the change: whoever asks after it finds the connection.
            cells.change(|touched| {
                insert();
                [original, reply].iter().for_each(|tuple| touched.touch(NAME, tuple.packed));
            });
        }
        Attempt::New
    }

    /// A connection has the tuple that a new one is to begin with: it is taken out if it is dead, or over. Returns what the
    /// new one gets instead if it stays.
    fn displace(
        &self,
        old: &Reading,
        old_name: Name,
        plan: &Plan,
        (original, reply): (&Hashed, &Hashed),
        now: Now,
        cells: &Cells,
    ) -> Option<Committed> {
        // What is remembered of the old one holds for the new one too.
        let same = old.original == original.packed && old.reply == reply.packed;
        if old.word.life == Life::LIVE {
            if !old.word.status.is_reopened_by(old.proto(), plan.event) {
                return Some(Committed::Lost);
            }
            if self.records.die(old_name, 0) {
                self.ledger.lock().died(old_name, now.second());
            }
        } else if old.word.status.flags & flag::EVICTED != 0 && !same {
            // What its port had too many of does not come back at once under another translation: each time, everybody
            // would have to look again at what they remember.
            return Some(Committed::Full);
        }
        self.unlink(old_name, (!same).then_some(cells));
        None
    }

    /// `event` opens a connection anew where `found` ends: the frame is a first one. The commit takes the old one's place.
    pub fn is_reopened(&self, found: &Found, event: Event) -> bool {
        self.records
            .word(found.name.slot)
            .filter(|word| word.is(Life::LIVE, found.name))
            .is_some_and(|word| word.status.is_reopened_by(found.original.proto, event))
    }

    /// A packet of a connection says something of its state, and that it lives. Returns false if the name is another's now.
    pub fn advance(&self, name: Name, direction: Direction, event: Event, now: Now) -> bool {
        self.hear(name, direction, now, |proto, status| status.advanced(proto, direction, event))
    }

    /// Packets of a connection were seen lately, none of which was walked: a walk says by [`Self::advance`] what it has to
    /// say, and a SYN must not be told again as if it were the handshake's last packet. Returns false if the name is
    /// another's now: what rests on it must go.
    pub fn seen(&self, name: Name, direction: Direction, now: Now) -> bool {
        self.hear(name, direction, now, |proto, status| status.seen(proto, direction))
    }

    /// [`Self::seen`] will be called for this connection soon.
    #[inline]
    pub fn prefetch(&self, name: Name) {
        self.records.prefetch(name.slot);
    }

    fn hear(&self, name: Name, direction: Direction, now: Now, alter: impl Fn(u8, Status) -> Status) -> bool {
        let Some((was, is)) = self.records.alter(name, alter) else { return false };
        self.records.saw(name.slot, direction, now.second());
        if is.is_answered() && !was.is_answered() {
            self.ledger.lock().answered(name);
        }
        true
    }
}
