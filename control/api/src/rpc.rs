//! JSON-RPC as Open vSwitch speaks it on its control sockets (RFC 7047, section 4; `unixctl`).
//!
//! Messages are JSON objects one after another, with nothing between them that would mark an end. So the reader has to
//! find the closing brace itself: [`Splitter`] does, looking at each octet once and holding no more than a limit.
//!
//! ```text
//! -> {"id":0,"method":"fdb/show","params":["br0"]}            words: the result is text (ovs-appctl)
//! <- {"id":0,"result":" port  VLAN  MAC ...\n","error":null}
//! -> {"id":1,"method":"fdb/show","params":[{"bridge":"br0"}]} one object: the result is data (vsctl)
//! <- {"id":1,"result":[{"port":"p1","vlan":0,...}],"error":null}
//! <- {"id":null,"method":"frame","params":[{...}]}            a notice: not asked for one by one
//! ```
//!
//! Nothing here waits longer than it was told to, and nothing panics on what the other end says.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Request;

/// Octets of a request at most: the manifests of 250,000 endpoints fit, as text in JSON.
pub const REQUEST_LIMIT: usize = 96 << 20;
/// Octets of a reply at most, as a client sees it: a MAC table of a million rows fits.
pub const REPLY_LIMIT: usize = 256 << 20;
/// Objects and arrays within each other at most; the deepest sentence has six.
pub const NESTING_LIMIT: usize = 32;

/// Octets that are no sequence of JSON objects. What follows them cannot be understood: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// An object has not ended in time.
    #[error("message longer than {0} octets")]
    TooLong(usize),
    /// Brackets within brackets.
    #[error("message nested deeper than {NESTING_LIMIT} levels")]
    TooDeep,
    /// Something else than `{`.
    #[error("message is not a JSON object")]
    NotAnObject,
}

/// Cuts a stream of octets into JSON objects, whatever pieces it arrives in.
///
/// It counts brackets outside strings and does not check more: what it returns may still be no JSON.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    buffer: Vec<u8>,
    /// First octet of the message being read.
    start: usize,
    /// First octet not yet looked at; `start <= at <= buffer.len()`.
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    /// A splitter that holds at most `limit` octets of a message.
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), start: 0, at: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Append what was read. Call [`Self::next_object`] until it has no more before appending again: that is what
    /// bounds the memory.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 16 {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole object, if it is there.
    ///
    /// # Errors
    /// When the octets are no object or too much of one; every later call says the same or worse.
    pub fn next_object(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        while let Some(&byte) = self.buffer.get(self.at) {
            if self.depth == 0 {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => {
                        self.at += 1;
                        self.start = self.at;
                        continue;
                    }
                    b'{' => {}
                    _ => return Err(FramingError::NotAnObject),
                }
            }
            if self.at - self.start >= self.limit {
                return Err(FramingError::TooLong(self.limit));
            }
            self.at += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if self.depth == NESTING_LIMIT => return Err(FramingError::TooDeep),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.take()));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The message that ends where we are. A large one, which stands alone, is not copied.
    fn take(&mut self) -> Vec<u8> {
        if self.start == 0 && self.at == self.buffer.len() {
            self.at = 0;
            return std::mem::take(&mut self.buffer);
        }
        let object = self.buffer[self.start..self.at].to_vec();
        self.start = self.at;
        object
    }

    /// Octets held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// No octet of an unfinished message is held.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }
}

/// A request as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// What the reply shall carry.
    #[serde(default)]
    pub id: Value,
    /// What is asked.
    pub method: String,
    /// Words, or one object.
    #[serde(default)]
    pub params: Vec<Value>,
}

/// A reply as it stands on the wire: `error` is null when it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request.
    #[serde(default)]
    pub id: Value,
    /// What was asked for.
    #[serde(default)]
    pub result: Value,
    /// Why it was refused: one line.
    #[serde(default)]
    pub error: Value,
}

impl Reply {
    /// It was done.
    pub fn done(id: Value, result: Value) -> Self {
        Self { id, result, error: Value::Null }
    }

    /// It was refused. The text ends in a newline on the wire, as that of Open vSwitch does.
    pub fn refused(id: Value, why: &str) -> Self {
        Self { id, result: Value::Null, error: Value::String(format!("{why}\n")) }
    }
}

/// A message that is no reply: something that a standing request asked to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Always null (RFC 7047, 4).
    #[serde(default)]
    pub id: Value,
    /// What kind of thing happened.
    pub method: String,
    /// The thing.
    pub params: Vec<Value>,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("{path}: cannot connect ({why})")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        why: String,
    },
    /// No answer in time.
    #[error("no answer from the daemon within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The daemon said no; its own words.
    #[error("{0}")]
    Refused(String),
    /// The connection ended, or what came over it is no reply.
    #[error("connection to the daemon lost ({0})")]
    Lost(String),
}

/// What the system said, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The asking end of a control socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    splitter: Splitter,
    timeout: Option<Duration>,
    last_id: u64,
}

