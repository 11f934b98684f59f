//! neighbor: who answers for an address on a routed bridge, and who is on its links?
//!
//! The switch knows its endpoints, so ARP and neighbour discovery for them end here: nothing is flooded, and nobody can
//! answer in another's name. What speaks on a link that routes lead to is learned, see [`crate::live::neighbors`].
//!
//! | asked for | answer |
//! |---|---|
//! | a gateway | the router's Ethernet address |
//! | an endpoint, a static neighbour | its Ethernet address; nothing (`arp-own-port`) to who is behind the same port |
//! | a pod, by who is behind the uplink | nothing (`no-endpoint`): pods are reached by way of the node |
//! | an address of this node's podCIDRs that nobody has | nothing (`no-endpoint`) |
//! | anything else, service addresses among it | the frame goes on, and is flooded |
//!
//! Worked example: pod 10.0.0.5 (port 3) asks for 10.0.0.6 (port 4) and is told its Ethernet address. It claims to be
//! 10.0.0.6, by whatever message: dropped as `address-not-owned`. It asks for 10.0.0.5, to detect a duplicate (RFC 5227,
//! RFC 4862): silence, the address is its own.
//!
//! Router discovery and redirects are not for pods, whose router is this switch: dropped by name, whoever sends them. A
//! node that configures itself by router advertisements does so on an interface of its own.
//!
//! All decisions here are for one frame: they rest on octets that no key has.

use std::net::IpAddr;

use api::{AddressKey, Change, EndpointKind, Hop, MacAddr, PortId, Router};

use crate::burst::Kind;
use crate::drop::DropReason;
use crate::key::{Field, FlowKey, KeyMask};
use crate::probe::cells::Touched;
use crate::reply::arp::Arp;
use crate::reply::nd::Message;
use crate::resolve::stage::{Next, Reply, Stage, StageDef};
use crate::resolve::walk::{Effect, Walk};
use crate::tables::Prefixes;

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "neighbor",
    help: "who answers for this address, and who is on the link?",
    first_packet: false,
    build: || Box::new(Neighborhood::new()),
};

/// ICMPv6 types (RFC 4861, 4).
mod nd {
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
}

#[derive(Clone, Debug)]
struct Neighborhood {
    /// The routes that say something of a link: `OnLink` its port, `Endpoint` `None`.
    links: Prefixes<Option<PortId>>,
}

impl Neighborhood {
    fn new() -> Self {
        Self { links: Prefixes::new("link region", "link wide") }
    }

    /// Somebody speaks: may it, and is it to be learned? `mac` is where it says it is, if it does; `overrides`: its word
    /// counts more than what is known.
    fn hear(&self, walk: &mut Walk<'_>, speaker: IpAddr, mac: Option<MacAddr>, overrides: bool) -> Result<(), Next> {
        let in_port = walk.key.in_port();
        let key = AddressKey { bridge: walk.bridge, address: speaker };
        match walk.topology.resident(key, &mut walk.asked) {
            Some(resident) if resident.port == in_port => return Ok(()),
            Some(resident) => {
                let name = &resident.name;
                walk.say(|| format!("{speaker} is {name}"));
                return Err(Next::Drop(DropReason::AddressNotOwned));
            }
            None => {}
        }
        let link = self.links.get(walk.bridge, speaker, &mut walk.asked);
        let is_there = matches!(link, Some((_, Some(port))) if *port == in_port);
        if !is_there && !walk.live.neighbors.is_expected(key, in_port) {
            return Ok(());
        }
        let known = walk.live.neighbors.find(key, walk.now, &mut walk.asked).filter(|known| known.port == in_port);
        let mac = match (mac, known) {
            // RFC 4861, 7.2.5: a word that does not override leaves another address as it is.
            (Some(mac), Some(known)) if !overrides && mac != known.mac => return Ok(()),
            (Some(mac), _) => mac,
            // A solicited advertisement may leave out where it comes from, when that is no news.
            (None, Some(known)) if known.mac == walk.key.eth_src() => known.mac,
            (None, _) => return Ok(()),
        };
        if !mac.is_group() && !mac.is_zero() {
            walk.say(|| format!("{speaker} is at {mac}"));
            walk.effects.push(Effect::Neighbor { key, mac });
        }
        Ok(())
    }

