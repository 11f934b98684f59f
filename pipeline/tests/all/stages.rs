//! Stages that the switch has not yet: decisions by fields of every key class, walks that enter an earlier stage, walks
//! that never end. What they share with the real ones is the contract of `resolve::stage`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};

use api::{Change, Delta, Port, PortId, Vlan};
use pipeline::burst::VlanEdit;
use pipeline::drop::DropReason as Reason;
use pipeline::key::{Class, Field, FlowKey, KeyMask};
use pipeline::probe::cells::{Cells, Touched};
use pipeline::resolve::stage::{Next, Stage, StageDef};
use pipeline::resolve::stages::deliver;
use pipeline::resolve::walk::{Copy, Walk};

use crate::kit::net::*;
use crate::kit::{Bench, Fate, MODES, events};

/// One way out, as it is.
fn way(port: u16) -> Copy {
    Copy { port: PortId(port), vlan: VlanEdit::Keep, mtu: u16::MAX }
}

/// What a frame of a port is told apart by. The port's notes say which.
const CHOICES: &[(&str, Field)] =
    &[("port", Field::TP_DST), ("source", Field::IPV6_SRC), ("hops", Field::IP_TTL), ("nothing", Field::IN_PORT)];

/// Sends a frame to port 10, 11, 12 or 13, by the last octet of one field.
#[derive(Clone, Debug, Default)]
struct Choose(BTreeMap<PortId, Field>);

const CHOOSE: StageDef =
    StageDef { name: "choose", help: "which way?", first_packet: false, build: || Box::<Choose>::default() };

impl Stage for Choose {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], _touched: &mut Touched<'_>) {
        // The program itself touches the cell of a port that changes, and every walk asks it.
        for change in changes {
            if let Change::Port(Delta { new: Some(port), .. }) = change {
                let choice = port.external_ids.get("by").map_or("nothing", String::as_str);
                let (_, field) = CHOICES.iter().find(|(name, _)| *name == choice).unwrap();
                self.0.insert(port.id, *field);
            }
        }
    }

    fn mask(&self, port: PortId, _routed: bool) -> KeyMask {
        FlowKey::mask(&[Field::IN_PORT, self.0.get(&port).copied().unwrap_or(Field::IN_PORT)])
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let last = match self.0[&walk.key.in_port()] {
            Field::TP_DST => walk.key.get::<2>(Field::TP_DST)[1],
            Field::IPV6_SRC => walk.key.get::<16>(Field::IPV6_SRC)[15],
            Field::IP_TTL => walk.key.get::<1>(Field::IP_TTL)[0],
            _ => 0,
        };
        walk.outputs.push(way(10 + u16::from(last % 4)));
        Next::Continue
    }
}

const BY_FIELD: &[&StageDef] = &[&CHOOSE, &deliver::STAGE];

fn by(id: u16, choice: &str) -> Port {
    Port { external_ids: [("by".to_owned(), choice.to_owned())].into(), ..port(id, Vlan::default()) }
}

/// Port 1 chooses by destination port, 2 by IPv6 source, 3 by hop limit, 4 not at all.
pub(crate) fn choosing(workers: usize) -> Bench {
    let mut bench = Bench::with(workers, BY_FIELD, Cells::default());
    let ports = [by(1, "port"), by(2, "source"), by(3, "hops"), by(4, "nothing")];
    let outs = (10..14).map(|id| port(id, Vlan::default()));
    bench.apply(ports.into_iter().chain(outs).map(add_port).collect());
    bench
}

#[test]
fn the_class_of_a_port_follows_from_what_its_stages_look_at() {
    let bench = choosing(1);
    let class = |port| bench.program.ingress(PortId(port)).unwrap().mask.class();
    assert_eq!([1, 2, 3, 4].map(class), [Class::V4, Class::V6, Class::Wide, Class::V4]);
}

#[test]
fn a_decision_by_a_field_is_not_believed_of_frames_that_differ_in_it() {
    let make = |port: u16, i: u8| match port {
        1 => udp4(64, i.into(), 20),
        2 => udp6(i, 80, 20),
        _ => udp4(2 + i, 80, 20),
    };
    for workers in MODES {
        for port in 1..=3 {
            let frame = |i| make(port, i);
            let mut bench = choosing(workers);
            let shift = if port == 3 { 2 } else { 0 };
            let out = |i: u8| 10 + u16::from((i + shift) % 4);
            let ((), seen) = bench.watch(|bench| {
                for _ in 0..3 {
                    (0..16).for_each(|i| assert_eq!(bench.send(port, &frame(i)), Fate::out(&[out(i)], &frame(i))));
                }
                let all: Vec<_> = (0..16).map(frame).collect();
                let fates = bench.burst(port, &all);
                (0..16).for_each(|i| assert_eq!(fates[usize::from(i)].ports(), [out(i)]));
            });
            assert_eq!(seen, events(&[("cache_hit", 48), ("cache_miss", 16), ("walk", 16)]), "port {port}");
            assert_eq!(bench.entries(), 16);
        }
    }
}

