//! Load whose every octet is looked at: connections that ask and are answered, and how long they had to wait.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use parking_lot::Mutex;
use vswitch::sys::netns::Namespace;

/// Octets that are moved at a time.
const BLOCK: usize = 64 * 1024;
/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often those that are due are looked for.
const TURN: Duration = Duration::from_millis(1);

/// A thread that ends with the value.
struct Thread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn new(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self { stop, thread: Some(std::thread::spawn(move || work(&told))) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "a thread of the load died");
    }
}

/// A server that sends back what comes, until dropped.
pub(super) struct Echo(#[expect(dead_code, reason = "ends with the value")] Thread);

impl Echo {
    pub(super) fn new(space: &Namespace, port: u16) -> Self {
        let listener = space.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        Self(Thread::new(move |stop| serve(&mio::net::TcpListener::from_std(listener), stop)))
    }
}

/// An end that sends back: octets that it has yet to send.
struct Answering {
    stream: mio::net::TcpStream,
    back: Vec<u8>,
}

impl Answering {
    /// Returns false when it is over.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            while !self.back.is_empty() {
                match self.stream.write(&self.back) {
                    Ok(len) => drop(self.back.drain(..len)),
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(len) => self.back.extend_from_slice(&buffer[..len]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn serve(listener: &mio::net::TcpListener, stop: &AtomicBool) {
    let mut ends: Vec<Option<Answering>> = Vec::new();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1024));
    let mut buffer = vec![0; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(TURN)).unwrap();
        while let Ok((mut stream, _)) = listener.accept() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(ends.len()), both).unwrap();
            let _ = stream.set_nodelay(true);
            ends.push(Some(Answering { stream, back: Vec::new() }));
        }
        for event in &events {
            let Some(place) = ends.get_mut(event.token().0) else { continue };
            if place.as_mut().is_some_and(|end| !end.turn(&mut buffer)) {
                *place = None;
            }
        }
    }
}

/// How connections are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// Octets of a question.
    pub(super) octets: usize,
    /// A connection asks so often, unless it waits for an answer.
    pub(super) every: Duration,
}

/// What came of it since it was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Octets that came back, all as they were sent.
    pub(super) octets: u64,
    /// The longest time in which nothing came back on any connection.
    pub(super) gap: Duration,
    /// The longest time that each connection waited for an answer, shortest first.
    pub(super) waits: Vec<Duration>,
    /// Why connections ended.
    pub(super) broken: Vec<String>,
}

impl Outcome {
    /// How long all but one in so many had to wait at most.
    pub(super) fn wait_of(&self, one_in: usize) -> Duration {
        let beyond = self.waits.len() / one_in;
        self.waits.iter().rev().nth(beyond).copied().unwrap_or_default()
    }
}

/// Connections in use, until dropped.
pub(super) struct Load {
    state: Arc<Mutex<State>>,
    _thread: Thread,
}

struct State {
    ends: Vec<Asking>,
    outcome: Outcome,
    last: Instant,
}

/// An end that asks.
struct Asking {
    stream: mio::net::TcpStream,
    number: usize,
    shape: Shape,
    /// Questions so far.
    questions: usize,
    due: Instant,
    asked: Instant,
    /// Octets of this question that were sent, and that came back.
    sent: usize,
    back: usize,
    worst: Duration,
    is_over: bool,
}

impl Load {
    /// Make the connections, one after the other; returns when all are answered.
    pub(super) fn start(space: &Namespace, to: SocketAddr, shape: Shape) -> Self {
        let streams: Vec<TcpStream> =
            space.run(|| (0..shape.connections).map(|_| TcpStream::connect_timeout(&to, PATIENCE).unwrap()).collect());
        let start = Instant::now();
        let end = |(number, stream): (usize, TcpStream)| {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            // They do not all ask at once.
            let due = start + shape.every * number as u32 / shape.connections as u32;
            Asking {
                stream: mio::net::TcpStream::from_std(stream),
                number,
                shape,
                questions: 0,
                due,
                asked: start,
                sent: shape.octets,
                back: shape.octets,
                worst: Duration::ZERO,
                is_over: false,
            }
        };
        let ends = streams.into_iter().enumerate().map(end).collect();
        let state = Arc::new(Mutex::new(State { ends, outcome: Outcome::default(), last: start }));
        let shared = Arc::clone(&state);
        let load = Self { state, _thread: Thread::new(move |stop| drive(&shared, stop)) };
        let everybody = |load: &Self| load.state.lock().ends.iter().all(|end| end.questions > 1 || end.is_over);
        while !everybody(&load) {
            assert!(start.elapsed() < PATIENCE * 4, "not all connections were answered");
            std::thread::sleep(TURN);
        }
        load.outcome();
        load
    }