    /// Somebody asks for `target`.
    fn answer(&self, walk: &mut Walk<'_>, router: &Router, target: IpAddr) -> Next {
        let in_port = walk.key.in_port();
        let key = AddressKey { bridge: walk.bridge, address: target };
        if let Some(resident) = walk.topology.resident(key, &mut walk.asked) {
            let name = &resident.name;
            walk.say(|| format!("{target} is {name}"));
            let outside = router.uplink == Some(in_port);
            return match resident.kind {
                _ if resident.port == in_port => Next::Drop(DropReason::ArpOwnPort),
                Some(EndpointKind::Gateway) => Next::Reply(Reply::Neighbor(router.mac)),
                Some(EndpointKind::Pod) if outside => Next::Drop(DropReason::NoEndpoint),
                _ => Next::Reply(Reply::Neighbor(resident.mac)),
            };
        }
        match self.links.get(walk.bridge, target, &mut walk.asked) {
            Some((prefix, None)) => {
                walk.say(|| format!("nobody has {target} of {prefix}"));
                Next::Drop(DropReason::NoEndpoint)
            }
            _ => Next::Continue,
        }
    }

    fn arp(&self, walk: &mut Walk<'_>, router: &Router) -> Result<Next, Next> {
        let arp = Arp::read(walk.frame(), &walk.layers).map_err(Next::Drop)?;
        // A probe (RFC 5227, 2.1.1) speaks for nobody.
        if !arp.sender.is_unspecified() {
            self.hear(walk, arp.sender.into(), Some(arp.sender_mac), true)?;
        }
        Ok(if !arp.asks {
            told(walk, router)
        } else if arp.sender == arp.target {
            Next::Continue
        } else {
            self.answer(walk, router, arp.target.into())
        })
    }

    fn discovery(&self, walk: &mut Walk<'_>, router: &Router) -> Result<Next, Next> {
        let message = Message::read(walk.frame(), &walk.layers).map_err(Next::Drop)?;
        if !message.asks {
            self.hear(walk, message.target.into(), message.address, message.overrides)?;
            return Ok(told(walk, router));
        }
        // Who has no address yet speaks for nobody.
        if !message.source.is_unspecified() {
            self.hear(walk, message.source.into(), message.address, true)?;
        }
        Ok(self.answer(walk, router, message.target.into()))
    }
}

/// Somebody told of itself: us, or others.
fn told(walk: &Walk<'_>, router: &Router) -> Next {
    if walk.key.eth_dst() == router.mac { Next::Consumed } else { Next::Continue }
}

