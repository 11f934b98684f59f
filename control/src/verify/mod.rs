//! `verify`: proves that the live tables do what the cluster's state says.
//!
//! ```text
//!   objects ─→ oracle: a plain reading of them ──→ expected ─┐
//!                                                            ├─→ counter-examples
//!   switch ─→ rows of the live program, walks through it ───→ found ─┘
//! ```
//!
//! In this order: no two things have one address ([`places`]); every pod's rows are there and nobody else's, and it is
//! reached untranslated ([`places`]); policies decide for every pair ([`pairs`]); services lead to their endpoints
//! ([`services`]). Ends that nothing tells apart stand for each other ([`ends`]).
//!
//! It runs where requests are answered, and nothing else is answered meanwhile: so it gives up after [`PATIENCE`].

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::reply::{CounterExample, Verified};
use api::state::{Probe, Walked};
use api::{BridgeId, MacAddr};

use crate::cluster::compile::binding::{Attached, NodeContext};
use crate::cluster::compile::node::gateway;
use crate::cluster::model::{Node, Objects, Pod, Service};
use crate::store::Store;
use crate::verbs::trace;
use crate::{NodeSettings, Refusal, Switch};

mod ends;
mod live;
mod oracle;
mod pairs;
mod places;
mod services;
#[cfg(test)]
mod tests;

use live::Live;
use oracle::Oracle;

/// Longer than this no request waits for another; a client waits for 30 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// Counter-examples that are told one by one.
const TOLD: usize = 100;
/// A sender whose Ethernet address nobody knows.
const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Source port of probes: nobody opens connections from there, so no live connection is met.
const SPORT: u16 = 1;

/// Where packets come in, and from which Ethernet address.
type Entrance = Attached;

/// What is verified: the state, and where it is in force.
#[derive(Debug)]
struct Ground<'a> {
    objects: &'a Objects,
    store: &'a Store,
    settings: &'a NodeSettings,
    context: &'a NodeContext,
    /// This node's name.
    node: &'a str,
    /// Its object.
    own: Option<&'a Node>,
    bridge: BridgeId,
    /// Where those who are not attached here come in.
    beyond: Option<Entrance>,
    /// The node's addresses and the gateways'.
    ours: BTreeSet<IpAddr>,
    /// Addresses at which services are reached, node ports apart.
    served: BTreeSet<IpAddr>,
}

impl<'a> Ground<'a> {
    fn new(objects: &'a Objects, store: &'a Store, context: &'a NodeContext) -> Self {
        let settings = store.cluster().settings();
        let own = objects.nodes.get(&*settings.name).map(AsRef::as_ref);
        let gateways = own.into_iter().flat_map(|node| node.pod_cidrs.iter().filter_map(gateway));
        let mut ours: BTreeSet<IpAddr> = gateways.map(|net| net.addr()).collect();
        ours.extend(own.into_iter().flat_map(Node::all_addresses));
        Self {
            objects,
            store,
            settings,
            context,
            node: &settings.name,
            own,
            bridge: context.bridge,
            // Where there is no uplink, probes of strangers come in where the node is, and are no node's for all that.
            beyond: context.uplink.map(|port| Attached { port, mac: STRANGER }).or(context.local),
            ours,
            served: objects.services.values().flat_map(|service| addresses_of(service)).collect(),
        }
    }

    /// Pods with addresses of their own: neither of the host network nor ended.
    fn pods(&self) -> impl Iterator<Item = &'a Pod> {
        let all: &'a Objects = self.objects;
        all.pods.values().map(|pod| &**pod).filter(|pod| !pod.finished && !pod.host_network)
    }

    /// Where a pod with addresses of its own is attached.
    fn attached(&self, pod: &Pod) -> Option<Attached> {
        let here = pod.node.as_deref().is_none_or(|node| node == self.node);
        self.context.pods.get(&pod.id).copied().filter(|_| here)
    }

    /// An address that may be somebody's beyond this node and its services, and can be sent to and from.
    fn is_beyond(&self, address: IpAddr) -> bool {
        let routable = match address {
            IpAddr::V4(v4) => {
                let [first, ..] = v4.octets();
                !(first == 0 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || first >= 240)
            }
            IpAddr::V6(v6) => {
                let [first, ..] = v6.segments();
                !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || first & 0xffc0 == 0xfe80)
                    && v6.to_ipv4_mapped().is_none()
            }
        };
        let of_services = self.objects.service_cidrs.values().flat_map(|cidrs| &cidrs.prefixes);
        let mut of_services = of_services.chain(&self.settings.service_cidrs);
        let mut of_pods = self.own.into_iter().flat_map(|node| &node.pod_cidrs);
        routable
            && !self.ours.contains(&address)
            && !of_services.any(|net| net.contains(&address))
            && !of_pods.any(|net| net.contains(&address))
            && !self.served.contains(&address)
    }
}

fn addresses_of(service: &Service) -> impl Iterator<Item = IpAddr> {
    let external = &service.external;
    let ingress = external.ingress.iter().map(|ingress| ingress.address);
    service.cluster_ips.iter().chain(&external.ips).copied().chain(ingress)
}

/// Only these, if only some are asked for.
#[derive(Debug, Default)]
struct Only {
    from: Option<BTreeSet<IpAddr>>,
    to: Option<BTreeSet<IpAddr>>,
}

