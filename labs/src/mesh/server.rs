//! The servers of a mesh: they note who asked, and echo.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::Context;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, ipproto, socket_with};

use super::client::Clients;
use super::{End, Notes, Waiting, read_question};
use crate::sctp::{Said, Server};

/// Connections that wait to be accepted: every end may ask at once.
const BACKLOG: i32 = 256;
/// Octets of the largest packet that anybody sends here, and more.
const PACKET: usize = 512;

/// Sockets of all ends.
#[derive(Debug)]
pub(super) struct Servers {
    sockets: Vec<Socket>,
    accepted: Vec<Option<Accepted>>,
}

#[derive(Debug)]
struct Socket {
    end: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// TCP, or SCTP of the kernel.
    Listener(TcpListener, u16),
    Datagram(UdpSocket, u16),
    /// All SCTP packets of an address. Those to these ports are the server's.
    Raw(UdpSocket, IpAddr, Vec<u16>, Server),
}

#[derive(Debug)]
struct Accepted {
    stream: TcpStream,
    end: usize,
    port: u16,
    peer: SocketAddr,
}

impl Servers {
    pub(super) fn open(ends: &[End<'_>], native: bool, epoll: &OwnedFd) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for (number, end) in ends.iter().enumerate() {
            let opened = end.host.inside(|| open(end, native).map_err(Into::into));
            let opened = opened.with_context(|| format!("host {}: servers", end.host.name()))?;
            sockets.extend(opened.into_iter().map(|kind| Socket { end: number, kind }));
        }
        for (at, socket) in sockets.iter().enumerate() {
            let fd = match &socket.kind {
                Kind::Listener(listener, _) => listener.as_fd(),
                Kind::Datagram(socket, _) | Kind::Raw(socket, ..) => socket.as_fd(),
            };
            watch(epoll, fd, Waiting::Server(at), epoll::EventFlags::IN)?;
        }
        Ok(Self { sockets, accepted: Vec::new() })
    }

    /// A run begins: what an earlier one left is over.
    pub(super) fn begin(&mut self) {
        self.accepted.clear();
        for socket in &mut self.sockets {
            if let Kind::Raw(.., server) = &mut socket.kind {
                server.forget();
            }
        }
    }

    /// The raw socket by which an end sends to this address.
    pub(super) fn raw(&self, end: usize, to: IpAddr) -> Option<&UdpSocket> {
        self.sockets.iter().filter(|socket| socket.end == end).find_map(|socket| match &socket.kind {
            Kind::Raw(socket, at, ..) if at.is_ipv4() == to.is_ipv4() => Some(socket),
            _ => None,
        })
    }

    /// There is something at a socket. What clients of the run hear by a raw one is passed on to them.
    pub(super) fn ready(
        &mut self,
        at: usize,
        port: u16,
        notes: &mut [Notes],
        clients: &mut Clients<'_>,
        epoll: &OwnedFd,
    ) {
        let Some(Socket { end, kind }) = self.sockets.get_mut(at) else { return };
        let end = *end;
        match kind {
            Kind::Listener(listener, own) => {
                while let Ok((stream, peer)) = listener.accept() {
                    let place = Waiting::Accepted(self.accepted.len());
                    if stream.set_nonblocking(true).is_ok()
                        && watch(epoll, stream.as_fd(), place, epoll::EventFlags::IN).is_ok()
                    {
                        self.accepted.push(Some(Accepted { stream, end, port: *own, peer }));
                    }
                }
            }
            Kind::Datagram(socket, own) => {
                let mut octets = [0; PACKET];
                while let Ok((len, peer)) = socket.recv_from(&mut octets) {
                    if let Some(index) = read_question(&octets[..len], port) {
                        note(notes, index, (end, *own, peer));
                        let _ = socket.send_to(&octets[..len], peer);
                    }
                }
            }
            Kind::Raw(socket, _, ports, server) => {
                let mut octets = [0; PACKET];
                while let Ok((len, peer)) = socket.recv_from(&mut octets) {
                    let Some(packet) = behind_ip(&octets[..len], peer.is_ipv4()) else { continue };
                    let (Some(sport), Some(dport)) = (short(packet, 0), short(packet, 2)) else { continue };
                    if dport == port {
                        clients.hear(end, peer.ip(), packet, socket, notes);
                    } else if ports.contains(&dport) {
                        let peer = SocketAddr::new(peer.ip(), sport);
                        let answer = match server.hear(peer.ip(), packet) {
                            Some(Said::Send(answer)) => answer,
                            Some(Said::Asked(own, question, answer)) => {
                                if let Some(index) = read_question(&question, port) {
                                    note(notes, index, (end, own, peer));
                                }
                                answer
                            }
                            None => continue,
                        };
                        let _ = socket.send_to(&answer, SocketAddr::new(peer.ip(), 0));
                    }
                }
            }
        }
    }

