//! Interfaces, addresses, routes and neighbours: what `ip` does, over rtnetlink (rtnetlink(7)).
//!
//! A [`Netlink`] belongs to the namespace of the thread that opened it, and keeps that namespace alive: open it, use
//! it, drop it. It never lists what it was not asked for, and touches only what it was given by index or name.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use api::MacAddr;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number within its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its note (`ip link set alias`); empty when it has none.
    pub alias: String,
    /// Its address; zero when it has none.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu: u32,
    /// Its frames are Ethernet's.
    pub ethernet: bool,
    /// It is switched on.
    pub up: bool,
    /// It is switched on, and its other end is there.
    pub carrier: bool,
}

/// What to change of an interface, all in one request; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// Switch on or off.
    pub up: Option<bool>,
    /// Ask and answer who has an address.
    pub arp: Option<bool>,
    /// Rename; only while it is off.
    pub name: Option<&'a str>,
    /// Note.
    pub alias: Option<&'a str>,
    /// Address.
    pub mac: Option<MacAddr>,
    /// MTU.
    pub mtu: Option<u32>,
    /// Make it a port of this kernel bridge (index); 0 takes it out.
    pub bridge: Option<u32>,
    /// Move to this namespace.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// A line to the kernel's interfaces.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The interface called `name`; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(message))) => Ok(Some(read_link(message))),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            // A name that no interface can have.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ERANGE | libc::EINVAL)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of the interface called `name`.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let link = self.link(name)?;
        link.map(|link| link.index)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
    }

    /// Change an interface, in one request: rename, MTU, address, move and the rest take effect together or, up to the
    /// first that fails, not at all as far as the kernel can take it back.
    ///
    /// # Errors
    /// What the kernel says; `EEXIST` when the name is taken where it goes.
    pub fn set(&self, index: u32, settings: &Settings<'_>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = settings.up {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        }
        if let Some(arp) = settings.arp {
            message.header.flags.set(LinkFlags::Noarp, !arp);
            message.header.change_mask |= LinkFlags::Noarp;
        }
        let attributes = [
            settings.namespace.map(|ns| LinkAttribute::NetNsFd(ns.as_raw_fd())),
            settings.name.map(|name| LinkAttribute::IfName(name.into())),
            settings.alias.map(|alias| LinkAttribute::IfAlias(alias.into())),
            settings.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())),
            settings.mtu.map(LinkAttribute::Mtu),
            settings.bridge.map(LinkAttribute::Controller),
        ];
        message.attributes.extend(attributes.into_iter().flatten());
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Make a veth pair, one queue each way: `name` here, `peer` here or in another namespace.
    ///
    /// # Errors
    /// What the kernel says; `EEXIST` when a name is taken.
    pub fn add_veth(&self, name: &str, peer: &str, peer_namespace: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let end = |name: &str, namespace: Option<BorrowedFd<'_>>| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.into()));
            message.attributes.extend([LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]);
            message.attributes.extend(namespace.map(|ns| LinkAttribute::NetNsFd(ns.as_raw_fd())));
            message
        };
        let mut message = end(name, None);
        let data = InfoData::Veth(InfoVeth::Peer(end(peer, peer_namespace)));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Make a bridge of the kernel's own.
    ///
    /// # Errors
    /// What the kernel says; `EEXIST` when the name is taken.
    pub fn add_bridge(&self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Remove an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Give an interface an address. IPv6 addresses are usable at once, without duplicate address detection: these
    /// are networks whose addresses somebody gave out.
    ///
    /// # Errors
    /// What the kernel says; `EEXIST` when it has the address.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes.extend([AddressAttribute::Local(address), AddressAttribute::Address(address)]);
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Take an address from an interface.
    ///
    /// # Errors
    /// What the kernel says; `EADDRNOTAVAIL` when it has it not.
    pub fn remove_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes.extend([AddressAttribute::Local(address), AddressAttribute::Address(address)]);
        self.change(RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Route `destination` (address and prefix length; length 0 is the default route) to a gateway, an interface, or a
    /// gateway on an interface.
    ///
    /// # Errors
    /// What the kernel says; `EEXIST` when there is such a route.
    pub fn add_route(&self, destination: (IpAddr, u8), via: Option<IpAddr>, index: Option<u32>) -> io::Result<()> {
        let (address, prefix) = destination;
        let route_address = |address| match address {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        };
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(address),
            destination_prefix_length: prefix,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if via.is_none() && address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        if prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(address)));
        }
        message.attributes.extend(via.map(|via| RouteAttribute::Gateway(route_address(via))));
        message.attributes.extend(index.map(RouteAttribute::Oif));
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Say for good who has `address` on an interface, so that nobody asks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_neighbour(&self, index: u32, address: IpAddr, mac: MacAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        let attributes =
            [NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
        message.attributes.extend(attributes);
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Have [`Self::dump`] list only what the request asks for: the kernel ignores most of it otherwise.
    pub(super) fn filter_dumps(&self) -> io::Result<()> {
        self.socket.set_netlink_get_strict_chk(true)
    }

    /// All that there is of what the message asks for.
    pub(crate) fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_DUMP)?;
        let mut all = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                match answer.payload {
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    _ => {}
                }
                // Messages begin at multiples of four octets.
                let len = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(len..).unwrap_or_default();
            }
        }
    }

    /// A request whose answer says only whether it was done.
    pub(super) fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, flags | NLM_F_ACK).map(|_| ())
    }

    fn send(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// Send a request and take its one answer; `None` is the bare "done".
    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, flags)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
        match answer.map_err(io::Error::other)?.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn read_link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().map(MacAddr).unwrap_or_default(),
            _ => {}
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::netns::{Namespace, open};

    fn namespaces() -> Option<(Namespace, Namespace)> {
        match (Namespace::new(), Namespace::new()) {
            (Ok(a), Ok(b)) => Some((a, b)),
            _ => {
                println!("SKIPPED: needs CAP_SYS_ADMIN and CAP_NET_ADMIN");
                None
            }
        }
    }

    #[test]
    fn a_pair_is_made_across_namespaces_configured_and_removed() {
        let Some((here, there)) = namespaces() else { return };
        let far = open(there.path()).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        here.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("near", "far", Some(far.as_fd())).unwrap();
            assert_eq!(netlink.link("far").unwrap(), None, "the peer was born elsewhere");
            let index = netlink.index("near").unwrap();
            let settings = Settings {
                name: Some("wire"),
                alias: Some("a note"),
                mac: Some(mac),
                mtu: Some(9000),
                up: Some(true),
                ..Settings::default()
            };
            netlink.set(index, &settings).unwrap();
            let link = netlink.link("wire").unwrap().unwrap();
            assert_eq!((link.index, link.alias.as_str(), link.mac, link.mtu), (index, "a note", mac, 9000));
            assert!(link.up && !link.carrier, "the other end is down");
        });
        there.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("far").unwrap();
            netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
            assert!(netlink.link("far").unwrap().unwrap().carrier);
            for address in ["10.1.0.2", "fd00::2"] {
                netlink
                    .add_address(index, address.parse().unwrap(), if address.contains(':') { 64 } else { 24 })
                    .unwrap();
            }
            let again = netlink.add_address(index, "10.1.0.2".parse().unwrap(), 24).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
            netlink.add_neighbour(index, "10.1.0.1".parse().unwrap(), mac).unwrap();
            netlink.add_neighbour(index, "fd00::1".parse().unwrap(), mac).unwrap();
            netlink.add_route(("0.0.0.0".parse().unwrap(), 0), Some("10.1.0.1".parse().unwrap()), None).unwrap();
            netlink.add_route(("10.2.0.0".parse().unwrap(), 16), None, Some(index)).unwrap();
            netlink.add_route(("fd01::".parse().unwrap(), 64), Some("fd00::1".parse().unwrap()), Some(index)).unwrap();
            // Binding to an address works at once, for IPv6 too.
            std::net::UdpSocket::bind("[fd00::2]:0").unwrap();
            netlink.delete(index).unwrap();
        });
        here.run(|| assert_eq!(Netlink::open().unwrap().link("wire").unwrap(), None, "the pair went together"));
    }

    #[test]
    fn an_interface_is_moved_renamed_and_set_in_one_request() {
        let Some((here, there)) = namespaces() else { return };
        let far = open(there.path()).unwrap();
        here.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_bridge("br").unwrap();
            netlink.add_veth("a", "b", None).unwrap();
            let (bridge, a, b) =
                (netlink.index("br").unwrap(), netlink.index("a").unwrap(), netlink.index("b").unwrap());
            netlink.set(b, &Settings { bridge: Some(bridge), up: Some(true), ..Settings::default() }).unwrap();
            let settings = Settings {
                namespace: Some(far.as_fd()),
                name: Some("eth0"),
                mac: Some(MacAddr([2, 0, 0, 0, 0, 8])),
                mtu: Some(1400),
                ..Settings::default()
            };
            netlink.set(a, &settings).unwrap();
            assert_eq!(netlink.link("a").unwrap(), None);
        });
        there.run(|| {
            let link = Netlink::open().unwrap().link("eth0").unwrap().unwrap();
            assert_eq!((link.mac, link.mtu, link.up), (MacAddr([2, 0, 0, 0, 0, 8]), 1400, false));
        });
    }

    #[test]
    fn names_that_cannot_be_are_not_there() {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("no-such-name").unwrap(), None);
        assert_eq!(netlink.link(&"x".repeat(200)).unwrap(), None);
        assert_eq!(netlink.index("no-such-name").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
