//! Settings of a node: what was typed, and what it means.
//!
//! Any long option can stand in the TOML file of `--config`, under its name; the command line wins.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use control::{NodePortAddresses, NodeSettings};
use ipnet::IpNet;

use crate::switch;
use crate::sys::affinity;
use crate::web;

/// Ports of kube-proxy (`pkg/cluster/ports` of Kubernetes), for an address without one.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "vswitchd", version, about = "The vswitch daemon", args_override_self = true)]
pub(crate) struct Typed {
    /// Directory of the control socket and the pid files
    #[arg(long, value_name = "DIR", default_value = "/run/vswitch")]
    run_dir: PathBuf,
    /// Directory of the durable configuration
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vswitch")]
    state_dir: PathBuf,
    /// Group (by number) that may use the control socket beside its owner
    #[arg(long, value_name = "GID")]
    socket_group: Option<u32>,
    /// Directory of manifests that describe the cluster, watched
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
    /// CPUs to pin workers to, one worker each, such as 2,4-7
    #[arg(long, value_name = "LIST", conflicts_with = "workers")]
    cpus: Option<String>,
    /// Number of workers, not pinned [default: one on up to 4 CPUs, else a quarter of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Walk one of N hits again and compare (coverage: cache_divergence)
    #[arg(long, value_name = "1/N")]
    shadow: Option<String>,
    /// This node's name in the cluster state [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Bridge that the cluster lives on, made when its first object arrives
    #[arg(long, value_name = "BRIDGE", default_value = "br-pods")]
    cluster_bridge: String,
    /// Ranges of service addresses, beside those of ServiceCIDR objects
    #[arg(long, value_name = "CIDR,…")]
    service_cidr: Option<String>,
    /// Port of the cluster bridge behind which the outside is
    #[arg(long, value_name = "PORT")]
    uplink: Option<String>,
    /// Source ports of traffic that leaves the cluster, such as 49152-65535 (the default)
    #[arg(long, value_name = "FIRST-LAST")]
    snat_ports: Option<String>,
    /// Addresses of the node at which node ports are served: prefixes, or the first of each family
    #[arg(long, value_name = "CIDR,…|primary", default_value = "primary")]
    nodeport_addresses: String,
    /// Where /healthz and /livez are served, on every address by default; empty: nowhere
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "0.0.0.0:10256")]
    healthz_address: String,
    /// Where /metrics and /proxyMode are served; empty: nowhere
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "127.0.0.1:10249")]
    metrics_address: String,
    /// What becomes of connections that are open when a policy changes: keep them, or cut those that it denies
    #[arg(long, value_name = "keep|cut", default_value = "keep")]
    policy_existing: String,
    /// TOML file with any of these options; the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: LEVEL or TARGET=LEVEL,…
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// What it means.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) socket_group: Option<u32>,
    pub(crate) node: NodeSettings,
    pub(crate) cluster: Option<PathBuf>,
    pub(crate) switch: switch::Options,
    pub(crate) web: web::Settings,
    pub(crate) log: tracing_subscriber::filter::Targets,
}

/// Why the settings cannot be used.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// Help, version, or a usage error in clap's words.
    Usage(clap::Error),
    /// One line: the option or file, the value, the rule.
    Invalid(String),
}

impl Config {
    /// Read the command line (with the program's name in front) and the file that it names.
    pub(crate) fn from_args(args: &[OsString]) -> Result<Self, ConfigError> {
        let typed = Typed::try_parse_from(args).map_err(ConfigError::Usage)?;
        let typed = match &typed.config {
            None => typed,
            Some(file) => {
                let mut all: Vec<OsString> = args.first().cloned().into_iter().collect();
                all.extend(options_of(file).map_err(ConfigError::Invalid)?);
                all.extend(args.iter().skip(1).cloned());
                Typed::try_parse_from(all).map_err(ConfigError::Usage)?
            }
        };
        Self::new(typed).map_err(ConfigError::Invalid)
    }

