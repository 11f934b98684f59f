//! Who speaks: a namespace with an address of each IP version, and kernel sockets in it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, ipproto};
use vswitch::sys::netns::Namespace;

use super::server::Server;
use super::{PATIENCE, SILENCE};

/// A pod, the node, or a host outside.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    /// By IP version.
    pub(crate) addresses: [&'static str; 2],
    pub(crate) space: Namespace,
}

/// What a server said of itself and of who asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) who: String,
    pub(crate) peer: SocketAddr,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (who, peer) = text.trim_end().split_once(' ').expect("a name and a peer");
        Self { who: who.to_owned(), peer: peer.parse().unwrap() }
    }

    /// The address that the server saw.
    pub(crate) fn from(&self) -> IpAddr {
        self.peer.ip()
    }
}

impl Host {
    pub(crate) fn address(&self, family: usize) -> IpAddr {
        self.addresses[family].parse().unwrap()
    }

    pub(crate) fn at(&self, family: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// TCP and UDP servers at a port, until dropped.
    pub(crate) fn serve(&self, port: u16) -> Server {
        Server::new(self, port)
    }

    /// A TCP connection from a port of ours (0: any), and who answered.
    pub(crate) fn connect(&self, from: u16, to: SocketAddr) -> io::Result<(TcpStream, Answer)> {
        let mut stream = self.space.run(|| dial(from, to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let answer = greeting(&mut stream)?;
        Ok((stream, answer))
    }

    /// Whether a TCP connection is made within this time; it is closed again.
    pub(crate) fn connect_within(&self, to: SocketAddr, patience: Duration) -> io::Result<()> {
        self.space.run(|| dial(0, to, patience)).map(drop)
    }

    /// Who answers TCP at an address, after a connection that is closed again.
    #[track_caller]
    pub(crate) fn tcp(&self, to: SocketAddr) -> Answer {
        match self.connect(0, to) {
            Ok((_, answer)) => answer,
            Err(why) => panic!("{} to {to} by TCP: {why}", self.name),
        }
    }

    /// A UDP socket that speaks with one address only, so that it hears of errors.
    pub(crate) fn flow(&self, from: u16, to: SocketAddr) -> Flow {
        let socket = self.space.run(|| {
            let socket = UdpSocket::bind((any(to), from)).unwrap();
            // There may be no route.
            socket.connect(to).map(|()| socket)
        });
        Flow { name: self.name, to, socket: socket.unwrap() }
    }

    /// Who answers UDP at an address.
    #[track_caller]
    pub(crate) fn udp(&self, to: SocketAddr) -> Answer {
        self.flow(0, to).answer()
    }

    /// Nobody is there, and this is said within a second: to TCP and to UDP.
    #[track_caller]
    pub(crate) fn is_refused(&self, to: SocketAddr) {
        for (proto, ask) in [("TCP", Self::try_tcp as fn(&Self, SocketAddr) -> _), ("UDP", Self::try_udp)] {
            let start = Instant::now();
            let refused: io::Result<Answer> = ask(self, to);
            let kind = refused.as_ref().err().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::ConnectionRefused), "{} to {to} by {proto}: {refused:?}", self.name);
            assert!(start.elapsed() < Duration::from_secs(1), "refused after {:?}", start.elapsed());
        }
    }

    /// Nobody is there, and nothing is said: neither to TCP nor to UDP.
    #[track_caller]
    pub(crate) fn meets_silence(&self, to: SocketAddr) {
        let tcp = self.space.run(|| dial(0, to, SILENCE));
        let udp = self.flow(0, to).ask(b"", SILENCE);
        for (proto, met) in [("TCP", tcp.map(drop)), ("UDP", udp.map(drop))] {
            let kind = met.as_ref().err().map(io::Error::kind);
            let silent = matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
            assert!(silent, "{} to {to} by {proto}: {met:?}", self.name);
        }
    }

    /// As [`Self::tcp`], for what may fail.
    pub(crate) fn try_tcp(&self, to: SocketAddr) -> io::Result<Answer> {
        self.connect(0, to).map(|(_, answer)| answer)
    }

    /// As [`Self::udp`], for what may fail.
    pub(crate) fn try_udp(&self, to: SocketAddr) -> io::Result<Answer> {
        self.flow(0, to).ask(b"", PATIENCE).map(|(answer, _)| answer)
    }

    /// An address answers an echo request within this time.
    pub(crate) fn ping(&self, to: IpAddr, patience: Duration) -> bool {
        self.space.run(|| {
            // Whoever is in a group of this range may ask without privilege: everybody of this namespace.
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            let (family, proto, ask, answer) = match to {
                IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
                IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
            };
            let socket = UdpSocket::from(rustix::net::socket(family, SocketType::DGRAM, Some(proto)).unwrap());
            socket.set_read_timeout(Some(patience)).unwrap();
            let question = [&[ask, 0, 0, 0, 0, 0, 0, 1], &b"are you there"[..]].concat();
            if socket.send_to(&question, (to, 0)).is_err() {
                return false;
            }
            let mut octets = [0; 64];
            let Ok((len, from)) = socket.recv_from(&mut octets) else { return false };
            assert_eq!((octets[0], &octets[8..len], from.ip()), (answer, &b"are you there"[..], to));
            true
        })
    }
}

/// A UDP socket that speaks with one address.
pub(crate) struct Flow {
    name: &'static str,
    to: SocketAddr,
    pub(crate) socket: UdpSocket,
}

impl Flow {
    /// Send a question; who answered, and what came back of the question.
    pub(crate) fn ask(&self, question: &[u8], patience: Duration) -> io::Result<(Answer, Vec<u8>)> {
        self.socket.send(question)?;
        self.socket.set_read_timeout(Some(patience))?;
        let mut octets = vec![0; 65536];
        let len = self.socket.recv(&mut octets)?;
        let end = octets[..len].iter().position(|octet| *octet == b'\n').expect("an end of the first line");
        Ok((Answer::read(std::str::from_utf8(&octets[..end]).unwrap()), octets[end + 1..len].to_vec()))
    }

    /// Who answers.
    #[track_caller]
    pub(crate) fn answer(&self) -> Answer {
        match self.ask(b"", PATIENCE) {
            Ok((answer, _)) => answer,
            Err(why) => panic!("{} to {} by UDP: {why}", self.name, self.to),
        }
    }
}

/// Send over a connection and get the same back.
#[track_caller]
pub(crate) fn echo(stream: &mut TcpStream, octets: &[u8]) {
    stream.write_all(octets).unwrap();
    let mut back = vec![0; octets.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == octets, "other octets came back");
}

/// The first line that a server sends.
fn greeting(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut line = Vec::new();
    let mut octet = [0];
    while octet != *b"\n" {
        stream.read_exact(&mut octet)?;
        line.push(octet[0]);
    }
    Ok(Answer::read(std::str::from_utf8(&line).unwrap()))
}

/// Connect from a port of ours; in the namespace of the calling thread.
fn dial(from: u16, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(any(to), from))?;
    // It holds for connecting, too (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    match rustix::net::connect(&socket, &to) {
        Err(rustix::io::Errno::INPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        connected => Ok(connected.map(|()| TcpStream::from(socket))?),
    }
}

/// No address in particular, of the same IP version.
fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}
