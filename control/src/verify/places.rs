//! Who is where: no address is two things', every pod has its rows and nobody else has any, and it is reached untranslated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::state::{Probe, Ways};
use api::{AddressKey, Endpoint, EndpointKind, Guard, Hop, PortId, Proto, RouteKey, Subject};

use super::live::Live;
use super::oracle::{Oracle, Way};
use super::{Findings, Ground, Only, STRANGER, ended, icmp, packet, told};
use crate::Refusal;
use crate::cluster::compile::binding::Attached;
use crate::cluster::compile::node::gateway;
use crate::cluster::model::{Named, Pod};
use crate::store::attachments::Attachment;

/// A destination port at which nothing is probed for its own sake.
const DISCARD: u16 = 9;

/// No two of all pod, node and service addresses are equal (`addr(E1, a) and addr(E2, a)` only if E1 is E2).
pub(super) fn unique(ground: &Ground<'_>, findings: &mut Findings<'_>) -> bool {
    let mut owners: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    let mut own = |address: IpAddr, name: String| _ = owners.entry(address).or_default().insert(name);
    for pod in ground.pods() {
        pod.addresses.iter().for_each(|address| own(*address, name(pod)));
    }
    for node in ground.objects.nodes.values() {
        node.addresses.iter().for_each(|address| own(*address, format!("node/{}", node.name)));
    }
    for net in ground.own.into_iter().flat_map(|node| node.pod_cidrs.iter().filter_map(gateway)) {
        own(net.addr(), "gateway".to_owned());
    }
    for (container, _, addresses) in containers(ground) {
        addresses.into_iter().for_each(|address| own(address, container.clone()));
    }
    for (id, service) in &ground.objects.services {
        service.cluster_ips.iter().for_each(|address| own(*address, format!("svc/{}/{}", id.namespace, id.name)));
    }
    let mut unique = true;
    for (address, names) in owners.into_iter().filter(|(_, names)| names.len() > 1) {
        unique = false;
        let names: Vec<_> = names.into_iter().collect();
        findings.counter("objects", address.to_string(), "one owner", names.join(", "));
    }
    unique
}

fn name(pod: &Pod) -> String {
    named(&pod.id)
}

fn named(id: &Named) -> String {
    format!("pod/{}/{}", id.namespace, id.name)
}

/// Every row that must be there is, as it must be, and no other.
pub(super) fn rows(ground: &Ground<'_>, oracle: &Oracle<'_>, live: &Live, findings: &mut Findings<'_>) {
    endpoints(ground, live, findings);
    subjects(ground, live, findings);
    guards(ground, oracle, live, findings);
    routes(ground, live, findings);
}

/// Containers that are no pod's: name, place and addresses of each.
fn containers(ground: &Ground<'_>) -> Vec<(String, Attached, Vec<IpAddr>)> {
    let alone = ground.context.attachments.values().filter(|attachment| attachment.pod.is_none());
    let container = |attachment: &Attachment| {
        let at = Attached { port: attachment.port, mac: *ground.context.macs.get(&attachment.port)? };
        let addresses = attachment.interface.addresses.iter().map(|assigned| assigned.address.addr());
        Some((format!("container/{}/{}", attachment.id.container, attachment.id.ifname), at, addresses.collect()))
    };
    alone.filter_map(container).collect()
}

fn at(ground: &Ground<'_>, address: IpAddr) -> AddressKey {
    AddressKey { bridge: ground.bridge, address }
}

/// What must be at an address, and behind what.
type Resident = (String, EndpointKind, Attached);

fn residents(ground: &Ground<'_>, live: &Live) -> BTreeMap<IpAddr, Resident> {
    let mut residents = BTreeMap::new();
    for pod in ground.pods() {
        if let Some(attached) = ground.attached(pod) {
            let resident = (name(pod), EndpointKind::Pod, attached);
            residents.extend(pod.addresses.iter().map(|address| (*address, resident.clone())));
        }
    }
    for (name, attached, addresses) in containers(ground) {
        let resident = (name, EndpointKind::Pod, attached);
        residents.extend(addresses.into_iter().map(|address| (address, resident.clone())));
    }
    if let (Some(local), Some(node)) = (ground.context.local, ground.own) {
        let resident = (format!("node/{}", node.name), EndpointKind::Node, local);
        residents.extend(node.addresses.iter().map(|address| (*address, resident.clone())));
    }
    if let Some(router) = live.routers.get(&ground.bridge) {
        let stack = Attached { port: PortId::STACK, mac: router.mac };
        let gateways = ground.own.into_iter().flat_map(|node| node.pod_cidrs.iter().filter_map(gateway));
        let resident = ("gateway".to_owned(), EndpointKind::Gateway, stack);
        residents.extend(gateways.map(|net| (net.addr(), resident.clone())));
    }
    residents
}

