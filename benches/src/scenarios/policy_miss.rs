//! `policy-miss`: `service-new` through network policies: each frame is the first of a new connection to a service, which the
//! rules of its client and those of its backend are asked about. Without rules, with 100 and with 10,000 of them for every
//! pod, and with as many spread over a cluster, in turn; it is the very last rule that lets the connection through.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::policy::{LADDER, policies};
use super::service_new::{New, whole_bursts};
use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::Segment;
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop, median};
use crate::node::{self, Family, Place};
use crate::policies::Spread;
use crate::port::alone;
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "policy-miss",
    help: "first datagrams to services through 0, 100, 10,000 rules in turn; Mpps are millions of connections a second",
    ladder: &[500_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// Times that the slices take turns.
const ROUNDS: usize = 3;
/// Name of the switch whose rules are spread over a cluster.
const SPREAD: &str = "spread";

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(SCENARIO.name)?;
    let flows = whole_bursts(params);
    let (frames, silence) = (Arc::new(flows.in_order(Segment::Datagram)?), Arc::default());
    let generator = alone(&frames, SHORT, machine)?;
    let services = node::services(Family::Four, Place::Cluster, params.services);
    let new = |rules, spread| {
        let changes = services.iter().cloned().chain(policies(params, rules, spread).changes()).collect();
        New::ready([&frames, &silence], changes)
    };
    let mut works = vec![(SPREAD.to_owned(), new(params.rules, Spread::Applications)?)];
    for rules in LADDER {
        works.push((rules.to_string(), new(rules, Spread::Everybody)?));
    }
    let drops = |works: &[(String, New)]| works.iter().map(|(_, work)| work.drops()).sum::<u64>();
    let before = drops(&works);
    let mut tallies: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
    for round in 0..ROUNDS {
        // Who goes first takes turns too.
        works.rotate_left(usize::from(round > 0));
        for (name, work) in &mut works {
            let tally = closed_loop(work, 1, params.duration / ROUNDS as u32, machine)?;
            tallies.entry(name.clone()).or_default().push(tally);
        }
    }
    let drops = drops(&works) - before;
    let of = |name: &str| median(tallies.get(name).into_iter().flatten().map(Tally::median).collect());
    let figures: BTreeMap<String, f64> = works
        .iter()
        .flat_map(|(name, work)| {
            let rate = machine.tsc_mhz / of(name).max(f64::MIN_POSITIVE);
            [(format!("mps_{name}"), rate), (format!("cpu_ns_{name}"), work.cpu_ns())]
        })
        .collect();
    // Of the slices with rules as a cluster has them, the middle one.
    let mut slices = tallies.remove(SPREAD).unwrap_or_default();
    slices.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let tally = slices.get(slices.len() / 2).context("no slice")?;
    Ok(Outcome {
        drops,
        figures,
        params: [("services".to_owned(), params.services.into()), ("rules".to_owned(), params.rules.into())].into(),
        ..tally.outcome(SCENARIO.name, frames.mean_size(), generator, machine)
    })
}
