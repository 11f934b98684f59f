//! Frames of connections through a [`node`](crate::node)'s network, as its pods send them.
//!
//! ```text
//! flow i:  client i mod 110, port 1024 + i / 110  ->  service i mod services, port 80     from port 1
//!          backend of that service, port 8080     ->  that client, that port              from port 2
//! ```
//!
//! At node ports a service has its own port of the node's address. Where backends see the node, answers go to the port
//! there that the switch has chosen, which it is asked for.

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use std::net::{IpAddr, SocketAddr};

use api::MacAddr;

use crate::frames::{FCS, Frames, Random, Size};
use crate::node::{BACKEND_PORT, CLIENTS, Family, Place, ROUTER, SERVICES, backend_mac, client_mac};

/// The first source port of a client.
const FIRST_PORT: usize = 1024;
/// Flows at most: each has a source port of its client to itself.
const MOST: usize = CLIENTS * (65536 - FIRST_PORT);
/// Hop limit of every frame.
pub const HOPS: u8 = 64;

/// What a segment is in the life of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The client's first.
    Syn,
    /// The backend's first.
    SynAck,
    /// Any from the client's second on.
    Ask,
    /// Any from the backend's second on.
    Answer,
    /// A datagram of the client.
    Datagram,
}

/// Connections from clients to services.
#[derive(Clone, Copy, Debug)]
pub struct Flows {
    /// Of this family.
    pub family: Family,
    /// To services at such a place.
    pub place: Place,
    /// How many.
    pub count: usize,
    /// Spread evenly over so many services.
    pub services: usize,
    /// No client comes to a service twice before it has been to all of them: 110 clients times the services are strangers
    /// to each other. Else a client has services of its own, and comes to them again and again.
    pub strangers: bool,
    /// Octets of their frames.
    pub size: Size,
}

impl Flows {
    /// Check that there are addresses and ports for so many.
    ///
    /// # Errors
    /// When there are not.
    pub fn check(&self) -> Result<()> {
        let Self { count, services, .. } = self;
        ensure!((1..=MOST).contains(count), "{count} flows: 1 to {MOST} can be told apart");
        ensure!((1..=SERVICES).contains(services), "{services} services: there are addresses for 1 to {SERVICES}");
        Ok(())
    }

    /// The frames of one kind, a frame of each flow, in random order; as often as makes a list of some length if the list
    /// is `repeated`.
    ///
    /// # Errors
    /// When there are too many.
    pub fn frames(&self, segment: Segment, repeated: bool) -> Result<Frames> {
        self.shuffled(segment, self.times(repeated), segment as u64, &|flow| self.near(flow))
    }

    /// As [`Self::frames`], of the backends, to whom they see at the other end of each flow.
    ///
    /// # Errors
    /// As [`Self::frames`].
    pub fn answers(&self, segment: Segment, repeated: bool, seen: &[SocketAddr]) -> Result<Frames> {
        ensure!(seen.len() == self.count, "{} of {} flows are seen by backends", seen.len(), self.count);
        let near = |flow: usize| seen.get(flow).copied().unwrap_or_else(|| self.near(flow));
        self.shuffled(segment, self.times(repeated), segment as u64, &near)
    }

    /// How often a flow is in a list.
    fn times(&self, repeated: bool) -> usize {
        if repeated { Frames::FEWEST.div_ceil(self.count) } else { 1 }
    }

    /// A frame of each flow, in an order that is random and the same for frames of all kinds.
    ///
    /// # Errors
    /// As [`Self::frames`].
    pub fn in_order(&self, segment: Segment) -> Result<Frames> {
        self.shuffled(segment, 1, 0, &|flow| self.near(flow))
    }

    /// The frames of one client's flows, in order.
    ///
    /// # Errors
    /// As [`Self::frames`].
    pub fn frames_of_client(&self, segment: Segment, client: usize) -> Result<Frames> {
        self.check()?;
        let mut frames = Frames::default();
        for (n, flow) in (client..self.count).step_by(CLIENTS).enumerate() {
            frames.push(&self.frame(flow, segment, self.near(flow), self.size.nth(n) - FCS)?)?;
        }
        Ok(frames)
    }

    fn shuffled(
        &self,
        segment: Segment,
        times: usize,
        seed: u64,
        near: &dyn Fn(usize) -> SocketAddr,
    ) -> Result<Frames> {
        self.check()?;
        let mut order: Vec<u32> = (0..times).flat_map(|_| 0..self.count as u32).collect();
        Random::new(seed).shuffle(&mut order);
        let mut frames = Frames::default();
        for (n, &flow) in order.iter().enumerate() {
            frames.push(&self.frame(flow as usize, segment, near(flow as usize), self.size.nth(n) - FCS)?)?;
        }
        Ok(frames)
    }

