//! The kinds of objects that a node's network follows from.

use super::Key;

/// A kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Namespace,
    Pod,
    Service,
    EndpointSlice,
    ServiceCidr,
    NetworkPolicy,
    ClusterNetworkPolicy,
}

/// What a kind is called, and where.
#[derive(Debug)]
pub(crate) struct KindDef {
    pub(crate) kind: Kind,
    pub(crate) api_version: &'static str,
    /// As in `kind:`.
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
    /// What people type for it, in any case, beside its name and plural.
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
}

/// Every kind, in the order in which a set of objects is best taken: what others refer to comes first.
pub(crate) const KINDS: &[KindDef] = &[
    KindDef { short: &["no"], ..core(Kind::Node, "Node", "nodes") },
    KindDef { short: &["ns"], ..core(Kind::Namespace, "Namespace", "namespaces") },
    KindDef { short: &["po"], namespaced: true, ..core(Kind::Pod, "Pod", "pods") },
    KindDef { short: &["svc"], namespaced: true, ..core(Kind::Service, "Service", "services") },
    KindDef {
        api_version: "discovery.k8s.io/v1",
        short: &["eps"],
        namespaced: true,
        ..core(Kind::EndpointSlice, "EndpointSlice", "endpointslices")
    },
    KindDef { api_version: "networking.k8s.io/v1", ..core(Kind::ServiceCidr, "ServiceCIDR", "servicecidrs") },
    KindDef {
        api_version: "networking.k8s.io/v1",
        short: &["netpol"],
        namespaced: true,
        ..core(Kind::NetworkPolicy, "NetworkPolicy", "networkpolicies")
    },
    KindDef {
        api_version: "policy.networking.k8s.io/v1alpha2",
        short: &["cnp"],
        ..core(Kind::ClusterNetworkPolicy, "ClusterNetworkPolicy", "clusternetworkpolicies")
    },
];

const fn core(kind: Kind, name: &'static str, plural: &'static str) -> KindDef {
    KindDef { kind, api_version: "v1", name, plural, short: &[], namespaced: false }
}

impl KindDef {
    /// The kind of a manifest.
    pub(crate) fn of(api_version: &str, name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|def| def.name == name && def.api_version == api_version)
    }

    /// The kind that people mean by a word: its name, plural or short name, with or without its group.
    pub(crate) fn typed(word: &str) -> Option<&'static Self> {
        let word = word.to_ascii_lowercase();
        let (word, group) = word.split_once('.').map_or((&word[..], None), |(word, group)| (word, Some(group)));
        let names = |def: &Self| def.name.eq_ignore_ascii_case(word) || def.plural == word || def.short.contains(&word);
        KINDS.iter().find(|def| names(def) && group.is_none_or(|group| Some(group) == def.group()))
    }

    fn group(&self) -> Option<&'static str> {
        self.api_version.split_once('/').map(|(group, _)| group)
    }

    /// An object of this kind as kubectl names it: `service/web`.
    pub(crate) fn label(&self, name: &str) -> String {
        let kind = self.name.to_ascii_lowercase();
        match self.group() {
            Some(group) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    }

    /// Name of an object of this kind.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        let named = || crate::cluster::model::Named { namespace: namespace.into(), name: name.into() };
        match self.kind {
            Kind::Node => Key::Node(name.into()),
            Kind::Namespace => Key::Namespace(name.into()),
            Kind::Pod => Key::Pod(named()),
            Kind::Service => Key::Service(named()),
            Kind::EndpointSlice => Key::Slice(named()),
            Kind::ServiceCidr => Key::ServiceCidr(name.into()),
            Kind::NetworkPolicy => Key::Policy(named()),
            Kind::ClusterNetworkPolicy => Key::ClusterPolicy(name.into()),
        }
    }
}

impl Kind {
    /// What it is called.
    pub(crate) fn def(self) -> &'static KindDef {
        // The slice has each kind, as a test shows; the first stands for none.
        const FIRST: &KindDef = &KINDS[0];
        KINDS.iter().find(|def| def.kind == self).unwrap_or(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_name_that_kubectl_knows() {
        for (word, kind) in [
            ("svc", Kind::Service),
            ("Services", Kind::Service),
            ("po", Kind::Pod),
            ("pod", Kind::Pod),
            ("no", Kind::Node),
            ("ns", Kind::Namespace),
            ("eps", Kind::EndpointSlice),
            ("endpointslices.discovery.k8s.io", Kind::EndpointSlice),
            ("servicecidr", Kind::ServiceCidr),
        ] {
            assert_eq!(KindDef::typed(word).map(|def| def.kind), Some(kind), "{word}");
        }
        for word in ["", "deploy", "services.apps", "."] {
            assert!(KindDef::typed(word).is_none(), "{word}");
        }
        assert!(KINDS.iter().all(|def| def.kind.def().name == def.name));
        assert!(KindDef::of("apps/v1", "Service").is_none());
    }
}
