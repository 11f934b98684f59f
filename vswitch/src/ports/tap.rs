//! `tap`: a TAP device of the kernel, in the daemon's namespace or moved into another one (a pod's).
//!
//! Made in the daemon's namespace and then moved: a descriptor that was opened inside would keep the pod's namespace
//! alive. The device is persistent, so that the pod keeps its interface, addresses and routes when the daemon restarts,
//! and is marked as ours by its alias. Three ways to come by it, in this order:
//!
//! 1. the keeper has its descriptor: an earlier data plane left it, the pod saw nothing;
//! 2. the keeper has nothing, but a device of ours is there: both processes were gone. It is opened by name from inside
//!    its namespace. That pins the namespace, so [`Device::fault`] says when the namespace's path is gone or leads
//!    elsewhere, and the switch then closes the port;
//! 3. it is made.
//!
//! Every frame has a 12-octet header in front (virtio-net), so that super-frames and unfinished checksums pass from TAP
//! to TAP untouched:
//!
//! ```text
//!   read:   [header | first segment: 1920 octets of the slot] [tail: a spill of 64 KiB, kept ready]
//!   write:  [header | first segment]                          [tail]
//! ```
//!
//! Limits: one queue. Frames above the MTU are accepted by the kernel, in both directions; keeping to it is the
//! pipeline's.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::MacAddr;
use pipeline::burst::Burst;
use pipeline::offload::Offload;
use pipeline::raw::{Frame, HEADROOM, Pool, SLOT, Spill, Stash};
use rustix::io::Errno;
use tun_tap::{Iface, Mode};

use super::{Device, Environment, Opened, PortDef, PortError, Rx, RxQueue, Status, Tx, TxBatch};
use crate::keeper::Keeper;
use crate::sys::netlink::{Link, Netlink, Settings};
use crate::sys::netns::{self, Identity};
use crate::sys::tun::{self, HEADER, offload};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "tap",
    help: "a TAP device, here or in a network namespace",
    options: &[
        ("netns", "network namespace of the interface: a name under /run/netns, or a path"),
        ("ifname", "name of the interface, when it is not the port's"),
        ("queues", "1: more are not supported"),
    ],
    open,
};

/// Name under which a device is born; the kernel puts a number that is free.
const BIRTH_NAME: &str = "vswitch%d";
/// Octets of a frame that go into its slot; the rest goes into a spill.
const ROOM: usize = SLOT - HEADROOM;
/// Octets that one call of `rx` fetches at most: fairness among ports when frames are 64 KiB.
const TURN: usize = 256 * 1024;
/// Smallest MTU of IPv4 (RFC 791), and what the kernel's driver allows at most.
const MTU: std::ops::RangeInclusive<u16> = 68..=65521;

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    open_tap(&Wish::read(port)?, environment)
}

/// What is asked for, checked.
pub(super) struct Wish<'a> {
    /// Name of the port: what the keeper and the device's alias know it by.
    port: &'a str,
    ifname: &'a str,
    netns: Option<PathBuf>,
    mac: Option<MacAddr>,
    mtu: u16,
}

impl<'a> Wish<'a> {
    pub(super) fn read(port: &'a api::Port) -> Result<Self, PortError> {
        let option = |name: &str| port.options.get(name).map(String::as_str);
        let refuse = |text: String| Err(PortError(text));
        if let Some(queues) = option("queues").filter(|&queues| queues != "1") {
            return refuse(format!("options:queues={queues}: only 1 is supported"));
        }
        let netns = option("netns");
        if netns == Some("") {
            return refuse("options:netns=: needs a name or a path".into());
        }
        let ifname = option("ifname").unwrap_or(&port.name);
        if let Err(why) = check_name(ifname) {
            return refuse(format!("options:ifname={ifname:?}: {why}"));
        }
        if let Some(mac) = port.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
            return refuse(format!("mac={mac}: not the address of one station"));
        }
        if !MTU.contains(&port.mtu) {
            return refuse(format!("mtu_request={}: not in {}..{}", port.mtu, MTU.start(), MTU.end()));
        }
        Ok(Self { port: &port.name, ifname, netns: netns.map(netns::path), mac: port.mac, mtu: port.mtu })
    }

    /// What the keeper knows it by.
    fn key(&self) -> String {
        format!("tap:{}", self.port)
    }

    /// The alias that marks a device as this port's.
    fn mark(&self) -> String {
        format!("vswitch port {}", self.port)
    }

    fn error(&self, error: &io::Error) -> PortError {
        let place = self.netns.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default();
        let why = match error.raw_os_error() {
            Some(libc::EEXIST | libc::EBUSY) => "the name is taken".to_owned(),
            Some(libc::EPERM | libc::EACCES) => format!("{error}: {} and CAP_NET_ADMIN are needed", tun::PATH),
            _ => error.to_string(),
        };
        PortError(format!("options:ifname={}{place}: {why}", self.ifname))
    }
}

