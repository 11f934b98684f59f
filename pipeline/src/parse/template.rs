//! The shape that most frames have, recognised in one look at their first 64 octets: IPv4 with TCP or UDP, untagged or
//! behind one 802.1Q tag, without options, not a fragment, with nothing left to be done.
//!
//! ```text
//!   octet  0       6       12     14        15  16     18   20     22   23     24     26      30      34
//!   frame  dst     src     08 00  45        tos total  id   frag   ttl  proto  check  source  dest    sport dport ..
//!   must           !group  ====   ==                        ..0..       6, 17
//! ```
//!
//! A frame that is not of this shape, or that is but states an impossible length, is left to [`super::layers`]; what is
//! taken here is exactly what it would accept, with the same result. The scalar kernel is below; its vector twin is in
//! `raw/simd_parse.rs`. Both share [`measure`].

use api::PortId;

use crate::burst::{Kind, Layers, guard};
use crate::key::{KeyMask, VLAN_TAGGED};

use super::layers::{ethertype, hop_limit, proto, tcp_flags};

/// Offset of the network header without and with a tag.
pub(crate) const UNTAGGED: usize = 14;
/// With one tag.
pub(crate) const TAGGED: usize = 18;

/// What a frame of the template's shape has.
pub(crate) struct Found {
    pub(crate) layers: Layers,
    pub(crate) key: [u64; 4],
}

/// How the octets of a frame become its masked key, for one shape: `octets & and | or`. Made once a burst.
#[derive(Clone, Copy)]
pub(crate) struct Masking {
    pub(crate) and: [u64; 4],
    pub(crate) or: [u64; 4],
}

/// The masking of both shapes.
pub(crate) struct Plan {
    pub(crate) untagged: Masking,
    pub(crate) tagged: Masking,
}

impl Plan {
    pub(crate) fn new(in_port: PortId, mask: &KeyMask) -> Self {
        let [first, second, third, fourth, ..] = mask.words;
        let masking = |vlan: u64, tagged: u64| Masking {
            and: [first & (vlan << 16 | 0xffff_ffff_0000_0000), second, third, fourth],
            or: [first & (u64::from(in_port.0) | tagged << 16), 0, 0, 0],
        };
        Self { untagged: masking(0, 0), tagged: masking(0x0fff, u64::from(VLAN_TAGGED)) }
    }
}

/// The scalar kernel.
#[inline(always)]
pub(crate) fn scalar(window: &[u8; 64], len: usize, plan: &Plan) -> Option<Found> {
    match u16::from_be_bytes([window[12], window[13]]) {
        ethertype::IPV4 => shape::<UNTAGGED>(window, len, &plan.untagged),
        ethertype::VLAN if u16::from_be_bytes([window[16], window[17]]) == ethertype::IPV4 => {
            shape::<TAGGED>(window, len, &plan.tagged)
        }
        _ => None,
    }
}

#[inline(always)]
fn shape<const L3: usize>(window: &[u8; 64], len: usize, masking: &Masking) -> Option<Found> {
    // The words below are put together for little-endian machines; elsewhere the full parser does all the work.
    if cfg!(target_endian = "big") {
        return None;
    }
    let ip = network::<L3>(window)?;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
    if window[6] & 1 != 0 || ip[0] != 0x45 || fragment != 0 {
        return None;
    }
    let layers = measure::<L3>(window, len)?;
    let vlan = if L3 == TAGGED { u64::from(u16::from_be_bytes([window[14], window[15]])) } else { 0 };
    let octets = [
        vlan << 16 | u64::from(little32(window, 0)) << 32,
        little64(window, 4),
        u64::from(ethertype::IPV4.to_be()) | u64::from(ip[9]) << 16 | u64::from(little32(ip, 12)) << 32,
        little64(ip, 16),
    ];
    let Masking { and, or } = masking;
    Some(Found {
        layers,
        key: [
            octets[0] & and[0] | or[0],
            octets[1] & and[1] | or[1],
            octets[2] & and[2] | or[2],
            octets[3] & and[3] | or[3],
        ],
    })
}

/// The lengths and the guard word of a frame that is of the shape but for its protocol. `None` if that is neither TCP
/// nor UDP, or a length is impossible.
#[inline(always)]
pub(crate) fn measure<const L3: usize>(window: &[u8; 64], len: usize) -> Option<Layers> {
    let ip = network::<L3>(window)?;
    // Whole words, or the compiler picks octets out of vector registers one by one (3 ticks a frame).
    let (first, second) = (little64(ip, 0), little64(ip, 8));
    let total = usize::from(((first >> 16) as u16).swap_bytes());
    // What the transport header states: the length of itself (TCP), or of itself and the payload (UDP).
    let (stated, least, flags) = match (second >> 8) as u8 {
        proto::TCP => {
            let word = little64(ip, 32);
            ((word as usize >> 2) & 0x3c, 20, tcp_flags((word >> 8) as u8))
        }
        proto::UDP => (usize::from((little64(ip, 24) as u16).swap_bytes()), 8, 0),
        _ => return None,
    };
    if stated < least || 20 + stated > total || L3 + total > len {
        return None;
    }
    // A plain frame lies within a slot, so its length fits into 16 bits.
    let size = (len - L3) as u32;
    Some(Layers {
        l3: L3 as u8,
        kind: Kind::Ipv4,
        l4: (L3 + 20) as u16,
        guard: hop_limit(second as u8) | flags | size << guard::SIZE_SHIFT,
    })
}

/// The network header and what follows it, as far as the window reaches behind a tag.
#[inline(always)]
fn network<const L3: usize>(window: &[u8; 64]) -> Option<&[u8; 46]> {
    window.get(L3..)?.first_chunk()
}

#[inline(always)]
fn little32(octets: &[u8], at: usize) -> u32 {
    super::read::array(octets, at).map_or(0, u32::from_le_bytes)
}

#[inline(always)]
fn little64(octets: &[u8], at: usize) -> u64 {
    super::read::array(octets, at).map_or(0, u64::from_le_bytes)
}
