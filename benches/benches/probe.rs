//! probe: look a burst of parsed frames up in the flow cache; every one is a hit. 64 flows stay in the first-level
//! cache, 16 Ki in the second, a million nowhere near.

mod kit;

use benches::frames::{Frames, Size};
use benches::world::{PORTS, bridge_mask};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kit::CpuTime;
use pipeline::burst::{Burst, LANES, Verdict, VlanEdit};
use pipeline::parse::{KeyHasher, parse};
use pipeline::probe::cache::{Decision, FlowCache};
use pipeline::probe::cells::{Cells, Deps};
use pipeline::probe::probe;
use pipeline::raw::{Frame, HeapMemory, Memory, Pool};
use pipeline::rewrite::edits::Edits;

/// Bursts that take turns, so that a burst's own arrays do not stay in the first-level cache more than in the switch.
const BURSTS: usize = 64;

fn hit(criterion: &mut Criterion<CpuTime>) {
    let (cells, mask, hasher) = (Cells::default(), bridge_mask(), KeyHasher::new());
    let decision = Decision {
        verdict: Verdict::Output(PORTS[1]),
        vlan: VlanEdit::Keep,
        guard: u32::MAX,
        deps: Deps::default(),
        edits: Edits::default(),
        connection: None,
        trail: 0,
    };
    let mut group = criterion.benchmark_group("probe/hit");
    group.throughput(Throughput::Elements(LANES as u64));
    for flows in [64, BURSTS * LANES, 1 << 20] {
        let pool = Pool::heap(BURSTS * LANES, 0);
        let mut stash = pool.stash();
        let [frames, _] = Frames::pairs(flows, Size::Fixed(64)).expect("frames");
        let mut cache: FlowCache<4> =
            FlowCache::new(2 * flows, &mut |octets| Box::new(HeapMemory::new(octets)) as Box<dyn Memory>);
        let mut bursts: Vec<Box<Burst>> = (0..BURSTS).map(|_| Burst::new()).collect();
        // All flows are put into the cache; the last bursts of the list are those that are looked up.
        for n in 0..frames.len() {
            let burst = &mut bursts[n / LANES % BURSTS];
            if n % LANES == 0 {
                burst.frames.iter_mut().filter_map(Option::take).for_each(|frame: Frame| stash.give(frame));
                burst.reset(PORTS[0]);
            }
            let mut frame = stash.take().expect("a slot for every lane");
            assert!(frame.fill(frames.nth(n)) && burst.push(frame).is_ok());
            if n % LANES == LANES - 1 {
                parse(burst, &mask, &hasher);
                for (key, hash) in burst.keys.iter().zip(&burst.hashes) {
                    cache.insert(*key, *hash, cells.now().generation, 0, &decision, &mut |_, _| ());
                }
            }
        }
        let used = BURSTS.min(frames.len() / LANES);
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(flows), |bench| {
            bench.iter(|| {
                turn = (turn + 1) % used;
                let burst = &mut bursts[turn];
                burst.verdicts.fill(Verdict::Pending);
                let all = burst.all();
                let tally = probe(&mut cache, burst, all, cells.now(), &cells);
                tally.hits
            });
        });
        let tally = {
            bursts[0].verdicts.fill(Verdict::Pending);
            let all = bursts[0].all();
            probe(&mut cache, &mut bursts[0], all, cells.now(), &cells)
        };
        assert!(tally.hits as usize > LANES * 99 / 100, "{tally:?}: this is to measure hits");
    }
    group.finish();
}

criterion_group! { name = benches; config = kit::criterion(); targets = hit }
criterion_main!(benches);
