//! A service manager's part, played by the test: descriptors that outlive both processes (sd_notify(3), FDSTORE).

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vswitch::sys::netlink::Netlink;

use super::alone;
use super::load::{Echo, Load, Shape};
use super::node::{End, Node, SERVICE};

/// Where numbers of descriptors begin that the started process does not use itself.
const HIGH: RawFd = 200;

/// What a service manager holds.
struct Manager {
    socket: UnixDatagram,
    stored: BTreeMap<String, OwnedFd>,
    is_ready: bool,
}

impl Manager {
    fn new(node: &Node) -> Self {
        let socket = UnixDatagram::bind(node.dir.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, stored: BTreeMap::new(), is_ready: false }
    }

    /// Take what was told.
    fn listen(&mut self) {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 512];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
            let Ok(received) = received else { return };
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            let text = std::str::from_utf8(&bytes[..received.bytes]).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
            match (text.lines().next(), fd) {
                (Some("READY=1"), None) => self.is_ready = true,
                (Some("FDSTORE=1"), Some(fd)) => {
                    assert!(!name.contains(':') && !name.is_empty(), "{text}");
                    self.stored.insert(name.to_owned(), fd);
                }
                (Some("FDSTOREREMOVE=1"), None) => _ = self.stored.remove(name),
                (_, fd) => panic!("{text}: {fd:?}"),
            }
        }
    }

    /// Start the daemon as systemd does: with what is stored, from descriptor 3 on.
    fn start(&mut self, node: &mut Node) {
        self.is_ready = false;
        let fds: Vec<OwnedFd> =
            self.stored.values().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, HIGH).unwrap()).collect();
        let names: Vec<&str> = self.stored.keys().map(String::as_str).collect();
        let mut command = Command::new("/bin/sh");
        // The number of the process is known to itself alone.
        command.arg("-c").arg(format!("export LISTEN_PID=$$; exec {}", node.words().join(" ")));
        command.env("NOTIFY_SOCKET", node.dir.path().join("notify")).env("FDSTORE", "64");
        command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let give = move || {
            for (to, from) in (3..).zip(&numbers) {
                // SAFETY: a plain system call on numbers of descriptors.
                if unsafe { libc::dup2(*from, to) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: what is done between fork and exec is a few system calls, without memory from the heap.
        unsafe { command.pre_exec(give) };
        node.start_by(command);
        drop(fds);
        let end = Instant::now() + Duration::from_secs(5);
        while !self.is_ready {
            assert!(Instant::now() < end, "the service manager was not told");
            self.listen();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn what_the_service_manager_holds_outlives_both_processes() {
    let _alone = alone();
    let Some(mut node) = Node::new("what_the_service_manager_holds_outlives_both_processes", 2, 1) else { return };
    let mut manager = Manager::new(&node);
    node.kill(End::Both);
    manager.start(&mut node);
    node.make_cluster();
    let _server = Echo::new(&node.pods[1], 8080);
    let shape = Shape { connections: 100, octets: 64, every: Duration::from_millis(20) };
    let load = Load::start(&node.pods[0], SERVICE.parse().unwrap(), shape);
    manager.listen();
    let stored: Vec<&str> = manager.stored.keys().map(String::as_str).collect();
    assert_eq!(stored, ["memory%3aconnections", "tap%3abr-pods", "tap%3ap0", "tap%3ap1"]);
    for end in [End::Both, End::Keeper, End::Both] {
        node.kill(end);
        // Somebody has them open: pods have a carrier, and what they send waits.
        let carrier = node.pods[0].run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.link("eth0").unwrap().unwrap().carrier
        });
        assert!(carrier, "{end:?}");
        // The file is not what counts.
        let _ = std::fs::remove_file(node.run_dir().join("connections"));
        manager.start(&mut node);
        load.settle(Duration::from_secs(10));
        let outcome = load.outcome();
        println!(
            "{end:?}, service manager: nothing came for {:?}, a connection waited {:?}",
            outcome.gap,
            outcome.wait_of(1000)
        );
        assert!(outcome.broken.is_empty() && outcome.octets > 0, "{end:?}: {:?}", outcome.broken);
    }
    assert!(node.log().contains("held by the service manager"), "{}", node.log());
    // What is no more is held no more.
    node.vsctl("del-port br-pods p1");
    manager.listen();
    assert!(!manager.stored.contains_key("tap%3ap1"), "{:?}", manager.stored.keys());
}
