//! From the JSON of one object to its model, through the types of `k8s-openapi`.
//!
//! Reading is strict: a field that Kubernetes does not have is refused, and so is one of a wrong type, each with its path.
//! Fields that only say something about containers, volumes and the like are read and forgotten.

use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check::{self, Checked, shown};
use super::kind::{Kind, KindDef};
use super::{Key, Texts};
use crate::cluster::model::{Cidrs, ClusterPolicy, Labels, Named, NetworkPolicy, Node, Pod, Service, Slice, Text};

mod bandwidth;
mod cluster_policy;
mod node;
mod pod;
mod policy;
mod selector;
mod service;
mod slice;

/// The label of every namespace whose value is its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// An object, checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Node(Arc<Node>),
    Namespace(Text, Labels),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Slice(Arc<Slice>),
    Cidrs(Arc<Cidrs>),
    Policy(Arc<NetworkPolicy>),
    ClusterPolicy(Arc<ClusterPolicy>),
}

impl Object {
    /// Its name.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Namespace(name, _) => Key::Namespace(name.clone()),
            Self::Pod(pod) => Key::Pod(pod.id.clone()),
            Self::Service(service) => Key::Service(service.id.clone()),
            Self::Slice(slice) => Key::Slice(slice.id.clone()),
            Self::Cidrs(cidrs) => Key::ServiceCidr(cidrs.name.clone()),
            Self::Policy(policy) => Key::Policy(policy.id.clone()),
            Self::ClusterPolicy(policy) => Key::ClusterPolicy(policy.name.clone()),
        }
    }
}

/// What a document comes to.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// An object of a kind that matters here, as it is called, and what is wrong with it if something is.
    Known {
        /// `service/web`, with the namespace when it is not the usual one.
        label: String,
        /// Its name, when it has a good one.
        key: Option<Key>,
        /// The namespace that it is in without saying so.
        namespace: Option<String>,
        object: Checked<Object>,
    },
    /// An object of another kind, as it is called, and that kind.
    Unknown { label: String, kind: String },
    /// No object.
    Nothing(String),
}

#[derive(Debug, Default, Deserialize)]
struct Head {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeadMeta>,
}

#[derive(Debug, Default, Deserialize)]
struct HeadMeta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

/// Read an object. One without a namespace is of `namespace`.
pub(crate) fn decode(json: &str, namespace: &str, texts: &mut Texts) -> Decoded {
    let head: Head = match typed_loosely(json) {
        Ok(head) => head,
        Err(why) => return Decoded::Nothing(why),
    };
    let (Some(api_version), Some(kind)) = (head.api_version, head.kind) else {
        return Decoded::Nothing("apiVersion, kind: both are needed to know what it is".to_owned());
    };
    let HeadMeta { name, namespace: named } = head.metadata.unwrap_or_default();
    let name = name.unwrap_or_default();
    let Some(def) = KindDef::of(&api_version, &kind) else {
        let label = format!("{}/{}", shown(&kind.to_ascii_lowercase()), shown(&name));
        return Decoded::Unknown { label, kind: format!("{} {}", shown(&api_version), shown(&kind)) };
    };
    let silent = def.namespaced && named.as_deref().is_none_or(str::is_empty);
    let own = named.filter(|named| !named.is_empty());
    let in_namespace = own.clone().unwrap_or_else(|| namespace.to_owned());
    let label = label_of(def, &in_namespace, &name);
    let checked = named_well(def, own.as_deref(), &in_namespace, &name);
    let key = checked.is_ok().then(|| def.key(&in_namespace, &name));
    let id = Named { namespace: texts.of(&in_namespace), name: texts.of(&name) };
    let object = checked.and_then(|()| object(def.kind, json, id, texts));
    Decoded::Known { label, key, namespace: silent.then_some(in_namespace), object }
}

/// An object as it is called in a line about it.
pub(crate) fn label_of(def: &KindDef, namespace: &str, name: &str) -> String {
    let label = def.label(&shown(name));
    match def.namespaced && namespace != "default" {
        true => format!("{label} in namespace {}", shown(namespace)),
        false => label,
    }
}

fn named_well(def: &KindDef, own: Option<&str>, namespace: &str, name: &str) -> Checked<()> {
    if name.is_empty() {
        return Err("metadata.name: must be given".to_owned());
    }
    match def.kind {
        Kind::Namespace | Kind::Service => check::label("metadata.name", name)?,
        _ => check::subdomain("metadata.name", name)?,
    }
    match own {
        Some(own) if !def.namespaced => {
            Err(check::fault("metadata.namespace", own, "an object of this kind is in no namespace"))
        }
        _ => check::label("metadata.namespace", namespace),
    }
}

