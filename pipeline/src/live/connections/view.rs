//! What the control side sees of connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::PortId;
use api::state::{ConnectionState, Tuple as Ends};

use super::record::Life;
use super::table::Connections;
use super::{Name, Tuple};
use crate::live::Now;

/// A connection as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: Name,
    /// Its first packet.
    pub original: Tuple,
    /// Its answers.
    pub reply: Tuple,
    /// Identities of the endpoint that opened it and of the one that it was opened to; 0 where there is no endpoint.
    pub identities: [u64; 2],
    /// Where its first packet came in.
    pub port: PortId,
    /// A packet came back.
    pub answered: bool,
    /// Its state in the words of conntrack.
    pub state: &'static str,
    /// When it was last heard of, seconds.
    pub seen: u32,
    /// Seconds of silence that it may have.
    pub timeout: u32,
}

impl View {
    /// As a switch tells it.
    pub fn state(&self, now: Now) -> ConnectionState {
        let ends = |tuple: &Tuple| Ends {
            src: SocketAddr::new(tuple.src, tuple.sport),
            dst: SocketAddr::new(tuple.dst, tuple.dport),
        };
        ConnectionState {
            bridge: self.original.zone,
            proto: self.original.proto,
            state: self.state.to_owned(),
            original: ends(&self.original),
            reply: ends(&self.reply),
            port: self.port,
            expires: self.timeout.saturating_sub(now.second().saturating_sub(self.seen)),
        }
    }
}

impl Connections {
    /// All connections that live, in no order. Those that are made or end meanwhile may be among them or not.
    pub fn list(&self) -> Vec<View> {
        let fresh = self.ledger.lock().fresh();
        (1..fresh).filter_map(|slot| self.view(slot)).collect()
    }

    /// How many connections of each protocol are in each state, in the words of conntrack.
    pub fn census(&self) -> BTreeMap<(u8, &'static str), u64> {
        let fresh = self.ledger.lock().fresh();
        let mut census = BTreeMap::new();
        for reading in (1..fresh).filter_map(|slot| self.records.read(slot)) {
            if reading.word.life == Life::LIVE {
                let proto = reading.proto();
                *census.entry((proto, reading.word.status.word(proto, reading.lasted()))).or_default() += 1;
            }
        }
        census
    }

    pub(super) fn view(&self, slot: u32) -> Option<View> {
        let reading = self.records.read(slot).filter(|reading| reading.word.life == Life::LIVE)?;
        let (status, proto, lasted) = (reading.word.status, reading.proto(), reading.lasted());
        Some(View {
            name: Name { slot, incarnation: reading.word.incarnation },
            original: reading.original.tuple(),
            reply: reading.reply.tuple(),
            identities: reading.identities,
            port: reading.port,
            answered: status.is_answered(),
            state: status.word(proto, lasted),
            seen: reading.seen,
            timeout: status.timeout(proto, lasted),
        })
    }
}
