//! NetworkPolicies in manifests: what is kept of them, their defaults, what is refused.

use api::{Action, Proto};
use ipnet::IpNet;

use super::*;
use crate::cluster::model::{
    Namespaces, NetworkPolicy, PodSelector, PolicyPeer, PolicyPort, PolicyPorts, PolicyRule, Requirement, Selector,
    Test, Text,
};

mod arbitrary;
mod cluster;

/// A policy `p` of namespace `shop`.
fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn kept(spec: &str) -> NetworkPolicy {
    let bed = Bed::applied(&policy(spec));
    let policies = &bed.cluster.store.objects().policies;
    policies.values().next().unwrap().as_ref().clone()
}

/// The only rule of an ingress section.
fn kept_rule(rule: &str) -> PolicyRule {
    kept(&format!("{{podSelector: {{}}, ingress: [{rule}]}}")).ingress.unwrap().pop().unwrap()
}

fn kept_peers(peers: &str) -> Option<Vec<PolicyPeer>> {
    kept_rule(&format!("{{from: {peers}}}")).peers
}

fn kept_ports(ports: &str) -> Option<Vec<PolicyPort>> {
    kept_rule(&format!("{{ports: {ports}}}")).ports
}

fn has(key: &str, values: &[&str]) -> Requirement {
    Requirement { key: key.into(), test: Test::In(values.iter().map(|value| Text::from(*value)).collect()) }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn n04_policy_types_have_their_defaults() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, ingress: [{}]}", true, false),
        ("{podSelector: {}, egress: [{}]}", true, true),
        ("{podSelector: {}, egress: []}", true, false),
        ("{podSelector: {}, policyTypes: [], egress: [{}]}", true, true),
        ("{podSelector: {}, policyTypes: [Egress]}", false, true),
        ("{podSelector: {}, policyTypes: [Egress, Egress]}", false, true),
        ("{podSelector: {}, policyTypes: [Egress, Ingress]}", true, true),
        ("{}", true, false),
        ("", true, false),
    ] {
        let policy = kept(spec);
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), (ingress, egress), "{spec}");
    }
}

#[test]
fn n05_a_section_of_another_direction_is_ignored_but_must_be_right() {
    assert_eq!(kept("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}").ingress, None);
    assert_eq!(kept("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}").egress, None);
    let wrong = policy("{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 0}]}]}");
    let why = "networkpolicy.networking.k8s.io/p in namespace shop: spec.ingress[0].ports[0].port: 0: must be between 1 and 65535";
    assert_eq!(Bed::new().apply(&wrong), [why]);
}

#[test]
fn n06_and_n10_all_of_a_selector_must_hold_and_equal_ones_are_equal() {
    assert_eq!(kept("{podSelector: {}}").subjects, Selector::default());
    let subjects = |selector: &str| kept(&format!("{{podSelector: {selector}}}")).subjects;
    let web = Selector(vec![has("app", &["web"]), has("tier", &["a", "b"])]);
    for same in [
        "{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [b, a]}]}",
        "{matchExpressions: [{key: tier, operator: In, values: [a, b, a]}, {key: app, operator: In, values: [web]}]}",
        "{matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [web]}, {key: tier, operator: In, values: [a, b]}]}",
    ] {
        assert_eq!(subjects(same), web, "{same}");
    }
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (Text::from(*k), Text::from(*v))).collect();
    assert!(web.selects(&labels(&[("app", "web"), ("tier", "b"), ("x", "")])));
    assert!(!web.selects(&labels(&[("app", "web"), ("tier", "c")])));
    for (operator, without, with_a, with_b) in [
        ("In, values: [a]", false, true, false),
        ("NotIn, values: [a]", true, false, true),
        ("Exists", false, true, true),
        ("DoesNotExist, values: []", true, false, false),
    ] {
        let selector = subjects(&format!("{{matchExpressions: [{{key: k, operator: {operator}}}]}}"));
        let selects = [&[][..], &[("k", "a")], &[("k", "b")]].map(|pairs| selector.selects(&labels(pairs)));
        assert_eq!(selects, [without, with_a, with_b], "{operator}");
    }
}

