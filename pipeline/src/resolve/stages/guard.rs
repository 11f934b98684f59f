//! guard: is the pod that this port is bound to the one who speaks?
//!
//! Policies know pods by their addresses, so a pod that could take another's would take its rights. A guarded port sends
//! from its pod's Ethernet address and addresses only:
//!
//! | frame | passes if |
//! |---|---|
//! | any | its Ethernet source is the pod's |
//! | ARP | it says the same of the sender, whose address is the pod's (or none, in a probe) |
//! | ND | the target of an advertisement is the pod's or link-local, a link-layer address the pod's |
//! | IPv4, IPv6 | its source is the pod's; ND and MLD also from link-local and from none |
//! | anything else | never: it has no address that could be asked for |
//!
//! A pod whose policies are not known yet speaks to the node and to nobody else; what it hears, `screen` sees to.
//!
//! Worked example: port 3 is bound to `pod/shop/web-0`, 10.1.0.5 at 02:00:00:00:01:03. A frame from 10.1.0.6 is dropped as
//! `spoofed`, and so is an ARP reply that says that 10.1.0.6 is here. With `external_ids:spoof-guard=off` the port of a pod
//! that routes for others passes them.

use std::net::IpAddr;
use std::sync::Arc;

use api::{AddressKey, Change, EndpointKind, Guard, PortId};

use crate::burst::Kind;
use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::probe::cells::Touched;
use crate::reply::arp::Arp;
use crate::reply::nd::Message;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::tracking;
use crate::resolve::walk::Walk;
use crate::tables::Exact;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "guard",
    help: "is the pod that the port is bound to the one who speaks?",
    first_packet: false,
    build: || Box::new(Guarding { guards: Guards::default() }),
};

/// Guards by port. A port is one question to validity, whoever asks what of it: see [`crate::tables`].
#[derive(Clone, Debug)]
pub(super) struct Guards(Exact<PortId, Arc<Guard>>);

impl Default for Guards {
    fn default() -> Self {
        Self(Exact::new("port"))
    }
}

impl Guards {
    /// The guard of a port.
    pub(super) fn get(&self, port: PortId, walk: &mut Walk<'_>) -> Option<&Guard> {
        self.0.get(port, &mut walk.asked).map(AsRef::as_ref)
    }

    pub(super) fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            if let Change::Guard(delta) = change
                && let Some(port) = delta.new.as_ref().or(delta.old.as_ref()).map(|guard| guard.port)
            {
                self.0.set(port, delta.new.clone().map(Arc::new), touched);
            }
        }
    }

    fn dump(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(_, guard)| Change::Guard(api::Delta::add(Guard::clone(guard))))
    }
}

#[derive(Clone, Debug)]
struct Guarding {
    guards: Guards,
}

/// Neighbour discovery and multicast listener discovery (RFC 4861, RFC 2710, RFC 3810): they concern a link, and are
/// spoken from link-local addresses, or from none.
pub(super) fn is_of_the_link(walk: &Walk<'_>) -> bool {
    walk.layers.kind == Kind::Ipv6 && matches!(walk.key.icmp_type(), Some(130..=137 | 143))
}

/// An advertisement or a solicitation (RFC 4861, 4.3, 4.4).
fn is_discovery(walk: &Walk<'_>) -> bool {
    walk.layers.kind == Kind::Ipv6 && matches!(walk.key.icmp_type(), Some(135 | 136))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What a pod says of itself is true.
fn is_honest(guard: &Guard, walk: &mut Walk<'_>) -> bool {
    if walk.key.eth_src() != guard.mac {
        return false;
    }
    let own = |address: IpAddr| guard.addresses.contains(&address);
    match walk.layers.kind {
        Kind::Arp => Arp::read(walk.frame(), &walk.layers)
            .is_ok_and(|arp| arp.sender_mac == guard.mac && (arp.sender.is_unspecified() || own(arp.sender.into()))),
        Kind::Ipv4 | Kind::Ipv6 => {
            let Some(source) = walk.key.source() else { return false };
            let of_the_link = is_of_the_link(walk);
            let may = own(source) || of_the_link && (source.is_unspecified() || is_link_local(source));
            may && (!is_discovery(walk)
                || Message::read(walk.frame(), &walk.layers).is_ok_and(|message| {
                    let target = message.target.into();
                    message.address.is_none_or(|mac| mac == guard.mac)
                        && (message.asks || own(target) || is_link_local(target))
                }))
        }
        Kind::Other => false,
    }
}

/// The frame is for the node, or for the switch itself.
pub(super) fn is_to_the_node(walk: &mut Walk<'_>) -> bool {
    let Some(address) = walk.key.destination() else { return false };
    let key = AddressKey { bridge: walk.bridge, address };
    let endpoint = walk.topology.endpoint(key, &mut walk.asked);
    endpoint.is_some_and(|endpoint| matches!(endpoint.kind, Some(EndpointKind::Node | EndpointKind::Gateway)))
}

impl Stage for Guarding {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        self.guards.apply(changes, touched);
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        rows.extend(self.guards.dump());
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let Some(guard) = self.guards.get(walk.key.in_port(), walk) else { return Next::Continue };
        // Without a router there are no keys that tell addresses, nor policies that go by them; and nobody but the node, as
        // `screen` sees to, since pods of a bridge without one are isolated.
        if !walk.routed {
            return Next::Continue;
        }
        if let Some(why) = &guard.isolated {
            let of_the_link = walk.layers.kind == Kind::Arp || is_of_the_link(walk);
            if !of_the_link && !is_to_the_node(walk) {
                walk.say(|| format!("{} is isolated: {why}", guard.name));
                return Next::Drop(DropReason::Isolated);
            }
        }
        if guard.spoof && !is_honest(guard, walk) {
            walk.say(|| format!("does not speak as {}", guard.name));
            return Next::Drop(DropReason::Spoofed);
        }
        Next::Continue
    }
}

#[cfg(test)]
mod tests;
