//! Ports: how frames enter and leave the switch.
//!
//! A kind of port is one file that exports `pub const PORT: PortDef`, and one row in [`PORT_TYPES`]. Opening it yields
//! receive queues, each read by one worker, and a [`Device`] that any worker may send to. `null.rs` is the shortest
//! correct port: copy from there.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use api::{MacAddr, PortId};
use pipeline::burst::Burst;
use pipeline::offload::Offload;
use pipeline::raw::{Frame, Pool, Stash};

use crate::keeper::Keeper;

pub mod internal;
pub mod memory;
pub mod null;
pub mod pcap;
pub mod tap;

/// The kinds of ports, in the order in which help lists them.
pub const PORT_TYPES: &[&PortDef] = &[&tap::PORT, &internal::PORT, &pcap::PORT, &memory::PORT, &null::PORT];

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
pub struct Offered(parking_lot::Mutex<std::collections::HashMap<String, Opened>>);

impl Offered {
    /// The map.
    pub fn lock(&self) -> parking_lot::MutexGuard<'_, std::collections::HashMap<String, Opened>> {
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

    /// How the device is now. May cost as much as starting a thread: for people, not for every second.
    fn status(&self) -> Status;

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
#[derive(Debug, Default)]
pub struct TxBatch {
    frames: std::collections::VecDeque<(Frame, PortId)>,
    /// Sum of their octets.
    bytes: usize,
}

impl TxBatch {
    /// Room for as many frames as a burst and a full port's backlog have, so that it never grows under load.
    pub fn new() -> Self {
        Self { frames: std::collections::VecDeque::with_capacity(512), bytes: 0 }
    }

    /// Append a frame that came in by `from`.
    #[inline]
    pub fn push(&mut self, frame: Frame, from: PortId) {
        self.bytes += frame.len();
        self.frames.push_back((frame, from));
    }

    /// The oldest frame.
    #[inline]
    pub fn front(&mut self) -> Option<&mut Frame> {
        self.frames.front_mut().map(|(frame, _)| frame)
    }

    /// Take the oldest frame out, with the port it came in by.
    #[inline]
    pub fn pop(&mut self) -> Option<(Frame, PortId)> {
        let front = self.frames.pop_front();
        if let Some((frame, _)) = &front {
            self.bytes -= frame.len().min(self.bytes);
        }
        front
    }

    /// Take the `n` oldest frames out, for a device that takes them for certain.
    #[inline]
    pub fn take(&mut self, n: usize) -> impl Iterator<Item = Frame> {
        let bytes = &mut self.bytes;
        self.frames.drain(..n.min(self.frames.len())).map(|(frame, _)| {
            *bytes -= frame.len().min(*bytes);
            frame
        })
    }

    /// Take the newest frame out, with the port it came in by.
    pub fn pop_newest(&mut self) -> Option<(Frame, PortId)> {
        let back = self.frames.pop_back();
        if let Some((frame, _)) = &back {
            self.bytes -= frame.len().min(self.bytes);
        }
        back
    }

    /// Put a frame that was popped back to the front.
    pub fn unpop(&mut self, frame: Frame, from: PortId) {
        self.bytes += frame.len();
        self.frames.push_front((frame, from));
    }

    /// Frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Octets of all frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
