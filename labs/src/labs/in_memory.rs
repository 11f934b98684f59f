//! `in-memory`: what `two-pods` shows of the bridge, without any privilege.
//!
//! The pods are smoltcp hosts on memory ports; the switch is the real one with its real workers, in this process: the
//! one lab where it is. What only a kernel has (interfaces, processes to kill) cannot be shown so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Transaction, Vlan};
use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::ports::memory;
use vswitch::switch::{self, Switch};

use super::{LabDef, Needs, Options};
use crate::claim::{Control, Probe, Report};
use crate::simhost::{SimHost, ping, transfer, udp_echo};

/// The lab.
pub const LAB: LabDef = LabDef {
    name: "in-memory",
    help: "two smoltcp hosts, a memory port each, one learning bridge: needs no privilege",
    needs: Needs::Nothing,
    claims: &[PING4, PING6, UDP, TCP, VLAN, STATIONS, RETURN],
    run,
};

const PING4: &str = "a pings b over IPv4";
const PING6: &str = "a pings b over IPv6";
const UDP: &str = "datagrams of 1 to 1472 octets reach b and come back";
const TCP: &str = "a megabyte over TCP reaches b without a changed octet";
const STATIONS: &str = "the MAC table has both hosts on their ports";
const VLAN: &str = "access ports of different VLANs are separate";
const RETURN: &str = "a port removed and added again carries again";

const DRAWING: &str = "
    host a (smoltcp)           host b (smoltcp)
    10.76.0.1, fd76::1         10.76.0.2, fd76::2
      │ memory port pa           │ memory port pb
      └───────── bridge br0 ─────┘
           workers in this process
";

const BRIDGE: BridgeId = BridgeId(1);
const A: PortId = PortId(1);
const B: PortId = PortId(2);
const B4: IpAddr = v4(2);
const B6: IpAddr = v6(2);
/// A transfer that arrives takes a fraction of this, also in a debug build.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for the three attempts that smoltcp makes to find its neighbour.
const SHORT: Duration = Duration::from_secs(3);

const fn v4(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 76, 0, number))
}

const fn v6(number: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd76, 0, 0, 0, 0, 0, 0, number as u16))
}

fn mac(id: PortId) -> MacAddr {
    MacAddr([2, 0x76, 0, 0, 0, id.0 as u8])
}

fn port(id: PortId) -> Port {
    Port {
        id,
        name: if id == A { "pa" } else { "pb" }.to_owned(),
        bridge: BRIDGE,
        ofport: id.0,
        kind: "memory".to_owned(),
        options: BTreeMap::new(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: BTreeMap::new(),
    }
}

fn tagged(id: PortId, tag: u16) -> Port {
    Port { vlan: Vlan::Access { tag }, ..port(id) }
}

fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let settings = switch::Options {
        workers: options.workers.unwrap_or(1).into(),
        // Every hit is walked again: a cached decision that differs is counted, and found below.
        shadow: 1,
        ..switch::Options::default()
    };
    let mut switch = Switch::start(&settings, Keeper::none()).context("start the switch")?;
    let outcome = prove(&mut switch, report);
    let diverged = switch.coverage().into_iter().find(|event| event.name == "cache_divergence" && event.total > 0);
    switch.stop();
    outcome?;
    anyhow::ensure!(diverged.is_none(), "cached decisions differed from fresh ones: {diverged:?}");
    Ok(())
}

/// The switch, as the lab talks to it.
struct Inside<'a> {
    switch: &'a mut Switch,
}

