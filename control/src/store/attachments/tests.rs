use std::path::Path;
use std::sync::Arc;

use api::Rate;
use api::attachment::PROTOCOL;

use super::*;
use crate::NodeSettings;
use crate::cluster::compile::everything;
use crate::cluster::compile::tests::node;
use crate::cluster::model::Objects;
use crate::fake::FakeSwitch;

/// A node with podCIDRs, and namespaces that are there.
struct Bed {
    directory: tempfile::TempDir,
    store: Store,
    switch: FakeSwitch,
}

const CIDRS: &[&str] = &["10.244.1.0/29", "fd00:1::/64"];

fn settings() -> NodeSettings {
    NodeSettings { name: "n1".to_owned(), ..NodeSettings::default() }
}

fn open(directory: &Path, cidrs: &[&str]) -> (Store, FakeSwitch) {
    let mut switch = FakeSwitch::default();
    // A path that is there as long as the test runs: what lies behind it nobody asks.
    let there = directory.to_str().unwrap();
    switch.namespaces.lock().unwrap().extend([there.to_owned(), format!("{there}/other")]);
    let mut store = Store::open(&directory.join("state"), "", &settings(), &mut switch).unwrap();
    let mut objects = Objects::default();
    let own = node("n1", cidrs, &["192.0.2.1"]);
    objects.nodes.insert(own.name.clone(), Arc::new(own));
    store.program(&objects, &everything(&objects), &mut switch).unwrap();
    (store, switch)
}

impl Bed {
    fn new() -> Self {
        Self::with(CIDRS)
    }

    fn with(cidrs: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, switch) = open(directory.path(), cidrs);
        Self { directory, store, switch }
    }

    fn wish(&self, container: &str) -> Attach {
        Attach {
            protocol: PROTOCOL,
            id: AttachmentId { network: "pods".into(), container: container.into(), ifname: "eth0".into() },
            netns: self.directory.path().to_str().unwrap().into(),
            bridge: None,
            kind: "tap".into(),
            mtu: None,
            mac: None,
            addresses: Addressing::Daemon { wanted: Vec::new() },
            pod: None,
            host_ports: Vec::new(),
            bandwidth: Bandwidth::default(),
        }
    }

    fn attach(&mut self, wish: &Attach) -> Result<Attached, AttachRefusal> {
        match self.store.attach(wish, &mut self.switch)? {
            AttachReply::Attached(attached) => Ok(attached),
            other => panic!("{other:?}"),
        }
    }

    /// Refused, and everything is as it was.
    fn refused(&mut self, wish: &Attach) -> (u32, String) {
        let before = (self.store.config.clone(), self.switch.ports.clone());
        let AttachRefusal { code, what } = self.attach(wish).unwrap_err();
        assert_eq!((&self.store.config, &self.switch.ports), (&before.0, &before.1), "{what}: something is left");
        (code, what)
    }
}

fn addresses(attached: &Attached) -> Vec<String> {
    attached.interface.addresses.iter().map(|assigned| assigned.address.to_string()).collect()
}

fn routes(attached: &Attached) -> Vec<String> {
    let route = |route: &InterfaceRoute| format!("{} {}", route.prefix, route.gateway.unwrap());
    attached.interface.routes.iter().map(route).collect()
}

fn pod(name: &str) -> Option<PodRef> {
    Some(PodRef { namespace: "shop".into(), name: name.into(), uid: None })
}

