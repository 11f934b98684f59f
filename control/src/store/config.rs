//! The sum of what was configured, the rules it obeys, and what changes from one sum to another.
//!
//! A [`Config`] is plain data. Commands work on a copy; the [`diff`] of the copy and the original is the transaction
//! that the switch gets. So a chain of commands is one transaction by construction, and none can be half done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use api::station::StationKey;
use api::{
    Acl, AclKey, AclPlace, AddressKey, Bridge, BridgeId, Change, Delta, Hop, Neighbor, Port, PortId, Route, RouteKey,
    Shaper, Station, Transaction, Vlan,
};

use super::attachments::Attachment;
use crate::cluster::compile::binding::pod_of;
use crate::cluster::model::Named;

/// Octets of a name at most: it is the name of a network interface (IFNAMSIZ - 1, linux/if.h).
const NAME_LIMIT: usize = 15;
/// Largest VLAN id that may be configured (`constraint` of OVS's schema).
pub(crate) const VLAN_MAX: u16 = 4095;

/// Everything that was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) bridges: BTreeMap<BridgeId, Bridge>,
    pub(crate) ports: BTreeMap<PortId, Port>,
    pub(crate) stations: BTreeMap<StationKey, Station>,
    /// Stated by operators, on any bridge. They take effect where there is a router: the cluster's compiler tells the
    /// switch of them, not [`diff`].
    pub(crate) neighbors: BTreeMap<AddressKey, Neighbor>,
    /// As `neighbors`.
    pub(crate) routes: BTreeMap<RouteKey, Route>,
    /// None is empty.
    pub(crate) acls: BTreeMap<AclKey, Acl>,
    /// By port. Those of the cluster bridge are told of by the cluster's compiler.
    pub(crate) attachments: BTreeMap<PortId, Attachment>,
}

