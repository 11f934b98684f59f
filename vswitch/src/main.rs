//! The binary `vswitchd`; everything is in the library, so that `labs` can be this program, too.

fn main() -> std::process::ExitCode {
    vswitch::main(std::env::args_os()).into()
}
