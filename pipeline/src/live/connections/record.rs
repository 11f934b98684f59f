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

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use api::{BridgeId, PortId};

use super::states::{State, Status};
use super::{Direction, Found, Name, Plan, Tuple};
use crate::raw::prefetch;

/// Records that are allocated together: 512 KiB.
const CHUNK: u32 = 4096;
/// Records that there can be. What the table of chunks is made for.
pub(super) const MOST_RECORDS: u32 = 1 << 24;

/// A tuple as a record has it: addresses as IPv6 (RFC 4291, 2.5.5.2), and in `rest`, from the lowest bit on: source port
/// 16, destination port 16, zone 16, protocol 8, and a bit for either address that is IPv4 in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Packed {
    src: u128,
    dst: u128,
    rest: u64,
}

impl Packed {
    pub(super) fn of(tuple: &Tuple) -> Self {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 1),
            IpAddr::V6(address) => (address.to_bits(), 0),
        };
        let ((src, src4), (dst, dst4)) = (bits(tuple.src), bits(tuple.dst));
        let rest = u64::from(tuple.sport)
            | u64::from(tuple.dport) << 16
            | u64::from(tuple.zone.0) << 32
            | u64::from(tuple.proto) << 48
            | src4 << 56
            | dst4 << 57;
        Self { src, dst, rest }
    }

    pub(super) fn tuple(&self) -> Tuple {
        let address = |bits, is_v4| match Ipv6Addr::from_bits(bits) {
            address if is_v4 => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
            address => IpAddr::V6(address),
        };
        Tuple {
            zone: BridgeId((self.rest >> 32) as u16),
            proto: self.proto(),
            src: address(self.src, self.rest >> 56 & 1 != 0),
            dst: address(self.dst, self.rest >> 57 & 1 != 0),
            sport: self.rest as u16,
            dport: (self.rest >> 16) as u16,
        }
    }

    fn proto(&self) -> u8 {
        (self.rest >> 48) as u8
    }

    fn words(&self) -> [u64; 5] {
        [self.src as u64, (self.src >> 64) as u64, self.dst as u64, (self.dst >> 64) as u64, self.rest]
    }

    fn from_words([a, b, c, d, rest]: [u64; 5]) -> Self {
        Self { src: u128::from(b) << 64 | u128::from(a), dst: u128::from(d) << 64 | u128::from(c), rest }
    }
}

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

/// One record: 128 octets. What the scan for expired ones reads stands in the first half.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Record {
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

const _: () = assert!(size_of::<Record>() == 128);

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

/// All records, numbered from 1. Chunks are allocated when their first record is taken, and stay.
#[derive(Debug)]
pub(super) struct Records {
    chunks: Box<[OnceLock<Box<[Record]>>]>,
}

impl Default for Records {
    fn default() -> Self {
        Self { chunks: std::iter::repeat_with(OnceLock::new).take((MOST_RECORDS / CHUNK) as usize).collect() }
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

    /// Fill a free record, and let it live. The caller has the locks of both tuples' shards. Nothing is written before, so
    /// that the locks need not wait for memory.
    pub(super) fn publish(&self, name: Name, plan: &Plan, original: &Packed, reply: &Packed, second: u32) {
        let Some(chunk) = self.chunks.get((name.slot / CHUNK) as usize) else { return };
        let fresh = || std::iter::repeat_with(Record::default).take(CHUNK as usize).collect();
        let Some(record) = chunk.get_or_init(fresh).get((name.slot % CHUNK) as usize) else { return };
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
    fn a_tuple_is_the_same_after_it_was_packed() {
        let tuple = |src: &str, dst: &str| Tuple {
            zone: BridgeId(0xfffe),
            proto: 0xfd,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport: 0xfffc,
            dport: 0xfffb,
        };
        let addresses = ["10.1.2.3", "255.255.255.255", "0.0.0.0", "fd00::1", "::", "::ffff:10.1.2.3"];
        let mut seen = std::collections::BTreeMap::new();
        for (src, dst) in addresses.into_iter().flat_map(|src| addresses.map(|dst| (src, dst))) {
            let packed = Packed::of(&tuple(src, dst));
            assert_eq!(packed.tuple(), tuple(src, dst));
            assert_eq!(Packed::from_words(packed.words()), packed);
            assert_eq!(seen.insert(packed.words(), (src, dst)), None, "{src} {dst} is packed as another is");
        }
    }

    #[test]
    fn whoever_reads_while_a_record_changes_hands_reads_nothing() {
        use super::super::tests::{ip, plan, tuple};

        let records = Records::default();
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
