//! The target `path`: octets become a history of transactions, frames and time, which the pipeline's own test bench
//! plays. It asserts that every lane is decided, that no frame is lost, that every cached verdict is that of a fresh walk,
//! and that the tables are in the end what their sum would build.

use api::{BridgeId, MacAddr, StationKey, Vlan};

#[path = "../../../pipeline/tests/all/kit/mod.rs"]
#[allow(dead_code, reason = "the tests of the pipeline use what is not used here")]
pub(super) mod kit;

use kit::history::{Event, Noun, PORTS, beginning, play};
use kit::net::{BROADCAST, frame, mac};

/// Events of one history at most: beyond, an input is only longer.
const EVENTS: usize = 96;

/// Octets, taken one by one; zeros when they are used up.
struct Octets<'a>(&'a [u8]);

impl Octets<'_> {
    fn next(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, n: u16) -> u16 {
        u16::from(self.next()) % n
    }

    fn port(&mut self) -> u16 {
        1 + self.below(PORTS - 1)
    }

    fn bridge(&mut self) -> BridgeId {
        BridgeId(1 + self.below(2))
    }

    fn vlan(&mut self) -> Vlan {
        let what = self.next();
        let tag = u16::from(what >> 3) % 3;
        let trunks = [0, 1, 2, 4095].into_iter().zip(0..).filter(|(_, bit)| what >> (4 + bit) & 1 == 1);
        let trunks = trunks.map(|(vid, _)| vid).collect();
        match what % 5 {
            0 => Vlan::default(),
            1 => Vlan::Access { tag },
            2 => Vlan::Trunk { trunks },
            3 => Vlan::NativeTagged { tag, trunks },
            _ => Vlan::NativeUntagged { tag, trunks },
        }
    }

    fn noun(&mut self) -> Noun {
        let what = self.next();
        let stays = what & 0xc0 != 0;
        match what % 8 {
            0 => {
                let (id, limit, ageing) = (self.bridge(), 1 + self.below(5), 1 + self.below(3));
                Noun::Bridge(id, stays.then_some((limit.into(), ageing.into(), what & 8 != 0)))
            }
            1..4 => {
                let key =
                    StationKey { bridge: self.bridge(), vlan: self.below(3), mac: MacAddr(mac(1 + self.below(5))) };
                let port = self.port();
                Noun::Station(key, stays.then_some(port))
            }
            _ => {
                let (id, bridge, vlan) = (self.port(), self.bridge(), self.vlan());
                Noun::Port(id, stays.then_some((bridge, vlan, if what & 8 != 0 { 50 } else { 1500 })))
            }
        }
    }

    /// One in four is octets as they are.
    fn frame(&mut self) -> Vec<u8> {
        let what = self.next();
        if what & 0xc0 == 0xc0 {
            let len = usize::from(self.next()).min(self.0.len());
            return self.0.split_off(..len).unwrap_or_default().to_vec();
        }
        let ends = self.next();
        let dst = match ends & 7 {
            0 | 7 => BROADCAST,
            6 => [0x01, 0x80, 0xc2, 0, 0, 1],
            host => mac(host.into()),
        };
        let src = mac(1 + u16::from(ends >> 3) % 5);
        let vid = u16::from(what >> 2 & 3);
        let tags: &[(u16, u16)] = match what & 3 {
            0 | 1 => &[],
            2 => &[(0x8100, ((vid & 1) << 13) | vid)],
            _ => &[(0x88a8, vid), (0x8100, 7)],
        };
        let octets = if what & 0x20 != 0 { 51 } else { 10 };
        frame(dst, src, tags, 0x88b5, &vec![1; octets])
    }

    fn event(&mut self) -> Event {
        match self.next() % 16 {
            0..9 => Event::Frame(self.port(), self.frame()),
            9 => {
                let (port, count) = (self.port(), 1 + self.below(12));
                Event::Burst(port, (0..count).map(|_| self.frame()).collect())
            }
            10..13 => {
                let count = 1 + self.below(3);
                Event::Transaction((0..count).map(|_| self.noun()).collect())
            }
            13 => Event::Pass(1 + u64::from(self.next())),
            14 => Event::Jump(1 + 5 * u64::from(self.next())),
            _ => {
                let (bridge, port) = (self.bridge(), self.below(PORTS));
                Event::Flush(bridge, (port != 0).then_some(port))
            }
        }
    }
}

/// The input is a history; the outcome is what happened how often, by powers of two.
pub(super) fn path(input: &[u8]) -> u64 {
    let mut octets = Octets(input);
    let first = octets.next();
    let workers = 1 + usize::from(first & 1);
    let entries = if first & 6 == 0 { 8 } else { 4096 };
    let generation = if first & 8 != 0 { u32::MAX - u32::from(first >> 4) * 4 } else { 1 };
    let events = std::iter::from_fn(|| (!octets.0.is_empty()).then(|| octets.event()));
    let bench = play(workers, entries, generation, beginning(), events.take(EVENTS));
    super::targets::outcome(bench.events().into_iter().map(|(name, count)| (name, count.ilog2())).collect::<Vec<_>>())
}
