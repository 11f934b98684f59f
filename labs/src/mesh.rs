//! Who reaches whom: hundreds of questions at once, over TCP, UDP and SCTP, and who heard them.
//!
//! Every end of a mesh listens at some ports. A question goes from one end to an address, where the server of some end is
//! expected to hear it and to echo it; it *passed* only if that server's socket received it from the address that it is to
//! be seen under, and the client's socket received the echo. All questions of a run are asked at the same time from
//! sockets of one source port that no other run uses, so none is taken for part of an older connection.
//!
//! Whether a question is to pass is said beforehand. One that is not has as long as those that are took, and longer; one
//! that is and does not is asked once more, since a packet may be lost. One that passes and should not is never asked again.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::host::{Host, PATIENCE};

mod client;
mod server;

use client::Clients;
use server::Servers;

/// Times that what should have passed is asked again: hundreds of first packets at once are more than a port may bring.
const AGAIN: usize = 3;
/// What is not to pass has at least this long to pass all the same.
const SILENCE: Duration = Duration::from_millis(350);
/// Source ports of runs, each used once in the life of the process: below those that kernels choose, and node ports.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20000);
/// Events taken from the kernel at a time.
const EVENTS: usize = 64;

/// The transport of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, by the kernel where it has it, else by ourselves.
    Sctp,
}

/// All of them.
pub const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

impl Transport {
    /// A letter for grids.
    pub fn letter(self) -> char {
        match self {
            Self::Tcp => 'T',
            Self::Udp => 'U',
            Self::Sctp => 'S',
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The end that asks.
    pub from: usize,
    /// Where it asks.
    pub at: SocketAddr,
    /// Over what.
    pub over: Transport,
    /// The end that is to hear it.
    pub to: usize,
    /// At which of its ports.
    pub port: u16,
    /// Under which address it is to see who asks.
    pub seen: IpAddr,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The right server heard it from this address and port, and the echo came back.
    Passed(SocketAddr),
    /// Nobody heard it, nor did an echo come.
    Silent,
    /// Neither: what there was instead. It is as expected nowhere.
    Odd(String),
}

impl Fate {
    /// It is what it was to be.
    pub fn is(&self, to_pass: bool) -> bool {
        match self {
            Self::Passed(_) => to_pass,
            Self::Silent => !to_pass,
            Self::Odd(_) => false,
        }
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed(peer) => write!(f, "heard from {peer}"),
            Self::Silent => f.write_str("silent"),
            Self::Odd(what) => f.write_str(what),
        }
    }
}

/// What both sides noted of a question in one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// The end and port that heard it, and from whom.
    heard: Option<(usize, u16, SocketAddr)>,
    echoed: bool,
    /// The network, or the other kernel, said no.
    refused: Option<String>,
}

impl Notes {
    fn fate(&self, question: &Question) -> Fate {
        match (self.heard, self.echoed) {
            (None, false) if self.refused.is_none() => Fate::Silent,
            (None, false) => Fate::Odd(self.refused.clone().unwrap_or_default()),
            (None, true) => Fate::Odd("an echo of what no server heard".to_owned()),
            (Some((end, port, peer)), _) if (end, port) != (question.to, question.port) => {
                Fate::Odd(format!("heard by end {end} at port {port}, from {peer}"))
            }
            (Some((.., peer)), _) if peer.ip() != question.seen => {
                Fate::Odd(format!("heard from {peer} instead of {}", question.seen))
            }
            (Some((.., peer)), true) => Fate::Passed(peer),
            (Some((.., peer)), false) => Fate::Odd(format!("heard from {peer}, but no echo came back")),
        }
    }
}

/// What waits for the kernel: one number of its events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    /// A listening or datagram socket, or a raw one, of a server.
    Server(usize),
    /// A connection that a server has accepted.
    Accepted(usize),
    /// A socket of a client.
    Client(usize),
}

impl Waiting {
    fn number(self) -> u64 {
        match self {
            Self::Server(at) => at as u64,
            Self::Accepted(at) => 1 << 32 | at as u64,
            Self::Client(at) => 2 << 32 | at as u64,
        }
    }

    fn of(number: u64) -> Self {
        let at = (number & 0xffff_ffff) as usize;
        match number >> 32 {
            0 => Self::Server(at),
            1 => Self::Accepted(at),
            _ => Self::Client(at),
        }
    }
}

