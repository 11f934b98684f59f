//! Records: one flat array, a fixed size each, made of atomics (FASTPATH 8). There is no lock, index, pointer or hash in
//! it, so that it can be memory that outlives the process; what finds records is built from them.
//!
//! ```text
//!   FREE ─ publish ► WRITING ─ publish ► LIVE ─ die ► DEAD ─ free ► FREE, incarnation + 1
//! ```
//!
//! Tuples are written while the record is WRITING, and taken out of the index before it is FREE: whoever holds the lock
//! of the shard in which an index entry names the record may read the tuples. Others read as a seqlock does:
//! [`Records::read`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use api::PortId;

use super::ledger::next;
use super::memory::{CHUNK, Provider};
use super::packed::Packed;
use super::states::{State, Status};
use super::{Direction, Found, Name, Plan};
use crate::raw::{Kept, prefetch};

/// Records that there can be. What the table of chunks is made for.
pub(super) const MOST_RECORDS: u32 = 1 << 24;

/// Life of a record: a number with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(u8);

impl Life {
    /// Nobody's. What fresh memory holds.
    const FREE: Self = Self(0);
    /// Being filled by whoever took it.
    const WRITING: Self = Self(1);
    /// A connection's.
    pub(super) const LIVE: Self = Self(2);
    /// Was a connection's; its tuples rest.
    pub(super) const DEAD: Self = Self(3);
}

/// The word that all changes of a record go through: life 8 bits, state 8, flags 8, incarnation 32 at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) life: Life,
    pub(super) status: Status,
    pub(super) incarnation: u32,
}

impl Word {
    fn pack(self) -> u64 {
        u64::from(self.life.0)
            | u64::from(self.status.state.0) << 8
            | u64::from(self.status.flags) << 16
            | u64::from(self.incarnation) << 32
    }

    fn unpack(word: u64) -> Self {
        let status = Status { state: State((word >> 8) as u8), flags: (word >> 16) as u8 };
        Self { life: Life(word as u8), status, incarnation: (word >> 32) as u32 }
    }

    /// It is that connection's, in this part of its life.
    pub(super) fn is(self, life: Life, name: Name) -> bool {
        self.life == life && self.incarnation == name.incarnation
    }
}

/// One record: 128 octets, and nothing but atomic integers. What the scan for expired ones reads stands in the first half.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Record {
    /// A [`Word`]. Every change of life, state or flags is one exchange of it.
    word: AtomicU64,
    /// [`Packed::words`] of the first packet. Written while WRITING.
    original: [AtomicU64; 5],
    /// When packets of each [`Direction`] were last seen, seconds. Only grow while LIVE.
    seen: [AtomicU32; 2],
    /// When it was opened, seconds. Written while WRITING.
    opened: AtomicU32,
    /// Number of the port where it came in. Written while WRITING.
    port: AtomicU32,
    /// [`Packed::words`] of its answers. Written while WRITING.
    reply: [AtomicU64; 5],
    /// As in [`Found::identities`]. Written while WRITING.
    identities: [AtomicU64; 2],
    /// Zero.
    unused: AtomicU64,
}

const _: () = assert!(size_of::<Record>() == super::memory::RECORD);

/// A record as it was at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) word: Word,
    pub(super) original: Packed,
    pub(super) reply: Packed,
    pub(super) identities: [u64; 2],
    pub(super) port: PortId,
    pub(super) opened: u32,
    /// The later of the two.
    pub(super) seen: u32,
}

/// All records, numbered from 1. Chunks are asked for before their first record is taken, and stay.
#[derive(Debug)]
pub(super) struct Records {
    chunks: Box<[OnceLock<Kept<Record>>]>,
    provider: Box<dyn Provider>,
}

impl From<Box<dyn Provider>> for Records {
    fn from(provider: Box<dyn Provider>) -> Self {
        let chunks = std::iter::repeat_with(OnceLock::new).take((MOST_RECORDS / CHUNK) as usize).collect();
        Self { chunks, provider }
    }
}

