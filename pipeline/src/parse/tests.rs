//! What the parser accepts, refuses and reads, from real octets; kernels against each other. `tests/all/parser.rs`
//! holds the same parser against etherparse.

#[path = "../../tests/kit/frames.rs"]
pub(crate) mod frames;

use api::{MacAddr, PortId};
use proptest::prelude::*;

use super::*;
use crate::burst::guard;
use crate::drop::DropReason as Reason;
use crate::key::{FRAG_ANY, FRAG_LATER, Field, VLAN_TAGGED};
use crate::offload::Offload;
use crate::raw::Pool;
use frames::*;

fn parsed(frame: &[u8]) -> Result<Layers, Reason> {
    layers(frame, frame.len(), None)
}

fn facts(frame: &[u8]) -> FlowKey {
    key(PortId(7), frame, &parsed(frame).unwrap())
}

fn eth4(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x0800, packet)
}

fn eth6(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x86dd, packet)
}

/// A frame with one octet changed.
fn with(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

#[test]
fn every_sound_frame_is_accepted() {
    for frame in all() {
        assert!(parsed(&frame).is_ok(), "{:?}: {frame:02x?}", parsed(&frame));
    }
}

#[test]
fn every_malformation_has_its_name() {
    let tcp4 = || eth4(&ipv4(6, 0, &[], &tcp(0x10, &[], b"hello")));
    let udp4 = || eth4(&ipv4(17, 0, &[], &udp(b"hello")));
    let udp6 = || eth6(&ipv6(17, &udp(b"hello")));
    let cut = |frame: Vec<u8>, len: usize| frame[..len].to_vec();
    let rows: Vec<(Reason, Vec<u8>)> = vec![
        (Reason::EthTruncated, vec![]),
        (Reason::EthTruncated, cut(udp4(), 13)),
        (Reason::FrameOversized, vec![0; MAX_FRAME + 1]),
        (Reason::EthSourceGroup, with(udp4(), 6, 0x01)),
        (Reason::EthSourceGroup, vec![0xff; 64]),
        (Reason::VlanTruncated, cut(ethernet(&[(0x8100, 7)], 0x0800, &[]), 17)),
        (Reason::VlanTruncated, cut(ethernet(&[(0x88a8, 7), (0x8100, 7)], 0x0800, &[]), 21)),
        (Reason::VlanTooDeep, ethernet(&[(0x88a8, 7), (0x8100, 7), (0x8100, 7)], 0x0800, &[])),
        (Reason::ArpMalformed, cut(ethernet(&[], 0x0806, &arp()), 14 + 27)),
        (Reason::ArpMalformed, with(ethernet(&[], 0x0806, &arp()), 14 + 5, 16)),
        (Reason::ArpMalformed, with(ethernet(&[], 0x0806, &arp()), 14 + 1, 6)),
        (Reason::Ipv4Truncated, cut(udp4(), 14 + 19)),
        (Reason::Ipv4Version, with(udp4(), 14, 0x65)),
        (Reason::Ipv4HeaderLength, with(udp4(), 14, 0x44)),
        (Reason::Ipv4HeaderLength, with(udp4(), 14, 0x4f)),
        (Reason::Ipv4TotalLength, with(udp4(), 14 + 3, 34)),
        (Reason::Ipv4TotalLength, with(udp4(), 14 + 3, 19)),
        (Reason::Ipv4TotalLength, with(udp4(), 14 + 3, 0)),
        (Reason::Ipv4Fragment, eth4(&ipv4(17, 0x2000, &[], &udp(b"12345")))),
        (Reason::Ipv4Fragment, eth4(&ipv4(17, 0x1fff, &[], &[0; 8]))),
        (Reason::Ipv4Fragment, eth4(&ipv4(17, 0x0001, &[], b""))),
        (Reason::Ipv6Truncated, cut(udp6(), 14 + 39)),
        (Reason::Ipv6Version, with(udp6(), 14, 0x45)),
        (Reason::Ipv6PayloadLength, with(udp6(), 14 + 5, 14)),
        (Reason::Ipv6Extension, eth6(&ipv6(0, b""))),
        (Reason::Ipv6Extension, eth6(&ipv6(60, &[17, 1, 0, 0, 0, 0, 0, 0]))),
        (Reason::Ipv6Fragment, eth6(&ipv6(44, &[17, 0, 0xff, 0xf8, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]))),
        (Reason::TcpTruncated, eth4(&ipv4(6, 0, &[], &[0; 19]))),
        (Reason::TcpTruncated, eth4(&ipv4(6, 0x2000, &[], &[0; 8]))),
        (Reason::TcpDataOffset, with(tcp4(), 14 + 20 + 12, 0x40)),
        (Reason::TcpDataOffset, with(tcp4(), 14 + 20 + 12, 0x70)),
        (Reason::UdpTruncated, eth4(&ipv4(17, 0, &[], &[0; 7]))),
        (Reason::UdpLength, with(udp4(), 14 + 20 + 5, 7)),
        (Reason::UdpLength, with(udp4(), 14 + 20 + 5, 14)),
        (Reason::UdpLength, with(udp6(), 14 + 40 + 5, 0)),
        (Reason::SctpTruncated, eth4(&ipv4(132, 0, &[], &[0; 11]))),
        (Reason::IcmpTruncated, eth4(&ipv4(1, 0, &[], &[0; 7]))),
        (Reason::Icmpv6Truncated, eth6(&ipv6(58, &[0; 7]))),
    ];
    for (reason, frame) in &rows {
        assert_eq!(parsed(frame), Err(*reason), "{:02x?}", &frame[..frame.len().min(80)]);
    }
    // What is lacking in the first segment is lacking, wherever the rest of the frame may be.
    assert_eq!(layers(&udp4()[..30], udp4().len(), None), Err(Reason::Ipv4Truncated));
    assert_eq!(layers(&udp4()[..40], udp4().len(), None), Err(Reason::UdpTruncated));
    assert_eq!(layers(&tcp4()[..50], tcp4().len(), None), Err(Reason::TcpTruncated));
    let tested: std::collections::BTreeSet<_> = rows.iter().map(|(reason, _)| *reason).collect();
    for (reason, name, _) in Reason::ALL.into_iter().take_while(|(reason, ..)| *reason < Reason::OffloadMalformed) {
        assert!(tested.contains(&reason), "{name} has no row");
    }
}

#[test]
fn a_frame_cut_anywhere_is_refused_or_sound_and_never_a_panic() {
    for frame in all() {
        for len in 0..=frame.len() {
            let cut = &frame[..len];
            if let Ok(layers) = layers(cut, len, None) {
                key(PortId(7), cut, &layers);
            }
            // The same with a spill behind it, and with layers that belong to the whole frame.
            let _ = layers(cut, frame.len(), Some(Offload { gso_type: 1, gso_size: 256, flags: 1, ..Offload::NONE }));
            key(PortId(7), cut, &parsed(&frame).unwrap());
        }
    }
}

#[test]
fn padding_behind_the_packet_is_no_malformation_however_long() {
    // CVE-2020-35498: more than 255 octets of it.
    for padding in [1, 26, 255, 256, 1400] {
        for frame in [eth4(&ipv4(6, 0, &[], &tcp(0x10, &[], b""))), eth6(&ipv6(17, &udp(b"")))] {
            let plain = facts(&frame);
            let mut frame = frame;
            frame.resize(frame.len() + padding, 0xa5);
            assert_eq!(facts(&frame), plain);
        }
    }
}

#[test]
fn protocol_zero_is_a_protocol_like_any_other() {
    // CVE-2023-1668: zero was taken for "any".
    let zero = facts(&eth4(&ipv4(0, 0, &[], &tcp(0x10, &[], b""))));
    let tcp = facts(&eth4(&ipv4(6, 0, &[], &tcp(0x10, &[], b""))));
    let mask = FlowKey::mask(&[Field::IP_PROTO]);
    assert_ne!(zero.masked(&mask), tcp.masked(&mask));
    assert_eq!(zero.get::<2>(Field::TP_DST), [0, 0]);
}

#[test]
fn the_key_has_the_facts_of_each_kind_of_frame() {
    let key =
        facts(&ethernet(&[(0x88a8, 0x7064), (0x8100, 0xe00a)], 0x0800, &ipv4(6, 0x4000, &[], &tcp(0x12, &[], b""))));
    assert_eq!((key.in_port(), key.vlan(), key.eth_type()), (PortId(7), VLAN_TAGGED | 100, 0x0800));
    assert_eq!((key.eth_dst(), key.eth_src()), (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])));
    assert_eq!((key.get(Field::VLAN_PCP), key.get(Field::VLAN_SERVICE)), ([0x70], [1]));
    assert_eq!(key.get(Field::VLAN_INNER), (0xe000 | VLAN_TAGGED | 10).to_ne_bytes());
    assert_eq!((key.get(Field::IP_PROTO), key.get(Field::IP_FRAG), key.get(Field::IP_TTL)), ([6], [0], [64]));
    assert_eq!((key.get(Field::IPV4_SRC), key.get(Field::IPV4_DST)), ([10, 0, 0, 1], [10, 0, 1, 2]));
    assert_eq!((key.get(Field::TP_SRC), key.get(Field::TP_DST)), ([0x03, 0xe8], [0, 80]));
    assert_eq!(key.get(Field::TCP_FLAGS), [0, 0x12]);

    let key = facts(&eth6(&ipv6(17, &udp(b""))));
    assert_eq!((key.get(Field::IP_TOS), key.get(Field::IPV6_LABEL)), ([0x01], [0, 2, 0x34, 0x56]));
    assert_eq!(key.get::<16>(Field::IPV6_DST)[15], 2);
    assert_eq!((key.get(Field::TP_SRC), key.get(Field::IPV4_SRC)), ([0x07, 0xd0], [0; 4]));

    let key = facts(&ethernet(&[], 0x0806, &arp()));
    assert_eq!((key.get(Field::ARP_OP), key.get(Field::IP_PROTO)), ([0, 1], [1]));
    assert_eq!((key.get(Field::ARP_SHA), key.get(Field::ARP_THA)), ([2, 0, 0, 0, 0, 2], [0; 6]));
    assert_eq!((key.get(Field::IPV4_SRC), key.get(Field::IPV4_DST)), ([10, 0, 0, 1], [10, 0, 1, 2]));

    let key = facts(&eth4(&ipv4(1, 0, &[], &[3, 4, 0, 0, 0, 0, 0, 0])));
    assert_eq!((key.get(Field::TP_SRC), key.get(Field::TP_DST)), ([0, 3], [0, 4]));
    assert_eq!((key.icmp_type(), key.icmp_code(), key.icmp_id()), (Some(3), Some(4), None));
    let key = facts(&eth4(&ipv4(1, 0, &[], &[8, 1, 0, 0, 0x12, 0x34, 0, 1])));
    assert_eq!((key.get(Field::TP_SRC), key.get(Field::TP_DST)), ([0x12, 8], [0x34, 1]));
    let key = facts(&eth6(&ipv6(58, &[129, 0, 0, 0, 0x12, 0x34, 0, 1])));
    assert_eq!((key.icmp_type(), key.icmp_code(), key.icmp_id()), (Some(129), Some(0), Some(0x1234)));
    // A number of the other version is not an echo, and what stands in a later fragment is payload.
    assert_eq!(facts(&eth6(&ipv6(58, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).tp_src(), 8);
    assert_eq!(facts(&eth4(&ipv4(1, 0x0001, &[], &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).tp_src(), 0);

    let key = facts(&ethernet(&[], 0x8847, &[0, 0, 0x10, 64, 0, 0, 0x21, 64, 9, 9, 9, 9]));
    assert_eq!(key.get(Field::MPLS), [0, 0, 0x10, 64, 0, 0, 0x21, 64, 0, 0, 0, 0], "nothing behind the bottom");

    assert_eq!(facts(&ethernet(&[], 0x0004, &[0xaa, 0xaa, 3, 0])).eth_type(), 0x05ff);
}

#[test]
fn a_later_fragment_has_no_ports_and_a_first_one_has() {
    for (frame, frag, ports) in [
        (eth4(&ipv4(17, 0x2000, &[], &udp(b"12345678"))), FRAG_ANY, [0, 53]),
        (eth4(&ipv4(17, 0x0004, &[], &udp(b"12345678"))), FRAG_ANY | FRAG_LATER, [0, 0]),
        (eth6(&ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0, 7][..], &udp(b"12345678")].concat())), FRAG_ANY, [0, 53]),
        (eth6(&ipv6(44, &[&[17, 0, 0, 8, 0, 0, 0, 7][..], &udp(b"12345678")].concat())), FRAG_ANY | FRAG_LATER, [0, 0]),
    ] {
        let (key, layers) = (facts(&frame), parsed(&frame).unwrap());
        assert_eq!((key.get(Field::IP_FRAG), key.get(Field::TP_DST)), ([frag], ports));
        assert_eq!(key.get(Field::IP_PROTO), [17]);
        assert_eq!((layers.l4 == 0, layers.guard & guard::FRAGMENT), (frag & FRAG_LATER != 0, guard::FRAGMENT));
    }
}

