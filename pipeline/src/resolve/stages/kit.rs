//! A stage alone, with a small node around it, for the tests of stages that route.
//!
//! ```text
//!   pod 10.0.0.5, fd00::5 ── port 3 ─┐               ┌─ port 9 ── uplink 192.0.2.0/24, gateway 192.0.2.1
//!   pod 10.0.0.6, fd00::6 ── port 4 ─┼─ bridge 1 ────┤
//!   node 192.0.2.9 ───────── port 2 ─┘               └─ stack: gateways 10.0.0.1/24, fd00::1/64
//! ```

use std::net::IpAddr;
use std::time::Duration;

use api::{
    AddressKey, BridgeId, Change, Delta, Endpoint, EndpointKind, Hop, MacAddr, Neighbor, Port, PortId, Route, RouteKey,
    Router, Vlan,
};

use crate::key::FlowKey;
use crate::live::{Live, Now};
use crate::parse;
use crate::probe::cells::{Asked, Deps};
use crate::reply::samples::ROUTER_MAC;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::topology::Topology;
use crate::resolve::walk::{Copy, Effect, Walk};

pub(super) const BR: BridgeId = BridgeId(1);
pub(super) const LOCAL: PortId = PortId(2);
pub(super) const POD: PortId = PortId(3);
pub(super) const OTHER: PortId = PortId(4);
pub(super) const UPLINK: PortId = PortId(9);

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn key(address: &str) -> AddressKey {
    AddressKey { bridge: BR, address: ip(address) }
}

/// The Ethernet address of what is behind a port.
pub(super) fn mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port.0 as u8])
}

pub(super) fn port(id: PortId, vlan: Vlan, mtu: u16) -> Change {
    Change::Port(Delta::add(Port {
        id,
        name: format!("p{id}"),
        bridge: BR,
        ofport: id.0,
        kind: "memory".to_owned(),
        options: Default::default(),
        vlan,
        mac: None,
        mtu,
        external_ids: Default::default(),
    }))
}

pub(super) fn endpoint(address: &str, port: PortId, kind: EndpointKind) -> Endpoint {
    let mac = if kind == EndpointKind::Gateway { ROUTER_MAC } else { mac(port) };
    let name = match kind {
        EndpointKind::Pod => format!("pod/default/p{port}"),
        EndpointKind::Node => "node/n1".to_owned(),
        EndpointKind::Gateway => "gateway".to_owned(),
    };
    Endpoint { key: key(address), port, mac, kind, identity: u64::from(port.0), name }
}

pub(super) fn route(prefix: &str, to: Hop) -> Change {
    let key = RouteKey { bridge: BR, prefix: prefix.parse().unwrap() };
    Change::Route(Delta::add(Route { key, to, origin: "test".to_owned() }))
}

pub(super) fn neighbor(address: &str, port: PortId, mac: MacAddr) -> Change {
    Change::Neighbor(Delta::add(Neighbor { key: key(address), port, mac }))
}

/// The node of the drawing, with a default route via 192.0.2.1.
pub(super) fn node() -> Vec<Change> {
    use EndpointKind::{Gateway, Node, Pod};
    let router = Router {
        bridge: BR,
        mac: ROUTER_MAC,
        gateways: vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        node: vec![ip("192.0.2.9")],
        uplink: Some(UPLINK),
        local: None,
        snat_ports: Router::SNAT_PORTS,
    };
    let ports = [LOCAL, POD, OTHER, UPLINK, PortId::STACK].map(|id| port(id, Vlan::default(), 1500));
    let endpoints = [
        ("10.0.0.1", PortId::STACK, Gateway),
        ("fd00::1", PortId::STACK, Gateway),
        ("192.0.2.9", LOCAL, Node),
        ("10.0.0.5", POD, Pod),
        ("fd00::5", POD, Pod),
        ("10.0.0.6", OTHER, Pod),
        ("fd00::6", OTHER, Pod),
    ];
    let endpoints = endpoints.map(|(address, port, kind)| Change::Endpoint(Delta::add(endpoint(address, port, kind))));
    let routes = [
        route("10.0.0.0/24", Hop::Endpoint),
        route("fd00::/64", Hop::Endpoint),
        route("192.0.2.0/24", Hop::OnLink { port: UPLINK }),
        route("2001:db8::/64", Hop::OnLink { port: UPLINK }),
        route("0.0.0.0/0", Hop::Via { port: UPLINK, gateway: ip("192.0.2.1") }),
        route("::/0", Hop::Via { port: UPLINK, gateway: ip("fe80::1") }),
    ];
    let mut changes: Vec<Change> = ports.into_iter().collect();
    changes.push(Change::Router(Delta::add(router)));
    changes.extend(endpoints);
    changes.extend(routes);
    changes
}

