//! Policies: what becomes of a first packet from every class of ends to every other, at every port that matters.
//!
//! What a pair of classes comes to depends on the rules that decide for either, on which of them the other end is met by,
//! and on nothing else: pairs of which all that is equal are walked once. What the live rows say counts as much as what the
//! objects say, so that a row that is wrong makes a pair of its own.
//!
//! Ports that matter: those at which some rule of either begins or ends, and their neighbours; those that names stand
//! for; and one that no rule has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use api::state::{Probe, Walked, Ways};
use api::{PortMatch, Ports, Proto, Ruleset, RulesetId, Subject};

use super::ends::{Class, End, Who, classes, ends};
use super::live::Live;
use super::oracle::{Deciding, Met, Oracle, Side, Way};
use super::{Findings, Ground, Only, ended, icmp, packet, told};
use crate::Refusal;
use crate::cluster::model::{PolicyPort, PolicyPorts};

/// Packets that are walked at a time.
const BATCH: usize = 1 << 15;
/// Reasons of who is not let through by policy: of the sender, of the receiver.
const DENIED: [&str; 2] = ["policy-egress", "policy-ingress"];
/// How walks may end where policies let through and nobody of this node is to take it.
const NOBODY: [&str; 4] = ["no-route", "no-endpoint", "no-neighbor", "no-node-address"];

/// Numbers for things, equal for those that are.
#[derive(Debug)]
struct Numbers<T>(HashMap<T, u32>);

impl<T: Hash + Eq> Numbers<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// From 1 on.
    fn of(&mut self, thing: T) -> u32 {
        let next = self.0.len() as u32 + 1;
        *self.0.entry(thing).or_insert(next)
    }
}

/// How one end of a pair is decided for, by number: the rules of the objects, which of them meet the other end, and the same
/// of the live rows. 0: nothing decides.
type Half = [u32; 4];

/// What two classes have between them: which, and the questions at which they may be told apart.
type Meeting = (u32, Vec<Met>);

/// Rules that decide in one direction, and which of them each class is met by.
struct Direction<'a> {
    way: Way,
    deciding: Vec<Deciding<'a>>,
    /// By class: its place in `deciding`.
    of: Vec<Option<usize>>,
    /// By place in `deciding`, then by class.
    met: Vec<Vec<Option<Meeting>>>,
    /// By ruleset, then by class.
    met_live: HashMap<RulesetId, Vec<Option<u32>>>,
    numbers: Numbers<Vec<Met>>,
    numbers_live: Numbers<Vec<[bool; 3]>>,
}

