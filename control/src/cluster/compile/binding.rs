//! What the cluster is bound to on this node: the ports of its bridge.

use std::collections::BTreeMap;

use api::{BridgeId, MacAddr, Neighbor, PortId, Route};

use crate::cluster::model::Named;
use crate::store::attachments::Attachment;

/// Where the node's network is: the cluster bridge and what is on it. Made by the store of what is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeContext {
    /// The cluster bridge.
    pub(crate) bridge: BridgeId,
    /// Its LOCAL port, behind which the node is.
    pub(crate) local: Option<Attached>,
    /// The port behind which the outside is.
    pub(crate) uplink: Option<PortId>,
    /// Ports that are bound to pods.
    pub(crate) pods: BTreeMap<Named, Attached>,
    /// Every port that names a pod, whether it has an Ethernet address or not, and whether it is the only one or not.
    pub(crate) bound: BTreeMap<Named, Vec<Bound>>,
    /// Interfaces of containers, on this bridge.
    pub(crate) attachments: BTreeMap<PortId, Attachment>,
    /// Ethernet addresses of those.
    pub(crate) macs: BTreeMap<PortId, MacAddr>,
    /// Neighbours that operators stated, on this bridge.
    pub(crate) neighbors: Vec<Neighbor>,
    /// Routes that operators stated, on this bridge.
    pub(crate) routes: Vec<Route>,
}

/// A port and the Ethernet address behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) port: PortId,
    pub(crate) mac: MacAddr,
}

/// A port that names a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) port: PortId,
    /// `None` while nobody knows it.
    pub(crate) mac: Option<MacAddr>,
    /// The pod sends from its own addresses only.
    pub(crate) spoof: bool,
}

/// The key of `external_ids` that says whether a pod may send from addresses of others.
pub(crate) const SPOOF_GUARD: &str = "spoof-guard";

/// Whether a port is kept to its pod's addresses: unless `external_ids:spoof-guard=off`.
pub(crate) fn is_spoof_guarded(external_ids: &BTreeMap<String, String>) -> bool {
    external_ids.get(SPOOF_GUARD).is_none_or(|value| value != "off")
}

/// The pod that `external_ids:pod=NS/NAME` names; `None` when it names none.
pub(crate) fn pod_of(external_ids: &BTreeMap<String, String>) -> Option<Named> {
    let (namespace, name) = external_ids.get("pod")?.split_once('/')?;
    let fit = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    fit.then(|| Named { namespace: namespace.into(), name: name.into() })
}
