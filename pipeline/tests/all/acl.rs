//! Access lists through all stages: on a plain bridge and on that of a node, as a miss and as a hit, with one worker and
//! with two.

use std::sync::Arc;

use api::{Acl, AclKey, AclPlace, AclRule, AclWay, Change, Delta, PortId};
use pipeline::drop::DropReason as Reason;

use crate::kit::net::*;
use crate::kit::node::*;
use crate::kit::{Bench, Fate, MODES};

const BRIDGE: AclPlace = AclPlace::Bridge(BR);
const CLIENT: &str = "10.0.0.1:4000";
const WEB: &str = "10.0.0.2:80";
const DNS: &str = "10.0.0.2:53";

fn acl(at: AclPlace, way: AclWay, text: &str) -> Acl {
    let rules: Arc<[AclRule]> = AclRule::list(text).unwrap().into();
    Acl { key: AclKey { at, way }, rules }
}

fn add(at: AclPlace, way: AclWay, text: &str) -> Change {
    Change::Acl(Delta::add(acl(at, way, text)))
}

fn at(port: u16) -> AclPlace {
    AclPlace::Port(PortId(port))
}

/// A plain bridge with three ports, where hosts 1 and 2 have been heard.
fn bridge_of_three(workers: usize, lists: impl IntoIterator<Item = Change>) -> Bench {
    let mut bench = Bench::new(workers);
    bench.apply(plain(3).into_iter().chain(lists).collect());
    bench.send(1, &eth(mac(2), mac(1)));
    bench.send(2, &eth(mac(1), mac(2)));
    bench
}

/// From host 1 to host 2, and back.
fn there(from: &str, to: &str, carries: Carries) -> Vec<u8> {
    packet((1, 2), from, to, 64, carries)
}

fn back(from: &str, to: &str, carries: Carries) -> Vec<u8> {
    packet((2, 1), from, to, 64, carries)
}

/// What becomes of a frame, the same as a miss and as a hit.
fn twice(bench: &mut Bench, port: u16, frame: &[u8]) -> Fate {
    let first = bench.send(port, frame);
    for _ in 0..2 {
        assert_eq!(bench.send(port, frame), first, "as a hit");
    }
    first
}

fn dropped() -> Fate {
    Fate::drop(Reason::Acl)
}

#[test]
fn a_list_drops_what_its_first_rule_says_and_lets_pass_what_no_rule_is_about() {
    for workers in MODES {
        let lists = [
            add(BRIDGE, AclWay::FromPort, "3 udp,tp_dst=53 allow\n2 udp,nw_dst=10.0.0.0/24 drop"),
            add(at(1), AclWay::FromPort, "1 tcp,tcp_flags=+syn-ack,tp_dst=80 drop"),
        ];
        let bench = &mut bridge_of_three(workers, lists);
        for (to, carries, passes) in [
            (DNS, Carries::Datagram, true),
            ("10.0.0.2:54", Carries::Datagram, false),
            ("10.0.1.2:54", Carries::Datagram, true),
            (WEB, Carries::Syn, false),
            (WEB, Carries::Ack, true),
            ("10.0.0.2:81", Carries::Syn, true),
        ] {
            let frame = there(CLIENT, to, carries);
            let fate = if passes { Fate::out(&[2], &frame) } else { dropped() };
            assert_eq!(twice(bench, 1, &frame), fate, "{to} {carries:?}");
        }
        assert_eq!(twice(bench, 1, &eth(mac(2), mac(1))).ports(), [2], "what is not IP is not its business");
        assert!(bench.live.connections.list().is_empty(), "no list keeps account");
    }
}

#[test]
fn of_a_flood_those_ports_are_left_out_whose_lists_say_so() {
    for workers in MODES {
        let bench = &mut bridge_of_three(workers, [add(at(2), AclWay::ToPort, "1 udp drop")]);
        let frame = packet((1, 9), CLIENT, "10.0.0.9:7", 64, Carries::Datagram);
        assert_eq!(twice(bench, 1, &frame).ports(), [3]);
        assert_eq!(twice(bench, 1, &there(CLIENT, DNS, Carries::Datagram)), dropped());
        bench.apply(vec![add(at(3), AclWay::ToPort, "1 udp drop")]);
        assert_eq!(twice(bench, 1, &frame), dropped());
    }
}

