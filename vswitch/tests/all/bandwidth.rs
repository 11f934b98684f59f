//! Bandwidth of ports, as the kernel's sockets at the far end see it: real TAP devices, one worker and two.
//!
//! ```text
//!   pod 1  10.9.0.1 ─┐
//!   pod 2  10.9.0.2 ─┼─ br0, a plain bridge
//!   pod 3  10.9.0.3 ─┘
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{Bandwidth, Change, Delta, Port, PortId, Rate, Shaper, Transaction};
use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;

use crate::memory::{options, transaction};

const KBIT: u64 = 1_000;
const MBIT: u64 = 1_000_000;
/// Octets in front of a datagram's payload: Ethernet, IPv4, UDP.
const HEADERS: u64 = 14 + 20 + 8;
/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing is measured before the bucket is empty and TCP has found its window.
const WARM: Duration = Duration::from_millis(400);
/// A machine that builds something else at the moment is asked again.
const TRIES: usize = 5;

/// A switch, and pods behind ports 1 to 3.
struct Net {
    daemon: Namespace,
    pods: Vec<Namespace>,
    switch: Option<Switch>,
}

/// Run `work` with one worker and with two.
fn with_pods(test: &str, work: impl Fn(&mut Net)) {
    for workers in [1, 2] {
        let possible = Path::new(vswitch::sys::tun::PATH).exists();
        let spaces: std::io::Result<Vec<_>> = (0..4).map(|_| Namespace::new()).collect();
        let mut spaces = match (possible, spaces) {
            (true, Ok(spaces)) => spaces,
            (_, spaces) => {
                println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", spaces.map(|_| ()));
                return;
            }
        };
        let daemon = spaces.remove(0);
        // Every hit is walked again; streams come in super-frames.
        let options = Options { shadow: 1, spills: 256, ..options(workers) };
        let switch = daemon.run(|| Switch::start(&options, Keeper::none()).unwrap());
        let mut net = Net { daemon, pods: spaces, switch: Some(switch) };
        net.attach();
        work(&mut net);
        let coverage = net.switch().coverage();
        assert!(coverage.iter().all(|row| row.name != "cache_divergence" || row.total == 0), "{coverage:?}");
    }
}

impl Net {
    fn switch(&mut self) -> &mut Switch {
        self.switch.as_mut().expect("it is there until the end")
    }

    fn apply(&mut self, transaction: &Transaction) {
        let switch = self.switch.as_mut().unwrap();
        self.daemon.run(|| switch.apply(transaction).unwrap());
    }

    fn attach(&mut self) {
        let mut all = transaction(&[1, 2, 3]);
        for (change, pod) in all.changes.iter_mut().skip(1).zip(&self.pods) {
            let Change::Port(Delta { new: Some(port), .. }) = change else { panic!("{change:?}") };
            let netns = pod.path().display().to_string();
            let options = [("netns".to_owned(), netns), ("ifname".to_owned(), "eth0".to_owned())].into();
            *port = Port { kind: "tap".to_owned(), options, ..port.clone() };
        }
        self.apply(&all);
        for (pod, number) in self.pods.iter().zip(1..) {
            pod.run(|| {
                let netlink = Netlink::open().unwrap();
                let index = netlink.index("eth0").unwrap();
                netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
                netlink.add_address(index, address(number), 24).unwrap();
            });
        }
    }

    /// Limit a port, or not any more.
    fn limit(&mut self, port: u16, old: Bandwidth, new: Bandwidth) {
        let shaper = |bandwidth: Bandwidth| Shaper { port: PortId(port), bandwidth };
        let some = |bandwidth: Bandwidth| (!bandwidth.is_unlimited()).then(|| shaper(bandwidth));
        let change = Change::Shaper(Delta { old: some(old), new: some(new) });
        self.apply(&Transaction { changes: vec![change] });
    }

    fn dropped(&mut self, port: u16, reason: &str) -> u64 {
        let drops = self.switch().drops();
        drops.iter().filter(|row| row.port == PortId(port) && row.reason == reason).map(|row| row.packets).sum()
    }

    fn streams(&self, from: &[u16], time: Duration) -> f64 {
        streams(&self.pods, from, time)
    }

    fn datagrams(&self, payload: usize, sent: u64, time: Duration) -> f64 {
        datagrams(&self.pods, payload, sent, time)
    }
}

