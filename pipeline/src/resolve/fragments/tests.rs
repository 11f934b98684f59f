//! Fragments in every order, and hostile ones.

use proptest::prelude::*;

use super::*;
use crate::key::KeyMask;
use crate::parse;
use crate::parse::tests::frames::*;
use crate::raw::{Pool, Stash};

const PORT: PortId = PortId(7);
const ZONE: BridgeId = BridgeId(1);

fn mask() -> KeyMask {
    FlowKey::mask(&[
        Field::IN_PORT,
        Field::VLAN,
        Field::ETH_DST,
        Field::ETH_SRC,
        Field::ETH_TYPE,
        Field::IP_PROTO,
        Field::IP_FRAG,
        Field::IPV4_SRC,
        Field::IPV4_DST,
        Field::TP_SRC,
        Field::TP_DST,
        Field::IPV6_SRC,
        Field::IPV6_DST,
    ])
}

/// A tracker and the frames it is given.
struct Bench {
    tracker: Fragments,
    stash: Stash,
    spare: usize,
    given: Vec<DropReason>,
    /// Of the last train.
    octets: usize,
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        let stash = Pool::heap(1024, 16).stash();
        Self { tracker: Fragments::new(bounds), spare: stash.available(), stash, given: Vec::new(), octets: 0 }
    }

    /// Give the tracker a frame; the train that comes of it, as octets, and its key.
    fn take_at(&mut self, octets: &[u8], port: PortId, millis: u64) -> Option<(Vec<Vec<u8>>, FlowKey, Layers)> {
        let layers = parse::layers(octets, octets.len(), None).expect("a frame that the parser accepts");
        let key = parse::key(port, octets, &layers).masked(&mask());
        let mut frame = self.stash.take().unwrap();
        let (head, tail) = octets.split_at(octets.len().min(1500));
        assert!(frame.fill(head));
        if !tail.is_empty() {
            let mut spill = self.stash.take_spill().unwrap();
            spill.bytes_mut()[..tail.len()].copy_from_slice(tail);
            frame.attach(spill, tail.len());
        }
        let (stash, given) = (&mut self.stash, &mut self.given);
        let arrival = Arrival { frame, layers, key, in_port: port, zone: ZONE };
        let train = self.tracker.take(arrival, at(millis), &mut |frame, _, reason| {
            given.push(reason);
            stash.give(frame);
        })?;
        assert_eq!(train.in_port, port);
        self.octets = train.octets;
        let octets = train.fragments.iter().map(|(frame, _)| frame.to_vec()).collect();
        for (frame, layers) in train.fragments {
            let parsed = parse::layers(frame.head(), frame.len(), None);
            assert_eq!(parsed, Ok(layers), "each keeps the layers it came with");
            self.stash.give(frame);
        }
        Some((octets, train.key, train.layers))
    }

    fn take(&mut self, octets: &[u8]) -> Option<(Vec<Vec<u8>>, FlowKey, Layers)> {
        self.take_at(octets, PORT, 0)
    }

    fn expire(&mut self, millis: u64) {
        let (stash, given) = (&mut self.stash, &mut self.given);
        self.tracker.expire(at(millis), &mut |frame, _, reason| {
            given.push(reason);
            stash.give(frame);
        });
    }

    /// What was given back since the last time.
    fn given(&mut self) -> Vec<DropReason> {
        std::mem::take(&mut self.given)
    }

    /// Frames that the tracker holds.
    fn held(&self) -> usize {
        self.spare - self.stash.available()
    }
}

fn at(millis: u64) -> Now {
    Now(Duration::from_millis(millis))
}

/// The pieces of `data`, cut behind each of `cuts` units of eight octets.
fn pieces(data: &[u8], cuts: &[usize]) -> Vec<(usize, bool, Vec<u8>)> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut * 8).filter(|cut| (1..data.len()).contains(cut)).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.push(data.len());
    let mut from = 0;
    let piece = |to| {
        let piece = (from, to < data.len(), data[from..to].to_vec());
        from = to;
        piece
    };
    cuts.into_iter().map(piece).collect()
}