#[test]
fn n07_no_rule_lets_nothing_through_and_an_empty_one_everything() {
    let any = PolicyRule { action: Action::Accept, name: "".into(), peers: None, ports: None };
    for (ingress, rules) in [("", vec![]), ("ingress: []", vec![]), ("ingress: [{}]", vec![any])] {
        assert_eq!(kept(&format!("{{podSelector: {{}}, {ingress}}}")).ingress, Some(rules), "{ingress}");
    }
}

#[test]
fn n08_lists_without_entries_are_any() {
    for rule in ["{}", "{from: []}", "{ports: []}", "{from: null, ports: null}", "{from: [], ports: []}"] {
        let PolicyRule { peers, ports, .. } = kept_rule(rule);
        assert_eq!((peers, ports), (None, None), "{rule}");
    }
    let both = kept_rule("{from: [{podSelector: {}}], ports: [{}]}");
    assert!(both.peers.is_some_and(|peers| peers.len() == 1) && both.ports.is_some_and(|ports| ports.len() == 1));
}

#[test]
fn n09_a_peer_is_of_its_own_namespace_unless_it_names_others() {
    let web = || Selector(vec![has("app", &["web"])]);
    let prod = || Namespaces::With(Selector(vec![has("env", &["prod"])]));
    let pods = |namespaces, pods| PolicyPeer::Pods(PodSelector { namespaces, pods });
    let (own, all) = (|| Namespaces::Own("shop".into()), || Namespaces::With(Selector::default()));
    let (web_text, prod_text) =
        ("podSelector: {matchLabels: {app: web}}", "namespaceSelector: {matchLabels: {env: prod}}");
    for (peers, are) in [
        ("[{podSelector: {}}]".to_owned(), vec![pods(own(), Selector::default())]),
        (format!("[{{{web_text}}}]"), vec![pods(own(), web())]),
        ("[{namespaceSelector: {}}]".to_owned(), vec![pods(all(), Selector::default())]),
        (format!("[{{{prod_text}}}]"), vec![pods(prod(), Selector::default())]),
        (format!("[{{{prod_text}, {web_text}}}]"), vec![pods(prod(), web())]),
        (format!("[{{{prod_text}}}, {{{web_text}}}]"), vec![pods(prod(), Selector::default()), pods(own(), web())]),
    ] {
        assert_eq!(kept_peers(&peers), Some(are), "{peers}");
    }
}

#[test]
fn n10_every_namespace_has_its_name_as_a_label() {
    let namespace =
        |labels: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {labels}}}\n");
    for labels in ["{}", "null", "{kubernetes.io/metadata.name: bank}", "{a: b}"] {
        let bed = Bed::applied(&namespace(labels));
        let kept = &bed.cluster.store.objects().namespaces["shop"];
        assert_eq!(kept.get("kubernetes.io/metadata.name").map(|name| &**name), Some("shop"), "{labels}");
        assert_eq!(kept.len(), 1 + usize::from(labels == "{a: b}"));
    }
}

#[test]
fn n11_to_n13_ports_are_numbers_ranges_or_names() {
    let (tcp, udp, sctp) = (Some(Proto::Tcp), Some(Proto::Udp), Some(Proto::Sctp));
    for (port, proto, ports) in [
        ("{}", tcp, PolicyPorts::Range(0, 65535)),
        ("{protocol: SCTP}", sctp, PolicyPorts::Range(0, 65535)),
        ("{port: 80}", tcp, PolicyPorts::Range(80, 80)),
        ("{protocol: UDP, port: 53}", udp, PolicyPorts::Range(53, 53)),
        ("{protocol: SCTP, port: 1, endPort: 65535}", sctp, PolicyPorts::Range(1, 65535)),
        ("{port: 80, endPort: 80}", tcp, PolicyPorts::Range(80, 80)),
        ("{port: http}", tcp, PolicyPorts::Named("http".into())),
        ("{protocol: UDP, port: dns}", udp, PolicyPorts::Named("dns".into())),
    ] {
        assert_eq!(kept_ports(&format!("[{port}]")), Some(vec![PolicyPort { proto, ports }]), "{port}");
    }
}

