//! A routing table of our own: its routes, the rule that has it looked at, and the neighbours behind it (rtnetlink(7),
//! `include/uapi/linux/{rtnetlink,fib_rules,neighbour}.h`).
//!
//! Everything made here bears [`PROTOCOL`], and nothing that does not is ever changed or removed; the kernel is asked for
//! what is in [`TABLE`] only, however long its other tables are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use api::MacAddr;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, family};

/// Our routing table. Tables are numbered freely; those that systems name themselves are 0 and 253 to 255.
pub const TABLE: u32 = 1786;
/// Priority of our rule: after the kernel's own addresses (0), before the main table (32766).
pub const PRIORITY: u32 = 1786;
/// Who made it, as `ip route` says behind `proto`: a number that `/etc/iproute2/rt_protos` and `rtnetlink.h` give nobody.
pub const PROTOCOL: u8 = 178;

/// The families of addresses, each with tables and rules of its own.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

/// A route of our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The destinations.
    pub prefix: IpNet,
    /// By way of whom, on the link of the interface whether or not an address of it says so.
    pub gateway: IpAddr,
    /// Number of the interface.
    pub interface: u32,
    /// The address that packets come from unless their sender chose one.
    pub source: Option<IpAddr>,
}

/// A line to the kernel's routing tables.
pub struct Routes {
    netlink: Netlink,
}

impl Routes {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn open() -> io::Result<Self> {
        let netlink = Netlink::open()?;
        netlink.filter_dumps()?;
        Ok(Self { netlink })
    }

    /// The line for everything else.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Our routes of a family.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&self, family: Family) -> io::Result<BTreeSet<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.number();
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.attributes.push(RouteAttribute::Table(TABLE));
        let answers = match self.netlink.dump(RouteNetlinkMessage::GetRoute(message)) {
            // Nobody has put anything into the table yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(BTreeSet::new()),
            answers => answers?,
        };
        Ok(answers.into_iter().filter_map(read_route).collect())
    }

    /// Add a route, or replace the one of its prefix.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, route: &Route) -> io::Result<()> {
        self.netlink.change(RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Remove a route; one that is not there is removed already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, route: &Route) -> io::Result<()> {
        let done = self.netlink.change(RouteNetlinkMessage::DelRoute(route_message(route)), 0);
        unless_gone(done)
    }

    /// Our rule of a family is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_rule(&self, family: Family) -> io::Result<bool> {
        let mut message = RuleMessage::default();
        message.header.family = family.number();
        let answers = self.netlink.dump(RouteNetlinkMessage::GetRule(message))?;
        let ours = rule_attributes();
        let is_ours = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRule(rule) => ours.iter().all(|attribute| rule.attributes.contains(attribute)),
            _ => false,
        };
        Ok(answers.iter().any(is_ours))
    }

    /// Have our table looked at.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_rule(&self, family: Family) -> io::Result<()> {
        let done = self.netlink.change(RouteNetlinkMessage::NewRule(rule_message(family)), NLM_F_CREATE | NLM_F_EXCL);
        match done {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    /// Have it not looked at any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_rule(&self, family: Family) -> io::Result<()> {
        unless_gone(self.netlink.change(RouteNetlinkMessage::DelRule(rule_message(family)), 0))
    }

    /// The neighbours that we stated on an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&self, interface: u32) -> io::Result<BTreeMap<IpAddr, MacAddr>> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(interface));
        let answers = self.netlink.dump(RouteNetlinkMessage::GetNeighbour(message))?;
        Ok(answers.into_iter().filter_map(read_neighbour).collect())
    }

    /// State for good who has an address on an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_neighbour(&self, interface: u32, address: IpAddr, mac: MacAddr) -> io::Result<()> {
        let mut message = neighbour_message(interface, address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
        self.netlink.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// State it no longer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_neighbour(&self, interface: u32, address: IpAddr) -> io::Result<()> {
        let message = neighbour_message(interface, address);
        unless_gone(self.netlink.change(RouteNetlinkMessage::DelNeighbour(message), 0))
    }

    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&self) -> io::Result<BTreeSet<IpAddr>> {
        let answers = self.netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let mut addresses = BTreeSet::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            // The local one is first where the two differ, on point-to-point links.
            addresses.extend(message.attributes.into_iter().filter_map(|attribute| match attribute {
                AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(address),
                _ => None,
            }));
        }
        Ok(addresses)
    }
}

