//! related: an ICMP error about a translated connection speaks to each side of what that side knows.
//!
//! An error quotes the packet that it is about, as that packet was where it failed: behind the translation. Its receiver
//! must see its own packet in it, or it cannot tell whose error it is (RFC 5508, 4; path MTU discovery hangs on it). So
//! the quoted packet is translated back, and the error's own addresses with it.
//!
//! Worked example: client 10.0.0.1:4000 speaks to the service 10.96.0.1:80, which is 10.0.0.2:8080.
//!
//! ```text
//!                            original 10.0.0.1:4000 → 10.96.0.1:80     reply 10.0.0.2:8080 → 10.0.0.1:4000
//!
//!   the backend refuses what the client sent; the error goes the way of the replies
//!     comes in   10.0.0.2  → 10.0.0.1   about 10.0.0.1:4000 → 10.0.0.2:8080    turned round, the quote is the reply tuple
//!     leaves     10.96.0.1 → 10.0.0.1   about 10.0.0.1:4000 → 10.96.0.1:80     the quote is the original tuple
//!
//!   the client refuses what the backend answered; the error goes the way of the first packet
//!     comes in   10.0.0.1  → 10.96.0.1  about 10.96.0.1:80 → 10.0.0.1:4000     turned round, the quote is the original tuple
//!     leaves     10.0.0.1  → 10.0.0.2   about 10.0.0.2:8080 → 10.0.0.1:4000    the quote is the reply tuple
//! ```
//!
//! So an error belongs to the connection of its quote turned round, and goes the way of the packets that have that tuple.
//!
//! What is under a checksum is changed together with it, by the difference (RFC 1624): an error that arrives broken leaves
//! broken. The CRC of a quoted SCTP packet stays as it was: nobody can verify it over the part that is quoted.

use std::net::IpAddr;

use api::BridgeId;

use crate::burst::{Kind, Layers};
use crate::checksum::updated;
use crate::key::FRAG_LATER;
use crate::live::connections::{Direction, Found, Tuple};
use crate::parse::extension::{self, Transport};
use crate::parse::read::{array, be16, octet};
use crate::parse::{is_echo, proto};

/// Octets of an ICMP or ICMPv6 error in front of the packet that it quotes (RFC 792, RFC 4443).
const ERROR: usize = 8;

/// What an error is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// The packet that it quotes: as its sender sent it.
    pub quoted: Tuple,
    /// Source of the error.
    pub source: IpAddr,
    /// Destination of the error.
    pub destination: IpAddr,
}

impl Related {
    /// What an error that came from `source` is to say, `found` being the connection of its quote turned round.
    pub fn new(found: &Found, source: IpAddr) -> Self {
        let (original, reply) = (found.original, found.reply);
        let (quoted, source) = match found.direction {
            // The other end is known by the address that the opener spoke to; a router on the way by its own.
            Direction::Reply if source == reply.src => (original, original.dst),
            Direction::Reply => (original, source),
            // Whoever speaks on the side of the opener is known by the address that the opener is masqueraded as: the other
            // side has no way back to any other (RFC 5508, REQ-5).
            Direction::Original if reply.dst != original.src => (reply, reply.dst),
            Direction::Original => (reply, source),
        };
        Self { quoted, source, destination: quoted.src }
    }
}

/// What the packet carried that an error quotes; `None` if the frame quotes none, or too little of it to tell. The frame
/// must be an ICMP or ICMPv6 error.
pub fn quoted(head: &[u8], layers: &Layers, zone: BridgeId) -> Option<Tuple> {
    Quote::of(head, layers).map(|quote| quote.tuple(zone))
}