#[test]
fn a_container_gets_an_address_of_each_pod_cidr_and_a_way_out() {
    let mut bed = Bed::new();
    let attached = bed.attach(&bed.wish("c1")).unwrap();
    assert_eq!(addresses(&attached), ["10.244.1.2/29", "fd00:1::2/64"]);
    assert_eq!(routes(&attached), ["0.0.0.0/0 10.244.1.1", "::/0 fd00:1::1"]);
    assert_eq!(attached.mtu, 1500);
    let port = bed.switch.ports.values().find(|port| port.options.contains_key("ifname")).unwrap();
    assert_eq!(port.options["addresses"], "10.244.1.2/29,fd00:1::2/64");
    assert_eq!(port.options["routes"], "0.0.0.0/0=10.244.1.1,::/0=fd00:1::1");
    assert_eq!((port.mac, port.options["ifname"].as_str()), (Some(attached.mac), "eth0"));
    // Its addresses are in force, and it speaks from no other.
    let of_container = |endpoint: &&api::Endpoint| endpoint.name == "container/c1/eth0";
    assert_eq!(bed.switch.endpoints.values().filter(of_container).count(), 2);
    assert_eq!(bed.switch.guards.values().map(|guard| guard.addresses.len()).collect::<Vec<_>>(), [2]);
}

#[test]
fn no_address_is_given_twice_and_all_come_back() {
    let mut bed = Bed::new();
    let mut given = BTreeSet::new();
    for n in 0..5 {
        let attached = bed.attach(&bed.wish(&format!("c{n}"))).unwrap();
        assert!(given.insert(addresses(&attached)[0].clone()));
    }
    let (code, what) = bed.refused(&bed.wish("one-too-many"));
    assert_eq!((code, what.as_str()), (code::TRY_AGAIN, "podCIDR 10.244.1.0/29: all addresses are taken"));
    let status = bed.store.attachment_status(PROTOCOL, None, true).unwrap_err();
    assert_eq!(status.code, code::NOT_AVAILABLE);
    bed.store.attachment_status(PROTOCOL, None, false).unwrap();
    let first = bed.wish("c0").id;
    bed.store.detach(&first, &mut bed.switch).unwrap();
    bed.store.detach(&first, &mut bed.switch).unwrap();
    bed.store.attachment_status(PROTOCOL, None, true).unwrap();
    assert_eq!(addresses(&bed.attach(&bed.wish("next")).unwrap())[0], "10.244.1.2/29");
}

#[test]
fn a_restart_knows_what_was_given_and_collects_what_is_lost() {
    let mut bed = Bed::new();
    bed.attach(&bed.wish("c1")).unwrap();
    let other = bed.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    bed.attach(&Attach { netns: other.to_str().unwrap().into(), ..bed.wish("c2") }).unwrap();
    let before = bed.store.config.attachments.clone();
    let Bed { directory, store, .. } = bed;
    drop(store);
    let (store, switch) = open(directory.path(), CIDRS);
    assert_eq!(store.config.attachments, before);
    drop(store);
    // The path leads elsewhere now.
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(&elsewhere, &other).unwrap();
    let (store, _) = open(directory.path(), CIDRS);
    let left: Vec<_> = store.config.attachments.values().map(|attachment| attachment.id.container.clone()).collect();
    assert_eq!(left, ["c1"]);
    let mut bed = Bed { directory, store, switch };
    (bed.store, bed.switch) = {
        let Bed { directory, store, .. } = &bed;
        assert_eq!(store.config.ports.values().filter(|port| port.options.contains_key("netns")).count(), 1);
        let path = directory.path().to_owned();
        drop(std::mem::replace(&mut bed.store, open(tempfile::tempdir().unwrap().path(), CIDRS).0));
        open(&path, CIDRS)
    };
    // Behind the highest that is still given, and what was lost is free again.
    assert_eq!(addresses(&bed.attach(&bed.wish("c3")).unwrap())[0], "10.244.1.3/29");
}

