//! commit: remember the connection, both directions.
//!
//! The stage only says what is to be remembered; the table makes it so when the decision is carried out, and chooses the
//! source port then. Whatever follows is found by `connection`.
//!
//! First packets alone have work here, and yet the decision rests on what is asked: on who the two ends are, which the
//! next walk of the same flow asks in `connection`. It would be believed for too long if it did not.

use api::{PortId, Proto};

use crate::burst::guard;
use crate::key::KeyMask;
use crate::live::connections::Plan;
use crate::parse::proto;
use crate::resolve::stage::{Next, Stage, StageDef};
use crate::resolve::tracking;
use crate::resolve::walk::{Effect, Walk};

/// The stage.
pub const STAGE: StageDef = StageDef {
    name: "commit",
    help: "remember the connection, both directions",
    first_packet: false,
    build: || Box::new(Commit),
};

#[derive(Clone, Debug)]
struct Commit;

impl Stage for Commit {
    fn clone_box(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn mask(&self, _port: PortId, routed: bool) -> KeyMask {
        tracking::mask(routed)
    }

    fn decide(&self, walk: &mut Walk<'_>) -> Next {
        if walk.connection.is_some() || walk.outputs.is_empty() || !walk.tracked {
            return Next::Continue;
        }
        let (Some(original), Some(now)) = (walk.tuple, walk.key.destination()) else { return Next::Continue };
        if !tracking::opens(walk) {
            return Next::Continue;
        }
        if original.proto == proto::TCP {
            // Another SYN walks: by then the connection may be over, and opened anew.
            walk.guard_flags(guard::SYN);
        }
        // Of what has no ports the identifier stays what it is.
        let port = if Proto::of(original.proto).is_some() { walk.key.tp_dst() } else { original.dport };
        walk.identities = walk.topology.owners(walk.bridge, [original.src, now], &mut walk.asked);
        walk.effects.push(Effect::Commit(Plan {
            original,
            dst: (now, port),
            src: walk.source,
            port: walk.start.in_port(),
            identities: walk.identities,
            event: walk.event(),
        }));
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::VlanEdit;
    use crate::live::connections::{Event, Source, Tuple};
    use crate::resolve::trial::{RST, SYN, Trial, ZONE, end, endpoint, endpoints, flow, icmp, ip};
    use crate::resolve::walk::Copy;
    use api::{Change, Delta, EndpointKind};

    fn out(walk: &mut Walk<'_>) {
        walk.outputs.push(Copy { port: PortId(2), vlan: VlanEdit::Keep, mtu: u16::MAX });
    }

    fn tuple(proto: u8, from: &str, to: &str) -> Tuple {
        let ((src, sport), (dst, dport)) = (end(from), end(to));
        Tuple { zone: ZONE, proto, src, dst, sport, dport }
    }

    #[test]
    fn a_first_packet_is_remembered_with_what_it_was_and_what_it_became() {
        let trial = Trial::new(&STAGE, &endpoints());
        for (from, to, backend) in [
            ("10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:8080"),
            ("[fd00::1]:4000", "[fd00:96::1]:80", "[fd00::2]:8080"),
        ] {
            let frame = flow(6, from, to, SYN);
            let src = Source::Masquerade(ip("192.0.2.1"), (1, 2));
            let (next, walk) = trial.decide(1, &frame, |walk| {
                out(walk);
                walk.source = src;
                walk.key.set_destination(end(backend).0);
                walk.key.set_tp_dst(end(backend).1);
            });
            let (original, event) = (tuple(6, from, to), Event { flags: SYN });
            let plan = Plan { original, dst: end(backend), src, port: PortId(1), identities: [101, 102], event };
            assert_eq!((next, walk.effects), (Next::Continue, vec![Effect::Commit(plan)]));
            assert!(walk.guard & guard::SYN != 0 && !walk.transient);
        }
    }

    #[test]
    fn a_ping_is_remembered_by_its_identifier() {
        let trial = Trial::new(&STAGE, &endpoints());
        let frame = icmp("10.0.0.1", "203.0.113.9", 8, 0xabcd);
        let (_, walk) = trial.decide(1, &frame, out);
        let [Effect::Commit(plan)] = walk.effects[..] else { panic!("{:?}", walk.effects) };
        assert_eq!(plan.original, tuple(1, "10.0.0.1:43981", "203.0.113.9:43981"));
        assert_eq!((plan.dst, plan.identities), (end("203.0.113.9:43981"), [101, 0]));
        assert_eq!(walk.guard & guard::SYN, 0);
    }

    #[test]
    fn answers_to_nothing_and_what_goes_nowhere_and_what_is_not_routed_are_not_remembered() {
        let trial = Trial::new(&STAGE, &endpoints());
        for frame in [
            flow(6, "10.0.0.1:1", "10.0.0.2:2", RST),
            icmp("10.0.0.1", "10.0.0.2", 0, 1),
            icmp("10.0.0.1", "10.0.0.2", 3, 1),
            icmp("fd00::1", "fd00::2", 136, 1),
        ] {
            let (next, walk) = trial.decide(1, &frame, out);
            assert_eq!((next, walk.effects.len()), (Next::Continue, 0), "{frame:x?}");
        }
        let frame = flow(6, "10.0.0.1:1", "10.0.0.2:2", SYN);
        assert_eq!(trial.decide(1, &frame, |_| ()).1.effects.len(), 0);
        let plain = |walk: &mut Walk<'_>| {
            out(walk);
            (walk.routed, walk.tracked) = (false, false);
        };
        assert_eq!(trial.decide(1, &frame, plain).1.effects.len(), 0);
    }

    #[test]
    fn the_decision_for_a_new_connection_falls_with_the_owner_of_either_end() {
        for (address, port) in [("10.0.0.1", 1), ("10.0.0.2", 2)] {
            let mut trial = Trial::new(&STAGE, &endpoints());
            let frame = flow(6, "10.0.0.1:1", "10.0.0.2:2", SYN);
            let (_, walk) = trial.decide(1, &frame, out);
            // What first packets alone ask is no part of it.
            let (deps, made) = (walk.asked.deps(true), trial.live.cells.now());
            let new = endpoint(address, port, EndpointKind::Pod, 999);
            trial.apply(&[Change::Endpoint(Delta::add(new))]);
            assert!(!trial.live.cells.unchanged_since(&deps.cells(), made), "{address}");
        }
    }
}