#[test]
fn a_neighbor_message_has_all_its_facts_or_none() {
    let key = |options: &[u8]| facts(&eth6(&ipv6(58, &solicitation(options))));
    let sound = key(&[1, 1, 2, 0, 0, 0, 0, 9, 14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sound.get::<16>(Field::ND_TARGET)[15], 2);
    assert_eq!((sound.get(Field::ARP_SHA), sound.get(Field::ARP_THA)), ([2, 0, 0, 0, 0, 9], [0; 6]));
    assert_eq!(key(&[2, 1, 2, 0, 0, 0, 0, 9]).get(Field::ARP_THA), [2, 0, 0, 0, 0, 9]);
    for malformed in [
        &[1, 0, 2, 0, 0, 0, 0, 9][..],                     // no length: an endless loop once
        &[1, 2, 2, 0, 0, 0, 0, 9],                         // beyond the message
        &[1, 1, 2, 0, 0, 0, 0, 9, 1, 1, 2, 0, 0, 0, 0, 8], // twice
        &[1, 2, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], // no Ethernet address
        &[1, 1, 2, 0, 0, 0, 0, 9, 3],                      // half an option
    ] {
        // CVE-2023-5366: the target was matched without being in the key.
        let key = key(malformed);
        assert_eq!(key.get(Field::ND_TARGET), [0; 16], "{malformed:?}");
        assert_eq!((key.get(Field::ARP_SHA), key.get(Field::ARP_THA)), ([0; 6], [0; 6]), "{malformed:?}");
        assert_eq!(key.get(Field::TP_SRC), [0, 135]);
    }
}

#[test]
fn the_guard_word_says_what_each_packet_is() {
    let flags = |frame: &[u8]| parsed(frame).unwrap().guard & 0xffff;
    assert_eq!(flags(&eth4(&ipv4(6, 0, &[], &tcp(0x10, &[], b"")))), 0);
    assert_eq!(flags(&eth4(&ipv4(6, 0, &[], &tcp(0x02, &[], b"")))), guard::SYN);
    assert_eq!(flags(&eth4(&ipv4(6, 0, &[], &tcp(0x12, &[], b"")))), 0);
    assert_eq!(flags(&eth4(&ipv4(6, 0, &[], &tcp(0x11, &[], b"")))), guard::FIN_RST);
    assert_eq!(flags(&eth6(&ipv6(6, &tcp(0x04, &[], b"")))), guard::FIN_RST);
    assert_eq!(flags(&with(eth4(&ipv4(17, 0, &[], &udp(b""))), 14 + 8, 1)), guard::HOP_LIMIT);
    assert_eq!(flags(&with(eth6(&ipv6(17, &udp(b""))), 14 + 7, 0)), guard::HOP_LIMIT);
    assert_eq!(flags(&eth4(&ipv4(17, 0, &[1; 4], &udp(b"")))), guard::OPTIONS);
    let frame = ethernet(&[(0x8100, 1)], 0x0800, &ipv4(17, 0, &[], &udp(b"hello")));
    assert_eq!(parsed(&frame).unwrap().guard >> guard::SIZE_SHIFT, 33);
    let frame = ethernet(&[(0x8100, 1)], 0x86dd, &ipv6(17, &udp(b"hello")));
    assert_eq!(parsed(&frame).unwrap().guard >> guard::SIZE_SHIFT, 53);
}

#[test]
fn the_guard_word_of_ipv6_is_that_of_ipv4_and_extension_headers_are_passed() {
    let flags = |frame: &[u8]| parsed(frame).unwrap().guard & 0xffff;
    // Octets of TCP flags, and what they mean.
    let rows = [
        (0x10, 0),
        (0x02, guard::SYN),
        (0xc2, guard::SYN),
        (0x12, 0),
        (0x11, guard::FIN_RST),
        (0x14, guard::FIN_RST),
        (0x03, guard::SYN | guard::FIN_RST),
    ];
    let destination = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |next: u8, word: u16| [next, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 7];
    for (bits, meaning) in rows {
        let segment = tcp(bits, &[], b"1234");
        assert_eq!(flags(&eth4(&ipv4(6, 0, &[], &segment))), meaning, "{bits:#x}");
        for tags in [&[][..], &[(0x8100, 7)]] {
            let flags =
                |next: u8, before: &[u8]| flags(&ethernet(tags, 0x86dd, &ipv6(next, &[before, &segment[..]].concat())));
            assert_eq!(flags(6, &[]), meaning, "{bits:#x}");
            assert_eq!(flags(60, &destination(6)), meaning | guard::OPTIONS, "{bits:#x}");
            assert_eq!(flags(44, &fragment(6, 1)), meaning | guard::OPTIONS | guard::FRAGMENT, "{bits:#x}");
            // Whole in one fragment (RFC 6946): none, but the header is there.
            assert_eq!(flags(44, &fragment(6, 0)), meaning | guard::OPTIONS, "{bits:#x}");
            // What stands in a later fragment is payload.
            assert_eq!(flags(44, &fragment(6, 8)), guard::OPTIONS | guard::FRAGMENT, "{bits:#x}");
            let both = [fragment(60, 1), destination(6)].concat();
            assert_eq!(flags(44, &both), meaning | guard::OPTIONS | guard::FRAGMENT, "{bits:#x}");
        }
    }
    for (hops, expected) in [(0, guard::HOP_LIMIT), (1, guard::HOP_LIMIT), (2, 0), (255, 0)] {
        assert_eq!(flags(&with(eth6(&ipv6(6, &tcp(0x10, &[], b""))), 14 + 7, hops)), expected);
        let chained = with(eth6(&ipv6(60, &[&destination(17)[..], &udp(b"")].concat())), 14 + 7, hops);
        assert_eq!(flags(&chained), expected | guard::OPTIONS);
    }
    // The size counts extension headers, and the padding that leaves with the packet.
    let mut frame = eth6(&ipv6(60, &[&destination(17)[..], &udp(b"hello")].concat()));
    assert_eq!(parsed(&frame).unwrap().guard >> guard::SIZE_SHIFT, 40 + 8 + 13);
    frame.resize(frame.len() + 10, 0);
    assert_eq!(parsed(&frame).unwrap().guard >> guard::SIZE_SHIFT, 40 + 8 + 13 + 10);
}

/// A TCP super-frame over IPv4, and a request that fits it.
fn super_frame(payload: usize) -> (Vec<u8>, Offload) {
    let frame = eth4(&ipv4(6, 0x4000, &[], &tcp(0x18, &[], &vec![7; payload])));
    let (flags, gso_type) = (Offload::NEEDS_CSUM, Offload::GSO_TCPV4);
    (frame, Offload { flags, gso_type, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16 })
}

#[test]
fn a_request_is_held_against_the_frame() {
    let (frame, sound) = super_frame(60_000);
    let check = |offload| layers(&frame, frame.len(), Some(offload));
    let layers_of = check(sound).unwrap();
    assert_eq!((layers_of.guard >> guard::SIZE_SHIFT, layers_of.l4), (40 + 1448, 34));
    assert!(layers(&frame[..200], frame.len(), Some(sound)).is_ok(), "the payload may be in the spill");
    assert!(check(Offload { hdr_len: 0, gso_type: Offload::GSO_TCPV4 | Offload::GSO_ECN, ..sound }).is_ok());
    assert!(check(Offload { gso_type: 0, gso_size: 0, ..sound }).is_ok(), "a large frame that only lacks its checksum");
    assert!(check(Offload { flags: Offload::DATA_VALID, ..Offload::NONE }).is_ok());
    let rows = [
        ("segments too small", Offload { gso_size: 255, ..sound }),
        ("segments of nothing", Offload { gso_size: 0, ..sound }),
        ("another protocol", Offload { gso_type: Offload::GSO_UDP_L4, csum_offset: 6, ..sound }),
        ("another version", Offload { gso_type: Offload::GSO_TCPV6, ..sound }),
        ("an unknown type", Offload { gso_type: 3, ..sound }),
        ("no checksum to finish", Offload { flags: 0, ..sound }),
        ("region elsewhere", Offload { csum_start: 33, ..sound }),
        ("field elsewhere", Offload { csum_offset: 6, ..sound }),
        ("headers too short", Offload { hdr_len: 53, ..sound }),
        ("headers beyond the frame", Offload { hdr_len: u16::MAX, ..sound }),
        ("region beyond the frame", Offload { gso_type: 0, csum_start: u16::MAX, ..sound }),
        ("field beyond the frame", Offload { gso_type: 0, csum_offset: u16::MAX, ..sound }),
        ("region in front of the transport header", Offload { gso_type: 0, csum_start: 14, ..sound }),
    ];
    for (what, offload) in rows {
        assert_eq!(check(offload), Err(Reason::OffloadMalformed), "{what}");
    }
    let beyond = layers(&frame[..60], frame.len(), Some(Offload { gso_type: 0, csum_offset: 25, ..sound }));
    assert_eq!(beyond, Err(Reason::OffloadMalformed), "the field is in the spill");
    let mut padded = frame.clone();
    padded.push(0);
    assert_eq!(layers(&padded, padded.len(), Some(sound)), Err(Reason::OffloadMalformed), "padding behind it");
    let arp = ethernet(&[], 0x0806, &arp());
    let request = Offload { flags: 1, csum_start: 20, csum_offset: 2, ..Offload::NONE };
    assert_eq!(layers(&arp, arp.len(), Some(request)), Err(Reason::OffloadMalformed));
}

/// Parse `frames` as one burst with `kernel`; the burst is checked by `check` lane by lane.
fn burst_of(kernel: Kernel, frames: &[Vec<u8>], mask: &KeyMask, check: &mut dyn FnMut(usize, &Burst)) {
    let pool = Pool::heap(LANES, 0);
    let (mut stash, mut burst) = (pool.stash(), Burst::new());
    for chunk in frames.chunks(LANES) {
        burst.reset(PortId(7));
        for octets in chunk {
            let mut frame = stash.take().unwrap();
            // What an earlier frame left behind must not matter.
            frame.slot_mut().fill(0x45);
            assert!(frame.fill(octets));
            burst.push(frame).unwrap();
        }
        parse_with(kernel, &mut burst, mask, &KeyHasher::seeded(3));
        (0..chunk.len()).for_each(|lane| check(lane, &burst));
        burst.frames.iter_mut().filter_map(Option::take).for_each(|frame| stash.give(frame));
    }
}

/// Both kernels say of each frame what the full parser says.
fn kernels_agree(frames: &[Vec<u8>], mask: &KeyMask) {
    for kernel in [Kernel::Scalar, Kernel::best()] {
        let mut next = 0;
        burst_of(kernel, frames, mask, &mut |lane, burst| {
            let frame = &frames[next];
            next += 1;
            let (expected, verdict) = match parsed(frame) {
                Ok(layers) => ((layers, key(PortId(7), frame, &layers).masked(mask)), Verdict::Pending),
                Err(reason) => ((Layers::default(), FlowKey::EMPTY), Verdict::Drop(reason)),
            };
            assert_eq!(burst.verdicts[lane], verdict, "{kernel:?} {frame:02x?}");
            assert_eq!(
                (burst.layers[lane], burst.vlans[lane]),
                (expected.0, VlanEdit::Keep),
                "{kernel:?} {frame:02x?}"
            );
            assert_eq!(burst.keys[lane], expected.1.words[..4], "{kernel:?} {frame:02x?}");
            assert_eq!(burst.class, mask.class());
            let words = mask.class().words();
            let narrow = words == 8 && expected.1.words[4..8] == [0; 4];
            assert_eq!(burst.narrow[lane / 64] >> (lane % 64) & 1 == 1, narrow, "{kernel:?} {frame:02x?}");
            if narrow {
                let short = KeyMask { words: std::array::from_fn(|i| if i < 4 { !0 } else { 0 }) };
                assert_eq!(burst.hashes[lane], KeyHasher::seeded(3).hash(&expected.1, &short), "{kernel:?}");
            } else if words > 4 {
                let key = if words == 8 { &burst.long[lane][..] } else { &burst.wide[lane].words[..] };
                assert_eq!(key, &expected.1.words[..words], "{kernel:?} {frame:02x?}");
            }
            assert_eq!(burst.hashes[lane], KeyHasher::seeded(3).hash(&expected.1, mask), "{kernel:?}");
        });
        assert_eq!(next, frames.len());
    }
}

/// A mask of each width that is hashed.
fn masks() -> [KeyMask; 4] {
    let bridge = FlowKey::mask(&[Field::IN_PORT, Field::VLAN, Field::ETH_DST, Field::ETH_SRC]);
    let tuple = bridge.union(&FlowKey::mask(&[Field::ETH_TYPE, Field::IP_PROTO, Field::IP_FRAG, Field::IPV4_SRC]));
    let ports = tuple.union(&FlowKey::mask(&[Field::IPV4_DST, Field::TP_SRC, Field::TP_DST]));
    let six = ports.union(&FlowKey::mask(&[Field::IPV6_SRC, Field::IPV6_DST]));
    [bridge, ports, six, FlowKey { words: [!0; WORDS] }]
}

#[test]
fn both_kernels_and_the_full_parser_agree_on_every_kind_of_frame_and_mask() {
    for mask in masks() {
        kernels_agree(&all(), &mask);
    }
}

#[test]
fn the_common_frames_of_both_versions_are_of_a_shape_and_the_others_are_not() {
    let six = &masks()[2];
    for frame in all() {
        let mut window = [0x45; crate::raw::WINDOW];
        let seen = frame.len().min(window.len());
        window[..seen].copy_from_slice(&frame[..seen]);
        let (mut key, mut long) = ([0; 4], [0; 8]);
        let plan = Plan::new(PortId(7), six);
        let found = template::four(&window, frame.len(), &plan, &mut key)
            .or_else(|| template::six::<8>(&window, frame.len(), &plan, &mut key, &mut long));
        let facts = facts(&frame);
        let common = matches!(facts.ip_proto(), 6 | 17) && matches!(facts.eth_type(), 0x0800 | 0x86dd);
        let plain = parsed(&frame).unwrap().guard & (guard::OPTIONS | guard::FRAGMENT) == 0;
        let tags = facts.get(Field::VLAN_SERVICE) == [0];
        assert_eq!(found.is_some(), common && plain && tags, "{frame:02x?}");
    }
}

#[test]
fn both_kernels_agree_on_each_octet_of_the_template_changed() {
    let tcp4 = ipv4(6, 0x4000, &[], &tcp(0x10, &[], b"hello"));
    let tcp6 = ipv6(6, &tcp(0x10, &[], b"hello"));
    for frame in [
        eth4(&tcp4),
        ethernet(&[(0x8100, 0xffff)], 0x0800, &tcp4),
        eth4(&ipv4(17, 0, &[], &udp(b"hello"))),
        eth6(&tcp6),
        ethernet(&[(0x8100, 0xffff)], 0x86dd, &tcp6),
        eth6(&ipv6(17, &udp(b"hello"))),
        ethernet(&[(0x8100, 0xffff)], 0x86dd, &ipv6(17, &udp(b"hello"))),
    ] {
        let mut frames = Vec::new();
        for at in 0..frame.len() {
            for bit in 0..8 {
                frames.push(with(frame.clone(), at, frame[at] ^ 1 << bit));
            }
            frames.push(frame[..at].to_vec());
        }
        masks()[1..3].iter().for_each(|mask| kernels_agree(&frames, mask));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_kernels_agree_on_mutated_frames(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..600),
    ) {
        let mut frames = all();
        for (frame, at, value) in changes {
            let index = frame.index(frames.len());
            let frame = &mut frames[index];
            let at = at.index(frame.len());
            frame[at] = value;
        }
        for mask in masks() {
            kernels_agree(&frames, &mask);
        }
    }
}
