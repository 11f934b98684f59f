//! The keeper: the parent process, which holds descriptors and starts the data plane again.
//!
//! ```text
//!   vswitchd (keeper) ----- socketpair, on the child's standard input -----> vswitchd (data plane)
//!        holds "tap:web-0" -> descriptor        <-- hold name + descriptor
//!                                               --> done
//!        ... the data plane dies; the keeper starts it again ...
//!                                               <-- inherit name
//!                                               --> done + descriptor
//! ```
//!
//! A service manager that offers it (`NOTIFY_SOCKET`, sd_notify(3)) holds the same descriptors for the time when the keeper
//! is gone, too, and gives them to the next one.
//!
//! The keeper knows names and descriptors, and never looks at a packet, a configuration or a table: what it does is so
//! little that it does not crash. Messages are of one size; every request has one answer. The data plane is killed when
//! its keeper dies (`PR_SET_PDEATHSIG`): there is never a forwarder that nobody watches.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Signal, set_parent_process_death_signal};

mod notify;
mod parent;
mod pidfile;

pub use parent::run_as_keeper;
pub use pidfile::PidFile;

/// Set in the data plane's environment: the number of the descriptor that is its line to the keeper (its standard
/// input).
pub const ENVIRONMENT: &str = "VSWITCH_KEEPER_FD";

/// Octets of a name at most.
const NAME: usize = 64;
/// Octets of a message: verb, length of the name, name.
const MESSAGE: usize = 2 + NAME;

/// The data plane's end of the line to its keeper. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// Locked from a request to its answer.
    line: Option<Arc<Mutex<OwnedFd>>>,
}

impl Keeper {
    /// No keeper: nothing is held, nothing comes back. For tests and switches inside other programs.
    pub fn none() -> Self {
        Self { line: None }
    }

    /// The keeper that started this process; none if it was started otherwise. Call it once, before threads are
    /// started. From here on this process dies when its keeper does.
    ///
    /// # Errors
    /// When the keeper is dead already, or the environment names something that is no line to a keeper.
    pub fn from_environment() -> io::Result<Self> {
        match std::env::var_os(ENVIRONMENT) {
            None => Ok(Self::none()),
            Some(fd) if fd == "0" => {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                let line = io::stdin().as_fd().try_clone_to_owned()?;
                // A keeper that died before the line above took effect has hung up.
                let mut fds = [PollFd::new(&line, PollFlags::empty())];
                poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
                if fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)) {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the keeper is gone"));
                }
                Ok(Self { line: Some(Arc::new(Mutex::new(line))) })
            }
            Some(fd) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{ENVIRONMENT}={}: the line to a keeper is descriptor 0", fd.display()),
            )),
        }
    }

    /// Let the keeper hold a duplicate of `fd` under `name` (at most 64 octets), until [`Self::release`]. Returns when
    /// the keeper has it.
    ///
    /// # Errors
    /// When the keeper is gone or its table is full.
    pub fn hold(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(Verb::Hold, name, Some(fd)).map(|_| ())
    }

    /// The keeper closes its duplicate.
    pub fn release(&self, name: &str) {
        // A keeper that cannot be told is gone, and its duplicates with it.
        let _ = self.ask(Verb::Release, name, None);
    }

    /// What an earlier data plane left under `name`. Given out once.
    pub fn inherit(&self, name: &str) -> Option<OwnedFd> {
        self.ask(Verb::Inherit, name, None).ok().flatten()
    }

    /// The data plane is ready: the keeper, or this process when it has none, tells the service manager
    /// (`NOTIFY_SOCKET`), and from now on an end of the data plane is a crash.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        if self.line.is_none() {
            notify::ready();
        }
        self.ask(Verb::Ready, "", None).map(|_| ())
    }

    fn ask(&self, verb: Verb, name: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<Option<OwnedFd>> {
        let Some(line) = &self.line else { return Ok(None) };
        let line = line.lock();
        send(line.as_fd(), &Message::new(verb, name)?, fd)?;
        match receive(line.as_fd())? {
            Some((Message { verb: Verb::Done, .. }, fd)) => Ok(fd),
            Some(_) => Err(io::Error::new(io::ErrorKind::OutOfMemory, "the keeper refuses: its table is full")),
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the keeper is gone")),
        }
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Verb {
    /// To the keeper: hold the descriptor that comes along.
    Hold = 1,
    /// To the keeper: close it.
    Release = 2,
    /// To the keeper: give it back.
    Inherit = 3,
    /// To the keeper: the data plane works.
    Ready = 4,
    /// The answer: done, with the descriptor that was asked for, if it is there.
    Done = 128,
    /// The answer: not done.
    Refused = 129,
}

impl Verb {
    fn from_octet(octet: u8) -> Option<Self> {
        let all = [Self::Hold, Self::Release, Self::Inherit, Self::Ready, Self::Done, Self::Refused];
        all.into_iter().find(|&verb| verb as u8 == octet)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    verb: Verb,
    name: String,
}

impl Message {
    fn new(verb: Verb, name: &str) -> io::Result<Self> {
        if name.len() > NAME {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: longer than {NAME} octets")));
        }
        Ok(Self { verb, name: name.into() })
    }

    fn encode(&self) -> [u8; MESSAGE] {
        let mut bytes = [0; MESSAGE];
        let (head, room) = bytes.split_at_mut(2);
        let name = self.name.as_bytes();
        head.copy_from_slice(&[self.verb as u8, name.len() as u8]);
        room.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; MESSAGE] = bytes.try_into().ok()?;
        let [verb, len, name @ ..] = bytes;
        let name = std::str::from_utf8(name.get(..usize::from(*len))?).ok()?;
        Some(Self { verb: Verb::from_octet(*verb)?, name: name.into() })
    }
}

fn send(line: BorrowedFd<'_>, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let bytes = message.encode();
    rustix::io::retry_on_intr(|| sendmsg(line, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message and the descriptor that came with it; `None` when the other end is gone.
fn receive(line: BorrowedFd<'_>) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut bytes = [0; MESSAGE + 1];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(line, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = bytes.get(..received.bytes).and_then(Message::decode);
        let message = message.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a message"))?;
        return Ok(Some((message, fd)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for (verb, name) in [(Verb::Hold, "tap:web-0"), (Verb::Inherit, &"n".repeat(NAME)), (Verb::Done, "")] {
            let message = Message::new(verb, name).unwrap();
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert!(Message::new(Verb::Hold, &"n".repeat(NAME + 1)).is_err());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let good = Message::new(Verb::Hold, "x").unwrap().encode();
        assert_eq!(Message::decode(&good[..MESSAGE - 1]), None);
        assert_eq!(Message::decode(&[]), None);
        let change = |at: usize, to: u8| {
            let mut bytes = good;
            bytes[at] = to;
            Message::decode(&bytes)
        };
        assert_eq!(change(0, 77), None);
        assert_eq!(change(1, NAME as u8 + 1), None);
        assert_eq!(change(2, 0xff), None);
    }

    #[test]
    fn without_a_keeper_nothing_is_held_and_nothing_fails() {
        let keeper = Keeper::none();
        keeper.hold("x", io::stdin().as_fd()).unwrap();
        assert!(keeper.inherit("x").is_none());
        keeper.release("x");
    }
}
