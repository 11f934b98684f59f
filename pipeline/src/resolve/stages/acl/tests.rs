use api::{AclMatch, AclRule, Vlan};
use proptest::prelude::*;

use super::*;
use crate::burst::VlanEdit;
use crate::live::connections::{Direction, Found, Name};
use crate::parse;
use crate::resolve::stages::kit;
use crate::resolve::trial::{ACK, SYN, Trial, ZONE, end, endpoints, flow, icmp, ip, packet, router};
use crate::resolve::walk::Copy;

const BRIDGE: AclPlace = AclPlace::Bridge(ZONE);

fn port(number: u16) -> AclPlace {
    AclPlace::Port(PortId(number))
}

fn rules(text: &str) -> Arc<[AclRule]> {
    AclRule::list(text).unwrap().into()
}

fn acl(at: AclPlace, way: AclWay, text: &str) -> Change {
    Change::Acl(Delta::add(Acl { key: AclKey { at, way }, rules: rules(text) }))
}

/// A stage with these lists, on a bridge with ports 1 to 3.
fn trial(def: &StageDef, lists: &[(AclPlace, &str)]) -> Trial {
    let way = if def.name == FROM.name { AclWay::FromPort } else { AclWay::ToPort };
    let mut changes: Vec<Change> = (1..4).map(|id| kit::port(PortId(id), Vlan::default(), 1500)).collect();
    changes.extend(lists.iter().map(|(at, text)| acl(*at, way, text)));
    Trial::new(def, &changes)
}

fn listed(walk: &mut Walk<'_>) {
    (walk.listed, walk.routed, walk.router) = (true, false, None);
}

fn out(ports: &[u16]) -> impl Fn(&mut Walk<'_>) {
    move |walk| {
        listed(walk);
        let way = |port: &u16| Copy { port: PortId(*port), vlan: VlanEdit::Keep, mtu: u16::MAX };
        walk.outputs.extend(ports.iter().map(way));
    }
}

fn known(trial: &Trial, walk: &mut Walk<'_>) {
    use crate::live::connections::{Committed, Event, Plan, Source, Tuple};
    let ((src, sport), dst) = (end("10.0.0.1:9"), end("10.0.0.2:80"));
    let original = Tuple { zone: ZONE, proto: 6, src, dst: dst.0, sport, dport: dst.1 };
    let event = Event { flags: SYN };
    let plan = Plan { original, dst, src: Source::Own, port: PortId(1), identities: [0; 2], event };
    match trial.live.connections.commit(&plan, trial.now, &trial.live.cells) {
        Committed::New(found) => walk.connection = Some(found),
        other => panic!("{other:?}"),
    }
}

const DENIED: Next = Next::Drop(DropReason::Acl);

#[test]
fn the_list_of_the_bridge_is_asked_before_that_of_the_port_and_both_must_let_it_pass() {
    let trial =
        trial(&FROM, &[(BRIDGE, "5 tcp,tp_dst=22 drop\n4 tcp,tp_dst=80 allow"), (port(1), "9 tcp,tp_dst=80 drop")]);
    for (port, to, next) in [
        (1, "10.0.0.2:22", DENIED),
        (2, "10.0.0.2:22", DENIED),
        (1, "10.0.0.2:80", DENIED),
        (2, "10.0.0.2:80", Next::Continue),
        (1, "10.0.0.2:81", Next::Continue),
    ] {
        assert_eq!(trial.decide(port, &flow(6, "10.0.0.1:9", to, SYN), listed).0, next, "{port} {to}");
    }
    let frame = flow(6, "10.0.0.1:9", "10.0.0.2:80", SYN);
    assert_eq!(trial.decide(1, &frame, |walk| walk.listed = false).0, Next::Continue, "nobody has lists there");
}

#[test]
fn a_trace_says_which_rule_decided() {
    let trial = trial(&FROM, &[(port(1), "7 udp allow\n900 tcp,tp_dst=80 drop")]);
    let frame = flow(6, "10.0.0.1:9", "10.0.0.2:80", SYN);
    let (_, walk) = trial.decide(1, &frame, |walk| {
        listed(walk);
        walk.steps = Some(vec![Default::default()]);
    });
    // Rules stand in the order in which they are asked; whoever makes a list sees to that.
    assert_eq!(walk.steps.unwrap()[0].note, "acl from-lport p1 rule 1 (priority 900): drop");
}

