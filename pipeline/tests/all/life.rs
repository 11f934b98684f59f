//! What time, moves and changes do to stations and to cached decisions, with one worker and with two.

use std::time::Duration;

use api::{Bridge, Change, Delta, Port, Vlan};
use pipeline::drop::DropReason as Reason;
use pipeline::offload::Offload;
use pipeline::probe::cells::Cells;
use pipeline::resolve::stages::STAGES;

use crate::kit::net::*;
use crate::kit::{Bench, Decided, Fate, MODES, events};

const SECOND: Duration = Duration::from_secs(1);

/// A bench with plain ports and hosts that were heard: host, port.
fn heard(workers: usize, ports: u16, hosts: &[(u16, u16)]) -> Bench {
    let mut bench = Bench::new(workers);
    bench.apply(plain(ports));
    for &(host, port) in hosts {
        bench.send(port, &eth(BROADCAST, mac(host)));
    }
    bench
}

fn with_bridge(bridge: Bridge, ports: u16) -> Vec<Change> {
    let mut changes = plain(ports);
    changes[0] = add_bridge(bridge);
    changes
}

#[test]
fn a_ping_teaches_both_sides() {
    for workers in MODES {
        let mut bench = heard(workers, 3, &[]);
        let (ping, pong) = (eth(mac(2), mac(1)), eth(mac(1), mac(2)));
        assert_eq!(bench.send(1, &ping).ports(), [2, 3]);
        assert_eq!(bench.send(2, &pong).ports(), [1]);
        assert_eq!(bench.send(1, &ping).ports(), [2], "the flood was remembered beyond its time");
        assert_eq!(bench.send(2, &pong).ports(), [1]);
        let (_, seen) = bench.watch(|bench| (bench.send(1, &ping), bench.send(2, &pong)));
        assert_eq!(seen, events(&[("cache_hit", 2)]));
    }
}

#[test]
fn a_silent_station_is_forgotten_and_its_frames_are_flooded() {
    for workers in MODES {
        let mut bench = Bench::new(workers);
        bench.apply(with_bridge(Bridge { mac_ageing: 5, ..bridge(BR) }, 3));
        bench.send(2, &eth(BROADCAST, mac(2)));
        let frame = eth(mac(2), mac(1));
        bench.pass(4 * SECOND);
        assert_eq!(bench.send(1, &frame).ports(), [2]);
        // That its last frame came was accounted a second later at most.
        bench.pass(2 * SECOND);
        assert_eq!(bench.send(1, &frame).ports(), [2, 3]);
    }
}

#[test]
fn a_station_that_moved_is_reached_where_it_is() {
    for workers in MODES {
        let mut bench = heard(workers, 4, &[(1, 1), (2, 2)]);
        let frame = eth(mac(2), mac(1));
        (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [2]));
        bench.pass(SECOND);
        bench.send(3, &eth(BROADCAST, mac(2)));
        (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [3]));
        // What the station itself said elsewhere is no news of where it is until it says it again.
        bench.pass(SECOND);
        bench.send(2, &eth(BROADCAST, mac(2)));
        assert_eq!(bench.send(1, &frame).ports(), [2]);
    }
}

#[test]
fn a_station_that_two_ports_claim_moves_ten_times_a_second_at_most() {
    for workers in MODES {
        let mut bench = heard(workers, 3, &[(1, 1), (2, 2)]);
        bench.jump(SECOND);
        let claim = eth(mac(1), mac(2));
        assert_eq!(bench.send(3, &claim).ports(), [1]);
        assert_eq!(bench.place(BR, mac(2)), Some(3));
        for _ in 0..3 {
            bench.jump(Duration::from_millis(30));
            let (fate, seen) = bench.watch(|bench| bench.send(2, &claim));
            assert_eq!(fate.ports(), [1], "it is forwarded all the same");
            assert_eq!(seen, events(&[("cache_miss", 1), ("walk", 1), ("walk_transient", 1)]));
            assert_eq!(bench.place(BR, mac(2)), Some(3));
        }
        bench.jump(Duration::from_millis(10));
        bench.send(2, &claim);
        assert_eq!(bench.place(BR, mac(2)), Some(2));
    }
}

