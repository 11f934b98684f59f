//! TCP and UDP between two hosts, seen from both ends.
//!
//! Every probe compares what one end's socket received with what the other end's socket sent: peer address, octets,
//! and a hash of all octets in order. All traffic runs on threads that end by themselves: each socket has a time limit.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::claim::Probe;
use crate::host::{Host, PATIENCE};

/// A datagram's echo has to come back within this time: nobody sends it again.
const ECHO: Duration = Duration::from_millis(700);
/// No octet of a transfer for this time: it has failed. Longer than any outage that a lab makes.
const STALL: Duration = Duration::from_secs(10);
/// What a transfer hands to its socket at a time.
const BLOCK: usize = 64 * 1024;

/// Any address of the family of `like`: the listening end must not need the address whose absence a control tests.
fn any(like: SocketAddr) -> SocketAddr {
    let ip = if like.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, like.port())
}

/// Send datagrams of several sizes (the last in fragments) to an echo server and compare what comes back.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn udp_echo(from: &Host, to: &Host, address: SocketAddr) -> anyhow::Result<Probe> {
    udp_echo_of(from, to, address, &[1, 18, 1472, 4000])
}

/// Send datagrams of these sizes to an echo server and compare what comes back.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn udp_echo_of(from: &Host, to: &Host, address: SocketAddr, sizes: &[usize]) -> anyhow::Result<Probe> {
    let server = to.udp(any(address))?;
    server.set_read_timeout(Some(Duration::from_millis(50)))?;
    let client = from.udp(any(SocketAddr::new(address.ip(), 0)))?;
    client.set_read_timeout(Some(ECHO))?;
    let done = Stop::default();
    let sign = done.sign();
    let echo = std::thread::spawn(move || echo_server(&server, &sign));
    let mut buffer = vec![0; BLOCK];
    let (mut sent, mut answered) = (Hash::default(), 0);
    for &size in sizes {
        let datagram: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        sent.add(&datagram);
        match client.send_to(&datagram, address) {
            Ok(_) => {}
            Err(error) if is_answer_of_network(&error) => break,
            Err(error) => return Err(error).context("send a datagram"),
        }
        match client.recv_from(&mut buffer) {
            Ok((bytes, peer)) if peer == address && buffer[..bytes] == datagram => answered += 1,
            Ok(_) | Err(_) => break,
        }
    }
    done.now();
    let received = echo.join().map_err(|_| anyhow::anyhow!("the echo server panicked"))??;
    let (near, far) = (from.name(), to.name());
    let datagrams = sizes.len();
    Ok(match received.peer {
        Some(peer) if answered == datagrams && received.hash == sent => Probe::Arrived(format!(
            "{far} received {datagrams} datagrams, {} octets, hash {} from {peer}; {near} received the same back from {address}",
            sent.octets, sent
        )),
        _ => Probe::Silent(format!(
            "{far} received {} octets, {near} {answered} of {datagrams} echoes, within {} ms",
            received.hash.octets,
            ECHO.as_millis()
        )),
    })
}

/// What one end of a probe received.
#[derive(Debug, Default)]
struct Received {
    peer: Option<SocketAddr>,
    hash: Hash,
}

fn echo_server(socket: &UdpSocket, done: &AtomicBool) -> io::Result<Received> {
    let mut received = Received::default();
    let mut buffer = vec![0; BLOCK];
    while !done.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((bytes, peer)) => {
                received.hash.add(&buffer[..bytes]);
                received.peer = Some(peer);
                socket.send_to(&buffer[..bytes], peer)?;
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(received)
}

/// How closely a transfer looks at its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Both ends hash all of them.
    Hash,
    /// Both ends count them: for figures, which the hashing would spoil.
    Count,
}

/// A TCP transfer that runs until it is told to end.
#[derive(Debug)]
pub struct Transfer {
    names: (&'static str, &'static str),
    stop: Stop,
    progress: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<Hash>>,
    receiver: JoinHandle<io::Result<(Received, Duration)>>,
}

/// A connection on which nothing was sent yet.
#[derive(Debug)]
pub struct Connected {
    names: (&'static str, &'static str),
    client: TcpStream,
    server: TcpStream,
    peer: SocketAddr,
}

