//! Frames that wait for the Ethernet address of their next hop, one lot a worker.
//!
//! ```text
//!   walk ends in Wait ── park ──┐   the neighbour is asked for (not here)
//!                               │
//!        answer learned ─ ready ┴─▶ next_burst ─▶ the pipeline, as if the frame had just come in
//!        three seconds  ─ expire ─▶ dropped; for the first of a neighbour its sender may be told
//! ```
//!
//! A frame that is let go on walks again: what was decided when it came in may hold no longer. It never asks for an
//! address, and never decides whether one is known.
//!
//! Bounds: frames a neighbour, so that a scan of empty addresses holds little; frames an ingress port; frames in all. A frame
//! beyond a bound is refused, and those that wait already stay: the first packets of a connection are the ones that count.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use ahash::RandomState;
use api::{AddressKey, PortId};

use crate::burst::{Burst, LANES};
use crate::drop::DropReason;
use crate::live::Now;
use crate::raw::Frame;

/// How long a frame waits: three questions, a second apart (RFC 4861, 10: MAX_MULTICAST_SOLICIT, RETRANS_TIMER).
const PATIENCE: Duration = Duration::from_secs(3);
/// Frames that wait for one neighbour.
const NEIGHBOR: usize = 8;
/// Frames of one ingress port, those that may go on included.
const PORT: usize = 64;
/// Frames in all, those that may go on included.
const ALL: usize = 256;

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    frame: Frame,
    in_port: PortId,
    since: Now,
}

/// A frame that waited in vain.
#[derive(Debug)]
#[must_use = "its frame is lost to its pool"]
pub struct Expired {
    /// The frame.
    pub frame: Frame,
    /// Where it came in.
    pub in_port: PortId,
    /// Whom it waited for.
    pub neighbor: AddressKey,
    /// Why it is dropped.
    pub reason: DropReason,
    /// It is the first of those that waited for this neighbour: its sender may be told (ICMP host unreachable; RFC 4861,
    /// 7.2.2).
    pub first: bool,
}

/// All frames that wait at a worker.
#[derive(Debug, Default)]
pub struct Parked {
    /// By neighbour, the oldest first; none is empty.
    waiting: HashMap<AddressKey, VecDeque<Waiting>, RandomState>,
    /// Those that may go on, by ingress port, those of a neighbour in the order in which they came; none is empty.
    ready: VecDeque<(PortId, VecDeque<Frame>)>,
    /// Frames of each ingress port, waiting or ready; none is zero.
    ports: BTreeMap<PortId, usize>,
    /// Frames in all.
    frames: usize,
    /// Count of what was learned when [`Self::ready`] last looked.
    changes: u64,
    /// No frame is older: [`Self::expire`] has nothing to do until its time is over.
    oldest: Now,
}

impl Parked {
    /// Frames that wait or may go on.
    pub fn len(&self) -> usize {
        self.frames
    }

    /// No frame is here.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Neighbours that are waited for.
    pub fn neighbors(&self) -> impl Iterator<Item = &AddressKey> {
        self.waiting.keys()
    }

    /// Keep a frame until `neighbor` is known.
    ///
    /// # Errors
    /// The frame, when as many wait as may.
    pub fn park(
        &mut self,
        frame: Frame,
        in_port: PortId,
        neighbor: AddressKey,
        now: Now,
    ) -> Result<(), (Frame, DropReason)> {
        let of_neighbor = self.waiting.get(&neighbor).map_or(0, VecDeque::len);
        let of_port = self.ports.get(&in_port).copied().unwrap_or(0);
        if of_neighbor >= NEIGHBOR || of_port >= PORT || self.frames >= ALL {
            return Err((frame, DropReason::NeighborOverload));
        }
        if self.waiting.is_empty() {
            self.oldest = now;
        }
        self.waiting.entry(neighbor).or_default().push_back(Waiting { frame, in_port, since: now });
        *self.ports.entry(in_port).or_default() += 1;
        self.frames += 1;
        Ok(())
    }

    /// Let those go on whose neighbour is known by now. `changes` counts what was ever learned of neighbours, and is raised
    /// once that can be found; as long as it stays nothing is looked at. Not to be called between a walk that found a
    /// neighbour missing and its [`Self::park`]: what is learned there would count as looked at.
    pub fn ready(&mut self, changes: u64, resolved: &dyn Fn(AddressKey) -> bool) {
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        let Self { waiting, ready, .. } = self;
        for (_, frames) in waiting.extract_if(|neighbor, _| resolved(*neighbor)) {
            for Waiting { frame, in_port, .. } in frames {
                match ready.iter_mut().find(|(port, _)| *port == in_port) {
                    Some((_, queue)) => queue.push_back(frame),
                    None => ready.push_back((in_port, VecDeque::from([frame]))),
                }
            }
        }
    }

