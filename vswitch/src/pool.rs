//! The switch's memory for frames and tables: mappings in as large pages as the system has.
//!
//! What is inside (slots, spills, free lists) is `pipeline::raw`; this file only says where the octets come from.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

use pipeline::raw::{Memory, Pool};

use crate::sys::mmap::Mapping;

struct Frames(Mapping);

// SAFETY: a mapping is zeroed, readable and writable, aligned to 2 MiB, unmapped only when the value goes, and nobody
// else is given its address.
unsafe impl Memory for Frames {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Memory for `slots` frames (rounded up to whole chunks) and `spills` tails of super-frames.
///
/// # Errors
/// When there is not that much memory.
pub fn frame_pool(slots: usize, spills: usize) -> io::Result<Pool> {
    let mapping = Mapping::anonymous(Pool::octets(slots, spills))?;
    tracing::debug!(slots, spills, octets = mapping.len(), pages = ?mapping.pages(), "frame memory");
    Ok(Pool::new(Frames(mapping), spills))
}

/// Memory for a table: zeroed, in as large pages as the system has.
///
/// # Errors
/// When there is not that much memory.
pub fn memory(octets: usize) -> io::Result<Box<dyn Memory>> {
    Ok(Box::new(Frames(Mapping::anonymous(octets)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_and_takes_back_all_of_its_frames() {
        let pool = frame_pool(1000, 3).unwrap();
        assert_eq!(pool.slots(), 1024);
        let mut stash = pool.stash();
        let frames: Vec<_> = std::iter::from_fn(|| stash.take()).collect();
        assert_eq!(frames.len(), 1024);
        let spills: Vec<_> = std::iter::from_fn(|| stash.take_spill()).collect();
        assert_eq!(spills.len(), 3);
        for mut spill in spills {
            spill.bytes_mut().fill(1);
            stash.give_spill(spill);
        }
        for mut frame in frames {
            frame.slot_mut().fill(1);
            stash.give(frame);
        }
        assert_eq!(stash.available(), 1024);
    }
}
