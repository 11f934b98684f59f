//! `tap`: a TAP device of the kernel, in the daemon's namespace or moved into another one (a pod's).
//!
//! Made in the daemon's namespace and then moved: a descriptor that was opened inside would keep the pod's namespace
//! alive. The device is persistent, so that the pod keeps its interface, addresses and routes when the daemon restarts,
//! and is marked as ours by its alias. Three ways to come by it, in this order:
//!
//! 1. the keeper has its descriptor: an earlier data plane left it, the pod saw nothing;
//! 2. the keeper has nothing, but a device of ours is there: both processes were gone. It is opened by name from inside
//!    its namespace. That pins the namespace, so [`Device::fault`] says when the namespace's path is gone or leads
//!    elsewhere, and the switch then closes the port;
//! 3. it is made.
//!
//! Every frame has a 12-octet header in front (virtio-net), so that super-frames and unfinished checksums pass from TAP
//! to TAP untouched:
//!
//! ```text
//!   read:   [header | first segment: 1920 octets of the slot] [tail: a spill of 64 KiB, kept ready]
//!   write:  [header | first segment]                          [tail]
//! ```
//!
//! Limits: one queue. Frames above the MTU are accepted by the kernel, in both directions; keeping to it is the
//! pipeline's.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pipeline::burst::Burst;
use pipeline::offload::Offload;
use pipeline::raw::{Frame, HEADROOM, Pool, SLOT, Spill, Stash};
use rustix::io::Errno;

use super::{Device, Environment, Opened, PortDef, PortError, Rx, RxQueue, Status, Tx, TxBatch};
use crate::keeper::Keeper;
use crate::sys::netlink::{Link, Netlink, Settings};
use crate::sys::netns::{self, Identity};
use crate::sys::tun::{self, HEADER, offload};

mod obtain;

pub(super) use obtain::Wish;
use obtain::{Home, Origin, obtain, pinned};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "tap",
    help: "a TAP device, here or in a network namespace",
    options: &[
        ("netns", "network namespace of the interface: a name under /run/netns, or a path"),
        ("ifname", "name of the interface, when it is not the port's"),
        ("queues", "1: more are not supported"),
    ],
    open,
};

