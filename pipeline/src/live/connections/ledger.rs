//! The ledger: which records are free, which rest, and whose they are. One lock, held for a few instructions at the
//! birth, the first answer and the death of a connection.
//!
//! *Nobody pays for a flood.* A port has a share of connections that are not answered; at its share, its own oldest one
//! gives way. When the table is full, the oldest unanswered one of the port that has the most gives way. What gave way
//! rests as all dead connections do, in records beyond the limit, and a port whose dead ones are many waits for them.
//!
//! Private to the process, and built from the records.

use std::collections::VecDeque;

use api::PortId;

use super::Name;
use super::record::MOST_RECORDS;

/// A dead connection rests until the second counter has moved on by more than this: for two seconds at least.
const REST: u32 = 2;
/// One record in so many, beyond the limit, is there for dead connections to rest in.
const SPARE: usize = 4;
/// One record in so many is what a port at its share may have at rest.
const RESTING_SHARE: usize = 64;
/// Connections that there may be, whatever is asked for.
const MOST: usize = 10_000_000;
const _: () = assert!(MOST + MOST / SPARE + 2 < MOST_RECORDS as usize);
/// Places that are allocated together.
const CHUNK: u32 = 4096;
/// Evictions after which the port with the most unanswered connections is looked for again.
const LOOK_AGAIN: u32 = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all ports together. More than ten million count as that many.
    pub total: usize,
    /// Not yet answered, of one ingress port.
    pub unanswered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(1 << 20)
    }
}

impl From<usize> for Limits {
    /// So many connections, of which one port may have an eighth unanswered.
    fn from(total: usize) -> Self {
        Self { total, unanswered: (total / 8).max(1) }
    }
}

/// What a record is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Free,
    /// A connection's that is not answered: in the list of its port.
    Unanswered,
    /// Another connection's.
    Settled,
    /// A dead connection's.
    Resting,
}

/// Why there is no record for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The table, or the share of its port, is full.
    Full,
    /// There may be more records, but the next one has no memory yet.
    NoMemory,
}

/// A record as an earlier process left it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// Nobody's.
    Free(Name),
    /// A connection's of this port.
    Live(Name, PortId),
    /// A dead connection's of this port, which rests from this second on.
    Dead(Name, PortId, u32),
}

/// What the ledger has of one record.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The record's neighbours in the list of its port, older and younger; 0 is none.
    older: u32,
    younger: u32,
    incarnation: u32,
    port: PortId,
    standing: Standing,
}

/// What the ledger has of one port.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// Ends of the list of its unanswered connections.
    oldest: u32,
    youngest: u32,
    unanswered: usize,
    resting: usize,
}

#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    /// By record, in chunks.
    places: Vec<Box<[Place]>>,
    /// The record after the last one that was ever used.
    fresh: u32,
    /// Records below this one have memory.
    provided: u32,
    /// Used before, oldest first.
    free: VecDeque<u32>,
    /// Dead ones and the second of their death, oldest first. Those that were freed early are skipped.
    resting: VecDeque<(Name, u32)>,
    live: usize,
    /// By port.
    books: Vec<Book>,
    /// The port that had the most unanswered ones when last looked at.
    largest: PortId,
    /// Evictions since then.
    evicted: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            places: Vec::new(),
            // A name's slot counts from 1.
            fresh: 1,
            provided: 0,
            free: VecDeque::new(),
            resting: VecDeque::new(),
            live: 0,
            books: Vec::new(),
            largest: PortId::NONE,
            evicted: 0,
        }
    }
}

impl Ledger {
    /// From now on there may be so many. Those that there are stay.
    pub(super) fn configure(&mut self, limits: Limits) {
        self.limits = Limits { total: limits.total.clamp(1, MOST), unanswered: limits.unanswered.max(1) };
    }

    /// Connections that live.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// The record after the last one that was ever used.
    pub(super) fn fresh(&self) -> u32 {
        self.fresh
    }

    fn capacity(&self) -> usize {
        self.limits.total + self.limits.total / SPARE + 2
    }

