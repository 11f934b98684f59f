//! Pods come and go while clients ask all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::objects::WEB;
use crate::claim::{Control, Probe, Report};
use crate::greeter::{Outcome, Over, ask};
use crate::host::Host;
use crate::labs::cluster::{Cluster, Ip, Pod};

pub(super) const LOAD: &str = "pods come and go under load, and no request of a pod or of the outside fails";

/// How often each pod leaves and comes back.
const ROUNDS: usize = 8;
/// How long a change stays: a client asks some times.
const STAY: Duration = Duration::from_millis(40);

/// What became of the requests of one client.
#[derive(Default)]
struct Count {
    answered: usize,
    failed: Vec<String>,
}

pub(super) fn load(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let Cluster { a, b, c, .. } = cluster;
    let set = |pod: &Pod, ready| cluster.daemon.apply(&pod.manifest(ready));
    let probe = under_load(cluster, || {
        for _ in 0..ROUNDS {
            for pod in [a, b, c] {
                set(pod, false)?;
                std::thread::sleep(STAY);
                set(pod, true)?;
                std::thread::sleep(STAY);
            }
        }
        Ok(())
    })?;
    let control = under_load(cluster, || {
        [a, b, c].into_iter().try_for_each(|pod| set(pod, false))?;
        std::thread::sleep(STAY * 4);
        [a, b, c].into_iter().try_for_each(|pod| set(pod, true))
    })?;
    report.reaches(LOAD, &probe, Control::new("all gone at once", control));
    Ok(())
}

/// Arrived if no request fails that clients make while `change` goes on: each a new connection, IPv4 and IPv6.
fn under_load(cluster: &Cluster, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Probe> {
    let Cluster { b, outside, .. } = cluster;
    let clients = [
        (&b.host, WEB.at(Ip::V4)),
        (&b.host, WEB.at(Ip::V6)),
        (outside, WEB.node_port(Ip::V4)),
        (outside, WEB.node_port(Ip::V6)),
    ];
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = clients.iter().map(|(from, to)| scope.spawn(|| requests(from, *to, &stop))).collect();
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .collect::<anyhow::Result<_>>()?;
        changed.map(|()| counts)
    })?;
    let answered: usize = counts.iter().map(|count: &Count| count.answered).sum();
    let failed: Vec<&String> = counts.iter().flat_map(|count| &count.failed).collect();
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{answered} requests answered in {seconds:.1} s, {} failed", failed.len());
    // Every client was served, or this tells nothing.
    let served = counts.iter().all(|count| count.answered > 0);
    Ok(match failed.first() {
        None if served => Probe::Arrived(text),
        first => Probe::Silent(format!("{text}, the first: {}", first.map_or("nobody asked", |text| text))),
    })
}

fn requests(from: &Host, to: SocketAddr, stop: &AtomicBool) -> anyhow::Result<Count> {
    let mut count = Count::default();
    while !stop.load(Ordering::Relaxed) {
        match ask(from, Over::Tcp, to)? {
            Outcome::Answer(..) => count.answered += 1,
            other => count.failed.push(format!("{} at {to}: {other}", from.name())),
        }
    }
    Ok(count)
}
