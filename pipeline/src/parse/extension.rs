//! IPv6 extension headers: what stands between the fixed header and the transport header (RFC 8200, section 4).
//!
//! ESP hides what follows and "no next header" has nothing to follow: both are taken for the transport protocol, as is
//! every number that we do not know.

use crate::drop::DropReason;
use crate::key::FRAG_LATER;

use super::layers::fragment;
use super::read::{array, be16};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Headers that a packet may have. RFC 8200 knows of seven places; more are an attempt to keep us busy.
const MOST: usize = 8;

/// What the headers of a packet lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transport {
    /// Offset of the transport header from the start of the frame.
    pub(crate) at: usize,
    /// Its protocol. In a later fragment, what the fragment header says follows it.
    pub(crate) proto: u8,
    /// [`crate::key::FRAG_ANY`], [`FRAG_LATER`].
    pub(crate) frag: u8,
}

/// Walk the headers of the packet whose fixed header ends at `start` and names `next`, and which ends at `end`.
pub(crate) fn walk(head: &[u8], start: usize, end: usize, next: u8) -> Result<Transport, DropReason> {
    let mut found = Transport { at: start, proto: next, frag: 0 };
    let mut fragmented = false;
    for _ in 0..=MOST {
        let scale = match found.proto {
            HOP_BY_HOP if found.at == start => 8,
            HOP_BY_HOP => return Err(DropReason::Ipv6Extension),
            FRAGMENT if fragmented => return Err(DropReason::Ipv6Extension),
            ROUTING | DESTINATION | FRAGMENT => 8,
            AUTHENTICATION => 4,
            _ => return Ok(found),
        };
        let [next, length] = array(head, found.at).ok_or(DropReason::Ipv6Extension)?;
        let octets = match found.proto {
            FRAGMENT => 8,
            // RFC 4302, 2.2: in words, minus two; its fixed part alone is three words.
            AUTHENTICATION if length == 0 => return Err(DropReason::Ipv6Extension),
            AUTHENTICATION => (usize::from(length) + 2) * scale,
            _ => (usize::from(length) + 1) * scale,
        };
        let behind = found.at + octets;
        if behind > end || behind > head.len() {
            return Err(DropReason::Ipv6Extension);
        }
        if found.proto == FRAGMENT {
            fragmented = true;
            let word = be16(head, found.at + 2).ok_or(DropReason::Ipv6Extension)?;
            let (offset, more) = (usize::from(word & 0xfff8), word & 1 != 0);
            // The fragment header itself is not part of the packet that is put together again.
            let before = found.at - start + offset;
            found.frag = fragment(offset, more, end - behind, before).ok_or(DropReason::Ipv6Fragment)?;
        }
        (found.at, found.proto) = (behind, next);
        // What stands in a later fragment is payload, but what is said of it must be possible.
        if found.frag & FRAG_LATER != 0 && found.proto != HOP_BY_HOP {
            return Ok(found);
        }
    }
    Err(DropReason::Ipv6Extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::FRAG_ANY;

    fn chain(first: u8, octets: &[u8]) -> Result<Transport, DropReason> {
        walk(octets, 0, octets.len(), first)
    }

    #[test]
    fn each_header_is_passed_by_its_own_length_rule() {
        let mut octets = vec![ROUTING, 1];
        octets.resize(16, 0); // hop-by-hop, 16 octets
        octets.extend([AUTHENTICATION, 0, 0, 0, 0, 0, 0, 0]); // routing, 8 octets
        octets.extend([DESTINATION, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // AH, (2 + 2) * 4 octets
        octets.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(chain(HOP_BY_HOP, &octets), Ok(Transport { at: 48, proto: 6, frag: 0 }));
    }

    #[test]
    fn hop_by_hop_stands_first_or_nowhere() {
        assert_eq!(
            chain(DESTINATION, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            Err(DropReason::Ipv6Extension)
        );
    }

    #[test]
    fn a_chain_is_bounded_and_one_header_less_is_passed() {
        let link = |next: u8| [next, 0, 0, 0, 0, 0, 0, 0];
        let mut octets: Vec<u8> = std::iter::repeat_n(link(DESTINATION), MOST - 1).flatten().collect();
        octets.extend(link(17));
        assert_eq!(chain(DESTINATION, &octets).map(|found| found.proto), Ok(17));
        let mut octets: Vec<u8> = std::iter::repeat_n(link(DESTINATION), MOST).flatten().collect();
        octets.extend(link(17));
        assert_eq!(chain(DESTINATION, &octets), Err(DropReason::Ipv6Extension));
    }

    #[test]
    fn fragments_are_first_later_or_whole_and_never_twice() {
        let fragment = |word: u16, payload: usize| {
            let mut octets = vec![6, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 1];
            octets.resize(8 + payload, 0);
            chain(FRAGMENT, &octets)
        };
        assert_eq!(fragment(0, 3), Ok(Transport { at: 8, proto: 6, frag: 0 }));
        assert_eq!(fragment(1, 16), Ok(Transport { at: 8, proto: 6, frag: FRAG_ANY }));
        assert_eq!(fragment(8, 3), Ok(Transport { at: 8, proto: 6, frag: FRAG_ANY | FRAG_LATER }));
        for (word, payload) in [(1, 15), (1, 0), (8, 0), (0xfff8, 8)] {
            assert_eq!(fragment(word, payload), Err(DropReason::Ipv6Fragment), "{word:#x} {payload}");
        }
        let twice = [FRAGMENT, 0, 0, 1, 0, 0, 0, 1, 6, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(chain(FRAGMENT, &twice), Err(DropReason::Ipv6Extension));
    }

    #[test]
    fn a_header_beyond_the_packet_is_refused_at_every_length() {
        let octets = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(chain(DESTINATION, &octets).is_ok());
        for len in 0..octets.len() {
            assert_eq!(chain(DESTINATION, &octets[..len]), Err(DropReason::Ipv6Extension), "{len}");
        }
    }
}
