//! The control socket: one thread, many clients, requests in the order in which they come.
//!
//! No client can hold up another. Nothing is ever waited for: a client that sends half a request costs its buffer (at
//! most [`rpc::REQUEST_LIMIT`], and [`HELD`] with those of all others), one that does not read its answers is not read
//! from, and is closed when it takes nothing for [`SLOW`]. Turns are bounded too: after [`TURN`] requests the next client
//! has its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use api::reply::{self, Frame};
use api::rpc::{self, Call, Notice, Reply, Splitter};
use api::state::Captured;
use api::{Request, reason, verb};
use mio::net::{UnixListener, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::detached;
use crate::store::Store;
use crate::verbs::answer;
use crate::{Options, Refusal, Switch};

/// How long a client may leave its answers unread.
const SLOW: Duration = Duration::from_secs(30);
/// Requests of one client before it is another's turn.
const TURN: usize = 16;
/// Octets of one client before it is another's turn.
const TURN_OCTETS: usize = 1 << 20;
/// Clients at a time; who has been silent longest makes room for a new one.
const CLIENTS: usize = 256;
/// Octets of unfinished requests of all clients at most.
const HELD: usize = 256 << 20;
/// Octets of an unfinished request that every client may have, whatever others hold: who asks briefly is never refused.
const HELD_EACH: usize = 64 << 10;
/// Octets of frames on their way to a client at most; more wait with the switch, or are lost to the capture.
const CAPTURE_BACKLOG: usize = 1 << 20;
/// How often captures are looked at.
const CAPTURE_INTERVAL: Duration = Duration::from_millis(5);
/// How often the switch does its housekeeping.
const TICK: Duration = Duration::from_secs(1);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// The directory of manifests.
const MANIFESTS: Token = Token(2);
const FIRST_CLIENT: usize = 3;

/// Ends [`Control::run`] from another thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Let the loop end after the request it is at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Err(e) = self.waker.wake() {
            tracing::warn!("control loop cannot be woken: {}", reason(&e));
        }
    }
}

/// The control side of a switch: its configuration, and the socket at which it is asked.
#[derive(Debug)]
pub struct Control {
    store: Store,
    cluster: Cluster,
    version: String,
    path: PathBuf,
    poll: Poll,
    listener: UnixListener,
    stopper: Stopper,
    clients: BTreeMap<Token, Connection>,
    next_token: usize,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    splitter: Splitter,
    /// Answers, of which the first `sent` octets are gone.
    out: Vec<u8>,
    sent: usize,
    /// Nothing is read any more; closed when `out` is gone.
    closing: bool,
    capture: Option<Receiver<Captured>>,
    /// When it last sent or took something.
    last: Instant,
}

/// What a turn of a client came to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It has to send or take something first.
    Waits,
    /// It has more to say.
    More,
    /// It is through.
    Over,
}

