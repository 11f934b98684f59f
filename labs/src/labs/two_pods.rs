//! `two-pods`: two network namespaces joined by a learning bridge in user space.
//!
//! The smallest network there is, and everything that may befall it: ports taken away and given back, the data plane
//! killed, the whole daemon killed. Kernel TCP, UDP and ICMP run through it all the time. A Linux bridge with veth
//! pairs stands beside it, for the throughput.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;

use super::{LabDef, Needs, Options, linger};
use crate::claim::{Control, Probe, Report};
use crate::daemon::Daemon;
use crate::host::Host;
use crate::linux::LinuxBridge;
use crate::ping::ping;
use crate::traffic::{Check, Stream, Transfer, transfer, udp_echo, wait_until};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "two-pods",
    help: "two network namespaces, a TAP port each, one learning bridge",
    needs: Needs::Interfaces,
    claims: &[PING4, PING6, UDP, TCP, STATIONS, VLAN, RETURN, CRASH, RESTART],
    run,
};

const PING4: &str = "a pings b over IPv4";
const PING6: &str = "a pings b over IPv6";
const UDP: &str = "datagrams of 1 to 4000 octets reach b and come back";
const TCP: &str = "a TCP stream reaches b without a changed octet";
const STATIONS: &str = "the MAC table has both pods on their ports";
const VLAN: &str = "access ports of different VLANs are separate";
const RETURN: &str = "a port removed under traffic and added again carries again";
const CRASH: &str = "kill -9 of the data plane: the running TCP stream completes";
const RESTART: &str = "kill -9 of the whole daemon, and a start: the same interfaces, ports and TCP stream go on";

const DRAWING: &str = "
    pod a                      pod b
    eth0 10.77.0.1             eth0 10.77.0.2
         fd77::1                    fd77::2
      │ TAP, port pa             │ TAP, port pb
      └───────── bridge br0 ─────┘
                 vswitchd
";

/// A pod: its host, its port, its address on the wire and its number in the network.
struct Pod {
    host: Host,
    port: &'static str,
    mac: &'static str,
    number: u8,
}

impl Pod {
    fn new(name: &'static str, port: &'static str, mac: &'static str, number: u8) -> anyhow::Result<Self> {
        Ok(Self { host: Host::new(name)?, port, mac, number })
    }

    fn v4(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, self.number))
    }

    fn v6(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into()))
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4(), port)
    }

    /// Add the port, whose TAP appears in the pod, and give that its addresses.
    fn attach(&self, daemon: &Daemon) -> anyhow::Result<()> {
        daemon.vsctl(&format!(
            "add-port br0 {} -- set Interface {} type=tap options:netns={} options:ifname=eth0 mac=\"{}\"",
            self.port,
            self.port,
            self.host.path().display(),
            self.mac
        ))?;
        self.host.configure("eth0", [(self.v4(), 24), (self.v6(), 64)])
    }
}

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let a = Pod::new("a", "pa", "02:77:00:00:00:01", 1)?;
    let b = Pod::new("b", "pb", "02:77:00:00:00:02", 2)?;
    let mut daemon = Daemon::start(options.workers, options.keep)?;
    daemon.vsctl("add-br br0")?;
    a.attach(&daemon)?;
    b.attach(&daemon)?;

    probes(report, &daemon, &a, &b)?;
    stations(report, &daemon, &a, &b)?;
    vlans(report, &daemon, &a, &b)?;
    throughput(report, &a, &b)?;
    removal(report, &daemon, &a, &b)?;
    // Its counters go with the data plane.
    daemon.check_cache()?;
    crash(report, &mut daemon, &a, &b)?;
    restart(report, &mut daemon, &a, &b)?;
    daemon.check_cache()?;
    if options.keep {
        linger(&daemon, &[&a.host, &b.host]);
    }
    daemon.stop()
}

