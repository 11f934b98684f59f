//! Configuration and cluster state, compiled to transactions for a switch.
//!
//! This crate knows names, files and sockets, and no packet. What it programs is behind the trait [`Switch`].

pub mod switch;

pub use switch::{Refusal, Switch};
