//! Guards: who may speak from a port that is bound to a pod.
//!
//! They are there as long as the port is, be there a cluster or not: a pod whose policies are not known yet is isolated,
//! never open.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::{AddressKey, Change, Guard, Port, PortId};

use super::super::binding::{Bound, NodeContext, is_spoof_guarded, pod_of};
use super::super::{Compiler, Owner};
use crate::cluster::model::Named;

impl Compiler {
    /// A port comes that is on the cluster bridge: if it is a pod's, nobody may speak from it before
    /// [`Compiler::rebind`] says who is there.
    pub(crate) fn attach(&mut self, port: &Port) -> Option<Change> {
        let pod = pod_of(&port.external_ids)?;
        let guard = Guard {
            port: port.id,
            bridge: port.bridge,
            name: name(&pod),
            mac: port.mac.unwrap_or_default(),
            addresses: [].into(),
            spoof: is_spoof_guarded(&port.external_ids),
            groups: true,
            local: None,
            isolated: Some("is being attached".into()),
        };
        self.told.guards.tell_early(port.id, guard).map(Change::Guard)
    }

    /// Guards of the ports that are bound to a pod.
    pub(in super::super) fn claim_guards(&mut self, id: &Named) {
        let Some(context) = &self.context else { return };
        let Some(bound) = context.bound.get(id) else { return };
        let local = context.local.map(|local| local.port);
        let guards: Vec<Guard> = bound.iter().map(|at| self.guard(id, at, context, local)).collect();
        for guard in guards {
            let port = guard.port;
            self.told.guards.set(&port, [(port, guard)]);
        }
    }

    /// Guards again of the pods whose addresses others wanted, or want no more.
    pub(in super::super) fn claim_contested_guards(&mut self) {
        let Some(context) = &self.context else { return };
        let endpoints = &self.told.endpoints;
        let claimants = endpoints.touched().iter().flat_map(|key| endpoints.claimants(key));
        let pods = claimants.filter_map(|owner| match owner {
            Owner::Pod(id) if context.bound.contains_key(id) => Some(id.clone()),
            _ => None,
        });
        let pods: BTreeSet<Named> = pods.collect();
        pods.iter().for_each(|id| self.claim_guards(id));
    }

    /// Look again at the pods whose ports are others than before.
    pub(in super::super) fn touch_bound(&mut self, before: Option<&NodeContext>) {
        let now = self.context.as_ref();
        let elsewhere = |of: fn(&NodeContext) -> Option<PortId>| before.and_then(of) != now.and_then(of);
        let local = elsewhere(|context| context.local.map(|local| local.port));
        let all = [before, now].into_iter().flatten().flat_map(|context| context.bound.keys());
        let bound = |context: Option<&NodeContext>, id: &Named| {
            let context = context?;
            Some((context.bridge, context.bound.get(id).cloned(), context.pods.get(id).copied()))
        };
        let other = all.filter(|id| local || bound(before, id) != bound(now, id));
        let other: BTreeSet<Named> = other.cloned().collect();
        let ports = |context: Option<&NodeContext>| -> BTreeSet<PortId> {
            context.iter().flat_map(|context| context.bound.values().flatten()).map(|at| at.port).collect()
        };
        let gone: Vec<PortId> = ports(before).difference(&ports(now)).copied().collect();
        gone.iter().for_each(|port| self.told.guards.set(port, []));
        other.iter().for_each(|id| self.policies.touch(id));
    }

    fn guard(&self, id: &Named, at: &Bound, context: &NodeContext, local: Option<PortId>) -> Guard {
        let isolated = self.why_isolated(id, at, context);
        let member = self.policies.pods().get(id).filter(|_| isolated.is_none());
        let isolates = |ruleset| self.policies.list(ruleset).iter().any(|policy| policy.isolating().is_some());
        // An address that is the gateway's, or another pod's, is not its own, whatever its object says.
        let own = |address: &IpAddr| {
            let key = AddressKey { bridge: context.bridge, address: *address };
            matches!(self.told.endpoints.claimants(&key).next(), Some(Owner::Pod(owner)) if owner == id)
        };
        let addresses = member.iter().flat_map(|member| &member.pod.addresses).copied().filter(own).collect();
        Guard {
            port: at.port,
            bridge: context.bridge,
            name: name(id),
            mac: at.mac.unwrap_or_default(),
            addresses,
            spoof: at.spoof,
            groups: member.and_then(|member| member.ingress).is_none_or(|ruleset| !isolates(ruleset)),
            local,
            isolated,
        }
    }

    fn why_isolated(&self, id: &Named, at: &Bound, context: &NodeContext) -> Option<Arc<str>> {
        let Named { namespace, name } = id;
        if !self.any {
            return Some("no cluster state yet".into());
        }
        let Some(pod) = self.pods.get(id) else { return Some(format!("no Pod object {namespace}/{name}").into()) };
        let elsewhere = pod.node.as_deref().filter(|node| *node != self.settings.name);
        Some(match elsewhere {
            _ if pod.finished => format!("pod {namespace}/{name} has ended").into(),
            _ if pod.host_network => format!("pod {namespace}/{name} is in the host network").into(),
            Some(node) => format!("pod {namespace}/{name} is on node {node}").into(),
            None if pod.addresses.is_empty() => format!("pod {namespace}/{name} has no address yet").into(),
            None => match context.pods.get(id) {
                Some(bound) if bound.port == at.port => return None,
                Some(_) => format!("another port is bound to pod {namespace}/{name}").into(),
                None => "its Ethernet address is not known".into(),
            },
        })
    }
}

fn name(id: &Named) -> Arc<str> {
    format!("pod/{}/{}", id.namespace, id.name).into()
}
