//! Taking over what an earlier process left (FASTPATH 8): one scan of the records builds everything else.
//!
//! | left as | becomes |
//! |---|---|
//! | LIVE | the same connection, under the same name |
//! | DEAD | at rest from now on: how long it has rested is not known |
//! | WRITING | free: no packet had gone by it |
//! | FREE | free, of the incarnation it says |
//!
//! A tuple is never in two records that live or rest, since it is taken out of the index under the lock under which the
//! next one is put in. Should it be so all the same, the second one is free.

use super::ledger::Left;
use super::memory::{CHUNK, Provider};
use super::record::{Life, Reading, Word};
use super::table::Connections;
use super::{Name, index::Hashed};
use crate::live::Now;

/// What was found of an earlier process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Connections that go on.
    pub live: usize,
    /// Connections that had ended and rest.
    pub resting: usize,
    /// Records that made no sense, and are free.
    pub discarded: usize,
}

impl Connections {
    /// The connections in memory that `provider` gives.
    pub fn restore(provider: Box<dyn Provider>, now: Now) -> (Self, Restored) {
        let connections = Self::with(provider);
        let restored = connections.rebuild(now.second());
        (connections, restored)
    }

    fn rebuild(&self, second: u32) -> Restored {
        let mut restored = Restored::default();
        let chunks = (0..self.records.left()).take_while(|chunk| self.records.provide(chunk * CHUNK)).count() as u32;
        let last = (1..chunks * CHUNK).rev().find(|&slot| !self.records.is_virgin(slot)).unwrap_or(0);
        let mut ledger = self.ledger.lock();
        ledger.provided(chunks * CHUNK);
        let mut unanswered = Vec::new();
        for slot in 1..=last {
            let taken = self.records.take_over(slot, second);
            let left = match taken.filter(|(_, reading)| self.index_anew(slot, reading)) {
                Some((word, reading)) => {
                    let is_live = word.life == Life::LIVE;
                    if is_live && !word.status.is_answered() {
                        unanswered.push((reading.opened, slot));
                    }
                    restored.live += usize::from(is_live);
                    restored.resting += usize::from(!is_live);
                    let name = Name { slot, incarnation: word.incarnation };
                    if is_live { Left::Live(name, reading.port) } else { Left::Dead(name, reading.port, second) }
                }
                None => {
                    let is_in_use = |word: Word| word.life == Life::LIVE || word.life == Life::DEAD;
                    restored.discarded += usize::from(self.records.word(slot).is_some_and(is_in_use));
                    Left::Free(Name { slot, incarnation: self.records.clear(slot) })
                }
            };
            ledger.take_over(left);
        }
        unanswered.sort_unstable();
        unanswered.into_iter().for_each(|(_, slot)| ledger.unanswered(slot));
        restored
    }

