//! The node's own way to pods and services: what its kernel must know so that its processes reach them by way of a router.
//!
//! The router is reached over the LOCAL device of its bridge. The kernel is told, in a table and with marks of our own
//! ([`crate::sys::routes`]), and of our own device only:
//!
//! ```text
//!   rule 1786:  everything → table 1786                  (after the kernel's own addresses, before the main table)
//!   table 1786: podCIDR    via GATEWAY dev LOCAL onlink src NODE     each of the node
//!               RANGE      via GATEWAY dev LOCAL onlink src NODE     each range of service addresses
//!               ADDRESS/32 via GATEWAY dev LOCAL onlink src NODE     each service address in no range
//!   neighbour:  GATEWAY → the router's MAC, permanent, on LOCAL
//! ```
//!
//! Service addresses that the kernel has itself need no route but [`redirect`], since no route is before its own.
//!
//! No address is given to anything: the node's addresses are where its operator put them, and the gateway's belong to the
//! switch. All of it is there before the transaction that asks for it is answered; what somebody removes is put back
//! within seconds; what an earlier daemon left is set right; an orderly stop, and the end of the router, take it away.
//!
//! One example: node 192.0.2.10, podCIDR 10.1.0.0/24, router 02:…:01. A process that connects to 10.96.0.1 finds by the
//! rule `10.96.0.0/12 via 10.1.0.1 dev br-pods`, by the neighbour the router's MAC, and sends from 192.0.2.10 out of
//! br-pods. The answer comes in by br-pods from 10.96.0.1; reverse path filtering finds the same route and lets it in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use api::{BridgeId, Change, Delta, MacAddr, Port, Router, Service, ServiceKey, Transaction};
use ipnet::IpNet;

use crate::sys::netlink::Settings;
use crate::sys::routes::{FAMILIES, Family, Route, Routes};

mod redirect;

use redirect::{Purpose, Redirect};

/// What is set of our device before it is used, below `/proc/sys/net`: file and value. Packets from outside may come in by
/// it that are answered by another way (loose reverse path filtering, RFC 3704, 2.4); its addresses need no detection of
/// duplicates, and nobody advertises routers there.
const SYSCTLS: [(&str, &str, &str); 4] = [
    ("ipv4", "rp_filter", "2"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "dad_transmits", "0"),
];

/// What the node's kernel is to know, and the line to it.
#[derive(Default)]
pub(crate) struct Node {
    /// Opened when it is first needed.
    line: Option<Routes>,
    /// The LOCAL device of each bridge that has one in the kernel.
    devices: BTreeMap<BridgeId, String>,
    routers: BTreeMap<BridgeId, Router>,
    /// Ranges of service addresses.
    ranges: BTreeSet<IpNet>,
    /// Service addresses, each with the number of services that have it.
    addresses: BTreeMap<IpAddr, usize>,
    /// Services at addresses that the kernel has itself.
    redirect: Redirect,
    due: Due,
    /// The nouns are all there: what they do not ask for may be taken away.
    complete: bool,
    /// What was last complained of, so that it is said once.
    complaint: String,
}

/// What has changed since the kernel was last told.
#[derive(Default)]
struct Due {
    /// Everything is to be looked at.
    all: bool,
    /// Service addresses that came or went.
    addresses: BTreeSet<IpAddr>,
}

/// What one router asks of the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    routes: BTreeMap<IpNet, Route>,
    neighbours: BTreeMap<IpAddr, MacAddr>,
}

