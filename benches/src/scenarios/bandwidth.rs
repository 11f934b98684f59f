//! `bandwidth`: what passes a port of limited bandwidth, for a ladder of rates, as the far host's sockets see it.
//!
//! Figures are what was measured divided by what was asked for: `in` to a pod, `out` from a pod; `tcp1` and `tcp4` one and
//! four TCP streams, their payload; `udp64` and `udp200` datagrams of so many octets at twice the rate, their frames. The
//! rate stands at the end, in bits a second. Before a measurement there is time for the bucket to be emptied of its burst, and
//! for TCP to find its window. Small packets are not asked for at rates that no socket sends them at.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::{Bandwidth, Change, Delta, Rate, Shaper, Transaction};
use control::Switch as _;
use vswitch::sys::affinity::pin;

use super::tap::Live;
use super::{Params, Scale, ScenarioDef};
use crate::hosts::{Hosts, LEFT, RIGHT};
use crate::machine::Machine;
use crate::report::Outcome;
use crate::taps::Cpus;
use crate::world::PORTS;

/// The scenario.
pub const SCENARIO: ScenarioDef = ScenarioDef {
    name: "bandwidth",
    help: "measured over asked for, rates from 1 Mbit/s to 4 Gbit/s, streams and small packets; wants root",
    ladder: &[1],
    scale: Scale::Flows,
    privileged: true,
    run,
};

/// Rates asked for, with their names.
const RATES: [(u64, &str); 5] =
    [(1_000_000, "1M"), (10_000_000, "10M"), (100_000_000, "100M"), (1_000_000_000, "1G"), (4_000_000_000, "4G")];
/// Beyond this no socket sends datagrams of 64 octets.
const SMALL_MOST: u64 = 100_000_000;
/// Octets in front of a datagram's payload.
const HEADERS: u64 = 14 + 20 + 8;
/// Time in which the burst passes, and TCP finds its window; longer where a super-frame takes long.
const WARM: Duration = Duration::from_millis(500);
const SLOW_WARM: Duration = Duration::from_millis(1500);
/// Super-frames of 64 KiB, which take half a second each at 1 Mbit/s, come one at a time: a measurement lasts many.
const SLOW: [(u64, Duration); 2] = [(1_000_000, Duration::from_secs(6)), (10_000_000, Duration::from_secs(3))];
/// Time without a limit between two measurements, in which what waits for a slow port leaves.
const SETTLE: Duration = Duration::from_millis(200);
/// No socket waits longer.
const LIMIT: Duration = Duration::from_millis(200);

/// What is sent.
#[derive(Clone, Copy)]
enum Load {
    Streams(usize),
    Datagrams(usize),
}

fn run(params: &Params, _: &Machine) -> Result<Outcome> {
    let cpus = Cpus::choose(&params.cpus);
    let mut live = Live::start(cpus, None)?;
    let mut figures = BTreeMap::new();
    for (bits, rate) in RATES {
        for (way, port) in [("in", PORTS[1]), ("out", PORTS[0])] {
            let limit = Some(Rate { bits, burst: u64::MAX });
            let bandwidth = match way {
                "in" => Bandwidth { ingress: limit, egress: None },
                _ => Bandwidth { ingress: None, egress: limit },
            };
            let delta = Delta::add(Shaper { port, bandwidth });
            let mut tell = |delta| live.switch.apply(&Transaction { changes: vec![Change::Shaper(delta)] });
            for (load, name) in [
                (Load::Streams(1), "tcp1"),
                (Load::Streams(4), "tcp4"),
                (Load::Datagrams(64), "udp64"),
                (Load::Datagrams(200), "udp200"),
            ] {
                if matches!(load, Load::Datagrams(_)) && bits > SMALL_MOST {
                    continue;
                }
                let slow = SLOW.into_iter().find(|(rate, _)| *rate == bits).map(|(_, time)| time);
                let (warm, time) = slow.map_or((WARM, params.duration), |time| (SLOW_WARM, time.max(params.duration)));
                tell(delta.clone()).context("a bandwidth")?;
                let measured = measure(&live.hosts, load, bits, (warm, time), cpus)?;
                tell(delta.clone().inverse()).context("no bandwidth")?;
                std::thread::sleep(SETTLE);
                figures.insert(format!("{way}_{name}_{rate}"), measured / bits as f64);
            }
        }
    }
    live.switch.stop();
    Ok(Outcome { scenario: SCENARIO.name.to_owned(), figures, ..Outcome::default() })
}

