//! Frames of the kernel with their offload header in front: what TAP devices and packet sockets have in common.
//!
//! ```text
//!   read:   [header | first segment: 1920 octets of the slot] [tail: a spill of 64 KiB, kept ready]
//!   write:  [header | first segment]                          [tail]
//! ```
//!
//! The header is `struct virtio_net_hdr` (Virtual I/O Device 1.2, 5.1.6), in the order of this machine.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use pipeline::burst::Burst;
use pipeline::offload::Offload;
use pipeline::raw::{Frame, HEADROOM, Pool, SLOT, Spill, Stash};
use rustix::io::Errno;

use super::{Rx, RxQueue, Tx, TxBatch};
use crate::sys::tun::offload;

/// Octets of the header that say something.
const SAYS: usize = 10;
/// Octets of a frame that go into its slot; the rest goes into a spill.
const ROOM: usize = SLOT - HEADROOM;
/// Octets that one call of `rx` fetches at most: fairness among ports when frames are 64 KiB.
const TURN: usize = 256 * 1024;
/// Octets of a VLAN tag, and of the addresses in front of it (IEEE 802.1Q, 9.3).
const TAG: usize = 4;
const ADDRESSES: usize = 12;

/// A descriptor that gives one frame a read.
pub(super) trait Wire: Send {
    /// Octets of the header in front of each frame.
    const HEADER: usize;

    /// Readable while frames wait.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Read a header and its frame: first into `head`, what does not fit into `tail`.
    fn read(&self, head: &mut [u8], tail: &mut [u8]) -> Result<Read, Errno>;

    /// What it means that a read failed. [`Rx::More`]: one frame was lost, others may follow.
    fn failed(&self, error: Errno) -> Rx;
}

/// What came by one read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// Octets of header and frame, including those for which there was no room.
    pub(super) octets: usize,
    /// A VLAN tag (EtherType and control information) that the kernel took out of the frame.
    pub(super) tag: Option<[u8; TAG]>,
}

/// The receiving side.
pub(super) struct Queue<W> {
    wire: W,
    /// For the next super-frame.
    spare: Option<Spill>,
    pool: Pool,
    /// Frames that could not be received, not told yet.
    lost: u64,
}

impl<W: Wire> Queue<W> {
    pub(super) fn new(wire: W, pool: &Pool) -> Self {
        Self { wire, spare: None, pool: pool.clone(), lost: 0 }
    }

    /// Read one frame into a fresh slot. `None` within: it was lost.
    #[inline]
    fn read(&mut self, mut frame: Frame, stash: &mut Stash) -> Result<Option<Frame>, Errno> {
        // Without a spill, one octet beyond the slot tells a frame that fits from one that the kernel would cut.
        let mut overrun = [0; 1];
        let slot = frame.slot_mut();
        let start = slot.len() - ROOM - W::HEADER;
        let into = slot.get_mut(start..).unwrap_or_default();
        let tail = self.spare.as_mut().map_or(&mut overrun[..], Spill::bytes_mut);
        let Read { octets, tag } = match self.wire.read(into, tail) {
            Ok(read) => read,
            Err(error) => {
                stash.give(frame);
                return Err(error);
            }
        };
        let work = into.first_chunk().map_or(Offload::NONE, decode);
        // The kernel always writes a header; a read that is shorter yields a frame of no octets, which is dropped by name.
        let len = octets.saturating_sub(W::HEADER);
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
        if let Some(tag) = tag {
            put_back(tag, &mut frame);
        }
        Ok(Some(frame))
    }
}

impl<W: Wire> RxQueue for Queue<W> {
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
                Err(error) => match self.wire.failed(error) {
                    Rx::More => self.lost += 1,
                    end => return end,
                },
            }
            if octets >= TURN {
                break;
            }
        }
        Rx::More
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.fd())
    }

    fn limit(&self) -> usize {
        64
    }

    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl<W> Drop for Queue<W> {
    fn drop(&mut self) {
        if let Some(spill) = self.spare.take() {
            self.pool.stash().give_spill(spill);
        }
    }
}

