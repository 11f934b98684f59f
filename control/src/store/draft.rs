//! Commands, carried out on a copy of the configuration. What is refused leaves only a copy behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use api::reply::{Output, Show, ShowBridge, ShowPort};
use api::request::{Assignment, Command};
use api::state::PortState;
use api::{Bridge, BridgeId, Port, PortId, Vlan};

use super::columns;
use super::config::{Config, Numbers, check_name, shown};
use crate::cluster::compile::binding::{SPOOF_GUARD, pod_of};
use crate::cluster::compile::node::STACK;

/// Port kind when nobody says which.
const DEFAULT_KIND: &str = "tap";
/// Kinds that have a name, but no port behind it yet.
const KINDS_TO_COME: &[&str] = &["afxdp", "vxlan", "geneve", "gre", "patch"];

/// What commands look at beside the configuration.
#[derive(Debug)]
pub(crate) struct Live {
    /// The daemon's version.
    pub(crate) version: String,
    /// Ports as they are; those that could not be opened have their error and nothing else.
    pub(crate) ports: BTreeMap<PortId, PortState>,
    /// Why bridges are not in force.
    pub(crate) bridges: BTreeMap<BridgeId, String>,
}

/// A copy of the configuration, being worked on.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) config: Config,
    /// What it is a copy of: its numbers are in use until the transaction is through.
    before: &'a Config,
    bridge_numbers: &'a Numbers,
    port_numbers: &'a Numbers,
    live: &'a Live,
    /// New ports of which nobody has said what kind they are.
    untyped: BTreeSet<PortId>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        before: &'a Config,
        bridge_numbers: &'a Numbers,
        port_numbers: &'a Numbers,
        live: &'a Live,
    ) -> Self {
        Self { config: before.clone(), before, bridge_numbers, port_numbers, live, untyped: BTreeSet::new() }
    }

    /// Carry out one command.
    ///
    /// # Errors
    /// Why not: thing, value and rule. The draft may be half changed then, and is of no more use.
    pub(crate) fn run(&mut self, command: &Command) -> Result<Output, String> {
        match command {
            Command::AddBr { bridge, may_exist } => self.add_bridge(bridge, *may_exist)?,
            Command::DelBr { bridge, if_exists } => {
                match self.config.bridge(bridge).map(|b| b.id) {
                    Some(id) => self.config.remove_bridge(id),
                    None if *if_exists => {}
                    None => return Err(no_bridge(bridge)),
                };
            }
            Command::ListBr {} => {
                return Ok(Output::Names(sorted(self.config.bridges.values().map(|bridge| bridge.name.clone()))));
            }
            Command::BrExists { bridge } => return Ok(Output::Exists(self.config.bridge(bridge).is_some())),
            Command::Show {} => return Ok(Output::Show(self.show())),
            Command::AddPort { bridge, port, may_exist, columns } => {
                self.add_port(bridge, port, *may_exist, columns)?;
            }
            Command::DelPort { bridge, port, if_exists } => self.del_port(bridge.as_deref(), port, *if_exists)?,
            Command::ListPorts { bridge } => {
                let id = self.config.bridge(bridge).ok_or_else(|| no_bridge(bridge))?.id;
                let ports = self.config.ports_of(id).filter(|port| port.ofport != Port::LOCAL);
                return Ok(Output::Names(sorted(ports.map(|port| port.name.clone()))));
            }
            Command::PortToBr { port } => {
                let found = self.config.port(port).ok_or_else(|| no_port(port))?;
                return Ok(Output::Names(vec![self.config.bridge_name(found.bridge).to_owned()]));
            }
            Command::Set { table, record, columns, if_exists } => {
                if let Some(row) = columns::find_row(&self.config, *table, record, *if_exists)? {
                    if columns.iter().any(|assignment| assignment.column == "type") {
                        self.untyped.retain(|id| columns::Row::Interface(*id) != row);
                    }
                    columns::set(&mut self.config, row, columns)?;
                }
            }
            Command::Clear { table, record, columns, if_exists } => {
                if let Some(row) = columns::find_row(&self.config, *table, record, *if_exists)? {
                    columns::clear(&mut self.config, row, columns)?;
                }
            }
            Command::Remove { table, record, column, values, if_exists } => {
                if let Some(row) = columns::find_row(&self.config, *table, record, *if_exists)? {
                    columns::remove(&mut self.config, row, column, values)?;
                }
            }
            Command::Get { table, record, columns, if_exists } => {
                let row = columns::find_row(&self.config, *table, record, *if_exists)?;
                let values = row.map(|row| columns::get(&self.config, self.live, row, columns)).transpose()?;
                return Ok(Output::Values(values.unwrap_or_default()));
            }
            Command::List { table, records, columns } => {
                return columns::list(&self.config, self.live, *table, records, columns).map(Output::Records);
            }
            Command::Find { table, conditions, columns } => {
                return columns::find(&self.config, self.live, *table, conditions, columns).map(Output::Records);
            }
        }
        Ok(Output::Done)
    }

    /// What can only be asked when all commands of a chain are through.
    ///
    /// # Errors
    /// Why the draft must not come into force.
    pub(crate) fn finish(self) -> Result<Config, String> {
        for bridge in self.config.bridges.keys() {
            let bound = self.config.bound(*bridge);
            let pods = self.config.ports_of(*bridge).filter_map(|port| Some((port, pod_of(&port.external_ids)?)));
            for (port, pod) in pods {
                if let Some(other) = bound.get(&pod).filter(|other| other.id != port.id) {
                    let (name, pod) = (&port.name, format!("{}/{}", shown(&pod.namespace), shown(&pod.name)));
                    return Err(format!("{name}: external_ids:pod={pod}: port {} is bound to it already", other.name));
                }
            }
        }
        for port in self.config.ports.values() {
            let value = port.external_ids.get(SPOOF_GUARD).filter(|value| !["on", "off"].contains(&value.as_str()));
            if let Some(value) = value {
                let (name, value) = (&port.name, shown(value));
                return Err(format!("{name}: external_ids:{SPOOF_GUARD}={value}: must be on or off"));
            }
        }
        for id in &self.untyped {
            let Some(port) = self.config.ports.get(id) else { continue };
            let name = &port.name;
            // An interface that one of our ports made is not in the way: the switch knows what to do about it.
            let ours = self.live.ports.values().any(|state| state.ifname.as_ref() == Some(name));
            let there = !ours && Path::new("/sys/class/net").join(name).exists();
            if there && port.options.is_empty() {
                return Err(format!(
                    "{name}: is an existing interface; to attach it, type: vsctl \
                     add-port {} {name} -- set Interface {name} type=packet (or, once it is supported, type=afxdp)",
                    self.config.bridge_name(port.bridge)
                ));
            }
        }
        if let Some(port) = self.config.ports.values().find(|port| port.kind == STACK) {
            return Err(format!("{}: type={STACK}: only the switch itself has such a port", port.name));
        }
        match self.config.ports.values().find(|port| KINDS_TO_COME.contains(&port.kind.as_str())) {
            Some(port) => Err(format!("{}: type={}: not supported yet", port.name, port.kind)),
            None => Ok(self.config),
        }
    }

    fn add_bridge(&mut self, name: &str, may_exist: bool) -> Result<(), String> {
        check_name(name)?;
        if self.config.bridge(name).is_some() {
            return match may_exist {
                true => Ok(()),
                false => Err(format!(
                    "{name}: cannot create a bridge named {name} because a bridge named {name} already exists"
                )),
            };
        }
        if let Some(port) = self.config.port(name) {
            let bridge = self.config.bridge_name(port.bridge);
            return Err(format!(
                "{name}: cannot create a bridge named {name} because a port named {name} already exists on bridge {bridge}"
            ));
        }
        let taken =
            |n| self.config.bridges.contains_key(&BridgeId(n)) || self.before.bridges.contains_key(&BridgeId(n));
        let number = self.bridge_numbers.choose(u16::MAX, taken).ok_or_else(|| format!("{name}: too many bridges"))?;
        let bridge = Bridge {
            id: BridgeId(number),
            name: name.to_owned(),
            mac_table_size: Bridge::MAC_TABLE_SIZE,
            mac_ageing: Bridge::MAC_AGEING,
            forward_bpdu: false,
            external_ids: BTreeMap::new(),
        };
        self.config.bridges.insert(bridge.id, bridge);
        self.insert_port(BridgeId(number), name, Port::LOCAL, "internal")?;
        Ok(())
    }

    fn insert_port(&mut self, bridge: BridgeId, name: &str, ofport: u16, kind: &str) -> Result<PortId, String> {
        let taken = |n| self.config.ports.contains_key(&PortId(n)) || self.before.ports.contains_key(&PortId(n));
        let last = PortId::STACK.0 - 1;
        let number = self.port_numbers.choose(last, taken);
        let id = PortId(number.ok_or_else(|| format!("{name}: too many ports: {last} is the limit"))?);
        let port = Port {
            id,
            name: name.to_owned(),
            bridge,
            ofport,
            kind: kind.to_owned(),
            options: BTreeMap::new(),
            vlan: Vlan::default(),
            mac: None,
            mtu: Port::MTU,
            external_ids: BTreeMap::new(),
        };
        self.config.ports.insert(id, port);
        Ok(id)
    }

    fn add_port(&mut self, bridge: &str, name: &str, may_exist: bool, columns: &[Assignment]) -> Result<(), String> {
        let id = self.config.bridge(bridge).ok_or_else(|| no_bridge(bridge))?.id;
        check_name(name)?;
        if let Some(port) = self.config.port(name) {
            let there = self.config.bridge_name(port.bridge);
            if may_exist && port.bridge != id {
                return Err(format!(
                    "{name}: \"--may-exist add-port {bridge} {name}\" but {name} is actually attached to bridge {there}"
                ));
            }
            if !may_exist && port.ofport == Port::LOCAL {
                return Err(format!(
                    "{name}: cannot create a port named {name} because a bridge named {name} already exists"
                ));
            }
            if !may_exist {
                return Err(format!(
                    "{name}: cannot create a port named {name} because a port named {name} already exists on bridge {there}"
                ));
            }
            let row = columns::Row::Port(port.id);
            return columns::set(&mut self.config, row, columns);
        }
        let ofport = self.config.free_ofport(id).ok_or_else(|| format!("{bridge}: too many ports"))?;
        let port = self.insert_port(id, name, ofport, DEFAULT_KIND)?;
        self.untyped.insert(port);
        columns::set(&mut self.config, columns::Row::Port(port), columns)
    }

    fn del_port(&mut self, bridge: Option<&str>, name: &str, if_exists: bool) -> Result<(), String> {
        let wanted = match bridge {
            Some(bridge) => Some(self.config.bridge(bridge).ok_or_else(|| no_bridge(bridge))?.id),
            None => None,
        };
        let Some(port) = self.config.port(name) else {
            return if if_exists { Ok(()) } else { Err(no_port(name)) };
        };
        let there = self.config.bridge_name(port.bridge);
        if wanted.is_some_and(|wanted| wanted != port.bridge) {
            let bridge = bridge.unwrap_or_default();
            return Err(format!("{name}: bridge {bridge} does not have a port {name} (it is on bridge {there})"));
        }
        if port.ofport == Port::LOCAL {
            return Err(format!(
                "{name}: cannot delete port {name} because it is the local port for bridge {there} \
                 (deleting this port requires deleting the entire bridge)"
            ));
        }
        let id = port.id;
        self.config.remove_port(id);
        Ok(())
    }

    fn show(&self) -> Show {
        let mut bridges: Vec<_> = self
            .config
            .bridges
            .values()
            .map(|bridge| {
                let mut ports: Vec<_> = self.config.ports_of(bridge.id).map(|port| self.show_port(port)).collect();
                ports.sort_by(|a, b| a.name.cmp(&b.name));
                ShowBridge { name: bridge.name.clone(), error: self.live.bridges.get(&bridge.id).cloned(), ports }
            })
            .collect();
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        Show { version: self.live.version.clone(), bridges }
    }

    fn show_port(&self, port: &Port) -> ShowPort {
        ShowPort {
            name: port.name.clone(),
            vlan: port.vlan.clone(),
            kind: port.kind.clone(),
            options: port.options.clone(),
            error: self.live.ports.get(&port.id).and_then(|state| state.error.clone()),
        }
    }
}

/// The words of ovs-vsctl, behind the name.
pub(crate) fn no_bridge(name: &str) -> String {
    let name = shown(name);
    format!("{name}: no bridge named {name}")
}

/// The words of ovs-vsctl, behind the name.
pub(crate) fn no_port(name: &str) -> String {
    let name = shown(name);
    format!("{name}: no port named {name}")
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}
