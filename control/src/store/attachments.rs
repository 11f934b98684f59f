//! The store's part of attachments: interfaces of containers, each on a port of its own.
//!
//! An attachment is a port and a record beside it, made durable and told to the switch in one step; so it is there whole, or
//! not at all. Its addresses are taken as long as the record is there: they are free again when no packet, connection or
//! endpoint of the old container is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use api::attachment::code;
use api::reply::{AttachmentRow, Attachments};
use api::request::Command;
use api::{
    Addressing, Assigned, Attach, AttachRefusal, AttachReply, Attached, AttachmentId, Bandwidth, BridgeId, Expected,
    HostPort, Interface, InterfaceRoute, MacAddr, PodRef, Port, PortId,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Store;
use super::config::{Config, shown};
use super::draft::{Draft, Live};
use super::ipam::is_for_containers;
use crate::cluster::compile::node::gateway;
use crate::cluster::model::Named;
use crate::{Refusal, Switch};

/// The key of `external_ids` that binds a port to a pod.
const POD: &str = "pod";
/// The option of a port that says which namespace its `options:netns` led to.
const NETNS_INODE: &str = "netns-inode";
/// Smallest MTU of a link with IPv6 (RFC 8200, 5).
const IPV6_MTU: u16 = 1280;

mod wish;

use wish::{check, check_protocol, mac_of, port_name};

/// A pod as the cluster's objects name it.
fn named(pod: &PodRef) -> Named {
    Named { namespace: pod.namespace.as_str().into(), name: pod.name.as_str().into() }
}

/// Refuse with CNI's code.
fn refuse<T>(code: u32, what: impl Into<String>) -> Result<T, AttachRefusal> {
    Err(AttachRefusal { code, what: what.into() })
}

/// An interface of a container, as it was asked for. Its port has the rest: name, bridge, Ethernet address, MTU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attachment {
    /// Key.
    pub(crate) port: PortId,
    pub(crate) id: AttachmentId,
    /// Path of the namespace.
    pub(crate) netns: String,
    /// The pod whose sandbox it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodRef>,
    pub(crate) interface: Interface,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_ports: Vec<HostPort>,
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub(crate) bandwidth: Bandwidth,
}

impl Attachment {
    /// `NAMESPACE/NAME` of its pod.
    fn pod_name(&self) -> Option<String> {
        self.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name))
    }
}

/// Where an attachment is to be made, and with what.
struct Place {
    bridge: BridgeId,
    is_cluster: bool,
    mtu: u16,
}

impl Store {
    /// Make an interface for a container. When it returns, the port and its addresses are in force.
    ///
    /// # Errors
    /// With CNI's code: field, value and rule. Nothing is left behind.
    pub(crate) fn attach(&mut self, attach: &Attach, switch: &mut dyn Switch) -> Result<AttachReply, AttachRefusal> {
        check(attach)?;
        let id = &attach.id;
        if let Some(there) = self.attachment(id) {
            let port = self.port_name(there.port);
            let AttachmentId { container, ifname, .. } = id;
            return refuse(
                code::FAILED,
                format!("container {container} has {ifname} already, on port {port}: DEL comes first"),
            );
        }
        self.supersede(attach, switch)?;
        let mut config = self.config.clone();
        let place = self.place(attach, &mut config)?;
        let interface = self.interface(attach, &place, &config)?;
        self.check_host_ports(attach, &place, &interface)?;
        let port = self.new_port(attach, &place, &interface, &mut config)?;
        let attachment = Attachment {
            port: port.id,
            id: id.clone(),
            netns: attach.netns.clone(),
            pod: attach.pod.clone(),
            interface: interface.clone(),
            host_ports: attach.host_ports.clone(),
            bandwidth: attach.bandwidth,
        };
        let mac = port.mac.unwrap_or_default();
        config.attachments.insert(port.id, attachment);
        config.ports.insert(port.id, port);
        self.commit(config, switch).map_err(|Refusal(what)| AttachRefusal { code: code::FAILED, what })?;
        Ok(AttachReply::Attached(Attached { mac, mtu: place.mtu, interface }))
    }

