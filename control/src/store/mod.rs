//! What was configured: kept, made durable, and told to the switch.
//!
//! Every change takes one way, [`Store::commit`]: new sum → on the disk beside the old one → switch → in force.
//! Whatever refuses on that way, nothing has changed. The store never interprets what a device needs; the switch refuses that.
//!
//! At start, what the switch refuses stays configured and is *held*: shown with its error and tried again every second
//! ([`Store::retry`]), since its reason may go away (a namespace that appears).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use api::reply::Output;
use api::request::Command;
use api::state::PortState;
use api::station::{Station, StationKey};
use api::{BridgeId, Change, Delta, MacAddr, PortId, Transaction};

use crate::cluster::compile::Compiler;
use crate::{NodeSettings, Refusal, Switch};

mod acl;
pub(crate) mod attachments;
mod columns;
pub(crate) mod config;
mod draft;
mod file;
mod ipam;
pub(crate) mod network;

use config::{Config, Numbers, diff};
use draft::{Draft, Live, no_bridge, no_port};
use file::StateFile;
use ipam::Ipam;

/// The configuration of one switch.
#[derive(Debug)]
pub(crate) struct Store {
    config: Config,
    file: StateFile,
    held: Held,
    bridge_numbers: Numbers,
    port_numbers: Numbers,
    version: String,
    /// What follows from the cluster's objects, on the bridge that is theirs.
    cluster: Compiler,
    /// Where to go on giving addresses to attachments.
    ipam: Ipam,
}

/// What is configured and not in force, each with the reason.
#[derive(Debug, Default)]
struct Held {
    bridges: BTreeMap<BridgeId, String>,
    ports: BTreeMap<PortId, String>,
}

impl Store {
    /// Read what was configured and tell the switch, which must be empty.
    ///
    /// # Errors
    /// When the state cannot be read. What the switch refuses is no error.
    pub(crate) fn open(
        directory: &Path,
        version: &str,
        node: &NodeSettings,
        switch: &mut dyn Switch,
    ) -> Result<Self, Refusal> {
        let (file, config) = StateFile::open(directory)?;
        let (bridge_numbers, port_numbers) = Default::default();
        let (held, version, cluster) = (Held::default(), version.to_owned(), Compiler::new(node));
        let ipam = Ipam::default();
        let mut store = Self { config, file, held, bridge_numbers, port_numbers, version, cluster, ipam };
        store.collect_lost();
        // One by one, never all at once: a transaction that is taken back because of one port would remove the devices
        // that the others had kept over the restart.
        store.held.bridges = store.config.bridges.keys().map(|id| (*id, String::new())).collect();
        store.held.ports = store.config.ports.keys().map(|id| (*id, String::new())).collect();
        store.retry(switch);
        Ok(store)
    }

    /// Try what is held again, each on its own.
    pub(crate) fn retry(&mut self, switch: &mut dyn Switch) {
        let Self { config, held, cluster, .. } = self;
        held.bridges.retain(|id, why| {
            let change = config.bridges.get(id).map(|bridge| Change::Bridge(Delta::add(bridge.clone())));
            let acls = config.acls_of_bridge(*id).map(|acl| Change::Acl(Delta::add(acl.clone())));
            !try_again(switch, change.into_iter().chain(acls).collect(), why, || config.bridge_name(*id).to_owned())
        });
        held.ports.retain(|id, why| {
            let Some(port) = config.ports.get(id) else { return false };
            if let Some(bridge) = held.bridges.get(&port.bridge) {
                *why = format!("{}: its bridge is not there: {bridge}", port.name);
                return true;
            }
            let stations = config.stations.values().filter(|station| station.port == *id);
            let mut changes = vec![Change::Port(Delta::add(port.clone()))];
            changes.extend(stations.map(|station| Change::Station(Delta::add(*station))));
            changes.extend(config.acls_of_port(*id).map(|acl| Change::Acl(Delta::add(acl.clone()))));
            let shaper = config.shapers(&cluster.settings().bridge).remove(id);
            changes.extend(shaper.map(|shaper| Change::Shaper(Delta::add(shaper))));
            let guard = network::attach(cluster, config, port);
            changes.extend(guard.clone());
            let told = try_again(switch, changes, why, || port.name.clone());
            if !told {
                cluster.undo(guard.into_iter().collect());
            }
            !told
        });
        self.rebind(switch);
    }

