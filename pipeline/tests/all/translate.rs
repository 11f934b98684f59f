//! Connections through all stages: services, masquerade and related errors, as a miss and as a hit, with one worker and
//! with two.
//!
//! ```text
//!   port 1  pod a   10.0.0.1  fd00::1      port 4     uplink, with a neighbour 203.0.113.9  2001:db8:9::9
//!   port 2  pod b   10.0.0.2  fd00::2      port 4095  the switch's own stack; gateway 10.0.0.254  fd00::fe
//! ```

use std::net::{IpAddr, SocketAddr};

use api::{
    AddressKey, Change, Choice, Delta, Endpoint, EndpointKind, Hop, MacAddr, Neighbor, PortId, Proto, Route, RouteKey,
    Router, Service, ServiceKey, ServiceRange, Vlan,
};
use etherparse::PacketBuilder;
use pipeline::drop::DropReason;

use crate::kit::net::*;
use crate::kit::{Bench, Fate, MODES, events};

const A: u16 = 1;
const B: u16 = 2;
const UPLINK: u16 = 4;
const STACK: u16 = PortId::STACK.0;
const ROUTER: u16 = 0xfe;
/// Times that each frame is sent: the first walks, the others hit.
const TIMES: usize = 3;

fn key(address: &str) -> AddressKey {
    AddressKey { bridge: BR, address: address.parse().unwrap() }
}

fn endpoint(address: &str, port: u16, host: u16, kind: EndpointKind) -> Change {
    let name = address.to_owned();
    let identity = u64::from(host);
    let row = Endpoint { key: key(address), port: PortId(port), mac: MacAddr(mac(host)), kind, identity, name };
    Change::Endpoint(Delta::add(row))
}

fn route(prefix: &str, to: Hop) -> Change {
    let key = RouteKey { bridge: BR, prefix: prefix.parse().unwrap() };
    Change::Route(Delta::add(Route { key, to, origin: "static".to_owned() }))
}

fn service(at: &str, backend: &str) -> [Change; 2] {
    let at: SocketAddr = at.parse().unwrap();
    [Proto::Tcp, Proto::Udp].map(|proto| {
        let key = ServiceKey { address: at.ip(), proto, port: at.port() };
        let backends = [backend.parse().unwrap()].into();
        let name = format!("default/{at}").into();
        Change::Service(Delta::add(Service { key, name, choice: Choice::Random, backends, draining: [].into() }))
    })
}

/// The node, with services whose backend is pod b (port 80) and pod a (port 81).
fn node(workers: usize) -> Bench {
    let mut bench = Bench::new(workers);
    let mut changes = ports(&[A, B, 3, UPLINK, STACK].map(|id| (id, Vlan::default())));
    changes.extend([
        endpoint("10.0.0.1", A, A, EndpointKind::Pod),
        endpoint("fd00::1", A, A, EndpointKind::Pod),
        endpoint("10.0.0.2", B, B, EndpointKind::Pod),
        endpoint("fd00::2", B, B, EndpointKind::Pod),
        endpoint("192.0.2.1", 3, 3, EndpointKind::Node),
        endpoint("2001:db8::1", 3, 3, EndpointKind::Node),
        endpoint("10.0.0.254", STACK, ROUTER, EndpointKind::Gateway),
        endpoint("fd00::fe", STACK, ROUTER, EndpointKind::Gateway),
        route("10.0.0.0/24", Hop::Endpoint),
        route("fd00::/64", Hop::Endpoint),
        route("0.0.0.0/0", Hop::OnLink { port: PortId(UPLINK) }),
        route("::/0", Hop::OnLink { port: PortId(UPLINK) }),
    ]);
    for address in ["203.0.113.9", "2001:db8:9::9"] {
        let row = Neighbor { key: key(address), port: PortId(UPLINK), mac: MacAddr(mac(9)) };
        changes.push(Change::Neighbor(Delta::add(row)));
    }
    changes.push(Change::Router(Delta::add(Router {
        bridge: BR,
        mac: MacAddr(mac(ROUTER)),
        gateways: ["10.0.0.254/24", "fd00::fe/64"].map(|text| text.parse().unwrap()).to_vec(),
        node: ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec(),
        uplink: Some(PortId(UPLINK)),
        snat_ports: (50_000, 50_000),
    })));
    for [at, backend] in [
        ["10.96.0.1:80", "10.0.0.2:8080"],
        ["10.96.0.1:81", "10.0.0.1:8080"],
        ["[fd00:96::1]:80", "[fd00::2]:8080"],
        ["[fd00:96::1]:81", "[fd00::1]:8080"],
    ] {
        changes.extend(service(at, backend));
    }
    bench.apply(changes);
    bench
}

