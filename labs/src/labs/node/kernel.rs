//! What of the node's kernel the switch may touch: rule 1786, table 1786, its own device; and nothing else, ever.
//!
//! The kernel is asked by rtnetlink and nfnetlink, not by way of the switch's own code for that.

use std::collections::BTreeSet;

use anyhow::Context;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use vswitch::sys::netlink::{Netlink, Settings};

use crate::claim::{Control, Probe, Report};
use crate::labs::cluster::{Dual, FAMILIES};

pub(super) const UNTOUCHED: &str =
    "no rule, route, packet filter or setting of the node is touched, but rule and table 1786";
pub(super) const WITHDRAWN: &str = "an orderly stop takes rule and table 1786 away, and nothing else";

/// Number of the switch's table and of its rule.
const OURS: u32 = 1786;
/// A route of somebody else's, for the controls.
const FOREIGN: Dual = Dual("203.0.113.7", "2001:db8:7::7");
/// Settings that concern more than one device.
const SETTINGS: [&str; 7] = [
    "ipv4/ip_forward",
    "ipv4/conf/all/rp_filter",
    "ipv4/conf/all/forwarding",
    "ipv4/conf/default/rp_filter",
    "ipv6/conf/all/forwarding",
    "ipv6/conf/all/accept_ra",
    "ipv6/conf/default/accept_ra",
];
/// Message types of `include/uapi/linux/netfilter/nf_tables.h`, below subsystem 10: tables, chains, rules.
const NFT_DUMPS: [(u16, &str); 3] = [(0x0a01, "tables"), (0x0a04, "chains"), (0x0a07, "rules")];

/// Rules, routes, packet filters and settings of the lab's own namespace, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Those that are not the switch's.
    others: BTreeSet<String>,
    /// Rules and routes of number [`OURS`].
    ours: BTreeSet<String>,
}

impl Snapshot {
    pub(super) fn take() -> anyhow::Result<Self> {
        let mut lines = (BTreeSet::new(), BTreeSet::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for message in rules_and_routes(family)? {
                if let Some((ours, line)) = read(message) {
                    if ours {
                        lines.1.insert(line)
                    } else {
                        lines.0.insert(line)
                    };
                }
            }
        }
        for (kind, name) in NFT_DUMPS {
            lines.0.extend(packet_filters(kind)?.into_iter().map(|octets| format!("nft {name} {octets:02x?}")));
        }
        for setting in SETTINGS {
            let value = std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap_or_default();
            lines.0.insert(format!("{setting} {}", value.trim()));
        }
        Ok(Self { others: lines.0, ours: lines.1 })
    }

    /// With routes that somebody else made; they are gone again when this returns.
    fn with_foreign_routes() -> anyhow::Result<Self> {
        let netlink = Netlink::open()?;
        netlink.add_veth("foreign", "foreign-end", None).context("a device for the control")?;
        let index = netlink.index("foreign")?;
        let snapshot = add_routes(&netlink, index).and_then(|()| Self::take());
        netlink.delete(index)?;
        snapshot
    }

    /// Arrived, as news, if there is a line more or less.
    fn news_since(&self, before: &Self) -> Probe {
        let come = self.others.difference(&before.others).map(|line| format!("came: {line}"));
        let gone = before.others.difference(&self.others).map(|line| format!("went: {line}"));
        let news: Vec<String> = come.chain(gone).collect();
        match news.is_empty() {
            true => Probe::Silent(format!("{} rules, routes, filters and settings as before", self.others.len())),
            false => Probe::Arrived(news.join("; ")),
        }
    }
}

/// While everything is in force.
pub(super) fn untouched(report: &mut Report, before: &Snapshot) -> anyhow::Result<()> {
    let now = Snapshot::take()?;
    let probe = match now.news_since(before) {
        Probe::Silent(_) if now.ours.is_empty() => Probe::Arrived("there is nothing of number 1786".to_owned()),
        Probe::Silent(text) => Probe::Silent(format!("{text}; {} of number {OURS}", now.ours.len())),
        news => news,
    };
    let control = Snapshot::with_foreign_routes()?.news_since(before);
    report.separates(UNTOUCHED, &probe, Control::new("the lab adds routes of its own", control));
    Ok(())
}

