//! Numbers with a meaning: one newtype each, so that a port is never mistaken for a bridge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A port of the switch, dense from 1; 0 is no port. Indexes the workers' arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortId(pub u16);

/// A bridge of the switch, dense from 1; 0 is no bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BridgeId(pub u16);

/// The number of a committed transaction, or of a change that packets made (a learned address that moved).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl PortId {
    /// No port: what an unset field holds.
    pub const NONE: Self = Self(0);
    /// Ports a switch can have; the workers' arrays are this long.
    pub const LIMIT: usize = 4096;
    /// The switch's own host stack, which answers for gateways and service addresses. Made with the first router; no
    /// other port has this number.
    pub const STACK: Self = Self(4095);

    /// Position in an array of [`Self::LIMIT`] elements.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BridgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
