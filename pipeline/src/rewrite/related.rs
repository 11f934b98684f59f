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

    /// The transport checksum, if the whole of it is quoted and there is one: eight octets of TCP end before it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum as Total;
    use crate::live::connections::Name;
    use crate::parse;
    use crate::resolve::trial::{SYN, ZONE, end, network, packet, transport};
    use proptest::prelude::*;

    fn tuple(proto: u8, from: &str, to: &str) -> Tuple {
        let ((src, sport), (dst, dport)) = (end(from), end(to));
        Tuple { zone: ZONE, proto, src, dst, sport, dport }
    }

    /// The whole packet that a tuple tells of, without Ethernet.
    fn whole(tuple: &Tuple) -> Vec<u8> {
        let [high, low] = tuple.sport.to_be_bytes();
        let payload = match tuple.proto {
            1 => vec![8, 0, 0, 0, high, low, 0, 1, b'p', b'i', b'n', b'g'],
            58 => vec![128, 0, 0, 0, high, low, 0, 1, b'p', b'i', b'n', b'g'],
            47 => vec![0, 0, 8, 0, 1, 2, 3, 4],
            proto => transport(proto, tuple.sport, tuple.dport, SYN),
        };
        network(tuple.src, tuple.dst, tuple.proto, &payload)
    }

    /// An error from `source` to the sender of `about`, of which it quotes so many octets at most: destination unreachable,
    /// too big.
    fn error(source: IpAddr, about: &Tuple, octets: usize) -> Vec<u8> {
        let (proto, message) = match source {
            IpAddr::V4(_) => (1, [3, 4, 0, 0, 0, 0, 5, 0x78]),
            IpAddr::V6(_) => (58, [2, 0, 0, 0, 0, 0, 5, 0x78]),
        };
        let mut quote = whole(about);
        quote.truncate(octets);
        packet(source, about.src, proto, &[&message[..], &quote].concat())
    }

    fn layers(frame: &[u8]) -> Layers {
        parse::layers(frame, frame.len(), None).unwrap()
    }

    /// The connection of what an error quotes, as the table finds it.
    fn find(original: Tuple, reply: Tuple, frame: &[u8]) -> Found {
        let asked = quoted(frame, &layers(frame), ZONE).expect("a quote").turned();
        let direction = match asked {
            tuple if tuple == original => Direction::Original,
            tuple if tuple == reply => Direction::Reply,
            tuple => panic!("no connection of {tuple:?}"),
        };
        Found { name: Name::default(), direction, original, reply, identities: [0; 2], answered: true }
    }

    /// What leaves of an error that comes in.
    fn translated(original: Tuple, reply: Tuple, frame: &[u8], source: IpAddr) -> Vec<u8> {
        let related = Related::new(&find(original, reply, frame), source);
        let mut out = frame.to_vec();
        assert!(translate(&mut out, &layers(frame), &related, true));
        out
    }

    /// Original and reply tuple: to a service, masqueraded to the outside, hairpin; of both versions.
    fn connections(proto: [u8; 2]) -> Vec<(Tuple, Tuple)> {
        let [four, six] = proto;
        vec![
            (tuple(four, "10.0.0.1:4000", "10.96.0.1:80"), tuple(four, "10.0.0.2:8080", "10.0.0.1:4000")),
            (tuple(four, "10.0.0.1:4000", "203.0.113.9:53"), tuple(four, "203.0.113.9:53", "192.0.2.1:50001")),
            (tuple(four, "10.0.0.1:4000", "10.96.0.1:80"), tuple(four, "10.0.0.1:8080", "10.0.0.254:30000")),
            (tuple(six, "[fd00::1]:4000", "[fd00:96::1]:80"), tuple(six, "[fd00::2]:8080", "[fd00::1]:4000")),
            (
                tuple(six, "[fd00::1]:4000", "[2001:db8:9::9]:53"),
                tuple(six, "[2001:db8:9::9]:53", "[2001:db8::1]:50001"),
            ),
            (tuple(six, "[fd00::1]:4000", "[fd00:96::1]:80"), tuple(six, "[fd00::1]:8080", "[fd00::fe]:30000")),
        ]
    }

    /// The same for pings: the identifier is both ports.
    fn pings() -> Vec<(Tuple, Tuple)> {
        let one = |tuple: Tuple, id| Tuple { sport: id, dport: id, ..tuple };
        connections([1, 58])
            .into_iter()
            .map(|(original, reply)| (one(original, 700), one(reply, reply.dport)))
            .collect()
    }

    /// How much is quoted, for a network header of so many octets: eight octets of transport (RFC 792), some more, as much as
    /// Linux sends.
    fn lengths(header: usize) -> [usize; 4] {
        [header + 8, header + 18, header + 21, if header == 20 { 548 } else { 1232 }]
    }

    #[test]
    fn v23_an_error_is_about_what_its_receiver_sent_whichever_end_it_comes_from() {
        let all = [connections([6, 6]), connections([17, 17]), connections([132, 132]), connections([47, 47]), pings()];
        for (mut original, mut reply) in all.concat() {
            if original.proto == 47 {
                for tuple in [&mut original, &mut reply] {
                    (tuple.sport, tuple.dport) = (0, 0);
                }
            }
            for octets in lengths(if original.src.is_ipv4() { 20 } else { 40 }) {
                // The other end about what the opener sent: seen as who was spoken to.
                let back = error(reply.src, &reply.turned(), octets);
                let seen = error(original.dst, &original, octets);
                assert_eq!(translated(original, reply, &back, reply.src), seen, "{original:?} {octets}");
                // The opener about what was answered: seen as who the other end speaks to.
                let forth = error(original.src, &original.turned(), octets);
                let seen = error(reply.dst, &reply, octets);
                assert_eq!(translated(original, reply, &forth, original.src), seen, "{reply:?} {octets}");
            }
        }
    }

    #[test]
    fn n17_a_router_on_the_way_keeps_its_address_unless_it_stands_on_the_masqueraded_side() {
        let router: IpAddr = [198, 51, 100, 7].into();
        for (original, reply) in connections([6, 6]).into_iter().filter(|(tuple, _)| tuple.src.is_ipv4()) {
            let back = error(router, &reply.turned(), 548);
            assert_eq!(translated(original, reply, &back, router), error(router, &original, 548));
            let forth = error(router, &original.turned(), 548);
            let seen = if reply.dst == original.src { router } else { reply.dst };
            assert_eq!(translated(original, reply, &forth, router), error(seen, &reply, 548));
        }
    }

    #[test]
    fn an_error_whose_checksum_is_left_to_the_device_holds_the_sum_of_the_new_addresses() {
        for (original, reply) in connections([17, 17]) {
            let (mut frame, expected) = (error(reply.src, &reply.turned(), 99), error(original.dst, &original, 99));
            let layers = layers(&frame);
            let l4 = usize::from(layers.l4);
            let pseudo = |src: IpAddr, dst: IpAddr| match (src, dst) {
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    Total::pseudo6(src.octets(), dst.octets(), 58, (expected.len() - l4) as u32)
                }
                _ => Total::EMPTY,
            };
            let related = Related::new(&find(original, reply, &frame), reply.src);
            frame[l4 + 2..l4 + 4].copy_from_slice(&pseudo(reply.src, reply.dst).folded().to_be_bytes());
            assert!(translate(&mut frame, &layers, &related, false));
            // What the device does.
            let sum = Total::EMPTY.plus(&frame[l4..]).checksum();
            frame[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn an_error_that_came_in_broken_leaves_broken() {
        let (original, reply) = connections([6, 6])[0];
        let mut frame = error(reply.src, &reply.turned(), 548);
        let last = frame.len() - 1;
        frame[last] ^= 1;
        let mut seen = error(original.dst, &original, 548);
        seen[last] ^= 1;
        assert_eq!(translated(original, reply, &frame, reply.src), seen);
    }

    #[test]
    fn a_udp_datagram_without_a_checksum_is_quoted_without_one() {
        let (original, reply) = connections([17, 17])[0];
        let without = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            let (inner, outer) = (14 + 28 + 20 + 6, 14 + 22);
            frame[inner..inner + 2].fill(0);
            frame[outer..outer + 2].fill(0);
            let sum = Total::EMPTY.plus(&frame[34..]).checksum();
            frame[outer..outer + 2].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let (frame, seen) = (error(reply.src, &reply.turned(), 548), error(original.dst, &original, 548));
        assert_eq!(translated(original, reply, &without(&frame), reply.src), without(&seen));
    }

    #[test]
    fn extension_headers_in_a_quote_are_passed() {
        let (original, reply) = connections([17, 17])[3];
        let with = |tuple: &Tuple, source| {
            let header = [17, 0, 1, 4, 0, 0, 0, 0];
            let mut inner = whole(tuple);
            inner[6] = 60;
            inner[5] += 8;
            inner.splice(40..40, header);
            packet(source, tuple.src, 58, &[&[1, 4, 0, 0, 0, 0, 0, 0][..], &inner].concat())
        };
        let frame = with(&reply.turned(), reply.src);
        assert_eq!(translated(original, reply, &frame, reply.src), with(&original, original.dst));
    }

    #[test]
    fn what_quotes_too_little_or_a_later_fragment_or_another_error_belongs_to_nothing() {
        for (original, reply) in connections([6, 6]) {
            let header = if original.src.is_ipv4() { 20 } else { 40 };
            let of = |frame: &[u8]| quoted(frame, &layers(frame), ZONE);
            for octets in 0..header + 4 {
                assert_eq!(of(&error(reply.src, &original, octets)), None, "{octets}");
            }
            // Padding behind the packet is not quoted.
            let mut padded = error(reply.src, &original, header + 3);
            padded.resize(200, 1);
            assert_eq!(of(&padded), None);
            let whole = error(reply.src, &original, 99);
            assert_eq!(of(&whole), Some(original));
            let inner = 14 + header + 8;
            if header == 20 {
                let mut later = whole.clone();
                later[inner + 7] = 1;
                assert_eq!(of(&later), None);
            }
            let mut version = whole.clone();
            version[inner] ^= 0x30;
            assert_eq!(of(&version), None);
            let mut unreachable = whole.clone();
            unreachable[inner + if header == 20 { 9 } else { 6 }] = if header == 20 { 1 } else { 58 };
            unreachable[inner + header] = if header == 20 { 3 } else { 1 };
            assert_eq!(of(&unreachable), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_translated_there_and_back_is_what_it_was(
            six: bool, number in 0usize..3, ends: [u32; 4], ports: [u16; 4], octets in 48usize..200,
        ) {
            let proto = [6, 17, 132][number];
            let address = |n: u32| -> IpAddr {
                if six { std::net::Ipv6Addr::from(0xfd00 << 112 | u128::from(n)).into() } else { std::net::Ipv4Addr::from(n).into() }
            };
            let [a, b, c, d] = ends.map(address);
            let original = Tuple { zone: ZONE, proto, src: a, dst: b, sport: ports[0], dport: ports[1] };
            let reply = Tuple { zone: ZONE, proto, src: c, dst: d, sport: ports[2], dport: ports[3] };
            // A checksum of which one octet is quoted stays as it is.
            prop_assume!(original != reply && (six, proto, octets) != (true, 6, 40 + 17));
            let frame = error(reply.src, &reply.turned(), octets);
            let there = translated(original, reply, &frame, reply.src);
            prop_assert_eq!(&there, &error(original.dst, &original, octets));
            let mut back = there.clone();
            let undo = Related { quoted: reply.turned(), source: reply.src, destination: reply.dst };
            prop_assert!(translate(&mut back, &layers(&there), &undo, true));
            prop_assert_eq!(back, frame);
        }

        #[test]
        fn whatever_is_quoted_nothing_goes_wrong(
            six: bool, quote in proptest::collection::vec(any::<u8>(), 0..120), first in 0usize..4, cut in 0usize..200,
        ) {
            let (original, reply) = connections([6, 6])[if six { 3 } else { 0 }];
            let (proto, versions) = if six { (58, [0x60, 0x60, 0x45, 0xff]) } else { (1, [0x45, 0x4f, 0x40, 0x60]) };
            let mut quote = quote;
            if let Some(octet) = quote.first_mut() {
                *octet = versions[first];
            }
            let mut frame = packet(reply.src, reply.dst, proto, &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &quote].concat());
            let layers = layers(&frame);
            let related = Related { quoted: original, source: original.dst, destination: original.src };
            // A head that is shorter than what was parsed does not exist; it must do no harm either.
            frame.truncate(frame.len() - cut.min(frame.len()));
            let (before, sound) = (frame.clone(), quoted(&frame, &layers, ZONE).is_some());
            prop_assert_eq!(translate(&mut frame, &layers, &related, true), sound);
            prop_assert!(sound || frame == before);
        }
    }
}
