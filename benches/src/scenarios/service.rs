//! `service`, `service6`: clients behind port 1 talk to services whose backends are behind port 2, both ways, in random
//! order. All connections are established: a hit translates an address and a port, corrects both checksums, gives the frame
//! the Ethernet addresses of its next hop and takes one off its hop limit.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use api::Change;
use control::Switch as _;

use super::{Params, SHORT, Scale, ScenarioDef};
use crate::flows::{Flows, Segment};
use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Laps, Step as _, closed_loop};
use crate::node::{self, Family, Place};
use crate::port::{Playlist, alone};
use crate::report::Outcome;
use crate::world::{PORTS, World};

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

/// Lists of either port: its side of all handshakes, and what it says then.
const HANDSHAKE: usize = 0;
const TALK: usize = 1;

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
        Self::with(flows, Vec::new())
    }

    /// The same, where more is programmed than the services.
    pub(super) fn with(flows: &Flows, more: Vec<Change>) -> Result<Self> {
        let playlists = [Playlist::awaited(), Playlist::awaited()];
        let changes = node::services(flows.family, flows.place, flows.services).into_iter().chain(more).collect();
        let world = World::routed(playlists.each_ref().map(Arc::clone), changes, 1)?;
        let mut talk = Self { world, playlists, frames: 0, octets: 0.0 };
        // The backends answer when all have asked: a backend that spoke first would open a connection of its own.
        talk.shake(0, talk.add(0, flows.frames(Segment::Syn, false)?))?;
        let seen = talk.seen(flows)?;
        talk.shake(1, talk.add(1, flows.answers(Segment::SynAck, false, &seen)?))?;
        let lists = [flows.frames(Segment::Ask, true)?, flows.answers(Segment::Answer, true, &seen)?].map(Arc::new);
        talk.octets = lists.iter().map(|frames| frames.mean_size()).sum::<f64>() / 2.0;
        talk.frames = lists.iter().map(|frames| frames.len()).sum();
        for (playlist, frames) in talk.playlists.iter().zip(lists) {
            playlist.play(playlist.add(frames));
        }
        talk.world.warm_up(talk.frames);
        Ok(talk)
    }

    /// All connections end, and the same are opened anew: as the switch is programmed by now. Not for such whose answers go
    /// where the switch chose, which may choose otherwise now.
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.world.switch.flush_connections(&|_| true);
        for port in 0..PORTS.len() {
            self.shake(port, HANDSHAKE)?;
        }
        self.playlists.iter().for_each(|playlist| playlist.play(TALK));
        self.world.warm_up(self.frames);
        Ok(())
    }

    /// One more list for a port to send. Returns its number.
    fn add(&self, port: usize, frames: Frames) -> usize {
        self.playlists.get(port).map_or(0, |playlist| playlist.add(Arc::new(frames)))
    }

    /// One port sends its side of all handshakes, the other nothing.
    fn shake(&mut self, port: usize, list: usize) -> Result<()> {
        // Whoever spoke last is silent for a turn, so that the other has the worker to itself, and loses no first packet.
        self.playlists.iter().for_each(|playlist| playlist.pause(true));
        self.world.workers.iter_mut().for_each(|worker| _ = worker.step(&mut Laps::default()));
        let mut count = 0;
        if let Some(playlist) = self.playlists.get(port) {
            playlist.play(list);
            playlist.pause(false);
            count = playlist.list(list).map_or(0, |frames| frames.len());
        }
        let through = self.world.pass(count);
        self.playlists.iter().for_each(|playlist| playlist.pause(false));
        ensure!(through >= count as u64, "port {}: {through} of {count} handshakes arrive", port + 1);
        Ok(())
    }

    /// Whom the backends see at the other end of each flow. Where that is the node, the switch chose the port.
    fn seen(&self, flows: &Flows) -> Result<Vec<SocketAddr>> {
        let mut seen: Vec<SocketAddr> = (0..flows.count).map(|flow| flows.near(flow)).collect();
        if flows.place != Place::NodePort {
            return Ok(seen);
        }
        let mut known = 0;
        for connection in self.world.switch.connections() {
            let flow = flows.at(connection.original.src).and_then(|flow| seen.get_mut(flow));
            if let Some(near) = flow {
                (*near, known) = (connection.reply.dst, known + 1);
            }
        }
        ensure!(known == flows.count, "{known} of {} flows are tracked", flows.count);
        Ok(seen)
    }

    /// What generator and sink take by themselves, of the clients' frames.
    pub(super) fn generator(&self, machine: &Machine) -> Result<f64> {
        let last = self.playlists.first().and_then(|playlist| playlist.last());
        alone(&last.context("no frames")?, SHORT, machine)
    }
}

/// The connections that parameters ask for.
pub(super) fn flows(family: Family, params: &Params) -> Flows {
    let Params { flows: count, services, size, .. } = *params;
    Flows { family, place: Place::Cluster, count, services, strangers: false, size }
}

fn run(name: &str, family: Family, params: &Params, machine: &Machine) -> Result<Outcome> {
    params.pin(0)?;
    params.own_frames(name)?;
    let mut talk = Talk::new(&flows(family, params))?;
    let generator = talk.generator(machine)?;
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
    use crate::node::{ROUTER, backend_mac, client_mac};
    use std::collections::BTreeMap;
    use std::net::IpAddr;

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
        let places = [Place::Cluster, Place::NodePort, Place::NodePortLocal];
        let rows = places.map(|place| [Family::Four, Family::Six].map(|family| (place, family)));
        for (place, family) in rows.concat() {
            let (strangers, size) = (false, Size::Fixed(64));
            let flows = Flows { family, place, count: 300, services: 7, strangers, size };
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
            let seen = talk.seen(&flows).unwrap();
            let by_node = seen.iter().all(|near| near.ip() == family.node() && near.port() >= 49152);
            assert_eq!(by_node, place == Place::NodePort, "{place:?}: {:?}", seen[0]);
            let ends = |port: usize, flow| if port == 1 { seen[flow] } else { flows.near(flow) };
            let known = [0, 1].map(|port| -> BTreeMap<(SocketAddr, SocketAddr), usize> {
                let other = |flow| if port == 1 { flows.behind(flow) } else { flows.far(flow) };
                (0..flows.count).map(|flow| ((ends(port, flow), other(flow)), flow)).collect()
            });
            for (port, capture) in captures.iter().enumerate() {
                let out = capture.try_iter().filter(|captured| !captured.ingress);
                let mut seen = 0;
                for captured in out {
                    let (to_mac, from_mac, from, to, hops) = sent(&captured.bytes);
                    let (near, far) = if port == 1 { (from, to) } else { (to, from) };
                    // That it is found means that both ends are those of a flow.
                    let flow = known[port][&(near, far)];
                    let (client, service) = (flows.client(flow), flows.service(flow));
                    let expected = if port == 1 { backend_mac(service) } else { client_mac(client) };
                    assert_eq!(to_mac, expected.0, "port {port}");
                    assert_eq!((from_mac, hops), (ROUTER.0, HOPS - 1));
                    seen += 1;
                }
                assert!(seen > 100, "port {port}: {seen} frames were looked at");
            }
        }
    }
}
