//! Fragments that wait for the others of their datagram, one tracker a worker (FASTPATH 7).
//!
//! A later fragment has no ports, so by itself it could be decided by half of its facts only. Fragments are held until
//! all of a datagram are there; then they go on as a *train*: decided once, by the key that the whole datagram would
//! have had, and sent one behind the other, as they came but in order. They are never joined: who sent small frames may
//! have had a reason.
//!
//! ```text
//!   take(offset 1480, more)   held                        a later one first: no ports yet
//!   take(offset 0, more)      held                        now the key is known
//!   take(offset 2960, last)   Train [0, 1480, 2960]       key: ports of the first, not a fragment
//! ```
//!
//! Overlapping fragments, of which exact duplicates are a kind, end their datagram (RFC 5722, and for IPv4 alike): which of
//! two the receiver would believe cannot be known. What else comes of such a datagram is refused until its time is over.
//!
//! What is held is bounded three times: datagrams and frames a port, and frames in all. At a bound of its own a port
//! loses its oldest datagram; at the bound of all it is the port that holds most.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ahash::RandomState;
use api::{BridgeId, PortId};

use crate::burst::{Kind, Layers, guard};
use crate::drop::DropReason;
use crate::key::{Field, FlowKey};
use crate::live::Now;
use crate::parse::{Piece, array, be16, octet, piece, proto, transport_octets};
use crate::raw::Frame;

/// How long the first fragment that came waits for the others. RFC 8200 says 60 s, Linux 30 s for IPv4: a train waits twice, here
/// and at the receiver, and a peer that fills the tracker is to be got rid of.
const PATIENCE: Duration = Duration::from_secs(15);
/// Fragments of one datagram: 65,535 octets in pieces of 1,024.
const PIECES: usize = 64;
/// Octets of the longest packet, header included (RFC 791); in IPv6 of the longest payload (RFC 8200, 4.5).
const LONGEST: usize = 65_535;
/// What a frame with a spill counts for: spills are fewer than slots.
const SPILLED: usize = 8;

/// Takes back frames that are held no longer: the frame, where it came in, why it is dropped.
pub type Give<'a> = dyn FnMut(Frame, PortId, DropReason) + 'a;

/// How much may be held.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Datagrams of one ingress port.
    pub datagrams: usize,
    /// Frames of one ingress port. A frame with a spill counts for eight.
    pub port: usize,
    /// Frames in all, counted alike.
    pub all: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { datagrams: 64, port: 256, all: 1024 }
    }
}

/// A fragment that came in.
#[derive(Debug)]
pub struct Arrival {
    /// The frame.
    pub frame: Frame,
    /// What the parser said of it.
    pub layers: Layers,
    /// Its masked key, as parsed.
    pub key: FlowKey,
    /// Where it came in.
    pub in_port: PortId,
    /// The bridge whose router it is for.
    pub zone: BridgeId,
}

/// All fragments of a datagram.
#[derive(Debug)]
#[must_use = "its frames are lost to their pool"]
pub struct Train {
    /// In order of their offset, never empty.
    pub fragments: Vec<(Frame, Layers)>,
    /// The masked key that the datagram would have had in one piece.
    pub key: FlowKey,
    /// As of the first fragment; but the guard word is that of all: it has a flag if one of them has, but for
    /// [`guard::FRAGMENT`], and the size of the largest.
    pub layers: Layers,
    /// Octets of transport header and payload of the datagram.
    pub octets: usize,
    /// Where they came in.
    pub in_port: PortId,
}

impl Train {
    /// Octets of the largest fragment, from the network header on.
    pub fn largest(&self) -> u32 {
        self.layers.guard >> guard::SIZE_SHIFT
    }
}

/// What all fragments of a datagram have in common: all that the decision on the first rests on but its ports, so that
/// what is decided holds for the others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    zone: BridgeId,
    in_port: PortId,
    /// The first words of the key: VLAN and Ethernet addresses, as far as they are looked at.
    link: [u64; 2],
    src: IpAddr,
    dst: IpAddr,
    /// 0 in IPv6, where only the first fragment says what it is (RFC 8200, 4.5).
    proto: u8,
    id: u32,
}

