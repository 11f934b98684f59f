//! Trace: walk a frame through the live program, and tell what each stage found. The stages are the real ones; nothing
//! is sent, learned or remembered.

use api::PortId;
use api::state::{Traced, Tuple, Walked, Ways};
use std::net::SocketAddr;

use crate::drop::DropReason;
use crate::key::FlowKey;
use crate::live::{Live, Now};
use crate::parse;
use crate::resolve::program::Program;
use crate::resolve::stage::{IcmpError, Next, Reply};
use crate::resolve::walk::Walk;

/// What would become of the frame `octets` if it came in by `port` now. `everywhere`: policies of pods that are not attached
/// here are asked too.
pub fn trace(program: &Program, live: &Live, (port, octets): (PortId, &[u8]), everywhere: bool, now: Now) -> Traced {
    let dropped = |reason: &str| Traced { verdict: "drop".into(), reason: reason.into(), ..Traced::default() };
    let Some(ingress) = program.ingress(port) else { return dropped("no-bridge") };
    let layers = match parse::layers(octets, octets.len(), None) {
        Ok(layers) => layers,
        Err(reason) => return dropped(reason.name()),
    };
    let key = parse::key(port, octets, &layers).masked(&ingress.mask);
    let mut walk = Walk::new(key, layers, octets, program.topology(), live, now);
    walk.steps = Some(Vec::new());
    walk.everywhere = everywhere;
    let next = program.decide(&mut walk);
    let stages = walk.steps.take().unwrap_or_default();
    let (verdict, reason) = verdict(next);
    // Who lets a frame through is the policies that were asked, or the service that it is for, or else what says where it goes; who does not is the last that
    // was asked.
    let note_of = |stage: &str| stages.iter().rev().find(|step| step.stage == stage && !step.note.is_empty());
    let decider = match verdict {
        "allow" => ["policy", "service", "connection", "route", "bridge"].into_iter().find_map(note_of),
        _ => stages.iter().rev().find(|step| !step.note.is_empty()),
    };
    Traced {
        verdict: verdict.to_owned(),
        reason,
        decided_by: decider.map_or_else(String::new, |step| step.note.clone()),
        outputs: walk.outputs.iter().map(|copy| copy.port).collect(),
        tuple: tuple(&walk.key),
        stages,
    }
}

/// The same for who walks many: nothing is put into words. What is between the stages is said by the reason alone.
pub fn walk(program: &Program, live: &Live, (port, octets): (PortId, &[u8]), everywhere: bool, now: Now) -> Walked {
    let dropped = |reason: DropReason| Walked { refused: Some(reason.name()), ..Walked::default() };
    let Some(ingress) = program.ingress(port) else { return dropped(DropReason::NoBridge) };
    let layers = match parse::layers(octets, octets.len(), None) {
        Ok(layers) => layers,
        Err(reason) => return dropped(reason),
    };
    let key = parse::key(port, octets, &layers).masked(&ingress.mask);
    let mut walk = Walk::new(key, layers, octets, program.topology(), live, now);
    walk.everywhere = everywhere;
    let refused = match program.decide(&mut walk) {
        Next::Drop(reason) | Next::Reply(Reply::Reset(reason) | Reply::Error(_, _, reason)) => Some(reason.name()),
        Next::Deliver | Next::Continue | Next::Enter(_) | Next::Consumed | Next::Wait(..) => None,
        Next::Reply(Reply::Neighbor(_)) => None,
    };
    let out = match *walk.outputs.as_slice() {
        [] => Ways::None,
        [copy] => Ways::One(copy.port),
        _ => Ways::Many,
    };
    Walked { refused, out, tuple: tuple(&walk.key) }
}

fn verdict(next: Next) -> (&'static str, String) {
    match next {
        Next::Deliver | Next::Continue | Next::Enter(_) => ("allow", String::new()),
        Next::Consumed => ("allow", "it is for the switch itself".to_owned()),
        Next::Wait(neighbor, _) => ("allow", format!("once {} is known on the link", neighbor.address)),
        Next::Drop(reason) => {
            let word = if reason.is_denial() { "deny" } else { "drop" };
            (word, reason.name().to_owned())
        }
        Next::Reply(Reply::Neighbor(mac)) => ("allow", format!("answered: {mac}")),
        Next::Reply(Reply::Reset(reason)) => ("reject", format!("{reason}: TCP reset")),
        Next::Reply(Reply::Error(error, _, reason)) => ("reject", format!("{reason}: {}", words(error))),
    }
}

fn words(error: IcmpError) -> String {
    match error {
        IcmpError::TimeExceeded => "ICMP time exceeded".to_owned(),
        IcmpError::NetUnreachable => "ICMP network unreachable".to_owned(),
        IcmpError::HostUnreachable => "ICMP host unreachable".to_owned(),
        IcmpError::PortUnreachable => "ICMP port unreachable".to_owned(),
        IcmpError::TooBig(mtu) => format!("ICMP packet too big, {mtu} octets fit"),
    }
}

/// Addresses and ports of a key.
fn tuple(key: &FlowKey) -> Option<Tuple> {
    let src = SocketAddr::new(key.source()?, key.tp_src());
    Some(Tuple { src, dst: SocketAddr::new(key.destination()?, key.tp_dst()) })
}
