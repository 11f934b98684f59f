//! This switch: `vsbench`, which stands beside this program, in a process of its own as its peers are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use benches::report::{Outcome, Report};

use crate::Peer;
use crate::captures::Captures;
use crate::process::{Directory, output};

/// What the table calls this switch.
pub(crate) const NAME: &str = "vswitch";

/// The bridge between two looping ports.
pub(crate) struct Bridge<'a> {
    pub(crate) captures: Captures,
    pub(crate) cpu: u16,
    pub(crate) directory: &'a Directory,
}

impl Peer for Bridge<'_> {
    fn name(&self) -> &str {
        NAME
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        let (flows, pcap) =
            (self.captures.flows.to_string(), self.captures.ports.each_ref().map(|path| path.display().to_string()));
        let arguments = ["bridge", "--flows", &flows, "--pcap", &pcap.join(",")];
        Ok(vsbench(&arguments, self.cpu, duration, self.directory)?.tsc_per_packet)
    }
}

/// A scenario between two hosts.
pub(crate) struct Taps<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) figure: fn(&Outcome) -> f64,
    pub(crate) cpu: u16,
    pub(crate) directory: &'a Directory,
}

impl Peer for Taps<'_> {
    fn name(&self) -> &str {
        NAME
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        Ok((self.figure)(&vsbench(&[self.scenario, "--flows", "1"], self.cpu, duration, self.directory)?))
    }
}

/// Run `vsbench` and take its one result.
fn vsbench(arguments: &[&str], cpu: u16, duration: Duration, directory: &Directory) -> Result<Outcome> {
    let program = std::env::current_exe()?.with_file_name("vsbench");
    let json = directory.file("vsbench.json");
    let mut command = Command::new(&program);
    command.args(arguments).args(["--cpus", &cpu.to_string(), "--duration", &duration.as_secs_f64().to_string()]);
    anyhow::ensure!(Path::new(&program).is_file(), "{} is not built", program.display());
    output(command.arg("--json").arg(&json))?;
    Report::read(&json)?.results.pop().context("vsbench had no result")
}