    fn place(&mut self, slot: u32) -> Option<&mut Place> {
        self.places.get_mut((slot / CHUNK) as usize)?.get_mut((slot % CHUNK) as usize)
    }

    /// The place of a connection by that name.
    fn named(&mut self, name: Name) -> Option<&mut Place> {
        self.place(name.slot).filter(|place| place.incarnation == name.incarnation)
    }

    fn book(&mut self, port: PortId) -> Option<&mut Book> {
        if port.index() >= self.books.len() {
            self.books.resize(port.index() + 1, Book::default());
        }
        self.books.get_mut(port.index())
    }

    /// Records below this one have memory.
    pub(super) fn provided(&mut self, fresh: u32) {
        self.provided = self.provided.max(fresh);
    }

    /// The next record that was never used and has no memory, if one so near will be needed.
    pub(super) fn wants(&self, near: u32) -> Option<u32> {
        let next = self.fresh.saturating_add(near).min(self.capacity() as u32);
        (next >= self.provided).then_some(self.provided)
    }

    /// A record for a new connection of a port. `die` ends another one for its sake, and says whether it did.
    pub(super) fn admit(
        &mut self,
        port: PortId,
        second: u32,
        mut die: impl FnMut(Name) -> bool,
    ) -> Result<Name, Refused> {
        if self.free.is_empty() && self.fresh as usize >= self.capacity() {
            return Err(Refused::Full);
        }
        if self.free.is_empty() && self.fresh >= self.provided {
            return Err(Refused::NoMemory);
        }
        self.admit_to(port, second, &mut die).ok_or(Refused::Full)
    }

