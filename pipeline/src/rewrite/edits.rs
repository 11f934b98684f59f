//! Edits: what is done to the headers of each packet of a flow. The difference between the key that a frame came with and
//! the key that it leaves with, in a form that costs a few stores and two additions a packet.
//!
//! Checksums are brought up to date, never computed anew (RFC 1624): the edits hold the sum of what goes out of them and
//! what comes in. Where the sender's kernel left the checksum to the device, the field holds the sum of the pseudo header,
//! so the addresses' share is added to it as it is and the ports' share not at all (FASTPATH 2).
//!
//! ```text
//!   dst mac, src mac │ ... │ hop limit, header checksum │ src, dst │ sport, dport │ ... │ checksum │
//!   MACS               HOP                                ADDRESSES  PORTS
//! ```

use crate::burst::{Layers, guard};
use crate::checksum::sum;
use crate::key::{Field, FlowKey};
use crate::parse::transport_octets;
use crate::raw::Frame;
use crate::rewrite::sctp;

/// Both Ethernet addresses are set.
const MACS: u8 = 1 << 0;
/// One is taken off the hop limit.
const HOP: u8 = 1 << 1;
/// IPv4 addresses are set.
const IPV4: u8 = 1 << 2;
/// IPv6 addresses are set.
const IPV6: u8 = 1 << 3;
/// Ports, or the identifier of ICMP echo, are set.
const PORTS: u8 = 1 << 4;
/// The network header has a checksum.
const IPV4_HEADER: u8 = 1 << 5;

/// What an IPv4 header checksum loses when the hop limit does: `!old + new` of the word that has it.
const HOP_DELTA: u16 = 0xfeff;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Header changes of one flow. One cache line. All zero: nothing is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Edits {
    what: u8,
    proto: u8,
    /// Added to the header checksum.
    header: u16,
    /// Added to the transport checksum because of addresses.
    addresses: u16,
    /// Added to the transport checksum because of ports.
    ports_delta: u16,
    macs: [u8; 12],
    ports: [u8; 4],
    /// Source, destination.
    ipv4: [u8; 8],
    /// Source, destination.
    ipv6: [u8; 32],
}

/// The one's complement sum of `!old + new`.
fn delta<const N: usize>(old: &[u8; N], new: &[u8; N]) -> u16 {
    // The complement of a sum is the sum of the complements.
    add(!sum(old), sum(new))
}

/// The sum of two one's complement sums.
#[inline]
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

impl Edits {
    /// What makes a frame of key `start` one of key `end`, with `hops` routers on the way (0 or 1).
    pub fn between(start: &FlowKey, end: &FlowKey, hops: u8) -> Self {
        let mut edits = Self { proto: u8::from_be_bytes(start.get(Field::IP_PROTO)), ..Self::default() };
        if start.eth_dst() != end.eth_dst() || start.eth_src() != end.eth_src() {
            edits.what |= MACS;
            let (dst, src) = (end.eth_dst().0, end.eth_src().0);
            edits.macs.iter_mut().zip(dst.into_iter().chain(src)).for_each(|(to, from)| *to = from);
        }
        let ipv4 = match start.eth_type() {
            0x0800 => true,
            0x86dd => false,
            _ => return edits.settled(),
        };
        if hops != 0 {
            edits.what |= HOP;
        }
        if ipv4 {
            edits.what |= IPV4_HEADER;
            edits.header = if hops == 0 { 0 } else { HOP_DELTA };
            let both = |key: &FlowKey| -> [u8; 8] {
                let [a, b, c, d] = key.get(Field::IPV4_SRC);
                let [e, f, g, h] = key.get(Field::IPV4_DST);
                [a, b, c, d, e, f, g, h]
            };
            let (old, new) = (both(start), both(end));
            if old != new {
                edits.what |= IPV4;
                edits.ipv4 = new;
                edits.addresses = delta(&old, &new);
                edits.header = add(edits.header, edits.addresses);
            }
        } else {
            let both = |key: &FlowKey| -> [u8; 32] {
                let (src, dst): ([u8; 16], [u8; 16]) = (key.get(Field::IPV6_SRC), key.get(Field::IPV6_DST));
                let mut both = [0; 32];
                both.iter_mut().zip(src.into_iter().chain(dst)).for_each(|(to, from)| *to = from);
                both
            };
            let (old, new) = (both(start), both(end));
            if old != new {
                edits.what |= IPV6;
                edits.ipv6 = new;
                edits.addresses = delta(&old, &new);
            }
        }
        if edits.proto == ICMP {
            // ICMP has no pseudo header.
            edits.addresses = 0;
        }
        let both = |key: &FlowKey| -> [u8; 4] {
            let ([a, b], [c, d]) = (key.get(Field::TP_SRC), key.get(Field::TP_DST));
            // The identifier of an echo is in the high octets, see `Field::TP_SRC`.
            if matches!(edits.proto, ICMP | ICMPV6) { [a, c, a, c] } else { [a, b, c, d] }
        };
        let (old, new) = (both(start), both(end));
        if old != new {
            edits.what |= PORTS;
            edits.ports = new;
            let counted = |[a, b, c, d]: [u8; 4]| {
                if matches!(edits.proto, ICMP | ICMPV6) { [a, b, 0, 0] } else { [a, b, c, d] }
            };
            edits.ports_delta = delta(&counted(old), &counted(new));
        }
        edits.settled()
    }