/// Bits a second of payload that pod 2 receives over connections that pods of these numbers have with it.
fn streams(pods: &[Namespace], from: &[u16], time: Duration) -> f64 {
    let to = SocketAddr::new(address(2), 5201);
    let listener = pods[1].run(|| TcpListener::bind(to).unwrap());
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for &from in from {
            let mut client = pods[usize::from(from) - 1].run(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let (stop, received) = (&stop, &received);
            scope.spawn(move || {
                let octets = [7; 65536];
                while !stop.load(Ordering::Relaxed) && client.write(&octets).is_ok() {}
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
            scope.spawn(move || {
                let mut octets = [0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    received.fetch_add(server.read(&mut octets).unwrap_or(0) as u64, Ordering::Relaxed);
                }
            });
        }
        rate(&received, time)
    })
}

/// Bits a second, in frames, that pod 2 receives of datagrams that pod 1 sends at another rate.
fn datagrams(pods: &[Namespace], payload: usize, sent: u64, time: Duration) -> f64 {
    let (from, to) = (SocketAddr::new(address(1), 0), SocketAddr::new(address(2), 5202));
    let server = pods[1].run(|| UdpSocket::bind(to).unwrap());
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&server, 4 << 20);
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let client = pods[0].run(|| UdpSocket::bind(from).unwrap());
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let frame = payload as u64 + HEADERS;
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let (octets, start, mut count) = (vec![7; payload], Instant::now(), 0u64);
            while !stop.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() as u64 * sent / 8 / frame / 1_000_000;
                // Whoever was not given the CPU for long does not make up for it.
                count = count.max(due.saturating_sub(2_000));
                (count..due).for_each(|_| _ = client.send_to(&octets, to));
                count = count.max(due);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        scope.spawn(|| {
            let mut octets = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if server.recv(&mut octets).is_ok() {
                    received.fetch_add(frame, Ordering::Relaxed);
                }
            }
        });
        rate(&received, time)
    })
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(switch) = self.switch.take() {
            switch.stop();
        }
    }
}

/// Ends the threads of a measurement, also when it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn address(pod: u16) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, pod as u8).into()
}

/// Bits a second by which a count of octets grows.
fn rate(octets: &AtomicU64, time: Duration) -> f64 {
    std::thread::sleep(WARM);
    let (start, before) = (Instant::now(), octets.load(Ordering::Relaxed));
    std::thread::sleep(time);
    let (after, took) = (octets.load(Ordering::Relaxed), start.elapsed());
    (after - before) as f64 * 8.0 / took.as_secs_f64()
}

fn ingress(bits: u64) -> Bandwidth {
    Bandwidth { ingress: Some(Rate { bits, burst: u64::MAX }), egress: None }
}

fn egress(bits: u64) -> Bandwidth {
    Bandwidth { ingress: None, egress: Some(Rate { bits, burst: u64::MAX }) }
}

#[track_caller]
fn is_within_5_percent(what: &str, asked: u64, mut measure: impl FnMut() -> f64) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let ratio = measure() / asked as f64;
        seen.push(ratio);
        if (ratio - 1.0).abs() <= 0.05 {
            println!("{what}, {asked} bit/s: {ratio:.3}");
            return;
        }
    }
    panic!("{what}, {asked} bit/s: {seen:?} of it");
}

#[test]
fn streams_get_what_was_asked_for_in_either_direction() {
    with_pods("streams_get_what_was_asked_for_in_either_direction", |net| {
        let time = Duration::from_millis(1000);
        assert!(net.streams(&[1], time) > 1.5 * (300 * MBIT) as f64, "it could be more");
        for (asked, from) in [(300 * MBIT, &[1][..]), (40 * MBIT, &[1, 1, 1])] {
            for (what, port, limit) in [("to pod 2", 2, ingress(asked)), ("from pod 1", 1, egress(asked))] {
                net.limit(port, Bandwidth::default(), limit);
                is_within_5_percent(what, asked, || net.streams(from, time));
                net.limit(port, limit, Bandwidth::default());
            }
        }
        assert!(net.streams(&[1], time) > 1.5 * (300 * MBIT) as f64, "nothing is limited any more");
    });
}

