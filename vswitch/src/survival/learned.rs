//! The file of what was learned: stations of bridges, and clients of services with session affinity.
//!
//! Written beside itself and renamed, so that whoever reads it finds one whole state, at most a second old. All numbers are
//! little-endian:
//!
//! ```text
//!   magic 8, version 4, boot 16
//!   stations 4, each: bridge 2, vlan 2, address 6, port 2, second 4
//!   clients 4, each:  service 8, zone 2, address 17, backend 17 + 2, millisecond 8, seconds 4, port 2, again 1
//!   an address: 4 or 6, and 16 octets
//! ```

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{BridgeId, MacAddr, PortId};
use parking_lot::Mutex;
use pipeline::live::affinity::{Client, Entry};
use pipeline::live::stations::Address;
use pipeline::live::{Live, Now};

use super::{about, boot};

/// The file's name in the run-dir.
const NAME: &str = "learned";
/// What it begins with; the version counts changes of what follows.
const MAGIC: [u8; 12] = *b"vswlern\n\x01\0\0\0";

/// The file of a run-dir.
#[derive(Debug)]
pub(crate) struct Learned {
    path: PathBuf,
    boot: [u8; 16],
    /// What it says; `None` until [`Self::recall`] has read it.
    written: Mutex<Option<Vec<u8>>>,
}

/// A station as it was written down.
type Row = (BridgeId, Address, PortId, u32);

impl Learned {
    /// # Errors
    /// When the system does not tell which boot it is.
    pub(crate) fn new(run_dir: &Path) -> io::Result<Self> {
        Ok(Self { path: run_dir.join(NAME), boot: boot()?, written: Mutex::default() })
    }

    /// Let a switch know what an earlier one had learned. Bridges and ports are there already: what was learned of others is
    /// forgotten, as `is_there` says. Returns how many stations and clients there were.
    pub(crate) fn recall(&self, live: &Live, is_there: impl Fn(BridgeId, PortId) -> bool, now: Now) -> (usize, usize) {
        let octets = match std::fs::read(&self.path) {
            Ok(octets) => octets,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}", about(&self.path, &error));
                }
                Vec::new()
            }
        };
        let mut count = (0, 0);
        match Reader(&octets).all(&self.boot) {
            Some((stations, clients)) => {
                for (bridge, address, port, heard) in stations.into_iter().filter(|row| is_there(row.0, row.2)) {
                    live.stations.recall(bridge, address, port, heard, now, &live.cells);
                    count.0 += 1;
                }
                for entry in clients.into_iter().filter(|entry| is_there(entry.client.zone, entry.port)) {
                    live.affinity.recall(entry, now);
                    count.1 += 1;
                }
            }
            None if octets.is_empty() => {}
            None => tracing::warn!("{}: of another boot or version, or damaged: passed over", self.path.display()),
        }
        *self.written.lock() = Some(octets);
        count
    }

    /// Write down what is known now, if it is not what is written there. Nothing is before [`Self::recall`].
    pub(crate) fn write(&self, live: &Live) {
        let mut written = self.written.lock();
        let Some(before) = &*written else { return };
        let octets = self.encode(live);
        if octets == *before {
            return;
        }
        if let Err(error) = self.replace(&octets) {
            tracing::debug!("{}", about(&self.path, &error));
        }
        *written = Some(octets);
    }

    fn replace(&self, octets: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(octets)?;
        std::fs::rename(&new, &self.path)
    }

    fn encode(&self, live: &Live) -> Vec<u8> {
        let mut octets = [&MAGIC[..], &self.boot].concat();
        let (stations, clients) = (live.stations.all(), live.affinity.list());
        octets.extend((stations.len() as u32).to_le_bytes());
        for (bridge, station) in stations {
            octets.extend(bridge.0.to_le_bytes());
            octets.extend(station.address.vlan.to_le_bytes());
            octets.extend(station.address.mac.0);
            octets.extend(station.port.0.to_le_bytes());
            octets.extend(station.heard.to_le_bytes());
        }
        octets.extend((clients.len() as u32).to_le_bytes());
        for Entry { client, backend, used, lasts, port, again } in clients {
            octets.extend(client.service.to_le_bytes());
            octets.extend(client.zone.0.to_le_bytes());
            put_address(&mut octets, client.address);
            put_address(&mut octets, backend.ip());
            octets.extend(backend.port().to_le_bytes());
            octets.extend((used.0.as_millis() as u64).to_le_bytes());
            octets.extend(lasts.to_le_bytes());
            octets.extend(port.0.to_le_bytes());
            octets.push(again.into());
        }
        octets
    }
}

