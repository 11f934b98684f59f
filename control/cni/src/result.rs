//! Results of ADD, as every version has them.
//!
//! Inside there is one shape, the newest. The older ones have less of it: what they cannot say is left out, as SPEC.md
//! has a plugin convert. `version` beside an address, which 1.0.0 dropped, follows from the address.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::fault::{Fault, code};
use crate::fields::Field;
use crate::version::Version;

/// A result.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CniResult {
    pub(crate) interfaces: Vec<Link>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) mtu: Option<u64>,
    /// Path of its namespace; empty for the node's.
    pub(crate) sandbox: String,
    pub(crate) socket_path: String,
    pub(crate) pci_id: String,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) address: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// Position of its interface.
    pub(crate) interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    pub(crate) gw: Option<IpAddr>,
    /// What 1.1.0 has more, as it was said: `mtu`, `advmss`, `priority`, `table`, `scope`.
    pub(crate) more: Vec<(&'static str, Value)>,
}

/// Of 1.1.0, beside `dst` and `gw`.
const ROUTE_MORE: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// Who is asked for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    nameservers: Vec<String>,
    domain: String,
    search: Vec<String>,
    options: Vec<String>,
}

impl Dns {
    pub(crate) fn parse(field: &Field<'_>) -> Result<Self, Fault> {
        Ok(Self {
            nameservers: field.member("nameservers")?.texts()?,
            domain: field.member("domain")?.text()?.unwrap_or_default().to_owned(),
            search: field.member("search")?.texts()?,
            options: field.member("options")?.texts()?,
        })
    }

    /// As the capability has it, under other names.
    pub(crate) fn parse_capability(field: &Field<'_>) -> Result<Self, Fault> {
        Ok(Self {
            nameservers: field.member("servers")?.texts()?,
            domain: String::new(),
            search: field.member("searches")?.texts()?,
            options: field.member("options")?.texts()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, where it says anything.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }

    fn to_json(&self) -> Value {
        let mut dns = Map::new();
        let mut put = |name: &str, value: Value, empty: bool| {
            if !empty {
                dns.insert(name.to_owned(), value);
            }
        };
        put("nameservers", json!(self.nameservers), self.nameservers.is_empty());
        put("domain", json!(self.domain), self.domain.is_empty());
        put("search", json!(self.search), self.search.is_empty());
        put("options", json!(self.options), self.options.is_empty());
        Value::Object(dns)
    }
}

impl CniResult {
    /// Read a result, of whatever version it is: they differ in what they have, and never in what it means.
    pub(crate) fn parse(result: &Map<String, Value>, inside: &str) -> Result<Self, Fault> {
        let whole = json!({inside: result});
        let members = whole.as_object().cloned().unwrap_or_default();
        let result = Field::of(&members, inside);
        if let Some(version) = result.member("cniVersion")?.text()?
            && Version::of(version).is_none()
        {
            let all = Version::list(", ");
            let what = format!("{inside}.cniVersion: {version:?}: one of {all} is expected");
            return Err(Fault::new(code::VERSION, what));
        }
        Ok(Self {
            interfaces: result.member("interfaces")?.list()?.iter().map(link).collect::<Result<_, _>>()?,
            ips: result.member("ips")?.list()?.iter().map(ip).collect::<Result<_, _>>()?,
            routes: result.member("routes")?.list()?.iter().map(route).collect::<Result<_, _>>()?,
            dns: Dns::parse(&result.member("dns")?)?,
        })
    }

    /// Position of an interface in a namespace.
    pub(crate) fn position(&self, name: &str, sandbox: &str) -> Option<usize> {
        self.interfaces.iter().position(|link| link.name == name && link.sandbox == sandbox)
    }

    pub(crate) fn to_json(&self, version: Version) -> Value {
        let interfaces: Vec<Value> = self.interfaces.iter().map(|link| link.to_json(version)).collect();
        let ips: Vec<Value> = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        let routes: Vec<Value> = self.routes.iter().map(|route| route.to_json(version)).collect();
        let mut result = json!({"cniVersion": version.text(), "dns": self.dns.to_json()});
        for (name, list) in [("interfaces", interfaces), ("ips", ips), ("routes", routes)] {
            if let (false, Some(members)) = (list.is_empty(), result.as_object_mut()) {
                members.insert(name.to_owned(), Value::Array(list));
            }
        }
        result
    }
}

fn link(field: &Field<'_>) -> Result<Link, Fault> {
    let text = |name| Ok::<_, Fault>(field.member(name)?.text()?.unwrap_or_default().to_owned());
    Ok(Link {
        name: text("name")?,
        mac: text("mac")?,
        mtu: field.member("mtu")?.number()?.filter(|&mtu| mtu != 0),
        sandbox: text("sandbox")?,
        socket_path: text("socketPath")?,
        pci_id: text("pciID")?,
    })
}

fn ip(field: &Field<'_>) -> Result<Ip, Fault> {
    let address = field.member("address")?;
    let interface = field.member("interface")?;
    Ok(Ip {
        address: address
            .parsed("an address with the length of its prefix")?
            .ok_or_else(|| address.invalid("it is needed"))?,
        gateway: gateway(&field.member("gateway")?)?,
        interface: interface.number()?.and_then(|number| usize::try_from(number).ok()),
    })
}

fn route(field: &Field<'_>) -> Result<Route, Fault> {
    let dst = field.member("dst")?;
    let more = ROUTE_MORE.iter().filter_map(|&name| {
        let value = field.member(name).ok()?.value()?.clone();
        Some((name, value))
    });
    Ok(Route {
        dst: dst.parsed("a prefix")?.ok_or_else(|| dst.invalid("it is needed"))?,
        gw: gateway(&field.member("gw")?)?,
        more: more.collect(),
    })
}

fn gateway(field: &Field<'_>) -> Result<Option<IpAddr>, Fault> {
    match field.text()? {
        Some("") => Ok(None),
        _ => field.parsed("an address"),
    }
}

impl Link {
    fn to_json(&self, version: Version) -> Value {
        let mut link = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                link.insert(name.to_owned(), Value::from(value));
            }
        };
        put("name", &self.name);
        put("mac", &self.mac);
        put("sandbox", &self.sandbox);
        if version >= Version::V1_1_0 {
            put("socketPath", &self.socket_path);
            put("pciID", &self.pci_id);
            if let Some(mtu) = self.mtu {
                link.insert("mtu".to_owned(), Value::from(mtu));
            }
        }
        Value::Object(link)
    }
}

impl Ip {
    fn to_json(self, version: Version) -> Value {
        let mut ip = Map::from_iter([("address".to_owned(), Value::from(self.address.to_string()))]);
        if version < Version::V1_0_0 {
            let family = if self.address.addr().is_ipv4() { "4" } else { "6" };
            ip.insert("version".to_owned(), Value::from(family));
        }
        if let Some(gateway) = self.gateway {
            ip.insert("gateway".to_owned(), Value::from(gateway.to_string()));
        }
        if let Some(interface) = self.interface {
            ip.insert("interface".to_owned(), Value::from(interface));
        }
        Value::Object(ip)
    }
}

impl Route {
    fn to_json(&self, version: Version) -> Value {
        let mut route = Map::from_iter([("dst".to_owned(), Value::from(self.dst.to_string()))]);
        if let Some(gw) = self.gw {
            route.insert("gw".to_owned(), Value::from(gw.to_string()));
        }
        if version >= Version::V1_1_0 {
            route.extend(self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        Value::Object(route)
    }
}
