//! The keeper's own side: start the data plane, hold what it hands over, start it again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit};

use super::{ENVIRONMENT, Message, PidFile, Verb, notify, receive, send};
use crate::sys::signal::{FOR_GOOD, STOP, Signals};

/// Descriptors the keeper holds at most: twice as many as a switch has ports.
const TABLE: usize = 8192;
/// A data plane that lived shorter than this died quickly.
const QUICK: Duration = Duration::from_secs(10);
/// Longest pause before the data plane is started again.
const PAUSE: Duration = Duration::from_secs(5);

/// Be the keeper until the data plane stops in order: hold `vswitchd.pid` in `run_dir` (made if need be), start the
/// data plane with what `command` gives (its standard input and one variable of its environment are ours), and start
/// it again whenever it dies. SIGTERM and SIGINT are passed on; they reach the data plane blocked, to be read from
/// [`Signals`]. Returns the exit code: 0 after an orderly stop, the data plane's own code if it never got ready.
///
/// # Errors
/// When another daemon uses `run_dir`, or the data plane cannot be started at all.
pub fn run_as_keeper(run_dir: &Path, mut command: impl FnMut() -> Command) -> io::Result<u8> {
    let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", run_dir.display()));
    std::fs::create_dir_all(run_dir).map_err(about)?;
    let _pid_file = PidFile::claim(&run_dir.join("vswitchd.pid"))?;
    raise_descriptor_limit();
    let held: BTreeMap<String, Held> =
        notify::stored().into_iter().map(|(name, fd)| (name, Held { fd, given: false })).collect();
    if !held.is_empty() {
        tracing::info!(descriptors = held.len(), "held by the service manager");
    }
    let mut parent = Parent { signals: Signals::new(&STOP)?, held, ready: false, stopping: None };
    let child_file = run_dir.join("dataplane.pid");
    let (mut quick_deaths, mut restarts) = (0, 0u64);
    let code = loop {
        let started = Instant::now();
        let status = parent.live(&mut command(), &child_file)?;
        if status.success() {
            break 0;
        }
        if parent.stopping.is_some() {
            break 1;
        }
        if let (false, Some(code)) = (parent.ready, status.code()) {
            // It refused to start, and said why on stderr.
            break u8::try_from(code).unwrap_or(1);
        }
        quick_deaths = if started.elapsed() < QUICK { quick_deaths + 1 } else { 0 };
        restarts += 1;
        let pause = pause(quick_deaths);
        tracing::error!(restarts, quick_deaths, ?pause, "the data plane ended ({status}); starting it again");
        if parent.wait(pause)? {
            break 0;
        }
    };
    let _ = std::fs::remove_file(child_file);
    Ok(code)
}

/// At once after the first death, later and later if it keeps dying quickly.
fn pause(quick_deaths: u32) -> Duration {
    match quick_deaths {
        0 | 1 => Duration::ZERO,
        n => PAUSE.min(Duration::from_millis(100 << (n - 2).min(10))),
    }
}

/// A descriptor a port, here and in the data plane (which inherits the limit), is more than the usual 1024.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

struct Held {
    fd: OwnedFd,
    /// The present data plane has it.
    given: bool,
}

struct Parent {
    signals: Signals,
    held: BTreeMap<String, Held>,
    /// A data plane got ready once.
    ready: bool,
    /// We were told to stop, by this signal.
    stopping: Option<Signal>,
}

