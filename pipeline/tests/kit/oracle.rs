//! The parser against etherparse, which shares no code and no author with it.
//!
//! Where the two differ on purpose:
//!
//! | frame | etherparse | here | why |
//! |---|---|---|---|
//! | MACsec | looks into it | not looked into | none of our ports has it |
//! | a third tag | ends there | `VlanTooDeep` | no host should see deeper into a frame than we |
//! | tag protocol 0x9100 | a tag | not looked into | not 802.1Q |
//! | group source, impossible fragment, `hop-by-hop` twice | accepted | refused | no host sends it |
//! | ARP for other protocols, IGMP | looked into | refused, not looked into | no stage asks |
//! | first fragment without its transport header | accepted | refused | RFC 1858, RFC 7112 |
//! | UDP length 0 | the rest of the packet | `UdpLength` | jumbograms are not supported |
//! | ICMP messages shorter than their type asks for | refused | accepted from 8 octets on | the receiver's business |
//! | a later fragment in IPv6 | goes on reading headers | has none | what is there is payload |
//! | IPv6 payload length 0 | all that follows | nothing | jumbograms are not supported; Linux reads it as we do |
//! | AH in IPv4 | passed | the protocol | as in Open vSwitch |
//! | IPv6 headers out of order, or one kind twice | stops looking | passed, up to eight | RFC 8200, 4.1: a node must attempt to |
//! | whole-packet fragments (RFC 6946) | fragments of no effect | no fragments | the same |

#![allow(unreachable_pub, reason = "included by tests and fuzz targets")]

use api::PortId;
use etherparse::err::Layer;
use etherparse::err::packet::SliceError;
use etherparse::{Icmpv4Type, Icmpv6Type, LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use pipeline::burst::{Kind, Layers, guard};
use pipeline::drop::DropReason as Reason;
use pipeline::key::Field;
use pipeline::parse::{key, layers};

/// Offset of `inner` in the octets it was sliced from.
fn offset(outer: &[u8], inner: &[u8]) -> usize {
    inner.as_ptr() as usize - outer.as_ptr() as usize
}

/// Hold one frame against etherparse.
pub fn agrees(frame: &[u8]) {
    let ours = layers(frame, frame.len(), None);
    // Not ours to compare: its idea of what a tag is differs.
    let strange = |ethertype: u16| matches!(ethertype, 0x88e5 | 0x9100);
    let types =
        [12, 16, 20].map(|at| frame.get(at..at + 2).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]])));
    if types.into_iter().any(strange) {
        return;
    }
    let Ok(layers) = ours else {
        refused_for_a_reason(frame, ours);
        return;
    };
    if layers.kind == Kind::Ipv6 && frame.get(usize::from(layers.l3) + 4..).is_some_and(|ip| ip.starts_with(&[0, 0])) {
        return;
    }
    accepted_for_a_reason(frame, &layers);
    let key = key(PortId(7), frame, &layers);
    let lax = LaxSlicedPacket::from_ethernet(frame).unwrap();
    assert_eq!(usize::from(layers.l3), 14 + 4 * lax.link_exts.len());
    match (layers.kind, &lax.net) {
        (Kind::Other, None) => return,
        (Kind::Arp, Some(LaxNetSlice::Arp(arp))) => {
            assert_eq!(key.get(Field::ARP_OP), arp.operation().0.to_be_bytes());
            assert_eq!(key.get::<6>(Field::ARP_SHA), arp.sender_hw_addr());
            assert_eq!(key.get::<4>(Field::IPV4_DST), arp.target_protocol_addr());
            return;
        }
        (Kind::Ipv4, Some(LaxNetSlice::Ipv4(ip))) => {
            let header = ip.header();
            assert_eq!(key.get(Field::IPV4_SRC), header.source());
            assert_eq!(key.get(Field::IPV4_DST), header.destination());
            assert_eq!(key.get(Field::IP_PROTO), [header.protocol().0]);
            assert_eq!(
                (key.get(Field::IP_TTL), layers.guard & guard::OPTIONS != 0),
                ([header.ttl()], header.ihl() > 5)
            );
            assert_eq!(key.get(Field::IP_FRAG) != [0], header.is_fragmenting_payload());
            if layers.l4 != 0 {
                assert_eq!(usize::from(layers.l4), usize::from(layers.l3) + header.slice().len());
            }
        }
        (Kind::Ipv6, Some(LaxNetSlice::Ipv6(ip))) => {
            assert_eq!(key.get(Field::IPV6_SRC), ip.header().source());
            assert_eq!(key.get(Field::IPV6_DST), ip.header().destination());
            assert_eq!(key.get(Field::IP_TTL), [ip.header().hop_limit()]);
            assert_eq!(key.get(Field::IPV6_LABEL), ip.header().flow_label().value().to_be_bytes());
            let behind = ip.payload();
            if key.get(Field::IP_PROTO) == [behind.ip_number.0] && layers.l4 != 0 && !behind.payload.is_empty() {
                assert_eq!(usize::from(layers.l4), offset(frame, behind.payload));
            }
        }
        (kind, net) => panic!("{kind:?} here, {net:?} there"),
    }
    // ICMP under the wrong version, and AH in IPv4.
    if matches!((layers.kind, key.get(Field::IP_PROTO)), (Kind::Ipv4, [58 | 51]) | (Kind::Ipv6, [1])) {
        return;
    }
    let (source, destination) = match &lax.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(key.get::<2>(Field::TCP_FLAGS)[1], tcp.slice()[13]);
            (tcp.source_port(), tcp.destination_port())
        }
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => {
            let id = match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) | Icmpv4Type::EchoReply(echo) => Some(echo.id),
                // It takes an echo with a code for something else; the code changes nothing here, as in Linux.
                _ => echo_id([0, 8], icmp.type_u8(), icmp.bytes5to8()),
            };
            message(icmp.type_u8(), icmp.code_u8(), id)
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let id = match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(echo) | Icmpv6Type::EchoReply(echo) => Some(echo.id),
                _ => echo_id([128, 129], icmp.type_u8(), icmp.bytes5to8()),
            };
            message(icmp.type_u8(), icmp.code_u8(), id)
        }
        _ => return,
    };
    if layers.l4 != 0 {
        assert_eq!(key.get(Field::TP_SRC), source.to_be_bytes());
        assert_eq!(key.get(Field::TP_DST), destination.to_be_bytes());
    }
}

