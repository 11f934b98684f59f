//! Measuring the switch: frames to measure with, the loop that measures, and what is said about it afterwards.
//!
//! `vsbench` runs [`scenarios`], `peers` sets them beside other switches, the criterion benches time one step each.
//! Nothing here is part of the switch, and nothing is subtracted from what was measured.

pub mod calls;
pub mod compare;
pub mod daemon;
pub mod flows;
pub mod frames;
pub mod fuzz;
pub mod hosts;
pub mod machine;
pub mod measure;
pub mod node;
pub mod plot;
pub mod policies;
pub mod port;
pub mod report;
pub mod scenarios;
pub mod taps;
pub mod world;
