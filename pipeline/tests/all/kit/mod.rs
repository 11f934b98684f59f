//! A bench: a program, what packets write, and one worker or two, without threads, ports or a clock.
//!
//! With two workers a port belongs to worker `number % 2`, so that the two directions between ports 1 and 2 are decided by
//! different caches.

pub(crate) mod history;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{BridgeId, Change, Delta, PortId, Transaction};
use pipeline::burst::{Burst, Extra, Verdict, VlanEdit, guard};
use pipeline::counters::Counters;
use pipeline::drop::DropReason;
use pipeline::live::{Live, Now};
use pipeline::offload::Offload;
use pipeline::probe::cells::{Cells, Moment};
use pipeline::raw::{Frame, Pool, Stash};
use pipeline::resolve::program::Program;
use pipeline::resolve::stage::{Next, StageDef};
use pipeline::resolve::stages::STAGES;
use pipeline::resolve::walk::{Copy, Effect, Walk};
use pipeline::rewrite::edits::Edits;
use pipeline::{Pipeline, Turn, parse, rewrite};

/// Frame slots of a bench; none is ever lost.
const SLOTS: usize = 2048;
/// Entries of each cache.
const ENTRIES: usize = 1 << 14;
/// Walks after which every choice among three has been made: all but 4 in a million million.
const CHOICES: u64 = 64;
/// Entries of the caches of a worker that is to know no flow.
const NEWCOMER: usize = 64;
/// The step in which time passes: what one sweep makes up for.
const STEP: Duration = Duration::from_millis(10);

/// What became of one frame: what left, by which port in order of their numbers, and what was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) sent: Vec<(u16, Vec<u8>)>,
    pub(crate) drops: Vec<DropReason>,
}

impl Fate {
    /// The same octets left by these ports.
    pub(crate) fn out(ports: &[u16], octets: &[u8]) -> Self {
        Self { sent: ports.iter().map(|&port| (port, octets.to_vec())).collect(), drops: Vec::new() }
    }

    /// Nothing left, for this reason.
    pub(crate) fn drop(reason: DropReason) -> Self {
        Self { sent: Vec::new(), drops: vec![reason] }
    }

    /// The ports by which it left.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.sent.iter().map(|(port, _)| *port).collect()
    }
}

/// What a decision says: ways out, or a reason. What the cache gives and what a walk gives are compared as this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    Drop(DropReason),
    /// What is done to the headers is done before the copies.
    Ways(Vec<Copy>, Edits),
    /// What the frame becomes cannot be told from the decision alone: it makes a connection, is answered, waits. In words.
    Else(String),
}

struct Worker {
    pipeline: Pipeline,
    counters: Counters,
}

/// A switch without threads.
pub(crate) struct Bench {
    pub(crate) live: Live,
    pub(crate) program: Program,
    pub(crate) now: Now,
    /// Walks that one burst may make.
    pub(crate) walks: usize,
    /// What a burst believes to be in force, if not what is.
    pub(crate) moment: Option<Moment>,
    order: &'static [&'static StageDef],
    /// Every reason for which a frame was dropped so far.
    pub(crate) reasons: BTreeSet<DropReason>,
    /// What left beside the lanes, since a test last took it.
    pub(crate) extra: Vec<(u16, Vec<u8>)>,
    workers: Vec<Worker>,
    /// One that knows no flow: see [`Self::send_anew`].
    newcomer: Worker,
    burst: Box<Burst>,
    stash: Stash,
}

/// Every way in which a behaviour is tested: the number of workers.
pub(crate) const MODES: [usize; 2] = [1, 2];

impl Bench {
    /// The stages of the switch, with nothing programmed.
    pub(crate) fn new(workers: usize) -> Self {
        Self::with(workers, STAGES, Cells::default())
    }

