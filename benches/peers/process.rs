//! Processes and files of the peers: each ends with the value that stands for it, by its own pid.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A directory of our own, removed in the end.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// A new one.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vsbench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// A file in it.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Start `command` with its output going to a file.
    pub(crate) fn start(command: &mut Command, output: PathBuf) -> Result<Self> {
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child, output })
    }

    /// What it has written until now.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// An error with the last line that it wrote, if it has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let output = self.output();
        bail!("ended early ({status}): {}", output.trim_end().lines().next_back().unwrap_or("it said nothing"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::INT);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            // Some end on SIGINT, some on SIGTERM, and what does neither is ended.
            match start.elapsed() {
                elapsed if elapsed > Duration::from_secs(5) => {
                    let _ = self.child.kill();
                }
                elapsed if elapsed > Duration::from_millis(1500) => self.signal(Signal::TERM),
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Run `command` to its end; what it wrote to its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("{name} cannot be started"))?;
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        bail!("{name}: {}", error.trim_end().lines().next_back().unwrap_or("failed"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The first of `paths` that is there; bare names are looked for on the search path and in the `sbin` directories.
pub(crate) fn installed(paths: &[&str]) -> Result<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let directories =
        || std::env::split_paths(AsRef::<OsStr>::as_ref(&search)).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let find = |path: &&str| {
        if path.contains('/') {
            Some(PathBuf::from(path))
        } else {
            directories().map(|dir| dir.join(path)).find(|p| p.is_file())
        }
    };
    paths.iter().filter_map(find).find(|path| path.is_file()).context("not installed")
}
