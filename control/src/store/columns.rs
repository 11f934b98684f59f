//! Columns of the records `Bridge`, `Port` and `Interface`: what they are called, how they are read and written.
//!
//! `Port` and `Interface` are two views of one port, as in OVS; their `external_ids` are one map. The OpenFlow number and the MTU of a port are always kept, so `ofport_request` and `mtu_request` read as what is in
//! force by configuration, whether somebody asked for it or not.

use std::collections::BTreeMap;

use api::datum::Datum;
use api::request::{Assignment, Column, Condition, Table};
use api::{Bridge, BridgeId, MacAddr, Port, PortId};

use super::config::{self, Config, shown, vlan_id};
use super::draft::Live;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Bridge(BridgeId),
    Port(PortId),
    Interface(PortId),
}

/// Columns with values, in order.
type Record = Vec<(String, Datum)>;

/// Columns of each table in the order in which `list` tells them, each with whether it can be set.
fn columns(table: Table) -> &'static [(&'static str, bool)] {
    match table {
        Table::Bridge => &[
            ("name", false),
            ("datapath_type", true),
            ("external_ids", true),
            ("other_config", true),
            ("ports", false),
        ],
        Table::Port => &[
            ("name", false),
            ("external_ids", true),
            ("interfaces", false),
            ("tag", true),
            ("trunks", true),
            ("vlan_mode", true),
        ],
        Table::Interface => &[
            ("name", false),
            ("error", false),
            ("external_ids", true),
            ("link_state", false),
            ("mac", true),
            ("mac_in_use", false),
            ("mtu", false),
            ("mtu_request", true),
            ("ofport", false),
            ("ofport_request", true),
            ("options", true),
            ("statistics", false),
            ("type", true),
        ],
    }
}

fn known(table: Table, column: &str) -> Result<bool, String> {
    columns(table)
        .iter()
        .find(|(name, _)| *name == column)
        .map(|(_, writable)| *writable)
        .ok_or_else(|| format!("{} does not contain a column whose name matches \"{}\"", table.name(), shown(column)))
}

/// The record of a name.
///
/// # Errors
/// When there is none, unless that is no fault.
pub(crate) fn find_row(config: &Config, table: Table, name: &str, if_exists: bool) -> Result<Option<Row>, String> {
    let row = match table {
        Table::Bridge => config.bridge(name).map(|bridge| Row::Bridge(bridge.id)),
        Table::Port => config.port(name).map(|port| Row::Port(port.id)),
        Table::Interface => config.port(name).map(|port| Row::Interface(port.id)),
    };
    if row.is_none() && !if_exists {
        let name = shown(name);
        return Err(format!("{name}: no row \"{name}\" in table {}", table.name()));
    }
    Ok(row)
}

fn table_of(row: Row) -> Table {
    match row {
        Row::Bridge(_) => Table::Bridge,
        Row::Port(_) => Table::Port,
        Row::Interface(_) => Table::Interface,
    }
}

fn text_map(map: &BTreeMap<String, String>) -> Datum {
    Datum::Map(map.clone())
}

fn name_of(config: &Config, row: Row) -> String {
    match row {
        Row::Bridge(id) => config.bridge_name(id).to_owned(),
        Row::Port(id) | Row::Interface(id) => config.ports.get(&id).map(|port| port.name.clone()).unwrap_or_default(),
    }
}

fn record(config: &Config, live: &Live, row: Row) -> Record {
    let values = match row {
        Row::Bridge(id) => config.bridges.get(&id).map(|bridge| bridge_values(config, bridge)),
        Row::Port(id) => config.ports.get(&id).map(port_values),
        Row::Interface(id) => config.ports.get(&id).map(|port| interface_values(live, port)),
    };
    let names = columns(table_of(row)).iter().map(|(name, _)| (*name).to_owned());
    names.zip(values.unwrap_or_default()).collect()
}

