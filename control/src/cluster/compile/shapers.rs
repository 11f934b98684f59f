//! How much may pass the port of a pod: as its attachment was asked for, else as the Pod object's annotations say.

use std::collections::BTreeSet;

use api::{PortId, Shaper};

use super::Compiler;
use crate::cluster::model::Named;

/// Who limits a port. What was asked for when it was attached comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limiter {
    Attachment(PortId),
    Pod(Named),
}

impl Compiler {
    /// What a Pod object says of its port.
    pub(super) fn claim_shaper(&mut self, id: &Named) {
        let bandwidth = self.pods.get(id).map(|pod| pod.bandwidth).filter(|bandwidth| !bandwidth.is_unlimited());
        let at = bandwidth.and_then(|_| self.attached(id));
        let shaper = bandwidth.zip(at).map(|(bandwidth, at)| (at.port, Shaper { port: at.port, bandwidth }));
        self.told.shapers.set(&Limiter::Pod(id.clone()), shaper);
    }

    /// What attachments say of their ports, those that were there `before` included.
    pub(super) fn claim_attached_shapers(&mut self, before: impl Iterator<Item = PortId>) {
        let attachments = self.context.iter().flat_map(|context| &context.attachments);
        let ports: BTreeSet<PortId> = attachments.map(|(port, _)| *port).chain(before).collect();
        for port in ports {
            let attachment = self.context.as_ref().and_then(|context| context.attachments.get(&port));
            let bandwidth = attachment.map(|attachment| attachment.bandwidth).filter(|asked| !asked.is_unlimited());
            let shaper = bandwidth.map(|bandwidth| (port, Shaper { port, bandwidth }));
            self.told.shapers.set(&Limiter::Attachment(port), shaper);
        }
    }
}