    /// There is something at a connection.
    pub(super) fn accepted(&mut self, at: usize, port: u16, notes: &mut [Notes]) {
        let Some(slot) = self.accepted.get_mut(at) else { return };
        let Some(Accepted { stream, end, port: own, peer }) = slot else { return };
        let mut octets = [0; PACKET];
        match stream.read(&mut octets) {
            Ok(len) if len > 0 => {
                if let Some(index) = read_question(&octets[..len], port) {
                    note(notes, index, (*end, *own, *peer));
                    let _ = stream.write_all(&octets[..len]);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The client is done.
            Ok(_) | Err(_) => *slot = None,
        }
    }
}

fn note(notes: &mut [Notes], index: usize, heard: (usize, u16, SocketAddr)) {
    if let Some(notes) = notes.get_mut(index) {
        notes.heard = Some(heard);
    }
}

/// On a thread of the host.
fn open(end: &End<'_>, native: bool) -> rustix::io::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    for address in if end.at.is_empty() { &all[..] } else { &end.at } {
        for port in end.ports {
            let at = SocketAddr::new(*address, *port);
            let streams: &[Protocol] = if native { &[ipproto::TCP, ipproto::SCTP] } else { &[ipproto::TCP] };
            for protocol in streams {
                let socket = bound(at, SocketType::STREAM, *protocol)?;
                rustix::net::listen(&socket, BACKLOG)?;
                kinds.push(Kind::Listener(socket.into(), *port));
            }
            kinds.push(Kind::Datagram(bound(at, SocketType::DGRAM, ipproto::UDP)?.into(), *port));
        }
        if !native {
            let socket = bound(SocketAddr::new(*address, 0), SocketType::RAW, ipproto::SCTP)?;
            kinds.push(Kind::Raw(socket.into(), *address, end.ports.to_vec(), Server::default()));
        }
    }
    Ok(kinds)
}

/// A socket that does not block, bound here; many may have one port. That of IPv6 leaves IPv4 to others.
pub(super) fn bound(at: SocketAddr, kind: SocketType, protocol: Protocol) -> rustix::io::Result<OwnedFd> {
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))?;
    // A raw one has no port that it could share, and hears IPv6 only.
    if kind != SocketType::RAW {
        set_socket_reuseaddr(&socket, true)?;
        if at.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
    }
    bind(&socket, &at)?;
    Ok(socket)
}

pub(super) fn watch(
    epoll: &OwnedFd,
    fd: impl AsFd,
    waiting: Waiting,
    flags: epoll::EventFlags,
) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(waiting.number()), flags)
}

/// Without the IP header, which raw sockets of IPv4 show and those of IPv6 do not (raw(7)).
fn behind_ip(octets: &[u8], v4: bool) -> Option<&[u8]> {
    let header = if v4 { usize::from(octets.first()? & 0x0f) * 4 } else { 0 };
    octets.get(header..)
}

fn short(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
}
