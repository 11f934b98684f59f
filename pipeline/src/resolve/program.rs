//! The program: every stage's tables, as one transaction left them. Immutable once it is published.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::state::TraceStep;
use api::{BridgeId, Change, Delta, PortId, Router, Transaction};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::live::Now;
use crate::live::connections::View;
use crate::probe::cells::{Cells, TableName, Touched};
use crate::resolve::ahead::Sight;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::topology::Topology;
use crate::resolve::tracking;
use crate::resolve::walk::Walk;

/// Stages that a walk visits at most.
const STEPS: usize = 64;
/// The question on which every decision for frames of a port depends.
const INGRESS: TableName = TableName::new("port");

/// What the fast path must know of an ingress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The fields that any stage may look at for its frames.
    pub mask: KeyMask,
    /// The bridge that it belongs to.
    pub bridge: api::BridgeId,
    /// That bridge has a router.
    pub routed: bool,
    /// Its IP traffic is tracked: it has a router, or an access list that lets connections through.
    pub tracked: bool,
}

/// Every stage's tables.
#[derive(Debug)]
pub struct Program {
    order: &'static [&'static StageDef],
    stages: Vec<Box<dyn Stage>>,
    /// Those that look ahead, by their places in the order.
    looking: Arc<[usize]>,
    topology: Topology,
    /// By port number; `None` where there is no port. Shared until a port changes.
    ports: Arc<Vec<Option<Ingress>>>,
    /// Bridges that have a router.
    routed: Arc<BTreeSet<BridgeId>>,
}

