//! ClusterNetworkPolicies: what is kept, what is refused, and what fails closed.

use serde_json::{Value, json};

use super::*;
use crate::cluster::model::{ClusterPolicy, Tier};

const SUBJECT: &str = "subject: {namespaces: {}}";

fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: c}}\nspec: {spec}\n"
    )
}

fn kept(spec: &str) -> ClusterPolicy {
    let bed = Bed::applied(&policy(spec));
    let policies = &bed.cluster.store.objects().cluster_policies;
    policies.values().next().unwrap().as_ref().clone()
}

fn refused(spec: &str) -> String {
    let mut bed = Bed::new();
    let lines = bed.apply(&policy(spec));
    assert!(bed.cluster.store.objects().cluster_policies.is_empty(), "{spec}: {lines:?}");
    let line = lines.concat();
    let label = "clusternetworkpolicy.policy.networking.k8s.io/c: ";
    line.strip_prefix(label).unwrap_or_else(|| panic!("{line}")).to_owned()
}

fn in_spec(rest: &str) -> String {
    format!("{{tier: Admin, priority: 7, {SUBJECT}, {rest}}}")
}

fn to(action: &str, peers: &str, protocols: &str) -> String {
    let protocols = if protocols.is_empty() { String::new() } else { format!(", protocols: {protocols}") };
    in_spec(&format!("egress: [{{action: {action}, to: {peers}{protocols}}}]"))
}

/// The specification that the random ones are made from.
pub(super) fn good() -> Value {
    json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {"matchLabels": {"a": "b"}}},
        "ingress": [{"name": "n", "action": "Pass", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}]}],
        "egress": [{
            "action": "Accept",
            "to": [{"networks": ["10.0.0.0/8"]}, {"nodes": {}}, {"domainNames": ["a.b"]}],
            "protocols": [{"tcp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}, {"udp": {"destinationPort": {"number": 3}}}],
        }],
    })
}

#[test]
fn every_field_of_a_cluster_policy_is_kept() {
    let spec = "{tier: Baseline, priority: 1000,\n\
        \x20 subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}},\n\
        \x20 ingress: [{name: in, action: Pass, from: [{namespaces: {matchLabels: {env: prod}}}],\n\
        \x20   protocols: [{destinationNamedPort: http}, {sctp: {destinationPort: {number: 9}}}]}],\n\
        \x20 egress: [{action: Deny, to: [{pods: {podSelector: {}}}, {networks: [10.1.2.3/8, \"fd00::/8\"]}, {nodes: {}}],\n\
        \x20   protocols: [{tcp: {destinationPort: {range: {start: 1, end: 65535}}}}, {udp: {destinationPort: {number: 53}}}]},\n\
        \x20   {action: Accept, to: [{networks: [0.0.0.0/0]}]}]}\nstatus: {conditions: []}";
    let prod = || Namespaces::With(Selector(vec![has("env", &["prod"])]));
    let pods = |namespaces, pods| PolicyPeer::Pods(PodSelector { namespaces, pods });
    let port = |proto, first, last| PolicyPort { proto: Some(proto), ports: PolicyPorts::Range(first, last) };
    let block = |cidr| PolicyPeer::Block { cidr: net(cidr), except: vec![] };
    let rule = |action, name: &str, peers, ports| PolicyRule { action, name: name.into(), peers: Some(peers), ports };
    let named = PolicyPort { proto: None, ports: PolicyPorts::Named("http".into()) };
    let is = ClusterPolicy {
        name: "c".into(),
        tier: Tier::Baseline,
        priority: 1000,
        subjects: PodSelector { namespaces: prod(), pods: Selector(vec![has("app", &["web"])]) },
        ingress: vec![rule(
            Action::Pass,
            "in",
            vec![pods(prod(), Selector::default())],
            Some(vec![named, port(Proto::Sctp, 9, 9)]),
        )],
        egress: vec![
            rule(
                Action::Deny,
                "",
                vec![
                    pods(Namespaces::With(Selector::default()), Selector::default()),
                    block("10.0.0.0/8"),
                    block("fd00::/8"),
                    PolicyPeer::Nodes(Selector::default()),
                ],
                Some(vec![port(Proto::Tcp, 1, 65535), port(Proto::Udp, 53, 53)]),
            ),
            rule(Action::Accept, "", vec![block("0.0.0.0/0")], None),
        ],
    };
    assert_eq!(kept(spec), is);
    let table = "NAME  TIER      PRIORITY  INGRESS-RULES  EGRESS-RULES\nc     Baseline  1000      1              2\n";
    assert_eq!(Bed::applied(&policy(spec)).get("cnp"), table);
}

