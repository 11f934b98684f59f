//! `vsctl`: what people type, sent to the daemon as it is, and the answer printed.
//!
//! The client knows no more of the switch than the words of `api::verb`; what a verb does and refuses, the daemon says.
//! Verbs that need more than one question and one answer are in `commands/`.

use std::ffi::OsString;
use std::io::{self, Write};

use api::Request;
use api::rpc::ClientError;

mod commands;
mod options;

use options::Segment;

/// Everything that ends a run early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed makes no sense: exit 2.
    Usage(String),
    /// Refused by the daemon, or failed on the way: exit 1.
    Refused(String),
    /// Nobody reads what is printed: nothing is wrong.
    Closed,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Refused(format!("output: {}", api::reason(&error))),
        }
    }
}

/// Run `vsctl` with the arguments of a command line, its own name first. Returns the exit code: 0 done, 1 refused or
/// failed, 2 usage (and `br-exists` of an absent bridge).
pub fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let code = match run(args.skip(1)) {
        Ok(code) => return code,
        Err(Failure::Closed) => return 0,
        Err(Failure::Usage(why)) => (2, why),
        Err(Failure::Refused(why)) => (1, why),
    };
    // When nobody listens there either, the exit code has to do.
    let _ = writeln!(io::stderr(), "vsctl: {}", code.1.replace('\n', " "));
    code.0
}

fn run(args: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let (options, segments) = options::parse(args)?;
    if options.help {
        let words = segments.into_iter().flat_map(|segment| segment.words).collect();
        return commands::help::run(&options, &Segment { words, ..Segment::default() });
    }
    if options.version {
        writeln!(io::stdout(), "vsctl {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(0);
    }
    if let [segment] = &segments[..]
        && let Some(command) =
            commands::COMMANDS.iter().find(|def| segment.words.first().is_some_and(|w| w == def.name))
    {
        return (command.run)(&options, segment);
    }
    commands::ask::run(&options, &chain(&segments)?)
}

/// The request that a command line is: one verb, or a chain of database commands.
fn chain(segments: &[Segment]) -> Result<Request, Failure> {
    let mut requests = segments.iter().map(|segment| {
        if segment.write.is_some() || segment.count.is_some() {
            return Err(Failure::Usage("-w and -c belong to capture".to_owned()));
        }
        api::verb::parse(&segment.all_words()).map_err(Failure::Usage)
    });
    let first = requests
        .next()
        .unwrap_or_else(|| Err(Failure::Usage("missing command name (use --help for help)".to_owned())))?;
    let mut commands = match first {
        Request::Transact { commands } => commands,
        single if segments.len() == 1 => return Ok(single),
        single => return Err(no_chain(&single)),
    };
    for request in requests {
        match request? {
            Request::Transact { commands: more } => commands.extend(more),
            single => return Err(no_chain(&single)),
        }
    }
    Ok(Request::Transact { commands })
}

fn no_chain(request: &Request) -> Failure {
    Failure::Usage(format!("{}: not a database command: it cannot stand in a chain", request.to_wire().0))
}