#[test]
fn n14_a_block_is_a_prefix_without_some_of_its_parts() {
    for (block, cidr, except) in [
        ("{cidr: 10.0.0.0/8}", "10.0.0.0/8", vec![]),
        ("{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]}", "0.0.0.0/0", vec!["10.0.0.0/8", "192.168.0.0/16"]),
        ("{cidr: \"fd00::/8\", except: [\"fd00:1::/32\"]}", "fd00::/8", vec!["fd00:1::/32"]),
        ("{cidr: 10.0.0.7/32}", "10.0.0.7/32", vec![]),
        // Host bits and leading zeros, which the API server has always taken.
        ("{cidr: 10.1.2.3/8, except: [010.001.2.3/16]}", "10.0.0.0/8", vec!["10.1.0.0/16"]),
    ] {
        let is = PolicyPeer::Block { cidr: net(cidr), except: except.into_iter().map(net).collect() };
        assert_eq!(kept_peers(&format!("[{{ipBlock: {block}}}]")), Some(vec![is]), "{block}");
    }
}

#[test]
fn each_bad_field_of_a_policy_is_named() {
    let select = |expression: &str| format!("{{podSelector: {{matchExpressions: [{{{expression}}}]}}}}");
    let from = |peer: &str| format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}, {peer}]}}]}}");
    let to_port = |port: &str| format!("{{podSelector: {{}}, egress: [{{}}, {{ports: [{port}]}}]}}");
    let (key, value) = (
        "must be a key: [PREFIX/]NAME, the name 1 to 63 of A-Z, a-z, 0-9, '-', '_', '.'",
        "must be up to 63 of A-Z, a-z, 0-9, '-', '_', '.'",
    );
    let name = "must be 1 to 15 of a-z, 0-9 and '-', with a letter, with no '-' at an end or beside another";
    let prefix = "must be a prefix such as 10.0.0.0/8 or fd00::/8";
    for (spec, why) in [
        (select("key: a, operator: Is, values: [b]"), "spec.podSelector.matchExpressions[0].operator: Is: must be In, NotIn, Exists or DoesNotExist".to_owned()),
        (select("key: a, operator: In"), "spec.podSelector.matchExpressions[0].values: must be given for operator In or NotIn".to_owned()),
        (select("key: a, operator: NotIn, values: []"), "spec.podSelector.matchExpressions[0].values: must be given for operator In or NotIn".to_owned()),
        (select("key: a, operator: Exists, values: [b]"), "spec.podSelector.matchExpressions[0].values: b: may not be given for operator Exists or DoesNotExist".to_owned()),
        (select("key: -a, operator: Exists"), format!("spec.podSelector.matchExpressions[0].key: -a: {key}")),
        (select("operator: Exists"), format!("spec.podSelector.matchExpressions[0].key: : {key}")),
        (select("key: a, operator: In, values: [b, c d]"), format!("spec.podSelector.matchExpressions[0].values[1]: c d: {value}")),
        ("{podSelector: {matchLabels: {a/b/c: d}}}".to_owned(), format!("spec.podSelector.matchLabels: a/b/c: {key}")),
        ("{podSelector: {matchLabels: {a: -b}}}".to_owned(), format!("spec.podSelector.matchLabels[a]: -b: {value}")),
        ("{podSelector: {app: web}}".to_owned(), "spec.podSelector.app: no such field".to_owned()),
        (from("{}"), "spec.ingress[0].from[1]: must specify a peer".to_owned()),
        (from("{podSelector: null}"), "spec.ingress[0].from[1]: must specify a peer".to_owned()),
        (from("{namespaceSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}"), "spec.ingress[0].from[1].namespaceSelector.matchExpressions[0].operator: in: must be In, NotIn, Exists or DoesNotExist".to_owned()),
        (from("{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"), "spec.ingress[0].from[1]: may not specify both ipBlock and another peer".to_owned()),
        (from("{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}"), "spec.ingress[0].from[1]: may not specify both ipBlock and another peer".to_owned()),
        (from("{ipBlock: {}}"), "spec.ingress[0].from[1].ipBlock.cidr: must be given".to_owned()),
        (from("{ipBlock: {cidr: 10.0.0.1}}"), format!("spec.ingress[0].from[1].ipBlock.cidr: 10.0.0.1: {prefix}")),
        (from("{ipBlock: {cidr: 10.0.0.0/33}}"), format!("spec.ingress[0].from[1].ipBlock.cidr: 10.0.0.0/33: {prefix}")),
        (from("{ipBlock: {cidr: \" 10.0.0.0/8\"}}"), format!("spec.ingress[0].from[1].ipBlock.cidr:  10.0.0.0/8: {prefix}")),
        (from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0]}}"), format!("spec.ingress[0].from[1].ipBlock.except[0]: 10.1.0.0: {prefix}")),
        (from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}}"), "spec.ingress[0].from[1].ipBlock.except[1]: 11.0.0.0/16: must be a strict subset of cidr".to_owned()),
        (from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"), "spec.ingress[0].from[1].ipBlock.except[0]: 10.0.0.0/8: must be a strict subset of cidr".to_owned()),
        (from("{ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}"), "spec.ingress[0].from[1].ipBlock.except[0]: 0.0.0.0/0: must be a strict subset of cidr".to_owned()),
        (from("{ipBlock: {cidr: 0.0.0.0/0, except: [\"fd00::/16\"]}}"), "spec.ingress[0].from[1].ipBlock.except[0]: fd00::/16: must be a strict subset of cidr".to_owned()),
        (from("{domainNames: [a.b]}"), "spec.ingress[0].from[1].domainNames: no such field".to_owned()),
        (from("null"), "spec.ingress[0].from[1]: invalid type: null, expected NetworkPolicyPeer".to_owned()),
        (to_port("{port: 0}"), "spec.egress[1].ports[0].port: 0: must be between 1 and 65535".to_owned()),
        (to_port("{port: 65536}"), "spec.egress[1].ports[0].port: 65536: must be between 1 and 65535".to_owned()),
        (to_port("{port: -1, endPort: 2}"), "spec.egress[1].ports[0].port: -1: must be between 1 and 65535".to_owned()),
        (to_port("{endPort: 80}"), "spec.egress[1].ports[0].endPort: 80: may not be given without port".to_owned()),
        (to_port("{port: http, endPort: 80}"), "spec.egress[1].ports[0].endPort: 80: may not be given when port is a name".to_owned()),
        (to_port("{port: 80, endPort: 79}"), "spec.egress[1].ports[0].endPort: 79: must be greater than or equal to port".to_owned()),
        (to_port("{port: 80, endPort: 65536}"), "spec.egress[1].ports[0].endPort: 65536: must be between 1 and 65535".to_owned()),
        (to_port("{port: \"80\"}"), format!("spec.egress[1].ports[0].port: 80: {name}")),
        (to_port("{port: \"\"}"), format!("spec.egress[1].ports[0].port: : {name}")),
        (to_port("{port: a_b}"), format!("spec.egress[1].ports[0].port: a_b: {name}")),
        (to_port("{port: 80.5}"), "spec.egress[1].ports[0].port: invalid type: floating point `80.5`, expected IntOrString".to_owned()),
        (to_port("{protocol: ICMP}"), "spec.egress[1].ports[0].protocol: ICMP: must be TCP, UDP or SCTP".to_owned()),
        (to_port("{protocol: tcp}"), "spec.egress[1].ports[0].protocol: tcp: must be TCP, UDP or SCTP".to_owned()),
        (to_port("{protocol: \"\"}"), "spec.egress[1].ports[0].protocol: : must be TCP, UDP or SCTP".to_owned()),
        ("{podSelector: {}, policyTypes: [ingress]}".to_owned(), "spec.policyTypes[0]: ingress: must be Ingress or Egress".to_owned()),
        ("{podSelector: {}, policyTypes: [Ingress, Egress, Egress]}".to_owned(), "spec.policyTypes: Ingress,Egress,Egress: may hold two".to_owned()),
        ("{podSelector: {}, policyTypes: Ingress}".to_owned(), "spec.policyTypes: invalid type: string \"Ingress\", expected a sequence".to_owned()),
        ("{podSelector: {}, priority: 5}".to_owned(), "spec.priority: no such field".to_owned()),
    ] {
        let lines = Bed::new().apply(&policy(&spec));
        assert_eq!(lines, [format!("networkpolicy.networking.k8s.io/p in namespace shop: {why}")], "{spec}");
    }
}

