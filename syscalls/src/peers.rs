//! Who is at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
//!
//! The kernel notes the process that made a connection. Where the supervisor connects on a guest's
//! behalf, that would be the supervisor for all of them; so a helper process of one system call does
//! it, and its number leads back to the guest. What a process that has ended was is kept for a while.

use std::arch::asm;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd};

use duet_vfs::types::{Errno, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

/// Entries that are kept; the oldest goes first.
const MOST: usize = 8192;

/// A process as a peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the sandbox's pid namespace; 0 if it is not known.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Processes by their numbers in the supervisor's pid namespace: helpers, and those that have ended.
#[derive(Default)]
pub struct Peers {
    by_pid: HashMap<i32, Peer>,
    order: VecDeque<i32>,
}

impl Peers {
    /// Notes whom process `host` stands for.
    pub fn insert(&mut self, host: i32, peer: Peer) {
        if self.by_pid.insert(host, peer).is_none() {
            self.order.push_back(host);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_pid.remove(&oldest);
        }
    }

    /// Forgets the process `host`.
    pub fn remove(&mut self, host: i32) {
        if self.by_pid.remove(&host).is_some() {
            self.order.retain(|&p| p != host);
        }
    }

    /// Whom process `host` stood for.
    pub fn get(&self, host: i32) -> Option<Peer> {
        self.by_pid.get(&host).copied()
    }
}

/// What a helper is to do.
struct Dial {
    fd: i32,
    addr: *const u8,
    len: usize,
}

/// Connects; the exit status is the errno.
extern "C" fn helper(dial: *mut libc::c_void) -> i32 {
    // SAFETY: `connect_for` passes a `Dial`, and keeps it.
    let dial = unsafe { &*dial.cast::<Dial>() };
    let result: i64;
    // SAFETY: connect(2) reads `len` bytes of `addr`, which `connect_for` keeps. The call is made without
    // libc, whose `errno` belongs to the thread that waits.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_connect => result,
            in("rdi") i64::from(dial.fd),
            in("rsi") dial.addr,
            in("rdx") dial.len,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result.unsigned_abs().min(255) as i32
}

/// connect(2), for the kernel to see another process do it, which is noted as `peer`. Blocks as the
/// socket does; `EINTR` if a signal to this thread ended that.
pub fn connect_for(
    peers: &Mutex<Peers>,
    peer: Peer,
    socket: BorrowedFd<'_>,
    addr: &[u8],
) -> Result<()> {
    let dial = Dial {
        fd: socket.as_raw_fd(),
        addr: addr.as_ptr(),
        len: addr.len(),
    };
    // Aligned as a stack must be.
    let mut stack = vec![0u128; 2048];
    let top = stack.as_mut_ptr_range().end;
    // It is a process of its own, but for memory and descriptors. No signal tells of its end.
    let flags = libc::CLONE_VM | libc::CLONE_FILES;
    let child = {
        // Nobody may ask for the helper's number before it is noted.
        let mut peers = peers.lock();
        // SAFETY: the helper makes one system call on a stack of its own. That, `dial` and `addr` live
        // until it has ended, which is waited for below.
        let n = unsafe {
            libc::clone(
                helper,
                top.cast(),
                flags,
                (&raw const dial).cast_mut().cast(),
            )
        };
        let child = Pid::from_raw(Errno::result(n)?);
        peers.insert(child.as_raw(), peer);
        child
    };
    match wait_for(child) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(Errno::from_raw(errno)),
        Err(_) => {
            // Interrupted, or worse: either way it must not use the stack any longer.
            if let Err(e) = kill(child, Signal::SIGKILL) {
                log::debug!("helper {child}: {e}");
            }
            loop {
                match wait_for(child) {
                    Ok(0) => return Ok(()),
                    Ok(libc::EINTR) => return Err(Errno::EINTR),
                    Ok(errno) => return Err(Errno::from_raw(errno)),
                    Err(Errno::EINTR) => (),
                    Err(_) => return Err(Errno::EINTR),
                }
            }
        }
    }
}

/// The status a helper exits with; `EINTR` for one that was killed.
fn wait_for(child: Pid) -> Result<i32> {
    match waitpid(child, Some(WaitPidFlag::__WALL))? {
        WaitStatus::Exited(_, status) => Ok(status),
        _ => Ok(libc::EINTR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use nix::sys::socket::sockopt::PeerCredentials;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};

    #[test]
    fn the_kernel_sees_the_helper() {
        let name = format!("duet-peers-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let mut raw = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
        raw.push(0);
        raw.extend_from_slice(name.as_bytes());
        let nobody = [&*raw, b"-nobody"].concat();
        let peers = Mutex::default();
        let dial = |raw: &[u8], peer| {
            let (unix, stream) = (AddressFamily::Unix, SockType::Stream);
            let s = socket(unix, stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let done = connect_for(&peers, peer, s.as_fd(), raw);
            (s, done)
        };
        for uid in [7, 8] {
            let (pid, gid) = (uid as i32, 9);
            let peer = Peer { pid, uid, gid };
            let (_client, done) = dial(&raw, peer);
            done.unwrap();
            let (server, _) = listener.accept().unwrap();
            let seen = getsockopt(&server, PeerCredentials).unwrap().pid();
            assert_ne!(seen, std::process::id() as i32);
            assert_eq!(peers.lock().get(seen), Some(peer));
        }
        let (pid, uid, gid) = (1, 1, 1);
        let refused = dial(&nobody, Peer { pid, uid, gid }).1;
        assert_eq!(refused, Err(Errno::ECONNREFUSED));
    }
}
