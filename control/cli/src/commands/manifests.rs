//! `apply` and `delete`: files of manifests, read here, sent as they are. What is in them, the daemon says.
//!
//! An object that is refused is a line on standard error and exit code 1; all others are taken.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use api::option::{FILENAME, NAMESPACE};
use api::reply::{Objects, Outcome};
use api::request::{Manifest, Request};

use super::{CommandDef, words};
use crate::Failure;
use crate::options::{Format, Options, Segment};

pub(crate) const APPLY: CommandDef = CommandDef {
    name: "apply",
    usage: "-f FILE|DIR|-",
    help: "take the objects of manifests into the cluster",
    run: |options, segment| {
        words(&APPLY, segment, 0)?;
        let namespace = namespace(segment);
        run(options, "apply", read("apply", segment)?, |manifests| Request::Apply {
            manifests,
            namespace: namespace.clone(),
        })
    },
};

pub(crate) const DELETE: CommandDef = CommandDef {
    name: "delete",
    usage: "-f FILE|DIR|- | KIND NAME...",
    help: "take objects that were applied out of the cluster",
    run: |options, segment| {
        let words = words(&DELETE, segment, usize::MAX)?;
        let namespace = namespace(segment);
        let files = segment.of_verb.values(&FILENAME);
        let (kind, names) = match words {
            [] => {
                return run(options, "delete", read("delete", segment)?, |manifests| Request::Delete {
                    manifests,
                    kind: None,
                    names: Vec::new(),
                    namespace: namespace.clone(),
                });
            }
            _ if !files.is_empty() => return Err(Failure::Usage("delete: -f, or KIND NAME, not both".to_owned())),
            // `svc/web` is what is printed.
            [one] => match one.split_once('/') {
                Some((kind, name)) => (kind.to_owned(), vec![name.to_owned()]),
                None => return Err(Failure::Usage(format!("delete: {one}: which? (KIND NAME, or -f FILE)"))),
            },
            [kind, names @ ..] => (kind.clone(), names.to_vec()),
        };
        let request = |manifests| Request::Delete {
            manifests,
            kind: Some(kind.clone()),
            names: names.clone(),
            namespace: namespace.clone(),
        };
        run(options, "delete", vec![Vec::new()], request)
    },
};

/// Octets of text in one request, unless one file has more. Far below what the daemon takes.
const REQUEST: usize = 32 << 20;
/// Octets of a file at most; the daemon's limit.
const FILE_LIMIT: u64 = 64 << 20;

fn namespace(segment: &Segment) -> Option<String> {
    segment.of_verb.values(&NAMESPACE).last().cloned()
}

/// Send, print, and say with the exit code whether all were taken.
fn run(
    options: &Options,
    verb: &str,
    batches: Vec<Vec<Manifest>>,
    request: impl Fn(Vec<Manifest>) -> Request,
) -> Result<u8, Failure> {
    let mut client = options.connect()?;
    let mut code = 0;
    for manifests in batches {
        let answer = client.ask(&request(manifests)).map_err(|error| match error {
            api::rpc::ClientError::Refused(_) => Failure::from(error),
            error => Failure::Refused(format!("{verb}: {error}")),
        })?;
        let not_understood = |e| Failure::Refused(format!("{verb}: answer not understood: {e}"));
        let rows: Objects = serde_json::from_value(answer.clone()).map_err(not_understood)?;
        let (refused, taken): (Vec<_>, Vec<_>) =
            rows.0.into_iter().partition(|row| matches!(row.outcome, Outcome::Refused(_)));
        let mut out = io::BufWriter::new(io::stdout().lock());
        match options.format {
            Format::Json => writeln!(out, "{answer}")?,
            Format::Table => write!(out, "{}", Objects(taken))?,
        }
        out.flush()?;
        for row in refused {
            code = 1;
            let _ = writeln!(io::stderr(), "vsctl: {verb}: {}", row.to_string().replace(['\n', '\r'], " "));
        }
    }
    Ok(code)
}

/// The files that `-f` names, in requests of a good size.
fn read(verb: &str, segment: &Segment) -> Result<Vec<Vec<Manifest>>, Failure> {
    let files = segment.of_verb.values(&FILENAME);
    if files.is_empty() {
        return Err(Failure::Usage(format!("{verb}: which file? (-f FILE, a directory, or - for standard input)")));
    }
    let failed = |name: &str, e: &io::Error| Failure::Refused(format!("{verb}: {name}: {}", api::reason(e)));
    let (mut batches, mut size) = (vec![Vec::new()], 0);
    for file in files {
        for name in names_of(file).map_err(|e| failed(file, &e))? {
            let text = text_of(&name).map_err(|e| failed(&name, &e))?;
            if size > 0 && size + text.len() > REQUEST {
                batches.push(Vec::new());
                size = 0;
            }
            size += text.len();
            if let Some(batch) = batches.last_mut() {
                batch.push(Manifest { name, text });
            }
        }
    }
    Ok(batches)
}

/// The manifests in a directory, by name; or the one file.
fn names_of(file: &str) -> io::Result<Vec<String>> {
    if file == "-" || !fs::metadata(file)?.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(file)? {
        let path = entry?.path();
        let is_manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if is_manifest && path.is_file() {
            let name = path.to_str().ok_or_else(|| io::Error::other("a file whose name is not UTF-8"))?;
            names.push(name.to_owned());
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(io::Error::other("no *.yaml, *.yml or *.json in it"));
    }
    Ok(names)
}

/// The text of a file, `-` for standard input.
pub(super) fn text_of(name: &str) -> io::Result<String> {
    let mut text = String::new();
    let too_long = || io::Error::other(format!("more than {FILE_LIMIT} octets"));
    let input: Box<dyn Read> =
        if name == "-" { Box::new(io::stdin()) } else { Box::new(fs::File::open(Path::new(name))?) };
    input.take(FILE_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LIMIT { Err(too_long()) } else { Ok(text) }
}