#[test]
fn n27_a_policy_has_no_status() {
    let with_status = policy("{podSelector: {}}") + "status: {}\n";
    let why = "networkpolicy.networking.k8s.io/p in namespace shop: status: no such field";
    assert_eq!(Bed::new().apply(&with_status), [why]);
}

#[test]
fn a_refused_version_leaves_the_former_one_in_force() {
    let good = policy("{podSelector: {matchLabels: {app: db}}}");
    let bad = policy("{podSelector: {}, ingress: [{}], policyTypes: [None]}");
    let mut bed = Bed::applied(&good);
    let before = bed.all();
    let lines = bed.apply(&bad);
    assert!(lines[0].ends_with("spec.policyTypes[0]: None: must be Ingress or Egress"), "{lines:?}");
    assert_eq!(bed.all(), before);
    let bed = bed.reopen();
    assert_eq!(bed.all(), before);

    // In a file too.
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("m");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("p.yaml"), &good).unwrap();
    let mut cluster = Cluster::open(directory.path(), Some(&manifests)).unwrap();
    let before = get(&cluster, "netpol", Some(Output::Json));
    fs::write(manifests.join("p.yaml"), &bad).unwrap();
    cluster.read_manifests();
    assert_eq!(get(&cluster, "netpol", Some(Output::Json)), before);
    fs::write(manifests.join("p.yaml"), good.replace("db", "web")).unwrap();
    cluster.read_manifests();
    assert!(get(&cluster, "netpol", None).contains("app=web"));
}

#[test]
fn tables_are_those_of_kubectl_and_wide_tells_of_the_directions() {
    let mut bed = Bed::applied(&policy(
        "{podSelector: {matchLabels: {b: c}, matchExpressions: [{key: a, operator: NotIn, values: [y, x]}]}, egress: [{}, {}]}",
    ));
    bed.apply(&policy("{podSelector: {}}").replace("name: p", "name: all"));
    let table = "NAMESPACE  NAME  POD-SELECTOR       POLICY-TYPES    INGRESS-RULES  EGRESS-RULES\n\
                 shop       all   <none>             Ingress         0              <none>\n\
                 shop       p     a notin (x,y),b=c  Ingress,Egress  0              2\n";
    assert_eq!(bed.get("netpol"), table);
    let narrow = get(&bed.cluster, "networkpolicies", None);
    assert!(narrow.starts_with("NAMESPACE  NAME  POD-SELECTOR\n"), "{narrow}");
    assert!(get(&bed.cluster, "netpol", Some(Output::Yaml)).contains("operator: NotIn"));
}