/// Rewrite an error in place. `finished`: its checksum is one; if not, it holds the sum of the pseudo header, and the sum
/// of what is quoted will be added by whoever finishes it. Returns false, leaving the frame as it is, if it quotes no packet of its
/// own IP version.
pub fn translate(head: &mut [u8], layers: &Layers, related: &Related, finished: bool) -> bool {
    let Some(quote) = Quote::of(head, layers) else { return false };
    let (l3, checksum) = (usize::from(layers.l3), usize::from(layers.l4) + 2);
    let Tuple { src, dst, .. } = related.quoted;
    let mut patch = Patch { head, covered_by: finished.then_some(checksum) };
    match (src, dst, related.source, related.destination) {
        (IpAddr::V4(src), IpAddr::V4(dst), IpAddr::V4(source), IpAddr::V4(destination)) if quote.kind == Kind::Ipv4 => {
            let header = Sum::plain(quote.l3 + 10);
            let sums = [Some(header), quote.sum_of_addresses()];
            patch.write(quote.l3 + 12, src.octets(), &sums);
            patch.write(quote.l3 + 16, dst.octets(), &sums);
            quote.set_ports(&mut patch, &related.quoted);
            patch.covered_by = None;
            let header = [Some(Sum::plain(l3 + 10))];
            patch.write(l3 + 12, source.octets(), &header);
            patch.write(l3 + 16, destination.octets(), &header);
        }
        (IpAddr::V6(src), IpAddr::V6(dst), IpAddr::V6(source), IpAddr::V6(destination)) if quote.kind == Kind::Ipv6 => {
            let sums = [quote.sum_of_addresses()];
            patch.write(quote.l3 + 8, src.octets(), &sums);
            patch.write(quote.l3 + 24, dst.octets(), &sums);
            quote.set_ports(&mut patch, &related.quoted);
            patch.covered_by = None;
            let pseudo = [Some(Sum { at: checksum, never_zero: false, complement: finished })];
            patch.write(l3 + 8, source.octets(), &pseudo);
            patch.write(l3 + 24, destination.octets(), &pseudo);
        }
        _ => return false,
    }
    true
}

/// Where the headers of a quoted packet are; as much of it as is looked at lies in the first segment.
#[derive(Clone, Copy)]
struct Quote {
    kind: Kind,
    l3: usize,
    l4: usize,
    proto: u8,
    source: IpAddr,
    destination: IpAddr,
    sport: u16,
    dport: u16,
    /// Where the quote ends.
    end: usize,
}

impl Quote {
    fn of(head: &[u8], layers: &Layers) -> Option<Self> {
        let (outer, l3) = (usize::from(layers.l3), usize::from(layers.l4) + ERROR);
        if layers.l4 == 0 {
            return None;
        }
        // What lies behind the end of the error is padding, not quoted.
        let octets = match layers.kind {
            Kind::Ipv4 => usize::from(be16(head, outer + 2)?),
            Kind::Ipv6 => 40 + usize::from(be16(head, outer + 4)?),
            Kind::Arp | Kind::Other => return None,
        };
        let head = head.get(..outer + octets).unwrap_or(head);
        let (transport, source, destination): (Transport, IpAddr, IpAddr) = match layers.kind {
            Kind::Ipv4 => {
                let (version, proto) = (octet(head, l3)?, octet(head, l3 + 9)?);
                let (header, offset) = (usize::from(version & 0xf) * 4, be16(head, l3 + 6)? & 0x1fff);
                if version >> 4 != 4 || header < 20 || offset != 0 {
                    return None;
                }
                let addresses = (array::<4>(head, l3 + 12)?, array::<4>(head, l3 + 16)?);
                (Transport { at: l3 + header, proto, frag: 0 }, addresses.0.into(), addresses.1.into())
            }
            _ => {
                let (version, next) = (octet(head, l3)?, octet(head, l3 + 6)?);
                let transport = extension::walk(head, l3 + 40, head.len(), next).ok()?;
                if version >> 4 != 6 || transport.frag & FRAG_LATER != 0 {
                    return None;
                }
                (transport, array::<16>(head, l3 + 8)?.into(), array::<16>(head, l3 + 24)?.into())
            }
        };
        let Transport { at: l4, proto, .. } = transport;
        let (sport, dport) = match (layers.kind, proto) {
            (_, proto::TCP | proto::UDP | proto::SCTP) => (be16(head, l4)?, be16(head, l4 + 2)?),
            (Kind::Ipv4, proto::ICMP) | (Kind::Ipv6, proto::ICMPV6) if is_echo(proto, octet(head, l4)?) => {
                let id = be16(head, l4 + 4)?;
                (id, id)
            }
            // No error is sent about an error, and other messages belong to no connection.
            (Kind::Ipv4, proto::ICMP) | (Kind::Ipv6, proto::ICMPV6) => return None,
            _ => (0, 0),
        };
        Some(Self { kind: layers.kind, l3, l4, proto, source, destination, sport, dport, end: head.len() })
    }

