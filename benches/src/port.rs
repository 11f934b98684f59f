//! The port that frames come from and go to: a generator and a sink in one, run by the worker that is measured.
//!
//! As a looping pcap port does it: receiving copies prebuilt frames into fresh slots, sending gives the slots back. So
//! what is measured includes one copy of every frame, a slot taken and a slot returned; [`alone`] measures those by
//! themselves. The far end of a `memory` port would add a thread and two rings that no peer in comparison has.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use api::PortId;
use parking_lot::RwLock;
use pipeline::burst::{Burst, LANES};
use pipeline::offload::Offload;
use pipeline::raw::{Pool, Stash, ticks};
use vswitch::ports::{Device, Opened, Rx, RxQueue, Status, Tx, TxBatch};

use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Laps, Moved, Step, closed_loop};

/// Slots that a bench needs: a burst in flight and a full stash; small enough to stay in the second-level cache.
pub const SLOTS: usize = 1024;

/// Frames that wait where a port has a pace.
const RING: u64 = 1024;

/// Lists of frames for one port, one of which is on, or none.
#[derive(Debug)]
pub struct Playlist {
    /// Asked for when another list is turned to.
    lists: RwLock<Vec<Arc<Frames>>>,
    /// There never is a frame in them.
    silent: bool,
    on: AtomicUsize,
    paused: AtomicBool,
    /// Ticks from one frame to the next; 0 when there is always one more.
    pace: AtomicU64,
}

impl Playlist {
    /// The first list is on.
    pub fn new(lists: Vec<Arc<Frames>>) -> Arc<Self> {
        let silent = lists.iter().all(|frames| frames.is_empty());
        Arc::new(Self { silent, on: AtomicUsize::new(0), ..Self::of(lists) })
    }

    /// Nothing is on: what is to be sent is not known yet, and will be [`Self::add`]ed.
    pub fn awaited() -> Arc<Self> {
        Arc::new(Self::of(Vec::new()))
    }

    fn of(lists: Vec<Arc<Frames>>) -> Self {
        Self {
            lists: lists.into(),
            silent: false,
            on: AtomicUsize::new(usize::MAX),
            paused: AtomicBool::new(false),
            pace: AtomicU64::new(0),
        }
    }

    /// Append a list. Returns its number.
    pub fn add(&self, frames: Arc<Frames>) -> usize {
        let mut lists = self.lists.write();
        lists.push(frames);
        lists.len() - 1
    }

    /// From its next burst on, the port sends the frames of list `number` from the first one on; nothing if there is no
    /// such list.
    pub fn play(&self, number: usize) {
        self.on.store(number, Ordering::Release);
    }

    /// From its next burst on, the port sends nothing; or goes on where it was.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// The port sends a frame every so many ticks, whenever it is asked; with 0, as many as it is asked for. Those that nobody
    /// asks for wait, as many as in a ring; what comes then is lost.
    pub fn pace(&self, ticks: u64) {
        self.pace.store(ticks, Ordering::Release);
    }

    /// The list that was added last.
    pub fn last(&self) -> Option<Arc<Frames>> {
        self.lists.read().last().cloned()
    }

    /// The list of this number.
    pub fn list(&self, number: usize) -> Option<Arc<Frames>> {
        self.lists.read().get(number).cloned()
    }
}

/// Sends what is on for ever. Alone on its pair of cache lines: it writes down with every frame where it is, and the
/// generators of two workers are made one after the other.
#[derive(Debug)]
#[repr(align(128))]
pub struct Generator {
    playlist: Arc<Playlist>,
    on: usize,
    frames: Arc<Frames>,
    next: usize,
    /// When the last frame was due, ticks.
    sent: u64,
}

impl Generator {
    /// These frames, from the first one on.
    pub fn new(frames: Arc<Frames>) -> Self {
        Self::of(Playlist::new(vec![frames]))
    }

    /// What is on in this list.
    pub fn of(playlist: Arc<Playlist>) -> Self {
        let mut generator = Self { playlist, on: 0, frames: Arc::default(), next: 0, sent: 0 };
        generator.turn_to(generator.playlist.on.load(Ordering::Acquire));
        generator
    }

    /// Frames that are due by now, `limit` at most.
    #[cold]
    fn due(&mut self, pace: u64, limit: usize) -> usize {
        let now = ticks();
        self.sent = self.sent.max(now.saturating_sub(pace * RING));
        let due = ((now - self.sent) / pace).min(limit as u64);
        self.sent += due * pace;
        due as usize
    }

    #[cold]
    fn turn_to(&mut self, number: usize) {
        (self.on, self.next) = (number, 0);
        self.frames = self.playlist.list(number).unwrap_or_default();
    }
}

