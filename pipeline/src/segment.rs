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
pub(crate) fn put<const N: usize>(octets: &mut [u8], at: usize, value: [u8; N]) -> bool {
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
        let mut frame = joined(self.headers, rest, len, stash)?;
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

/// A fresh frame of `headers` and the next `len` octets of what is left; `None`: no frame or spill left.
pub(crate) fn joined(headers: &[u8], rest: &mut [&[u8]; 2], len: usize, stash: &mut Stash) -> Option<Frame> {
    let total = headers.len() + len;
    let mut frame = stash.take()?;
    frame.set_head(total.min(FIRST));
    let head = frame.head_mut();
    let (place, payload) = head.split_at_mut_checked(headers.len()).unwrap_or_default();
    place.copy_from_slice(headers.get(..place.len()).unwrap_or(&[]));
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
    Some(frame)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::tests::frames::*;
    use crate::raw::Pool;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    /// A super-frame of `payload`, its first `head` octets in the first segment, its checksum as a kernel leaves it.
    fn super_frame(stash: &mut Stash, mut octets: Vec<u8>, offload: Offload, head: usize) -> Frame {
        let start = usize::from(offload.csum_start);
        let len = octets.len() - start;
        let l3 = if octets[12] == 0x81 { 18 } else { 14 };
        let proto = if offload.csum_offset == 16 { 6 } else { 17 };
        let pseudo = if octets[l3] >> 4 == 4 {
            Sum::pseudo4(read(&octets, l3 + 12).unwrap(), read(&octets, l3 + 16).unwrap(), proto, len as u16)
        } else {
            Sum::pseudo6(read(&octets, l3 + 8).unwrap(), read(&octets, l3 + 24).unwrap(), proto, len as u32)
        };
        put(&mut octets, start + usize::from(offload.csum_offset), pseudo.folded().to_be_bytes());
        let mut frame = stash.take().unwrap();
        let (first, tail) = octets.split_at(head.min(octets.len()).min(FIRST));
        assert!(frame.fill(first));
        if !tail.is_empty() {
            let mut spill = stash.take_spill().unwrap();
            spill.bytes_mut()[..tail.len()].copy_from_slice(tail);
            frame.attach(spill, tail.len());
        }
        frame.set_offload(offload);
        frame
    }

    fn request(gso_type: u8, gso_size: u16, l4: usize) -> Offload {
        let csum_offset = if gso_type == Offload::GSO_UDP_L4 { 6 } else { 16 };
        Offload { flags: Offload::NEEDS_CSUM, gso_type, hdr_len: 0, gso_size, csum_start: l4 as u16, csum_offset }
    }

    /// Finish `frame` for a port that takes nothing; what comes out, as octets. All frames are given back.
    fn finished(frame: Frame, stash: &mut Stash) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut out = Vec::new();
        let result = finish(frame, |_| false, stash, &mut |frame| out.push(frame));
        let octets = out.iter().map(Frame::to_vec).collect();
        assert!(out.iter().all(|frame| frame.offload().is_none()));
        out.into_iter().for_each(|frame| stash.give(frame));
        result.map(|()| octets)
    }

    /// Check one segment with etherparse; its payload.
    fn verified(octets: &[u8]) -> Vec<u8> {
        let packet = SlicedPacket::from_ethernet(octets).unwrap();
        let transport = packet.transport.unwrap();
        let net = packet.net.unwrap();
        if let NetSlice::Ipv4(ip) = &net {
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        }
        match (&transport, &net) {
            (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
                let (source, destination) = (ip.header().source(), ip.header().destination());
                assert_eq!(tcp.calc_checksum_ipv4(source, destination).unwrap(), tcp.checksum());
            }
            (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
                let (source, destination) = (ip.header().source(), ip.header().destination());
                assert_eq!(tcp.calc_checksum_ipv6(source, destination).unwrap(), tcp.checksum());
            }
            (TransportSlice::Udp(udp), NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap(), udp.checksum());
            }
            (TransportSlice::Udp(udp), NetSlice::Ipv6(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap(), udp.checksum());
            }
            other => panic!("{other:?}"),
        }
        match transport {
            TransportSlice::Tcp(tcp) => tcp.payload().to_vec(),
            TransportSlice::Udp(udp) => udp.payload().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn tcp_is_cut_into_segments_that_say_what_one_sender_would_have_said() {
        let pool = Pool::heap(128, 2);
        let mut stash = pool.stash();
        let data = payload(30_000);
        let segment = tcp(0x80 | 0x18 | 0x01, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &data);
        for (octets, gso_type, l4) in [
            (ethernet(&[], 0x0800, &ipv4(6, 0x4000, &[], &segment)), Offload::GSO_TCPV4, 34),
            (ethernet(&[(0x8100, 7)], 0x0800, &ipv4(6, 0x4000, &[1; 4], &segment)), Offload::GSO_TCPV4, 42),
            (ethernet(&[(0x8100, 7)], 0x86dd, &ipv6(6, &segment)), Offload::GSO_TCPV6 | Offload::GSO_ECN, 58),
        ] {
            let frame = super_frame(&mut stash, octets.clone(), request(gso_type, 1448, l4), 200);
            let segments = finished(frame, &mut stash).unwrap();
            assert_eq!(segments.len(), 30_000usize.div_ceil(1448));
            let mut together = Vec::new();
            for (i, segment) in segments.iter().enumerate() {
                let (first, last) = (i == 0, i + 1 == segments.len());
                assert_eq!(read(segment, l4 + 4).map(u32::from_be_bytes), Some(1 + 1448 * i as u32));
                let flags = 0x10 | if first { 0x80 } else { 0 } | if last { 0x09 } else { 0 };
                assert_eq!(segment[l4 + 13], flags, "segment {i}");
                if gso_type == Offload::GSO_TCPV4 {
                    let l3 = if octets[12] == 0x81 { 18 } else { 14 };
                    assert_eq!(read(segment, l3 + 4).map(u16::from_be_bytes), Some(0x1234 + i as u16));
                }
                together.extend(verified(segment));
            }
            assert_eq!(together, data);
            assert_eq!(stash.available(), 128);
        }
    }

    #[test]
    fn udp_is_cut_into_datagrams() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        let data = payload(5_000);
        for (octets, l4) in [
            (ethernet(&[], 0x0800, &ipv4(17, 0, &[], &udp(&data))), 34),
            (ethernet(&[], 0x86dd, &ipv6(17, &udp(&data))), 54),
        ] {
            let frame = super_frame(&mut stash, octets, request(Offload::GSO_UDP_L4, 1200, l4), 1920);
            let datagrams = finished(frame, &mut stash).unwrap();
            assert_eq!(datagrams.len(), 5);
            assert_eq!(datagrams.iter().flat_map(|octets| verified(octets)).collect::<Vec<_>>(), data);
        }
    }

    #[test]
    fn segments_that_do_not_fit_a_slot_have_a_spill() {
        let pool = Pool::heap(64, 8);
        let mut stash = pool.stash();
        let data = payload(20_000);
        let octets = ethernet(&[], 0x0800, &ipv4(6, 0, &[], &tcp(0x10, &[], &data)));
        let frame = super_frame(&mut stash, octets, request(Offload::GSO_TCPV4, 8948, 34), 1001);
        let segments = finished(frame, &mut stash).unwrap();
        assert_eq!(segments.iter().flat_map(|octets| verified(octets)).collect::<Vec<_>>(), data);
        assert_eq!(stash.available(), 64);
    }

    #[test]
    fn an_unfinished_checksum_is_finished_and_zero_is_sent_as_ones() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        for data in [payload(0), payload(11), payload(4001)] {
            let octets = ethernet(&[], 0x86dd, &ipv6(17, &udp(&data)));
            let offload = Offload { gso_type: Offload::GSO_NONE, gso_size: 0, ..request(Offload::GSO_UDP_L4, 0, 54) };
            let frame = super_frame(&mut stash, octets, offload, 1501);
            let out = finished(frame, &mut stash).unwrap();
            assert_eq!(verified(&out[0]), data);
        }
        assert_eq!(transmitted(Sum::EMPTY.plus(&[0xff, 0xff])), 0xffff);
    }

    #[test]
    fn what_the_port_takes_is_left_to_it() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        let octets = ethernet(&[], 0x0800, &ipv4(6, 0, &[], &tcp(0x10, &[], &payload(3000))));
        let offload = request(Offload::GSO_TCPV4, 1448, 34);
        let frame = super_frame(&mut stash, octets.clone(), offload, 300);
        let mut out = Vec::new();
        finish(frame, |_| true, &mut stash, &mut |frame| out.push(frame)).unwrap();
        assert_eq!((out.len(), out[0].offload()), (1, Some(offload)));

        // A port that finishes checksums but does not cut; finishing them then gives what cutting alone would have.
        let frame = out.pop().unwrap();
        let copy = stash.copy(&frame).unwrap();
        finish(frame, |offload| !offload.is_gso(), &mut stash, &mut |frame| out.push(frame)).unwrap();
        assert!(out.len() == 3 && out.iter().all(|frame| frame.offload().unwrap().needs_csum()));
        let halves: Vec<_> = out.into_iter().flat_map(|frame| finished(frame, &mut stash).unwrap()).collect();
        assert_eq!(halves, finished(copy, &mut stash).unwrap());
        assert_eq!(stash.available(), 64);
    }

    #[test]
    fn when_frames_run_out_nothing_leaks() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        let octets = ethernet(&[], 0x0800, &ipv4(6, 0, &[], &tcp(0x10, &[], &payload(60_000))));
        let frame = super_frame(&mut stash, octets.clone(), request(Offload::GSO_TCPV4, 256, 34), 1000);
        assert_eq!(finished(frame, &mut stash), Err(DropReason::NoFrame));
        assert_eq!(stash.available(), 64);
        // Nor when there is no spill for a large segment.
        let frame = super_frame(&mut stash, octets, request(Offload::GSO_TCPV4, 8000, 34), 1000);
        assert_eq!(finished(frame, &mut stash), Err(DropReason::NoFrame));
        assert_eq!(stash.available(), 64);
        assert!(stash.take_spill().is_some() && stash.take_spill().is_some());
    }

    #[test]
    fn a_request_that_does_not_fit_is_a_named_drop() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        let octets = ethernet(&[], 0x0800, &ipv4(6, 0, &[], &tcp(0x10, &[], &payload(3000))));
        for offload in [
            request(Offload::GSO_TCPV4, 255, 34),
            request(Offload::GSO_TCPV6, 1448, 34),
            Offload { flags: 1, csum_start: 90, csum_offset: 9, ..Offload::NONE },
            Offload { flags: 1, csum_start: u16::MAX, csum_offset: u16::MAX, ..Offload::NONE },
        ] {
            let mut frame = stash.take().unwrap();
            assert!(frame.fill(&octets[..100]));
            let mut spill = stash.take_spill().unwrap();
            spill.bytes_mut()[..octets.len() - 100].copy_from_slice(&octets[100..]);
            frame.attach(spill, octets.len() - 100);
            frame.set_offload(offload);
            assert_eq!(finished(frame, &mut stash), Err(DropReason::OffloadMalformed), "{offload:?}");
            assert_eq!(stash.available(), 64);
        }
    }

    proptest! {
        #[test]
        fn the_payload_is_kept_wherever_the_frame_is_divided(len in 0usize..20_000, size in 256u16..3_000, head in 74usize..1920) {
            let pool = Pool::heap(128, 64);
            let mut stash = pool.stash();
            let data = payload(len);
            let octets = ethernet(&[], 0x86dd, &ipv6(6, &tcp(0x18, &[], &data)));
            let frame = super_frame(&mut stash, octets, request(Offload::GSO_TCPV6, size, 54), head);
            let segments = finished(frame, &mut stash).unwrap();
            prop_assert_eq!(segments.iter().flat_map(|octets| verified(octets)).collect::<Vec<_>>(), data);
            prop_assert_eq!(stash.available(), 128);
        }
    }
}
