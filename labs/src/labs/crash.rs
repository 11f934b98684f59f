//! `crash`: the daemon's processes are killed, again and again, under streams through a service.
//!
//! Each stream is kernel TCP from one pod to another at the address of a service with two pods behind it: what the switch
//! has to remember of it is to whom it goes. Its receiver counts and hashes what comes, so that one octet that is lost, or one
//! reset, shows. The control is the same end of the daemon with its memory of connections taken away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Dual, FAMILIES, Ip};
use super::{LabDef, Needs, Options, linger};
use crate::claim::{Control, Probe, Report};
use crate::traffic::{Check, Connected, Transfer};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "crash",
    help: "kill -9 in a loop under streams through a service: none is lost, none is reset",
    needs: Needs::Interfaces,
    claims: &[PLANE, DAEMON, RESTART],
    run,
};

const PLANE: &str = "kill -9 of the data plane in a loop, under streams through a service: all go on, no octet is lost";
const DAEMON: &str = "kill -9 of keeper and data plane, and a start, in a loop: all go on, no octet is lost";
const RESTART: &str = "an orderly stop and a start, in a loop: all go on, no octet is lost";

const DRAWING: &str = "
    pod a ══ streams ══╗           ╔══ pod b          pod c
    10.244.1.11        ║           ║   10.244.1.12    10.244.1.13
      │ TAP            ╚═ service ═╝     │ TAP           │ TAP
      └────────────── br-pods ───────────┴───────────────┘
                         ✗ kill -9          (and IPv6 likewise)
";

/// The service, of pods b and c.
const SERVICE: Dual = Dual("10.96.0.20", "fd00:96::20");
const PORT: u16 = 5001;
/// Streams of each version of IP.
const STREAMS: usize = 8;
/// Half of the attempts meet pod c, which does not listen.
const ATTEMPTS: usize = 64;
/// How often the data plane is killed, and how often all of the daemon.
const KILLS: usize = 4;
const STARTS: usize = 2;
/// Between two kills: a data plane that lived so long is started again at once.
const LIVED: Duration = Duration::from_millis(1100);
/// A stream goes on within this time, whatever was lost meanwhile.
const GOES_ON: Duration = Duration::from_secs(8);

fn manifests() -> String {
    let [v4, v6] = FAMILIES.map(|ip| SERVICE.of(ip));
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: crash, namespace: default}}\n\
         spec: {{clusterIP: \"{v4}\", clusterIPs: [\"{v4}\", \"{v6}\"], ipFamilies: [IPv4, IPv6], \
         ipFamilyPolicy: RequireDualStack, ports: [{{port: {PORT}}}]}}\n"
    );
    let pods = [["10.244.1.12", "10.244.1.13"], ["fd00:244:1::12", "fd00:244:1::13"]];
    let slice = |(kind, pods): (&str, [&str; 2])| {
        let endpoint = |address| format!("{{addresses: [\"{address}\"], conditions: {{ready: true}}}}");
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: crash-{}, namespace: default, labels: {{kubernetes.io/service-name: crash}}}}\n\
             addressType: {kind}\nports: [{{port: {PORT}}}]\nendpoints: [{}]\n",
            kind.to_lowercase(),
            pods.map(endpoint).join(", ")
        )
    };
    service + &["IPv4", "IPv6"].into_iter().zip(pods).map(slice).collect::<String>()
}

/// How the daemon comes to its end and back.
type End = fn(&mut Cluster) -> anyhow::Result<()>;

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut cluster = Cluster::build(options, manifests())?;
    cluster.apply()?;
    let ends: [(&'static str, &str, usize, End); 3] = [
        (PLANE, "kill -9 of the data plane", KILLS, |cluster| cluster.daemon.kill_data_plane()),
        (DAEMON, "kill -9 of both and a start", STARTS, |cluster| {
            cluster.daemon.kill_all()?;
            cluster.daemon.run()
        }),
        (RESTART, "stop and start", STARTS, |cluster| {
            cluster.daemon.pause()?;
            cluster.daemon.run()
        }),
    ];
    let (control, _) = under_streams(&mut cluster, 1, |cluster| {
        cluster.daemon.kill_all()?;
        cluster.daemon.forget_connections()?;
        cluster.daemon.run()
    })?;
    for (claim, what, times, end) in ends {
        let (probe, gaps) = under_streams(&mut cluster, times, end)?;
        report.reaches(
            claim,
            &probe,
            Control::new("with the memory of connections removed meanwhile", control.clone()),
        );
        let gaps: Vec<String> = gaps.iter().map(|gap| format!("{:.0}", gap.as_secs_f64() * 1e3)).collect();
        report.measured(format!("{what}: nothing arrived for {} ms", gaps.join(", ")));
        cluster.daemon.check_cache()?;
    }
    if options.keep {
        linger(&cluster.daemon, &cluster.hosts());
    }
    cluster.daemon.stop()
}

