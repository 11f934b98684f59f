//! Connections: what passed the first-packet stages, both directions under one record (FASTPATH 3).
//!
//! A connection is known by two tuples: its *original* one, as its first packet came in, and its *reply* one, as its
//! answers come in. Without translation one is the other turned round. Workers meet the table on misses and in the
//! sweep; a hit never does.
//!
//! A pod 10.1.0.5 opens a connection to the service 10.96.0.1:80, which goes to the backend 10.1.0.7:8080:
//!
//! | tuple | as it comes in | as it leaves |
//! |---|---|---|
//! | original | 10.1.0.5:40000 → 10.96.0.1:80 | 10.1.0.5:40000 → 10.1.0.7:8080 |
//! | reply | 10.1.0.7:8080 → 10.1.0.5:40000 | 10.96.0.1:80 → 10.1.0.5:40000 |
//!
//! What leaves in one direction is what comes in in the other, turned round: so the two tuples are all that there is to
//! know of a translation. The same pod that opens 10.96.0.2:80 from the same port, and is sent to the same backend, gets
//! another source port: a reply tuple is one connection's.
//!
//! | file | what it has |
//! |---|---|
//! | `record` | the records, and how their words change |
//! | `packed` | tuples as words |
//! | `index` | from tuples to records |
//! | `ledger` | free records, the shares of the ports, those that rest |
//! | `states` | protocols: states, timeouts |
//! | `ports` | which source ports to try |
//! | `table` | find, commit, hear of |
//! | `end` | kill, expire |
//! | `view` | what is told of them |
//! | `memory` | where records live |
//! | `rebuild` | taking over what an earlier process left |

mod end;
mod index;
mod ledger;
mod memory;
mod packed;
mod ports;
mod rebuild;
mod record;
mod states;
mod table;
mod view;

#[cfg(test)]
mod model;
#[cfg(test)]
mod race;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use api::{BridgeId, PortId};

pub use end::Expired;
pub use ledger::Limits;
pub use memory::{LAYOUT, Layout, Provider};
pub use rebuild::Restored;
pub(crate) use record::Record;
pub use table::Connections;
pub use view::View;

/// What packets of one direction of a connection carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        packed::Packed::of(self).hash(state);
    }
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
    /// Its original tuple is a living connection's, which was quicker: ask again.
    Lost,
    /// The table, or the ingress port's share of it, is full. For now: never remembered.
    Full,
    /// No source port is free, as far as was looked. For now: never remembered.
    NoPort,
}
