//! Tuples as words: what records hold of them, and what the index compares.

use std::net::{IpAddr, Ipv6Addr};

use api::BridgeId;

use super::Tuple;

/// A tuple as a record has it: addresses as IPv6 (RFC 4291, 2.5.5.2), and in `rest`, from the lowest bit on: source port
/// 16, destination port 16, zone 16, protocol 8, and a bit for either address that is IPv4 in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Packed {
    src: u128,
    dst: u128,
    rest: u64,
}

impl Packed {
    pub(super) fn of(tuple: &Tuple) -> Self {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 1),
            IpAddr::V6(address) => (address.to_bits(), 0),
        };
        let ((src, src4), (dst, dst4)) = (bits(tuple.src), bits(tuple.dst));
        let rest = u64::from(tuple.sport)
            | u64::from(tuple.dport) << 16
            | u64::from(tuple.zone.0) << 32
            | u64::from(tuple.proto) << 48
            | src4 << 56
            | dst4 << 57;
        Self { src, dst, rest }
    }

    pub(super) fn tuple(&self) -> Tuple {
        let address = |bits, is_v4| match Ipv6Addr::from_bits(bits) {
            address if is_v4 => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
            address => IpAddr::V6(address),
        };
        Tuple {
            zone: BridgeId((self.rest >> 32) as u16),
            proto: self.proto(),
            src: address(self.src, self.rest >> 56 & 1 != 0),
            dst: address(self.dst, self.rest >> 57 & 1 != 0),
            sport: self.rest as u16,
            dport: (self.rest >> 16) as u16,
        }
    }

    pub(super) fn proto(&self) -> u8 {
        (self.rest >> 48) as u8
    }

    pub(super) fn words(&self) -> [u64; 5] {
        [self.src as u64, (self.src >> 64) as u64, self.dst as u64, (self.dst >> 64) as u64, self.rest]
    }

    pub(super) fn from_words([a, b, c, d, rest]: [u64; 5]) -> Self {
        Self { src: u128::from(b) << 64 | u128::from(a), dst: u128::from(d) << 64 | u128::from(c), rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_the_same_after_it_was_packed() {
        let tuple = |src: &str, dst: &str| Tuple {
            zone: BridgeId(0xfffe),
            proto: 0xfd,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport: 0xfffc,
            dport: 0xfffb,
        };
        let addresses = ["10.1.2.3", "255.255.255.255", "0.0.0.0", "fd00::1", "::", "::ffff:10.1.2.3"];
        let mut seen = std::collections::BTreeMap::new();
        for (src, dst) in addresses.into_iter().flat_map(|src| addresses.map(|dst| (src, dst))) {
            let packed = Packed::of(&tuple(src, dst));
            assert_eq!(packed.tuple(), tuple(src, dst));
            assert_eq!(Packed::from_words(packed.words()), packed);
            assert_eq!(seen.insert(packed.words(), (src, dst)), None, "{src} {dst} is packed as another is");
        }
    }
}
