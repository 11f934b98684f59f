//! The shapes that most frames have, recognised in one look at their first octets: IPv4 or IPv6 with TCP or UDP, untagged
//! or behind one 802.1Q tag, without options or extension headers, not a fragment, with nothing left to be done.
//!
//! ```text
//!   octet  0       6       12     14        15  16     18   20     22   23     24     26      30      34
//!   frame  dst     src     08 00  45        tos total  id   frag   ttl  proto  check  source  dest    sport dport ..
//!   must           !group  ====   ==                        ..0..       6, 17
//!
//!   octet  0       6       12     14               18       20    21    22      38      54
//!   frame  dst     src     86 dd  6x class, label  payload  next  hops  source  dest    sport dport ..
//!   must           !group  ====   =                         6, 17
//! ```
//!
//! A frame that is not of such a shape, or that is but states an impossible length, is left to [`super::layers`]; what is
//! taken here is exactly what it would accept, with the same result. The scalar kernel is below; its vector twin is in
//! `raw/simd_parse.rs`. Both share [`measure`] and [`measure6`].

use api::PortId;

use crate::burst::{Kind, Layers, guard};
use crate::key::{KeyMask, VLAN_TAGGED};

use super::layers::{ethertype, hop_limit, proto, tcp_flags};

/// The first octets of a frame, its own or left-overs.
pub(crate) type Window = [u8; crate::raw::WINDOW];

/// Offset of the network header without and with a tag.
pub(crate) const UNTAGGED: usize = 14;
/// With one tag.
pub(crate) const TAGGED: usize = 18;

/// How the octets of a frame become its masked key, untagged or tagged: `octets & and | or`. Made once a burst.
#[derive(Clone, Copy)]
pub(crate) struct Masking {
    pub(crate) and: [u64; 8],
    pub(crate) or: [u64; 8],
}

impl Masking {
    /// The masked words of a key.
    #[inline(always)]
    fn mask<const N: usize>(&self, octets: &[u64; N]) -> [u64; N] {
        let mut key = *octets;
        let masks = self.and.iter().zip(&self.or);
        key.iter_mut().zip(masks).for_each(|(word, (and, or))| *word = *word & and | or);
        key
    }
}

/// The masking of all shapes. What a version's frames have not is zero before it is masked.
pub(crate) struct Plan {
    pub(crate) untagged: Masking,
    pub(crate) tagged: Masking,
}

impl Plan {
    pub(crate) fn new(in_port: PortId, mask: &KeyMask) -> Self {
        let words: [u64; 8] = super::hasher::prefix(mask);
        let [first, rest @ ..] = words;
        let masking = |vlan: u64, tagged: u64| {
            let [a, b, c, d, e, f, g] = rest;
            let or = first & (u64::from(in_port.0) | tagged << 16);
            Masking {
                and: [first & (vlan << 16 | 0xffff_ffff_0000_0000), a, b, c, d, e, f, g],
                or: [or, 0, 0, 0, 0, 0, 0, 0],
            }
        };
        Self { untagged: masking(0, 0), tagged: masking(0x0fff, u64::from(VLAN_TAGGED)) }
    }
}

/// The scalar kernel for IPv4: the layers of a frame of its shape, whose masked key is put into `key`.
#[inline(always)]
pub(crate) fn four(window: &Window, len: usize, plan: &Plan, key: &mut [u64; 4]) -> Option<Layers> {
    match types(window)? {
        (ethertype::IPV4, _) => shape::<UNTAGGED>(window, len, &plan.untagged, key),
        (ethertype::VLAN, ethertype::IPV4) => shape::<TAGGED>(window, len, &plan.tagged, key),
        _ => None,
    }
}

/// The scalar kernel for IPv6. The key is put into `long`, too, if it is one of more than four `WORDS`.
#[inline(always)]
pub(crate) fn six<const WORDS: usize>(
    window: &Window,
    len: usize,
    plan: &Plan,
    key: &mut [u64; 4],
    long: &mut [u64; 8],
) -> Option<Layers> {
    match types(window)? {
        (ethertype::IPV6, _) => shape6::<UNTAGGED, WORDS>(window, len, &plan.untagged, key, long),
        (ethertype::VLAN, ethertype::IPV6) => shape6::<TAGGED, WORDS>(window, len, &plan.tagged, key, long),
        _ => None,
    }
}

