//! Numbers made of names, the same on every start, machine and release.

use api::MacAddr;

/// FNV-1a of 64 bits (RFC 9923, 2 and 5). Names come from those who may name things anyway: nobody gains by a collision.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// The router's Ethernet address on a node: locally administered (IEEE 802-2014, 8.2.2), the rest by the node's name.
pub(crate) fn router_mac(node: &str) -> MacAddr {
    let hash = hash(node);
    // The high octets of FNV-1a are mixed least by the last octets of a text: fold them.
    let [.., a, b, c, d, e] = (hash ^ hash >> 40).to_be_bytes();
    MacAddr([2, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_rfc() {
        // RFC 9923, appendix C.
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn nodes_have_router_addresses_of_their_own() {
        let macs: std::collections::BTreeSet<_> = (0..5000).map(|n| router_mac(&format!("node-{n}"))).collect();
        assert_eq!(macs.len(), 5000);
        assert!(macs.iter().all(|mac| !mac.is_group() && mac.0[0] == 2));
    }
}
