//! Nodes: the prefixes of their pods, their addresses, whether they stay.

use super::{Checked, check, core, labels};
use crate::cluster::model::{Family, Node, Text};
use crate::cluster::objects::Texts;

/// Taint that the cluster autoscaler sets on a node before it takes it away (`cluster-autoscaler/utils/taints`).
const DOOMED: &str = "ToBeDeletedByClusterAutoscaler";

pub(super) fn node(object: core::Node, name: Text, texts: &mut Texts) -> Checked<Node> {
    let labels = labels(&object.metadata, texts)?;
    let spec = object.spec.unwrap_or_default();
    let first = spec.pod_cidr.filter(|cidr| !cidr.is_empty());
    let cidrs = spec.pod_cidrs.unwrap_or_default();
    let (field, cidrs) = match (first, cidrs.first()) {
        (Some(only), None) => ("spec.podCIDR", vec![only]),
        (Some(first), Some(of_list)) if first != *of_list => {
            return Err(check::fault("spec.podCIDRs[0]", of_list, "must be that of spec.podCIDR"));
        }
        _ => ("spec.podCIDRs", cidrs),
    };
    let mut pod_cidrs = Vec::new();
    for (i, text) in cidrs.iter().enumerate() {
        let net = check::prefix(format_args!("{field}[{i}]"), text)?;
        if let Some(other) = pod_cidrs.iter().find(|other| super::super::taken::overlap(other, &net)) {
            return Err(check::fault(
                format_args!("{field}[{i}]"),
                text,
                &format!("overlaps {other}, which stands before it"),
            ));
        }
        pod_cidrs.push(net);
    }
    let families: Vec<_> = pod_cidrs.iter().map(|net| Family::of(&net.addr())).collect();
    check::one_each(field, &cidrs, &families)?;
    let (mut addresses, mut external) = (Vec::new(), Vec::new());
    for (i, address) in object.status.and_then(|status| status.addresses).into_iter().flatten().enumerate() {
        let list = match &address.type_[..] {
            "InternalIP" => &mut addresses,
            "ExternalIP" => &mut external,
            _ => continue,
        };
        list.push(check::address(format_args!("status.addresses[{i}].address"), &address.address)?);
    }
    external.retain(|address| !addresses.contains(address));
    let leaving = match object.metadata.deletion_timestamp {
        Some(_) => Some("is being deleted"),
        None if spec.taints.iter().flatten().any(|taint| taint.key == DOOMED) => {
            Some("has the taint ToBeDeletedByClusterAutoscaler")
        }
        None => None,
    };
    Ok(Node { name, labels, pod_cidrs, addresses, external, leaving })
}
