//! A history: transactions, frames and the passing of time, with a fresh walk beside every frame. What plays it makes it up
//! at random (`same.rs`) or out of octets (the fuzz target `path`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::{
    Acl, AclKey, AclPlace, AclRule, AclWay, AddressKey, Bridge, BridgeId, Change, Delta, Endpoint, External, Guard,
    Neighbor, Port, PortId, Route, RouteKey, Router, Ruleset, RulesetId, Service, ServiceKey, ServiceRange, Station,
    StationKey, Subject, Vlan,
};
use ipnet::IpNet;
use pipeline::drop::DropReason;
use pipeline::probe::cells::Cells;
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;

use super::net::{bridge, port};
use super::{Bench, Fate, script};

/// Ports are numbered below this; so are those that do not exist.
pub(crate) const PORTS: u16 = 8;
/// Frames that are sent again after every change.
const RECENT: usize = 10;
/// Frames that left, to be answered.
const LEFT: usize = 16;

/// One noun as it shall be.
#[derive(Clone, Debug)]
pub(crate) enum Noun {
    Bridge(BridgeId, Option<(u32, u32, bool)>),
    Port(u16, Option<(BridgeId, Vlan, u16)>),
    Station(StationKey, Option<u16>),
    Router(BridgeId, Option<Router>),
    Endpoint(AddressKey, Option<Endpoint>),
    Neighbor(AddressKey, Option<Neighbor>),
    Route(RouteKey, Option<Route>),
    Service(ServiceKey, Option<Service>),
    ServiceRange(IpNet, bool),
    Acl(AclKey, Option<Arc<[AclRule]>>),
    Guard(PortId, Option<Guard>),
    Ruleset(RulesetId, Option<Ruleset>),
    Subject(AddressKey, Option<Subject>),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Transaction(Vec<Noun>),
    Frame(u16, Vec<u8>),
    Burst(u16, Vec<Vec<u8>>),
    /// All fragments of a datagram.
    Fragments(u16, Vec<Vec<u8>>),
    /// Whoever got one of the last frames that left answers it, TCP with these flags.
    Answer(usize, u8),
    /// Or says that it is unreachable.
    Unreachable(usize),
    /// Somebody ends the connection that is in this place of the list.
    Kill(usize),
    /// Time passes with the sweep, or all at once.
    Pass(u64),
    Jump(u64),
    Flush(BridgeId, Option<u16>),
}

/// What is programmed: the sum of all transactions.
#[derive(Default)]
struct Sum {
    bridges: BTreeMap<BridgeId, Bridge>,
    ports: BTreeMap<u16, Port>,
    stations: BTreeMap<StationKey, Station>,
    routers: BTreeMap<BridgeId, Router>,
    endpoints: BTreeMap<AddressKey, Endpoint>,
    neighbors: BTreeMap<AddressKey, Neighbor>,
    routes: BTreeMap<RouteKey, Route>,
    services: BTreeMap<ServiceKey, Service>,
    ranges: BTreeMap<IpNet, ServiceRange>,
    acls: BTreeMap<AclKey, Acl>,
    guards: BTreeMap<PortId, Guard>,
    rulesets: BTreeMap<RulesetId, Ruleset>,
    subjects: BTreeMap<AddressKey, Subject>,
}

/// What becomes of a row that shall be `new`; `None` if nothing changes.
fn replaced<K: Ord + Copy, T: Clone>(rows: &mut BTreeMap<K, T>, key: K, new: Option<T>) -> Option<Delta<T>> {
    let old = match &new {
        Some(new) => rows.insert(key, new.clone()),
        None => rows.remove(&key),
    };
    (old.is_some() || new.is_some()).then_some(Delta { old, new })
}

