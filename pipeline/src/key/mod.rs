//! What makes a flow: every fact of a frame that a decision may look at, packed to whole words.
//!
//! The words are ordered by how often they are asked for, so that a key of a smaller class is a prefix of a larger one:
//!
//! ```text
//!   octet  0        2      4         10        16        18    19    20       24       28      30      32
//!          in_port  vlan   dl_dst    dl_src    dl_type   proto frag  nw_src   nw_dst   tp_src  tp_dst      class V4
//!   32..48 ipv6_src   48..64 ipv6_dst                                                                      class V6
//!   64..256 everything else that Open vSwitch can match on, see `Field`                                    class Wide
//! ```
//!
//! Every ingress port has a [`KeyMask`]: the union of the fields that any stage may look at for its frames. The class
//! of a port's keys follows from its mask. A stage is given the masked key and nothing else of the frame's headers, so
//! a decision cannot depend on a field that the cache does not compare.

mod typed;

/// Words of the largest key.
pub const WORDS: usize = 32;
const OCTETS: usize = WORDS * 8;

/// A frame's facts, or a mask over them. Octet offsets are those of [`Field`]; octets are in wire order, except
/// `in_port` and `vlan`, which are native words.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct FlowKey {
    /// All words, facts that the frame has not are zero.
    pub words: [u64; WORDS],
}

/// Which bits of a [`FlowKey`] count.
pub type KeyMask = FlowKey;

/// How many words of a key are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 4 words: Ethernet, VLAN, and IPv4 or ARP with ports.
    V4,
    /// 8 words: IPv6 addresses too.
    V6,
    /// 32 words.
    Wide,
}

impl Class {
    /// Words that count.
    pub const fn words(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 8,
            Self::Wide => WORDS,
        }
    }
}

/// In `vlan`: the frame has a tag. The low 12 bits are its VLAN id.
pub const VLAN_TAGGED: u16 = 0x1000;
/// In `frag`: the frame is a fragment.
pub const FRAG_ANY: u8 = 1;
/// In `frag`: it is not the first one.
pub const FRAG_LATER: u8 = 2;

/// One fact: its place in the key, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First octet.
    pub at: usize,
    /// Octets.
    pub len: usize,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $at:literal, $len:literal;)*) => {
        impl Field {
            $($(#[$doc])* pub const $name: Self = Self { at: $at, len: $len };)*
            /// Every field, by name, in order of its place.
            pub const ALL: &'static [(&'static str, Self)] = &[$((stringify!($name), Self::$name)),*];
        }
    };
}

