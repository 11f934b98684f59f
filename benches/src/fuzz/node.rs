//! The target `node`: octets become a history of a node with services, masquerade and two IP versions, which the pipeline's
//! own test bench plays as it does for the target `path`. What a hit makes of a frame is what a fresh walk makes of it,
//! octet for octet; every frame is given back; what the pipeline compares by itself agrees.

use super::path::kit::history::{beginning_of_a_node, play};
use super::path::kit::script::Octets;

/// Events of one history at most: beyond, an input is only longer.
const EVENTS: usize = 96;

/// The input is a history; the outcome is what happened how often, by powers of two.
pub(super) fn node(input: &[u8]) -> u64 {
    let mut octets = Octets(input);
    let first = octets.next();
    let workers = 1 + usize::from(first & 1);
    let entries = if first & 6 == 0 { 8 } else { 4096 };
    let generation = if first & 8 != 0 { u32::MAX - u32::from(first >> 4) * 4 } else { 1 };
    let events = std::iter::from_fn(|| (!octets.0.is_empty()).then(|| octets.event()));
    let bench = play(workers, entries, generation, beginning_of_a_node(), events.take(EVENTS));
    super::targets::outcome(bench.events().into_iter().map(|(name, count)| (name, count.ilog2())).collect::<Vec<_>>())
}
