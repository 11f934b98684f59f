//! Longest-prefix table: what does the most specific prefix that holds an address say (RFC 1812, 5.2.4.3)?
//!
//! All prefixes of all lengths are rows of one chunked table; an address is asked for with the lengths that exist on
//! its bridge, longest first. A node has a handful of lengths, so a look-up is a handful of probes; a trie would bound
//! it better, but costs a path of copies for each change.
//!
//! *Validity.* The answer for an address may be altered by a prefix that is long (/24 or more of IPv4, /64 or more of
//! IPv6), hence inside the address's *region* of that size, or by a short one, which covers many regions. So a question
//! notes two cells, that of the region and a *wide* one of the bridge and family; a change touches one of the two.
//!
//! Worked example: 10.0.0.0/8 leads to A and 10.1.2.0/24 to B. A decision for 10.1.2.3 notes region 10.1.2.0/24 and the
//! wide cell. Adding 10.1.2.3/32 touches region 10.1.2.0/24: asked again. Adding 10.9.9.9/32 touches another region:
//! it stands. Adding 10.1.0.0/16 touches the wide cell: asked again, to no other end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::BridgeId;
use ipnet::IpNet;

use crate::probe::cells::{Asked, TableName, Touched};
use crate::tables::chunks::Chunks;

/// Rows by prefix within a bridge.
#[derive(Clone, Debug)]
pub struct Prefixes<V> {
    region: TableName,
    wide: TableName,
    rows: Chunks<(BridgeId, IpNet), V>,
    /// Which lengths exist, by bridge and family: longest first, with the number of their rows.
    lengths: BTreeMap<Family, Vec<(u8, usize)>>,
}

/// Prefixes of one bridge and one family: `true` is IPv6.
type Family = (BridgeId, bool);

/// The region of an address: the smallest set of addresses that a change tells apart.
fn region(address: IpAddr) -> IpNet {
    let length = region_length(address.is_ipv6());
    IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}

fn region_length(v6: bool) -> u8 {
    if v6 { 64 } else { 24 }
}

impl<V: Clone> Prefixes<V> {
    /// An empty table. The names keep its questions apart from those to other tables, and from each other.
    pub fn new(region: &'static str, wide: &'static str) -> Self {
        Self {
            region: TableName::new(region),
            wide: TableName::new(wide),
            rows: Chunks::new(),
            lengths: BTreeMap::new(),
        }
    }

