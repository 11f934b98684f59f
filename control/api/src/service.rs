//! A service: a virtual address and port, and what is behind it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The virtual address.
    pub address: IpAddr,
    /// The protocol.
    pub proto: Proto,
    /// The port, 1 to 65535.
    pub port: u16,
}

impl Hash for ServiceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(addr::bits(self.address));
        state.write_u32(u32::from(self.port) << 8 | self.proto as u32);
    }
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
    /// A client that comes again within so many seconds of its last new connection meets the same backend, as long as that is
    /// one (`sessionAffinity: ClientIP`). Clients are remembered by `name`: at all its addresses together.
    pub affinity: Option<u32>,
    /// New connections go to these, each at most once. None: TCP is reset, the rest gets ICMP port unreachable.
    pub backends: Arc<[SocketAddr]>,
    /// Beside `backends`: these still serve, so what is connected to them stays, but they get nothing new. UDP flows to
    /// a backend in neither list are ended (`pkg/proxy/conntrack/cleanup.go` of Kubernetes).
    pub draining: Arc<[SocketAddr]>,
    /// There are endpoints that serve, on other nodes, and policy keeps them from this address: who finds no backend meets
    /// silence, not refusal.
    pub elsewhere: bool,
    /// The address is one by which the service is reached from beyond the cluster; `None` for a cluster address.
    pub external: Option<Arc<External>>,
}

impl Service {
    /// A service at a cluster address, without affinity.
    pub fn new(key: ServiceKey, name: Arc<str>, backends: Arc<[SocketAddr]>) -> Self {
        let draining = Arc::from([]);
        Self {
            key,
            name,
            choice: Choice::default(),
            affinity: None,
            backends,
            draining,
            elsewhere: false,
            external: None,
        }
    }
}

/// What is particular to a node port, an external address or a load balancer's (`spec.externalIPs`,
/// `status.loadBalancer.ingress`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// `None`: traffic policy Cluster, everybody is sent to `backends` and is seen there as the node. Else policy Local:
    /// clients from beyond this node are sent to these and keep their address; pods of this node keep theirs, and are sent to
    /// `backends` like the node itself, which is seen as itself.
    pub local: Option<Arc<[SocketAddr]>>,
    /// Clients from elsewhere meet silence (`spec.loadBalancerSourceRanges`); `None`: anybody may come.
    pub sources: Option<Arc<[IpNet]>>,
    /// The same port at the service's cluster address of this family: where the node's own processes are led when the kernel
    /// has the address itself, and would look for it on no wire.
    pub cluster: SocketAddr,
}

/// A port on which the node tells load balancers whether to send traffic here (`spec.healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Key: the port, 1 to 65535.
    pub port: u16,
    /// Namespace and name of the service.
    pub service: (Arc<str>, Arc<str>),
    /// Ready endpoints on this node, each address once.
    pub local_endpoints: u32,
    /// Addresses of the node that it answers on: those of node ports.
    pub addresses: Arc<[IpAddr]>,
}

/// Whether this node is to get traffic of load balancers at all (`/healthz` of kube-proxy). There is at most one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eligibility {
    /// Why not: the Node object is being deleted, or the cluster autoscaler is about to. `None`: it is eligible.
    pub why_not: Option<String>,
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
