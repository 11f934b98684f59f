//! Looking ahead: what the first packets of a burst will be decided by is asked for while none of it is needed yet.
//!
//! A first packet reads a dozen lines of memory that nobody has read lately, each found by way of the one before it: walked
//! one by one, packets would wait for each in turn. So a burst is gone through several times before its walks, and each time
//! every packet asks for the next line of its own; what one waits for, the others' looks hide.
//!
//! | look | for the memory of |
//! |---|---|
//! | 0 | the connection of its tuple, the sender's endpoint, the service's row, the sender as policies see it |
//! | 1, 2 | the service, its backends |
//! | 3 | the backend as policies see it, its endpoint, the connection of the answers |
//!
//! Nothing is decided here, noted or remembered: a look that is wrong costs time.

use std::net::SocketAddr;

use api::{AddressKey, BridgeId};

use crate::Turn;
use crate::burst::{Burst, Lanes, Verdict};
use crate::key::FlowKey;
use crate::live::connections::Tuple;
use crate::probe;
use crate::resolve::tracking::Carried;

/// Times that a burst is gone through.
const LOOKS: usize = LAST_LOOK + 1;
/// The look at which a service's backend is known.
pub const LAST_LOOK: usize = 3;
/// Fewer packets than these do not hide what one waits for.
const FEWEST: usize = 4;

/// What is foreseen of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// What it carries.
    pub tuple: Tuple,
    /// For the stage that looks: what it hashed at the first look.
    pub hash: u64,
    /// For the stage that looks: what it chose.
    pub choice: Option<usize>,
    /// Where it will be sent, as far as is known.
    pub to: SocketAddr,
}

/// Look ahead for those of `lanes` that are to be walked for, as many as may be. `sights` is empty, and is again: it is lent so
/// that a burst asks the system for no memory.
pub(super) fn look<const N: usize>(
    sights: &mut Vec<Sight>,
    burst: &Burst,
    lanes: impl Lanes,
    zone: BridgeId,
    turn: &Turn<'_>,
) {
    let pending = |lane: &usize| burst.verdicts.get(*lane) == Some(&Verdict::Pending);
    let sight = |lane| match Carried::of(&FlowKey::of_words::<N>(probe::key(burst, lane)?), zone) {
        Carried::Flow(tuple) => {
            Some(Sight { tuple, hash: 0, choice: None, to: SocketAddr::new(tuple.dst, tuple.dport) })
        }
        _ => None,
    };
    sights.extend(lanes.each().filter(pending).filter_map(sight).take(turn.walks));
    if sights.len() >= FEWEST {
        let (connections, topology) = (&turn.live.connections, turn.program.topology());
        for sight in sights.iter() {
            connections.look_ahead(&sight.tuple);
            topology.look_ahead(AddressKey { bridge: zone, address: sight.tuple.src });
        }
        for look in 0..LOOKS {
            sights.iter_mut().for_each(|sight| turn.program.look_ahead(sight, look, turn.now));
        }
        for Sight { tuple, to, .. } in sights.iter() {
            topology.look_ahead(AddressKey { bridge: zone, address: to.ip() });
            connections.look_ahead(&Tuple { src: to.ip(), sport: to.port(), ..tuple.turned() });
        }
    }
    sights.clear();
}
