//! Policies of strangers: any JSON, and good policies with something else in them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::cluster;
use crate::cluster::objects::{self, Decoded, decode};

/// JSON of the words that policies are made of, at places where they do and do not belong.
fn any_json() -> impl Strategy<Value = Value> {
    const WORDS: &[&str] = &[
        "podSelector",
        "namespaceSelector",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "In",
        "Exists",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "port",
        "endPort",
        "protocol",
        "TCP",
        "SCTP",
        "policyTypes",
        "Ingress",
        "Egress",
        "ipBlock",
        "cidr",
        "except",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "::/0",
        "tier",
        "Admin",
        "priority",
        "subject",
        "namespaces",
        "pods",
        "action",
        "Accept",
        "Deny",
        "Pass",
        "networks",
        "nodes",
        "domainNames",
        "a.b",
        "protocols",
        "tcp",
        "destinationPort",
        "number",
        "range",
        "start",
        "end",
        "destinationNamedPort",
        "name",
        "",
    ];
    let word = || prop::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), 0..70_000i64, Just(-1)].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        ".{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// A good specification in which something stands in the place of something else.
fn almost_good() -> impl Strategy<Value = Value> {
    let good = json!({
        "podSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "ingress": [{
            "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "ports": [{"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}],
        }],
        "egress": [{}],
        "policyTypes": ["Ingress", "Egress"],
    });
    let cluster = cluster::good();
    let place = (any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 1..6), any_json());
    place.prop_map(move |(first, path, value)| {
        let mut spec = if first { good.clone() } else { cluster.clone() };
        let mut at = &mut spec;
        for step in path {
            let len = at.as_array().map_or_else(|| at.as_object().map_or(0, |fields| fields.len()), Vec::len);
            if len == 0 {
                break;
            }
            at = match at {
                Value::Array(all) => &mut all[step.index(len)],
                Value::Object(fields) => fields.values_mut().nth(step.index(len)).unwrap(),
                _ => unreachable!("it has entries"),
            };
        }
        *at = value;
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_panics_and_what_is_refused_is_told_in_a_line(spec in prop_oneof![any_json(), almost_good()]) {
        for (api_version, kind) in
            [("networking.k8s.io/v1", "NetworkPolicy"), ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy")]
        {
            let text = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
            let decoded = decode(&text.to_string(), "default", &mut objects::Texts::default());
            let Decoded::Known { object, .. } = decoded else { panic!("{kind} is known") };
            if let Err(why) = object {
                prop_assert!(!why.contains('\n') && why.starts_with("spec") && why.len() < 1000, "{why}");
            }
        }
    }
}
