//! masquerade: leaving the cluster, hairpin: a source address and port from the pool.
//!
//! A connection keeps its own source wherever its answers come back through this switch by themselves. Between pods and
//! between pods and the node that is always so, and nothing is ever translated there (rules M2, M3 and M4 of the network model).
//!
//! | new connection | comes from |
//! |---|---|
//! | to a service whose chosen backend is the client itself (hairpin) | the gateway |
//! | of a pod, leaving by the uplink | the node |
//! | to a service, of neither an endpoint nor a pod nor the node | the node |
//!
//! Worked example: pod 10.0.0.2:4000 speaks to the service 10.96.0.1:80, of which it is the only backend. Left alone its
//! frame would come back to it from its own address, and its kernel would drop it. So the pod hears 10.0.0.254:30000 →
//! 10.0.0.2:8080; its answer goes to the gateway, where `connection` finds it: 10.96.0.1:80 → 10.0.0.2:4000.
//!
//! Only the address and the range of ports are chosen here: which port is free, the table of connections knows.
//! Traffic to other nodes' pods that leaves by the uplink is not told from traffic to the outside: routes to them lead
//! nowhere as long as there are no tunnels.

use std::net::IpAddr;
use std::sync::Arc;

use api::{AddressKey, BridgeId, Change, EndpointKind, PortId, Router};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::live::connections::Source;
use crate::probe::cells::Touched;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::Walk;
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "masquerade",
    help: "leaving the cluster, hairpin: a source address and port from the pool",
    first_packet: true,
    build: || Box::new(Masquerade::new()),
};

/// Source ports of a hairpin: the gateway has no other use for them, and below 1024 a source means something to old services.
const HAIRPIN_PORTS: (u16, u16) = (1024, 65535);

#[derive(Clone, Debug)]
struct Masquerade {
    routers: Exact<BridgeId, Arc<Router>>,
    endpoints: Exact<AddressKey, EndpointKind>,
}

/// Why a source is not to be seen on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Hairpin,
    Leaving,
    Foreign,
}

impl Masquerade {
    fn new() -> Self {
        Self { routers: Exact::new("masquerade"), endpoints: Exact::new("masquerade endpoint") }
    }

    fn kind(&self, walk: &mut Walk<'_>, address: IpAddr) -> Option<EndpointKind> {
        self.endpoints.get(AddressKey { bridge: walk.bridge, address }, &mut walk.asked).copied()
    }

    /// A pod's address leaves by the uplink.
    fn leaves(&self, walk: &mut Walk<'_>, router: &Router, source: IpAddr) -> bool {
        if !walk.outputs.iter().any(|copy| Some(copy.port) == router.uplink) {
            return false;
        }
        // A frame that is bridged to whoever it may concern may have the uplink among its ways, and yet be to a pod.
        let to_pod = walk.key.destination().is_some_and(|destination| is_pods(router, destination));
        !to_pod && (is_pods(router, source) || self.kind(walk, source) == Some(EndpointKind::Pod))
    }

    /// Why a new connection must not come from its own source.
    fn why(&self, walk: &mut Walk<'_>, router: &Router, source: IpAddr) -> Option<Why> {
        if walk.service.as_ref().is_some_and(|service| service.backend == source) {
            return Some(Why::Hairpin);
        }
        if self.leaves(walk, router, source) {
            return Some(Why::Leaving);
        }
        let ours = |walk: &mut Walk<'_>| {
            is_pods(router, source) || router.node.contains(&source) || self.kind(walk, source).is_some()
        };
        (walk.service.is_some() && !ours(walk)).then_some(Why::Foreign)
    }
}

/// The address lies in a podCIDR of this node.
fn is_pods(router: &Router, address: IpAddr) -> bool {
    router.gateways.iter().any(|gateway| gateway.contains(&address))
}

/// What a source of this IP version is seen as: address, first and last port.
fn pool(router: &Router, why: Why, of: IpAddr) -> Option<(IpAddr, (u16, u16))> {
    let same = |address: &IpAddr| address.is_ipv4() == of.is_ipv4();
    let gateway = router.gateways.iter().map(|gateway| gateway.addr()).find(same);
    let node = router.node.iter().copied().find(same);
    Some(match why {
        // Its own address is what it must not see: the node, speaking to itself, sees the gateway.
        Why::Hairpin => (gateway.or(node).filter(|address| *address != of)?, HAIRPIN_PORTS),
        Why::Leaving => (node?, router.snat_ports),
        Why::Foreign => (node.or(gateway)?, router.snat_ports),
    })
}

impl Stage for Masquerade {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Router(delta) => {
                    if let Some(bridge) = delta.new.as_ref().or(delta.old.as_ref()).map(|router| router.bridge) {
                        self.routers.set(bridge, delta.new.clone().map(Arc::new), touched);
                    }
                }
                Change::Endpoint(delta) => {
                    if let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|endpoint| endpoint.key) {
                        self.endpoints.set(key, delta.new.as_ref().map(|endpoint| endpoint.kind), touched);
                    }
                }
                _ => {}
            }
        }
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.routed || walk.connection.is_some() {
            return Next::Continue;
        }
        let carried = Carried::of(&walk.key, walk.bridge);
        let (Some(address), false) = (walk.key.source(), carried == Carried::Nothing) else { return Next::Continue };
        let Some(router) = self.routers.get(walk.bridge, &mut walk.asked) else { return Next::Continue };
        let Some(why) = self.why(walk, router, address) else { return Next::Continue };
        let Some((seen, ports)) = pool(router, why, address) else { return Next::Drop(DropReason::NoNodeAddress) };
        // What can belong to no connection cannot be translated, and must not be seen untranslated (rule V24).
        if !matches!(carried, Carried::Flow(_)) || !tracking::opens(walk) {
            return Next::Drop(DropReason::Invalid);
        }
        walk.say(|| format!("seen as {seen}, ports {} to {}", ports.0, ports.1));
        walk.source = Source::Masquerade(seen, ports);
        Next::Continue
    }
}
