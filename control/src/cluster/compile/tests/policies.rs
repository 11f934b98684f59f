//! Policies: rows N1 to N27 of the specification, by what the switch's nouns say of connections.

use api::Action;

use super::super::policies::tests::{
    block, cluster_policy, decides, labels, pods, pods_of, policy, port_named, ports, rule, selector,
};
use super::*;
use crate::cluster::model::{ClusterPolicy, ContainerPort, NetworkPolicy, PolicyPeer, Tier};

const TCP: Option<Proto> = Some(Proto::Tcp);
const UDP: Option<Proto> = Some(Proto::Udp);
const SCTP: Option<Proto> = Some(Proto::Sctp);

const WEB: &str = "10.1.0.2";
const DB: &str = "10.1.0.3";
const OTHER: &str = "10.2.0.4";
const OUTSIDE: &str = "198.51.100.7";

/// Pods `p2` (web) and `p3` (db) of namespace `default` here, and `x` of namespace `other` elsewhere; node `n1`.
fn world() -> World {
    let mut world = World::new();
    world.set_node(node("n1", &["10.1.0.0/24"], &["192.0.2.1"]));
    world.set_namespace("default", "team=a");
    world.set_namespace("other", "team=b");
    world.set_pod(labelled("p2", WEB, "app=web"));
    world.set_pod(labelled("p3", DB, "app=db"));
    world.set_pod(elsewhere("x", OTHER, "app=web"));
    world
}

fn labelled(name: &str, address: &str, text: &str) -> Pod {
    Pod { labels: labels(text), ..pod(name, address) }
}

fn elsewhere(name: &str, address: &str, text: &str) -> Pod {
    let id = Named { namespace: "other".into(), name: name.into() };
    Pod { id, node: Some("n2".into()), ..labelled(name, address, text) }
}

impl World {
    pub(super) fn set_namespace(&mut self, name: &str, text: &str) -> usize {
        self.objects.namespaces.insert(name.into(), labels(text));
        self.update(Changed::Namespace(name.into()))
    }

    fn set_policy(&mut self, policy: NetworkPolicy) -> usize {
        let id = policy.id.clone();
        self.objects.policies.insert(id.clone(), Arc::new(policy));
        self.update(Changed::Policy(id))
    }

    fn remove_policy(&mut self, name: &str) {
        self.objects.policies.remove(&named(name));
        self.update(Changed::Policy(named(name)));
    }

    fn set_cluster_policy(&mut self, policy: ClusterPolicy) -> usize {
        let name = policy.name.clone();
        self.objects.cluster_policies.insert(name.clone(), Arc::new(policy));
        self.update(Changed::ClusterPolicy(name))
    }

    fn allows(&self, from: &str, to: &str, proto: Option<Proto>, port: u16) -> bool {
        decides(&self.switch, from, to, proto, port).0
    }

    fn decider(&self, from: &str, to: &str, proto: Option<Proto>, port: u16) -> String {
        decides(&self.switch, from, to, proto, port).1
    }

    fn subject(&self, address: &str) -> &api::Subject {
        self.switch.subjects.values().find(|subject| subject.key.address == ip(address)).unwrap()
    }
}

fn isolate(name: &str, subjects: &str) -> NetworkPolicy {
    NetworkPolicy { ingress: Some(Vec::new()), ..policy(name, subjects) }
}

#[test]
fn n01_a_pod_that_no_policy_selects_is_open() {
    let mut world = world();
    for (from, to) in [(WEB, DB), (OTHER, DB), (OUTSIDE, WEB), (WEB, OUTSIDE)] {
        assert!(world.allows(from, to, TCP, 80), "{from} {to}");
    }
    assert_eq!((world.subject(WEB).ingress, world.switch.rulesets.len()), (None, 0));
    world.set_policy(isolate("deny", "app=db"));
    assert!(!world.allows(WEB, DB, TCP, 80) && !world.allows(OUTSIDE, DB, UDP, 53));
    assert!(world.allows(DB, WEB, TCP, 80), "the other direction is not isolated");
    assert_eq!(world.decider(WEB, DB, TCP, 80), "default of default/deny");
}

