//! The way out: group a burst by out port, send, and hold for a moment what a full port did not take (FASTPATH 7).
//!
//! Lanes are taken in order, hits and misses together, so frames of one queue leave by a port in the order in which they
//! came. A port that is full holds at most [`HELD`] frames or [`HELD_OCTETS`] for [`PATIENCE`], and none when frame memory
//! runs short; what is beyond that is dropped as `tx-full`, newest first, and no other port waits for it. What waits for
//! tokens of a port's bandwidth: `tx/shaped.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use api::PortId;
use pipeline::Pipeline;
use pipeline::burst::{Burst, Extra, Layers, Verdict, guard};
use pipeline::counters::Counters;
use pipeline::drop::DropReason;
use pipeline::live::Now;
use pipeline::raw::{Frame, Stash};
use pipeline::resolve::walk::Copy;
use pipeline::rewrite;

use super::{Snapshot, count_drop};
use crate::ports::{Device, Tx, TxBatch};

mod shaped;

use shaped::Shaped;

/// Frames that a full port holds.
const HELD: usize = 64;
/// Octets that a full port holds.
const HELD_OCTETS: usize = 256 * 1024;
/// Free frames below which nothing is held: receiving comes first.
const RESERVE: usize = 512;
/// How long a full port holds them.
const PATIENCE: Duration = Duration::from_millis(1);

/// What waits for one port.
#[derive(Default)]
struct Backlog {
    batch: TxBatch,
    /// Since when the port has been full.
    full_since: Option<Now>,
    /// On the list of ports to flush.
    listed: bool,
    /// The port has a bandwidth, or had when what is here came.
    shaped: Option<Box<Shaped>>,
}

/// What is on its way out of a worker.
pub(super) struct Transmit {
    /// By port number.
    backlogs: Vec<Backlog>,
    /// Ports that have something to send after this burst.
    dirty: Vec<PortId>,
    /// Ports that were full.
    waiting: VecDeque<PortId>,
    /// Ports for which frames wait until there are tokens.
    paused: Vec<PortId>,
    /// When the first of them shall be looked at.
    due: Option<Now>,
}

impl Transmit {
    pub(super) fn new() -> Self {
        Self {
            backlogs: Vec::new(),
            dirty: Vec::with_capacity(64),
            waiting: VecDeque::with_capacity(64),
            paused: Vec::new(),
            due: None,
        }
    }

