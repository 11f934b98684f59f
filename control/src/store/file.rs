//! The configuration on disk: `state.json` in the state directory.
//!
//! A new version is written beside the old one, brought to the disk, and renamed over it, so that at any instant there
//! is one whole file. Writing comes before the switch is told ([`StateFile::prepare`]), renaming after
//! ([`Prepared::commit`]): a full disk is found while nothing has changed.
//!
//! A file that cannot be understood is never replaced or ignored: the daemon does not start, says what is wrong where,
//! and touches nothing. `state.json.bak` is the configuration that the daemon last started with.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{Acl, Bridge, Neighbor, Port, Route, Station, reason};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::attachments::Attachment;
use super::config::Config;
use crate::Refusal;

/// The layout below. A daemon refuses to start from a layout that it does not know.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    version: u32,
    bridges: Vec<Bridge>,
    ports: Vec<Port>,
    stations: Vec<Station>,
    // Later than the rest: absent from files that have none, so that they are read by who does not know them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    neighbors: Vec<Neighbor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acls: Vec<Acl>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment>,
}

/// How long a daemon that dies may have the directory still.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state directory, held for this daemon alone.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    directory: File,
}

/// A new version, on the disk but not yet in force.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    file: &'a StateFile,
    temporary: PathBuf,
    committed: bool,
}

fn refusal(path: &Path, error: &io::Error) -> Refusal {
    Refusal(format!("{}: {}", path.display(), reason(error)))
}

/// Lock the directory. A daemon that was killed a moment ago has it until the last of its threads is gone.
fn claim(directory: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            locked => return Ok(locked?),
        }
    }
}

impl StateFile {
    /// Take hold of the state directory, making it if need be, and read what is there.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Config), Refusal> {
        fs::create_dir_all(directory).map_err(|e| refusal(directory, &e))?;
        let handle = File::open(directory).map_err(|e| refusal(directory, &e))?;
        claim(&handle).map_err(|_| Refusal(format!("{}: another daemon keeps its state here", directory.display())))?;
        let file = Self { path: directory.join("state.json"), directory: handle };
        let config = match fs::read(&file.path) {
            Ok(bytes) => parse(&bytes).map_err(|why| file.damaged(&why))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if file.backup().exists() {
                    tracing::warn!(
                        "{}: not there; starting empty ({} is)",
                        file.path.display(),
                        file.backup().display()
                    );
                }
                return Ok((file, Config::default()));
            }
            Err(e) => return Err(file.damaged(&reason(&e))),
        };
        file.keep_backup();
        Ok((file, config))
    }

    fn backup(&self) -> PathBuf {
        self.path.with_extension("json.bak")
    }

    fn damaged(&self, why: &str) -> Refusal {
        let backup = match self.backup().exists() {
            true => format!(", or put {} in its place (the state of the last good start)", self.backup().display()),
            false => String::new(),
        };
        let path = self.path.display();
        Refusal(format!("{path}: {why}; nothing was changed: repair the file, move it away to start empty{backup}"))
    }

    /// Keep the state that was just understood under a second name. It is a link: the next version is a new file.
    fn keep_backup(&self) {
        let backup = self.backup();
        let temporary = self.path.with_extension("json.bak.new");
        let _ = fs::remove_file(&temporary);
        let kept = fs::hard_link(&self.path, &temporary).and_then(|()| fs::rename(&temporary, &backup));
        // rename(2) leaves both names when they are already the same file.
        let _ = fs::remove_file(&temporary);
        if let Err(e) = kept {
            tracing::warn!("{}: cannot be kept: {}", backup.display(), reason(&e));
        }
    }

    /// Bring a new version to the disk, beside the one in force.
    pub(crate) fn prepare(&self, config: &Config) -> Result<Prepared<'_>, Refusal> {
        let layout = Layout {
            version: VERSION,
            bridges: config.bridges.values().cloned().collect(),
            ports: config.ports.values().cloned().collect(),
            stations: config.stations.values().copied().collect(),
            neighbors: config.neighbors.values().copied().collect(),
            routes: config.routes.values().cloned().collect(),
            acls: config.acls.values().cloned().collect(),
            attachments: config.attachments.values().cloned().collect(),
        };
        let prepared = Prepared { file: self, temporary: self.path.with_extension("json.new"), committed: false };
        let write = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec_pretty(&layout)?;
            bytes.push(b'\n');
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&prepared.temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(|e| refusal(&prepared.temporary, &e))?;
        Ok(prepared)
    }
}

