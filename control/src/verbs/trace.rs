//! `trace`: from names to the packet they mean, and from what became of it to names.
//!
//! It works for every pod of the cluster's state. One that is not attached here is traced as if its packets came in
//! where those of strangers do, with a note that says so: where something is not, is no verdict.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::reply::Trace;
use api::request::Protocol;
use api::state::{Probe, Tuple};
use api::{AddressKey, MacAddr, PortId, Proto};

use crate::cluster::compile::Compiler;
use crate::cluster::model::{Named, Pod, Service};
use crate::store::Store;
use crate::store::config::shown;
use crate::{Refusal, Switch};

/// Source port when nobody says otherwise: one of the dynamic range (RFC 6335, 6).
const SPORT: u16 = 50_000;
/// A sender whose Ethernet address nobody knows.
const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) proto: Protocol,
    pub(super) sport: Option<u16>,
    pub(super) dport: Option<u16>,
}

/// Walk the packet that was asked for.
///
/// # Errors
/// The option, its value, and what is wrong with it.
pub(super) fn trace(asked: &Asked<'_>, store: &Store, switch: &dyn Switch) -> Result<Trace, Refusal> {
    let cluster = store.cluster();
    let bridge = &cluster.settings().bridge;
    if cluster.context().is_none() || !cluster.has_objects() {
        return Err(Refusal(format!(
            "{bridge}: no network here: there are no cluster objects, or the bridge is not in force"
        )));
    }
    let sources = addresses(asked.from, "", cluster).map_err(|why| Refusal(format!("--from {why}")))?;
    let (destinations, service) = destination(asked.to, cluster).map_err(|why| Refusal(format!("--to {why}")))?;
    let pair = sources.iter().find_map(|src| {
        let dst = destinations.iter().find(|dst| dst.is_ipv4() == src.is_ipv4())?;
        Some((*src, *dst))
    });
    let (src, dst) = pair.ok_or_else(|| {
        Refusal(format!("--from {} --to {}: they have no addresses of one family", shown(asked.from), shown(asked.to)))
    })?;
    let dport = dport(asked, service)?;
    let mut notes = Vec::new();
    let (port, eth_src) = entrance(asked.from, src, store, switch, &mut notes)?;
    if asked.to.starts_with("pod/") && !is_attached(dst, cluster) {
        notes.push(format!("{}: not attached here", asked.to));
    }
    let proto = match asked.proto {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Icmp if src.is_ipv4() => 1,
        Protocol::Icmp => 58,
    };
    let sport = asked.sport.unwrap_or(SPORT);
    let probe = Probe { port, eth_src, eth_dst: None, src, dst, proto, sport, dport, everywhere: true };
    let mut traced = switch.trace(&probe);
    // That nobody is there to take it is said of where its destination is, not of what may reach it.
    let reached = traced.tuple.map_or(dst, |tuple| tuple.dst.ip());
    if let Some(pod) = pod_at(reached, cluster).filter(|_| !is_attached(reached, cluster)) {
        let note = format!("pod/{}/{}: not attached here", pod.namespace, pod.name);
        if !notes.contains(&note) {
            notes.push(note);
        }
        if traced.verdict == "reject" && ["no-endpoint", "no-route"].iter().any(|why| traced.reason.starts_with(why)) {
            (traced.verdict, traced.reason) = ("allow".to_owned(), String::new());
        }
    }
    Ok(Trace {
        verdict: traced.verdict,
        reason: traced.reason,
        decided_by: traced.decided_by,
        stages: traced.stages,
        proto,
        packet: Some(Tuple { src: SocketAddr::new(src, sport), dst: SocketAddr::new(dst, dport) }),
        port: store.port_name(port),
        outputs: traced.outputs.into_iter().map(|port| store.port_name(port)).collect(),
        tuple: traced.tuple,
        notes,
    })
}

