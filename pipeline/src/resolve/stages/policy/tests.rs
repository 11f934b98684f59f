//! Pod a (10.0.0.1, port 1) and pod b (10.0.0.2, port 2) of [`crate::resolve::trial`], the node at port 3, strangers behind
//! the uplink.

use std::sync::Arc;

use api::{Action, Block, GroupId, NamedPort, Peers, PortMatch, PortName, Ports, Rule, Ruleset};

use super::*;
use crate::resolve::trial::{ACK, SYN, Trial, UPLINK, ZONE, endpoints, flow, icmp, ip, router};

const A: [&str; 2] = ["10.0.0.1", "fd00::1"];
const B: [&str; 2] = ["10.0.0.2", "fd00::2"];
const NODE: PortId = PortId(3);
/// The groups of a, and of b.
const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];
const HTTP: PortName = PortName(7);

fn subject(address: &str, name: &str, port: Option<u16>, group: GroupId) -> Subject {
    Subject {
        key: AddressKey { bridge: ZONE, address: ip(address) },
        name: format!("pod/test/{name}").into(),
        identity: u64::from(group.0),
        port: port.map(PortId),
        groups: [group].into(),
        ports: [NamedPort { name: HTTP, proto: Proto::Tcp, port: 8000 + group.0 as u16 }].into(),
        ingress: None,
        egress: None,
    }
}

/// Rulesets in order of their numbers from 1; b's ingress is the first, a's egress the second.
fn trial(rulesets: Vec<Ruleset>) -> Trial {
    let has = |id: u32| rulesets.iter().any(|ruleset| ruleset.id.0 == id).then_some(RulesetId(id));
    let local = api::Router { local: Some(NODE), ..router() };
    let mut changes = endpoints();
    changes.push(Change::Router(Delta::replace(router(), local)));
    changes.extend(A.map(|a| Subject { egress: has(2), ..subject(a, "a", Some(1), GROUPS[0]) }).map(add));
    changes.extend(B.map(|b| Subject { ingress: has(1), ..subject(b, "b", Some(2), GROUPS[1]) }).map(add));
    changes.extend(rulesets.into_iter().map(|ruleset| Change::Ruleset(Delta::add(ruleset))));
    Trial::new(&STAGE, &changes)
}

fn add(subject: Subject) -> Change {
    Change::Subject(Delta::add(subject))
}

fn rule(action: Action, peers: Peers, ports: Option<&[PortMatch]>) -> Arc<Rule> {
    Arc::new(Rule { action, policy: "networkpolicy test/p".into(), index: 0, peers, ports: ports.map(Into::into) })
}

/// What NetworkPolicies that isolate and have these rules come to.
fn isolating(id: u32, rules: &[Arc<Rule>]) -> Ruleset {
    let otherwise = "default of test/p".into();
    Ruleset { id: RulesetId(id), rules: rules.into(), admin: 0, isolates: true, otherwise }
}

fn of_group(group: GroupId) -> Peers {
    Peers { groups: [group].into(), ..Peers::default() }
}

fn anybody() -> Peers {
    Peers { any: true, ..Peers::default() }
}

fn of_block(cidr: &str, except: &[&str]) -> Peers {
    let except = except.iter().map(|net| net.parse().unwrap()).collect();
    Peers { blocks: [Block { cidr: cidr.parse().unwrap(), except }].into(), ..Peers::default() }
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch { proto: Proto::Tcp, ports: Ports::Range(first, last) }
}

