//! service: virtual address → backend.
//!
//! Only first packets come here; the connection that they make carries the choice to all that follow. A service address
//! is nobody's: it is translated, answered for, or refused, and never routed on.
//!
//! | sent to | outcome |
//! |---|---|
//! | a service's address and port, with backends | one of them, on to `route` |
//! | the same, without backends | TCP reset, ICMP port unreachable: `no-backend` |
//! | a service's address, no such port | the same: `no-service-port` |
//! | a service's address, ICMP echo request | the switch's own stack, which answers |
//! | a service's address, an answer to nothing that is known | dropped: `invalid` |
//! | a service's address, anything else | dropped: `no-service-port` |
//! | an address of a service range that no service has | dropped: `unknown-service` |
//!
//! Worked example: 10.0.0.1:4000 → 10.96.0.1:80 leaves here as 10.0.0.1:4000 → 10.0.0.2:8080. The way back is not told
//! here: `connection` finds it, once `commit` has made it known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::RandomState;
use api::{Change, Choice, Delta, PortId, Proto, Service, ServiceKey, ServiceRange};
use ipnet::IpNet;

use crate::burst::VlanEdit;
use crate::drop::DropReason;
use crate::key::{KeyMask, VLAN_TAGGED};
use crate::live::connections::Tuple;
use crate::probe::cells::{TableName, Touched};
use crate::resolve::stage::{IcmpError, Next, Reply, Stage, StageDef};
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Chosen, Copy, Walk};
use crate::tables::{Exact, Maglev, maglev};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "service",
    help: "virtual address → backend",
    first_packet: true,
    build: || Box::new(Services::new()),
};

/// The one question that is asked of the ranges: they are few, and hardly ever change.
const RANGES: TableName = TableName::new("service range");

/// One port of a service at one of its addresses.
#[derive(Clone, Debug)]
struct Row {
    name: Arc<str>,
    backends: Arc<[SocketAddr]>,
    /// For services that ask for it.
    maglev: Option<Maglev>,
}

impl Row {
    fn new(service: &Service) -> Self {
        let maglev = (service.choice == Choice::Maglev).then(|| Maglev::new(&service.backends));
        Self { name: Arc::clone(&service.name), backends: Arc::clone(&service.backends), maglev }
    }
}

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

    /// The backend of a new connection.
    fn choose(&self, row: &Row, tuple: &Tuple, walk: &Walk<'_>) -> Option<SocketAddr> {
        let number = match &row.maglev {
            Some(table) => table.choose(maglev::hash(tuple))?,
            // A client that comes again from the same port is to be at liberty to meet another backend: the time has its part.
            None => {
                let hash = self.hasher.hash_one((tuple, walk.now.0));
                // The product maps the high half of the hash evenly onto the backends.
                ((hash >> 32) * row.backends.len() as u64 >> 32) as usize
            }
        };
        row.backends.get(number).copied()
    }

    /// A first packet to a service.
    fn serve(&self, walk: &mut Walk<'_>, row: &Row, tuple: &Tuple) -> Next {
        if !tracking::opens(walk) {
            return Next::Drop(DropReason::Invalid);
        }
        let Some(backend) = self.choose(row, tuple, walk) else {
            walk.say(|| format!("{} has no backend", row.name));
            return refuse(tuple, DropReason::NoBackend);
        };
        walk.say(|| format!("{} at {backend}", row.name));
        walk.key.set_destination(backend.ip());
        walk.key.set_tp_dst(backend.port());
        walk.service = Some(Chosen { name: Arc::clone(&row.name), backend: backend.ip() });
        Next::Enter("route")
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
        walk.say(|| format!("{destination} is a service's, but not this"));
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

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.routed || walk.connection.is_some() {
            return Next::Continue;
        }
        let carried = Carried::of(&walk.key, walk.bridge);
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
