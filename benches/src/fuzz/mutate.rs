//! Changing inputs: octet by octet for any target, and header by header for those that read frames.

/// A small generator of random numbers (SplitMix64): repeatable, and good enough to choose with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.number()) * limit as u128) >> 64) as usize
    }

    /// One of `choices`.
    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Longest input.
const LONGEST: usize = 1900;
/// Numbers at which something is about to change.
const EDGES: [u16; 16] = [0, 1, 4, 5, 7, 8, 19, 20, 40, 127, 128, 255, 256, 0x1fff, 0x8000, 0xffff];

/// Change any input; `other` is another one to take from.
pub fn octets(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        octets_once(input, other, random);
    }
}

fn octets_once(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(8) {
        0 | 1 => {
            if let Some(octet) = input.get_mut(at) {
                *octet ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(octet) = input.get_mut(at) {
                *octet = random.number() as u8;
            }
        }
        3 => put(input, at, random.choose(&EDGES)),
        4 => input.truncate(at),
        5 => {
            let octets = random.number().to_le_bytes();
            let n = 1 + random.below(8);
            input.splice(at..at, octets.into_iter().take(n));
        }
        6 => {
            let end = (at + 1 + random.below(8)).min(input.len());
            input.drain(at.min(end)..end);
        }
        _ => {
            let from = random.below(other.len());
            let n = random.below((other.len() - from).min(64) + 1);
            input.splice(at.., other[from..from + n].iter().copied());
        }
    }
    input.truncate(LONGEST);
}

fn put(input: &mut [u8], at: usize, value: u16) {
    if let Some(place) = input.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Change a frame: its octets, or one of its headers, after which its lengths are mostly made to fit again, because
/// otherwise hardly a frame gets past the first check.
pub fn frame(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        match random.below(6) {
            0 => octets_once(input, other, random),
            1 => tag(input, random),
            2 => number(input, random),
            3 => extension(input, random),
            4 => input.resize((input.len() + random.below(80)).min(LONGEST), random.number() as u8),
            _ => header_octet(input, random),
        }
    }
    if random.below(8) != 0 {
        fit(input);
    }
}

/// Offset of the network header.
fn network(input: &[u8]) -> usize {
    let mut l3 = 14;
    while matches!(input.get(l3 - 2..l3), Some([0x81, 0x00] | [0x88, 0xa8])) && l3 < 30 {
        l3 += 4;
    }
    l3
}

fn tag(input: &mut Vec<u8>, random: &mut Random) {
    if input.len() < 18 {
        return;
    }
    if random.below(2) == 0 && network(input) > 14 {
        input.drain(12..16);
    } else {
        let [_, _, high, low, ..] = random.number().to_le_bytes();
        let [first, second] = random.choose(&[[0x81, 0x00], [0x88, 0xa8]]);
        input.splice(12..12, [first, second, high, low]);
    }
}

/// Another Ethernet type or IP protocol.
fn number(input: &mut [u8], random: &mut Random) {
    let l3 = network(input);
    let ethertype = [0x0800, 0x86dd, 0x0806, 0x8847, 0x0100, 0x8100];
    let proto = [0, 1, 2, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 255];
    match random.below(4) {
        0 => put(input, l3 - 2, random.choose(&ethertype)),
        _ => {
            let at = if input.get(l3).is_some_and(|octet| octet >> 4 == 6) { 6 } else { 9 };
            if let Some(octet) = input.get_mut(l3 + at) {
                *octet = random.choose(&proto);
            }
        }
    }
}

/// An extension header more in an IPv6 packet, an option more in an IPv4 header.
fn extension(input: &mut Vec<u8>, random: &mut Random) {
    let l3 = network(input);
    match input.get(l3).map(|octet| octet >> 4) {
        Some(6) if input.len() >= l3 + 40 => {
            let header = random.choose(&[0u8, 43, 44, 51, 60]);
            let next = std::mem::replace(&mut input[l3 + 6], header);
            let mut octets = random.number().to_be_bytes();
            // Mostly as long as it is, and mostly not a later fragment.
            (octets[0], octets[1]) = (next, if header == 51 { 2 } else { 0 });
            if random.below(4) != 0 {
                (octets[2], octets[3]) = (0, octets[3] & 1);
            }
            let tail = if header == 51 { 8 } else { 0 };
            input.splice(l3 + 40..l3 + 40, octets.into_iter().chain(std::iter::repeat_n(0, tail)));
        }
        Some(4) if input.len() >= l3 + 20 && input[l3] & 0xf != 0xf => {
            input[l3] += 1;
            input.splice(l3 + 20..l3 + 20, [1, 1, 1, 0]);
        }
        _ => {}
    }
    input.truncate(LONGEST);
}

/// An octet where headers are.
fn header_octet(input: &mut [u8], random: &mut Random) {
    let l3 = network(input);
    let at = l3 + random.below(64.min(input.len().saturating_sub(l3)));
    if let Some(octet) = input.get_mut(at) {
        *octet = if random.below(2) == 0 { random.number() as u8 } else { random.choose(&EDGES) as u8 };
    }
}

/// Make the lengths fit the frame.
fn fit(input: &mut [u8]) {
    let l3 = network(input);
    let octets = input.len().saturating_sub(l3);
    match input.get(l3).map(|octet| octet >> 4) {
        Some(4) if octets >= 20 => {
            put(input, l3 + 2, octets as u16);
            let header = usize::from(input[l3] & 0xf) * 4;
            if input[l3 + 9] == 17 && octets >= header + 8 {
                put(input, l3 + header + 4, (octets - header) as u16);
            }
        }
        Some(6) if octets >= 40 => {
            put(input, l3 + 4, (octets - 40) as u16);
            if input[l3 + 6] == 17 && octets >= 48 {
                put(input, l3 + 44, (octets - 40) as u16);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_too_short_or_too_strange_to_be_changed() {
        let mut random = Random::new(1);
        for len in 0..80 {
            for first in [0x00, 0x45, 0x60, 0xff] {
                let mut input = vec![first; len];
                for _ in 0..200 {
                    frame(&mut input, &[1, 2, 3], &mut random);
                    octets(&mut input, &[], &mut random);
                    assert!(input.len() <= LONGEST + 16);
                }
            }
        }
    }
}
