//! A node's network to measure with: one bridge with a router, clients behind port 1, and behind port 2 backends of
//! services and the way out.
//!
//! ```text
//!   clients 10.1.0.2..111, fd00:1::2.. ── port 1 ─┐        ┌─ port 2 ── backends 10.2.0.2.., fd00:2::2..
//!                                                 ├ router ┤            (number s serves service s alone)
//!   services 10.96.0.0/16, fd00:96::/64, port 80 ─┘        └─ port 2 ── neighbours 192.0.2.1..10, 2001:db8:1::1..
//! ```
//!
//! Services with node ports are at 192.0.2.100 and 2001:db8:1::64, a port each, and their clients are no pods: hosts
//! 198.51.100.2.., 2001:db8:2::2.. behind port 1.
//!
//! Everything is programmed by transactions, as the control side does it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use api::{
    AddressKey, Change, Delta, Endpoint, EndpointKind, External, Hop, MacAddr, Neighbor, PortId, Proto, Route,
    RouteKey, Router, Service, ServiceKey, ServiceRange,
};
use ipnet::IpNet;

use crate::world::{BRIDGE, PORTS};

/// The router's Ethernet address.
pub const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// The Ethernet address of the node's own kernel.
const NODE: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
/// Pods that ask: as many as a node has at most.
pub const CLIENTS: usize = 110;
/// Services at most: their numbers fill the service range, less the address of its network.
pub const SERVICES: usize = 60_000;
/// The port of every service.
pub const SERVICE_PORT: u16 = 80;
/// The node port of service 0; each service has one of its own, of a range that is as wide as there are services
/// (`--service-node-port-range` of the API server).
const FIRST_NODE_PORT: usize = 1024;
/// The port of every backend.
pub const BACKEND_PORT: u16 = 8080;
/// Neighbours by which prefixes lead.
const NEIGHBORS: usize = 10;

/// By what services are reached, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Their cluster addresses, by pods of this node.
    Cluster,
    /// Node ports of traffic policy Cluster, by hosts beyond the node: backends see the node.
    NodePort,
    /// Node ports of traffic policy Local, by the same hosts: backends see them as they are.
    NodePortLocal,
}

impl Place {
    /// Where a service is reached.
    pub fn service(self, family: Family, number: usize) -> SocketAddr {
        match self {
            Self::Cluster => SocketAddr::new(family.service(number), SERVICE_PORT),
            _ => SocketAddr::new(family.node(), (FIRST_NODE_PORT + number) as u16),
        }
    }

    /// The address of a client.
    pub fn client(self, family: Family, number: usize) -> IpAddr {
        match self {
            Self::Cluster => family.client(number),
            _ => family.host(number),
        }
    }

    /// What is particular to it, where backends are these.
    fn external(self, family: Family, number: usize, backends: &Arc<[SocketAddr]>) -> Option<Arc<External>> {
        let local = match self {
            Self::Cluster => return None,
            Self::NodePort => None,
            Self::NodePortLocal => Some(Arc::clone(backends)),
        };
        let cluster = Self::Cluster.service(family, number);
        Some(Arc::new(External { local, sources: None, cluster }))
    }
}

/// Internet protocols of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

