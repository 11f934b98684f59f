//! The flow cache of one worker: what was decided, by masked key.
//!
//! ```text
//!   bucket (one cache line)                              hot line              edits              cold lines
//!   set s: | 8 tags | 8 entry numbers | 8 standings |  → key, generation,   → new headers,   →  cells, totals,
//!                                                        action, guard,       checksum deltas   last use, trail,
//!                                                        counters             (if any)          connection
//! ```
//!
//! A key belongs to one set of eight. A look-up reads the set's line and then the hot line of the way whose tag
//! (sixteen bits of the hash) matches, and nothing else: two lines, whatever else an entry has. Entries are dense, so
//! memory is touched as it is needed. The edits of a flow whose headers change are a third line.
//!
//! *Growth* is linear hashing: when there are more than two entries a set, each insertion splits two sets, so no
//! look-up ever waits for a rehash. At two or three entries a set, fewer than one set in a thousand is full.
//!
//! *Eviction*: the way with the lowest standing goes. A new entry has standing 0 and rises with its second hit; the
//! sweep lowers those that are idle. So a scan of one-packet flows evicts itself.

use crate::burst::{Verdict, VlanEdit};
use crate::drop::DropReason;
use crate::live::connections::{Direction, Name};
use crate::probe::cells::{Cell, DEPS, Deps};
use crate::raw::{Memory, Table, match_tags, prefetch};
use crate::rewrite::edits::Edits;
use api::PortId;

/// Ways of a set.
pub const WAYS: usize = 8;
/// Standing of an entry that traffic used lately.
const STANDING_MAX: u8 = 3;
/// Frames of an entry by its second hit: the first one made it.
const SECOND_HIT: u32 = 3;
/// No entry.
pub const NONE: u32 = u32::MAX;
/// Sets among which an entry is sought for a set that has room when the cache has none.
const NEIGHBOURS: usize = 16;
/// Sets that a sweep has on their way.
const AHEAD: usize = 4;
/// Low hash bits that choose among the first sets; the eight bits above them are kept in the bucket.
const FIRST_BITS: u32 = 12;
/// Sets that a cache starts with.
const FIRST: usize = 1 << FIRST_BITS;

/// One set. Invariant: a way is taken exactly if its tag is not 0, and an entry is named by one way only.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bucket {
    /// The high sixteen bits of the hash, never 0; 0 where the way is free.
    pub tags: [u16; WAYS],
    /// The entries.
    entries: [u32; WAYS],
    /// The bits of the hash by which sets are split: bit 0 here is bit [`FIRST_BITS`] there.
    split: [u8; WAYS],
    /// 0 for a newcomer, more the better it is used.
    standing: [u8; WAYS],
}

/// What a hit reads and writes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Hot<const N: usize> {
    /// The masked key.
    pub key: [u64; N],
    /// The generation at which the decision was last known to stand.
    pub generation: u32,
    /// The verdict, see [`pack`].
    action: u32,
    /// What is done to the tag, see [`pack_vlan`], and in the top bits [`EDITED`], [`VOLATILE`], [`TRACKED`].
    vlan: u32,
    /// Guard: flags that must not be set in the low half; in the high half the largest size.
    pub guard: u32,
    /// Octets since the last sweep.
    pub bytes: u64,
    /// Frames since the last sweep.
    pub packets: u32,
    _pad: u32,
}

/// What only the sweep and a change look at.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Cold {
    /// The cells that the decision depends on.
    pub cells: [Cell; DEPS],
    /// Second of the last use.
    pub used: u32,
    /// What a hit must account to, see [`crate::probe::trail`].
    pub trail: u32,
    // The second line begins here: a change looks at the first only.
    /// Frames up to the last sweep.
    pub packets: u64,
    /// Octets up to the last sweep.
    pub bytes: u64,
    /// The connection that the decision rests on; slot 0 for none.
    pub connection: Name,
    /// Frames go the way of its answers.
    reply: u32,
}

impl Cold {
    /// The connection that the decision rests on, and which way its frames go.
    pub fn tracked(&self) -> Option<(Name, Direction)> {
        let direction = if self.reply == 0 { Direction::Original } else { Direction::Reply };
        (self.connection.slot != 0).then_some((self.connection, direction))
    }
}

