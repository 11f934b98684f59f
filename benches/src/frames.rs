//! Frames to measure with: built once, stored in the order in which they are sent.
//!
//! The order of flows is shuffled when the frames are made, not when they are sent: the generator then reads memory
//! from front to back, and its own cost does not grow with the number of flows. Each frame starts on a cache line.
//!
//! ```text
//! pair i:  port 0 sends  02:00:i -> 02:01:i   10.0.i   -> 10.128.i   UDP 1000 -> 2000, both checksums valid
//!          port 1 sends  the same, turned round
//! ```
//!
//! Over IPv6 the addresses are fd00::i and fd00::100:i, and the smallest frame has 66 octets, which its headers take.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::MacAddr;
use etherparse::PacketBuilder;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

/// Octets of the frame check sequence, which sizes are named with and frames in memory have not.
pub(crate) const FCS: usize = 4;
/// Octets of Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Octets of Ethernet, IPv6 and UDP headers.
const HEADERS6: usize = 14 + 40 + 8;
/// Sizes that a frame may have, FCS included: what fits into one slot.
const SIZES: std::ops::RangeInclusive<usize> = 64..=1518;
/// Pairs at most: their number fills 24 bits of the addresses.
const MOST: usize = 1 << 23;

/// Octets of the frames of a run, FCS included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All alike.
    Fixed(usize),
    /// 64, 570 and 1518 octets at 28 : 16 : 4 (the IMIX of FD.io's CSIT).
    Imix,
}

impl Size {
    /// Size of the `n`-th frame.
    pub(crate) fn nth(self, n: usize) -> usize {
        match (self, n % 48) {
            (Self::Fixed(size), _) => size,
            (Self::Imix, 0..28) => 64,
            (Self::Imix, 28..44) => 570,
            (Self::Imix, _) => 1518,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(size) if SIZES.contains(&size) => Ok(Self::Fixed(size)),
            _ => Err(format!("{text}: a size is {} to {} octets, FCS included, or `imix`", SIZES.start(), SIZES.end())),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Imix => f.write_str("imix"),
        }
    }
}

/// Internet protocols that frames are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
    /// Either, in an order that no CPU predicts.
    Both,
}

/// A list of frames in sending order.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each frame starts, on a multiple of 64, and how long it is.
    places: Vec<(u32, u32)>,
}

impl Frames {
    /// Octets of the smallest frame, FCS included.
    pub const SMALLEST: usize = *SIZES.start();
    /// Frames of a list at least, so that few flows are not one hot cache line.
    pub(crate) const FEWEST: usize = 4096;
    /// The station that all of [`Self::sources`] send to: the right one of pair 0.
    pub const ANYBODY: MacAddr = MacAddr([2, 1, 0, 0, 0, 0]);

    /// What the two ports of a bridge with `pairs` pairs of stations send: at least 4096 frames each, every pair
    /// equally often, in random order.
    ///
    /// # Errors
    /// When there are no pairs, or more than addresses or memory offsets can tell apart.
    pub fn pairs(pairs: usize, size: Size) -> Result<[Self; 2]> {
        Self::versions(pairs, size, Version::Four)
    }

    /// [`Self::pairs`] that speak this version.
    ///
    /// # Errors
    /// As [`Self::pairs`].
    pub fn versions(pairs: usize, size: Size, version: Version) -> Result<[Self; 2]> {
        ensure!((1..=MOST).contains(&pairs), "{pairs} pairs of stations: 1 to {MOST} can be told apart");
        let mut order: Vec<u32> =
            (0..Self::FEWEST.next_multiple_of(pairs).max(pairs)).map(|i| (i % pairs) as u32).collect();
        let mut random = Random::new(0);
        let mut list = |turned: bool| {
            random.shuffle(&mut order);
            let mut frames = Self::default();
            for (n, &pair) in order.iter().enumerate() {
                let six = match version {
                    Version::Four => false,
                    Version::Six => true,
                    Version::Both => random.draw() >> 63 == 1,
                };
                let frame = if six { udp6 } else { udp };
                frames.push(&frame(pair, turned, size.nth(n) - FCS)?)?;
            }
            anyhow::Ok(frames)
        };
        Ok([list(false)?, list(true)?])
    }

    /// What a bridge learns from: frames of `stations` different sources, each once, in random order, to one station.
    ///
    /// # Errors
    /// As [`Self::pairs`].
    pub fn sources(stations: usize) -> Result<Self> {
        // Few stations are repeated by `pairs`; here each speaks once.
        let [frames, _] = Self::pairs(stations, Size::Fixed(Self::SMALLEST))?;
        Ok(frames.newcomers())
    }

