//! What answers share: the packet that is answered, and the headers of an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{MacAddr, PortId};

use crate::burst::{Kind, Layers, guard};
use crate::checksum::{Sum, checksum};
use crate::parse::{self, array, be16, octet, proto};

/// Hop limit of what the switch sends (RFC 1122, 3.2.1.7 leaves the number open).
const HOP_LIMIT: u8 = 64;
/// Internetwork control (RFC 1812, 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
/// Don't fragment, which also makes the identification meaningless (RFC 6864, 4.1).
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// An IP packet that came in, as far as an answer needs it.
pub(super) struct Packet<'a> {
    /// The first segment of the frame.
    head: &'a [u8],
    /// Where the IP header starts.
    pub(super) l3: usize,
    /// Where the transport header starts.
    pub(super) l4: usize,
    /// Where the packet ends by its own account: beyond `head` in a super-frame.
    pub(super) end: usize,
    /// Transport protocol.
    pub(super) proto: u8,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
}

impl<'a> Packet<'a> {
    /// The packet of a frame; `None` if it has none, or one without a transport header (a later fragment).
    pub(super) fn read(head: &'a [u8], layers: &Layers) -> Option<Self> {
        let l3 = usize::from(layers.l3);
        let length = |at: usize| be16(head, at).map(usize::from);
        let (src, dst, end): (IpAddr, IpAddr, usize) = match layers.kind {
            Kind::Ipv4 => {
                let address = |at| array(head, at).map(Ipv4Addr::from);
                (address(l3 + 12)?.into(), address(l3 + 16)?.into(), l3 + length(l3 + 2)?)
            }
            Kind::Ipv6 => {
                let address = |at| array(head, at).map(Ipv6Addr::from);
                (address(l3 + 8)?.into(), address(l3 + 24)?.into(), l3 + 40 + length(l3 + 4)?)
            }
            Kind::Arp | Kind::Other => return None,
        };
        let l4 = usize::from(layers.l4);
        let proto = parse::key(PortId::NONE, head, layers).ip_proto();
        // Only a later fragment has no transport header.
        (l4 != 0).then_some(Self { head, l3, l4, end, proto, src, dst })
    }

    /// The octets from the IP header on, without padding, as far as they are in the first segment.
    pub(super) fn octets(&self) -> &'a [u8] {
        self.head.get(self.l3..self.end.min(self.head.len())).unwrap_or(&[])
    }

    /// Its sender may be told of it: one sender, known by its address, and nobody else was meant (RFC 1122, 3.2.2; RFC
    /// 4443, 2.4e).
    pub(super) fn may_be_answered(&self) -> bool {
        let group = octet(self.head, 0).is_none_or(|first| first & 1 != 0);
        let sender = match self.src {
            IpAddr::V4(src) => {
                let [first, ..] = src.octets();
                first != 0 && !src.is_loopback() && first < 224
            }
            IpAddr::V6(src) => !src.is_unspecified() && !src.is_multicast() && !src.is_loopback(),
        };
        let receiver = match self.dst {
            IpAddr::V4(dst) => !dst.is_multicast() && !dst.is_broadcast(),
            IpAddr::V6(dst) => !dst.is_multicast(),
        };
        !group && sender && receiver && !self.is_icmp_error()
    }

    fn is_icmp_error(&self) -> bool {
        match (self.src, self.proto, octet(self.head, self.l4)) {
            // Unreachable, quench, redirect, time exceeded, parameter problem.
            (IpAddr::V4(_), proto::ICMP, kind) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
            // RFC 4443, 2.1: errors are below 128. 2.4e.2: redirects count, too.
            (IpAddr::V6(_), proto::ICMPV6, kind) => kind.is_none_or(|kind| kind < 128 || kind == 137),
            _ => false,
        }
    }

    /// The link layer of an answer: addresses turned round, tags and type as they came in.
    pub(super) fn link(&self) -> Option<Vec<u8>> {
        let (dst, src) = (array(self.head, 6)?, array(self.head, 0)?);
        turned(self.head, self.l3, MacAddr(dst), MacAddr(src))
    }
}

/// The link layer of `head` between other addresses.
pub(super) fn turned(head: &[u8], l3: usize, dst: MacAddr, src: MacAddr) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(1400);
    octets.extend(dst.0);
    octets.extend(src.0);
    octets.extend_from_slice(head.get(12..l3)?);
    Some(octets)
}

/// A link layer without tags.
pub(super) fn untagged(dst: MacAddr, src: MacAddr, ethertype: u16) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes()].concat()
}

