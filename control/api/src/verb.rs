//! The sentences of the control socket in words, as people type them.
//!
//! One slice, [`VERBS`], is the grammar: the daemon reads words by it (`ovs-appctl` sends nothing else), vsctl reads
//! its command line by it, and help and completion are made from it.

use crate::acl::{self, AclMatch, AclRule};
use crate::filter::Filter;
use crate::option::{
    self, ALL_NAMESPACES, COLUMNS, DPORT, FROM, IF_EXISTS, MAY_EXIST, NAMESPACE, OUTPUT, OptionDef, POD, PROTO, Read,
    SPORT, TO,
};
use crate::request::{Assignment, Column, Command, Condition, Output, Protocol, Request, Table, To, unknown_method};

/// A verb.
#[derive(Debug)]
pub struct VerbDef {
    /// What is typed.
    pub name: &'static str,
    /// What stands behind it, for people.
    pub usage: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// Words behind it, at least.
    pub min: usize,
    /// Words behind it, at most.
    pub max: usize,
    /// Its options, of [`option::OPTIONS`].
    pub options: &'static [OptionDef],
    parse: fn(&Words<'_>) -> Result<Request, String>,
}

/// What stands behind verbs about connections.
const FILTER: &str = "[src=|dst=|sport=|dport=|proto=|state=|port=|service=VALUE]...";

/// Any number of words.
const MANY: usize = usize::MAX;

/// Every verb that has words, in the order in which help lists them.
#[rustfmt::skip]
pub const VERBS: &[VerbDef] = &[
    verb("show", "", "overview of bridges and ports", 0, 0, |_| one(Command::Show {})),
    VerbDef { options: &[MAY_EXIST], ..verb("add-br", "BRIDGE", "make a bridge, and its LOCAL port", 1, 1, |w|
        one(Command::AddBr { bridge: w.at(0), may_exist: w.has(&MAY_EXIST) })) },
    VerbDef { options: &[IF_EXISTS], ..verb("del-br", "BRIDGE", "remove a bridge and all its ports", 1, 1, |w|
        one(Command::DelBr { bridge: w.at(0), if_exists: w.has(&IF_EXISTS) })) },
    verb("list-br", "", "names of all bridges", 0, 0, |_| one(Command::ListBr {})),
    verb("br-exists", "BRIDGE", "exit 0 if there is such a bridge, else 2", 1, 1, |w|
        one(Command::BrExists { bridge: w.at(0) })),
    VerbDef { options: &[MAY_EXIST], ..verb("add-port", "BRIDGE PORT [COLUMN=VALUE]...", "make a port", 2, MANY, |w|
        one(Command::AddPort {
            bridge: w.at(0), port: w.at(1), may_exist: w.has(&MAY_EXIST), columns: w.from(2, assignment)?,
        })) },
    VerbDef { options: &[IF_EXISTS], ..verb("del-port", "[BRIDGE] PORT", "remove a port", 1, 2, |w|
        one(Command::DelPort {
            bridge: (w.len() == 2).then(|| w.at(0)), port: w.at(w.len() - 1), if_exists: w.has(&IF_EXISTS),
        })) },
    verb("list-ports", "BRIDGE", "names of a bridge's ports", 1, 1, |w|
        one(Command::ListPorts { bridge: w.at(0) })),
    verb("port-to-br", "PORT", "name of the bridge that a port belongs to", 1, 1, |w|
        one(Command::PortToBr { port: w.at(0) })),
    VerbDef {
        options: &[IF_EXISTS, NAMESPACE, ALL_NAMESPACES, OUTPUT],
        ..verb("get", "TABLE RECORD COLUMN[:KEY]...|KIND [NAME]...", "values of columns; objects of the cluster", 1, MANY, get)
    },
    VerbDef { options: &[IF_EXISTS], ..verb("set", "TABLE RECORD COLUMN[:KEY]=VALUE...", "set columns", 3, MANY, |w|
        one(Command::Set {
            table: table(&w.at(0))?, record: w.at(1), columns: w.from(2, assignment)?, if_exists: w.has(&IF_EXISTS),
        })) },
    VerbDef { options: &[IF_EXISTS], ..verb("clear", "TABLE RECORD COLUMN[:KEY]...", "set columns back", 3, MANY, |w|
        one(Command::Clear {
            table: table(&w.at(0))?, record: w.at(1), columns: w.from(2, column)?, if_exists: w.has(&IF_EXISTS),
        })) },
    VerbDef { options: &[IF_EXISTS], ..verb("remove", "TABLE RECORD COLUMN VALUE|KEY[=VALUE]...", "remove values from a column", 4, MANY, |w|
        one(Command::Remove {
            table: table(&w.at(0))?, record: w.at(1), column: w.at(2), values: w.from(3, |v| Ok(v.to_owned()))?,
            if_exists: w.has(&IF_EXISTS),
        })) },
    VerbDef { options: &[COLUMNS], ..verb("list", "TABLE [RECORD]...", "records of a table", 1, MANY, |w|
        one(Command::List { table: table(&w.at(0))?, records: w.from(1, |r| Ok(r.to_owned()))?, columns: w.columns() })) },
    VerbDef { options: &[COLUMNS], ..verb("find", "TABLE [COLUMN[:KEY]=VALUE]...", "records that meet all conditions (also !=)", 1, MANY, |w|
        one(Command::Find { table: table(&w.at(0))?, conditions: w.from(1, condition)?, columns: w.columns() })) },
    verb("fdb/show", "BRIDGE", "MAC table of a bridge", 1, 1, |w| Ok(Request::FdbShow { bridge: w.at(0) })),
    verb("fdb/flush", "[BRIDGE]", "forget learned stations", 0, 1, |w| Ok(Request::FdbFlush { bridge: w.opt(0) })),
    verb("fdb/add", "BRIDGE PORT VLAN MAC", "place a station at a port for good", 4, 4, |w|
        Ok(Request::FdbAdd { bridge: w.at(0), port: w.at(1), vlan: vlan(&w.at(2))?, mac: mac(&w.at(3))? })),
    verb("fdb/del", "BRIDGE VLAN MAC", "take a placed station away", 3, 3, |w|
        Ok(Request::FdbDel { bridge: w.at(0), vlan: vlan(&w.at(1))?, mac: mac(&w.at(2))? })),
    verb("route/add", "BRIDGE PREFIX dev PORT [via ADDRESS]|unreachable|blackhole", "say where a prefix leads, for good; in force where the bridge has a router", 3, 6, |w|
        Ok(Request::RouteAdd { bridge: w.at(0), prefix: prefix(&w.at(1))?, to: w.to(2)? })),
    verb("route/del", "BRIDGE PREFIX", "take a stated route away", 2, 2, |w|
        Ok(Request::RouteDel { bridge: w.at(0), prefix: prefix(&w.at(1))? })),
    verb("neigh/add", "BRIDGE ADDRESS PORT MAC", "state a neighbour, for good; in force where the bridge has a router", 4, 4, |w|
        Ok(Request::NeighAdd { bridge: w.at(0), address: address(&w.at(1))?, port: w.at(2), mac: mac(&w.at(3))? })),
    verb("neigh/del", "BRIDGE ADDRESS", "take a stated neighbour away", 2, 2, |w|
        Ok(Request::NeighDel { bridge: w.at(0), address: address(&w.at(1))? })),
    VerbDef { options: &[MAY_EXIST], ..verb("acl-add", "BRIDGE|PORT from-lport|to-lport PRIORITY MATCH ACTION", "add a rule to an access list, for good; ACTION is allow, allow-related, drop or reject", 5, 5, |w|
        Ok(Request::AclAdd { at: w.at(0), way: w.at(1).parse()?, rule: w.rule(2)?, may_exist: w.has(&MAY_EXIST) })) },
    verb("acl-del", "BRIDGE|PORT [from-lport|to-lport [PRIORITY MATCH]]", "take rules out of access lists", 1, 4, |w|
        Ok(Request::AclDel { at: w.at(0), way: w.opt(1).map(|way| way.parse()).transpose()?, only: w.only()? })),
    verb("acl-list", "BRIDGE|PORT", "access lists of a bridge or a port", 1, 1, |w| Ok(Request::AclList { at: w.at(0) })),
    VerbDef { options: &[NAMESPACE, ALL_NAMESPACES, OUTPUT], ..verb("services", "[-n NAMESPACE] [-o wide]", "services of the cluster, in every namespace unless one is named", 0, 0, |w|
        Ok(Request::Services { namespace: w.namespace()?, wide: w.wide()? })) },
    VerbDef { options: &[POD, NAMESPACE, ALL_NAMESPACES], ..verb("policies", "[--pod NS/NAME] [-n NAMESPACE]", "network policies, whom they select and what they denied; with --pod: what decides for a pod", 0, 0, |w|
        Ok(Request::Policies { namespace: w.namespace()?, pod: w.value(&POD) })) },
    verb("attachments", "", "interfaces of containers: network, container, port, addresses, pod", 0, 0, |_| Ok(Request::Attachments {})),
    verb("routes", "", "routes, of the cluster and stated", 0, 0, |_| Ok(Request::Routes {})),
    verb("neighbors", "", "neighbours, stated and learned", 0, 0, |_| Ok(Request::Neighbors {})),
    verb("connections", FILTER, "tracked connections, of which all conditions hold", 0, MANY, |w|
        Ok(Request::Connections { filter: w.filter()? })),
    verb("dpctl/dump-conntrack", FILTER, "tracked connections, as ovs-appctl prints them", 0, MANY, |w|
        Ok(Request::DumpConntrack { filter: w.filter()? })),
    verb("dpctl/flush-conntrack", FILTER, "forget tracked connections", 0, MANY, |w|
        Ok(Request::FlushConntrack { filter: w.filter()? })),
    VerbDef { options: &[FROM, TO, PROTO, SPORT, DPORT], ..verb("trace", "--from SRC --to DST --proto PROTO [--dport N] [--sport N]", "what would become of a first packet: each stage, who decided, the verdict", 0, 0, |w|
        Ok(Request::Trace {
            from: w.needed(&FROM)?, to: w.needed(&TO)?, proto: protocol(&w.needed(&PROTO)?)?,
            sport: w.number(&SPORT)?, dport: w.number(&DPORT)?,
        })) },
    VerbDef { options: &[FROM, TO], ..verb("verify", "[--from SRC] [--to DST]", "prove that the live tables do what the cluster's state says", 0, 0, |w|
        Ok(Request::Verify { from: w.value(&FROM), to: w.value(&TO) })) },
    verb("dump-ports", "BRIDGE [PORT]", "counters of a bridge's ports, as ovs-ofctl prints them", 1, 2, |w|
        Ok(Request::DumpPorts { bridge: w.at(0), port: w.opt(1) })),
    verb("ports", "", "all ports: device, link, worker, counters", 0, 0, |_| Ok(Request::Ports {})),
    verb("drops", "[PORT]", "frames dropped, by port and reason", 0, 1, |w| Ok(Request::Drops { port: w.opt(0) })),
    verb("workers", "", "all workers: load, hits and misses", 0, 0, |_| Ok(Request::Workers {})),
    verb("coverage/show", "", "event counters", 0, 0, |_| Ok(Request::Coverage {})),
    verb("version", "", "version of the daemon", 0, 0, |_| Ok(Request::Version {})),
    verb("list-commands", "", "what the daemon understands in words", 0, 0, |_| Ok(Request::ListCommands {})),
];

/// Words behind a verb, options apart.
#[derive(Debug)]
struct Words<'a> {
    plain: Vec<&'a str>,
    /// With their values; empty for those that have none.
    options: Vec<(&'static OptionDef, &'a str)>,
}