fields! {
    /// Ingress port ([`api::PortId`], native word).
    IN_PORT: 0, 2;
    /// Outer VLAN: [`VLAN_TAGGED`] and id (native word), 0 without a tag.
    VLAN: 2, 2;
    /// Ethernet destination.
    ETH_DST: 4, 6;
    /// Ethernet source.
    ETH_SRC: 10, 6;
    /// Ethernet type behind the tags; 0x05ff for 802.3 frames with a length, as in OVS.
    ETH_TYPE: 16, 2;
    /// IP protocol (behind IPv6 extension headers); low octet of the ARP opcode.
    IP_PROTO: 18, 1;
    /// [`FRAG_ANY`], [`FRAG_LATER`].
    IP_FRAG: 19, 1;
    /// IPv4 source; ARP sender protocol address.
    IPV4_SRC: 20, 4;
    /// IPv4 destination; ARP target protocol address.
    IPV4_DST: 24, 4;
    /// TCP, UDP or SCTP source port. ICMP: the type in the second octet, and of an echo request or reply the high octet
    /// of its identifier in the first, else zero. Zero in later fragments.
    TP_SRC: 28, 2;
    /// TCP, UDP or SCTP destination port. ICMP: the code in the second octet, and of an echo request or reply the low
    /// octet of its identifier in the first, else zero. Zero in later fragments.
    TP_DST: 30, 2;
    /// IPv6 source.
    IPV6_SRC: 32, 16;
    /// IPv6 destination.
    IPV6_DST: 48, 16;
    /// Priority and drop-eligible bits of the outer tag: the high octet of its TCI, low nibble clear.
    VLAN_PCP: 64, 1;
    /// Tag protocol of the outer tag is 802.1ad.
    VLAN_SERVICE: 65, 1;
    /// Inner VLAN as in [`Self::VLAN`], with its priority bits on top.
    VLAN_INNER: 66, 2;
    /// IPv4 type of service, IPv6 traffic class.
    IP_TOS: 68, 1;
    /// Time to live, hop limit.
    IP_TTL: 69, 1;
    /// TCP flags with the reserved bits: the 12 bits behind the data offset.
    TCP_FLAGS: 70, 2;
    /// IPv6 flow label, 20 bits.
    IPV6_LABEL: 72, 4;
    /// ARP opcode, both octets.
    ARP_OP: 76, 2;
    /// Type of frame if not Ethernet (`packet_type`).
    PACKET_TYPE: 78, 2;
    /// ARP sender hardware address; ND source link-layer address.
    ARP_SHA: 80, 6;
    /// ARP target hardware address; ND target link-layer address.
    ARP_THA: 86, 6;
    /// Mark put on the frame by an earlier pass or the host (`pkt_mark`).
    PKT_MARK: 92, 4;
    /// ND target.
    ND_TARGET: 96, 16;
    /// The first three MPLS label stack entries.
    MPLS: 112, 12;
    /// Number of the pass (`recirc_id`).
    RECIRC_ID: 124, 4;
    /// Tunnel: key (VNI).
    TUN_ID: 128, 8;
    /// Tunnel: outer source, IPv4 in the last four octets.
    TUN_SRC: 136, 16;
    /// Tunnel: outer destination.
    TUN_DST: 152, 16;
    /// Tunnel: flags.
    TUN_FLAGS: 168, 2;
    /// Tunnel: type of service.
    TUN_TOS: 170, 1;
    /// Tunnel: time to live.
    TUN_TTL: 171, 1;
    /// Hash of the options that came with the tunnel header; the options themselves are with the walk.
    TUN_METADATA: 172, 4;
    /// Connection: state bits.
    CT_STATE: 176, 4;
    /// Connection: mark.
    CT_MARK: 180, 4;
    /// Connection: label.
    CT_LABEL: 184, 16;
    /// Connection: source of its first packet, IPv4 in the last four octets.
    CT_SRC: 200, 16;
    /// Connection: destination of its first packet.
    CT_DST: 216, 16;
    /// Connection: ports of its first packet.
    CT_TP_SRC: 232, 2;
    /// Connection: ports of its first packet.
    CT_TP_DST: 234, 2;
    /// Connection: zone.
    CT_ZONE: 236, 2;
    /// Connection: protocol of its first packet.
    CT_PROTO: 238, 1;
    /// Network service header: hash of the header, which itself is with the walk.
    NSH: 240, 4;
    /// Flow hash that operators select by (`dp_hash`).
    DP_HASH: 244, 4;
    /// Operator metadata carried from an earlier pass.
    METADATA: 248, 8;
}

impl Default for FlowKey {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl FlowKey {
    /// All zero: no fact; as a mask, nothing counts.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The mask in which exactly `fields` count.
    #[expect(clippy::indexing_slicing, reason = "evaluated at compile time; a test calls it with every field")]
    pub const fn mask(fields: &[Field]) -> Self {
        let mut bytes = [0; OCTETS];
        let mut i = 0;
        while i < fields.len() {
            let mut at = fields[i].at;
            while at < fields[i].at + fields[i].len {
                bytes[at] = 0xff;
                at += 1;
            }
            i += 1;
        }
        Self::from_bytes(&bytes)
    }

    #[expect(clippy::indexing_slicing, reason = "the bounds are those of the loops")]
    const fn from_bytes(bytes: &[u8; OCTETS]) -> Self {
        let mut words = [0; WORDS];
        let mut i = 0;
        while i < WORDS {
            let mut word = [0; 8];
            let mut j = 0;
            while j < 8 {
                word[j] = bytes[i * 8 + j];
                j += 1;
            }
            words[i] = u64::from_ne_bytes(word);
            i += 1;
        }
        Self { words }
    }