/// What was decided, to be put into the cache.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// The verdict; never [`Verdict::Pending`].
    pub verdict: Verdict,
    /// What is done to the tag.
    pub vlan: VlanEdit,
    /// As in [`Hot::guard`].
    pub guard: u32,
    /// The cells asked.
    pub deps: Deps,
    /// As in [`Cold::trail`].
    pub trail: u32,
    /// What is done to the headers.
    pub edits: Edits,
    /// The connection that it rests on.
    pub connection: Option<(Name, Direction)>,
}

/// What an entry was used for since the last sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// There were frames.
    pub used: bool,
    /// There were frames beside the one that made the entry.
    pub hit: bool,
}

/// Entries of keys of `N` words.
#[derive(Debug)]
pub struct FlowCache<const N: usize> {
    buckets: Table<Bucket>,
    hot: Table<Hot<N>>,
    edits: Table<Edits>,
    cold: Table<Cold>,
    /// Sets in use; a power of two and the sets already split beyond it.
    sets: usize,
    /// The next power of two of `sets`, less one.
    mask: usize,
    /// Sets that there is memory for.
    limit: usize,
    /// Entries never used yet start here.
    fresh: u32,
    /// Entries used before and free now.
    free: Vec<u32>,
    len: usize,
    /// Breaks ties among equally low standings.
    turn: u32,
    /// Where the sweep goes on.
    hand: usize,
    /// Millionths of a set that the sweep still owes.
    owed: u64,
}

/// In [`Hot::vlan`]: the headers change.
const EDITED: u32 = 1 << 31;
/// In [`Hot::vlan`]: the decision asked volatile tables.
const VOLATILE: u32 = 1 << 30;
/// In [`Hot::vlan`]: the decision rests on a connection.
const TRACKED: u32 = 1 << 29;
/// In [`Hot::vlan`]: all of these.
const FLAGS: u32 = EDITED | VOLATILE | TRACKED;

const KIND_SHIFT: u32 = 28;
const PAYLOAD: u32 = (1 << KIND_SHIFT) - 1;

/// A verdict in one word: kind in the top four bits.
fn pack(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pending | Verdict::Taken => 0,
        Verdict::Drop(reason) => 1 << KIND_SHIFT | reason.index() as u32,
        Verdict::Output(port) => 2 << KIND_SHIFT | u32::from(port.0),
        Verdict::Multi(list) => 3 << KIND_SHIFT | list & PAYLOAD,
    }
}

#[inline]
fn unpack(action: u32) -> Verdict {
    let payload = action & PAYLOAD;
    if action >> KIND_SHIFT == 2 {
        return Verdict::Output(PortId(payload as u16));
    }
    unpack_rare(action >> KIND_SHIFT, payload)
}

#[inline(never)]
fn unpack_rare(kind: u32, payload: u32) -> Verdict {
    match kind {
        1 => DropReason::ALL.get(payload as usize).map_or(Verdict::Pending, |row| Verdict::Drop(row.0)),
        3 => Verdict::Multi(payload),
        _ => Verdict::Pending,
    }
}

/// A tag edit in one word: operation in the high half, VLAN id in the low half.
fn pack_vlan(edit: VlanEdit) -> u32 {
    match edit {
        VlanEdit::Keep => 0,
        VlanEdit::Pop => 1 << 16,
        VlanEdit::Push(vid) => 2 << 16 | u32::from(vid),
        VlanEdit::Set(vid) => 3 << 16 | u32::from(vid),
    }
}

#[inline]
fn unpack_vlan(vlan: u32) -> VlanEdit {
    if vlan == 0 { VlanEdit::Keep } else { unpack_vlan_edit(vlan) }
}

#[inline(never)]
fn unpack_vlan_edit(vlan: u32) -> VlanEdit {
    match vlan >> 16 {
        1 => VlanEdit::Pop,
        2 => VlanEdit::Push(vlan as u16),
        _ => VlanEdit::Set(vlan as u16),
    }
}

impl<const N: usize> Hot<N> {
    /// The verdict.
    #[inline]
    pub fn verdict(&self) -> Verdict {
        unpack(self.action)
    }

