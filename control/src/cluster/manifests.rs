//! The directory of manifests: `*.yaml`, `*.yml` and `*.json`, watched.
//!
//! A file says which objects there are. When it changes, so do they; when it goes, they go. An object that is refused
//! stays as the file said it last when it was good; when a document cannot be read at all, nobody knows which object it
//! was, and none of the file's objects goes. The log names file, object and field, once for each reason.
//!
//! A file that somebody writes is read when he closes it, never before: YAML that is cut at the end of a line is often an
//! object still, and another one. The system tells of that (inotify). Since it may lose some, and does not follow links,
//! everything is looked at every few seconds too, by time and size, which is cheap; what changed without a word of the
//! system is read when it has been left alone for a second.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use api::reason;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::model::Text;
use super::objects::{Decoded, Key, Source, Store, TEXT_LIMIT, decode, documents, original};
use crate::Refusal;

/// How long to wait for more after a first change.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often everything is looked at, told or not.
const RESCAN: Duration = Duration::from_secs(3);
/// How long a file that nobody was seen to close must have been left alone to be read: somebody may be writing it.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// A directory of manifests.
#[derive(Debug)]
pub(crate) struct Manifests {
    directory: PathBuf,
    inotify: Inotify,
    watched: Option<WatchDescriptor>,
    files: BTreeMap<Text, ManifestFile>,
    /// Files that were written to and not closed since: nobody knows what they will say.
    written: BTreeSet<String>,
    /// Files that were closed by who wrote them, or moved here whole, and not read since.
    whole: BTreeSet<String>,
    /// When to look next.
    next: Instant,
    /// Why the directory cannot be read, when it was last said.
    unreadable: Option<String>,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct ManifestFile {
    stamp: Option<Stamp>,
    /// Objects that it has said.
    keys: BTreeSet<Key>,
    /// What was last said to be wrong with it.
    faults: BTreeSet<String>,
}

/// By what a change is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl Manifests {
    /// Watch a directory.
    ///
    /// # Errors
    /// When it cannot be read: names it.
    pub(crate) fn open(directory: &Path) -> Result<Self, Refusal> {
        let refusal = |e: std::io::Error| Refusal(format!("--cluster {}: {}", directory.display(), reason(&e)));
        fs::read_dir(directory).map_err(refusal)?;
        let inotify = Inotify::init().map_err(refusal)?;
        let manifests = Self {
            directory: directory.to_owned(),
            inotify,
            watched: None,
            files: BTreeMap::new(),
            written: BTreeSet::new(),
            whole: BTreeSet::new(),
            next: Instant::now(),
            unreadable: None,
        };
        Ok(manifests)
    }

    /// Watch the directory; again, when it was replaced. To watch the same one twice does nothing.
    fn watch(&mut self) {
        let writing = WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        let mask = writing | WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::ATTRIB;
        let watched = self.inotify.watches().add(&self.directory, mask).map_err(|e| {
            tracing::debug!("{}: cannot be watched: {}", self.directory.display(), reason(&e));
        });
        let watched = watched.ok();
        if self.watched != watched {
            (self.written, self.whole) = Default::default();
            if let Some(old) = std::mem::replace(&mut self.watched, watched) {
                // It is gone already if the directory is.
                let _ = self.inotify.watches().remove(old);
            }
        }
    }

    /// The descriptor that is readable when something changed.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    /// Something changed: look soon. That a file is being written to is no reason to look.
    pub(crate) fn notice(&mut self) {
        if self.hear() {
            self.next = self.next.min(Instant::now() + DEBOUNCE);
        }
    }

