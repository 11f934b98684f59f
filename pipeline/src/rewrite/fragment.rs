//! Cutting an IPv4 packet that is larger than the way it takes (RFC 791, 3.2; RFC 1812, 4.2.2.7).
//!
//! ```text
//!   in:   | Ethernet, tags | IP, options | data                |   at offset 800 of its datagram, more behind it
//!   out:  | Ethernet, tags | IP, options | 1480 |                  offset  800, more
//!         | Ethernet, tags | IP, copied  | 1480 |                  offset 2280, more
//!         | Ethernet, tags | IP, copied  | rest |                  offset 3760, more: as the packet had it
//! ```
//!
//! Only a packet whose sender allows it is cut. What its sender left to be done is done first, because no port can do it
//! for fragments: super-frames become packets, checksums are finished. IPv6 packets are never cut on the way
//! (RFC 8200, 5).

use crate::burst::{Kind, Layers};
use crate::checksum::checksum;
use crate::drop::DropReason;
use crate::parse::{array, be16};
use crate::raw::{Frame, Stash};
use crate::segment::{self, joined, put};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
/// Octets of an IPv4 header without options.
const FIXED: usize = 20;
/// Octets of the longest options.
const OPTIONS: usize = 40;

/// Hand `frame` on in packets of at most `mtu` octets, from the network header on, in order. `layers` is what the parser
/// says of the frame as it leaves.
///
/// # Errors
/// The frame went back to `stash`, and nothing was handed on. [`DropReason::ExceedsMtu`]: its sender forbids to cut it (DF, or
/// not IPv4), or there is no room for eight octets of data behind the header; [`DropReason::NoFrame`]: the pool ran dry;
/// [`DropReason::OffloadMalformed`]: what was left to be done does not fit the frame.
pub fn fragment(
    frame: Frame,
    layers: &Layers,
    mtu: u16,
    stash: &mut Stash,
    emit: &mut dyn FnMut(Frame),
) -> Result<(), DropReason> {
    if layers.kind != Kind::Ipv4 {
        stash.give(frame);
        return Err(DropReason::ExceedsMtu);
    }
    let (l3, mut packets, mut fragments) = (usize::from(layers.l3), Vec::new(), Vec::new());
    let mut done = segment::finish(frame, |_| false, stash, &mut |packet| packets.push(packet));
    for packet in packets {
        if done.is_ok() && fits(&packet, l3, mtu) {
            fragments.push(packet);
            continue;
        }
        done = done.and_then(|()| cut(&packet, l3, usize::from(mtu), stash, &mut fragments));
        stash.give(packet);
    }
    // A receiver can do nothing with some of the fragments: it gets all or none.
    match done {
        Ok(()) => fragments.into_iter().for_each(emit),
        Err(_) => fragments.into_iter().for_each(|fragment| stash.give(fragment)),
    }
    done
}

fn fits(packet: &Frame, l3: usize, mtu: u16) -> bool {
    be16(packet.head(), l3 + 2).is_some_and(|total| total <= mtu)
}

/// Add the fragments of one packet to `fragments`.
fn cut(packet: &Frame, l3: usize, mtu: usize, stash: &mut Stash, fragments: &mut Vec<Frame>) -> Result<(), DropReason> {
    // The parser checked all of this when the frame came in; it may have been rewritten since.
    let head = packet.head();
    let (Some([version, ..]), Some(total), Some(word)) = (array::<1>(head, l3), be16(head, l3 + 2), be16(head, l3 + 6))
    else {
        return Err(DropReason::Ipv4Truncated);
    };
    let header = usize::from(version & 0xf) * 4;
    let (Some((headers, first)), Some(data)) =
        (head.split_at_checked(l3 + header), usize::from(total).checked_sub(header))
    else {
        return Err(DropReason::Ipv4HeaderLength);
    };
    if first.len() + packet.spill().len() < data {
        return Err(DropReason::Ipv4TotalLength);
    }
    // In units of eight octets, for the offset counts them. The first header is the longest.
    let size = mtu.saturating_sub(header) & !7;
    if size == 0 || header < FIXED || word & DONT_FRAGMENT != 0 {
        return Err(DropReason::ExceedsMtu);
    }
    let later = later_headers(headers, l3);
    let mut rest = [first, packet.spill()];
    for from in (0..data).step_by(size) {
        let headers = if from == 0 { headers } else { &later };
        let (len, last) = (size.min(data - from), from + size >= data);
        let mut fragment = joined(headers, &mut rest, len, stash).ok_or(DropReason::NoFrame)?;
        // The parser bounds offset and length together by 65,535.
        let offset = (word & 0x1fff).wrapping_add((from / 8) as u16) & 0x1fff;
        let more = if last { word & MORE } else { MORE };
        let octets = headers.len() - l3;
        number(fragment.head_mut(), l3, octets, (octets + len) as u16, offset | more);
        fragments.push(fragment);
    }
    Ok(())
}

