//! `program`: from a request to packets that see it.
//!
//! The control side of `vswitchd` in this process, on a socket, with a client of that socket; the switch with its worker on a
//! thread, on which a pod sends to a service without pause. An EndpointSlice of 100 endpoints says one port and another in
//! turn: `seen_us` is the time from the request to the first packet that leaves for the new port, `answered_us` that to
//! the answer, which waits for the disk; both are medians. Objects are JSON, as programs write them; `seen_yaml_us` is the
//! first of the two for YAML. Then a whole cluster is applied in one request: `load_s` is the time to the answer, `load_mb`
//! what the process has grown by, its client included.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pipeline::offload::Offload;
use pipeline::raw::{Stash, ticks};
use serde_json::json;
use vswitch::ports::{Device, Opened, Status, Tx, TxBatch};
use vswitch::switch::Switch;

use super::service::flows;
use super::{Params, Scale, ScenarioDef};
use crate::daemon::{self, Daemon};
use crate::flows::{Flows, Segment};
use crate::machine::{Machine, resident};
use crate::node::{CLIENTS, Family, SERVICE_PORT};
use crate::port::{self, Playlist};
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "program",
    help: "from the request that changes 100 endpoints to the first packet that sees it; a load of 250,000; wants root",
    ladder: &[1000],
    scale: Scale::Flows,
    privileged: true,
    run,
};

/// Endpoints of the slice that changes.
const ENDPOINTS: usize = 100;
/// Ports that it says in turn.
const TARGETS: [u16; 2] = [8080, 8081];
/// Endpoints of a service of the load.
const EACH: usize = 25;
/// Changes that come as YAML.
const AS_YAML: usize = 99;
/// A packet is waited for so long.
const UNSEEN: Duration = Duration::from_secs(5);
/// Where the destination port is in a frame over IPv4 without options.
const TP_DST: std::ops::Range<usize> = 36..38;

/// Takes what goes to the backends, and writes down when something for each of [`TARGETS`] first left, ticks; 0 when
/// nothing did. A time for each: a worker may be about to write one down while the next is being waited for.
#[derive(Debug, Default)]
struct Watch([AtomicU64; TARGETS.len()]);

impl Watch {
    /// The time of a target.
    fn of(&self, target: usize) -> &AtomicU64 {
        &self.0[target % TARGETS.len()]
    }
}

impl Device for Watch {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        batch.take(batch.len(), |frame| {
            for (port, seen) in TARGETS.iter().zip(&self.0) {
                let found = frame.head().get(TP_DST) == Some(&port.to_be_bytes());
                if found && seen.load(Ordering::Relaxed) == 0 {
                    seen.store(ticks(), Ordering::Release);
                }
            }
            stash.give(frame);
        });
        Tx::Done
    }

    fn takes(&self, _offload: Offload) -> bool {
        true
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}

/// A node named `n1` with its pods: one that asks, and the backends of a service.
fn cluster() -> String {
    let status = json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]});
    let metadata = json!({"name": "n1"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"podCIDRs": ["10.0.0.0/14"]}, "status": status});
    let pod = |name: &str, address: IpAddr| {
        let spec = json!({"nodeName": "n1", "containers": [{"name": "main"}]});
        let status = json!({"podIP": address, "podIPs": [{"ip": address}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec, "status": status})
    };
    let backends = (0..ENDPOINTS).map(|n| pod(&format!("b{n}"), Family::Four.backend(n)));
    let pods = std::iter::once(pod("client", Family::Four.client(0))).chain(backends);
    let texts = std::iter::once(node).chain(pods).map(|object| object.to_string());
    texts.chain([service("watched", Family::Four.service(0))]).collect()
}