#[test]
fn a_connection_that_was_let_through_is_answered_on_a_plain_bridge_and_nothing_else_comes_back() {
    for workers in MODES {
        let lists = [
            add(at(2), AclWay::ToPort, "9 tcp,tp_dst=80 allow-related\n1 \"\" drop"),
            add(at(2), AclWay::FromPort, "1 \"\" drop\n0 tcp allow-related"),
        ];
        let bench = &mut bridge_of_three(workers, lists);
        assert_eq!(twice(bench, 2, &back(WEB, CLIENT, Carries::SynAck)), dropped(), "an answer to nothing");
        assert_eq!(bench.send(1, &there(CLIENT, WEB, Carries::Syn)).ports(), [2]);
        assert_eq!(twice(bench, 2, &back(WEB, CLIENT, Carries::SynAck)).ports(), [1]);
        assert_eq!(twice(bench, 1, &there(CLIENT, WEB, Carries::Ack)).ports(), [2]);
        assert_eq!(twice(bench, 2, &back(WEB, CLIENT, Carries::Ack)).ports(), [1]);
        for frame in [back(WEB, "10.0.0.1:4001", Carries::Syn), back(DNS, CLIENT, Carries::Datagram)] {
            assert_eq!(twice(bench, 2, &frame), dropped());
        }
        assert_eq!(twice(bench, 1, &there(CLIENT, DNS, Carries::Datagram)), dropped());
        let about = crate::kit::script::unreachable(&there(CLIENT, WEB, Carries::Ack)).unwrap();
        assert_eq!(bench.send(2, &about).ports(), [1], "an error about it is related");
        let about = crate::kit::script::unreachable(&there(CLIENT, DNS, Carries::Datagram)).unwrap();
        assert_eq!(bench.send(2, &about), dropped());
        // The list goes, and with it what it let through.
        let list = acl(at(2), AclWay::ToPort, "9 tcp,tp_dst=80 allow-related\n1 \"\" drop");
        bench.apply(vec![Change::Acl(Delta::remove(list))]);
        assert_eq!(twice(bench, 1, &there(CLIENT, DNS, Carries::Datagram)).ports(), [2]);
    }
}

#[test]
fn a_list_that_keeps_no_account_is_asked_about_every_packet_of_every_connection() {
    for workers in MODES {
        let lists =
            [add(at(1), AclWay::FromPort, "1 tcp allow-related"), add(at(1), AclWay::ToPort, "1 tcp,tp_src=80 drop")];
        let bench = &mut bridge_of_three(workers, lists);
        assert_eq!(bench.send(1, &there(CLIENT, WEB, Carries::Syn)).ports(), [2]);
        assert_eq!(twice(bench, 2, &back(WEB, CLIENT, Carries::SynAck)), dropped());
        assert_eq!(twice(bench, 1, &there(CLIENT, WEB, Carries::Ack)).ports(), [2]);
    }
}

#[test]
fn who_is_rejected_is_told() {
    for workers in MODES {
        let bench = &mut bridge_of_three(workers, [add(BRIDGE, AclWay::FromPort, "1 \"\" reject")]);
        for (frame, proto) in [(there(CLIENT, WEB, Carries::Syn), 6), (there(CLIENT, DNS, Carries::Datagram), 1)] {
            let Fate { sent, drops } = bench.send(1, &frame);
            let [(1, answer)] = &sent[..] else { panic!("{sent:?} {drops:?}") };
            assert_eq!((&answer[..6], &answer[6..12], answer[14 + 9]), (&mac(1)[..], &mac(2)[..], proto));
            assert_eq!((&answer[26..30], &answer[30..34]), (&[10, 0, 0, 2][..], &[10, 0, 0, 1][..]));
        }
    }
}

#[test]
fn a_change_of_lists_is_in_force_for_flows_that_are_known() {
    for workers in MODES {
        let bench = &mut bridge_of_three(workers, []);
        let frame = there(CLIENT, DNS, Carries::Datagram);
        assert_eq!(twice(bench, 1, &frame).ports(), [2]);
        let list = acl(BRIDGE, AclWay::ToPort, "1 udp,tp_dst=53 drop");
        bench.apply(vec![Change::Acl(Delta::add(list.clone()))]);
        assert_eq!(twice(bench, 1, &frame), dropped());
        bench.apply(vec![Change::Acl(Delta::remove(list))]);
        assert_eq!(twice(bench, 1, &frame).ports(), [2]);
    }
}

#[test]
fn on_a_node_lists_see_the_service_on_the_way_in_and_the_backend_on_the_way_out() {
    const VIP: &str = "10.96.0.1:80";
    const BACKEND: &str = "10.0.0.2:8080";
    for (lists, passes) in [
        (vec![], true),
        (vec![add(at(A), AclWay::FromPort, "1 tcp,nw_dst=10.96.0.1,tp_dst=80 drop")], false),
        (vec![add(at(A), AclWay::FromPort, "1 tcp,nw_dst=10.0.0.2,tp_dst=8080 drop")], true),
        (vec![add(at(B), AclWay::ToPort, "1 tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=8080 drop")], false),
        (vec![add(at(B), AclWay::ToPort, "1 tcp,nw_dst=10.96.0.1 drop")], true),
        (vec![add(BRIDGE, AclWay::ToPort, "2 tcp,tp_dst=8080 allow-related\n1 \"\" drop")], true),
    ] {
        for workers in MODES {
            let bench = &mut node(workers);
            bench.apply(lists.clone());
            let syn = packet((A, ROUTER), CLIENT, VIP, 64, Carries::Syn);
            if !passes {
                assert_eq!(twice(bench, A, &syn), dropped(), "{lists:?}");
                continue;
            }
            assert_eq!(bench.send(A, &syn).ports(), [B], "{lists:?}");
            let answer = packet((B, ROUTER), BACKEND, CLIENT, 64, Carries::SynAck);
            assert_eq!(twice(bench, B, &answer).ports(), [A], "{lists:?}");
            let ack = packet((A, ROUTER), CLIENT, VIP, 64, Carries::Ack);
            assert_eq!(twice(bench, A, &ack).ports(), [B], "{lists:?}");
        }
    }
}
