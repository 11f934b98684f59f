//! A burst: up to 256 frames of one ingress queue, on their way through the four steps together.
//!
//! Structure of arrays, one lane a frame. Each array is written by one step and read by the later ones:
//!
//! | array | written by | meaning |
//! |---|---|---|
//! | `frames` | rx | the frame; taken out by tx |
//! | `layers` | parse | where the headers are, and the guard word |
//! | `keys`, `long`, `wide`, `hashes` | parse | the masked key: its first four words, the first eight or all if the class is larger, its hash |
//! | `narrow` | parse | which lanes of a burst of class V6 have a key of class V4 |
//! | `verdicts` | parse (malformed), probe (hit), resolve (miss) | what becomes of the frame |
//! | `vlans` | probe, resolve | what to do to the outer tag |
//! | `edited`, `edits` | probe | the cache entry whose edits a hit takes; done before a miss can evict it |
//! | `extra` | resolve | frames that were made, or had waited, and leave behind this burst |

use api::PortId;

use crate::drop::DropReason;
use crate::key::{Class, FlowKey};
use crate::raw::Frame;

/// Lanes of a burst. The whole burst is the prefetch distance: 64 misses of the cache in flight need as many lanes.
pub const LANES: usize = 256;

/// Where the headers of a frame are, and what the guards look at. Eight octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layers {
    /// Offset of the network header: behind Ethernet and all tags.
    pub l3: u8,
    /// What the network header is.
    pub kind: Kind,
    /// Offset of the transport header; 0 when there is none (no IP, later fragment, unknown protocol is still an offset).
    pub l4: u16,
    /// Flags of [`guard`] in the low half; in the high half the octets of the largest packet that leaves, from the
    /// network header on: the whole of a plain frame, one segment of a super-frame.
    pub guard: u32,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Something we do not look into.
    #[default]
    Other,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Flags of the guard word: what a cached decision may demand of each packet without having it in the key.
pub mod guard {
    /// The frame is a fragment.
    pub const FRAGMENT: u32 = 1 << 0;
    /// Hop limit of 1 or less.
    pub const HOP_LIMIT: u32 = 1 << 1;
    /// IPv4 options or IPv6 extension headers.
    pub const OPTIONS: u32 = 1 << 2;
    /// TCP SYN without ACK.
    pub const SYN: u32 = 1 << 3;
    /// TCP FIN or RST.
    pub const FIN_RST: u32 = 1 << 4;
    /// Where the size begins.
    pub const SIZE_SHIFT: u32 = 16;
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet: parsed, and to be probed; after probe: a miss.
    #[default]
    Pending,
    /// Dropped and counted.
    Drop(DropReason),
    /// Leaves by one port.
    Output(PortId),
    /// Leaves by several, or in several forms: number of an interned list.
    Multi(u32),
    /// It is not here any more: it waits, or was used up by what answers it.
    Taken,
}

/// A frame that leaves beside the lanes of a burst.
#[derive(Debug)]
pub struct Extra {
    /// The frame, edited.
    pub frame: Frame,
    /// Where it leaves.
    pub port: PortId,
    /// Where it, or what it answers, came in.
    pub from: PortId,
}

/// What is done to the outermost 802.1Q tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VlanEdit {
    /// Nothing.
    #[default]
    Keep,
    /// Taken off.
    Pop,
    /// Put on, with this VLAN id (priority 0).
    Push(u16),
    /// Its VLAN id becomes this one; the priority bits stay.
    Set(u16),
}

/// Frames of one ingress queue, lane by lane.
#[derive(Debug)]
pub struct Burst {
    /// Where all the frames came in.
    pub in_port: PortId,
    /// Lanes in use: `0..len`.
    len: usize,
    /// The frames.
    pub frames: [Option<Frame>; LANES],
    /// Where their headers are.
    pub layers: [Layers; LANES],
    /// The first four words of their masked keys.
    pub keys: [[u64; 4]; LANES],
    /// All words of their masked keys; written and read only for lanes of [`Class::Wide`].
    pub wide: Box<[FlowKey; LANES]>,
    /// The first eight words of their masked keys, for lanes of [`Class::V6`]. Side by side: in `wide` they would all fall into
    /// a quarter of the first cache.
    pub long: Box<[[u64; 8]; LANES]>,
    /// Class of all the keys: that of the port's mask.
    pub class: Class,
    /// In a burst of class V6, a bit for each lane: the words beyond class V4 are all zero, as they are in frames that
    /// are not IPv6. Such a lane's hash is that of four words, and its flow lives among those of class V4. All zero in
    /// bursts of other classes.
    pub narrow: [u64; 4],
    /// Hashes of their masked keys.
    pub hashes: [u64; LANES],
    /// What becomes of them.
    pub verdicts: [Verdict; LANES],
    /// What is done to their tags.
    pub vlans: [VlanEdit; LANES],
    /// Lanes whose headers change as the cache entry that they hit has it.
    pub edited: Only,
    /// Number of that entry; says nothing for lanes that are not [`Self::edited`].
    pub edits: [u32; LANES],
    /// Lanes of hits that end, or may end, a connection, with the entry that they hit.
    pub closing: Vec<(u16, u32)>,
    /// Frames beside the lanes.
    pub extra: Vec<Extra>,
}

