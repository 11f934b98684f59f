//! Work that a sender's kernel left to the device: unfinished checksums and segmentation.
//!
//! The fields are those of `struct virtio_net_hdr` (Virtual I/O Device 1.2, 5.1.6), which is what TAP devices speak.
//! Offsets count from the first octet of the Ethernet header.

/// What is left to be done on a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// [`Self::NEEDS_CSUM`], [`Self::DATA_VALID`].
    pub flags: u8,
    /// [`Self::GSO_NONE`], [`Self::GSO_TCPV4`], [`Self::GSO_TCPV6`], [`Self::GSO_UDP_L4`], with [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// Octets of all headers, a hint of the sender's kernel.
    pub hdr_len: u16,
    /// Payload octets of each segment.
    pub gso_size: u16,
    /// Where the checksummed region starts.
    pub csum_start: u16,
    /// Where, from `csum_start`, the checksum goes.
    pub csum_offset: u16,
}

impl Offload {
    /// Nothing is left to be done, and nothing is known of the checksums.
    pub const NONE: Self = Self { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
    /// `flags`: the checksum at `csum_start + csum_offset` holds the sum of the pseudo header and is to be finished.
    pub const NEEDS_CSUM: u8 = 1;
    /// `flags`: the checksums were verified.
    pub const DATA_VALID: u8 = 2;
    /// `gso_type`: one frame.
    pub const GSO_NONE: u8 = 0;
    /// `gso_type`: TCP over IPv4, to be cut.
    pub const GSO_TCPV4: u8 = 1;
    /// `gso_type`: TCP over IPv6, to be cut.
    pub const GSO_TCPV6: u8 = 4;
    /// `gso_type`: UDP, to be cut into datagrams.
    pub const GSO_UDP_L4: u8 = 5;
    /// `gso_type`, added: the TCP flags have ECN's CWR.
    pub const GSO_ECN: u8 = 0x80;

    /// Nothing is left to be done.
    pub fn is_none(self) -> bool {
        self.flags == 0 && self.gso_type == Self::GSO_NONE && self.gso_size == 0
    }

    /// The checksum is to be finished.
    pub fn needs_csum(self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// The frame is to be cut.
    pub fn is_gso(self) -> bool {
        self.gso_type & !Self::GSO_ECN != Self::GSO_NONE
    }

    /// The same work after `n` octets were put in front (`n < 0`: cut off) of what it points to.
    #[must_use]
    pub fn shifted(self, n: i16) -> Self {
        if self.is_none() {
            return self;
        }
        let shift = |at: u16| at.saturating_add_signed(n);
        let csum_start = if self.needs_csum() { shift(self.csum_start) } else { self.csum_start };
        Self { hdr_len: if self.hdr_len == 0 { 0 } else { shift(self.hdr_len) }, csum_start, ..self }
    }
}