impl Only {
    fn is_from(&self, address: IpAddr) -> bool {
        self.from.as_ref().is_none_or(|only| only.contains(&address))
    }

    fn is_to(&self, address: IpAddr) -> bool {
        self.to.as_ref().is_none_or(|only| only.contains(&address))
    }

    fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// What came out so far.
struct Findings<'a> {
    switch: &'a dyn Switch,
    start: Instant,
    verified: Verified,
    said: HashSet<CounterExample>,
}

impl Findings<'_> {
    fn note(&mut self, note: &str) {
        if self.verified.notes.iter().all(|other| other != note) {
            self.verified.notes.push(note.to_owned());
        }
    }

    fn counter(&mut self, table: &str, what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        let (table, what, expected, found) = (table.to_owned(), what.into(), expected.into(), found.into());
        let example = CounterExample { table, what, expected, found };
        if self.verified.counterexamples.len() >= TOLD {
            self.verified.more += 1;
        } else if self.said.insert(example.clone()) {
            self.verified.counterexamples.push(example);
        }
    }

    /// Walk packets; `None` by a switch that cannot.
    ///
    /// # Errors
    /// When it has taken too long.
    fn walk(&mut self, probes: &[Probe]) -> Result<Option<Vec<Walked>>, Refusal> {
        if self.start.elapsed() > PATIENCE {
            let Verified { pairs, probes, .. } = &self.verified;
            return Err(Refusal(format!(
                "{} s are over after {pairs} pairs and {probes} probes: ask for less with --from, --to",
                PATIENCE.as_secs()
            )));
        }
        let walked = self.switch.probe_all(probes);
        if walked.len() != probes.len() {
            self.note("the switch cannot walk packets: only its rows were looked at");
            return Ok(None);
        }
        self.verified.probes += probes.len() as u64;
        Ok(Some(walked))
    }
}

/// Answer to `verify`.
///
/// # Errors
/// When there is nothing to verify, an option names nothing, or it takes too long.
pub(crate) fn verify(
    (from, to): (Option<&str>, Option<&str>),
    objects: &Objects,
    store: &Store,
    switch: &dyn Switch,
) -> Result<Verified, Refusal> {
    let cluster = store.cluster();
    let Some(context) = cluster.context().filter(|_| cluster.has_objects()) else {
        let bridge = &cluster.settings().bridge;
        return Err(Refusal(format!(
            "{bridge}: no network here: there are no cluster objects, or the bridge is not in force"
        )));
    };
    let resolve = |option: &str, name: Option<&str>, services: bool| {
        let addresses = name.map(|name| match services {
            true => trace::destination(name, cluster).map(|(addresses, _)| addresses),
            false => trace::addresses(name, "", cluster),
        });
        let addresses = addresses.transpose().map_err(|why| Refusal(format!("{option} {why}")))?;
        Ok::<_, Refusal>(addresses.map(|addresses| addresses.into_iter().collect::<BTreeSet<_>>()))
    };
    let only = Only { from: resolve("--from", from, false)?, to: resolve("--to", to, true)? };
    let ground = Ground::new(objects, store, context);
    let mut findings = Findings { switch, start: Instant::now(), verified: Verified::default(), said: HashSet::new() };
    let live = Live::of(switch.programmed());
    let oracle = Oracle::new(objects);
    findings.verified.pods = ground.pods().count() as u64;
    // Whose an address is must be clear before anything can be said of it.
    if places::unique(&ground, &mut findings) {
        if only.is_all() {
            places::rows(&ground, &oracle, &live, &mut findings);
        }
        places::reached(&ground, &live, &only, &mut findings)?;
        pairs::prove(&ground, &oracle, &live, &only, &mut findings)?;
        services::prove(&ground, &oracle, &live, &only, &mut findings)?;
    }
    let elapsed = findings.start.elapsed().as_millis();
    findings.verified.milliseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
    Ok(findings.verified)
}

/// A first packet. To the router, or, where `None`, to whom its sender would send it.
fn packet(entrance: Entrance, (src, dst): (IpAddr, IpAddr), proto: u8, dport: u16, to: Option<MacAddr>) -> Probe {
    let Attached { port, mac } = entrance;
    let sport = if is_icmp(proto) { 0 } else { SPORT };
    Probe { port, eth_src: mac, eth_dst: to, src, dst, proto, sport, dport, everywhere: true }
}

/// ICMP of the family of an address.
fn icmp(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 58 }
}

fn is_icmp(proto: u8) -> bool {
    matches!(proto, 1 | 58)
}

/// A packet for people.
fn told(from: &str, to: &str, proto: u8, dport: u16) -> String {
    match api::Proto::of(proto) {
        Some(proto) => format!("{from} to {to}, {} {dport}", proto.name().to_lowercase()),
        None => format!("{from} to {to}, icmp"),
    }
}

/// How a walk ended, for people.
fn ended(walked: &Walked, store: &Store) -> String {
    use api::state::Ways;
    let out = match walked.out {
        Ways::None => "out by no port".to_owned(),
        Ways::One(port) => format!("out by {}", store.port_name(port)),
        Ways::Many => "out by many ports".to_owned(),
    };
    match (walked.refused, walked.tuple) {
        (Some(reason), _) => format!("dropped: {reason}"),
        (None, Some(tuple)) => format!("{out} as {} -> {}", tuple.src, tuple.dst),
        (None, None) => out,
    }
}
