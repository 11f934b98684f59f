//! `route`, `route6`: pods send to destinations outside, all from port 1, each its own datagram, in random order. With one
//! prefix all destinations are under it; with more, each destination has a prefix of its own, /32 or /128.
//!
//! The bridge is that of a node: what is routed is tracked too, so each destination is a connection that nobody answers.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::outward;
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::closed_loop;
use crate::node::{self, Family};
use crate::port::{Playlist, alone};
use crate::report::Outcome;
use crate::world::World;

/// IPv4.
pub const FOUR: ScenarioDef = ScenarioDef {
    name: "route",
    help: "pods to random destinations outside, next hop by longest prefix, one worker, every frame a hit",
    ladder: &[1, 100_000, 1_000_000],
    scale: Scale::Prefixes,
    privileged: false,
    run: |params, machine| run(FOUR.name, Family::Four, params, machine),
};

/// IPv6.
pub const SIX: ScenarioDef = ScenarioDef {
    name: "route6",
    help: "the same over IPv6",
    ladder: &[1, 100_000, 1_000_000],
    scale: Scale::Prefixes,
    privileged: false,
    run: |params, machine| run(SIX.name, Family::Six, params, machine),
};

/// A switch that has seen each of these frames.
fn world(family: Family, params: &Params, frames: &Arc<Frames>) -> Result<World> {
    let playlists = [Playlist::new(vec![Arc::clone(frames)]), Playlist::new(Vec::new())];
    let mut world = World::routed(playlists, node::prefixes(family, params.prefixes), 1)?;
    world.warm_up(frames.len());
    Ok(world)
}

fn run(name: &str, family: Family, params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    let prefixes = params.prefixes;
    ensure!(prefixes == 1 || prefixes >= params.flows, "{name}: {} flows have no prefix", params.flows - prefixes);
    let frames = Arc::new(outward(family, params.flows, params.size)?);
    let generator = alone(&frames, SHORT, machine)?;
    let mut world = world(family, params, &frames)?;
    let drops = world.drops();
    let worker = world.workers.first_mut().context("a switch without workers")?;
    let tally = closed_loop(worker, frames.len() as u64, params.duration, machine)?;
    Ok(Outcome {
        drops: world.drops() - drops,
        params: [("prefixes".to_owned(), prefixes.into())].into(),
        ..tally.outcome(name, frames.mean_size(), generator, machine)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::HOPS;
    use crate::frames::Size;
    use crate::node::{ROUTER, neighbor_mac};
    use crate::world::PORTS;
    use control::Switch as _;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    #[test]
    fn every_frame_goes_to_the_neighbor_of_its_prefix_one_hop_poorer() {
        for (family, prefixes) in [(Family::Four, 1), (Family::Four, 50), (Family::Six, 1), (Family::Six, 50)] {
            let params = Params {
                flows: 50,
                prefixes,
                services: 1,
                rules: 0,
                size: Size::Fixed(64),
                pcap: Vec::new(),
                cpus: Vec::new(),
                duration: std::time::Duration::ZERO,
            };
            let frames = Arc::new(outward(family, params.flows, params.size).unwrap());
            let mut world = world(family, &params, &frames).unwrap();
            let capture = world.ask(|switch| switch.capture(PORTS[1])).unwrap();
            let (drops, misses) = (world.drops(), world.switch.workers()[0].misses);
            assert_eq!(world.pass(512), 512);
            assert_eq!((world.drops(), world.switch.workers()[0].misses), (drops, misses));
            let known: BTreeMap<IpAddr, usize> = (0..params.flows).map(|n| (family.outside(n), n)).collect();
            assert_eq!(known.len(), params.flows, "destinations are different");
            let mut seen = 0;
            for captured in capture.try_iter() {
                let packet = etherparse::SlicedPacket::from_ethernet(&captured.bytes).unwrap();
                let (to, hops): (IpAddr, u8) = match packet.net.unwrap() {
                    etherparse::NetSlice::Ipv4(ip) => {
                        let ip = ip.header();
                        assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
                        (ip.destination_addr().into(), ip.ttl())
                    }
                    etherparse::NetSlice::Ipv6(ip) => (ip.header().destination_addr().into(), ip.header().hop_limit()),
                    other => panic!("{other:?}"),
                };
                let mac = neighbor_mac(if prefixes == 1 { 0 } else { known[&to] });
                assert_eq!((&captured.bytes[..6], &captured.bytes[6..12]), (&mac.0[..], &ROUTER.0[..]), "{to}");
                assert_eq!(hops, HOPS - 1);
                seen += 1;
            }
            assert!(seen > 100, "{seen} frames were looked at");
        }
    }
}
