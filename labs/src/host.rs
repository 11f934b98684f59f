//! A test host: a network namespace with addresses and sockets, as a pod would have, or the node itself.
//!
//! Its interface comes from outside: a port of the switch, or an end of a veth pair. A socket belongs to the namespace
//! of the thread that opens it, wherever it is used afterwards, so sockets are opened on a thread inside and the traffic
//! then runs on threads of the lab. Everything is bounded in time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use vswitch::sys::netlink::{Link, Netlink, Settings};
use vswitch::sys::netns::Namespace;

/// An answer has to come within this time. Kernels ask again for an address, and send a SYN again, after one second (RFC
/// 4861 section 10, RFC 6298 section 2): who waits for less takes one lost frame, or a busy machine, for silence.
pub const PATIENCE: Duration = Duration::from_millis(1200);

/// A network namespace and the name that the lab calls it by.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    place: Place,
}

/// Which namespace.
#[derive(Debug)]
enum Place {
    /// One of its own.
    Apart(Namespace),
    /// That of the lab and of its daemon, at this path.
    Here(PathBuf),
}

/// Counters of an interface. A frame is what the kernel was given at once, cut or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many frames.
    pub frames: u64,
    /// All octets of them.
    pub octets: u64,
}

impl Host {
    /// A host without any interface.
    ///
    /// # Errors
    /// When no namespace can be made.
    pub fn new(name: &'static str) -> anyhow::Result<Self> {
        let namespace = Namespace::new().with_context(|| format!("network namespace of host {name}"))?;
        Ok(Self { name, place: Place::Apart(namespace) })
    }

    /// The host that the daemon runs on.
    pub fn of_daemon(name: &'static str) -> Self {
        // The main thread's: whoever opens the path does so from another process.
        let path = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
        Self { name, place: Place::Here(path) }
    }

    /// What the lab calls it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where others find the namespace, as long as the host lives.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Apart(namespace) => namespace.path(),
            Place::Here(path) => path,
        }
    }

    /// Set an interface up and give it its addresses.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses.
    pub fn configure(&self, ifname: &str, addresses: [(IpAddr, u8); 2]) -> anyhow::Result<()> {
        self.inside(|| {
            let netlink = Netlink::open()?;
            let index = netlink.index(ifname)?;
            netlink.set(index, &Settings { up: Some(true), ..Settings::default() })?;
            for (address, prefix) in addresses {
                netlink.add_address(index, address, prefix)?;
            }
            Ok(())
        })
        .with_context(|| format!("host {}: configure {ifname}", self.name))
    }

    /// Switch its loopback interface on, and give that more addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn loopback(&self, addresses: &[IpAddr]) -> anyhow::Result<()> {
        self.inside(|| {
            let netlink = Netlink::open()?;
            let index = netlink.index("lo")?;
            netlink.set(index, &Settings { up: Some(true), ..Settings::default() })?;
            for address in addresses {
                netlink.add_address(index, *address, if address.is_ipv4() { 32 } else { 128 })?;
            }
            Ok(())
        })
        .with_context(|| format!("host {}: configure lo", self.name))
    }

    /// Send everything that is for elsewhere to this router.
    ///
    /// # Errors
    /// When there is such a route, or the router is on no link of the host.
    pub fn default_route(&self, via: IpAddr) -> anyhow::Result<()> {
        let any: IpAddr = if via.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.inside(|| Netlink::open()?.add_route((any, 0), Some(via), None))
            .with_context(|| format!("host {}: default route via {via}", self.name))
    }

    /// Send what is for this one address to this router.
    ///
    /// # Errors
    /// When the kernel refuses, or the router is not on any link.
    pub fn route(&self, to: IpAddr, via: IpAddr) -> anyhow::Result<()> {
        let whole = if to.is_ipv4() { 32 } else { 128 };
        self.inside(|| Netlink::open()?.add_route((to, whole), Some(via), None))
            .with_context(|| format!("host {}: route to {to} via {via}", self.name))
    }

    /// An interface of the host.
    ///
    /// # Errors
    /// When it is not there.
    pub fn interface(&self, ifname: &str) -> anyhow::Result<Link> {
        let link = self.inside(|| Netlink::open()?.link(ifname))?;
        link.with_context(|| format!("host {}: no interface {ifname}", self.name))
    }

    /// What the kernel has received by an interface of the host.
    ///
    /// # Errors
    /// When it is not there.
    pub fn received(&self, ifname: &str) -> anyhow::Result<Received> {
        let table = self.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let row = table.lines().find_map(|line| line.trim_start().strip_prefix(ifname)?.strip_prefix(':'));
        let mut numbers = row.into_iter().flat_map(str::split_whitespace).map_while(|word| word.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(octets), Some(frames)) => Ok(Received { frames, octets }),
            _ => anyhow::bail!("host {}: no counters of {ifname}", self.name),
        }
    }

    /// A UDP socket.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn udp(&self, at: SocketAddr) -> anyhow::Result<UdpSocket> {
        self.inside(|| UdpSocket::bind(at)).with_context(|| format!("host {}: UDP socket {at}", self.name))
    }

    /// A listening TCP socket.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn listen(&self, at: SocketAddr) -> anyhow::Result<TcpListener> {
        self.inside(|| TcpListener::bind(at)).with_context(|| format!("host {}: TCP listener {at}", self.name))
    }

    /// A TCP connection.
    ///
    /// # Errors
    /// The network's answer, or its silence.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&to, limit))
    }

    /// A raw socket that sends and sees the ICMP (v6: ICMPv6) messages of the host.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn icmp(&self, v6: bool, limit: Duration) -> anyhow::Result<OwnedFd> {
        self.inside(|| {
            let (family, protocol) =
                if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
            let socket = socket(family, SocketType::RAW, Some(protocol))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
            Ok(socket)
        })
        .with_context(|| format!("host {}: ICMP socket", self.name))
    }

    /// Do something on a thread that is in the host's namespace.
    ///
    /// # Errors
    /// Those of what is done.
    pub fn inside<T: Send>(&self, run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.place {
            Place::Apart(namespace) => namespace.run(run),
            Place::Here(_) => run(),
        }
    }
}