fn service(name: &str, vip: IpAddr) -> String {
    let spec = json!({"clusterIP": vip, "ports": [{"protocol": "UDP", "port": SERVICE_PORT}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn slice(service: &str, port: u16, addresses: impl Iterator<Item = IpAddr>) -> String {
    let endpoint = |address| json!({"addresses": [address], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-a"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"protocol": "UDP", "port": port}],
        "endpoints": addresses.map(endpoint).collect::<Vec<_>>(),
    })
    .to_string()
}

/// The slice of the service that is watched.
fn watched(port: u16) -> String {
    slice("watched", port, (0..ENDPOINTS).map(|n| Family::Four.backend(n)))
}

/// The same object as YAML has it: JSON is YAML, too, and what begins with a marker is read as such.
fn as_yaml(json: &str) -> String {
    format!("---\n{json}\n")
}

/// So many services with 25 endpoints each, all on other nodes.
pub(super) fn load(services: usize) -> String {
    (1..=services).fold(String::new(), |text, n| {
        let addresses = (0..EACH).map(|i| {
            let [_, a, b, c] = ((n * EACH + i) as u32).to_be_bytes();
            IpAddr::from([11, a, b, c])
        });
        let name = format!("s{n}");
        text + &service(&name, Family::Four.service(n)) + &slice(&name, TARGETS[0], addresses)
    })
}

/// Add the ports of the pods, which the switch was offered.
fn attach(daemon: &mut Daemon) -> Result<()> {
    daemon.attach("client", crate::node::client_mac(0))?;
    (0..ENDPOINTS).try_for_each(|n| daemon.attach(&format!("b{n}"), crate::node::backend_mac(n)))
}

/// The time from a request to packets that see it, microseconds: to the answer, and to the first packet.
fn change(
    daemon: &mut Daemon,
    watch: &Watch,
    target: usize,
    spell: fn(&str) -> String,
    machine: &Machine,
) -> Result<[f64; 2]> {
    let text = spell(&watched(TARGETS[target]));
    let seen = watch.of(target);
    // Nothing has left for it since the last change was answered.
    seen.store(0, Ordering::Release);
    let start = ticks();
    daemon.apply(text)?;
    let answered = ticks();
    let waiting = Instant::now();
    while seen.load(Ordering::Acquire) == 0 {
        ensure!(waiting.elapsed() < UNSEEN, "no packet leaves for port {} in {UNSEEN:?}", TARGETS[target]);
        std::thread::yield_now();
    }
    let seen = seen.load(Ordering::Acquire);
    Ok([answered, seen].map(|at| machine.ns(at.saturating_sub(start) as f64) / 1000.0))
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.own_frames(SCENARIO.name)?;
    // All from one client: each a source port of its own.
    let flows = Flows { count: params.flows * CLIENTS, services: 1, ..flows(Family::Four, params) };
    let frames = flows.frames_of_client(Segment::Datagram, 0)?;
    let playlist = Playlist::new(vec![Arc::new(frames)]);
    playlist.pause(true);
    let watch = Arc::new(Watch::default());
    let offer = {
        let (playlist, watch) = (Arc::clone(&playlist), Arc::clone(&watch));
        move |switch: &Switch| {
            switch.offer("client", port::open(playlist).0);
            for n in 0..ENDPOINTS {
                let device: Arc<dyn Device> = Arc::clone(&watch) as _;
                switch.offer(&format!("b{n}"), Opened { queues: Vec::new(), device });
            }
        }
    };
    daemon::run(params.cpus.first().copied(), offer, |daemon| measure(daemon, &playlist, &watch, params, machine))
}

fn measure(
    daemon: &mut Daemon,
    playlist: &Playlist,
    watch: &Watch,
    params: &Params,
    machine: &Machine,
) -> Result<Outcome> {
    daemon.apply(cluster() + &watched(TARGETS[1]))?;
    attach(daemon)?;
    playlist.pause(false);
    let mut times: [Vec<f64>; 2] = Default::default();
    let start = Instant::now();
    for target in (0..TARGETS.len()).cycle() {
        for (list, time) in times.iter_mut().zip(change(daemon, watch, target, str::to_owned, machine)?) {
            list.push(time);
        }
        if start.elapsed() > params.duration && times[0].len() > 2 {
            break;
        }
    }
    let mut yaml = Vec::new();
    for target in (0..TARGETS.len()).cycle().take(AS_YAML) {
        yaml.push(change(daemon, watch, target, as_yaml, machine)?[1]);
    }
    times.iter_mut().chain([&mut yaml]).for_each(|list| list.sort_by(f64::total_cmp));
    let at = |list: &[f64], percent: usize| list.get(list.len() * percent / 100).copied().unwrap_or_default();
    let (text, before) = (load(params.services), resident("self")?);
    let start = Instant::now();
    daemon.apply(text)?;
    let load = start.elapsed().as_secs_f64();
    let grown = resident("self")?.saturating_sub(before);
    let [answered, seen] = &times;
    // A change is what is counted here, not a packet.
    let median = at(seen, 50);
    Ok(Outcome {
        scenario: SCENARIO.name.to_owned(),
        tsc_per_packet: median * machine.tsc_mhz,
        tsc_best: at(seen, 0) * machine.tsc_mhz,
        ns_per_packet: median * 1000.0,
        mpps: 1.0 / median,
        packets: seen.len() as u64,
        p50_ns: median * 1000.0,
        p99_ns: at(seen, 99) * 1000.0,
        params: [("services".to_owned(), params.services.into())].into(),
        figures: [
            ("seen_us".to_owned(), median),
            ("seen_best_us".to_owned(), at(seen, 0)),
            ("answered_us".to_owned(), at(answered, 50)),
            ("seen_yaml_us".to_owned(), at(&yaml, 50)),
            ("load_s".to_owned(), load),
            ("load_mb".to_owned(), grown as f64 / 1e6),
        ]
        .into(),
        ..Outcome::default()
    })
}
