//! Attachments that are no pod's: containers that somebody runs beside the cluster (podman, ctr). They have addresses of the
//! node's podCIDRs and reach what pods reach; no policy knows of them. They speak from their own addresses only, as pods do.

use api::{AddressKey, Endpoint, EndpointKind, Guard};

use super::binding::NodeContext;
use super::{Compiler, Owner, stable};
use crate::store::attachments::Attachment;

impl Compiler {
    /// Endpoints and guards of the attachments without a pod, as they are now, given those that there were.
    pub(super) fn claim_attachments(&mut self, before: Option<&NodeContext>) {
        let alone = |context: &NodeContext| -> Vec<Attachment> {
            context.attachments.values().filter(|attachment| attachment.pod.is_none()).cloned().collect()
        };
        let now = self.context.as_ref().map(alone).unwrap_or_default();
        let gone = before.map(alone).unwrap_or_default();
        for attachment in gone.iter().filter(|old| now.iter().all(|new| new.port != old.port)) {
            self.told.endpoints.set(&Owner::Attachment(attachment.port), []);
            self.told.guards.set(&attachment.port, []);
        }
        for attachment in &now {
            self.claim_attachment(attachment);
        }
    }

    fn claim_attachment(&mut self, attachment: &Attachment) {
        let Some(context) = &self.context else { return };
        let port = attachment.port;
        let Some(&mac) = context.macs.get(&port) else { return };
        let (bridge, local) = (context.bridge, context.local.map(|local| local.port));
        let name = name(attachment);
        let identity = stable::hash(&format!("{name}#{port}"));
        let addresses: Vec<_> = attachment.interface.addresses.iter().map(|assigned| assigned.address.addr()).collect();
        let routed = self.active().is_some();
        let endpoints = addresses.iter().filter(|_| routed).map(|&address| {
            let key = AddressKey { bridge, address };
            (key, Endpoint { key, port, mac, kind: EndpointKind::Pod, identity, name: name.clone() })
        });
        let endpoints: Vec<(AddressKey, Endpoint)> = endpoints.collect();
        // A container without an address of ours has what its own DHCP client, or its user, gives it.
        let guard = (!addresses.is_empty()).then(|| Guard {
            port,
            bridge,
            name: name.as_str().into(),
            mac,
            addresses: addresses.into(),
            spoof: true,
            groups: true,
            local,
            isolated: None,
        });
        self.told.endpoints.set(&Owner::Attachment(port), endpoints);
        self.told.guards.set(&port, guard.map(|guard| (guard.port, guard)));
    }
}

/// `container/ID/IFNAME`, as people see it.
fn name(attachment: &Attachment) -> String {
    format!("container/{}/{}", attachment.id.container, attachment.id.ifname)
}
