//! Processes of the node and services at addresses that the node's kernel has itself.

use std::io::ErrorKind;
use std::sync::Arc;

use api::External;
use vswitch::sys::nftables::Nftables;
use vswitch::sys::routes::Family;

use super::*;

const NODE_PORT: u16 = 30080;
/// By family: an external address, which no interface has at first.
const EXTERNAL: [&str; 2] = ["203.0.113.7", "2001:db8:7::7"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// The service of [`program`] at another address: SCTP, which it has not, beside TCP and UDP.
fn external(family: usize, at: SocketAddr) -> Vec<Service> {
    let of = |proto| {
        let cluster = service(family, proto, &[POD[family][1]]);
        let external =
            External { local: None, sources: None, cluster: SocketAddr::new(cluster.key.address, cluster.key.port) };
        let key = ServiceKey { address: at.ip(), proto, port: at.port() };
        Service { key, external: Some(Arc::new(external)), ..cluster }
    };
    [Proto::Tcp, Proto::Udp, Proto::Sctp].map(of).to_vec()
}

fn tell(switch: &mut Switch, services: &[Service], change: impl Fn(Service) -> Delta<Service>) {
    let changes = services.iter().map(|service| Change::Service(change(service.clone()))).collect();
    switch.apply(&Transaction { changes }).unwrap();
}

/// Give the node's `lo` an address, or take it away.
fn on_lo(address: &str, there: bool) {
    let netlink = Netlink::open().unwrap();
    let lo = netlink.index("lo").unwrap();
    let address: IpAddr = address.parse().unwrap();
    let len = if address.is_ipv4() { 32 } else { 128 };
    if there {
        netlink.add_address(lo, address, len).unwrap()
    } else {
        netlink.remove_address(lo, address, len).unwrap()
    }
}

/// A datagram to an address, answered; by a socket that is connected or not. Who answered, and whom the server saw.
fn datagram(
    pod: &Namespace,
    backend: &str,
    from: SocketAddr,
    to: SocketAddr,
    connected: bool,
) -> std::io::Result<(SocketAddr, SocketAddr)> {
    let server = pod.run(|| UdpSocket::bind((backend, 8080)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = UdpSocket::bind(from)?;
    client.set_read_timeout(Some(PATIENCE))?;
    if connected {
        client.connect(to)?;
        client.send(b"question")?;
    } else {
        client.send_to(b"question", to)?;
    }
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| {
            let mut octets = [0; 16];
            let (len, peer) = server.recv_from(&mut octets).ok()?;
            server.send_to(&octets[..len], peer).unwrap();
            Some(peer)
        });
        let answer = client.recv_from(&mut [0; 16])?;
        assert_eq!(answer.0, 8);
        Ok((answer.1, heard.join().unwrap().unwrap()))
    })
}

/// A TCP connection of the node: what the server in the pod saw, and which peer the client has.
fn connection(hosts: &Hosts, family: usize, to: SocketAddr) -> std::io::Result<(IpAddr, SocketAddr)> {
    let listener = hosts.pods[1].run(|| TcpListener::bind((POD[family][1], 8080)).unwrap());
    let client = TcpStream::connect_timeout(&to, PATIENCE)?;
    let (server, peer) = listener.accept()?;
    // More than fits a frame, both ways: what goes by `lo` may be larger.
    let much = vec![7; 200_000];
    std::thread::scope(|scope| {
        for mut stream in [&client, &server] {
            let much = &much;
            scope.spawn(move || stream.write_all(much).unwrap());
        }
        for mut stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut vec![0; much.len()]).unwrap();
        }
    });
    Ok((peer.ip(), client.peer_addr()?))
}

fn own(family: usize) -> IpAddr {
    NODE[family].parse().unwrap()
}

