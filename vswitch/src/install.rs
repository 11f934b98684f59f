//! `vswitchd install-cni`: the CNI plugin and its configuration, put in place once the daemon is ready.
//!
//! A runtime takes a node for ready when it finds a configuration, and starts pods at once. So that comes last, and not
//! before the daemon says that it could attach one. Each file is written under another name and renamed: nobody sees half
//! of one, and a plugin that runs is not written over.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::attachment::PROTOCOL;
use api::rpc::Client;
use api::{AttachReply, Request, reason};
use clap::Parser;
use serde_json::json;

/// The first word of the command line.
pub(crate) const COMMAND: &str = "install-cni";
/// The plugin, beside this program and where runtimes look for it.
const PLUGIN: &str = "vswitch-cni";
/// Before the configurations that distributions bring along: runtimes take the first.
const CONFIGURATION: &str = "10-vswitch.conflist";
/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(100);

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "vswitchd install-cni", version, about = "Install the CNI plugin once the daemon is ready")]
struct Typed {
    /// Directory of CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Directory of CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Directory of the daemon's control socket
    #[arg(long, value_name = "DIR", default_value = "/run/vswitch")]
    run_dir: PathBuf,
    /// Directory of the daemon's durable configuration
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vswitch")]
    state_dir: PathBuf,
    /// How long to wait for the daemon
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    timeout: u64,
}

/// Install as the command line says (the program's name, and the command's, in front). Returns the exit code, or why
/// nothing, or not all, was installed.
pub(crate) fn main(args: &[OsString]) -> Result<u8, String> {
    let typed = match Typed::try_parse_from(args.iter().skip(1)) {
        Ok(typed) => typed,
        Err(error) => {
            let _ = error.print();
            return Ok(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let absolute = |dir: &Path| std::path::absolute(dir).map_err(|why| about(dir, &why));
    let plugin = std::env::current_exe().map(|program| program.with_file_name(PLUGIN)).unwrap_or_default();
    let plugin = fs::read(&plugin).map_err(|why| about(&plugin, &why))?;
    let socket = absolute(&typed.run_dir)?.join("ctl.sock");
    wait(&socket, Duration::from_secs(typed.timeout))?;
    let configuration = configuration(&socket, &absolute(&typed.state_dir)?.join("detach"));
    put(&typed.bin_dir, PLUGIN, &plugin, 0o755)?;
    put(&typed.conf_dir, CONFIGURATION, configuration.as_bytes(), 0o644)?;
    println!("{} and {} installed", typed.bin_dir.join(PLUGIN).display(), typed.conf_dir.join(CONFIGURATION).display());
    Ok(0)
}

fn about(path: &Path, why: &io::Error) -> String {
    format!("{}: {}", path.display(), reason(why))
}

/// Wait until the daemon could attach a pod.
fn wait(socket: &Path, patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    loop {
        let why = match status(socket, end.saturating_duration_since(Instant::now()).max(INTERVAL)) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if Instant::now() + INTERVAL >= end {
            return Err(format!("the daemon is not ready after {} s: {why}", patience.as_secs()));
        }
        std::thread::sleep(INTERVAL);
    }
}

fn status(socket: &Path, patience: Duration) -> Result<(), String> {
    let request = Request::AttachmentStatus { protocol: PROTOCOL, bridge: None, assigns: true };
    let answer = Client::connect(socket, Some(patience)).and_then(|mut client| client.ask(&request));
    match answer.map(serde_json::from_value) {
        Ok(Ok(AttachReply::Fine)) => Ok(()),
        Ok(Ok(AttachReply::Refused(refusal))) => Err(refusal.to_string()),
        Ok(_) => Err("answer not understood".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

/// For runtimes of every age: those that know several versions take the newest of theirs.
fn configuration(socket: &Path, queue: &Path) -> String {
    let plugin = json!({
        "type": PLUGIN,
        "socket": socket,
        "queue": queue,
        "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
    });
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "vswitch",
        "plugins": [plugin],
    });
    format!("{list:#}\n")
}

/// A whole file, or the one that was there.
fn put(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|why| about(dir, &why))?;
    let path = dir.join(name);
    // Of no kind that a runtime reads.
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    written.map_err(|why| {
        let _ = fs::remove_file(&temporary);
        about(&path, &why)
    })
}
