//! The daemon and its client, as processes of their own.
//!
//! Both are this executable under another name (`dispatch`), so a lab never runs a program that was not built with
//! it. A daemon cannot outlive the lab: it asks the kernel to be killed with its parent, and the [`Daemon`] kills it
//! by pid when it is dropped.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// A daemon has to answer within this time after it was started.
const READY: Duration = Duration::from_secs(10);
/// A client has to end within this time.
const CLIENT: Duration = Duration::from_secs(10);

/// So many hits are decided again, to find out whether the cache says what a fresh decision says.
const SHADOW: &str = "1/100";

/// Environment variable that tells our processes the pid of their lab.
const LAB_PID: &str = "VSWITCH_LAB_PID";

/// If this process was started under the name of one of our programs, be that program and return its exit code.
pub fn dispatch() -> Option<u8> {
    let name = PathBuf::from(std::env::args_os().next()?);
    let program: fn() -> u8 = match name.file_name()?.to_str()? {
        "vswitchd" => || vswitch::main(std::env::args_os()),
        "vsctl" => || vsctl::main(std::env::args_os()),
        "vswitch-cni" => || vswitch_cni::main(std::env::args_os()),
        _ => return None,
    };
    // Under these names the executable is only ever started by a lab, or by the keeper that a lab started.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // A parent that died before it was asked for that signal never sends it.
    let lab = std::env::var(LAB_PID).ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    if lab.is_some_and(|lab| !runs(lab)) {
        return Some(1);
    }
    Some(program())
}

/// A `vswitchd` with directories of its own.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    workers: Option<u16>,
    keep: bool,
    /// More words of its command line.
    words: Vec<String>,
    /// The keeper, while it runs.
    child: Option<Child>,
}

impl Daemon {
    /// Start a daemon with fresh directories, and wait until it answers. With `keep` the directories stay.
    ///
    /// # Errors
    /// When it does not start or does not answer in time; with the end of its log.
    pub fn start(workers: Option<u16>, keep: bool) -> anyhow::Result<Self> {
        Self::with(workers, keep, "")
    }

    /// As [`Self::start`], with more words on its command line, separated by spaces.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with(workers: Option<u16>, keep: bool, words: &str) -> anyhow::Result<Self> {
        let words = words.split_whitespace().map(str::to_owned).collect();
        let mut daemon = Self { dir: fresh_dir()?, workers, keep, words, child: None };
        daemon.run()?;
        Ok(daemon)
    }

    /// Start it again after [`Self::pause`] or [`Self::kill_all`], with the same directories.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn run(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log()).context("log of the daemon")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vswitchd").arg("--run-dir").arg(self.run_dir()).arg("--state-dir").arg(self.state_dir());
        command.arg("--shadow").arg(SHADOW).args(&self.words);
        if let Some(workers) = self.workers {
            command.arg("--workers").arg(workers.to_string());
        }
        command.env(LAB_PID, std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("start vswitchd")?);
        self.wait_until_ready()
    }

    /// Where its client finds it.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("ctl.sock")
    }

    /// What it logged.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// `vsctl WORDS...`, its words separated by spaces. Returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn vsctl(&self, words: &str) -> anyhow::Result<String> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vsctl").args(words.split_whitespace()).env("VSWITCH_SOCKET", self.socket());
        let output = output(command, CLIENT).with_context(|| format!("vsctl {words}"))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        ensure!(output.status.success(), "vsctl {words}: {}: {}", output.status, said(&output.stderr));
        Ok(said(&output.stdout))
    }

    /// `vsctl apply` of manifests.
    ///
    /// # Errors
    /// When an object is refused, with what was said.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.with_manifests("apply", manifests)
    }

    /// `vsctl delete` of manifests.
    ///
    /// # Errors
    /// When an object is not there.
    pub fn delete(&self, manifests: &str) -> anyhow::Result<()> {
        self.with_manifests("delete", manifests)
    }

    fn with_manifests(&self, verb: &str, manifests: &str) -> anyhow::Result<()> {
        let file = self.dir.join("manifests.yaml");
        std::fs::write(&file, manifests).with_context(|| format!("write {}", file.display()))?;
        self.vsctl(&format!("{verb} -f {}", file.display())).map(drop)
    }

    /// No cached decision of this data plane differed from a fresh one.
    ///
    /// # Errors
    /// When one did, with all counters of events.
    pub fn check_cache(&self) -> anyhow::Result<()> {
        let coverage = self.vsctl("coverage/show")?;
        // Counters that are zero are not shown.
        ensure!(!coverage.contains("cache_divergence"), "a cached decision differed from a fresh one:\n{coverage}");
        Ok(())
    }

    /// kill -9 of the data plane; returns when its keeper has started another that answers.
    ///
    /// # Errors
    /// When there is none, or no new one in time.
    pub fn kill_data_plane(&mut self) -> anyhow::Result<()> {
        let old = self.data_plane()?;
        kill_process(old, Signal::KILL)
            .with_context(|| format!("kill the data plane, pid {}", old.as_raw_nonzero()))?;
        let deadline = Instant::now() + READY;
        while self.data_plane().ok().is_none_or(|pid| pid == old) {
            if Instant::now() > deadline {
                bail!("no new data plane within {READY:?}{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.wait_until_ready()
    }

    /// kill -9 of keeper and data plane; returns when both are gone.
    ///
    /// # Errors
    /// When they are not running, or do not go.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        let plane = self.data_plane()?;
        let mut keeper = self.child.take().context("the keeper is not running")?;
        // The keeper first: it would start another data plane.
        keeper.kill().context("kill the keeper")?;
        let _ = kill_process(plane, Signal::KILL);
        keeper.wait().context("wait for the keeper")?;
        wait_until_gone(plane)
    }

    /// Orderly stop for good: SIGINT to the keeper, exit status 0. The node's routes go.
    ///
    /// # Errors
    /// When it does not end in time, or in disorder.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::INT)
    }

    /// Orderly stop that a start follows: SIGTERM to the keeper, exit status 0.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// Remove what its connections live in. It must not run.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn forget_connections(&self) -> anyhow::Result<()> {
        let path = self.run_dir().join("connections");
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut keeper) = self.child.take() else { return Ok(()) };
        let _ = kill_process(pid_of(&keeper), signal);
        let deadline = Instant::now() + READY;
        loop {
            match keeper.try_wait().context("wait for the keeper")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("vswitchd stopped with {status}{}", self.log_tail()),
                None if Instant::now() > deadline => {
                    self.child = Some(keeper);
                    bail!("vswitchd does not stop on signal {} within {READY:?}{}", signal.as_raw(), self.log_tail());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Its durable state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Descriptors that the data plane has open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        let path = format!("/proc/{}/fd", self.data_plane()?.as_raw_nonzero());
        Ok(std::fs::read_dir(&path).with_context(|| path.clone())?.count())
    }

    fn data_plane(&self) -> anyhow::Result<Pid> {
        let path = self.run_dir().join("dataplane.pid");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.with_context(|| format!("{}: {text:?} is no pid", path.display()))
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                bail!("vswitchd ended with {status}{}", self.log_tail());
            }
            // A socket of a dead daemon refuses; one that accepts may still be restoring: only an answer counts.
            let reachable = UnixStream::connect(self.socket()).map(drop);
            let answer = reachable.map_err(Into::into).and_then(|()| self.vsctl("list-br"));
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("vswitchd is not ready after {READY:?}{}", self.log_tail())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The last lines of the log, for errors.
    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].iter().map(|line| format!("\n      vswitchd: {line}")).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.child.take() {
            let plane = self.data_plane();
            let _ = keeper.kill();
            let _ = keeper.wait();
            if let Ok(plane) = plane {
                let _ = kill_process(plane, Signal::KILL);
                let _ = wait_until_gone(plane);
            }
        }
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Prefix of our directories; the pid of the lab follows.
const DIR: &str = "vswitch-lab-";

