//! What is planted in the tables behind control's back is found, each kind of harm by a line that names it.

use std::sync::Arc;

use api::{Action, Change, Delta, Endpoint, Guard, Peers, Ports, Rule, Ruleset, Service, Subject};
use serde_json::json;

use super::{Bed, cluster_policy, namespace, nodes, pod, policy};

/// Shop: `web` (twice) may reach `db`, and so may team blue and a network beyond; `api` may reach a network and its
/// resolver. Pod `ghost` has a port and no object.
fn bed() -> Bed {
    let bed = Bed::new();
    let mut objects = nodes().to_vec();
    objects.extend([namespace("shop", &json!({"team": "red"})), namespace("lab", &json!({"team": "blue"}))]);
    objects.extend([
        pod("shop", "web-0", &json!({"app": "web"}), ("n1", 10)),
        pod("shop", "web-1", &json!({"app": "web"}), ("n1", 11)),
        pod("shop", "db", &json!({"app": "db"}), ("n1", 12)),
        pod("shop", "api", &json!({"app": "api"}), ("n1", 13)),
        pod("lab", "far", &json!({"app": "far"}), ("n2", 14)),
        pod("lab", "x", &json!({"app": "x"}), ("n1", 15)),
    ]);
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let blue = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}});
    let beyond = json!({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}});
    objects.push(policy(
        "shop",
        "db",
        json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [
                {"from": [web], "ports": [{"port": 5432}]},
                {"from": [blue], "ports": [{"port": "web"}]},
                {"from": [beyond], "ports": [{"port": 80, "endPort": 90}]},
            ]
        }),
    ));
    objects.push(policy(
        "shop",
        "api",
        json!({
            "podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [beyond]}, {"ports": [{"port": "dns", "protocol": "UDP"}]}]
        }),
    ));
    objects.push(cluster_policy("no-lab", json!({
        "tier": "Admin", "priority": 10,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "red"}}, "podSelector": {"matchLabels": {"app": "web"}}}},
        "ingress": [{"name": "lab", "action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "blue"}}}]}]
    })));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 5432, "targetPort": 5432}]}
    }));
    objects.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 5432}],
        "endpoints": [{"addresses": ["10.1.0.12"]}, {"addresses": ["10.1.0.10"]}]
    }));
    bed.apply(&objects);
    bed.bind(&[("shop", "web-0"), ("shop", "web-1"), ("shop", "db"), ("shop", "api"), ("lab", "x"), ("shop", "ghost")]);
    bed
}

fn subject(rows: &[Change], name: &str, edit: impl Fn(&mut Subject)) -> Vec<Change> {
    let found = rows.iter().filter_map(|row| match row {
        Change::Subject(Delta { new: Some(subject), .. }) if *subject.name == *name => Some(subject),
        _ => None,
    });
    let change = |old: &Subject| {
        let mut new = old.clone();
        edit(&mut new);
        Change::Subject(Delta::replace(old.clone(), new))
    };
    found.map(change).collect()
}

/// The rulesets with a rule of this policy.
fn ruleset(rows: &[Change], policy: &str, edit: impl Fn(&mut Vec<Arc<Rule>>)) -> Vec<Change> {
    let found = rows.iter().filter_map(|row| match row {
        Change::Ruleset(Delta { new: Some(set), .. }) => set.rules.iter().any(|r| *r.policy == *policy).then_some(set),
        _ => None,
    });
    let change = |old: &Ruleset| {
        let mut rules = old.rules.to_vec();
        edit(&mut rules);
        Change::Ruleset(Delta::replace(old.clone(), Ruleset { rules: rules.into(), ..old.clone() }))
    };
    found.map(change).collect()
}

/// The first rule that is so becomes another.
fn rule(rules: &mut [Arc<Rule>], is: impl Fn(&Rule) -> bool, edit: impl Fn(&mut Rule)) {
    let rule = rules.iter_mut().find(|rule| is(rule)).expect("such a rule");
    edit(Arc::make_mut(rule));
}

