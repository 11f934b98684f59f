//! Requests to the kernel's packet filter and connection tracker: nfnetlink, which netlink(7) carries
//! (`include/uapi/linux/netfilter/nfnetlink.h`).
//!
//! The encoder is our own, since of the crates that speak nf_tables over netlink one is under the GPL (rustables), one needs
//! a C library (nftnl), one executes `nft` (nftables), and netlink-packet-netfilter 0.4 has neither `nat` nor `ct`
//! expressions, which are all that we are here for. Answers are read with `netlink-packet-core`.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Of `NLM_F_ACK` and so on: the length of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const NLA_F_NESTED: u16 = 1 << 15;
/// Begin and end of what is done whole or not at all.
const BATCH: [u16; 2] = [16, 17];
/// A batch is one datagram, and the kernel charges more than its octets for it: room for a hundred thousand elements.
const SEND_BUFFER: usize = 32 << 20;
/// The kernel answers before `send` returns, or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// Attributes one behind the other, each padded to four octets.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn octets(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (value.len() + 4) as u16;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Text, which ends with a zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.octets(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number, in network order like all of nfnetlink's.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.octets(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inside = Self::default();
        fill(&mut inside);
        self.nested(kind, &inside.0)
    }

    /// Attributes as the kernel itself sent them.
    pub(super) fn nested(&mut self, kind: u16, inside: &[u8]) -> &mut Self {
        self.octets(kind | NLA_F_NESTED, inside)
    }

    pub(super) fn append(&mut self, more: &Self) -> &mut Self {
        self.0.extend(&more.0);
        self
    }
}

/// A request of a subsystem: `kind` is its number in the upper octet and the message's in the lower.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    family: u8,
    /// Of a batch, the subsystem; else 0.
    resource: u16,
    attributes: Attributes,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u16, family: u8, fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        Self { kind, flags, family, resource: 0, attributes }
    }

    fn write(&self, flags: u16, sequence: u32, into: &mut Vec<u8>) {
        let len = (HEADER + GENERIC + self.attributes.0.len()) as u32;
        into.extend(len.to_ne_bytes());
        into.extend(self.kind.to_ne_bytes());
        into.extend((NLM_F_REQUEST | self.flags | flags).to_ne_bytes());
        into.extend(sequence.to_ne_bytes());
        // The kernel knows who we are.
        into.extend([0; 4]);
        into.extend([self.family, 0]);
        into.extend(self.resource.to_be_bytes());
        into.extend(&self.attributes.0);
    }
}

/// A line to the packet filter and the connection tracker of a namespace.
pub(super) struct Line {
    socket: Socket,
    /// Of the last request; answers to earlier ones, which nobody waited for, are passed over.
    sequence: u32,
}

impl Line {
    /// Of the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals need not repeat a batch of megabytes.
        socket.set_cap_ack(true)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        // Without the privilege everything that follows is refused, and that says more.
        let _ = set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
        Ok(Self { socket, sequence: 0 })
    }

    /// Ask, and look at the attributes of each answer.
    pub(super) fn ask(&mut self, message: &Message, each: impl FnMut(&[u8])) -> io::Result<()> {
        // A list says itself where it ends.
        let flags = if message.flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        self.send(|sequence, datagram| message.write(flags, sequence, datagram))?;
        self.answers(each)
    }

    /// Have all of it done, or nothing: in one step, as far as any packet can tell.
    pub(super) fn batch(&mut self, subsystem: u16, messages: &[Message]) -> io::Result<()> {
        let Some((last, others)) = messages.split_last() else { return Ok(()) };
        let [begin, end] = BATCH.map(|kind| {
            let mut message = Message::new(kind, 0, 0, |_| ());
            message.resource = subsystem;
            message
        });
        self.send(|sequence, datagram| {
            // All bear one number: the first refusal is the answer, else that the last was done.
            begin.write(0, sequence, datagram);
            others.iter().for_each(|message| message.write(0, sequence, datagram));
            last.write(NLM_F_ACK, sequence, datagram);
            end.write(0, sequence, datagram);
        })?;
        self.answers(|_| ())
    }

    fn send(&mut self, write: impl FnOnce(u32, &mut Vec<u8>)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        write(self.sequence, &mut datagram);
        self.socket.send(&datagram, 0).map(|_| ())
    }

    fn answers(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                if answer.sequence_number() == self.sequence {
                    match answer.message_type() {
                        NLMSG_ERROR | NLMSG_DONE => return done(answer.payload()),
                        _ => each(answer.payload().get(GENERIC..).unwrap_or_default()),
                    }
                }
                let len = (answer.length() as usize).next_multiple_of(4);
                rest = rest.get(len..).unwrap_or_default();
            }
        }
    }
}

/// What the end of an answer says: zero, or the negative number of an error.
fn done(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|octets| i32::from_ne_bytes(*octets)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The value of the first attribute of this kind.
pub(super) fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    values(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Attributes with their kinds, up to the first that is cut short.
pub(super) fn values(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(4..end).unwrap_or_default())
    })
}
