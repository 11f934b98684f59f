//! The index: from tuples to records. Private to the process, and built from the records.
//!
//! It is divided into shards by hash, each behind a lock of its own. Both tuples of a connection are in it. An operation
//! over both takes both locks, the shard of the lower number first.
//!
//! A shard is an array of buckets, a line of memory each. An entry is in the bucket that its tag names, or behind it if
//! that one was full; a bucket counts the entries that had to go on, so that a search ends where nobody went on. What is not
//! there is thus mostly told by one line, which can be asked for beforehand ([`Index::prefetch`]).

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use super::packed::Packed;
use super::record::Records;
use super::table::NAME;
use super::{Direction, Tuple};
use crate::probe::cells::{Asked, Cell, Cells, hasher};
use crate::raw::prefetch;

/// So many that two workers seldom want the same.
const SHARDS: usize = 256;
/// Entries of a bucket.
const ENTRIES: usize = 7;
/// Entries for each bucket, on average, before there are twice as many buckets.
const FILL: usize = 5;

/// Where in the index a tuple belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    shard: usize,
    /// What of the hash the entry keeps, so that neither growth nor most comparisons look at a record.
    tag: u32,
}

/// A tuple with its hash, from which its place here and the cell of the question for it follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed {
    pub(super) packed: Packed,
    /// As [`hasher`] has it.
    hash: u64,
}

impl From<Packed> for Hashed {
    #[inline]
    fn from(packed: Packed) -> Self {
        Self { packed, hash: hasher().hash_one(packed) }
    }
}

impl Hashed {
    #[inline]
    pub(super) fn of(tuple: &Tuple) -> Self {
        Self::from(Packed::of(tuple))
    }

    #[inline]
    pub(super) fn at(&self) -> At {
        At { shard: (self.hash >> 32) as usize % SHARDS, tag: self.hash as u32 }
    }

    pub(super) fn cell(&self, cells: &Cells) -> Cell {
        cells.cell_hashed(NAME, self.hash)
    }

    /// That there is a connection of this tuple, or none, is asked.
    pub(super) fn note(&self, asked: &mut Asked<'_>) {
        asked.note_hashed(NAME, self.hash);
    }

    /// Another number for each seed, that nobody outside can tell beforehand.
    pub(super) fn random(&self, seed: (u128, u32)) -> u64 {
        hasher().hash_one((self.hash, seed))
    }
}

/// One tuple of one record: eight octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Number of the record, and in the lowest bit the direction. 0: the place is free, since records count from 1.
    tuple: u32,
    tag: u32,
}

impl Entry {
    fn new(slot: u32, direction: Direction, at: At) -> Self {
        Self { tuple: slot << 1 | u32::from(direction == Direction::Reply), tag: at.tag }
    }

    fn is_free(self) -> bool {
        self.tuple == 0
    }

    fn slot(self) -> u32 {
        self.tuple >> 1
    }

