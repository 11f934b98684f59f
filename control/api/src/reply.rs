//! Every answer on the control socket. What `Display` writes is exactly what people see, whoever prints it: vsctl, or
//! the daemon for clients that know only text. Layouts are those of Open vSwitch where it has one.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::datum::Datum;
use crate::state::{Captured, Coverage, PortStats, WorkerState};
use crate::{AttachReply, MacAddr, Port, Request, Vlan};

mod attachments;
mod network;
mod policies;
mod verified;

pub use attachments::{AttachmentRow, Attachments};
pub use policies::{DeniedRow, PodDirection, PodPolicies, PodPolicy, PodRule, Policies, PolicyRow};

pub use network::{
    AclRow, AclTable, AddressKind, ConnectionRow, Connections, Conntrack, NeighborRow, Neighbors, RouteRow, Routes,
    ServiceRow, Services, Trace, TrafficPolicy,
};
pub use verified::{CounterExample, Verified};

/// What a plain sentence is answered with; nothing when there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

/// Answer to [`Request::Transact`]: one a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outputs(pub Vec<Output>);

/// Answer to one [`crate::request::Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Done, and nothing to say.
    Done,
    /// Whether it is there.
    Exists(bool),
    /// Names.
    Names(Vec<String>),
    /// Values of the columns that were asked for, in their order.
    Values(Vec<Datum>),
    /// Records: columns with values, in order.
    Records(Vec<Vec<(String, Datum)>>),
    /// The overview.
    Show(Show),
}

/// Overview of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// The daemon's version.
    pub version: String,
    /// By name.
    pub bridges: Vec<ShowBridge>,
}

/// A bridge of the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowBridge {
    /// Its name.
    pub name: String,
    /// Why it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// By name.
    pub ports: Vec<ShowPort>,
}

/// A port of the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowPort {
    /// Its name.
    pub name: String,
    /// Its VLANs.
    pub vlan: Vlan,
    /// Device kind.
    pub kind: String,
    /// Options of the kind.
    pub options: std::collections::BTreeMap<String, String>,
    /// Why it carries no frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer to `fdb/show`, by age, youngest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fdb(pub Vec<FdbRow>);

/// A station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// OpenFlow number of its port.
    pub ofport: u16,
    /// Name of its port.
    pub port: String,
    /// VLAN id.
    pub vlan: u16,
    /// Its address.
    pub mac: MacAddr,
    /// Seconds since it was last heard; absent for a static entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u32>,
}

/// Answer to `dump-ports`, by OpenFlow number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortCounters(pub Vec<PortCountersRow>);

/// Counters of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCountersRow {
    /// OpenFlow number.
    pub ofport: u16,
    /// Name.
    pub port: String,
    /// The counters.
    #[serde(flatten)]
    pub stats: PortStats,
}

/// Answer to `ports`, by bridge and OpenFlow number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports(pub Vec<PortRow>);

/// A port as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Name.
    pub port: String,
    /// Name of its bridge.
    pub bridge: String,
    /// OpenFlow number.
    pub ofport: u16,
    /// Device kind.
    pub kind: String,
    /// Name of its network interface.
    pub ifname: Option<String>,
    /// Address of its device.
    pub mac: Option<MacAddr>,
    /// MTU in force.
    pub mtu: u16,
    /// Up, with a carrier.
    pub link: Option<bool>,
    /// What the device takes off our hands.
    pub offloads: String,
    /// Number of the worker that reads it.
    pub worker: Option<u16>,
    /// What went through it.
    pub stats: PortStats,
    /// Why it carries no frames.
    pub error: Option<String>,
}

/// Answer to `drops`, by port and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Drops(pub Vec<DropRow>);

/// Frames of one port dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Name of the port where they came in.
    pub port: String,
    /// Name of the reason.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// What the reason means.
    pub sentence: String,
}

/// Answer to `workers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Workers(pub Vec<WorkerState>);

/// Answer to `coverage/show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CoverageTable(pub Vec<Coverage>);

/// Answer to `list-commands`: verbs and what stands behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commands(pub Vec<(String, String)>);

/// Answer to `apply` and `delete`: one an object, in the order of the manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Objects(pub Vec<ObjectRow>);

/// What an object came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// As kubectl names it, `service/web`; or the file, when it cannot be told which object it is.
    pub object: String,
    /// What it came to.
    pub outcome: Outcome,
}