    /// The first frame of each station that may be learned, addressed to [`Self::ANYBODY`].
    pub fn newcomers(mut self) -> Self {
        let mut heard = HashSet::from([Self::ANYBODY.0.to_vec()]);
        self.places.retain(|&(at, len)| {
            let mac = self.bytes.get(at as usize + 6..at as usize + 12).unwrap_or_default();
            // Group addresses send nothing, and a frame has a header.
            len >= 14 && mac.first().is_some_and(|octet| octet & 1 == 0) && heard.insert(mac.to_vec())
        });
        for &(at, _) in &self.places {
            if let Some(mac) = self.bytes.get_mut(at as usize..at as usize + 6) {
                mac.copy_from_slice(&Self::ANYBODY.0);
            }
        }
        self
    }

    /// Append the frames of another list.
    ///
    /// # Errors
    /// When both together are too long.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        (0..other.len()).try_for_each(|n| self.push(other.nth(n)))
    }

    /// Keep the first `n` frames.
    pub fn truncate(&mut self, n: usize) {
        self.places.truncate(n);
    }

    /// The frames of a capture, in its order.
    ///
    /// # Errors
    /// When the file cannot be read, is no Ethernet pcap, is empty, or holds a frame that fits no slot.
    pub fn read_pcap(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut reader = PcapReader::new(file).with_context(|| format!("{}: not a pcap file", path.display()))?;
        ensure!(reader.header().datalink == DataLink::ETHERNET, "{}: not a capture of Ethernet", path.display());
        let mut frames = Self::default();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.with_context(|| format!("{}: frame {}", path.display(), frames.len()))?;
            frames.push(&packet.data).with_context(|| format!("{}: frame {}", path.display(), frames.len()))?;
        }
        ensure!(!frames.is_empty(), "{}: no frames", path.display());
        Ok(frames)
    }

    /// Divide the frames of a capture between the two ports of a bridge, so that every station stays on its side: who
    /// is first heard is on the left, whom it speaks to on the right. Order is kept within a side.
    pub fn sides(&self) -> [Self; 2] {
        let mut side: HashMap<[u8; 6], usize> = HashMap::new();
        let mut sides = [Self::default(), Self::default()];
        for n in 0..self.len() {
            let frame = self.nth(n);
            let mac =
                |at: usize| frame.get(at..at + 6).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).unwrap_or_default();
            let (dst, src) = (mac(0), mac(6));
            let group = dst[0] & 1 == 1;
            let opposite = if group { 1 } else { side.get(&dst).copied().unwrap_or(1) };
            let from = *side.entry(src).or_insert(1 - opposite);
            if !group {
                side.entry(dst).or_insert(1 - from);
            }
            // Copied from a list that fitted.
            let _ = sides[from].push(frame);
        }
        sides
    }

    /// Write the frames as a capture.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(BufWriter::new(file), header)?;
        for n in 0..self.len() {
            let bytes = self.nth(n);
            writer.write_packet(&PcapPacket::new(Duration::ZERO, bytes.len() as u32, bytes))?;
        }
        std::io::Write::flush(&mut writer.into_writer()).with_context(|| path.display().to_string())
    }

    /// Append a frame.
    pub(crate) fn push(&mut self, frame: &[u8]) -> Result<()> {
        if frame.is_empty() || frame.len() > pipeline::raw::SLOT - pipeline::raw::HEADROOM {
            bail!("{} octets do not fit a frame slot", frame.len());
        }
        let at = u32::try_from(self.bytes.len()).context("frames of more than 4 GiB")?;
        self.places.push((at, frame.len() as u32));
        self.bytes.extend_from_slice(frame);
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        Ok(())
    }

    /// The `n`-th frame; nothing beyond the last.
    #[inline]
    pub fn nth(&self, n: usize) -> &[u8] {
        let Some(&(at, len)) = self.places.get(n) else { return &[] };
        self.bytes.get(at as usize..at as usize + len as usize).unwrap_or(&[])
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// No frame.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Octets of a frame on average, FCS included.
    pub fn mean_size(&self) -> f64 {
        let sum: u64 = self.places.iter().map(|&(_, len)| u64::from(len) + FCS as u64).sum();
        sum as f64 / self.len().max(1) as f64
    }
}