    /// What is done to the tag.
    #[inline]
    pub fn vlan(&self) -> VlanEdit {
        unpack_vlan(self.vlan & !FLAGS)
    }

    /// The headers change.
    #[inline]
    pub fn is_edited(&self) -> bool {
        self.vlan & EDITED != 0
    }

    /// It needs more than its verdict and tag: [`Self::is_edited`] or [`Self::is_tracked`].
    #[inline]
    pub fn is_special(&self) -> bool {
        self.vlan & (EDITED | TRACKED) != 0
    }

    /// The decision asked volatile tables, see [`crate::probe::cells::Moment::is_current`].
    #[inline]
    pub fn is_volatile(&self) -> bool {
        self.vlan & VOLATILE != 0
    }

    /// The decision rests on a connection.
    #[inline]
    pub fn is_tracked(&self) -> bool {
        self.vlan & TRACKED != 0
    }

    /// Since the last sweep there were frames beside the one that made the entry.
    pub fn was_hit(&self, cold: &Cold) -> bool {
        self.packets > u32::from(cold.packets == 0)
    }

    /// Count a frame. Returns true for the second hit: the first frame made the entry.
    #[inline]
    pub fn count(&mut self, octets: usize) -> bool {
        self.packets += 1;
        self.bytes += octets as u64;
        self.packets == SECOND_HIT
    }

    /// The decision holds for a frame with this guard word.
    #[inline]
    pub fn admits(&self, guard: u32) -> bool {
        (guard & self.guard & 0xffff) == 0 && guard >> 16 <= self.guard >> 16
    }
}

#[inline]
fn tag_of(hash: u64) -> u16 {
    // Never 0, which marks a free way.
    (hash >> 48) as u16 | 1
}

impl<const N: usize> FlowCache<N> {
    /// A cache of at most `entries` entries in memory that `memory` gives (zeroed, as many octets as asked for).
    pub fn new(entries: usize, memory: &mut dyn FnMut(usize) -> Box<dyn Memory>) -> Self {
        let limit = (entries / 2).next_power_of_two().clamp(FIRST, FIRST << 8);
        let buckets = Table::new(memory(limit * size_of::<Bucket>()));
        let hot = Table::new(memory(entries * size_of::<Hot<N>>()));
        let edits = Table::new(memory(entries * size_of::<Edits>()));
        let cold = Table::new(memory(entries * size_of::<Cold>()));
        // What the memory really holds decides, not what was asked for.
        let limit = limit.min(buckets.len());
        let sets = FIRST.min(limit);
        Self {
            buckets,
            hot,
            edits,
            cold,
            sets,
            mask: sets.next_power_of_two() - 1,
            limit,
            fresh: 0,
            free: Vec::new(),
            len: 0,
            turn: 0,
            hand: 0,
            owed: 0,
        }
    }

    /// Live entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No live entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The set of a hash: its low bits, as many as the sets that exist have.
    #[inline]
    fn set_of(&self, hash: u64) -> usize {
        let set = hash as u32 as usize & self.mask;
        if set < self.sets { set } else { set & (self.mask >> 1) }
    }

    /// Ask for the line of a hash's set. Returns the set for [`Self::candidate`].
    #[inline]
    pub fn prefetch_set(&self, hash: u64) -> u32 {
        let set = self.set_of(hash);
        if let Some(bucket) = self.buckets.get(set) {
            prefetch(bucket);
        }
        set as u32
    }

    /// The first entry of `set` whose tag matches, its line asked for; [`NONE`] if there is none.
    #[inline]
    pub fn candidate(&self, set: u32, hash: u64) -> u32 {
        let Some(bucket) = self.buckets.get(set as usize) else { return NONE };
        let found = match_tags(&bucket.tags, tag_of(hash));
        let Some(&entry) = bucket.entries.get(found.trailing_zeros() as usize) else { return NONE };
        if let Some(hot) = self.hot.get(entry as usize) {
            prefetch(hot);
            if size_of::<Hot<N>>() > 64 {
                // Longer keys: what the hit needs is behind them.
                prefetch(&raw const hot.generation);
            }
        }
        entry
    }

