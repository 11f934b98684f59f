//! A file that is memory: mapped shared, so that what is written there stays when the process goes, at whatever instruction.
//!
//! Address space is taken for all that the file may become; nothing behind what [`Shared::grow`] was asked for is touched.
//! Growth allocates before it is used: a file system that is full refuses, and nobody is killed by SIGBUS later.

use std::fs::File;
use std::io;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A file, mapped.
#[derive(Debug)]
pub struct Shared {
    file: File,
    base: NonNull<u8>,
    /// Octets that are mapped, there or not.
    room: usize,
}

// SAFETY: the mapping is plain memory that belongs to this value; nothing about it is tied to a thread.
unsafe impl Send for Shared {}
// SAFETY: shared references give out addresses and grow the file, which the kernel does for one after the other.
unsafe impl Sync for Shared {}

impl Shared {
    /// Map a file with room to grow to so many octets.
    ///
    /// # Errors
    /// When the system does not map it.
    pub fn map(file: File, room: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap(std::ptr::null_mut(), room, protection, MapFlags::SHARED, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, base, room })
    }

    /// See to it that these octets of the file are there: as they were, else zero.
    ///
    /// # Errors
    /// When the file system is full, or they are beyond the room.
    pub fn grow(&self, from: usize, octets: usize) -> io::Result<NonNull<u8>> {
        let end = from.checked_add(octets).filter(|end| *end <= self.room);
        end.ok_or(io::ErrorKind::InvalidInput)?;
        rustix::io::retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), from as u64, octets as u64))?;
        // SAFETY: within the mapping.
        Ok(unsafe { self.base.add(from) })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, unmapped only here; whoever was given an address outlives it on their own promise.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.room) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: NonNull<u8>, octet: u8) {
        // SAFETY: the caller's octet of a mapping that is there.
        unsafe { at.write_volatile(octet) }
    }

    #[test]
    fn what_is_written_is_in_the_file_and_growth_keeps_it() {
        let file = tempfile::tempfile().unwrap();
        let shared = Shared::map(file.try_clone().unwrap(), 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        write(shared.grow(0, 4096).unwrap(), 7);
        shared.grow(4096, 4096).unwrap();
        write(shared.grow(0, 8192).unwrap(), 8);
        drop(shared);
        let mut octets = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut octets, 0).unwrap();
        assert_eq!((octets, file.metadata().unwrap().len()), ([8, 0], 8192));
        let again = Shared::map(file, 1 << 20).unwrap();
        // SAFETY: the octet is there.
        assert_eq!(unsafe { again.grow(0, 8192).unwrap().read_volatile() }, 8);
    }

    #[test]
    fn growth_beyond_the_room_or_the_disk_is_refused() {
        let shared = Shared::map(tempfile::tempfile().unwrap(), 8192).unwrap();
        assert!(shared.grow(4096, 8192).is_err() && shared.grow(usize::MAX, 2).is_err());
        let limited = Shared::map(tempfile::tempfile().unwrap(), 1 << 50);
        // Whether the address space is given or not, the octets are not.
        assert!(limited.is_err() || limited.is_ok_and(|shared| shared.grow(0, 1 << 49).is_err()));
    }
}
