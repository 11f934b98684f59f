//! probe: known flow? A hit carries its verdict and edits; a miss goes on to resolve.
//!
//! Three passes over the burst, so that the memory that a lane needs is on its way while its neighbours are looked at:
//! ask for the tags; compare tags and ask for the entry; compare key, generation and guard, and count. A burst of 256
//! lanes keeps as many cache misses in flight as the core can, which is what makes a million flows affordable.

pub mod cache;
pub mod cells;
pub mod trail;

use crate::burst::{Burst, LANES, Verdict, VlanEdit};
use cache::{FlowCache, NONE};
use cells::{Cells, Moment};

/// What the probe of a burst came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lanes that a cached decision served.
    pub hits: u64,
    /// Lanes that go on to resolve.
    pub misses: u64,
    /// Of the hits: entries older than the last change that still stood.
    pub revalidated: u64,
    /// Of the misses: entries that a change had made worthless.
    pub stale: u64,
}

/// What one entry says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The decision holds.
    Hit { verdict: Verdict, vlan: VlanEdit, revalidated: bool },
    /// A change has made the entry worthless.
    Stale,
    /// It is another flow's, or its guard does not admit the frame.
    No,
}

/// The masked key of a lane.
#[inline]
pub(crate) fn key<const N: usize>(burst: &Burst, lane: usize) -> Option<&[u64; N]> {
    if N == 4 { burst.keys.get(lane)?.first_chunk() } else { burst.wide.get(lane)?.words.first_chunk() }
}

/// Ask one entry, and count the frame if it answers.
#[inline]
pub(crate) fn ask<const N: usize>(
    cache: &mut FlowCache<N>,
    entry: u32,
    (key, hash): (&[u64; N], u64),
    guard: u32,
    octets: usize,
    moment: Moment,
    cells: &Cells,
) -> Answer {
    let Some(hot) = cache.hot(entry) else { return Answer::No };
    if hot.key != *key {
        return Answer::No;
    }
    let mut revalidated = false;
    if hot.generation != moment.generation {
        let made = Moment { generation: hot.generation, ..moment };
        if !cache.cold(entry).is_some_and(|cold| cells.unchanged_since(&cold.cells, made)) {
            return Answer::Stale;
        }
        revalidated = true;
    }
    let Some(hot) = cache.hot(entry) else { return Answer::No };
    if revalidated {
        hot.generation = moment.generation;
    }
    if !hot.admits(guard) {
        return Answer::No;
    }
    hot.packets += 1;
    hot.bytes += octets as u64;
    let answer = Answer::Hit { verdict: hot.verdict(), vlan: hot.vlan(), revalidated };
    // The first frame of an entry made it, the second hit is the third frame.
    if hot.packets == 3 {
        cache.promote(key, hash);
    }
    answer
}

/// Look all pending lanes up.
pub fn probe<const N: usize>(cache: &mut FlowCache<N>, burst: &mut Burst, moment: Moment, cells: &Cells) -> Tally {
    let mut tally = Tally::default();
    let mut places = [NONE; LANES];
    let lanes = burst.len();
    for (place, hash) in places.iter_mut().zip(&burst.hashes).take(lanes) {
        *place = cache.prefetch_set(*hash);
    }
    for (place, hash) in places.iter_mut().zip(&burst.hashes).take(lanes) {
        *place = cache.candidate(*place, *hash);
    }
    for (lane, &place) in places.iter().enumerate().take(lanes) {
        let pending = burst.verdicts.get(lane) == Some(&Verdict::Pending);
        if !pending {
            continue;
        }
        let (Some(key), Some(layers), Some(Some(frame)), Some(&hash)) =
            (key::<N>(burst, lane), burst.layers.get(lane), burst.frames.get(lane), burst.hashes.get(lane))
        else {
            continue;
        };
        if place == NONE {
            tally.misses += 1;
            continue;
        }
        let (guard, octets) = (layers.guard, frame.len());
        let mut answer = ask(cache, place, (key, hash), guard, octets, moment, cells);
        if answer == Answer::No
            // Another way of the set may have the same tag.
            && let Some(entry) = cache.find(key, hash)
            && entry != place
        {
            answer = ask(cache, entry, (key, hash), guard, octets, moment, cells);
        }
        match answer {
            Answer::Hit { verdict, vlan, revalidated } => {
                tally.hits += 1;
                tally.revalidated += u64::from(revalidated);
                if let (Some(at), Some(edit)) = (burst.verdicts.get_mut(lane), burst.vlans.get_mut(lane)) {
                    (*at, *edit) = (verdict, vlan);
                }
            }
            Answer::Stale => (tally.stale, tally.misses) = (tally.stale + 1, tally.misses + 1),
            Answer::No => tally.misses += 1,
        }
    }
    tally
}
