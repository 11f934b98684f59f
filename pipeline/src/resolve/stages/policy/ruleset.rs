//! A ruleset in the form in which it is asked.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Action, GroupId, NamedPort, PortMatch, Ports, Proto, Rule, Ruleset};

use crate::live::denials::Way;

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

/// A ruleset.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    ruleset: Ruleset,
}

impl Compiled {
    pub(super) fn new(ruleset: &Ruleset) -> Self {
        Self { ruleset: ruleset.clone() }
    }

    /// As it was told.
    pub(super) fn ruleset(&self) -> Ruleset {
        self.ruleset.clone()
    }

    /// What becomes of a connection.
    pub(super) fn decide(&self, question: &Question<'_>) -> Verdict<'_> {
        let Ruleset { rules, admin, isolates, otherwise, .. } = &self.ruleset;
        let first = |from: usize| {
            let rest = rules.get(from..).unwrap_or_default();
            rest.iter().position(|rule| matches(rule, question)).map(|at| from + at)
        };
        let admin = *admin as usize;
        let passes = |at: usize| rules.get(at).is_some_and(|rule| rule.action == Action::Pass);
        let mut found = first(0);
        if found.is_some_and(|at| at < admin && passes(at)) {
            found = first(admin);
        }
        // Passed on by the last tier: as if no rule had matched.
        let found = found.filter(|&at| !passes(at));
        let rule = found.and_then(|at| rules.get(at)).map(AsRef::as_ref);
        let accepts = rule.map_or(!isolates, |rule| rule.action == Action::Accept);
        let to_itself = !accepts && *isolates && question.to_itself && found.is_none_or(|at| at >= admin);
        Verdict { accepts: accepts || to_itself, rule, otherwise, to_itself }
    }
}

/// A rule matches a connection.
fn matches(rule: &Rule, question: &Question<'_>) -> bool {
    let peers = &rule.peers;
    let as_pod = peers.any || peers.groups.iter().any(|group| question.groups.binary_search(group).is_ok());
    let as_address = || {
        let holds = |net: &ipnet::IpNet| net.contains(&question.address);
        peers.blocks.iter().any(|block| holds(&block.cidr) && !block.except.iter().any(holds))
    };
    let Some(ports) = &rule.ports else { return as_pod || as_address() };
    let Some(to) = question.to else { return false };
    let by_number = |one: &PortMatch| match one.ports {
        Ports::Range(first, last) => one.proto == to.0 && (first..=last).contains(&to.1),
        Ports::Named(_) => false,
    };
    let by_name = |one: &PortMatch| match one.ports {
        Ports::Range(..) => false,
        Ports::Named(name) => {
            one.proto == to.0 && question.named.contains(&NamedPort { name, proto: to.0, port: to.1 })
        }
    };
    let number = ports.iter().any(by_number);
    let name = !number && ports.iter().any(by_name);
    // N12: who is matched as an address has no names for its ports; whose own ports they are does not matter to them.
    as_pod && (number || name) || as_address() && (number || name && question.way == Way::Ingress)
}