/// May an interface have this name? The rule is the kernel's, and no pattern.
fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" | "." | ".." => Err("not a name for an interface".into()),
        _ if name.len() > tun::NAME_MAX => Err(format!("longer than {} octets", tun::NAME_MAX)),
        _ => match name.chars().find(|&c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
            Some(c) => Err(format!("{c:?} cannot be in the name of an interface")),
            None => Ok(()),
        },
    }
}

/// Where a device shall live.
struct Home {
    /// Its namespace, when it is not the daemon's.
    ns: Option<OwnedFd>,
    identity: Identity,
}

impl Home {
    fn find(wish: &Wish<'_>) -> Result<Self, PortError> {
        let find = |path: &Path| -> io::Result<Self> {
            let ns = netns::open(path)?;
            Ok(Self { identity: netns::identity_of(&ns)?, ns: Some(ns) })
        };
        match &wish.netns {
            Some(path) => find(path).map_err(|error| PortError(format!("options:netns={}: {error}", path.display()))),
            None => netns::own_identity()
                .map(|identity| Self { ns: None, identity })
                .map_err(|error| PortError(format!("own network namespace: {error}"))),
        }
    }

    /// Do `work` in the namespace.
    fn visit<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.ns {
            Some(ns) => netns::within(ns.as_fd(), work)?,
            None => work(),
        }
    }
}

/// How we came by a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Inherited,
    Reopened,
    Made,
}

/// Come by the device, and open it as a port.
pub(super) fn open_tap(wish: &Wish<'_>, environment: &Environment<'_>) -> Result<Opened, PortError> {
    let keeper = environment.keeper;
    // The keeper must not pin a namespace that nobody can find any more.
    let home = Home::find(wish).inspect_err(|_| keeper.release(&wish.key()))?;
    let (fd, origin) = obtain(wish, &home, keeper)?;
    let tap = Tap {
        accepted: tun::negotiate(&fd),
        pinned: pinned(wish, &fd),
        key: wish.key(),
        keeper: keeper.clone(),
        released: AtomicBool::new(false),
        fd,
    };
    if origin != Origin::Inherited
        && let Err(error) = keeper.hold(&tap.key, tap.fd.as_fd())
    {
        if origin == Origin::Made {
            let _ = tun::set_persistent(&tap.fd, false);
        }
        return Err(PortError(format!("{}: the keeper cannot hold its device: {error}", wish.port)));
    }
    let tap = Arc::new(tap);
    let queue = Queue { tap: Arc::clone(&tap), spare: None, pool: environment.pool.clone(), lost: 0 };
    Ok(Opened { queues: vec![Box::new(queue)], device: tap })
}

fn obtain(wish: &Wish<'_>, home: &Home, keeper: &Keeper) -> Result<(OwnedFd, Origin), PortError> {
    if let Some(fd) = inherit(wish, home, keeper) {
        return Ok((fd, Origin::Inherited));
    }
    match reopen(wish, home).map_err(|error| wish.error(&error))? {
        Some(fd) => Ok((fd, Origin::Reopened)),
        None => make(wish, home).map(|fd| (fd, Origin::Made)),
    }
}

/// The descriptor that the keeper has, if its device lives where the port shall be. Otherwise what it has is removed.
fn inherit(wish: &Wish<'_>, home: &Home, keeper: &Keeper) -> Option<OwnedFd> {
    let fd = keeper.inherit(&wish.key())?;
    let alive = tun::name(&fd).is_ok();
    if alive && tun::namespace(&fd).and_then(netns::identity_of).is_ok_and(|there| there == home.identity) {
        return Some(fd);
    }
    let _ = tun::set_persistent(&fd, false);
    keeper.release(&wish.key());
    None
}