fn bridge_values(config: &Config, bridge: &Bridge) -> Vec<Datum> {
    let mut ports: Vec<_> = config.ports_of(bridge.id).map(|port| port.name.as_str()).collect();
    ports.sort_unstable();
    vec![
        bridge.name.as_str().into(),
        "netdev".into(),
        text_map(&bridge.external_ids),
        Datum::Map(other_config(bridge)),
        Datum::Set(ports.into_iter().map(Datum::from).collect()),
    ]
}

fn port_values(port: &Port) -> Vec<Datum> {
    let (mode, tag, trunks) = port.vlan.columns();
    vec![
        port.name.as_str().into(),
        text_map(&port.external_ids),
        Datum::Set(vec![port.name.as_str().into()]),
        Datum::optional(tag),
        Datum::Set(trunks.iter().map(|&id| id.into()).collect()),
        mode.into(),
    ]
}

fn interface_values(live: &Live, port: &Port) -> Vec<Datum> {
    let state = live.ports.get(&port.id).cloned().unwrap_or_default();
    let s = state.stats;
    let statistics = [
        ("rx_bytes", s.rx_bytes),
        ("rx_dropped", s.rx_dropped),
        ("rx_errors", s.rx_errors),
        ("rx_packets", s.rx_packets),
        ("tx_bytes", s.tx_bytes),
        ("tx_dropped", s.tx_dropped),
        ("tx_errors", s.tx_errors),
        ("tx_packets", s.tx_packets),
    ];
    vec![
        port.name.as_str().into(),
        Datum::optional(state.error),
        text_map(&port.external_ids),
        Datum::optional(state.link.map(|up| if up { "up" } else { "down" })),
        Datum::optional(port.mac.map(|mac| mac.to_string())),
        Datum::optional(state.mac.map(|mac| mac.to_string())),
        Datum::optional(Some(state.mtu).filter(|mtu| *mtu > 0)),
        port.mtu.into(),
        port.ofport.into(),
        port.ofport.into(),
        text_map(&port.options),
        Datum::Map(statistics.map(|(name, count)| (name.to_owned(), count.to_string())).into()),
        port.kind.as_str().into(),
    ]
}

/// `get`: values of columns, or of keys of columns.
pub(crate) fn get(config: &Config, live: &Live, row: Row, wanted: &[Column]) -> Result<Vec<Datum>, String> {
    let (table, record) = (table_of(row), record(config, live, row));
    let value = |column: &Column| {
        known(table, &column.column)?;
        let datum = record.iter().find(|(name, _)| *name == column.column).map(|(_, datum)| datum.clone());
        let datum = datum.unwrap_or_else(|| Datum::Set(Vec::new()));
        let Some(key) = &column.key else { return Ok(datum) };
        let Datum::Map(map) = datum else { return Err(no_keys(&column.column)) };
        map.get(key).map(|value| value.as_str().into()).ok_or_else(|| {
            let (key, name) = (shown(key), name_of(config, row));
            format!("no key \"{key}\" in {} record \"{name}\" column {}", table.name(), column.column)
        })
    };
    wanted.iter().map(|column| value(column).map_err(|why| at(config, row, why))).collect()
}

fn no_keys(column: &str) -> String {
    format!("cannot specify key for non-map column {column}")
}

fn at(config: &Config, row: Row, why: String) -> String {
    format!("{}: {why}", name_of(config, row))
}

/// `list`: the records of these names, or all by name.
pub(crate) fn list(
    config: &Config,
    live: &Live,
    table: Table,
    names: &[String],
    only: &[String],
) -> Result<Vec<Record>, String> {
    for column in only {
        known(table, column)?;
    }
    let rows = match names {
        [] => all_rows(config, table),
        names => names
            .iter()
            .filter_map(|name| find_row(config, table, name, false).transpose())
            .collect::<Result<_, _>>()?,
    };
    Ok(rows.into_iter().map(|row| project(record(config, live, row), only)).collect())
}

/// `find`: the records that meet all conditions, by name.
pub(crate) fn find(
    config: &Config,
    live: &Live,
    table: Table,
    conditions: &[Condition],
    only: &[String],
) -> Result<Vec<Record>, String> {
    for column in only.iter().chain(conditions.iter().map(|condition| &condition.column)) {
        known(table, column)?;
    }
    let records = all_rows(config, table).into_iter().map(|row| record(config, live, row));
    let met = records.filter(|record| conditions.iter().all(|condition| meets(record, condition)));
    Ok(met.map(|record| project(record, only)).collect())
}

