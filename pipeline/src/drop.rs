//! Why a frame was dropped: one enum, one table.
//!
//! A reason says what was wrong with the frame, or what was lacking for it, not where that was noticed. Every dropped
//! frame is counted under one reason on the port where it came in.

/// Why a frame was dropped. The names are what `drops` prints and scripts match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    // Malformed: the frame lies about itself.
    /// Shorter than an Ethernet header.
    EthTruncated,
    /// Longer than any frame can be, or than the port's frame memory holds.
    FrameOversized,
    /// Source address with the group bit set.
    EthSourceGroup,
    /// An 802.1Q tag without its four octets.
    VlanTruncated,
    /// More than two 802.1Q tags in front of another.
    VlanTooDeep,
    /// ARP shorter than its header says, or not for IPv4 over Ethernet.
    ArpMalformed,
    /// Shorter than the IPv4 header.
    Ipv4Truncated,
    /// IPv4 version field is not 4.
    Ipv4Version,
    /// Header length below 20 octets or beyond the packet.
    Ipv4HeaderLength,
    /// Total length below the header length or beyond the frame.
    Ipv4TotalLength,
    /// A fragment that would end beyond 65,535 octets, or whose length is not a multiple of eight.
    Ipv4Fragment,
    /// Shorter than the IPv6 header.
    Ipv6Truncated,
    /// IPv6 version field is not 6.
    Ipv6Version,
    /// Payload length beyond the frame.
    Ipv6PayloadLength,
    /// An extension header beyond the packet, in a forbidden place, or too many of them.
    Ipv6Extension,
    /// A fragment that would end beyond 65,535 octets, or whose length is not a multiple of eight.
    Ipv6Fragment,
    /// Shorter than the TCP header.
    TcpTruncated,
    /// Data offset below five words or beyond the packet.
    TcpDataOffset,
    /// Shorter than the UDP header.
    UdpTruncated,
    /// UDP length below eight octets or beyond the packet.
    UdpLength,
    /// Shorter than the SCTP common header.
    SctpTruncated,
    /// Shorter than the ICMP header.
    IcmpTruncated,
    /// Shorter than the ICMPv6 header.
    Icmpv6Truncated,
    /// A segmentation or checksum request that does not fit the frame.
    OffloadMalformed,

    // Refused: the frame is sound, but not welcome.
    /// A tag on an access port, or a VLAN that the port is no member of.
    VlanNotMember,
    /// 01:80:c2:00:00:00 to :0f, which bridges keep to themselves (IEEE 802.1Q, 8.6.3).
    LinkLocal,
    /// The only port to send to is the one where the frame came in.
    Reflection,
    /// No port to send to.
    NoPort,
    /// The port is no member of a bridge.
    NoBridge,
    /// Larger than the out port's MTU.
    ExceedsMtu,
    /// The hop limit ran out here.
    TtlExceeded,
    /// The destination's prefix belongs to this node, and nobody here has the address.
    NoEndpoint,
    /// No route to the destination, or one that says it is unreachable.
    NoRoute,
    /// The next hop did not say where it is.
    NoNeighbor,
    /// The route says that such packets are dropped.
    Blackhole,
    /// For the router, but not IP, or from or to an address that is not routed (group, loopback, link-local).
    NotRoutable,
    /// ARP or neighbour discovery in the name of an address that is known to be elsewhere.
    AddressNotOwned,
    /// ARP or neighbour solicitation for an address that is behind the port it came in by.
    ArpOwnPort,
    /// Neighbour discovery that RFC 4861, 7.1 has discarded: hop limit below 255, code, length, options.
    NdMalformed,
    /// Router discovery or redirect (RFC 4861, 4.1, 4.2, 4.5) on a bridge whose router is this switch.
    NdRouter,
    /// The first fragment of a datagram does not hold the whole transport header (RFC 1858, RFC 7112).
    FragmentShort,
    /// Fragments of a datagram overlap, or disagree on where it ends (RFC 5722).
    FragmentOverlap,
    /// Fragments make a datagram of more than 65,535 octets.
    FragmentOversized,
    /// A datagram in more fragments than are put up with.
    FragmentExcess,
    /// A fragment of a neighbour discovery message (RFC 6980).
    FragmentNeighbor,
    /// An answer (TCP RST, ICMP echo reply, ICMP error) to nothing that is known, where it would have to be translated.
    Invalid,
    /// The service has no backend.
    NoBackend,
    /// The address is a service's, but nothing of this protocol and port.
    NoServicePort,
    /// The address lies in a range of service addresses, but no service has it.
    UnknownService,
    /// The service lets only some addresses in (`spec.loadBalancerSourceRanges`), and this is none of them.
    SourceRange,
    /// The traffic policy of the service keeps to endpoints of this node, and it has some on other nodes only.
    NoLocalEndpoint,
    /// To be masqueraded, but the node has no address of this IP version.
    NoNodeAddress,
    /// From an Ethernet or IP address that is not of the pod whose port it came in by, ARP and ND included.
    Spoofed,
    /// From or to a pod whose policies are not known yet.
    Isolated,
    /// To an address that the pod behind the out port has not.
    NotAddressed,
    /// The policies of the source pod do not let it out.
    PolicyEgress,
    /// The policies of the destination pod do not let it in.
    PolicyIngress,
    /// A rule of an access list drops or rejects it.
    Acl,

    // Lacking: something ran out.
    /// The connection table, or the in port's share of it, is full.
    ConnectionsFull,
    /// No source port is free for a masqueraded connection.
    SnatPorts,
    /// The in port had used up its share of answers.
    ReplyLimit,
    /// The out port was full.
    TxFull,
    /// More frames wait for the out port's pod than its bandwidth lets through soon.
    OverRate,
    /// The out port is down or gone.
    TxDown,
    /// The out port's device refused the frame.
    TxError,
    /// The frame pool was empty.
    NoFrame,
    /// The in port had used up its share of first packets.
    MissOverload,
    /// The walk visited more stages than it may.
    WalkTooLong,
    /// The other fragments of its datagram did not come in time.
    FragmentTimeout,
    /// The in port has more fragments under way than it may.
    FragmentOverload,
    /// The next hop did not say its Ethernet address.
    NeighborUnresolved,
    /// More frames wait for an Ethernet address than may.
    NeighborOverload,
}

