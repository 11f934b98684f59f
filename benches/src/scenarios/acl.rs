//! `acl`: a bridge whose access list has ten thousand rules. What it costs flows that are known, beside the same bridge without
//! a list, in turns; and what asking it costs the first packet of a flow, over lists of several kinds.
//!
//! First packets have random headers, 65,536 of them one after the other, so that neither the list nor the branch predictor
//! knows them. A walk without a list is measured beside each, and subtracted: what is left is what the list costs.

use std::sync::Arc;

use anyhow::{Context, Result};
use api::{
    Acl, AclAction, AclKey, AclMatch, AclPlace, AclRule, AclWay, Change, Delta, MacAddr, Station, StationKey,
    Transaction,
};
use ipnet::{IpNet, Ipv4Net};
use pipeline::burst::Layers;
use pipeline::key::FlowKey;
use pipeline::live::{Live, Now};
use pipeline::parse;
use pipeline::raw::ticks;
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;
use pipeline::resolve::walk::Walk;

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::machine::Machine;
use crate::measure::{Tally, closed_loop, median};
use crate::port::alone;
use crate::report::Outcome;
use crate::world::{self, BRIDGE, PORTS, World};

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "acl",
    help: "bridge under an access list of 10,000 rules, every frame a hit; and what the list costs first packets",
    ladder: &[1000, 100_000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// Rules of a list.
const RULES: usize = 10_000;
/// First packets, each with headers of its own.
const HEADERS: usize = 1 << 16;
/// Times that the bridge is measured with the list and without.
const ROUNDS: usize = 5;
/// Packets between two looks at the clock.
const SLICE: usize = 512;

/// SplitMix64 (Steele et al., OOPSLA 2014): the same rules and headers at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn net(&mut self, length: u8) -> Option<IpNet> {
        Ipv4Net::new((self.next() as u32).into(), length).ok().map(|net| IpNet::V4(net.trunc()))
    }

    fn ports(&mut self) -> (u16, u16) {
        let (a, b) = (self.next() as u16, self.next() as u16);
        (a.min(b), a.max(b))
    }
}