/// A stage with its tables, and what packets write.
pub(super) struct Bench {
    pub(super) live: Live,
    pub(super) stage: Box<dyn Stage>,
    topology: Topology,
    pub(super) now: Now,
}

/// What became of a walk in the stage.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) next: Next,
    pub(super) start: FlowKey,
    pub(super) key: FlowKey,
    pub(super) outputs: Vec<Copy>,
    pub(super) effects: Vec<Effect>,
    pub(super) hops: u8,
    pub(super) guard: u32,
    pub(super) transient: bool,
    pub(super) deps: Deps,
    pub(super) note: String,
}

impl Bench {
    pub(super) fn new(def: &StageDef, changes: &[Change]) -> Self {
        let (live, topology) = (Live::default(), Topology::default());
        let mut bench = Self { live, stage: (def.build)(), topology, now: Now(Duration::from_secs(100)) };
        bench.apply(changes);
        bench
    }

    pub(super) fn apply(&mut self, changes: &[Change]) {
        let Self { live, stage, topology, .. } = self;
        live.cells.change(|touched| {
            stage.apply(changes, touched);
            topology.apply(changes, touched);
        });
    }

    /// A frame that came in by `port`, on a routed bridge.
    pub(super) fn decide(&self, port: PortId, frame: &[u8]) -> Decided {
        self.decide_with(port, frame, |_| ())
    }

    /// The same, after an earlier stage did `before`.
    pub(super) fn decide_with(&self, port: PortId, frame: &[u8], before: impl FnOnce(&mut Walk<'_>)) -> Decided {
        let layers = parse::layers(frame, frame.len(), None).unwrap();
        let mask = self.stage.mask(port, true);
        let key = parse::key(port, frame, &layers).masked(&mask);
        let mut walk = Walk::new(key, layers, frame, &self.topology, &self.live, self.now);
        (walk.bridge, walk.routed, walk.steps) = (BR, true, Some(vec![Default::default()]));
        // That it was asked for is noted in `admit`.
        walk.router = self.topology.router(BR, &mut Asked::new(&self.live.cells));
        before(&mut walk);
        let next = self.stage.decide(&mut walk);
        Decided {
            next,
            start: walk.start,
            key: walk.key,
            deps: walk.asked.deps(false),
            outputs: walk.outputs,
            effects: walk.effects,
            hops: walk.hops,
            guard: walk.guard,
            transient: walk.transient,
            note: walk.steps.unwrap().remove(0).note,
        }
    }

    /// Bring about what concerns neighbours. Returns the requests that would be sent.
    pub(super) fn settle(&self, port: PortId, decided: &Decided) -> usize {
        let (live, now) = (&self.live, self.now);
        let sends = |effect: &&Effect| match **effect {
            Effect::Neighbor { key, mac } => {
                live.neighbors.learn(key, port, mac, now, &live.cells);
                false
            }
            Effect::Solicit { key, port, .. } => live.neighbors.solicit(key, port, now, &live.cells),
            _ => false,
        };
        decided.effects.iter().filter(sends).count()
    }
}
