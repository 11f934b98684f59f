//! Policies, one row of the specification at a time: what the nouns say, evaluated in the plainest way.

use super::*;
use crate::cluster::model::{Requirement, Selector, Test};

/// `KEY=VALUE,…`
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(key, value)| (key.into(), value.into())).collect()
}

/// Requirements with commas between them: `KEY=VALUE`, `KEY in A|B`, `KEY notin A|B`, `KEY`, `!KEY`.
pub(crate) fn selector(text: &str) -> Selector {
    let list = |values: &str| {
        let mut values: Vec<Text> = values.split('|').map(Into::into).collect();
        values.sort();
        values
    };
    let requirement = |text: &str| {
        let (key, test) = if let Some((key, values)) = text.split_once(" in ") {
            (key, Test::In(list(values)))
        } else if let Some((key, values)) = text.split_once(" notin ") {
            (key, Test::NotIn(list(values)))
        } else if let Some((key, value)) = text.split_once('=') {
            (key, Test::In(vec![value.into()]))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Test::DoesNotExist)
        } else {
            (text, Test::Exists)
        };
        Requirement { key: key.into(), test }
    };
    let mut requirements: Vec<_> = text.split(',').filter(|text| !text.is_empty()).map(requirement).collect();
    requirements.sort();
    Selector(requirements)
}
