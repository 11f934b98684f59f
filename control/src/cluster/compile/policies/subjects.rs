//! Pods as policies see them.

use api::{AddressKey, Subject};

use super::super::binding::Attached;
use super::super::{Compiler, stable};
use crate::cluster::model::{Named, Pod};

/// A pod as a claimant of its addresses. Of two with one address the one that is attached here has it, as it has the
/// endpoint: packets there are its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Holder {
    elsewhere: bool,
    id: Named,
}

impl Compiler {
    /// What follows from policies, of all pods and policies that changed.
    pub(in super::super) fn claim_policies(&mut self) {
        let settled = self.policies.settle();
        for (id, ruleset) in settled.rulesets {
            self.told.rulesets.set(&id, ruleset.map(|ruleset| (id, ruleset)));
        }
        for id in &settled.pods {
            self.claim_subjects(id);
            self.claim_guards(id);
        }
    }

    /// A pod at each of its addresses.
    fn claim_subjects(&mut self, id: &Named) {
        let (mut nouns, at) = (Vec::new(), self.attached(id));
        if let (Some(context), Some(member)) = (self.active(), self.policies.pods().get(id)) {
            let identity = identity(&member.pod, at);
            nouns.extend(member.pod.addresses.iter().map(|&address| {
                let key = AddressKey { bridge: context.bridge, address };
                let subject = Subject {
                    key,
                    name: member.name.clone(),
                    identity,
                    port: at.map(|at| at.port),
                    groups: member.groups.clone(),
                    ports: member.ports.clone(),
                    ingress: member.ingress,
                    egress: member.egress,
                };
                (key, subject)
            }));
        }
        let here = Holder { elsewhere: at.is_none(), id: id.clone() };
        let other = Holder { elsewhere: at.is_some(), id: id.clone() };
        self.told.subjects.set(&other, []);
        self.told.subjects.set(&here, nouns);
    }
}

/// Tells a pod from the next of its name, wherever it is attached.
pub(in super::super) fn identity(pod: &Pod, at: Option<Attached>) -> u64 {
    let Named { namespace, name } = &pod.id;
    match at {
        _ if !pod.uid.is_empty() => stable::hash(&pod.uid),
        // Without a UID the port tells this attachment from the next.
        Some(at) => stable::hash(&format!("{namespace}/{name}#{}", at.port)),
        None => stable::hash(&format!("{namespace}/{name}")),
    }
}
