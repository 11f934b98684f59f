//! A client that calls a service again and again, and endpoints that answer: TCP as far as a call needs it.
//!
//! ```text
//!   SYN ->   <- SYN-ACK   ACK ->   ... some time later ...   question ->   <- answer, FIN   FIN ->   <- ACK
//! ```
//!
//! A call that got its answer is done. What is not answered within a second is sent once more, as kernels do (RFC 6298, 2).
//! A call that meets a reset has failed, and so has one that got no answer in the end.
//!
//! The caller lives on the thread of the switch's worker. When that is not run, no call is made; those that fell due meanwhile
//! are made a few in a turn, since a burst of them would be the machine's doing, and a switch may refuse bursts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddrV4;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::MacAddr;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use parking_lot::Mutex;
use pipeline::burst::{Burst, LANES};
use pipeline::offload::Offload;
use pipeline::raw::Stash;
use vswitch::ports::{Device, Opened, Rx, RxQueue, Status, Tx, TxBatch};

use crate::node::ROUTER;

/// Source ports of calls, from the first one on; then they begin anew.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65535;
/// Octets of a question and of an answer.
const WORDS: usize = 16;
/// Calls that are made in one turn of the worker.
const A_TURN: u64 = 4;
/// After so long without an answer a segment is sent once more.
const AGAIN: Duration = Duration::from_secs(1);

/// What a segment says beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    syn: bool,
    ack: bool,
    fin: bool,
    rst: bool,
}

/// A TCP segment over IPv4, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    macs: [MacAddr; 2],
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: Flags,
    seq: u32,
    ack: u32,
    payload: usize,
}

impl Segment {
    /// What is in a frame, if it is such a segment.
    fn read(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport) else {
            return None;
        };
        let ethernet = packet.link.as_ref()?.to_header()?.ethernet2()?;
        let ip = ip.header();
        Some(Self {
            macs: [ethernet.source, ethernet.destination].map(MacAddr),
            from: SocketAddrV4::new(ip.source_addr(), tcp.source_port()),
            to: SocketAddrV4::new(ip.destination_addr(), tcp.destination_port()),
            flags: Flags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() },
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            payload: tcp.payload().len(),
        })
    }

    fn write(&self) -> Option<Vec<u8>> {
        let Self { macs: [from, to], flags, .. } = self;
        let mut tcp = PacketBuilder::ethernet2(from.0, to.0)
            .ipv4(self.from.ip().octets(), self.to.ip().octets(), 64)
            .tcp(self.from.port(), self.to.port(), self.seq, u16::MAX);
        if flags.syn {
            tcp = tcp.syn();
        }
        if flags.ack {
            tcp = tcp.ack(self.ack);
        }
        if flags.fin {
            tcp = tcp.fin();
        }
        if flags.rst {
            tcp = tcp.rst();
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, &vec![0; self.payload]).ok()?;
        Some(frame)
    }

    /// What is said to it next.
    fn reply(&self, flags: Flags, payload: usize) -> Self {
        let heard = self.payload as u32 + u32::from(self.flags.syn) + u32::from(self.flags.fin);
        Self {
            macs: [self.macs[1], self.macs[0]],
            from: self.to,
            to: self.from,
            flags: Flags { ack: true, ..flags },
            seq: self.ack,
            ack: self.seq.wrapping_add(heard),
            payload,
        }
    }
}

/// What came of all calls.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Made.
    pub made: u64,
    /// Answered.
    pub answered: u64,
    /// Ended by a reset.
    pub resets: u64,
    /// Segments that were sent once more.
    pub sent_again: u64,
    /// From SYN to SYN-ACK.
    pub connected: Vec<Duration>,
}

/// A call that has no answer yet.
#[derive(Clone, Debug)]
struct Call {
    began: Instant,
    /// It was taken: what it has to say is its question.
    taken: bool,
    /// What it has to say, and when: a SYN is said already, and is said again.
    next: Segment,
    at: Instant,
    said: bool,
}

/// Who calls.
#[derive(Debug)]
pub struct Caller(Mutex<Calling>);

