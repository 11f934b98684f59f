//! Nothing on the hit path allocates: a counting allocator proves it, for every class of keys, sweep included.

#![allow(unsafe_code, reason = "an allocator that counts is the only witness")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use api::{Change, Delta, External, Service};

use crate::kit::Bench;
use crate::kit::net::*;
use crate::kit::node::*;
use crate::stages::choosing;

thread_local! {
    /// Of this thread: other tests run beside.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing, since the counter is
// initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bursts that are counted.
const BURSTS: usize = 1000;

/// Allocations of as many bursts of these frames, with ten seconds and their sweeps between the first and the last.
fn allocations(bench: &mut Bench, port: u16, frames: &[Vec<u8>]) -> u64 {
    let mut frames = bench.load(frames);
    let mut drive = |bursts: usize| {
        for _ in 0..bursts {
            bench.drive(port, &mut frames);
            bench.sweep(Duration::from_millis(10));
        }
    };
    drive(200);
    let before = ALLOCATIONS.get();
    drive(BURSTS);
    let allocations = ALLOCATIONS.get() - before;
    bench.unload(frames);
    allocations
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn nothing_on_the_hit_path_allocates_in_any_class() {
    let each = |frame: &dyn Fn(u8) -> Vec<u8>| (0..=255).map(frame).collect::<Vec<_>>();
    let rows = [
        ("v4", 1, each(&|i| udp4(64, i.into(), 20))),
        ("v6", 2, each(&|i| udp6(i, 80, 20))),
        ("wide", 3, each(&|i| udp4(i, 80, 20))),
    ];
    for (class, port, frames) in rows {
        let mut bench = choosing(1);
        assert_eq!(allocations(&mut bench, port, &frames), 0, "{class}");
        let events = bench.events();
        assert!(events["walk"] == 256 && events["cache_hit"] > 256_000, "{class}: {events:?}");
    }
}

#[test]
fn neither_a_bridge_nor_its_floods_and_tags_allocate() {
    let mut bench = Bench::new(1);
    bench.apply(ports(&[(1, access(10)), (2, trunk(&[])), (3, access(10))]));
    bench.send(2, &tagged(BROADCAST, mac(2), 10));
    // What was said once is forgotten before the count begins: to forget may take note of it.
    bench.pass(Duration::from_secs(12));
    let frames: Vec<_> = (0..128).flat_map(|i| [eth(mac(2), mac(1000 + i)), eth(BROADCAST, mac(1000 + i))]).collect();
    assert_eq!(allocations(&mut bench, 1, &frames), 0);
}

/// Walks of first packets that are counted, and what one may allocate: its list of ways out, its effects, and its share of
/// what the table grows by.
const FIRST: usize = 4096;
const OF_A_WALK: u64 = 4;

/// A node port whose service has session affinity.
fn node_port() -> Vec<Change> {
    let cluster = "10.96.0.1:80".parse().unwrap();
    let external = Some(Arc::new(External { local: None, sources: None, cluster }));
    let of = |change: Change| match change {
        Change::Service(Delta { new: Some(row), .. }) => {
            Change::Service(Delta::add(Service { affinity: Some(100), external: external.clone(), ..row }))
        }
        other => other,
    };
    service("192.0.2.1:30080", "10.0.0.2:8080").map(of).to_vec()
}

#[test]
fn neither_translation_nor_masquerade_allocates_on_a_hit() {
    type Numbered = fn(u16) -> Vec<u8>;
    let rows: [(&str, Numbered); 5] = [
        ("service", |i| packet((A, ROUTER), &format!("10.0.0.1:{}", 4000 + i), "10.96.0.1:80", 64, Carries::Ack)),
        ("service6", |i| packet((A, ROUTER), &format!("[fd00::1]:{}", 4000 + i), "[fd00:96::1]:80", 64, Carries::Ack)),
        ("node port", |i| packet((A, ROUTER), &format!("10.0.0.1:{}", 4000 + i), "192.0.2.1:30080", 64, Carries::Ack)),
        ("outside", |i| packet((A, ROUTER), "10.0.0.1:4000", &format!("203.0.113.9:{}", 1 + i), 64, Carries::Datagram)),
        ("route", |i| packet((A, ROUTER), "10.0.0.1:4000", &format!("10.0.0.2:{}", 1 + i), 64, Carries::Datagram)),
    ];
    for (name, frame) in rows {
        let mut bench = Bench::new(1);
        // As many source ports as are needed, and a service that is reached from beyond and remembers its clients.
        bench.apply(nouns((50_000, 60_000)));
        bench.apply(node_port());
        let frames: Vec<_> = (0..256).map(frame).collect();
        // Frames are edited where they are, and would come in translated the second time: each burst has fresh ones.
        let mut drive = |bursts: usize| {
            let mut allocations = 0;
            for _ in 0..bursts {
                let mut loaded = bench.load(&frames);
                let before = ALLOCATIONS.get();
                bench.drive(A, &mut loaded);
                bench.sweep(Duration::from_millis(10));
                allocations += ALLOCATIONS.get() - before;
                bench.unload(loaded);
            }
            allocations
        };
        drive(200);
        assert_eq!(drive(BURSTS), 0, "{name}");
        let events = bench.events();
        assert!(events["walk"] == 256 && events["cache_hit"] > 256_000, "{name}: {events:?}");
        assert_eq!(bench.live.connections.len(), 256, "{name}");
    }
}

#[test]
fn a_new_connection_costs_a_handful_of_allocations() {
    let mut bench = node(1);
    let syn = |i: usize| packet((A, ROUTER), &format!("10.0.0.1:{}", 1024 + i), "10.96.0.1:80", 64, Carries::Syn);
    let mut allocations = 0;
    for burst in 0..FIRST / 256 {
        let frames: Vec<_> = (0..256).map(|i| syn(burst * 256 + i)).collect();
        let mut loaded = bench.load(&frames);
        let before = ALLOCATIONS.get();
        bench.drive(A, &mut loaded);
        allocations += ALLOCATIONS.get() - before;
        bench.unload(loaded);
    }
    assert_eq!(bench.live.connections.len(), FIRST);
    println!("{:.2} allocations per new connection", allocations as f64 / FIRST as f64);
    assert!(allocations <= OF_A_WALK * FIRST as u64, "{allocations} for {FIRST}");
}
