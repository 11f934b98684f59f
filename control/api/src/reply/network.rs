//! Answers that tell of a node's network: services, routes, neighbours, connections, traces.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::table;
use crate::filter::PROTOCOLS;
use crate::state::{TraceStep, Tuple};
use crate::{AclAction, AclWay, Choice, MacAddr, Proto};

/// Answer to `services`, by namespace, name and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Services(pub Vec<ServiceRow>);

/// One port of a service at one of its addresses. One that is not programmed may have neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// `NAMESPACE/NAME:PORTNAME`, without the colon when the port has no name.
    pub service: String,
    /// Its virtual address.
    pub address: Option<IpAddr>,
    /// Its protocol.
    pub proto: Option<Proto>,
    /// Its port.
    pub port: Option<u16>,
    /// What kind of address it is.
    #[serde(default)]
    pub kind: AddressKind,
    /// Which endpoints serve clients there: `internalTrafficPolicy` at cluster addresses, else `externalTrafficPolicy`.
    #[serde(default)]
    pub policy: TrafficPolicy,
    /// How a backend is chosen.
    pub choice: Choice,
    /// Seconds that a client keeps its backend for (`sessionAffinity: ClientIP`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
    /// New connections go to these.
    pub backends: Vec<SocketAddr>,
    /// Policy Local at an address for clients from beyond the cluster: theirs go to these, of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Vec<SocketAddr>>,
    /// Only from there may clients come; everybody when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<IpNet>>,
    /// What is connected to these stays; they get nothing new.
    pub draining: Vec<SocketAddr>,
    /// Why it is not programmed; `None` when it is.
    pub not_programmed: Option<String>,
    /// Why processes of the node do not reach it, although others do; `None` when they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreached_by_node: Option<String>,
}

/// What kind of address a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    /// Of `spec.clusterIPs`.
    #[default]
    Cluster,
    /// Of `status.loadBalancer.ingress`.
    LoadBalancer,
    /// Of `spec.externalIPs`.
    External,
    /// Of the node, with a port of `spec.ports[].nodePort`.
    NodePort,
    /// Of the node, with a port that a container asked for when it was attached.
    #[serde(rename = "hostport")]
    HostPort,
}

impl AddressKind {
    /// In a word: `cluster`, `load-balancer`, `external`, `node-port`, `hostport`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::LoadBalancer => "load-balancer",
            Self::External => "external",
            Self::NodePort => "node-port",
            Self::HostPort => "hostport",
        }
    }
}

/// Which endpoints of a service serve its clients, as Kubernetes spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Those of the cluster.
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

