//! `completion`: a script that makes a shell complete verbs and options.

use std::io::{self, Write};

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{CommandDef, help, words};
use crate::Failure;
use crate::options::{Options, Segment};

pub(crate) const COMMAND: CommandDef =
    CommandDef { name: "completion", usage: "bash|zsh|fish", help: "completion script for a shell", run };

fn run(_: &Options, segment: &Segment) -> Result<u8, Failure> {
    let shell = match words(&COMMAND, segment, 1)? {
        [word] => Shell::from_str(word, false).ok().filter(|s| matches!(s, Shell::Bash | Shell::Zsh | Shell::Fish)),
        _ => None,
    };
    let shell = shell.ok_or_else(|| Failure::Usage("completion: which shell: bash, zsh or fish?".to_owned()))?;
    io::stdout().write_all(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> Vec<u8> {
    // Verbs are subcommands here: to complete them is all that clap knows of them.
    let mut command = Segment::command().mut_args(|arg| if arg.is_positional() { arg.hide(true) } else { arg });
    command = command
        .no_binary_name(false)
        .subcommands(help::verbs().map(|(name, _, help)| clap::Command::new(name).about(help).disable_help_flag(true)));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "vsctl", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_all_shells_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["vsctl", "add-br", "dump-ports", "capture", "may-exist"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
