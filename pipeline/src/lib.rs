//! The switch as a function: bytes and the time in, verdicts out.
//!
//! A frame takes four steps, each a folder, in this order:
//!
//! | step | what it does |
//! |---|---|
//! | [`parse`] | bytes → offsets and a masked key, checked once |
//! | [`probe`] | known flow? a hit carries its verdict and edits; a miss goes on |
//! | [`resolve`] | a miss walks the stages, is decided, and is remembered |
//! | [`rewrite`] | what was decided is done to the frame |
//!
//! [`Pipeline::run`] is these four, over a [`burst::Burst`] of up to 256 frames. There is no I/O, no thread, no clock
//! and no global here, and `unsafe` only in [`raw`]: so the whole switch can be replayed from a capture, fuzzed, and
//! simulated many times over in one process. The contract of the fast path is told where it is kept:
//! validity in [`probe::cells`], standing and growth in [`probe::cache`], stages in [`resolve::stage`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

pub mod parse;
pub mod probe;
pub mod resolve;
pub mod rewrite;

pub mod burst;
pub mod checksum;
pub mod counters;
pub mod drop;
pub mod key;
pub mod live;
pub mod offload;
pub mod raw;
pub mod reply;
pub mod segment;
pub mod tables;

use burst::{Burst, Lanes, Verdict};
use counters::Counters;
use key::Class;
use live::{Live, Now};
use parse::KeyHasher;
use probe::Tally;
use probe::cache::{FlowCache, Use};
use probe::cells::Moment;
use raw::{Memory, Stash};
use resolve::program::{Ingress, Program};
use resolve::walk::Copy;
use resolve::{Resolver, account, retire};

/// Entries that a cache of each class may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the IPv4 class, which bridged frames belong to, and all but IPv6 where IPv6 addresses count.
    pub v4: usize,
    /// Of the IPv6 class.
    pub v6: usize,
    /// Of the class of everything.
    pub wide: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A million flows of the common class take 160 MiB, when there are so many.
        Self { v4: 1 << 20, v6: 1 << 18, wide: 1 << 14 }
    }
}

/// Seconds without use after which an entry is forgotten, whatever room there is.
const IDLE: u32 = 10;
/// Microseconds between two sweeps at least, so that a loop without work for them pays one comparison.
const SWEEP_INTERVAL: u64 = 50;
/// Microseconds that one sweep makes up for at most: a bound on how long the next burst waits.
const SWEEP_MAX: u64 = 10_000;

/// What a burst is decided by: the program that is in force, and what goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// What was in force *before* `program` was taken: a decision by a newer program that carries an older generation is
    /// asked again once; the other way round it would be believed for ever.
    pub moment: Moment,
    /// The program, one version for the whole burst.
    pub program: &'a Program,
    /// What packets write.
    pub live: &'a Live,
    /// Of this worker.
    pub counters: &'a Counters,
    /// The time.
    pub now: Now,
    /// Walks that the ingress port may make.
    pub walks: usize,
}

/// Steps of [`Pipeline::run`], for whoever measures them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`parse`].
    Parse,
    /// [`probe`].
    Probe,
    /// [`resolve`].
    Resolve,
    /// [`rewrite`].
    Rewrite,
}

/// One worker's private part of the switch.
#[derive(Debug)]
pub struct Pipeline {
    hasher: KeyHasher,
    /// Caches of another epoch are flushed.
    epoch: u32,
    v4: FlowCache<4>,
    v6: FlowCache<8>,
    wide: FlowCache<32>,
    resolver: Resolver,
    shadow: Shadow,
    /// Microseconds up to which the sweep is done.
    swept: u64,
}

impl Pipeline {
    /// A pipeline with empty caches in memory that `memory` gives. `shadow`: one hit in so many is walked again, and
    /// the two compared; 0 for none.
    pub fn new(
        limits: Limits,
        hasher: KeyHasher,
        shadow: u64,
        memory: &mut dyn FnMut(usize) -> Box<dyn Memory>,
    ) -> Self {
        Self {
            hasher,
            epoch: 0,
            v4: FlowCache::new(limits.v4, memory),
            v6: FlowCache::new(limits.v6, memory),
            wide: FlowCache::new(limits.wide, memory),
            resolver: Resolver::default(),
            shadow: Shadow { rate: shadow, since: 0 },
            swept: 0,
        }
    }

    /// A pipeline on the heap, for tests, fuzzing and simulation.
    pub fn heap(entries: usize, shadow: u64) -> Self {
        let limits = Limits { v4: entries, v6: entries, wide: entries };
        Self::new(limits, KeyHasher::new(), shadow, &mut |octets| Box::new(raw::HeapMemory::new(octets)))
    }

