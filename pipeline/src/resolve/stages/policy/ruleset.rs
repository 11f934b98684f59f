//! A ruleset in the form in which it is asked: rows of rules by what a connection is (see [`crate::tables::rules`]).
//!
//! ```text
//!   (everybody's rules | those of each of the peer's groups) & (those of the port | those of each of its names)
//! | (those of blocks that hold the peer's address)            & (those of the port | those of its names: ingress only)
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use api::{Action, GroupId, NamedPort, PortName, Ports, Proto, Rule, Ruleset};

use crate::live::denials::Way;
use crate::tables::rules::addresses::Range;
use crate::tables::rules::{Addresses, Any, Build, Row, Set, Sets, Spans, Which, first};

/// What a ruleset is asked about a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) way: Way,
    /// Of the other end.
    pub(super) address: IpAddr,
    /// The groups of the other end, if it is a pod.
    pub(super) groups: &'a [GroupId],
    /// Destination protocol and port, of protocols that have ports.
    pub(super) to: Option<(Proto, u16)>,
    /// The named ports of the destination, if it is a pod.
    pub(super) named: &'a [NamedPort],
    /// Both ends are one pod.
    pub(super) to_itself: bool,
}

/// What a ruleset answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict<'a> {
    pub(super) accepts: bool,
    /// The rule that decided, if one did.
    pub(super) rule: Option<&'a Rule>,
    /// What decided if no rule did.
    pub(super) otherwise: &'a Arc<str>,
    /// It passes only because it is to the pod itself (N19).
    pub(super) to_itself: bool,
}

/// Rows of a question that are united without asking the system for memory.
const FEW: usize = 8;

/// A ruleset.
#[derive(Debug)]
pub(super) struct Compiled {
    ruleset: Ruleset,
    /// Rules by the address of the other end.
    blocks: Addresses,
    /// Rules by destination port, of TCP, UDP, SCTP.
    numbers: [Spans<u16>; 3],
    /// Rows that are found by other means.
    sets: Sets,
    /// The row of rules for everybody.
    anybody: u32,
    /// The row of rules for any protocol, ports or not.
    portless: u32,
    /// Rows of rules that name a group, by group.
    groups: Box<[(GroupId, u32)]>,
    /// Rows of rules that name a port, by name.
    names: Box<[((PortName, Proto), u32)]>,
}

const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];

impl Compiled {
    pub(super) fn new(ruleset: &Ruleset) -> Self {
        let rules = &ruleset.rules;
        let mut build = Build::new(rules.len());
        let blocks: Vec<_> = each(rules, |rule| &rule.peers.blocks)
            .flat_map(|(at, block)| Range::without(block.cidr, &block.except).into_iter().map(move |range| (range, at)))
            .collect();
        let numbers = PROTOS.map(|proto| {
            let any =
                rules.iter().enumerate().filter(|(_, rule)| rule.ports.is_none()).map(|(at, _)| (0, u16::MAX, at));
            let ranges = each(rules, ports).filter_map(|(at, one)| match one.ports {
                Ports::Range(first, last) if one.proto == proto => Some((first, last, at)),
                _ => None,
            });
            Spans::new(rules.len(), any.chain(ranges))
        });
        let those =
            |test: fn(&Rule) -> bool| rules.iter().enumerate().filter(move |(_, rule)| test(rule)).map(|(at, _)| at);
        let anybody = build.row(those(|rule| rule.peers.any));
        let portless = build.row(those(|rule| rule.ports.is_none()));
        let groups = rows(&mut build, each(rules, |rule| &rule.peers.groups).map(|(at, group)| (*group, at)).collect());
        let names = each(rules, ports).filter_map(|(at, one)| match one.ports {
            Ports::Named(name) => Some(((name, one.proto), at)),
            Ports::Range(..) => None,
        });
        let names = rows(&mut build, names.collect());
        let blocks = Addresses::new(rules.len(), &blocks);
        Self { ruleset: ruleset.clone(), blocks, numbers, sets: build.finish(), anybody, portless, groups, names }
    }

    /// As it was told.
    pub(super) fn ruleset(&self) -> Ruleset {
        self.ruleset.clone()
    }

