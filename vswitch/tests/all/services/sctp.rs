//! Row V15: SCTP, by raw sockets, since a kernel may have no SCTP (and the switch must not need that it has).

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::kit::*;

/// RFC 9260, 3.2: chunks of an association that begins.
pub(crate) const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// A socket of a host that sends and hears SCTP packets as they are.
pub(crate) fn raw(host: &Host, family: usize) -> UdpSocket {
    let domain = [AddressFamily::INET, AddressFamily::INET6][family];
    let socket = host.space.run(|| rustix::net::socket(domain, SocketType::RAW, Some(ipproto::SCTP)).unwrap());
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A packet with one chunk and its checksum (RFC 9260, 3.1).
pub(crate) fn packet(sport: u16, dport: u16, chunk: u8) -> Vec<u8> {
    let tag = if chunk == INIT { 0 } else { 7u32 };
    let head = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    let mut packet = [&head[..], &[chunk, 0, 0, 20], &[3; 16]].concat();
    let sum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// The next packet that a socket hears, and from whom.
pub(crate) fn hear(socket: &UdpSocket, family: usize) -> (Vec<u8>, IpAddr) {
    let mut octets = [0; 256];
    let (len, from) = socket.recv_from(&mut octets).expect("a packet comes");
    // raw(7): with the header of IPv4, and without that of IPv6.
    (octets[[20, 0][family]..len].to_vec(), from.ip())
}

pub(crate) fn whole(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// Services of SCTP 80 beside TCP 80.
const BOTH: &str = "{name: s, protocol: SCTP, port: 80}, {name: t, protocol: TCP, port: 80}";
const BEHIND: &str = "{name: s, protocol: SCTP, port: 8080}, {name: t, protocol: TCP, port: 8080}";

#[test]
fn v15_sctp_to_a_service_reaches_its_endpoint_and_the_answer_comes_from_the_service() {
    on_a_node("v15_sctp_to_a_service_reaches_its_endpoint_and_the_answer_comes_from_the_service", |bed| {
        let _server = bed.c.serve(8080);
        bed.apply(&service_with("web", 10, BOTH, "", ""));
        // Beside TCP of the same number, which has another endpoint.
        bed.apply(&behind_with("web", "-s", "{name: s, protocol: SCTP, port: 8080}", &[(&bed.b, READY)]));
        bed.apply(&behind_with("web", "-t", "{name: t, protocol: TCP, port: 8080}", &[(&bed.c, READY)]));
        for family in FAMILIES {
            let (client, server) = (raw(&bed.a, family), raw(&bed.b, family));
            let (at, own) = (vip(family, 10, 0).ip(), bed.a.address(family));
            for round in 0..3 {
                let sport = 4000 + round % 2;
                client.send_to(&packet(sport, 80, INIT), whole(at)).unwrap();
                assert_eq!(hear(&server, family), (packet(sport, 8080, INIT), own));
                server.send_to(&packet(8080, sport, INIT_ACK), whole(own)).unwrap();
                assert_eq!(hear(&client, family), (packet(80, sport, INIT_ACK), at));
            }
            assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "c");
        }
    });
}

#[test]
fn v15_u4_sctp_is_refused_without_endpoints_and_not_ended_when_they_go() {
    on_a_node("v15_u4_sctp_is_refused_without_endpoints_and_not_ended_when_they_go", |bed| {
        bed.apply(&service_with("web", 10, BOTH, "", ""));
        for family in FAMILIES {
            bed.apply(&behind_with("web", "", BEHIND, &[]));
            let (client, server) = (raw(&bed.a, family), raw(&bed.b, family));
            client.connect(whole(vip(family, 10, 0).ip())).unwrap();
            client.send(&packet(4000, 80, INIT)).unwrap();
            assert_eq!(client.recv(&mut [0; 256]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bed.apply(&behind_with("web", "", BEHIND, &[(&bed.b, READY)]));
            client.send(&packet(4000, 80, INIT)).unwrap();
            hear(&server, family);
            server.send_to(&packet(8080, 4000, INIT_ACK), whole(bed.a.address(family))).unwrap();
            hear(&client, family);
            bed.apply(&behind_with("web", "", BEHIND, &[]));
            // COOKIE ECHO, of the association that has begun.
            client.send(&packet(4000, 80, 10)).unwrap();
            assert_eq!(hear(&server, family).0, packet(4000, 8080, 10));
        }
    });
}

#[test]
fn v7_v15_sctp_at_a_node_port_is_told_from_tcp_of_the_same_number() {
    on_a_node("v7_v15_sctp_at_a_node_port_is_told_from_tcp_of_the_same_number", |bed| {
        let _server = bed.c.serve(8080);
        let ports =
            "{name: s, protocol: SCTP, port: 80, nodePort: 30080}, {name: t, protocol: TCP, port: 80, nodePort: 30080}";
        bed.apply(&service_with("web", 10, ports, "", ", type: NodePort"));
        bed.apply(&behind_with("web", "-s", "{name: s, protocol: SCTP, port: 8080}", &[(&bed.b, READY)]));
        bed.apply(&behind_with("web", "-t", "{name: t, protocol: TCP, port: 8080}", &[(&bed.c, READY)]));
        for family in FAMILIES {
            for client in [&bed.outside, &bed.a] {
                let (near, far) = (raw(client, family), raw(&bed.b, family));
                let at = bed.node.address(family);
                near.send_to(&packet(4000, NODE_PORT, INIT), whole(at)).unwrap();
                let (came, from) = hear(&far, family);
                let sport = u16::from_be_bytes([came[0], came[1]]);
                assert_eq!((came, from), (packet(sport, 8080, INIT), at));
                far.send_to(&packet(8080, sport, INIT_ACK), whole(at)).unwrap();
                assert_eq!(hear(&near, family), (packet(NODE_PORT, 4000, INIT_ACK), at));
                assert_eq!(client.tcp(bed.node.at(family, NODE_PORT)).who, "c");
            }
        }
    });
}