fn endpoints(ground: &Ground<'_>, live: &Live, findings: &mut Findings<'_>) {
    if !live.routers.contains_key(&ground.bridge) {
        findings.counter("router", ground.settings.bridge.clone(), "a router", "none");
    }
    let shown = |name: &str, kind: EndpointKind, at: Attached| {
        format!("{name}, a {kind:?}, at {} behind {}", at.mac, ground.store.port_name(at.port))
    };
    let residents = residents(ground, live);
    for (address, (name, kind, attached)) in &residents {
        let found = live.endpoints.get(&at(ground, *address)).map(|endpoint| {
            let Endpoint { port, mac, kind, name, .. } = endpoint;
            shown(name, *kind, Attached { port: *port, mac: *mac })
        });
        let expected = shown(name, *kind, *attached);
        if found.as_ref() != Some(&expected) {
            findings.counter("endpoint", address.to_string(), expected, found.unwrap_or_else(|| "none".to_owned()));
        }
    }
    for (key, endpoint) in &live.endpoints {
        // External addresses of the node are its own where node ports are served there.
        let external = ground.own.is_some_and(|node| node.external.contains(&key.address));
        let known = residents.contains_key(&key.address) || external && endpoint.kind == EndpointKind::Node;
        if key.bridge != ground.bridge || !known {
            findings.counter("endpoint", key.address.to_string(), "nobody", endpoint.name.clone());
        }
    }
    let mut names: BTreeMap<u64, &str> = BTreeMap::new();
    for endpoint in live.endpoints.values().filter(|endpoint| endpoint.kind == EndpointKind::Pod) {
        let first = names.entry(endpoint.identity).or_insert(&endpoint.name);
        if *first != endpoint.name {
            let what = format!("{} {}", endpoint.name, endpoint.key.address);
            findings.counter("endpoint", what, "an identity of its own", format!("that of {first}"));
        }
    }
}

fn subjects(ground: &Ground<'_>, live: &Live, findings: &mut Findings<'_>) {
    let mut known = BTreeSet::new();
    for pod in ground.pods() {
        let mut identities = BTreeSet::new();
        for address in &pod.addresses {
            known.insert(*address);
            let what = format!("{} {address}", name(pod));
            let Some(subject) = live.subjects.get(&at(ground, *address)) else {
                findings.counter("policy", what, "a subject", "none");
                continue;
            };
            let Subject { name: of, identity, port, ingress, egress, .. } = subject;
            identities.insert(*identity);
            if **of != *name(pod) {
                findings.counter("policy", what.clone(), name(pod), of.to_string());
            }
            let attached = ground.attached(pod).map(|attached| attached.port);
            if *port != attached {
                let shown = |port: Option<PortId>| {
                    port.map_or_else(|| "not here".to_owned(), |port| ground.store.port_name(port))
                };
                findings.counter("policy", what.clone(), format!("attached: {}", shown(attached)), shown(*port));
            }
            let endpoint = live.endpoints.get(&at(ground, *address));
            if endpoint.is_some_and(|endpoint| endpoint.identity != *identity) {
                findings.counter("policy", what.clone(), "the identity of its endpoint", "another");
            }
            for missing in [ingress, egress].into_iter().flatten().filter(|id| !live.rulesets.contains_key(id)) {
                findings.counter("policy", what.clone(), "rules", format!("ruleset {} is not there", missing.0));
            }
        }
        if identities.len() > 1 {
            findings.counter("policy", name(pod), "one identity", format!("{}", identities.len()));
        }
    }
    for (key, subject) in &live.subjects {
        if key.bridge != ground.bridge || !known.contains(&key.address) {
            findings.counter("policy", key.address.to_string(), "nobody", format!("a subject: {}", subject.name));
        }
    }
}

