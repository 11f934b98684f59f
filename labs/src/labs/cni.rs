//! `cni`: pods that a container runtime attaches with the CNI plugin, as a Kubernetes node does.
//!
//! The lab is the runtime. Nobody but the plugin touches the pods' interfaces, and nobody but the daemon chooses their
//! addresses. What ADD promises is asked for in the moment in which it returns: a service that has the pod behind it, a
//! policy that isolates it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use vswitch::sys::netlink::Netlink;

use super::{LabDef, Needs, Options, linger};
use crate::claim::{Control, Probe, Report};
use crate::daemon::Daemon;
use crate::greeter::{Greeter, Over, ask};
use crate::host::Host;
use crate::ping::ping;
use crate::runtime::{Answer, Runtime, Sandbox};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "cni",
    help: "pods attached by the CNI plugin: ADD, CHECK, restart, DEL, and nothing left",
    needs: Needs::Interfaces,
    claims: &[PING4, PING6, SERVICE, POLICY, CHECK, RESTART, DEL, DEAD, LEAK],
    run,
};

const PING4: &str = "ADD gives a pod an address and a way: a pings b over IPv4";
const PING6: &str = "ADD gives a pod an address and a way: a pings b over IPv6";
const SERVICE: &str = "when ADD returns, the service reaches the pod behind it";
const POLICY: &str = "when ADD returns, the pod's policy is in force";
const CHECK: &str = "CHECK is content with what is as it was made";
const RESTART: &str = "after kill -9 of the whole daemon and a start, CHECK is content and the pods reach each other";
const DEL: &str = "DEL takes the pod off the network";
const DEAD: &str = "DEL with the daemon dead succeeds, and is done at its next start";
const LEAK: &str = "after as many DELs as ADDs nothing is left: no attachment, port, address or descriptor";

const DRAWING: &str = "
    pod a      pod b      pod c (isolated)     containers' namespaces
      │ eth0     │ eth0     │ eth0             made by: runtime → vswitch-cni → vswitchd
      └──────────┴─ br-pods ┘
";

const GREETER: u16 = 8080;
const SERVICE_ADDRESS: &str = "10.96.0.10";
/// ADDs and DELs of the search for leaks.
const ROUNDS: usize = 20;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.7.0/24, podCIDRs: [10.244.7.0/24, "fd00:244:7::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.7}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, selector: {app: b}, ports: [{port: 80, targetPort: 8080}]}
"#;

const ISOLATE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: default}
spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Ingress]}
";

/// A pod as the API server has it before it is attached: without an address.
fn manifest(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: main, image: none}}]}}\n\
         status: {{phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n"
    )
}

/// A pod that is attached.
struct Pod {
    host: Host,
    id: String,
    result: Value,
    _greeter: Greeter,
}

impl Pod {
    /// A sandbox, and a server in it.
    fn new(name: &'static str) -> anyhow::Result<Self> {
        let host = Host::new(name)?;
        host.loopback(&[])?;
        let greeter = Greeter::start(&host, GREETER)?;
        Ok(Self { host, id: format!("sandbox-{name}"), result: Value::Null, _greeter: greeter })
    }

    fn sandbox(&self) -> Sandbox<'_> {
        Sandbox { id: &self.id, host: &self.host, pod: Some(self.host.name()) }
    }

    fn add(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        self.result = expect(runtime.add(self.sandbox())?, "ADD")?;
        Ok(())
    }

    /// Its address, as the result of ADD says.
    fn address(&self, v6: bool) -> anyhow::Result<IpAddr> {
        let ips = self.result["ips"].as_array().context("a result without ips")?;
        let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse::<IpAddr>().ok();
        ips.iter()
            .filter_map(address)
            .find(|ip| ip.is_ipv6() == v6)
            .context("a result without an address of each family")
    }
}

/// What the plugin said when it was content.
fn expect(answer: Answer, verb: &str) -> anyhow::Result<Value> {
    answer.or_else(|error| bail!("{verb}: {error}"))
}

