//! One daemon at a time on a machine: labs and tests that start one hold this lock.
//!
//! Two of them at once would share the CPUs and spoil each other's figures and time limits. The lock goes with the
//! process that holds it, however that ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// The lock of this machine, waiting for it at most ten minutes. `waiting` is called once if it has to wait.
    ///
    /// # Errors
    /// When the lock file cannot be made, or the wait is over.
    pub fn machine(waiting: impl FnOnce()) -> anyhow::Result<Self> {
        Self::at(&Self::path(), Duration::from_secs(600), waiting)
    }

    /// Where it is.
    pub fn path() -> PathBuf {
        std::env::temp_dir().join("vswitch-labs.lock")
    }

    fn at(path: &Path, patience: Duration, waiting: impl FnOnce()) -> anyhow::Result<Self> {
        // Another user may have made the file: reading is enough to lock it, and a system may refuse to open such a
        // file of a common directory with O_CREAT.
        let file = File::open(path)
            .or_else(|_| OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path))
            .with_context(|| format!("lock file {}", path.display()))?;
        let deadline = Instant::now() + patience;
        let mut waiting = Some(waiting);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {}
                Err(Errno::WOULDBLOCK) => bail!("{}: still held by another lab after {patience:?}", path.display()),
                Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_by_one_until_dropped() {
        let path = std::env::temp_dir().join(format!("vswitch-lock-test-{}", std::process::id()));
        let first = Lock::at(&path, Duration::ZERO, || {}).expect("free");
        let mut waited = false;
        assert!(Lock::at(&path, Duration::from_millis(1), || waited = true).is_err());
        assert!(waited);
        drop(first);
        assert!(Lock::at(&path, Duration::ZERO, || {}).is_ok());
        let _ = std::fs::remove_file(&path);
    }
}
