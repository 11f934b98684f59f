//! What labs need, and what this machine has of it. Nothing is assumed: each thing is tried.

use std::io::ErrorKind;

use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::{Value, json};
use vswitch::sys::tun::{self, offload};

use crate::sandbox::Privilege;

/// The command for a machine without the device (number: Documentation/networking/tuntap.rst).
const MAKE_TUN: &str = "mkdir -p /dev/net && mknod /dev/net/tun c 10 200 && chmod 666 /dev/net/tun";

/// What was found.
#[derive(Debug)]
pub struct Machine {
    kernel: String,
    cpus: usize,
    privilege: Privilege,
    /// Offloads that a TAP took, or why there is none and what to do about it.
    tap: Result<String, String>,
    /// AF_XDP sockets, or why not.
    xdp: Result<(), String>,
    /// Why no lab with real interfaces can run.
    lacks: Option<String>,
}

impl Machine {
    /// Try everything, with the privilege that we were given.
    pub fn probe(privilege: Privilege) -> Self {
        // Without a network of our own the trial would be an interface of the machine's.
        let tap = if privilege.suffices() { tap() } else { Err("not tried".to_owned()) };
        let xdp = socket(AddressFamily::XDP, SocketType::RAW, None).map(drop).map_err(|error| error.to_string());
        let lacks = match (&privilege, &tap) {
            (Privilege::None(why), _) => Some(why.clone()),
            (_, Err(why)) => Some(why.clone()),
            _ => None,
        };
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            privilege,
            tap,
            xdp,
            lacks,
        }
    }

    /// Why labs with real interfaces cannot run here; `None` when they can.
    pub fn lacks_interfaces(&self) -> Option<&str> {
        self.lacks.as_deref()
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "cpus": self.cpus,
            "privilege": self.privilege.to_string(),
            "tap": self.tap.as_deref().ok(),
            "xdp": self.xdp.is_ok(),
            "lacks": self.lacks,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = |has: bool| if has { '✓' } else { '–' };
        writeln!(f, "labs need                and have")?;
        writeln!(f, "  {} Linux 5.15            {}", mark(is_recent(&self.kernel)), self.kernel)?;
        writeln!(f, "  {} root, or as good      {}", mark(self.privilege.suffices()), self.privilege)?;
        let tap = match &self.tap {
            Ok(offloads) => format!("TAP with {offloads}"),
            Err(why) => why.clone(),
        };
        writeln!(f, "  {} /dev/net/tun          {tap}", mark(self.tap.is_ok()))?;
        let xdp = self.xdp.as_ref().map_or_else(|why| format!("AF_XDP: {why}"), |()| "AF_XDP sockets".to_owned());
        writeln!(f, "  {} XDP (no lab needs it) {xdp}", mark(self.xdp.is_ok()))?;
        write!(f, "  {} 2 CPUs for figures    {}", mark(self.cpus >= 2), self.cpus)
    }
}

/// The offloads that a TAP takes. The device is gone again when this returns.
fn tap() -> Result<String, String> {
    let fd = tun::open("labs%d").map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("no /dev/net/tun; make it with: {MAKE_TUN}"),
        ErrorKind::PermissionDenied => format!("/dev/net/tun: {error}; as root, or: chmod 666 /dev/net/tun"),
        _ => format!("/dev/net/tun: {error} (is the kernel's tun module there?)"),
    })?;
    Ok(names(tun::negotiate(&fd)))
}

/// Offloads for people; those of UDP need Linux 6.2.
fn names(offloads: u32) -> String {
    let all = [
        (offload::CSUM, "csum"),
        (offload::TSO4, "tso4"),
        (offload::TSO6, "tso6"),
        (offload::TSO_ECN, "ecn"),
        (offload::USO4, "uso4"),
        (offload::USO6, "uso6"),
    ];
    let names: Vec<&str> = all.iter().filter(|(bit, _)| offloads & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "no offload".to_owned() } else { names.join(" ") }
}

/// 5.15 or later.
fn is_recent(kernel: &str) -> bool {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_15_are_not_recent() {
        for (kernel, recent) in
            [("5.15.0-generic", true), ("6.2", true), ("5.4.1", false), ("4.19", false), ("", false)]
        {
            assert_eq!(is_recent(kernel), recent, "{kernel}");
        }
    }

    #[test]
    fn offloads_are_named_from_most_common_to_least() {
        assert_eq!(names(offload::CSUM | offload::TSO4 | offload::USO4), "csum tso4 uso4");
        assert_eq!(names(0), "no offload");
    }

    #[test]
    fn a_machine_without_privilege_says_why_it_lacks_interfaces() {
        let machine = Machine::probe(Privilege::None("not root".into()));
        assert_eq!(machine.lacks_interfaces(), Some("not root"));
        assert!(machine.to_string().contains("– root, or as good      not root"), "{machine}");
    }
}
