//! One client: what it sent and was not answered yet, what it is sent and has not taken yet, and how long it may take.
//!
//! Nothing is ever waited for. A client costs its buffers: of a head at most, and the head of an answer whose body may be
//! shared with others. Who sends or takes nothing in time is closed.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mio::net::TcpStream;

use super::http::{HEAD_LIMIT, Parsed, Request, Response, parse};

/// How long a request may take to arrive, from the connection or its first octet on.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may rest between two requests: longer than scrapers' intervals commonly are.
const IDLE_PATIENCE: Duration = Duration::from_secs(120);
/// How long an answer may take to be taken.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long the other side may take to close, once all is said.
const LINGER: Duration = Duration::from_secs(1);
/// Requests and reads of one client before it is another's turn.
const TURN: usize = 32;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    head: Vec<u8>,
    body: Arc<str>,
    /// Octets of head and body that are gone.
    sent: usize,
    stage: Stage,
    /// When it is closed if it does nothing.
    deadline: Instant,
    /// When it last sent something.
    last: Instant,
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may ask.
    Open,
    /// It is answered a last time.
    Closing,
    /// All is said. What it still sends is thrown away: to close before it is read would take back the answer (RFC 9112, 9.6).
    Lingering,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has to send or take something first.
    Waits,
    /// It has more to ask.
    More,
    /// It is through.
    Over,
}

impl Client {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
        // An answer is written at once: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            input: Vec::new(),
            head: Vec::new(),
            body: Arc::from(""),
            sent: 0,
            stage: Stage::Open,
            deadline: now + HEAD_PATIENCE,
            last: now,
        }
    }

    /// It had its time.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// When it last sent something.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// Let it ask and take what it can without waiting.
    pub(super) fn turn(&mut self, now: Instant, answer: &mut impl FnMut(&Request) -> Response) -> Turn {
        for _ in 0..TURN {
            match self.flush(now) {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Over,
            }
            if self.stage == Stage::Open {
                match parse(&self.input) {
                    Parsed::Request(request, len) => {
                        self.input.drain(..len);
                        let response = answer(&request);
                        self.say(&response, request.is_head, request.goes_on, now);
                        continue;
                    }
                    Parsed::Refused(response) => {
                        self.say(&response, false, false, now);
                        continue;
                    }
                    Parsed::Incomplete => {}
                }
            }
            match self.read(now) {
                Ok(0) => return Turn::Over,
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Turn::Waits,
                Err(_) => return Turn::Over,
            }
        }
        Turn::More
    }

    fn say(&mut self, response: &Response, is_head: bool, goes_on: bool, now: Instant) {
        self.head = response.head(goes_on, Timestamp::now());
        self.body = if is_head { Arc::from("") } else { Arc::clone(&response.body) };
        self.sent = 0;
        self.deadline = now + ANSWER_PATIENCE;
        if !goes_on {
            self.stage = Stage::Closing;
            self.input = Vec::new();
        }
    }

    /// Send what is to be sent. Returns whether all of it is gone.
    fn flush(&mut self, now: Instant) -> io::Result<bool> {
        if self.head.is_empty() {
            return Ok(true);
        }
        loop {
            let head = self.head.get(self.sent..).unwrap_or_default();
            let body = self.body.as_bytes().get(self.sent.saturating_sub(self.head.len())..).unwrap_or_default();
            if head.is_empty() && body.is_empty() {
                break;
            }
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(taken) => self.sent += taken,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        (self.head, self.body) = (Vec::new(), Arc::from(""));
        match self.stage {
            Stage::Open => self.deadline = now + if self.input.is_empty() { IDLE_PATIENCE } else { HEAD_PATIENCE },
            Stage::Closing => {
                self.stage = Stage::Lingering;
                self.deadline = now + LINGER;
                self.stream.shutdown(Shutdown::Write)?;
            }
            Stage::Lingering => {}
        }
        Ok(true)
    }

    fn read(&mut self, now: Instant) -> io::Result<usize> {
        let mut chunk = [0; HEAD_LIMIT];
        let len = self.stream.read(&mut chunk)?;
        self.last = now;
        if self.stage == Stage::Open {
            if self.input.is_empty() {
                self.deadline = now + HEAD_PATIENCE;
            }
            self.input.extend(chunk.iter().take(len));
        }
        Ok(len)
    }
}
