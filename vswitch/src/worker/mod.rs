//! A worker: one pinned thread that takes bursts from the queues it owns and carries each through to its way out.
//!
//! ```text
//!   turn:  commands?  →  for each ready queue: rx → parse → probe → (resolve) → rewrite → tx  →  sweep
//!   nothing for a while:  look on for 30 to 400 µs  →  arm the queues, sleep on all of them
//! ```
//!
//! A worker shares with others only what is published ([`Snapshot`]), what packets write ([`Live`]), and the sending
//! side of ports. Nothing is handed from worker to worker.

pub(crate) mod clock;
mod idle;
mod rx;
mod tx;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::PortId;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::utils::CachePadded;
use pipeline::burst::{Burst, Verdict};
use pipeline::counters::Counters;
use pipeline::drop::DropReason;
use pipeline::live::{Live, Now};
use pipeline::probe::cells::Moment;
use pipeline::raw::{Stash, ticks};
use pipeline::resolve::program::Program;
use pipeline::{Pipeline, Step, Turn};
use rustix::event::{EventfdFlags, eventfd};

use crate::capture::Captures;
use crate::ports::{Device, Rx, RxQueue};
use crate::publish::Reader;
use crate::shape::Shapes;
use clock::Clock;
use idle::Idle;
use rx::Queues;
use tx::Transmit;

/// What workers go by: replaced as a whole, never changed.
pub struct Snapshot {
    /// From when on the cells speak of `program`. Between its publication and that moment, entries of the program before
    /// would still answer: a burst does not start then.
    pub since: Moment,
    /// Every stage's tables.
    pub program: Arc<Program>,
    /// The sending side of each port, by number.
    pub devices: Arc<Vec<Option<Arc<dyn Device>>>>,
    /// How much may pass each port.
    pub shapes: Arc<Shapes>,
    /// Who wants to see copies of frames.
    pub captures: Captures,
}

/// What is in force, and the program of it. The moment is loaded first: see [`Turn::moment`]. The control thread is
/// a few stores away from putting a program in force that it has published, so waiting for it is short.
#[inline]
fn in_force<'a>(reader: &'a mut Reader<Snapshot>, live: &Live) -> (Moment, &'a Snapshot) {
    let mut moment = live.cells.now();
    while reader.get().since > moment {
        std::thread::yield_now();
        moment = live.cells.now();
    }
    (moment, reader.held())
}

impl Snapshot {
    /// The sending side of a port.
    #[inline]
    pub fn device(&self, port: PortId) -> Option<&Arc<dyn Device>> {
        self.devices.get(port.index())?.as_ref()
    }
}

/// What a worker is told.
enum Command {
    /// Read this queue from now on; its first packets are not accounted for in so many bursts.
    Attach(PortId, Box<dyn RxQueue>, u32, Sender<()>),
    /// Give the queues of a port back.
    Detach(PortId, Sender<Vec<Box<dyn RxQueue>>>),
    /// End.
    Stop,
}

/// The control thread's end of the line to a worker.
pub struct Handle {
    commands: Sender<Command>,
    pending: Arc<CachePadded<AtomicBool>>,
    wake: Arc<rustix::fd::OwnedFd>,
    /// What the worker counts.
    pub counters: Arc<Counters>,
    /// Ports whose queues came to their end by themselves, as the worker noticed it.
    gone: Receiver<PortId>,
}

impl Handle {
    /// The worker reads this queue from now on. Returns when it does.
    pub fn attach(&self, port: PortId, queue: Box<dyn RxQueue>) {
        self.attach_free(port, queue, 0);
    }

    /// The same, of a queue whose packets belong to flows that an earlier process knew: all of them may be first packets.
    pub fn attach_again(&self, port: PortId, queue: Box<dyn RxQueue>) {
        self.attach_free(port, queue, rx::RECALLING);
    }

    fn attach_free(&self, port: PortId, queue: Box<dyn RxQueue>, free: u32) {
        let (done, wait) = bounded(1);
        self.send(Command::Attach(port, queue, free, done));
        let _ = wait.recv();
    }

    /// The queues of a port, which the worker reads no longer when this returns.
    pub fn detach(&self, port: PortId) -> Vec<Box<dyn RxQueue>> {
        let (done, wait) = bounded(1);
        self.send(Command::Detach(port, done));
        wait.recv().unwrap_or_default()
    }

    /// The worker ends after its current turn.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// Wake the worker, so that it lets go of what is no longer published.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// Ports that went away since the last call.
    pub fn gone(&self) -> impl Iterator<Item = PortId> {
        self.gone.try_iter()
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.pending.store(true, Ordering::Release);
            self.wake();
        }
    }
}