/// A directory of our own. What labs left that were killed themselves is removed first: the caller holds the machine's
/// lock, so nobody else uses one.
fn fresh_dir() -> anyhow::Result<PathBuf> {
    let temp = std::env::temp_dir();
    for entry in std::fs::read_dir(&temp).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(DIR)).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    for number in 0..1000 {
        let dir = temp.join(format!("{DIR}{}-{number}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", dir.display())),
        }
    }
    bail!("{}: too many directories of labs", temp.display())
}

/// Run a client that reads this to its end, or kill it.
///
/// # Errors
/// When it cannot be run, or does not end in time.
pub(crate) fn output_of(command: Command, input: &[u8]) -> anyhow::Result<Output> {
    run_to_end(command, Some(input), CLIENT)
}

/// Run a command to its end, or kill it.
fn output(command: Command, limit: Duration) -> anyhow::Result<Output> {
    run_to_end(command, None, limit)
}

fn run_to_end(mut command: Command, input: Option<&[u8]>, limit: Duration) -> anyhow::Result<Output> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // What does not read it says why, or is killed.
        let _ = stdin.write_all(input);
    }
    let pid = pid_of(&child);
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match wait.recv_timeout(limit) {
        Ok(output) => Ok(output?),
        Err(_) => {
            // The thread has not reaped it yet, so the pid is still its own.
            let _ = kill_process(pid, Signal::KILL);
            bail!("no end within {limit:?}")
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn wait_until_gone(pid: Pid) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY;
    while runs(pid) {
        ensure!(Instant::now() < deadline, "process {} does not end after SIGKILL", pid.as_raw_nonzero());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// There is such a process, and it is no orphan that init has yet to reap: such a one holds no descriptor any more.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let mut command = Command::new("/proc/self/exe");
        // This test binary, asked to run a test that waits for ever.
        command.args(["--exact", "daemon::tests::waits_for_ever", "--ignored"]);
        let began = Instant::now();
        assert!(output(command, Duration::from_millis(200)).is_err());
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    #[ignore = "only the test above runs it, as a process to be killed"]
    fn waits_for_ever() {
        std::thread::sleep(Duration::from_secs(3600));
    }

    #[test]
    fn fresh_directories_differ() {
        let (first, second) = (fresh_dir().expect("first"), fresh_dir().expect("second"));
        assert_ne!(first, second);
        for dir in [first, second] {
            std::fs::remove_dir(dir).expect("empty");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_seen_to_be_gone() {
        let mut child = Command::new("/proc/self/exe").arg("--list").stdout(Stdio::null()).spawn().expect("spawn");
        let pid = pid_of(&child);
        child.wait().expect("wait");
        wait_until_gone(pid).expect("gone");
    }
}
