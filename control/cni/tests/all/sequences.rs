//! What libcni does, in its order: the result of ADD is kept and comes back as `prevResult`.

use api::attachment::PROTOCOL;
use api::{Addressing, AttachmentId, Bandwidth, HostPort, MacAddr, PodRef, Proto, Rate};
use serde_json::json;

use crate::kit::{Bed, VERSIONS};

#[test]
fn an_attachment_is_made_checked_and_removed_in_every_version() {
    for version in VERSIONS {
        let bed = Bed::new();
        let config = bed.config(version, json!({}));
        let result = bed.run("ADD", &config).done().json();
        let attach = bed.asked();
        assert_eq!((attach.protocol, attach.kind.as_str(), attach.bridge.as_deref()), (PROTOCOL, "tap", None));
        assert_eq!((attach.netns, attach.addresses), (bed.netns(), Addressing::Daemon { wanted: Vec::new() }));

        let again = bed.config(version, json!({"prevResult": result}));
        let check = bed.run("CHECK", &again);
        if version < "0.4.0" {
            assert_eq!(check.refused(), (1, "config version does not allow CHECK".to_owned()));
        } else {
            assert_eq!(check.done().out, "");
            let mut other = result.clone();
            other["ips"][0]["address"] = json!("10.1.0.77/24");
            let check = bed.run("CHECK", &bed.config(version, json!({"prevResult": other})));
            assert_eq!(check.refused().0, 100);
        }
        // Runtimes give the result to DEL from 0.4.0 on, and repeat DEL until it is done.
        let config = if version < "0.4.0" { config } else { again };
        for _ in 0..3 {
            assert_eq!(bed.run("DEL", &config).done().out, "");
            assert_eq!(bed.attached(), []);
        }
        if version >= "0.4.0" {
            assert_eq!(bed.run("CHECK", &config).refused().0, 3);
        }
        assert_eq!(bed.queue(), [""; 0]);
    }
}

