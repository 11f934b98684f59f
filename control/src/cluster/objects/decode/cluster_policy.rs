//! ClusterNetworkPolicies, with the rules of their CRD (kubernetes-sigs/network-policy-api, `apis/v1alpha2`, the
//! experimental channel: nodes and named ports are of that).
//!
//! What a rule may say will grow, and domain names are nothing that a switch knows. A policy whose rule cannot be read whole
//! is not refused: the switch would then be open where somebody closed it. Such a rule **fails closed**, as the API's
//! authors ask of implementations that meet a peer of a later version:
//!
//! | the rule's action | what becomes of it |
//! |---|---|
//! | Accept | it matches nothing, not even what its other peers say |
//! | Deny, Pass | it denies everything of its direction: who would have passed is not known |
//!
//! So it is with `domainNames`, and with a field that we do not know inside of a peer or of a protocol; a warning is logged.
//! Fields that we do not know elsewhere (in `spec`, beside a rule's `action`) are refused, as are values that cannot be.

use api::Action;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::selector::selector;
use super::{Checked, check, label_of, labels, typed_part};
use crate::cluster::model::{ClusterPolicy, Namespaces, PodSelector, PolicyPeer, PolicyPort, PolicyRule, Selector};
use crate::cluster::model::{Text, Tier};
use crate::cluster::objects::Texts;
use crate::cluster::objects::kind::Kind;

mod protocol;

/// Rules of a direction, peers and protocols of a rule, and networks of a peer at most.
const LIMIT: usize = 25;
/// Letters of a rule's name at most.
const NAME_LIMIT: usize = 100;
/// Letters of an entry of `networks` at most.
const CIDR_LIMIT: usize = 43;

/// An object of which exactly one field must be set.
type OneOf = Map<String, Value>;

#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(rename = "apiVersion")]
    _api_version: Value,
    #[serde(rename = "kind")]
    _kind: Value,
    metadata: ObjectMeta,
    spec: Option<Spec>,
    /// For whoever enforces policies to write.
    #[serde(rename = "status")]
    _status: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    tier: Option<String>,
    priority: Option<i32>,
    subject: Option<OneOf>,
    #[serde(default)]
    ingress: Option<Vec<Ingress>>,
    #[serde(default)]
    egress: Option<Vec<Egress>>,
}

#[derive(Debug, Deserialize)]
struct Ingress {
    name: Option<String>,
    action: Option<String>,
    from: Option<Vec<OneOf>>,
    protocols: Option<Vec<OneOf>>,
}

#[derive(Debug, Deserialize)]
struct Egress {
    name: Option<String>,
    action: Option<String>,
    to: Option<Vec<OneOf>>,
    protocols: Option<Vec<OneOf>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamespacedPod {
    namespace_selector: Option<LabelSelector>,
    pod_selector: Option<LabelSelector>,
}

/// A part of a rule, or what of it is not known here.
enum Part<T> {
    Known(T),
    Unknown(String),
}

/// A rule as it is written.
struct Written<'a> {
    /// Its path, and that of its peers.
    field: String,
    side: &'a str,
    name: Option<String>,
    action: Option<String>,
    peers: Option<Vec<OneOf>>,
    protocols: Option<Vec<OneOf>>,
}

pub(super) fn cluster_policy(object: Manifest, name: Text, texts: &mut Texts) -> Checked<ClusterPolicy> {
    labels(&object.metadata, texts)?;
    let Some(spec) = object.spec else { return Err("spec: must be given".to_owned()) };
    let tier = match spec.tier.as_deref() {
        Some("Admin") => Tier::Admin,
        Some("Baseline") => Tier::Baseline,
        Some(other) => return Err(check::fault("spec.tier", other, "must be Admin or Baseline")),
        None => return Err("spec.tier: must be given".to_owned()),
    };
    let Some(priority) = spec.priority else { return Err("spec.priority: must be given".to_owned()) };
    let in_range = u16::try_from(priority).ok().filter(|priority| (0..=1000).contains(priority));
    let priority = in_range.ok_or_else(|| check::fault("spec.priority", priority, "must be between 0 and 1000"))?;
    let Some(given) = &spec.subject else { return Err("spec.subject: must be given".to_owned()) };
    let subjects = subject(given, texts)?;
    let (from, to) = (spec.ingress.unwrap_or_default(), spec.egress.unwrap_or_default());
    let (mut ingress, mut egress) = (Vec::with_capacity(from.len()), Vec::with_capacity(to.len()));
    at_most("spec.ingress", from.len())?;
    for (i, Ingress { name: title, action, from, protocols }) in from.into_iter().enumerate() {
        let field = format!("spec.ingress[{i}]");
        ingress.push(rule(Written { field, side: "from", name: title, action, peers: from, protocols }, &name, texts)?);
    }
    at_most("spec.egress", to.len())?;
    for (i, Egress { name: title, action, to, protocols }) in to.into_iter().enumerate() {
        let field = format!("spec.egress[{i}]");
        egress.push(rule(Written { field, side: "to", name: title, action, peers: to, protocols }, &name, texts)?);
    }
    Ok(ClusterPolicy { name, tier, priority, subjects, ingress, egress })
}

