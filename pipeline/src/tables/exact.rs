//! Exact-match table: chunked copy-on-write, so that a clone shares what a change leaves alone.

use std::hash::Hash;

use crate::probe::cells::{Asked, TableName, Touched};
use crate::tables::chunks::Chunks;

/// Rows by key.
#[derive(Clone, Debug)]
pub struct Exact<K, V> {
    name: TableName,
    rows: Chunks<K, V>,
}

impl<K: Copy + Eq + Hash, V: Clone> Exact<K, V> {
    /// An empty table. `name` keeps its questions apart from those to other tables.
    pub fn new(name: &'static str) -> Self {
        Self { name: TableName::new(name), rows: Chunks::new() }
    }

    /// An empty table whose changes leave decisions for known connections alone, see [`TableName::volatile`].
    pub fn volatile(name: &'static str) -> Self {
        Self { name: TableName::volatile(name), ..Self::new(name) }
    }

    /// The row of a key. That it was asked for is noted, found or not.
    pub fn get(&self, key: K, asked: &mut Asked<'_>) -> Option<&V> {
        let hash = asked.hash(key);
        asked.note_hashed(self.name, hash);
        self.rows.get(hash, &key)
    }

    /// The hash of a key, for [`Self::prefetch`] and [`Self::peek_hashed`].
    #[inline]
    pub fn hash(&self, key: &K) -> u64 {
        self.rows.hash(key)
    }

    /// The row of a key of this hash will be asked for soon.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.rows.prefetch(hash);
    }

    /// The row of a key, for those who program the table: no packet may depend on it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.rows.get(self.rows.hash(key), key)
    }

    /// As [`Self::peek`], of a key that was hashed by [`Self::hash`].
    pub fn peek_hashed(&self, hash: u64, key: &K) -> Option<&V> {
        self.rows.get(hash, key)
    }

    /// Put a row in, or take it out.
    pub fn set(&mut self, key: K, row: Option<V>, touched: &mut Touched<'_>) {
        touched.touch(self.name, key);
        self.rows.set(key, row);
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::cells::Cells;

    #[test]
    fn what_was_asked_is_noted_whether_or_not_it_was_found() {
        let cells = Cells::default();
        let mut table: Exact<u32, u32> = Exact::new("test");
        let mut asked = Asked::new(&cells);
        assert_eq!(table.get(5, &mut asked), None);
        let made = cells.now();
        assert!(cells.unchanged_since(&asked.deps(false).cells(), made));
        cells.change(|touched| table.set(5, Some(1), touched));
        assert!(!cells.unchanged_since(&asked.deps(false).cells(), made));
    }
}
