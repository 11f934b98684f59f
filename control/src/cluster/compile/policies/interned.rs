//! Numbers and shared lists for what many have in common.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// A number for each distinct thing, kept while somebody wants it.
///
/// A number that nobody wants any more is given away again only behind the next [`Self::recycle`]: never does it mean two
/// things in one transaction.
#[derive(Debug)]
pub(super) struct Interned<T> {
    /// With how many want it.
    numbers: HashMap<T, (u32, usize), ahash::RandomState>,
    next: u32,
    free: Vec<u32>,
    freed: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), next: 0, free: Vec::new(), freed: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    /// One more wants a thing. Returns its number, and whether it is new.
    pub(super) fn acquire(&mut self, thing: &T) -> (u32, bool) {
        if let Some((number, wanted)) = self.numbers.get_mut(thing) {
            *wanted += 1;
            return (*number, false);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.numbers.insert(thing.clone(), (number, 1));
        (number, true)
    }

    /// One less wants a thing. Returns its number if it was the last.
    pub(super) fn release(&mut self, thing: &T) -> Option<u32> {
        let (number, wanted) = self.numbers.get_mut(thing)?;
        *wanted -= 1;
        if *wanted > 0 {
            return None;
        }
        let number = *number;
        self.numbers.remove(thing);
        self.freed.push(number);
        Some(number)
    }

    /// Numbers that were freed may be used again from now on.
    pub(super) fn recycle(&mut self) {
        self.free.append(&mut self.freed);
    }

    /// The number of a thing that somebody wants.
    pub(super) fn get(&self, thing: &T) -> Option<u32> {
        self.numbers.get(thing).map(|(number, _)| *number)
    }
}

/// Lists of which many are equal, each kept once.
#[derive(Debug)]
pub(super) struct Shared<T> {
    lists: HashSet<Arc<[T]>, ahash::RandomState>,
    /// Those that nobody has any more are looked for when there are so many.
    limit: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { lists: HashSet::default(), limit: 64 }
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The list that is equal to this.
    pub(super) fn of(&mut self, list: Vec<T>) -> Arc<[T]> {
        if let Some(known) = self.lists.get(&list[..]) {
            return known.clone();
        }
        if self.lists.len() >= self.limit {
            self.lists.retain(|list| Arc::strong_count(list) > 1);
            self.limit = 64.max(2 * self.lists.len());
        }
        let list: Arc<[T]> = list.into();
        self.lists.insert(list.clone());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Interned<T> {
        /// The thing that has a number.
        pub(in super::super) fn thing(&self, number: u32) -> Option<&T> {
            self.numbers.iter().find(|(_, (its, _))| *its == number).map(|(thing, _)| thing)
        }
    }

    #[test]
    fn a_number_means_one_thing_until_the_transaction_is_through() {
        let mut numbers = Interned::default();
        assert_eq!(
            (numbers.acquire(&"a"), numbers.acquire(&"b"), numbers.acquire(&"a")),
            ((1, true), (2, true), (1, false))
        );
        assert_eq!((numbers.release(&"a"), numbers.release(&"a"), numbers.release(&"a")), (None, Some(1), None));
        assert_eq!(numbers.acquire(&"c"), (3, true), "1 was just freed");
        numbers.recycle();
        assert_eq!(numbers.acquire(&"d"), (1, true));
        assert_eq!((numbers.get(&"d"), numbers.get(&"a")), (Some(1), None));
    }

    #[test]
    fn equal_lists_are_one_and_those_of_nobody_go() {
        let mut shared = Shared::default();
        let one = shared.of(vec![1, 2]);
        assert!(Arc::ptr_eq(&one, &shared.of(vec![1, 2])));
        for n in 3..1000 {
            shared.of(vec![n]);
        }
        assert!(shared.lists.len() < 100 && shared.lists.contains(&one));
    }
}