    /// The hot line of an entry.
    #[inline]
    pub fn hot(&mut self, entry: u32) -> Option<&mut Hot<N>> {
        self.hot.get_mut(entry as usize)
    }

    /// Ask for the edits of an entry.
    #[inline]
    pub fn prefetch_edits(&self, entry: u32) {
        if let Some(edits) = self.edits.get(entry as usize) {
            prefetch(edits);
        }
    }

    /// The edits of an entry that [`Hot::is_edited`].
    #[inline]
    pub fn edits(&self, entry: u32) -> Option<&Edits> {
        self.edits.get(entry as usize)
    }

    /// The cold lines of an entry.
    #[inline]
    pub fn cold(&self, entry: u32) -> Option<&Cold> {
        self.cold.get(entry as usize)
    }

    /// Set, way and entry of a key.
    fn place(&self, key: &[u64; N], hash: u64) -> Option<(usize, usize, u32)> {
        let set = self.set_of(hash);
        let bucket = self.buckets.get(set)?;
        let mut found = match_tags(&bucket.tags, tag_of(hash));
        while found != 0 {
            let way = found.trailing_zeros() as usize;
            let entry = *bucket.entries.get(way)?;
            if self.hot.get(entry as usize)?.key == *key {
                return Some((set, way, entry));
            }
            found &= found - 1;
        }
        None
    }

    /// The entry of a key, found without the burst: re-probe after a walk, and sets with two equal tags.
    pub fn find(&self, key: &[u64; N], hash: u64) -> Option<u32> {
        self.place(key, hash).map(|(_, _, entry)| entry)
    }

    /// An entry was hit for the second time: it is no newcomer any more.
    #[cold]
    pub fn promote(&mut self, key: &[u64; N], hash: u64) {
        if let Some((set, way, _)) = self.place(key, hash)
            && let Some(standing) = self.buckets.get_mut(set).and_then(|bucket| bucket.standing.get_mut(way))
        {
            *standing = (*standing).max(STANDING_MAX - 1);
        }
    }

    /// Put a decision in, in place of an older one of the same key or of the entry with the lowest standing. Returns
    /// the entry, and calls `evicted` with an older one before it is overwritten.
    pub fn insert(
        &mut self,
        key: [u64; N],
        hash: u64,
        generation: u32,
        second: u32,
        decision: &Decision,
        evicted: &mut dyn FnMut(&Hot<N>, &Cold),
    ) -> u32 {
        for _ in 0..2 {
            // A round of splits that has begun is gone through with: sets not yet split are twice as full.
            let due = self.len > 2 * self.sets || !self.sets.is_power_of_two();
            if due && self.sets < self.limit {
                self.split();
            }
        }
        let (set, way) = match self.place(&key, hash) {
            Some((set, way, entry)) => {
                self.retire(entry, evicted);
                (set, way)
            }
            None => self.make_room(hash, evicted),
        };
        let room = self.room();
        let Some(bucket) = self.buckets.get_mut(set) else { return NONE };
        let (Some(tag), Some(number)) = (bucket.tags.get_mut(way), bucket.entries.get_mut(way)) else { return NONE };
        if *tag == 0 {
            let Some(fresh) = self.free.pop().or_else(|| {
                let fresh = self.fresh;
                ((fresh as usize) < room).then(|| {
                    self.fresh += 1;
                    fresh
                })
            }) else {
                return NONE;
            };
            *number = fresh;
            self.len += 1;
            if let (Some(split), Some(standing)) = (bucket.split.get_mut(way), bucket.standing.get_mut(way)) {
                (*split, *standing) = ((hash >> FIRST_BITS) as u8, 0);
            }
        }
        *tag = tag_of(hash);
        let entry = *number;
        let (Some(hot), Some(cold)) = (self.hot.get_mut(entry as usize), self.cold.get_mut(entry as usize)) else {
            return NONE;
        };
        let edited = !decision.edits.is_empty();
        *hot = Hot {
            key,
            generation,
            action: pack(decision.verdict),
            vlan: pack_vlan(decision.vlan)
                | if edited { EDITED } else { 0 }
                | if decision.deps.is_volatile() { VOLATILE } else { 0 }
                | if decision.connection.is_some() { TRACKED } else { 0 },
            guard: decision.guard,
            bytes: 0,
            packets: 0,
            _pad: 0,
        };
        let (connection, direction) = decision.connection.unwrap_or_else(|| (Name::default(), Direction::Original));
        *cold = Cold {
            cells: decision.deps.cells(),
            used: second,
            trail: decision.trail,
            packets: 0,
            bytes: 0,
            connection,
            reply: u32::from(direction == Direction::Reply),
        };
        if edited && let Some(edits) = self.edits.get_mut(entry as usize) {
            *edits = decision.edits;
        }
        entry
    }

