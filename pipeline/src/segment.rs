//! Finishing in software what a sender left to be done and a port cannot do: checksums, and super-frames that are cut.
//!
//! ```text
//!   in:   | Ethernet, tags | IP | TCP | payload (up to 64 KiB, most of it in the spill) |   gso_size 1448
//!   out:  | Ethernet, tags | IP | TCP | 1448 | x 45, each a frame of its own
//!
//!   per segment   IPv4: total length, identification + 1, header checksum; IPv6: payload length
//!                 TCP: sequence + 1448, FIN and PSH on the last only, CWR on the first only, checksum
//!                 UDP: length, checksum
//! ```
//!
//! It never joins frames, and never touches a frame whose port takes the work.

use crate::burst::{Kind, Layers};
use crate::checksum::{Sum, checksum};
use crate::drop::DropReason;
use crate::offload::Offload;
use crate::parse::layers;
use crate::raw::{Frame, HEADROOM, SLOT, Stash};

/// Octets of a frame that lie in its first segment, if it has as many.
const FIRST: usize = SLOT - HEADROOM;

const FIN_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;

/// Hand `frame` on in a form in which the port takes it: as it is, with its checksum finished, or cut into segments, in
/// order. `takes` says what the port does itself.
///
/// # Errors
/// The frame went back to `stash`: its request does not fit it, or the pool has not enough frames. Segments that were
/// made before the pool ran dry have been handed on: to the receiver the others are lost on the way.
pub fn finish(
    mut frame: Frame,
    takes: impl Fn(Offload) -> bool,
    stash: &mut Stash,
    emit: &mut dyn FnMut(Frame),
) -> Result<(), DropReason> {
    let Some(offload) = frame.offload().filter(|offload| !takes(*offload)) else {
        emit(frame);
        return Ok(());
    };
    if offload.is_gso() {
        let cut = cut(&frame, offload, &takes, stash, emit);
        stash.give(frame);
        return cut;
    }
    if offload.needs_csum() && !finish_checksum(&mut frame, offload) {
        stash.give(frame);
        return Err(DropReason::OffloadMalformed);
    }
    frame.set_offload(Offload::NONE);
    emit(frame);
    Ok(())
}

/// The field holds the sum of the pseudo header; with the region added it becomes the checksum. Returns false if it does
/// not lie in the first segment.
fn finish_checksum(frame: &mut Frame, offload: Offload) -> bool {
    let start = usize::from(offload.csum_start);
    let at = start + usize::from(offload.csum_offset);
    let Some(region) = frame.head().get(start..) else { return false };
    let sum = Sum::EMPTY.plus(region).plus(frame.spill());
    put(frame.head_mut(), at, transmitted(sum).to_be_bytes())
}

/// Zero is sent as its other representation: in UDP it would mean "none" (RFC 768), elsewhere both are the same.
fn transmitted(sum: Sum) -> u16 {
    match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// Write octets; false if they do not fit.
fn put<const N: usize>(octets: &mut [u8], at: usize, value: [u8; N]) -> bool {
    let place = octets.get_mut(at..).and_then(|octets| octets.first_chunk_mut());
    place.map(|place| *place = value).is_some()
}

/// What is the same in all segments of a super-frame.
struct Template<'a> {
    /// All headers.
    headers: &'a [u8],
    layers: Layers,
    tcp: bool,
    /// Octets of transport header and payload of the super-frame.
    whole: u16,
    /// The checksum is left to the port.
    unfinished: Option<Offload>,
}

fn cut(
    frame: &Frame,
    offload: Offload,
    takes: &impl Fn(Offload) -> bool,
    stash: &mut Stash,
    emit: &mut dyn FnMut(Frame),
) -> Result<(), DropReason> {
    let (head, spill) = (frame.head(), frame.spill());
    // The parser checked the frame when it came in. It may have been rewritten since: what follows relies on it again.
    let layers = layers(head, frame.len(), Some(offload))?;
    let tcp = offload.gso_type & !Offload::GSO_ECN != Offload::GSO_UDP_L4;
    let at = usize::from(layers.l4);
    let transport = if tcp { head.get(at + 12).map_or(0, |octet| usize::from(octet >> 4) * 4) } else { 8 };
    let (headers, first) = head.split_at_checked(at + transport).ok_or(DropReason::OffloadMalformed)?;
    let unfinished = Offload { gso_type: Offload::GSO_NONE, gso_size: 0, hdr_len: 0, ..offload };
    let whole = (frame.len() - at) as u16;
    let template = Template { headers, layers, tcp, whole, unfinished: takes(unfinished).then_some(unfinished) };

    let size = usize::from(offload.gso_size);
    let payload = first.len() + spill.len();
    let count = payload.div_ceil(size).max(1);
    let mut rest = [first, spill];
    for i in 0..count {
        let len = size.min(payload - i * size);
        let segment = template.segment(&mut rest, i, len, (i * size) as u32, i + 1 == count, stash);
        emit(segment.ok_or(DropReason::NoFrame)?);
    }
    Ok(())
}

