//! The file that connections live in.
//!
//! ```text
//!   0          header: who wrote it, layout, boot
//!   4096       chunk 0: records, 512 KiB
//!   4096 + n × 512 KiB     chunk n, allocated before it is used
//! ```
//!
//! The keeper has its descriptor, too, so that it is found even if somebody empties the run-dir. One process at a time has
//! it: a lock of the data plane, which the kernel takes off when the last of its threads is gone.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pipeline::live::connections::{LAYOUT, Layout, Provider};
use pipeline::raw::Memory;
use rustix::fs::{FlockOperation, fcntl_lock};

use super::{about, boot};
use crate::keeper::Keeper;
use crate::sys::shared::Shared;

/// The file's name in the run-dir.
const NAME: &str = "connections";
/// What the keeper knows it by.
const KEY: &str = "memory:connections";
/// What it begins with.
const MAGIC: [u8; 8] = *b"vswconn\n";
/// Octets before the first chunk.
const HEADER: usize = 4096;
/// How long a process that is dying may have the file still.
const PATIENCE: Duration = Duration::from_secs(5);
/// A file system that was full is asked again after this time.
const PAUSE: Duration = Duration::from_secs(1);

/// The records of connections in a file.
#[derive(Debug)]
pub(crate) struct Connections {
    path: PathBuf,
    shared: Arc<Shared>,
    left: u32,
    /// When the file system was full.
    full: Mutex<Option<Instant>>,
}

/// One chunk of the file.
struct Chunk {
    base: NonNull<u8>,
    _shared: Arc<Shared>,
}

// SAFETY: plain memory of a mapping that the value keeps.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

// SAFETY: the octets are within the mapping and allocated; they are aligned to a page, and given only to be used as records,
// which are atomic.
unsafe impl Memory for Chunk {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        LAYOUT.chunk as usize
    }
}

/// Why a file is of no use.
#[derive(Debug, PartialEq, Eq)]
enum Useless {
    /// It is none of ours.
    Foreign,
    /// Another version of the program wrote it, and means something else by it.
    Layout,
    /// The machine was started anew since.
    Boot,
}

impl Useless {
    fn sentence(&self) -> &'static str {
        match self {
            Self::Foreign => "it is no table of connections, or damaged",
            Self::Layout => "it has another layout",
            Self::Boot => "it is of another boot",
        }
    }
}

impl Connections {
    /// The file of a run-dir: as it was left, if it can be used, else a new one. The keeper holds it from now on.
    ///
    /// # Errors
    /// When it cannot be made or mapped, or another process has it and does not go.
    pub(crate) fn open(run_dir: &Path, keeper: &Keeper) -> io::Result<Self> {
        let path = run_dir.join(NAME);
        let boot = boot()?;
        let (file, left) = match Self::inherit(&path, &boot, keeper)? {
            Some(found) => found,
            None => (make(&path, &boot).map_err(|error| about(&path, &error))?, 0),
        };
        let room = HEADER + LAYOUT.chunks as usize * LAYOUT.chunk as usize;
        let shared = Shared::map(file, room).map_err(|error| about(&path, &error))?;
        keeper.hold(KEY, shared.file().as_fd())?;
        Ok(Self { path, shared: Arc::new(shared), left, full: Mutex::default() })
    }

    /// What an earlier process left, with the number of its chunks.
    fn inherit(path: &Path, boot: &[u8; 16], keeper: &Keeper) -> io::Result<Option<(File, u32)>> {
        let found = match keeper.inherit(KEY) {
            Some(fd) => Some(File::from(fd)),
            None => match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(about(path, &error)),
            },
        };
        let Some(file) = found else { return Ok(None) };
        claim(&file).map_err(|error| about(path, &error))?;
        match judge(&file, boot).map_err(|error| about(path, &error))? {
            Ok(chunks) => Ok(Some((file, chunks))),
            Err(useless) => {
                tracing::warn!("{}: {}; started anew: connections begin again", path.display(), useless.sentence());
                Ok(None)
            }
        }
    }
}

impl Provider for Connections {
    fn left(&self) -> u32 {
        self.left
    }

    fn chunk(&self, number: u32) -> Option<Box<dyn Memory>> {
        let mut full = self.full.lock();
        if full.is_some_and(|since| since.elapsed() < PAUSE) {
            return None;
        }
        let octets = LAYOUT.chunk as usize;
        match self.shared.grow(HEADER + number as usize * octets, octets) {
            Ok(base) => Some(Box::new(Chunk { base, _shared: Arc::clone(&self.shared) })),
            Err(error) => {
                if full.is_none() {
                    tracing::warn!("{}: {error}: no more connections for now", self.path.display());
                }
                *full = Some(Instant::now());
                None
            }
        }
    }
}