impl Inside<'_> {
    /// Carry out changes, as one transaction.
    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> anyhow::Result<()> {
        Ok(self.switch.apply(&Transaction { changes: changes.into_iter().collect() })?)
    }

    fn replace(&mut self, old: Port, new: Port) -> anyhow::Result<()> {
        self.apply([Change::Port(Delta::replace(old, new))])
    }

    /// Add the port `id` and the host at its far end.
    fn attach(&mut self, name: &'static str, id: PortId) -> anyhow::Result<SimHost> {
        let (opened, wire) = memory::pair(512, false).context("memory port")?;
        self.switch.offer(&port(id).name, opened);
        self.apply([Change::Port(Delta::add(port(id)))])?;
        let number = id.0 as u8;
        SimHost::new(name, wire, self.switch.pool(), mac(id), [(v4(number), 24), (v6(number), 64)])
    }

    /// Both hosts where their own stacks are.
    fn stations(&self) -> Probe {
        let rows = self.switch.stations(BRIDGE);
        let found =
            [A, B].iter().filter(|id| rows.iter().any(|row| row.key.mac == mac(**id) && row.port == **id)).count();
        match found {
            2 => Probe::Arrived(format!("{} on port {A}, {} on port {B}, as the hosts have them", mac(A), mac(B))),
            found => Probe::Silent(format!("{found} of 2 are there")),
        }
    }
}

/// Build the topology in an empty switch and prove the claims of the lab.
fn prove(switch: &mut Switch, report: &mut Report) -> anyhow::Result<()> {
    let mut inside = Inside { switch };
    report.say(DRAWING);
    inside.apply([Change::Bridge(Delta::add(Bridge {
        id: BRIDGE,
        name: "br0".to_owned(),
        mac_table_size: Bridge::MAC_TABLE_SIZE,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: BTreeMap::new(),
    }))])?;
    let mut a = inside.attach("a", A)?;
    let mut b = inside.attach("b", B)?;
    let (a, b) = (&mut a, &mut b);

    let nobody = "an address that nobody has";
    report.reaches(PING4, &ping(a, b, B4, 1)?, Control::new(nobody, ping(a, b, v4(99), 2)?));
    report.reaches(PING6, &ping(a, b, B6, 3)?, Control::new(nobody, ping(a, b, v6(99), 4)?));

    let udp = udp_echo(a, b, SocketAddr::new(B4, 7))?;
    let tcp = transfer(a, b, SocketAddr::new(B4, 5001), PATIENCE)?;
    inside.replace(port(B), tagged(B, 99))?;
    let udp_apart = udp_echo(a, b, SocketAddr::new(B4, 7))?;
    let tcp_apart = transfer(a, b, SocketAddr::new(B4, 5001), SHORT)?;
    report.reaches(UDP, &udp, Control::new("b's port in VLAN 99", udp_apart));
    report.reaches(TCP, &tcp, Control::new("b's port in VLAN 99", tcp_apart));

    inside.apply([
        Change::Port(Delta::replace(port(A), tagged(A, 10))),
        Change::Port(Delta::replace(tagged(B, 99), tagged(B, 10))),
    ])?;
    let together = ping(a, b, B4, 5)?;
    inside.replace(tagged(B, 10), tagged(B, 20))?;
    report.separates(VLAN, &ping(a, b, B4, 6)?, Control::new("both in VLAN 10", together));
    inside.apply([
        Change::Port(Delta::replace(tagged(A, 10), port(A))),
        Change::Port(Delta::replace(tagged(B, 20), port(B))),
    ])?;

    inside.switch.flush_stations(Some(BRIDGE));
    let flushed = inside.stations();
    ping(a, b, B4, 7)?;
    report.reaches(STATIONS, &inside.stations(), Control::new("flushed, before any frame", flushed));

    inside.apply([Change::Port(Delta::remove(port(B)))])?;
    let removed = ping(a, b, B4, 8)?;
    *b = inside.attach("b", B)?;
    // A new host has no neighbour yet, and smoltcp drops the one answer that made it ask for its neighbour.
    ping(a, b, B4, 10)?;
    report.reaches(RETURN, &ping(a, b, B4, 9)?, Control::new("while port pb was removed", removed));
    inside.apply([Change::Port(Delta::remove(port(A))), Change::Port(Delta::remove(port(B)))])
}
