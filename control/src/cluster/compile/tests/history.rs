//! The property over all: what the switch has follows from the objects, the bridge's ports and the settings alone, never from
//! their history.

use proptest::prelude::*;

use super::super::policies::tests::{
    block, cluster_policy, labels, pods, pods_of, policy, port_named, ports, rule, selector,
};
use super::attachments::{attachment, host_port, limit};
use super::*;
use crate::cluster::model::{
    ClusterPolicy, ContainerPort, Namespaces, NetworkPolicy, PodSelector, PolicyPeer, PolicyPort, PolicyRule, Tier,
};

type Endpoints = Vec<(u8, bool, bool, Whereabouts)>;

/// Of an endpoint: its node, the zone and the node that it is hinted for, as numbers.
type Whereabouts = (u8, Option<u8>, Option<u8>);

/// Of a node: its address, its zone, its external address, as numbers.
type Machine = (u8, Option<u8>, Option<u8>);

/// What of a service is for clients from beyond, and its policies.
#[derive(Clone, Debug)]
struct Reach {
    balanced: bool,
    node_port: Option<u8>,
    /// One of few, so that they meet: those of nodes and cluster addresses among them.
    ips: Vec<u8>,
    ingress: Vec<(u8, bool)>,
    sources: Vec<u8>,
    local: (bool, bool),
    check: Option<u8>,
    affinity: Option<u32>,
    created: Option<i64>,
}

fn reach() -> impl Strategy<Value = Reach> {
    use proptest::{collection::vec, option::of};
    let places = (of(0..2u8), vec(0..5u8, 0..3), vec((0..5u8, any::<bool>()), 0..2), vec(0..6u8, 0..3));
    let rest = (any::<(bool, bool)>(), of(0..2u8), of(1..3u32), of(0..2i64));
    (any::<bool>(), places, rest).prop_map(|(balanced, (node_port, ips, ingress, sources), rest)| {
        let (local, check, affinity, created) = rest;
        Reach { balanced, node_port, ips, ingress, sources, local, check, affinity, created }
    })
}

impl Reach {
    /// A service that is reached so.
    fn give(&self, mut made: Service) -> Service {
        let policy = |local| if local { Policy::Local } else { Policy::Cluster };
        let address =
            |n: &u8| ip(["192.168.0.1", "192.168.0.2", "10.96.0.1", "203.0.113.1", "2001:db8::1"][usize::from(*n)]);
        let range = |n: &u8| {
            let ranges = ["192.168.0.0/31", "192.168.0.2/32", "198.51.100.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0"];
            ranges[usize::from(*n)].parse().unwrap()
        };
        if made.kind == ServiceKind::ClusterIp && self.balanced {
            made.kind = ServiceKind::LoadBalancer;
            let number = |n: u8| 30000 + u16::from(n);
            if let (Some(port), Some(n)) = (made.ports.first_mut(), self.node_port) {
                port.node_port = Some(number(n));
            }
            let ingress = |(n, proxied): &(u8, bool)| Ingress { address: address(n), proxied: *proxied };
            made.external.ingress = self.ingress.iter().map(ingress).collect();
            made.external.sources = self.sources.iter().map(range).collect();
            made.external.health_port = self.check.map(|n| 32000 + u16::from(n));
        }
        made.external.ips = self.ips.iter().map(address).collect();
        made.external.policy = policy(self.local.0);
        made.internal_policy = policy(self.local.1);
        (made.affinity, made.created) = (self.affinity, self.created);
        made
    }
}

/// Rules of both directions: for each the number of its action, peers and ports.
type Rules = [Option<Vec<(u8, u8, u8)>>; 2];

fn rules() -> impl Strategy<Value = Rules> {
    use proptest::{array::uniform2, collection::vec, option::of};
    uniform2(of(vec((0..3u8, 0..7u8, 0..5u8), 0..3)))
}

fn text(number: u8) -> &'static str {
    ["", "app=a", "app=b", "app in a|b", "app notin a"][usize::from(number)]
}