impl Parent {
    /// One life of the data plane.
    fn live(&mut self, command: &mut Command, child_file: &Path) -> io::Result<ExitStatus> {
        let (line, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&line, true)?;
        self.held.values_mut().for_each(|held| held.given = false);
        // What the service manager held is ours.
        ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].iter().for_each(|name| _ = command.env_remove(name));
        let mut child = command.stdin(Stdio::from(theirs)).env(ENVIRONMENT, "0").spawn()?;
        // The command still holds their end: without this the line would never hang up.
        command.stdin(Stdio::null());
        let watched = self.watch(&mut child, line, child_file);
        if watched.is_err() {
            let _ = child.kill();
        }
        let status = child.wait()?;
        watched.map(|()| status)
    }

    /// Serve the data plane until it is dead.
    fn watch(&mut self, child: &mut Child, line: OwnedFd, child_file: &Path) -> io::Result<()> {
        std::fs::write(child_file, format!("{}\n", child.id()))?;
        let pid = Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::InvalidData)?;
        let death = pidfd_open(pid, PidfdFlags::empty())?;
        if let Some(signal) = self.stopping {
            let _ = pidfd_send_signal(&death, signal);
        }
        let mut line = Some(line);
        loop {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&death, PollFlags::IN)];
            fds.extend(line.as_ref().map(|line| PollFd::new(line, PollFlags::IN)));
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            let dead = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            drop(fds);
            // What it sent before it died counts.
            if let Some(open) = &line
                && !self.serve(open.as_fd())
            {
                line = None;
            }
            if dead {
                return Ok(());
            }
            while let Some(signal) = self.signals.next() {
                tracing::info!("signal {signal}: stopping");
                let signal = if signal == FOR_GOOD { Signal::INT } else { Signal::TERM };
                self.stopping = Some(signal);
                let _ = pidfd_send_signal(&death, signal);
            }
        }
    }

    /// Answer what waits on the line. False when the other end hung up, or speaks something else.
    fn serve(&mut self, line: BorrowedFd<'_>) -> bool {
        loop {
            match receive(line) {
                Ok(Some((message, fd))) => {
                    let verb = message.verb;
                    let (done, fd) = self.answer(message, fd);
                    let answer = Message { verb: if done { Verb::Done } else { Verb::Refused }, name: String::new() };
                    if send(line, &answer, fd).is_err() {
                        return false;
                    }
                    if verb == Verb::Ready && !std::mem::replace(&mut self.ready, true) {
                        notify::ready();
                    }
                }
                Ok(None) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    tracing::error!("line to the data plane: {error}");
                    return false;
                }
            }
        }
    }

    /// Carry a request out: was it done, and the descriptor to go with the answer.
    fn answer(&mut self, message: Message, fd: Option<OwnedFd>) -> (bool, Option<BorrowedFd<'_>>) {
        let Message { verb, name } = message;
        match (verb, fd) {
            (Verb::Hold, Some(fd)) => {
                let room = self.held.len() < TABLE || self.held.contains_key(&name);
                if room {
                    if self.held.contains_key(&name) {
                        notify::remove(&name);
                    }
                    notify::store(&name, fd.as_fd());
                    self.held.insert(name, Held { fd, given: true });
                }
                (room, None)
            }
            (Verb::Release, None) => {
                if self.held.remove(&name).is_some() {
                    notify::remove(&name);
                }
                (true, None)
            }
            (Verb::Inherit, None) => match self.held.get_mut(&name) {
                Some(held) if !held.given => {
                    held.given = true;
                    (true, Some(held.fd.as_fd()))
                }
                _ => (true, None),
            },
            (Verb::Ready, None) => (true, None),
            _ => (false, None),
        }
    }

    /// Pause before the next start. True when we were told to stop meanwhile.
    fn wait(&mut self, pause: Duration) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))?;
        Ok(self.signals.next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;

    use rustix::process::kill_process;

    use super::super::Keeper;
    use super::*;

    /// This test binary, to be run again as one of the roles below. The signals are blocked in whoever calls this, and
    /// therefore from the start in all threads of what is run: the harness has a main thread that never blocks them.
    fn role(name: &str, run_dir: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("keeper::parent::tests::{name}"), "--nocapture"]);
        Signals::new(&STOP).unwrap();
        command.env("KEEPER_TEST_RUN_DIR", run_dir);
        command
    }

    fn run_dir() -> Option<PathBuf> {
        std::env::var_os("KEEPER_TEST_RUN_DIR").map(PathBuf::from)
    }

    /// Not a test by itself: the keeper of the tests below.
    #[test]
    fn role_keeper() {
        let Some(run_dir) = run_dir() else { return };
        let code = run_as_keeper(&run_dir, || role("role_data_plane", &run_dir));
        if let Err(error) = &code {
            eprintln!("{error}");
        }
        std::process::exit(code.unwrap_or(99).into());
    }

    /// Not a test by itself: a data plane that counts its lives in a file that only the keeper holds, and does what
    /// `behaviour` in the run-dir says.
    #[test]
    fn role_data_plane() {
        let Some(run_dir) = run_dir() else { return };
        let keeper = Keeper::from_environment().unwrap();
        let signals = Signals::new(&STOP).unwrap();
        let behaviour = std::fs::read_to_string(run_dir.join("behaviour")).unwrap_or_default();
        if behaviour == "refuse" {
            std::process::exit(1);
        }
        let file = keeper.inherit("count").unwrap_or_else(|| {
            let path = run_dir.join("count");
            let file = std::fs::File::options().create(true).append(true).read(true).open(&path).unwrap();
            // From here on only the descriptor leads to it.
            std::fs::remove_file(path).unwrap();
            keeper.hold("count", file.as_fd()).unwrap();
            OwnedFd::from(file)
        });
        assert!(keeper.inherit("count").is_none(), "given out once");
        assert!(keeper.inherit("nothing").is_none());
        keeper.hold("other", file.as_fd()).unwrap();
        keeper.release("other");
        let mut file = std::fs::File::from(file);
        file.write_all(b"x").unwrap();
        let mut lives = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut lives).unwrap();
        keeper.ready().unwrap();
        println!("life {} {}", lives.len(), std::process::id());
        poll(&mut [PollFd::new(&signals, PollFlags::IN)], None).unwrap();
        std::process::exit(0);
    }

    struct Running {
        keeper: Child,
        lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    }

    impl Running {
        fn start(run_dir: &Path) -> Self {
            let mut keeper = role("role_keeper", run_dir).stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
            Self { keeper, lines }
        }

        /// The data plane's next life: its number, its process.
        fn life(&mut self) -> (usize, Pid) {
            // The harness writes the name of its test onto the same line.
            let line = self.lines.find_map(|line| {
                let line = line.unwrap();
                line.find("life ").map(|at| line[at + 5..].to_owned())
            });
            let line = line.expect("the data plane says that it lives");
            let (life, pid) = line.split_once(' ').unwrap();
            (life.parse().unwrap(), Pid::from_raw(pid.parse().unwrap()).unwrap())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }

    #[test]
    fn a_killed_data_plane_comes_back_with_its_descriptors_and_an_orderly_stop_ends_both() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(dir.path());
        let (first, pid) = running.life();
        assert_eq!(first, 1);
        let keeper = Pid::from_raw(running.keeper.id() as i32).unwrap();
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap().trim().parse::<i32>().unwrap();
        assert_eq!((read("vswitchd.pid"), read("dataplane.pid")), (keeper.as_raw_pid(), pid.as_raw_pid()));
        for life in 2..5 {
            kill_process(Pid::from_raw(read("dataplane.pid")).unwrap(), Signal::KILL).unwrap();
            assert_eq!(running.life().0, life);
        }
        let error = PidFile::claim(&dir.path().join("vswitchd.pid")).unwrap_err();
        assert!(error.to_string().ends_with(&format!("held by process {}", keeper.as_raw_pid())), "{error}");
        kill_process(keeper, Signal::TERM).unwrap();
        assert_eq!(running.keeper.wait().unwrap().code(), Some(0));
        assert!(!dir.path().join("vswitchd.pid").exists() && !dir.path().join("dataplane.pid").exists());
    }

    #[test]
    fn a_data_plane_dies_with_its_keeper() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(dir.path());
        let (_, pid) = running.life();
        let death = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        running.keeper.kill().unwrap();
        let mut fds = [PollFd::new(&death, PollFlags::IN)];
        let dead = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
        assert_eq!(dead, 1);
        // And the next keeper may start in its place.
        running.keeper.wait().unwrap();
        assert_eq!(Running::start(dir.path()).life().0, 1);
    }

    #[test]
    fn a_data_plane_that_refuses_to_start_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("behaviour"), "refuse").unwrap();
        let mut running = Running::start(dir.path());
        assert_eq!(running.keeper.wait().unwrap().code(), Some(1));
    }

    #[test]
    fn the_service_manager_is_told_when_the_data_plane_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut keeper = role("role_keeper", dir.path());
        let keeper = keeper.env("NOTIFY_SOCKET", &path).env("FDSTORE", "0").stdout(Stdio::null()).spawn().unwrap();
        let mut told = [0; 32];
        let len = socket.recv(&mut told);
        kill_process(Pid::from_raw(keeper.id() as i32).unwrap(), Signal::TERM).unwrap();
        let output = keeper.wait_with_output().unwrap();
        assert_eq!(&told[..len.unwrap()], b"READY=1\n");
        assert!(output.status.success());
    }

    #[test]
    fn pauses_grow_to_five_seconds() {
        let pauses: Vec<u64> = (0..10).map(|n| pause(n).as_millis() as u64).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pause(u32::MAX), PAUSE);
    }

    #[test]
    fn a_status_is_told_apart_by_signal_and_code() {
        assert_eq!(ExitStatus::from_raw(9).code(), None, "killed: started again even before it was ready");
        assert_eq!(ExitStatus::from_raw(1 << 8).code(), Some(1));
    }
}