/// A fragment that waits.
#[derive(Debug)]
struct Held {
    frame: Frame,
    layers: Layers,
    offset: usize,
    end: usize,
}

impl Held {
    fn weight(&self) -> usize {
        weight(&self.frame)
    }
}

/// What the first fragment says of its datagram.
#[derive(Debug)]
struct First {
    key: FlowKey,
    /// See [`Piece::headers`].
    headers: usize,
    /// Octets of extension headers between its fragment header and its transport header.
    extensions: usize,
    /// Octets of transport header and payload that its UDP header says there are.
    stated: usize,
}

/// A datagram under way.
#[derive(Debug)]
struct Datagram {
    since: Now,
    held: Vec<Held>,
    first: Option<Box<First>>,
    /// Octets of data, once the last fragment is there.
    total: Option<usize>,
    /// Octets of data that are there. As there are no overlaps, all are when they are as many as there can be.
    covered: usize,
    /// It will never be whole, and its fragments are not kept.
    refused: Option<DropReason>,
}

/// What one ingress port has under way.
#[derive(Debug, Default)]
struct Share {
    /// Its datagrams, the oldest first.
    order: VecDeque<Id>,
    /// See [`weight`].
    frames: usize,
}

/// All fragments that a worker holds.
#[derive(Debug, Default)]
pub struct Fragments {
    bounds: Bounds,
    datagrams: HashMap<Id, Datagram, RandomState>,
    /// Ports that have a datagram under way.
    ports: BTreeMap<PortId, Share>,
    /// See [`weight`].
    frames: usize,
    /// No datagram is older: [`Self::expire`] has nothing to do until its time is over.
    oldest: Now,
}

impl Fragments {
    /// A tracker with bounds of one's choice.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Nothing is held, nor remembered as refused.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Frames that are held.
    pub fn len(&self) -> usize {
        self.datagrams.values().map(|datagram| datagram.held.len()).sum()
    }

    /// Take a fragment. When it is the last one missing, or none is (an atomic fragment: RFC 6946), all are handed out; if
    /// not, it is held. What is not kept goes to `give`.
    pub fn take(&mut self, arrival: Arrival, now: Now, give: &mut Give<'_>) -> Option<Train> {
        self.expire(now, give);
        let Arrival { frame, layers, key, in_port, zone } = arrival;
        let Some((id, piece)) = identify(frame.head(), &layers, &key, in_port, zone).filter(|(_, it)| !it.is_whole())
        else {
            let octets = transport_octets(frame.head(), &layers).unwrap_or(0);
            return Some(Train { fragments: vec![(frame, layers)], key, layers, octets, in_port });
        };
        self.make_room(&id, weight(&frame), give);
        if self.datagrams.is_empty() {
            self.oldest = now;
        }
        let share = self.ports.entry(in_port).or_default();
        let datagram = self.datagrams.entry(id).or_insert_with(|| {
            share.order.push_back(id);
            Datagram::new(now)
        });
        let before = datagram.weight();
        datagram.add(frame, layers, &key, &piece, &mut |frame, reason| give(frame, in_port, reason));
        let after = datagram.weight();
        share.frames = share.frames + after - before;
        self.frames = self.frames + after - before;
        if !datagram.is_complete() {
            return None;
        }
        self.remove(&id)?.train(in_port, give)
    }

    /// Give up datagrams that have waited long enough.
    pub fn expire(&mut self, now: Now, give: &mut Give<'_>) {
        if self.datagrams.is_empty() || !over(self.oldest, now) {
            return;
        }
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        self.oldest = now;
        for port in ports {
            while let Some((id, since)) = self.oldest_of(port) {
                if !over(since, now) {
                    self.oldest = self.oldest.min(since);
                    break;
                }
                self.give_up(&id, DropReason::FragmentTimeout, give);
            }
        }
    }

    /// Give everything back: the worker ends.
    pub fn clear(&mut self, give: &mut Give<'_>) {
        let ids: Vec<Id> = self.datagrams.keys().copied().collect();
        ids.iter().for_each(|id| self.give_up(id, DropReason::FragmentTimeout, give));
    }