#[test]
fn what_cannot_be_is_refused_with_its_code_and_leaves_nothing() {
    let mut bed = Bed::new();
    bed.attach(&Attach {
        mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
        host_ports: vec![HostPort { address: None, proto: api::Proto::Tcp, port: 8080, container: 80 }],
        pod: pod("web"),
        ..bed.wish("there")
    })
    .unwrap();
    let wish = bed.wish("new");
    let id = |change: fn(&mut AttachmentId)| {
        let mut id = wish.id.clone();
        change(&mut id);
        Attach { id, ..wish.clone() }
    };
    let given = |address: &str| {
        let address = address.parse().unwrap();
        let addresses = vec![Assigned { address, gateway: None }];
        Attach { addresses: Addressing::Given(Interface { addresses, routes: Vec::new() }), ..wish.clone() }
    };
    let wanted = |address: &str| {
        let wanted = vec![address.parse().unwrap()];
        Attach { addresses: Addressing::Daemon { wanted }, ..wish.clone() }
    };
    let host_ports = |ports: &[(Option<&str>, u16)]| {
        let port = |(address, port): &(Option<&str>, u16)| HostPort {
            address: address.map(|text| text.parse().unwrap()),
            proto: api::Proto::Tcp,
            port: *port,
            container: 80,
        };
        Attach { host_ports: ports.iter().map(port).collect(), ..wish.clone() }
    };
    let rows = [
        (
            Attach { protocol: 9, ..wish.clone() },
            code::UNSUPPORTED,
            "protocol=9: this daemon speaks 1: plugin and daemon must be of matching releases",
        ),
        (
            Attach { kind: "afxdp".into(), ..wish.clone() },
            code::UNSUPPORTED,
            "port=\"afxdp\": not supported: only tap is",
        ),
        (id(|id| id.network.clear()), code::INVALID_CONFIG, "network=\"\": not a name"),
        (
            id(|id| id.ifname = "a234567890123456".into()),
            code::INVALID_CONFIG,
            "ifname: \"a234567890123456\": a name has at most 15 bytes, this has 16",
        ),
        (Attach { netns: "run".into(), ..wish.clone() }, code::INVALID_CONFIG, "netns=\"run\": not an absolute path"),
        (
            Attach { bridge: Some("a b".into()), ..wish.clone() },
            code::INVALID_CONFIG,
            "bridge: \"a b\": a name must not contain ' '",
        ),
        (
            Attach { bridge: Some("br1".into()), ..wish.clone() },
            code::INVALID_CONFIG,
            "bridge br1: addresses are given on the cluster's bridge only: others need an ipam plugin",
        ),
        (Attach { mtu: Some(60), ..wish.clone() }, code::INVALID_CONFIG, "mtu=60: not in 68..65521"),
        (Attach { mtu: Some(1000), ..wish.clone() }, code::INVALID_CONFIG, "mtu=1000: IPv6 needs 1280 (RFC 8200)"),
        (
            Attach { mac: Some(MacAddr([2, 0, 0, 0, 0, 9])), ..wish.clone() },
            code::INVALID_CONFIG,
            "mac=02:00:00:00:00:09: another port of the bridge has it",
        ),
        (
            Attach { mac: Some(MacAddr([1, 0, 0, 0, 0, 9])), ..wish.clone() },
            code::INVALID_CONFIG,
            "mac=01:00:00:00:00:09: not the address of one station",
        ),
        (given("10.244.1.2/29"), code::INVALID_CONFIG, "ipam: 10.244.1.2/29: is the address of container there"),
        (
            given("10.9.0.2/24"),
            code::INVALID_CONFIG,
            "ipam: 10.9.0.2/24: not for a container in this node's podCIDRs 10.244.1.0/29,fd00:1::/64",
        ),
        (
            given("10.244.1.1/29"),
            code::INVALID_CONFIG,
            "ipam: 10.244.1.1/29: not for a container in this node's podCIDRs 10.244.1.0/29,fd00:1::/64",
        ),
        (wanted("10.244.1.2"), code::INVALID_CONFIG, "ips: 10.244.1.2: is taken"),
        (wanted("10.9.0.2"), code::INVALID_CONFIG, "ips: 10.9.0.2: not for a container in 10.244.1.0/29,fd00:1::/64"),
        (
            host_ports(&[(Some("192.0.2.1"), 8080)]),
            code::INVALID_CONFIG,
            "portMappings[0]: hostPort 8080/TCP: container there has it",
        ),
        (
            host_ports(&[(None, 81), (Some("192.0.2.1"), 81)]),
            code::INVALID_CONFIG,
            "portMappings[1]: hostPort 81/TCP: is asked for twice",
        ),
        (
            host_ports(&[(Some("192.0.2.9"), 82)]),
            code::INVALID_CONFIG,
            "portMappings[0]: hostPort 82/TCP: hostIP 192.0.2.9: no address of node n1",
        ),
        (
            Attach {
                bridge: Some("br1".into()),
                addresses: given("10.9.0.2/24").addresses,
                ..host_ports(&[(None, 83)])
            },
            code::INVALID_CONFIG,
            "portMappings[0]: hostPort 83/TCP: the node is reached on bridge br-pods alone",
        ),
        (
            Attach { pod: Some(PodRef { namespace: "a/b".into(), name: "c".into(), uid: None }), ..wish.clone() },
            code::INVALID_CONFIG,
            "K8S_POD_NAMESPACE=\"a/b\": not a name",
        ),
        (
            Attach { id: AttachmentId { ifname: "net1".into(), ..wish.id.clone() }, pod: pod("web"), ..wish.clone() },
            code::INVALID_CONFIG,
            "pod shop/web: port PORT is bound to it already",
        ),
        (
            Attach { netns: "/not/there".into(), ..wish.clone() },
            code::FAILED,
            "PORT: options:netns=/not/there: no such network namespace",
        ),
    ];
    for (wish, code, what) in rows {
        let (is_code, is_what) = bed.refused(&wish);
        let is_what: Vec<_> = is_what
            .split(' ')
            .map(|word| {
                if word.starts_with("pod") && word.len() > 14 {
                    if word.ends_with(':') { "PORT:" } else { "PORT" }
                } else {
                    word
                }
            })
            .collect();
        assert_eq!((is_code, is_what.join(" ").as_str()), (code, what));
    }
    let again = bed.refused(&bed.wish("there"));
    assert_eq!(again.0, code::FAILED);
    assert!(again.1.ends_with("DEL comes first"), "{}", again.1);
    let mut bare = Bed::with(&[]);
    let (code, what) = bare.refused(&bare.wish("c1"));
    assert_eq!((code, what.as_str()), (code::TRY_AGAIN, "node/n1: spec.podCIDRs: there are none yet"));
}