fn endpoint(rows: &[Change], address: &str, edit: impl Fn(&Endpoint) -> Change) -> Vec<Change> {
    let found = rows.iter().filter_map(|row| match row {
        Change::Endpoint(Delta { new: Some(endpoint), .. }) => Some(endpoint),
        _ => None,
    });
    found.filter(|endpoint| endpoint.key.address.to_string() == address).map(edit).collect()
}

fn guard(rows: &[Change], name: &str, edit: impl Fn(&mut Guard)) -> Vec<Change> {
    let found = rows.iter().filter_map(|row| match row {
        Change::Guard(Delta { new: Some(guard), .. }) if *guard.name == *name => Some(guard),
        _ => None,
    });
    let change = |old: &Guard| {
        let mut new = old.clone();
        edit(&mut new);
        Change::Guard(Delta::replace(old.clone(), new))
    };
    found.map(change).collect()
}

fn service(rows: &[Change], edit: impl Fn(&mut Service)) -> Vec<Change> {
    let found = rows.iter().filter_map(|row| match row {
        Change::Service(Delta { new: Some(service), .. }) => Some(service),
        _ => None,
    });
    let change = |old: &Service| {
        let mut new = old.clone();
        edit(&mut new);
        Change::Service(Delta::replace(old.clone(), new))
    };
    found.map(change).collect()
}

const DB: &str = "networkpolicy shop/db";
const API: &str = "networkpolicy shop/api";
const LAB: &str = "clusternetworkpolicy no-lab";

type Harm = fn(&[Change]) -> Vec<Change>;

