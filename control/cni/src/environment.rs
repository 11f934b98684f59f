//! What a runtime says in the environment, checked variable by variable as CNI's library does.

use std::path::PathBuf;

use crate::fault::{Fault, code};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
    /// Something that we do not know. It is refused after the configuration was read.
    Unknown(String),
}

/// The variables as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    command: String,
    container: String,
    netns: String,
    ifname: String,
    path: String,
    args: String,
    netns_override: String,
}

/// The variables as they are after the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) container: String,
    /// Path of the namespace; may be empty at DEL.
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// The namespace may be the plugin's own.
    pub(crate) any_netns: bool,
}

impl Environment {
    /// Of this process. Text that is not UTF-8 is no valid value of any variable; it is seen as it is printed.
    pub(crate) fn of_process() -> Self {
        let of = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            command: of("CNI_COMMAND"),
            container: of("CNI_CONTAINERID"),
            netns: of("CNI_NETNS"),
            ifname: of("CNI_IFNAME"),
            path: of("CNI_PATH"),
            args: of("CNI_ARGS"),
            netns_override: of("CNI_NETNS_OVERRIDE"),
        }
    }

    /// Nobody asks for anything: somebody looks what this program is.
    pub(crate) fn says_nothing(&self) -> bool {
        self.command.is_empty()
    }

    /// Directories with plugins.
    pub(crate) fn path(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.path.split(':').filter(|directory| !directory.is_empty()).map(PathBuf::from)
    }

    /// The variables, checked: a bad value is told before those that are missing.
    pub(crate) fn call(&self) -> Result<Call, Fault> {
        let verb = match self.command.as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            other => Verb::Unknown(other.to_owned()),
        };
        let of_one = matches!(verb, Verb::Add | Verb::Del | Verb::Check);
        let mut missing = Vec::new();
        type Rule = fn(&str) -> Result<(), Fault>;
        for (name, value, needed, rule) in [
            ("CNI_CONTAINERID", &self.container, of_one, check_container as Rule),
            ("CNI_NETNS", &self.netns, matches!(verb, Verb::Add | Verb::Check), |_| Ok(())),
            ("CNI_IFNAME", &self.ifname, of_one, check_ifname),
            ("CNI_PATH", &self.path, of_one || matches!(verb, Verb::Gc | Verb::Status), |_| Ok(())),
        ] {
            match needed {
                true if value.is_empty() => missing.push(name),
                true => rule(value)?,
                false => {}
            }
        }
        if !missing.is_empty() {
            let missing = missing.join(",");
            return Err(Fault::new(code::ENVIRONMENT, format!("required env variables [{missing}] missing")));
        }
        Ok(Call {
            verb,
            container: self.container.clone(),
            netns: self.netns.clone(),
            ifname: self.ifname.clone(),
            args: self.args.clone(),
            any_netns: matches!(self.netns_override.to_ascii_uppercase().as_str(), "TRUE" | "1"),
        })
    }
}

/// Identifiers of containers and names of networks: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_name(text: &str) -> bool {
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    begins && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_container(id: &str) -> Result<(), Fault> {
    match is_name(id) {
        true => Ok(()),
        false => Err(Fault::new(code::ENVIRONMENT, "invalid characters in containerID").details(id)),
    }
}

fn check_ifname(name: &str) -> Result<(), Fault> {
    let fault = |why| Err(Fault::new(code::ENVIRONMENT, why));
    if name.len() > 15 {
        return fault("interface name is too long")
            .map_err(|fault| fault.details(format!("{name}: interface name should be less than 16 characters")));
    }
    if name == "." || name == ".." {
        return fault("interface name is . or ..");
    }
    if name.chars().any(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
        return fault("interface name contains / or : or whitespace characters").map_err(|fault| fault.details(name));
    }
    Ok(())
}
