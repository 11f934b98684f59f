//! probe: known flow? A hit carries its verdict and edits; a miss goes on to resolve.
//!
//! Three passes over the burst, so that the memory that a lane needs is on its way while its neighbours are looked at:
//! ask for the tags; compare tags and ask for the entry; compare key, generation and guard, and count. A burst of 256
//! lanes keeps as many cache misses in flight as the core can, which is what makes a million flows affordable.

pub mod cache;
pub mod cells;
pub mod trail;

use crate::burst::{Burst, LANES, Lanes, Only, Verdict, VlanEdit, guard};
use crate::key::Class;
use crate::raw::Frame;
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

impl Tally {
    /// What both came to.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            revalidated: self.revalidated + other.revalidated,
            stale: self.stale + other.stale,
        }
    }
}

/// What one entry says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The decision holds.
    Hit { entry: u32, verdict: Verdict, vlan: VlanEdit, revalidated: bool },
    /// A change has made the entry worthless.
    Stale,
    /// It is another flow's, or its guard does not admit the frame.
    No,
}

/// The masked key of a lane.
#[inline]
pub(crate) fn key<const N: usize>(burst: &Burst, lane: usize) -> Option<&[u64; N]> {
    match N {
        4 => burst.keys.get(lane)?.first_chunk(),
        8 => burst.long.get(lane)?.first_chunk(),
        _ => burst.wide.get(lane)?.words.first_chunk(),
    }
}

/// Ask one entry, and count the frame if it answers.
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
    let made = Moment { generation: hot.generation, ..moment };
    let revalidated = !moment.is_current(hot.generation, hot.is_volatile());
    if revalidated && !cache.cold(entry).is_some_and(|cold| cells.unchanged_since(&cold.cells, made)) {
        return Answer::Stale;
    }
    let Some(hot) = cache.hot(entry) else { return Answer::No };
    hot.generation = moment.generation;
    if !hot.admits(guard) {
        return Answer::No;
    }
    let promoted = hot.count(octets);
    let (verdict, vlan) = (hot.verdict(), hot.vlan());
    if promoted {
        cache.promote(key, hash);
    }
    Answer::Hit { entry, verdict, vlan, revalidated }
}

/// Look those of `lanes` up that are pending.
pub fn probe<const N: usize>(
    cache: &mut FlowCache<N>,
    burst: &mut Burst,
    lanes: impl Lanes,
    moment: Moment,
    cells: &Cells,
) -> Tally {
    let mut places = [NONE; LANES];
    for lane in lanes.each() {
        if let (Some(place), Some(hash)) = (places.get_mut(lane), burst.hashes.get(lane)) {
            *place = cache.prefetch_set(*hash);
        }
    }
    for lane in lanes.each() {
        if let (Some(place), Some(hash)) = (places.get_mut(lane), burst.hashes.get(lane)) {
            *place = cache.candidate(*place, *hash);
        }
    }
    let mut tally = Tally::default();
    let Burst { keys, long, wide, hashes, frames, layers, verdicts, vlans, edited, edits, closing, .. } = burst;
    closing.clear();
    *edited = Only::NONE;
    // The marks of the word under way: in memory, each would wait for the one before it.
    let (mut word, mut marks) = (0, 0_u64);
    for lane in lanes.each() {
        let key = if N == Class::V4.words() {
            keys.get(lane).and_then(|key| key.first_chunk())
        } else if N == Class::V6.words() {
            long.get(lane).and_then(|key| key.first_chunk())
        } else {
            wide.get(lane).and_then(|key| key.words.first_chunk())
        };
        let (Some(key), Some(&place), Some(&hash), Some(frame), Some(layers)) =
            (key, places.get(lane), hashes.get(lane), frames.get(lane), layers.get(lane))
        else {
            continue;
        };
        let (Some(verdict), Some(vlan)) = (verdicts.get_mut(lane), vlans.get_mut(lane)) else { continue };
        if *verdict != Verdict::Pending {
            continue;
        }
        let octets = frame.as_ref().map_or(0, Frame::len);
        // The common case, without a call: this flow, decided under what is in force, and fit for this frame.
        let mut entry = place;
        if let Some(hot) = cache.hot(place)
            && hot.key == *key
            && moment.is_current(hot.generation, hot.is_volatile())
            && hot.admits(layers.guard)
        {
            let promoted = hot.count(octets);
            (*verdict, *vlan) = (hot.verdict(), hot.vlan());
            let special = hot.is_special();
            tally.hits += 1;
            if promoted {
                cache.promote(key, hash);
            }
            if !special {
                continue;
            }
        } else {
            match again(cache, place, (key, hash), layers.guard, octets, moment, cells) {
                Answer::Hit { entry: found, verdict: decided, vlan: tag, revalidated } => {
                    (entry, *verdict, *vlan) = (found, decided, tag);
                    tally.hits += 1;
                    tally.revalidated += u64::from(revalidated);
                }
                Answer::Stale => {
                    (tally.stale, tally.misses) = (tally.stale + 1, tally.misses + 1);
                    continue;
                }
                Answer::No => {
                    tally.misses += 1;
                    continue;
                }
            }
        }
        let Some(hot) = cache.hot(entry) else { continue };
        if hot.is_tracked() && layers.guard & guard::FIN_RST != 0 {
            closing.push((lane as u16, entry));
        }
        if hot.is_edited()
            && let Some(edit) = edits.get_mut(lane)
        {
            *edit = entry;
            cache.prefetch_edits(entry);
            if lane / 64 != word {
                edited.add(word, std::mem::take(&mut marks));
                word = lane / 64;
            }
            marks |= 1 << (lane % 64);
        }
    }
    edited.add(word, marks);
    tally
}

/// What is not the common case: an older decision, another flow under the same tag, no entry at all.
#[cold]
fn again<const N: usize>(
    cache: &mut FlowCache<N>,
    place: u32,
    (key, hash): (&[u64; N], u64),
    guard: u32,
    octets: usize,
    moment: Moment,
    cells: &Cells,
) -> Answer {
    if place == NONE {
        return Answer::No;
    }
    let answer = ask(cache, place, (key, hash), guard, octets, moment, cells);
    match cache.find(key, hash) {
        // Another way of the set has the same tag.
        Some(entry) if answer == Answer::No && entry != place => {
            ask(cache, entry, (key, hash), guard, octets, moment, cells)
        }
        _ => answer,
    }
}
