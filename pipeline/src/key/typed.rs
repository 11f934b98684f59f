//! Facts of a key as what they are: addresses, ports, protocol numbers. Stages read and translate keys by these.
//!
//! A getter answers for the key as it is: a fact that the mask left out is zero, and a key whose Ethernet type or
//! protocol was left out has no address and no ICMP message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{MacAddr, PortId};

use super::{FRAG_ANY, FRAG_LATER, Field, FlowKey};
use crate::parse::{ethertype, is_echo, proto};

impl FlowKey {
    /// Ingress port.
    pub fn in_port(&self) -> PortId {
        PortId(u16::from_ne_bytes(self.get(Field::IN_PORT)))
    }

    /// Ingress port of the first words of a key, as caches keep them.
    pub fn in_port_of(words: &[u64]) -> PortId {
        let [a, b, ..] = words.first().copied().unwrap_or(0).to_ne_bytes();
        PortId(u16::from_ne_bytes([a, b]))
    }

    /// Outer VLAN word: [`super::VLAN_TAGGED`] and id, or 0.
    pub fn vlan(&self) -> u16 {
        u16::from_ne_bytes(self.get(Field::VLAN))
    }

    /// Ethernet destination.
    pub fn eth_dst(&self) -> MacAddr {
        MacAddr(self.get(Field::ETH_DST))
    }

    /// Ethernet source.
    pub fn eth_src(&self) -> MacAddr {
        MacAddr(self.get(Field::ETH_SRC))
    }

    /// Set the Ethernet destination.
    pub fn set_eth_dst(&mut self, address: MacAddr) {
        self.set(Field::ETH_DST, address.0);
    }

    /// Set the Ethernet source.
    pub fn set_eth_src(&mut self, address: MacAddr) {
        self.set(Field::ETH_SRC, address.0);
    }

    /// Ethernet type behind the tags.
    pub fn eth_type(&self) -> u16 {
        u16::from_be_bytes(self.get(Field::ETH_TYPE))
    }

    /// IP protocol, behind IPv6 extension headers. In ARP, the low octet of the opcode.
    pub fn ip_proto(&self) -> u8 {
        let [proto] = self.get(Field::IP_PROTO);
        proto
    }

    /// The frame is a fragment, the first one or a later one.
    pub fn is_fragment(&self) -> bool {
        self.frag() & FRAG_ANY != 0
    }

    /// The frame is a fragment that has no transport header.
    pub fn is_later_fragment(&self) -> bool {
        self.frag() & FRAG_LATER != 0
    }

    fn frag(&self) -> u8 {
        let [frag] = self.get(Field::IP_FRAG);
        frag
    }

