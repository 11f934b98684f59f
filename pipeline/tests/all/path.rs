//! One frame, one row: the configuration, what was said before, the frame, what leaves where or why nothing does, and
//! exactly the events that it causes. Every row runs as a miss and as a hit, with one worker and with two.

use api::{Change, Vlan};
use pipeline::drop::DropReason as Reason;

use crate::kit::net::*;
use crate::kit::{Bench, Fate, MODES, events};

/// What the cache makes of the decision.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// It is kept.
    Kept,
    /// It holds for this frame only.
    Transient,
    /// There was no walk: the frame is malformed, or from nowhere.
    None,
}
use Memory::{Kept, Transient};

struct Row {
    name: &'static str,
    changes: Vec<Change>,
    /// Frames that came in before, by port.
    before: Vec<(u16, Vec<u8>)>,
    from: u16,
    frame: Vec<u8>,
    fate: Fate,
    memory: Memory,
    /// The sender is learned by this very frame.
    learns: bool,
}

fn row(name: &'static str, changes: Vec<Change>, from: u16, frame: Vec<u8>, fate: Fate) -> Row {
    let memory = if fate.drops.contains(&Reason::NoBridge) { Memory::None } else { Kept };
    Row { name, changes, before: Vec::new(), from, frame, fate, memory, learns: true }
}

impl Row {
    fn after(mut self, before: &[(u16, Vec<u8>)]) -> Self {
        self.before = before.to_vec();
        self
    }

    fn with(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.changes.extend(changes);
        self
    }

    /// Nobody is learned by it.
    fn silent(mut self) -> Self {
        self.learns = false;
        self
    }

    fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    fn run(&self, workers: usize) {
        let mut bench = Bench::new(workers);
        bench.apply(self.changes.clone());
        for (port, frame) in &self.before {
            bench.send(*port, frame);
        }
        let mut walked = vec![("cache_miss", 1), ("walk", 1)];
        if self.memory == Transient {
            walked.push(("walk_transient", 1));
        }
        if self.memory == Memory::None {
            walked.clear();
        }
        let mut first = walked.clone();
        if self.learns && self.memory != Memory::None {
            first.push(("mac_learned", 1));
        }
        let name = self.name;
        let (fate, seen) = bench.watch(|bench| bench.send(self.from, &self.frame));
        assert_eq!(fate, self.fate, "{name}: as a miss, {workers} workers");
        assert_eq!(seen, events(&first), "{name}: as a miss, {workers} workers");
        // That a station is known now may be news to the decision just made.
        assert_eq!(bench.send(self.from, &self.frame), self.fate, "{name}: the second time, {workers} workers");
        let (fate, seen) = bench.watch(|bench| bench.send(self.from, &self.frame));
        let hit = if self.memory == Kept { events(&[("cache_hit", 1)]) } else { events(&walked) };
        assert_eq!(fate, self.fate, "{name}: as a hit, {workers} workers");
        assert_eq!(seen, hit, "{name}: as a hit, {workers} workers");
    }
}

#[test]
fn every_row_holds_as_a_miss_and_as_a_hit_with_one_worker_and_with_two() {
    for rows in [bridging(), vlans(), edges(), malformed()] {
        for row in rows {
            MODES.into_iter().for_each(|workers| row.run(workers));
        }
    }
}

const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const STP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
const LLDP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
const BEYOND: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x10];

