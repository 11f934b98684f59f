//! What plugins noted while no daemon was there: attachments that shall go (see `api::detached`).
//!
//! Read after the control socket listens and before anybody is answered, so that no plugin notes what nobody reads; done
//! before the first packet. What cannot be read is left where it is and named, once a start.

use std::fs;
use std::io;
use std::path::Path;

use api::{AttachmentId, reason};

/// Octets of a file at most; longer ones are nobody's note.
const LIMIT: u64 = 64 << 10;

/// The attachments noted in a directory, by the names of their files. There may be no such directory.
pub(crate) fn noted(directory: &Path) -> Vec<AttachmentId> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(why) => {
            if why.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{}: {}", directory.display(), reason(&why));
            }
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &Path| match read(path) {
        Ok(id) => Some(id),
        Err(why) => {
            tracing::warn!("{}: {why}: it is left there", path.display());
            None
        }
    };
    paths.iter().filter_map(|path| read(path)).collect()
}

/// Forget what is done. A note that stays is done again at the next start, which does no harm.
pub(crate) fn done(directory: &Path, id: &AttachmentId) {
    if let Err(why) = api::detached::remove(directory, id) {
        tracing::warn!("{}: {}", api::detached::path(directory, id).display(), reason(&why));
    }
}

fn read(path: &Path) -> Result<AttachmentId, String> {
    let meta = fs::metadata(path).map_err(|why| reason(&why))?;
    if !meta.is_file() || meta.len() > LIMIT {
        return Err(format!("no file of at most {LIMIT} octets"));
    }
    let bytes = fs::read(path).map_err(|why| reason(&why))?;
    serde_json::from_slice(&bytes).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str) -> AttachmentId {
        AttachmentId { network: "net".to_owned(), container: container.to_owned(), ifname: "eth0".to_owned() }
    }

    #[test]
    fn what_is_noted_is_read_until_it_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("detach");
        assert_eq!(noted(&directory), []);
        let long = "c".repeat(300);
        for container in ["b", "a", &long] {
            api::detached::write(&directory, &id(container)).unwrap();
            api::detached::write(&directory, &id(container)).unwrap();
        }
        assert_eq!(noted(&directory), [id("a"), id("b"), id(&long)]);
        for container in ["a", &long, "never"] {
            done(&directory, &id(container));
        }
        assert_eq!(noted(&directory), [id("b")]);
    }

    #[test]
    fn what_is_no_note_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        fs::create_dir(directory.join("x.json")).unwrap();
        fs::write(directory.join("half.json"), "{\"network\": \"n").unwrap();
        fs::write(directory.join("more.json"), r#"{"network":"n","container":"c","ifname":"i","colour":1}"#).unwrap();
        fs::write(directory.join("long.json"), vec![b' '; 1 << 17]).unwrap();
        fs::write(directory.join("net@a@eth0.7.tmp"), serde_json::to_vec(&id("a")).unwrap()).unwrap();
        assert_eq!(noted(directory), []);
        assert_eq!(fs::read_dir(directory).unwrap().count(), 5);
        // Nor is a file a directory.
        assert_eq!(noted(&directory.join("half.json")), []);
    }
}
