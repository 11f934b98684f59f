//! The answer to `verify`: that the live tables do what the cluster's state says, or where they do not.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Answer to `verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Pods that were looked at, attached here or not.
    pub pods: u64,
    /// Sets of ends that neither the objects nor the live tables tell apart: of pods, nodes and addresses beyond.
    pub classes: u64,
    /// Ordered pairs of classes that were proved.
    pub pairs: u64,
    /// Packets that were walked through the live program for it.
    pub probes: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// What was not looked at, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where the tables do not do what they should; it holds when there is none.
    pub counterexamples: Vec<CounterExample>,
    /// Counter-examples beside those, which are not told one by one.
    #[serde(default)]
    pub more: u64,
}

/// Something that the live tables do otherwise than the cluster's state says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CounterExample {
    /// The table where it shows: `endpoint`, `guard`, `policy`, `route`, `service`; `objects` when the state contradicts
    /// itself.
    pub table: String,
    /// What it is about: an address, a packet, a row.
    pub what: String,
    /// What the cluster's state says, and which object does.
    pub expected: String,
    /// What the live tables say.
    pub found: String,
}

impl Verified {
    /// The live tables do what the cluster's state says.
    pub fn holds(&self) -> bool {
        self.counterexamples.is_empty() && self.more == 0
    }
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, what, expected, found } = self;
        write!(f, "{table}: {what}: expected {expected}; found {found}")
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.holds() {
            self.counterexamples.iter().try_for_each(|example| writeln!(f, "{example}"))?;
            return if self.more == 0 { Ok(()) } else { writeln!(f, "and {} more", self.more) };
        }
        let (seconds, rest) = (self.milliseconds / 1000, self.milliseconds % 1000);
        writeln!(
            f,
            "holds: {} pods, {} classes, {} pairs, {} probes, {seconds}.{rest:03} s",
            self.pods, self.classes, self.pairs, self.probes
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
