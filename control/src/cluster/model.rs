//! Kubernetes objects, reduced to what a node's network follows from.
//!
//! Manifests are read and checked as the types of `k8s-openapi` (see `objects`) and kept in this form, which is small
//! (a cluster has 250,000 endpoints) and has no room for nonsense: addresses are addresses, ports are 1 to 65535.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::Proto;
use ipnet::IpNet;

/// Text that many objects share.
pub(crate) type Text = Arc<str>;
/// Labels of an object, or a selector's `matchLabels`.
pub(crate) type Labels = BTreeMap<Text, Text>;

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Named {
    pub(crate) namespace: Text,
    pub(crate) name: Text,
}

/// A Node: `metadata`, `spec.podCIDRs`, `status.addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: Text,
    pub(crate) labels: Labels,
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Addresses of type InternalIP.
    pub(crate) addresses: Vec<IpAddr>,
    /// Those of type ExternalIP that are not InternalIP too.
    pub(crate) external: Vec<IpAddr>,
    /// What keeps load balancers from it, if something does: to be read after its name.
    pub(crate) leaving: Option<&'static str>,
}

impl Node {
    /// Label `topology.kubernetes.io/zone`.
    pub(crate) fn zone(&self) -> Option<&Text> {
        self.labels.get("topology.kubernetes.io/zone").filter(|zone| !zone.is_empty())
    }

    /// Its addresses, those by which the cluster knows it first.
    pub(crate) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().chain(&self.external).copied()
    }

    /// Its first address of each family, IPv4 first.
    pub(crate) fn primary(&self) -> impl Iterator<Item = IpAddr> {
        let first = |v4: bool| self.all_addresses().find(|address| address.is_ipv4() == v4);
        [true, false].into_iter().filter_map(first)
    }
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) id: Named,
    pub(crate) uid: Text,
    pub(crate) labels: Labels,
    pub(crate) node: Option<Text>,
    pub(crate) host_network: bool,
    /// `status.podIPs`; those of the node for pods of the host network.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its condition Ready is True.
    pub(crate) ready: bool,
    /// It has a deletion timestamp.
    pub(crate) terminating: bool,
    /// Phase Succeeded or Failed: its addresses may be another's.
    pub(crate) finished: bool,
    /// Named container ports, those of restartable init containers too.
    pub(crate) ports: Vec<ContainerPort>,
    /// What annotations ask for.
    pub(crate) bandwidth: api::Bandwidth,
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerPort {
    pub(crate) name: Text,
    pub(crate) proto: Proto,
    pub(crate) port: u16,
}

/// A Service. What of it is programmed, and whether at all (rule S1), `compile` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) id: Named,
    pub(crate) labels: Labels,
    /// Annotations of ours and of topology, by their full keys.
    pub(crate) annotations: Labels,
    pub(crate) kind: ServiceKind,
    /// `spec.clusterIPs`, or `spec.clusterIP`; empty when headless or ExternalName.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilies`, or the families of its addresses; both for a headless service that names none.
    pub(crate) families: Vec<Family>,
    /// Empty: whoever makes its EndpointSlices knows.
    pub(crate) selector: Labels,
    pub(crate) publish_not_ready: bool,
    pub(crate) ports: Vec<ServicePort>,
    /// `metadata.creationTimestamp`, in seconds since the Unix epoch.
    pub(crate) created: Option<i64>,
    /// `sessionAffinity: ClientIP`: for how many seconds.
    pub(crate) affinity: Option<u32>,
    /// `internalTrafficPolicy`: which endpoints its cluster addresses lead to.
    pub(crate) internal_policy: Policy,
    /// `trafficDistribution`, for whoever makes its slices.
    pub(crate) distribution: Distribution,
    pub(crate) external: External,
}

/// How a service is reached from beyond the cluster, beside its node ports. Nothing of it for types that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct External {
    /// `externalTrafficPolicy`: which endpoints external addresses and node ports lead to.
    pub(crate) policy: Policy,
    /// `spec.externalIPs`, each once.
    pub(crate) ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`, each address once.
    pub(crate) ingress: Vec<Ingress>,
    /// `loadBalancerSourceRanges`, of both families.
    pub(crate) sources: Vec<IpNet>,
    /// `healthCheckNodePort`, where the policy is Local.
    pub(crate) health_port: Option<u16>,
}

/// An address of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) address: IpAddr,
    /// `ipMode: Proxy`: connections must go by way of the load balancer, which ends them.
    pub(crate) proxied: bool,
}

/// A traffic policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    #[default]
    Cluster,
    /// Only endpoints of this node.
    Local,
}

/// `trafficDistribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Nobody asked for any.
    #[default]
    Even,
    /// PreferSameZone, and PreferClose, its older name.
    SameZone,
    SameNode,
}

/// `spec.type`, and headless, which is a kind of its own to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    ClusterIp,
    Headless,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty when it has none, which only a single port may have.
    pub(crate) name: Text,
    pub(crate) proto: Proto,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
    pub(crate) node_port: Option<u16>,
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    /// Of a container port, looked up in each pod.
    Name(Text),
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) id: Named,
    /// Label `kubernetes.io/service-name`; a slice of no service serves nobody.
    pub(crate) service: Option<Named>,
    pub(crate) family: Family,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
    /// Made here from the pods that the service selects, not by a manifest.
    pub(crate) ours: bool,
}

/// `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
    /// FQDN: ignored, as by kube-proxy (rule E2).
    Name,
}

