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

/// How the far end wakes the switch's.
#[derive(Debug)]
struct Bell {
    /// The switch's worker sleeps on `wake`.
    asleep: AtomicBool,
    wake: OwnedFd,
}

/// The far end of a memory port.
#[derive(Debug)]
pub struct Wire {
    ingress: Producer<Frame>,
    egress: Consumer<Frame>,
    bell: Arc<Bell>,
}

/// A memory port with rings of `depth` frames, and its far end. `offloads`: the far end takes unfinished checksums and
/// super-frames.
///
/// # Errors
/// When the system has no descriptor left.
pub fn pair(depth: usize, offloads: bool) -> std::io::Result<(Opened, Wire)> {
    let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let bell = Arc::new(Bell { asleep: AtomicBool::new(false), wake });
    let (to_switch, ingress) = RingBuffer::new(depth);
    let (to_wire, egress) = RingBuffer::new(depth);
    let queue: Box<dyn RxQueue> = Box::new(Queue { ingress, bell: Arc::clone(&bell) });
    let device = Arc::new(Memory { egress: Mutex::new(to_wire), offloads });
    Ok((Opened { queues: vec![queue], device }, Wire { ingress: to_switch, egress, bell }))
}

impl Wire {
    /// Send a frame to the switch.
    ///
    /// # Errors
    /// The frame, when the ring is full.
    #[inline]
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        self.ingress.push(frame).map_err(|rtrb::PushError::Full(frame)| frame)
    }

    /// Frames that [`Self::send`] takes before the ring is full.
    pub fn room(&self) -> usize {
        self.ingress.slots()
    }

    /// Send as many of `frames` as there is room for, all at once. Returns how many.
    #[inline]
    pub fn send_all(&mut self, frames: impl ExactSizeIterator<Item = Frame>) -> usize {
        match self.ingress.write_chunk_uninit(frames.len().min(self.ingress.slots())) {
            Ok(chunk) => chunk.fill_from_iter(frames),
            Err(_) => 0,
        }
    }

    /// Wake the worker if it sleeps: after one or many [`Self::send`]s.
    pub fn kick(&self) {
        fence(Ordering::SeqCst);
        if self.bell.asleep.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.bell.wake, &1u64.to_ne_bytes());
        }
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
        Some(self.bell.wake.as_fd())
    }

    fn polled(&self) -> bool {
        true
    }

    fn arm(&mut self) -> bool {
        // Reading resets the counter, so that a level-triggered wait does not return for an old kick.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell.wake, &mut count);
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
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
