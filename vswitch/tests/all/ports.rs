//! Ports against the real kernel: TAP devices in network namespaces that die with their test.
//!
//! Each test plays the daemon inside a namespace of its own, so that nothing appears in the machine's. Without the
//! privilege for that, a test says `SKIPPED` and passes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::MacAddr;
use pipeline::burst::Burst;
use pipeline::raw::{Frame, Pool, Stash};
use rustix::process::{Pid, Signal, kill_process};
use vswitch::keeper::{Keeper, run_as_keeper};
use vswitch::pool::frame_pool;
use vswitch::ports::{Environment, Offered, Opened, PortError, Rx, Status, Tx, TxBatch, internal, tap};
use vswitch::sys::netlink::{Link, Netlink, Settings};
use vswitch::sys::netns::{self, Namespace};
use vswitch::sys::signal::{STOP, Signals};

/// The daemon's namespace and two pods', if we may make them.
struct Hosts {
    daemon: Namespace,
    pods: [Namespace; 2],
}

fn hosts(test: &str) -> Option<Hosts> {
    let possible = Path::new(vswitch::sys::tun::PATH).exists();
    match (possible, Namespace::new(), Namespace::new(), Namespace::new()) {
        (true, Ok(daemon), Ok(a), Ok(b)) => Some(Hosts { daemon, pods: [a, b] }),
        (_, daemon, ..) => {
            println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", daemon.map(|_| ()));
            None
        }
    }
}

fn port(name: &str, options: &[(&str, &str)]) -> api::Port {
    api::Port {
        id: api::PortId(1),
        name: name.into(),
        bridge: api::BridgeId(1),
        ofport: 1,
        kind: "tap".into(),
        options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        vlan: api::Vlan::default(),
        mac: None,
        mtu: api::Port::MTU,
        external_ids: BTreeMap::new(),
    }
}

fn open(port: &api::Port, pool: &Pool) -> Result<Opened, PortError> {
    (tap::PORT.open)(port, &Environment { pool, keeper: &Keeper::none(), offered: &Offered::default() })
}

/// A port called `name` whose interface `eth0` is in `pod`.
fn pod_port(name: &str, pod: &Namespace, pool: &Pool) -> Opened {
    open(&port(name, &[("netns", pod.path().to_str().unwrap()), ("ifname", "eth0")]), pool).unwrap()
}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

/// Switch `eth0` of a pod on and give it the address of that number.
fn configure(pod: &Namespace, number: usize) {
    pod.run(|| {
        let netlink = Netlink::open().unwrap();
        let index = netlink.index("eth0").unwrap();
        netlink.set(index, &Settings { up: Some(true), ..Settings::default() }).unwrap();
        netlink.add_address(index, ADDRESSES[number].into(), 24).unwrap();
    });
}

fn link(namespace: &Namespace, name: &str) -> Option<Link> {
    namespace.run(|| Netlink::open().unwrap().link(name).unwrap())
}

/// All frames that wait, and what the last read came to.
fn receive(opened: &mut Opened, stash: &mut Stash) -> (Vec<Frame>, Rx) {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    loop {
        burst.reset(api::PortId(1));
        let rx = opened.queues[0].rx(&mut burst, 64, stash);
        let len = burst.len();
        frames.extend(burst.frames[..len].iter_mut().filter_map(Option::take));
        if rx != Rx::More {
            return (frames, rx);
        }
    }
}

/// Wait until `done`, or fail the test.
fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A removed port leaves nothing. Not at once: a test that starts a process beside this one duplicates all descriptors
/// for the moment between fork and exec.
fn gone(namespace: &Namespace, name: &str) {
    eventually("the interface is gone", || link(namespace, name).is_none().then_some(()));
}

/// Joins two ports like a wire while `work` runs; the largest frame that crossed.
fn joined<T: Send>(ports: &mut [Opened; 2], pool: &Pool, work: impl FnOnce() -> T + Send) -> (T, usize) {
    let (stop, largest) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stash = pool.stash();
            let mut batch = TxBatch::new();
            while !stop.load(Ordering::Relaxed) {
                let mut idle = true;
                for (from, to) in [(0, 1), (1, 0)] {
                    let (frames, rx) = receive(&mut ports[from], &mut stash);
                    assert_eq!(rx, Rx::Drained);
                    idle &= frames.is_empty();
                    for frame in frames {
                        assert!(frame.offload().is_none_or(|work| ports[to].device.takes(work)));
                        largest.fetch_max(frame.len(), Ordering::Relaxed);
                        batch.push(frame, api::PortId(1));
                    }
                    while ports[to].device.tx(&mut batch, &mut stash) != Tx::Done {
                        let (frame, _) = batch.pop().unwrap();
                        stash.give(frame);
                    }
                }
                if idle {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        // Stops the thread when `work` panics, too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        work()
    });
    (result, largest.into_inner())
}