/// The device that a daemon left behind whose keeper is gone too, if there is one.
fn reopen(wish: &Wish<'_>, home: &Home) -> io::Result<Option<OwnedFd>> {
    home.visit(|| {
        match Netlink::open()?.link(wish.ifname)? {
            None => return Ok(None),
            Some(Link { alias, .. }) if alias == wish.mark() => {}
            Some(_) => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
        }
        // The process that had it may be dying still.
        for _ in 0..50 {
            match tun::open(wish.ifname) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result.map(Some),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    })
}

/// Make the device here, and put it in its place with name, MTU and address in one request. Nothing is left on error.
fn make(wish: &Wish<'_>, home: &Home) -> Result<OwnedFd, PortError> {
    let fd = give_birth().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            PortError(format!("{}: {error}: it must be writable, and CAP_NET_ADMIN is needed", tun::PATH))
        }
        _ => PortError(format!("{}: {error}", tun::PATH)),
    })?;
    let settle = || -> io::Result<()> {
        let netlink = Netlink::open()?;
        let settings = Settings {
            name: Some(wish.ifname),
            alias: Some(&wish.mark()),
            mac: wish.mac,
            mtu: Some(wish.mtu.into()),
            namespace: home.ns.as_ref().map(AsFd::as_fd),
            ..Settings::default()
        };
        netlink.set(netlink.index(&tun::name(&fd)?)?, &settings)
    };
    settle().map_err(|error| {
        let _ = tun::set_persistent(&fd, false);
        wish.error(&error)
    })?;
    Ok(fd)
}

/// A persistent device under a temporary name. `tun-tap` makes it; it cannot ask for the offload header, so the device
/// is opened again by name.
fn give_birth() -> io::Result<OwnedFd> {
    let made = Iface::without_packet_info(BIRTH_NAME, Mode::Tap)?;
    tun::set_persistent(tun::borrow(&made), true)?;
    let name = made.name().to_owned();
    drop(made);
    tun::open(&name).inspect_err(|_| {
        // It has no descriptor any more; its name is the only way to it.
        let _ = Netlink::open().and_then(|netlink| netlink.delete(netlink.index(&name)?));
    })
}

/// When the descriptor was opened inside a foreign namespace: where that was, to be watched.
fn pinned(wish: &Wish<'_>, fd: &OwnedFd) -> Option<(PathBuf, Identity)> {
    let birthplace = tun::birthplace(fd).and_then(netns::identity_of).ok()?;
    let foreign = netns::own_identity().is_ok_and(|own| own != birthplace);
    wish.netns.clone().filter(|_| foreign).map(|path| (path, birthplace))
}

struct Tap {
    fd: OwnedFd,
    /// Offloads the kernel accepted, bits of [`offload`].
    accepted: u32,
    /// The namespace that the descriptor keeps alive, as it was when the port opened.
    pinned: Option<(PathBuf, Identity)>,
    /// What the keeper knows the descriptor by.
    key: String,
    keeper: Keeper,
    /// The keeper was told to close its duplicate.
    released: AtomicBool,
}

impl Tap {
    /// Send one frame; the frame is as it was before if that fails.
    #[inline]
    fn send(&self, frame: &mut Frame) -> Result<(), Errno> {
        let header = encode(frame.offload().unwrap_or(Offload::NONE));
        // A frame has room in front for its encapsulation and for this.
        if !frame.grow_front(HEADER) {
            return Err(Errno::INVAL);
        }
        if let Some(room) = frame.head_mut().first_chunk_mut::<HEADER>() {
            *room = header;
        }
        let sent = rustix::io::retry_on_intr(|| match frame.spill() {
            [] => rustix::io::write(&self.fd, frame.head()),
            spill => rustix::io::writev(&self.fd, &[IoSlice::new(frame.head()), IoSlice::new(spill)]),
        });
        frame.shrink_front(HEADER);
        sent.map(|_| ())
    }

    /// What is gone, if something is.
    fn loss(&self) -> Option<&'static str> {
        if tun::name(&self.fd).is_err() {
            return Some("device is gone");
        }
        let (path, identity) = self.pinned.as_ref()?;
        let there = netns::identity(path).is_ok_and(|there| there == *identity);
        (!there).then_some("namespace is gone")
    }

    /// The device as it is where it is now.
    fn link(&self) -> io::Result<Option<Link>> {
        let ns = tun::namespace(&self.fd)?;
        netns::within(ns.as_fd(), || Netlink::open()?.link(&tun::name(&self.fd)?))?
    }

    /// Let the keeper not hold the device, or its namespace, on our behalf.
    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.keeper.release(&self.key);
        }
    }
}

