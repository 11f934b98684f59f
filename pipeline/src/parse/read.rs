//! Reading fields out of octets that may end anywhere: `None` where the octets end first.

/// `N` octets from `at`.
#[inline]
pub(crate) fn array<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

/// One octet.
#[inline]
pub(crate) fn octet(octets: &[u8], at: usize) -> Option<u8> {
    octets.get(at).copied()
}

/// Two octets in network order.
#[inline]
pub(crate) fn be16(octets: &[u8], at: usize) -> Option<u16> {
    array(octets, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beyond_the_end_is_none() {
        let octets = [1, 2, 3];
        assert_eq!((be16(&octets, 1), be16(&octets, 2), be16(&octets, usize::MAX)), (Some(0x0203), None, None));
        assert_eq!((octet(&octets, 2), octet(&octets, 3)), (Some(3), None));
        assert_eq!(array::<0>(&octets, 3), Some([]));
    }
}