/// One frame of a pair, `len` octets without FCS.
fn udp(pair: u32, turned: bool, len: usize) -> Result<Vec<u8>> {
    let [_, a, b, c] = pair.to_be_bytes();
    let mut ends = [([2, 0, 0, a, b, c], [10, a, b, c]), ([2, 1, 0, a, b, c], [10, a | 0x80, b, c])];
    if turned {
        ends.reverse();
    }
    let [src, dst] = ends;
    let payload = vec![0; len - HEADERS];
    let mut frame = Vec::with_capacity(len);
    PacketBuilder::ethernet2(src.0, dst.0).ipv4(src.1, dst.1, 64).udp(1000, 2000).write(&mut frame, &payload)?;
    Ok(frame)
}

fn udp6(pair: u32, turned: bool, len: usize) -> Result<Vec<u8>> {
    let [_, a, b, c] = pair.to_be_bytes();
    let address = |side: u8| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, side, a, b, c];
    let mut ends = [([2, 0, 0, a, b, c], address(0)), ([2, 1, 0, a, b, c], address(1))];
    if turned {
        ends.reverse();
    }
    let [src, dst] = ends;
    let payload = vec![0; len.saturating_sub(HEADERS6)];
    let mut frame = Vec::with_capacity(HEADERS6 + payload.len());
    PacketBuilder::ethernet2(src.0, dst.0).ipv6(src.1, dst.1, 64).udp(1000, 2000).write(&mut frame, &payload)?;
    Ok(frame)
}

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    /// Each seed gives other numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    /// The next one.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            let j = (self.draw() >> 32) as usize % (i + 1);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;
    use std::collections::BTreeMap;

    #[test]
    fn every_pair_is_sent_equally_often_in_both_directions() {
        let [there, back] = Frames::pairs(3, Size::Fixed(64)).unwrap();
        for (frames, kind) in [(&there, 0), (&back, 1)] {
            let mut seen = BTreeMap::new();
            for n in 0..frames.len() {
                let frame = frames.nth(n);
                assert_eq!((frame.len(), frame[7]), (60, kind), "octet 7 tells who sends");
                *seen.entry(frame[..12].to_vec()).or_insert(0) += 1;
            }
            assert_eq!(seen.len(), 3);
            assert!(seen.values().all(|&n| n == frames.len() / 3), "{seen:?}");
        }
    }

    #[test]
    fn every_source_speaks_once_and_to_the_same_station() {
        let frames = Frames::sources(100).unwrap();
        let sources: HashSet<&[u8]> = (0..frames.len()).map(|n| &frames.nth(n)[6..12]).collect();
        assert_eq!((frames.len(), sources.len()), (100, 100));
        assert!((0..100).all(|n| frames.nth(n)[..6] == Frames::ANYBODY.0));
    }

    #[test]
    fn the_checksums_are_valid() {
        let [frames, _] = Frames::pairs(5, Size::Imix).unwrap();
        for n in 0..100 {
            let packet = SlicedPacket::from_ethernet(frames.nth(n)).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("frame {n} is not IPv4") };
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else { panic!("frame {n} is not UDP") };
            let header = udp.to_header();
            assert_eq!(
                header.checksum,
                header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap(),
                "frame {n}"
            );
        }
    }

    #[test]
    fn a_capture_is_read_as_it_was_written() {
        let [frames, _] = Frames::pairs(10, Size::Imix).unwrap();
        let path = std::env::temp_dir().join(format!("vsbench-frames-{}.pcap", std::process::id()));
        frames.write_pcap(&path).unwrap();
        let read = Frames::read_pcap(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.len(), frames.len());
        assert!((0..read.len()).all(|n| read.nth(n) == frames.nth(n)));
    }

    #[test]
    fn stations_of_a_capture_stay_on_their_side() {
        let [there, back] = Frames::pairs(7, Size::Fixed(64)).unwrap();
        let mut capture = there.clone();
        (0..back.len()).for_each(|n| capture.push(back.nth(n)).unwrap());
        let [left, right] = capture.sides();
        let same = |x: &Frames, y: &Frames| x.len() == y.len() && (0..x.len()).all(|n| x.nth(n) == y.nth(n));
        assert!(same(&left, &there) && same(&right, &back));
    }

    #[test]
    fn a_size_that_no_frame_can_have_is_refused_by_name() {
        for bad in ["63", "1519", "", "-1", "IMIX", "9999999999999999999999"] {
            assert!(bad.parse::<Size>().unwrap_err().starts_with(bad));
        }
        assert_eq!("64".parse(), Ok(Size::Fixed(64)));
        assert_eq!("imix".parse(), Ok(Size::Imix));
    }
}