    fn new(typed: Typed) -> Result<Self, String> {
        let usable = affinity::usable();
        let cpus = match &typed.cpus {
            None => Vec::new(),
            Some(list) => affinity::parse_list(list).map_err(|why| format!("--cpus {list}: {why}"))?,
        };
        if let Some(cpu) = cpus.iter().find(|cpu| !usable.contains(cpu)) {
            return Err(format!("--cpus {cpu}: this process may not run there; it may on {usable:?}"));
        }
        let default = if usable.len() <= 4 { 1 } else { usable.len() / 4 };
        let workers = match (typed.workers, cpus.len()) {
            (Some(workers), _) => usize::from(workers),
            (None, 0) => default,
            (None, pinned) => pinned,
        };
        let shadow = match typed.shadow.as_deref() {
            None => 0,
            Some(text) => text
                .strip_prefix("1/")
                .and_then(|n| n.parse().ok())
                .filter(|&n| n != 0)
                .ok_or_else(|| format!("--shadow {text}: 1/N is expected, such as 1/1000"))?,
        };
        let node = node_settings(&typed)?;
        let web = web::Settings {
            healthz: served_at("--healthz-address", &typed.healthz_address, HEALTHZ_PORT)?,
            metrics: served_at("--metrics-address", &typed.metrics_address, METRICS_PORT)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if web.healthz.is_some() && web.healthz == web.metrics {
            return Err(format!("--metrics-address {}: --healthz-address is the same", typed.metrics_address));
        }
        let log = typed.log.parse().map_err(|why| format!("--log {}: {why}", typed.log))?;
        let cut_existing = match typed.policy_existing.as_str() {
            "keep" => false,
            "cut" => true,
            other => return Err(format!("--policy-existing {other}: keep or cut is expected")),
        };
        let survival = Some(typed.run_dir.clone());
        let switch = switch::Options { workers, cpus, shadow, cut_existing, survival, ..switch::Options::default() };
        let Typed { run_dir, state_dir, socket_group, cluster, .. } = typed;
        Ok(Self { run_dir, state_dir, socket_group, node, cluster, switch, web, log })
    }
}

/// What was typed about the node.
fn node_settings(typed: &Typed) -> Result<NodeSettings, String> {
    let name = match &typed.node {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    // RFC 1123 2.1, as Kubernetes asks of a Node's name.
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(fit) {
        return Err(format!(
            "--node {name}: a name of at most 253 lower case letters, digits, '-' and '.' is expected"
        ));
    }
    let bridge = typed.cluster_bridge.clone();
    control::check_name(&bridge).map_err(|why| format!("--cluster-bridge {bridge}: {why}"))?;
    if let Some(uplink) = &typed.uplink {
        control::check_name(uplink).map_err(|why| format!("--uplink {uplink}: {why}"))?;
    }
    let mut service_cidrs = Vec::new();
    for text in typed.service_cidr.iter().flat_map(|list| list.split(',')) {
        let prefix: IpNet = text.trim().parse().map_err(|_| format!("--service-cidr {text}: not a prefix"))?;
        if prefix != prefix.trunc() {
            return Err(format!("--service-cidr {text}: has bits beyond its length: {} is the prefix", prefix.trunc()));
        }
        service_cidrs.push(prefix);
    }
    let snat_ports = match &typed.snat_ports {
        None => NodeSettings::default().snat_ports,
        Some(text) => text
            .split_once('-')
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
            .filter(|&(first, last)| 0 < first && first <= last)
            .ok_or_else(|| format!("--snat-ports {text}: FIRST-LAST is expected, such as 49152-65535"))?,
    };
    let node_ports = node_ports(&typed.nodeport_addresses)?;
    Ok(NodeSettings { name, bridge, service_cidrs, uplink: typed.uplink.clone(), snat_ports, node_ports })
}

/// `primary`, or prefixes. As in kube-proxy the word stands alone.
fn node_ports(text: &str) -> Result<NodePortAddresses, String> {
    if text == "primary" {
        return Ok(NodePortAddresses::Primary);
    }
    let prefix = |part: &str| -> Result<IpNet, String> {
        let prefix = part.trim().parse::<IpNet>().map_err(|_| format!("--nodeport-addresses {part}: not a prefix"))?;
        Ok(prefix.trunc())
    };
    text.split(',').map(prefix).collect::<Result<_, _>>().map(NodePortAddresses::Within)
}

/// An address to serve at: with a port, or the one that kube-proxy has. Empty is none.
fn served_at(option: &str, text: &str, port: u16) -> Result<Option<SocketAddr>, String> {
    let address = match text.parse::<SocketAddr>() {
        _ if text.is_empty() => return Ok(None),
        Ok(address) => Some(address),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port)),
    };
    match address {
        Some(address) if address.port() == 0 => Err(format!("{option} {text}: port 0: 1 to 65535 is expected")),
        Some(address) => Ok(Some(address)),
        None => Err(format!("{option} {text}: ADDRESS:PORT is expected, such as 127.0.0.1:{port} or [::1]:{port}")),
    }
}

