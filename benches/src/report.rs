//! What came out of a run: as JSON for programs, as a table for people.
//!
//! The JSON is `{"machine": {...}, "results": [{"scenario", "params", "tsc_per_packet", ...}]}`; a result read back is
//! equal to the one written, so that `compare` works on files of any age. Figures that a scenario has not are 0 or
//! absent, never invented.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What came out, in the order in which it ran.
    pub results: Vec<Outcome>,
}

/// What came out of one scenario with one set of parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: String,
    /// What it was run with: `flows`, `size`, `pcap`, ...
    pub params: BTreeMap<String, serde_json::Value>,
    /// Ticks of the time-stamp counter a packet, everything included; the median window.
    pub tsc_per_packet: f64,
    /// The best window: what the machine can do when its neighbours are silent.
    pub tsc_best: f64,
    /// Nanoseconds a packet; the median window.
    pub ns_per_packet: f64,
    /// Million packets a second.
    pub mpps: f64,
    /// Gigabits a second, frames counted with their FCS, without preamble and gap.
    pub gbps: f64,
    /// Ticks a packet of each step, over the whole run.
    pub steps: BTreeMap<String, f64>,
    /// Ticks a packet that generator and sink take alone; they are part of `tsc_per_packet` and never subtracted.
    pub generator_tsc: f64,
    /// Median time of a packet from ingress to egress.
    pub p50_ns: f64,
    /// 99 of 100 packets are faster.
    pub p99_ns: f64,
    /// 999 of 1000 packets are faster.
    pub p999_ns: f64,
    /// What only this scenario measures, by names that its documentation explains.
    pub figures: BTreeMap<String, f64>,
    /// Packets dropped.
    pub drops: u64,
    /// Packets measured.
    pub packets: u64,
}

impl Outcome {
    /// Scenario and parameters, to tell results apart.
    pub fn label(&self) -> String {
        let params: Vec<String> = self.params.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        format!("{} {}", self.scenario, params.join(" ")).trim_end().to_owned()
    }
}

/// A value without the quotes of JSON.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Report {
    /// Read a report.
    ///
    /// # Errors
    /// When the file cannot be read or is no report; names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{}: not a report of vsbench", path.display()))
    }

    /// Write the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            [
                "scenario",
                "tsc/pkt",
                "best",
                "ns/pkt",
                "Mpps",
                "Gb/s",
                "gen+sink",
                "p50",
                "p99",
                "p99.9",
                "drops",
                "steps; figures",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for outcome in &self.results {
            let steps: Vec<String> = outcome.steps.iter().map(|(name, tsc)| format!("{name} {tsc:.1}")).collect();
            let figures: Vec<String> =
                outcome.figures.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
            rows.push(vec![
                outcome.label(),
                figure(outcome.tsc_per_packet, 1),
                figure(outcome.tsc_best, 1),
                figure(outcome.ns_per_packet, 1),
                figure(outcome.mpps, 3),
                figure(outcome.gbps, 2),
                figure(outcome.generator_tsc, 1),
                time(outcome.p50_ns),
                time(outcome.p99_ns),
                time(outcome.p999_ns),
                outcome.drops.to_string(),
                [steps.join(", "), figures.join(", ")].join("; ").trim_matches([';', ' ']).to_owned(),
            ]);
        }
        columns(&rows)
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} x {}, Linux {}; {:.0} ticks/us, {:.2} clocks/tick; load {:.1}, steal {:.1} %{}",
            self.cpus,
            if self.cpu.is_empty() { "unknown CPU" } else { &self.cpu },
            self.kernel,
            self.tsc_mhz,
            self.clock_ratio,
            self.load,
            self.steal_percent,
            if self.optimised { "" } else { "; DEBUG BUILD, figures mean nothing" },
        )
    }
}

/// A figure, or a dash where there is none.
pub fn figure(value: f64, decimals: usize) -> String {
    if value == 0.0 { "-".to_owned() } else { format!("{value:.decimals$}") }
}

/// A time in the unit that suits it.
fn time(ns: f64) -> String {
    match ns {
        0.0 => "-".to_owned(),
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns => format!("{:.1} us", ns / 1000.0),
    }
}

/// Rows of cells, the first a heading, as lines: the first and last column to the left, the others to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(i, (cell, &width))| {
                    if i == 0 || i + 1 == count { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_names_that_scripts_rely_on_and_is_read_back_unchanged() {
        let outcome = Outcome {
            scenario: "bridge".to_owned(),
            params: BTreeMap::from([("flows".to_owned(), 10_000.into()), ("size".to_owned(), 64.into())]),
            tsc_per_packet: 41.2,
            steps: BTreeMap::from([("parse".to_owned(), 7.9)]),
            ..Outcome::default()
        };
        let report = Report { machine: Machine { tsc_mhz: 2596.0, ..Machine::default() }, results: vec![outcome] };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["machine"]["tsc_mhz"], 2596.0);
        assert_eq!(json["results"][0]["params"]["flows"], 10_000);
        for name in ["tsc_per_packet", "mpps", "gbps", "steps", "p50_ns", "p99_ns", "drops"] {
            assert!(json["results"][0].get(name).is_some(), "{name}");
        }
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["name", "x", "note"], ["a", "12.0", "b"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "name     x  note\na     12.0  b\n");
    }
}