    /// Other stages, other cells.
    pub(crate) fn with(workers: usize, order: &'static [&'static StageDef], cells: Cells) -> Self {
        let worker = || Worker { pipeline: Pipeline::heap(ENTRIES, 0), counters: Counters::new(64) };
        Self {
            live: Live { cells, ..Live::default() },
            program: Program::new(order),
            now: Now(Duration::from_secs(1000)),
            walks: usize::MAX,
            moment: None,
            order,
            reasons: BTreeSet::new(),
            workers: std::iter::repeat_with(worker).take(workers).collect(),
            newcomer: Worker { pipeline: Pipeline::heap(NEWCOMER, 0), counters: Counters::new(64) },
            extra: Vec::new(),
            burst: Burst::new(),
            stash: Pool::heap(SLOTS, 8).stash(),
        }
    }

    /// Caches of this many entries instead; one hit in `shadow` is walked again.
    pub(crate) fn caches(&mut self, entries: usize, shadow: u64) {
        self.workers.iter_mut().for_each(|worker| worker.pipeline = Pipeline::heap(entries, shadow));
    }

    /// A transaction, as the switch carries it out.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        let Self { live, program, .. } = self;
        for change in &changes {
            if let Change::Bridge(Delta { new: Some(bridge), .. }) = change {
                let (limit, ageing) = (bridge.mac_table_size as usize, bridge.mac_ageing);
                live.stations.configure(bridge.id, limit, ageing, &live.cells);
            }
        }
        let transaction = Transaction { changes };
        live.cells.change(|touched| *program = program.apply(&transaction, touched));
        for change in &transaction.changes {
            match change {
                Change::Port(Delta { old: Some(port), new: None }) => {
                    live.stations.flush(port.bridge, Some(port.id), &live.cells);
                    live.neighbors.flush_port(port.id, &live.cells);
                }
                Change::Bridge(Delta { old: Some(bridge), new: None }) => live.stations.remove(bridge.id),
                _ => {}
            }
        }
    }

    fn number_of(&self, port: u16) -> usize {
        usize::from(port) % self.workers.len()
    }

    /// One frame comes in by a port.
    pub(crate) fn send(&mut self, port: u16, octets: &[u8]) -> Fate {
        self.burst(port, &[octets.to_vec()]).remove(0)
    }

    /// Frames come in by a port, all in one burst.
    pub(crate) fn burst(&mut self, port: u16, frames: &[Vec<u8>]) -> Vec<Fate> {
        let frames = frames.iter().map(|octets| self.frame(octets, Offload::NONE)).collect();
        self.run(port, frames)
    }

    /// A frame with work left to do. What leaves is told with the work that is still left.
    pub(crate) fn send_offload(&mut self, port: u16, octets: &[u8], offload: Offload) -> (Fate, Vec<Offload>) {
        let mut left = Vec::new();
        let frame = self.frame(octets, offload);
        let number = Some(self.number_of(port));
        let fate = self
            .run_seeing(port, vec![frame], number, &mut |frame| left.push(frame.offload().unwrap_or(Offload::NONE)));
        (fate.into_iter().next().unwrap(), left)
    }

    fn frame(&mut self, octets: &[u8], offload: Offload) -> Frame {
        let mut frame = self.stash.take().expect("no frame was lost");
        assert!(frame.fill(octets), "it fits a slot");
        frame.set_offload(offload);
        frame
    }

    fn run(&mut self, port: u16, frames: Vec<Frame>) -> Vec<Fate> {
        self.run_seeing(port, frames, Some(self.number_of(port)), &mut |_| ())
    }

    /// As [`Self::send`], at a worker that knows what all know, and no flow: every frame is walked for.
    pub(crate) fn send_anew(&mut self, port: u16, octets: &[u8]) -> Fate {
        let frame = self.frame(octets, Offload::NONE);
        self.run_seeing(port, vec![frame], None, &mut |_| ()).remove(0)
    }

    /// What the worker of [`Self::send_anew`] remembers all the same, it forgets.
    pub(crate) fn forget_anew(&mut self) {
        let Self { newcomer, stash, .. } = self;
        newcomer.pipeline.clear(stash);
        newcomer.pipeline = Pipeline::heap(NEWCOMER, 0);
    }

    /// `number`: of the worker, or `None` for the one that knows no flow.
    fn run_seeing(
        &mut self,
        port: u16,
        frames: Vec<Frame>,
        number: Option<usize>,
        see: &mut dyn FnMut(&Frame),
    ) -> Vec<Fate> {
        let Self { live, program, now, walks, moment, reasons, extra, workers, newcomer, burst, stash, .. } = self;
        let worker = match number {
            Some(number) => &mut workers[number],
            None => newcomer,
        };
        let Worker { pipeline, counters } = worker;
        burst.reset(PortId(port));
        for frame in frames {
            burst.push(frame).expect("a burst has room");
        }
        let moment = moment.unwrap_or_else(|| live.cells.now());
        let turn = Turn { moment, program, live, counters, now: *now, walks: *walks };
        pipeline.run(burst, &turn, stash);
        let mut fates = Vec::new();
        for lane in 0..burst.len() {
            let mut fate = Fate::default();
            let Some(frame) = burst.frames[lane].take() else {
                assert_eq!(burst.verdicts[lane], Verdict::Taken, "a lane keeps its frame");
                fates.push(fate);
                continue;
            };
            let mut leave = |port: PortId, frame: &Frame| {
                see(frame);
                fate.sent.push((port.0, frame.to_vec()));
            };
            match burst.verdicts[lane] {
                Verdict::Pending | Verdict::Taken => panic!("a lane was not decided"),
                Verdict::Drop(reason) => fate.drops.push(reason),
                Verdict::Output(port) => leave(port, &frame),
                Verdict::Multi(list) => {
                    // As the worker does it: copies, taken before the first edit.
                    let size = burst.layers[lane].guard >> pipeline::burst::guard::SIZE_SHIFT;
                    for copy in pipeline.copies(list) {
                        let mut duplicate = stash.copy(&frame).expect("no frame was lost");
                        if size > u32::from(copy.mtu) {
                            fate.drops.push(DropReason::ExceedsMtu);
                        } else {
                            assert!(rewrite::vlan(&mut duplicate, copy.vlan));
                            see(&duplicate);
                            fate.sent.push((copy.port.0, duplicate.to_vec()));
                        }
                        stash.give(duplicate);
                    }
                }
            }
            stash.give(frame);
            reasons.extend(&fate.drops);
            fates.push(fate);
        }
        for Extra { frame, port, .. } in burst.extra.drain(..) {
            extra.push((port.0, frame.to_vec()));
            stash.give(frame);
        }
        self.assert_all_frames_are_there();
        fates
    }

    /// Frames that wait at any worker.
    pub(crate) fn waiting(&self) -> usize {
        self.workers.iter().chain([&self.newcomer]).map(|worker| worker.pipeline.waiting()).sum()
    }

    fn assert_all_frames_are_there(&self) {
        assert_eq!(self.stash.available() + self.waiting(), SLOTS, "a frame was lost");
    }

    /// Frames for [`Self::drive`].
    pub(crate) fn load(&mut self, frames: &[Vec<u8>]) -> Vec<Frame> {
        frames.iter().map(|octets| self.frame(octets, Offload::NONE)).collect()
    }

    /// Give them back.
    pub(crate) fn unload(&mut self, frames: Vec<Frame>) {
        frames.into_iter().for_each(|frame| self.stash.give(frame));
    }

    /// Run frames as one burst and take them out again as they came in, and nothing else: what this costs, the pipeline
    /// costs.
    pub(crate) fn drive(&mut self, port: u16, frames: &mut Vec<Frame>) {
        let number = self.number_of(port);
        let Self { live, program, now, workers, burst, stash, .. } = self;
        let Worker { pipeline, counters } = &mut workers[number];
        burst.reset(PortId(port));
        frames.drain(..).for_each(|frame| burst.push(frame).expect("a burst has room"));
        let turn = Turn { moment: live.cells.now(), program, live, counters, now: *now, walks: usize::MAX };
        pipeline.run(burst, &turn, stash);
        for lane in 0..burst.len() {
            let mut frame = burst.frames[lane].take().expect("a lane keeps its frame");
            if burst.vlans[lane] != VlanEdit::Keep && matches!(burst.verdicts[lane], Verdict::Output(_)) {
                assert!(rewrite::vlan(&mut frame, VlanEdit::Pop));
            }
            frames.push(frame);
        }
    }

    /// What a walk says of a frame now, without any effect; `None` for a malformed one.
    pub(crate) fn walk(&self, port: u16, octets: &[u8]) -> Option<Decided> {
        self.walk_by(&self.program, port, octets)
    }

    /// As [`Self::walk`], by another program.
    pub(crate) fn walk_by(&self, program: &Program, port: u16, octets: &[u8]) -> Option<Decided> {
        let Some(ingress) = program.ingress(PortId(port)) else { return Some(Decided::Drop(DropReason::NoBridge)) };
        let layers = parse::layers(octets, octets.len(), None).ok()?;
        let key = parse::key(PortId(port), octets, &layers).masked(&ingress.mask);
        if ingress.tracked && layers.guard & guard::FRAGMENT != 0 && !key.eth_dst().is_group() {
            return Some(Decided::Else("a fragment".to_owned()));
        }
        let mut walk = Walk::new(key, layers, octets, program.topology(), &self.live, self.now);
        let next = program.decide(&mut walk);
        let opens = walk.effects.iter().find(|effect| matches!(effect, Effect::Commit(_)));
        Some(match next {
            Next::Drop(reason) => Decided::Drop(reason),
            Next::Reply(_) | Next::Wait(..) | Next::Consumed => Decided::Else(format!("{next:?}")),
            _ if walk.outputs.is_empty() => Decided::Drop(DropReason::NoPort),
            _ if opens.is_some() || walk.related.is_some() || walk.cut.is_some() => {
                Decided::Else(format!("{opens:?}, {:?}, {:?}, by {:?}", walk.related, walk.cut, walk.outputs))
            }
            _ => {
                let edits = Edits::between(&walk.start, &walk.key, walk.hops);
                Decided::Ways(walk.outputs, edits)
            }
        })
    }

    /// All that a walk may say: where there is a choice it is made by the time, so that is varied by nanoseconds.
    pub(crate) fn choices(&mut self, program: &Program, port: u16, octets: &[u8]) -> BTreeSet<String> {
        let now = self.now;
        let mut told = BTreeSet::new();
        for i in 0..CHOICES {
            self.now = Now(now.0 + Duration::from_nanos(i));
            told.insert(format!("{:?}", self.walk_by(program, port, octets)));
        }
        self.now = now;
        told
    }

    /// What a walk's decision makes of a frame, if the decision alone says so.
    pub(crate) fn fate_of(&mut self, octets: &[u8], decided: &Decided) -> Option<Fate> {
        let mut fate = Fate::default();
        let (ways, edits) = match decided {
            Decided::Drop(reason) => return Some(Fate::drop(*reason)),
            Decided::Ways(ways, edits) => (ways, edits),
            Decided::Else(_) => return None,
        };
        let layers = parse::layers(octets, octets.len(), None).ok()?;
        for way in ways {
            let mut frame = self.frame(octets, Offload::NONE);
            if layers.guard >> guard::SIZE_SHIFT > u32::from(way.mtu) {
                fate.drops.push(DropReason::ExceedsMtu);
            } else {
                assert!(edits.is_empty() || edits.apply(&mut frame, &layers));
                assert!(rewrite::vlan(&mut frame, way.vlan));
                fate.sent.push((way.port.0, frame.to_vec()));
            }
            self.stash.give(frame);
        }
        Some(fate)
    }

    /// The same nouns, programmed at once into an empty program.
    pub(crate) fn cold(&self, changes: Vec<Change>) -> Program {
        Program::cold(self.order, &Transaction { changes }, &self.live.cells)
    }

    /// Time passes and nothing comes in; the workers sweep and stations age.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.0 + time;
        while self.now.0 < end {
            let second = self.now.second();
            self.sweep(STEP.min(end - self.now.0));
            if self.now.second() != second {
                self.live.stations.expire(self.now, &self.live.cells);
                self.live.neighbors.expire(self.now, &self.live.cells);
                self.live.connections.expire(self.now, usize::MAX);
            }
        }
    }

    /// Some time passes, and the workers sweep.
    pub(crate) fn sweep(&mut self, time: Duration) {
        self.now = Now(self.now.0 + time);
        let Self { live, program, now, workers, stash, burst, extra, .. } = self;
        for Worker { pipeline, counters } in workers {
            let turn = Turn { moment: live.cells.now(), program, live, counters, now: *now, walks: usize::MAX };
            pipeline.sweep(&turn, stash);
            // What has waited goes on, as the worker does it.
            while pipeline.resume(burst) {
                pipeline.run(burst, &turn, stash);
                for lane in 0..burst.len() {
                    let Some(frame) = burst.frames[lane].take() else { continue };
                    if let Verdict::Output(port) = burst.verdicts[lane] {
                        extra.push((port.0, frame.to_vec()));
                    }
                    stash.give(frame);
                }
                for Extra { frame, port, .. } in burst.extra.drain(..) {
                    extra.push((port.0, frame.to_vec()));
                    stash.give(frame);
                }
            }
        }
    }

    /// As [`Self::pass`], without a sweep: nobody had time for one. Connections do not expire: that no worker keeps one in
    /// use for longer rests on the sweep.
    pub(crate) fn jump(&mut self, time: Duration) {
        self.now = Now(self.now.0 + time);
        self.live.stations.expire(self.now, &self.live.cells);
        self.live.neighbors.expire(self.now, &self.live.cells);
    }

    /// Events so far, by name, summed over the workers; only those that happened.
    pub(crate) fn events(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (name, count) in self.workers.iter().flat_map(|worker| worker.counters.coverage.list()) {
            if count != 0 {
                *sums.entry(name).or_default() += count;
            }
        }
        sums
    }

    /// What `act` comes to, and the events that it caused.
    pub(crate) fn watch<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> (R, BTreeMap<&'static str, u64>) {
        let before = self.events();
        let result = act(self);
        let mut events = self.events();
        events.iter_mut().for_each(|(name, count)| *count -= before.get(name).unwrap_or(&0));
        events.retain(|_, count| *count != 0);
        (result, events)
    }

    /// Live entries of all caches.
    pub(crate) fn entries(&self) -> usize {
        self.workers.iter().map(|worker| worker.pipeline.entries()).sum()
    }

    /// Where a station is believed to be.
    pub(crate) fn place(&self, bridge: BridgeId, mac: [u8; 6]) -> Option<u16> {
        self.live.stations.list(bridge).iter().find(|s| s.address.mac.0 == mac).map(|station| station.port.0)
    }
}

/// Event counts, as rows write them.
pub(crate) fn events(list: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    list.iter().copied().collect()
}
