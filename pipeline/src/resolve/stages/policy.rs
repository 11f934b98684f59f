//! policy: do the policies of the source pod let it out, and those of the destination pod let it in?
//!
//! Only first packets are asked: the verdict rides in the connection, and so do its answers and the errors about it (rule
//! N17). The stage stands behind `service`, so the destination is the backend (N16), and before anything that masquerades,
//! so the source is who it is.
//!
//! | whose | asked if | not asked |
//! |---|---|---|
//! | egress of the source pod | the frame came in by its port | to the node or the gateway (N18) |
//! | ingress of the destination pod | it is attached here | the frame came in where the node is (N18), whatever it says of itself |
//!
//! What a pod sends to itself by way of a service passes NetworkPolicies, and is asked of ClusterNetworkPolicies (N19, spec
//! 2.2). ARP, ND and MLD always pass (N21); other IP traffic, ICMP too, is matched by rules without ports only.
//!
//! Worked example: `web` (10.1.0.5) opens 10.96.0.10:5432, whose backend is `db` (10.1.0.6:5432). A ruleset isolates `db`
//! and accepts TCP 5432 from group 9. Subject 10.1.0.5 is in group 9: the connection is made. From 10.1.0.7, which is not,
//! nothing matches: `policy-ingress`, by `default of shop/db`.

use std::net::IpAddr;
use std::sync::Arc;

use api::{AddressKey, Change, Delta, PortId, Proto, RulesetId, Subject};

use super::guard::{is_of_the_link, is_to_the_node};
use crate::burst::guard;
use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::live::Now;
use crate::live::connections::Tuple;
use crate::live::denials::{Denied, Way};
use crate::parse::proto;
use crate::probe::cells::Touched;
use crate::resolve::ahead::{LAST_LOOK, Sight};
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::topology::Speaker;
use crate::resolve::tracking;
use crate::resolve::walk::Walk;
use crate::tables::Exact;

mod ruleset;

use ruleset::{Compiled, Question, Verdict};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "policy",
    help: "do the policies of the source let it out, those of the destination let it in?",
    first_packet: true,
    build: || Box::new(Policies::new()),
};

#[derive(Clone, Debug)]
struct Policies {
    subjects: Exact<AddressKey, Arc<Subject>>,
    rulesets: Exact<RulesetId, Arc<Compiled>>,
}

/// A connection that is to be made, as policies see it.
#[derive(Clone, Copy, Debug)]
struct Opening {
    src: IpAddr,
    dst: IpAddr,
    /// Of protocols with ports; `None` for others.
    to: Option<(Proto, u16)>,
}

/// One direction of it: whose rules are asked, and who is at the other end.
struct Side<'a> {
    way: Way,
    subject: &'a Arc<Subject>,
    ruleset: &'a Compiled,
    peer: Option<&'a Arc<Subject>>,
    peer_address: IpAddr,
}

impl Side<'_> {
    fn verdict(&self, opening: &Opening) -> Verdict<'_> {
        let destination = match self.way {
            Way::Ingress => Some(self.subject),
            Way::Egress => self.peer,
        };
        self.ruleset.decide(&Question {
            way: self.way,
            address: self.peer_address,
            groups: self.peer.map_or(&[], |peer| &peer.groups),
            to: opening.to,
            named: destination.map_or(&[], |subject| &subject.ports),
            to_itself: self.peer.is_some_and(|peer| peer.identity == self.subject.identity),
        })
    }
}

impl Policies {
    fn new() -> Self {
        Self { subjects: Exact::volatile("subject"), rulesets: Exact::volatile("ruleset") }
    }

    /// Ask one side. Returns why it does not pass.
    fn ask(&self, walk: &mut Walk<'_>, opening: &Opening, side: &Side<'_>) -> Result<(), Denied> {
        let verdict = side.verdict(opening);
        let Side { way, subject, .. } = side;
        let decider = || match &verdict.rule {
            Some(rule) => format!("{} {} rule {}", rule.policy, way.name(), rule.index),
            None => verdict.otherwise.to_string(),
        };
        let word = if verdict.accepts { "allowed" } else { "denied" };
        let itself = if verdict.to_itself { ", to itself" } else { "" };
        walk.say(|| format!("{} of {} {word} by {}{itself}", way.name(), subject.name, decider()));
        if verdict.accepts {
            return Ok(());
        }
        Err(match verdict.rule {
            Some(rule) => {
                let (subject, by) = (Arc::clone(&subject.name), Arc::clone(&rule.policy));
                Denied { subject, way: *way, by, rule: Some(rule.index) }
            }
            None => {
                let (subject, by) = (Arc::clone(&subject.name), Arc::clone(verdict.otherwise));
                Denied { subject, way: *way, by, rule: None }
            }
        })
    }

    /// A TCP packet of no connection, which passes as if it opened one. If it is no SYN, the other end may have opened what it
    /// is of, and be cut off.
    fn middle(&self, walk: &mut Walk<'_>, (src, dst): (IpAddr, IpAddr)) -> Next {
        if walk.has(guard::SYN) || self.is_of_the_node(walk, src) || is_to_the_node(walk) {
            return Next::Continue;
        }
        walk.guard_flags(guard::SYN);
        let back = Opening { src: dst, dst: src, to: Some((Proto::Tcp, walk.key.tp_src())) };
        let bridge = walk.bridge;
        let opener = self.subjects.get(AddressKey { bridge, address: dst }, &mut walk.asked);
        let opened = self.subjects.get(AddressKey { bridge, address: src }, &mut walk.asked);
        let here = |subject: &&Arc<Subject>| subject.port.is_some();
        for (way, subject, peer, peer_address, reason) in [
            (Way::Egress, opener, opened, src, DropReason::PolicyEgress),
            (Way::Ingress, opened, opener, dst, DropReason::PolicyIngress),
        ] {
            let Some(subject) = subject.filter(here) else { continue };
            let id = if way == Way::Egress { subject.egress } else { subject.ingress };
            let Some(ruleset) = id.and_then(|id| self.rulesets.get(id, &mut walk.asked)) else { continue };
            if let Err(denied) = self.ask(walk, &back, &Side { way, subject, ruleset, peer, peer_address }) {
                walk.denied = Some(denied);
                return Next::Drop(reason);
            }
        }
        Next::Continue
    }

