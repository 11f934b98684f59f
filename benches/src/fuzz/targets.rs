//! What is fuzzed: plain functions of octets that panic when a promise is broken. A new target is one function and one
//! line in [`TARGETS`]; its seeds are the files of `benches/fuzz/corpus/<name>`.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::PortId;
use pipeline::burst::{Burst, Layers, Verdict};
use pipeline::checksum::Sum;
use pipeline::drop::DropReason;
use pipeline::key::{Field, FlowKey, KeyMask, WORDS};
use pipeline::offload::Offload;
use pipeline::parse::{Kernel, KeyHasher, key, layers, parse_with};
use pipeline::raw::{Frame, Pool, Stash};
use pipeline::segment::finish;

use super::mutate::{self, Random};
use super::node::node;
use super::path::path;
use super::{frames, oracle};

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line; also its corpus directory.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// Panics when a promise is broken. Returns the number of the outcome: inputs with a new one are worth keeping.
    pub run: fn(&[u8]) -> u64,
    /// How inputs are changed.
    pub mutate: fn(&mut Vec<u8>, &[u8], &mut Random),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "parse", help: "the parser, its kernels, and etherparse agree", run: parse, mutate: mutate::frame },
    Target { name: "segment", help: "cutting super-frames keeps the payload", run: segment, mutate: mutate::octets },
    Target { name: "path", help: "a cached verdict is that of a fresh walk", run: path, mutate: mutate::octets },
    Target { name: "node", help: "the same with connections: frames too", run: node, mutate: mutate::octets },
];

pub(super) fn outcome(facts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    facts.hash(&mut hasher);
    hasher.finish()
}

/// A pool, a stash of it and a burst, made once.
struct Bench {
    stash: Stash,
    burst: Box<Burst>,
    hasher: KeyHasher,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench {
        stash: Pool::heap(512, 8).stash(),
        burst: Burst::new(),
        hasher: KeyHasher::seeded(1),
    });
}

/// The input is a frame. Its layers and key are found without a panic, etherparse finds the same, and both kernels say
/// what the full parser says.
fn parse(input: &[u8]) -> u64 {
    oracle::agrees(input);
    let full = layers(input, input.len(), None);
    let bridge = FlowKey::mask(&[Field::IN_PORT, Field::VLAN, Field::ETH_DST, Field::ETH_SRC]);
    let tuple = FlowKey { words: std::array::from_fn(|i| if i < 4 { !0 } else { 0 }) };
    let six = FlowKey { words: std::array::from_fn(|i| if i < 8 { !0 } else { 0 }) };
    let wide = FlowKey { words: [!0; WORDS] };
    BENCH.with_borrow_mut(|bench| {
        for kernel in [Kernel::Scalar, Kernel::best()] {
            for mask in [&bridge, &tuple, &six, &wide] {
                bench.agrees(kernel, mask, input, full);
            }
        }
    });
    let facts = full.map(|layers| {
        let key = key(PortId(1), input, &layers);
        (layers.kind as u8, layers.l3, layers.l4, layers.guard as u16, key.get::<1>(Field::IP_PROTO))
    });
    outcome(facts)
}

impl Bench {
    fn agrees(&mut self, kernel: Kernel, mask: &KeyMask, input: &[u8], full: Result<Layers, DropReason>) {
        let Self { stash, burst, hasher } = self;
        let Some(mut frame) = stash.take() else { return };
        frame.slot_mut().fill(0x45);
        if frame.fill(input) {
            burst.reset(PortId(1));
            let _ = burst.push(frame);
            parse_with(kernel, burst, mask, hasher);
            match full {
                Ok(layers) => {
                    let key = key(PortId(1), input, &layers).masked(mask);
                    assert_eq!(burst.verdicts[0], Verdict::Pending);
                    assert_eq!(burst.layers[0], layers);
                    assert_eq!(burst.keys[0], key.words[..4]);
                    let words = mask.class().words();
                    // A narrow key is all in its first words.
                    assert_eq!(burst.narrow[0] == 1, words == 8 && key.words[4..8] == [0; 4]);
                    let compared = match words {
                        4 => &burst.keys[0][..],
                        8 if burst.narrow[0] == 1 => &burst.keys[0][..],
                        8 => &burst.long[0][..],
                        _ => &burst.wide[0].words[..],
                    };
                    assert_eq!(compared, &key.words[..compared.len()]);
                    assert_eq!(burst.hashes[0], hasher.hash(&key, mask));
                }
                Err(reason) => assert_eq!(burst.verdicts[0], Verdict::Drop(reason)),
            }
            burst.frames[0].take().into_iter().for_each(|frame| stash.give(frame));
        } else {
            stash.give(frame);
        }
    }
}

