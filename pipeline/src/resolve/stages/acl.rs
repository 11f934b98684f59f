//! acl: does an access list of an operator let this frame in, and out by each of its ways?
//!
//! Two stages of one kind, beside whatever Kubernetes says. `acl-from` asks the lists for what comes in by a port
//! (`from-lport`), about the packet as it came in; `acl-to` those for what leaves by one (`to-lport`), about its true source
//! and its translated destination. At a port the list of its bridge is asked first, then its own: both must let it pass.
//! What no rule matches passes.
//!
//! | frame | is asked about |
//! |---|---|
//! | ARP and whatever is not IP | never |
//! | ND, router discovery, MLD | never, as OVN has it: without them nobody finds anybody |
//! | a packet of a known connection, an error about one | not by a list that has an `allow-related` rule |
//! | a fragment without its transport header | not by rules about ports, flags or ICMP types (where connections are tracked fragments wait until they are whole) |
//!
//! Worked example: port 3 has `to-lport: allow-related tcp,tp_dst=80; drop`. A SYN to 10.0.0.3:80 passes by the first rule, and
//! the connection is remembered, on a plain bridge too: such a list makes that all of the bridge's IP is tracked. The answer leaves by
//! another port, and its ACK comes unasked. A datagram to 10.0.0.3:53 is dropped; flooded, it reaches the other ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Acl, AclAction, AclKey, AclPlace, AclWay, BridgeId, Change, Delta, PortId};

use crate::drop::DropReason;
use crate::key::{FlowKey, KeyMask};
use crate::live::connections::Direction;
use crate::parse::proto;
use crate::probe::cells::Touched;
use crate::resolve::stage::{IcmpError, Next, Reply, Stage, StageDef};
use crate::resolve::topology::own_address;
use crate::resolve::walk::Walk;
use crate::tables::Exact;

mod list;

use list::{Facts, List};

/// The stage that asks about what comes in.
pub const FROM: StageDef = StageDef {
    name: "acl-from",
    help: "does an access list let this frame in?",
    first_packet: false,
    build: || Box::new(Lists::new(AclWay::FromPort)),
};

/// The stage that asks about what leaves.
pub const TO: StageDef = StageDef {
    name: "acl-to",
    help: "does an access list let this frame out, way by way?",
    first_packet: false,
    build: || Box::new(Lists::new(AclWay::ToPort)),
};

/// The lists of one way.
#[derive(Clone, Debug)]
struct Lists {
    way: AclWay,
    /// Asked whenever `admit` has asked for the router, so under one name.
    bridges: Exact<BridgeId, Arc<List>>,
    ports: Exact<PortId, Arc<List>>,
    /// For masks and for people; no decision looks at it.
    names: Arc<Names>,
}

#[derive(Clone, Debug, Default)]
struct Names {
    ports: BTreeMap<PortId, (BridgeId, Arc<str>)>,
    bridges: BTreeMap<BridgeId, Arc<str>>,
}

/// What lists say of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pass,
    Drop,
    Reject,
}

impl Lists {
    fn new(way: AclWay) -> Self {
        Self { way, bridges: Exact::new("router"), ports: Exact::new("port"), names: Arc::default() }
    }

    fn set(&mut self, delta: &Delta<Acl>, touched: &mut Touched<'_>) {
        let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|acl| acl.key) else { return };
        if key.way != self.way {
            return;
        }
        let list = delta.new.as_ref().map(|acl| Arc::new(List::new(&acl.rules)));
        match key.at {
            AclPlace::Bridge(bridge) => self.bridges.set(bridge, list, touched),
            AclPlace::Port(port) => self.ports.set(port, list, touched),
        }
    }

    /// What one list says. `known`: of a packet whose connection was let through here.
    fn ask(&self, list: &List, facts: &Facts, at: AclPlace, known: bool, walk: &mut Walk<'_>) -> Answer {
        if known && list.is_stateful() {
            return Answer::Pass;
        }
        let Some((index, rule)) = list.ask(facts) else { return Answer::Pass };
        walk.say(|| {
            let (way, name) = (if self.way == AclWay::FromPort { "from-lport" } else { "to-lport" }, self.name(at));
            format!("acl {way} {name} rule {index} (priority {}): {}", rule.priority, word(rule.action))
        });
        match rule.action {
            AclAction::Allow | AclAction::AllowRelated => Answer::Pass,
            AclAction::Drop => Answer::Drop,
            AclAction::Reject => Answer::Reject,
        }
    }

    fn bridge(&self, facts: &Facts, walk: &mut Walk<'_>) -> Answer {
        let list = self.bridges.get(walk.bridge, &mut walk.asked);
        let known = walk.connection.is_some();
        list.map_or(Answer::Pass, |list| self.ask(list, facts, AclPlace::Bridge(walk.bridge), known, walk))
    }

    fn port(&self, port: PortId, facts: &Facts, known: bool, walk: &mut Walk<'_>) -> Answer {
        let list = self.ports.get(port, &mut walk.asked);
        list.map_or(Answer::Pass, |list| self.ask(list, facts, AclPlace::Port(port), known, walk))
    }

    /// What comes in by a port.
    fn from(&self, walk: &mut Walk<'_>) -> Answer {
        let Some(facts) = Facts::of(&walk.start, walk.start.destination(), walk.start.tp_dst()) else {
            return Answer::Pass;
        };
        match self.bridge(&facts, walk) {
            Answer::Pass => self.port(walk.start.in_port(), &facts, walk.connection.is_some(), walk),
            other => other,
        }
    }

    /// What leaves by ports: those that may not hear it are taken out.
    fn to(&self, walk: &mut Walk<'_>) -> Answer {
        let Some(facts) = Facts::of(&walk.start, walk.key.destination(), walk.key.tp_dst()) else {
            return Answer::Pass;
        };
        let whole = self.bridge(&facts, walk);
        if whole != Answer::Pass {
            walk.outputs.clear();
            return whole;
        }
        // A flooded packet was let through by some of its ways, not by all; an answer is wanted wherever it goes.
        let flooded = walk.outputs.len() > 1;
        let known = walk.connection.is_some_and(|found| !flooded || found.direction == Direction::Reply);
        let mut ways = std::mem::take(&mut walk.outputs);
        let mut refused = Answer::Pass;
        ways.retain(|copy| match self.port(copy.port, &facts, known, walk) {
            Answer::Pass => true,
            answer => {
                refused = if refused == Answer::Reject { refused } else { answer };
                false
            }
        });
        walk.outputs = ways;
        if walk.outputs.is_empty() { refused } else { Answer::Pass }
    }

    fn name(&self, at: AclPlace) -> &str {
        match at {
            AclPlace::Bridge(bridge) => self.names.bridges.get(&bridge).map_or("?", |name| name),
            AclPlace::Port(port) => self.names.ports.get(&port).map_or("?", |(_, name)| name),
        }
    }

    /// The ports of the bridge of a port.
    fn siblings(&self, port: PortId) -> impl Iterator<Item = PortId> {
        let home = self.names.ports.get(&port).map(|(bridge, _)| *bridge);
        let at_home = move |bridge: &BridgeId| Some(*bridge) == home;
        self.names.ports.iter().filter(move |(_, (bridge, _))| at_home(bridge)).map(|(port, _)| *port)
    }
}