impl Sum {
    /// The changes that make a noun what it shall be, in the order in which nouns depend on each other. What cannot be
    /// (a port of no bridge) is left out.
    fn changes(&mut self, noun: Noun) -> Vec<Change> {
        let mut changes = Vec::new();
        match noun {
            Noun::Bridge(id, Some((limit, ageing, forward_bpdu))) => {
                let new = Bridge { mac_table_size: limit, mac_ageing: ageing, forward_bpdu, ..bridge(id) };
                changes.push(Change::Bridge(Delta { old: self.bridges.insert(id, new.clone()), new: Some(new) }));
            }
            Noun::Bridge(id, None) => {
                let Some(old) = self.bridges.remove(&id) else { return changes };
                let of = |key: &&AddressKey| key.bridge == id;
                let endpoints: Vec<_> = self.endpoints.keys().filter(of).copied().collect();
                let neighbors: Vec<_> = self.neighbors.keys().filter(of).copied().collect();
                let routes: Vec<_> = self.routes.keys().filter(|key| key.bridge == id).copied().collect();
                let nouns = endpoints.into_iter().map(|key| Noun::Endpoint(key, None));
                let nouns = nouns.chain(neighbors.into_iter().map(|key| Noun::Neighbor(key, None)));
                let nouns = nouns.chain(routes.into_iter().map(|key| Noun::Route(key, None)));
                nouns.chain([Noun::Router(id, None)]).for_each(|noun| changes.extend(self.changes(noun)));
                changes.extend(self.without_acls(AclPlace::Bridge(id)));
                let ports: Vec<u16> = self.ports.values().filter(|p| p.bridge == id).map(|p| p.id.0).collect();
                ports.into_iter().for_each(|port| changes.extend(self.changes(Noun::Port(port, None))));
                let keys: Vec<StationKey> = self.stations.keys().filter(|key| key.bridge == id).copied().collect();
                keys.into_iter().for_each(|key| changes.extend(self.changes(Noun::Station(key, None))));
                changes.push(Change::Bridge(Delta::remove(old)));
            }
            Noun::Port(id, Some((bridge, vlan, mtu))) => {
                if !self.bridges.contains_key(&bridge) {
                    return changes;
                }
                if self.ports.get(&id).is_some_and(|old| old.bridge != bridge) {
                    changes.extend(self.changes(Noun::Port(id, None)));
                }
                let new = Port { bridge, mtu, ..port(id, vlan) };
                changes.push(Change::Port(Delta { old: self.ports.insert(id, new.clone()), new: Some(new) }));
            }
            Noun::Port(id, None) => {
                let Some(old) = self.ports.remove(&id) else { return changes };
                let here = |station: &&Station| station.port.0 == id && station.key.bridge == old.bridge;
                let keys: Vec<StationKey> = self.stations.values().filter(here).map(|station| station.key).collect();
                keys.into_iter().for_each(|key| changes.extend(self.changes(Noun::Station(key, None))));
                changes.extend(self.without_acls(AclPlace::Port(PortId(id))));
                changes.push(Change::Port(Delta::remove(old)));
            }
            Noun::Station(key, Some(port)) => {
                if !self.bridges.contains_key(&key.bridge) {
                    return changes;
                }
                let new = Station { key, port: PortId(port) };
                changes.push(Change::Station(Delta { old: self.stations.insert(key, new), new: Some(new) }));
            }
            Noun::Station(key, None) => {
                changes.extend(self.stations.remove(&key).map(|old| Change::Station(Delta::remove(old))));
            }
            Noun::Router(bridge, row) => {
                let row = row.filter(|_| self.bridges.contains_key(&bridge));
                changes.extend(replaced(&mut self.routers, bridge, row).map(Change::Router));
            }
            Noun::Endpoint(key, row) => {
                let row = row.filter(|_| self.bridges.contains_key(&key.bridge));
                changes.extend(replaced(&mut self.endpoints, key, row).map(Change::Endpoint));
            }
            Noun::Neighbor(key, row) => {
                let row = row.filter(|_| self.bridges.contains_key(&key.bridge));
                changes.extend(replaced(&mut self.neighbors, key, row).map(Change::Neighbor));
            }
            Noun::Route(key, row) => {
                let row = row.filter(|_| self.bridges.contains_key(&key.bridge));
                changes.extend(replaced(&mut self.routes, key, row).map(Change::Route));
            }
            Noun::Service(key, row) => {
                changes.extend(replaced(&mut self.services, key, row).map(Change::Service));
            }
            Noun::ServiceRange(prefix, stays) => {
                let row = stays.then(|| ServiceRange { prefix, origin: String::new() });
                changes.extend(replaced(&mut self.ranges, prefix, row).map(Change::ServiceRange));
            }
            Noun::Acl(key, rules) => {
                let there = match key.at {
                    AclPlace::Bridge(bridge) => self.bridges.contains_key(&bridge),
                    AclPlace::Port(port) => self.ports.contains_key(&port.0),
                };
                let row = rules.filter(|_| there).map(|rules| Acl { key, rules });
                changes.extend(replaced(&mut self.acls, key, row).map(Change::Acl));
            }
            Noun::Guard(port, row) => changes.extend(replaced(&mut self.guards, port, row).map(Change::Guard)),
            Noun::Ruleset(id, row) => changes.extend(replaced(&mut self.rulesets, id, row).map(Change::Ruleset)),
            Noun::Subject(key, row) => changes.extend(replaced(&mut self.subjects, key, row).map(Change::Subject)),
        }
        changes
    }

