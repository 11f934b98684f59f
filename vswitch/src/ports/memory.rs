//! `memory`: a port whose other end is in the same process, for tests, labs without privilege, and benches.
//!
//! [`pair`] makes both ends. Frames cross as owned slots, without a copy, through two bounded rings. The far end
//! ([`Wire`]) sends and receives frames of the same pool; when the switch's end sleeps, the sender wakes it through an
//! event descriptor, and only then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use pipeline::burst::{Burst, LANES};
use pipeline::offload::Offload;
use pipeline::raw::{Frame, Stash};
use rustix::event::{EventfdFlags, eventfd};

use super::{Device, Environment, Opened, PortDef, PortError, Rx, RxQueue, Status, Tx, TxBatch};

/// The kind. It can only be opened from within the process.
pub const PORT: PortDef =
    PortDef { name: "memory", help: "joined to code in the same process (tests, benches)", options: &[], open };

fn open(port: &api::Port, _environment: &Environment<'_>) -> Result<Opened, PortError> {
    Err(PortError(format!("type=memory: {}: only code inside the switch's own process can open one", port.name)))
}

/// Both directions of a memory port.
struct Rings {
    /// Towards the switch.
    ingress: ArrayQueue<Frame>,
    /// Towards the far end.
    egress: ArrayQueue<Frame>,
    /// The switch's worker sleeps on `wake`.
    asleep: AtomicBool,
    wake: OwnedFd,
    /// The far end takes frames with unfinished checksums and segmentation.
    offloads: bool,
}

/// The far end of a memory port.
pub struct Wire {
    rings: Arc<Rings>,
}

/// A memory port with rings of `depth` frames, and its far end. `offloads`: the far end takes super-frames.
///
/// # Errors
/// When the system has no descriptor left.
pub fn pair(depth: usize, offloads: bool) -> std::io::Result<(Opened, Wire)> {
    let rings = Arc::new(Rings {
        ingress: ArrayQueue::new(depth),
        egress: ArrayQueue::new(depth),
        asleep: AtomicBool::new(false),
        wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        offloads,
    });
    let queue: Box<dyn RxQueue> = Box::new(Queue { rings: Arc::clone(&rings) });
    Ok((Opened { queues: vec![queue], device: Arc::new(Memory { rings: Arc::clone(&rings) }) }, Wire { rings }))
}

impl Wire {
    /// Send a frame to the switch; gives it back when the ring is full.
    ///
    /// # Errors
    /// The frame, when the ring is full.
    #[inline]
    pub fn send(&self, frame: Frame) -> Result<(), Frame> {
        self.rings.ingress.push(frame)
    }

    /// Wake the worker if it sleeps: after one or many [`Self::send`]s.
    pub fn kick(&self) {
        fence(Ordering::SeqCst);
        if self.rings.asleep.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.rings.wake, &1u64.to_ne_bytes());
        }
    }

    /// The next frame that the switch sent.
    #[inline]
    pub fn receive(&self) -> Option<Frame> {
        self.rings.egress.pop()
    }
}

struct Queue {
    rings: Arc<Rings>,
}

impl RxQueue for Queue {
    fn rx(&mut self, burst: &mut Burst, limit: usize, _stash: &mut Stash) -> Rx {
        for _ in 0..limit {
            let Some(frame) = self.rings.ingress.pop() else { return Rx::Drained };
            frame.prefetch();
            if let Err(frame) = burst.push(frame) {
                // The burst has room for `limit` by contract; a frame must not be lost if a caller broke it.
                let _ = self.rings.ingress.push(frame);
                break;
            }
        }
        Rx::More
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.rings.wake.as_fd())
    }

    fn arm(&mut self) -> bool {
        // Reading resets the counter, so that a level-triggered wait does not return for an old kick.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.rings.wake, &mut count);
        self.rings.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.rings.ingress.is_empty()
    }

    fn limit(&self) -> usize {
        LANES
    }
}

struct Memory {
    rings: Arc<Rings>,
}

impl Device for Memory {
    fn tx(&self, batch: &mut TxBatch, _stash: &mut Stash) -> Tx {
        while let Some((frame, from)) = batch.pop() {
            if let Err(frame) = self.rings.egress.push(frame) {
                batch.unpop(frame, from);
                return Tx::Full;
            }
        }
        Tx::Done
    }

    fn takes(&self, _offload: Offload) -> bool {
        self.rings.offloads
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}
