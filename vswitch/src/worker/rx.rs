//! The queues that a worker reads: which are ready, in whose turn, and what each has used of its share.
//!
//! Queues in memory are looked at in every turn. Queues of the kernel are looked at when their descriptor is readable:
//! asking a hundred idle TAPs one by one would cost 60,000 ticks a turn, asking `epoll` costs 400, and only
//! every few microseconds while others keep us busy.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::PortId;
use rustix::event::{Timespec, epoll};

use crate::ports::RxQueue;

/// Ticks between two looks at the descriptors while queues are busy: about 4 µs, so that acknowledgements do not wait
/// for many super-frames of the other direction.
const LOOK_EVERY: u64 = 10_000;
/// Descriptors that one look returns at most.
const EVENTS: usize = 64;
/// Key of the descriptor by which the control thread wakes us.
const WAKE: u64 = u64::MAX;
/// Longest sleep: entries of the cache are swept once a second.
const NAP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Ticks of a turn that the busy queues share among them, and for how many turns a queue may save its share.
const TURN: i64 = 1_000_000;
const SAVED_TURNS: i64 = 4;
/// Walks that a burst may make whatever its queue has spent: a storm loses what is beyond this, a lone newcomer nothing.
const FLOOR: usize = 4;
/// Bursts after a start for which a queue may make as many walks as it wants: flows go on that nobody remembers here, and
/// none of them shall lose a packet for it.
pub(super) const RECALLING: u32 = 16 * 1024;
/// What a walk is reckoned to cost, ticks, when a share is turned into a number of walks.
const WALK: i64 = 2_000;

/// One queue and its account.
pub(super) struct Queue {
    pub(super) port: PortId,
    pub(super) rx: Box<dyn RxQueue>,
    /// On the list of ready queues.
    listed: bool,
    /// Ticks it may still spend on first packets: deficit round robin (FASTPATH 6).
    credit: i64,
    /// Bursts for which the account does not count.
    free: u32,
}

impl Queue {
    /// Walks that the next burst may make, when `busy` queues have frames. A queue that has the worker to itself may
    /// make as many as it wants.
    #[inline]
    pub(super) fn walks(&mut self, busy: usize) -> usize {
        if busy <= 1 || self.free > 0 {
            self.free = self.free.saturating_sub(1);
            self.credit = 0;
            return usize::MAX;
        }
        let share = TURN / busy as i64;
        self.credit = (self.credit + share).min(share * SAVED_TURNS);
        usize::try_from(self.credit / WALK).unwrap_or(0).max(FLOOR)
    }

    /// Its last burst cost this many ticks.
    #[inline]
    pub(super) fn charge(&mut self, ticks: u64) {
        self.credit = (self.credit - ticks as i64).max(-TURN);
    }
}

/// All queues of a worker.
pub(super) struct Queues {
    /// By place; a place is used again when its queue is gone.
    queues: Vec<Option<Queue>>,
    /// Places of queues that may have frames, in turn.
    ready: VecDeque<usize>,
    /// When the descriptors were last looked at, ticks.
    looked: u64,
    /// Queues that are not looked at in every turn.
    by_descriptor: usize,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

impl Queues {
    pub(super) fn new(wake: Arc<OwnedFd>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { queues: Vec::new(), ready: VecDeque::new(), looked: 0, by_descriptor: 0, epoll, wake })
    }

    /// Read this queue, too. The account of its first packets begins after so many bursts.
    pub(super) fn add(&mut self, port: PortId, rx: Box<dyn RxQueue>, free: u32) {
        let place = self.queues.iter().position(Option::is_none).unwrap_or_else(|| {
            self.queues.push(None);
            self.queues.len() - 1
        });
        if let Some(fd) = rx.fd() {
            // A descriptor that cannot be watched is looked at once and then not again; the kernel refuses none of ours.
            let _ = epoll::add(&self.epoll, fd, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN);
        }
        self.by_descriptor += usize::from(!rx.polled());
        if let Some(slot) = self.queues.get_mut(place) {
            *slot = Some(Queue { port, rx, listed: true, credit: 0, free });
        }
        self.ready.push_back(place);
    }

    /// Give up the queues of a port.
    pub(super) fn remove(&mut self, port: PortId) -> Vec<Box<dyn RxQueue>> {
        let mut removed = Vec::new();
        for (place, slot) in self.queues.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|queue| queue.port == port)
                && let Some(queue) = slot.take()
            {
                if let Some(fd) = queue.rx.fd() {
                    let _ = epoll::delete(&self.epoll, fd);
                }
                self.ready.retain(|&at| at != place);
                self.by_descriptor -= usize::from(!queue.rx.polled());
                removed.push(queue.rx);
            }
        }
        removed
    }

    /// Queues that may have frames.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The place of the queue whose turn it is.
    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        self.ready.pop_front()
    }

    #[inline]
    pub(super) fn get(&mut self, at: usize) -> Option<&mut Queue> {
        self.queues.get_mut(at)?.as_mut()
    }

    /// The queue had more frames than its burst could take: its turn comes again.
    #[inline]
    pub(super) fn again(&mut self, at: usize) {
        self.ready.push_back(at);
    }

    /// The queue is empty. Its turn comes when its descriptor is readable, or at once if looking costs nothing.
    #[inline]
    pub(super) fn drained(&mut self, at: usize) {
        if let Some(Some(queue)) = self.queues.get_mut(at) {
            // Whoever leaves nothing waiting owes nothing.
            queue.credit = queue.credit.max(0);
            if queue.rx.polled() {
                self.ready.push_back(at);
            } else {
                queue.listed = false;
            }
        }
    }

    /// Find out which kernel queues have frames, if it is time to: at once when nothing else is to be done.
    #[inline]
    pub(super) fn look(&mut self, now: u64) {
        let due = now.wrapping_sub(self.looked) > LOOK_EVERY || self.ready.is_empty();
        if due && self.by_descriptor != 0 {
            self.poll(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            self.looked = now;
        }
    }

    /// Ask every queue to wake us. Returns true if one has frames already.
    pub(super) fn arm(&mut self) -> bool {
        // All are armed before any is believed to be empty.
        self.queues.iter_mut().flatten().fold(false, |waiting, queue| queue.rx.arm() | waiting)
    }

    /// Sleep until a descriptor is readable, a second at most.
    pub(super) fn wait(&mut self) {
        self.poll(Some(&NAP));
    }

    fn poll(&mut self, timeout: Option<&Timespec>) {
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room, timeout) else { return };
        for event in events {
            let place = event.data.u64();
            if place == WAKE {
                let mut count = [0; 8];
                let _ = rustix::io::read(&*self.wake, &mut count);
            } else if let Some(Some(queue)) = self.queues.get_mut(place as usize)
                && !queue.listed
            {
                queue.listed = true;
                self.ready.push_back(place as usize);
            }
        }
    }
}