    /// Entries that there is memory for.
    fn room(&self) -> usize {
        self.hot.len().min(self.edits.len()).min(self.cold.len())
    }

    fn retire(&self, entry: u32, evicted: &mut dyn FnMut(&Hot<N>, &Cold)) {
        if let (Some(hot), Some(cold)) = (self.hot.get(entry as usize), self.cold.get(entry as usize)) {
            evicted(hot, cold);
        }
    }

    /// A free way in the set of a hash, and an entry for it: where there is none, the worst of this set goes, or, if
    /// the set has room but the cache has not, the worst of the sets around.
    fn make_room(&mut self, hash: u64, evicted: &mut dyn FnMut(&Hot<N>, &Cold)) -> (usize, usize) {
        let set = self.set_of(hash);
        let has_room = self.buckets.get(set).is_some_and(|bucket| bucket.tags.contains(&0));
        let exhausted = self.free.is_empty() && self.fresh as usize >= self.room();
        if !has_room || exhausted {
            self.turn = self.turn.wrapping_add(1);
            let around = if has_room { self.sets.min(NEIGHBOURS) } else { 1 };
            let worst = (0..around)
                .map(|ahead| (set + ahead) % self.sets)
                .filter_map(|set| self.victim(set).map(|(standing, way)| (standing, set, way)))
                .min_by_key(|(standing, ..)| *standing);
            if let Some((_, set, way)) = worst {
                self.free_way(set, way, evicted);
            }
        }
        let free = self.buckets.get(set).and_then(|bucket| bucket.tags.iter().position(|&tag| tag == 0));
        (set, free.unwrap_or(0))
    }

    /// The lowest standing among the taken ways of a set, and its way.
    fn victim(&self, set: usize) -> Option<(u8, usize)> {
        let first = self.turn as usize;
        let bucket = self.buckets.get(set)?;
        (0..WAYS)
            .map(|i| (first + i) % WAYS)
            .filter(|&way| bucket.tags.get(way).is_some_and(|&tag| tag != 0))
            .filter_map(|way| bucket.standing.get(way).map(|&standing| (standing, way)))
            .min_by_key(|(standing, _)| *standing)
    }

    fn free_way(&mut self, set: usize, way: usize, evicted: &mut dyn FnMut(&Hot<N>, &Cold)) {
        let Some(bucket) = self.buckets.get_mut(set) else { return };
        let (Some(tag), Some(&entry)) = (bucket.tags.get_mut(way), bucket.entries.get(way)) else { return };
        if std::mem::take(tag) != 0 {
            self.len -= 1;
            self.free.push(entry);
            self.retire(entry, evicted);
        }
    }

    /// Linear hashing: the next set in turn gives those of its entries to a new set whose next hash bit is set.
    fn split(&mut self) {
        let new = self.sets;
        let bit = if new.is_power_of_two() { new } else { new.next_power_of_two() / 2 };
        let old = new - bit;
        let (Some(&from), Some(&to)) = (self.buckets.get(old), self.buckets.get(new)) else { return };
        let (mut from, mut to) = (from, to);
        let moves = (bit >> FIRST_BITS) as u8;
        for way in 0..WAYS {
            let goes = from.split.get(way).is_some_and(|split| split & moves != 0);
            if let (true, Some(tag), Some(new_tag)) = (goes, from.tags.get_mut(way), to.tags.get_mut(way)) {
                *new_tag = std::mem::take(tag);
            }
        }
        (to.entries, to.split, to.standing) = (from.entries, from.split, from.standing);
        if let Some(bucket) = self.buckets.get_mut(old) {
            *bucket = from;
        }
        if let Some(bucket) = self.buckets.get_mut(new) {
            *bucket = to;
        }
        self.sets += 1;
        self.mask = self.sets.next_power_of_two() - 1;
    }