#[test]
fn n02_a_connection_passes_when_both_ends_let_it() {
    let mut world = world();
    let mut egress = policy("out", "app=web");
    egress.egress = Some(vec![rule(&[pods("app=db")], &[ports(Proto::Tcp, 80, 80)])]);
    world.set_policy(egress);
    assert!(world.allows(WEB, DB, TCP, 80) && !world.allows(WEB, DB, TCP, 81));
    world.set_policy(isolate("deny", "app=db"));
    assert!(!world.allows(WEB, DB, TCP, 80));
    let mut ingress = policy("in", "app=db");
    ingress.ingress = Some(vec![rule(&[pods("app=web")], &[])]);
    world.set_policy(ingress);
    assert!(world.allows(WEB, DB, TCP, 80));
    assert_eq!(world.decider(WEB, DB, TCP, 80), "networkpolicy default/in rule 0");
}

#[test]
fn n03_policies_and_rules_only_add() {
    let rules = [rule(&[block("198.51.100.0/24", &[])], &[]), rule(&[pods("app=web")], &[])];
    let mut told = Vec::new();
    for names in [["a", "b"], ["b", "a"]] {
        let mut world = world();
        for (name, rule) in names.iter().zip(&rules) {
            world.set_policy(NetworkPolicy { ingress: Some(vec![rule.clone()]), ..policy(name, "app=db") });
        }
        world.set_policy(isolate("deny-all", ""));
        told.push([OUTSIDE, WEB, OTHER].map(|from| world.allows(from, DB, TCP, 80)));
    }
    assert_eq!(told, [[true, true, false]; 2]);
}

#[test]
fn n05_a_direction_that_is_no_type_of_the_policy_is_not_isolated() {
    let mut world = world();
    world.set_policy(NetworkPolicy { egress: Some(Vec::new()), ..policy("no-egress", "") });
    assert!(world.subject(WEB).ingress.is_none() && world.subject(WEB).egress.is_some());
    assert!(world.allows(OUTSIDE, WEB, TCP, 80) && !world.allows(WEB, OUTSIDE, TCP, 80));
}

#[test]
fn n06_an_empty_selector_selects_every_pod_of_the_namespace_and_no_other() {
    let mut world = world();
    world.set_policy(isolate("deny", ""));
    assert_eq!([WEB, DB, OTHER].map(|to| world.allows(OUTSIDE, to, TCP, 80)), [false, false, true]);
}

#[test]
fn n07_no_rule_lets_nothing_through_and_an_empty_rule_everything() {
    let mut world = world();
    world.set_policy(isolate("one", "app=db"));
    assert!(!world.allows(WEB, DB, None, 0));
    world.set_policy(NetworkPolicy { ingress: Some(vec![rule(&[], &[])]), ..policy("one", "app=db") });
    assert!(world.allows(WEB, DB, None, 0) && world.allows(OUTSIDE, DB, UDP, 1));
}

#[test]
fn n08_peers_and_ports_are_both_asked_and_each_list_is_of_alternatives() {
    let mut world = world();
    let both = [ports(Proto::Tcp, 80, 80), ports(Proto::Udp, 53, 53)];
    let either = [pods("app=web"), block("198.51.100.0/24", &[])];
    world.set_policy(NetworkPolicy { ingress: Some(vec![rule(&either, &both)]), ..policy("p", "app=db") });
    for (from, proto, port, wanted) in [
        (WEB, TCP, 80, true),
        (OUTSIDE, UDP, 53, true),
        (WEB, TCP, 53, false),
        (OTHER, TCP, 80, false),
        (WEB, None, 0, false),
    ] {
        assert_eq!(world.allows(from, DB, proto, port), wanted, "{from} {proto:?} {port}");
    }
    // Peers that are not known here select nobody, and the rule keeps its place.
    let mut nobody = rule(&[], &[]);
    nobody.peers = Some(Vec::new());
    let rules = vec![nobody, rule(&[pods("app=web")], &[])];
    world.set_policy(NetworkPolicy { ingress: Some(rules), ..policy("p", "app=db") });
    assert!(!world.allows(OUTSIDE, DB, TCP, 80));
    assert_eq!(world.decider(WEB, DB, TCP, 80), "networkpolicy default/p rule 1");
}

