//! `nodeport`: what `service` measures, of connections that hosts beyond the node open to node ports.
//!
//! Three switches of one process take turns, slice by slice, with the same number of connections and services: pods that
//! speak to cluster addresses, which is `service` itself; hosts that speak to node ports of traffic policy Cluster, whom the
//! backends see as the node: addresses and ports of both ends are translated; hosts that speak to node ports of policy Local,
//! whom the backends see as they are. Handshakes are real, and the answers go to the ports that the switch has chosen.
//!
//! The frame's way over an uplink is not measured, nor are backends on other nodes: there is no tunnel yet.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::service::{Talk, flows};
use super::{Params, Scale, ScenarioDef};
use crate::flows::Flows;
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop, median};
use crate::node::{Family, Place};
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "nodeport",
    help: "established TCP connections to node ports, policy Cluster; beside it policy Local, and service in the same run",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// The places, by the names of their figures; the first is what the others are held against.
const PLACES: [(&str, Place); 3] =
    [("service", Place::Cluster), ("nodeport", Place::NodePort), ("local", Place::NodePortLocal)];
/// Times that the slices take turns.
const ROUNDS: usize = 5;

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(SCENARIO.name)?;
    let talk = |(_, place)| Talk::new(&Flows { place, ..flows(Family::Four, params) });
    let mut talks = PLACES.into_iter().map(talk).collect::<Result<Vec<_>>>()?;
    let drops = |talks: &[Talk]| talks.iter().map(|talk| talk.world.drops()).sum::<u64>();
    let before = drops(&talks);
    let mut tallies: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
    for round in 0..ROUNDS {
        // Who goes first takes turns too.
        for n in 0..PLACES.len() {
            let number = (round + n) % PLACES.len();
            let (Some((name, _)), Some(talk)) = (PLACES.get(number), talks.get_mut(number)) else { continue };
            let worker = talk.world.workers.first_mut().context("a switch without workers")?;
            // Once through its frames: the others have had the caches.
            let tally = closed_loop(worker, talk.frames as u64, params.duration / ROUNDS as u32, machine)?;
            tallies.entry(name).or_default().push(tally);
        }
    }
    let drops = drops(&talks) - before;
    let of = |name: &str| median(tallies.get(name).into_iter().flatten().map(Tally::median).collect());
    let figures = [
        ("service_tsc".to_owned(), of("service")),
        ("local_tsc".to_owned(), of("local")),
        ("over_service".to_owned(), of("nodeport") - of("service")),
        ("local_over_service".to_owned(), of("local") - of("service")),
    ];
    let talk = talks.get(1).context("no node ports")?;
    let generator = talk.generator(machine)?;
    // Of the slices of node ports, the middle one.
    let mut slices = tallies.remove("nodeport").unwrap_or_default();
    slices.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let tally = slices.get(slices.len() / 2).context("no slice")?;
    Ok(Outcome {
        drops,
        figures: figures.into(),
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(SCENARIO.name, talk.octets, generator, machine)
    })
}
