//! A walk: one frame on its way through the stages, and all that a stage may see or set.
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `key`, `layers` | the walk's start | every stage |
//! | `live`, `asked`, `now` | the walk's start | every stage |
//! | `bridge`, `vlan` | admit | bridge |
//! | `outputs` | bridge | deliver |
//! | `guard` | deliver | the cache |
//! | `effects`, `trail` | bridge | effects, the cache |
//! | `transient` | any stage | the cache |

use api::{BridgeId, PortId};

use crate::burst::{Layers, VlanEdit, guard};
use crate::key::FlowKey;
use crate::live::stations::Address;
use crate::live::{Live, Now};
use crate::probe::cells::Asked;
use crate::probe::trail::Trail;

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
}

/// State of a walk.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The masked key: a fact that the port's mask leaves out is zero here, so no decision can depend on it.
    pub key: FlowKey,
    /// Where the headers are, and the guard word of this very frame. A decision that depends on more of the guard word
    /// than its `guard` says must be `transient`.
    pub layers: Layers,
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
    /// Ways out.
    pub outputs: Vec<Copy>,
    /// Guard of the decision: flags that must not be set in the low half, the largest size in the high half.
    pub guard: u32,
    /// What the decision brings about.
    pub effects: Vec<Effect>,
    /// What later hits must account to.
    pub trail: Trail,
    /// The decision holds for this frame only.
    pub transient: bool,
}

impl<'a> Walk<'a> {
    /// A walk that starts.
    pub fn new(key: FlowKey, layers: Layers, live: &'a Live, now: Now) -> Self {
        Self {
            key,
            layers,
            live,
            asked: Asked::new(&live.cells),
            now,
            bridge: BridgeId::default(),
            vlan: 0,
            outputs: Vec::new(),
            guard: u32::MAX << guard::SIZE_SHIFT,
            effects: Vec::new(),
            trail: Trail::None,
            transient: false,
        }
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
}