/// An end: where it listens.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// Its host.
    pub host: &'a Host,
    /// The addresses at which it listens, or none for all: where a host has several, what it sends to answer a datagram
    /// need not come from the one that was asked.
    pub at: Vec<IpAddr>,
    /// The ports at which it listens, over every transport.
    pub ports: &'static [u16],
}

/// Ends that all listen.
#[derive(Debug)]
pub struct Mesh<'a> {
    hosts: Vec<&'a Host>,
    servers: Servers,
    epoll: OwnedFd,
    native: bool,
}

impl<'a> Mesh<'a> {
    /// These ends, which listen from now on.
    ///
    /// # Errors
    /// When a port is taken, or the kernel has not enough of something.
    pub fn new(ends: &[End<'a>]) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let native = client::kernel_has_sctp();
        let servers = Servers::open(ends, native, &epoll)?;
        Ok(Self { hosts: ends.iter().map(|end| end.host).collect(), servers, epoll, native })
    }

    /// What speaks SCTP.
    pub fn sctp(&self) -> &'static str {
        if self.native { "the kernel's sockets" } else { "raw sockets: the kernel has none of SCTP" }
    }

    /// Ask everything at once; for each question, whether it is to pass, and what becomes of it.
    ///
    /// # Errors
    /// When sockets fail; silence is no error.
    pub fn ask(&mut self, questions: &[Question], to_pass: impl Fn(usize) -> bool) -> anyhow::Result<Vec<Fate>> {
        let expected: Vec<bool> = (0..questions.len()).map(to_pass).collect();
        let mut fates = self.once(questions, &expected)?;
        for _ in 0..AGAIN {
            let lost = |at: &usize| expected[*at] && !matches!(fates[*at], Fate::Passed(_));
            let again: Vec<usize> = (0..questions.len()).filter(lost).collect();
            if again.is_empty() {
                break;
            }
            let questions: Vec<Question> = again.iter().map(|at| questions[*at]).collect();
            let second = self.once(&questions, &vec![true; again.len()])?;
            again.iter().zip(second).for_each(|(at, fate)| fates[*at] = fate);
        }
        Ok(fates)
    }

    fn once(&mut self, questions: &[Question], expected: &[bool]) -> anyhow::Result<Vec<Fate>> {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let mut notes = vec![Notes::default(); questions.len()];
        self.servers.begin();
        let mut clients = Clients::open(&self.hosts, questions, port, self.native, &self.epoll)?;
        let began = Instant::now();
        clients.begin(&self.servers, &mut notes)?;
        let (mut open, mut last) = (expected.iter().filter(|expected| **expected).count(), Duration::ZERO);
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let passed = began.elapsed();
            // A busy machine is slow for those that are not to pass, too.
            let limit = if open > 0 { PATIENCE } else { SILENCE.max(last * 2) };
            if passed >= limit || (open == 0 && !expected.contains(&false)) {
                break;
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000.min((limit - passed).as_nanos() as i64) };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for sockets"),
            }
            for event in &events {
                match Waiting::of(event.data.u64()) {
                    Waiting::Server(at) => self.servers.ready(at, port, &mut notes, &mut clients, &self.epoll),
                    Waiting::Accepted(at) => self.servers.accepted(at, port, &mut notes),
                    Waiting::Client(at) => clients.ready(at, &mut notes, &self.epoll),
                }
            }
            let left = notes.iter().zip(expected).filter(|(notes, expected)| **expected && !notes.echoed).count();
            if left < open {
                (open, last) = (left, began.elapsed());
            }
        }
        Ok(notes.iter().zip(questions).map(|(notes, question)| notes.fate(question)).collect())
    }
}

/// Octets of a question: which run asked it, and which one of that run it is.
const QUESTION: usize = 8;

pub(crate) fn write_question(port: u16, index: usize) -> [u8; QUESTION] {
    let mut octets = [0; QUESTION];
    octets[..2].copy_from_slice(b"vs");
    octets[2..4].copy_from_slice(&port.to_be_bytes());
    octets[4..].copy_from_slice(&(index as u32).to_be_bytes());
    octets
}

/// Which question of this run it is; `None` for those of others.
pub(crate) fn read_question(octets: &[u8], port: u16) -> Option<usize> {
    let [b'v', b's', high, low, index @ ..] = octets else { return None };
    let index: [u8; 4] = index.try_into().ok()?;
    (u16::from_be_bytes([*high, *low]) == port).then_some(u32::from_be_bytes(index) as usize)
}

#[cfg(test)]
mod tests;
