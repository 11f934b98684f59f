//! The store's part of a node's network: the bridge that the cluster lives on, what operators state of its neighbours
//! and routes, and the way of what the [`Compiler`](crate::cluster::compile::Compiler) says to the switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::request::{Command, To};
use api::{AddressKey, BridgeId, Change, Hop, MacAddr, Neighbor, PortId, Route, RouteKey, Transaction};
use ipnet::IpNet;

use super::Store;
use super::config::{self, Config};
use crate::cluster::compile::binding::{Attached, NodeContext};
use crate::cluster::compile::{Compiler, is_empty};
use crate::cluster::model::{Changed, Objects};
use crate::{Refusal, Switch};

/// Whose routes operators' routes are.
const STATIC: &str = "static";

impl Store {
    /// Tell the switch what follows from objects that changed. When the first ones come, the cluster bridge is made; the
    /// first call must bring a complete set (rule S2).
    ///
    /// # Errors
    /// When the bridge cannot be made, or the switch refuses: it is tried again with every change and every second.
    #[cfg_attr(not(test), expect(dead_code, reason = "called by who keeps the objects"))]
    pub(crate) fn program(
        &mut self,
        objects: &Objects,
        changed: &BTreeSet<Changed>,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let bridge = if is_empty(objects) { Ok(()) } else { self.make_bridge(switch) };
        if !self.cluster.has_objects() {
            // Until now nobody asked where the network is.
            let context = self.node_context(switch);
            let changes = self.cluster.rebind(context);
            self.tell(changes, switch)?;
        }
        let changes = self.cluster.update(objects, changed);
        self.tell(changes, switch).and(bridge)
    }

    /// What follows from the cluster's objects.
    pub(crate) fn cluster(&self) -> &Compiler {
        &self.cluster
    }

