//! Ordered rules: which is the first that matches? The answer costs about the same whatever the rules are.
//!
//! Rules are numbered in their order, and 512 of them are a *group*. Each fact of a packet that rules look at is a
//! *dimension*: its values fall into classes of which all values match the same rules (intervals of addresses or of ports), and
//! a class has a *row*: for each group the set of its rules that this class matches, one bit a rule. A question is one search a
//! dimension, and then an AND of the rows: first of the words that say in which groups a row has any rule, then, group by
//! group, of one line a dimension. The first bit that is left is the first rule.
//!
//! ```text
//!                       group 0                 group 1                 rules 0 to 511, 512 to 1023
//!   src 10.1.2.3    ─▶  0 0 1 1 0 … ┐           nothing
//!   dst 10.9.9.9    ─▶  0 1 1 0 0 … ┴ AND ─▶ 2
//! ```
//!
//! Within a group the rules of a dimension have at most 1,024 ends, hence at most 1,025 sets, each kept once: so memory is
//! bounded by (rules / 512) · 1,025 · 64 octets a dimension beside four octets for each class and group, and time by the
//! number of groups. A decision tree would ask less of kind rules, but rules can be chosen that make it grow without bounds;
//! a hash table for each combination of masks (tuple space search) is slowed down by whoever may add rules.

pub mod addresses;
mod sets;
mod spans;
#[cfg(test)]
mod tests;

pub use addresses::Addresses;
pub use sets::{Build, Row, Set, Sets};
pub use spans::{Point, Spans};

/// Rules to a group: what a cache line has bits for.
pub const GROUP: usize = 512;
/// Groups to a word of masks.
const WORD: usize = 64;

/// Some rules of a list, told group by group.
pub trait Which {
    /// The groups of this word (64 to a word, the lowest bit first) in which there may be any; `None` behind the last word.
    fn groups(&self, word: usize) -> Option<u64>;
    /// Those of a group.
    fn set(&self, group: usize) -> Set;
    /// Those of a group will be asked for soon.
    fn ahead(&self, _group: usize) {}
}

/// Rules that both have.
impl<A: Which, B: Which> Which for (A, B) {
    #[inline]
    fn groups(&self, word: usize) -> Option<u64> {
        Some(self.0.groups(word)? & self.1.groups(word)?)
    }

    #[inline]
    fn set(&self, group: usize) -> Set {
        self.0.set(group).and(&self.1.set(group))
    }

    #[inline]
    fn ahead(&self, group: usize) {
        self.0.ahead(group);
        self.1.ahead(group);
    }
}

/// Rules that any of these has. Each group is united when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Any<'a, W>(pub &'a [W]);

impl<W: Which> Which for Any<'_, W> {
    #[inline]
    fn groups(&self, word: usize) -> Option<u64> {
        self.0.iter().filter_map(|which| which.groups(word)).reduce(|all, groups| all | groups)
    }

    #[inline]
    fn set(&self, group: usize) -> Set {
        self.0.iter().fold(Set::EMPTY, |all, which| all.or(&which.set(group)))
    }

    #[inline]
    fn ahead(&self, group: usize) {
        self.0.iter().for_each(|which| which.ahead(group));
    }
}

/// The first of these rules, of those with the number `from` or a higher one.
#[inline]
pub fn first(which: &impl Which, from: usize) -> Option<usize> {
    let start = from / GROUP;
    let mut word = start / WORD;
    let mut left = which.groups(word)? & u64::MAX << (start % WORD);
    loop {
        // All lines of a word of groups are asked for at once: waited for one by one they would take thrice as long.
        let mut soon = left;
        while soon != 0 {
            which.ahead(word * WORD + soon.trailing_zeros() as usize);
            soon &= soon - 1;
        }
        while left != 0 {
            let group = word * WORD + left.trailing_zeros() as usize;
            left &= left - 1;
            let base = group * GROUP;
            if let Some(rule) = which.set(group).first(from.saturating_sub(base)) {
                return Some(base + rule);
            }
        }
        word += 1;
        left = which.groups(word)?;
    }
}
