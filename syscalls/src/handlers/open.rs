//! Calls that make descriptors from paths: `open` and its kin.

use std::sync::atomic::Ordering;

use duet_vfs::types::{Errno, FileType, Result};
use duet_vfs::walk::{Location, Lookup, OpenHow, Opened};

use crate::abi;
use crate::task::{Reply, Task};
use crate::wait::{self, Blocked};

/// Flags that `open(2)` knows; it ignores others, `openat2(2)` refuses them.
const KNOWN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_NOCTTY
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_ASYNC
    | libc::O_DIRECT
    | 0o100000 // O_LARGEFILE, which libc has as 0 on this architecture
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_NOATIME
    | libc::O_CLOEXEC
    | libc::O_PATH
    | libc::O_TMPFILE;

pub(super) fn open(t: &Task) -> Result<Reply> {
    do_open(t, libc::AT_FDCWD, &t.path(0)?, how(t.int(1), t.uint(2)))
}

pub(super) fn openat(t: &Task) -> Result<Reply> {
    do_open(t, t.int(0), &t.path(1)?, how(t.int(2), t.uint(3)))
}

pub(super) fn creat(t: &Task) -> Result<Reply> {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    do_open(t, libc::AT_FDCWD, &t.path(0)?, how(flags, t.uint(1)))
}

pub(super) fn openat2(t: &Task) -> Result<Reply> {
    const SIZE_VER0: u64 = 24;
    let (addr, size) = (t.arg(2), t.arg(3));
    if size < SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let raw = t.read(addr, size as usize)?;
    if raw.iter().skip(SIZE_VER0 as usize).any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let (flags, mode, resolve) = (
        abi::u64_at(&raw, 0)?,
        abi::u64_at(&raw, 8)?,
        abi::u64_at(&raw, 16)?,
    );
    let flags = i32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let makes = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    if flags & !KNOWN_FLAGS != 0 || mode & !0o7777 != 0 || (mode != 0 && !makes) {
        return Err(Errno::EINVAL);
    }
    const WITH_PATH: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    if flags & libc::O_PATH != 0 && flags & !WITH_PATH != 0 {
        return Err(Errno::EINVAL);
    }
    let lookup = resolve_flags(resolve)?;
    let how = OpenHow {
        flags,
        mode: mode as u32,
        lookup,
    };
    do_open(t, t.int(0), &t.path(1)?, how)
}

/// `RESOLVE_*` of openat2(2).
fn resolve_flags(bits: u64) -> Result<Lookup> {
    const TABLE: [(u64, Lookup); 5] = [
        (0x01, Lookup::NO_XDEV),
        (0x02, Lookup::NO_MAGICLINKS),
        (0x04, Lookup::NO_SYMLINKS),
        (0x08, Lookup::BENEATH),
        (0x10, Lookup::IN_ROOT),
    ];
    const CACHED: u64 = 0x20;
    if bits & CACHED != 0 {
        // As for a file system that cannot tell.
        return Err(Errno::EAGAIN);
    }
    let known = TABLE.iter().fold(0, |all, (bit, _)| all | bit);
    if bits & !known != 0 || bits & 0x18 == 0x18 {
        return Err(Errno::EINVAL);
    }
    let set = TABLE.iter().filter(|(bit, _)| bits & bit != 0);
    Ok(set.fold(Lookup::empty(), |all, &(_, flag)| all | flag))
}

fn how(flags: i32, mode: u32) -> OpenHow {
    let makes = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    OpenHow {
        flags: flags & KNOWN_FLAGS,
        mode: if makes { mode & 0o7777 } else { 0 },
        lookup: Lookup::empty(),
    }
}

