//! Settings of a node: what was typed, and what it means.
//!
//! Any long option can stand in the TOML file of `--config`, under its name; the command line wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::switch;
use crate::sys::affinity;

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "vswitchd", version, about = "The vswitch daemon", args_override_self = true)]
pub(crate) struct Typed {
    /// Directory of the control socket and the pid files
    #[arg(long, value_name = "DIR", default_value = "/run/vswitch")]
    run_dir: PathBuf,
    /// Directory of the durable configuration
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vswitch")]
    state_dir: PathBuf,
    /// Group (by number) that may use the control socket beside its owner
    #[arg(long, value_name = "GID")]
    socket_group: Option<u32>,
    /// Directory of manifests that describe the cluster, watched
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
    /// CPUs to pin workers to, one worker each, such as 2,4-7
    #[arg(long, value_name = "LIST", conflicts_with = "workers")]
    cpus: Option<String>,
    /// Number of workers, not pinned [default: one on up to 4 CPUs, else a quarter of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Walk one of N hits again and compare (coverage: cache_divergence)
    #[arg(long, value_name = "1/N")]
    shadow: Option<String>,
    /// TOML file with any of these options; the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: LEVEL or TARGET=LEVEL,…
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// What it means.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) socket_group: Option<u32>,
    pub(crate) cluster: Option<PathBuf>,
    pub(crate) switch: switch::Options,
    pub(crate) log: tracing_subscriber::filter::Targets,
}

/// Why the settings cannot be used.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// Help, version, or a usage error in clap's words.
    Usage(clap::Error),
    /// One line: the option or file, the value, the rule.
    Invalid(String),
}

impl Config {
    /// Read the command line (with the program's name in front) and the file that it names.
    pub(crate) fn from_args(args: &[OsString]) -> Result<Self, ConfigError> {
        let typed = Typed::try_parse_from(args).map_err(ConfigError::Usage)?;
        let typed = match &typed.config {
            None => typed,
            Some(file) => {
                let mut all: Vec<OsString> = args.first().cloned().into_iter().collect();
                all.extend(options_of(file).map_err(ConfigError::Invalid)?);
                all.extend(args.iter().skip(1).cloned());
                Typed::try_parse_from(all).map_err(ConfigError::Usage)?
            }
        };
        Self::new(typed).map_err(ConfigError::Invalid)
    }

    fn new(typed: Typed) -> Result<Self, String> {
        let usable = affinity::usable();
        let cpus = match &typed.cpus {
            None => Vec::new(),
            Some(list) => affinity::parse_list(list).map_err(|why| format!("--cpus {list}: {why}"))?,
        };
        if let Some(cpu) = cpus.iter().find(|cpu| !usable.contains(cpu)) {
            return Err(format!("--cpus {cpu}: this process may not run there; it may on {usable:?}"));
        }
        let default = if usable.len() <= 4 { 1 } else { usable.len() / 4 };
        let workers = match (typed.workers, cpus.len()) {
            (Some(workers), _) => usize::from(workers),
            (None, 0) => default,
            (None, pinned) => pinned,
        };
        let shadow = match typed.shadow.as_deref() {
            None => 0,
            Some(text) => text
                .strip_prefix("1/")
                .and_then(|n| n.parse().ok())
                .filter(|&n| n != 0)
                .ok_or_else(|| format!("--shadow {text}: 1/N is expected, such as 1/1000"))?,
        };
        let log = typed.log.parse().map_err(|why| format!("--log {}: {why}", typed.log))?;
        let switch = switch::Options { workers, cpus, shadow, ..switch::Options::default() };
        let Typed { run_dir, state_dir, socket_group, cluster, .. } = typed;
        Ok(Self { run_dir, state_dir, socket_group, cluster, switch, log })
    }
}

/// The options in a file, as they would be typed.
fn options_of(file: &Path) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(file).map_err(|why| format!("--config {}: {why}", file.display()))?;
    let table: toml::Table = text.parse().map_err(|why: toml::de::Error| {
        let line = why.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
        format!("--config {}: line {line}: {}", file.display(), why.message())
    })?;
    let mut options = Vec::new();
    for (name, value) in table {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => {
                return Err(format!(
                    "--config {}: {name}: {}: text or a number is expected",
                    file.display(),
                    other.type_str()
                ));
            }
        };
        if name == "config" {
            return Err(format!("--config {}: config: a file cannot name another", file.display()));
        }
        options.push(OsString::from(format!("--{name}={text}")));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args: Vec<OsString> = std::iter::once("vswitchd").chain(args.iter().copied()).map(OsString::from).collect();
        Config::from_args(&args).map_err(|error| match error {
            ConfigError::Usage(error) => error.to_string(),
            ConfigError::Invalid(why) => why,
        })
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vswitch.toml");
        std::fs::write(&file, "run-dir = \"/tmp/a\"\nworkers = 2\n").unwrap();
        let file = file.to_str().unwrap();
        let from_file = config(&["--config", file]).unwrap();
        assert_eq!((from_file.run_dir, from_file.switch.workers), (PathBuf::from("/tmp/a"), 2));
        let both = config(&["--run-dir", "/tmp/b", "--config", file]).unwrap();
        assert_eq!((both.run_dir, both.switch.workers), (PathBuf::from("/tmp/b"), 2));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vswitch.toml");
        let path = file.to_str().unwrap();
        for (text, says) in [("workers = ", "line 1"), ("colour = 1", "--colour"), ("workers = [1]", "workers")] {
            std::fs::write(&file, text).unwrap();
            let why = config(&["--config", path]).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        for (args, says) in [
            (["--cpus", "4095"], "4095"),
            (["--cpus", "x"], "--cpus x"),
            (["--workers", "0"], "0"),
            (["--shadow", "7"], "--shadow 7"),
            (["--config", "/nonexistent"], "/nonexistent"),
        ] {
            let why = config(&args).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