impl Connected {
    /// Connect from `from` to `to`. `None` if the connection is not made.
    ///
    /// # Errors
    /// When the hosts' sockets fail.
    pub fn open(from: &Host, to: &Host, address: SocketAddr) -> anyhow::Result<Option<Self>> {
        let listener = to.listen(any(address))?;
        let client = match from.connect(address, PATIENCE) {
            Ok(client) => client,
            Err(error) if is_answer_of_network(&error) => return Ok(None),
            Err(error) => return Err(error).context("connect"),
        };
        // Our side of the handshake is done; its last segment may still be on the way.
        listener.set_nonblocking(true)?;
        let mut accepted = None;
        wait_until(PATIENCE, || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let Some((server, peer)) = accepted else { return Ok(None) };
        server.set_nonblocking(false)?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(STALL))?;
            stream.set_write_timeout(Some(STALL))?;
        }
        Ok(Some(Self { names: (from.name(), to.name()), client, server, peer }))
    }

    /// Send.
    pub fn begin(self, check: Check) -> Transfer {
        let Self { names, client, server, peer } = self;
        let (stop, progress) = (Stop::default(), Arc::new(AtomicU64::new(0)));
        let sender = {
            let stop = stop.sign();
            std::thread::spawn(move || send(client, &stop, check))
        };
        let receiver = {
            let progress = Arc::clone(&progress);
            std::thread::spawn(move || receive(server, peer, &progress, check))
        };
        Transfer { names, stop, progress, sender, receiver }
    }
}

impl Transfer {
    /// Connect from `from` to `to` and begin. `None` if the connection is not made.
    ///
    /// # Errors
    /// When the hosts' sockets fail.
    pub fn start(from: &Host, to: &Host, address: SocketAddr, check: Check) -> anyhow::Result<Option<Self>> {
        Ok(Connected::open(from, to, address)?.map(|connected| connected.begin(check)))
    }

