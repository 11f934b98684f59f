//! `policy-program`: how long a change of a cluster with many policies takes, from the request to the answer: by then it is in
//! force.
//!
//! The control side of `vswitchd` in this process, on a socket, with a client of that socket, and a switch with its worker on a
//! thread. A hundred namespaces hold N pods (`--flows`) and a thousand policies: pods of two applications and a block of
//! addresses may speak to a third, at a number and at a name of a port. Then one thing after the other changes there and back:
//! a label of a pod, a policy, a label of a namespace; and pods appear. In the end `verify` proves the tables, of no more than
//! a thousand pods.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::{Params, Scale, ScenarioDef};
use crate::daemon::{self, Daemon};
use crate::machine::{Machine, resident};
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "policy-program",
    help: "from the request that changes a label to the answer, among so many pods and 1,000 policies; wants root",
    ladder: &[1000, 10_000],
    scale: Scale::Flows,
    privileged: true,
    run,
};

pub(super) const NAMESPACES: usize = 100;
/// Applications of a namespace: each has a policy, and every tenth pod.
const APPLICATIONS: usize = 10;
/// Pods of this node, as many as one may have; none is attached, which makes no difference to what is resolved.
const HERE: usize = 110;
/// Changes of each kind that are timed.
const CHANGES: usize = 100;
/// Pods of a cluster that is verified, at most.
const VERIFIED: usize = 1000;

pub(super) fn namespace(number: usize, team: usize) -> String {
    let labels = json!({"team": format!("t{team}")});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("n{number}"), "labels": labels}})
        .to_string()
}

/// Pod `number`, of an application: its own, but while a label is changed.
fn pod(number: usize, application: usize) -> String {
    // The first address is the gateway's.
    let [_, _, high, low] = (number as u32 + 2).to_be_bytes();
    let address = format!("10.{}.{high}.{low}", 1 + usize::from(number >= HERE));
    let metadata = json!({
        "name": format!("p{number}"),
        "namespace": format!("n{}", number % NAMESPACES),
        "labels": {"app": format!("a{application}"), "pod-template-hash": format!("{number:x}")},
    });
    let ports = json!([{"name": "http", "containerPort": 8080}]);
    let node = if number < HERE { "n1" } else { "n2" };
    let spec = json!({"nodeName": node, "containers": [{"name": "main", "ports": ports}]});
    let status = json!({"podIP": address, "podIPs": [{"ip": address}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}).to_string()
}

/// The application that a pod has when nothing is changed.
fn application(number: usize) -> usize {
    number / NAMESPACES % APPLICATIONS
}

/// Policy `number`: for one application of a namespace, from two others.
pub(super) fn policy(number: usize, port: u16) -> String {
    let (space, own) = (number % NAMESPACES, number / NAMESPACES);
    let app = |n: usize| json!({"matchLabels": {"app": format!("a{}", n % APPLICATIONS)}});
    let team = json!({"matchLabels": {"team": format!("t{}", number % 7)}});
    let block = json!({"cidr": format!("172.{}.0.0/16", 16 + number % 16), "except": [format!("172.{}.9.0/24", 16 + number % 16)]});
    let from = json!([
        {"podSelector": app(own + 1)},
        {"namespaceSelector": team, "podSelector": app(own + 2)},
        {"ipBlock": block},
    ]);
    let ports = json!([{"protocol": "TCP", "port": port}, {"protocol": "TCP", "port": "http"}]);
    let spec = json!({
        "podSelector": app(own),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": from, "ports": ports}],
        "egress": [{"to": from}, {"ports": [{"protocol": "UDP", "port": 53}]}],
    });
    let metadata = json!({"name": format!("p{own}"), "namespace": format!("n{space}")});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
        .to_string()
}

/// Time of one request, microseconds.
fn timed(daemon: &mut Daemon, text: String) -> Result<f64> {
    let start = Instant::now();
    daemon.apply(text)?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

/// Times of many changes, there and back, ascending.
fn times(daemon: &mut Daemon, change: &dyn Fn(usize, bool) -> String) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(CHANGES);
    for n in 0..CHANGES / 2 {
        times.push(timed(daemon, change(n, true))?);
        times.push(timed(daemon, change(n, false))?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// How long a proof takes, of how many pairs of classes, and what it found.
fn verify(daemon: &mut Daemon) -> Result<[(&'static str, f64); 3]> {
    let start = Instant::now();
    let answer = daemon.verify()?;
    let took = start.elapsed().as_secs_f64();
    let found = answer["counterexamples"].as_array().map_or(0, Vec::len);
    Ok([
        ("verify_s", took),
        ("verify_pairs", answer["pairs"].as_f64().unwrap_or_default()),
        ("counterexamples", found as f64),
    ])
}

fn measure(daemon: &mut Daemon, params: &Params, machine: &Machine) -> Result<Outcome> {
    let pods = params.flows;
    let policies = NAMESPACES * APPLICATIONS;
    let status = json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.1.0.0/16"]}, "status": status});
    let before = resident("self")?;
    let mut cluster = node.to_string();
    for n in 0..NAMESPACES {
        cluster += &namespace(n, n % 10);
    }
    for n in 0..pods {
        let _ = write!(cluster, "{}", pod(n, application(n)));
    }
    let load = timed(daemon, cluster)? / 1e6;
    let text = (0..policies).fold(String::new(), |text, n| text + &policy(n, 80));
    let compiled = timed(daemon, text)? / 1e6;
    let grown = resident("self")?.saturating_sub(before);
    let some = |n: usize| (n * 37 + HERE) % pods;
    let label = times(daemon, &|n, there| {
        let (number, other) = (some(n), usize::from(there));
        pod(number, application(number) + other)
    })?;
    let appears = {
        let mut times = Vec::with_capacity(CHANGES / 2);
        for n in 0..CHANGES / 2 {
            times.push(timed(daemon, pod(pods + n, n % APPLICATIONS))?);
        }
        times.sort_by(f64::total_cmp);
        times
    };
    let changed = times(daemon, &|n, there| policy(n % policies, if there { 81 } else { 80 }))?;
    let spaces = times(daemon, &|n, there| namespace(n, n % 10 + usize::from(there)))?;
    let at = |list: &[f64], percent: usize| list.get(list.len() * percent / 100).copied().unwrap_or_default();
    let verified = (pods <= VERIFIED).then(|| verify(daemon)).transpose()?;
    // A change is what is counted here, not a packet.
    let median = at(&label, 50);
    let figures = [
        ("cluster_s", load),
        ("policies_s", compiled),
        ("grown_mb", grown as f64 / 1e6),
        ("label_us", median),
        ("pod_us", at(&appears, 50)),
        ("policy_us", at(&changed, 50)),
        ("namespace_us", at(&spaces, 50)),
    ];
    Ok(Outcome {
        scenario: SCENARIO.name.to_owned(),
        tsc_per_packet: median * machine.tsc_mhz,
        tsc_best: at(&label, 0) * machine.tsc_mhz,
        ns_per_packet: median * 1000.0,
        mpps: 1.0 / median,
        packets: label.len() as u64,
        p50_ns: median * 1000.0,
        p99_ns: at(&label, 99) * 1000.0,
        params: [("policies".to_owned(), policies.into())].into(),
        figures: figures
            .into_iter()
            .chain(verified.into_iter().flatten())
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..Outcome::default()
    })
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.own_frames(SCENARIO.name)?;
    daemon::run(params.cpus.first().copied(), |_| (), |daemon| measure(daemon, params, machine))
}
