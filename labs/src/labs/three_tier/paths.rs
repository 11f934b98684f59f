//! What passes under the policies, and what does not.

use anyhow::Context;

use super::objects::{self, Service};
use super::{BACKEND, DATABASE, DNS as DNS_POD, ELSEWHERE, GUEST, MASQUERADE, PARTNER, WEB, grid, passes};
use crate::claim::{Control, Probe, Report};
use crate::labs::cluster::{BEYOND, Dual, FAMILIES, Ip, NODE};
use crate::labs::grid::Grid;
use crate::labs::tenants::Tenants;
use crate::labs::ways::{all, any};
use crate::mesh::Question;
use crate::mesh::Transport::{self, Sctp, Tcp, Udp};

pub(super) const OUTSIDE: &str = "the outside reaches web by its node port";
pub(super) const CHAIN: &str =
    "web reaches backend, and backend database, by their services; each sees the other's own address";
pub(super) const DNS: &str = "web asks DNS by its service, over UDP and TCP";
pub(super) const CIDR: &str = "backend reaches port 443 of a network outside, where the node's address is seen";
pub(super) const CIDR_ONLY: &str =
    "no other port of that network, no other network, and no other tier reaches the outside";
pub(super) const GRID: &str =
    "of all questions between pods, node and outside exactly those pass that the drawing shows";
pub(super) const NODE_REACHES: &str = "the node reaches the application's pods at every port, as its probes must";
pub(super) const TRACE: &str = "trace names the policy that lets through, or does not, as the sockets found";

const WITHOUT: &str = "the policies deleted";

/// The questions of a claim.
type Asked = Vec<Question>;

/// One over each version of IP.
fn both(ask: impl Fn(Ip) -> anyhow::Result<Question>) -> anyhow::Result<Asked> {
    FAMILIES.into_iter().map(ask).collect()
}

fn to_service(
    grid: &Grid<'_>,
    (from, seen): (&str, Dual),
    over: Transport,
    (service, to): (Service, &str),
) -> anyhow::Result<Asked> {
    both(|ip| grid.path(from, service.at(ip), over, (to, service.target), seen))
}

fn to_outside(grid: &Grid<'_>, from: &str, over: Transport, at: Dual, port: u16) -> anyhow::Result<Asked> {
    both(|ip| grid.path(from, at.at(ip, port), over, ("outside", port), MASQUERADE))
}

/// Everything that is asked beside the grid.
struct Paths {
    outside: Asked,
    chain: Asked,
    dns: Asked,
    /// DNS, by who may not.
    other_dns: Asked,
    cidr: Asked,
    other_outside: Asked,
}

impl Paths {
    fn new(grid: &Grid<'_>, tenants: &Tenants) -> anyhow::Result<Self> {
        let own = |name: &'static str| anyhow::Ok((name, tenants.address(name)?));
        let (web, backend) = (own(WEB)?, own(BACKEND)?);
        let dns = |from, over| to_service(grid, from, over, (objects::DNS, DNS_POD));
        Ok(Self {
            // Under the default traffic policy the pod sees the node; its policies see who it is.
            outside: both(|ip| grid.path("outside", objects::WEB.node_port(ip), Tcp, (WEB, 8080), NODE))?,
            chain: [
                to_service(grid, web, Tcp, (objects::BACKEND, BACKEND))?,
                to_service(grid, backend, Tcp, (objects::DATABASE, DATABASE))?,
            ]
            .concat(),
            dns: [dns(web, Udp)?, dns(web, Tcp)?].concat(),
            other_dns: [dns(backend, Udp)?, dns(backend, Tcp)?].concat(),
            cidr: to_outside(grid, BACKEND, Tcp, PARTNER, 443)?,
            other_outside: [
                to_outside(grid, BACKEND, Tcp, PARTNER, 80)?,
                to_outside(grid, BACKEND, Udp, PARTNER, 443)?,
                to_outside(grid, BACKEND, Sctp, PARTNER, 443)?,
                to_outside(grid, BACKEND, Tcp, ELSEWHERE, 443)?,
                to_outside(grid, BACKEND, Tcp, BEYOND, 443)?,
                to_outside(grid, WEB, Tcp, PARTNER, 443)?,
                to_outside(grid, DATABASE, Tcp, PARTNER, 443)?,
            ]
            .concat(),
        })
    }
}

