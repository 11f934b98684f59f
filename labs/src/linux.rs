//! What a switch of the kernel does on the same machine: two hosts, a veth pair each, one Linux bridge.
//!
//! It is there to be compared with, and proves that the probes themselves work.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::{self, Namespace};

use crate::host::Host;

/// Two hosts on a Linux bridge, which has a namespace of its own.
#[derive(Debug)]
pub struct LinuxBridge {
    near: Host,
    far: Host,
    _node: Namespace,
}

impl LinuxBridge {
    /// Build it.
    ///
    /// # Errors
    /// When the kernel has no bridge or no veth, or refuses them.
    pub fn new() -> anyhow::Result<Self> {
        let (near, far, node) = (Host::new("near")?, Host::new("far")?, Namespace::new()?);
        node.run(|| -> std::io::Result<()> {
            let netlink = Netlink::open()?;
            netlink.add_bridge("br0")?;
            let bridge = netlink.index("br0")?;
            netlink.set(bridge, &Settings { up: Some(true), ..Settings::default() })?;
            for host in [&near, &far] {
                let namespace = netns::open(host.path())?;
                netlink.add_veth(host.name(), "eth0", Some(std::os::fd::AsFd::as_fd(&namespace)))?;
                let settings = Settings { up: Some(true), bridge: Some(bridge), ..Settings::default() };
                netlink.set(netlink.index(host.name())?, &settings)?;
            }
            Ok(())
        })
        .context("Linux bridge and veth pairs")?;
        for (host, number) in [(&near, 1), (&far, 2)] {
            let v6 = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, number.into());
            host.configure("eth0", [(v4(number), 24), (IpAddr::V6(v6), 64)])?;
        }
        Ok(Self { near, far, _node: node })
    }

    /// One host.
    pub fn near(&self) -> &Host {
        &self.near
    }

    /// The other host.
    pub fn far(&self) -> &Host {
        &self.far
    }

    /// A port of the other host.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(v4(2), port)
    }
}

fn v4(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 78, 0, number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ping::ping;
    use crate::traffic::{Check, Stream, transfer, udp_echo};

    /// The probes against a switch that is known to work, and with an address that nobody has.
    #[test]
    fn all_probes_arrive_over_a_linux_bridge_and_none_at_an_address_that_nobody_has() {
        let linux = match LinuxBridge::new() {
            Ok(linux) => linux,
            Err(error) => return println!("SKIPPED: probes over a Linux bridge: {error:#}"),
        };
        let (near, far) = (linux.near(), linux.far());
        for (number, arrives) in [(2, true), (99, false)] {
            let v6 = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, number.into()));
            let at = SocketAddr::new(v4(number), 5000);
            let stream = Stream::start(near, far, SocketAddr::new(v4(number), 5001)).expect("sockets");
            let probes = [
                ping(near, far, v4(number)).expect("sockets"),
                ping(near, far, v6).expect("sockets"),
                udp_echo(near, far, at).expect("sockets"),
                transfer(near, far, at, Check::Hash, Duration::from_millis(100)).expect("sockets").0,
                stream.probe(5, Duration::from_millis(500)),
            ];
            for probe in probes {
                assert_eq!(probe.arrived(), arrives, "host {number}: {}", probe.text());
            }
        }
    }
}
