//! Every sentence that may be said on the control socket.
//!
//! A request is a method and one object. The same sentences can be said in words, as people type them and as
//! `ovs-appctl` sends them: `verb.rs` knows how.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use std::net::IpAddr;

use ipnet::IpNet;

use crate::attachment::{Attach, AttachmentId, Expected};
use crate::filter::Filter;
use crate::{AclMatch, AclRule, AclWay, MacAddr};

/// A request. The name of a variant's method stands beside it; its fields are the members of the params object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", deny_unknown_fields)]
pub enum Request {
    /// Carry out commands on the configuration: all of them, or none.
    #[serde(rename = "transact")]
    Transact {
        /// In order; each sees what those before it did.
        commands: Vec<Command>,
    },
    /// The MAC table of a bridge.
    #[serde(rename = "fdb/show")]
    FdbShow {
        /// Its name.
        bridge: String,
    },
    /// Forget learned stations.
    #[serde(rename = "fdb/flush")]
    FdbFlush {
        /// Of this bridge; of all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
    },
    /// Place a station at a port, by hand and for good.
    #[serde(rename = "fdb/add")]
    FdbAdd {
        /// Name of the bridge.
        bridge: String,
        /// Name of the port.
        port: String,
        /// VLAN id.
        vlan: u16,
        /// The station's address.
        mac: MacAddr,
    },
    /// Take back what `fdb/add` did.
    #[serde(rename = "fdb/del")]
    FdbDel {
        /// Name of the bridge.
        bridge: String,
        /// VLAN id.
        vlan: u16,
        /// The station's address.
        mac: MacAddr,
    },
    /// Say where a prefix leads, for good. It takes effect where there is a router.
    #[serde(rename = "route/add")]
    RouteAdd {
        /// Name of the bridge.
        bridge: String,
        /// The destinations.
        prefix: IpNet,
        /// Where to.
        to: To,
    },
    /// Take back what `route/add` did.
    #[serde(rename = "route/del")]
    RouteDel {
        /// Name of the bridge.
        bridge: String,
        /// The destinations.
        prefix: IpNet,
    },
    /// State a neighbour, for good. It takes effect where there is a router.
    #[serde(rename = "neigh/add")]
    NeighAdd {
        /// Name of the bridge.
        bridge: String,
        /// The neighbour's address.
        address: IpAddr,
        /// Name of the port behind which it is.
        port: String,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Take back what `neigh/add` did.
    #[serde(rename = "neigh/del")]
    NeighDel {
        /// Name of the bridge.
        bridge: String,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// Add a rule to an access list, for good.
    #[serde(rename = "acl-add")]
    AclAdd {
        /// Name of the bridge or of the port; of both, the bridge.
        at: String,
        /// For what goes which way.
        way: AclWay,
        /// The rule.
        rule: AclRule,
        /// It is no fault if it is there.
        #[serde(default, skip_serializing_if = "is_false")]
        may_exist: bool,
    },
    /// Take rules out of access lists.
    #[serde(rename = "acl-del")]
    AclDel {
        /// Name of the bridge or of the port; of both, the bridge.
        at: String,
        /// Of this way; of both when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        way: Option<AclWay>,
        /// The one of this priority and match; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<(u16, AclMatch)>,
    },
    /// The access lists of a bridge or a port.
    #[serde(rename = "acl-list")]
    AclList {
        /// Its name; of both, the bridge.
        at: String,
    },
    /// Replace an access list at once.
    #[serde(rename = "acl-load")]
    AclLoad {
        /// Name of the bridge or of the port; of both, the bridge.
        at: String,
        /// For what goes which way.
        way: AclWay,
        /// The rules, in any order of priority; of equal ones the first is asked first.
        rules: Vec<AclRule>,
    },
    /// Services of the cluster, programmed or not.
    #[serde(rename = "services")]
    Services {
        /// Of this namespace; of all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Tell each backend in the table, not only how many there are.
        #[serde(default, skip_serializing_if = "is_false")]
        wide: bool,
    },
    /// Network policies of the cluster, or those that select a pod.
    #[serde(rename = "policies")]
    Policies {
        /// Of this namespace; of all, and of the cluster, when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// `NAMESPACE/NAME` of a pod, or its name in `namespace`: tell what decides for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
    },
    /// Routes, of the cluster and of operators.
    #[serde(rename = "routes")]
    Routes {},
    /// Neighbours, static and learned.
    #[serde(rename = "neighbors")]
    Neighbors {},
    /// Tracked connections.
    #[serde(rename = "connections")]
    Connections {
        /// Only these.
        #[serde(default, skip_serializing_if = "Filter::is_all")]
        filter: Filter,
    },
    /// Tracked connections, as ovs-dpctl prints them.
    #[serde(rename = "dpctl/dump-conntrack")]
    DumpConntrack {
        /// Only these.
        #[serde(default, skip_serializing_if = "Filter::is_all")]
        filter: Filter,
    },
    /// Forget tracked connections.
    #[serde(rename = "dpctl/flush-conntrack")]
    FlushConntrack {
        /// Only these.
        #[serde(default, skip_serializing_if = "Filter::is_all")]
        filter: Filter,
    },
    /// What would become of a first packet.
    #[serde(rename = "trace")]
    Trace {
        /// `pod/NS/NAME`, `node/NAME` or an address.
        from: String,
        /// `pod/NS/NAME`, `svc/NS/NAME`, `node/NAME` or an address.
        to: String,
        /// `tcp`, `udp`, `sctp` or `icmp`.
        proto: Protocol,
        /// Source port; one of the dynamic range when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sport: Option<u16>,
        /// Destination port; may be absent for `icmp`, and for a service with one port of the protocol.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dport: Option<u16>,
    },
    /// Prove that the live tables do what the cluster's state says.
    #[serde(rename = "verify")]
    Verify {
        /// Only what comes from there, as in `trace`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Only what goes there, as in `trace`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Counters of a bridge's ports.
    #[serde(rename = "dump-ports")]
    DumpPorts {
        /// Name of the bridge.
        bridge: String,
        /// Name or OpenFlow number of one port; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Frames dropped, by port and reason.
    #[serde(rename = "drops")]
    Drops {
        /// Name of one port; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// All ports as they are now.
    #[serde(rename = "ports")]
    Ports {},
    /// All workers as they are now.
    #[serde(rename = "workers")]
    Workers {},
    /// Event counters.
    #[serde(rename = "coverage/show")]
    Coverage {},
    /// The daemon's version.
    #[serde(rename = "version")]
    Version {},
    /// What may be said in words.
    #[serde(rename = "list-commands")]
    ListCommands {},
    /// Send a notice `frame` for each frame that enters or leaves by a port, until the connection is closed.
    #[serde(rename = "capture")]
    Capture {
        /// Name of the port.
        port: String,
    },
    /// Make an interface for a container; answered when packets see it, its address, its services and its policies.
    #[serde(rename = "attach")]
    Attach(Box<Attach>),
    /// Remove an attachment and give its addresses back. It is no fault if it is not there.
    #[serde(rename = "detach")]
    Detach {
        /// Which.
        id: AttachmentId,
    },
    /// Compare an attachment with what it shall be.
    #[serde(rename = "attachment/check")]
    AttachmentCheck {
        /// Which.
        id: AttachmentId,
        /// What it shall be.
        expected: Expected,
    },
    /// Remove the attachments of a network that are not among these.
    #[serde(rename = "attachment/gc")]
    AttachmentGc {
        /// The network.
        network: String,
        /// Container and interface of those that stay.
        valid: Vec<(String, String)>,
    },
    /// Whether an attachment to a network could be made now.
    #[serde(rename = "attachment/status")]
    AttachmentStatus {
        /// Version of the sentences between plugin and daemon.
        protocol: u16,
        /// The bridge; the cluster's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
        /// The daemon would have to give the addresses.
        assigns: bool,
    },
    /// Attachments, with their addresses.
    #[serde(rename = "attachments")]
    Attachments {},
    /// Take the objects of manifests into the cluster, each for itself.
    #[serde(rename = "apply")]
    Apply {
        /// The manifests.
        manifests: Vec<Manifest>,
        /// Namespace of objects that name none; `default` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// Take objects that were applied out of the cluster.
    #[serde(rename = "delete")]
    Delete {
        /// Manifests of which the objects go.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        manifests: Vec<Manifest>,
        /// Kind of the objects named in `names`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// Names of objects.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// Their namespace; `default` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// Objects of the cluster.
    #[serde(rename = "get")]
    Get {
        /// Their kind, as kubectl knows it; several with commas between them.
        kind: String,
        /// Their names; all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// Their namespace; `default` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Of every namespace.
        #[serde(default, skip_serializing_if = "is_false")]
        all_namespaces: bool,
        /// How much is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Output>,
    },
}

/// The text of a file of manifests: YAML or JSON, with any number of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What to call it when it cannot be read.
    pub name: String,
    /// The text.
    pub text: String,
}

/// How much `get` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// A table with more columns.
    Wide,
    /// The objects as they were applied, as YAML.
    Yaml,
    /// The objects as they were applied, as JSON.
    Json,
}

/// A command on the configuration. Together they are what ovs-vsctl's database commands are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Make a bridge, and its LOCAL port.
    AddBr {
        /// Its name.
        bridge: String,
        /// It is no fault if it is there.
        #[serde(default, skip_serializing_if = "is_false")]
        may_exist: bool,
    },
    /// Remove a bridge, its ports and stations.
    DelBr {
        /// Its name.
        bridge: String,
        /// It is no fault if it is not there.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Names of the bridges.
    ListBr {},
    /// Whether there is such a bridge.
    BrExists {
        /// Its name.
        bridge: String,
    },
    /// Overview of the configuration.
    Show {},
    /// Make a port.
    AddPort {
        /// The bridge it shall belong to.
        bridge: String,
        /// Its name.
        port: String,
        /// It is no fault if it is there, on this bridge.
        #[serde(default, skip_serializing_if = "is_false")]
        may_exist: bool,
        /// Columns of its `Port` record.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        columns: Vec<Assignment>,
    },
    /// Remove a port and its stations.
    DelPort {
        /// The bridge it must belong to; any when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
        /// Its name.
        port: String,
        /// It is no fault if it is not there.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Names of a bridge's ports, without LOCAL.
    ListPorts {
        /// Its name.
        bridge: String,
    },
    /// Name of the bridge that a port belongs to.
    PortToBr {
        /// Its name.
        port: String,
    },
    /// Values of columns of a record.
    Get {
        /// The table.
        table: Table,
        /// Name of the record.
        record: String,
        /// The columns, or keys of columns.
        columns: Vec<Column>,
        /// It is no fault if there is no such record.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Set columns of a record.
    Set {
        /// The table.
        table: Table,
        /// Name of the record.
        record: String,
        /// The columns.
        columns: Vec<Assignment>,
        /// It is no fault if there is no such record.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Set columns of a record back to what they are when nobody sets them.
    Clear {
        /// The table.
        table: Table,
        /// Name of the record.
        record: String,
        /// The columns, or keys of columns.
        columns: Vec<Column>,
        /// It is no fault if there is no such record.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Remove values from a column of a record.
    Remove {
        /// The table.
        table: Table,
        /// Name of the record.
        record: String,
        /// The column.
        column: String,
        /// Values in OVS's notation; keys, or keys with values, of a column that is a map. It is no fault if they are
        /// not there.
        values: Vec<String>,
        /// It is no fault if there is no such record.
        #[serde(default, skip_serializing_if = "is_false")]
        if_exists: bool,
    },
    /// Records of a table.
    List {
        /// The table.
        table: Table,
        /// Names of the records; all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        records: Vec<String>,
        /// The columns to tell; all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        columns: Vec<String>,
    },
    /// Records of a table that meet all conditions.
    Find {
        /// The table.
        table: Table,
        /// The conditions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        conditions: Vec<Condition>,
        /// The columns to tell; all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        columns: Vec<String>,
    },
}

/// Where a route of `route/add` leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hop", rename_all = "kebab-case", deny_unknown_fields)]
pub enum To {
    /// The destination is a neighbour on the link of a port.
    OnLink {
        /// Name of the port.
        port: String,
    },
    /// By way of a neighbour on the link of a port.
    Via {
        /// Name of the port.
        port: String,
        /// The neighbour's address.
        gateway: IpAddr,
    },
    /// Refused with ICMP network unreachable.
    Unreachable {},
    /// Dropped by name, without an answer.
    Blackhole {},
}

/// What a traced packet can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An INIT.
    Sctp,
    /// An echo request, of ICMP or ICMPv6 as the addresses are.
    Icmp,
}

/// The kinds of records. A port and its interface are one thing here, told in two records as OVS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// Bridges.
    Bridge,
    /// Ports: their VLANs.
    Port,
    /// Interfaces: their devices.
    Interface,
}

/// `COLUMN` or `COLUMN:KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column.
    pub column: String,
    /// A key of a column that is a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `COLUMN[:KEY]=VALUE`. The value is text in OVS's notation: what it means depends on the column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The column.
    pub column: String,
    /// A key of a column that is a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value.
    pub value: String,
}

/// `COLUMN[:KEY]=VALUE` or `COLUMN[:KEY]!=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// A key of a column that is a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// True for `=`, false for `!=`.
    pub equal: bool,
    /// The value.
    pub value: String,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Request {
    /// Method and params object.
    pub fn to_wire(&self) -> (String, Value) {
        // Plain data with string keys: there is no way for this to fail, and null is refused by the other end.
        let mut wire = serde_json::to_value(self).unwrap_or_default();
        let method = wire["method"].as_str().unwrap_or_default().to_owned();
        (method, wire["params"].take())
    }

    /// The sentence that a method and a params object are.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub fn from_wire(method: &str, params: Value) -> Result<Self, String> {
        serde_json::from_value(json!({"method": method, "params": params})).map_err(|e| {
            let why = e.to_string();
            if why.starts_with("unknown variant") && why.contains(&format!("`{method}`")) {
                unknown_method(method)
            } else {
                format!("{method}: {why}")
            }
        })
    }
}

/// What is said to a method that does not exist; the words of ovs-vswitchd.
pub(crate) fn unknown_method(method: &str) -> String {
    let method: String = method.chars().take(64).collect();
    format!(
        "\"{}\" is not a valid command (use \"list-commands\" to see a list of valid commands)",
        method.escape_debug()
    )
}

impl Command {
    /// The verb, as people type it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::AddBr { .. } => "add-br",
            Self::DelBr { .. } => "del-br",
            Self::ListBr {} => "list-br",
            Self::BrExists { .. } => "br-exists",
            Self::Show {} => "show",
            Self::AddPort { .. } => "add-port",
            Self::DelPort { .. } => "del-port",
            Self::ListPorts { .. } => "list-ports",
            Self::PortToBr { .. } => "port-to-br",
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Clear { .. } => "clear",
            Self::Remove { .. } => "remove",
            Self::List { .. } => "list",
            Self::Find { .. } => "find",
        }
    }
}

impl Table {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "Bridge",
            Self::Port => "Port",
            Self::Interface => "Interface",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_survives_the_wire() {
        let request = Request::FdbAdd { bridge: "br0".into(), port: "p1".into(), vlan: 7, mac: MacAddr([2; 6]) };
        let (method, params) = request.to_wire();
        assert_eq!(method, "fdb/add");
        assert_eq!(Request::from_wire(&method, params), Ok(request));
    }

    #[test]
    fn what_is_no_sentence_is_refused_in_one_line() {
        let refused = |method, params| Request::from_wire(method, params).unwrap_err();
        assert_eq!(
            refused("fdb/shw", json!({})),
            "\"fdb/shw\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
        );
        assert_eq!(refused("fdb/show", json!({})), "fdb/show: missing field `bridge`");
        assert_eq!(refused("ports", json!({"colour": 1})), "ports: unknown field `colour`, there are no fields");
        let mac = json!({"bridge": "br0", "vlan": 1, "mac": "1:2"});
        assert_eq!(refused("fdb/del", mac), "fdb/del: 1:2: invalid Ethernet address");
        assert!(refused("transact", json!({"commands": [{"verb": "fly"}]})).starts_with("transact: unknown variant"));
    }
}
