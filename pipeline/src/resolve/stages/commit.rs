//! commit: remember the connection, both directions.
//!
//! The stage only says what is to be remembered; the table makes it so when the decision is carried out, and chooses the
//! source port then. Whatever follows is found by `connection`.
//!
//! First packets alone have work here, and yet the decision rests on what is asked: on who the two ends are, which the
//! next walk of the same flow asks in `connection`. It would be believed for too long if it did not.

use api::{Change, PortId};

use crate::burst::guard;
use crate::key::KeyMask;
use crate::live::connections::Plan;
use crate::parse::proto;
use crate::probe::cells::Touched;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::stages::connection::Owners;
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Effect, Walk};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "commit",
    help: "remember the connection, both directions",
    first_packet: false,
    build: || Box::new(Commit { owners: Owners::new("commit endpoint") }),
};

#[derive(Clone, Debug)]
struct Commit {
    owners: Owners,
}

impl Stage for Commit {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        self.owners.apply(changes, touched);
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if walk.connection.is_some() || walk.outputs.is_empty() || !walk.routed {
            return Next::Continue;
        }
        let (Some(original), Carried::Flow(now)) = (walk.tuple, Carried::of(&walk.key, walk.bridge)) else {
            return Next::Continue;
        };
        if !tracking::opens(walk) {
            return Next::Continue;
        }
        if original.proto == proto::TCP {
            // Another SYN walks: by then the connection may be over, and opened anew.
            walk.guard_flags(guard::SYN);
        }
        walk.identities = self.owners.of(walk.bridge, [original.src, now.dst], &mut walk.asked);
        walk.effects.push(Effect::Commit(Plan {
            original,
            dst: (now.dst, now.dport),
            src: walk.source,
            port: walk.start.in_port(),
            identities: walk.identities,
            event: walk.event(),
        }));
        Next::Continue
    }
}
