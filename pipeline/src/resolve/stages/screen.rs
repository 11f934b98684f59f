//! screen: may who is behind a way out hear this frame?
//!
//! `policy` decides on connections by their addresses. A frame is delivered by its Ethernet address, or to everybody; so
//! what reaches a pod's port is looked at once more, way by way:
//!
//! | frame | reaches a guarded port if |
//! |---|---|
//! | ARP, ND, MLD | always |
//! | unicast IP | its destination is the pod's address (or the port is not guarded against spoofing) |
//! | IP to a group or to everybody, anything else | no policy isolates the pod's ingress |
//! | any, and the pod's policies are not known yet | it comes from the node |
//!
//! Nor does a frame of an isolated pod reach anybody but the node. A way that is taken out leaves the others as they are;
//! a frame without any left is dropped.
//!
//! Worked example: pod a sends to 10.1.0.9, which is nobody's, with the Ethernet address of pod b. It would be bridged to b,
//! past whatever b's policies say: dropped as `not-addressed`.

use api::{Change, Guard, PortId};

use super::guard::{Guards, is_of_the_link};
use crate::burst::Kind;
use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::probe::cells::Touched;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::tracking;
use crate::resolve::walk::Walk;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "screen",
    help: "may who is behind a way out hear this frame?",
    first_packet: false,
    build: || Box::new(Screen { guards: Guards::default() }),
};

#[derive(Clone, Debug)]
struct Screen {
    guards: Guards,
}

/// Why a frame does not reach a guarded port, if it does not.
fn barred(guard: &Guard, walk: &Walk<'_>) -> Option<DropReason> {
    let from_node = guard.local == Some(walk.key.in_port());
    if guard.isolated.is_some() && !from_node {
        return Some(DropReason::Isolated);
    }
    if !walk.routed || walk.layers.kind == Kind::Arp || is_of_the_link(walk) {
        return None;
    }
    match walk.key.destination() {
        Some(to) if !walk.key.eth_dst().is_group() && !to.is_multicast() => {
            (guard.spoof && !guard.addresses.contains(&to)).then_some(DropReason::NotAddressed)
        }
        _ => (!guard.groups && !from_node).then_some(DropReason::PolicyIngress),
    }
}

impl Screen {
    fn screen(&self, walk: &mut Walk<'_>) -> Next {
        let speaker = self.guards.get(walk.key.in_port(), walk);
        let only = speaker.filter(|guard| guard.isolated.is_some()).map(|guard| guard.local);
        let mut ways = std::mem::take(&mut walk.outputs);
        let mut reason = None;
        ways.retain(|copy| {
            let why = match only {
                Some(local) if copy.port != PortId::STACK && Some(copy.port) != local => Some(DropReason::Isolated),
                _ => self.guards.get(copy.port, walk).and_then(|guard| barred(guard, walk)),
            };
            reason = reason.or(why);
            why.is_none()
        });
        walk.outputs = ways;
        match reason {
            Some(reason) if walk.outputs.is_empty() => Next::Drop(reason),
            Some(reason) => {
                walk.say(|| format!("some do not hear it: {}", reason.sentence()));
                Next::Continue
            }
            None => Next::Continue,
        }
    }
}

impl Stage for Screen {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        self.guards.apply(changes, touched);
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if walk.outputs.is_empty() { Next::Continue } else { self.screen(walk) }
    }
}

#[cfg(test)]
mod tests;
