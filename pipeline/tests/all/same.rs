//! FASTPATH, test 1: after every change a cached verdict is that of a fresh walk, and the tables after any sequence of
//! transactions are those that their sum builds from nothing.

use api::{BridgeId, Change, Delta, MacAddr, Port, StationKey, Vlan};
use pipeline::drop::DropReason;
use proptest::prelude::*;
use std::collections::BTreeSet;

use crate::kit::Bench;
use crate::kit::history::{Event, Noun, PORTS, agrees, beginning, beginning_of_a_node, play};
use crate::kit::net::*;
use crate::kit::script::Octets;

/// Histories that are looked at for what they meet.
const HISTORIES: usize = 240;

fn bridge_id() -> impl Strategy<Value = BridgeId> {
    (1u16..=2).prop_map(BridgeId)
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let some = || prop::sample::subsequence(vec![0u16, 1, 2, 4095], 0..=3);
    prop_oneof![
        2 => Just(Vlan::default()),
        2 => (0u16..3).prop_map(access),
        1 => some().prop_map(|trunks| Vlan::Trunk { trunks }),
        1 => (0u16..3, some()).prop_map(|(tag, trunks)| Vlan::NativeTagged { tag, trunks }),
        1 => (0u16..3, some()).prop_map(|(tag, trunks)| Vlan::NativeUntagged { tag, trunks }),
    ]
}

/// Few addresses, so that they meet.
fn unicast() -> impl Strategy<Value = [u8; 6]> {
    (1u16..6).prop_map(mac)
}

fn destination() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![6 => unicast(), 1 => Just(BROADCAST), 1 => Just([0x01, 0x80, 0xc2, 0, 0, 1])]
}

fn noun() -> impl Strategy<Value = Noun> {
    let settings = (1u32..6, 1u32..4, any::<bool>());
    let port = (bridge_id(), vlan(), prop_oneof![Just(50u16), Just(1500)]);
    let key = (bridge_id(), 0u16..3, unicast()).prop_map(|(bridge, vlan, mac)| StationKey {
        bridge,
        vlan,
        mac: MacAddr(mac),
    });
    prop_oneof![
        1 => (bridge_id(), prop::option::weighted(0.8, settings)).prop_map(|(id, row)| Noun::Bridge(id, row)),
        4 => (1..PORTS, prop::option::weighted(0.8, port)).prop_map(|(id, row)| Noun::Port(id, row)),
        2 => (key, prop::option::weighted(0.6, 1..PORTS)).prop_map(|(key, row)| Noun::Station(key, row)),
    ]
}

fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![
        3 => Just(vec![]),
        2 => (0u16..4, 0u16..2).prop_map(|(vid, priority)| vec![(0x8100, priority << 13 | vid)]),
        1 => (0u16..3).prop_map(|vid| vec![(0x88a8, vid), (0x8100, 7)]),
    ];
    let sound = (destination(), unicast(), tags, prop_oneof![Just(10usize), Just(51)])
        .prop_map(|(dst, src, tags, octets)| frame(dst, src, &tags, 0x88b5, &vec![1; octets]));
    prop_oneof![12 => sound, 1 => Just(vec![0xff; 20]), 1 => prop::collection::vec(any::<u8>(), 0..80)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::collection::vec(noun(), 1..4).prop_map(Event::Transaction),
        12 => (1..PORTS, some_frame()).prop_map(|(port, frame)| Event::Frame(port, frame)),
        2 => (1..PORTS, prop::collection::vec(some_frame(), 1..12)).prop_map(|(port, frames)| Event::Burst(port, frames)),
        1 => (1u64..1200).prop_map(Event::Pass),
        2 => (1u64..1200).prop_map(Event::Jump),
        1 => (bridge_id(), prop::option::of(1..PORTS)).prop_map(|(bridge, port)| Event::Flush(bridge, port)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_cached_verdict_is_that_of_a_fresh_walk_after_every_change(
        workers in 1usize..=2,
        entries in prop_oneof![3 => Just(4096usize), 1 => Just(8usize)],
        generation in prop_oneof![Just(1u32), (u32::MAX - 60..=u32::MAX)],
        events in prop::collection::vec(event(), 1..120),
    ) {
        play(workers, entries, generation, beginning(), events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn on_a_node_too_with_all_that_connections_do_to_frames(
        workers in 1usize..=2,
        entries in prop_oneof![3 => Just(4096usize), 1 => Just(8usize)],
        generation in prop_oneof![Just(1u32), (u32::MAX - 60..=u32::MAX)],
        events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..80),
    ) {
        let events = events.iter().map(|octets| Octets(octets).event());
        play(workers, entries, generation, beginning_of_a_node(), events);
    }
}

#[test]
fn histories_of_a_node_meet_what_services_and_policies_can_come_to() {
    // SplitMix64 (Steele et al., OOPSLA 2014).
    let mut state = 7u64;
    let mut octet = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 56) as u8
    };
    let (mut reasons, mut clients) = (BTreeSet::new(), 0);
    for _ in 0..HISTORIES {
        let octets: Vec<Vec<u8>> = (0..80).map(|_| (0..64).map(|_| octet()).collect()).collect();
        let bench = play(2, 4096, 1, beginning_of_a_node(), octets.iter().map(|octets| Octets(octets).event()));
        reasons.extend(bench.reasons);
        clients += bench.live.affinity.len();
    }
    use DropReason::*;
    let of_services = [Invalid, UnknownService, SourceRange, NoLocalEndpoint, NoServicePort, NoNodeAddress];
    let of_policies = [Spoofed, Isolated, PolicyIngress, Acl];
    for reason in of_services.into_iter().chain(of_policies) {
        assert!(reasons.contains(&reason), "{reason}: {reasons:?}");
    }
    assert!(clients > HISTORIES / 10, "{clients} clients were remembered");
}

#[test]
fn a_change_and_its_inverse_leave_nothing_behind() {
    let mut bench = Bench::new(1);
    bench.apply(plain(3));
    let frame = eth(mac(2), mac(1));
    let before: Vec<_> = (0..5).map(|port| bench.walk(port, &frame)).collect();
    let changes = vec![
        add_bridge(bridge(BridgeId(2))),
        add_port(Port { bridge: BridgeId(2), ..port(4, access(3)) }),
        Change::Port(Delta::replace(port(1, Vlan::default()), port(1, access(5)))),
        add_station(station(0, mac(2), 3)),
    ];
    let undo = api::Transaction { changes: changes.clone() }.inverse();
    bench.apply(changes);
    assert_ne!(bench.walk(1, &frame), before[1]);
    (0..3).for_each(|_| _ = agrees(&mut bench, 1, std::slice::from_ref(&frame)));
    bench.apply(undo.changes);
    let after: Vec<_> = (0..5).map(|port| bench.walk(port, &frame)).collect();
    assert_eq!(before, after);
}
