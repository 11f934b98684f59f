//! The Internet checksum (RFC 1071): in full, over pieces, with a pseudo header, and brought up to date (RFC 1624).
//!
//! It never looks at what it sums: where a checksum lies and what it covers is the caller's knowledge.

/// A one's complement sum under way. Pieces are added in their order; only the last may have an odd length, or the
/// others are counted as if they stood right behind each other, which is what a frame in two segments needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of words in the machine's own order, which the sum does not mind (RFC 1071, 2B), not folded.
    sum: u64,
    /// An odd number of octets was added: the next one is the low half of its word.
    odd: bool,
}

impl Sum {
    /// Nothing added yet.
    pub const EMPTY: Self = Self { sum: 0, odd: false };

    /// The pseudo header of IPv4 (RFC 9293, 3.1): `len` octets of transport header and payload.
    pub fn pseudo4(source: [u8; 4], destination: [u8; 4], proto: u8, len: u16) -> Self {
        let [high, low] = len.to_be_bytes();
        Self::EMPTY.plus(&source).plus(&destination).plus(&[0, proto, high, low])
    }

    /// The pseudo header of IPv6 (RFC 8200, 8.1).
    pub fn pseudo6(source: [u8; 16], destination: [u8; 16], proto: u8, len: u32) -> Self {
        Self::EMPTY.plus(&source).plus(&destination).plus(&len.to_be_bytes()).plus(&[0, 0, 0, proto])
    }

    /// Add octets.
    #[must_use]
    pub fn plus(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<4>();
        let mut sum = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        sum += u64::from(u32::from_ne_bytes(last));
        if self.odd {
            sum = u64::from(fold(sum).swap_bytes());
        }
        Self { sum: u64::from(fold(self.sum)) + sum, odd: self.odd ^ (octets.len() % 2 == 1) }
    }

    /// The sum itself, as it stands in the field of an unfinished checksum.
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum: the complement of the sum.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// The sum of a few octets, as [`Sum::folded`] has it.
#[inline]
pub fn sum<const N: usize>(octets: &[u8; N]) -> u16 {
    const { assert!(N.is_multiple_of(4)) };
    let (words, _) = octets.as_chunks::<4>();
    u16::from_be(fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()))
}

/// The checksum of `octets`.
pub fn checksum(octets: &[u8]) -> u16 {
    Sum::EMPTY.plus(octets).checksum()
}

/// A checksum after one of the words under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum + (sum >> 16)) as u16)
}

/// The same for four octets, as they stand in the frame.
#[inline]
pub fn updated4(checksum: u16, old: [u8; 4], new: [u8; 4]) -> u16 {
    let ([a, b, c, d], [e, f, g, h]) = (old, new);
    let word = |high, low| u16::from_be_bytes([high, low]);
    updated(updated(checksum, word(a, b), word(e, f)), word(c, d), word(g, h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word by word, as the RFC says it.
    fn plainly(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_real_ipv4_header_has_the_checksum_it_states() {
        let mut header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];
        assert_eq!(checksum(&header), 0);
        header[10..12].fill(0);
        assert_eq!(checksum(&header), 0xb861);
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_sum_to_the_whole(
            octets in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200, then in 0usize..200,
        ) {
            let (head, rest) = octets.split_at(at.min(octets.len()));
            let (middle, tail) = rest.split_at(then.min(rest.len()));
            let sum = Sum::EMPTY.plus(head).plus(middle).plus(tail);
            prop_assert_eq!(sum.checksum(), plainly(&octets));
            prop_assert_eq!(checksum(&octets), plainly(&octets));
        }

        #[test]
        fn an_updated_checksum_verifies(mut octets in proptest::collection::vec(any::<u8>(), 8..64), new: [u8; 4]) {
            octets.truncate(octets.len() & !1);
            let before = checksum(&octets);
            let old = [octets[4], octets[5], octets[6], octets[7]];
            octets[4..8].copy_from_slice(&new);
            let after = updated4(before, old, new);
            // Zero has two representations; both verify.
            prop_assert_eq!(Sum::EMPTY.plus(&octets).plus(&after.to_be_bytes()).folded(), 0xffff);
        }

        #[test]
        fn pseudo_headers_agree_with_etherparse(
            source: [u8; 4], destination: [u8; 4], payload in proptest::collection::vec(any::<u8>(), 0..99),
            source6: [u8; 16], destination6: [u8; 16],
        ) {
            let udp = etherparse::UdpHeader::with_ipv4_checksum(
                1, 2, &etherparse::Ipv4Header::new(0, 1, etherparse::IpNumber::UDP, source, destination).unwrap(), &payload,
            ).unwrap();
            let len = (8 + payload.len()) as u16;
            let sum = |pseudo: Sum| pseudo.plus(&udp.to_bytes()).plus(&payload).folded();
            prop_assert_eq!(sum(Sum::pseudo4(source, destination, 17, len)), 0xffff);
            let mut udp = udp;
            udp.checksum = udp.calc_checksum_ipv6_raw(source6, destination6, &payload).unwrap();
            let sum = Sum::pseudo6(source6, destination6, 17, u32::from(len)).plus(&udp.to_bytes()).plus(&payload);
            prop_assert_eq!(sum.folded(), 0xffff);
        }
    }
}
