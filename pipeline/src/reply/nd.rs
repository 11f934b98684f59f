//! Neighbour solicitations and advertisements (RFC 4861, 4.3 and 4.4).
//!
//! ```text
//!   0      1      2          4                  8          24
//!   type   code   checksum   R S O, reserved    target     options: type, length in units of 8, link-layer address
//! ```
//!
//! The checksum of what comes in is not verified: a sender's kernel may have left it to the device (see
//! [`crate::offload`]), and then the field holds something else.

use std::net::{IpAddr, Ipv6Addr};

use api::MacAddr;

use crate::burst::{Kind, Layers};
use crate::drop::DropReason;
use crate::parse::{array, ethertype, octet, proto};

use super::packet::{Packet, ip, is_fragment, turned, untagged};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// Octets of a message without options.
const FIXED: usize = 24;
/// Where the checksum is.
const CHECKSUM: usize = 2;
/// Flags of an advertisement: it is of a router, it was asked for, it overrides what is known.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// A sound message of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// It asks (solicitation); else it tells (advertisement).
    pub asks: bool,
    /// Who speaks; unspecified in duplicate address detection (RFC 4862, 5.4.2).
    pub source: Ipv6Addr,
    /// Who is asked for, or who is told of.
    pub target: Ipv6Addr,
    /// An advertisement's word counts more than what is known.
    pub overrides: bool,
    /// The link-layer address of the sender (solicitation) or of the target (advertisement).
    pub address: Option<MacAddr>,
}

impl Message {
    /// The solicitation or advertisement of a frame.
    ///
    /// # Errors
    /// It is none, or one that RFC 4861, 7.1 has silently discarded.
    pub fn read(head: &[u8], layers: &Layers) -> Result<Self, DropReason> {
        read(head, layers).ok_or(DropReason::NdMalformed)
    }
}

fn read(head: &[u8], layers: &Layers) -> Option<Message> {
    let packet = Packet::read(head, layers).filter(|_| layers.kind == Kind::Ipv6 && !is_fragment(layers))?;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.src, packet.dst) else { return None };
    // 7.1.1, 7.1.2: it has not passed a router; RFC 6980: it is no fragment.
    (octet(head, packet.l3 + 7)? == 255 && packet.proto == proto::ICMPV6).then_some(())?;
    let message = head.get(packet.l4..packet.end)?;
    let (fixed, options) = message.split_first_chunk::<FIXED>()?;
    let [kind @ (SOLICITATION | ADVERTISEMENT), 0, _, _, flags, ..] = *fixed else { return None };
    let target: Ipv6Addr = array(fixed, 8).map(Ipv6Addr::from)?;
    let asks = kind == SOLICITATION;
    let address = link_layer_address(options, if asks { SOURCE_ADDRESS } else { TARGET_ADDRESS })?;
    let sound = !target.is_multicast()
        && if !asks {
            !destination.is_multicast() || flags & SOLICITED == 0
        } else {
            !source.is_unspecified() || (destination == solicited_node(target) && address.is_none())
        };
    sound.then_some(Message { asks, source, target, overrides: !asks && flags & OVERRIDE != 0, address })
}