#[test]
fn n09_peers_are_pods_of_the_own_namespace_or_of_selected_ones() {
    let mut world = world();
    for (peer, wanted) in [
        (pods("app=web"), [true, false, false]),
        (pods(""), [true, false, false]),
        (pods_of("", ""), [true, true, false]),
        (pods_of("team=b", ""), [false, true, false]),
        (pods_of("team=b", "app=db"), [false, false, false]),
        (pods_of("team=b", "app=web"), [false, true, false]),
        (pods_of("team=c", ""), [false, false, false]),
    ] {
        world.set_policy(NetworkPolicy {
            ingress: Some(vec![rule(std::slice::from_ref(&peer), &[])]),
            ..policy("p", "app=db")
        });
        assert_eq!([WEB, OTHER, OUTSIDE].map(|from| world.allows(from, DB, TCP, 80)), wanted, "{peer:?}");
    }
}

#[test]
fn n10_every_test_of_labels_and_the_name_of_a_namespace_without_an_object() {
    let mut world = world();
    for (text, wanted) in [
        ("app in web|db", true),
        ("app notin web", false),
        ("tier notin x", true),
        ("app", true),
        ("tier", false),
        ("!app", false),
        ("!tier,app=web", true),
    ] {
        world.set_policy(NetworkPolicy { ingress: Some(vec![rule(&[pods(text)], &[])]), ..policy("p", "app=db") });
        assert_eq!(world.allows(WEB, DB, TCP, 80), wanted, "{text}");
    }
    let by_name = rule(&[pods_of("kubernetes.io/metadata.name=other", "")], &[]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![by_name]), ..policy("p", "app=db") });
    assert!(world.allows(OTHER, DB, TCP, 80) && !world.allows(WEB, DB, TCP, 80));
    world.objects.namespaces.remove("other");
    world.update(Changed::Namespace("other".into()));
    assert!(world.allows(OTHER, DB, TCP, 80), "there is no object");
    world.set_namespace("other", "kubernetes.io/metadata.name=default");
    assert!(world.allows(OTHER, DB, TCP, 80), "the label is always the name");
}

#[test]
fn n12_a_named_port_is_what_each_destination_calls_so() {
    let mut world = world();
    let named_port = |name: &str, proto, port| ContainerPort { name: name.into(), proto, port };
    let web = |port| vec![named_port("http", Proto::Tcp, port), named_port("unused", Proto::Tcp, 9)];
    world.set_pod(Pod { ports: web(8080), ..labelled("p2", WEB, "app=web") });
    world.set_pod(Pod { ports: vec![named_port("http", Proto::Udp, 80)], ..labelled("p3", DB, "app=db") });
    assert!(world.subject(WEB).ports.is_empty(), "no rule names one");
    let http = rule(&[], &[port_named(TCP, "http")]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![http.clone()]), ..policy("p", "") });
    assert_eq!(world.subject(WEB).ports.len(), 1);
    assert!(world.allows(OUTSIDE, WEB, TCP, 8080) && !world.allows(OUTSIDE, WEB, TCP, 9));
    assert!(!world.allows(OUTSIDE, DB, TCP, 80) && !world.allows(OUTSIDE, DB, UDP, 80), "name and protocol");
    world.set_pod(Pod { ports: web(9090), ..labelled("p2", WEB, "app=web") });
    assert!(world.allows(OUTSIDE, WEB, TCP, 9090) && !world.allows(OUTSIDE, WEB, TCP, 8080));
    // Egress: of the peer, and never of an address.
    world.remove_policy("p");
    assert!(world.subject(WEB).ports.is_empty());
    let to_web = rule(&[pods("app=web")], &[port_named(TCP, "http")]);
    world.set_policy(NetworkPolicy { egress: Some(vec![to_web]), ..policy("p", "app=db") });
    assert!(world.allows(DB, WEB, TCP, 9090) && !world.allows(DB, OUTSIDE, TCP, 9090));
    let to_block = rule(&[block("0.0.0.0/0", &[])], &[port_named(TCP, "http")]);
    world.set_policy(NetworkPolicy { egress: Some(vec![to_block]), ..policy("p", "app=db") });
    assert!(!world.allows(DB, WEB, TCP, 9090));
}