fn do_open(t: &Task, dirfd: i32, path: &[u8], how: OpenHow) -> Result<Reply> {
    // With RESOLVE_IN_ROOT and RESOLVE_BENEATH an absolute path looks at `dirfd` too.
    let scoped = how.lookup.intersects(Lookup::IN_ROOT | Lookup::BENEATH);
    let base = t.base(dirfd, if scoped { b"" } else { path })?;
    let cloexec = how.flags & libc::O_CLOEXEC != 0;
    let found = if writes(how.flags) {
        refuse_busy_text(t, &base, path, &how)?
    } else {
        None
    };
    if t.staged.is_some() {
        return open_for_agent(t, &base, path, how, found);
    }
    match t.kernel.vfs.open(&t.cx(), &base, path, &how)? {
        Opened::File(fd) | Opened::Other(fd) => Ok(Reply::Descriptor { fd, cloexec }),
        Opened::Blocking(location, flags) => open_blocking(t, location, flags, cloexec),
    }
}

/// An open that an agent has handed over, of what [`is_plain`]. All else is to come the other way, and is not opened
/// before: others may see that, of a FIFO or a terminal, or be told of it (inotify(7)). `found`: what the path leads
/// to, if that is known.
fn open_for_agent(
    t: &Task,
    base: &Location,
    path: &[u8],
    how: OpenHow,
    found: Option<Location>,
) -> Result<Reply> {
    let vfs = &t.kernel.vfs;
    let mut lookup = how.lookup;
    lookup.set(Lookup::FOLLOW, how.flags & libc::O_NOFOLLOW == 0);
    lookup.set(Lookup::DIRECTORY, how.flags & libc::O_DIRECTORY != 0);
    let found = match found {
        Some(location) => Ok(location),
        None => vfs.resolve(&t.cx(), base, path, lookup),
    };
    let is_other = found.as_ref().is_ok_and(|l| !is_plain(l));
    if t.kernel.watches.load(Ordering::Relaxed) || is_other {
        return Ok(Reply::Deferred);
    }
    let opened = if how.flags & libc::O_CREAT != 0 {
        vfs.open(&t.cx(), base, path, &how)?
    } else {
        vfs.open_location(&t.cx(), &found?, how.flags)?
    };
    match opened {
        Opened::File(fd) | Opened::Other(fd) => Ok(Reply::Descriptor {
            fd,
            cloexec: how.flags & libc::O_CLOEXEC != 0,
        }),
        // A FIFO has come there meanwhile. It has been there: nothing has been made.
        Opened::Blocking(..) => Ok(Reply::Deferred),
    }
}

/// Whether to open it waits for nobody, and nobody sees that: regular files, directories, and devices such as
/// `/dev/null` and `/dev/urandom`.
fn is_plain(location: &Location) -> bool {
    /// Their major number.
    const MEMORY: u32 = 1;
    match location.kind() {
        FileType::Regular | FileType::Directory => true,
        FileType::CharDevice => location.attr().is_ok_and(|a| libc::major(a.rdev) == MEMORY),
        _ => false,
    }
}

fn writes(flags: i32) -> bool {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
    writes && flags & libc::O_PATH == 0 && flags & libc::O_TMPFILE != libc::O_TMPFILE
}

/// `ETXTBSY`, if the path leads to a program that runs. Whatever else is wrong with the path is for the
/// open itself to find. Returns what it leads to.
fn refuse_busy_text(
    t: &Task,
    base: &Location,
    path: &[u8],
    how: &OpenHow,
) -> Result<Option<Location>> {
    let mut lookup = how.lookup;
    lookup.set(Lookup::FOLLOW, how.flags & libc::O_NOFOLLOW == 0);
    match t.kernel.vfs.resolve(&t.cx(), base, path, lookup) {
        Ok(l) if l.kind() == FileType::Regular && t.kernel.processes.is_running(&l) => {
            t.kernel.vfs.access(&t.cx(), &l, libc::W_OK as u32)?;
            Err(Errno::ETXTBSY)
        }
        found => Ok(found.ok()),
    }
}

/// Opens a FIFO, which waits for its other end, on a thread of its own.
fn open_blocking(t: &Task, location: Location, flags: i32, cloexec: bool) -> Result<Reply> {
    wait::elsewhere(t, move |t| {
        match t.kernel.vfs.open_blocking(&t.cx(), &location, flags) {
            Ok(fd) => Blocked::Ended(Ok(Reply::Descriptor { fd, cloexec })),
            Err(Errno::EINTR) => Blocked::Interrupted,
            Err(e) => Blocked::Ended(Err(e)),
        }
    })
}
