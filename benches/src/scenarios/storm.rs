//! `storm`: a flood of random headers on one port, against rules of three fields (Csikor and others, "Tuple Space Explosion",
//! 2019), and a victim's established connections on others.
//!
//! ```text
//!   ports 1, 2   the victim: connections of `service`
//!   port 3       the flood: addresses, ports and protocol of every frame are random; half of them have the sender's own address
//!   rules        of port 3 an access list, of its pod a policy: allow by source, by source port, by destination port, else not
//! ```
//!
//! Without flood, with 1,000 frames a second of it, and with as many as the worker takes, in turn. In the first comparison the
//! victim sends as fast as it is served; in the second it has a pace, a quarter of what the switch carried alone: with a worker
//! that is busy all the time both ports have their share, and a victim that asks for less than that is to lose nothing. What is
//! more than its port's ring holds is lost. What counts is frames that arrived.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::policy::{Action, Block, Peers, PortMatch, Ports, Rule, Ruleset, RulesetId, Subject};
use api::{
    Acl, AclAction, AclKey, AclMatch, AclPlace, AclRule, AclWay, Change, Delta, MacAddr, PortId, Proto, Transaction,
};
use etherparse::PacketBuilder;
use ipnet::IpNet;

use super::policy::policies;
use super::service::{Talk, flows};
use super::service_new::cpu_time;
use super::{Params, Scale, ScenarioDef};
use crate::frames::{Frames, Random};
use crate::machine::Machine;
use crate::measure::{Laps, Step, median};
use crate::node::{self, CLIENTS, Family, ROUTER};
use crate::policies::{self, Spread};
use crate::port::Playlist;
use crate::report::Outcome;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "storm",
    help: "service and policy, while another port floods random headers at 1 kpps and as fast as it can, and without, in turn",
    ladder: &[1000],
    scale: Scale::Flows,
    privileged: false,
    run,
};

/// The port that floods.
const FLOOD: PortId = PortId(3);
/// The Ethernet address of its pod.
const MAC: MacAddr = MacAddr([2, 8, 0, 0, 0, 1]);
/// Frames of the flood until it begins anew: more than the cache of flows and the second-level cache hold.
const FRAMES: usize = 1 << 20;
/// Frames a second of the slow flood.
const SLOW: f64 = 1000.0;
/// What a victim that has a pace sends, of what the switch carries alone.
const PART: f64 = 0.25;
/// Times that the slices take turns.
const ROUNDS: usize = 5;
/// The ruleset of the flood's pod.
const RULES: RulesetId = RulesetId(2_000_000);

/// The address of the flood's pod.
fn source() -> IpAddr {
    Family::Four.client(CLIENTS + 10)
}

/// Random headers, to whom there is a way.
fn flood(services: usize) -> Result<Frames> {
    let mut random = Random::new(7);
    let mut frames = Frames::default();
    for n in 0..FRAMES {
        let [a, b, c, d] = (random.draw() as u32).to_be_bytes();
        let word = random.draw();
        let from = match source() {
            IpAddr::V4(own) if n % 2 == 0 => own.octets(),
            _ => [a, b, c, d],
        };
        let IpAddr::V4(to) = Family::Four.backend(word as usize % services) else { continue };
        let [sport, dport] = [(word >> 16) as u16, (word >> 32) as u16];
        let packet = PacketBuilder::ethernet2(MAC.0, ROUTER.0).ipv4(from, to.octets(), 64);
        let mut frame = Vec::new();
        match word >> 63 {
            0 => packet.udp(sport, dport).write(&mut frame, &[0; 18])?,
            _ => packet.tcp(sport, dport, word as u32, 1000).syn().write(&mut frame, &[0; 6])?,
        }
        frames.push(&frame)?;
    }
    Ok(frames)
}

/// Allow what has one of three facts.
fn rules(services: usize) -> Vec<Change> {
    let one = IpNet::from(Family::Four.client(5));
    let none = AclMatch { version: Some(4), ..AclMatch::default() };
    let three = [
        AclMatch { src: Some(one), ..none },
        AclMatch { sport: Some((12345, 12345)), proto: Some(6), ..none },
        AclMatch { dport: Some((80, 80)), proto: Some(6), ..none },
    ];
    let allow = three.into_iter().map(|matches| AclRule { priority: 100, matches, action: AclAction::AllowRelated });
    let deny = AclRule { priority: 1, matches: AclMatch::default(), action: AclAction::Drop };
    let key = AclKey { at: AclPlace::Port(FLOOD), way: AclWay::FromPort };
    let list = Acl { key, rules: allow.chain([deny]).collect() };
    let ports = |proto, port| Some(vec![PortMatch { proto, ports: Ports::Range(port, port) }].into());
    let blocks = vec![Block { cidr: IpNet::from(Family::Four.backend(services)), except: Arc::default() }].into();
    let peers = [
        (Peers { blocks, ..Peers::default() }, None),
        (Peers { any: true, ..Peers::default() }, ports(Proto::Tcp, 80)),
        (Peers { any: true, ..Peers::default() }, ports(Proto::Udp, 53)),
    ];
    let rule = |(index, (peers, ports))| {
        let policy = "networkpolicy default/flood".into();
        Arc::new(Rule { action: Action::Accept, policy, index: index as u32, peers, ports })
    };
    let rules = peers.into_iter().enumerate().map(rule).collect();
    let otherwise = "default/flood".into();
    let ruleset = Ruleset { id: RULES, rules, admin: 0, isolates: true, otherwise };
    let pod = policies::subject(source(), FLOOD, MAC, Arc::default());
    vec![
        node::pod(source(), FLOOD, MAC),
        Change::Ruleset(Delta::add(ruleset)),
        Change::Subject(Delta::add(Subject { egress: Some(RULES), ..pod })),
        Change::Acl(Delta::add(list)),
    ]
}