const fn verb(
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    min: usize,
    max: usize,
    parse: fn(&Words<'_>) -> Result<Request, String>,
) -> VerbDef {
    VerbDef { name, usage, help, min, max, options: &[], parse }
}

/// Understand words: a verb, with its options before or behind it.
///
/// # Errors
/// What is wrong, in one line that names the verb.
pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Request, String> {
    let (mut name, mut plain, mut options, mut unknown) = (None, Vec::new(), Vec::new(), None);
    let mut words = words.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        match option::read(word) {
            None if name.is_none() => name = Some(word),
            None => plain.push(word),
            Some(Read::Unknown) => unknown = unknown.or(Some(word)),
            Some(Read::Known(def, None)) if def.value.is_some() => {
                options.push((word, def, words.next()));
            }
            Some(Read::Known(def, value)) => options.push((word, def, value)),
        }
    }
    let Some(name) = name else { return Err("missing command name (use --help for help)".to_owned()) };
    let Some(def) = VERBS.iter().find(|def| def.name == name) else { return Err(unknown_method(name)) };
    let foreign = options.iter().find(|(_, option, _)| !def.options.contains(option)).map(|(word, ..)| *word);
    if let Some(word) = unknown.or(foreign) {
        return Err(format!("'{name}' command has no '{}' option", shown(word)));
    }
    let mut rest = Words { plain, options: Vec::new() };
    for (word, option, value) in options {
        match (option.value, value) {
            (Some(wanted), None) => return Err(format!("{name}: '{word}' needs a value: {wanted}")),
            (None, Some(_)) => return Err(format!("{name}: '--{}' has no value", option.long)),
            (_, value) => rest.options.push((option, value.unwrap_or_default())),
        }
    }
    if rest.len() < def.min {
        return Err(format!("'{name}' command requires at least {} arguments", def.min));
    }
    if rest.len() > def.max {
        return Err(format!("'{name}' command takes at most {} arguments", def.max));
    }
    (def.parse)(&rest).map_err(|why| format!("{name}: {why}"))
}