impl Node {
    /// Take over what a transaction says; [`Self::settle`] tells the kernel.
    pub(crate) fn record(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            match change {
                Change::Port(delta) => self.record_port(delta),
                Change::Router(Delta { old, new }) => {
                    if let Some(router) = old {
                        self.routers.remove(&router.bridge);
                    }
                    if let Some(router) = new {
                        self.routers.insert(router.bridge, router.clone());
                    }
                    self.due.all = true;
                }
                Change::ServiceRange(Delta { old, new }) => {
                    if let Some(range) = old {
                        self.ranges.remove(&range.prefix);
                    }
                    if let Some(range) = new {
                        self.ranges.insert(range.prefix.trunc());
                    }
                    self.due.all = true;
                }
                Change::Service(delta) => self.record_service(delta),
                Change::Bridge(_)
                | Change::Station(_)
                | Change::Endpoint(_)
                | Change::Neighbor(_)
                | Change::Route(_)
                | Change::HealthCheck(_)
                | Change::Eligibility(_)
                | Change::Guard(_)
                | Change::Ruleset(_)
                | Change::Subject(_)
                | Change::Acl(_)
                | Change::Shaper(_) => {}
            }
        }
    }

    fn record_port(&mut self, delta: &Delta<Port>) {
        // The device of a port that goes takes its routes with it.
        if let Some(port) = delta.old.as_ref().filter(|port| is_device(port)) {
            self.devices.remove(&port.bridge);
        }
        if let Some(port) = delta.new.as_ref().filter(|port| is_device(port)) {
            self.devices.insert(port.bridge, port.name.clone());
            self.due.all |= self.routers.contains_key(&port.bridge);
        }
    }

    fn record_service(&mut self, delta: &Delta<Service>) {
        self.redirect.record(delta);
        match (&delta.old, &delta.new) {
            (None, Some(service)) => {
                let count = self.addresses.entry(service.key.address).or_default();
                *count += 1;
                if *count == 1 {
                    self.due.addresses.insert(service.key.address);
                }
            }
            (Some(service), None) => {
                let Some(count) = self.addresses.get_mut(&service.key.address) else { return };
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&service.key.address);
                    self.due.addresses.insert(service.key.address);
                }
            }
            // The address is part of the key.
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// Tell the kernel what has changed. Failures are logged, and tried again by [`Self::upkeep`]: the network between pods
    /// does not wait for the node's own.
    pub(crate) fn settle(&mut self) {
        let Due { all, addresses } = std::mem::take(&mut self.due);
        let done = if all {
            self.repair()
        } else if (!addresses.is_empty() || self.redirect.is_due()) && !self.routers.is_empty() {
            self.place(&addresses)
        } else {
            return;
        };
        self.judge(done);
    }

    /// Why processes of the node do not reach a service at this address, when others do.
    pub(crate) fn unreached(&self, service: &ServiceKey) -> Option<String> {
        self.redirect.unreached(service)
    }

    /// Called every few seconds: set right what somebody changed.
    pub(crate) fn upkeep(&mut self) {
        // Without a router everything was taken away when it went, or is taken away now, once.
        if self.complete && !(self.routers.is_empty() && self.line.is_some() && self.complaint.is_empty()) {
            let done = self.repair();
            self.judge(done);
        }
    }

    /// Every noun that a restart brings back has been told.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// Take everything away.
    pub(crate) fn withdraw(&mut self) {
        if !std::mem::take(&mut self.routers).is_empty() {
            let done = self.repair();
            self.judge(done);
        }
    }

    /// Say what is wrong when it begins to be.
    fn judge(&mut self, done: io::Result<Option<IpAddr>>) {
        let complaint = match done {
            Ok(None) => String::new(),
            Ok(Some(absent)) => {
                format!("{absent}: no interface of this network namespace has this address of the node")
            }
            Err(error) => format!("routes of the node: {error}"),
        };
        if complaint != self.complaint && !complaint.is_empty() {
            tracing::warn!("{complaint}");
        }
        self.complaint = complaint;
    }

    /// Route or unroute single service addresses.
    fn place(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<Option<IpAddr>> {
        let line = opened(&mut self.line)?;
        let Some((_, device, router)) = serving(&self.routers, &self.devices) else { return Ok(None) };
        let interface = line.netlink().index(device)?;
        let local = line.addresses()?;
        for address in addresses.iter().filter(|address| !covered(**address, router, &self.ranges)) {
            let Some(route) = route(IpNet::from(*address), router, interface, &local) else { continue };
            if self.addresses.contains_key(address) && !own(*address, router, &local) {
                line.add(&route)?;
            } else {
                line.remove(&route)?;
            }
        }
        let missing = absent(router, &local);
        self.tell_redirect(&local, false);
        Ok(missing)
    }

    /// What is known of the node, to those who serve its own addresses.
    fn tell_redirect(&mut self, local: &BTreeSet<IpAddr>, suspicious: bool) {
        let Self { routers, devices, complete, redirect, .. } = self;
        let serving = serving(routers, devices)
            .map(|(_, device, router)| (device, FAMILIES.map(|family| source(family, router, local))));
        let devices = devices.values().map(String::as_str).collect();
        redirect.settle(&Purpose { serving, devices, complete: *complete, suspicious }, local);
    }

    /// Compare all that there is with all that there shall be, and set it right. Returns an address of the node that no
    /// interface has.
    fn repair(&mut self) -> io::Result<Option<IpAddr>> {
        let serving = serving(&self.routers, &self.devices).map(|(bridge, ..)| bridge);
        let line = opened(&mut self.line)?;
        let local = line.addresses()?;
        let mut wanted = BTreeMap::new();
        let mut missing = None;
        for (bridge, device) in &self.devices {
            let Some(link) = line.netlink().link(device)? else { continue };
            let asks = match self.routers.get(bridge) {
                Some(router) => {
                    prepare(line, device, link.index, link.up)?;
                    missing = missing.or_else(|| absent(router, &local));
                    let first = serving == Some(*bridge);
                    let addresses = self.addresses.keys().copied().filter(|_| first);
                    let ranges = if first { self.ranges.clone() } else { BTreeSet::new() };
                    Wanted::of(router, link.index, &local, &ranges, addresses)
                }
                None => Wanted::default(),
            };
            wanted.insert(link.index, asks);
        }
        for (interface, wanted) in &wanted {
            repair_neighbours(line, *interface, &wanted.neighbours)?;
        }
        for family in FAMILIES {
            repair_routes(line, family, &wanted)?;
        }
        self.tell_redirect(&local, true);
        Ok(missing)
    }
}