#[test]
fn frames_that_differ_only_in_what_nobody_looks_at_share_an_entry() {
    for workers in MODES {
        let mut bench = choosing(workers);
        let ((), seen) = bench.watch(|bench| {
            (1..100).for_each(|ttl| _ = bench.send(1, &udp4(ttl, 80, 20)));
            (1..100).for_each(|source| _ = bench.send(4, &udp6(source, source.into(), 20)));
        });
        assert_eq!(seen, events(&[("cache_hit", 196), ("cache_miss", 2), ("walk", 2)]));
    }
}

#[test]
fn the_same_frames_in_one_burst_walk_once_in_every_class() {
    for (port, frame) in [(1, udp4(64, 80, 20)), (2, udp6(7, 80, 20)), (3, udp4(64, 80, 20))] {
        let mut bench = choosing(1);
        let (_, seen) = bench.watch(|bench| bench.burst(port, &vec![frame.clone(); 200]));
        assert_eq!(seen, events(&[("cache_miss", 200), ("walk", 1)]));
    }
}

#[test]
fn both_versions_in_one_burst_are_each_decided_by_their_own_key() {
    for workers in MODES {
        // Versions change in an order that is neither.
        let is_six = |i: u8| i.count_ones() % 2 == 1;
        let frame = |i: u8| if is_six(i) { udp6(1 + i % 8, 80, 20) } else { udp4(64, i.into(), 20) };
        let frames: Vec<_> = (0..200).map(frame).collect();
        let sources = (0..200).filter(|&i| is_six(i)).map(|i| i % 8).collect::<std::collections::BTreeSet<_>>().len();
        let mut bench = choosing(workers);
        for round in 0..3 {
            let (fates, seen) = bench.watch(|bench| bench.burst(2, &frames));
            for (i, fate) in fates.iter().enumerate() {
                let out = if is_six(i as u8) { 10 + u16::from((1 + i as u8 % 8) % 4) } else { 10 };
                assert_eq!(*fate, Fate::out(&[out], &frames[i]));
            }
            // All IPv4 frames are one flow of this port.
            let flows = sources as u64 + 1;
            match round {
                0 => assert_eq!(seen, events(&[("cache_miss", 200), ("walk", flows)])),
                _ => assert_eq!(seen, events(&[("cache_hit", 200)])),
            }
        }
        assert_eq!(bench.entries(), sources + 1);
    }
}

#[test]
fn a_port_that_is_told_apart_by_another_field_believes_no_earlier_decision() {
    for workers in MODES {
        let mut bench = choosing(workers);
        // TTL 64 is port 10, TTL 65 port 11; destination port 82 is port 12.
        let frame = |ttl| udp4(ttl, 82, 20);
        let mut now = "port";
        for next in ["hops", "nothing", "port", "source", "hops", "port"] {
            bench.apply(vec![Change::Port(Delta::replace(by(1, now), by(1, next)))]);
            now = next;
            for ttl in [64, 65, 64, 65] {
                let out = match next {
                    "hops" => 10 + u16::from(ttl % 4),
                    "port" => 12,
                    _ => 10,
                };
                assert_eq!(bench.send(1, &frame(ttl)).ports(), [out], "by {next}");
            }
        }
    }
}

/// A stage without tables, made of what it does and looks at.
#[derive(Clone, Copy, Debug)]
struct Plain {
    mask: &'static [Field],
    decide: fn(&mut Walk<'_>) -> Next,
}

impl Stage for Plain {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(*self)
    }

    fn apply(&mut self, _changes: &[Change], _touched: &mut Touched<'_>) {}

    fn mask(&self, _port: PortId, _routed: bool) -> KeyMask {
        FlowKey::mask(self.mask)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        (self.decide)(walk)
    }
}

/// The end of a translated frame's way; until then it goes on.
const ROUTE: StageDef = StageDef {
    name: "route",
    help: "where to?",
    first_packet: false,
    build: || {
        Box::new(Plain {
            mask: &[Field::IN_PORT],
            decide: |walk| {
                if walk.vlan == 0 {
                    return Next::Continue;
                }
                walk.outputs.push(way(10 + walk.vlan));
                Next::Enter("deliver")
            },
        })
    },
};

/// Translates a frame by its destination port, and has it routed again.
const TRANSLATE: StageDef = StageDef {
    name: "translate",
    help: "to whom?",
    first_packet: false,
    build: || {
        Box::new(Plain {
            mask: &[Field::TP_DST],
            decide: |walk| {
                walk.vlan = 1 + u16::from(walk.key.get::<2>(Field::TP_DST)[1] % 2);
                Next::Enter("route")
            },
        })
    },
};

/// A bench of stages without tables, with ports 1, 10, 11 and 12.
fn staged(workers: usize, order: &'static [&'static StageDef]) -> Bench {
    let mut bench = Bench::with(workers, order, Cells::default());
    bench.apply([1, 10, 11, 12].map(|id| add_port(port(id, Vlan::default()))).into());
    bench
}

