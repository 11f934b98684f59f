//! Many selectors, asked at once which of them select a pod.
//!
//! Each is filed under what it asks first: its namespace, or a selector of namespaces (evaluated once for each
//! namespace), and then a label with a value. A pod asks only what is filed under its own labels, and what asks for no
//! value.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::interned::Interned;
use crate::cluster::model::{Labels, Namespaces, PodSelector, Selector, Test, Text};

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// Selectors of pods, each of a `T`.
#[derive(Debug)]
pub(super) struct Selectors<T> {
    /// Of the pods of one namespace.
    own: Map<Text, Index<T>>,
    /// Of pods of selected namespaces, by the number of the namespaces' selector.
    with: BTreeMap<u32, (Selector, Index<T>)>,
    numbers: Interned<Selector>,
    spaces: Map<Text, Space>,
}

/// A namespace.
#[derive(Debug)]
struct Space {
    labels: Arc<Labels>,
    /// Keys of `with` whose selectors select it.
    selected: BTreeSet<u32>,
}

/// Selectors by a label that they ask for.
#[derive(Debug)]
struct Index<T> {
    by_label: Map<Text, Map<Text, Vec<Entry<T>>>>,
    others: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    selector: Arc<Selector>,
    of: T,
}

impl<T> Default for Selectors<T> {
    fn default() -> Self {
        Self { own: Map::default(), with: BTreeMap::new(), numbers: Interned::default(), spaces: Map::default() }
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { by_label: Map::default(), others: Vec::new() }
    }
}

impl<T: Clone + PartialEq> Selectors<T> {
    pub(super) fn insert(&mut self, selector: &PodSelector, of: T) {
        let index = match &selector.namespaces {
            Namespaces::Own(namespace) => self.own.entry(namespace.clone()).or_default(),
            Namespaces::With(namespaces) => {
                let (number, new) = self.numbers.acquire(namespaces);
                if new {
                    for space in self.spaces.values_mut().filter(|space| namespaces.selects(&space.labels)) {
                        space.selected.insert(number);
                    }
                }
                &mut self.with.entry(number).or_insert_with(|| (namespaces.clone(), Index::default())).1
            }
        };
        index.insert(&selector.pods, of);
    }

    pub(super) fn remove(&mut self, selector: &PodSelector, of: &T) {
        match &selector.namespaces {
            Namespaces::Own(namespace) => {
                if let Some(index) = self.own.get_mut(namespace) {
                    index.remove(&selector.pods, of);
                    if index.is_empty() {
                        self.own.remove(namespace);
                    }
                }
            }
            Namespaces::With(namespaces) => {
                let Some((_, index)) = self.numbers.get(namespaces).and_then(|number| self.with.get_mut(&number))
                else {
                    return;
                };
                index.remove(&selector.pods, of);
                if let Some(number) = self.numbers.release(namespaces) {
                    self.with.remove(&number);
                    self.spaces.values_mut().for_each(|space| {
                        space.selected.remove(&number);
                    });
                    self.numbers.recycle();
                }
            }
        }
    }

    /// A namespace has these labels from now on. Returns whether other selectors select it.
    pub(super) fn set_namespace(&mut self, name: &Text, labels: &Arc<Labels>) -> bool {
        let selecting = self.with.iter().filter(|(_, (selector, _))| selector.selects(labels));
        let selected = selecting.map(|(number, _)| *number).collect();
        let now = Space { labels: labels.clone(), selected };
        let changed = self.spaces.get(name).is_none_or(|before| before.selected != now.selected);
        self.spaces.insert(name.clone(), now);
        changed
    }

    pub(super) fn remove_namespace(&mut self, name: &Text) {
        self.spaces.remove(name);
    }

    /// What selects a pod with such labels of a namespace, in no order.
    pub(super) fn selecting(&self, namespace: &Text, labels: &Labels) -> Vec<T> {
        let mut found = Vec::new();
        if let Some(index) = self.own.get(namespace) {
            index.selecting(labels, &mut found);
        }
        for number in self.spaces.get(namespace).into_iter().flat_map(|space| &space.selected) {
            if let Some((_, index)) = self.with.get(number) {
                index.selecting(labels, &mut found);
            }
        }
        found
    }
}