/// What was to be removed may be gone already, alone or with its interface.
fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV)) => Ok(()),
        done => done,
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let address = |address| match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.gateway),
        destination_prefix_length: route.prefix.prefix_len(),
        protocol: RouteProtocol::Other(PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        flags: RouteFlags::Onlink,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Table(TABLE));
    if route.prefix.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.prefix.network())));
    }
    message.attributes.push(RouteAttribute::Gateway(address(route.gateway)));
    message.attributes.push(RouteAttribute::Oif(route.interface));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    message
}

/// A route of ours; `None` for what others put into our table, and for what we never make.
fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.protocol != RouteProtocol::Other(PROTOCOL)
        || !message.attributes.contains(&RouteAttribute::Table(TABLE))
    {
        return None;
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut destination, mut gateway, mut interface, mut source) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to),
            RouteAttribute::Gateway(via) => gateway = address(via),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::PrefSource(from) => source = address(from),
            _ => {}
        }
    }
    let gateway = gateway?;
    let whole: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let prefix = IpNet::new(destination.unwrap_or(whole), message.header.destination_prefix_length).ok()?;
    Some(Route { prefix, gateway, interface: interface?, source })
}

/// By what our rule is known.
fn rule_attributes() -> [RuleAttribute; 3] {
    [
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ]
}

fn rule_message(family: Family) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.number();
    message.header.action = RuleAction::ToTable;
    message.attributes.extend(rule_attributes());
    message
}

fn neighbour_message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    let destination = match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