    /// The longest prefix that holds an address, and its row. That it was asked for is noted, found or not.
    pub fn get(&self, bridge: BridgeId, address: IpAddr, asked: &mut Asked<'_>) -> Option<(IpNet, &V)> {
        asked.note(self.region, (bridge, region(address)));
        asked.note(self.wide, (bridge, address.is_ipv6()));
        let lengths = self.lengths.get(&(bridge, address.is_ipv6()))?;
        lengths.iter().find_map(|(length, _)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            let key = (bridge, net);
            self.rows.get(self.rows.hash(&key), &key).map(|row| (net, row))
        })
    }

    /// Put a row in, or take it out. Host bits of the prefix do not count.
    pub fn set(&mut self, bridge: BridgeId, prefix: IpNet, row: Option<V>, touched: &mut Touched<'_>) {
        let (net, v6) = (prefix.trunc(), prefix.addr().is_ipv6());
        if net.prefix_len() >= region_length(v6) {
            touched.touch(self.region, (bridge, region(net.addr())));
        } else {
            touched.touch(self.wide, (bridge, v6));
        }
        let there = row.is_some();
        let was = self.rows.set((bridge, net), row).is_some();
        match (was, there) {
            (false, true) => self.count((bridge, v6), net.prefix_len()),
            (true, false) => self.discount((bridge, v6), net.prefix_len()),
            _ => {}
        }
    }

    /// One row more of this length.
    fn count(&mut self, family: Family, length: u8) {
        let lengths = self.lengths.entry(family).or_default();
        match lengths.iter_mut().find(|(other, _)| *other == length) {
            Some((_, rows)) => *rows += 1,
            None => {
                lengths.push((length, 1));
                lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
    }

    /// One row less of this length.
    fn discount(&mut self, family: Family, length: u8) {
        let Some(lengths) = self.lengths.get_mut(&family) else { return };
        for (_, rows) in lengths.iter_mut().filter(|(other, _)| *other == length) {
            *rows -= 1;
        }
        lengths.retain(|(_, rows)| *rows != 0);
        if lengths.is_empty() {
            self.lengths.remove(&family);
        }
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (BridgeId, IpNet, &V)> {
        self.rows.iter().map(|((bridge, net), row)| (*bridge, *net, row))
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::probe::cells::Cells;

    const BR: BridgeId = BridgeId(1);

    fn table(cells: &Cells, rows: &[(&str, u32)]) -> Prefixes<u32> {
        let mut table = Prefixes::new("test region", "test wide");
        cells.change(|touched| {
            rows.iter().for_each(|(net, row)| table.set(BR, net.parse().unwrap(), Some(*row), touched));
        });
        table
    }

    fn found(table: &Prefixes<u32>, cells: &Cells, address: &str) -> Option<u32> {
        table.get(BR, address.parse().unwrap(), &mut Asked::new(cells)).map(|(_, row)| *row)
    }

    #[test]
    fn the_longest_prefix_wins_and_families_and_bridges_are_apart() {
        let cells = Cells::default();
        let rows = [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.2.3/24", 3), ("10.1.2.3/32", 4), ("fd00::/8", 5)];
        let table = table(&cells, &rows);
        for (address, row) in [
            ("192.0.2.1", Some(1)),
            ("10.9.9.9", Some(2)),
            ("10.1.2.9", Some(3)),
            ("10.1.2.3", Some(4)),
            ("fd00::1", Some(5)),
            ("2001:db8::1", None),
        ] {
            assert_eq!(found(&table, &cells, address), row, "{address}");
        }
        assert!(table.get(BridgeId(2), Ipv4Addr::new(10, 1, 2, 3).into(), &mut Asked::new(&cells)).is_none());
    }

    #[test]
    fn a_prefix_that_goes_uncovers_the_shorter_one() {
        let cells = Cells::default();
        let mut table = table(&cells, &[("10.0.0.0/8", 1), ("10.1.0.0/16", 2)]);
        cells.change(|touched| table.set(BR, "10.1.0.0/16".parse().unwrap(), None, touched));
        assert_eq!((found(&table, &cells, "10.1.0.1"), table.len()), (Some(1), 1));
        cells.change(|touched| table.set(BR, "10.0.0.0/8".parse().unwrap(), None, touched));
        assert_eq!((found(&table, &cells, "10.1.0.1"), table.is_empty()), (None, true));
        assert!(table.lengths.is_empty(), "a length without rows is still looked for");
    }

    #[test]
    fn a_long_prefix_elsewhere_leaves_a_decision_alone() {
        let cells = Cells::default();
        let mut table = table(&cells, &[("0.0.0.0/0", 1), ("::/0", 2)]);
        for (address, elsewhere) in [("10.1.2.3", "10.1.3.0/24"), ("fd00::1", "fd00:0:0:1::/64")] {
            let mut asked = Asked::new(&cells);
            assert!(table.get(BR, address.parse().unwrap(), &mut asked).is_some());
            let made = cells.now();
            cells.change(|touched| table.set(BR, elsewhere.parse().unwrap(), Some(3), touched));
            assert!(cells.unchanged_since(&asked.deps(false).cells(), made), "{elsewhere}");
        }
    }

    /// Few enough addresses that prefixes meet, on both sides of the region's length.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u8..3, 0u8..3, 0u8..6).prop_map(|(b, c, d)| Ipv4Addr::new(10, b, c, d).into());
        let v6 = (0u16..3, 0u16..3, 0u16..6).prop_map(|(c, d, h)| Ipv6Addr::new(0xfd00, 0, c, d, 0, 0, 0, h).into());
        prop_oneof![v4, v6]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        let lengths4 = prop_oneof![Just(0u8), Just(8), Just(15), 20u8..=32];
        let lengths6 = prop_oneof![Just(0u8), Just(16), 44u8..=70, 120u8..=128];
        (address(), lengths4, lengths6)
            .prop_map(|(address, v4, v6)| IpNet::new(address, if address.is_ipv4() { v4 } else { v6 }).unwrap().trunc())
    }

    /// The first of the longest prefixes that hold the address.
    fn linear(model: &BTreeMap<(BridgeId, IpNet), u32>, bridge: BridgeId, address: IpAddr) -> Option<(IpNet, u32)> {
        let holds = model.iter().filter(|((of, net), _)| *of == bridge && net.contains(&address));
        holds.max_by_key(|((_, net), _)| net.prefix_len()).map(|((_, net), row)| (*net, *row))
    }

    proptest! {
        #[test]
        fn answers_are_those_of_a_list_and_no_decision_outlives_its_answer(
            changes in proptest::collection::vec((1u16..3, net(), proptest::option::of(any::<u32>())), 1..60),
            questions in proptest::collection::vec((1u16..3, address()), 1..20),
        ) {
            let cells = Cells::default();
            let mut table = Prefixes::new("test region", "test wide");
            let mut model = BTreeMap::new();
            for (bridge, net, row) in changes {
                let bridge = BridgeId(bridge);
                let before: Vec<_> = questions.iter().map(|&(bridge, address)| {
                    let mut asked = Asked::new(&cells);
                    let answer = table.get(BridgeId(bridge), address, &mut asked).map(|(net, row)| (net, *row));
                    (answer, asked.deps(false), cells.now())
                }).collect();
                cells.change(|touched| table.set(bridge, net, row, touched));
                match row {
                    Some(row) => _ = model.insert((bridge, net), row),
                    None => _ = model.remove(&(bridge, net)),
                }
                for (&(bridge, address), (old, deps, made)) in questions.iter().zip(&before) {
                    let bridge = BridgeId(bridge);
                    let new = table.get(bridge, address, &mut Asked::new(&cells)).map(|(net, row)| (net, *row));
                    prop_assert_eq!(new, linear(&model, bridge, address));
                    prop_assert!(new == *old || !cells.unchanged_since(&deps.cells(), *made), "{} stands", address);
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.iter().count(), model.len());
            }
        }
    }
}