    /// Carry out commands, all or none. Each sees what those before it did.
    ///
    /// # Errors
    /// Why not, behind the verb.
    pub(crate) fn transact(&mut self, commands: &[Command], switch: &mut dyn Switch) -> Result<Vec<Output>, Refusal> {
        let live = self.live(switch);
        let mut draft = Draft::new(&self.config, &self.bridge_numbers, &self.port_numbers, &live);
        let mut outputs = Vec::with_capacity(commands.len());
        for command in commands {
            outputs.push(draft.run(command).map_err(|why| Refusal(format!("{}: {why}", command.verb())))?);
        }
        // What is found wrong only with the whole of them is laid to the first that changes something.
        let changing = commands.iter().zip(&outputs).find(|(_, output)| matches!(output, Output::Done));
        let verb = changing.map_or("transact", |(command, _)| command.verb());
        let blame = |why| Refusal(format!("{verb}: {why}"));
        let config = draft.finish().map_err(blame)?;
        self.commit(config, switch).map_err(|why| blame(why.0))?;
        Ok(outputs)
    }

    /// Place a station at a port. One that is elsewhere moves.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn add_station(
        &mut self,
        (bridge, port): (&str, &str),
        vlan: u16,
        mac: MacAddr,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = self.station_key(bridge, vlan, mac)?;
        if mac.is_group() || mac.is_zero() {
            return Err(Refusal(format!("{mac}: no station can have this address")));
        }
        let port = self.port_on(bridge, port)?;
        let mut config = self.config.clone();
        config.stations.insert(key, Station { key, port });
        self.commit(config, switch)
    }

    /// Take a placed station away.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn remove_station(
        &mut self,
        bridge: &str,
        vlan: u16,
        mac: MacAddr,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = self.station_key(bridge, vlan, mac)?;
        let mut config = self.config.clone();
        if config.stations.remove(&key).is_none() {
            return Err(Refusal(format!("{mac}: no static entry of this address in VLAN {vlan} of bridge {bridge}")));
        }
        self.commit(config, switch)
    }

    fn station_key(&self, bridge: &str, vlan: u16, mac: MacAddr) -> Result<StationKey, Refusal> {
        let bridge = self.bridge_id(bridge)?;
        config::vlan_id(&vlan.to_string()).map_err(Refusal)?;
        Ok(StationKey { bridge, vlan, mac })
    }

    /// Number of a bridge.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn bridge_id(&self, name: &str) -> Result<BridgeId, Refusal> {
        self.config.bridge(name).map(|bridge| bridge.id).ok_or_else(|| Refusal(no_bridge(name)))
    }

    /// Number of a port.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn port_id(&self, name: &str) -> Result<PortId, Refusal> {
        self.config.port(name).map(|port| port.id).ok_or_else(|| Refusal(no_port(name)))
    }

    /// Number of a port of a bridge, named or given by its OpenFlow number.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn port_on(&self, bridge: &str, port: &str) -> Result<PortId, Refusal> {
        let id = self.bridge_id(bridge)?;
        let ofport = if port == "LOCAL" { Some(api::Port::LOCAL) } else { port.parse().ok() };
        let named = self.config.ports_of(id).find(|p| p.name == port);
        let found = named.or_else(|| self.config.ports_of(id).find(|p| Some(p.ofport) == ofport));
        // The words of ovs-ofctl.
        let port = config::shown(port);
        found.map(|port| port.id).ok_or_else(|| Refusal(format!("{bridge}: couldn't find port `{port}'")))
    }

    /// A configured port.
    pub(crate) fn port(&self, id: PortId) -> Option<&api::Port> {
        self.config.ports.get(&id)
    }

    /// Ports in the order in which people read them: by bridge, then number; each with its bridge's name.
    pub(crate) fn ports(&self) -> Vec<(&str, &api::Port)> {
        let mut ports: Vec<_> = self.config.ports.values().map(|p| (self.config.bridge_name(p.bridge), p)).collect();
        ports.sort_by_key(|(bridge, port)| (*bridge, port.ofport));
        ports
    }

    /// Every port as it is now; a held one has its reason and nothing else.
    pub(crate) fn states(&self, switch: &dyn Switch) -> BTreeMap<PortId, PortState> {
        let mut states: BTreeMap<_, _> = switch.ports().into_iter().map(|state| (state.id, state)).collect();
        for (id, why) in &self.held.ports {
            states.insert(*id, PortState { id: *id, error: Some(why.clone()), ..PortState::default() });
        }
        states
    }

    fn live(&self, switch: &dyn Switch) -> Live {
        Live { version: self.version.clone(), ports: self.states(switch), bridges: self.held.bridges.clone() }
    }

    /// Bring a new sum into force: for the disk and the switch alike, or for neither.
    fn commit(&mut self, config: Config, switch: &mut dyn Switch) -> Result<(), Refusal> {
        if config == self.config {
            return Ok(());
        }
        self.may_commit(&config)?;
        let bridge = &self.cluster.settings().bridge;
        let bridges_and_ports = diff(&self.in_force(&self.config), &self.in_force(&config), bridge).changes;
        let prepared = self.file.prepare(&config)?;
        // What follows from the cluster on ports that go goes before them; what follows from new ones comes after they
        // are there: only then have they addresses.
        let mut changes = self.cluster.release(&bridges_and_ports);
        let new = |change: &Change| match change {
            Change::Port(Delta { old: None, new: Some(port) }) => network::attach(&mut self.cluster, &config, port),
            _ => None,
        };
        let guards: Vec<Change> = bridges_and_ports.iter().filter_map(new).collect();
        // What is to be undone by whom said it: shapers come from either side.
        let of_cluster: Vec<Change> = changes.iter().chain(&guards).cloned().collect();
        changes.extend(bridges_and_ports);
        changes.extend(guards);
        let transaction = Transaction { changes };
        let told = !transaction.changes.is_empty();
        if told && let Err(refusal) = switch.apply(&transaction) {
            self.cluster.undo(of_cluster);
            return Err(refusal);
        }
        if let Err(why) = prepared.commit() {
            let undone = if told { switch.apply(&transaction.clone().inverse()) } else { Ok(()) };
            self.cluster.undo(of_cluster);
            return Err(undone
                .err()
                .map_or_else(|| why.clone(), |e| Refusal(format!("{why}; and taking it back failed: {e}"))));
        }
        for id in self.config.ports.keys().filter(|id| !config.ports.contains_key(id)) {
            self.port_numbers.retire(id.0);
            self.held.ports.remove(id);
        }
        for id in self.config.bridges.keys().filter(|id| !config.bridges.contains_key(id)) {
            self.bridge_numbers.retire(id.0);
            self.held.bridges.remove(id);
        }
        // A port that is new on a held bridge waits with it.
        let new = config.ports.values().filter(|port| !self.config.ports.contains_key(&port.id));
        let waiting: Vec<_> = new.filter(|port| self.held.bridges.contains_key(&port.bridge)).map(|p| p.id).collect();
        self.held.ports.extend(waiting.into_iter().map(|id| (id, String::new())));
        self.config = config;
        self.retry(switch);
        Ok(())
    }

    /// A configuration without what is held.
    fn in_force<'a>(&self, config: &'a Config) -> Cow<'a, Config> {
        let held = &self.held;
        if held.bridges.is_empty() && held.ports.is_empty() {
            return Cow::Borrowed(config);
        }
        let mut config = config.clone();
        held.bridges.keys().for_each(|id| config.remove_bridge(*id));
        held.ports.keys().for_each(|id| config.remove_port(*id));
        Cow::Owned(config)
    }
}

