//! What stands on an interface inside its namespace: addresses and routes, from the options `addresses` and `routes`.
//!
//! ```text
//!   options:addresses=10.244.1.5/24,fd00:1::5/64   options:routes=0.0.0.0/0=10.244.1.1,::/0=fd00:1::1,10.9.0.0/16
//! ```
//!
//! They are set when the device is made, and never again: from then on they are the namespace's own. An interface that
//! gets addresses is switched on, and tells its link of them (gratuitous ARP, unsolicited neighbour advertisement); one
//! that gets none stays as it is born, down and bare.

use std::io;
use std::net::IpAddr;

use api::{Assigned, Interface, InterfaceRoute};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::PortError;
use crate::sys::netlink::{Netlink, Settings};

/// Addresses, and routes, of one interface at most.
const MOST: usize = 64;

/// What an interface shall have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Setup {
    addresses: Vec<IpNet>,
    routes: Vec<InterfaceRoute>,
}

impl Setup {
    pub(super) fn read(port: &api::Port) -> Result<Self, PortError> {
        let list = |name: &str| {
            let text = port.options.get(name).map(String::as_str).unwrap_or_default();
            text.split(',').filter(|word| !word.is_empty())
        };
        let refuse = |name: &str, word: &str, why: &str| PortError(format!("options:{name}={word}: {why}"));
        let mut setup = Self::default();
        for word in list("addresses") {
            let address = word.parse::<IpNet>().map_err(|_| refuse("addresses", word, "not ADDRESS/LENGTH"))?;
            setup.addresses.push(address);
        }
        for word in list("routes") {
            let (prefix, gateway) = match word.split_once('=') {
                Some((prefix, gateway)) => (prefix, Some(gateway)),
                None => (word, None),
            };
            let wrong = || refuse("routes", word, "not PREFIX or PREFIX=GATEWAY");
            let prefix = prefix.parse::<IpNet>().map_err(|_| wrong())?.trunc();
            let gateway = gateway.map(str::parse::<IpAddr>).transpose().map_err(|_| wrong())?;
            if gateway.is_some_and(|gateway| gateway.is_ipv4() != prefix.addr().is_ipv4()) {
                return Err(refuse("routes", word, "prefix and gateway are not of one IP version"));
            }
            setup.routes.push(InterfaceRoute { prefix, gateway });
        }
        for (name, len) in [("addresses", setup.addresses.len()), ("routes", setup.routes.len())] {
            if len > MOST {
                return Err(refuse(name, "...", &format!("{len} of them: at most {MOST}")));
            }
        }
        if setup.addresses.is_empty() && !setup.routes.is_empty() {
            return Err(PortError("options:routes: an interface without options:addresses has no routes".to_owned()));
        }
        Ok(setup)
    }

    /// In the calling thread's namespace. The interface goes with its namespace or device, so nothing is taken back here.
    pub(super) fn carry_out(&self, ifname: &str) -> io::Result<()> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        let about = |what: &dyn std::fmt::Display| {
            let what = what.to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        if self.addresses.iter().any(|address| address.addr().is_ipv6()) {
            // Runtimes switch IPv6 off in namespaces for which they know of no IPv6 address.
            let _ = set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0");
        }
        // Whoever is on the link learns where they are, and forgets who had them before.
        let _ = set(&format!("ipv4/conf/{ifname}/arp_notify"), "1");
        let _ = set(&format!("ipv6/conf/{ifname}/ndisc_notify"), "1");
        let netlink = Netlink::open()?;
        let index = netlink.index(ifname)?;
        for address in &self.addresses {
            netlink.add_address(index, address.addr(), address.prefix_len()).map_err(about(address))?;
        }
        netlink.set(index, &Settings { up: Some(true), ..Settings::default() })?;
        for InterfaceRoute { prefix, gateway } in &self.routes {
            netlink.add_route((prefix.addr(), prefix.prefix_len()), *gateway, Some(index)).map_err(about(prefix))?;
        }
        Ok(())
    }
}

/// Set a variable of the calling thread's network namespace (`/proc/sys/net`).
fn set(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{name}"), value)
}

