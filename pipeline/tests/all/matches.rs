//! Every match field of Open vSwitch has its place here, so that flow tables will be no rewrite of the key.

use std::collections::BTreeSet;

use pipeline::key::Field;

/// The fields of ovs-fields(7), 3.x, with the names that ovs-ofctl knows them by beside.
const NAMES: &str = "
    conj_id dp_hash recirc_id packet_type skb_priority actset_output metadata pkt_mark in_port in_port_oxm
    tun_id tunnel_id tun_src tun_dst tun_ipv6_src tun_ipv6_dst tun_flags tun_ttl tun_tos
    tun_gbp_id tun_gbp_flags tun_erspan_idx tun_erspan_ver tun_erspan_dir tun_erspan_hwid
    tun_gtpu_flags tun_gtpu_msgtype tun_metadata*64
    ct_state ct_zone ct_mark ct_label ct_nw_proto ct_nw_src ct_nw_dst ct_ipv6_src ct_ipv6_dst ct_tp_src ct_tp_dst
    reg*16 xreg*8 xxreg*4
    eth_src dl_src eth_dst dl_dst eth_type dl_type
    vlan_tci dl_vlan vlan_vid dl_vlan_pcp vlan_pcp
    mpls_label mpls_tc mpls_bos mpls_ttl
    nw_src ip_src nw_dst ip_dst ipv6_src ipv6_dst ipv6_label nw_proto ip_proto nw_tos ip_dscp nw_ecn ip_ecn nw_ttl
    ip_frag nw_frag
    arp_op arp_spa arp_tpa arp_sha arp_tha
    tp_src tp_dst tcp_src tcp_dst tcp_flags udp_src udp_dst sctp_src sctp_dst
    icmp_type icmp_code icmpv6_type icmpv6_code nd_target nd_sll nd_tll nd_reserved nd_options_type
    nsh_flags nsh_mdtype nsh_np nsh_spi nsh_si nsh_c1 nsh_c2 nsh_c3 nsh_c4 nsh_ttl";

/// `reg*16` is `reg0` to `reg15`.
fn expand(name: &str) -> Vec<String> {
    match name.split_once('*') {
        Some((family, count)) => (0..count.parse().unwrap()).map(|i: u32| format!("{family}{i}")).collect(),
        None => vec![name.to_owned()],
    }
}

