//! What was applied, on the disk: `objects.jsonl` in the state directory.
//!
//! A line an event, `{"put":OBJECT}` or `{"delete":[KIND,NAMESPACE,NAME]}`, appended and brought to the disk before the
//! answer. One file, and not one an object: 20,000 objects that are applied at once are one write and one sync. When most
//! lines are history, a new file with what is in force is written beside the old one and renamed over it.
//!
//! A last line without its end was never answered: it is cut off. Anything else that cannot be understood is left alone,
//! and the daemon does not start, as with `state.json`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use api::reason;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Refusal;

/// The first line. A daemon refuses to start from a layout that it does not know.
const VERSION: &str = "{\"version\":1}\n";
/// Octets of history that nobody minds.
const HISTORY: u64 = 4 << 20;

/// An event of the past.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Put(&'a str),
    /// Kind, namespace, name.
    Delete(String, String, String),
}

/// The file, open at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    /// Octets that are in force.
    len: u64,
    /// Octets behind them, not yet answered.
    pending: u64,
    /// Stands for a disk that is full.
    #[cfg(test)]
    full: bool,
}

impl Journal {
    /// Open the journal of a state directory, which must exist, and tell each event to `tell`.
    ///
    /// # Errors
    /// When it cannot be had or understood: names the file and says what was done.
    pub(crate) fn open(
        directory: &Path,
        mut tell: impl FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<Self, Refusal> {
        let path = directory.join("objects.jsonl");
        let refusal = |e: io::Error| Refusal(format!("{}: {}", path.display(), reason(&e)));
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(refusal)?,
        };
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let told = replay(bytes.get(..whole).unwrap_or_default(), &mut tell);
        told.map_err(|why| {
            Refusal(format!("{}: {why}; nothing was changed: repair the file or move it away", path.display()))
        })?;
        if whole < bytes.len() {
            tracing::warn!("{}: the last line has no end: cut off", path.display());
        }
        let file = File::options().append(true).create(true).mode(0o600).open(&path).map_err(refusal)?;
        file.set_len(whole as u64).map_err(refusal)?;
        let mut journal = Self {
            file: BufWriter::with_capacity(1 << 16, file),
            len: whole as u64,
            pending: 0,
            path,
            #[cfg(test)]
            full: false,
        };
        if whole == 0 {
            journal.append(VERSION);
        }
        journal.commit().map_err(|why| Refusal(format!("{}: {why}", journal.path.display())))?;
        Ok(journal)
    }

    /// Note that an object was put, as compact JSON.
    pub(crate) fn put(&mut self, json: &str) {
        ["{\"put\":", json, "}\n"].into_iter().for_each(|part| self.append(part));
    }

    /// Note that an object was deleted.
    pub(crate) fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let line = serde_json::json!({ "delete": [kind, namespace, name] });
        self.append(&format!("{line}\n"));
    }

    #[cfg(test)]
    pub(crate) fn fail_next(&mut self) {
        self.full = true;
    }

    fn append(&mut self, text: &str) {
        // What fails here fails again at the flush.
        let _ = self.file.write_all(text.as_bytes());
        self.pending += text.len() as u64;
    }

    /// Bring what was noted to the disk.
    ///
    /// # Errors
    /// The file is then as it was before the first of the notes.
    pub(crate) fn commit(&mut self) -> Result<(), String> {
        let wanted = self.len + std::mem::take(&mut self.pending);
        let written = self.file.flush().and_then(|()| {
            let file = self.file.get_ref();
            #[cfg(test)]
            if std::mem::take(&mut self.full) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if file.metadata()?.len() != wanted {
                return Err(io::Error::other("some of it was not written"));
            }
            file.sync_data()
        });
        match written {
            Ok(()) => self.len = wanted,
            Err(e) => {
                self.take_back();
                return Err(format!("{}: {}", self.path.display(), reason(&e)));
            }
        }
        Ok(())
    }

    /// Forget what was noted since the last [`Self::commit`].
    pub(crate) fn forget(&mut self) {
        if std::mem::take(&mut self.pending) > 0 {
            self.take_back();
        }
    }

    /// Cut the file back to what is in force, and forget what waits to be written.
    fn take_back(&mut self) {
        let cut = self.file.get_ref().set_len(self.len).and_then(|()| self.file.get_ref().try_clone());
        match cut {
            Ok(file) => {
                let old = std::mem::replace(&mut self.file, BufWriter::with_capacity(1 << 16, file));
                // Not dropped as it is: that would write what it still holds.
                let _ = old.into_parts();
            }
            Err(e) => tracing::error!("{}: cannot be cut back: {}", self.path.display(), reason(&e)),
        }
    }

    /// Write the file anew when most of it is history; `live` octets of `objects` are not.
    pub(crate) fn shorten<'a>(&mut self, live: usize, objects: impl Iterator<Item = &'a str>) {
        if self.len < 2 * live as u64 + HISTORY {
            return;
        }
        let temporary = self.path.with_extension("jsonl.new");
        let write = || -> io::Result<Self> {
            let _ = fs::remove_file(&temporary);
            let file = File::options().append(true).create_new(true).mode(0o600).open(&temporary)?;
            let (path, file) = (self.path.clone(), BufWriter::with_capacity(1 << 16, file));
            let mut new = Self {
                path,
                file,
                len: 0,
                pending: 0,
                #[cfg(test)]
                full: false,
            };
            new.append(VERSION);
            objects.for_each(|json| new.put(json));
            new.commit().map_err(io::Error::other)?;
            fs::rename(&temporary, &self.path)?;
            Ok(new)
        };
        match write() {
            Ok(new) => *self = new,
            Err(e) => {
                let _ = fs::remove_file(&temporary);
                tracing::warn!("{}: cannot be shortened: {}", self.path.display(), reason(&e));
            }
        }
    }
}

