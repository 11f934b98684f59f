//! Services: who answers at a virtual address, and what becomes of those that nobody has?

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::objects::{AGENT, ALSO_B, BULK as BULK_PORT, EMPTY, ONLY_B, PORT, WEB};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{Line, Outcome, Over, ask};
use crate::host::Host;
use crate::labs::cluster::{Cluster, FAMILIES, GATEWAY, GREETER, Ip, NO_SERVICE, NODE, Pod};
use crate::labs::ways::{all, any, at_once, each_way, every, every_way, some, some_way};
use crate::ping::echo;
use crate::traffic::{Check, transfer, udp_echo_of};

pub(super) const SERVICE: &str = "a pod reaches a service, whose backend sees the pod's own address";
pub(super) const FROM_NODE: &str = "the node reaches a service, whose backend sees the node's address";
pub(super) const HAIRPIN: &str = "a backend reaches its own service, and sees the gateway";
pub(super) const AGENT_POD: &str =
    "a pod of the host's network is a backend at the node's address, for pods and the node itself";
pub(super) const SPREAD: &str = "new connections go to every backend";
pub(super) const PINNED: &str = "a TCP connection stays with its backend when that leaves the service";
pub(super) const MOVES: &str = "a UDP client is answered by another backend when its own leaves the service";
pub(super) const REFUSED: &str = "a service without endpoints refuses at once, pods and the node alike";
pub(super) const UNKNOWN: &str = "an address that no service has is silent, and counted as unknown-service";
pub(super) const PING: &str = "service addresses answer pings, of pods and of the node";
pub(super) const LARGE: &str = "datagrams of 2000 and 60000 octets reach a service, and come back";
pub(super) const BULK: &str = "a TCP stream through a service is not changed by an octet";
pub(super) const NARROWED: &str =
    "the sender of a datagram too large for its backend's link is told, and cuts the next";
pub(super) const TWINS: &str = "one client port reaches one backend by two services and directly, at the same time";
pub(super) const TRACE: &str = "trace names the service and the endpoint that it would choose";
pub(super) const RESTART: &str = "kill -9 of the whole daemon, and a start: pods and the node reach services as before";

const DELETED: &str = "the service deleted";
/// Connections of one look at who answers.
const CONNECTS: usize = 60;

/// What is tried of a service while it is there, and while it is not; each over everything that it is claimed for.
type Try = fn(&Cluster) -> anyhow::Result<Vec<Probe>>;

/// Of the service that only pod b is behind.
const TRIES: [(&str, Try); 7] = [
    (SERVICE, |cluster| {
        let Cluster { a, b, .. } = cluster;
        each_way(|ip, over| Ok(ask(&a.host, over, ONLY_B.at(ip))?.from(&b.host, a.address.of(ip))))
    }),
    (FROM_NODE, |cluster| {
        let Cluster { b, node, .. } = cluster;
        each_way(|ip, over| Ok(ask(node, over, ONLY_B.at(ip))?.from(&b.host, NODE.of(ip))))
    }),
    (HAIRPIN, |cluster| {
        let Cluster { b, .. } = cluster;
        each_way(|ip, over| Ok(ask(&b.host, over, ONLY_B.at(ip))?.from(&b.host, GATEWAY.of(ip))))
    }),
    (LARGE, |cluster| datagrams(&cluster.a.host, &cluster.b)),
    (BULK, |cluster| stream(&cluster.a.host, &cluster.b)),
    (TWINS, |cluster| at_once(&FAMILIES, |ip| by_three_ways(&cluster.a.host, &cluster.b, *ip))),
    (TRACE, |cluster| Ok(vec![trace(cluster)?])),
];

pub(super) fn reached(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let run = || TRIES.iter().map(|(_, attempt)| attempt(cluster)).collect::<anyhow::Result<Vec<_>>>();
    let probes = run()?;
    let controls = cluster.without((ONLY_B.name, &ONLY_B.manifest()), run)?;
    for (((claim, _), probe), control) in TRIES.iter().zip(probes).zip(controls) {
        report.reaches(claim, &all(&probe), Control::new(DELETED, any(&control)));
    }
    Ok(())
}

