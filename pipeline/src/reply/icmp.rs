//! ICMP errors (RFC 792, RFC 1191) and ICMPv6 errors (RFC 4443): why a packet was not let through.
//!
//! Behind the eight octets of the header stands the packet as it came in, as far as it fits: its sender finds there what
//! it sent.

use std::net::IpAddr;

use crate::burst::Layers;
use crate::parse::proto;
use crate::resolve::stage::IcmpError;

use super::packet::{Packet, ip};

/// Octets of the packet that are quoted: all of an error is at most 576 octets (RFC 1812, 4.3.2.3).
const QUOTED4: usize = 576 - 20 - 8;
/// The same for IPv6, whose links all take 1280 octets (RFC 4443, 2.4c).
const QUOTED6: usize = 1280 - 40 - 8;
/// Where the checksum is.
const CHECKSUM: usize = 2;

/// The error about a frame, from `from`; `None` if nobody must be told.
pub(super) fn error(head: &[u8], layers: &Layers, error: IcmpError, from: IpAddr) -> Option<Vec<u8>> {
    let packet = Packet::read(head, layers)?;
    if !packet.may_be_answered() {
        return None;
    }
    let (proto, [kind, code], quoted) = match from {
        IpAddr::V4(_) => (proto::ICMP, codes4(error), QUOTED4),
        IpAddr::V6(_) => (proto::ICMPV6, codes6(error), QUOTED6),
    };
    // The high half is reserved in IPv4, and no MTU of ours needs it in IPv6.
    let mtu = if let IcmpError::TooBig(mtu) = error { u32::from(mtu) } else { 0 };
    let octets = packet.octets();
    let quote = octets.get(..quoted).unwrap_or(octets);
    let message = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
    ip(packet.link()?, from, packet.src, proto, message, CHECKSUM)
}

/// Type and code (RFC 792; RFC 1812, 5.2.7.1).
fn codes4(error: IcmpError) -> [u8; 2] {
    match error {
        IcmpError::TimeExceeded => [11, 0],
        IcmpError::NetUnreachable => [3, 0],
        IcmpError::HostUnreachable => [3, 1],
        IcmpError::PortUnreachable => [3, 3],
        IcmpError::TooBig(_) => [3, 4],
    }
}

