//! What shall be detached and no daemon was there to hear it: a directory with a file for each attachment.
//!
//! The plugin writes, the daemon reads when it starts, and removes what it has done. A file holds an [`AttachmentId`] as
//! JSON. It is written under another name, brought to the disk, and renamed: a name that ends in `.json` is a whole file.
//!
//! Nothing is lost between the two when the daemon listens before it reads: a plugin that found nobody writes, and asks
//! once more. Either somebody answers then, or who will listen has not read yet.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::AttachmentId;

/// Where it is, beside a daemon whose state is in its usual place.
pub const DIRECTORY: &str = "/var/lib/vswitch/detach";

/// Octets of a name that is what it says; the longest that Linux has are 255.
const NAME_LIMIT: usize = 200;

/// The file of an attachment. Neither networks nor containers have an `@` in their names.
pub fn path(directory: &Path, id: &AttachmentId) -> PathBuf {
    let mut name = format!("{}@{}@{}", id.network, id.container, id.ifname).replace('/', "_");
    if name.len() > NAME_LIMIT {
        // FNV-1a of all of it tells those apart that begin alike.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let end = (0..=NAME_LIMIT).rev().find(|&end| name.is_char_boundary(end)).unwrap_or_default();
        name.truncate(end);
        name.push_str(&format!("@{hash:016x}"));
    }
    directory.join(format!("{name}.json"))
}

/// Note that an attachment shall go; returns its file.
///
/// # Errors
/// When it could not be written.
pub fn write(directory: &Path, id: &AttachmentId) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let path = path(directory, id);
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(id)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| path)
}

/// Forget that an attachment shall go. It is no fault if nobody noted it.
///
/// # Errors
/// When it could not be removed.
pub fn remove(directory: &Path, id: &AttachmentId) -> io::Result<()> {
    match fs::remove_file(path(directory, id)) {
        Err(why) if !matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(why),
        _ => Ok(()),
    }
}
