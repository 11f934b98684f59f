//! What the service manager is told (sd_notify(3)): that the daemon is ready, and which descriptors it shall hold.
//!
//! A service manager that holds descriptors gives them to the next process that it starts: so they outlive the keeper, too.
//! One that does not listen is no reason to stop.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sendmsg_addr, socket_with,
};

use crate::sys::listen;

/// Say that the daemon is ready.
pub(super) fn ready() {
    tell("READY=1\n", None);
}

/// Let the service manager hold a duplicate of `fd` under `name`, in the place of what it held under it.
pub(super) fn store(name: &str, fd: BorrowedFd<'_>) {
    if stores() {
        tell(&format!("FDSTORE=1\nFDNAME={}\n", escaped(name)), Some(fd));
    }
}

/// The service manager closes its duplicate.
pub(super) fn remove(name: &str) {
    if stores() {
        tell(&format!("FDSTOREREMOVE=1\nFDNAME={}\n", escaped(name)), None);
    }
}

/// What the service manager held, with the names.
pub(super) fn stored() -> Vec<(String, OwnedFd)> {
    listen::descriptors().into_iter().filter_map(|(name, fd)| Some((unescaped(&name)?, fd))).collect()
}

/// It may hold descriptors, as far as is known: those before systemd 254 do not say it.
fn stores() -> bool {
    std::env::var_os("FDSTORE").is_none_or(|most| most != "0")
}

fn tell(text: &str, fd: Option<BorrowedFd<'_>>) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> io::Result<()> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            name => SocketAddrUnix::new(name)?,
        };
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| {
            sendmsg_addr(&socket, &address, &[IoSlice::new(text.as_bytes())], &mut control, flags)
        })?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!("NOTIFY_SOCKET={}: {error}", name.display());
    }
}

/// A name as the service manager takes it: no colons, no control characters, none but ASCII.
fn escaped(name: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    name.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02x}") })
        .collect()
}

/// The name that was escaped; `None` if it was not escaped by us.
fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            octet => octet,
        });
    }
    String::from_utf8(octets).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_after_it_was_escaped() {
        for name in ["tap:web-0", "memory:connections", "tap:a%b c", "tap:ä", "x"] {
            let text = escaped(name);
            assert!(text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':'), "{text}");
            assert_eq!(unescaped(&text).as_deref(), Some(name));
        }
        assert!(escaped(&":".repeat(super::super::NAME)).len() <= 255);
        for text in ["", "%", "%4", "%zz", "%ff"] {
            assert_eq!(unescaped(text), None, "{text}");
        }
    }
}