#[test]
fn the_node_reaches_a_node_port_at_its_own_address_and_is_seen_as_itself() {
    on_a_node("the_node_reaches_a_node_port_at_its_own_address_and_is_seen_as_itself", |hosts, switch| {
        for family in 0..2 {
            let to = at(NODE[family], NODE_PORT);
            let refused = |what: std::io::Error| assert_eq!(what.kind(), ErrorKind::ConnectionRefused);
            refused(connection(hosts, family, to).unwrap_err());
            tell(switch, &external(family, to), Delta::add);
            assert_eq!(connection(hosts, family, to).unwrap(), (own(family), to), "{:?}", switch.drops());
            let any = at(["0.0.0.0", "::"][family], 0);
            for (connected, port) in [(true, 5000), (false, 5001), (false, 5001)] {
                let from = SocketAddr::new(any.ip(), port);
                let (answered, seen) = datagram(&hosts.pods[1], POD[family][1], from, to, connected).unwrap();
                assert_eq!((answered, seen), (to, SocketAddr::new(own(family), port)), "connected: {connected}");
            }
            // Another port of the same address is the node's own.
            let listener = TcpListener::bind((NODE[family], 9)).unwrap();
            let client = TcpStream::connect_timeout(&at(NODE[family], 9), PATIENCE).unwrap();
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
            tell(switch, &external(family, to), Delta::remove);
            refused(connection(hosts, family, to).unwrap_err());
        }
    });
}

#[test]
fn a_socket_of_one_port_speaks_at_once_to_a_node_port_and_to_the_cluster_address() {
    on_a_node("a_socket_of_one_port_speaks_at_once_to_a_node_port_and_to_the_cluster_address", |hosts, switch| {
        for family in 0..2 {
            let (to, cluster) = (at(NODE[family], NODE_PORT), at(VIP[family], 80));
            tell(switch, &external(family, to), Delta::add);
            let server = hosts.pods[1].run(|| UdpSocket::bind((POD[family][1], 8080)).unwrap());
            let client = UdpSocket::bind((NODE[family], 5000)).unwrap();
            for socket in [&server, &client] {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            for to in [to, cluster, to, cluster] {
                client.send_to(b"question", to).unwrap();
                let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
                server.send_to(b"answer", peer).unwrap();
                assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, to);
            }
            tell(switch, &external(family, to), Delta::remove);
        }
    });
}

#[test]
fn u1_u2_a_udp_flow_of_the_node_follows_the_service_that_comes_and_goes() {
    on_a_node("u1_u2_a_udp_flow_of_the_node_follows_the_service_that_comes_and_goes", |hosts, switch| {
        for family in 0..2 {
            // The kernel tracks connections already.
            let other = external(family, at(NODE[family], 30081));
            tell(switch, &other, Delta::add);
            let to = at(NODE[family], NODE_PORT);
            let server = hosts.pods[1].run(|| UdpSocket::bind((POD[family][1], 8080)).unwrap());
            let client = UdpSocket::bind((NODE[family], 5000)).unwrap();
            let heard = |patience| {
                client.send_to(b"question", to).unwrap();
                server.set_read_timeout(Some(patience)).unwrap();
                server.recv_from(&mut [0; 16]).is_ok()
            };
            for _ in 0..2 {
                assert!(!heard(SILENCE));
                tell(switch, &external(family, to), Delta::add);
                assert!(heard(PATIENCE));
                // Another service is no matter to it.
                tell(switch, &other, Delta::remove);
                tell(switch, &other, Delta::add);
                assert!(heard(PATIENCE));
                tell(switch, &external(family, to), Delta::remove);
            }
            tell(switch, &other, Delta::remove);
        }
    });
}

