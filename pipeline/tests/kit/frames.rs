//! Frames to test with: built octet by octet, so that what is tested is not tested with itself. Checksums are zero.

#![allow(unreachable_pub, dead_code, reason = "included, in parts, by tests and fuzz targets")]

/// Ethernet from 02:..:02 to 02:..:01, with tags given as (tag protocol, tag control information).
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// IPv4 with options (whole words), from 10.0.0.1 to 10.0.1.2.
pub fn ipv4(proto: u8, frag: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(frag.to_be_bytes());
    packet.extend([64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 1, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// IPv6 from fd00::1 to fd00::2; extension headers stand in the payload.
pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0x12, 0x34, 0x56];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

/// TCP from 1000 to 80 with options (whole words) and the flag octet.
pub fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x03, 0xe8, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2];
    segment.extend([(((20 + options.len()) / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

/// UDP from 2000 to 53.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x07, 0xd0, 0, 53];
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// ARP request for 10.0.1.2 from 10.0.0.1.
pub fn arp() -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1];
    arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 1, 2]);
    arp
}

/// Neighbour solicitation for fd00::2 with the given options.
pub fn solicitation(options: &[u8]) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    message.extend(options);
    message
}

/// One sound frame of every kind that the parser tells apart.
pub fn all() -> Vec<Vec<u8>> {
    let destination_options = [17, 0, 1, 4, 0, 0, 0, 0];
    let fragment = [17, 0, 0, 9, 0, 0, 0, 7];
    let udp16 = udp(b"12345678");
    let chain = [&destination_options[..], &udp16].concat();
    let fragmented = [&fragment[..], &udp16].concat();
    let networks = [
        (0x0800, ipv4(6, 0x4000, &[], &tcp(0x18, &[], b"hello"))),
        (0x0800, ipv4(6, 0x4000, &[], &tcp(0x02, &[2, 4, 5, 0xb4], b""))),
        (0x0800, ipv4(17, 0, &[], &udp(b"hello"))),
        (0x0800, ipv4(17, 0, &[1, 1, 1, 0], &udp(b"hello"))),
        (0x0800, ipv4(17, 0x2000, &[], &udp16)),
        (0x0800, ipv4(17, 0x0001, &[], b"the rest of a datagram")),
        (0x0800, ipv4(132, 0, &[], &[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9])),
        (0x0800, ipv4(1, 0, &[], &[8, 0, 0, 0, 0, 1, 0, 1, 7, 7])),
        (0x0800, ipv4(47, 0, &[], &[0; 4])),
        (0x86dd, ipv6(6, &tcp(0x11, &[], b"hello"))),
        (0x86dd, ipv6(17, &udp(b"hello"))),
        (0x86dd, ipv6(60, &chain)),
        (0x86dd, ipv6(44, &fragmented)),
        (0x86dd, ipv6(58, &solicitation(&[1, 1, 2, 0, 0, 0, 0, 2]))),
        (0x86dd, ipv6(58, &[129, 0, 0, 0, 0x12, 0x34, 0, 1, 7, 7])),
        (0x86dd, ipv6(59, b"")),
        (0x0806, arp()),
        (0x8847, vec![0, 0, 0x10, 64, 0, 0, 0x21, 64, 0x45]),
        (0x0004, vec![0xaa, 0xaa, 3, 0]),
        (0x1234, vec![1, 2, 3]),
    ];
    let tags: [&[(u16, u16)]; 4] =
        [&[], &[(0x8100, 0x6007)], &[(0x88a8, 0x0fff)], &[(0x88a8, 0x3064), (0x8100, 0xe00a)]];
    let framed = |tags| networks.iter().map(move |(ethertype, packet)| ethernet(tags, *ethertype, packet));
    tags.into_iter().flat_map(framed).collect()
}