impl<'a> Direction<'a> {
    fn new(way: Way, oracle: &Oracle<'a>, classes: &[Class<'a>]) -> Self {
        let mut made: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut deciding = Vec::new();
        let mut of = Vec::new();
        for class in classes {
            let of_pod = class.first().and_then(|end| end.pod()).map(|pod| oracle.deciding(pod, way));
            of.push(of_pod.filter(|of_pod| !of_pod.is_nothing()).map(|of_pod| {
                let next = deciding.len();
                let at = *made.entry(of_pod.made_of()).or_insert(next);
                if at == next {
                    deciding.push(of_pod);
                }
                at
            }));
        }
        let met = deciding.iter().map(|_| vec![None; classes.len()]).collect();
        let (numbers, numbers_live) = (Numbers::new(), Numbers::new());
        Self { way, deciding, of, met, met_live: HashMap::new(), numbers, numbers_live }
    }

    /// How class `at` is decided for, with class `other` at the other end.
    fn half(&mut self, oracle: &Oracle<'a>, live: &Live, classes: &[Class<'a>], at: usize, other: usize) -> Half {
        let mut half = [0; 4];
        if let Some(&Some(deciding)) = self.of.get(at) {
            half[0] = deciding as u32 + 1;
            half[1] = self.met(oracle, classes, deciding, other).0;
        }
        let subject = classes.get(at).and_then(|class| class.row);
        if let Some(ruleset) = subject.and_then(|subject| self.ruleset(live, subject)) {
            half[2] = ruleset.id.0.wrapping_add(1);
            half[3] = self.met_live(classes, ruleset, other);
        }
        half
    }

    fn ruleset<'l>(&self, live: &'l Live, subject: &Subject) -> Option<&'l Ruleset> {
        let id = if self.way == Way::Ingress { subject.ingress } else { subject.egress };
        live.rulesets.get(&id?)
    }

    fn met(&mut self, oracle: &Oracle<'a>, classes: &[Class<'a>], deciding: usize, other: usize) -> (u32, &[Met]) {
        let Self { deciding: all, met, numbers, .. } = self;
        let place = met.get_mut(deciding).and_then(|row| row.get_mut(other));
        let (Some(place), Some(rules)) = (place, all.get(deciding)) else { return (0, &[]) };
        let side = classes.get(other).and_then(Class::first).map(|end| end.side());
        let (number, met) = place.get_or_insert_with(|| {
            let met = side.map_or_else(Vec::new, |side| oracle.met(rules, &side));
            (numbers.of(met.clone()), met)
        });
        (*number, met)
    }

    fn met_live(&mut self, classes: &[Class<'a>], ruleset: &Ruleset, other: usize) -> u32 {
        let row = self.met_live.entry(ruleset.id).or_insert_with(|| vec![None; classes.len()]);
        let (Some(place), Some(class)) = (row.get_mut(other), classes.get(other)) else { return 0 };
        *place.get_or_insert_with(|| {
            let groups = class.row.map_or(&[][..], |row| &row.groups);
            let address = class.first().map(|end| end.address);
            let met = ruleset.rules.iter().map(|rule| {
                let block = |block: &api::Block| {
                    let within = |net: &ipnet::IpNet| address.is_some_and(|address| net.contains(&address));
                    within(&block.cidr) && !block.except.iter().any(within)
                };
                let grouped = rule.peers.groups.iter().any(|group| groups.contains(group));
                [rule.peers.any, grouped, rule.peers.blocks.iter().any(block)]
            });
            self.numbers_live.of(met.collect())
        })
    }

    /// What the objects say of one packet, for class `at`.
    fn judge(
        &mut self,
        oracle: &Oracle<'a>,
        classes: &[Class<'a>],
        (at, other): (usize, usize),
        (to, port): (&Side<'_>, Option<(Proto, u16)>),
    ) -> Option<super::oracle::Ruling<'a>> {
        let deciding = (*self.of.get(at)?)?;
        self.met(oracle, classes, deciding, other);
        let (_, met) = self.met.get(deciding)?.get(other)?.as_ref()?;
        Some(oracle.judge((self.deciding.get(deciding)?, self.way), met, (to, port), false))
    }
}

/// A packet that is to be walked, and what is to become of it.
struct Wanted<'a> {
    from: End<'a>,
    to: End<'a>,
    /// Refused by the policies of which end.
    denied: Option<usize>,
    /// Classes, for saying why.
    pair: (usize, usize),
}

/// Prove policies for all pairs of classes.
///
/// # Errors
/// When it takes too long.
pub(super) fn prove<'a>(
    ground: &Ground<'a>,
    oracle: &Oracle<'a>,
    live: &'a Live,
    only: &Only,
    findings: &mut Findings<'_>,
) -> Result<(), Refusal> {
    let asked = only.from.iter().chain(&only.to).flatten().copied().collect();
    let mut all = ends(ground, oracle, &asked);
    all.retain(|end| only.is_from(end.address) || only.is_to(end.address));
    let classes = classes(ground, oracle, live, &all);
    findings.verified.classes = classes.len() as u64;
    if ground.beyond.is_none() && classes.iter().flat_map(|class| &class.ends).any(|end| end.port.is_none()) {
        findings.note("nothing can come in from beyond: the bridge has neither uplink nor LOCAL port");
    }
    let mut prover = Prover {
        ground,
        oracle,
        live,
        classes: &classes,
        egress: Direction::new(Way::Egress, oracle, &classes),
        ingress: Direction::new(Way::Ingress, oracle, &classes),
        names: names(&classes),
        ports: HashMap::new(),
        seen: HashSet::new(),
        probes: Vec::new(),
        wanted: Vec::new(),
    };
    for from in 0..classes.len() {
        for to in 0..classes.len() {
            prover.pair((from, to), only);
            if prover.probes.len() >= BATCH {
                prover.walk(findings)?;
            }
            findings.verified.pairs += 1;
        }
    }
    prover.walk(findings)
}

/// Of each class, a number for its named ports: 0 for none.
fn names<'a>(classes: &'a [Class<'a>]) -> Vec<u32> {
    let mut numbers = Numbers::new();
    let mut of = |class: &'a Class<'a>| {
        let mut ports: Vec<_> =
            class.first().and_then(|end| end.pod()).into_iter().flat_map(|pod| &pod.ports).collect();
        ports.sort_by(|a, b| (&a.name, a.proto, a.port).cmp(&(&b.name, b.proto, b.port)));
        let ports: Vec<_> = ports.into_iter().map(|port| (&port.name, port.proto, port.port)).collect();
        let live: Vec<_> = class.row.map_or(&[][..], |row| &row.ports).to_vec();
        if ports.is_empty() && live.is_empty() { 0 } else { numbers.of((ports, live)) }
    };
    classes.iter().map(&mut of).collect()
}