fn v4(proto: u8, data: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let word = |from: usize, more: bool| (from / 8) as u16 | if more { 0x2000 } else { 0 };
    let frame =
        |(from, more, data): (usize, bool, Vec<u8>)| ethernet(&[], 0x0800, &ipv4(proto, word(from, more), &[], &data));
    pieces(data, cuts).into_iter().map(frame).collect()
}

fn v6(proto: u8, data: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let frame = |(from, more, data): (usize, bool, Vec<u8>)| {
        let [high, low] = (from as u16 | u16::from(more)).to_be_bytes();
        ethernet(&[], 0x86dd, &ipv6(44, &[&[proto, 0, high, low, 0, 0, 0, 7][..], &data].concat()))
    };
    pieces(data, cuts).into_iter().map(frame).collect()
}

/// The key of a frame in one piece.
fn key_of(octets: &[u8]) -> FlowKey {
    let layers = parse::layers(octets, octets.len(), None).unwrap();
    parse::key(PORT, octets, &layers).masked(&mask())
}

#[test]
fn a_train_leaves_in_order_with_the_key_of_the_whole() {
    let data = udp(&[9; 3000]);
    let whole4 = ethernet(&[], 0x0800, &ipv4(17, 0, &[], &data));
    let whole6 = ethernet(&[], 0x86dd, &ipv6(17, &data));
    for (frames, whole) in [(v4(17, &data, &[180, 100]), whole4), (v6(17, &data, &[180, 100]), whole6)] {
        let mut bench = Bench::new(Bounds::default());
        assert!(bench.take(&frames[2]).is_none() && bench.take(&frames[0]).is_none());
        assert_eq!(bench.held(), 2);
        let (train, key, layers) = bench.take(&frames[1]).unwrap();
        assert_eq!((train, key), (frames.clone(), key_of(&whole)));
        assert_eq!((layers.guard & guard::FRAGMENT, bench.octets), (0, data.len()));
        assert_eq!(layers.guard >> guard::SIZE_SHIFT, frames[2].len() as u32 - 14, "of the largest, the third");
        assert_eq!((bench.held(), bench.given(), bench.tracker.is_empty()), (0, vec![], true));
    }
}

#[test]
fn headers_behind_the_fragment_header_are_cut_with_the_rest() {
    let options = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let data = [&options[..], &udp(&[1; 64])].concat();
    let mut bench = Bench::new(Bounds::default());
    let frames = v6(60, &data, &[4, 8]);
    assert!(bench.take(&frames[0]).is_none() && bench.take(&frames[1]).is_none());
    let (train, key, _) = bench.take(&frames[2]).unwrap();
    let whole = ethernet(&[], 0x86dd, &ipv6(60, &data));
    assert_eq!((train, key, bench.octets), (frames, key_of(&whole), 72));
}

#[test]
fn the_fragments_of_our_own_making_are_a_train() {
    let mut bench = Bench::new(Bounds::default());
    let octets = ethernet(&[], 0x0800, &ipv4(17, 0, &[1; 4], &udp(&[9; 1200])));
    let layers = parse::layers(&octets, octets.len(), None).unwrap();
    let (mut frame, mut cut) = (bench.stash.take().unwrap(), Vec::new());
    assert!(frame.fill(&octets));
    crate::rewrite::fragment::fragment(frame, &layers, 500, &mut bench.stash, &mut |one| cut.push(one)).unwrap();
    let frames: Vec<Vec<u8>> = cut.iter().map(Frame::to_vec).collect();
    cut.into_iter().for_each(|frame| bench.stash.give(frame));
    let trains: Vec<_> = frames.iter().rev().filter_map(|frame| bench.take(frame)).collect();
    assert_eq!((trains.len(), &trains[0].0, trains[0].1, bench.octets), (1, &frames, key_of(&octets), 1208));
}