impl Program {
    /// The empty program of `order`.
    pub fn new(order: &'static [&'static StageDef]) -> Self {
        let stages: Vec<_> = order.iter().map(|def| (def.build)()).collect();
        let looking = (0..).zip(&stages).filter(|(_, stage)| stage.looks_ahead()).map(|(at, _)| at).collect();
        Self { order, stages, looking, topology: Topology::default(), ports: Arc::default(), routed: Arc::default() }
    }

    /// This program after a transaction. Call it inside [`Cells::change`], and publish what it returns there too.
    #[must_use]
    pub fn apply(&self, transaction: &Transaction, touched: &mut Touched<'_>) -> Self {
        let mut stages: Vec<Box<dyn Stage>> = self.stages.iter().map(|stage| stage.clone_box()).collect();
        stages.iter_mut().for_each(|stage| stage.apply(&transaction.changes, touched));
        let mut topology = self.topology.clone();
        topology.apply(&transaction.changes, touched);
        let (ports, routed) = (Arc::clone(&self.ports), Arc::clone(&self.routed));
        let looking = Arc::clone(&self.looking);
        let mut next = Self { order: self.order, stages, looking, topology, ports, routed };
        // Routers first: what ports of their bridges look at follows from them, in whatever order they were told.
        for change in &transaction.changes {
            if let Change::Router(delta) = change {
                next.set_router(delta, touched);
            }
        }
        for change in &transaction.changes {
            if let Change::Port(delta) = change {
                let id = delta.new.as_ref().or(delta.old.as_ref()).map_or(PortId::NONE, |port| port.id);
                let ingress = delta.new.as_ref().map(|port| next.ingress_of(port.id, port.bridge));
                let ports = Arc::make_mut(&mut next.ports);
                if ports.len() <= id.index() {
                    ports.resize(id.index() + 1, None);
                }
                if let Some(place) = ports.get_mut(id.index()) {
                    *place = ingress;
                }
                touched.touch(INGRESS, id);
            }
        }
        if transaction.changes.iter().any(|change| matches!(change, Change::Acl(_))) {
            next.look_again(touched);
        }
        next
    }

    /// Access lists have changed: what ports look at follows from those of all ports of their bridge.
    fn look_again(&mut self, touched: &mut Touched<'_>) {
        let anew = |(id, port): (PortId, &Option<Ingress>)| port.map(|port| self.ingress_of(id, port.bridge));
        let ports: Vec<Option<Ingress>> = (0..).map(PortId).zip(self.ports.iter()).map(anew).collect();
        let both = self.ports.iter().zip(&ports);
        for (id, _) in (0..).map(PortId).zip(both).filter(|(_, (old, new))| old != new) {
            touched.touch(INGRESS, id);
        }
        self.ports = Arc::new(ports);
    }

    /// A bridge gets, or loses, its router: its ports look at more, or less.
    fn set_router(&mut self, delta: &Delta<Router>, touched: &mut Touched<'_>) {
        let routed = Arc::make_mut(&mut self.routed);
        let bridge = match (&delta.old, &delta.new) {
            (None, Some(router)) if routed.insert(router.bridge) => router.bridge,
            (Some(router), None) if routed.remove(&router.bridge) => router.bridge,
            _ => return,
        };
        let ports: Vec<Option<Ingress>> = (0..)
            .map(PortId)
            .zip(self.ports.iter())
            .map(|(id, port)| match port {
                Some(port) if port.bridge == bridge => {
                    touched.touch(INGRESS, id);
                    Some(self.ingress_of(id, bridge))
                }
                other => *other,
            })
            .collect();
        self.ports = Arc::new(ports);
    }

    fn ingress_of(&self, port: PortId, bridge: BridgeId) -> Ingress {
        let routed = self.routed.contains(&bridge);
        let tracked = routed || self.topology.is_stateful(bridge);
        let mask =
            self.stages.iter().fold(tracking::mask(tracked), |mask, stage| mask.union(&stage.mask(port, routed)));
        Ingress { mask, bridge, routed, tracked }
    }

    /// The rows of all tables, read out of what packets meet, as the changes that would make them of nothing. In no order.
    /// What is only for people, or for others than packets, is not in the tables, and empty here: where a route comes
    /// from, the name of a port, the draining backends of a service.
    pub fn dump(&self) -> Vec<Change> {
        let mut rows = Vec::new();
        self.topology.dump(&mut rows);
        self.stages.iter().for_each(|stage| stage.dump(&mut rows));
        rows
    }

    /// Every stage would let this connection through if it were new.
    pub fn stands(&self, connection: &View) -> bool {
        let View { original, reply, port, .. } = connection;
        let local = self.topology.local(original.zone);
        self.stages.iter().all(|stage| stage.stands(original, reply, *port, local))
    }

    /// An ingress port; `None` if there is none of that number.
    #[inline]
    pub fn ingress(&self, port: PortId) -> Option<&Ingress> {
        self.ports.get(port.index())?.as_ref()
    }

    /// Routers, endpoints and static neighbours, for [`Walk::new`].
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Ask for the memory that deciding this packet will read.
    pub(super) fn look_ahead(&self, sight: &mut Sight, look: usize, now: Now) {
        for stage in self.looking.iter().filter_map(|at| self.stages.get(*at)) {
            stage.look_ahead(sight, look, now);
        }
    }

    /// Walk the stages until one ends the walk. Pure but for the walk itself.
    pub fn decide(&self, walk: &mut Walk<'_>) -> Next {
        walk.asked.note(INGRESS, walk.key.in_port());
        let mut at = 0;
        for _ in 0..STEPS {
            let (Some(stage), Some(def)) = (self.stages.get(at), self.order.get(at)) else {
                return Next::Drop(DropReason::NoPort);
            };
            walk.asked.first_packet = def.first_packet;
            if let Some(steps) = &mut walk.steps {
                steps.push(TraceStep { stage: def.name.to_owned(), note: String::new() });
            }
            match stage.decide(walk) {
                Next::Continue => at += 1,
                Next::Enter(name) => match self.order.iter().position(|def| def.name == name) {
                    Some(place) => at = place,
                    None => return Next::Drop(DropReason::WalkTooLong),
                },
                end => return end,
            }
        }
        Next::Drop(DropReason::WalkTooLong)
    }

    /// The tables of `transactions`, from nothing: what a cold start builds.
    pub fn cold(order: &'static [&'static StageDef], transaction: &Transaction, cells: &Cells) -> Self {
        cells.change(|touched| Self::new(order).apply(transaction, touched))
    }
}