#[test]
fn a_tap_is_moved_named_and_set_and_its_frames_come_in() {
    let Some(hosts) = hosts("a_tap_is_moved_named_and_set_and_its_frames_come_in") else { return };
    let pool = frame_pool(1024, 4).unwrap();
    let pod = &hosts.pods[0];
    hosts.daemon.run(|| {
        let wish = api::Port {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 0x42])),
            mtu: 1400,
            ..port("web-0", &[("netns", pod.path().to_str().unwrap()), ("ifname", "eth0")])
        };
        let mut opened = open(&wish, &pool).unwrap();
        assert_eq!(link(&hosts.daemon, "eth0"), None);
        let there = link(pod, "eth0").unwrap();
        assert_eq!((there.mac, there.mtu, there.up), (MacAddr([2, 0, 0, 0, 0, 0x42]), 1400, false));
        configure(pod, 0);
        let Status { error, ifname, mac, mtu, link, offloads } = opened.device.status();
        assert_eq!((error, ifname.as_deref(), mac), (None, Some("eth0"), Some(MacAddr([2, 0, 0, 0, 0, 0x42]))));
        assert_eq!((mtu, link), (1400, Some(true)));
        assert!(offloads.starts_with("csum tso4 tso6"), "{offloads}");

        // It asks who has the neighbour's address, and once it knows, the datagram comes, checksum unfinished.
        let mut stash = pool.stash();
        pod.run(|| UdpSocket::bind((ADDRESSES[0], 7000)).unwrap().send_to(b"hello", (ADDRESSES[1], 7)).unwrap());
        let ask = eventually("an ARP request", || {
            let (frames, _) = receive(&mut opened, &mut stash);
            let ask = frames.iter().map(Frame::to_vec).find(|bytes| bytes[12..14] == [8, 6]);
            frames.into_iter().for_each(|frame| stash.give(frame));
            ask
        });
        assert_eq!(ask[38..42], ADDRESSES[1].octets());
        pod.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            netlink.add_neighbour(index, ADDRESSES[1].into(), MacAddr([2, 0, 0, 0, 0, 0x43])).unwrap();
        });
        let datagram = eventually("a datagram", || {
            let (frames, _) = receive(&mut opened, &mut stash);
            frames.into_iter().find(|frame| frame.head().ends_with(b"hello"))
        });
        assert_eq!(datagram.head()[..12], [2, 0, 0, 0, 0, 0x43, 2, 0, 0, 0, 0, 0x42]);
        let work = datagram.offload().unwrap();
        assert!(work.needs_csum() && !work.is_gso());
        assert_eq!((work.csum_start, work.csum_offset), (34, 6));
        opened.device.remove();
        stash.give(datagram);
        drop(opened);
        gone(pod, "eth0");
    });
}

#[test]
fn mac_and_mtu_change_where_the_device_is_or_not_at_all() {
    let Some(hosts) = hosts("mac_and_mtu_change_where_the_device_is_or_not_at_all") else { return };
    let pool = Pool::heap(256, 4);
    let [pod, _] = &hosts.pods;
    let opened = hosts.daemon.run(|| pod_port("reconfigured", pod, &pool));
    let mac = api::MacAddr([2, 0, 0, 0, 0, 9]);
    let mut wanted = api::Port { mac: Some(mac), mtu: 1400, ..port("reconfigured", &[]) };
    opened.device.configure(&wanted).unwrap();
    let there = link(pod, "eth0").unwrap();
    assert_eq!((there.mac, there.mtu), (mac, 1400));
    wanted.mac = Some(api::MacAddr([1, 0, 0, 0, 0, 9]));
    let PortError(why) = opened.device.configure(&wanted).unwrap_err();
    assert!(why.contains("mac=01:00:00:00:00:09"), "{why}");
    assert_eq!(link(pod, "eth0").unwrap().mac, mac);
    opened.device.remove();
}