    /// Take the entry of a key out.
    pub fn remove(&mut self, key: &[u64; N], hash: u64) {
        if let Some((set, way, _)) = self.place(key, hash) {
            self.free_way(set, way, &mut |_, _| ());
        }
    }

    /// Visit as many sets as `micros` are worth, when all are visited once a second: totals are brought up to date and
    /// standings follow use. `visit` is given each live entry, with its use since the last visit, and says whether it stays;
    /// `ahead` is told of connections that it will come to.
    pub fn sweep(
        &mut self,
        micros: u64,
        second: u32,
        ahead: &dyn Fn(Name),
        visit: &mut dyn FnMut(&mut Hot<N>, &mut Cold, Use) -> bool,
    ) {
        if self.len == 0 {
            return;
        }
        self.owed += self.sets as u64 * micros;
        let sets = (self.owed / 1_000_000) as usize;
        self.owed %= 1_000_000;
        for _ in 0..sets.min(self.sets) {
            let set = self.hand;
            self.hand = if set + 1 >= self.sets { 0 } else { set + 1 };
            self.look_ahead(set, ahead);
            let Some(bucket) = self.buckets.get_mut(set) else { continue };
            let ways = bucket.tags.iter_mut().zip(&bucket.entries).zip(&mut bucket.standing);
            for ((tag, &entry), standing) in ways {
                if *tag == 0 {
                    continue;
                }
                let (Some(hot), Some(cold)) = (self.hot.get_mut(entry as usize), self.cold.get_mut(entry as usize))
                else {
                    continue;
                };
                let (used, hit) = (hot.packets != 0, hot.was_hit(cold));
                if used {
                    cold.packets += u64::from(std::mem::take(&mut hot.packets));
                    cold.bytes += std::mem::take(&mut hot.bytes);
                    cold.used = second;
                    // A newcomer rises by its second hit only (the first frame made the entry), not by being swept.
                    *standing = if *standing == 0 && cold.packets < SECOND_HIT.into() { 0 } else { STANDING_MAX };
                } else {
                    *standing = standing.saturating_sub(1);
                }
                if !visit(hot, cold, Use { used, hit }) {
                    *tag = 0;
                    self.len -= 1;
                    self.free.push(entry);
                }
            }
        }
    }

    /// The entries of sets further on are on their way while a set is looked at, and so are their connections.
    fn look_ahead(&self, set: usize, connection: &dyn Fn(Name)) {
        let entries = |set: usize| {
            let bucket = self.buckets.get(set).into_iter();
            bucket.flat_map(|bucket| bucket.tags.iter().zip(&bucket.entries)).filter(|(tag, _)| **tag != 0)
        };
        for (_, &entry) in entries(set + 2 * AHEAD) {
            if let (Some(hot), Some(cold)) = (self.hot.get(entry as usize), self.cold.get(entry as usize)) {
                prefetch(hot);
                prefetch(cold);
                prefetch(&raw const cold.packets);
            }
        }
        for (_, &entry) in entries(set + AHEAD) {
            if let (Some(hot), Some(cold)) = (self.hot.get(entry as usize), self.cold.get(entry as usize))
                && hot.packets != 0
                && let Some((name, _)) = cold.tracked()
            {
                connection(name);
            }
        }
    }

