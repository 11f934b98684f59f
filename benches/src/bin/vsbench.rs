//! `vsbench`: how many packets a second, and what each costs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use benches::frames::Size;
use benches::machine::{CpuTime, Machine};
use benches::report::{Outcome, Report, columns};
use benches::scenarios::{Params, SCENARIOS, Scale, ScenarioDef};
use benches::{compare, plot};
use clap::Parser;
use vswitch::sys::affinity::parse_list;
use vswitch::sys::netns::Namespace;

/// Stand-alone throughput benchmark of the switch.
#[derive(Debug, Parser)]
#[command(name = "vsbench", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Scenarios to run, `all`, `list`, or `compare A.json B.json`.
    #[arg(value_name = "SCENARIO", default_value = "list")]
    words: Vec<String>,
    /// Flows: pairs of stations. Without it, each scenario runs its ladder.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1 << 23))]
    flows: Option<u32>,
    /// Prefixes of the routing table. Without it, `route` runs its ladder.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1 << 23))]
    prefixes: Option<u32>,
    /// Services.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    services: u32,
    /// Rules of network policies.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rules: u32,
    /// Octets of a frame with its FCS, 64 to 1518, or `imix`.
    #[arg(long, default_value = "64")]
    size: Size,
    /// Send the frames of this capture, divided between the ports by who speaks to whom; or of two, one for each port.
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    pcap: Vec<PathBuf>,
    /// CPUs for the workers, as in `0,2-3`.
    #[arg(long, value_parser = cpus)]
    cpus: Option<Cpus>,
    /// Seconds to measure each step of a ladder.
    #[arg(long, default_value = "3", value_parser = seconds)]
    duration: Duration,
    /// Write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the results into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// Flows under one prefix.
const FLOWS: usize = 1000;

/// A list of CPUs, as one value to clap.
#[derive(Clone, Debug, Default)]
struct Cpus(Vec<u16>);

fn cpus(text: &str) -> Result<Cpus, String> {
    parse_list(text).map(Cpus)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds are 0.01 to 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            print!("{}", list());
            Ok(())
        }
        ["compare", a, b] => {
            print!("{}", compare::compare(&Report::read(a.as_ref())?, &Report::read(b.as_ref())?));
            Ok(())
        }
        ["compare", ..] => bail!("compare: wants two files: vsbench compare A.json B.json"),
        names => measure(&chosen(names)?, &arguments),
    }
}

fn list() -> String {
    let row = |def: &&ScenarioDef| vec![def.name.to_owned(), def.help.to_owned()];
    columns(&SCENARIOS.iter().map(row).collect::<Vec<_>>())
}

/// The scenarios of these names, in the order of the names.
fn chosen(names: &[&str]) -> Result<Vec<&'static ScenarioDef>> {
    if names == ["all"] {
        let allowed = Namespace::new().is_ok();
        let (run, left_out): (Vec<_>, Vec<_>) =
            SCENARIOS.iter().copied().partition(|def: &&ScenarioDef| allowed || !def.privileged);
        for def in left_out {
            eprintln!("{}: left out: network namespaces cannot be made here (it wants root)", def.name);
        }
        return Ok(run);
    }
    let find = |name: &&str| match SCENARIOS.iter().find(|def| def.name == *name) {
        Some(def) => Ok(*def),
        None => bail!("{name}: no such scenario; `vsbench list` shows them"),
    };
    names.iter().map(find).collect()
}

fn measure(scenarios: &[&ScenarioDef], arguments: &Arguments) -> Result<()> {
    let mut report = Report { machine: Machine::measure(), results: Vec::new() };
    println!("{}", report.machine);
    let time = CpuTime::now();
    for scenario in scenarios {
        for outcome in ladder(scenario, arguments, &report.machine)? {
            report.results.push(outcome);
        }
    }
    report.machine.steal_percent = time.steal_percent();
    print!("\n{}", report.table());
    println!("steal during the run: {:.1} %", report.machine.steal_percent);
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if let Some(path) = &arguments.svg {
        plot::draw(&report, path)?;
    }
    Ok(())
}

