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

/// The frame of a probe, to this Ethernet address; `None` when its ends are not of one family.
pub(super) fn frame_of(probe: &Probe, to: MacAddr) -> Option<Vec<u8>> {
    let kind: u16 = match (probe.src, probe.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => 0x0800,
        (IpAddr::V6(_), IpAddr::V6(_)) => 0x86dd,
        _ => return None,
    };
    let payload = payload_of(probe);
    let proto = IpProtocol::from(probe.proto);
    let header = IpRepr::new(probe.src.into(), probe.dst.into(), proto, payload.len(), HOPS);
    let mut octets = vec![0; header.header_len()];
    header.emit(&mut octets[..], &ChecksumCapabilities::default());
    Some([&to.0[..], &probe.eth_src.0, &kind.to_be_bytes(), &octets, &payload].concat())
}

/// What follows the IP header. Checksums are zero: nobody looks at them on the way.
fn payload_of(probe: &Probe) -> Vec<u8> {
    let [sport, dport] = [probe.sport, probe.dport].map(u16::to_be_bytes);
    let ports = [sport, dport].concat();
    match IpProtocol::from(probe.proto) {
        IpProtocol::Tcp => [&ports[..], &[0; 8], &SYN, &[0xff, 0xff], &[0; 4]].concat(),
        IpProtocol::Udp => [&ports[..], &[0, 8], &[0; 2]].concat(),
        // An echo request; its identifier is what the probe has for a port.
        IpProtocol::Icmp => [&[8, 0, 0, 0][..], &sport, &[0, 1]].concat(),
        IpProtocol::Icmpv6 => [&[128, 0, 0, 0][..], &sport, &[0, 1]].concat(),
        IpProtocol::Unknown(132) => [&ports[..], &[0; 8]].concat(),
        _ => Vec::new(),
    }
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
