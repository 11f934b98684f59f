//! The host behind the port: a `smoltcp` interface of medium IP, and the frames around its packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use api::MacAddr;
use pipeline::raw::{Frame, Stash};
use rtrb::Consumer;
use rustix::event::{PollFd, PollFlags, poll};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::{HardwareAddress, Ipv4Packet, Ipv6Packet};

use super::Shared;
use crate::ports::memory::Feed;

/// The host's Ethernet address: locally administered (IEEE 802-2014, 8.4), the rest spells "stack".
pub(super) const MAC: MacAddr = MacAddr([2, b's', b't', b'a', b'c', b'k']);

/// Octets of an Ethernet header, and of an 802.1Q tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// 802.1Q tags in front of a packet at most, as the parser has it.
const TAGS: usize = 2;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Types of 802.1Q tags.
const TAGGED: [u16; 2] = [0x8100, 0x88a8];
/// Frames that are taken between two looks at whether to go on.
const BURST: usize = 64;

/// The host, run on its own thread.
pub(super) struct Host {
    shared: Arc<Shared>,
    wire: Wire,
    mtu: u16,
}

impl Host {
    pub(super) fn new(shared: Arc<Shared>, questions: Consumer<Frame>, answers: Feed, stash: Stash, mtu: u16) -> Self {
        let wire = Wire {
            questions,
            answers: Answers { feed: answers, stash, router: None, frame: Vec::new(), sent: false },
            packet: Vec::new(),
            budget: 0,
            mtu,
        };
        Self { shared, wire, mtu }
    }

    /// Answer until the port is gone, asleep while there is nothing to answer.
    pub(super) fn run(mut self) {
        let start = Instant::now();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut self.wire, at(start));
        // Whatever was routed here is for us, and what is answered comes from the address that was asked.
        interface.set_any_ip(true);
        let mut sockets = SocketSet::new(Vec::new());
        tracing::debug!(mtu = self.mtu, "the host stack runs");
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wire.budget = BURST;
            self.wire.answers.router = self.shared.router();
            interface.poll(at(start), &mut self.wire, &mut sockets);
            if std::mem::take(&mut self.wire.answers.sent) {
                self.wire.answers.feed.kick();
            }
            if self.wire.budget != 0 {
                self.sleep();
            }
        }
        // No worker sends any more: the port is gone.
        while let Ok(frame) = self.wire.questions.pop() {
            self.wire.answers.stash.give(frame);
        }
    }

    /// Sleep until a frame comes, or the port goes.
    fn sleep(&self) {
        let bell = &self.shared.bell;
        bell.arm();
        if self.wire.questions.is_empty() && !self.shared.stop.load(Ordering::Acquire) {
            let _ = poll(&mut [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)], None);
        }
    }
}

/// The time as smoltcp has it.
fn at(start: Instant) -> smoltcp::time::Instant {
    let elapsed = start.elapsed();
    smoltcp::time::Instant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}

/// The rings, as smoltcp's device.
struct Wire {
    questions: Consumer<Frame>,
    answers: Answers,
    /// The packet that is looked at.
    packet: Vec<u8>,
    /// Frames that may still be taken in this turn; 0 when there may be more.
    budget: usize,
    mtu: u16,
}

/// The way back.
struct Answers {
    feed: Feed,
    stash: Stash,
    /// Where answers go; `None`: nowhere.
    router: Option<MacAddr>,
    /// The frame that is being made.
    frame: Vec<u8>,
    /// Something was sent since the last kick.
    sent: bool,
}

impl Device for Wire {
    type RxToken<'a> = Question<'a>;
    type TxToken<'a> = Answer<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Question<'_>, Answer<'_>)> {
        loop {
            self.budget = self.budget.checked_sub(1)?;
            let Ok(frame) = self.questions.pop() else {
                // Not spent: the ring is empty.
                self.budget += 1;
                return None;
            };
            self.packet.clear();
            // Super-frames were cut on the way here: what has a spill all the same is beyond any MTU.
            let whole = frame.spill().is_empty();
            self.packet.extend_from_slice(packet_of(frame.head()).filter(|_| whole).unwrap_or_default());
            self.answers.stash.give(frame);
            if may_be_answered(&self.packet) {
                return Some((Question(&self.packet), Answer(&mut self.answers)));
            }
        }
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Answer<'_>> {
        Some(Answer(&mut self.answers))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities
    }
}

/// The IP packet in a frame: what follows the Ethernet header and its tags.
fn packet_of(frame: &[u8]) -> Option<&[u8]> {
    let mut at = ETHERNET - 2;
    for _ in 0..=TAGS {
        let kind = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
        if !TAGGED.contains(&kind) {
            return [IPV4, IPV6].contains(&kind).then(|| frame.get(at + 2..))?;
        }
        at += TAG;
    }
    None
}

/// From one host to another (RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7): answering anything else would be answering
/// nobody, or in the name of many. smoltcp relies on the sender being somebody.
fn may_be_answered(packet: &[u8]) -> bool {
    let ends = match kind_of(packet) {
        Some(IPV4) => {
            Ipv4Packet::new_checked(packet).map(|packet| [packet.src_addr(), packet.dst_addr()].map(IpAddr::V4))
        }
        Some(IPV6) => {
            Ipv6Packet::new_checked(packet).map(|packet| [packet.src_addr(), packet.dst_addr()].map(IpAddr::V6))
        }
        _ => return false,
    };
    ends.is_ok_and(|ends| ends.into_iter().all(is_a_host))
}

/// The Ethernet type of an IP packet, by its version.
fn kind_of(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// One host's address on a network.
fn is_a_host(address: IpAddr) -> bool {
    let reserved = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !(reserved || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// A packet to be looked at.
struct Question<'a>(&'a [u8]);

impl RxToken for Question<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(self.0)
    }
}

/// A packet to be made.
struct Answer<'a>(&'a mut Answers);

impl TxToken for Answer<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, make: F) -> R {
        let Answers { feed, stash, router, frame, sent } = self.0;
        frame.clear();
        frame.resize(ETHERNET + len, 0);
        let (header, packet) = frame.split_at_mut(ETHERNET);
        let result = make(packet);
        let Some(router) = *router else { return result };
        let Some(kind) = kind_of(packet) else { return result };
        let octets = router.0.into_iter().chain(MAC.0).chain(kind.to_be_bytes());
        header.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        // Without memory, or with a full ring, the answer is lost, as on any network.
        let Some(mut slot) = stash.take() else { return result };
        if slot.fill(frame) {
            match feed.send(slot) {
                Ok(()) => *sent = true,
                Err(slot) => stash.give(slot),
            }
        } else {
            stash.give(slot);
        }
        result
    }
}