/// Octets of a frame that go into its slot; the rest goes into a spill.
const ROOM: usize = SLOT - HEADROOM;
/// Octets that one call of `rx` fetches at most: fairness among ports when frames are 64 KiB.
const TURN: usize = 256 * 1024;

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
    let queue = Queue { tap: Arc::clone(&tap), spare: None, pool: environment.pool.clone(), lost: 0 };
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
    /// Send one frame; the frame is as it was before if that fails.
    #[inline]
    fn send(&self, frame: &mut Frame) -> Result<(), Errno> {
        let header = encode(frame.offload().unwrap_or(Offload::NONE));
        // A frame has room in front for its encapsulation and for this.
        if !frame.grow_front(HEADER) {
            return Err(Errno::INVAL);
        }
        if let Some(room) = frame.head_mut().first_chunk_mut::<HEADER>() {
            *room = header;
        }
        let sent = rustix::io::retry_on_intr(|| match frame.spill() {
            [] => rustix::io::write(&self.fd, frame.head()),
            spill => rustix::io::writev(&self.fd, &[IoSlice::new(frame.head()), IoSlice::new(spill)]),
        });
        frame.shrink_front(HEADER);
        sent.map(|_| ())
    }

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
        while let Some(frame) = batch.front() {
            match self.send(frame) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Tx::Full,
                // EIO: the interface is down. EBADFD: it is gone.
                Err(Errno::IO | Errno::BADFD) => return Tx::Down,
                Err(_) => return Tx::Refused,
            }
            if let Some((frame, _)) = batch.pop() {
                stash.give(frame);
            }
        }
        Tx::Done
    }

    fn takes(&self, work: Offload) -> bool {
        let segmentation = match work.gso_type & !Offload::GSO_ECN {
            Offload::GSO_NONE => 0,
            Offload::GSO_TCPV4 => offload::TSO4,
            Offload::GSO_TCPV6 => offload::TSO6,
            Offload::GSO_UDP_L4 => offload::USO4 | offload::USO6,
            _ => return false,
        };
        let ecn = if work.gso_type & Offload::GSO_ECN != 0 { offload::TSO_ECN } else { 0 };
        let checksum = if work.needs_csum() { offload::CSUM } else { 0 };
        let needs = segmentation | ecn | checksum;
        self.accepted & needs == needs
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
        let offloads = offload_names(self.accepted);
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

fn offload_names(accepted: u32) -> String {
    let names = [
        (offload::CSUM, "csum"),
        (offload::TSO4, "tso4"),
        (offload::TSO6, "tso6"),
        (offload::TSO_ECN, "ecn"),
        (offload::USO4 | offload::USO6, "uso"),
    ];
    let accepted: Vec<&str> =
        names.into_iter().filter(|(bits, _)| accepted & bits == *bits).map(|(_, name)| name).collect();
    accepted.join(" ")
}

struct Queue {
    tap: Arc<Tap>,
    /// For the next super-frame.
    spare: Option<Spill>,
    pool: Pool,
    /// Super-frames that found no spill, not told yet.
    lost: u64,
}

impl Queue {
    /// Read one frame into a fresh slot. `None` within: it was lost.
    #[inline]
    fn read(&mut self, mut frame: Frame, stash: &mut Stash) -> Result<Option<Frame>, Errno> {
        // Without a spill, one octet beyond the slot tells a frame that fits from one that the kernel would cut.
        let mut overrun = [0; 1];
        let slot = frame.slot_mut();
        let start = slot.len() - ROOM - HEADER;
        let into = slot.get_mut(start..).unwrap_or_default();
        let tail = self.spare.as_mut().map_or(&mut overrun[..], Spill::bytes_mut);
        let mut slices = [IoSliceMut::new(into), IoSliceMut::new(tail)];
        let read = match rustix::io::retry_on_intr(|| rustix::io::readv(&self.tap.fd, &mut slices)) {
            Ok(read) => read,
            Err(error) => {
                stash.give(frame);
                return Err(error);
            }
        };
        let work = into.first_chunk().map_or(Offload::NONE, decode);
        // The kernel always writes a header; a read that is shorter yields a frame of no octets, which is dropped by name.
        let len = read.saturating_sub(HEADER);
        frame.set_head(len.min(ROOM));
        frame.set_offload(work);
        if len > ROOM {
            let Some(spill) = self.spare.take() else {
                self.lost += 1;
                stash.give(frame);
                return Ok(None);
            };
            frame.attach(spill, len - ROOM);
        }
        Ok(Some(frame))
    }
}

impl RxQueue for Queue {
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx {
        let mut octets = 0;
        for _ in 0..limit {
            if self.spare.is_none() {
                self.spare = stash.take_spill();
            }
            let Some(frame) = stash.take() else { return Rx::Starved };
            match self.read(frame, stash) {
                Ok(Some(frame)) => {
                    octets += frame.len();
                    if let Err(frame) = burst.push(frame) {
                        // The burst has room for `limit` by contract.
                        stash.give(frame);
                        self.lost += 1;
                        return Rx::More;
                    }
                }
                Ok(None) => {}
                Err(Errno::BADFD) => return Rx::Gone,
                // Above all EAGAIN. Whatever else it is, the descriptor will say it again.
                Err(_) => return Rx::Drained,
            }
            if octets >= TURN {
                break;
            }
        }
        Rx::More
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.fd.as_fd())
    }

    fn limit(&self) -> usize {
        64
    }

    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(spill) = self.spare.take() {
            self.pool.stash().give_spill(spill);
        }
    }
}

/// `struct virtio_net_hdr_v1`, in the order of this machine (the kernel's default for TAP).
fn decode(header: &[u8; HEADER]) -> Offload {
    let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, ..] = *header;
    let word = |a, b| u16::from_ne_bytes([a, b]);
    Offload {
        flags,
        gso_type,
        hdr_len: word(h0, h1),
        gso_size: word(g0, g1),
        csum_start: word(s0, s1),
        csum_offset: word(o0, o1),
    }
}

fn encode(work: Offload) -> [u8; HEADER] {
    let [h0, h1] = work.hdr_len.to_ne_bytes();
    let [g0, g1] = work.gso_size.to_ne_bytes();
    let [s0, s1] = work.csum_start.to_ne_bytes();
    let [o0, o1] = work.csum_offset.to_ne_bytes();
    [work.flags, work.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let header = [1, 0x81, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
        let work = decode(&header);
        assert_eq!((work.flags, work.gso_type), (Offload::NEEDS_CSUM, Offload::GSO_TCPV4 | Offload::GSO_ECN));
        assert_eq!(encode(work), header);
        assert_eq!(encode(Offload::NONE), [0; HEADER]);
    }

    #[test]
    fn offloads_are_named_in_one_order() {
        assert_eq!(offload_names(0x6f), "csum tso4 tso6 ecn uso");
        assert_eq!(offload_names(offload::CSUM | offload::TSO4), "csum tso4");
        assert_eq!(offload_names(0), "");
    }
}