impl Control {
    /// Restore what was configured and open the socket. From now on clients can connect; they are answered by
    /// [`Self::run`].
    ///
    /// # Errors
    /// When the state or the socket cannot be had: names the file and says what was done.
    pub fn open(options: &Options, switch: &mut dyn Switch) -> Result<Self, Refusal> {
        let mut store = Store::open(&options.state_dir, &options.version, &options.node, switch)?;
        let mut cluster = Cluster::open(&options.state_dir, options.cluster.as_deref())?;
        cluster.observe(store.addresses_of_pods());
        if let Err(why) = cluster.program(&mut store, switch) {
            tracing::warn!("cluster: not in force: {why}");
        }
        let refusal = |e: io::Error| Refusal(format!("{}: {}", options.socket.display(), reason(&e)));
        let mut listener = listen(&options.socket, options.socket_group).map_err(refusal)?;
        // Listening: from now on plugins find somebody to tell what they would note.
        let notes = options.state_dir.join("detach");
        for id in detached::noted(&notes) {
            let request = Request::Detach { id: id.clone() };
            match answer(&request, (&mut store, &mut cluster), switch, &options.version) {
                Ok(_) => detached::done(&notes, &id),
                Err(why) => tracing::warn!("{why}"),
            }
        }
        let poll = Poll::new().map_err(refusal)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(refusal)?;
        if let Some(manifests) = cluster.manifests() {
            let mut source = SourceFd(&manifests.descriptor());
            poll.registry().register(&mut source, MANIFESTS, Interest::READABLE).map_err(refusal)?;
        }
        switch.restored();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(refusal)?);
        Ok(Self {
            store,
            cluster,
            version: options.version.clone(),
            path: options.socket.clone(),
            poll,
            listener,
            stopper: Stopper { stop: Arc::default(), waker },
            clients: BTreeMap::new(),
            next_token: FIRST_CLIENT,
        })
    }

    /// What ends [`Self::run`].
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Answer requests until stopped; then remove the socket.
    ///
    /// # Errors
    /// When the system's polling fails, which it does not.
    pub fn run(&mut self, switch: &mut dyn Switch) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        // Clients that had more to say when their turn was over.
        let mut ready = BTreeSet::new();
        let mut next_tick = Instant::now() + TICK;
        while !self.stopper.stop.load(Ordering::Acquire) {
            let next_look = self.cluster.manifests().map(|manifests| manifests.next());
            let wakes = next_look.map_or(next_tick, |look| look.min(next_tick));
            let timeout = match () {
                () if !ready.is_empty() => Duration::ZERO,
                () if self.clients.values().any(|client| client.capture.is_some()) => CAPTURE_INTERVAL,
                () => wakes.saturating_duration_since(Instant::now()),
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let mut accept = false;
            for event in &events {
                match event.token() {
                    LISTENER => accept = true,
                    WAKER => {}
                    MANIFESTS => self.cluster.manifests().into_iter().for_each(|manifests| manifests.notice()),
                    client => drop(ready.insert(client)),
                }
            }
            let captures = self.clients.iter().filter(|(_, client)| client.capture.is_some());
            ready.extend(captures.map(|(token, _)| *token));
            for token in std::mem::take(&mut ready) {
                match self.turn(token, switch) {
                    Turn::Waits => {}
                    Turn::More => drop(ready.insert(token)),
                    Turn::Over => self.close(token),
                }
            }
            if accept {
                self.accept(&mut ready);
            }
            if self.cluster.manifests().is_some_and(|manifests| Instant::now() >= manifests.next()) {
                self.cluster.read_manifests();
                if let Err(why) = self.cluster.program(&mut self.store, switch) {
                    tracing::warn!("cluster: not in force: {why}");
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.close_slow();
                self.store.retry(switch);
                switch.tick();
            }
        }
        let _ = fs::remove_file(&self.path);
        Ok(())
    }

    fn accept(&mut self, ready: &mut BTreeSet<Token>) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    // Out of descriptors, most likely: the readiness would not come again, so make room and go on.
                    tracing::warn!("{}: cannot accept: {}", self.path.display(), reason(&e));
                    if !self.close_longest_silent() {
                        return;
                    }
                    continue;
                }
            };
            if self.clients.len() >= CLIENTS {
                self.close_longest_silent();
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            if self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                let connection = Connection {
                    stream,
                    splitter: Splitter::new(rpc::REQUEST_LIMIT),
                    out: Vec::new(),
                    sent: 0,
                    closing: false,
                    capture: None,
                    last: Instant::now(),
                };
                self.clients.insert(token, connection);
                ready.insert(token);
            }
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = self.poll.registry().deregister(&mut client.stream);
        }
    }

    fn close_longest_silent(&mut self) -> bool {
        let silent = self.clients.iter().min_by_key(|(_, client)| client.last).map(|(token, _)| *token);
        silent.map(|token| self.close(token)).is_some()
    }

    fn close_slow(&mut self) {
        let slow = |client: &Connection| client.sent < client.out.len() && client.last.elapsed() > SLOW;
        let slow: Vec<_> = self.clients.iter().filter(|(_, c)| slow(c)).map(|(token, _)| *token).collect();
        for token in slow {
            tracing::warn!("{}: a client does not read its answers: closed", self.path.display());
            self.close(token);
        }
    }

    /// Let a client say and take what it can without waiting.
    fn turn(&mut self, token: Token, switch: &mut dyn Switch) -> Turn {
        let others = self.clients.iter().filter(|(other, _)| **other != token);
        let held_by_others: usize = others.map(|(_, client)| client.splitter.held()).sum();
        let Some(client) = self.clients.get_mut(&token) else { return Turn::Waits };
        // Batches of frames count as requests.
        let (mut requests, mut octets) = (0, 0);
        loop {
            match client.flush() {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Over,
            }
            if client.closing {
                return Turn::Over;
            }
            if requests == TURN || octets >= TURN_OCTETS {
                return Turn::More;
            }
            if client.tell_frames() {
                requests += 1;
                continue;
            }
            match client.splitter.next_object() {
                Ok(Some(object)) => {
                    requests += 1;
                    client.capture = None;
                    let (reply, capture) = serve(&object, (&mut self.store, &mut self.cluster), switch, &self.version);
                    client.closing = reply.id.is_null() && !reply.error.is_null();
                    client.capture = capture;
                    client.say(&reply);
                }
                Ok(None) if held_by_others + client.splitter.held() > HELD && client.splitter.held() > HELD_EACH => {
                    let why = format!("request: with those of other clients more than {HELD} octets: try again later");
                    client.refuse(&why);
                }
                Ok(None) => match client.read() {
                    Ok(0) => return Turn::Over,
                    Ok(read) => octets += read,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Turn::Waits,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Turn::Over,
                },
                Err(e) => client.refuse(&format!("request: {e}")),
            }
        }
    }
}

