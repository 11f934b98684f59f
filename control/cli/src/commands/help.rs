//! `help`: every verb in a line, or one verb in full.

use std::fmt::Write as _;
use std::io::{self, Write};

use api::verb::VERBS;
use clap::CommandFactory;

use super::{COMMANDS, CommandDef, words};
use crate::Failure;
use crate::options::{Options, Segment};

pub(crate) const COMMAND: CommandDef = CommandDef {
    name: "help",
    usage: "[VERB]",
    help: "this list, or one verb in full",
    run: |options, segment| {
        let verb = words(&COMMAND, segment, 1)?;
        run(options, &Segment { words: verb.to_vec(), ..Segment::default() })
    },
};

/// Help on the verb in `segment`, or on everything.
pub(crate) fn run(_: &Options, segment: &Segment) -> Result<u8, Failure> {
    let text = match segment.words.first() {
        None => everything(),
        Some(verb) => one(verb).ok_or_else(|| Failure::Usage(format!("help: unknown command '{verb}'")))?,
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// Name, usage, help of every verb.
pub(crate) fn verbs() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let asked = VERBS.iter().map(|def| (def.name, def.usage, def.help));
    asked.chain(COMMANDS.iter().map(|def| (def.name, def.usage, def.help)))
}

fn everything() -> String {
    let mut text = "vsctl: program and look at a running vswitchd\n\
                    usage: vsctl [OPTION]... VERB [ARGUMENT]... [-- VERB [ARGUMENT]...]...\n\nVerbs:\n"
        .to_owned();
    for (name, usage, help) in verbs() {
        let _ = writeln!(text, "  {:<44} {help}", format!("{name} {usage}"));
    }
    text + "\nDatabase verbs (show to find) chain with -- into one transaction: all of it is done, or nothing.\n\n\
            Options, before or behind the verb:\n"
        + &options(|_| true)
}

fn one(verb: &str) -> Option<String> {
    let (name, usage, help) = verbs().find(|(name, ..)| *name == verb)?;
    let mut text = format!("usage: vsctl {}\n  {help}\n", format!("{name} {usage}").trim_end());
    let own = VERBS.iter().find(|def| def.name == name).map_or(&[][..], |def| def.options);
    let listed = options(|arg| match name {
        "apply" | "delete" => arg.get_long().is_some_and(|long| ["filename", "namespace"].contains(&long)),
        "capture" => matches!(arg.get_id().as_str(), "write" | "count"),
        _ => arg.get_long().is_some_and(|long| own.iter().any(|def| def.long == long)),
    });
    if !listed.is_empty() {
        let _ = write!(text, "\nOptions:\n{listed}");
    }
    Some(text)
}

/// Options that are wanted, each in a line.
fn options(wanted: impl Fn(&clap::Arg) -> bool) -> String {
    let mut text = String::new();
    for arg in Segment::command().get_arguments().filter(|arg| !arg.is_positional() && wanted(arg)) {
        let short = arg.get_short().map(|c| format!("-{c}"));
        let long = arg.get_long().map(|long| format!("--{long}"));
        let mut left = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
        let takes_value = arg.get_action().takes_values();
        let values: Vec<_> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        match arg.get_value_names() {
            Some(_) if takes_value && !values.is_empty() => left += &format!(" {}", values.join("|")),
            Some([name, ..]) if takes_value => left += &format!(" {name}"),
            _ => {}
        }
        let _ = writeln!(text, "  {left:<24} {}", arg.get_help().map(ToString::to_string).unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_knows_every_verb_and_the_options_of_each() {
        let all = everything();
        for (name, ..) in verbs() {
            assert!(all.contains(&format!("\n  {name} ")), "{name}");
            assert!(one(name).unwrap().starts_with(&format!("usage: vsctl {name}")));
        }
        assert!(one("add-br").unwrap().contains("--may-exist"));
        assert!(!one("show").unwrap().contains("Options"));
        assert!(one("capture").unwrap().contains("-w FILE"));
        assert!(all.contains("--format table|json"), "{all}");
        assert!(one("fly").is_none());
    }
}
