//! Addresses and prefixes as Kubernetes has always taken them: leading zeros of an IPv4 octet mean nothing, and above all
//! not octal (CVE-2021-29923; rule S4 of the specification: `010.0.0.5` is 10.0.0.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Octets of an address in text at most; the longest is 45, without zeros that mean nothing.
const LIMIT: usize = 128;

/// The address that a text is. An IPv4 address mapped to IPv6 is the IPv4 address.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    if text.len() > LIMIT {
        return None;
    }
    if !text.contains(':') {
        return ipv4(text).map(IpAddr::V4);
    }
    let v6: Ipv6Addr = match text.rsplit_once(':') {
        // The last 32 bits may be written as IPv4 (RFC 4291, 2.2).
        Some((front, back)) if back.contains('.') => format!("{front}:{}", ipv4(back)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(IpAddr::V6(v6).to_canonical())
}

/// The prefix that a text is, without host bits.
pub(crate) fn prefix(text: &str) -> Option<IpNet> {
    let (front, length) = text.split_once('/')?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    IpNet::new(address(front)?, length.parse().ok()?).ok().map(|net| net.trunc())
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))?;
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Whether an address can be somebody's: not unspecified, loopback, link-local or multicast.
pub(crate) fn is_usable(address: &IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_leading_zeros_are_decimal() {
        for (sloppy, means) in [
            ("010.0.0.5", "10.0.0.5"),
            ("10.096.000.0010", "10.96.0.10"),
            ("fd00::010", "fd00::10"),
            ("64:ff9b::010.0.0.08", "64:ff9b::10.0.0.8"),
            ("::ffff:010.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(address(sloppy), means.parse().ok(), "{sloppy}");
        }
        for (sloppy, means) in [("010.001.0.0/16", "10.1.0.0/16"), ("10.1.2.3/16", "10.1.0.0/16")] {
            assert_eq!(prefix(sloppy), means.parse().ok(), "{sloppy}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        let long = "0".repeat(200);
        for text in ["", "10.0.0", "10.0.0.0.1", "10.0.0.256", "10.0.0.-1", "0x0a.0.0.1", "::g", "fe80::1%eth0", &long]
        {
            assert_eq!(address(text), None, "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/ 8", "fd00::/129", "/8"] {
            assert_eq!(prefix(text), None, "{text}");
        }
    }
}