#[test]
fn small_packets_get_what_was_asked_for_in_either_direction() {
    with_pods("small_packets_get_what_was_asked_for_in_either_direction", |net| {
        for (asked, payload) in [(20 * MBIT, 64), (4 * MBIT, 200)] {
            let time = Duration::from_millis(700);
            assert!(net.datagrams(payload, 2 * asked, time) > 1.5 * asked as f64, "it could be more");
            net.limit(2, Bandwidth::default(), ingress(asked));
            is_within_5_percent("to pod 2", asked, || net.datagrams(payload, 2 * asked, time));
            assert!(net.dropped(1, "over-rate") > 0, "who sent it is told what became of it");
            net.limit(2, ingress(asked), Bandwidth::default());
            let before = net.switch().drops();
            net.limit(1, Bandwidth::default(), egress(asked));
            is_within_5_percent("from pod 1", asked, || net.datagrams(payload, 2 * asked, time));
            assert_eq!(net.switch().drops(), before, "what is not read yet is not lost here");
            net.limit(1, egress(asked), Bandwidth::default());
        }
    });
}

#[test]
fn two_senders_share_the_bandwidth_to_a_pod() {
    with_pods("two_senders_share_the_bandwidth_to_a_pod", |net| {
        net.limit(2, Bandwidth::default(), ingress(100 * MBIT));
        is_within_5_percent("to pod 2", 100 * MBIT, || net.streams(&[1, 3], Duration::from_secs(1)));
    });
}

/// Send datagrams of 1000 octets until the bucket of `limited` is deep in debt, then take the limit away.
fn is_let_go_of(net: &mut Net, port: u16, limited: Bandwidth) {
    let to = SocketAddr::new(address(2), 5203);
    let server = net.pods[1].run(|| UdpSocket::bind(to).unwrap());
    let client = net.pods[0].run(|| UdpSocket::bind(SocketAddr::new(address(1), 0)).unwrap());
    let mut octets = [0; 2000];
    // The neighbours know each other.
    client.send_to(b"hello", to).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.recv(&mut octets).unwrap();
    net.limit(port, Bandwidth::default(), limited);
    for number in 0..5u8 {
        client.send_to(&[number; 1000], to).unwrap();
    }
    assert_eq!((server.recv(&mut octets).unwrap(), octets[0]), (1000, 0), "a debt is possible");
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(server.recv(&mut octets).is_err(), "the next is due in eight seconds");
    net.limit(port, limited, Bandwidth::default());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 1..5 {
        let start = Instant::now();
        assert_eq!((server.recv(&mut octets).unwrap(), octets[0]), (1000, number));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

#[test]
fn what_waits_leaves_at_once_when_the_limit_goes() {
    with_pods("what_waits_leaves_at_once_when_the_limit_goes", |net| {
        is_let_go_of(net, 2, ingress(KBIT));
        is_let_go_of(net, 1, egress(KBIT));
    });
}

#[test]
fn a_port_that_waits_for_tokens_delays_nobody_else() {
    with_pods("a_port_that_waits_for_tokens_delays_nobody_else", |net| {
        net.limit(2, Bandwidth::default(), ingress(MBIT));
        let (ask, answer) = (SocketAddr::new(address(3), 5204), SocketAddr::new(address(1), 5204));
        let [asking, answering] =
            [(2, ask), (0, answer)].map(|(pod, at): (usize, _)| net.pods[pod].run(|| UdpSocket::bind(at).unwrap()));
        asking.set_read_timeout(Some(PATIENCE)).unwrap();
        answering.set_read_timeout(Some(PATIENCE)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            let pods = &net.pods;
            scope.spawn(|| streams(pods, &[1, 3], Duration::from_millis(600)));
            std::thread::sleep(WARM);
            let mut octets = [0; 8];
            let mut times: Vec<_> = (0..20)
                .map(|_| {
                    let start = Instant::now();
                    asking.send_to(b"ask", answer).unwrap();
                    answering.recv(&mut octets).unwrap();
                    answering.send_to(b"answer", ask).unwrap();
                    asking.recv(&mut octets).unwrap();
                    start.elapsed()
                })
                .collect();
            times.sort();
            // A super-frame takes half a second to the slow pod.
            assert!(times[10] < Duration::from_millis(20), "{times:?}");
        });
        assert!(net.dropped(1, "no-frame") == 0 && net.dropped(3, "no-frame") == 0);
    });
}

#[test]
fn a_bandwidth_that_cannot_be_is_refused() {
    with_pods("a_bandwidth_that_cannot_be_is_refused", |net| {
        for (port, bandwidth, says) in [(9, ingress(MBIT), "no port numbered 9"), (1, egress(0), "egress of 0 bit/s")] {
            let change = Change::Shaper(Delta::add(Shaper { port: PortId(port), bandwidth }));
            let refused = net.switch().apply(&Transaction { changes: vec![change] }).unwrap_err();
            assert!(refused.0.contains(says), "{refused}");
        }
    });
}