fn subject(given: &OneOf, texts: &mut Texts) -> Checked<PodSelector> {
    const FIELD: &str = "spec.subject";
    let (key, value) = only(FIELD, given)?;
    match pods(FIELD, key, value, texts)? {
        Some(Part::Known(pods)) => Ok(pods),
        Some(Part::Unknown(unknown)) => Err(format!("{unknown}: no such field")),
        None => Err(format!("{FIELD}.{}: no such field", check::shown(key))),
    }
}

fn rule(written: Written<'_>, policy: &str, texts: &mut Texts) -> Checked<PolicyRule> {
    let Written { field, side, name, action, peers, protocols } = written;
    let name = name.unwrap_or_default();
    if name.chars().count() > NAME_LIMIT {
        let rule = format!("may have {NAME_LIMIT} letters");
        return Err(check::fault(format_args!("{field}.name"), name, &rule));
    }
    let action = match action.as_deref() {
        Some("Accept") => Action::Accept,
        Some("Deny") => Action::Deny,
        Some("Pass") => Action::Pass,
        Some(other) => {
            return Err(check::fault(format_args!("{field}.action"), other, "must be Accept, Deny or Pass"));
        }
        None => return Err(format!("{field}.action: must be given")),
    };
    let side = format!("{field}.{side}");
    let Some(peers) = peers else { return Err(format!("{side}: must be given")) };
    one_to_limit(&side, peers.len())?;
    let mut unknown = Vec::new();
    let mut known_peers = Vec::with_capacity(peers.len());
    for (i, given) in peers.iter().enumerate() {
        match peer(&format!("{side}[{i}]"), given, side.ends_with("to"), texts)? {
            Part::Known(peers) => known_peers.extend(peers),
            Part::Unknown(what) => unknown.push(what),
        }
    }
    let mut ports: Option<Vec<PolicyPort>> = None;
    if let Some(protocols) = &protocols {
        let field = format!("{field}.protocols");
        one_to_limit(&field, protocols.len())?;
        for (i, given) in protocols.iter().enumerate() {
            match protocol::protocol(&format!("{field}[{i}]"), given, texts)? {
                Part::Known(port) => ports.get_or_insert_default().push(port),
                Part::Unknown(what) => unknown.push(what),
            }
        }
        named_ports_of_pods(&field, protocols, &peers)?;
    }
    let name = texts.of(&name);
    let Some(unknown) = unknown.first() else {
        return Ok(PolicyRule { action, name, peers: Some(known_peers), ports });
    };
    let label = label_of(Kind::ClusterNetworkPolicy.def(), "", policy);
    let (action, peers, so) = match action {
        Action::Accept => (Action::Accept, Some(Vec::new()), "matches nothing"),
        Action::Deny | Action::Pass => (Action::Deny, None, "denies everything"),
    };
    tracing::warn!("{label}: {unknown}: not known here: to be safe, this rule {so}");
    Ok(PolicyRule { action, name, peers, ports: None })
}

/// The field that is set.
fn only<'a>(field: &str, given: &'a OneOf) -> Checked<(&'a str, &'a Value)> {
    let mut fields = given.iter();
    match (fields.next(), fields.next()) {
        (Some((key, value)), None) => Ok((key, value)),
        (None, _) => Err(format!("{field}: must hold exactly one field, and holds none")),
        (Some((first, _)), Some((second, _))) => {
            let both = format!("{first}, {second}");
            Err(check::fault(field, both, "must hold exactly one field"))
        }
    }
}

/// `namespaces` or `pods`; `None` for another field.
fn pods(field: &str, key: &str, value: &Value, texts: &mut Texts) -> Checked<Option<Part<PodSelector>>> {
    let field = format!("{field}.{key}");
    Ok(Some(match key {
        "namespaces" => match part::<LabelSelector>(&field, value)? {
            Part::Unknown(what) => Part::Unknown(what),
            Part::Known(with) => Part::Known(PodSelector {
                namespaces: Namespaces::With(selector(&field, &with, texts)?),
                pods: Selector::default(),
            }),
        },
        "pods" => match part::<NamespacedPod>(&field, value)? {
            Part::Unknown(what) => Part::Unknown(what),
            Part::Known(NamespacedPod { namespace_selector, pod_selector }) => {
                let with = namespace_selector.unwrap_or_default();
                let with = selector(&format!("{field}.namespaceSelector"), &with, texts)?;
                let field = format!("{field}.podSelector");
                let Some(pods) = pod_selector else { return Err(format!("{field}: must be given")) };
                let pods = selector(&field, &pods, texts)?;
                Part::Known(PodSelector { namespaces: Namespaces::With(with), pods })
            }
        },
        _ => return Ok(None),
    }))
}