fn load<const N: usize>(words: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|i| words.get(i).map_or(0, |word| word.load(Ordering::Relaxed)))
}

fn store<const N: usize>(words: &[AtomicU64; N], values: [u64; N]) {
    words.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
}

impl Records {
    #[inline]
    fn get(&self, slot: u32) -> Option<&Record> {
        self.chunks.get((slot / CHUNK) as usize)?.get()?.get((slot % CHUNK) as usize)
    }

    /// See to it that there is memory for this record. To be called without a lock: it may take a while.
    pub(super) fn provide(&self, slot: u32) -> bool {
        let number = slot / CHUNK;
        let Some(chunk) = self.chunks.get(number as usize) else { return false };
        if chunk.get().is_some() {
            return true;
        }
        let records = self.provider.chunk(number).and_then(Kept::<Record>::new);
        let Some(records) = records.filter(|records| records.len() == CHUNK as usize) else { return false };
        // Who was quicker has the same.
        let _ = chunk.set(records);
        true
    }

    /// Chunks that were there before this process was.
    pub(super) fn left(&self) -> u32 {
        self.provider.left()
    }

    /// What is left of [`Self::publish`] when its process dies within it.
    #[cfg(test)]
    pub(super) fn begin(&self, name: Name, original: &Packed, reply: Option<&Packed>) {
        let record = self.get(name.slot).unwrap();
        let status = Status { state: State::NONE, flags: 0 };
        let word = Word { life: Life::WRITING, status, incarnation: name.incarnation };
        record.word.store(word.pack(), Ordering::Relaxed);
        store(&record.original, original.words());
        reply.into_iter().for_each(|reply| store(&record.reply, reply.words()));
    }

    /// What was begun lives.
    #[cfg(test)]
    pub(super) fn let_live(&self, name: Name) {
        let record = self.get(name.slot).unwrap();
        let status = Status { state: State::NONE, flags: 0 };
        record.word.store(Word { life: Life::LIVE, status, incarnation: name.incarnation }.pack(), Ordering::Relaxed);
    }

    /// Let anything stand in a record.
    #[cfg(test)]
    pub(super) fn spoil(&self, slot: u32, words: [u64; 6]) {
        let record = self.get(slot).unwrap();
        let [word, rest @ ..] = words;
        record.word.store(word, Ordering::Relaxed);
        store(&record.original, rest);
        store(&record.reply, rest);
        record.seen[0].store(u32::MAX, Ordering::Relaxed);
        record.port.store(u32::MAX, Ordering::Relaxed);
    }

    /// Fill a free record, and let it live. The caller has the locks of both tuples' shards.
    pub(super) fn publish(&self, name: Name, plan: &Plan, original: &Packed, reply: &Packed, second: u32) {
        let Some(record) = self.get(name.slot) else { return };
        let status = Status { state: State::NONE, flags: 0 };
        let word = Word { life: Life::WRITING, status, incarnation: name.incarnation };
        record.word.store(word.pack(), Ordering::Relaxed);
        // Whoever reads anything of what is written now sees that it is being written.
        fence(Ordering::Release);
        store(&record.original, original.words());
        store(&record.reply, reply.words());
        store(&record.identities, plan.identities);
        record.opened.store(second, Ordering::Relaxed);
        record.port.store(u32::from(plan.port.0), Ordering::Relaxed);
        record.seen.iter().for_each(|seen| seen.store(second, Ordering::Relaxed));
        let status = Status::opening(plan.original.proto, plan.event);
        let word = Word { life: Life::LIVE, status, incarnation: name.incarnation };
        record.word.store(word.pack(), Ordering::Release);
    }

    /// What an earlier process left in a record. It is the last moment at which anything is believed that stands there: a record
    /// that nobody could have left is free.
    pub(super) fn take_over(&self, slot: u32, second: u32) -> Option<(Word, Reading)> {
        let record = self.get(slot)?;
        let word = Word::unpack(record.word.load(Ordering::Relaxed));
        for time in record.seen.iter().chain([&record.opened]) {
            // The clock is of the boot, as the memory is; what comes from the future came just now.
            time.fetch_min(second, Ordering::Relaxed);
        }
        let reading = Self::read_since(record, word)?;
        let is_packed = |packed: &Packed| Packed::of(&packed.tuple()) == *packed;
        let is_whole = is_packed(&reading.original) && is_packed(&reading.reply) && reading.original != reading.reply;
        is_whole.then_some((word, reading))
    }

