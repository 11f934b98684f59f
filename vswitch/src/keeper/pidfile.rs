//! A file that says which process is the daemon, and is locked by it (as the clients of Open vSwitch expect).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

/// The file, locked as long as the value lives; removed when it goes.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Write this process's number to `path`, and lock it against all others.
    ///
    /// # Errors
    /// When another process has it, which is named; when it cannot be written.
    pub fn claim(path: &Path) -> io::Result<Self> {
        loop {
            let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(about)?;
            if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let text = format!("{}: held by {}", path.display(), holder(&file));
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            // Who removed the file while we waited for nobody may have let another one make it anew.
            let (ours, there) = (file.metadata()?, std::fs::metadata(path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0).map_err(about)?;
                writeln!(file, "{}", std::process::id()).map_err(about)?;
                return Ok(Self { path: path.into(), _locked: file });
            }
        }
    }
}

/// The process that has the lock, for people.
fn holder(file: &File) -> String {
    let whole = Flock { start: 0, length: 0, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    match fcntl_getlk(file, &whole) {
        Ok(Some(Flock { pid: Some(pid), .. })) => format!("process {pid}"),
        // It ended meanwhile, or lives in another PID namespace.
        _ => "another process".into(),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Before the lock goes, so that it is not the file of the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_taken_over_and_removed_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vswitchd.pid");
        std::fs::write(&path, "4194303\nleft over\n").unwrap();
        let file = PidFile::claim(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let error = PidFile::claim(Path::new("/not/there/vswitchd.pid")).unwrap_err();
        assert!(error.to_string().starts_with("/not/there/vswitchd.pid: "), "{error}");
    }
}
