//! A table of our own in the kernel's packet filter, with chains that translate addresses and a map from destinations to
//! destinations (`include/uapi/linux/netfilter/nf_tables.h`; nft(8) has the words).
//!
//! Everything is done by [`Batch`]es, each of which takes effect whole, between two packets, or not at all. No table is ever
//! named here but that of the [`Batch`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use api::Proto;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::nfnetlink::{Attributes, Line, Message, value, values};
use super::routes::Family;

/// Number of the subsystem (`NFNL_SUBSYS_NFTABLES`), and of its messages (`NFT_MSG_…`).
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const GET_GENERATION: u16 = 16;
/// Messages name their table by their first attribute, and what is in it by their second or third.
const TABLE: u16 = 1;
/// Lists are of these (`NFTA_LIST_ELEM`), values are wrapped in this (`NFTA_DATA_VALUE`).
const ITEM: u16 = 1;
const VALUE: u16 = 1;
/// `NFT_SET_MAP`.
const MAP: u32 = 8;
/// What `nft` calls the parts of keys and values, six bits each: it can print our map.
const TYPES: [[u32; 3]; 2] = [[7, 12, 13], [8, 12, 13]];
/// Elements a message: the length of an attribute has sixteen bits.
const CHUNK: usize = 256;

/// Where a chain of the `nat` type stands.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// What processes of the node send, before it goes anywhere (priority `dstnat`).
    Output,
    /// What is about to leave by an interface (priority `srcnat`).
    Postrouting,
}

impl Hook {
    /// Name of the chain there, number of the hook, and priority among others.
    fn parts(self) -> (&'static str, u32, i32) {
        match self {
            Self::Output => ("output", 3, -100),
            Self::Postrouting => ("postrouting", 4, 100),
        }
    }
}

/// A destination as a map has it: address, protocol and port, or address and port, each in words of four octets.
pub type Words = Vec<u8>;

/// The key of a destination.
pub fn key(address: IpAddr, proto: Proto, port: u16) -> Words {
    [&octets(address)[..], &[proto as u8, 0, 0, 0], &word(port)].concat()
}

/// The destination that it becomes.
pub fn target(address: IpAddr, port: u16) -> Words {
    [&octets(address)[..], &word(port)].concat()
}

fn word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Words of an address.
fn words(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// The family as the packet filter and the connection tracker number it.
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4 as u8,
        Family::V6 => libc::NFPROTO_IPV6 as u8,
    }
}

/// What a chain does with the first packet of a connection: steps, of which one that does not match ends the rule. A step
/// leaves its result in registers, words of four octets that are numbered from zero.
#[derive(Clone, Debug)]
pub struct Rule {
    family: Family,
    steps: Attributes,
}

impl Rule {
    /// A rule that does nothing yet.
    pub fn new(family: Family) -> Self {
        Self { family, steps: Attributes::default() }
    }

    fn step(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.steps.nest(ITEM, |step| {
            step.text(1, name).nest(2, fill);
        });
        self
    }

    /// It leaves by the interface of this number.
    #[must_use]
    pub fn leaves_by(self, interface: u32) -> Self {
        const OIF: u32 = 5;
        self.meta(OIF, 0).compare(0, true, &interface.to_ne_bytes())
    }

    /// Its destination was translated.
    #[must_use]
    pub fn destination_was_translated(self) -> Self {
        const STATUS: u32 = 2;
        // IPS_DST_NAT
        let bit = (1u32 << 5).to_ne_bytes();
        self.tracked(STATUS, None, 0)
            .step("bitwise", |bits| {
                bits.number(1, register(0)).number(2, register(0)).number(3, 4);
                bits.nest(4, |mask| _ = mask.octets(VALUE, &bit)).nest(5, |flip| _ = flip.octets(VALUE, &[0; 4]));
            })
            .compare(0, false, &[0; 4])
    }

    /// The map has its destination; what it becomes is in the registers that [`Self::translate_destination`] reads.
    #[must_use]
    pub fn destination_is_in(self, map: &str) -> Self {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        const L4PROTO: u32 = 16;
        let (words, offset) = (words(self.family), if self.family == Family::V4 { 16 } else { 24 });
        self.payload(NETWORK, offset, words * 4, 0).meta(L4PROTO, words).payload(TRANSPORT, 2, 2, words + 1).lookup(map)
    }