    /// The client of a flow.
    pub fn client(&self, flow: usize) -> usize {
        flow % CLIENTS
    }

    /// The service of a flow.
    pub fn service(&self, flow: usize) -> usize {
        (if self.strangers { flow / CLIENTS } else { flow }) % self.services
    }

    /// The client's end of a flow.
    pub fn near(&self, flow: usize) -> SocketAddr {
        SocketAddr::new(self.place.client(self.family, self.client(flow)), (FIRST_PORT + flow / CLIENTS) as u16)
    }

    /// The flow of a client's end: what [`Self::near`] undoes.
    pub fn at(&self, near: SocketAddr) -> Option<usize> {
        let client = (0..CLIENTS).find(|&client| self.place.client(self.family, client) == near.ip())?;
        let flow = (usize::from(near.port()).checked_sub(FIRST_PORT)?) * CLIENTS + client;
        (flow < self.count).then_some(flow)
    }

    /// The end that the client speaks to.
    pub fn far(&self, flow: usize) -> SocketAddr {
        self.place.service(self.family, self.service(flow))
    }

    /// The end that hears it.
    pub fn behind(&self, flow: usize) -> SocketAddr {
        SocketAddr::new(self.family.backend(self.service(flow)), BACKEND_PORT)
    }

    /// One frame, with the client's end at `near`, `len` octets without FCS where its headers leave it so few.
    fn frame(&self, flow: usize, segment: Segment, near: SocketAddr, len: usize) -> Result<Vec<u8>> {
        let there = matches!(segment, Segment::Syn | Segment::Ask | Segment::Datagram);
        let (mac, from, to) = if there {
            (client_mac(self.client(flow)), near, self.far(flow))
        } else {
            (backend_mac(self.service(flow)), self.behind(flow), near)
        };
        let transport = if segment == Segment::Datagram { 8 } else { 20 };
        let headers = 14 + transport + if self.family == Family::Six { 40 } else { 20 };
        let payload = vec![0; len.saturating_sub(headers)];
        let mut frame = Vec::with_capacity(headers + payload.len());
        let packet = to_router(mac, from.ip(), to.ip())?;
        if segment == Segment::Datagram {
            packet.udp(from.port(), to.port()).write(&mut frame, &payload)?;
            return Ok(frame);
        }
        let tcp = packet.tcp(from.port(), to.port(), 1, 1000);
        match segment {
            Segment::Syn => tcp.syn().write(&mut frame, &payload)?,
            Segment::SynAck => tcp.syn().ack(2).write(&mut frame, &payload)?,
            _ => tcp.ack(2).write(&mut frame, &payload)?,
        }
        Ok(frame)
    }
}

/// A datagram from a client to each of so many addresses outside, in random order.
///
/// # Errors
/// When there are none or too many.
pub fn outward(family: Family, destinations: usize, size: Size) -> Result<Frames> {
    ensure!((1..=1 << 23).contains(&destinations), "{destinations} destinations: 1 to {}", 1 << 23);
    let times = Frames::FEWEST.div_ceil(destinations);
    let mut order: Vec<u32> = (0..times).flat_map(|_| 0..destinations as u32).collect();
    Random::new(0).shuffle(&mut order);
    let mut frames = Frames::default();
    for (n, &number) in order.iter().enumerate() {
        let (number, client) = (number as usize, number as usize % CLIENTS);
        let headers = if family == Family::Six { 62 } else { 42 };
        let payload = vec![0; (size.nth(n) - FCS).saturating_sub(headers)];
        let mut frame = Vec::with_capacity(headers + payload.len());
        to_router(client_mac(client), family.client(client), family.outside(number))?
            .udp(1000, 2000)
            .write(&mut frame, &payload)?;
        frames.push(&frame)?;
    }
    Ok(frames)
}

/// A packet that is sent to the router.
fn to_router(mac: MacAddr, from: IpAddr, to: IpAddr) -> Result<etherparse::PacketBuilderStep<etherparse::IpHeaders>> {
    let ethernet = PacketBuilder::ethernet2(mac.0, ROUTER.0);
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOPS),
        _ => anyhow::bail!("{from} and {to} are not of one family"),
    })
}