/// What came of a slice.
struct Slice {
    /// Frames of the victim that arrived, by seconds that the worker had a CPU, and by seconds of the clock.
    by_cpu: f64,
    by_clock: f64,
    /// Frames of the flood that the worker took in a second of the clock.
    flooded: f64,
}

fn slice(talk: &mut Talk, duration: Duration) -> Result<Slice> {
    let port = |talk: &Talk| {
        let ports = control::Switch::ports(&talk.world.switch);
        ports.iter().find(|port| port.id == FLOOD).map_or(0, |port| port.stats.rx_packets)
    };
    // A victim that has a pace begins without a backlog, and the flood has filled what it fills.
    let part = |talk: &mut Talk, duration| -> Result<()> {
        let worker = talk.world.workers.first_mut().context("a switch without workers")?;
        let start = Instant::now();
        while start.elapsed() < duration {
            for _ in 0..16 {
                worker.step(&mut Laps::default());
            }
        }
        Ok(())
    };
    part(talk, duration / 5)?;
    let (arrived, flooded, start, cpu) = (talk.world.arrived(), port(talk), Instant::now(), cpu_time());
    part(talk, duration)?;
    let (clock, cpu) = (start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    let [arrived, flooded] = [talk.world.arrived() - arrived, port(talk) - flooded].map(|frames| frames as f64);
    Ok(Slice { by_cpu: arrived / cpu, by_clock: arrived / clock, flooded: flooded / clock })
}

fn run(params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(SCENARIO.name)?;
    let changes = policies(params, params.rules, Spread::Applications).changes();
    let mut talk = Talk::with(&flows(Family::Four, params), changes)?;
    let storm = Playlist::new(vec![Arc::new(flood(params.services)?)]);
    storm.pause(true);
    talk.world.open(FLOOD, Arc::clone(&storm))?;
    talk.world.apply(&Transaction { changes: rules(params.services) })?;
    talk.world.warm_up(talk.frames);
    let pace = |rate: f64| (machine.tsc_mhz * 1e6 / rate).max(1.0) as u64;
    let drops = talk.world.drops();
    let duration = params.duration / ROUNDS as u32;
    let alone = slice(&mut talk, duration)?.by_cpu;
    // Half of it from either port.
    let victim = alone * PART;
    let mut kept: [Vec<f64>; 3] = Default::default();
    let (mut rates, mut floods) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let both = |talk: &mut Talk, flood: u64| -> Result<[Slice; 2]> {
            storm.pace(flood);
            let mut one = |with: bool| {
                storm.pause(!with);
                slice(talk, duration)
            };
            // Who goes first takes turns too.
            Ok(if round % 2 == 0 {
                [one(false)?, one(true)?]
            } else {
                let with = one(true)?;
                [one(false)?, with]
            })
        };
        talk.playlists.iter().for_each(|playlist| playlist.pace(0));
        let slow = both(&mut talk, pace(SLOW))?;
        let greedy = both(&mut talk, 0)?;
        talk.playlists.iter().for_each(|playlist| playlist.pace(pace(victim / 2.0)));
        let fast = both(&mut talk, 0)?;
        rates.push(slow[0].by_cpu);
        floods.push(fast[1].flooded);
        kept[0].push(slow[1].by_cpu / slow[0].by_cpu);
        kept[1].push(fast[1].by_clock / fast[0].by_clock);
        kept[2].push(greedy[1].by_cpu / greedy[0].by_cpu);
    }
    let [slow, fast, greedy] = kept.map(median);
    let rate = median(rates);
    let tsc = machine.tsc_mhz * 1e6 / rate;
    Ok(Outcome {
        scenario: SCENARIO.name.to_owned(),
        tsc_per_packet: tsc,
        tsc_best: tsc,
        ns_per_packet: 1e9 / rate,
        mpps: rate / 1e6,
        gbps: rate * talk.octets * 8.0 / 1e9,
        packets: talk.world.arrived(),
        drops: talk.world.drops() - drops,
        figures: [
            ("kept_1k", slow),
            ("kept_full", fast),
            ("share_full", greedy),
            ("victim_mpps", victim / 1e6),
            ("flood_mpps", median(floods) / 1e6),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        params: [("services".to_owned(), params.services.into()), ("rules".to_owned(), params.rules.into())].into(),
        ..Outcome::default()
    })
}