/// An answer as a probe: it arrived when the plugin was content.
fn content(answer: Answer) -> Probe {
    match answer {
        Ok(_) => Probe::Arrived("exit 0".to_owned()),
        Err(error) => Probe::Silent(format!("code {}: {}", error["code"], error["msg"].as_str().unwrap_or_default())),
    }
}

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut daemon = Daemon::with(options.workers, options.keep, "--node n1 --service-cidr 10.96.0.0/16")?;
    daemon.apply(OBJECTS)?;
    let runtime = Runtime::of(&daemon);
    let (mut a, mut b, mut c) = (Pod::new("a")?, Pod::new("b")?, Pod::new("c")?);
    daemon.apply(&["a", "b", "c"].map(manifest).concat())?;
    a.add(&runtime)?;
    attach(report, &daemon, &runtime, (&a, &mut b, &mut c))?;
    check(report, &runtime, &a)?;
    daemon.check_cache()?;
    restart(report, &mut daemon, &runtime, (&a, &b))?;
    dead(report, &mut daemon, &runtime, (&a, &c))?;
    delete(report, &runtime, (&a, &b))?;
    leaks(report, &daemon, &runtime, &b.host)?;
    daemon.check_cache()?;
    if options.keep {
        linger(&daemon, &[&a.host, &b.host, &c.host]);
    }
    daemon.stop()
}

/// What holds when ADD returns. The controls are from before.
fn attach(
    report: &mut Report,
    daemon: &Daemon,
    runtime: &Runtime,
    (a, b, c): (&Pod, &mut Pod, &mut Pod),
) -> anyhow::Result<()> {
    let service: SocketAddr = SocketAddr::new(SERVICE_ADDRESS.parse()?, 80);
    let before = ask(&a.host, Over::Tcp, service)?.any();
    b.add(runtime)?;
    let after = ask(&a.host, Over::Tcp, service)?.by("b", a.address(false)?);
    report.reaches(SERVICE, &after, Control::new("before ADD of b", before));
    for (text, v6) in [(PING4, false), (PING6, true)] {
        let nobody = if v6 { "fd00:244:7::99" } else { "10.244.7.99" };
        let probe = ping(&a.host, &b.host, b.address(v6)?)?;
        let control = ping(&a.host, &b.host, nobody.parse()?)?;
        report.reaches(text, &probe, Control::new("an address that nobody was given", control));
    }
    daemon.apply(ISOLATE)?;
    c.add(runtime)?;
    let at = SocketAddr::new(c.address(false)?, GREETER);
    let isolated = ask(&a.host, Over::Tcp, at)?.any();
    daemon.delete(ISOLATE)?;
    let open = ask(&a.host, Over::Tcp, at)?.by("c", a.address(false)?);
    report.separates(POLICY, &isolated, Control::new("without the policy", open));
    Ok(())
}

fn check(report: &mut Report, runtime: &Runtime, a: &Pod) -> anyhow::Result<()> {
    let probe = content(runtime.check(a.sandbox(), &a.result)?);
    let address = a.address(true)?;
    let change = |add: bool| {
        a.host.inside(|| {
            let netlink = Netlink::open()?;
            let index = netlink.index("eth0")?;
            if add { netlink.add_address(index, address, 64) } else { netlink.remove_address(index, address, 64) }
        })
    };
    change(false).context("take an address from a")?;
    let control = content(runtime.check(a.sandbox(), &a.result)?);
    change(true).context("give a its address back")?;
    // The kernel took the route with the address.
    let gateway = "fd00:244:7::1".parse()?;
    a.host.inside(|| {
        let netlink = Netlink::open()?;
        match netlink.add_route(
            ("::".parse().map_err(std::io::Error::other)?, 0),
            Some(gateway),
            Some(netlink.index("eth0")?),
        ) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    })?;
    report.reaches(CHECK, &probe, Control::new("an address of the pod removed by hand", control));
    Ok(())
}