/// What a frame carries: TCP with ACK alone, TCP with SYN alone, UDP.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carries {
    Ack,
    Syn,
    Datagram,
}

/// A frame from host to host with right checksums.
fn packet(hosts: (u16, u16), from: &str, to: &str, hops: u8, carries: Carries) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let link = PacketBuilder::ethernet2(mac(hosts.0), mac(hosts.1));
    let network = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), hops),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), hops),
        _ => panic!("of one version"),
    };
    let mut frame = Vec::new();
    let (sport, dport) = (from.port(), to.port());
    match carries {
        Carries::Ack => network.tcp(sport, dport, 1, 9).ack(2).write(&mut frame, b"some octets"),
        Carries::Syn => network.tcp(sport, dport, 1, 9).syn().write(&mut frame, b""),
        Carries::Datagram => network.udp(sport, dport).write(&mut frame, b"some octets"),
    }
    .unwrap();
    frame
}

/// Each frame of a first packet and of one that follows, the same way.
const FIRST_THEN: [[Carries; 2]; 2] = [[Carries::Syn, Carries::Ack], [Carries::Datagram, Carries::Datagram]];

/// A conversation: what `client` sends, and what is answered, is seen by the other as told.
struct Talk<'a> {
    client: &'a str,
    to: &'a str,
    /// Where the server is: its port of the switch, its host number.
    server: (u16, u16),
    /// The same two ends as the server sees them.
    seen: &'a str,
    backend: &'a str,
}

fn converse(workers: usize, talk: &Talk<'_>) {
    for [first, then] in FIRST_THEN {
        let mut bench = node(workers);
        let out = (talk.server.0, (ROUTER, talk.server.1));
        let sent = packet((A, ROUTER), talk.client, talk.to, 64, first);
        let arrives = packet(out.1, talk.seen, talk.backend, 63, first);
        assert_eq!(bench.send(A, &sent), Fate::out(&[out.0], &arrives), "{} to {}", talk.client, talk.to);
        for _ in 0..TIMES {
            let answer = packet((talk.server.1, ROUTER), talk.backend, talk.seen, 64, then);
            let comes_back = packet((ROUTER, A), talk.to, talk.client, 63, then);
            assert_eq!(bench.send(out.0, &answer), Fate::out(&[A], &comes_back), "back from {}", talk.to);
            let sent = packet((A, ROUTER), talk.client, talk.to, 64, then);
            let arrives = packet(out.1, talk.seen, talk.backend, 63, then);
            assert_eq!(bench.send(A, &sent), Fate::out(&[out.0], &arrives), "{} to {} again", talk.client, talk.to);
        }
        assert_eq!(bench.live.connections.len(), 1);
        let ((), seen) = bench.watch(|bench| {
            (0..TIMES).for_each(|_| _ = bench.send(A, &packet((A, ROUTER), talk.client, talk.to, 64, then)));
        });
        assert_eq!(seen, events(&[("cache_hit", TIMES as u64)]), "no walk any more");
    }
}