    /// The map has the destination that the connection had at first.
    #[must_use]
    pub fn first_destination_is_in(self, map: &str) -> Self {
        const PROTOCOL: u32 = 10;
        const PROTO_DST: u32 = 12;
        let (words, dst) = (words(self.family), if self.family == Family::V4 { 20 } else { 22 });
        self.tracked(dst, Some(0), 0)
            .tracked(PROTOCOL, Some(0), words)
            .tracked(PROTO_DST, Some(0), words + 1)
            .lookup(map)
    }

    /// Go to where the map said.
    #[must_use]
    pub fn translate_destination(self) -> Self {
        let (family, words) = (u32::from(number(self.family)), words(self.family));
        self.step("nat", |nat| {
            nat.number(1, 1).number(2, family).number(3, register(words + 2)).number(5, register(2 * words + 2));
        })
    }

    /// Come from this address, and from the same port unless that is taken.
    #[must_use]
    pub fn translate_source(self, address: IpAddr) -> Self {
        let family = u32::from(number(self.family));
        self.step("immediate", |load| {
            load.number(1, register(0)).nest(2, |data| _ = data.octets(VALUE, &octets(address)));
        })
        .step("nat", |nat| _ = nat.number(1, 0).number(2, family).number(3, register(0)))
    }

    fn meta(self, what: u32, to: u32) -> Self {
        self.step("meta", |meta| _ = meta.number(1, register(to)).number(2, what))
    }

    fn tracked(self, what: u32, direction: Option<u8>, to: u32) -> Self {
        self.step("ct", |tracked| {
            tracked.number(1, register(to)).number(2, what);
            if let Some(direction) = direction {
                tracked.octets(3, &[direction]);
            }
        })
    }

    fn payload(self, base: u32, offset: u32, len: u32, to: u32) -> Self {
        self.step("payload", |load| {
            load.number(1, register(to)).number(2, base).number(3, offset).number(4, len);
        })
    }

    fn compare(self, from: u32, equal: bool, octets: &[u8]) -> Self {
        self.step("cmp", |compare| {
            compare.number(1, register(from)).number(2, u32::from(!equal));
            compare.nest(3, |data| _ = data.octets(VALUE, octets));
        })
    }

    fn lookup(self, map: &str) -> Self {
        let words = words(self.family);
        self.step("lookup", |lookup| {
            lookup.text(1, map).number(2, register(0)).number(3, register(words + 2));
        })
    }
}

/// `NFT_REG32_00` and those behind it.
fn register(word: u32) -> u32 {
    8 + word
}

/// Changes of a table that take effect together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Message>,
}

impl Batch {
    /// Changes of the table of this name.
    pub fn of(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), messages: Vec::new() }
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let message = Message::new(SUBSYSTEM << 8 | kind, flags, number(self.family), |attributes| {
            fill(attributes.text(TABLE, &self.table));
        });
        self.messages.push(message);
        self
    }

    /// The table is there and empty, whatever there was of its name.
    pub fn begin_anew(&mut self) -> &mut Self {
        self.remove_table().push(NEW_TABLE, NLM_F_CREATE, |_| ())
    }

    /// No table of this name is there. (One that is not there cannot be deleted, but one that is there can be made.)
    pub fn remove_table(&mut self) -> &mut Self {
        self.push(NEW_TABLE, NLM_F_CREATE, |_| ()).push(DELETE_TABLE, 0, |_| ())
    }

    /// The table is its maker's alone, until the line by which it was made is closed: for tests of refusals.
    #[cfg(test)]
    pub(crate) fn own_table(&mut self) -> &mut Self {
        const NFT_TABLE_F_OWNER: u32 = 2;
        self.push(NEW_TABLE, NLM_F_CREATE, |table| _ = table.number(2, NFT_TABLE_F_OWNER))
    }

    /// A chain that translates addresses, with one rule.
    pub fn add_chain(&mut self, at: Hook, rule: &Rule) -> &mut Self {
        let (name, hook, priority) = at.parts();
        self.push(NEW_CHAIN, NLM_F_CREATE, |chain| {
            chain.text(3, name).nest(4, |place| _ = place.number(1, hook).number(2, priority as u32)).text(7, "nat");
        });
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |new| {
            new.text(2, name).nest(4, |list| _ = list.append(&rule.steps));
        })
    }

    /// A map from destinations with protocol to destinations.
    pub fn add_map(&mut self, name: &str) -> &mut Self {
        let [address, proto, port] = if self.family == Family::V4 { TYPES[0] } else { TYPES[1] };
        let words = words(self.family);
        self.push(NEW_SET, NLM_F_CREATE, |set| {
            set.text(2, name).number(3, MAP);
            set.number(4, address << 12 | proto << 6 | port).number(5, 4 * (words + 2));
            set.number(6, address << 6 | port).number(7, 4 * (words + 1));
            // Its number within the batch; rules name it.
            set.number(10, 1);
        })
    }

    /// Put elements into a map that has none of these keys.
    pub fn add_elements(&mut self, map: &str, elements: &[(&Words, &Words)]) -> &mut Self {
        for chunk in elements.chunks(CHUNK) {
            self.push(NEW_ELEMENT, NLM_F_CREATE, |list| {
                list.text(2, map).nest(3, |items| {
                    for (key, data) in chunk {
                        items.nest(ITEM, |item| {
                            item.nest(1, |wrapped| _ = wrapped.octets(VALUE, key));
                            item.nest(2, |wrapped| _ = wrapped.octets(VALUE, data));
                        });
                    }
                });
            });
        }
        self
    }

    /// Take elements out of a map that has them.
    pub fn remove_elements(&mut self, map: &str, keys: &[&Words]) -> &mut Self {
        for chunk in keys.chunks(CHUNK) {
            self.push(DELETE_ELEMENT, 0, |list| {
                list.text(2, map).nest(3, |items| {
                    for key in chunk {
                        items.nest(ITEM, |item| _ = item.nest(1, |wrapped| _ = wrapped.octets(VALUE, key)));
                    }
                });
            });
        }
        self
    }
}

