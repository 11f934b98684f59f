//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::TcpListener;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The same address for all that mean the same: every address of the node, of either IP version, is `[::]`.
pub(super) fn meant(address: SocketAddr) -> SocketAddr {
    let everywhere = address.ip().is_unspecified();
    if everywhere { SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()) } else { address }
}

/// A listener in the calling thread's namespace.
///
/// # Errors
/// When somebody else listens there, or no interface has the address.
pub(super) fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = match bound(address) {
        // A kernel without IPv6.
        Err(Errno::AFNOSUPPORT) if address.ip().is_unspecified() => {
            bound(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        bound => bound,
    };
    Ok(TcpListener::from_std(bound?.into()))
}

fn bound(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // The connections of a daemon before this one may still be closing.
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
