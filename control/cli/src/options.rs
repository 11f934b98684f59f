//! The command line: options anywhere, commands apart.
//!
//! `--` stands between commands, as in ovs-vsctl, so each piece between two of them is read on its own. Options of
//! vsctl itself may stand in any piece; options of a verb belong to the piece they stand in.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use api::option::{OPTIONS, OptionDef};
use api::rpc::Client;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, ValueEnum};

use crate::Failure;

/// Where the daemon listens when nobody says otherwise.
const SOCKET: &str = "/run/vswitch/ctl.sock";
/// How long the daemon may take to answer when nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one line of JSON an answer.
    Json,
}

/// What was said about vsctl itself.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) socket: PathBuf,
    pub(crate) format: Format,
    pub(crate) timeout: Duration,
    pub(crate) help: bool,
    pub(crate) version: bool,
}

impl Options {
    /// A connection to the daemon.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket, Some(self.timeout))?)
    }
}

/// One piece of the command line, as it was typed.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "vsctl", disable_help_flag = true, disable_help_subcommand = true, no_binary_name = true)]
pub(crate) struct Segment {
    /// The verb and what stands behind it.
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// The daemon's control socket [default: $VSWITCH_SOCKET or /run/vswitch/ctl.sock].
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
    /// How answers are printed [default: table].
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// How long the daemon may take to answer [default: 30].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) of_verb: OfVerb,
    /// Write frames to a pcap file, `-` for standard output (capture).
    #[arg(short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,
    /// Stop after so many frames (capture).
    #[arg(short, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Print help.
    #[arg(long, short)]
    pub(crate) help: bool,
    /// Print the version of vsctl.
    #[arg(long, short = 'V')]
    pub(crate) version: bool,
}

/// Options of the verb: those of `api::option::OPTIONS`, in its order, each with its values.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfVerb(Vec<(&'static OptionDef, Vec<String>)>);

impl OfVerb {
    /// Values of an option, in the order in which they were typed.
    pub(crate) fn values(&self, option: &OptionDef) -> &[String] {
        self.0.iter().find(|(def, _)| *def == option).map_or(&[], |(_, values)| values)
    }
}

impl Args for OfVerb {
    fn augment_args(command: Command) -> Command {
        command.args(OPTIONS.iter().map(|def| {
            let arg = Arg::new(def.long).long(def.long).help(format!("{}.", def.help));
            let arg = def.short.into_iter().fold(arg, Arg::short);
            match def.value {
                Some(name) => arg.value_name(name).action(ArgAction::Append),
                None => arg.action(ArgAction::SetTrue),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OfVerb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = OPTIONS.iter().filter_map(|def| match def.value {
            Some(_) => Some((def, matches.get_many(def.long)?.cloned().collect())),
            None => matches.get_flag(def.long).then(|| (def, Vec::new())),
        });
        Ok(Self(typed.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Segment {
    /// The words with the options that belong to the verb, as `api::verb` reads them.
    pub(crate) fn all_words(&self) -> Vec<String> {
        let mut words = self.words.clone();
        for (def, values) in &self.of_verb.0 {
            match def.value {
                Some(_) => words.extend(values.iter().map(|value| format!("--{}={value}", def.long))),
                None => words.push(format!("--{}", def.long)),
            }
        }
        words
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.001..=86_400.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds from 0.001 to 86400".to_owned())
}

/// Read a command line, without the name of the program.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<(Options, Vec<Segment>), Failure> {
    let args: Vec<_> = args.collect();
    let pieces = args.split(|arg| arg == "--").filter(|piece| !piece.is_empty());
    let segments =
        pieces.map(|piece| Segment::try_parse_from(piece).map_err(|e| usage(&e))).collect::<Result<Vec<_>, _>>()?;
    let socket = segments.iter().find_map(|segment| segment.socket.clone());
    let from_environment = || std::env::var_os("VSWITCH_SOCKET").filter(|path| !path.is_empty());
    let options = Options {
        socket: socket.unwrap_or_else(|| from_environment().unwrap_or_else(|| SOCKET.into()).into()),
        format: segments.iter().find_map(|segment| segment.format).unwrap_or_default(),
        timeout: segments.iter().find_map(|segment| segment.timeout).unwrap_or(TIMEOUT),
        help: segments.iter().any(|segment| segment.help),
        version: segments.iter().any(|segment| segment.version),
    };
    // A piece with nothing but options of vsctl itself is no command.
    Ok((options, segments.into_iter().filter(|segment| !segment.all_words().is_empty()).collect()))
}

/// What clap says, in one line: the lines behind the first are advice.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Failure::Usage(line.trim_start_matches("error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Options, Vec<Segment>), Failure> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_stand_before_or_behind_the_verb() {
        for line in [
            "--socket /s --timeout 2 --may-exist add-br br0 -- add-port br0 p1 --format json",
            "add-br --may-exist br0 --socket=/s -- --format=json add-port br0 p1 --timeout=2",
            "--socket /s -- --may-exist add-br br0 --format json -- add-port br0 --timeout 2 p1",
        ] {
            let (options, segments) = read(line).unwrap();
            assert_eq!(options.socket, PathBuf::from("/s"));
            assert_eq!((options.format, options.timeout), (Format::Json, Duration::from_secs(2)));
            let words: Vec<_> = segments.iter().map(Segment::all_words).collect();
            assert_eq!(words, [vec!["add-br", "br0", "--may-exist"], vec!["add-port", "br0", "p1"]], "{line}");
        }
    }

    #[test]
    fn a_value_stands_behind_its_option_or_its_letter() {
        for line in ["list Port --columns a,b", "--columns=a,b list Port"] {
            assert_eq!(read(line).unwrap().1[0].all_words(), ["list", "Port", "--columns=a,b"], "{line}");
        }
        for line in ["get pods -n kube-system -A -oyaml", "-n=kube-system get -A pods --output yaml"] {
            let words = ["get", "pods", "--namespace=kube-system", "--all-namespaces", "--output=yaml"];
            assert_eq!(read(line).unwrap().1[0].all_words(), words, "{line}");
        }
        let words = read("apply -f a.yaml -f -").unwrap().1[0].all_words();
        assert_eq!(words, ["apply", "--filename=a.yaml", "--filename=-"]);
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error_of_one_line() {
        for line in ["add-br br0 --fast", "--timeout x show", "--timeout -1 show", "--format xml show", "show --socket"]
        {
            let Err(Failure::Usage(why)) = read(line) else { panic!("{line}") };
            assert!(!why.is_empty() && !why.contains('\n') && !why.starts_with("error"), "{why}");
        }
    }

    #[test]
    fn the_definition_of_the_options_is_sound() {
        <Segment as clap::CommandFactory>::command().debug_assert();
    }
}