#[test]
fn what_is_whole_by_itself_waits_for_nobody() {
    let mut bench = Bench::new(Bounds::default());
    for frame in [v6(17, &udp(b"atomic"), &[]), v4(17, &udp(b"whole"), &[]), vec![ethernet(&[], 0x0806, &arp())]] {
        assert_eq!(bench.take(&frame[0]).unwrap().0, frame);
    }
    // An atomic fragment has nothing to do with others of its number (RFC 6946, 4).
    let others = v6(17, &udp(&[1; 64]), &[4]);
    assert!(bench.take(&others[0]).is_none());
    assert!(bench.take(&v6(17, &udp(b"atomic"), &[])[0]).is_some());
    assert_eq!(bench.take(&others[1]).unwrap().0, others);
}

#[test]
fn datagrams_that_differ_in_anything_but_their_ports_are_kept_apart() {
    let frames = v4(17, &udp(&[1; 64]), &[4]);
    let with = |at: usize, value: u8| {
        let mut other = frames[1].clone();
        other[at] = value;
        other
    };
    for (what, at) in
        [("dst mac", 0), ("src mac", 11), ("id", 18), ("protocol", 23), ("source", 29), ("destination", 33)]
    {
        let mut bench = Bench::new(Bounds::default());
        assert!(bench.take(&frames[0]).is_none());
        assert!(bench.take(&with(at, 0x66)).is_none(), "{what}");
        assert!(bench.take(&frames[1]).is_some(), "{what}");
    }
    let mut bench = Bench::new(Bounds::default());
    assert!(bench.take(&frames[0]).is_none());
    assert!(bench.take_at(&frames[1], PortId(8), 0).is_none(), "another port");
    assert!(bench.take(&frames[1]).is_some());
}

#[test]
fn in_ipv6_only_the_first_fragment_says_what_it_is() {
    let mut bench = Bench::new(Bounds::default());
    let mut frames = v6(17, &udp(&[1; 64]), &[4]);
    frames[1][54] = 6;
    assert!(bench.take(&frames[1]).is_none());
    let (train, key, _) = bench.take(&frames[0]).unwrap();
    assert_eq!((train, key.get(Field::IP_PROTO)), (frames, [17]));
}

#[test]
fn an_overlap_ends_the_datagram_and_what_comes_later_of_it() {
    let data = udp(&[1; 120]);
    let frames = v4(17, &data, &[4, 8]);
    let other = v4(17, &data, &[3, 9]);
    // A duplicate; one across two others; another last one, shorter; one behind the last.
    let shorter = v4(17, &data[..96], &[8]).remove(1);
    let beyond = v4(17, &[data.clone(), vec![0; 32]].concat(), &[16, 18]).remove(1);
    for intruder in [&frames[0], &other[1], &shorter, &beyond] {
        let mut bench = Bench::new(Bounds::default());
        assert!(bench.take(&frames[2]).is_none() && bench.take(&frames[0]).is_none());
        assert!(bench.take(intruder).is_none());
        assert_eq!((bench.given(), bench.held()), (vec![DropReason::FragmentOverlap; 3], 0));
        assert!(bench.take(&frames[1]).is_none());
        assert_eq!(bench.given(), [DropReason::FragmentOverlap], "the datagram is remembered");
        bench.expire(15_000);
        assert!(bench.tracker.is_empty());
        assert!(frames.iter().filter_map(|frame| bench.take_at(frame, PORT, 15_001)).count() == 1, "and then not");
    }
}

#[test]
fn a_tiny_first_fragment_and_one_of_neighbor_discovery_are_refused() {
    // The parser refuses a first fragment without its whole header before; the tracker does not rest on that.
    let mut bench = Bench::new(Bounds::default());
    let mut octets = v4(17, &udp(&[1; 16]), &[1, 2]).remove(0);
    let layers = parse::layers(&octets, octets.len(), None).unwrap();
    octets[23] = proto::TCP;
    let mut frame = bench.stash.take().unwrap();
    assert!(frame.fill(&octets));
    let arrival = Arrival { frame, layers, key: FlowKey::EMPTY, in_port: PORT, zone: ZONE };
    let mut given = Vec::new();
    let taken = bench.tracker.take(arrival, at(0), &mut |frame, _, reason| given.push((frame, reason)));
    let (frame, reason) = given.pop().unwrap();
    assert_eq!((taken.is_none(), reason), (true, DropReason::FragmentShort));
    bench.stash.give(frame);

    let frames = v6(58, &solicitation(&[1, 1, 2, 0, 0, 0, 0, 2]), &[3]);
    assert!(bench.take(&frames[1]).is_none() && bench.take(&frames[0]).is_none());
    assert_eq!(bench.given(), [DropReason::FragmentNeighbor; 2]);
}