    /// What came in where the node is is the node's. A trace may have put there what comes in nowhere here: then it is the
    /// node's if its address is.
    fn is_of_the_node(&self, walk: &mut Walk<'_>, src: IpAddr) -> bool {
        let Some(router) = walk.router.filter(|router| router.local == Some(walk.key.in_port())) else { return false };
        !walk.everywhere || walk.topology.speaker(router, src, &mut walk.asked) == Speaker::Node
    }

    fn first(&self, walk: &mut Walk<'_>, opening: &Opening) -> Next {
        let (bridge, in_port, everywhere) = (walk.bridge, walk.key.in_port(), walk.everywhere);
        let source = self.subjects.get(AddressKey { bridge, address: opening.src }, &mut walk.asked);
        let destination = self.subjects.get(AddressKey { bridge, address: opening.dst }, &mut walk.asked);
        let speaks_here = |subject: &Subject| subject.port.map_or(everywhere, |port| port == in_port);
        if let Some(subject) = source.filter(|subject| speaks_here(subject))
            && let Some(id) = subject.egress
            && !is_to_the_node(walk)
            && let Some(ruleset) = self.rulesets.get(id, &mut walk.asked)
        {
            let side = Side { way: Way::Egress, subject, ruleset, peer: destination, peer_address: opening.dst };
            if let Err(denied) = self.ask(walk, opening, &side) {
                walk.denied = Some(denied);
                return Next::Drop(DropReason::PolicyEgress);
            }
        }
        let of_the_node = self.is_of_the_node(walk, opening.src);
        if let Some(subject) = destination.filter(|subject| everywhere || subject.port.is_some())
            && let Some(id) = subject.ingress
            && !of_the_node
            && let Some(ruleset) = self.rulesets.get(id, &mut walk.asked)
        {
            let side = Side { way: Way::Ingress, subject, ruleset, peer: source, peer_address: opening.src };
            if let Err(denied) = self.ask(walk, opening, &side) {
                walk.denied = Some(denied);
                return Next::Drop(DropReason::PolicyIngress);
            }
        }
        Next::Continue
    }
}

impl Stage for Policies {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Subject(Delta { old, new }) => {
                    if let Some(key) = new.as_ref().or(old.as_ref()).map(|subject| subject.key) {
                        self.subjects.set(key, new.clone().map(Arc::new), touched);
                    }
                }
                Change::Ruleset(Delta { old, new }) => {
                    if let Some(id) = new.as_ref().or(old.as_ref()).map(|ruleset| ruleset.id) {
                        let compiled = new.as_ref().map(|ruleset| Arc::new(Compiled::new(ruleset)));
                        self.rulesets.set(id, compiled, touched);
                    }
                }
                _ => {}
            }
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        rows.extend(self.subjects.iter().map(|(_, row)| Change::Subject(Delta::add(Subject::clone(row)))));
        rows.extend(self.rulesets.iter().map(|(_, row)| Change::Ruleset(Delta::add(row.ruleset()))));
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn looks_ahead(&self) -> bool {
        !self.subjects.is_empty()
    }

    fn look_ahead(&self, sight: &mut Sight, look: usize, _now: Now) {
        // The destination is known when the service's backend is.
        let address = match look {
            0 => sight.tuple.src,
            LAST_LOOK => sight.to.ip(),
            _ => return,
        };
        let key = AddressKey { bridge: sight.tuple.zone, address };
        self.subjects.prefetch(self.subjects.hash(&key));
    }

    fn stands(&self, original: &Tuple, reply: &Tuple, port: PortId, local: Option<PortId>) -> bool {
        // Answers come from where it was opened to in truth.
        let to = Proto::of(original.proto).map(|proto| (proto, reply.sport));
        let opening = Opening { src: original.src, dst: reply.src, to };
        let at = |address| self.subjects.peek(&AddressKey { bridge: original.zone, address });
        let (source, destination) = (at(opening.src), at(opening.dst));
        let rules = |id: Option<RulesetId>| id.and_then(|id| self.rulesets.peek(&id));
        let out = source.filter(|subject| subject.port == Some(port)).and_then(|subject| {
            let ruleset = rules(subject.egress)?;
            Some(Side { way: Way::Egress, subject, ruleset, peer: destination, peer_address: opening.dst })
        });
        let into = destination.filter(|subject| subject.port.is_some() && local != Some(port)).and_then(|subject| {
            let ruleset = rules(subject.ingress)?;
            Some(Side { way: Way::Ingress, subject, ruleset, peer: source, peer_address: opening.src })
        });
        [out, into].iter().flatten().all(|side| side.verdict(&opening).accepts)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.routed || walk.connection.is_some() || is_of_the_link(walk) {
            return Next::Continue;
        }
        let (Some(src), Some(dst)) = (walk.key.source(), walk.key.destination()) else { return Next::Continue };
        let to = Proto::of(walk.key.ip_proto()).map(|proto| (proto, walk.key.tp_dst()));
        match self.first(walk, &Opening { src, dst, to }) {
            Next::Continue if walk.live.is_strict() && walk.key.ip_proto() == proto::TCP => {
                self.middle(walk, (src, dst))
            }
            next => next,
        }
    }
}

#[cfg(test)]
mod tests;