/// Type and code (RFC 4443, 3).
fn codes6(error: IcmpError) -> [u8; 2] {
    match error {
        IcmpError::TimeExceeded => [3, 0],
        IcmpError::NetUnreachable => [1, 0],
        IcmpError::HostUnreachable => [1, 3],
        IcmpError::PortUnreachable => [1, 4],
        IcmpError::TooBig(_) => [2, 0],
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::reply::samples::*;

    const ERRORS: [(IcmpError, [u8; 2], [u8; 2]); 5] = [
        (IcmpError::TimeExceeded, [11, 0], [3, 0]),
        (IcmpError::NetUnreachable, [3, 0], [1, 0]),
        (IcmpError::HostUnreachable, [3, 1], [1, 3]),
        (IcmpError::PortUnreachable, [3, 3], [1, 4]),
        (IcmpError::TooBig(1400), [3, 4], [2, 0]),
    ];

    /// Source, destination and ICMP message of a frame, whose checksums are sound.
    fn parsed(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        match (packet.net, packet.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let header = ip.header();
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                assert_eq!(crate::checksum::Sum::EMPTY.plus(icmp.slice()).folded(), 0xffff);
                (header.source_addr().into(), header.destination_addr().into(), icmp.slice().to_vec())
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let header = ip.header();
                assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                (header.source_addr().into(), header.destination_addr().into(), icmp.slice().to_vec())
            }
            other => panic!("no ICMP: {other:?}"),
        }
    }

    #[test]
    fn a_sender_is_told_what_became_of_its_packet() {
        let four = ipv4(17, 0, &udp(b"hello"));
        let six = ipv6(17, &udp(b"hello"));
        for (reason, four_codes, six_codes) in ERRORS {
            let mtu = if reason == IcmpError::TooBig(1400) { [0, 0, 5, 0x78] } else { [0; 4] };
            for (ethertype, packet, from, to, codes) in [
                (0x0800, &four, IpAddr::V4(GATEWAY4), IpAddr::V4(ASKER4), four_codes),
                (0x86dd, &six, GATEWAY6.into(), ASKER6.into(), six_codes),
            ] {
                let mut frame = ethernet(&[10], ethertype, packet);
                frame.extend([0; 30]); // Padding is not part of the packet.
                let answer = error(&frame, &found(&frame), reason, from).unwrap();
                assert_eq!(answer[..12], [ASKER.0, ROUTER_MAC.0].concat());
                assert_eq!(answer[12..18], frame[12..18]);
                let (src, dst, message) = parsed(&answer);
                assert_eq!((src, dst, &message[..2]), (from, to, &codes[..]), "{reason:?}");
                assert_eq!((&message[4..8], &message[8..]), (&mtu[..], &packet[..]), "{reason:?}");
            }
        }
    }

    #[test]
    fn a_long_packet_is_quoted_as_far_as_it_fits() {
        for (ethertype, packet, from, total) in [
            (0x0800, ipv4(17, 0, &udp(&[7; 1400])), IpAddr::V4(GATEWAY4), 576),
            (0x86dd, ipv6(17, &udp(&[7; 1400])), GATEWAY6.into(), 1280),
        ] {
            let frame = ethernet(&[], ethertype, &packet);
            let answer = error(&frame, &found(&frame), IcmpError::TooBig(1280), from).unwrap();
            assert_eq!(answer.len(), 14 + total);
            let (_, _, message) = parsed(&answer);
            assert_eq!(message[8..], packet[..message.len() - 8]);
        }
    }

    #[test]
    fn nobody_is_told_about_what_must_not_be_answered() {
        let set = |mut packet: Vec<u8>, at: usize, octets: &[u8]| {
            packet[at..at + octets.len()].copy_from_slice(octets);
            packet
        };
        let src4 = |src: Ipv4Addr| set(ipv4(17, 0, &udp(b"x")), 12, &src.octets());
        let dst4 = |dst: Ipv4Addr| set(ipv4(17, 0, &udp(b"x")), 16, &dst.octets());
        let src6 = |src: &str| set(ipv6(17, &udp(b"x")), 8, &src.parse::<Ipv6Addr>().unwrap().octets());
        let dst6 = |dst: &str| set(ipv6(17, &udp(b"x")), 24, &dst.parse::<Ipv6Addr>().unwrap().octets());
        let message = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
        let four = [
            ("from nobody", src4(Ipv4Addr::UNSPECIFIED)),
            ("from this network", src4(Ipv4Addr::new(0, 1, 2, 3))),
            ("from loopback", src4(Ipv4Addr::LOCALHOST)),
            ("from a group", src4(Ipv4Addr::new(224, 0, 0, 1))),
            ("from everybody", src4(Ipv4Addr::BROADCAST)),
            ("to a group", dst4(Ipv4Addr::new(239, 0, 0, 1))),
            ("to everybody", dst4(Ipv4Addr::BROADCAST)),
            ("a later fragment", ipv4(17, 1, b"the rest")),
            ("unreachable", ipv4(1, 0, &message(3))),
            ("redirect", ipv4(1, 0, &message(5))),
            ("time exceeded", ipv4(1, 0, &message(11))),
            ("parameter problem", ipv4(1, 0, &message(12))),
        ];
        let six = [
            ("from nobody", src6("::")),
            ("from loopback", src6("::1")),
            ("from a group", src6("ff02::1")),
            ("to a group", dst6("ff02::1")),
            ("a later fragment", ipv6(44, &[17, 0, 0, 8, 0, 0, 0, 1, 7, 7, 7])),
            ("an error", ipv6(58, &message(1))),
            ("an unknown error", ipv6(58, &message(127))),
            ("redirect", ipv6(58, &message(137))),
            ("an error behind options", ipv6(60, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &message(3)].concat())),
        ];
        let four = four.map(|(why, packet)| (why, ethernet(&[], 0x0800, &packet), IpAddr::V4(GATEWAY4)));
        let six = six.map(|(why, packet)| (why, ethernet(&[], 0x86dd, &packet), IpAddr::V6(GATEWAY6)));
        for (why, frame, from) in four.into_iter().chain(six) {
            assert_eq!(error(&frame, &found(&frame), IcmpError::TimeExceeded, from), None, "{why}: {from}");
        }
        // Echoes are no errors, and a first fragment has a sender; a frame to everybody has not.
        for (ethertype, packet, from) in [
            (0x0800, ipv4(1, 0, &message(8)), IpAddr::V4(GATEWAY4)),
            (0x0800, ipv4(17, 0x2000, &udp(&[7; 8])), IpAddr::V4(GATEWAY4)),
            (0x86dd, ipv6(58, &message(128)), GATEWAY6.into()),
        ] {
            let mut frame = ethernet(&[], ethertype, &packet);
            assert!(error(&frame, &found(&frame), IcmpError::TimeExceeded, from).is_some());
            frame[..6].copy_from_slice(&[0xff; 6]);
            assert_eq!(error(&frame, &found(&frame), IcmpError::TimeExceeded, from), None);
        }
    }

    #[test]
    fn an_address_of_the_other_family_says_nothing() {
        let frame = ethernet(&[], 0x0800, &ipv4(17, 0, &udp(b"x")));
        assert_eq!(error(&frame, &found(&frame), IcmpError::TimeExceeded, GATEWAY6.into()), None);
    }
}
