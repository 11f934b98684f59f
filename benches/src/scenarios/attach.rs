//! `attach`: how long a container runtime waits for a pod's interface, and how many it gets a second.
//!
//! The control side of `vswitchd` in this process, on a socket, with the services and a thousand policies loaded that a node
//! of a large cluster has. The runtime is this program: for each ADD it starts the plugin as a process (the program
//! `vswitch-cni` that was built beside this one) in the way of libcni, with a namespace that is there already, as runtimes
//! have it. First one at a time (`add_ms`, `add_p99_ms`), then eight at a time (`adds_s`); each has its DEL (`del_ms`).
//! Every pod has its Pod object, to which policies apply, and an address that the daemon gives.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use vswitch::sys::netns::Namespace;

use super::{Params, Scale, ScenarioDef, policy_program, program};
use crate::daemon::{self, Daemon};
use crate::machine::Machine;
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "attach",
    help: "ADD of the CNI plugin, with so many services and 1,000 policies: alone, and eight at a time; wants root",
    ladder: &[100],
    scale: Scale::Flows,
    privileged: true,
    run,
};

/// ADDs at a time.
const AT_ONCE: usize = 8;
/// Policies, and namespaces that they are in.
const POLICIES: usize = 1000;

/// A pod of the node as the API server has it before it is attached.
fn pod(number: usize) -> String {
    let metadata = json!({
        "name": format!("c{number}"), "namespace": format!("n{}", number % policy_program::NAMESPACES),
        "labels": {"app": format!("a{}", number / policy_program::NAMESPACES % 10)},
    });
    let spec = json!({"nodeName": "n1", "containers": [{"name": "main"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

/// The plugin, and whom it asks.
struct Plugin<'a> {
    program: PathBuf,
    socket: &'a Path,
}

impl Plugin<'_> {
    /// Run it; returns after how many milliseconds it was done.
    fn call(&self, verb: &str, number: usize, netns: &Path) -> Result<f64> {
        let socket = self.socket.display().to_string();
        let queue = self.socket.with_file_name("detach").display().to_string();
        let config =
            json!({"cniVersion": "1.0.0", "name": "pods", "type": "vswitch-cni", "socket": socket, "queue": queue});
        let start = Instant::now();
        let mut child = Command::new(&self.program)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("container-{number}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", netns)
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=n{};K8S_POD_NAME=c{number}",
                    number % policy_program::NAMESPACES
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| self.program.display().to_string())?;
        child.stdin.take().context("no standard input")?.write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        ensure!(output.status.success(), "{verb} {number}: {}", String::from_utf8_lossy(&output.stdout));
        Ok(took)
    }

    /// Run it for all, so many at a time; returns the times, and all together in seconds.
    fn for_all(&self, verb: &str, spaces: &[Namespace], first: usize, at_once: usize) -> Result<(Vec<f64>, f64)> {
        let next = AtomicUsize::new(0);
        let one = || -> Result<Vec<f64>> {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(space) = spaces.get(number) else { return Ok(times) };
                times.push(self.call(verb, first + number, space.path())?);
            }
        };
        let start = Instant::now();
        let lists: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<f64>>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            };
            threads.into_iter().map(join).collect()
        });
        let took = start.elapsed().as_secs_f64();
        let mut times: Vec<f64> = lists.into_iter().collect::<Result<Vec<_>>>()?.concat();
        times.sort_by(f64::total_cmp);
        Ok((times, took))
    }
}

/// The program that was built beside this one; tests are built one directory further down.
fn plugin_beside(own: &Path) -> Result<PathBuf> {
    let places = own.ancestors().skip(1).take(2).map(|place| place.join("vswitch-cni"));
    let found = places.into_iter().find(|program| program.is_file());
    found.with_context(|| format!("no vswitch-cni beside {}: build all programs first", own.display()))
}

fn measure(daemon: &mut Daemon, socket: &Path, params: &Params, machine: &Machine) -> Result<Outcome> {
    let pods = params.flows;
    let status = json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]});
    let spec = json!({"podCIDRs": ["10.1.0.0/16"]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": spec, "status": status});
    daemon.apply(node.to_string() + &program::load(params.services))?;
    let mut cluster = String::new();
    for n in 0..policy_program::NAMESPACES {
        cluster += &policy_program::namespace(n, n % 10);
    }
    (0..POLICIES).for_each(|n| _ = write!(cluster, "{}", policy_program::policy(n, 80)));
    (0..2 * pods).for_each(|n| _ = write!(cluster, "{}", pod(n)));
    daemon.apply(cluster)?;
    let program = plugin_beside(&std::env::current_exe()?)?;
    let plugin = Plugin { program, socket };
    let spaces = (0..pods).map(|_| Namespace::new()).collect::<std::io::Result<Vec<_>>>()?;
    let (alone, _) = plugin.for_all("ADD", &spaces, 0, 1)?;
    let (removed, _) = plugin.for_all("DEL", &spaces, 0, 1)?;
    let (_, together) = plugin.for_all("ADD", &spaces, pods, AT_ONCE)?;
    plugin.for_all("DEL", &spaces, pods, AT_ONCE)?;
    let at = |list: &[f64], percent: usize| list.get(list.len() * percent / 100).copied().unwrap_or_default();
    // An ADD is what is counted here, not a packet.
    let median = at(&alone, 50) * 1e3;
    let figures = [
        ("add_ms", at(&alone, 50)),
        ("add_p99_ms", at(&alone, 99)),
        ("del_ms", at(&removed, 50)),
        ("adds_s", pods as f64 / together),
    ];
    Ok(Outcome {
        scenario: SCENARIO.name.to_owned(),
        tsc_per_packet: median * machine.tsc_mhz,
        tsc_best: at(&alone, 0) * 1e3 * machine.tsc_mhz,
        ns_per_packet: median * 1000.0,
        mpps: 1.0 / median,
        packets: alone.len() as u64,
        p50_ns: median * 1000.0,
        p99_ns: at(&alone, 99) * 1e6,
        params: [("services".to_owned(), params.services.into()), ("policies".to_owned(), POLICIES.into())].into(),
        figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Outcome::default()
    })
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.own_frames(SCENARIO.name)?;
    daemon::at(params.cpus.first().copied(), |_| (), |daemon, socket| measure(daemon, socket, params, machine))
}
