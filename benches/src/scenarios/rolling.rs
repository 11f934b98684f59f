//! `rolling`: a rolling update while clients keep calling.
//!
//! The control side of `vswitchd` in this process, on a socket, with a client of that socket; a switch with its worker on a
//! thread; 100 pods that are a service's endpoints, with a port each, and a pod that calls the service. One by one the
//! endpoints are replaced, by what a cluster says of them: a pod comes, is attached and ready, and in the same EndpointSlice an
//! old one terminates and still serves; when that has no call any more, and not at once, it leaves the slice, and its port
//! and its Pod go. A call opens a connection, lingers for up to 50 ms, asks, and is answered.
//!
//! A call *fails* that never gets its answer, by a reset or by silence; it is *late* when it comes to an endpoint after the
//! request that made it terminate was answered. All three are to be 0.
//!
//! `sent_again` counts what the client said a second time because it heard nothing for a second: then the switch lost a frame,
//! which it may where a port asks for more first packets than its share.
//!
//! Endpoints and clients are no kernels, see [`crate::calls`]: they open and close connections in good order, and nothing they
//! say is lost on the way to the switch. `--flows` is calls a second.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use vswitch::switch::Switch;

use super::{Params, Scale, ScenarioDef};
use crate::calls::{Callee, Caller, Calls};
use crate::daemon::{self, Daemon};
use crate::machine::Machine;
use crate::node::{BACKEND_PORT, Family, SERVICE_PORT, backend_mac, client_mac};
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "rolling",
    help: "100 endpoints of a service are replaced one by one under so many calls a second: who fails; wants root",
    ladder: &[10_000],
    scale: Scale::Flows,
    privileged: true,
    run,
};

/// Endpoints of the service.
const ENDPOINTS: usize = 100;
/// A call lingers between connection and question, at most so long.
const LINGER: Duration = Duration::from_millis(50);
/// How long an endpoint stays at least after it was made to terminate.
const GRACE: Duration = Duration::from_millis(100);
/// How long it stays at most, and how long an answer is waited for in the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is said of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Absent,
    Ready,
    Terminating,
}

/// How endpoints are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// They terminate first.
    InGoodOrder,
    /// They listen no more while the slice still says that they are ready: what the figures are to show if they show anything.
    #[cfg(test)]
    AtOnce,
}

/// The pods of the service, old and new, and what the cluster says of them.
struct Roll<'a> {
    daemon: &'a mut Daemon,
    pods: &'a [Arc<Callee>],
    lives: Vec<Life>,
    /// Those that terminate, and since when.
    leaving: VecDeque<(usize, Instant)>,
}

fn pod(name: &str, address: IpAddr) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
         spec: {{nodeName: n1, containers: [{{name: main}}]}}\n\
         status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
    )
}

fn name(number: usize) -> String {
    format!("b{number}")
}

