//! Services: at every address the endpoints that are ready, as kube-proxy would have them, and nobody else's address.
//!
//! Written from the rules (S1 to S6, E1 to E5, T1 to T5), beside what compiles them for the switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::state::{Probe, Walked};
use api::{Choice, Proto, ServiceKey};
use ipnet::IpNet;

use super::live::Live;
use super::oracle::{Oracle, Side, Way};
use super::{Entrance, Findings, Ground, Only, ended, packet, told};
use crate::cluster::model::{Policy, Service, ServiceKind, ServicePort, Slice, SliceEndpoint};
use crate::{NodePortAddresses, Refusal};

/// Backends.
type Set = BTreeSet<SocketAddr>;
/// Reasons of who finds no backend.
const NOBODY: [&str; 2] = ["no-backend", "no-local-endpoint"];

/// What a service is to be at one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    backends: Set,
    /// For clients from beyond, under traffic policy Local.
    local: Option<Set>,
    sources: Option<BTreeSet<IpNet>>,
    affinity: Option<u32>,
    choice: Choice,
    elsewhere: bool,
    external: bool,
}

/// Prove services: rows, and walks to each of them.
///
/// # Errors
/// When it takes too long.
pub(super) fn prove(
    ground: &Ground<'_>,
    oracle: &Oracle<'_>,
    live: &Live,
    only: &Only,
    findings: &mut Findings<'_>,
) -> Result<(), Refusal> {
    let wanted = wanted(ground);
    let mut places = wanted.clone();
    places.retain(|key, _| only.is_to(key.address));
    for (key, wanted) in &places {
        compare(key, wanted, live, findings);
    }
    for (key, service) in live.services.iter().filter(|(key, _)| only.is_to(key.address) && !wanted.contains_key(key)) {
        findings.counter("service", shown(key), "none", service.name.to_string());
    }
    walks(ground, oracle, only, &places, findings)
}

fn shown(key: &ServiceKey) -> String {
    format!("{} {}", SocketAddr::new(key.address, key.port), key.proto)
}

fn list(set: &Set) -> String {
    let all: Vec<_> = set.iter().take(8).map(ToString::to_string).collect();
    match (all.is_empty(), set.len() > all.len()) {
        (true, _) => "nobody".to_owned(),
        (false, false) => all.join(", "),
        (false, true) => format!("{} and {} more", all.join(", "), set.len() - all.len()),
    }
}

fn compare(key: &ServiceKey, wanted: &Wanted, live: &Live, findings: &mut Findings<'_>) {
    let what = format!("{} of {}", shown(key), wanted.name);
    let Some(service) = live.services.get(key) else {
        findings.counter("service", what, "a service", "none");
        return;
    };
    let set = |addresses: &[SocketAddr]| addresses.iter().copied().collect::<Set>();
    let external = service.external.as_deref();
    let found = Wanted {
        name: service.name.to_string(),
        backends: set(&service.backends),
        local: external.and_then(|external| external.local.as_deref()).map(set),
        sources: external.and_then(|external| external.sources.as_deref()).map(|nets| nets.iter().copied().collect()),
        affinity: service.affinity,
        choice: service.choice,
        elsewhere: service.elsewhere,
        external: external.is_some(),
    };
    if found == *wanted {
        return;
    }
    // What differs first is what people want to know first.
    let (one, other) = (&wanted, &found);
    let local = |wanted: &Wanted| wanted.local.as_ref().map_or_else(|| "any".to_owned(), list);
    let (expected, found) = if one.name != other.name {
        (one.name.clone(), other.name.clone())
    } else if one.backends != other.backends {
        (list(&one.backends), list(&other.backends))
    } else if one.local != other.local {
        (format!("to clients from beyond: {}", local(one)), local(other))
    } else if one.sources != other.sources {
        (format!("clients of {:?}", one.sources), format!("{:?}", other.sources))
    } else {
        let rest = |w: &Wanted| {
            format!(
                "affinity {:?}, choice {:?}, elsewhere {}, external {}",
                w.affinity, w.choice, w.elsewhere, w.external
            )
        };
        (rest(one), rest(other))
    };
    findings.counter("service", what, expected, found);
}