#[test]
fn another_bridge_is_made_with_its_first_container_or_not_at_all() {
    let mut bed = Bed::new();
    let interface = Interface {
        addresses: vec![Assigned { address: "10.9.0.2/24".parse().unwrap(), gateway: None }],
        routes: Vec::new(),
    };
    let wish = |bed: &Bed| Attach {
        bridge: Some("br1".into()),
        addresses: Addressing::Given(interface.clone()),
        bandwidth: Bandwidth { egress: Some(Rate { bits: 1_000_000, burst: 100_000 }), ingress: None },
        ..bed.wish("c1")
    };
    bed.refused(&Attach { netns: "/not/there".into(), ..wish(&bed) });
    assert!(bed.store.config.bridge("br1").is_none());
    bed.attach(&wish(&bed)).unwrap();
    assert!(bed.store.config.bridge("br1").is_some());
    // Whoever is on another bridge may have the same address.
    let other = Attach { bridge: Some("br2".into()), ..wish(&bed) };
    bed.attach(&Attach { id: AttachmentId { container: "c2".into(), ..other.id.clone() }, ..other }).unwrap();
    let rows = bed.store.attachments(&bed.switch).0;
    let rows: Vec<_> = rows.iter().map(|row| (row.id.container.as_str(), row.bridge.as_str())).collect();
    assert_eq!(rows, [("c1", "br1"), ("c2", "br2")]);
}

