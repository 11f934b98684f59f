//! `policy-matrix`: who reaches whom under each rule of network policy, by real sockets.
//!
//! Nine pods in three namespaces, the node and a host outside ask every pod at two ports over TCP, UDP and SCTP, IPv4 and
//! IPv6: a truth table of 1,188 cells. It is drawn before and after each step of a series of policies, and compared cell by
//! cell with what a plain sentence of the step says; `vsctl verify` has to agree. A step's control is the same comparison
//! while its policies are absent.

use super::cluster::Dual;
use super::grid::{Case, Grid, Member};
use super::tenants::{Spec, Tenants, namespace};
use super::{LabDef, Needs, Options, linger};
use crate::claim::{Control, Probe, Report};

mod cluster_tiers;
mod steps;

use steps::{Step, WITHOUT};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "policy-matrix",
    help: "network policies, rule by rule: 3 namespaces × 3 pods × 2 ports × TCP, UDP, SCTP as a truth table",
    needs: Needs::Interfaces,
    claims: &CLAIMS,
    run,
};

const DRAWING: &str = "
    x/a x/b x/c      y/a y/b y/c      z/a z/b z/c        outside
    10.244.1.17-19   10.244.1.33-35   10.244.1.49-51     192.0.2.1
      │ TAP            │ TAP            │ TAP              │ TAP, port up
      └────────────────┴── br-pods ─────┴──────────────────┘
                             │
                    the node, 192.0.2.10      (IPv6: fd00:244:1::1:1 to ::3:3)
";

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PORTS: &[u16] = &[80, 81];
/// Container ports: c has `web` where the others have none, and only a has `sig`.
const NAMED: &str = "{name: web, containerPort: 80}";
const NAMED_A: &str = "{name: web, containerPort: 80}, {name: sig, containerPort: 81, protocol: SCTP}";
const NAMED_C: &str = "{name: web, containerPort: 81}";

const PODS: [Spec; 9] = [
    Spec { name: "x/a", address: Dual("10.244.1.17", "fd00:244:1::1:1"), labels: "pod: a", ports: NAMED_A },
    Spec { name: "x/b", address: Dual("10.244.1.18", "fd00:244:1::1:2"), labels: "pod: b", ports: NAMED },
    Spec { name: "x/c", address: Dual("10.244.1.19", "fd00:244:1::1:3"), labels: "pod: c", ports: NAMED_C },
    Spec { name: "y/a", address: Dual("10.244.1.33", "fd00:244:1::2:1"), labels: "pod: a", ports: NAMED_A },
    Spec { name: "y/b", address: Dual("10.244.1.34", "fd00:244:1::2:2"), labels: "pod: b", ports: NAMED },
    Spec { name: "y/c", address: Dual("10.244.1.35", "fd00:244:1::2:3"), labels: "pod: c", ports: NAMED_C },
    Spec { name: "z/a", address: Dual("10.244.1.49", "fd00:244:1::3:1"), labels: "pod: a", ports: NAMED_A },
    Spec { name: "z/b", address: Dual("10.244.1.50", "fd00:244:1::3:2"), labels: "pod: b", ports: NAMED },
    Spec { name: "z/c", address: Dual("10.244.1.51", "fd00:244:1::3:3"), labels: "pod: c", ports: NAMED_C },
];

const SERIES: [&[Step]; 2] = [steps::STEPS, cluster_tiers::STEPS];

const CLAIMS: [&str; 1 + steps::STEPS.len() + cluster_tiers::STEPS.len()] = {
    let mut claims = [WITHOUT; 1 + steps::STEPS.len() + cluster_tiers::STEPS.len()];
    let mut at = 0;
    while at + 1 < claims.len() {
        let (first, second) = (steps::STEPS, cluster_tiers::STEPS);
        claims[at + 1] = if at < first.len() { first[at].claim } else { second[at - first.len()].claim };
        at += 1;
    }
    claims
};

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    report.say(DRAWING);
    let mut tenants = Tenants::build(options, &PODS, 0, &[])?;
    PODS.iter().try_for_each(|spec| tenants.lead_outside_to(spec.name))?;
    tenants.daemon.apply(&objects(&tenants))?;
    matrix(report, &tenants)?;
    tenants.daemon.check_cache()?;
    if options.keep {
        linger(&tenants.daemon, &tenants.hosts());
    }
    tenants.daemon.stop()
}

/// Everything but policies.
fn objects(tenants: &Tenants) -> String {
    tenants.objects(PODS.len()) + &NAMESPACES.map(|name| namespace(name, &format!("ns: {name}"))).concat()
}

