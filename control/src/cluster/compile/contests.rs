//! What several services want and one has: who is first, and that the others are told of once.

use std::collections::BTreeSet;

use super::claims::Claims;
use crate::cluster::model::{Named, Service};

/// A service as a claimant of addresses and ports. Of several the first has what they want, in this order: whose cluster
/// address it is (nobody shall take that by naming it among external addresses), then whose Service object is older, then by
/// name. Objects without a creation time come before those with one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// What is claimed is for clients from beyond the cluster.
    beyond: bool,
    created: Option<i64>,
    pub(super) id: Named,
}

impl Claimant {
    /// The two claimants that a service is: of its cluster addresses, and of all else.
    pub(super) fn both(service: &Service) -> [Self; 2] {
        [false, true].map(|beyond| Self { beyond, created: service.created, id: service.id.clone() })
    }
}

/// Who wants what another has, so that each is said once.
#[derive(Debug)]
pub(super) struct Contests<K>(BTreeSet<(K, Named)>);

impl<K> Default for Contests<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Copy> Contests<K> {
    /// Log who waits for a key that was touched, and forget who waits no more.
    pub(super) fn tell<T: Clone + PartialEq>(&mut self, claims: &Claims<K, Claimant, T>, shown: impl Fn(&K) -> String) {
        for key in claims.touched() {
            let mut claimants = claims.claimants(key).map(|claimant| &claimant.id);
            let Some(winner) = claimants.next() else {
                self.forget(key, &[]);
                continue;
            };
            let losers: Vec<_> = claimants.filter(|loser| *loser != winner).collect();
            self.forget(key, &losers);
            for loser in losers {
                if self.0.insert((*key, loser.clone())) {
                    tracing::warn!(
                        "service {}/{}: {}: service {}/{} has it: not programmed",
                        loser.namespace,
                        loser.name,
                        shown(key),
                        winner.namespace,
                        winner.name
                    );
                }
            }
        }
    }

    fn forget(&mut self, key: &K, losers: &[&Named]) {
        // Most keys have one claimant, and nobody waits for them.
        if self.0.is_empty() {
            return;
        }
        let first = (*key, Named { namespace: "".into(), name: "".into() });
        let before: Vec<_> = self.0.range(first..).take_while(|(k, _)| k == key).cloned().collect();
        for contest in before.into_iter().filter(|(_, id)| !losers.contains(&id)) {
            self.0.remove(&contest);
        }
    }
}
