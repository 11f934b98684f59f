//! connection: known connection? its verdict and translation stand.
//!
//! Worked example, in both directions: 10.0.0.1:4000 opened a connection to the service 10.96.0.1:80, whose backend
//! 10.0.0.2:8080 was chosen then.
//!
//! ```text
//!   original   10.0.0.1:4000 → 10.96.0.1:80      its frames become   10.0.0.1:4000 → 10.0.0.2:8080, the reply turned round
//!   reply      10.0.0.2:8080 → 10.0.0.1:4000     its frames become   10.96.0.1:80 → 10.0.0.1:4000, the original turned round
//! ```
//!
//! Neither asks for services or policies again: both go on at `route`. A frame of no connection is a first one, and meets
//! the stages between. Ethernet addresses are not touched here: `route` sets them for whatever was translated.
//!
//! A connection belongs to who had its addresses when it was made. If one of them has another owner now, the connection
//! is dead and the frame a first one (FASTPATH 3).

use std::net::IpAddr;

use api::{AddressKey, BridgeId, Change};

use crate::burst::guard;
use crate::key::KeyMask;
use crate::live::connections::{Direction, Found, Tuple};
use crate::parse::proto;
use crate::probe::cells::{Asked, Touched};
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Effect, Walk};
use crate::rewrite::related::{self, Related};
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "connection",
    help: "known connection? its verdict and translation stand",
    first_packet: false,
    build: || Box::new(Tracking { owners: Owners::new("connection endpoint") }),
};

/// Who has an address: identities of endpoints.
#[derive(Clone, Debug)]
pub(super) struct Owners(Exact<AddressKey, u64>);

impl Owners {
    pub(super) fn new(name: &'static str) -> Self {
        Self(Exact::new(name))
    }

    pub(super) fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            if let Change::Endpoint(delta) = change
                && let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|endpoint| endpoint.key)
            {
                self.0.set(key, delta.new.as_ref().map(|endpoint| endpoint.identity), touched);
            }
        }
    }

    /// The owners of the two ends of a connection; 0 where there is no endpoint.
    pub(super) fn of(&self, bridge: BridgeId, ends: [IpAddr; 2], asked: &mut Asked<'_>) -> [u64; 2] {
        ends.map(|address| self.0.get(AddressKey { bridge, address }, asked).copied().unwrap_or(0))
    }
}

#[derive(Clone, Debug)]
struct Tracking {
    owners: Owners,
}

/// What the other side of the connection sees of a packet that goes this way.
fn beyond(found: &Found) -> Tuple {
    match found.direction {
        Direction::Original => found.reply.turned(),
        Direction::Reply => found.original.turned(),
    }
}

impl Tracking {
    /// The connection of a tuple, if its ends are still who they were.
    fn find(&self, walk: &mut Walk<'_>, tuple: &Tuple) -> Option<Found> {
        let found = walk.live.connections.find(tuple, &mut walk.asked)?;
        // Whoever was opened to, its answers come from it: that is no service's address.
        let ends = [found.original.src, found.reply.src];
        if self.owners.of(walk.bridge, ends, &mut walk.asked) != found.identities {
            walk.say(|| "an address of its connection has another owner now".to_owned());
            walk.effects.push(Effect::Kill(found.name));
            walk.transient = true;
            return None;
        }
        Some(found)
    }

    /// A packet that may belong to a connection.
    fn flow(&self, walk: &mut Walk<'_>, tuple: Tuple) -> Next {
        walk.tuple = Some(tuple);
        let Some(found) = self.find(walk, &tuple) else { return Next::Continue };
        if tuple.proto == proto::TCP {
            if walk.has(guard::SYN) && walk.live.connections.is_reopened(&found, walk.event()) {
                walk.say(|| "its connection was over: opened anew".to_owned());
                walk.effects.push(Effect::Kill(found.name));
                walk.transient = true;
                return Next::Continue;
            }
            // The next SYN may open it anew.
            walk.guard_flags(guard::SYN);
        }
        tracking::translate(&mut walk.key, &beyond(&found));
        walk.effects.push(Effect::Advance { name: found.name, direction: found.direction, event: walk.event() });
        walk.say(|| match found.direction {
            Direction::Original => format!("known, on its way to {}:{}", found.reply.src, found.reply.sport),
            Direction::Reply => format!("known, an answer to {}:{}", found.original.src, found.original.sport),
        });
        walk.connection = Some(found);
        Next::Enter("route")
    }

    /// An ICMP error. It says nothing of the state of the connection, and is one of its kind: nothing is remembered.
    fn error(&self, walk: &mut Walk<'_>) -> Next {
        let (frame, zone) = (walk.frame(), walk.bridge);
        let (Some(quoted), Some(source)) = (related::quoted(frame, &walk.layers, zone), walk.key.source()) else {
            return Next::Continue;
        };
        let Some(found) = self.find(walk, &quoted.turned()) else { return Next::Continue };
        let related = Related::new(&found, source);
        walk.say(|| format!("about what {}:{} sent", related.quoted.src, related.quoted.sport));
        if related.quoted != quoted || related.source != source {
            walk.key.set_source(related.source);
            walk.key.set_destination(related.destination);
            walk.related = Some(related);
        }
        walk.connection = Some(found);
        Next::Enter("route")
    }
}

impl Stage for Tracking {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        self.owners.apply(changes, touched);
    }

    fn mask(&self, _port: api::PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.routed {
            return Next::Continue;
        }
        match Carried::of(&walk.key, walk.bridge) {
            Carried::Flow(tuple) => self.flow(walk, tuple),
            Carried::Error => self.error(walk),
            Carried::Stray | Carried::Nothing => Next::Continue,
        }
    }
}
