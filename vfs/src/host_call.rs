//! Small helpers around host system calls.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode};

use crate::types::*;

/// `/proc/self/fd/N`, by which a descriptor can be reopened.
pub(crate) fn proc_fd(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

/// An `O_PATH` descriptor of what `fd` is.
pub(crate) fn o_path(fd: &impl AsFd) -> Result<OwnedFd> {
    crate::counted::open(
        proc_fd(fd.as_fd().as_raw_fd()).as_str(),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// A host inode's identity.
pub(crate) fn backing(st: &FileStat) -> crate::BackingId {
    crate::BackingId {
        dev: st.st_dev,
        ino: st.st_ino,
    }
}

/// Attributes as the host has them.
pub(crate) fn attr(st: &FileStat) -> Attr {
    Attr {
        dev: st.st_dev,
        ino: st.st_ino,
        mode: st.st_mode,
        nlink: u32::try_from(st.st_nlink).unwrap_or(u32::MAX),
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: st.st_rdev,
        size: u64::try_from(st.st_size).unwrap_or(0),
        blksize: u32::try_from(st.st_blksize).unwrap_or(4096),
        blocks: u64::try_from(st.st_blocks).unwrap_or(0),
        atime: time(st.st_atime, st.st_atime_nsec),
        mtime: time(st.st_mtime, st.st_mtime_nsec),
        ctime: time(st.st_ctime, st.st_ctime_nsec),
        btime: None,
    }
}

fn time(sec: i64, nsec: i64) -> Timespec {
    Timespec {
        sec,
        nsec: u32::try_from(nsec).unwrap_or(0),
    }
}