    /// Put a record into the index; false if one of its tuples is another's.
    fn index_anew(&self, slot: u32, reading: &Reading) -> bool {
        let (original, reply) = (Hashed::from(reading.original), Hashed::from(reading.reply));
        let mut shards = self.index.lock_both(original.at(), reply.at());
        let is_new = [&original, &reply].into_iter().all(|tuple| shards.find(tuple, &self.records).is_none());
        if is_new {
            shards.insert(slot, &self.index);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::inheritance::Inheritance;
    use super::super::packed::Packed;
    use super::super::states::{TCP, UDP};
    use super::super::tests::{at, ip, plan, tuple};
    use super::super::{Committed, Direction, Event, Limits, Plan, Source, Tuple};
    use std::net::IpAddr;

    use api::PortId;

    use super::*;
    use crate::live::Live;
    use crate::probe::cells::Asked;

    fn live(connections: Connections) -> Live {
        Live { connections, ..Live::default() }
    }

    fn udp(sport: u16) -> Tuple {
        tuple(UDP, (ip(0, 1), sport), (ip(0, 2), 53))
    }

    fn commit(live: &Live, plan: &Plan, second: u64) -> Committed {
        live.connections.commit(plan, at(second), &live.cells)
    }

    fn make(live: &Live, plan: &Plan, second: u64) -> Name {
        match commit(live, plan, second) {
            Committed::New(found) => found.name,
            other => panic!("{plan:?}: {other:?}"),
        }
    }

    fn finds(live: &Live, tuple: Tuple) -> bool {
        live.connections.find(&tuple, &mut Asked::new(&live.cells)).is_some()
    }

    fn again(memory: &Inheritance, second: u64) -> (Live, Restored) {
        let (connections, restored) = Connections::restore(Box::new(memory.clone()), at(second));
        (live(connections), restored)
    }

    #[test]
    fn memory_that_nobody_used_holds_no_connection() {
        let memory = Inheritance::default();
        assert_eq!(again(&memory, 5).1, Restored::default());
        assert!(again(&memory, 5).0.connections.is_empty());
    }

    #[test]
    fn a_connection_is_the_same_after_its_table_was_built_anew() {
        let memory = Inheritance::default();
        let before = again(&memory, 0).0;
        let event = Event { flags: 2 };
        let original = tuple(TCP, (ip(0, 1), 40_000), (ip(9, 1), 80));
        let plan = Plan { dst: (ip(0, 7), 8080), identities: [7, 9], port: PortId(3), event, ..plan(original) };
        let name = make(&before, &plan, 100);
        before.connections.advance(name, Direction::Reply, Event { flags: 0x12 }, at(101));
        before.connections.advance(name, Direction::Original, Event { flags: 0x10 }, at(102));
        let expected = before.connections.list();
        assert_eq!((expected[0].state, expected[0].answered), ("ESTABLISHED", true));
        drop(before);
        let (after, restored) = again(&memory, 103);
        assert_eq!(restored, Restored { live: 1, ..Restored::default() });
        assert_eq!(after.connections.list(), expected);
        // It goes on where it was, and is forgotten when it would have been.
        assert!(after.connections.seen(name, Direction::Reply, at(110)));
        assert_eq!(commit(&after, &plan, 111), Committed::Lost);
    }

    #[test]
    fn a_translated_port_that_is_taken_stays_taken() {
        let memory = Inheritance::default();
        let before = again(&memory, 0).0;
        let from = |sport| Plan { src: Source::Masquerade(ip(5, 5), (7, 7)), ..plan(udp(sport)) };
        make(&before, &from(1), 0);
        let after = again(&memory, 0).0;
        assert_eq!(commit(&after, &from(2), 0), Committed::NoPort);
    }

    #[test]
    fn a_port_at_its_share_is_at_its_share_afterwards_and_its_oldest_goes_first() {
        let memory = Inheritance::default();
        let before = again(&memory, 0).0;
        let limits = Limits { total: 6400, unanswered: 3 };
        before.connections.configure(limits);
        // Slots and ages run against each other.
        let names: Vec<Name> = (0..3).map(|i| make(&before, &plan(udp(i)), 30 - u64::from(i))).collect();
        let after = again(&memory, 40).0;
        after.connections.configure(limits);
        assert_eq!(names.iter().map(|name| name.slot).collect::<Vec<_>>(), [1, 2, 3]);
        make(&after, &plan(udp(9)), 40);
        assert_eq!([0, 1, 2, 9].map(|sport| finds(&after, udp(sport))), [true, true, false, true]);
    }

    #[test]
    fn one_that_ended_rests_again_and_its_name_is_not_used_again() {
        let memory = Inheritance::default();
        let before = again(&memory, 0).0;
        let name = make(&before, &plan(udp(1)), 0);
        before.connections.kill(name, at(0), &before.cells);
        let (after, restored) = again(&memory, 10);
        assert_eq!(restored, Restored { resting: 1, ..Restored::default() });
        assert_eq!(after.connections.expire(at(12), usize::MAX).freed, 0);
        assert_eq!(after.connections.expire(at(13), usize::MAX).freed, 1);
        let next = make(&after, &plan(udp(2)), 13);
        assert_eq!(next, Name { slot: name.slot, incarnation: name.incarnation + 1 });
        // A record that was free keeps its count, too.
        after.connections.kill(next, at(13), &after.cells);
        after.connections.expire(at(20), usize::MAX);
        assert_eq!(make(&again(&memory, 20).0, &plan(udp(3)), 20).incarnation, name.incarnation + 2);
    }

    #[test]
    fn what_comes_from_the_future_was_seen_just_now() {
        let memory = Inheritance::default();
        make(&again(&memory, 0).0, &plan(udp(1)), 1_000_000);
        let after = again(&memory, 10).0;
        assert_eq!(after.connections.list()[0].seen, 10);
        assert_eq!(after.connections.expire(at(10 + 33), usize::MAX).died, 1);
    }

    #[test]
    fn records_that_nobody_could_have_left_are_free() {
        let memory = Inheritance::default();
        let before = again(&memory, 0).0;
        let names: Vec<Name> = (0..200).map(|i| make(&before, &plan(udp(i)), 0)).collect();
        let mut random = 1u64;
        for name in &names[..199] {
            let words = std::array::from_fn(|i| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Life, of the first word: one of those that there are, mostly.
                if i == 0 { random >> 8 << 8 | random >> 40 & 7 } else { random }
            });
            before.connections.records.spoil(name.slot, words);
        }
        // A tuple that two have.
        make(&before, &plan(udp(300)), 0);
        let twin = Packed::of(&udp(199));
        before.connections.records.begin(names[0], &twin, Some(&Packed::of(&udp(199).turned())));
        before.connections.records.let_live(names[0]);
        let (after, restored) = again(&memory, 0);
        assert!(restored.discarded > 10, "{restored:?}");
        assert_eq!((restored.live, restored.resting), (2, 0), "{restored:?}");
        // The first of the twins is the one that stays; it is a whole connection.
        assert!(finds(&after, udp(199)) && finds(&after, udp(199).turned()) && finds(&after, udp(300)));
        assert_eq!(after.connections.index.len(), 4);
        assert_eq!(after.connections.expire(at(1), usize::MAX).scanned, 201);
        (1000..1199).for_each(|sport| _ = make(&after, &plan(udp(sport)), 1));
        assert_eq!(after.connections.len(), 201);
    }

    #[test]
    fn a_table_without_memory_is_full_for_now() {
        let memory = Inheritance { limit: Some(1), ..Inheritance::default() };
        let (connections, _) = Connections::restore(Box::new(memory), at(0));
        let live = live(connections);
        let many = |i: u32| plan(tuple(UDP, (IpAddr::from([10, 1, (i >> 8) as u8, i as u8]), 7), (ip(0, 2), 53)));
        let made = (0..6000).take_while(|&i| matches!(commit(&live, &many(i), 0), Committed::New(_))).count();
        assert_eq!(made, 4095);
        assert_eq!(commit(&live, &many(6000), 0), Committed::Full);
        live.connections.kill_where(&|_| true, at(0), &live.cells);
        live.connections.expire(at(3), usize::MAX);
        make(&live, &many(6001), 3);
    }
}