#[test]
fn a_new_sandbox_of_a_pod_comes_in_place_of_the_old_one() {
    let mut bed = Bed::new();
    let first = Attach { pod: pod("web"), ..bed.wish("c1") };
    bed.attach(&first).unwrap();
    bed.attach(&Attach { pod: pod("web"), ..bed.wish("c2") }).unwrap();
    let rows = bed.store.attachments(&bed.switch).0;
    assert_eq!(rows.iter().map(|row| row.id.container.as_str()).collect::<Vec<_>>(), ["c2"]);
    bed.store.detach(&first.id, &mut bed.switch).unwrap();
    assert_eq!(bed.store.addresses_of_pods().len(), 1, "a late DEL of the old one does no harm");
}

#[test]
fn gc_removes_what_is_not_valid_of_its_network_only() {
    let mut bed = Bed::new();
    for container in ["c1", "c2", "c3"] {
        bed.attach(&bed.wish(container)).unwrap();
    }
    let other = bed.wish("c4");
    let other = Attach { id: AttachmentId { network: "others".into(), ..other.id.clone() }, ..other };
    bed.attach(&other).unwrap();
    let valid = [("c2".to_owned(), "eth0".to_owned()), ("c3".to_owned(), "eth1".to_owned())];
    bed.store.collect_attachments("pods", &valid, &mut bed.switch).unwrap();
    let rows = bed.store.attachments(&bed.switch).0;
    assert_eq!(rows.iter().map(|row| row.id.container.as_str()).collect::<Vec<_>>(), ["c4", "c2"]);
}

#[test]
fn check_finds_every_difference_and_changes_nothing() {
    let mut bed = Bed::new();
    let wish = bed.wish("c1");
    let attached = bed.attach(&wish).unwrap();
    let port = *bed.store.config.attachments.keys().next().unwrap();
    let expected = Expected {
        netns: wish.netns.clone(),
        mac: Some(attached.mac),
        mtu: Some(attached.mtu),
        interface: attached.interface.clone(),
    };
    let more = Assigned { address: "10.7.7.7/32".parse().unwrap(), gateway: None };
    let mut is = attached.clone();
    is.interface.addresses.push(more);
    bed.switch.interfaces.insert(port, is.clone());
    let check = |bed: &Bed, expected: &Expected| bed.store.check_attachment(&wish.id, expected, &bed.switch);
    assert_eq!(check(&bed, &expected), Ok(AttachReply::Fine), "more than was given is fine");
    let differs = |bed: &Bed, expected: &Expected| check(bed, expected).unwrap_err().what;
    let elsewhere = Expected { netns: "/run/netns/x".into(), ..expected.clone() };
    assert!(differs(&bed, &elsewhere).ends_with("not in /run/netns/x"));
    let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
    assert!(differs(&bed, &Expected { mac, ..expected.clone() }).ends_with("not 02:00:00:00:00:01"));
    assert!(differs(&bed, &Expected { mtu: Some(9000), ..expected.clone() }).ends_with("its MTU is 1500, not 9000"));
    for lose in [
        |is: &mut Attached| _ = is.interface.addresses.remove(0),
        |is: &mut Attached| _ = is.interface.routes.remove(1),
    ] {
        let mut less = is.clone();
        lose(&mut less);
        bed.switch.interfaces.insert(port, less);
        // Also when the runtime remembers nothing.
        let nothing = Expected { mac: None, mtu: None, interface: Interface::default(), ..expected.clone() };
        assert!(differs(&bed, &nothing).contains("it has not the "), "{}", differs(&bed, &nothing));
    }
    bed.switch.interfaces.clear();
    assert!(differs(&bed, &expected).ends_with("device is gone"));
    let id = AttachmentId { container: "c2".into(), ..wish.id.clone() };
    let unknown = bed.store.check_attachment(&id, &expected, &bed.switch).unwrap_err();
    assert_eq!(unknown.code, code::UNKNOWN_CONTAINER);
}
