//! Who answers, and whom does it see? A server that says its host's name and its peer's address.
//!
//! It is there where an address on the way may be translated: only the far end's socket knows what arrived. What is asked
//! over TCP or UDP is answered `NAME PEER`; a TCP connection can ask as often as it likes, and is told by the same host
//! as long as it lives.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, recv, send, socket};

use crate::claim::Probe;
use crate::host::{Host, PATIENCE};

/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The transport of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Tcp { "TCP" } else { "UDP" })
    }
}

/// Both transports.
pub const BOTH: [Over; 2] = [Over::Tcp, Over::Udp];

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A greeter answered: the name of its host, and whom it saw.
    Answer(String, SocketAddr),
    /// The network, or the host, said no; how soon.
    Refused(Duration),
    /// Neither; what there was instead.
    Silence(String),
}

impl Outcome {
    /// It arrived when `who` answered, and saw this address.
    pub fn from(self, who: &Host, address: IpAddr) -> Probe {
        self.by(who.name(), address)
    }

    /// It arrived when the greeter of this name answered, and saw this address.
    pub fn by(self, name: &str, address: IpAddr) -> Probe {
        match self {
            Self::Answer(who, peer) if who == name && peer.ip() == address => {
                Probe::Arrived(format!("{who} saw {peer}"))
            }
            other => Probe::Silent(other.to_string()),
        }
    }

    /// It arrived when anybody answered.
    pub fn any(self) -> Probe {
        match self {
            Self::Answer(..) => Probe::Arrived(self.to_string()),
            _ => Probe::Silent(self.to_string()),
        }
    }

    /// It arrived when it was refused.
    pub fn refused(self) -> Probe {
        match self {
            Self::Refused(_) => Probe::Arrived(self.to_string()),
            _ => Probe::Silent(self.to_string()),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(name, peer) => write!(f, "{name} saw {peer}"),
            Self::Refused(after) => write!(f, "refused after {:.1} ms", after.as_secs_f64() * 1e3),
            Self::Silence(text) => f.write_str(text),
        }
    }
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct Greeter {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Greeter {
    /// Answer TCP and UDP at `port` of all addresses of the host.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, port: u16) -> anyhow::Result<Self> {
        Self::called(host.name(), host, port)
    }

    /// As [`Self::start`], under a name of its own: one of several at a host.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn called(name: &'static str, host: &Host, port: u16) -> anyhow::Result<Self> {
        Self::open(name, host, &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)], port)
    }

    /// Answer TCP and UDP at `port` of these addresses: where a host has several, its answer to a datagram need not come
    /// from the one that was asked.
    ///
    /// # Errors
    /// When the port is taken, or the host has not the address.
    pub fn at(host: &Host, addresses: &[IpAddr], port: u16) -> anyhow::Result<Self> {
        Self::open(host.name(), host, addresses, port)
    }

    fn open(name: &'static str, host: &Host, addresses: &[IpAddr], port: u16) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses {
            let at = SocketAddr::new(*address, port);
            let (udp, tcp) = (open(host, at, SocketType::DGRAM)?, open(host, at, SocketType::STREAM)?);
            rustix::net::listen(&tcp, 128).with_context(|| format!("host {name}: listen at {at}"))?;
            let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
            udp.set_read_timeout(Some(LOOK))?;
            // A time limit to receive is one to accept, too.
            set_socket_timeout(&tcp, Timeout::Recv, Some(LOOK))?;
            let sign = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || answer_datagrams(name, &udp, &sign)));
            let sign = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || answer_connections(name, &tcp, &sign)));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A bound socket. That of IPv6 leaves IPv4 to the other.
fn open(host: &Host, at: SocketAddr, kind: SocketType) -> anyhow::Result<OwnedFd> {
    host.inside(|| {
        let socket = unbound(at, kind)?;
        if at.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, &at)?;
        Ok(socket)
    })
    .with_context(|| format!("host {}: greeter at {at}", host.name()))
}

fn unbound(like: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if like.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, kind, None)?;
    // Connections of the last lab may linger.
    set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

fn answer_datagrams(name: &str, socket: &UdpSocket, stop: &AtomicBool) {
    let mut question = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        // An error is that of an earlier answer, whose receiver is gone.
        if let Ok((_, peer)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(format!("{name} {peer}\n").as_bytes(), peer);
        }
    }
}

fn answer_connections(name: &'static str, listener: &TcpListener, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, peer)) = listener.accept() {
            let sign = Arc::clone(stop);
            std::thread::spawn(move || answer_questions(name, stream, peer, &sign));
        }
    }
}

