//! Values on a line, cut into intervals of which all values match the same rules.

use super::{Build, Row, Sets};

/// A value of a dimension that is a line.
pub trait Point: Copy + Ord {
    /// The first of all.
    const FIRST: Self;
    /// The last of all.
    const LAST: Self;
    /// The one behind it; `None` behind the last.
    fn next(self) -> Option<Self>;
}

macro_rules! points {
    ($($number:ty),*) => {
        $(impl Point for $number {
            const FIRST: Self = 0;
            const LAST: Self = <$number>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}

points!(u16, u32, u128);

/// Keys that are compared at once.
const KEYS: usize = 16;

/// Some keys side by side; of 32 bits they are a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node<K>([K; KEYS]);

/// Rows by interval.
///
/// Where intervals begin is kept as a tree without pointers: the lowest level has all of them in order, each higher one the
/// first of every node of the one below. A search compares one node a level, without a branch on what it finds.
#[derive(Debug)]
pub struct Spans<K> {
    /// The highest level first. Unused places have the last of all keys.
    levels: Box<[Box<[Node<K>]>]>,
    /// Interval `i` has row `i`; the first begins at the first value of all.
    len: usize,
    sets: Sets,
}

/// The levels of sorted keys, the highest first.
fn levels<K: Point>(keys: &[K]) -> Box<[Box<[Node<K>]>]> {
    let (mut levels, mut keys) = (Vec::new(), keys.to_vec());
    loop {
        let nodes: Box<[Node<K>]> = keys
            .chunks(KEYS)
            .map(|part| {
                let mut node = Node([K::LAST; KEYS]);
                node.0.iter_mut().zip(part).for_each(|(place, key)| *place = *key);
                node
            })
            .collect();
        let done = nodes.len() <= 1;
        keys = keys.iter().step_by(KEYS).copied().collect();
        levels.push(nodes);
        if done {
            levels.reverse();
            return levels.into();
        }
    }
}

impl<K: Point> Spans<K> {
    /// For a list of so many rules: first and last value, and the number of the rule that matches them and all between. A rule
    /// may have several ranges, which may overlap; without any it matches nothing.
    pub fn new(rules: usize, ranges: impl IntoIterator<Item = (K, K, usize)>) -> Self {
        let mut ends: Vec<(K, usize, bool)> = Vec::new();
        for (first, last, rule) in ranges {
            if first <= last && rule < rules {
                ends.push((first, rule, true));
                ends.extend(last.next().map(|behind| (behind, rule, false)));
            }
        }
        ends.sort_unstable();
        let mut build = Build::new(rules);
        // How many ranges of each rule cover the place where the sweep is.
        let mut covered = vec![0u32; rules];
        let mut starts = Vec::new();
        let mut ends = ends.into_iter().peekable();
        let mut at = Some(K::FIRST);
        while let Some(start) = at {
            while let Some((_, rule, begins)) = ends.next_if(|(end, ..)| *end == start) {
                let Some(ranges) = covered.get_mut(rule) else { continue };
                *ranges = if begins { *ranges + 1 } else { ranges.saturating_sub(1) };
                build.put(rule, *ranges != 0);
            }
            build.push();
            if build.repeats() {
                build.pop();
            } else {
                starts.push(start);
            }
            at = ends.peek().map(|(end, ..)| *end);
        }
        Self { levels: levels(&starts), len: starts.len(), sets: build.finish() }
    }

    /// The rules that match a value.
    #[inline]
    pub fn row(&self, value: K) -> Row<'_> {
        let mut at = 0;
        for level in &self.levels {
            // Beyond the last node is what was led there by an unused place.
            at = at.min(level.len().saturating_sub(1));
            let Some(node) = level.get(at) else { break };
            let below: u32 = node.0.iter().map(|key| u32::from(*key <= value)).sum();
            // The first key of a node is never beyond what was looked for in the one above.
            at = at * KEYS + (below as usize).saturating_sub(1);
        }
        self.sets.row(at.min(self.len.saturating_sub(1)) as u32)
    }

    /// Intervals.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is no interval: never so.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(&**level)).sum::<usize>() + self.sets.octets()
    }
}
