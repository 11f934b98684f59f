//! Descriptors that whoever started this process gave it (sd_listen_fds(3)).

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The first of them.
const FIRST: RawFd = 3;
/// So many at most: more is a mistake.
const MOST: usize = 1 << 16;

/// The descriptors that were meant for this process, each with its name. Given out once.
pub fn descriptors() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let names = names(|name| std::env::var_os(name), std::process::id());
    if names.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let mut taken = Vec::new();
    for (fd, name) in (FIRST..).zip(names) {
        // SAFETY: `fcntl` takes any number, and says whether it is a descriptor.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if !is_open {
            continue;
        }
        // SAFETY: the protocol makes the descriptor ours, and `TAKEN` makes it nobody else's: what this process opened itself
        // is of a higher number, since these were open before it began.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).is_ok() {
            taken.push((name, fd));
        }
    }
    taken
}

/// The names of the descriptors that the environment tells of.
fn names(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Vec<String> {
    let text = |name| variable(name).and_then(|value| value.into_string().ok());
    if text("LISTEN_PID").and_then(|text| text.parse().ok()) != Some(pid) {
        return Vec::new();
    }
    let number = text("LISTEN_FDS").and_then(|text| text.parse().ok()).filter(|number| *number <= MOST).unwrap_or(0);
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new())).take(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pid: &str, fds: &str, fdnames: &str) -> Vec<String> {
        let variable = |name: &str| {
            let value = match name {
                "LISTEN_PID" => pid,
                "LISTEN_FDS" => fds,
                _ => fdnames,
            };
            (value != "-").then(|| value.into())
        };
        names(variable, 77)
    }

    #[test]
    fn descriptors_are_named_in_order_and_only_those_that_are_meant_for_us_count() {
        assert_eq!(told("77", "2", "tap-a:memory"), ["tap-a", "memory"]);
        assert_eq!(told("77", "3", "a"), ["a", "", ""]);
        assert_eq!(told("77", "1", "-"), [""]);
        assert_eq!(told("77", "1", "a:b:c"), ["a"]);
        for (pid, fds) in [("78", "2"), ("-", "2"), ("77", "-"), ("77", "x"), ("77", "0"), ("77", "9999999")] {
            assert!(told(pid, fds, "a:b").is_empty(), "{pid} {fds}");
        }
    }

    #[test]
    fn a_process_that_was_given_nothing_has_nothing() {
        assert!(descriptors().is_empty());
    }
}