fn word(action: AclAction) -> &'static str {
    match action {
        AclAction::Allow => "allow",
        AclAction::AllowRelated => "allow-related",
        AclAction::Drop => "drop",
        AclAction::Reject => "reject",
    }
}

/// The sender of a rejected packet is told: by the router, or where there is none in the name of its destination.
fn reject(walk: &Walk<'_>) -> Next {
    let reason = DropReason::Acl;
    if walk.start.ip_proto() == proto::TCP && !walk.start.is_later_fragment() {
        return Next::Reply(Reply::Reset(reason));
    }
    let own = |router| own_address(router, walk.start.in_port(), walk.start.source()?);
    let from = walk.router.and_then(own).or_else(|| walk.start.destination());
    from.map_or(Next::Drop(reason), |from| Next::Reply(Reply::Error(IcmpError::PortUnreachable, from, reason)))
}

impl Stage for Lists {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Acl(delta) => self.set(delta, touched),
                Change::Port(delta) => {
                    let (old, new) = (delta.old.as_ref(), delta.new.as_ref());
                    let same = |port: &api::Port| {
                        let known = self.names.ports.get(&port.id);
                        known.is_some_and(|(bridge, name)| *bridge == port.bridge && **name == *port.name)
                    };
                    match (old, new) {
                        (_, Some(port)) if same(port) => {}
                        (_, Some(port)) => {
                            let row = (port.bridge, port.name.as_str().into());
                            Arc::make_mut(&mut self.names).ports.insert(port.id, row);
                        }
                        (Some(port), None) => _ = Arc::make_mut(&mut self.names).ports.remove(&port.id),
                        (None, None) => {}
                    }
                }
                Change::Bridge(delta) => match (&delta.old, &delta.new) {
                    (_, Some(bridge)) => {
                        Arc::make_mut(&mut self.names).bridges.insert(bridge.id, bridge.name.as_str().into());
                    }
                    (Some(bridge), None) => _ = Arc::make_mut(&mut self.names).bridges.remove(&bridge.id),
                    (None, None) => {}
                },
                _ => {}
            }
        }
    }

    fn mask(&self, port: PortId, _routed: bool) -> KeyMask {
        let bridge = self.names.ports.get(&port).and_then(|(bridge, _)| self.bridges.peek(bridge));
        let of_bridge = bridge.map_or(KeyMask::EMPTY, |list| *list.mask());
        let of_port = |mask: KeyMask, port| self.ports.peek(&port).map_or(mask, |list| mask.union(list.mask()));
        match self.way {
            AclWay::FromPort => of_port(of_bridge, port),
            AclWay::ToPort if self.ports.is_empty() => of_bridge,
            // It may leave by any of them.
            AclWay::ToPort => self.siblings(port).fold(of_bridge, of_port),
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        let acl =
            |at, list: &List| Change::Acl(Delta::add(Acl { key: AclKey { at, way: self.way }, rules: list.rules() }));
        rows.extend(self.bridges.iter().map(|(bridge, list)| acl(AclPlace::Bridge(*bridge), list)));
        rows.extend(self.ports.iter().map(|(port, list)| acl(AclPlace::Port(*port), list)));
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let answer = match self.way {
            _ if !walk.listed || is_of_the_link(&walk.start) => Answer::Pass,
            AclWay::FromPort => self.from(walk),
            AclWay::ToPort => self.to(walk),
        };
        match answer {
            Answer::Drop => Next::Drop(DropReason::Acl),
            Answer::Reject => reject(walk),
            // What only first packets meet stands between.
            Answer::Pass if self.way == AclWay::FromPort && walk.connection.is_some() => Next::Enter("route"),
            Answer::Pass => Next::Continue,
        }
    }
}

/// ND (RFC 4861) and MLD (RFC 2710, RFC 3810).
fn is_of_the_link(key: &FlowKey) -> bool {
    key.ip_proto() == proto::ICMPV6 && matches!(key.icmp_type(), Some(130..=137 | 143))
}

#[cfg(test)]
mod tests;
