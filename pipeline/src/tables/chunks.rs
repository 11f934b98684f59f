//! Rows in chunks, copy-on-write: a clone shares what a change leaves alone.
//!
//! ```text
//!   root ── groups, each shared ── 64 chunks, each shared ── places, some thirty of which have rows
//! ```
//!
//! A key's hash names its group, its chunk, and the place in it where the row is looked for first. A clone shares the groups; a
//! change to it copies one group and one chunk: with a hundred thousand rows, a few hundred references and rows. Rows lie
//! in the chunk itself, so that a look-up costs one line of memory beside the root, and so that this line can be asked for
//! beforehand ([`Chunks::prefetch`]). Nobody's questions are noted here: that is for the tables which are made of this.

use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use crate::probe::cells::hasher;
use crate::raw::prefetch;

/// Rows of a chunk, on average, before the chunks are doubled.
const FILL: usize = 32;
/// Chunks of a group.
const GROUP: usize = 64;
/// Places of the smallest chunk.
const PLACES: usize = 8;

/// Places, a power of two of them, at most three quarters taken. A row is at the place that its hash names, or behind it
/// with no free place in between; behind the last place comes the first.
type Chunk<K, V> = [Option<(K, V)>];

type Group<K, V> = Vec<Arc<Chunk<K, V>>>;

/// Rows by key.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<K, V> {
    /// That of the cells: who notes a question and asks it hashes once.
    hasher: RandomState,
    /// All but the last one, of which there is always one, are full; all their chunks together are a power of two.
    groups: Vec<Arc<Group<K, V>>>,
    /// That power of two.
    chunks: usize,
    len: usize,
}

/// The number of the chunk of a hash, of so many.
#[inline]
fn at(hash: u64, chunks: usize) -> usize {
    (hash >> 32) as usize & (chunks - 1)
}

/// So many free places.
fn free<K: Clone, V: Clone>(places: usize) -> Arc<Chunk<K, V>> {
    std::iter::repeat_with(|| None).take(places).collect()
}

/// The places at which a row of this hash may be, in order.
fn places(hash: u64, places: usize) -> impl Iterator<Item = usize> {
    (0..places).map(move |i| (hash as usize).wrapping_add(i) & (places - 1))
}

/// Where a key is, or else the free place where it belongs.
fn find<K: Eq, V>(chunk: &Chunk<K, V>, hash: u64, key: &K) -> Option<(usize, bool)> {
    places(hash, chunk.len()).find_map(|at| match chunk.get(at)? {
        Some((other, _)) if other != key => None,
        place => Some((at, place.is_some())),
    })
}

impl<K: Copy + Eq + Hash, V: Clone> Chunks<K, V> {
    /// No rows.
    pub(crate) fn new() -> Self {
        Self { hasher: hasher().clone(), groups: vec![Arc::new(vec![free(PLACES)])], chunks: 1, len: 0 }
    }

    /// The hash of a key, the same that [`crate::probe::cells::Asked::hash`] gives.
    pub(crate) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The chunk of a hash. The high half chooses it; the low half the place in it.
    #[inline]
    fn chunk(&self, hash: u64) -> Option<&Chunk<K, V>> {
        let at = at(hash, self.chunks);
        self.groups.get(at / GROUP)?.get(at % GROUP).map(AsRef::as_ref)
    }