#[test]
fn a_walk_that_enters_an_earlier_stage_leaves_one_entry() {
    for workers in MODES {
        let mut bench = staged(workers, &[&ROUTE, &TRANSLATE, &deliver::STAGE]);
        let ((), seen) = bench.watch(|bench| {
            for _ in 0..3 {
                assert_eq!(bench.send(1, &udp4(64, 80, 20)).ports(), [11]);
                assert_eq!(bench.send(1, &udp4(64, 81, 20)).ports(), [12]);
            }
        });
        assert_eq!(seen, events(&[("cache_hit", 4), ("cache_miss", 2), ("walk", 2)]));
        assert_eq!(bench.entries(), 2);
    }
}

const AGAIN: StageDef = StageDef {
    name: "again",
    help: "again?",
    first_packet: false,
    build: || Box::new(Plain { mask: &[Field::IN_PORT], decide: |_| Next::Enter("again") }),
};

const ASTRAY: StageDef = StageDef {
    name: "astray",
    help: "whither?",
    first_packet: false,
    build: || Box::new(Plain { mask: &[Field::IN_PORT], decide: |_| Next::Enter("nowhere") }),
};

const ON: StageDef = StageDef {
    name: "on",
    help: "and on",
    first_packet: false,
    build: || Box::new(Plain { mask: &[Field::IN_PORT], decide: |_| Next::Continue }),
};

#[test]
fn a_walk_that_does_not_end_is_ended() {
    let orders: [(&'static [&'static StageDef], Reason); 4] = [
        (&[&AGAIN, &deliver::STAGE], Reason::WalkTooLong),
        (&[&ASTRAY, &deliver::STAGE], Reason::WalkTooLong),
        (&[&ON], Reason::NoPort),
        (&[], Reason::NoPort),
    ];
    for (order, reason) in orders {
        let mut bench = staged(1, order);
        let ((), seen) =
            bench.watch(|bench| (0..3).for_each(|_| assert_eq!(bench.send(1, &udp4(64, 80, 20)), Fate::drop(reason))));
        assert_eq!(seen, events(&[("cache_hit", 2), ("cache_miss", 1), ("walk", 1)]), "{reason}");
    }
}

/// A fact that no table holds and no cell speaks of.
static WHIM: AtomicU16 = AtomicU16::new(10);

/// Decides by what it must not.
const WHIMSICAL: StageDef = StageDef {
    name: "whimsical",
    help: "where to, today?",
    first_packet: false,
    build: || {
        Box::new(Plain {
            mask: &[Field::IN_PORT],
            decide: |walk| {
                walk.outputs.push(way(WHIM.load(Ordering::Relaxed)));
                Next::Continue
            },
        })
    },
};

#[test]
fn the_shadow_tells_of_a_cached_verdict_that_a_walk_would_not_give() {
    let mut bench = staged(1, &[&WHIMSICAL, &deliver::STAGE]);
    bench.caches(4096, 2);
    (0..9).for_each(|_| assert_eq!(bench.send(1, &udp4(64, 80, 20)).ports(), [10]));
    assert_eq!((bench.events()["shadow_walk"], bench.events().get("cache_divergence")), (4, None));
    WHIM.store(11, Ordering::Relaxed);
    let (_, seen) =
        bench.watch(|bench| (0..4).for_each(|_| assert_eq!(bench.send(1, &udp4(64, 80, 20)).ports(), [10])));
    assert_eq!(seen, events(&[("cache_divergence", 2), ("cache_hit", 4), ("shadow_walk", 2)]));
}

/// Looks at a field that it does not declare.
const SNEAK: StageDef = StageDef {
    name: "sneak",
    help: "what nobody may see",
    first_packet: false,
    build: || {
        Box::new(Plain {
            mask: &[Field::IN_PORT],
            decide: |walk| {
                walk.outputs.push(way(10 + u16::from(walk.key.get::<1>(Field::IP_TTL)[0] % 2)));
                Next::Continue
            },
        })
    },
};

#[test]
fn a_stage_sees_nothing_of_what_it_did_not_declare() {
    let mut bench = staged(1, &[&SNEAK, &deliver::STAGE]);
    (1..10).for_each(|ttl| assert_eq!(bench.send(1, &udp4(ttl, 80, 20)).ports(), [10]));
    assert_eq!(bench.entries(), 1);
}
