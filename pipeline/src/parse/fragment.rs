//! What a fragment says of the datagram that it is a piece of (RFC 791, 3.2; RFC 8200, 4.5), and how much one in one piece
//! carries.
//!
//! Read only off the fast path; the key of a frame has no more of it than that it is a fragment.

use crate::burst::{Kind, Layers};

use super::read::{array, be16, octet};

/// A piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of its data from the start of the frame.
    pub at: usize,
    /// Octets of data: padding behind the packet is not counted.
    pub octets: usize,
    /// Octets of the datagram's data in front of it.
    pub offset: usize,
    /// There is more of the datagram behind it.
    pub more: bool,
    /// What all pieces of a datagram have in common; 16 bits in IPv4.
    pub id: u32,
    /// Octets of the whole packet that are not data and count for its length: the header in IPv4, extension headers in
    /// front of the fragment header in IPv6.
    pub headers: usize,
}

impl Piece {
    /// It is all of its datagram: not a fragment, or an atomic one (RFC 6946).
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Octets of the datagram's data up to its end.
    pub fn end(&self) -> usize {
        self.offset + self.octets
    }
}

/// The piece that a frame is, which [`super::layers`] accepted and described with `layers`; `None` if it carries neither
/// IPv4 nor IPv6 with a fragment header.
pub fn piece(head: &[u8], layers: &Layers) -> Option<Piece> {
    let l3 = usize::from(layers.l3);
    match layers.kind {
        Kind::Ipv4 => of_ipv4(head, l3),
        Kind::Ipv6 => of_ipv6(head, l3),
        Kind::Other | Kind::Arp => None,
    }
}

/// Octets of transport header and payload of an IP packet that is no fragment: padding behind it is not counted. `None` for
/// another frame, or if the frame is not what `layers` says.
pub fn transport_octets(head: &[u8], layers: &Layers) -> Option<usize> {
    let l3 = usize::from(layers.l3);
    let end = match layers.kind {
        Kind::Ipv4 => l3 + usize::from(be16(head, l3 + 2)?),
        Kind::Ipv6 => l3 + 40 + usize::from(be16(head, l3 + 4)?),
        Kind::Other | Kind::Arp => return None,
    };
    end.checked_sub(usize::from(layers.l4))
}

fn of_ipv4(head: &[u8], l3: usize) -> Option<Piece> {
    let headers = usize::from(octet(head, l3)? & 0xf) * 4;
    let octets = usize::from(be16(head, l3 + 2)?).checked_sub(headers)?;
    let word = be16(head, l3 + 6)?;
    let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
    Some(Piece { at: l3 + headers, octets, offset, more, id: u32::from(be16(head, l3 + 4)?), headers })
}

fn of_ipv6(head: &[u8], l3: usize) -> Option<Piece> {
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    /// Hop-by-hop options, routing, destination options.
    const OTHERS: [u8; 3] = [0, 43, 60];
    let start = l3 + 40;
    let end = start + usize::from(be16(head, l3 + 4)?);
    let (mut at, mut next) = (start, octet(head, l3 + 6)?);
    while next != FRAGMENT {
        let [following, length] = array(head, at)?;
        at += match next {
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            other if OTHERS.contains(&other) => (usize::from(length) + 1) * 8,
            _ => return None,
        };
        next = following;
    }
    let (word, id) = (be16(head, at + 2)?, array(head, at + 4).map(u32::from_be_bytes)?);
    let (offset, more) = (usize::from(word & 0xfff8), word & 1 != 0);
    Some(Piece { at: at + 8, octets: end.checked_sub(at + 8)?, offset, more, id, headers: at - start })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::layers;
    use crate::parse::tests::frames::*;

    fn of(frame: &[u8]) -> Option<Piece> {
        piece(frame, &layers(frame, frame.len(), None).unwrap())
    }

    #[test]
    fn a_piece_is_where_its_header_says_and_padding_is_none_of_it() {
        let mut frame = ethernet(&[(0x8100, 3)], 0x0800, &ipv4(17, 0x2002, &[1; 8], &[7; 16]));
        frame.extend([0; 9]);
        let expected = Piece { at: 46, octets: 16, offset: 16, more: true, id: 0x1234, headers: 28 };
        assert_eq!(of(&frame), Some(expected));

        let chain = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 0, 16, 0, 0, 0, 9], &[7; 5]].concat();
        let expected = Piece { at: 70, octets: 5, offset: 16, more: false, id: 9, headers: 8 };
        assert_eq!(of(&ethernet(&[], 0x86dd, &ipv6(60, &chain))), Some(expected));
    }

    #[test]
    fn padding_and_extension_headers_are_no_transport() {
        let octets = |mut frame: Vec<u8>| {
            frame.extend([0; 9]);
            transport_octets(&frame, &layers(&frame, frame.len(), None).unwrap())
        };
        assert_eq!(octets(ethernet(&[(0x8100, 3)], 0x0800, &ipv4(17, 0, &[1; 8], &udp(b"hello")))), Some(13));
        let chain = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(b"hello")].concat();
        assert_eq!(octets(ethernet(&[], 0x86dd, &ipv6(60, &chain))), Some(13));
        assert_eq!(octets(ethernet(&[], 0x0806, &arp())), None);
    }

    #[test]
    fn what_is_whole_is_said_to_be() {
        let atomic = [&[17, 0, 0, 0, 0, 0, 0, 9][..], &udp(b"hello")].concat();
        assert!(of(&ethernet(&[], 0x86dd, &ipv6(44, &atomic))).unwrap().is_whole());
        assert!(of(&ethernet(&[], 0x0800, &ipv4(17, 0x4000, &[], &udp(b"")))).unwrap().is_whole());
        assert_eq!(of(&ethernet(&[], 0x86dd, &ipv6(17, &udp(b"")))), None);
        assert_eq!(of(&ethernet(&[], 0x0806, &arp())), None);
    }
}