/// Run a scenario with the flows that were asked for, or with its ladder. A capture has its own flows.
fn ladder(scenario: &ScenarioDef, arguments: &Arguments, machine: &Machine) -> Result<Vec<Outcome>> {
    let asked = match scenario.scale {
        Scale::Flows => arguments.flows,
        Scale::Prefixes => arguments.prefixes,
    };
    let asked = asked.map(|number| number as usize);
    ensure!(arguments.pcap.len() <= 2, "--pcap: there are two ports");
    let steps = match (asked, arguments.pcap.is_empty()) {
        (Some(flows), _) => vec![flows],
        (None, false) => vec![1],
        (None, true) => scenario.ladder.to_vec(),
    };
    ensure!(!steps.is_empty(), "{}: has no ladder", scenario.name);
    let once = |number: usize| -> Result<Outcome> {
        let (flows, prefixes) = match scenario.scale {
            Scale::Flows => (number, 1),
            // Each prefix is one flow's, and one prefix many flows'.
            Scale::Prefixes => (arguments.flows.map_or_else(|| number.max(FLOWS), |flows| flows as usize), number),
        };
        let params = Params {
            flows,
            prefixes,
            services: arguments.services as usize,
            rules: arguments.rules as usize,
            size: arguments.size,
            pcap: arguments.pcap.clone(),
            cpus: arguments.cpus.clone().unwrap_or_default().0,
            duration: arguments.duration,
        };
        eprintln!("{} {}={number} ...", scenario.name, scenario.scale.name());
        // Each on a thread of its own, so that pinning one does not pin the next.
        let run = || (scenario.run)(&params, machine);
        let done = std::thread::scope(|scope| scope.spawn(run).join());
        let mut outcome =
            done.unwrap_or_else(|_| bail!("its thread panicked")).map_err(|error| error.context(scenario.name))?;
        let mut param = |name: &str, value: serde_json::Value| outcome.params.insert(name.to_owned(), value);
        match params.size {
            _ if !params.pcap.is_empty() => {
                let names: Vec<_> = params.pcap.iter().map(|path| path.display().to_string()).collect();
                param("pcap", names.join(",").into())
            }
            Size::Fixed(size) => param("size", size.into()),
            Size::Imix => param("size", "imix".into()),
        };
        if params.pcap.is_empty() || asked.is_some() {
            param("flows", flows.into());
        }
        Ok(outcome)
    };
    steps.into_iter().map(once).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_is_not_there_is_named() {
        assert!(chosen(&["bridge", "brigde"]).unwrap_err().to_string().starts_with("brigde:"));
        assert_eq!(chosen(&["learn", "bridge"]).unwrap().len(), 2);
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for bad in [
            ["--flows", "0"],
            ["--prefixes", "0"],
            ["--services", "60001"],
            ["--size", "63"],
            ["--duration", "nan"],
            ["--cpus", "x"],
        ] {
            assert!(Arguments::try_parse_from(["vsbench", "bridge", bad[0], bad[1]]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_scenario_that_may_run_runs() {
        // A ladder of rates takes its minutes, and counts no packet: the tests of the switch measure the same.
        for scenario in chosen(&["all"]).unwrap().into_iter().filter(|scenario| scenario.name != "bandwidth") {
            // Each of its flows is a process and a namespace.
            let flows = if scenario.name == "attach" { "10" } else { "300" };
            let small = ["--flows", flows, "--prefixes", "300", "--services", "100", "--duration", "0.05"];
            let arguments = Arguments::try_parse_from(["vsbench", scenario.name].into_iter().chain(small)).unwrap();
            let outcomes = ladder(scenario, &arguments, &Machine::measure()).unwrap();
            assert!(outcomes[0].tsc_per_packet > 0.0 && outcomes[0].mpps > 0.0, "{outcomes:?}");
        }
    }
}
