//! Ticks of the time-stamp counter per frame that parsing takes, key and hash included, for each kernel:
//! `cargo run --release -p pipeline --example parse_speed`.
//!
//! One burst of 256 frames of 64 octets is parsed over and over, so its frames and arrays stay in the nearest caches:
//! this is the price of the instructions. The least of many rounds is printed, the others were disturbed.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
fn main() {
    use api::PortId;
    use pipeline::burst::{Burst, LANES};
    use pipeline::key::{Field, FlowKey};
    use pipeline::parse::{Kernel, KeyHasher, parse_with};
    use pipeline::raw::Pool;

    let bridge = FlowKey::mask(&[Field::IN_PORT, Field::VLAN, Field::ETH_DST, Field::ETH_SRC]);
    let tuple = FlowKey::mask(&[
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
    ]);
    let six = tuple.union(&FlowKey::mask(&[Field::IPV6_SRC, Field::IPV6_DST]));
    let pool = Pool::heap(LANES, 0);
    let mut stash = pool.stash();
    let mut burst = Burst::new();
    let hasher = KeyHasher::new();
    for (what, frame_of) in [("udp4", udp4 as fn(usize) -> Vec<u8>), ("udp4 tagged", tagged), ("udp6", udp6)] {
        burst.reset(PortId(1));
        for lane in 0..LANES {
            let Some(mut frame) = stash.take() else { return };
            frame.fill(&frame_of(lane));
            let _ = burst.push(frame);
        }
        for kernel in [Kernel::best(), Kernel::Scalar] {
            for (name, mask) in [("2 words", &bridge), ("4 words", &tuple), ("8 words", &six)] {
                let mut least = u64::MAX;
                for _ in 0..20_000 {
                    // SAFETY: RDTSC is part of every x86-64.
                    let start = unsafe { std::arch::x86_64::_rdtsc() };
                    parse_with(kernel, &mut burst, mask, &hasher);
                    // SAFETY: as above.
                    least = least.min(unsafe { std::arch::x86_64::_rdtsc() } - start);
                    std::hint::black_box(&burst);
                }
                println!("{what:12} {kernel:?} {name}: {:.1}", least as f64 / LANES as f64);
            }
        }
        burst.frames.iter_mut().filter_map(Option::take).for_each(|frame| stash.give(frame));
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("there is no time-stamp counter to count with");
}

#[cfg(target_arch = "x86_64")]
fn udp4(lane: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, lane as u8, 10, 0, 1, 1]);
    frame.extend([0, lane as u8, 0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[cfg(target_arch = "x86_64")]
fn tagged(lane: usize) -> Vec<u8> {
    let mut frame = udp4(lane);
    frame.splice(12..12, [0x81, 0, 0, 7]);
    frame
}

#[cfg(target_arch = "x86_64")]
fn udp6(lane: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64];
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, lane as u8]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0, lane as u8, 0, 53, 0, 8, 0, 0]);
    frame
}
