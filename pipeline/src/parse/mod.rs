//! The first step: octets to offsets, a key and its hash. Every length is checked here, once.
//!
//! ```text
//!   frame ── of the template's shape? ── yes: a few instructions (vector or scalar kernel)  ──┐
//!                    │                                                                        ├── layers, key, hash
//!                    └── no: layers() the full parser, key() its facts, or a drop by name   ──┘
//! ```
//!
//! It never changes a frame, and never looks at tables: what the frame says of itself is all that is decided here.

pub(crate) mod extension;
mod facts;
mod fragment;
mod hasher;
mod layers;
pub(crate) mod read;
mod request;
pub(crate) mod template;

pub(crate) use facts::is_echo;
pub use facts::key;
pub use fragment::{Piece, piece, transport_octets};
pub use hasher::KeyHasher;
pub use layers::{MAX_FRAME, layers};
pub(crate) use layers::{ethertype, proto};
pub(crate) use read::{array, be16, octet};

use crate::burst::{Burst, LANES, Lanes, Layers, Only, Verdict, VlanEdit};
use crate::drop::DropReason;
use crate::key::{Class, FlowKey, KeyMask, WORDS};
use crate::raw::Frame;
#[cfg(target_arch = "x86_64")]
use crate::raw::simd_parse::Avx512;

use hasher::{is_narrow, prefix};
use template::{Plan, Window};

/// Which twin recognises the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// 64 octets at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// A field at a time, on every CPU.
    Scalar,
}

impl Kernel {
    /// The fastest that this CPU has.
    #[inline]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Avx512::detect() {
            return Self::Avx512(proof);
        }
        Self::Scalar
    }
}

/// Parse all lanes of a burst whose port has this mask: `layers`, `keys`, `long` or `wide` (for lanes
/// beyond class V4), `class`, `narrow` and `hashes` are filled, `verdicts` are `Drop` for malformed frames and `Pending` for all others, `vlans` are `Keep`.
/// A malformed frame's layers and key are zero.
pub fn parse(burst: &mut Burst, mask: &KeyMask, hasher: &KeyHasher) {
    parse_with(Kernel::best(), burst, mask, hasher);
}

/// [`parse`] with a kernel of one's choice, for tests and benches.
pub fn parse_with(kernel: Kernel, burst: &mut Burst, mask: &KeyMask, hasher: &KeyHasher) {
    burst.class = mask.class();
    let plan = Plan::new(burst.in_port, mask);
    let work = Work { burst, mask, hasher, plan };
    match hasher::width(mask) {
        2 => dispatch::<2>(kernel, work),
        4 => dispatch::<4>(kernel, work),
        8 => dispatch::<8>(kernel, work),
        _ => lanes::<WORDS>(work, |_, _, _, _| None, |_, _, _, _, _| None),
    }
}

fn dispatch<const N: usize>(kernel: Kernel, work: Work<'_>) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512(proof) => proof.lanes::<N>(work),
        Kernel::Scalar => lanes::<N>(work, template::four, template::six::<N>),
    }
}

/// A burst and all that parsing it takes.
pub(crate) struct Work<'a> {
    burst: &'a mut Burst,
    mask: &'a KeyMask,
    hasher: &'a KeyHasher,
    plan: Plan,
}

/// Copied as octets, 64 at a time: a loop would set the tag of each value by itself (1 tick a frame).
static PENDING: [Verdict; LANES] = [Verdict::Pending; LANES];
static KEEP: [VlanEdit; LANES] = [VlanEdit::Keep; LANES];

/// The first `len` values.
#[inline]
fn copy<T: Copy>(to: &mut [T; LANES], from: &[T; LANES], len: usize) {
    if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
        to.copy_from_slice(from);
    }
}

