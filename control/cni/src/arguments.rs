//! `CNI_ARGS`, and the conventions (CONVENTIONS.md) for the same things in the configuration.

use std::net::IpAddr;

use api::{MacAddr, PodRef};

use crate::fault::{Fault, code};

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) pod: Option<PodRef>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<MacAddr>,
}

fn fault(key: &str, value: &str, rule: &str) -> Fault {
    Fault::new(code::ENVIRONMENT, format!("CNI_ARGS: {key}: {value:?}: {rule}"))
}

impl Arguments {
    /// Read `KEY=VALUE;…`. A key that nobody knows is a fault unless it is said that it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut arguments = Self::default();
        let (mut namespace, mut name, mut uid) = (None, None, None);
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Fault::new(code::ENVIRONMENT, format!("CNI_ARGS: {pair:?}: KEY=VALUE is expected")));
            };
            let said = Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "IgnoreUnknown" => {
                    // As the library's UnmarshallableBool.
                    ignore_unknown = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(fault(key, value, "1, true, 0 or false is expected")),
                    }
                }
                "K8S_POD_NAMESPACE" => namespace = said,
                "K8S_POD_NAME" => name = said,
                "K8S_POD_UID" => uid = said,
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => {
                    for address in value.split(',').filter(|address| !address.is_empty()) {
                        let address = address_of(address);
                        arguments.addresses.push(address.ok_or_else(|| fault(key, value, "an address is expected"))?);
                    }
                }
                "MAC" if value.is_empty() => {}
                "MAC" => {
                    let mac = value.parse().ok().filter(is_a_stations);
                    arguments.mac =
                        Some(mac.ok_or_else(|| fault(key, value, "the address of one station is expected"))?);
                }
                _ => unknown.push(pair),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            return Err(Fault::new(code::ENVIRONMENT, format!("CNI_ARGS: unknown args {unknown:?}")));
        }
        // Some runtimes say the name of a container that is no pod's.
        if let (Some(namespace), Some(name)) = (namespace, name) {
            arguments.pod = Some(PodRef { namespace, name, uid });
        }
        Ok(arguments)
    }
}

/// An address with or without the length of a prefix.
pub(crate) fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<ipnet::IpNet>().ok().map(|net| net.addr()))
}

/// Not a group's, and not nobody's.
pub(crate) fn is_a_stations(mac: &MacAddr) -> bool {
    !mac.is_group() && !mac.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_namespace_and_a_name() {
        let kubelets = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u";
        let arguments = Arguments::parse(kubelets).unwrap();
        let uid = Some("u".to_owned());
        assert_eq!(arguments.pod, Some(PodRef { namespace: "ns".to_owned(), name: "p".to_owned(), uid }));
        assert_eq!(Arguments::parse("IgnoreUnknown=1;K8S_POD_NAME=box").unwrap(), Arguments::default());
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
    }

    #[test]
    fn addresses_may_be_asked_for() {
        let arguments = Arguments::parse("IP=10.1.0.9/24,fd00:1::9;MAC=02:00:00:00:00:01").unwrap();
        assert_eq!(arguments.addresses, ["10.1.0.9", "fd00:1::9"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(arguments.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, says) in [
            ("a", "CNI_ARGS: \"a\": KEY=VALUE is expected"),
            ("A=1;B=2", "CNI_ARGS: unknown args [\"A=1\", \"B=2\"]"),
            ("IgnoreUnknown=0;A=1", "CNI_ARGS: unknown args [\"A=1\"]"),
            ("IgnoreUnknown=yes", "CNI_ARGS: IgnoreUnknown: \"yes\": 1, true, 0 or false is expected"),
            ("IP=10.0.0", "CNI_ARGS: IP: \"10.0.0\": an address is expected"),
            ("MAC=01:00:00:00:00:01", "CNI_ARGS: MAC: \"01:00:00:00:00:01\": the address of one station is expected"),
        ] {
            let fault = Arguments::parse(text).unwrap_err();
            assert_eq!((fault.code, fault.msg.as_str()), (code::ENVIRONMENT, says));
        }
        assert_eq!(Arguments::parse("IgnoreUnknown=true;A=1").unwrap(), Arguments::default());
    }
}
