//! Packet ports against the real kernel: a pod behind a TAP and a host behind a veth pair, on one bridge.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use api::{BridgeId, Change, Delta, Port, PortId, Transaction};
use control::Switch as _;
use rustix::net::{AddressFamily, SocketType, ipproto};
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::{self, Namespace};
use vswitch::sys::packet;

use crate::memory::options;

const TAP: PortId = PortId(1);
const WIRE: PortId = PortId(2);
/// Of the pod behind the TAP, and of the host behind the veth pair.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
/// Of the daemon's namespace, on another interface: nobody on the wire may hear of it.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
const PATIENCE: Duration = Duration::from_secs(10);

struct Net {
    daemon: Namespace,
    /// The pod and the host; both call their interface `eth0`.
    ends: [Namespace; 2],
}

fn port(id: PortId, kind: &str, name: &str, options: &[(&str, &str)]) -> Port {
    Port {
        id,
        name: name.to_owned(),
        bridge: BridgeId(1),
        ofport: id.0,
        kind: kind.to_owned(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        vlan: api::Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: BTreeMap::new(),
    }
}

fn add(switch: &mut Switch, port: Port) -> Result<(), String> {
    switch.apply(&Transaction { changes: vec![Change::Port(Delta::add(port))] }).map_err(|refusal| refusal.0)
}

impl Net {
    fn new(test: &str) -> Option<Self> {
        let possible = std::path::Path::new(vswitch::sys::tun::PATH).exists();
        match (possible, Namespace::new(), Namespace::new(), Namespace::new()) {
            (true, Ok(daemon), Ok(pod), Ok(host)) => Some(Self { daemon, ends: [pod, host] }),
            (_, daemon, ..) => {
                println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", daemon.map(|_| ()));
                None
            }
        }
    }

    /// A veth pair from `uplink` here to `eth0` of the host.
    fn wire(&self) {
        self.daemon.run(|| {
            let far = netns::open(self.ends[1].path()).unwrap();
            Netlink::open().unwrap().add_veth("uplink", "eth0", Some(far.as_fd())).unwrap();
        });
        up(&self.daemon, "uplink");
        self.configure(1);
    }

    fn configure(&self, end: usize) {
        up(&self.ends[end], "eth0");
        self.ends[end].run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_address(netlink.index("eth0").unwrap(), ADDRESSES[end].into(), 24).unwrap();
        });
    }

    /// A switch with both ports.
    fn switch(&self) -> Switch {
        self.wire();
        let options = Options { spills: 256, ..options(1) };
        let mut switch = Switch::start(&options, Keeper::none()).unwrap();
        switch.apply(&crate::memory::transaction(&[])).unwrap();
        let there = [("netns", self.ends[0].path().to_str().unwrap()), ("ifname", "eth0")];
        add(&mut switch, port(TAP, "tap", "pod", &there)).unwrap();
        self.configure(0);
        add(&mut switch, port(WIRE, "packet", "wire", &[("ifname", "uplink")])).unwrap();
        switch
    }

    /// The pod gets an answer of the host to its echo request.
    fn pings(&self, patience: Duration) -> bool {
        self.ends[0].run(|| {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).unwrap();
            let socket = UdpSocket::from(socket);
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let end = Instant::now() + patience;
            while Instant::now() < end {
                let _ = socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 1], (ADDRESSES[1], 0));
                if socket.recv_from(&mut [0; 64]).is_ok() {
                    return true;
                }
            }
            false
        })
    }
}

fn up(namespace: &Namespace, name: &str) {
    namespace.run(|| {
        let netlink = Netlink::open().unwrap();
        netlink.set(netlink.index(name).unwrap(), &Settings { up: Some(true), ..Settings::default() }).unwrap();
    });
}

/// What a stream carries from one end to the other is what was sent.
fn carries(net: &Net, from: usize, to: usize) {
    let sent: Vec<u8> = (0..32 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let at = SocketAddr::new(ADDRESSES[to].into(), 5001);
    let listener = net.ends[to].run(|| TcpListener::bind(at).unwrap());
    let mut stream = net.ends[from].run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} octets of {} came, or others", received.len(), sent.len());
    });
}

#[test]
fn a_pod_and_a_host_behind_a_veth_pair_reach_each_other_with_super_frames() {
    let Some(net) = Net::new("a_pod_and_a_host_behind_a_veth_pair_reach_each_other_with_super_frames") else { return };
    net.daemon.run(|| {
        let mut switch = net.switch();
        assert!(net.pings(PATIENCE), "{:?}", switch.drops());
        carries(&net, 0, 1);
        carries(&net, 1, 0);
        let state = switch.ports().into_iter().find(|state| state.id == WIRE).unwrap();
        assert_eq!((state.error, state.ifname.as_deref(), state.link), (None, Some("uplink"), Some(true)));
        let mean = state.stats.rx_bytes / state.stats.rx_packets;
        assert!(mean > 1514, "frames that came in had {mean} octets: none was larger than the MTU");
        let gone = Change::Port(Delta { old: Some(port(WIRE, "packet", "wire", &[("ifname", "uplink")])), new: None });
        switch.apply(&Transaction { changes: vec![gone] }).unwrap();
        assert!(!net.pings(Duration::from_millis(500)), "the control: without the port nothing passes");
        assert!(Netlink::open().unwrap().link("uplink").unwrap().is_some(), "the interface stays");
        switch.stop();
    });
}