pub(super) fn host_network(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, node, .. } = cluster;
    let probe = all(&[
        every_way(|ip, over| Ok(ask(&a.host, over, AGENT.at(ip))?.from(node, a.address.of(ip))))?,
        // The node is its own backend.
        every_way(|ip, over| Ok(ask(node, over, AGENT.at(ip))?.from(node, GATEWAY.of(ip))))?,
    ]);
    cluster.daemon.vsctl("delete pod agent")?;
    let control = any(&[
        some_way(|ip, over| Ok(ask(&a.host, over, AGENT.at(ip))?.any()))?,
        some_way(|ip, over| Ok(ask(node, over, AGENT.at(ip))?.any()))?,
    ]);
    cluster.apply()?;
    report.reaches(AGENT_POD, &probe, Control::new("the pod deleted", control));
    Ok(())
}

pub(super) fn backends(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    let spread = every(|ip| answered_by(&a.host, ip, b))?;

    // Connections that b answers, made while it is a backend.
    let mut lines = Vec::new();
    for (ip, over) in [(Ip::V4, Over::Tcp), (Ip::V6, Over::Tcp), (Ip::V4, Over::Udp), (Ip::V6, Over::Udp)] {
        lines.push(line_to(&a.host, over, ip, b)?);
    }
    let stayed =
        all(&lines.iter_mut().skip(2).map(|line| answers(line, b, false)).collect::<anyhow::Result<Vec<_>>>()?);
    let (without, tcp, udp) = cluster.unready(b, || {
        let tcp = lines.iter_mut().take(2).map(|line| answers(line, b, true)).collect::<anyhow::Result<Vec<_>>>()?;
        let udp = lines.iter_mut().skip(2).map(|line| answers(line, b, false)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((some(|ip| answered_by(&a.host, ip, b))?, tcp, udp))
    })?;
    report.reaches(SPREAD, &spread, Control::new("pod b not ready", without.clone()));
    report.reaches(PINNED, &all(&tcp), Control::new("new connections, then", without));
    report.reaches(MOVES, &all(&udp), Control::new("before it left", stayed));
    Ok(())
}

pub(super) fn nobody(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, node, .. } = cluster;
    let from_both = |to: fn(Ip) -> std::net::SocketAddr, judge: fn(Outcome) -> Probe| {
        let hosts = [&a.host, node].map(|host| (host, to));
        hosts.map(move |(host, to)| move |ip, over| Ok(judge(ask(host, over, to(ip))?)))
    };
    let [pod, own] = from_both(|ip| EMPTY.at(ip), Outcome::refused);
    let probe = all(&[every_way(pod)?, every_way(own)?]);
    let [pod, own] = from_both(|ip| NO_SERVICE.at(ip, PORT), Outcome::refused);
    let control = any(&[some_way(pod)?, some_way(own)?]);
    report.reaches(REFUSED, &probe, Control::new("an address that no service has", control));

    let [pod, own] = from_both(|ip| NO_SERVICE.at(ip, PORT), Outcome::any);
    let probe = any(&[some_way(pod)?, some_way(own)?]);
    let drops = cluster.daemon.vsctl("drops")?;
    let counted: Vec<String> = drops
        .lines()
        .filter(|line| line.contains("unknown-service"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let probe = match probe {
        Probe::Silent(text) if !counted.is_empty() => Probe::Silent(format!("{text}; {}", counted.join(", "))),
        Probe::Silent(text) => Probe::Arrived(format!("{text}; but not counted:\n{drops}")),
        arrived => arrived,
    };
    let [pod, own] = from_both(|ip| WEB.at(ip), Outcome::any);
    let control = all(&[every_way(pod)?, every_way(own)?]);
    report.separates(UNKNOWN, &probe, Control::new("an address that a service has", control));

    let probe = all(&[every(|ip| echo(&a.host, WEB.address.of(ip)))?, every(|ip| echo(node, WEB.address.of(ip)))?]);
    let control = any(&[some(|ip| echo(&a.host, NO_SERVICE.of(ip)))?, some(|ip| echo(node, NO_SERVICE.of(ip)))?]);
    report.reaches(PING, &probe, Control::new("an address that no service has", control));
    Ok(())
}

/// A stream through the service beside one that goes directly, and how large the frames are that the backend's kernel
/// was given: the switch need not cut what the sender's kernel left whole.
pub(super) fn throughput(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    const ROUNDS: usize = 3;
    const TIME: Duration = Duration::from_millis(400);
    let rate = |to| Ok::<_, anyhow::Error>(transfer(&a.host, &b.host, to, Check::Count, TIME)?.1);
    let (mut direct, mut service, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(rate(b.address.at(Ip::V4, BULK_PORT))?);
        let before = b.host.received("eth0")?;
        service.push(rate(ONLY_B.bulk(Ip::V4))?);
        let after = b.host.received("eth0")?;
        sizes.push((after.octets - before.octets) as f64 / (after.frames - before.frames).max(1) as f64);
    }
    let median = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[ROUNDS / 2]
    };
    let (direct, service, size) = (median(direct), median(service), median(sizes));
    report.measured(format!(
        "one TCP stream: {service:.2} Gbit/s through a service, in frames of {size:.0} octets; {direct:.2} Gbit/s to the pod \
         (medians of {ROUNDS}, in turns)"
    ));
    Ok(())
}

/// The way to the backend gets narrower than the sender's own link (rule V23).
pub(super) fn narrow(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, .. } = cluster;
    const NARROW: u16 = 1300;
    let send = |ip| udp_echo_of(&a.host, &b.host, ONLY_B.bulk(ip), &[1400]);
    // The first is lost, and its sender told why; what it sends after that it cuts.
    let learn = |ip| {
        let (first, second) = (send(ip)?, send(ip)?);
        anyhow::Ok(match (first, second) {
            (Probe::Silent(_), Probe::Arrived(text)) => Probe::Arrived(format!("the first was lost; then {text}")),
            (first, second) => Probe::Silent(format!("first {}; then {}", first.text(), second.text())),
        })
    };
    let learn_all = || FAMILIES.into_iter().map(learn).collect::<anyhow::Result<Vec<_>>>();
    cluster.daemon.vsctl(&format!("set Interface pod-b mtu_request={NARROW}"))?;
    let control = cluster.without((ONLY_B.name, &ONLY_B.manifest()), learn_all)?;
    let probe = learn_all()?;
    cluster.daemon.vsctl("set Interface pod-b mtu_request=1500")?;
    report.reaches(NARROWED, &all(&probe), Control::new(DELETED, any(&control)));
    Ok(())
}

