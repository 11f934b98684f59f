//! Addresses for attachments, out of the node's podCIDRs.
//!
//! Nothing is kept here that must not be lost: what is given out is in the attachments, which are durable before anybody
//! hears of them. What is remembered beside them is where to go on, so that an address is given again as late as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::cluster::compile::node::gateway;

/// Where to go on, by podCIDR.
#[derive(Clone, Debug, Default)]
pub(super) struct Ipam {
    last: BTreeMap<IpNet, IpAddr>,
}

/// The one that follows, from the first one again behind the last.
fn next(prefix: &IpNet, address: IpAddr) -> IpAddr {
    let after = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    };
    after.filter(|after| prefix.contains(after)).unwrap_or_else(|| prefix.network())
}

/// Whether a container may have an address of a podCIDR: not the network's own, not the gateway's, not the one to all.
pub(super) fn is_for_containers(prefix: &IpNet, address: IpAddr) -> bool {
    // RFC 3021 and RFC 6164: two addresses are two hosts.
    let special = match prefix {
        IpNet::V4(net) => net.prefix_len() < 31 && address == IpAddr::V4(net.broadcast()),
        IpNet::V6(_) => false,
    };
    let first = address == prefix.network() && prefix.prefix_len() < prefix.max_prefix_len() - 1;
    prefix.contains(&address) && !first && !special && gateway(prefix).is_none_or(|gateway| gateway.addr() != address)
}

impl Ipam {
    /// The next free address of a podCIDR; `None` when all are taken.
    pub(super) fn choose(&mut self, prefix: &IpNet, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut candidate = self.last.get(prefix).copied().unwrap_or_else(|| prefix.network());
        // As many as are taken, and those that nobody may have.
        for _ in 0..taken.len() + 4 {
            candidate = next(prefix, candidate);
            if is_for_containers(prefix, candidate) && !taken.contains(&candidate) {
                self.last.insert(*prefix, candidate);
                return Some(candidate);
            }
        }
        None
    }

    /// Whether there is a free address.
    pub(super) fn has_room(&self, prefix: &IpNet, taken: &BTreeSet<IpAddr>) -> bool {
        self.clone().choose(prefix, taken).is_some()
    }

    /// An address was given out before this process was there: go on behind the highest.
    pub(super) fn resume(&mut self, prefix: &IpNet, given: IpAddr) {
        let last = self.last.entry(*prefix).or_insert(given);
        *last = given.max(*last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn all_of_a_prefix_is_given_once_and_what_comes_back_is_given_last() {
        let prefix = net("10.244.1.0/29");
        let (mut ipam, mut taken) = (Ipam::default(), BTreeSet::new());
        let mut given = Vec::new();
        while let Some(address) = ipam.choose(&prefix, &taken) {
            assert!(taken.insert(address));
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]);
        assert!(!ipam.has_room(&prefix, &taken));
        taken.remove(&ip("10.244.1.3"));
        taken.remove(&ip("10.244.1.6"));
        assert_eq!(ipam.choose(&prefix, &taken), Some(ip("10.244.1.3")), "from the beginning again");
        taken.insert(ip("10.244.1.3"));
        taken.remove(&ip("10.244.1.2"));
        assert_eq!(ipam.choose(&prefix, &taken), Some(ip("10.244.1.6")), "and on from there");
    }

    #[test]
    fn a_restart_goes_on_behind_what_is_given() {
        let prefix = net("fd00:1::/64");
        let mut ipam = Ipam::default();
        ipam.resume(&prefix, ip("fd00:1::9"));
        ipam.resume(&prefix, ip("fd00:1::5"));
        assert_eq!(ipam.choose(&prefix, &BTreeSet::new()), Some(ip("fd00:1::a")));
    }

    #[test]
    fn a_wide_prefix_costs_what_is_taken() {
        let prefix = net("10.0.0.0/8");
        let taken: BTreeSet<IpAddr> =
            (0..1000u32).map(|n| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0002 + n))).collect();
        assert_eq!(Ipam::default().choose(&prefix, &taken), Some(ip("10.0.3.234")));
    }

    #[test]
    fn small_prefixes_have_what_they_have() {
        let all = |prefix: &str| {
            let (mut ipam, mut taken, mut given) = (Ipam::default(), BTreeSet::new(), Vec::new());
            while let Some(address) = ipam.choose(&net(prefix), &taken) {
                taken.insert(address);
                given.push(address.to_string());
            }
            given
        };
        assert_eq!(all("10.0.0.0/30"), ["10.0.0.2"]);
        assert_eq!(all("10.0.0.0/31"), ["10.0.0.0"], "the other one is the gateway's");
        assert_eq!(all("10.0.0.7/32"), ["10.0.0.7"]);
        assert_eq!(all("fd00::/127"), ["fd00::"]);
        assert_eq!(all("255.255.255.252/30"), ["255.255.255.254"]);
    }
}
