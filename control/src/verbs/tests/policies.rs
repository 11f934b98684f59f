//! `policies`, from words to text.

use std::sync::Arc;

use api::Proto;
use api::state::DenialState;

use super::*;
use crate::cluster::compile::everything;
use crate::cluster::compile::policies::tests::{
    block, cluster_policy, labels, pods, pods_of, policy, port_named, ports, rule, selector,
};
use crate::cluster::model::{ClusterPolicy, NetworkPolicy, Objects, Pod, PolicyPeer, PolicyRule, Tier};

/// Policies of `default`: `web` of pod `p1`, `deny` of all; and one of each tier.
fn with_policies() -> Objects {
    let mut objects = objects();
    let p1 = objects.pods.values().find(|pod| &*pod.id.name == "p1").unwrap().clone();
    let p1 = Pod { labels: labels("app=web"), ..(*p1).clone() };
    objects.pods.insert(p1.id.clone(), Arc::new(p1));
    let from = [pods("app=front,tier in a|b"), pods_of("team=x", ""), block("10.0.0.0/8", &["10.9.0.0/16"])];
    let among = [ports(Proto::Tcp, 80, 80), ports(Proto::Udp, 53, 60), port_named(None, "http")];
    let web = NetworkPolicy { ingress: Some(vec![rule(&from, &among), rule(&[], &[])]), ..policy("web", "app=web") };
    let deny = NetworkPolicy { ingress: Some(Vec::new()), egress: Some(Vec::new()), ..policy("deny", "") };
    for policy in [web, deny] {
        objects.policies.insert(policy.id.clone(), Arc::new(policy));
    }
    let named = |name: &str, action, peers: &[PolicyPeer]| PolicyRule { action, name: name.into(), ..rule(peers, &[]) };
    let first = ClusterPolicy {
        egress: vec![named("metadata", api::Action::Deny, &[PolicyPeer::Nodes(selector("role=x")), pods_of("", "")])],
        ..cluster_policy("first", Tier::Admin, 10)
    };
    let base =
        ClusterPolicy { ingress: vec![named("", api::Action::Pass, &[])], ..cluster_policy("base", Tier::Baseline, 0) };
    for policy in [first, base] {
        objects.cluster_policies.insert(policy.name.clone(), Arc::new(policy));
    }
    objects
}

fn denied(direction: &str, by: &str, packets: u64) -> DenialState {
    DenialState { subject: "pod/default/p1".to_owned(), direction: direction.to_owned(), by: by.to_owned(), packets }
}

fn world(directory: &std::path::Path) -> World {
    let mut world = World::new(directory);
    let objects = with_policies();
    world.store.program(&objects, &everything(&objects), &mut world.switch).unwrap();
    world.switch.denials = vec![
        denied("ingress", "default of default/deny, default/web", 3),
        denied("ingress", "networkpolicy default/web-2 rule 0", 100),
        denied("egress", "clusternetworkpolicy first rule 0", 4),
    ];
    world
}

#[test]
fn policies_are_shown_in_their_order_with_whom_they_select_and_what_they_denied() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world(directory.path());
    assert_eq!(
        world.ask("policies").unwrap(),
        "KIND                  POLICY        TIER      PRIORITY  DIRECTIONS      PODS  DENIED\n\
         ClusterNetworkPolicy  first         Admin           10  egress             3       4\n\
         NetworkPolicy         default/deny  -                -  ingress,egress     3       3\n\
         NetworkPolicy         default/web   -                -  ingress            1       3\n\
         ClusterNetworkPolicy  base          Baseline         0  ingress            3       0\n"
    );
    let of =
        |told: String| told.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    let names: Vec<String> = of(world.ask("policies -n default").unwrap());
    assert_eq!(names, ["default/deny", "default/web"]);
    let names: Vec<String> = of(world.ask("policies -n other").unwrap());
    assert!(names.is_empty());
}

#[test]
fn a_pod_is_told_what_selects_it_and_what_that_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world(directory.path());
    let wanted = "pod/default/p1 10.244.1.11, at port p1\n\
         ingress: deny what no rule decides (default of default/deny, default/web)\n  \
           networkpolicy default/deny\n  \
           networkpolicy default/web\n    \
             rule 0: accept from pods app=front,tier in (a,b) of namespace default; all pods of namespaces team=x; \
             10.0.0.0/8 except 10.9.0.0/16, tcp 80 or udp 53-60 or any protocol http\n    \
             rule 1: accept from anybody, any port\n  \
           clusternetworkpolicy base, not asked: policies of the namespace decide\n    \
             rule 0: pass from anybody, any port\n  \
           denied 3 packets: default of default/deny, default/web\n  \
           denied 100 packets: networkpolicy default/web-2 rule 0\n\
         egress: deny what no rule decides (default of default/deny)\n  \
           clusternetworkpolicy first\n    \
             rule 0 (metadata): deny to nodes role=x; all pods of all namespaces, any port\n  \
           networkpolicy default/deny\n  \
           denied 4 packets: clusternetworkpolicy first rule 0\n";
    for line in ["policies --pod default/p1", "policies --pod p1", "policies --pod p1 -n default"] {
        assert_eq!(world.ask(line).unwrap(), wanted, "{line}");
    }
    assert!(
        world.ask("policies --pod default/p2").unwrap().starts_with("pod/default/p2 10.244.1.12, not attached here\n")
    );
}

#[test]
fn a_pod_that_policies_are_not_about_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world(directory.path());
    let mut objects = with_policies();
    let p1 = objects.pods.values().next().unwrap().clone();
    for (no, told) in [
        (Pod { host_network: true, ..(*p1).clone() }, "note: is in the host network: no policy is about it\n"),
        (Pod { finished: true, ..(*p1).clone() }, "note: has ended: no policy is about it\n"),
        (
            Pod { addresses: Vec::new(), ..(*p1).clone() },
            "note: isolated: pod default/p1 has no address yet\ningress: deny",
        ),
    ] {
        objects.pods.insert(p1.id.clone(), Arc::new(no));
        world.store.program(&objects, &everything(&objects), &mut world.switch).unwrap();
        let answer = world.ask("policies --pod default/p1").unwrap();
        assert!(answer.contains(told), "{answer}");
    }
    for (line, why) in [
        ("policies --pod default/p9", "policies: --pod default/p9: no such object in the cluster's state"),
        ("policies --pod pod/default/p1", "policies: --pod pod/default/p1: not NS/NAME"),
        ("policies --pod default/p1 -n other", "policies: --pod default/p1: is not of namespace other"),
        ("policies -n a -A", "policies: -n and -A contradict each other"),
    ] {
        assert_eq!(world.ask(line).unwrap_err(), why);
    }
}
