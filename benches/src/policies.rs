//! Policies of the network of `crate::node`, as they arrive at a switch: resolved.
//!
//! ```text
//!   clients   10.1.0.x   groups 1 clients,  10 + app             egress  → a ruleset of its app
//!   backends  10.2.x.x   groups 2 backends, 1000 + app           ingress → a ruleset of its app
//!   others    10.3.x.x   groups 100000 + n                       pods of other nodes, whom rules name
//! ```
//!
//! An application is eleven clients, or a hundred backends. All its pods share a ruleset, of which the *last* rule is the one
//! that lets the measured connections through: no other matches, and whoever asks one rule after the other asks them all.
//! The others are what clusters write: pods of another application at a port, at a name of a port, at a range of them;
//! blocks of addresses with exceptions; anybody at a port that is not ours.

use std::net::IpAddr;
use std::sync::Arc;

use api::policy::{
    Action, Block, GroupId, NamedPort, Peers, PortMatch, PortName, Ports, Rule, Ruleset, RulesetId, Subject,
};
use api::{AddressKey, Change, Delta, MacAddr, PortId, Proto};
use ipnet::IpNet;

use crate::node::{self, BACKEND_PORT, CLIENTS, Family};
use crate::world::{BRIDGE, PORTS};

/// Rules of one policy.
const A_POLICY: usize = 10;
/// Rules of one ruleset, where rules are spread over a cluster.
const A_RULESET: usize = 100;
/// Clients, and backends, of one application.
const CLIENTS_EACH: usize = 11;
const BACKENDS_EACH: usize = 100;
/// Pods of other nodes.
const OTHERS: usize = 1000;

const ALL_CLIENTS: GroupId = GroupId(1);
const ALL_BACKENDS: GroupId = GroupId(2);
const FIRST_OF_CLIENTS: u32 = 10;
const FIRST_OF_BACKENDS: u32 = 1000;
const FIRST_OF_OTHERS: u32 = 100_000;
/// The rulesets: of clients from here on, of backends from there on.
const FIRST_EGRESS: u32 = 1;
const FIRST_INGRESS: u32 = 1_000_000;

/// How rules are divided among those who are subject to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As in a cluster: a hundred for an application, as many applications as there are rules for; pods of the others are
    /// subject to the same ones in turn.
    Applications,
    /// All of them decide for every client, and as many for every backend: the worst case of one ruleset.
    Everybody,
}

/// Policies that let clients speak to backends, and nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    /// Over this protocol.
    pub family: Family,
    /// Backends: one a service.
    pub services: usize,
    /// Rules; with none, nobody is selected and everything is let through.
    pub rules: usize,
    /// For whom.
    pub spread: Spread,
}

impl Policies {
    /// Rules of each ruleset, and rulesets, of both directions together where rules are spread.
    fn shape(&self) -> (usize, usize) {
        match self.spread {
            Spread::Applications => (self.rules.min(A_RULESET), (self.rules / A_RULESET).max(2)),
            Spread::Everybody => (self.rules, 2),
        }
    }

    /// The ruleset of an application.
    fn decides(&self, way: Way, application: usize) -> Option<RulesetId> {
        let (_, rulesets) = self.shape();
        let (first, count) = match way {
            Way::Egress => (FIRST_EGRESS, egress_of(rulesets)),
            Way::Ingress => (FIRST_INGRESS, rulesets - egress_of(rulesets)),
        };
        (self.rules > 0).then(|| RulesetId(first + (application % count) as u32))
    }

    /// The rules.
    fn rulesets(&self) -> impl Iterator<Item = Ruleset> {
        let (rules, rulesets) = self.shape();
        let egress = egress_of(rulesets);
        let ways = [(Way::Egress, egress), (Way::Ingress, rulesets - egress)];
        let each = ways.into_iter().flat_map(move |(way, count)| (0..count).map(move |n| ruleset(way, n, rules)));
        each.take(if rules == 0 { 0 } else { usize::MAX })
    }

    /// Everybody whom rules name or decide for.
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let clients = (0..CLIENTS).map(|n| {
            let groups = [ALL_CLIENTS, GroupId(FIRST_OF_CLIENTS + (n / CLIENTS_EACH) as u32)];
            let egress = self.decides(Way::Egress, n / CLIENTS_EACH);
            Subject { egress, ..subject(self.family.client(n), PORTS[0], node::client_mac(n), groups.into()) }
        });
        let backends = (0..self.services).map(|n| {
            let groups = [ALL_BACKENDS, GroupId(FIRST_OF_BACKENDS + (n / BACKENDS_EACH) as u32)];
            let ingress = self.decides(Way::Ingress, n / BACKENDS_EACH);
            Subject { ingress, ..subject(self.family.backend(n), PORTS[1], node::backend_mac(n), groups.into()) }
        });
        let others = (0..OTHERS).map(|n| {
            let groups = [GroupId(FIRST_OF_OTHERS + n as u32)].into();
            let name = PortName((n % 16) as u32);
            let ports = [NamedPort { name, proto: Proto::Tcp, port: 9000 + (n % 100) as u16 }].into();
            let known = subject(self.family.other(n), PORTS[1], MacAddr([2, 9, 0, 0, 0, 0]), groups);
            Subject { port: None, identity: n as u64 + 1, ports, ..known }
        });
        clients.chain(backends).chain(others)
    }

    /// All of it, for a switch that has none.
    pub fn changes(&self) -> Vec<Change> {
        let rulesets = self.rulesets().map(|ruleset| Change::Ruleset(Delta::add(ruleset)));
        rulesets.chain(self.subjects().map(|subject| Change::Subject(Delta::add(subject)))).collect()
    }

    /// From these rules to `then`, of the same pods.
    pub fn replaced(&self, then: &Self) -> Vec<Change> {
        let gone = self.rulesets().map(|ruleset| Change::Ruleset(Delta::remove(ruleset)));
        let come = then.rulesets().map(|ruleset| Change::Ruleset(Delta::add(ruleset)));
        let pods = self.subjects().zip(then.subjects()).filter(|(old, new)| old != new);
        let pods = pods.map(|(old, new)| Change::Subject(Delta::replace(old, new)));
        gone.chain(come).chain(pods).collect()
    }
}

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The clients'.
    Egress,
    /// The backends'.
    Ingress,
}

