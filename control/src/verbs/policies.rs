//! `policies`: every policy with whom it selects, or what decides for one pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::reply::{DeniedRow, PodDirection, PodPolicies, PodPolicy, PodRule, Policies, PolicyRow};
use api::state::DenialState;

use crate::cluster::compile::Compiler;
use crate::cluster::compile::policies::{Policies as Compiled, PolicyKey, Source, Way, otherwise};
use crate::cluster::model::{Named, Pod};
use crate::store::Store;
use crate::store::config::shown;
use crate::{Refusal, Switch};

mod words;

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) pod: Option<&'a str>,
}

/// What is known of policies.
///
/// # Errors
/// When the pod that is asked for is none.
pub(super) fn policies(asked: &Asked<'_>, store: &Store, switch: &dyn Switch) -> Result<Policies, Refusal> {
    let denials = switch.denials();
    let Some(pod) = asked.pod else {
        return Ok(Policies::All(all(asked.namespace, store.cluster(), &denials)));
    };
    let (namespace, name) = match *pod.split('/').collect::<Vec<_>>() {
        [namespace, name] => (namespace, name),
        [name] => (asked.namespace.unwrap_or("default"), name),
        _ => return Err(Refusal(format!("--pod {}: not NS/NAME", shown(pod)))),
    };
    if let Some(other) = asked.namespace.filter(|other| *other != namespace) {
        return Err(Refusal(format!("--pod {}: is not of namespace {}", shown(pod), shown(other))));
    }
    let id = Named { namespace: namespace.into(), name: name.into() };
    let found = store.cluster().pods().get(&id);
    let found = found.ok_or_else(|| Refusal(format!("--pod {}: no such object in the cluster's state", shown(pod))))?;
    Ok(Policies::Pod(of_pod(found, store, &denials)))
}

fn all(namespace: Option<&str>, cluster: &Compiler, denials: &[DenialState]) -> Vec<PolicyRow> {
    let compiled = cluster.policies();
    let mut selected = BTreeMap::<PolicyKey, u64>::new();
    for member in compiled.pods().values() {
        for key in compiled.selecting(&member.pod) {
            *selected.entry(key).or_default() += 1;
        }
    }
    let wanted = |key: &PolicyKey| match key {
        PolicyKey::Network(id) => namespace.is_none_or(|namespace| *id.namespace == *namespace),
        PolicyKey::Admin(..) | PolicyKey::Baseline(..) => namespace.is_none(),
    };
    let rows = compiled.all().filter(|(key, _)| wanted(key)).map(|(key, source)| {
        let (kind, policy, tier, priority) = match key {
            PolicyKey::Network(Named { namespace, name }) => {
                ("NetworkPolicy", format!("{namespace}/{name}"), None, None)
            }
            PolicyKey::Admin(priority, name) => {
                ("ClusterNetworkPolicy", name.to_string(), Some("Admin"), Some(*priority))
            }
            PolicyKey::Baseline(priority, name) => {
                ("ClusterNetworkPolicy", name.to_string(), Some("Baseline"), Some(*priority))
            }
        };
        let directions = Way::BOTH.into_iter().filter(|way| source.rules(*way).is_some());
        PolicyRow {
            kind: kind.to_owned(),
            policy,
            tier: tier.map(str::to_owned),
            priority,
            directions: directions.map(|way| way.name().to_owned()).collect(),
            pods: selected.get(key).copied().unwrap_or_default(),
            denied: denials.iter().filter(|denial| names(&denial.by, key, source)).map(|denial| denial.packets).sum(),
        }
    });
    rows.collect()
}

/// Whether what decided is a policy: one of its rules, or its default.
fn names(by: &str, key: &PolicyKey, source: &Source) -> bool {
    if let Some(rule) = by.strip_prefix(&source.name()) {
        return rule.is_empty() || rule.starts_with(' ');
    }
    let (Some(isolating), Some(by)) = (key.isolating(), by.strip_prefix("default of ")) else { return false };
    by.split(", ").any(|name| name == isolating || name.split_once(" and ").is_some_and(|(name, _)| name == isolating))
}

fn of_pod(pod: &Arc<Pod>, store: &Store, denials: &[DenialState]) -> PodPolicies {
    let cluster = store.cluster();
    let (compiled, name) = (cluster.policies(), format!("pod/{}/{}", pod.id.namespace, pod.id.name));
    let bound = cluster.context().and_then(|context| context.bound.get(&pod.id)).and_then(|bound| bound.first());
    let guard = bound.and_then(|bound| cluster.guards().get(&bound.port));
    let about = compiled.pods().contains_key(&pod.id);
    let note = match (pod.host_network, pod.finished) {
        (true, _) => Some("is in the host network: no policy is about it".to_owned()),
        (_, true) => Some("has ended: no policy is about it".to_owned()),
        _ => guard.and_then(|guard| guard.isolated.as_ref()).map(|why| format!("isolated: {why}")),
    };
    let direction = |way| direction(pod, way, compiled, denials.iter().filter(|denial| denial.subject == name));
    PodPolicies {
        addresses: pod.addresses.clone(),
        port: bound.map(|bound| store.port_name(bound.port)),
        note,
        directions: if about { Way::BOTH.map(direction).to_vec() } else { Vec::new() },
        pod: name.clone(),
    }
}

fn direction<'a>(
    pod: &Pod,
    way: Way,
    compiled: &Compiled,
    denials: impl Iterator<Item = &'a DenialState>,
) -> PodDirection {
    let selecting = compiled.selecting(pod);
    let sources = selecting.iter().filter_map(|key| Some((key, compiled.get(key)?)));
    let deciding: Vec<_> = sources.filter_map(|(key, source)| Some((key, source, source.rules(way)?))).collect();
    let isolating: Vec<String> = deciding.iter().filter_map(|(key, ..)| key.isolating()).collect();
    let policies = deciding.iter().map(|(key, source, rules)| {
        let shadowed = matches!(key, PolicyKey::Baseline(..)) && !isolating.is_empty();
        let rule = |(rule, index): (&crate::cluster::model::PolicyRule, u32)| PodRule {
            index,
            name: rule.name.to_string(),
            action: words::action(rule.action).to_owned(),
            peers: words::peers(rule.peers.as_deref()),
            ports: words::ports(rule.ports.as_deref()),
        };
        PodPolicy {
            policy: source.name(),
            not_asked: shadowed.then(|| "policies of the namespace decide".to_owned()),
            rules: rules.iter().zip(0..).map(rule).collect(),
        }
    });
    let denials = denials.filter(|denial| denial.direction == way.name());
    PodDirection {
        direction: way.name().to_owned(),
        isolated: !isolating.is_empty(),
        otherwise: otherwise(&isolating).to_string(),
        policies: policies.collect(),
        denied: denials.map(|denial| DeniedRow { by: denial.by.clone(), packets: denial.packets }).collect(),
    }
}