#[test]
fn n13_a_range_of_ports_includes_both_ends() {
    let mut world = world();
    let range = rule(&[], &[ports(Proto::Tcp, 8000, 8002)]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![range]), ..policy("p", "app=db") });
    let told = [7999, 8000, 8001, 8002, 8003].map(|port| world.allows(WEB, DB, TCP, port));
    assert_eq!(told, [false, true, true, true, false]);
}

#[test]
fn n14_a_block_is_without_its_exceptions_and_another_may_let_those_in() {
    let mut world = world();
    let all = block("0.0.0.0/0", &["198.51.100.0/24"]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![rule(&[all], &[])]), ..policy("p", "app=db") });
    assert!(!world.allows(OUTSIDE, DB, TCP, 80) && world.allows("203.0.113.1", DB, TCP, 80));
    let again = rule(&[block("198.51.100.7/32", &[])], &[]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![again]), ..policy("q", "app=db") });
    assert!(world.allows(OUTSIDE, DB, TCP, 80) && !world.allows("198.51.100.8", DB, TCP, 80));
    world.set_pod(Pod { addresses: vec![ip(DB), ip("fd00::3")], ..labelled("p3", DB, "app=db") });
    assert!(!world.allows("2001:db8::1", "fd00::3", TCP, 80), "0.0.0.0/0 has no IPv6 address in it");
}

#[test]
fn n15_a_block_is_of_pods_too() {
    let mut world = world();
    let to = rule(&[block("10.2.0.0/16", &[])], &[]);
    world.set_policy(NetworkPolicy { egress: Some(vec![to]), ..policy("p", "app=web") });
    assert!(world.allows(WEB, OTHER, TCP, 80) && !world.allows(WEB, DB, TCP, 80));
}

#[test]
fn n20_pods_of_the_host_network_are_in_no_group_and_no_policy_is_about_them() {
    let mut world = world();
    world.set_pod(Pod { host_network: true, ..labelled("p4", "192.0.2.1", "app=web") });
    world.set_policy(isolate("deny", ""));
    assert_eq!(world.switch.subjects.len(), 3);
    assert!(world.allows(OUTSIDE, "192.0.2.1", TCP, 80));
    let from_web = rule(&[pods("app=web")], &[]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![from_web]), ..policy("p", "app=db") });
    assert!(world.allows(WEB, DB, TCP, 80) && !world.allows("192.0.2.1", DB, TCP, 80));
    let mut all = cluster_policy("all", Tier::Admin, 0);
    all.ingress = vec![api_rule(Action::Deny, &[], &[])];
    world.set_cluster_policy(all);
    assert!(world.allows(OUTSIDE, "192.0.2.1", TCP, 80) && !world.allows(WEB, DB, TCP, 80));
}

#[test]
fn n21_protocols_are_apart_and_a_policy_of_one_isolates_from_all() {
    let mut world = world();
    let sctp = rule(&[], &[ports(Proto::Sctp, 80, 80)]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![sctp]), ..policy("p", "app=db") });
    let told = [SCTP, TCP, UDP, None].map(|proto| world.allows(WEB, DB, proto, 80));
    assert_eq!(told, [true, false, false, false]);
}

#[test]
fn n11_all_ports_of_a_protocol() {
    let mut world = world();
    let tcp = rule(&[], &[ports(Proto::Tcp, 0, 65535)]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![tcp]), ..policy("p", "app=db") });
    assert!(world.allows(WEB, DB, TCP, 1) && world.allows(WEB, DB, TCP, 65535) && !world.allows(WEB, DB, UDP, 1));
}

