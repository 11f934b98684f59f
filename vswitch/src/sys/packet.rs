//! Packet sockets (packet(7)): whole Ethernet frames into and out of an interface, as if its host had sent them.
//!
//! [`attach`] is for who wants both; [`sender`] only sends: a socket that receives makes the kernel clone every frame of
//! its interface.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Octets of the header in front of each frame of [`attach`]: `struct virtio_net_hdr` (Virtual I/O Device 1.2, 5.1.6).
pub const HEADER: usize = 10;
/// Octets that may wait in a socket, each way, as the kernel reckons them: some hundred super-frames.
const BUFFER: usize = 16 << 20;

/// A socket that sends out of the interface numbered `index` in the calling thread's namespace: a frame a write.
///
/// # Errors
/// When there is no such interface, or this process may not (CAP_NET_RAW).
pub fn sender(index: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received, now or after the bind.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, index, 0)?;
    Ok(socket)
}

/// A non-blocking socket that sends out of the interface numbered `index` in the calling thread's namespace, and receives
/// all that comes in there (nothing that the host sends), whomever it is for. A frame a write, or a [`receive`], each behind
/// its offload header.
///
/// # Errors
/// When there is no such interface, or this process may not (CAP_NET_RAW, CAP_NET_ADMIN).
pub fn attach(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0: nothing is received before all is set.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let on: libc::c_int = 1;
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        set(&socket, option, &on)?;
    }
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    set_socket_send_buffer_size_force(&socket, BUFFER)?;
    bind(&socket, index, libc::ETH_P_ALL as u16)?;
    let everything = libc::packet_mreq {
        mr_ifindex: number(index)?,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // Ends with the socket.
    set(&socket, libc::PACKET_ADD_MEMBERSHIP, &everything)?;
    Ok(socket)
}

/// Receive a header and its frame: first into `head`, what does not fit into `tail`. Returns the octets of both, including
/// those for which there was no room, and the VLAN tag that the kernel took out of the frame.
///
/// # Errors
/// `EAGAIN`: nothing waits. `ENETDOWN`, once: the interface went down. `ENODEV`: it is gone. `EINVAL`: one frame is lost,
/// whose offload the header cannot tell.
pub fn receive(socket: impl AsFd, head: &mut [u8], tail: &mut [u8]) -> Result<(usize, Option<[u8; 4]>), Errno> {
    /// Room for a control message, aligned as its header must be.
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut parts = [head, tail].map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
    // SAFETY: all of a `msghdr` may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the message refers to two buffers and a control buffer that are ours alone until the call returns, with
    // their lengths.
    let octets = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
    let Ok(octets) = usize::try_from(octets) else {
        return Err(io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error));
    };
    // SAFETY: the kernel left control messages, if any, in `control`, and their length in the message.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let is_data =
        |found: &&libc::cmsghdr| (found.cmsg_level, found.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA);
    let tag = first.filter(is_data).and_then(|found| {
        // SAFETY: the message is of the type whose data is a `tpacket_auxdata`; it need not be aligned.
        let data = unsafe { libc::CMSG_DATA(found).cast::<libc::tpacket_auxdata>().read_unaligned() };
        vlan_tag(&data)
    });
    Ok((octets, tag))
}

/// The tag as it was in the frame.
fn vlan_tag(data: &libc::tpacket_auxdata) -> Option<[u8; 4]> {
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let told = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if told { data.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 }.to_be_bytes();
    let [c, d] = data.tp_vlan_tci.to_be_bytes();
    Some([a, b, c, d])
}

/// The interface of the socket is there still, up or not.
pub fn is_attached(socket: impl AsFd) -> bool {
    // SAFETY: all of a `sockaddr_ll` may be zero.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the length that is told.
    let told = unsafe { libc::getsockname(socket.as_fd().as_raw_fd(), (&raw mut address).cast(), &raw mut len) };
    // The kernel lets go of an interface that goes by putting -1.
    told == 0 && address.sll_ifindex > 0
}

fn number(index: u32) -> io::Result<i32> {
    i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn bind(socket: &OwnedFd, index: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: number(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a `sockaddr_ll` of the length that is told.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T: Copy>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is of the length that is told, and the kernel only reads it.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
