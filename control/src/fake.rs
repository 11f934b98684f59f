//! A switch without packets: it keeps what it is told and shows it. For tests of this crate and of its clients.
//!
//! It is strict where a real switch would be harmed: `old` must be what it has, and a noun must not be named before it
//! exists or removed while it is named.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use api::state::{
    Captured, ConnectionState, Coverage, DenialState, DropState, NeighborState, PortState, PortStats, Probe,
    StationState, Traced, WorkerState,
};
use api::station::{Station, StationKey};
use api::{
    Acl, AclKey, AclPlace, AddressKey, Attached, Bridge, BridgeId, Change, Delta, Eligibility, Endpoint, Guard,
    HealthCheck, Hop, MacAddr, Neighbor, Port, PortId, Route, RouteKey, Router, Ruleset, RulesetId, Service,
    ServiceKey, ServiceRange, Subject, Transaction,
};

use crate::{Refusal, Switch};

/// The kinds of ports that it knows.
const KINDS: &[&str] = &["tap", "internal", "memory", "pcap", "null", "stack"];

/// The options that its ports have.
const OPTIONS: &[&str] = &["netns", "netns-inode", "ifname", "addresses", "routes"];

/// A switch without packets. Its fields are the test's to read and write.
#[derive(Debug, Default)]
pub struct FakeSwitch {
    /// Bridges it was told of.
    pub bridges: BTreeMap<BridgeId, Bridge>,
    /// Ports it was told of.
    pub ports: BTreeMap<PortId, Port>,
    /// Stations it was told of.
    pub stations: BTreeMap<StationKey, Station>,
    /// Routers it was told of.
    pub routers: BTreeMap<BridgeId, Router>,
    /// Endpoints it was told of.
    pub endpoints: BTreeMap<AddressKey, Endpoint>,
    /// Static neighbours it was told of.
    pub neighbors: BTreeMap<AddressKey, Neighbor>,
    /// Routes it was told of.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Services it was told of.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Ranges of service addresses it was told of.
    pub ranges: BTreeMap<ipnet::IpNet, ServiceRange>,
    /// Health-check ports it was told of.
    pub checks: BTreeMap<u16, HealthCheck>,
    /// Whether the node is to get traffic of load balancers.
    pub eligibility: BTreeMap<(), Eligibility>,
    /// Guards of ports it was told of.
    pub guards: BTreeMap<PortId, Guard>,
    /// Sets of rules it was told of.
    pub rulesets: BTreeMap<RulesetId, Ruleset>,
    /// Pods as policies see them that it was told of.
    pub subjects: BTreeMap<AddressKey, Subject>,
    /// Access lists it was told of.
    pub acls: BTreeMap<AclKey, Acl>,
    /// What policies shall have denied.
    pub denials: Vec<DenialState>,
    /// Connections that it shall have.
    pub connections: Vec<ConnectionState>,
    /// Stations that it shall have heard.
    pub learned: Vec<StationState>,
    /// Where `options:netns=` leads: ports with another one are refused. Shared, so that a test can let one appear.
    pub namespaces: Arc<Mutex<Vec<String>>>,
    /// What interfaces of ports shall be like.
    pub interfaces: BTreeMap<PortId, Attached>,
    /// Shapers.
    pub shapers: BTreeMap<PortId, api::Shaper>,
    /// Refuse every transaction.
    pub refuse: bool,
    /// Refuse every transaction behind so many.
    pub refuse_after: Option<usize>,
    /// What it was last told by [`Switch::behind`].
    pub behind: bool,
    /// Transactions carried out.
    pub applied: usize,
    /// Calls of [`Switch::tick`].
    pub ticks: usize,
    /// The other ends of captures.
    pub captures: Vec<SyncSender<Captured>>,
}

/// Apply a delta to a table, strictly.
fn step<K: Ord + Copy, T: Clone + PartialEq>(
    table: &mut BTreeMap<K, T>,
    key: impl Fn(&T) -> K,
    delta: &Delta<T>,
    what: &str,
) -> Result<(), Refusal> {
    let Some(k) = delta.new.as_ref().or(delta.old.as_ref()).map(key) else {
        return Err(Refusal(format!("{what}: a delta of nothing")));
    };
    if table.get(&k) != delta.old.as_ref() {
        return Err(Refusal(format!("{what}: old is not what the switch has")));
    }
    match &delta.new {
        Some(new) => table.insert(k, new.clone()),
        None => table.remove(&k),
    };
    Ok(())
}