    /// Say where a prefix leads. A route that is there already leads elsewhere from now on.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn add_route(
        &mut self,
        bridge: &str,
        prefix: IpNet,
        to: &To,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = RouteKey { bridge: self.bridge_id(bridge)?, prefix };
        let to = match to {
            To::OnLink { port } => Hop::OnLink { port: self.port_on(bridge, port)? },
            To::Via { port, gateway } => Hop::Via { port: self.port_on(bridge, port)?, gateway: *gateway },
            To::Unreachable {} => Hop::Unreachable,
            To::Blackhole {} => Hop::Blackhole,
        };
        let route = Route { key, to, origin: STATIC.to_owned() };
        config::check_route(&route).map_err(Refusal)?;
        let mut config = self.config.clone();
        config.routes.insert(key, route);
        self.commit(config, switch)
    }

    /// Take back what [`Self::add_route`] said.
    ///
    /// # Errors
    /// When there is no such route.
    pub(crate) fn remove_route(&mut self, bridge: &str, prefix: IpNet, switch: &mut dyn Switch) -> Result<(), Refusal> {
        let key = RouteKey { bridge: self.bridge_id(bridge)?, prefix };
        let mut config = self.config.clone();
        if config.routes.remove(&key).is_none() {
            return Err(Refusal(format!("{prefix}: no static route of this prefix on bridge {bridge}")));
        }
        self.commit(config, switch)
    }

    /// State a neighbour. One that is elsewhere moves.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn add_neighbor(
        &mut self,
        (bridge, port): (&str, &str),
        address: IpAddr,
        mac: MacAddr,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = AddressKey { bridge: self.bridge_id(bridge)?, address };
        let neighbor = Neighbor { key, port: self.port_on(bridge, port)?, mac };
        config::check_neighbor(&neighbor).map_err(Refusal)?;
        let mut config = self.config.clone();
        config.neighbors.insert(key, neighbor);
        self.commit(config, switch)
    }

    /// Take back what [`Self::add_neighbor`] said.
    ///
    /// # Errors
    /// When there is no such neighbour.
    pub(crate) fn remove_neighbor(
        &mut self,
        bridge: &str,
        address: IpAddr,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = AddressKey { bridge: self.bridge_id(bridge)?, address };
        let mut config = self.config.clone();
        if config.neighbors.remove(&key).is_none() {
            return Err(Refusal(format!("{address}: no static neighbor of this address on bridge {bridge}")));
        }
        self.commit(config, switch)
    }

    /// Every route that operators stated, in force or not.
    pub(crate) fn static_routes(&self) -> &BTreeMap<RouteKey, Route> {
        &self.config.routes
    }

    /// Every neighbour that operators stated, in force or not.
    pub(crate) fn static_neighbors(&self) -> &BTreeMap<AddressKey, Neighbor> {
        &self.config.neighbors
    }

    /// Name of a bridge; empty if it is gone.
    pub(crate) fn bridge_name(&self, id: BridgeId) -> &str {
        self.config.bridge_name(id)
    }

    /// Name of a port for people; its number if it is gone.
    pub(crate) fn port_name(&self, id: PortId) -> String {
        match self.port(id) {
            Some(port) => port.name.clone(),
            None if id == PortId::STACK => crate::cluster::compile::node::STACK.to_owned(),
            None => format!("#{id}"),
        }
    }

    /// Rules of a new sum that only the store knows.
    pub(super) fn may_commit(&self, config: &Config) -> Result<(), Refusal> {
        let name = &self.cluster.settings().bridge;
        let Some(bridge) = self.config.bridge(name) else { return Ok(()) };
        if self.cluster.has_objects() && !config.bridges.contains_key(&bridge.id) {
            return Err(Refusal(format!("{name}: is the bridge of the cluster, which has objects: delete them first")));
        }
        Ok(())
    }

    /// Tell the switch what follows from the cluster on the ports as they are now.
    pub(super) fn rebind(&mut self, switch: &mut dyn Switch) {
        if !self.cluster.has_objects() || self.make_bridge(switch).is_err() {
            return;
        }
        let context = self.node_context(switch);
        let changes = self.cluster.rebind(context);
        // What is refused is logged, and tried again with the next tick.
        let _ = self.tell(changes, switch);
    }

    fn tell(&mut self, changes: Vec<Change>, switch: &mut dyn Switch) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = Transaction { changes };
        switch.apply(&transaction).inspect_err(|refusal| {
            tracing::warn!("cluster: not in force: {refusal}");
            self.cluster.undo(transaction.changes);
        })
    }

    fn make_bridge(&mut self, switch: &mut dyn Switch) -> Result<(), Refusal> {
        let bridge = self.cluster.settings().bridge.clone();
        if self.config.bridge(&bridge).is_some() {
            return Ok(());
        }
        let made = self.transact(&[Command::AddBr { bridge, may_exist: true }], switch);
        made.map(drop).inspect_err(|refusal| tracing::warn!("cluster bridge: {refusal}"))
    }

    /// The cluster bridge and its ports, as far as they are in force.
    fn node_context(&self, switch: &dyn Switch) -> Option<NodeContext> {
        let settings = self.cluster.settings();
        let force = self.in_force(&self.config);
        let bridge = force.bridge(&settings.bridge)?.id;
        let macs: BTreeMap<PortId, MacAddr> =
            switch.ports().into_iter().filter_map(|state| Some((state.id, state.mac?))).collect();
        let before = self.cluster.context();
        // The address of a device that went for a while is not forgotten.
        let known = |port: PortId| {
            let attached = before.into_iter().flat_map(|context| context.pods.values().chain(&context.local));
            attached.copied().find(|attached| attached.port == port).map(|attached| attached.mac)
        };
        let attached = |port: &api::Port| {
            let mac = port.mac.or_else(|| macs.get(&port.id).copied()).or_else(|| known(port.id))?;
            Some(Attached { port: port.id, mac })
        };
        let on_bridge = || force.ports_of(bridge);
        Some(NodeContext {
            bridge,
            local: on_bridge().find(|port| port.ofport == api::Port::LOCAL).and_then(attached),
            uplink: on_bridge().find(|port| Some(&port.name) == settings.uplink.as_ref()).map(|port| port.id),
            pods: force.bound(bridge).into_iter().filter_map(|(pod, port)| Some((pod, attached(port)?))).collect(),
            neighbors: force.neighbors.values().filter(|neighbor| neighbor.key.bridge == bridge).copied().collect(),
            routes: force.routes.values().filter(|route| route.key.bridge == bridge).cloned().collect(),
        })
    }
}
