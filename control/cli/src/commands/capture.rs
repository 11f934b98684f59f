//! `capture`: frames of a port, to a pcap file or in a line each.
//!
//! The daemon sends what it sees until the connection is closed; what is counted, written and printed is decided here.
//! The file is pcap with nanoseconds (magic 0xa1b23c4d, draft-ietf-opsawg-pcap), link type Ethernet; each frame is
//! flushed, so that the reader of a pipe sees it at once. The direction of a frame has no place in it.

use std::fs::File;
use std::io::{self, Write};

use api::Request;
use api::reply::Frame;
use api::state::Captured;
use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};

use super::{CommandDef, words};
use crate::Failure;
use crate::options::{Format, Options, Segment};

pub(crate) const COMMAND: CommandDef =
    CommandDef { name: "capture", usage: "PORT [-w FILE] [-c N]", help: "frames that enter or leave by a port", run };

fn run(options: &Options, segment: &Segment) -> Result<u8, Failure> {
    let [port] = words(&COMMAND, segment, 1)? else {
        return Err(Failure::Usage("capture: which port?".to_owned()));
    };
    let failed = |why: String| Failure::Refused(format!("capture: {why}"));
    let mut client = options.connect()?;
    client.ask(&Request::Capture { port: port.clone() })?;
    let mut out: Box<dyn Write> = match &segment.write {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::create(path).map_err(|e| failed(format!("{}: {}", path.display(), api::reason(&e))))?;
            Box::new(io::BufWriter::new(file))
        }
        _ => Box::new(io::stdout()),
    };
    if segment.write.is_some() {
        out.write_all(&file_header())?;
        out.flush()?;
    }
    let mut left = segment.count.unwrap_or(u64::MAX);
    while left > 0 {
        let notice = client.notice().map_err(|e| failed(e.to_string()))?;
        let params = notice.params.into_iter().next().filter(|_| notice.method == "frame").unwrap_or_default();
        let frame: Frame = serde_json::from_value(params.clone()).map_err(|e| failed(e.to_string()))?;
        let captured = frame.captured().ok_or_else(|| failed("a frame that is none".to_owned()))?;
        match (&segment.write, options.format) {
            (Some(_), _) => out.write_all(&record(&captured))?,
            (None, Format::Json) => writeln!(out, "{params}")?,
            (None, Format::Table) => writeln!(out, "{}", line(&captured))?,
        }
        out.flush()?;
        left -= 1;
    }
    Ok(0)
}

/// Octets of a frame that a record holds at most.
const SNAPLEN: u32 = 262_144;

fn file_header() -> Vec<u8> {
    const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
    const LINKTYPE_ETHERNET: u32 = 1;
    let mut header = MAGIC_NANOSECONDS.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0]); // version 2.4
    header.extend([0; 8]); // time zone and accuracy: always zero
    header.extend(SNAPLEN.to_le_bytes());
    header.extend(LINKTYPE_ETHERNET.to_le_bytes());
    header
}

fn record(frame: &Captured) -> Vec<u8> {
    let bytes = &frame.bytes[..frame.bytes.len().min(SNAPLEN as usize)];
    let fields = [frame.time / 1_000_000_000, frame.time % 1_000_000_000, bytes.len() as u64, frame.len.into()];
    let mut record: Vec<u8> = fields.iter().flat_map(|&field| (field as u32).to_le_bytes()).collect();
    record.extend(bytes);
    record
}

/// Time of day (UTC), direction, length, addresses, what it is.
fn line(frame: &Captured) -> String {
    let (second, nanos) = (frame.time / 1_000_000_000 % 86_400, frame.time % 1_000_000_000);
    let time = format!("{:02}:{:02}:{:02}.{:06}", second / 3600, second / 60 % 60, second % 60, nanos / 1000);
    let direction = if frame.ingress { "rx" } else { "tx" };
    format!("{time} {direction} {:>5}  {}", frame.len, summary(&frame.bytes))
}

fn summary(bytes: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else { return "shorter than an Ethernet header".to_owned() };
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return String::new() };
    let mac = |address: [u8; 6]| api::MacAddr(address);
    let mut text = format!("{} > {}", mac(ethernet.source()), mac(ethernet.destination()));
    for vlan in packet.vlan_ids() {
        text += &format!(" vlan {}", vlan.value());
    }
    let (source, destination) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (format!("[{}]", header.source_addr()), format!("[{}]", header.destination_addr()))
        }
        Some(LaxNetSlice::Arp(arp)) => {
            return text
                + &format!(
                    " ARP {} {} > {}",
                    arp.operation().0,
                    ipv4(arp.sender_protocol_addr()),
                    ipv4(arp.target_protocol_addr())
                );
        }
        None => return text + &format!(" type 0x{:04x}", ethernet.ether_type().0),
    };
    let (protocol, ports) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => ("TCP", Some((tcp.source_port(), tcp.destination_port()))),
        Some(TransportSlice::Udp(udp)) => ("UDP", Some((udp.source_port(), udp.destination_port()))),
        Some(TransportSlice::Icmpv4(_)) => ("ICMP", None),
        Some(TransportSlice::Icmpv6(_)) => ("ICMPv6", None),
        Some(TransportSlice::Igmp(_)) => ("IGMP", None),
        None => ("IP", None),
    };
    text + &match ports {
        Some((from, to)) => format!(" {protocol} {source}:{from} > {destination}:{to}"),
        None => format!(" {protocol} {source} > {destination}"),
    }
}

fn ipv4(octets: &[u8]) -> String {
    octets.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> Vec<u8> {
        let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1000, 53);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"hello").unwrap();
        bytes
    }

    #[test]
    fn a_frame_is_told_in_one_line() {
        let bytes = udp();
        let frame = Captured { time: 1_700_000_000_123_456_789, ingress: true, len: 47, bytes };
        assert_eq!(
            line(&frame),
            "22:13:20.123456 rx    47  02:00:00:00:00:01 > 02:00:00:00:00:02 UDP 10.0.0.1:1000 > 10.0.0.2:53"
        );
    }

    #[test]
    fn any_octets_can_be_told() {
        let whole = udp();
        for n in 0..whole.len() {
            assert!(!summary(&whole[..n]).contains('\n'));
        }
        assert_eq!(summary(&[0xff; 60]), "ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff type 0xffff");
    }

    #[test]
    fn a_record_has_time_lengths_and_octets() {
        let frame = Captured { time: 5_000_000_007, ingress: false, len: 100, bytes: vec![1, 2, 3] };
        assert_eq!(record(&frame), [5, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 100, 0, 0, 0, 1, 2, 3]);
        assert_eq!(file_header().len(), 24);
    }
}
