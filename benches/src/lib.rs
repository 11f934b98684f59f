//! Skeleton.
pub mod fuzz;
