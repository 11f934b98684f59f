//! The kernel's connection tracker, as far as it remembers what a UDP flow was decided by
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::io;
use std::net::{IpAddr, SocketAddr};

use api::Proto;
use netlink_packet_core::NLM_F_DUMP;

use super::nfnetlink::{Line, Message, value};
use super::nftables::number;
use super::routes::Family;

/// Number of the subsystem (`NFNL_SUBSYS_CTNETLINK`), and of its messages (`IPCTNL_MSG_CT_…`).
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ZONE`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO`; within the latter, number and ports.
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const NUMBER: u16 = 1;
const SRC_PORT: u16 = 2;
const DST_PORT: u16 = 3;

/// A line to the connection tracker.
pub struct Conntrack {
    line: Line,
}

impl Conntrack {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { line: Line::open()? })
    }

    /// Forget the UDP flows of which `doomed` holds, told where they were sent at first and who answers them: their next
    /// datagram is a first one. Returns how many.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_udp(&mut self, family: Family, doomed: impl Fn(SocketAddr, SocketAddr) -> bool) -> io::Result<usize> {
        let mut found = Vec::new();
        let list = Message::new(SUBSYSTEM << 8 | GET, NLM_F_DUMP, number(family), |_| ());
        self.line.ask(&list, |flow| {
            let (Some(original), Some(reply)) = (value(flow, ORIGINAL), value(flow, REPLY)) else { return };
            let (to, by) = (end(original, family, DST_PORT), end(reply, family, SRC_PORT));
            if let (Some(to), Some(by)) = (to, by)
                && doomed(to, by)
            {
                let zone = value(flow, ZONE).map(<[u8]>::to_vec);
                found.push((original.to_vec(), zone));
            }
        })?;
        for (original, zone) in &found {
            let message = Message::new(SUBSYSTEM << 8 | DELETE, 0, number(family), |flow| {
                flow.nested(ORIGINAL, original);
                if let Some(zone) = zone {
                    flow.octets(ZONE, zone);
                }
            });
            match self.line.ask(&message, |_| ()) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                done => done?,
            }
        }
        Ok(found.len())
    }
}

/// An end of a UDP flow: the address and port that go with this kind of port.
fn end(tuple: &[u8], family: Family, port: u16) -> Option<SocketAddr> {
    let (addresses, ports) = (value(tuple, ADDRESSES)?, value(tuple, PORTS)?);
    if *value(ports, NUMBER)? != [Proto::Udp as u8] {
        return None;
    }
    // CTA_IP_V4_SRC and _DST, CTA_IP_V6_SRC and _DST.
    let address = port - SRC_PORT + if family == Family::V4 { 1 } else { 3 };
    let octets = value(addresses, address)?;
    let address = match family {
        Family::V4 => IpAddr::from(*octets.first_chunk::<4>()?),
        Family::V6 => IpAddr::from(*octets.first_chunk::<16>()?),
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(*value(ports, port)?.first_chunk()?)))
}