#[test]
fn v2_v3_a_pod_speaks_to_a_service_and_its_backend_sees_the_pod() {
    for workers in MODES {
        for (client, to, backend) in [
            ("10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:8080"),
            ("[fd00::1]:4000", "[fd00:96::1]:80", "[fd00::2]:8080"),
        ] {
            converse(workers, &Talk { client, to, server: (B, B), seen: client, backend });
        }
    }
}

#[test]
fn m2_pods_see_each_other_as_they_are() {
    for workers in MODES {
        for (client, to) in [("10.0.0.1:4000", "10.0.0.2:8080"), ("[fd00::1]:4000", "[fd00::2]:8080")] {
            converse(workers, &Talk { client, to, server: (B, B), seen: client, backend: to });
        }
    }
}

#[test]
fn m8_a_pod_speaks_to_the_outside_as_the_node() {
    for workers in MODES {
        for (client, to, seen) in [
            ("10.0.0.1:4000", "203.0.113.9:53", "192.0.2.1:50000"),
            ("[fd00::1]:4000", "[2001:db8:9::9]:53", "[2001:db8::1]:50000"),
        ] {
            converse(workers, &Talk { client, to, server: (UPLINK, 9), seen, backend: to });
        }
    }
}

#[test]
fn v4_a_pod_speaks_to_itself_by_its_service_and_sees_the_gateway() {
    for workers in MODES {
        for (client, to, backend, gateway) in [
            ("10.0.0.1:4000", "10.96.0.1:81", "10.0.0.1:8080", "10.0.0.254"),
            ("[fd00::1]:4000", "[fd00:96::1]:81", "[fd00::1]:8080", "fd00::fe"),
        ] {
            let mut bench = node(workers);
            assert_eq!(bench.send(A, &packet((A, ROUTER), client, to, 64, Carries::Syn)).ports(), [A]);
            // Which port it comes from is the table's choice.
            let all = bench.live.connections.list();
            let [connection] = all.as_slice() else { panic!("one connection") };
            let seen = SocketAddr::new(connection.reply.dst, connection.reply.dport).to_string();
            assert_eq!(connection.reply.dst, gateway.parse::<IpAddr>().unwrap());
            for _ in 0..TIMES {
                let sent = packet((A, ROUTER), client, to, 64, Carries::Ack);
                let arrives = packet((ROUTER, A), &seen, backend, 63, Carries::Ack);
                assert_eq!(bench.send(A, &sent), Fate::out(&[A], &arrives));
                let answer = packet((A, ROUTER), backend, &seen, 64, Carries::Ack);
                let comes_back = packet((ROUTER, A), to, client, 63, Carries::Ack);
                assert_eq!(bench.send(A, &answer), Fate::out(&[A], &comes_back));
            }
        }
    }
}

#[test]
fn v23_the_client_of_a_service_hears_that_its_packets_are_too_big() {
    for workers in MODES {
        let mut bench = node(workers);
        let (client, to, backend) = ("10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:8080");
        assert_eq!(bench.send(A, &packet((A, ROUTER), client, to, 64, Carries::Syn)).ports(), [B]);
        // As the backend's kernel says it: fragmentation needed, 1400 octets, and the packet as it came there.
        let error = |hosts: (u16, u16), source: [u8; 4], hops, about: &[u8]| {
            let needed = etherparse::Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
            );
            let link = PacketBuilder::ethernet2(mac(hosts.0), mac(hosts.1));
            let mut frame = Vec::new();
            link.ipv4(source, [10, 0, 0, 1], hops).icmpv4(needed).write(&mut frame, &about[14..]).unwrap();
            frame
        };
        let arrived = packet((ROUTER, B), client, backend, 63, Carries::Ack);
        let sent = packet((A, ROUTER), client, to, 63, Carries::Ack);
        for _ in 0..TIMES {
            let comes = error((B, ROUTER), [10, 0, 0, 2], 64, &arrived);
            let seen = error((ROUTER, A), [10, 96, 0, 1], 63, &sent);
            assert_eq!(bench.send(B, &comes), Fate::out(&[A], &seen));
        }
    }
}

