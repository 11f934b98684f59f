//! The frame of a packet that is to be traced: as the first one of its kind would come in.

use std::net::IpAddr;

use api::MacAddr;
use api::state::Probe;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr};

/// Hop limit of a host that was told no other (RFC 1700, "IP TIME TO LIVE PARAMETER").
const HOPS: u8 = 64;
/// TCP's SYN and a header of five words (RFC 9293, 3.1).
const SYN: [u8; 2] = [0x50, 0x02];
/// The longest transport header of a probe: TCP's.
const PAYLOAD: usize = 20;

/// Write the frame of a probe, to this Ethernet address; `false` when its ends are not of one family.
pub(super) fn write_frame(probe: &Probe, to: MacAddr, octets: &mut Vec<u8>) -> bool {
    let kind: u16 = match (probe.src, probe.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => 0x0800,
        (IpAddr::V6(_), IpAddr::V6(_)) => 0x86dd,
        _ => return false,
    };
    let mut room = [0; PAYLOAD];
    let payload = payload_of(probe, &mut room);
    let proto = IpProtocol::from(probe.proto);
    let header = IpRepr::new(probe.src.into(), probe.dst.into(), proto, payload.len(), HOPS);
    octets.clear();
    octets.extend_from_slice(&to.0);
    octets.extend_from_slice(&probe.eth_src.0);
    octets.extend_from_slice(&kind.to_be_bytes());
    let at = octets.len();
    octets.resize(at + header.header_len(), 0);
    if let Some(space) = octets.get_mut(at..) {
        header.emit(space, &ChecksumCapabilities::default());
    }
    octets.extend_from_slice(payload);
    true
}

/// The same, alone.
pub(super) fn frame_of(probe: &Probe, to: MacAddr) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    write_frame(probe, to, &mut octets).then_some(octets)
}

/// What follows the IP header. Checksums are zero: nobody looks at them on the way.
fn payload_of<'a>(probe: &Probe, room: &'a mut [u8; PAYLOAD]) -> &'a [u8] {
    let [[s0, s1], [d0, d1]] = [probe.sport, probe.dport].map(u16::to_be_bytes);
    let [flags0, flags1] = SYN;
    let (octets, len) = match IpProtocol::from(probe.proto) {
        IpProtocol::Tcp => ([s0, s1, d0, d1, 0, 0, 0, 0, 0, 0, 0, 0, flags0, flags1, 0xff, 0xff, 0, 0, 0, 0], PAYLOAD),
        IpProtocol::Udp => ([s0, s1, d0, d1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        // An echo request; its identifier is what the probe has for a port.
        IpProtocol::Icmp => ([8, 0, 0, 0, s0, s1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        IpProtocol::Icmpv6 => ([128, 0, 0, 0, s0, s1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        IpProtocol::Unknown(132) => ([s0, s1, d0, d1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 12),
        _ => ([0; PAYLOAD], 0),
    };
    *room = octets;
    room.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use api::PortId;
    use pipeline::parse;

    use super::*;

    #[test]
    fn a_frame_is_parsed_as_what_was_asked_for() {
        for (src, dst) in [("10.1.0.2", "10.96.0.1"), ("fd00::2", "fd00:96::1")] {
            for (proto, tuple) in [(6, (5000, 80)), (17, (5000, 80)), (132, (5000, 80)), (47, (0, 0))] {
                let probe = Probe {
                    port: PortId(1),
                    eth_src: MacAddr([2, 0, 0, 0, 0, 2]),
                    eth_dst: None,
                    src: src.parse().unwrap(),
                    dst: dst.parse().unwrap(),
                    proto,
                    sport: 5000,
                    dport: 80,
                    everywhere: false,
                };
                let octets = frame_of(&probe, MacAddr([2, 0, 0, 0, 0, 1])).unwrap();
                let layers = parse::layers(&octets, octets.len(), None).unwrap();
                let key = parse::key(PortId(1), &octets, &layers);
                assert_eq!((key.source(), key.destination()), (Some(probe.src), Some(probe.dst)), "{proto}");
                assert_eq!((key.ip_proto(), (key.tp_src(), key.tp_dst())), (proto, tuple), "{proto}");
                let mixed = Probe { src: "10.1.0.2".parse().unwrap(), dst: "fd00::1".parse().unwrap(), ..probe };
                assert!(frame_of(&mixed, MacAddr([2, 0, 0, 0, 0, 1])).is_none());
            }
        }
    }
}
