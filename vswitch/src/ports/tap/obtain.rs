//! Coming by a TAP device: what is asked for, checked, and the three ways of `tap.rs` to get it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::MacAddr;
use tun_tap::{Iface, Mode};

use crate::keeper::Keeper;
use crate::ports::PortError;
use crate::ports::interface::Setup;
use crate::sys::netlink::{Netlink, Settings};
use crate::sys::netns::{self, Identity};
use crate::sys::tun;

/// Name under which a device is born; the kernel puts a number that is free.
const BIRTH_NAME: &str = "vswitch%d";
/// What the alias of a device of ours begins with; the name of its port follows.
pub(in crate::ports) const MARK: &str = "vswitch port ";
/// Smallest MTU of IPv4 (RFC 791), and what the kernel's driver allows at most.
const MTU: std::ops::RangeInclusive<u16> = 68..=65521;

/// What is asked for, checked.
pub(in crate::ports) struct Wish<'a> {
    /// Name of the port: what the keeper and the device's alias know it by.
    pub(super) port: &'a str,
    ifname: &'a str,
    netns: Option<PathBuf>,
    /// The inode that the namespace must have.
    inode: Option<u64>,
    mac: Option<MacAddr>,
    mtu: u16,
    setup: Setup,
}

impl<'a> Wish<'a> {
    pub(in crate::ports) fn read(port: &'a api::Port) -> Result<Self, PortError> {
        let option = |name: &str| port.options.get(name).map(String::as_str);
        let refuse = |text: String| Err(PortError(text));
        if let Some(queues) = option("queues").filter(|&queues| queues != "1") {
            return refuse(format!("options:queues={queues}: only 1 is supported"));
        }
        let netns = option("netns");
        if netns == Some("") {
            return refuse("options:netns=: needs a name or a path".into());
        }
        let inode = option("netns-inode").map(|text| (text, text.parse::<u64>()));
        if let Some((text, Err(_))) = inode {
            return refuse(format!("options:netns-inode={text}: not a number"));
        }
        let ifname = option("ifname").unwrap_or(&port.name);
        if let Err(why) = check_name(ifname) {
            return refuse(format!(
                "{}={ifname:?}: {why}",
                if option("ifname").is_some() { "options:ifname" } else { "name" }
            ));
        }
        if let Some(mac) = port.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
            return refuse(format!("mac={mac}: not the address of one station"));
        }
        if !MTU.contains(&port.mtu) {
            return refuse(format!("mtu_request={}: not in {}..{}", port.mtu, MTU.start(), MTU.end()));
        }
        let setup = Setup::read(port)?;
        Ok(Self {
            port: &port.name,
            ifname,
            netns: netns.map(netns::path),
            inode: inode.and_then(|(_, inode)| inode.ok()),
            mac: port.mac,
            mtu: port.mtu,
            setup,
        })
    }

    /// What the keeper knows it by.
    pub(super) fn key(&self) -> String {
        format!("tap:{}", self.port)
    }

    /// The alias that marks a device as this port's.
    fn mark(&self) -> String {
        format!("{MARK}{}", self.port)
    }

    fn error(&self, error: &io::Error) -> PortError {
        let place = self.netns.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default();
        let why = match error.raw_os_error() {
            Some(libc::EEXIST | libc::EBUSY) => "the name is taken".to_owned(),
            Some(libc::EPERM | libc::EACCES) => format!("{error}: {} and CAP_NET_ADMIN are needed", tun::PATH),
            _ => error.to_string(),
        };
        let what = if self.ifname == self.port { "interface " } else { "options:ifname=" };
        PortError(format!("{what}{}{place}: {why}", self.ifname))
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
pub(super) struct Home {
    /// Its namespace, when it is not the daemon's.
    ns: Option<OwnedFd>,
    identity: Identity,
}

impl Home {
    pub(super) fn find(wish: &Wish<'_>) -> Result<Self, PortError> {
        let find = |path: &Path| -> io::Result<Self> {
            let ns = netns::open(path)?;
            let identity = netns::identity_of(&ns)?;
            if wish.inode.is_some_and(|inode| inode != identity.inode()) {
                return Err(io::Error::new(io::ErrorKind::NotFound, "leads to another namespace than it did"));
            }
            Ok(Self { identity, ns: Some(ns) })
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
pub(super) enum Origin {
    /// The keeper had its descriptor.
    Inherited,
    /// It was there, opened by nobody.
    Reopened,
    /// It is new.
    Made,
}

/// One of the three ways.
pub(super) fn obtain(wish: &Wish<'_>, home: &Home, keeper: &Keeper) -> Result<(OwnedFd, Origin), PortError> {
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
        let netlink = Netlink::open()?;
        // The process that had it may be dying still, or be about to remove it.
        for _ in 0..50 {
            let Some(found) = netlink.link(wish.ifname)? else { return Ok(None) };
            if found.alias != wish.mark() {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            match tun::open(wish.ifname) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
                Ok(fd) => {
                    // If it went meanwhile, this made another one, which goes with its descriptor.
                    let same = netlink.link(wish.ifname)?.is_some_and(|now| now.index == found.index);
                    return Ok(same.then_some(fd));
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    })
}

/// Make the device where it shall live, give it name, MTU and address in one request, and set up what stands on it.
/// Nothing is left on error.
fn make(wish: &Wish<'_>, home: &Home) -> Result<OwnedFd, PortError> {
    home.visit(|| Ok(make_here(wish))).map_err(|error| wish.error(&error))?
}

/// In the calling thread's namespace.
fn make_here(wish: &Wish<'_>) -> Result<OwnedFd, PortError> {
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
            ..Settings::default()
        };
        netlink.set(netlink.index(&tun::name(&fd)?)?, &settings)?;
        wish.setup.carry_out(wish.ifname)
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
    // A process that is being forked meanwhile has the descriptor until it runs another program.
    let open = || {
        (0..100).find_map(|_| match tun::open(&name) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(Duration::from_millis(1));
                None
            }
            opened => Some(opened),
        })
    };
    open().unwrap_or_else(|| tun::open(&name)).inspect_err(|_| {
        // It has no descriptor any more; its name is the only way to it.
        let _ = Netlink::open().and_then(|netlink| netlink.delete(netlink.index(&name)?));
    })
}

/// When the descriptor was opened inside a foreign namespace: where that was, to be watched.
pub(super) fn pinned(wish: &Wish<'_>, fd: &OwnedFd) -> Option<(PathBuf, Identity)> {
    let birthplace = tun::birthplace(fd).and_then(netns::identity_of).ok()?;
    let foreign = netns::own_identity().is_ok_and(|own| own != birthplace);
    wish.netns.clone().filter(|_| foreign).map(|path| (path, birthplace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::kit::port;

    #[test]
    fn options_that_cannot_be_are_refused_by_name() {
        for (options, error) in [
            (("queues", "4"), "options:queues=4: only 1 is supported"),
            (("netns", ""), "options:netns=: needs a name or a path"),
            (("netns-inode", "x"), "options:netns-inode=x: not a number"),
            (("ifname", "a234567890123456"), "options:ifname=\"a234567890123456\": longer than 15 octets"),
            (("ifname", "a/b"), "options:ifname=\"a/b\": '/' cannot be in the name of an interface"),
            (("ifname", "a b"), "options:ifname=\"a b\": ' ' cannot be in the name of an interface"),
            (("ifname", "tap%d"), "options:ifname=\"tap%d\": '%' cannot be in the name of an interface"),
            (("ifname", ".."), "options:ifname=\"..\": not a name for an interface"),
            (("ifname", ""), "options:ifname=\"\": not a name for an interface"),
        ] {
            assert_eq!(Wish::read(&port(&[options])).err().unwrap().to_string(), error);
        }
        let long = api::Port { name: "a234567890123456".into(), ..port(&[]) };
        assert_eq!(Wish::read(&long).err().unwrap().0, "name=\"a234567890123456\": longer than 15 octets");
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
    fn a_path_that_leads_to_another_namespace_than_it_did_is_refused() {
        let Ok(ns) = netns::Namespace::new() else {
            println!("SKIPPED: needs CAP_SYS_ADMIN");
            return;
        };
        let path = ns.path().to_str().unwrap();
        let inode = netns::identity(ns.path()).unwrap().inode();
        let find = |inode: u64| {
            let port = port(&[("netns", path), ("netns-inode", &inode.to_string())]);
            Home::find(&Wish::read(&port).unwrap()).map(drop)
        };
        find(inode).unwrap();
        let error = find(inode + 1).err().unwrap();
        assert_eq!(error.0, format!("options:netns={path}: leads to another namespace than it did"));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let port = port(&[("netns", "not-there")]);
        let error = Home::find(&Wish::read(&port).unwrap()).err().unwrap();
        assert_eq!(error.0, "options:netns=/run/netns/not-there: No such file or directory (os error 2)");
    }
}
