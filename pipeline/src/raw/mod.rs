//! The crate's only `unsafe`: frame memory, and the vector kernels of the parser and the cache.
//!
//! Everything here has a safe interface. What the kernels do has a scalar twin beside it, and a test that both agree.

#![allow(unsafe_code)]

mod frame;
mod kept;
mod plain;
#[cfg(target_arch = "x86_64")]
pub(crate) mod simd_parse;

pub use frame::{Frame, HEADROOM, HeapMemory, Memory, Pool, SLOT, SPILL, Spill, Stash, WINDOW};
#[cfg(test)]
pub(crate) use kept::Inherited;
pub use kept::{Atoms, Kept};
pub use plain::{Plain, Table, match_tags};

/// Ask the cache for the line at `at`. Any address will do: a prefetch never faults.
#[inline]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is part of the x86-64 baseline and ignores addresses that cannot be read.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The time-stamp counter: ticks since an arbitrary start, cheap enough to read a few times a burst. Nanoseconds on
/// machines without one.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is part of the x86-64 baseline and has no operands.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
    }
}