/// The bridge whose router the node uses, its device and the router. There is one cluster: were there more routers, the
/// first would have the ranges and addresses, which can lead to one place only.
fn serving<'a>(
    routers: &'a BTreeMap<BridgeId, Router>,
    devices: &'a BTreeMap<BridgeId, String>,
) -> Option<(BridgeId, &'a str, &'a Router)> {
    routers.iter().find_map(|(bridge, router)| Some((*bridge, devices.get(bridge)?.as_str(), router)))
}

/// The line, opened if it is not yet. Threads of one process may share it: it belongs to a namespace, not to a thread.
fn opened(line: &mut Option<Routes>) -> io::Result<&Routes> {
    Ok(match line {
        Some(line) => line,
        None => line.insert(Routes::open()?),
    })
}

/// The port is a bridge's own interface in the daemon's namespace.
fn is_device(port: &Port) -> bool {
    port.ofport == Port::LOCAL && port.kind == crate::ports::internal::PORT.name
}

/// An address of the node that no interface has: packets to it are not taken, and it cannot be sent from.
fn absent(router: &Router, local: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    router.node.iter().copied().find(|address| !local.contains(address))
}

/// The kernel has the address itself, or shall have: no packet to it is for others.
fn own(address: IpAddr, router: &Router, local: &BTreeSet<IpAddr>) -> bool {
    local.contains(&address) || router.node.contains(&address)
}

/// A range, or a podCIDR, leads there already.
fn covered(address: IpAddr, router: &Router, ranges: &BTreeSet<IpNet>) -> bool {
    ranges.iter().chain(&router.gateways).any(|prefix| prefix.contains(&address))
}

