//! `vswitch-cni`: speaks CNI (SPEC.md 1.1.0) with a container runtime, and asks the daemon for what is wanted.
//!
//! It makes no interface and keeps no state. What it may leave behind is a file that says that an attachment shall go,
//! when no daemon is there to hear it (`api::detached`). Addresses come from an IPAM plugin where the configuration names
//! one, else from the daemon.
//!
//! ```text
//!   runtime ─ environment, stdin ─► checks in the order of CNI's library ─► verb ─► daemon, IPAM plugin
//!   runtime ◄ stdout, exit code ── result in the asked version, or an error
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::ffi::OsString;
use std::io::{self, Read, Write};

use serde_json::json;

mod arguments;
mod capabilities;
mod config;
mod daemon;
mod environment;
mod fault;
mod fields;
mod ipam;
mod result;
mod verbs;
mod version;

use config::Network;
use environment::{Environment, Verb};
use fault::{Fault, code};
use version::Version;

/// Octets of a configuration at most. A result of a long chain has thousands.
const STDIN_LIMIT: u64 = 16 << 20;

/// What a run ends in, as far as nothing is wrong.
enum Done {
    /// Nothing is said.
    Silent,
    /// This is said.
    Said(serde_json::Value),
    /// This is said, and what was made is taken back when nobody hears it.
    Made(serde_json::Value, Box<dyn FnOnce()>),
}

/// Run the plugin with the arguments of a command line, its own name first. All that matters stands in the environment
/// and on standard input. Returns the exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.skip(1).collect();
    let version = args.first().is_some_and(|arg| arg == "--version");
    let environment = Environment::of_process();
    if version || environment.says_nothing() {
        let (name, plugin) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let about = format!("{name} {plugin}\nCNI protocol versions supported: {}\n", Version::list(", "));
        let _ =
            if version { io::stdout().write_all(about.as_bytes()) } else { io::stderr().write_all(about.as_bytes()) };
        return 0;
    }
    let mut spoken = Version::NEWEST;
    let fault = match run(&environment, &mut spoken) {
        Ok(Done::Silent) => return 0,
        Ok(Done::Said(value)) => return say(&value),
        Ok(Done::Made(value, take_back)) => {
            let code = say(&value);
            if code != 0 {
                take_back();
            }
            return code;
        }
        Err(fault) => fault,
    };
    say(&fault.to_json(spoken));
    1
}

fn say(value: &serde_json::Value) -> u8 {
    let text = format!("{value:#}\n");
    let said = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    match said {
        Ok(()) => 0,
        Err(why) => {
            log(&format!("standard output: {}", api::reason(&why)));
            1
        }
    }
}

/// What people shall read who look for a reason; runtimes log it.
fn log(text: &str) {
    let _ = writeln!(io::stderr(), "vswitch-cni: {}", text.replace('\n', " "));
}

/// The checks, in the order of CNI's library (`pkg/skel/skel.go`), then the verb.
fn run(environment: &Environment, spoken: &mut Version) -> Result<Done, Fault> {
    let call = environment.call()?;
    if call.verb == Verb::Version {
        return Ok(Done::Said(json!({"cniVersion": Version::NEWEST.text(), "supportedVersions": Version::texts()})));
    }
    let mut stdin = Vec::new();
    let read = io::stdin().lock().take(STDIN_LIMIT + 1).read_to_end(&mut stdin);
    read.map_err(|why| Fault::new(code::IO, format!("error reading from stdin: {}", api::reason(&why))))?;
    if stdin.len() as u64 > STDIN_LIMIT {
        return Err(Fault::new(
            code::DECODING,
            format!("error unmarshall network config: longer than {STDIN_LIMIT} octets"),
        ));
    }
    let network = Network::parse(stdin)?;
    if let Ok(version) = network.version() {
        *spoken = version;
    }
    network.check_name()?;
    if let Verb::Unknown(verb) = &call.verb {
        return Err(Fault::new(code::ENVIRONMENT, format!("unknown CNI_COMMAND: {verb}")));
    }
    let version = network.version_for(&call.verb)?;
    verbs::carry_out(environment, &call, &network, version)
}