    /// Remove an attachment, if it is there.
    ///
    /// # Errors
    /// When the disk or the switch refuses.
    pub(crate) fn detach(&mut self, id: &AttachmentId, switch: &mut dyn Switch) -> Result<(), Refusal> {
        let Some(port) = self.attachment(id).map(|attachment| attachment.port) else { return Ok(()) };
        let mut config = self.config.clone();
        config.remove_port(port);
        self.commit(config, switch)
    }

    /// Compare an attachment with what it shall be. Changes nothing.
    ///
    /// # Errors
    /// The first difference, with CNI's code.
    pub(crate) fn check_attachment(
        &self,
        id: &AttachmentId,
        expected: &Expected,
        switch: &dyn Switch,
    ) -> Result<AttachReply, AttachRefusal> {
        let AttachmentId { network, container, ifname } = id;
        let Some(attachment) = self.attachment(id) else {
            return refuse(
                code::UNKNOWN_CONTAINER,
                format!("network {network}: container {container} has no {ifname} here"),
            );
        };
        let differs = |what: String| refuse(code::DIFFERENT, format!("{ifname} of container {container}: {what}"));
        let Expected { netns, mac, mtu, interface } = expected;
        if attachment.netns != *netns {
            return differs(format!("was attached in {}, not in {}", attachment.netns, shown(netns)));
        }
        if let Some(why) = self.held.ports.get(&attachment.port) {
            return differs(why.clone());
        }
        let is = match switch.interface(attachment.port) {
            Ok(is) => is,
            Err(Refusal(why)) => return differs(why),
        };
        if let Some(mac) = mac.filter(|mac| *mac != is.mac) {
            return differs(format!("its Ethernet address is {}, not {mac}", is.mac));
        }
        if let Some(mtu) = mtu.filter(|mtu| *mtu != is.mtu) {
            return differs(format!("its MTU is {}, not {mtu}", is.mtu));
        }
        // What it was given counts as well as what the runtime remembers of it.
        let given = &attachment.interface;
        let has = |address: &IpNet| is.interface.addresses.iter().any(|assigned| assigned.address == *address);
        let mut addresses = interface.addresses.iter().chain(&given.addresses).map(|assigned| assigned.address);
        if let Some(missing) = addresses.find(|address| !has(address)) {
            return differs(format!("it has not the address {missing}"));
        }
        let mut routes = interface.routes.iter().chain(&given.routes);
        if let Some(InterfaceRoute { prefix, .. }) = routes.find(|route| !is.interface.routes.contains(route)) {
            return differs(format!("it has not the route to {prefix}"));
        }
        Ok(AttachReply::Fine)
    }

    /// Remove the attachments of a network that are not among those that are valid. What cannot be removed does not keep the
    /// rest from it.
    ///
    /// # Errors
    /// The first that could not be removed.
    pub(crate) fn collect_attachments(
        &mut self,
        network: &str,
        valid: &[(String, String)],
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let valid: BTreeSet<(&str, &str)> = valid.iter().map(|(id, ifname)| (id.as_str(), ifname.as_str())).collect();
        let of_network =
            self.config.attachments.values().map(|attachment| &attachment.id).filter(|id| id.network == network);
        let gone = of_network.filter(|id| !valid.contains(&(id.container.as_str(), id.ifname.as_str())));
        let gone: Vec<AttachmentId> = gone.cloned().collect();
        let mut result = Ok(());
        for id in gone {
            let removed = self.detach(&id, switch);
            result = result.and(removed);
        }
        result
    }

    /// Remove attachments whose namespaces are no more: who detaches what went while nobody was there to hear of it? To be
    /// called once, before the ports are opened.
    pub(super) fn collect_lost(&mut self) {
        let is_lost = |attachment: &&Attachment| {
            let was = self.port(attachment.port).and_then(|port| port.options.get(NETNS_INODE)).cloned();
            netns_inode(&attachment.netns) != was
        };
        let lost: Vec<PortId> = self.config.attachments.values().filter(is_lost).map(|lost| lost.port).collect();
        for port in &lost {
            tracing::info!("port {}: its network namespace is gone, and so is its container", self.port_name(*port));
            self.config.remove_port(*port);
        }
        if !lost.is_empty()
            && let Err(why) = self.file.prepare(&self.config).and_then(super::file::Prepared::commit)
        {
            tracing::warn!("{why}");
        }
        for (prefix, given) in self
            .config
            .attachments
            .values()
            .flat_map(|attachment| &attachment.interface.addresses)
            .map(|assigned| (assigned.address.trunc(), assigned.address.addr()))
        {
            self.ipam.resume(&prefix, given);
        }
    }