/// What an object came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was another.
    Configured,
    /// It was the same.
    Unchanged,
    /// It is gone.
    Deleted,
    /// Nothing was done, and why that is no fault.
    Skipped(String),
    /// Nothing was done: field, value, rule.
    Refused(String),
}

/// Answer to `get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Got {
    /// A table for each kind.
    Tables(Vec<ObjectTable>),
    /// YAML or JSON, as it was asked for.
    Text(String),
}

/// Objects of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTable {
    /// What stands above the columns.
    pub headings: Vec<String>,
    /// A row an object.
    pub rows: Vec<Vec<String>>,
}

/// What a notice `frame` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Came in by the port (true) or left by it.
    pub ingress: bool,
    /// Octets of the frame on the port, of which `bytes` may be the beginning.
    pub len: u32,
    /// The octets, two hexadecimal digits each.
    pub bytes: String,
}

impl Frame {
    /// A captured frame as it is told.
    pub fn new(captured: &Captured) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let bytes = captured.bytes.iter().flat_map(|&b| [digit(b >> 4), digit(b & 15)]).collect();
        Self { time: captured.time, ingress: captured.ingress, len: captured.len, bytes }
    }

    /// The frame that was told; `None` if its octets are none.
    pub fn captured(&self) -> Option<Captured> {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let octet = |pair: &[u8]| match pair {
            &[high, low] => Some(nibble(high)? << 4 | nibble(low)?),
            _ => None,
        };
        let bytes = self.bytes.as_bytes().chunks(2).map(octet).collect::<Option<_>>()?;
        Some(Captured { time: self.time, ingress: self.ingress, len: self.len, bytes })
    }
}

/// The text of an answer: what the daemon sends to clients that want text, made from the data by the client that asked.
///
/// # Errors
/// When the data is not what `request` is answered with.
pub fn text(request: &Request, answer: Value) -> Result<String, String> {
    fn of<T: DeserializeOwned + fmt::Display>(answer: Value) -> Result<String, String> {
        serde_json::from_value::<T>(answer).map(|t| t.to_string()).map_err(|e| format!("answer not understood: {e}"))
    }
    match request {
        Request::Transact { .. } => of::<Outputs>(answer),
        Request::FdbShow { .. } => of::<Fdb>(answer),
        Request::DumpPorts { .. } => of::<PortCounters>(answer),
        Request::Drops { .. } => of::<Drops>(answer),
        Request::Ports {} => of::<Ports>(answer),
        Request::Workers {} => of::<Workers>(answer),
        Request::Coverage {} => of::<CoverageTable>(answer),
        Request::ListCommands {} => of::<Commands>(answer),
        Request::Apply { .. } | Request::Delete { .. } => of::<Objects>(answer),
        Request::Get { .. } => of::<Got>(answer),
        Request::Services { wide, .. } => {
            let services: Services =
                serde_json::from_value(answer).map_err(|e| format!("answer not understood: {e}"))?;
            Ok(services.table(*wide))
        }
        Request::Policies { .. } => of::<Policies>(answer),
        Request::AclList { .. } => of::<AclTable>(answer),
        Request::Routes {} => of::<Routes>(answer),
        Request::Neighbors {} => of::<Neighbors>(answer),
        Request::Connections { .. } => of::<Connections>(answer),
        Request::DumpConntrack { .. } => of::<Conntrack>(answer),
        Request::Trace { .. } => of::<Trace>(answer),
        Request::Verify { .. } => of::<Verified>(answer),
        Request::Attachments {} => of::<Attachments>(answer),
        Request::Attach(_) | Request::AttachmentCheck { .. } | Request::AttachmentStatus { .. } => {
            of::<AttachReply>(answer)
        }
        Request::AclAdd { .. }
        | Request::AclDel { .. }
        | Request::AclLoad { .. }
        | Request::RouteAdd { .. }
        | Request::RouteDel { .. }
        | Request::NeighAdd { .. }
        | Request::NeighDel { .. }
        | Request::Detach { .. }
        | Request::AttachmentGc { .. }
        | Request::FlushConntrack { .. }
        | Request::FdbFlush { .. }
        | Request::FdbAdd { .. }
        | Request::FdbDel { .. }
        | Request::Version {}
        | Request::Capture { .. } => of::<Text>(answer),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { writeln!(f, "{}", self.0) }
    }
}