    fn direction(self) -> Direction {
        if self.tuple & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// A line of entries.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    entries: [Entry; ENTRIES],
    /// Entries that would be here, or before, and found no place.
    passed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// One shard, locked.
#[derive(Debug)]
pub(super) struct Shard {
    /// A power of two.
    buckets: Vec<Bucket>,
    entries: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { buckets: vec![Bucket::default()], entries: 0 }
    }
}

impl Shard {
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.buckets.len() - 1)
    }

    /// The buckets behind one another from the one that a tag names.
    fn buckets_of(&self, tag: u32) -> impl Iterator<Item = usize> + use<> {
        let (home, buckets) = (self.home(tag), self.buckets.len());
        (0..buckets).map(move |i| (home + i) & (buckets - 1))
    }

    /// The record that has this tuple, and which of its tuples it is.
    #[inline]
    pub(super) fn find(&self, hashed: &Hashed, records: &Records) -> Option<(u32, Direction)> {
        let tag = hashed.at().tag;
        for number in self.buckets_of(tag) {
            let bucket = self.buckets.get(number)?;
            let holds = |entry: &Entry| records.holds(entry.slot(), entry.direction(), &hashed.packed);
            let same = |entry: &&Entry| entry.tag == tag && !entry.is_free() && holds(entry);
            if let Some(entry) = bucket.entries.iter().find(same) {
                return Some((entry.slot(), entry.direction()));
            }
            if bucket.passed == 0 {
                return None;
            }
        }
        None
    }

    /// Returns whether the buckets are others now.
    fn insert(&mut self, at: At, slot: u32, direction: Direction) -> bool {
        let doubles = self.entries >= FILL * self.buckets.len();
        if doubles {
            self.double();
        }
        self.entries += 1;
        self.put(Entry::new(slot, direction, at));
        doubles
    }

    /// There is a free place somewhere.
    fn put(&mut self, entry: Entry) {
        for number in self.buckets_of(entry.tag) {
            let Some(bucket) = self.buckets.get_mut(number) else { return };
            if let Some(place) = bucket.entries.iter_mut().find(|entry| entry.is_free()) {
                *place = entry;
                return;
            }
            bucket.passed += 1;
        }
    }

    fn double(&mut self) {
        let twice = vec![Bucket::default(); self.buckets.len() * 2];
        let before = std::mem::replace(&mut self.buckets, twice);
        before
            .iter()
            .flat_map(|bucket| bucket.entries)
            .filter(|entry| !entry.is_free())
            .for_each(|entry| self.put(entry));
    }

    fn remove(&mut self, at: At, slot: u32, direction: Direction) {
        let entry = Entry::new(slot, direction, at);
        let place = |bucket: &Bucket| bucket.entries.iter().position(|other| *other == entry);
        let found = |number: usize| self.buckets.get(number).and_then(place).map(|place| (number, place));
        let Some((last, place)) = self.buckets_of(at.tag).find_map(found) else { return };
        for number in self.buckets_of(at.tag).take_while(|number| *number != last) {
            if let Some(bucket) = self.buckets.get_mut(number) {
                bucket.passed -= 1;
            }
        }
        if let Some(place) = self.buckets.get_mut(last).and_then(|bucket| bucket.entries.get_mut(place)) {
            *place = Entry::default();
            self.entries -= 1;
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
    pub(super) fn find(&self, hashed: &Hashed, records: &Records) -> Option<(u32, Direction)> {
        self.shard(hashed.at()).find(hashed, records)
    }

    /// Both tuples are this record's.
    pub(super) fn insert(&mut self, slot: u32, index: &Index) {
        for (at, direction) in [(self.original, Direction::Original), (self.reply, Direction::Reply)] {
            let shard = self.shard_mut(at);
            if shard.insert(at, slot, direction)
                && let Some((buckets, number)) = index.hints.get(at.shard)
            {
                buckets.store(shard.buckets.as_mut_ptr(), Ordering::Relaxed);
                number.store(shard.buckets.len() as u32, Ordering::Relaxed);
            }
        }
    }

    /// Neither tuple is this record's any more.
    pub(super) fn remove(&mut self, slot: u32) {
        let (original, reply) = (self.original, self.reply);
        self.shard_mut(original).remove(original, slot, Direction::Original);
        self.shard_mut(reply).remove(reply, slot, Direction::Reply);
    }
}

/// All shards. The hash of tuples has random keys: nobody outside can aim at a shard, or at a bucket.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Where the buckets of each shard are, and how many, for those who only want them prefetched: no lock, and maybe out of
    /// date.
    hints: Box<[(AtomicPtr<Bucket>, AtomicU32)]>,
    /// What is locked for a tuple that has no shard: there is none such.
    spare: Mutex<Shard>,
}

impl Default for Index {
    fn default() -> Self {
        let shards = std::iter::repeat_with(CachePadded::default).take(SHARDS).collect();
        let hints = std::iter::repeat_with(Default::default).take(SHARDS).collect();
        Self { shards, hints, spare: Mutex::default() }
    }
}

impl Index {
    /// A tuple that belongs here will be asked for soon.
    #[inline]
    pub(super) fn prefetch(&self, at: At) {
        if let Some((buckets, number)) = self.hints.get(at.shard) {
            let home = at.tag & number.load(Ordering::Relaxed).wrapping_sub(1);
            prefetch(buckets.load(Ordering::Relaxed).wrapping_add(home as usize));
        }
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
        self.shards.iter().map(|shard| shard.lock().entries).sum()
    }
}