fn matrix(report: &mut Report, tenants: &Tenants) -> anyhow::Result<()> {
    let names = PODS.iter().map(|spec| spec.name).chain(["node", "outside"]);
    let members = names.map(|name| Ok(Member { name, host: tenants.host(name)?, address: tenants.address(name)? }));
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    let mut grid = Grid::new(&members, PODS.len(), PORTS, &[])?;
    report.say(&format!("{}\n  SCTP is spoken by {}", grid.legend(), grid.sctp()));
    report.measured(format!("{} cells a grid", grid.len()));
    // What a step leaves behind shows in the next one's table.
    let before = grid.ask(|_| true)?;
    for (number, step) in SERIES.into_iter().flatten().enumerate() {
        report.say(&format!("  before\n{}", grid.draw(&before, |_| true)));
        tenants.daemon.apply(&step.manifests())?;
        if !step.change.is_empty() {
            tenants.daemon.apply(&step.changes())?;
        }
        let after = grid.ask(|case| step.expects(case))?;
        let verified = tenants.daemon.vsctl("verify");
        tenants.daemon.delete(&step.manifests())?;
        if !step.change.is_empty() {
            tenants.daemon.apply(&objects(tenants))?;
        }
        if number == 0 {
            let control = Control::new("the policies of the next claim", grid.compare(&after, |_| true));
            report.reaches(WITHOUT, &grid.compare(&before, |_| true), control);
        }
        let says = |case: &Case| step.expects(case);
        report.say(&format!("  after\n{}", grid.draw(&after, says)));
        let table = match grid.compare(&before, |_| true) {
            Probe::Arrived(_) => grid.compare(&after, says),
            Probe::Silent(text) => Probe::Silent(format!("before there is any policy, {text}")),
        };
        let control = Control::new("no policies", grid.compare(&before, says));
        report.reaches(step.claim, &agreed(table, verified), control);
    }
    Ok(())
}

/// The truth table, if the switch's own proof comes to the same.
fn agreed(table: Probe, verified: anyhow::Result<String>) -> Probe {
    match (table, verified) {
        (Probe::Arrived(text), Ok(said)) => {
            Probe::Arrived(format!("{text}\n      verify: {}", said.lines().last().unwrap_or("agrees")))
        }
        (Probe::Arrived(text), Err(error)) => Probe::Silent(format!("{text}; but {error:#}")),
        (Probe::Silent(text), Ok(_)) => Probe::Silent(format!("{text}; and verify does not find it")),
        (Probe::Silent(text), Err(error)) => Probe::Silent(format!("{text}; {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labs::cluster::FAMILIES;

    #[test]
    fn every_claim_is_of_the_rows_that_it_names() {
        assert_eq!(CLAIMS[0], WITHOUT);
        assert!(CLAIMS.iter().all(|claim| claim.starts_with('N') || claim.starts_with("CNP ")), "{CLAIMS:?}");
    }

    #[test]
    fn every_pod_has_an_address_of_each_version_in_the_block_of_its_namespace() {
        for spec in PODS {
            let [v4, v6] = FAMILIES.map(|ip| spec.address.of(ip).to_string());
            let (namespace, pod) = (spec.name.as_bytes()[0] - b'x' + 1, spec.name.as_bytes()[2] - b'a' + 1);
            assert_eq!(v4, format!("10.244.1.{}", namespace * 16 + pod));
            assert_eq!(v6, format!("fd00:244:1::{namespace}:{pod}"));
        }
    }

    /// What the plain sentences say, by numbers that were counted by hand.
    #[test]
    fn the_sentence_of_a_step_leaves_some_cells_open_and_closes_some() {
        for step in SERIES.into_iter().flatten() {
            let open = step.count();
            assert!(open > 0 && open < 1188, "{}: {open}", step.claim);
        }
        // Every namespace denies: each pod itself, and the node nine pods, at six places over two versions of IP.
        assert_eq!(steps::STEPS[0].count(), (9 + 9) * 12);
        // x is closed: to each of three pods come itself and the node, to each of six all eleven.
        assert_eq!(steps::STEPS[1].count(), (3 * 2 + 6 * 11) * 12);
    }

    impl Step {
        fn count(&self) -> usize {
            let names = || PODS.iter().map(|spec| spec.name);
            let mut count = 0;
            for from in names().chain(["node", "outside"]) {
                for to in names() {
                    for port in [80, 81] {
                        for over in crate::mesh::TRANSPORTS {
                            let open = |ip| self.expects(&Case { from, to, port, over, ip });
                            count += FAMILIES.into_iter().filter(|ip| open(*ip)).count();
                        }
                    }
                }
            }
            count
        }
    }
}
