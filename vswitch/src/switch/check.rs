//! What a transaction names must be there: checked before anything is done, so that stages need not doubt it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use api::{BridgeId, Change, Delta, Hop, Port, PortId, Transaction};
use control::Refusal;

use super::Switch;
use crate::ports::{packet, stack};

/// Bridges and ports as they are after the changes so far.
struct Known<'a> {
    switch: &'a Switch,
    bridges: BTreeSet<BridgeId>,
    /// Interfaces that are ports, and the numbers of those.
    interfaces: BTreeMap<String, PortId>,
    /// Ports that the transaction adds.
    added: BTreeSet<PortId>,
    /// Ports that it removes.
    removed: BTreeSet<PortId>,
}

impl Switch {
    /// Check what the stages would otherwise have to trust.
    pub(super) fn check(&self, transaction: &Transaction) -> Result<(), Refusal> {
        let mut known = Known {
            switch: self,
            bridges: self.bridges.keys().copied().collect(),
            interfaces: self.ports.values().filter_map(|port| Some((attached(&port.spec)?, port.spec.id))).collect(),
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        transaction.changes.iter().try_for_each(|change| known.take(change))
    }
}

impl Known<'_> {
    /// Check one change, and take it over.
    fn take(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Bridge(Delta { new: Some(bridge), .. }) => _ = self.bridges.insert(bridge.id),
            Change::Bridge(Delta { old: Some(bridge), new: None }) => _ = self.bridges.remove(&bridge.id),
            Change::Port(Delta { new: Some(port), .. }) => {
                self.bridge(&port.name, port.bridge)?;
                of_the_switch(port)?;
                self.attach(port)?;
                self.removed.remove(&port.id);
                self.added.insert(port.id);
            }
            Change::Port(Delta { old: Some(port), new: None }) => {
                self.added.remove(&port.id);
                self.interfaces.retain(|_, id| *id != port.id);
                self.removed.insert(port.id);
            }
            Change::Router(Delta { new: Some(router), .. }) => {
                let name = "router";
                self.bridge(&name, router.bridge)?;
                if router.mac.is_group() || router.mac.is_zero() {
                    return Err(Refusal(format!("{name}: mac {}: not the address of one station", router.mac)));
                }
                [router.uplink, router.local].into_iter().flatten().try_for_each(|port| self.port(&name, port))?;
            }
            Change::Endpoint(Delta { new: Some(endpoint), .. }) => {
                self.bridge(&endpoint.name, endpoint.key.bridge)?;
                self.port(&endpoint.name, endpoint.port)?;
            }
            Change::Neighbor(Delta { new: Some(neighbor), .. }) => {
                self.bridge(&neighbor.key.address, neighbor.key.bridge)?;
                self.port(&neighbor.key.address, neighbor.port)?;
            }
            Change::Route(Delta { new: Some(route), .. }) => {
                self.bridge(&route.key.prefix, route.key.bridge)?;
                if let Hop::OnLink { port } | Hop::Via { port, .. } = route.to {
                    self.port(&route.key.prefix, port)?;
                }
            }
            Change::Shaper(Delta { new: Some(shaper), .. }) => {
                self.port(&"bandwidth", shaper.port)?;
                let rates = [("ingress", shaper.bandwidth.ingress), ("egress", shaper.bandwidth.egress)];
                if let Some((way, _)) = rates.iter().find(|(_, rate)| rate.is_some_and(|rate| rate.bits == 0)) {
                    return Err(Refusal(format!(
                        "bandwidth: {way} of 0 bit/s: nothing would pass port {}",
                        shaper.port
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An interface is one port at most: two would both get every frame.
    fn attach(&mut self, port: &Port) -> Result<(), Refusal> {
        let Some(name) = attached(port) else { return Ok(()) };
        match self.interfaces.insert(name.clone(), port.id).filter(|id| *id != port.id) {
            Some(id) => Err(Refusal(format!("{}: options:ifname={name:?}: is port number {id} already", port.name))),
            None => Ok(()),
        }
    }

    fn bridge(&self, what: &dyn Display, bridge: BridgeId) -> Result<(), Refusal> {
        if self.bridges.contains(&bridge) {
            return Ok(());
        }
        Err(Refusal(format!("{what}: no bridge numbered {bridge}")))
    }

    fn port(&self, what: &dyn Display, port: PortId) -> Result<(), Refusal> {
        let there = self.switch.ports.contains_key(&port) && !self.removed.contains(&port);
        if there || self.added.contains(&port) {
            return Ok(());
        }
        Err(Refusal(format!("{what}: no port numbered {port}")))
    }
}

/// The existing interface that a port is.
fn attached(port: &Port) -> Option<String> {
    (port.kind == packet::PORT.name).then(|| packet::interface(port).to_owned())
}

/// The number and the kind of the switch's own port go together, and are nobody else's.
fn of_the_switch(port: &Port) -> Result<(), Refusal> {
    let (number, kind) = (port.id == PortId::STACK, port.kind == stack::PORT.name);
    match (number, kind) {
        (true, false) => Err(Refusal(format!("{}: port number {} is the switch's own", port.name, port.id))),
        (false, true) => {
            Err(Refusal(format!("{}: type={}: the switch makes its one such port itself", port.name, port.kind)))
        }
        _ => Ok(()),
    }
}