    /// Start `burst` anew with frames that may go on, all of one ingress port; ports take turns. Returns false, leaving the
    /// burst as it is, when there are none. All frames of the burst must have been taken out.
    pub fn next_burst(&mut self, burst: &mut Burst) -> bool {
        let Some((in_port, mut queue)) = self.ready.pop_front() else { return false };
        burst.reset(in_port);
        for frame in queue.drain(..queue.len().min(LANES)) {
            // There is a lane for each.
            if burst.push(frame).is_ok() {
                self.left(in_port);
            }
        }
        if !queue.is_empty() {
            self.ready.push_back((in_port, queue));
        }
        true
    }

    /// Give up frames that have waited long enough.
    pub fn expire(&mut self, now: Now, give: &mut dyn FnMut(Expired)) {
        let over = |since: Now| now.0.saturating_sub(since.0) >= PATIENCE;
        if self.waiting.is_empty() || !over(self.oldest) {
            return;
        }
        self.give_up(now, &over, give);
    }

    /// Give everything back: the worker ends.
    pub fn clear(&mut self, give: &mut dyn FnMut(Frame)) {
        self.give_up(Now::default(), &|_| true, &mut |expired| give(expired.frame));
        self.ready.drain(..).flat_map(|(_, queue)| queue).for_each(give);
        self.ports.clear();
        self.frames = 0;
    }