fn made_rules(made: &Option<Vec<(u8, u8, u8)>>) -> Option<Vec<PolicyRule>> {
    let peer = |number: u8| match number {
        0 => vec![],
        1 => vec![pods("app=a")],
        2 => vec![pods(""), block("10.244.1.0/24", &["10.244.1.3/32"])],
        3 => vec![pods_of("team=a", ""), pods_of("", "app=b")],
        4 => vec![pods_of("team notin a", "app in a|b")],
        5 => vec![PolicyPeer::Nodes(selector("topology.kubernetes.io/zone=z0"))],
        _ => vec![pods("app=a"), pods("app=b")],
    };
    let among = |number: u8| -> Vec<PolicyPort> {
        match number {
            0 => vec![],
            1 => vec![port_named(Some(Proto::Tcp), "http")],
            2 => vec![port_named(None, "http"), ports(Proto::Udp, 53, 53)],
            _ => vec![ports(Proto::Tcp, 80, 80 + u16::from(number))],
        }
    };
    let action = |number: u8| [api::Action::Accept, api::Action::Deny, api::Action::Pass][usize::from(number)];
    let made = made.as_ref()?.iter();
    Some(made.map(|&(a, peers, ports)| PolicyRule { action: action(a), ..rule(&peer(peers), &among(ports)) }).collect())
}

/// Of an attachment: its port, its bandwidth, its host ports.
type Attaching = (u16, u8, Vec<u8>);

fn attaching() -> impl Strategy<Value = Attaching> {
    (2..5u16, 0..3u8, proptest::collection::vec(0..5u8, 0..3))
}

/// A context with attachments.
fn bound_to((pods, uplink, attached): &(Vec<u16>, Option<u16>, Vec<Attaching>)) -> NodeContext {
    let attachment = |(port, bandwidth, host_ports): &Attaching| {
        let host_port = |n: &u8| host_port(["", "192.168.0.1", "192.168.0.2", "0.0.0.0", "::"][usize::from(*n)], 30000);
        let mut made = attachment(*port, &format!("10.244.1.{port}/24"));
        made.host_ports = host_ports.iter().map(host_port).collect();
        made.bandwidth = limit(u64::from(*bandwidth));
        (PortId(*port), made)
    };
    NodeContext { attachments: attached.iter().map(attachment).collect(), ..context(pods, *uplink) }
}

/// One thing that happens. Names and addresses are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    /// Its podCIDR; its address, zone and external address; whether it is being deleted.
    Node(u8, Option<(u8, Machine, bool)>),
    /// The last octet of its address, whether it has ended; labels, and the number of its port `http`.
    Pod(u8, Option<(u8, bool, u8, Option<u16>)>),
    Namespace(bool, Option<u8>),
    /// Its namespace, its subjects, its rules.
    Policy(u8, Option<(bool, u8, Rules)>),
    /// Its tier, priority, subjects, rules.
    ClusterPolicy(u8, Option<(bool, u16, u8, Rules)>),
    Service(u8, Option<(u8, u8, bool, Reach)>),
    /// Its service, and its endpoints: the last octet, ready, terminating, whereabouts.
    Slice(u8, Option<(u8, Endpoints)>),
    Cidr(Option<u8>),
    /// Pods with ports, the uplink, and what was attached: the port, its bandwidth, its host ports.
    Context(Option<(Vec<u16>, Option<u16>, Vec<Attaching>)>),
    Refuse,
}

fn step() -> impl Strategy<Value = Step> {
    use proptest::{collection::vec, option::of};
    prop_oneof![
        (0..3u8, of((0..3u8, (0..3u8, of(0..2u8), of(0..2u8)), any::<bool>())))
            .prop_map(|(name, node)| Step::Node(name, node)),
        (2..7u8, of((1..5u8, prop::bool::weighted(0.2), 0..4u8, of(80..82u16))))
            .prop_map(|(name, pod)| Step::Pod(name, pod)),
        (any::<bool>(), of(0..3u8)).prop_map(|(name, labels)| Step::Namespace(name, labels)),
        (0..4u8, of((any::<bool>(), 0..5u8, rules()))).prop_map(|(name, made)| Step::Policy(name, made)),
        (0..3u8, of((any::<bool>(), 0..2u16, 0..5u8, rules())))
            .prop_map(|(name, made)| Step::ClusterPolicy(name, made)),
        (0..3u8, of((0..3u8, 0..4u8, prop::bool::weighted(0.2), reach())))
            .prop_map(|(name, service)| Step::Service(name, service)),
        (0..4u8, of((0..3u8, vec((1..6u8, any::<bool>(), any::<bool>(), (0..3u8, of(0..2u8), of(0..3u8))), 0..5))))
            .prop_map(|(name, slice)| Step::Slice(name, slice)),
        of(0..3u8).prop_map(Step::Cidr),
        of((vec(2..5u16, 0..3), of(5..7u16), vec(attaching(), 0..3))).prop_map(Step::Context),
        Just(Step::Refuse),
    ]
}

fn namespace(other: bool) -> Arc<str> {
    if other { "other" } else { "default" }.into()
}

