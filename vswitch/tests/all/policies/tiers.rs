//! Rows 2.2: ClusterNetworkPolicies, before and behind the policies of namespaces.

use super::*;

/// A ClusterNetworkPolicy for pod b, or for `subject`.
fn cluster_policy(name: &str, tier: &str, priority: u16, rules: &str) -> String {
    let subject = "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: b}}}";
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{tier: {tier}, priority: {priority}, subject: {{{subject}}}, {rules}}}\n"
    )
}

/// An ingress rule about pod `app`.
fn rule(action: &str, app: &str) -> String {
    format!(
        "{{action: {action}, from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}"
    )
}

#[test]
fn row_2_2_tiers_are_asked_in_order_and_the_first_rule_that_matches_decides() {
    on_a_node("row_2_2_tiers_are_asked_in_order_and_the_first_rule_that_matches_decides", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b, c].map(|host| host.serve(8080));
        let see = |of_a, of_c| Matrix::new().row(a, b, 8080, of_a).row(c, b, 8080, of_c).row(a, c, 8080, true).holds();
        let ingress = |rules: &[String]| format!("ingress: [{}]", rules.join(", "));
        bed.apply(&cluster_policy("base", "Baseline", 5, &ingress(&[rule("Deny", "a")])));
        see(false, true);
        // Behind policies of the namespace, which are final.
        bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: a}}}]}"));
        see(true, false);
        bed.apply(&cluster_policy("admin", "Admin", 10, &ingress(&[rule("Deny", "a"), rule("Accept", "c")])));
        see(false, true);
        // A lower number comes first; who passes is asked behind the tier.
        bed.apply(&cluster_policy(
            "first",
            "Admin",
            9,
            &ingress(&[rule("Pass", "a"), rule("Deny", "a"), rule("Pass", "c")]),
        ));
        see(true, false);
        bed.delete("netpol", "to-b");
        see(false, true);
        bed.delete("cnp", "base");
        see(true, true);
        bed.delete("cnp", "first");
        see(false, true);
        bed.delete("cnp", "admin");
        see(true, true);
    });
}

#[test]
fn row_2_2_egress_knows_networks_nodes_and_protocols() {
    on_a_node("row_2_2_egress_knows_networks_nodes_and_protocols", |bed| {
        let Bed { a, b, c, outside, .. } = bed;
        let _servers = [a, c, outside].map(|host| host.serve(8080));
        let see = |rules: &str, to_a: bool, to_c: bool, out: bool| {
            bed.apply(&cluster_policy("p", "Admin", 0, &format!("egress: [{rules}]")));
            Matrix::new().row(b, a, 8080, to_a).row(b, c, 8080, to_c).row(b, outside, 8080, out).holds();
        };
        let all = "{networks: [0.0.0.0/0, '::/0']}";
        see(&format!("{{action: Deny, to: [{all}]}}"), false, false, false);
        see(
            &format!("{{action: Accept, to: [{{namespaces: {{}}}}]}}, {{action: Deny, to: [{all}]}}"),
            true,
            true,
            false,
        );
        see("{action: Deny, to: [{networks: [203.0.113.0/24, '2001:db8:9::/64']}]}", true, true, false);
        let ports = "protocols: [{tcp: {destinationPort: {range: {start: 8080, end: 8081}}}}, {udp: {destinationPort: {number: 8080}}}]";
        see(&format!("{{action: Deny, to: [{{namespaces: {{}}}}], {ports}}}"), false, false, true);
        see(
            &format!("{{action: Deny, to: [{{namespaces: {{}}}}], {}}}", ports.replace("808", "807")),
            true,
            true,
            true,
        );
        // The port that is called so at c is another than at a.
        bed.apply(&pod_manifest(c, "").replace("8080", "9090"));
        bed.apply(&cluster_policy(
            "p",
            "Admin",
            0,
            "egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: main}]}]",
        ));
        Matrix::new().by(By::Tcp, b, a, 8080, false).row(b, c, 8080, true).holds();
    });
}

#[test]
fn row_2_2_what_is_not_known_fails_closed() {
    on_a_node("row_2_2_what_is_not_known_fails_closed", |bed| {
        let Bed { a, b, outside, .. } = bed;
        let _servers = [a, outside].map(|host| host.serve(8080));
        let see = |rules: &str, reaches: bool| {
            bed.apply(&cluster_policy("p", "Admin", 0, &format!("egress: [{rules}]")));
            Matrix::new().row(b, a, 8080, reaches).row(b, outside, 8080, reaches).holds();
        };
        let deny = "{action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}";
        see(
            &format!("{{action: Accept, to: [{{domainNames: [kubernetes.io]}}, {{namespaces: {{}}}}]}}, {deny}"),
            false,
        );
        see("{action: Deny, to: [{domainNames: [kubernetes.io]}]}", false);
        see("{action: Pass, to: [{services: {}}]}", false);
        see("{action: Accept, to: [{domainNames: [kubernetes.io]}]}", true);
    });
}

#[test]
fn row_2_2_what_a_pod_sends_to_itself_by_way_of_a_service_is_asked_of_cluster_policies() {
    on_a_node("row_2_2_what_a_pod_sends_to_itself_by_way_of_a_service_is_asked_of_cluster_policies", |bed| {
        let Bed { b, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[b])));
        let see = |who: Option<&'static str>| {
            let mut matrix = Matrix::new().row(b, b, 8080, true);
            for family in FAMILIES {
                matrix = matrix.at(b, vip(family, 10, 80), who);
            }
            matrix.holds();
        };
        see(Some("b"));
        bed.apply(&cluster_policy("p", "Admin", 0, &format!("ingress: [{}]", rule("Deny", "b"))));
        see(None);
        bed.delete("cnp", "p");
        see(Some("b"));
    });
}
