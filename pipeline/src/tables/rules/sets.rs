//! Sets of rules, and rows of them.

use std::collections::HashMap;

use ahash::RandomState;

use crate::raw::prefetch;

use super::{GROUP, WORD, Which};

/// Words of a set.
const WORDS: usize = GROUP / 64;

/// Which rules of a group: a bit for each, the first in the lowest bit of the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(align(64))]
pub struct Set([u64; WORDS]);

impl Set {
    /// No rule.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Rules of both.
    #[inline]
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
        self
    }

    /// Rules of either.
    #[inline]
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// There is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// The first rule from this place on.
    #[inline]
    pub fn first(&self, from: usize) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        (0..).step_by(64).zip(&self.0).find_map(|(base, word)| {
            let skip = from.saturating_sub(base);
            let left = if skip < 64 { word & u64::MAX << skip } else { 0 };
            (left != 0).then(|| base + left.trailing_zeros() as usize)
        })
    }

    /// Put the rule at a place in, or take it out.
    fn put(&mut self, place: usize, there: bool) {
        if let Some(word) = self.0.get_mut(place / 64) {
            let bit = 1 << (place % 64);
            *word = if there { *word | bit } else { *word & !bit };
        }
    }
}

/// Rows of one dimension: immutable, each distinct set kept once.
#[derive(Debug)]
pub struct Sets {
    sets: Box<[Set]>,
    /// For each row and group the number of a set.
    numbers: Box<[u32]>,
    /// For each row the groups in which its set is not empty, 64 to a word.
    masks: Box<[u64]>,
    groups: usize,
    words: usize,
}

impl Sets {
    /// A row, by the number that [`Build::push`] gave it.
    #[inline]
    pub fn row(&self, number: u32) -> Row<'_> {
        let number = number as usize;
        let part = |at: usize, len: usize| at * len..(at + 1) * len;
        Row {
            sets: &self.sets,
            numbers: self.numbers.get(part(number, self.groups)).unwrap_or(&[]),
            masks: self.masks.get(part(number, self.words)).unwrap_or(&[]),
        }
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.numbers) + size_of_val(&*self.masks)
    }
}

/// The rules that a class of values matches.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    sets: &'a [Set],
    numbers: &'a [u32],
    masks: &'a [u64],
}

impl Which for Row<'_> {
    #[inline]
    fn groups(&self, word: usize) -> Option<u64> {
        self.masks.get(word).copied()
    }

    #[inline]
    fn set(&self, group: usize) -> Set {
        let number = self.numbers.get(group).map_or(0, |number| *number as usize);
        self.sets.get(number).copied().unwrap_or(Set::EMPTY)
    }

    #[inline]
    fn ahead(&self, group: usize) {
        if let Some(set) = self.numbers.get(group).and_then(|number| self.sets.get(*number as usize)) {
            prefetch(set);
        }
    }
}

/// Builds [`Sets`] row by row: what the next row shall be is said by what is different from the one before.
#[derive(Debug)]
pub struct Build {
    /// The row as it is now, and the groups of it that are not numbered yet.
    row: Vec<Set>,
    dirty: Vec<usize>,
    numbered: Vec<u32>,
    mask: Vec<u64>,
    known: HashMap<Set, u32, RandomState>,
    sets: Vec<Set>,
    numbers: Vec<u32>,
    masks: Vec<u64>,
    rows: u32,
}

impl Build {
    /// For a list of so many rules; the row is empty.
    pub fn new(rules: usize) -> Self {
        let groups = rules.div_ceil(GROUP).max(1);
        Self {
            row: vec![Set::EMPTY; groups],
            dirty: Vec::new(),
            numbered: vec![0; groups],
            mask: vec![0; groups.div_ceil(WORD)],
            // No rule is set 0: what a row is asked for beyond its end.
            known: std::iter::once((Set::EMPTY, 0)).collect(),
            sets: vec![Set::EMPTY],
            numbers: Vec::new(),
            masks: Vec::new(),
            rows: 0,
        }
    }

    /// The row has this rule, or has it not.
    pub fn put(&mut self, rule: usize, there: bool) {
        let group = rule / GROUP;
        if let Some(set) = self.row.get_mut(group) {
            set.put(rule % GROUP, there);
            if !self.dirty.contains(&group) {
                self.dirty.push(group);
            }
        }
    }

    /// The row has no rule.
    pub fn clear(&mut self) {
        self.row.fill(Set::EMPTY);
        self.numbered.fill(0);
        self.mask.fill(0);
        self.dirty.clear();
    }

    /// Keep the row as it is now. Returns its number.
    pub fn push(&mut self) -> u32 {
        for group in self.dirty.drain(..) {
            let Some(set) = self.row.get(group) else { continue };
            let next = self.sets.len() as u32;
            let number = *self.known.entry(*set).or_insert(next);
            if number == next {
                self.sets.push(*set);
            }
            if let (Some(place), Some(word)) = (self.numbered.get_mut(group), self.mask.get_mut(group / WORD)) {
                let bit = 1 << (group % WORD);
                *place = number;
                *word = if number == 0 { *word & !bit } else { *word | bit };
            }
        }
        self.numbers.extend(&self.numbered);
        self.masks.extend(&self.mask);
        self.rows += 1;
        self.rows - 1
    }

    /// Keep a row of just these rules. Returns its number.
    pub fn row(&mut self, rules: impl IntoIterator<Item = usize>) -> u32 {
        self.clear();
        rules.into_iter().for_each(|rule| self.put(rule, true));
        self.push()
    }

    /// The last two rows that were kept are the same.
    pub(super) fn repeats(&self) -> bool {
        let mut rows = self.numbers.rchunks_exact(self.row.len());
        matches!((rows.next(), rows.next()), (Some(a), Some(b)) if a == b)
    }

    /// Forget the last row that was kept.
    pub(super) fn pop(&mut self) {
        self.numbers.truncate(self.numbers.len().saturating_sub(self.row.len()));
        self.masks.truncate(self.masks.len().saturating_sub(self.mask.len()));
        self.rows = self.rows.saturating_sub(1);
    }

    /// All rows that were kept.
    pub fn finish(self) -> Sets {
        Sets {
            sets: self.sets.into(),
            numbers: self.numbers.into(),
            masks: self.masks.into(),
            groups: self.row.len(),
            words: self.mask.len(),
        }
    }
}
