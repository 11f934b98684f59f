//! The stack asked over its rings, as workers do.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::{BridgeId, Port, Vlan};
use pipeline::burst::Burst;
use pipeline::raw::Pool;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::*;
use crate::keeper::Keeper;
use crate::ports::{Offered, RxQueue};

const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const POD: PortId = PortId(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Client and server, of each family.
const V4: [&str; 2] = ["10.1.0.9", "10.96.0.1"];
const V6: [&str; 2] = ["fd00::9", "fd00:96::1"];

struct Asker {
    device: Arc<dyn Device>,
    queue: Box<dyn RxQueue>,
    stash: Stash,
}

fn port() -> Port {
    Port {
        id: PortId::STACK,
        name: "stack".to_owned(),
        bridge: BridgeId(1),
        ofport: 0,
        kind: "stack".to_owned(),
        options: Default::default(),
        vlan: Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: Default::default(),
    }
}

fn router() -> Router {
    Router {
        bridge: BridgeId(1),
        mac: ROUTER,
        gateways: Vec::new(),
        node: Vec::new(),
        uplink: None,
        local: None,
        snat_ports: Router::SNAT_PORTS,
    }
}

impl Asker {
    fn new() -> Self {
        let pool = Pool::heap(4096, 0);
        let environment = Environment { pool: &pool, keeper: &Keeper::none(), offered: &Offered::default() };
        let Opened { mut queues, device } = open(&port(), &environment).unwrap();
        device.routed(&router());
        Self { device, queue: queues.remove(0), stash: pool.stash() }
    }

    /// Send frames that came in by a port; what became of them, and how many are left.
    fn send(&mut self, from: PortId, frames: &[Vec<u8>]) -> (Tx, usize) {
        let mut batch = TxBatch::new();
        for octets in frames {
            let mut frame = self.stash.take().unwrap();
            assert!(frame.fill(octets));
            batch.push(frame, from);
        }
        let end = Instant::now() + PATIENCE;
        let mut result = self.device.tx(&mut batch, &mut self.stash);
        while result == Tx::Full && Instant::now() < end {
            std::thread::yield_now();
            result = self.device.tx(&mut batch, &mut self.stash);
        }
        let left = batch.len();
        while let Some((frame, _)) = batch.pop() {
            self.stash.give(frame);
        }
        (result, left)
    }

    /// The frames that came back so far.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        burst.reset(PortId::STACK);
        self.queue.rx(&mut burst, 256, &mut self.stash);
        let frames: Vec<Frame> = burst.frames.iter_mut().filter_map(Option::take).collect();
        frames
            .into_iter()
            .map(|frame| {
                let octets = frame.to_vec();
                self.stash.give(frame);
                octets
            })
            .collect()
    }

    /// The packets of so many answers, whose link layer is as it shall be.
    fn answers(&mut self, count: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        while frames.len() < count {
            assert!(Instant::now() < end, "{} of {count} answers", frames.len());
            frames.extend(self.receive());
            std::thread::yield_now();
        }
        let packet = |frame: Vec<u8>| {
            assert_eq!((&frame[..6], &frame[6..12]), (&ROUTER.0[..], &host::MAC.0[..]));
            assert_eq!(frame[12..14], if frame[14] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
            frame[14..].to_vec()
        };
        frames.into_iter().map(packet).collect()
    }

    fn ask(&mut self, packet: &[u8]) -> Vec<u8> {
        assert_eq!(self.send(POD, &[frame(packet)]), (Tx::Done, 0));
        self.answers(1).remove(0)
    }
}

/// A packet in a frame to the host.
fn frame(packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&host::MAC.0[..], &ROUTER.0, &kind, packet].concat()
}