    fn tuple(&self, zone: BridgeId) -> Tuple {
        let Self { proto, source: src, destination: dst, sport, dport, .. } = *self;
        Tuple { zone, proto, src, dst, sport, dport }
    }

    /// The transport checksum, if it is quoted and there is one: eight octets of TCP end before it.
    fn sum(&self) -> Option<Sum> {
        let at = match self.proto {
            proto::TCP => 16,
            proto::UDP => 6,
            proto::ICMP | proto::ICMPV6 => 2,
            _ => return None,
        };
        let sum = Sum { at: self.l4 + at, never_zero: self.proto == proto::UDP, complement: true };
        (sum.at + 2 <= self.end).then_some(sum)
    }

    /// The same if it covers a pseudo header.
    fn sum_of_addresses(&self) -> Option<Sum> {
        self.sum().filter(|_| self.proto != proto::ICMP)
    }

    fn set_ports(&self, patch: &mut Patch<'_>, tuple: &Tuple) {
        let sums = [self.sum()];
        match self.proto {
            proto::TCP | proto::UDP | proto::SCTP => {
                patch.write(self.l4, tuple.sport.to_be_bytes(), &sums);
                patch.write(self.l4 + 2, tuple.dport.to_be_bytes(), &sums);
            }
            proto::ICMP | proto::ICMPV6 => patch.write(self.l4 + 4, tuple.sport.to_be_bytes(), &sums),
            _ => {}
        }
    }
}

/// A checksum that is to follow what changes under it.
#[derive(Clone, Copy)]
struct Sum {
    /// Where it is.
    at: usize,
    /// Zero says that there is none, and the sum of zero is written as its other representation (RFC 768).
    never_zero: bool,
    /// It is the complement of the sum, as it is once it is finished.
    complement: bool,
}

impl Sum {
    fn plain(at: usize) -> Self {
        Self { at, never_zero: false, complement: true }
    }

    fn after(self, sum: u16, old: u16, new: u16) -> u16 {
        match (self.complement, updated(if self.complement { sum } else { !sum }, old, new)) {
            (false, sum) => !sum,
            (true, 0) if self.never_zero => 0xffff,
            (true, sum) => sum,
        }
    }
}

/// Octets that are rewritten with the checksums over them.
struct Patch<'a> {
    head: &'a mut [u8],
    /// Where the checksum is that covers all that is written, checksums included.
    covered_by: Option<usize>,
}

impl Patch<'_> {
    /// Write octets, which are whole words under each of the checksums.
    fn write<const N: usize>(&mut self, at: usize, octets: [u8; N], sums: &[Option<Sum>]) {
        for (at, new) in (at..).step_by(2).zip(octets.as_chunks::<2>().0) {
            let new = u16::from_be_bytes(*new);
            let Some(old) = be16(self.head, at) else { return };
            self.word(at, new);
            for sum in sums.iter().flatten() {
                match be16(self.head, sum.at) {
                    Some(0) if sum.never_zero => {}
                    Some(was) => self.word(sum.at, sum.after(was, old, new)),
                    None => {}
                }
            }
        }
    }

    fn word(&mut self, at: usize, new: u16) {
        let Some(old) = be16(self.head, at) else { return };
        put(self.head, at, new);
        if let Some(cover) = self.covered_by
            && let Some(sum) = be16(self.head, cover)
        {
            put(self.head, cover, updated(sum, old, new));
        }
    }
}

fn put(head: &mut [u8], at: usize, word: u16) {
    if let Some(place) = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = word.to_be_bytes();
    }
}