    /// IPv4 source; sender protocol address of ARP.
    pub fn ipv4_src(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.get::<4>(Field::IPV4_SRC))
    }

    /// IPv4 destination; target protocol address of ARP.
    pub fn ipv4_dst(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.get::<4>(Field::IPV4_DST))
    }

    /// IPv6 source.
    pub fn ipv6_src(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.get::<16>(Field::IPV6_SRC))
    }

    /// IPv6 destination.
    pub fn ipv6_dst(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.get::<16>(Field::IPV6_DST))
    }

    /// Source of the IP packet; `None` if the frame has none (ARP is not IP).
    pub fn source(&self) -> Option<IpAddr> {
        match self.eth_type() {
            ethertype::IPV4 => Some(self.ipv4_src().into()),
            ethertype::IPV6 => Some(self.ipv6_src().into()),
            _ => None,
        }
    }

    /// Destination of the IP packet; `None` if the frame has none (ARP is not IP).
    pub fn destination(&self) -> Option<IpAddr> {
        match self.eth_type() {
            ethertype::IPV4 => Some(self.ipv4_dst().into()),
            ethertype::IPV6 => Some(self.ipv6_dst().into()),
            _ => None,
        }
    }

    /// Set the source of the IP packet. The address must be of the packet's version, and its place is that of its own.
    pub fn set_source(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.set(Field::IPV4_SRC, address.octets()),
            IpAddr::V6(address) => self.set(Field::IPV6_SRC, address.octets()),
        }
    }

    /// Set the destination of the IP packet. The address must be of the packet's version, and its place is that of its
    /// own.
    pub fn set_destination(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.set(Field::IPV4_DST, address.octets()),
            IpAddr::V6(address) => self.set(Field::IPV6_DST, address.octets()),
        }
    }

    /// Source port of TCP, UDP or SCTP. In ICMP: the whole of [`Field::TP_SRC`].
    pub fn tp_src(&self) -> u16 {
        u16::from_be_bytes(self.get(Field::TP_SRC))
    }

    /// Destination port of TCP, UDP or SCTP. In ICMP: the whole of [`Field::TP_DST`].
    pub fn tp_dst(&self) -> u16 {
        u16::from_be_bytes(self.get(Field::TP_DST))
    }

    /// Set the source port.
    pub fn set_tp_src(&mut self, port: u16) {
        self.set(Field::TP_SRC, port.to_be_bytes());
    }

    /// Set the destination port.
    pub fn set_tp_dst(&mut self, port: u16) {
        self.set(Field::TP_DST, port.to_be_bytes());
    }

    /// Type of the ICMP or ICMPv6 message; `None` if the frame has no such header.
    pub fn icmp_type(&self) -> Option<u8> {
        let [_, kind] = self.get(Field::TP_SRC);
        self.is_icmp().then_some(kind)
    }

    /// Code of the ICMP or ICMPv6 message; `None` if the frame has no such header.
    pub fn icmp_code(&self) -> Option<u8> {
        let [_, code] = self.get(Field::TP_DST);
        self.is_icmp().then_some(code)
    }

    /// Identifier of an ICMP or ICMPv6 echo request or reply; `None` for every other frame.
    pub fn icmp_id(&self) -> Option<u16> {
        let ([high, kind], [low, _]) = (self.get(Field::TP_SRC), self.get(Field::TP_DST));
        (self.is_icmp() && is_echo(self.ip_proto(), kind)).then_some(u16::from_be_bytes([high, low]))
    }

    /// Set the identifier of an echo request or reply. Every other key stays as it is: it has no place for one.
    pub fn set_icmp_id(&mut self, id: u16) {
        if self.icmp_id().is_some() {
            let ([_, kind], [_, code], [high, low]) =
                (self.get(Field::TP_SRC), self.get(Field::TP_DST), id.to_be_bytes());
            self.set(Field::TP_SRC, [high, kind]);
            self.set(Field::TP_DST, [low, code]);
        }
    }

    /// ICMP under the IP version it is for, header included.
    fn is_icmp(&self) -> bool {
        let icmp = matches!(
            (self.eth_type(), self.ip_proto()),
            (ethertype::IPV4, proto::ICMP) | (ethertype::IPV6, proto::ICMPV6)
        );
        icmp && !self.is_later_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(eth_type: u16, proto: u8) -> FlowKey {
        let mut key = FlowKey::EMPTY;
        key.set(Field::ETH_TYPE, eth_type.to_be_bytes());
        key.set(Field::IP_PROTO, [proto]);
        key
    }

    #[test]
    fn addresses_are_those_of_the_version_and_are_read_as_they_were_set() {
        let [four, six]: [IpAddr; 2] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        for (eth_type, source, destination) in
            [(0x0800, four, IpAddr::from([10, 0, 0, 2])), (0x86dd, six, "fd00::2".parse().unwrap())]
        {
            let mut key = key(eth_type, 6);
            key.set_source(source);
            key.set_destination(destination);
            assert_eq!((key.source(), key.destination()), (Some(source), Some(destination)));
        }
        let mut arp = key(0x0806, 1);
        arp.set_source(four);
        assert_eq!((arp.source(), arp.destination(), arp.ipv4_src()), (None, None, [10, 0, 0, 1].into()));
    }

    #[test]
    fn ports_and_ethernet_addresses_are_read_as_they_were_set() {
        let mut key = key(0x86dd, 17);
        key.set_tp_src(0x1234);
        key.set_tp_dst(53);
        key.set_eth_src(MacAddr([2, 0, 0, 0, 0, 1]));
        key.set_eth_dst(MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!((key.tp_src(), key.tp_dst(), key.ip_proto()), (0x1234, 53, 17));
        assert_eq!((key.eth_src(), key.eth_dst()), (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])));
        assert_eq!((key.icmp_type(), key.icmp_code(), key.icmp_id()), (None, None, None));
    }

    #[test]
    fn only_an_echo_has_an_identifier() {
        for (eth_type, proto, kind, id) in [
            (0x0800, 1, 8, Some(0x1234)),
            (0x0800, 1, 0, Some(0x1234)),
            (0x0800, 1, 3, None),
            (0x0800, 1, 128, None),
            (0x86dd, 58, 128, Some(0x1234)),
            (0x86dd, 58, 129, Some(0x1234)),
            (0x86dd, 58, 8, None),
        ] {
            let mut key = key(eth_type, proto);
            key.set_tp_src(kind);
            key.set_tp_dst(4);
            key.set_icmp_id(0x1234);
            assert_eq!((key.icmp_id(), key.icmp_type(), key.icmp_code()), (id, Some(kind as u8), Some(4)), "{kind}");
            key.set(Field::IP_FRAG, [FRAG_ANY | FRAG_LATER]);
            assert_eq!((key.icmp_id(), key.icmp_type(), key.is_later_fragment()), (None, None, true));
        }
        // The protocol of the other version is just a protocol.
        assert_eq!((key(0x0800, 58).icmp_type(), key(0x86dd, 1).icmp_type()), (None, None));
    }
}