/// Returns true if the switch took it; else the reason is kept, and logged when it is a new one.
fn try_again(switch: &mut dyn Switch, changes: Vec<Change>, why: &mut String, name: impl Fn() -> String) -> bool {
    match switch.apply(&Transaction { changes }) {
        Ok(()) => {
            if !why.is_empty() {
                tracing::info!("{}: in force again", name());
            }
            true
        }
        Err(refusal) => {
            if *why != refusal.0 {
                tracing::warn!("not in force: {refusal}");
                *why = refusal.0;
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeSwitch;
    use proptest::prelude::*;

    /// A chain of database commands or one of the others, with names from a small set so that they meet.
    fn line() -> impl Strategy<Value = String> {
        let bridge = || (0..3u8).prop_map(|n| format!("br{n}"));
        let port = || (0..5u8).prop_map(|n| format!("p{n}"));
        let single = prop_oneof![
            bridge().prop_map(|b| format!("add-br {b}")),
            bridge().prop_map(|b| format!("del-br {b}")),
            (bridge(), port()).prop_map(|(b, p)| format!("add-port {b} {p}")),
            (bridge(), port()).prop_map(|(b, p)| format!("--may-exist add-port {b} {p} tag=5")),
            port().prop_map(|p| format!("del-port {p}")),
            (port(), 0..4u16).prop_map(|(p, n)| format!("set Interface {p} ofport_request={n}")),
            port().prop_map(|p| format!("set Interface {p} options:netns=pod1")),
            (port(), port()).prop_map(|(p, id)| format!("set Port {p} external_ids:{id}={id}")),
        ];
        proptest::collection::vec(single, 1..4).prop_map(|singles| singles.join(" -- "))
    }

    fn run(store: &mut Store, switch: &mut FakeSwitch, line: &str) -> Result<(), Refusal> {
        let mut commands = Vec::new();
        for part in line.split(" -- ") {
            match api::verb::parse(&part.split(' ').collect::<Vec<_>>()) {
                Ok(api::Request::Transact { commands: more }) => commands.extend(more),
                other => panic!("{part}: {other:?}"),
            }
        }
        store.transact(&commands, switch).map(drop)
    }

    /// One of a few rules.
    fn rule(number: u8) -> api::AclRule {
        let priority = 6 + u16::from(number % 3);
        api::AclRule { priority, matches: Default::default(), action: api::AclAction::Drop }
    }

    fn sum(switch: &FakeSwitch) -> Config {
        let FakeSwitch { bridges, ports, stations, acls, .. } = switch;
        let (bridges, ports, stations, acls) = (bridges.clone(), ports.clone(), stations.clone(), acls.clone());
        Config { bridges, ports, stations, acls, ..Config::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn switch_store_and_disk_agree_after_any_commands(
            steps in proptest::collection::vec((line(), 0..5u8, 0..6u8), 1..25),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut switch = FakeSwitch::default();
            let mut store = Store::open(directory.path(), "", &NodeSettings::default(), &mut switch).unwrap();
            for (line, refuse, kind) in steps {
                let before = store.config.clone();
                switch.refuse = refuse == 0;
                let done = match kind {
                    0 => store.add_station(("br0", "p0"), 1, MacAddr([2; 6]), &mut switch),
                    1 => store.add_acl("br1", api::AclWay::ToPort, rule(refuse), true, &mut switch),
                    2 => store.add_acl("p1", api::AclWay::FromPort, rule(refuse), false, &mut switch),
                    3 => store.remove_acls("p1", None, Some((7, Default::default())).filter(|_| refuse > 2), &mut switch),
                    _ => run(&mut store, &mut switch, &line),
                };
                switch.refuse = false;
                prop_assert!(done.is_ok() || store.config == before, "{line}: refused, and yet something changed");
                prop_assert_eq!(&sum(&switch), &store.config, "{}", line);
                prop_assert_eq!(store.config.check(), Ok(()));
            }
            let config = store.config.clone();
            drop(store);
            let mut after = FakeSwitch::default();
            let store = Store::open(directory.path(), "", &NodeSettings::default(), &mut after).unwrap();
            prop_assert_eq!(&store.config, &config);
            prop_assert_eq!(sum(&after), config);
        }
    }
}
