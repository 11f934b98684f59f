//! The table against a plain one: a map of what lives and a list of what rests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::memory::inheritance::Inheritance;
use super::packed::Packed;
use super::states::{ICMP, UDP};
use super::tests::{at, ip, plan, tuple};
use super::*;
use crate::live::Live;
use crate::probe::cells::Asked;

/// What is done. Tuples are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Commit(Plan),
    Find(Tuple),
    Seen(Tuple),
    Kill(Tuple),
    Wait(u64),
    Expire,
    /// The process dies, maybe while it makes a connection, of which it had written one tuple or both.
    Die(Option<(Tuple, bool)>),
}

#[derive(Clone, Debug)]
struct Known {
    name: Name,
    original: Tuple,
    reply: Tuple,
    opened: u64,
    seen: u64,
    answered: bool,
    /// When it died.
    died: Option<u64>,
}

impl Known {
    fn has(&self, tuple: &Tuple) -> bool {
        self.original == *tuple || self.reply == *tuple
    }

    fn timeout(&self) -> u64 {
        match self.original.proto {
            UDP if self.answered && self.seen - self.opened > 2 => 120,
            UDP | ICMP => 30,
            _ => 600,
        }
    }
}

fn tuples() -> impl Strategy<Value = Tuple> {
    let end = || (1..4u8, 1..3u16);
    (prop_oneof![Just(UDP), Just(ICMP), Just(47)], end(), end()).prop_map(|(proto, src, dst)| {
        let (sport, dport) = match proto {
            UDP => (src.1, dst.1),
            ICMP => (src.1, src.1),
            _ => (0, 0),
        };
        tuple(proto, (ip(0, src.0), sport), (ip(0, dst.0), dport))
    })
}

