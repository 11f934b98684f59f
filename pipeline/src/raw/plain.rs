//! Tables of plain words over given memory: zeroed, so that a large table costs nothing until it is used.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::Memory;
use crate::probe::cache::{Bucket, Cold, Hot};
use crate::rewrite::edits::Edits;

/// Types for which all bits zero is a value, and which need no destructor.
///
/// # Safety
/// All bits zero is a valid value; the alignment is at most 64.
pub unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of integers only; alignment 64.
unsafe impl Plain for Bucket {}
// SAFETY: integers and arrays of integers only; alignment 64.
unsafe impl<const N: usize> Plain for Hot<N> {}
// SAFETY: integers and arrays of integers only; alignment 64.
unsafe impl Plain for Cold {}
// SAFETY: integers and arrays of integers only; alignment 64.
unsafe impl Plain for Edits {}

/// A slice of `T` in memory of its own.
pub struct Table<T: Plain> {
    at: NonNull<T>,
    len: usize,
    _memory: Box<dyn Memory>,
    _owns: PhantomData<T>,
}

// SAFETY: the table owns its memory (contract of `Memory`), and `T` is plain words.
unsafe impl<T: Plain + Send> Send for Table<T> {}

impl<T: Plain> Table<T> {
    /// As many zero values as fit into `memory`, which is zeroed (contract of [`Memory`]).
    pub fn new(memory: Box<dyn Memory>) -> Self {
        let len = memory.len() / size_of::<T>();
        Self { at: memory.base().cast(), len, _memory: memory, _owns: PhantomData }
    }
}

impl<T: Plain> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values of a type for which zeroed memory is valid, aligned to 64, owned by `self`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T: Plain> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.len)
    }
}

/// Bit `i` is set where `tags[i] == tag`.
#[inline]
pub fn match_tags(tags: &[u16; 8], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        // SAFETY: SSE2 is part of the x86-64 baseline; the load reads the sixteen octets of `tags`.
        unsafe {
            let equal = _mm_cmpeq_epi16(_mm_loadu_si128(tags.as_ptr().cast::<__m128i>()), _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    match_tags_scalar(tags, tag)
}

/// The scalar twin of [`match_tags`].
#[cfg_attr(all(target_arch = "x86_64", not(test)), expect(dead_code, reason = "the twin is compared in a test"))]
fn match_tags_scalar(tags: &[u16; 8], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |mask, (i, &t)| mask | u32::from(t == tag) << i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::HeapMemory;

    #[test]
    fn the_vector_kernel_and_its_twin_agree() {
        let mut x = 1u64;
        for _ in 0..10_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let tags: [u16; 8] = std::array::from_fn(|i| ((x >> (i * 7) & 3) | (x >> 60 & 1) << 15) as u16);
            for tag in [0, 1, 2, 3, 0x8001] {
                assert_eq!(match_tags(&tags, tag), match_tags_scalar(&tags, tag), "{tags:?} {tag}");
            }
        }
    }

    #[test]
    fn a_table_is_zero_and_as_long_as_its_memory() {
        let mut table: Table<Bucket> = Table::new(Box::new(HeapMemory::new(64 * size_of::<Bucket>())));
        assert_eq!(table.len(), 64);
        assert!(table.iter().all(|bucket| bucket.tags == [0; 8]));
        table[63].tags[7] = 9;
        assert_eq!(table[63].tags[7], 9);
    }
}