/// All that is to be there. Of two services with one address and port the first has it: by cluster address before all else,
/// then by age, then by name.
fn wanted(ground: &Ground<'_>) -> BTreeMap<ServiceKey, Wanted> {
    let mut services: Vec<&Service> = ground.objects.services.values().map(AsRef::as_ref).collect();
    services.retain(|service| is_programmed(service));
    services.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let mut wanted = BTreeMap::new();
    for beyond in [false, true] {
        for service in &services {
            let names = ground.objects.slices_of.get(&service.id).into_iter().flatten();
            let slices: Vec<&Slice> =
                names.filter_map(|name| ground.objects.slices.get(name)).map(AsRef::as_ref).collect();
            for port in &service.ports {
                places(ground, service, port, &slices, beyond, &mut wanted);
            }
        }
    }
    wanted
}

/// S1.
fn is_programmed(service: &Service) -> bool {
    let foreign = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    !matches!(service.kind, ServiceKind::ExternalName | ServiceKind::Headless)
        && !service.cluster_ips.is_empty()
        && !foreign.iter().any(|label| service.labels.contains_key(*label))
}

fn places(
    ground: &Ground<'_>,
    service: &Service,
    port: &ServicePort,
    slices: &[&Slice],
    beyond: bool,
    wanted: &mut BTreeMap<ServiceKey, Wanted>,
) {
    let id = &service.id;
    let colon = if port.name.is_empty() { "" } else { ":" };
    let name = format!("{}/{}{colon}{}", id.namespace, id.name, port.name);
    let asks = service.annotations.get("vswitch.io/load-balancing");
    let choice = if asks.is_some_and(|asks| **asks == *"maglev") { Choice::Maglev } else { Choice::Random };
    let mut place = |address: IpAddr, number: u16, policy: Policy, external: bool, sources: Option<BTreeSet<IpNet>>| {
        // S3: what is of a family in which it has no cluster address is not there.
        if !service.cluster_ips.iter().any(|own| own.is_ipv4() == address.is_ipv4()) {
            return;
        }
        let (cluster, local) = sets(ground, slices, port, address.is_ipv4());
        let is_local = policy == Policy::Local;
        let backends = if is_local && !external { local.clone() } else { cluster.clone() };
        let used = if is_local { &local } else { &cluster };
        let elsewhere = used.is_empty() && !cluster.is_empty();
        let local = (is_local && external).then_some(local);
        let key = ServiceKey { address, proto: port.proto, port: number };
        let affinity = service.affinity;
        let name = name.clone();
        let new = Wanted { name, backends, local, sources, affinity, choice, elsewhere, external };
        wanted.entry(key).or_insert(new);
    };
    let external = &service.external;
    if !beyond {
        service.cluster_ips.iter().for_each(|ip| place(*ip, port.port, service.internal_policy, false, None));
        return;
    }
    for ingress in external.ingress.iter().filter(|ingress| !ingress.proxied) {
        place(ingress.address, port.port, external.policy, true, sources(ground, service, ingress.address));
    }
    external.ips.iter().for_each(|ip| place(*ip, port.port, external.policy, true, None));
    if let Some(number) = port.node_port {
        node_ports(ground).into_iter().for_each(|address| place(address, number, external.policy, true, None));
    }
}

/// V7.
fn node_ports(ground: &Ground<'_>) -> Vec<IpAddr> {
    let Some(node) = ground.own else { return Vec::new() };
    match &ground.settings.node_ports {
        NodePortAddresses::Primary => node.primary().collect(),
        NodePortAddresses::Within(nets) => {
            node.all_addresses().filter(|address| nets.iter().any(|net| net.contains(address))).collect()
        }
    }
}

