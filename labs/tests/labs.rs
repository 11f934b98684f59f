//! The labs as a user runs them: the program itself, with real interfaces where the machine has them.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LABS: &str = env!("CARGO_BIN_EXE_labs");
/// No run of all labs takes longer, waiting for other tests that hold the machine's lock included.
const LIMIT: Duration = Duration::from_secs(900);

/// Run `labs` to its end.
fn finish(child: Child) -> Output {
    let pid = child.id();
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match wait.recv_timeout(LIMIT) {
        Ok(output) => output.expect("output of labs"),
        Err(_) => {
            kill(pid);
            panic!("labs did not end within {LIMIT:?}");
        }
    }
}

fn start(args: &[&str]) -> Child {
    command(args).spawn().expect("start labs")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(LABS);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// All labs prove all their claims; those that this machine cannot run are named.
fn all_claims_are_proved(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let result: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    for open in result["not_proved"].as_array().into_iter().flatten() {
        println!("SKIPPED: {}: {}: {}", open["lab"], open["claim"], open["why"]);
    }
    assert_eq!(result["proved"], true, "{}", what_failed(&result));
    assert!(output.status.success(), "{}", output.status);
    result
}

/// The runs that ended in an error and the claims that were not proved, a line each: a whole result is too long for a log.
fn what_failed(result: &Value) -> String {
    let mut lines = Vec::new();
    for run in result["runs"].as_array().into_iter().flatten() {
        let claims = run["claims"].as_array().into_iter().flatten();
        lines.extend(claims.filter(|claim| claim["proved"] != true).map(|claim| format!("{}: {claim}", run["lab"])));
        lines.extend(run["error"].as_str().map(|error| format!("{}: {error}", run["lab"])));
    }
    lines.join("\n")
}

#[test]
fn all_labs_prove_their_claims_with_the_default_workers() {
    all_claims_are_proved(&finish(start(&["all", "--json"])));
}

#[test]
fn all_labs_prove_their_claims_with_two_workers() {
    all_claims_are_proved(&finish(start(&["--json", "--workers", "2", "all"])));
}

#[test]
fn without_root_a_lab_runs_in_a_user_namespace_or_says_why_not() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: without_root_a_lab_runs_in_a_user_namespace: the other tests run so already");
    }
    let (nobody, nogroup) = (65534, 65534);
    let child = match command(&["--json", "run", "k1", "node"]).uid(nobody).gid(nogroup).spawn() {
        Ok(child) => child,
        Err(error) => return println!("SKIPPED: without_root_a_lab_runs_in_a_user_namespace: {LABS}: {error}"),
    };
    let result = all_claims_are_proved(&finish(child));
    let privilege = result["machine"]["privilege"].as_str().unwrap_or_default();
    assert!(privilege.starts_with("not root"), "{privilege}");
}

#[test]
fn a_lab_that_is_not_there_is_a_usage_error_of_one_line() {
    let output = finish(start(&["run", "no-such-lab"]));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "labs: run: no-such-lab: no lab of that name (labs list)\n");
}

#[test]
fn a_killed_lab_leaves_no_process_behind() {
    let mut lab = start(&["run", "two-pods"]);
    let run_dir = std::env::temp_dir().join(format!("vswitch-lab-{}-0/run", lab.id()));
    let pids = || ["vswitchd.pid", "dataplane.pid"].map(|file| pid_in(run_dir.join(file)));
    let deadline = Instant::now() + LIMIT;
    let daemons = loop {
        match pids() {
            [Some(keeper), Some(plane)] => break [keeper, plane],
            _ if lab.try_wait().expect("wait for labs").is_some() => {
                return println!("SKIPPED: a_killed_lab_leaves_no_process_behind: no daemon was started");
            }
            _ if Instant::now() > deadline => panic!("no daemon within {LIMIT:?}"),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    lab.kill().expect("kill labs");
    lab.wait().expect("wait for labs");
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemons.into_iter().any(runs) {
        if Instant::now() > deadline {
            daemons.into_iter().for_each(kill);
            panic!("{daemons:?} still ran");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = std::fs::remove_dir_all(run_dir.parent().expect("the lab's directory"));
}

fn pid_in(file: PathBuf) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// There is such a process, and it is not only waiting to be reaped.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
