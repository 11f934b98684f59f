//! Anonymous memory in as large pages as the system gives.
//!
//! Large pages are a matter of speed, never a requirement: reserved huge pages first (`/proc/sys/vm/nr_hugepages`),
//! else transparent ones on request, else ordinary ones.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Octets of a huge page on x86-64, and a multiple of the smaller ones elsewhere.
const HUGE: usize = 2 << 20;

/// What kind of pages a mapping has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages.
    Huge,
    /// Transparent huge pages, as far as the kernel finds them.
    Transparent,
    /// Ordinary pages.
    Ordinary,
}

/// Zeroed memory of this process alone. Unmapped when the value goes.
#[derive(Debug)]
pub struct Mapping {
    /// What was mapped: `mapped` octets at `start`.
    start: NonNull<u8>,
    mapped: usize,
    /// What is used of it: `len` octets at `base`, which is aligned to a huge page.
    base: NonNull<u8>,
    len: usize,
    pages: Pages,
}

// SAFETY: the mapping is plain memory that belongs to this value alone; nothing about it is tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: shared references give out addresses and lengths only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` zeroed octets, aligned to 2 MiB.
    ///
    /// # Errors
    /// When `len` is zero or there is not that much memory.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let whole = len.checked_next_multiple_of(HUGE).filter(|&whole| whole > 0);
        let whole = whole.ok_or(io::ErrorKind::InvalidInput)?;
        if let Ok(start) = map(whole, MapFlags::HUGETLB) {
            return Ok(Self { start, mapped: whole, base: start, len, pages: Pages::Huge });
        }
        let mapped = whole.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = map(mapped, MapFlags::empty())?;
        let skip = start.as_ptr().align_offset(HUGE);
        // SAFETY: `skip < HUGE`, so that `base` and `whole` octets behind it are inside the mapping.
        let base = unsafe { start.add(skip) };
        // SAFETY: the range is ours, and the advice changes no content.
        let advised = unsafe { madvise(base.as_ptr().cast(), whole, Advice::LinuxHugepage) };
        let pages = if advised.is_ok() { Pages::Transparent } else { Pages::Ordinary };
        Ok(Self { start, mapped, base, len, pages })
    }

    /// First octet.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Octets.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least one octet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the system gave.
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

fn map(len: usize, extra: MapFlags) -> io::Result<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | extra;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags)? };
    NonNull::new(at.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `anonymous`, unmapped only here; whoever was given `base` outlives it on their own promise.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_writable_to_its_end() {
        let mapping = Mapping::anonymous(3 * HUGE + 17).unwrap();
        assert_eq!(mapping.base().as_ptr().align_offset(HUGE), 0);
        // SAFETY: `len` octets at `base` belong to the mapping, which is not used otherwise here.
        let bytes = unsafe { std::slice::from_raw_parts_mut(mapping.base().as_ptr(), mapping.len()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(1);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(Mapping::anonymous(0).is_err());
        assert!(Mapping::anonymous(usize::MAX).is_err());
        assert!(Mapping::anonymous(usize::MAX / 2).is_err());
    }
}