/// Where a match looks.
enum Place {
    /// These bits of a field of the key, the field's last eight octets read as a number in wire order.
    Key(Field, u64),
    /// The field holds a hash of what there is; the thing itself is with the walk.
    Hashed(Field),
    /// Made of several fields, each of which has a match of its own.
    Made(&'static [Field]),
    /// State of the walk: no frame has it when it comes in, so no entry depends on it.
    Walk,
}
use Place::{Hashed, Key, Made, Walk};

/// Kinds of frames, one bit each: matches of different kinds may share a place.
mod of {
    pub(super) const ARP: u32 = 1 << 0;
    pub(super) const TCP4: u32 = 1 << 1;
    pub(super) const UDP4: u32 = 1 << 2;
    pub(super) const SCTP4: u32 = 1 << 3;
    pub(super) const ICMP4: u32 = 1 << 4;
    pub(super) const TCP6: u32 = 1 << 5;
    pub(super) const UDP6: u32 = 1 << 6;
    pub(super) const SCTP6: u32 = 1 << 7;
    /// ICMPv6 other than neighbour discovery.
    pub(super) const ICMP6: u32 = 1 << 8;
    pub(super) const ND: u32 = 1 << 9;
    pub(super) const IP4: u32 = TCP4 | UDP4 | SCTP4 | ICMP4;
    pub(super) const IP6: u32 = TCP6 | UDP6 | SCTP6 | ICMP6 | ND;
    pub(super) const IP: u32 = IP4 | IP6;
    pub(super) const ANY: u32 = 0xffff;
    /// Of the tunnel, and of a connection's first packet: IPv4 or IPv6.
    pub(super) const V4: u32 = 1 << 16;
    pub(super) const V6: u32 = 1 << 17;
}

const ALL: u64 = u64::MAX;

/// A fact: its names, the kinds of frames that have it, its place.
type Row = (&'static str, u32, Place);

const TABLE: &[Row] = &[
    ("conj_id skb_priority actset_output reg*16 xreg*8 xxreg*4", of::ANY, Walk),
    ("dp_hash", of::ANY, Key(Field::DP_HASH, ALL)),
    ("recirc_id", of::ANY, Key(Field::RECIRC_ID, ALL)),
    ("packet_type", of::ANY, Key(Field::PACKET_TYPE, ALL)),
    ("metadata", of::ANY, Key(Field::METADATA, ALL)),
    ("pkt_mark", of::ANY, Key(Field::PKT_MARK, ALL)),
    ("in_port in_port_oxm", of::ANY, Key(Field::IN_PORT, ALL)),
    ("tun_id tunnel_id", of::ANY, Key(Field::TUN_ID, ALL)),
    ("tun_src", of::V4, Key(Field::TUN_SRC, ALL)),
    ("tun_dst", of::V4, Key(Field::TUN_DST, ALL)),
    ("tun_ipv6_src", of::V6, Key(Field::TUN_SRC, ALL)),
    ("tun_ipv6_dst", of::V6, Key(Field::TUN_DST, ALL)),
    ("tun_flags", of::ANY, Key(Field::TUN_FLAGS, ALL)),
    ("tun_ttl", of::ANY, Key(Field::TUN_TTL, ALL)),
    ("tun_tos", of::ANY, Key(Field::TUN_TOS, ALL)),
    ("tun_gbp_id tun_gbp_flags tun_metadata*64", of::ANY, Hashed(Field::TUN_METADATA)),
    ("tun_erspan_idx tun_erspan_ver tun_erspan_dir tun_erspan_hwid", of::ANY, Hashed(Field::TUN_METADATA)),
    ("tun_gtpu_flags tun_gtpu_msgtype", of::ANY, Hashed(Field::TUN_METADATA)),
    ("ct_state", of::ANY, Key(Field::CT_STATE, ALL)),
    ("ct_zone", of::ANY, Key(Field::CT_ZONE, ALL)),
    ("ct_mark", of::ANY, Key(Field::CT_MARK, ALL)),
    ("ct_label", of::ANY, Key(Field::CT_LABEL, ALL)),
    ("ct_nw_proto", of::ANY, Key(Field::CT_PROTO, ALL)),
    ("ct_nw_src", of::V4, Key(Field::CT_SRC, ALL)),
    ("ct_nw_dst", of::V4, Key(Field::CT_DST, ALL)),
    ("ct_ipv6_src", of::V6, Key(Field::CT_SRC, ALL)),
    ("ct_ipv6_dst", of::V6, Key(Field::CT_DST, ALL)),
    ("ct_tp_src", of::ANY, Key(Field::CT_TP_SRC, ALL)),
    ("ct_tp_dst", of::ANY, Key(Field::CT_TP_DST, ALL)),
    ("eth_src dl_src", of::ANY, Key(Field::ETH_SRC, ALL)),
    ("eth_dst dl_dst", of::ANY, Key(Field::ETH_DST, ALL)),
    ("eth_type dl_type", of::ANY, Key(Field::ETH_TYPE, ALL)),
    // 0xffff and bit 12 ask whether there is a tag, which the same word says.
    ("dl_vlan vlan_vid", of::ANY, Key(Field::VLAN, ALL)),
    ("dl_vlan_pcp vlan_pcp", of::ANY, Key(Field::VLAN_PCP, 0xe0)),
    ("vlan_tci", of::ANY, Made(&[Field::VLAN, Field::VLAN_PCP])),
    // Of the first label stack entry; the others are asked for when it is popped.
    ("mpls_label", of::ANY, Key(Field::MPLS, 0xffff_f000)),
    ("mpls_tc", of::ANY, Key(Field::MPLS, 0x0000_0e00)),
    ("mpls_bos", of::ANY, Key(Field::MPLS, 0x0000_0100)),
    ("mpls_ttl", of::ANY, Key(Field::MPLS, 0x0000_00ff)),
    ("nw_src ip_src", of::IP4, Key(Field::IPV4_SRC, ALL)),
    ("nw_dst ip_dst", of::IP4, Key(Field::IPV4_DST, ALL)),
    ("ipv6_src", of::IP6, Key(Field::IPV6_SRC, ALL)),
    ("ipv6_dst", of::IP6, Key(Field::IPV6_DST, ALL)),
    ("ipv6_label", of::IP6, Key(Field::IPV6_LABEL, ALL)),
    ("nw_proto ip_proto", of::IP | of::ARP, Key(Field::IP_PROTO, ALL)),
    ("nw_tos ip_dscp", of::IP, Key(Field::IP_TOS, 0xfc)),
    ("nw_ecn ip_ecn", of::IP, Key(Field::IP_TOS, 0x03)),
    ("nw_ttl", of::IP, Key(Field::IP_TTL, ALL)),
    ("ip_frag nw_frag", of::IP, Key(Field::IP_FRAG, ALL)),
    ("arp_op", of::ARP, Key(Field::ARP_OP, ALL)),
    ("arp_spa", of::ARP, Key(Field::IPV4_SRC, ALL)),
    ("arp_tpa", of::ARP, Key(Field::IPV4_DST, ALL)),
    ("arp_sha", of::ARP, Key(Field::ARP_SHA, ALL)),
    ("arp_tha", of::ARP, Key(Field::ARP_THA, ALL)),
    ("tp_src", of::TCP4 | of::UDP4 | of::SCTP4 | of::TCP6 | of::UDP6 | of::SCTP6, Made(&[Field::TP_SRC])),
    ("tp_dst", of::TCP4 | of::UDP4 | of::SCTP4 | of::TCP6 | of::UDP6 | of::SCTP6, Made(&[Field::TP_DST])),
    ("tcp_src", of::TCP4 | of::TCP6, Key(Field::TP_SRC, ALL)),
    ("tcp_dst", of::TCP4 | of::TCP6, Key(Field::TP_DST, ALL)),
    ("tcp_flags", of::TCP4 | of::TCP6, Key(Field::TCP_FLAGS, ALL)),
    ("udp_src", of::UDP4 | of::UDP6, Key(Field::TP_SRC, ALL)),
    ("udp_dst", of::UDP4 | of::UDP6, Key(Field::TP_DST, ALL)),
    ("sctp_src", of::SCTP4 | of::SCTP6, Key(Field::TP_SRC, ALL)),
    ("sctp_dst", of::SCTP4 | of::SCTP6, Key(Field::TP_DST, ALL)),
    ("icmp_type", of::ICMP4, Key(Field::TP_SRC, 0xff)),
    ("icmp_code", of::ICMP4, Key(Field::TP_DST, 0xff)),
    ("icmpv6_type", of::ICMP6 | of::ND, Key(Field::TP_SRC, 0xff)),
    ("icmpv6_code", of::ICMP6 | of::ND, Key(Field::TP_DST, 0xff)),
    ("nd_target", of::ND, Key(Field::ND_TARGET, ALL)),
    ("nd_sll", of::ND, Key(Field::ARP_SHA, ALL)),
    ("nd_tll", of::ND, Key(Field::ARP_THA, ALL)),
    // Where Open vSwitch itself has room for them: what neighbour discovery has no use for.
    ("nd_reserved", of::ND, Key(Field::IPV4_SRC, ALL)),
    ("nd_options_type", of::ND, Key(Field::TCP_FLAGS, ALL)),
    ("nsh_flags nsh_mdtype nsh_np nsh_spi nsh_si nsh_c1 nsh_c2 nsh_c3 nsh_c4 nsh_ttl", of::ANY, Hashed(Field::NSH)),
];

/// Fields that no match of Open vSwitch names: what becomes the outer tag when that one is popped, and the tag protocol
/// that it is pushed with.
const UNNAMED: &[Field] = &[Field::VLAN_INNER, Field::VLAN_SERVICE];

#[test]
fn every_match_of_open_vswitch_has_one_place() {
    let wanted: BTreeSet<String> = NAMES.split_whitespace().flat_map(expand).collect();
    let mut placed = BTreeSet::new();
    for name in TABLE.iter().flat_map(|(names, ..)| names.split_whitespace()).flat_map(expand) {
        assert!(wanted.contains(&name), "{name} is no match");
        assert!(placed.insert(name.clone()), "{name} has two places");
    }
    assert_eq!(wanted.difference(&placed).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn no_two_facts_that_one_frame_has_share_a_place() {
    let keyed: Vec<_> = TABLE
        .iter()
        .filter_map(
            |(names, of, place)| if let Key(field, bits) = place { Some((names, of, field, bits)) } else { None },
        )
        .collect();
    for (i, (names, of, field, bits)) in keyed.iter().enumerate() {
        for (others, other_of, other_field, other_bits) in &keyed[i + 1..] {
            let overlap = field == other_field && *of & *other_of != 0 && *bits & *other_bits != 0;
            assert!(!overlap, "{names} and {others}");
        }
    }
    // What is hashed has its field for itself.
    for (names, _, place) in TABLE {
        if let Hashed(field) = place {
            assert!(keyed.iter().all(|(_, _, other, _)| *other != field), "{names}");
        }
    }
}

#[test]
fn every_field_of_the_key_is_there_for_a_match() {
    for (name, field) in Field::ALL {
        let serves = |(_, _, place): &Row| match place {
            Key(at, _) | Hashed(at) => at == field,
            Made(of) => of.contains(field),
            Walk => false,
        };
        assert_eq!(TABLE.iter().any(serves), !UNNAMED.contains(field), "{name}");
    }
}

#[test]
fn what_is_made_of_fields_is_made_of_such_as_have_a_match() {
    for (names, _, place) in TABLE {
        if let Made(of) = place {
            let keyed = |field: &Field| TABLE.iter().any(|(_, _, other)| matches!(other, Key(at, _) if at == field));
            assert!(of.iter().all(keyed), "{names}");
        }
    }
}
