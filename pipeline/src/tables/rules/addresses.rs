//! Addresses of either version as a dimension.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Row, Spans};

/// Rows by IP address.
#[derive(Debug)]
pub struct Addresses {
    four: Spans<u32>,
    six: Spans<u128>,
}

/// Addresses of one version, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Of IPv4.
    Four(u32, u32),
    /// Of IPv6.
    Six(u128, u128),
}

impl Range {
    /// Every address.
    pub const ALL: [Self; 2] = [Self::Four(0, u32::MAX), Self::Six(0, u128::MAX)];

    /// The addresses of a prefix.
    pub fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::Four(net.network().into(), net.broadcast().into()),
            IpNet::V6(net) => Self::Six(net.network().into(), net.broadcast().into()),
        }
    }

    /// The addresses of a prefix that lie in none of these others.
    pub fn without(net: IpNet, except: &[IpNet]) -> Vec<Self> {
        let mut holes: Vec<Self> = except.iter().map(|hole| Self::of(*hole)).collect();
        holes.sort_unstable_by_key(|hole| match hole {
            Self::Four(first, _) => u128::from(*first),
            Self::Six(first, _) => *first,
        });
        let (mut ranges, mut rest) = (Vec::new(), Some(Self::of(net)));
        for hole in holes {
            let Some(whole) = rest else { break };
            let (before, behind) = whole.split(hole);
            ranges.extend(before);
            rest = behind;
        }
        ranges.extend(rest);
        ranges
    }

    /// What lies before a hole, and what lies behind it. All of it lies behind a hole that is elsewhere.
    fn split(self, hole: Self) -> (Option<Self>, Option<Self>) {
        match (self, hole) {
            (Self::Four(first, last), Self::Four(from, to)) if from <= last && to >= first => {
                let before = from.checked_sub(1).filter(|end| *end >= first).map(|end| Self::Four(first, end));
                let behind = to.checked_add(1).filter(|start| *start <= last).map(|start| Self::Four(start, last));
                (before, behind)
            }
            (Self::Six(first, last), Self::Six(from, to)) if from <= last && to >= first => {
                let before = from.checked_sub(1).filter(|end| *end >= first).map(|end| Self::Six(first, end));
                let behind = to.checked_add(1).filter(|start| *start <= last).map(|start| Self::Six(start, last));
                (before, behind)
            }
            _ => (None, Some(self)),
        }
    }
}

impl Addresses {
    /// For a list of so many rules: ranges and the number of the rule that matches them. A rule may have several.
    pub fn new(rules: usize, ranges: &[(Range, usize)]) -> Self {
        let four = ranges.iter().filter_map(|(range, rule)| match range {
            Range::Four(first, last) => Some((*first, *last, *rule)),
            Range::Six(..) => None,
        });
        let six = ranges.iter().filter_map(|(range, rule)| match range {
            Range::Six(first, last) => Some((*first, *last, *rule)),
            Range::Four(..) => None,
        });
        Self { four: Spans::new(rules, four), six: Spans::new(rules, six) }
    }

    /// The rules that match an address.
    #[inline]
    pub fn row(&self, address: IpAddr) -> Row<'_> {
        match address {
            IpAddr::V4(address) => self.four.row(address.into()),
            IpAddr::V6(address) => self.six.row(address.into()),
        }
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        self.four.octets() + self.six.octets()
    }
}
