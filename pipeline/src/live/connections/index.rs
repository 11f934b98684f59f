//! The index: from tuples to records. Private to the process, and built from the records.
//!
//! It is divided into shards by hash, each behind a lock of its own. Both tuples of a connection are in it. An operation
//! over both takes both locks, the shard of the lower number first.

use ahash::RandomState;
use crossbeam::utils::CachePadded;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::Direction;
use super::record::{Packed, Records};

/// So many that two workers seldom want the same.
const SHARDS: usize = 256;

/// Where in the index a tuple belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    shard: usize,
    /// What of the hash the entry keeps, so that neither growth nor most comparisons look at a record.
    tag: u32,
}

/// One tuple of one record: eight octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Number of the record, and in the lowest bit the direction.
    tuple: u32,
    tag: u32,
}

impl Entry {
    fn new(slot: u32, direction: Direction, at: At) -> Self {
        Self { tuple: slot << 1 | u32::from(direction == Direction::Reply), tag: at.tag }
    }

    fn slot(self) -> u32 {
        self.tuple >> 1
    }

    fn direction(self) -> Direction {
        if self.tuple & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// One shard, locked.
#[derive(Debug, Default)]
pub(super) struct Shard(HashTable<Entry>);

/// The hash table takes its bucket from the low bits and its tag from the high ones.
fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

impl Shard {
    /// The record that has this tuple, and which of its tuples it is.
    #[inline]
    pub(super) fn find(&self, at: At, packed: &Packed, records: &Records) -> Option<(u32, Direction)> {
        let same = |entry: &Entry| entry.tag == at.tag && records.holds(entry.slot(), entry.direction(), packed);
        self.0.find(spread(at.tag), same).map(|entry| (entry.slot(), entry.direction()))
    }

    fn insert(&mut self, at: At, slot: u32, direction: Direction) {
        self.0.insert_unique(spread(at.tag), Entry::new(slot, direction, at), |entry| spread(entry.tag));
    }

    fn remove(&mut self, at: At, slot: u32, direction: Direction) {
        let entry = Entry::new(slot, direction, at);
        if let Ok(found) = self.0.find_entry(spread(at.tag), |other| *other == entry) {
            found.remove();
        }
    }
}

/// The shards of both tuples of a connection, locked. They may be one.
#[derive(Debug)]
pub(super) struct Both<'a> {
    original: At,
    reply: At,
    lower: MutexGuard<'a, Shard>,
    higher: Option<MutexGuard<'a, Shard>>,
}

impl Both<'_> {
    fn shard(&self, at: At) -> &Shard {
        match &self.higher {
            Some(higher) if at.shard > self.original.shard.min(self.reply.shard) => higher,
            _ => &self.lower,
        }
    }

    fn shard_mut(&mut self, at: At) -> &mut Shard {
        match &mut self.higher {
            Some(higher) if at.shard > self.original.shard.min(self.reply.shard) => higher,
            _ => &mut self.lower,
        }
    }

    /// Who has this tuple, one of the two.
    pub(super) fn find(&self, at: At, packed: &Packed, records: &Records) -> Option<(u32, Direction)> {
        self.shard(at).find(at, packed, records)
    }

    /// Both tuples are this record's.
    pub(super) fn insert(&mut self, slot: u32) {
        let (original, reply) = (self.original, self.reply);
        self.shard_mut(original).insert(original, slot, Direction::Original);
        self.shard_mut(reply).insert(reply, slot, Direction::Reply);
    }

    /// Neither tuple is this record's any more.
    pub(super) fn remove(&mut self, slot: u32) {
        let (original, reply) = (self.original, self.reply);
        self.shard_mut(original).remove(original, slot, Direction::Original);
        self.shard_mut(reply).remove(reply, slot, Direction::Reply);
    }
}

/// All shards.
#[derive(Debug)]
pub(super) struct Index {
    /// Random keys: nobody outside can aim at a shard.
    hasher: RandomState,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// What is locked for a tuple that has no shard: there is none such.
    spare: Mutex<Shard>,
}

impl Default for Index {
    fn default() -> Self {
        let shards = std::iter::repeat_with(CachePadded::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards, spare: Mutex::default() }
    }
}

impl Index {
    #[inline]
    pub(super) fn at(&self, packed: &Packed) -> At {
        let hash = self.hasher.hash_one(packed);
        At { shard: (hash >> 32) as usize % SHARDS, tag: hash as u32 }
    }

    /// Another number for each seed and packet, that nobody outside can tell beforehand.
    pub(super) fn random(&self, packed: &Packed, seed: (u128, u32)) -> u64 {
        self.hasher.hash_one((packed, seed))
    }

    fn shard(&self, number: usize) -> &Mutex<Shard> {
        self.shards.get(number).map_or(&self.spare, |shard| shard)
    }

    #[inline]
    pub(super) fn lock(&self, at: At) -> MutexGuard<'_, Shard> {
        self.shard(at.shard).lock()
    }

    pub(super) fn lock_both(&self, original: At, reply: At) -> Both<'_> {
        let (low, high) = (original.shard.min(reply.shard), original.shard.max(reply.shard));
        let lower = self.shard(low).lock();
        let higher = (high != low).then(|| self.shard(high).lock());
        Both { original, reply, lower, higher }
    }

    /// Tuples in the index.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().0.len()).sum()
    }
}