/// V11.
fn sources(ground: &Ground<'_>, service: &Service, address: IpAddr) -> Option<BTreeSet<IpNet>> {
    let same = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
    let mut nets: BTreeSet<IpNet> = service.external.sources.iter().filter(same).copied().collect();
    if nets.is_empty() || nets.iter().any(|net| net.prefix_len() == 0) {
        return None;
    }
    let node = ground.own.and_then(|node| node.primary().find(|own| own.is_ipv4() == address.is_ipv4()));
    if node.is_some_and(|node| nets.iter().any(|net| net.contains(&node))) {
        nets.insert(address.into());
    }
    Some(nets)
}

/// The cluster set and the local set of a port in one family (1.3).
fn sets(ground: &Ground<'_>, slices: &[&Slice], port: &ServicePort, v4: bool) -> (Set, Set) {
    // E1: of two with one address and port, the one that does not terminate; then the readier.
    let mut endpoints: BTreeMap<SocketAddr, &SliceEndpoint> = BTreeMap::new();
    for slice in slices {
        // E4: by name, and each slice has its own number.
        for number in slice.ports.iter().filter(|of| of.name == port.name && of.proto == port.proto) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == v4) {
                let rank = |e: &SliceEndpoint| (e.terminating, !e.ready, !e.serving);
                let place = endpoints.entry(SocketAddr::new(endpoint.address, number.port)).or_insert(endpoint);
                if rank(endpoint) < rank(place) {
                    *place = endpoint;
                }
            }
        }
    }
    let of = |wanted: &dyn Fn(&SliceEndpoint) -> bool| -> Set {
        endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(address, _)| *address).collect()
    };
    let last = |e: &SliceEndpoint| e.serving && e.terminating;
    let here = |e: &SliceEndpoint| e.node.as_deref() == Some(ground.node);
    let local = of(&|e| here(e) && e.ready);
    let local = if local.is_empty() { of(&|e| here(e) && last(e)) } else { local };
    let ready = of(&|e| e.ready);
    if ready.is_empty() {
        return (of(&last), local);
    }
    let nodes = |e: &SliceEndpoint| e.hints.as_ref().map(|hints| hints.nodes.clone()).unwrap_or_default();
    let zones = |e: &SliceEndpoint| e.hints.as_ref().map(|hints| hints.zones.clone()).unwrap_or_default();
    let zone = ground.own.and_then(|node| node.zone());
    let all_ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let hinted = of(&|e| e.ready && nodes(e).iter().any(|node| **node == *ground.node));
    if all_ready().all(|e| !nodes(e).is_empty()) && !hinted.is_empty() {
        return (hinted, local);
    }
    let hinted = of(&|e| e.ready && zones(e).iter().any(|of| Some(of) == zone));
    if all_ready().all(|e| !zones(e).is_empty()) && !hinted.is_empty() {
        return (hinted, local);
    }
    (ready, local)
}

/// A walk to a service.
struct Walk<'a> {
    from: String,
    /// Whose policies are asked; `None` for the node.
    side: Option<Side<'a>>,
    place: &'a ServiceKey,
    wanted: &'a Wanted,
}

