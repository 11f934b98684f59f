//! A service: a virtual address and port, and what is behind it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Proto {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
    /// RFC 9260.
    Sctp = 132,
}

impl Proto {
    /// The protocol of this number in an IP header.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|proto| *proto as u8 == number)
    }

    /// As Kubernetes spells it: `TCP`, `UDP`, `SCTP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Text that is no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not one of tcp, udp, sctp")]
pub struct InvalidProto(pub String);

impl FromStr for Proto {
    type Err = InvalidProto;

    fn from_str(text: &str) -> Result<Self, InvalidProto> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        let found = all.into_iter().find(|proto| proto.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| InvalidProto(text.chars().take(64).collect()))
    }
}

/// Key of a [`Service`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The virtual address.
    pub address: IpAddr,
    /// The protocol.
    pub proto: Proto,
    /// The port, 1 to 65535.
    pub port: u16,
}

/// One port of a Kubernetes Service at one of its virtual addresses. Backends are of the address's family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Key.
    pub key: ServiceKey,
    /// `NAMESPACE/NAME:PORTNAME`, without the colon when the port has no name.
    pub name: Arc<str>,
    /// How a backend is chosen for a new connection.
    pub choice: Choice,
    /// New connections go to these, each at most once. None: TCP is reset, the rest gets ICMP port unreachable.
    pub backends: Arc<[SocketAddr]>,
    /// Beside `backends`: these still serve, so what is connected to them stays, but they get nothing new. UDP flows to
    /// a backend in neither list are ended (`pkg/proxy/conntrack/cleanup.go` of Kubernetes).
    pub draining: Arc<[SocketAddr]>,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Uniformly, each connection on its own, as kube-proxy does.
    #[default]
    Random,
    /// By a hash of the connection's addresses and ports over a Maglev table (Eisenbud et al., NSDI 2016): nodes agree, and a change of the
    /// backends moves few connections. Asked for by annotation.
    Maglev,
}

/// Addresses that services may have: one that no service has is dropped by name, never routed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRange {
    /// Key.
    pub prefix: IpNet,
    /// `servicecidr/NAME` or `--service-cidr`.
    pub origin: String,
}
