//! The full parser of one frame: where its headers are, or what is wrong with it.
//!
//! Every length and count that a later step relies on is checked here, once, and nowhere else. What the parser accepts
//! is deliberately plain, so that nobody behind us can read the same frame differently:
//!
//! - Headers lie in the first segment, as a whole.
//! - Octets behind the end that the IP header states are padding, however many they are. A switch that took long padding
//!   for a malformation once cached far too wide a decision for it (CVE-2020-35498).
//! - An 802.3 frame with a length is not looked into: no SNAP, hence no IP packet that some hosts see and we do not
//!   filter by address; it is matched by its type 0x05ff.
//! - IPv6 jumbograms (RFC 2675) are refused.
//! - The first fragment holds the whole transport header (RFC 7112, RFC 1858).
//!
//! Checksums are not verified: that is the receiver's, and a bridge that changed what arrives broken would hide it.

use crate::burst::{Kind, Layers, guard};
use crate::drop::DropReason;
use crate::key::{FRAG_ANY, FRAG_LATER};
use crate::offload::Offload;

use super::extension::{self, Transport};
use super::read::{be16, octet};
use super::request;

/// Octets of the longest frame: an IPv6 packet with the longest payload, behind two tags.
pub const MAX_FRAME: usize = 14 + 2 * 4 + 40 + 65_535;

/// Ethernet types that are looked into.
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const MPLS: u16 = 0x8847;
    pub(crate) const MPLS_MULTICAST: u16 = 0x8848;
    pub(crate) const VLAN_SERVICE: u16 = 0x88a8;
    /// Smallest number that is a type and not an 802.3 length.
    pub(crate) const FIRST: u16 = 0x0600;
    /// What stands in the key for every 802.3 length.
    pub(crate) const LENGTH: u16 = 0x05ff;
}

/// IP protocols that are looked into.
pub(crate) mod proto {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
}

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where the network header starts: behind the tags.
    pub(crate) l3: usize,
    /// Ethernet type behind the tags, [`ethertype::LENGTH`] for 802.3.
    pub(crate) ethertype: u16,
    /// Tag protocol of the outer tag; 0 without one.
    pub(crate) tpid: u16,
    /// Tag control information of the outer tag.
    pub(crate) outer: u16,
    /// Tag control information of the inner tag, if there are two.
    pub(crate) inner: Option<u16>,
}

/// A network packet within its frame; offsets count from the start of the frame.
struct Packet {
    kind: Kind,
    /// Where the packet ends by its own account.
    end: usize,
    transport: Transport,
    flags: u32,
}

/// A transport header.
#[derive(Clone, Copy, Default)]
struct Header {
    octets: usize,
    flags: u32,
}

/// Parse the headers of one frame: `head` is its first segment, `len` counts all its octets, spill included, `offload`
/// is what its sender left to be done.
///
/// # Errors
/// The frame is malformed, and this is how.
pub fn layers(head: &[u8], len: usize, offload: Option<Offload>) -> Result<Layers, DropReason> {
    if len > MAX_FRAME {
        return Err(DropReason::FrameOversized);
    }
    let link = link(head)?;
    let packet = match link.ethertype {
        ethertype::IPV4 => ipv4(head, len, link.l3)?,
        ethertype::IPV6 => ipv6(head, len, link.l3)?,
        ethertype::ARP => arp(head, link.l3)?,
        _ => other(len),
    };
    let header = transport(head, &packet)?;
    let mut largest = len.saturating_sub(link.l3);
    if let Some(offload) = offload.filter(|offload| !offload.is_none()) {
        let facts = request::Facts {
            head: head.len(),
            len,
            l3: link.l3,
            kind: packet.kind,
            end: packet.end,
            transport: packet.transport,
            header: header.octets,
        };
        if let Some(segment) = request::check(offload, &facts)? {
            largest = largest.min(segment);
        }
    }
    let size = u16::try_from(largest).unwrap_or(u16::MAX);
    let later = packet.transport.frag & FRAG_LATER != 0;
    Ok(Layers {
        // 14, 18 or 22.
        l3: link.l3 as u8,
        kind: packet.kind,
        // Within the first segment, which is at most a slot.
        l4: if later { 0 } else { u16::try_from(packet.transport.at).unwrap_or(0) },
        guard: packet.flags | header.flags | u32::from(size) << guard::SIZE_SHIFT,
    })
}

/// Ethernet and up to two tags. Also used to read them again for the key.
pub(crate) fn link(head: &[u8]) -> Result<Link, DropReason> {
    let (Some(source), Some(first)) = (octet(head, 6), be16(head, 12)) else {
        return Err(DropReason::EthTruncated);
    };
    if source & 1 != 0 {
        return Err(DropReason::EthSourceGroup);
    }
    let mut link = Link { l3: 14, ethertype: first, tpid: 0, outer: 0, inner: None };
    if is_tag(first) {
        (link.tpid, link.outer, link.ethertype) = (first, tag(head, 14)?, tag(head, 16)?);
        link.l3 = 18;
        if is_tag(link.ethertype) {
            (link.inner, link.ethertype) = (Some(tag(head, 18)?), tag(head, 20)?);
            link.l3 = 22;
            if is_tag(link.ethertype) {
                return Err(DropReason::VlanTooDeep);
            }
        }
    }
    if link.ethertype < ethertype::FIRST {
        link.ethertype = ethertype::LENGTH;
    }
    Ok(link)
}

#[inline]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::VLAN_SERVICE)
}

fn tag(head: &[u8], at: usize) -> Result<u16, DropReason> {
    be16(head, at).ok_or(DropReason::VlanTruncated)
}

fn other(len: usize) -> Packet {
    Packet { kind: Kind::Other, end: len, transport: Transport::default(), flags: 0 }
}