impl Device for Tap {
    fn tx(&self, batch: &mut TxBatch, stash: &mut Stash) -> Tx {
        while let Some(frame) = batch.front() {
            match self.send(frame) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Tx::Full,
                // EIO: the interface is down. EBADFD: it is gone.
                Err(Errno::IO | Errno::BADFD) => return Tx::Down,
                Err(_) => return Tx::Refused,
            }
            if let Some((frame, _)) = batch.pop() {
                stash.give(frame);
            }
        }
        Tx::Done
    }

    fn takes(&self, work: Offload) -> bool {
        let segmentation = match work.gso_type & !Offload::GSO_ECN {
            Offload::GSO_NONE => 0,
            Offload::GSO_TCPV4 => offload::TSO4,
            Offload::GSO_TCPV6 => offload::TSO6,
            Offload::GSO_UDP_L4 => offload::USO4 | offload::USO6,
            _ => return false,
        };
        let ecn = if work.gso_type & Offload::GSO_ECN != 0 { offload::TSO_ECN } else { 0 };
        let checksum = if work.needs_csum() { offload::CSUM } else { 0 };
        let needs = segmentation | ecn | checksum;
        self.accepted & needs == needs
    }

    fn status(&self) -> Status {
        let offloads = offload_names(self.accepted);
        if let Some(fault) = self.fault() {
            return Status { error: Some(fault), offloads, ..Status::default() };
        }
        match self.link() {
            Ok(Some(link)) => Status {
                error: None,
                ifname: Some(link.name),
                mac: Some(link.mac),
                mtu: link.mtu.try_into().unwrap_or(u16::MAX),
                link: Some(link.carrier),
                offloads,
            },
            // It went, or was renamed, between two questions: the next call will know.
            Ok(None) => Status { offloads, ..Status::default() },
            Err(error) => Status { error: Some(error.to_string()), offloads, ..Status::default() },
        }
    }

    fn fault(&self) -> Option<String> {
        let loss = self.loss()?;
        self.release();
        Some(loss.into())
    }

    fn remove(&self) {
        let _ = tun::set_persistent(&self.fd, false);
        self.release();
    }
}

fn offload_names(accepted: u32) -> String {
    let names = [
        (offload::CSUM, "csum"),
        (offload::TSO4, "tso4"),
        (offload::TSO6, "tso6"),
        (offload::TSO_ECN, "ecn"),
        (offload::USO4 | offload::USO6, "uso"),
    ];
    let accepted: Vec<&str> =
        names.into_iter().filter(|(bits, _)| accepted & bits == *bits).map(|(_, name)| name).collect();
    accepted.join(" ")
}

struct Queue {
    tap: Arc<Tap>,
    /// For the next super-frame.
    spare: Option<Spill>,
    pool: Pool,
    /// Super-frames that found no spill, not told yet.
    lost: u64,
}

impl Queue {
    /// Read one frame into a fresh slot. `None` within: it was lost.
    #[inline]
    fn read(&mut self, mut frame: Frame, stash: &mut Stash) -> Result<Option<Frame>, Errno> {
        // Without a spill, one octet beyond the slot tells a frame that fits from one that the kernel would cut.
        let mut overrun = [0; 1];
        let slot = frame.slot_mut();
        let start = slot.len() - ROOM - HEADER;
        let into = slot.get_mut(start..).unwrap_or_default();
        let tail = self.spare.as_mut().map_or(&mut overrun[..], Spill::bytes_mut);
        let mut slices = [IoSliceMut::new(into), IoSliceMut::new(tail)];
        let read = match rustix::io::retry_on_intr(|| rustix::io::readv(&self.tap.fd, &mut slices)) {
            Ok(read) => read,
            Err(error) => {
                stash.give(frame);
                return Err(error);
            }
        };
        let work = into.first_chunk().map_or(Offload::NONE, decode);
        // The kernel always writes a header; a read that is shorter yields a frame of no octets, which is dropped by name.
        let len = read.saturating_sub(HEADER);
        frame.set_head(len.min(ROOM));
        frame.set_offload(work);
        if len > ROOM {
            let Some(spill) = self.spare.take() else {
                self.lost += 1;
                stash.give(frame);
                return Ok(None);
            };
            frame.attach(spill, len - ROOM);
        }
        Ok(Some(frame))
    }
}

impl RxQueue for Queue {
    fn rx(&mut self, burst: &mut Burst, limit: usize, stash: &mut Stash) -> Rx {
        let mut octets = 0;
        for _ in 0..limit {
            if self.spare.is_none() {
                self.spare = stash.take_spill();
            }
            let Some(frame) = stash.take() else { return Rx::Starved };
            match self.read(frame, stash) {
                Ok(Some(frame)) => {
                    octets += frame.len();
                    if let Err(frame) = burst.push(frame) {
                        // The burst has room for `limit` by contract.
                        stash.give(frame);
                        self.lost += 1;
                        return Rx::More;
                    }
                }
                Ok(None) => {}
                Err(Errno::BADFD) => return Rx::Gone,
                // Above all EAGAIN. Whatever else it is, the descriptor will say it again.
                Err(_) => return Rx::Drained,
            }
            if octets >= TURN {
                break;
            }
        }
        Rx::More
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.fd.as_fd())
    }

    fn limit(&self) -> usize {
        64
    }

    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(spill) = self.spare.take() {
            self.pool.stash().give_spill(spill);
        }
    }
}

