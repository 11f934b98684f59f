//! The trail: what a hit must account to, though it walks past it (FASTPATH 5).
//!
//! A decision relies on facts that live by being used: a learned station ages unless frames come from it. The entry
//! keeps a word that names them; the sweep reads the word of each entry that was used and tells them so.

use api::BridgeId;

use crate::live::denials;
use crate::live::stations::Slot;
use crate::live::{Live, Now};

/// Stations that one lock of a bridge's table refreshes.
const BATCH: usize = 64;

/// One fact to account to. Packed into a word; 0 is none. A decision of today's stages relies on one such fact at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trail {
    /// Nothing.
    #[default]
    None,
    /// The sender's station, in the bridge of the ingress port.
    Station(Slot),
    /// What denied it, which counts the frames that it drops.
    Denial(denials::Slot),
}

/// In the word: it is a denial's.
const DENIAL: u32 = 1 << 31;

impl Trail {
    /// As kept in an entry.
    pub fn pack(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Station(Slot(slot)) => slot + 1,
            Self::Denial(denials::Slot(slot)) => DENIAL | slot & !DENIAL,
        }
    }

    /// As it was packed.
    pub fn unpack(word: u32) -> Self {
        match word {
            0 => Self::None,
            word if word & DENIAL != 0 => Self::Denial(denials::Slot(word & !DENIAL)),
            word => Self::Station(Slot(word - 1)),
        }
    }
}

/// Collects what swept entries account to, so that a lock serves many.
#[derive(Debug)]
pub struct Accounts {
    bridge: BridgeId,
    slots: Vec<Slot>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { bridge: BridgeId::default(), slots: Vec::with_capacity(BATCH) }
    }
}

impl Accounts {
    /// An entry with this trail was used.
    pub fn used(&mut self, bridge: BridgeId, trail: u32, live: &Live, now: Now) {
        let Trail::Station(slot) = Trail::unpack(trail) else { return };
        if bridge != self.bridge || self.slots.len() == BATCH {
            self.settle(live, now);
            self.bridge = bridge;
        }
        self.slots.push(slot);
    }

    /// Pass on what was collected.
    pub fn settle(&mut self, live: &Live, now: Now) {
        if !self.slots.is_empty() {
            live.stations.refresh(self.bridge, &self.slots, now);
            self.slots.clear();
        }
    }
}