#[test]
fn what_leaves_is_asked_about_way_by_way_with_its_translated_destination_and_its_true_source() {
    let trial =
        trial(&TO, &[(port(2), "1 udp,nw_src=10.0.0.1,nw_dst=10.0.0.7,tp_dst=5 drop"), (port(3), "1 ip reject")]);
    let frame = flow(17, "10.0.0.1:9", "10.0.0.2:80", 0);
    let translated = |walk: &mut Walk<'_>| {
        out(&[1, 2, 3])(walk);
        walk.key.set_source(ip("10.9.9.9"));
        walk.key.set_destination(ip("10.0.0.7"));
        walk.key.set_tp_dst(5);
    };
    let (next, walk) = trial.decide(1, &frame, translated);
    let left: Vec<u16> = walk.outputs.iter().map(|copy| copy.port.0).collect();
    assert_eq!((next, left), (Next::Continue, vec![1]));
    let (next, walk) = trial.decide(1, &frame, out(&[1, 2, 3]));
    assert_eq!((next, walk.outputs.len()), (Next::Continue, 2));
    let (next, _) = trial.decide(1, &frame, out(&[3]));
    let error = Reply::Error(IcmpError::PortUnreachable, ip("10.0.0.2"), DropReason::Acl);
    assert_eq!(next, Next::Reply(error), "in the name of the destination");
}

#[test]
fn a_rejected_packet_is_answered_by_the_router_where_there_is_one_and_tcp_by_a_reset() {
    let mut trial = trial(&FROM, &[(BRIDGE, "1 \"\" reject")]);
    trial.apply(&[endpoints(), vec![Change::Router(Delta::add(router()))]].concat());
    let reset = Next::Reply(Reply::Reset(DropReason::Acl));
    for (frame, routed, plain) in [
        (flow(17, "10.0.0.1:9", "10.0.0.2:80", 0), "10.0.0.254", "10.0.0.2"),
        (flow(17, "[fd00::1]:9", "[fd00::2]:80", 0), "fd00::fe", "fd00::2"),
    ] {
        let error = |from| Next::Reply(Reply::Error(IcmpError::PortUnreachable, ip(from), DropReason::Acl));
        assert_eq!(trial.decide(1, &frame, |walk| walk.listed = true).0, error(routed));
        assert_eq!(trial.decide(1, &frame, listed).0, error(plain));
    }
    for to in ["10.0.0.2:80", "[fd00::2]:80"] {
        let from = if to.starts_with('[') { "[fd00::1]:9" } else { "10.0.0.1:9" };
        assert_eq!(trial.decide(1, &flow(6, from, to, SYN), listed).0, reset);
    }
}

#[test]
fn what_finds_neighbors_passes_unasked_and_is_told_from_the_rest() {
    for def in [&FROM, &TO] {
        let trial = trial(def, &[(BRIDGE, "1 \"\" drop")]);
        for kind in [133, 134, 135, 136, 143] {
            assert_eq!(trial.decide(1, &icmp("fd00::1", "fd00::2", kind, 0), out(&[2])).0, Next::Continue, "{kind}");
        }
        for frame in [icmp("fd00::1", "fd00::2", 128, 7), icmp("10.0.0.1", "10.0.0.2", 8, 7)] {
            assert_eq!(trial.decide(1, &frame, out(&[2])).0, DENIED);
        }
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend([0; 40]);
        assert_eq!(trial.decide(1, &arp, out(&[2])).0, Next::Continue);
    }
}

#[test]
fn packets_of_known_connections_are_asked_about_by_lists_that_keep_no_account_only() {
    let frame = flow(6, "10.0.0.1:9", "10.0.0.2:80", ACK);
    for (text, expected) in
        [("2 tcp,tp_dst=22 allow-related\n1 \"\" drop", Next::Enter("route")), ("1 \"\" drop", DENIED)]
    {
        let trial = trial(&FROM, &[(port(1), text)]);
        let (next, _) = trial.decide(1, &frame, |walk| {
            listed(walk);
            known(&trial, walk);
        });
        assert_eq!(next, expected, "{text}");
        assert_eq!(trial.decide(1, &frame, listed).0, DENIED);
    }
    let trial = trial(&FROM, &[]);
    let (next, walk) = trial.decide(1, &frame, |walk| {
        listed(walk);
        known(&trial, walk);
    });
    let Some(Found { name: Name { .. }, direction: Direction::Original, .. }) = walk.connection else { panic!() };
    assert_eq!(next, Next::Enter("route"), "what only first packets meet is left out");
}

#[test]
fn a_fragment_without_a_header_is_matched_by_no_rule_about_ports() {
    let trial =
        trial(&FROM, &[(BRIDGE, "3 udp,tp_dst=0-65535 drop\n2 udp,tp_src=0-65535 drop\n1 udp,nw_src=10.0.0.9 drop")]);
    let mut frame = packet(ip("10.0.0.1"), ip("10.0.0.2"), 17, &[0; 16]);
    frame[14 + 6..14 + 8].copy_from_slice(&[0, 8]);
    assert_eq!(trial.decide(1, &frame, listed).0, Next::Continue);
    frame[14 + 15] = 9;
    assert_eq!(trial.decide(1, &frame, listed).0, DENIED);
}

