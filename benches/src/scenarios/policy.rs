//! `policy`: the whole Kubernetes path: connections of `service`, whose clients and backends are subject to network policies.
//! Rules are spread over applications as a cluster has them, a hundred for each pod, and the last of them is the one that
//! lets a connection through. All connections are established: their verdict is known, and rides in the connection.
//!
//! `policy-rules`: what rules cost those connections. One switch, whose clients and backends are subject to no rule, to 100,
//! and to 10,000 in turn, slice by slice; the connections are opened anew under each, and are allowed by the very last rule.

use anyhow::{Context, Result};

use super::service::{Talk, flows};
use super::{Params, Scale, ScenarioDef};
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop, median};
use crate::node::Family;
use crate::policies::{Policies, Spread};
use crate::report::Outcome;

/// The whole path.
pub const WHOLE: ScenarioDef = ScenarioDef {
    name: "policy",
    help: "service, of pods that are subject to network policies: the whole Kubernetes path, every frame a hit",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: whole,
};

/// What rules cost.
pub const RULES: ScenarioDef = ScenarioDef {
    name: "policy-rules",
    help: "the same under 0, 100 and 10,000 rules that decide for every pod, in turn: what rules cost who is established",
    ladder: &[1000, 100_000],
    scale: Scale::Flows,
    privileged: false,
    run: rules,
};

/// Rules of `policy-rules`; the first is what the others are held against.
pub(super) const LADDER: [usize; 3] = [0, 100, 10_000];
/// Times that the slices take turns.
const ROUNDS: usize = 5;

/// The policies that parameters ask for.
pub(super) fn policies(params: &Params, rules: usize, spread: Spread) -> Policies {
    Policies { family: Family::Four, services: params.services, rules, spread }
}

fn whole(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(WHOLE.name)?;
    let policies = policies(params, params.rules, Spread::Applications);
    let mut talk = Talk::with(&flows(Family::Four, params), policies.changes())?;
    let generator = talk.generator(machine)?;
    let drops = talk.world.drops();
    let worker = talk.world.workers.first_mut().context("a switch without workers")?;
    let tally = closed_loop(worker, talk.frames as u64, params.duration, machine)?;
    Ok(Outcome {
        drops: talk.world.drops() - drops,
        params: [("services".to_owned(), params.services.into()), ("rules".to_owned(), params.rules.into())].into(),
        ..tally.outcome(WHOLE.name, talk.octets, generator, machine)
    })
}

fn rules(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(RULES.name)?;
    let each = LADDER.map(|rules| policies(params, rules, Spread::Everybody));
    let mut now = each[0];
    let mut talk = Talk::with(&flows(Family::Four, params), now.changes())?;
    let generator = talk.generator(machine)?;
    let mut slices: [Vec<Tally>; LADDER.len()] = Default::default();
    let mut drops = 0;
    for round in 0..ROUNDS {
        // Who goes first takes turns too.
        for n in 0..each.len() {
            let number = (round + n) % each.len();
            let (Some(then), Some(tallies)) = (each.get(number), slices.get_mut(number)) else { continue };
            talk.world.apply(&api::Transaction { changes: now.replaced(then) })?;
            now = *then;
            talk.reopen()?;
            let before = talk.world.drops();
            let worker = talk.world.workers.first_mut().context("a switch without workers")?;
            tallies.push(closed_loop(worker, talk.frames as u64, params.duration / ROUNDS as u32, machine)?);
            drops += talk.world.drops() - before;
        }
    }
    let of = |tallies: &[Tally]| median(tallies.iter().map(Tally::median).collect());
    let mut figures = vec![("none_tsc".to_owned(), of(&slices[0]))];
    for (rules, tallies) in LADDER.iter().zip(&slices).skip(1) {
        figures.push((format!("tsc_{rules}"), of(tallies)));
        // Each against its neighbour in time.
        let ratios = slices[0].iter().zip(tallies).map(|(none, with)| with.median() / none.median());
        figures.push((format!("to_none_{rules}"), median(ratios.collect())));
    }
    // Of the slices with the most rules, the middle one.
    let mut last = slices.into_iter().next_back().unwrap_or_default();
    last.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let tally = last.get(last.len() / 2).context("no slice")?;
    Ok(Outcome {
        drops,
        figures: figures.into_iter().collect(),
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(RULES.name, talk.octets, generator, machine)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Flows;
    use crate::frames::Size;
    use crate::node::Place;
    use api::{Change, Ruleset};

    const FLOWS: Flows = Flows {
        family: Family::Four,
        place: Place::Cluster,
        count: 300,
        services: 150,
        strangers: false,
        size: Size::Fixed(64),
    };

    /// The last rule of each ruleset is gone.
    fn without_the_last(mut change: Change) -> Change {
        if let Change::Ruleset(delta) = &mut change
            && let Some(ruleset) = &mut delta.new
        {
            let rules = ruleset.rules[..ruleset.rules.len() - 1].into();
            *ruleset = Ruleset { rules, ..ruleset.clone() };
        }
        change
    }

    #[test]
    fn connections_are_let_through_by_the_last_rule_and_by_no_other() {
        for (rules, spread) in [(1000, Spread::Applications), (100, Spread::Everybody)] {
            let policies = Policies { family: Family::Four, services: FLOWS.services, rules, spread };
            let mut talk = Talk::with(&FLOWS, policies.changes()).unwrap();
            assert_eq!(talk.world.drops(), 0);
            let then = Policies { rules: rules * 2, ..policies };
            talk.world.apply(&api::Transaction { changes: policies.replaced(&then) }).unwrap();
            talk.reopen().unwrap();
            assert_eq!(talk.world.drops(), 0);
            let shut = policies.changes().into_iter().map(without_the_last).collect();
            let refused = Talk::with(&FLOWS, shut).err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), Some("port 1: 0 of 300 handshakes arrive"), "{spread:?}");
        }
    }
}