impl Burst {
    /// An empty burst. A worker makes one and uses it for ever.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            in_port: PortId::NONE,
            len: 0,
            frames: [const { None }; LANES],
            layers: [Layers::default(); LANES],
            keys: [[0; 4]; LANES],
            wide: Box::new([FlowKey::EMPTY; LANES]),
            long: Box::new([[0; 8]; LANES]),
            class: Class::V4,
            narrow: [0; 4],
            hashes: [0; LANES],
            verdicts: [Verdict::Pending; LANES],
            vlans: [VlanEdit::Keep; LANES],
            edited: Only::NONE,
            edits: [0; LANES],
            closing: Vec::with_capacity(LANES),
            extra: Vec::new(),
        })
    }

    /// Start anew with frames of `in_port`. All frames must have been taken out.
    pub fn reset(&mut self, in_port: PortId) {
        debug_assert!(self.frames.iter().all(Option::is_none), "a frame was left in the burst");
        (self.in_port, self.len) = (in_port, 0);
    }

    /// Put a frame into the next lane; gives it back when the burst is full.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        match self.frames.get_mut(self.len) {
            Some(lane) => {
                *lane = Some(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Lanes in use.
    #[inline]
    pub fn len(&self) -> usize {
        // The compiler learns the bound from this, and drops its checks in loops over the lanes.
        self.len.min(LANES)
    }

    /// No lane in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All lanes in use.
    #[inline]
    pub fn all(&self) -> All {
        All(self.len())
    }

    /// The lanes in use that are [`Self::narrow`], and those that are not.
    pub fn by_width(&self) -> [Only; 2] {
        let used = Only::first(self.len());
        let narrow = Only(self.narrow).and(used);
        [narrow, narrow.not().and(used)]
    }
}

/// A choice of lanes, in ascending order. What is done to every lane costs nothing for being able to do it to some: it is
/// compiled for each kind of choice.
pub trait Lanes: Copy {
    /// The lanes, each below [`LANES`].
    fn each(self) -> impl Iterator<Item = usize>;
}

/// The first so many lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct All(usize);

impl Lanes for All {
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = usize> {
        0..self.0.min(LANES)
    }
}

/// The lanes whose bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Only(pub [u64; 4]);

impl Only {
    /// No lane.
    pub const NONE: Self = Self([0; 4]);

    /// The first so many lanes.
    pub fn first(lanes: usize) -> Self {
        Self(std::array::from_fn(|i| match lanes.saturating_sub(i * 64) {
            0 => 0,
            rest => u64::MAX >> (64 - rest.min(64)),
        }))
    }

    /// The lanes of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (Self([a, b, c, d]), Self([e, f, g, h])) = (self, other);
        Self([a & e, b & f, c & g, d & h])
    }

    /// All other lanes.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "its like, `and`, is no operator either")]
    pub fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// The lane is one of them.
    pub fn has(self, lane: usize) -> bool {
        self.0.get(lane / 64).is_some_and(|word| word >> (lane % 64) & 1 == 1)
    }

    /// Add those of 64 lanes that are marked, lane `word * 64` at the lowest bit.
    #[inline]
    pub fn add(&mut self, word: usize, marks: u64) {
        if let Some(word) = self.0.get_mut(word) {
            *word |= marks;
        }
    }

    /// Add a lane, or add none.
    #[inline(always)]
    pub fn mark(&mut self, lane: usize, add: bool) {
        if let Some(word) = self.0.get_mut(lane / 64) {
            *word |= u64::from(add) << (lane % 64);
        }
    }

    /// There is no lane.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl Lanes for Only {
    /// Bit by bit: to ask at every lane would be mispredicted at every second one of a mixed burst.
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(i, mut word)| {
            std::iter::from_fn(move || {
                let lane = (word != 0).then(|| i * 64 + word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(lane)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_in_use_are_narrow_or_not_and_each_is_met_once() {
        let mut burst = Burst::new();
        for len in [0, 1, 63, 64, 65, 200, 255, 256] {
            burst.len = len;
            for bits in [0, !0, 0x5555_5555_5555_5555, 1 << 63] {
                burst.narrow = [bits, !bits, bits, bits];
                let is_narrow = |lane: &usize| burst.narrow[lane / 64] >> (lane % 64) & 1 == 1;
                let (narrow, wide): (Vec<_>, Vec<_>) = (0..len).partition(is_narrow);
                let found = burst.by_width().map(|lanes| lanes.each().collect::<Vec<_>>());
                assert_eq!(found, [narrow, wide], "{len}");
            }
            assert_eq!(burst.all().each().count(), len);
        }
    }
}
