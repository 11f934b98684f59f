//! Where records live: memory of the process, or memory that outlives it.
//!
//! Records are asked for in chunks, each at a fixed place of one flat array. What an earlier process left there is
//! believed as far as it can be (`rebuild`); who provides the memory sees to it that it is of this boot and of this layout.

use std::fmt::Debug;

use crate::raw::{HeapMemory, Memory};

/// Records of a chunk.
pub(super) const CHUNK: u32 = 4096;
/// Octets of a record.
pub(super) const RECORD: usize = 128;

/// How records are laid out in memory. Two builds with the same value understand each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Counts changes of what the words of a record mean.
    pub version: u32,
    /// Octets of a record.
    pub record: u32,
    /// Octets of a chunk, which is aligned to a record.
    pub chunk: u32,
    /// Chunks at most.
    pub chunks: u32,
}

/// How this build lays records out.
pub const LAYOUT: Layout = Layout {
    version: 1,
    record: RECORD as u32,
    chunk: CHUNK * RECORD as u32,
    chunks: super::record::MOST_RECORDS / CHUNK,
};

/// Gives memory for records.
pub trait Provider: Send + Sync + Debug {
    /// Chunks from the first one on that an earlier process left.
    fn left(&self) -> u32;

    /// The memory of a chunk: as it was left, or else zeroed; always the same for the same number. `None` if there is no more.
    fn chunk(&self, number: u32) -> Option<Box<dyn Memory>>;
}

/// Memory of this process, which goes with it.
#[derive(Debug)]
pub(super) struct Private;

impl Provider for Private {
    fn left(&self) -> u32 {
        0
    }

    fn chunk(&self, _number: u32) -> Option<Box<dyn Memory>> {
        Some(Box::new(HeapMemory::new(LAYOUT.chunk as usize)))
    }
}

/// Memory that tables of one process follow each other in, as those of processes do.
#[cfg(test)]
pub(super) mod inheritance {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::raw::Inherited;

    /// So many chunks and no more, `None` for any number; those that were given.
    #[derive(Clone, Debug, Default)]
    pub(in super::super) struct Inheritance {
        pub(in super::super) limit: Option<usize>,
        pub(in super::super) chunks: Arc<Mutex<Vec<Inherited>>>,
    }

    impl Provider for Inheritance {
        fn left(&self) -> u32 {
            self.chunks.lock().len() as u32
        }

        fn chunk(&self, number: u32) -> Option<Box<dyn Memory>> {
            let mut chunks = self.chunks.lock();
            while chunks.len() <= number as usize {
                if Some(chunks.len()) == self.limit {
                    return None;
                }
                chunks.push(Inherited(Arc::new(HeapMemory::new(LAYOUT.chunk as usize))));
            }
            Some(Box::new(chunks.get(number as usize)?.clone()))
        }
    }
}
