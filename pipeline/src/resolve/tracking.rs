//! What a frame is to connection tracking: read off its key, and written back to it when it is translated.
//!
//! | carries | tracked as |
//! |---|---|
//! | TCP, UDP, SCTP | addresses and ports |
//! | ICMP and ICMPv6 echo | addresses, the identifier as both ports |
//! | ICMP and ICMPv6 errors | belong to the connection of the packet that they quote |
//! | other ICMP and ICMPv6 | nothing: neither opens nor belongs to a connection |
//! | other protocols | addresses, ports 0 |
//! | to a group, ND, MLD, fragments, not IP | nothing, and no business of the stages that translate |

use std::net::IpAddr;

use api::BridgeId;

use crate::key::{Field, FlowKey, KeyMask};
use crate::live::connections::Tuple;
use crate::parse::{is_echo, proto};
use crate::resolve::walk::Walk;

/// TCP's RST (RFC 9293, 3.1).
const RST: u8 = 0x04;
/// The IPv4 address of all hosts on the link.
const BROADCAST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

/// What a frame is to connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Nothing that is tracked or translated.
    Nothing,
    /// A packet that may belong to a connection, and may open one.
    Flow(Tuple),
    /// An ICMP error: it belongs to the connection of what it quotes.
    Error,
    /// Unicast IP that belongs to no connection.
    Stray,
}

impl Carried {
    /// What a frame with this key is within a zone.
    pub fn of(key: &FlowKey, zone: BridgeId) -> Self {
        let (Some(src), Some(dst)) = (key.source(), key.destination()) else { return Self::Nothing };
        let group = key.eth_dst().is_group() || dst.is_multicast() || dst == BROADCAST;
        if group || src.is_unspecified() || dst.is_unspecified() || key.is_fragment() {
            return Self::Nothing;
        }
        let proto = key.ip_proto();
        let flow = |sport, dport| Self::Flow(Tuple { zone, proto, src, dst, sport, dport });
        match (proto, key.icmp_type(), key.icmp_id()) {
            (proto::TCP | proto::UDP | proto::SCTP, ..) => flow(key.tp_src(), key.tp_dst()),
            (.., Some(id)) => flow(id, id),
            // RFC 792: unreachable, source quench, time exceeded, parameter problem.
            (proto::ICMP, Some(3 | 4 | 11 | 12), _) => Self::Error,
            // RFC 4443: all below 128; those that exist.
            (proto::ICMPV6, Some(1..=4), _) => Self::Error,
            // MLD (RFC 2710, RFC 3810) and ND (RFC 4861) concern a link and nothing beyond.
            (proto::ICMPV6, Some(130..=137 | 143), _) => Self::Nothing,
            (_, Some(_), _) => Self::Stray,
            (_, None, _) => flow(0, 0),
        }
    }
}

/// The fields that tracking and translation look at.
pub fn mask(routed: bool) -> KeyMask {
    const MASK: KeyMask = FlowKey::mask(&[
        Field::IN_PORT,
        Field::VLAN,
        Field::ETH_DST,
        Field::ETH_SRC,
        Field::ETH_TYPE,
        Field::IP_PROTO,
        Field::IP_FRAG,
        Field::IPV4_SRC,
        Field::IPV4_DST,
        Field::TP_SRC,
        Field::TP_DST,
        Field::IPV6_SRC,
        Field::IPV6_DST,
    ]);
    if routed { MASK } else { KeyMask::EMPTY }
}

/// The walk's frame, which belongs to no connection, may open one. Answers never do: RST and echo replies.
pub fn opens(walk: &mut Walk<'_>) -> bool {
    let key = &walk.key;
    match (key.ip_proto(), key.icmp_type()) {
        (proto::TCP, _) if walk.event().flags & RST != 0 => {
            // The flags are not in the key: what becomes of an RST is not what becomes of the others.
            let _ = walk.frame();
            false
        }
        (proto, Some(kind)) => is_echo(proto, kind) && is_request(kind),
        _ => true,
    }
}