/// One worker. Moved to its thread, or driven turn by turn by a bench or a test.
pub struct Worker {
    reader: Reader<Snapshot>,
    live: Arc<Live>,
    counters: Arc<Counters>,
    pipeline: Pipeline,
    burst: Box<Burst>,
    stash: Stash,
    queues: Queues,
    transmit: Transmit,
    idle: Idle,
    clock: Clock,
    commands: Receiver<Command>,
    pending: Arc<CachePadded<AtomicBool>>,
    gone: Sender<PortId>,
    /// Queues that had frames in the last turn: with more than one, each gets its share.
    busy: usize,
    /// When the last turn ended, ticks.
    last: u64,
    /// Version of what was published, as of the last look at what waits for tokens.
    looked_at: u64,
}

/// Where the ticks of a burst went; see [`Worker::turn_measured`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lap {
    /// Taking the burst from its queue.
    Rx,
    /// A step of the pipeline.
    Step(Step),
    /// Grouping by out port and sending.
    Tx,
}

impl Worker {
    /// A worker that owns no queue yet, and the line to it.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(
        reader: Reader<Snapshot>,
        live: Arc<Live>,
        pipeline: Pipeline,
        stash: Stash,
    ) -> std::io::Result<(Self, Handle)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (commands, receiver) = unbounded();
        let (gone, gone_receiver) = unbounded();
        let pending = Arc::new(CachePadded::new(AtomicBool::new(false)));
        let counters = Arc::new(Counters::default());
        let worker = Self {
            reader,
            live,
            counters: Arc::clone(&counters),
            pipeline,
            burst: Burst::new(),
            stash,
            queues: Queues::new(Arc::clone(&wake))?,
            transmit: Transmit::new(),
            idle: Idle::default(),
            clock: Clock::new(),
            commands: receiver,
            pending: Arc::clone(&pending),
            gone,
            busy: 0,
            last: ticks(),
            looked_at: 0,
        };
        Ok((worker, Handle { commands, pending, wake, counters, gone: gone_receiver }))
    }

    /// Work until told to stop, sleeping when there is nothing to do.
    pub fn run(mut self) {
        while self.obey() {
            let frames = self.turn();
            if frames == 0 && !self.transmit.is_waiting() && self.idle.is_time_to_sleep(ticks()) {
                self.sleep();
            }
        }
    }

    /// One turn: a burst from each ready queue. Returns how many frames there were.
    #[inline]
    pub fn turn(&mut self) -> usize {
        self.turn_measured(|_| ())
    }

    /// As [`Self::turn`]; `lap` is called as each part of a burst's way is done.
    #[inline]
    pub fn turn_measured(&mut self, mut lap: impl FnMut(Lap)) -> usize {
        let start = self.last;
        self.clock.advance(start);
        if self.next_tokens().is_some() {
            self.look_for_tokens();
        }
        self.queues.look(start);
        let mut frames = 0;
        let (sharers, mut busy) = (self.busy, 0);
        for _ in 0..self.queues.ready() {
            let Some(at) = self.queues.next() else { break };
            let taken = self.burst(at, sharers, &mut lap);
            frames += taken;
            busy += usize::from(taken != 0);
        }
        self.busy = busy;
        let Self { reader, live, counters, pipeline, burst, stash, transmit, clock, .. } = self;
        let (moment, snapshot) = in_force(reader, live);
        if transmit.is_waiting() {
            transmit.retry(snapshot, stash, counters, clock.now());
        }
        let turn = Turn { moment, program: &snapshot.program, live, counters, now: clock.now(), walks: 0 };
        pipeline.sweep(&turn, stash);
        while pipeline.resume(burst) {
            let mut way = Way { reader, live, counters, pipeline, stash, transmit, now: clock.now() };
            way.carry(burst, usize::MAX, &mut lap);
        }
        let end = ticks();
        let spent = end.wrapping_sub(start);
        if frames == 0 {
            counters.idle_ticks.add(spent);
        } else {
            counters.busy_ticks.add(spent);
            self.idle.worked(end);
        }
        self.last = end;
        frames
    }

    /// When something that waits for tokens shall be looked at, if anything does.
    #[inline]
    fn next_tokens(&self) -> Option<Now> {
        match (self.queues.due(), self.transmit.due()) {
            (Some(rx), Some(tx)) => Some(rx.min(tx)),
            (rx, tx) => rx.or(tx),
        }
    }

    /// Go on with what waited for tokens and has them; with all that waits, when what is in force is new.
    #[cold]
    fn look_for_tokens(&mut self) {
        let Self { reader, live, counters, stash, queues, transmit, clock, looked_at, .. } = self;
        in_force(reader, live);
        let (snapshot, now, version) = (reader.held(), clock.now(), reader.version());
        let all = std::mem::replace(looked_at, version) != version;
        if all || queues.due().is_some_and(|due| due <= now) {
            queues.resume(now, all);
        }
        if all || transmit.due().is_some_and(|due| due <= now) {
            transmit.release(all, snapshot, stash, counters, now);
        }
    }

    /// One burst of one queue, from rx to tx.
    fn burst(&mut self, at: usize, sharers: usize, lap: &mut impl FnMut(Lap)) -> usize {
        let Self { reader, live, counters, pipeline, burst, stash, queues, transmit, clock, gone, .. } = self;
        let Some(queue) = queues.get(at) else { return 0 };
        let (port, start) = (queue.port, ticks());
        burst.reset(port);
        let mut limit = queue.rx.limit();
        // What was last looked at will do: whoever waits for a change to be in force waits until it was.
        if let Some(bucket) = reader.held().shapes.egress(port) {
            match queue.allowance(bucket, clock.now()) {
                Ok(frames) => limit = frames,
                Err(until) => {
                    queues.pause(at, until);
                    return 0;
                }
            }
        }
        let result = queue.rx.rx(burst, limit, stash);
        (0..queue.rx.lost()).for_each(|_| counters.dropped(port, DropReason::NoFrame));
        let frames = burst.len();
        lap(Lap::Rx);
        if frames != 0 {
            let snapshot = in_force(reader, live).1;
            let octets: usize = burst.frames.iter().take(frames).flatten().map(pipeline::raw::Frame::len).sum();
            let counts = counters.port(port);
            counts.rx_packets.add(frames as u64);
            counts.rx_bytes.add(octets as u64);
            counters.bursts.add(1);
            if let Some(bucket) = snapshot.shapes.egress(port) {
                let lengths = burst.frames.iter().take(frames).flatten().map(pipeline::raw::Frame::len);
                queue.pay(bucket, lengths, clock.now());
            }
            if !snapshot.captures.is_empty() {
                snapshot.captures.ingress(burst);
            }
            let walks = queue.walks(sharers);
            let mut way = Way { reader, live, counters, pipeline, stash, transmit, now: clock.now() };
            way.carry(burst, walks, lap);
        }
        queue.charge(ticks().wrapping_sub(start));
        match result {
            Rx::Drained | Rx::Starved => queues.drained(at),
            Rx::More => queues.again(at),
            Rx::Gone => {
                counters.port(port).rx_errors.add(1);
                // The control thread closes the port; until then nobody reads it.
                queues.remove(port);
                let _ = gone.send(port);
            }
        }
        frames
    }

    /// Carry out what the control thread asks. Returns false when the worker shall end.
    pub fn obey(&mut self) -> bool {
        if !self.pending.load(Ordering::Relaxed) {
            return true;
        }
        self.pending.store(false, Ordering::Release);
        std::sync::atomic::fence(Ordering::SeqCst);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(port, queue, free, done) => {
                    self.queues.add(port, queue, free);
                    let _ = done.send(());
                }
                Command::Detach(port, done) => {
                    let _ = done.send(self.queues.remove(port));
                }
                Command::Stop => {
                    self.pipeline.clear(&mut self.stash);
                    self.transmit.abandon(&mut self.stash, &self.counters);
                    self.reader.sleep();
                    return false;
                }
            }
        }
        true
    }

    /// Sleep until a queue has frames or the control thread calls.
    fn sleep(&mut self) {
        if self.queues.arm() || self.pending.load(Ordering::Acquire) {
            return;
        }
        let asleep = ticks();
        let rest = self.next_tokens().map(|due| due.0.saturating_sub(self.clock.fresh(asleep).0));
        if rest.is_some_and(|rest| rest.is_zero()) {
            return;
        }
        self.counters.sleeps.add(1);
        self.reader.sleep();
        let rested = self.queues.wait(rest);
        self.reader.get();
        let awake = ticks();
        self.counters.idle_ticks.add(awake.wrapping_sub(asleep));
        self.last = awake;
        self.clock.fresh(awake);
        if rested {
            self.idle.rested(awake);
        } else {
            self.idle.slept(asleep, awake);
        }
    }
}