impl DropReason {
    /// All reasons, in order of their numbers: name, and a sentence for people.
    pub const ALL: [(Self, &'static str, &'static str); 72] = [
        (Self::EthTruncated, "eth-truncated", "shorter than an Ethernet header"),
        (Self::FrameOversized, "frame-oversized", "longer than any frame can be"),
        (Self::EthSourceGroup, "eth-source-group", "source address is a group address"),
        (Self::VlanTruncated, "vlan-truncated", "an 802.1Q tag without its four octets"),
        (Self::VlanTooDeep, "vlan-too-deep", "more than two 802.1Q tags"),
        (Self::ArpMalformed, "arp-malformed", "ARP is truncated or not for IPv4 over Ethernet"),
        (Self::Ipv4Truncated, "ipv4-truncated", "shorter than an IPv4 header"),
        (Self::Ipv4Version, "ipv4-version", "IPv4 version field is not 4"),
        (Self::Ipv4HeaderLength, "ipv4-header-length", "IPv4 header length is impossible"),
        (Self::Ipv4TotalLength, "ipv4-total-length", "IPv4 total length is impossible"),
        (Self::Ipv4Fragment, "ipv4-fragment", "IPv4 fragment offset or length is impossible"),
        (Self::Ipv6Truncated, "ipv6-truncated", "shorter than an IPv6 header"),
        (Self::Ipv6Version, "ipv6-version", "IPv6 version field is not 6"),
        (Self::Ipv6PayloadLength, "ipv6-payload-length", "IPv6 payload length is beyond the frame"),
        (Self::Ipv6Extension, "ipv6-extension", "IPv6 extension headers are truncated, misplaced or too many"),
        (Self::Ipv6Fragment, "ipv6-fragment", "IPv6 fragment offset or length is impossible"),
        (Self::TcpTruncated, "tcp-truncated", "shorter than a TCP header"),
        (Self::TcpDataOffset, "tcp-data-offset", "TCP data offset is impossible"),
        (Self::UdpTruncated, "udp-truncated", "shorter than a UDP header"),
        (Self::UdpLength, "udp-length", "UDP length is impossible"),
        (Self::SctpTruncated, "sctp-truncated", "shorter than an SCTP common header"),
        (Self::IcmpTruncated, "icmp-truncated", "shorter than an ICMP header"),
        (Self::Icmpv6Truncated, "icmpv6-truncated", "shorter than an ICMPv6 header"),
        (Self::OffloadMalformed, "offload-malformed", "segmentation or checksum request does not fit the frame"),
        (Self::VlanNotMember, "vlan-not-member", "the port is no member of the frame's VLAN"),
        (Self::LinkLocal, "link-local", "destination is kept by every bridge to itself"),
        (Self::Reflection, "reflection", "the only way out is the way in"),
        (Self::NoPort, "no-port", "no port to send to"),
        (Self::NoBridge, "no-bridge", "the port is no member of a bridge"),
        (Self::ExceedsMtu, "exceeds-mtu", "larger than the out port's MTU"),
        (Self::TtlExceeded, "ttl-exceeded", "the hop limit ran out"),
        (Self::NoEndpoint, "no-endpoint", "nobody on this node has the address"),
        (Self::NoRoute, "no-route", "no route to the destination"),
        (Self::NoNeighbor, "no-neighbor", "the next hop does not answer"),
        (Self::Blackhole, "blackhole", "the route says that such packets are dropped"),
        (Self::NotRoutable, "not-routable", "for the router, but not of a kind that is routed"),
        (Self::AddressNotOwned, "address-not-owned", "speaks for an address that is elsewhere"),
        (Self::ArpOwnPort, "arp-own-port", "asks for an address that is behind its own port"),
        (Self::NdMalformed, "nd-malformed", "neighbour discovery that must be discarded (RFC 4861, 7.1)"),
        (Self::NdRouter, "nd-router", "router discovery or redirect where this switch is the router"),
        (Self::FragmentShort, "fragment-short", "first fragment does not hold the whole transport header"),
        (Self::FragmentOverlap, "fragment-overlap", "fragments overlap or disagree on where the datagram ends"),
        (Self::FragmentOversized, "fragment-oversized", "fragments make a datagram of more than 65535 octets"),
        (Self::FragmentExcess, "fragment-excess", "a datagram in more than 64 fragments"),
        (Self::FragmentNeighbor, "fragment-neighbor", "a fragment of a neighbour discovery message"),
        (Self::Invalid, "invalid", "an answer to nothing that is known, which cannot be translated"),
        (Self::NoBackend, "no-backend", "the service has no backend"),
        (Self::NoServicePort, "no-service-port", "the service has no such port"),
        (Self::UnknownService, "unknown-service", "no service has this address of a service range"),
        (Self::SourceRange, "source-range", "the service lets in other addresses only"),
        (
            Self::NoLocalEndpoint,
            "no-local-endpoint",
            "policy keeps to endpoints of this node, and the service has none here",
        ),
        (Self::NoNodeAddress, "no-node-address", "the node has no address of this IP version to masquerade as"),
        (Self::Spoofed, "spoofed", "not from the addresses of the pod behind the in port"),
        (Self::Isolated, "isolated", "from or to a pod whose policies are not known yet"),
        (Self::NotAddressed, "not-addressed", "to an address that the pod behind the out port has not"),
        (Self::PolicyEgress, "policy-egress", "the policies of the source pod do not let it out"),
        (Self::PolicyIngress, "policy-ingress", "the policies of the destination pod do not let it in"),
        (Self::Acl, "acl", "a rule of an access list drops it"),
        (Self::ConnectionsFull, "connections-full", "no room for another connection of the in port"),
        (Self::SnatPorts, "snat-ports", "no source port is free for a masqueraded connection"),
        (Self::ReplyLimit, "reply-limit", "the in port had used up its share of answers"),
        (Self::TxFull, "tx-full", "the out port was full"),
        (Self::OverRate, "over-rate", "more waits for the out port than its bandwidth lets through soon"),
        (Self::TxDown, "tx-down", "the out port is down or gone"),
        (Self::TxError, "tx-error", "the out port's device refused the frame"),
        (Self::NoFrame, "no-frame", "the frame pool was empty"),
        (Self::MissOverload, "miss-overload", "the in port had used up its share of first packets"),
        (Self::WalkTooLong, "walk-too-long", "the decision went through more stages than it may"),
        (Self::FragmentTimeout, "fragment-timeout", "the other fragments of its datagram did not come in time"),
        (Self::FragmentOverload, "fragment-overload", "the in port has more fragments under way than it may"),
        (Self::NeighborUnresolved, "neighbor-unresolved", "the next hop did not say its Ethernet address"),
        (Self::NeighborOverload, "neighbor-overload", "more frames wait for an Ethernet address than may"),
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Self::ALL`] and in the counters.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// A rule says so, or that there is none: what a trace calls denied.
    pub fn is_denial(self) -> bool {
        matches!(self, Self::PolicyEgress | Self::PolicyIngress | Self::Isolated | Self::Spoofed | Self::Acl)
    }

    /// The name that scripts match on.
    pub fn name(self) -> &'static str {
        Self::ALL.get(self.index()).map_or("unknown", |row| row.1)
    }

    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        Self::ALL.get(self.index()).map_or("", |row| row.2)
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for (i, (reason, name, sentence)) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), i, "{name}");
            assert!(names.insert(name) && !sentence.is_empty());
        }
    }
}