/// The daemon dies without a word and is started again.
pub(super) fn restart(report: &mut Report, cluster: &mut Cluster) -> anyhow::Result<()> {
    let reach = |cluster: &Cluster| {
        let Cluster { a, b, node, .. } = cluster;
        let pod = every_way(|ip, over| Ok(ask(&a.host, over, ONLY_B.at(ip))?.from(&b.host, a.address.of(ip))))?;
        let own = every_way(|ip, over| Ok(ask(node, over, ONLY_B.at(ip))?.from(&b.host, NODE.of(ip))))?;
        anyhow::Ok([pod, own])
    };
    cluster.daemon.kill_all()?;
    let dead = any(&reach(cluster)?);
    cluster.daemon.run()?;
    let alive = all(&reach(cluster)?);
    report.reaches(RESTART, &alive, Control::new("while no daemon ran", dead));
    Ok(())
}

/// Datagrams in fragments, one version of IP after the other: both listen at the same port.
fn datagrams(from: &Host, to: &Pod) -> anyhow::Result<Vec<Probe>> {
    FAMILIES.iter().map(|ip| udp_echo_of(from, &to.host, ONLY_B.bulk(*ip), &[2000, 60000])).collect()
}

/// Streams, one after the other.
fn stream(from: &Host, to: &Pod) -> anyhow::Result<Vec<Probe>> {
    const TIME: Duration = Duration::from_millis(300);
    FAMILIES.iter().map(|ip| Ok(transfer(from, &to.host, ONLY_B.bulk(*ip), Check::Hash, TIME)?.0)).collect()
}