fn all_rows(config: &Config, table: Table) -> Vec<Row> {
    let mut rows: Vec<_> = match table {
        Table::Bridge => config.bridges.keys().map(|id| Row::Bridge(*id)).collect(),
        Table::Port => config.ports.keys().map(|id| Row::Port(*id)).collect(),
        Table::Interface => config.ports.keys().map(|id| Row::Interface(*id)).collect(),
    };
    rows.sort_by_cached_key(|row| name_of(config, *row));
    rows
}

fn project(record: Record, only: &[String]) -> Record {
    if only.is_empty() {
        return record;
    }
    only.iter().filter_map(|wanted| record.iter().find(|(name, _)| name == wanted).cloned()).collect()
}

/// A record without the key that a condition names meets neither `=` nor `!=` (ovs-vsctl(8)).
fn meets(record: &Record, condition: &Condition) -> bool {
    let Some((_, datum)) = record.iter().find(|(name, _)| *name == condition.column) else { return false };
    let equal = match (&condition.key, datum) {
        (Some(key), Datum::Map(map)) => match map.get(key) {
            Some(value) => *value == unquoted(&condition.value),
            None => return false,
        },
        (Some(_), _) => return false,
        (None, Datum::Integer(number)) => condition.value.parse() == Ok(*number),
        (None, Datum::Text(text)) => *text == unquoted(&condition.value),
        (None, Datum::Map(map)) => parse_map(&condition.value).as_ref() == Ok(map),
        (None, Datum::Set(values)) => {
            let mut there: Vec<_> = values.iter().map(|v| unquoted(&v.to_string())).collect();
            let mut wanted = parse_set(&condition.value);
            there.sort();
            wanted.sort();
            there == wanted
        }
    };
    equal == condition.equal
}

/// `set`: all assignments to one record.
pub(crate) fn set(config: &mut Config, row: Row, assignments: &[Assignment]) -> Result<(), String> {
    let name = name_of(config, row);
    // The three VLAN columns make sense together only, whatever order they are written in.
    let mut vlan = None;
    for a in assignments {
        let refused = |why: String| match &a.key {
            Some(key) => format!("{name}: {}:{}={}: {why}", a.column, shown(key), shown(&a.value)),
            None => format!("{name}: {}={}: {why}", a.column, shown(&a.value)),
        };
        writable(row, &a.column).map_err(|why| format!("{name}: {why}"))?;
        match (row, a.column.as_str()) {
            (Row::Port(id), column @ ("tag" | "trunks" | "vlan_mode")) => {
                if a.key.is_some() {
                    return Err(refused(no_keys(column)));
                }
                let columns = vlan.get_or_insert_with(|| VlanColumns::of(config, id));
                columns.set(column, &a.value).map_err(refused)?;
            }
            _ => assign(config, row, a).map_err(refused)?,
        }
    }
    set_vlan(config, row, vlan).map_err(|why| format!("{name}: {why}"))
}

/// `clear`: columns back to what they are when nobody sets them.
pub(crate) fn clear(config: &mut Config, row: Row, cleared: &[Column]) -> Result<(), String> {
    let name = name_of(config, row);
    let mut vlan = None;
    for c in cleared {
        writable(row, &c.column).map_err(|why| format!("{name}: {why}"))?;
        if let Some(key) = &c.key {
            if !matches!(c.column.as_str(), "external_ids" | "options" | "other_config") {
                return Err(format!("{name}: {}", no_keys(&c.column)));
            }
            remove(config, row, &c.column, std::slice::from_ref(key))?;
            continue;
        }
        match (row, c.column.as_str()) {
            (Row::Port(id), column @ ("tag" | "trunks" | "vlan_mode")) => {
                vlan.get_or_insert_with(|| VlanColumns::of(config, id)).set(column, "[]")?;
            }
            (Row::Interface(id), "mac") => port(config, id)?.mac = None,
            (Row::Interface(id), "mtu_request") => port(config, id)?.mtu = Port::MTU,
            (Row::Interface(id), "type") => set_kind(port(config, id)?, "")?,
            (_, "ofport_request" | "datapath_type") => {}
            (Row::Bridge(id), "other_config") => set_other_config(bridge(config, id)?, &BTreeMap::new())?,
            (_, column) => text_column(config, row, column).map(BTreeMap::clear).unwrap_or_default(),
        }
    }
    set_vlan(config, row, vlan).map_err(|why| format!("{name}: {why}"))
}