    fn give_up(&mut self, now: Now, over: &dyn Fn(Now) -> bool, give: &mut dyn FnMut(Expired)) {
        self.oldest = now;
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|neighbor, frames| {
            let mut first = true;
            while let Some(Waiting { frame, in_port, .. }) = frames.pop_front_if(|waiting| over(waiting.since)) {
                self.left(in_port);
                give(Expired { frame, in_port, neighbor: *neighbor, reason: DropReason::NeighborUnresolved, first });
                first = false;
            }
            if let Some(next) = frames.front() {
                self.oldest = self.oldest.min(next.since);
            }
            !frames.is_empty()
        });
        self.waiting = waiting;
    }

    /// A frame of this port is here no longer.
    fn left(&mut self, port: PortId) {
        self.frames = self.frames.saturating_sub(1);
        if let Some(count) = self.ports.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.ports.remove(&port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use api::BridgeId;
    use proptest::prelude::*;

    use super::*;
    use crate::raw::{Pool, Stash};

    fn neighbor(n: u8) -> AddressKey {
        AddressKey { bridge: BridgeId(1), address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)) }
    }

    fn at(millis: u64) -> Now {
        Now(Duration::from_millis(millis))
    }

    struct Bench {
        parked: Parked,
        stash: Stash,
        burst: Box<Burst>,
    }

    impl Bench {
        fn new() -> Self {
            Self { parked: Parked::default(), stash: Pool::heap(512, 0).stash(), burst: Burst::new() }
        }

        fn held(&self) -> usize {
            512 - self.stash.available()
        }

        /// Park a frame of one octet.
        fn park(&mut self, octet: u8, port: u16, n: u8, millis: u64) -> Result<(), DropReason> {
            let mut frame = self.stash.take().unwrap();
            assert!(frame.fill(&[octet]));
            self.parked.park(frame, PortId(port), neighbor(n), at(millis)).map_err(|(frame, reason)| {
                self.stash.give(frame);
                reason
            })
        }

        /// The next burst: port, and the octets of its frames.
        fn next(&mut self) -> Option<(u16, Vec<u8>)> {
            if !self.parked.next_burst(&mut self.burst) {
                return None;
            }
            let frames: Vec<Frame> = self.burst.frames.iter_mut().filter_map(Option::take).collect();
            let octets = frames.iter().map(|frame| frame.head()[0]).collect();
            frames.into_iter().for_each(|frame| self.stash.give(frame));
            Some((self.burst.in_port.0, octets))
        }

        /// What is given up: octet, port, whether it is the first of its neighbour.
        fn expire(&mut self, millis: u64) -> Vec<(u8, u16, bool)> {
            let (stash, mut given) = (&mut self.stash, Vec::new());
            self.parked.expire(at(millis), &mut |expired| {
                assert_eq!(expired.reason, DropReason::NeighborUnresolved);
                given.push((expired.frame.head()[0], expired.in_port.0, expired.first));
                stash.give(expired.frame);
            });
            given
        }
    }

    #[test]
    fn frames_go_on_by_ingress_port_in_order_once_their_neighbor_is_known() {
        let mut bench = Bench::new();
        for (octet, port, n) in [(1, 1, 1), (2, 2, 1), (3, 1, 1), (4, 1, 2)] {
            bench.park(octet, port, n, 0).unwrap();
        }
        bench.parked.ready(0, &|_| panic!("nothing was learned, so nobody is asked for"));
        bench.parked.ready(1, &|key| key == neighbor(9));
        assert_eq!(bench.next(), None);
        bench.parked.ready(2, &|key| key == neighbor(1));
        assert_eq!((bench.next(), bench.next(), bench.next()), (Some((1, vec![1, 3])), Some((2, vec![2])), None));
        assert_eq!((bench.parked.len(), bench.parked.neighbors().collect::<Vec<_>>()), (1, vec![&neighbor(2)]));
        bench.parked.ready(3, &|_| true);
        assert_eq!(bench.next(), Some((1, vec![4])));
        assert!(bench.parked.is_empty() && bench.held() == 0);
    }

    #[test]
    fn each_bound_holds_and_refuses_the_newest() {
        let mut bench = Bench::new();
        (0..8).for_each(|octet| bench.park(octet, 1, 1, 0).unwrap());
        assert_eq!(bench.park(8, 2, 1, 0), Err(DropReason::NeighborOverload), "eight a neighbour");
        (8..64).for_each(|octet| bench.park(octet, 1, octet, 0).unwrap());
        assert_eq!(bench.park(64, 1, 64, 0), Err(DropReason::NeighborOverload), "64 a port");
        bench.parked.ready(1, &|_| true);
        assert_eq!(bench.park(64, 1, 64, 0), Err(DropReason::NeighborOverload), "those that may go on count too");
        assert_eq!(bench.next().map(|(port, octets)| (port, octets.len())), Some((1, 64)));
        for port in 1..=4 {
            (0..64).for_each(|octet| bench.park(octet, port, octet + (port as u8 - 1) * 64, 0).unwrap());
        }
        assert_eq!(bench.park(0, 5, 0, 0), Err(DropReason::NeighborOverload), "256 in all");
        assert_eq!((bench.held(), bench.parked.len()), (256, 256));
        let (stash, parked) = (&mut bench.stash, &mut bench.parked);
        parked.ready(2, &|key| key == neighbor(61));
        parked.clear(&mut |frame| stash.give(frame));
        assert_eq!((bench.held(), bench.parked.len(), bench.next()), (0, 0, None));
        assert_eq!(bench.park(0, 1, 1, 0), Ok(()));
        assert_eq!(bench.expire(3000), [(0, 1, true)]);
    }

    #[test]
    fn who_waits_in_vain_is_given_up_after_three_seconds_and_the_first_is_told_from_the_rest() {
        let mut bench = Bench::new();
        for (octet, n, millis) in [(1, 1, 0), (2, 1, 500), (3, 1, 2000), (4, 2, 900)] {
            bench.park(octet, 3, n, millis).unwrap();
        }
        assert_eq!(bench.expire(2999), []);
        assert_eq!(bench.expire(3500), [(1, 3, true), (2, 3, false)]);
        assert_eq!(bench.expire(3899), []);
        assert_eq!(bench.expire(3900), [(4, 3, true)]);
        bench.parked.ready(1, &|_| true);
        assert_eq!(bench.expire(9000), [], "one that may go on waits for nobody");
        assert_eq!((bench.next(), bench.held()), (Some((3, vec![3])), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_frame_comes_back_once(
            steps in proptest::collection::vec((0u8..4, 0u16..6, 0u8..20, 0u64..900), 1..600),
        ) {
            let mut bench = Bench::new();
            let (mut now, mut parked, mut back, mut changes) = (0, 0, 0, 0);
            let mut known = BTreeSet::new();
            for (what, port, n, step) in steps {
                now += step;
                match what {
                    0 if n % 4 == 0 => {
                        known.insert(neighbor(n));
                        changes += 1;
                        bench.parked.ready(changes, &|key| known.contains(&key));
                        known.clear();
                    }
                    1 if n % 4 == 0 => back += bench.next().map_or(0, |(_, octets)| octets.len()),
                    2 if n % 8 == 0 => back += bench.expire(now).len(),
                    _ => parked += usize::from(bench.park(n, port, n, now).is_ok()),
                }
                prop_assert_eq!((bench.held(), bench.parked.len()), (parked - back, parked - back));
                prop_assert_eq!(bench.parked.ports.values().sum::<usize>(), parked - back);
            }
            back += bench.expire(now + 3000).len();
            while let Some((_, octets)) = bench.next() {
                back += octets.len();
            }
            prop_assert_eq!((back, bench.held()), (parked, 0));
            prop_assert!(bench.parked.ports.is_empty() && bench.parked.waiting.is_empty());
        }
    }
}