/// The options in a file, as they would be typed.
fn options_of(file: &Path) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(file).map_err(|why| format!("--config {}: {why}", file.display()))?;
    let table: toml::Table = text.parse().map_err(|why: toml::de::Error| {
        let line = why.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
        format!("--config {}: line {line}: {}", file.display(), why.message())
    })?;
    let mut options = Vec::new();
    for (name, value) in table {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => {
                return Err(format!(
                    "--config {}: {name}: {}: text or a number is expected",
                    file.display(),
                    other.type_str()
                ));
            }
        };
        if name == "config" {
            return Err(format!("--config {}: config: a file cannot name another", file.display()));
        }
        options.push(OsString::from(format!("--{name}={text}")));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args: Vec<OsString> = std::iter::once("vswitchd").chain(args.iter().copied()).map(OsString::from).collect();
        Config::from_args(&args).map_err(|error| match error {
            ConfigError::Usage(error) => error.to_string(),
            ConfigError::Invalid(why) => why,
        })
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vswitch.toml");
        std::fs::write(&file, "run-dir = \"/tmp/a\"\nworkers = 2\n").unwrap();
        let file = file.to_str().unwrap();
        let from_file = config(&["--config", file]).unwrap();
        assert_eq!((from_file.run_dir, from_file.switch.workers), (PathBuf::from("/tmp/a"), 2));
        let both = config(&["--run-dir", "/tmp/b", "--config", file]).unwrap();
        assert_eq!((both.run_dir, both.switch.workers), (PathBuf::from("/tmp/b"), 2));
    }

    #[test]
    fn a_node_is_what_was_typed_of_it() {
        let typed = ["--node", "n1", "--service-cidr", "10.96.0.0/12,fd00:96::/112", "--uplink", "eth1"];
        let node = config(
            &[
                &typed[..],
                &["--snat-ports", "1024-2047", "--cluster-bridge", "br-k"],
                &["--nodeport-addresses", "192.0.2.1/24"],
            ]
            .concat(),
        )
        .unwrap()
        .node;
        let cidrs = ["10.96.0.0/12", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap()).to_vec();
        let (bridge, uplink) = ("br-k".to_owned(), Some("eth1".to_owned()));
        assert_eq!(
            node,
            NodeSettings {
                name: "n1".to_owned(),
                bridge,
                service_cidrs: cidrs,
                uplink,
                snat_ports: (1024, 2047),
                node_ports: NodePortAddresses::Within(vec!["192.0.2.0/24".parse().unwrap()]),
            }
        );
        let node = config(&[]).unwrap().node;
        assert!(!node.name.is_empty());
        assert_eq!(node, NodeSettings { name: node.name.clone(), ..NodeSettings::default() });
    }

    #[test]
    fn open_connections_are_kept_when_policies_change_unless_they_shall_be_cut() {
        let cut = |args: &[&str]| config(args).unwrap().switch.cut_existing;
        assert!(!cut(&[]) && !cut(&["--policy-existing", "keep"]) && cut(&["--policy-existing", "cut"]));
    }

    #[test]
    fn servers_are_where_kube_proxys_are_elsewhere_or_nowhere() {
        let at = |text: &str| Some(text.parse().unwrap());
        let web = config(&[]).unwrap().web;
        assert_eq!((web.healthz, web.metrics), (at("0.0.0.0:10256"), at("127.0.0.1:10249")));
        let web = config(&["--healthz-address", "[::1]:99", "--metrics-address", "::"]).unwrap().web;
        assert_eq!((web.healthz, web.metrics), (at("[::1]:99"), at("[::]:10249")));
        let web = config(&["--healthz-address=", "--metrics-address="]).unwrap().web;
        assert_eq!((web.healthz, web.metrics), (None, None));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vswitch.toml");
        let path = file.to_str().unwrap();
        for (text, says) in [("workers = ", "line 1"), ("colour = 1", "--colour"), ("workers = [1]", "workers")] {
            std::fs::write(&file, text).unwrap();
            let why = config(&["--config", path]).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        for (args, says) in [
            (["--cpus", "4095"], "4095"),
            (["--cpus", "x"], "--cpus x"),
            (["--workers", "0"], "0"),
            (["--shadow", "7"], "--shadow 7"),
            (["--config", "/nonexistent"], "/nonexistent"),
            (["--node", "Node_1"], "--node Node_1: a name of"),
            (["--cluster-bridge", "a/b"], "--cluster-bridge a/b: \"a/b\": a name must not contain '/'"),
            (["--uplink", ""], "--uplink : a name must not be empty"),
            (["--service-cidr", "10.96.0.0/33"], "--service-cidr 10.96.0.0/33: not a prefix"),
            (["--service-cidr", "10.96.0.1/12"], "10.96.0.0/12 is the prefix"),
            (["--nodeport-addresses", "10.0.0.1"], "--nodeport-addresses 10.0.0.1: not a prefix"),
            (["--nodeport-addresses", "primary,10.0.0.0/8"], "--nodeport-addresses primary: not a prefix"),
            (["--healthz-address", "localhost"], "--healthz-address localhost: ADDRESS:PORT is expected"),
            (["--healthz-address", ":10256"], "--healthz-address :10256: ADDRESS:PORT is expected"),
            (["--metrics-address", "127.0.0.1:0"], "--metrics-address 127.0.0.1:0: port 0"),
            (["--metrics-address", "0.0.0.0:10256"], "--metrics-address 0.0.0.0:10256: --healthz-address is the same"),
            (["--policy-existing", "Cut"], "--policy-existing Cut: keep or cut is expected"),
            (["--snat-ports", "0-1"], "--snat-ports 0-1: FIRST-LAST"),
            (["--snat-ports", "9-5"], "--snat-ports 9-5: FIRST-LAST"),
            (["--snat-ports", "1-65536"], "--snat-ports 1-65536: FIRST-LAST"),
        ] {
            let why = config(&args).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
