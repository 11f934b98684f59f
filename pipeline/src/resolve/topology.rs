//! What the switch was told of a routed bridge: its router, and who is where for certain.
//!
//! Several stages ask this, some of them the same of one frame: so it is the program's, once, and the walk carries it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{
    Acl, AclAction, AclKey, AclPlace, AddressKey, BridgeId, Change, Delta, Endpoint, EndpointKind, MacAddr, Neighbor,
    PortId, Router,
};

use crate::probe::cells::{Asked, Touched};
use crate::tables::Exact;

/// An address that is known for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Behind this port.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// What it is; `None` for a neighbour that an operator stated.
    pub kind: Option<EndpointKind>,
    /// Who it is ([`api::Endpoint::identity`]); 0 for a neighbour that an operator stated.
    pub identity: u64,
    /// What people call it.
    pub name: Arc<str>,
}

impl Resident {
    /// It is the switch's own address.
    pub fn is_gateway(&self) -> bool {
        self.kind == Some(EndpointKind::Gateway)
    }
}

/// Who speaks, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// A pod of this node, be it that its address lies in a podCIDR and no endpoint is known there yet.
    Pod,
    /// The node itself.
    Node,
    /// Anybody else: hosts, other nodes, their pods.
    Beyond,
}

/// Routers, endpoints and static neighbours.
#[derive(Clone, Debug)]
pub struct Topology {
    routers: Exact<BridgeId, Arc<Router>>,
    endpoints: Exact<AddressKey, Resident>,
    neighbors: Exact<AddressKey, Resident>,
    /// Bridges that have access lists, or ports that have. Asked with `routers`, so under one name.
    listed: Exact<BridgeId, Listed>,
    places: Arc<Places>,
}

/// Access lists are asked about the frames of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// One of them lets connections through: its IP traffic is tracked, even if it is not routed.
    pub stateful: bool,
}

/// Where access lists are: what [`Listed`] follows from.
#[derive(Clone, Debug, Default)]
struct Places {
    homes: BTreeMap<PortId, BridgeId>,
    /// Whether they are stateful.
    lists: BTreeMap<AclKey, bool>,
}

impl Places {
    fn listed(&self) -> BTreeMap<BridgeId, Listed> {
        let mut listed = BTreeMap::new();
        for (key, stateful) in &self.lists {
            let bridge = match key.at {
                AclPlace::Bridge(bridge) => Some(bridge),
                AclPlace::Port(port) => self.homes.get(&port).copied(),
            };
            if let Some(bridge) = bridge {
                listed.entry(bridge).or_insert(Listed { stateful: false }).stateful |= stateful;
            }
        }
        listed
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            routers: Exact::new("router"),
            endpoints: Exact::new("endpoint"),
            neighbors: Exact::new("static neighbor"),
            listed: Exact::new("router"),
            places: Arc::default(),
        }
    }
}

