//! `affinity`: new connections to services with session affinity (`sessionAffinity: ClientIP`), as `service-new` has them.
//!
//! Three switches of one process take turns, slice by slice: services without affinity, which is `service-new` itself; with
//! affinity, and clients that come again: each connection looks its client up, and writes down that it came; with affinity,
//! and clients that are strangers: no client has been to its service since the table was last full of others, so that each
//! connection makes room for its client too.
//!
//! Services have one backend, so that what is measured is the table and not the choice. *Known* clients are those that the
//! flows have: 110,000 pairs of client and service at 10,000 services, of which some sets of the table are too full, so one
//! connection in thirty is a stranger's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::{BridgeId, Change, PortId};
use pipeline::live::Now;
use pipeline::live::affinity::{Affinity, CLIENTS, Client, Visit};
use pipeline::live::connections::{Committed, Direction, Found, Name, Tuple};

use super::service_new::{New, whole_bursts};
use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::{Flows, Segment};
use crate::machine::{Machine, resident};
use crate::measure::{Tally, closed_loop, median};
use crate::node::{self, Family, Place};
use crate::port::alone;
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "affinity",
    help: "service-new with session affinity, of clients that come again and of strangers, and without in the same run",
    ladder: &[1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// Times that the slices take turns.
const ROUNDS: usize = 3;
/// Seconds that clients are remembered for: what Kubernetes says where a service does not.
const LASTS: u32 = 10_800;

/// Services, with affinity.
fn sticky(services: Vec<Change>) -> Vec<Change> {
    let with = |mut change: Change| {
        if let Change::Service(delta) = &mut change
            && let Some(service) = &mut delta.new
        {
            service.affinity = Some(LASTS);
        }
        change
    };
    services.into_iter().map(with).collect()
}

/// Octets that the table takes when it has as many clients as it can have, and how many those are.
fn table() -> Result<(u64, usize)> {
    let (before, table) = (resident("self")?, Affinity::default());
    let address = IpAddr::V4(0.into());
    let tuple = Tuple { zone: BridgeId(1), proto: 6, src: address, dst: address, sport: 0, dport: 0 };
    let (name, direction) = (Name::default(), Direction::Original);
    let found = Found { name, direction, original: tuple, reply: tuple, identities: [0; 2], answered: false };
    for number in 0..2 * CLIENTS as u32 {
        let client = Client { service: 0, zone: BridgeId(1), address: IpAddr::V4(number.into()) };
        let visit = Visit { client, lasts: LASTS, met: None };
        let _ =
            table.keep(&visit, SocketAddr::new(address, 80), PortId(1), Now(Duration::ZERO), || Committed::New(found));
    }
    Ok((resident("self")?.saturating_sub(before), table.len()))
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(SCENARIO.name)?;
    // First of all, while nothing that was freed could be used again.
    let (octets, clients) = table()?;
    let known = whole_bursts(params);
    let strange = Flows { strangers: true, ..known };
    let datagrams = |flows: Flows| anyhow::Ok(Arc::new(flows.in_order(Segment::Datagram)?));
    let (frames, strangers, silence) = (datagrams(known)?, datagrams(strange)?, Arc::default());
    let generator = alone(&frames, SHORT, machine)?;
    let plain = node::services(Family::Four, Place::Cluster, params.services);
    let mut works = [
        ("none", New::ready([&frames, &silence], plain.clone())?),
        ("known", New::ready([&frames, &silence], sticky(plain.clone()))?),
        ("stranger", New::ready([&strangers, &silence], sticky(plain))?),
    ];
    let drops = |works: &[(&str, New)]| works.iter().map(|(_, work)| work.drops()).sum::<u64>();
    let before = drops(&works);
    let mut tallies: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
    for round in 0..ROUNDS {
        // Who goes first takes turns too.
        works.rotate_left(usize::from(round > 0));
        for (name, work) in &mut works {
            let tally = closed_loop(work, 1, params.duration / ROUNDS as u32, machine)?;
            tallies.entry(name).or_default().push(tally);
        }
    }
    let drops = drops(&works) - before;
    let of = |name: &str| median(tallies.get(name).into_iter().flatten().map(Tally::median).collect());
    let mut figures: BTreeMap<String, f64> = works
        .iter()
        .flat_map(|(name, work)| {
            let rate = machine.tsc_mhz / of(name).max(f64::MIN_POSITIVE);
            [(format!("{name}_mps"), rate), (format!("{name}_cpu_ns"), work.cpu_ns())]
        })
        .collect();
    for name in ["known", "stranger"] {
        figures.insert(format!("{name}_to_none"), of("none") / of(name).max(f64::MIN_POSITIVE));
    }
    figures.insert("table_mb".to_owned(), octets as f64 / 1e6);
    figures.insert("table_clients".to_owned(), clients as f64);
    // Of the slices of clients that come again, the middle one.
    let mut slices = tallies.remove("known").unwrap_or_default();
    slices.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let tally = slices.get(slices.len() / 2).context("no slice")?;
    Ok(Outcome {
        drops,
        figures,
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(SCENARIO.name, frames.mean_size(), generator, machine)
    })
}