impl Template<'_> {
    /// Segment number `i`: the next `len` octets of payload, which is `offset` octets into it. `None`: no frame left.
    fn segment(
        &self,
        rest: &mut [&[u8]; 2],
        i: usize,
        len: usize,
        offset: u32,
        last: bool,
        stash: &mut Stash,
    ) -> Option<Frame> {
        let total = self.headers.len() + len;
        let mut frame = stash.take()?;
        frame.set_head(total.min(FIRST));
        let head = frame.head_mut();
        let (place, payload) = head.split_at_mut_checked(self.headers.len()).unwrap_or_default();
        place.copy_from_slice(self.headers.get(..place.len()).unwrap_or(&[]));
        pour(rest, payload);
        if total > FIRST {
            let Some(mut spill) = stash.take_spill() else {
                stash.give(frame);
                return None;
            };
            let tail = total - FIRST;
            pour(rest, spill.bytes_mut().get_mut(..tail).unwrap_or_default());
            frame.attach(spill, tail);
        }
        self.number(frame.head_mut(), i, len, offset, last);
        match self.unfinished {
            Some(offload) => frame.set_offload(offload),
            None => self.finish_checksum(&mut frame),
        }
        Some(frame)
    }

    fn l3(&self) -> usize {
        usize::from(self.layers.l3)
    }

    fn l4(&self) -> usize {
        usize::from(self.layers.l4)
    }

    /// Where the transport checksum stands.
    fn field(&self) -> usize {
        self.l4() + if self.tcp { 16 } else { 6 }
    }

    /// Lengths, numbers and flags of one segment, and the unfinished checksum.
    fn number(&self, head: &mut [u8], i: usize, len: usize, offset: u32, last: bool) {
        let (l3, l4) = (self.l3(), self.l4());
        let transport = (self.headers.len() - l4 + len) as u16;
        if self.layers.kind == Kind::Ipv4 {
            put(head, l3 + 2, ((l4 - l3) as u16 + transport).to_be_bytes());
            let id = read(head, l3 + 4).map_or(0, u16::from_be_bytes);
            put(head, l3 + 4, id.wrapping_add(i as u16).to_be_bytes());
            put(head, l3 + 10, [0, 0]);
            let sum = checksum(head.get(l3..l4).unwrap_or(&[]));
            put(head, l3 + 10, sum.to_be_bytes());
        } else {
            put(head, l3 + 4, ((l4 - l3 - 40) as u16 + transport).to_be_bytes());
        }
        if self.tcp {
            let sequence = read(head, l4 + 4).map_or(0, u32::from_be_bytes);
            put(head, l4 + 4, sequence.wrapping_add(offset).to_be_bytes());
            if let Some(flags) = head.get_mut(l4 + 13) {
                *flags &= if last { !0 } else { !FIN_PSH };
                *flags &= if i == 0 { !0 } else { !CWR };
            }
        } else {
            put(head, l4 + 4, transport.to_be_bytes());
        }
        // The pseudo header counts the octets of this segment instead of all. The rest of its sum stays as the sender
        // made it: only the sender knows the final destination when there is a routing header.
        let pseudo = read(head, self.field()).unwrap_or([0; 2]);
        let sum = Sum::EMPTY.plus(&pseudo).plus(&(!self.whole).to_be_bytes()).plus(&transport.to_be_bytes());
        put(head, self.field(), sum.folded().to_be_bytes());
    }

    fn finish_checksum(&self, frame: &mut Frame) {
        let sum = Sum::EMPTY.plus(frame.head().get(self.l4()..).unwrap_or(&[])).plus(frame.spill());
        put(frame.head_mut(), self.field(), transmitted(sum).to_be_bytes());
    }
}

fn read<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

/// Fill `into` from the front of what is left.
fn pour(rest: &mut [&[u8]; 2], mut into: &mut [u8]) {
    for piece in rest {
        let n = piece.len().min(into.len());
        let ((now, later), (filled, open)) = (piece.split_at(n), into.split_at_mut(n));
        filled.copy_from_slice(now);
        (*piece, into) = (later, open);
    }
}