#[test]
fn super_frames_pass_from_tap_to_tap() {
    let Some(hosts) = hosts("super_frames_pass_from_tap_to_tap") else { return };
    let pool = frame_pool(4096, 256).unwrap();
    let mut ports =
        hosts.daemon.run(|| [0, 1].map(|number| pod_port(&format!("pod-{number}"), &hosts.pods[number], &pool)));
    (0..2).for_each(|number| configure(&hosts.pods[number], number));
    let sent: Vec<u8> = (0..32 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (received, largest) = joined(&mut ports, &pool, || {
        std::thread::scope(|scope| {
            let listener = hosts.pods[1].run(|| TcpListener::bind((ADDRESSES[1], 5001)).unwrap());
            let server = scope.spawn(move || {
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                received
            });
            let to = SocketAddr::new(IpAddr::V4(ADDRESSES[1]), 5001);
            let mut stream = hosts.pods[0].run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
            stream.write_all(&sent).unwrap();
            drop(stream);
            server.join().unwrap()
        })
    });
    assert!(received == sent, "{} octets of {} came, or others", received.len(), sent.len());
    assert!(largest > 10_000, "the largest frame had {largest} octets");
    drop(ports);
    let mut stash = pool.stash();
    assert_eq!(std::iter::from_fn(|| stash.take_spill()).count(), 256, "every spill came back");
}

#[test]
fn a_super_frame_without_a_spill_is_lost_and_told() {
    let Some(hosts) = hosts("a_super_frame_without_a_spill_is_lost_and_told") else { return };
    let pool = frame_pool(1024, 0).unwrap();
    hosts.daemon.run(|| {
        let pod = &hosts.pods[0];
        let options = [("netns", pod.path().to_str().unwrap()), ("ifname", "eth0")];
        let mut opened = open(&api::Port { mtu: 9000, ..port("jumbo", &options) }, &pool).unwrap();
        configure(pod, 0);
        pod.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            netlink.add_neighbour(index, ADDRESSES[1].into(), MacAddr([2, 0, 0, 0, 0, 0x43])).unwrap();
            let socket = UdpSocket::bind((ADDRESSES[0], 0)).unwrap();
            // 1920 octets are a slot; 42 of them are headers.
            for len in [1879, 1878, 5000] {
                socket.send_to(&vec![1; len], (ADDRESSES[1], 7)).unwrap();
            }
        });
        let mut stash = pool.stash();
        let (mut lens, mut lost) = (Vec::new(), 0);
        eventually("three datagrams", || {
            let (frames, _) = receive(&mut opened, &mut stash);
            lens.extend(frames.iter().map(Frame::len).filter(|&len| len > 1000));
            frames.into_iter().for_each(|frame| stash.give(frame));
            lost += opened.queues[0].lost();
            (lens.len() as u64 + lost == 3).then_some(())
        });
        assert_eq!((lens, lost), (vec![1920], 2));
    });
}

#[test]
fn a_deleted_namespace_takes_its_port_with_it() {
    let Some(Hosts { daemon, pods: [pod, witness] }) = hosts("a_deleted_namespace_takes_its_port_with_it") else {
        return;
    };
    let pool = frame_pool(1024, 4).unwrap();
    // One end of this pair is in the pod: it goes when, and only when, the pod's namespace is freed.
    witness.run(|| {
        let far = netns::open(pod.path()).unwrap();
        Netlink::open().unwrap().add_veth("alive", "pair", Some(far.as_fd())).unwrap();
    });
    let opened = daemon.run(|| pod_port("web-0", &pod, &pool));
    assert_eq!((opened.device.fault(), opened.device.status().error), (None, None));
    drop(pod);
    assert_eq!(opened.device.fault().as_deref(), Some("namespace is gone"));
    assert_eq!(opened.device.status().error.as_deref(), Some("namespace is gone"));
    assert!(link(&witness, "alive").is_some(), "the descriptor keeps it");
    // The switch closes such a port.
    opened.device.remove();
    drop(opened);
    eventually("the namespace is freed", || link(&witness, "alive").is_none().then_some(()));
}

#[test]
fn a_device_that_somebody_deletes_is_gone() {
    let Some(Hosts { daemon, pods: [pod, _] }) = hosts("a_device_that_somebody_deletes_is_gone") else { return };
    let pool = frame_pool(1024, 4).unwrap();
    let mut opened = daemon.run(|| pod_port("web-0", &pod, &pool));
    configure(&pod, 0);
    let mut stash = pool.stash();
    let (frames, rx) = receive(&mut opened, &mut stash);
    frames.into_iter().for_each(|frame| stash.give(frame));
    assert_eq!((rx, opened.device.status().error), (Rx::Drained, None));
    pod.run(|| {
        let netlink = Netlink::open().unwrap();
        netlink.delete(netlink.index("eth0").unwrap()).unwrap();
    });
    eventually("the device is gone", || (receive(&mut opened, &mut stash).1 == Rx::Gone).then_some(()));
    assert_eq!(opened.device.fault().as_deref(), Some("device is gone"));
    assert_eq!(opened.device.status().error.as_deref(), Some("device is gone"));
    let mut batch = TxBatch::new();
    let mut frame = stash.take().unwrap();
    assert!(frame.fill(&[2; 60]));
    batch.push(frame, api::PortId(2));
    assert_eq!(opened.device.tx(&mut batch, &mut stash), Tx::Down);
    opened.device.remove();
}

