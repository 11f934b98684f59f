//! `memory`: a port whose other end is in the same process, for tests, labs without privilege, and benches.
//!
//! [`pair`] makes both ends. Frames cross as owned slots, without a copy, through two bounded rings of one producer and
//! one consumer. The far end ([`Wire`]) sends and receives frames of the same pool. When the switch's end sleeps, the
//! sender wakes it through an event descriptor, and only then. The switch's workers share the sending side of the ring:
//! a lock is tried once per flush, and a worker that finds it taken tries again in its next turn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::Mutex;
use pipeline::burst::{Burst, LANES};
use pipeline::offload::Offload;
use pipeline::raw::{Frame, Stash};
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};

use super::{Device, Environment, Opened, PortDef, PortError, Rx, RxQueue, Status, Tx, TxBatch};

/// The kind. It can only be opened from within the process.
pub const PORT: PortDef =
    PortDef { name: "memory", help: "joined to code in the same process (tests, benches)", options: &[], open };

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    environment.offered.lock().remove(&port.name).ok_or_else(|| {
        PortError(format!("type=memory: {}: only code inside the switch's own process can make one", port.name))
    })
}

/// How one end of a ring wakes the other, and only when it sleeps.
#[derive(Debug)]
pub(super) struct Bell {
    /// Whoever listens sleeps on `wake`.
    asleep: AtomicBool,
    wake: OwnedFd,
}

impl Bell {
    /// A bell whose listener is awake.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { asleep: AtomicBool::new(false), wake })
    }

    /// Wake the listener if it sleeps: after what it listens for was made visible.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// The listener is about to sleep on [`Self::fd`]. It has to look once more after this: what came before is not rung.
    pub(super) fn arm(&self) {
        // Reading resets the counter, so that a level-triggered wait does not return for an old ring.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// What the listener sleeps on.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The sending end of a ring into the switch.
#[derive(Debug)]
pub(super) struct Feed {
    ring: Producer<Frame>,
    bell: Arc<Bell>,
}

/// A receive queue of at most `depth` frames, and the end that feeds it.
///
/// # Errors
/// When the system has no descriptor left.
pub(super) fn queue(depth: usize) -> std::io::Result<(Box<dyn RxQueue>, Feed)> {
    let bell = Arc::new(Bell::new()?);
    let (ring, ingress) = RingBuffer::new(depth);
    Ok((Box::new(Queue { ingress, bell: Arc::clone(&bell) }), Feed { ring, bell }))
}

impl Feed {
    /// Send a frame to the switch.
    ///
    /// # Errors
    /// The frame, when the ring is full.
    #[inline]
    pub(super) fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        self.ring.push(frame).map_err(|rtrb::PushError::Full(frame)| frame)
    }

    /// Wake the worker if it sleeps: after one or many [`Self::send`]s.
    #[inline]
    pub(super) fn kick(&self) {
        self.bell.ring();
    }
}

/// The far end of a memory port.
#[derive(Debug)]
pub struct Wire {
    ingress: Feed,
    egress: Consumer<Frame>,
}

/// A memory port with rings of `depth` frames, and its far end. `offloads`: the far end takes unfinished checksums and
/// super-frames.
///
/// # Errors
/// When the system has no descriptor left.
pub fn pair(depth: usize, offloads: bool) -> std::io::Result<(Opened, Wire)> {
    let (queue, ingress) = queue(depth)?;
    let (to_wire, egress) = RingBuffer::new(depth);
    let device = Arc::new(Memory { egress: Mutex::new(to_wire), offloads });
    Ok((Opened { queues: vec![queue], device }, Wire { ingress, egress }))
}

impl Wire {
    /// Send a frame to the switch.
    ///
    /// # Errors
    /// The frame, when the ring is full.
    #[inline]
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        self.ingress.send(frame)
    }

    /// Frames that [`Self::send`] takes before the ring is full.
    pub fn room(&self) -> usize {
        self.ingress.ring.slots()
    }

    /// Send as many of `frames` as there is room for, all at once. Returns how many.
    #[inline]
    pub fn send_all(&mut self, frames: impl ExactSizeIterator<Item = Frame>) -> usize {
        let ring = &mut self.ingress.ring;
        match ring.write_chunk_uninit(frames.len().min(ring.slots())) {
            Ok(chunk) => chunk.fill_from_iter(frames),
            Err(_) => 0,
        }
    }

    /// Wake the worker if it sleeps: after one or many [`Self::send`]s.
    pub fn kick(&self) {
        self.ingress.kick();
    }

    /// The next frame that the switch sent.
    #[inline]
    pub fn receive(&mut self) -> Option<Frame> {
        self.egress.pop().ok()
    }

    /// All frames that the switch sent so far.
    #[inline]
    pub fn receive_all(&mut self, each: impl FnMut(Frame)) -> usize {
        let n = self.egress.slots();
        match self.egress.read_chunk(n) {
            Ok(chunk) => {
                chunk.into_iter().for_each(each);
                n
            }
            Err(_) => 0,
        }
    }
}

struct Queue {
    ingress: Consumer<Frame>,
    bell: Arc<Bell>,
}

impl RxQueue for Queue {
    fn rx(&mut self, burst: &mut Burst, limit: usize, _stash: &mut Stash) -> Rx {
        let waiting = self.ingress.slots();
        let n = waiting.min(limit).min(LANES - burst.len());
        if let Ok(chunk) = self.ingress.read_chunk(n) {
            for frame in chunk {
                frame.prefetch();
                // There is room for all: `n` was bounded by it.
                let _ = burst.push(frame);
            }
        }
        if n == waiting { Rx::Drained } else { Rx::More }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.fd())
    }

    fn polled(&self) -> bool {
        true
    }

    fn arm(&mut self) -> bool {
        self.bell.arm();
        !self.ingress.is_empty()
    }

    fn limit(&self) -> usize {
        LANES
    }
}

struct Memory {
    egress: Mutex<Producer<Frame>>,
    offloads: bool,
}

impl Device for Memory {
    fn tx(&self, batch: &mut TxBatch, _stash: &mut Stash) -> Tx {
        let Some(mut egress) = self.egress.try_lock() else { return Tx::Full };
        let n = egress.slots().min(batch.len());
        // As many as there are slots for: no push fails.
        batch.take(n, |frame| _ = egress.push(frame));
        if batch.is_empty() { Tx::Done } else { Tx::Full }
    }

    fn takes(&self, _offload: Offload) -> bool {
        self.offloads
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}
