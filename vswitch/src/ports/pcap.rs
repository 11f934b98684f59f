//! `pcap`: replays a capture file, records into another. For benches, tests and replay of what users send us.
//!
//! The whole of `options:rx` is loaded when the port opens (pcap or pcapng, Ethernet), and replayed by copying each
//! frame into a fresh slot, as fast as the switch takes them: time stamps are not kept. With `options:loop=true` it
//! starts over for ever. `options:tx` is written anew, with time stamps in nanoseconds; what is recorded is what a
//! wire would carry, so checksums are finished and super-frames cut before they come here. Records are buffered, and
//! reach the file at most a second late, or when the port closes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pcap_file::pcap::{PcapHeader, PcapParser};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, Endianness, TsResolution};
use pipeline::burst::{Burst, LANES};
use pipeline::offload::Offload;
use pipeline::raw::{Frame, HEADROOM, SLOT, Stash};

use super::{Device, Environment, Opened, PortDef, PortError, Rx, RxQueue, Status, Tx, TxBatch};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "pcap",
    help: "replays a capture file, records into another",
    options: &[
        ("rx", "file to replay: pcap or pcapng"),
        ("tx", "file to record into, overwritten"),
        ("loop", "true: replay for ever; false: once"),
    ],
    open,
};

/// Octets of a file that is replayed, at most.
const FILE_MAX: u64 = 1 << 30;
/// Octets of a recorded frame, at most.
const SNAPLEN: u32 = 1 << 18;
/// What a pcapng file begins with.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

fn open(port: &api::Port, _environment: &Environment<'_>) -> Result<Opened, PortError> {
    let option = |name: &str| port.options.get(name).map(String::as_str);
    let again = match option("loop") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(PortError(format!("options:loop={other}: neither true nor false"))),
    };
    let (rx, tx) = (option("rx"), option("tx"));
    if rx.is_none() && (again || tx.is_none()) {
        let what = if again { "options:loop needs options:rx" } else { "needs options:rx, options:tx or both" };
        return Err(PortError(format!("type=pcap: {what}")));
    }
    if let (Some(rx), Some(tx)) = (rx, tx)
        && same_file(rx, tx)
    {
        return Err(PortError(format!("options:tx={tx}: is options:rx too, and would be overwritten")));
    }
    let queue = rx.map(|path| {
        let corpus = Corpus::load(Path::new(path)).map_err(|why| PortError(format!("options:rx={path}: {why}")))?;
        Ok(Box::new(Queue { corpus, next: 0, again }) as Box<dyn RxQueue>)
    });
    let queues = queue.into_iter().collect::<Result<Vec<_>, PortError>>()?;
    let record = match tx {
        Some(path) => Some(Record::create(path).map_err(|why| PortError(format!("options:tx={path}: {why}")))?),
        None => None,
    };
    Ok(Opened { queues, device: Arc::new(Pcap { record }) })
}