    /// The access lists of a place go.
    fn without_acls(&mut self, at: AclPlace) -> Vec<Change> {
        let keys = [AclWay::FromPort, AclWay::ToPort].map(|way| AclKey { at, way });
        keys.into_iter().flat_map(|key| self.changes(Noun::Acl(key, None))).collect()
    }

    /// All nouns as one transaction.
    fn as_one(&self) -> Vec<Change> {
        let bridges = self.bridges.values().map(|bridge| Change::Bridge(Delta::add(bridge.clone())));
        let ports = self.ports.values().map(|port| Change::Port(Delta::add(port.clone())));
        let stations = self.stations.values().map(|station| Change::Station(Delta::add(*station)));
        let routers = self.routers.values().map(|router| Change::Router(Delta::add(router.clone())));
        let endpoints = self.endpoints.values().map(|endpoint| Change::Endpoint(Delta::add(endpoint.clone())));
        let neighbors = self.neighbors.values().map(|neighbor| Change::Neighbor(Delta::add(*neighbor)));
        let routes = self.routes.values().map(|route| Change::Route(Delta::add(route.clone())));
        let services = self.services.values().map(|service| Change::Service(Delta::add(service.clone())));
        let ranges = self.ranges.values().map(|range| Change::ServiceRange(Delta::add(range.clone())));
        let guards = self.guards.values().map(|guard| Change::Guard(Delta::add(guard.clone())));
        let rulesets = self.rulesets.values().map(|ruleset| Change::Ruleset(Delta::add(ruleset.clone())));
        let subjects = self.subjects.values().map(|subject| Change::Subject(Delta::add(subject.clone())));
        let policy = guards.chain(rulesets).chain(subjects);
        let node = routers.chain(endpoints).chain(neighbors).chain(routes).chain(services).chain(ranges);
        let acls = self.acls.values().map(|acl| Change::Acl(Delta::add(acl.clone())));
        bridges.chain(ports).chain(stations).chain(node).chain(policy).chain(acls).collect()
    }
}

/// What became of frames: of each, or of their fragments. Requests for neighbours are left out: they are sent once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    sent: Vec<(u16, Vec<u8>)>,
    drops: Vec<DropReason>,
}

/// Frames come in one by one, at the worker of their port or at one that knows no flow.
fn outcome(bench: &mut Bench, port: u16, frames: &[Vec<u8>], anew: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let before = bench.extra.len();
    for frame in frames {
        let Fate { sent, drops } = if anew { bench.send_anew(port, frame) } else { bench.send(port, frame) };
        outcome.sent.extend(sent);
        // That too many wait is one worker's business.
        outcome.drops.extend(drops.into_iter().filter(|reason| *reason != DropReason::NeighborOverload));
    }
    let extra = bench.extra.split_off(before);
    outcome.sent.extend(extra.into_iter().filter(|(_, frame)| !script::asks_for_a_neighbor(frame)));
    if anew {
        bench.forget_anew();
    }
    outcome
}

