//! A network of our own to work in, so that no lab meets an interface of the machine.
//!
//! As root a new network namespace; else a new user, network and mount namespace, in which we are root, where the
//! system allows it. Everything that a lab makes is inside and goes with the last process of it.

use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

/// What we were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Root, in a new network namespace.
    Root,
    /// Root of a new user namespace.
    UserNamespace,
    /// Nothing, and why: no lab with real interfaces can run.
    None(String),
}

impl Privilege {
    /// Real interfaces can be made, as far as privilege goes.
    pub fn suffices(&self) -> bool {
        !matches!(self, Self::None(_))
    }
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("root, in a new network namespace"),
            Self::UserNamespace => f.write_str("not root: continued as root of a new user + network + mount namespace"),
            Self::None(why) => f.write_str(why),
        }
    }
}

/// Leave the machine's network for one of our own. Call it first in `main`: a process with threads cannot enter a
/// user namespace, and threads that exist already would stay outside.
pub fn enter() -> Privilege {
    let refused = if geteuid().is_root() {
        match unshare(UnshareFlags::NEWNET) {
            Ok(()) => return Privilege::Root,
            Err(error) => format!("root without CAP_SYS_ADMIN (new network namespace: {error})"),
        }
    } else {
        "not root".to_owned()
    };
    // After unsharing, our ids outside are no longer to be seen.
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let entered = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS)
        .map_err(|error| format!("new user namespace: {error}"))
        .and_then(|()| become_root(uid, gid).map_err(|error| format!("ids of the new user namespace: {error}")));
    match entered {
        Ok(()) => Privilege::UserNamespace,
        Err(error) => Privilege::None(format!("{refused}, and no user namespace to be had ({error})")),
    }
}

/// Map root inside to the user outside. Groups first: a mapping by an unprivileged process must give up setgroups(2)
/// (user_namespaces(7)).
fn become_root(uid: u32, gid: u32) -> std::io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

#[expect(deprecated, reason = "its successor is unsafe for the sake of CLONE_FILES, which is not among our flags")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}