/// A list by what its rules are like.
type Kind = (&'static str, fn(&mut Random, usize) -> AclMatch);

const TCP: AclMatch = AclMatch {
    version: Some(4),
    proto: Some(6),
    src: None,
    dst: None,
    sport: None,
    dport: None,
    tcp_flags: None,
    icmp_type: None,
    icmp_code: None,
};

/// Every kind, by the name of its figure.
const KINDS: [Kind; 4] = [
    // Prefixes of all lengths, ranges of ports.
    ("random", |random, _| {
        let lengths = [random.below(25) as u8 + 8, random.below(25) as u8 + 8];
        AclMatch { src: random.net(lengths[0]), dst: random.net(lengths[1]), dport: Some(random.ports()), ..TCP }
    }),
    // Some networks, a few services: rules that have most of their fields in common.
    ("firewall", |random, _| {
        let (site, service) =
            (random.below(64) as u32, [22, 53, 80, 443, 3306, 5432, 8080, 9090][random.below(8) as usize]);
        let subnet = 0x0a00_0000 | site << 16 | (random.below(256) as u32) << 8;
        let dst = Ipv4Net::new(subnet.into(), 24).ok().map(IpNet::V4);
        AclMatch { src: random.net(16), dst, dport: Some((service, service)), ..TCP }
    }),
    // No two rules overlap: as many intervals as there can be, each with one rule.
    ("disjoint", |_, number| {
        let dst = Ipv4Net::new((number as u32).wrapping_mul(1 << 18).into(), 14).ok().map(|net| IpNet::V4(net.trunc()));
        let port = (number as u16).wrapping_mul(6);
        AclMatch { dst, sport: Some((port, port + 5)), dport: Some((port, port + 5)), ..TCP }
    }),
    // Chosen to fill every group in every dimension, and yet to match nothing: each rule fails in one field alone, and its
    // others match half of all packets, or all, with ends of their own.
    ("crossing", |random, number| {
        let wide = |random: &mut Random| match random.below(2) {
            0 => (0, random.next() as u16 | 1),
            _ => (random.next() as u16 & !1, u16::MAX),
        };
        let nets = [random.below(10) as u8, random.below(10) as u8];
        let mut rule = AclMatch {
            src: random.net(if number % 8 < 2 { nets[0] } else { 0 }),
            dst: random.net(if number % 8 < 4 { nets[1] } else { 0 }),
            sport: Some(wide(random)),
            dport: Some(wide(random)),
            ..TCP
        };
        match number % 4 {
            0 => rule.src = random.net(32),
            1 => rule.dst = random.net(32),
            2 => rule.sport = Some((0, 0)),
            _ => rule.dport = Some((0, 0)),
        }
        rule
    }),
];

/// A list of this kind for what comes in by either port.
fn list(matches: fn(&mut Random, usize) -> AclMatch) -> Change {
    let mut random = Random(7);
    let rule = |number| AclRule { priority: 1, matches: matches(&mut random, number), action: AclAction::Drop };
    let rules: Arc<[AclRule]> = (0..RULES).map(rule).collect();
    Change::Acl(Delta::add(Acl { key: AclKey { at: AclPlace::Bridge(BRIDGE), way: AclWay::FromPort }, rules }))
}

/// Where all first packets go.
const TO: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// TCP segments with random addresses and ports.
fn headers() -> Vec<(Vec<u8>, Layers)> {
    let mut random = Random(11);
    let mut frames = Vec::new();
    while frames.len() < HEADERS {
        let mut frame = [&TO.0[..], &[2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]].concat();
        frame.extend((random.next() as u32).to_be_bytes());
        frame.extend((random.next() as u32).to_be_bytes());
        // No port is 0, and no address is a group's: those are others' business.
        frame.extend((random.next() as u16 | 1).to_be_bytes());
        frame.extend((random.next() as u16 | 1).to_be_bytes());
        frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        if let Ok(layers) = parse::layers(&frame, frame.len(), None) {
            frames.push((frame, layers));
        }
    }
    frames
}

/// Ticks of the first walk of a packet: the median slice.
fn first_packets(frames: &[(Vec<u8>, Layers)], lists: Vec<Change>) -> Result<f64> {
    let live = Live::default();
    let mut changes = vec![world::bridge(16)?];
    changes.extend(PORTS.map(|id| world::port(id, "null", &[])));
    let key = StationKey { bridge: BRIDGE, vlan: 0, mac: TO };
    changes.push(Change::Station(Delta::add(Station { key, port: PORTS[1] })));
    changes.extend(lists);
    let program = Program::cold(STAGES, &Transaction { changes }, &live.cells);
    let mask = program.ingress(PORTS[0]).context("no port")?.mask;
    let keys: Vec<FlowKey> =
        frames.iter().map(|(frame, layers)| parse::key(PORTS[0], frame, layers).masked(&mask)).collect();
    let mut slices = Vec::new();
    let mut spare = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for (frames, keys) in frames.chunks(SLICE).zip(keys.chunks(SLICE)) {
            let start = ticks();
            for ((frame, layers), key) in frames.iter().zip(keys) {
                let mut walk = Walk::new(*key, *layers, frame, program.topology(), &live, Now::default());
                (walk.outputs, walk.effects) = std::mem::take(&mut spare);
                std::hint::black_box(program.decide(&mut walk));
                spare = (std::mem::take(&mut walk.outputs), std::mem::take(&mut walk.effects));
                spare.0.clear();
                spare.1.clear();
            }
            slices.push((ticks() - start) as f64 / frames.len() as f64);
        }
    }
    Ok(median(slices))
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    let frames = headers();
    let without = first_packets(&frames, Vec::new())?;
    let mut figures = vec![("first_none".to_owned(), without)];
    for (name, matches) in KINDS {
        figures.push((format!("first_{name}"), first_packets(&frames, vec![list(matches)])? - without));
    }

    let frames = params.frames()?;
    let generator = alone(&frames[0], SHORT, machine)?;
    let octets = frames[0].mean_size();
    let warm_up = frames[0].len() + frames[1].len();
    let mut worlds = Vec::new();
    for lists in [Vec::new(), vec![list(KINDS[0].1)]] {
        let mut world = World::new(frames.each_ref().map(Arc::clone), params.stations(), 1)?;
        world.apply(&Transaction { changes: lists })?;
        world.warm_up(warm_up);
        worlds.push(world);
    }
    let mut slices: [Vec<Tally>; 2] = Default::default();
    let drops: u64 = worlds.iter().map(World::drops).sum();
    for _ in 0..ROUNDS {
        for (world, tallies) in worlds.iter_mut().zip(&mut slices) {
            let worker = world.workers.first_mut().context("a switch without workers")?;
            tallies.push(closed_loop(worker, warm_up as u64, params.duration / (2 * ROUNDS as u32), machine)?);
        }
    }
    let ratios = slices[0].iter().zip(&slices[1]).map(|(none, with)| with.median() / none.median());
    figures.push(("to_none".to_owned(), median(ratios.collect())));
    figures.push(("none_tsc".to_owned(), median(slices[0].iter().map(Tally::median).collect())));
    let [_, mut with] = slices;
    with.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let tally = with.get(with.len() / 2).context("no slice")?;
    Ok(Outcome {
        drops: worlds.iter().map(World::drops).sum::<u64>() - drops,
        figures: figures.into_iter().collect(),
        params: [("rules".to_owned(), RULES.into())].into(),
        ..tally.outcome(SCENARIO.name, octets, generator, machine)
    })
}