/// What connections that cannot be made come to. Whoever remembers one that has just ended may go on with it for a
/// second.
fn is_refused(outcome: &Outcome) -> bool {
    outcome.drops.iter().any(|reason| matches!(reason, DropReason::ConnectionsFull | DropReason::SnatPorts))
}

/// Frames that belong together, or one: what becomes of them is what a walk says now. If that cannot be told from a walk
/// without its effects, it is what becomes of them where no flow is known. Returns what left.
pub(crate) fn agrees(bench: &mut Bench, port: u16, frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    // The switch may answer again.
    bench.now.0 += Duration::from_millis(5);
    if let [frame] = frames {
        let decided = bench.walk(port, frame);
        let expected = decided.as_ref().and_then(|decided| bench.fate_of(frame, decided));
        let got = outcome(bench, port, frames, false);
        match (&decided, expected) {
            (_, Some(Fate { sent, drops })) => {
                assert_eq!(got, Outcome { sent, drops }, "port {port}, {frame:02x?}");
            }
            (None, _) => {
                assert!(got.sent.is_empty() && got.drops.len() == 1, "malformed, port {port}, {frame:02x?}");
                return Vec::new();
            }
            _ => {}
        }
    } else {
        outcome(bench, port, frames, false);
    }
    let anew = outcome(bench, port, frames, true);
    for time in ["after a walk elsewhere", "and as a hit"] {
        let got = outcome(bench, port, frames, false);
        assert!(
            got == anew || is_refused(&anew),
            "{time}: {got:02x?}, and anew {anew:02x?}; port {port}, {frames:02x?}"
        );
    }
    anew.sent
}

/// Two bridges and some ports, so that the first frames have somewhere to go.
pub(crate) fn beginning() -> Event {
    let both = [1, 2].map(|id| Noun::Bridge(BridgeId(id), Some((4, 3, false))));
    let ports = (1..PORTS - 1).map(|id| Noun::Port(id, Some((BridgeId(1 + id / 5), Vlan::default(), 1500))));
    Event::Transaction(both.into_iter().chain(ports).collect())
}

/// Services at the node's own address, under policy Local without a backend here for who is beyond, and at one beyond. They
/// remember their clients.
fn services() -> impl Iterator<Item = Noun> {
    let rows = [
        ("192.0.2.1:80", "10.0.0.2:8080", Some([].into())),
        ("[2001:db8::1]:80", "[fd00::2]:8080", Some([].into())),
        ("198.51.100.7:80", "10.0.0.2:8080", None),
        ("[2001:db8:7::7]:80", "[fd00::2]:8080", None),
    ];
    rows.into_iter().flat_map(|(at, backend, local)| {
        let external = Arc::new(External { local, sources: None, cluster: at.parse().unwrap() });
        super::node::service(at, backend).into_iter().filter_map(move |change| match change {
            Change::Service(Delta { new: Some(row), .. }) => {
                let row = Service { affinity: Some(30), external: Some(Arc::clone(&external)), ..row };
                Some(Noun::Service(row.key, Some(row)))
            }
            _ => None,
        })
    })
}