    /// The word of a record if nobody can have it. One that was being filled when its process died had this incarnation.
    pub(super) fn clear(&self, slot: u32) -> u32 {
        let Some(record) = self.get(slot) else { return 0 };
        let word = Word::unpack(record.word.load(Ordering::Relaxed));
        if word.life == Life::FREE {
            return word.incarnation;
        }
        let incarnation = next(word.incarnation);
        self.free(Name { slot, incarnation: word.incarnation }, incarnation);
        incarnation
    }

    /// Nobody ever had this record.
    pub(super) fn is_virgin(&self, slot: u32) -> bool {
        self.get(slot).is_none_or(|record| record.word.load(Ordering::Relaxed) == 0)
    }

    /// The record is nobody's any more: nothing in the index names it, and the caller alone knows of it.
    pub(super) fn free(&self, name: Name, incarnation: u32) {
        if let Some(record) = self.get(name.slot) {
            let status = Status { state: State::NONE, flags: 0 };
            record.word.store(Word { life: Life::FREE, status, incarnation }.pack(), Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn word(&self, slot: u32) -> Option<Word> {
        self.get(slot).map(|record| Word::unpack(record.word.load(Ordering::Acquire)))
    }

    /// This tuple of the record is `packed`. The caller has the lock of the shard that names the record.
    #[inline]
    pub(super) fn holds(&self, slot: u32, direction: Direction, packed: &Packed) -> bool {
        self.get(slot).is_some_and(|record| match direction {
            Direction::Original => load(&record.original) == packed.words(),
            Direction::Reply => load(&record.reply) == packed.words(),
        })
    }

    /// A record as it is now, if it is in use.
    pub(super) fn read(&self, slot: u32) -> Option<Reading> {
        let record = self.get(slot)?;
        Self::read_since(record, Word::unpack(record.word.load(Ordering::Acquire)))
    }

    /// What a record has, if it was in use when its word was read, and nobody else has had it since.
    #[inline]
    fn read_since(record: &Record, word: Word) -> Option<Reading> {
        if word.life != Life::LIVE && word.life != Life::DEAD {
            return None;
        }
        let reading = Reading {
            word,
            original: Packed::from_words(load(&record.original)),
            reply: Packed::from_words(load(&record.reply)),
            identities: load(&record.identities),
            port: PortId(record.port.load(Ordering::Relaxed) as u16),
            opened: record.opened.load(Ordering::Relaxed),
            seen: record.seen.iter().map(|seen| seen.load(Ordering::Relaxed)).max()?,
        };
        // Pairs with the fence of `publish`: whoever read of what a later connection wrote reads its incarnation here.
        fence(Ordering::Acquire);
        let again = Word::unpack(record.word.load(Ordering::Relaxed));
        (again.incarnation == word.incarnation && again.life.0 >= Life::LIVE.0).then_some(reading)
    }

    /// The record of a connection by that name, alive or not.
    pub(super) fn read_named(&self, name: Name) -> Option<Reading> {
        self.read(name.slot).filter(|reading| reading.word.incarnation == name.incarnation)
    }

    /// Change the status of a live connection. Returns what it was and what it is; `None` if the name is another's now.
    #[inline]
    pub(super) fn alter(&self, name: Name, alter: impl Fn(u8, Status) -> Status) -> Option<(Status, Status)> {
        let record = self.get(name.slot)?;
        let mut old = record.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(old);
            if !word.is(Life::LIVE, name) {
                return None;
            }
            let proto = record.original.last().map_or(0, |rest| (rest.load(Ordering::Relaxed) >> 48) as u8);
            let status = alter(proto, word.status);
            if status == word.status {
                return Some((status, status));
            }
            let new = Word { status, ..word }.pack();
            match record.word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((word.status, status)),
                Err(now) => old = now,
            }
        }
    }

    /// Ask for the part of a record that [`Self::alter`] and [`Self::saw`] need.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(record) = self.get(slot) {
            prefetch(record);
        }
    }

    /// Packets of one direction were seen at this second. The caller looked whether the name is still its own.
    #[inline]
    pub(super) fn saw(&self, slot: u32, direction: Direction, second: u32) {
        let at = usize::from(direction == Direction::Reply);
        if let Some(seen) = self.get(slot).and_then(|record| record.seen.get(at))
            // One store a second, so that the line stays with its readers.
            && seen.load(Ordering::Relaxed) < second
        {
            seen.fetch_max(second, Ordering::Relaxed);
        }
    }

    /// A live connection dies, and is given these flags. Returns false if it is not alive: then somebody else saw to it.
    pub(super) fn die(&self, name: Name, flags: u8) -> bool {
        let Some(record) = self.get(name.slot) else { return false };
        let mut old = record.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(old);
            if !word.is(Life::LIVE, name) {
                return false;
            }
            let status = Status { flags: word.status.flags | flags, ..word.status };
            let new = Word { life: Life::DEAD, status, ..word }.pack();
            match record.word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
    }

    /// The connection of a record, if it lives and was silent for too long. Reads the first half of the record only.
    #[inline]
    pub(super) fn silent(&self, slot: u32, second: u32, slack: u32) -> Option<Name> {
        let record = self.get(slot)?;
        let word = Word::unpack(record.word.load(Ordering::Relaxed));
        if word.life != Life::LIVE {
            return None;
        }
        let seen = record.seen.iter().map(|seen| seen.load(Ordering::Relaxed)).max()?;
        // No timeout is shorter.
        if second.saturating_sub(seen) < 10 {
            return None;
        }
        let proto = (record.original.last()?.load(Ordering::Relaxed) >> 48) as u8;
        let lasted = seen.saturating_sub(record.opened.load(Ordering::Relaxed));
        let timeout = word.status.timeout(proto, lasted).saturating_add(slack);
        (second.saturating_sub(seen) >= timeout).then_some(Name { slot, incarnation: word.incarnation })
    }
}