impl Prepared<'_> {
    /// Put the new version in force.
    pub(crate) fn commit(mut self) -> Result<(), Refusal> {
        fs::rename(&self.temporary, &self.file.path).map_err(|e| refusal(&self.file.path, &e))?;
        self.committed = true;
        // The new name is in force already and only a power cut could lose it: too late to refuse.
        if let Err(e) = self.file.directory.sync_all() {
            tracing::error!("{}: cannot be brought to the disk: {}", self.file.path.display(), reason(&e));
        }
        Ok(())
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Config, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // The version first: a file of another layout should be called that, not damaged.
    let damaged = |e: serde_json::Error| format!("damaged: {e}");
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version != VERSION {
        return Err(format!("layout version {version} is not known here, only {VERSION}"));
    }
    let layout: Layout = serde_json::from_slice(bytes).map_err(damaged)?;
    let counts = [
        layout.bridges.len(),
        layout.ports.len(),
        layout.stations.len(),
        layout.neighbors.len(),
        layout.routes.len(),
        layout.acls.len(),
        layout.attachments.len(),
    ];
    let config = Config {
        bridges: layout.bridges.into_iter().map(|bridge| (bridge.id, bridge)).collect(),
        ports: layout.ports.into_iter().map(|port| (port.id, port)).collect(),
        stations: layout.stations.into_iter().map(|station| (station.key, station)).collect(),
        neighbors: layout.neighbors.into_iter().map(|neighbor| (neighbor.key, neighbor)).collect(),
        routes: layout.routes.into_iter().map(|route| (route.key, route)).collect(),
        acls: layout.acls.into_iter().map(|acl| (acl.key, acl)).collect(),
        attachments: layout.attachments.into_iter().map(|attachment| (attachment.port, attachment)).collect(),
    };
    let Config { bridges, ports, stations, neighbors, routes, acls, attachments } = &config;
    let kept =
        [bridges.len(), ports.len(), stations.len(), neighbors.len(), routes.len(), acls.len(), attachments.len()];
    if counts != kept {
        return Err("damaged: two records with one number".to_owned());
    }
    config.check().map_err(|why| format!("damaged: {why}"))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_with(bytes: &[u8]) -> (tempfile::TempDir, Result<Config, Refusal>) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("state.json"), bytes).unwrap();
        let config = StateFile::open(directory.path()).map(|(_, config)| config);
        (directory, config)
    }

    #[test]
    fn a_damaged_file_is_named_with_the_place_and_left_alone() {
        let good = br#"{"version":1,"bridges":[],"ports":[],"stations":[]}"#;
        assert!(open_with(good).1.is_ok());
        let mut cases: Vec<(Vec<u8>, &str)> = vec![
            (b"".to_vec(), "line 1 column 0"),
            (vec![0; 64], "line 1 column 1"),
            (br#"{"version":2}"#.to_vec(), "layout version 2"),
            (br#"{"version":1,"bridges":[],"ports":[],"stations":[],"x":1}"#.to_vec(), "unknown field `x`"),
        ];
        cases.extend((1..good.len()).map(|n| (good[..n].to_vec(), "state.json: damaged: ")));
        for (bytes, part) in cases {
            let (directory, result) = open_with(&bytes);
            let why = result.unwrap_err().0;
            assert!(why.contains(part) && why.contains("nothing was changed"), "{why}");
            assert_eq!(fs::read(directory.path().join("state.json")).unwrap(), bytes);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_damaged_file_points_to_the_state_of_the_last_good_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        {
            let (file, config) = StateFile::open(directory.path()).unwrap();
            file.prepare(&config).unwrap().commit().unwrap();
        }
        StateFile::open(directory.path()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{").unwrap();
        let why = StateFile::open(directory.path()).unwrap_err().0;
        assert!(why.contains("state.json.bak in its place"), "{why}");
        fs::rename(directory.path().join("state.json.bak"), &path).unwrap();
        assert!(StateFile::open(directory.path()).is_ok());
    }

    #[test]
    fn routes_and_neighbours_must_be_on_bridges_and_ports_that_are_there() {
        let with = |more: &str| {
            open_with(format!(r#"{{"version":1,"bridges":[],"ports":[],"stations":[],{more}}}"#).as_bytes()).1
        };
        let neighbor = r#""neighbors":[{"key":{"bridge":1,"address":"10.0.0.1"},"port":1,"mac":"02:00:00:00:00:01"}]"#;
        let why = with(neighbor).unwrap_err().0;
        assert!(why.contains("damaged: neighbor 10.0.0.1: its port 1 is not on its bridge"), "{why}");
        let route = r#"{"key":{"bridge":1,"prefix":"10.0.0.0/8"},"to":{"hop":"blackhole"},"origin":"static"}"#;
        let why = with(&format!(r#""routes":[{route}]"#)).unwrap_err().0;
        assert!(why.contains("damaged: route 10.0.0.0/8: its bridge is not there"), "{why}");
        let why = with(&format!(r#""routes":[{route},{route}]"#)).unwrap_err().0;
        assert!(why.contains("two records with one number"), "{why}");
    }

    #[test]
    fn a_version_that_is_not_committed_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (file, config) = StateFile::open(directory.path()).unwrap();
        drop(file.prepare(&config).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn two_daemons_do_not_share_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let _held = StateFile::open(directory.path()).unwrap();
        assert!(StateFile::open(directory.path()).unwrap_err().0.contains("another daemon"));
    }
}