/// An IP packet with this payload.
fn packet(ends: [&str; 2], proto: IpProtocol, len: usize, emit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let [src, dst] = ends.map(|text| text.parse::<IpAddr>().unwrap().into());
    let repr = IpRepr::new(src, dst, proto, len, 63);
    let mut octets = vec![0; repr.buffer_len()];
    repr.emit(&mut octets, &ChecksumCapabilities::default());
    emit(&mut octets[repr.header_len()..]);
    octets
}

fn echo(ends: [&str; 2], data: &[u8]) -> Vec<u8> {
    let checksum = ChecksumCapabilities::default();
    match ends.map(|text| text.parse::<IpAddr>().unwrap()) {
        [IpAddr::V6(src), IpAddr::V6(dst)] => {
            let repr = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 1, data };
            packet(ends, IpProtocol::Icmpv6, repr.buffer_len(), |out| {
                repr.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(out), &checksum);
            })
        }
        _ => {
            let repr = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data };
            packet(ends, IpProtocol::Icmp, repr.buffer_len(), |out| {
                repr.emit(&mut Icmpv4Packet::new_unchecked(out), &checksum);
            })
        }
    }
}

fn udp(ends: [&str; 2]) -> Vec<u8> {
    let [src, dst] = ends.map(|text| text.parse::<IpAddr>().unwrap().into());
    let repr = UdpRepr { src_port: 5000, dst_port: 53 };
    packet(ends, IpProtocol::Udp, repr.header_len() + 5, |out| {
        let mut datagram = UdpPacket::new_unchecked(out);
        repr.emit(
            &mut datagram,
            &src,
            &dst,
            5,
            |data| data.copy_from_slice(b"query"),
            &ChecksumCapabilities::default(),
        );
    })
}

fn syn(ends: [&str; 2]) -> Vec<u8> {
    let [src, dst] = ends.map(|text| text.parse::<IpAddr>().unwrap().into());
    let repr = TcpRepr {
        src_port: 5000,
        dst_port: 80,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1000),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    packet(ends, IpProtocol::Tcp, repr.buffer_len(), |out| {
        repr.emit(&mut TcpPacket::new_unchecked(out), &src, &dst, &ChecksumCapabilities::default());
    })
}

/// The payload of an answer that is sound and comes from the server to the client.
fn payload(answer: &[u8], ends: [&str; 2]) -> (IpProtocol, Vec<u8>) {
    let [client, server] = ends.map(|text| text.parse::<IpAddr>().unwrap());
    if client.is_ipv4() {
        let packet = Ipv4Packet::new_checked(answer).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr())), (server, client));
        (packet.next_header(), packet.payload().to_vec())
    } else {
        let packet = Ipv6Packet::new_checked(answer).unwrap();
        assert_eq!((IpAddr::V6(packet.src_addr()), IpAddr::V6(packet.dst_addr())), (server, client));
        (packet.next_header(), packet.payload().to_vec())
    }
}

#[test]
fn whatever_address_arrives_here_answers_echo_in_its_own_name() {
    let mut asker = Asker::new();
    for address in ["10.96.0.1", "10.1.0.1", "203.0.113.9"] {
        let ends = [V4[0], address];
        let answer = asker.ask(&echo(ends, b"are you there"));
        let (proto, octets) = payload(&answer, ends);
        let icmp = Icmpv4Packet::new_checked(&octets[..]).unwrap();
        let repr = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(proto, IpProtocol::Icmp);
        assert_eq!(repr, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"are you there" });
    }
    let answer = asker.ask(&echo(V6, b"are you there"));
    let (_, octets) = payload(&answer, V6);
    let icmp = Icmpv6Packet::new_checked(&octets[..]).unwrap();
    let [client, server] = V6.map(|text| text.parse().unwrap());
    let repr = Icmpv6Repr::parse(&server, &client, &icmp, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(repr, Icmpv6Repr::EchoReply { ident: 7, seq_no: 1, data: b"are you there" });
}

