//! The command line: which labs, how often, and what is said before and after.
//!
//! Where real interfaces are impossible, `in-memory` runs in the place of the labs that need them, and every claim that
//! is thereby left open is listed: the first and the last line say so.

use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::claim::{Report, print};
use crate::labs::{self, ALIASES, LABS, LabDef, Needs, Options};
use crate::lock::Lock;
use crate::machine::Machine;
use crate::sandbox;

/// Build small networks around the switch, and prove what it does.
#[derive(Debug, Parser)]
#[command(name = "labs", version)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Worker threads of the switch [default: its own choice]
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Run every lab so often
    #[arg(long, value_name = "N", global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Leave the topology standing until Enter is pressed, and the daemon's directory after that
    #[arg(long, global = true)]
    keep: bool,
    /// Print one JSON object instead of lines for people
    #[arg(long, global = true, conflicts_with = "keep")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the labs and their claims
    List,
    /// Run labs by name (without any verb: `run k1`)
    Run {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Run every lab
    All,
}

/// A claim that nobody could try here.
struct Open {
    lab: &'static str,
    claim: &'static str,
}

/// Everything that `labs` does; returns its exit code: 0, or 1 when a claim was disproved, or 2 for wrong usage.
pub fn main() -> u8 {
    let args = Args::parse();
    let wanted = match wanted(args.verb.as_ref()) {
        Ok(wanted) => wanted,
        Err(name) => {
            eprintln!("labs: run: {name}: no lab of that name (labs list)");
            return 2;
        }
    };
    if let Some(Verb::List) = args.verb {
        print(&list());
        return 0;
    }
    // Before anything else that may start a thread.
    let machine = Machine::probe(sandbox::enter());
    match run(&args, &machine, wanted) {
        Ok(proved) => u8::from(!proved),
        Err(error) => {
            eprintln!("labs: {error:#}");
            1
        }
    }
}

/// The labs that were asked for, or the name that is none.
fn wanted(verb: Option<&Verb>) -> Result<Vec<&'static LabDef>, String> {
    match verb {
        Some(Verb::All | Verb::List) => Ok(LABS.to_vec()),
        Some(Verb::Run { names }) => names.iter().map(|name| labs::find(name).ok_or_else(|| name.clone())).collect(),
        None => Ok(labs::find("k1").into_iter().collect()),
    }
}

fn list() -> String {
    let mut text = String::new();
    for lab in LABS {
        let aliases: String =
            ALIASES.iter().filter(|(_, name)| *name == lab.name).map(|(alias, _)| format!(" (also {alias})")).collect();
        text += &format!("{}{aliases}: {}\n", lab.name, lab.help);
        for claim in lab.claims {
            text += &format!("    {claim}\n");
        }
    }
    text.trim_end().to_owned()
}

fn run(args: &Args, machine: &Machine, mut wanted: Vec<&'static LabDef>) -> anyhow::Result<bool> {
    let say = |text: &str| {
        if !args.json {
            print(text);
        }
    };
    let mut open = Vec::new();
    if let Some(why) = machine.lacks_interfaces() {
        say(&format!("labs: NO REAL INTERFACES on this machine ({why}): only in-memory labs run"));
        for lab in wanted.extract_if(.., |lab| lab.needs == Needs::Interfaces) {
            open.extend(lab.claims.iter().map(|claim| Open { lab: lab.name, claim }));
        }
        if wanted.is_empty() {
            wanted.extend(LABS.iter().filter(|lab| lab.needs == Needs::Nothing));
        }
    }
    say(&machine.to_string());
    let _lock = Lock::machine(|| say("labs: waiting for another lab on this machine to end"))?;
    let began = Instant::now();
    let options = Options { workers: args.workers, keep: args.keep };
    let mut reports = Vec::new();
    for lab in wanted {
        for _ in 0..args.repeat {
            reports.push(run_lab(lab, &options, args.json));
        }
    }
    let proved = reports.iter().all(Report::proved);
    if args.json {
        let why = machine.lacks_interfaces();
        let open: Vec<_> = open.iter().map(|open| json!({"lab": open.lab, "claim": open.claim, "why": why})).collect();
        let runs: Vec<_> = reports.iter().map(Report::json).collect();
        print(&json!({"machine": machine.json(), "runs": runs, "not_proved": open, "proved": proved}).to_string());
    } else {
        print(&summary(&reports, &open, machine.lacks_interfaces(), began.elapsed()));
    }
    Ok(proved)
}

fn run_lab(lab: &'static LabDef, options: &Options, quiet: bool) -> Report {
    let mut report = Report::new(lab.name, quiet);
    report.say(&format!("\n{}: {}", lab.name, lab.help));
    let began = Instant::now();
    let outcome = (lab.run)(options, &mut report);
    report.finish(lab.claims, outcome.as_ref().err(), began.elapsed());
    let (proved, all) = report.score();
    report.say(&format!("{}: {proved} of {all} claims proved in {:.1} s", lab.name, began.elapsed().as_secs_f64()));
    report
}

fn summary(reports: &[Report], open: &[Open], why: Option<&str>, took: Duration) -> String {
    let mut text = String::from("\n");
    if !open.is_empty() {
        text += "not proved, for want of real interfaces:\n";
        for open in open {
            text += &format!("  – {}: {}\n", open.lab, open.claim);
        }
    }
    let (proved, all) = reports.iter().map(Report::score).fold((0, 0), |sum, score| (sum.0 + score.0, sum.1 + score.1));
    text += &format!("labs: {proved} of {all} claims proved, each with its control, in {:.1} s", took.as_secs_f64());
    let stopped = reports.iter().filter(|report| report.stopped()).count();
    if stopped > 0 {
        text += &format!("; {stopped} of {} runs stopped with an error", reports.len());
    }
    if let Some(why) = why {
        text += &format!("; {} NOT PROVED: no real interfaces ({why})", open.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_a_verb_the_default_lab_runs() {
        let wanted = wanted(None).expect("k1");
        assert_eq!(wanted.iter().map(|lab| lab.name).collect::<Vec<_>>(), ["two-pods"]);
    }

    #[test]
    fn a_lab_that_is_none_is_refused_by_its_name() {
        let verb = Verb::Run { names: vec!["k1".into(), "k9".into()] };
        assert_eq!(wanted(Some(&verb)).err(), Some("k9".to_owned()));
    }

    #[test]
    fn options_stand_before_or_after_the_verb() {
        for line in [["labs", "--workers", "2", "all"], ["labs", "all", "--workers", "2"]] {
            assert_eq!(Args::try_parse_from(line).expect("valid").workers, Some(2));
        }
        assert!(Args::try_parse_from(["labs", "--workers", "0"]).is_err());
    }

    #[test]
    fn the_last_line_says_what_was_left_open() {
        let open = [Open { lab: "two-pods", claim: "ping" }];
        let text = summary(&[], &open, Some("no /dev/net/tun"), Duration::ZERO);
        let last = text.lines().last().expect("a line");
        assert!(last.contains("1 NOT PROVED: no real interfaces (no /dev/net/tun)"), "{last}");
    }
}