#[test]
fn each_bad_field_of_a_cluster_policy_is_named() {
    let many = |one: &str, count: usize| vec![one; count].join(", ");
    let pods = "[{pods: {podSelector: {}}}]";
    let port = |port: &str| to("Deny", pods, &format!("[{{tcp: {{destinationPort: {port}}}}}]"));
    let prefix = "must be a prefix such as 10.0.0.0/8 or fd00::/8";
    for (spec, why) in [
        ("null".to_owned(), "spec: must be given".to_owned()),
        (format!("{{priority: 1, {SUBJECT}}}"), "spec.tier: must be given".to_owned()),
        (format!("{{tier: admin, priority: 1, {SUBJECT}}}"), "spec.tier: admin: must be Admin or Baseline".to_owned()),
        (format!("{{tier: Admin, {SUBJECT}}}"), "spec.priority: must be given".to_owned()),
        (format!("{{tier: Admin, priority: 1001, {SUBJECT}}}"), "spec.priority: 1001: must be between 0 and 1000".to_owned()),
        (format!("{{tier: Admin, priority: -1, {SUBJECT}}}"), "spec.priority: -1: must be between 0 and 1000".to_owned()),
        ("{tier: Admin, priority: 1}".to_owned(), "spec.subject: must be given".to_owned()),
        ("{tier: Admin, priority: 1, subject: {}}".to_owned(), "spec.subject: must hold exactly one field, and holds none".to_owned()),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}".to_owned(),
            "spec.subject: namespaces, pods: must hold exactly one field".to_owned(),
        ),
        ("{tier: Admin, priority: 1, subject: {nodes: {}}}".to_owned(), "spec.subject.nodes: no such field".to_owned()),
        (
            "{tier: Admin, priority: 1, subject: {pods: {podSelector: {}, more: 1}}}".to_owned(),
            "spec.subject.pods.more: no such field".to_owned(),
        ),
        ("{tier: Admin, priority: 1, subject: {pods: {}}}".to_owned(), "spec.subject.pods.podSelector: must be given".to_owned()),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: a, operator: Like}]}}}".to_owned(),
            "spec.subject.namespaces.matchExpressions[0].operator: Like: must be In, NotIn, Exists or DoesNotExist".to_owned(),
        ),
        (in_spec("rank: 5"), "spec.rank: no such field".to_owned()),
        (in_spec(&format!("ingress: [{{action: Deny, to: {pods}}}]")), "spec.ingress[0].to: no such field".to_owned()),
        (in_spec(&format!("egress: [{{action: Deny, from: {pods}}}]")), "spec.egress[0].from: no such field".to_owned()),
        (in_spec("egress: [{action: Deny}]"), "spec.egress[0].to: must be given".to_owned()),
        (in_spec(&format!("egress: [{{to: {pods}}}]")), "spec.egress[0].action: must be given".to_owned()),
        (to("Allow", pods, ""), "spec.egress[0].action: Allow: must be Accept, Deny or Pass".to_owned()),
        (to("Deny", "[]", ""), "spec.egress[0].to: must hold at least one entry".to_owned()),
        (to("Deny", "[{}]", ""), "spec.egress[0].to[0]: must hold exactly one field, and holds none".to_owned()),
        (
            to("Deny", "[{namespaces: {}, nodes: {}}]", ""),
            "spec.egress[0].to[0]: namespaces, nodes: must hold exactly one field".to_owned(),
        ),
        (to("Deny", "[{namespaces: null}]", ""), "spec.egress[0].to[0].namespaces: invalid type: null, expected LabelSelector".to_owned()),
        (to("Deny", "[{pods: {namespaceSelector: {}}}]", ""), "spec.egress[0].to[0].pods.podSelector: must be given".to_owned()),
        (to("Deny", &format!("[{}]", many("{nodes: {}}", 26)), ""), "spec.egress[0].to: 26: may hold 25 entries".to_owned()),
        (to("Deny", "[{networks: []}]", ""), "spec.egress[0].to[0].networks: must hold at least one entry".to_owned()),
        (to("Deny", "[{networks: 10.0.0.0/8}]", ""), "spec.egress[0].to[0].networks: invalid type: string \"10.0.0.0/8\", expected a sequence".to_owned()),
        (to("Deny", "[{networks: [10.0.0.0/8, 10.0.0.0]}]", ""), format!("spec.egress[0].to[0].networks[1]: 10.0.0.0: {prefix}")),
        (to("Deny", "[{networks: [010.0.0.0/8]}]", ""), format!("spec.egress[0].to[0].networks[0]: 010.0.0.0/8: {prefix}")),
        (to("Deny", "[{networks: [10.0.0.0/08]}]", ""), format!("spec.egress[0].to[0].networks[0]: 10.0.0.0/08: {prefix}")),
        (to("Deny", "[{networks: [\"::ffff:10.0.0.0/104\"]}]", ""), format!("spec.egress[0].to[0].networks[0]: ::ffff:10.0.0.0/104: {prefix}")),
        (to("Deny", "[{networks: [10.0.0.0/8, 10.0.0.0/8]}]", ""), "spec.egress[0].to[0].networks[1]: 10.0.0.0/8: stands before it already".to_owned()),
        (
            to("Accept", "[{domainNames: [kubernetes]}]", ""),
            "spec.egress[0].to[0].domainNames[0]: kubernetes: must be a name of several parts, such as kubernetes.io or *.kubernetes.io".to_owned(),
        ),
        (
            to("Accept", "[{domainNames: [a.*.io]}]", ""),
            "spec.egress[0].to[0].domainNames[0]: a.*.io: must be a name of several parts, such as kubernetes.io or *.kubernetes.io".to_owned(),
        ),
        (to("Deny", pods, "[]"), "spec.egress[0].protocols: must hold at least one entry".to_owned()),
        (to("Deny", pods, "[{}]"), "spec.egress[0].protocols[0]: must hold exactly one field, and holds none".to_owned()),
        (to("Deny", pods, "[{tcp: {}}]"), "spec.egress[0].protocols[0].tcp: must hold exactly one field, and holds none".to_owned()),
        (
            to("Deny", pods, "[{destinationNamedPort: \"80\"}]"),
            "spec.egress[0].protocols[0].destinationNamedPort: 80: must be 1 to 15 of a-z, 0-9 and '-', with a letter, with no '-' at an end or beside another".to_owned(),
        ),
        (
            to("Deny", "[{pods: {podSelector: {}}}, {networks: [10.0.0.0/8]}]", "[{destinationNamedPort: http}]"),
            "spec.egress[0].protocols[0].destinationNamedPort: may not be given beside networks, which have no named ports".to_owned(),
        ),
        (port("{number: 0}"), "spec.egress[0].protocols[0].tcp.destinationPort.number: 0: must be between 1 and 65535".to_owned()),
        (port("{number: 65536}"), "spec.egress[0].protocols[0].tcp.destinationPort.number: 65536: must be between 1 and 65535".to_owned()),
        (port("{number: http}"), "spec.egress[0].protocols[0].tcp.destinationPort.number: invalid type: string \"http\", expected i32".to_owned()),
        (port("{}"), "spec.egress[0].protocols[0].tcp.destinationPort: must hold exactly one field, and holds none".to_owned()),
        (
            port("{number: 1, range: {start: 1, end: 2}}"),
            "spec.egress[0].protocols[0].tcp.destinationPort: number, range: must hold exactly one field".to_owned(),
        ),
        (port("{range: {start: 1}}"), "spec.egress[0].protocols[0].tcp.destinationPort.range.end: must be given".to_owned()),
        (port("{range: {start: 5, end: 5}}"), "spec.egress[0].protocols[0].tcp.destinationPort.range: 5 to 5: start must be less than end".to_owned()),
        (port("{range: {start: 5, end: 65536}}"), "spec.egress[0].protocols[0].tcp.destinationPort.range.end: 65536: must be between 1 and 65535".to_owned()),
        (
            in_spec(&format!("ingress: [{{name: {}, action: Deny, from: {pods}}}]", "x".repeat(101))),
            format!("spec.ingress[0].name: {}...: may have 100 letters", "x".repeat(64)),
        ),
        (
            in_spec(&format!("ingress: [{}]", many(&format!("{{action: Deny, from: {pods}}}"), 26))),
            "spec.ingress: 26: may hold 25 entries".to_owned(),
        ),
    ] {
        assert_eq!(refused(&spec), why, "{spec}");
    }
    let namespaced = policy(&in_spec("ingress: []")).replace("name: c", "name: c, namespace: shop");
    let lines = Bed::new().apply(&namespaced);
    assert!(lines[0].ends_with("metadata.namespace: shop: an object of this kind is in no namespace"), "{lines:?}");
}