/// A neighbour that we stated.
fn read_neighbour(message: RouteNetlinkMessage) -> Option<(IpAddr, MacAddr)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if !message.attributes.contains(&NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL))) {
        return None;
    }
    let (mut address, mut mac) = (None, MacAddr::default());
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(v6)),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.try_into().map(MacAddr).unwrap_or_default(),
            _ => {}
        }
    }
    Some((address?, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Settings;
    use crate::sys::netns::Namespace;

    /// A namespace with an interface that is up, and its number.
    fn namespace() -> Option<(Namespace, u32)> {
        let Ok(namespace) = Namespace::new() else {
            println!("SKIPPED: needs CAP_SYS_ADMIN and CAP_NET_ADMIN");
            return None;
        };
        let index = namespace.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("near", "far", None).unwrap();
            for name in ["far", "near"] {
                let index = netlink.index(name).unwrap();
                netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
            }
            netlink.index("near").unwrap()
        });
        Some((namespace, index))
    }

    fn route(prefix: &str, gateway: &str, interface: u32, source: Option<&str>) -> Route {
        let source = source.map(|text| text.parse().unwrap());
        Route { prefix: prefix.parse().unwrap(), gateway: gateway.parse().unwrap(), interface, source }
    }

    #[test]
    fn routes_are_listed_as_they_were_added_and_removed_once() {
        let Some((namespace, index)) = namespace() else { return };
        namespace.run(|| {
            let routes = Routes::open().unwrap();
            routes.netlink().add_address(index, "192.0.2.1".parse().unwrap(), 24).unwrap();
            routes.netlink().add_address(index, "2001:db8::1".parse().unwrap(), 64).unwrap();
            assert_eq!(FAMILIES.map(|family| routes.list(family).unwrap()), [BTreeSet::new(), BTreeSet::new()]);
            let v4 = [
                route("10.1.0.0/24", "10.1.0.1", index, Some("192.0.2.1")),
                route("10.96.0.0/12", "10.1.0.1", index, None),
                route("10.200.0.7/32", "10.1.0.1", index, Some("192.0.2.1")),
            ];
            let v6 = [
                route("fd00:1::/64", "fd00:1::1", index, Some("2001:db8::1")),
                route("fd00:96::7/128", "fd00:1::1", index, None),
            ];
            v4.iter().chain(&v6).for_each(|route| routes.add(route).unwrap());
            assert_eq!(routes.list(Family::V4).unwrap(), BTreeSet::from(v4));
            assert_eq!(routes.list(Family::V6).unwrap(), BTreeSet::from(v6));
            // Adding is replacing.
            let moved = Route { source: None, ..v4[0] };
            routes.add(&moved).unwrap();
            assert!(routes.list(Family::V4).unwrap().contains(&moved) && routes.list(Family::V4).unwrap().len() == 3);
            for route in v4.iter().chain(&v6) {
                routes.remove(&Route { source: None, ..*route }).unwrap();
                routes.remove(route).unwrap();
            }
            assert_eq!(FAMILIES.map(|family| routes.list(family).unwrap()), [BTreeSet::new(), BTreeSet::new()]);
        });
    }

    #[test]
    fn what_others_have_is_neither_listed_nor_touched() {
        let Some((namespace, index)) = namespace() else { return };
        namespace.run(|| {
            let routes = Routes::open().unwrap();
            // Without any address there is no local table, and without that the kernel refuses every gateway.
            routes.netlink().add_address(index, "192.0.2.1".parse().unwrap(), 24).unwrap();
            // A route of somebody else's in the main table, and one in ours.
            routes.netlink().add_route(("10.1.0.0".parse().unwrap(), 24), None, Some(index)).unwrap();
            let mut theirs = route_message(&route("10.9.0.0/24", "10.1.0.1", index, None));
            theirs.header.protocol = RouteProtocol::Static;
            routes.netlink().change(RouteNetlinkMessage::NewRoute(theirs), NLM_F_CREATE).unwrap();
            assert_eq!(routes.list(Family::V4).unwrap(), BTreeSet::new());
            routes.remove(&route("10.9.0.0/24", "10.1.0.1", index, None)).unwrap();
            routes.netlink().add_neighbour(index, "10.1.0.5".parse().unwrap(), MacAddr([2; 6])).unwrap();
            assert_eq!(routes.neighbours(index).unwrap(), BTreeMap::new());
            assert!(!routes.has_rule(Family::V4).unwrap());
            let mut all = RouteMessage::default();
            all.header.address_family = AddressFamily::Inet;
            all.attributes.push(RouteAttribute::Table(TABLE));
            assert_eq!(
                routes.netlink().dump(RouteNetlinkMessage::GetRoute(all)).unwrap().len(),
                1,
                "it is still there"
            );
        });
    }

    #[test]
    fn a_rule_and_a_neighbour_come_and_go_and_may_do_so_twice() {
        let Some((namespace, index)) = namespace() else { return };
        namespace.run(|| {
            let routes = Routes::open().unwrap();
            for family in FAMILIES {
                assert!(!routes.has_rule(family).unwrap());
                (0..2).for_each(|_| routes.add_rule(family).unwrap());
                assert!(routes.has_rule(family).unwrap());
                (0..2).for_each(|_| routes.remove_rule(family).unwrap());
                assert!(!routes.has_rule(family).unwrap());
            }
            for address in ["10.1.0.1", "fd00:1::1"] {
                let (address, mac) = (address.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]));
                (0..2).for_each(|_| routes.add_neighbour(index, address, mac).unwrap());
                assert_eq!(routes.neighbours(index).unwrap(), BTreeMap::from([(address, mac)]));
                (0..2).for_each(|_| routes.remove_neighbour(index, address).unwrap());
                assert_eq!(routes.neighbours(index).unwrap(), BTreeMap::new());
            }
        });
    }

    #[test]
    fn addresses_are_those_of_every_interface() {
        let Some((namespace, index)) = namespace() else { return };
        namespace.run(|| {
            let routes = Routes::open().unwrap();
            let address: IpAddr = "192.0.2.7".parse().unwrap();
            assert!(!routes.addresses().unwrap().contains(&address));
            routes.netlink().add_address(index, address, 24).unwrap();
            assert!(routes.addresses().unwrap().contains(&address));
        });
    }
}