/// `remove`: values of a set, or keys of a map, that need not be there.
pub(crate) fn remove(config: &mut Config, row: Row, column: &str, values: &[String]) -> Result<(), String> {
    let name = name_of(config, row);
    writable(row, column).map_err(|why| format!("{name}: {why}"))?;
    let from_map = |map: &mut BTreeMap<String, String>| {
        for value in values {
            let (key, value) = value.split_once('=').map_or((value.as_str(), None), |(key, value)| (key, Some(value)));
            let key = unquoted(key);
            if value.is_none_or(|value| map.get(&key) == Some(&unquoted(value))) {
                map.remove(&key);
            }
        }
    };
    if let Some(map) = text_column(config, row, column) {
        from_map(map);
        return Ok(());
    }
    let values = || values.iter().flat_map(|value| parse_set(value));
    match (row, column) {
        (Row::Bridge(id), "other_config") => {
            let bridge = bridge(config, id)?;
            let mut map = other_config(bridge);
            from_map(&mut map);
            set_other_config(bridge, &map)
        }
        (Row::Port(id), "tag" | "trunks" | "vlan_mode") => {
            let mut vlan = VlanColumns::of(config, id);
            match column {
                "tag" => vlan.tag = vlan.tag.filter(|tag| values().all(|value| value != tag.to_string())),
                "trunks" => vlan.trunks.retain(|id| values().all(|value| value != id.to_string())),
                _ => vlan.mode = vlan.mode.filter(|mode| values().all(|value| value != *mode)),
            }
            set_vlan(config, row, Some(vlan)).map_err(|why| format!("{name}: {why}"))
        }
        (Row::Interface(id), "mac") => {
            let port = port(config, id)?;
            port.mac = port.mac.filter(|mac| values().all(|value| value.parse() != Ok(*mac)));
            Ok(())
        }
        (Row::Interface(id), "mtu_request") => {
            let port = port(config, id)?;
            if values().any(|value| value.parse() == Ok(port.mtu)) {
                port.mtu = Port::MTU;
            }
            Ok(())
        }
        _ => Err(format!("{name}: nothing can be removed from column {column}")),
    }
}

fn writable(row: Row, column: &str) -> Result<(), String> {
    let table = table_of(row);
    match known(table, column)? {
        true => Ok(()),
        false => Err(format!("cannot modify read-only column {column} in table {}", table.name())),
    }
}

fn bridge(config: &mut Config, id: BridgeId) -> Result<&mut Bridge, String> {
    config.bridges.get_mut(&id).ok_or_else(|| "no such bridge".to_owned())
}

fn port(config: &mut Config, id: PortId) -> Result<&mut Port, String> {
    config.ports.get_mut(&id).ok_or_else(|| "no such port".to_owned())
}

/// A column that is a map of texts which nothing here interprets.
fn text_column<'a>(config: &'a mut Config, row: Row, column: &str) -> Option<&'a mut BTreeMap<String, String>> {
    match (row, column) {
        (Row::Bridge(id), "external_ids") => config.bridges.get_mut(&id).map(|bridge| &mut bridge.external_ids),
        (Row::Port(id) | Row::Interface(id), "external_ids") => {
            config.ports.get_mut(&id).map(|port| &mut port.external_ids)
        }
        (Row::Interface(id), "options") => config.ports.get_mut(&id).map(|port| &mut port.options),
        _ => None,
    }
}