    /// The key of which these are the first words; the others are zero.
    #[inline]
    pub fn of_words<const N: usize>(words: &[u64; N]) -> Self {
        let mut key = Self::EMPTY;
        key.words.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        key
    }

    /// What counts in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        self
    }

    /// The facts that count.
    #[must_use]
    pub fn masked(mut self, mask: &Self) -> Self {
        self.words.iter_mut().zip(&mask.words).for_each(|(a, b)| *a &= b);
        self
    }

    /// As a mask: the smallest class in which nothing that counts is cut off.
    pub fn class(&self) -> Class {
        let used = |from: usize| self.words.iter().skip(from).any(|&word| word != 0);
        if used(Class::V6.words()) {
            Class::Wide
        } else if used(Class::V4.words()) {
            Class::V6
        } else {
            Class::V4
        }
    }

    /// The octets of a fact.
    #[inline]
    pub fn get<const N: usize>(&self, field: Field) -> [u8; N] {
        debug_assert_eq!(field.len, N);
        let mut bytes = [0; N];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = field.at + i;
            let word = self.words.get(at / 8).copied().unwrap_or(0).to_ne_bytes();
            *byte = word.get(at % 8).copied().unwrap_or(0);
        }
        bytes
    }

    /// Set a fact.
    #[inline]
    pub fn set<const N: usize>(&mut self, field: Field, bytes: [u8; N]) {
        debug_assert_eq!(field.len, N);
        for (i, byte) in bytes.into_iter().enumerate() {
            let at = field.at + i;
            if let Some(word) = self.words.get_mut(at / 8) {
                let mut octets = word.to_ne_bytes();
                if let Some(octet) = octets.get_mut(at % 8) {
                    *octet = byte;
                }
                *word = u64::from_ne_bytes(octets);
            }
        }
    }
}

impl std::fmt::Debug for FlowKey {
    /// The facts that are not zero, by name, in hexadecimal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut map = f.debug_map();
        for (name, field) in Field::ALL {
            let octets = self.words.iter().flat_map(|word| word.to_ne_bytes());
            let bytes: Vec<u8> = octets.skip(field.at).take(field.len).collect();
            if bytes.iter().any(|&b| b != 0) {
                let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                map.entry(name, &format_args!("{hex}"));
            }
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use api::{MacAddr, PortId};

    use super::*;

    #[test]
    fn fields_are_in_order_and_do_not_overlap() {
        let mut end = 0;
        for (name, field) in Field::ALL {
            assert!(field.at >= end, "{name} overlaps its neighbour");
            end = field.at + field.len;
        }
        assert!(end <= OCTETS);
    }

    #[test]
    fn the_class_of_a_mask_cuts_off_nothing() {
        assert_eq!(FlowKey::mask(&[Field::IN_PORT, Field::ETH_DST]).class(), Class::V4);
        assert_eq!(FlowKey::mask(&[Field::TP_DST]).class(), Class::V4);
        assert_eq!(FlowKey::mask(&[Field::IPV6_SRC]).class(), Class::V6);
        assert_eq!(FlowKey::mask(&[Field::TP_DST, Field::IP_TTL]).class(), Class::Wide);
        for (name, field) in Field::ALL {
            let mask = FlowKey::mask(&[*field]);
            let prefix = mask.words.iter().take(mask.class().words()).filter(|&&w| w != 0).count();
            assert_eq!(prefix, mask.words.iter().filter(|&&w| w != 0).count(), "{name}");
        }
    }

    #[test]
    fn a_fact_is_read_as_it_was_set() {
        let mut key = FlowKey::EMPTY;
        key.set(Field::ETH_SRC, [2, 0, 0, 0, 0, 9]);
        key.set(Field::IN_PORT, 7u16.to_ne_bytes());
        assert_eq!((key.eth_src(), key.in_port()), (MacAddr([2, 0, 0, 0, 0, 9]), PortId(7)));
        assert_eq!(key.masked(&FlowKey::mask(&[Field::ETH_DST])), FlowKey::EMPTY);
    }
}