/// Arrived if every stream gets through whole while `end` happens some times; and for how long nothing arrived each time.
fn under_streams(
    cluster: &mut Cluster,
    times: usize,
    end: impl Fn(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<(Probe, Vec<Duration>)> {
    // All are there before any sends: a handshake would wait behind what the others have queued in pod a's device.
    let mut connected = Vec::new();
    for ip in FAMILIES {
        for _ in 0..STREAMS {
            connected.push(connect(cluster, ip)?);
        }
    }
    let streams: Vec<Transfer> = connected.into_iter().map(|stream| stream.begin(Check::Hash)).collect();
    let mut gaps = Vec::new();
    for _ in 0..times {
        std::thread::sleep(LIVED);
        gaps.push(gap_of(&streams, || end(cluster))?);
    }
    let (before, deadline) = (streams.iter().map(Transfer::received).collect::<Vec<_>>(), Instant::now() + GOES_ON);
    let stalled = || streams.iter().zip(&before).filter(|(stream, before)| stream.received() <= **before).count();
    while stalled() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let stalled = stalled();
    let (mut octets, mut lost) = (0, Vec::new());
    for stream in streams {
        octets += stream.received();
        if let (Probe::Silent(why), _) = stream.finish()? {
            lost.push(why);
        }
    }
    let text = format!(
        "{} streams, {:.1} GB received, {} stalled, {} not whole",
        2 * STREAMS,
        octets as f64 / 1e9,
        stalled,
        lost.len()
    );
    let probe = match lost.first() {
        None if stalled == 0 => Probe::Arrived(format!("{text}; every hash is as sent")),
        first => Probe::Silent(format!("{text}{}", first.map(|why| format!(", the first: {why}")).unwrap_or_default())),
    };
    Ok((probe, gaps))
}

/// A connection of pod a to the service that meets pod b.
fn connect(cluster: &Cluster, ip: Ip) -> anyhow::Result<Connected> {
    let to: SocketAddr = SERVICE.at(ip, PORT);
    for _ in 0..ATTEMPTS {
        if let Some(stream) = Connected::open(&cluster.a.host, &cluster.b.host, to)? {
            return Ok(stream);
        }
    }
    anyhow::bail!("of {ATTEMPTS} connections to {to} none met pod b")
}

/// The longest time, from the beginning of `end` on, in which no stream received anything.
fn gap_of(streams: &[Transfer], end: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| longest_pause(streams, &over));
        // Here, not there: a daemon is killed with the thread that started it.
        let ended = end();
        over.store(true, Ordering::Release);
        let longest = watching.join();
        ended.and_then(|()| longest.map_err(|_| anyhow::anyhow!("the watch over the streams panicked")))
    })
}

/// The longest time in which no stream received anything, until it is over and they receive again.
fn longest_pause(streams: &[Transfer], over: &AtomicBool) -> Duration {
    let received = || streams.iter().map(Transfer::received).sum::<u64>();
    let mut longest = Duration::ZERO;
    let (mut last, mut since) = (received(), Instant::now());
    loop {
        std::thread::sleep(Duration::from_micros(500));
        let (now, octets) = (Instant::now(), received());
        if octets != last {
            longest = longest.max(now - since);
            (last, since) = (octets, now);
        }
        let pause = now - since;
        if over.load(Ordering::Acquire) && (pause < Duration::from_millis(50) || pause > GOES_ON) {
            return longest.max(pause);
        }
    }
}