#[test]
fn n22_a_pod_is_isolated_until_it_is_known_who_it_is_and_by_its_policies_from_then_on() {
    let mut world = World::new();
    let why = |world: &World| world.switch.guards[&PortId(4)].isolated.as_deref().map(str::to_owned);
    world.rebind(Some(context(&[2, 3, 4], None)));
    assert_eq!(why(&world).as_deref(), Some("no cluster state yet"));
    world.set_policy(isolate("deny", ""));
    assert_eq!(why(&world).as_deref(), Some("no Pod object default/p4"));
    world.set_pod(Pod { addresses: Vec::new(), ..pod("p4", "10.1.0.4") });
    assert_eq!(why(&world).as_deref(), Some("pod default/p4 has no address yet"));
    // With the object comes what its policies say, in one transaction.
    world.set_pod(pod("p4", "10.1.0.4"));
    assert_eq!(why(&world), None);
    assert!(!world.allows(WEB, "10.1.0.4", TCP, 80));
    let guard = &world.switch.guards[&PortId(4)];
    assert_eq!(
        (&guard.addresses[..], guard.mac, guard.local),
        (&[ip("10.1.0.4")][..], attached(4).mac, Some(PortId(1)))
    );
    assert!(guard.spoof && !guard.groups);
    for (no, told) in [
        (Pod { finished: true, ..pod("p4", "10.1.0.4") }, "pod default/p4 has ended"),
        (Pod { host_network: true, ..pod("p4", "192.0.2.1") }, "pod default/p4 is in the host network"),
        (Pod { node: Some("n2".into()), ..pod("p4", "10.1.0.4") }, "pod default/p4 is on node n2"),
    ] {
        world.set_pod(no);
        assert_eq!(why(&world).as_deref(), Some(told));
        assert!(world.switch.guards[&PortId(4)].addresses.is_empty());
    }
}

#[test]
fn n23_labels_of_pods_and_namespaces_and_policies_count_as_they_are_now() {
    let mut world = world();
    let from = rule(&[pods_of("team=b", "app=web")], &[]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![from.clone()]), ..policy("p", "app=db") });
    assert!(world.allows(OTHER, DB, TCP, 80));
    assert_eq!(world.set_pod(elsewhere("x", OTHER, "app=api")), 1, "one subject");
    assert!(!world.allows(OTHER, DB, TCP, 80));
    world.set_pod(elsewhere("x", OTHER, "app=web"));
    assert_eq!(world.set_namespace("other", "team=c"), 1);
    assert!(!world.allows(OTHER, DB, TCP, 80));
    assert_eq!(world.set_namespace("other", "team=c,more=x"), 0, "nothing asks for it");
    world.set_namespace("other", "team=b");
    assert!(world.allows(OTHER, DB, TCP, 80));
    world.set_pod(labelled("p3", DB, "app=free"));
    assert!(world.allows(OUTSIDE, DB, TCP, 80), "it is not selected any more");
    assert_eq!(world.switch.rulesets.len(), 0);
    world.set_policy(NetworkPolicy { ingress: Some(vec![from]), ..policy("p", "app=free") });
    assert!(!world.allows(OUTSIDE, DB, TCP, 80) && world.allows(OTHER, DB, TCP, 80));
}

#[test]
fn n25_a_policy_that_goes_leaves_its_pods_as_open_as_before() {
    let mut world = world();
    let before = (world.switch.subjects.clone(), world.switch.rulesets.clone(), world.switch.guards.clone());
    let mut both = isolate("p", "");
    both.ingress = Some(vec![rule(&[pods("app=web"), pods_of("", "")], &[port_named(TCP, "http")])]);
    world.set_policy(both);
    assert!(!world.allows(OUTSIDE, WEB, TCP, 80));
    world.remove_policy("p");
    let after = (world.switch.subjects.clone(), world.switch.rulesets.clone(), world.switch.guards.clone());
    assert_eq!(after, before);
}

#[test]
fn n26_pods_that_ended_are_nobody_and_those_that_terminate_still_somebody() {
    let mut world = world();
    let from = rule(&[pods("app=web")], &[]);
    world.set_policy(NetworkPolicy { ingress: Some(vec![from]), ..policy("p", "app=db") });
    world.set_pod(Pod { terminating: true, ..labelled("p2", WEB, "app=web") });
    assert!(world.allows(WEB, DB, TCP, 80));
    world.set_pod(Pod { finished: true, ..labelled("p2", WEB, "app=web") });
    assert!(!world.allows(WEB, DB, TCP, 80));
    // Its address is another's from now on.
    world.set_pod(labelled("p4", WEB, "app=api"));
    assert_eq!(&*world.subject(WEB).name, "pod/default/p4");
}

fn api_rule(
    action: Action,
    peers: &[PolicyPeer],
    among: &[crate::cluster::model::PolicyPort],
) -> crate::cluster::model::PolicyRule {
    crate::cluster::model::PolicyRule { action, ..rule(peers, among) }
}