/// Bits a second that the right host receives, after one time and during another.
fn measure(hosts: &Hosts, load: Load, bits: u64, (warm, time): (Duration, Duration), cpus: Cpus) -> Result<f64> {
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let meter = Meter { hosts, cpu: cpus.hosts, stop: &stop, received: &received };
    std::thread::scope(|scope| {
        let result = match load {
            Load::Streams(count) => (0..count).try_for_each(|_| meter.stream(scope)),
            Load::Datagrams(payload) => meter.datagrams(scope, payload, 2 * bits),
        };
        let rate = result.map(|()| {
            std::thread::sleep(warm);
            let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
            std::thread::sleep(time);
            let (octets, took) = (received.load(Ordering::Relaxed) - before, start.elapsed());
            octets as f64 * 8.0 / took.as_secs_f64()
        });
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Counts what the right host receives.
#[derive(Clone, Copy)]
struct Meter<'a> {
    hosts: &'a Hosts,
    cpu: u16,
    stop: &'a AtomicBool,
    received: &'a AtomicU64,
}

impl<'a> Meter<'a> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One TCP stream, until told to stop.
    fn stream<'scope>(self, scope: &'scope std::thread::Scope<'scope, '_>) -> Result<()>
    where
        'a: 'scope,
    {
        use std::io::{Read, Write};
        let listener = self.hosts.right.run(|| TcpListener::bind((RIGHT, 0))).context("listen")?;
        let to = listener.local_addr()?;
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
        let mut sender = self.hosts.left.run(connect).context("TCP: no connection through the switch")?;
        let (mut receiver, _) = listener.accept()?;
        sender.set_write_timeout(Some(LIMIT))?;
        receiver.set_read_timeout(Some(LIMIT))?;
        scope.spawn(move || {
            let _ = pin(self.cpu);
            let octets = vec![0; 128 << 10];
            while self.goes_on() {
                let _ = sender.write(&octets);
            }
            // What waits in the kernel for a slow port is of no use to anybody.
            let _ = rustix::net::sockopt::set_socket_linger(&sender, Some(Duration::ZERO));
        });
        scope.spawn(move || {
            let _ = pin(self.cpu);
            let mut octets = vec![0; 256 << 10];
            while self.goes_on() {
                self.received.fetch_add(receiver.read(&mut octets).unwrap_or(0) as u64, Ordering::Relaxed);
            }
        });
        Ok(())
    }

    /// Datagrams at a rate, until told to stop.
    fn datagrams<'scope>(self, scope: &'scope std::thread::Scope<'scope, '_>, payload: usize, bits: u64) -> Result<()>
    where
        'a: 'scope,
    {
        let receiver = self.hosts.right.run(|| UdpSocket::bind((RIGHT, 0))).context("receive")?;
        let to: SocketAddr = receiver.local_addr()?;
        let sender = self.hosts.left.run(|| UdpSocket::bind((LEFT, 0))).context("send")?;
        receiver.set_read_timeout(Some(LIMIT))?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&receiver, 4 << 20);
        let frame = payload as u64 + HEADERS;
        scope.spawn(move || {
            let _ = pin(self.cpu);
            let (octets, start, mut sent) = (vec![0; payload], Instant::now(), 0u64);
            while self.goes_on() {
                let due = start.elapsed().as_micros() as u64 * bits / 8 / frame / 1_000_000;
                while sent < due {
                    let _ = sender.send_to(&octets, to);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        scope.spawn(move || {
            let _ = pin(self.cpu);
            let mut octets = [0; 2048];
            while self.goes_on() {
                if receiver.recv(&mut octets).is_ok() {
                    self.received.fetch_add(frame, Ordering::Relaxed);
                }
            }
        });
        Ok(())
    }
}
