//! What the node's kernel would deliver to itself: a service at an address that an interface of the node has.
//!
//! A process of the node (or a pod of the host network) that connects to a node port, or to an external address that is on
//! an interface, is answered by the kernel's `local` table: the packet goes to `lo` and never to the switch. So the kernel is
//! asked, in a table of its packet filter that is ours alone, to send such connections to the same port of the service at
//! its cluster address, to which [`super`] has a route:
//!
//! ```text
//!   table ip vswitch-br-pods {                                   and the same as table ip6
//!     map services { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
//!                    elements = { 192.0.2.10 . tcp . 30080 : 10.96.0.10 . 80, … } }
//!     chain output      { type nat hook output priority dstnat
//!                         oif lo dnat ip to ip daddr . meta l4proto . th dport map @services }
//!     chain postrouting { type nat hook postrouting priority srcnat
//!                         ct status dnat ct original … in @services snat ip to 192.0.2.10 } }
//! ```
//!
//! One example: node 192.0.2.10, a node port 30080 of the service 10.96.0.10:80. A process connects to 192.0.2.10:30080; its
//! socket has 192.0.2.10:40000 as its own address, and the packet is on its way to `lo`. The map says 10.96.0.10:80; the
//! kernel looks for a route again and finds that by br-pods. The answer from 10.96.0.10:80 comes in by br-pods, where the
//! route back is, and is from 192.0.2.10:30080 again before the socket sees it. A process that spoke to an external
//! address on `lo` had that as its own address; the second chain makes it the node's, which the switch knows.
//!
//! The kernel decides once for a flow of UDP, and again only after silence. One that began before its service did, or before
//! that went, is forgotten then, so that it is decided anew (row U2 of `docs/kubernetes.md`); others are left alone.
//!
//! The map has every external address; that the packet is on its way to `lo` says, at that moment, that the kernel has it.
//! The table is there only while some interface has one of the addresses, since with it the kernel tracks the connections
//! of the namespace. An address of 127.0.0.0/8 or ::1 is no node port, as with kube-proxy's nftables mode. A client's address
//! is the node's, so a service whose source ranges have no address of the node is left out: it is refused here.
//!
//! The alternative was tried beside this on Linux 6.18: BPF programs on a cgroup that rewrite addresses as a socket is used
//! (`connect4`, `sendmsg4`). TCP and connected UDP get where they shall, but `getpeername` names the cluster address; a
//! datagram that was sent without connecting is answered from the cluster address, which needs two more programs and a map
//! of what each socket meant; SCTP has no such hook at all; and the programs hang on the root of the cgroups, for every
//! process of the machine in every namespace. The table has TCP, UDP of both kinds, SCTP, and both families in the same two
//! rules, and belongs to one namespace. It costs all other traffic of that namespace connection tracking, if nobody else has
//! switched that on: over `lo`, on two busy cores, a TCP stream showed no difference beyond noise (20.6 Gbit/s without the
//! table, 22.7 with it; medians of five), and a datagram took 10.1 µs instead of 8.4.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{Delta, External, Proto, Service, ServiceKey};

use crate::sys::conntrack::Conntrack;
use crate::sys::nftables::{Batch, Hook, Nftables, Rule, Words, key, target};
use crate::sys::routes::{FAMILIES, Family};

/// Name of the map.
const MAP: &str = "services";
/// The kernel gives `lo` this number in every namespace (`LOOPBACK_IFINDEX`).
const LO: u32 = 1;

/// The services at external addresses, and what the kernel was told of them.
#[derive(Default)]
pub(super) struct Redirect {
    /// Opened when it is first needed.
    line: Option<Nftables>,
    services: BTreeMap<ServiceKey, Arc<External>>,
    /// Services that came, changed or went since the kernel was last told.
    due: BTreeSet<ServiceKey>,
    v4: Told,
    v6: Told,
    /// Addresses of interfaces when that was last looked at.
    local: BTreeSet<IpAddr>,
    /// Why the kernel could not be told.
    fault: Option<String>,
}

/// What the kernel was told of a family.
#[derive(Debug, Default)]
enum Told {
    /// Nothing by us, or nothing that it took: there may be a table, of an earlier daemon or of ours.
    #[default]
    Unknown,
    /// There is no table.
    Nothing,
    /// There is a table.
    Table(Table),
}

/// A table as it was told.
#[derive(Debug)]
struct Table {
    family: Family,
    name: String,
    /// The address of the node that clients get.
    node: IpAddr,
    elements: BTreeMap<Words, Words>,
    /// Numbers of its rules, by which it is known again.
    rules: Vec<u64>,
    /// The packet filter's generation at which all this was seen to be there.
    seen: Option<u32>,
}