/// From the node, and from a pod, to each service of which all comers meet the same backends; each pod has its turn.
fn walks(
    ground: &Ground<'_>,
    oracle: &Oracle<'_>,
    only: &Only,
    places: &BTreeMap<ServiceKey, Wanted>,
    findings: &mut Findings<'_>,
) -> Result<(), Refusal> {
    let pods: Vec<_> = ground.pods().filter_map(|pod| Some((pod, ground.attached(pod)?))).collect();
    let mut turns = [0usize; 2];
    let (mut probes, mut walks) = (Vec::<Probe>::new(), Vec::<Walk<'_>>::new());
    for (key, wanted) in places {
        let v4 = key.address.is_ipv4();
        let mut want = |entrance: Entrance, address: IpAddr| {
            let wanted = only.is_from(address) && wanted.sources.is_none();
            if wanted {
                probes.push(packet(entrance, (address, key.address), key.proto as u8, key.port, None));
            }
            wanted
        };
        let node = ground.own.and_then(|node| node.primary().find(|own| own.is_ipv4() == v4));
        if let (Some(local), Some(node)) = (ground.context.local, node)
            && want(local, node)
        {
            walks.push(Walk { from: format!("node/{} {node}", ground.node), side: None, place: key, wanted });
        }
        let mut of_family = pods.iter().filter_map(|(pod, at)| {
            let address = *pod.addresses.iter().find(|address| address.is_ipv4() == v4)?;
            Some((*pod, *at, address))
        });
        let turn = turns.get_mut(usize::from(v4)).map_or(0, |turn| std::mem::replace(turn, *turn + 1));
        let count = of_family.clone().count().max(1);
        if let Some((pod, at, address)) = of_family.nth(turn % count)
            && want(at, address)
        {
            let from = format!("pod/{}/{} {address}", pod.id.namespace, pod.id.name);
            walks.push(Walk { from, side: Some(Side { address, pod: Some(pod) }), place: key, wanted });
        }
    }
    let Some(walked) = findings.walk(&probes)? else { return Ok(()) };
    for (walk, walked) in walks.iter().zip(&walked) {
        if let Some(expected) = complaint(ground, oracle, walk, walked) {
            let what = told(&walk.from, &walk.place.address.to_string(), walk.place.proto as u8, walk.place.port);
            findings.counter("service", what, expected, ended(walked, ground.store));
        }
    }
    Ok(())
}

/// What a walk should have come to, if it did not.
fn complaint(ground: &Ground<'_>, oracle: &Oracle<'_>, walk: &Walk<'_>, walked: &Walked) -> Option<String> {
    let Walk { wanted, place, .. } = walk;
    if wanted.backends.is_empty() {
        let refused = walked.refused.is_some_and(|reason| NOBODY.contains(&reason));
        return (!refused).then(|| "to find no backend".to_owned());
    }
    let expected = || Some(format!("to one of {}", list(&wanted.backends)));
    let Some(backend) = walked.tuple.map(|tuple| tuple.dst).filter(|dst| wanted.backends.contains(dst)) else {
        return expected();
    };
    let pod = ground.pods().find(|pod| pod.addresses.contains(&backend.ip()));
    let attached = pod.and_then(|pod| ground.attached(pod));
    let to = Side { address: backend.ip(), pod };
    let denied = walk.side.and_then(|from| denied(oracle, &from, &to, (place.proto, backend.port())));
    match (denied, walked.refused) {
        (Some(reason), refused) => (refused != Some(reason)).then(|| format!("dropped: {reason}")),
        (None, None) => match (attached, walked.out) {
            (Some(at), out) if out != api::state::Ways::One(at.port) => expected(),
            _ => None,
        },
        // Who is not here is not reached from here.
        (None, Some(_)) => attached.and_then(|_| expected()),
    }
}

/// Why policies do not let a pod through to a backend (N16: as it is translated).
fn denied(oracle: &Oracle<'_>, from: &Side<'_>, to: &Side<'_>, port: (Proto, u16)) -> Option<&'static str> {
    let itself = from.is_same_pod(to);
    let ends = [(from, to, Way::Egress, "policy-egress"), (to, from, Way::Ingress, "policy-ingress")];
    ends.into_iter().find_map(|(own, other, way, reason)| {
        let deciding = oracle.deciding(own.pod?, way);
        let met = oracle.met(&deciding, other);
        let ruling = oracle.judge((&deciding, way), &met, (to, Some(port)), itself);
        (!ruling.allow).then_some(reason)
    })
}