#[derive(Debug)]
struct Calling {
    mac: MacAddr,
    from: SocketAddrV4,
    to: SocketAddrV4,
    /// Calls a second.
    rate: f64,
    /// A call asks so long after it was answered the phone, at most; each another time.
    linger: Duration,
    since: Option<Instant>,
    calls: Calls,
    /// Calls that have no answer yet, by their source port.
    open: HashMap<u16, Call>,
    /// When calls have something to say, unless they are answered first.
    later: BinaryHeap<Reverse<(Instant, u16)>>,
    out: VecDeque<Vec<u8>>,
}

impl Caller {
    /// Calls from one address to another, none until [`Self::begin`].
    pub fn new(mac: MacAddr, from: SocketAddrV4, to: SocketAddrV4, rate: f64, linger: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Calling {
            mac,
            from,
            to,
            rate,
            linger,
            since: None,
            calls: Calls::default(),
            open: HashMap::new(),
            later: BinaryHeap::new(),
            out: VecDeque::new(),
        })))
    }

    /// From now on, so many calls a second.
    pub fn begin(&self) {
        self.0.lock().since = Some(Instant::now());
    }

    /// No more calls: those that are open go on.
    pub fn end(&self) {
        self.0.lock().since = None;
    }

    /// Calls that have no answer yet.
    pub fn open(&self) -> usize {
        self.0.lock().open.len()
    }

    /// What came of the calls so far.
    pub fn calls(&self) -> Calls {
        self.0.lock().calls.clone()
    }

    /// As a port of the switch.
    pub fn port(self: &Arc<Self>) -> Opened {
        Opened { queues: vec![Box::new(Wire(Arc::clone(self)))], device: Arc::new(Wire(Arc::clone(self))) }
    }
}

impl Calling {
    fn send(&mut self, segment: &Segment) {
        self.out.extend(segment.write());
    }

    /// Make the calls that are due, and ask what is to be asked by now.
    fn go_on(&mut self, now: Instant) {
        let made = self.calls.made;
        let due = self.since.map_or(0, |since| ((now - since).as_secs_f64() * self.rate) as u64);
        for number in made..due.min(made + A_TURN) {
            let count = u64::from(PORTS.end() - PORTS.start()) + 1;
            let port = PORTS.start() + (number % count) as u16;
            // A call of long ago that still has no answer keeps its port: it is one that has failed.
            if self.open.contains_key(&port) {
                return;
            }
            self.calls.made += 1;
            let next = Segment {
                macs: [self.mac, ROUTER],
                from: SocketAddrV4::new(*self.from.ip(), port),
                to: self.to,
                flags: Flags { syn: true, ..Flags::default() },
                seq: number as u32,
                ack: 0,
                payload: 0,
            };
            self.plan(port, Call { began: now, taken: false, next, at: now, said: false });
        }
        while let Some(Reverse((at, port))) = self.later.peek().copied()
            && at <= now
        {
            self.later.pop();
            // What was planned before it was taken is no matter any more.
            if let Some(call) = self.open.get(&port).filter(|call| call.at == at).cloned() {
                self.calls.sent_again += u64::from(call.said);
                self.send(&call.next);
                self.plan(port, Call { at: now + AGAIN, said: true, ..call });
            }
        }
    }

    fn plan(&mut self, port: u16, call: Call) {
        self.later.push(Reverse((call.at, port)));
        self.open.insert(port, call);
    }
}

/// What may be at the far end of a port: hears frames, and has frames to send.
trait Host: Send + Sync {
    fn hear(&self, segment: &Segment);
    fn say(&self, sink: &mut dyn FnMut(&[u8]) -> bool);
}

