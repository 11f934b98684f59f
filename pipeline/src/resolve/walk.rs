//! A walk: one frame on its way through the stages, and all that a stage may see or set.
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `start`, `layers` | the walk's start | every stage |
//! | `key` | the walk's start; stages that translate or route | every stage |
//! | `topology`, `live`, `asked`, `now` | the walk's start | every stage |
//! | `bridge`, `vlan`, `routed`, `router`, `tracked`, `listed` | admit | the stages behind it |
//! | `tuple`, `connection`, `related` | connection | the stages behind it; `related` the end |
//! | `service` | service | masquerade, the end |
//! | `source` | masquerade | commit |
//! | `hops` | route | the end |
//! | `outputs` | route, bridge, service | deliver |
//! | `guard` | deliver, connection, route | the cache |
//! | `effects`, `trail` | bridge, connection, commit, neighbor, route | effects, the cache |
//! | `denied` | policy | the end |
//! | `everywhere` | the walk's start | policy |
//! | `transient`, `looked` | any stage | the cache |
//! | `cut` | route | the end |
//! | `steps` | any stage, by `say` | trace |
//!
//! *Translation and routing change `key`*: it is what the frame's headers are to say when it leaves. The edits are the
//! difference between `start` and `key`, so a stage cannot forget one.

use std::net::SocketAddr;

use api::state::TraceStep;
use api::{AddressKey, BridgeId, MacAddr, PortId, Router};

use crate::burst::{Layers, VlanEdit, guard};
use crate::key::FlowKey;
use crate::live::affinity::Visit;
use crate::live::connections::{Direction, Event, Found, Name, Plan, Source, Tuple};
use crate::live::denials::Denied;
use crate::live::stations::Address;
use crate::live::{Live, Now};
use crate::probe::cells::Asked;
use crate::probe::trail::Trail;
use crate::reply::Request;
use crate::resolve::topology::Topology;
use crate::rewrite::related::Related;

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    /// The port.
    pub port: PortId,
    /// What is done to the tag on the way.
    pub vlan: VlanEdit,
    /// Largest packet that the port takes, octets from the network header on.
    pub mtu: u16,
}

/// What is done, once, because of a decision. Deciding again does not do it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The sender is heard at the ingress port.
    Hear {
        /// In this bridge.
        bridge: BridgeId,
        /// Under this address.
        address: Address,
    },
    /// A neighbour spoke at the ingress port.
    Neighbor {
        /// Who.
        key: AddressKey,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// A neighbour is used that is unknown, or was silent for long: it is to be asked for, if
    /// [`crate::live::neighbors::Neighbors::solicit`] says that it is time.
    Solicit {
        /// Who.
        key: AddressKey,
        /// Behind this port.
        port: PortId,
        /// What is done to the tag of the request, which has none.
        vlan: VlanEdit,
        /// The request.
        request: Request,
    },
    /// A known connection is used.
    Advance {
        /// Which.
        name: Name,
        /// Which way.
        direction: Direction,
        /// What it says.
        event: Event,
    },
    /// A known connection is over: an address is another's now, or the client opens it anew. The frame is a first one.
    Kill(Name),
    /// A connection is made. Its translation may pick another source than the walk had.
    Commit(Plan),
}

/// At what kind of address a service was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// A cluster address.
    Cluster,
    /// A node port, an external address or a load balancer's, under traffic policy Cluster.
    External,
    /// The same under traffic policy Local.
    ExternalLocal,
}

/// What became of a first packet to a service. Its name is not here but in what the stage says of itself: to count
/// another owner of the name is a write to a line that all workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The backend.
    pub backend: SocketAddr,
    /// Where.
    pub reached: Reached,
    /// The service has session affinity: what is to be remembered with the connection.
    pub visit: Option<Visit>,
}

