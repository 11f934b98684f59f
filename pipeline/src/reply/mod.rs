//! reply: what the switch says for itself: that a neighbour is here, that a packet was not let through, who is there?
//!
//! An answer is built in the frame that it answers, and leaves by the port where that came in, under the VLAN tags that
//! it had. It never rests on more than the frame itself and a [`Reply`]; how often the switch may speak is for
//! [`crate::live::meters`]. No answer is made about what must not be answered (RFC 1122, 3.2.2; RFC 4443, 2.4e), so two
//! switches never talk to each other about nothing.
//!
//! | file | what it says |
//! |---|---|
//! | [`arp`] | IPv4 neighbours (RFC 826) |
//! | [`nd`] | IPv6 neighbours (RFC 4861) |
//! | [`icmp`] | errors (RFC 792, RFC 4443) |
//! | [`reset`] | nobody listens there, in TCP (RFC 9293) |

pub mod arp;
pub mod icmp;
pub mod nd;
mod packet;
pub mod reset;

#[cfg(test)]
pub(crate) use packet::samples;

use std::net::IpAddr;

use api::MacAddr;

use crate::burst::{Kind, Layers};
use crate::drop::DropReason;
use crate::raw::{Frame, Stash};
use crate::resolve::stage::Reply;

/// Turn a frame into the answer to itself. `router` is the Ethernet address of the bridge's router.
///
/// # Errors
/// There is nothing to be said to that frame; it is dropped for this reason.
pub fn answer(
    frame: &mut Frame,
    layers: &Layers,
    reply: &Reply,
    router: MacAddr,
    stash: &mut Stash,
) -> Result<(), DropReason> {
    let octets = build(frame.head(), layers, reply, router)?;
    stash.strip(frame);
    if frame.fill(&octets) { Ok(()) } else { Err(DropReason::NoFrame) }
}

/// The answer to the frame whose first segment is `head`.
fn build(head: &[u8], layers: &Layers, reply: &Reply, router: MacAddr) -> Result<Vec<u8>, DropReason> {
    match *reply {
        Reply::Neighbor(mac) if layers.kind == Kind::Arp => arp::reply(head, layers, mac),
        Reply::Neighbor(mac) => nd::advertisement(head, layers, mac, router),
        Reply::Error(error, from, reason) => icmp::error(head, layers, error, from).ok_or(reason),
        Reply::Reset(reason) => reset::reset(head, layers).ok_or(reason),
    }
}

/// A question for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who is asked for.
    pub target: IpAddr,
    /// Who asks: an address of the same family.
    pub source: IpAddr,
    /// The Ethernet address to answer to.
    pub mac: MacAddr,
    /// Where the neighbour was when last heard: it alone is asked. `None`: everybody is.
    pub to: Option<MacAddr>,
}

/// Put a request for a neighbour into a fresh frame: ARP or a neighbour solicitation. Returns false, changing nothing, if
/// source and target are of two families.
pub fn request(frame: &mut Frame, request: &Request) -> bool {
    let octets = match (request.target, request.source) {
        (IpAddr::V4(target), IpAddr::V4(source)) => arp::request(target, source, request.mac, request.to),
        (IpAddr::V6(target), IpAddr::V6(source)) => nd::solicitation(target, source, request.mac, request.to),
        _ => return false,
    };
    frame.fill(&octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::Offload;
    use crate::parse::layers;
    use crate::raw::Pool;
    use crate::reply::samples::*;
    use crate::resolve::stage::IcmpError;

    #[test]
    fn an_answer_takes_the_place_of_a_super_frame_and_nothing_is_left_to_be_done() {
        let pool = Pool::heap(64, 1);
        let mut stash = pool.stash();
        let mut frame = stash.take().unwrap();
        let packet = ipv4(6, 0x4000, &tcp(0x10, &[7; 1400]));
        assert!(frame.fill(&ethernet(&[], 0x0800, &packet)));
        frame.attach(stash.take_spill().unwrap(), 0);
        let offload = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: Offload::GSO_TCPV4,
            gso_size: 700,
            hdr_len: 54,
            csum_start: 34,
            csum_offset: 16,
        };
        frame.set_offload(offload);
        let found = layers(frame.head(), frame.len(), frame.offload()).unwrap();
        let reply = Reply::Error(IcmpError::TooBig(1400), GATEWAY4.into(), DropReason::ExceedsMtu);
        answer(&mut frame, &found, &reply, ROUTER_MAC, &mut stash).unwrap();
        assert!(frame.is_plain() && frame.spill().is_empty());
        assert_eq!(frame.len(), 14 + 576);
        assert!(stash.take_spill().is_some(), "the spill was lost");
        stash.give(frame);
    }

    #[test]
    fn a_request_is_for_one_family() {
        let mut stash = Pool::heap(64, 0).stash();
        let mut frame = stash.take().unwrap();
        let mixed = Request { target: GATEWAY4.into(), source: GATEWAY6.into(), mac: ROUTER_MAC, to: None };
        assert!(!request(&mut frame, &mixed) && frame.is_empty());
        stash.give(frame);
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_in_is_answered_or_not_and_nothing_goes_wrong(
            which in 0usize..64, at in 0usize..200, octet: u8, cut in 0usize..200, v6: bool,
        ) {
            let mut frames = all();
            let mut frame = frames.swap_remove(which % frames.len());
            if let Some(byte) = frame.get_mut(at) {
                *byte = octet;
            }
            // Layers of the sound frame with octets of the broken one: what is said of a frame may be wrong.
            let sound = layers(&frames[which % frames.len()], 2000, None).unwrap_or_default();
            let own = layers(&frame, frame.len(), None).unwrap_or_default();
            frame.truncate(frame.len().saturating_sub(cut));
            let from = if v6 { GATEWAY6.into() } else { GATEWAY4.into() };
            for (found, is_own) in [(sound, false), (own, true)] {
                for reply in [
                    Reply::Neighbor(ROUTER_MAC),
                    Reply::Reset(DropReason::NoPort),
                    Reply::Error(IcmpError::TimeExceeded, from, DropReason::TtlExceeded),
                ] {
                    if let Ok(answer) = build(&frame, &found, &reply, ROUTER_MAC) {
                        proptest::prop_assert!(!is_own || layers(&answer, answer.len(), None).is_ok(), "{answer:02x?}");
                    }
                }
            }
        }
    }
}