    /// A port was full, and something waits for it.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Send a burst whose lanes are all decided.
    pub(super) fn send(
        &mut self,
        burst: &mut Burst,
        pipeline: &Pipeline,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
        now: Now,
    ) {
        let (lanes, from) = (burst.len(), burst.in_port);
        let (mut frames, mut verdicts) = (burst.frames.iter_mut().take(lanes), burst.verdicts.as_slice());
        while let Some(&verdict) = verdicts.first() {
            // Neighbours with the same way out go together.
            let run = verdicts.iter().take(frames.len()).take_while(|next| **next == verdict).count();
            if run == 0 {
                break;
            }
            verdicts = verdicts.get(run..).unwrap_or_default();
            let layers = burst.layers.iter().skip(lanes - frames.len());
            let same = frames.by_ref().take(run).filter_map(Option::take);
            match verdict {
                Verdict::Output(port) => self.queue(port, same, from, snapshot, stash, counters),
                Verdict::Multi(list) => {
                    let copies = pipeline.copies(list);
                    same.zip(layers).for_each(|(frame, layers)| {
                        self.multiply(copies, frame, layers, from, snapshot, stash, counters);
                    });
                }
                _ => same.for_each(|frame| {
                    count_drop(counters, from, verdict);
                    stash.give(frame);
                }),
            }
        }
        for Extra { frame, port, from } in burst.extra.drain(..) {
            self.queue(port, std::iter::once(frame), from, snapshot, stash, counters);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for port in dirty.drain(..) {
            self.flush(port, snapshot, stash, counters, now);
        }
        self.dirty = dirty;
    }

    /// Append frames to what leaves by a port.
    #[inline]
    fn queue(
        &mut self,
        port: PortId,
        frames: impl Iterator<Item = Frame>,
        from: PortId,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
    ) {
        let capture = !snapshot.captures.is_empty();
        let mut frames = frames.peekable();
        while frames.peek().is_some() {
            let ready = std::iter::from_fn(|| frames.next_if(|frame| !capture && frame.offload().is_none()));
            self.backlog(port).batch.extend(ready, from);
            if let Some(frame) = frames.next() {
                self.finish(port, frame, from, snapshot, stash, counters);
            }
        }
    }

    /// What waits for a port, which is flushed after this burst.
    #[inline]
    fn backlog(&mut self, port: PortId) -> &mut Backlog {
        if self.backlogs.len() <= port.index() {
            self.backlogs.resize_with(port.index() + 1, Backlog::default);
        }
        // The line above made it.
        let backlog = &mut self.backlogs[port.index()];
        if !backlog.listed {
            backlog.listed = true;
            // Ports have numbers with gaps: those that are none take no memory.
            if !backlog.batch.has_room() {
                backlog.batch = TxBatch::new();
            }
            self.dirty.push(port);
        }
        backlog
    }

    fn push(&mut self, port: PortId, frame: Frame, from: PortId, snapshot: &Snapshot) {
        if !snapshot.captures.is_empty() {
            snapshot.captures.egress(port, &frame);
        }
        self.backlog(port).batch.push(frame, from);
    }

    /// A frame that may not be finished: the port finishes it, or we do.
    fn finish(
        &mut self,
        port: PortId,
        frame: Frame,
        from: PortId,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
    ) {
        let takes = |offload| snapshot.device(port).is_none_or(|device| device.takes(offload));
        if frame.offload().is_none_or(takes) {
            return self.push(port, frame, from, snapshot);
        }
        let mut emit = |frame| self.push(port, frame, from, snapshot);
        if let Err(reason) = pipeline::segment::finish(frame, takes, stash, &mut emit) {
            counters.dropped(from, reason);
        }
    }

    /// One frame for several ports: copies, taken before the first edit.
    #[expect(clippy::too_many_arguments, reason = "the loop body of `send`")]
    fn multiply(
        &mut self,
        copies: &[Copy],
        frame: Frame,
        layers: &Layers,
        from: PortId,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
    ) {
        let Some((last, others)) = copies.split_last() else {
            counters.dropped(from, DropReason::NoPort);
            return stash.give(frame);
        };
        // As the guard of one way out measures it: without the link layer, and a super-frame by its segments.
        let size = layers.guard >> guard::SIZE_SHIFT;
        for copy in others {
            match stash.copy(&frame) {
                Some(duplicate) => {
                    counters.coverage.copy_made.add(1);
                    self.one_copy(copy, duplicate, size, from, snapshot, stash, counters);
                }
                None => counters.dropped(from, DropReason::NoFrame),
            }
        }
        self.one_copy(last, frame, size, from, snapshot, stash, counters);
    }

    #[expect(clippy::too_many_arguments, reason = "the loop body of `multiply`")]
    fn one_copy(
        &mut self,
        copy: &Copy,
        mut frame: Frame,
        size: u32,
        from: PortId,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
    ) {
        if size > u32::from(copy.mtu) {
            counters.dropped(from, DropReason::ExceedsMtu);
            return stash.give(frame);
        }
        if !rewrite::vlan(&mut frame, copy.vlan) {
            counters.dropped(from, DropReason::NoFrame);
            return stash.give(frame);
        }
        self.finish(copy.port, frame, from, snapshot, stash, counters);
    }

    /// Try the ports that were full again.
    #[cold]
    pub(super) fn retry(&mut self, snapshot: &Snapshot, stash: &mut Stash, counters: &Counters, now: Now) {
        // Those that stay full queue up again behind the ones that are tried.
        for _ in 0..self.waiting.len() {
            let Some(port) = self.waiting.pop_front() else { return };
            self.flush(port, snapshot, stash, counters, now);
        }
    }

    /// Send what a port has.
    fn flush(&mut self, port: PortId, snapshot: &Snapshot, stash: &mut Stash, counters: &Counters, now: Now) {
        let Some(backlog) = self.backlogs.get_mut(port.index()) else { return };
        backlog.listed = false;
        if backlog.shaped.is_some() || snapshot.shapes.ingress(port).is_some() {
            return self.flush_shaped(port, snapshot, stash, counters, now);
        }
        let Some(device) = snapshot.device(port) else {
            return drop_all(&mut backlog.batch, DropReason::TxDown, stash, counters, port);
        };
        let Backlog { batch, full_since, .. } = backlog;
        if push_out(&**device, port, batch, full_since, stash, counters, now) && !self.waiting.contains(&port) {
            self.waiting.push_back(port);
        }
    }

    /// The worker ends: what still waits is dropped.
    pub(super) fn abandon(&mut self, stash: &mut Stash, counters: &Counters) {
        for (port, backlog) in (0..).map(PortId).zip(&mut self.backlogs) {
            drop_all(&mut backlog.batch, DropReason::TxDown, stash, counters, port);
            if let Some(mut shaped) = backlog.shaped.take() {
                drop_all(&mut shaped.passing, DropReason::TxDown, stash, counters, port);
            }
        }
        self.waiting.clear();
        self.paused.clear();
        self.due = None;
    }
}

/// Send a batch, and hold for a moment what a full port did not take. Returns whether it holds something.
#[inline]
fn push_out(
    device: &dyn Device,
    port: PortId,
    batch: &mut TxBatch,
    full_since: &mut Option<Now>,
    stash: &mut Stash,
    counters: &Counters,
    now: Now,
) -> bool {
    let before = batch.len();
    match send(device, port, batch, stash, counters) {
        Tx::Done => *full_since = None,
        Tx::Down => {
            *full_since = None;
            drop_all(batch, DropReason::TxDown, stash, counters, port);
        }
        Tx::Full | Tx::Refused | Tx::Limited => {
            // A port that takes some frames is slow, not stuck: what waits now has not waited for long.
            if batch.len() < before {
                *full_since = None;
            }
            let since = *full_since.get_or_insert(now);
            if now.0.saturating_sub(since.0) >= PATIENCE || stash.available() < RESERVE {
                *full_since = None;
                drop_all(batch, DropReason::TxFull, stash, counters, port);
                return false;
            }
            while batch.len() > HELD || batch.bytes() > HELD_OCTETS {
                let Some((frame, from)) = batch.pop_newest() else { break };
                drop_one(frame, from, DropReason::TxFull, stash, counters, port);
            }
            return true;
        }
    }
    false
}

/// Hand a batch to a device, skipping the frames that it refuses, and count what went.
fn send(device: &dyn Device, port: PortId, batch: &mut TxBatch, stash: &mut Stash, counters: &Counters) -> Tx {
    let counts = counters.port(port);
    loop {
        let (packets, octets) = (batch.len(), batch.bytes());
        let result = device.tx(batch, stash);
        counts.tx_packets.add((packets - batch.len()) as u64);
        counts.tx_bytes.add((octets - batch.bytes()) as u64);
        let reason = match result {
            Tx::Refused => DropReason::TxError,
            Tx::Limited => DropReason::ReplyLimit,
            Tx::Done | Tx::Full | Tx::Down => return result,
        };
        let Some((frame, from)) = batch.pop() else { return Tx::Done };
        match reason {
            DropReason::TxError => counts.tx_errors.add(1),
            _ => counts.tx_dropped.add(1),
        }
        counters.dropped(from, reason);
        stash.give(frame);
    }
}

fn drop_all(batch: &mut TxBatch, reason: DropReason, stash: &mut Stash, counters: &Counters, port: PortId) {
    while let Some((frame, from)) = batch.pop() {
        drop_one(frame, from, reason, stash, counters, port);
    }
}

fn drop_one(frame: Frame, from: PortId, reason: DropReason, stash: &mut Stash, counters: &Counters, port: PortId) {
    counters.dropped(from, reason);
    counters.port(port).tx_dropped.add(1);
    stash.give(frame);
}
