//! Rows N1 to N10, N20, N25 and N26: whom policies select, and whom their rules mean.

use super::*;

#[test]
fn n01_n07_a_pod_is_open_until_a_policy_selects_it_and_then_in_that_direction_only() {
    on_a_node("n01_n07_a_pod_is_open_until_a_policy_selects_it_and_then_in_that_direction_only", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [a, b, c].map(|host| host.serve(8080));
        let of_b = |into, out| Matrix::new().row(a, b, 8080, into).row(b, a, 8080, out).row(a, c, 8080, true);
        of_b(true, true).holds();
        for (spec, into, out) in [
            ("policyTypes: [Ingress]", false, true),
            ("policyTypes: [Egress]", true, false),
            ("policyTypes: [Ingress, Egress]", false, false),
            ("ingress: [{}]", true, true),
            ("policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]", true, true),
        ] {
            bed.apply(&policy("p", &format!("{{podSelector: {{matchLabels: {{app: b}}}}, {spec}}}")));
            of_b(into, out).holds();
        }
        let drops = bed.vsctl("drops");
        assert!(drops.contains("policy-ingress") && drops.contains("policy-egress"), "{drops}");
    });
}

#[test]
fn n02_n03_both_ends_must_allow_and_policies_only_add() {
    on_a_node("n02_n03_both_ends_must_allow_and_policies_only_add", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b, c].map(|host| host.serve(8080));
        let see = |a_b, a_c, c_b| Matrix::new().row(a, b, 8080, a_b).row(a, c, 8080, a_c).row(c, b, 8080, c_b).holds();
        bed.apply(&(policy("none", DENY) + &from_a("")));
        see(false, false, false);
        // Only one end does.
        bed.apply(&from_a("{to: [{podSelector: {matchLabels: {app: b}}}]}"));
        see(false, false, false);
        bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: a}}}]}"));
        see(true, false, false);
        // One more policy, and one more rule.
        let more =
            "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: c}}}]}]}";
        bed.apply(&policy("a-more", more));
        see(true, false, true);
        bed.delete("netpol", "a-more");
        see(true, false, false);
        bed.apply(&to_b("{from: []}, {from: [{podSelector: {matchLabels: {app: nobody}}}]}"));
        see(true, false, true);
    });
}

#[test]
fn n04_n05_policy_types_decide_what_a_policy_is_for() {
    on_a_node("n04_n05_policy_types_decide_what_a_policy_is_for", |bed| {
        let Bed { a, b, .. } = bed;
        let _servers = [a, b].map(|host| host.serve(8080));
        for (spec, into, out) in [
            ("egress: [{}]", false, true),
            ("egress: []", false, true),
            ("policyTypes: [Egress], egress: [{}]", true, true),
            ("policyTypes: [Egress], ingress: [{from: [{podSelector: {matchLabels: {app: nobody}}}]}]", true, false),
            ("policyTypes: [Ingress], ingress: [{}], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]", true, true),
        ] {
            bed.apply(&policy("p", &format!("{{podSelector: {{matchLabels: {{app: b}}}}, {spec}}}")));
            Matrix::new().row(a, b, 8080, into).row(b, a, 8080, out).holds();
        }
    });
}

#[test]
fn n06_n25_a_policy_is_for_the_pods_of_its_own_namespace() {
    on_a_node("n06_n25_a_policy_is_for_the_pods_of_its_own_namespace", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b, c].map(|host| host.serve(8080));
        move_to(bed, c, "other");
        let see = |a_b, a_c| Matrix::new().row(a, b, 8080, a_b).row(a, c, 8080, a_c).holds();
        see(true, true);
        bed.apply(&policy("none", DENY));
        see(false, true);
        bed.apply(&policy_in("other", "none", DENY));
        see(false, false);
        bed.delete("netpol", "none");
        see(true, false);
        // The same words, of pods that are elsewhere.
        bed.apply(&policy_in("other", "none", "{podSelector: {matchLabels: {app: b}}}"));
        see(true, true);
    });
}

