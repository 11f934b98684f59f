//! EndpointSlices: who serves, and where. Defaults are those of the API server, and rule E3.

use std::collections::BTreeSet;

use super::{Checked, check, discovery, labels};
use crate::cluster::model::{Family, Hints, Named, Slice, SliceEndpoint, SlicePort};
use crate::cluster::objects::Texts;

/// Endpoints of a slice at most (the API server's limit).
const ENDPOINT_LIMIT: usize = 1000;
/// Ports of a slice at most (the API server's limit).
const PORT_LIMIT: usize = 20_000;
/// Zones, and nodes, that one endpoint is hinted for at most (the API server's limit).
const HINT_LIMIT: usize = 8;
/// The label that says which service a slice is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn slice(object: discovery::EndpointSlice, id: Named, texts: &mut Texts) -> Checked<Slice> {
    let labels = labels(&object.metadata, texts)?;
    let service = match labels.get(SERVICE_NAME).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            check::label("metadata.labels[kubernetes.io/service-name]", name)?;
            Some(Named { namespace: id.namespace.clone(), name: name.clone() })
        }
    };
    let family = match &object.address_type[..] {
        "" => return Err("addressType: must be given".to_owned()),
        "FQDN" => Family::Name,
        other => check::family("addressType", other)
            .map_err(|_| check::fault("addressType", other, "must be IPv4, IPv6 or FQDN"))?,
    };
    if object.endpoints.len() > ENDPOINT_LIMIT {
        let rule = format!("may hold {ENDPOINT_LIMIT} endpoints");
        return Err(check::fault("endpoints", object.endpoints.len(), &rule));
    }
    let ports = ports(&object.ports.unwrap_or_default(), texts)?;
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for (i, endpoint) in object.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() || endpoint.addresses.len() > 100 {
            let field = format_args!("endpoints[{i}].addresses");
            return Err(format!("{field}: {} addresses: must be 1 to 100", endpoint.addresses.len()));
        }
        // Rule E2: names are nothing to a switch.
        if family != Family::Name {
            endpoints.push(one(i, endpoint, family, texts)?);
        }
    }
    Ok(Slice { id, service, family, ports, endpoints, ours: false })
}

fn ports(ports: &[discovery::EndpointPort], texts: &mut Texts) -> Checked<Vec<SlicePort>> {
    if ports.len() > PORT_LIMIT {
        return Err(check::fault("ports", ports.len(), &format!("may hold {PORT_LIMIT} ports")));
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            check::label(&format!("ports[{i}].name"), name)?;
        }
        if !names.insert(name) {
            return Err(check::fault(format_args!("ports[{i}].name"), name, "another port has this name"));
        }
        let proto = check::protocol(format_args!("ports[{i}].protocol"), port.protocol.as_deref())?;
        // Rule E4: one without a number is skipped.
        if let Some(number) = port.port {
            let number = check::port(format_args!("ports[{i}].port"), number)?;
            checked.push(SlicePort { name: texts.of(name), proto, port: number });
        }
    }
    Ok(checked)
}

fn one(i: usize, endpoint: &discovery::Endpoint, family: Family, texts: &mut Texts) -> Checked<SliceEndpoint> {
    let mut addresses = Vec::with_capacity(1);
    for (j, text) in endpoint.addresses.iter().enumerate() {
        let field = format_args!("endpoints[{i}].addresses[{j}]");
        let address = check::address(field, text)?;
        if Family::of(&address) != family {
            let rule = format!("must be an {} address, as addressType says", family.name());
            return Err(check::fault(format_args!("endpoints[{i}].addresses[{j}]"), text, &rule));
        }
        addresses.push(address);
    }
    let Some(&address) = addresses.first() else {
        return Err(format!("endpoints[{i}].addresses: must hold an address"));
    };
    let conditions = endpoint.conditions.as_ref();
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(SliceEndpoint {
        address,
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        node: endpoint.node_name.as_deref().map(|node| texts.of(node)),
        zone: endpoint.zone.as_deref().filter(|zone| !zone.is_empty()).map(|zone| texts.of(zone)),
        hints: hints(i, endpoint, texts)?,
        pod: target.and_then(|target| target.name.as_deref()).map(|name| texts.of(name)),
    })
}

/// `hints`; `None` when there is none of either kind.
fn hints(i: usize, endpoint: &discovery::Endpoint, texts: &mut Texts) -> Checked<Option<Box<Hints>>> {
    let Some(hints) = &endpoint.hints else { return Ok(None) };
    let zones = hints.for_zones.iter().flatten().map(|zone| &zone.name[..]);
    let nodes = hints.for_nodes.iter().flatten().map(|node| &node.name[..]);
    let mut named = |field: &str, names: Vec<&str>| {
        let field = format!("endpoints[{i}].hints.{field}");
        if names.len() > HINT_LIMIT {
            return Err(check::fault(field, names.len(), &format!("may hold {HINT_LIMIT} names")));
        }
        let each = |(j, name): (usize, &&str)| match name.is_empty() {
            true => Err(format!("{field}[{j}].name: must be given")),
            false => Ok(texts.of(name)),
        };
        names.iter().enumerate().map(each).collect::<Checked<Vec<_>>>()
    };
    let (zones, nodes) = (named("forZones", zones.collect())?, named("forNodes", nodes.collect())?);
    Ok((!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Hints { zones, nodes })))
}
