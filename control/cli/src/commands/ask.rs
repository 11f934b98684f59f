//! One question, one answer: every verb of the daemon.

use std::io::{self, Write};

use api::reply::{self, Output, Outputs, Verified};
use api::{Request, rpc::ClientError};

use crate::Failure;
use crate::options::{Format, Options};

/// Ask, and print the answer.
pub(crate) fn run(options: &Options, request: &Request) -> Result<u8, Failure> {
    let answer = options.connect()?.ask(request).map_err(|error| match error {
        // The daemon names the verb itself.
        ClientError::Refused(_) => Failure::from(error),
        error => Failure::Refused(format!("{}: {error}", verb(request))),
    })?;
    let not_understood = |why: String| Failure::Refused(format!("{}: {why}", verb(request)));
    let mut code = 0;
    let mut text = String::new();
    if let Request::Transact { .. } = request {
        let outputs: Outputs = serde_json::from_value(answer.clone()).map_err(|e| not_understood(e.to_string()))?;
        if outputs.0.contains(&Output::Exists(false)) {
            code = 2;
        }
        if options.format == Format::Json {
            // One line a command that has something to say.
            for answer in answer.as_array().into_iter().flatten() {
                let inner = answer.as_object().and_then(|object| object.values().next());
                text.extend(inner.map(|value| format!("{value}\n")));
            }
        }
    } else if options.format == Format::Json {
        text = format!("{answer}\n");
    }
    if let Request::Verify { .. } = request {
        let verified: Verified = serde_json::from_value(answer.clone()).map_err(|e| not_understood(e.to_string()))?;
        code = u8::from(!verified.holds());
    }
    if options.format == Format::Table {
        text = reply::text(request, answer).map_err(not_understood)?;
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(code)
}

fn verb(request: &Request) -> String {
    match request {
        Request::Transact { commands } => commands.first().map_or("transact", |command| command.verb()).to_owned(),
        request => request.to_wire().0,
    }
}
