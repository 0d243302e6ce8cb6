//! What an observer is told of descriptors: their names as the guest sees them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use duet_intercept::{Names, Tid};
use duet_syscalls::kernel::Kernel;
use duet_vfs::BackingId;
use nix::sys::socket::{AddressFamily, SockType, SockaddrStorage, getpeername, getsockname};
use nix::sys::socket::{SockaddrLike, getsockopt, sockopt};
use nix::sys::stat::stat;

/// Looks descriptors up in the tree and in the host's `/proc`.
pub struct Look {
    kernel: Arc<Kernel>,
}

impl Look {
    /// For one sandbox.
    pub fn new(kernel: Arc<Kernel>) -> Look {
        Look { kernel }
    }

    fn copy(&self, tid: Tid, fd: i32) -> Option<OwnedFd> {
        let process = self.kernel.processes.of_thread(tid).ok()?;
        process.descriptor(fd, tid).ok()
    }

    /// A socket as strace(1) describes it with `-yy`.
    fn socket(&self, fd: &OwnedFd, inode: u64) -> Option<String> {
        let kind = getsockopt(&fd.as_fd(), sockopt::SockType).ok()?;
        let own = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
        let ends = || {
            let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok();
            let bound = |a: &SockaddrStorage| {
                let port = a.as_sockaddr_in().map(|a| a.port());
                let port = port.or_else(|| a.as_sockaddr_in6().map(|a| a.port()));
                port.is_some_and(|p| p != 0)
            };
            match peer {
                Some(peer) => format!("{own}->{peer}"),
                None if bound(&own) => own.to_string(),
                None => inode.to_string(),
            }
        };
        let stream = kind == SockType::Stream;
        Some(match (own.family()?, stream) {
            (AddressFamily::Inet, true) => format!("TCP:[{}]", ends()),
            (AddressFamily::Inet, false) => format!("UDP:[{}]", ends()),
            (AddressFamily::Inet6, true) => format!("TCPv6:[{}]", ends()),
            (AddressFamily::Inet6, false) => format!("UDPv6:[{}]", ends()),
            (AddressFamily::Unix, _) => {
                let kind = if stream { "UNIX-STREAM" } else { "UNIX" };
                // The host's name is none of the guest's.
                let path = own.as_unix_addr().and_then(|a| a.path());
                let sockets = self.kernel.sockets.lock();
                let name = path.and_then(|p| sockets.guest_name(p.as_os_str().as_bytes()));
                match name {
                    Some(name) => format!("{kind}:[{inode},\"{}\"]", name.escape_ascii()),
                    None => format!("{kind}:[{inode}]"),
                }
            }
            (AddressFamily::Netlink, _) => format!("NETLINK:[{inode}]"),
            _ => return None,
        })
    }
}

fn link(tid: Tid, fd: i32) -> PathBuf {
    format!("/proc/{}/fd/{fd}", tid.0).into()
}

impl Names for Look {
    fn descriptor(&self, tid: Tid, fd: i32) -> Option<Vec<u8>> {
        let link = link(tid, fd);
        let host = std::fs::read_link(&link).ok()?;
        // Of the rest the host's name tells as much as the guest's, or is the only one.
        if !host.as_os_str().as_bytes().starts_with(b"/") {
            return Some(host.into_os_string().into_vec());
        }
        let backing = stat(&link).ok()?;
        let id = BackingId {
            dev: backing.st_dev,
            ino: backing.st_ino,
        };
        let Some(location) = self.kernel.vfs.locate(id) else {
            return Some(host.into_os_string().into_vec());
        };
        let root = match self.kernel.processes.of_thread(tid) {
            Ok(process) => process.state().root.clone(),
            Err(_) => self.kernel.vfs.root(),
        };
        Some(location.path(&root).0)
    }

    fn details(&self, tid: Tid, fd: i32) -> Option<Vec<u8>> {
        let stat = stat(&link(tid, fd)).ok()?;
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        let text = match stat.st_mode & libc::S_IFMT {
            libc::S_IFCHR => format!("<char {major}:{minor}>"),
            libc::S_IFBLK => format!("<block {major}:{minor}>"),
            libc::S_IFSOCK => self.socket(&self.copy(tid, fd)?, stat.st_ino)?,
            _ => return None,
        };
        Some(text.into_bytes())
    }

    fn directory(&self, tid: Tid) -> Option<Vec<u8>> {
        let state = self.kernel.processes.of_thread(tid).ok()?.state();
        Some(state.cwd.path(&state.root).0)
    }
}
