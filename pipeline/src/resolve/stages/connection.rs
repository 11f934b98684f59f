//! connection: known connection? its verdict and translation stand.
//!
//! Worked example, in both directions: 10.0.0.1:4000 opened a connection to the service 10.96.0.1:80, whose backend
//! 10.0.0.2:8080 was chosen then.
//!
//! ```text
//!   original   10.0.0.1:4000 → 10.96.0.1:80      its frames become   10.0.0.1:4000 → 10.0.0.2:8080, the reply turned round
//!   reply      10.0.0.2:8080 → 10.0.0.1:4000     its frames become   10.96.0.1:80 → 10.0.0.1:4000, the original turned round
//! ```
//!
//! Neither asks for services or policies again: both go on at `route`. A frame of no connection is a first one, and meets
//! the stages between. Ethernet addresses are not touched here: `route` sets them for whatever was translated.
//!
//! A connection belongs to who had its addresses when it was made. If one of them has another owner now, the connection
//! is dead and the frame a first one (FASTPATH 3).

use crate::burst::guard;
use crate::key::KeyMask;
use crate::live::connections::{Direction, Found, Tuple};
use crate::parse::proto;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::stages::acl;
use crate::resolve::tracking::{self, Carried};
use crate::resolve::walk::{Effect, Walk};
use crate::rewrite::related::{self, Related};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "connection",
    help: "known connection? its verdict and translation stand",
    first_packet: false,
    build: || Box::new(Tracking),
};

#[derive(Clone, Debug)]
struct Tracking;

/// What the other side of the connection sees of a packet that goes this way.
fn beyond(found: &Found) -> Tuple {
    match found.direction {
        Direction::Original => found.reply.turned(),
        Direction::Reply => found.original.turned(),
    }
}

/// Where a known connection goes on: access lists are asked again, by those that keep no account of connections.
fn onward(walk: &Walk<'_>) -> Next {
    Next::Enter(if walk.listed { acl::FROM.name } else { "route" })
}

impl Tracking {
    /// The connection of a tuple, if its ends are still who they were.
    fn find(&self, walk: &mut Walk<'_>, tuple: &Tuple) -> Option<Found> {
        let found = walk.live.connections.find(tuple, &mut walk.asked)?;
        // Whoever was opened to, its answers come from it: that is no service's address.
        let ends = [found.original.src, found.reply.src];
        if walk.topology.owners(walk.bridge, ends, &mut walk.asked) != found.identities {
            walk.say(|| "an address of its connection has another owner now".to_owned());
            walk.effects.push(Effect::Kill(found.name));
            walk.transient = true;
            return None;
        }
        Some(found)
    }

    /// A packet that may belong to a connection.
    fn flow(&self, walk: &mut Walk<'_>, tuple: Tuple) -> Next {
        walk.tuple = Some(tuple);
        let Some(found) = self.find(walk, &tuple) else { return Next::Continue };
        if tuple.proto == proto::TCP {
            if walk.has(guard::SYN) && walk.live.connections.is_reopened(&found, walk.event()) {
                // Nothing to kill: what is committed takes the place of what is over.
                walk.say(|| "its connection was over: opened anew".to_owned());
                return Next::Continue;
            }
            // The next SYN may open it anew.
            walk.guard_flags(guard::SYN);
        }
        tracking::translate(&mut walk.key, &beyond(&found));
        walk.effects.push(Effect::Advance { name: found.name, direction: found.direction, event: walk.event() });
        walk.say(|| match found.direction {
            Direction::Original => format!("known, on its way to {}:{}", found.reply.src, found.reply.sport),
            Direction::Reply => format!("known, an answer to {}:{}", found.original.src, found.original.sport),
        });
        walk.connection = Some(found);
        onward(walk)
    }

    /// An ICMP error. It says nothing of the state of the connection, and is one of its kind: nothing is remembered.
    fn error(&self, walk: &mut Walk<'_>) -> Next {
        let (frame, zone) = (walk.frame(), walk.bridge);
        let (Some(quoted), Some(source)) = (related::quoted(frame, &walk.layers, zone), walk.key.source()) else {
            return Next::Continue;
        };
        let Some(found) = self.find(walk, &quoted.turned()) else { return Next::Continue };
        let related = Related::new(&found, source);
        walk.say(|| format!("about what {}:{} sent", related.quoted.src, related.quoted.sport));
        if related.quoted != quoted || related.source != source {
            walk.key.set_source(related.source);
            walk.key.set_destination(related.destination);
            walk.related = Some(related);
        }
        walk.connection = Some(found);
        onward(walk)
    }
}

