//! Verbs that vsctl knows beside those of `api::verb`, which are one question and one answer.

use crate::Failure;
use crate::options::{Options, Segment};

mod acl;
pub(crate) mod ask;
mod capture;
mod completion;
pub(crate) mod help;
mod manifests;
mod top;

/// A verb of vsctl's own.
pub(crate) struct CommandDef {
    /// What is typed.
    pub(crate) name: &'static str,
    /// What stands behind it.
    pub(crate) usage: &'static str,
    /// What it does, in one line.
    pub(crate) help: &'static str,
    /// Do it; returns the exit code.
    pub(crate) run: fn(&Options, &Segment) -> Result<u8, Failure>,
}

/// In the order in which help lists them.
pub(crate) const COMMANDS: &[CommandDef] = &[
    manifests::APPLY,
    manifests::DELETE,
    acl::LOAD,
    capture::COMMAND,
    top::COMMAND,
    help::COMMAND,
    completion::COMMAND,
];

/// The words behind the verb, if they are as many as they may be.
pub(crate) fn words<'a>(def: &CommandDef, segment: &'a Segment, most: usize) -> Result<&'a [String], Failure> {
    let words = segment.words.get(1..).unwrap_or_default();
    if words.len() > most {
        return Err(Failure::Usage(format!("'{}' command takes at most {most} arguments", def.name)));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_hides_one_of_the_daemon() {
        for def in COMMANDS {
            assert!(api::verb::VERBS.iter().all(|verb| verb.name != def.name), "{}", def.name);
        }
    }
}
