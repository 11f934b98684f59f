//! An access list in the form in which it is asked (see [`crate::tables::rules`]).
//!
//! Protocol and port are one dimension, so that a list is asked by four facts, or five if it has TCP flags:
//!
//! ```text
//!   source │ destination │ protocol, source port │ protocol, destination port │ TCP flags
//!                          protocol, ICMP type     protocol, ICMP code
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use api::{AclAction, AclMatch, AclRule};

use crate::key::{Field, FlowKey, KeyMask};
use crate::parse::proto;
use crate::tables::rules::addresses::Range;
use crate::tables::rules::{Addresses, Build, Row, Sets, Spans, first};

/// Where the ICMP type is in [`Field::TP_SRC`], and the code in [`Field::TP_DST`]: the other octet is no business of rules.
const ICMP_TYPE: Field = Field { at: Field::TP_SRC.at + 1, len: 1 };
const ICMP_CODE: Field = Field { at: Field::TP_DST.at + 1, len: 1 };
/// Added to a protocol's number: the packet has no transport header, so no rule matches that asks for something in it.
const HEADLESS: u32 = 1 << 24;
/// TCP flags and the reserved bits (RFC 9293, 3.1).
const FLAGS: u16 = 0xfff;

/// What a list is asked about a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    src: IpAddr,
    dst: IpAddr,
    /// Protocol and port, or type; protocol and port, or code.
    sport: u32,
    dport: u32,
    flags: u16,
}

impl Facts {
    /// Of the packet with this key, on its way to `dst`; `None` if it is not IP.
    pub(super) fn of(key: &FlowKey, dst: Option<IpAddr>, dport: u16) -> Option<Self> {
        let (src, dst) = (key.source()?, dst?);
        let proto = u32::from(key.ip_proto()) << 16;
        let (sport, dport) = match (key.ip_proto(), key.icmp_type(), key.icmp_code()) {
            _ if key.is_later_fragment() => (proto | HEADLESS, proto | HEADLESS),
            (proto::TCP | proto::UDP | proto::SCTP, ..) => (proto | u32::from(key.tp_src()), proto | u32::from(dport)),
            (_, Some(kind), Some(code)) => (proto | u32::from(kind), proto | u32::from(code)),
            _ => (proto | HEADLESS, proto | HEADLESS),
        };
        Some(Self { src, dst, sport, dport, flags: u16::from_be_bytes(key.get(Field::TCP_FLAGS)) & FLAGS })
    }
}

/// A list.
#[derive(Debug)]
pub(super) struct List {
    rules: Arc<[AclRule]>,
    stateful: bool,
    mask: KeyMask,
    src: Addresses,
    dst: Addresses,
    sport: Spans<u32>,
    dport: Spans<u32>,
    flags: Option<Flags>,
}

impl List {
    pub(super) fn new(rules: &Arc<[AclRule]>) -> Self {
        let addresses = |of: fn(&AclMatch) -> Option<ipnet::IpNet>| {
            let ranges = each(rules, |matches| match (of(matches), matches.version) {
                (Some(net), _) => vec![Range::of(net)],
                (None, Some(4)) => vec![Range::ALL[0]],
                (None, Some(6)) => vec![Range::ALL[1]],
                (None, _) => Range::ALL.to_vec(),
            });
            Addresses::new(rules.len(), &ranges.collect::<Vec<_>>())
        };
        let ports = |port: fn(&AclMatch) -> Option<(u16, u16)>, octet: fn(&AclMatch) -> Option<u8>| {
            let ranges = each(rules, |matches| transport(matches, port(matches), octet(matches)));
            Spans::new(rules.len(), ranges.map(|((first, last), rule)| (first, last, rule)))
        };
        let mask = rules.iter().fold(FlowKey::mask(&[Field::ETH_TYPE]), |mask, rule| mask.union(&looks_at(rule)));
        Self {
            rules: Arc::clone(rules),
            stateful: rules.iter().any(|rule| rule.action == AclAction::AllowRelated),
            mask,
            src: addresses(|matches| matches.src),
            dst: addresses(|matches| matches.dst),
            sport: ports(|matches| matches.sport, |matches| matches.icmp_type),
            dport: ports(|matches| matches.dport, |matches| matches.icmp_code),
            flags: Flags::new(rules),
        }
    }

    /// The rules, in order.
    pub(super) fn rules(&self) -> Arc<[AclRule]> {
        Arc::clone(&self.rules)
    }

    /// Packets of known connections are not its business.
    pub(super) fn is_stateful(&self) -> bool {
        self.stateful
    }

    /// The fields that it looks at.
    pub(super) fn mask(&self) -> &KeyMask {
        &self.mask
    }

    /// The rule that decides, and its place in the list.
    pub(super) fn ask(&self, facts: &Facts) -> Option<(usize, &AclRule)> {
        let addresses = (self.src.row(facts.src), self.dst.row(facts.dst));
        let ports = (self.sport.row(facts.sport), self.dport.row(facts.dport));
        let at = match &self.flags {
            None => first(&(addresses, ports), 0),
            Some(flags) => first(&((addresses, ports), flags.row(facts.flags)), 0),
        }?;
        self.rules.get(at).map(|rule| (at, rule))
    }
}

