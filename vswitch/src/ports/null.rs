//! `null`: swallows what it is sent, and never receives. The shortest correct port, to copy from.

use std::sync::Arc;

use pipeline::offload::Offload;
use pipeline::raw::Stash;

use super::{Device, Environment, Opened, PortDef, PortError, Status, Tx, TxBatch};

/// The kind.
pub const PORT: PortDef =
    PortDef { name: "null", help: "swallows what it is sent, and never receives", options: &[], open };

struct Null;

fn open(_port: &api::Port, _environment: &Environment<'_>) -> Result<Opened, PortError> {
    Ok(Opened { queues: Vec::new(), device: Arc::new(Null) })
}

impl Device for Null {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        batch.take(batch.len(), |frame| stash.give(frame));
        Tx::Done
    }

    fn takes(&self, _offload: Offload) -> bool {
        true
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}