    /// Decide a burst. Afterwards every lane has a verdict other than `Pending`, and frames that leave by one port are
    /// as they leave. Returns how many walks it took.
    #[inline]
    pub fn run(&mut self, burst: &mut Burst, turn: &Turn<'_>, stash: &mut Stash) -> usize {
        self.run_measured(burst, turn, stash, |_| ())
    }

    /// As [`Self::run`]; `done` is called after each step.
    #[inline]
    pub fn run_measured(
        &mut self,
        burst: &mut Burst,
        turn: &Turn<'_>,
        stash: &mut Stash,
        mut done: impl FnMut(Step),
    ) -> usize {
        let moment = turn.moment;
        if moment.epoch != self.epoch {
            self.flush(turn);
            self.epoch = moment.epoch;
        }
        // The last burst was sent.
        self.resolver.lists.settle();
        let Some(ingress) = turn.program.ingress(burst.in_port) else {
            let lanes = burst.len();
            burst
                .verdicts
                .iter_mut()
                .take(lanes)
                .for_each(|verdict| *verdict = Verdict::Drop(drop::DropReason::NoBridge));
            return 0;
        };
        parse::parse(burst, &ingress.mask, &self.hasher);
        done(Step::Parse);
        let Self { v4, v6, wide, resolver, shadow, .. } = self;
        let mut slow = Slow { resolver, shadow, ingress, turn, stash };
        let all = burst.all();
        let (tally, walks) = match burst.class {
            Class::V4 => known_or_walk(v4, burst, all, turn.walks, &mut slow, &mut done),
            Class::V6 => by_width((v4, v6), burst, &mut slow, &mut done),
            Class::Wide => known_or_walk(wide, burst, all, turn.walks, &mut slow, &mut done),
        };
        rewrite::rewrite(burst);
        done(Step::Rewrite);
        let coverage = &turn.counters.coverage;
        coverage.cache_hit.add(tally.hits);
        if tally.misses + tally.revalidated != 0 {
            coverage.cache_miss.add(tally.misses);
            coverage.cache_revalidated.add(tally.revalidated);
            coverage.cache_stale.add(tally.stale);
        }
        walks
    }

    /// The ways out of a `Multi` verdict of the last burst, until the next one or a sweep.
    pub fn copies(&self, list: u32) -> &[Copy] {
        self.resolver.lists.get(list)
    }

    /// Frames that wait here, for a neighbour or for their other fragments.
    pub fn waiting(&self) -> usize {
        self.resolver.parked.len() + self.resolver.fragments.len()
    }

    /// Start `burst` anew with frames that waited and may go on; they came in by the burst's port. Returns false when there are none.
    pub fn resume(&mut self, burst: &mut Burst) -> bool {
        self.resolver.parked.next_burst(burst)
    }

    /// Give back every frame that waits: the worker ends.
    pub fn clear(&mut self, stash: &mut Stash) {
        self.resolver.parked.clear(&mut |frame| stash.give(frame));
        self.resolver.fragments.clear(&mut |frame, _, _| stash.give(frame));
    }

    /// Live entries of all caches.
    pub fn entries(&self) -> usize {
        self.v4.len() + self.v6.len() + self.wide.len()
    }

    /// Bring a few entries' totals and trails up to date, and forget idle ones. Called between bursts: every entry is
    /// visited within a second, unless the load leaves no time for it.
    pub fn sweep(&mut self, turn: &Turn<'_>, stash: &mut Stash) {
        let now = turn.now.0.as_micros() as u64;
        let elapsed = now.saturating_sub(self.swept);
        if elapsed < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        let elapsed = elapsed.min(SWEEP_MAX);
        self.resolver.wait(turn, stash);
        let turn = &self.as_of_the_caches(turn);
        let resolver = &mut self.resolver;
        sweep(&mut self.v4, resolver, elapsed, turn);
        sweep(&mut self.v6, resolver, elapsed, turn);
        sweep(&mut self.wide, resolver, elapsed, turn);
        resolver.accounts.settle(turn.live, turn.now);
        resolver.lists.settle();
        let entries = self.entries() as u64;
        turn.counters.entries.store(entries, std::sync::atomic::Ordering::Relaxed);
    }

