//! `verify` of a real switch, programmed by manifests: it holds, and what is planted in the tables behind control's back is
//! found. No privilege: every port is of type null, and packets are only walked.

mod bed;
mod planted;
mod random;

pub(crate) use bed::Bed;

use serde_json::{Value, json};

/// A Pod with an address of each IP version, on a node.
pub(crate) fn pod(namespace: &str, name: &str, labels: &Value, (node, number): (&str, u16)) -> Value {
    let octet = if node == "n1" { 1 } else { 2 };
    let (v4, v6) = (format!("10.{octet}.{}.{}", number >> 8, number & 0xff), format!("fd00:{octet}::{number:x}"));
    let ports =
        json!([{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "uid": format!("{namespace}-{name}")},
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}], "conditions": [{"type": "Ready", "status": "True"}]}
    })
}

/// Nodes n1, where the switch is, and n2.
pub(crate) fn nodes() -> [Value; 2] {
    [1, 2].map(|n| {
        let (v4, v6) = (format!("192.0.2.{n}"), format!("2001:db8::{n}"));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("n{n}"), "labels": {"rank": format!("r{n}")}},
            "spec": {"podCIDRs": [format!("10.{n}.0.0/16"), format!("fd00:{n}::/64")]},
            "status": {"addresses": [{"type": "InternalIP", "address": v4}, {"type": "InternalIP", "address": v6}]}
        })
    })
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

pub(crate) fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}

pub(crate) fn cluster_policy(name: &str, spec: Value) -> Value {
    let version = "policy.networking.k8s.io/v1alpha2";
    json!({"apiVersion": version, "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

/// A thousand pods, each with a policy of its own, and all with another in common.
#[test]
fn a_thousand_pods_and_a_thousand_policies_are_verified() {
    let bed = Bed::new();
    let mut objects = nodes().to_vec();
    objects.extend((0..10).map(|space| namespace(&format!("s{space}"), &json!({"team": format!("t{space}")}))));
    let names: Vec<(String, String)> = (0..1000).map(|n| (format!("s{}", n % 10), format!("p{n}"))).collect();
    for (n, (space, name)) in names.iter().enumerate() {
        let labels = json!({"app": format!("a{n}"), "tier": format!("t{}", n % 7)});
        // Every tenth is elsewhere.
        let node = if n % 10 == 9 { "n2" } else { "n1" };
        objects.push(pod(space, name, &labels, (node, n as u16 + 2)));
        let tier = json!({"podSelector": {"matchLabels": {"tier": format!("t{}", (n + 1) % 7)}}});
        let team = json!({"namespaceSelector": {"matchLabels": {"team": format!("t{}", (n + 3) % 10)}}});
        let block = json!({"ipBlock": {"cidr": format!("203.0.{}.0/24", n % 50), "except": [format!("203.0.{}.8/29", n % 50)]}});
        let ports =
            json!([{"port": 8080}, {"port": 9000 + n % 5, "endPort": 9100}, {"port": "dns", "protocol": "UDP"}]);
        objects.push(policy(
            space,
            name,
            json!({
                "podSelector": {"matchLabels": {"app": format!("a{n}")}},
                "ingress": [{"from": [tier, team, block], "ports": ports}]
            }),
        ));
    }
    bed.apply(&objects);
    let here = names.iter().enumerate().filter(|(n, _)| n % 10 != 9).map(|(_, name)| name);
    bed.bind(&here.map(|(space, name)| (space.as_str(), name.as_str())).collect::<Vec<_>>());
    let verified = bed.verify();
    println!("{verified}");
    assert!(verified.holds(), "{verified}");
    assert_eq!(verified.pods, 1000);
}
