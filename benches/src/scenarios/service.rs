//! `service`, `service6`: clients behind port 1 talk to services whose backends are behind port 2, both ways, in random
//! order. All connections are established: a hit translates an address and a port, corrects both checksums, gives the frame
//! the Ethernet addresses of its next hop and takes one off its hop limit.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::{Flows, Segment};
use crate::machine::Machine;
use crate::measure::closed_loop;
use crate::node::{self, Family};
use crate::port::{Playlist, alone};
use crate::report::Outcome;
use crate::world::World;

/// IPv4.
pub const FOUR: ScenarioDef = ScenarioDef {
    name: "service",
    help: "established TCP connections to service addresses, both ways, one worker, every frame a hit",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(FOUR.name, Family::Four, params, machine),
};

/// IPv6.
pub const SIX: ScenarioDef = ScenarioDef {
    name: "service6",
    help: "the same over IPv6",
    ladder: &[1000, 100_000, 1_000_000],
    scale: Scale::Flows,
    privileged: false,
    run: |params, machine| run(SIX.name, Family::Six, params, machine),
};

/// Places in the lists of the ports: handshake, then talk; none.
const HANDSHAKE: usize = 0;
const TALK: usize = 1;
const SILENCE: usize = 2;

/// What is measured, and what it sends.
pub(super) struct Talk {
    /// The switch.
    pub(super) world: World,
    /// What the clients and the backends send.
    pub(super) playlists: [Arc<Playlist>; 2],
    /// Frames in both lists.
    pub(super) frames: usize,
    /// Octets of a frame on average.
    pub(super) octets: f64,
}

impl Talk {
    /// Services, and these connections to them, all established.
    pub(super) fn new(flows: &Flows) -> Result<Self> {
        let list = |first, then| -> Result<_> {
            Ok(Playlist::new(vec![Arc::new(flows.frames(first, false)?), Arc::new(flows.frames(then, true)?)]))
        };
        let playlists = [list(Segment::Syn, Segment::Ask)?, list(Segment::SynAck, Segment::Answer)?];
        let talk = |playlist: &Arc<Playlist>| playlist.list(TALK).cloned().unwrap_or_default();
        let lists = playlists.each_ref().map(talk);
        let octets = lists.iter().map(|frames| frames.mean_size()).sum::<f64>() / 2.0;
        playlists[1].play(SILENCE);
        let changes = node::services(flows.family, flows.services);
        let mut world = World::routed(playlists.each_ref().map(Arc::clone), changes, 1)?;
        // The backends answer when all have asked: a backend that spoke first would open a connection of its own.
        for (port, playlist) in playlists.iter().enumerate() {
            playlists.iter().for_each(|other| other.play(SILENCE));
            playlist.play(HANDSHAKE);
            let through = world.pass(flows.count);
            ensure!(through >= flows.count as u64, "port {}: {through} of {} handshakes arrive", port + 1, flows.count);
        }
        playlists.iter().for_each(|playlist| playlist.play(TALK));
        let frames = lists.iter().map(|frames| frames.len()).sum();
        world.warm_up(frames);
        Ok(Self { world, playlists, frames, octets })
    }
}

/// The connections that parameters ask for.
pub(super) fn flows(family: Family, params: &Params) -> Flows {
    Flows { family, count: params.flows, services: params.services, size: params.size }
}

fn run(name: &str, family: Family, params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    let mut talk = Talk::new(&flows(family, params))?;
    let generator = alone(talk.playlists[0].list(TALK).context("no frames")?, SHORT, machine)?;
    let drops = talk.world.drops();
    let worker = talk.world.workers.first_mut().context("a switch without workers")?;
    let tally = closed_loop(worker, talk.frames as u64, params.duration, machine)?;
    Ok(Outcome {
        drops: talk.world.drops() - drops,
        params: [("services".to_owned(), params.services.into())].into(),
        ..tally.outcome(name, talk.octets, generator, machine)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::HOPS;
    use crate::frames::Size;
    use crate::node::{BACKEND_PORT, ROUTER, SERVICE_PORT, backend_mac, client_mac};
    use crate::world::PORTS;
    use control::Switch as _;
    use std::collections::BTreeMap;
    use std::net::{IpAddr, SocketAddr};

    /// A frame that the switch sent: Ethernet addresses, ends, hop limit. Both checksums hold.
    fn sent(frame: &[u8]) -> ([u8; 6], [u8; 6], SocketAddr, SocketAddr, u8) {
        let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
        let (src, dst, hops): (IpAddr, IpAddr, u8) = match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let ip = ip.header();
                assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
                assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(ip.source(), ip.destination()).unwrap());
                (ip.source_addr().into(), ip.destination_addr().into(), ip.ttl())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let ip = ip.header();
                assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(ip.source(), ip.destination()).unwrap());
                (ip.source_addr().into(), ip.destination_addr().into(), ip.hop_limit())
            }
            other => panic!("{other:?}"),
        };
        let [from, to] = [SocketAddr::new(src, tcp.source_port()), SocketAddr::new(dst, tcp.destination_port())];
        (frame[..6].try_into().unwrap(), frame[6..12].try_into().unwrap(), from, to, hops)
    }

    #[test]
    fn every_frame_of_either_side_arrives_translated_with_its_checksums_and_one_hop_fewer() {
        for family in [Family::Four, Family::Six] {
            let flows = Flows { family, count: 300, services: 7, size: Size::Fixed(64) };
            let mut talk = Talk::new(&flows).unwrap();
            let captures = PORTS.map(|port| talk.world.ask(|switch| switch.capture(port)).unwrap());
            let (arrived, drops) = ([0, 1].map(|port| talk.world.arrived_at(port)), talk.world.drops());
            let misses = talk.world.switch.workers()[0].misses;
            for _ in 0..6 {
                talk.world.pass(1);
            }
            assert_eq!([0, 1].map(|port| talk.world.arrived_at(port) - arrived[port]), [6 * 256; 2]);
            assert_eq!((talk.world.drops(), talk.world.switch.workers()[0].misses), (drops, misses));
            assert_eq!(talk.world.switch.connections().len(), flows.count);
            let known: BTreeMap<SocketAddr, usize> = (0..flows.count).map(|flow| (flows.near(flow), flow)).collect();
            for (port, capture) in captures.iter().enumerate() {
                let out = capture.try_iter().filter(|captured| !captured.ingress);
                let mut seen = 0;
                for captured in out {
                    let (to_mac, from_mac, from, to, hops) = sent(&captured.bytes);
                    let flow = known[if port == 1 { &from } else { &to }];
                    let (client, service) = (flows.client(flow), flows.service(flow));
                    let expected = if port == 1 {
                        (backend_mac(service), from, SocketAddr::new(family.backend(service), BACKEND_PORT))
                    } else {
                        (client_mac(client), SocketAddr::new(family.service(service), SERVICE_PORT), to)
                    };
                    assert_eq!((to_mac, from, to), (expected.0.0, expected.1, expected.2), "port {port}");
                    assert_eq!((from_mac, hops), (ROUTER.0, HOPS - 1));
                    seen += 1;
                }
                assert!(seen > 100, "port {port}: {seen} frames were looked at");
            }
        }
    }
}
