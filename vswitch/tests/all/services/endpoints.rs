//! Rows 1.2 and 1.3: which endpoints serve.

use crate::kit::*;

#[test]
fn e1_a_pod_reaches_a_service_by_slices_that_nobody_but_a_manifest_made() {
    on_a_node("e1_a_pod_reaches_a_service_by_slices_that_nobody_but_a_manifest_made", |bed| {
        let _servers = [bed.b.serve(8080)];
        bed.apply(&(service("web", 10) + &behind("web", &[&bed.b])));
        for family in FAMILIES {
            let (tcp, udp) = (bed.a.tcp(vip(family, 10, 80)), bed.a.udp(vip(family, 10, 80)));
            assert_eq!((tcp.who.as_str(), udp.who.as_str()), ("b", "b"));
            assert_eq!((tcp.from(), udp.from()), (bed.a.address(family), bed.a.address(family)));
        }
    });
}
