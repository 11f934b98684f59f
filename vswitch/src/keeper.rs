//! The parent process: holds descriptors, starts the data plane again.

use std::os::fd::{BorrowedFd, OwnedFd};

/// The data plane's end of the line to its keeper.
#[derive(Debug)]
pub struct Keeper {}

impl Keeper {
    /// No keeper: nothing is held, nothing comes back. For tests and switches inside other programs.
    pub fn none() -> Self {
        Self {}
    }

    /// Let the keeper hold a duplicate of `fd` under `name` (at most 64 octets), until [`Self::release`]. Returns when
    /// the keeper has it.
    ///
    /// # Errors
    /// When the keeper is gone or its table is full.
    pub fn hold(&self, _name: &str, _fd: BorrowedFd<'_>) -> std::io::Result<()> {
        Ok(())
    }

    /// The keeper closes its duplicate.
    pub fn release(&self, _name: &str) {}

    /// What an earlier data plane left under `name`. Given out once.
    pub fn inherit(&self, _name: &str) -> Option<OwnedFd> {
        None
    }
}
