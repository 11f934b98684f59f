//! `packet`: an interface that is there already, in the daemon's namespace, through a packet socket: one end of a veth
//! pair, a NIC.
//!
//! The interface stays its owner's, who makes, sets up, and removes it: the port asks only that it is Ethernet and that its
//! MTU and address are those the port shall have. When it goes, the port has an error; when one of the same name comes, it
//! is opened again.
//!
//! The host's own stack sees every frame, too. So the interface should have no address of its own, of IPv4 or IPv6
//! (`net.ipv6.conf.IFACE.disable_ipv6=1` keeps it from choosing one). The kernel answers ARP for the host's *other* addresses
//! on an interface without any; the port therefore switches ARP off there (as `ip link set IFACE arp off`), and on again when
//! it is deleted.
//!
//! Limits: one queue; frames pass the interface's queueing discipline, which is what holds them back when it is full.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use pipeline::offload::Offload;
use pipeline::raw::Stash;
use rustix::io::Errno;

use super::offloaded::{self, Queue, Read, Wire};
use super::{Device, Environment, Opened, PortDef, PortError, Rx, Status, Tx, TxBatch, tap};
use crate::sys::netlink::{Link, Netlink, Settings};
use crate::sys::packet::{self, HEADER};
use crate::sys::tun::offload::{CSUM, TSO_ECN, TSO4, TSO6, USO4, USO6};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "packet",
    help: "an existing interface, through a packet socket",
    options: &[("ifname", "name of the interface, when it is not the port's")],
    open,
};

/// The name of the interface of a port of this kind.
pub fn interface(port: &api::Port) -> &str {
    port.options.get("ifname").unwrap_or(&port.name)
}

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    let name = interface(port);
    let refuse = |why: String| PortError(format!("options:ifname={name:?}: {why}"));
    let failed = |error: io::Error| refuse(error.to_string());
    let netlink = Netlink::open().map_err(failed)?;
    let link = netlink.link(name).map_err(failed)?.ok_or_else(|| refuse("no such interface".into()))?;
    if let Some(owner) = link.alias.strip_prefix(tap::MARK) {
        return Err(refuse(format!("is the device of port {owner:?}")));
    }
    if !link.ethernet {
        return Err(refuse("not an Ethernet interface".into()));
    }
    fits(&link, port).map_err(PortError)?;
    let fd = packet::attach(link.index).map_err(failed)?;
    netlink.set(link.index, &Settings { arp: Some(false), ..Settings::default() }).map_err(failed)?;
    let device = Arc::new(Packet { fd, index: link.index, offloads: offloads() });
    let queue = Queue::new(Arc::clone(&device), environment.pool);
    Ok(Opened { queues: vec![Box::new(queue)], device })
}

/// The interface is not ours to change: is it as the port shall be?
fn fits(link: &Link, port: &api::Port) -> Result<(), String> {
    let name = &link.name;
    if link.mtu < port.mtu.into() {
        let (wanted, there) = (port.mtu, link.mtu);
        return Err(format!("mtu_request={wanted}: interface {name:?} has an MTU of {there}, which must not be less"));
    }
    match port.mac.filter(|mac| *mac != link.mac) {
        Some(mac) => Err(format!("mac={mac}: interface {name:?} has {}, which a port does not change", link.mac)),
        None => Ok(()),
    }
}

/// What the kernel finishes of frames that are sent, itself where the interface does not. Segmentation of UDP: Linux 6.2.
fn offloads() -> u32 {
    let system = rustix::system::uname();
    let mut numbers = system.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let uso = if (number(), number()) >= (6, 2) { USO4 | USO6 } else { 0 };
    CSUM | TSO4 | TSO6 | TSO_ECN | uso
}

struct Packet {
    fd: OwnedFd,
    /// Number of the interface.
    index: u32,
    /// Bits of [`crate::sys::tun::offload`].
    offloads: u32,
}

impl Packet {
    fn is_gone(&self) -> bool {
        !packet::is_attached(&self.fd)
    }

    /// The interface as it is now; it may have been renamed.
    fn link(&self) -> io::Result<Link> {
        let name = rustix::net::netdevice::index_to_name(&self.fd, self.index)?;
        Netlink::open()?.link(&name)?.ok_or_else(|| Errno::NODEV.into())
    }
}

impl Device for Packet {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        offloaded::tx::<HEADER>(&self.fd, batch, stash)
    }

    fn takes(&self, work: Offload) -> bool {
        offloaded::takes(self.offloads, work)
    }

    fn configure(&self, port: &api::Port) -> Result<(), PortError> {
        let link = self.link().map_err(|error| PortError(error.to_string()))?;
        fits(&link, port).map_err(PortError)
    }

    fn status(&self) -> Status {
        let offloads = offloaded::names(self.offloads);
        if let Some(fault) = self.fault() {
            return Status { error: Some(fault), offloads, ..Status::default() };
        }
        match self.link() {
            Ok(link) => Status {
                error: None,
                ifname: Some(link.name),
                mac: Some(link.mac),
                mtu: link.mtu.try_into().unwrap_or(u16::MAX),
                link: Some(link.carrier),
                offloads,
            },
            Err(error) => Status { error: Some(error.to_string()), offloads, ..Status::default() },
        }
    }

    fn fault(&self) -> Option<String> {
        self.is_gone().then(|| "interface is gone".into())
    }

    fn remove(&self) {
        let settings = Settings { arp: Some(true), ..Settings::default() };
        let restore = || Netlink::open()?.set(self.index, &settings);
        if !self.is_gone()
            && let Err(error) = restore()
        {
            tracing::warn!("interface {}: ARP stays off: {error}", self.index);
        }
    }
}

impl Wire for Arc<Packet> {
    const HEADER: usize = HEADER;

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    fn read(&self, head: &mut [u8], tail: &mut [u8]) -> Result<Read, Errno> {
        let (octets, tag) = packet::receive(&self.fd, head, tail)?;
        Ok(Read { octets, tag })
    }

    fn failed(&self, error: Errno) -> Rx {
        match error {
            // A super-frame of a kind that the header cannot tell.
            Errno::INVAL => Rx::More,
            Errno::NODEV => Rx::Gone,
            // Said once when the interface goes down, and when it goes.
            Errno::NETDOWN if self.is_gone() => Rx::Gone,
            _ => Rx::Drained,
        }
    }
}