    /// Forget everything.
    pub fn flush(&mut self, evicted: &mut dyn FnMut(&Hot<N>, &Cold)) {
        for set in 0..self.sets {
            for way in 0..WAYS {
                self.free_way(set, way, evicted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::HeapMemory;

    fn cache(entries: usize) -> FlowCache<4> {
        FlowCache::new(entries, &mut |octets| Box::new(HeapMemory::new(octets)))
    }

    fn hash(i: u64) -> u64 {
        let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0;
        x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    fn decision(i: u64) -> Decision {
        let verdict = Verdict::Output(PortId(i as u16));
        Decision {
            verdict,
            vlan: VlanEdit::Keep,
            guard: u32::MAX << 16,
            deps: Deps::default(),
            trail: 0,
            edits: Edits::default(),
            connection: None,
        }
    }

    fn put(cache: &mut FlowCache<4>, i: u64) -> u32 {
        cache.insert([i, 0, 0, 0], hash(i), 1, 0, &decision(i), &mut |_, _| ())
    }

    #[test]
    fn what_was_put_in_is_found_while_the_cache_grows() {
        let mut cache = cache(1 << 18);
        for i in 0..100_000 {
            put(&mut cache, i);
        }
        let lost = (0..100_000).filter(|&i| cache.find(&[i, 0, 0, 0], hash(i)).is_none()).count();
        assert!(
            lost < 100,
            "{lost} of 100,000 lost at a load of a half: sets overflow more often than chance explains"
        );
        for i in 0..100_000 {
            if let Some(entry) = cache.find(&[i, 0, 0, 0], hash(i)) {
                assert_eq!(cache.hot(entry).unwrap().verdict(), Verdict::Output(PortId(i as u16)));
            }
        }
        assert!(cache.len() <= 3 * cache.sets);
    }

    #[test]
    fn the_burst_finds_what_a_single_look_up_finds() {
        let mut cache = cache(1 << 16);
        for i in 0..10_000 {
            put(&mut cache, i);
        }
        for i in 0..20_000 {
            let set = cache.prefetch_set(hash(i));
            let entry = cache.candidate(set, hash(i));
            match cache.find(&[i, 0, 0, 0], hash(i)) {
                Some(_) => assert_ne!(entry, NONE),
                None => assert!(entry == NONE || cache.hot(entry).unwrap().key[0] != i),
            }
        }
    }

    #[test]
    fn a_scan_does_not_evict_what_is_in_use() {
        let mut cache = cache(8192);
        for i in 0..2000 {
            put(&mut cache, i);
            cache.promote(&[i, 0, 0, 0], hash(i));
        }
        for i in 0..1_000_000 {
            put(&mut cache, 1_000_000 + i);
        }
        let kept = (0..2000).filter(|&i| cache.find(&[i, 0, 0, 0], hash(i)).is_some()).count();
        assert!(kept >= 1990, "only {kept} of 2000 kept");
        assert!(cache.len() <= 8192);
    }

    #[test]
    fn the_sweep_folds_counters_once_and_visits_everything() {
        let mut cache = cache(8192);
        for i in 0..1000 {
            let entry = put(&mut cache, i);
            let hot = cache.hot(entry).unwrap();
            (hot.packets, hot.bytes) = (3, 180);
        }
        let mut totals = (0, 0, 0);
        for _ in 0..2 {
            cache.sweep(1_000_000, 7, &|_| (), &mut |_, cold, used| {
                totals.0 += 1;
                totals.1 += u32::from(used.used);
                totals.2 = cold.packets;
                assert_eq!(cold.used, 7);
                true
            });
        }
        assert_eq!(totals, (2000, 1000, 3));
        cache.sweep(1_000_000, 8, &|_| (), &mut |_, _, _| false);
        assert!(cache.is_empty());
    }

    #[test]
    fn actions_and_edits_survive_packing() {
        for verdict in [Verdict::Drop(DropReason::WalkTooLong), Verdict::Output(PortId(4095)), Verdict::Multi(77)] {
            assert_eq!(unpack(pack(verdict)), verdict);
        }
        for edit in [VlanEdit::Keep, VlanEdit::Pop, VlanEdit::Push(4095), VlanEdit::Set(0)] {
            assert_eq!(unpack_vlan(pack_vlan(edit)), edit);
        }
    }

    #[test]
    fn a_hot_line_of_a_four_word_key_is_one_cache_line_and_so_is_a_set() {
        assert_eq!((size_of::<Hot<4>>(), size_of::<Edits>(), size_of::<Bucket>()), (64, 64, 64));
        assert_eq!((size_of::<Cold>(), std::mem::offset_of!(Cold, packets)), (128, 64), "a change looks at one line");
    }
}