impl TrafficPolicy {
    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// Answer to `routes`, by bridge and prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Routes(pub Vec<RouteRow>);

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// Name of its bridge.
    pub bridge: String,
    /// The destinations.
    pub prefix: IpNet,
    /// `endpoint`, `on-link`, `via`, `unreachable` or `blackhole`.
    pub hop: String,
    /// Address of the next hop, of `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name of the port, of `via` and `on-link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Who says so: `static`, `pod-cidr`, `node/NAME`.
    pub origin: String,
    /// Why it is not in force; `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer to `neighbors`, by bridge and address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Neighbors(pub Vec<NeighborRow>);

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborRow {
    /// Name of its bridge.
    pub bridge: String,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while it is asked for.
    pub mac: Option<MacAddr>,
    /// Name of the port behind which it is.
    pub port: String,
    /// `permanent`, `reachable`, `stale`, `incomplete` or `failed`, as `ip neighbour` has them.
    pub state: String,
    /// Seconds since it last spoke; `None` for a permanent one.
    pub age: Option<u32>,
    /// Why it is not in force; `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer to `connections`, by protocol and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Connections(pub Vec<ConnectionRow>);

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// Name of the bridge whose router tracks it.
    pub bridge: String,
    /// IP protocol number.
    pub proto: u8,
    /// State in the words of conntrack.
    pub state: String,
    /// Its first packet, before translation.
    pub original: Tuple,
    /// Its answers, before they are translated back.
    pub reply: Tuple,
    /// Name of the port where its first packet came in.
    pub port: String,
    /// The service to whose address it went: `NAMESPACE/NAME:PORTNAME`.
    pub service: Option<String>,
    /// Seconds until it is forgotten if nothing more is heard.
    pub expires: u32,
}

/// Answer to `dpctl/dump-conntrack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conntrack(pub Vec<ConnectionRow>);

/// Answer to `trace`: what would become of a first packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// `allow`, `deny`, `drop` or `reject`.
    pub verdict: String,
    /// Drop reason, or what is answered; empty when it is let through.
    pub reason: String,
    /// The object that decided; empty when none did.
    pub decided_by: String,
    /// What each stage did.
    pub stages: Vec<TraceStep>,
    /// IP protocol number.
    pub proto: u8,
    /// Addresses and ports as it comes in.
    pub packet: Option<Tuple>,
    /// Name of the port where it comes in.
    pub port: String,
    /// Names of the ports by which it would leave.
    pub outputs: Vec<String>,
    /// Addresses and ports as it would leave.
    pub tuple: Option<Tuple>,
    /// What the reader should know: an end that is not attached here.
    pub notes: Vec<String>,
}

fn protocol(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(known, _)| *known == number);
    named.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn list<T: ToString>(all: &[T]) -> String {
    match all {
        [] => "-".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

impl Services {
    /// As people read it. Wide: with every backend, not only how many there are.
    pub fn table(&self, wide: bool) -> String {
        struct Table<'a>(&'a [ServiceRow], bool);
        impl fmt::Display for Table<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Table(rows, wide) = self;
                let rows = rows.iter().map(|s| {
                    let choice = match s.choice {
                        Choice::Random => "random",
                        Choice::Maglev => "maglev",
                    };
                    let affinity = or_dash(s.affinity.map(|seconds| format!("{seconds}s")));
                    let state = match (&s.not_programmed, &s.unreached_by_node) {
                        (Some(why), _) => format!("not programmed: {why}"),
                        (None, Some(why)) => format!("programmed, but the node itself does not reach it: {why}"),
                        (None, None) => "programmed".to_owned(),
                    };
                    let mut row = vec![s.service.clone(), or_dash(s.address), or_dash(s.proto), or_dash(s.port)];
                    row.extend([s.kind.name(), s.policy.name(), choice].map(str::to_owned));
                    row.extend([affinity, s.backends.len().to_string(), or_dash(s.local.as_ref().map(Vec::len))]);
                    row.extend([s.draining.len().to_string(), state]);
                    if *wide {
                        let local = s.local.as_deref().unwrap_or_default();
                        row.extend([list(&s.backends), list(local), list(&s.draining)]);
                        row.push(s.sources.as_deref().map_or_else(|| "-".to_owned(), list));
                    }
                    row
                });
                let headings = [
                    "SERVICE",
                    "ADDRESS",
                    "PROTO",
                    ">PORT",
                    "KIND",
                    "POLICY",
                    "CHOICE",
                    ">AFFINITY",
                    ">BACKENDS",
                    ">LOCAL",
                    ">DRAINING",
                    "STATE",
                    "NEW",
                    "NEW LOCAL",
                    "OLD",
                    "SOURCES",
                ];
                table(f, headings.get(..if *wide { 16 } else { 12 }).unwrap_or_default(), rows)
            }
        }
        Table(&self.0, wide).to_string()
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|r| {
            let to = match (&r.gateway, &r.port) {
                (Some(gateway), Some(port)) => format!("via {gateway} dev {port}"),
                (None, Some(port)) => format!("dev {port}"),
                _ => r.hop.clone(),
            };
            let error = r.error.clone().unwrap_or_default();
            vec![r.bridge.clone(), r.prefix.to_string(), to, r.origin.clone(), error]
        });
        table(f, &["BRIDGE", "PREFIX", "TO", "ORIGIN", "ERROR"], rows)
    }
}