#[test]
fn row_2_2_tiers_are_asked_in_order_and_pass_leaves_one() {
    let mut world = world();
    let tcp = |port| [ports(Proto::Tcp, port, port)];
    let admin = |priority, rules: Vec<_>| {
        let mut made = cluster_policy(&format!("a{priority}"), Tier::Admin, priority);
        made.ingress = rules;
        made
    };
    // Lower first, whatever comes first.
    world.set_cluster_policy(admin(
        20,
        vec![api_rule(Action::Accept, &[], &tcp(80)), api_rule(Action::Deny, &[], &tcp(85))],
    ));
    world.set_cluster_policy(admin(
        10,
        vec![
            api_rule(Action::Deny, &[pods_of("team=b", "")], &tcp(80)),
            api_rule(Action::Pass, &[pods_of("team=b", "")], &tcp(85)),
        ],
    ));
    let mut baseline = cluster_policy("base", Tier::Baseline, 0);
    baseline.ingress = vec![api_rule(Action::Deny, &[], &tcp(90))];
    world.set_cluster_policy(baseline);
    for (from, port, wanted) in [
        (OTHER, 80, "clusternetworkpolicy a10 rule 0"),
        (WEB, 80, "clusternetworkpolicy a20 rule 0"),
        (OTHER, 85, "default"),
        (WEB, 85, "clusternetworkpolicy a20 rule 1"),
        (WEB, 90, "clusternetworkpolicy base rule 0"),
        (WEB, 91, "default"),
    ] {
        assert_eq!(world.decider(from, DB, TCP, port), wanted, "{from} {port}");
    }
    assert!(world.allows(WEB, DB, TCP, 91), "what nobody decides is let through");
    assert!(world.subject(DB).egress.is_none(), "it has no rule of that direction");
    // A policy of the namespace is final: tier Baseline is not asked any more, tier Admin is.
    let mut final_one = isolate("only-90", "");
    final_one.ingress = Some(vec![rule(&[], &tcp(90))]);
    world.set_policy(final_one);
    for (from, port, wanted) in [
        (WEB, 80, "clusternetworkpolicy a20 rule 0"),
        (WEB, 90, "networkpolicy default/only-90 rule 0"),
        (WEB, 91, "default of default/only-90"),
        (OTHER, 85, "default of default/only-90"),
    ] {
        assert_eq!(world.decider(from, DB, TCP, port), wanted, "{from} {port}");
    }
    // The order is by priority as it is now.
    world.set_cluster_policy(ClusterPolicy { priority: 5, ..admin(20, vec![api_rule(Action::Accept, &[], &tcp(80))]) });
    assert_eq!(world.decider(OTHER, DB, TCP, 80), "clusternetworkpolicy a20 rule 0");
}

#[test]
fn row_2_2_named_ports_of_any_protocol_and_nodes_by_their_labels() {
    let mut world = world();
    let http = |proto| ContainerPort { name: "http".into(), proto, port: 80 };
    world.set_pod(Pod { ports: vec![http(Proto::Udp)], ..labelled("p3", DB, "app=db") });
    let mut made = cluster_policy("c", Tier::Admin, 0);
    made.ingress = vec![api_rule(Action::Deny, &[], &[port_named(None, "http")])];
    made.egress = vec![api_rule(Action::Deny, &[PolicyPeer::Nodes(selector("role=db"))], &[])];
    world.set_cluster_policy(made);
    assert!(!world.allows(WEB, DB, UDP, 80) && world.allows(WEB, DB, TCP, 80));
    assert!(world.allows(WEB, "192.0.2.9", TCP, 80));
    let machine = |text: &str| Node { labels: labels(text), ..node("n9", &[], &["192.0.2.9", "2001:db8::9"]) };
    world.set_node(machine("role=db"));
    assert!(!world.allows(WEB, "192.0.2.9", TCP, 80) && !world.allows(WEB, "2001:db8::9", None, 0));
    world.set_node(machine("role=web"));
    assert!(world.allows(WEB, "192.0.2.9", TCP, 80));
}