fn assign(config: &mut Config, row: Row, a: &Assignment) -> Result<(), String> {
    if let Some(map) = text_column(config, row, &a.column) {
        match &a.key {
            Some(key) => drop(map.insert(key.clone(), unquoted(&a.value))),
            None => *map = parse_map(&a.value)?,
        }
        return Ok(());
    }
    if let (Row::Bridge(id), "other_config") = (row, a.column.as_str()) {
        let bridge = bridge(config, id)?;
        return match &a.key {
            Some(key) => set_other_key(bridge, key, &unquoted(&a.value)),
            None => set_other_config(bridge, &parse_map(&a.value)?),
        };
    }
    if a.key.is_some() {
        return Err(no_keys(&a.column));
    }
    let value = unquoted(&a.value);
    match (row, a.column.as_str()) {
        (Row::Bridge(_), "datapath_type") => match value.as_str() {
            "" | "netdev" => Ok(()),
            _ => Err("the only datapath here is netdev".to_owned()),
        },
        (Row::Interface(id), "type") => set_kind(port(config, id)?, &value),
        (Row::Interface(id), "ofport_request") => set_ofport(config, id, &value),
        (Row::Interface(id), "mtu_request") => {
            let mtu = value.parse().ok().filter(|mtu| (68..=u16::MAX).contains(mtu));
            port(config, id)?.mtu = mtu.ok_or("an MTU is a number from 68 to 65535")?;
            Ok(())
        }
        (Row::Interface(id), "mac") => {
            let mac: MacAddr = value.parse().map_err(|_| "invalid Ethernet address")?;
            if mac.is_group() || mac.is_zero() {
                return Err("no device can have this address".to_owned());
            }
            port(config, id)?.mac = Some(mac);
            Ok(())
        }
        // `writable` has let through nothing else.
        _ => Err("cannot be set".to_owned()),
    }
}

fn set_kind(port: &mut Port, kind: &str) -> Result<(), String> {
    let kind = match (kind, port.ofport) {
        ("internal", _) => "internal",
        (_, Port::LOCAL) => return Err("the local port of a bridge is internal".to_owned()),
        ("", _) => "tap",
        (kind, _) => kind,
    };
    port.kind = kind.to_owned();
    Ok(())
}

fn set_ofport(config: &mut Config, id: PortId, value: &str) -> Result<(), String> {
    let number = value.parse().ok().filter(|number| (1..=Port::OFPORT_MAX).contains(number));
    let number = number.ok_or_else(|| format!("a port number is from 1 to {}", Port::OFPORT_MAX))?;
    let (bridge, old) = config.ports.get(&id).map(|port| (port.bridge, port.ofport)).unwrap_or_default();
    if old == Port::LOCAL {
        return Err("the local port of a bridge keeps its number".to_owned());
    }
    if let Some(other) = config.ports_of(bridge).find(|port| port.ofport == number && port.id != id) {
        return Err(format!("port {} has this number", other.name));
    }
    port(config, id)?.ofport = number;
    Ok(())
}

/// What differs from the defaults.
fn other_config(bridge: &Bridge) -> BTreeMap<String, String> {
    let mut other = BTreeMap::new();
    if bridge.forward_bpdu {
        other.insert("forward-bpdu".to_owned(), "true".to_owned());
    }
    if bridge.mac_ageing != Bridge::MAC_AGEING {
        other.insert("mac-aging-time".to_owned(), bridge.mac_ageing.to_string());
    }
    if bridge.mac_table_size != Bridge::MAC_TABLE_SIZE {
        other.insert("mac-table-size".to_owned(), bridge.mac_table_size.to_string());
    }
    other
}

fn set_other_config(bridge: &mut Bridge, map: &BTreeMap<String, String>) -> Result<(), String> {
    bridge.mac_table_size = Bridge::MAC_TABLE_SIZE;
    bridge.mac_ageing = Bridge::MAC_AGEING;
    bridge.forward_bpdu = false;
    map.iter().try_for_each(|(key, value)| set_other_key(bridge, key, value))
}

