//! Host calls that nix lacks or wraps with more work than is wanted here: `statx`, extended
//! attributes through `/proc/self/fd`, `getdents64`, times on an `O_PATH` descriptor.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;

use crate::account::host;
use crate::inode::BackingId;
use crate::types::{Result, SetTime, Timespec};

/// What `statx` said of a host inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) id: BackingId,
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u64,
    pub(super) size: u64,
    pub(super) blksize: u32,
    pub(super) blocks: u64,
    pub(super) atime: Timespec,
    pub(super) mtime: Timespec,
    pub(super) ctime: Timespec,
    pub(super) btime: Option<Timespec>,
}

/// `statx` of `name` in `dir` (of `dir` itself if `name` is empty), never following a symbolic link.
fn statx(dir: BorrowedFd<'_>, name: &[u8], mask: u32) -> Result<libc::statx> {
    let mut raw = std::mem::MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let res = name.with_nix_path(|path| {
        // SAFETY: `path` is a C string and `raw` has room for one `struct statx`.
        host("statx", || unsafe {
            libc::statx(
                dir.as_raw_fd(),
                path.as_ptr(),
                flags,
                mask,
                raw.as_mut_ptr(),
            )
        })
    })?;
    Errno::result(res)?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    Ok(unsafe { raw.assume_init() })
}

/// The mount that `fd` lies on, as `/proc/self/mountinfo` numbers it; `None` before Linux 5.8.
pub(super) fn mount_id(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let raw = statx(fd, b"", libc::STATX_MNT_ID)?;
    Ok((raw.stx_mask & libc::STATX_MNT_ID != 0).then_some(raw.stx_mnt_id))
}

/// Whether the names of a directory are encrypted.
pub(super) fn is_encrypted(fd: BorrowedFd<'_>) -> Result<bool> {
    let raw = statx(fd, b"", 0)?;
    Ok(raw.stx_attributes & libc::STATX_ATTR_ENCRYPTED as u64 != 0)
}

/// The attributes of `name` in `dir` (of `dir` itself if `name` is empty), never following a symbolic link.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    let raw = statx(dir, name, libc::STATX_BASIC_STATS | libc::STATX_BTIME)?;
    let time = |t: libc::statx_timestamp| Timespec {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    };
    Ok(Stat {
        id: BackingId {
            dev: libc::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            ino: raw.stx_ino,
        },
        mode: u32::from(raw.stx_mode),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev: libc::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blksize: raw.stx_blksize,
        blocks: raw.stx_blocks,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        btime: (raw.stx_mask & libc::STATX_BTIME != 0).then(|| time(raw.stx_btime)),
    })
}

/// The path `/proc/self/fd/N` of a descriptor, which leads to its inode whatever its names are now.
pub(super) struct FdPath([u8; 32]);

impl FdPath {
    const PREFIX: &'static str = "/proc/self/fd/";

    pub(super) fn new(fd: BorrowedFd<'_>) -> FdPath {
        let mut buf = [0u8; 32];
        // 14 bytes of prefix and at most 10 digits always fit, and the rest stays zero.
        let _ = write!(&mut buf[..31], "{}{}", Self::PREFIX, fd.as_raw_fd());
        FdPath(buf)
    }

    /// The whole path.
    pub(super) fn full(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }

    /// Just the number, relative to a descriptor of `/proc/self/fd`.
    pub(super) fn number(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0[Self::PREFIX.len()..]).unwrap_or(c"")
    }
}

/// `openat` that always sets `O_CLOEXEC`, with flags as raw bits so that none is lost.
pub(super) fn open_at(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: `path` is a C string; the result is checked before it is owned.
    let fd = host("openat", || unsafe {
        libc::openat(
            dir.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC,
            mode,
        )
    });
    let fd = Errno::result(fd)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens one component below `dir` as an `O_PATH` descriptor; a symbolic link is opened itself.
pub(super) fn open_component(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    crate::counted::openat2(dir, name, how)
}

/// Times of `path` below `dir` (an entry of `/proc/self/fd`); `None` leaves one alone.
pub(super) fn set_times(
    dir: BorrowedFd<'_>,
    path: &CStr,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> Result<()> {
    let convert = |t: Option<SetTime>| match t {
        None => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        Some(SetTime::Now) => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_NOW,
        },
        Some(SetTime::At(t)) => libc::timespec {
            tv_sec: t.sec,
            tv_nsec: i64::from(t.nsec),
        },
    };
    let times = [convert(atime), convert(mtime)];
    // SAFETY: `path` is a C string and `times` the two values that the call reads.
    let res = host("utimensat", || unsafe {
        libc::utimensat(dir.as_raw_fd(), path.as_ptr(), times.as_ptr(), 0)
    });
    Errno::result(res).map(drop)
}

/// `getdents64` into `buf`; the number of bytes filled, 0 at the end.
pub(super) fn get_dents(dir: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
    let n = host("getdents64", || unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    });
    Errno::result(n).map(|n| n as usize)
}

/// The value of an extended attribute, into `buf`; its length.
pub(super) fn get_xattr_into(path: &CStr, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: two C strings, and at most `buf.len()` bytes are written into `buf`.
    let n = host("getxattr", || unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    });
    Errno::result(n).map(|n| n as usize)
}

/// The value of an extended attribute, whatever its length.
pub(super) fn get_xattr(path: &CStr, name: &CStr) -> Result<Vec<u8>> {
    grow(|buf| get_xattr_into(path, name, buf))
}

/// The NUL-separated list of the names of extended attributes.
pub(super) fn list_xattr(path: &CStr) -> Result<Vec<u8>> {
    grow(|buf| {
        // SAFETY: a C string, and at most `buf.len()` bytes are written into `buf`.
        let n = host("listxattr", || unsafe {
            libc::listxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len())
        });
        Errno::result(n).map(|n| n as usize)
    })
}

/// Calls `read` with a small buffer first and then with the largest that the kernel has a use for
/// (`XATTR_SIZE_MAX` and `XATTR_LIST_MAX` are both 64 KiB).
fn grow(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; 256];
    let n = match read(&mut buf) {
        Err(Errno::ERANGE) => {
            buf.resize(65536, 0);
            read(&mut buf)?
        }
        other => other?,
    };
    buf.truncate(n);
    Ok(buf)
}

/// Sets an extended attribute (`flags`: `XATTR_CREATE`, `XATTR_REPLACE`).
pub(super) fn set_xattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Result<()> {
    // SAFETY: two C strings and `value.len()` readable bytes.
    let res = host("setxattr", || unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    });
    Errno::result(res).map(drop)
}

/// Removes an extended attribute.
pub(super) fn remove_xattr(path: &CStr, name: &CStr) -> Result<()> {
    // SAFETY: two C strings.
    let res = host("removexattr", || unsafe {
        libc::removexattr(path.as_ptr(), name.as_ptr())
    });
    Errno::result(res).map(drop)
}

/// A second descriptor for the same open file, close-on-exec.
pub(super) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    host("fcntl", || fd.as_fd().try_clone_to_owned()).map_err(errno)
}

/// The errno in an I/O error.
pub(super) fn errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A name as a C string; EINVAL if it holds a NUL.
pub(super) fn c_name(name: &[u8]) -> Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)
}