impl Family {
    /// An address of 10.`net`.0.0/16, or of fd00:`net`::/64.
    fn of_net(self, net: u8, host: usize) -> IpAddr {
        match self {
            Self::Four => {
                let [.., high, low] = (host as u32).to_be_bytes();
                Ipv4Addr::new(10, net, high, low).into()
            }
            // fd00:96:: is written as fd00:0096::, hence the digits are decimal.
            Self::Six => {
                let net = u16::from(net / 10) << 4 | u16::from(net % 10);
                let [high, low] = [(host >> 16) as u16, host as u16];
                Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, high, low).into()
            }
        }
    }

    /// The address of a client.
    pub fn client(self, number: usize) -> IpAddr {
        self.of_net(1, 2 + number)
    }

    /// The address of a backend.
    pub fn backend(self, number: usize) -> IpAddr {
        self.of_net(2, 2 + number)
    }

    /// The address of a pod of another node.
    pub fn other(self, number: usize) -> IpAddr {
        self.of_net(3, 2 + number)
    }

    /// The address of a service.
    pub fn service(self, number: usize) -> IpAddr {
        self.of_net(96, 1 + number)
    }

    /// The address of the node, on the link of port 2.
    pub fn node(self) -> IpAddr {
        match self {
            Self::Four => Ipv4Addr::new(192, 0, 2, 100).into(),
            Self::Six => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 100).into(),
        }
    }

    /// The address of a host that is no pod, on a link of its own behind port 1.
    fn host(self, number: usize) -> IpAddr {
        match self {
            Self::Four => Ipv4Addr::new(198, 51, 100, (2 + number % CLIENTS) as u8).into(),
            Self::Six => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, (2 + number) as u16).into(),
        }
    }

    /// All of [`Self::host`].
    fn hosts(self) -> IpNet {
        net(self.host(0), if self == Self::Four { 24 } else { 64 }).trunc()
    }

    /// The address of a neighbour on the link of port 2.
    fn neighbor(self, number: usize) -> IpAddr {
        let number = (1 + number % NEIGHBORS) as u8;
        match self {
            Self::Four => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::Six => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(number)).into(),
        }
    }

    /// The `number`-th destination outside: of 32.0.0.0/3 or 2400::/8, each once, in no order.
    pub fn outside(self, number: usize) -> IpAddr {
        // Steps that can be undone: an odd factor, and a shift to the right that is added without carry.
        let mix = |mut x: u64, bits: u32| {
            for _ in 0..2 {
                x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << bits) - 1);
                x ^= x >> (bits / 2);
            }
            x
        };
        match self {
            Self::Four => Ipv4Addr::from(0x2000_0000 | mix(number as u64, 29) as u32).into(),
            Self::Six => {
                let high = 0x24 << 56 | mix(number as u64, 56);
                Ipv6Addr::from(u128::from(high) << 64 | u128::from(mix(number as u64 + 1, 56))).into()
            }
        }
    }

    /// All of [`Self::outside`].
    fn everywhere(self) -> IpNet {
        match self {
            Self::Four => net(Ipv4Addr::new(32, 0, 0, 0), 3),
            Self::Six => net(Ipv6Addr::new(0x2400, 0, 0, 0, 0, 0, 0, 0), 8),
        }
    }

    /// The links of the router, each as its address there and the length of its prefix.
    fn gateways(self) -> [IpNet; 2] {
        let lengths = match self {
            Self::Four => [24, 16],
            Self::Six => [64, 64],
        };
        [net(self.of_net(1, 1), lengths[0]), net(self.of_net(2, 1), lengths[1])]
    }

    /// The range of [`Self::service`].
    fn services(self) -> IpNet {
        net(self.of_net(96, 0), if self == Self::Four { 16 } else { 64 })
    }
}

/// A prefix of a length that its family has.
fn net(address: impl Into<IpAddr>, len: u8) -> IpNet {
    let address = address.into();
    IpNet::new(address, len).unwrap_or_else(|_| IpNet::from(address))
}

/// The Ethernet address of a client.
pub fn client_mac(number: usize) -> MacAddr {
    numbered(1, number)
}

/// The Ethernet address of a backend.
pub fn backend_mac(number: usize) -> MacAddr {
    numbered(2, number)
}

/// The Ethernet address of the neighbour by which the `number`-th prefix leads.
pub fn neighbor_mac(number: usize) -> MacAddr {
    numbered(3, number % NEIGHBORS)
}

fn numbered(kind: u8, number: usize) -> MacAddr {
    let [a, b, c, d] = (number as u32).to_be_bytes();
    MacAddr([2, kind, a, b, c, d])
}