/// Who answers new connections; arrived if `who` is among them and so are all others.
fn answered_by(from: &Host, ip: Ip, who: &Pod) -> anyhow::Result<Probe> {
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..CONNECTS {
        match ask(from, Over::Tcp, WEB.at(ip))? {
            Outcome::Answer(name, _) => *answers.entry(name).or_default() += 1,
            other => return Ok(Probe::Silent(other.to_string())),
        }
    }
    let text: Vec<String> = answers.iter().map(|(name, times)| format!("{name} {times}")).collect();
    let text = format!("of {CONNECTS} connections: {}", text.join(", "));
    Ok(if answers.contains_key(who.name()) && answers.len() == 3 { Probe::Arrived(text) } else { Probe::Silent(text) })
}

/// A connection to the service of all that this pod answers.
fn line_to(from: &Host, over: Over, ip: Ip, who: &Pod) -> anyhow::Result<Line> {
    for _ in 0..CONNECTS {
        if let Ok(mut line) = Line::open(from, over, 0, WEB.at(ip))?
            && matches!(line.ask()?, Outcome::Answer(name, _) if name == who.name())
        {
            return Ok(line);
        }
    }
    anyhow::bail!("{} is never chosen", who.name())
}

/// Arrived if all questions on this line are answered, by `who` or by another, as `same` says.
fn answers(line: &mut Line, who: &Pod, same: bool) -> anyhow::Result<Probe> {
    const TIMES: usize = 5;
    let mut names = BTreeMap::<String, usize>::new();
    for _ in 0..TIMES {
        match line.ask()? {
            Outcome::Answer(name, _) => *names.entry(name).or_default() += 1,
            other => return Ok(Probe::Silent(other.to_string())),
        }
    }
    let text: Vec<String> = names.iter().map(|(name, times)| format!("{name} answered {times} of {TIMES}")).collect();
    let right = names.len() == 1 && names.contains_key(who.name()) == same;
    Ok(if right { Probe::Arrived(text.join(", ")) } else { Probe::Silent(text.join(", ")) })
}

/// From one port to one backend in three ways, all open at once (rules V18 and V19).
fn by_three_ways(from: &Host, to: &Pod, ip: Ip) -> anyhow::Result<Probe> {
    // Connections of the last time may linger.
    static NEXT: AtomicU16 = AtomicU16::new(20000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut probes = Vec::new();
    for over in [Over::Tcp, Over::Udp] {
        let mut lines = Vec::new();
        for address in [ONLY_B.at(ip), ALSO_B.at(ip), to.address.at(ip, GREETER)] {
            match Line::open(from, over, port, address)? {
                Ok(line) => lines.push((address, line)),
                Err(outcome) => probes.push(Probe::Silent(format!("{address}: {outcome}"))),
            }
        }
        // Each twice: the later must not have taken the earlier one's answers.
        for round in 0..2 {
            for (address, line) in &mut lines {
                let probe = line.ask()?.any();
                if round == 1 || !probe.arrived() {
                    let text = format!("from port {port} by {}: {}", address.ip(), probe.text());
                    probes.push(if probe.arrived() { Probe::Arrived(text) } else { Probe::Silent(text) });
                }
            }
        }
    }
    Ok(all(&probes))
}

/// What `trace` says of a new connection to the service of pod b.
fn trace(cluster: &Cluster) -> anyhow::Result<Probe> {
    let address = ONLY_B.address.of(Ip::V4);
    let words = format!("--format json trace --from pod/default/a --to {address} --proto tcp --dport 80");
    let said = cluster.daemon.vsctl(&words)?;
    let trace: serde_json::Value = serde_json::from_str(&said).context("trace is no JSON")?;
    let (verdict, decided) = (&trace["verdict"], &trace["decided_by"]);
    let endpoint = cluster.b.address.at(Ip::V4, GREETER).to_string();
    let text = format!("verdict {verdict}, decided by {decided}");
    let names = said.contains("default/only-b") && said.contains(&endpoint);
    Ok(match verdict == "allow" && names {
        true => Probe::Arrived(format!("{text}; default/only-b and {endpoint} are named")),
        false => Probe::Silent(format!("{text}, reason {}", trace["reason"])),
    })
}
