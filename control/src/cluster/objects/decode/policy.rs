//! NetworkPolicies: whom they select, whom they let through.
//!
//! What is refused and what is taken is what the API server refuses and takes (`pkg/apis/networking/validation`), and its
//! defaults are applied here. It still takes prefixes with host bits, which count for nothing, and octets with leading
//! zeros; so do we. An entry that is `null` is refused: to the API server it would be the empty one, which lets all through.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::selector;
use super::{Checked, check, labels, networking};
use crate::cluster::model::{
    Named, Namespaces, NetworkPolicy, PodSelector, PolicyPeer, PolicyPort, PolicyPorts, PolicyRule, Selector, Text,
};
use crate::cluster::objects::Texts;

pub(super) fn policy(object: networking::NetworkPolicy, id: Named, texts: &mut Texts) -> Checked<NetworkPolicy> {
    labels(&object.metadata, texts)?;
    let spec = object.spec.unwrap_or_default();
    let subjects = selector("spec.podSelector", &spec.pod_selector.unwrap_or_default(), texts)?;
    let mut ingress = Vec::new();
    for (i, given) in spec.ingress.unwrap_or_default().into_iter().enumerate() {
        ingress.push(rule(&format!("spec.ingress[{i}]"), "from", given.from, given.ports, &id.namespace, texts)?);
    }
    let mut egress = Vec::new();
    for (i, given) in spec.egress.unwrap_or_default().into_iter().enumerate() {
        egress.push(rule(&format!("spec.egress[{i}]"), "to", given.to, given.ports, &id.namespace, texts)?);
    }
    let isolates = types(&spec.policy_types.unwrap_or_default(), &egress)?;
    Ok(NetworkPolicy {
        id,
        subjects,
        ingress: isolates.ingress.then_some(ingress),
        egress: isolates.egress.then_some(egress),
    })
}

/// The directions that a policy is for.
struct Types {
    ingress: bool,
    egress: bool,
}

/// `policyTypes`. Without any there is Ingress, and Egress where there are rules of it (rule N4).
fn types(given: &[String], egress: &[PolicyRule]) -> Checked<Types> {
    const FIELD: &str = "spec.policyTypes";
    if given.len() > 2 {
        return Err(check::fault(FIELD, given.join(","), "may hold two"));
    }
    for (i, kind) in given.iter().enumerate() {
        if !matches!(kind.as_str(), "Ingress" | "Egress") {
            return Err(check::fault(format_args!("{FIELD}[{i}]"), kind, "must be Ingress or Egress"));
        }
    }
    let is_given = |name: &str| given.iter().any(|kind| kind == name);
    Ok(match given {
        [] => Types { ingress: true, egress: !egress.is_empty() },
        _ => Types { ingress: is_given("Ingress"), egress: is_given("Egress") },
    })
}

fn rule(
    field: &str,
    side: &str,
    peers: Option<Vec<networking::NetworkPolicyPeer>>,
    ports: Option<Vec<networking::NetworkPolicyPort>>,
    own: &Text,
    texts: &mut Texts,
) -> Checked<PolicyRule> {
    // Lists without entries are as good as none (rule N8).
    let each = |(i, given)| port(&format!("{field}.ports[{i}]"), given, texts);
    let ports = ports.into_iter().flatten().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    let each = |(i, given)| peer(&format!("{field}.{side}[{i}]"), given, own, texts);
    let peers = peers.into_iter().flatten().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    Ok(PolicyRule {
        action: api::Action::Accept,
        name: Text::default(),
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
    })
}

fn port(field: &str, given: networking::NetworkPolicyPort, texts: &mut Texts) -> Checked<PolicyPort> {
    let proto = match given.protocol.as_deref() {
        // For other objects it is none; here the API server takes only none for TCP.
        Some("") => return Err(check::fault(format_args!("{field}.protocol"), "", "must be TCP, UDP or SCTP")),
        protocol => check::protocol(format_args!("{field}.protocol"), protocol)?,
    };
    let end_field = format!("{field}.endPort");
    let ports = match (given.port, given.end_port) {
        (None, None) => PolicyPorts::Range(0, u16::MAX),
        (None, Some(end)) => return Err(check::fault(end_field, end, "may not be given without port")),
        (Some(IntOrString::Int(first)), end) => {
            let first = check::port(format_args!("{field}.port"), first)?;
            let last = end.map_or(Ok(first), |end| {
                if end < i32::from(first) {
                    return Err(check::fault(&end_field, end, "must be greater than or equal to port"));
                }
                check::port(&end_field, end)
            })?;
            PolicyPorts::Range(first, last)
        }
        (Some(IntOrString::String(_)), Some(end)) => {
            return Err(check::fault(end_field, end, "may not be given when port is a name"));
        }
        (Some(IntOrString::String(name)), None) => {
            check::port_name(&format!("{field}.port"), &name)?;
            PolicyPorts::Named(texts.of(&name))
        }
    };
    Ok(PolicyPort { proto: Some(proto), ports })
}

fn peer(field: &str, given: networking::NetworkPolicyPeer, own: &Text, texts: &mut Texts) -> Checked<PolicyPeer> {
    let networking::NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = given;
    let pods = pod_selector.as_ref().map(|pods| selector(&format!("{field}.podSelector"), pods, texts)).transpose()?;
    let namespaces = namespace_selector.as_ref();
    let namespaces = namespaces.map(|with| selector(&format!("{field}.namespaceSelector"), with, texts)).transpose()?;
    match (ip_block, namespaces, pods) {
        (None, None, None) => Err(format!("{field}: must specify a peer")),
        (Some(given), None, None) => block(&format!("{field}.ipBlock"), &given),
        (Some(_), ..) => Err(format!("{field}: may not specify both ipBlock and another peer")),
        (None, None, Some(pods)) => Ok(of_pods(Namespaces::Own(own.clone()), pods)),
        (None, Some(with), pods) => Ok(of_pods(Namespaces::With(with), pods.unwrap_or_default())),
    }
}

fn of_pods(namespaces: Namespaces, pods: Selector) -> PolicyPeer {
    PolicyPeer::Pods(PodSelector { namespaces, pods })
}

fn block(field: &str, given: &networking::IPBlock) -> Checked<PolicyPeer> {
    if given.cidr.is_empty() {
        return Err(format!("{field}.cidr: must be given"));
    }
    let cidr = check::cidr(format_args!("{field}.cidr"), &given.cidr)?;
    let mut except = Vec::new();
    for (i, text) in given.except.iter().flatten().enumerate() {
        let field = format!("{field}.except[{i}]");
        let part = check::cidr(&field, text)?;
        // `contains` is false for the other family.
        if part == cidr || !cidr.contains(&part) {
            return Err(check::fault(field, text, "must be a strict subset of cidr"));
        }
        except.push(part);
    }
    Ok(PolicyPeer::Block { cidr, except })
}