impl World {
    /// Let a step happen to the objects; says what changed.
    fn happen(&mut self, step: &Step) -> Option<Changed> {
        fn put<K: Ord + Clone, T>(map: &mut BTreeMap<K, Arc<T>>, key: &K, object: Option<T>) {
            match object {
                Some(object) => map.insert(key.clone(), Arc::new(object)),
                None => map.remove(key),
            };
        }
        let objects = &mut self.objects;
        Some(match step {
            Step::Node(name, made) => {
                let name: Arc<str> = format!("n{name}").into();
                let made = made.as_ref().map(|(cidr, (address, zone, external), leaving)| {
                    let zone = zone.map(|zone| ("topology.kubernetes.io/zone".into(), format!("z{zone}").into()));
                    let bare = node(
                        &name,
                        &[&format!("10.244.{cidr}.0/24")],
                        &[&format!("192.168.0.{}", address + 1), "2001:db8::7"],
                    );
                    Node {
                        labels: zone.into_iter().collect(),
                        external: external.iter().map(|n| ip(&format!("203.0.113.{n}"))).collect(),
                        leaving: leaving.then_some("is being deleted"),
                        ..bare
                    }
                });
                put(&mut objects.nodes, &name, made);
                Changed::Node(name)
            }
            Step::Pod(name, made) => {
                let id = Named { namespace: namespace(*name > 4), name: format!("p{name}").into() };
                let made = made.map(|(last, finished, app, port)| {
                    let http = |port| ContainerPort { name: "http".into(), proto: Proto::Tcp, port };
                    Pod {
                        id: id.clone(),
                        finished,
                        labels: labels(["", "app=a", "app=b", "app=c"][usize::from(app)]),
                        ports: port.into_iter().map(http).collect(),
                        bandwidth: limit(u64::from(last % 3)),
                        ..pod(&id.name, &format!("10.244.1.{last}"))
                    }
                });
                put(&mut objects.pods, &id, made);
                Changed::Pod(id)
            }
            Step::Namespace(other, made) => {
                let name = namespace(*other);
                match made {
                    Some(made) => {
                        let labels = labels(["", "team=a", "team=b"][usize::from(*made)]);
                        objects.namespaces.insert(name.clone(), labels)
                    }
                    None => objects.namespaces.remove(&name),
                };
                Changed::Namespace(name)
            }
            Step::Policy(name, made) => {
                let other = made.as_ref().is_some_and(|(other, ..)| *other);
                let id = Named { namespace: namespace(other), name: format!("np{name}").into() };
                let made = made.as_ref().map(|(_, subjects, [ingress, egress])| NetworkPolicy {
                    id: id.clone(),
                    ingress: made_rules(ingress),
                    egress: made_rules(egress),
                    ..policy("", text(*subjects))
                });
                put(&mut objects.policies, &id, made);
                Changed::Policy(id)
            }
            Step::ClusterPolicy(name, made) => {
                let name: Arc<str> = format!("cnp{name}").into();
                let made = made.as_ref().map(|(baseline, priority, subjects, [ingress, egress])| {
                    let tier = if *baseline { Tier::Baseline } else { Tier::Admin };
                    let namespaces = Namespaces::With(selector(if *subjects > 2 { "team=a" } else { "" }));
                    ClusterPolicy {
                        subjects: PodSelector { namespaces, pods: selector(text(*subjects)) },
                        ingress: made_rules(ingress).unwrap_or_default(),
                        egress: made_rules(egress).unwrap_or_default(),
                        ..cluster_policy(&name, tier, *priority)
                    }
                });
                put(&mut objects.cluster_policies, &name, made);
                Changed::ClusterPolicy(name)
            }
            Step::Service(name, made) => {
                let name = format!("s{name}");
                let made = made.as_ref().map(|(last, ports, headless, reach)| {
                    let kind = if *headless { ServiceKind::Headless } else { ServiceKind::ClusterIp };
                    let all = [("a", Proto::Tcp, 80), ("b", Proto::Tcp, 81), ("c", Proto::Udp, 80)];
                    let ports = &all[..usize::from(*ports)];
                    let addresses = [&format!("10.96.0.{last}"), "fd00:96::1"];
                    reach.give(Service { kind, ..service(&name, &addresses, ports) })
                });
                put(&mut objects.services, &named(&name), made);
                Changed::Service(named(&name))
            }
            Step::Slice(name, made) => {
                let name = format!("e{name}");
                self.unlink(&named(&name));
                if let Some((of, endpoints)) = made {
                    let of = format!("s{of}");
                    let endpoints: Vec<_> = endpoints
                        .iter()
                        .map(|(last, ready, terminating, (node, zone, of_node))| {
                            let letter = |flag: &bool, letter| if *flag { letter } else { "" };
                            let conditions = format!("s{}{}", letter(ready, "r"), letter(terminating, "t"));
                            let zone = zone.map(|zone| format!(" zone=z{zone}")).unwrap_or_default();
                            let of_node = of_node.map(|node| format!(" node=n{node}")).unwrap_or_default();
                            format!("10.244.1.{last} {conditions} @n{node}{zone}{of_node}")
                        })
                        .collect();
                    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
                    let made = slice(&name, &of, &[("a", Proto::Tcp, 8080), ("c", Proto::Udp, 53)], &endpoints);
                    self.objects.slices_of.entry(named(&of)).or_default().insert(named(&name));
                    self.objects.slices.insert(named(&name), Arc::new(made));
                }
                Changed::Slice(named(&name))
            }
            Step::Cidr(made) => {
                let name: Arc<str> = "kubernetes".into();
                let prefixes = |n: &u8| vec![format!("10.{}.0.0/16", 96 + n).parse().unwrap()];
                let made = made.as_ref().map(|n| Cidrs { name: name.clone(), prefixes: prefixes(n) });
                put(&mut objects.service_cidrs, &name, made);
                Changed::ServiceCidr(name)
            }
            Step::Context(_) | Step::Refuse => return None,
        })
    }
}