/// A bridge with a router on top.
pub(crate) fn beginning_of_a_node() -> Event {
    let Event::Transaction(mut nouns) = beginning() else { return beginning() };
    nouns.push(Noun::Port(PortId::STACK.0, Some((BridgeId(1), Vlan::default(), 1500))));
    nouns.extend(super::node::nouns((50_000, 50_003)).into_iter().filter_map(|change| match change {
        Change::Router(Delta { new: Some(row), .. }) => Some(Noun::Router(row.bridge, Some(row))),
        Change::Endpoint(Delta { new: Some(row), .. }) => Some(Noun::Endpoint(row.key, Some(row))),
        Change::Neighbor(Delta { new: Some(row), .. }) => Some(Noun::Neighbor(row.key, Some(row))),
        Change::Route(Delta { new: Some(row), .. }) => Some(Noun::Route(row.key, Some(row))),
        Change::Service(Delta { new: Some(row), .. }) => Some(Noun::Service(row.key, Some(row))),
        _ => None,
    }));
    nouns.extend(services());
    Event::Transaction(nouns)
}

/// Play a history on so many workers with so large caches, from this generation on. Returns the bench as it is then.
pub(crate) fn play(
    workers: usize,
    entries: usize,
    generation: u32,
    beginning: Event,
    events: impl IntoIterator<Item = Event>,
) -> Bench {
    let mut bench = Bench::with(workers, STAGES, Cells::starting_at(generation));
    bench.caches(entries, 1);
    let mut sum = Sum::default();
    let mut recent: Vec<(u16, Vec<Vec<u8>>)> = Vec::new();
    let mut left: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
    for event in std::iter::once(beginning).chain(events) {
        let came = match event {
            Event::Transaction(nouns) => {
                let changes: Vec<Change> = nouns.into_iter().flat_map(|noun| sum.changes(noun)).collect();
                bench.apply(changes);
                None
            }
            Event::Frame(port, frame) => Some((port, vec![frame])),
            Event::Fragments(port, frames) => Some((port, frames)),
            Event::Answer(place, flags) => {
                let answered =
                    left.get(place % LEFT).and_then(|(port, frame)| Some((*port, script::answer(frame, flags)?)));
                answered.map(|(port, frame)| (port, vec![frame]))
            }
            Event::Unreachable(place) => {
                let refused =
                    left.get(place % LEFT).and_then(|(port, frame)| Some((*port, script::unreachable(frame)?)));
                refused.map(|(port, frame)| (port, vec![frame]))
            }
            Event::Kill(place) => {
                let all = bench.live.connections.list();
                if let Some(view) = all.get(place % all.len().max(1)) {
                    bench.live.connections.kill(view.name, bench.now, &bench.live.cells);
                }
                None
            }
            Event::Burst(port, frames) => {
                // A burst goes by what was in force when it began; what it taught shows in what follows.
                bench.burst(port, &frames);
                None
            }
            Event::Pass(millis) => {
                bench.pass(Duration::from_millis(millis));
                None
            }
            Event::Jump(millis) => {
                bench.jump(Duration::from_millis(millis));
                None
            }
            Event::Flush(bridge, port) => {
                bench.live.stations.flush(bridge, port.map(PortId), &bench.live.cells);
                None
            }
        };
        if let Some((port, frames)) = came {
            left.extend(agrees(&mut bench, port, &frames));
            left.drain(..left.len().saturating_sub(LEFT));
            recent.insert(0, (port, frames));
            recent.truncate(RECENT);
            continue;
        }
        for (port, frames) in &recent {
            agrees(&mut bench, *port, frames);
        }
    }
    let cold = bench.cold(sum.as_one());
    let program = std::mem::replace(&mut bench.program, Program::new(STAGES));
    for port in (0..=PORTS).chain([PortId::STACK.0]) {
        assert_eq!(program.ingress(PortId(port)), cold.ingress(PortId(port)), "port {port}");
        for frame in recent.iter().flat_map(|(_, frames)| frames) {
            if bench.walk_by(&program, port, frame) == bench.walk_by(&cold, port, frame) {
                continue;
            }
            // Of several backends each program may choose another.
            let [grown, built] = [&program, &cold].map(|program| bench.choices(program, port, frame));
            assert_eq!(grown, built, "port {port}, {frame:02x?}");
        }
    }
    bench.program = program;
    // Every hit was walked again by the pipeline itself, too.
    assert_eq!(bench.events().get("cache_divergence"), None);
    bench
}
