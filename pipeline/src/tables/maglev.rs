//! Consistent choice of a backend: the table of Maglev (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every backend has a permutation of the places of a table, told by its address alone; in turns each takes the first place of
//! its permutation that is still free. So every backend has the same number of places, give or take one, and when one
//! leaves, the others keep nearly all of theirs. A connection goes to the backend at the place that its hash names.
//!
//! Nodes agree: what a table says follows from the set of backends, not from their order, and what a connection's hash is
//! from the packet alone. Both hashes are therefore SipHash with stated keys over stated octets. The price is that a
//! client can aim its connections at one backend, which it also could by connecting to it directly.
//!
//! ```text
//!   backends A, B; 7 places     permutation of A: 3 0 4 1 5 2 6     of B: 0 2 4 6 1 3 5
//!   turns A B A B A B A         A: 3     B: 0     A: 4 (0 is taken)     B: 2     A: 1     B: 6 (4 is taken)     A: 5
//!   places                      0    1    2    3    4    5    6
//!                               B    A    B    A    A    A    B
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::live::connections::Tuple;

/// Sizes of tables: primes, so that every step between places leads to all of them. A table has at least [`FILL`] places a backend.
/// A service that grows past a size has most of its new connections elsewhere once, so the sizes lie far apart.
const SIZES: [u32; 7] = [1_021, 4_093, 16_381, 65_537, 262_139, 1_048_573, 4_194_301];
/// Places a backend at least, while there is a size for it: the shares of two backends differ by less than a hundredth.
const FILL: usize = 100;
/// A place that no backend has taken.
const FREE: u32 = u32::MAX;

/// A backend for every hash.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// By place, the backend's number in the list that the table was made of.
    places: Arc<[u32]>,
}

impl Maglev {
    /// The table of these backends. Takes some ten steps a place: half a millisecond for a hundred backends.
    pub fn new(backends: &[SocketAddr]) -> Self {
        let size = SIZES.into_iter().find(|&size| size as usize >= backends.len() * FILL).unwrap_or(4_194_301);
        let mut turns: Vec<Turn> =
            (0..).zip(backends).map(|(number, backend)| Turn::new(number, *backend, size)).collect();
        turns.sort_unstable_by_key(|turn| turn.backend);
        let mut places = vec![FREE; size as usize];
        let mut free = if turns.is_empty() { 0 } else { size };
        while free != 0 {
            for turn in turns.iter_mut().take(free as usize) {
                turn.take(&mut places);
            }
            free = free.saturating_sub(u32::try_from(turns.len()).unwrap_or(u32::MAX));
        }
        Self { places: places.into() }
    }

    /// The number of the backend that a hash leads to; `None` if there are no backends.
    pub fn choose(&self, hash: u64) -> Option<usize> {
        let place = (hash % self.places.len() as u64) as usize;
        self.places.get(place).filter(|&&number| number != FREE).map(|&number| number as usize)
    }
}

/// A backend while the table is filled.
struct Turn {
    backend: SocketAddr,
    number: u32,
    /// The place that it looks at next.
    at: u32,
    /// From each place to the next.
    step: u32,
    size: u32,
}

impl Turn {
    fn new(number: u32, backend: SocketAddr, size: u32) -> Self {
        let octets = endpoint(backend.ip(), backend.port());
        let at = (sip(1, &octets) % u64::from(size)) as u32;
        let step = (sip(2, &octets) % u64::from(size - 1)) as u32 + 1;
        Self { backend, number, at, step, size }
    }

    /// Take the first free place of the permutation. There must be one.
    fn take(&mut self, places: &mut [u32]) {
        // A permutation has every place once, so a free one is found within a round.
        for _ in 0..self.size {
            let at = self.at as usize;
            self.at = (self.at + self.step) % self.size;
            if let Some(place) = places.get_mut(at)
                && *place == FREE
            {
                *place = self.number;
                return;
            }
        }
    }
}

/// The hash of a connection on which all nodes agree: of its addresses, ports and protocol.
pub fn hash(tuple: &Tuple) -> u64 {
    let mut octets = [tuple.proto; 37];
    let ends = endpoint(tuple.src, tuple.sport).into_iter().chain(endpoint(tuple.dst, tuple.dport));
    octets.iter_mut().zip(ends).for_each(|(to, from)| *to = from);
    sip(3, &octets)
}