impl FakeSwitch {
    fn step(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Bridge(delta) => step(&mut self.bridges, |bridge| bridge.id, delta, "bridge")?,
            Change::Port(delta) => step(&mut self.ports, |port| port.id, delta, "port")?,
            Change::Station(delta) => step(&mut self.stations, |station| station.key, delta, "station")?,
            Change::Router(delta) => step(&mut self.routers, |router| router.bridge, delta, "router")?,
            Change::Endpoint(delta) => step(&mut self.endpoints, |endpoint| endpoint.key, delta, "endpoint")?,
            Change::Neighbor(delta) => step(&mut self.neighbors, |neighbor| neighbor.key, delta, "neighbor")?,
            Change::Route(delta) => step(&mut self.routes, |route| route.key, delta, "route")?,
            Change::Service(delta) => step(&mut self.services, |service| service.key, delta, "service")?,
            Change::ServiceRange(delta) => step(&mut self.ranges, |range| range.prefix, delta, "service range")?,
            Change::HealthCheck(delta) => step(&mut self.checks, |check| check.port, delta, "health check")?,
            Change::Eligibility(delta) => step(&mut self.eligibility, |_| (), delta, "eligibility")?,
            Change::Guard(delta) => step(&mut self.guards, |guard| guard.port, delta, "guard")?,
            Change::Ruleset(delta) => step(&mut self.rulesets, |ruleset| ruleset.id, delta, "ruleset")?,
            Change::Subject(delta) => step(&mut self.subjects, |subject| subject.key, delta, "subject")?,
            Change::Acl(delta) => step(&mut self.acls, |acl| acl.key, delta, "acl")?,
            Change::Shaper(delta) => step(&mut self.shapers, |shaper| shaper.port, delta, "shaper")?,
        }
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        for port in self.ports.values() {
            let name = &port.name;
            if !self.bridges.contains_key(&port.bridge) {
                return Err(Refusal(format!("{name}: on bridge {}, which is not there", port.bridge)));
            }
            if !KINDS.contains(&port.kind.as_str()) {
                return Err(Refusal(format!("{name}: type={}: no such kind of port", port.kind)));
            }
            if let Some(option) = port.options.keys().find(|option| !OPTIONS.contains(&option.as_str())) {
                return Err(Refusal(format!("{name}: options:{option}: no such option of {}", port.kind)));
            }
            if let Some(netns) = port.options.get("netns").filter(|netns| !namespaces.contains(netns)) {
                return Err(Refusal(format!("{name}: options:netns={netns}: no such network namespace")));
            }
        }
        drop(namespaces);
        self.names_what_is_there()
    }

    /// Nothing names a port, a bridge or a router that is not there.
    fn names_what_is_there(&self) -> Result<(), Refusal> {
        let check = |thing: &dyn std::fmt::Display, port: Option<PortId>, bridge: Option<BridgeId>| {
            if port.is_some_and(|port| !self.ports.contains_key(&port)) {
                return Err(Refusal(format!("{thing}: its port is not there")));
            }
            if bridge.is_some_and(|bridge| !self.routers.contains_key(&bridge)) {
                return Err(Refusal(format!("{thing}: its bridge has no router")));
            }
            Ok(())
        };
        self.stations.values().try_for_each(|s| check(&s.key.mac, Some(s.port), None))?;
        for router in self.routers.values() {
            if !self.bridges.contains_key(&router.bridge) {
                return Err(Refusal(format!("router {}: its bridge is not there", router.bridge)));
            }
            check(&router.mac, router.uplink, None)?;
        }
        for guard in self.guards.values() {
            check(&guard.name, Some(guard.port), None)?;
            check(&guard.name, guard.local, None)?;
            if self.ports.get(&guard.port).is_some_and(|port| port.bridge != guard.bridge) {
                return Err(Refusal(format!("guard of {}: its port is on another bridge", guard.name)));
            }
        }
        for acl in self.acls.values() {
            match acl.key.at {
                AclPlace::Port(port) => check(&"access list", Some(port), None)?,
                AclPlace::Bridge(bridge) if !self.bridges.contains_key(&bridge) => {
                    return Err(Refusal(format!("access list of bridge {bridge}: it is not there")));
                }
                AclPlace::Bridge(_) => {}
            }
        }
        for subject in self.subjects.values() {
            check(&subject.name, subject.port, Some(subject.key.bridge))?;
            let named = subject.ingress.into_iter().chain(subject.egress);
            if let Some(RulesetId(id)) = named.into_iter().find(|id| !self.rulesets.contains_key(id)) {
                return Err(Refusal(format!("{}: ruleset {id} is not there", subject.name)));
            }
        }
        for ruleset in self.rulesets.values() {
            if usize::try_from(ruleset.admin).is_ok_and(|admin| admin > ruleset.rules.len()) {
                return Err(Refusal(format!("ruleset {}: has not so many rules of tier Admin", ruleset.id.0)));
            }
        }
        self.endpoints.values().try_for_each(|e| check(&e.key.address, Some(e.port), Some(e.key.bridge)))?;
        self.neighbors.values().try_for_each(|n| check(&n.key.address, Some(n.port), Some(n.key.bridge)))?;
        self.routes.values().try_for_each(|route| {
            let port = match route.to {
                Hop::OnLink { port } | Hop::Via { port, .. } => Some(port),
                Hop::Endpoint | Hop::Unreachable | Hop::Blackhole => None,
            };
            check(&route.key.prefix, port, Some(route.key.bridge))
        })
    }
}