fn replay(bytes: &[u8], tell: &mut impl FnMut(Event<'_>) -> Result<(), String>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<'a> {
        #[serde(borrow, default)]
        put: Option<&'a RawValue>,
        #[serde(default)]
        delete: Option<(String, String, String)>,
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("damaged: {e}"))?;
    let Some(lines) = text.strip_prefix(VERSION) else {
        return Err("layout not known here: the first line is no version that is".to_owned());
    };
    for (i, line) in lines.lines().enumerate() {
        let damaged = |why: String| format!("damaged: line {}: {why}", i + 2);
        let event = match serde_json::from_str(line).map_err(|e| damaged(e.to_string()))? {
            Line { put: Some(object), delete: None } => Event::Put(object.get()),
            Line { put: None, delete: Some((kind, namespace, name)) } => Event::Delete(kind, namespace, name),
            _ => return Err(damaged("neither put nor delete".to_owned())),
        };
        tell(event).map_err(damaged)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(directory: &Path) -> Result<(Journal, Vec<String>), Refusal> {
        let mut events = Vec::new();
        let journal = Journal::open(directory, |event| {
            events.push(match event {
                Event::Put(json) => json.to_owned(),
                Event::Delete(kind, namespace, name) => format!("{kind} {namespace} {name}"),
            });
            Ok(())
        })?;
        Ok((journal, events))
    }

    #[test]
    fn what_was_noted_is_told_in_order_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, none) = events(directory.path()).unwrap();
        assert!(none.is_empty());
        journal.put("{\"a\":1}");
        journal.delete("Service", "default", "web");
        journal.commit().unwrap();
        drop(journal);
        assert_eq!(events(directory.path()).unwrap().1, ["{\"a\":1}", "Service default web"]);
    }

    #[test]
    fn a_line_without_its_end_is_cut_off_and_a_damaged_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects.jsonl");
        let whole = format!("{VERSION}{{\"put\":{{\"a\":1}}}}\n");
        for n in whole.len()..whole.len() + 20 {
            fs::write(&path, &format!("{whole}{{\"put\":{{\"bcdefgh\":1}}}}\n")[..n]).unwrap();
            let (mut journal, told) = events(directory.path()).unwrap();
            assert_eq!(told, ["{\"a\":1}"], "{n}");
            journal.put("{\"c\":3}");
            journal.commit().unwrap();
            drop(journal);
            assert_eq!(events(directory.path()).unwrap().1, ["{\"a\":1}", "{\"c\":3}"], "{n}");
        }
        let bad = format!("{VERSION}{{\"put\":}}\n{{\"put\":{{}}}}\n");
        fs::write(&path, &bad).unwrap();
        let why = events(directory.path()).unwrap_err().0;
        assert!(why.contains("damaged: line 2: ") && why.contains("nothing was changed"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        fs::write(&path, "{\"version\":2}\n").unwrap();
        assert!(events(directory.path()).is_err());
    }

    #[test]
    fn history_is_thrown_away_when_there_is_much_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects.jsonl");
        let (mut journal, _) = events(directory.path()).unwrap();
        let object = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        for _ in 0..8 {
            journal.put(&object);
            journal.commit().unwrap();
            journal.shorten(object.len(), [&object[..]].into_iter());
        }
        assert!(fs::metadata(&path).unwrap().len() < 7 << 20);
        journal.put("{\"b\":2}");
        journal.commit().unwrap();
        drop(journal);
        let told = events(directory.path()).unwrap().1;
        assert_eq!((told.first(), told.last()), (Some(&object), Some(&"{\"b\":2}".to_owned())));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