#[test]
fn a_datagram_is_answered_port_unreachable() {
    let mut asker = Asker::new();
    let (_, octets) = payload(&asker.ask(&udp(V4)), V4);
    let icmp = Icmpv4Packet::new_checked(&octets[..]).unwrap();
    let repr = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
    assert!(matches!(repr, Icmpv4Repr::DstUnreachable { reason: Icmpv4DstUnreachable::PortUnreachable, .. }));
    let (_, octets) = payload(&asker.ask(&udp(V6)), V6);
    let icmp = Icmpv6Packet::new_checked(&octets[..]).unwrap();
    let [client, server] = V6.map(|text| text.parse().unwrap());
    let repr = Icmpv6Repr::parse(&server, &client, &icmp, &ChecksumCapabilities::default()).unwrap();
    assert!(matches!(repr, Icmpv6Repr::DstUnreachable { reason: Icmpv6DstUnreachable::PortUnreachable, .. }));
}

#[test]
fn a_connection_is_refused_with_a_reset() {
    let mut asker = Asker::new();
    for ends in [V4, V6] {
        let (proto, octets) = payload(&asker.ask(&syn(ends)), ends);
        let tcp = TcpPacket::new_checked(&octets[..]).unwrap();
        assert_eq!((proto, tcp.src_port(), tcp.dst_port()), (IpProtocol::Tcp, 80, 5000));
        assert!(tcp.rst() && tcp.ack() && tcp.ack_number() == TcpSeqNumber(1001));
        let [client, server] = ends.map(|text| text.parse::<IpAddr>().unwrap().into());
        assert!(tcp.verify_checksum(&server, &client));
    }
}

#[test]
fn an_echo_in_two_fragments_is_answered_in_two() {
    let mut asker = Asker::new();
    let data: Vec<u8> = (0..2000).map(|i| i as u8).collect();
    let whole = echo(V4, &data);
    let fragment = |at: usize, len: usize, more: bool| {
        let mut octets = whole[..20].to_vec();
        octets.extend(&whole[20 + at..20 + at + len]);
        let mut header = Ipv4Packet::new_unchecked(&mut octets[..]);
        header.set_total_len((20 + len) as u16);
        header.set_ident(77);
        header.set_dont_frag(false);
        header.set_more_frags(more);
        header.set_frag_offset(at as u16);
        header.fill_checksum();
        frame(&octets)
    };
    let rest = whole.len() - 20 - 1480;
    assert_eq!(asker.send(POD, &[fragment(0, 1480, true), fragment(1480, rest, false)]), (Tx::Done, 0));
    let mut answers = asker.answers(2);
    answers.sort_by_key(|answer| Ipv4Packet::new_unchecked(answer).frag_offset());
    let together: Vec<u8> = answers.iter().flat_map(|answer| payload(answer, V4).1).collect();
    assert_eq!(together[8..], data);
}

