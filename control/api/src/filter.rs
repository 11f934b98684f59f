//! Which connections are meant: `src=10.0.0.0/8 dport=80 service=default/web`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::state::{ConnectionState, Tuple};

/// Conditions on a connection; all of them must hold, and one that is absent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Source addresses. This and the next three hold when they hold together of one direction, whichever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpNet>,
    /// Destination addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpNet>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// IP protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// State, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Name of the port where the first packet came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `NAMESPACE/NAME`, or `NAMESPACE/NAME:PORTNAME` for one port of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Protocols that have a name here, by number (IANA's registry).
pub(crate) const PROTOCOLS: [(u8, &str); 5] = [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmpv6"), (132, "sctp")];

impl Filter {
    /// The filter that words of the form `KEY=VALUE` are.
    ///
    /// # Errors
    /// The word and the rule.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for typed in words {
            let word = &crate::verb::shown(typed);
            let (key, value) = typed.split_once('=').ok_or_else(|| format!("{word}: not of the form KEY=VALUE"))?;
            let fresh = match key {
                "src" => filter.src.replace(prefix(word, value)?).is_none(),
                "dst" => filter.dst.replace(prefix(word, value)?).is_none(),
                "sport" => filter.sport.replace(read(word, value, "a port number")?).is_none(),
                "dport" => filter.dport.replace(read(word, value, "a port number")?).is_none(),
                "proto" => filter.proto.replace(protocol(word, value)?).is_none(),
                "state" => filter.state.replace(value.to_owned()).is_none(),
                "port" => filter.port.replace(value.to_owned()).is_none(),
                "service" => filter.service.replace(value.to_owned()).is_none(),
                _ => return Err(format!("{word}: not one of src, dst, sport, dport, proto, state, port, service")),
            };
            if !fresh {
                return Err(format!("{word}: {key} is there twice"));
            }
        }
        Ok(filter)
    }

    /// There is no condition.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a connection is meant, given the names of its port and its service.
    pub fn matches(&self, connection: &ConnectionState, port: &str, service: Option<&str>) -> bool {
        fn holds<T>(condition: Option<&T>, fact: impl FnOnce(&T) -> bool) -> bool {
            condition.is_none_or(fact)
        }
        let direction = |tuple: &Tuple| {
            holds(self.src.as_ref(), |src| src.contains(&tuple.src.ip()))
                && holds(self.dst.as_ref(), |dst| dst.contains(&tuple.dst.ip()))
                && holds(self.sport.as_ref(), |sport| tuple.src.port() == *sport)
                && holds(self.dport.as_ref(), |dport| tuple.dst.port() == *dport)
        };
        let of_service = |wanted: &String| {
            service.is_some_and(|name| name == wanted || name.split_once(':').is_some_and(|(name, _)| name == wanted))
        };
        (direction(&connection.original) || direction(&connection.reply))
            && holds(self.proto.as_ref(), |proto| connection.proto == *proto)
            && holds(self.state.as_ref(), |state| connection.state.eq_ignore_ascii_case(state))
            && holds(self.port.as_ref(), |wanted| port == wanted)
            && holds(self.service.as_ref(), of_service)
    }
}

/// A prefix as people write it: an address alone is the prefix of it alone.
///
/// # Errors
/// The word and the rule.
pub(crate) fn prefix(word: &str, value: &str) -> Result<IpNet, String> {
    let address = || value.parse::<IpAddr>().map(IpNet::from);
    value.parse().or_else(|_| address()).map_err(|_| format!("{word}: not an address or a prefix"))
}

fn protocol(word: &str, value: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(_, name)| name.eq_ignore_ascii_case(value)).map(|(number, _)| *number);
    named.map_or_else(|| read(word, value, "a protocol"), Ok)
}

fn read<T: FromStr>(word: &str, value: &str, what: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word}: not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BridgeId, PortId};

    fn connection() -> ConnectionState {
        let tuple = |src: &str, dst: &str| Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
        ConnectionState {
            bridge: BridgeId(1),
            proto: 6,
            state: "ESTABLISHED".into(),
            original: tuple("10.244.1.2:40000", "10.96.0.10:80"),
            reply: tuple("10.244.1.3:8080", "10.244.1.2:40000"),
            port: PortId(3),
            expires: 60,
        }
    }

    #[test]
    fn a_filter_holds_of_either_direction_but_not_of_half_of_each() {
        for (words, wanted) in [
            ("", true),
            ("src=10.244.0.0/16", true),
            ("src=10.244.1.3", true),
            ("dst=10.96.0.10 dport=80", true),
            ("src=10.244.1.3 sport=8080 dst=10.244.1.2", true),
            ("dst=10.96.0.10 sport=8080", false),
            ("src=fd00::/8", false),
            ("proto=TCP state=established port=p1", true),
            ("proto=6", true),
            ("proto=udp", false),
            ("port=p2", false),
            ("service=default/web", true),
            ("service=default/web:http", true),
            ("service=default/we", false),
        ] {
            let filter = Filter::parse(words.split(' ').filter(|word| !word.is_empty())).unwrap();
            assert_eq!(filter.matches(&connection(), "p1", Some("default/web:http")), wanted, "{words}");
        }
        let of_service = Filter::parse(["service=default/web"]).unwrap();
        assert!(!of_service.matches(&connection(), "p1", None));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (words, why) in [
            ("80", "80: not of the form KEY=VALUE"),
            ("colour=red", "colour=red: not one of src, dst, sport, dport, proto, state, port, service"),
            ("src=10.0.0.300", "src=10.0.0.300: not an address or a prefix"),
            ("dport=65536", "dport=65536: not a port number"),
            ("proto=256", "proto=256: not a protocol"),
            ("sport=1 sport=2", "sport=2: sport is there twice"),
        ] {
            assert_eq!(Filter::parse(words.split(' ')).unwrap_err(), why);
        }
    }
}
