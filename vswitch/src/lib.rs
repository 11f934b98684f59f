//! `vswitchd`: ports, workers and the keeper around the pipeline.

pub mod keeper;
pub mod pool;
pub mod ports;
pub mod sys;