    /// What becomes of a connection.
    pub(super) fn decide(&self, question: &Question<'_>) -> Verdict<'_> {
        let Ruleset { rules, admin, isolates, otherwise, .. } = &self.ruleset;
        let (admin, isolates) = (*admin as usize, *isolates);
        let passes = |at: usize| rules.get(at).is_some_and(|rule| rule.action == Action::Pass);
        let found = self.with_matching(question, |matching| match first(matching, 0) {
            Some(at) if at < admin && passes(at) => first(matching, admin),
            found => found,
        });
        // Passed on by the last tier: as if no rule had matched.
        let found = found.filter(|&at| !passes(at));
        let rule = found.and_then(|at| rules.get(at)).map(AsRef::as_ref);
        let accepts = rule.map_or(!isolates, |rule| rule.action == Action::Accept);
        let to_itself = !accepts && isolates && question.to_itself && found.is_none_or(|at| at >= admin);
        Verdict { accepts: accepts || to_itself, rule, otherwise, to_itself }
    }

    /// Call `then` with the rules that match.
    fn with_matching<R>(&self, question: &Question<'_>, then: impl FnOnce(&Matching<'_>) -> R) -> R {
        let row = |number| self.sets.row(number);
        let number = match question.to {
            Some((Proto::Tcp, port)) => self.numbers[0].row(port),
            Some((Proto::Udp, port)) => self.numbers[1].row(port),
            Some((Proto::Sctp, port)) => self.numbers[2].row(port),
            None => row(self.portless),
        };
        let mut ports = Rows::of(number);
        for port in question.named.iter().filter(|port| question.to == Some((port.proto, port.port))) {
            ports.extend(find(&self.names, &(port.name, port.proto)).map(row));
        }
        let mut pods = Rows::of(row(self.anybody));
        // Whichever has fewer.
        if question.groups.len() < self.groups.len() {
            pods.extend(question.groups.iter().filter_map(|group| find(&self.groups, group)).map(row));
        } else {
            let has = |(group, _): &&(GroupId, u32)| question.groups.binary_search(group).is_ok();
            pods.extend(self.groups.iter().filter(has).map(|(_, number)| row(*number)));
        }
        let addressed = self.blocks.row(question.address);
        // N12: who is matched as an address has no names for its ports; whose own ports they are does not matter to them.
        let its_ports = if question.way == Way::Ingress { ports.slice() } else { std::slice::from_ref(&number) };
        then(&Matching { pods: (Any(pods.slice()), Any(ports.slice())), addresses: (addressed, Any(its_ports)) })
    }
}

/// The rules that match a connection.
struct Matching<'a> {
    pods: (Any<'a, Row<'a>>, Any<'a, Row<'a>>),
    addresses: (Row<'a>, Any<'a, Row<'a>>),
}

impl Which for Matching<'_> {
    #[inline]
    fn groups(&self, word: usize) -> Option<u64> {
        Some(self.pods.groups(word)? | self.addresses.groups(word)?)
    }

    #[inline]
    fn set(&self, group: usize) -> Set {
        self.pods.set(group).or(&self.addresses.set(group))
    }

    #[inline]
    fn ahead(&self, group: usize) {
        self.pods.ahead(group);
        self.addresses.ahead(group);
    }
}

/// Some rows, at least one.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and lives on the stack of one question")]
enum Rows<'a> {
    Few([Row<'a>; FEW], usize),
    Many(Vec<Row<'a>>),
}

impl<'a> Rows<'a> {
    fn of(row: Row<'a>) -> Self {
        Self::Few([row; FEW], 1)
    }

    fn slice(&self) -> &[Row<'a>] {
        match self {
            Self::Few(rows, len) => rows.get(..*len).unwrap_or(rows),
            Self::Many(rows) => rows,
        }
    }
}

impl<'a> Extend<Row<'a>> for Rows<'a> {
    fn extend<T: IntoIterator<Item = Row<'a>>>(&mut self, more: T) {
        for row in more {
            match self {
                Self::Few(rows, len) => match rows.get_mut(*len) {
                    Some(place) => (*place, *len) = (row, *len + 1),
                    None => *self = Self::Many(rows.iter().copied().chain([row]).collect()),
                },
                Self::Many(rows) => rows.push(row),
            }
        }
    }
}

/// The ports of a rule that has any.
fn ports(rule: &Rule) -> &[api::PortMatch] {
    rule.ports.as_deref().unwrap_or_default()
}

/// What each rule has, with the rule's number.
fn each<'r, T: 'r>(rules: &'r [Arc<Rule>], of: fn(&'r Rule) -> &'r [T]) -> impl Iterator<Item = (usize, &'r T)> {
    rules.iter().enumerate().flat_map(move |(at, rule)| of(rule).iter().map(move |one| (at, one)))
}

/// A row for each key: of the rules that stand beside it.
fn rows<K: Copy + Ord>(build: &mut Build, mut pairs: Vec<(K, usize)>) -> Box<[(K, u32)]> {
    pairs.sort_unstable();
    let by_key = pairs.chunk_by(|(a, _), (b, _)| a == b);
    let row = |chunk: &[(K, usize)]| {
        let key = chunk.first()?.0;
        Some((key, build.row(chunk.iter().map(|(_, rule)| *rule))))
    };
    by_key.filter_map(row).collect()
}

fn find<K: Ord>(rows: &[(K, u32)], key: &K) -> Option<u32> {
    rows.binary_search_by(|(other, _)| other.cmp(key)).ok().and_then(|at| rows.get(at)).map(|(_, row)| *row)
}

#[cfg(test)]
mod tests;
