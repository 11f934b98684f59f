//! Ports: how frames enter and leave the switch.
//!
//! A kind of port is one file that exports `pub const PORT: PortDef`, and one row in [`PORT_TYPES`]. Opening it yields
//! receive queues, each read by one worker, and a [`Device`] that any worker may send to. `null.rs` is the shortest
//! correct port: copy from there.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use api::{Attached, MacAddr, PortId};
use pipeline::burst::Burst;
use pipeline::offload::Offload;
use pipeline::raw::{Frame, Pool, Stash};

use crate::keeper::Keeper;

mod interface;
pub mod internal;
#[cfg(test)]
mod kit;
pub mod memory;
pub mod null;
mod offloaded;
pub mod packet;
pub mod pcap;
pub mod stack;
pub mod tap;

/// The kinds of ports, in the order in which help lists them.
pub const PORT_TYPES: &[&PortDef] =
    &[&tap::PORT, &internal::PORT, &packet::PORT, &pcap::PORT, &memory::PORT, &null::PORT, &stack::PORT];

/// A kind of port.
#[derive(Debug)]
pub struct PortDef {
    /// What stands behind `type=`.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Its `options:`, each with a line for people. Others are refused before `open` is called.
    pub options: &'static [(&'static str, &'static str)],
    /// Open the port, making its device where it is ours to make. On error nothing is left behind.
    pub open: fn(&api::Port, &Environment<'_>) -> Result<Opened, PortError>,
}

/// Why a port could not be opened: names the option, device or namespace, the value, and the rule.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

/// What a port may use when it opens.
#[derive(Debug)]
pub struct Environment<'a> {
    /// Frame memory.
    pub pool: &'a Pool,
    /// Holds descriptors for the time when this process is gone, and gives back what the last one left.
    pub keeper: &'a Keeper,
    /// Memory ports that code in this process made, by port name, until one opens them.
    pub offered: &'a Offered,
}

/// Memory ports that wait to be opened, by port name.
#[derive(Default)]
pub struct Offered(parking_lot::Mutex<HashMap<String, Opened>>);

impl Offered {
    /// The map.
    pub fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Opened>> {
        self.0.lock()
    }
}

impl std::fmt::Debug for Offered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

/// An open port.
pub struct Opened {
    /// Receive queues; a port that never receives has none.
    pub queues: Vec<Box<dyn RxQueue>>,
    /// The sending side, shared by all workers.
    pub device: Arc<dyn Device>,
}

/// One receive queue. Owned and read by one worker.
pub trait RxQueue: Send {
    /// Put up to `limit` frames, in order of arrival, into the burst (which has room for them). Never blocks.
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx;

    /// Descriptor that is readable (level-triggered) while frames wait; `None` if the queue must be polled.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// The queue is looked at in every turn, since that costs next to nothing; others when [`Self::fd`] is readable.
    fn polled(&self) -> bool {
        self.fd().is_none()
    }

    /// The worker is about to sleep on [`Self::fd`]: arrange to be woken. Returns true if frames wait already. Queues
    /// whose descriptor the kernel drives have nothing to do.
    fn arm(&mut self) -> bool {
        false
    }

    /// Frames that one call of [`Self::rx`] should fetch at most: 64 from kernel devices, 256 from memory.
    fn limit(&self) -> usize;

    /// Frames that the queue had to lose since the last call because there was no memory for them, to be counted as
    /// [`NoFrame`](pipeline::drop::DropReason::NoFrame). Asked after each [`Self::rx`].
    fn lost(&mut self) -> u64 {
        0
    }
}

/// What a call of [`RxQueue::rx`] came to. How many frames there were, the burst knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rx {
    /// The queue is empty now.
    Drained,
    /// There may be more.
    More,
    /// The frame pool is empty: frames wait, but there is no memory to put them into.
    Starved,
    /// The device is gone and will not come back under this descriptor.
    Gone,
}

/// The sending side of a port, and what else there is to know of its device. Shared by all workers.
pub trait Device: Send + Sync {
    /// Send frames from the front of the batch, in order, taking out those that were sent. Frames whose offload the
    /// device cannot take are never in the batch ([`Self::takes`]). Never blocks.
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx;

    /// The device finishes this work itself.
    fn takes(&self, offload: Offload) -> bool;

    /// Take over the MAC and MTU of a port that is open already.
    ///
    /// # Errors
    /// What the device refused; it is as it was before.
    fn configure(&self, _port: &api::Port) -> Result<(), PortError> {
        Ok(())
    }