/// Ping, UDP and TCP, with controls at an address that nobody has and on a VLAN of b's own.
fn probes(report: &mut Report, daemon: &Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    let nobody4 = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
    let nobody6 = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x99));
    let four = [ping(&a.host, &b.host, b.v4())?, ping(&a.host, &b.host, nobody4)?];
    let six = [ping(&a.host, &b.host, b.v6())?, ping(&a.host, &b.host, nobody6)?];
    let udp = udp_echo(&a.host, &b.host, b.at(7))?;
    let (tcp, _) = transfer(&a.host, &b.host, b.at(5001), Check::Hash, Duration::from_millis(300))?;

    daemon.vsctl(&format!("set Port {} tag=99", b.port))?;
    let udp_apart = udp_echo(&a.host, &b.host, b.at(7))?;
    let (tcp_apart, _) = transfer(&a.host, &b.host, b.at(5001), Check::Hash, Duration::ZERO)?;
    daemon.vsctl(&format!("clear Port {} tag", b.port))?;

    report.reaches(PING4, &four[0], Control::new("an address that nobody has", four[1].clone()));
    report.reaches(PING6, &six[0], Control::new("an address that nobody has", six[1].clone()));
    report.reaches(UDP, &udp, Control::new("b's port in VLAN 99", udp_apart));
    report.reaches(TCP, &tcp, Control::new("b's port in VLAN 99", tcp_apart));
    Ok(())
}

/// The MAC table against the addresses that the pods' own kernels have.
fn stations(report: &mut Report, daemon: &Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    // Ports of fdb/show are OpenFlow numbers.
    let mut rows = Vec::new();
    for pod in [a, b] {
        let ofport = daemon.vsctl(&format!("get Interface {} ofport", pod.port))?;
        rows.push((ofport.trim().to_owned(), pod.host.interface("eth0")?.mac.to_string()));
    }
    let look = || -> anyhow::Result<(Probe, String)> {
        let table = daemon.vsctl("fdb/show br0")?;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |(port, mac): &(String, String)| {
            lines.iter().any(|line| line.len() > 2 && line[0] == port && line[2] == mac)
        };
        let text: Vec<String> = rows.iter().map(|(port, mac)| format!("{mac} on port {port}")).collect();
        let probe = match rows.iter().filter(|row| has(row)).count() {
            2 => Probe::Arrived(format!("the pods' own kernels have {}", text.join(", "))),
            found => Probe::Silent(format!("{found} of 2 are there")),
        };
        Ok((probe, table))
    };
    daemon.vsctl("fdb/flush br0")?;
    let (flushed, _) = look()?;
    ping(&a.host, &b.host, b.v4())?;
    let (probe, table) = look()?;
    report.reaches(STATIONS, &probe, Control::new("flushed, before any frame", flushed));
    report.say(&table.lines().map(|line| format!("      | {line}")).collect::<Vec<_>>().join("\n"));
    Ok(())
}

fn vlans(report: &mut Report, daemon: &Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    daemon.vsctl(&format!("set Port {} tag=10 -- set Port {} tag=10", a.port, b.port))?;
    let together = ping(&a.host, &b.host, b.v4())?;
    daemon.vsctl(&format!("set Port {} tag=20", b.port))?;
    let apart = ping(&a.host, &b.host, b.v4())?;
    daemon.vsctl(&format!("clear Port {} tag -- clear Port {} tag", a.port, b.port))?;
    report.separates(VLAN, &apart, Control::new("both in VLAN 10", together));
    Ok(())
}

/// The same transfer over our bridge and over a Linux bridge, in turns, so that both meet the same machine.
fn throughput(report: &mut Report, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    const ROUNDS: usize = 3;
    const TIME: Duration = Duration::from_millis(700);
    let linux = LinuxBridge::new().context("Linux bridge to compare with")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(transfer(&a.host, &b.host, b.at(5002), Check::Count, TIME)?.1);
        theirs.push(transfer(linux.near(), linux.far(), linux.address(5002), Check::Count, TIME)?.1);
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    };
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    report.measured(format!(
        "one TCP stream: {ours:.2} Gbit/s; Linux bridge + veth {theirs:.2} Gbit/s; ratio {:.2} (medians of {ROUNDS}, in turns)",
        ours / theirs.max(1e-9)
    ));
    Ok(())
}

