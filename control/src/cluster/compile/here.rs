//! What of this node its services depend on.

use std::net::IpAddr;

use crate::cluster::model::{Node, Text};
use crate::{NodePortAddresses, NodeSettings};

/// This node, as services see it. Without a Node object it has a name and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Here {
    /// Endpoints are local whose `nodeName` is this.
    pub(super) name: Text,
    /// Its zone, which hints may name.
    pub(super) zone: Option<Text>,
    /// Its first address of each family.
    pub(super) primary: Vec<IpAddr>,
    /// Where node ports are served. Never a loopback address: no Node object may have one.
    pub(super) node_ports: Vec<IpAddr>,
    /// All its addresses.
    pub(super) all: Vec<IpAddr>,
}

impl Here {
    pub(super) fn of(settings: &NodeSettings, node: Option<&Node>) -> Self {
        let primary: Vec<_> = node.into_iter().flat_map(Node::primary).collect();
        let node_ports = match &settings.node_ports {
            NodePortAddresses::Primary => primary.clone(),
            NodePortAddresses::Within(prefixes) => {
                let wanted = |address: &IpAddr| prefixes.iter().any(|prefix| prefix.contains(address));
                node.into_iter().flat_map(Node::all_addresses).filter(wanted).collect()
            }
        };
        Self {
            name: settings.name.as_str().into(),
            zone: node.and_then(|node| node.zone().cloned()),
            primary,
            node_ports,
            all: node.into_iter().flat_map(Node::all_addresses).collect(),
        }
    }

    /// Its first address of the family of another.
    pub(super) fn primary_beside(&self, other: IpAddr) -> Option<IpAddr> {
        self.primary.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }
}