    /// A frame of `frames` more does not break a bound.
    fn make_room(&mut self, id: &Id, frames: usize, give: &mut Give<'_>) {
        let port = id.in_port;
        while let Some(share) = self.ports.get(&port) {
            let datagrams = share.order.len() + usize::from(!self.datagrams.contains_key(id));
            if datagrams <= self.bounds.datagrams && share.frames + frames <= self.bounds.port {
                break;
            }
            let Some((oldest, _)) = self.oldest_of(port) else { break };
            self.give_up(&oldest, DropReason::FragmentOverload, give);
        }
        while self.frames + frames > self.bounds.all {
            let most = self.ports.iter().max_by_key(|(_, share)| share.frames).map(|(port, _)| *port);
            let Some((oldest, _)) = most.and_then(|port| self.oldest_of(port)) else { break };
            self.give_up(&oldest, DropReason::FragmentOverload, give);
        }
    }

    fn oldest_of(&self, port: PortId) -> Option<(Id, Now)> {
        let id = self.ports.get(&port)?.order.front()?;
        Some((*id, self.datagrams.get(id)?.since))
    }

    fn give_up(&mut self, id: &Id, reason: DropReason, give: &mut Give<'_>) {
        let Some(datagram) = self.remove(id) else { return };
        datagram.held.into_iter().for_each(|held| give(held.frame, id.in_port, reason));
    }

    fn remove(&mut self, id: &Id) -> Option<Datagram> {
        let datagram = self.datagrams.remove(id)?;
        let weight = datagram.weight();
        self.frames -= weight;
        if let Some(share) = self.ports.get_mut(&id.in_port) {
            share.frames -= weight;
            // Mostly the first or the last of at most `Bounds::datagrams`.
            if let Some(at) = share.order.iter().position(|other| other == id) {
                share.order.remove(at);
            }
            if share.order.is_empty() {
                self.ports.remove(&id.in_port);
            }
        }
        Some(datagram)
    }
}

impl Datagram {
    fn new(since: Now) -> Self {
        Self { since, held: Vec::new(), first: None, total: None, covered: 0, refused: None }
    }

    fn weight(&self) -> usize {
        self.held.iter().map(Held::weight).sum()
    }

    /// Keep a fragment; or give it back, and with it all others, because there is something wrong with them.
    fn add(
        &mut self,
        frame: Frame,
        layers: Layers,
        key: &FlowKey,
        piece: &Piece,
        give: &mut dyn FnMut(Frame, DropReason),
    ) {
        if let Some(reason) = self.refused.or_else(|| self.fault(frame.head(), &layers, piece)) {
            self.refused = Some(reason);
            give(frame, reason);
            self.held.drain(..).for_each(|held| give(held.frame, reason));
            self.first = None;
            return;
        }
        if piece.offset == 0 {
            let mut key = *key;
            key.set(Field::IP_FRAG, [0]);
            let extensions = usize::from(layers.l4).saturating_sub(piece.at);
            let stated = stated(frame.head(), &layers);
            self.first = Some(Box::new(First { key, headers: piece.headers, extensions, stated }));
        }
        if !piece.more {
            self.total = Some(piece.end());
        }
        self.covered += piece.octets;
        self.held.push(Held { frame, layers, offset: piece.offset, end: piece.end() });
    }

