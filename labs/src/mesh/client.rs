//! The clients of one run of a mesh: all ask from the same port, each of its own host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};

use super::server::{Servers, bound, watch};
use super::{Notes, Question, Transport, Waiting, read_question, write_question};
use crate::host::Host;
use crate::sctp::Client;

/// Whether the kernel makes sockets of SCTP. It may load a module for that, if it has one.
pub(super) fn kernel_has_sctp() -> bool {
    socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP)).is_ok()
}

/// Sockets and associations of the run.
#[derive(Debug)]
pub(super) struct Clients<'a> {
    questions: &'a [Question],
    port: u16,
    sockets: Vec<Socket>,
    /// By end, and the server's address and port.
    associations: HashMap<(usize, SocketAddr), (usize, Client)>,
}

#[derive(Debug)]
enum Socket {
    /// For one question.
    Stream(TcpStream, usize),
    /// For all of an end, over one version of IP.
    Datagram(UdpSocket),
}

impl<'a> Clients<'a> {
    pub(super) fn open(
        hosts: &[&Host],
        questions: &'a [Question],
        port: u16,
        native: bool,
        epoll: &OwnedFd,
    ) -> anyhow::Result<Self> {
        let mut clients = Self { questions, port, sockets: Vec::new(), associations: HashMap::new() };
        for (end, host) in hosts.iter().enumerate() {
            let own: Vec<(usize, &Question)> =
                questions.iter().enumerate().filter(|(_, question)| question.from == end).collect();
            if own.is_empty() {
                continue;
            }
            let streams = own.iter().filter(|(_, question)| is_stream(question.over, native));
            let opened = host.inside(|| {
                let mut sockets = Vec::new();
                for (index, question) in streams {
                    sockets.push(Socket::Stream(stream(question, port)?, *index));
                }
                for v6 in [false, true] {
                    sockets.push(Socket::Datagram(bound(any(v6, port), SocketType::DGRAM, ipproto::UDP)?.into()));
                }
                Ok(sockets)
            });
            clients.sockets.extend(opened.with_context(|| format!("host {}: clients", host.name()))?);
            let associations = own.iter().filter(|(_, question)| question.over == Transport::Sctp && !native);
            clients.associations.extend(associations.map(|(index, question)| {
                // No tag is 0 (RFC 9260, 3.3.2).
                let tag = u32::from(port) << 16 | (*index as u32 + 1);
                let asked = write_question(port, *index).to_vec();
                ((end, question.at), (*index, Client::new((port, question.at.port()), tag, asked)))
            }));
        }
        for (at, socket) in clients.sockets.iter().enumerate() {
            match socket {
                Socket::Stream(stream, _) => watch(epoll, stream, Waiting::Client(at), epoll::EventFlags::OUT)?,
                Socket::Datagram(socket) => watch(epoll, socket, Waiting::Client(at), epoll::EventFlags::IN)?,
            }
        }
        Ok(clients)
    }

    /// Ask everything.
    pub(super) fn begin(&self, servers: &Servers, notes: &mut [Notes]) -> anyhow::Result<()> {
        let mut datagrams = self.sockets.iter().filter_map(|socket| match socket {
            Socket::Datagram(socket) => Some(socket),
            Socket::Stream(..) => None,
        });
        let mut asking = HashMap::new();
        for question in self.questions {
            if let Entry::Vacant(place) = asking.entry(question.from) {
                let (Some(v4), Some(v6)) = (datagrams.next(), datagrams.next()) else { break };
                place.insert((v4, v6));
            }
        }
        for socket in &self.sockets {
            if let Socket::Stream(stream, index) = socket {
                let began = connect(stream, &self.questions[*index].at);
                refused(&mut notes[*index], began.map_err(Into::into));
            }
        }
        for (index, question) in self.questions.iter().enumerate().filter(|(_, asked)| asked.over == Transport::Udp) {
            let Some((v4, v6)) = asking.get(&question.from) else { continue };
            let socket = if question.at.is_ipv4() { v4 } else { v6 };
            refused(&mut notes[index], socket.send_to(&write_question(self.port, index), question.at).map(drop));
        }
        for ((end, at), (index, client)) in &self.associations {
            let socket = servers.raw(*end, at.ip()).context("an end without raw sockets")?;
            refused(&mut notes[*index], socket.send_to(&client.first(), SocketAddr::new(at.ip(), 0)).map(drop));
        }
        Ok(())
    }

    /// There is something at a socket.
    pub(super) fn ready(&mut self, at: usize, notes: &mut [Notes], epoll: &OwnedFd) {
        let mut octets = [0; 64];
        match &mut self.sockets[at] {
            Socket::Stream(stream, index) => {
                let notes = &mut notes[*index];
                if let Ok(Err(error)) = socket_error(&*stream) {
                    refused(notes, Err(error.into()));
                    let _ = epoll::delete(epoll, &*stream);
                    return;
                }
                match stream.read(&mut octets) {
                    Ok(len) => {
                        notes.echoed |= read_question(&octets[..len], self.port) == Some(*index);
                        let _ = epoll::delete(epoll, &*stream);
                    }
                    // It is connected, and has nothing for us yet.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let _ = stream.write_all(&write_question(self.port, *index));
                        let data = epoll::EventData::new_u64(Waiting::Client(at).number());
                        let _ = epoll::modify(epoll, stream.as_fd(), data, epoll::EventFlags::IN);
                    }
                    Err(error) => {
                        refused(notes, Err(error));
                        let _ = epoll::delete(epoll, &*stream);
                    }
                }
            }
            Socket::Datagram(socket) => {
                while let Ok((len, peer)) = socket.recv_from(&mut octets) {
                    let index = read_question(&octets[..len], self.port);
                    let asked = index.and_then(|index| Some((index, self.questions.get(index)?)));
                    if let Some((index, _)) = asked.filter(|(_, question)| question.at == peer) {
                        notes[index].echoed = true;
                    }
                }
            }
        }
    }

    /// A packet of SCTP has come to an end, by its raw socket.
    pub(super) fn hear(&mut self, end: usize, peer: IpAddr, octets: &[u8], socket: &UdpSocket, notes: &mut [Notes]) {
        let port = octets.get(..2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
        let Some((index, client)) = self.associations.get_mut(&(end, SocketAddr::new(peer, port))) else { return };
        if let Some(answer) = client.hear(octets) {
            let _ = socket.send_to(&answer, SocketAddr::new(peer, 0));
        }
        let echoed = client.answer().and_then(|answer| read_question(answer, self.port));
        notes[*index].echoed |= echoed == Some(*index);
    }
}

/// Whether a question has a socket of its own.
fn is_stream(over: Transport, native: bool) -> bool {
    over == Transport::Tcp || (native && over == Transport::Sctp)
}

/// A socket for one question. Closing it leaves nothing behind, at either end.
fn stream(question: &Question, port: u16) -> rustix::io::Result<TcpStream> {
    let protocol = if question.over == Transport::Sctp { ipproto::SCTP } else { ipproto::TCP };
    let socket = bound(any(question.at.is_ipv6(), port), SocketType::STREAM, protocol)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(socket.into())
}

fn any(v6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

/// Note why a question did not go out, or was sent back.
fn refused(notes: &mut Notes, outcome: std::io::Result<()>) {
    match outcome {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            notes.refused = Some(format!("refused: {error}"));
        }
        Ok(()) | Err(_) => {}
    }
}
