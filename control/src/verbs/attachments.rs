//! Making and removing attachments: the store does it, and the cluster hears whose addresses its pods have now.

use api::attachment::code;
use api::reply::Text;
use api::{AttachRefusal, AttachReply, Request};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::store::Store;
use crate::{Refusal, Switch};

/// What the plugin is told.
pub(super) fn told(outcome: Result<AttachReply, AttachRefusal>) -> AttachReply {
    outcome.unwrap_or_else(AttachReply::Refused)
}

/// The answer to what makes or removes attachments; `None` if it is something else.
pub(super) fn answer(
    request: &Request,
    (store, cluster): (&mut Store, &mut Cluster),
    switch: &mut dyn Switch,
) -> Option<Result<Value, Refusal>> {
    let removed = match request {
        Request::Attach(attach) => {
            let mut outcome = store.attach(attach, switch);
            // Its policies and services are in force before anybody hears that it is there, or it is not there.
            if outcome.is_ok()
                && let Err(Refusal(what)) = program((store, cluster), switch)
            {
                let undone = store.detach(&attach.id, switch).and_then(|()| program((store, cluster), switch));
                let what =
                    undone.err().map_or_else(|| what.clone(), |e| format!("{what}; and taking it back failed: {e}"));
                outcome = Err(AttachRefusal { code: code::FAILED, what });
            }
            return Some(super::data(&told(outcome)));
        }
        Request::Detach { id } => store.detach(id, switch),
        Request::AttachmentGc { network, valid } => store.collect_attachments(network, valid, switch),
        _ => return None,
    };
    Some(removed.and_then(|()| {
        // What is not in force yet is tried again every second: the attachment is gone all the same.
        let _ = program((store, cluster), switch);
        super::data(&Text::default())
    }))
}

/// Tell the switch what follows for the cluster's pods.
fn program((store, cluster): (&mut Store, &mut Cluster), switch: &mut dyn Switch) -> Result<(), Refusal> {
    cluster.observe(store.addresses_of_pods());
    cluster.program(store, switch)
}