/// What the tables are made for.
pub(super) struct Purpose<'a> {
    /// The device by which the switch is reached, and the node's addresses by family that an interface has. None: no tables.
    pub(super) serving: Option<(&'a str, [Option<IpAddr>; 2])>,
    /// All devices of this daemon: an earlier one may have been reached by another of them.
    pub(super) devices: Vec<&'a str>,
    /// All services of before a restart have been told.
    pub(super) complete: bool,
    /// Look whether somebody else changed the tables.
    pub(super) suspicious: bool,
}

impl Purpose<'_> {
    /// The node's address of a family.
    fn node(&self, family: Family) -> Option<IpAddr> {
        let (_, nodes) = self.serving?;
        nodes.into_iter().flatten().find(|address| Family::of(*address) == family)
    }
}

impl Redirect {
    /// Take over a change of a service; [`Self::settle`] tells the kernel.
    pub(super) fn record(&mut self, delta: &Delta<Service>) {
        for service in delta.old.iter().filter(|service| service.external.is_some()) {
            self.services.remove(&service.key);
            self.due.insert(service.key);
        }
        if let Some(Service { key, external: Some(external), .. }) = &delta.new {
            self.services.insert(*key, Arc::clone(external));
            self.due.insert(*key);
        }
    }

    /// There is something to tell.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Why processes of the node do not reach the service at this address; `None`: they do, in this way or by a route.
    pub(super) fn unreached(&self, service: &ServiceKey) -> Option<String> {
        let told = if service.address.is_ipv4() { &self.v4 } else { &self.v6 };
        let concerned = self.services.contains_key(service) && self.local.contains(&service.address);
        self.fault.clone().filter(|_| concerned && matches!(told, Told::Unknown))
    }

    /// Tell the kernel what has changed. A failure is logged when it begins, and tried again next time.
    pub(super) fn settle(&mut self, purpose: &Purpose<'_>, local: &BTreeSet<IpAddr>) {
        self.local.clone_from(local);
        let due = std::mem::take(&mut self.due);
        let mut fault = None;
        for family in FAMILIES {
            let told = std::mem::take(self.told(family));
            match self.settle_family(family, told, &due, purpose) {
                Ok(told) => *self.told(family) = told,
                Err(error) => fault = Some(error.to_string()),
            }
        }
        if let Err(error) = self.forget_flows(&due, purpose) {
            tracing::debug!("UDP flows of the node's own: {error}");
        }
        if let Some(why) = fault.as_ref().filter(|why| self.fault.as_ref() != Some(*why)) {
            tracing::warn!("the node itself does not reach services at its own addresses: {why}");
        }
        self.fault = fault;
    }

    fn told(&mut self, family: Family) -> &mut Told {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn settle_family(
        &mut self,
        family: Family,
        told: Told,
        due: &BTreeSet<ServiceKey>,
        purpose: &Purpose<'_>,
    ) -> io::Result<Told> {
        let here = |service: &&ServiceKey| Family::of(service.address) == family;
        let needed = self.services.keys().filter(here).any(|service| self.local.contains(&service.address));
        let Some((device, _)) = purpose.serving.filter(|_| needed) else {
            return self.forget(family, told, None, purpose);
        };
        let node = purpose.node(family).ok_or_else(|| io::Error::other("no interface has the node's address"))?;
        let name = name(device);
        let told = self.forget(family, told, Some(&name), purpose)?;
        let changes: BTreeMap<Words, Option<Words>> =
            due.iter().filter(here).map(|service| (element(service), self.target(service, node))).collect();
        let line = opened(&mut self.line)?;
        if let Told::Table(mut table) = told
            && table.node == node
            && (!purpose.suspicious || table.is_there(line)?)
            // The kernel refuses what does not fit what it has, if somebody had a hand in it.
            && table.change(line, changes).is_ok()
        {
            return Ok(Told::Table(table));
        }
        let services = self.services.keys().filter(here);
        let elements = services.filter_map(|service| Some((element(service), self.target(service, node)?))).collect();
        Table::make(opened(&mut self.line)?, family, name, node, elements).map(Told::Table)
    }

    /// The same as the map has it.
    fn target(&self, service: &ServiceKey, node: IpAddr) -> Option<Words> {
        self.wanted(service, node).map(|cluster| target(cluster.ip(), cluster.port()))
    }

    /// Where connections to a service go.
    fn wanted(&self, service: &ServiceKey, node: IpAddr) -> Option<SocketAddr> {
        let External { sources, cluster, .. } = &**self.services.get(service)?;
        let admitted = sources.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&node)));
        admitted.then_some(*cluster)
    }

    /// Forget the UDP flows to services that came, changed or went, unless they go where they shall.
    fn forget_flows(&self, due: &BTreeSet<ServiceKey>, purpose: &Purpose<'_>) -> io::Result<()> {
        let decided = due.iter().filter(|key| key.proto == Proto::Udp && self.local.contains(&key.address));
        let decided: BTreeMap<SocketAddr, Option<SocketAddr>> = decided
            .map(|key| {
                let node = purpose.node(Family::of(key.address));
                (SocketAddr::new(key.address, key.port), node.and_then(|node| self.wanted(key, node)))
            })
            .collect();
        let stale = |to, by| decided.get(&to).is_some_and(|meant| meant.unwrap_or(to) != by);
        for family in FAMILIES {
            if decided.keys().any(|at| Family::of(at.ip()) == family) {
                let ended = Conntrack::open()?.forget_udp(family, stale)?;
                tracing::debug!(ended, "UDP flows of the node's own");
            }
        }
        Ok(())
    }

    /// Remove tables of ours that do not have the name.
    fn forget(&mut self, family: Family, told: Told, but: Option<&str>, purpose: &Purpose<'_>) -> io::Result<Told> {
        match told {
            Told::Table(table) if Some(&*table.name) == but => Ok(Told::Table(table)),
            Told::Table(table) => {
                opened(&mut self.line)?.commit(Batch::of(family, &table.name).remove_table())?;
                Ok(Told::Nothing)
            }
            // What an earlier daemon left serves until all is known.
            Told::Unknown if but.is_none() && !purpose.complete => Ok(Told::Unknown),
            Told::Unknown => {
                for name in purpose.devices.iter().map(|device| name(device)).filter(|name| Some(&**name) != but) {
                    // Without a packet filter there is nothing in it.
                    let there = opened(&mut self.line).and_then(|line| line.has_table(family, &name));
                    if there.unwrap_or(false) {
                        opened(&mut self.line)?.commit(Batch::of(family, &name).remove_table())?;
                    }
                }
                Ok(Told::Nothing)
            }
            Told::Nothing => Ok(Told::Nothing),
        }
    }
}

