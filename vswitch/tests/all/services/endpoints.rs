//! Rows 1.2 and 1.3: which endpoints serve.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::kit::*;

/// Who serves, when it is asked often.
fn all_of(client: &Host, to: SocketAddr) -> BTreeSet<String> {
    (0..40).map(|_| client.tcp(to).who).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn e1_slices_are_joined_by_label_and_merged_whoever_made_them() {
    on_a_node("e1_slices_are_joined_by_label_and_merged_whoever_made_them", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080), bed.c.serve(8081)];
        let ports = "{name: t, port: 80}, {name: x, port: 81}";
        bed.apply(&service_with("web", 10, ports, "", ""));
        let t = "{name: t, port: 8080}";
        // Disjoint addresses, and the same one twice.
        bed.apply(&behind_with("web", "-1", t, &[(&bed.b, READY)]));
        bed.apply(&behind_with("web", "-2", t, &[(&bed.c, READY), (&bed.b, READY)]));
        // Disjoint ports.
        bed.apply(&behind_with("web", "-3", "{name: x, port: 8081}", &[(&bed.c, READY)]));
        for family in FAMILIES {
            assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["b", "c"]));
            assert_eq!(all_of(&bed.a, vip(family, 10, 81)), set(&["c"]));
        }
        // The address of a pod that terminates is another's already: it is ready.
        bed.apply(&behind_with("web", "-2", t, &[(&bed.c, READY), (&bed.b, TERMINATING)]));
        assert_eq!(all_of(&bed.a, vip(0, 10, 80)), set(&["b", "c"]));
    });
}

#[test]
fn e2_names_are_ignored_and_only_the_first_address_counts() {
    on_a_node("e2_names_are_ignored_and_only_the_first_address_counts", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&service("web", 10));
        bed.apply(&slice("web", "names", "FQDN", TARGETS, "{addresses: [b.example]}"));
        bed.a.is_refused(vip(0, 10, 80));
        bed.apply(&slice("web", "4", "IPv4", TARGETS, "{addresses: [10.1.0.3, 10.1.0.4]}"));
        assert_eq!(all_of(&bed.a, vip(0, 10, 80)), set(&["b"]));
    });
}

#[test]
fn e3_an_endpoint_without_conditions_serves_and_one_that_is_not_ready_does_not() {
    on_a_node("e3_an_endpoint_without_conditions_serves_and_one_that_is_not_ready_does_not", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&service("web", 10));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, ""), (&bed.c, "ready: false")]));
        FAMILIES.into_iter().for_each(|family| assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["b"])));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, "ready: false"), (&bed.c, UNREADY)]));
        FAMILIES.into_iter().for_each(|family| bed.a.is_refused(vip(family, 10, 80)));
    });
}

#[test]
fn e4_one_port_name_may_have_two_numbers_and_other_names_do_not_serve() {
    on_a_node("e4_one_port_name_may_have_two_numbers_and_other_names_do_not_serve", |bed| {
        let _servers = [bed.a.serve(8080), bed.b.serve(8080), bed.c.serve(8081)];
        bed.apply(&service("web", 10));
        bed.apply(&behind_with("web", "-1", "{name: t, port: 8080}", &[(&bed.b, READY)]));
        bed.apply(&behind_with("web", "-2", "{name: t, port: 8081}", &[(&bed.c, READY)]));
        bed.apply(&behind_with("web", "-3", "{name: z, port: 8080}", &[(&bed.a, READY)]));
        bed.apply(&behind_with("web", "-4", "{name: t}", &[(&bed.a, READY)]));
        FAMILIES.into_iter().for_each(|family| assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["b", "c"])));
    });
}

#[test]
fn e4_m5_a_selector_finds_pods_by_their_named_ports_and_all_their_addresses() {
    on_a_node("e4_m5_a_selector_finds_pods_by_their_named_ports_and_all_their_addresses", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8081)];
        let labels = ", labels: {app: web}";
        bed.apply(&pod_manifest(&bed.b, "").replace("{app: b}", "{app: web}"));
        let other = pod_manifest(&bed.c, "").replace("{app: c}", "{app: web}");
        bed.apply(&other.replace("containerPort: 8080", "containerPort: 8081"));
        let ports = "{name: t, port: 80, targetPort: main}";
        bed.apply(&service_with("web", 10, ports, labels, ", selector: {app: web}"));
        FAMILIES.into_iter().for_each(|family| assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["b", "c"])));
    });
}

#[test]
fn e6_pods_that_are_not_ready_serve_where_that_is_asked_for_and_nowhere_else() {
    on_a_node("e6_pods_that_are_not_ready_serve_where_that_is_asked_for_and_nowhere_else", |bed| {
        let _server = bed.b.serve(8080);
        let ports = "{name: t, port: 80, targetPort: 8080}";
        let wish = ", selector: {app: b}, publishNotReadyAddresses: true";
        bed.apply(&service_with("eager", 10, ports, "", wish));
        bed.apply(&service_with("patient", 11, ports, "", ", selector: {app: b}"));
        FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.tcp(vip(family, 11, 80)).who, "b"));
        bed.apply(&pod_manifest(&bed.b, "").replace("'True'", "'False'"));
        for family in FAMILIES {
            assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "b");
            assert_eq!(bed.a.try_tcp(vip(family, 11, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        let ending = pod_manifest(&bed.b, ", deletionTimestamp: '2026-01-01T00:00:00Z'").replace("'True'", "'False'");
        bed.apply(&ending);
        FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "b"));
    });
}

#[test]
fn t1_who_terminates_keeps_its_connections_and_gets_no_new_ones() {
    on_a_node("t1_who_terminates_keeps_its_connections_and_gets_no_new_ones", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let mut streams = FAMILIES.map(|family| bed.a.connect(0, vip(family, 10, 80)).unwrap().0);
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, TERMINATING), (&bed.c, READY)]));
        for family in FAMILIES {
            assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["c"]));
            host::echo(&mut streams[family], b"while it terminates");
        }
        bed.apply(&behind("web", &[&bed.c]));
        streams.iter_mut().for_each(|stream| host::echo(stream, b"when it is not listed any more"));
    });
}

#[test]
fn t2_when_only_who_terminates_still_serves_it_gets_new_connections() {
    on_a_node("t2_when_only_who_terminates_still_serves_it_gets_new_connections", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&service("web", 10));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, TERMINATING), (&bed.c, UNREADY)]));
        FAMILIES.into_iter().for_each(|family| assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["b"])));
    });
}

#[test]
fn t3_who_terminates_and_does_not_serve_is_never_used() {
    on_a_node("t3_who_terminates_and_does_not_serve_is_never_used", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        bed.apply(&service("web", 10));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, FAILING), (&bed.c, TERMINATING)]));
        FAMILIES.into_iter().for_each(|family| assert_eq!(all_of(&bed.a, vip(family, 10, 80)), set(&["c"])));
        bed.apply(&behind_with("web", "", TARGETS, &[(&bed.b, FAILING)]));
        FAMILIES.into_iter().for_each(|family| bed.a.is_refused(vip(family, 10, 80)));
    });
}
