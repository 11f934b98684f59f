//! masquerade: leaving the cluster, hairpin: a source address and port from the pool.
//!
//! A connection keeps its own source wherever its answers come back through this switch by themselves. Between pods and
//! between pods and the node that is always so, and nothing is ever translated there (rules M2, M3 and M4 of the network model).
//!
//! | new connection | comes from |
//! |---|---|
//! | to a service whose chosen backend is the client itself (hairpin) | the gateway |
//! | of a pod, leaving by the uplink | the node |
//! | to a service's cluster address, of neither a pod of this node nor the node | the node |
//! | to an external address of a service, traffic policy Cluster | the node, whoever speaks and wherever the backend is |
//! | the same, traffic policy Local, of the node | the node |
//! | the same, traffic policy Local, of anybody else | who it is |
//!
//! The backend of an external address may be on another node, and its answers would go past this one: so policy Cluster hides
//! every client. Policy Local keeps to backends of this node for the sake of the client's own address; pods of this
//! node, which have all backends there, are seen as they would be if they spoke to the backend itself.
//!
//! Worked example: pod 10.0.0.2:4000 speaks to the service 10.96.0.1:80, of which it is the only backend. Left alone its
//! frame would come back to it from its own address, and its kernel would drop it. So the pod hears 10.0.0.254:30000 →
//! 10.0.0.2:8080; its answer goes to the gateway, where `connection` finds it: 10.96.0.1:80 → 10.0.0.2:4000.
//!
//! Only the address and the range of ports are chosen here: which port is free, the table of connections knows.
//! Traffic to other nodes' pods that leaves by the uplink is not told from traffic to the outside: routes to them lead
//! nowhere as long as there are no tunnels.

use std::net::IpAddr;

use api::{PortId, Router};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::live::connections::Source;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::topology::{Speaker, is_pods};
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Reached, Walk};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "masquerade",
    help: "leaving the cluster, hairpin: a source address and port from the pool",
    first_packet: true,
    build: || Box::new(Masquerade),
};

/// Source ports of a hairpin: the gateway has no other use for them, and below 1024 a source means something to old services.
const HAIRPIN_PORTS: (u16, u16) = (1024, 65535);

#[derive(Clone, Debug)]
struct Masquerade;

/// Why a source is not to be seen on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Hairpin,
    Leaving,
    /// What it was sent to says so.
    Service,
}

impl Masquerade {
    /// A pod's address leaves by the uplink.
    fn leaves(&self, walk: &mut Walk<'_>, router: &Router, source: IpAddr) -> bool {
        if !walk.outputs.iter().any(|copy| Some(copy.port) == router.uplink) {
            return false;
        }
        // A frame that is bridged to whoever it may concern may have the uplink among its ways, and yet be to a pod.
        let to_pod = walk.key.destination().is_some_and(|destination| is_pods(router, destination));
        !to_pod && walk.topology.speaker(router, source, &mut walk.asked) == Speaker::Pod
    }

    /// Why a new connection must not come from its own source.
    fn why(&self, walk: &mut Walk<'_>, router: &Router, source: IpAddr) -> Option<Why> {
        let service = walk.service;
        if service.is_some_and(|service| service.backend.ip() == source) {
            return Some(Why::Hairpin);
        }
        if self.leaves(walk, router, source) {
            return Some(Why::Leaving);
        }
        let mut speaker = || walk.topology.speaker(router, source, &mut walk.asked);
        let hidden = match service?.reached {
            Reached::Cluster => speaker() == Speaker::Beyond,
            Reached::External => true,
            Reached::ExternalLocal => speaker() == Speaker::Node,
        };
        hidden.then_some(Why::Service)
    }