/// An address and a port in 18 octets, IPv4 as IPv4-mapped.
fn endpoint(address: IpAddr, port: u16) -> [u8; 18] {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut octets = [0; 18];
    let all = address.octets().into_iter().chain(port.to_be_bytes());
    octets.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    octets
}

fn sip(key: u64, octets: &[u8]) -> u64 {
    SipHasher13::new_with_keys(key, 0).hash(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::BridgeId;
    use std::collections::BTreeMap;

    fn backends(n: u16) -> Vec<SocketAddr> {
        (0..n).map(|i| SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 80))).collect()
    }

    fn counts(table: &Maglev) -> BTreeMap<u32, usize> {
        table.places.iter().fold(BTreeMap::new(), |mut counts, &number| {
            *counts.entry(number).or_default() += 1;
            counts
        })
    }

    /// Of the places of `before` whose backend is in `after` too, how many lead elsewhere there, in thousandths.
    fn moved(before: &[SocketAddr], after: &[SocketAddr]) -> usize {
        let (old, new) = (Maglev::new(before), Maglev::new(after));
        assert_eq!(old.places.len(), new.places.len(), "of one size");
        let pairs = old.places.iter().zip(new.places.iter()).map(|(a, b)| (before[*a as usize], after[*b as usize]));
        let kept: Vec<_> = pairs.filter(|(a, _)| after.contains(a)).collect();
        kept.iter().filter(|(a, b)| a != b).count() * 1000 / kept.len()
    }

    #[test]
    fn every_backend_has_the_same_share_give_or_take_one_place() {
        for n in [1, 2, 3, 10, 11, 100, 1000] {
            let counts = counts(&Maglev::new(&backends(n)));
            assert_eq!(counts.len(), usize::from(n));
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            assert!(most - least <= 1 && *least >= FILL, "{n}: {least}..{most}");
        }
    }

    #[test]
    fn a_backend_that_leaves_or_comes_moves_few_others() {
        for n in [3, 30, 100, 500] {
            let all = backends(n);
            let without = [&all[..1], &all[2..]].concat();
            assert!(moved(&all, &without) <= 30, "{n}: {} of a thousand moved", moved(&all, &without));
            assert!(moved(&without, &all) <= 30 + 1000 / usize::from(n), "{n}: {}", moved(&without, &all));
        }
    }

    #[test]
    fn nodes_agree_whatever_the_order_of_the_backends() {
        let all = backends(20);
        let turned: Vec<_> = all.iter().rev().copied().collect();
        let (a, b) = (Maglev::new(&all), Maglev::new(&turned));
        for hash in 0..10_000 {
            assert_eq!(all[a.choose(hash).unwrap()], turned[b.choose(hash).unwrap()]);
        }
    }

    #[test]
    fn the_hash_of_a_connection_is_the_same_for_ever() {
        let tuple = Tuple {
            zone: BridgeId(7),
            proto: 6,
            src: [10, 0, 0, 1].into(),
            dst: [10, 96, 0, 1].into(),
            sport: 40_000,
            dport: 443,
        };
        let stated = hash(&tuple);
        assert_eq!(hash(&Tuple { zone: BridgeId(8), ..tuple }), stated, "a node's own number has no part in it");
        for other in [
            Tuple { proto: 17, ..tuple },
            Tuple { src: [10, 0, 0, 2].into(), ..tuple },
            Tuple { dst: [10, 96, 0, 2].into(), ..tuple },
            Tuple { sport: 40_001, ..tuple },
            Tuple { dport: 80, ..tuple },
        ] {
            assert_ne!(hash(&other), stated, "{other:?}");
        }
        assert_eq!(stated, STATED, "nodes of two versions of the switch would not agree");
    }

    /// Of the connection above; SipHash-1-3 with keys 3 and 0 over 37 octets.
    const STATED: u64 = 16_533_623_077_384_102_626;

    #[test]
    fn nothing_is_chosen_where_there_is_nothing() {
        assert_eq!(Maglev::new(&[]).choose(5), None);
        assert_eq!(Maglev::new(&backends(1)).choose(u64::MAX), Some(0));
    }
}
