//! service: virtual address → backend.
//!
//! Only first packets come here; the connection that they make carries the choice to all that follow. A service address
//! that is nobody's is translated, answered for, or refused, and never routed on. One that is somebody's, as the node's own
//! is where it has node ports, is a service's at those ports only, and theirs at all others.
//!
//! | sent to | outcome |
//! |---|---|
//! | a service's address and port, from an address that the service does not let in | dropped: `source-range` |
//! | the same from one that it does, with backends for who speaks | one of them, on to `route` |
//! | the same, with backends for others only, or elsewhere only | dropped: `no-local-endpoint` |
//! | the same, without backends anywhere | TCP reset, ICMP port unreachable: `no-backend` |
//! | a service's address and port, an answer to nothing that is known | dropped: `invalid` |
//! | an endpoint's address, no port of a service | on as it is |
//! | a service's address, no such port | TCP reset, ICMP port unreachable: `no-service-port` |
//! | a service's address, ICMP echo request | the switch's own stack, which answers |
//! | a service's address, an answer to nothing that is known | dropped: `invalid` |
//! | a service's address, anything else | dropped: `no-service-port` |
//! | an address of a service range that no service has | dropped: `unknown-service` |
//!
//! Which backends, and as whom they see the client ([`super::masquerade`]), is a matter of the address and of who speaks:
//!
//! | address | who speaks | backends |
//! |---|---|---|
//! | cluster | anybody | those that the service's internal traffic policy leaves |
//! | external, policy Cluster | anybody | all |
//! | external, policy Local | a pod of this node, the node itself | all: as if they went out, and came in where there is one |
//! | external, policy Local | anybody else | those of this node |
//!
//! Of these a client of a service with session affinity meets the one that it met last, as long as it is one of them; this wins
//! over any other way to choose. What it met is looked up here, and written down where the connection is made: a walk that
//! makes none, of a trace for one, changes nothing. No remembered decision rests on it, see [`crate::live::affinity`].
//!
//! Worked example: 10.0.0.1:4000 → 10.96.0.1:80 leaves here as 10.0.0.1:4000 → 10.0.0.2:8080. The way back is not told
//! here: `connection` finds it, once `commit` has made it known.

mod row;

use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use api::{AddressKey, Change, Delta, PortId, Proto, Service, ServiceKey, ServiceRange};
use ipnet::IpNet;

use crate::burst::VlanEdit;
use crate::drop::DropReason;
use crate::key::{KeyMask, VLAN_TAGGED};
use crate::live::Now;
use crate::live::affinity::Visit;
use crate::live::connections::Tuple;
use crate::probe::cells::{TableName, Touched};
use crate::raw::prefetch;
use crate::resolve::ahead::Sight;
use crate::resolve::stage::{IcmpError, Next, Reply, Stage, StageDef};
use crate::resolve::topology::Speaker;
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Chosen, Copy, Walk};
use crate::tables::Exact;

use row::{Row, Set};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "service",
    help: "virtual address → backend",
    first_packet: true,
    build: || Box::new(Services::new()),
};

/// The one question that is asked of the ranges: they are few, and hardly ever change.
const RANGES: TableName = TableName::new("service range");

#[derive(Clone, Debug)]
struct Services {
    services: Exact<ServiceKey, Arc<Row>>,
    /// How many rows of `services` each address has.
    addresses: Exact<IpAddr, u32>,
    ranges: Arc<Vec<IpNet>>,
    /// Random choice rests on a hash that nobody outside can foresee.
    hasher: RandomState,
}

impl Services {
    fn new() -> Self {
        Self {
            services: Exact::volatile("service"),
            addresses: Exact::volatile("service address"),
            ranges: Arc::default(),
            hasher: RandomState::new(),
        }
    }