fn set_other_key(bridge: &mut Bridge, key: &str, value: &str) -> Result<(), String> {
    // Ranges of ovs-vswitchd.conf.db(5); OVS bends what is outside, here it is refused.
    let number = |low: u32, high: u32| {
        let number = value.parse().ok().filter(|number| (low..=high).contains(number));
        number.ok_or_else(|| format!("{key} is a number from {low} to {high}"))
    };
    match key {
        "mac-table-size" => bridge.mac_table_size = number(10, 1_000_000)?,
        "mac-aging-time" => bridge.mac_ageing = number(15, 3600)?,
        "forward-bpdu" => {
            bridge.forward_bpdu = value.parse().map_err(|_| "forward-bpdu is true or false".to_owned())?;
        }
        _ => return Err("unknown key (there are forward-bpdu, mac-aging-time, mac-table-size)".to_owned()),
    }
    Ok(())
}

/// `vlan_mode`, `tag` and `trunks` while they are being set.
struct VlanColumns {
    mode: Option<String>,
    tag: Option<u16>,
    trunks: Vec<u16>,
}

impl VlanColumns {
    fn of(config: &Config, id: PortId) -> Self {
        let vlan = config.ports.get(&id).map(|port| port.vlan.clone()).unwrap_or_default();
        let (mode, tag, trunks) = vlan.columns();
        // `access` and `trunk` follow from the other two unless somebody says so now.
        let mode = mode.starts_with("native").then(|| mode.to_owned());
        Self { mode, tag, trunks: trunks.to_vec() }
    }

    fn set(&mut self, column: &str, value: &str) -> Result<(), String> {
        let values = parse_set(value);
        match (column, values.as_slice()) {
            ("trunks", values) => {
                self.trunks = values.iter().map(|value| vlan_id(value)).collect::<Result<_, _>>()?;
                self.trunks.sort_unstable();
                self.trunks.dedup();
            }
            ("tag", []) => self.tag = None,
            ("tag", [tag]) => self.tag = Some(vlan_id(tag)?),
            ("vlan_mode", []) => self.mode = None,
            ("vlan_mode", [mode]) => self.mode = Some(mode.clone()),
            _ => return Err("one value, not several".to_owned()),
        }
        Ok(())
    }
}

fn set_vlan(config: &mut Config, row: Row, columns: Option<VlanColumns>) -> Result<(), String> {
    let (Row::Port(id), Some(VlanColumns { mode, tag, trunks })) = (row, columns) else { return Ok(()) };
    port(config, id)?.vlan = config::vlan(mode.as_deref(), tag, trunks)?;
    Ok(())
}

/// A value without the quotes that it may be in.
fn unquoted(text: &str) -> String {
    match text.starts_with('"') {
        true => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        false => text.to_owned(),
    }
}

/// The parts of `a,b` or `a b` between brackets or not; commas and blanks in quotes are part of a part.
fn parts(text: &str, brackets: [char; 2]) -> Vec<&str> {
    let text = text.trim();
    let text = text.strip_prefix(brackets[0]).and_then(|t| t.strip_suffix(brackets[1])).unwrap_or(text);
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return !quoted && (c == ',' || c.is_whitespace()),
        }
        false
    });
    parts.filter(|part| !part.is_empty()).collect()
}

fn parse_set(text: &str) -> Vec<String> {
    parts(text, ['[', ']']).into_iter().map(unquoted).collect()
}

fn parse_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{}: not KEY=VALUE", shown(part)))?;
        Ok((unquoted(key), unquoted(value)))
    };
    parts(text, ['{', '}']).into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_maps_are_read_in_every_notation_of_ovs_vsctl() {
        for text in ["1,2", "[1,2]", "[1, 2]", "1 2", "\"1\",2"] {
            assert_eq!(parse_set(text), ["1", "2"], "{text}");
        }
        assert!(parse_set("[]").is_empty() && parse_set("").is_empty());
        let map = parse_map(r#"{a=b,"c d"="e, f=g"}"#).unwrap();
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("a".into(), "b".into()), ("c d".into(), "e, f=g".into())]);
        assert!(parse_map("a").is_err());
    }

    #[test]
    fn quotes_that_do_not_close_are_text() {
        assert_eq!(unquoted("\"a"), "\"a");
        assert_eq!(parse_set("\"a,b"), ["\"a,b"]);
    }
}
