//! What a hit skips is still accounted (FASTPATH 5), and what is not used goes.

use std::time::Duration;

use api::Bridge;

use crate::kit::net::*;
use crate::kit::{Bench, MODES};

const SECOND: Duration = Duration::from_secs(1);

/// A bridge that forgets stations after five seconds.
fn forgetful(workers: usize, ports: u16) -> Bench {
    let mut bench = Bench::new(workers);
    let mut changes = plain(ports);
    changes[0] = add_bridge(Bridge { mac_ageing: 5, ..bridge(BR) });
    bench.apply(changes);
    bench
}

#[test]
fn a_station_whose_frames_only_hit_does_not_age() {
    for workers in MODES {
        let mut bench = forgetful(workers, 3);
        bench.send(2, &eth(BROADCAST, mac(2)));
        let frame = eth(mac(2), mac(1));
        (0..3).for_each(|_| _ = bench.send(1, &frame));
        let ((), seen) = bench.watch(|bench| {
            for _ in 0..20 {
                bench.send(1, &frame);
                bench.pass(SECOND);
            }
        });
        assert_eq!(bench.place(BR, mac(1)), Some(1), "its frames were hits, nobody told the table");
        assert_eq!(bench.place(BR, mac(2)), None, "it was silent, only spoken to");
        // The flow walked anew when its destination was forgotten; all else were hits.
        assert!(seen["cache_hit"] >= 18, "{seen:?}");
    }
}

#[test]
fn a_station_that_speaks_while_others_come_and_go_does_not_age() {
    for workers in MODES {
        let mut bench = forgetful(workers, 12);
        // A flood to so many ports rests on everything: no entry of it lives from one change to the next.
        let hello = eth(BROADCAST, mac(1));
        bench.send(1, &hello);
        for i in 0..20u16 {
            for step in 0..10 {
                bench.send(1, &hello);
                // Somebody asks for a stranger, and the stranger answers.
                let stranger = 1000 + i * 10 + step;
                bench.send(2, &eth(mac(stranger), mac(2)));
                bench.send(3, &eth(mac(2), mac(stranger)));
                bench.pass(SECOND / 10);
            }
            assert_eq!(bench.place(BR, mac(1)), Some(1), "after {i} seconds");
        }
    }
}

#[test]
fn an_entry_that_gives_way_accounts_for_what_it_served() {
    let mut bench = forgetful(1, 3);
    bench.caches(4096, 0);
    bench.apply(vec![add_station(station(0, mac(2), 2))]);
    let hello = eth(mac(2), mac(1));
    bench.send(1, &hello);
    for _ in 0..7 {
        // One frame, and then so many others that its entry gives way before any sweep.
        bench.jump(SECOND);
        bench.send(1, &hello);
        for block in 0..40 {
            let others: Vec<_> = (0..256).map(|i| tagged(mac(2), mac(1), 1 + (block * 256 + i) % 4095)).collect();
            bench.burst(1, &others);
        }
    }
    assert_eq!(bench.place(BR, mac(1)), Some(1));
}

#[test]
fn an_entry_that_nobody_uses_is_forgotten() {
    for workers in MODES {
        let mut bench = Bench::new(workers);
        bench.apply(plain(3));
        (1..=100).for_each(|host| _ = bench.send(1, &eth(mac(200), mac(host))));
        assert_eq!(bench.entries(), 100);
        bench.pass(5 * SECOND);
        bench.send(1, &eth(mac(200), mac(7)));
        bench.pass(7 * SECOND);
        assert_eq!(bench.entries(), 1, "the one that was used stays");
        bench.pass(10 * SECOND);
        assert_eq!(bench.entries(), 0);
    }
}

#[test]
fn a_scan_leaves_flows_in_use_in_the_cache() {
    let mut bench = Bench::new(1);
    bench.caches(4096, 0);
    let mut changes = plain(2);
    changes[0] = add_bridge(Bridge { mac_table_size: 100_000, ..bridge(BR) });
    bench.apply(changes);
    bench.send(2, &eth(BROADCAST, mac(2)));
    let used: Vec<_> = (0..200).map(|host| eth(mac(2), mac(10_000 + host))).collect();
    (0..4).for_each(|_| _ = bench.burst(1, &used));
    for block in 0..100u32 {
        // A new address in every frame.
        let scan: Vec<_> = (0..256)
            .map(|i| {
                let [_, a, b, c] = (block * 256 + i).to_be_bytes();
                eth(mac(2), [2, 9, 9, a, b, c])
            })
            .collect();
        bench.burst(1, &scan);
        // In use means that frames keep coming.
        bench.burst(1, &used);
        bench.pass(SECOND / 10);
    }
    let (_, seen) = bench.watch(|bench| bench.burst(1, &used));
    assert!(seen["cache_hit"] >= 195, "{seen:?}");
}
