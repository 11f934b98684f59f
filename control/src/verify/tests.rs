//! The oracle, row by row of the specification; and rows that are wrong, by a switch without packets.

use std::net::IpAddr;
use std::path::Path;

use api::{Action, Proto};

use super::oracle::{Oracle, Side, Way};
use super::verify;
use crate::cluster::model::{
    ClusterPolicy, ContainerPort, Labels, Named, Namespaces, NetworkPolicy, Objects, Pod, PodSelector, PolicyPeer,
    PolicyPort, PolicyPorts, PolicyRule, Requirement, Selector, Test, Tier,
};
use crate::fake::FakeSwitch;
use crate::store::Store;
use crate::store::network::tests::{open, run};

const TCP: Proto = Proto::Tcp;

fn labels(text: &str) -> Labels {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.into(), value.into())).collect()
}

/// `k=v k!=v k !k`, all of which must hold.
fn selector(text: &str) -> Selector {
    let mut all: Vec<Requirement> = text
        .split_whitespace()
        .map(|word| match (word.split_once("!="), word.split_once('='), word.strip_prefix('!')) {
            (Some((key, value)), ..) => Requirement { key: key.into(), test: Test::NotIn(vec![value.into()]) },
            (_, Some((key, value)), _) => Requirement { key: key.into(), test: Test::In(vec![value.into()]) },
            (.., Some(key)) => Requirement { key: key.into(), test: Test::DoesNotExist },
            _ => Requirement { key: word.into(), test: Test::Exists },
        })
        .collect();
    all.sort();
    Selector(all)
}

/// Pods of this namespace.
fn own(namespace: &str, pods: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodSelector { namespaces: Namespaces::Own(namespace.into()), pods: selector(pods) })
}

/// Pods of such namespaces.
fn with(namespaces: &str, pods: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodSelector { namespaces: Namespaces::With(selector(namespaces)), pods: selector(pods) })
}

fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|net| net.parse().unwrap()).collect();
    PolicyPeer::Block { cidr: cidr.parse().unwrap(), except }
}

fn range(proto: Proto, first: u16, last: u16) -> PolicyPort {
    PolicyPort { proto: Some(proto), ports: PolicyPorts::Range(first, last) }
}

fn port_named(proto: Proto, name: &str) -> PolicyPort {
    PolicyPort { proto: Some(proto), ports: PolicyPorts::Named(name.into()) }
}

fn rule(peers: Option<Vec<PolicyPeer>>, ports: Option<Vec<PolicyPort>>) -> PolicyRule {
    PolicyRule { action: Action::Accept, name: "".into(), peers, ports }
}

fn acting(action: Action, peers: Option<Vec<PolicyPeer>>) -> PolicyRule {
    PolicyRule { action, ..rule(peers, None) }
}

fn id(text: &str) -> Named {
    let (namespace, name) = text.split_once('/').unwrap();
    Named { namespace: namespace.into(), name: name.into() }
}

type Rules = Option<Vec<PolicyRule>>;

/// Namespaces a (team red) and b (team blue), in each pods x and y; y serves `web` on 80, but b/y on 8080.
struct World(Objects);

impl World {
    fn new() -> Self {
        let mut objects = Objects::default();
        for (name, team) in [("a", "team=red"), ("b", "team=blue")] {
            objects.namespaces.insert(name.into(), labels(team));
        }
        for (at, (name, number)) in [("a/x", 80), ("a/y", 80), ("b/x", 80), ("b/y", 8080)].into_iter().enumerate() {
            let address = format!("10.0.0.{}", at + 1);
            let pod = crate::cluster::compile::tests::pod("unused", &address);
            let ports = vec![ContainerPort { name: "web".into(), proto: TCP, port: number }];
            let labels = labels(&format!("pod={}", id(name).name));
            let pod = Pod { id: id(name), labels, ports, ..pod };
            objects.pods.insert(pod.id.clone(), pod.into());
        }
        Self(objects)
    }

    /// A policy `NS/NAME` of pods so labelled.
    fn policy(mut self, name: &str, pods: &str, ingress: Rules, egress: Rules) -> Self {
        let policy = NetworkPolicy { id: id(name), subjects: selector(pods), ingress, egress };
        self.0.policies.insert(id(name), policy.into());
        self
    }