    /// The row of a key with this hash.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        let chunk = self.chunk(hash)?;
        let (at, _) = find(chunk, hash, key)?;
        chunk.get(at)?.as_ref().map(|(_, row)| row)
    }

    /// A key of this hash will be asked for soon.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let Some(chunk) = self.chunk(hash) else { return };
        if let Some(place) = chunk.get(hash as usize & (chunk.len() - 1)) {
            let first = std::ptr::from_ref(place).cast::<u8>();
            prefetch(first);
            prefetch(first.wrapping_add(size_of_val(place) - 1));
        }
    }

    /// Put a row in, or take it out. Returns the one that was there.
    pub(crate) fn set(&mut self, key: K, row: Option<V>) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let (at, hasher) = (at(hash, self.chunks), &self.hasher);
        let found = find(self.chunk(hash)?, hash, &key)?;
        if let ((_, false), None) = (found, &row) {
            return None;
        }
        let chunk = Arc::make_mut(self.groups.get_mut(at / GROUP)?).get_mut(at % GROUP)?;
        let old = match (found, row) {
            ((_, false), None) => None,
            ((place, true), Some(row)) => {
                let old = Arc::make_mut(chunk).get_mut(place)?.as_mut()?;
                return Some(std::mem::replace(&mut old.1, row));
            }
            ((place, false), Some(row)) => {
                *Arc::make_mut(chunk).get_mut(place)? = Some((key, row));
                self.len += 1;
                if chunk.iter().flatten().count() * 4 > chunk.len() * 3 {
                    *chunk = laid_out(chunk.iter().flatten(), chunk.len() * 2, hasher);
                }
                None
            }
            // What stood behind it may stand too far behind now: all are laid out anew.
            ((place, true), None) => {
                let old = chunk.get(place)?.as_ref().map(|(_, row)| row.clone());
                *chunk = laid_out(chunk.iter().flatten().filter(|(other, _)| *other != key), chunk.len(), hasher);
                self.len -= 1;
                old
            }
        };
        if self.len > FILL * self.chunks {
            self.double();
        }
        old
    }

    fn double(&mut self) {
        let wider = self.chunks * 2;
        let mut rows: Vec<Vec<&(K, V)>> = vec![Vec::new(); wider];
        for row in self.rows() {
            if let Some(of_chunk) = rows.get_mut(at(self.hasher.hash_one(row.0), wider)) {
                of_chunk.push(row);
            }
        }
        let chunk = |rows: Vec<&(K, V)>| {
            let places = (rows.len() * 4 / 3 + 1).next_power_of_two().max(PLACES);
            laid_out(rows.into_iter(), places, &self.hasher)
        };
        let mut chunks = rows.into_iter().map(chunk);
        let groups = (0..wider.div_ceil(GROUP)).map(|_| Arc::new(chunks.by_ref().take(GROUP).collect()));
        self.groups = groups.collect();
        self.chunks = wider;
    }

    fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk<K, V>>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    fn rows(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks().flat_map(|chunk| chunk.iter().flatten())
    }

    /// All rows, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows().map(|(key, row)| (key, row))
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// A chunk of so many places with these rows, fewer than that.
fn laid_out<'a, K, V>(rows: impl Iterator<Item = &'a (K, V)>, places: usize, hasher: &RandomState) -> Arc<Chunk<K, V>>
where
    K: Copy + Eq + Hash + 'a,
    V: Clone + 'a,
{
    let mut chunk: Vec<Option<(K, V)>> = vec![None; places];
    for (key, row) in rows {
        if let Some((at, false)) = find(&chunk, hasher.hash_one(key), key)
            && let Some(place) = chunk.get_mut(at)
        {
            *place = Some((*key, row.clone()));
        }
    }
    chunk.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn get<V: Clone>(table: &Chunks<u32, V>, key: u32) -> Option<&V> {
        table.get(table.hash(&key), &key)
    }

    #[test]
    fn a_clone_keeps_its_rows_when_the_original_changes() {
        let mut table = Chunks::new();
        (0..1000u32).for_each(|i| _ = table.set(i, Some(i * 2)));
        let before = table.clone();
        assert_eq!((table.set(7, None), table.set(8, Some(0)), table.set(5000, None)), (Some(14), Some(16), None));
        assert_eq!((get(&before, 7), get(&before, 8), before.len()), (Some(&14), Some(&16), 1000));
        assert_eq!((get(&table, 7), get(&table, 8), table.len()), (None, Some(&0), 999));
        assert_eq!(before.iter().count(), 1000);
        let shared = before.chunks().zip(table.chunks()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= table.chunks - 3, "a change copied more than the chunks it wrote");
    }

    #[test]
    fn no_chunk_is_full_and_most_are_small() {
        let mut table = Chunks::new();
        (0..100_000u32).for_each(|i| _ = table.set(i, Some(())));
        assert!(table.chunks().all(|chunk| chunk.iter().any(Option::is_none)));
        let places: usize = table.chunks().map(|chunk| chunk.len()).sum();
        assert!(places < 4 * table.len(), "{places} places");
    }

    proptest! {
        #[test]
        fn it_has_what_a_hash_map_would_have(steps in prop::collection::vec((0u32..300, prop::option::of(0u8..4)), 1..800)) {
            let (mut table, mut model) = (Chunks::new(), HashMap::new());
            for (key, row) in steps {
                let old = match row {
                    Some(row) => model.insert(key, row),
                    None => model.remove(&key),
                };
                prop_assert_eq!(table.set(key, row), old);
                prop_assert_eq!(table.len(), model.len());
            }
            for key in 0..300 {
                prop_assert_eq!(get(&table, key), model.get(&key));
            }
            prop_assert_eq!(table.iter().map(|(key, row)| (*key, *row)).collect::<HashMap<_, _>>(), model);
        }
    }
}
