//! What is answered where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::health::Health;
use super::http::{NOT_FOUND, OK, Request, Response};
use super::told::Told;

/// What `/proxyMode` says.
const PROXY_MODE: &str = "vswitch";
/// For how long metrics are as good as new: who asks more often gets the same, and costs nobody anything.
const FRESH: Duration = Duration::from_secs(1);
const OPENMETRICS: &str = "application/openmetrics-text";

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// `/healthz` and `/livez`.
    Health,
    /// `/proxyMode` and `/metrics`.
    Metrics,
    /// A health-check port.
    Check(u16),
}

/// Who answers.
#[derive(Debug)]
pub(super) struct Answers {
    told: Arc<Mutex<Told>>,
    registry: Registry,
    /// Answers of `/healthz` and `/livez`, by status code.
    answered: Arc<Mutex<[BTreeMap<u16, u64>; 2]>>,
    /// What `/metrics` last said, and when.
    page: Option<(Arc<str>, Instant)>,
}

impl Answers {
    pub(super) fn new(
        told: Arc<Mutex<Told>>,
        registry: Registry,
        answered: Arc<Mutex<[BTreeMap<u16, u64>; 2]>>,
    ) -> Self {
        Self { told, registry, answered, page: None }
    }

    /// The answer to a request; `healthy` is what the watch says.
    pub(super) fn answer(&mut self, purpose: Purpose, request: &Request, healthy: bool) -> Response {
        match (purpose, &*request.path) {
            (Purpose::Health, "/healthz") => self.health(0, healthy),
            (Purpose::Health, "/livez") => self.health(1, healthy),
            (Purpose::Metrics, "/proxyMode") => Response::text(OK, PROXY_MODE),
            (Purpose::Metrics, "/metrics") => self.metrics(request),
            (Purpose::Check(port), _) => {
                let told = self.told.lock();
                let health = Health { healthy, updated: told.updated, eligibility: told.eligibility.as_ref() };
                // A listener that is about to be closed has none.
                told.checks.get(&port).map_or_else(|| Response::bare(NOT_FOUND), |check| health.check(check))
            }
            (Purpose::Health | Purpose::Metrics, _) => Response::bare(NOT_FOUND),
        }
    }

    fn health(&self, which: usize, healthy: bool) -> Response {
        let response = {
            let told = self.told.lock();
            let health = Health { healthy, updated: told.updated, eligibility: told.eligibility.as_ref() };
            let now = Timestamp::now();
            if which == 0 { health.healthz(now) } else { health.livez(now) }
        };
        if let Some(answered) = self.answered.lock().get_mut(which) {
            *answered.entry(response.status.0).or_default() += 1;
        }
        response
    }

    /// The text is of OpenMetrics 1.0 and, at once, of the format before it: who does not ask for the one is told the other.
    fn metrics(&mut self, request: &Request) -> Response {
        let now = Instant::now();
        let page = match &self.page {
            Some((page, written)) if now.duration_since(*written) < FRESH => Arc::clone(page),
            _ => {
                let mut page = String::new();
                if let Err(why) = text::encode(&mut page, &self.registry) {
                    tracing::error!("/metrics cannot be written: {why}");
                }
                let page = Arc::from(page);
                self.page = Some((Arc::clone(&page), now));
                page
            }
        };
        let kind = if request.accept.contains(OPENMETRICS) {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        };
        Response::new(OK, kind, page)
    }
}
