//! Rules in words.

use api::Action;

use crate::cluster::model::{
    Namespaces, PodSelector, PolicyPeer, PolicyPort, PolicyPorts, Requirement, Selector, Test, Text,
};

pub(super) fn action(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}

/// The other end: `anybody`, or what it may be, with semicolons between.
pub(super) fn peers(peers: Option<&[PolicyPeer]>) -> String {
    match peers {
        None => "anybody".to_owned(),
        Some([]) => "nobody".to_owned(),
        Some(peers) => peers.iter().map(peer).collect::<Vec<_>>().join("; "),
    }
}

/// Protocols and ports: `any port`, or what they may be.
pub(super) fn ports(ports: Option<&[PolicyPort]>) -> String {
    match ports {
        None => "any port".to_owned(),
        Some([]) => "no port".to_owned(),
        Some(ports) => ports.iter().map(port).collect::<Vec<_>>().join(" or "),
    }
}

fn peer(peer: &PolicyPeer) -> String {
    match peer {
        PolicyPeer::Pods(PodSelector { namespaces, pods }) => {
            let pods = if pods.0.is_empty() { "all pods".to_owned() } else { format!("pods {}", selector(pods)) };
            match namespaces {
                Namespaces::Own(namespace) => format!("{pods} of namespace {namespace}"),
                Namespaces::With(with) if with.0.is_empty() => format!("{pods} of all namespaces"),
                Namespaces::With(with) => format!("{pods} of namespaces {}", selector(with)),
            }
        }
        PolicyPeer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        PolicyPeer::Block { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} except {}", except.join(", "))
        }
        PolicyPeer::Nodes(nodes) if nodes.0.is_empty() => "all nodes".to_owned(),
        PolicyPeer::Nodes(nodes) => format!("nodes {}", selector(nodes)),
    }
}

/// As kubectl spells it.
fn selector(Selector(requirements): &Selector) -> String {
    let list = |values: &[Text]| values.iter().map(|value| &**value).collect::<Vec<_>>().join(",");
    let requirement = |Requirement { key, test }: &Requirement| match test {
        Test::In(values) if values.len() == 1 => format!("{key}={}", list(values)),
        Test::In(values) => format!("{key} in ({})", list(values)),
        Test::NotIn(values) => format!("{key} notin ({})", list(values)),
        Test::Exists => key.to_string(),
        Test::DoesNotExist => format!("!{key}"),
    };
    requirements.iter().map(requirement).collect::<Vec<_>>().join(",")
}

fn port(port: &PolicyPort) -> String {
    let proto = port.proto.map_or_else(|| "any protocol".to_owned(), |proto| proto.to_string().to_ascii_lowercase());
    match &port.ports {
        PolicyPorts::Range(0 | 1, 65535) => format!("all of {proto}"),
        PolicyPorts::Range(first, last) if first == last => format!("{proto} {first}"),
        PolicyPorts::Range(first, last) => format!("{proto} {first}-{last}"),
        PolicyPorts::Named(name) => format!("{proto} {name}"),
    }
}
