//! Rows 1.3 to 1.5 and V11 of traffic policies and source ranges: who may come, whom he meets, and as whom he is seen.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::kit::*;

const CLUSTER: &str = ", externalTrafficPolicy: Cluster";
const LOCAL: &str = ", externalTrafficPolicy: Local";
const READY_IS_ALL: &str = "conditions: {ready: true}";

fn all_of(client: &Host, to: SocketAddr) -> BTreeSet<String> {
    (0..25).map(|_| client.tcp(to).who).collect()
}

#[test]
fn row_1_5_whom_endpoints_see_at_places_beyond_the_cluster() {
    on_a_node("row_1_5_whom_endpoints_see_at_places_beyond_the_cluster", |bed| {
        let Bed { a, b, node, outside, .. } = bed;
        let _server = b.serve(8080);
        bed.lead_the_outside_here();
        bed.apply(&on_nodes("web", &[(b, HERE, READY_IS_ALL)]));
        for (policy, client, seen_as) in
            [(CLUSTER, outside, node), (CLUSTER, a, node), (LOCAL, outside, outside), (LOCAL, a, a)]
        {
            bed.apply(&beyond("web", 10, policy));
            for family in FAMILIES {
                for to in bed.places(family) {
                    let seen = [client.tcp(to), client.udp(to)].map(|answer| (answer.who.clone(), answer.from()));
                    let wanted = ("b".to_owned(), seen_as.address(family));
                    assert_eq!(seen, [wanted.clone(), wanted], "{} at {to}{policy}", client.name);
                }
                // The cluster address is another matter.
                assert_eq!(a.tcp(vip(family, 10, 80)).from(), a.address(family));
            }
        }
    });
}

#[test]
fn row_1_4_under_policy_local_the_outside_meets_silence_where_endpoints_are_elsewhere_and_pods_meet_those() {
    on_a_node("row_1_4_under_policy_local_the_outside_meets_silence_where_endpoints_are_elsewhere", |bed| {
        let Bed { a, b, outside, .. } = bed;
        let _servers = [b.serve(8080), a.serve(8080)];
        bed.lead_the_outside_here();
        bed.apply(&(beyond("web", 10, LOCAL) + &on_nodes("web", &[(b, THERE, READY_IS_ALL)])));
        for family in FAMILIES {
            for to in bed.places(family) {
                outside.meets_silence(to);
                // As if it went out, and came in where there is one.
                assert_eq!([a.tcp(to).from(), a.udp(to).from()], [a.address(family); 2]);
            }
        }
        let drops = bed.vsctl("drops");
        assert!(drops.contains("no-local-endpoint"), "{drops}");
        // With one of its own the outside meets that, and pods meet both.
        bed.apply(&on_nodes("web", &[(b, THERE, READY_IS_ALL), (a, HERE, READY_IS_ALL)]));
        for family in FAMILIES {
            for to in bed.places(family) {
                assert_eq!(all_of(outside, to), BTreeSet::from(["a".to_owned()]));
                assert_eq!(all_of(&bed.c, to).len(), 2);
            }
        }
        bed.apply(&on_nodes("web", &[]));
        for family in FAMILIES {
            for to in bed.places(family) {
                outside.is_refused(to);
                a.is_refused(to);
            }
        }
    });
}

#[test]
fn row_1_4_under_internal_policy_local_everybody_meets_silence_where_endpoints_are_elsewhere() {
    on_a_node("row_1_4_under_internal_policy_local_everybody_meets_silence_where_endpoints_are_elsewhere", |bed| {
        let Bed { a, b, c, node, .. } = bed;
        let _servers = [b.serve(8080), c.serve(8080)];
        let local = service_with("web", 10, PORTS, "", ", internalTrafficPolicy: Local");
        for family in FAMILIES {
            let to = vip(family, 10, 80);
            bed.apply(&(local.clone() + &on_nodes("web", &[(b, THERE, READY_IS_ALL)])));
            [a, node].into_iter().for_each(|client| client.meets_silence(to));
            bed.apply(&on_nodes("web", &[(b, THERE, READY_IS_ALL), (c, HERE, READY_IS_ALL)]));
            [a, node].into_iter().for_each(|client| assert_eq!(all_of(client, to), BTreeSet::from(["c".to_owned()])));
            // The policy changes live.
            bed.apply(&service("web", 10));
            [a, node].into_iter().for_each(|client| assert_eq!(all_of(client, to).len(), 2));
            bed.apply(&(local.clone() + &on_nodes("web", &[])));
            [a, node].into_iter().for_each(|client| client.is_refused(to));
        }
        assert!(bed.vsctl("drops").contains("no-local-endpoint"));
    });
}