/// Length, place and checksum of a header of `octets` octets.
fn number(head: &mut [u8], l3: usize, octets: usize, total: u16, word: u16) {
    put(head, l3 + 2, total.to_be_bytes());
    put(head, l3 + 6, word.to_be_bytes());
    put(head, l3 + 10, [0, 0]);
    let sum = checksum(head.get(l3..l3 + octets).unwrap_or(&[]));
    put(head, l3 + 10, sum.to_be_bytes());
}

/// The headers of all fragments but the first: of the options only those that say they are copied.
fn later_headers(headers: &[u8], l3: usize) -> Vec<u8> {
    let (fixed, options) = headers.split_at_checked(l3 + FIXED).unwrap_or((headers, &[]));
    let mut later = Vec::with_capacity(l3 + FIXED + OPTIONS);
    later.extend_from_slice(fixed);
    copied(options).for_each(|option| later.extend_from_slice(option));
    // What fills the last word is zero: the end of the options.
    later.resize(l3 + (later.len() - l3).next_multiple_of(4), 0);
    let words = (later.len() - l3) / 4;
    put(&mut later, l3, [0x40 | words as u8]);
    later
}

/// Options with the "copied" flag, up to the end of the options or the first malformed one.
fn copied(mut options: &[u8]) -> impl Iterator<Item = &[u8]> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let next = move || {
        let octets = match *options {
            [NO_OPERATION, ..] => 1,
            [] | [END, ..] => return None,
            [_, length, ..] if length >= 2 => usize::from(length),
            _ => return None,
        };
        let (option, rest) = options.split_at_checked(octets)?;
        options = rest;
        Some(option)
    };
    std::iter::from_fn(next).filter(|option| option.first().is_some_and(|kind| kind & COPIED != 0))
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket};
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::Sum;
    use crate::offload::Offload;
    use crate::parse::tests::frames::*;
    use crate::parse::{layers, piece};
    use crate::raw::Pool;

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    /// `octets` as a frame, its first `head` in the first segment.
    fn framed(stash: &mut Stash, octets: &[u8], head: usize) -> Frame {
        let mut frame = stash.take().unwrap();
        let (first, tail) = octets.split_at(head.min(octets.len()));
        assert!(frame.fill(first));
        if !tail.is_empty() {
            let mut spill = stash.take_spill().unwrap();
            spill.bytes_mut()[..tail.len()].copy_from_slice(tail);
            frame.attach(spill, tail.len());
        }
        frame
    }

    /// What becomes of `frame`, as octets. All frames are given back.
    fn fragments(frame: Frame, mtu: u16, stash: &mut Stash) -> Result<Vec<Vec<u8>>, DropReason> {
        let layers = layers(frame.head(), frame.len(), frame.offload()).unwrap();
        let mut out = Vec::new();
        let done = fragment(frame, &layers, mtu, stash, &mut |fragment| out.push(fragment));
        assert!(out.iter().all(|fragment| fragment.offload().is_none()));
        let octets = out.iter().map(Frame::to_vec).collect();
        out.into_iter().for_each(|fragment| stash.give(fragment));
        done.map(|()| octets)
    }

    /// Put packets together again, checking each with etherparse: offset of the first, data, whether more is behind it.
    fn together(packets: &[Vec<u8>], mtu: u16) -> (usize, Vec<u8>, bool) {
        let (mut start, mut data, mut more) = (None, Vec::new(), true);
        for octets in packets {
            let packet = SlicedPacket::from_ethernet(octets).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("{packet:?}") };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert!(header.total_len <= mtu && !header.dont_fragment && header.identification == 0x1234);
            let parsed = layers(octets, octets.len(), None).unwrap();
            let piece = piece(octets, &parsed).unwrap();
            assert_eq!(piece.at + piece.octets, octets.len());
            let start = *start.get_or_insert(piece.offset);
            assert_eq!(piece.offset, start + data.len(), "each begins where the one before it ends");
            assert!(more, "nothing stands behind the last");
            data.extend_from_slice(&octets[piece.at..]);
            more = piece.more;
        }
        (start.unwrap(), data, more)
    }

    #[test]
    fn a_packet_is_cut_to_the_size_and_no_smaller() {
        let mut stash = Pool::heap(64, 2).stash();
        let whole = udp(&data(4000));
        for tags in [&[][..], &[(0x8100, 7)]] {
            let mut octets = ethernet(tags, 0x0800, &ipv4(17, 0, &[], &whole));
            octets.extend([0xee; 6]);
            let frame = framed(&mut stash, &octets, 200);
            let out = fragments(frame, 1500, &mut stash).unwrap();
            let l3 = 14 + tags.len() * 4;
            assert_eq!(out.iter().map(|packet| packet.len() - l3).collect::<Vec<_>>(), [1500, 1500, 20 + 4008 - 2960]);
            assert!(out.iter().all(|packet| packet[..l3] == octets[..l3]));
            assert_eq!(together(&out, 1500), (0, whole.clone(), false), "padding is left behind");
        }
        assert_eq!(stash.available(), 64);
    }

    #[test]
    fn a_fragment_is_cut_as_what_it_is() {
        let mut stash = Pool::heap(64, 2).stash();
        for (word, more) in [(0x2000 | 100, true), (100, false)] {
            let frame = framed(&mut stash, &ethernet(&[], 0x0800, &ipv4(17, word, &[], &data(1480))), 1500);
            let out = fragments(frame, 576, &mut stash).unwrap();
            assert_eq!((out.len(), together(&out, 576)), (3, (800, data(1480), more)));
        }
    }

    #[test]
    fn options_are_copied_as_they_say() {
        // Router alert and loose source route are copied, record route and time stamp are not (RFC 791, 3.1; RFC 2113).
        let (alert, record, loose) = ([148, 4, 0, 0], [7, 7, 4, 0, 0, 0, 0], [131, 3, 4]);
        let options = [&[1][..], &record, &alert, &loose, &[0]].concat();
        let mut stash = Pool::heap(64, 2).stash();
        let frame = framed(&mut stash, &ethernet(&[], 0x0800, &ipv4(47, 0, &options, &data(200))), 1500);
        let out = fragments(frame, 116, &mut stash).unwrap();
        assert_eq!(together(&out, 116).1, data(200));
        assert_eq!((out[0][14], &out[0][34..50]), (0x49, &options[..]));
        for later in &out[1..] {
            assert_eq!((later[14], &later[34..42]), (0x47, &[148, 4, 0, 0, 131, 3, 4, 0][..]));
        }
        // Malformed ones are kept in the first and end the copying.
        for malformed in [[148, 4, 0, 0, 137, 0, 0, 0], [148, 4, 0, 0, 137, 9, 0, 0], [148, 4, 0, 0, 1, 1, 1, 137]] {
            let frame = framed(&mut stash, &ethernet(&[], 0x0800, &ipv4(47, 0, &malformed, &data(200))), 1500);
            let out = fragments(frame, 116, &mut stash).unwrap();
            assert_eq!((out[0][14], out[1][14], &out[1][34..38]), (0x47, 0x46, &[148, 4, 0, 0][..]));
        }
    }

    #[test]
    fn what_was_left_to_be_done_is_done_first() {
        let mut stash = Pool::heap(64, 4).stash();
        let mut octets = ethernet(&[], 0x0800, &ipv4(17, 0, &[], &udp(&data(3000))));
        let pseudo = Sum::pseudo4([10, 0, 0, 1], [10, 0, 1, 2], 17, 3008).folded();
        assert!(put(&mut octets, 40, pseudo.to_be_bytes()));
        let offload = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::NONE };
        let mut frame = framed(&mut stash, &octets, 900);
        frame.set_offload(offload);
        let out = fragments(frame, 1500, &mut stash).unwrap();
        let datagram = together(&out, 1500).1;
        let sum = Sum::pseudo4([10, 0, 0, 1], [10, 0, 1, 2], 17, 3008).plus(&datagram);
        assert_eq!(sum.folded(), 0xffff, "the checksum of the whole verifies");

        // A super-frame: datagrams of 1,200 octets, each then cut.
        let pseudo = Sum::pseudo4([10, 0, 0, 1], [10, 0, 1, 2], 17, 3008).folded();
        assert!(put(&mut octets, 40, pseudo.to_be_bytes()));
        let mut frame = framed(&mut stash, &octets, 900);
        frame.set_offload(Offload { gso_type: Offload::GSO_UDP_L4, gso_size: 1200, ..offload });
        let out = fragments(frame, 1000, &mut stash).unwrap();
        assert_eq!(out.len(), 5, "two of the first, two of the second, and the third as it is");
        let ids: Vec<u8> = out.iter().map(|packet| packet[19]).collect();
        assert_eq!(ids, [0x34, 0x34, 0x35, 0x35, 0x36]);
        assert_eq!(stash.available(), 64);
    }

    #[test]
    fn what_must_not_or_cannot_be_cut_is_a_named_drop() {
        let mut stash = Pool::heap(64, 2).stash();
        let forbidden = ethernet(&[], 0x0800, &ipv4(17, 0x4000, &[], &udp(&data(1000))));
        let six = ethernet(&[], 0x86dd, &ipv6(17, &udp(&data(1000))));
        let allowed = ethernet(&[], 0x0800, &ipv4(17, 0, &[1; 40], &udp(&data(1000))));
        for (octets, mtu) in [(&forbidden, 576), (&six, 576), (&allowed, 67), (&allowed, 0)] {
            let frame = framed(&mut stash, octets, 1500);
            assert_eq!(fragments(frame, mtu, &mut stash), Err(DropReason::ExceedsMtu));
            assert_eq!(stash.available(), 64);
        }
        let frame = framed(&mut stash, &forbidden, 1500);
        assert_eq!(fragments(frame, 1028, &mut stash), Ok(vec![forbidden]), "nothing is to be cut");
        // 126 fragments of eight octets do not fit the pool.
        let frame = framed(&mut stash, &allowed, 1500);
        assert_eq!(fragments(frame, 68, &mut stash), Err(DropReason::NoFrame));
        assert_eq!(stash.available(), 64);
    }

    proptest! {
        #[test]
        fn put_together_again_they_are_the_packet(
            len in 1usize..20_000, mtu in 68u16..9_001, head in 94usize..1920, words in 0usize..11, offset in 0u16..100, more: bool,
        ) {
            let mut stash = Pool::heap(512, 64).stash();
            let len = if more { len.next_multiple_of(8) } else { len };
            let word = offset | if more { 0x2000 } else { 0 };
            let octets = ethernet(&[], 0x0800, &ipv4(47, word, &vec![1; words * 4], &data(len)));
            let frame = framed(&mut stash, &octets, head);
            match fragments(frame, mtu, &mut stash) {
                Ok(out) if 20 + words * 4 + len <= usize::from(mtu) => prop_assert_eq!(out, vec![octets]),
                Ok(out) => prop_assert_eq!(together(&out, mtu), (usize::from(offset) * 8, data(len), more)),
                Err(reason) => prop_assert!(reason == DropReason::NoFrame && len / usize::from(mtu - 67) > 100),
            }
            prop_assert_eq!(stash.available(), 512);
        }

        #[test]
        fn no_frame_is_lost_whatever_the_headers_say(
            octets in proptest::collection::vec(any::<u8>(), 0..200), l3 in 0u8..30, mtu in 0u16..200,
        ) {
            let mut stash = Pool::heap(64, 2).stash();
            let frame = framed(&mut stash, &octets, 120);
            let layers = Layers { l3, kind: Kind::Ipv4, ..Layers::default() };
            let mut out = Vec::new();
            let _ = fragment(frame, &layers, mtu, &mut stash, &mut |fragment| out.push(fragment));
            out.into_iter().for_each(|fragment| stash.give(fragment));
            prop_assert_eq!(stash.available(), 64);
        }
    }
}