/// `struct virtio_net_hdr_v1`, in the order of this machine (the kernel's default for TAP).
fn decode(header: &[u8; HEADER]) -> Offload {
    let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, ..] = *header;
    let word = |a, b| u16::from_ne_bytes([a, b]);
    Offload {
        flags,
        gso_type,
        hdr_len: word(h0, h1),
        gso_size: word(g0, g1),
        csum_start: word(s0, s1),
        csum_offset: word(o0, o1),
    }
}

fn encode(work: Offload) -> [u8; HEADER] {
    let [h0, h1] = work.hdr_len.to_ne_bytes();
    let [g0, g1] = work.gso_size.to_ne_bytes();
    let [s0, s1] = work.csum_start.to_ne_bytes();
    let [o0, o1] = work.csum_offset.to_ne_bytes();
    [work.flags, work.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(options: &[(&str, &str)]) -> api::Port {
        api::Port {
            id: api::PortId(1),
            name: "web-0".into(),
            bridge: api::BridgeId(1),
            ofport: 1,
            kind: "tap".into(),
            options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            vlan: api::Vlan::default(),
            mac: None,
            mtu: api::Port::MTU,
            external_ids: Default::default(),
        }
    }

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let header = [1, 0x81, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
        let work = decode(&header);
        assert_eq!((work.flags, work.gso_type), (Offload::NEEDS_CSUM, Offload::GSO_TCPV4 | Offload::GSO_ECN));
        assert_eq!(encode(work), header);
        assert_eq!(encode(Offload::NONE), [0; HEADER]);
    }

    #[test]
    fn options_that_cannot_be_are_refused_by_name() {
        for (options, error) in [
            (("queues", "4"), "options:queues=4: only 1 is supported"),
            (("netns", ""), "options:netns=: needs a name or a path"),
            (("ifname", "a234567890123456"), "options:ifname=\"a234567890123456\": longer than 15 octets"),
            (("ifname", "a/b"), "options:ifname=\"a/b\": '/' cannot be in the name of an interface"),
            (("ifname", "a b"), "options:ifname=\"a b\": ' ' cannot be in the name of an interface"),
            (("ifname", "tap%d"), "options:ifname=\"tap%d\": '%' cannot be in the name of an interface"),
            (("ifname", ".."), "options:ifname=\"..\": not a name for an interface"),
            (("ifname", ""), "options:ifname=\"\": not a name for an interface"),
        ] {
            assert_eq!(Wish::read(&port(&[options])).err().unwrap().to_string(), error);
        }
        let bad_mac = api::Port { mac: Some(MacAddr([1, 0, 0, 0, 0, 0])), ..port(&[]) };
        assert_eq!(Wish::read(&bad_mac).err().unwrap().0, "mac=01:00:00:00:00:00: not the address of one station");
        let bad_mtu = api::Port { mtu: 60, ..port(&[]) };
        assert_eq!(Wish::read(&bad_mtu).err().unwrap().0, "mtu_request=60: not in 68..65521");
    }

    #[test]
    fn an_interface_is_called_as_the_port_unless_told_otherwise() {
        let plain = port(&[("queues", "1")]);
        assert_eq!(Wish::read(&plain).unwrap().ifname, "web-0");
        let named = port(&[("ifname", "eth0"), ("netns", "blue")]);
        let wish = Wish::read(&named).unwrap();
        assert_eq!((wish.ifname, wish.netns.as_deref()), ("eth0", Some(Path::new("/run/netns/blue"))));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let port = port(&[("netns", "not-there")]);
        let environment = Environment { pool: &Pool::heap(64, 0), keeper: &Keeper::none() };
        let error = open(&port, &environment).err().unwrap();
        assert_eq!(error.0, "options:netns=/run/netns/not-there: No such file or directory (os error 2)");
    }

    #[test]
    fn offloads_are_named_in_one_order() {
        assert_eq!(offload_names(0x6f), "csum tso4 tso6 ecn uso");
        assert_eq!(offload_names(offload::CSUM | offload::TSO4), "csum tso4");
        assert_eq!(offload_names(0), "");
    }
}