    /// Octets that the other end's socket received so far.
    pub fn received(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Wait until more octets arrive; false if none do within `limit`.
    pub fn moves(&self, limit: Duration) -> bool {
        let before = self.received();
        wait_until(limit, || self.received() > before)
    }

    /// End the transfer: everything sent must have arrived. The rate is that of the receiving end, in Gbit/s.
    ///
    /// # Errors
    /// When a thread of the transfer panicked.
    pub fn finish(self) -> anyhow::Result<(Probe, f64)> {
        self.stop.now();
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let received = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let (near, far) = self.names;
        Ok(match (sent, received) {
            (Ok(sent), Ok((received, took))) if received.hash == sent => {
                let peer = received.peer.map(|peer| peer.to_string()).unwrap_or_default();
                let rate = sent.octets as f64 * 8.0 / took.as_secs_f64().max(1e-9) / 1e9;
                (
                    Probe::Arrived(format!("{far} received {} octets, hash {sent} from {peer}, as sent", sent.octets)),
                    rate,
                )
            }
            (Ok(sent), Ok((received, _))) => {
                let received = received.hash;
                let text = format!(
                    "{far} received {} octets, hash {received}; sent {}, hash {sent}",
                    received.octets, sent.octets
                );
                (Probe::Silent(text), 0.0)
            }
            (Err(error), _) => (Probe::Silent(format!("{near} could not send: {error}")), 0.0),
            (_, Err(error)) => (Probe::Silent(format!("{far} could not receive: {error}")), 0.0),
        })
    }
}

/// Run a transfer for `time`.
///
/// # Errors
/// As [`Transfer::start`] and [`Transfer::finish`].
pub fn transfer(
    from: &Host,
    to: &Host,
    address: SocketAddr,
    check: Check,
    time: Duration,
) -> anyhow::Result<(Probe, f64)> {
    let Some(transfer) = Transfer::start(from, to, address, check)? else {
        return Ok((Probe::Silent(format!("no connection to {address} within {} ms", PATIENCE.as_millis())), 0.0));
    };
    std::thread::sleep(time);
    transfer.finish()
}

fn send(mut stream: TcpStream, stop: &AtomicBool, check: Check) -> io::Result<Hash> {
    let content = content();
    let mut sent = Hash::default();
    for number in 0_usize.. {
        let from = number * 4096 % (content.len() - BLOCK);
        let block = &content[from..from + BLOCK];
        stream.write_all(block)?;
        sent.account(block, check);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(
    mut stream: TcpStream,
    peer: SocketAddr,
    progress: &AtomicU64,
    check: Check,
) -> io::Result<(Received, Duration)> {
    let mut received = Received { peer: Some(peer), ..Received::default() };
    let mut block = vec![0; BLOCK];
    let began = Instant::now();
    loop {
        // Whole blocks, so that both ends hash the same pieces.
        let mut filled = 0;
        while filled < BLOCK {
            match stream.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            progress.store(received.hash.octets + filled as u64, Ordering::Relaxed);
        }
        if filled > 0 {
            received.hash.account(&block[..filled], check);
        }
        if filled < BLOCK {
            return Ok((received, began.elapsed()));
        }
    }
}

/// A megabyte that repeats nowhere, from a generator with a fixed seed (splitmix64).
pub(crate) fn content() -> Vec<u8> {
    let mut state = 0x5eed_u64;
    let words = (0..(1 << 20) / 8).map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// A stream of numbered datagrams, one a millisecond, that goes on whatever happens to its ports.
#[derive(Debug)]
pub struct Stream {
    stop: Stop,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Begin to send from `from` to `to`.
    ///
    /// # Errors
    /// When the hosts' sockets fail.
    pub fn start(from: &Host, to: &Host, address: SocketAddr) -> anyhow::Result<Self> {
        let server = to.udp(any(address))?;
        server.set_read_timeout(Some(Duration::from_millis(50)))?;
        let client = from.udp(any(SocketAddr::new(address.ip(), 0)))?;
        let (stop, received) = (Stop::default(), Arc::new(AtomicU64::new(0)));
        let sign = stop.sign();
        let sender = std::thread::spawn(move || {
            for number in 0_u64.. {
                if sign.load(Ordering::Relaxed) {
                    break;
                }
                // A missing route or neighbour is what the lab makes on purpose.
                let _ = client.send_to(&number.to_be_bytes(), address);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (sign, count) = (stop.sign(), Arc::clone(&received));
        let receiver = std::thread::spawn(move || {
            let mut number = [0; 8];
            while !sign.load(Ordering::Relaxed) {
                if server.recv_from(&mut number).is_ok_and(|(bytes, _)| bytes == number.len()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { stop, received, threads: vec![sender, receiver] })
    }

    /// Datagrams that the other end's socket received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Wait until `more` datagrams arrived.
    pub fn probe(&self, more: u64, limit: Duration) -> Probe {
        let (before, began) = (self.received(), Instant::now());
        wait_until(limit, || self.received() >= before + more);
        let (arrived, took) = (self.received() - before, began.elapsed().as_millis());
        let text = format!("{arrived} numbered datagrams received within {took} ms");
        if arrived >= more { Probe::Arrived(text) } else { Probe::Silent(text) }
    }
}

impl Drop for Stream {
    /// Waits for the threads, so that the port is free again: they look at the sign every 50 ms.
    fn drop(&mut self) {
        self.stop.now();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Tells threads to end, at the latest when it is dropped.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    /// For a thread to look at.
    fn sign(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.now();
    }
}

/// Look every millisecond whether something came true.
pub fn wait_until(limit: Duration, mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// The network, not the socket, is why nothing got through.
fn is_answer_of_network(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    is_timeout(error) || matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

/// Octets in order: how many, and a hash of them. Both ends add the same pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash {
    /// How many.
    pub(crate) octets: u64,
    state: u64,
}

impl Hash {
    fn account(&mut self, bytes: &[u8], check: Check) {
        match check {
            Check::Hash => self.add(bytes),
            Check::Count => self.octets += bytes.len() as u64,
        }
    }

    /// Four words at a time, so that the multiplications overlap: a gigabyte takes a fraction of a second.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        const K: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |state: u64, word: u64| (state ^ word).wrapping_mul(K).rotate_left(29);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
        let mut lanes = [self.state, 1, 2, 3];
        let (words, rest) = bytes.as_chunks::<8>();
        let (rows, tail) = words.as_chunks::<4>();
        for row in rows {
            for (lane, octets) in lanes.iter_mut().zip(row) {
                *lane = mix(*lane, u64::from_le_bytes(*octets));
            }
        }
        let tail = tail.iter().map(|octets| u64::from_le_bytes(*octets)).chain([word(rest), bytes.len() as u64]);
        self.state = lanes.into_iter().chain(tail).fold(K, mix);
        self.octets += bytes.len() as u64;
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(pieces: &[&[u8]]) -> Hash {
        let mut hash = Hash::default();
        for piece in pieces {
            hash.add(piece);
        }
        hash
    }

    #[test]
    fn one_changed_octet_anywhere_changes_the_hash() {
        let bytes: Vec<u8> = content()[..1003].to_vec();
        let right = hash(&[&bytes]);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            assert_ne!(hash(&[&wrong]), right, "octet {at}");
        }
    }

    #[test]
    fn the_order_of_pieces_is_hashed() {
        assert_ne!(hash(&[b"first", b"second"]), hash(&[b"second", b"first"]));
        assert_ne!(hash(&[b"", b"x"]), hash(&[b"x"]));
    }

    #[test]
    fn the_content_of_a_transfer_differs_in_every_block() {
        let content = content();
        assert_eq!(content.len(), 1 << 20);
        let mut blocks: Vec<&[u8]> = content.chunks(4096).collect();
        blocks.sort_unstable();
        assert!(blocks.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