/// Text of a stranger, fit for a line of an error message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

impl Words<'_> {
    fn len(&self) -> usize {
        self.plain.len()
    }

    /// A word that `min` promises.
    fn at(&self, i: usize) -> String {
        self.opt(i).unwrap_or_default()
    }

    fn opt(&self, i: usize) -> Option<String> {
        self.plain.get(i).map(|&word| word.to_owned())
    }

    fn has(&self, option: &OptionDef) -> bool {
        self.options.iter().any(|(o, _)| *o == option)
    }

    /// Values of an option, in the order in which they were typed.
    fn values<'w>(&'w self, option: &'w OptionDef) -> impl Iterator<Item = &'w str> {
        self.options.iter().filter(move |(o, _)| *o == option).map(|(_, value)| *value)
    }

    /// The value of an option that counts once: the last.
    fn value(&self, option: &OptionDef) -> Option<String> {
        self.values(option).last().map(str::to_owned)
    }

    fn needed(&self, option: &OptionDef) -> Result<String, String> {
        self.value(option).ok_or_else(|| format!("'--{}' is missing", option.long))
    }

    fn number(&self, option: &OptionDef) -> Result<Option<u16>, String> {
        let number = |value: String| {
            value.parse().map_err(|_| format!("--{} {}: not a port number", option.long, shown(&value)))
        };
        self.value(option).map(number).transpose()
    }

    /// Priority, match and action.
    fn rule(&self, first: usize) -> Result<AclRule, String> {
        let (priority, matches) = (acl::text::priority(&self.at(first))?, self.at(first + 1).parse()?);
        Ok(AclRule { priority, matches, action: self.at(first + 2).parse()? })
    }

    /// Priority and match of one rule.
    fn only(&self) -> Result<Option<(u16, AclMatch)>, String> {
        match (self.opt(2), self.opt(3)) {
            (Some(priority), Some(matches)) => Ok(Some((acl::text::priority(&priority)?, matches.parse()?))),
            (Some(priority), None) => Err(format!("{}: a match is needed behind the priority", shown(&priority))),
            _ => Ok(None),
        }
    }

    /// The namespace that is named, if one is.
    fn namespace(&self) -> Result<Option<String>, String> {
        match self.value(&NAMESPACE) {
            Some(_) if self.has(&ALL_NAMESPACES) => Err("-n and -A contradict each other".to_owned()),
            namespace => Ok(namespace),
        }
    }

    fn wide(&self) -> Result<bool, String> {
        match self.value(&OUTPUT).as_deref() {
            None => Ok(false),
            Some("wide") => Ok(true),
            Some(other) => Err(format!("-o {}: only wide is known here (and --format json)", shown(other))),
        }
    }

    fn filter(&self) -> Result<Filter, String> {
        Filter::parse(self.plain.iter().copied())
    }

    /// Where a route leads, as `ip route` has it.
    fn to(&self, first: usize) -> Result<To, String> {
        match self.plain.get(first..).unwrap_or_default() {
            ["dev", port] => Ok(To::OnLink { port: (*port).to_owned() }),
            ["dev", port, "via", gateway] | ["via", gateway, "dev", port] => {
                Ok(To::Via { port: (*port).to_owned(), gateway: address(gateway)? })
            }
            ["unreachable"] => Ok(To::Unreachable {}),
            ["blackhole"] => Ok(To::Blackhole {}),
            other => Err(format!(
                "{}: not of the form dev PORT [via ADDRESS], unreachable or blackhole",
                shown(&other.join(" "))
            )),
        }
    }

    fn columns(&self) -> Vec<String> {
        let values = self.values(&COLUMNS).flat_map(|value| value.split(','));
        values.filter(|column| !column.is_empty()).map(str::to_owned).collect()
    }

    fn from<T>(&self, first: usize, each: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        self.plain.iter().skip(first).map(|word| each(word)).collect()
    }
}