#[test]
fn a_device_left_by_a_dead_daemon_is_reopened_and_frees_its_namespace() {
    let name = "a_device_left_by_a_dead_daemon_is_reopened_and_frees_its_namespace";
    let Some(Hosts { daemon, pods: [pod, witness] }) = hosts(name) else { return };
    let pool = frame_pool(4096, 64).unwrap();
    // One end of this pair is in the pod: it goes when, and only when, the pod's namespace is freed.
    witness.run(|| {
        let far = netns::open(pod.path()).unwrap();
        Netlink::open().unwrap().add_veth("alive", "pair", Some(far.as_fd())).unwrap();
    });
    daemon.run(|| {
        drop(pod_port("web-0", &pod, &pool));
        let left = link(&pod, "eth0").expect("the device outlives its daemon");
        configure(&pod, 0);
        assert!(!link(&pod, "eth0").unwrap().carrier);

        let again = pod_port("web-0", &pod, &pool);
        let there = link(&pod, "eth0").unwrap();
        assert_eq!((there.index, there.mac, there.carrier), (left.index, left.mac, true));
        assert_eq!(link(&daemon, "eth0"), None, "no second device");
        assert_eq!(again.device.status().error, None);
        // In use, it cannot be had twice; and it is not another port's.
        let error = open(&port("db-0", &[("netns", pod.path().to_str().unwrap()), ("ifname", "eth0")]), &pool);
        assert!(error.err().unwrap().0.ends_with(": the name is taken"));

        let path = pod.path().to_owned();
        drop(pod);
        assert!(!path.exists());
        std::thread::sleep(Duration::from_millis(50));
        assert!(link(&witness, "alive").is_some(), "the descriptor pins the namespace");
        assert_eq!(again.device.fault().as_deref(), Some("namespace is gone"));
        drop(again);
        eventually("the namespace is freed", || link(&witness, "alive").is_none().then_some(()));
    });
}

#[test]
fn names_that_are_taken_and_devices_that_are_down_are_said_so() {
    let Some(hosts) = hosts("names_that_are_taken_and_devices_that_are_down_are_said_so") else { return };
    let pool = frame_pool(1024, 4).unwrap();
    let pod = &hosts.pods[0];
    hosts.daemon.run(|| {
        let netns = pod.path().to_str().unwrap();
        pod.run(|| Netlink::open().unwrap().add_bridge("eth0").unwrap());
        let error = open(&port("web-0", &[("netns", netns), ("ifname", "eth0")]), &pool).err().unwrap();
        assert_eq!(error.0, format!("options:ifname=eth0 in {netns}: the name is taken"));
        let error = open(&port("eth0", &[("netns", netns)]), &pool).err().unwrap();
        assert_eq!(error.0, format!("interface eth0 in {netns}: the name is taken"));
        let error = open(&port("web-0", &[("netns", "/proc/self/ns/uts")]), &pool).err().unwrap();
        assert_eq!(error.0, "options:netns=/proc/self/ns/uts: not a network namespace");
        (0..3).for_each(|number| gone(&hosts.daemon, &format!("vswitch{number}")));
        let opened = open(&port("web-0", &[("netns", netns)]), &pool).unwrap();
        let mut stash = pool.stash();
        let mut batch = TxBatch::new();
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&[2; 60]));
        batch.push(frame, api::PortId(2));
        assert_eq!(opened.device.tx(&mut batch, &mut stash), Tx::Down);
        assert_eq!(batch.front().unwrap().head(), [2; 60], "the frame is as it was");
        let settings = Settings { up: Some(true), ..Settings::default() };
        pod.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.set(netlink.index("web-0").unwrap(), &settings).unwrap();
        });
        assert_eq!(opened.device.tx(&mut batch, &mut stash), Tx::Done);
    });
}

