//! Which endpoints of a service a new connection may go to, for one port and one family.
//!
//! ```text
//!   cluster  the ready ones, those of them that hints name for this node or its zone;
//!            when none is ready anywhere, those that still serve while they terminate, whatever the hints
//!   local    the ready ones of this node; when there is none, those of this node that serve while they terminate
//! ```
//!
//! Hints count only when every ready endpoint has some and one of them names this node (else this zone): one that has none
//! stands for everybody, and nobody shall be left without. A Local policy knows no hints. All of it is
//! `CategorizeEndpoints` of kube-proxy (`pkg/proxy/topology.go` of Kubernetes).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::here::Here;
use crate::cluster::model::{Family, ServicePort, Slice, SliceEndpoint, Text};

/// The endpoints behind a port, of one family, each address and port once, in their order.
#[derive(Debug)]
pub(super) struct Endpoints(Vec<Standing>);

/// An endpoint, as far as its use on this node depends on it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    address: SocketAddr,
    ready: bool,
    serving: bool,
    terminating: bool,
    /// On this node.
    local: bool,
    for_nodes: Hint,
    for_zones: Hint,
}

/// What the hints of one kind say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// There are none.
    Absent,
    /// They name others.
    Others,
    /// They name us.
    Us,
}

impl Hint {
    fn of(names: &[Text], us: Option<&Text>) -> Self {
        match names {
            [] => Self::Absent,
            names if us.is_some_and(|us| names.contains(us)) => Self::Us,
            _ => Self::Others,
        }
    }
}

impl Standing {
    fn of(endpoint: &SliceEndpoint, port: u16, here: &Here) -> Self {
        let hints = endpoint.hints.as_deref();
        Self {
            address: SocketAddr::new(endpoint.address, port),
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            local: endpoint.node.as_ref() == Some(&here.name),
            for_nodes: hints.map_or(Hint::Absent, |hints| Hint::of(&hints.nodes, Some(&here.name))),
            for_zones: hints.map_or(Hint::Absent, |hints| Hint::of(&hints.zones, here.zone.as_ref())),
        }
    }

    /// It serves as long as it terminates: what is used when nothing is ready.
    fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }
}

impl Endpoints {
    /// The endpoints of a service's slices for one of its ports.
    pub(super) fn of(slices: &[&Slice], family: Family, port: &ServicePort, here: &Here) -> Self {
        let mut all = Vec::new();
        for slice in slices.iter().filter(|slice| slice.family == family) {
            // By name, so that pods with different numbers serve one port (rule E4).
            for number in slice.ports.iter().filter(|p| p.name == port.name && p.proto == port.proto) {
                let endpoints = slice.endpoints.iter().filter(|endpoint| Family::of(&endpoint.address) == family);
                all.extend(endpoints.map(|endpoint| Standing::of(endpoint, number.port, here)));
            }
        }
        // In the order of preference: of two of one address and port, what does not terminate counts, since an address is
        // used again while the old pod's object is still there (rule E1).
        all.sort_by_key(|s| (s.address, s.terminating, !s.ready, !s.serving));
        all.dedup_by_key(|s| s.address);
        Self(all)
    }

    /// The cluster set.
    pub(super) fn cluster(&self) -> Arc<[SocketAddr]> {
        if !self.0.iter().any(|s| s.ready) {
            return self.list(Standing::is_last_resort);
        }
        let hint = [(|s| s.for_nodes) as fn(&Standing) -> Hint, |s| s.for_zones].into_iter().find(|hint| {
            let hints = || self.0.iter().filter(|s| s.ready).map(hint);
            hints().all(|hint| hint != Hint::Absent) && hints().any(|hint| hint == Hint::Us)
        });
        self.list(|s| s.ready && hint.is_none_or(|hint| hint(s) == Hint::Us))
    }

    /// The local set.
    pub(super) fn local(&self) -> Arc<[SocketAddr]> {
        match self.0.iter().any(|s| s.local && s.ready) {
            true => self.list(|s| s.local && s.ready),
            false => self.list(|s| s.local && s.is_last_resort()),
        }
    }

    /// Those that serve, beside the sets that are used.
    pub(super) fn beside(&self, used: &[&[SocketAddr]]) -> Arc<[SocketAddr]> {
        self.list(|s| s.serving && used.iter().all(|set| set.binary_search(&s.address).is_err()))
    }

    /// Addresses of the ready ones of this node.
    pub(super) fn ready_here(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().filter(|s| s.local && s.ready).map(|s| s.address.ip())
    }

    fn list(&self, wanted: impl Fn(&Standing) -> bool) -> Arc<[SocketAddr]> {
        self.0.iter().filter(|standing| wanted(standing)).map(|standing| standing.address).collect()
    }
}
