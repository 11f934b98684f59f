//! Attachments by request, on real devices: many at once, those that fail, and who hears of them.

use std::collections::BTreeSet;

use api::attachment::{PROTOCOL, code};
use api::{
    Addressing, Assigned, Attach, AttachRefusal, AttachReply, Attached, AttachmentId, Bandwidth, Interface, Request,
};
use vswitch::sys::netlink::Netlink;
use vswitch::sys::netns::Namespace;

use crate::kit::{Bed, eventually, on_a_node};

/// Pods that come at once.
const MANY: usize = 100;
/// Runtimes that attach them.
const RUNTIMES: usize = 10;

fn id(container: &str) -> AttachmentId {
    AttachmentId { network: "pods".into(), container: container.into(), ifname: "eth0".into() }
}

fn wish(container: &str, space: &Namespace) -> Attach {
    Attach {
        protocol: PROTOCOL,
        id: id(container),
        netns: space.path().to_str().unwrap().into(),
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

fn attach(bed: &Bed, wish: Attach) -> Result<Attached, AttachRefusal> {
    let answer = bed.ask(&Request::Attach(Box::new(wish))).unwrap();
    match serde_json::from_value(answer).unwrap() {
        AttachReply::Attached(attached) => Ok(attached),
        AttachReply::Refused(refusal) => Err(refusal),
        AttachReply::Fine => panic!("no answer to this"),
    }
}

fn detach(bed: &Bed, container: &str) {
    bed.ask(&Request::Detach { id: id(container) }).unwrap();
}

fn has_eth0(space: &Namespace) -> bool {
    space.run(|| Netlink::open().unwrap().link("eth0").unwrap().is_some())
}

#[test]
fn a_hundred_pods_are_attached_at_once_and_none_gets_the_address_of_another() {
    on_a_node("a_hundred_pods_are_attached_at_once_and_none_gets_the_address_of_another", |bed| {
        let spaces: Vec<Namespace> = (0..MANY).map(|_| Namespace::new().unwrap()).collect();
        let name = |number: usize| format!("c{number}");
        let numbers = |runtime: usize| (0..MANY).filter(move |number| number % RUNTIMES == runtime);
        let spaces = &spaces;
        let given: Vec<Attached> = std::thread::scope(|scope| {
            let one =
                |runtime| move || numbers(runtime).map(|n| attach(bed, wish(&name(n), &spaces[n])).unwrap()).collect();
            let threads: Vec<_> = (0..RUNTIMES).map(|runtime| scope.spawn(one(runtime))).collect();
            threads.into_iter().flat_map(|thread| -> Vec<Attached> { thread.join().unwrap() }).collect()
        });
        let addresses =
            given.iter().flat_map(|attached| &attached.interface.addresses).map(|assigned| assigned.address);
        let mut addresses: BTreeSet<_> = addresses.map(|address| address.addr()).collect();
        assert_eq!(addresses.len(), 2 * MANY, "one of either family each");
        let of_pods = [&bed.a, &bed.b, &bed.c].into_iter().flat_map(|pod| pod.addresses);
        addresses.extend(of_pods.map(|address| address.parse::<std::net::IpAddr>().unwrap()));
        assert_eq!(addresses.len(), 2 * MANY + 6, "and none that a pod has");
        assert_eq!(given.iter().map(|attached| attached.mac).collect::<BTreeSet<_>>().len(), MANY);
        assert!(spaces.iter().all(has_eth0));
        let verified = bed.vsctl("verify");
        assert!(verified.starts_with("holds"), "{verified}");
        std::thread::scope(|scope| {
            for runtime in 0..RUNTIMES {
                scope.spawn(move || numbers(runtime).for_each(|n| detach(bed, &format!("c{n}"))));
            }
        });
        assert!(!spaces.iter().any(has_eth0));
        assert_eq!(bed.vsctl("attachments").lines().count(), 1, "the headings");
    });
}

#[test]
fn an_attachment_that_fails_leaves_nothing_and_disturbs_nobody() {
    on_a_node("an_attachment_that_fails_leaves_nothing_and_disturbs_nobody", |bed| {
        let space = Namespace::new().unwrap();
        let ports = bed.vsctl("list-ports br-pods");
        space.run(|| Netlink::open().unwrap().add_bridge("eth0").unwrap());
        let refused = attach(bed, wish("c1", &space)).unwrap_err();
        assert_eq!(refused.code, code::FAILED);
        assert!(refused.what.contains("options:ifname=eth0 in ") && refused.what.ends_with(": the name is taken"));
        let gone = Attach { netns: "/run/netns/nowhere".into(), ..wish("c1", &space) };
        let refused = attach(bed, gone).unwrap_err();
        assert!(refused.what.contains("options:netns=/run/netns/nowhere: No such file"), "{}", refused.what);
        assert_eq!(bed.vsctl("list-ports br-pods"), ports);
        assert_eq!(bed.vsctl("attachments").lines().count(), 1, "the headings");
        let devices = space.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let names: BTreeSet<_> = devices.lines().skip(2).filter_map(|line| line.trim().split(':').next()).collect();
        assert_eq!(names, ["eth0", "lo"].into(), "nothing of ours is left there");
        space.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.delete(netlink.index("eth0").unwrap()).unwrap();
        });
        attach(bed, wish("c1", &space)).unwrap();
        detach(bed, "c1");
    });
}

#[test]
fn whoever_is_on_the_link_hears_of_who_is_attached() {
    on_a_node("whoever_is_on_the_link_hears_of_who_is_attached", |bed| {
        let space = Namespace::new().unwrap();
        // Without IPv6 nothing but the announcement makes the interface speak.
        space.run(|| {
            for scope in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
            }
        });
        let address = "10.9.0.2/24".parse().unwrap();
        let addresses = vec![Assigned { address, gateway: None }];
        let given = Addressing::Given(Interface { addresses, routes: Vec::new() });
        let on_bridge = Attach { bridge: Some("br9".into()), addresses: given, ..wish("c1", &space) };
        let attached = attach(bed, on_bridge).unwrap();
        let mac = attached.mac.to_string();
        eventually("its Ethernet address is known before it was asked for", || {
            bed.vsctl("fdb/show br9").contains(&mac)
        });
        detach(bed, "c1");
        assert!(!bed.vsctl("fdb/show br9").contains(&mac));
    });
}