#[test]
fn a_tagged_frame_keeps_its_tag_both_ways() {
    let Some(net) = Net::new("a_tagged_frame_keeps_its_tag_both_ways") else { return };
    net.daemon.run(|| {
        let switch = net.switch();
        let sockets = net
            .ends
            .each_ref()
            .map(|end| end.run(|| packet::attach(Netlink::open().unwrap().index("eth0").unwrap()).unwrap()));
        for (from, to, mark) in [(0, 1, 0xa5), (1, 0, 0x5a)] {
            // Priority 1, VLAN 7; behind the tag a protocol that nobody speaks.
            let mut frame = vec![0xff; 6];
            frame.extend([2, 0, 0, 0, 0, mark, 0x81, 0, 0x20, 7, 0x88, 0xb5]);
            frame.extend([mark; 46]);
            let end = Instant::now() + PATIENCE;
            rustix::io::write(&sockets[from], &[&[0; packet::HEADER][..], &frame].concat()).unwrap();
            loop {
                assert!(Instant::now() < end, "the frame did not come: {:?}", switch.drops());
                let mut octets = [0; 2048];
                match packet::receive(&sockets[to], &mut octets, &mut []) {
                    Ok((len, tag)) if octets[packet::HEADER..len].ends_with(&[mark; 46]) => {
                        assert_eq!(tag, Some([0x81, 0, 0x20, 7]));
                        assert_eq!(octets[packet::HEADER..len], [&frame[..12], &frame[16..]].concat());
                        break;
                    }
                    _ => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }
        switch.stop();
    });
}

#[test]
fn an_interface_that_goes_is_told_and_one_that_comes_again_is_a_port_again() {
    let Some(net) = Net::new("an_interface_that_goes_is_told_and_one_that_comes_again_is_a_port_again") else { return };
    net.daemon.run(|| {
        let mut switch = net.switch();
        let netlink = Netlink::open().unwrap();
        netlink.delete(netlink.index("uplink").unwrap()).unwrap();
        let error = |switch: &Switch| switch.ports().into_iter().find(|state| state.id == WIRE).unwrap().error;
        let until = |switch: &mut Switch, wanted: Option<&str>| {
            let end = Instant::now() + PATIENCE;
            while error(switch).as_deref() != wanted {
                assert!(Instant::now() < end, "{:?}", error(switch));
                switch.tick();
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        switch.tick();
        until(&mut switch, Some("interface is gone"));
        assert!(!net.pings(Duration::from_millis(300)));
        net.wire();
        until(&mut switch, None);
        assert!(net.pings(PATIENCE), "{:?}", switch.drops());
        switch.stop();
    });
}

#[test]
fn the_kernel_does_not_answer_arp_for_its_own_addresses_where_a_port_is() {
    let Some(net) = Net::new("the_kernel_does_not_answer_arp_for_its_own_addresses_where_a_port_is") else { return };
    net.daemon.run(|| {
        let netlink = Netlink::open().unwrap();
        netlink.add_veth("own", "peer", None).unwrap();
        let own = netlink.index("own").unwrap();
        ["own", "peer"].into_iter().for_each(|name| up(&net.daemon, name));
        netlink.add_address(own, NODE.into(), 32).unwrap();
        let asked = || {
            net.ends[1].run(|| {
                let socket = UdpSocket::bind((ADDRESSES[1], 0)).unwrap();
                socket.connect((NODE, 9)).unwrap();
                // The kernel says whether somebody has the address: nobody listens there, so either way is an error.
                let _ = socket.send(b"?");
                std::thread::sleep(Duration::from_millis(300));
                std::fs::read_to_string("/proc/thread-self/net/arp")
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with(&NODE.to_string()) && line.contains(" 0x2 "))
            })
        };
        let mut switch = net.switch();
        assert!(net.pings(PATIENCE));
        assert!(!asked(), "the kernel answered on a port");
        let gone = Change::Port(Delta { old: Some(port(WIRE, "packet", "wire", &[("ifname", "uplink")])), new: None });
        switch.apply(&Transaction { changes: vec![gone] }).unwrap();
        let end = Instant::now() + PATIENCE;
        while !asked() {
            assert!(Instant::now() < end, "the control: without a port the kernel answers");
        }
        switch.stop();
    });
}

#[test]
fn interfaces_that_cannot_be_ports_are_refused_by_name_and_rule() {
    let Some(net) = Net::new("interfaces_that_cannot_be_ports_are_refused_by_name_and_rule") else { return };
    net.daemon.run(|| {
        let mut switch = net.switch();
        add(&mut switch, port(PortId(3), "internal", "local", &[])).unwrap();
        let mut refused = |name: &str, mtu: u16| {
            let wish = Port { mtu, ..port(PortId(4), "packet", "p4", &[("ifname", name)]) };
            add(&mut switch, wish).unwrap_err()
        };
        assert_eq!(refused("nobody", 1500), "p4: options:ifname=\"nobody\": no such interface");
        assert_eq!(refused("lo", 1500), "p4: options:ifname=\"lo\": not an Ethernet interface");
        assert_eq!(refused("local", 1500), "p4: options:ifname=\"local\": is the device of port \"local\"");
        assert_eq!(refused("uplink", 1500), "p4: options:ifname=\"uplink\": is port number 2 already");
        let netlink = Netlink::open().unwrap();
        netlink.add_veth("other", "end", None).unwrap();
        let why = "p4: mtu_request=9000: interface \"other\" has an MTU of 1500, which must not be less";
        assert_eq!(refused("other", 9000), why);
        switch.stop();
    });
}