fn bridging() -> Vec<Row> {
    let hello = |from: u16, host: u16| (from, eth(BROADCAST, mac(host)));
    let to_2 = || eth(mac(2), mac(1));
    let forward_bpdu = || {
        let mut changes = plain(3);
        changes[0] = add_bridge(api::Bridge { forward_bpdu: true, ..bridge(BR) });
        changes
    };
    let flood = |name, dst: [u8; 6]| {
        let frame = eth(dst, mac(1));
        row(name, plain(3), 1, frame.clone(), Fate::out(&[2, 3], &frame))
    };
    vec![
        flood("a frame to an unknown station leaves by every port but its own", mac(2)),
        flood("broadcast leaves by every port but its own", BROADCAST),
        flood("multicast leaves by every port but its own", GROUP),
        flood("a group address beside those that bridges keep is flooded", BEYOND),
        row("a frame to a known station leaves by its port only", plain(3), 1, to_2(), Fate::out(&[2], &to_2()))
            .after(&[hello(2, 2)]),
        row("a frame from a known station teaches nothing", plain(3), 1, to_2(), Fate::out(&[2], &to_2()))
            .after(&[hello(2, 2), hello(1, 1)])
            .silent(),
        row("a frame never leaves by the port where it came in", plain(3), 1, to_2(), Fate::drop(Reason::Reflection))
            .after(&[hello(1, 2)]),
        row("on a bridge of one port there is nowhere to go", plain(1), 1, to_2(), Fate::drop(Reason::NoPort)),
        row("a port that is not there has no bridge", plain(2), 9, to_2(), Fate::drop(Reason::NoBridge)),
        row(
            "a frame to oneself stays with its sender",
            plain(2),
            1,
            eth(mac(1), mac(1)),
            Fate::drop(Reason::Reflection),
        )
        .after(&[hello(1, 1)])
        .silent(),
        row("spanning tree is kept to the bridge", plain(3), 1, eth(STP, mac(1)), Fate::drop(Reason::LinkLocal))
            .silent(),
        row("LLDP is kept to the bridge", plain(3), 1, eth(LLDP, mac(1)), Fate::drop(Reason::LinkLocal)).silent(),
        row(
            "with forward-bpdu they are forwarded",
            forward_bpdu(),
            1,
            eth(LLDP, mac(1)),
            Fate::out(&[2, 3], &eth(LLDP, mac(1))),
        ),
        row("a static station is where it was placed", plain(3), 1, to_2(), Fate::out(&[3], &to_2()))
            .with([add_station(station(0, mac(2), 3))]),
        row("a static station does not move by speaking elsewhere", plain(3), 1, to_2(), Fate::out(&[3], &to_2()))
            .with([add_station(station(0, mac(2), 3))])
            .after(&[hello(2, 2)]),
        row("a static station is not learned where it speaks", plain(3), 2, to_2(), Fate::out(&[1, 3], &to_2()))
            .with([add_station(station(0, mac(1), 3))])
            .silent(),
        row("a static station behind the in port", plain(3), 1, to_2(), Fate::drop(Reason::Reflection))
            .with([add_station(station(0, mac(2), 1))]),
        row("a static station at a port that is not there", plain(3), 1, to_2(), Fate::drop(Reason::NoPort))
            .with([add_station(station(0, mac(2), 7))]),
        row("a static station of another VLAN is no station here", plain(3), 1, to_2(), Fate::out(&[2, 3], &to_2()))
            .with([add_station(station(5, mac(2), 3))]),
    ]
}

fn vlans() -> Vec<Row> {
    let plain = eth(mac(2), mac(1));
    let tag = |tci| tagged(mac(2), mac(1), tci);
    let native_untagged = Vlan::NativeUntagged { tag: 10, trunks: vec![20] };
    let native_tagged = Vlan::NativeTagged { tag: 10, trunks: vec![20] };
    // Port 1 is what a row says; 2 an access port of VLAN 10, 3 of 20; 4 a trunk of both, 5 of all; 6 and 7 native.
    let from = |first: Vlan| {
        ports(&[
            (1, first),
            (2, access(10)),
            (3, access(20)),
            (4, trunk(&[10, 20])),
            (5, trunk(&[])),
            (6, native_untagged.clone()),
            (7, native_tagged.clone()),
        ])
    };
    let sent = |rows: &[(u16, &Vec<u8>)]| Fate {
        sent: rows.iter().map(|(port, octets)| (*port, (*octets).clone())).collect(),
        drops: Vec::new(),
    };
    let in_10 = sent(&[(2, &plain), (4, &tag(10)), (5, &tag(10)), (6, &plain), (7, &tag(10))]);
    let in_20 = sent(&[(3, &plain), (4, &tag(20)), (5, &tag(20)), (6, &tag(20)), (7, &tag(20))]);
    let with_priority = |vid: u16| tag(0x6000 | vid);
    let in_10_urgent =
        sent(&[(2, &plain), (4, &with_priority(10)), (5, &with_priority(10)), (6, &plain), (7, &with_priority(10))]);
    let refused = || Fate::drop(Reason::VlanNotMember);
    let hello = |from: u16, tci: u16| {
        let dst = BROADCAST;
        (from, if tci == 0 { eth(dst, mac(2)) } else { tagged(dst, mac(2), tci) })
    };
    vec![
        row("what an access port says is in its VLAN", from(access(10)), 1, plain.clone(), in_10.clone()),
        row("a priority tag on an access port is no VLAN", from(access(10)), 1, tag(0x6000), in_10_urgent.clone()),
        row("a tag on an access port is refused", from(access(10)), 1, tag(20), refused()).silent(),
        row("even the tag of its own VLAN", from(access(10)), 1, tag(10), refused()).silent(),
        row("a trunk is in the VLAN of the tag", from(trunk(&[])), 1, tag(10), in_10.clone()),
        row("the priority of a tag stays with it", from(trunk(&[])), 1, with_priority(10), in_10_urgent),
        row("a trunk of some VLANs refuses the others", from(trunk(&[10, 20])), 1, tag(30), refused()).silent(),
        row(
            "a trunk that is no member of VLAN 0 refuses frames without a tag",
            from(trunk(&[10])),
            1,
            plain.clone(),
            refused(),
        )
        .silent(),
        row(
            "frames without a tag are in VLAN 0 on a trunk, where the others are trunks of all",
            from(trunk(&[])),
            1,
            plain.clone(),
            sent(&[(5, &plain)]),
        ),
        row(
            "a native trunk puts frames without a tag into its VLAN",
            from(native_untagged.clone()),
            1,
            plain.clone(),
            in_10.clone(),
        ),
        row("and those with its tag, too", from(native_untagged.clone()), 1, tag(10), in_10.clone()),
        row("and those of its other VLANs into theirs", from(native_untagged.clone()), 1, tag(20), in_20.clone()),
        row("and refuses the rest", from(native_untagged.clone()), 1, tag(30), refused()).silent(),
        row("a native-tagged trunk hears as the other does", from(native_tagged.clone()), 1, plain.clone(), in_10),
        row("and in its other VLANs", from(native_tagged.clone()), 1, tag(20), in_20),
        row("an address is another station in another VLAN", from(trunk(&[])), 1, tag(10), sent(&[(2, &plain)]))
            .after(&[hello(2, 0), hello(3, 0)]),
        row("of the station in VLAN 20 the tag is taken off, too", from(trunk(&[])), 1, tag(20), sent(&[(3, &plain)]))
            .after(&[hello(2, 0), hello(3, 0)]),
        row("to a station behind a trunk a tag is put on", from(access(20)), 1, plain.clone(), sent(&[(4, &tag(20))]))
            .after(&[hello(4, 20)]),
        row(
            "an inner tag is the frame's own affair",
            from(trunk(&[])),
            1,
            frame(mac(2), mac(1), &[(0x8100, 10), (0x8100, 99)], 0x88b5, b"x"),
            sent(&[(2, &frame(mac(2), mac(1), &[(0x8100, 99)], 0x88b5, b"x"))]),
        )
        .after(&[hello(2, 0)]),
        row("a static station at a port outside the VLAN", from(trunk(&[])), 1, tag(10), Fate::drop(Reason::NoPort))
            .with([add_station(station(10, mac(2), 3))]),
    ]
}

