//! The network configuration: what CNI has in it for every plugin, and what is ours.
//!
//! | key | value | when absent |
//! |---|---|---|
//! | `socket` | path of the daemon's socket | `/run/vswitch/ctl.sock` |
//! | `queue` | directory of what the daemon shall detach when it starts: `detach` in its `--state-dir` | `/var/lib/vswitch/detach` |
//! | `bridge` | a bridge | the cluster's |
//! | `port` | kind of the port: `tap` or `afxdp` | `tap` |
//! | `mtu` | MTU of the interface; 0 is none | what fits |
//! | `ipam` | IPAM plugin; `{}`: no addresses | the daemon gives addresses |
//!
//! Other keys are other plugins' affair. A key of ours of a wrong type is refused, but not at DEL, which has to work with
//! a configuration that has become wrong.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::environment::{Verb, is_name};
use crate::fault::{Fault, code};
use crate::fields::Field;
use crate::result::Dns;
use crate::version::{Version, numbers};

const SOCKET: &str = "/run/vswitch/ctl.sock";
/// What [`Version`] a configuration has that says none (SPEC.md of 0.2.0).
const UNSAID: &str = "0.1.0";
/// The least MTU of IPv4 (RFC 791, 3.2).
const MTU_MIN: u64 = 68;

/// A configuration in which everything that CNI defines has its type.
pub(crate) struct Network {
    members: Map<String, Value>,
    /// As it came: delegates read it, too.
    pub(crate) stdin: Vec<u8>,
    pub(crate) name: String,
    version: String,
    pub(crate) ipam: Ipam,
    /// Container and interface of the attachments that are in use (GC).
    pub(crate) valid: Option<Vec<(String, String)>>,
}

/// Who gives addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// No `ipam`.
    Daemon,
    /// An `ipam` without a type: nobody.
    Nobody,
    /// The IPAM plugin of this name.
    Plugin(String),
}

/// What is ours in it.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) bridge: Option<String>,
    pub(crate) kind: String,
    pub(crate) mtu: Option<u16>,
}

/// Where the daemon is heard, and where it looks for what it did not hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) queue: PathBuf,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { socket: PathBuf::from(SOCKET), queue: PathBuf::from(api::detached::DIRECTORY) }
    }
}

impl Network {
    pub(crate) fn parse(stdin: Vec<u8>) -> Result<Self, Fault> {
        let whole: Value = serde_json::from_slice(&stdin)
            .map_err(|why| Fault::new(code::DECODING, format!("error unmarshall network config: {why}")))?;
        let Value::Object(members) = whole else {
            return Err(Fault::new(code::DECODING, "error unmarshall network config: an object is expected"));
        };
        let field = |name| Field::of(&members, name);
        let text = |name| field(name).text().map(|text| text.unwrap_or_default().to_owned());
        let name = text("name")?;
        text("type")?;
        let version = text("cniVersion")?;
        let ipam = match (field("ipam").is_absent(), field("ipam").member("type")?.text()?.unwrap_or_default()) {
            (true, _) => Ipam::Daemon,
            (false, "") => Ipam::Nobody,
            (false, plugin) => Ipam::Plugin(plugin.to_owned()),
        };
        for capability in field("capabilities").object()?.into_iter().flat_map(|all| all.keys()) {
            field("capabilities").member(capability)?.truth()?;
        }
        field("prevResult").object()?;
        field("runtimeConfig").object()?;
        Dns::parse(&field("dns"))?;
        // The second is what CNI's library called the first one before 1.1.0 was made (cni#1101); it sends both.
        let attachments = [field("cni.dev/valid-attachments"), field("cni.dev/attachments")];
        let valid = match attachments.iter().find(|attachments| !attachments.is_absent()) {
            None => None,
            Some(attachments) => {
                let member =
                    |of: &Field<'_>, name| of.member(name)?.text().map(|text| text.unwrap_or_default().to_owned());
                let pair = |of: &Field<'_>| Ok::<_, Fault>((member(of, "containerID")?, member(of, "ifname")?));
                Some(attachments.list()?.iter().map(pair).collect::<Result<_, _>>()?)
            }
        };
        let version = if version.is_empty() { UNSAID.to_owned() } else { version };
        Ok(Self { members, stdin, name, version, ipam, valid })
    }

    pub(crate) fn field(&self, name: &str) -> Field<'_> {
        Field::of(&self.members, name)
    }

    pub(crate) fn check_name(&self) -> Result<(), Fault> {
        match self.name.as_str() {
            "" => Err(Fault::new(code::INVALID_CONFIG, "missing network name")),
            name if is_name(name) => Ok(()),
            name => Err(Fault::new(code::INVALID_CONFIG, "invalid characters found in network name").details(name)),
        }
    }

    pub(crate) fn version(&self) -> Result<Version, Fault> {
        let incompatible = || {
            let all = Version::texts().join("\" \"");
            Fault::new(code::VERSION, "incompatible CNI versions")
                .details(format!("config is {:?}, plugin supports [\"{all}\"]", self.version))
        };
        Version::of(&self.version).ok_or_else(incompatible)
    }

    /// The version, where it knows the verb.
    pub(crate) fn version_for(&self, verb: &Verb) -> Result<Version, Fault> {
        let since = match verb {
            Verb::Check => Some(("CHECK", [0, 4, 0])),
            Verb::Gc => Some(("GC", [1, 1, 0])),
            Verb::Status => Some(("STATUS", [1, 1, 0])),
            _ => None,
        };
        if let Some((verb, since)) = since {
            let undecodable = || {
                let why = format!("error unmarshall network config: cniVersion: {:?}: not a version", self.version);
                Fault::new(code::DECODING, why)
            };
            if numbers(&self.version).ok_or_else(undecodable)? < since {
                return Err(Fault::new(code::VERSION, format!("config version does not allow {verb}")));
            }
        }
        self.version()
    }

    pub(crate) fn daemon(&self) -> Result<Daemon, Fault> {
        let path = |name, default| {
            let field = self.field(name);
            match field.text()? {
                None => Ok(default),
                Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
                Some(_) => Err(field.invalid("a path that begins with / is expected")),
            }
        };
        let default = Daemon::default();
        Ok(Daemon { socket: path("socket", default.socket)?, queue: path("queue", default.queue)? })
    }

    pub(crate) fn settings(&self) -> Result<Settings, Fault> {
        let bridge = self.field("bridge");
        if bridge.text()? == Some("") {
            return Err(bridge.invalid("a name is expected"));
        }
        let port = self.field("port");
        let kind = port.text()?.unwrap_or("tap");
        if !matches!(kind, "tap" | "afxdp") {
            return Err(port.unsupported("tap or afxdp is expected"));
        }
        let mtu = self.field("mtu");
        let mtu = match mtu.number()? {
            None | Some(0) => None,
            Some(number) => match u16::try_from(number) {
                Ok(fits) if number >= MTU_MIN => Some(fits),
                _ => return Err(mtu.invalid(&format!("{MTU_MIN} to 65535 is expected, or 0 for what fits"))),
            },
        };
        Ok(Settings { bridge: bridge.text()?.map(str::to_owned), kind: kind.to_owned(), mtu })
    }
}