impl Topology {
    /// Take over what a transaction says.
    pub fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        let mut moved = false;
        for change in changes {
            match change {
                Change::Port(delta) => {
                    let Some(id) = delta.new.as_ref().or(delta.old.as_ref()).map(|port| port.id) else { continue };
                    let home = delta.new.as_ref().map(|port| port.bridge);
                    if self.places.homes.get(&id).copied() != home {
                        replace(&mut Arc::make_mut(&mut self.places).homes, id, home);
                        moved |= self.places.lists.keys().any(|key| key.at == AclPlace::Port(id));
                    }
                }
                Change::Acl(delta) => {
                    let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|acl| acl.key) else { continue };
                    let stateful = delta.new.as_ref().map(is_stateful);
                    replace(&mut Arc::make_mut(&mut self.places).lists, key, stateful);
                    moved = true;
                }
                Change::Router(delta) => {
                    if let Some(router) = delta.new.as_ref().or(delta.old.as_ref()) {
                        self.routers.set(router.bridge, delta.new.clone().map(Arc::new), touched);
                    }
                }
                Change::Endpoint(delta) => {
                    let resident = |endpoint: &api::Endpoint| Resident {
                        port: endpoint.port,
                        mac: endpoint.mac,
                        kind: Some(endpoint.kind),
                        identity: endpoint.identity,
                        name: endpoint.name.as_str().into(),
                    };
                    if let Some(endpoint) = delta.new.as_ref().or(delta.old.as_ref()) {
                        self.endpoints.set(endpoint.key, delta.new.as_ref().map(resident), touched);
                    }
                }
                Change::Neighbor(delta) => {
                    let resident = |neighbor: api::Neighbor| Resident {
                        port: neighbor.port,
                        mac: neighbor.mac,
                        kind: None,
                        identity: 0,
                        name: "static neighbor".into(),
                    };
                    if let Some(neighbor) = delta.new.as_ref().or(delta.old.as_ref()) {
                        self.neighbors.set(neighbor.key, delta.new.map(resident), touched);
                    }
                }
                _ => {}
            }
        }
        if moved {
            let listed = self.places.listed();
            let gone = self.listed.iter().map(|(bridge, _)| *bridge).filter(|bridge| !listed.contains_key(bridge));
            for bridge in gone.collect::<Vec<_>>() {
                self.listed.set(bridge, None, touched);
            }
            for (bridge, row) in listed {
                if self.listed.peek(&bridge) != Some(&row) {
                    self.listed.set(bridge, Some(row), touched);
                }
            }
        }
    }

    /// All rows, as the changes that would make them of nothing.
    pub fn dump(&self, rows: &mut Vec<Change>) {
        rows.extend(self.routers.iter().map(|(_, router)| Change::Router(Delta::add(Router::clone(router)))));
        rows.extend(self.endpoints.iter().filter_map(|(&key, resident)| {
            let &Resident { port, mac, kind, identity, .. } = resident;
            let endpoint = Endpoint { key, port, mac, kind: kind?, identity, name: (*resident.name).to_owned() };
            Some(Change::Endpoint(Delta::add(endpoint)))
        }));
        rows.extend(self.neighbors.iter().map(|(&key, resident)| {
            Change::Neighbor(Delta::add(Neighbor { key, port: resident.port, mac: resident.mac }))
        }));
    }

    /// The router of a bridge.
    pub fn router(&self, bridge: BridgeId, asked: &mut Asked<'_>) -> Option<&Router> {
        self.routers.get(bridge, asked).map(AsRef::as_ref)
    }

    /// Access lists are asked about frames of a bridge.
    pub fn listed(&self, bridge: BridgeId, asked: &mut Asked<'_>) -> Option<Listed> {
        self.listed.get(bridge, asked).copied()
    }

    /// The same for who programs it: frames of a bridge are tracked because of its access lists.
    pub fn is_stateful(&self, bridge: BridgeId) -> bool {
        self.listed.peek(&bridge).is_some_and(|listed| listed.stateful)
    }

    /// Where the node of a bridge is, for who programs it.
    pub fn local(&self, bridge: BridgeId) -> Option<PortId> {
        self.routers.peek(&bridge)?.local
    }

    /// The endpoint of an address.
    pub fn endpoint(&self, key: AddressKey, asked: &mut Asked<'_>) -> Option<&Resident> {
        self.endpoints.get(key, asked)
    }

    /// The endpoint of an address will be asked for soon.
    pub fn look_ahead(&self, key: AddressKey) {
        self.endpoints.prefetch(self.endpoints.hash(&key));
    }

    /// Who speaks from an address behind a router. Endpoints are asked last: most who speak are told by the router alone.
    pub fn speaker(&self, router: &Router, address: IpAddr, asked: &mut Asked<'_>) -> Speaker {
        if router.node.contains(&address) {
            return Speaker::Node;
        }
        if is_pods(router, address) {
            return Speaker::Pod;
        }
        let key = AddressKey { bridge: router.bridge, address };
        match self.endpoint(key, asked).and_then(|resident| resident.kind) {
            Some(EndpointKind::Pod) => Speaker::Pod,
            Some(EndpointKind::Node) => Speaker::Node,
            Some(EndpointKind::Gateway) | None => Speaker::Beyond,
        }
    }

    /// Identities of the endpoints at the two ends of a connection; 0 where there is none.
    pub fn owners(&self, bridge: BridgeId, ends: [IpAddr; 2], asked: &mut Asked<'_>) -> [u64; 2] {
        ends.map(|address| self.endpoint(AddressKey { bridge, address }, asked).map_or(0, |resident| resident.identity))
    }

    /// Who has an address for certain: an endpoint, or else a static neighbour.
    pub fn resident(&self, key: AddressKey, asked: &mut Asked<'_>) -> Option<&Resident> {
        match self.endpoints.get(key, asked) {
            Some(resident) => Some(resident),
            None => self.neighbors.get(key, asked),
        }
    }
}

/// A list lets connections through, and all that belongs to them.
fn is_stateful(acl: &Acl) -> bool {
    acl.rules.iter().any(|rule| rule.action == AclAction::AllowRelated)
}

fn replace<K: Ord, V>(rows: &mut BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    };
}

