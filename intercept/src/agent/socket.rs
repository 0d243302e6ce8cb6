//! The socket that an agent receives descriptors from.
//!
//! The guest's end has a number out of the way of those that the guest uses itself. A forked child inherits it,
//! and `execve` closes it. The guest can close it as well, or put something else in its place: the agent
//! compares the cookie that the kernel has given the socket (`SO_COOKIE`), and does without if that is another.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};

use super::code;
use crate::observer::send_descriptors;
use crate::{Errno, Result, Tid, mem};

/// Where the guest's end is put at least.
pub const LEAST_DESCRIPTOR: RawFd = 1000;

/// Numbers that are left free above the socket.
const ROOM: u64 = 8;

/// Both ends of one agent's socket.
pub(super) struct Socket {
    ours: OwnedFd,
    theirs: OwnedFd,
    cookie: u64,
    sent: AtomicU64,
}

impl Socket {
    pub(super) fn new() -> Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        // Nothing that the guest sends is kept.
        shutdown(ours.as_raw_fd(), Shutdown::Read)?;
        let cookie = cookie(theirs.as_fd())?;
        Ok(Socket {
            ours,
            theirs,
            cookie,
            sent: AtomicU64::new(0),
        })
    }

    /// The guest's end.
    pub(super) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    pub(super) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Sends a descriptor, and returns the tag that goes with it.
    pub(super) fn send(&self, fd: &OwnedFd) -> Option<u64> {
        let tag = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        match send_descriptors(&self.ours, &[fd.as_raw_fd()], &tag.to_le_bytes()) {
            Ok(()) => Some(tag),
            Err(e) => {
                log::debug!("a descriptor for an agent: {e}");
                None
            }
        }
    }
}

/// `SO_COOKIE` of a socket: a number that no other socket of the host has or had.
fn cookie(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the buffer is as long as announced.
    let n = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &mut len,
        )
    };
    Errno::result(n).map(|_| cookie)
}

/// The number of the agent's socket that a process holds, its own or one that it was forked with, if it does:
/// `pidfd` is the process's.
pub fn in_process(tid: Tid, pidfd: BorrowedFd<'_>) -> Option<RawFd> {
    let mut known = [0; 16];
    mem::read(tid, code::COOKIE, &mut known).ok()?;
    let (expected, number) = (u64_at(&known, 0)?, u64_at(&known, 8)?);
    let number = RawFd::try_from(number).ok().filter(|&n| n > 0)?;
    // SAFETY: integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = Errno::result(fd).ok()?;
    // SAFETY: the kernel has just returned this descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    (cookie(fd.as_fd()) == Ok(expected)).then_some(number)
}

/// [`in_process`], given the process's only thread.
pub(super) fn of_thread(tid: Tid) -> Option<RawFd> {
    // SAFETY: integers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid.0, 0) };
    let pidfd = Errno::result(pidfd).ok()?;
    // SAFETY: the kernel has just returned this descriptor to us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) };
    in_process(tid, pidfd.as_fd())
}

/// The least number for the guest's end. `None` if its limit leaves no room there: it would stand among the numbers
/// that the guest uses.
pub(super) fn least_number(tid: Tid) -> Option<u64> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: nothing is set, and `limit` is ours.
    let n = unsafe { libc::prlimit64(tid.0, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit) };
    let least = LEAST_DESCRIPTOR as u64;
    (n == 0 && limit.rlim_cur >= least + ROOM).then_some(least)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_comes_with_its_tag() {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        let socket = Socket::new().unwrap();
        let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        assert_eq!((socket.send(&file), socket.send(&file)), (Some(1), Some(2)));
        let mut text = [0; 8];
        let mut vectors = [std::io::IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let fd = socket.theirs().as_raw_fd();
        let got = recvmsg::<()>(fd, &mut vectors, Some(&mut space), MsgFlags::empty()).unwrap();
        let rights = got.cmsgs().unwrap().next();
        assert!(matches!(rights, Some(ControlMessageOwned::ScmRights(fds)) if fds.len() == 1));
        assert_eq!(u64::from_le_bytes(text), 1);
    }

    #[test]
    fn nothing_comes_back_and_no_more_than_a_queue_is_sent() {
        let socket = Socket::new().unwrap();
        let text = b"from the guest";
        // SAFETY: the text, and its length.
        let n = unsafe {
            libc::send(
                socket.theirs().as_raw_fd(),
                text.as_ptr().cast(),
                text.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        assert_eq!(Errno::result(n), Err(Errno::EPIPE));
        let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        let sent = (0..10_000).take_while(|_| socket.send(&file).is_some());
        assert!(sent.count() < 10_000);
    }
}
