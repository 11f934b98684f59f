//! DPDK's `testpmd`: the floor of what DPDK's pcap ports cost. `io` hands frames on as they are, `macswap` also swaps
//! their addresses; neither looks anything up.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use benches::machine::Machine;

use crate::Peer;
use crate::captures::Captures;
use crate::process::{Directory, Running, installed};

/// One forwarding mode.
pub(crate) struct Forward<'a> {
    pub(crate) mode: &'static str,
    pub(crate) captures: Captures,
    pub(crate) cpu: u16,
    pub(crate) machine: &'a Machine,
    pub(crate) directory: &'a Directory,
}

impl Peer for Forward<'_> {
    fn name(&self) -> &str {
        match self.mode {
            "io" => "testpmd io",
            _ => "testpmd macswap",
        }
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        let binary = installed(&["dpdk-testpmd"])?;
        // A looping port keeps all its frames in buffers of the pool; each takes 2176 octets and a little more.
        let buffers = 2 * self.captures.frames + 32_768;
        let mut command = Command::new(binary);
        command
            .args(["--no-huge", "-m", &(buffers * 2560 / (1 << 20) + 128).to_string(), "--no-pci", "--no-telemetry"])
            .args(["-l", &format!("0,{}", self.cpu), "--file-prefix", &format!("vsbench-{}", std::process::id())]);
        for (i, path) in self.captures.ports.iter().enumerate() {
            command.args(["--vdev", &format!("net_pcap{i},rx_pcap={},infinite_rx=1", path.display())]);
        }
        command
            .args(["--", "--burst=64", "--nb-cores=1", "--stats-period", "1", "--auto-start"])
            .arg(format!("--forward-mode={}", self.mode))
            .arg(format!("--total-num-mbufs={buffers}"));
        let mut process = Running::start(&mut command, self.directory.file("testpmd.out"))?;
        // The first figure is of the start, and the last may be incomplete.
        let wanted = duration.as_secs_f64().ceil() as usize + 1;
        for _ in 0..10 * (wanted + 30) {
            process.alive()?;
            if forwarded(&process.output()).len() > wanted + 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let rates = forwarded(&process.output());
        let usable = rates.get(2..).unwrap_or_default();
        let rate = crate::median(usable);
        (rate > 0.0).then(|| self.machine.tsc_mhz * 1e6 / rate).context("printed no figures")
    }
}

/// Packets a second, of both ports together, each time that testpmd printed its statistics.
fn forwarded(output: &str) -> Vec<f64> {
    let rates =
        output.lines().filter_map(|line| line.trim().strip_prefix("Tx-pps:")?.split_whitespace().next()?.parse().ok());
    rates.collect::<Vec<f64>>().chunks_exact(2).map(|pair| pair.iter().sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_both_ports_are_added() {
        let block =
            |pps: u32| format!("  Rx-pps:     1   Rx-bps:  2\n  Tx-pps:     {pps}          Tx-bps:   5268684784\n");
        let output = [block(0), block(0), block(100), block(200), block(7)].concat();
        assert_eq!(forwarded(&output), [0.0, 300.0]);
    }
}