#[test]
fn n08_a_rule_means_its_peers_at_its_ports() {
    on_a_node("n08_a_rule_means_its_peers_at_its_ports", |bed| {
        let Bed { a, b, c, outside, node, .. } = bed;
        let _servers = [b.serve(8080), b.serve(9090)];
        bed.apply(&(beyond("web", 10, "") + &behind("web", &[b])));
        let of_a = "from: [{podSelector: {matchLabels: {app: a}}}]";
        for (rule, [a_8080, a_9090, c_8080, c_9090], beyond_it) in [
            (format!("{{{of_a}, ports: [{{port: 8080}}]}}"), [true, false, false, false], false),
            (format!("{{{of_a}}}, {{ports: [{{port: 9090}}]}}"), [true, true, false, true], false),
            (format!("{{{of_a}, ports: []}}"), [true, true, false, false], false),
            ("{from: [], ports: [{port: 8080}]}".to_owned(), [true, false, true, false], true),
        ] {
            bed.apply(&to_b(&rule));
            let by_tcp = |from, port, reaches| Matrix::new().by(By::Tcp, from, b, port, reaches).0;
            let mut matrix = Matrix::new();
            for (from, port, reaches) in [(a, 8080, a_8080), (a, 9090, a_9090), (c, 8080, c_8080), (c, 9090, c_9090)] {
                matrix.0.extend(by_tcp(from, port, reaches));
            }
            for family in FAMILIES {
                let to = node.at(family, NODE_PORT);
                matrix.0.push(Row { from: outside, to, by: By::Tcp, who: beyond_it.then_some("b") });
            }
            matrix.holds();
        }
    });
}

#[test]
fn n09_n10_a_peer_is_told_by_labels_of_its_own_and_of_its_namespace() {
    on_a_node("n09_n10_a_peer_is_told_by_labels_of_its_own_and_of_its_namespace", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _server = b.serve(8080);
        move_to(bed, c, "other");
        bed.apply(&namespace("other", "env: prod"));
        let [pods_a, pods_c] = ["a", "c"].map(|app| format!("podSelector: {{matchLabels: {{app: {app}}}}}"));
        let prod = "namespaceSelector: {matchLabels: {env: prod}}";
        let named = |name: &str| format!("namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}");
        let expression = |text: &str| format!("{{namespaceSelector: {{matchExpressions: [{{key: env, {text}}}]}}}}");
        for (from, of_a, of_c) in [
            ("{podSelector: {}}".to_owned(), true, false),
            (format!("{{{pods_c}}}"), false, false),
            ("{namespaceSelector: {}}".to_owned(), true, true),
            (format!("{{{prod}}}"), false, true),
            (format!("{{{prod}, {pods_a}}}"), false, false),
            (format!("{{{prod}, {pods_c}}}"), false, true),
            (format!("{{{prod}}}, {{{pods_a}}}"), true, true),
            (format!("{{{}}}", named("other")), false, true),
            // There is no such object, and a namespace all the same.
            (format!("{{{}}}", named("default")), true, false),
            (expression("operator: NotIn, values: [test]"), true, true),
            (expression("operator: DoesNotExist"), true, false),
            (expression("operator: In, values: [test, prod]"), false, true),
        ] {
            bed.apply(&to_b(&format!("{{from: [{from}]}}")));
            Matrix::new().row(a, b, 8080, of_a).row(c, b, 8080, of_c).holds();
        }
    });
}

#[test]
fn n20_pods_of_the_host_network_are_no_pods_to_policies() {
    on_a_node("n20_pods_of_the_host_network_are_no_pods_to_policies", |bed| {
        let Bed { a, b, node, .. } = bed;
        let _servers = [node.serve(8080), b.serve(8080)];
        let agent = pod_manifest(node, "").replace("name: node,", "name: agent,");
        bed.apply(&agent.replace("spec: {nodeName", "spec: {hostNetwork: true, nodeName"));
        bed.apply(&policy("none", "{podSelector: {matchLabels: {app: node}}, policyTypes: [Ingress, Egress]}"));
        Matrix::new().row(a, node, 8080, true).row(node, b, 8080, true).holds();
        // The control: of a pod the same words are true.
        bed.apply(&policy("none", "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}"));
        Matrix::new().row(a, b, 8080, false).row(a, node, 8080, true).holds();
    });
}

#[test]
fn n26_a_pod_that_has_ended_lends_its_labels_to_nobody() {
    on_a_node("n26_a_pod_that_has_ended_lends_its_labels_to_nobody", |bed| {
        let Bed { a, b, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: friend}}}]}"));
        // It had the address of a.
        let ended = pod_manifest(a, "").replace("name: a,", "name: friend,").replace("app: a", "app: friend");
        bed.apply(&ended.replace("status: {", "status: {phase: Succeeded, "));
        Matrix::new().row(a, b, 8080, false).holds();
        bed.apply(&pod_manifest(a, "").replace("app: a", "app: friend"));
        Matrix::new().row(a, b, 8080, true).holds();
    });
}