    /// A first packet.
    fn first(&self, walk: &mut Walk<'_>, router: &Router) -> Next {
        let Some(address) = walk.key.source() else { return Next::Continue };
        let Some(why) = self.why(walk, router, address) else { return Next::Continue };
        let carried = Carried::of(&walk.key, walk.bridge);
        if carried == Carried::Nothing {
            return Next::Continue;
        }
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

/// What a source of this IP version is seen as: address, first and last port.
fn pool(router: &Router, why: Why, of: IpAddr) -> Option<(IpAddr, (u16, u16))> {
    let same = |address: &IpAddr| address.is_ipv4() == of.is_ipv4();
    let gateway = router.gateways.iter().map(|gateway| gateway.addr()).find(same);
    let node = router.node.iter().copied().find(same);
    Some(match why {
        // Its own address is what it must not see: the node, speaking to itself, sees the gateway.
        Why::Hairpin => (gateway.or(node).filter(|address| *address != of)?, HAIRPIN_PORTS),
        Why::Leaving => (node?, router.snat_ports),
        Why::Service => (node.or(gateway)?, router.snat_ports),
    })
}

impl Stage for Masquerade {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if walk.connection.is_some() {
            return Next::Continue;
        }
        walk.router.map_or(Next::Continue, |router| self.first(walk, router))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::VlanEdit;
    use crate::resolve::trial::{RST, SYN, Trial, UPLINK, end, endpoints, flow, icmp, ip, router};
    use crate::resolve::walk::{Chosen, Copy};
    use api::{Change, Delta};
    use std::net::SocketAddr;

    fn trial_of(router: Router) -> Trial {
        let changes = [endpoints(), vec![Change::Router(Delta::add(router))]].concat();
        Trial::new(&STAGE, &changes)
    }

    /// What becomes of a frame that leaves by a port, after a service led to `backend`.
    fn fate(trial: &Trial, frame: &[u8], out: PortId, backend: Option<&str>) -> (Next, Source) {
        reached(trial, frame, out, backend.map(|backend| (backend, Reached::Cluster)))
    }

    /// The same, by the service at this kind of address.
    fn reached(trial: &Trial, frame: &[u8], out: PortId, backend: Option<(&str, Reached)>) -> (Next, Source) {
        let (next, walk) = trial.decide(1, frame, |walk| {
            walk.outputs.push(Copy { port: out, vlan: VlanEdit::Keep, mtu: u16::MAX });
            if let Some((backend, reached)) = backend.map(|(backend, reached)| (ip(backend), reached)) {
                walk.key.set_destination(backend);
                walk.service = Some(Chosen { backend: SocketAddr::new(backend, 8080), reached, visit: None });
            }
        });
        (next, walk.source)
    }

    const POD_B: PortId = PortId(2);
    const NODE: PortId = PortId(3);

    fn seen_as(address: &str, ports: (u16, u16)) -> (Next, Source) {
        (Next::Continue, Source::Masquerade(ip(address), ports))
    }

    #[test]
    fn m2_m3_m4_pods_and_the_node_see_each_other_as_they_are() {
        let trial = trial_of(router());
        for (from, to, out) in [
            ("10.0.0.1:1", "10.0.0.2:2", POD_B),
            ("[fd00::1]:1", "[fd00::2]:2", POD_B),
            ("10.0.0.1:1", "192.0.2.1:2", NODE),
            ("192.0.2.1:1", "10.0.0.1:2", PortId(1)),
            ("[2001:db8::1]:1", "[fd00::1]:2", PortId(1)),
            ("192.0.2.1:1", "203.0.113.9:2", UPLINK),
            ("203.0.113.9:1", "10.0.0.1:2", PortId(1)),
            // To a pod whose port is not known: the frame is flooded, the uplink among its ways.
            ("10.0.0.1:1", "10.0.0.9:2", UPLINK),
        ] {
            assert_eq!(fate(&trial, &flow(6, from, to, SYN), out, None), (Next::Continue, Source::Own), "{from} {to}");
        }
    }

    #[test]
    fn row_1_5_1_a_pod_to_a_service_is_not_masqueraded_v3() {
        let trial = trial_of(router());
        for (from, to, backend) in
            [("10.0.0.1:1", "10.96.0.1:80", "10.0.0.2"), ("[fd00::1]:1", "[fd00:96::1]:80", "fd00::2")]
        {
            let own = (Next::Continue, Source::Own);
            assert_eq!(fate(&trial, &flow(6, from, to, SYN), POD_B, Some(backend)), own);
        }
    }

    #[test]
    fn v4_a_pod_that_is_its_own_backend_sees_the_gateway_as_does_the_node_its_own() {
        let trial = trial_of(router());
        for proto in [6, 17, 132] {
            for (from, to, backend, gateway) in [
                ("10.0.0.1:1", "10.96.0.1:80", "10.0.0.1", "10.0.0.254"),
                ("[fd00::1]:1", "[fd00:96::1]:80", "fd00::1", "fd00::fe"),
                ("192.0.2.1:1", "10.96.0.1:80", "192.0.2.1", "10.0.0.254"),
            ] {
                let frame = flow(proto, from, to, SYN);
                assert_eq!(fate(&trial, &frame, PortId(1), Some(backend)), seen_as(gateway, (1024, 65535)));
            }
        }
    }

    #[test]
    fn m8_a_pod_leaves_the_cluster_as_the_node() {
        let trial = trial_of(Router { snat_ports: (50_000, 50_099), ..router() });
        for (from, to, node) in [
            ("10.0.0.1:1", "203.0.113.9:53", "192.0.2.1"),
            ("[fd00::1]:1", "[2001:db8:9::9]:53", "2001:db8::1"),
            // Known by its podCIDR alone: a pod that is being attached.
            ("10.0.0.77:1", "203.0.113.9:53", "192.0.2.1"),
        ] {
            for proto in [6, 17, 132] {
                let out = fate(&trial, &flow(proto, from, to, SYN), UPLINK, None);
                assert_eq!(out, seen_as(node, (50_000, 50_099)), "{from}");
            }
        }
        let ping = icmp("10.0.0.1", "203.0.113.9", 8, 1);
        assert_eq!(fate(&trial, &ping, UPLINK, None), seen_as("192.0.2.1", (50_000, 50_099)));
        // Rule V22: the backend of a service may be out there, too.
        let served = flow(6, "10.0.0.1:1", "10.96.0.1:80", SYN);
        assert_eq!(fate(&trial, &served, UPLINK, Some("203.0.113.9")), seen_as("192.0.2.1", (50_000, 50_099)));
    }

    #[test]
    fn row_1_5_2_who_is_no_pod_comes_to_a_service_as_the_node() {
        let trial = trial_of(router());
        let ports = Router::SNAT_PORTS;
        for (from, to, backend, node) in [
            ("203.0.113.9:1", "10.96.0.1:80", "10.0.0.2", "192.0.2.1"),
            ("[2001:db8:9::9]:1", "[fd00:96::1]:80", "fd00::2", "2001:db8::1"),
        ] {
            assert_eq!(fate(&trial, &flow(6, from, to, SYN), POD_B, Some(backend)), seen_as(node, ports));
        }
        let own = flow(6, "192.0.2.1:1", "10.96.0.1:80", SYN);
        assert_eq!(
            fate(&trial, &own, POD_B, Some("10.0.0.2")),
            (Next::Continue, Source::Own),
            "a process of the node, v20"
        );
        let bare = trial_of(Router { node: vec![], ..router() });
        let foreign = flow(6, "203.0.113.9:1", "10.96.0.1:80", SYN);
        assert_eq!(fate(&bare, &foreign, POD_B, Some("10.0.0.2")), seen_as("10.0.0.254", ports));
    }

    #[test]
    fn row_1_5_who_comes_by_an_external_address_is_seen_as_the_traffic_policy_says() {
        let trial = trial_of(router());
        let ports = Router::SNAT_PORTS;
        let own = (Next::Continue, Source::Own);
        for (pod, node, beyond, at, [here, there]) in [
            ("10.0.0.1:1", "192.0.2.1:1", "203.0.113.9:1", "198.51.100.7:80", ["10.0.0.2", "10.0.7.2"]),
            ("[fd00::1]:1", "[2001:db8::1]:1", "[2001:db8:9::9]:1", "[2001:db8:7::7]:80", ["fd00::2", "fd00:7::2"]),
        ] {
            let hidden = seen_as(&end(node).0.to_string(), ports);
            let rows = [
                // Policy Cluster: whoever speaks, wherever the backend is.
                (pod, Reached::External, here, POD_B, hidden),
                (pod, Reached::External, there, UPLINK, hidden),
                (node, Reached::External, here, POD_B, hidden),
                (node, Reached::External, there, UPLINK, hidden),
                (beyond, Reached::External, here, POD_B, hidden),
                (beyond, Reached::External, there, UPLINK, hidden),
                // Policy Local.
                (beyond, Reached::ExternalLocal, here, POD_B, own),
                (pod, Reached::ExternalLocal, here, POD_B, own),
                // Rule V22: pods that leave by the uplink leave as the node.
                (pod, Reached::ExternalLocal, there, UPLINK, hidden),
                (node, Reached::ExternalLocal, here, POD_B, hidden),
                (node, Reached::ExternalLocal, there, UPLINK, hidden),
                // Cluster addresses.
                (beyond, Reached::Cluster, here, POD_B, hidden),
                (pod, Reached::Cluster, here, POD_B, own),
                (node, Reached::Cluster, here, POD_B, own),
            ];
            for (from, kind, backend, out, expected) in rows {
                for proto in [6, 17, 132] {
                    let frame = flow(proto, from, at, SYN);
                    let got = reached(&trial, &frame, out, Some((backend, kind)));
                    assert_eq!(got, expected, "{from}, {kind:?}, to {backend}");
                }
            }
            // Hairpins, of every kind.
            let gateway = if end(pod).0.is_ipv4() { "10.0.0.254" } else { "fd00::fe" };
            for kind in [Reached::Cluster, Reached::External, Reached::ExternalLocal] {
                for client in [pod, node] {
                    let own_address = end(client).0.to_string();
                    let got = reached(&trial, &flow(6, client, at, SYN), PortId(1), Some((&own_address, kind)));
                    assert_eq!(got, seen_as(gateway, HAIRPIN_PORTS), "{client}, {kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_node_without_an_address_of_the_version_lets_no_pod_out() {
        let trial = trial_of(Router { node: vec![ip("192.0.2.1")], ..router() });
        let out = |from, to| fate(&trial, &flow(17, from, to, 0), UPLINK, None).0;
        assert_eq!(out("[fd00::1]:1", "[2001:db8:9::9]:53"), Next::Drop(DropReason::NoNodeAddress));
        assert_eq!(out("10.0.0.1:1", "203.0.113.9:53"), Next::Continue);
    }

    #[test]
    fn v24_what_belongs_to_no_connection_does_not_leave_untranslated() {
        let trial = trial_of(router());
        for frame in [
            flow(6, "10.0.0.1:1", "203.0.113.9:80", RST),
            icmp("10.0.0.1", "203.0.113.9", 0, 1),
            icmp("10.0.0.1", "203.0.113.9", 3, 0),
            icmp("10.0.0.1", "203.0.113.9", 13, 0),
            icmp("fd00::1", "2001:db8:9::9", 129, 1),
            icmp("fd00::1", "2001:db8:9::9", 1, 0),
        ] {
            assert_eq!(fate(&trial, &frame, UPLINK, None).0, Next::Drop(DropReason::Invalid));
        }
        let among_pods = icmp("10.0.0.1", "10.0.0.2", 3, 0);
        assert_eq!(fate(&trial, &among_pods, POD_B, None), (Next::Continue, Source::Own));
    }

    #[test]
    fn a_bridge_without_a_router_masquerades_nothing() {
        let router = router();
        let mut trial = trial_of(router.clone());
        let frame = flow(6, "10.0.0.1:1", "203.0.113.9:80", SYN);
        trial.apply(&[Change::Router(Delta::remove(router))]);
        assert_eq!(fate(&trial, &frame, UPLINK, None), (Next::Continue, Source::Own));
    }
}
