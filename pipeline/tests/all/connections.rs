//! Life of connections through all stages (FASTPATH 3): what ends them, what they survive, and who may have their names
//! afterwards, with one worker and with two.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Duration;

use api::{Change, Delta, EndpointKind, PortId, Proto, Router, Service, ServiceKey, Transaction};
use pipeline::burst::{Burst, Verdict};
use pipeline::counters::Counters;
use pipeline::drop::DropReason as Reason;
use pipeline::live::connections::Limits;
use pipeline::live::{Live, Now};
use pipeline::probe::cells::Cells;
use pipeline::raw::Pool;
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;
use pipeline::{Pipeline, Turn};

use crate::kit::node::*;
use crate::kit::{Bench, Fate, MODES, events};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "10.0.0.1:4000";
const VIP: &str = "10.96.0.1:80";
const BACKEND: &str = "10.0.0.2:8080";
const OUTSIDE: &str = "203.0.113.9:53";

/// From pod a by its gateway.
fn from_a(from: &str, to: &str, carries: Carries) -> Vec<u8> {
    packet((A, ROUTER), from, to, 64, carries)
}

/// From pod b by its gateway.
fn from_b(from: &str, to: &str, carries: Carries) -> Vec<u8> {
    packet((B, ROUTER), from, to, 64, carries)
}

/// A connection of pod a to the service, whose backend is pod b, after its handshake. Each frame has been a hit.
fn established(bench: &mut Bench) {
    assert_eq!(bench.send(A, &from_a(CLIENT, VIP, Carries::Syn)).ports(), [B]);
    assert_eq!(bench.send(B, &from_b(BACKEND, CLIENT, Carries::SynAck)).ports(), [A]);
    for _ in 0..3 {
        assert_eq!(bench.send(A, &from_a(CLIENT, VIP, Carries::Ack)).ports(), [B]);
        assert_eq!(bench.send(B, &from_b(BACKEND, CLIENT, Carries::Ack)).ports(), [A]);
    }
    // The sweep tells the connection of its hits.
    bench.pass(2 * SECOND);
    assert_eq!(states(bench), ["ESTABLISHED"]);
}

fn states(bench: &Bench) -> Vec<&'static str> {
    bench.live.connections.list().iter().map(|view| view.state).collect()
}

fn end_of(address: &str, port: u16, host: u16) -> Delta<api::Endpoint> {
    let Change::Endpoint(delta) = endpoint(address, port, host, EndpointKind::Pod) else { unreachable!() };
    delta.inverse()
}

fn router(of: &[Change]) -> Router {
    let found = of.iter().find_map(|change| match change {
        Change::Router(Delta { new: Some(router), .. }) => Some(router.clone()),
        _ => None,
    });
    found.expect("the node has one")
}

/// A service with several backends, of both transports that have a test here.
fn service_of(at: &str, backends: &[&str]) -> Vec<Change> {
    let at: SocketAddr = at.parse().unwrap();
    let row = |proto| {
        let key = ServiceKey { address: at.ip(), proto, port: at.port() };
        let backends = backends.iter().map(|text| text.parse().unwrap()).collect();
        Change::Service(Delta::add(Service::new(key, "default/many".into(), backends)))
    };
    [Proto::Tcp, Proto::Udp].map(row).to_vec()
}

#[test]
fn nothing_that_was_said_to_a_pod_reaches_its_port_when_it_is_gone() {
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        bench.apply(vec![Change::Endpoint(end_of("10.0.0.2", B, B))]);
        for _ in 0..3 {
            let fate = bench.send(A, &from_a(CLIENT, VIP, Carries::Ack));
            assert_eq!(fate.ports(), [A], "host unreachable: nobody has the address");
            assert_eq!(bench.send(A, &from_a(CLIENT, BACKEND, Carries::Datagram)).ports(), [A]);
        }
        assert_eq!(bench.live.connections.len(), 0);
    }
}