/// The router, the node's own addresses, and the clients behind port 1.
pub fn router() -> Vec<Change> {
    let families = [Family::Four, Family::Six];
    let gateways = families.map(Family::gateways).concat();
    let router = Router {
        bridge: BRIDGE,
        mac: ROUTER,
        gateways: gateways.clone(),
        node: families.map(Family::node).to_vec(),
        uplink: None,
        local: None,
        snat_ports: Router::SNAT_PORTS,
    };
    let local = gateways.iter().map(|gateway| route(gateway.trunc(), Hop::Endpoint));
    let mut changes: Vec<Change> = [Change::Router(Delta::add(router))].into_iter().chain(local).collect();
    for family in families {
        changes.push(endpoint(EndpointKind::Node, family.node(), PORTS[1], NODE));
        changes.extend((0..CLIENTS).map(|n| pod(family.client(n), PORTS[0], client_mac(n))));
    }
    changes
}

/// Prefixes of the outside, each by way of a neighbour behind port 2: one that holds every [`Family::outside`], or the
/// first so many of them one by one.
pub fn prefixes(family: Family, count: usize) -> Vec<Change> {
    let neighbor = |n| neighbor(family.neighbor(n), PORTS[1], neighbor_mac(n));
    let via = |n| Hop::Via { port: PORTS[1], gateway: family.neighbor(n) };
    let neighbors = (0..NEIGHBORS).map(neighbor);
    if count == 1 {
        return neighbors.chain([route(family.everywhere(), via(0))]).collect();
    }
    neighbors.chain((0..count).map(|n| route(family.outside(n).into(), via(n)))).collect()
}

/// So many services over TCP and UDP, each with one backend behind port 2: with one it is known what answers come from, and
/// to a packet of a connection the others make no difference.
pub fn services(family: Family, place: Place, count: usize) -> Vec<Change> {
    let range = ServiceRange { prefix: family.services(), origin: "bench".to_owned() };
    let mut changes = vec![Change::ServiceRange(Delta::add(range))];
    if place != Place::Cluster {
        changes.push(route(family.hosts(), Hop::OnLink { port: PORTS[0] }));
        changes.extend((0..CLIENTS).map(|n| neighbor(family.host(n), PORTS[0], client_mac(n))));
    }
    for n in 0..count {
        changes.push(pod(family.backend(n), PORTS[1], backend_mac(n)));
        for proto in [Proto::Tcp, Proto::Udp] {
            changes.push(Change::Service(Delta::add(service(family, place, proto, n))));
        }
    }
    changes
}

/// One service.
pub fn service(family: Family, place: Place, proto: Proto, number: usize) -> Service {
    let at = place.service(family, number);
    let key = ServiceKey { address: at.ip(), proto, port: at.port() };
    let backends: Arc<[SocketAddr]> = [SocketAddr::new(family.backend(number), BACKEND_PORT)].into();
    let external = place.external(family, number, &backends);
    Service { external, ..Service::new(key, format!("default/s{number}").into(), backends) }
}

/// A pod.
pub fn pod(address: IpAddr, port: PortId, mac: MacAddr) -> Change {
    endpoint(EndpointKind::Pod, address, port, mac)
}

fn endpoint(kind: EndpointKind, address: IpAddr, port: PortId, mac: MacAddr) -> Change {
    let identity = identity(port, mac);
    let name = format!("{kind:?}/default/{address}").to_lowercase();
    let key = AddressKey { bridge: BRIDGE, address };
    Change::Endpoint(Delta::add(Endpoint { key, port, mac, kind, identity, name }))
}

/// What tells a pod from who had its address before.
pub fn identity(port: PortId, mac: MacAddr) -> u64 {
    u64::from(port.0) << 32 | mac.0.iter().skip(2).fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

fn neighbor(address: IpAddr, port: PortId, mac: MacAddr) -> Change {
    let key = AddressKey { bridge: BRIDGE, address };
    Change::Neighbor(Delta::add(Neighbor { key, port, mac }))
}

fn route(prefix: IpNet, to: Hop) -> Change {
    let key = RouteKey { bridge: BRIDGE, prefix };
    Change::Route(Delta::add(Route { key, to, origin: "bench".to_owned() }))
}