#[test]
fn tags_are_taken_off_and_what_is_not_ip_or_from_nobody_is_not_answered() {
    let mut asker = Asker::new();
    let good = frame(&echo(V4, b"x"));
    let tagged = [&good[..12], &[0x81, 0, 0, 5], &good[12..]].concat();
    let arp = [&good[..12], &[8, 6], &[0; 28][..]].concat();
    let cut = good[..20].to_vec();
    let silent = [
        ["0.0.0.0", "10.96.0.1"],
        ["255.255.255.255", "10.96.0.1"],
        ["224.0.0.1", "10.96.0.1"],
        ["127.0.0.1", "10.96.0.1"],
        ["10.1.0.9", "224.0.0.1"],
        ["10.1.0.9", "255.255.255.255"],
        ["::", "fd00::1"],
        ["ff02::1", "fd00::1"],
        ["::1", "fd00::1"],
        ["fd00::9", "ff02::1"],
    ];
    let mut frames: Vec<Vec<u8>> = vec![arp, cut];
    for ends in silent {
        frames.extend([frame(&echo(ends, b"x")), frame(&udp(ends)), frame(&syn(ends))]);
    }
    assert_eq!(asker.send(POD, &frames), (Tx::Done, 0));
    // Answers come in order: this one is the first.
    assert_eq!(asker.send(POD, &[tagged]), (Tx::Done, 0));
    let answers = asker.answers(1);
    assert_eq!(payload(&answers[0], V4).0, IpProtocol::Icmp);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(asker.receive(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_port_that_asks_too_much_is_limited_and_no_other_is() {
    let mut asker = Asker::new();
    let question = frame(&echo(V4, b"x"));
    let many = vec![question.clone(); 400];
    let (result, left) = asker.send(POD, &many);
    assert_eq!(result, Tx::Limited);
    assert!((100..=200).contains(&left), "{left} of 400 left");
    assert_eq!(asker.send(PortId(2), &many[..200]), (Tx::Done, 0));
    asker.answers(200 + 400 - left);
}

#[test]
fn without_a_router_nothing_is_answered() {
    let mut asker = Asker::new();
    asker.device.routed(&Router { mac: MacAddr([0; 6]), ..router() });
    assert_eq!(asker.send(POD, &[frame(&echo(V4, b"x"))]), (Tx::Done, 0));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(asker.receive(), Vec::<Vec<u8>>::new());
}

#[test]
fn no_other_port_can_be_a_stack() {
    let pool = Pool::heap(64, 0);
    let environment = Environment { pool: &pool, keeper: &Keeper::none(), offered: &Offered::default() };
    let refused = open(&Port { id: PortId(1), ..port() }, &environment).map(|_| ()).unwrap_err();
    assert_eq!(refused.0, "type=stack: the switch makes its one such port itself");
}

#[test]
fn unfinished_work_is_not_taken() {
    let asker = Asker::new();
    let unfinished = Offload { flags: Offload::NEEDS_CSUM, ..Offload::NONE };
    let super_frame = Offload { gso_type: Offload::GSO_TCPV4, gso_size: 1448, ..Offload::NONE };
    let verified = Offload { flags: Offload::DATA_VALID, ..Offload::NONE };
    assert_eq!([unfinished, super_frame, verified].map(|work| asker.device.takes(work)), [false, false, true]);
}

/// Whatever is sent, the host lives, and every frame comes back to the pool but what stashes keep.
#[test]
fn hostile_frames_do_not_stop_it() {
    let mut asker = Asker::new();
    let seeds = [echo(V4, b"abcdefgh"), echo(V6, b"abcdefgh"), udp(V4), udp(V6), syn(V4), syn(V6)].map(|p| frame(&p));
    let edit = (any::<prop::sample::Index>(), any::<u8>());
    let mutated =
        (prop::sample::select(seeds.to_vec()), prop::collection::vec(edit, 0..6), any::<prop::sample::Index>());
    let mutated = mutated.prop_map(|(mut octets, edits, cut)| {
        for (at, value) in edits {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        // One in four is cut short.
        let len = cut.index(octets.len() * 4).min(octets.len());
        octets.truncate(len);
        octets
    });
    let garbage = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(six, noise)| {
        let first = if six { 0x60 } else { 0x45 };
        frame(&[&[first], &noise[..]].concat())
    });
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let asking = std::cell::RefCell::new((&mut asker, PortId::NONE));
    let strategy = prop::collection::vec(prop_oneof![mutated, garbage], 1..20);
    runner
        .run(&strategy, |frames| {
            // A port each, so that no meter stands between.
            let (asker, port) = &mut *asking.borrow_mut();
            port.0 += 1;
            prop_assert_eq!(asker.send(*port, &frames), (Tx::Done, 0));
            asker.receive();
            Ok(())
        })
        .unwrap();
    // Let the answers of the last ones come; then it answers as ever.
    std::thread::sleep(Duration::from_millis(50));
    asker.receive();
    let answer = asker.ask(&echo(V4, b"still there"));
    assert!(answer.ends_with(b"still there"));
}