/// State of a walk.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The masked key as the frame came in: a fact that the port's mask leaves out is zero here, so no decision can
    /// depend on it.
    pub start: FlowKey,
    /// The same as the frame is to leave.
    pub key: FlowKey,
    /// Where the headers are, and the guard word of this very frame. A decision that depends on more of the guard word
    /// than its `guard` says must be `transient`.
    pub layers: Layers,
    /// What the switch was told of who is where.
    pub topology: &'a Topology,
    /// What packets wrote.
    pub live: &'a Live,
    /// What was asked of the tables.
    pub asked: Asked<'a>,
    /// The time.
    pub now: Now,
    /// The bridge of the ingress port.
    pub bridge: BridgeId,
    /// The VLAN of the frame within the bridge.
    pub vlan: u16,
    /// The bridge has a router: its IP traffic is routed and tracked.
    pub routed: bool,
    /// Its IP traffic is tracked: it has a router, or an access list that lets connections through.
    pub tracked: bool,
    /// It has access lists, or one of its ports has.
    pub listed: bool,
    /// That router.
    pub router: Option<&'a Router>,
    /// What the frame carries, if it can belong to a connection.
    pub tuple: Option<Tuple>,
    /// The connection it belongs to.
    pub connection: Option<Found>,
    /// It is an ICMP error about that connection, and is to say this.
    pub related: Option<Related>,
    /// The service it was sent to, if it is a first packet to one.
    pub service: Option<Chosen>,
    /// What a new connection comes from in truth.
    pub source: Source,
    /// Identities of the endpoints at either end of a new connection; 0 where there is none.
    pub identities: [u64; 2],
    /// Routers on the way that take one off the hop limit: 0 or 1.
    pub hops: u8,
    /// The packet is larger than its way takes, and its sender lets routers cut it to this.
    pub cut: Option<u16>,
    /// Ways out.
    pub outputs: Vec<Copy>,
    /// Guard of the decision: flags that must not be set in the low half, the largest size in the high half.
    pub guard: u32,
    /// What the decision brings about.
    pub effects: Vec<Effect>,
    /// What later hits must account to.
    pub trail: Trail,
    /// A policy does not let it through: who is denied, and what decided.
    pub denied: Option<Denied>,
    /// Policies of pods that are not attached here are asked too: a trace.
    pub everywhere: bool,
    /// The decision is not remembered.
    pub transient: bool,
    /// The decision holds for this very frame, not even for others of its key.
    pub looked: bool,
    /// What the stages say of themselves; `None` when nobody listens.
    pub steps: Option<Vec<TraceStep>>,
    /// The frame's first segment, for [`Self::frame`].
    head: &'a [u8],
}

impl<'a> Walk<'a> {
    /// A walk that starts.
    pub fn new(key: FlowKey, layers: Layers, head: &'a [u8], topology: &'a Topology, live: &'a Live, now: Now) -> Self {
        Self {
            start: key,
            key,
            layers,
            topology,
            live,
            asked: Asked::new(&live.cells),
            now,
            bridge: BridgeId::default(),
            vlan: 0,
            routed: false,
            tracked: false,
            listed: false,
            router: None,
            tuple: None,
            connection: None,
            related: None,
            service: None,
            source: Source::Own,
            identities: [0; 2],
            hops: 0,
            cut: None,
            outputs: Vec::new(),
            guard: u32::MAX << guard::SIZE_SHIFT,
            effects: Vec::new(),
            trail: Trail::None,
            denied: None,
            everywhere: false,
            transient: false,
            looked: false,
            steps: None,
            head,
        }
    }

    /// The frame itself, its first segment at least to the end of the headers. Whoever looks at it decides for this frame
    /// only: there is more in it than the key has.
    pub fn frame(&mut self) -> &'a [u8] {
        (self.transient, self.looked) = (true, true);
        self.head
    }

    /// What the frame says of the state of its connection. Not a fact that a remembered decision may depend on, but one that
    /// its effects carry.
    pub fn event(&self) -> Event {
        let at = usize::from(self.layers.l4);
        let flags = match self.key.get(crate::key::Field::IP_PROTO) {
            [6] => self.head.get(at + 13),
            [132] => self.head.get(at + 12),
            _ => None,
        };
        Event { flags: flags.copied().unwrap_or(0) }
    }

    /// Octets of the frame's largest packet, from the network header on.
    pub fn size(&self) -> u32 {
        self.layers.guard >> guard::SIZE_SHIFT
    }

    /// The decision holds for packets of at most `size` octets.
    pub fn guard_size(&mut self, size: u16) {
        let largest = (self.guard >> guard::SIZE_SHIFT).min(u32::from(size));
        self.guard = largest << guard::SIZE_SHIFT | self.guard & 0xffff;
    }

    /// The decision holds only for packets that have none of these flags of [`guard`].
    pub fn guard_flags(&mut self, flags: u32) {
        self.guard |= flags & 0xffff;
    }

    /// This frame has one of these flags of [`guard`].
    pub fn has(&self, flags: u32) -> bool {
        self.layers.guard & flags & 0xffff != 0
    }

    /// Tell a trace what the current stage found.
    pub fn say(&mut self, note: impl FnOnce() -> String) {
        if let Some(step) = self.steps.as_mut().and_then(|steps| steps.last_mut()) {
            if !step.note.is_empty() {
                step.note.push_str("; ");
            }
            step.note.push_str(&note());
        }
    }
}
