//! A worker's turn does not allocate while its frames hit: rx, the four steps, tx, sweep.

#![allow(unsafe_code, reason = "an allocator that counts is the only witness")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::switch::Switch;

use crate::memory::{frame, mac, options, transaction};

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

#[test]
fn a_turn_of_a_worker_does_not_allocate() {
    let (mut switch, mut workers) = Switch::assemble(&options(1), Keeper::none()).unwrap();
    let mut wires = Vec::new();
    for id in 1..=3 {
        let (opened, wire) = vswitch::ports::memory::pair(1024, false).unwrap();
        switch.offer(&format!("p{id}"), opened);
        wires.push(wire);
    }
    let mut worker = workers.remove(0);
    std::thread::scope(|scope| {
        // The control side waits for the worker, which is here.
        let control = scope.spawn(|| switch.apply(&transaction(&[1, 2, 3])).unwrap());
        while !control.is_finished() {
            assert!(worker.obey());
            worker.turn();
        }
    });
    let mut stash = switch.pool().stash();
    let mut bounce = |bursts: usize| {
        for _ in 0..bursts {
            for (from, to) in [(1u16, 2u16), (2, 1)] {
                for lane in 0..100 {
                    // One in ten is flooded, and copied.
                    let to = if lane % 10 == 0 { [0xff; 6] } else { mac(to) };
                    let mut slot = stash.take().unwrap();
                    slot.fill(&frame(to, mac(from), 0));
                    wires[usize::from(from) - 1].send(slot).unwrap();
                }
            }
            worker.turn();
            for wire in &mut wires {
                while let Some(slot) = wire.receive() {
                    stash.give(slot);
                }
            }
        }
    };
    bounce(100);
    let before = ALLOCATIONS.get();
    bounce(1000);
    // The frames themselves are made on this thread, too, one array each: they are on the stack.
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let hits = switch.workers()[0].hits;
    assert!(hits > 200_000, "{hits} hits");
}
