//! What one field may hold. Every fault is `FIELD: VALUE: RULE`, with the field's path as kubectl writes it.

use std::fmt::Display;
use std::net::IpAddr;

use api::Proto;
use ipnet::IpNet;

use super::address;
use crate::cluster::model::{Family, Labels};

/// A field, or why it cannot be.
pub(crate) type Checked<T> = Result<T, String>;

/// What is said of a field: the value is cut where it gets long, and stays in one line.
pub(crate) fn fault(field: impl Display, value: impl Display, rule: &str) -> String {
    format!("{field}: {}: {rule}", shown(&value.to_string()))
}

/// Text of a stranger, fit for a line.
pub(crate) fn shown(text: &str) -> String {
    const LIMIT: usize = 64;
    let mut shown: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LIMIT).is_some() {
        shown += "...";
    }
    shown
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    (1..=63).contains(&bytes.len())
        && ends.into_iter().all(|end| end.is_some_and(|&b| is_lower(b)))
        && bytes.iter().all(|&b| is_lower(b) || b == b'-')
}

/// A label of RFC 1123: the name of a Namespace or a Service.
pub(crate) fn label(field: &str, value: &str) -> Checked<()> {
    const RULE: &str = "must be 1 to 63 of a-z, 0-9 and '-', with none of '-' at an end (RFC 1123)";
    if is_label(value) { Ok(()) } else { Err(fault(field, value, RULE)) }
}

/// A name of RFC 1123: labels with dots between them, up to 253 octets.
pub(crate) fn subdomain(field: &str, value: &str) -> Checked<()> {
    const RULE: &str =
        "must be up to 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends of each part (RFC 1123)";
    let is_part = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().last()];
        ends.into_iter().all(|end| end.is_some_and(is_lower)) && part.bytes().all(|b| is_lower(b) || b == b'-')
    };
    if value.len() <= 253 && value.split('.').all(is_part) { Ok(()) } else { Err(fault(field, value, RULE)) }
}

/// The name of a container's port (RFC 6335, 5.1).
pub(crate) fn port_name(field: &str, value: &str) -> Checked<()> {
    const RULE: &str = "must be 1 to 15 of a-z, 0-9 and '-', with a letter, with no '-' at an end or beside another";
    let bytes = value.as_bytes();
    let good =
        bytes.len() <= 15 && is_label(value) && bytes.iter().any(u8::is_ascii_lowercase) && !value.contains("--");
    if good { Ok(()) } else { Err(fault(field, value, RULE)) }
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends.into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Labels, or a selector.
pub(crate) fn labels(field: &str, labels: &Labels) -> Checked<()> {
    for (key, value) in labels {
        label_key(field, key)?;
        label_value(&format!("{field}[{}]", shown(key)), value)?;
    }
    Ok(())
}

/// The key of a label.
pub(crate) fn label_key(field: &str, key: &str) -> Checked<()> {
    const RULE: &str = "must be a key: [PREFIX/]NAME, the name 1 to 63 of A-Z, a-z, 0-9, '-', '_', '.'";
    let name = match key.split_once('/') {
        None => Some(key),
        Some((prefix, name)) => subdomain("", prefix).is_ok().then_some(name),
    };
    if name.is_some_and(is_qualified) { Ok(()) } else { Err(fault(field, key, RULE)) }
}

/// The value of a label.
pub(crate) fn label_value(field: &str, value: &str) -> Checked<()> {
    const RULE: &str = "must be up to 63 of A-Z, a-z, 0-9, '-', '_', '.'";
    if value.is_empty() || is_qualified(value) { Ok(()) } else { Err(fault(field, value, RULE)) }
}

/// A port.
pub(crate) fn port(field: impl Display, value: i32) -> Checked<u16> {
    let port = u16::try_from(value).ok().filter(|&port| port > 0);
    port.ok_or_else(|| fault(field, value, "must be between 1 and 65535"))
}

/// A protocol; TCP when none is given.
pub(crate) fn protocol(field: impl Display, value: Option<&str>) -> Checked<Proto> {
    match value {
        None | Some("" | "TCP") => Ok(Proto::Tcp),
        Some("UDP") => Ok(Proto::Udp),
        Some("SCTP") => Ok(Proto::Sctp),
        Some(other) => Err(fault(field, other, "must be TCP, UDP or SCTP")),
    }
}

/// A family.
pub(crate) fn family(field: impl Display, value: &str) -> Checked<Family> {
    match value {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        other => Err(fault(field, other, "must be IPv4 or IPv6")),
    }
}

/// An address that somebody can have.
pub(crate) fn address(field: impl Display, value: &str) -> Checked<IpAddr> {
    let Some(address) = address::address(value) else {
        return Err(fault(field, value, "must be an IPv4 or IPv6 address"));
    };
    if !address::is_usable(&address) {
        return Err(fault(field, value, "may not be unspecified, loopback, link-local or multicast"));
    }
    Ok(address)
}

/// A prefix whose addresses somebody can have.
pub(crate) fn prefix(field: impl Display, value: &str) -> Checked<IpNet> {
    let Some(net) = address::prefix(value) else {
        return Err(fault(field, value, "must be a prefix such as 10.0.0.0/16 or fd00::/64"));
    };
    if !address::is_usable(&net.network()) {
        return Err(fault(field, value, "may not be unspecified, loopback, link-local or multicast"));
    }
    Ok(net)
}

/// A prefix from which somebody may come, as `loadBalancerSourceRanges` has them: with room around it, and all addresses.
pub(crate) fn range(field: impl Display, value: &str) -> Checked<IpNet> {
    let net = address::prefix(value.trim());
    net.ok_or_else(|| fault(field, value, "must be a prefix such as 192.0.2.0/24 or ::/0"))
}

/// A prefix of any addresses, exactly as it is written.
pub(crate) fn cidr(field: impl Display, value: &str) -> Checked<IpNet> {
    address::prefix(value).ok_or_else(|| fault(field, value, "must be a prefix such as 10.0.0.0/8 or fd00::/8"))
}

/// At most two, of different families.
pub(crate) fn one_each(field: &str, values: &[impl Display], families: &[Family]) -> Checked<()> {
    for (i, (value, family)) in values.iter().zip(families).enumerate() {
        if families.iter().take(i).any(|before| before == family) {
            let rule = format!("another of {} stands before it: there may be one of a family", family.name());
            return Err(fault(format_args!("{field}[{i}]"), value, &rule));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rfc_1123() {
        let long = "a".repeat(64);
        for good in ["a", "a-b", "0a", &long[..63]] {
            assert_eq!(label("f", good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "ä", &long] {
            assert!(label("f", bad).is_err(), "{bad}");
        }
        assert_eq!(subdomain("f", "a.b-c.d"), Ok(()));
        for bad in ["", "a..b", ".a", "a-.b", &"a.".repeat(200)] {
            assert!(subdomain("f", bad).is_err(), "{bad}");
        }
        assert_eq!(port_name("f", "http-2"), Ok(()));
        for bad in ["80", "a--b", "sixteen-letters-", ""] {
            assert!(port_name("f", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_is_one_line_however_long_the_value() {
        let why = fault("f", "x\n".repeat(1 << 20), "rule");
        assert!(why.len() < 300 && !why.contains('\n') && why.ends_with(": rule"), "{why}");
    }
}
