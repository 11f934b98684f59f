//! Frames to a port of limited bandwidth: they wait here, in the worker that brought them, until there are tokens.
//!
//! ```text
//!   burst ─► batch: waits for tokens ── admitted, oldest first ─► passing ─► device
//!              └─ more than 25 ms of the rate, or a share of frame memory: the newest is dropped, `over-rate`
//! ```
//!
//! What waits for a port is no other port's business: it takes at most an eighth of the frame memory that is free, so
//! that many slow ports together leave most of it, and nobody looks at it before its time.

use super::*;
use crate::shape::Bucket;

/// A port's queue may hold this part of the frames, and of the spills, that are free.
const SHARE: usize = 8;
/// Super-frames that may wait whatever is free.
const SPILLS: usize = 2;

/// What a port of limited bandwidth has beside its batch, in which frames wait for tokens.
#[derive(Default)]
pub(super) struct Shaped {
    /// Frames that were admitted and that the device has not taken yet.
    pub(super) passing: TxBatch,
    /// Until when those that wait do; `None` when none does.
    until: Option<Now>,
    /// Frames of the batch that were counted, and how many of them have a spill.
    counted: usize,
    spilled: usize,
}

impl Shaped {
    /// Frames came.
    fn count(&mut self, batch: &TxBatch) {
        self.spilled += batch.frames().skip(self.counted).filter(|frame| !frame.spill().is_empty()).count();
        self.counted = batch.len();
    }

    /// A frame was taken out of the batch.
    fn uncount(&mut self, frame: &Frame) {
        self.counted -= 1;
        self.spilled -= usize::from(!frame.spill().is_empty());
    }

    /// Let pass what there are tokens for.
    fn admit(&mut self, batch: &mut TxBatch, bucket: Option<&Bucket>, now: Now) {
        // Whoever was told to wait waits: else the worker that is awake would take what others were promised.
        if batch.is_empty() || bucket.is_some() && self.until.is_some_and(|until| until > now) {
            return;
        }
        let admitted = match bucket {
            Some(bucket) => bucket.admit(batch.frames().map(Frame::len), now),
            None => Ok(batch.len()),
        };
        for _ in 0..admitted.unwrap_or(0) {
            let Some((frame, from)) = batch.pop() else { break };
            self.uncount(&frame);
            self.passing.push(frame, from);
        }
        self.until = bucket.filter(|_| !batch.is_empty()).map(|bucket| bucket.ready(now));
    }

    /// Too much waits.
    fn is_over(&self, batch: &TxBatch, room: u64, stash: &Stash) -> bool {
        batch.bytes() as u64 > room
            || batch.len() > stash.available() / SHARE
            || self.spilled > SPILLS.max(stash.available_spills() / SHARE)
    }
}

impl Transmit {
    /// When the first of the ports for which frames wait shall be looked at.
    #[inline]
    pub(in crate::worker) fn due(&self) -> Option<Now> {
        self.due
    }

    /// Look at the ports for which frames wait and whose time has come, or at all, when bandwidths may be others than
    /// before.
    #[cold]
    pub(in crate::worker) fn release(
        &mut self,
        all: bool,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
        now: Now,
    ) {
        self.due = None;
        // Those that go on waiting queue up again behind the ones that are looked at.
        for port in std::mem::take(&mut self.paused) {
            let Some(shaped) = self.backlogs.get_mut(port.index()).and_then(|backlog| backlog.shaped.as_mut()) else {
                continue;
            };
            match shaped.until {
                Some(until) if until > now && !all => self.pause(port, until),
                _ => {
                    shaped.until = None;
                    self.flush(port, snapshot, stash, counters, now);
                }
            }
        }
    }

    fn pause(&mut self, port: PortId, until: Now) {
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
        if !self.paused.contains(&port) {
            self.paused.push(port);
        }
    }

    /// Send what a port has and may have.
    #[cold]
    pub(super) fn flush_shaped(
        &mut self,
        port: PortId,
        snapshot: &Snapshot,
        stash: &mut Stash,
        counters: &Counters,
        now: Now,
    ) {
        let Some(Backlog { batch, full_since, shaped: place, .. }) = self.backlogs.get_mut(port.index()) else {
            return;
        };
        let bucket = snapshot.shapes.ingress(port);
        let shaped = place.get_or_insert_default();
        let Some(device) = snapshot.device(port) else {
            drop_all(&mut shaped.passing, DropReason::TxDown, stash, counters, port);
            drop_all(batch, DropReason::TxDown, stash, counters, port);
            *place = None;
            return;
        };
        shaped.count(batch);
        let mut full = false;
        // What was admitted leaves before more is.
        if !shaped.passing.is_empty() {
            full = push_out(&**device, port, &mut shaped.passing, full_since, stash, counters, now);
        }
        if !full {
            shaped.admit(batch, bucket, now);
            if !shaped.passing.is_empty() {
                full = push_out(&**device, port, &mut shaped.passing, full_since, stash, counters, now);
            }
        }
        let room = bucket.map_or(HELD_OCTETS as u64, Bucket::room);
        while shaped.is_over(batch, room, stash) {
            let Some((frame, from)) = batch.pop_newest() else { break };
            shaped.uncount(&frame);
            drop_one(frame, from, DropReason::OverRate, stash, counters, port);
        }
        let until = shaped.until.filter(|_| !batch.is_empty());
        shaped.until = until;
        if bucket.is_none() && shaped.passing.is_empty() && batch.is_empty() {
            *place = None;
        }
        if full && !self.waiting.contains(&port) {
            self.waiting.push_back(port);
        }
        if let Some(until) = until {
            self.pause(port, until);
        }
    }
}