impl Reading {
    /// As a packet of this direction finds it.
    pub(super) fn found(&self, slot: u32, direction: Direction) -> Found {
        Found {
            name: Name { slot, incarnation: self.word.incarnation },
            direction,
            original: self.original.tuple(),
            reply: self.reply.tuple(),
            identities: self.identities,
            answered: self.word.status.is_answered(),
        }
    }

    pub(super) fn proto(&self) -> u8 {
        self.original.proto()
    }

    /// Seconds from its first packet to its last.
    pub(super) fn lasted(&self) -> u32 {
        self.seen.saturating_sub(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_while_a_record_changes_hands_reads_nothing() {
        use super::super::memory::Private;
        use super::super::tests::{ip, plan, tuple};

        let records = Records::from(Box::new(Private) as Box<dyn Provider>);
        assert!(records.provide(1));
        let publish = |incarnation: u32| {
            let original = tuple(17, (ip(0, 1), incarnation as u16), (ip(0, 2), 53));
            let (packed, reply) = (Packed::of(&original), Packed::of(&original.turned()));
            records.publish(Name { slot: 1, incarnation }, &plan(original), &packed, &reply, 0);
        };
        publish(0);
        let record = records.get(1).unwrap();
        let began = records.word(1).unwrap();
        assert!(Records::read_since(record, began).is_some());
        assert!(records.die(Name { slot: 1, incarnation: 0 }, 0));
        assert!(Records::read_since(record, began).is_some(), "the tuples of a dead one stand");
        records.free(Name { slot: 1, incarnation: 0 }, 1);
        assert!(Records::read_since(record, began).is_none());
        publish(1);
        assert!(Records::read_since(record, began).is_none());
        assert_eq!(records.read(1).map(|reading| reading.original.tuple().sport), Some(1));
    }
}