fn same_file(a: &str, b: &str) -> bool {
    a == b || matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// The frames of a file, one behind the other in memory: what is read next is next to what was read last.
struct Corpus {
    octets: Vec<u8>,
    /// Where each frame ends; it begins where the one before ends.
    ends: Vec<u32>,
}

impl Corpus {
    fn load(path: &Path) -> Result<Self, String> {
        let mut file = Vec::new();
        let read = File::open(path).and_then(|f| f.take(FILE_MAX + 1).read_to_end(&mut file));
        read.map_err(|error| error.to_string())?;
        if file.len() as u64 > FILE_MAX {
            return Err(format!("larger than {} MiB", FILE_MAX >> 20));
        }
        Self::parse(&file)
    }

    fn parse(file: &[u8]) -> Result<Self, String> {
        let mut corpus = Self { octets: Vec::with_capacity(file.len()), ends: Vec::new() };
        match file {
            [] => return Err("empty".into()),
            [a, b, c, d, ..] if [*a, *b, *c, *d] == PCAPNG => corpus.parse_pcapng(file)?,
            _ => corpus.parse_pcap(file)?,
        }
        if corpus.ends.is_empty() { Err("no frame in it".into()) } else { Ok(corpus) }
    }

    fn parse_pcap(&mut self, file: &[u8]) -> Result<(), String> {
        let (mut rest, parser) = PcapParser::new(file).map_err(|error| format!("not a capture file: {error}"))?;
        check_link(parser.header().datalink)?;
        while !rest.is_empty() {
            let (after, packet) = parser.next_raw_packet(rest).map_err(|error| self.broken(&error))?;
            self.add(&packet.data)?;
            rest = after;
        }
        Ok(())
    }

    fn parse_pcapng(&mut self, file: &[u8]) -> Result<(), String> {
        let (mut rest, mut parser) = PcapNgParser::new(file).map_err(|error| format!("not a capture file: {error}"))?;
        while !rest.is_empty() {
            let (after, block) = parser.next_block(rest).map_err(|error| self.broken(&error))?;
            match block {
                Block::InterfaceDescription(interface) => check_link(interface.linktype)?,
                Block::EnhancedPacket(packet) => self.add(&packet.data)?,
                Block::SimplePacket(packet) => self.add(&packet.data)?,
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }

    fn broken(&self, error: &pcap_file::PcapError) -> String {
        format!("broken after frame {}: {error}", self.ends.len())
    }

    fn add(&mut self, frame: &[u8]) -> Result<(), String> {
        let number = self.ends.len() + 1;
        if frame.len() > SLOT - HEADROOM {
            return Err(format!("frame {number} has {} octets: more than {}", frame.len(), SLOT - HEADROOM));
        }
        self.octets.extend_from_slice(frame);
        self.ends.push(self.octets.len() as u32);
        Ok(())
    }

    /// Frame number `at`, from 0.
    #[inline]
    fn frame(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.octets.get(start as usize..end as usize)
    }
}

fn check_link(link: DataLink) -> Result<(), String> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(format!("its link type is {link:?}, not Ethernet")) }
}

struct Queue {
    corpus: Corpus,
    /// Number of the frame that comes next.
    next: usize,
    again: bool,
}

impl RxQueue for Queue {
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx {
        for _ in 0..limit {
            if self.again && self.next == self.corpus.ends.len() {
                self.next = 0;
            }
            let Some(bytes) = self.corpus.frame(self.next) else { return Rx::Drained };
            let Some(mut frame) = stash.take() else { return Rx::Starved };
            frame.fill(bytes);
            if let Err(frame) = burst.push(frame) {
                stash.give(frame);
                return Rx::More;
            }
            self.next += 1;
        }
        if self.arm() { Rx::More } else { Rx::Drained }
    }

    /// It is polled; once a replay without loop has ended there is nothing to poll for, see [`Self::arm`].
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// True while there are frames to replay: a worker must not sleep then, and may afterwards.
    fn arm(&mut self) -> bool {
        self.again || self.next < self.corpus.ends.len()
    }

    fn limit(&self) -> usize {
        LANES
    }
}

struct Pcap {
    record: Option<Record>,
}

impl Device for Pcap {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        if let Some(record) = &self.record
            && !record.append(batch, stash)
        {
            return Tx::Down;
        }
        // Without a file to record into, it swallows.
        while let Some((frame, _)) = batch.pop() {
            stash.give(frame);
        }
        Tx::Done
    }

    fn takes(&self, _work: Offload) -> bool {
        self.record.is_none()
    }

    fn status(&self) -> Status {
        Status { error: self.fault(), ..Status::default() }
    }

    /// Asked once a second, and the second in which records reach the file.
    fn fault(&self) -> Option<String> {
        self.record.as_ref().and_then(Record::flush)
    }

    fn remove(&self) {
        let _ = self.record.as_ref().map(Record::flush);
    }
}

/// A file that is being written.
struct Record {
    file: Mutex<Recorder>,
}

struct Recorder {
    writer: BufWriter<File>,
    /// Why nothing is written any more. A record that was cut short makes what follows unreadable.
    fault: Option<String>,
}

impl Record {
    fn create(path: &str) -> Result<Self, String> {
        let mut writer = File::create(path).map(BufWriter::new).map_err(|error| error.to_string())?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        header.write_to(&mut writer).map_err(|error| error.to_string())?;
        writer.flush().map_err(|error| error.to_string())?;
        Ok(Self { file: Mutex::new(Recorder { writer, fault: None }) })
    }

    /// Record the whole batch. False when the file takes nothing any more.
    fn append(&self, batch: &mut TxBatch, stash: &mut Stash) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut file = self.file.lock();
        while file.fault.is_none()
            && let Some((frame, _)) = batch.pop()
        {
            if let Err(error) = append(&mut file.writer, &frame, now) {
                file.fault = Some(error.to_string());
            }
            stash.give(frame);
        }
        file.fault.is_none()
    }

    /// Bring everything to the file. Why nothing is written any more, if so.
    fn flush(&self) -> Option<String> {
        let mut file = self.file.lock();
        if file.fault.is_none()
            && let Err(error) = file.writer.flush()
        {
            file.fault = Some(error.to_string());
        }
        file.fault.clone()
    }
}