impl Switch for FakeSwitch {
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        let spent = self.refuse_after == Some(0);
        self.refuse_after = self.refuse_after.map(|left| left.saturating_sub(1));
        if self.refuse || spent {
            return Err(Refusal("refused by the test".to_owned()));
        }
        for (done, change) in transaction.changes.iter().enumerate() {
            if let Err(refusal) = self.step(change) {
                let carried_out = transaction.changes.get(..=done).unwrap_or_default().to_vec();
                for change in (Transaction { changes: carried_out }).inverse().changes {
                    // The refused one may have been carried out in part: then this takes it back, else it does nothing.
                    let _ = self.step(&change);
                }
                return Err(refusal);
            }
        }
        self.applied += 1;
        Ok(())
    }

    fn ports(&self) -> Vec<PortState> {
        let state = |port: &Port| PortState {
            id: port.id,
            ifname: Some(port.name.clone()),
            // A device has an address, whether one was asked for or not.
            mac: port.mac.or(Some(MacAddr([2, 0, 0, 0xfa, (port.id.0 >> 8) as u8, port.id.0 as u8]))),
            mtu: port.mtu,
            link: Some(true),
            offloads: "csum".to_owned(),
            worker: Some(0),
            stats: PortStats { rx_packets: 6, rx_bytes: 512, tx_packets: 13, tx_bytes: 1062, ..PortStats::default() },
            ..PortState::default()
        };
        self.ports.values().map(state).collect()
    }

    fn stations(&self, bridge: BridgeId) -> Vec<StationState> {
        let placed = self.stations.values().map(|s| StationState { key: s.key, port: s.port, age: None });
        placed.chain(self.learned.iter().copied()).filter(|station| station.key.bridge == bridge).collect()
    }

    fn interface(&self, port: PortId) -> Result<Attached, Refusal> {
        self.interfaces.get(&port).cloned().ok_or_else(|| Refusal("device is gone".to_owned()))
    }

    fn flush_stations(&mut self, bridge: Option<BridgeId>) -> usize {
        let before = self.learned.len();
        self.learned.retain(|station| bridge.is_some_and(|bridge| station.key.bridge != bridge));
        before - self.learned.len()
    }

    fn drops(&self) -> Vec<DropState> {
        let row = |port: &Port| DropState {
            port: port.id,
            reason: "no-port".to_owned(),
            sentence: "no port to send to".to_owned(),
            packets: 3,
        };
        self.ports.values().map(row).collect()
    }

    fn workers(&self) -> Vec<WorkerState> {
        vec![WorkerState { packets: 100, bursts: 10, hits: 90, misses: 10, busy_ticks: 5000, ..WorkerState::default() }]
    }

    fn coverage(&self) -> Vec<Coverage> {
        let counter = |name: &str, total| Coverage { name: name.to_owned(), total };
        vec![counter("flow_miss", 10), counter("cache_divergence", 0)]
    }

    fn capture(&mut self, port: PortId) -> Result<Receiver<Captured>, Refusal> {
        if !self.ports.contains_key(&port) {
            return Err(Refusal(format!("port {port}: not there")));
        }
        let (sender, receiver) = sync_channel(64);
        // Something to see at once; the test sends the rest.
        let frame = Captured { time: 1_700_000_000_123_456_789, ingress: true, len: 60, bytes: vec![0xaa; 60] };
        let _ = sender.try_send(frame);
        self.captures.push(sender);
        Ok(receiver)
    }

    fn connections(&self) -> Vec<ConnectionState> {
        self.connections.clone()
    }

    fn programmed(&self) -> Vec<Change> {
        fn rows<K, T: Clone>(table: &BTreeMap<K, T>, kind: fn(Delta<T>) -> Change) -> impl Iterator<Item = Change> {
            table.values().map(move |row| kind(Delta::add(row.clone())))
        }
        let mut all: Vec<Change> = rows(&self.routers, Change::Router).collect();
        all.extend(rows(&self.endpoints, Change::Endpoint));
        all.extend(rows(&self.routes, Change::Route));
        all.extend(rows(&self.services, Change::Service));
        all.extend(rows(&self.guards, Change::Guard));
        all.extend(rows(&self.rulesets, Change::Ruleset));
        all.extend(rows(&self.subjects, Change::Subject));
        all
    }

    fn flush_connections(&mut self, doomed: &dyn Fn(&ConnectionState) -> bool) -> usize {
        let before = self.connections.len();
        self.connections.retain(|connection| !doomed(connection));
        before - self.connections.len()
    }

    fn neighbors(&self) -> Vec<NeighborState> {
        let row = |neighbor: &Neighbor| NeighborState {
            key: neighbor.key,
            port: neighbor.port,
            mac: Some(neighbor.mac),
            state: "permanent".to_owned(),
            age: None,
        };
        self.neighbors.values().map(row).collect()
    }

    fn denials(&self) -> Vec<DenialState> {
        self.denials.clone()
    }

    fn trace(&self, probe: &Probe) -> Traced {
        Traced { verdict: "allow".to_owned(), outputs: vec![probe.port], ..Traced::default() }
    }

    fn behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    fn tick(&mut self) {
        self.ticks += 1;
    }
}