    /// Whether an attachment could be made now.
    ///
    /// # Errors
    /// Why not, with CNI's code.
    pub(crate) fn attachment_status(
        &self,
        protocol: u16,
        bridge: Option<&str>,
        assigns: bool,
    ) -> Result<AttachReply, AttachRefusal> {
        check_protocol(protocol)?;
        if assigns && bridge.is_none_or(|bridge| bridge == self.cluster.settings().bridge) {
            let unavailable = |refusal: AttachRefusal| AttachRefusal { code: code::NOT_AVAILABLE, ..refusal };
            let prefixes = self.pod_cidrs().map_err(unavailable)?;
            let taken = self.taken_addresses();
            if let Some(full) = prefixes.iter().find(|prefix| !self.ipam.has_room(prefix, &taken)) {
                return refuse(code::NOT_AVAILABLE, format!("podCIDR {full}: all addresses are taken"));
            }
        }
        Ok(AttachReply::Fine)
    }

    /// All attachments.
    pub(crate) fn attachments(&self, switch: &dyn Switch) -> Attachments {
        let states = self.states(switch);
        let row = |attachment: &Attachment| {
            let port = self.port(attachment.port);
            AttachmentRow {
                id: attachment.id.clone(),
                netns: attachment.netns.clone(),
                bridge: port.map_or("", |port| self.bridge_name(port.bridge)).to_owned(),
                port: self.port_name(attachment.port),
                addresses: attachment.interface.addresses.iter().map(|assigned| assigned.address).collect(),
                pod: attachment.pod_name(),
                error: states.get(&attachment.port).and_then(|state| state.error.clone()),
            }
        };
        let mut rows: Vec<_> = self.config.attachments.values().map(row).collect();
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Attachments(rows)
    }

    /// The addresses of pods that are attached to the cluster bridge.
    pub(crate) fn addresses_of_pods(&self) -> BTreeMap<Named, Vec<IpAddr>> {
        let Some(bridge) = self.config.bridge(&self.cluster.settings().bridge) else { return BTreeMap::new() };
        let here = self.config.attachments.values().filter(|attachment| self.is_on(attachment.port, bridge.id));
        let addresses = |attachment: &Attachment| {
            let pod = attachment.pod.as_ref()?;
            let name = named(pod);
            let all: Vec<IpAddr> = attachment.interface.addresses.iter().map(|a| a.address.addr()).collect();
            (!all.is_empty()).then_some((name, all))
        };
        here.filter_map(addresses).collect()
    }

    fn attachment(&self, id: &AttachmentId) -> Option<&Attachment> {
        self.config.attachments.values().find(|attachment| attachment.id == *id)
    }

    fn is_on(&self, port: PortId, bridge: BridgeId) -> bool {
        self.port(port).is_some_and(|port| port.bridge == bridge)
    }

    /// A pod has a new sandbox: what the old one had goes, whether its runtime has said so yet or not.
    fn supersede(&mut self, attach: &Attach, switch: &mut dyn Switch) -> Result<(), AttachRefusal> {
        let Some(pod) = &attach.pod else { return Ok(()) };
        let same_pod = |other: &PodRef| (&other.namespace, &other.name) == (&pod.namespace, &pod.name);
        let of_pod = |other: &&Attachment| other.pod.as_ref().is_some_and(same_pod);
        let old = self.config.attachments.values().filter(of_pod).find(|old| {
            old.id.network == attach.id.network
                && old.id.ifname == attach.id.ifname
                && old.id.container != attach.id.container
        });
        let Some(old) = old.map(|old| old.id.clone()) else { return Ok(()) };
        tracing::info!(
            "pod {}/{}: container {} comes in place of {}",
            pod.namespace,
            pod.name,
            attach.id.container,
            old.container
        );
        self.detach(&old, switch).map_err(|Refusal(what)| AttachRefusal { code: code::FAILED, what })
    }

