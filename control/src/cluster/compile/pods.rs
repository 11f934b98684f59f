//! Pods: endpoints where a port is bound to them.

use api::{AddressKey, Endpoint, EndpointKind};

use super::{Compiler, Owner, stable};
use crate::cluster::model::{Named, Pod};

impl Compiler {
    /// Endpoints of a pod: its addresses, behind the port that is bound to it.
    pub(super) fn claim_pod(&mut self, id: &Named) {
        let mut endpoints = Vec::new();
        if let (Some(context), Some(pod)) = (self.active(), self.pods.get(id).filter(|pod| self.lives_here(pod)))
            && let Some(at) = context.pods.get(id)
        {
            let name = format!("pod/{}/{}", id.namespace, id.name);
            // Without a UID the port tells this attachment from the next of a pod of the same name.
            let identity = match pod.uid.is_empty() {
                true => stable::hash(&format!("{}/{}#{}", id.namespace, id.name, at.port)),
                false => stable::hash(&pod.uid),
            };
            endpoints.extend(pod.addresses.iter().map(|&address| {
                let key = AddressKey { bridge: context.bridge, address };
                let (port, mac) = (at.port, at.mac);
                (key, Endpoint { key, port, mac, kind: EndpointKind::Pod, identity, name: name.clone() })
            }));
        }
        self.told.endpoints.set(&Owner::Pod(id.clone()), endpoints);
    }

    /// Whether a pod's addresses are its own and on this node. One that was not given to any node is where its port is.
    fn lives_here(&self, pod: &Pod) -> bool {
        let here = pod.node.as_deref().is_none_or(|node| *node == *self.settings.name);
        here && !pod.host_network && !pod.finished
    }
}
