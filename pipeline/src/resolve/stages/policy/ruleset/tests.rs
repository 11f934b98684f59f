//! What a ruleset answers is what its rules say, read one by one.

use api::{Block, Peers, PortMatch, RulesetId};
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

/// A rule matches a connection.
fn matches(rule: &Rule, question: &Question<'_>) -> bool {
    let peers = &rule.peers;
    let as_pod = peers.any || peers.groups.iter().any(|group| question.groups.contains(group));
    let holds = |net: &IpNet| net.contains(&question.address);
    let as_address = peers.blocks.iter().any(|block| holds(&block.cidr) && !block.except.iter().any(holds));
    let Some(ports) = &rule.ports else { return as_pod || as_address };
    let Some((proto, port)) = question.to else { return false };
    let matches = |one: &PortMatch, names: bool| match one.ports {
        Ports::Range(first, last) => one.proto == proto && (first..=last).contains(&port),
        Ports::Named(name) => names && one.proto == proto && question.named.contains(&NamedPort { name, proto, port }),
    };
    let number = ports.iter().any(|one| matches(one, false));
    let name = ports.iter().any(|one| matches(one, true));
    as_pod && name || as_address && if question.way == Way::Ingress { name } else { number }
}

/// Whether it is accepted, and by which rule.
fn expected(ruleset: &Ruleset, question: &Question<'_>) -> (bool, Option<usize>) {
    let Ruleset { rules, admin, isolates, .. } = ruleset;
    let mut at = 0;
    while at < rules.len() {
        let in_admin = at < *admin as usize;
        if matches(&rules[at], question) {
            match rules[at].action {
                Action::Accept => return (true, Some(at)),
                Action::Deny => return (!in_admin && *isolates && question.to_itself, Some(at)),
                Action::Pass if in_admin => {
                    at = *admin as usize;
                    continue;
                }
                Action::Pass => break,
            }
        }
        at += 1;
    }
    (!isolates || question.to_itself, None)
}

fn protos() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)]
}

/// Few numbers, so that they meet.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(80), Just(81), Just(443), Just(65535)]
}

fn net(pool: &'static [&'static str]) -> impl Strategy<Value = IpNet> {
    proptest::sample::select(pool).prop_map(|text| text.parse().unwrap())
}

const NETS: &[&str] =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "::/0", "fd00::/16", "fd00::3/128"];
const ADDRESSES: &[&str] =
    &["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "203.0.113.1", "fd00::3", "fd00::4", "2001:db8::1"];

fn blocks() -> impl Strategy<Value = Block> {
    (net(NETS), proptest::collection::vec(net(NETS), 0..3)).prop_map(|(cidr, except)| {
        let within = |net: &IpNet| cidr.contains(net) && *net != cidr;
        Block { cidr, except: except.into_iter().filter(within).collect() }
    })
}

fn rules() -> impl Strategy<Value = Arc<Rule>> {
    let groups = proptest::collection::btree_set((0..12u32).prop_map(GroupId), 0..4);
    let peers = (proptest::bool::weighted(0.1), groups, proptest::collection::vec(blocks(), 0..3));
    let peers = peers.prop_map(|(any, groups, blocks)| Peers {
        any,
        groups: groups.into_iter().collect(),
        blocks: blocks.into(),
    });
    let one = prop_oneof![
        (port(), port()).prop_map(|(a, b)| Ports::Range(a.min(b), a.max(b))),
        (0..3u32).prop_map(|name| Ports::Named(PortName(name))),
    ];
    let one = (protos(), one).prop_map(|(proto, ports)| PortMatch { proto, ports });
    let ports = proptest::option::of(proptest::collection::vec(one, 0..3));
    let action = prop_oneof![3 => Just(Action::Accept), 2 => Just(Action::Deny), 1 => Just(Action::Pass)];
    (action, peers, ports).prop_map(|(action, peers, ports)| {
        Arc::new(Rule { action, policy: "p".into(), index: 0, peers, ports: ports.map(Into::into) })
    })
}

#[derive(Clone, Debug)]
struct Asked {
    ingress: bool,
    address: IpAddr,
    groups: Vec<GroupId>,
    to: Option<(Proto, u16)>,
    named: Vec<NamedPort>,
    to_itself: bool,
}

fn questions() -> impl Strategy<Value = Asked> {
    let groups = proptest::collection::btree_set((0..12u32).prop_map(GroupId), 0..12);
    let named =
        (0..3u32, protos(), port()).prop_map(|(name, proto, port)| NamedPort { name: PortName(name), proto, port });
    let address = proptest::sample::select(ADDRESSES).prop_map(|text| text.parse().unwrap());
    let to = proptest::option::of((protos(), port()));
    (any::<bool>(), address, groups, to, proptest::collection::vec(named, 0..4), proptest::bool::weighted(0.2))
        .prop_map(|(ingress, address, groups, to, named, to_itself)| Asked {
            ingress,
            address,
            groups: groups.into_iter().collect(),
            to,
            named,
            to_itself,
        })
}

proptest! {
    #[test]
    fn a_ruleset_answers_what_its_rules_say_one_by_one(
        few in proptest::collection::vec(rules(), 0..12), times in 1usize..120, admin in 0u32..14, isolates: bool,
        asked in proptest::collection::vec(questions(), 1..20),
    ) {
        // So that there is more than one group of rules, now and then.
        let repeats = if times > 100 { times } else { 1 };
        let all: Vec<_> = std::iter::repeat_n(&few, repeats).flatten().cloned().collect();
        let admin = admin.min(all.len() as u32);
        let ruleset = Ruleset { id: RulesetId(1), rules: all.into(), admin, isolates, otherwise: "default".into() };
        let compiled = Compiled::new(&ruleset);
        prop_assert_eq!(&compiled.ruleset(), &ruleset);
        for Asked { ingress, address, groups, to, named, to_itself } in &asked {
            let way = if *ingress { Way::Ingress } else { Way::Egress };
            let question = Question { way, address: *address, groups, to: *to, named, to_itself: *to_itself };
            let verdict = compiled.decide(&question);
            let (accepts, rule) = expected(&ruleset, &question);
            prop_assert_eq!(verdict.accepts, accepts, "{:?}", question);
            let found = verdict.rule.map(std::ptr::from_ref);
            prop_assert_eq!(found, rule.map(|at| Arc::as_ptr(&ruleset.rules[at])), "{:?}", question);
        }
    }
}
