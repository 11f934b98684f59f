//! Runnable topologies that teach and assert, and what they are made of.
//!
//! A lab is one file under `labs/`. It builds a small network around the real daemon, drives real traffic through it,
//! and reports claims, each with its evidence and its control (`claim`). `runner` is the command line; `daemon` starts
//! the programs under test; `host` and `simhost` are the ends of the network; `ping` and `traffic` are the probes.

pub mod claim;
pub mod daemon;
pub mod greeter;
pub mod hop;
pub mod host;
pub mod labs;
pub mod linux;
pub mod lock;
pub mod machine;
pub mod mesh;
pub mod ping;
pub mod runner;
pub mod runtime;
pub mod sandbox;
mod sctp;
pub mod simhost;
pub mod traffic;
