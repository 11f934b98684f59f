//! What stages keep their programmed facts in. Every table is read through [`crate::probe::cells::Asked`], which notes
//! what was asked, and written through [`crate::probe::cells::Touched`], which notes what changed: there is no other way.
//!
//! Tables of one name are one table to validity, whatever rows each stage keeps: a question that two stages ask about a
//! port, a router or an endpoint is noted once.

mod chunks;
pub mod exact;
pub mod maglev;
pub mod prefix;
pub mod rules;

pub use exact::Exact;
pub use maglev::Maglev;
pub use prefix::Prefixes;