    /// The bridge, made if need be, and what fits it.
    fn place(&self, attach: &Attach, config: &mut Config) -> Result<Place, AttachRefusal> {
        let cluster = &self.cluster.settings().bridge;
        let name = attach.bridge.as_ref().unwrap_or(cluster);
        let invalid = |why| AttachRefusal { code: code::INVALID_CONFIG, what: format!("bridge: {why}") };
        let bridge = match config.bridge(name) {
            Some(bridge) => bridge.id,
            None => {
                *config = self.with_bridge(name).map_err(invalid)?;
                config.bridge(name).map_or_else(BridgeId::default, |bridge| bridge.id)
            }
        };
        if let Some(why) = self.held.bridges.get(&bridge) {
            return refuse(code::TRY_AGAIN, format!("bridge {name}: {why}"));
        }
        let uplink = config.ports_of(bridge).find(|port| Some(&port.name) == self.cluster.settings().uplink.as_ref());
        let mtu = attach.mtu.or_else(|| uplink.map(|port| port.mtu)).unwrap_or(Port::MTU);
        Ok(Place { bridge, is_cluster: name == cluster, mtu })
    }

    /// The configuration with a bridge more.
    fn with_bridge(&self, bridge: &str) -> Result<Config, String> {
        let (ports, bridges) = Default::default();
        let live = Live { version: String::new(), ports, bridges };
        let mut draft = Draft::new(&self.config, &self.bridge_numbers, &self.port_numbers, &live);
        draft.run(&Command::AddBr { bridge: bridge.to_owned(), may_exist: false })?;
        Ok(draft.config)
    }

    /// The node's podCIDRs.
    fn pod_cidrs(&self) -> Result<Vec<IpNet>, AttachRefusal> {
        let name = &self.cluster.settings().name;
        match self.cluster.nodes().get(name.as_str()) {
            Some(node) if !node.pod_cidrs.is_empty() => Ok(node.pod_cidrs.iter().map(IpNet::trunc).collect()),
            Some(_) => refuse(code::TRY_AGAIN, format!("node/{name}: spec.podCIDRs: there are none yet")),
            None => refuse(code::TRY_AGAIN, format!("node/{name}: there is no such object yet, so no podCIDRs")),
        }
    }

    /// Addresses of the cluster bridge that somebody has: attachments, pods of any kind, neighbours that operators stated.
    fn taken_addresses(&self) -> BTreeSet<IpAddr> {
        let attached = self.config.attachments.values().flat_map(|attachment| &attachment.interface.addresses);
        let attached = attached.map(|assigned| assigned.address.addr());
        let pods =
            self.cluster.pods().values().filter(|pod| !pod.finished).flat_map(|pod| pod.addresses.iter().copied());
        let stated = self.config.neighbors.keys().map(|key| key.address);
        attached.chain(pods).chain(stated).collect()
    }

