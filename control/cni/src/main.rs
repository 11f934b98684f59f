//! The program `vswitch-cni`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vswitch_cni::main(std::env::args_os()))
}