    fn set(&mut self, delta: &Delta<Service>, touched: &mut Touched<'_>) {
        let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|service| service.key) else { return };
        let (had, has) = (self.services.peek(&key).is_some(), delta.new.is_some());
        self.services.set(key, delta.new.as_ref().map(|service| Arc::new(Row::new(service))), touched);
        if had != has {
            let rows = self.addresses.peek(&key.address).copied().unwrap_or(0);
            let rows = if has { rows + 1 } else { rows.saturating_sub(1) };
            self.addresses.set(key.address, (rows != 0).then_some(rows), touched);
        }
    }

    fn set_range(&mut self, delta: &Delta<ServiceRange>, touched: &mut Touched<'_>) {
        let ranges = Arc::make_mut(&mut self.ranges);
        if let Some(range) = delta.old.as_ref().or(delta.new.as_ref()) {
            ranges.retain(|prefix| *prefix != range.prefix);
        }
        ranges.extend(delta.new.as_ref().map(|range| range.prefix));
        touched.touch(RANGES, ());
    }

    /// Who sends what is walked for.
    fn speaker(&self, walk: &mut Walk<'_>, source: IpAddr) -> Speaker {
        walk.router.map_or(Speaker::Beyond, |router| walk.topology.speaker(router, source, &mut walk.asked))
    }

    /// A first packet to a service.
    fn serve(&self, walk: &mut Walk<'_>, row: &Row, tuple: &Tuple) -> Next {
        if !tracking::opens(walk) {
            return Next::Drop(DropReason::Invalid);
        }
        if !row.admits(tuple.src) {
            walk.say(|| format!("service {}, which has {} in none of its source ranges", row.name, tuple.src));
            return Next::Drop(DropReason::SourceRange);
        }
        let set = row.set(|| self.speaker(walk, tuple.src));
        let visit = row.affinity.map(|lasts| {
            let client = row.client(tuple);
            Visit { client, lasts, met: walk.live.affinity.find(&client, lasts, walk.now) }
        });
        let met = visit.and_then(|visit| visit.met).filter(|backend| set.has(backend));
        let Some(backend) = met.or_else(|| set.choose(tuple, walk.now, &self.hasher).copied()) else {
            return nobody(walk, row, set, tuple);
        };
        let again = if met.is_some() { ", which the client met before" } else { "" };
        walk.say(|| format!("service {}, backend {backend}{}{again}", row.name, set.whose));
        walk.key.set_destination(backend.ip());
        walk.key.set_tp_dst(backend.port());
        walk.service = Some(Chosen { backend, reached: row.reached(), visit });
        Next::Continue
    }

    /// A packet that is not to the port of any service: it may still be to the address of one.
    fn others(&self, walk: &mut Walk<'_>, destination: IpAddr, carried: &Carried) -> Next {
        if self.addresses.get(destination, &mut walk.asked).is_none() {
            walk.asked.note(RANGES, ());
            if self.ranges.iter().any(|range| range.contains(&destination)) {
                return Next::Drop(DropReason::UnknownService);
            }
            return Next::Continue;
        }
        let key = AddressKey { bridge: walk.bridge, address: destination };
        if walk.topology.endpoint(key, &mut walk.asked).is_some() {
            return Next::Continue;
        }
        walk.say(|| format!("{destination} is a service's address, but this is not for any port of it"));
        match carried {
            Carried::Flow(_) if !tracking::opens(walk) => Next::Drop(DropReason::Invalid),
            Carried::Flow(tuple) if Proto::of(tuple.proto).is_some() => refuse(tuple, DropReason::NoServicePort),
            Carried::Flow(_) if walk.key.icmp_id().is_some() => {
                let vlan = if walk.key.vlan() & VLAN_TAGGED == 0 { VlanEdit::Keep } else { VlanEdit::Pop };
                walk.outputs.push(Copy { port: PortId::STACK, vlan, mtu: u16::MAX });
                Next::Enter("deliver")
            }
            Carried::Error => Next::Drop(DropReason::Invalid),
            Carried::Flow(_) | Carried::Stray | Carried::Nothing => Next::Drop(DropReason::NoServicePort),
        }
    }
}

/// There is no backend for a first packet.
fn nobody(walk: &mut Walk<'_>, row: &Row, set: &Set, tuple: &Tuple) -> Next {
    if row.is_served() {
        walk.say(|| format!("service {} has no backend{}, and some elsewhere", row.name, set.whose));
        return Next::Drop(DropReason::NoLocalEndpoint);
    }
    walk.say(|| format!("service {} has no backend", row.name));
    refuse(tuple, DropReason::NoBackend)
}

/// Tell the sender that nobody is there, as the host of the address would.
fn refuse(tuple: &Tuple, reason: DropReason) -> Next {
    Next::Reply(match Proto::of(tuple.proto) {
        Some(Proto::Tcp) => Reply::Reset(reason),
        _ => Reply::Error(IcmpError::PortUnreachable, tuple.dst, reason),
    })
}

impl Stage for Services {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            match change {
                Change::Service(delta) => self.set(delta, touched),
                Change::ServiceRange(delta) => self.set_range(delta, touched),
                _ => {}
            }
        }
    }

    fn dump(&self, rows: &mut Vec<Change>) {
        rows.extend(self.services.iter().map(|(key, row)| Change::Service(Delta::add(row.noun(*key)))));
        let range = |prefix: &IpNet| ServiceRange { prefix: *prefix, origin: String::new() };
        rows.extend(self.ranges.iter().map(|prefix| Change::ServiceRange(Delta::add(range(prefix)))));
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn looks_ahead(&self) -> bool {
        true
    }

    fn look_ahead(&self, sight: &mut Sight, look: usize, now: Now) {
        let tuple = &sight.tuple;
        let Some(proto) = Proto::of(tuple.proto) else { return };
        let key = ServiceKey { address: tuple.dst, proto, port: tuple.dport };
        if look == 0 {
            sight.hash = self.services.hash(&key);
            self.services.prefetch(sight.hash);
            return;
        }
        let Some(row) = self.services.peek_hashed(sight.hash, &key) else { return };
        if look == 1 {
            row.prefetch();
            return;
        }
        let everybody = row.everybody();
        if look == 2 {
            sight.choice = everybody.number(tuple, now, &self.hasher);
        }
        if let Some(backend) = sight.choice.and_then(|number| everybody.backend(number)) {
            match look {
                2 => prefetch(backend),
                _ => sight.to = *backend,
            }
        }
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.routed || walk.connection.is_some() {
            return Next::Continue;
        }
        // `connection` has read it already, and has not changed what is no connection's.
        let carried = walk.tuple.map_or_else(|| Carried::of(&walk.key, walk.bridge), Carried::Flow);
        let (Some(destination), false) = (walk.key.destination(), carried == Carried::Nothing) else {
            return Next::Continue;
        };
        if let Carried::Flow(tuple) = &carried
            && let Some(proto) = Proto::of(tuple.proto)
        {
            let key = ServiceKey { address: destination, proto, port: tuple.dport };
            if let Some(row) = self.services.get(key, &mut walk.asked) {
                return self.serve(walk, row, tuple);
            }
        }
        self.others(walk, destination, &carried)
    }
}

#[cfg(test)]
mod tests;