/// Of so many rulesets, those of clients: an application of theirs is a tenth of one of backends.
fn egress_of(rulesets: usize) -> usize {
    (rulesets / 10).max(1)
}

/// A pod, to which no rule applies.
pub fn subject(address: IpAddr, port: PortId, mac: MacAddr, groups: Arc<[GroupId]>) -> Subject {
    Subject {
        key: AddressKey { bridge: BRIDGE, address },
        name: format!("pod/default/{address}").into(),
        identity: node::identity(port, mac),
        port: Some(port),
        groups,
        ports: Arc::default(),
        ingress: None,
        egress: None,
    }
}

/// Ruleset `number` of a direction, with so many rules.
fn ruleset(way: Way, number: usize, rules: usize) -> Ruleset {
    let (first, to, peers) = match way {
        Way::Egress => (FIRST_EGRESS, "clients", ALL_BACKENDS),
        Way::Ingress => (FIRST_INGRESS, "backends", ALL_CLIENTS),
    };
    let at = |place: usize, (peers, ports): (Peers, Vec<PortMatch>)| {
        let policy = format!("networkpolicy default/{to}-{number}-{}", place / A_POLICY).into();
        let index = (place % A_POLICY) as u32;
        Arc::new(Rule { action: Action::Accept, policy, index, peers, ports: Some(ports.into()) })
    };
    let ours = [Proto::Tcp, Proto::Udp]
        .map(|proto| PortMatch { proto, ports: Ports::Range(BACKEND_PORT, BACKEND_PORT) })
        .to_vec();
    let last = (Peers { groups: [peers].into(), ..Peers::default() }, ours);
    let others = (0..rules.saturating_sub(1)).map(|place| at(place, elsewhere(number * rules + place)));
    Ruleset {
        id: RulesetId(first + number as u32),
        rules: others.chain([at(rules.saturating_sub(1), last)]).collect(),
        admin: 0,
        isolates: true,
        otherwise: format!("default/{to}-{number}-0").into(),
    }
}

/// A rule that is about others, each time another.
fn elsewhere(number: usize) -> (Peers, Vec<PortMatch>) {
    let other = |n: usize| GroupId(FIRST_OF_OTHERS + (n % OTHERS) as u32);
    let group = |n| Peers { groups: [other(n)].into(), ..Peers::default() };
    let ports = |proto, first, last| vec![PortMatch { proto, ports: Ports::Range(first, last) }];
    let port = 10_000 + (number % 20_000) as u16;
    match number % 5 {
        // Pods of another application at the very port.
        0 => (group(number), ports(Proto::Tcp, BACKEND_PORT, BACKEND_PORT)),
        1 => {
            let name = PortName((number % 16) as u32);
            (group(number), vec![PortMatch { proto: Proto::Tcp, ports: Ports::Named(name) }])
        }
        2 => {
            let two = [other(number), other(number + 1)];
            let groups = if two.is_sorted() { two } else { [two[1], two[0]] };
            (Peers { groups: groups.into(), ..Peers::default() }, ports(Proto::Udp, port, port + 100))
        }
        3 => {
            let [_, _, high, low] = (number as u32).to_be_bytes();
            let net = |host, len| IpNet::new(IpAddr::from([172, 16 | high >> 4, high << 4 | low >> 4, host]), len);
            let [cidr, except] = [net(0, 24), net(64, 26)].map(|net| net.map(|net| net.trunc()));
            let block = cidr.ok().map(|cidr| Block { cidr, except: except.ok().into_iter().collect() });
            (Peers { blocks: block.into_iter().collect(), ..Peers::default() }, ports(Proto::Tcp, 0, u16::MAX))
        }
        _ => (Peers { any: true, ..Peers::default() }, ports(Proto::Tcp, port, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_rules_as_were_asked_for_and_every_pod_is_subject_to_some() {
        for (rules, spread, all) in
            [(10_000, Spread::Applications, 10_000), (100, Spread::Everybody, 200), (0, Spread::Everybody, 0)]
        {
            let policies = Policies { family: Family::Four, services: 500, rules, spread };
            let sets: Vec<Ruleset> = policies.rulesets().collect();
            assert_eq!(sets.iter().map(|set| set.rules.len()).sum::<usize>(), all, "{spread:?}");
            let known = |id: Option<RulesetId>| id.is_some_and(|id| sets.iter().any(|set| set.id == id));
            let pods: Vec<Subject> = policies.subjects().collect();
            assert_eq!(pods.len(), CLIENTS + 500 + OTHERS);
            assert_eq!(
                pods[..CLIENTS].iter().filter(|pod| known(pod.egress)).count(),
                if rules > 0 { CLIENTS } else { 0 }
            );
            let backends = &pods[CLIENTS..CLIENTS + 500];
            assert_eq!(backends.iter().filter(|pod| known(pod.ingress)).count(), if rules > 0 { 500 } else { 0 });
        }
    }
}