/// What is planted, and words of a line that names it.
const HARMS: &[(&str, Harm, &[&str])] = &[
    (
        "one of two alike is in no group",
        |rows| subject(rows, "pod/shop/web-1", |subject| subject.groups = [].into()),
        &["policy: pod/shop/web-1 10.1.0.11 to pod/shop/db 10.1.0.12, tcp 5432", "networkpolicy shop/db rule 0"],
    ),
    (
        "a pod is in a group too many",
        |rows| {
            let groups = |name: &str| {
                rows.iter().find_map(|row| match row {
                    Change::Subject(Delta { new: Some(subject), .. }) if *subject.name == *name => {
                        Some(subject.groups.clone())
                    }
                    _ => None,
                })
            };
            let web = groups("pod/shop/web-0").unwrap();
            subject(rows, "pod/lab/x", |subject| subject.groups = web.clone())
        },
        &["policy: pod/lab/x 10.1.0.15 to pod/shop/db 10.1.0.12, tcp 5432: expected deny"],
    ),
    (
        "a rule is missing",
        |rows| ruleset(rows, DB, |rules| drop(rules.remove(0))),
        &[
            "to pod/shop/db 10.1.0.12, tcp 5432: expected allow: networkpolicy shop/db rule 0",
            "found dropped: policy-ingress",
        ],
    ),
    (
        "a rule is too many",
        |rows| {
            ruleset(rows, DB, |rules| {
                let mut more = Rule::clone(&rules[0]);
                more.peers = Peers { any: true, ..Peers::default() };
                more.ports = Some([api::PortMatch { proto: api::Proto::Sctp, ports: Ports::Range(7, 7) }].into());
                rules.push(Arc::new(more));
            })
        },
        &["to pod/shop/db 10.1.0.12, sctp 7: expected deny: networkpolicy shop/db isolates", "found out by shop.db"],
    ),
    (
        "an action is another",
        |rows| {
            ruleset(rows, LAB, |rules| rule(rules, |rule| *rule.policy == *LAB, |rule| rule.action = Action::Accept))
        },
        &[
            "policy: pod/lab/x 10.1.0.15 to pod/shop/web-0 10.1.0.10",
            "expected deny: clusternetworkpolicy no-lab rule 0",
        ],
    ),
    (
        "a range ends one too early",
        |rows| {
            ruleset(rows, DB, |rules| {
                let ranged = |rule: &Rule| {
                    rule.ports.iter().flat_map(|ports| ports.iter()).any(|port| port.ports == Ports::Range(80, 90))
                };
                rule(rules, ranged, |rule| {
                    rule.ports = Some([api::PortMatch { proto: api::Proto::Tcp, ports: Ports::Range(80, 89) }].into());
                });
            })
        },
        &["to pod/shop/db 10.1.0.12, tcp 90: expected allow: networkpolicy shop/db rule 2"],
    ),
    (
        "an exception is forgotten",
        |rows| {
            ruleset(rows, API, |rules| {
                let blocks = |rule: &Rule| !rule.peers.blocks.is_empty();
                rule(rules, blocks, |rule| {
                    let open = |block: &api::Block| api::Block { except: [].into(), ..block.clone() };
                    rule.peers.blocks = rule.peers.blocks.iter().map(open).collect();
                });
            })
        },
        &["policy: pod/shop/api 10.1.0.13 to 203.0.113.128", "expected deny: networkpolicy shop/api isolates"],
    ),
    (
        "a pod is under no rules",
        |rows| subject(rows, "pod/shop/db", |subject| subject.ingress = None),
        &["to pod/shop/db 10.1.0.12", "expected deny: networkpolicy shop/db isolates", "found out by shop.db"],
    ),
    (
        "a pod is under rules that are not there",
        |rows| subject(rows, "pod/shop/db", |subject| subject.ingress = Some(api::RulesetId(4_000_000))),
        &["policy: pod/shop/db 10.1.0.12: expected rules; found ruleset 4000000 is not there"],
    ),
    (
        "a named port is another's",
        |rows| {
            subject(rows, "pod/shop/db", |subject| {
                subject.ports =
                    subject.ports.iter().map(|port| api::NamedPort { port: port.port + 1, ..*port }).collect();
            })
        },
        &["to pod/shop/db 10.1.0.12, tcp 8081: expected deny"],
    ),
    (
        "a subject of a pod that has ended",
        |rows| {
            let mut added = Vec::new();
            for change in subject(rows, "pod/shop/db", |subject| subject.key.address = "10.1.0.99".parse().unwrap()) {
                let Change::Subject(Delta { new: Some(new), .. }) = change else { continue };
                if new.key.address.is_ipv4() && added.is_empty() {
                    added.push(Change::Subject(Delta::add(new)));
                }
            }
            added
        },
        &["policy: 10.1.0.99: expected nobody; found a subject: pod/shop/db"],
    ),
    (
        "an endpoint behind another's port",
        |rows| {
            let other = endpoint(rows, "10.1.0.13", |e| Change::Endpoint(Delta::add(e.clone())));
            let Some(Change::Endpoint(Delta { new: Some(other), .. })) = other.first() else { return Vec::new() };
            endpoint(rows, "10.1.0.12", |e| {
                Change::Endpoint(Delta::replace(e.clone(), Endpoint { port: other.port, ..e.clone() }))
            })
        },
        &["endpoint: node/n1 192.0.2.1 to pod/shop/db 10.1.0.12", "expected out by shop.db untranslated"],
    ),
    (
        "an endpoint of nobody",
        |rows| {
            endpoint(rows, "10.1.0.12", |e| {
                let key = api::AddressKey { address: "10.1.0.98".parse().unwrap(), ..e.key };
                Change::Endpoint(Delta::add(Endpoint { key, ..e.clone() }))
            })
        },
        &["endpoint: 10.1.0.98: expected nobody; found pod/shop/db"],
    ),
    (
        "an endpoint is gone",
        |rows| endpoint(rows, "10.1.0.12", |e| Change::Endpoint(Delta::remove(e.clone()))),
        &["endpoint: 10.1.0.12: expected pod/shop/db", "found none"],
    ),
    (
        "a pod without an object is let in",
        |rows| guard(rows, "pod/shop/ghost", |guard| guard.isolated = None),
        &["guard: pod/shop/ghost at shop.ghost: expected isolated true; found None"],
    ),
    (
        "a pod is isolated for no reason",
        |rows| guard(rows, "pod/shop/db", |guard| guard.isolated = Some("by mistake".into())),
        &["to pod/shop/db 10.1.0.12", "found dropped: isolated"],
    ),
    (
        "a pod may send from any address",
        |rows| guard(rows, "pod/shop/db", |guard| guard.spoof = false),
        &["guard: pod/shop/db at shop.db: expected spoof guard true; found false"],
    ),
    (
        "a guard is gone",
        |rows| {
            let found = guard(rows, "pod/shop/db", |_| ());
            let removed = found.into_iter().map(|change| match change {
                Change::Guard(Delta { old: Some(old), .. }) => Change::Guard(Delta::remove(old)),
                other => other,
            });
            removed.collect()
        },
        &["guard: pod/shop/db at shop.db: expected a guard; found none"],
    ),
    (
        "a backend is missing",
        |rows| service(rows, |service| service.backends = service.backends[1..].into()),
        &["service: 10.96.0.10:5432 TCP of shop/db: expected 10.1.0.10:5432, 10.1.0.12:5432; found 10.1.0.12:5432"],
    ),
    (
        "a backend is another's",
        |rows| service(rows, |service| service.backends = ["10.1.0.13:5432".parse().unwrap()].into()),
        &["to 10.96.0.10, tcp 5432: expected to one of 10.1.0.10:5432, 10.1.0.12:5432"],
    ),
    (
        "a service of nobody",
        |rows| {
            let mut added = service(rows, |service| service.key.port = 99);
            for change in &mut added {
                if let Change::Service(delta) = change {
                    delta.old = None;
                }
            }
            added
        },
        &["service: 10.96.0.10:99 TCP: expected none; found shop/db"],
    ),
    (
        "a route leads elsewhere",
        |rows| {
            let own = rows.iter().filter_map(|row| match row {
                Change::Route(Delta { new: Some(route), .. }) if route.to == api::Hop::Endpoint => Some(route),
                _ => None,
            });
            own.map(|old| {
                Change::Route(Delta::replace(old.clone(), api::Route { to: api::Hop::Blackhole, ..old.clone() }))
            })
            .collect()
        },
        &["route: 10.1.0.0/16 of node/n1: expected to endpoints here; found Blackhole"],
    ),
];

