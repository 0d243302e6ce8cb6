//! Who is at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
//!
//! The kernel notes the process that made a connection. Where the supervisor connects on a guest's
//! behalf, that would be the supervisor for all of them; so a helper process of one system call does
//! it, and its number leads back to the guest. What a process that has ended was is kept for a while.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;

use duet_vfs::helper::{Calls, Helper, Namespace};
use duet_vfs::types::Result;
use parking_lot::Mutex;

/// Entries that are kept; the oldest goes first.
const MOST: usize = 8192;

/// A process as a peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the sandbox's pid namespace; 0 if it is not known.
    pub pid: i32,
    /// For whom a helper has connected: [`Process::serial`](crate::process::Process::serial), as another
    /// may get the number.
    pub connects: Option<u64>,
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

/// connect(2), for the kernel to see another process do it, which is noted as `peer`. Blocks as the
/// socket does; `EINTR` if a signal to this thread ended that.
pub fn connect_for(
    peers: &Mutex<Peers>,
    peer: Peer,
    socket: BorrowedFd<'_>,
    addr: &[u8],
) -> Result<()> {
    let calls = Calls::default().connect(socket, addr);
    let helper = {
        // Nobody may ask for the helper's number before it is noted.
        let mut peers = peers.lock();
        let helper = Helper::start(calls, Namespace::Same)?;
        peers.insert(helper.pid(), peer);
        helper
    };
    helper.wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use duet_vfs::types::Errno;
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
            let connects = None;
            let peer = Peer {
                pid,
                connects,
                uid,
                gid,
            };
            let (_client, done) = dial(&raw, peer);
            done.unwrap();
            let (server, _) = listener.accept().unwrap();
            let seen = getsockopt(&server, PeerCredentials).unwrap().pid();
            assert_ne!(seen, std::process::id() as i32);
            assert_eq!(peers.lock().get(seen), Some(peer));
        }
        let (pid, uid, gid) = (1, 1, 1);
        let connects = None;
        let anybody = Peer {
            pid,
            connects,
            uid,
            gid,
        };
        let refused = dial(&nobody, anybody).1;
        assert_eq!(refused, Err(Errno::ECONNREFUSED));
    }
}
