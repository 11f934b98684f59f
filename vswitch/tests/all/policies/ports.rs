//! Rows N11 to N13 and N21: protocols and ports.

use std::io::ErrorKind;

use super::*;
use crate::services::sctp::{INIT, hear, packet, raw, whole};

#[test]
fn n11_n13_a_port_is_of_tcp_unless_it_says_so_and_a_range_has_both_its_ends() {
    on_a_node("n11_n13_a_port_is_of_tcp_unless_it_says_so_and_a_range_has_both_its_ends", |bed| {
        let Bed { a, b, .. } = bed;
        let _servers = [8079, 8080, 8082, 8083].map(|port| b.serve(port));
        for (port, tcp, udp) in [
            ("{}", [true; 4], [false; 4]),
            ("{port: 8080}", [false, true, false, false], [false; 4]),
            ("{protocol: UDP}", [false; 4], [true; 4]),
            ("{protocol: UDP, port: 8080}", [false; 4], [false, true, false, false]),
            ("{port: 8080, endPort: 8082}", [false, true, true, false], [false; 4]),
            (
                "{protocol: UDP, port: 8080, endPort: 8082}, {port: 8083}",
                [false, false, false, true],
                [false, true, true, false],
            ),
        ] {
            bed.apply(&to_b(&format!("{{ports: [{port}]}}")));
            let mut matrix = Matrix::new();
            for (i, port) in [8079, 8080, 8082, 8083].into_iter().enumerate() {
                matrix = matrix.by(By::Tcp, a, b, port, tcp[i]).by(By::Udp, a, b, port, udp[i]);
            }
            matrix.holds();
        }
    });
}

#[test]
fn n12_a_named_port_is_that_of_each_destination_pod_by_name_and_protocol() {
    on_a_node("n12_a_named_port_is_that_of_each_destination_pod_by_name_and_protocol", |bed| {
        let Bed { a, b, c, .. } = bed;
        let _servers = [b.serve(8080), b.serve(9090), c.serve(8080), c.serve(9090)];
        bed.apply(&pod_manifest(c, "").replace("8080", "9090"));
        let see = |b_8080, b_9090, c_8080, c_9090| {
            let mut matrix = Matrix::new();
            for (to, port, reaches) in [(b, 8080, b_8080), (b, 9090, b_9090), (c, 8080, c_8080), (c, 9090, c_9090)] {
                matrix = matrix.by(By::Tcp, a, to, port, reaches).by(By::Udp, a, to, port, false);
            }
            matrix.holds();
        };
        // Of the selected pods, and then of each peer.
        for section in
            ["ingress: [{ports: [{port: main}]}]", "egress: [{ports: [{port: main}], to: [{podSelector: {}}]}]"]
        {
            let (kind, pods) =
                if section.starts_with('i') { ("Ingress", "") } else { ("Egress", "matchLabels: {app: a}") };
            let spec = format!("{{podSelector: {{{pods}}}, policyTypes: [{kind}], {section}}}");
            bed.apply(&policy("named", &spec));
            see(true, false, false, true);
            // Another protocol, another name: nothing.
            for (was, is) in [("port: main", "protocol: UDP, port: main"), ("port: main", "port: other")] {
                bed.apply(&policy("named", &spec.replace(was, is)));
                see(false, false, false, false);
            }
            // N23: the number changes.
            bed.apply(&policy("named", &spec));
            bed.apply(&pod_manifest(c, ""));
            see(true, false, true, false);
            bed.apply(&pod_manifest(c, "").replace("8080", "9090"));
        }
        // Matched as an address a pod has no names of ports.
        bed.apply(&policy(
            "named",
            "{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{ports: [{port: main}], \
             to: [{ipBlock: {cidr: 10.1.0.0/24}}, {ipBlock: {cidr: 'fd00:1::/64'}}]}]}",
        ));
        see(false, false, false, false);
    });
}

#[test]
fn n21_a_rule_of_sctp_opens_nothing_but_sctp_and_no_other_rule_opens_that() {
    on_a_node("n21_a_rule_of_sctp_opens_nothing_but_sctp_and_no_other_rule_opens_that", |bed| {
        let Bed { a, b, .. } = bed;
        let _server = b.serve(8080);
        let mut sport = 4000;
        for (proto, tcp, udp, sctp) in
            [("SCTP", false, false, true), ("TCP", true, false, false), ("UDP", false, true, false)]
        {
            bed.apply(&to_b(&format!("{{ports: [{{protocol: {proto}, port: 8080}}]}}")));
            Matrix::new().by(By::Tcp, a, b, 8080, tcp).by(By::Udp, a, b, 8080, udp).holds();
            for family in FAMILIES {
                let (client, server) = (raw(a, family), raw(b, family));
                if !sctp {
                    server.set_read_timeout(Some(QUIET)).unwrap();
                }
                sport += 1;
                for _ in 0..2 {
                    client.send_to(&packet(sport, 8080, INIT), whole(b.address(family))).unwrap();
                    if sctp {
                        assert_eq!(hear(&server, family), (packet(sport, 8080, INIT), a.address(family)));
                    }
                }
                // Another port of it is another matter.
                client.send_to(&packet(sport, 8081, INIT), whole(b.address(family))).unwrap();
                server.set_read_timeout(Some(QUIET)).unwrap();
                let heard = server.recv(&mut [0; 256]).map_err(|why| why.kind());
                assert_eq!(heard, Err(ErrorKind::WouldBlock), "{proto}");
            }
        }
    });
}
