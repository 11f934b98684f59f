//! `tap`: a TAP device of the kernel, in the daemon's namespace or in another one (a pod's).
//!
//! Made inside the namespace where it shall live: moving it there afterwards takes the kernel 15 ms more. The descriptor
//! keeps that namespace alive, so [`Device::fault`] says when the namespace's path is gone or leads elsewhere, and the
//! switch then closes the port, within a second. The device is persistent, so that the pod keeps its interface, addresses
//! and routes when the daemon restarts, and is marked as ours by its alias. Three ways to come by it, in this order:
//!
//! 1. the keeper has its descriptor: an earlier data plane left it, the pod saw nothing;
//! 2. the keeper has nothing, but a device of ours is there: both processes were gone. It is opened by name from inside
//!    its namespace;
//! 3. it is made.
//!
//! Every frame has a 12-octet header in front (virtio-net), so that super-frames and unfinished checksums pass from TAP
//! to TAP untouched: `offloaded.rs`.
//!
//! Limits: one queue. Frames above the MTU are accepted by the kernel, in both directions; keeping to it is the
//! pipeline's.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::Attached;
use pipeline::offload::Offload;
use pipeline::raw::Stash;
use rustix::io::Errno;

use super::offloaded::{self, Queue, Read, Wire};
use super::{Device, Environment, Opened, PortDef, PortError, Rx, Status, Tx, TxBatch, interface};
use crate::keeper::Keeper;
use crate::sys::netlink::{Link, Netlink, Settings};
use crate::sys::netns::{self, Identity};
use crate::sys::tun::{self, HEADER};

mod obtain;

use obtain::{Home, Origin, obtain, pinned};
pub(super) use obtain::{MARK, Wish};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "tap",
    help: "a TAP device, here or in a network namespace",
    options: &[
        ("netns", "network namespace of the interface: a name under /run/netns, or a path"),
        ("netns-inode", "inode of that namespace: the path must not lead to another one later"),
        ("ifname", "name of the interface, when it is not the port's"),
        ("queues", "1: more are not supported"),
        ("addresses", "addresses of the interface when it is made, each with its prefix length, with commas"),
        ("routes", "routes of the interface when it is made: PREFIX or PREFIX=GATEWAY, with commas"),
    ],
    open,
};

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    open_tap(&Wish::read(port)?, environment)
}

/// Come by the device, and open it as a port.
pub(super) fn open_tap(wish: &Wish<'_>, environment: &Environment<'_>) -> Result<Opened, PortError> {
    let keeper = environment.keeper;
    // The keeper must not pin a namespace that nobody can find any more.
    let home = Home::find(wish).inspect_err(|_| keeper.release(&wish.key()))?;
    let (fd, origin) = obtain(wish, &home, keeper)?;
    let tap = Tap {
        accepted: tun::negotiate(&fd),
        pinned: pinned(wish, &fd),
        key: wish.key(),
        keeper: keeper.clone(),
        released: AtomicBool::new(false),
        fd,
    };
    if origin != Origin::Inherited
        && let Err(error) = keeper.hold(&tap.key, tap.fd.as_fd())
    {
        if origin == Origin::Made {
            let _ = tun::set_persistent(&tap.fd, false);
        }
        return Err(PortError(format!("{}: the keeper cannot hold its device: {error}", wish.port)));
    }
    let tap = Arc::new(tap);
    let queue = Queue::new(Arc::clone(&tap), environment.pool);
    Ok(Opened { queues: vec![Box::new(queue)], device: tap })
}

struct Tap {
    fd: OwnedFd,
    /// Offloads the kernel accepted, bits of [`offload`].
    accepted: u32,
    /// The namespace that the descriptor keeps alive, as it was when the port opened.
    pinned: Option<(PathBuf, Identity)>,
    /// What the keeper knows the descriptor by.
    key: String,
    keeper: Keeper,
    /// The keeper was told to close its duplicate.
    released: AtomicBool,
}