    fn cluster(mut self, name: &str, tier: Tier, priority: u16, ingress: Vec<PolicyRule>) -> Self {
        let subjects = PodSelector { namespaces: Namespaces::With(selector("")), pods: selector("") };
        let policy = ClusterPolicy { name: name.into(), tier, priority, subjects, ingress, egress: Vec::new() };
        self.0.cluster_policies.insert(name.into(), policy.into());
        self
    }

    /// Whether a connection is let through. Ends are `NS/NAME` or addresses; without a port it is an echo request.
    fn lets(&self, from: &str, to: &str, port: Option<(Proto, u16)>) -> bool {
        let oracle = Oracle::new(&self.0);
        let side = |name: &str| match name.parse::<IpAddr>() {
            Ok(address) => {
                let living = |pod: &&Pod| pod.addresses.contains(&address) && !pod.finished && !pod.host_network;
                Side { address, pod: self.0.pods.values().map(|pod| &**pod).find(living) }
            }
            Err(_) => {
                let pod = &*self.0.pods[&id(name)];
                Side { address: pod.addresses[0], pod: Some(pod) }
            }
        };
        let (from, to) = (side(from), side(to));
        let half = |own: &Side<'_>, other: &Side<'_>, way| {
            own.pod.is_none_or(|pod| {
                let deciding = oracle.deciding(pod, way);
                let met = oracle.met(&deciding, other);
                oracle.judge((&deciding, way), &met, (&to, port), from.is_same_pod(&to)).allow
            })
        };
        half(&from, &to, Way::Egress) && half(&to, &from, Way::Ingress)
    }

    /// Words: who reaches a/y on TCP 80, of a/x, b/x, b/y and 192.0.2.1.
    fn reach(&self) -> String {
        let ends = ["a/x", "b/x", "b/y", "192.0.2.1"];
        let let_in: Vec<_> = ends.into_iter().filter(|from| self.lets(from, "a/y", Some((TCP, 80)))).collect();
        let_in.join(" ")
    }
}

const ALL: &str = "a/x b/x b/y 192.0.2.1";

#[test]
fn n1_who_is_not_selected_is_open_and_who_is_selected_is_isolated_in_that_direction() {
    assert_eq!(World::new().reach(), ALL);
    let world = World::new().policy("a/p", "pod=y", Some(vec![]), None);
    assert_eq!(world.reach(), "");
    assert!(world.lets("a/y", "b/x", Some((TCP, 80))), "egress is open");
    assert!(world.lets("a/y", "a/x", Some((TCP, 80))), "the other pod is open");
}

#[test]
fn n2_both_ends_must_let_a_connection_through() {
    let open = || Some(vec![rule(None, None)]);
    let shut = || Some(vec![]);
    for (out, into, through) in
        [(open(), open(), true), (open(), shut(), false), (shut(), open(), false), (None, None, true)]
    {
        let world = World::new().policy("a/out", "pod=x", None, out).policy("a/in", "pod=y", into, None);
        assert_eq!(world.lets("a/x", "a/y", Some((TCP, 80))), through);
    }
}

#[test]
fn n3_policies_and_rules_only_add() {
    let from = |peer| Some(vec![rule(Some(vec![peer]), None)]);
    let world = World::new().policy("a/p", "", from(own("a", "pod=x")), None).policy("a/q", "", Some(vec![]), None);
    assert_eq!(world.reach(), "a/x");
    assert_eq!(world.policy("a/r", "", from(with("team=blue", "pod=y")), None).reach(), "a/x b/y");
}

#[test]
fn n6_n7_n8_empty_selectors_are_everybody_and_empty_lists_nothing_or_anything() {
    let world = World::new().policy("a/p", "", Some(vec![]), None);
    assert_eq!(world.reach(), "", "N7: no rule");
    assert!(!world.lets("b/x", "a/x", Some((TCP, 80))), "N6: every pod of the namespace");
    assert_eq!(World::new().policy("a/p", "", Some(vec![rule(None, None)]), None).reach(), ALL, "N7: an empty rule");
    let ports = Some(vec![range(TCP, 80, 80)]);
    let both = World::new().policy("a/p", "", Some(vec![rule(Some(vec![own("a", "")]), ports)]), None);
    assert_eq!(both.reach(), "a/x", "N8: peers and ports must both match");
    assert!(!both.lets("a/x", "a/y", Some((TCP, 81))));
}

