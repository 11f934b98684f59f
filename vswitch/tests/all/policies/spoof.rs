//! The spoof guard: a pod speaks from its own Ethernet address and addresses only, in ARP and ND too.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use etherparse::PacketBuilder;
use vswitch::sys::netlink::Netlink;
use vswitch::sys::packet;

use super::*;

/// Octets of the offload header before each frame (`PACKET_VNET_HDR`).
const HEADER: usize = 10;

/// The interface of a pod, frame by frame.
struct Wire {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl Wire {
    fn of(host: &Host) -> Self {
        host.space.run(|| {
            let link = Netlink::open().unwrap().link("eth0").unwrap().unwrap();
            Self { socket: packet::attach(link.index).unwrap(), mac: link.mac.0 }
        })
    }

    fn send(&self, frame: &[u8]) {
        rustix::io::write(&self.socket, &[&[0; HEADER][..], frame].concat()).unwrap();
    }

    /// Frames up to the one that ends like this; what came before it.
    fn until(&self, end: &[u8]) -> Vec<Vec<u8>> {
        let patience = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        loop {
            assert!(Instant::now() < patience, "the honest frame does not come; {} others do", before.len());
            let mut octets = [0; 4096];
            match packet::receive(&self.socket, &mut octets, &mut []) {
                Ok((len, _)) if octets[HEADER..len].ends_with(end) => return before,
                Ok((len, _)) => before.push(octets[HEADER..len].to_vec()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn v4(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address.octets()
}

fn v6(address: IpAddr) -> [u8; 16] {
    let IpAddr::V6(address) = address else { panic!("{address}") };
    address.octets()
}

/// A datagram to port 8080.
fn datagram(macs: [[u8; 6]; 2], [from, to]: [IpAddr; 2], text: &[u8]) -> Vec<u8> {
    let [src, dst] = macs;
    let builder = PacketBuilder::ethernet2(src, dst);
    let builder = match from {
        IpAddr::V4(_) => builder.ipv4(v4(from), v4(to), 64),
        IpAddr::V6(_) => builder.ipv6(v6(from), v6(to), 64),
    };
    let mut frame = Vec::new();
    builder.udp(7000, 8080).write(&mut frame, text).unwrap();
    frame
}

/// Who says that an address is at an Ethernet address.
fn arp_reply(macs: [[u8; 6]; 2], sender_mac: [u8; 6], [sender, target]: [IpAddr; 2]) -> Vec<u8> {
    let [src, dst] = macs;
    let head = [&dst[..], &src, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 2]].concat();
    [&head[..], &sender_mac, &v4(sender), &dst, &v4(target)].concat()
}

/// A neighbour advertisement (RFC 4861, 4.4) with its target link-layer address.
fn advertisement(macs: [[u8; 6]; 2], [from, to]: [IpAddr; 2], target: IpAddr, mac: [u8; 6]) -> Vec<u8> {
    let [src, dst] = macs;
    let body = [&v6(target)[..], &[2, 1], &mac].concat();
    let builder = PacketBuilder::ethernet2(src, dst).ipv6(v6(from), v6(to), 255);
    let mut frame = Vec::new();
    // Overriding, and solicited.
    let icmp = etherparse::Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [0x60, 0, 0, 0] };
    builder.icmpv6(icmp).write(&mut frame, &body).unwrap();
    frame
}

#[test]
fn spoofed_frames_are_heard_by_nobody_and_honest_ones_are() {
    on_a_node("spoofed_frames_are_heard_by_nobody_and_honest_ones_are", |bed| {
        let Bed { a, b, c, .. } = bed;
        let (wire, far) = (Wire::of(a), Wire::of(b));
        let (own, other) = (wire.mac, Wire::of(c).mac);
        let honest = [own, far.mac];
        for family in FAMILIES {
            // Everybody is known, and nobody asks for anybody while the frames go.
            assert!(a.ping(b.address(family), PATIENCE) && b.ping(c.address(family), PATIENCE));
            let [of_a, of_b, of_c] = [a, b, c].map(|host| host.address(family));
            let stranger: IpAddr = ["10.9.9.9", "fd00:9::9"][family].parse().unwrap();
            let mut spoofed = vec![
                datagram([other, far.mac], [of_a, of_b], b"from the address of c's interface"),
                datagram(honest, [of_c, of_b], b"from the address of c"),
                datagram(honest, [stranger, of_b], b"from the address of a stranger"),
                [&far.mac[..], &own, &[0x88, 0xb5], &[7; 50]].concat(),
            ];
            match family {
                0 => spoofed.extend([
                    arp_reply(honest, own, [of_c, of_b]),
                    arp_reply(honest, other, [of_a, of_b]),
                    arp_reply([other, far.mac], other, [of_a, of_b]),
                ]),
                _ => spoofed.extend([
                    advertisement(honest, [of_a, of_b], of_c, own),
                    advertisement(honest, [of_a, of_b], of_a, other),
                    advertisement(honest, [of_c, of_b], of_c, own),
                ]),
            }
            for round in [b"miss", b"hit."] {
                spoofed.iter().for_each(|frame| wire.send(frame));
                wire.send(&datagram(honest, [of_a, of_b], round));
                let heard = far.until(round);
                let lies = heard.iter().filter(|frame| spoofed.contains(frame)).count();
                assert_eq!(lies, 0, "{heard:?}");
            }
            let drops = bed.vsctl("drops");
            assert!(drops.contains("spoofed"), "{drops}");
            // Who opts out may lend its port to others.
            bed.vsctl("set Interface a external_ids:spoof-guard=off");
            let lent = datagram(honest, [stranger, of_b], b"from the address of a guest");
            wire.send(&lent);
            far.until(b"from the address of a guest");
            bed.vsctl("set Interface a external_ids:spoof-guard=on");
            wire.send(&lent);
            wire.send(&datagram(honest, [of_a, of_b], b"last"));
            assert!(!far.until(b"last").contains(&lent));
        }
        // And c is where it was.
        let _server = c.serve(8080);
        Matrix::new().row(b, c, 8080, true).row(a, c, 8080, true).holds();
    });
}