/// The type of an ICMP or ICMPv6 echo is that of a request.
fn is_request(kind: u8) -> bool {
    matches!(kind, 8 | 128)
}

/// Make the key say what this tuple says. The key must be of a frame that is [`Carried::Flow`].
pub fn translate(key: &mut FlowKey, tuple: &Tuple) {
    key.set_source(tuple.src);
    key.set_destination(tuple.dst);
    match tuple.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            key.set_tp_src(tuple.sport);
            key.set_tp_dst(tuple.dport);
        }
        // Leaves all but an echo alone.
        _ => key.set_icmp_id(tuple.sport),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Live, Now};
    use crate::parse;
    use crate::resolve::topology::Topology;
    use crate::resolve::trial::{ACK, RST, SYN, ZONE, end, flow, icmp, ip, packet};
    use api::PortId;
    use proptest::prelude::*;

    fn carried(frame: &[u8]) -> Carried {
        let layers = parse::layers(frame, frame.len(), None).unwrap();
        Carried::of(&parse::key(PortId(1), frame, &layers).masked(&mask(true)), ZONE)
    }

    fn tuple(proto: u8, from: &str, to: &str) -> Tuple {
        let ((src, sport), (dst, dport)) = (end(from), end(to));
        Tuple { zone: ZONE, proto, src, dst, sport, dport }
    }

    #[test]
    fn each_protocol_is_tracked_by_what_tells_its_connections_apart() {
        for proto in [6, 17, 132] {
            for (from, to) in [("10.0.0.1:4000", "10.96.0.1:80"), ("[fd00::1]:4000", "[fd00:96::1]:80")] {
                assert_eq!(carried(&flow(proto, from, to, SYN)), Carried::Flow(tuple(proto, from, to)));
            }
        }
        for kind in [8, 0] {
            let echo = carried(&icmp("10.0.0.1", "10.0.0.2", kind, 0xabcd));
            assert_eq!(echo, Carried::Flow(tuple(1, "10.0.0.1:43981", "10.0.0.2:43981")));
        }
        for kind in [128, 129] {
            let echo = carried(&icmp("fd00::1", "fd00::2", kind, 0xabcd));
            assert_eq!(echo, Carried::Flow(tuple(58, "[fd00::1]:43981", "[fd00::2]:43981")));
        }
        let gre = packet(ip("10.0.0.1"), ip("10.0.0.2"), 47, &[0; 8]);
        assert_eq!(carried(&gre), Carried::Flow(tuple(47, "10.0.0.1:0", "10.0.0.2:0")));
    }

    #[test]
    fn errors_belong_to_what_they_quote_and_other_messages_to_nothing() {
        for kind in [3, 4, 11, 12] {
            assert_eq!(carried(&icmp("10.0.0.1", "10.0.0.2", kind, 0)), Carried::Error, "{kind}");
        }
        for kind in 1..=4 {
            assert_eq!(carried(&icmp("fd00::1", "fd00::2", kind, 0)), Carried::Error, "{kind}");
        }
        for kind in [5, 9, 10, 13, 17, 42, 128] {
            assert_eq!(carried(&icmp("10.0.0.1", "10.0.0.2", kind, 0)), Carried::Stray, "{kind}");
        }
        assert_eq!(carried(&icmp("fd00::1", "fd00::2", 8, 0)), Carried::Stray);
    }

    #[test]
    fn what_concerns_the_link_alone_is_not_tracked() {
        for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
            assert_eq!(carried(&icmp("fd00::1", "fd00::2", kind, 0)), Carried::Nothing, "{kind}");
        }
        for (from, to) in [
            ("10.0.0.1:68", "255.255.255.255:67"),
            ("0.0.0.0:68", "10.0.0.254:67"),
            ("10.0.0.1:5353", "224.0.0.251:5353"),
            ("[fd00::1]:5353", "[ff02::fb]:5353"),
            ("[::]:1", "[fd00::1]:1"),
        ] {
            assert_eq!(carried(&flow(17, from, to, 0)), Carried::Nothing, "{from} {to}");
        }
        let mut broadcast = flow(17, "10.0.0.1:1", "10.0.0.255:2", 0);
        broadcast[..6].fill(0xff);
        assert_eq!(carried(&broadcast), Carried::Nothing);
        let mut fragment = flow(17, "10.0.0.1:1", "10.0.0.2:2", 0);
        fragment[14 + 6] = 0x20;
        fragment.truncate(14 + 20 + 8);
        fragment[14 + 3] = 28;
        assert_eq!(carried(&fragment), Carried::Nothing);
    }

    #[test]
    fn answers_to_nothing_open_nothing() {
        let (topology, live) = (Topology::default(), Live::default());
        for (frame, expected, transient) in [
            (flow(6, "10.0.0.1:1", "10.0.0.2:2", SYN), true, false),
            (flow(6, "10.0.0.1:1", "10.0.0.2:2", ACK), true, false),
            (flow(6, "10.0.0.1:1", "10.0.0.2:2", RST), false, true),
            (flow(6, "[fd00::1]:1", "[fd00::2]:2", RST | ACK), false, true),
            (flow(17, "10.0.0.1:1", "10.0.0.2:2", 0), true, false),
            (flow(132, "10.0.0.1:1", "10.0.0.2:2", 0), true, false),
            (icmp("10.0.0.1", "10.0.0.2", 8, 1), true, false),
            (icmp("10.0.0.1", "10.0.0.2", 0, 1), false, false),
            (icmp("fd00::1", "fd00::2", 128, 1), true, false),
            (icmp("fd00::1", "fd00::2", 129, 1), false, false),
        ] {
            let layers = parse::layers(&frame, frame.len(), None).unwrap();
            let key = parse::key(PortId(1), &frame, &layers).masked(&mask(true));
            let mut walk = Walk::new(key, layers, &frame, &topology, &live, Now::default());
            assert_eq!((opens(&mut walk), walk.transient, walk.looked), (expected, transient, transient), "{key:?}");
        }
    }

    #[test]
    fn tracking_looks_at_no_field_of_the_widest_class_and_at_none_where_nothing_is_routed() {
        assert_eq!(mask(true).class(), crate::key::Class::V6);
        assert_eq!(mask(false), KeyMask::EMPTY);
    }

    proptest! {
        #[test]
        fn a_key_that_is_translated_there_and_back_is_what_it_was(
            six: bool, number in 0usize..4, from: (u32, u16), to: (u32, u16),
        ) {
            let address = |n: u32| -> IpAddr {
                if six { std::net::Ipv6Addr::from(0xfd00 << 112 | u128::from(n) | 1).into() } else { [10, n as u8, 0, 1].into() }
            };
            let proto = [6, 17, 132, if six { 58 } else { 1 }][number];
            let frame = match proto {
                1 => icmp("10.0.0.1", "10.96.0.1", 8, from.1),
                58 => icmp("fd00::1", "fd00:96::1", 128, from.1),
                _ if six => flow(proto, "[fd00::1]:4000", "[fd00:96::1]:80", SYN),
                _ => flow(proto, "10.0.0.1:4000", "10.96.0.1:80", SYN),
            };
            let layers = parse::layers(&frame, frame.len(), None).unwrap();
            let start = parse::key(PortId(1), &frame, &layers).masked(&mask(true));
            let Carried::Flow(before) = Carried::of(&start, ZONE) else { panic!("a flow") };
            let dport = if number == 3 { from.1 } else { to.1 };
            let now = Tuple { src: address(from.0), dst: address(to.0), sport: from.1, dport, ..before };
            let mut key = start;
            translate(&mut key, &now);
            prop_assert_eq!(Carried::of(&key, ZONE), Carried::Flow(now));
            translate(&mut key, &before);
            prop_assert_eq!(key, start);
        }
    }
}
