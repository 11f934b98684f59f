//! Several threads at one table.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::states::{TCP, UDP};
use super::tests::{at, ip, plan, tuple};
use super::*;
use crate::live::Live;
use crate::probe::cells::Asked;

/// Every tuple of a listed connection is found, as its own, and no two connections share one.
fn assert_in_step(live: &Live) {
    let mut tuples = BTreeMap::new();
    let views = live.connections.list();
    for view in &views {
        for (tuple, direction) in [(view.original, Direction::Original), (view.reply, Direction::Reply)] {
            let found = live.connections.find(&tuple, &mut Asked::new(&live.cells)).expect("it is listed");
            assert_eq!((found.name, found.direction), (view.name, direction));
            let bits = format!("{tuple:?}");
            assert_eq!(tuples.insert(bits, view.name.slot), None, "two connections have {tuple:?}");
        }
    }
    assert_eq!(views.len(), live.connections.len());
}

#[test]
fn of_two_workers_that_make_one_connection_one_has_lost() {
    let live = Live::default();
    let barrier = Barrier::new(2);
    let crossing = |i: u16, turned: bool| {
        let original = tuple(UDP, (ip(0, 1), 1000 + i), (ip(0, 2), 53));
        plan(if turned { original.turned() } else { original })
    };
    let run = |worker: usize| {
        let mut made = 0;
        for i in 0..10_000u16 {
            if i % 64 == 0 {
                barrier.wait();
            }
            // Half of the time both come from the same end, half of the time from either.
            let plan = crossing(i, worker == 1 && i % 2 == 1);
            match live.connections.commit(&plan, at(0), &live.cells) {
                Committed::New(_) => made += 1,
                Committed::Lost => assert!(
                    live.connections.find(&plan.original, &mut Asked::new(&live.cells)).is_some(),
                    "who lost finds the winner's"
                ),
                other => panic!("{other:?}"),
            }
        }
        made
    };
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|worker| scope.spawn(move || run(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((made, live.connections.len()), (10_000, 10_000));
    assert_in_step(&live);
}

#[test]
fn no_two_connections_ever_share_a_translated_port() {
    let live = Live::default();
    let commit = |worker: u8| {
        let mut ports = Vec::new();
        for i in 0..2000u16 {
            let original = tuple(TCP, (ip(worker, 1), i), (ip(8, 8), 443));
            let plan = Plan { src: Source::Masquerade(ip(5, 5), (1, 4096)), ..plan(original) };
            match live.connections.commit(&plan, at(0), &live.cells) {
                Committed::New(found) => ports.push(found.reply.dport),
                Committed::NoPort => {}
                other => panic!("{other:?}"),
            }
        }
        ports
    };
    let mut ports: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|worker| scope.spawn(move || commit(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let made = ports.len();
    assert!(made > 3900, "{made} of 4000 found one of 4096 ports");
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), made);
    assert_in_step(&live);
}

#[test]
fn making_hearing_killing_and_expiring_leave_the_table_in_step() {
    let live = Live::default();
    live.connections.configure(Limits { total: 2000, unanswered: 500 });
    let (done, clock) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = |worker: u8| {
        for i in 0..60_000u64 {
            clock.fetch_max(i / 600, Ordering::Relaxed);
            let now = at(i / 600);
            if i % 600 == 0 {
                live.connections.expire(now, 5000);
            }
            let (port, backend) = ((i * 7 % 1500) as u16, 7 + (i % 3) as u8);
            let original = tuple(UDP, (ip(0, 1), port), (ip(9, 1), 53));
            let plan = Plan {
                dst: (ip(0, backend), 53),
                port: PortId(worker.into()),
                identities: [port.into(), backend.into()],
                ..plan(original)
            };
            let mut asked = Asked::new(&live.cells);
            match live.connections.find(&original, &mut asked) {
                None => _ = live.connections.commit(&plan, now, &live.cells),
                Some(found) if i % 5 == 0 => live.connections.kill(found.name, now, &live.cells),
                Some(found) => _ = live.connections.seen(found.name, Direction::Reply, now),
            }
        }
    };
    std::thread::scope(|scope| {
        let housekeeper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                live.connections.expire(at(clock.load(Ordering::Relaxed)), 500);
                for view in live.connections.list() {
                    let [port, backend] = view.identities;
                    let torn = u64::from(view.original.sport) != port || view.reply.src != ip(0, backend as u8);
                    assert!(!torn, "of two connections: {view:?}");
                }
            }
        });
        let workers: Vec<_> = (1..=2).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        housekeeper.join().unwrap();
    });
    let reused = live.connections.list().iter().map(|view| view.name.incarnation).max();
    assert!(reused > Some(1), "records are used again");
    assert_in_step(&live);
    live.connections.kill_where(&|_| true, at(200), &live.cells);
    live.connections.expire(at(203), usize::MAX);
    assert_eq!((live.connections.len(), live.connections.index.len()), (0, 0), "nothing is left behind");
}
