//! Packet sockets: whole Ethernet frames out of an interface, as if its host had sent them.
//!
//! Only sends: a socket that receives makes the kernel clone every frame of its interface.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A socket that sends out of the interface numbered `index` in the calling thread's namespace: a frame a write.
///
/// # Errors
/// When there is no such interface, or this process may not (CAP_NET_RAW).
pub fn sender(index: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received, now or after the bind.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a `sockaddr_ll` of the length that is told.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{Netlink, Settings};
    use crate::sys::netns::Namespace;

    #[test]
    fn frames_leave_by_the_interface_and_one_that_is_not_there_is_refused() {
        let Ok(host) = Namespace::new() else {
            return println!(
                "SKIPPED: frames_leave_by_the_interface_and_one_that_is_not_there_is_refused: not allowed"
            );
        };
        host.run(|| {
            assert_eq!(sender(4711).unwrap_err().raw_os_error(), Some(libc::ENODEV));
            let netlink = Netlink::open().unwrap();
            let lo = netlink.index("lo").unwrap();
            netlink.set(lo, &Settings { up: Some(true), ..Settings::default() }).unwrap();
            let frame = [0xff; 60];
            assert_eq!(rustix::io::write(sender(lo).unwrap(), &frame).unwrap(), frame.len());
        });
    }
}
