//! Rulesets: one for each distinct list of policies that apply in a direction, shared by their pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Ruleset, RulesetId};

use super::interned::Interned;
use super::rules::Compiled;
use super::{PolicyKey, Way};

/// How many policies the default names.
const NAMED: usize = 4;

/// A direction, and the policies that decide in it, in the order in which they are asked.
pub(super) type List = (Way, Vec<PolicyKey>);

/// The rulesets that pods have.
#[derive(Debug, Default)]
pub(super) struct Rulesets {
    numbers: Interned<List>,
    lists: BTreeMap<RulesetId, List>,
    /// Those in which each policy is.
    of: BTreeMap<PolicyKey, BTreeSet<RulesetId>>,
    /// Those that are to be made again.
    touched: BTreeSet<RulesetId>,
}

impl Rulesets {
    /// One more pod has the ruleset of a list.
    pub(super) fn acquire(&mut self, list: &List) -> RulesetId {
        let (number, new) = self.numbers.acquire(list);
        let id = RulesetId(number);
        if new {
            self.lists.insert(id, list.clone());
            self.touched.insert(id);
            for policy in &list.1 {
                self.of.entry(policy.clone()).or_default().insert(id);
            }
        }
        id
    }

    /// One pod less has a ruleset.
    pub(super) fn release(&mut self, id: RulesetId) {
        let Some(list) = self.lists.get(&id) else { return };
        if self.numbers.release(list).is_none() {
            return;
        }
        for policy in &list.1 {
            if let Some(ids) = self.of.get_mut(policy) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.of.remove(policy);
                }
            }
        }
        self.lists.remove(&id);
        self.touched.insert(id);
    }

    /// A policy says something else.
    pub(super) fn touch(&mut self, policy: &PolicyKey) {
        self.touched.extend(self.of.get(policy).into_iter().flatten());
    }

    /// What became of those that changed; `None` for those that went.
    pub(super) fn settle(&mut self, policies: &BTreeMap<PolicyKey, Compiled>) -> Vec<(RulesetId, Option<Ruleset>)> {
        self.numbers.recycle();
        let touched = std::mem::take(&mut self.touched);
        let ruleset = |id| self.lists.get(&id).map(|list| ruleset(id, list, policies));
        touched.into_iter().map(|id| (id, ruleset(id))).collect()
    }

    /// The policies that decide for whoever has a ruleset.
    pub(super) fn policies(&self, id: RulesetId) -> &[PolicyKey] {
        self.lists.get(&id).map_or(&[], |(_, policies)| policies)
    }
}

fn ruleset(id: RulesetId, (way, list): &List, policies: &BTreeMap<PolicyKey, Compiled>) -> Ruleset {
    let rules_of = |key: &PolicyKey| policies.get(key).and_then(|policy| policy.rules(*way)).unwrap_or_default();
    let admin =
        list.iter().filter(|key| matches!(key, PolicyKey::Admin(..))).map(|key| rules_of(key).len()).sum::<usize>();
    let isolating: Vec<String> = list.iter().filter_map(PolicyKey::isolating).collect();
    Ruleset {
        id,
        rules: list.iter().flat_map(|key| rules_of(key).iter().cloned()).collect(),
        admin: u32::try_from(admin).unwrap_or(u32::MAX),
        isolates: !isolating.is_empty(),
        otherwise: otherwise(&isolating),
    }
}

/// What decides when no rule does.
pub(crate) fn otherwise(isolating: &[String]) -> Arc<str> {
    match isolating {
        [] => "default".into(),
        few if few.len() <= NAMED => format!("default of {}", few.join(", ")).into(),
        many => {
            let named = many.get(..NAMED).unwrap_or_default().join(", ");
            format!("default of {named} and {} more", many.len() - NAMED).into()
        }
    }
}