impl Config {
    pub(crate) fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.values().find(|bridge| bridge.name == name)
    }

    pub(crate) fn port(&self, name: &str) -> Option<&Port> {
        self.ports.values().find(|port| port.name == name)
    }

    /// Ports of a bridge, by number.
    pub(crate) fn ports_of(&self, bridge: BridgeId) -> impl Iterator<Item = &Port> {
        self.ports.values().filter(move |port| port.bridge == bridge)
    }

    pub(crate) fn bridge_name(&self, id: BridgeId) -> &str {
        self.bridges.get(&id).map_or("", |bridge| &bridge.name)
    }

    /// The port of a bridge that is bound to each pod (`external_ids:pod`). Of two the first, by number.
    pub(crate) fn bound(&self, bridge: BridgeId) -> BTreeMap<Named, &Port> {
        let bound = self.ports_of(bridge).filter_map(|port| Some((pod_of(&port.external_ids)?, port)));
        let mut pods = BTreeMap::new();
        for (pod, port) in bound {
            pods.entry(pod).or_insert(port);
        }
        pods
    }

    pub(crate) fn remove_port(&mut self, id: PortId) {
        self.stations.retain(|_, station| station.port != id);
        self.neighbors.retain(|_, neighbor| neighbor.port != id);
        self.routes.retain(|_, route| port_of(route.to) != Some(id));
        self.acls.retain(|key, _| key.at != AclPlace::Port(id));
        self.attachments.remove(&id);
        self.ports.remove(&id);
    }

    pub(crate) fn remove_bridge(&mut self, id: BridgeId) {
        self.stations.retain(|key, _| key.bridge != id);
        self.neighbors.retain(|key, _| key.bridge != id);
        self.routes.retain(|key, _| key.bridge != id);
        let ports = &self.ports;
        self.acls.retain(|key, _| match key.at {
            AclPlace::Bridge(bridge) => bridge != id,
            AclPlace::Port(port) => ports.get(&port).is_some_and(|port| port.bridge != id),
        });
        self.ports.retain(|_, port| port.bridge != id);
        self.attachments.retain(|port, _| self.ports.contains_key(port));
        self.bridges.remove(&id);
    }

    /// The smallest free OpenFlow number of a bridge.
    pub(crate) fn free_ofport(&self, bridge: BridgeId) -> Option<u16> {
        let taken: BTreeSet<u16> = self.ports_of(bridge).map(|port| port.ofport).collect();
        (1..=Port::OFPORT_MAX).find(|number| !taken.contains(number))
    }

    /// Every rule that commands keep, asked of a configuration that came from a file.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for bridge in self.bridges.values() {
            check_name(&bridge.name).map_err(|why| format!("bridge {}: {why}", bridge.id))?;
            if bridge.id.0 == 0 || !names.insert(&bridge.name) {
                return Err(format!("bridge {} \"{}\": is there twice, or has no number", bridge.id, bridge.name));
            }
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for port in self.ports.values() {
            let name = &port.name;
            check_name(name).map_err(|why| format!("port {}: {why}", port.id))?;
            if port.id == PortId::NONE || port.id >= PortId::STACK {
                return Err(format!("port {name}: no port can have number {}", port.id));
            }
            if !names.insert(name) || !numbers.insert((port.bridge, port.ofport)) {
                return Err(format!("port {name}: its name or ofport {} is there twice", port.ofport));
            }
            if !self.bridges.contains_key(&port.bridge) {
                return Err(format!("port {name}: no bridge has number {}", port.bridge));
            }
            let (_, tag, trunks) = port.vlan.columns();
            if tag.iter().chain(trunks).any(|&vlan| vlan > VLAN_MAX) {
                return Err(format!("port {name}: a VLAN id beyond {VLAN_MAX}"));
            }
        }
        for station in self.stations.values() {
            if self.ports.get(&station.port).is_none_or(|port| port.bridge != station.key.bridge) {
                return Err(format!("station {}: its port {} is not on its bridge", station.key.mac, station.port));
            }
        }
        let on = |port: PortId, bridge| self.ports.get(&port).is_some_and(|port| port.bridge == bridge);
        for neighbor in self.neighbors.values() {
            let AddressKey { bridge, address } = neighbor.key;
            if !on(neighbor.port, bridge) {
                return Err(format!("neighbor {address}: its port {} is not on its bridge", neighbor.port));
            }
            check_neighbor(neighbor).map_err(|why| format!("neighbor {why}"))?;
        }
        for route in self.routes.values() {
            let RouteKey { bridge, prefix } = route.key;
            if !self.bridges.contains_key(&bridge) || port_of(route.to).is_some_and(|port| !on(port, bridge)) {
                return Err(format!("route {prefix}: its bridge is not there, or its port not on its bridge"));
            }
            check_route(route).map_err(|why| format!("route {why}"))?;
        }
        for (port, attachment) in &self.attachments {
            if attachment.port != *port || !self.ports.contains_key(port) {
                return Err(format!("attachment of {}: its port {port} is not there", attachment.id.container));
            }
        }
        for acl in self.acls.values() {
            let there = match acl.key.at {
                AclPlace::Bridge(bridge) => self.bridges.contains_key(&bridge),
                AclPlace::Port(port) => self.ports.contains_key(&port),
            };
            if !there || acl.rules.is_empty() {
                return Err(format!("access list {:?}: is empty, or its bridge or port is not there", acl.key));
            }
            for rule in acl.rules.iter() {
                rule.check().map_err(|why| format!("access list {:?}: {why}", acl.key))?;
            }
        }
        Ok(())
    }

    /// How much may pass ports of attachments, on bridges other than that of this name, where the cluster's compiler says it.
    pub(crate) fn shapers(&self, cluster: &str) -> BTreeMap<PortId, Shaper> {
        let limited = self.attachments.values().filter(|attachment| !attachment.bandwidth.is_unlimited());
        let elsewhere = limited.filter(|attachment| {
            self.ports.get(&attachment.port).is_some_and(|port| self.bridge_name(port.bridge) != cluster)
        });
        let shaper = |at: &Attachment| (at.port, Shaper { port: at.port, bandwidth: at.bandwidth });
        elsewhere.map(shaper).collect()
    }

    /// Access lists of a bridge itself, and of none of its ports.
    pub(crate) fn acls_of_bridge(&self, id: BridgeId) -> impl Iterator<Item = &Acl> {
        self.acls.values().filter(move |acl| acl.key.at == AclPlace::Bridge(id))
    }

    /// Access lists of a port.
    pub(crate) fn acls_of_port(&self, id: PortId) -> impl Iterator<Item = &Acl> {
        self.acls.values().filter(move |acl| acl.key.at == AclPlace::Port(id))
    }
}

/// The port that a route names.
pub(crate) fn port_of(hop: Hop) -> Option<PortId> {
    match hop {
        Hop::OnLink { port } | Hop::Via { port, .. } => Some(port),
        Hop::Endpoint | Hop::Unreachable | Hop::Blackhole => None,
    }
}