#[test]
fn nothing_is_sent_to_a_port_that_went_or_heard_from_it() {
    for workers in MODES {
        let mut bench = heard(workers, 3, &[(1, 1), (2, 2)]);
        let (to_2, from_2) = (eth(mac(2), mac(1)), eth(mac(1), mac(2)));
        (0..3).for_each(|_| _ = (bench.send(1, &to_2), bench.send(2, &from_2)));
        bench.apply(vec![Change::Port(Delta::remove(port(2, Vlan::default())))]);
        (0..3).for_each(|_| assert_eq!(bench.send(1, &to_2).ports(), [3]));
        (0..3).for_each(|_| assert_eq!(bench.send(2, &from_2), Fate::drop(Reason::NoBridge)));
        // The number comes back with another port: nothing of the old one is left.
        bench.apply(vec![add_port(port(2, access(7)))]);
        (0..3).for_each(|_| assert_eq!(bench.send(1, &to_2).ports(), [3]));
        (0..3).for_each(|_| assert_eq!(bench.send(2, &from_2).ports(), [1, 3], "host 1 is not known in VLAN 7"));
    }
}

#[test]
fn a_port_that_changes_its_vlan_leaves_the_old_one_at_once() {
    for workers in MODES {
        let mut bench = Bench::new(workers);
        bench.apply(ports(&[(1, access(10)), (2, access(10)), (3, access(20))]));
        let frame = eth(BROADCAST, mac(1));
        (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [2]));
        bench.apply(vec![Change::Port(Delta::replace(port(1, access(10)), port(1, access(20))))]);
        (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [3]));
    }
}

#[test]
fn a_large_packet_of_a_flow_is_dropped_and_the_small_ones_before_and_after_it_are_not() {
    for workers in MODES {
        let mut bench = heard(workers, 3, &[(2, 2)]);
        let large = |bench: &mut Bench| bench.send(1, &udp4(64, 80, 1473));
        let small = |bench: &mut Bench| bench.send(1, &udp4(64, 80, 10)).ports();
        for _ in 0..3 {
            assert_eq!(large(&mut bench), Fate::drop(Reason::ExceedsMtu));
            assert_eq!(small(&mut bench), [2]);
            assert_eq!(small(&mut bench), [2]);
        }
        let (_, seen) = bench.watch(|bench| small(bench));
        assert_eq!(seen, events(&[("cache_hit", 1)]));
        // The MTU grows: what was too large is not.
        let wide = Port { mtu: 9000, ..port(2, Vlan::default()) };
        bench.apply(vec![Change::Port(Delta::replace(port(2, Vlan::default()), wide))]);
        assert_eq!(large(&mut bench).ports(), [2]);
    }
}

#[test]
fn a_tag_moves_what_an_unfinished_checksum_points_to() {
    let offload = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, hdr_len: 42, ..Offload::NONE };
    for workers in MODES {
        let mut bench = Bench::new(workers);
        bench.apply(ports(&[(1, access(10)), (2, trunk(&[])), (3, access(10))]));
        let frame = udp4(64, 80, 100);
        let mut with_tag = frame.clone();
        with_tag.splice(12..12, [0x81, 0, 0, 10]);
        let shifted = Offload { csum_start: 38, hdr_len: 46, ..offload };
        for _ in 0..3 {
            let (fate, left) = bench.send_offload(1, &frame, offload);
            assert_eq!(fate.sent, [(2, with_tag.clone()), (3, frame.clone())]);
            assert_eq!(left, [shifted, offload]);
        }
        bench.send(2, &tagged(BROADCAST, mac(2), 10));
        bench.send(1, &eth(BROADCAST, mac(1)));
        let back = frame_back(&frame);
        for _ in 0..3 {
            assert_eq!(bench.send_offload(1, &frame, offload).1, [shifted]);
            assert_eq!(bench.send_offload(2, &back, shifted), (Fate::out(&[1], &untag(&back)), vec![offload]));
        }
    }
}

