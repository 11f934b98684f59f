//! Nouns and frames, with the few words that tests change.

use api::{Bridge, BridgeId, Change, Delta, MacAddr, Port, PortId, Station, StationKey, Vlan};

/// The bridge that tests use where one is enough.
pub(crate) const BR: BridgeId = BridgeId(1);

/// A bridge with OVS's defaults.
pub(crate) fn bridge(id: BridgeId) -> Bridge {
    Bridge {
        id,
        name: format!("br{id}"),
        mac_table_size: Bridge::MAC_TABLE_SIZE,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: Default::default(),
    }
}

/// A port of [`BR`].
pub(crate) fn port(id: u16, vlan: Vlan) -> Port {
    Port {
        id: PortId(id),
        name: format!("p{id}"),
        bridge: BR,
        ofport: id,
        kind: "memory".to_owned(),
        options: Default::default(),
        vlan,
        mac: None,
        mtu: Port::MTU,
        external_ids: Default::default(),
    }
}

/// A static station of [`BR`].
pub(crate) fn station(vlan: u16, mac: [u8; 6], port: u16) -> Station {
    Station { key: StationKey { bridge: BR, vlan, mac: MacAddr(mac) }, port: PortId(port) }
}

pub(crate) fn add_bridge(bridge: Bridge) -> Change {
    Change::Bridge(Delta::add(bridge))
}

pub(crate) fn add_port(port: Port) -> Change {
    Change::Port(Delta::add(port))
}

pub(crate) fn add_station(station: Station) -> Change {
    Change::Station(Delta::add(station))
}

/// [`BR`] with these ports: number and VLANs.
pub(crate) fn ports(vlans: &[(u16, Vlan)]) -> Vec<Change> {
    let ports = vlans.iter().map(|(id, vlan)| add_port(port(*id, vlan.clone())));
    std::iter::once(add_bridge(bridge(BR))).chain(ports).collect()
}

/// [`BR`] with `n` plain ports, from 1.
pub(crate) fn plain(n: u16) -> Vec<Change> {
    ports(&(1..=n).map(|id| (id, Vlan::default())).collect::<Vec<_>>())
}

pub(crate) fn access(tag: u16) -> Vlan {
    Vlan::Access { tag }
}

pub(crate) fn trunk(trunks: &[u16]) -> Vlan {
    Vlan::Trunk { trunks: trunks.to_vec() }
}

/// The address of host `n`.
pub(crate) fn mac(n: u16) -> [u8; 6] {
    let [a, b] = n.to_be_bytes();
    [2, 0, 0, 0, a, b]
}

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame: addresses, tags as (tag protocol, tag control information), type, payload padded to 46 octets.
pub(crate) fn frame(dst: [u8; 6], src: [u8; 6], tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(14 + 4 * tags.len() + 46), 0);
    frame
}

/// A frame of a type that nobody looks into, from host `src` to host `dst`.
pub(crate) fn eth(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    frame(dst, src, &[], 0x88b5, b"payload")
}

/// The same with a tag.
pub(crate) fn tagged(dst: [u8; 6], src: [u8; 6], tci: u16) -> Vec<u8> {
    frame(dst, src, &[(0x8100, tci)], 0x88b5, b"payload")
}

/// UDP over IPv4 from host 1 to host 2: time to live, destination port, octets of payload.
pub(crate) fn udp4(ttl: u8, tp_dst: u16, payload: usize) -> Vec<u8> {
    let total = (28 + payload) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, ttl, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(udp(tp_dst, payload));
    frame(mac(2), mac(1), &[], 0x0800, &packet)
}

/// UDP over IPv6 from host 1 to host 2: last octet of the source, destination port, octets of payload.
pub(crate) fn udp6(source: u8, tp_dst: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((8 + payload) as u16).to_be_bytes());
    packet.extend([17, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, source]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(udp(tp_dst, payload));
    frame(mac(2), mac(1), &[], 0x86dd, &packet)
}

fn udp(tp_dst: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![0x07, 0xd0];
    datagram.extend(tp_dst.to_be_bytes());
    datagram.extend(((8 + payload) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + payload, 7);
    datagram
}
