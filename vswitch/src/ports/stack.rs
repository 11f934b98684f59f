//! `stack`: the switch's own host stack, which answers for gateways and service addresses.
//!
//! One port, [`PortId::STACK`], made with the first router; nobody else can add one. Behind it is a `smoltcp` interface on
//! a thread of its own, off the workers:
//!
//! ```text
//!   worker → [meters, ring of DEPTH] → host (echo; port unreachable, RST) → [ring of DEPTH] → worker
//! ```
//!
//! The host has no addresses: whatever was routed here is for it, and what it answers comes from the address that was
//! asked. It never starts to speak by itself. Frames reach it without their link layer; its answers go to the router's
//! Ethernet address, so that they are routed as everybody's.
//!
//! What it may be asked is limited per ingress port ([`Meter::Stack`]): a port that asks more loses the excess as `reply-limit`,
//! and no other port's question waits for it.
//!
//! Limits: datagrams of at most 16 KiB of IPv4 are put together again, fragments of IPv6 are not answered.

mod host;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use api::{MacAddr, PortId, Router};
use parking_lot::Mutex;
use pipeline::live::meters::{Meter, Meters};
use pipeline::offload::Offload;
use pipeline::raw::{Frame, Stash};
use rtrb::{Producer, RingBuffer};

use super::memory::{self, Bell};
use super::{Device, Environment, Opened, PortDef, PortError, Status, Tx, TxBatch};
use crate::worker::clock;
use host::Host;

/// The kind.
pub const PORT: PortDef =
    PortDef { name: "stack", help: "the switch's own host stack; made with the first router", options: &[], open };

/// Frames that wait for the host, and for the worker, at most.
const DEPTH: usize = 1024;
/// Smallest MTU of IPv6 (RFC 8200, 5), and what a frame's first segment holds beside its Ethernet header.
const MTU: std::ops::RangeInclusive<u16> = 1280..=1900;

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    if port.id != PortId::STACK {
        return Err(PortError("type=stack: the switch makes its one such port itself".to_owned()));
    }
    let none_left = |error: std::io::Error| PortError(format!("type=stack: {error}"));
    let (queue, answers) = memory::queue(DEPTH).map_err(none_left)?;
    let (ring, questions) = RingBuffer::new(DEPTH);
    let shared = Arc::new(Shared {
        bell: Bell::new().map_err(none_left)?,
        router: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let mtu = port.mtu.clamp(*MTU.start(), *MTU.end());
    let host = Host::new(Arc::clone(&shared), questions, answers, environment.pool.stash(), mtu);
    std::thread::Builder::new().name("stack".to_owned()).spawn(move || host.run()).map_err(none_left)?;
    let device = Stack { shared, egress: Mutex::new(ring), meters: Meters::default(), mtu };
    Ok(Opened { queues: vec![queue], device: Arc::new(device) })
}

/// What the port and the host's thread have in common.
struct Shared {
    /// Wakes the host.
    bell: Bell,
    /// The router's Ethernet address, in the low 48 bits; 0 while there is none. Written by the control thread.
    router: AtomicU64,
    /// The port is gone: the host ends.
    stop: AtomicBool,
}

impl Shared {
    /// The router's Ethernet address, when there is one.
    fn router(&self) -> Option<MacAddr> {
        let [_, _, mac @ ..] = self.router.load(Ordering::Relaxed).to_be_bytes();
        Some(MacAddr(mac)).filter(|mac| !mac.is_zero())
    }

    fn set_router(&self, mac: MacAddr) {
        let [a, b, c, d, e, f] = mac.0;
        self.router.store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Ordering::Relaxed);
    }
}

/// The workers' side.
struct Stack {
    shared: Arc<Shared>,
    egress: Mutex<Producer<Frame>>,
    meters: Meters,
    mtu: u16,
}

impl Device for Stack {
    fn tx(&self, batch: &mut TxBatch, _stash: &mut Stash) -> Tx {
        let Some(mut ring) = self.egress.try_lock() else { return Tx::Full };
        let (now, before) = (clock::now(), batch.len());
        let result = loop {
            let Some(from) = batch.source() else { break Tx::Done };
            // A place first: what has to wait for one is not charged twice.
            if ring.is_full() {
                break Tx::Full;
            }
            if !self.meters.admit(from, Meter::Stack, now) {
                break Tx::Limited;
            }
            if let Some((frame, _)) = batch.pop() {
                // There is a place.
                let _ = ring.push(frame);
            }
        };
        drop(ring);
        if batch.len() != before {
            self.shared.bell.ring();
        }
        result
    }

    fn takes(&self, offload: Offload) -> bool {
        !offload.needs_csum() && !offload.is_gso()
    }

    fn routed(&self, router: &Router) {
        self.shared.set_router(router.mac);
    }

    fn status(&self) -> Status {
        Status { mac: Some(host::MAC), mtu: self.mtu, link: Some(true), ..Status::default() }
    }

    fn remove(&self) {}
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
    }
}

#[cfg(test)]
mod tests;
