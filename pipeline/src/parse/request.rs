//! Offload requests: whether what the sender asks to be done fits the frame it came with.
//!
//! A request comes from a pod's kernel, or from whoever writes to its device, and later steps follow its offsets into
//! the frame. So it is held against what the parser itself found.

use crate::burst::Kind;
use crate::drop::DropReason;
use crate::offload::Offload;

use super::extension::Transport;
use super::layers::proto;

/// Smallest `gso_size` (FASTPATH 7): bounds the segments of one frame to 256.
pub(crate) const LEAST_SEGMENT: u16 = 256;

/// What the parser found.
pub(super) struct Facts {
    /// Octets of the first segment.
    pub(super) head: usize,
    /// Octets of the frame.
    pub(super) len: usize,
    pub(super) l3: usize,
    pub(super) kind: Kind,
    /// Where the network packet ends.
    pub(super) end: usize,
    pub(super) transport: Transport,
    /// Octets of the transport header.
    pub(super) header: usize,
}

/// Check a request. For one that cuts the frame: octets of the largest segment, from the network header on.
///
/// `hdr_len` is a hint that nothing of ours relies on, and a kernel that puts a tag in does not count it there; it is
/// refused where no kernel could have meant it.
pub(super) fn check(offload: Offload, facts: &Facts) -> Result<Option<usize>, DropReason> {
    let fits = if offload.is_gso() { segmentation_fits(offload, facts) } else { offload.gso_type == Offload::GSO_NONE };
    if !fits || (offload.needs_csum() && !checksum_fits(offload, facts)) {
        return Err(DropReason::OffloadMalformed);
    }
    let headers = || facts.transport.at + facts.header - facts.l3;
    Ok(offload.is_gso().then(|| headers() + usize::from(offload.gso_size)))
}

/// The region starts at the transport header or behind it (a tunnel in the pod leaves the inner checksum to us), and
/// the field lies in the first segment.
fn checksum_fits(offload: Offload, facts: &Facts) -> bool {
    let start = usize::from(offload.csum_start);
    let from = match facts.kind {
        Kind::Other => facts.l3,
        Kind::Arp => return false,
        Kind::Ipv4 | Kind::Ipv6 => facts.transport.at,
    };
    facts.transport.frag == 0 && start >= from && start + usize::from(offload.csum_offset) + 2 <= facts.head
}

fn segmentation_fits(offload: Offload, facts: &Facts) -> bool {
    let ecn = offload.gso_type & Offload::GSO_ECN != 0;
    let (kind, proto, field) = match offload.gso_type & !Offload::GSO_ECN {
        Offload::GSO_TCPV4 => (Some(Kind::Ipv4), proto::TCP, 16),
        Offload::GSO_TCPV6 => (Some(Kind::Ipv6), proto::TCP, 16),
        Offload::GSO_UDP_L4 if !ecn => (None, proto::UDP, 6),
        _ => return false,
    };
    let is_ip = matches!(facts.kind, Kind::Ipv4 | Kind::Ipv6);
    let Transport { at, proto: found, frag } = facts.transport;
    let hint = usize::from(offload.hdr_len);
    // Tags that were put in after the hint was made.
    let tags = facts.l3 - 14;
    offload.gso_size >= LEAST_SEGMENT
        && offload.needs_csum()
        && is_ip
        && kind.is_none_or(|kind| kind == facts.kind)
        && (found, frag) == (proto, 0)
        && (usize::from(offload.csum_start), offload.csum_offset) == (at, field)
        && facts.end == facts.len
        && (hint == 0 || (hint + tags >= at + facts.header && hint <= facts.len))
}