    /// What came of it since this was last asked.
    pub(super) fn outcome(&self) -> Outcome {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { ends, outcome, last } = &mut *state;
        let wait = |end: &mut Asking| {
            let worst = std::mem::take(&mut end.worst);
            if end.is_waiting() { worst.max(now - end.asked) } else { worst }
        };
        let mut taken = std::mem::take(outcome);
        taken.waits = ends.iter_mut().map(wait).collect();
        taken.waits.sort_unstable();
        taken.gap = taken.gap.max(now.saturating_duration_since(*last));
        *last = now;
        taken
    }

    /// Wait until every connection was answered that asked before now, or is over.
    pub(super) fn settle(&self, patience: Duration) {
        let start = Instant::now();
        let waits = |end: &Asking| !end.is_over && (end.asked < start && end.is_waiting());
        while self.state.lock().ends.iter().any(waits) && start.elapsed() < patience {
            std::thread::sleep(TURN);
        }
    }
}

impl Asking {
    fn is_waiting(&self) -> bool {
        self.back < self.shape.octets
    }

    /// An octet of the present question.
    fn octet(&self, at: usize) -> u8 {
        (self.number.wrapping_mul(31) ^ self.questions.wrapping_mul(7) ^ at ^ (at >> 8)) as u8
    }

    /// Go on as far as the socket lets. Returns the octets that came back.
    fn turn(&mut self, buffer: &mut [u8], now: Instant) -> Result<u64, String> {
        if !self.is_waiting() && now >= self.due {
            (self.sent, self.back, self.asked) = (0, 0, now);
            self.questions += 1;
            self.due = now + self.shape.every;
        }
        while self.sent < self.shape.octets {
            let len = (self.shape.octets - self.sent).min(BLOCK);
            (0..len).for_each(|i| buffer[i] = self.octet(self.sent + i));
            match self.stream.write(&buffer[..len]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("connection {}: write: {error}", self.number)),
            }
        }
        let mut came = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(format!("connection {}: ended", self.number)),
                Ok(len) => {
                    let is_same = |(i, octet): (usize, &u8)| *octet == self.octet(self.back + i);
                    if self.back + len > self.shape.octets || !buffer[..len].iter().enumerate().all(is_same) {
                        return Err(format!("connection {}: other octets came back", self.number));
                    }
                    self.back += len;
                    came += len as u64;
                    if !self.is_waiting() {
                        self.worst = self.worst.max(now - self.asked);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(format!("connection {}: read: {error}", self.number)),
            }
        }
    }
}

fn drive(state: &Mutex<State>, stop: &AtomicBool) {
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1024));
    for end in &mut state.lock().ends {
        poll.registry().register(&mut end.stream, Token(end.number), Interest::READABLE | Interest::WRITABLE).unwrap();
    }
    let mut buffer = vec![0; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(TURN)).unwrap();
        let now = Instant::now();
        let mut state = state.lock();
        let State { ends, outcome, last } = &mut *state;
        let due = ends.iter().filter(|end| !end.is_waiting() && now >= end.due).map(|end| end.number);
        let numbers: Vec<usize> = events.iter().map(|event| event.token().0).chain(due).collect();
        for number in numbers {
            let end = &mut ends[number];
            if end.is_over {
                continue;
            }
            match end.turn(&mut buffer, now) {
                Ok(0) => {}
                Ok(octets) => {
                    outcome.octets += octets;
                    outcome.gap = outcome.gap.max(now.saturating_duration_since(*last));
                    *last = now.max(*last);
                }
                Err(why) => {
                    end.is_over = true;
                    outcome.broken.push(why);
                }
            }
        }
    }
}