impl Connection {
    /// Read some, to the splitter. Zero is the end.
    fn read(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 1 << 14];
        let n = self.stream.read(&mut chunk)?;
        self.splitter.push(&chunk[..n]);
        self.last = Instant::now();
        Ok(n)
    }

    /// Say why nothing of this client is understood any more, and forget what it sent.
    fn refuse(&mut self, why: &str) {
        self.say(&Reply::refused(Value::Null, why));
        self.splitter = Splitter::new(rpc::REQUEST_LIMIT);
        self.closing = true;
    }

    /// Append a message to what goes out.
    fn say(&mut self, message: &impl serde::Serialize) {
        // The time for a slow reader counts from here.
        self.last = Instant::now();
        if let Err(e) = serde_json::to_writer(&mut self.out, message) {
            tracing::error!("an answer cannot be written: {e}");
            self.closing = true;
        }
    }

    /// Send what goes out. Returns whether all of it is gone.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.last = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out = Vec::new();
        self.sent = 0;
        Ok(true)
    }

    /// Append frames that were captured to what goes out. Returns whether there were any.
    fn tell_frames(&mut self) -> bool {
        let mut told = false;
        while self.out.len() < CAPTURE_BACKLOG
            && let Some(frames) = &self.capture
        {
            match frames.try_recv() {
                Ok(captured) => {
                    let frame = serde_json::to_value(Frame::new(&captured)).unwrap_or_default();
                    self.say(&Notice { id: Value::Null, method: "frame".to_owned(), params: vec![frame] });
                    told = true;
                }
                Err(TryRecvError::Empty) => break,
                // The port is gone, and with it the reason for this connection.
                Err(TryRecvError::Disconnected) => {
                    self.capture = None;
                    self.closing = true;
                    return true;
                }
            }
        }
        told
    }
}

/// Answer one request.
fn serve(
    object: &[u8],
    sides: (&mut Store, &mut Cluster),
    switch: &mut dyn Switch,
    version: &str,
) -> (Reply, Option<Receiver<Captured>>) {
    let call: Call = match serde_json::from_slice(object) {
        Ok(call) => call,
        Err(e) => return (Reply::refused(Value::Null, &format!("request: not understood: {e}")), None),
    };
    let Call { id, method, mut params } = call;
    // Words are answered in text, an object in data.
    let words: Option<Vec<&str>> = params.iter().map(Value::as_str).collect();
    let request = match (words, params.len()) {
        (Some(words), _) => verb::parse(&[&[method.as_str()], &words[..]].concat()).map(|request| (request, true)),
        (None, 1) => Request::from_wire(&method, params.remove(0)).map(|request| (request, false)),
        (None, _) => Err(format!("{method}: params are words, or one object")),
    };
    let answered = request.and_then(|(request, as_text)| {
        let answer = answer(&request, sides, switch, version).map_err(|refusal| refusal.0)?;
        let data = if as_text { Value::String(reply::text(&request, answer.data)?) } else { answer.data };
        Ok((data, answer.capture))
    });
    // An error that is one line stays one line, whatever names it quotes.
    match answered {
        Ok((data, capture)) => (Reply::done(id, data), capture),
        Err(why) => (Reply::refused(id, &why.replace(['\n', '\r'], " ")), None),
    }
}

/// A socket at `path` that only its owner, and a group if one is given, may connect to.
fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    use rustix::fs::{Gid, Mode, chmod, chown, fchmod};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    if Probe::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers here"));
    }
    // What is left of a daemon that was killed. Anything but a socket is not ours to remove: bind will say so.
    if fs::symlink_metadata(path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type())) {
        fs::remove_file(path)?;
    }
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode that the socket has at bind(2): there is no moment at which others may connect.
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &address)?;
    listen(&socket, 128)?;
    if let Some(group) = group {
        chown(path, None, Some(Gid::from_raw(group)))?;
        chmod(path, Mode::from_raw_mode(0o660))?;
    }
    Ok(UnixListener::from_std(std::os::unix::net::UnixListener::from(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeSwitch;

    #[test]
    fn a_client_that_reads_no_answer_is_closed_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            socket: directory.path().join("ctl.sock"),
            socket_group: None,
            state_dir: directory.path().join("state"),
            cluster: None,
            version: String::new(),
            node: Default::default(),
        };
        let mut control = Control::open(&options, &mut FakeSwitch::default()).unwrap();
        let _client = Probe::connect(&options.socket).unwrap();
        let _silent = Probe::connect(&options.socket).unwrap();
        control.accept(&mut BTreeSet::new());
        let long_ago = Instant::now().checked_sub(SLOW * 2).unwrap();
        let (first, second) = (Token(FIRST_CLIENT), Token(FIRST_CLIENT + 1));
        let reader = control.clients.get_mut(&first).unwrap();
        reader.out = vec![b' '; 16 << 20];
        assert!(!reader.flush().unwrap(), "the kernel does not take 16 MiB");
        control.close_slow();
        assert_eq!(control.clients.len(), 2, "it still has time");
        control.clients.values_mut().for_each(|client| client.last = long_ago);
        control.close_slow();
        assert!(!control.clients.contains_key(&first));
        assert!(control.clients.contains_key(&second), "who has nothing to read may be silent");
    }
}