/// Everything a switch has. Numbers of groups, names and rulesets tell of history: what they stand for is compared.
fn sum(World { switch, compiler, .. }: &World) -> impl PartialEq + std::fmt::Debug + use<> {
    let FakeSwitch { ports, routers, endpoints, neighbors, routes, services, ranges, checks, eligibility, .. } = switch;
    let policies = compiler.policies();
    let ruleset = |id: &api::RulesetId| policies.canonical(&switch.rulesets[id]);
    let subject = |subject: &api::Subject| {
        let api::Subject { key, name, identity, port, groups, ports, ingress, egress } = subject;
        let groups: BTreeSet<_> = groups.iter().map(|group| policies.selector_of(*group)).collect();
        let ports: BTreeSet<_> =
            ports.iter().map(|it| (policies.name_of(it.name), it.proto.to_string(), it.port)).collect();
        let rulesets = [ingress, egress].map(|id| id.as_ref().map(ruleset));
        format!("{key:?} {name} {identity} {port:?} {groups:?} {ports:?} {rulesets:?}")
    };
    let mut rulesets: Vec<_> = switch.rulesets.keys().map(ruleset).collect();
    rulesets.sort();
    (
        ports.clone(),
        routers.clone(),
        endpoints.clone(),
        neighbors.clone(),
        (routes.clone(), services.clone(), ranges.clone(), checks.clone(), eligibility.clone()),
        (
            switch.shapers.clone(),
            switch.guards.clone(),
            switch.subjects.values().map(subject).collect::<Vec<_>>(),
            rulesets,
        ),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_the_switch_has_follows_from_the_objects_and_not_from_their_history(
        steps in proptest::collection::vec(step(), 1..40),
        everywhere in any::<bool>(),
    ) {
        let node_ports = match everywhere {
            true => NodePortAddresses::Within(vec!["0.0.0.0/0".parse().unwrap()]),
            false => NodePortAddresses::Primary,
        };
        let settings = NodeSettings { node_ports, ..settings() };
        let mut world = World::of(&settings);
        world.rebind(Some(context(&[2, 3], None)));
        let mut bound = Some(context(&[2, 3], None));
        for step in steps {
            world.switch.refuse = matches!(step, Step::Refuse);
            if let Step::Context(at) = &step {
                bound = at.as_ref().map(bound_to);
            }
            let changed = world.happen(&step).into_iter().collect();
            let mut changes = world.compiler.update(&world.objects, &changed);
            if world.switch.refuse {
                // What is refused must come again, whatever it was: let it be everything.
                changes.extend(world.compiler.rebind(None));
            }
            let transaction = Transaction { changes };
            let refused = world.switch.apply(&transaction);
            prop_assert_eq!(refused.is_err(), world.switch.refuse, "{:?}", refused);
            if world.switch.refuse {
                world.compiler.undo(transaction.changes);
                world.switch.refuse = false;
            }
            world.rebind(bound.clone());

            let mut fresh = World::of(&settings);
            let changes = fresh.compiler.update(&world.objects, &everything(&world.objects));
            fresh.tell(changes);
            fresh.rebind(bound.clone());
            prop_assert_eq!(sum(&world), sum(&fresh), "{:?}", step);
        }
    }
}