impl fmt::Display for Neighbors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|n| {
            let (mac, age, error) = (or_dash(n.mac), or_dash(n.age), n.error.clone().unwrap_or_default());
            vec![n.bridge.clone(), n.address.to_string(), mac, n.port.clone(), n.state.clone(), age, error]
        });
        table(f, &["BRIDGE", "ADDRESS", "MAC", "PORT", "STATE", ">AGE", "ERROR"], rows)
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|c| {
            let Tuple { src, dst } = c.original;
            let backend = if c.reply.src == dst { "-".to_owned() } else { c.reply.src.to_string() };
            let masquerade = if c.reply.dst == src { "-".to_owned() } else { c.reply.dst.to_string() };
            vec![
                protocol(c.proto),
                c.state.clone(),
                src.to_string(),
                dst.to_string(),
                backend,
                masquerade,
                c.port.clone(),
                or_dash(c.service.as_ref()),
                c.expires.to_string(),
            ]
        });
        let headings =
            ["PROTO", "STATE", "SOURCE", "DESTINATION", "BACKEND", "MASQUERADE", "PORT", "SERVICE", ">EXPIRES"];
        table(f, &headings, rows)
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.0 {
            let direction = |tuple: &Tuple, echo: u8| {
                let addresses = format!("src={},dst={}", tuple.src.ip(), tuple.dst.ip());
                match c.proto {
                    1 | 58 => format!("({addresses},id={},type={echo},code=0)", tuple.src.port()),
                    _ => format!("({addresses},sport={},dport={})", tuple.src.port(), tuple.dst.port()),
                }
            };
            // Types of echo request and reply: RFC 792, RFC 4443.
            let (request, reply) = if c.proto == 58 { (128, 129) } else { (8, 0) };
            let (original, reply) = (direction(&c.original, request), direction(&c.reply, reply));
            write!(f, "{},orig={original},reply={reply}", protocol(c.proto))?;
            match c.proto {
                6 | 132 => writeln!(f, ",protoinfo=(state={})", c.state)?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |tuple: &Tuple| match self.proto {
            1 | 58 => format!("{} -> {}", tuple.src.ip(), tuple.dst.ip()),
            _ => format!("{} -> {}", tuple.src, tuple.dst),
        };
        if let Some(packet) = &self.packet {
            writeln!(f, "{} {}, in by {}", protocol(self.proto), told(packet), self.port)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        let line = |step: &TraceStep| format!("  {:<12} {}", step.stage, step.note);
        self.stages.iter().try_for_each(|step| writeln!(f, "{}", line(step).trim_end()))?;
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        writeln!(f, "verdict: {}{reason}", self.verdict)?;
        if !self.decided_by.is_empty() {
            writeln!(f, "decided by: {}", self.decided_by)?;
        }
        if !self.outputs.is_empty() {
            let tuple = self.tuple.as_ref().map(|tuple| format!(", {}", told(tuple))).unwrap_or_default();
            writeln!(f, "out by: {}{tuple}", self.outputs.join(", "))?;
        }
        Ok(())
    }
}
/// Answer to [`crate::Request::AclList`]: rules in the order in which they are asked, those of `from-lport` first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AclTable(pub Vec<AclRow>);

/// A rule of an access list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRow {
    /// Of this way.
    pub way: AclWay,
    /// Its priority.
    pub priority: u16,
    /// What it is about, in words.
    pub matches: String,
    /// What becomes of it.
    pub action: AclAction,
}

impl fmt::Display for AclTable {
    /// As ovn-nbctl prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for AclRow { way, priority, matches, action } in &self.0 {
            writeln!(f, "{:>10} {priority:>5} ({matches}) {}", way.name(), action.name())?;
        }
        Ok(())
    }
}
