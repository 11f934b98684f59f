//! path: the whole way from port to port of a learning bridge, generator and sink included; hits and misses apart.

mod kit;

use std::sync::Arc;

use benches::frames::{Frames, Size};
use benches::measure::{Laps, Step};
use benches::world::{BRIDGE, PORTS, World};
use control::Switch as _;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kit::CpuTime;
use pipeline::burst::LANES;

/// Every frame is of a known flow. A turn is a burst from each port.
fn hit(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("bridge/hit");
    group.throughput(Throughput::Elements(2 * LANES as u64));
    for pairs in [1, 10_000, 100_000] {
        let frames = Frames::pairs(pairs, Size::Fixed(64)).expect("frames").map(Arc::new);
        let each = 2 * frames[0].len();
        let mut world = World::new(frames, 2 * pairs + 1000, 1).expect("a switch");
        world.warm_up(each);
        let worker = &mut world.workers[0];
        group.bench_function(BenchmarkId::from_parameter(pairs), |bench| {
            bench.iter(|| worker.step(&mut Laps::default()));
        });
    }
    group.finish();
}

/// Every frame is the first of its station: decided, learned, cached. Forgetting them all, once in 40 bursts, counts.
fn miss(criterion: &mut Criterion<CpuTime>) {
    const BURSTS: usize = 40;
    let frames = Arc::new(Frames::sources(BURSTS * LANES).expect("frames"));
    let mut world = World::new([frames, Arc::new(Frames::default())], 100_000, 1).expect("a switch");
    world.place(Frames::ANYBODY, PORTS[1]).expect("a static station");
    let mut burst = 0;
    let mut group = criterion.benchmark_group("bridge/miss");
    group.throughput(Throughput::Elements(LANES as u64));
    group.bench_function("learn", |bench| {
        bench.iter(|| {
            if burst % BURSTS == 0 {
                world.switch.flush_stations(Some(BRIDGE));
            }
            burst += 1;
            world.workers[0].step(&mut Laps::default())
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = kit::criterion(); targets = hit, miss }
criterion_main!(benches);