/// What an interface of the calling thread's namespace has now. The addresses and routes that the kernel makes by itself
/// (link-local, of the link's prefix) are left out.
pub(super) fn of(netlink: &Netlink, index: u32) -> io::Result<Interface> {
    let mut interface = Interface::default();
    for answer in netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        if message.header.index != index {
            continue;
        }
        let (mut local, mut address) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                _ => {}
            }
        }
        let net = local.or(address).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        let own = net.filter(|net| !matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
        interface.addresses.extend(own.map(|address| Assigned { address, gateway: None }));
    }
    for answer in netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
        let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
        if message.header.kind == RouteType::Unicast {
            interface.routes.extend(route(&message, index));
        }
    }
    Ok(interface)
}

/// A route that leads out by an interface.
fn route(message: &RouteMessage, index: u32) -> Option<InterfaceRoute> {
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut to, mut gateway, mut out) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => to = address(destination),
            RouteAttribute::Gateway(via) => gateway = address(via),
            RouteAttribute::Oif(interface) => out = Some(*interface),
            _ => {}
        }
    }
    let any = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::V4([0; 4].into()),
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::V6([0; 16].into()),
        _ => return None,
    };
    let prefix = IpNet::new(to.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    (out == Some(index)).then_some(InterfaceRoute { prefix, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::kit::port;
    use crate::sys::netns::Namespace;

    #[test]
    fn what_cannot_be_read_is_refused_by_name_and_value() {
        for (options, error) in [
            (&[("addresses", "10.0.0.1")][..], "options:addresses=10.0.0.1: not ADDRESS/LENGTH"),
            (&[("addresses", "10.0.0.1/24,x")], "options:addresses=x: not ADDRESS/LENGTH"),
            (&[("addresses", "10.0.0.1/33")], "options:addresses=10.0.0.1/33: not ADDRESS/LENGTH"),
            (
                &[("addresses", "10.0.0.1/8"), ("routes", "0.0.0.0")],
                "options:routes=0.0.0.0: not PREFIX or PREFIX=GATEWAY",
            ),
            (
                &[("addresses", "10.0.0.1/8"), ("routes", "0.0.0.0/0=fd00::1")],
                "options:routes=0.0.0.0/0=fd00::1: prefix and gateway are not of one IP version",
            ),
            (&[("routes", "0.0.0.0/0")], "options:routes: an interface without options:addresses has no routes"),
        ] {
            assert_eq!(Setup::read(&port(options)).unwrap_err().0, error);
        }
        let many = vec!["10.0.0.1/8"; MOST + 1].join(",");
        let error = Setup::read(&port(&[("addresses", &many)])).unwrap_err();
        assert_eq!(error.0, "options:addresses=...: 65 of them: at most 64");
    }

    #[test]
    fn an_interface_has_what_it_was_given() {
        let Ok(ns) = Namespace::new() else {
            println!("SKIPPED: needs CAP_SYS_ADMIN and CAP_NET_ADMIN");
            return;
        };
        let options =
            [("addresses", "10.1.0.2/24,fd00::2/64"), ("routes", "0.0.0.0/0=10.1.0.1,10.2.0.0/16,::/0=fd00::1")];
        let setup = Setup::read(&port(&options)).unwrap();
        ns.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("eth0", "far", None).unwrap();
            let far = netlink.index("far").unwrap();
            netlink.set(far, &Settings { up: Some(true), ..Settings::default() }).unwrap();
            let index = netlink.index("eth0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
            setup.carry_out("eth0").unwrap();
            let is = of(&netlink, index).unwrap();
            let addresses: Vec<IpNet> = is.addresses.iter().map(|assigned| assigned.address).collect();
            assert_eq!(addresses, setup.addresses);
            assert!(setup.routes.iter().all(|route| is.routes.contains(route)), "{is:?}");
            let missing = InterfaceRoute { prefix: "10.3.0.0/16".parse().unwrap(), gateway: None };
            assert!(!is.routes.contains(&missing));
        });
    }
}
