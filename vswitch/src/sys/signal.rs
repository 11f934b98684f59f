//! Signals as a descriptor, so that a loop waits for them like for everything else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signals that end a daemon in order.
pub const STOP: [i32; 2] = [libc::SIGTERM, libc::SIGINT];
/// The one of them that says that no start follows.
pub const FOR_GOOD: i32 = libc::SIGINT;

/// Blocked signals of the calling thread and of the threads and processes that it starts from now on, readable here.
/// Make it first thing in `main`: a thread that was started before would still be killed by them.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Block `signals` and read them from here.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set, after which the other calls only read or extend it; all of them
        // take plain values and a pointer to the local.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                if libc::sigaddset(set.as_mut_ptr(), signal) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd })
    }

    /// The next signal that arrived; `None` when none waits. Never blocks.
    pub fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is `size` octets, and the descriptor is ours.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // SAFETY: zeroed is a valid value of this plain structure, and the kernel wrote all or nothing of it.
        (read == size as isize).then(|| unsafe { info.assume_init() }.ssi_signo as i32)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_asked_for_is_read_instead_of_delivered() {
        std::thread::spawn(|| {
            let signals = Signals::new(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.next(), None);
            // SAFETY: sends a signal to the calling thread, which blocks it.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            assert_eq!(signals.next(), Some(libc::SIGUSR2));
            assert_eq!(signals.next(), None);
            assert!(Signals::new(&[-1]).is_err());
        })
        .join()
        .unwrap();
    }
}