#[test]
fn row_1_4_a_change_of_policy_is_for_new_connections() {
    on_a_node("row_1_4_a_change_of_policy_is_for_new_connections", |bed| {
        let Bed { b, node, outside, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&on_nodes("web", &[(b, HERE, READY_IS_ALL)]));
        for family in FAMILIES {
            let to = node.at(family, NODE_PORT);
            let mut streams = Vec::new();
            for (policy, seen_as) in [(CLUSTER, node), (LOCAL, outside), (CLUSTER, node)] {
                bed.apply(&beyond("web", 10, policy));
                let (stream, answer) = outside.connect(0, to).unwrap();
                assert_eq!(answer.from(), seen_as.address(family));
                streams.push(stream);
                streams.iter_mut().for_each(|stream| host::echo(stream, b"still here"));
            }
        }
    });
}

#[test]
fn v11_source_ranges_keep_the_load_balancers_address_from_others_and_nothing_else() {
    on_a_node("v11_source_ranges_keep_the_load_balancers_address_from_others_and_nothing_else", |bed| {
        let Bed { a, b, outside, .. } = bed;
        let _server = b.serve(8080);
        bed.lead_the_outside_here();
        bed.apply(&behind("web", &[b]));
        let (pods, beyond_it) = ("10.1.0.0/24, 'fd00:1::/64'", "' 203.0.113.0/24 ', '2001:db8:9::/64'");
        let (everybody, of_one_version) = ("0.0.0.0/0, '::/0'", "203.0.113.0/24");
        for (ranges, is_in) in [
            (pods, [[true, true], [false, false]]),
            (beyond_it, [[false, false], [true, true]]),
            (everybody, [[true, true], [true, true]]),
            (of_one_version, [[false, true], [true, true]]),
            ("", [[true, true], [true, true]]),
        ] {
            bed.apply(&beyond("web", 10, &format!(", loadBalancerSourceRanges: [{ranges}]")));
            for (client, is_in) in [a, outside].into_iter().zip(is_in) {
                for family in FAMILIES {
                    let [node_port, external, balancer] = bed.places(family);
                    if is_in[family] {
                        assert_eq!([client.tcp(balancer).who, client.udp(balancer).who], ["b", "b"], "{ranges}");
                    } else {
                        client.meets_silence(balancer);
                    }
                    assert_eq!([client.tcp(node_port).who, client.udp(external).who], ["b", "b"], "{ranges}");
                }
            }
            FAMILIES.into_iter().for_each(|family| assert_eq!(a.tcp(vip(family, 10, 80)).who, "b"));
        }
        let drops = bed.vsctl("drops");
        assert!(drops.contains("source-range"), "{drops}");
    });
}

