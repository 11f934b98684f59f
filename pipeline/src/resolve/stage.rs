//! What a stage is: one match-action step of a walk.

use std::fmt::Debug;

use api::{Change, PortId};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::probe::cells::Touched;
use crate::resolve::walk::Walk;

/// One row of `STAGES`.
#[derive(Debug)]
pub struct StageDef {
    /// What people call it.
    pub name: &'static str,
    /// The question it answers, in a line.
    pub help: &'static str,
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
    /// It ends: the frame leaves by the walk's outputs.
    Deliver,
}

/// A stage with its tables. Cloned for each transaction: tables share what a change leaves alone.
pub trait Stage: Debug + Send + Sync {
    /// A copy to apply a transaction to.
    fn clone_box(&self) -> Box<dyn Stage>;

    /// Take over what concerns this stage: the only way its tables are built.
    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>);

    /// The fields that `decide` may look at for frames of `port`.
    fn mask(&self, port: PortId) -> KeyMask;

    /// Decide one frame. Pure: what is to be brought about goes into the walk's effects.
    fn decide(&self, walk: &mut Walk<'_>) -> Next;
}