#[test]
fn n9_n10_peers_are_of_the_policys_namespace_or_of_those_selected_and_in_one_entry_both_hold() {
    let of = |peers| World::new().policy("a/p", "", Some(vec![rule(Some(peers), None)]), None).reach();
    for (peers, reach) in [
        (vec![own("a", "")], "a/x"),
        (vec![own("a", "pod=y")], ""),
        (vec![with("", "")], "a/x b/x b/y"),
        (vec![with("team=blue", "pod=x")], "b/x"),
        (vec![with("team=blue", ""), own("a", "pod=x")], "a/x b/x b/y"),
        (vec![with("team!=blue", "")], "a/x"),
        (vec![with("absent!=blue", "")], "a/x b/x b/y"),
        (vec![with("absent", "")], ""),
        (vec![with("!absent", "pod=y")], "b/y"),
        (vec![with("kubernetes.io/metadata.name=b", "")], "b/x b/y"),
    ] {
        assert_eq!(of(peers.clone()), reach, "{peers:?}");
    }
}

#[test]
fn n11_n13_n21_ports_are_of_a_protocol_and_ranges_hold_both_ends() {
    let ports = Some(vec![range(TCP, 80, 90), range(Proto::Udp, 53, 53), range(Proto::Sctp, 0, 65535)]);
    let world = World::new().policy("a/p", "", Some(vec![rule(None, ports)]), None);
    for (port, through) in [
        (Some((TCP, 79)), false),
        (Some((TCP, 80)), true),
        (Some((TCP, 90)), true),
        (Some((TCP, 91)), false),
        (Some((TCP, 53)), false),
        (Some((Proto::Udp, 53)), true),
        (Some((Proto::Udp, 80)), false),
        (Some((Proto::Sctp, 80)), true),
        (None, false),
    ] {
        assert_eq!(world.lets("b/x", "a/y", port), through, "{port:?}");
    }
    let any = World::new().policy("a/p", "", Some(vec![rule(None, None)]), None);
    assert!(any.lets("b/x", "a/y", None), "a rule without ports is of all protocols");
}

#[test]
fn n12_a_name_is_the_destination_pods_own_port_and_nobodys_who_is_an_address() {
    let web = || Some(vec![port_named(TCP, "web")]);
    let into = World::new().policy("a/p", "", Some(vec![rule(Some(vec![block("192.0.2.0/24", &[])]), web())]), None);
    assert!(into.lets("192.0.2.1", "a/y", Some((TCP, 80))), "it is the receiver's name, whoever sends");
    assert!(!into.lets("192.0.2.1", "a/y", Some((TCP, 8080))));
    let out = World::new().policy("a/p", "", None, Some(vec![rule(None, web())]));
    for (to, port, through) in [
        ("b/x", (TCP, 80), true),
        ("b/x", (TCP, 8080), false),
        ("b/y", (TCP, 8080), true),
        ("b/y", (TCP, 80), false),
        ("b/x", (Proto::Udp, 80), false),
        ("192.0.2.1", (TCP, 80), false),
    ] {
        assert_eq!(out.lets("a/x", to, Some(port)), through, "{to} {port:?}");
    }
    let by_address = vec![rule(Some(vec![block("10.0.0.0/8", &[])]), web())];
    let out = World::new().policy("a/p", "", None, Some(by_address));
    assert!(!out.lets("a/x", "b/x", Some((TCP, 80))), "met as an address");
    let unknown = vec![rule(None, Some(vec![port_named(TCP, "absent")]))];
    assert_eq!(World::new().policy("a/p", "", Some(unknown), None).reach(), "");
}

