//! Pods: endpoints where a port is bound to them.

use api::{AddressKey, Endpoint, EndpointKind};

use super::binding::Attached;
use super::policies::identity;
use super::{Compiler, Owner};
use crate::cluster::model::{Named, Pod};

impl Compiler {
    /// Endpoints of a pod: its addresses, behind the port that is bound to it.
    pub(super) fn claim_pod(&mut self, id: &Named) {
        let mut endpoints = Vec::new();
        if let (Some(context), Some(pod), Some(at)) = (self.active(), self.pods.get(id), self.attached(id)) {
            let name = format!("pod/{}/{}", id.namespace, id.name);
            let identity = identity(pod, Some(at));
            endpoints.extend(pod.addresses.iter().map(|&address| {
                let key = AddressKey { bridge: context.bridge, address };
                let (port, mac) = (at.port, at.mac);
                (key, Endpoint { key, port, mac, kind: EndpointKind::Pod, identity, name: name.clone() })
            }));
        }
        self.told.endpoints.set(&Owner::Pod(id.clone()), endpoints);
        self.claim_shaper(id);
    }

    /// Where a pod is attached, if it lives here.
    pub(super) fn attached(&self, id: &Named) -> Option<Attached> {
        self.pods.get(id).filter(|pod| self.lives_here(pod))?;
        self.active()?.pods.get(id).copied()
    }

    /// Whether a pod's addresses are its own and on this node. One that was not given to any node is where its port is.
    fn lives_here(&self, pod: &Pod) -> bool {
        let here = pod.node.as_deref().is_none_or(|node| *node == *self.settings.name);
        here && !pod.host_network && !pod.finished
    }
}
