//! Connections: what passed the first-packet stages, both directions under one record (FASTPATH 3).
//!
//! A connection is known by two tuples: its *original* one, as its first packet came in, and its *reply* one, as its
//! answers come in. Without translation one is the other turned round. Workers meet the table on misses and in the
//! sweep; a hit never does.

use std::net::IpAddr;

use api::{BridgeId, PortId};

use crate::live::Now;
use crate::probe::cells::{Asked, Cells};

/// What packets of one direction of a connection carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The bridge whose router tracks it: the zone.
    pub zone: BridgeId,
    /// IP protocol number.
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; of ICMP echo the identifier; 0 of protocols without either.
    pub sport: u16,
    /// Destination port; of ICMP echo the identifier; 0 of protocols without either.
    pub dport: u16,
}

impl Tuple {
    /// The same turned round: what an answer to it carries if nothing is translated.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self }
    }
}

/// Names a connection for as long as it lives: the record may be another's later, under another incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Number of the record, from 1; 0 is no connection.
    pub slot: u32,
    /// How many connections had the record before, wrapping.
    pub incarnation: u32,
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As the first packet.
    Original,
    /// The other way.
    Reply,
}

/// What a packet says of its connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// TCP flags (RFC 9293, 3.1), 0 for other protocols. Of SCTP the type of the first chunk (RFC 9260, 3.2).
    pub flags: u8,
}

/// A connection that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: Name,
    /// Which way the tuple that was asked for goes.
    pub direction: Direction,
    /// Its first packet.
    pub original: Tuple,
    /// Its answers.
    pub reply: Tuple,
    /// Identities of the endpoint that opened it and of the one that it was opened to; 0 where there is no endpoint.
    pub identities: [u64; 2],
    /// An answer has been seen.
    pub answered: bool,
}

/// A connection to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first packet as it came in.
    pub original: Tuple,
    /// Where it goes in truth: address and port (a service's backend; the same as `original` has when there is none).
    pub dst: (IpAddr, u16),
    /// What it comes from in truth.
    pub src: Source,
    /// Where it came in.
    pub port: PortId,
    /// As in [`Found::identities`].
    pub identities: [u64; 2],
    /// What it says.
    pub event: Event,
}

/// The source that the other end sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its own. Its port is kept unless the reply tuple is another connection's: then another port is taken, of the same class
    /// (below 512, below 1024, above).
    Own,
    /// This address, and a random port of the range (first and last).
    Masquerade(IpAddr, (u16, u16)),
}

/// What came of a [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is known from now on; translation is in its reply tuple.
    New(Found),
    /// Its original tuple is another's, who was quicker: ask again.
    Lost,
    /// The table, or the ingress port's share of it, is full.
    Full,
    /// No source port is free.
    NoPort,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {}

impl Connections {
    /// The connection of a tuple. That it was asked for is noted, found or not; a decision that rests on its absence and is
    /// to be remembered calls [`Self::rest_on_absence`] too.
    pub fn find(&self, _tuple: &Tuple, _asked: &mut Asked<'_>) -> Option<Found> {
        None
    }

    /// A remembered decision rests on there being no connection of this tuple: whoever makes one touches its cell. Returns
    /// false when there is one already.
    pub fn rest_on_absence(&self, _tuple: &Tuple) -> bool {
        true
    }

    /// Make a connection: one operation over both tuples.
    pub fn commit(&self, _plan: &Plan, _now: Now, _cells: &Cells) -> Committed {
        Committed::Full
    }

    /// What a packet says opens anew a connection that is over, TIME_WAIT or closed.
    pub fn is_reopened(&self, _found: &Found, _event: Event) -> bool {
        false
    }

    /// A packet of a connection says something of its state, and that it lives. Returns false if the name is another's now.
    pub fn advance(&self, _name: Name, _direction: Direction, _event: Event, _now: Now) -> bool {
        true
    }

    /// Packets of a connection were seen lately. Returns false if the name is another's now: what rests on it must go.
    pub fn seen(&self, _name: Name, _direction: Direction, _now: Now) -> bool {
        true
    }

    /// End one connection at once: decisions that rest on it are asked again.
    pub fn kill(&self, _name: Name, _cells: &Cells) {}
}
