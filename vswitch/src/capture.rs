//! Captures: copies of what enters and leaves by a port, for `vsctl capture`.
//!
//! A capture takes what it can get: a frame that finds the channel full is lost to the capture, never to its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use api::PortId;
use api::state::Captured;
use pipeline::burst::Burst;
use pipeline::raw::Frame;

/// Frames that wait for their receiver at most.
const DEPTH: usize = 1024;
/// Octets of a frame that are kept.
const SNAP: usize = 256 * 1024;

/// One capture.
#[derive(Clone, Debug)]
pub struct Capture {
    port: PortId,
    sender: SyncSender<Captured>,
    closed: Arc<AtomicBool>,
}

/// All captures of a switch.
#[derive(Clone, Debug, Default)]
pub struct Captures(Vec<Capture>);

impl Captures {
    /// Nobody captures.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Start one.
    pub fn open(&mut self, port: PortId) -> Receiver<Captured> {
        let (sender, receiver) = sync_channel(DEPTH);
        self.0.push(Capture { port, sender, closed: Arc::default() });
        receiver
    }

    /// A receiver is gone.
    pub fn any_closed(&self) -> bool {
        self.0.iter().any(|capture| capture.closed.load(Ordering::Relaxed))
    }

    /// Those whose receiver is still there, and whose port is not `gone`.
    #[must_use]
    pub fn open_ones(&self, gone: impl Fn(PortId) -> bool) -> Self {
        let keep = |capture: &&Capture| !capture.closed.load(Ordering::Relaxed) && !gone(capture.port);
        Self(self.0.iter().filter(keep).cloned().collect())
    }

    /// Frames came in.
    #[cold]
    pub fn ingress(&self, burst: &Burst) {
        for capture in self.0.iter().filter(|capture| capture.port == burst.in_port) {
            burst.frames.iter().take(burst.len()).flatten().for_each(|frame| capture.take(frame, true));
        }
    }

    /// A frame leaves.
    #[cold]
    pub fn egress(&self, port: PortId, frame: &Frame) {
        self.0.iter().filter(|capture| capture.port == port).for_each(|capture| capture.take(frame, false));
    }
}

impl Capture {
    fn take(&self, frame: &Frame, ingress: bool) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let mut bytes = frame.to_vec();
        let len = bytes.len() as u32;
        bytes.truncate(SNAP);
        if let Err(TrySendError::Disconnected(_)) = self.sender.try_send(Captured { time, ingress, len, bytes }) {
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}