    /// Hear what the system has to tell. Returns whether it is a reason to look.
    fn hear(&mut self) -> bool {
        let Self { inotify, watched, written, whole, .. } = self;
        let mut buffer = [0; 4096];
        let mut look = false;
        while let Ok(events) = inotify.read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                look |= event.mask != EventMask::MODIFY;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    // It lost some: who is still writing is not known.
                    (*written, *whole) = Default::default();
                }
                let Some(name) = event.name.and_then(|name| name.to_str()).filter(|name| is_manifest(name)) else {
                    continue;
                };
                if watched.as_ref() != Some(&event.wd) {
                    continue;
                }
                if event.mask.contains(EventMask::MODIFY) {
                    whole.remove(name);
                    if !written.contains(name) {
                        written.insert(name.to_owned());
                    }
                } else if event.mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
                    written.remove(name);
                    whole.insert(name.to_owned());
                } else if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
                    written.remove(name);
                    whole.remove(name);
                }
            }
            if !any {
                break;
            }
        }
        look
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Look at the directory, and read what changed in it.
    pub(super) fn read(&mut self, store: &mut Store) {
        // Who writes while the daemon starts is seen when he goes on.
        let is_first = self.watched.is_none();
        self.next = Instant::now() + RESCAN;
        self.watch();
        self.hear();
        let found = match self.list() {
            Ok(found) => found,
            Err(why) => {
                if self.unreadable.as_ref() != Some(&why) {
                    tracing::warn!("--cluster {}: {why}; what it said stays", self.directory.display());
                    self.unreadable = Some(why);
                }
                return;
            }
        };
        self.unreadable = None;
        let gone: Vec<_> = self.files.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            let source = Source::File(name.clone());
            for key in self.files.remove(&name).unwrap_or_default().keys {
                store.remove(&key, &source);
            }
        }
        // What goes makes room for what comes, in whatever order the files stand: so those that had faults come last.
        let (again, first): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(name, _)| self.files.get(name).is_some_and(|file| !file.faults.is_empty()));
        for (name, stamp) in first.into_iter().chain(again) {
            let file = self.files.entry(name.clone()).or_default();
            if file.stamp == Some(stamp) && file.faults.is_empty() {
                continue;
            }
            let path = self.directory.join(&*name);
            let known = file.stamp == Some(stamp);
            if self.written.contains(&*name) {
                continue;
            }
            let is_whole = self.whole.remove(&*name);
            match text_of(&path, stamp, is_first || is_whole || known) {
                Ok(Some(text)) => {
                    file.stamp = Some(stamp);
                    file.take(&path, &name, &text, store);
                }
                Ok(None) => {
                    if is_whole {
                        self.whole.insert(name.to_string());
                    }
                    self.next = self.next.min(Instant::now() + LEFT_ALONE);
                }
                Err(why) => file.say(&path, BTreeSet::from([why])),
            }
        }
    }

    /// Manifests in the directory.
    fn list(&self) -> Result<BTreeMap<Text, Stamp>, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(|e| reason(&e))? {
            let entry = entry.map_err(|e| reason(&e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_manifest(name)) else { continue };
            // Not that of the entry: links are followed. One that is gone by now is not there.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_file() {
                found.insert(name.into(), Stamp::of(&metadata));
            }
        }
        Ok(found)
    }
}

impl ManifestFile {
    /// Bring what the file says into the store.
    fn take(&mut self, path: &Path, name: &Text, text: &str, store: &mut Store) {
        let source = Source::File(name.clone());
        let (mut said, mut faults, mut all_known) = (BTreeSet::new(), BTreeSet::new(), true);
        let mut taken = Vec::new();
        for document in documents(text) {
            let decoded = document.map(|json| (decode(&json, "default", &mut store.texts), json));
            match decoded {
                Err(why) | Ok((Decoded::Nothing(why), _)) => {
                    all_known = false;
                    faults.insert(why);
                }
                Ok((Decoded::Unknown { label, kind }, _)) => {
                    tracing::debug!("{}: {label}: {kind} is nothing to a switch", path.display());
                }
                Ok((Decoded::Known { label, key, namespace, object }, json)) => {
                    all_known &= key.is_some();
                    if key.is_some_and(|key| !said.insert(key)) {
                        faults.insert(format!("{label}: stands there twice: the first counts"));
                        continue;
                    }
                    match object {
                        Ok(object) => taken.push((label, object, original(&json, namespace.as_deref()))),
                        Err(why) => drop(faults.insert(format!("{label}: {why}"))),
                    }
                }
            }
        }
        if all_known {
            // First, so that its addresses are free.
            for key in self.keys.difference(&said) {
                store.remove(key, &source);
            }
            self.keys.retain(|key| said.contains(key));
        }
        for (label, object, text) in taken {
            match store.check(&object, &source) {
                Ok(()) => {
                    self.keys.insert(object.key());
                    store.put(object, text, &source);
                }
                Err(why) => drop(faults.insert(format!("{label}: {why}"))),
            }
        }
        self.say(path, faults);
    }

    /// Log what is wrong, unless it was said before.
    fn say(&mut self, path: &Path, faults: BTreeSet<String>) {
        for fault in faults.difference(&self.faults) {
            let kept = if self.keys.is_empty() { "" } else { "; what it said before stays" };
            tracing::warn!("{}: {fault}{kept}", path.display());
        }
        self.faults = faults;
    }
}

fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The text of a file; `None` while it may be half written: it changes as it is read, or changed a moment ago and nobody
/// was seen to close it (`is_whole` says that somebody was).
fn text_of(path: &Path, stamp: Stamp, is_whole: bool) -> Result<Option<String>, String> {
    if stamp.size > TEXT_LIMIT as u64 {
        return Err(format!("{} octets: may have {TEXT_LIMIT}", stamp.size));
    }
    let text = fs::read_to_string(path).map_err(|e| reason(&e))?;
    let metadata = fs::metadata(path).map_err(|e| reason(&e))?;
    let modified = metadata.modified().map_err(|e| reason(&e))?;
    let is_young = SystemTime::now().duration_since(modified).is_ok_and(|age| age < LEFT_ALONE);
    let is_still = Stamp::of(&metadata) == stamp;
    Ok((is_still && (is_whole || !is_young)).then_some(text))
}