/// An address that one neighbour can have, and one Ethernet address.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check_neighbor(neighbor: &Neighbor) -> Result<(), String> {
    let (address, mac) = (neighbor.key.address, neighbor.mac);
    check_host(address)?;
    if mac.is_group() || mac.is_zero() {
        return Err(format!("{address}: {mac}: no neighbor can have this address"));
    }
    Ok(())
}

/// A route that makes sense by itself.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check_route(route: &Route) -> Result<(), String> {
    let prefix = route.key.prefix;
    if prefix != prefix.trunc() {
        return Err(format!("{prefix}: has bits beyond its length: {} is the prefix", prefix.trunc()));
    }
    if let Hop::Via { gateway, .. } = route.to {
        check_host(gateway).map_err(|why| format!("{prefix}: via {why}"))?;
        if gateway.is_ipv4() != prefix.addr().is_ipv4() {
            return Err(format!("{prefix}: via {gateway}: not of the same family"));
        }
    }
    Ok(())
}

fn check_host(address: IpAddr) -> Result<(), String> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err(format!("{address}: no neighbor can have this address"));
    }
    Ok(())
}

/// Text of a stranger, fit for a line of an error message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// A name that a bridge and a network interface can have.
///
/// # Errors
/// The rule that it breaks.
pub fn check_name(name: &str) -> Result<(), String> {
    let shown = shown(name);
    if name.is_empty() {
        return Err("a name must not be empty".to_owned());
    }
    if name.len() > NAME_LIMIT {
        return Err(format!("\"{shown}\": a name has at most {NAME_LIMIT} bytes, this has {}", name.len()));
    }
    if name == "." || name == ".." {
        return Err(format!("\"{shown}\": not a name"));
    }
    if let Some(bad) = name.chars().find(|&c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Err(format!("\"{shown}\": a name must not contain {bad:?}"));
    }
    if name.starts_with('-') {
        return Err(format!("\"{shown}\": a name must not begin with '-'"));
    }
    Ok(())
}

/// A VLAN id, from text.
///
/// # Errors
/// The rule that it breaks, in the words of ovs-vsctl.
pub(crate) fn vlan_id(text: &str) -> Result<u16, String> {
    let number: i64 = text.parse().map_err(|_| format!("\"{text}\" is not a valid integer"))?;
    u16::try_from(number)
        .ok()
        .filter(|id| *id <= VLAN_MAX)
        .ok_or_else(|| format!("constraint violation: {text} is not in the valid range 0 to {VLAN_MAX} (inclusive)"))
}

/// The VLANs of a port from its three columns.
///
/// # Errors
/// When they contradict each other.
pub(crate) fn vlan(mode: Option<&str>, tag: Option<u16>, trunks: Vec<u16>) -> Result<Vlan, String> {
    let native = || tag.ok_or_else(|| format!("vlan_mode={} needs a tag", mode.unwrap_or_default()));
    match mode {
        None if tag.is_some() && !trunks.is_empty() => {
            Err("tag and trunks together need vlan_mode=native-tagged or native-untagged".to_owned())
        }
        None | Some("") => Ok(tag.map_or(Vlan::Trunk { trunks }, |tag| Vlan::Access { tag })),
        Some("access") if !trunks.is_empty() => Err("vlan_mode=access does not go with trunks".to_owned()),
        Some("access") => Ok(Vlan::Access { tag: native()? }),
        Some("trunk") if tag.is_some() => Err("vlan_mode=trunk does not go with a tag".to_owned()),
        Some("trunk") => Ok(Vlan::Trunk { trunks }),
        Some("native-tagged") => Ok(Vlan::NativeTagged { tag: native()?, trunks }),
        Some("native-untagged") => Ok(Vlan::NativeUntagged { tag: native()?, trunks }),
        Some(other) => Err(format!(
            "vlan_mode={other}: not one of the allowed values (access, native-tagged, native-untagged, trunk)"
        )),
    }
}