impl fmt::Display for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|output| output.fmt(f))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done | Self::Exists(_) => Ok(()),
            Self::Names(names) => names.iter().try_for_each(|name| writeln!(f, "{name}")),
            Self::Values(values) => values.iter().try_for_each(|value| writeln!(f, "{value}")),
            Self::Records(records) => records.iter().enumerate().try_for_each(|(i, record)| {
                if i > 0 {
                    writeln!(f)?;
                }
                record.iter().try_for_each(|(column, value)| writeln!(f, "{column:<20}: {value}"))
            }),
            Self::Show(show) => show.fmt(f),
        }
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.version)?;
        for bridge in &self.bridges {
            writeln!(f, "    Bridge {}", bridge.name)?;
            if let Some(error) = &bridge.error {
                writeln!(f, "        error: {}", Value::from(error.as_str()))?;
            }
            bridge.ports.iter().try_for_each(|port| port.fmt(f))?;
        }
        Ok(())
    }
}

impl fmt::Display for ShowPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "        Port {}", self.name)?;
        let (mode, tag, trunks) = self.vlan.columns();
        if let Some(tag) = tag {
            writeln!(f, "            tag: {tag}")?;
        }
        if !trunks.is_empty() {
            let trunks = Datum::Set(trunks.iter().map(|&id| Datum::from(id)).collect());
            writeln!(f, "            trunks: {trunks}")?;
        }
        if let Vlan::NativeTagged { .. } | Vlan::NativeUntagged { .. } = self.vlan {
            writeln!(f, "            vlan_mode: {mode}")?;
        }
        writeln!(f, "            Interface {}", self.name)?;
        writeln!(f, "                type: {}", self.kind)?;
        if !self.options.is_empty() {
            writeln!(f, "                options: {}", Datum::Map(self.options.clone()))?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "                error: {}", Value::from(error.as_str()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, " port  VLAN  MAC                Age")?;
        for row in &self.0 {
            write!(f, "{:>5}  {:>4}  {}  ", OfPort(row.ofport), row.vlan, row.mac)?;
            match row.age {
                Some(age) => writeln!(f, "{age:>3}")?,
                None => writeln!(f, "static")?,
            }
        }
        Ok(())
    }
}

/// A port number as OpenFlow tools print it.
struct OfPort(u16);

impl fmt::Display for OfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Port::LOCAL => f.pad("LOCAL"),
            number => number.fmt(f),
        }
    }
}

impl fmt::Display for PortCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "OFPST_PORT reply (xid=0x2): {} ports", self.0.len())?;
        for PortCountersRow { ofport, stats: s, .. } in &self.0 {
            writeln!(
                f,
                "  port {:>2}: rx pkts={}, bytes={}, drop={}, errs={}, frame=0, over=0, crc=0",
                OfPort(*ofport),
                s.rx_packets,
                s.rx_bytes,
                s.rx_dropped,
                s.rx_errors
            )?;
            writeln!(
                f,
                "           tx pkts={}, bytes={}, drop={}, errs={}, coll=0",
                s.tx_packets, s.tx_bytes, s.tx_dropped, s.tx_errors
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|p| {
            let link = p.link.map_or("-", |up| if up { "up" } else { "down" });
            let worker = p.worker.map_or_else(|| "-".to_owned(), |w| w.to_string());
            let s = &p.stats;
            let counters = [s.rx_packets, s.rx_bytes, s.rx_dropped, s.tx_packets, s.tx_bytes, s.tx_dropped];
            [p.port.clone(), p.bridge.clone(), OfPort(p.ofport).to_string(), p.kind.clone(), link.to_owned()]
                .into_iter()
                .chain([p.mtu.to_string(), worker])
                .chain(counters.map(|n| n.to_string()))
                .chain([p.offloads.clone(), p.error.clone().unwrap_or_default()])
                .collect()
        });
        table(
            f,
            &[
                "PORT", "BRIDGE", ">OFPORT", "TYPE", "LINK", ">MTU", ">WORKER", ">RX", ">BYTES", ">DROP", ">TX",
                ">BYTES", ">DROP", "OFFLOADS", "ERROR",
            ],
            rows,
        )
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |d: &DropRow| vec![d.port.clone(), d.packets.to_string(), d.reason.clone(), d.sentence.clone()];
        table(f, &["PORT", ">PACKETS", "REASON", "MEANING"], self.0.iter().map(row))
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|w| {
            let cpu = w.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
            let ticks = w.busy_ticks.saturating_add(w.idle_ticks).max(1) as f64;
            let per_burst = w.packets as f64 / w.bursts.max(1) as f64;
            vec![
                w.number.to_string(),
                cpu,
                w.ports.to_string(),
                w.entries.to_string(),
                w.packets.to_string(),
                w.hits.to_string(),
                w.misses.to_string(),
                format!("{per_burst:.1}"),
                w.busy_ticks.checked_div(w.packets).unwrap_or(0).to_string(),
                format!("{:.1}", w.busy_ticks as f64 * 100.0 / ticks),
                w.sleeps.to_string(),
            ]
        });
        table(
            f,
            &[
                ">WORKER",
                ">CPU",
                ">PORTS",
                ">ENTRIES",
                ">PACKETS",
                ">HITS",
                ">MISSES",
                ">PER-BURST",
                ">TICKS/PKT",
                ">BUSY%",
                ">SLEEPS",
            ],
            rows,
        )
    }
}