fn object(kind: Kind, json: &str, id: Named, texts: &mut Texts) -> Checked<Object> {
    Ok(match kind {
        Kind::Node => Object::Node(Arc::new(node::node(typed(json)?, id.name, texts)?)),
        Kind::Namespace => {
            let namespace: core::Namespace = typed(json)?;
            let mut labels = labels(&namespace.metadata, texts)?;
            // As the API server sets it, whatever the manifest says (rule N10).
            labels.insert(texts.of(NAME_LABEL), id.name.clone());
            Object::Namespace(id.name, labels)
        }
        Kind::Pod => Object::Pod(Arc::new(pod::pod(typed(json)?, id, texts)?)),
        Kind::Service => Object::Service(Arc::new(service::service(typed(json)?, id, texts)?)),
        Kind::EndpointSlice => Object::Slice(Arc::new(slice::slice(typed(json)?, id, texts)?)),
        Kind::ServiceCidr => Object::Cidrs(Arc::new(cidrs(typed(json)?, id.name)?)),
        Kind::NetworkPolicy => Object::Policy(Arc::new(policy::policy(typed(json)?, id, texts)?)),
        Kind::ClusterNetworkPolicy => {
            Object::ClusterPolicy(Arc::new(cluster_policy::cluster_policy(typed(json)?, id.name, texts)?))
        }
    })
}

fn cidrs(object: networking::ServiceCIDR, name: Text) -> Checked<Cidrs> {
    let texts = object.spec.unwrap_or_default().cidrs.unwrap_or_default();
    if texts.is_empty() {
        return Err("spec.cidrs: must hold one or two prefixes".to_owned());
    }
    let each = |(i, text): (usize, &String)| check::prefix(format_args!("spec.cidrs[{i}]"), text);
    let prefixes = texts.iter().enumerate().map(each).collect::<Checked<Vec<_>>>()?;
    let families: Vec<_> = prefixes.iter().map(|net| crate::cluster::model::Family::of(&net.addr())).collect();
    check::one_each("spec.cidrs", &texts, &families)?;
    Ok(Cidrs { name, prefixes })
}

fn labels(meta: &ObjectMeta, texts: &mut Texts) -> Checked<Labels> {
    let labels = texts.labels(meta.labels.iter().flatten());
    check::labels("metadata.labels", &labels)?;
    Ok(labels)
}

/// Read a type of Kubernetes, and nothing beside it.
fn typed<T: DeserializeOwned>(json: &str) -> Checked<T> {
    let mut unknown = None;
    let read = serde_ignored::deserialize(&mut serde_json::Deserializer::from_str(json), |path| {
        unknown.get_or_insert_with(|| path_of(&path));
    });
    match (read, unknown) {
        (Ok(_), Some(field)) => Err(format!("{field}: no such field")),
        (Ok(object), None) => Ok(object),
        // What is right is read once; what is wrong a second time, to know where.
        (Err(_), _) => typed_loosely(json),
    }
}

/// Read a type; what it has no field for does not matter.
fn typed_loosely<T: DeserializeOwned>(json: &str) -> Checked<T> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|error| {
        let (path, why) = place(error);
        if path.is_empty() { why } else { format!("{path}: {why}") }
    })
}

/// Read a part of an object. What there is no field for may matter: the path of the first is returned beside it.
fn typed_part<T: DeserializeOwned>(field: &str, value: &Value) -> Checked<(T, Option<String>)> {
    let mut unknown = None;
    let read = serde_ignored::deserialize(value, |path| {
        unknown.get_or_insert_with(|| joined(field, &path_of(&path)));
    });
    let again = |_| serde_path_to_error::deserialize(value);
    read.or_else(again).map(|read| (read, unknown)).map_err(|error| {
        let (path, why) = place(error);
        format!("{}: {why}", joined(field, &path))
    })
}

fn joined(field: &str, path: &str) -> String {
    let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("{field}{dot}{path}")
}

/// Where an error is, and what it is.
fn place(error: serde_path_to_error::Error<serde_json::Error>) -> (String, String) {
    let path = error.path().to_string();
    let why = error.into_inner().to_string();
    let why = why.split(" at line ").next().unwrap_or(&why);
    let why = why.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let path = if path == "." { String::new() } else { path.chars().take(200).collect() };
    (path, why)
}

/// A path as kubectl writes it.
fn path_of(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_of(parent)),
        Path::Map { parent, key } => {
            let mut text = path_of(parent);
            if !text.is_empty() {
                text.push('.');
            }
            let _ = write!(text, "{}", shown(key));
            text
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => path_of(parent),
    }
}
