//! What a switch tells of itself.

use serde::{Deserialize, Serialize};

use std::net::{IpAddr, SocketAddr};

use crate::{AddressKey, BridgeId, MacAddr, PortId, StationKey};

/// A port as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Which port.
    pub id: PortId,
    /// Why it carries no frames (device gone, could not be opened again); `None` when it does.
    pub error: Option<String>,
    /// Name of its network interface, where it has one.
    pub ifname: Option<String>,
    /// Address of its device, where it has one.
    pub mac: Option<MacAddr>,
    /// MTU in force.
    pub mtu: u16,
    /// The device is up and has a carrier; `None` when the kind cannot tell.
    pub link: Option<bool>,
    /// What the device takes off our hands, for people: `csum tso4 tso6 uso`.
    pub offloads: String,
    /// Number of the worker that reads it; `None` when no worker does.
    pub worker: Option<u16>,
    /// What went through it.
    pub stats: PortStats,
}

/// Frames and octets of a port since it was made. Octets count from the Ethernet header, without FCS; a super-frame
/// is one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Frames that came in.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_bytes: u64,
    /// Frames that came in here and were dropped, for whatever reason.
    pub rx_dropped: u64,
    /// Reads that failed.
    pub rx_errors: u64,
    /// Frames that the device took.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_bytes: u64,
    /// Frames for this port that it could not take in time.
    pub tx_dropped: u64,
    /// Frames that its device refused.
    pub tx_errors: u64,
}

/// A row of a bridge's MAC table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationState {
    /// Bridge, VLAN, address.
    pub key: StationKey,
    /// Where it is.
    pub port: PortId,
    /// Seconds since it was last heard; `None` for a static entry.
    pub age: Option<u32>,
}

/// Frames of one port dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropState {
    /// Where they came in.
    pub port: PortId,
    /// Name of the reason.
    pub reason: String,
    /// What it means.
    pub sentence: String,
    /// How many.
    pub packets: u64,
}

/// A worker as it is now; all but `number`, `cpu`, `ports` and `entries` count since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerState {
    /// Its number, from 0.
    pub number: u16,
    /// The CPU it is pinned to.
    pub cpu: Option<u16>,
    /// Ports whose receive side it owns.
    pub ports: u32,
    /// Live entries of its flow cache.
    pub entries: u64,
    /// Frames received.
    pub packets: u64,
    /// Bursts that were not empty.
    pub bursts: u64,
    /// Frames that a cached decision served.
    pub hits: u64,
    /// Frames that had to be decided.
    pub misses: u64,
    /// Ticks of the time-stamp counter spent on bursts.
    pub busy_ticks: u64,
    /// Ticks spent looking for work or asleep.
    pub idle_ticks: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
}

/// An event counter (`coverage/show`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Name, `snake_case` as in OVS.
    pub name: String,
    /// How often since the daemon started.
    pub total: u64,
}

/// A frame that `capture` saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Came in by the port (true) or left by it.
    pub ingress: bool,
    /// Octets of the frame on the port, of which `bytes` may be the beginning.
    pub len: u32,
    /// The octets.
    pub bytes: Vec<u8>,
}

/// One direction of a connection, as its packets say it. Of ICMP echo both ports are the identifier; of protocols
/// without ports they are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Where packets come from.
    pub src: SocketAddr,
    /// Where they go.
    pub dst: SocketAddr,
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// The bridge whose router tracks it.
    pub bridge: BridgeId,
    /// IP protocol number.
    pub proto: u8,
    /// State in the words of conntrack: `SYN_SENT`, `ESTABLISHED`, `UNREPLIED`, `ASSURED`, ...
    pub state: String,
    /// Its first packet, before translation.
    pub original: Tuple,
    /// Its answers, before they are translated back: how the other end sees it, turned round.
    pub reply: Tuple,
    /// Where its first packet came in.
    pub port: PortId,
    /// Seconds until it is forgotten if nothing more is heard.
    pub expires: u32,
}

/// A neighbour: an address on the link of a port and its Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborState {
    /// Bridge and address.
    pub key: AddressKey,
    /// Where it is.
    pub port: PortId,
    /// Its Ethernet address; `None` while it is asked for.
    pub mac: Option<MacAddr>,
    /// `permanent`, `reachable`, `stale`, `incomplete` or `failed`, as `ip neighbour` has them.
    pub state: String,
    /// Seconds since it last spoke; `None` for a permanent one.
    pub age: Option<u32>,
}

/// Packets that policies did not let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialState {
    /// The pod whose policies they are: `pod/NAMESPACE/NAME`.
    pub subject: String,
    /// `ingress` or `egress`, seen from it.
    pub direction: String,
    /// What decided: `networkpolicy NS/NAME rule N`, or that nothing let it through: `default of NS/NAME, ...`.
    pub by: String,
    /// How many.
    pub packets: u64,
}

/// A packet to be traced: what a first packet would look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Where it comes in.
    pub port: PortId,
    /// Sender's Ethernet address.
    pub eth_src: MacAddr,
    /// Ethernet destination; the router's when `None`, or the endpoint's that has `dst` on the same link.
    pub eth_dst: Option<MacAddr>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port (ICMP echo: identifier).
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Policies of pods that are not attached here are asked too, as they are asked where those are.
    pub everywhere: bool,
}

/// What became of a traced packet. Nothing was sent, learned or remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// `allow`, `deny`, `drop` or `reject`.
    pub verdict: String,
    /// Drop reason, or what is answered; empty when it is let through.
    pub reason: String,
    /// The object that decided: `service NS/NAME:PORT`, `route PREFIX`, `endpoint pod/NS/NAME`, ...
    pub decided_by: String,
    /// What each stage did.
    pub stages: Vec<TraceStep>,
    /// Where it would leave.
    pub outputs: Vec<PortId>,
    /// Addresses and ports as it would leave.
    pub tuple: Option<Tuple>,
}

/// What became of a probe that was walked among many: no words, and nothing that one reader in a million asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Walked {
    /// Name of the drop reason, also where the sender is told; `None` when it is let through.
    pub refused: Option<&'static str>,
    /// The ways out.
    pub out: Ways,
    /// Addresses and ports as it would leave, or as they were when it was refused.
    pub tuple: Option<Tuple>,
}

/// By how many ports a frame leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ways {
    /// None: it is dropped, answered, or waits for a neighbour to be known.
    #[default]
    None,
    /// This one.
    One(PortId),
    /// Several.
    Many,
}

/// One stage of a [`Traced`] packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Name of the stage.
    pub stage: String,
    /// What it found, in a line.
    pub note: String,
}
