//! Rows 1.1: which services are programmed at all.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kit::*;

#[test]
fn s1_a_label_that_gives_a_service_to_another_proxy_takes_it_from_us_while_it_is_there() {
    on_a_node("s1_a_label_that_gives_a_service_to_another_proxy_takes_it_from_us_while_it_is_there", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&behind("web", &[&bed.b]));
        for label in ["service-proxy-name: other", "headless: ''"] {
            bed.apply(&service("web", 10));
            FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.tcp(vip(family, 10, 80)).who, "b"));
            let labels = format!(", labels: {{service.kubernetes.io/{label}}}");
            bed.apply(&service_with("web", 10, PORTS, &labels, ""));
            FAMILIES.into_iter().for_each(|family| bed.a.meets_silence(vip(family, 10, 80)));
        }
        bed.apply(&service("web", 10));
        FAMILIES.into_iter().for_each(|family| assert_eq!(bed.a.udp(vip(family, 10, 80)).who, "b"));
    });
}

#[test]
fn s1_e7_headless_services_and_external_names_are_listed_and_not_programmed() {
    on_a_node("s1_e7_headless_services_and_external_names_are_listed_and_not_programmed", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        assert_eq!(bed.a.tcp(vip(0, 10, 80)).who, "b");
        bed.delete("service", "web");
        bed.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
             spec: {clusterIP: None, ports: [{name: t, port: 80}]}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: far}\n\
             spec: {type: ExternalName, externalName: far.example, ports: [{name: t, port: 80}]}\n",
        );
        FAMILIES.into_iter().for_each(|family| bed.a.meets_silence(vip(family, 10, 80)));
        let listed = bed.vsctl("get services");
        assert!(listed.contains("web") && listed.contains("far"), "{listed}");
        let programmed = bed.vsctl("services");
        assert!(programmed.contains("headless") && programmed.contains("ExternalName"), "{programmed}");
    });
}

#[test]
fn s2_u5_m12_a_restart_refuses_nobody_and_connections_between_pods_go_on() {
    on_a_node("s2_u5_m12_a_restart_refuses_nobody_and_connections_between_pods_go_on", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let (mut stream, _) = bed.a.connect(0, bed.b.at(0, 8080)).unwrap();
        let (at, stop) = (vip(0, 10, 80), AtomicBool::new(false));
        let (served, refused) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let (mut served, mut refused) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match bed.c.connect_within(at, SILENCE) {
                        Ok(_) => served += 1,
                        Err(why) if why.kind() == ErrorKind::ConnectionRefused => refused += 1,
                        Err(_) => {}
                    }
                }
                (served, refused)
            });
            for _ in 0..2 {
                std::thread::sleep(SILENCE);
                bed.stop();
                bed.start();
            }
            std::thread::sleep(SILENCE);
            stop.store(true, Ordering::Relaxed);
            asked.join().unwrap()
        });
        assert!(served > 10, "{served} served");
        assert_eq!(refused, 0, "refused while the switch began");
        host::echo(&mut stream, b"still here");
    });
}

#[test]
fn s3_v16_each_ip_version_of_a_service_stands_for_itself() {
    on_a_node("s3_v16_each_ip_version_of_a_service_stands_for_itself", |bed| {
        let _servers = [bed.b.serve(8080), bed.c.serve(8080)];
        // The order of the versions is the other way round; the versions' backends are not the same.
        let swapped = service("web", 10)
            .replace("clusterIP: 10.96.0.10", "clusterIP: 'fd00:96::10'")
            .replace("[10.96.0.10, 'fd00:96::10']", "['fd00:96::10', 10.96.0.10]")
            .replace("[IPv4, IPv6]", "[IPv6, IPv4]");
        let endpoint = |host: &Host, family: usize| format!("{{addresses: ['{}']}}", host.addresses[family]);
        bed.apply(&(swapped + &slice("web", "4", "IPv4", TARGETS, &endpoint(&bed.b, 0))));
        assert_eq!(bed.a.tcp(vip(0, 10, 80)).who, "b");
        bed.a.is_refused(vip(1, 10, 80));
        bed.apply(&slice("web", "6", "IPv6", TARGETS, &endpoint(&bed.c, 1)));
        assert_eq!([bed.a.tcp(vip(0, 10, 80)).who, bed.a.tcp(vip(1, 10, 80)).who], ["b", "c"]);
        // One version, live: the other has no service any more.
        bed.delete("service", "web");
        bed.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
             spec: {{clusterIP: 'fd00:96::10', ipFamilies: [IPv6], ports: [{PORTS}]}}\n"
        ));
        bed.a.meets_silence(vip(0, 10, 80));
        assert_eq!(bed.a.tcp(vip(1, 10, 80)).who, "c");
    });
}

#[test]
fn s4_e5_leading_zeros_are_decimal() {
    on_a_node("s4_e5_leading_zeros_are_decimal", |bed| {
        let _server = bed.b.serve(8080);
        let ports = "{name: t, protocol: TCP, port: 80}";
        bed.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: 010.096.0.012, ports: [{ports}]}}\n"
        ));
        bed.apply(&slice("web", "4", "IPv4", TARGETS, "{addresses: [010.001.000.003]}"));
        assert_eq!(bed.a.tcp(vip(0, 12, 80)).who, "b");
        // What it would be in octal.
        bed.a.meets_silence(vip(0, 10, 80));
    });
}

#[test]
fn s5_two_ports_of_one_number_and_two_protocols_come_and_go_apart() {
    on_a_node("s5_two_ports_of_one_number_and_two_protocols_come_and_go_apart", |bed| {
        let _server = bed.b.serve(8080);
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        let tcp_only = service_with("web", 10, "{name: t, protocol: TCP, port: 80, targetPort: 8080}", "", "");
        let udp_only = service_with("web", 10, "{name: u, protocol: UDP, port: 80, targetPort: 8080}", "", "");
        for family in FAMILIES {
            let at = vip(family, 10, 80);
            bed.apply(&service("web", 10));
            assert_eq!((bed.a.tcp(at).who, bed.a.udp(at).who), ("b".to_owned(), "b".to_owned()));
            bed.apply(&tcp_only);
            assert_eq!(bed.a.tcp(at).who, "b");
            assert_eq!(bed.a.try_udp(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bed.apply(&udp_only);
            assert_eq!(bed.a.udp(at).who, "b");
            assert_eq!(bed.a.try_tcp(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn s6_v17_ports_come_go_and_are_renumbered_and_the_others_keep_their_connections() {
    on_a_node("s6_v17_ports_come_go_and_are_renumbered_and_the_others_keep_their_connections", |bed| {
        let _servers = [bed.b.serve(8080), bed.b.serve(8081)];
        let two = |second: u16| {
            let ports = format!("{{name: one, port: 80}}, {{name: two, port: {second}}}");
            service_with("web", 10, &ports, "", "")
        };
        let targets = "{name: one, port: 8080}, {name: two, port: 8081}";
        bed.apply(&(two(81) + &behind_with("web", "", targets, &[(&bed.b, READY)])));
        for family in FAMILIES {
            let (mut stream, _) = bed.a.connect(0, vip(family, 10, 80)).unwrap();
            assert_eq!(bed.a.tcp(vip(family, 10, 81)).who, "b");
            bed.apply(&two(82));
            let old = bed.a.try_tcp(vip(family, 10, 81)).unwrap_err();
            assert_eq!(old.kind(), ErrorKind::ConnectionRefused);
            assert_eq!(bed.a.tcp(vip(family, 10, 82)).who, "b");
            host::echo(&mut stream, b"still here");
            bed.apply(&two(81));
        }
    });
}