/// Addresses of `pod/NS/NAME`, `node/NAME` or an address. `services`: how services are spelled where they may stand.
pub(crate) fn addresses(name: &str, services: &str, cluster: &Compiler) -> Result<Vec<IpAddr>, String> {
    let unknown = || format!("{}: no such object in the cluster's state", shown(name));
    let addresses = match *name.split('/').collect::<Vec<_>>() {
        ["pod", namespace, pod] => cluster.pods().get(&named(namespace, pod)).ok_or_else(unknown)?.addresses.clone(),
        ["node", node] => cluster.nodes().get(node).ok_or_else(unknown)?.addresses.clone(),
        _ => match name.parse() {
            Ok(address) => vec![address],
            Err(_) => return Err(format!("{}: not pod/NS/NAME, {services}node/NAME or an address", shown(name))),
        },
    };
    if addresses.is_empty() { Err(format!("{}: has no address", shown(name))) } else { Ok(addresses) }
}

/// The same of `svc/NS/NAME` too.
pub(crate) fn destination<'a>(name: &str, cluster: &'a Compiler) -> Result<(Vec<IpAddr>, Option<&'a Service>), String> {
    let ["svc", namespace, service] = *name.split('/').collect::<Vec<_>>() else {
        return Ok((addresses(name, "svc/NS/NAME, ", cluster)?, None));
    };
    let found = cluster.services().get(&named(namespace, service));
    let service = found.ok_or_else(|| format!("{}: no such object in the cluster's state", shown(name)))?;
    match service.cluster_ips.is_empty() {
        true => Err(format!("{}: has no clusterIP", shown(name))),
        false => Ok((service.cluster_ips.clone(), Some(service))),
    }
}

fn named(namespace: &str, name: &str) -> Named {
    Named { namespace: namespace.into(), name: name.into() }
}

/// The destination port: the one that is asked for, or the only one of the service.
fn dport(asked: &Asked<'_>, service: Option<&Service>) -> Result<u16, Refusal> {
    let proto = match asked.proto {
        Protocol::Icmp if asked.dport.is_some() => return Err(Refusal("--dport: icmp has no ports".to_owned())),
        Protocol::Icmp => return Ok(0),
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Sctp => Proto::Sctp,
    };
    if let Some(port) = asked.dport {
        return Ok(port);
    }
    let ports: Vec<_> = service.into_iter().flat_map(|s| &s.ports).filter(|port| port.proto == proto).collect();
    match (&ports[..], service) {
        ([port], _) => Ok(port.port),
        (_, Some(_)) => {
            Err(Refusal(format!("--dport: is missing: {} has {} ports of {proto}", shown(asked.to), ports.len())))
        }
        _ => Err(Refusal("--dport: is missing".to_owned())),
    }
}

/// Where packets of a source come in, and from which Ethernet address.
fn entrance(
    name: &str,
    address: IpAddr,
    store: &Store,
    switch: &dyn Switch,
    notes: &mut Vec<String>,
) -> Result<(PortId, MacAddr), Refusal> {
    let cluster = store.cluster();
    let Some(context) = cluster.context() else { return Err(Refusal("the bridge is not in force".to_owned())) };
    let key = AddressKey { bridge: context.bridge, address };
    if let Some(endpoint) = cluster.endpoints().get(&key) {
        return Ok((endpoint.port, endpoint.mac));
    }
    let neighbor = switch.neighbors().into_iter().find(|neighbor| neighbor.key == key);
    if let Some((port, mac)) = neighbor.and_then(|neighbor| Some((neighbor.port, neighbor.mac?))) {
        return Ok((port, mac));
    }
    let outside = context.uplink.map(|port| (port, STRANGER));
    let entrance = outside.or_else(|| context.local.map(|local| (local.port, local.mac)));
    let (port, mac) =
        entrance.ok_or_else(|| Refusal(format!("--from {}: there is no port where it could come in", shown(name))))?;
    notes.push(format!("{}: not attached here: traced as if it came in by {}", shown(name), store.port_name(port)));
    Ok((port, mac))
}

/// The living pod of an address.
fn pod_at(address: IpAddr, cluster: &Compiler) -> Option<&Named> {
    let living = |pod: &&Arc<Pod>| !pod.finished && !pod.host_network && pod.addresses.contains(&address);
    cluster.pods().values().find(living).map(|pod| &pod.id)
}

fn is_attached(address: IpAddr, cluster: &Compiler) -> bool {
    let bridge = cluster.context().map(|context| context.bridge);
    bridge.is_some_and(|bridge| cluster.endpoints().contains_key(&AddressKey { bridge, address }))
}
