//! Live: what packets write, shared by the workers. Met on misses, by the sweep, and by the control side; never by a
//! hit.

pub mod affinity;
pub mod connections;
pub mod denials;
pub mod meters;
pub mod neighbors;
pub mod stations;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::probe::cells::Cells;
use affinity::Affinity;
use connections::Connections;
use denials::Denials;
use meters::Meters;
use neighbors::Neighbors;
use stations::Stations;

/// Everything that packets write.
#[derive(Debug, Default)]
pub struct Live {
    /// Validity of cached decisions.
    pub cells: Cells,
    /// Learned Ethernet addresses.
    pub stations: Stations,
    /// Tracked connections.
    pub connections: Connections,
    /// Clients of services with session affinity.
    pub affinity: Affinity,
    /// Learned neighbours.
    pub neighbors: Neighbors,
    /// How often the switch may speak for itself.
    pub meters: Meters,
    /// What policies did not let through.
    pub denials: Denials,
    /// Connections are cut when policies do not let them through any more ([`Self::is_strict`]).
    pub strict: AtomicBool,
}

impl Live {
    /// From now on a TCP connection that is come upon in its middle must be one that either end might have opened: else
    /// what was cut would be taken up again by who was to be cut off from.
    pub fn be_strict(&self) {
        self.strict.store(true, Ordering::Relaxed);
    }

    /// Whether that is so. Set once, before there are packets: no decision needs to note it.
    pub fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed)
    }
}

/// The time, as the caller tells it: since an arbitrary start, never going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub Duration);

impl Now {
    /// Whole seconds.
    pub fn second(self) -> u32 {
        self.0.as_secs() as u32
    }

    /// Whole milliseconds, wrapping after 49 days.
    pub fn millis(self) -> u32 {
        self.0.as_millis() as u32
    }
}