    /// The turn in the epoch that the entries are of: their generations say nothing in another one.
    fn as_of_the_caches<'a>(&self, turn: &Turn<'a>) -> Turn<'a> {
        Turn { moment: Moment { epoch: self.epoch, ..turn.moment }, ..*turn }
    }

    /// Forget everything.
    fn flush(&mut self, turn: &Turn<'_>) {
        let turn = &self.as_of_the_caches(turn);
        let Resolver { lists, accounts, .. } = &mut self.resolver;
        self.v4.flush(&mut |hot, cold| retire(lists, accounts, hot, cold, turn));
        self.v6.flush(&mut |hot, cold| retire(lists, accounts, hot, cold, turn));
        self.wide.flush(&mut |hot, cold| retire(lists, accounts, hot, cold, turn));
    }
}

/// Which hits are walked again and compared.
#[derive(Debug)]
struct Shadow {
    /// One in so many; 0 for none.
    rate: u64,
    /// Hits since the last one that was.
    since: u64,
}

/// What is off the hit path.
struct Slow<'a, 'b> {
    resolver: &'a mut Resolver,
    shadow: &'a mut Shadow,
    ingress: &'b Ingress,
    turn: &'a Turn<'b>,
    stash: &'a mut Stash,
}

/// Steps two to four for a port whose mask has IPv6 addresses: frames that have none are looked up where a shorter key is
/// compared.
#[inline]
fn by_width(
    (v4, v6): (&mut FlowCache<4>, &mut FlowCache<8>),
    burst: &mut Burst,
    slow: &mut Slow<'_, '_>,
    done: &mut impl FnMut(Step),
) -> (Tally, usize) {
    let (all, walks, [narrow, wide]) = (burst.all(), slow.turn.walks, burst.by_width());
    if narrow.is_empty() {
        return known_or_walk(v6, burst, all, walks, slow, done);
    }
    if wide.is_empty() {
        return known_or_walk(v4, burst, all, walks, slow, done);
    }
    let (first, walked) = known_or_walk(v4, burst, narrow, walks, slow, done);
    // Both share what the port may walk.
    let (second, more) = known_or_walk(v6, burst, wide, walks.saturating_sub(walked), slow, done);
    (first.and(second), walked + more)
}

/// Steps two to four for lanes whose keys are of one class. Hits are edited before misses are resolved: a miss may take the
/// place of an entry, and of its edits.
fn known_or_walk<const N: usize>(
    cache: &mut FlowCache<N>,
    burst: &mut Burst,
    lanes: impl Lanes,
    walks: usize,
    slow: &mut Slow<'_, '_>,
    done: &mut impl FnMut(Step),
) -> (Tally, usize) {
    let turn = slow.turn;
    let tally = probe::probe(cache, burst, lanes, turn.moment, &turn.live.cells);
    done(Step::Probe);
    if slow.shadow.rate != 0 {
        slow.compare(cache, burst, lanes, tally.hits);
    }
    if !burst.closing.is_empty() {
        Resolver::close(cache, burst, turn);
    }
    if !burst.edited.is_empty() {
        rewrite::edit(cache, burst);
        done(Step::Rewrite);
    }
    let walks = if tally.misses == 0 {
        0
    } else {
        let turn = Turn { walks, ..*turn };
        slow.resolver.resolve(cache, burst, lanes, slow.ingress, &turn, slow.stash)
    };
    done(Step::Resolve);
    (tally, walks)
}

impl Slow<'_, '_> {
    /// Walk a sampled hit again.
    #[cold]
    fn compare<const N: usize>(&mut self, cache: &FlowCache<N>, burst: &Burst, lanes: impl Lanes, hits: u64) {
        self.shadow.since += hits;
        if hits == 0 || self.shadow.since < self.shadow.rate {
            return;
        }
        self.shadow.since = 0;
        let decided = |lane: &usize| matches!(burst.verdicts.get(*lane), Some(Verdict::Output(_) | Verdict::Multi(_)));
        let Some(lane) = lanes.each().find(decided) else { return };
        let turn = self.turn;
        turn.counters.coverage.shadow_walk.add(1);
        if self.resolver.agrees(cache, burst, lane, self.ingress, turn) == Some(false) {
            turn.counters.coverage.cache_divergence.add(1);
        }
    }
}

/// The share of a cache that `micros` are worth.
fn sweep<const N: usize>(cache: &mut FlowCache<N>, resolver: &mut Resolver, micros: u64, turn: &Turn<'_>) {
    let second = turn.now.second();
    let Resolver { lists, accounts, .. } = resolver;
    let ahead = |name| turn.live.connections.prefetch(name);
    cache.sweep(micros, second, &ahead, &mut |hot, cold, Use { used, hit }| {
        let rests = !used || account(accounts, hot, cold, hit, turn);
        let stays = rests && second.saturating_sub(cold.used) < IDLE;
        if !stays {
            retire(lists, accounts, hot, cold, turn);
        }
        stays
    });
}
