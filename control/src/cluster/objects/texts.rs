//! One copy of each text: names and labels of a cluster are said thousands of times.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cluster::model::{Labels, Text};

/// Texts that are in use, and some that were.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    known: HashSet<Text, ahash::RandomState>,
    /// How many there may be before those that nobody uses are thrown away.
    limit: usize,
}

impl Texts {
    /// The shared copy of a text.
    pub(crate) fn of(&mut self, text: &str) -> Text {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.limit = self.known.len() * 2 + 1024;
        }
        let text: Text = text.into();
        self.known.insert(text.clone());
        text
    }

    /// A map, with shared copies of its keys and values.
    pub(crate) fn labels<K: AsRef<str>, V: AsRef<str>>(&mut self, map: impl IntoIterator<Item = (K, V)>) -> Labels {
        map.into_iter().map(|(key, value)| (self.of(key.as_ref()), self.of(value.as_ref()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_no_longer_than_it_is_used() {
        let mut texts = Texts::default();
        let kept = texts.of("node-1");
        assert!(Arc::ptr_eq(&kept, &texts.of("node-1")));
        for n in 0..10_000 {
            texts.of(&n.to_string());
        }
        assert!(texts.known.len() < 2_500, "{}", texts.known.len());
        assert!(Arc::ptr_eq(&kept, &texts.of("node-1")));
    }
}