/// The rules of a pair that decide on ports, by number: of the objects and of the live rows, both ways; and the names of the
/// ports of who receives.
type PortsKey = [u32; 5];

struct Prover<'g, 'a> {
    ground: &'g Ground<'g>,
    oracle: &'g Oracle<'a>,
    live: &'g Live,
    classes: &'g [Class<'a>],
    egress: Direction<'a>,
    ingress: Direction<'a>,
    names: Vec<u32>,
    ports: HashMap<PortsKey, Vec<(Proto, u16)>>,
    seen: HashSet<(Half, Half, u32, [bool; 5])>,
    probes: Vec<Probe>,
    wanted: Vec<Wanted<'a>>,
}

impl<'a> Prover<'_, 'a> {
    /// Two who stand for their classes: not one pod, and not a node and its own pod, which nothing keeps apart (N18, N19).
    fn representatives(&self, (from, to): (usize, usize), only: &Only) -> Option<(End<'a>, End<'a>)> {
        let apart = |from: &End<'_>, to: &End<'_>| {
            let own = |node: &End<'_>, pod: &End<'_>| match (node.who, pod.who) {
                (Who::Node(node), Who::Pod(pod)) => pod.node.as_ref() == Some(&node.name),
                _ => false,
            };
            !from.side().is_same_pod(&to.side()) && !own(from, to) && !own(to, from)
        };
        let froms = self.classes.get(from)?.ends.iter().filter(|end| only.is_from(end.address)).take(2);
        froms.into_iter().find_map(|from| {
            let mut tos = self.classes.get(to)?.ends.iter().filter(|end| only.is_to(end.address));
            tos.find(|to| apart(from, to)).map(|to| (*from, *to))
        })
    }

    /// What is to be walked for a pair of classes, unless it was for another that is alike.
    fn pair(&mut self, pair: (usize, usize), only: &Only) {
        let Some((from, to)) = self.representatives(pair, only) else { return };
        let pods = from.pod().is_some() || to.pod().is_some();
        if !pods || from.address.is_ipv4() != to.address.is_ipv4() {
            return;
        }
        let Some(entrance) = from.entrance else { return };
        let egress = self.egress.half(self.oracle, self.live, self.classes, pair.0, pair.1);
        let ingress = self.ingress.half(self.oracle, self.live, self.classes, pair.1, pair.0);
        let names = self.names.get(pair.1).copied().unwrap_or(0);
        let isolated = |at: usize| self.classes.get(at).is_some_and(|class| class.isolated);
        let alone = (isolated(pair.0), isolated(pair.1));
        let kind = [from.address.is_ipv4(), from.port.is_some(), to.port.is_some(), alone.0, alone.1];
        if !self.seen.insert((egress, ingress, names, kind)) {
            return;
        }
        let key = [egress[0], egress[2], ingress[0], ingress[2], names];
        if !self.ports.contains_key(&key) {
            let ports = self.ports_of(pair);
            self.ports.insert(key, ports);
        }
        let ports = self.ports.get(&key).cloned().unwrap_or_default();
        let router = self.live.routers.get(&self.ground.bridge).map(|router| router.mac);
        let side = to.side();
        let ends = (from.address, to.address);
        let want = |prover: &mut Self, probe: Probe, port: Option<(Proto, u16)>| {
            let denied = [(0, Way::Egress), (1, Way::Ingress)].into_iter().find_map(|(number, way)| {
                let (direction, at) = match way {
                    Way::Egress => (&mut prover.egress, pair),
                    Way::Ingress => (&mut prover.ingress, (pair.1, pair.0)),
                };
                let ruling = direction.judge(prover.oracle, prover.classes, at, (&side, port))?;
                (!ruling.allow).then_some(number)
            });
            prover.wanted.push(Wanted { from, to, denied, pair });
            prover.probes.push(probe);
        };
        for (proto, port) in ports {
            let probe = packet(entrance, ends, proto as u8, port, None);
            want(self, probe, Some((proto, port)));
        }
        let proto = icmp(to.address);
        want(self, packet(entrance, ends, proto, 0, None), None);
        // Also by way of the router, where the sender might have taken the short one.
        want(self, packet(entrance, ends, proto, 0, router), None);
    }

    /// The ports that matter between two classes.
    fn ports_of(&self, (from, to): (usize, usize)) -> Vec<(Proto, u16)> {
        let mut borders: BTreeSet<(Proto, u16)> = BTreeSet::new();
        let mut range = |proto: Option<Proto>, first: u16, last: u16| {
            for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp].into_iter().filter(|of| proto.is_none_or(|p| p == *of)) {
                let around = [first.checked_sub(1), Some(first), Some(last), last.checked_add(1)];
                borders.extend(around.into_iter().flatten().filter(|port| *port != 0).map(|port| (proto, port)));
            }
        };
        let receiver = self.classes.get(to);
        let pod = receiver.and_then(Class::first).and_then(|end| end.pod());
        let row = receiver.and_then(|class| class.row);
        for (direction, at) in [(&self.egress, from), (&self.ingress, to)] {
            let deciding = direction.of.get(at).copied().flatten().and_then(|at| direction.deciding.get(at));
            let rules = deciding.into_iter().flat_map(|deciding| &deciding.rules);
            for PolicyPort { proto, ports } in rules.flat_map(|asked| asked.rule.ports.iter().flatten()) {
                match ports {
                    PolicyPorts::Range(first, last) => range(*proto, *first, *last),
                    PolicyPorts::Named(name) => {
                        let named = pod.into_iter().flat_map(|pod| &pod.ports).filter(|port| port.name == *name);
                        named.for_each(|port| range(None, port.port, port.port));
                    }
                }
            }
            let subject = self.classes.get(at).and_then(|class| class.row);
            let ruleset = subject.and_then(|subject| direction.ruleset(self.live, subject));
            let rules = ruleset.into_iter().flat_map(|ruleset| ruleset.rules.iter());
            for PortMatch { proto, ports } in rules.flat_map(|rule| rule.ports.iter().flat_map(|ports| ports.iter())) {
                match ports {
                    Ports::Range(first, last) => range(Some(*proto), *first, *last),
                    Ports::Named(name) => {
                        let named = row.into_iter().flat_map(|row| row.ports.iter()).filter(|port| port.name == *name);
                        named.for_each(|port| range(None, port.port, port.port));
                    }
                }
            }
        }
        for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
            let nobodys = (1..=u16::MAX).rev().find(|port| !borders.contains(&(proto, *port)));
            borders.extend(nobodys.map(|port| (proto, port)));
        }
        borders.into_iter().collect()
    }

    /// Walk what is wanted, and compare.
    fn walk(&mut self, findings: &mut Findings<'_>) -> Result<(), Refusal> {
        let (probes, wanted) = (std::mem::take(&mut self.probes), std::mem::take(&mut self.wanted));
        let Some(walked) = findings.walk(&probes)? else { return Ok(()) };
        for ((probe, wanted), walked) in probes.iter().zip(&wanted).zip(&walked) {
            if !is_as_wanted(probe, wanted, walked) {
                self.tell(probe, wanted, walked, findings);
            }
        }
        Ok(())
    }

    fn tell(&mut self, probe: &Probe, wanted: &Wanted<'a>, walked: &Walked, findings: &mut Findings<'_>) {
        let what = told(&wanted.from.name(), &wanted.to.name(), probe.proto, probe.dport);
        let port = Proto::of(probe.proto).map(|proto| (proto, probe.dport));
        let side = wanted.to.side();
        let (from, to) = wanted.pair;
        let expected = match wanted.denied {
            Some(0) => self.egress.judge(self.oracle, self.classes, (from, to), (&side, port)),
            _ => self.ingress.judge(self.oracle, self.classes, (to, from), (&side, port)),
        };
        let expected = match (expected, wanted.denied) {
            (Some(ruling), None | Some(1)) => ruling.to_string(),
            (Some(ruling), Some(_)) => format!("{ruling} (egress)"),
            (None, _) => "allow: no policy says otherwise".to_owned(),
        };
        let at = wanted.to.port.filter(|_| wanted.denied.is_none());
        let expected = match at {
            Some(port) => format!("{expected}, out by {} untranslated", self.ground.store.port_name(port)),
            None => expected,
        };
        let traced = findings.switch.trace(probe);
        let by = if traced.decided_by.is_empty() { String::new() } else { format!(" ({})", traced.decided_by) };
        findings.counter("policy", what, expected, ended(walked, self.ground.store) + &by);
    }
}

/// Whether a walk ended as it should.
fn is_as_wanted(probe: &Probe, wanted: &Wanted<'_>, walked: &Walked) -> bool {
    let untranslated = walked.tuple.is_some_and(|tuple| (tuple.src.ip(), tuple.dst.ip()) == (probe.src, probe.dst));
    match (wanted.denied, walked.refused) {
        (Some(end), refused) => refused == DENIED.get(end).copied(),
        (None, None) => match wanted.to.port {
            Some(port) => walked.out == Ways::One(port) && untranslated,
            // Whoever is beyond may be masqueraded to.
            None => true,
        },
        (None, Some(reason)) => wanted.to.port.is_none() && NOBODY.contains(&reason),
    }
}