/// A numbered stream runs all the time; its port goes and comes back.
fn removal(report: &mut Report, daemon: &Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    let stream = Stream::start(&a.host, &b.host, b.at(5003))?;
    let before = stream.probe(20, Duration::from_secs(2));
    daemon.vsctl(&format!("del-port br0 {}", b.port))?;
    let removed = stream.probe(1, Duration::from_millis(300));
    b.attach(daemon)?;
    let after = stream.probe(20, Duration::from_secs(4));
    let after = if before.arrived() { after } else { before };
    report.reaches(RETURN, &after, Control::new("while port pb was removed", removed));
    Ok(())
}

fn crash(report: &mut Report, daemon: &mut Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    let running = started(a, b, 5004)?;
    anyhow::ensure!(running.moves(Duration::from_secs(2)), "the TCP stream does not begin");
    let before = running.received();
    daemon.kill_data_plane()?;
    let resumed = running.moves(Duration::from_secs(5));
    let (probe, _) = running.finish()?;
    let probe = match probe {
        _ if !resumed => Probe::Silent("nothing more arrived after the crash".into()),
        Probe::Arrived(text) => Probe::Arrived(format!("{text}; {before} of them before the crash")),
        silent => silent,
    };

    // The control must stay dead: with the keeper gone too, nobody starts the data plane again.
    let running = started(a, b, 5004)?;
    daemon.kill_all()?;
    let dead = stall(&running);
    daemon.run()?;
    drop(running);
    report.reaches(CRASH, &probe, Control::new("keeper killed too", dead));
    Ok(())
}

fn restart(report: &mut Report, daemon: &mut Daemon, a: &Pod, b: &Pod) -> anyhow::Result<()> {
    let kept = |daemon: &Daemon| -> anyhow::Result<_> {
        let ports = daemon.vsctl("list-ports br0")?;
        Ok((a.host.interface("eth0")?, b.host.interface("eth0")?, ports))
    };
    let before = kept(daemon)?;
    let running = started(a, b, 5005)?;
    anyhow::ensure!(running.moves(Duration::from_secs(2)), "the TCP stream does not begin");
    daemon.kill_all()?;
    let dead = stall(&running);
    daemon.run()?;
    let resumed = running.moves(Duration::from_secs(8));
    let (stream, _) = running.finish()?;
    let after = kept(daemon)?;
    let probe = match stream {
        _ if before != after => Probe::Silent(format!("interfaces and ports were {before:?}, are {after:?}")),
        _ if !resumed => Probe::Silent("nothing more arrived after the start".into()),
        Probe::Arrived(text) => {
            Probe::Arrived(format!("{text}; interfaces {} and {} as before", before.0.index, before.1.index))
        }
        silent => silent,
    };
    report.reaches(RESTART, &probe, Control::new("while no daemon ran", dead));
    Ok(())
}

fn started(a: &Pod, b: &Pod, port: u16) -> anyhow::Result<Transfer> {
    Transfer::start(&a.host, &b.host, b.at(port), Check::Hash)?.context("no TCP connection from a to b")
}

/// Whether a transfer still moves when what was on its way has had time to arrive.
fn stall(running: &Transfer) -> Probe {
    let mut last = running.received();
    // What b's kernel holds already is read within milliseconds.
    wait_until(Duration::from_secs(1), || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut last, running.received()) == running.received()
    });
    if running.moves(Duration::from_millis(300)) {
        Probe::Arrived("b received more octets".into())
    } else {
        Probe::Silent("b received nothing for 300 ms".into())
    }
}