fn plans() -> impl Strategy<Value = Plan> {
    (tuples(), proptest::option::of(1..4u8), any::<bool>()).prop_map(|(original, backend, masqueraded)| {
        let dst = backend.map_or((original.dst, original.dport), |last| (ip(0, last), original.dport));
        let src = if masqueraded { Source::Masquerade(ip(0, 3), (1, 2)) } else { Source::Own };
        Plan { dst, src, ..plan(original) }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => plans().prop_map(Step::Commit),
        2 => tuples().prop_map(Step::Find),
        2 => tuples().prop_map(Step::Seen),
        1 => tuples().prop_map(Step::Kill),
        2 => (0..20u64).prop_map(Step::Wait),
        1 => Just(Step::Expire),
        1 => proptest::option::of((tuples(), any::<bool>())).prop_map(Step::Die),
    ]
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let memory = Inheritance::default();
    let mut live = Live { connections: Connections::with(Box::new(memory.clone())), ..Live::default() };
    let mut known: Vec<Known> = Vec::new();
    let mut names: BTreeMap<u32, u32> = BTreeMap::new();
    let mut now = 1000;
    for step in steps {
        match step {
            Step::Commit(plan) => match live.connections.commit(&plan, at(now), &live.cells) {
                Committed::New(found) => {
                    prop_assert!(known.iter().all(|one| one.died.is_some() || !one.has(&plan.original)));
                    known.retain(|one| !one.has(&plan.original));
                    prop_assert!(known.iter().all(|one| !one.has(&found.reply)), "{found:?} of {known:?}");
                    prop_assert_ne!(found.reply, plan.original);
                    prop_assert_eq!((found.reply.src, found.original), (plan.dst.0, plan.original));
                    if let Source::Masquerade(address, (first, last)) = plan.src {
                        prop_assert_eq!(found.reply.dst, address);
                        let within = (first..=last).contains(&found.reply.dport);
                        prop_assert!(within || plan.original.proto != UDP);
                    }
                    // Who had the record before had it under a name before.
                    let before = names.insert(found.name.slot, found.name.incarnation);
                    prop_assert!(before.is_none_or(|before| before < found.name.incarnation));
                    known.push(Known {
                        name: found.name,
                        original: plan.original,
                        reply: found.reply,
                        opened: now,
                        seen: now,
                        answered: false,
                        died: None,
                    });
                }
                Committed::Lost => prop_assert!(known.iter().any(|one| one.died.is_none() && one.has(&plan.original))),
                Committed::NoPort => {
                    prop_assert!(plan.original.proto == 47 || matches!(plan.src, Source::Masquerade(..)));
                    // What rested under the original tuple may have gone already, or not.
                    if known.iter().any(|one| one.died.is_some() && one.has(&plan.original)) {
                        let there = |one: &Known| live.connections.records.read_named(one.name).is_some();
                        known.retain(there);
                    }
                }
                Committed::Full => prop_assert!(false, "there is room"),
            },
            Step::Find(tuple) => {
                let found = live
                    .connections
                    .find(&tuple, &mut Asked::new(&live.cells))
                    .map(|found| (found.name, found.answered));
                let expected = known.iter().find(|one| one.died.is_none() && one.has(&tuple));
                prop_assert_eq!(found, expected.map(|one| (one.name, one.answered)));
            }
            Step::Seen(tuple) => {
                if let Some(one) = known.iter_mut().find(|one| one.has(&tuple)) {
                    let reply = one.reply == tuple;
                    let direction = if reply { Direction::Reply } else { Direction::Original };
                    prop_assert_eq!(live.connections.seen(one.name, direction, at(now)), one.died.is_none());
                    if one.died.is_none() {
                        (one.seen, one.answered) = (now, one.answered || reply);
                    }
                }
            }
            Step::Kill(tuple) => {
                if let Some(one) = known.iter_mut().find(|one| one.has(&tuple)) {
                    live.connections.kill(one.name, at(now), &live.cells);
                    one.died = one.died.or(Some(now));
                }
            }
            Step::Wait(seconds) => now += seconds,
            Step::Expire => {
                let expired = live.connections.expire(at(now), usize::MAX);
                let before = known.len();
                known.retain(|one| one.died.is_none_or(|died| now - died <= 2));
                prop_assert_eq!(expired.freed, before - known.len());
                let silent = |one: &&mut Known| one.died.is_none() && now - one.seen >= one.timeout() + 2;
                let died = known.iter_mut().filter(silent).map(|one| one.died = Some(now)).count();
                prop_assert_eq!(expired.died, died);
            }
            Step::Die(within) => {
                if let Some((tuple, whole)) = within {
                    prop_assert!(live.connections.provide(0));
                    let name = live.connections.ledger.lock().admit(PortId(1), now as u32, |_| false).unwrap();
                    let (original, reply) = (Packed::of(&tuple), Packed::of(&tuple.turned()));
                    live.connections.records.begin(name, &original, whole.then_some(&reply));
                    names.insert(name.slot, name.incarnation);
                }
                let (connections, restored) = Connections::restore(Box::new(memory.clone()), at(now));
                live = Live { connections, ..Live::default() };
                let lives = known.iter().filter(|one| one.died.is_none()).count();
                prop_assert_eq!(restored, Restored { live: lives, resting: known.len() - lives, discarded: 0 });
                // They rest anew, and what was found at a tuple is what was there before.
                known.iter_mut().for_each(|one| one.died = one.died.map(|_| now));
                for one in known.iter().filter(|one| one.died.is_none()) {
                    for tuple in [one.original, one.reply] {
                        let found = live.connections.find(&tuple, &mut Asked::new(&live.cells)).unwrap();
                        prop_assert_eq!((found.name, found.original, found.reply), (one.name, one.original, one.reply));
                    }
                }
            }
        }
        prop_assert_eq!(live.connections.len(), known.iter().filter(|one| one.died.is_none()).count());
        prop_assert_eq!(live.connections.index.len(), 2 * known.len());
    }
    let mut listed: Vec<u32> = live.connections.list().iter().map(|view| view.name.slot).collect();
    let mut expected: Vec<u32> = known.iter().filter(|one| one.died.is_none()).map(|one| one.name.slot).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    prop_assert_eq!(listed, expected);
    Ok(())
}

proptest! {
    #[test]
    fn the_table_does_what_a_plain_one_does(steps in proptest::collection::vec(steps(), 1..200)) {
        check(steps)?;
    }
}