/// ARP for IPv4 over Ethernet (RFC 826), which is 28 octets.
fn arp(head: &[u8], l3: usize) -> Result<Packet, DropReason> {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    match head.get(l3..l3 + 28) {
        Some(arp) if arp.starts_with(&ETHERNET_IPV4) => {
            Ok(Packet { kind: Kind::Arp, end: l3 + 28, transport: Transport::default(), flags: 0 })
        }
        _ => Err(DropReason::ArpMalformed),
    }
}

/// IPv4 (RFC 791).
fn ipv4(head: &[u8], len: usize, l3: usize) -> Result<Packet, DropReason> {
    let Some(fixed) = head.get(l3..).and_then(|ip| ip.first_chunk::<20>()) else {
        return Err(DropReason::Ipv4Truncated);
    };
    let [version, _, total_high, total_low, _, _, frag_high, frag_low, ttl, proto, ..] = *fixed;
    if version >> 4 != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header = usize::from(version & 0xf) * 4;
    if header < 20 || l3 + header > head.len() {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let total = usize::from(u16::from_be_bytes([total_high, total_low]));
    if total < header || l3 + total > len {
        return Err(DropReason::Ipv4TotalLength);
    }
    let word = u16::from_be_bytes([frag_high, frag_low]);
    let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
    let frag = fragment(offset, more, total - header, header + offset).ok_or(DropReason::Ipv4Fragment)?;
    let mut flags = hop_limit(ttl) | fragment_flag(frag);
    if header > 20 {
        flags |= guard::OPTIONS;
    }
    let transport = Transport { at: l3 + header, proto, frag };
    Ok(Packet { kind: Kind::Ipv4, end: l3 + total, transport, flags })
}

/// IPv6 (RFC 8200).
fn ipv6(head: &[u8], len: usize, l3: usize) -> Result<Packet, DropReason> {
    let Some(fixed) = head.get(l3..).and_then(|ip| ip.first_chunk::<40>()) else {
        return Err(DropReason::Ipv6Truncated);
    };
    let [version, _, _, _, payload_high, payload_low, next, hops, ..] = *fixed;
    if version >> 4 != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let start = l3 + 40;
    let end = start + usize::from(u16::from_be_bytes([payload_high, payload_low]));
    if end > len {
        return Err(DropReason::Ipv6PayloadLength);
    }
    let transport = extension::walk(head, start, end, next)?;
    let mut flags = hop_limit(hops) | fragment_flag(transport.frag);
    if transport.at != start {
        flags |= guard::OPTIONS;
    }
    Ok(Packet { kind: Kind::Ipv6, end, transport, flags })
}

/// What the key says of a fragment of `octets` octets at `offset`, after which the whole packet is at least `before +
/// octets` long; `None` for an impossible one. An "atomic" fragment, whole by itself, is none (RFC 6946).
pub(super) fn fragment(offset: usize, more: bool, octets: usize, before: usize) -> Option<u8> {
    if offset == 0 && !more {
        return Some(0);
    }
    let impossible = octets == 0 || (more && !octets.is_multiple_of(8)) || before + octets > 65_535;
    let frag = if offset == 0 { FRAG_ANY } else { FRAG_ANY | FRAG_LATER };
    (!impossible).then_some(frag)
}

fn fragment_flag(frag: u8) -> u32 {
    if frag == 0 { 0 } else { guard::FRAGMENT }
}

#[inline]
pub(super) fn hop_limit(hops: u8) -> u32 {
    if hops <= 1 { guard::HOP_LIMIT } else { 0 }
}

/// The transport header, if the packet has one that is looked into.
fn transport(head: &[u8], packet: &Packet) -> Result<Header, DropReason> {
    let Transport { at, proto, frag } = packet.transport;
    if !matches!(packet.kind, Kind::Ipv4 | Kind::Ipv6) || frag & FRAG_LATER != 0 {
        return Ok(Header::default());
    }
    let payload = head.get(at..packet.end.min(head.len())).unwrap_or(&[]);
    let at_least = |octets: usize, reason: DropReason| {
        if payload.len() < octets { Err(reason) } else { Ok(Header { octets, flags: 0 }) }
    };
    match (proto, packet.kind) {
        (proto::TCP, _) => {
            let Some([offset, bits]) = payload.first_chunk::<20>().map(|tcp| [tcp[12], tcp[13]]) else {
                return Err(DropReason::TcpTruncated);
            };
            let octets = usize::from(offset >> 4) * 4;
            if octets < 20 || octets > payload.len() {
                return Err(DropReason::TcpDataOffset);
            }
            Ok(Header { octets, flags: tcp_flags(bits) })
        }
        (proto::UDP, _) => {
            let header = at_least(8, DropReason::UdpTruncated)?;
            let length = usize::from(be16(payload, 4).unwrap_or(0));
            // A first fragment states the length of the whole datagram.
            if length < 8 || (frag == 0 && at + length > packet.end) {
                return Err(DropReason::UdpLength);
            }
            Ok(header)
        }
        (proto::SCTP, _) => at_least(12, DropReason::SctpTruncated),
        (proto::ICMP, Kind::Ipv4) => at_least(8, DropReason::IcmpTruncated),
        (proto::ICMPV6, Kind::Ipv6) => at_least(8, DropReason::Icmpv6Truncated),
        _ => Ok(Header::default()),
    }
}

/// Guard flags of TCP's flag octet.
#[inline]
pub(super) fn tcp_flags(bits: u8) -> u32 {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let syn = if bits & (SYN | ACK) == SYN { guard::SYN } else { 0 };
    let fin_rst = if bits & (FIN | RST) != 0 { guard::FIN_RST } else { 0 };
    syn | fin_rst
}