/// Put a tag behind the addresses, where it was.
fn put_back(tag: [u8; TAG], frame: &mut Frame) {
    if frame.head().len() < ADDRESSES || !frame.grow_front(TAG) {
        return;
    }
    let head = frame.head_mut();
    head.copy_within(TAG..TAG + ADDRESSES, 0);
    if let Some(place) = head.get_mut(ADDRESSES..ADDRESSES + TAG) {
        place.copy_from_slice(&tag);
    }
    let work = frame.offload().unwrap_or(Offload::NONE);
    frame.set_offload(work.shifted(TAG as i16));
}

/// Send frames from the front of a batch, each behind a header of `HEADER` octets.
#[inline]
pub(super) fn tx<const HEADER: usize>(fd: impl AsFd, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
    while let Some(frame) = batch.front() {
        match send::<HEADER>(fd.as_fd(), frame) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Tx::Full,
            // The interface is down: EIO of a TAP, ENETDOWN of a packet socket. It is gone: EBADFD, ENXIO.
            Err(Errno::IO | Errno::NETDOWN | Errno::BADFD | Errno::NXIO) => return Tx::Down,
            Err(_) => return Tx::Refused,
        }
        if let Some((frame, _)) = batch.pop() {
            stash.give(frame);
        }
    }
    Tx::Done
}

/// Send one frame; the frame is as it was before if that fails.
#[inline]
fn send<const HEADER: usize>(fd: BorrowedFd<'_>, frame: &mut Frame) -> Result<(), Errno> {
    let says = encode(frame.offload().unwrap_or(Offload::NONE));
    // A frame has room in front for its encapsulation and for this.
    if !frame.grow_front(HEADER) {
        return Err(Errno::INVAL);
    }
    if let Some(room) = frame.head_mut().first_chunk_mut::<HEADER>() {
        *room = [0; HEADER];
        room.iter_mut().zip(says).for_each(|(octet, says)| *octet = says);
    }
    let sent = rustix::io::retry_on_intr(|| match frame.spill() {
        [] => rustix::io::write(fd, frame.head()),
        spill => rustix::io::writev(fd, &[IoSlice::new(frame.head()), IoSlice::new(spill)]),
    });
    frame.shrink_front(HEADER);
    sent.map(|_| ())
}

/// Whether a device with these offloads (bits of [`offload`]) does this work.
pub(super) fn takes(accepted: u32, work: Offload) -> bool {
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
    accepted & needs == needs
}

/// Offloads for people.
pub(super) fn names(accepted: u32) -> String {
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

fn decode(header: &[u8; SAYS]) -> Offload {
    let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *header;
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

fn encode(work: Offload) -> [u8; SAYS] {
    let [h0, h1] = work.hdr_len.to_ne_bytes();
    let [g0, g1] = work.gso_size.to_ne_bytes();
    let [s0, s1] = work.csum_start.to_ne_bytes();
    let [o0, o1] = work.csum_offset.to_ne_bytes();
    [work.flags, work.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let header = [1, 0x81, 54, 0, 0xa8, 5, 34, 0, 16, 0];
        let work = decode(&header);
        assert_eq!((work.flags, work.gso_type), (Offload::NEEDS_CSUM, Offload::GSO_TCPV4 | Offload::GSO_ECN));
        assert_eq!(encode(work), header);
        assert_eq!(encode(Offload::NONE), [0; SAYS]);
    }

    #[test]
    fn offloads_are_named_in_one_order() {
        assert_eq!(names(0x6f), "csum tso4 tso6 ecn uso");
        assert_eq!(names(offload::CSUM | offload::TSO4), "csum tso4");
        assert_eq!(names(0), "");
    }

    #[test]
    fn a_tag_is_put_back_and_what_counts_from_the_start_counts_it_too() {
        let mut stash = Pool::heap(64, 0).stash();
        let mut frame = stash.take().unwrap();
        let untagged: Vec<u8> = (0..60).collect();
        assert!(frame.fill(&untagged));
        let work = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..Offload::NONE };
        frame.set_offload(work);
        put_back([0x81, 0, 0x20, 7], &mut frame);
        assert_eq!(frame.head(), [&untagged[..12], &[0x81, 0, 0x20, 7], &untagged[12..]].concat());
        assert_eq!(frame.offload(), Some(Offload { csum_start: 38, ..work }));
        assert!(frame.fill(&[1; 11]));
        put_back([0x81, 0, 0x20, 7], &mut frame);
        assert_eq!(frame.head(), [1; 11], "what has no addresses has no place for a tag");
        stash.give(frame);
    }
}
