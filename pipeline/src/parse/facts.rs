//! The key of one frame: every fact of a [`FlowKey`] that can be read from its octets.
//!
//! Facts that a frame has not are zero. What comes from elsewhere (tunnel, connection, marks, metadata) is not set here.

use api::PortId;

use crate::burst::{Kind, Layers, guard};
use crate::key::{FRAG_LATER, Field, FlowKey, VLAN_TAGGED};

use super::extension::{self, Transport};
use super::layers::{Link, ethertype, fragment, link, proto};
use super::read::{array, be16, octet};

/// Read the facts of a frame of `in_port` that [`super::layers`] accepted and described with `layers`. For a frame that
/// it refused the key has some of its facts, and nothing goes wrong.
pub fn key(in_port: PortId, head: &[u8], layers: &Layers) -> FlowKey {
    let mut key = FlowKey::EMPTY;
    key.set(Field::IN_PORT, in_port.0.to_ne_bytes());
    let Ok(link) = link(head) else { return key };
    ethernet(&mut key, head, &link);
    match layers.kind {
        Kind::Arp => arp(&mut key, head, link.l3),
        Kind::Ipv4 => ipv4(&mut key, head, link.l3),
        Kind::Ipv6 => ipv6(&mut key, head, link.l3, layers),
        Kind::Other if matches!(link.ethertype, ethertype::MPLS | ethertype::MPLS_MULTICAST) => {
            mpls(&mut key, head, link.l3);
        }
        Kind::Other => {}
    }
    key
}

/// Set a field from the frame, if the frame has it.
fn put<const N: usize>(key: &mut FlowKey, field: Field, head: &[u8], at: usize) {
    if let Some(octets) = array::<N>(head, at) {
        key.set(field, octets);
    }
}

fn ethernet(key: &mut FlowKey, head: &[u8], link: &Link) {
    put::<6>(key, Field::ETH_DST, head, 0);
    put::<6>(key, Field::ETH_SRC, head, 6);
    key.set(Field::ETH_TYPE, link.ethertype.to_be_bytes());
    if link.tpid != 0 {
        key.set(Field::VLAN, (link.outer & 0x0fff | VLAN_TAGGED).to_ne_bytes());
        key.set(Field::VLAN_PCP, [(link.outer >> 8) as u8 & 0xf0]);
        key.set(Field::VLAN_SERVICE, [u8::from(link.tpid == ethertype::VLAN_SERVICE)]);
    }
    if let Some(inner) = link.inner {
        // As in Open vSwitch, the drop-eligible bit makes room for "there is a tag".
        key.set(Field::VLAN_INNER, (inner | VLAN_TAGGED).to_ne_bytes());
    }
}

fn arp(key: &mut FlowKey, head: &[u8], l3: usize) {
    put::<2>(key, Field::ARP_OP, head, l3 + 6);
    put::<1>(key, Field::IP_PROTO, head, l3 + 7);
    put::<6>(key, Field::ARP_SHA, head, l3 + 8);
    put::<4>(key, Field::IPV4_SRC, head, l3 + 14);
    put::<6>(key, Field::ARP_THA, head, l3 + 18);
    put::<4>(key, Field::IPV4_DST, head, l3 + 24);
}

fn mpls(key: &mut FlowKey, head: &[u8], l3: usize) {
    const BOTTOM: u8 = 1;
    let mut stack = [0; 12];
    for (i, entry) in stack.chunks_exact_mut(4).enumerate() {
        let Some(octets) = array::<4>(head, l3 + i * 4) else { break };
        entry.copy_from_slice(&octets);
        if octets[2] & BOTTOM != 0 {
            break;
        }
    }
    key.set(Field::MPLS, stack);
}

fn ipv4(key: &mut FlowKey, head: &[u8], l3: usize) {
    put::<1>(key, Field::IP_TOS, head, l3 + 1);
    put::<1>(key, Field::IP_TTL, head, l3 + 8);
    put::<4>(key, Field::IPV4_SRC, head, l3 + 12);
    put::<4>(key, Field::IPV4_DST, head, l3 + 16);
    let (Some(version), Some(total), Some(word), Some(proto)) =
        (octet(head, l3), be16(head, l3 + 2), be16(head, l3 + 6), octet(head, l3 + 9))
    else {
        return;
    };
    let header = usize::from(version & 0xf) * 4;
    let offset = usize::from(word & 0x1fff) * 8;
    let octets = usize::from(total).saturating_sub(header);
    let frag = fragment(offset, word & 0x2000 != 0, octets, header + offset).unwrap_or(0);
    transport(key, head, Transport { at: l3 + header, proto, frag });
    if proto == proto::ICMP {
        icmp(key, head, Transport { at: l3 + header, proto, frag });
    }
}

