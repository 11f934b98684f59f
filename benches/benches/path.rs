//! path: the whole way from port to port of a learning bridge, generator and sink included; hits and misses apart.

mod kit;

use std::sync::Arc;

use benches::frames::{Frames, Size};
use benches::machine::Machine;
use benches::measure::{Laps, Step};
use benches::world::{BRIDGE, PORTS, Shared, World};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kit::CpuTime;
use pipeline::burst::LANES;

/// Every frame is of a known flow.
fn hit(criterion: &mut Criterion<CpuTime>) {
    let machine = Machine::measure();
    let mut group = criterion.benchmark_group("bridge/hit");
    group.throughput(Throughput::Elements(LANES as u64));
    for pairs in [1, 10_000, 100_000] {
        let [left, right] = Frames::pairs(pairs, Size::Fixed(64)).expect("frames").map(Arc::new);
        let bursts = 4 * (left.len() + right.len()) / LANES;
        let shared = Arc::new(Shared::new(2 * pairs + 1000, 1).expect("memory for a bridge"));
        let mut world = World::new(shared, vec![(PORTS[0], left), (PORTS[1], right)], &machine);
        (0..bursts).for_each(|_| _ = world.step(&mut Laps::default()));
        group.bench_function(BenchmarkId::from_parameter(pairs), |bench| {
            bench.iter(|| world.step(&mut Laps::default()));
        });
    }
    group.finish();
}

/// Every frame is the first of its station: decided, learned, cached. Forgetting them all, once in 40 bursts, counts.
fn miss(criterion: &mut Criterion<CpuTime>) {
    let machine = Machine::measure();
    let frames = Arc::new(Frames::sources(40 * LANES).expect("frames"));
    let shared = Arc::new(Shared::new(100_000, 2).expect("memory for a bridge"));
    let anybody = Arc::new(Frames::anybody().expect("a frame"));
    World::new(Arc::clone(&shared), vec![(PORTS[1], anybody)], &machine).step(&mut Laps::default());
    let mut world = World::new(Arc::clone(&shared), vec![(PORTS[0], frames)], &machine);
    let mut group = criterion.benchmark_group("bridge/miss");
    group.throughput(Throughput::Elements(LANES as u64));
    group.bench_function("learn", |bench| {
        bench.iter(|| {
            if world.at_start() {
                shared.live.stations.flush(BRIDGE, Some(PORTS[0]), &shared.live.cells);
            }
            world.step(&mut Laps::default())
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = kit::criterion(); targets = hit, miss }
criterion_main!(benches);
