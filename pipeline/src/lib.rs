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
pub mod segment;
pub mod tables;

use burst::{Burst, Lanes, Verdict};
use counters::Counters;
use key::Class;
use live::{Live, Now};
use parse::KeyHasher;
use probe::Tally;
use probe::cache::FlowCache;
use probe::cells::Moment;
use raw::Memory;
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
    /// One hit in so many is walked again and compared; 0 for none.
    shadow: u64,
    /// Hits since the last one that was.
    unshadowed: u64,
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
            shadow,
            unshadowed: 0,
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
    pub fn run(&mut self, burst: &mut Burst, turn: &Turn<'_>) -> usize {
        self.run_measured(burst, turn, |_| ())
    }

    /// As [`Self::run`]; `done` is called after each step.
    #[inline]
    pub fn run_measured(&mut self, burst: &mut Burst, turn: &Turn<'_>, mut done: impl FnMut(Step)) -> usize {
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
        let (resolver, all) = (&mut self.resolver, burst.all());
        let (tally, walks) = match burst.class {
            Class::V4 => known_or_walk(&mut self.v4, resolver, burst, all, ingress, moment, turn, &mut done),
            Class::V6 => self.by_width(burst, ingress, moment, turn, &mut done),
            Class::Wide => known_or_walk(&mut self.wide, resolver, burst, all, ingress, moment, turn, &mut done),
        };
        if self.shadow != 0 {
            self.compare(burst, tally.hits, ingress, moment, turn);
        }
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

    /// Steps two and three for a port whose mask has IPv6 addresses: frames that have none are looked up where a shorter
    /// key is compared.
    #[inline]
    fn by_width(
        &mut self,
        burst: &mut Burst,
        ingress: &Ingress,
        moment: Moment,
        turn: &Turn<'_>,
        done: &mut impl FnMut(Step),
    ) -> (Tally, usize) {
        let Self { v4, v6, resolver, .. } = self;
        let (all, [narrow, wide]) = (burst.all(), burst.by_width());
        if narrow.is_empty() {
            return known_or_walk(v6, resolver, burst, all, ingress, moment, turn, done);
        }
        if wide.is_empty() {
            return known_or_walk(v4, resolver, burst, all, ingress, moment, turn, done);
        }
        let (first, walked) = known_or_walk(v4, resolver, burst, narrow, ingress, moment, turn, done);
        // Both share what the port may walk.
        let turn = &Turn { walks: turn.walks.saturating_sub(walked), ..*turn };
        let (second, walks) = known_or_walk(v6, resolver, burst, wide, ingress, moment, turn, done);
        (first.and(second), walked + walks)
    }

    /// Walk a sampled hit again.
    #[cold]
    fn compare(&mut self, burst: &Burst, hits: u64, ingress: &Ingress, moment: Moment, turn: &Turn<'_>) {
        self.unshadowed += hits;
        if hits == 0 || self.unshadowed < self.shadow {
            return;
        }
        self.unshadowed = 0;
        let decided = |verdict: &Verdict| matches!(verdict, Verdict::Output(_) | Verdict::Multi(_));
        let Some(lane) = burst.verdicts.iter().take(burst.len()).position(decided) else { return };
        turn.counters.coverage.shadow_walk.add(1);
        if self.resolver.agrees(burst, lane, ingress, moment, turn) == Some(false) {
            turn.counters.coverage.cache_divergence.add(1);
        }
    }

    /// The ways out of a `Multi` verdict of the last burst, until the next one or a sweep.
    pub fn copies(&self, list: u32) -> &[Copy] {
        self.resolver.lists.get(list)
    }

    /// Live entries of all caches.
    pub fn entries(&self) -> usize {
        self.v4.len() + self.v6.len() + self.wide.len()
    }

    /// Bring a few entries' totals and trails up to date, and forget idle ones. Called between bursts: every entry is
    /// visited within a second, unless the load leaves no time for it.
    pub fn sweep(&mut self, turn: &Turn<'_>) {
        let now = turn.now.0.as_micros() as u64;
        let elapsed = now.saturating_sub(self.swept);
        if elapsed < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        let elapsed = elapsed.min(SWEEP_MAX);
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

/// Steps two and three for lanes whose keys are of one class.
#[expect(clippy::too_many_arguments, reason = "what two steps take")]
fn known_or_walk<const N: usize>(
    cache: &mut FlowCache<N>,
    resolver: &mut Resolver,
    burst: &mut Burst,
    lanes: impl Lanes,
    ingress: &Ingress,
    moment: Moment,
    turn: &Turn<'_>,
    done: &mut impl FnMut(Step),
) -> (Tally, usize) {
    let tally = probe::probe(cache, burst, lanes, moment, &turn.live.cells);
    done(Step::Probe);
    let walks = if tally.misses == 0 { 0 } else { resolver.resolve(cache, burst, lanes, ingress, moment, turn) };
    done(Step::Resolve);
    (tally, walks)
}

/// The share of a cache that `micros` are worth.
fn sweep<const N: usize>(cache: &mut FlowCache<N>, resolver: &mut Resolver, micros: u64, turn: &Turn<'_>) {
    let second = turn.now.second();
    let Resolver { lists, accounts, .. } = resolver;
    cache.sweep(micros, second, &mut |hot, cold, used| {
        if used {
            account(accounts, hot, cold, turn);
        }
        let stays = second.saturating_sub(cold.used) < IDLE;
        if !stays {
            retire(lists, accounts, hot, cold, turn);
        }
        stays
    });
}
