//! The parse kernel for AVX-512 VBMI: one load of a frame's first 64 octets, one masked compare with each shape of
//! `parse/template.rs`, one permutation that puts the octets into the order of the key.
//!
//! Its scalar twins are `template::four` and `template::six`; `parse`'s tests hold both to the same results.

use std::arch::x86_64::*;

use crate::burst::Layers;
use crate::parse::template::{Masking, Plan, TAGGED, UNTAGGED, Window, measure, measure6};
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
    // The closures have the features of the function around them, and `lanes` is inlined into it.
    lanes::<WORDS>(
        work,
        |window, len, plan, key| four::<WORDS>(window, len, plan, key),
        |window, len, plan, key, longer| six::<WORDS>(window, len, plan, key, longer),
    );
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

const UNTAGGED4: Shape = shape4(UNTAGGED);
const TAGGED4: Shape = shape4(TAGGED);
const UNTAGGED6: Shape = shape6(UNTAGGED);
const TAGGED6: Shape = shape6(TAGGED);

const fn shape4(l3: usize) -> Shape {
    // Header of five words; neither "more fragments" nor an offset.
    let must = [(l3 - 2, 0x08, 0xff), (l3 - 1, 0x00, 0xff), (l3, 0x45, 0xff), (l3 + 6, 0, 0x3f), (l3 + 7, 0, 0xff)];
    shape(l3, must, [(18, l3 + 9, 1), (20, l3 + 12, 4), (24, l3 + 16, 4), (28, l3 + 20, 4)])
}

const fn shape6(l3: usize) -> Shape {
    let must = [(l3 - 2, 0x86, 0xff), (l3 - 1, 0xdd, 0xff), (l3, 0x60, 0xf0), (0, 0, 0), (0, 0, 0)];
    shape(l3, must, [(18, l3 + 6, 1), (28, l3 + 40, 4), (32, l3 + 8, 16), (48, l3 + 24, 16)])
}

/// A shape from what it must have (octet, value, bits of it) and where the key has its network and transport facts from
/// (octet of the key, octet of the frame, how many).
#[allow(clippy::indexing_slicing, reason = "run by the compiler, which refuses what is out of bounds")]
const fn shape(l3: usize, must: [(usize, u8, u8); 5], facts: [(usize, usize, usize); 4]) -> Shape {
    let mut shape = Shape { must: [0; 64], bits: [0; 64], order: [0; 64], taken: 0 };
    let mut octet = 0;
    while octet < must.len() {
        let (at, value, bits) = must[octet];
        (shape.must[at], shape.bits[at]) = (value, bits);
        octet += 1;
    }
    // The source is no group.
    shape.bits[6] = 0x01;
    let tag = if l3 == TAGGED { 1 } else { 0 };
    if l3 == TAGGED {
        (shape.must[12], shape.bits[12]) = (0x81, 0xff);
        (shape.must[13], shape.bits[13]) = (0x00, 0xff);
    }

    // The tag's octets are swapped, since the key holds a native word.
    let [a, b, c, d] = facts;
    let runs = [(2, 15, tag), (3, 14, tag), (4, 0, 12), (16, l3 - 2, 2), a, b, c, d];
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

/// One frame of IPv4, as `template::four` has it. A copy for each loop, because the compiler inlines what is called from
/// one place only, and a call costs as much as the work (17 ticks a frame instead of 10).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn four<const WORDS: usize>(window: &Window, len: usize, plan: &Plan, key: &mut [u64; 4]) -> Option<Layers> {
    let octets = load(window.first_chunk()?);
    if is_of(&UNTAGGED4, octets) {
        let layers = measure::<UNTAGGED>(window, len)?;
        short(&UNTAGGED4, octets, &plan.untagged, key);
        Some(layers)
    } else if is_of(&TAGGED4, octets) {
        let layers = measure::<TAGGED>(window, len)?;
        short(&TAGGED4, octets, &plan.tagged, key);
        Some(layers)
    } else {
        None
    }
}

/// One frame of IPv6, as `template::six` has it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn six<const WORDS: usize>(
    window: &Window,
    len: usize,
    plan: &Plan,
    key: &mut [u64; 4],
    longer: &mut [u64; 8],
) -> Option<Layers> {
    let octets = load(window.first_chunk()?);
    if is_of(&UNTAGGED6, octets) {
        let layers = measure6::<UNTAGGED>(window, len)?;
        long::<WORDS>(&UNTAGGED6, octets, &plan.untagged, key, longer);
        Some(layers)
    } else if is_of(&TAGGED6, octets) {
        let layers = measure6::<TAGGED>(window, len)?;
        long::<WORDS>(&TAGGED6, octets, &plan.tagged, key, longer);
        Some(layers)
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

/// The first four words of the key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn short(shape: &Shape, octets: __m512i, masking: &Masking, key: &mut [u64; 4]) {
    let ordered = _mm512_castsi512_si256(_mm512_maskz_permutexvar_epi8(shape.taken, load(&shape.order), octets));
    let ([and, ..], [or, ..]) = (masking.and.as_chunks().0, masking.or.as_chunks().0) else { return };
    store_words(key, _mm256_or_si256(_mm256_and_si256(ordered, load_words(and)), load_words(or)));
}

/// All words of the key that are compared.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")]
fn long<const WORDS: usize>(
    shape: &Shape,
    octets: __m512i,
    masking: &Masking,
    key: &mut [u64; 4],
    longer: &mut [u64; 8],
) {
    if WORDS <= 4 {
        return short(shape, octets, masking, key);
    }
    let ordered = _mm512_maskz_permutexvar_epi8(shape.taken, load(&shape.order), octets);
    let words = _mm512_or_si512(_mm512_and_si512(ordered, load_words8(&masking.and)), load_words8(&masking.or));
    store_words(key, _mm512_castsi512_si256(words));
    if let Some(first) = longer.first_chunk_mut() {
        store_words8(first, words);
    }
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

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words8(words: &[u64; 8]) -> __m512i {
    // SAFETY: the array is 64 octets, which is what is loaded; no alignment is asked for.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_words(to: &mut [u64; 4], words: __m256i) {
    // SAFETY: the array is 32 octets, which is what is stored; no alignment is asked for.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_words8(to: &mut [u64; 8], words: __m512i) {
    // SAFETY: the array is 64 octets, which is what is stored; no alignment is asked for.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
}