#[test]
fn t1_t2_t3_t5_at_node_ports_each_policy_has_its_own_fallback_to_who_terminates() {
    on_a_node("t1_t2_t3_t5_at_node_ports_each_policy_has_its_own_fallback_to_who_terminates", |bed| {
        let Bed { b, c, outside, .. } = bed;
        let _servers = [b.serve(8080), c.serve(8080)];
        let [ready, terminating, failing] = [READY, TERMINATING, FAILING].map(|what| format!("conditions: {{{what}}}"));
        let (ready, terminating, failing) = (ready.as_str(), terminating.as_str(), failing.as_str());
        let elsewhere_by_hint = format!("{ready}, hints: {{forNodes: [{{name: {THERE}}}]}}");
        for (policy, endpoints, who) in [
            (LOCAL, [(b, HERE, ready), (c, HERE, terminating)], &["b"][..]),
            (CLUSTER, [(b, HERE, ready), (c, HERE, terminating)], &["b"]),
            (LOCAL, [(b, HERE, terminating), (c, THERE, ready)], &["b"]),
            (CLUSTER, [(b, HERE, terminating), (c, THERE, ready)], &["c"]),
            (CLUSTER, [(b, HERE, terminating), (c, THERE, terminating)], &["b", "c"]),
            (LOCAL, [(b, HERE, terminating), (c, HERE, failing)], &["b"]),
            (CLUSTER, [(b, HERE, failing), (c, THERE, terminating)], &["c"]),
            (LOCAL, [(b, HERE, elsewhere_by_hint.as_str()), (c, THERE, elsewhere_by_hint.as_str())], &["b"]),
        ] {
            bed.apply(&(beyond("web", 10, policy) + &on_nodes("web", &endpoints)));
            let who: BTreeSet<String> = who.iter().map(|name| (*name).to_owned()).collect();
            for family in FAMILIES {
                let row: Vec<_> = endpoints.iter().map(|(host, node, more)| (host.name, node, more)).collect();
                assert_eq!(all_of(outside, bed.node.at(family, NODE_PORT)), who, "{policy} {row:?}");
            }
        }
        bed.apply(&(beyond("web", 10, LOCAL) + &on_nodes("web", &[(b, HERE, failing), (c, THERE, ready)])));
        FAMILIES.into_iter().for_each(|family| outside.meets_silence(bed.node.at(family, NODE_PORT)));
        bed.apply(&on_nodes("web", &[(b, HERE, failing), (c, THERE, failing)]));
        FAMILIES.into_iter().for_each(|family| outside.is_refused(bed.node.at(family, NODE_PORT)));
    });
}

#[test]
fn t4_t5_hints_choose_the_node_then_its_zone_then_all_as_they_change() {
    on_a_node("t4_t5_hints_choose_the_node_then_its_zone_then_all_as_they_change", |bed| {
        let Bed { a, b, c, node, .. } = bed;
        let _servers = [b.serve(8080), c.serve(8080)];
        let zone = |zone: &str| {
            let labels = format!("name: n1, labels: {{topology.kubernetes.io/zone: {zone}}}");
            node_manifest(node).replace("name: n1", &labels)
        };
        let nodes = |name: &str| format!("{READY_IS_ALL}, hints: {{forNodes: [{{name: {name}}}]}}");
        let zones = |name: &str| format!("{READY_IS_ALL}, hints: {{forZones: [{{name: {name}}}]}}");
        let unready = |hints: &str| hints.replace("ready: true", "ready: false");
        let none = READY_IS_ALL.to_owned();
        bed.apply(&service("web", 10));
        for (in_zone, of_b, of_c, who) in [
            ("z1", nodes(HERE), nodes(THERE), &["b"][..]),
            // It dies, and comes back.
            ("z1", unready(&nodes(HERE)), nodes(THERE), &["c"]),
            ("z1", nodes(HERE), nodes(THERE), &["b"]),
            ("z1", nodes(HERE), none.clone(), &["b", "c"]),
            ("z1", zones("z1"), zones("z2"), &["b"]),
            // The zone of the node, live.
            ("z2", zones("z1"), zones("z2"), &["c"]),
            ("z3", zones("z1"), zones("z2"), &["b", "c"]),
            ("z1", zones("z1"), none, &["b", "c"]),
        ] {
            bed.apply(&(zone(in_zone) + &on_nodes("web", &[(b, HERE, &of_b), (c, THERE, &of_c)])));
            let who: BTreeSet<String> = who.iter().map(|name| (*name).to_owned()).collect();
            for family in FAMILIES {
                for client in [a, node] {
                    assert_eq!(all_of(client, vip(family, 10, 80)), who, "in {in_zone}: b {of_b}, c {of_c}");
                }
            }
        }
    });
}
