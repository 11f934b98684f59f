//! Two hosts with kernel stacks, to send real traffic through a switch between them.
//!
//! ```text
//!   left namespace   eth0 10.77.0.1/24 --- [ the switch that is measured ] --- eth0 10.77.0.2/24   right namespace
//! ```
//!
//! What counts is what the right host's socket received. Every socket has a time limit, so that a switch that forwards
//! nothing is an error and not a hang.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vswitch::sys::affinity::pin;
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;

/// Name of the interface in either host.
pub const IFNAME: &str = "eth0";
/// Address of the left host.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the right host.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A socket that waits longer has lost its peer.
const LIMIT: Duration = Duration::from_secs(5);
/// For so long a sender is awake before it sends, at the end of a pause.
const AWAKE: Duration = Duration::from_micros(200);
/// Payload of a small datagram: a frame of 64 octets with its FCS.
const SMALL: [u8; 18] = [0; 18];

/// The hosts.
#[derive(Debug)]
pub struct Hosts {
    /// Sends.
    pub left: Namespace,
    /// Receives.
    pub right: Namespace,
    /// CPU that both run on.
    cpu: u16,
}

/// What small datagrams came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Datagrams {
    /// Sent, a second.
    pub sent: f64,
    /// Received, a second.
    pub received: f64,
}

impl Hosts {
    /// Two hosts without interfaces.
    ///
    /// # Errors
    /// Without the privilege to make namespaces.
    pub fn new(cpu: u16) -> Result<Self> {
        let namespace = || -> Result<Namespace> {
            let namespace = Namespace::new().context("a network namespace cannot be made")?;
            quiet(&namespace);
            Ok(namespace)
        };
        Ok(Self { left: namespace()?, right: namespace()?, cpu })
    }

    /// Give both hosts their addresses, now that each has an interface called [`IFNAME`].
    ///
    /// # Errors
    /// When one has none.
    pub fn configure(&self) -> Result<()> {
        for (host, address) in [(&self.left, LEFT), (&self.right, RIGHT)] {
            host.run(|| -> std::io::Result<()> {
                let netlink = Netlink::open()?;
                let index = netlink.index(IFNAME)?;
                netlink.set(index, &Settings { up: Some(true), ..Settings::default() })?;
                netlink.add_address(index, IpAddr::V4(address), 24)
            })
            .context("a host cannot be configured")?;
        }
        Ok(())
    }

    /// One TCP stream from left to right for `duration`: gigabits a second of payload received.
    ///
    /// # Errors
    /// When no connection comes about, or it stands still.
    pub fn tcp(&self, duration: Duration) -> Result<f64> {
        let listener = self.right.run(|| TcpListener::bind((RIGHT, 0))).context("listen")?;
        let to = listener.local_addr()?;
        let mut sender = self.left.run(|| connect(to)).context("TCP: no connection through the switch")?;
        let (mut receiver, _) = listener.accept()?;
        sender.set_write_timeout(Some(LIMIT))?;
        receiver.set_read_timeout(Some(LIMIT))?;
        let cpu = self.cpu;
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || -> Result<()> {
                pin(cpu)?;
                let (start, chunk) = (Instant::now(), vec![0; 128 << 10]);
                while start.elapsed() < duration {
                    sender.write_all(&chunk).context("TCP: the stream stands still")?;
                }
                Ok(())
            });
            pin_here(cpu, scope, move || {
                let (start, mut buffer, mut octets) = (Instant::now(), vec![0; 256 << 10], 0u64);
                loop {
                    match receiver.read(&mut buffer).context("TCP: the stream stands still")? {
                        0 => break,
                        n => octets += n as u64,
                    }
                }
                Ok(octets as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9)
            })
            .and_then(|gbps| joined(sending).map(|()| gbps))
        })
    }

    /// How long small datagrams take from the left socket to the right one, microseconds, ascending: `samples` of them,
    /// each after `pause`. One thread has both sockets and looks for the datagram without sleeping, and it is awake
    /// before it sends: what grows cold in a pause is the way between the hosts, and no host waits to be woken.
    ///
    /// # Errors
    /// When one does not arrive.
    pub fn trips(&self, samples: usize, pause: Duration) -> Result<Vec<f64>> {
        let receiver = self.right.run(|| UdpSocket::bind((RIGHT, 0))).context("receive")?;
        let to = receiver.local_addr()?;
        let sender = self.left.run(|| UdpSocket::bind((LEFT, 0))).context("send")?;
        sender.connect(to)?;
        receiver.set_nonblocking(true)?;
        // The first few wait for ARP, and for caches.
        let first = 10;
        let cpu = self.cpu;
        std::thread::scope(|scope| {
            pin_here(cpu, scope, || {
                let mut times = Vec::with_capacity(samples);
                for n in 0..first + samples {
                    let wait = Instant::now();
                    std::thread::sleep(pause.saturating_sub(AWAKE));
                    while wait.elapsed() < pause {
                        std::hint::spin_loop();
                    }
                    let start = Instant::now();
                    sender.send(&SMALL)?;
                    while receiver.recv(&mut [0; 64]).is_err() {
                        ensure!(start.elapsed() < LIMIT, "UDP: a datagram was lost");
                    }
                    if n >= first {
                        times.push(start.elapsed().as_secs_f64() * 1e6);
                    }
                }
                times.sort_by(f64::total_cmp);
                Ok(times)
            })
        })
    }

    /// Small datagrams from left to right for `duration`, as fast as one socket sends them.
    ///
    /// # Errors
    /// When none arrives.
    pub fn udp(&self, duration: Duration) -> Result<Datagrams> {
        let receiver = self.right.run(|| UdpSocket::bind((RIGHT, 0))).context("receive")?;
        let to = receiver.local_addr()?;
        let sender = self.left.run(|| UdpSocket::bind((LEFT, 0))).context("send")?;
        sender.connect(to)?;
        receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
        // The first datagram waits for ARP; nothing counts before one came through.
        let start = Instant::now();
        while receiver.recv(&mut [0; 64]).is_err() {
            ensure!(start.elapsed() < LIMIT, "UDP: no datagram came through the switch");
            let _ = sender.send(&SMALL);
        }
        let cpu = self.cpu;
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || -> Result<u64> {
                pin(cpu)?;
                let (start, mut sent) = (Instant::now(), 0);
                while start.elapsed() < duration {
                    // The clock is looked at once in 64 datagrams, which it would else be a tenth of.
                    for _ in 0..64 {
                        sent += u64::from(sender.send(&SMALL).is_ok());
                    }
                }
                Ok(sent)
            });
            let received = pin_here(cpu, scope, move || {
                let (start, mut received) = (Instant::now(), 0u64);
                while start.elapsed() < duration {
                    match receiver.recv(&mut [0; 64]) {
                        Ok(_) => received += 1,
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(received)
            });
            let sent = joined(sending)?;
            let rate = |n: u64| n as f64 / duration.as_secs_f64();
            Ok(Datagrams { sent: rate(sent), received: rate(received?) })
        })
    }
}

/// Let a host's IPv6 not announce itself on interfaces that come up: those frames are no part of the load. Where the
/// setting is not to be had, they are a few in the first seconds.
pub(crate) fn quiet(host: &Namespace) {
    let _ = host.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
}

/// Connect, trying for a while: a switch that was just started may lose the first frames.
fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
            Err(_) if start.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}

/// Do `work` on a thread of its own on `cpu`, and wait for it.
fn pin_here<'scope, T: Send + 'scope>(
    cpu: u16,
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<T> {
    joined(scope.spawn(move || {
        pin(cpu)?;
        work()
    }))
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a host's thread panicked")))
}
