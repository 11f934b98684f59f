//! Access lists between kernel sockets, on a plain bridge beside that of the cluster.

use std::net::SocketAddr;

use vswitch::sys::netlink::{Netlink, Settings};

use crate::kit::host::echo;
use crate::kit::{Bed, Host, SILENCE, on_a_node};

/// Of pods a and b on the plain bridge, by IP version.
const ENDS: [[&str; 2]; 2] = [["10.8.0.1", "fd00:8::1"], ["10.8.0.2", "fd00:8::2"]];
const WEB: u16 = 8080;
const OTHER: u16 = 9090;

/// A plain bridge between pods a and b, ports `xa` and `xb`.
fn plain_bridge(bed: &Bed) {
    bed.vsctl("add-br plain");
    for ((name, host), addresses) in [("xa", &bed.a), ("xb", &bed.b)].into_iter().zip(ENDS) {
        let netns = host.space.path().display();
        bed.vsctl(&format!(
            "add-port plain {name} -- set Interface {name} type=tap options:netns={netns} options:ifname=eth1"
        ));
        configure(host, addresses);
    }
}

fn configure(host: &Host, addresses: [&str; 2]) {
    host.space.run(|| {
        let netlink = Netlink::open().unwrap();
        let index = netlink.index("eth1").unwrap();
        netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
        for (address, prefix) in addresses.into_iter().zip([24, 64]) {
            netlink.add_address(index, address.parse().unwrap(), prefix).unwrap();
        }
    });
}

/// Pod b at a port, by both IP versions.
fn at(port: u16) -> [SocketAddr; 2] {
    ENDS[1].map(|address| SocketAddr::new(address.parse().unwrap(), port))
}

#[test]
fn lists_of_a_plain_bridge_hold_between_kernel_sockets() {
    on_a_node("lists_of_a_plain_bridge_hold_between_kernel_sockets", |bed| {
        plain_bridge(bed);
        let (_web, _other) = (bed.b.serve(WEB), bed.b.serve(OTHER));
        for to in at(WEB).into_iter().chain(at(OTHER)) {
            assert_eq!((bed.a.tcp(to).who, bed.a.udp(to).who), ("b".to_owned(), "b".to_owned()), "no list yet");
        }
        // Pod b may hear of its web server alone, and speak only when it is spoken to.
        for rule in [
            "xb to-lport 9 tcp,tp_dst=8080 allow-related",
            "xb to-lport 9 tcp6,tp_dst=8080 allow-related",
            "xb to-lport 9 udp,tp_dst=8080 allow-related",
            "xb to-lport 1 ip drop",
            "xb to-lport 1 ipv6 drop",
            "xb from-lport 9 tcp,tcp_flags=+syn-ack drop",
            "xb from-lport 8 tcp6,tcp_flags=+syn-ack drop",
            "xb from-lport 7 ip allow-related",
        ] {
            bed.vsctl(&format!("acl-add {rule}"));
        }
        let [web4, web6] = at(WEB);
        let (mut stream, answer) = bed.a.connect(0, web4).unwrap();
        assert_eq!(answer.from().to_string(), ENDS[0][0]);
        echo(&mut stream, &vec![7; 300_000]);
        assert_eq!((bed.a.tcp(web6).who, bed.a.udp(web4).who), ("b".to_owned(), "b".to_owned()));
        at(OTHER).into_iter().for_each(|to| bed.a.meets_silence(to));
        assert!(bed.a.flow(0, web6).ask(b"", SILENCE).is_err(), "UDP over IPv6 is in no rule");
        let _back = bed.a.serve(OTHER);
        let a_of_plain = SocketAddr::new(ENDS[0][0].parse().unwrap(), OTHER);
        assert!(bed.b.connect_within(a_of_plain, SILENCE).is_err(), "pod b opens nothing");
        assert!(bed.vsctl("drops").contains("acl"));
        // A list that goes lets everything pass again, and what was let through goes on.
        bed.vsctl("acl-del xb");
        assert_eq!(bed.a.tcp(at(OTHER)[0]).who, "b");
        echo(&mut stream, &[1; 1000]);
        // Rejected on the way in: at once, and in the name of who was asked for.
        for rule in ["plain from-lport 5 ip reject", "plain from-lport 5 ipv6 reject"] {
            bed.vsctl(&format!("acl-add {rule}"));
        }
        at(OTHER).into_iter().for_each(|to| bed.a.is_refused(to));
        assert_eq!(bed.vsctl("acl-list plain").lines().count(), 2);
        bed.vsctl("del-br plain");
    });
}