/// The answer to a frame, tagged 10.
fn frame_back(frame: &[u8]) -> Vec<u8> {
    let mut back = [&frame[6..12], &frame[..6], &frame[12..]].concat();
    back.splice(12..12, [0x81, 0, 0, 10]);
    back
}

fn untag(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &frame[16..]].concat()
}

#[test]
fn a_super_frame_is_measured_by_its_segments() {
    let mut tcp = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    tcp.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    tcp.resize(1800, 1);
    tcp[2..4].copy_from_slice(&1800u16.to_be_bytes());
    let super_frame = frame(mac(2), mac(1), &[], 0x0800, &tcp);
    let offload = |gso_size| Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: Offload::GSO_TCPV4,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    for workers in MODES {
        let mut bench = heard(workers, 3, &[(1, 1), (2, 2)]);
        for _ in 0..3 {
            assert_eq!(
                bench.send_offload(1, &super_frame, offload(1460)),
                (Fate::out(&[2], &super_frame), vec![offload(1460)])
            );
            assert_eq!(bench.send_offload(1, &super_frame, offload(1461)).0, Fate::drop(Reason::ExceedsMtu));
            assert_eq!(bench.send_offload(1, &super_frame, offload(255)).0, Fate::drop(Reason::OffloadMalformed));
            assert_eq!(
                bench.send(1, &super_frame),
                Fate::drop(Reason::ExceedsMtu),
                "without the request it is too long"
            );
        }
    }
}

#[test]
fn malformed_frames_leave_the_others_of_their_burst_alone() {
    for workers in MODES {
        let mut bench = heard(workers, 2, &[(1, 1), (2, 2)]);
        let good = eth(mac(2), mac(1));
        let bad = [vec![], vec![0xff; 60], udp4(64, 80, 100)[..30].to_vec()];
        for _ in 0..3 {
            let frames: Vec<_> = bad.iter().flat_map(|bad| [bad.clone(), good.clone()]).collect();
            let fates = bench.burst(1, &frames);
            assert!(fates.iter().skip(1).step_by(2).all(|fate| *fate == Fate::out(&[2], &good)));
            assert!(fates.iter().step_by(2).all(|fate| fate.drops.len() == 1 && fate.sent.is_empty()));
        }
    }
}

#[test]
fn beyond_its_walks_a_burst_loses_first_packets_and_no_others() {
    for workers in MODES {
        let mut bench = heard(workers, 3, &[(2, 2)]);
        let known = eth(mac(2), mac(1));
        (0..3).for_each(|_| _ = bench.send(1, &known));
        bench.walks = 2;
        let new = |host| eth(mac(2), mac(host));
        let frames = [new(10), known.clone(), new(10), new(11), new(12), known.clone(), new(10), new(12)];
        let fates = bench.burst(1, &frames);
        let lost: Vec<usize> = (0..8).filter(|&i| fates[i] == Fate::drop(Reason::MissOverload)).collect();
        assert_eq!(lost, [4, 7], "two flows walk, frames of the same flow follow, hits pass");
        assert!((0..8).filter(|i| !lost.contains(i)).all(|i| fates[i].ports() == [2]));
        // It was not remembered.
        assert_eq!(bench.send(1, &new(12)).ports(), [2]);
    }
}

#[test]
fn a_port_that_floods_addresses_evicts_its_own() {
    for workers in MODES {
        let mut bench = Bench::new(workers);
        bench.apply(with_bridge(Bridge { mac_table_size: 20, ..bridge(BR) }, 3));
        (1..=4).for_each(|host| _ = bench.send(1, &eth(BROADCAST, mac(host))));
        for host in 1000..1500 {
            bench.send(2, &eth(mac(1), mac(host)));
        }
        (1..=4).for_each(|host| assert_eq!(bench.place(BR, mac(host)), Some(1)));
        assert_eq!(bench.live.stations.list(BR).len(), 20);
        // Whoever was evicted is unknown again, to cached decisions too.
        for host in 1000..1500 {
            let known = bench.place(BR, mac(host)).is_some();
            let frame = eth(mac(host), mac(1));
            for _ in 0..2 {
                assert_eq!(bench.send(1, &frame).ports(), if known { vec![2] } else { vec![2, 3] });
            }
        }
    }
}