/// The identifier of an echo whose code is not zero.
fn echo_id(types: [u8; 2], kind: u8, [high, low, ..]: [u8; 4]) -> Option<u16> {
    types.contains(&kind).then_some(u16::from_be_bytes([high, low]))
}

/// What stands in the place of the ports: type and code, and an echo's identifier in the high octets.
fn message(kind: u8, code: u8, id: Option<u16>) -> (u16, u16) {
    let [high, low] = id.unwrap_or(0).to_be_bytes();
    (u16::from_be_bytes([high, kind]), u16::from_be_bytes([low, code]))
}

/// What etherparse refuses and we accept is a row of the table above.
fn accepted_for_a_reason(frame: &[u8], layers: &Layers) {
    let Err(error) = SlicedPacket::from_ethernet(frame) else { return };
    let proto = key(PortId(7), frame, layers).get(Field::IP_PROTO);
    let documented = match &error {
        // AH in IPv4, and whatever it takes to stand behind it.
        _ if (layers.kind, proto) == (Kind::Ipv4, [51]) => true,
        // What it takes for headers behind the header of a later fragment.
        _ if layers.kind == Kind::Ipv6 && layers.l4 == 0 => true,
        SliceError::Len(error) => matches!(
            error.layer,
            Layer::Igmp | Layer::Icmpv4 | Layer::Icmpv4Timestamp | Layer::Icmpv4TimestampReply | Layer::Icmpv6
        ),
        _ => false,
    };
    assert!(documented, "{error:?} is accepted here: {layers:?} {frame:02x?}");
}

/// What we refuse, etherparse refuses too, or it is a row of the table above.
fn refused_for_a_reason(frame: &[u8], ours: Result<Layers, Reason>) {
    let Ok(strict) = SlicedPacket::from_ethernet(frame) else { return };
    let Err(reason) = ours else { return };
    let stricter = match reason {
        Reason::EthSourceGroup | Reason::VlanTooDeep | Reason::ArpMalformed => true,
        Reason::Ipv4Fragment | Reason::Ipv6Fragment | Reason::Ipv6Extension | Reason::UdpLength => true,
        Reason::SctpTruncated => true,
        // A first fragment.
        Reason::TcpTruncated | Reason::TcpDataOffset | Reason::UdpTruncated => strict.is_ip_payload_fragmented(),
        Reason::IcmpTruncated | Reason::Icmpv6Truncated => strict.is_ip_payload_fragmented(),
        // An extension header that etherparse does not pass stands in front of it.
        _ => false,
    };
    let chained =
        matches!(&strict.net, Some(NetSlice::Ipv6(ip)) if ip.header().next_header() != ip.payload().ip_number);
    let empty = matches!(&strict.net, Some(NetSlice::Ipv6(ip)) if ip.header().payload_length() == 0);
    assert!(stricter || chained || empty, "{reason} is accepted there: {frame:02x?}");
}