/// `get` of OVS, or of kubectl: the first word is a table with a record and columns behind it, or a kind.
fn get(w: &Words<'_>) -> Result<Request, String> {
    let first = w.at(0);
    let of_kubectl = [NAMESPACE, ALL_NAMESPACES, OUTPUT].iter().any(|option| w.has(option));
    let is_table = [Table::Bridge, Table::Port, Table::Interface].iter().any(|table| table.name() == first);
    if !of_kubectl && (is_table || w.len() >= 3 && (w.has(&IF_EXISTS) || table(&first).is_ok() && !is_short(&first))) {
        if w.len() < 3 {
            return Err("a record and columns are needed behind the table".to_owned());
        }
        return one(Command::Get {
            table: table(&first)?,
            record: w.at(1),
            columns: w.from(2, column)?,
            if_exists: w.has(&IF_EXISTS),
        });
    }
    let output = w.value(&OUTPUT).map(|word| output(&word)).transpose()?;
    let names = w.from(1, |name| Ok(name.to_owned()))?;
    // `svc/web` is what kubectl prints.
    let (kind, names) = match first.split_once('/') {
        Some((kind, name)) if names.is_empty() => (kind.to_owned(), vec![name.to_owned()]),
        _ => (first, names),
    };
    let all_namespaces = w.has(&ALL_NAMESPACES);
    if all_namespaces && !names.is_empty() {
        return Err("an object is named in one namespace: -A cannot stand here".to_owned());
    }
    Ok(Request::Get { kind, names, namespace: w.value(&NAMESPACE), all_namespaces, output })
}