fn guards(ground: &Ground<'_>, oracle: &Oracle<'_>, live: &Live, findings: &mut Findings<'_>) {
    let bound = ground.context.bound.iter().flat_map(|(id, ports)| ports.iter().map(move |at| (id, at)));
    let mut known = BTreeSet::new();
    for (id, at) in bound {
        known.insert(at.port);
        let what = format!("{} at {}", named(id), ground.store.port_name(at.port));
        let Some(guard) = live.guards.get(&at.port) else {
            findings.counter("guard", what, "a guard", "none");
            continue;
        };
        let pod = ground.pods().find(|pod| pod.id == *id && !pod.addresses.is_empty());
        // Of several ports of a pod one is its own.
        let pod = pod.filter(|pod| ground.attached(pod).is_some_and(|attached| attached.port == at.port));
        let Guard { bridge, name: of, mac, addresses, spoof, isolated, local, groups, .. } = guard;
        let mut check = |field: &str, is: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug, same: bool| {
            if !same {
                findings.counter("guard", what.clone(), format!("{field} {is:?}"), format!("{found:?}"));
            }
        };
        let expected: BTreeSet<_> = pod.into_iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
        let found: BTreeSet<_> = addresses.iter().copied().collect();
        let node = ground.context.local.map(|local| local.port);
        let own = at.mac.unwrap_or_default();
        let opted_out = ground.store.port(at.port).and_then(|port| port.external_ids.get("spoof-guard"));
        let wanted = opted_out.is_none_or(|word| word != "off");
        check("bridge", &ground.bridge, bridge, *bridge == ground.bridge);
        check("name", &named(id), of, **of == *named(id));
        check("mac", &own, mac, *mac == own);
        check("addresses", &expected, &found, expected == found);
        check("spoof guard", &wanted, spoof, wanted == *spoof);
        check("isolated", &pod.is_none(), isolated, pod.is_none() == isolated.is_some());
        check("local", &node, local, node == *local);
        if let Some(pod) = pod {
            let heard = oracle.deciding(pod, Way::Ingress).isolators.is_empty();
            check("groups", &heard, groups, heard == *groups);
        }
    }
    for (name, at, addresses) in containers(ground).into_iter().filter(|(_, _, addresses)| !addresses.is_empty()) {
        known.insert(at.port);
        let expected: BTreeSet<_> = addresses.into_iter().collect();
        let found = live.guards.get(&at.port);
        let own = found.is_some_and(|guard| {
            guard.mac == at.mac
                && guard.spoof
                && guard.isolated.is_none()
                && guard.addresses.iter().copied().collect::<BTreeSet<_>>() == expected
        });
        if !own {
            findings.counter("guard", name, format!("{} {expected:?}", at.mac), format!("{found:?}"));
        }
    }
    for (port, guard) in live.guards.iter().filter(|(port, _)| !known.contains(port)) {
        findings.counter("guard", ground.store.port_name(*port), "none", format!("that of {}", guard.name));
    }
}

fn routes(ground: &Ground<'_>, live: &Live, findings: &mut Findings<'_>) {
    let stated = ground.store.static_routes();
    let mut known: BTreeSet<RouteKey> = stated.keys().filter(|key| key.bridge == ground.bridge).copied().collect();
    for key in &known {
        let (expected, found) = (stated.get(key).map(|route| route.to), live.routes.get(key).map(|route| route.to));
        if expected != found {
            findings.counter("route", key.prefix.to_string(), format!("{expected:?}"), format!("{found:?}"));
        }
    }
    for node in ground.objects.nodes.values() {
        for prefix in &node.pod_cidrs {
            let key = RouteKey { bridge: ground.bridge, prefix: prefix.trunc() };
            if !known.insert(key) && stated.contains_key(&key) {
                continue;
            }
            let found = live.routes.get(&key).map(|route| route.to);
            let here = *node.name == *ground.node;
            // How other nodes are reached is theirs and the tunnels' affair; that it is not here is ours.
            if found.is_none() || here != (found == Some(Hop::Endpoint)) {
                let expected = if here { "to endpoints here" } else { "to another node" };
                let what = format!("{prefix} of node/{}", node.name);
                let found = found.map_or_else(|| "none".to_owned(), |hop| format!("{hop:?}"));
                findings.counter("route", what, expected, found);
            }
        }
    }
    for (key, route) in live.routes.iter().filter(|(key, _)| !known.contains(key)) {
        findings.counter("route", key.prefix.to_string(), "none", format!("{:?}", route.to));
    }
}