fn restart(report: &mut Report, daemon: &mut Daemon, runtime: &Runtime, (a, b): (&Pod, &Pod)) -> anyhow::Result<()> {
    daemon.kill_all()?;
    let control = ping(&a.host, &b.host, b.address(false)?)?;
    daemon.run()?;
    let answer = runtime.check(b.sandbox(), &b.result)?;
    let probe = match (content(answer), ping(&a.host, &b.host, b.address(false)?)?) {
        (Probe::Arrived(_), Probe::Arrived(text)) => Probe::Arrived(format!("CHECK is content; {text}")),
        (Probe::Silent(text), _) | (_, Probe::Silent(text)) => Probe::Silent(text),
    };
    report.reaches(RESTART, &probe, Control::new("while it was dead", control));
    Ok(())
}

/// A pod goes while nobody is there to hear it.
fn dead(report: &mut Report, daemon: &mut Daemon, runtime: &Runtime, (a, c): (&Pod, &Pod)) -> anyhow::Result<()> {
    daemon.kill_all()?;
    expect(runtime.del(c.sandbox())?, "DEL")?;
    daemon.run()?;
    let has = |pod: &Pod| -> anyhow::Result<Probe> {
        let table = daemon.vsctl("attachments")?;
        let interface = pod.host.interface("eth0").is_ok();
        Ok(match (table.contains(&pod.id), interface) {
            (true, true) => Probe::Arrived(format!("{} is listed and has eth0", pod.id)),
            (listed, interface) => Probe::Silent(format!("{}: listed {listed}, has eth0 {interface}", pod.id)),
        })
    };
    report.separates(DEAD, &has(c)?, Control::new("a pod that was not deleted", has(a)?));
    Ok(())
}

fn delete(report: &mut Report, runtime: &Runtime, (a, b): (&Pod, &Pod)) -> anyhow::Result<()> {
    let before = ping(&a.host, &b.host, b.address(false)?)?;
    expect(runtime.del(b.sandbox())?, "DEL")?;
    // As often as a runtime likes.
    expect(runtime.del(b.sandbox())?, "a second DEL")?;
    ensure!(b.host.interface("eth0").is_err(), "DEL left the interface");
    let after = ask(&a.host, Over::Tcp, SocketAddr::new(b.address(false)?, GREETER))?.any();
    report.separates(DEL, &after, Control::new("before DEL", before));
    expect(runtime.del(a.sandbox())?, "DEL").map(drop)
}

/// What is there after many ADDs and DELs, beside what was there before.
fn leaks(report: &mut Report, daemon: &Daemon, runtime: &Runtime, host: &Host) -> anyhow::Result<()> {
    fn of<'a>(id: &'a str, host: &'a Host) -> Sandbox<'a> {
        Sandbox { id, host, pod: None }
    }
    let state = || -> anyhow::Result<(usize, usize, usize)> {
        let attachments = daemon.vsctl("attachments")?.lines().count().saturating_sub(1);
        let ports = daemon.vsctl("list-ports br-pods")?.lines().count();
        Ok((attachments, ports, daemon.descriptors()?))
    };
    // The first one starts what stays.
    expect(runtime.add(of("warm", host))?, "ADD")?;
    expect(runtime.del(of("warm", host))?, "DEL")?;
    // A client that is through is forgotten a moment later: what counts is what stays.
    let least = || -> anyhow::Result<(usize, usize, usize)> {
        let mut least = state()?;
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(30));
            least = least.min(state()?);
        }
        Ok(least)
    };
    let before = least()?;
    let mut given = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        let id = format!("round-{round}");
        let result = expect(runtime.add(of(&id, host))?, "ADD")?;
        given.insert(result["ips"][0]["address"].to_string());
        expect(runtime.del(of(&id, host))?, "DEL")?;
    }
    ensure!(given.len() == ROUNDS, "an address was given again at once: {given:?}");
    let after = least()?;
    expect(runtime.add(of("left", host))?, "ADD")?;
    let left = least()?;
    expect(runtime.del(of("left", host))?, "DEL")?;
    let compare = |now: (usize, usize, usize)| {
        let text = format!("attachments, ports, descriptors: {before:?} before, {now:?} after");
        if now == before { Probe::Arrived(text) } else { Probe::Silent(text) }
    };
    report.reaches(LEAK, &compare(after), Control::new("one ADD without a DEL", compare(left)));
    Ok(())
}