#[test]
fn attachments_that_nobody_uses_are_collected() {
    let bed = Bed::new();
    let config = bed.config("1.1.0", json!({}));
    for container in ["c1", "c2", "c3"] {
        bed.run_with("ADD", &[("CNI_CONTAINERID", container)], &config).done();
    }
    let other = bed.config("1.1.0", json!({"name": "other"}));
    bed.run("ADD", &other).done();
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let valid = json!([{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c3", "ifname": "eth1"}]);
        assert_eq!(bed.run("GC", &bed.config("1.1.0", json!({key: valid}))).done().out, "");
        let left: Vec<_> = bed.attached().into_iter().map(|id| (id.network, id.container)).collect();
        assert_eq!(left, [("net", "c2"), ("other", "c1")].map(|(n, c)| (n.to_owned(), c.to_owned())));
    }
}

#[test]
fn a_daemon_that_serves_is_said_to() {
    let bed = Bed::new();
    assert_eq!(bed.run("STATUS", &bed.config("1.1.0", json!({}))).done().out, "");
    assert_eq!(bed.heard(), ["attachment/status"]);
}

#[test]
fn what_a_runtime_asks_for_arrives_at_the_daemon() {
    let bed = Bed::new();
    let config = bed.config(
        "1.0.0",
        json!({
            "mtu": 1400, "bridge": "br7", "port": "afxdp", "master": "of another plugin",
            "args": {"cni": {"ips": ["10.1.0.3"], "mac": "02:00:00:00:00:03"}},
            "capabilities": {"mac": true},
            "runtimeConfig": {
                "portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
                    {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"},
                    {"hostPort": 38412, "containerPort": 38412, "protocol": "sctp"},
                ],
                "bandwidth": {"ingressRate": 1000, "ingressBurst": 4294967295_u64, "egressRate": 0, "egressBurst": 0},
                "ips": ["10.1.0.9/24", "fd00:1::9"],
                "mac": "02:00:00:00:00:07",
                "ipRanges": [[{"subnet": "10.1.0.0/24"}]],
            },
        }),
    );
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u;IP=10.1.0.4;MAC=02:00:00:00:00:04";
    bed.run_with("ADD", &[("CNI_ARGS", args)], &config).done();
    let attach = bed.asked();
    let (network, container, ifname) = ("net".to_owned(), "c1".to_owned(), "eth0".to_owned());
    assert_eq!(attach.id, AttachmentId { network, container, ifname });
    assert_eq!((attach.bridge.as_deref(), attach.kind.as_str(), attach.mtu), (Some("br7"), "afxdp", Some(1400)));
    assert_eq!(attach.mac, Some(MacAddr([2, 0, 0, 0, 0, 7])));
    let wanted = ["10.1.0.9", "fd00:1::9"].map(|address| address.parse().unwrap()).to_vec();
    assert_eq!(attach.addresses, Addressing::Daemon { wanted });
    let uid = Some("u".to_owned());
    assert_eq!(attach.pod, Some(PodRef { namespace: "ns".to_owned(), name: "p".to_owned(), uid }));
    let port = |address: Option<&str>, proto, port, container| {
        let address = address.map(|address| address.parse().unwrap());
        HostPort { address, proto, port, container }
    };
    let ports = [
        port(None, Proto::Tcp, 8080, 80),
        port(None, Proto::Sctp, 38412, 38412),
        port(Some("127.0.0.1"), Proto::Udp, 53, 5353),
    ];
    assert_eq!(attach.host_ports, ports);
    let ingress = Some(Rate { bits: 1000, burst: 4294967295 });
    assert_eq!(attach.bandwidth, Bandwidth { ingress, egress: None });
}

#[test]
fn what_the_user_asks_for_counts_where_the_runtime_asks_for_nothing() {
    let bed = Bed::new();
    let args = [("CNI_ARGS", "IP=10.1.0.4/24;MAC=02:00:00:00:00:04")];
    bed.run_with("ADD", &args, &bed.config("0.3.1", json!({"mtu": 0}))).done();
    let attach = bed.asked();
    assert_eq!(attach.mac, Some(MacAddr([2, 0, 0, 0, 0, 4])));
    assert_eq!(attach.addresses, Addressing::Daemon { wanted: vec!["10.1.0.4".parse().unwrap()] });
    assert_eq!(attach.mtu, None);
}

#[test]
fn a_network_may_have_no_addresses() {
    let bed = Bed::new();
    let result = bed.run("ADD", &bed.config("1.1.0", json!({"bridge": "br7", "ipam": {}}))).done().json();
    assert_eq!(bed.asked().addresses, Addressing::None);
    assert_eq!((&result["ips"], &result["routes"]), (&json!(null), &json!(null)));
    let check = bed.config("1.1.0", json!({"bridge": "br7", "ipam": {}, "prevResult": result}));
    assert_eq!(bed.run("CHECK", &check).done().out, "");
}

#[test]
fn check_leaves_what_other_plugins_of_the_chain_made_to_them() {
    let bed = Bed::new();
    let mut result = bed.run("ADD", &bed.config("1.0.0", json!({}))).done().json();
    for (list, more) in [
        ("interfaces", json!({"name": "net1", "mac": "02:00:00:00:00:55", "sandbox": bed.netns()})),
        ("ips", json!({"address": "192.0.2.9/24", "interface": 1})),
        ("routes", json!({"dst": "198.51.100.0/24", "gw": "192.0.2.1"})),
        ("routes", json!({"dst": "203.0.113.0/24"})),
    ] {
        result[list].as_array_mut().unwrap().push(more);
    }
    bed.run("CHECK", &bed.config("1.0.0", json!({"prevResult": result}))).done();
    result["routes"].as_array_mut().unwrap().push(json!({"dst": "198.51.100.0/24", "gw": "10.1.0.1"}));
    let check = bed.run("CHECK", &bed.config("1.0.0", json!({"prevResult": result})));
    assert_eq!(check.refused().0, 100);
}