#[test]
fn every_kind_of_harm_to_the_tables_is_found_and_named() {
    let bed = bed();
    let whole = bed.verify();
    assert!(whole.holds(), "{whole}");
    for (what, harm, words) in HARMS {
        bed.harm(*harm);
        let told = bed.verify().to_string();
        let named = told.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(named, "{what}: no line with {words:?}:\n{told}");
        bed.heal();
        let whole = bed.verify();
        assert!(whole.holds(), "{what}: after it was taken back:\n{whole}");
    }
}

#[test]
fn who_asks_for_some_is_told_of_these() {
    let bed = bed();
    bed.harm(|rows| subject(rows, "pod/shop/web-1", |subject| subject.groups = [].into()));
    for (words, holds) in [
        ("verify --from pod/shop/web-1", false),
        ("verify --to pod/shop/db", false),
        ("verify --from pod/shop/web-0", true),
        ("verify --from pod/shop/web-1 --to pod/shop/api", true),
        ("verify --to svc/shop/db", true),
        ("verify --from 203.0.113.5", true),
    ] {
        let verified: api::reply::Verified = serde_json::from_value(bed.vsctl(words)).unwrap();
        assert_eq!(verified.holds(), holds, "{words}: {verified}");
        assert!(verified.probes > 0, "{words}: nothing was walked");
    }
}