impl RxQueue for Generator {
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx {
        let on = self.playlist.on.load(Ordering::Acquire);
        if on != self.on {
            self.turn_to(on);
        }
        if self.frames.is_empty() || self.playlist.paused.load(Ordering::Acquire) {
            return Rx::Drained;
        }
        let pace = self.playlist.pace.load(Ordering::Acquire);
        let due = if pace == 0 { limit } else { self.due(pace, limit) };
        for _ in 0..due {
            let Some(mut frame) = stash.take() else { return Rx::Starved };
            // The frames were checked to fit a slot when they were made.
            let _ = frame.fill(self.frames.nth(self.next));
            self.next = if self.next + 1 == self.frames.len() { 0 } else { self.next + 1 };
            if let Err(frame) = burst.push(frame) {
                stash.give(frame);
                break;
            }
        }
        if due < limit { Rx::Drained } else { Rx::More }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn limit(&self) -> usize {
        LANES
    }
}

/// Takes every frame, counts it, and gives its slot back. Alone on its pair of cache lines, so that two workers that
/// send to two sinks do not meet.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Sink {
    packets: AtomicU64,
}

impl Sink {
    /// Frames taken so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }
}

impl Device for Sink {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        self.packets.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch.take(batch.len(), |frame| stash.give(frame));
        Tx::Done
    }

    fn takes(&self, _offload: Offload) -> bool {
        true
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}

/// An open port that sends what is on, and its counting side. Without frames it has no queue, so that no worker waits on it.
pub fn open(playlist: Arc<Playlist>) -> (Opened, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let queue = (!playlist.silent).then(|| Box::new(Generator::of(playlist)) as Box<dyn RxQueue>);
    (Opened { queues: queue.into_iter().collect(), device: Arc::clone(&sink) as Arc<dyn Device> }, sink)
}

/// Generator and sink with nothing in between.
struct Alone {
    queue: Generator,
    sink: Sink,
    burst: Box<Burst>,
    batch: TxBatch,
    stash: Stash,
}

impl Step for Alone {
    fn names(&self) -> &'static [&'static str] {
        &[]
    }

    fn step(&mut self, _laps: &mut Laps) -> Moved {
        self.burst.reset(PortId(1));
        let _ = self.queue.rx(&mut self.burst, LANES, &mut self.stash);
        let len = self.burst.len();
        for lane in self.burst.frames.iter_mut().take(len) {
            if let Some(frame) = lane.take() {
                self.batch.push(frame, PortId(1));
            }
        }
        let _ = self.sink.tx(&mut self.batch, &mut self.stash);
        Moved { packets: len as u64, drops: 0, ticks: 0 }
    }
}

/// Ticks a packet that generator and sink take by themselves, lane array and send list included.
///
/// # Errors
/// When nothing moves.
pub fn alone(frames: &Arc<Frames>, duration: Duration, machine: &Machine) -> Result<f64> {
    let pool = Pool::heap(SLOTS, 0);
    let mut work = Alone {
        queue: Generator::new(Arc::clone(frames)),
        sink: Sink::default(),
        burst: Burst::new(),
        batch: TxBatch::new(),
        stash: pool.stash(),
    };
    Ok(closed_loop(&mut work, frames.len() as u64, duration, machine)?.median())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Size;

    #[test]
    fn frames_come_in_order_again_and_again_and_no_slot_is_lost() {
        let [frames, _] = Frames::pairs(3, Size::Fixed(64)).unwrap();
        let (frames, pool) = (Arc::new(frames), Pool::heap(SLOTS, 0));
        let mut queue = Generator::new(Arc::clone(&frames));
        let (mut stash, mut burst, mut n) = (pool.stash(), Burst::new(), 0);
        for _ in 0..40 {
            burst.reset(PortId(1));
            assert_eq!(queue.rx(&mut burst, LANES, &mut stash), Rx::More);
            assert_eq!(burst.len(), LANES);
            for lane in &mut burst.frames {
                let frame = lane.take().unwrap();
                assert_eq!(frame.head(), frames.nth(n % frames.len()));
                stash.give(frame);
                n += 1;
            }
        }
        drop(stash);
        assert!(n > frames.len(), "the list was begun again");
        assert_eq!(pool.free(), pool.slots());
    }

    #[test]
    fn what_generator_and_sink_take_is_measured() {
        let [frames, _] = Frames::pairs(1, Size::Fixed(64)).unwrap();
        let tsc = alone(&Arc::new(frames), Duration::from_millis(60), &Machine::measure()).unwrap();
        assert!(tsc > 0.0 && tsc < 1e6, "{tsc}");
    }
}
