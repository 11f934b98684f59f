//! ICMP echo, seen from both ends.
//!
//! The one end sends requests and receives replies; the other end's kernel answers, and a raw socket beside it tells
//! what it received. Both must agree before the probe counts as arrived.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use crate::claim::Probe;
use crate::host::{Host, PATIENCE};

/// Echo requests of one probe.
pub(crate) const COUNT: u16 = 3;
/// Octets behind the ICMP header.
const PAYLOAD: usize = 56;
/// Ids differ between the pings of one lab, so that a late reply is not taken for one of the next.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);
/// Octets of the ICMP header.
const HEADER: usize = 8;

/// An ICMP or ICMPv6 echo message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    /// Request, or reply.
    pub(crate) request: bool,
    /// Which ping.
    pub(crate) id: u16,
    /// Which of its requests.
    pub(crate) sequence: u16,
}

impl Echo {
    /// Types of request and reply: RFC 792, RFC 4443 section 4.
    fn types(v6: bool) -> (u8, u8) {
        if v6 { (128, 129) } else { (8, 0) }
    }

    /// The message, from its ICMP header on.
    pub(crate) fn build(&self, v6: bool) -> Vec<u8> {
        let (request, reply) = Self::types(v6);
        let mut message = vec![if self.request { request } else { reply }, 0, 0, 0];
        message.extend(self.id.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend((0..PAYLOAD).map(|i| i as u8));
        if !v6 {
            // The kernel sums only ICMPv6, whose checksum covers addresses that we do not choose (RFC 3542, 3.1).
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// What a raw socket received: IPv4 with its header in front, IPv6 without.
    fn parse(bytes: &[u8], v6: bool) -> Option<Self> {
        let header = if v6 { 0 } else { usize::from(bytes.first()? & 0x0f) * 4 };
        Self::parse_message(bytes.get(header..)?, v6)
    }

    /// From the ICMP header on. `None` for all that is no whole echo message of ours.
    pub(crate) fn parse_message(bytes: &[u8], v6: bool) -> Option<Self> {
        let (request, reply) = Self::types(v6);
        let header = bytes.get(..HEADER)?;
        if (header[0] != request && header[0] != reply) || bytes.len() != HEADER + PAYLOAD {
            return None;
        }
        if bytes[HEADER..].iter().enumerate().any(|(i, octet)| *octet != i as u8) {
            return None;
        }
        Some(Self {
            request: header[0] == request,
            id: u16::from_be_bytes([header[4], header[5]]),
            sequence: u16::from_be_bytes([header[6], header[7]]),
        })
    }
}

/// Ping `address` from `from` and look whether `to` received it and its answers came back.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn ping(from: &Host, to: &Host, address: IpAddr) -> anyhow::Result<Probe> {
    seen_by(from, to, address, None)
}

/// As [`ping`], where source and id are translated on the way: `to` is to receive the requests from `seen`.
///
/// # Errors
/// As [`ping`].
pub fn ping_translated(from: &Host, to: &Host, address: IpAddr, seen: IpAddr) -> anyhow::Result<Probe> {
    seen_by(from, to, address, Some(seen))
}

fn seen_by(from: &Host, to: &Host, address: IpAddr, seen: Option<IpAddr>) -> anyhow::Result<Probe> {
    let v6 = address.is_ipv6();
    let far = to.icmp(v6, Duration::from_millis(20))?;
    let Replies { id, replies, best } = request(from, address)?;
    let (mut requests, mut peer) = (0, None);
    for sequence in 1..=COUNT {
        let is_ours = |echo: &Echo, source: IpAddr| {
            let from_there = seen.map_or(echo.id == id, |seen| source == seen);
            echo.request && echo.sequence == sequence && from_there
        };
        let Some(source) = wait(&far, v6, is_ours)? else { break };
        (requests, peer) = (requests + 1, Some(source));
    }
    let (near, far) = (from.name(), to.name());
    let Some(peer) = peer.filter(|_| replies == COUNT && requests == COUNT) else {
        return Ok(Probe::Silent(format!(
            "{far} received {requests} echo requests, {near} {replies} replies from {address}"
        )));
    };
    Ok(Probe::Arrived(format!(
        "{far} received {requests} echo requests from {peer}, {near} {replies} replies from {address}, {:.3} ms at best",
        best.as_secs_f64() * 1e3
    )))
}

/// Ping an address of the switch's own: nobody but `from` can see it.
///
/// # Errors
/// When the host's socket fails; silence is no error.
pub fn echo(from: &Host, address: IpAddr) -> anyhow::Result<Probe> {
    let Replies { replies, best, .. } = request(from, address)?;
    let text = format!("{} received {replies} of {COUNT} replies from {address}", from.name());
    Ok(match replies == COUNT {
        true => Probe::Arrived(format!("{text}, {:.3} ms at best", best.as_secs_f64() * 1e3)),
        false => Probe::Silent(text),
    })
}

/// What became of the requests of one probe.
struct Replies {
    id: u16,
    replies: u16,
    best: Duration,
}

/// Send requests until one is not answered.
fn request(from: &Host, address: IpAddr) -> anyhow::Result<Replies> {
    let v6 = address.is_ipv6();
    let socket = from.icmp(v6, PATIENCE)?;
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let (mut replies, mut best) = (0, Duration::MAX);
    for sequence in 1..=COUNT {
        let began = Instant::now();
        let request = Echo { request: true, id, sequence }.build(v6);
        match sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(address, 0)) {
            Ok(_) => {}
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => break,
            Err(error) => return Err(error.into()),
        }
        let reply = Echo { request: false, id, sequence };
        if wait(&socket, v6, |echo, source| *echo == reply && source == address)?.is_none() {
            break;
        }
        best = best.min(began.elapsed());
        replies += 1;
    }
    Ok(Replies { id, replies, best })
}

/// Wait for an echo message, passing over everything else that the socket sees (neighbour discovery, others' pings).
/// Returns whose it is.
fn wait(socket: &OwnedFd, v6: bool, is_it: impl Fn(&Echo, IpAddr) -> bool) -> anyhow::Result<Option<IpAddr>> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((bytes, _, source)) => {
                let source = source.and_then(|source| SocketAddr::try_from(source).ok());
                if let Some(source) = source
                    && Echo::parse(&buffer[..bytes], v6).is_some_and(|echo| is_it(&echo, source.ip()))
                {
                    return Ok(Some(source.ip()));
                }
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The internet checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_has_a_right_checksum_and_is_read_back() {
        let echo = Echo { request: true, id: 0x1234, sequence: 7 };
        let message = echo.build(false);
        assert_eq!(checksum(&message), 0, "a message with its checksum sums to zero");
        let mut packet = vec![0x45; 20];
        packet.extend(&message);
        assert_eq!(Echo::parse(&packet, false), Some(echo));
    }

    #[test]
    fn what_is_no_echo_of_ours_is_passed_over() {
        let message = Echo { request: false, id: 1, sequence: 1 }.build(true);
        for len in 0..message.len() {
            assert_eq!(Echo::parse(&message[..len], true), None, "cut to {len} octets");
            assert_eq!(Echo::parse(&message[..len], false), None, "cut to {len} octets, as IPv4");
        }
        let mut changed = message.clone();
        changed[HEADER + 3] ^= 1;
        assert_eq!(Echo::parse(&changed, true), None, "one bit of the payload");
        assert_eq!(Echo::parse(&[0xff; 200], false), None);
    }
}
