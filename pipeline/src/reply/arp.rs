//! ARP for IPv4 over Ethernet (RFC 826): 28 octets.
//!
//! ```text
//!   0        2        4   5   6        8            14          18           24          28
//!   hw type  proto    6   4   opcode   sender mac   sender ip   target mac   target ip
//! ```

use std::net::Ipv4Addr;

use api::MacAddr;

use crate::burst::{Kind, Layers};
use crate::drop::DropReason;
use crate::parse::{array, be16, ethertype};

use super::packet::{turned, untagged};

/// Ethernet, IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// It asks; else it tells.
    pub asks: bool,
    /// Ethernet address of who speaks.
    pub sender_mac: MacAddr,
    /// Address of who speaks; 0.0.0.0 in a probe (RFC 5227, 2.1.1).
    pub sender: Ipv4Addr,
    /// Who is asked for, or spoken to.
    pub target: Ipv4Addr,
}

impl Arp {
    /// The message of a frame.
    ///
    /// # Errors
    /// It is none for IPv4 over Ethernet, or neither request nor reply.
    pub fn read(head: &[u8], layers: &Layers) -> Result<Self, DropReason> {
        let l3 = usize::from(layers.l3);
        let read = || {
            (layers.kind == Kind::Arp && array(head, l3)? == ETHERNET_IPV4).then_some(())?;
            let asks = match be16(head, l3 + 6)? {
                REQUEST => true,
                REPLY => false,
                _ => return None,
            };
            let sender_mac = MacAddr(array(head, l3 + 8)?);
            let address = |at| array(head, at).map(Ipv4Addr::from);
            Some(Self { asks, sender_mac, sender: address(l3 + 14)?, target: address(l3 + 24)? })
        };
        read().ok_or(DropReason::ArpMalformed)
    }
}

/// The reply to a request: who was asked for is at `mac`.
pub(super) fn reply(head: &[u8], layers: &Layers, mac: MacAddr) -> Result<Vec<u8>, DropReason> {
    let request = Arp::read(head, layers)?;
    let asker = array(head, 6).map(MacAddr).ok_or(DropReason::ArpMalformed)?;
    let link = turned(head, usize::from(layers.l3), asker, mac).filter(|_| request.asks);
    let link = link.ok_or(DropReason::ArpMalformed)?;
    Ok(message(link, REPLY, (mac, request.target), (request.sender_mac, request.sender)))
}

/// A request for `target` from `source`, which is at `mac`.
pub(super) fn request(target: Ipv4Addr, source: Ipv4Addr, mac: MacAddr, to: Option<MacAddr>) -> Vec<u8> {
    let link = untagged(to.unwrap_or(MacAddr::BROADCAST), mac, ethertype::ARP);
    message(link, REQUEST, (mac, source), (MacAddr::default(), target))
}

fn message(mut link: Vec<u8>, opcode: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    link.extend(ETHERNET_IPV4);
    link.extend(opcode.to_be_bytes());
    for (mac, address) in [sender, target] {
        link.extend(mac.0);
        link.extend(address.octets());
    }
    link
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpOperation, NetSlice, SlicedPacket};

    use super::*;
    use crate::reply::samples::*;

    /// Opcode, sender and target of an ARP frame as etherparse reads it.
    fn parsed(frame: &[u8]) -> (ArpOperation, Vec<u8>, Vec<u8>) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP: {frame:02x?}") };
        let pair = |mac: &[u8], address: &[u8]| [mac, address].concat();
        let sender = pair(arp.sender_hw_addr(), arp.sender_protocol_addr());
        (arp.operation(), sender, pair(arp.target_hw_addr(), arp.target_protocol_addr()))
    }

    #[test]
    fn a_request_is_answered_to_its_sender_under_its_tags() {
        for tags in [&[][..], &[10], &[10, 20]] {
            let frame = ethernet(tags, 0x0806, &arp(1, ASKER4, GATEWAY4));
            let answer = reply(&frame, &found(&frame), POD).unwrap();
            assert_eq!(answer[..12], [ASKER.0, POD.0].concat());
            assert_eq!(answer[12..14 + 4 * tags.len()], frame[12..14 + 4 * tags.len()]);
            let sender = [&POD.0[..], &GATEWAY4.octets()].concat();
            let target = [&ASKER.0[..], &ASKER4.octets()].concat();
            assert_eq!(parsed(&answer), (ArpOperation::REPLY, sender, target));
        }
    }

    #[test]
    fn only_requests_are_answered() {
        for opcode in [0, 2, 3, 8] {
            let frame = ethernet(&[], 0x0806, &arp(opcode, ASKER4, GATEWAY4));
            assert_eq!(reply(&frame, &found(&frame), POD), Err(DropReason::ArpMalformed), "{opcode}");
        }
        let frame = ethernet(&[], 0x0806, &arp(1, ASKER4, GATEWAY4));
        for len in 0..frame.len() {
            assert_eq!(reply(&frame[..len], &found(&frame), POD), Err(DropReason::ArpMalformed), "{len}");
        }
    }

    #[test]
    fn a_request_goes_to_everybody_or_to_where_the_neighbour_was() {
        let sender = [&ROUTER_MAC.0[..], &GATEWAY4.octets()].concat();
        let target = [&[0; 6][..], &ASKER4.octets()].concat();
        for (to, dst) in [(None, MacAddr::BROADCAST), (Some(ASKER), ASKER)] {
            let frame = request(ASKER4, GATEWAY4, ROUTER_MAC, to);
            assert_eq!(frame[..14], [&dst.0[..], &ROUTER_MAC.0, &[8, 6]].concat());
            assert_eq!(parsed(&frame), (ArpOperation::REQUEST, sender.clone(), target.clone()));
        }
    }
}
