//! The stages, in the order in which a walk meets them.

pub mod admit;
pub mod bridge;
pub mod deliver;
#[cfg(test)]
mod kit;
pub mod neighbor;
pub mod route;

use crate::resolve::stage::StageDef;

/// The default order of a walk.
pub const STAGES: &[&StageDef] = &[&admit::STAGE, &bridge::STAGE, &deliver::STAGE];
