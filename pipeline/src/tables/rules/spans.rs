//! Values on a line, cut into intervals of which all values match the same rules.

use super::{Build, Row, Sets};

/// A value of a dimension that is a line.
pub trait Point: Copy + Ord {
    /// The first of all.
    const FIRST: Self;
    /// The one behind it; `None` behind the last.
    fn next(self) -> Option<Self>;
}

macro_rules! points {
    ($($number:ty),*) => {
        $(impl Point for $number {
            const FIRST: Self = 0;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}

points!(u16, u32, u128);

/// Rows by interval.
#[derive(Debug)]
pub struct Spans<K> {
    /// Where intervals begin, the first at the first value of all. Interval `i` has row `i`.
    starts: Box<[K]>,
    sets: Sets,
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
        Self { starts: starts.into(), sets: build.finish() }
    }

    /// The rules that match a value.
    #[inline]
    pub fn row(&self, value: K) -> Row<'_> {
        // The standard library's search takes no branch on what it compares.
        let behind = self.starts.partition_point(|start| *start <= value);
        self.sets.row(behind.saturating_sub(1) as u32)
    }

    /// Intervals.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// There is no interval: never so.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        size_of_val(&*self.starts) + self.sets.octets()
    }
}
