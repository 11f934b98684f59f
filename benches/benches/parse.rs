//! parse: a burst of frames to masked keys and hashes, with both kernels. The frames are in the first-level cache or
//! near it, as receiving leaves them.

mod kit;

use std::hint::black_box;

use benches::frames::{Frames, Size};
use benches::world::{PORTS, bridge_mask};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kit::CpuTime;
use pipeline::burst::{Burst, LANES};
use pipeline::parse::{Kernel, KeyHasher, parse_with};
use pipeline::raw::Pool;

fn parse(criterion: &mut Criterion<CpuTime>) {
    let pool = Pool::heap(LANES, 0);
    let mut stash = pool.stash();
    let mask = bridge_mask();
    let [frames, _] = Frames::pairs(LANES, Size::Fixed(64)).expect("frames");
    let mut burst = Burst::new();
    burst.reset(PORTS[0]);
    for n in 0..LANES {
        let mut frame = stash.take().expect("a slot for every lane");
        assert!(frame.fill(frames.nth(n)));
        assert!(burst.push(frame).is_ok());
    }
    let hasher = KeyHasher::new();
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(LANES as u64));
    for (name, kernel) in [("best", Kernel::best()), ("scalar", Kernel::Scalar)] {
        group.bench_function(BenchmarkId::new("udp4", name), |bench| {
            bench.iter(|| {
                parse_with(kernel, black_box(&mut burst), &mask, &hasher);
                black_box(burst.hashes[0])
            });
        });
    }
    group.finish();
    burst.frames.iter_mut().filter_map(Option::take).for_each(|frame| stash.give(frame));
}

criterion_group! { name = benches; config = kit::criterion(); targets = parse }
criterion_main!(benches);