    /// Nothing to do looks the same whatever it is done to.
    fn settled(self) -> Self {
        if self.is_empty() { Self::default() } else { self }
    }

    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.what & !IPV4_HEADER == 0
    }

    /// What of it befalls a fragment that is not the first: it has no transport header.
    #[must_use]
    pub fn of_later_fragment(&self) -> Self {
        Self { what: self.what & !PORTS, proto: 0, addresses: 0, ports_delta: 0, ..*self }
    }

    /// Only the Ethernet addresses and the hop limit: what is left when the rest was done otherwise.
    #[must_use]
    pub fn of_the_link(&self) -> Self {
        let header = if self.what & HOP == 0 { 0 } else { HOP_DELTA };
        Self { what: self.what & (MACS | HOP | IPV4_HEADER), proto: 0, header, addresses: 0, ports_delta: 0, ..*self }
    }

    /// Carry them out. Returns false when the frame has not the headers that the edits are for; it may be half changed
    /// then, and must not leave.
    #[inline]
    pub fn apply(&self, frame: &mut Frame, layers: &Layers) -> bool {
        self.apply_to(frame, layers, None)
    }

    /// As [`Self::apply`], for a fragment of a datagram that has `octets` octets of transport header and data in all its fragments:
    /// a checksum may depend on it.
    #[inline]
    pub fn apply_to(&self, frame: &mut Frame, layers: &Layers, octets: Option<usize>) -> bool {
        let partial = !frame.is_plain() && frame.offload().is_some_and(|offload| offload.needs_csum());
        let head = frame.head_mut();
        if self.what & MACS != 0 {
            match head.first_chunk_mut::<12>() {
                Some(macs) => *macs = self.macs,
                None => return false,
            }
        }
        let (l3, l4) = (usize::from(layers.l3), usize::from(layers.l4));
        if self.what & IPV4_HEADER != 0 {
            let Some(header) = head.get_mut(l3..).and_then(|octets| octets.first_chunk_mut::<20>()) else {
                return false;
            };
            if self.what & HOP != 0 {
                header[8] = header[8].wrapping_sub(1);
            }
            let sum = !u16::from_be_bytes([header[10], header[11]]);
            let [high, low] = (!add(sum, self.header)).to_be_bytes();
            (header[10], header[11]) = (high, low);
            if self.what & IPV4 != 0
                && let Some(addresses) = header.last_chunk_mut::<8>()
            {
                *addresses = self.ipv4;
            }
        } else if self.what & (HOP | IPV6) != 0 {
            let Some(header) = head.get_mut(l3..).and_then(|octets| octets.first_chunk_mut::<40>()) else {
                return false;
            };
            if self.what & HOP != 0 {
                header[7] = header[7].wrapping_sub(1);
            }
            if self.what & IPV6 != 0
                && let Some(addresses) = header.last_chunk_mut::<32>()
            {
                *addresses = self.ipv6;
            }
        }
        if self.what & (IPV4 | IPV6 | PORTS) == 0 || l4 == 0 {
            return true;
        }
        let Some(transport) = head.get_mut(l4..) else { return false };
        match self.proto {
            TCP => self.ports(transport) && self.checksum::<16>(transport, partial),
            UDP => self.ports(transport) && self.udp_checksum(transport, partial),
            _ => self.rare(frame, layers, octets, partial),
        }
    }

    #[inline]
    fn ports(&self, transport: &mut [u8]) -> bool {
        if self.what & PORTS == 0 {
            return true;
        }
        transport.first_chunk_mut::<4>().map(|ports| *ports = self.ports).is_some()
    }

    /// Bring the checksum at octet `AT` of the transport header up to date.
    #[inline]
    fn checksum<const AT: usize>(&self, transport: &mut [u8], partial: bool) -> bool {
        let Some(field) = transport.get_mut(AT..AT + 2).and_then(|octets| octets.first_chunk_mut::<2>()) else {
            return false;
        };
        let old = u16::from_be_bytes(*field);
        *field = if partial {
            add(old, self.addresses).to_be_bytes()
        } else {
            (!add(!old, add(self.addresses, self.ports_delta))).to_be_bytes()
        };
        true
    }

    #[inline]
    fn udp_checksum(&self, transport: &mut [u8], partial: bool) -> bool {
        if !partial {
            match transport.get(6..8) {
                // The sender computed none (RFC 768), so there is none to keep.
                Some([0, 0]) => return true,
                Some(_) => {}
                None => return false,
            }
        }
        self.checksum::<6>(transport, partial);
        if !partial && let Some([0, 0]) = transport.get(6..8) {
            transport.iter_mut().skip(6).take(2).for_each(|octet| *octet = 0xff);
        }
        true
    }

    /// Everything but TCP and UDP.
    #[cold]
    fn rare(&self, frame: &mut Frame, layers: &Layers, octets: Option<usize>, partial: bool) -> bool {
        let l4 = usize::from(layers.l4);
        // One fragment alone cannot say it.
        let whole = layers.guard & guard::FRAGMENT == 0;
        let octets = octets.or_else(|| transport_octets(frame.head(), layers).filter(|_| whole));
        let Some(transport) = frame.head_mut().get_mut(l4..) else { return false };
        match self.proto {
            ICMP | ICMPV6 => {
                if self.what & PORTS != 0 {
                    let Some(identifier) = transport.get_mut(4..6).and_then(|octets| octets.first_chunk_mut()) else {
                        return false;
                    };
                    let [a, b, ..] = self.ports;
                    *identifier = [a, b];
                }
                self.checksum::<2>(transport, partial)
            }
            SCTP => {
                // Its checksum covers the ports, but no addresses (RFC 9260, 6.8).
                self.what & PORTS == 0 || octets.is_some_and(|octets| sctp::set_ports(transport, octets, self.ports))
            }
            DCCP => self.ports(transport) && self.checksum::<6>(transport, partial),
            UDP_LITE => self.ports(transport) && self.checksum::<6>(transport, partial),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::parse::tests::frames::*;
    use crate::parse::{key, layers};
    use crate::raw::Pool;
    use api::{MacAddr, PortId};
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    /// Every checksum of a frame is right.
    fn verify(octets: &[u8]) {
        let packet = SlicedPacket::from_ethernet(octets).unwrap();
        let net = packet.net.unwrap();
        if let NetSlice::Ipv4(ip) = &net {
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        }
        match (packet.transport.unwrap(), &net) {
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
    }

    /// Fill in the transport checksum.
    fn finished(mut octets: Vec<u8>) -> Vec<u8> {
        let at = layers(&octets, octets.len(), None).unwrap();
        let (l3, l4) = (usize::from(at.l3), usize::from(at.l4));
        let proto = if octets[l3] >> 4 == 4 { octets[l3 + 9] } else { octets[l3 + 6] };
        let field = l4 + if proto == TCP { 16 } else { 6 };
        octets[field..field + 2].fill(0);
        let len = octets.len() - l4;
        let sum = if octets[l3] >> 4 == 4 {
            let (src, dst) =
                (octets[l3 + 12..l3 + 16].try_into().unwrap(), octets[l3 + 16..l3 + 20].try_into().unwrap());
            Sum::pseudo4(src, dst, proto, len as u16)
        } else {
            let (src, dst) =
                (octets[l3 + 8..l3 + 24].try_into().unwrap(), octets[l3 + 24..l3 + 40].try_into().unwrap());
            Sum::pseudo6(src, dst, proto, len as u32)
        };
        let sum = match sum.plus(&octets[l4..]).checksum() {
            0 => 0xffff,
            sum => sum,
        };
        octets[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        if octets[l3] >> 4 == 4 {
            octets[l3 + 10..l3 + 12].fill(0);
            let sum = crate::checksum::checksum(&octets[l3..l3 + 20]);
            octets[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        octets
    }

    fn facts(octets: &[u8]) -> FlowKey {
        key(PortId(1), octets, &layers(octets, octets.len(), None).unwrap())
    }

    proptest! {
        #[test]
        fn after_the_edits_a_frame_says_what_the_key_says_and_its_checksums_hold(
            v6: bool, udp_: bool, payload in proptest::collection::vec(any::<u8>(), 0..80),
            macs: Option<([u8; 6], [u8; 6])>, src: Option<[u8; 16]>, dst: Option<[u8; 16]>,
            ports: (Option<u16>, Option<u16>), hops in 0u8..2,
        ) {
            let segment = if udp_ { udp(&payload) } else { tcp(0x10, &[], &payload) };
            let proto = if udp_ { UDP } else { TCP };
            let packet = if v6 { ipv6(proto, &segment) } else { ipv4(proto, 0, &[], &segment) };
            let octets = finished(ethernet(&[], if v6 { 0x86dd } else { 0x0800 }, &packet));
            verify(&octets);
            let start = facts(&octets);
            let mut end = start;
            if let Some((a, b)) = macs {
                end.set(Field::ETH_DST, a);
                // A group address as a source is malformed.
                end.set(Field::ETH_SRC, MacAddr([b[0] & !1, b[1], b[2], b[3], b[4], b[5]]).0);
            }
            for (new, four, six) in
                [(src, Field::IPV4_SRC, Field::IPV6_SRC), (dst, Field::IPV4_DST, Field::IPV6_DST)]
            {
                match new {
                    Some(new) if v6 => end.set(six, new),
                    Some([a, b, c, d, ..]) => end.set(four, [a, b, c, d]),
                    None => {}
                }
            }
            for (new, field) in [(ports.0, Field::TP_SRC), (ports.1, Field::TP_DST)] {
                if let Some(new) = new {
                    end.set(field, new.to_be_bytes());
                }
            }
            let edits = Edits::between(&start, &end, hops);
            prop_assert_eq!(edits.is_empty(), start == end && hops == 0);
            let pool = Pool::heap(4, 0);
            let mut stash = pool.stash();
            let mut frame = stash.take().unwrap();
            frame.fill(&octets);
            let before = facts(&octets);
            let ttl: [u8; 1] = before.get(Field::IP_TTL);
            prop_assert!(edits.apply(&mut frame, &layers(&octets, octets.len(), None).unwrap()));
            let mut wanted = end;
            wanted.set(Field::IP_TTL, [ttl[0] - hops]);
            prop_assert_eq!(facts(frame.head()), wanted);
            verify(frame.head());
            // And back.
            let back = Edits::between(&end, &start, 0);
            prop_assert!(back.apply(&mut frame, &layers(&octets, octets.len(), None).unwrap()));
            verify(frame.head());
            stash.give(frame);
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_stays_without() {
        let mut octets = ethernet(&[], 0x0800, &ipv4(UDP, 0, &[], &udp(&[1, 2, 3])));
        octets[40..42].fill(0);
        let start = facts(&octets);
        let mut end = start;
        end.set(Field::IPV4_DST, [10, 9, 8, 7]);
        let pool = Pool::heap(4, 0);
        let mut stash = pool.stash();
        let mut frame = stash.take().unwrap();
        frame.fill(&octets);
        assert!(Edits::between(&start, &end, 1).apply(&mut frame, &layers(&octets, octets.len(), None).unwrap()));
        assert_eq!((&frame.head()[40..42], &frame.head()[30..34]), (&[0, 0][..], &[10, 9, 8, 7][..]));
        stash.give(frame);
    }

    #[test]
    fn an_unfinished_checksum_takes_the_addresses_and_not_the_ports() {
        use crate::offload::Offload;
        let octets = finished(ethernet(&[], 0x0800, &ipv4(TCP, 0, &[], &tcp(0x10, &[], &[5; 33]))));
        let mut unfinished = octets.clone();
        let pseudo = |octets: &[u8]| {
            let (src, dst) = (octets[26..30].try_into().unwrap(), octets[30..34].try_into().unwrap());
            Sum::pseudo4(src, dst, TCP, (octets.len() - 34) as u16).folded().to_be_bytes()
        };
        let sum = pseudo(&octets);
        unfinished[50..52].copy_from_slice(&sum);
        let start = facts(&octets);
        let mut end = start;
        end.set(Field::IPV4_DST, [10, 9, 8, 7]);
        end.set(Field::TP_DST, 8080u16.to_be_bytes());
        let pool = Pool::heap(4, 0);
        let mut stash = pool.stash();
        let mut frame = stash.take().unwrap();
        frame.fill(&unfinished);
        frame.set_offload(Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..Offload::NONE });
        assert!(Edits::between(&start, &end, 1).apply(&mut frame, &layers(&octets, octets.len(), None).unwrap()));
        assert_eq!(frame.head()[50..52], pseudo(frame.head()));
        stash.give(frame);
    }

    /// An SCTP packet with its checksum (RFC 9260, appendix A).
    fn sctp_packet(ports: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = [&ports[..], &[1, 2, 3, 4, 0, 0, 0, 0], payload].concat();
        let crc = crc32c::crc32c(&packet);
        packet[8..12].copy_from_slice(&crc.to_le_bytes());
        packet
    }

    #[test]
    fn sctp_has_its_checksum_over_all_of_a_train() {
        let (before, after) = (sctp_packet([0, 1, 0, 2], &[7; 100]), sctp_packet([0, 9, 0, 8], &[7; 100]));
        let mut stash = Pool::heap(64, 0).stash();
        let mut edited = |octets: &[u8], edits: &Edits, train: Option<usize>| {
            let mut frame = stash.take().unwrap();
            assert!(frame.fill(octets));
            let layers = layers(octets, octets.len(), None).unwrap();
            let done = edits.apply_to(&mut frame, &layers, train);
            let octets = frame.head()[34..].to_vec();
            stash.give(frame);
            done.then_some(octets)
        };
        let whole = ethernet(&[], 0x0800, &ipv4(SCTP, 0, &[], &before));
        let first = ethernet(&[], 0x0800, &ipv4(SCTP, 0x2000, &[], &before[..48]));
        let later = ethernet(&[], 0x0800, &ipv4(SCTP, 6, &[], &before[48..]));
        let edits = Edits::between(&facts(&whole), &facts(&ethernet(&[], 0x0800, &ipv4(SCTP, 0, &[], &after))), 0);
        assert_eq!(edited(&whole, &edits, None).as_ref(), Some(&after));
        let train = [&first, &later].map(|octets| edited(octets, &edits, Some(before.len())).unwrap());
        assert_eq!(train.concat(), after);
        assert_eq!(edited(&first, &edits, None), None, "alone it cannot be changed");
    }
}
