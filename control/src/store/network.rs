//! The store's part of a node's network: the bridge that the cluster lives on, what operators state of its neighbours
//! and routes, and the way of what the [`Compiler`](crate::cluster::compile::Compiler) says to the switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::request::{Command, To};
use api::{AddressKey, BridgeId, Change, Hop, MacAddr, Neighbor, PortId, Route, RouteKey, Transaction};
use ipnet::IpNet;

use super::Store;
use super::config::{self, Config};
use crate::cluster::compile::binding::{Attached, Bound, NodeContext, is_spoof_guarded, pod_of};
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
        self.tell(changes, switch).and(bridge).inspect_err(|_| switch.behind(true))
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
        let has_objects = self.cluster.has_objects();
        if has_objects && self.make_bridge(switch).is_err() {
            return switch.behind(true);
        }
        // Also without objects: ports of pods are guarded before anything is known of their pods.
        let context = self.node_context(switch);
        let is_bare = |context: &NodeContext| context.bound.is_empty() && context.attachments.is_empty();
        if !has_objects && self.cluster.is_idle() && context.as_ref().is_none_or(is_bare) {
            return;
        }
        let changes = self.cluster.rebind(context);
        // What is refused is logged, and tried again with the next tick.
        let _ = self.tell(changes, switch);
    }

    fn tell(&mut self, changes: Vec<Change>, switch: &mut dyn Switch) -> Result<(), Refusal> {
        let transaction = Transaction { changes };
        let told = if transaction.changes.is_empty() { Ok(()) } else { switch.apply(&transaction) };
        switch.behind(told.is_err());
        told.inspect_err(|refusal| {
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
        let before = self.cluster.context();
        // The address of a device that went for a while is not forgotten.
        let known = |port: PortId| {
            let attached = before.into_iter().flat_map(|context| context.pods.values().chain(&context.local));
            attached.copied().find(|attached| attached.port == port).map(|attached| attached.mac)
        };
        let attached = |port: &api::Port| {
            let mac = port.mac.or_else(|| switch.mac(port.id)).or_else(|| known(port.id))?;
            Some(Attached { port: port.id, mac })
        };
        let on_bridge = || force.ports_of(bridge);
        let mut bound = BTreeMap::<_, Vec<_>>::new();
        for (port, pod) in on_bridge().filter_map(|port| Some((port, pod_of(&port.external_ids)?))) {
            let (mac, spoof) = (attached(port).map(|at| at.mac), is_spoof_guarded(&port.external_ids));
            bound.entry(pod).or_default().push(Bound { port: port.id, mac, spoof });
        }
        Some(NodeContext {
            bridge,
            local: on_bridge().find(|port| port.ofport == api::Port::LOCAL).and_then(attached),
            uplink: on_bridge().find(|port| Some(&port.name) == settings.uplink.as_ref()).map(|port| port.id),
            pods: force.bound(bridge).into_iter().filter_map(|(pod, port)| Some((pod, attached(port)?))).collect(),
            bound,
            attachments: on_bridge()
                .filter_map(|port| force.attachments.get(&port.id))
                .map(|attachment| (attachment.port, attachment.clone()))
                .collect(),
            macs: on_bridge()
                .filter(|port| force.attachments.contains_key(&port.id))
                .filter_map(|port| Some((port.id, port.mac?)))
                .collect(),
            neighbors: force.neighbors.values().filter(|neighbor| neighbor.key.bridge == bridge).copied().collect(),
            routes: force.routes.values().filter(|route| route.key.bridge == bridge).cloned().collect(),
        })
    }
}

/// What keeps a new port from speaking until it is known whose it is.
pub(super) fn attach(cluster: &mut Compiler, config: &Config, port: &api::Port) -> Option<Change> {
    let bridge = config.bridge(&cluster.settings().bridge)?;
    (bridge.id == port.bridge).then(|| cluster.attach(port)).flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::cluster::Cluster;
    use std::path::Path;
    use std::sync::Arc;

    use api::verb;
    use proptest::prelude::*;

    use super::*;
    use crate::NodeSettings;
    use crate::cluster::compile::everything;
    use crate::cluster::compile::tests::{node, pod, service, slice};
    use crate::fake::FakeSwitch;

    pub(crate) fn settings() -> NodeSettings {
        NodeSettings { name: "n1".to_owned(), uplink: Some("up".to_owned()), ..NodeSettings::default() }
    }

    /// A node, pods `p1` to `p3`, and service `web` in front of the first two.
    pub(crate) fn objects() -> Objects {
        let mut objects = Objects::default();
        let own = node("n1", &["10.244.1.0/24"], &["192.168.0.1"]);
        objects.nodes.insert(own.name.clone(), Arc::new(own));
        for number in 1..4 {
            let made = pod(&format!("p{number}"), &format!("10.244.1.1{number}"));
            objects.pods.insert(made.id.clone(), Arc::new(made));
        }
        let web = service("web", &["10.96.0.10"], &[("http", api::Proto::Tcp, 80)]);
        let port = [("http", api::Proto::Tcp, 8080)];
        let made = slice("web-1", "web", &port, &["10.244.1.11", "10.244.1.12"]);
        objects.slices_of.insert(web.id.clone(), [made.id.clone()].into());
        objects.slices.insert(made.id.clone(), Arc::new(made));
        objects.services.insert(web.id.clone(), Arc::new(web));
        objects
    }

    /// A store with those objects, and the switch that it programs.
    pub(crate) fn open(directory: &Path) -> (Store, FakeSwitch) {
        let mut switch = FakeSwitch::default();
        let mut store = Store::open(directory, "", &settings(), &mut switch).unwrap();
        let objects = objects();
        store.program(&objects, &everything(&objects), &mut switch).unwrap();
        (store, switch)
    }

    pub(crate) fn run(store: &mut Store, switch: &mut FakeSwitch, line: &str) -> Result<(), Refusal> {
        use api::Request;
        let mut commands = Vec::new();
        for part in line.split(" -- ") {
            match verb::parse(&part.split(' ').collect::<Vec<_>>()).unwrap() {
                Request::Transact { commands: more } => commands.extend(more),
                single => {
                    let directory = tempfile::tempdir().unwrap();
                    let mut cluster = Cluster::open(directory.path(), None).unwrap();
                    return crate::verbs::answer(&single, (store, &mut cluster), switch, "").map(drop);
                }
            }
        }
        store.transact(&commands, switch).map(drop)
    }

    fn pods(switch: &FakeSwitch) -> Vec<String> {
        let pods = switch.endpoints.values().filter(|endpoint| endpoint.kind == api::EndpointKind::Pod);
        pods.map(|endpoint| format!("{} {}", endpoint.name, endpoint.port)).collect()
    }

    const BIND: &str = "add-port br-pods p1 -- set Interface p1 external_ids:pod=default/p1";

    #[test]
    fn the_first_object_makes_the_cluster_bridge_and_a_restart_finds_all_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut switch) = open(directory.path());
        assert_eq!(store.config.bridges.values().next().unwrap().name, "br-pods");
        assert_eq!(switch.routers.len(), 1);
        run(&mut store, &mut switch, BIND).unwrap();
        run(&mut store, &mut switch, "add-port br-pods up").unwrap();
        run(&mut store, &mut switch, "route/add br-pods 0.0.0.0/0 dev up via 192.0.2.1").unwrap();
        run(&mut store, &mut switch, "neigh/add br-pods 192.0.2.1 up 02:00:00:00:00:07").unwrap();
        assert_eq!(pods(&switch), ["pod/default/p1 2"]);
        assert_eq!(switch.routers.values().next().unwrap().uplink, Some(PortId(3)));
        assert_eq!((switch.routes.len(), switch.neighbors.len()), (2, 1));
        assert!(
            store.ports().iter().all(|(_, port)| port.id != PortId::STACK),
            "the stack's port is not the operator's"
        );
        drop(store);
        let (_store, after) = open(directory.path());
        assert_eq!(
            (&after.ports, &after.routers, &after.endpoints),
            (&switch.ports, &switch.routers, &switch.endpoints)
        );
        assert_eq!((&after.routes, &after.neighbors), (&switch.routes, &switch.neighbors));
        assert_eq!(after.services, switch.services);
    }

    #[test]
    fn the_cluster_bridge_stays_while_there_are_objects() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut switch) = open(directory.path());
        let refused = run(&mut store, &mut switch, "del-br br-pods").unwrap_err();
        assert_eq!(refused.0, "del-br: br-pods: is the bridge of the cluster, which has objects: delete them first");
        let all = everything(&objects());
        store.program(&Objects::default(), &all, &mut switch).unwrap();
        assert!(switch.routers.is_empty() && !switch.ports.contains_key(&PortId::STACK));
        run(&mut store, &mut switch, "del-br br-pods").unwrap();
        assert!(switch.bridges.is_empty() && switch.ports.is_empty());
    }

    #[test]
    fn a_port_that_goes_takes_its_endpoints_routes_and_neighbours_along() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut switch) = open(directory.path());
        run(&mut store, &mut switch, BIND).unwrap();
        run(&mut store, &mut switch, "route/add br-pods 10.9.0.0/16 dev p1").unwrap();
        run(&mut store, &mut switch, "neigh/add br-pods 10.9.0.1 p1 02:00:00:00:00:07").unwrap();
        run(&mut store, &mut switch, "del-port p1").unwrap();
        assert_eq!((pods(&switch).len(), switch.routes.len(), switch.neighbors.len()), (0, 1, 0));
        assert!(store.config.routes.is_empty() && store.config.neighbors.is_empty());
        run(&mut store, &mut switch, BIND).unwrap();
        assert_eq!(pods(&switch).len(), 1);
        assert_eq!(switch.routes.len(), 1, "the route does not come back with a port of its name");
    }

    #[test]
    fn a_port_that_is_held_has_no_endpoint_until_it_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut switch) = open(directory.path());
        switch.namespaces.lock().unwrap().push("pod1".to_owned());
        run(&mut store, &mut switch, &format!("{BIND} -- set Interface p1 options:netns=pod1")).unwrap();
        assert_eq!(pods(&switch).len(), 1);
        drop(store);
        let (mut store, mut switch) = open(directory.path());
        assert_eq!(pods(&switch).len(), 0, "its namespace is not there");
        switch.namespaces.lock().unwrap().push("pod1".to_owned());
        store.retry(&mut switch);
        assert_eq!(pods(&switch).len(), 1);
    }

    #[test]
    fn what_the_switch_refuses_is_told_again_with_the_next_tick() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = FakeSwitch { refuse: true, ..FakeSwitch::default() };
        let mut store = Store::open(directory.path(), "", &settings(), &mut switch).unwrap();
        let objects = objects();
        assert!(store.program(&objects, &everything(&objects), &mut switch).is_err());
        assert!(switch.services.is_empty());
        store.retry(&mut switch);
        assert!(switch.behind, "health checks hear of it");
        switch.refuse = false;
        store.retry(&mut switch);
        assert_eq!((switch.services.len(), switch.routers.len()), (1, 1));
        assert!(!switch.behind);
        switch.refuse = true;
        assert!(store.program(&Objects::default(), &everything(&objects), &mut switch).is_err());
        assert!(switch.behind);
    }

    #[test]
    fn n22_a_port_of_a_pod_is_guarded_from_the_transaction_on_that_makes_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = FakeSwitch::default();
        let mut store = Store::open(directory.path(), "", &settings(), &mut switch).unwrap();
        let why = |switch: &FakeSwitch| {
            let guards = switch.guards.values().map(|guard| guard.isolated.as_deref().unwrap_or("-").to_owned());
            guards.collect::<Vec<_>>()
        };
        // There is no cluster yet, and somebody makes its bridge.
        run(&mut store, &mut switch, &format!("add-br br-pods -- {BIND}")).unwrap();
        assert_eq!(why(&switch), ["no cluster state yet"]);
        assert!(switch.routers.is_empty());
        run(&mut store, &mut switch, "set Port p1 external_ids:spoof-guard=off").unwrap();
        assert!(!switch.guards.values().next().unwrap().spoof);
        run(&mut store, &mut switch, "remove Port p1 external_ids spoof-guard").unwrap();
        assert!(switch.guards.values().next().unwrap().spoof);
        let refused = run(&mut store, &mut switch, "set Port p1 external_ids:spoof-guard=no").unwrap_err();
        assert_eq!(refused.0, "set: p1: external_ids:spoof-guard=no: must be on or off");
        let objects = objects();
        store.program(&objects, &everything(&objects), &mut switch).unwrap();
        assert_eq!(why(&switch), ["-"]);
        assert_eq!(switch.guards.values().next().unwrap().addresses[..], ["10.244.1.11".parse::<IpAddr>().unwrap()]);
        // A switch that takes ports and refuses all that is told after them: the guard came with the port.
        let commands = "add-port br-pods p2 -- set Port p2 external_ids:pod=default/p2";
        switch.refuse_after = Some(1);
        run(&mut store, &mut switch, commands).unwrap();
        assert_eq!(why(&switch), ["-", "is being attached"]);
        switch.refuse_after = None;
        store.retry(&mut switch);
        assert_eq!(why(&switch), ["-", "-"]);
        run(&mut store, &mut switch, "del-port p2 -- clear Port p1 external_ids").unwrap();
        assert!(switch.guards.is_empty());
    }

    #[test]
    fn routes_and_neighbours_that_make_no_sense_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut switch) = open(directory.path());
        run(&mut store, &mut switch, "add-br br0").unwrap();
        run(&mut store, &mut switch, "add-port br-pods p1").unwrap();
        let before = store.config.clone();
        for (line, why) in [
            ("route/add br9 10.0.0.0/8 dev p1", "route/add: br9: no bridge named br9"),
            ("route/add br-pods 10.0.0.0/8 dev p9", "route/add: br-pods: couldn't find port `p9'"),
            ("route/add br0 10.0.0.0/8 dev p1", "route/add: br0: couldn't find port `p1'"),
            (
                "route/add br-pods 10.0.0.1/8 dev p1",
                "route/add: 10.0.0.1/8: has bits beyond its length: 10.0.0.0/8 is the prefix",
            ),
            (
                "route/add br-pods 10.0.0.0/8 via fd00::1 dev p1",
                "route/add: 10.0.0.0/8: via fd00::1: not of the same family",
            ),
            (
                "route/add br-pods 10.0.0.0/8 via 0.0.0.0 dev p1",
                "route/add: 10.0.0.0/8: via 0.0.0.0: no neighbor can have this address",
            ),
            ("route/del br-pods 10.0.0.0/8", "route/del: 10.0.0.0/8: no static route of this prefix on bridge br-pods"),
            (
                "neigh/add br-pods 224.0.0.1 p1 02:00:00:00:00:01",
                "neigh/add: 224.0.0.1: no neighbor can have this address",
            ),
            (
                "neigh/add br-pods 10.0.0.1 p1 ff:ff:ff:ff:ff:ff",
                "neigh/add: 10.0.0.1: ff:ff:ff:ff:ff:ff: no neighbor can have this address",
            ),
            ("neigh/del br-pods 10.0.0.1", "neigh/del: 10.0.0.1: no static neighbor of this address on bridge br-pods"),
            (
                "add-port br0 s1 -- set Interface s1 type=stack",
                "add-port: s1: type=stack: only the switch itself has such a port",
            ),
            (
                "set Port p1 external_ids:pod=default/p1 -- add-port br-pods p2 -- set Port p2 external_ids:pod=default/p1",
                "set: p2: external_ids:pod=default/p1: port p1 is bound to it already",
            ),
        ] {
            assert_eq!(run(&mut store, &mut switch, line).unwrap_err().0, why);
            assert_eq!(store.config, before, "{line}");
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let port = || (1..5u8).prop_map(|n| format!("p{n}"));
        let bridge = || prop_oneof![Just("br-pods"), Just("br0")];
        prop_oneof![
            bridge().prop_map(|b| format!("--may-exist add-br {b}")),
            bridge().prop_map(|b| format!("--if-exists del-br {b}")),
            (bridge(), port(), port())
                .prop_map(|(b, p, of)| format!("add-port {b} {p} -- set Port {p} external_ids:pod=default/{of}")),
            bridge().prop_map(|b| format!("add-port {b} up")),
            Just("del-port up".to_owned()),
            port().prop_map(|p| format!("del-port {p}")),
            port().prop_map(|p| format!("--if-exists set Interface {p} mac=\"02:00:00:00:00:55\"")),
            (bridge(), port(), 0..3u8).prop_map(|(b, p, n)| format!("route/add {b} 10.{n}.0.0/16 dev {p}")),
            (bridge(), 0..3u8).prop_map(|(b, n)| format!("route/add {b} 10.{n}.0.0/16 unreachable")),
            (bridge(), 0..3u8).prop_map(|(b, n)| format!("route/del {b} 10.{n}.0.0/16")),
            (bridge(), port(), 0..3u8)
                .prop_map(|(b, p, n)| format!("neigh/add {b} 10.0.0.{n} {p} 02:00:00:00:00:0{n}")),
            (bridge(), 0..3u8).prop_map(|(b, n)| format!("neigh/del {b} 10.0.0.{n}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_network_follows_from_ports_and_objects_after_any_commands(
            steps in proptest::collection::vec((line(), 0..6u8, 0..6u8), 1..25),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut switch = FakeSwitch::default();
            let mut store = Store::open(directory.path(), "", &settings(), &mut switch).unwrap();
            let mut objects_now = Objects::default();
            for (line, refuse, turn) in steps {
                switch.refuse = refuse == 0;
                match turn {
                    0 => {
                        objects_now = if is_empty(&objects_now) { objects() } else { Objects::default() };
                        let _ = store.program(&objects_now, &everything(&objects()), &mut switch);
                    }
                    _ => drop(run(&mut store, &mut switch, &line)),
                }
                switch.refuse = false;
                store.retry(&mut switch);
                prop_assert_eq!(store.config.check(), Ok(()));
                let wanted = usize::from(!is_empty(&objects_now));
                prop_assert_eq!((switch.routers.len(), switch.services.len()), (wanted, wanted));
                // Every port of a pod is guarded, whatever is known of the pod.
                let bound = store.config.bridge("br-pods").map(|bridge| store.config.bound(bridge.id));
                let ports: Vec<_> = bound.into_iter().flatten().map(|(_, port)| port.id).collect();
                prop_assert!(ports.iter().all(|port| switch.guards.contains_key(port)) && ports.len() == switch.guards.len());
            }
            store.program(&objects(), &everything(&objects()), &mut switch).unwrap();
            let config = store.config.clone();
            drop(store);
            let (store, after) = open(directory.path());
            prop_assert_eq!(&store.config, &config);
            prop_assert_eq!(&after.ports, &switch.ports);
            prop_assert_eq!(&after.routers, &switch.routers);
            prop_assert_eq!(&after.endpoints, &switch.endpoints);
            prop_assert_eq!(&after.neighbors, &switch.neighbors);
            prop_assert_eq!(&after.routes, &switch.routes);
            prop_assert_eq!(&after.services, &switch.services);
            prop_assert_eq!(&after.guards, &switch.guards);
            prop_assert_eq!(&after.subjects, &switch.subjects);
        }
    }
}
