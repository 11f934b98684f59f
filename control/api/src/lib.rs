//! Plain data: everything that may be said about a switch, and everything that may be said to one.
//!
//! The crate knows no packet and no socket beyond `Read + Write`. Nouns (`Bridge`, `Port`, ...) arrive at the switch
//! resolved: by number, never by name or selector. A transaction is a list of [`Change`]s of those nouns.

pub mod acl;
pub mod addr;
pub mod attachment;
pub mod bridge;
pub mod change;
pub mod datum;
pub mod detached;
pub mod endpoint;
pub mod filter;
pub mod id;
pub mod option;
pub mod policy;
pub mod port;
pub mod reply;
pub mod request;
pub mod route;
pub mod rpc;
pub mod service;
pub mod state;
pub mod station;
pub mod verb;

pub use acl::{Acl, AclAction, AclKey, AclMatch, AclPlace, AclRule, AclWay};
pub use addr::MacAddr;
pub use attachment::{
    Addressing, Assigned, Attach, AttachRefusal, AttachReply, Attached, AttachmentId, Bandwidth, Expected, HostPort,
    Interface, InterfaceRoute, PodRef, Rate, Shaper,
};
pub use bridge::Bridge;
pub use change::{Change, Delta, Transaction};
pub use datum::Datum;
pub use endpoint::{AddressKey, Endpoint, EndpointKind, Neighbor};
pub use id::{BridgeId, Generation, PortId};
pub use policy::{
    Action, Block, GroupId, Guard, NamedPort, Peers, PortMatch, PortName, Ports, Rule, Ruleset, RulesetId, Subject,
};
pub use port::{Port, Vlan};
pub use request::{Command, Request};
pub use route::{Hop, Route, RouteKey, Router};
pub use rpc::reason;
pub use service::{Choice, Eligibility, External, HealthCheck, Proto, Service, ServiceKey, ServiceRange};
pub use station::{Station, StationKey};
