//! TCP RST: a connection is refused in the name of its destination (RFC 9293, 3.5.2 and 3.10.7.1).

use crate::burst::Layers;
use crate::parse::{array, octet, proto};

use super::packet::{Packet, ip, is_fragment};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Where the checksum is.
const CHECKSUM: usize = 16;

/// The RST to a segment; `None` if it must not be answered.
pub(super) fn reset(head: &[u8], layers: &Layers) -> Option<Vec<u8>> {
    let packet = Packet::read(head, layers)?;
    let flags = octet(head, packet.l4 + 13)?;
    if packet.proto != proto::TCP || is_fragment(layers) || flags & RST != 0 || !packet.may_be_answered() {
        return None;
    }
    let [source, destination]: [[u8; 2]; 2] = [array(head, packet.l4)?, array(head, packet.l4 + 2)?];
    let [sequence, acknowledged] = [array(head, packet.l4 + 4)?, array(head, packet.l4 + 8)?].map(u32::from_be_bytes);
    // If it acknowledges something, we start there; else we start at 0 and acknowledge all that it has.
    let (sequence, acknowledged, flags) = if flags & ACK != 0 {
        (acknowledged, 0, RST)
    } else {
        let header = usize::from(octet(head, packet.l4 + 12)? >> 4) * 4;
        let octets = packet.end.checked_sub(packet.l4 + header)?;
        let syn_and_fin = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, sequence.wrapping_add(u32::try_from(octets).ok()?).wrapping_add(syn_and_fin), RST | ACK)
    };
    let segment = [
        &destination[..],
        &source,
        &sequence.to_be_bytes(),
        &acknowledged.to_be_bytes(),
        // Five words of header, no window, no checksum yet, nothing urgent.
        &[0x50, flags, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    ip(packet.link()?, packet.dst, packet.src, proto::TCP, segment, CHECKSUM)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::reply::samples::*;

    /// Sequence, acknowledgement and flag octet of a RST from where the sample went, whose checksums are sound.
    fn parsed(frame: &[u8]) -> (u32, u32, u8) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP: {frame:02x?}") };
        let sum = match packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                assert_eq!((header.source_addr(), header.destination_addr()), (THERE4, ASKER4));
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap()
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                assert_eq!((header.source_addr(), header.destination_addr()), (THERE6, ASKER6));
                tcp.calc_checksum_ipv6(header.source(), header.destination()).unwrap()
            }
            other => panic!("no IP: {other:?}"),
        };
        assert_eq!((tcp.checksum(), tcp.payload().len(), tcp.window_size()), (sum, 0, 0));
        assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 1000));
        (tcp.sequence_number(), tcp.acknowledgment_number(), tcp.slice()[13])
    }

    #[test]
    fn a_segment_is_refused_where_its_sender_will_believe_it() {
        for (flags, payload, seq, ack, answer) in [
            (SYN, 0, 0, 0x0102_0305, RST | ACK),
            (SYN, 100, 0, 0x0102_0305 + 100, RST | ACK),
            (FIN, 7, 0, 0x0102_0305 + 7, RST | ACK),
            (0, 7, 0, 0x0102_0304 + 7, RST | ACK),
            (ACK, 100, 0x0a0b_0c0d, 0, RST),
            (SYN | ACK, 0, 0x0a0b_0c0d, 0, RST),
        ] {
            let segment = tcp(flags, &vec![7; payload]);
            for frame in
                [ethernet(&[10], 0x0800, &ipv4(6, 0x4000, &segment)), ethernet(&[10], 0x86dd, &ipv6(6, &segment))]
            {
                let reply = reset(&frame, &found(&frame)).unwrap();
                assert_eq!(reply[..12], [ASKER.0, ROUTER_MAC.0].concat());
                assert_eq!(reply[12..18], frame[12..18]);
                assert_eq!(parsed(&reply), (seq, ack, answer), "{flags:#04x} {payload}");
            }
        }
    }

    #[test]
    fn the_length_of_a_segment_is_that_of_its_packet_not_of_its_frame() {
        let mut frame = ethernet(&[], 0x0800, &ipv4(6, 0, &tcp(SYN, b"")));
        frame.extend([0; 6]);
        assert_eq!(parsed(&reset(&frame, &found(&frame)).unwrap()).1, 0x0102_0305);
    }

    #[test]
    fn a_reset_a_fragment_and_what_is_not_tcp_are_not_refused() {
        for (why, packet) in [
            ("a reset", ipv4(6, 0, &tcp(RST, b""))),
            ("a reset that acknowledges", ipv4(6, 0, &tcp(RST | ACK, b""))),
            ("a first fragment", ipv4(6, 0x2000, &tcp(SYN, &[0; 4]))),
            ("a later fragment", ipv4(6, 1, b"the rest of it")),
            ("a datagram", ipv4(17, 0, &udp(b"hello hello hello"))),
        ] {
            let frame = ethernet(&[], 0x0800, &packet);
            assert_eq!(reset(&frame, &found(&frame)), None, "{why}");
        }
        let mut frame = ethernet(&[], 0x0800, &ipv4(6, 0, &tcp(SYN, b"")));
        frame[..6].copy_from_slice(&[0xff; 6]);
        assert_eq!(reset(&frame, &found(&frame)), None, "to everybody");
    }
}