impl Tap {
    /// What is gone, if something is.
    fn loss(&self) -> Option<&'static str> {
        if tun::name(&self.fd).is_err() {
            return Some("device is gone");
        }
        let (path, identity) = self.pinned.as_ref()?;
        let there = netns::identity(path).is_ok_and(|there| there == *identity);
        (!there).then_some("namespace is gone")
    }

    /// The device as it is where it is now.
    fn link(&self) -> io::Result<Option<Link>> {
        let ns = tun::namespace(&self.fd)?;
        netns::within(ns.as_fd(), || Netlink::open()?.link(&tun::name(&self.fd)?))?
    }

    /// Let the keeper not hold the device, or its namespace, on our behalf.
    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.keeper.release(&self.key);
        }
    }
}

impl Device for Tap {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        offloaded::tx::<HEADER>(&self.fd, batch, stash)
    }

    fn takes(&self, work: Offload) -> bool {
        offloaded::takes(self.accepted, work)
    }

    fn configure(&self, port: &api::Port) -> Result<(), PortError> {
        let set = || {
            let ns = tun::namespace(&self.fd)?;
            netns::within(ns.as_fd(), || {
                let netlink = Netlink::open()?;
                let index = netlink.index(&tun::name(&self.fd)?)?;
                netlink.set(index, &Settings { mac: port.mac, mtu: Some(port.mtu.into()), ..Settings::default() })
            })?
        };
        set().map_err(|error: io::Error| {
            let mac = port.mac.map(|mac| format!(" mac={mac}")).unwrap_or_default();
            PortError(format!("mtu_request={}{mac}: {error}", port.mtu))
        })
    }

    fn status(&self) -> Status {
        let offloads = offloaded::names(self.accepted);
        if let Some(fault) = self.fault() {
            return Status { error: Some(fault), offloads, ..Status::default() };
        }
        match self.link() {
            Ok(Some(link)) => Status {
                error: None,
                ifname: Some(link.name),
                mac: Some(link.mac),
                mtu: link.mtu.try_into().unwrap_or(u16::MAX),
                link: Some(link.carrier),
                offloads,
            },
            // It went, or was renamed, between two questions: the next call will know.
            Ok(None) => Status { offloads, ..Status::default() },
            Err(error) => Status { error: Some(error.to_string()), offloads, ..Status::default() },
        }
    }

    fn interface(&self) -> Result<Attached, PortError> {
        let look = || {
            let ns = tun::namespace(&self.fd)?;
            netns::within(ns.as_fd(), || {
                let netlink = Netlink::open()?;
                let name = tun::name(&self.fd)?;
                let link = netlink.link(&name)?.ok_or(io::ErrorKind::NotFound)?;
                let interface = interface::of(&netlink, link.index)?;
                Ok(Attached { mac: link.mac, mtu: link.mtu.try_into().unwrap_or(u16::MAX), interface })
            })?
        };
        if let Some(fault) = self.fault() {
            return Err(PortError(fault));
        }
        look().map_err(|error: io::Error| PortError(error.to_string()))
    }

    fn fault(&self) -> Option<String> {
        let loss = self.loss()?;
        self.release();
        Some(loss.into())
    }

    fn remove(&self) {
        let _ = tun::set_persistent(&self.fd, false);
        self.release();
    }
}

impl Wire for Arc<Tap> {
    const HEADER: usize = HEADER;

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    fn read(&self, head: &mut [u8], tail: &mut [u8]) -> Result<Read, Errno> {
        let mut slices = [IoSliceMut::new(head), IoSliceMut::new(tail)];
        let octets = rustix::io::retry_on_intr(|| rustix::io::readv(&self.fd, &mut slices))?;
        Ok(Read { octets, tag: None })
    }

    fn failed(&self, error: Errno) -> Rx {
        // Else, above all, EAGAIN. Whatever it is, the descriptor will say it again.
        if error == Errno::BADFD { Rx::Gone } else { Rx::Drained }
    }
}
