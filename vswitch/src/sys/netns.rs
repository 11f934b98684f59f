//! Network namespaces: finding, entering, making.
//!
//! A thread's namespace is part of the thread, so nothing here changes the namespace of a thread that goes on to do
//! other things: work is done on a fresh thread that ends with it. Whoever keeps a descriptor of a namespace, or a
//! socket made inside, keeps the namespace alive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space};

/// Where names of namespaces live (as `ip netns` and container runtimes use it).
const DIRECTORY: &str = "/run/netns";
// include/uapi/linux/nsfs.h: _IO(0xb7, 3)
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The path of a namespace given by name or path: whatever has a slash is a path.
pub fn path(name_or_path: &str) -> PathBuf {
    if name_or_path.contains('/') { name_or_path.into() } else { Path::new(DIRECTORY).join(name_or_path) }
}

/// Open a network namespace.
///
/// # Errors
/// When there is nothing at `path`, something else, or nothing that may be opened.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    // Non-blocking, so that a pipe in its place does not stop us.
    let ns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number; other files do not know it.
    let kind = unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"));
    }
    Ok(ns)
}

/// What tells namespaces apart: device and inode of their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    /// The inode alone, as `ip netns identify` and `/proc/PID/ns` show it.
    pub fn inode(self) -> u64 {
        self.1
    }
}

/// Which namespace stands at `path` now.
///
/// # Errors
/// When none does.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let stat = rustix::fs::stat(path)?;
    Ok(Identity(stat.st_dev, stat.st_ino))
}

/// Which namespace the calling thread is in.
///
/// # Errors
/// When there is no `/proc`.
pub fn own_identity() -> io::Result<Identity> {
    identity(Path::new("/proc/thread-self/ns/net"))
}

/// Which namespace a descriptor stands for.
///
/// # Errors
/// When the system does not say.
pub fn identity_of(ns: impl AsFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(ns)?;
    Ok(Identity(stat.st_dev, stat.st_ino))
}

/// Do `work` on a fresh thread inside the namespace, and wait for it.
///
/// # Errors
/// When `ns` is no network namespace, or may not be entered (CAP_SYS_ADMIN is needed here and there).
///
/// # Panics
/// When the work does.
pub fn within<T: Send>(ns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = move || {
            move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A network namespace of our own, without a name, held by a thread. It dies with the value, and all interfaces in it.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    ns: Option<OwnedFd>,
    /// The holder ends when this is dropped.
    hold: Option<Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new namespace, with nothing in it but a loopback interface that is down.
    ///
    /// # Errors
    /// When that is not allowed (CAP_SYS_ADMIN).
    pub fn new() -> io::Result<Self> {
        let (hold, held) = channel::<()>();
        let (tell, told) = channel();
        let holder = std::thread::Builder::new().name("netns-holder".into()).spawn(move || {
            // SAFETY: a new network namespace shares no memory or descriptors differently from before; it concerns
            // this thread alone.
            let made = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
            let made = made.map_err(io::Error::from).map(|()| gettid().as_raw_nonzero());
            let failed = made.is_err();
            if tell.send(made).is_ok() && !failed {
                // Ends when the value is dropped: that is an error of the channel, and the only thing that happens.
                let _ = held.recv();
            }
        })?;
        let thread = told.recv().map_err(|_| io::Error::other("the holder of the namespace died"))??;
        let path = PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", std::process::id()));
        let ns = open(&path)?;
        Ok(Self { path, ns: Some(ns), hold: Some(hold), holder: Some(holder) })
    }

    /// A path that other threads and processes can open it by while it lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Do `work` on a fresh thread inside, and wait for it.
    ///
    /// # Panics
    /// When the work does, or the namespace cannot be entered: this is for labs and tests.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.ns.as_ref().map(|ns| within(ns.as_fd(), work)) {
            Some(Ok(result)) => result,
            other => panic!("{}: {:?}", self.path.display(), other.map(|result| result.map(|_| ()))),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.ns = None;
        self.hold = None;
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_its_directory_and_a_path_is_taken_as_it_is() {
        assert_eq!(path("blue"), Path::new("/run/netns/blue"));
        assert_eq!(path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
        assert_eq!(path("./blue"), Path::new("./blue"));
    }

    #[test]
    fn a_namespace_has_its_own_interfaces_and_dies_with_its_value() {
        let Ok(namespace) = Namespace::new() else {
            return println!("SKIPPED: a_namespace_has_its_own_interfaces_and_dies_with_its_value: not allowed");
        };
        let here = own_identity().unwrap();
        let there = identity(namespace.path()).unwrap();
        assert_ne!(here, there);
        let inside = namespace.run(|| own_identity().unwrap());
        assert_eq!(inside, there);
        assert_eq!(own_identity().unwrap(), here, "this thread stayed where it was");
        let path = namespace.path().to_owned();
        drop(namespace);
        assert!(identity(&path).is_err());
    }

    #[test]
    fn what_is_no_namespace_cannot_be_entered() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(within(file.as_fd(), || ()).is_err());
        for path in ["/dev/null", "/proc/self/ns/uts", "/run/netns/not-there", ""] {
            assert!(open(Path::new(path)).is_err(), "{path}");
        }
    }
}