    /// Addresses and routes.
    fn interface(&mut self, attach: &Attach, place: &Place, config: &Config) -> Result<Interface, AttachRefusal> {
        let mut interface = match &attach.addresses {
            Addressing::None => return Ok(Interface::default()),
            Addressing::Given(given) => {
                self.check_given(given, place, config)?;
                given.clone()
            }
            Addressing::Daemon { .. } if !place.is_cluster => {
                let bridge = attach.bridge.clone().unwrap_or_default();
                return refuse(
                    code::INVALID_CONFIG,
                    format!(
                        "bridge {bridge}: addresses are given on the cluster's bridge only: others need an ipam plugin"
                    ),
                );
            }
            Addressing::Daemon { wanted } => self.assign(attach, wanted)?,
        };
        if place.is_cluster {
            let prefixes = self.pod_cidrs().unwrap_or_default();
            for assigned in &mut interface.addresses {
                let own = prefixes.iter().find(|prefix| prefix.contains(&assigned.address.addr())).and_then(gateway);
                assigned.gateway = assigned.gateway.or_else(|| own.map(|gateway| gateway.addr()));
            }
            for assigned in interface.addresses.clone() {
                let is_v4 = assigned.address.addr().is_ipv4();
                let any = IpNet::new(if is_v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }, 0).ok();
                let has = interface.routes.iter().any(|route| Some(route.prefix) == any);
                if let (Some(prefix), Some(gateway), false) = (any, assigned.gateway, has) {
                    interface.routes.push(InterfaceRoute { prefix, gateway: Some(gateway) });
                }
            }
        }
        if place.mtu < IPV6_MTU && interface.addresses.iter().any(|assigned| assigned.address.addr().is_ipv6()) {
            return refuse(code::INVALID_CONFIG, format!("mtu={}: IPv6 needs {IPV6_MTU} (RFC 8200)", place.mtu));
        }
        Ok(interface)
    }

    /// One address out of each podCIDR.
    fn assign(&mut self, attach: &Attach, wanted: &[IpAddr]) -> Result<Interface, AttachRefusal> {
        let prefixes = self.pod_cidrs()?;
        let mut taken = self.taken_addresses();
        // What the pod's object says of it is no reason that it cannot have it.
        if let Some(pod) = &attach.pod {
            for address in self.cluster.pods().get(&named(pod)).iter().flat_map(|pod| &pod.addresses) {
                taken.remove(address);
            }
        }
        for wish in wanted {
            if !prefixes.iter().any(|prefix| is_for_containers(prefix, *wish)) {
                let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
                return refuse(
                    code::INVALID_CONFIG,
                    format!("ips: {wish}: not for a container in {}", prefixes.join(",")),
                );
            }
            if taken.contains(wish) {
                return refuse(code::INVALID_CONFIG, format!("ips: {wish}: is taken"));
            }
        }
        let mut interface = Interface::default();
        for prefix in &prefixes {
            let wish = wanted.iter().copied().find(|wish| prefix.contains(wish));
            let Some(address) = wish.or_else(|| self.ipam.choose(prefix, &taken)) else {
                return refuse(code::TRY_AGAIN, format!("podCIDR {prefix}: all addresses are taken"));
            };
            if let Ok(address) = IpNet::new(address, prefix.prefix_len()) {
                interface.addresses.push(Assigned { address, gateway: None });
            }
        }
        Ok(interface)
    }

    /// Addresses that an IPAM plugin gave.
    fn check_given(&self, given: &Interface, place: &Place, config: &Config) -> Result<(), AttachRefusal> {
        let prefixes = if place.is_cluster { self.pod_cidrs()? } else { Vec::new() };
        let others = config.attachments.values().filter(|other| self.is_on(other.port, place.bridge));
        let taken: BTreeMap<IpAddr, &AttachmentId> = others
            .flat_map(|other| other.interface.addresses.iter().map(|assigned| (assigned.address.addr(), &other.id)))
            .collect();
        for Assigned { address, .. } in &given.addresses {
            if let Some(other) = taken.get(&address.addr()) {
                return refuse(
                    code::INVALID_CONFIG,
                    format!("ipam: {address}: is the address of container {}", other.container),
                );
            }
            let fits = prefixes.iter().any(|prefix| is_for_containers(prefix, address.addr()));
            if place.is_cluster && !fits {
                let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
                let why =
                    format!("ipam: {address}: not for a container in this node's podCIDRs {}", prefixes.join(","));
                return refuse(code::INVALID_CONFIG, why);
            }
        }
        Ok(())
    }

    /// No two containers have one port of the node, and none has one where the node is not.
    fn check_host_ports(&self, attach: &Attach, place: &Place, interface: &Interface) -> Result<(), AttachRefusal> {
        let taken =
            self.config.attachments.values().flat_map(|other| other.host_ports.iter().map(move |port| (port, other)));
        let taken: Vec<_> = taken.collect();
        for (i, wish) in attach.host_ports.iter().enumerate() {
            let HostPort { address, proto, port, .. } = *wish;
            let name = format!("portMappings[{i}]: hostPort {port}/{proto}");
            let meets = |other: &HostPort| {
                let same_place = match (address, other.address) {
                    (Some(a), Some(b)) if a.is_unspecified() || b.is_unspecified() => a.is_ipv4() == b.is_ipv4(),
                    (Some(a), Some(b)) => a == b,
                    _ => true,
                };
                (other.proto, other.port) == (proto, port) && same_place
            };
            if let Some((_, other)) = taken.iter().find(|(other, _)| meets(other)) {
                return refuse(code::INVALID_CONFIG, format!("{}: container {} has it", name, other.id.container));
            }
            if attach.host_ports.iter().take(i).any(meets) {
                return refuse(code::INVALID_CONFIG, format!("{}: is asked for twice", name));
            }
            if interface.addresses.is_empty() {
                return refuse(code::INVALID_CONFIG, format!("{}: the container has no address", name));
            }
            if !place.is_cluster {
                let cluster = &self.cluster.settings().bridge;
                return refuse(code::INVALID_CONFIG, format!("{name}: the node is reached on bridge {cluster} alone"));
            }
            self.cluster.check_host_port(wish).or_else(|why| refuse(code::INVALID_CONFIG, format!("{name}: {why}")))?;
        }
        Ok(())
    }

    /// The port, on its bridge, under a number and a name of its own.
    fn new_port(
        &self,
        attach: &Attach,
        place: &Place,
        interface: &Interface,
        config: &mut Config,
    ) -> Result<Port, AttachRefusal> {
        let name = port_name(&attach.id, |name| config.port(name).is_some());
        let full = |what: &str| AttachRefusal { code: code::TRY_AGAIN, what: format!("port {name}: too many {what}") };
        let ofport = config.free_ofport(place.bridge).ok_or_else(|| full("ports on its bridge"))?;
        let taken = |n| config.ports.contains_key(&PortId(n)) || self.config.ports.contains_key(&PortId(n));
        let number = self.port_numbers.choose(PortId::STACK.0 - 1, taken);
        let id = PortId(number.ok_or_else(|| full("ports"))?);
        let is_taken = |mac: MacAddr| config.ports_of(place.bridge).any(|port| port.mac == Some(mac));
        if let Some(mac) = attach.mac.filter(|mac| is_taken(*mac)) {
            return refuse(code::INVALID_CONFIG, format!("mac={mac}: another port of the bridge has it"));
        }
        let mac = attach.mac.unwrap_or_else(|| mac_of(&attach.id, is_taken));
        let join = |words: Vec<String>| words.join(",");
        let mut options = BTreeMap::from([
            ("netns".to_owned(), attach.netns.clone()),
            ("ifname".to_owned(), attach.id.ifname.clone()),
        ]);
        // A path may lead to another namespace later: that of a process that has the number of one that ended.
        options.extend(netns_inode(&attach.netns).map(|inode| (NETNS_INODE.to_owned(), inode)));
        if !interface.addresses.is_empty() {
            let addresses = interface.addresses.iter().map(|assigned| assigned.address.to_string());
            options.insert("addresses".to_owned(), join(addresses.collect()));
        }
        if !interface.routes.is_empty() {
            let route = |route: &InterfaceRoute| match route.gateway {
                Some(gateway) => format!("{}={gateway}", route.prefix),
                None => route.prefix.to_string(),
            };
            options.insert("routes".to_owned(), join(interface.routes.iter().map(route).collect()));
        }
        let mut external_ids = BTreeMap::from([("container".to_owned(), attach.id.container.clone())]);
        if let Some(pod) = &attach.pod {
            external_ids.insert(POD.to_owned(), format!("{}/{}", pod.namespace, pod.name));
        }
        let bound = attach
            .pod
            .as_ref()
            .and_then(|pod| config.bound(place.bridge).get(&named(pod)).map(|port| port.name.clone()));
        if let (Some(pod), Some(other)) = (&attach.pod, bound) {
            let why = format!("pod {}/{}: port {other} is bound to it already", pod.namespace, pod.name);
            return refuse(code::INVALID_CONFIG, why);
        }
        Ok(Port {
            id,
            name,
            bridge: place.bridge,
            ofport,
            kind: attach.kind.clone(),
            options,
            vlan: api::Vlan::default(),
            mac: Some(mac),
            mtu: place.mtu,
            external_ids,
        })
    }
}

/// Which namespace a path leads to; `None` if it leads nowhere.
fn netns_inode(path: &str) -> Option<String> {
    std::fs::metadata(path).ok().map(|there| there.ino().to_string())
}

#[cfg(test)]
mod tests;