/// The Ethernet type, and what would be the one behind a tag; `None` if the source is a group.
#[inline(always)]
fn types(window: &Window) -> Option<(u16, u16)> {
    // The words below are put together for little-endian machines; elsewhere the full parser does all the work.
    if cfg!(target_endian = "big") || window[6] & 1 != 0 {
        return None;
    }
    Some((u16::from_be_bytes([window[12], window[13]]), u16::from_be_bytes([window[16], window[17]])))
}

#[inline(always)]
fn shape<const L3: usize>(window: &Window, len: usize, masking: &Masking, key: &mut [u64; 4]) -> Option<Layers> {
    let ip = network::<L3>(window)?;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
    if ip[0] != 0x45 || fragment != 0 {
        return None;
    }
    let layers = measure::<L3>(window, len)?;
    let [first, second] = link::<L3>(window);
    let third = u64::from(ethertype::IPV4.to_be()) | u64::from(ip[9]) << 16 | u64::from(little32(ip, 12)) << 32;
    *key = masking.mask(&[first, second, third, little64(ip, 16)]);
    Some(layers)
}

#[inline(always)]
fn shape6<const L3: usize, const WORDS: usize>(
    window: &Window,
    len: usize,
    masking: &Masking,
    key: &mut [u64; 4],
    long: &mut [u64; 8],
) -> Option<Layers> {
    let ip = network::<L3>(window)?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let layers = measure6::<L3>(window, len)?;
    let [first, second] = link::<L3>(window);
    let third = u64::from(ethertype::IPV6.to_be()) | u64::from(ip[6]) << 16;
    let fourth = u64::from(little32(ip, 40)) << 32;
    let [a, b, c, d] = [8, 16, 24, 32].map(|at| little64(ip, at));
    let words = masking.mask(&[first, second, third, fourth, a, b, c, d]);
    if WORDS > 4 {
        super::put(long, &words);
    }
    *key = [words[0], words[1], words[2], words[3]];
    Some(layers)
}

/// The first two words of a key, without the port and the mark of a tag.
#[inline(always)]
fn link<const L3: usize>(window: &Window) -> [u64; 2] {
    let vlan = if L3 == TAGGED { u64::from(u16::from_be_bytes([window[14], window[15]])) } else { 0 };
    [vlan << 16 | u64::from(little32(window, 0)) << 32, little64(window, 4)]
}

/// The lengths and the guard word of a frame that is of the shape but for its protocol. `None` if that is neither TCP
/// nor UDP, or a length is impossible.
#[inline(always)]
pub(crate) fn measure<const L3: usize>(window: &Window, len: usize) -> Option<Layers> {
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

/// [`measure`] for IPv6.
#[inline(always)]
pub(crate) fn measure6<const L3: usize>(window: &Window, len: usize) -> Option<Layers> {
    let ip = network::<L3>(window)?;
    let first = little64(ip, 0);
    let payload = usize::from(((first >> 32) as u16).swap_bytes());
    let (stated, least, flags) = match (first >> 48) as u8 {
        proto::TCP => {
            let word = little64(ip, 52);
            ((word as usize >> 2) & 0x3c, 20, tcp_flags((word >> 8) as u8))
        }
        proto::UDP => (usize::from((little64(ip, 44) as u16).swap_bytes()), 8, 0),
        _ => return None,
    };
    if stated < least || stated > payload || L3 + 40 + payload > len {
        return None;
    }
    let size = (len - L3) as u32;
    Some(Layers {
        l3: L3 as u8,
        kind: Kind::Ipv6,
        l4: (L3 + 40) as u16,
        guard: hop_limit((first >> 56) as u8) | flags | size << guard::SIZE_SHIFT,
    })
}

/// The network header and what follows it, up to the flags of TCP over IPv6 and some octets more.
#[inline(always)]
fn network<const L3: usize>(window: &Window) -> Option<&[u8; 64]> {
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
