//! What a stage is: one match-action step of a walk.

use std::fmt::Debug;
use std::net::IpAddr;

use api::{AddressKey, Change, MacAddr, PortId};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::live::Now;
use crate::live::connections::Tuple;
use crate::probe::cells::Touched;
use crate::resolve::ahead::Sight;
use crate::resolve::walk::Walk;

/// One row of `STAGES`.
#[derive(Debug)]
pub struct StageDef {
    /// What people call it.
    pub name: &'static str,
    /// The question it answers, in a line.
    pub help: &'static str,
    /// Only the first packet of a connection meets it: what it asks, a remembered decision for a connection that was made
    /// does not rest on (FASTPATH 1).
    pub first_packet: bool,
    /// The stage with empty tables.
    pub build: fn() -> Box<dyn Stage>,
}

/// How a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the next stage in order.
    Continue,
    /// At the stage of this name, before or behind this one: the frame is now another one (translated, resubmitted).
    Enter(&'static str),
    /// It ends: the frame is dropped.
    Drop(DropReason),
    /// It ends: the frame was for the switch itself, which has taken from it what there was. Nothing leaves, and nothing is
    /// lost. Never cached.
    Consumed,
    /// It ends: the frame leaves by the walk's outputs.
    Deliver,
    /// It ends: the frame is not let through, and its sender is told so (or told what it asked for). The answer goes
    /// out where the frame came in. Never cached.
    Reply(Reply),
    /// It ends for now: the frame waits for the Ethernet address of a neighbour, which is asked for.
    Wait(AddressKey, PortId),
}

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// ARP (RFC 826) or neighbour advertisement (RFC 4861): who was asked for is here. The request is used up.
    Neighbor(MacAddr),
    /// An ICMP error (RFC 792, RFC 4443) from this address; the frame is dropped for the reason.
    Error(IcmpError, IpAddr, DropReason),
    /// TCP RST (RFC 9293, 3.5.2) in the name of the destination; the frame is dropped for the reason.
    Reset(DropReason),
}

/// ICMP errors that a router sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The hop limit ran out.
    TimeExceeded,
    /// No route.
    NetUnreachable,
    /// The destination's link has nobody of that address.
    HostUnreachable,
    /// Nobody listens.
    PortUnreachable,
    /// Larger than what the way takes: fragmentation needed, packet too big.
    TooBig(u16),
}

/// A stage with its tables. Cloned for each transaction: tables share what a change leaves alone.
pub trait Stage: Debug + Send + Sync {
    /// A copy to apply a transaction to.
    fn clone_box(&self) -> Box<dyn Stage>;

    /// Take over what concerns this stage: the only way its tables are built. A stage without tables of its own has nothing
    /// to do.
    fn apply(&mut self, _changes: &[Change], _touched: &mut Touched<'_>) {}

    /// The fields that `decide` may look at for frames of `port`, on a bridge with a router or without.
    fn mask(&self, port: PortId, routed: bool) -> KeyMask;

    /// The rows of its tables, as the changes that would make them of nothing.
    fn dump(&self, _rows: &mut Vec<Change>) {}

    /// A known connection would be let through if it were new: as its first packet came in by `port`, and as its answers
    /// come in. `local` is where the node is.
    fn stands(&self, _original: &Tuple, _reply: &Tuple, _port: PortId, _local: Option<PortId>) -> bool {
        true
    }

    /// It has a [`Self::look_ahead`]: the others are not asked, packet by packet.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// A first packet is about to be decided: ask for the memory that this will read, one line more with each look
    /// ([`super::ahead`]). Nothing may depend on it.
    fn look_ahead(&self, _sight: &mut Sight, _look: usize, _now: Now) {}

    /// Decide one frame. Pure: what is to be brought about goes into the walk's effects.
    fn decide(&self, walk: &mut Walk<'_>) -> Next;
}