impl Stage for Neighborhood {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn apply(&mut self, changes: &[Change], touched: &mut Touched<'_>) {
        for change in changes {
            if let Change::Route(delta) = change
                && let Some(key) = delta.new.as_ref().or(delta.old.as_ref()).map(|route| route.key)
            {
                let link = delta.new.as_ref().and_then(|route| match route.to {
                    Hop::OnLink { port } => Some(Some(port)),
                    Hop::Endpoint => Some(None),
                    Hop::Via { .. } | Hop::Unreachable | Hop::Blackhole => None,
                });
                self.links.set(key.bridge, key.prefix, link, touched);
            }
        }
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        const MASK: KeyMask = FlowKey::mask(&[
            Field::IN_PORT,
            Field::ETH_DST,
            Field::ETH_SRC,
            Field::ETH_TYPE,
            Field::IP_PROTO,
            Field::IP_FRAG,
            Field::TP_SRC,
        ]);
        if routed { MASK } else { KeyMask::EMPTY }
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        let (true, Some(router)) = (walk.routed, walk.router) else { return Next::Continue };
        match (walk.layers.kind, walk.key.icmp_type()) {
            (Kind::Arp, _) => self.arp(walk, router).unwrap_or_else(|end| end),
            (Kind::Ipv6, Some(nd::SOLICITATION | nd::ADVERTISEMENT)) => {
                self.discovery(walk, router).unwrap_or_else(|end| end)
            }
            (Kind::Ipv6, Some(nd::ROUTER_SOLICITATION | nd::ROUTER_ADVERTISEMENT | nd::REDIRECT)) => {
                Next::Drop(DropReason::NdRouter)
            }
            _ => Next::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::reply::samples::{ROUTER_MAC, arp, ethernet, nd as discovery};
    use crate::resolve::stages::kit::*;

    const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

    /// An ARP frame: from `mac`, to the router if `to_router`, else to everybody.
    fn arp_frame(opcode: u8, mac: MacAddr, sender: &str, target: &str, to_router: bool) -> Vec<u8> {
        let mut frame = ethernet(&[], 0x0806, &arp(opcode, sender.parse().unwrap(), target.parse().unwrap()));
        if !to_router {
            frame[..6].copy_from_slice(&[0xff; 6]);
        }
        frame[6..12].copy_from_slice(&mac.0);
        frame[22..28].copy_from_slice(&mac.0);
        frame
    }

    fn six(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// The group that listens for an address.
    fn group(target: &str) -> Ipv6Addr {
        let [.., a, b, c] = six(target).octets();
        Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
    }

    fn solicitation(mac: MacAddr, source: &str, target: &str) -> Vec<u8> {
        let option = [&[1, 1][..], &mac.0].concat();
        let options = if source == "::" { &[][..] } else { &option };
        let mut frame = ethernet(&[], 0x86dd, &discovery(six(source), group(target), 135, 0, six(target), options));
        frame[6..12].copy_from_slice(&mac.0);
        frame
    }

    /// An advertisement to the router; `mac` is left out of it if `bare`.
    fn advertisement(mac: MacAddr, target: &str, overrides: bool, bare: bool) -> Vec<u8> {
        let option = [&[2, 1][..], &mac.0].concat();
        let flags = 0x40 | if overrides { 0x20 } else { 0 };
        let options = if bare { &[][..] } else { &option };
        let message = discovery(six(target), six("fd00::1"), 136, flags, six(target), options);
        let mut frame = ethernet(&[], 0x86dd, &message);
        frame[6..12].copy_from_slice(&mac.0);
        frame
    }

    fn learned(mac: MacAddr, address: &str) -> Vec<Effect> {
        vec![Effect::Neighbor { key: key(address), mac }]
    }

    const fn at(mac: MacAddr) -> Next {
        Next::Reply(Reply::Neighbor(mac))
    }

    #[test]
    fn who_asks_for_what_the_switch_knows_is_answered() {
        let mut changes = node();
        changes.push(neighbor("192.0.2.77", UPLINK, STRANGER));
        let bench = Bench::new(&STAGE, &changes);
        let own = Next::Drop(DropReason::ArpOwnPort);
        let nobody = Next::Drop(DropReason::NoEndpoint);
        for (why, port, asker, target, next) in [
            ("a gateway", POD, "10.0.0.5", "10.0.0.1", at(ROUTER_MAC)),
            ("a gateway, from outside", UPLINK, "192.0.2.1", "10.0.0.1", at(ROUTER_MAC)),
            ("a pod", POD, "10.0.0.5", "10.0.0.6", at(mac(OTHER))),
            ("its own address", POD, "10.0.0.5", "10.0.0.5", Next::Continue),
            ("its own address, as a probe", POD, "0.0.0.0", "10.0.0.5", own),
            ("another's address, as a probe", POD, "0.0.0.0", "10.0.0.6", at(mac(OTHER))),
            ("the node, from outside", UPLINK, "192.0.2.1", "192.0.2.9", at(mac(LOCAL))),
            ("the node, from a pod", POD, "10.0.0.5", "192.0.2.9", at(mac(LOCAL))),
            ("a pod, from outside", UPLINK, "192.0.2.1", "10.0.0.5", nobody),
            ("a pod, from the node", LOCAL, "192.0.2.9", "10.0.0.5", at(mac(POD))),
            ("a static neighbour", POD, "10.0.0.5", "192.0.2.77", at(STRANGER)),
            ("a static neighbour, beside it", UPLINK, "192.0.2.1", "192.0.2.77", own),
            ("nobody of the pods", POD, "10.0.0.5", "10.0.0.99", nobody),
            ("a service address", POD, "10.0.0.5", "10.96.0.1", Next::Continue),
            ("a stranger", LOCAL, "192.0.2.9", "192.0.2.1", Next::Continue),
        ] {
            let decided = bench.decide(port, &arp_frame(1, mac(port), asker, target, false));
            assert_eq!((decided.next, decided.transient), (next, true), "{why}: {}", decided.note);
        }
        for (why, port, asker, target, next) in [
            ("a gateway", POD, "fd00::5", "fd00::1", at(ROUTER_MAC)),
            ("a pod", POD, "fd00::5", "fd00::6", at(mac(OTHER))),
            ("its own address, to detect a duplicate", POD, "::", "fd00::5", own),
            ("another's address, to detect a duplicate", POD, "::", "fd00::6", at(mac(OTHER))),
            ("nobody of the pods", POD, "fd00::5", "fd00::99", nobody),
            ("its link-local address", POD, "::", "fe80::1234", Next::Continue),
        ] {
            let decided = bench.decide(port, &solicitation(mac(port), asker, target));
            assert_eq!((decided.next, decided.transient), (next, true), "{why}: {}", decided.note);
        }
    }

    #[test]
    fn nobody_speaks_for_an_address_that_is_elsewhere() {
        let bench = Bench::new(&STAGE, &node());
        let spoofed = Next::Drop(DropReason::AddressNotOwned);
        for frame in [
            arp_frame(1, mac(POD), "10.0.0.6", "10.0.0.6", false),
            arp_frame(1, mac(POD), "10.0.0.1", "10.0.0.6", false),
            arp_frame(2, mac(POD), "10.0.0.1", "10.0.0.6", false),
            arp_frame(2, mac(POD), "192.0.2.9", "192.0.2.1", true),
            solicitation(mac(POD), "fd00::6", "fd00::1"),
            advertisement(mac(POD), "fd00::1", true, false),
            advertisement(mac(POD), "fd00::6", false, true),
        ] {
            let decided = bench.decide(POD, &frame);
            assert_eq!((decided.next, decided.effects), (spoofed, vec![]), "{}", decided.note);
        }
    }

    #[test]
    fn what_speaks_on_a_link_is_learned_and_what_is_known_is_not() {
        let bench = Bench::new(&STAGE, &node());
        let rows = [
            ("a request", UPLINK, "192.0.2.1", 1, true),
            ("a reply", UPLINK, "192.0.2.1", 2, true),
            ("a pod", POD, "10.0.0.5", 1, false),
            ("the node", LOCAL, "192.0.2.9", 1, false),
            ("a pod that claims to be outside", POD, "192.0.2.1", 1, false),
            ("somebody who is not of the link", UPLINK, "198.51.100.1", 1, false),
            ("a probe", UPLINK, "0.0.0.0", 1, false),
        ];
        for (why, port, sender, opcode, learns) in rows {
            let decided = bench.decide(port, &arp_frame(opcode, STRANGER, sender, "192.0.2.9", false));
            let effects = if learns { learned(STRANGER, sender) } else { vec![] };
            assert_eq!(decided.effects, effects, "{why}");
        }
        // Gratuitous ARP, in both its forms, and in two families.
        for opcode in [1, 2] {
            let decided = bench.decide(UPLINK, &arp_frame(opcode, STRANGER, "192.0.2.1", "192.0.2.1", false));
            assert_eq!((decided.next, decided.effects), (Next::Continue, learned(STRANGER, "192.0.2.1")));
        }
        let decided = bench.decide(UPLINK, &solicitation(STRANGER, "2001:db8::1", "fd00::1"));
        assert_eq!((decided.next, decided.effects), (at(ROUTER_MAC), learned(STRANGER, "2001:db8::1")));
        for nobody in [MacAddr::BROADCAST, MacAddr::default()] {
            let mut frame = arp_frame(2, STRANGER, "192.0.2.1", "192.0.2.9", true);
            frame[22..28].copy_from_slice(&nobody.0);
            assert_eq!(bench.decide(UPLINK, &frame).effects, []);
        }
    }

    #[test]
    fn what_is_told_to_the_router_ends_there() {
        let bench = Bench::new(&STAGE, &node());
        let reply = arp_frame(2, STRANGER, "192.0.2.1", "192.0.2.9", true);
        assert_eq!(bench.decide(UPLINK, &reply).next, Next::Consumed);
        let advertised = advertisement(STRANGER, "2001:db8::1", true, false);
        let decided = bench.decide(UPLINK, &advertised);
        assert_eq!((decided.next, decided.effects), (Next::Consumed, learned(STRANGER, "2001:db8::1")));
    }

    #[test]
    fn a_gateway_outside_of_all_links_is_learned_when_it_was_asked_for() {
        let bench = Bench::new(&STAGE, &node());
        let frame = advertisement(STRANGER, "fe80::1", true, false);
        assert_eq!(bench.decide(UPLINK, &frame).effects, []);
        assert!(bench.live.neighbors.solicit(key("fe80::1"), UPLINK, bench.now, &bench.live.cells));
        assert_eq!(bench.decide(UPLINK, &frame).effects, learned(STRANGER, "fe80::1"));
        assert_eq!(bench.decide(POD, &frame).effects, [], "it was asked for elsewhere");
    }

    #[test]
    fn an_advertisement_counts_as_far_as_it_says() {
        let bench = Bench::new(&STAGE, &node());
        let address = "2001:db8::1";
        // Without an address it is no news of somebody unknown.
        assert_eq!(bench.decide(UPLINK, &advertisement(STRANGER, address, true, true)).effects, []);
        bench.live.neighbors.learn(key(address), UPLINK, STRANGER, bench.now, &bench.live.cells);
        let moved = MacAddr([2, 0, 0, 0, 9, 8]);
        for (mac, overrides, bare, effects) in [
            (STRANGER, false, true, learned(STRANGER, address)),
            (STRANGER, false, false, learned(STRANGER, address)),
            (moved, false, false, vec![]),
            (moved, true, true, vec![]),
            (moved, true, false, learned(moved, address)),
        ] {
            let decided = bench.decide(UPLINK, &advertisement(mac, address, overrides, bare));
            assert_eq!(decided.effects, effects, "{mac} {overrides} {bare}");
        }
    }

    #[test]
    fn malformed_messages_and_router_discovery_are_dropped_by_name() {
        let bench = Bench::new(&STAGE, &node());
        let mut frame = solicitation(mac(POD), "fd00::5", "fd00::1");
        frame[14 + 7] = 64;
        assert_eq!(bench.decide(POD, &frame).next, Next::Drop(DropReason::NdMalformed));
        let frame = arp_frame(3, mac(POD), "10.0.0.5", "10.0.0.1", false);
        assert_eq!(bench.decide(POD, &frame).next, Next::Drop(DropReason::ArpMalformed));
        for kind in [133, 134, 137] {
            let frame = ethernet(&[], 0x86dd, &discovery(six("fe80::5"), six("ff02::2"), kind, 0, six("::"), &[]));
            let decided = bench.decide(POD, &frame);
            assert_eq!((decided.next, decided.transient), (Next::Drop(DropReason::NdRouter), false));
        }
    }

    #[test]
    fn other_frames_and_other_bridges_are_left_alone() {
        let bench = Bench::new(&STAGE, &node());
        let echo = ethernet(&[], 0x86dd, &discovery(six("fd00::5"), six("fd00::6"), 128, 0, six("::"), &[]));
        let decided = bench.decide(POD, &echo);
        assert_eq!((decided.next, decided.transient), (Next::Continue, false));
        let request = arp_frame(1, mac(POD), "10.0.0.5", "10.0.0.1", false);
        let decided = bench.decide_with(POD, &request, |walk| walk.routed = false);
        assert_eq!((decided.next, decided.transient), (Next::Continue, false));
        assert_eq!(decided.deps, Default::default(), "a plain switch asks nothing here");
        assert_eq!(bench.stage.mask(POD, false), KeyMask::EMPTY);
    }
}