impl fmt::Display for CoverageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Event coverage since start:")?;
        for counter in self.0.iter().filter(|c| c.total > 0) {
            writeln!(f, "{:<30} total: {}", counter.name, counter.total)?;
        }
        writeln!(f, "{} events never hit", self.0.iter().filter(|c| c.total == 0).count())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The available commands are:")?;
        self.0.iter().try_for_each(|(verb, usage)| writeln!(f, "{}", format!("  {verb:<23} {usage}").trim_end()))
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl fmt::Display for ObjectRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.outcome {
            Outcome::Created => write!(f, "{object} created"),
            Outcome::Configured => write!(f, "{object} configured"),
            Outcome::Unchanged => write!(f, "{object} unchanged"),
            Outcome::Deleted => write!(f, "{object} deleted"),
            Outcome::Skipped(why) => write!(f, "{object} skipped ({why})"),
            Outcome::Refused(why) => write!(f, "{object}: {why}"),
        }
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = match self {
            Self::Text(text) => return writeln!(f, "{text}"),
            Self::Tables(tables) => tables,
        };
        if tables.iter().all(|table| table.rows.is_empty()) {
            return writeln!(f, "No resources found");
        }
        for (i, ObjectTable { headings, rows }) in tables.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
            table(f, &headings, rows.iter().cloned())?;
        }
        Ok(())
    }
}

/// Rows under headings, as wide as they need to be. A heading with `>` in front is of a column of numbers.
fn table(f: &mut fmt::Formatter<'_>, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> fmt::Result {
    let mut lines = vec![headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |i: usize| lines.iter().filter_map(|line| line.get(i)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).map(|i| width(i).unwrap_or(0)).collect();
    for line in &lines {
        let mut text = String::new();
        for ((cell, width), heading) in line.iter().zip(&widths).zip(headings) {
            let gap = if text.is_empty() { "" } else { "  " };
            text += &match heading.starts_with('>') {
                true => format!("{gap}{cell:>width$}"),
                false => format!("{gap}{cell:<width$}"),
            };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let drop = |port: &str, packets| DropRow {
            port: port.into(),
            reason: "no-port".into(),
            packets,
            sentence: "no port to send to".into(),
        };
        assert_eq!(
            Drops(vec![drop("p1", 5), drop("a-long-port", 12_345_678)]).to_string(),
            "PORT          PACKETS  REASON   MEANING\n\
             p1                  5  no-port  no port to send to\n\
             a-long-port  12345678  no-port  no port to send to\n"
        );
        assert_eq!(Drops::default().to_string(), "PORT  PACKETS  REASON  MEANING\n");
    }

    #[test]
    fn a_frame_is_told_in_hexadecimal_and_back() {
        let captured = Captured { time: 1, ingress: true, len: 3, bytes: vec![0, 0xaf, 255] };
        let mut frame = Frame::new(&captured);
        assert_eq!(frame.bytes, "00afff");
        assert_eq!(frame.captured(), Some(captured));
        for bad in ["0", "zz", "é"] {
            frame.bytes = bad.into();
            assert_eq!(frame.captured(), None);
        }
    }
}