fn to(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// What becomes of a first packet that comes in by `port`: `None` when it passes, else who decided.
fn fate(trial: &Trial, port: u16, frame: &[u8]) -> Option<(DropReason, String)> {
    match trial.decide(port, frame, |_| ()) {
        (Next::Continue, walk) => {
            assert!(walk.denied.is_none());
            None
        }
        (Next::Drop(reason), walk) => Some((reason, walk.denied.expect("who decided").decider())),
        other => panic!("{other:?}"),
    }
}

fn passes(trial: &Trial, port: u16, proto: u8, src: &str, dst: &str, dport: u16) -> bool {
    fate(trial, port, &flow(proto, &to(src, 4000), &to(dst, dport), SYN)).is_none()
}

#[test]
fn n1_who_is_selected_by_nothing_is_open() {
    let trial = trial(vec![]);
    for (a, b) in A.into_iter().zip(B) {
        for proto in [6, 17, 132] {
            assert!(passes(&trial, 1, proto, a, b, 80) && passes(&trial, 2, proto, b, a, 80));
        }
    }
}

#[test]
fn n7_n8_no_rule_lets_nobody_in_and_a_rule_without_peers_and_ports_everybody() {
    let (closed, open) =
        (trial(vec![isolating(1, &[])]), trial(vec![isolating(1, &[rule(Action::Accept, anybody(), None)])]));
    for (a, b) in A.into_iter().zip(B) {
        for (frame, way) in [
            (flow(6, &to(a, 4000), &to(b, 80), SYN), 1),
            (flow(17, &to(a, 4000), &to(b, 80), 0), 1),
            (flow(132, &to(a, 4000), &to(b, 80), 1), 1),
            (icmp(a, b, if a == A[0] { 8 } else { 128 }, 7), 1),
        ] {
            let denied = Some((DropReason::PolicyIngress, "default of test/p".to_owned()));
            assert_eq!(fate(&closed, way, &frame), denied);
            assert_eq!(fate(&open, way, &frame), None);
        }
        assert!(passes(&closed, 2, 6, b, a, 80), "isolated in one direction only");
    }
}

#[test]
fn n2_both_sides_must_let_it_pass() {
    let accept = |id: u32, group| isolating(id, &[rule(Action::Accept, of_group(group), None)]);
    let both = trial(vec![accept(1, GROUPS[0]), accept(2, GROUPS[1])]);
    let closed_out = trial(vec![accept(1, GROUPS[0]), isolating(2, &[])]);
    let closed_in = trial(vec![isolating(1, &[]), accept(2, GROUPS[1])]);
    for (a, b) in A.into_iter().zip(B) {
        assert!(passes(&both, 1, 6, a, b, 80));
        let frame = flow(6, &to(a, 4000), &to(b, 80), SYN);
        assert_eq!(fate(&closed_out, 1, &frame).unwrap().0, DropReason::PolicyEgress);
        assert_eq!(fate(&closed_in, 1, &frame).unwrap().0, DropReason::PolicyIngress);
    }
}

#[test]
fn n11_n13_n21_ports_are_of_a_protocol_and_icmp_has_none() {
    let trial = trial(vec![isolating(1, &[rule(Action::Accept, anybody(), Some(&[tcp(80, 90)]))])]);
    for (a, b) in A.into_iter().zip(B) {
        for (proto, port, expected) in [
            (6, 79, false),
            (6, 80, true),
            (6, 85, true),
            (6, 90, true),
            (6, 91, false),
            (17, 80, false),
            (132, 80, false),
        ] {
            assert_eq!(passes(&trial, 1, proto, a, b, port), expected, "{proto} {port}");
        }
        assert!(fate(&trial, 1, &icmp(a, b, if a == A[0] { 8 } else { 128 }, 7)).is_some());
    }
}

#[test]
fn n12_a_named_port_is_the_destinations_and_nothing_where_it_is_matched_as_an_address() {
    let named = [PortMatch { proto: Proto::Tcp, ports: Ports::Named(HTTP) }];
    let inward = trial(vec![isolating(1, &[rule(Action::Accept, anybody(), Some(&named))])]);
    let by_address = trial(vec![isolating(1, &[rule(Action::Accept, of_block("10.0.0.0/8", &[]), Some(&named))])]);
    let outward = trial(vec![isolating(2, &[rule(Action::Accept, of_group(GROUPS[1]), Some(&named))])]);
    let outward_address = trial(vec![isolating(2, &[rule(Action::Accept, of_block("10.0.0.0/8", &[]), Some(&named))])]);
    for (port, is_http) in [(8002, true), (8001, false), (80, false)] {
        for trial in [&inward, &by_address, &outward] {
            assert_eq!(passes(trial, 1, 6, A[0], B[0], port), is_http, "{port}");
            assert!(!passes(trial, 1, 17, A[0], B[0], port));
        }
        assert!(!passes(&outward_address, 1, 6, A[0], B[0], port), "{port}");
        assert!(!passes(&outward, 1, 6, A[0], "203.0.113.1", port), "no pod, no names");
    }
}

#[test]
fn n14_n15_blocks_are_of_any_address_of_their_family_without_their_exceptions() {
    let trial = trial(vec![isolating(2, &[rule(Action::Accept, of_block("10.0.0.0/8", &["10.0.1.0/24"]), None)])]);
    for (address, expected) in
        [(B[0], true), ("10.0.1.9", false), ("10.0.2.0", true), ("11.0.0.1", false), ("203.0.113.1", false)]
    {
        assert_eq!(passes(&trial, 1, 6, A[0], address, 80), expected, "{address}");
    }
    assert!(!passes(&trial, 1, 6, A[1], B[1], 80), "another family");
}

#[test]
fn n18_the_node_is_where_its_port_is_whatever_anybody_says_of_himself() {
    let trial = trial(vec![isolating(1, &[]), isolating(2, &[])]);
    for (node, (a, b)) in ["192.0.2.1", "2001:db8::1"].into_iter().zip(A.into_iter().zip(B)) {
        assert!(passes(&trial, NODE.0, 6, node, b, 80), "a probe");
        assert!(!passes(&trial, UPLINK.0, 6, node, b, 80), "somebody who says that he is the node");
        assert!(passes(&trial, 1, 6, a, node, 10250), "to the node");
        let gateway = if node.contains(':') { "fd00::fe" } else { "10.0.0.254" };
        assert!(passes(&trial, 1, 17, a, gateway, 53), "to the gateway");
    }
}

#[test]
fn n19_what_a_pod_sends_to_itself_passes_networkpolicies_and_not_the_admins() {
    let own = |rules: &[Arc<Rule>], admin| {
        let ruleset = |id| Ruleset { admin, ..isolating(id, rules) };
        let mut trial = trial(vec![ruleset(2)]);
        trial.apply(&A.map(|a| {
            let before = Subject { egress: Some(RulesetId(2)), ..subject(a, "a", Some(1), GROUPS[0]) };
            Change::Subject(Delta::replace(before.clone(), Subject { ingress: Some(RulesetId(2)), ..before }))
        }));
        A.map(|a| passes(&trial, 1, 6, a, a, 80))
    };
    assert_eq!(own(&[], 0), [true; 2]);
    assert_eq!(own(&[rule(Action::Deny, anybody(), None)], 1), [false; 2]);
}

#[test]
fn tiers_are_asked_in_order_and_a_pass_goes_on_behind_its_own() {
    let admin = |first: Action, rest: &[Arc<Rule>]| {
        let rules: Vec<_> =
            [rule(first, of_group(GROUPS[0]), Some(&[tcp(80, 80)]))].iter().chain(rest).cloned().collect();
        rules
    };
    let deny_all = rule(Action::Deny, anybody(), None);
    for (first, isolates, expected) in [
        (Action::Accept, true, true),
        (Action::Deny, true, false),
        (Action::Pass, true, false),
        (Action::Pass, false, true),
        (Action::Deny, false, false),
    ] {
        // Behind the first rule of tier Admin, one that denies all, which a pass passes by.
        let rules = admin(first, std::slice::from_ref(&deny_all));
        let ruleset = Ruleset { admin: 2, isolates, ..isolating(1, &rules) };
        assert_eq!(passes(&trial(vec![ruleset]), 1, 6, A[0], B[0], 80), expected, "{first:?} {isolates}");
    }
    // Baseline: what no rule matches, and what is passed on, is accepted.
    for (action, expected) in [(Action::Deny, false), (Action::Accept, true), (Action::Pass, true)] {
        let ruleset = Ruleset { isolates: false, ..isolating(1, &admin(action, std::slice::from_ref(&deny_all))) };
        assert_eq!(passes(&trial(vec![ruleset]), 1, 6, A[0], B[0], 80), expected, "{action:?}");
    }
    let baseline = Ruleset { isolates: false, ..isolating(1, &admin(Action::Deny, &[])) };
    assert!(passes(&trial(vec![baseline]), 1, 6, A[0], B[0], 81));
}

#[test]
fn known_connections_and_neighbour_discovery_are_not_asked() {
    let trial = trial(vec![isolating(1, &[]), isolating(2, &[])]);
    let solicitation = icmp(A[1], B[1], 135, 0);
    assert_eq!(fate(&trial, 1, &solicitation), None);
    // A group is nobody's ingress, and is asked of the sender's egress.
    let mdns = flow(17, "10.0.0.1:5353", "224.0.0.251:5353", 0);
    assert_eq!(fate(&trial, 1, &mdns).unwrap().0, DropReason::PolicyEgress);
    let late = flow(6, "10.0.0.1:4000", "10.0.0.2:80", ACK);
    assert!(fate(&trial, 1, &late).is_some(), "what belongs to no connection opens one");
}

#[test]
fn pods_that_are_attached_elsewhere_are_asked_for_only_by_a_trace() {
    let mut trial = trial(vec![isolating(1, &[]), isolating(2, &[])]);
    trial.apply(&[
        add(Subject { egress: Some(RulesetId(2)), ..subject("10.9.0.1", "c", None, GROUPS[0]) }),
        add(Subject { ingress: Some(RulesetId(1)), ..subject("10.9.0.2", "d", None, GROUPS[1]) }),
    ]);
    let out = flow(6, "10.9.0.1:4000", "203.0.113.9:80", SYN);
    let into = flow(6, "203.0.113.9:4000", "10.9.0.2:80", SYN);
    for (frame, reason) in [(out, DropReason::PolicyEgress), (into, DropReason::PolicyIngress)] {
        assert_eq!(fate(&trial, UPLINK.0, &frame), None);
        let (next, _) = trial.decide(UPLINK.0, &frame, |walk| walk.everywhere = true);
        assert_eq!(next, Next::Drop(reason));
    }
    // A stranger that comes in nowhere here is not the node, wherever his packet is put.
    let into = flow(6, "203.0.113.9:4000", "10.9.0.2:80", SYN);
    let (next, _) = trial.decide(NODE.0, &into, |walk| walk.everywhere = true);
    assert_eq!(next, Next::Drop(DropReason::PolicyIngress));
}

#[test]
fn n24_a_known_connection_stands_if_it_would_be_made_now() {
    let mut trial = trial(vec![]);
    let original = Tuple { zone: ZONE, proto: 6, src: ip(A[0]), dst: ip("10.96.0.1"), sport: 4000, dport: 80 };
    let reply = Tuple { src: ip(B[0]), sport: 8080, ..original.turned() };
    let stands = |trial: &Trial, port: PortId| trial.stage.stands(&original, &reply, port, Some(NODE));
    assert!(stands(&trial, PortId(1)));
    trial.apply(&[
        Change::Ruleset(Delta::add(isolating(
            1,
            &[rule(Action::Accept, of_group(GROUPS[0]), Some(&[tcp(8080, 8080)]))],
        ))),
        add(Subject { ingress: Some(RulesetId(1)), ..subject(B[0], "b", Some(2), GROUPS[1]) }),
    ]);
    assert!(stands(&trial, PortId(1)), "the port is the backend's, not the service's");
    trial.apply(&[Change::Ruleset(Delta::add(isolating(1, &[])))]);
    assert!(!stands(&trial, PortId(1)));
    assert!(stands(&trial, NODE), "the node's own connections stand");
}

#[test]
fn n24_what_was_cut_is_not_taken_up_again_from_its_middle() {
    let trial = trial(vec![isolating(1, &[])]);
    // What b says to a in the middle of something may be an answer to what a opened, or of what b opened itself.
    let middle = flow(6, &to(B[0], 80), &to(A[0], 4000), ACK);
    let opening = flow(6, &to(B[0], 80), &to(A[0], 4000), SYN);
    assert_eq!(fate(&trial, 2, &middle), None);
    trial.live.be_strict();
    assert_eq!(fate(&trial, 2, &middle).unwrap().0, DropReason::PolicyIngress);
    let (next, walk) = trial.decide(2, &middle, |_| ());
    assert!(next == Next::Drop(DropReason::PolicyIngress) && walk.guard & crate::burst::guard::SYN != 0);
    assert_eq!(fate(&trial, 2, &opening), None);
    assert_eq!(fate(&trial, 2, &flow(6, &to(B[0], 80), "192.0.2.1:4000", ACK)), None, "to the node");
}

#[test]
fn a_denial_rests_on_both_pods_and_on_the_rules() {
    let frame = flow(6, "10.0.0.1:4000", "10.0.0.2:80", SYN);
    let accept = isolating(1, &[rule(Action::Accept, anybody(), None)]);
    let changes = [
        Change::Ruleset(Delta::replace(isolating(1, &[]), accept)),
        add(subject(B[0], "b", Some(2), GROUPS[1])),
        add(subject(A[0], "a", Some(1), GROUPS[1])),
    ];
    for change in changes {
        let mut trial = trial(vec![isolating(1, &[])]);
        let (next, walk) = trial.decide(1, &frame, |_| ());
        assert_eq!(next, Next::Drop(DropReason::PolicyIngress));
        let (deps, made) = (walk.asked.deps(false), trial.live.cells.now());
        trial.apply(std::slice::from_ref(&change));
        assert!(!trial.live.cells.unchanged_since(&deps.cells(), made), "{change:?}");
    }
}