#[test]
fn an_internal_port_is_here_and_down() {
    let Some(hosts) = hosts("an_internal_port_is_here_and_down") else { return };
    let pool = frame_pool(1024, 4).unwrap();
    hosts.daemon.run(|| {
        let environment = Environment { pool: &pool, keeper: &Keeper::none(), offered: &Offered::default() };
        let opened = (internal::PORT.open)(&port("br0", &[]), &environment).unwrap();
        let there = link(&hosts.daemon, "br0").unwrap();
        assert!(!there.up);
        assert_eq!(opened.device.status().link, Some(false));
        // What a daemon left here is taken up again, and nothing is pinned.
        drop(opened);
        let opened = (internal::PORT.open)(&port("br0", &[]), &environment).unwrap();
        assert_eq!(link(&hosts.daemon, "br0").unwrap().index, there.index);
        assert_eq!(opened.device.status().error, None);
        opened.device.remove();
        drop(opened);
        gone(&hosts.daemon, "br0");
    });
}

/// Not a test by itself: the keeper of the test below.
#[test]
fn role_keeper() {
    let Some(run_dir) = std::env::var_os("PORTS_TEST_RUN_DIR") else { return };
    let code = run_as_keeper(Path::new(&run_dir), || role("role_data_plane", Path::new(&run_dir)));
    std::process::exit(code.unwrap().into());
}

/// Not a test by itself: a data plane with one port, in the namespace that the file `netns` in the run-dir names.
#[test]
fn role_data_plane() {
    let Some(run_dir) = std::env::var_os("PORTS_TEST_RUN_DIR") else { return };
    let keeper = Keeper::from_environment().unwrap();
    let pool = frame_pool(1024, 4).unwrap();
    let netns = std::fs::read_to_string(Path::new(&run_dir).join("netns")).unwrap();
    let environment = Environment { pool: &pool, keeper: &keeper, offered: &Offered::default() };
    let opened = (tap::PORT.open)(&port("web-0", &[("netns", &netns), ("ifname", "eth0")]), &environment).unwrap();
    keeper.ready().unwrap();
    println!("data plane {}", std::process::id());
    let signals = Signals::new(&STOP).unwrap();
    while signals.next().is_none() {
        assert_eq!(opened.device.status().error, None);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::process::exit(0);
}

/// This test binary as one of the roles above; signals are blocked from its start, see the keeper's own tests.
fn role(name: &str, run_dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("ports::{name}"), "--nocapture"]).env("PORTS_TEST_RUN_DIR", run_dir);
    Signals::new(&STOP).unwrap();
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tap_stays_up_while_its_data_plane_is_killed_and_started_again() {
    let name = "a_tap_stays_up_while_its_data_plane_is_killed_and_started_again";
    let Some(Hosts { daemon, pods: [pod, witness] }) = hosts(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let place = |namespace: &Namespace| {
        std::fs::write(dir.path().join("netns"), namespace.path().to_str().unwrap()).unwrap();
    };
    place(&pod);
    let keeper = daemon.run(|| role("role_keeper", dir.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut keeper = Running(keeper);
    let mut lines = BufReader::new(keeper.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut life = || {
        let said = lines.find_map(|line| line.split("data plane ").nth(1)?.trim().parse::<i32>().ok());
        Pid::from_raw(said.expect("the data plane says that it lives")).unwrap()
    };
    let mut data_plane = life();
    configure(&pod, 0);
    let before = link(&pod, "eth0").unwrap();
    assert!(before.carrier);
    let (stop, samples) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            pod.run(|| {
                let netlink = Netlink::open().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(netlink.link("eth0").unwrap().as_ref(), Some(&before));
                    samples.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        for _ in 0..3 {
            kill_process(data_plane, Signal::KILL).unwrap();
            let next = life();
            assert_ne!(next, data_plane);
            data_plane = next;
        }
        stop.store(true, Ordering::Relaxed);
        watch.join().unwrap();
    });
    assert!(samples.into_inner() > 100, "somebody looked");

    // When its namespace is another one after a restart, the port is there, and no more where it was.
    let elsewhere = Namespace::new().unwrap();
    for (now, then) in [(&elsewhere, &pod), (&pod, &elsewhere)] {
        place(now);
        kill_process(data_plane, Signal::KILL).unwrap();
        data_plane = life();
        assert!(link(now, "eth0").is_some());
        gone(then, "eth0");
    }

    // The descriptor that went from hand to hand was never opened inside: the namespace can go.
    witness.run(|| {
        let far = netns::open(pod.path()).unwrap();
        Netlink::open().unwrap().add_veth("alive", "pair", Some(far.as_fd())).unwrap();
    });
    kill_process(Pid::from_raw(keeper.0.id() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(keeper.0.wait().unwrap().code(), Some(0));
    assert!(link(&pod, "eth0").is_some_and(|link| !link.carrier), "after an orderly stop the device waits");
    drop(pod);
    eventually("the namespace is freed", || link(&witness, "alive").is_none().then_some(()));
}