impl Client {
    /// Connect to the socket at `path`. No call takes longer than `timeout`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|e| ClientError::Connect { path: path.display().to_string(), why: reason(&e) })?;
        Ok(Self { stream, splitter: Splitter::new(REPLY_LIMIT), timeout, last_id: 0 })
    }

    /// Ask by a typed sentence; the result is data, which [`crate::reply`] types and prints.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn ask(&mut self, request: &Request) -> Result<Value, ClientError> {
        let (method, params) = request.to_wire();
        self.call(&method, vec![params])
    }

    /// Call a method and wait for its result.
    ///
    /// # Errors
    /// When it is refused, or the daemon does not answer.
    pub fn call(&mut self, method: &str, params: Vec<Value>) -> Result<Value, ClientError> {
        self.last_id += 1;
        let id = Value::from(self.last_id);
        let call = Call { id: id.clone(), method: method.to_owned(), params };
        let text = serde_json::to_vec(&call).map_err(|e| ClientError::Lost(e.to_string()))?;
        self.stream.set_write_timeout(self.timeout).map_err(|e| ClientError::Lost(reason(&e)))?;
        // A daemon that refuses a request may do so before it has read all of it: what it said is worth more than
        // our broken pipe.
        let written = self.stream.write_all(&text);
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let message = match (self.message(deadline), &written) {
                (Err(ClientError::Lost(_)), Err(e)) => return Err(self.lost(e)),
                (message, _) => message?,
            };
            let reply: Reply = serde_json::from_value(message).map_err(|e| ClientError::Lost(e.to_string()))?;
            if let Value::String(why) = reply.error {
                return Err(ClientError::Refused(why.trim_end().to_owned()));
            }
            if reply.id == id {
                return Ok(reply.result);
            }
        }
    }

    /// Wait for the next notice, however long it takes.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn notice(&mut self) -> Result<Notice, ClientError> {
        let message = self.message(None)?;
        serde_json::from_value(message).map_err(|e| ClientError::Lost(e.to_string()))
    }

    fn message(&mut self, deadline: Option<Instant>) -> Result<Value, ClientError> {
        let mut chunk = [0; 1 << 16];
        loop {
            if let Some(object) = self.splitter.next_object().map_err(|e| ClientError::Lost(e.to_string()))? {
                return serde_json::from_slice(&object).map_err(|e| ClientError::Lost(e.to_string()));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ClientError::Timeout(self.timeout.unwrap_or_default()));
            }
            self.stream.set_read_timeout(left).map_err(|e| ClientError::Lost(reason(&e)))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Lost("closed by the daemon".to_owned())),
                Ok(n) => self.splitter.push(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.lost(&e)),
            }
        }
    }

    fn lost(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout(self.timeout.unwrap_or_default())
            }
            _ => ClientError::Lost(reason(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(limit: usize, pieces: &[&[u8]]) -> Result<Vec<String>, FramingError> {
        let mut splitter = Splitter::new(limit);
        let mut objects = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            while let Some(object) = splitter.next_object()? {
                // What is between brackets need not be UTF-8: who reads the object as JSON will say so.
                objects.push(String::from_utf8_lossy(&object).into_owned());
            }
        }
        Ok(objects)
    }

    #[test]
    fn objects_are_found_without_anything_between_them() {
        let stream = br#" {"a":1}{"b":"}{\"]"}
            {"c":[{},{"d":"\\"}]}{"half":"#;
        let whole = split(100, &[stream]).unwrap();
        assert_eq!(whole, [r#"{"a":1}"#, r#"{"b":"}{\"]"}"#, r#"{"c":[{},{"d":"\\"}]}"#]);
        let octets: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(100, &octets).unwrap(), whole);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[1]", "hello", "}", "\0", "{} x"] {
            assert_eq!(split(100, &[text.as_bytes()]), Err(FramingError::NotAnObject), "{text}");
        }
    }

    #[test]
    fn an_endless_object_is_refused_at_the_limit() {
        assert_eq!(split(8, &[br#"{"a":12}"#]).unwrap().len(), 1);
        assert_eq!(split(8, &[br#"{"a":123}"#]), Err(FramingError::TooLong(8)));
        let mut splitter = Splitter::new(REQUEST_LIMIT);
        let (chunk, mut pushed) = ([b'"'; 4096], 0);
        splitter.push(b"{");
        while splitter.next_object().is_ok() {
            splitter.push(&chunk);
            pushed += chunk.len();
        }
        assert!(pushed <= REQUEST_LIMIT + chunk.len());
    }

    #[test]
    fn brackets_within_brackets_are_refused_at_the_limit() {
        let deep = |n| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(split(1000, &[deep(NESTING_LIMIT - 1).as_bytes()]).unwrap().len(), 1);
        assert_eq!(split(1000, &[deep(NESTING_LIMIT).as_bytes()]), Err(FramingError::TooDeep));
    }

    proptest! {
        #[test]
        fn octets_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), n in 1usize..20) {
            let _ = split(100, &bytes.chunks(n).collect::<Vec<_>>());
        }

        #[test]
        fn any_json_object_comes_out_as_it_went_in(text in ".{0,40}", key in ".{0,10}", n in 1usize..20) {
            let object = serde_json::json!({key: [text, {"x": null}]}).to_string();
            let pieces: Vec<&[u8]> = object.as_bytes().chunks(n).collect();
            prop_assert_eq!(split(10_000, &pieces).unwrap(), [object.clone()]);
        }
    }
}