/// Until the peer has no more, or the server ends.
fn answer_questions(name: &str, mut stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) {
    let Ok(()) = stream.set_read_timeout(Some(LOOK)) else { return };
    let mut question = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        match std::io::Read::read(&mut stream, &mut question) {
            Ok(0) => return,
            Ok(_) if stream.write_all(format!("{name} {peer}\n").as_bytes()).is_ok() => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// A TCP connection, or a UDP socket, to a greeter.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    began: Instant,
}

impl Line {
    /// Connect, from `port` or, if that is 0, from any. What became of it otherwise is in the inner error.
    ///
    /// # Errors
    /// When the host's socket fails; refusal and silence are an outcome.
    pub fn open(from: &Host, over: Over, port: u16, to: SocketAddr) -> anyhow::Result<Result<Self, Outcome>> {
        let kind = if over == Over::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = from.inside(|| {
            let socket = unbound(to, kind)?;
            if port != 0 {
                bind(&socket, &SocketAddr::new(any, port))?;
            }
            for which in [Timeout::Send, Timeout::Recv] {
                set_socket_timeout(&socket, which, Some(PATIENCE))?;
            }
            Ok(socket)
        });
        let socket = socket.with_context(|| format!("host {}: socket from port {port}", from.name()))?;
        let began = Instant::now();
        match connect(&socket, &to) {
            Ok(()) => Ok(Ok(Self { socket, began })),
            Err(error) => Ok(Err(outcome(error, began).with_context(|| format!("{}: connect to {to}", from.name()))?)),
        }
    }

    /// Ask, and wait for the answer.
    ///
    /// # Errors
    /// When the socket fails, or something else than a greeter answers.
    pub fn ask(&mut self) -> anyhow::Result<Outcome> {
        if let Err(error) = send(&self.socket, b"?\n", SendFlags::NOSIGNAL) {
            return outcome(error, self.began);
        }
        let mut answer = [0; 128];
        match recv(self.socket.as_fd(), &mut answer[..], RecvFlags::empty()) {
            Ok((0, _)) => Ok(Outcome::Silence("closed without an answer".to_owned())),
            Ok((octets, _)) => read(&answer[..octets]).context("answer of a greeter"),
            Err(error) => outcome(error, self.began),
        }
    }
}

/// Ask once.
///
/// # Errors
/// When the host's socket fails; refusal and silence are an outcome.
pub fn ask(from: &Host, over: Over, to: SocketAddr) -> anyhow::Result<Outcome> {
    let outcome = match Line::open(from, over, 0, to)? {
        Ok(mut line) => line.ask()?,
        Err(outcome) => outcome,
    };
    Ok(match outcome {
        Outcome::Silence(text) => Outcome::Silence(format!("{over} {to}: {text}")),
        heard => heard,
    })
}

fn read(answer: &[u8]) -> anyhow::Result<Outcome> {
    let mut line = String::new();
    BufReader::new(answer).read_line(&mut line)?;
    match line.trim_end().split_once(' ') {
        Some((name, peer)) => Ok(Outcome::Answer(name.to_owned(), peer.parse().context(line.clone())?)),
        None => bail!("{line:?} is none"),
    }
}

/// What an error says of the network; what it says of the socket is an error.
fn outcome(error: Errno, began: Instant) -> anyhow::Result<Outcome> {
    let after = began.elapsed();
    match error {
        Errno::CONNREFUSED => Ok(Outcome::Refused(after)),
        Errno::AGAIN | Errno::INPROGRESS | Errno::TIMEDOUT => {
            Ok(Outcome::Silence(format!("nothing within {} ms", after.as_millis())))
        }
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNRESET => Ok(Outcome::Silence(error.to_string())),
        error => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_address_of_either_family() {
        for peer in ["10.0.0.1:5", "[fd00::1]:5"] {
            let answer = Outcome::Answer("a".to_owned(), peer.parse().unwrap());
            assert_eq!(read(format!("a {peer}\n").as_bytes()).unwrap(), answer);
        }
        for wrong in ["", "a\n", "a b\n", "a 10.0.0.1\n"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_port_where_nobody_listens_refuses_and_a_greeter_answers() {
        let here = Host::of_daemon("here");
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for over in BOTH {
            let outcome = ask(&here, over, free).unwrap();
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
        }
        let _greeter = Greeter::start(&here, free.port()).unwrap();
        for over in BOTH {
            let probe = ask(&here, over, free).unwrap().from(&here, free.ip());
            assert!(probe.arrived(), "{}", probe.text());
        }
    }
}
