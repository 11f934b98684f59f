//! `labs`: runs topologies that teach and assert. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match labs::daemon::dispatch() {
        Some(code) => code.into(),
        None => labs::runner::main().into(),
    }
}
