//! What the table promises, one row a test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::Limits;
use super::states::{ICMP, TCP, UDP};
use super::*;
use crate::live::{Live, Now};
use crate::probe::cells::{Asked, Moment};

pub(super) fn at(second: u64) -> Now {
    Now(Duration::from_secs(second))
}

pub(super) fn ip(third: u8, last: u8) -> IpAddr {
    IpAddr::from([10, 0, third, last])
}

pub(super) fn tuple(proto: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Tuple {
    Tuple { zone: BridgeId(1), proto, src: src.0, dst: dst.0, sport: src.1, dport: dst.1 }
}

/// A plan without translation, from port 1.
pub(super) fn plan(original: Tuple) -> Plan {
    Plan {
        original,
        dst: (original.dst, original.dport),
        src: Source::Own,
        port: PortId(1),
        identities: [1, 2],
        event: Event { flags: if original.proto == TCP { SYN } else { 0 } },
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn udp(sport: u16) -> Tuple {
    tuple(UDP, (ip(0, 1), sport), (ip(0, 2), 53))
}

fn tcp(sport: u16) -> Tuple {
    tuple(TCP, (ip(0, 1), sport), (ip(0, 2), 80))
}

/// The numbered one of many.
fn many(i: u32) -> Tuple {
    let [_, a, b, c] = i.to_be_bytes();
    tuple(UDP, (IpAddr::from([10, 1 + a, b, c]), 1000), (ip(0, 2), 53))
}

fn commit(live: &Live, plan: &Plan, now: u64) -> Committed {
    live.connections.commit(plan, at(now), &live.cells)
}

fn made(live: &Live, plan: &Plan, now: u64) -> Found {
    match commit(live, plan, now) {
        Committed::New(found) => found,
        other => panic!("{plan:?}: {other:?}"),
    }
}

fn find(live: &Live, tuple: Tuple) -> Option<Found> {
    live.connections.find(&tuple, &mut Asked::new(&live.cells))
}

fn expire(live: &Live, now: u64) -> Expired {
    live.connections.expire(at(now), usize::MAX)
}

/// A decision that asked for this tuple at `made` stands.
fn stands(live: &Live, tuple: Tuple, made: Moment) -> bool {
    let mut asked = Asked::new(&live.cells);
    live.connections.find(&tuple, &mut asked);
    live.cells.unchanged_since(&asked.deps(false).cells(), made)
}

#[test]
fn a_connection_is_found_by_both_its_tuples() {
    let live = Live::default();
    let vip = (ip(9, 1), 53);
    let original = tuple(UDP, (ip(0, 1), 40_000), vip);
    let made = made(&live, &Plan { dst: (ip(0, 7), 5353), ..plan(original) }, 0);
    assert_eq!(made.reply, tuple(UDP, (ip(0, 7), 5353), (ip(0, 1), 40_000)));
    assert_eq!((made.direction, made.identities, made.answered), (Direction::Original, [1, 2], false));
    assert_eq!(find(&live, original), Some(made));
    assert_eq!(find(&live, made.reply), Some(Found { direction: Direction::Reply, ..made }));
    assert_eq!(find(&live, original.turned()), None, "the service itself answers nobody");
}

#[test]
fn zones_protocols_and_families_do_not_meet() {
    let live = Live::default();
    let v4 = tuple(UDP, (ip(0, 1), 1), (ip(0, 2), 2));
    made(&live, &plan(v4), 0);
    assert_eq!(find(&live, Tuple { zone: BridgeId(2), ..v4 }), None);
    assert_eq!(find(&live, Tuple { proto: TCP, ..v4 }), None);
    let mapped = |address: &str| address.parse::<IpAddr>().unwrap();
    let v6 = tuple(UDP, (mapped("::ffff:10.0.0.1"), 1), (mapped("::ffff:10.0.0.2"), 2));
    assert_eq!(find(&live, v6), None);
    assert_eq!(made(&live, &plan(v6), 0).reply, v6.turned());
}

#[test]
fn who_comes_second_to_a_tuple_has_lost() {
    let live = Live::default();
    let first = made(&live, &plan(udp(1)), 0);
    assert_eq!(commit(&live, &plan(udp(1)), 0), Committed::Lost);
    assert_eq!(commit(&live, &plan(udp(1).turned()), 0), Committed::Lost, "a packet the other way is an answer");
    assert_eq!((find(&live, udp(1)), live.connections.len()), (Some(first), 1));
}

#[test]
fn one_client_port_to_two_services_with_one_backend_gets_two_ports() {
    let live = Live::default();
    let backend = (ip(0, 7), 8080);
    let to = |service| Plan { dst: backend, ..plan(tuple(TCP, (ip(0, 1), 40_000), (ip(9, service), 80))) };
    let (one, two) = (made(&live, &to(1), 0), made(&live, &to(2), 0));
    assert_eq!(one.reply.dport, 40_000);
    assert!(two.reply.dport != 40_000 && two.reply.dport >= 1024);
    assert_eq!(two.reply, Tuple { dport: two.reply.dport, ..one.reply });
    assert_eq!(find(&live, two.reply).map(|found| found.name), Some(two.name));
    let low = |service| Plan { dst: backend, ..plan(tuple(TCP, (ip(0, 1), 700), (ip(9, service), 80))) };
    made(&live, &low(1), 0);
    assert!((512..1024).contains(&made(&live, &low(2), 0).reply.dport), "of its class");
}

#[test]
fn what_a_packet_sends_to_itself_is_not_its_own_answer() {
    let live = Live::default();
    let selfish = tuple(UDP, (ip(0, 1), 7), (ip(0, 1), 7));
    let found = made(&live, &plan(selfish), 0);
    assert_ne!(found.reply, selfish);
    let portless = tuple(47, (ip(0, 1), 0), (ip(0, 1), 0));
    assert_eq!(commit(&live, &plan(portless), 0), Committed::NoPort);
}

#[test]
fn a_range_of_four_ports_serves_four_connections_to_one_place() {
    let live = Live::default();
    let from = |last: u8, place: u8| Plan {
        src: Source::Masquerade(ip(5, 5), (1000, 1003)),
        ..plan(tuple(UDP, (ip(0, last), 40_000), (ip(8, place), 53)))
    };
    let ports: BTreeSet<u16> = (1..=4).map(|last| made(&live, &from(last, 1), 0).reply.dport).collect();
    assert_eq!(ports, (1000..=1003).collect());
    assert_eq!(commit(&live, &from(5, 1), 0), Committed::NoPort);
    assert_eq!(live.connections.len(), 4, "who got nothing holds nothing");
    made(&live, &from(5, 2), 0);
    // One dies; its port rests for two seconds.
    let dead = find(&live, from(1, 1).original).unwrap();
    live.connections.kill(dead.name, at(10), &live.cells);
    expire(&live, 12);
    assert_eq!(commit(&live, &from(6, 1), 12), Committed::NoPort);
    expire(&live, 13);
    assert_eq!(made(&live, &from(6, 1), 13).reply.dport, dead.reply.dport);
}

#[test]
fn a_masqueraded_echo_gets_an_identifier_and_a_portless_protocol_needs_its_tuple() {
    let live = Live::default();
    let masqueraded = |original| Plan { src: Source::Masquerade(ip(5, 5), (7, 7)), ..plan(original) };
    let echo = |last| masqueraded(tuple(ICMP, (ip(0, last), 9), (ip(8, 1), 9)));
    let (one, two) = (made(&live, &echo(1), 0).reply, made(&live, &echo(2), 0).reply);
    assert!(one != two && one.sport == one.dport && two.sport == two.dport);
    let gre = |last| masqueraded(tuple(47, (ip(0, last), 0), (ip(8, 1), 0)));
    made(&live, &gre(1), 0);
    assert_eq!(commit(&live, &gre(2), 0), Committed::NoPort);
}

#[test]
fn silence_ends_a_connection_two_seconds_after_its_timeout() {
    let live = Live::default();
    let name = made(&live, &plan(udp(1)), 100).name;
    assert_eq!(expire(&live, 131).died, 0);
    assert!(live.connections.seen(name, Direction::Original, at(101)));
    assert_eq!(expire(&live, 132).died, 0, "it was seen");
    assert_eq!(expire(&live, 133).died, 1);
    assert_eq!((find(&live, udp(1)), live.connections.len()), (None, 0));
    assert!(!live.connections.seen(name, Direction::Original, at(133)));
    assert!(!live.connections.advance(name, Direction::Reply, Event::default(), at(133)));
}

#[test]
fn either_direction_keeps_a_connection() {
    let live = Live::default();
    let name = made(&live, &plan(tcp(1)), 0).name;
    assert!(live.connections.advance(name, Direction::Reply, Event { flags: SYN | ACK }, at(1)));
    assert!(live.connections.seen(name, Direction::Original, at(2)));
    assert_eq!(live.connections.list()[0].state, "ESTABLISHED");
    let days = 5 * 24 * 3600;
    assert!(live.connections.seen(name, Direction::Reply, at(days)));
    assert_eq!(expire(&live, 2 * days).died, 0);
    assert_eq!(expire(&live, 2 * days + 2).died, 1);
}

#[test]
fn a_scan_in_small_steps_finds_every_silent_one_once() {
    let live = Live::default();
    (0..1000).for_each(|i| _ = made(&live, &plan(many(i)), u64::from(i % 2) * 60));
    let died: usize = (0..11).map(|_| live.connections.expire(at(60), 100).died).sum();
    assert_eq!((died, live.connections.len()), (500, 500));
    let freed: usize = (0..11).map(|_| live.connections.expire(at(63), 100).freed).sum();
    assert_eq!((freed, live.connections.index.len()), (500, 1000));
}

#[test]
fn a_record_is_used_again_after_two_seconds_oldest_first_and_under_another_name() {
    let live = Live::default();
    let [one, two] = [1, 2].map(|port| made(&live, &plan(udp(port)), 0).name);
    live.connections.kill(two, at(10), &live.cells);
    live.connections.kill(one, at(11), &live.cells);
    expire(&live, 12);
    let fresh = made(&live, &plan(udp(3)), 12).name;
    assert!(fresh.slot != one.slot && fresh.slot != two.slot);
    assert_eq!(expire(&live, 14).freed, 2);
    let again = made(&live, &plan(udp(4)), 14).name;
    assert_eq!(again, Name { slot: two.slot, incarnation: two.incarnation.wrapping_add(1) });
    assert!(!live.connections.seen(two, Direction::Original, at(14)), "the name is another's");
    live.connections.kill(two, at(14), &live.cells);
    assert!(find(&live, udp(4)).is_some(), "who kills by an old name kills nobody");
}

#[test]
fn killing_touches_both_tuples_and_frees_the_first_for_its_next_connection() {
    let live = Live::default();
    let plan = Plan { dst: (ip(0, 7), 5353), ..plan(udp(1)) };
    let found = made(&live, &plan, 0);
    let before = live.cells.now();
    live.connections.kill(found.name, at(1), &live.cells);
    assert!(!stands(&live, found.original, before) && !stands(&live, found.reply, before));
    assert_eq!((find(&live, found.original), find(&live, found.reply)), (None, None));
    let again = made(&live, &plan, 1);
    assert_eq!((again.reply, again.name == found.name), (found.reply, false));
    assert_eq!(live.connections.index.len(), 2);
}

#[test]
fn killing_some_leaves_the_others_and_is_one_change() {
    let live = Live::default();
    (0..1000).for_each(|i| _ = made(&live, &Plan { port: PortId(1 + (i % 2) as u16), ..plan(many(i)) }, 0));
    let before = live.cells.now();
    assert_eq!(live.connections.kill_where(&|view| view.port == PortId(2), at(1), &live.cells), 500);
    assert_eq!(live.cells.now().generation, before.generation + 1);
    assert!((0..1000).all(|i| find(&live, many(i)).is_some() == (i % 2 == 0)));
    assert!((0..1000).filter(|i| i % 2 == 1).all(|i| !stands(&live, many(i), before)));
    assert_eq!(live.connections.kill_where(&|view| view.port == PortId(2), at(1), &live.cells), 0);
}

#[test]
fn expiry_and_making_touch_nothing_where_nobody_rests_on_it() {
    let live = Live::default();
    let before = live.cells.now();
    made(&live, &plan(udp(1)), 0);
    assert_eq!(expire(&live, 32).died, 1);
    made(&live, &plan(udp(1)), 32);
    assert_eq!(live.cells.now(), before, "the same connection again changes no answer");
}

#[test]
fn who_takes_the_tuple_of_a_resting_one_for_another_translation_tells_so() {
    let live = Live::default();
    let to = |backend| Plan { dst: (ip(0, backend), 53), ..plan(udp(1)) };
    let old = made(&live, &to(7), 0);
    assert_eq!(expire(&live, 32).died, 1);
    let before = live.cells.now();
    made(&live, &to(8), 32);
    assert!(!stands(&live, old.original, before) && !stands(&live, old.reply, before));
    assert_eq!(find(&live, old.reply), None);
}

#[test]
fn a_decision_that_rests_on_absence_is_asked_again_when_either_tuple_is_taken() {
    for reply in [false, true] {
        let live = Live::default();
        let awaited = if reply { udp(1).turned() } else { udp(1) };
        assert!(live.connections.rest_on_absence(&awaited, &live.cells));
        let before = live.cells.now();
        made(&live, &plan(udp(2)), 0);
        assert!(stands(&live, awaited, before), "another one was made");
        made(&live, &plan(udp(1)), 0);
        assert!(!stands(&live, awaited, before));
        assert!(!live.connections.rest_on_absence(&awaited, &live.cells));
        let after = live.cells.now();
        made(&live, &plan(udp(3)), 0);
        assert_eq!(live.cells.now(), after, "the mark was used up");
    }
}

#[test]
fn absence_may_be_rested_on_when_a_connection_is_dead() {
    let live = Live::default();
    let name = made(&live, &plan(udp(1)), 0).name;
    live.connections.kill(name, at(0), &live.cells);
    assert!(live.connections.rest_on_absence(&udp(1), &live.cells));
    let before = live.cells.now();
    made(&live, &plan(udp(1)), 0);
    assert!(!stands(&live, udp(1), before));
}

#[test]
fn a_syn_opens_anew_what_is_over_and_nothing_else() {
    let live = Live::default();
    let found = made(&live, &plan(tcp(1)), 0);
    let [syn, ack, rst] = [SYN, ACK, RST].map(|flags| Event { flags });
    assert!(!live.connections.is_reopened(&found, syn));
    assert_eq!(commit(&live, &plan(tcp(1)), 1), Committed::Lost);
    live.connections.advance(found.name, Direction::Reply, rst, at(1));
    assert!(live.connections.is_reopened(&found, syn) && !live.connections.is_reopened(&found, ack));
    let again = made(&live, &plan(tcp(1)), 2);
    assert_eq!((again.reply, again.name == found.name), (found.reply, false));
    assert_eq!((live.connections.len(), live.connections.list()[0].state), (1, "SYN_SENT"));
    assert!(!live.connections.is_reopened(&found, syn), "the name is another's");
}

#[test]
fn v25_a_half_closed_connection_is_kept_for_an_hour() {
    // Specification, row V25.
    let live = Live::default();
    let name = made(&live, &plan(tcp(1)), 0).name;
    live.connections.advance(name, Direction::Reply, Event { flags: SYN | ACK }, at(0));
    live.connections.seen(name, Direction::Original, at(1));
    live.connections.advance(name, Direction::Reply, Event { flags: FIN | ACK }, at(10));
    live.connections.seen(name, Direction::Original, at(11));
    assert_eq!(live.connections.list()[0].state, "CLOSE_WAIT");
    assert_eq!(expire(&live, 3600).died, 0);
    assert_eq!(expire(&live, 3613).died, 1);
}

#[test]
fn a_flood_of_one_port_ends_its_own_oldest_and_nobody_else_s() {
    let live = Live::default();
    live.connections.configure(Limits { total: 6400, unanswered: 800 });
    let of = |port, i| Plan { port: PortId(port), ..plan(many(i)) };
    (0..100).for_each(|i| _ = made(&live, &of(1, i), 0));
    let mut refused = 0;
    for i in 1000..100_000 {
        match commit(&live, &of(2, i), 1) {
            Committed::New(_) => {}
            Committed::Full => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "its dead ones have to rest");
    assert!((0..100).all(|i| find(&live, many(i)).is_some()), "the flood ended another port's connections");
    assert_eq!(live.connections.len(), 900);
    assert_eq!(find(&live, many(1000)), None, "its oldest went first");
    // There is room for others, all the while.
    (0..5000).for_each(|i| {
        let name = made(&live, &of(3, 200_000 + i), 1).name;
        live.connections.seen(name, Direction::Reply, at(1));
    });
    // And for itself again, when its dead ones have rested.
    expire(&live, 4);
    made(&live, &of(2, 300_000), 4);
}

#[test]
fn what_was_evicted_does_not_come_back_at_once_under_another_translation() {
    let live = Live::default();
    live.connections.configure(Limits { total: 6400, unanswered: 1 });
    let to = |port, backend| Plan { dst: (ip(0, backend), 53), ..plan(udp(port)) };
    made(&live, &to(1, 7), 0);
    made(&live, &to(2, 7), 0);
    assert_eq!(find(&live, udp(1)), None);
    let before = live.cells.now();
    assert_eq!(commit(&live, &to(1, 8), 0), Committed::Full);
    assert_eq!(live.cells.now(), before);
    made(&live, &to(1, 7), 0);
    assert_eq!(live.cells.now(), before);
}

#[test]
fn a_full_table_takes_from_the_port_that_has_the_most_unanswered() {
    let live = Live::default();
    live.connections.configure(Limits { total: 1000, unanswered: 1000 });
    let of = |port, i| Plan { port: PortId(port), ..plan(many(i)) };
    (0..100).for_each(|i| _ = made(&live, &of(1, i), 0));
    (100..1000).for_each(|i| _ = made(&live, &of(2, i), 0));
    (1000..1050).for_each(|i| _ = made(&live, &of(3, i), 0));
    assert_eq!(live.connections.len(), 1000);
    let of_port = |port| live.connections.list().iter().filter(|view| view.port == PortId(port)).count();
    assert_eq!([1, 2, 3].map(of_port), [100, 850, 50]);
    assert_eq!((find(&live, many(100)), find(&live, many(149))), (None, None), "the oldest went first");
}

#[test]
fn a_table_full_of_answered_ones_is_full() {
    let live = Live::default();
    live.connections.configure(10);
    for i in 0..10 {
        let name = made(&live, &plan(many(i)), 0).name;
        assert!(live.connections.seen(name, Direction::Reply, at(0)));
    }
    assert_eq!(commit(&live, &plan(many(10)), 0), Committed::Full);
    assert!((0..10).all(|i| find(&live, many(i)).is_some_and(|found| found.answered)));
    live.connections.configure(11);
    made(&live, &plan(many(10)), 0);
}

#[test]
fn dead_ones_rest_beyond_the_limit_and_when_that_is_full_too_new_ones_wait() {
    let live = Live::default();
    live.connections.configure(Limits { total: 100, unanswered: 100 });
    let round = |second: u64, from: u32| {
        let made = (from..).take_while(|&i| matches!(commit(&live, &plan(many(i)), second), Committed::New(_))).count();
        live.connections.kill_where(&|_| true, at(second), &live.cells);
        made
    };
    assert!(round(0, 0) >= 100);
    let second = round(0, 1000);
    assert!((1..=26).contains(&second), "{second} fit beside a hundred that rest");
    assert_eq!(round(2, 2000), 0);
    expire(&live, 3);
    assert!(round(3, 3000) >= 100);
}

#[test]
fn a_view_tells_what_conntrack_does() {
    let live = Live::default();
    let original = tcp(40_000);
    made(&live, &Plan { dst: (ip(0, 7), 8080), ..plan(original) }, 100);
    let state = live.connections.list()[0].state(at(120));
    assert_eq!(
        (state.state.as_str(), state.expires, state.port, state.bridge),
        ("SYN_SENT", 100, PortId(1), BridgeId(1))
    );
    assert_eq!(state.original.dst.to_string(), "10.0.0.2:80");
    assert_eq!(
        (state.reply.src.to_string(), state.reply.dst.to_string()),
        ("10.0.0.7:8080".into(), "10.0.0.1:40000".into())
    );
    assert_eq!(live.connections.list()[0].state(at(1000)).expires, 0);
}

#[test]
fn connections_are_counted_by_protocol_and_state() {
    let live = Live::default();
    for port in 1..=3 {
        made(&live, &plan(udp(port)), 1);
    }
    let found = made(&live, &plan(tcp(1)), 1);
    made(&live, &plan(tcp(2)), 1);
    live.connections.advance(found.name, Direction::Reply, Event { flags: SYN | ACK }, at(1));
    let counted = BTreeMap::from([((UDP, "UNREPLIED"), 3), ((TCP, "SYN_RECV"), 1), ((TCP, "SYN_SENT"), 1)]);
    assert_eq!(live.connections.census(), counted);
    live.connections.kill_where(&|view| view.original.proto == TCP, at(2), &live.cells);
    assert_eq!(live.connections.census(), BTreeMap::from([((UDP, "UNREPLIED"), 3)]));
}