impl Family {
    /// The family of an address.
    pub(crate) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As Kubernetes spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Name => "FQDN",
        }
    }
}

/// A port of an EndpointSlice. One without a number is not here (rule E4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlicePort {
    pub(crate) name: Text,
    pub(crate) proto: Proto,
    pub(crate) port: u16,
}

/// An endpoint of a slice, its conditions with their defaults applied (rule E3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    /// `addresses[0]`.
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) node: Option<Text>,
    pub(crate) zone: Option<Text>,
    /// Most have none, and a cluster has many endpoints.
    pub(crate) hints: Option<Box<Hints>>,
    /// The Pod of `targetRef`, by name in the slice's namespace.
    pub(crate) pod: Option<Text>,
}

/// `hints` of an endpoint: from where it is best used. Each list may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) zones: Vec<Text>,
    pub(crate) nodes: Vec<Text>,
}

/// A ServiceCIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cidrs {
    pub(crate) name: Text,
    pub(crate) prefixes: Vec<IpNet>,
}

/// A NetworkPolicy of `networking.k8s.io/v1`, its defaults applied (rule N4): a direction that is no policy type of it is
/// `None`, whatever rules it has (N5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPolicy {
    pub(crate) id: Named,
    /// `spec.podSelector`, of pods of its namespace.
    pub(crate) subjects: Selector,
    pub(crate) ingress: Option<Vec<PolicyRule>>,
    pub(crate) egress: Option<Vec<PolicyRule>>,
}

/// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterPolicy {
    pub(crate) name: Text,
    pub(crate) tier: Tier,
    /// 0 to 1000, lower first.
    pub(crate) priority: u16,
    /// `spec.subject`.
    pub(crate) subjects: PodSelector,
    pub(crate) ingress: Vec<PolicyRule>,
    pub(crate) egress: Vec<PolicyRule>,
}

/// `spec.tier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Tier {
    Admin,
    Baseline,
}

/// A rule of a policy, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyRule {
    /// Accept for those of NetworkPolicies.
    pub(crate) action: api::Action,
    /// `name` of a rule of a ClusterNetworkPolicy; empty when it has none.
    pub(crate) name: Text,
    /// `from`, `to`; `None`: any peer (rule N8). Empty matches nobody: what of it is not known here fails closed.
    pub(crate) peers: Option<Vec<PolicyPeer>>,
    /// `ports`, `protocols`; `None`: any.
    pub(crate) ports: Option<Vec<PolicyPort>>,
}

/// A peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyPeer {
    /// Pods by labels of their own and of their namespaces (N9).
    Pods(PodSelector),
    /// `ipBlock`, or an entry of `networks`.
    Block { cidr: IpNet, except: Vec<IpNet> },
    /// Nodes by their labels (ClusterNetworkPolicy, egress only).
    Nodes(Selector),
}

/// Which pods: of which namespaces, and which of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodSelector {
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: Selector,
}

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Namespaces {
    /// This one, by name: `namespaceSelector` was not given.
    Own(Text),
    /// Those with such labels.
    With(Selector),
}

/// A LabelSelector: all of it must hold. The empty one selects everything. `matchLabels` are requirements too; they are in
/// order and each is once, so that equal selectors are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Selector(pub(crate) Vec<Requirement>);

/// An entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Requirement {
    pub(crate) key: Text,
    pub(crate) test: Test,
}

/// What a label is asked (rule N10). Values are in order, each once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Test {
    In(Vec<Text>),
    /// Also without the label.
    NotIn(Vec<Text>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether it selects what has these labels.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement { key, test }| match (test, labels.get(key)) {
            (Test::In(values), Some(value)) => values.binary_search(value).is_ok(),
            (Test::NotIn(values), Some(value)) => values.binary_search(value).is_err(),
            (Test::Exists, value) => value.is_some(),
            (Test::DoesNotExist, value) => value.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
        })
    }
}

/// An entry of `ports` or `protocols`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyPort {
    /// `None` only with a name, in a ClusterNetworkPolicy: whatever protocol the container port has.
    pub(crate) proto: Option<Proto>,
    pub(crate) ports: PolicyPorts,
}

/// Destination ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyPorts {
    /// First and last; 0 and 65535 for all.
    Range(u16, u16),
    /// Of a container port of the destination pod (N12).
    Named(Text),
}

/// Every object that is in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) nodes: BTreeMap<Text, Arc<Node>>,
    pub(crate) namespaces: BTreeMap<Text, Labels>,
    pub(crate) pods: BTreeMap<Named, Arc<Pod>>,
    pub(crate) services: BTreeMap<Named, Arc<Service>>,
    /// Those of manifests and our own alike.
    pub(crate) slices: BTreeMap<Named, Arc<Slice>>,
    pub(crate) service_cidrs: BTreeMap<Text, Arc<Cidrs>>,
    pub(crate) policies: BTreeMap<Named, Arc<NetworkPolicy>>,
    pub(crate) cluster_policies: BTreeMap<Text, Arc<ClusterPolicy>>,
    /// The slices of each service, whether there is such a service or not.
    pub(crate) slices_of: BTreeMap<Named, BTreeSet<Named>>,
}

/// An object that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Changed {
    Node(Text),
    Namespace(Text),
    Pod(Named),
    Service(Named),
    Slice(Named),
    ServiceCidr(Text),
    Policy(Named),
    ClusterPolicy(Text),
}
