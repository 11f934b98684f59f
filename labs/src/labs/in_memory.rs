//! `in-memory`: what `two-pods` shows of the bridge, without any privilege.
//!
//! The pods are smoltcp hosts on memory ports; the switch is the real one with its real workers, in this process: the
//! one lab where it is. What only a kernel has (interfaces, processes to kill) cannot be shown so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Transaction, Vlan};
use control::switch::Switch;
use pipeline::raw::Pool;
use vswitch::ports::{Opened, memory};

use crate::claim::{Control, Probe, Report};
use crate::simhost::{SimHost, ping, transfer, udp_echo};

/// All that the lab proves.
pub const CLAIMS: &[&str] = &[PING4, PING6, UDP, TCP, STATIONS, VLAN, RETURN];

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

/// A switch in this process, and what memory ports need of it.
pub struct Inside<'a> {
    /// The switch.
    pub switch: &'a mut dyn Switch,
    /// Lay a memory port ready, to be opened under this name by the next transaction.
    pub offer: &'a dyn Fn(&str, Opened),
    /// Frame memory of the switch.
    pub pool: &'a Pool,
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
        (self.offer)(&port(id).name, opened);
        self.apply([Change::Port(Delta::add(port(id)))])?;
        let number = id.0 as u8;
        SimHost::new(name, wire, self.pool, mac(id), [(v4(number), 24), (v6(number), 64)])
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
///
/// # Errors
/// When the switch refuses what it is told, or a host's sockets fail.
pub fn prove(inside: &mut Inside<'_>, report: &mut Report) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::Receiver;
    use std::sync::{Arc, Mutex};

    use api::StationKey;
    use api::state::{Captured, Coverage, DropState, PortState, StationState, WorkerState};
    use control::switch::Refusal;
    use pipeline::burst::Burst;
    use vswitch::ports::TxBatch;

    use super::*;

    /// A hub in the place of the switch: it is told the same and shows the lab to be right.
    #[derive(Clone, Default)]
    struct Hub(Arc<State>);

    #[derive(Default)]
    struct State {
        offered: Mutex<HashMap<String, Opened>>,
        ports: Mutex<Vec<(Port, Opened)>>,
        stations: Mutex<HashMap<(u16, MacAddr), PortId>>,
        end: AtomicBool,
    }

    fn tag(port: &Port) -> u16 {
        if let Vlan::Access { tag } = port.vlan { tag } else { 0 }
    }

    impl State {
        fn carry(&self, pool: &Pool) {
            let (mut stash, mut burst) = (pool.stash(), Burst::new());
            while !self.end.load(Ordering::Relaxed) {
                let mut ports = self.ports.lock().expect("hub");
                for from in 0..ports.len() {
                    burst.reset(ports[from].0.id);
                    ports[from].1.queues[0].rx(&mut burst, 64, &mut stash);
                    for frame in burst.frames.iter_mut().map_while(Option::take) {
                        let (me, source) = (&ports[from].0, frame.head()[6..12].try_into().expect("six octets"));
                        self.stations.lock().expect("hub").insert((tag(me), MacAddr(source)), me.id);
                        for (other, opened) in ports.iter().filter(|(port, _)| port.id != me.id && tag(port) == tag(me))
                        {
                            let mut batch = TxBatch::new();
                            batch.push(stash.copy(&frame).expect("a frame"), other.id);
                            opened.device.tx(&mut batch, &mut stash);
                        }
                        stash.give(frame);
                    }
                }
                drop(ports);
                std::thread::yield_now();
            }
        }
    }

    impl Switch for Hub {
        fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
            for change in &transaction.changes {
                let Change::Port(delta) = change else { continue };
                let mut ports = self.0.ports.lock().expect("hub");
                match (&delta.old, &delta.new) {
                    (Some(old), Some(new)) => {
                        let row = ports.iter_mut().find(|(port, _)| port.id == old.id).expect("a port");
                        assert_eq!(&row.0, old, "the lab says what the switch has");
                        row.0 = new.clone();
                    }
                    (Some(old), None) => ports.retain(|(port, _)| port.id != old.id),
                    (None, Some(new)) => {
                        let opened = self.0.offered.lock().expect("hub").remove(&new.name).expect("offered");
                        ports.push((new.clone(), opened));
                    }
                    (None, None) => return Err(Refusal("a change of nothing".into())),
                }
            }
            Ok(())
        }

        fn ports(&self) -> Vec<PortState> {
            Vec::new()
        }

        fn stations(&self, bridge: BridgeId) -> Vec<StationState> {
            let row = |((vlan, mac), port): (&(u16, MacAddr), &PortId)| StationState {
                key: StationKey { bridge, vlan: *vlan, mac: *mac },
                port: *port,
                age: Some(0),
            };
            self.0.stations.lock().expect("hub").iter().map(row).collect()
        }

        fn flush_stations(&mut self, _bridge: Option<BridgeId>) -> usize {
            self.0.stations.lock().expect("hub").drain().count()
        }

        fn drops(&self) -> Vec<DropState> {
            Vec::new()
        }

        fn workers(&self) -> Vec<WorkerState> {
            Vec::new()
        }

        fn coverage(&self) -> Vec<Coverage> {
            Vec::new()
        }

        fn capture(&mut self, port: PortId) -> Result<Receiver<Captured>, Refusal> {
            Err(Refusal(format!("port {port}: a hub captures nothing")))
        }
    }

    #[test]
    fn all_claims_are_proved_of_a_hub_with_vlans() {
        let (mut hub, pool) = (Hub::default(), Pool::heap(4096, 0));
        let carrier = std::thread::spawn({
            let (hub, pool) = (Arc::clone(&hub.0), pool.clone());
            move || hub.carry(&pool)
        });
        let offered = Arc::clone(&hub.0);
        let offer = |name: &str, opened| drop(offered.offered.lock().expect("hub").insert(name.to_owned(), opened));
        let mut report = Report::new("in-memory", true);
        let outcome = prove(&mut Inside { switch: &mut hub, offer: &offer, pool: &pool }, &mut report);
        hub.0.end.store(true, Ordering::Relaxed);
        carrier.join().expect("the hub");
        report.finish(CLAIMS, outcome.as_ref().err(), Duration::ZERO);
        assert!(report.proved(), "{:#}", report.json());
    }
}
