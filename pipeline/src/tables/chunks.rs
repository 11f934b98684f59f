//! Rows in chunks, copy-on-write: a clone shares what a change leaves alone.
//!
//! The root is an array of `Arc<Chunk>`; a key's hash names its chunk. A change to a cloned table copies the chunks it
//! writes to (some thirty rows each) and nothing else. Nobody's questions are noted here: that is for the tables which
//! are made of this.

use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

/// Rows of a chunk, on average, before the chunks are doubled.
const FILL: usize = 32;

type Chunk<K, V> = HashTable<(K, V)>;

/// Rows by key.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<K, V> {
    hasher: RandomState,
    /// A power of two.
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Chunks<K, V> {
    /// No rows.
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), chunks: vec![Arc::new(Chunk::new())], len: 0 }
    }

    /// The chunk of a hash. The high half chooses it; the table inside uses the rest.
    fn at(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.chunks.len() - 1)
    }

    /// The row of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        // Hashed once, for the chunk and for the place in it.
        let hash = self.hasher.hash_one(key);
        self.chunks.get(self.at(hash))?.find(hash, |(other, _)| other == key).map(|(_, row)| row)
    }

    /// Put a row in, or take it out. Returns the one that was there.
    pub(crate) fn set(&mut self, key: K, row: Option<V>) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let (at, hasher) = (self.at(hash), &self.hasher);
        let chunk = self.chunks.get_mut(at).map(Arc::make_mut)?;
        let old = match (chunk.find_entry(hash, |(other, _)| *other == key), row) {
            (Ok(mut place), Some(row)) => Some(std::mem::replace(&mut place.get_mut().1, row)),
            (Ok(place), None) => {
                self.len -= 1;
                Some(place.remove().0.1)
            }
            (Err(_), Some(row)) => {
                chunk.insert_unique(hash, (key, row), |(key, _)| hasher.hash_one(key));
                self.len += 1;
                None
            }
            (Err(_), None) => None,
        };
        if self.len > FILL * self.chunks.len() {
            self.double();
        }
        old
    }

    fn double(&mut self) {
        let wider = self.chunks.len() * 2;
        let mut chunks = vec![Chunk::new(); wider];
        for (key, row) in self.iter() {
            let hash = self.hasher.hash_one(key);
            if let Some(chunk) = chunks.get_mut((hash >> 32) as usize & (wider - 1)) {
                chunk.insert_unique(hash, (*key, row.clone()), |(key, _)| self.hasher.hash_one(key));
            }
        }
        self.chunks = chunks.into_iter().map(Arc::new).collect();
    }

    /// All rows, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, row)| (key, row)))
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_rows_when_the_original_changes() {
        let mut table = Chunks::new();
        (0..1000u32).for_each(|i| _ = table.set(i, Some(i * 2)));
        let before = table.clone();
        assert_eq!((table.set(7, None), table.set(8, Some(0)), table.set(5000, None)), (Some(14), Some(16), None));
        assert_eq!((before.get(&7), before.get(&8), before.len()), (Some(&14), Some(&16), 1000));
        assert_eq!((table.get(&7), table.get(&8), table.len()), (None, Some(&0), 999));
        assert_eq!(before.iter().count(), 1000);
        let shared = before.chunks.iter().zip(&table.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= table.chunks.len() - 3, "a change copied more than the chunks it wrote");
    }
}