/// The Ethernet address in the options, if any. The outer `None`: an option is malformed.
#[expect(clippy::option_option, reason = "no address and no sound options are two answers")]
fn link_layer_address(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [kind, length, ..] = options {
        // 4.6: a length of zero is malformed.
        let (option, rest) = options.split_at_checked(usize::from(*length) * 8).filter(|_| *length != 0)?;
        if *kind == wanted && *length == 1 {
            found = found.or_else(|| array(option, 2).map(MacAddr));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The multicast address that a node with this address listens to (RFC 4291, 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The answer to a solicitation: who was asked for is at `mac`. It is a router's if that is the address of `router`.
pub(super) fn advertisement(
    head: &[u8],
    layers: &Layers,
    mac: MacAddr,
    router: MacAddr,
) -> Result<Vec<u8>, DropReason> {
    let solicitation = Message::read(head, layers)?;
    let build = || {
        let asker = MacAddr(array(head, 6)?);
        // 7.2.4: who has no address yet is answered with everybody.
        let (to, to_mac, solicited) = match solicitation.source {
            Ipv6Addr::UNSPECIFIED => (ALL_NODES, ALL_NODES_MAC, 0),
            source => (source, asker, SOLICITED),
        };
        let flags = OVERRIDE | solicited | if mac == router { ROUTER } else { 0 };
        let link = turned(head, usize::from(layers.l3), to_mac, mac)?;
        let message = message(ADVERTISEMENT, flags, solicitation.target, TARGET_ADDRESS, mac);
        ip(link, solicitation.target.into(), to.into(), proto::ICMPV6, message, CHECKSUM)
    };
    build().filter(|_| solicitation.asks).ok_or(DropReason::NdMalformed)
}

/// A solicitation of `target` from `source`, which is at `mac`.
pub(super) fn solicitation(target: Ipv6Addr, source: Ipv6Addr, mac: MacAddr, to: Option<MacAddr>) -> Vec<u8> {
    let group = solicited_node(target);
    let [.., a, b, c, d] = group.octets();
    // RFC 2464, 7: the Ethernet address of a group.
    let (dst, dst_mac) = to.map_or((group, MacAddr([0x33, 0x33, a, b, c, d])), |mac| (target, mac));
    let link = untagged(dst_mac, mac, ethertype::IPV6);
    let message = message(SOLICITATION, 0, target, SOURCE_ADDRESS, mac);
    ip(link, source.into(), dst.into(), proto::ICMPV6, message, CHECKSUM).unwrap_or_default()
}

fn message(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &mac.0].concat()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::reply::samples::*;

    const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    fn frame(packet: &[u8]) -> Vec<u8> {
        ethernet(&[], 0x86dd, packet)
    }

    /// Source, destination, hop limit and message of a frame, whose checksum is sound.
    fn parsed(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, u8, Vec<u8>) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("no IPv6: {frame:02x?}") };
        let header = ip.header();
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6: {frame:02x?}") };
        let icmp: Icmpv6Slice<'_> = icmp;
        assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        (header.source_addr(), header.destination_addr(), header.hop_limit(), icmp.slice().to_vec())
    }

    #[test]
    fn a_solicitation_is_answered_to_its_sender_under_its_tags() {
        let asked = nd(ASKER6, solicited_node(GATEWAY6), 135, 0, GATEWAY6, &option(1));
        for (tags, mac, flags) in [(&[][..], ROUTER_MAC, 0xe0), (&[10], ROUTER_MAC, 0xe0), (&[], POD, 0x60)] {
            let frame = ethernet(tags, 0x86dd, &asked);
            let answer = advertisement(&frame, &found(&frame), mac, ROUTER_MAC).unwrap();
            assert_eq!(answer[..12], [ASKER.0, mac.0].concat());
            assert_eq!(answer[12..14 + 4 * tags.len()], frame[12..14 + 4 * tags.len()]);
            let (src, dst, hops, message) = parsed(&answer);
            assert_eq!((src, dst, hops), (GATEWAY6, ASKER6, 255));
            assert_eq!((message[0], message[4], message.len()), (136, flags, 32));
            assert_eq!(message[8..], [&GATEWAY6.octets()[..], &[2, 1], &mac.0].concat());
            let read = Message::read(&answer, &found(&answer)).unwrap();
            assert_eq!((read.asks, read.overrides, read.address), (false, true, Some(mac)));
        }
    }

    #[test]
    fn who_has_no_address_yet_is_answered_with_everybody() {
        let frame = frame(&nd(UNSPECIFIED, solicited_node(GATEWAY6), 135, 0, GATEWAY6, &[]));
        let answer = advertisement(&frame, &found(&frame), POD, ROUTER_MAC).unwrap();
        let (src, dst, _, message) = parsed(&answer);
        assert_eq!((src, dst, message[4]), (GATEWAY6, ALL_NODES, 0x20));
        assert_eq!(answer[..6], ALL_NODES_MAC.0);
    }

    #[test]
    fn a_request_goes_to_the_group_or_to_where_the_neighbour_was() {
        let target: Ipv6Addr = "fd00::1:2:3456".parse().unwrap();
        let group: Ipv6Addr = "ff02::1:ff02:3456".parse().unwrap();
        let group_mac = MacAddr([0x33, 0x33, 0xff, 0x02, 0x34, 0x56]);
        for (to, dst, dst_mac) in [(None, group, group_mac), (Some(POD), target, POD)] {
            let frame = solicitation(target, GATEWAY6, ROUTER_MAC, to);
            assert_eq!(frame[..14], [&dst_mac.0[..], &ROUTER_MAC.0, &[0x86, 0xdd]].concat());
            assert_eq!(parsed(&frame).1, dst);
            let message = Message::read(&frame, &found(&frame)).unwrap();
            let asked = Message { asks: true, source: GATEWAY6, target, overrides: false, address: Some(ROUTER_MAC) };
            assert_eq!(message, asked);
        }
    }

    #[test]
    fn what_must_be_discarded_is_not_read() {
        let group = solicited_node(GATEWAY6);
        let (source, target) = (option(1), option(2));
        let sound = nd(ASKER6, group, 135, 0, GATEWAY6, &source);
        let change = |at: usize, octet: u8| {
            let mut packet = sound.clone();
            packet[at] = octet;
            packet
        };
        let empty_option = [&source[..], &[14, 0, 0, 0, 0, 0, 0, 0]].concat();
        let long_option = [&source[..], &[14, 2, 0, 0, 0, 0, 0, 0]].concat();
        for (why, packet) in [
            ("passed a router", change(7, 254)),
            ("code", change(41, 1)),
            ("another message", change(40, 128)),
            ("target is a group", nd(ASKER6, group, 135, 0, group, &source)),
            ("option of no length", nd(ASKER6, group, 135, 0, GATEWAY6, &empty_option)),
            ("option beyond the message", nd(ASKER6, group, 135, 0, GATEWAY6, &long_option)),
            ("half an option", nd(ASKER6, group, 135, 0, GATEWAY6, &[1])),
            ("no address and not to the group", nd(UNSPECIFIED, GATEWAY6, 135, 0, GATEWAY6, &[])),
            ("no address and where it is", nd(UNSPECIFIED, group, 135, 0, GATEWAY6, &source)),
            ("solicited by everybody", nd(ASKER6, ALL_NODES, 136, 0x40, ASKER6, &target)),
            ("short", {
                let mut packet = nd(ASKER6, group, 135, 0, GATEWAY6, &[]);
                packet.truncate(40 + 23);
                packet[5] = 23;
                packet
            }),
        ] {
            let frame = frame(&packet);
            assert_eq!(Message::read(&frame, &found(&frame)), Err(DropReason::NdMalformed), "{why}");
        }
        let frame = frame(&sound);
        assert!(Message::read(&frame, &found(&frame)).is_ok());
        for len in 0..frame.len() {
            assert_eq!(Message::read(&frame[..len], &found(&frame)), Err(DropReason::NdMalformed), "{len}");
        }
    }

    #[test]
    fn unknown_options_are_passed() {
        let options = [&[14, 1, 0, 0, 0, 0, 0, 0][..], &option(2)].concat();
        let frame = frame(&nd(ASKER6, ALL_NODES, 136, 0x20, ASKER6, &options));
        let told = Message { asks: false, source: ASKER6, target: ASKER6, overrides: true, address: Some(ASKER) };
        assert_eq!(Message::read(&frame, &found(&frame)), Ok(told));
    }
}