fn peer(field: &str, given: &OneOf, egress: bool, texts: &mut Texts) -> Checked<Part<Vec<PolicyPeer>>> {
    let (key, value) = only(field, given)?;
    if let Some(pods) = pods(field, key, value, texts)? {
        return Ok(match pods {
            Part::Known(pods) => Part::Known(vec![PolicyPeer::Pods(pods)]),
            Part::Unknown(what) => Part::Unknown(what),
        });
    }
    let field = format!("{field}.{}", check::shown(key));
    match key {
        "networks" if egress => networks(&field, value).map(Part::Known),
        "nodes" if egress => Ok(match part::<LabelSelector>(&field, value)? {
            Part::Known(with) => Part::Known(vec![PolicyPeer::Nodes(selector(&field, &with, texts)?)]),
            Part::Unknown(what) => Part::Unknown(what),
        }),
        "domainNames" if egress => {
            domain_names(&field, value)?;
            Ok(Part::Unknown(field))
        }
        _ => Ok(Part::Unknown(field)),
    }
}

fn networks(field: &str, value: &Value) -> Checked<Vec<PolicyPeer>> {
    let texts = set(field, value)?;
    let each = |(i, text): (usize, &String)| {
        let cidr = cidr(&format!("{field}[{i}]"), text)?;
        Ok(PolicyPeer::Block { cidr, except: Vec::new() })
    };
    texts.iter().enumerate().map(each).collect()
}

/// What `isCIDR` of CEL takes: no leading zeros, and no IPv4 mapped to IPv6.
fn cidr(field: &str, text: &str) -> Checked<IpNet> {
    let strict = text.split_once('/').is_some_and(|(front, length)| {
        let mapped = |address: &std::net::Ipv6Addr| address.to_ipv4_mapped().is_some();
        let plain = match front.parse() {
            Ok(std::net::IpAddr::V6(address)) => !mapped(&address),
            Ok(std::net::IpAddr::V4(_)) => true,
            Err(_) => false,
        };
        plain && (length == "0" || !length.starts_with('0'))
    });
    match strict && text.len() <= CIDR_LIMIT {
        true => check::cidr(field, text),
        false => Err(check::fault(field, text, "must be a prefix such as 10.0.0.0/8 or fd00::/8")),
    }
}

fn domain_names(field: &str, value: &Value) -> Checked<()> {
    let is_part = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().last()];
        ends.into_iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    for (i, name) in set(field, value)?.iter().enumerate() {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        let plain = plain.strip_suffix('.').unwrap_or(plain);
        if !plain.contains('.') || !plain.split('.').all(is_part) {
            let rule = "must be a name of several parts, such as kubernetes.io or *.kubernetes.io";
            return Err(check::fault(format_args!("{field}[{i}]"), name, rule));
        }
    }
    Ok(())
}

/// A list of texts, each once.
fn set(field: &str, value: &Value) -> Checked<Vec<String>> {
    let texts: Vec<String> = typed_part(field, value)?.0;
    one_to_limit(field, texts.len())?;
    for (i, text) in texts.iter().enumerate() {
        if texts.iter().take(i).any(|before| before == text) {
            return Err(check::fault(format_args!("{field}[{i}]"), text, "stands before it already"));
        }
    }
    Ok(texts)
}

/// Networks, nodes and names have no container ports.
fn named_ports_of_pods(field: &str, protocols: &[OneOf], peers: &[OneOf]) -> Checked<()> {
    let named = |protocol: &OneOf| protocol.contains_key("destinationNamedPort");
    let nameless = |peer: &OneOf| ["networks", "nodes", "domainNames"].into_iter().find(|key| peer.contains_key(*key));
    match (protocols.iter().position(named), peers.iter().find_map(nameless)) {
        (Some(i), Some(key)) => {
            Err(format!("{field}[{i}].destinationNamedPort: may not be given beside {key}, which have no named ports"))
        }
        _ => Ok(()),
    }
}

fn part<T: DeserializeOwned>(field: &str, value: &Value) -> Checked<Part<T>> {
    Ok(match typed_part(field, value)? {
        (known, None) => Part::Known(known),
        (_, Some(unknown)) => Part::Unknown(unknown),
    })
}

fn one_to_limit(field: &str, len: usize) -> Checked<()> {
    if len == 0 {
        return Err(format!("{field}: must hold at least one entry"));
    }
    at_most(field, len)
}

fn at_most(field: &str, len: usize) -> Checked<()> {
    if len <= LIMIT { Ok(()) } else { Err(check::fault(field, len, &format!("may hold {LIMIT} entries"))) }
}
