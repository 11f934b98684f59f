//! What a switch is told: transactions of changes.

use serde::{Deserialize, Serialize};

use crate::{
    Acl, Bridge, Eligibility, Endpoint, Guard, HealthCheck, Neighbor, Port, Route, Router, Ruleset, Service,
    ServiceRange, Shaper, Station, Subject,
};

/// One noun before and after. `old` is what the switch has now: both are never `None`, and both have the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta<T> {
    /// The noun as the switch knows it; `None` when it is new.
    pub old: Option<T>,
    /// The noun as it shall be; `None` when it goes.
    pub new: Option<T>,
}

impl<T> Delta<T> {
    /// A noun that appears.
    pub fn add(new: T) -> Self {
        Self { old: None, new: Some(new) }
    }

    /// A noun that goes.
    pub fn remove(old: T) -> Self {
        Self { old: Some(old), new: None }
    }

    /// A noun that changes.
    pub fn replace(old: T, new: T) -> Self {
        Self { old: Some(old), new: Some(new) }
    }

    /// The same change undone.
    pub fn inverse(self) -> Self {
        Self { old: self.new, new: self.old }
    }
}

/// One change of one noun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Of a bridge. Its ports and stations go before it, in the same transaction.
    Bridge(Delta<Bridge>),
    /// Of a port. Its stations go before it, in the same transaction.
    Port(Delta<Port>),
    /// Of a static MAC entry.
    Station(Delta<Station>),
    /// Of a bridge's router. Endpoints and routes of the bridge go before it, in the same transaction or earlier.
    Router(Delta<Router>),
    /// Of an endpoint.
    Endpoint(Delta<Endpoint>),
    /// Of a static neighbour.
    Neighbor(Delta<Neighbor>),
    /// Of a route.
    Route(Delta<Route>),
    /// Of a service.
    Service(Delta<Service>),
    /// Of a range of service addresses.
    ServiceRange(Delta<ServiceRange>),
    /// Of a health-check port.
    HealthCheck(Delta<HealthCheck>),
    /// Of whether the node is to get traffic of load balancers.
    Eligibility(Delta<Eligibility>),
    /// Of who may speak from a port. It goes before its port, in the same transaction or earlier.
    Guard(Delta<Guard>),
    /// Of a set of rules. It comes before subjects that name it, and goes behind them.
    Ruleset(Delta<Ruleset>),
    /// Of a pod as policies see it.
    Subject(Delta<Subject>),
    /// Of an access list. It goes before its port or bridge, in the same transaction or earlier.
    Acl(Delta<Acl>),
    /// Of how much may pass a port. It goes before its port, in the same transaction or earlier.
    Shaper(Delta<Shaper>),
}

/// Changes that a packet sees all together or not at all, in an order in which each noun exists before it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The changes, in order.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// The transaction that takes this one back.
    pub fn inverse(self) -> Self {
        let undo = |change| match change {
            Change::Bridge(delta) => Change::Bridge(delta.inverse()),
            Change::Port(delta) => Change::Port(delta.inverse()),
            Change::Station(delta) => Change::Station(delta.inverse()),
            Change::Router(delta) => Change::Router(delta.inverse()),
            Change::Endpoint(delta) => Change::Endpoint(delta.inverse()),
            Change::Neighbor(delta) => Change::Neighbor(delta.inverse()),
            Change::Route(delta) => Change::Route(delta.inverse()),
            Change::Service(delta) => Change::Service(delta.inverse()),
            Change::ServiceRange(delta) => Change::ServiceRange(delta.inverse()),
            Change::HealthCheck(delta) => Change::HealthCheck(delta.inverse()),
            Change::Eligibility(delta) => Change::Eligibility(delta.inverse()),
            Change::Guard(delta) => Change::Guard(delta.inverse()),
            Change::Ruleset(delta) => Change::Ruleset(delta.inverse()),
            Change::Subject(delta) => Change::Subject(delta.inverse()),
            Change::Acl(delta) => Change::Acl(delta.inverse()),
            Change::Shaper(delta) => Change::Shaper(delta.inverse()),
        };
        Self { changes: self.changes.into_iter().rev().map(undo).collect() }
    }
}