pub(super) fn tried(report: &mut Report, tenants: &Tenants) -> anyhow::Result<()> {
    let mut grid = grid(tenants)?;
    let paths = Paths::new(&grid, tenants)?;
    report.say(&format!("{}\n  SCTP is spoken by {}", grid.legend(), grid.sctp()));

    // Without policies, with those that deny, and with all of them; and what is left is all of them.
    let open = grid.ask(|_| true)?;
    let open_outside = grid.paths(&paths.other_outside, true)?;
    let open_traces = traces(tenants)?;
    tenants.daemon.apply(&objects::deny())?;
    let mut denied = [&paths.outside, &paths.chain, &paths.dns, &paths.cidr].map(|asked| grid.paths(asked, false));
    tenants.daemon.apply(&objects::allow())?;
    let mut passed = [&paths.outside, &paths.chain, &paths.dns, &paths.cidr].map(|asked| grid.paths(asked, true));
    let other_dns = grid.paths(&paths.other_dns, false)?;
    let other_outside = grid.paths(&paths.other_outside, false)?;
    let table = grid.ask(passes)?;

    let claims = [OUTSIDE, CHAIN, DNS, CIDR];
    for (claim, (probe, control)) in claims.into_iter().zip(passed.iter_mut().zip(&mut denied)) {
        let (probe, control) = (take(probe)?, take(control)?);
        let (when, control) = match claim {
            DNS => ("backend asks, and web while everything is denied", any(&[other_dns.clone(), control])),
            _ => ("everything denied, nothing allowed", control),
        };
        report.reaches(claim, &probe, Control::new(when, control));
    }
    report.separates(CIDR_ONLY, &other_outside, Control::new(WITHOUT, open_outside));
    report.say(&format!("  without policies\n{}\n  with\n{}", grid.draw(&open, |_| true), grid.draw(&table, passes)));
    report.reaches(GRID, &grid.compare(&table, passes), Control::new(WITHOUT, grid.compare(&open, passes)));
    drop(grid);
    node(report, tenants)?;
    report.reaches(TRACE, &all(&traces(tenants)?), Control::new(WITHOUT, any(&open_traces)));
    Ok(())
}

fn take(probe: &mut anyhow::Result<Probe>) -> anyhow::Result<Probe> {
    std::mem::replace(probe, Ok(Probe::Silent(String::new())))
}

/// The node asks every port of the application, and so does a guest.
fn node(report: &mut Report, tenants: &Tenants) -> anyhow::Result<()> {
    let mut grid = grid(tenants)?;
    let asked = |from: &str| {
        let mut asked = Vec::new();
        for to in [WEB, BACKEND, DATABASE] {
            for port in super::PORTS {
                for over in crate::mesh::TRANSPORTS {
                    let (at, seen) = (tenants.address(to)?, tenants.address(from)?);
                    asked.extend(both(|ip| grid.path(from, at.at(ip, *port), over, (to, *port), seen))?);
                }
            }
        }
        anyhow::Ok(asked)
    };
    let (node, guest) = (asked("node")?, asked(GUEST)?);
    let probe = brief(node.len(), grid.paths(&node, true)?);
    let control = brief(guest.len(), grid.paths(&guest, false)?);
    report.reaches(NODE_REACHES, &probe, Control::new("a guest asks the same", control));
    Ok(())
}

/// The first of many, and how many there are.
fn brief(count: usize, probe: Probe) -> Probe {
    let first = probe.text().split("; ").next().unwrap_or_default();
    let text = format!("{count} questions: {first}; …");
    if probe.arrived() { Probe::Arrived(text) } else { Probe::Silent(text) }
}

/// Who asks whom, where, and what `trace` is to say.
const TRACED: [(&str, &str, &str, u16, &str, &str); 6] = [
    (WEB, BACKEND, "tcp", 8080, "allow", "networkpolicy shop/backend ingress rule 0"),
    (BACKEND, DATABASE, "tcp", 5432, "allow", "networkpolicy shop/database ingress rule 0"),
    (WEB, DNS_POD, "udp", 53, "allow", "networkpolicy shop/web egress rule 1"),
    (WEB, DATABASE, "tcp", 5432, "deny", "shop/web"),
    (DATABASE, BACKEND, "tcp", 8080, "deny", "shop/deny"),
    (GUEST, BACKEND, "tcp", 8080, "deny", "shop/backend"),
];

/// Each arrives if trace says so.
fn traces(tenants: &Tenants) -> anyhow::Result<Vec<Probe>> {
    let trace = |(from, to, proto, port, verdict, decider): &(&str, &str, &str, u16, &str, &str)| {
        let to = tenants.address(to)?.of(Ip::V4);
        let words = format!("--format json trace --from pod/{from} --to {to} --proto {proto} --dport {port}");
        let said = tenants.daemon.vsctl(&words)?;
        let said: serde_json::Value = serde_json::from_str(&said).context("trace is no JSON")?;
        let decided = said["decided_by"].as_str().unwrap_or_default();
        let text = format!("{from} to {to} {proto} {port}: {} by {decided}", said["verdict"]);
        let right = said["verdict"] == *verdict && decided.contains(decider);
        Ok(if right { Probe::Arrived(text) } else { Probe::Silent(text) })
    };
    TRACED.iter().map(trace).collect()
}