/// The address lies in a podCIDR of this node.
pub fn is_pods(router: &Router, address: IpAddr) -> bool {
    router.gateways.iter().any(|gateway| gateway.contains(&address))
}

/// The address that the switch speaks from to somebody at `port` with address `to`: of the gateway on its link, of the
/// node to the outside, or else any of the family.
pub fn own_address(router: &Router, port: PortId, to: IpAddr) -> Option<IpAddr> {
    let same = |address: &IpAddr| address.is_ipv4() == to.is_ipv4();
    let link = router.gateways.iter().find(|net| net.contains(&to)).map(|net| net.addr());
    let gateway = router.gateways.iter().map(|net| net.addr()).find(same);
    let node = router.node.iter().copied().find(same);
    let others = if router.uplink == Some(port) { node.or(gateway) } else { gateway.or(node) };
    link.or(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;
    use crate::resolve::trial::{endpoint, endpoints, ip, router};

    #[test]
    fn the_switch_speaks_from_the_link_it_speaks_on() {
        let router = Router {
            bridge: BridgeId(1),
            mac: MacAddr([2, 0, 0, 0, 0, 0xee]),
            gateways: ["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"].map(|net| net.parse().unwrap()).to_vec(),
            node: vec!["192.0.2.9".parse().unwrap()],
            uplink: Some(PortId(9)),
            local: None,
            snat_ports: Router::SNAT_PORTS,
        };
        for (port, to, from) in [
            (1, "10.0.1.7", Some("10.0.1.1")),
            (9, "10.0.1.7", Some("10.0.1.1")),
            (1, "198.51.100.1", Some("10.0.0.1")),
            (9, "198.51.100.1", Some("192.0.2.9")),
            (9, "2001:db8::1", Some("fd00::1")),
        ] {
            let own = own_address(&router, PortId(port), to.parse().unwrap());
            assert_eq!(own, from.map(|from| from.parse().unwrap()), "{to} at {port}");
        }
        let router = Router { gateways: vec![], ..router };
        assert_eq!(own_address(&router, PortId(1), "2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn rows_are_told_as_they_were_given() {
        let live = Live::default();
        let mut topology = Topology::default();
        let key = AddressKey { bridge: BridgeId(1), address: ip("192.0.2.7") };
        let neighbor = Neighbor { key, port: PortId(4), mac: MacAddr([2, 0, 0, 0, 0, 7]) };
        let mut given = endpoints();
        given.extend([Change::Router(Delta::add(router())), Change::Neighbor(Delta::add(neighbor))]);
        live.cells.change(|touched| topology.apply(&given, touched));
        let mut told = Vec::new();
        topology.dump(&mut told);
        assert_eq!(told.len(), given.len());
        assert!(given.iter().all(|row| told.contains(row)), "{told:?}");
        let gone = |change: &Change| api::Transaction { changes: vec![change.clone()] }.inverse().changes;
        let gone: Vec<Change> = given.iter().flat_map(gone).collect();
        live.cells.change(|touched| topology.apply(&gone, touched));
        told.clear();
        topology.dump(&mut told);
        assert_eq!(told, []);
    }

    #[test]
    fn who_speaks_is_told_by_podcidrs_node_addresses_and_endpoints() {
        let live = Live::default();
        let mut topology = Topology::default();
        let elsewhere = [("198.51.100.1", EndpointKind::Pod), ("198.51.100.2", EndpointKind::Node)]
            .map(|(address, kind)| Change::Endpoint(Delta::add(endpoint(address, 5, kind, 5))));
        live.cells.change(|touched| topology.apply(&[endpoints(), elsewhere.to_vec()].concat(), touched));
        for (address, speaker, cells) in [
            ("10.0.0.1", Speaker::Pod, 0),
            ("10.0.0.77", Speaker::Pod, 0),
            ("fd00::77", Speaker::Pod, 0),
            ("192.0.2.1", Speaker::Node, 0),
            ("2001:db8::1", Speaker::Node, 0),
            ("198.51.100.1", Speaker::Pod, 1),
            ("198.51.100.2", Speaker::Node, 1),
            ("203.0.113.9", Speaker::Beyond, 1),
            // A pod of another node.
            ("10.0.7.1", Speaker::Beyond, 1),
            ("fd00:7::1", Speaker::Beyond, 1),
        ] {
            let mut asked = Asked::new(&live.cells);
            assert_eq!(topology.speaker(&router(), ip(address), &mut asked), speaker, "{address}");
            let noted = asked.deps(false).cells();
            assert_eq!(noted.iter().filter(|cell| cell.index() != 0).count(), cells, "{address}");
        }
    }
}
