//! What load balancers and kubelets are told, as kube-proxy tells it (`pkg/proxy/healthcheck` of Kubernetes 1.36): the same
//! paths, fields and codes.

use std::collections::BTreeMap;

use api::{Eligibility, HealthCheck};
use jiff::Timestamp;
use serde::Serialize;

use super::http::{OK, Response, Status, UNAVAILABLE};

const JSON: &str = "application/json";

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health<'a> {
    /// Nothing is late; see [`super::watch`].
    pub(super) healthy: bool,
    /// When the last transaction came into force.
    pub(super) updated: Timestamp,
    /// `None`: the node is not known.
    pub(super) eligibility: Option<&'a Eligibility>,
}

/// The body of `/healthz` and `/livez`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<&'static str, ToldOfFamily>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldOfFamily {
    last_updated: String,
    healthy: bool,
}

/// The body of a health-check port.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldOfService<'a> {
    service: Name<'a>,
    local_endpoints: u32,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Health<'_> {
    /// `/healthz`: whether load balancers shall send traffic to this node.
    pub(super) fn healthz(&self, now: Timestamp) -> Response {
        let eligible = self.eligibility.is_some_and(|node| node.why_not.is_none());
        self.tell(self.healthy && eligible, Some(eligible), now)
    }

    /// `/livez`: the same, whatever becomes of the node (KEP-3836).
    pub(super) fn livez(&self, now: Timestamp) -> Response {
        self.tell(self.healthy, None, now)
    }

    fn tell(&self, well: bool, node_eligible: Option<bool>, now: Timestamp) -> Response {
        // One transaction is for both IP versions.
        let family = ToldOfFamily { last_updated: self.updated.to_string(), healthy: self.healthy };
        let told = Told {
            // As in kube-proxy: clients of old take a node whose last update was long ago for a dead one. When that was
            // stands in the status.
            last_updated: if well { now } else { self.updated }.to_string(),
            current_time: now.to_string(),
            node_eligible,
            healthy: self.healthy,
            status: BTreeMap::from([("IPv4", family.clone()), ("IPv6", family)]),
        };
        Response::new(status(well), JSON, serde_json::to_string(&told).unwrap_or_default())
    }

    /// Any path of a health-check port: whether the load balancer of the service shall send traffic to this node.
    pub(super) fn check(&self, check: &HealthCheck) -> Response {
        let HealthCheck { service: (namespace, name), local_endpoints, .. } = check;
        let told = ToldOfService {
            service: Name { namespace, name },
            local_endpoints: *local_endpoints,
            service_proxy_healthy: self.healthy,
        };
        let well = self.healthy && *local_endpoints != 0;
        Response::new(status(well), JSON, indented(&told))
            .with("X-Load-Balancing-Endpoint-Weight", local_endpoints.to_string())
    }
}

fn status(well: bool) -> Status {
    if well { OK } else { UNAVAILABLE }
}

/// JSON as kube-proxy's health-check ports lay it out.
fn indented(told: &impl Serialize) -> String {
    let mut body = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let written = told.serialize(&mut serde_json::Serializer::with_formatter(&mut body, layout));
    written.map(|()| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATED: &str = "2026-01-02T03:04:05.678Z";
    const NOW: &str = "2026-01-02T03:05:06Z";

    fn health(healthy: bool, eligibility: Option<&Eligibility>) -> Health<'_> {
        Health { healthy, updated: UPDATED.parse().unwrap(), eligibility }
    }

    #[test]
    fn healthz_is_what_kube_proxy_says_octet_for_octet() {
        let eligible = Eligibility { why_not: None };
        let doomed = Eligibility { why_not: Some("it is being deleted".to_owned()) };
        let rows = [
            (true, Some(&eligible), 200, NOW, true),
            (true, Some(&doomed), 503, UPDATED, false),
            (true, None, 503, UPDATED, false),
            (false, Some(&eligible), 503, UPDATED, true),
        ];
        for (healthy, node, code, last, node_eligible) in rows {
            let answer = health(healthy, node).healthz(NOW.parse().unwrap());
            let family = format!(r#"{{"lastUpdated":"{UPDATED}","healthy":{healthy}}}"#);
            let body = format!(
                r#"{{"lastUpdated":"{last}","currentTime":"{NOW}","nodeEligible":{node_eligible},"healthy":{healthy},"status":{{"IPv4":{family},"IPv6":{family}}}}}"#
            );
            assert_eq!((answer.status.0, &*answer.body), (code, &*body));
            assert_eq!(answer.fields[0], ("Content-Type", "application/json".to_owned()));
            assert_eq!(answer.fields[1], ("X-Content-Type-Options", "nosniff".to_owned()));
        }
    }

    #[test]
    fn livez_does_not_care_for_the_node() {
        for (healthy, code, last) in [(true, 200, NOW), (false, 503, UPDATED)] {
            let answer = health(healthy, None).livez(NOW.parse().unwrap());
            let family = format!(r#"{{"lastUpdated":"{UPDATED}","healthy":{healthy}}}"#);
            let body = format!(
                r#"{{"lastUpdated":"{last}","currentTime":"{NOW}","healthy":{healthy},"status":{{"IPv4":{family},"IPv6":{family}}}}}"#
            );
            assert_eq!((answer.status.0, &*answer.body), (code, &*body));
        }
    }

    #[test]
    fn v13_a_health_check_port_says_how_many_endpoints_are_here() {
        for (healthy, local, code) in [(true, 2, 200), (true, 0, 503), (false, 2, 503)] {
            let service = ("shop".into(), "web".into());
            let check = HealthCheck { port: 30000, service, local_endpoints: local, addresses: [].into() };
            // Whether the node is eligible does not matter here.
            let answer = health(healthy, None).check(&check);
            let body = format!(
                "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t}},\n\t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
            );
            assert_eq!((answer.status.0, &*answer.body), (code, &*body));
            assert_eq!(answer.fields[0], ("Content-Type", "application/json".to_owned()));
            assert_eq!(answer.fields[2], ("X-Load-Balancing-Endpoint-Weight", local.to_string()));
        }
    }
}