    /// What is wrong with a fragment, or with it and those that are here.
    fn fault(&self, head: &[u8], layers: &Layers, piece: &Piece) -> Option<DropReason> {
        if piece.offset == 0 {
            let there = (piece.at + piece.octets).saturating_sub(usize::from(layers.l4));
            match transport(head, layers) {
                Some(proto::TCP) if there < 20 => return Some(DropReason::FragmentShort),
                Some(proto::UDP | proto::ICMP | proto::ICMPV6) if there < 8 => return Some(DropReason::FragmentShort),
                Some(proto::SCTP) if there < 12 => return Some(DropReason::FragmentShort),
                // Redirects, advertisements and solicitations: hosts must not believe what they cannot have checked.
                Some(proto::ICMPV6) if matches!(octet(head, usize::from(layers.l4)), Some(133..=137)) => {
                    return Some(DropReason::FragmentNeighbor);
                }
                _ => {}
            }
        }
        let overlaps = |held: &Held| piece.offset < held.end && held.offset < piece.end();
        let beyond = self.total.is_some_and(|total| piece.end() > total || !piece.more);
        let behind = !piece.more && self.held.iter().any(|held| held.end > piece.end());
        if beyond || behind || self.held.iter().any(overlaps) {
            return Some(DropReason::FragmentOverlap);
        }
        (self.held.len() >= PIECES).then_some(DropReason::FragmentExcess)
    }

    fn is_complete(&self) -> bool {
        self.refused.is_none() && self.total == Some(self.covered)
    }

    /// All fragments in order; unless the whole is not what a datagram can be.
    fn train(mut self, in_port: PortId, give: &mut Give<'_>) -> Option<Train> {
        self.held.sort_unstable_by_key(|held| held.offset);
        let octets = self.covered;
        let fault = match &self.first {
            Some(first) if first.headers + octets > LONGEST => Some(DropReason::FragmentOversized),
            Some(first) if first.extensions + first.stated > octets => Some(DropReason::UdpLength),
            _ => None,
        };
        let (Some(first), Some(of_first), None) = (self.first, self.held.first().map(|held| held.layers), fault) else {
            let reason = fault.unwrap_or(DropReason::FragmentOverlap);
            self.held.into_iter().for_each(|held| give(held.frame, in_port, reason));
            return None;
        };
        let guards = self.held.iter().map(|held| held.layers.guard);
        let flags = guards.clone().fold(0, |all, one| all | one) & 0xffff & !guard::FRAGMENT;
        let size = guards.map(|one| one >> guard::SIZE_SHIFT).max().unwrap_or(0);
        let layers = Layers { guard: size << guard::SIZE_SHIFT | flags, ..of_first };
        let fragments = self.held.into_iter().map(|held| (held.frame, held.layers)).collect();
        let octets = octets.saturating_sub(first.extensions);
        Some(Train { fragments, key: first.key, layers, octets, in_port })
    }
}

/// What a frame counts for in [`Bounds`].
fn weight(frame: &Frame) -> usize {
    if frame.spill().is_empty() { 1 } else { SPILLED }
}

/// What came at `since` has waited long enough.
fn over(since: Now, now: Now) -> bool {
    now.0.saturating_sub(since.0) >= PATIENCE
}

/// Which datagram a frame is a piece of, and which piece; `None` when it is none.
fn identify(head: &[u8], layers: &Layers, key: &FlowKey, in_port: PortId, zone: BridgeId) -> Option<(Id, Piece)> {
    let l3 = usize::from(layers.l3);
    let piece = piece(head, layers)?;
    let link = key.words.first_chunk().copied()?;
    let (src, dst, proto) = if layers.kind == Kind::Ipv4 {
        let address = |at| array::<4>(head, at).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
        (address(l3 + 12)?, address(l3 + 16)?, octet(head, l3 + 9)?)
    } else {
        let address = |at| array::<16>(head, at).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
        (address(l3 + 8)?, address(l3 + 24)?, 0)
    };
    Some((Id { zone, in_port, link, src, dst, proto, id: piece.id }, piece))
}

/// Protocol of the transport header of a frame that has one.
fn transport(head: &[u8], layers: &Layers) -> Option<u8> {
    if layers.l4 == 0 {
        return None;
    }
    let [proto] = crate::parse::key(PortId::NONE, head, layers).get(Field::IP_PROTO);
    Some(proto)
}

/// Octets of transport header and payload that the UDP header of a first fragment says there are; 0 of other protocols. What is
/// said in one piece is held against the frame by the parser; here it can only be once all are there.
fn stated(head: &[u8], layers: &Layers) -> usize {
    match transport(head, layers) {
        Some(proto::UDP) => be16(head, usize::from(layers.l4) + 4).map_or(0, usize::from),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
