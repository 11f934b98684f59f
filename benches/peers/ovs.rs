//! Open vSwitch's user-space datapath, from Debian's packages: with DPDK's pcap ports, and with TAPs.
//!
//! Database and daemon are started for one turn, with all their files in a directory of our own, and are ended by pid.
//! A system's own Open vSwitch is neither used nor disturbed.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Peer;
use crate::captures::Captures;
use crate::process::{Directory, Running, installed, output};

/// The schema that both daemons agree on.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Where Debian puts the daemon with DPDK.
const DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// A running Open vSwitch. Fields drop in order: the daemon ends before its database.
pub(crate) struct Ovs {
    vswitchd: Running,
    _database: Running,
    vsctl: PathBuf,
    appctl: PathBuf,
    remote: String,
    control: PathBuf,
}

impl Ovs {
    /// Start it in the calling thread's network namespace, with what `settings` puts into the database first.
    pub(crate) fn start(directory: &Directory, daemon: &[&str], settings: &[String]) -> Result<Self> {
        let daemon = installed(daemon)?;
        let (server, tool) = (installed(&["ovsdb-server"])?, installed(&["ovsdb-tool"])?);
        let (vsctl, appctl) = (installed(&["ovs-vsctl"])?, installed(&["ovs-appctl"])?);
        let (file, socket, control) =
            (directory.file("conf.db"), directory.file("db.sock"), directory.file("vswitchd.ctl"));
        let _ = std::fs::remove_file(&file);
        let environment =
            ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"].map(|name| (name, directory.file("")));
        output(Command::new(tool).arg("create").arg(&file).arg(SCHEMA))?;
        let mut command = Command::new(server);
        command.arg(&file).arg(format!("--remote=punix:{}", socket.display()));
        command.arg(format!("--unixctl={}", directory.file("ovsdb.ctl").display())).envs(environment.clone());
        let mut database = Running::start(&mut command, directory.file("ovsdb.out"))?;
        wait(|| Ok(socket.exists()), &mut database)?;
        let remote = format!("unix:{}", socket.display());
        let set = |arguments: &[&str]| output(Command::new(&vsctl).arg("--db").arg(&remote).args(arguments)).map(drop);
        set(&["--timeout=10", "--no-wait", "init"])?;
        for setting in settings {
            set(&["--timeout=10", "--no-wait", "set", "Open_vSwitch", ".", setting])?;
        }
        let mut command = Command::new(daemon);
        command.arg(&remote).arg(format!("--unixctl={}", control.display())).envs(environment);
        let mut vswitchd = Running::start(&mut command, directory.file("vswitchd.out"))?;
        wait(|| Ok(control.exists()), &mut vswitchd)?;
        Ok(Self { vswitchd, _database: database, vsctl, appctl, remote, control })
    }

    /// `ovs-vsctl`, waiting until the daemon has done it.
    pub(crate) fn configure(&mut self, arguments: &[&str]) -> Result<()> {
        let done = output(Command::new(&self.vsctl).args(["--timeout=30", "--db", &self.remote]).args(arguments));
        self.vswitchd.alive()?;
        done.map(drop)
    }

    /// `ovs-appctl`.
    pub(crate) fn ask(&mut self, arguments: &[&str]) -> Result<String> {
        let answer = output(Command::new(&self.appctl).arg("-T10").arg("-t").arg(&self.control).args(arguments));
        self.vswitchd.alive()?;
        answer
    }
}

/// Wait until something is there, as long as the process lives.
fn wait(mut ready: impl FnMut() -> Result<bool>, process: &mut Running) -> Result<()> {
    let start = Instant::now();
    while !ready()? {
        process.alive()?;
        if start.elapsed() > Duration::from_secs(20) {
            bail!("did not start within 20 s");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// NORMAL between two looping pcap ports, on one poll-mode thread.
pub(crate) struct Bridge<'a> {
    pub(crate) captures: Captures,
    pub(crate) cpu: u16,
    pub(crate) directory: &'a Directory,
}

impl Peer for Bridge<'_> {
    fn name(&self) -> &str {
        "OVS-DPDK NORMAL"
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        // All ports share one pool of at most 256 Ki buffers, in which looping ports keep all their frames.
        if 2 * self.captures.frames > 240_000 {
            bail!("its pool of 262144 buffers does not hold these captures");
        }
        let settings = [
            "other_config:dpdk-init=true".to_owned(),
            // `--legacy-mem` keeps OVS from adding `--in-memory`, which DPDK refuses beside `--no-huge`.
            "other_config:dpdk-extra=\"--no-huge --legacy-mem -m 1024 --no-pci\"".to_owned(),
            "other_config:dpdk-lcore-mask=0x1".to_owned(),
            format!("other_config:pmd-cpu-mask={:#x}", 1u64 << self.cpu.min(63)),
            "other_config:flow-limit=1000000".to_owned(),
        ];
        let mut ovs = Ovs::start(self.directory, &[DPDK], &settings)?;
        let table = format!("other_config:mac-table-size={}", 2 * self.captures.flows + 1000);
        ovs.configure(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", &table])?;
        for (i, path) in self.captures.ports.iter().enumerate() {
            let port = format!("p{i}");
            let options = format!("options:dpdk-devargs=net_pcap{i},rx_pcap={},infinite_rx=1", path.display());
            ovs.configure(&["add-port", "br0", &port, "--", "set", "Interface", &port, "type=dpdk", &options])?;
        }
        // First every pair must have been learned and have its flow.
        let start = Instant::now();
        loop {
            let stats = stats(&mut ovs, Duration::from_millis(500))?;
            if stats.missed * 100_000 <= stats.packets || start.elapsed() > Duration::from_secs(30) {
                break;
            }
        }
        Ok(stats(&mut ovs, duration)?.cycles_per_packet)
    }
}

/// What the poll-mode thread says of itself.
#[derive(Debug, Default, PartialEq)]
struct Stats {
    packets: u64,
    missed: u64,
    cycles_per_packet: f64,
}

fn stats(ovs: &mut Ovs, time: Duration) -> Result<Stats> {
    ovs.ask(&["dpif-netdev/pmd-stats-clear"])?;
    std::thread::sleep(time);
    parse(&ovs.ask(&["dpif-netdev/pmd-stats-show"])?)
}

/// The first thread of `pmd-stats-show`; processing cycles are those of batches that were not empty.
fn parse(text: &str) -> Result<Stats> {
    let of = text.split("main thread").next().unwrap_or_default();
    let value = |name: &str| {
        let line = of.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("pmd-stats-show has no \"{name}\""))
    };
    Ok(Stats {
        packets: value("packets received")?.parse()?,
        missed: value("miss with success upcall")?.parse::<u64>()?
            + value("miss with failed upcall")?.parse::<u64>()?,
        cycles_per_packet: value("avg processing cycles per packet").context("no packet was received")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_polling_thread_are_read() {
        let text = "pmd thread numa_id 0 core_id 1:\n  packets received: 51463392\n  emc hits: 51463360\n  \
                    miss with success upcall: 7\n  miss with failed upcall: 1\n  \
                    processing cycles: 7832538532 (100.00%)\n  avg cycles per packet: 152.20 (7832538532/51463392)\n  \
                    avg processing cycles per packet: 152.20 (7832538532/51463392)\nmain thread:\n  packets received: 0\n";
        assert_eq!(parse(text).unwrap(), Stats { packets: 51_463_392, missed: 8, cycles_per_packet: 152.2 });
        assert!(parse("main thread:\n").is_err());
    }
}