    /// The router of the port's bridge, for devices that speak to it. Also called of a port that is opened on a bridge that
    /// has one.
    fn routed(&self, _router: &api::Router) {}

    /// How the device is now. May cost as much as starting a thread: for people, not for every second.
    fn status(&self) -> Status;

    /// The device's interface as it is now, inside its namespace. May cost as much as starting a thread.
    ///
    /// # Errors
    /// When it has none, or it is gone.
    fn interface(&self) -> Result<Attached, PortError> {
        Err(PortError("has no interface that can be looked at".to_owned()))
    }

    /// Why the device will never carry a frame again, if so: the switch closes the port then. Cheap enough to be asked
    /// of every port once a second. Also what [`Status::error`] says.
    fn fault(&self) -> Option<String> {
        None
    }

    /// The port is deleted: remove the device, if it is ours.
    fn remove(&self);
}

/// What a call of [`Device::tx`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tx {
    /// The batch is empty.
    Done,
    /// The device is full; what is left in the batch may be tried again.
    Full,
    /// The device is down; what is left in the batch cannot be sent.
    Down,
    /// The device refused the frame that is now at the front of the batch; those behind it may be tried.
    Refused,
    /// The frame that is now at the front of the batch is one too many of those that came in where it did; those behind it
    /// may be tried.
    Limited,
}

/// How a device is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Why it carries no frames.
    pub error: Option<String>,
    /// Name of its network interface.
    pub ifname: Option<String>,
    /// Its address.
    pub mac: Option<MacAddr>,
    /// Its MTU; 0 when it has none of its own.
    pub mtu: u16,
    /// Up, with a carrier.
    pub link: Option<bool>,
    /// Offloads for people.
    pub offloads: String,
}

/// Frames on their way out by one port, oldest first.
///
/// Frames lie in a row, and where they came in is told in runs: a burst has one ingress port, so appending one is a
/// copy and a run. What was sent is cut off when the row is empty, or long.
#[derive(Debug)]
pub struct TxBatch {
    /// `None` before `head`, a frame from there on.
    frames: Vec<Option<Frame>>,
    head: usize,
    /// Ingress ports of the frames from `head` on, and how many in a row came from there.
    sources: VecDeque<(PortId, usize)>,
    /// Sum of the frames' octets.
    bytes: usize,
}

impl Default for TxBatch {
    /// Without room, for ports that may never see a frame.
    fn default() -> Self {
        Self { frames: Vec::new(), head: 0, sources: VecDeque::new(), bytes: 0 }
    }
}

impl TxBatch {
    /// Room for as many frames as a burst and a full port's backlog have, so that it seldom grows under load.
    pub fn new() -> Self {
        Self { frames: Vec::with_capacity(512), head: 0, sources: VecDeque::with_capacity(64), bytes: 0 }
    }

    /// Append a frame that came in by `from`.
    #[inline]
    pub fn push(&mut self, frame: Frame, from: PortId) {
        self.extend([frame], from);
    }

    /// Append frames that came in by `from`.
    #[inline]
    pub fn extend(&mut self, frames: impl IntoIterator<Item = Frame>, from: PortId) {
        let before = self.frames.len();
        let bytes = &mut self.bytes;
        self.frames.extend(frames.into_iter().map(|frame| {
            *bytes += frame.len();
            Some(frame)
        }));
        self.note(from, self.frames.len() - before);
    }

    fn note(&mut self, from: PortId, frames: usize) {
        match self.sources.back_mut() {
            Some((port, run)) if *port == from => *run += frames,
            _ if frames != 0 => self.sources.push_back((from, frames)),
            _ => {}
        }
    }

    /// The oldest frame.
    #[inline]
    pub fn front(&mut self) -> Option<&mut Frame> {
        self.frames.get_mut(self.head)?.as_mut()
    }

    /// The port that the oldest frame came in by.
    #[inline]
    pub fn source(&self) -> Option<PortId> {
        self.sources.front().map(|(port, _)| *port)
    }

