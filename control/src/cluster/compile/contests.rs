//! What several services want and one has: who is first, and that the others are told of once.

use std::collections::BTreeSet;
use std::fmt;

use api::PortId;

use super::claims::Claims;
use crate::cluster::model::{Named, Service};

/// A service as a claimant of addresses and ports. Of several the first has what they want, in this order: whose cluster
/// address it is (nobody shall take that by naming it among external addresses), then whose Service object is older, then by
/// name. Objects without a creation time come before those with one. Host ports of containers come last, by the number of
/// the container's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    claim: Claim,
    created: Option<i64>,
    pub(super) id: Named,
}

/// What a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Cluster,
    /// For clients from beyond the cluster.
    Beyond,
    /// Ports of the node, for a container.
    HostPort(PortId),
}

impl Claimant {
    /// The two claimants that a service is: of its cluster addresses, and of all else.
    pub(super) fn both(service: &Service) -> [Self; 2] {
        [Claim::Cluster, Claim::Beyond].map(|claim| Self { claim, created: service.created, id: service.id.clone() })
    }

    /// The claimant that the attachment on a port is, of host ports for this owner.
    pub(super) fn host_port(port: PortId, owner: Named) -> Self {
        Self { claim: Claim::HostPort(port), created: None, id: owner }
    }

    /// Whether both are of one object.
    fn is_of(&self, other: &Self) -> bool {
        let port = |claimant: &Self| match claimant.claim {
            Claim::HostPort(port) => Some(port),
            Claim::Cluster | Claim::Beyond => None,
        };
        (port(self), &self.id) == (port(other), &other.id)
    }
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if matches!(self.claim, Claim::HostPort(_)) { "host port of" } else { "service" };
        write!(f, "{what} {}/{}", self.id.namespace, self.id.name)
    }
}

/// Who wants what another has, so that each is said once.
#[derive(Debug)]
pub(super) struct Contests<K>(BTreeSet<(K, String)>);

impl<K> Default for Contests<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Copy> Contests<K> {
    /// Log who waits for a key that was touched, and forget who waits no more.
    pub(super) fn tell<T: Clone + PartialEq>(&mut self, claims: &Claims<K, Claimant, T>, shown: impl Fn(&K) -> String) {
        for key in claims.touched() {
            let mut claimants = claims.claimants(key);
            let Some(winner) = claimants.next() else {
                self.forget(key, &[]);
                continue;
            };
            let losers: Vec<_> = claimants.filter(|loser| !loser.is_of(winner)).map(ToString::to_string).collect();
            self.forget(key, &losers);
            for loser in losers {
                if self.0.insert((*key, loser.clone())) {
                    tracing::warn!("{loser}: {}: {winner} has it: not programmed", shown(key));
                }
            }
        }
    }

    fn forget(&mut self, key: &K, losers: &[String]) {
        // Most keys have one claimant, and nobody waits for them.
        if self.0.is_empty() {
            return;
        }
        let first = (*key, String::new());
        let before: Vec<_> = self.0.range(first..).take_while(|(k, _)| k == key).cloned().collect();
        for contest in before.into_iter().filter(|(_, loser)| !losers.contains(loser)) {
            self.0.remove(&contest);
        }
    }
}