fn ipv6(key: &mut FlowKey, head: &[u8], l3: usize, layers: &Layers) {
    put::<16>(key, Field::IPV6_SRC, head, l3 + 8);
    put::<16>(key, Field::IPV6_DST, head, l3 + 24);
    put::<1>(key, Field::IP_TTL, head, l3 + 7);
    let (Some(word), Some(payload), Some(next)) =
        (array(head, l3).map(u32::from_be_bytes), be16(head, l3 + 4), octet(head, l3 + 6))
    else {
        return;
    };
    key.set(Field::IP_TOS, [(word >> 20) as u8]);
    key.set(Field::IPV6_LABEL, (word & 0x000f_ffff).to_be_bytes());
    let (start, end) = (l3 + 40, l3 + 40 + usize::from(payload));
    let found = if layers.guard & guard::OPTIONS == 0 {
        Ok(Transport { at: start, proto: next, frag: 0 })
    } else {
        extension::walk(head, start, end, next)
    };
    let Ok(found) = found else { return };
    transport(key, head, found);
    if found.proto == proto::ICMPV6 {
        icmp(key, head, found);
        neighbor(key, head, found, end);
    }
}

/// Protocol and ports. A later fragment has none: what stands in their place is payload.
fn transport(key: &mut FlowKey, head: &[u8], found: Transport) {
    key.set(Field::IP_PROTO, [found.proto]);
    key.set(Field::IP_FRAG, [found.frag]);
    if found.frag & FRAG_LATER == 0 && matches!(found.proto, proto::TCP | proto::UDP | proto::SCTP) {
        put::<2>(key, Field::TP_SRC, head, found.at);
        put::<2>(key, Field::TP_DST, head, found.at + 2);
    }
    if found.frag & FRAG_LATER == 0
        && found.proto == proto::TCP
        && let Some(word) = be16(head, found.at + 12)
    {
        key.set(Field::TCP_FLAGS, (word & 0x0fff).to_be_bytes());
    }
}

/// Type and code, and the identifier of an echo, which tells one `ping` from another as ports tell connections.
fn icmp(key: &mut FlowKey, head: &[u8], found: Transport) {
    if found.frag & FRAG_LATER == 0
        && let Some([kind, code, _, _, high, low]) = array(head, found.at)
    {
        let [high, low] = if is_echo(found.proto, kind) { [high, low] } else { [0, 0] };
        key.set(Field::TP_SRC, [high, kind]);
        key.set(Field::TP_DST, [low, code]);
    }
}

/// A message of this type, of ICMP (RFC 792) or ICMPv6 (RFC 4443, section 4), is an echo request or reply.
pub(crate) fn is_echo(proto: u8, kind: u8) -> bool {
    matches!((proto, kind), (proto::ICMP, 0 | 8) | (proto::ICMPV6, 128 | 129))
}

/// Neighbour solicitation and advertisement (RFC 4861, 4.3 and 4.4). If any option is malformed or stands twice, the
/// message has none of these facts: a rule that lets a target pass does not match half a message.
fn neighbor(key: &mut FlowKey, head: &[u8], found: Transport, end: usize) {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const SOURCE: u8 = 1;
    const TARGET: u8 = 2;
    let Some([SOLICITATION | ADVERTISEMENT, 0]) = array(head, found.at) else { return };
    let Some((target, mut options)) = head.get(found.at + 8..end).and_then(|body| body.split_first_chunk::<16>())
    else {
        return;
    };
    let (mut source_address, mut target_address) = (None, None);
    while let [kind, length, rest @ ..] = options {
        let Some((value, behind)) = (usize::from(*length) * 8).checked_sub(2).and_then(|n| rest.split_at_checked(n))
        else {
            return;
        };
        let address = match *kind {
            SOURCE => &mut source_address,
            TARGET => &mut target_address,
            _ => {
                options = behind;
                continue;
            }
        };
        let Ok(value) = <[u8; 6]>::try_from(value) else { return };
        if address.replace(value).is_some() {
            return;
        }
        options = behind;
    }
    if !options.is_empty() {
        return;
    }
    key.set(Field::ND_TARGET, *target);
    key.set(Field::ARP_SHA, source_address.unwrap_or_default());
    key.set(Field::ARP_THA, target_address.unwrap_or_default());
}