fn put_address(octets: &mut Vec<u8>, address: IpAddr) {
    let (family, bits) = match address {
        IpAddr::V4(address) => (4, address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => (6, address.octets()),
    };
    octets.push(family);
    octets.extend(bits);
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Option<IpAddr> {
        let [family] = self.take()?;
        let address = std::net::Ipv6Addr::from(self.take::<16>()?);
        match family {
            4 => address.to_ipv4_mapped().map(IpAddr::V4),
            6 => Some(IpAddr::V6(address)),
            _ => None,
        }
    }

    /// Everything; `None` if it is not of this boot and version, or not whole.
    fn all(mut self, boot: &[u8; 16]) -> Option<(Vec<Row>, Vec<Entry>)> {
        if self.take()? != MAGIC || self.take()? != *boot {
            return None;
        }
        let (mut stations, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..self.u32()? {
            stations.push(self.station()?);
        }
        for _ in 0..self.u32()? {
            clients.push(self.client()?);
        }
        self.0.is_empty().then_some((stations, clients))
    }

    fn station(&mut self) -> Option<Row> {
        let bridge = BridgeId(self.u16()?);
        let address = Address { vlan: self.u16()?, mac: MacAddr(self.take()?) };
        Some((bridge, address, PortId(self.u16()?), self.u32()?))
    }

    fn client(&mut self) -> Option<Entry> {
        let client = Client { service: self.u64()?, zone: BridgeId(self.u16()?), address: self.address()? };
        let backend = SocketAddr::new(self.address()?, self.u16()?);
        let used = Now(Duration::from_millis(self.u64()?));
        let (lasts, port) = (self.u32()?, PortId(self.u16()?));
        let [again] = self.take()?;
        Some(Entry { client, backend, used, lasts, port, again: again != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: BridgeId = BridgeId(3);

    fn at(second: u64) -> Now {
        Now(Duration::from_secs(second))
    }

    fn live() -> Live {
        let live = Live::default();
        live.stations.configure(BRIDGE, 100, 300, &live.cells);
        live
    }

    fn entry(address: &str) -> Entry {
        let client = Client { service: 77, zone: BRIDGE, address: address.parse().unwrap() };
        let backend = "10.1.0.2:80".parse().unwrap();
        Entry { client, backend, used: at(100), lasts: 50, port: PortId(2), again: true }
    }

    /// A switch that knows two stations and two clients.
    fn full() -> Live {
        let live = live();
        for (last, vlan) in [(1, 0), (2, 4095)] {
            let address = Address { vlan, mac: MacAddr([2, 0, 0, 0, 0, last]) };
            live.stations.hear(BRIDGE, address, PortId(last.into()), at(100), &live.cells);
        }
        live.affinity.recall(entry("10.1.0.9"), at(100));
        live.affinity.recall(entry("fd00::9"), at(100));
        live
    }

    #[test]
    fn what_was_learned_is_known_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let before = full();
        let learned = Learned::new(dir.path()).unwrap();
        learned.write(&before);
        assert!(!dir.path().join(NAME).exists(), "what is there was not read yet");
        assert_eq!(learned.recall(&before, |_, _| true, at(100)), (0, 0));
        learned.write(&before);
        let after = live();
        assert_eq!(Learned::new(dir.path()).unwrap().recall(&after, |_, _| true, at(101)), (2, 2));
        let key = |station: &pipeline::live::stations::Station| (station.address, station.port, station.heard);
        let stations = |live: &Live| {
            let mut rows: Vec<_> = live.stations.list(BRIDGE).iter().map(key).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(stations(&after), stations(&before));
        let clients = |live: &Live| {
            let mut rows = live.affinity.list();
            rows.sort_by_key(|entry| entry.client.address);
            rows
        };
        assert_eq!(clients(&after), clients(&before));
        let elsewhere = live();
        let of_port = |_, port| port == PortId(1);
        assert_eq!(Learned::new(dir.path()).unwrap().recall(&elsewhere, of_port, at(101)), (1, 0));
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_ours_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let learned = Learned::new(dir.path()).unwrap();
        learned.recall(&live(), |_, _| true, at(0));
        learned.write(&full());
        let whole = std::fs::read(&path).unwrap();
        let recalled = |octets: &[u8]| {
            std::fs::write(&path, octets).unwrap();
            Learned::new(dir.path()).unwrap().recall(&live(), |_, _| true, at(0))
        };
        assert_eq!(recalled(&whole), (2, 2));
        (0..whole.len()).for_each(|len| assert_eq!(recalled(&whole[..len]), (0, 0), "{len} octets"));
        assert_eq!(recalled(&[&whole[..], &[0]].concat()), (0, 0));
        for at in [0, 8, 12, 27, 28, 31] {
            let mut octets = whole.clone();
            octets[at] ^= 0x80;
            assert_eq!(recalled(&octets), (0, 0), "octet {at}");
        }
    }
}
