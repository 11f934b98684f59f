//! The parse kernel for AVX-512 VBMI: one load of a frame's first 64 octets, one masked compare with each shape of
//! `parse/template.rs`, one permutation that puts the octets into the order of the key.
//!
//! Its scalar twin is `template::scalar`; `parse`'s tests hold both to the same results.

use std::arch::x86_64::*;

use crate::parse::template::{Found, Masking, Plan, TAGGED, UNTAGGED, measure};
use crate::parse::{Work, lanes};

/// Proof that this CPU has what the kernel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if the CPU has it. The standard library asks the CPU once and remembers.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("bmi2");
        found.then_some(Self(()))
    }

    /// Parse a burst with this kernel, keys of `WORDS` words.
    pub(crate) fn lanes<const WORDS: usize>(self, work: Work<'_>) {
        // SAFETY: `self` is only made by `detect`, which found every feature that the function is compiled for.
        unsafe { lanes_avx512::<WORDS>(work) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn lanes_avx512<const WORDS: usize>(work: Work<'_>) {
    // The closure has the features of the function around it, and `lanes` is inlined into it.
    lanes::<WORDS>(work, |window, len, plan| kernel::<WORDS>(window, len, plan));
}

/// Octets that a frame of a shape must have, and which bits of them.
struct Shape {
    must: [u8; 64],
    bits: [u8; 64],
    /// For each octet of the key: which octet of the frame it is.
    order: [u8; 64],
    /// Octets of the key that come from the frame; the others are zero.
    taken: u64,
}

const UNTAGGED_SHAPE: Shape = shape(UNTAGGED);
const TAGGED_SHAPE: Shape = shape(TAGGED);

#[allow(clippy::indexing_slicing, reason = "run by the compiler, which refuses what is out of bounds")]
const fn shape(l3: usize) -> Shape {
    let mut shape = Shape { must: [0; 64], bits: [0; 64], order: [0; 64], taken: 0 };
    // The source is no group.
    shape.bits[6] = 0x01;
    if l3 == TAGGED {
        (shape.must[12], shape.bits[12]) = (0x81, 0xff);
        (shape.must[13], shape.bits[13]) = (0x00, 0xff);
    }
    (shape.must[l3 - 2], shape.bits[l3 - 2]) = (0x08, 0xff);
    (shape.must[l3 - 1], shape.bits[l3 - 1]) = (0x00, 0xff);
    (shape.must[l3], shape.bits[l3]) = (0x45, 0xff);
    // Neither "more fragments" nor an offset.
    (shape.bits[l3 + 6], shape.bits[l3 + 7]) = (0x3f, 0xff);

    // (octet of the key, octet of the frame, how many); the tag's octets are swapped, since the key holds a native word.
    let runs: [(usize, usize, usize); 8] = [
        (2, 15, if l3 == TAGGED { 1 } else { 0 }),
        (3, 14, if l3 == TAGGED { 1 } else { 0 }),
        (4, 0, 12),
        (16, l3 - 2, 2),
        (18, l3 + 9, 1),
        (20, l3 + 12, 4),
        (24, l3 + 16, 4),
        (28, l3 + 20, 4),
    ];
    let mut run = 0;
    while run < runs.len() {
        let (to, from, octets) = runs[run];
        let mut i = 0;
        while i < octets {
            shape.order[to + i] = (from + i) as u8;
            shape.taken |= 1 << (to + i);
            i += 1;
        }
        run += 1;
    }
    shape
}

/// One frame. A copy for each loop, because the compiler inlines what is called from one place only, and a call costs as
/// much as the work (17 ticks a frame instead of 10).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn kernel<const WORDS: usize>(window: &[u8; 64], len: usize, plan: &Plan) -> Option<Found> {
    let octets = load(window);
    if is_of(&UNTAGGED_SHAPE, octets) {
        let layers = measure::<UNTAGGED>(window, len)?;
        Some(Found { layers, key: key(&UNTAGGED_SHAPE, octets, &plan.untagged) })
    } else if is_of(&TAGGED_SHAPE, octets) {
        let layers = measure::<TAGGED>(window, len)?;
        Some(Found { layers, key: key(&TAGGED_SHAPE, octets, &plan.tagged) })
    } else {
        None
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn is_of(shape: &Shape, octets: __m512i) -> bool {
    let differs = _mm512_xor_si512(octets, load(&shape.must));
    _mm512_test_epi8_mask(differs, load(&shape.bits)) == 0
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn key(shape: &Shape, octets: __m512i, masking: &Masking) -> [u64; 4] {
    let ordered = _mm512_castsi512_si256(_mm512_maskz_permutexvar_epi8(shape.taken, load(&shape.order), octets));
    let words = _mm256_or_si256(_mm256_and_si256(ordered, load_words(&masking.and)), load_words(&masking.or));
    let mut key = [0; 4];
    // SAFETY: the array is 32 octets, which is what is stored; no alignment is asked for.
    unsafe { _mm256_storeu_si256(key.as_mut_ptr().cast(), words) };
    key
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(octets: &[u8; 64]) -> __m512i {
    // SAFETY: the array is 64 octets, which is what is loaded; no alignment is asked for.
    unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(words: &[u64; 4]) -> __m256i {
    // SAFETY: the array is 32 octets, which is what is loaded; no alignment is asked for.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}
