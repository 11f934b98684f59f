//! `three-tier`: an application of web, backend and database, and exactly the policies that it needs.
//!
//! The outside reaches web, web reaches backend and DNS, backend reaches database and one port of one network outside;
//! nothing else passes, from or to any of them. What is claimed to pass is tried where its policy is absent or from who may
//! not; what is claimed not to pass is tried without policies.

use super::cluster::{Dual, NODE};
use super::grid::{Case, Grid, Member};
use super::tenants::{Spec, Tenants};
use super::{LabDef, Needs, Options, linger};
use crate::claim::Report;
use crate::mesh::End;
use crate::mesh::Transport::{Tcp, Udp};

mod change;
mod objects;
mod paths;

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "three-tier",
    help: "an application of web, backend and database under its network policies",
    needs: Needs::Interfaces,
    claims: &[
        paths::OUTSIDE,
        paths::CHAIN,
        paths::DNS,
        paths::CIDR,
        paths::CIDR_ONLY,
        paths::GRID,
        paths::NODE_REACHES,
        paths::TRACE,
        change::KEPT,
        change::LATE,
        change::LATE_REACHED,
    ],
    run,
};

const DRAWING: &str = "
    outside 192.0.2.1, 203.0.113.7          policies of namespace shop
      │ node port 30080                       web       from outside :8080; to backend, DNS
      ▼                                       backend   from web :8080; to database, 203.0.113.0/24:443
    shop/web ──▶ shop/backend ──▶ shop/database
      │ 53             │ 443                  database  from backend :5432
      ▼                ▼                      deny      everything else, both directions
    kube-system/dns  outside                guest/guest is under no policy
";

/// Every pod listens at all of these: what is not reached is not for want of somebody to hear it.
const PORTS: &[u16] = &[53, 5432, 8080];
/// Ports of the outside.
const OUTSIDE_PORTS: &[u16] = &[80, 443];

const WEB: &str = "shop/web";
const BACKEND: &str = "shop/backend";
const DATABASE: &str = "shop/database";
const DNS: &str = "kube-system/dns";
const GUEST: &str = "guest/guest";
/// They come later.
const REPLICA: &str = "shop/replica";
const VISITOR: &str = "guest/visitor";

const PODS: [Spec; 7] = [
    Spec { name: WEB, address: Dual("10.244.1.11", "fd00:244:1::11"), labels: "tier: web", ports: objects::HTTP },
    Spec {
        name: BACKEND,
        address: Dual("10.244.1.12", "fd00:244:1::12"),
        labels: "tier: backend",
        ports: objects::HTTP,
    },
    Spec {
        name: DATABASE,
        address: Dual("10.244.1.13", "fd00:244:1::13"),
        labels: "tier: database",
        ports: objects::SQL,
    },
    Spec {
        name: DNS,
        address: Dual("10.244.1.14", "fd00:244:1::14"),
        labels: "k8s-app: kube-dns",
        ports: objects::DOMAIN,
    },
    Spec { name: GUEST, address: Dual("10.244.1.15", "fd00:244:1::15"), labels: "tier: web", ports: "" },
    Spec {
        name: REPLICA,
        address: Dual("10.244.1.16", "fd00:244:1::16"),
        labels: "tier: database",
        ports: objects::SQL,
    },
    Spec {
        name: VISITOR,
        address: Dual("10.244.1.17", "fd00:244:1::17"),
        labels: "tier: database",
        ports: objects::SQL,
    },
];
/// Of these, the pods that are there from the beginning.
const FIRST: usize = 5;

/// A network outside to which the backend may go, and one to which it may not.
const PARTNER: Dual = Dual("203.0.113.7", "2001:db8:113::7");
const ELSEWHERE: Dual = Dual("198.51.100.1", "2001:db8:1::1");

/// What passes between two different ends, in plain words: written from the drawing, not from the policies' text.
fn passes(case: &Case) -> bool {
    let Case { from, to, port, over, .. } = *case;
    let lets_out = match from {
        WEB => (to == BACKEND && port == 8080 && over == Tcp) || (to == DNS && port == 53 && matches!(over, Tcp | Udp)),
        BACKEND => to == DATABASE && port == 5432 && over == Tcp,
        DATABASE => false,
        _ => true,
    };
    let lets_in = match to {
        WEB => from == "outside" && port == 8080 && over == Tcp,
        BACKEND => from == WEB && port == 8080 && over == Tcp,
        DATABASE => from == BACKEND && port == 5432 && over == Tcp,
        _ => true,
    };
    from == to || from == "node" || (lets_out && lets_in)
}

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut tenants = Tenants::build(options, &PODS, PODS.len() - FIRST, &[PARTNER, ELSEWHERE])?;
    PODS[..FIRST].iter().try_for_each(|spec| tenants.lead_outside_to(spec.name))?;
    tenants.daemon.apply(&(tenants.objects(FIRST) + &objects::everything()))?;
    let kept = change::Kept::open(&tenants)?;
    paths::tried(report, &tenants)?;
    kept.asked(report, &tenants)?;
    change::late(report, &tenants)?;
    tenants.daemon.check_cache()?;
    if options.keep {
        linger(&tenants.daemon, &tenants.hosts());
    }
    tenants.daemon.stop()
}

/// The first pods, the node and the outside, all asking the pods.
fn grid(tenants: &Tenants) -> anyhow::Result<Grid<'_>> {
    let names = PODS[..FIRST].iter().map(|spec| spec.name).chain(["node", "outside"]);
    let members = names.map(|name| Ok(Member { name, host: tenants.host(name)?, address: tenants.address(name)? }));
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    let at = objects::outside_addresses();
    Grid::new(&members, FIRST, PORTS, &[("outside", End { host: &tenants.outside, at, ports: OUTSIDE_PORTS })])
}

/// Where the node is seen, too, by who is outside.
const MASQUERADE: Dual = NODE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labs::cluster::FAMILIES;
    use crate::mesh::TRANSPORTS;

    /// Counted by hand from the drawing.
    #[test]
    fn between_pods_of_the_application_four_questions_pass() {
        let tiers = [WEB, BACKEND, DATABASE];
        let mut passed = Vec::new();
        for from in tiers {
            for to in tiers.into_iter().chain([DNS, GUEST]).filter(|to| *to != from) {
                for port in PORTS {
                    for over in TRANSPORTS {
                        let case = |ip| Case { from, to, port: *port, over, ip };
                        if FAMILIES.into_iter().any(|ip| passes(&case(ip))) {
                            passed.push(format!("{from} {to} {port} {over}"));
                        }
                    }
                }
            }
        }
        let drawn = [
            "shop/web shop/backend 8080 TCP",
            "shop/web kube-system/dns 53 TCP",
            "shop/web kube-system/dns 53 UDP",
            "shop/backend shop/database 5432 TCP",
        ];
        assert_eq!(passed, drawn);
    }
}