#[test]
fn a_pod_that_got_the_address_of_another_inherits_none_of_its_connections() {
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        // The client's address is another pod's now, at port 3.
        let Change::Endpoint(new) = endpoint("10.0.0.1", 3, 33, EndpointKind::Pod) else { unreachable!() };
        let delta = Delta { old: end_of("10.0.0.1", A, A).old, new: new.new };
        bench.apply(vec![Change::Endpoint(delta)]);
        let answer = from_b(BACKEND, CLIENT, Carries::Ack);
        let plain = packet((ROUTER, 33), BACKEND, CLIENT, 63, Carries::Ack);
        for _ in 0..3 {
            // A packet out of nowhere, from who really sent it: no service speaks to the new pod.
            assert_eq!(bench.send(B, &answer), Fate::out(&[3], &plain));
        }
        let views = bench.live.connections.list();
        assert!(views.len() == 1 && views[0].original.src == views[0].reply.dst, "{views:?}");
    }
}

#[test]
fn a_bridge_that_loses_its_router_translates_nothing_and_goes_on_when_it_is_back() {
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        let sent = from_a(CLIENT, VIP, Carries::Ack);
        let Fate { sent: before, .. } = bench.send(A, &sent);
        let row = router(&nouns((50_000, 50_000)));
        bench.apply(vec![Change::Router(Delta::remove(row.clone()))]);
        for _ in 0..3 {
            assert_eq!(bench.send(A, &sent), Fate::out(&[B, 3, UPLINK], &sent), "to an unknown station");
        }
        bench.apply(vec![Change::Router(Delta::add(row))]);
        for _ in 0..3 {
            assert_eq!(bench.send(A, &sent).sent, before);
        }
    }
}

#[test]
fn a_connection_that_is_flushed_ends_with_the_next_packet() {
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        bench.apply(service(VIP, "10.0.0.1:9090").to_vec());
        let sent = from_a(CLIENT, VIP, Carries::Ack);
        assert_eq!(bench.send(A, &sent).ports(), [B], "the service's change is nothing to it");
        let Bench { live, now, .. } = &bench;
        assert_eq!(live.connections.kill_where(&|_| true, *now, &live.cells), 1);
        assert_eq!(bench.live.connections.len(), 0);
        for _ in 0..3 {
            assert_eq!(bench.send(A, &sent).ports(), [A], "a first packet");
        }
    }
}

#[test]
fn a_connection_lives_by_its_hits_and_dies_of_silence() {
    for workers in MODES {
        let mut bench = node(workers);
        let sent = from_a(CLIENT, OUTSIDE, Carries::Datagram);
        assert_eq!(bench.send(A, &sent).ports(), [UPLINK]);
        // Thirty seconds unanswered, and it would be forgotten: every hit counts.
        for _ in 0..20 {
            bench.pass(5 * SECOND);
            let (fate, seen) = bench.watch(|bench| bench.send(A, &sent));
            assert_eq!((fate.ports(), seen), (vec![UPLINK], events(&[("cache_hit", 1)])));
        }
        bench.pass(29 * SECOND);
        assert_eq!(bench.live.connections.len(), 1);
        bench.pass(8 * SECOND);
        assert_eq!(bench.live.connections.len(), 0);
        // Its port is free for the next one.
        assert_eq!(bench.send(A, &from_a("10.0.0.1:4001", OUTSIDE, Carries::Datagram)).ports(), [UPLINK]);
    }
}

#[test]
fn what_hits_say_of_the_end_of_a_connection_is_heard() {
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        let hit = |bench: &mut Bench, port: u16, frame: &[u8]| {
            let (fate, seen) = bench.watch(|bench| bench.send(port, frame));
            assert_eq!(seen, events(&[("cache_hit", 1)]));
            fate.ports()
        };
        assert_eq!(hit(&mut bench, A, &from_a(CLIENT, VIP, Carries::FinAck)), [B]);
        assert_eq!(states(&bench), ["FIN_WAIT"]);
        assert_eq!(hit(&mut bench, B, &from_b(BACKEND, CLIENT, Carries::FinAck)), [A]);
        assert_eq!(states(&bench), ["LAST_ACK"]);
        assert_eq!(hit(&mut bench, A, &from_a(CLIENT, VIP, Carries::Ack)), [B]);
        bench.pass(2 * SECOND);
        assert_eq!(states(&bench), ["TIME_WAIT"]);
    }
    for workers in MODES {
        let mut bench = node(workers);
        established(&mut bench);
        let (fate, seen) = bench.watch(|bench| bench.send(B, &from_b(BACKEND, CLIENT, Carries::Rst)));
        assert_eq!((fate.ports(), seen), (vec![A], events(&[("cache_hit", 1)])));
        assert_eq!(states(&bench), ["CLOSE"]);
        bench.pass(14 * SECOND);
        assert_eq!(bench.live.connections.len(), 0);
    }
}