/// Put an IP packet behind `link`, with its checksums. `payload` is a transport header and what follows it, in which the
/// checksum at `checksum_at` is zero. `None` if the addresses are of two families.
pub(super) fn ip(
    mut link: Vec<u8>,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Option<Vec<u8>> {
    let len = u16::try_from(payload.len()).ok()?;
    let pseudo = match (src, dst) {
        // ICMP of IPv4 has no pseudo header (RFC 792).
        (IpAddr::V4(_), IpAddr::V4(_)) if proto == proto::ICMP => Sum::EMPTY,
        (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::pseudo4(src.octets(), dst.octets(), proto, len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::pseudo6(src.octets(), dst.octets(), proto, u32::from(len)),
        _ => return None,
    };
    let sum = pseudo.plus(&payload).checksum();
    payload.get_mut(checksum_at..checksum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [total_high, total_low] = len.checked_add(20)?.to_be_bytes();
            let [flags, offset] = DONT_FRAGMENT;
            let start = [0x45, PRECEDENCE, total_high, total_low, 0, 0, flags, offset, HOP_LIMIT, proto];
            let rest = [&start[..], &[0, 0], &src.octets(), &dst.octets()].concat();
            let [high, low] = checksum(&rest).to_be_bytes();
            link.extend(start);
            link.extend([high, low]);
            link.extend(src.octets());
            link.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [high, low] = len.to_be_bytes();
            // RFC 4861, 7.1: neighbour discovery does not pass a router.
            let hops = if is_discovery(proto, &payload) { 255 } else { HOP_LIMIT };
            link.extend([0x60, 0, 0, 0, high, low, proto, hops]);
            link.extend(src.octets());
            link.extend(dst.octets());
        }
        _ => return None,
    }
    link.extend(payload);
    Some(link)
}

fn is_discovery(proto: u8, payload: &[u8]) -> bool {
    proto == proto::ICMPV6 && matches!(payload, [133..=137, ..])
}

/// The frame is a fragment.
pub(super) fn is_fragment(layers: &Layers) -> bool {
    layers.guard & guard::FRAGMENT != 0
}

/// Frames to answer, for the tests of this folder.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::parse::layers;

    pub(crate) const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xee]);
    pub(crate) const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    pub(crate) const POD: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
    pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);
    pub(crate) const ASKER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    pub(crate) const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    pub(crate) const THERE4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    pub(crate) const THERE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 3);

    /// From the asker to the router.
    pub(crate) fn ethernet(tags: &[u16], ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = [ROUTER_MAC.0, ASKER.0].concat();
        for tag in tags {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// From the asker to there.
    pub(crate) fn ipv4(proto: u8, frag: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend(((20 + payload.len()) as u16).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(frag.to_be_bytes());
        packet.extend([1, proto, 0, 0]);
        packet.extend(ASKER4.octets());
        packet.extend(THERE4.octets());
        packet.extend(payload);
        packet
    }

    pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 1]);
        packet.extend(ASKER6.octets());
        packet.extend(THERE6.octets());
        packet.extend(payload);
        packet
    }

    /// From port 1000 to port 80: sequence number 0x01020304, acknowledgement 0x0a0b0c0d.
    pub(crate) fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![3, 0xe8, 0, 80, 1, 2, 3, 4, 0xa, 0xb, 0xc, 0xd, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        segment.extend(payload);
        segment
    }

    pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
        let mut datagram = vec![3, 0xe8, 0, 53];
        datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    pub(crate) fn arp(opcode: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, opcode];
        arp.extend(ASKER.0);
        arp.extend(sender.octets());
        arp.extend([0; 6]);
        arp.extend(target.octets());
        arp
    }

    /// A neighbour solicitation or advertisement.
    pub(crate) fn nd(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        message.extend(options);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((message.len() as u16).to_be_bytes());
        packet.extend([58, 255]);
        packet.extend(src.octets());
        packet.extend(dst.octets());
        packet.extend(message);
        packet
    }

    /// The link-layer address of the asker as an option: 1 is source, 2 is target.
    pub(crate) fn option(kind: u8) -> Vec<u8> {
        [&[kind, 1][..], &ASKER.0].concat()
    }

    pub(crate) fn found(frame: &[u8]) -> Layers {
        layers(frame, frame.len(), None).unwrap()
    }

    pub(crate) fn all() -> Vec<Vec<u8>> {
        let node = nd(ASKER6, GATEWAY6, 135, 0, GATEWAY6, &option(1));
        vec![
            ethernet(&[], 0x0806, &arp(1, ASKER4, GATEWAY4)),
            ethernet(&[10], 0x86dd, &node),
            ethernet(&[], 0x0800, &ipv4(6, 0x4000, &tcp(2, b""))),
            ethernet(&[10], 0x0800, &ipv4(17, 0, &udp(b"hello"))),
            ethernet(&[], 0x86dd, &ipv6(6, &tcp(0x11, b"hello"))),
            ethernet(&[], 0x86dd, &ipv6(17, &udp(&[7; 1400]))),
            ethernet(&[], 0x86dd, &ipv6(60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(b"x")].concat())),
            ethernet(&[], 0x88b5, b"payload"),
        ]
    }
}
