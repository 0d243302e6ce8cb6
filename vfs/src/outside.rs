//! Places that are not in the tree: what `/proc/PID/fd/N` leads to when the descriptor is a pipe, a
//! socket, a terminal or a file that came from outside the sandbox.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag};

use crate::counted::fstat;
use crate::dentry::Dentry;
use crate::host_call;
use crate::inode::*;
use crate::mount::Vfs;
use crate::types::*;
use crate::walk::Location;

/// The file system that nameless nodes belong to, as pipefs and sockfs of the kernel.
pub(crate) struct NoFs;

struct NoDirectory;

impl Inode for NoDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        Err(Errno::ENOENT)
    }
}

impl FileSystem for NoFs {
    fn type_name(&self) -> &'static str {
        "none"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NoDirectory)
    }

    fn statfs(&self) -> Result<StatFs> {
        /// `PIPEFS_MAGIC`
        const PIPEFS: i64 = 0x5049_5045;
        Ok(StatFs {
            magic: PIPEFS,
            bsize: 4096,
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            namelen: 255,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Never
    }
}

/// A node known by a host descriptor alone.
struct Descriptor {
    fd: OwnedFd,
    kind: FileType,
}

impl Descriptor {
    /// Whether the descriptor may be reopened for `flags`. The host would ask the file's mode and
    /// the supervisor's ids; we ask whether the guest has that access already, except for what
    /// has no owner outside the sandbox.
    fn may_reopen(&self, flags: i32) -> Result<()> {
        match self.kind {
            FileType::Socket => return Err(Errno::ENXIO),
            FileType::Directory | FileType::Symlink | FileType::BlockDevice => {
                return Err(Errno::EACCES);
            }
            FileType::Fifo | FileType::Regular if self.is_anonymous() => return Ok(()),
            FileType::Fifo | FileType::Regular | FileType::CharDevice => (),
        }
        let has = crate::counted::fcntl(self.fd.as_fd(), FcntlArg::F_GETFL)?;
        let has = if has & libc::O_PATH != 0 {
            // Says nothing of the access; a terminal is open both ways as a rule.
            match self.kind {
                FileType::CharDevice => libc::O_RDWR,
                _ => libc::O_RDONLY,
            }
        } else {
            has & libc::O_ACCMODE
        };
        let wants = flags & libc::O_ACCMODE;
        let writes = wants != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        let reads = wants != libc::O_WRONLY;
        if writes && has == libc::O_RDONLY || reads && has == libc::O_WRONLY {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// A pipe without a name or a memfd.
    fn is_anonymous(&self) -> bool {
        let Ok(text) = crate::counted::readlink(host_call::proc_fd(self.fd.as_raw_fd()).as_str())
        else {
            return false;
        };
        let text = text.as_bytes();
        match self.kind {
            FileType::Fifo => text.starts_with(b"pipe:["),
            _ => text.starts_with(b"/memfd:") && fstat(&self.fd).is_ok_and(|st| st.st_nlink == 0),
        }
    }
}

impl Inode for Descriptor {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn attr(&self) -> Result<Attr> {
        Ok(host_call::attr(&fstat(&self.fd)?))
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        // Its owner is someone of the host, whose ids mean nothing here; see `may_reopen`.
        Ok((self.kind as u32 | 0o666, 0, 0))
    }

    fn open(&self, flags: i32, _caller: &dyn Caller) -> Result<OpenedFile> {
        self.may_reopen(flags)?;
        let path = host_call::proc_fd(self.fd.as_raw_fd());
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = crate::counted::open(path.as_str(), flags, nix::sys::stat::Mode::empty())?;
        Ok(OpenedFile { fd, backing: None })
    }

    fn host_path(&self) -> Result<OwnedFd> {
        match self.kind {
            FileType::Socket => Err(Errno::ECONNREFUSED),
            _ => host_call::o_path(&self.fd),
        }
    }
}

impl Vfs {
    /// A place for something known by a descriptor alone.
    pub(crate) fn outside(&self, fd: OwnedFd) -> Result<Location> {
        let stat = fstat(&fd)?;
        // Anonymous inodes (eventfd, epoll, …) have no type; Linux follows the link all the same.
        let kind = FileType::from_mode(stat.st_mode).unwrap_or(FileType::Regular);
        let inode = Arc::new(Descriptor { fd, kind });
        let mount = self.nowhere.clone();
        let dentry = Dentry::unhashed(inode, None, Arc::from([]), false);
        Ok(Location { mount, dentry })
    }
}
