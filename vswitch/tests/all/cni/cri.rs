//! A client of the Container Runtime Interface (`cri-api/pkg/apis/runtime/v1/api.proto`): gRPC over HTTP/2 (RFC 9113) on a
//! Unix socket, as much of it as one call on a connection of its own needs.
//!
//! Headers are sent as literals (RFC 7541, 6.2.2) and those that come are not looked at: a call that was done has a message
//! in its answer, one that was refused has none.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A runtime may have to start a process, and to run our plugin, before it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Types of frames (RFC 9113, 6) and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A message of protocol buffers being written: fields by number.
#[derive(Clone, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn number(mut self, field: u8, number: u64) -> Self {
        self.0.push(field << 3);
        varint(&mut self.0, number);
        self
    }

    pub(crate) fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn texts(self, field: u8, texts: &[&str]) -> Self {
        texts.iter().fold(self, |message, text| message.text(field, text))
    }

    pub(crate) fn message(self, field: u8, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u8, bytes: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What a message has in a field: what is of variable length (text, messages) as it is, numbers as their octets.
pub(crate) fn field(message: &[u8], wanted: u64) -> Vec<u8> {
    let (mut at, mut found) = (0, Vec::new());
    let varint = |at: &mut usize| {
        let (mut number, mut shift) = (0, 0);
        while let Some(&octet) = message.get(*at) {
            *at += 1;
            number |= u64::from(octet & 0x7f) << shift;
            shift += 7;
            if octet < 0x80 {
                break;
            }
        }
        number
    };
    while at < message.len() {
        let key = varint(&mut at);
        let value = match key & 7 {
            0 => varint(&mut at).to_be_bytes().to_vec(),
            1 => take(message, &mut at, 8),
            5 => take(message, &mut at, 4),
            _ => {
                let len = varint(&mut at) as usize;
                take(message, &mut at, len)
            }
        };
        if key >> 3 == wanted {
            found = value;
        }
    }
    found
}

fn take(message: &[u8], at: &mut usize, len: usize) -> Vec<u8> {
    let taken = message[*at..(*at + len).min(message.len())].to_vec();
    *at += len;
    taken
}

/// The text of a field.
pub(crate) fn text(message: &[u8], wanted: u64) -> String {
    String::from_utf8(field(message, wanted)).unwrap()
}

/// The runtime service behind a socket.
pub(crate) struct Runtime(PathBuf);

impl Runtime {
    pub(crate) fn at(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Call a method; `None` when it was refused.
    pub(crate) fn call(&self, method: &str, request: &Message) -> Option<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.0).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, SETTINGS, 0, 0, &[]);
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let mut headers = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // Never longer than a length of seven bits says.
            headers.extend([0, name.len() as u8]);
            headers.extend(name.as_bytes());
            headers.push(value.len() as u8);
            headers.extend(value.as_bytes());
        }
        frame(&mut out, HEADERS, END_HEADERS, 1, &headers);
        let mut body = vec![0];
        body.extend((request.0.len() as u32).to_be_bytes());
        body.extend(&request.0);
        frame(&mut out, DATA, END_STREAM, 1, &body);
        stream.write_all(&out).unwrap();
        let body = answer(&mut stream);
        // One message, not compressed, its length before it.
        body.get(5..).map(<[u8]>::to_vec)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// The data of our stream, to its end.
fn answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("the runtime answers");
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        let mut out = Vec::new();
        match kind {
            DATA => {
                body.extend(&payload);
                for id in [0, 1] {
                    frame(&mut out, WINDOW_UPDATE, 0, id, &(payload.len().max(1) as u32).to_be_bytes());
                }
            }
            SETTINGS if flags & ACK == 0 => frame(&mut out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut out, PING, ACK, 0, &payload),
            RST_STREAM | GOAWAY => return body,
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return body;
        }
        // Who has said all may be gone.
        let _ = stream.write_all(&out);
    }
}
