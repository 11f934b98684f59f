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
            // The flags are not in the key: what becomes of an RST is not remembered for the others.
            walk.transient = true;
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
