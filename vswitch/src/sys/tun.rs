//! TAP devices: the ioctls of `/dev/net/tun` that the `tun-tap` crate does not make.
//!
//! A device has one queue. The descriptor of a device that was moved to another namespace goes on working; opening by
//! name after the move would make a second device instead, so nothing here ever does that on its own.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

/// Where devices come from.
pub const PATH: &str = "/dev/net/tun";
/// Octets of the header in front of each frame: `struct virtio_net_hdr_v1` (Virtual I/O Device 1.2, 5.1.6).
pub const HEADER: usize = 12;
/// Octets of an interface name, without its final zero.
pub const NAME_MAX: usize = 15;

// include/uapi/linux/if_tun.h
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNGETIFF: Opcode = opcode::read::<u32>(b'T', 210);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const TUNGETDEVNETNS: libc::Ioctl = opcode::none(b'T', 227) as libc::Ioctl;
// include/uapi/linux/sockios.h
const SIOCGSKNS: libc::Ioctl = 0x894c;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// What a device may be asked to take off our hands (`TUN_F_*`).
pub mod offload {
    /// Checksums.
    pub const CSUM: u32 = 0x01;
    /// Segmentation of TCP over IPv4.
    pub const TSO4: u32 = 0x02;
    /// Segmentation of TCP over IPv6.
    pub const TSO6: u32 = 0x04;
    /// Segmentation of TCP with ECN's CWR.
    pub const TSO_ECN: u32 = 0x08;
    /// Segmentation of UDP over IPv4; only together with [`USO6`]. Linux 6.2.
    pub const USO4: u32 = 0x20;
    /// Segmentation of UDP over IPv6; only together with [`USO4`]. Linux 6.2.
    pub const USO6: u32 = 0x40;
}

/// `struct ifreq` as these calls use it: a name and flags.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: [u8; NAME_MAX + 1],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    fn new(name: &str, flags: u16) -> io::Result<Self> {
        let mut request = Self { name: [0; NAME_MAX + 1], flags, rest: [0; 22] };
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() <= NAME_MAX);
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
        Ok(request)
    }
}

/// Open the TAP device `name` with the offload header, non-blocking. A device that nobody made yet is made.
///
/// # Errors
/// `EBUSY`: somebody has it open. `EINVAL`: an interface of that name is no TAP device with one queue. `EPERM`: no
/// CAP_NET_ADMIN. `ENOENT` and others: no `/dev/net/tun`.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(PATH, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut request = Request::new(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` is.
    unsafe { ioctl(&fd, Updater::<TUNSETIFF, Request>::new(&mut request))? };
    let size = HEADER as i32;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    unsafe { ioctl(&fd, Setter::<TUNSETVNETHDRSZ, i32>::new(size))? };
    Ok(fd)
}

/// The descriptor of a device that `tun-tap` made: the crate is older than [`AsFd`].
pub fn borrow(made: &tun_tap::Iface) -> BorrowedFd<'_> {
    // SAFETY: the device owns its descriptor, and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(made.as_raw_fd()) }
}

/// Shall the device outlive its last descriptor?
///
/// # Errors
/// `EBADFD`: the device is gone.
pub fn set_persistent(fd: impl AsFd, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes 0 or 1 by value.
    unsafe { ioctl(fd, IntegerSetter::<TUNSETPERSIST>::new_usize(persistent.into()))? };
    Ok(())
}

/// Ask the device for offloads (bits of [`offload`]), from most to least. Returns what it accepted: 0 is an answer too.
pub fn negotiate(fd: impl AsFd) -> u32 {
    use offload::{CSUM, TSO_ECN, TSO4, TSO6, USO4, USO6};
    let tcp = CSUM | TSO4 | TSO6;
    let wishes = [tcp | TSO_ECN | USO4 | USO6, tcp | TSO_ECN, tcp, CSUM, 0];
    let accepted = |&wish: &u32| {
        // SAFETY: TUNSETOFFLOAD takes a set of bits by value, and refuses those it does not know.
        unsafe { ioctl(fd.as_fd(), IntegerSetter::<TUNSETOFFLOAD>::new_usize(wish as usize)) }.is_ok()
    };
    wishes.into_iter().find(accepted).unwrap_or(0)
}

/// The name of the device now, in the namespace where it is now.
///
/// # Errors
/// `EBADFD`: the device is gone.
pub fn name(fd: impl AsFd) -> io::Result<String> {
    // SAFETY: TUNGETIFF writes a `struct ifreq`, which `Request` is.
    let request = unsafe { ioctl(fd, Getter::<TUNGETIFF, Request>::new())? };
    let name = CStr::from_bytes_until_nul(&request.name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// The network namespace where the device is now. The descriptor keeps the namespace alive: drop it soon.
///
/// # Errors
/// `EBADFD`: the device is gone. `EPERM`: no CAP_NET_ADMIN there.
pub fn namespace(fd: impl AsFd) -> io::Result<OwnedFd> {
    related_namespace(fd, TUNGETDEVNETNS)
}

/// The network namespace where the descriptor was opened, which it keeps alive.
///
/// # Errors
/// `EPERM`: no CAP_NET_ADMIN there.
pub fn birthplace(fd: impl AsFd) -> io::Result<OwnedFd> {
    related_namespace(fd, SIOCGSKNS)
}

fn related_namespace(fd: impl AsFd, request: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: both requests take no argument and return a new descriptor or an error.
    let ns = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request) };
    if ns < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(ns) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        assert_eq!(TUNSETIFF, 0x4004_54ca);
        assert_eq!(TUNSETPERSIST, 0x4004_54cb);
        assert_eq!(TUNSETOFFLOAD, 0x4004_54d0);
        assert_eq!(TUNGETIFF, 0x8004_54d2);
        assert_eq!(TUNSETVNETHDRSZ, 0x4004_54d8);
        assert_eq!(TUNGETDEVNETNS, 0x54e3);
        assert_eq!(size_of::<Request>(), size_of::<libc::ifreq>());
    }

    #[test]
    fn names_that_do_not_fit_are_refused_before_the_kernel_cuts_them() {
        assert!(Request::new("a23456789012345", 0).is_ok());
        assert!(Request::new("a234567890123456", 0).is_err());
        assert!(Request::new(&"x".repeat(300), 0).is_err());
    }
}