#[test]
fn pods_to_which_the_same_applies_share_everything() {
    let mut world = world();
    world.set_policy(NetworkPolicy { ingress: Some(vec![rule(&[pods("app=web")], &[])]), ..policy("p", "") });
    for number in 10..20 {
        world.set_pod(labelled(&format!("w{number}"), &format!("10.1.0.{number}"), "app=web"));
    }
    let (one, other) = (world.subject("10.1.0.10"), world.subject("10.1.0.19"));
    assert!(Arc::ptr_eq(&one.groups, &other.groups));
    assert_eq!((one.ingress, world.switch.rulesets.len()), (other.ingress, 1));
    // A rule that changes is no business of the pods.
    let more = rule(&[pods("app=web")], &[ports(Proto::Tcp, 80, 80)]);
    assert_eq!(world.set_policy(NetworkPolicy { ingress: Some(vec![more]), ..policy("p", "") }), 1, "the ruleset");
}

#[test]
fn the_default_names_those_who_isolate_and_not_too_many() {
    let mut world = world();
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.set_policy(isolate(name, "app=db"));
        if name == "b" {
            assert_eq!(world.decider(WEB, DB, TCP, 80), "default of default/a, default/b");
        }
    }
    assert_eq!(world.decider(WEB, DB, TCP, 80), "default of default/a, default/b, default/c, default/d and 2 more");
}

#[test]
fn of_two_pods_with_one_address_the_attached_one_has_it_and_may_speak_from_it() {
    let mut world = world();
    world.set_pod(elsewhere("a", WEB, "app=stale"));
    assert_eq!(&*world.subject(WEB).name, "pod/default/p2");
    let addresses = |world: &World, port| world.switch.guards[&PortId(port)].addresses.to_vec();
    world.set_pod(labelled("p3", WEB, "app=db"));
    assert_eq!((addresses(&world, 2), addresses(&world, 3)), (vec![ip(WEB)], vec![]));
    world.set_pod(labelled("p2", "10.1.0.9", "app=web"));
    assert_eq!((addresses(&world, 2), addresses(&world, 3)), (vec![ip("10.1.0.9")], vec![ip(WEB)]));
    assert_eq!(&*world.subject(WEB).name, "pod/default/p3");
    world.set_pod(labelled("p3", "10.1.0.1", "app=db"));
    assert!(addresses(&world, 3).is_empty(), "the gateway's");
    world.set_pod(labelled("p3", "192.0.2.1", "app=db"));
    assert!(addresses(&world, 3).is_empty(), "the node's");
}

#[test]
fn a_port_keeps_to_its_pod_unless_an_operator_says_otherwise() {
    let mut world = world();
    let mut free = context(&[2, 3], None);
    free.bound.get_mut(&named("p2")).unwrap()[0].spoof = false;
    // A second port with the same pod, and one without an Ethernet address.
    free.bound.get_mut(&named("p2")).unwrap().push(Bound { port: PortId(5), mac: Some(attached(5).mac), spoof: true });
    free.pods.remove(&named("p3"));
    free.bound.get_mut(&named("p3")).unwrap()[0].mac = None;
    world.rebind(Some(free));
    let told = |port| {
        let guard = &world.switch.guards[&PortId(port)];
        (guard.spoof, guard.isolated.as_deref())
    };
    assert_eq!(told(2), (false, None));
    assert_eq!(told(5), (true, Some("another port is bound to pod default/p2")));
    assert_eq!(told(3), (true, Some("its Ethernet address is not known")));
    world.rebind(Some(context(&[], None)));
    assert!(world.switch.guards.is_empty());
}

#[test]
fn subjects_know_where_they_are_attached_and_have_the_identity_of_their_endpoints() {
    let mut world = world();
    for uid in ["uid-p2", ""] {
        world.set_pod(Pod { uid: uid.into(), ..labelled("p2", WEB, "app=web") });
        let subject = world.subject(WEB).clone();
        let endpoint = world.switch.endpoints.values().find(|e| e.key.address == ip(WEB)).unwrap();
        assert_eq!((subject.port, subject.identity), (Some(PortId(2)), endpoint.identity), "{uid}");
    }
    assert_eq!(world.subject(OTHER).port, None);
    world.rebind(None);
    assert!(world.switch.subjects.is_empty() && world.switch.guards.is_empty());
    world.rebind(Some(context(&[3], None)));
    assert_eq!((world.subject(WEB).port, world.subject(DB).port), (None, Some(PortId(3))));
}