#[test]
fn an_external_address_is_reached_by_a_route_or_when_an_interface_has_it_as_the_node() {
    on_a_node("an_external_address_is_reached_by_a_route_or_when_an_interface_has_it", |hosts, switch| {
        switch.tick();
        for family in 0..2 {
            let to = at(EXTERNAL[family], 80);
            let line = Routes::open().unwrap();
            let routed = || line.list(FAMILIES[family]).unwrap().iter().any(|route| route.prefix.addr() == to.ip());
            assert!(!routed());
            tell(switch, &external(family, to), Delta::add);
            assert!(routed());
            on_lo(EXTERNAL[family], true);
            let end = Instant::now() + 2 * PATIENCE;
            while routed() || connection(hosts, family, to).is_err() {
                assert!(Instant::now() < end, "the address of an interface is not redirected");
                std::thread::sleep(Duration::from_millis(50));
            }
            // The socket's own address is the external one, which nobody else knows to be the node's.
            assert_eq!(connection(hosts, family, to).unwrap(), (own(family), to));
            let from = at(EXTERNAL[family], 5000);
            let (answered, seen) = datagram(&hosts.pods[1], POD[family][1], from, to, true).unwrap();
            assert_eq!((answered, seen.ip()), (to, own(family)));
            on_lo(EXTERNAL[family], false);
            let end = Instant::now() + 2 * PATIENCE;
            while !routed() {
                assert!(Instant::now() < end, "the address that went is not routed");
                std::thread::sleep(Duration::from_millis(50));
            }
            tell(switch, &external(family, to), Delta::remove);
            assert!(!routed());
        }
    });
}

#[test]
fn sctp_to_a_node_port_leaves_as_the_node_and_is_answered_from_the_node_port() {
    on_a_node("sctp_to_a_node_port_leaves_as_the_node_and_is_answered_from_the_node_port", |hosts, switch| {
        for family in 0..2 {
            let to = at(NODE[family], NODE_PORT);
            let mut services = external(family, to);
            services.push(service(family, Proto::Sctp, &[POD[family][1]]));
            tell(switch, &services, Delta::add);
            let raw = || {
                let domain = [AddressFamily::INET, AddressFamily::INET6][family];
                let socket = rustix::net::socket(domain, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
                let socket = UdpSocket::from(socket);
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let (client, server) = (raw(), hosts.pods[1].run(raw));
            let mut octets = [0; 128];
            client.send_to(&init(4000, NODE_PORT, 1), (to.ip(), 0)).unwrap();
            let (len, from) = server.recv_from(&mut octets).unwrap();
            assert_eq!((&octets[[20, 0][family]..len], from.ip()), (&init(4000, 8080, 1)[..], own(family)));
            server.send_to(&init(8080, 4000, 2), (own(family), 0)).unwrap();
            let (len, from) = client.recv_from(&mut octets).unwrap();
            assert_eq!(
                (&octets[[20, 0][family]..len], from),
                (&init(NODE_PORT, 4000, 2)[..], SocketAddr::new(to.ip(), 0))
            );
            tell(switch, &services, Delta::remove);
        }
    });
}

/// An SCTP packet with one chunk, INIT (1) or INIT ACK (2), and its checksum (RFC 9260, 3). The answer bears the tag that the
/// INIT asked for: else the kernel's connection tracker takes it for nobody's.
fn init(sport: u16, dport: u16, chunk: u8) -> Vec<u8> {
    let tag = if chunk == 1 { 0 } else { 0x0303_0303u32 };
    let head = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    let mut packet = [&head[..], &[chunk, 0, 0, 20], &[3; 16]].concat();
    let sum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

#[test]
fn the_table_goes_when_the_switch_stops_for_good() {
    let Some(hosts) = hosts("the_table_goes_when_the_switch_stops_for_good") else { return };
    hosts.node.run(|| {
        let mut switch = Switch::start(&options(1), Keeper::none()).unwrap();
        program(&mut switch, &hosts);
        let mut line = Nftables::open().unwrap();
        let mut there = || [Family::V4, Family::V6].map(|family| line.has_table(family, "vswitch-br-pods").unwrap());
        assert_eq!(there(), [false; 2]);
        for (family, own) in NODE.into_iter().enumerate() {
            tell(&mut switch, &external(family, at(own, NODE_PORT)), Delta::add);
        }
        assert_eq!(there(), [true; 2]);
        switch.withdraw();
        assert_eq!(there(), [false; 2]);
    });
}