impl Host for Caller {
    fn hear(&self, segment: &Segment) {
        let (mut calling, now) = (self.0.lock(), Instant::now());
        let port = segment.to.port();
        let Some(call) = calling.open.get(&port).cloned() else { return };
        if segment.from != calling.to {
            return;
        }
        if segment.flags.rst {
            calling.open.remove(&port);
            calling.calls.resets += 1;
        } else if segment.flags.syn {
            if call.taken {
                return;
            }
            calling.calls.connected.push(now - call.began);
            let ack = segment.reply(Flags::default(), 0);
            calling.send(&ack);
            // A factor that is prime to the divisor: neighbours in time linger differently.
            let wait = calling.linger.mul_f64(f64::from(u32::from(port) * 37 % 101) / 100.0);
            let next = Segment { payload: WORDS, ..ack };
            calling.plan(port, Call { taken: true, next, at: now + wait, said: false, ..call });
        } else if segment.payload > 0 {
            calling.open.remove(&port);
            calling.calls.answered += 1;
            calling.send(&segment.reply(Flags { fin: true, ..Flags::default() }, 0));
        }
    }

    fn say(&self, sink: &mut dyn FnMut(&[u8]) -> bool) {
        let mut calling = self.0.lock();
        calling.go_on(Instant::now());
        while calling.out.front().is_some_and(|frame| sink(frame)) {
            calling.out.pop_front();
        }
    }
}

/// Who answers calls.
#[derive(Debug, Default)]
pub struct Callee {
    out: Mutex<VecDeque<Vec<u8>>>,
    /// Who called and has not said goodbye.
    open: Mutex<HashSet<SocketAddrV4>>,
    taken: AtomicU64,
    leaving: AtomicBool,
    late: AtomicU64,
}

impl Callee {
    /// Nobody is to be sent here any more: who comes anew is refused.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Calls that are not done.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Calls that came here.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Calls that came after [`Self::leave`].
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Acquire)
    }

    /// As a port of the switch.
    pub fn port(self: &Arc<Self>) -> Opened {
        Opened { queues: vec![Box::new(Wire(Arc::clone(self)))], device: Arc::new(Wire(Arc::clone(self))) }
    }
}

impl Host for Callee {
    fn hear(&self, segment: &Segment) {
        let flags = Flags::default();
        let reply = if segment.flags.rst {
            return;
        } else if segment.flags.syn {
            let mut open = self.open.lock();
            if self.leaving.load(Ordering::Acquire) && !open.contains(&segment.from) {
                // Nobody listens any more.
                self.late.fetch_add(1, Ordering::AcqRel);
                segment.reply(Flags { rst: true, ..flags }, 0)
            } else {
                if open.insert(segment.from) {
                    self.taken.fetch_add(1, Ordering::AcqRel);
                }
                segment.reply(Flags { syn: true, ..flags }, 0)
            }
        } else if segment.flags.fin {
            self.open.lock().remove(&segment.from);
            segment.reply(flags, 0)
        } else if segment.payload > 0 {
            segment.reply(Flags { fin: true, ..flags }, WORDS)
        } else {
            return;
        };
        self.out.lock().extend(reply.write());
    }

    fn say(&self, sink: &mut dyn FnMut(&[u8]) -> bool) {
        let mut out = self.out.lock();
        while out.front().is_some_and(|frame| sink(frame)) {
            out.pop_front();
        }
    }
}

/// Both directions of the port that leads to a host.
struct Wire<T>(Arc<T>);

impl<T: Host> RxQueue for Wire<T> {
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx {
        let (mut taken, mut starved) = (0, false);
        self.0.say(&mut |bytes| {
            if taken == limit {
                return false;
            }
            let Some(mut frame) = stash.take() else {
                starved = true;
                return false;
            };
            // Such frames fit into every slot.
            let _ = frame.fill(bytes);
            if let Err(frame) = burst.push(frame) {
                stash.give(frame);
                return false;
            }
            taken += 1;
            true
        });
        match starved {
            true => Rx::Starved,
            false if taken == limit => Rx::More,
            false => Rx::Drained,
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// There may be something to say at any moment: the worker does not sleep.
    fn arm(&mut self) -> bool {
        true
    }

    fn limit(&self) -> usize {
        LANES
    }
}

impl<T: Host> Device for Wire<T> {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        batch.take(batch.len(), |frame| {
            if let Some(segment) = Segment::read(frame.head()) {
                self.0.hear(&segment);
            }
            stash.give(frame);
        });
        Tx::Done
    }

    fn takes(&self, _offload: Offload) -> bool {
        true
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn remove(&self) {}
}