/// A walk that must end so.
struct Wanted {
    what: String,
    probe: Probe,
    end: Sort,
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// By this port, as it came.
    Untranslated(PortId),
    /// Dropped for one of these.
    Dropped(&'static [&'static str]),
}

/// Walks by which pods are reached from their node, and reach it; and that they speak for nobody else.
///
/// # Errors
/// When it takes too long.
pub(super) fn reached(
    ground: &Ground<'_>,
    live: &Live,
    only: &Only,
    findings: &mut Findings<'_>,
) -> Result<(), Refusal> {
    let residents = residents(ground, live);
    let of_kind = |kind: EndpointKind, v4: bool| {
        let of = residents.iter().filter(move |(address, (_, of, _))| *of == kind && address.is_ipv4() == v4);
        of.map(|(address, (name, _, at))| (*address, name.clone(), *at))
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut want = |from: &str, to: &str, probe: Probe, end: Sort| {
        if only.is_from(probe.src) && only.is_to(probe.dst) {
            wanted.push(Wanted { what: told(from, to, probe.proto, probe.dport), probe, end });
        }
    };
    for (&address, (name, _, at)) in residents.iter().filter(|(_, (_, kind, _))| *kind == EndpointKind::Pod) {
        let (v4, icmp, pod) = (address.is_ipv4(), icmp(address), format!("{name} {address}"));
        // Row N18, and agents of a node reach every pod of it.
        for (node, node_name, local) in of_kind(EndpointKind::Node, v4) {
            let node_name = format!("{node_name} {node}");
            for (proto, port) in [(Proto::Tcp as u8, DISCARD), (Proto::Udp as u8, DISCARD), (icmp, 0)] {
                let probe = packet(local, (node, address), proto, port, None);
                want(&node_name, &pod, probe, Sort::Untranslated(at.port));
            }
            want(&pod, &node_name, packet(*at, (address, node), icmp, 0, None), Sort::Untranslated(local.port));
        }
        for (gateway, _, stack) in of_kind(EndpointKind::Gateway, v4) {
            let probe = packet(*at, (address, gateway), icmp, 0, None);
            want(&pod, &format!("gateway {gateway}"), probe, Sort::Untranslated(stack.port));
            let guarded = live.guards.get(&at.port).is_some_and(|guard| guard.spoof);
            if guarded {
                let spoofed = Sort::Dropped(&["spoofed"]);
                let stranger = Attached { mac: STRANGER, ..*at };
                let probe = packet(stranger, (address, gateway), icmp, 0, None);
                want(&format!("{pod} at {STRANGER}"), "gateway", probe, spoofed);
                let other = if v4 { [198, 18, 77, 77].into() } else { [0x2001, 2, 0, 0x77, 0, 0, 0, 0x77].into() };
                want(&format!("{other} by {name}"), "gateway", packet(*at, (other, gateway), icmp, 0, None), spoofed);
            }
        }
    }
    let probes: Vec<Probe> = wanted.iter().map(|wanted| wanted.probe.clone()).collect();
    let Some(walked) = findings.walk(&probes)? else { return Ok(()) };
    for (Wanted { what, probe, end }, walked) in wanted.into_iter().zip(walked) {
        let same = walked.tuple.is_some_and(|tuple| (tuple.src.ip(), tuple.dst.ip()) == (probe.src, probe.dst));
        let (table, holds, expected) = match end {
            Sort::Untranslated(port) => {
                let holds = walked.refused.is_none() && walked.out == Ways::One(port) && same;
                ("endpoint", holds, format!("out by {} untranslated", ground.store.port_name(port)))
            }
            Sort::Dropped(reasons) => {
                let holds = walked.refused.is_some_and(|reason| reasons.contains(&reason));
                ("guard", holds, format!("dropped: {}", reasons.join(" or ")))
            }
        };
        if !holds {
            findings.counter(table, what, expected, ended(&walked, ground.store));
        }
    }
    Ok(())
}
