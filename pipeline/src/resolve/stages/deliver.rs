//! deliver: does each way out exist, and does the frame fit? The last stage.
//!
//! One way out guards the cached decision by its MTU: a larger frame of the same flow walks again and is dropped as
//! `exceeds-mtu`, without that being remembered for the smaller ones. Of several ways each copy is checked when it is
//! made.

use api::{Change, PortId};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::probe::cells::Touched;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::walk::Walk;
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "deliver",
    help: "does each way out exist, and does the frame fit?",
    first_packet: false,
    build: || Box::new(Deliver { mtus: Exact::new("port") }),
};

#[derive(Clone, Debug)]
struct Deliver {
    /// MTU by port.
    mtus: Exact<PortId, u16>,
}

impl Stage for Deliver {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            if let Change::Port(delta) = change
                && let Some(id) = delta.new.as_ref().or(delta.old.as_ref()).map(|port| port.id)
            {
                self.mtus.set(id, delta.new.as_ref().map(|port| port.mtu), touched);
            }
        }
    }

    fn mask(&self, _port: PortId, _routed: bool) -> KeyMask {
        KeyMask::EMPTY
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let asked = &mut walk.asked;
        walk.outputs.retain_mut(|copy| match self.mtus.get(copy.port, asked) {
            Some(&mtu) => {
                copy.mtu = mtu;
                true
            }
            None => false,
        });
        match *walk.outputs.as_slice() {
            [] => Next::Drop(DropReason::NoPort),
            [copy] if walk.size() > u32::from(copy.mtu) && walk.cut.is_none() => {
                walk.transient = true;
                Next::Drop(DropReason::ExceedsMtu)
            }
            [copy] => {
                walk.guard_size(copy.mtu);
                Next::Deliver
            }
            _ => Next::Deliver,
        }
    }
}