    fn admit_to(&mut self, port: PortId, second: u32, mut die: &mut impl FnMut(Name) -> bool) -> Option<Name> {
        let Limits { total, unanswered } = self.limits;
        let Book { unanswered: own, resting, .. } = *self.book(port)?;
        if own >= unanswered {
            if resting >= (total / RESTING_SHARE).max(1) {
                return None;
            }
            self.evict(port, second, &mut die)?;
        }
        if self.live >= total {
            let largest = self.largest();
            self.evict(largest, second, &mut die)?;
        }
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => self.open(),
        };
        let place = self.place(slot)?;
        (place.port, place.standing) = (port, Standing::Unanswered);
        let name = Name { slot, incarnation: place.incarnation };
        self.live += 1;
        self.join(port, slot);
        Some(name)
    }

    /// The next record that was never used.
    fn open(&mut self) -> u32 {
        let slot = self.fresh;
        if (slot / CHUNK) as usize >= self.places.len() {
            self.places.push(vec![Place::default(); CHUNK as usize].into_boxed_slice());
        }
        self.fresh += 1;
        slot
    }

    /// The next record is as an earlier process left it. All are told, in order, before any is given.
    pub(super) fn take_over(&mut self, left: Left) {
        let slot = self.open();
        let (name, port, standing) = match left {
            Left::Free(name) => (name, PortId::NONE, Standing::Free),
            Left::Live(name, port) => (name, port, Standing::Settled),
            Left::Dead(name, port, _) => (name, port, Standing::Resting),
        };
        if let Some(place) = self.place(slot) {
            (place.incarnation, place.port, place.standing) = (name.incarnation, port, standing);
        }
        match left {
            Left::Free(_) => self.free.push_back(slot),
            Left::Live(..) => self.live += 1,
            Left::Dead(name, port, second) => {
                self.resting.push_back((name, second));
                if let Some(book) = self.book(port) {
                    book.resting += 1;
                }
            }
        }
    }

    /// A connection that was taken over is not answered. Told oldest first.
    pub(super) fn unanswered(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        place.standing = Standing::Unanswered;
        let port = place.port;
        self.join(port, slot);
    }

    /// Put a record at the young end of its port's list.
    fn join(&mut self, port: PortId, slot: u32) {
        let Some(book) = self.book(port) else { return };
        let older = std::mem::replace(&mut book.youngest, slot);
        if older == 0 {
            book.oldest = slot;
        }
        book.unanswered += 1;
        let unanswered = book.unanswered;
        if let Some(place) = self.place(slot) {
            (place.older, place.younger) = (older, 0);
        }
        if let Some(place) = self.place(older) {
            place.younger = slot;
        }
        if self.books.get(self.largest.index()).is_none_or(|largest| largest.unanswered < unanswered) {
            self.largest = port;
        }
    }

    /// Take a record off its port's list.
    fn leave(&mut self, slot: u32) {
        let Some(Place { older, younger, port, .. }) = self.place(slot).copied() else { return };
        if older != 0
            && let Some(place) = self.place(older)
        {
            place.younger = younger;
        }
        if younger != 0
            && let Some(place) = self.place(younger)
        {
            place.older = older;
        }
        let Some(book) = self.book(port) else { return };
        if older == 0 {
            book.oldest = younger;
        }
        if younger == 0 {
            book.youngest = older;
        }
        book.unanswered -= 1;
    }

    /// End the oldest unanswered connection of a port.
    fn evict(&mut self, port: PortId, second: u32, die: &mut impl FnMut(Name) -> bool) -> Option<()> {
        let slot = self.book(port)?.oldest;
        let incarnation = self.place(slot).filter(|_| slot != 0)?.incarnation;
        let name = Name { slot, incarnation };
        // It may be about to be published.
        die(name).then(|| self.died(name, second))
    }

    /// The port that has the most unanswered connections, or had a moment ago: looking at all ports each time would make
    /// a full table slow.
    fn largest(&mut self) -> PortId {
        self.evicted += 1;
        let has_none = self.books.get(self.largest.index()).is_none_or(|book| book.unanswered == 0);
        if has_none || self.evicted >= LOOK_AGAIN {
            let largest = (0u16..).zip(&self.books).max_by_key(|(_, book)| book.unanswered);
            self.largest = largest.map_or(PortId::NONE, |(port, _)| PortId(port));
            self.evicted = 0;
        }
        self.largest
    }

    /// Nothing came of a connection whose record was given.
    pub(super) fn cancel(&mut self, name: Name) {
        if self.named(name).is_none_or(|place| place.standing != Standing::Unanswered) {
            return;
        }
        self.leave(name.slot);
        self.live -= 1;
        if let Some(place) = self.place(name.slot) {
            place.standing = Standing::Free;
        }
        self.free.push_front(name.slot);
    }

    /// A connection got its first answer.
    pub(super) fn answered(&mut self, name: Name) {
        if let Some(place) = self.named(name)
            && place.standing == Standing::Unanswered
        {
            place.standing = Standing::Settled;
            self.leave(name.slot);
        }
    }

    /// A connection died: it rests.
    pub(super) fn died(&mut self, name: Name, second: u32) {
        let Some(place) = self.named(name) else { return };
        let (port, standing) = (place.port, place.standing);
        if !matches!(standing, Standing::Unanswered | Standing::Settled) {
            return;
        }
        place.standing = Standing::Resting;
        if standing == Standing::Unanswered {
            self.leave(name.slot);
        }
        self.live -= 1;
        if let Some(book) = self.book(port) {
            book.resting += 1;
        }
        self.resting.push_back((name, second));
    }

    /// The next one that has rested. It is given once; its tuples are taken out of the index, then it is [`Self::freed`].
    pub(super) fn rested(&mut self, second: u32) -> Option<Name> {
        while let Some(&(name, died)) = self.resting.front() {
            if second.saturating_sub(died) <= REST {
                return None;
            }
            self.resting.pop_front();
            if self.named(name).is_some_and(|place| place.standing == Standing::Resting) {
                return Some(name);
            }
        }
        None
    }

    /// Nothing names this record any more. Its next connection is of another incarnation.
    pub(super) fn freed(&mut self, name: Name) {
        let Some(place) = self.named(name) else { return };
        if place.standing != Standing::Resting {
            return;
        }
        (place.standing, place.incarnation) = (Standing::Free, next(name.incarnation));
        let port = place.port;
        if let Some(book) = self.book(port) {
            book.resting -= 1;
        }
        self.free.push_back(name.slot);
    }
}

/// The incarnation after this one.
pub(super) fn next(incarnation: u32) -> u32 {
    incarnation.wrapping_add(1)
}
