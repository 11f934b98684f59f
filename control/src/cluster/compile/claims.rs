//! Nouns of one kind: who wants which, and what the switch was told of them.
//!
//! Several objects may want the same key (two services with one address, a pod with the address of the gateway). The
//! first claimant in the order of `C` has it, the others wait: so what the switch has follows from the objects alone,
//! never from the order in which they came. A claim costs its own keys, whatever else the table holds.
//!
//! ```text
//!   set(claimant, nouns) ─→ claims ─→ touched keys ─ settle() ─→ deltas; told = what counts now
//!                                         ↑ undo() when the switch refused: told as before, touched again
//! ```

use std::collections::{BTreeMap, BTreeSet};

use api::Delta;

/// Claims on nouns `T` with keys `K`, by claimants `C`.
#[derive(Clone, Debug)]
pub(crate) struct Claims<K, C, T> {
    /// Claims on each key, in the order of their claimants; never an empty list.
    claims: BTreeMap<K, Vec<(C, T)>>,
    /// The keys that each claimant claims.
    keys: BTreeMap<C, Vec<K>>,
    /// What the switch has.
    told: BTreeMap<K, T>,
    /// Keys where `told` may differ from what counts.
    touched: BTreeSet<K>,
}

impl<K, C, T> Default for Claims<K, C, T> {
    fn default() -> Self {
        Self { claims: BTreeMap::new(), keys: BTreeMap::new(), told: BTreeMap::new(), touched: BTreeSet::new() }
    }
}

impl<K: Ord + Copy, C: Ord + Clone, T: Clone + PartialEq> Claims<K, C, T> {
    /// From now on a claimant claims these and nothing else. Of two with one key the first counts.
    pub(crate) fn set(&mut self, claimant: &C, nouns: impl IntoIterator<Item = (K, T)>) {
        let mut wanted = BTreeMap::new();
        for (key, noun) in nouns {
            wanted.entry(key).or_insert(noun);
        }
        let keys: Vec<K> = wanted.keys().copied().collect();
        let before =
            if keys.is_empty() { self.keys.remove(claimant) } else { self.keys.insert(claimant.clone(), keys) };
        for key in before.unwrap_or_default().into_iter().filter(|key| !wanted.contains_key(key)) {
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|(other, _)| other != claimant);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
            self.touched.insert(key);
        }
        for (key, noun) in wanted {
            let claims = self.claims.entry(key).or_default();
            match claims.binary_search_by(|(other, _)| other.cmp(claimant)) {
                Ok(at) if claims.get(at).is_some_and(|(_, before)| *before == noun) => continue,
                Ok(at) => {
                    if let Some(claim) = claims.get_mut(at) {
                        claim.1 = noun;
                    }
                }
                Err(at) => claims.insert(at, (claimant.clone(), noun)),
            }
            self.touched.insert(key);
        }
    }

    /// Bring what the switch was told up to what counts. Returns what it must be told for that, by key.
    pub(crate) fn settle(&mut self) -> Vec<Delta<T>> {
        let mut deltas = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let new = self.claims.get(&key).and_then(|claims| claims.first()).map(|(_, noun)| noun);
            if self.told.get(&key) == new {
                continue;
            }
            let new = new.cloned();
            let old = match &new {
                Some(noun) => self.told.insert(key, noun.clone()),
                None => self.told.remove(&key),
            };
            deltas.push(Delta { old, new });
        }
        deltas
    }

    /// Take from the switch what is doomed, whoever claims it. Until its claims are set anew, nothing must be settled.
    pub(crate) fn release(&mut self, doomed: impl Fn(&T) -> bool) -> Vec<Delta<T>> {
        let keys: Vec<K> = self.told.iter().filter(|(_, noun)| doomed(noun)).map(|(key, _)| *key).collect();
        self.touched.extend(&keys);
        keys.iter().filter_map(|key| self.told.remove(key)).map(Delta::remove).collect()
    }

    /// Tell the switch something else of a key for a while: until the key's claims are settled.
    pub(crate) fn tell(&mut self, key: K, noun: T) -> Option<Delta<T>> {
        let old = self.told.get_mut(&key)?;
        self.touched.insert(key);
        Some(Delta::replace(std::mem::replace(old, noun.clone()), noun))
    }

    /// Tell the switch of a key that it has nothing of, for a while: until the key's claims are settled. `None` when it has
    /// something.
    pub(crate) fn tell_early(&mut self, key: K, noun: T) -> Option<Delta<T>> {
        if self.told.contains_key(&key) {
            return None;
        }
        self.touched.insert(key);
        self.told.insert(key, noun.clone());
        Some(Delta::add(noun))
    }

    /// The switch refused a delta: it has `old`.
    pub(crate) fn undo(&mut self, key: K, old: Option<T>) {
        match old {
            Some(noun) => self.told.insert(key, noun),
            None => self.told.remove(&key),
        };
        self.touched.insert(key);
    }

    /// What the switch has.
    pub(crate) fn told(&self) -> &BTreeMap<K, T> {
        &self.told
    }

    /// The switch has nothing, and shall have nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.told.is_empty() && self.touched.is_empty()
    }

    /// Keys that are not settled yet.
    pub(crate) fn touched(&self) -> &BTreeSet<K> {
        &self.touched
    }

    /// Who has a key, and who waits for it.
    pub(crate) fn claimants(&self, key: &K) -> impl Iterator<Item = &C> {
        self.claims.get(key).into_iter().flatten().map(|(claimant, _)| claimant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deltas(claims: &mut Claims<u8, &'static str, char>) -> Vec<(Option<char>, Option<char>)> {
        claims.settle().into_iter().map(|delta| (delta.old, delta.new)).collect()
    }

    #[test]
    fn the_first_claimant_has_a_key_and_the_next_inherits_it() {
        let mut claims = Claims::default();
        claims.set(&"second", [(1, 'b'), (2, 'b')]);
        assert_eq!(deltas(&mut claims), [(None, Some('b')), (None, Some('b'))]);
        claims.set(&"first", [(1, 'a')]);
        assert_eq!(deltas(&mut claims), [(Some('b'), Some('a'))]);
        assert_eq!(claims.claimants(&1).collect::<Vec<_>>(), [&"first", &"second"]);
        claims.set(&"first", []);
        assert_eq!(deltas(&mut claims), [(Some('a'), Some('b'))]);
        claims.set(&"second", [(2, 'b')]);
        assert_eq!(deltas(&mut claims), [(Some('b'), None)]);
        claims.set(&"second", [(2, 'b'), (2, 'c')]);
        assert_eq!(deltas(&mut claims), [], "the same as before");
    }

    #[test]
    fn what_was_refused_is_told_again() {
        let mut claims = Claims::default();
        claims.set(&"one", [(1, 'a')]);
        assert_eq!(deltas(&mut claims), [(None, Some('a'))]);
        claims.undo(1, None);
        assert_eq!(deltas(&mut claims), [(None, Some('a'))]);
        assert_eq!(claims.release(|noun| *noun == 'a'), [Delta::remove('a')]);
        claims.undo(1, Some('a'));
        assert_eq!(deltas(&mut claims), [], "it is as it was");
    }
}
