//! Exact-match table: chunked copy-on-write, so that a clone shares what a change leaves alone.
//!
//! The root is an array of `Arc<Chunk>`; a key's hash names its chunk. A change to a cloned table copies the chunks it
//! writes to (some thirty rows each) and nothing else.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use crate::probe::cells::{Asked, TableName, Touched};

/// Rows of a chunk, on average, before the table doubles its chunks.
const FILL: usize = 32;

type Chunk<K, V> = HashMap<K, V, RandomState>;

/// Rows by key.
#[derive(Clone, Debug)]
pub struct Exact<K, V> {
    name: TableName,
    hasher: RandomState,
    /// A power of two.
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Exact<K, V> {
    /// An empty table. `name` keeps its questions apart from those to other tables.
    pub fn new(name: &'static str) -> Self {
        let hasher = RandomState::new();
        let chunks = vec![Arc::new(Chunk::with_hasher(hasher.clone()))];
        Self { name: TableName::new(name), hasher, chunks, len: 0 }
    }

    /// An empty table whose changes leave decisions for known connections alone, see [`TableName::volatile`].
    pub fn volatile(name: &'static str) -> Self {
        Self { name: TableName::volatile(name), ..Self::new(name) }
    }

    fn chunk_of(&self, key: &K) -> usize {
        // The high half chooses the chunk; the map inside uses the rest.
        (self.hasher.hash_one(key) >> 32) as usize & (self.chunks.len() - 1)
    }

    /// The row of a key. That it was asked for is noted, found or not.
    pub fn get(&self, key: K, asked: &mut Asked<'_>) -> Option<&V> {
        asked.note(self.name, key);
        self.peek(&key)
    }

    /// The row of a key, for those who program the table: no packet may depend on it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.chunks.get(self.chunk_of(key))?.get(key)
    }

    /// Put a row in, or take it out.
    pub fn set(&mut self, key: K, row: Option<V>, touched: &mut Touched<'_>) {
        touched.touch(self.name, key);
        let at = self.chunk_of(&key);
        let Some(chunk) = self.chunks.get_mut(at).map(Arc::make_mut) else { return };
        match row {
            Some(row) => self.len += usize::from(chunk.insert(key, row).is_none()),
            None => self.len -= usize::from(chunk.remove(&key).is_some()),
        }
        if self.len > FILL * self.chunks.len() {
            self.double();
        }
    }

    fn double(&mut self) {
        let wider = self.chunks.len() * 2;
        let mut chunks = vec![Chunk::with_hasher(self.hasher.clone()); wider];
        for (key, row) in self.iter() {
            let at = (self.hasher.hash_one(key) >> 32) as usize & (wider - 1);
            if let Some(chunk) = chunks.get_mut(at) {
                chunk.insert(*key, row.clone());
            }
        }
        self.chunks = chunks.into_iter().map(Arc::new).collect();
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::cells::Cells;

    #[test]
    fn a_clone_keeps_its_rows_when_the_original_changes() {
        let cells = Cells::default();
        let mut table = Exact::new("test");
        cells.change(|touched| (0..1000u32).for_each(|i| table.set(i, Some(i * 2), touched)));
        let before = table.clone();
        cells.change(|touched| {
            table.set(7, None, touched);
            table.set(8, Some(0), touched);
        });
        assert_eq!((before.peek(&7), before.peek(&8), before.len()), (Some(&14), Some(&16), 1000));
        assert_eq!((table.peek(&7), table.peek(&8), table.len()), (None, Some(&0), 999));
        assert_eq!(before.iter().count(), 1000);
        let shared = before.chunks.iter().zip(&table.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= table.chunks.len() - 2, "a change copied more than the chunks it wrote");
    }

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
