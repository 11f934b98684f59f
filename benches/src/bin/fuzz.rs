//! `cargo run --release -p benches --bin fuzz -- TARGET`: fuzz one target of the switch, see `benches/fuzz/README.md`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use benches::fuzz::targets::TARGETS;
use benches::fuzz::{Plan, call, report_crashes, run};
use clap::Parser;

/// Fuzz one target of the switch.
#[derive(Parser)]
#[command(name = "fuzz")]
struct Arguments {
    /// What to fuzz, or `list`.
    target: String,
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Start of the sequence of inputs; the same seed gives the same inputs. Default: the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Start from the files of this directory, and write inputs with new outcomes to it. Default: the checked-in
    /// corpus, which is only read.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Run this one input and nothing else.
    #[arg(long)]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    match fuzz(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(arguments: &Arguments) -> Result<()> {
    if arguments.target == "list" {
        TARGETS.iter().for_each(|target| println!("{:10} {}", target.name, target.help));
        return Ok(());
    }
    let Some(target) = TARGETS.iter().find(|target| target.name == arguments.target) else {
        bail!("{}: no such target; `fuzz list` names them", arguments.target);
    };
    report_crashes(target.name);
    if let Some(path) = &arguments.input {
        let input = std::fs::read(path).with_context(|| path.display().to_string())?;
        call(target, &input);
        println!("{}: {}: no crash", target.name, path.display());
        return Ok(());
    }
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let plan = Plan {
        duration: Duration::from_secs(arguments.seconds),
        seed: arguments.seed.unwrap_or_else(now),
        corpus: arguments.corpus.clone().unwrap_or(ours),
        keep: arguments.corpus.is_some(),
    };
    println!("{}: seed {}", target.name, plan.seed);
    let summary = run(target, &plan, &mut |summary, elapsed| {
        // Lines for the first seconds, then now and then: an hour is not read line by line.
        if elapsed.as_secs() <= 5 || elapsed.as_secs().is_multiple_of(60) {
            let rate = summary.executions as f64 / elapsed.as_secs_f64();
            println!(
                "{:6} s  {} executions, {rate:.0}/s, {} outcomes",
                elapsed.as_secs(),
                summary.executions,
                summary.outcomes
            );
        }
    })?;
    println!(
        "{}: seed {}: {} executions, {:.0}/s, {} outcomes, no crash",
        target.name,
        plan.seed,
        summary.executions,
        summary.executions as f64 / arguments.seconds.max(1) as f64,
        summary.outcomes
    );
    Ok(())
}
