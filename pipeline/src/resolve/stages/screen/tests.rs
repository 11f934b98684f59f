//! A frame with ways to the pods behind ports 3 and 4 of [`crate::resolve::stages::kit`], of which the latter is guarded.

use std::net::IpAddr;

use api::{Delta, MacAddr};

use super::*;
use crate::burst::VlanEdit;
use crate::reply::samples::ROUTER_MAC;
use crate::resolve::stages::kit::{BR, Bench, LOCAL, OTHER, POD, UPLINK, ip, mac, node};
use crate::resolve::trial::network;
use crate::resolve::walk::Copy;

const OWN: [&str; 2] = ["10.0.0.6", "fd00::6"];
const GROUP: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 0xfb]);

fn guard() -> Guard {
    Guard {
        port: OTHER,
        bridge: BR,
        name: "pod/test/b".into(),
        mac: mac(OTHER),
        addresses: OWN.map(ip).into(),
        spoof: true,
        groups: true,
        local: Some(LOCAL),
        isolated: None,
    }
}

/// What becomes of a frame from `port` that would leave by all of `ways`: the ways that are left.
fn left(guards: &[Guard], port: PortId, frame: &[u8], ways: &[PortId]) -> Result<Vec<PortId>, DropReason> {
    let guards = guards.iter().cloned().map(|guard| Change::Guard(Delta::add(guard))).collect();
    let bench = Bench::new(&STAGE, &[node(), guards].concat());
    let decided = bench.decide_with(port, frame, |walk| {
        walk.outputs = ways.iter().map(|&port| Copy { port, vlan: VlanEdit::Keep, mtu: 1500 }).collect();
    });
    match decided.next {
        Next::Continue => Ok(decided.outputs.iter().map(|copy| copy.port).collect()),
        Next::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn packet(to: MacAddr, src: &str, dst: &str, proto: u8, payload: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if matches!(ip(src), IpAddr::V4(_)) { 0x0800 } else { 0x86dd };
    [&to.0[..], &mac(POD).0, &ethertype.to_be_bytes(), &network(ip(src), ip(dst), proto, payload)].concat()
}

fn udp(to: MacAddr, src: &str, dst: &str) -> Vec<u8> {
    packet(to, src, dst, 17, &[0x30, 0, 0, 80, 0, 8, 0, 0])
}

#[test]
fn unicast_reaches_a_pod_under_its_own_address_only() {
    let addressed = |frame: &[u8]| left(&[guard()], POD, frame, &[OTHER]);
    assert_eq!(addressed(&udp(mac(OTHER), "10.0.0.5", OWN[0])), Ok(vec![OTHER]));
    assert_eq!(addressed(&udp(mac(OTHER), "fd00::5", OWN[1])), Ok(vec![OTHER]));
    for (src, dst) in [("10.0.0.5", "10.0.0.9"), ("fd00::5", "fe80::6"), ("10.0.0.5", "192.0.2.9")] {
        let astray = udp(mac(OTHER), src, dst);
        assert_eq!(addressed(&astray), Err(DropReason::NotAddressed), "{dst}");
        assert_eq!(left(&[], POD, &astray, &[OTHER]), Ok(vec![OTHER]));
        assert_eq!(left(&[Guard { spoof: false, ..guard() }], POD, &astray, &[OTHER]), Ok(vec![OTHER]));
    }
}

#[test]
fn n21_a_pod_whose_ingress_is_isolated_hears_no_group_but_neighbours() {
    let closed = [Guard { groups: false, ..guard() }];
    let ways = [OTHER, UPLINK];
    let mdns = udp(GROUP, "10.0.0.5", "224.0.0.251");
    let strange = [&mac(OTHER).0[..], &mac(POD).0, &[0x88, 0xb5, 1, 2, 3, 4]].concat();
    for frame in [&mdns, &strange] {
        assert_eq!(left(&closed, POD, frame, &ways), Ok(vec![UPLINK]));
        assert_eq!(left(&closed, POD, frame, &[OTHER]), Err(DropReason::PolicyIngress));
        assert_eq!(left(&[guard()], POD, frame, &ways), Ok(ways.to_vec()));
        assert_eq!(left(&closed, LOCAL, frame, &ways), Ok(ways.to_vec()), "the node");
    }
    let mut solicitation = packet(GROUP, "fd00::5", "ff02::1:ff00:6", 58, &[135; 24]);
    solicitation[14 + 7] = 255;
    let arp = [&MacAddr::BROADCAST.0[..], &mac(POD).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    for frame in [solicitation, arp] {
        assert_eq!(left(&closed, POD, &frame, &ways), Ok(ways.to_vec()));
    }
}

#[test]
fn n22_an_isolated_pod_and_others_do_not_hear_each_other() {
    let isolated = [Guard { isolated: Some("no Pod object".into()), ..guard() }];
    let ways = [POD, OTHER, LOCAL];
    let arp = [&MacAddr::BROADCAST.0[..], &mac(POD).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    for frame in [&arp, &udp(mac(OTHER), "10.0.0.5", OWN[0]), &udp(ROUTER_MAC, "10.0.0.5", OWN[0])] {
        assert_eq!(left(&isolated, POD, frame, &[OTHER]), Err(DropReason::Isolated));
        assert_eq!(left(&isolated, UPLINK, frame, &ways), Ok(vec![POD, LOCAL]));
        assert_eq!(left(&isolated, OTHER, frame, &[POD, LOCAL, PortId::STACK]), Ok(vec![LOCAL, PortId::STACK]));
        assert_eq!(left(&isolated, OTHER, frame, &[POD]), Err(DropReason::Isolated));
        assert_eq!(left(&isolated, LOCAL, frame, &[OTHER]), Ok(vec![OTHER]));
    }
}
