//! Connections that were there before a policy, and pods that come after it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{BACKEND, DATABASE, GUEST, REPLICA, VISITOR, WEB};
use crate::claim::{Control, Probe, Report};
use crate::greeter::{BOTH, Greeter, Line, Over, ask};
use crate::host::Host;
use crate::labs::cluster::{Dual, FAMILIES};
use crate::labs::tenants::{Spec, Tenants};
use crate::labs::ways::{all, any, at_once, some_way};

pub(super) const KEPT: &str = "a connection that was there before the policies goes on, and is not made anew";
pub(super) const LATE: &str = "a pod that comes later is covered from its first packet, in and out";
pub(super) const LATE_REACHED: &str = "and is reached by backend as soon as its object is there";

/// A port that no policy allows.
const PORT: u16 = 9000;
/// Ports of those who just send, for each version of IP: a socket of IPv6 takes its port for IPv4 as well.
const PORTS: [u16; 2] = [9001, 9002];
/// Between two datagrams of who does not wait to be let in.
const PAUSE: Duration = Duration::from_millis(2);
/// So long a pod is there without its object.
const BEFORE: Duration = Duration::from_millis(300);
/// So long after everything is in place: kernels ask once a second for an address that did not answer.
const AFTER: Duration = Duration::from_millis(1800);

/// Connections of a guest to the database, made while there was no policy.
#[derive(Debug)]
pub(super) struct Kept {
    lines: Vec<Line>,
    _greeter: Greeter,
}

impl Kept {
    pub(super) fn open(tenants: &Tenants) -> anyhow::Result<Self> {
        let (guest, (database, host)) = (tenants.host(GUEST)?, tenants.pod(DATABASE)?);
        let greeter = Greeter::start(host, PORT)?;
        let mut lines = Vec::new();
        for over in BOTH {
            for ip in FAMILIES {
                let line = Line::open(guest, over, 0, database.address.at(ip, PORT))?;
                let mut line = line.map_err(|outcome| anyhow::anyhow!("before any policy: {outcome}"))?;
                line.ask()?;
                lines.push(line);
            }
        }
        Ok(Self { lines, _greeter: greeter })
    }

    /// Ask again, now that there are policies.
    pub(super) fn asked(mut self, report: &mut Report, tenants: &Tenants) -> anyhow::Result<()> {
        let (database, host) = tenants.pod(DATABASE)?;
        let (seen, guest) = (tenants.address(GUEST)?, tenants.host(GUEST)?);
        let mut probes = Vec::new();
        for (line, ip) in self.lines.iter_mut().zip(FAMILIES.into_iter().cycle()) {
            probes.push(line.ask()?.from(host, seen.of(ip)));
        }
        let control = some_way(|ip, over| Ok(ask(guest, over, database.address.at(ip, PORT))?.any()))?;
        report.reaches(KEPT, &all(&probes), Control::new("new connections", control));
        Ok(())
    }
}

/// Two pods come: one of the application, one of a namespace without policies.
pub(super) fn late(report: &mut Report, tenants: &Tenants) -> anyhow::Result<()> {
    let visitor = comes(tenants, VISITOR)?;
    let replica = comes(tenants, REPLICA)?;
    report.separates(LATE, &replica, Control::new("a pod of a namespace without policies", visitor));

    let (spec, host) = tenants.pod(REPLICA)?;
    let _greeter = Greeter::start(host, 5432)?;
    let reaches = |from: &str| {
        let (asking, seen) = (tenants.host(from)?, tenants.address(from)?);
        at_once(&FAMILIES, |ip| Ok(ask(asking, Over::Tcp, spec.address.at(*ip, 5432))?.from(host, seen.of(*ip))))
    };
    let (probe, control) = (all(&reaches(BACKEND)?), any(&reaches(WEB)?));
    report.reaches(LATE_REACHED, &probe, Control::new("web asks the same", control));
    Ok(())
}

/// Attach a pod, and give it its object, while a guest sends to it and it sends to the guest all the time. Arrived if
/// anything arrived, at either end.
fn comes(tenants: &Tenants, name: &'static str) -> anyhow::Result<Probe> {
    let ((spec, host), (guest, guest_host)) = (tenants.pod(name)?, tenants.pod(GUEST)?);
    let (here, there) = (sockets(host)?, sockets(guest_host)?);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&there, spec.address, &done));
        scope.spawn(|| send(&here, guest.address, &done));
        let come = || {
            tenants.attach(name)?;
            std::thread::sleep(BEFORE);
            tenants.daemon.apply(&spec.manifest())?;
            std::thread::sleep(AFTER);
            anyhow::Ok(())
        };
        let came = come();
        done.store(true, Ordering::Relaxed);
        came
    })?;
    let (into, out) = (received(&here, guest), received(&there, spec));
    let text = format!("{name} received {into} datagrams, {} received {out} from it", GUEST);
    Ok(if into + out > 0 { Probe::Arrived(text) } else { Probe::Silent(text) })
}

/// One for each version of IP.
fn sockets(host: &Host) -> anyhow::Result<[UdpSocket; 2]> {
    let v4 = host.udp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORTS[0]))?;
    let v6 = host.udp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORTS[1]))?;
    let sockets = [v4, v6];
    sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    Ok(sockets)
}

fn send(sockets: &[UdpSocket; 2], to: Dual, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for ((socket, ip), port) in sockets.iter().zip(FAMILIES).zip(PORTS) {
            // Before there is an interface, or a route, there is nowhere to send.
            let _ = socket.send_to(b"first", to.at(ip, port));
        }
        std::thread::sleep(PAUSE);
    }
}

/// How many datagrams have come from this pod.
fn received(sockets: &[UdpSocket; 2], from: &Spec) -> usize {
    let mut count = 0;
    for (socket, ip) in sockets.iter().zip(FAMILIES) {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
            count += usize::from(peer.ip() == from.address.of(ip));
        }
    }
    count
}