impl Table {
    /// Make it, in place of whatever has its name.
    fn make(
        line: &mut Nftables,
        family: Family,
        name: String,
        node: IpAddr,
        elements: BTreeMap<Words, Words>,
    ) -> io::Result<Self> {
        let output = Rule::new(family).leaves_by(LO).destination_is_in(MAP).translate_destination();
        let translated = Rule::new(family).destination_was_translated().first_destination_is_in(MAP);
        let mut batch = Batch::of(family, &name);
        batch.begin_anew().add_map(MAP).add_chain(Hook::Output, &output);
        batch.add_chain(Hook::Postrouting, &translated.translate_source(node));
        batch.add_elements(MAP, &elements.iter().collect::<Vec<_>>());
        line.commit(&batch)?;
        let rules = line.rules(family, &name)?;
        Ok(Self { family, name, node, elements, rules, seen: None })
    }

    /// Put in, change and take out elements.
    fn change(&mut self, line: &mut Nftables, changes: BTreeMap<Words, Option<Words>>) -> io::Result<()> {
        let differs = |(key, data): &(&Words, &Option<Words>)| self.elements.get(*key) != data.as_ref();
        let changed: Vec<_> = changes.iter().filter(differs).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let old: Vec<_> = changed.iter().map(|(key, _)| *key).filter(|key| self.elements.contains_key(*key)).collect();
        let new: Vec<_> = changed.iter().filter_map(|(key, data)| Some((*key, data.as_ref()?))).collect();
        line.commit(Batch::of(self.family, &self.name).remove_elements(MAP, &old).add_elements(MAP, &new))?;
        for (key, data) in changes {
            match data {
                Some(data) => self.elements.insert(key, data),
                None => self.elements.remove(&key),
            };
        }
        self.seen = None;
        Ok(())
    }

    /// It is as it was told. Cheap while nobody changes anything in the packet filter.
    fn is_there(&mut self, line: &mut Nftables) -> io::Result<bool> {
        // Before the look: what changes during it is looked at again.
        let generation = Some(line.generation()?);
        if self.seen == generation {
            return Ok(true);
        }
        let there = line.rules(self.family, &self.name)? == self.rules
            && line.elements(self.family, &self.name, MAP)? == self.elements;
        self.seen = generation.filter(|_| there);
        Ok(there)
    }
}

/// The line, opened if it is not yet.
fn opened(line: &mut Option<Nftables>) -> io::Result<&mut Nftables> {
    Ok(match line {
        Some(line) => line,
        None => line.insert(Nftables::open()?),
    })
}

/// Two daemons of one namespace have devices of different names.
fn name(device: &str) -> String {
    format!("vswitch-{device}")
}

fn element(service: &ServiceKey) -> Words {
    key(service.address, service.proto, service.port)
}

#[cfg(test)]
mod tests;
