//! Tables of atomic words over memory that outlives whoever uses it: what is there at first is what an earlier one left.

use std::ops::Deref;
use std::ptr::NonNull;

use super::Memory;

/// Types that any octets are a value of, and that are written through shared references only.
///
/// # Safety
/// Made of atomic integers and arrays of them only, `repr(C)`, without padding and without a destructor.
pub unsafe trait Atoms: Send + Sync {}

/// A slice of `T` in memory that may hold anything. Unlike [`super::Table`] it need not be zeroed, and others may have
/// the same memory as a `Kept`: all that is ever done to it is atomic.
pub struct Kept<T: Atoms> {
    at: NonNull<T>,
    len: usize,
    _memory: Box<dyn Memory>,
}

// SAFETY: the memory is owned (contract of `Memory`), and `T` may be shared (contract of `Atoms`).
unsafe impl<T: Atoms> Send for Kept<T> {}
// SAFETY: as above.
unsafe impl<T: Atoms> Sync for Kept<T> {}

impl<T: Atoms> Kept<T> {
    /// As many values as fit into `memory`; `None` if it is not aligned for them.
    pub fn new(memory: Box<dyn Memory>) -> Option<Self> {
        let at: NonNull<T> = memory.base().cast();
        let len = memory.len() / size_of::<T>();
        at.is_aligned().then_some(Self { at, len, _memory: memory })
    }
}

impl<T: Atoms> Deref for Kept<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values fit into the memory, which is aligned for them; any octets are a value of `T`, and whoever
        // writes does it by way of atomics.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Atoms> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.len)
    }
}

// SAFETY: see [`Record`]: atomic integers and arrays of them, 128 octets without a gap.
unsafe impl Atoms for crate::live::connections::Record {}
// SAFETY: an atomic integer.
unsafe impl Atoms for std::sync::atomic::AtomicU64 {}

/// Memory that several have, one after the other: as that of processes that follow one another.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Inherited(pub(crate) std::sync::Arc<super::HeapMemory>);

// SAFETY: the memory stays as long as one of them does; only [`Kept`] is ever made of it, which knows of others.
#[cfg(test)]
unsafe impl Memory for Inherited {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::raw::HeapMemory;

    struct Crooked(HeapMemory);

    // SAFETY: all but the first octet of memory that is owned.
    unsafe impl Memory for Crooked {
        fn base(&self) -> NonNull<u8> {
            // SAFETY: it has more than one octet.
            unsafe { self.0.base().add(1) }
        }
        fn len(&self) -> usize {
            self.0.len() - 1
        }
    }

    #[test]
    fn as_many_values_as_fit_are_kept_and_none_where_they_would_lie_crooked() {
        let kept: Kept<AtomicU64> = Kept::new(Box::new(HeapMemory::new(100))).unwrap();
        assert_eq!(kept.len(), 12);
        kept[11].store(7, Ordering::Relaxed);
        assert_eq!(kept[11].load(Ordering::Relaxed), 7);
        assert!(Kept::<AtomicU64>::new(Box::new(Crooked(HeapMemory::new(128)))).is_none());
    }
}
