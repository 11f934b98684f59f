//! The same work on other switches, alternating in one run, as a table of ratios.
//!
//! Two kinds of work. *Captures*: two looping pcap ports, the same frames for everyone, one forwarding core; the figure
//! is tsc ticks a packet. *Hosts*: two network namespaces with the switch between them; the figures are one TCP
//! stream's payload and small datagrams received. Peers take turns in every round, so that a noisy minute hits all of
//! them; the table shows medians. What is not installed has a row that says so.
//!
//! README.md tells what exactly each peer is asked to do.

mod captures;
mod kernel;
mod ours;
mod ovs;
mod process;
mod testpmd;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use benches::machine::{CpuTime, Machine};
use benches::report::{columns, figure};
use clap::Parser;
use serde::Serialize;

/// The same work on this switch and on others, alternating; prints ratios.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Arguments {
    /// Pairs of stations in the captures.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10_000, 100_000])]
    flows: Vec<usize>,
    /// Times that every peer has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn, without warm-up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// CPU of the switch that has its turn; everything else runs on CPU 0.
    #[arg(long, default_value_t = 1)]
    cpu: u16,
    /// Only these kinds of work: `captures`, `hosts`.
    #[arg(long, value_delimiter = ',', default_values = ["captures", "hosts"])]
    work: Vec<String>,
    /// Only peers whose name begins so (and this switch).
    #[arg(long)]
    only: Option<String>,
    /// Write everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One switch doing one piece of work.
trait Peer {
    /// What the table calls it.
    fn name(&self) -> &str;

    /// Do the work once, for `duration`.
    fn turn(&mut self, duration: Duration) -> Result<f64>;
}

/// A piece of work, and who does it. The first peer is this switch.
struct Contest<'a> {
    work: String,
    unit: &'static str,
    /// Ratios are said so that more than 1 means that this switch is better.
    less_is_better: bool,
    peers: Vec<Box<dyn Peer + 'a>>,
}

/// What one peer came to in one piece of work.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    unit: &'static str,
    peer: String,
    median: f64,
    rounds: Vec<f64>,
    /// Percent of CPU time that the hypervisor took, round by round.
    steal: Vec<f64>,
    /// How many times better this switch is; absent where either has no figure.
    ours_is_better: Option<f64>,
    /// Why a figure is missing.
    note: Option<String>,
}

#[derive(Serialize)]
struct Everything<'a> {
    machine: &'a Machine,
    rows: &'a [Row],
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut machine = Machine::measure();
    println!("{machine}");
    let time = CpuTime::now();
    let directory = process::Directory::new("peers")?;
    let mut rows = Vec::new();
    if arguments.work.iter().any(|work| work == "captures") {
        for &flows in &arguments.flows {
            rows.extend(hold(captures::contest(flows, arguments.cpu, &machine, &directory)?, arguments));
        }
    }
    if arguments.work.iter().any(|work| work == "hosts") {
        for contest in kernel::contests(arguments.cpu, &directory) {
            rows.extend(hold(contest, arguments));
        }
    }
    machine.steal_percent = time.steal_percent();
    print!("\n{}\n{}", machine, table(&rows));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&Everything { machine: &machine, rows: &rows })? + "\n")?;
    }
    Ok(())
}

/// Let all peers have their turns, round by round.
fn hold(mut contest: Contest<'_>, arguments: &Arguments) -> Vec<Row> {
    if let Some(only) = &arguments.only {
        contest.peers.retain(|peer| peer.name().starts_with(only.as_str()) || peer.name() == ours::NAME);
    }
    let row = |peer: &dyn Peer| Row {
        work: contest.work.clone(),
        unit: contest.unit,
        peer: peer.name().to_owned(),
        median: 0.0,
        rounds: Vec::new(),
        steal: Vec::new(),
        ours_is_better: None,
        note: None,
    };
    let mut rows: Vec<Row> = contest.peers.iter().map(|peer| row(peer.as_ref())).collect();
    for round in 1..=arguments.rounds {
        for (peer, row) in contest.peers.iter_mut().zip(&mut rows).filter(|(_, row)| row.note.is_none()) {
            let time = CpuTime::now();
            match peer.turn(Duration::from_secs_f64(arguments.seconds)) {
                Ok(value) => {
                    let steal = time.steal_percent();
                    eprintln!("{} round {round}: {}: {value:.1} {} (steal {steal:.1} %)", row.work, row.peer, row.unit);
                    row.rounds.push(value);
                    row.steal.push(steal);
                }
                // A peer that failed once would fail again, and its turns would only take time.
                Err(error) => row.note = Some(format!("{error:#}")),
            }
        }
    }
    for row in &mut rows {
        row.median = median(&row.rounds);
    }
    let ours = rows.first().map_or(0.0, |row| row.median);
    for row in &mut rows {
        let (better, worse) = if contest.less_is_better { (ours, row.median) } else { (row.median, ours) };
        row.ours_is_better = (better > 0.0 && worse > 0.0).then(|| worse / better);
    }
    rows
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn table(rows: &[Row]) -> String {
    let heading = ["work", "peer", "median", "least", "most", "unit", "ours is better by", ""];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        cells.push(vec![
            row.work.clone(),
            row.peer.clone(),
            figure(row.median, 2),
            figure(row.rounds.iter().copied().reduce(f64::min).unwrap_or_default(), 2),
            figure(row.rounds.iter().copied().reduce(f64::max).unwrap_or_default(), 2),
            row.unit.to_owned(),
            row.ours_is_better.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    columns(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str, Option<f64>);

    impl Peer for Fixed {
        fn name(&self) -> &str {
            self.0
        }
        fn turn(&mut self, _duration: Duration) -> Result<f64> {
            self.1.ok_or_else(|| anyhow::anyhow!("not installed"))
        }
    }

    #[test]
    fn a_ratio_above_one_means_that_this_switch_is_better() {
        for (less_is_better, expected) in [(true, 8.0), (false, 0.125)] {
            let peers: Vec<Box<dyn Peer>> = vec![
                Box::new(Fixed(ours::NAME, Some(40.0))),
                Box::new(Fixed("x", Some(320.0))),
                Box::new(Fixed("y", None)),
            ];
            let contest = Contest { work: "w".into(), unit: "u", less_is_better, peers };
            let rows = hold(contest, &Arguments::parse_from(["peers", "--rounds", "2"]));
            assert_eq!(rows[1].ours_is_better, Some(expected));
            assert_eq!(rows[1].rounds.len(), 2);
            assert_eq!((rows[2].ours_is_better, rows[2].note.as_deref()), (None, Some("not installed")));
        }
    }
}
