//! The queues that a worker reads: which are ready, in whose turn, and what each has used of its share.
//!
//! Queues in memory are looked at in every turn. Queues of the kernel are looked at when their descriptor is readable:
//! asking a hundred idle TAPs one by one would cost 60,000 ticks a turn, asking `epoll` costs 400, and only
//! every few microseconds while others keep us busy.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use api::PortId;
use pipeline::live::Now;
use rustix::event::{Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use crate::ports::RxQueue;
use crate::shape::Bucket;

/// Ticks between two looks at the descriptors while queues are busy: about 4 µs, so that acknowledgements do not wait
/// for many super-frames of the other direction.
const LOOK_EVERY: u64 = 10_000;
/// Descriptors that one look returns at most.
const EVENTS: usize = 64;
/// Key of the descriptor by which the control thread wakes us.
const WAKE: u64 = u64::MAX;
/// Key of the timer.
const TIMER: u64 = u64::MAX - 1;
/// Longest sleep: entries of the cache are swept once a second.
const NAP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Ticks of a turn that the busy queues share among them, and for how many turns a queue may save its share.
const TURN: i64 = 1_000_000;
const SAVED_TURNS: i64 = 4;
/// Walks that a burst may make whatever its queue has spent: a storm loses what is beyond this, a lone newcomer nothing.
const FLOOR: usize = 4;
/// What a walk is reckoned to cost, ticks, when a share is turned into a number of walks.
const WALK: i64 = 2_000;
/// Octets of a frame at most.
const SUPER_FRAME: u64 = 65_536;

/// One queue and its account.
pub(super) struct Queue {
    pub(super) port: PortId,
    pub(super) rx: Box<dyn RxQueue>,
    /// On the list of ready queues.
    listed: bool,
    /// Ticks it may still spend on first packets: deficit round robin (FASTPATH 6).
    credit: i64,
    /// Octets of the largest frame of its last burst that was limited.
    largest: usize,
    /// Not to be read until then: what its port may bring has been brought.
    paused: Option<Now>,
}

impl Queue {
    /// Walks that the next burst may make, when `busy` queues have frames. A queue that has the worker to itself may
    /// make as many as it wants.
    #[inline]
    pub(super) fn walks(&mut self, busy: usize) -> usize {
        if busy <= 1 {
            self.credit = 0;
            return usize::MAX;
        }
        let share = TURN / busy as i64;
        self.credit = (self.credit + share).min(share * SAVED_TURNS);
        usize::try_from(self.credit / WALK).unwrap_or(0).max(FLOOR)
    }

    /// How many frames may be read, for the bandwidth of its port to be kept: as many as there are tokens for if they are
    /// as large as the last ones; where that guess could cost seconds, if they are super-frames.
    ///
    /// # Errors
    /// Until when none may.
    pub(super) fn allowance(&self, bucket: &Bucket, now: Now) -> Result<usize, Now> {
        let size = if bucket.holds() < 4 * SUPER_FRAME { SUPER_FRAME } else { self.largest.max(1) as u64 };
        let frames = bucket.octets(now)? / size;
        Ok(usize::try_from(frames).unwrap_or(usize::MAX).clamp(1, self.rx.limit()))
    }

    /// Frames of these lengths were read.
    pub(super) fn pay(&mut self, bucket: &Bucket, lengths: impl Iterator<Item = usize>, now: Now) {
        let (octets, largest) = lengths.fold((0, 0), |(sum, most), len| (sum + len, len.max(most)));
        self.largest = largest;
        bucket.charge(octets, now);
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
    /// When the first of the paused queues may be read again.
    due: Option<Now>,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    /// Ends a sleep when a paused queue may be read, or a shaped port sent to, again. A timeout of `epoll` would be
    /// rounded up to milliseconds.
    timer: OwnedFd,
}

impl Queues {
    pub(super) fn new(wake: Arc<OwnedFd>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        Ok(Self {
            queues: Vec::new(),
            ready: VecDeque::new(),
            looked: 0,
            by_descriptor: 0,
            due: None,
            epoll,
            wake,
            timer,
        })
    }

    /// Read this queue, too.
    pub(super) fn add(&mut self, port: PortId, rx: Box<dyn RxQueue>) {
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
            *slot = Some(Queue { port, rx, listed: true, credit: 0, largest: SUPER_FRAME as usize, paused: None });
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

    /// The queue is not read until then, whatever waits in it: it costs nothing meanwhile, neither looks nor wake-ups.
    #[cold]
    pub(super) fn pause(&mut self, at: usize, until: Now) {
        let Some(Some(queue)) = self.queues.get_mut(at) else { return };
        queue.paused = Some(until);
        queue.listed = true;
        if let Some(fd) = queue.rx.fd() {
            let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(at as u64), epoll::EventFlags::empty());
        }
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
    }

    /// When the first of the paused queues may be read again, if there is one.
    #[inline]
    pub(super) fn due(&self) -> Option<Now> {
        self.due
    }

    /// Read paused queues again: those whose time has come, or all, when bandwidths may be others than before.
    #[cold]
    pub(super) fn resume(&mut self, now: Now, all: bool) {
        self.due = None;
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let Some((queue, until)) = queue.as_mut().and_then(|queue| queue.paused.map(|until| (queue, until))) else {
                continue;
            };
            if until > now && !all {
                self.due = Some(self.due.map_or(until, |due| due.min(until)));
                continue;
            }
            queue.paused = None;
            if let Some(fd) = queue.rx.fd() {
                let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN);
            }
            self.ready.push_back(at);
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
        let reading = self.queues.iter_mut().flatten().filter(|queue| queue.paused.is_none());
        reading.fold(false, |waiting, queue| queue.rx.arm() | waiting)
    }

    /// Sleep until a descriptor is readable, a second at most, and no longer than `rest`. Returns whether that ended it.
    pub(super) fn wait(&mut self, rest: Option<Duration>) -> bool {
        if let Some(rest) = rest {
            // 0 would stop the timer.
            self.set_timer(rest.max(Duration::from_nanos(1)));
        }
        self.poll(Some(&NAP))
    }

    fn set_timer(&self, rest: Duration) {
        let it_value = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // What it refuses is a time out of range.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }

    /// Take up queues that have frames. Returns whether there was nothing but the timer.
    fn poll(&mut self, timeout: Option<&Timespec>) -> bool {
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room, timeout) else { return false };
        let mut timer_alone = events.len() == 1;
        for event in events {
            let place = event.data.u64();
            timer_alone &= place == TIMER;
            if place == WAKE || place == TIMER {
                let from = if place == WAKE { &*self.wake } else { &self.timer };
                let mut count = [0; 8];
                let _ = rustix::io::read(from, &mut count);
            } else if let Some(Some(queue)) = self.queues.get_mut(place as usize)
                && !queue.listed
            {
                queue.listed = true;
                self.ready.push_back(place as usize);
            }
        }
        timer_alone
    }
}
