//! One step of a traceroute: a packet with few hops to go, and who says what became of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ip_ttl, set_ipv6_unicast_hops};
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use crate::host::{Host, PATIENCE};
use crate::ping::Echo;

/// Where traceroute sends: a port where nobody listens.
const PORT: u16 = 33434;
/// Ids of echo requests, and source ports, differ so that an answer is not taken for that of another.
static NEXT: AtomicU16 = AtomicU16::new(0);
/// Octets of an ICMP header, of a UDP header and of an IPv6 header.
const ICMP: usize = 8;
const UDP: usize = 8;
const IPV6: usize = 40;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// A datagram, as `traceroute` does.
    Udp,
    /// An echo request, as `traceroute -I` does.
    Echo,
}

/// What was said, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// "Time exceeded", by a router on the way.
    Exceeded(IpAddr),
    /// An echo reply, or "port unreachable": by the end of the way.
    Reached(IpAddr),
    /// Any other "unreachable".
    Unreachable(IpAddr),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exceeded(by) => write!(f, "{by} said time exceeded"),
            Self::Reached(by) => write!(f, "{by} was reached"),
            Self::Unreachable(by) => write!(f, "{by} said unreachable"),
        }
    }
}

/// Send a packet that may go so many hops, and wait for what is said of it; `None`: nothing.
///
/// # Errors
/// When the host's sockets fail.
pub fn hop(from: &Host, with: With, to: IpAddr, hops: u8) -> anyhow::Result<Option<Said>> {
    let v6 = to.is_ipv6();
    let icmp = from.icmp(v6, Duration::from_millis(20))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mark = match with {
        With::Echo => {
            // Far from those of `ping`.
            let id = number | 0x8000;
            limit(&icmp, v6, hops)?;
            let request = Echo { request: true, id, sequence: 1 }.build(v6);
            match sendto(&icmp, &request, SendFlags::empty(), &SocketAddr::new(to, 0)) {
                Ok(_) | Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => id,
                Err(error) => return Err(error).context("send an echo request"),
            }
        }
        With::Udp => {
            let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let socket = from.udp(SocketAddr::new(any, 0))?;
            limit(&socket.try_clone()?.into(), v6, hops)?;
            socket.send_to(b"traceroute", SocketAddr::new(to, PORT)).context("send a datagram")?;
            // The error may come after the socket is gone: the raw one is told, too.
            socket.local_addr()?.port()
        }
    };
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        match recvfrom(&icmp, &mut buffer[..], RecvFlags::empty()) {
            Ok((octets, _, Some(source))) => {
                let Ok(source) = SocketAddr::try_from(source) else { continue };
                if let Some(said) = read(&buffer[..octets], v6, with, mark, source.ip()) {
                    return Ok(Some(said));
                }
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).context("receive an ICMP message"),
        }
    }
    Ok(None)
}

fn limit(socket: &OwnedFd, v6: bool, hops: u8) -> rustix::io::Result<()> {
    if v6 { set_ipv6_unicast_hops(socket, Some(hops)) } else { set_ip_ttl(socket, u32::from(hops)) }
}

/// What a message says of the packet that bears `mark`; `None` for messages about others. IPv4 sockets are given the IP
/// header, IPv6 sockets are not. (RFC 792, RFC 4443)
fn read(message: &[u8], v6: bool, with: With, mark: u16, source: IpAddr) -> Option<Said> {
    let header = |bytes: &[u8]| bytes.first().map(|first| usize::from(first & 0x0f) * 4);
    let message = if v6 { message } else { message.get(header(message)?..)? };
    if with == With::Echo
        && let Some(echo) = Echo::parse_message(message, v6)
    {
        return (!echo.request && echo.id == mark).then_some(Said::Reached(source));
    }
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let quote = message.get(ICMP..)?;
    let inner = quote.get(if v6 { IPV6 } else { header(quote)? }..)?;
    let at = if with == With::Udp { 0 } else { 4 };
    // Of a quoted packet only so much is certain.
    if inner.len() < UDP || u16::from_be_bytes([*inner.get(at)?, *inner.get(at + 1)?]) != mark {
        return None;
    }
    match (v6, kind, code) {
        (false, 11, _) | (true, 3, _) => Some(Said::Exceeded(source)),
        (false, 3, 3) | (true, 1, 4) => Some(Said::Reached(source)),
        (false, 3, _) | (true, 1, _) => Some(Said::Unreachable(source)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ICMPv4 message as a raw socket has it, about a datagram from port 40000.
    fn message(kind: u8, code: u8) -> Vec<u8> {
        let mut bytes = vec![0x45; 20];
        bytes.extend([kind, code, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0x45; 20]);
        bytes.extend(40000_u16.to_be_bytes());
        bytes.extend([0x82, 0x9a, 0, 18, 0, 0]);
        bytes
    }

    #[test]
    fn errors_about_our_datagram_are_told_apart_and_others_passed_over() {
        let by: IpAddr = "10.0.0.1".parse().unwrap();
        let said = |kind, code, port| read(&message(kind, code), false, With::Udp, port, by);
        assert_eq!(said(11, 0, 40000), Some(Said::Exceeded(by)));
        assert_eq!(said(3, 3, 40000), Some(Said::Reached(by)));
        assert_eq!(said(3, 1, 40000), Some(Said::Unreachable(by)));
        assert_eq!(said(11, 0, 40001), None, "another's");
        assert_eq!(said(5, 0, 40000), None, "a redirect");
        let whole = message(11, 0);
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len], false, With::Udp, 40000, by), None, "cut to {len} octets");
        }
    }
}
