//! A test host: a network namespace with addresses and sockets, as a pod would have.
//!
//! Its interface comes from outside: a port of the switch, or an end of a veth pair. A socket belongs to the namespace
//! of the thread that opens it, wherever it is used afterwards, so sockets are opened on the host's own thread and the
//! traffic then runs on threads of the lab. Everything is bounded in time.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use api::MacAddr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use vswitch::sys::netlink::Netlink;
use vswitch::sys::netns::Namespace;

/// A network namespace and the name that the lab calls it by.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    namespace: Namespace,
}

/// An interface as the host's own kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, never given to another interface of the namespace.
    pub index: u32,
    /// Its address.
    pub mac: MacAddr,
}

impl Host {
    /// A host without any interface.
    ///
    /// # Errors
    /// When no namespace can be made.
    pub fn new(name: &'static str) -> anyhow::Result<Self> {
        let namespace = Namespace::new().with_context(|| format!("network namespace of host {name}"))?;
        Ok(Self { name, namespace })
    }

    /// What the lab calls it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where others find the namespace, as long as the host lives.
    pub fn path(&self) -> &Path {
        self.namespace.path()
    }

    /// Set an interface up and give it its addresses.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses.
    pub fn configure(&self, ifname: &'static str, addresses: [(IpAddr, u8); 2]) -> anyhow::Result<()> {
        self.on_thread(move || {
            // Nobody else can have our addresses, and the wait for that proof would be a second of every lab.
            let dad = format!("/proc/sys/net/ipv6/conf/{ifname}/accept_dad");
            std::fs::write(&dad, "0").map_err(|error| io::Error::new(error.kind(), format!("{dad}: {error}")))?;
            let mut netlink = Netlink::open()?;
            let link = netlink.link(ifname)?;
            netlink.set_up(link.index, true)?;
            for (address, prefix) in addresses {
                netlink.add_address(link.index, address, prefix)?;
            }
            Ok(())
        })
        .with_context(|| format!("host {}: configure {ifname}", self.name))
    }

    /// An interface of the host.
    ///
    /// # Errors
    /// When it is not there.
    pub fn interface(&self, ifname: &'static str) -> anyhow::Result<Interface> {
        let link = self.on_thread(move || Netlink::open()?.link(ifname));
        let link = link.with_context(|| format!("host {}: {ifname}", self.name))?;
        Ok(Interface { index: link.index, mac: link.mac.unwrap_or_default() })
    }

    /// A UDP socket.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn udp(&self, at: SocketAddr) -> anyhow::Result<UdpSocket> {
        self.on_thread(move || UdpSocket::bind(at)).with_context(|| format!("host {}: UDP socket {at}", self.name))
    }

    /// A listening TCP socket.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn listen(&self, at: SocketAddr) -> anyhow::Result<TcpListener> {
        self.on_thread(move || TcpListener::bind(at)).with_context(|| format!("host {}: TCP listener {at}", self.name))
    }

    /// A TCP connection. The inner error is the network's answer, and no fault of the host.
    ///
    /// # Errors
    /// When the host's thread is gone.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> anyhow::Result<io::Result<TcpStream>> {
        self.on_thread(move || Ok(TcpStream::connect_timeout(&to, limit)))
    }

    /// A raw socket that sends and sees the ICMP (v6: ICMPv6) messages of the host.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn icmp(&self, v6: bool, limit: Duration) -> anyhow::Result<OwnedFd> {
        self.on_thread(move || {
            let (family, protocol) =
                if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
            let socket = socket(family, SocketType::RAW, Some(protocol))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
            Ok(socket)
        })
        .with_context(|| format!("host {}: ICMP socket", self.name))
    }

    fn on_thread<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        Ok(self.namespace.run(run)??)
    }
}
