//! The program: every stage's tables, as one transaction left them. Immutable once it is published.

use std::sync::Arc;

use api::{Change, PortId, Transaction};

use crate::drop::DropReason;
use crate::key::KeyMask;
use crate::probe::cells::{Cells, TableName, Touched};
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::walk::Walk;

/// Stages that a walk visits at most.
const STEPS: usize = 64;
/// The question on which every decision for frames of a port depends.
const INGRESS: TableName = TableName("ingress");

/// What the fast path must know of an ingress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The fields that any stage may look at for its frames.
    pub mask: KeyMask,
    /// The bridge that it belongs to.
    pub bridge: api::BridgeId,
}

/// Every stage's tables.
#[derive(Debug)]
pub struct Program {
    order: &'static [&'static StageDef],
    stages: Vec<Box<dyn Stage>>,
    /// By port number; `None` where there is no port. Shared until a port changes.
    ports: Arc<Vec<Option<Ingress>>>,
}

impl Program {
    /// The empty program of `order`.
    pub fn new(order: &'static [&'static StageDef]) -> Self {
        let stages = order.iter().map(|def| (def.build)()).collect();
        Self { order, stages, ports: Arc::new(Vec::new()) }
    }

    /// This program after a transaction. Call it inside [`Cells::change`], and publish what it returns there too.
    #[must_use]
    pub fn apply(&self, transaction: &Transaction, touched: &mut Touched<'_>) -> Self {
        let mut stages: Vec<Box<dyn Stage>> = self.stages.iter().map(|stage| stage.clone_box()).collect();
        stages.iter_mut().for_each(|stage| stage.apply(&transaction.changes, touched));
        let mut next = Self { order: self.order, stages, ports: Arc::clone(&self.ports) };
        for change in &transaction.changes {
            if let Change::Port(delta) = change {
                let id = delta.new.as_ref().or(delta.old.as_ref()).map_or(PortId::NONE, |port| port.id);
                let ingress = delta.new.as_ref().map(|port| Ingress { mask: next.mask(port.id), bridge: port.bridge });
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
        next
    }

    /// The union of what the stages may look at.
    fn mask(&self, port: PortId) -> KeyMask {
        self.stages.iter().fold(KeyMask::EMPTY, |mask, stage| mask.union(&stage.mask(port)))
    }

    /// An ingress port; `None` if there is none of that number.
    #[inline]
    pub fn ingress(&self, port: PortId) -> Option<&Ingress> {
        self.ports.get(port.index())?.as_ref()
    }

    /// Walk the stages until one ends the walk. Pure but for the walk itself.
    pub fn decide(&self, walk: &mut Walk<'_>) -> Next {
        walk.asked.note(INGRESS, walk.key.in_port());
        let mut at = 0;
        for _ in 0..STEPS {
            let Some(stage) = self.stages.get(at) else { return Next::Drop(DropReason::NoPort) };
            match stage.decide(walk) {
                Next::Continue => at += 1,
                Next::Enter(name) => match self.order.iter().position(|def| def.name == name) {
                    Some(place) => at = place,
                    None => return Next::Drop(DropReason::WalkTooLong),
                },
                end @ (Next::Drop(_) | Next::Deliver) => return end,
            }
        }
        Next::Drop(DropReason::WalkTooLong)
    }

    /// The tables of `transactions`, from nothing: what a cold start builds.
    pub fn cold(order: &'static [&'static StageDef], transaction: &Transaction, cells: &Cells) -> Self {
        cells.change(|touched| Self::new(order).apply(transaction, touched))
    }
}
