//! Rows N22 to N24: pods that come, labels and policies that change, and connections that are there then.

use std::io::{Read, Write};

use super::*;

#[test]
fn n22_a_port_is_isolated_from_its_first_packet_until_its_pod_is_known_and_then_by_its_policies() {
    on_a_node("n22_a_port_is_isolated_from_its_first_packet_until_its_pod_is_known", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [a, b, c].map(|host| host.serve(8080));
        let of_c = |into, out| Matrix::new().row(a, c, 8080, into).row(c, a, 8080, out).row(a, b, 8080, true);
        of_c(true, true).holds();
        let heard = raw_group(c);
        bed.delete("pod", "c");
        // Not even what is for everybody.
        of_c(false, false).holds();
        say_to_all(a);
        std::thread::sleep(QUIET);
        assert!(heard.recv(&mut [0; 64]).is_err());
        let drops = bed.vsctl("drops");
        assert!(drops.contains("isolated"), "{drops}");
        // The policies are there before the pod.
        bed.apply(&policy("none", "{podSelector: {matchLabels: {app: c}}}"));
        bed.apply(&pod_manifest(c, ""));
        of_c(false, true).holds();
        bed.delete("netpol", "none");
        of_c(true, true).holds();
        say_to_all(a);
        eventually("what is for everybody comes again", || heard.recv(&mut [0; 64]).is_ok());
    });
}

/// A socket that hears what is sent to all of the pods' network.
fn raw_group(host: &Host) -> UdpSocket {
    let socket = host.space.run(|| UdpSocket::bind("0.0.0.0:7000").unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

fn say_to_all(host: &Host) {
    let socket = host.space.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_broadcast(true).unwrap();
    socket.send_to(b"everybody", "10.1.0.255:7000").unwrap();
}

#[test]
fn n23_labels_of_pods_and_namespaces_and_policies_change_live() {
    on_a_node("n23_labels_of_pods_and_namespaces_and_policies_change_live", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _server = b.serve(8080);
        move_to(bed, c, "other");
        bed.apply(&to_b(
            "{from: [{podSelector: {matchLabels: {role: friend}}}, {namespaceSelector: {matchLabels: {env: prod}}}]}",
        ));
        let see = |of_a, of_c| Matrix::new().row(a, b, 8080, of_a).row(c, b, 8080, of_c).holds();
        see(false, false);
        bed.apply(&labelled(a, "role: friend"));
        see(true, false);
        bed.apply(&namespace("other", "env: prod"));
        see(true, true);
        bed.apply(&namespace("other", "env: test"));
        bed.apply(&labelled(a, "role: foe"));
        see(false, false);
        bed.apply(&namespace("other", "env: prod"));
        bed.delete("namespace", "other");
        see(false, false);
        // Those of the selected pod, too.
        bed.apply(&labelled(b, "role: none").replace("app: b", "app: other"));
        see(true, true);
        bed.apply(&pod_manifest(b, ""));
        see(false, false);
        bed.apply(&to_b("{from: [{namespaceSelector: {}}]}"));
        see(true, true);
        bed.apply(&to_b(""));
        see(false, false);
        bed.delete("netpol", "to-b");
        see(true, true);
    });
}

#[test]
fn a_policy_that_is_refused_leaves_the_former_one_in_force() {
    on_a_node("a_policy_that_is_refused_leaves_the_former_one_in_force", |bed| {
        let Bed { a, b, .. } = bed;
        let _server = b.serve(8080);
        bed.apply(&to_b(""));
        Matrix::new().row(a, b, 8080, false).holds();
        let why = bed.refused(&to_b("{}, {ports: [{port: 0}]}"));
        assert_eq!(why, "spec.ingress[1].ports[0].port: 0: must be between 1 and 65535");
        Matrix::new().row(a, b, 8080, false).holds();
        bed.apply(&to_b("{}, {ports: [{port: 1}]}"));
        Matrix::new().row(a, b, 8080, true).holds();
    });
}

#[test]
fn n24_connections_that_are_there_are_kept_when_a_policy_comes() {
    on_a_node("n24_connections_that_are_there_are_kept_when_a_policy_comes", |bed| {
        let Bed { a, b, .. } = bed;
        let _server = b.serve(8080);
        let mut streams = FAMILIES.map(|family| a.connect(0, b.at(family, 8080)).unwrap().0);
        let flows = FAMILIES.map(|family| a.flow(0, b.at(family, 8080)));
        flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "b"));
        bed.apply(&policy("none", "{podSelector: {}, policyTypes: [Ingress, Egress]}"));
        Matrix::new().row(a, b, 8080, false).holds();
        for _ in 0..2 {
            streams.iter_mut().for_each(|stream| host::echo(stream, b"still here"));
            flows.iter().for_each(|flow| assert_eq!(flow.answer().who, "b"));
        }
        bed.delete("netpol", "none");
        Matrix::new().row(a, b, 8080, true).holds();
    });
}

#[test]
fn n24_with_cut_connections_end_that_a_policy_does_not_allow_and_others_stay() {
    let cut = |options: &mut vswitch::switch::Options| options.cut_existing = true;
    on_a_node_with("n24_with_cut_connections_end_that_a_policy_does_not_allow_and_others_stay", cut, |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b, c].map(|host| host.serve(8080));
        bed.apply(&(service("web", 10) + &behind("web", &[b])));
        for family in FAMILIES {
            // To the pod, by way of a service, and to another pod.
            let places = [b.at(family, 8080), vip(family, 10, 80), c.at(family, 8080)];
            let mut streams = places.map(|to| a.connect(0, to).unwrap().0);
            let flows = places.map(|to| a.flow(0, to));
            flows.iter().for_each(|flow| drop(flow.answer()));
            bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: a}}}]}"));
            streams.iter_mut().for_each(|stream| host::echo(stream, b"allowed still"));
            bed.apply(&to_b("{from: [{podSelector: {matchLabels: {app: c}}}]}"));
            // What was asked before the cut may be answered yet.
            let ended = |flow: &host::Flow| flow.ask(b"", QUIET).is_err();
            eventually("flows to b end", || flows[..2].iter().all(ended));
            let [to_b, by_service, to_c] = &mut streams;
            for stream in [to_b, by_service] {
                stream.set_read_timeout(Some(QUIET)).unwrap();
                let said = stream.write_all(b"anybody?");
                assert!(said.is_err() || !matches!(stream.read(&mut [0; 64]), Ok(1..)), "it goes on");
            }
            host::echo(to_c, b"still here");
            assert_eq!(flows[2].answer().who, "c");
            bed.delete("netpol", "to-b");
        }
    });
}