/// Short names of kinds that are also the beginning of a table's name.
fn is_short(word: &str) -> bool {
    word == "po"
}

fn output(word: &str) -> Result<Output, String> {
    match word {
        "wide" => Ok(Output::Wide),
        "yaml" => Ok(Output::Yaml),
        "json" => Ok(Output::Json),
        other => Err(format!("-o {}: must be wide, yaml or json", shown(other))),
    }
}

fn one(command: Command) -> Result<Request, String> {
    Ok(Request::Transact { commands: vec![command] })
}

/// A table by its name or the beginning of it, in any case: `set int p1` is what many type.
fn table(word: &str) -> Result<Table, String> {
    let word_lower = word.to_ascii_lowercase();
    let all = [Table::Bridge, Table::Port, Table::Interface];
    let found = all.into_iter().find(|t| !word.is_empty() && t.name().to_ascii_lowercase().starts_with(&word_lower));
    found.ok_or_else(|| format!("unknown table \"{word}\""))
}

fn column(word: &str) -> Result<Column, String> {
    let (column, key) = match word.split_once(':') {
        Some((column, key)) => (column, Some(unquote(key))),
        None => (word, None),
    };
    Ok(Column { column: column.to_owned(), key })
}

fn assignment(word: &str) -> Result<Assignment, String> {
    let (left, value) =
        word.split_once('=').ok_or_else(|| format!("{word}: argument does not have the form COLUMN[:KEY]=VALUE"))?;
    let Column { column, key } = column(left)?;
    Ok(Assignment { column, key, value: value.to_owned() })
}