#[test]
fn ports_look_at_what_the_lists_of_their_ways_look_at_and_at_nothing_more() {
    use crate::key::Field;
    let mask = |trial: &Trial, port| trial.mask(PortId(port));
    let base = [Field::ETH_TYPE, Field::IP_PROTO, Field::IP_FRAG];
    let from = trial(&FROM, &[(port(1), "1 tcp,tp_dst=80 drop")]);
    assert_eq!(mask(&from, 1), FlowKey::mask(&[&base[..], &[Field::TP_DST]].concat()));
    assert_eq!(mask(&from, 2), KeyMask::EMPTY);
    let to = trial(&TO, &[(port(1), "1 tcp,tcp_flags=+syn drop"), (port(3), "1 ip,nw_src=10.0.0.0/8 allow")]);
    let all = FlowKey::mask(&[&base[..], &[Field::TCP_FLAGS, Field::IPV4_SRC]].concat());
    assert_eq!([1, 2, 3].map(|port| mask(&to, port)), [all; 3], "a frame may leave by any of them");
    let of_bridge = trial(&TO, &[(BRIDGE, "1 ip drop")]);
    assert_eq!(mask(&of_bridge, 2), FlowKey::mask(&[Field::ETH_TYPE]));
}

#[test]
fn a_decision_falls_with_the_lists_that_it_asked_and_with_no_other() {
    let mut trial = trial(&FROM, &[(port(1), "1 tcp drop"), (port(2), "1 tcp drop")]);
    let frame = flow(6, "10.0.0.1:9", "10.0.0.2:80", SYN);
    let (_, walk) = trial.decide(1, &frame, listed);
    let (deps, made) = (walk.asked.deps(false), trial.live.cells.now());
    let old = |at, text| Acl { key: AclKey { at, way: AclWay::FromPort }, rules: rules(text) };
    trial.apply(&[Change::Acl(Delta::remove(old(port(2), "1 tcp drop")))]);
    assert!(trial.live.cells.unchanged_since(&deps.cells(), made));
    trial.apply(&[Change::Acl(Delta::replace(old(port(1), "1 tcp drop"), old(port(1), "1 udp drop")))]);
    assert!(!trial.live.cells.unchanged_since(&deps.cells(), made));
    assert_eq!(trial.decide(1, &frame, listed).0, Next::Continue);
}

#[test]
fn its_rows_are_the_changes_that_made_it() {
    let lists = [(BRIDGE, "1 ip drop"), (port(2), "2 tcp allow-related\n1 \"\" reject")];
    let mut stage = (TO.build)();
    let live = crate::live::Live::default();
    let changes: Vec<Change> = lists.iter().map(|(at, text)| acl(*at, AclWay::ToPort, text)).collect();
    live.cells.change(|touched| {
        stage.apply(&[&changes[..], &[acl(port(1), AclWay::FromPort, "1 ip drop")]].concat(), touched)
    });
    let mut rows = Vec::new();
    stage.dump(&mut rows);
    assert_eq!(rows, changes, "each stage has the lists of its way");
}

/// A match of a rule, spelled out.
fn is_about(matches: &AclMatch, key: &FlowKey) -> bool {
    let (Some(src), Some(dst)) = (key.source(), key.destination()) else { return false };
    let AclMatch { version, src: from, dst: to, proto, sport, dport, tcp_flags, icmp_type, icmp_code } = *matches;
    let has_ports = matches!(key.ip_proto(), 6 | 17 | 132) && !key.is_later_fragment();
    let within = |range: Option<(u16, u16)>, port| range.is_none_or(|(a, b)| has_ports && a <= port && port <= b);
    let flags = u16::from_be_bytes(key.get(crate::key::Field::TCP_FLAGS));
    version.is_none_or(|version| src.is_ipv4() == (version == 4))
        && from.is_none_or(|net| net.contains(&src))
        && to.is_none_or(|net| net.contains(&dst))
        && proto.is_none_or(|proto| proto == key.ip_proto())
        && within(sport, key.tp_src())
        && within(dport, key.tp_dst())
        && tcp_flags.is_none_or(|(value, mask)| has_ports && key.ip_proto() == 6 && flags & mask == value)
        && icmp_type.is_none_or(|kind| key.icmp_type() == Some(kind))
        && icmp_code.is_none_or(|code| key.icmp_code() == Some(code))
}