/// What carries a burst from its queue to its ways out.
struct Way<'a> {
    reader: &'a mut Reader<Snapshot>,
    live: &'a Live,
    counters: &'a Counters,
    pipeline: &'a mut Pipeline,
    stash: &'a mut Stash,
    transmit: &'a mut Transmit,
    now: Now,
}

impl Way<'_> {
    /// Decide a burst, making at most `walks` walks, and send it.
    #[inline]
    fn carry(&mut self, burst: &mut Burst, walks: usize, lap: &mut impl FnMut(Lap)) {
        let Self { reader, live, counters, pipeline, stash, transmit, now } = self;
        let (moment, snapshot) = in_force(reader, live);
        let turn = Turn { moment, program: &snapshot.program, live, counters, now: *now, walks };
        pipeline.run_measured(burst, &turn, stash, |step| lap(Lap::Step(step)));
        transmit.send(burst, pipeline, snapshot, stash, counters, *now);
        lap(Lap::Tx);
    }
}

/// Count the lanes that are dropped, by reason.
fn count_drop(counters: &Counters, port: PortId, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Drop(reason) => counters.dropped(port, reason),
        // Every lane was decided; one that was not is a fault of ours, and dropped like a frame with nowhere to go.
        Verdict::Pending => counters.dropped(port, DropReason::NoPort),
        Verdict::Output(_) | Verdict::Multi(_) | Verdict::Taken => return false,
    }
    true
}
