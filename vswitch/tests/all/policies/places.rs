//! Rows N14 to N19: addresses, services, answers, the node, and oneself.

use std::io::ErrorKind;

use super::*;

#[test]
fn n14_n15_a_block_means_pods_too_but_for_its_exceptions_and_its_ip_version() {
    on_a_node("n14_n15_a_block_means_pods_too_but_for_its_exceptions_and_its_ip_version", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b, c].map(|host| host.serve(8080));
        let block = |cidr: &str, except: &str| format!("{{ipBlock: {{cidr: '{cidr}', except: [{except}]}}}}");
        for (blocks, of_a, of_c) in [
            (block("10.1.0.0/24", ""), [true, false], [true, false]),
            (block("0.0.0.0/0", "10.1.0.2/32"), [false, false], [true, false]),
            (block("::/0", ""), [false, true], [false, true]),
            (block("fd00:1::/64", "'fd00:1::4/126'"), [false, true], [false, false]),
            // What one leaves out another may mean.
            (block("0.0.0.0/0", "10.1.0.0/24") + ", " + &block("10.1.0.2/31", ""), [true, false], [false, false]),
            (block("0.0.0.0/0", "10.1.0.0/24") + ", {podSelector: {matchLabels: {app: c}}}", [false; 2], [true; 2]),
        ] {
            bed.apply(&to_b(&format!("{{from: [{blocks}]}}")));
            let mut matrix = Matrix::new();
            for family in FAMILIES {
                let to = b.at(family, 8080);
                matrix = matrix.at(a, to, of_a[family].then_some("b")).at(c, to, of_c[family].then_some("b"));
            }
            matrix.holds();
        }
        // Of egress likewise.
        bed.delete("netpol", "to-b");
        bed.apply(&from_a("{to: [{ipBlock: {cidr: 10.1.0.0/24, except: [10.1.0.4/32]}}]}"));
        let mut matrix = Matrix::new();
        for (family, reaches) in [(0, true), (1, false)] {
            matrix = matrix.at(a, b.at(family, 8080), reaches.then_some("b")).at(a, c.at(family, 8080), None);
        }
        matrix.holds();
    });
}

#[test]
fn n16_a_service_is_asked_of_its_backend_and_as_who_came() {
    on_a_node("n16_a_service_is_asked_of_its_backend_and_as_who_came", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[b])));
        let ports = "ports: [{port: 8080}, {protocol: UDP, port: 8080}]";
        let see = |of_a: bool, of_c: bool| {
            let mut matrix = Matrix::new();
            for family in FAMILIES {
                let to = vip(family, 10, 80);
                matrix = matrix.at(a, to, of_a.then_some("b")).at(c, to, of_c.then_some("b"));
            }
            matrix.holds();
        };
        bed.apply(&from_a(&format!("{{to: [{{podSelector: {{matchLabels: {{app: b}}}}}}], {ports}}}")));
        see(true, true);
        // The service's own port and address are nothing to policies.
        bed.apply(&from_a("{ports: [{port: 80}, {protocol: UDP, port: 80}]}"));
        see(false, true);
        bed.apply(&from_a("{to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 'fd00:96::/64'}}]}"));
        see(false, true);
        bed.delete("netpol", "from-a");
        bed.apply(&to_b(&format!("{{from: [{{podSelector: {{matchLabels: {{app: c}}}}}}], {ports}}}")));
        see(false, true);
    });
}

#[test]
fn n17_answers_and_errors_of_what_was_allowed_pass_against_the_policies() {
    on_a_node("n17_answers_and_errors_of_what_was_allowed_pass_against_the_policies", |bed| {
        let Bed { a, b, .. } = bed;
        let _servers = [a, b].map(|host| host.serve(8080));
        let nothing_out = "{podSelector: {matchLabels: {app: b}}, policyTypes: [Egress]}";
        bed.apply(
            &(policy("nothing-in", "{podSelector: {matchLabels: {app: a}}}") + &policy("nothing-out", nothing_out)),
        );
        // b says nothing of its own accord, and a hears nothing so.
        Matrix::new().row(a, b, 8080, true).row(b, a, 8080, false).holds();
        for family in FAMILIES {
            // Nobody listens there: TCP's reset is an answer, ICMP's word about a datagram is related.
            assert_eq!(a.try_tcp(b.at(family, 9999)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            for _ in 0..2 {
                assert_eq!(a.try_udp(b.at(family, 9999)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
            assert!(a.ping(b.address(family), PATIENCE) && !b.ping(a.address(family), QUIET));
        }
    });
}

#[test]
fn n18_the_node_and_its_pods_reach_each_other_whatever_policies_say_and_the_outside_does_not() {
    on_a_node("n18_the_node_and_its_pods_reach_each_other_whatever_policies_say_and_the_outside_does_not", |bed| {
        let Bed { a, b, node, outside, .. } = bed;
        let _servers = [b.serve(8080), node.serve(9090), outside.serve(9090)];
        bed.apply(&on_nodes("web", &[(b, HERE, "conditions: {ready: true}")]));
        let everything = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
        for service_policy in ["Cluster", "Local"] {
            bed.apply(&beyond("web", 10, &format!(", externalTrafficPolicy: {service_policy}")));
            let from_outside = |who: Option<&'static str>| {
                FAMILIES
                    .into_iter()
                    .fold(Matrix::new(), |matrix, family| matrix.at(outside, node.at(family, NODE_PORT), who))
            };
            from_outside(Some("b")).row(a, outside, 9090, true).holds();
            bed.apply(&policy("none", everything));
            from_outside(None)
                .row(a, outside, 9090, false)
                .row(a, b, 8080, false)
                .row(node, b, 8080, true)
                .row(b, node, 9090, true)
                .holds();
            for family in FAMILIES {
                assert!(node.ping(b.address(family), PATIENCE) && b.ping(node.address(family), PATIENCE));
                assert!(b.ping(GATEWAY[family].parse().unwrap(), PATIENCE));
            }
            // It is asked as who it is, not as the node that it is masqueraded as.
            bed.apply(&policy("none", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.10/32}}, {ipBlock: {cidr: '2001:db8::10/128'}}]}]}"));
            from_outside(None).holds();
            bed.apply(&policy("none", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.9/32}}, {ipBlock: {cidr: '2001:db8:9::9/128'}}]}]}"));
            from_outside(Some("b")).holds();
            bed.delete("netpol", "none");
        }
    });
}

#[test]
fn n19_a_pod_reaches_itself_whatever_its_policies_say() {
    on_a_node("n19_a_pod_reaches_itself_whatever_its_policies_say", |bed| {
        let Bed { a, b, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[b])));
        bed.apply(&policy("none", "{podSelector: {}, policyTypes: [Ingress, Egress]}"));
        let mut matrix = Matrix::new().row(b, b, 8080, true);
        for family in FAMILIES {
            matrix = matrix.at(b, vip(family, 10, 80), Some("b")).at(a, vip(family, 10, 80), None);
        }
        matrix.holds();
    });
}