/// The input is a request of twelve octets, then either a frame as it is (the first octet is odd), or numbers that a
/// sound super-frame is built from. Nothing panics, nothing leaks, and of a sound frame the payload is kept.
fn segment(input: &[u8]) -> u64 {
    let Some((&[kind, takes, a, b, c, d, e, f, g, h, i, j], rest)) = input.split_first_chunk::<12>() else { return 0 };
    let word = |high, low| u16::from_be_bytes([high, low]);
    BENCH.with_borrow_mut(|bench| {
        let stash = &mut bench.stash;
        let before = stash.available();
        let takes_checksums = takes & 1 != 0;
        let result = if kind & 1 != 0 {
            let offload = Offload {
                flags: kind >> 1 & 3,
                gso_type: takes >> 1,
                hdr_len: word(a, b),
                gso_size: word(c, d),
                csum_start: word(e, f),
                csum_offset: word(g, h),
            };
            let octets: Vec<u8> = rest.iter().copied().chain(std::iter::repeat_n(i, usize::from(j) * 64)).collect();
            cut(stash, &octets, usize::from(j) * 8 + 64, offload, takes_checksums).map(|(count, _)| count)
        } else {
            let payload: Vec<u8> = (0..usize::from(word(a, b))).map(|n| (n * 31) as u8 ^ i).collect();
            built(stash, kind, &payload[..payload.len().min(60_000)], word(c, d), usize::from(word(e, f)) % 1800)
        };
        assert_eq!(stash.available(), before, "a frame leaked");
        outcome((kind & 31, takes & 1, result.map(|count| count.min(20))))
    })
}

/// A sound super-frame of `payload`; how many segments it was cut into.
fn built(stash: &mut Stash, kind: u8, payload: &[u8], size: u16, head: usize) -> Result<usize, DropReason> {
    let (v6, tcp, tagged, options) = (kind & 2 != 0, kind & 4 != 0, kind & 8 != 0, kind & 16 != 0);
    let options: &[u8] = if options { &[1, 1, 1, 0] } else { &[] };
    let (proto, mut transport) =
        if tcp { (6, frames::tcp(0x99, options, payload)) } else { (17, frames::udp(payload)) };
    let field = if tcp { 16 } else { 6 };
    let ends = if v6 { frames::ipv6(proto, &[]) } else { frames::ipv4(proto, 0, &[], &[]) };
    let len = transport.len();
    let pseudo = match (v6, ends.get(8..40).and_then(|octets| octets.as_chunks::<16>().0.first_chunk::<2>())) {
        (true, Some([source, destination])) => Sum::pseudo6(*source, *destination, proto, len as u32),
        _ => Sum::pseudo4([10, 0, 0, 1], [10, 0, 1, 2], proto, len as u16),
    };
    transport[field..field + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
    let packet = if v6 { frames::ipv6(proto, &transport) } else { frames::ipv4(proto, 0x4000, &[], &transport) };
    let tags: &[(u16, u16)] = if tagged { &[(0x8100, 7)] } else { &[] };
    let octets = frames::ethernet(tags, if v6 { 0x86dd } else { 0x0800 }, &packet);
    let start = octets.len() - len;
    let headers = start + if tcp { 20 + options.len() } else { 8 };
    let gso_type = match (tcp, v6) {
        (true, false) => Offload::GSO_TCPV4,
        (true, true) => Offload::GSO_TCPV6,
        (false, _) => Offload::GSO_UDP_L4,
    };
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type,
        hdr_len: 0,
        gso_size: size,
        csum_start: start as u16,
        csum_offset: field as u16,
    };
    let (count, together) = cut(stash, &octets, head.max(headers), offload, false)?;
    let kept: Vec<u8> = together.iter().flat_map(|octets| octets[headers..].to_vec()).collect();
    assert_eq!(kept, payload, "the payload changed");
    for octets in &together {
        assert!(layers(octets, octets.len(), None).is_ok());
        let len = octets.len() - start;
        let pseudo = match octets[start - 32..start].as_chunks::<16>().0 {
            [source, destination] if v6 => Sum::pseudo6(*source, *destination, proto, len as u32),
            _ => Sum::pseudo4([10, 0, 0, 1], [10, 0, 1, 2], proto, len as u16),
        };
        assert_eq!(pseudo.plus(&octets[start..]).folded(), 0xffff, "the checksum is wrong");
    }
    Ok(count)
}

/// Finish a frame of which `head` octets lie in the first segment; how many frames came out, and their octets.
fn cut(
    stash: &mut Stash,
    octets: &[u8],
    head: usize,
    offload: Offload,
    takes_checksums: bool,
) -> Result<(usize, Vec<Vec<u8>>), DropReason> {
    let (first, tail) = octets.split_at(head.min(octets.len()).min(1900));
    let mut frame = stash.take().ok_or(DropReason::NoFrame)?;
    frame.fill(first);
    if !tail.is_empty() {
        let Some(mut spill) = stash.take_spill() else {
            stash.give(frame);
            return Err(DropReason::NoFrame);
        };
        spill.bytes_mut()[..tail.len()].copy_from_slice(tail);
        frame.attach(spill, tail.len());
    }
    frame.set_offload(offload);
    let mut out: Vec<Frame> = Vec::new();
    let takes = |offload: Offload| takes_checksums && !offload.is_gso();
    let result = finish(frame, takes, stash, &mut |frame| out.push(frame));
    let together = out.iter().map(Frame::to_vec).collect();
    let count = out.len();
    out.into_iter().for_each(|frame| stash.give(frame));
    result.map(|()| (count, together))
}