#[test]
fn n14_n15_blocks_are_of_any_address_but_for_their_exceptions() {
    let of = |peers| World::new().policy("a/p", "", Some(vec![rule(Some(peers), None)]), None).reach();
    for (peers, reach) in [
        (vec![block("0.0.0.0/0", &[])], ALL),
        (vec![block("::/0", &[])], ""),
        (vec![block("10.0.0.0/24", &["10.0.0.2/31"])], "a/x b/y"),
        (vec![block("10.0.0.0/24", &["10.0.0.2/31"]), own("a", ""), with("team=blue", "pod=x")], "a/x b/x b/y"),
        (vec![block("192.0.2.0/31", &[])], "192.0.2.1"),
    ] {
        assert_eq!(of(peers.clone()), reach, "{peers:?}");
    }
}

#[test]
fn n19_a_pod_is_not_kept_from_itself_by_networkpolicies_but_by_clusternetworkpolicies() {
    let world = World::new().policy("a/p", "", Some(vec![]), Some(vec![]));
    assert!(world.lets("a/y", "a/y", Some((TCP, 80))));
    let world = world.cluster("deny", Tier::Admin, 1, vec![acting(Action::Deny, None)]);
    assert!(!world.lets("a/y", "a/y", Some((TCP, 80))));
}

#[test]
fn n20_n26_pods_of_the_host_network_and_those_that_have_ended_are_no_pods() {
    let mut world = World::new().policy("a/p", "", Some(vec![rule(Some(vec![own("a", "")]), None)]), None);
    assert!(world.lets("10.0.0.1", "a/y", Some((TCP, 80))));
    for (host_network, finished) in [(true, false), (false, true)] {
        let mut pod = Pod::clone(&world.0.pods[&id("a/x")]);
        (pod.host_network, pod.finished) = (host_network, finished);
        world.0.pods.insert(id("a/x"), pod.into());
        assert!(!world.lets("10.0.0.1", "a/y", Some((TCP, 80))));
    }
}

#[test]
fn n25_a_policy_selects_in_its_own_namespace_only() {
    let world = World::new().policy("b/p", "", Some(vec![]), Some(vec![]));
    assert_eq!(world.reach(), "a/x 192.0.2.1");
}

#[test]
fn tiers_are_asked_in_order_and_passed_and_the_first_rule_that_matches_decides() {
    let deny = |peer| acting(Action::Deny, Some(vec![peer]));
    let accept = |peer| acting(Action::Accept, Some(vec![peer]));
    let pass = |peer| acting(Action::Pass, Some(vec![peer]));
    let (all, blue) = (|| with("", ""), || with("team=blue", ""));
    let admin = |priority, rules| World::new().cluster("adm", Tier::Admin, priority, rules);
    assert_eq!(admin(5, vec![deny(blue())]).reach(), "a/x 192.0.2.1");
    assert_eq!(admin(5, vec![accept(blue()), deny(all())]).reach(), "b/x b/y 192.0.2.1");
    assert_eq!(
        admin(5, vec![deny(all())]).cluster("z", Tier::Admin, 4, vec![accept(blue())]).reach(),
        "b/x b/y 192.0.2.1"
    );
    let isolated = |world: World| world.policy("a/p", "", Some(vec![rule(Some(vec![own("a", "")]), None)]), None);
    assert_eq!(isolated(admin(5, vec![accept(blue())])).reach(), "a/x b/x b/y", "tier Admin is before NetworkPolicies");
    let passing = || admin(5, vec![pass(blue()), deny(all())]);
    assert_eq!(passing().reach(), "b/x b/y 192.0.2.1");
    assert_eq!(isolated(passing()).reach(), "", "what passes is for NetworkPolicies");
    let last = |world: World| world.cluster("base", Tier::Baseline, 0, vec![deny(blue())]);
    assert_eq!(last(World::new()).reach(), "a/x 192.0.2.1");
    assert_eq!(last(isolated(World::new())).reach(), "a/x", "NetworkPolicies are final");
    assert_eq!(last(admin(5, vec![accept(with("", "pod=y"))])).reach(), "a/x b/y 192.0.2.1");
}

struct Bed {
    store: Store,
    objects: Objects,
    switch: FakeSwitch,
}

impl Bed {
    /// p1 is attached, p2 and p3 are not; service `web`.
    fn new(directory: &Path) -> Self {
        let (mut store, mut switch) = open(directory);
        let bind = "add-port br-pods p1 -- set Port p1 external_ids:pod=default/p1";
        run(&mut store, &mut switch, bind).unwrap();
        Self { store, objects: crate::store::network::tests::objects(), switch }
    }

