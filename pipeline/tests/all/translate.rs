//! Connections through all stages: services, masquerade and related errors, as a miss and as a hit, with one worker and
//! with two, on the node of [`crate::kit::node`].

use std::net::{IpAddr, SocketAddr};

use api::{Change, Delta, EndpointKind, ServiceRange};
use etherparse::PacketBuilder;
use pipeline::drop::DropReason;

use crate::kit::net::*;
use crate::kit::node::*;
use crate::kit::{Bench, Fate, MODES, events};

/// Times that each frame is sent: the first walks, the others hit.
const TIMES: usize = 3;

/// Each frame of a first packet and of one that follows, the same way.
const FIRST_THEN: [[Carries; 2]; 2] = [[Carries::Syn, Carries::Ack], [Carries::Datagram, Carries::Datagram]];

/// A conversation: what `client` sends, and what is answered, is seen by the other as told.
pub(crate) struct Talk<'a> {
    /// Where the client is: its port of the switch, its host number.
    pub(crate) from: (u16, u16),
    pub(crate) client: &'a str,
    pub(crate) to: &'a str,
    /// Where the server is, the same way.
    pub(crate) server: (u16, u16),
    /// The same two ends as the server sees them.
    pub(crate) seen: &'a str,
    pub(crate) backend: &'a str,
}

/// On a node that `bench` makes.
pub(crate) fn converse(bench: impl Fn() -> Bench, talk: &Talk<'_>) {
    let Talk { from: (port, host), client, to, server: (server_port, server), seen, backend } = *talk;
    // The switch and the node are one host: on the way to itself nothing is taken off the hop limit.
    let hops = if host == NODE { 64 } else { 63 };
    for [first, then] in FIRST_THEN {
        let mut bench = bench();
        let sent = packet((host, ROUTER), client, to, 64, first);
        let arrives = packet((ROUTER, server), seen, backend, 63, first);
        assert_eq!(bench.send(port, &sent), Fate::out(&[server_port], &arrives), "{client} to {to}");
        for _ in 0..TIMES {
            let answer = packet((server, ROUTER), backend, seen, 64, then);
            let comes_back = packet((ROUTER, host), to, client, hops, then);
            assert_eq!(bench.send(server_port, &answer), Fate::out(&[port], &comes_back), "back from {to}");
            let sent = packet((host, ROUTER), client, to, 64, then);
            let arrives = packet((ROUTER, server), seen, backend, 63, then);
            assert_eq!(bench.send(port, &sent), Fate::out(&[server_port], &arrives), "{client} to {to} again");
        }
        assert_eq!(bench.live.connections.len(), 1);
        let ((), seen) = bench.watch(|bench| {
            (0..TIMES).for_each(|_| _ = bench.send(port, &packet((host, ROUTER), client, to, 64, then)));
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
            converse(|| node(workers), &Talk { from: (A, A), client, to, server: (B, B), seen: client, backend });
        }
    }
}

#[test]
fn m2_pods_see_each_other_as_they_are() {
    for workers in MODES {
        for (client, to) in [("10.0.0.1:4000", "10.0.0.2:8080"), ("[fd00::1]:4000", "[fd00::2]:8080")] {
            converse(|| node(workers), &Talk { from: (A, A), client, to, server: (B, B), seen: client, backend: to });
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
            converse(|| node(workers), &Talk { from: (A, A), client, to, server: (UPLINK, 9), seen, backend: to });
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