/// What the switch must be told to get from `old` to `new`: what goes goes first, from access lists and stations to
/// bridges; what comes comes last, from bridges to stations and access lists. `cluster`: the name of the cluster's bridge.
pub(crate) fn diff(old: &Config, new: &Config, cluster: &str) -> Transaction {
    let mut changes = Vec::new();
    let shapers = [old, new].map(|config| config.shapers(cluster));
    gone(&shapers[0], &shapers[1], Change::Shaper, &mut changes);
    gone(&old.acls, &new.acls, Change::Acl, &mut changes);
    gone(&old.stations, &new.stations, Change::Station, &mut changes);
    gone(&old.ports, &new.ports, Change::Port, &mut changes);
    gone(&old.bridges, &new.bridges, Change::Bridge, &mut changes);
    come(&old.bridges, &new.bridges, Change::Bridge, &mut changes);
    come(&old.ports, &new.ports, Change::Port, &mut changes);
    come(&old.stations, &new.stations, Change::Station, &mut changes);
    come(&old.acls, &new.acls, Change::Acl, &mut changes);
    come(&shapers[0], &shapers[1], Change::Shaper, &mut changes);
    Transaction { changes }
}

type Nouns<K, T> = BTreeMap<K, T>;

fn gone<K: Ord, T: Clone>(old: &Nouns<K, T>, new: &Nouns<K, T>, kind: fn(Delta<T>) -> Change, out: &mut Vec<Change>) {
    let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
    out.extend(gone.map(|(_, noun)| kind(Delta::remove(noun.clone()))));
}

fn come<K: Ord, T: Clone + PartialEq>(
    old: &Nouns<K, T>,
    new: &Nouns<K, T>,
    kind: fn(Delta<T>) -> Change,
    out: &mut Vec<Change>,
) {
    out.extend(new.iter().filter_map(|(key, noun)| match old.get(key) {
        Some(before) if before == noun => None,
        Some(before) => Some(kind(Delta::replace(before.clone(), noun.clone()))),
        None => Some(kind(Delta::add(noun.clone()))),
    }));
}

/// Chooses numbers: the smallest free one, but none that was in use a moment ago, so that what still carries an old
/// number (a counter being read, a frame in flight) is not taken for its successor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    retired: VecDeque<u16>,
}

impl Numbers {
    /// Numbers remembered as used a moment ago.
    const MEMORY: usize = 64;

    /// A number from 1 to `last` of which `taken` is false, if there is one.
    pub(crate) fn choose(&self, last: u16, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let free = || (1..=last).filter(|&number| !taken(number));
        free().find(|number| !self.retired.contains(number)).or_else(|| free().next())
    }

    pub(crate) fn retire(&mut self, number: u16) {
        if self.retired.len() == Self::MEMORY {
            self.retired.pop_front();
        }
        self.retired.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for (name, why) in [
            ("", "a name must not be empty"),
            ("sixteen-bytes-xx", "\"sixteen-bytes-xx\": a name has at most 15 bytes, this has 16"),
            ("a/b", "\"a/b\": a name must not contain '/'"),
            ("a b", "\"a b\": a name must not contain ' '"),
            ("a\nb", "\"a\\nb\": a name must not contain '\\n'"),
            ("..", "\"..\": not a name"),
            ("-a", "\"-a\": a name must not begin with '-'"),
        ] {
            assert_eq!(check_name(name).unwrap_err(), why);
        }
        for name in ["br0", "fifteen-bytes-x", "eth0.100", "пять"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn vlan_columns_that_contradict_each_other_are_refused() {
        assert_eq!(vlan(None, Some(5), vec![]), Ok(Vlan::Access { tag: 5 }));
        assert_eq!(vlan(None, None, vec![5]), Ok(Vlan::Trunk { trunks: vec![5] }));
        assert_eq!(vlan(Some("native-tagged"), Some(1), vec![2]), Ok(Vlan::NativeTagged { tag: 1, trunks: vec![2] }));
        for (mode, tag, trunks) in [
            (None, Some(1), vec![2]),
            (Some("access"), None, vec![]),
            (Some("access"), Some(1), vec![2]),
            (Some("trunk"), Some(1), vec![]),
            (Some("native-untagged"), None, vec![]),
            (Some("dot1q-tunnel"), Some(1), vec![]),
        ] {
            assert!(vlan(mode, tag, trunks.clone()).is_err(), "{mode:?} {tag:?} {trunks:?}");
        }
    }

    #[test]
    fn a_number_is_not_used_again_at_once() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.choose(3, |n| n == 1), Some(2));
        numbers.retire(2);
        assert_eq!(numbers.choose(3, |n| n == 1), Some(3));
        assert_eq!(numbers.choose(3, |n| n != 2), Some(2), "nothing else is free");
        assert_eq!(numbers.choose(3, |_| true), None);
    }
}