/// A header: magic, layout, boot.
fn header(layout: Layout, boot: &[u8; 16]) -> Vec<u8> {
    let numbers = [layout.version, layout.record, layout.chunk].map(u32::to_le_bytes);
    [&MAGIC[..], &numbers.concat(), boot].concat()
}

/// Whether a file is ours, of this boot and layout; how many chunks it has. A chunk that is not whole was about to be
/// allocated when its process died.
fn judge(file: &File, boot: &[u8; 16]) -> io::Result<Result<u32, Useless>> {
    let octets = file.metadata()?.len();
    let expected = header(LAYOUT, boot);
    let mut found = vec![0; expected.len()];
    if octets < HEADER as u64 || file.read_exact_at(&mut found, 0).is_err() || !found.starts_with(&MAGIC) {
        return Ok(Err(Useless::Foreign));
    }
    let of_boot = expected.len() - boot.len();
    if found.get(..of_boot) != expected.get(..of_boot) {
        return Ok(Err(Useless::Layout));
    }
    if found != expected {
        return Ok(Err(Useless::Boot));
    }
    let chunks = (octets - HEADER as u64) / u64::from(LAYOUT.chunk);
    Ok(u32::try_from(chunks).ok().filter(|chunks| *chunks <= LAYOUT.chunks).ok_or(Useless::Foreign))
}

/// A new file in the place of what is there. Whoever has the old one still is not disturbed.
fn make(path: &Path, boot: &[u8; 16]) -> io::Result<File> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    let mut octets = header(LAYOUT, boot);
    octets.resize(HEADER, 0);
    file.write_all_at(&octets, 0)?;
    claim(&file)?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

/// Lock a file for this process; a process that is dying has it for a moment still.
fn claim(file: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(_) if start.elapsed() > PATIENCE => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process has it"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path) -> Connections {
        Connections::open(dir, &Keeper::none()).unwrap()
    }

    fn first_octet(chunk: &dyn Memory) -> *mut u8 {
        chunk.base().as_ptr()
    }

    #[test]
    fn what_was_written_into_a_chunk_is_there_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        assert_eq!(first.left(), 0);
        let chunk = first.chunk(0).unwrap();
        // SAFETY: the chunk is there, and nobody else has it.
        unsafe { first_octet(&*chunk).write_volatile(7) };
        assert!(first.chunk(1).is_some());
        let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop((first, chunk));
        let second = open(dir.path());
        assert_eq!(second.left(), 2);
        // SAFETY: as above.
        assert_eq!(unsafe { first_octet(&*second.chunk(0).unwrap()).read_volatile() }, 7);
    }

    #[test]
    fn a_file_of_another_boot_layout_or_kind_is_started_anew() {
        for spoil in [
            |file: &File| file.write_all_at(b"x", 3).unwrap(),
            |file: &File| file.write_all_at(&99u32.to_le_bytes(), 8).unwrap(),
            |file: &File| file.write_all_at(b"another boot", 20).unwrap(),
            |file: &File| file.set_len(100).unwrap(),
            |file: &File| file.set_len(0).unwrap(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(NAME);
            let before = open(dir.path());
            before.chunk(0).unwrap();
            drop(before);
            spoil(&OpenOptions::new().write(true).open(&path).unwrap());
            assert_eq!(open(dir.path()).left(), 0);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), HEADER as u64);
        }
    }

    #[test]
    fn why_a_file_is_useless_is_told_apart() {
        let (file, boot) = (tempfile::tempfile().unwrap(), [1; 16]);
        let judged = |octets: &[u8], len: u64| {
            file.set_len(0).unwrap();
            file.write_all_at(octets, 0).unwrap();
            file.set_len(len).unwrap();
            judge(&file, &boot).unwrap()
        };
        let (page, chunk) = (HEADER as u64, u64::from(LAYOUT.chunk));
        assert_eq!(judged(&header(LAYOUT, &boot), page + 2 * chunk), Ok(2));
        assert_eq!(judged(&header(LAYOUT, &boot), page + 2 * chunk + 5), Ok(2), "a chunk was about to be made");
        assert_eq!(judged(&header(LAYOUT, &boot), page - 1), Err(Useless::Foreign));
        assert_eq!(judged(&header(LAYOUT, &[2; 16]), page), Err(Useless::Boot));
        let other = Layout { version: LAYOUT.version + 1, ..LAYOUT };
        assert_eq!(judged(&header(other, &boot), page), Err(Useless::Layout));
        let too_long = page + chunk * (u64::from(LAYOUT.chunks) + 1);
        assert_eq!(judged(&header(LAYOUT, &boot), too_long), Err(Useless::Foreign));
    }

    #[test]
    fn a_run_dir_that_is_not_there_is_named() {
        let error = Connections::open(Path::new("/not/there"), &Keeper::none()).unwrap_err();
        assert!(error.to_string().starts_with("/not/there/connections: "), "{error}");
    }
}
