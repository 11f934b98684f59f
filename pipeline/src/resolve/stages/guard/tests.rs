//! The pod behind port 3 of [`crate::resolve::stages::kit`], guarded.

use std::net::Ipv6Addr;

use api::{Delta, MacAddr};

use super::*;
use crate::reply::samples::ROUTER_MAC;
use crate::resolve::stages::kit::{BR, Bench, LOCAL, OTHER, POD, ip, mac, node};
use crate::resolve::trial::network;

const OWN: [&str; 2] = ["10.0.0.5", "fd00::5"];

fn guard() -> Guard {
    Guard {
        port: POD,
        bridge: BR,
        name: "pod/test/a".into(),
        mac: mac(POD),
        addresses: OWN.map(ip).into(),
        spoof: true,
        groups: true,
        local: Some(LOCAL),
        isolated: None,
    }
}

fn bench(guard: Guard) -> Bench {
    Bench::new(&STAGE, &[node(), vec![Change::Guard(Delta::add(guard))]].concat())
}

fn link(from: MacAddr, to: MacAddr, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), packet].concat()
}

fn udp(from: MacAddr, src: &str, dst: &str) -> Vec<u8> {
    let ethertype = if src.contains(':') { 0x86dd } else { 0x0800 };
    link(from, ROUTER_MAC, ethertype, &network(ip(src), ip(dst), 17, &[0x30, 0, 0, 80, 0, 8, 0, 0]))
}

fn arp(from: MacAddr, sender: MacAddr, address: &str) -> Vec<u8> {
    let IpAddr::V4(address) = ip(address) else { panic!("ARP is of IPv4") };
    let message = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender.0, &address.octets(), &[0; 6], &[10, 0, 0, 6]].concat();
    link(from, MacAddr::BROADCAST, 0x0806, &message)
}

/// An advertisement that `target` is at `at`, or of another type a message with nothing in it.
fn icmpv6(src: &str, kind: u8, target: &str, at: MacAddr) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let message = [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &at.0].concat();
    let mut packet = network(ip(src), ip("ff02::1"), 58, &message);
    packet[7] = 255;
    link(mac(POD), MacAddr([0x33, 0x33, 0, 0, 0, 1]), 0x86dd, &packet)
}

#[test]
fn a_pod_speaks_as_itself_only() {
    let bench = bench(guard());
    let (own, other) = (mac(POD), mac(OTHER));
    let honest = [
        udp(own, OWN[0], "10.0.0.6"),
        udp(own, OWN[1], "fd00::6"),
        arp(own, own, OWN[0]),
        arp(own, own, "0.0.0.0"),
        icmpv6(OWN[1], 136, OWN[1], own),
        icmpv6("fe80::5", 136, "fe80::5", own),
        icmpv6("::", 143, "::", own),
    ];
    for frame in honest {
        assert_eq!(bench.decide(POD, &frame).next, Next::Continue, "{frame:x?}");
    }
    let spoofed = [
        udp(other, OWN[0], "10.0.0.6"),
        udp(own, "10.0.0.6", "10.0.0.7"),
        udp(own, "fd00::6", "fd00::7"),
        // Another pod might be spoken to past its policies, which know no such address.
        udp(own, "fe80::5", "fe80::6"),
        udp(own, "0.0.0.0", "10.0.0.6"),
        arp(own, own, "10.0.0.6"),
        arp(own, other, OWN[0]),
        arp(other, own, OWN[0]),
        icmpv6(OWN[1], 136, "fd00::6", own),
        icmpv6(OWN[1], 136, OWN[1], other),
        icmpv6("fd00::6", 136, OWN[1], own),
        link(own, other, 0x88b5, b"what is this?"),
    ];
    for frame in spoofed {
        assert_eq!(bench.decide(POD, &frame).next, Next::Drop(DropReason::Spoofed), "{frame:x?}");
        assert_eq!(bench.decide(OTHER, &frame).next, Next::Continue, "a port without a guard");
    }
}

#[test]
fn a_port_may_be_let_off() {
    let bench = bench(Guard { spoof: false, ..guard() });
    for frame in [udp(mac(OTHER), OWN[0], "10.0.0.6"), udp(mac(POD), "10.0.0.6", "10.0.0.7")] {
        assert_eq!(bench.decide(POD, &frame).next, Next::Continue);
    }
}

#[test]
fn an_isolated_pod_speaks_to_the_node_only() {
    let bench = bench(Guard { isolated: Some("no Pod object".into()), ..guard() });
    for (to, next) in [
        ("192.0.2.9", Next::Continue),
        ("10.0.0.1", Next::Continue),
        ("10.0.0.6", Next::Drop(DropReason::Isolated)),
        ("10.96.0.1", Next::Drop(DropReason::Isolated)),
        ("203.0.113.1", Next::Drop(DropReason::Isolated)),
    ] {
        assert_eq!(bench.decide(POD, &udp(mac(POD), OWN[0], to)).next, next, "{to}");
    }
    assert_eq!(bench.decide(POD, &arp(mac(POD), mac(POD), OWN[0])).next, Next::Continue);
}

#[test]
fn what_is_decided_falls_with_the_guard() {
    let mut bench = bench(guard());
    let decided = bench.decide(POD, &udp(mac(POD), OWN[0], "10.0.0.6"));
    let made = bench.live.cells.now();
    bench.apply(&[Change::Guard(Delta::replace(guard(), Guard { addresses: [].into(), ..guard() }))]);
    assert!(!bench.live.cells.unchanged_since(&decided.deps.cells(), made));
}
