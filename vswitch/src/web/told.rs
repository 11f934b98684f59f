//! What the control side tells the servers: nouns of health checks, and what metrics count of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{BridgeId, Change, Delta, Eligibility, HealthCheck, PortId, Transaction};
use jiff::Timestamp;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::Metered;

/// All that was told.
#[derive(Debug)]
pub(super) struct Told {
    /// When the last transaction came into force.
    pub(super) updated: Timestamp,
    /// How long transactions took to come into force, seconds.
    pub(super) durations: Histogram,
    /// Rounds of the control thread.
    pub(super) rounds: u64,
    /// What follows from the cluster's objects is not in force.
    pub(super) behind: bool,
    /// Whether the node is to get traffic of load balancers; `None` while it is not known.
    pub(super) eligibility: Option<Eligibility>,
    /// By port.
    pub(super) checks: BTreeMap<u16, HealthCheck>,
    pub(super) bridges: BTreeSet<BridgeId>,
    pub(super) ports: BTreeMap<PortId, Metered>,
    /// Numbers that ports have or had: what was counted for them stays counted.
    pub(super) numbers: BTreeSet<PortId>,
    /// Nouns of each kind.
    pub(super) nouns: BTreeMap<&'static str, usize>,
}

impl Told {
    pub(super) fn new() -> Self {
        Self {
            updated: Timestamp::now(),
            // Those of kube-proxy: 1 ms to 16 s.
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            rounds: 0,
            behind: false,
            eligibility: None,
            checks: BTreeMap::new(),
            bridges: BTreeSet::new(),
            ports: BTreeMap::new(),
            numbers: BTreeSet::new(),
            nouns: BTreeMap::new(),
        }
    }

    /// Take over a transaction that has come into force in this time. Returns whether listeners are to be looked at.
    pub(super) fn record(
        &mut self,
        transaction: &Transaction,
        took: Duration,
        metered: impl Fn(PortId) -> Option<Metered>,
    ) -> bool {
        self.updated = Timestamp::now();
        self.durations.observe(took.as_secs_f64());
        let mut listens = false;
        for change in &transaction.changes {
            match change {
                Change::Bridge(delta) => {
                    self.count("bridges", delta);
                    match (&delta.old, &delta.new) {
                        (_, Some(bridge)) => _ = self.bridges.insert(bridge.id),
                        (Some(bridge), None) => _ = self.bridges.remove(&bridge.id),
                        (None, None) => {}
                    }
                }
                Change::Port(delta) => {
                    self.count("ports", delta);
                    if let Some(port) = delta.new.as_ref().or(delta.old.as_ref()) {
                        self.numbers.insert(port.id);
                        match metered(port.id) {
                            Some(metered) => _ = self.ports.insert(port.id, metered),
                            None => _ = self.ports.remove(&port.id),
                        }
                    }
                }
                Change::Station(delta) => self.count("static-stations", delta),
                Change::Router(delta) => self.count("routers", delta),
                Change::Endpoint(delta) => self.count("endpoints", delta),
                Change::Neighbor(delta) => self.count("static-neighbors", delta),
                Change::Route(delta) => self.count("routes", delta),
                Change::Service(delta) => self.count("services", delta),
                Change::ServiceRange(delta) => self.count("service-ranges", delta),
                Change::Guard(delta) => self.count("guards", delta),
                Change::Ruleset(delta) => self.count("rulesets", delta),
                Change::Subject(delta) => self.count("subjects", delta),
                Change::Acl(delta) => self.count("access-lists", delta),
                Change::Shaper(delta) => self.count("shapers", delta),
                Change::HealthCheck(delta) => {
                    self.count("health-checks", delta);
                    if let Some(check) = &delta.old {
                        self.checks.remove(&check.port);
                    }
                    if let Some(check) = &delta.new {
                        self.checks.insert(check.port, check.clone());
                    }
                    listens = true;
                }
                Change::Eligibility(delta) => {
                    self.eligibility.clone_from(&delta.new);
                    let why_not = delta.new.as_ref().and_then(|node| node.why_not.as_deref());
                    if let Some(why_not) = why_not {
                        tracing::info!("not eligible for traffic of load balancers: {why_not}");
                    }
                }
            }
        }
        listens
    }

    fn count<T>(&mut self, kind: &'static str, delta: &Delta<T>) {
        let count = self.nouns.entry(kind).or_default();
        *count = (*count + usize::from(delta.new.is_some())).saturating_sub(usize::from(delta.old.is_some()));
    }
}