fn condition(word: &str) -> Result<Condition, String> {
    let Assignment { column, key, value } = assignment(word)?;
    // The `!` of `!=` is the last octet of what stands before the `=`.
    let bare = |text: &str| text.strip_suffix('!').map(str::to_owned);
    Ok(match (key.as_deref().map(bare), bare(&column)) {
        (Some(Some(key)), _) => Condition { column, key: Some(key), equal: false, value },
        (None, Some(column)) => Condition { column, key, equal: false, value },
        _ => Condition { column, key, equal: true, value },
    })
}

fn unquote(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

fn vlan(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| format!("{word}: not a VLAN id"))
}

fn prefix(word: &str) -> Result<ipnet::IpNet, String> {
    crate::filter::prefix(&shown(word), word)
}

fn address(word: &str) -> Result<std::net::IpAddr, String> {
    word.parse().map_err(|_| format!("{}: not an address", shown(word)))
}

fn protocol(word: &str) -> Result<Protocol, String> {
    match word {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        "icmp" => Ok(Protocol::Icmp),
        other => Err(format!("--proto {}: not one of tcp, udp, sctp, icmp", shown(other))),
    }
}

fn mac(word: &str) -> Result<crate::MacAddr, String> {
    word.parse().map_err(|e: crate::addr::InvalidMac| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(line: &str) -> Vec<Command> {
        match parse(&line.split(' ').collect::<Vec<_>>()) {
            Ok(Request::Transact { commands }) => commands,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_stand_before_or_behind_the_verb() {
        let wanted = [Command::AddBr { bridge: "br0".into(), may_exist: true }];
        assert_eq!(commands("--may-exist add-br br0"), wanted);
        assert_eq!(commands("add-br br0 --may-exist"), wanted);
    }

    #[test]
    fn columns_keys_and_values_are_told_apart() {
        let [Command::Set { table, columns, .. }] = &commands("set int p1 type=tap options:a=b:c=d mac=\"1:2\"")[..]
        else {
            panic!()
        };
        assert_eq!(*table, Table::Interface);
        let told: Vec<_> = columns.iter().map(|a| (a.column.as_str(), a.key.as_deref(), a.value.as_str())).collect();
        assert_eq!(told, [("type", None, "tap"), ("options", Some("a"), "b:c=d"), ("mac", None, "\"1:2\"")]);

        let [Command::Find { conditions, columns, .. }] =
            &commands("--columns name,ofport find Interface type!=internal options:x!=1 tag=2")[..]
        else {
            panic!()
        };
        let told: Vec<_> = conditions.iter().map(|c| (c.column.as_str(), c.key.as_deref(), c.equal)).collect();
        assert_eq!(told, [("type", None, false), ("options", Some("x"), false), ("tag", None, true)]);
        assert_eq!(columns, &["name", "ofport"]);
    }

    #[test]
    fn words_that_make_no_sense_are_refused_in_one_line() {
        for (line, why) in [
            ("add-br", "'add-br' command requires at least 1 arguments"),
            ("add-br a b", "'add-br' command takes at most 1 arguments"),
            ("add-br a --fast", "'add-br' command has no '--fast' option"),
            ("list Port --columns", "list: '--columns' needs a value: COLUMN,..."),
            ("add-br --may-exist=no a", "add-br: '--may-exist' has no value"),
            ("add-br a -n b", "'add-br' command has no '-n' option"),
            ("fly", "\"fly\" is not a valid command (use \"list-commands\" to see a list of valid commands)"),
            ("--if-exists", "missing command name (use --help for help)"),
            ("set Flow p1 a=b", "set: unknown table \"Flow\""),
            ("set Port p1 tag", "set: tag: argument does not have the form COLUMN[:KEY]=VALUE"),
            ("fdb/add br0 p1 x 02:00:00:00:00:01", "fdb/add: x: not a VLAN id"),
            ("fdb/del br0 1 02:00", "fdb/del: 02:00: invalid Ethernet address"),
        ] {
            assert_eq!(parse(&line.split(' ').collect::<Vec<_>>()).unwrap_err(), why, "{line}");
        }
        assert!(parse::<&str>(&[]).is_err());
    }

    #[test]
    fn every_verb_has_one_name_and_a_help_line() {
        for (i, def) in VERBS.iter().enumerate() {
            assert!(!def.help.is_empty() && def.min <= def.max);
            assert!(VERBS[..i].iter().all(|other| other.name != def.name), "{} is there twice", def.name);
        }
    }
}