#[test]
fn a_syn_opens_a_closed_connection_anew_with_another_backend_when_the_old_one_is_gone() {
    for workers in MODES {
        for last in [Carries::Rst, Carries::FinAck] {
            let mut bench = node(workers);
            established(&mut bench);
            bench.apply(service(VIP, "10.0.0.1:9090").to_vec());
            let syn = from_a(CLIENT, VIP, Carries::Syn);
            assert_eq!(bench.send(A, &syn).ports(), [B], "as long as it is open, its packets are its own");
            bench.send(A, &from_a(CLIENT, VIP, last));
            if last == Carries::FinAck {
                bench.send(B, &from_b(BACKEND, CLIENT, last));
            }
            assert_eq!(bench.send(A, &syn).ports(), [A], "{last:?}");
            for _ in 0..3 {
                assert_eq!(bench.send(A, &from_a(CLIENT, VIP, Carries::Ack)).ports(), [A], "{last:?}");
            }
            assert_eq!(bench.live.connections.len(), 1);
        }
    }
}

#[test]
fn questions_from_one_socket_in_one_burst_go_to_one_backend() {
    for workers in MODES {
        let mut bench = node(workers);
        bench.apply(service_of("10.96.0.3:53", &["10.0.0.2:53", "10.0.0.1:53", "192.0.2.1:53"]));
        for port in 4000..4100 {
            let client = format!("10.0.0.1:{port}");
            // A and AAAA: two datagrams of one socket.
            let question = from_a(&client, "10.96.0.3:53", Carries::Datagram);
            let fates = bench.burst(A, &[question.clone(), question]);
            assert_eq!(fates[0], fates[1]);
        }
        assert_eq!(bench.live.connections.len(), 100);
        let backends: BTreeSet<_> = bench.live.connections.list().iter().map(|view| view.reply.src).collect();
        assert_eq!(backends.len(), 3, "all are chosen");
    }
}

/// Threads with a pipeline each over one node; what each gives its frames, one by one, is where they leave.
fn race(frames: [(u16, Vec<Vec<u8>>); 2], changes: Vec<Change>) -> (Live, [Vec<Option<u16>>; 2]) {
    let live = Live::default();
    let empty = Program::new(STAGES);
    let program = live.cells.change(|touched| empty.apply(&Transaction { changes }, touched));
    let barrier = Barrier::new(2);
    let run = |(port, frames): (u16, Vec<Vec<u8>>)| {
        let (mut pipeline, counters) = (Pipeline::heap(1 << 12, 1), Counters::new(64));
        let mut stash = Pool::heap(64, 1).stash();
        let mut burst = Burst::new();
        let mut fates = Vec::new();
        for (i, octets) in frames.iter().enumerate() {
            if i % 32 == 0 {
                barrier.wait();
            }
            let mut frame = stash.take().unwrap();
            assert!(frame.fill(octets));
            burst.reset(PortId(port));
            burst.push(frame).unwrap();
            let moment = live.cells.now();
            let turn = Turn { moment, program: &program, live: &live, counters: &counters, now: Now(SECOND), walks: 9 };
            pipeline.run(&mut burst, &turn, &mut stash);
            fates.push(match burst.verdicts[0] {
                Verdict::Output(port) => Some(port.0),
                _ => None,
            });
            stash.give(burst.frames[0].take().unwrap());
        }
        assert_eq!(counters.coverage.cache_divergence.get(), 0);
        fates
    };
    let fates = std::thread::scope(|scope| {
        let threads = frames.map(|frames| scope.spawn(|| run(frames)));
        threads.map(|thread| thread.join().unwrap())
    });
    (live, fates)
}

#[test]
fn two_workers_that_open_one_connection_choose_one_backend() {
    const COUNT: u16 = 4000;
    let mut changes = nouns((50_000, 50_000));
    changes.extend(service_of("10.96.0.3:53", &["10.0.0.2:53", "192.0.2.1:53"]));
    let question = |i| from_a(&format!("10.0.0.1:{}", 4000 + i), "10.96.0.3:53", Carries::Datagram);
    let frames: Vec<_> = (0..COUNT).map(question).collect();
    let (live, [one, other]) = race([(A, frames.clone()), (A, frames)], changes);
    assert_eq!(one, other);
    assert_eq!(live.connections.len(), usize::from(COUNT));
    assert!(one.contains(&Some(B)) && one.contains(&Some(3)) && !one.contains(&None));
}

