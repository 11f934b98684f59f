//! HTTP/1.1 as far as probes and scrapers speak it (RFC 9112): a question is a head without a body, an answer a head and a
//! body of known length. Octets in, octets out; no socket, no clock.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// Octets of a request's head at most. Probes send some hundred.
pub(super) const HEAD_LIMIT: usize = 8 << 10;
/// Fields of a request's head at most.
const FIELDS: usize = 64;
const METHODS: &str = "GET, HEAD";

/// A status code and its words (RFC 9110, 15).
pub(super) type Status = (u16, &'static str);
pub(super) const OK: Status = (200, "OK");
const BAD_REQUEST: Status = (400, "Bad Request");
pub(super) const NOT_FOUND: Status = (404, "Not Found");
const METHOD_NOT_ALLOWED: Status = (405, "Method Not Allowed");
const HEAD_TOO_LARGE: Status = (431, "Request Header Fields Too Large");
pub(super) const UNAVAILABLE: Status = (503, "Service Unavailable");
const VERSION: Status = (505, "HTTP Version Not Supported");

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// The path, without the query.
    pub(super) path: String,
    /// Media types that the client names, in lower case.
    pub(super) accept: String,
    /// The body of the answer is not wanted.
    pub(super) is_head: bool,
    /// Another question may follow on the same connection.
    pub(super) goes_on: bool,
}

/// What the octets of a connection begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a request.
    Incomplete,
    /// A request of so many octets.
    Request(Request, usize),
    /// Something that is answered with this, and nothing more.
    Refused(Response),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) body: Arc<str>,
}

impl Response {
    /// An answer of one kind of content, whose kind nobody shall guess at.
    pub(super) fn new(status: Status, content_type: &str, body: impl Into<Arc<str>>) -> Self {
        let fields = vec![("Content-Type", content_type.to_owned()), ("X-Content-Type-Options", "nosniff".to_owned())];
        Self { status, fields, body: body.into() }
    }

    /// An answer in words.
    pub(super) fn text(status: Status, body: impl Into<Arc<str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// An answer that says its status only.
    pub(super) fn bare(status: Status) -> Self {
        Self::text(status, format!("{}\n", status.1))
    }

    /// The same with another field.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.fields.push((name, value));
        self
    }

    /// All that goes in front of the body.
    pub(super) fn head(&self, goes_on: bool, now: Timestamp) -> Vec<u8> {
        let (code, words) = self.status;
        let mut head = format!("HTTP/1.1 {code} {words}\r\nContent-Length: {}\r\n", self.body.len());
        let mut field = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        self.fields.iter().for_each(|(name, value)| field(name, value));
        // Fails for years beyond 9999 only.
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
            field("Date", &date);
        }
        if !goes_on {
            field("Connection", "close");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// Read the head of a request.
pub(super) fn parse(octets: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let len = match head.parse(octets) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_LIMIT => len,
        Ok(httparse::Status::Partial) if octets.len() < HEAD_LIMIT => return Parsed::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(Response::bare(HEAD_TOO_LARGE)),
        Err(httparse::Error::Version) => return Parsed::Refused(Response::bare(VERSION)),
        Err(_) => return Parsed::Refused(Response::bare(BAD_REQUEST)),
    };
    let values = |name: &str| -> Vec<String> {
        let named = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase()).collect()
    };
    let is_1_1 = head.version == Some(1);
    // RFC 9112, 3.2: there is one in each request of HTTP/1.1.
    if values("host").len() > 1 || is_1_1 && values("host").is_empty() {
        return Parsed::Refused(Response::bare(BAD_REQUEST));
    }
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let refusal = Response::bare(METHOD_NOT_ALLOWED).with("Allow", METHODS.to_owned());
            return Parsed::Refused(refusal);
        }
    };
    let closes = values("connection").iter().flat_map(|list| list.split(',')).any(|word| word.trim() == "close");
    // Nobody reads a body: what follows the head would be taken for the next one.
    let has_body =
        !values("transfer-encoding").is_empty() || values("content-length").iter().any(|length| length != "0");
    let request = Request {
        path: path_of(head.path.unwrap_or_default()).to_owned(),
        accept: values("accept").join(","),
        is_head,
        goes_on: is_1_1 && !closes && !has_body,
    };
    Parsed::Request(request, len)
}

/// The path in a request's target, which may be a whole URI (RFC 9112, 3.2.2).
fn path_of(target: &str) -> &str {
    let local = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |at| rest.split_at(at).1),
        _ => target,
    };
    local.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(octets: &[u8]) -> Option<u16> {
        match parse(octets) {
            Parsed::Refused(response) => Some(response.status.0),
            Parsed::Incomplete | Parsed::Request(..) => None,
        }
    }

    #[test]
    fn a_request_is_its_path_and_whether_another_may_follow() {
        let rows: [(&str, &str, bool, bool); 9] = [
            ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "/healthz", false, true),
            ("HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n", "/livez", true, true),
            ("GET /metrics?name=x HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "/metrics", false, false),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, close\r\n\r\n", "/", false, false),
            ("GET / HTTP/1.0\r\n\r\n", "/", false, false),
            ("GET http://a:1/livez?x HTTP/1.1\r\nHost: a\r\n\r\n", "/livez", false, true),
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "/", false, true),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "/", false, false),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "/", false, true),
        ];
        for (text, path, is_head, goes_on) in rows {
            let Parsed::Request(request, len) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!((&*request.path, request.is_head, request.goes_on), (path, is_head, goes_on), "{text}");
            assert_eq!(len, text.find("\r\n\r\n").unwrap() + 4, "{text}");
            for shorter in 0..len {
                assert_eq!(parse(&text.as_bytes()[..shorter]), Parsed::Incomplete, "{shorter} octets of {text}");
            }
        }
    }

    #[test]
    fn what_is_no_request_is_refused_by_name() {
        let rows: [(&[u8], u16); 9] = [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
            (b"GET  HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"POST /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"\0", 400),
        ];
        for (octets, status) in rows {
            assert_eq!(status_of(octets), Some(status), "{}", octets.escape_ascii());
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        assert_eq!(status_of(many.as_bytes()), Some(431));
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(HEAD_LIMIT));
        assert_eq!(status_of(long.as_bytes()), Some(431));
        assert_eq!(status_of(&long.as_bytes()[..HEAD_LIMIT]), Some(431), "its end is not waited for");
    }

    #[test]
    fn an_answer_says_its_length_its_kind_and_when() {
        let answer = Response::text(OK, "yes").with("X-More", "1".to_owned());
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let common = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain; charset=utf-8\r\n\
            X-Content-Type-Options: nosniff\r\nX-More: 1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(String::from_utf8(answer.head(true, now)).unwrap(), format!("{common}\r\n"));
        assert_eq!(String::from_utf8(answer.head(false, now)).unwrap(), format!("{common}Connection: close\r\n\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_answered_or_waited_for(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse(&octets);
            let _ = parse(&[b"GET / HTTP/1.1\r\n", &octets[..]].concat());
        }
    }
}
