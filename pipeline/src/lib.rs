//! The switch as a function: bytes and the time in, verdicts out.

pub mod burst;
pub mod checksum;
pub mod drop;
pub mod key;
pub mod offload;
pub mod parse;
pub mod raw;
pub mod segment;
