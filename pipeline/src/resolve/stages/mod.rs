//! The stages, in the order in which a walk meets them.

pub mod acl;
pub mod admit;
pub mod bridge;
pub mod commit;
pub mod connection;
pub mod deliver;
pub mod guard;
#[cfg(test)]
mod kit;
pub mod masquerade;
pub mod neighbor;
pub mod policy;
pub mod route;
pub mod screen;
pub mod service;

use crate::resolve::stage::StageDef;

/// The default order of a walk.
pub const STAGES: &[&StageDef] = &[
    &admit::STAGE,
    &guard::STAGE,
    &neighbor::STAGE,
    &connection::STAGE,
    &acl::FROM,
    &service::STAGE,
    &policy::STAGE,
    &route::STAGE,
    &bridge::STAGE,
    &screen::STAGE,
    &acl::TO,
    &masquerade::STAGE,
    &commit::STAGE,
    &deliver::STAGE,
];