fn edges() -> Vec<Row> {
    let narrow = |mtu: u16| {
        let mut changes = plain(3);
        changes[2] = add_port(api::Port { mtu, ..port(2, Vlan::default()) });
        changes
    };
    let hello = (2, eth(BROADCAST, mac(2)));
    let of = |octets: usize| udp4(64, 80, octets - 28);
    let with_tag = |octets: usize| {
        let mut packet = of(octets);
        packet.splice(12..12, [0x81, 0, 0, 10]);
        packet
    };
    vec![
        row("a packet as large as the MTU leaves", narrow(1000), 1, of(1000), Fate::out(&[2], &of(1000)))
            .after(std::slice::from_ref(&hello)),
        row("one octet more does not", narrow(1000), 1, of(1001), Fate::drop(Reason::ExceedsMtu))
            .after(std::slice::from_ref(&hello))
            .memory(Transient),
        row("a tag is not part of the packet", narrow(1000), 1, with_tag(1000), Fate::out(&[2], &with_tag(1000)))
            .after(&[(2, tagged(BROADCAST, mac(2), 10))]),
        row(
            "of a flood only the narrow port loses its copy",
            narrow(1000),
            1,
            of(1001),
            Fate { drops: vec![Reason::ExceedsMtu], ..Fate::out(&[3], &of(1001)) },
        ),
    ]
}

fn malformed() -> Vec<Row> {
    let lie = |name, frame: Vec<u8>, reason| row(name, plain(2), 1, frame, Fate::drop(reason)).memory(Memory::None);
    let mut short_total = udp4(64, 80, 100);
    short_total[17] = 19;
    vec![
        lie("nothing at all", Vec::new(), Reason::EthTruncated),
        lie("half an Ethernet header", vec![2; 13], Reason::EthTruncated),
        lie("all ones", vec![0xff; 60], Reason::EthSourceGroup),
        lie("a group as the sender", eth(mac(2), GROUP), Reason::EthSourceGroup),
        lie("three tags", frame(mac(2), mac(1), &[(0x8100, 1); 3], 0x88b5, b""), Reason::VlanTooDeep),
        lie("a total length below the header's", short_total, Reason::Ipv4TotalLength),
        lie("an IPv4 packet that is cut off", udp4(64, 80, 100)[..30].to_vec(), Reason::Ipv4Truncated),
        lie("an IPv6 packet that is cut off", udp6(1, 80, 100)[..100].to_vec(), Reason::Ipv6PayloadLength),
    ]
}