/// After the daemon ended.
pub(super) fn withdrawn(report: &mut Report, before: &Snapshot) -> anyhow::Result<()> {
    let now = Snapshot::take()?;
    let probe = match now.news_since(before) {
        Probe::Silent(_) if !now.ours.is_empty() => Probe::Arrived(format!("still there: {:?}", now.ours)),
        probe => probe,
    };
    let control = Snapshot::with_foreign_routes()?.news_since(before);
    report.separates(WITHDRAWN, &probe, Control::new("the lab adds routes of its own", control));
    Ok(())
}

fn add_routes(netlink: &Netlink, index: u32) -> anyhow::Result<()> {
    netlink.set(index, &Settings { up: Some(true), ..Settings::default() })?;
    for ip in FAMILIES {
        let address = FOREIGN.of(ip);
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        netlink.add_route((address, prefix), None, Some(index)).context("a route for the control")?;
    }
    Ok(())
}

fn rules_and_routes(family: AddressFamily) -> anyhow::Result<Vec<RouteNetlinkMessage>> {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    let mut all = Vec::new();
    for request in [RouteNetlinkMessage::GetRule(rule), RouteNetlinkMessage::GetRoute(route)] {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        for message in dump(NETLINK_ROUTE, &bytes).context("list rules and routes")? {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&message)?;
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                all.push(message);
            }
        }
    }
    Ok(all)
}

/// A line, and whether it is the switch's; `None` for routes that the kernel makes and removes as devices come up.
fn read(message: RouteNetlinkMessage) -> Option<(bool, String)> {
    match message {
        RouteNetlinkMessage::NewRule(rule) => {
            let ours = rule.attributes.contains(&RuleAttribute::Priority(OURS))
                && rule.attributes.contains(&RuleAttribute::Table(OURS));
            Some((ours, format!("{rule:?}")))
        }
        RouteNetlinkMessage::NewRoute(mut route) => {
            // Whether its device has a carrier, ages and counts of use.
            route.header.flags = RouteFlags::empty();
            route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
            let of_link = |attribute: &RouteAttribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet6(to)) => to.is_unicast_link_local() || to.is_multicast(),
                _ => false,
            };
            let kernels = route.header.protocol == RouteProtocol::Kernel && route.attributes.iter().any(of_link);
            (!kernels).then(|| (route.attributes.contains(&RouteAttribute::Table(OURS)), format!("{route:?}")))
        }
        _ => None,
    }
}

/// What nftables has of a kind, without the headers, which count changes of everything.
fn packet_filters(kind: u16) -> anyhow::Result<Vec<Vec<u8>>> {
    const HEADERS: usize = 20;
    let mut request = Vec::from(20_u32.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Number and sender, and a header of nfnetlink: every family, version 0.
    request.extend([0; 12]);
    match dump(NETLINK_NETFILTER, &request) {
        Ok(messages) => Ok(messages.iter().filter_map(|message| Some(message.get(HEADERS..)?.to_vec())).collect()),
        // A kernel without nftables has none of anybody's.
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => Ok(Vec::new()),
        Err(error) => Err(error).context("list packet filters"),
    }
}

/// Ask for all of something: whole messages, up to the one that ends them (netlink(7)).
fn dump(protocol: isize, request: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(request, 0)?;
    let mut all = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let [l0, l1, l2, l3, k0, k1, ..] = *rest {
            let len = (u32::from_ne_bytes([l0, l1, l2, l3]) as usize).clamp(16, rest.len().max(16));
            let Some(message) = rest.get(..len) else { break };
            match u16::from_ne_bytes([k0, k1]) {
                DONE => return Ok(all),
                ERROR => {
                    let code = message.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
                    return Err(std::io::Error::from_raw_os_error(-code.unwrap_or_default()));
                }
                _ => all.push(message.to_vec()),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