/// The loops over the lanes, compiled once for each kernel and number of words that are hashed.
///
/// Each kind of frame has a loop of its own, over what the one before it left: a loop without calls, and with one shape's
/// constants, keeps all it needs in registers, and a burst of both versions is mispredicted once a frame at most.
#[inline(always)]
pub(crate) fn lanes<const N: usize>(
    work: Work<'_>,
    four: impl Fn(&Window, usize, &Plan, &mut [u64; 4]) -> Option<Layers>,
    six: impl Fn(&Window, usize, &Plan, &mut [u64; 4], &mut [u64; 8]) -> Option<Layers>,
) {
    let Work { burst, mask, hasher, plan } = work;
    // A copy, which no store into the burst can change: its words stay in registers.
    let hasher = hasher.clone();
    let (len, in_port) = (burst.len(), burst.in_port);
    copy(&mut burst.verdicts, &PENDING, len);
    copy(&mut burst.vlans, &KEEP, len);
    let Burst { frames, layers, keys, long: longer, wide, verdicts, hashes, .. } = burst;

    // Marks are collected a word at a time: in memory, each would wait for the one before it (3 ticks a frame).
    let mut left = Only::NONE;
    let chunks = layers.chunks_mut(64).zip(keys.chunks_mut(64)).zip(&mut left.0);
    for (frames, ((layers, keys), left)) in frames.get(..len).unwrap_or(&[]).chunks(64).zip(chunks) {
        let mut bit = 1_u64;
        for (frame, (layers, key)) in frames.iter().zip(layers.iter_mut().zip(keys)) {
            if let Some(frame) = frame
                && frame.is_plain()
                && let Some(window) = frame.window()
                && let Some(found) = four(window, frame.head().len(), &plan, key)
            {
                *layers = found;
            } else {
                *left |= bit;
            }
            bit <<= 1;
        }
    }

    let (mut rest, mut long) = (Only::NONE, Only::NONE);
    let marks = rest.0.iter_mut().zip(&mut long.0);
    for (word, (&left, (rest, long))) in left.0.iter().zip(marks).enumerate() {
        let mut todo = left;
        let (mut unknown, mut narrow) = (0, 0);
        while todo != 0 {
            let bit = todo & todo.wrapping_neg();
            let lane = word * 64 + todo.trailing_zeros() as usize;
            todo ^= bit;
            let Some((Some(frame), layers, key, longer)) = places_of(frames, layers, keys, longer, lane) else {
                continue;
            };
            if frame.is_plain()
                && let Some(window) = frame.window()
                && let Some(found) = six(window, frame.head().len(), &plan, key, longer)
            {
                *layers = found;
                if N > 4 {
                    narrow |= if is_narrow(longer) { bit } else { 0 };
                }
            } else {
                unknown |= bit;
            }
        }
        *rest = unknown;
        *long = if N > 4 { left & !unknown & !narrow } else { 0 };
    }

    for lane in rest.each() {
        // A lane in use has a frame: rx put it there and tx has not run.
        let Some((Some(frame), layers, key, longer)) = places_of(frames, layers, keys, longer, lane) else { continue };
        let mut facts = FlowKey::EMPTY;
        *layers = full(frame, in_port, mask, &mut facts).unwrap_or_else(|reason| {
            if let Some(verdict) = verdicts.get_mut(lane) {
                *verdict = Verdict::Drop(reason);
            }
            Layers::default()
        });
        *key = prefix(&facts);
        if N > 4 {
            put(longer, &prefix::<8>(&facts));
            if N > Class::V6.words()
                && let Some(wide) = wide.get_mut(lane)
            {
                *wide = facts;
            }
            long.mark(lane, N > Class::V6.words() || !is_narrow(&facts.words));
        }
    }

    // Loops of their own, which read the keys from memory again: to move them out of vector registers costs a tick more.
    let short = Only::first(len).and(long.not());
    if long.is_empty() {
        let keys = hashes.iter_mut().take(len).zip(keys.iter());
        if N <= 4 {
            keys.for_each(|(hash, key)| *hash = hasher.words(&first::<N>(key)));
        } else {
            keys.for_each(|(hash, key)| *hash = hasher.words(key));
        }
    } else {
        for lane in short.each() {
            if let (Some(hash), Some(key)) = (hashes.get_mut(lane), keys.get(lane)) {
                *hash = hasher.words(key);
            }
        }
        for lane in long.each() {
            // Of these two, the one that is not `N` words long is compiled away.
            if N > Class::V6.words()
                && let (Some(hash), Some(key)) = (hashes.get_mut(lane), wide.get(lane))
            {
                *hash = hasher.words(&key.words);
            } else if let (Some(hash), Some(key)) = (hashes.get_mut(lane), longer.get(lane)) {
                *hash = hasher.words(key);
            }
        }
    }
    burst.narrow = if N == Class::V6.words() { short.0 } else { [0; 4] };
}

/// A lane's frame, and where its layers, short and long key are put.
type Places<'a> = (&'a Option<Frame>, &'a mut Layers, &'a mut [u64; 4], &'a mut [u64; 8]);

#[inline(always)]
fn places_of<'a>(
    frames: &'a [Option<Frame>; LANES],
    layers: &'a mut [Layers; LANES],
    keys: &'a mut [[u64; 4]; LANES],
    longer: &'a mut [[u64; 8]; LANES],
    lane: usize,
) -> Option<Places<'a>> {
    Some((frames.get(lane)?, layers.get_mut(lane)?, keys.get_mut(lane)?, longer.get_mut(lane)?))
}

/// The full parser; `facts` stay empty when the frame is malformed.
#[inline(never)]
fn full(frame: &Frame, in_port: api::PortId, mask: &KeyMask, facts: &mut FlowKey) -> Result<Layers, DropReason> {
    let layers = layers(frame.head(), frame.len(), frame.offload())?;
    *facts = key(in_port, frame.head(), &layers).masked(mask);
    Ok(layers)
}

/// The first `N` of four words.
#[inline(always)]
fn first<const N: usize>(words: &[u64; 4]) -> [u64; N] {
    words.first_chunk().copied().unwrap_or([0; N])
}

/// Set as many words of a key as there are.
#[inline(always)]
fn put<const N: usize>(key: &mut [u64; 8], words: &[u64; N]) {
    if let Some(first) = key.first_chunk_mut() {
        *first = *words;
    }
}

#[cfg(test)]
pub(crate) mod tests;