#[test]
fn what_no_datagram_can_be_is_refused_by_name() {
    // 65,515 octets of data fit a header of 20 octets, and not one of 24.
    let data = udp(&vec![1; 65_507]);
    let mut frames = v4(17, &data, &[8000]);
    frames[0] = ethernet(&[], 0x0800, &ipv4(17, 0x2000, &[1; 4], &data[..64_000]));
    let mut bench = Bench::new(Bounds::default());
    assert!(frames.iter().all(|frame| bench.take(frame).is_none()));
    assert_eq!(bench.given(), [DropReason::FragmentOversized; 2]);

    let mut frames = v4(17, &udp(&[1; 64]), &[4]);
    frames[0][39] += 1;
    assert!(frames.iter().all(|frame| bench.take(frame).is_none()));
    assert_eq!((bench.given(), bench.held()), (vec![DropReason::UdpLength; 2], 0));

    let most: Vec<usize> = (1..PIECES).collect();
    let (sixty_four, more) = (udp(&[1; PIECES * 8 - 8]), udp(&[1; PIECES * 8]));
    assert_eq!(v4(17, &sixty_four, &most).iter().filter_map(|frame| bench.take(frame)).count(), 1);
    let most: Vec<usize> = (1..=PIECES).collect();
    assert!(v4(17, &more, &most).iter().all(|frame| bench.take(frame).is_none()));
    assert_eq!((bench.given(), bench.held()), (vec![DropReason::FragmentExcess; PIECES + 1], 0));
}

#[test]
fn what_stays_incomplete_is_given_up_after_fifteen_seconds() {
    let mut bench = Bench::new(Bounds::default());
    let frames = v4(17, &udp(&[1; 64]), &[4]);
    assert!(bench.take_at(&frames[0], PORT, 1000).is_none());
    assert!(bench.take_at(&frames[0], PortId(8), 9000).is_none());
    bench.expire(15_999);
    assert_eq!(bench.held(), 2);
    bench.expire(16_000);
    assert_eq!((bench.given(), bench.held()), (vec![DropReason::FragmentTimeout], 1));
    assert!(bench.take_at(&frames[1], PORT, 24_000).is_none(), "too late");
    assert_eq!((bench.given(), bench.held()), (vec![DropReason::FragmentTimeout], 1), "taking looks at the time too");
    let mut given = Vec::new();
    bench.tracker.clear(&mut |frame, port, _| given.push((frame, port)));
    assert_eq!((given.len(), given[0].1), (1, PORT));
    given.into_iter().for_each(|(frame, _)| bench.stash.give(frame));
    assert!(bench.tracker.is_empty() && bench.held() == 0);
}

/// The first fragment of datagram number `id`.
fn first(id: u16) -> Vec<u8> {
    let mut frame = v4(17, &udp(&[1; 64]), &[4]).remove(0);
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame
}

#[test]
fn a_port_that_floods_loses_its_own_oldest_and_no_other_does() {
    let mut bench = Bench::new(Bounds { datagrams: 4, port: 100, all: 100 });
    assert!(bench.take_at(&first(1), PortId(1), 0).is_none());
    (0..9).for_each(|id| assert!(bench.take_at(&first(id), PortId(2), 0).is_none()));
    assert_eq!((bench.given(), bench.held()), (vec![DropReason::FragmentOverload; 5], 5));
    let mut last = v4(17, &udp(&[1; 64]), &[4]).remove(1);
    last[18..20].copy_from_slice(&[0, 1]);
    assert!(bench.take_at(&last, PortId(1), 0).is_some(), "the other port's datagram is whole");
    last[18..20].copy_from_slice(&[0, 8]);
    assert!(bench.take_at(&last, PortId(2), 0).is_some(), "so is the flooder's last");

    // The bound of all.
    let mut bench = Bench::new(Bounds { datagrams: 100, port: 100, all: 10 });
    assert!(bench.take_at(&first(1), PortId(1), 0).is_none());
    (0..30).for_each(|id| assert!(bench.take_at(&first(id), PortId(2), 0).is_none()));
    assert_eq!(bench.held(), 10);
    last[18..20].copy_from_slice(&[0, 1]);
    assert!(bench.take_at(&last, PortId(1), 0).is_some());
}