impl<T: Clone + PartialEq> Index<T> {
    /// Change each list that a selector is in; lists that are empty then go.
    fn change(&mut self, selector: &Selector, mut change: impl FnMut(&mut Vec<Entry<T>>)) {
        let asked = selector.0.iter().find_map(|requirement| match &requirement.test {
            Test::In(values) => Some((&requirement.key, values)),
            _ => None,
        });
        let Some((key, values)) = asked else { return change(&mut self.others) };
        let by_value = self.by_label.entry(key.clone()).or_default();
        for value in values {
            let list = by_value.entry(value.clone()).or_default();
            change(list);
            if list.is_empty() {
                by_value.remove(value);
            }
        }
        if by_value.is_empty() {
            self.by_label.remove(key);
        }
    }

    fn insert(&mut self, selector: &Selector, of: T) {
        let entry = Entry { selector: Arc::new(selector.clone()), of };
        self.change(selector, |list| list.push(entry.clone()));
    }

    fn remove(&mut self, selector: &Selector, of: &T) {
        self.change(selector, |list| list.retain(|entry| entry.of != *of));
    }

    fn is_empty(&self) -> bool {
        self.by_label.is_empty() && self.others.is_empty()
    }

    fn selecting(&self, labels: &Labels, found: &mut Vec<T>) {
        let filed = |(key, value)| self.by_label.get(key).and_then(|by_value| by_value.get::<Text>(value));
        let filed = labels.iter().filter_map(filed).flatten();
        let selecting = filed.chain(&self.others).filter(|entry| entry.selector.selects(labels));
        found.extend(selecting.map(|entry| entry.of.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{labels, selector};
    use super::*;

    #[test]
    fn what_is_found_is_what_selects() {
        let namespaces = [("a", "team=x,kubernetes.io/metadata.name=a"), ("b", "kubernetes.io/metadata.name=b")];
        let asked = ["", "app=web", "app in web|db", "app notin web", "app", "!app", "app=web,tier"];
        let mut all: Vec<PodSelector> = Vec::new();
        for pods in asked {
            let pods = selector(pods);
            all.push(PodSelector { namespaces: Namespaces::Own("a".into()), pods: pods.clone() });
            for namespace in ["", "team=x", "team notin x", "kubernetes.io/metadata.name=b"] {
                all.push(PodSelector { namespaces: Namespaces::With(selector(namespace)), pods: pods.clone() });
            }
        }
        let mut selectors = Selectors::default();
        let check = |selectors: &Selectors<usize>, there: &dyn Fn(usize) -> bool| {
            for (namespace, its) in namespaces {
                for pod in ["", "app=web", "app=db", "app=web,tier=1", "tier=1"] {
                    let mut found = selectors.selecting(&namespace.into(), &labels(pod));
                    found.sort_unstable();
                    let selects = |(number, s): &(usize, &PodSelector)| {
                        let in_namespace = match &s.namespaces {
                            Namespaces::Own(own) => **own == *namespace,
                            Namespaces::With(selector) => selector.selects(&labels(its)),
                        };
                        there(*number) && in_namespace && s.pods.selects(&labels(pod))
                    };
                    let wanted: Vec<_> = all.iter().enumerate().filter(selects).map(|(number, _)| number).collect();
                    assert_eq!(found, wanted, "{namespace}: {pod}");
                }
            }
        };
        // Half of them before the namespaces are known, half of them after.
        for (number, selector) in all.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
            selectors.insert(selector, number);
        }
        for (namespace, its) in namespaces {
            selectors.set_namespace(&namespace.into(), &Arc::new(labels(its)));
        }
        for (number, selector) in all.iter().enumerate().filter(|(number, _)| number % 2 == 1) {
            selectors.insert(selector, number);
        }
        check(&selectors, &|_| true);
        for (number, selector) in all.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
            selectors.remove(selector, &number);
        }
        check(&selectors, &|number| number % 3 == 0);
        for (number, selector) in all.iter().enumerate() {
            selectors.remove(selector, &number);
        }
        assert!(selectors.own.is_empty() && selectors.with.is_empty());
    }

    #[test]
    fn labels_of_a_namespace_that_nothing_asks_for_change_nothing() {
        let mut selectors = Selectors::default();
        let a: Text = "a".into();
        assert!(selectors.set_namespace(&a, &Arc::new(labels(""))));
        let selector = PodSelector { namespaces: Namespaces::With(selector("team=x")), pods: selector("") };
        selectors.insert(&selector, 1);
        assert!(!selectors.set_namespace(&a, &Arc::new(labels("other=y"))));
        assert!(selectors.set_namespace(&a, &Arc::new(labels("team=x"))));
        assert!(!selectors.set_namespace(&a, &Arc::new(labels("team=x,other=y"))));
    }
}