/// One record, in the order that the header says (the crate's own writer cannot be flushed).
fn append(writer: &mut impl Write, frame: &Frame, now: Duration) -> io::Result<()> {
    let len = frame.len() as u32;
    for word in [now.as_secs() as u32, now.subsec_nanos(), len, len] {
        writer.write_all(&word.to_le_bytes())?;
    }
    writer.write_all(frame.head())?;
    writer.write_all(frame.spill())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pipeline::raw::Pool;
    use proptest::prelude::*;

    use super::*;
    use crate::keeper::Keeper;
    use crate::ports::Offered;

    fn open_with(options: &[(&str, &str)], pool: &Pool) -> Result<Opened, PortError> {
        let port = api::Port {
            id: api::PortId(1),
            name: "p".into(),
            bridge: api::BridgeId(1),
            ofport: 1,
            kind: "pcap".into(),
            options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            vlan: api::Vlan::default(),
            mac: None,
            mtu: api::Port::MTU,
            external_ids: BTreeMap::new(),
        };
        open(&port, &Environment { pool, keeper: &Keeper::none(), offered: &Offered::default() })
    }

    /// Record frames of these lengths, filled with their number, and return the file.
    fn record(path: &Path, lens: &[usize], pool: &Pool) {
        let mut stash = pool.stash();
        let opened = open_with(&[("tx", path.to_str().unwrap())], pool).unwrap();
        assert!(opened.queues.is_empty());
        let mut batch = TxBatch::new();
        for (i, &len) in lens.iter().enumerate() {
            let mut frame = stash.take().unwrap();
            assert!(frame.fill(&vec![i as u8; len]));
            batch.push(frame, api::PortId(2));
        }
        assert_eq!(opened.device.tx(&mut batch, &mut stash), Tx::Done);
        assert_eq!(opened.device.status().error, None);
        assert!(batch.is_empty());
    }

    fn drain(burst: &mut Burst, stash: &mut Stash) -> Vec<Vec<u8>> {
        let len = burst.len();
        let frames: Vec<_> = burst.frames[..len].iter_mut().filter_map(Option::take).collect();
        burst.reset(api::PortId(1));
        frames
            .into_iter()
            .map(|frame| {
                let bytes = frame.to_vec();
                stash.give(frame);
                bytes
            })
            .collect()
    }

    #[test]
    fn what_was_recorded_is_replayed_once_and_then_the_worker_may_sleep() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), Pool::heap(1024, 0));
        let path = dir.path().join("a.pcap");
        let lens: Vec<usize> = (0..300).map(|i| 60 + i * 6).collect();
        record(&path, &lens, &pool);
        let mut stash = pool.stash();
        let mut opened = open_with(&[("rx", path.to_str().unwrap()), ("loop", "false")], &pool).unwrap();
        let queue = &mut opened.queues[0];
        let mut burst = Burst::new();
        assert!(queue.arm() && queue.fd().is_none());
        assert_eq!(queue.rx(&mut burst, queue.limit(), &mut stash), Rx::More);
        let mut seen = drain(&mut burst, &mut stash);
        assert_eq!(queue.rx(&mut burst, queue.limit(), &mut stash), Rx::Drained);
        seen.extend(drain(&mut burst, &mut stash));
        assert!(!queue.arm());
        let expected: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
        assert_eq!(seen, expected);
        assert_eq!(queue.rx(&mut burst, 256, &mut stash), Rx::Drained);
        assert!(burst.is_empty());
    }

    #[test]
    fn a_loop_starts_over_for_ever_in_order() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), Pool::heap(512, 0));
        let path = dir.path().join("a.pcap");
        record(&path, &[64, 65, 66], &pool);
        let mut stash = pool.stash();
        let mut opened = open_with(&[("rx", path.to_str().unwrap()), ("loop", "true")], &pool).unwrap();
        let mut burst = Burst::new();
        let mut lens = Vec::new();
        for _ in 0..3 {
            assert_eq!(opened.queues[0].rx(&mut burst, 100, &mut stash), Rx::More);
            lens.extend(drain(&mut burst, &mut stash).iter().map(Vec::len));
        }
        assert_eq!(lens, (0..300).map(|i| 64 + i % 3).collect::<Vec<_>>());
        assert!(opened.queues[0].arm());
        // An empty pool stops it, and loses nothing.
        let hoard: Vec<_> = std::iter::from_fn(|| stash.take()).collect();
        assert_eq!(opened.queues[0].rx(&mut burst, 100, &mut stash), Rx::Starved);
        hoard.into_iter().for_each(|frame| stash.give(frame));
        opened.queues[0].rx(&mut burst, 1, &mut stash);
        assert_eq!(drain(&mut burst, &mut stash)[0].len(), 64);
    }

    #[test]
    fn files_that_cannot_be_replayed_are_named_with_the_reason() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), Pool::heap(64, 0));
        let path = dir.path().join("a.pcap");
        let name = path.to_str().unwrap();
        let refused = || open_with(&[("rx", name)], &pool).err().unwrap().0;
        assert_eq!(refused(), format!("options:rx={name}: No such file or directory (os error 2)"));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(refused(), format!("options:rx={name}: empty"));
        std::fs::write(&path, b"no capture at all, but long enough to be one").unwrap();
        assert!(refused().contains(": not a capture file: "), "{}", refused());
        record(&path, &[], &pool);
        assert_eq!(refused(), format!("options:rx={name}: no frame in it"));
        record(&path, &[64, 64], &pool);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(refused().contains(": broken after frame 1: "), "{}", refused());
        let mut wrong = whole.clone();
        wrong[20] = 101;
        std::fs::write(&path, &wrong).unwrap();
        assert!(refused().contains("not Ethernet"), "{}", refused());
        let mut long = whole[..24].to_vec();
        long.extend([0u32, 0, 1921, 1921].into_iter().flat_map(u32::to_le_bytes));
        long.extend([0; 1921]);
        std::fs::write(&path, &long).unwrap();
        assert_eq!(refused(), format!("options:rx={name}: frame 1 has 1921 octets: more than 1920"));
    }

    #[test]
    fn options_that_make_no_port_are_refused() {
        let pool = Pool::heap(64, 0);
        let refused = |options: &[(&str, &str)]| open_with(options, &pool).err().unwrap().0;
        assert_eq!(refused(&[]), "type=pcap: needs options:rx, options:tx or both");
        assert_eq!(refused(&[("loop", "yes")]), "options:loop=yes: neither true nor false");
        assert_eq!(refused(&[("loop", "true"), ("tx", "/tmp/x")]), "type=pcap: options:loop needs options:rx");
        assert!(refused(&[("rx", "/x"), ("tx", "/x")]).contains("overwritten"));
        assert_eq!(refused(&[("tx", "/not/there")]), "options:tx=/not/there: No such file or directory (os error 2)");
    }

    #[test]
    fn a_full_disk_closes_the_port_instead_of_losing_records_quietly() {
        let pool = Pool::heap(64, 0);
        let mut stash = pool.stash();
        // Writing to it always fails, but only when the buffer is brought there.
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let record = Record { file: Mutex::new(Recorder { writer: BufWriter::new(file), fault: None }) };
        let device = Pcap { record: Some(record) };
        let mut send = || {
            let mut batch = TxBatch::new();
            let mut frame = stash.take().unwrap();
            frame.fill(&[0; 60]);
            batch.push(frame, api::PortId(2));
            let sent = device.tx(&mut batch, &mut stash);
            while let Some((frame, _)) = batch.pop() {
                stash.give(frame);
            }
            sent
        };
        assert_eq!(send(), Tx::Done);
        assert!(device.status().error.unwrap().contains("No space left"));
        assert_eq!(send(), Tx::Down);
    }

    #[test]
    fn pcapng_is_read_too() {
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let len = (12 + body.len().next_multiple_of(4)) as u32;
            file.extend(kind.to_le_bytes());
            file.extend(len.to_le_bytes());
            file.extend(body);
            file.resize(file.len().next_multiple_of(4), 0);
            file.extend(len.to_le_bytes());
        };
        let mut section = 0x1a2b_3c4du32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        block(0x0a0d_0d0a, &section);
        block(1, &[1, 0, 0, 0, 0, 0, 4, 0]);
        let mut packet = [0u32, 0, 0, 61, 61].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        packet.extend([7; 61]);
        block(6, &packet);
        let corpus = Corpus::parse(&file).unwrap();
        assert_eq!(corpus.frame(0), Some(&[7; 61][..]));
        assert_eq!(corpus.frame(1), None);
    }

    proptest! {
        /// Whatever is in a file, it is frames or an error.
        #[test]
        fn no_file_makes_it_panic(
            ng in any::<bool>(),
            octets in proptest::collection::vec(any::<u8>(), 0..300),
            edits in proptest::collection::vec((0usize..300, any::<u8>()), 0..6),
        ) {
            let mut file = if ng {
                let mut file = vec![0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
                file.extend([0xff; 8]);
                file.extend([28, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 20, 0, 0, 0]);
                file
            } else {
                let mut file = 0xa1b2_3c4du32.to_le_bytes().to_vec();
                file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
                file
            };
            file.extend(octets);
            for (at, to) in edits {
                if let Some(octet) = file.get_mut(at) {
                    *octet = to;
                }
            }
            let _ = Corpus::parse(&file);
        }
    }
}