    /// There is room for some frames already.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.frames.capacity() != 0
    }

    /// Take the oldest frame out, with the port it came in by.
    #[inline]
    pub fn pop(&mut self) -> Option<(Frame, PortId)> {
        let frame = self.frames.get_mut(self.head)?.take()?;
        let from = self.sources.front().map_or(PortId::NONE, |(port, _)| *port);
        self.sent(1, frame.len());
        Some((frame, from))
    }

    /// Take the `n` oldest frames out, for a device that takes them for certain.
    #[inline]
    pub fn take(&mut self, n: usize, mut each: impl FnMut(Frame)) {
        let n = n.min(self.len());
        let mut bytes = 0;
        for frame in self.frames.iter_mut().skip(self.head).take(n).filter_map(Option::take) {
            bytes += frame.len();
            each(frame);
        }
        self.sent(n, bytes);
    }

    /// The `n` oldest frames have been taken out.
    #[inline]
    fn sent(&mut self, n: usize, bytes: usize) {
        self.head += n;
        self.bytes -= bytes.min(self.bytes);
        if self.head == self.frames.len() {
            self.frames.clear();
            self.sources.clear();
            self.head = 0;
            return;
        }
        let mut n = n;
        while let Some((_, run)) = self.sources.front_mut() {
            let taken = n.min(*run);
            (*run, n) = (*run - taken, n - taken);
            if *run != 0 {
                break;
            }
            self.sources.pop_front();
        }
        if self.head >= 1024 {
            self.frames.drain(..self.head);
            self.head = 0;
        }
    }

    /// Take the newest frame out, with the port it came in by.
    pub fn pop_newest(&mut self) -> Option<(Frame, PortId)> {
        if self.is_empty() {
            return None;
        }
        let frame = self.frames.pop()??;
        self.bytes -= frame.len().min(self.bytes);
        let (from, run) = self.sources.back_mut()?;
        let from = *from;
        *run -= 1;
        if *run == 0 {
            self.sources.pop_back();
        }
        Some((frame, from))
    }

    /// Put a frame that was popped back to the front.
    pub fn unpop(&mut self, frame: Frame, from: PortId) {
        self.bytes += frame.len();
        match self.head.checked_sub(1) {
            Some(before) => {
                self.head = before;
                if let Some(place) = self.frames.get_mut(before) {
                    *place = Some(frame);
                }
            }
            None => self.frames.insert(0, Some(frame)),
        }
        match self.sources.front_mut() {
            Some((port, run)) if *port == from => *run += 1,
            _ => self.sources.push_front((from, 1)),
        }
    }

    /// The frames, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> + Clone {
        self.frames.iter().skip(self.head).flatten()
    }

    /// Frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len() - self.head
    }

    /// Octets of all frames.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the frames of a batch and where they came from, taken out one by one.
    fn drain(batch: &mut TxBatch, stash: &mut Stash) -> Vec<(usize, u16)> {
        let mut rows = Vec::new();
        while let Some((frame, from)) = batch.pop() {
            rows.push((frame.len(), from.0));
            stash.give(frame);
        }
        rows
    }

    fn frame(stash: &mut Stash, len: usize) -> Frame {
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&vec![0; len]));
        frame
    }

    #[test]
    fn a_batch_keeps_order_source_and_octets_whichever_end_is_taken() {
        let mut stash = Pool::heap(256, 0).stash();
        let mut batch = TxBatch::new();
        let frames: Vec<Frame> = (1..=3).map(|len| frame(&mut stash, len)).collect();
        batch.extend(frames, PortId(1));
        batch.push(frame(&mut stash, 4), PortId(2));
        batch.push(frame(&mut stash, 5), PortId(1));
        assert_eq!((batch.len(), batch.bytes()), (5, 15));
        let (newest, from) = batch.pop_newest().unwrap();
        assert_eq!((newest.len(), from), (5, PortId(1)));
        stash.give(newest);
        let (oldest, from) = batch.pop().unwrap();
        assert_eq!((oldest.len(), from), (1, PortId(1)));
        batch.unpop(oldest, from);
        batch.take(2, |frame| stash.give(frame));
        assert_eq!((batch.len(), batch.bytes(), batch.front().map(|frame| frame.len())), (2, 7, Some(3)));
        assert_eq!(drain(&mut batch, &mut stash), [(3, 1), (4, 2)]);
        assert_eq!((batch.len(), batch.bytes(), batch.pop_newest().is_none()), (0, 0, true));
        assert_eq!(stash.available(), 256);
    }

    #[test]
    fn a_batch_that_is_never_empty_does_not_grow_for_ever() {
        let mut stash = Pool::heap(256, 0).stash();
        let mut batch = TxBatch::new();
        batch.push(frame(&mut stash, 60), PortId(1));
        for _ in 0..10_000 {
            batch.push(frame(&mut stash, 60), PortId(2));
            batch.take(1, |frame| stash.give(frame));
        }
        assert_eq!((batch.len(), batch.bytes()), (1, 60));
        assert!(batch.frames.capacity() < 4096);
        drain(&mut batch, &mut stash);
    }
}