fn a_match() -> impl Strategy<Value = String> {
    let four = prop::sample::select(vec![
        "",
        ",nw_src=10.0.0.0/8",
        ",nw_src=10.0.0.1",
        ",nw_dst=10.0.0.0/30",
        ",nw_dst=10.0.0.2",
    ]);
    let six = prop::sample::select(vec!["", ",ipv6_src=fd00::/8", ",ipv6_src=fd00::1", ",ipv6_dst=fd00::2/127"]);
    let ports =
        prop::sample::select(vec!["", ",tp_src=1-9", ",tp_dst=80", ",tp_dst=22-80", ",tp_src=9,tp_dst=0-65535"]);
    let flags = prop::sample::select(vec!["", ",tcp_flags=+syn-ack", ",tcp_flags=-syn", ",tcp_flags=+ack"]);
    let number = prop::sample::select(vec!["", ",nw_proto=6", ",nw_proto=47", ",nw_proto=1"]);
    let kinds = prop::sample::select(vec!["", ",icmp_type=8", ",icmp_code=0", ",icmp_type=128,icmp_code=0"]);
    prop_oneof![
        1 => Just(String::new()),
        2 => (four.clone(), number).prop_map(|(net, proto)| format!("ip{net}{proto}")),
        2 => six.clone().prop_map(|net| format!("ipv6{net}")),
        3 => (four.clone(), ports.clone(), flags).prop_map(|(net, ports, flags)| format!("tcp{net}{ports}{flags}")),
        2 => (four.clone(), ports.clone()).prop_map(|(net, ports)| format!("udp{net}{ports}")),
        1 => (six.clone(), ports.clone()).prop_map(|(net, ports)| format!("tcp6{net}{ports}")),
        1 => (six, ports).prop_map(|(net, ports)| format!("sctp6{net}{ports}")),
        1 => (four, kinds.clone()).prop_map(|(net, kind)| format!("icmp{net}{kind}")),
        1 => kinds.prop_map(|kind| format!("icmp6{kind}")),
    ]
}

fn a_frame() -> impl Strategy<Value = Vec<u8>> {
    let ends4 = (prop::sample::select(vec![1, 2, 9]), prop::sample::select(vec![2, 3, 4]));
    let sport = prop::sample::select(vec![0u16, 1, 9, 10, 4000]);
    let dport = prop::sample::select(vec![0u16, 21, 22, 80, 81]);
    let flags = prop::sample::select(vec![SYN, ACK, SYN | ACK, 0]);
    let kind = prop::sample::select(vec![0u8, 8, 3, 128]);
    (ends4, sport, dport, flags, kind, 0u8..9).prop_map(|((src, dst), sport, dport, flags, kind, what)| {
        let four = |host, port| format!("10.0.0.{host}:{port}");
        let six = |host, port| format!("[fd00::{host}]:{port}");
        match what {
            0 | 1 => flow(6, &four(src, sport), &four(dst, dport), flags),
            2 => flow(17, &four(src, sport), &four(dst, dport), 0),
            3 => flow(6, &six(src, sport), &six(dst, dport), flags),
            4 => flow(132, &six(src, sport), &six(dst, dport), 0),
            5 => icmp(&format!("10.0.0.{src}"), &format!("10.0.0.{dst}"), kind, 8),
            6 => icmp(&format!("fd00::{src}"), &format!("fd00::{dst}"), kind, 8),
            7 => packet(ip("10.0.0.1"), ip("11.0.0.2"), 47, &[0; 8]),
            _ => {
                let mut frame = flow(17, &four(src, sport), &four(dst, dport), 0);
                frame[14 + 6..14 + 8].copy_from_slice(&[0, 8]);
                frame
            }
        }
    })
}

proptest! {
    #[test]
    fn the_rule_that_decides_is_the_first_of_the_list_that_is_about_the_packet(
        matches in prop::collection::vec((a_match(), any::<bool>()), 0..40),
        frames in prop::collection::vec(a_frame(), 1..20),
    ) {
        let rule = |(text, drops): &(String, bool)| AclRule {
            priority: 1,
            matches: text.parse().unwrap(),
            action: if *drops { AclAction::Drop } else { AclAction::Allow },
        };
        let rules: Arc<[AclRule]> = matches.iter().map(rule).collect();
        let list = List::new(&rules);
        for frame in frames {
            let layers = parse::layers(&frame, frame.len(), None).unwrap();
            let whole = parse::key(PortId(1), &frame, &layers);
            let seen = whole.masked(list.mask());
            let facts = Facts::of(&seen, seen.destination(), seen.tp_dst());
            let decided = facts.and_then(|facts| list.ask(&facts).map(|(at, _)| at));
            prop_assert_eq!(decided, rules.iter().position(|rule| is_about(&rule.matches, &whole)), "{:?}", whole);
        }
    }
}