impl Stage for Tracking {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn mask(&self, _port: api::PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if !walk.tracked {
            return Next::Continue;
        }
        match Carried::of(&walk.key, walk.bridge) {
            Carried::Flow(tuple) => self.flow(walk, tuple),
            Carried::Error => self.error(walk),
            Carried::Stray | Carried::Nothing => Next::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::live::connections::{Committed, Event, Plan, Source};
    use crate::probe::cells::Deps;
    use crate::resolve::trial::{
        ACK, RST, SYN, Trial, ZONE, end, endpoint, endpoints, flow, icmp, ip, network, packet, transport,
    };
    use api::{Change, Delta, EndpointKind, PortId};
    use proptest::prelude::*;

    /// Client, service, backend.
    const SERVICES: [[&str; 3]; 2] =
        [["10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:8080"], ["[fd00::1]:4000", "[fd00:96::1]:80", "[fd00::2]:8080"]];

    fn tuple(proto: u8, from: &str, to: &str) -> Tuple {
        let ((src, sport), (dst, dport)) = (end(from), end(to));
        Tuple { zone: ZONE, proto, src, dst, sport, dport }
    }

    fn open(trial: &Trial, original: Tuple, dst: (IpAddr, u16), src: Source, identities: [u64; 2]) -> Found {
        let plan = Plan { original, dst, src, port: PortId(1), identities, event: Event { flags: SYN } };
        match trial.live.connections.commit(&plan, trial.now, &trial.live.cells) {
            Committed::New(found) => found,
            other => panic!("{other:?}"),
        }
    }

    /// A connection of pod a to a service whose backend is pod b.
    fn served(trial: &Trial, proto: u8, [client, service, backend]: [&str; 3]) -> Found {
        open(trial, tuple(proto, client, service), end(backend), Source::Own, [101, 102])
    }

    fn trial() -> Trial {
        Trial::new(&STAGE, &endpoints())
    }

    #[test]
    fn v2_frames_of_a_connection_go_where_its_first_went_and_answers_come_from_the_service() {
        for proto in [6, 17, 132] {
            for ends in SERVICES {
                let [client, service, backend] = ends;
                let trial = trial();
                let name = served(&trial, proto, ends).name;
                for (frame, becomes, direction) in [
                    (flow(proto, client, service, ACK), tuple(proto, client, backend), Direction::Original),
                    (flow(proto, backend, client, ACK), tuple(proto, service, client), Direction::Reply),
                ] {
                    let (next, walk) = trial.decide(1, &frame, |_| ());
                    assert_eq!(next, Next::Enter("route"));
                    assert_eq!(Carried::of(&walk.key, ZONE), Carried::Flow(becomes));
                    assert_eq!(walk.connection.map(|found| (found.name, found.direction)), Some((name, direction)));
                    let event = walk.event();
                    assert_eq!(
                        event.flags,
                        if proto == 6 {
                            ACK
                        } else if proto == 132 {
                            b'p'
                        } else {
                            0
                        }
                    );
                    assert_eq!(walk.effects, [Effect::Advance { name, direction, event }]);
                    assert_eq!(walk.guard & guard::SYN != 0, proto == 6, "another SYN walks");
                    assert!(!walk.transient);
                    assert_eq!((walk.key.eth_src(), walk.key.eth_dst()), (walk.start.eth_src(), walk.start.eth_dst()));
                }
            }
        }
    }

    #[test]
    fn a_masqueraded_ping_comes_back_under_the_identifier_that_it_left_with() {
        for (pod, outside, node, [request, reply]) in
            [("10.0.0.1", "203.0.113.9", "192.0.2.1", [8, 0]), ("fd00::1", "2001:db8:9::9", "2001:db8::1", [128, 129])]
        {
            let trial = trial();
            let proto = if request == 8 { 1 } else { 58 };
            let original = Tuple { zone: ZONE, proto, src: ip(pod), dst: ip(outside), sport: 7, dport: 7 };
            let source = Source::Masquerade(ip(node), (50_000, 50_099));
            let found = open(&trial, original, (ip(outside), 7), source, [101, 0]);
            let id = found.reply.dport;
            let (_, key) = trial.becomes(1, &icmp(pod, outside, request, 7));
            assert_eq!((key.source(), key.icmp_id()), (Some(ip(node)), Some(id)));
            let (next, key) = trial.becomes(4, &icmp(outside, node, reply, id));
            assert_eq!((next, key.destination(), key.icmp_id()), (Next::Enter("route"), Some(ip(pod)), Some(7)));
        }
    }

    #[test]
    fn v18_v19_two_services_of_one_backend_and_the_backend_itself_from_one_port_are_three_connections() {
        let trial = trial();
        let (client, backend) = ("10.0.0.1:4000", "10.0.0.2:8080");
        let mut answers = std::collections::BTreeSet::new();
        for to in ["10.96.0.1:80", "10.96.0.2:80", backend] {
            let found = open(&trial, tuple(6, client, to), end(backend), Source::Own, [101, 102]);
            answers.insert(found.reply.dport);
            let out = flow(6, client, to, ACK);
            let (_, key) = trial.becomes(1, &out);
            assert_eq!((key.source(), key.tp_src()), (Some(ip("10.0.0.1")), found.reply.dport));
            assert_eq!((key.destination(), key.tp_dst()), (Some(end(backend).0), 8080));
            let answer = flow(6, backend, &format!("10.0.0.1:{}", found.reply.dport), ACK);
            let (_, key) = trial.becomes(2, &answer);
            assert_eq!(Carried::of(&key, ZONE), Carried::Flow(tuple(6, to, client)));
        }
        assert_eq!(answers.len(), 3);
    }

    #[test]
    fn a_first_packet_goes_on_as_it_is_and_its_decision_falls_when_the_connection_appears() {
        let trial = trial();
        let frame = flow(6, "10.0.0.1:4000", "10.96.0.1:80", SYN);
        let (next, walk) = trial.decide(1, &frame, |_| ());
        assert_eq!((next, walk.tuple), (Next::Continue, Some(tuple(6, "10.0.0.1:4000", "10.96.0.1:80"))));
        assert_eq!((walk.key, walk.connection, walk.effects.len()), (walk.start, None, 0));
        let (deps, made) = (walk.asked.deps(true), trial.live.cells.now());
        assert!(trial.live.connections.rest_on_absence(&walk.tuple.unwrap(), &trial.live.cells));
        served(&trial, 6, SERVICES[0]);
        assert!(!trial.live.cells.unchanged_since(&deps.cells(), made));
    }

    #[test]
    fn a_connection_that_is_killed_takes_its_decisions_along() {
        for frame in [flow(6, "10.0.0.1:4000", "10.96.0.1:80", ACK), flow(6, "10.0.0.2:8080", "10.0.0.1:4000", ACK)] {
            let trial = trial();
            let name = served(&trial, 6, SERVICES[0]).name;
            let (next, walk) = trial.decide(1, &frame, |_| ());
            let (deps, made) = (walk.asked.deps(true), trial.live.cells.now());
            trial.live.connections.kill(name, trial.now, &trial.live.cells);
            assert!(next == Next::Enter("route") && !trial.live.cells.unchanged_since(&deps.cells(), made));
            assert_eq!(trial.decide(1, &frame, |_| ()).0, Next::Continue);
        }
    }

    #[test]
    fn a_connection_is_dead_when_an_address_of_it_has_another_owner() {
        for (address, port) in [("10.0.0.1", 1), ("10.0.0.2", 2)] {
            let mut trial = trial();
            let name = served(&trial, 6, SERVICES[0]).name;
            let frame = flow(6, "10.0.0.2:8080", "10.0.0.1:4000", ACK);
            let (_, walk) = trial.decide(1, &frame, |_| ());
            let (deps, made) = (walk.asked.deps(true), trial.live.cells.now());
            let old = endpoint(address, port, EndpointKind::Pod, 101);
            for new in [None, Some(endpoint(address, port, EndpointKind::Pod, 999))] {
                trial.apply(&[Change::Endpoint(Delta { old: Some(old.clone()), new })]);
                assert!(!trial.live.cells.unchanged_since(&deps.cells(), made));
                let (next, walk) = trial.decide(1, &frame, |_| ());
                assert_eq!((next, walk.connection, walk.key), (Next::Continue, None, walk.start));
                assert_eq!((walk.effects, walk.transient), (vec![Effect::Kill(name)], true));
            }
        }
    }

    #[test]
    fn a_syn_opens_anew_what_is_over_and_nothing_else() {
        let trial = trial();
        let [client, service, backend] = SERVICES[0];
        let name = served(&trial, 6, SERVICES[0]).name;
        let syn = flow(6, client, service, SYN);
        // A SYN that is sent once more, because nobody answered.
        assert_eq!(trial.decide(1, &syn, |_| ()).0, Next::Enter("route"));
        let reset = flow(6, backend, client, RST | ACK);
        let (next, walk) = trial.decide(2, &reset, |_| ());
        assert_eq!(next, Next::Enter("route"));
        assert!(trial.live.connections.advance(name, Direction::Reply, walk.event(), trial.now));
        let (next, walk) = trial.decide(1, &syn, |_| ());
        assert_eq!((next, walk.connection, walk.key), (Next::Continue, None, walk.start));
        // What still arrives of the old one does not open the new one.
        assert_eq!(trial.decide(1, &flow(6, client, service, ACK), |_| ()).0, Next::Enter("route"));
        served(&trial, 6, [client, service, "10.0.0.2:8081"]);
        let (_, key) = trial.becomes(1, &syn);
        assert_eq!(key.tp_dst(), 8081);
    }

    /// An error (destination unreachable) from `source` that quotes a segment.
    fn error(source: &str, from: &str, to: &str) -> Vec<u8> {
        let ((src, sport), (dst, dport)) = (end(from), end(to));
        let quote = network(src, dst, 6, &transport(6, sport, dport, SYN));
        let (proto, kind) = if src.is_ipv4() { (1, 3) } else { (58, 1) };
        packet(ip(source), src, proto, &[&[kind, 1, 0, 0, 0, 0, 0, 0][..], &quote].concat())
    }

    #[test]
    fn v23_an_error_goes_to_who_sent_what_it_is_about_and_is_not_remembered() {
        for ends in SERVICES {
            let [client, service, backend] = ends;
            let [client_address, service_address, backend_address] = ends.map(|text| end(text).0);
            let trial = trial();
            let found = served(&trial, 6, ends);
            for (frame, source, quoted) in [
                (error(&backend_address.to_string(), client, backend), service_address, found.original),
                (error(&client_address.to_string(), service, client), client_address, found.reply),
            ] {
                let (next, walk) = trial.decide(1, &frame, |_| ());
                let related = Related { quoted, source, destination: quoted.src };
                assert_eq!((next, walk.related), (Next::Enter("route"), Some(related)));
                assert_eq!((walk.key.source(), walk.key.destination()), (Some(source), Some(quoted.src)));
                assert_eq!(walk.connection.map(|found| found.name), Some(found.name));
                assert!(walk.transient && walk.effects.is_empty());
            }
        }
    }

    #[test]
    fn an_error_about_an_untranslated_connection_or_none_goes_on_as_it_is() {
        let trial = trial();
        let frame = error("10.0.0.2", "10.0.0.1:4000", "10.0.0.2:80");
        let (next, walk) = trial.decide(2, &frame, |_| ());
        assert_eq!((next, walk.connection, walk.related, walk.key), (Next::Continue, None, None, walk.start));
        let direct = tuple(6, "10.0.0.1:4000", "10.0.0.2:80");
        let found = open(&trial, direct, end("10.0.0.2:80"), Source::Own, [101, 102]);
        let (next, walk) = trial.decide(2, &frame, |_| ());
        assert_eq!((next, walk.related, walk.key), (Next::Enter("route"), None, walk.start));
        assert_eq!(walk.connection.map(|known| known.name), Some(found.name));
    }

    #[test]
    fn a_plain_bridge_asks_nothing_and_what_is_not_tracked_has_no_tuple() {
        let trial = trial();
        served(&trial, 6, SERVICES[0]);
        let frame = flow(6, "10.0.0.1:4000", "10.96.0.1:80", ACK);
        let plain = |walk: &mut Walk<'_>| (walk.routed, walk.tracked, walk.tuple) = (false, false, None);
        let (next, walk) = trial.decide(1, &frame, plain);
        assert_eq!((next, walk.tuple, walk.asked.deps(false)), (Next::Continue, None, Deps::default()));
        let solicitation = icmp("fd00::1", "fd00::2", 135, 0);
        let (next, walk) = trial.decide(1, &solicitation, |_| ());
        assert_eq!((next, walk.tuple), (Next::Continue, None));
    }

    proptest! {
        #[test]
        fn what_is_answered_to_what_arrived_comes_back_to_what_was_sent(
            number in 0usize..3, sport in 1u16.., dport in 1u16.., bport in 1u16.., masquerade: bool, hosts: [u8; 3],
        ) {
            let proto = [6, 17, 132][number];
            let [client, service, backend] = [
                format!("10.1.{}.1:{sport}", hosts[0]),
                format!("10.2.{}.1:{dport}", hosts[1]),
                format!("10.3.{}.1:{bport}", hosts[2]),
            ];
            let trial = trial();
            let source = if masquerade { Source::Masquerade(ip("192.0.2.1"), (50_000, 50_099)) } else { Source::Own };
            let sent = tuple(proto, &client, &service);
            open(&trial, sent, end(&backend), source, [0, 0]);
            let out = flow(proto, &client, &service, ACK);
            let (_, key) = trial.becomes(1, &out);
            let Carried::Flow(arrived) = Carried::of(&key, ZONE) else { panic!("a flow") };
            prop_assert_eq!((arrived.dst, arrived.dport), end(&backend));
            let answer = arrived.turned();
            let back = packet(answer.src, answer.dst, proto, &transport(proto, answer.sport, answer.dport, ACK));
            let (_, key) = trial.becomes(2, &back);
            prop_assert_eq!(Carried::of(&key, ZONE), Carried::Flow(sent.turned()));
        }
    }
}
