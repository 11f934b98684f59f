//! `runtimeConfig`: what a runtime asks of a plugin that declares the capability (CONVENTIONS.md).

use std::net::IpAddr;

use api::{Bandwidth, HostPort, MacAddr, Proto, Rate};

use crate::arguments::{address_of, is_a_stations};
use crate::config::Network;
use crate::fault::Fault;
use crate::fields::Field;
use crate::result::Dns;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Capabilities {
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) bandwidth: Bandwidth,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) dns: Dns,
}

impl Capabilities {
    pub(crate) fn parse(network: &Network) -> Result<Self, Fault> {
        let asked = network.field("runtimeConfig");
        // The older way, by `args`; what a runtime derives from its user's wish wins.
        let older = network.field("args").member("cni")?;
        let mac = match mac(&asked.member("mac")?)? {
            None => self::mac(&older.member("mac")?)?,
            some => some,
        };
        let mut wanted = addresses(&asked.member("ips")?)?;
        if wanted.is_empty() {
            wanted = addresses(&older.member("ips")?)?;
        }
        let bandwidth = asked.member("bandwidth")?;
        let bandwidth = Bandwidth {
            ingress: rate(&bandwidth, "ingressRate", "ingressBurst")?,
            egress: rate(&bandwidth, "egressRate", "egressBurst")?,
        };
        let mut host_ports =
            asked.member("portMappings")?.list()?.iter().map(host_port).collect::<Result<Vec<_>, _>>()?;
        host_ports.sort_unstable();
        host_ports.dedup();
        let dns = Dns::parse_capability(&asked.member("dns")?)?;
        Ok(Self { host_ports, bandwidth, addresses: wanted, mac, dns })
    }
}

fn mac(field: &Field<'_>) -> Result<Option<MacAddr>, Fault> {
    match field.text()? {
        None | Some("") => Ok(None),
        Some(_) => match field.parsed("an Ethernet address")? {
            Some(mac) if !is_a_stations(&mac) => Err(field.invalid("the address of one station is expected")),
            mac => Ok(mac),
        },
    }
}

fn addresses(field: &Field<'_>) -> Result<Vec<IpAddr>, Fault> {
    let address = |field: &Field<'_>| {
        let text = field.text()?.unwrap_or_default();
        address_of(text).ok_or_else(|| field.invalid("an address is expected"))
    };
    field.list()?.iter().map(address).collect()
}

/// A token bucket. A rate of 0 is none, as in the reference's plugin, which also wants a burst beside a rate.
fn rate(bandwidth: &Field<'_>, rate: &str, burst: &str) -> Result<Option<Rate>, Fault> {
    let (rate, burst) = (bandwidth.member(rate)?, bandwidth.member(burst)?);
    match (rate.number()?.unwrap_or_default(), burst.number()?.unwrap_or_default()) {
        (0, 0) => Ok(None),
        (0, _) => Err(burst.invalid(&format!("a burst needs {}", rate.path()))),
        (_, 0) => Err(rate.invalid(&format!("a rate needs {}", burst.path()))),
        (bits, burst) => Ok(Some(Rate { bits, burst })),
    }
}

fn host_port(mapping: &Field<'_>) -> Result<HostPort, Fault> {
    let port = |name| {
        let field = mapping.member(name)?;
        let number = field.number()?.and_then(|number| u16::try_from(number).ok()).filter(|&number| number != 0);
        number.ok_or_else(|| field.invalid("1 to 65535 is expected"))
    };
    let protocol = mapping.member("protocol")?;
    let proto = match protocol.text()?.unwrap_or("tcp").to_ascii_lowercase().as_str() {
        "tcp" | "" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        _ => return Err(protocol.unsupported("tcp, udp or sctp is expected")),
    };
    let address = mapping.member("hostIP")?;
    // Nobody's address is everybody's, as it is for a socket.
    let address = match address.text()? {
        None | Some("") => None,
        Some(_) => address.parsed::<IpAddr>("an address")?.filter(|address| !address.is_unspecified()),
    };
    Ok(HostPort { address, proto, port: port("hostPort")?, container: port("containerPort")? })
}