/// The route to a prefix by way of the gateway of its family; `None` when there is no such gateway.
fn route(prefix: IpNet, router: &Router, interface: u32, local: &BTreeSet<IpAddr>) -> Option<Route> {
    let family = Family::of(prefix.addr());
    let gateway = router.gateways.iter().map(IpNet::addr).find(|gateway| Family::of(*gateway) == family)?;
    Some(Route { prefix, gateway, interface, source: source(family, router, local) })
}

/// The node's address of a family, if an interface has it: the kernel refuses others.
fn source(family: Family, router: &Router, local: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    router.node.iter().copied().find(|address| Family::of(*address) == family && local.contains(address))
}

impl Wanted {
    fn of(
        router: &Router,
        interface: u32,
        local: &BTreeSet<IpAddr>,
        ranges: &BTreeSet<IpNet>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let foreign = addresses.filter(|address| !own(*address, router, local));
        let single = foreign.filter(|address| !covered(*address, router, ranges)).map(IpNet::from);
        let far = ranges.iter().copied().chain(single).filter_map(|prefix| route(prefix, router, interface, local));
        let mut routes: BTreeMap<IpNet, Route> = far.map(|route| (route.prefix, route)).collect();
        for gateway in &router.gateways {
            let source = source(Family::of(gateway.addr()), router, local);
            let near = Route { prefix: gateway.trunc(), gateway: gateway.addr(), interface, source };
            routes.insert(near.prefix, near);
        }
        let neighbours = router.gateways.iter().map(|gateway| (gateway.addr(), router.mac)).collect();
        Self { routes, neighbours }
    }
}

/// Make a device ready to be routed by.
fn prepare(line: &Routes, device: &str, index: u32, up: bool) -> io::Result<()> {
    for (family, name, value) in SYSCTLS {
        let file = Path::new("/proc/sys/net").join(family).join("conf").join(device).join(name);
        let as_it_is = std::fs::read_to_string(&file);
        // A kernel without IPv6 has no such file, a container may not write it: then it is the operator's.
        if as_it_is.is_ok_and(|text| text.trim() != value)
            && let Err(error) = std::fs::write(&file, value)
        {
            tracing::debug!("{}: {error}", file.display());
        }
    }
    if up { Ok(()) } else { line.netlink().set(index, &Settings { up: Some(true), ..Settings::default() }) }
}

fn repair_neighbours(line: &Routes, interface: u32, wanted: &BTreeMap<IpAddr, MacAddr>) -> io::Result<()> {
    let there = line.neighbours(interface)?;
    for address in there.keys().filter(|address| !wanted.contains_key(address)) {
        line.remove_neighbour(interface, *address)?;
    }
    for (address, mac) in wanted.iter().filter(|(address, mac)| there.get(address) != Some(mac)) {
        line.add_neighbour(interface, *address, *mac)?;
    }
    Ok(())
}

/// The routes of a family over our devices, and the rule while there is any route. Those over other devices are another
/// daemon's.
fn repair_routes(line: &Routes, family: Family, wanted: &BTreeMap<u32, Wanted>) -> io::Result<()> {
    let there = line.list(family)?;
    let is_wanted = |route: &Route| match wanted.get(&route.interface) {
        Some(wanted) => wanted.routes.get(&route.prefix) == Some(route),
        None => true,
    };
    let (kept, stale): (BTreeSet<Route>, BTreeSet<Route>) = there.into_iter().partition(is_wanted);
    for route in &stale {
        line.remove(route)?;
    }
    let all = wanted.values().flat_map(|wanted| wanted.routes.values());
    let ours: Vec<&Route> = all.filter(|route| Family::of(route.gateway) == family).collect();
    for route in ours.iter().filter(|route| !kept.contains(route)) {
        line.add(route)?;
    }
    let needed = !(kept.is_empty() && ours.is_empty());
    match (line.has_rule(family)?, needed) {
        (false, true) => line.add_rule(family),
        (true, false) => line.remove_rule(family),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