/// What each rule says of one dimension, and the number of the rule.
fn each<T>(rules: &[AclRule], of: impl Fn(&AclMatch) -> Vec<T>) -> impl Iterator<Item = (T, usize)> {
    (0..).zip(rules).flat_map(move |(at, rule)| of(&rule.matches).into_iter().map(move |one| (one, at)))
}

/// A match asks for something in the transport header.
fn needs_header(matches: &AclMatch) -> bool {
    let AclMatch { sport, dport, tcp_flags, icmp_type, icmp_code, .. } = matches;
    sport.is_some() || dport.is_some() || tcp_flags.is_some() || icmp_type.is_some() || icmp_code.is_some()
}

/// The protocols that a match can be about; `None`: all.
fn protocols(matches: &AclMatch) -> Option<Vec<u8>> {
    match matches.proto {
        Some(proto) => Some(vec![proto]),
        None if matches.tcp_flags.is_some() => Some(vec![proto::TCP]),
        None if matches.sport.is_some() || matches.dport.is_some() => Some(vec![proto::TCP, proto::UDP, proto::SCTP]),
        None if needs_header(matches) => Some(vec![proto::ICMP, proto::ICMPV6]),
        None => None,
    }
}

/// Ranges of a transport dimension: of ports, or of the octet that ICMP has there.
fn transport(matches: &AclMatch, ports: Option<(u16, u16)>, octet: Option<u8>) -> Vec<(u32, u32)> {
    let Some(protocols) = protocols(matches) else { return vec![(0, u32::MAX)] };
    let mut ranges = Vec::new();
    for number in protocols {
        let base = u32::from(number) << 16;
        let octet = octet.map(|octet| (octet.into(), octet.into()));
        let (first, last) = ports.or(octet).unwrap_or((0, u16::MAX));
        ranges.push((base | u32::from(first), base | u32::from(last)));
        if !needs_header(matches) {
            ranges.push((base | HEADLESS, base | HEADLESS));
        }
    }
    ranges
}

/// The fields beside the Ethernet type that decide whether a rule matches, and what becomes of a packet then.
fn looks_at(rule: &AclRule) -> KeyMask {
    let AclMatch { version, src, dst, proto, sport, dport, tcp_flags, icmp_type, icmp_code } = &rule.matches;
    let mut fields = Vec::new();
    let mut when = |looks: bool, these: &[Field]| {
        if looks {
            fields.extend_from_slice(these);
        }
    };
    let refuses = matches!(rule.action, AclAction::Drop | AclAction::Reject);
    let is = |net: &Option<ipnet::IpNet>, six: bool| net.is_some_and(|net| net.addr().is_ipv6() == six);
    // Who rejects answers the sender, in the name of the destination.
    let rejects = rule.action == AclAction::Reject;
    when(is(src, false) || rejects && *version != Some(6), &[Field::IPV4_SRC]);
    when(is(dst, false) || rejects && *version != Some(6), &[Field::IPV4_DST]);
    when(is(src, true) || rejects && *version != Some(4), &[Field::IPV6_SRC]);
    when(is(dst, true) || rejects && *version != Some(4), &[Field::IPV6_DST]);
    // What must not be refused is told from the rest (ND).
    let six = *version != Some(4) && !is(src, false) && !is(dst, false);
    let may_refuse_nd = refuses && six && proto.is_none_or(|proto| proto == proto::ICMPV6);
    let header = needs_header(&rule.matches);
    when(rejects || header || proto.is_some() || may_refuse_nd, &[Field::IP_PROTO, Field::IP_FRAG]);
    when(icmp_type.is_some() || may_refuse_nd, &[ICMP_TYPE]);
    when(icmp_code.is_some(), &[ICMP_CODE]);
    when(sport.is_some(), &[Field::TP_SRC]);
    when(dport.is_some(), &[Field::TP_DST]);
    when(tcp_flags.is_some(), &[Field::TCP_FLAGS]);
    FlowKey::mask(&fields)
}

/// Rules by TCP flags: a row for each combination of those flags that any rule asks for.
#[derive(Debug)]
struct Flags {
    asked: u16,
    /// By the value of all flags, those that nobody asks for clear.
    rows: Box<[u32]>,
    sets: Sets,
}

impl Flags {
    fn new(rules: &[AclRule]) -> Option<Self> {
        let asked =
            rules.iter().filter_map(|rule| rule.matches.tcp_flags).fold(0, |asked, (_, mask)| asked | mask) & FLAGS;
        if rules.iter().all(|rule| rule.matches.tcp_flags.is_none()) {
            return None;
        }
        let mut build = Build::new(rules.len());
        let mut rows = vec![0; usize::from(FLAGS) + 1];
        for (value, row) in (0..=FLAGS).zip(&mut rows).filter(|(value, _)| value & !asked == 0) {
            let meets = |flags: &Option<(u16, u16)>| flags.is_none_or(|(flags, mask)| value & mask == flags);
            let matching = (0..).zip(rules).filter(|(_, rule)| meets(&rule.matches.tcp_flags));
            *row = build.row(matching.map(|(at, _)| at));
        }
        Some(Self { asked, rows: rows.into(), sets: build.finish() })
    }

    fn row(&self, flags: u16) -> Row<'_> {
        let row = self.rows.get(usize::from(flags & self.asked)).copied();
        self.sets.row(row.unwrap_or(u32::MAX))
    }
}