#[test]
fn decisions_stand_and_fall_as_ever_while_generations_run_out() {
    for workers in MODES {
        let mut bench = Bench::with(workers, STAGES, Cells::starting_at(u32::MAX - 5));
        bench.apply(plain(4));
        bench.send(2, &eth(BROADCAST, mac(2)));
        bench.send(1, &eth(BROADCAST, mac(1)));
        let frame = eth(mac(2), mac(1));
        for i in 0..20u16 {
            let port = 2 + i % 3;
            bench.jump(SECOND);
            bench.send(port, &eth(BROADCAST, mac(2)));
            (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [port]));
        }
        assert_eq!(bench.live.cells.now().epoch, 1);
    }
}

#[test]
fn a_burst_that_began_before_the_generations_ran_out_believes_nothing_that_was_refuted() {
    let mut bench = Bench::with(1, STAGES, Cells::starting_at(u32::MAX - 20));
    bench.apply(plain(3));
    bench.send(2, &eth(BROADCAST, mac(2)));
    let frame = eth(mac(2), mac(1));
    (0..3).for_each(|_| assert_eq!(bench.send(1, &frame).ports(), [2]));
    // The station moves, and nobody asks for it.
    bench.jump(SECOND);
    bench.send(3, &eth(BROADCAST, mac(2)));
    while bench.live.cells.now().generation != u32::MAX {
        bench.live.cells.change(|touched| touched.touch(pipeline::probe::cells::TableName::new("elsewhere"), 0));
    }
    bench.moment = Some(bench.live.cells.now());
    bench.live.cells.change(|touched| touched.touch(pipeline::probe::cells::TableName::new("elsewhere"), 0));
    assert_eq!(bench.send(1, &frame).ports(), [3]);
}

#[test]
fn a_list_of_ways_out_is_that_of_its_frame_though_its_entry_gives_way_in_the_same_burst() {
    // 120 VLANs with as many different sets of members among ports 2 to 8.
    let member = |port: u16, vlan: u16| vlan >> (port - 2) & 1 == 1;
    let of = |port: u16| (1..128).filter(|&vlan| member(port, vlan)).collect::<Vec<u16>>();
    let mut list = vec![(1, Vlan::default())];
    list.extend((2..=8).map(|port| (port, trunk(&of(port)))));
    let mut bench = Bench::new(1);
    bench.caches(4096, 0);
    bench.apply(ports(&list));
    bench.apply(vec![add_station(station(0, mac(9), 1))]);
    let flood = |vlan: u16| tagged(BROADCAST, mac(1), vlan);
    for _ in 0..6 {
        // Everything is forgotten; then half of the lists are named, by entries that are as good as any.
        bench.pass(12 * SECOND);
        let old: Vec<_> = (1..64).map(flood).collect();
        bench.burst(1, &old);
        for host in 0..17 {
            let others: Vec<_> = (0..256).map(|i| eth(mac(9), mac(1000 + host * 256 + i))).collect();
            bench.burst(1, &others);
        }
        let frames: Vec<_> = (1..128).map(flood).collect();
        for (vlan, fate) in (1..128).zip(bench.burst(1, &frames)) {
            let members: Vec<u16> = (2..=8).filter(|&port| member(port, vlan)).collect();
            assert_eq!(fate.ports(), members, "VLAN {vlan}");
        }
    }
}

#[test]
fn what_two_workers_learn_at_once_is_known_to_both() {
    let mut bench = heard(2, 4, &[]);
    // Port 1 and 3 belong to one worker, 2 and 4 to the other.
    let (a, b) = (eth(mac(2), mac(1)), eth(mac(1), mac(2)));
    assert_eq!(bench.send(1, &a).ports(), [2, 3, 4]);
    assert_eq!(bench.send(4, &b).ports(), [1]);
    for _ in 0..3 {
        assert_eq!((bench.send(1, &a).ports(), bench.send(4, &b).ports()), (vec![4], vec![1]));
        assert!(matches!(bench.walk(1, &a), Some(Decided::Ways(ways, _)) if ways.len() == 1));
    }
}