    /// What `verify` says, a line a counter-example.
    fn told(&self) -> Vec<String> {
        let verified = verify((None, None), &self.objects, &self.store, &self.switch).unwrap();
        verified.counterexamples.iter().map(ToString::to_string).collect()
    }

    /// One counter-example for what was done to the switch, which begins so; then it is as it was again.
    #[track_caller]
    fn finds(&mut self, harm: impl FnOnce(&mut FakeSwitch), begins: &str) {
        let (routes, services) = (self.switch.routes.clone(), self.switch.services.clone());
        let (endpoints, guards) = (self.switch.endpoints.clone(), self.switch.guards.clone());
        let subjects = self.switch.subjects.clone();
        harm(&mut self.switch);
        let told = self.told();
        assert!(told.iter().any(|line| line.starts_with(begins)), "{begins}: {told:?}");
        (self.switch.routes, self.switch.services) = (routes, services);
        (self.switch.endpoints, self.switch.guards, self.switch.subjects) = (endpoints, guards, subjects);
        assert_eq!(self.told(), [""; 0]);
    }
}

#[test]
fn rows_of_a_switch_that_was_told_right_hold() {
    let directory = tempfile::tempdir().unwrap();
    let bed = Bed::new(directory.path());
    let verified = verify((None, None), &bed.objects, &bed.store, &bed.switch).unwrap();
    assert_eq!((verified.counterexamples.as_slice(), verified.pods), (&[][..], 3));
    assert_eq!(verified.notes.first().unwrap(), "the switch cannot walk packets: only its rows were looked at");
}

#[test]
fn a_row_that_is_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(directory.path());
    let first =
        |switch: &FakeSwitch| switch.endpoints.keys().find(|key| key.address.to_string() == "10.244.1.11").copied();
    let key = first(&bed.switch).unwrap();
    bed.finds(|switch| drop(switch.endpoints.remove(&key)), "endpoint: 10.244.1.11: expected pod/default/p1");
    bed.finds(
        |switch| switch.endpoints.get_mut(&key).unwrap().port = api::PortId(1),
        "endpoint: 10.244.1.11: expected pod/default/p1, a Pod, at 02:00:00:fa:00:02 behind p1; found pod/default/p1, a Pod, at 02:00:00:fa:00:02 behind br-pods",
    );
    bed.finds(
        |switch| {
            let mut row = switch.endpoints[&key].clone();
            row.key.address = "10.244.1.99".parse().unwrap();
            switch.endpoints.insert(row.key, row);
        },
        "endpoint: 10.244.1.99: expected nobody; found pod/default/p1",
    );
    bed.finds(|switch| switch.guards.clear(), "guard: pod/default/p1 at p1: expected a guard; found none");
    bed.finds(
        |switch| switch.guards.values_mut().for_each(|guard| guard.spoof = false),
        "guard: pod/default/p1 at p1: expected spoof guard true; found false",
    );
    bed.finds(
        |switch| switch.subjects.values_mut().for_each(|subject| subject.port = None),
        "policy: pod/default/p1 10.244.1.11: expected attached: p1; found not here",
    );
    bed.finds(
        |switch| switch.routes.clear(),
        "route: 10.244.1.0/24 of node/n1: expected to endpoints here; found none",
    );
    bed.finds(
        |switch| switch.services.values_mut().for_each(|service| service.backends = [].into()),
        "service: 10.96.0.10:80 TCP of default/web:http: expected 10.244.1.11:8080, 10.244.1.12:8080; found nobody",
    );
    bed.finds(
        |switch| {
            let mut row = switch.services.values().next().unwrap().clone();
            row.key.port = 81;
            switch.services.insert(row.key, row);
        },
        "service: 10.96.0.10:81 TCP: expected none; found default/web:http",
    );
}

#[test]
fn an_address_of_two_owners_is_said_before_all_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(directory.path());
    let mut twin = Pod::clone(bed.objects.pods.values().next().unwrap());
    twin.id.name = "twin".into();
    bed.objects.pods.insert(twin.id.clone(), twin.into());
    assert_eq!(bed.told(), ["objects: 10.244.1.11: expected one owner; found pod/default/p1, pod/default/twin"]);
}
