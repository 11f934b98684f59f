//! `vswitchd`: ports, workers and the keeper around the pipeline.

pub mod capture;
pub mod keeper;
pub mod pool;
pub mod ports;
pub mod publish;
pub mod switch;
mod sync;
pub mod sys;
pub mod worker;