/// A line to the packet filter.
pub struct Nftables {
    line: Line,
}

impl Nftables {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel has no packet filter, or the system no descriptor left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { line: Line::open()? })
    }

    /// Carry out a batch.
    ///
    /// # Errors
    /// What the kernel says; nothing is done then.
    pub fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        self.line.batch(SUBSYSTEM, &batch.messages)
    }

    /// Another number means that somebody has changed some table since.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        let message = Message::new(SUBSYSTEM << 8 | GET_GENERATION, 0, 0, |_| ());
        self.line.ask(&message, |answer| generation = value(answer, 1).and_then(<[u8]>::first_chunk).copied())?;
        generation.map(u32::from_be_bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// A table of this name is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_table(&mut self, family: Family, name: &str) -> io::Result<bool> {
        let message = Message::new(SUBSYSTEM << 8 | GET_TABLE, 0, number(family), |message| {
            message.text(TABLE, name);
        });
        unless_absent(self.line.ask(&message, |_| ())).map(|there| there.is_some())
    }

    /// Numbers of the rules of a table, by chain; none when there is no such table. A rule that is changed gets another.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rules(&mut self, family: Family, table: &str) -> io::Result<Vec<u64>> {
        let mut handles = Vec::new();
        let message = Message::new(SUBSYSTEM << 8 | GET_RULE, NLM_F_DUMP, number(family), |message| {
            message.text(TABLE, table);
        });
        let done = self.line.ask(&message, |rule| {
            handles.extend(value(rule, 3).and_then(<[u8]>::first_chunk).map(|octets| u64::from_be_bytes(*octets)));
        });
        unless_absent(done).map(|_| handles)
    }

    /// What a map has; nothing when there is no such map.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn elements(&mut self, family: Family, table: &str, map: &str) -> io::Result<BTreeMap<Words, Words>> {
        let mut elements = BTreeMap::new();
        let message = Message::new(SUBSYSTEM << 8 | GET_ELEMENT, NLM_F_DUMP, number(family), |message| {
            message.text(TABLE, table).text(2, map);
        });
        let done = self.line.ask(&message, |answer| {
            let items = value(answer, 3).unwrap_or_default();
            elements.extend(values(items).filter_map(|(_, item)| {
                let data = |kind| value(value(item, kind)?, VALUE).map(<[u8]>::to_vec);
                Some((data(1)?, data(2)?))
            }));
        });
        unless_absent(done).map(|_| elements)
    }
}

/// What was asked for may not be there.
fn unless_absent(done: io::Result<()>) -> io::Result<Option<()>> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        done => done.map(Some),
    }
}
