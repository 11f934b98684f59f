//! The program `vsctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vsctl::main(std::env::args_os()))
}