#[test]
fn frames_with_a_spill_count_for_more() {
    let mut bench = Bench::new(Bounds { datagrams: 100, port: 20, all: 100 });
    let mut frame = v4(17, &udp(&vec![1; 4000]), &[400]).remove(0);
    for id in 0..10 {
        frame[18] = id;
        assert!(bench.take(&frame).is_none());
    }
    assert_eq!(bench.held(), 2);
}

/// A datagram's data, where it is cut, and in which order the pieces come.
fn split() -> impl Strategy<Value = (bool, Vec<u8>, Vec<usize>, Vec<prop::sample::Index>)> {
    let data = proptest::collection::vec(any::<u8>(), 0..4000);
    let cuts = proptest::collection::vec(1usize..500, 0..20);
    (any::<bool>(), data, cuts, proptest::collection::vec(any::<prop::sample::Index>(), 21))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_in_any_order_becomes_one_train((six, data, cuts, order) in split()) {
        let data = udp(&data);
        let frames = if six { v6(17, &data, &cuts) } else { v4(17, &data, &cuts) };
        let whole = if six { ethernet(&[], 0x86dd, &ipv6(17, &data)) } else { ethernet(&[], 0x0800, &ipv4(17, 0, &[], &data)) };
        let mut shuffled = frames.clone();
        for (i, to) in order.iter().enumerate().take(shuffled.len()) {
            let to = to.index(shuffled.len());
            shuffled.swap(i, to);
        }
        let mut bench = Bench::new(Bounds::default());
        let last = shuffled.pop().unwrap();
        prop_assert!(shuffled.iter().all(|frame| bench.take(frame).is_none()));
        let (train, key, _) = bench.take(&last).expect("all are there");
        prop_assert_eq!(train, frames);
        prop_assert_eq!(key, key_of(&whole));
        prop_assert_eq!((bench.held(), bench.given().len()), (0, 0));
    }

    /// Offsets, lengths, numbers, ports and times at random: whatever comes, the bounds hold, and every frame comes back
    /// exactly once.
    #[test]
    fn hostile_fragments_hold_no_more_than_the_bounds_and_all_come_back(
        hostile in proptest::collection::vec((0u16..4, 0u8..6, 0u16..40, any::<bool>(), 0usize..9, 0u64..9000), 1..400),
    ) {
        let bounds = Bounds { datagrams: 3, port: 12, all: 30 };
        let mut bench = Bench::new(bounds);
        let (mut now, mut sent, mut left) = (0, 0, 0);
        for (port, id, offset, more, units, step) in hostile {
            let word = offset | if more { 0x2000 } else { 0 };
            let mut octets = ethernet(&[], 0x0800, &ipv4(17, word, &[], &vec![0; units * 8]));
            octets[19] = id;
            // Only what the parser accepts gets here.
            if parse::layers(&octets, octets.len(), None).is_err() {
                continue;
            }
            now += step / 10;
            sent += 1;
            left += bench.take_at(&octets, PortId(port), now).map_or(0, |(train, ..)| train.len());
            prop_assert!(bench.held() <= bounds.all);
            prop_assert_eq!(bench.held(), bench.tracker.frames);
            for share in bench.tracker.ports.values() {
                prop_assert!(share.order.len() <= bounds.datagrams && share.frames <= bounds.port);
                let datagrams = share.order.iter().map(|id| bench.tracker.datagrams[id].weight());
                prop_assert_eq!(datagrams.sum::<usize>(), share.frames);
            }
        }
        bench.expire(now + 15_000);
        prop_assert!(bench.tracker.is_empty() && bench.tracker.ports.is_empty());
        prop_assert_eq!((bench.held(), left + bench.given().len()), (0, sent));
    }
}