#[test]
fn what_is_not_known_fails_closed() {
    let nothing = |action| PolicyRule { action, name: "".into(), peers: Some(vec![]), ports: None };
    let everything = |action| PolicyRule { action, name: "".into(), peers: None, ports: None };
    let pods = "{pods: {podSelector: {}}}";
    for (peers, protocols) in [
        ("[{domainNames: [kubernetes.io, \"*.kubernetes.io.\"]}]".to_owned(), ""),
        (format!("[{pods}, {{domainNames: [kubernetes.io]}}]"), ""),
        ("[{services: {matchLabels: {a: b}}}]".to_owned(), ""),
        (format!("[{{services: {{}}}}, {pods}]"), "[{tcp: {destinationPort: {number: 80}}}]"),
        ("[{pods: {podSelector: {}, serviceAccounts: {}}}]".to_owned(), ""),
        ("[{namespaces: {matchLabels: {}, matchFields: {}}}]".to_owned(), ""),
        (format!("[{pods}]"), "[{icmp: {type: 8}}]"),
        (format!("[{pods}]"), "[{tcp: {sourcePort: {number: 80}}}]"),
        (format!("[{pods}]"), "[{tcp: {destinationPort: {number: 80}, sourcePort: {number: 80}}}]"),
        (format!("[{pods}]"), "[{tcp: {destinationPort: {set: [80, 81]}}}]"),
        (format!("[{pods}]"), "[{udp: {destinationPort: {range: {start: 1, end: 9, step: 2}}}}]"),
    ] {
        for (action, is) in [
            ("Accept", nothing(Action::Accept)),
            ("Deny", everything(Action::Deny)),
            ("Pass", everything(Action::Deny)),
        ] {
            assert_eq!(kept(&to(action, &peers, protocols)).egress, [is], "{action} {peers} {protocols}");
        }
    }
    // Networks, nodes and names are peers of egress; of ingress we know no such thing.
    for peer in ["networks: [10.0.0.0/8]", "nodes: {}", "domainNames: [a.b]"] {
        let ingress = |action: &str| in_spec(&format!("ingress: [{{action: {action}, from: [{{{peer}}}]}}]"));
        assert_eq!(kept(&ingress("Accept")).ingress, [nothing(Action::Accept)], "{peer}");
        assert_eq!(kept(&ingress("Deny")).ingress, [everything(Action::Deny)], "{peer}");
    }
    // What is known stays as it is: the control.
    assert_ne!(kept(&to("Pass", &format!("[{pods}]"), "")).egress, [everything(Action::Deny)]);
}

#[test]
fn policies_of_the_former_version_are_named_and_skipped() {
    for kind in ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"] {
        let text =
            format!("apiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n");
        let skipped = format!("skipped (policy.networking.k8s.io/v1alpha1 {kind} is nothing to a switch)");
        assert_eq!(Bed::new().apply(&text), [format!("{}/x {skipped}", kind.to_ascii_lowercase())]);
    }
}