impl Roll<'_> {
    /// The pod is there, and attached.
    fn add(&mut self, number: usize) -> Result<()> {
        self.daemon.apply(pod(&name(number), Family::Four.backend(number)))?;
        self.daemon.attach(&name(number), backend_mac(number))?;
        self.set(number, Life::Ready);
        Ok(())
    }

    fn set(&mut self, number: usize, life: Life) {
        if let Some(place) = self.lives.get_mut(number) {
            *place = life;
        }
    }

    /// Tell the cluster which endpoints there are.
    fn publish(&mut self) -> Result<()> {
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: rolled-a, labels: {{kubernetes.io/service-name: rolled}}}}\n\
             addressType: IPv4\nports: [{{protocol: TCP, port: {BACKEND_PORT}}}]\nendpoints:\n"
        );
        for (number, life) in self.lives.iter().enumerate() {
            let (ready, terminating) = match life {
                Life::Absent => continue,
                Life::Ready => (true, false),
                Life::Terminating => (false, true),
            };
            let address = Family::Four.backend(number);
            let _ = writeln!(
                text,
                "- {{addresses: [{address}], nodeName: n1, \
                 conditions: {{ready: {ready}, serving: true, terminating: {terminating}}}}}"
            );
        }
        self.daemon.apply(text)
    }

    /// An old one for a new one.
    fn replace(&mut self, old: usize, new: usize) -> Result<()> {
        self.add(new)?;
        self.set(old, Life::Terminating);
        self.publish()?;
        // Answered requests are in force: whoever is sent there now is sent there in error.
        self.pods.get(old).inspect(|pod| pod.leave());
        self.leaving.push_back((old, Instant::now()));
        Ok(())
    }

    /// Let those go that may, or must by now.
    fn let_go(&mut self) -> Result<()> {
        while let Some((number, since)) = self.leaving.front().copied() {
            let (open, stayed) = (self.pods.get(number).map_or(0, |pod| pod.open()), since.elapsed());
            if stayed < GRACE || (open > 0 && stayed < PATIENCE) {
                return Ok(());
            }
            self.leaving.pop_front();
            self.set(number, Life::Absent);
            self.publish()?;
            self.take_away(number)?;
        }
        Ok(())
    }

    /// Port and Pod go.
    fn take_away(&mut self, number: usize) -> Result<()> {
        self.daemon.command(&format!("del-port {}", name(number)))?;
        self.daemon.delete("pod", &name(number))
    }

    /// Replace all, in no less than `duration`.
    fn roll(&mut self, leave: Leave, duration: Duration) -> Result<()> {
        let start = Instant::now();
        for number in 0..ENDPOINTS {
            match leave {
                Leave::InGoodOrder => self.replace(number, ENDPOINTS + number)?,
                #[cfg(test)]
                Leave::AtOnce => {
                    self.pods.get(number).inspect(|pod| pod.leave());
                    // As long as it takes a controller to notice, some calls are sent there.
                    std::thread::sleep(Duration::from_millis(20));
                    self.set(number, Life::Absent);
                    self.add(ENDPOINTS + number)?;
                    self.publish()?;
                    self.take_away(number)?;
                }
            }
            self.let_go()?;
            let due = duration / ENDPOINTS as u32 * (number as u32 + 1);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        while !self.leaving.is_empty() {
            self.let_go()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// What came of it.
struct Rolled {
    calls: Calls,
    /// Calls that came to endpoints that were to get none.
    late: u64,
    /// Endpoints that calls came to.
    reached: usize,
    took: Duration,
    /// Frames that the switch dropped.
    drops: u64,
}

impl Rolled {
    /// Calls that never got their answer.
    fn failed(&self) -> u64 {
        self.calls.made.saturating_sub(self.calls.answered)
    }
}

/// A whole update, under so many calls a second.
fn update(rate: f64, duration: Duration, leave: Leave, cpu: Option<u16>) -> Result<Rolled> {
    let [from, to] = [(Family::Four.client(0), 0), (Family::Four.service(0), SERVICE_PORT)];
    let (IpAddr::V4(source), IpAddr::V4(vip)) = (from.0, to.0) else { bail!("not over IPv4") };
    let ends = [SocketAddrV4::new(source, from.1), SocketAddrV4::new(vip, to.1)];
    let caller = Caller::new(client_mac(0), ends[0], ends[1], rate, LINGER);
    let pods: Vec<Arc<Callee>> = std::iter::repeat_with(Arc::default).take(2 * ENDPOINTS).collect();
    let offer = {
        let ports: Vec<_> = pods.iter().enumerate().map(|(number, pod)| (name(number), pod.port())).collect();
        let client = ("client".to_owned(), caller.port());
        move |switch: &Switch| ports.into_iter().chain([client]).for_each(|(name, port)| switch.offer(&name, port))
    };
    daemon::run(cpu, offer, |daemon| {
        let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.0.0.0/14]}\n\
                    status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}\n";
        let service = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: rolled}}\n\
             spec: {{clusterIP: {vip}, ports: [{{protocol: TCP, port: {SERVICE_PORT}}}]}}\n"
        );
        daemon.apply(node.to_owned() + &pod("client", from.0) + &service)?;
        daemon.attach("client", client_mac(0))?;
        let lives = vec![Life::Absent; 2 * ENDPOINTS];
        let mut roll = Roll { daemon: &mut *daemon, pods: &pods, lives, leaving: VecDeque::new() };
        (0..ENDPOINTS).try_for_each(|number| roll.add(number))?;
        roll.publish()?;
        caller.begin();
        let start = Instant::now();
        let rolled = roll.roll(leave, duration);
        let took = start.elapsed();
        caller.end();
        while caller.open() > 0 && start.elapsed() < took + PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        rolled?;
        let late = pods.iter().map(|pod| pod.late()).sum();
        let reached = pods.iter().filter(|pod| pod.taken() > 0).count();
        Ok(Rolled { calls: caller.calls(), late, reached, took, drops: daemon.drops()? })
    })
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.own_frames(SCENARIO.name)?;
    let rolled = update(params.flows as f64, params.duration, Leave::InGoodOrder, params.cpus.first().copied())?;
    let mut connected = rolled.calls.connected.clone();
    connected.sort();
    ensure!(!connected.is_empty(), "no call was taken");
    let at = |percent: usize| connected.get(connected.len() * percent / 100).map_or(0.0, |time| time.as_nanos() as f64);
    // A connection is what is counted here, not a packet: from SYN to SYN-ACK.
    let median = at(50);
    let figures = [
        ("replaced", ENDPOINTS as f64),
        ("reached", rolled.reached as f64),
        ("calls_s", rolled.calls.made as f64 / rolled.took.as_secs_f64()),
        ("calls", rolled.calls.made as f64),
        ("failed", rolled.failed() as f64),
        ("resets", rolled.calls.resets as f64),
        ("sent_again", rolled.calls.sent_again as f64),
        ("late", rolled.late as f64),
        ("roll_s", rolled.took.as_secs_f64()),
    ];
    Ok(Outcome {
        scenario: SCENARIO.name.to_owned(),
        tsc_per_packet: median * machine.tsc_mhz / 1000.0,
        tsc_best: at(0) * machine.tsc_mhz / 1000.0,
        ns_per_packet: median,
        mpps: 1000.0 / median,
        drops: rolled.drops,
        packets: rolled.calls.made,
        p50_ns: median,
        p99_ns: at(99),
        figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch::sys::netns::Namespace;

    #[test]
    fn nobody_fails_while_endpoints_are_replaced_in_good_order_and_many_do_when_they_go_at_once() {
        if Namespace::new().is_err() {
            eprintln!("skipped: network namespaces cannot be made here (it wants root)");
            return;
        }
        let update = |leave| update(2000.0, Duration::from_secs(1), leave, None).unwrap();
        let rolled = update(Leave::InGoodOrder);
        assert!(rolled.calls.made > 1500, "{:?}", rolled.calls.made);
        assert_eq!((rolled.failed(), rolled.calls.resets, rolled.late), (0, 0, 0));
        assert!(rolled.reached > 150, "{} of 200 endpoints", rolled.reached);
        assert!(update(Leave::AtOnce).failed() > 0);
    }
}
