//! The choice of a source port: which ones a connection may take, in the order in which they are tried.

use std::net::IpAddr;

use super::states::{DCCP, ICMP, ICMP6, SCTP, TCP, UDP, UDP_LITE};
use super::{Plan, Source, Tuple};

/// Ports tried at random before the search goes one by one.
const RANDOM_TRIES: u32 = 128;
/// Ports tried one by one: a bound on what a connection costs that finds none. A range of no more is searched whole.
const SCAN: u32 = 512;

/// What may stand where the source port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ports.
    Ports,
    /// The identifier of ICMP echo, the same in both places (RFC 792).
    Identifier,
    /// Nothing.
    Nothing,
}

fn kind(proto: u8) -> Kind {
    match proto {
        TCP | UDP | SCTP | DCCP | UDP_LITE => Kind::Ports,
        ICMP | ICMP6 => Kind::Identifier,
        _ => Kind::Nothing,
    }
}

/// Reply tuples that would do for `plan`, best first. `random` gives another number for each argument.
pub(super) fn replies(plan: &Plan, random: impl Fn(u32) -> u64) -> impl Iterator<Item = Tuple> {
    let kind = kind(plan.original.proto);
    let (address, kept, (first, last)) = match plan.source() {
        (address, None) => (address, Some(plan.original.sport), class(kind, plan.original.sport)),
        (address, Some(_)) if kind == Kind::Identifier => (address, None, (0, u16::MAX)),
        (address, Some(range)) => (address, None, range),
    };
    let width = (u32::from(last) + 1).saturating_sub(u32::from(first));
    let (tries, scan) = match kind {
        // There is one tuple, or none.
        Kind::Nothing => (0, 0),
        _ if width <= SCAN => (0, width),
        _ => (RANDOM_TRIES, SCAN),
    };
    let kept = if kind == Kind::Nothing { Some(plan.original.sport) } else { kept };
    // The product maps the low half of the number evenly onto the range.
    let drawn = move |number: u64| (((number & 0xffff_ffff) * u64::from(width)) >> 32) as u32;
    // Lazily: the first tuple mostly does.
    let offsets = (0..tries + scan).map(move |i| match i.checked_sub(tries) {
        None => drawn(random(i)),
        Some(i) => (drawn(random(u32::MAX)) + i) % width.max(1),
    });
    let ports = offsets.map(move |offset| (u32::from(first) + offset) as u16);
    let plan = *plan;
    kept.into_iter().chain(ports).map(move |port| {
        let (src, sport) = plan.dst;
        let sport = if kind == Kind::Identifier { port } else { sport };
        Tuple { src, dst: address, sport, dport: port, ..plan.original }
    })
}

/// The range that a port is exchanged within: servers trust, or once trusted, the low ones.
fn class(kind: Kind, port: u16) -> (u16, u16) {
    match (kind, port) {
        (Kind::Identifier, _) => (0, u16::MAX),
        (_, ..512) => (1, 511),
        (_, 512..1024) => (512, 1023),
        _ => (1024, u16::MAX),
    }
}

impl Plan {
    /// The address that the other end sees, and the range of ports if one is given.
    fn source(&self) -> (IpAddr, Option<(u16, u16)>) {
        match self.src {
            Source::Own => (self.original.src, None),
            Source::Masquerade(address, range) => (address, Some(range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::{BridgeId, PortId};

    use super::super::Event;
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn plan(proto: u8, sport: u16, src: Source) -> Plan {
        let original = Tuple { zone: BridgeId(1), proto, src: ip(1), dst: ip(2), sport, dport: 80 };
        let dst = (ip(3), 8080);
        Plan { original, dst, src, port: PortId(1), identities: [0; 2], event: Event::default() }
    }

    fn ports(plan: &Plan) -> Vec<u16> {
        let random = ahash::RandomState::with_seeds(1, 2, 3, 4);
        replies(plan, |i| random.hash_one(i)).map(|tuple| tuple.dport).collect()
    }

    #[test]
    fn an_own_port_is_tried_first_and_then_others_of_its_class() {
        for (sport, class) in [(22, 1..=511), (700, 512..=1023), (40_000, 1024..=65_535)] {
            let ports = ports(&plan(TCP, sport, Source::Own));
            assert_eq!(ports[0], sport);
            assert!(ports.len() > 500 && ports.len() <= 1 + 128 + 512, "{}", ports.len());
            assert!(ports.iter().all(|port| class.contains(port)), "{sport}: {ports:?}");
        }
    }

    #[test]
    fn a_small_range_is_tried_whole_and_begins_anywhere() {
        let plan = plan(UDP, 40_000, Source::Masquerade(ip(9), (100, 103)));
        let firsts: BTreeSet<u16> = (0..100u64)
            .map(|seed| {
                let random = ahash::RandomState::with_seeds(seed, 2, 3, 4);
                let ports: Vec<u16> = replies(&plan, |i| random.hash_one(i)).map(|tuple| tuple.dport).collect();
                assert_eq!(ports.iter().copied().collect::<BTreeSet<_>>(), (100..=103).collect());
                assert_eq!(ports.len(), 4);
                ports[0]
            })
            .collect();
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn a_range_of_all_ports_wraps_nowhere() {
        let ports = ports(&plan(UDP, 1, Source::Masquerade(ip(9), (65_000, 65_535))));
        assert!(ports.iter().all(|&port| port >= 65_000));
        assert!(!self::ports(&plan(UDP, 1, Source::Masquerade(ip(9), (0, 65_535)))).is_empty());
    }

    #[test]
    fn a_range_turned_round_has_no_ports() {
        assert!(ports(&plan(UDP, 1, Source::Masquerade(ip(9), (10, 5)))).is_empty());
    }

    #[test]
    fn an_answer_comes_from_the_true_destination_to_the_chosen_source() {
        let plan = plan(TCP, 40_000, Source::Masquerade(ip(9), (7, 7)));
        let reply = replies(&plan, |_| 0).next().unwrap();
        assert_eq!((reply.src, reply.sport, reply.dst, reply.dport), (ip(3), 8080, ip(9), 7));
    }

    #[test]
    fn the_identifier_of_an_echo_stands_in_both_places() {
        let mut plan = plan(ICMP, 77, Source::Own);
        (plan.original.dport, plan.dst) = (77, (ip(2), 77));
        let tuples: Vec<Tuple> = replies(&plan, |i| u64::from(i) << 8).collect();
        assert_eq!(tuples[0], plan.original.turned());
        assert!(tuples.iter().all(|tuple| tuple.sport == tuple.dport));
        plan.src = Source::Masquerade(ip(9), (7, 7));
        assert!(replies(&plan, |i| u64::from(i) << 26).any(|tuple| tuple.dport != 7), "identifiers have no range");
    }

    #[test]
    fn a_protocol_without_ports_has_one_reply_tuple() {
        let mut plan = plan(47, 0, Source::Masquerade(ip(9), (7, 9)));
        (plan.original.dport, plan.dst) = (0, (ip(3), 0));
        assert_eq!(ports(&plan), [0]);
    }
}