#[test]
fn two_ends_that_open_to_each_other_at_once_have_one_connection() {
    const COUNT: u16 = 4000;
    let there = |i| from_a(&format!("10.0.0.1:{}", 4000 + i), "10.0.0.2:53", Carries::Datagram);
    let back = |i| from_b("10.0.0.2:53", &format!("10.0.0.1:{}", 4000 + i), Carries::Datagram);
    let frames = [(A, (0..COUNT).map(there).collect()), (B, (0..COUNT).map(back).collect())];
    let (live, [one, other]) = race(frames, nouns((50_000, 50_000)));
    assert_eq!((one, other), (vec![Some(B); usize::from(COUNT)], vec![Some(A); usize::from(COUNT)]));
    assert_eq!(live.connections.len(), usize::from(COUNT));
}

#[test]
fn connections_go_on_when_generations_begin_anew() {
    for workers in MODES {
        let mut bench = Bench::with(workers, STAGES, Cells::starting_at(u32::MAX - 8));
        bench.apply(nouns((50_000, 50_000)));
        established(&mut bench);
        let sent = from_a(CLIENT, VIP, Carries::Ack);
        let arrives = packet((ROUTER, B), CLIENT, BACKEND, 63, Carries::Ack);
        for i in 0..20u16 {
            let host = format!("10.0.0.{}", 100 + i);
            bench.apply(vec![endpoint(&host, 3, 100 + i, EndpointKind::Pod)]);
            assert_eq!(bench.send(A, &sent), Fate::out(&[B], &arrives));
        }
        assert_eq!(bench.live.connections.len(), 1);
        assert_eq!(bench.live.cells.now().epoch, 1);
    }
}

#[test]
fn without_a_free_port_the_outside_is_not_reached_until_one_has_rested() {
    for workers in MODES {
        let mut bench = node(workers);
        let to_outside = |port: u16, to: &str| from_a(&format!("10.0.0.1:{port}"), to, Carries::Datagram);
        assert_eq!(bench.send(A, &to_outside(4000, OUTSIDE)).ports(), [UPLINK]);
        for _ in 0..3 {
            assert_eq!(bench.send(A, &to_outside(4001, OUTSIDE)), Fate::drop(Reason::SnatPorts));
        }
        assert_eq!(
            bench.send(A, &to_outside(4001, "203.0.113.9:54")).ports(),
            [UPLINK],
            "to elsewhere the port is free"
        );
        let Bench { live, now, .. } = &bench;
        live.connections.kill_where(&|view| view.original.sport == 4000, *now, &live.cells);
        assert_eq!(bench.send(A, &to_outside(4001, OUTSIDE)), Fate::drop(Reason::SnatPorts), "it rests");
        bench.pass(4 * SECOND);
        assert_eq!(bench.send(A, &to_outside(4001, OUTSIDE)).ports(), [UPLINK]);
    }
}

#[test]
fn a_full_table_refuses_first_packets_keeps_who_was_answered_and_recovers() {
    for workers in MODES {
        let mut bench = node(workers);
        bench.live.connections.configure(Limits { total: 64, unanswered: 8 });
        established(&mut bench);
        let to_b = |port: u16| from_a(&format!("10.0.0.1:{port}"), "10.0.0.2:53", Carries::Datagram);
        let fates: Vec<_> = (5000..5100).map(|port| bench.send(A, &to_b(port))).collect();
        let refused = fates.iter().filter(|fate| **fate == Fate::drop(Reason::ConnectionsFull)).count();
        assert!(fates.iter().all(|fate| fate.drops == [Reason::ConnectionsFull] || fate.ports() == [B]));
        assert!(refused >= 80, "its share is eight, and one that gave way rests: {refused}");
        assert!(bench.live.connections.len() <= 9);
        let (fate, seen) = bench.watch(|bench| bench.send(A, &from_a(CLIENT, VIP, Carries::Ack)));
        assert_eq!((fate.ports(), seen), (vec![B], events(&[("cache_hit", 1)])));
        bench.pass(40 * SECOND);
        assert_eq!(bench.send(A, &to_b(6000)).ports(), [B]);
        assert_eq!(bench.send(A, &from_a(CLIENT, VIP, Carries::Ack)).ports(), [B]);
    }
}