#[test]
fn a_ping_to_a_service_reaches_the_switchs_own_stack_and_makes_no_connection() {
    for workers in MODES {
        let mut bench = node(workers);
        let link = PacketBuilder::ethernet2(mac(A), mac(ROUTER));
        let mut ping = Vec::new();
        link.ipv4([10, 0, 0, 1], [10, 96, 0, 1], 64).icmpv4_echo_request(7, 1).write(&mut ping, b"ping").unwrap();
        for _ in 0..TIMES {
            assert_eq!(bench.send(A, &ping), Fate::out(&[STACK], &ping));
        }
        assert_eq!(bench.live.connections.len(), 0);
    }
}

#[test]
fn u2_what_was_dropped_before_a_service_appeared_is_served_then() {
    for workers in MODES {
        let mut bench = node(workers);
        let prefix = "10.96.0.0/16".parse().unwrap();
        bench.apply(vec![Change::ServiceRange(Delta::add(ServiceRange { prefix, origin: String::new() }))]);
        let sent = packet((A, ROUTER), "10.0.0.1:4000", "10.96.0.7:53", 64, Carries::Datagram);
        for _ in 0..TIMES {
            assert_eq!(bench.send(A, &sent), Fate::drop(DropReason::UnknownService));
        }
        bench.apply(service("10.96.0.7:53", "10.0.0.2:5353").to_vec());
        let arrives = packet((ROUTER, B), "10.0.0.1:4000", "10.0.0.2:5353", 63, Carries::Datagram);
        assert_eq!(bench.send(A, &sent), Fate::out(&[B], &arrives));
    }
}

#[test]
fn t1_a_connection_stays_with_its_backend_when_the_service_gets_others_and_is_not_walked_again() {
    for workers in MODES {
        let mut bench = node(workers);
        let [client, to] = ["10.0.0.1:4000", "10.96.0.1:80"];
        assert_eq!(bench.send(A, &packet((A, ROUTER), client, to, 64, Carries::Syn)).ports(), [B]);
        let sent = packet((A, ROUTER), client, to, 64, Carries::Ack);
        let arrives = packet((ROUTER, B), client, "10.0.0.2:8080", 63, Carries::Ack);
        assert_eq!(bench.send(A, &sent), Fate::out(&[B], &arrives));
        bench.apply(service(to, "10.0.0.1:9090").to_vec());
        let (fate, seen) = bench.watch(|bench| bench.send(A, &sent));
        assert_eq!((fate, seen), (Fate::out(&[B], &arrives), events(&[("cache_hit", 1)])));
        // Another client port is another connection.
        let other = packet((A, ROUTER), "10.0.0.1:4001", to, 64, Carries::Syn);
        assert_eq!(bench.send(A, &other).ports(), [A]);
    }
}

#[test]
fn a_connection_ends_with_the_pod_that_it_was_opened_to() {
    for workers in MODES {
        let mut bench = node(workers);
        let [client, to] = ["10.0.0.1:4000", "10.96.0.1:80"];
        assert_eq!(bench.send(A, &packet((A, ROUTER), client, to, 64, Carries::Syn)).ports(), [B]);
        let sent = packet((A, ROUTER), client, to, 64, Carries::Ack);
        assert_eq!(bench.send(A, &sent).ports(), [B]);
        // The address of pod b is a third pod's now, at port 3, and the service has moved to pod a.
        let Change::Endpoint(old) = endpoint("10.0.0.2", B, B, EndpointKind::Pod) else { unreachable!() };
        let Change::Endpoint(new) = endpoint("10.0.0.2", 3, 30, EndpointKind::Pod) else { unreachable!() };
        let delta = Delta { old: old.new, new: new.new };
        bench.apply([vec![Change::Endpoint(delta)], service(to, "10.0.0.1:8080").to_vec()].concat());
        for _ in 0..TIMES {
            assert_eq!(bench.send(A, &sent).ports(), [A], "a first packet to the service as it is now");
        }
    }
}
