//! The rows of the live program, by table.

use std::collections::BTreeMap;

use api::{
    AddressKey, BridgeId, Change, Endpoint, Guard, PortId, Route, RouteKey, Router, Ruleset, RulesetId, Service,
    ServiceKey, Subject,
};

/// What a switch says that it has.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) routers: BTreeMap<BridgeId, Router>,
    pub(super) endpoints: BTreeMap<AddressKey, Endpoint>,
    pub(super) routes: BTreeMap<RouteKey, Route>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) guards: BTreeMap<PortId, Guard>,
    pub(super) subjects: BTreeMap<AddressKey, Subject>,
    pub(super) rulesets: BTreeMap<RulesetId, Ruleset>,
}

impl Live {
    pub(super) fn of(rows: Vec<Change>) -> Self {
        let mut live = Self::default();
        for row in rows {
            match row {
                Change::Router(delta) => live.routers.extend(delta.new.map(|row| (row.bridge, row))),
                Change::Endpoint(delta) => live.endpoints.extend(delta.new.map(|row| (row.key, row))),
                Change::Route(delta) => live.routes.extend(delta.new.map(|row| (row.key, row))),
                Change::Service(delta) => live.services.extend(delta.new.map(|row| (row.key, row))),
                Change::Guard(delta) => live.guards.extend(delta.new.map(|row| (row.port, row))),
                Change::Subject(delta) => live.subjects.extend(delta.new.map(|row| (row.key, row))),
                Change::Ruleset(delta) => live.rulesets.extend(delta.new.map(|row| (row.id, row))),
                Change::Bridge(_)
                | Change::Port(_)
                | Change::Station(_)
                | Change::Neighbor(_)
                | Change::ServiceRange(_)
                | Change::HealthCheck(_)
                | Change::Eligibility(_)
                | Change::Acl(_)
                | Change::Shaper(_) => {}
            }
        }
        live
    }
}
