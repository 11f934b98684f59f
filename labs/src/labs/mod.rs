//! The labs: a lab is one file that exports `pub const LAB: LabDef`, and one row in [`LABS`].

use crate::claim::{Report, print};
use crate::daemon::Daemon;
use crate::host::Host;

mod cluster;
pub mod cni;
pub mod crash;
mod grid;
pub mod in_memory;
pub mod node;
pub mod policy_matrix;
pub mod services;
mod tenants;
pub mod three_tier;
pub mod two_pods;
mod ways;

/// All labs, in the order in which `all` runs them.
pub const LABS: &[&LabDef] = &[
    &two_pods::LAB,
    &node::LAB,
    &services::LAB,
    &three_tier::LAB,
    &policy_matrix::LAB,
    &cni::LAB,
    &crash::LAB,
    &in_memory::LAB,
];

/// Other names of labs. `k1` is the lab that a first run shows.
pub const ALIASES: &[(&str, &str)] = &[("k1", "two-pods")];

/// A lab.
#[derive(Debug)]
pub struct LabDef {
    /// What `labs run` calls it.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Everything it is to prove. A claim that a run does not come to counts as not proved.
    pub claims: &'static [&'static str],
    /// Build the topology, run the probes, report.
    pub run: fn(&Options, &mut Report) -> anyhow::Result<()>,
}

/// What a lab cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Runs anywhere.
    Nothing,
    /// Network namespaces and TAP devices.
    Interfaces,
}

/// How labs are to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Workers of the daemon; its own choice if `None`.
    pub workers: Option<u16>,
    /// Leave the topology standing until the user has seen it.
    pub keep: bool,
}

/// The lab of this name or alias.
pub fn find(name: &str) -> Option<&'static LabDef> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    LABS.iter().find(|lab| lab.name == name).copied()
}

/// Leave everything standing until Enter (or the end of the input).
fn linger(daemon: &Daemon, hosts: &[&Host]) {
    print(&format!("  kept: VSWITCH_SOCKET={} vsctl show", daemon.socket().display()));
    for host in hosts {
        print(&format!("        {}: nsenter --net={}", host.name(), host.path().display()));
    }
    print(&format!("        log {}; Enter ends it", daemon.log().display()));
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_and_alias_is_found_by_its_name() {
        for lab in LABS {
            assert_eq!(find(lab.name).map(|found| found.name), Some(lab.name));
        }
        for (alias, name) in ALIASES {
            assert_eq!(find(alias).map(|found| found.name), Some(*name));
        }
        assert!(find("no-such-lab").is_none());
    }

    #[test]
    fn no_lab_makes_the_same_claim_twice() {
        for lab in LABS {
            let mut claims = lab.claims.to_vec();
            claims.sort_unstable();
            claims.dedup();
            assert_eq!(claims.len(), lab.claims.len(), "{}", lab.name);
        }
    }
}
