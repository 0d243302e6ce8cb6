//! Calls that ask for attributes: `stat` and its kin, `access`, `statfs`, `readlink`.

use std::sync::Arc;

use duet_vfs::types::{Attr, Errno, Result};
use duet_vfs::walk::{Context, Location, Lookup};
use duet_vfs::{BackingId, MountFlags, Vfs};

use crate::abi;
use crate::task::{Descriptor, Reply, Task};

/// Flags of the `*at` calls here that say how to synchronise a network file system; any will do.
const STATX_SYNC_FLAGS: i32 = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;

pub(super) fn stat(t: &Task) -> Result<Reply> {
    stat_path(t, Lookup::FOLLOW)
}

pub(super) fn lstat(t: &Task) -> Result<Reply> {
    stat_path(t, Lookup::empty())
}

fn stat_path(t: &Task, how: Lookup) -> Result<Reply> {
    let path = t.path(0)?;
    let vfs = &t.kernel.vfs;
    let (_, attr) = vfs.resolve_attr(&t.cx(), &t.state.cwd, &path, how)?;
    t.write(t.arg(1), &abi::stat(&attr))?;
    Ok(Reply::DONE)
}

pub(super) fn fstat(t: &Task) -> Result<Reply> {
    let attr = descriptor_attr(t, t.int(0))?;
    t.write(t.arg(1), &abi::stat(&attr))?;
    Ok(Reply::DONE)
}

pub(super) fn newfstatat(t: &Task) -> Result<Reply> {
    let flags = t.int(3);
    let allowed = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    if flags & !allowed != 0 {
        return Err(Errno::EINVAL);
    }
    let attr = match target_by(t, t.int(0), 1, flags, Vfs::resolve_attr)? {
        Found::Descriptor(fd) => descriptor_attr(t, fd)?,
        Found::Node((_, attr)) => attr,
    };
    t.write(t.arg(2), &abi::stat(&attr))?;
    Ok(Reply::DONE)
}

pub(super) fn statx(t: &Task) -> Result<Reply> {
    const RESERVED: u32 = 0x8000_0000;
    let (flags, mask) = (t.int(2), t.uint(3));
    let allowed =
        libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | STATX_SYNC_FLAGS;
    if mask & RESERVED != 0 || flags & !allowed != 0 || flags & STATX_SYNC_FLAGS == STATX_SYNC_FLAGS
    {
        return Err(Errno::EINVAL);
    }
    let (attr, location) = match target_by(t, t.int(0), 1, flags, Vfs::resolve_attr)? {
        Found::Descriptor(fd) => {
            let d = t.descriptor(fd)?;
            match d.location {
                Some(l) => (l.attr()?, Some(l)),
                None => (host_attr(&d.stat), None),
            }
        }
        Found::Node((l, attr)) => (attr, Some(l)),
    };
    let mount = location.as_ref().map_or(0, |l| u64::from(l.mount.id()));
    let is_root = location.is_some_and(|l| Arc::ptr_eq(l.mount.root(), &l.dentry));
    t.write(t.arg(4), &abi::statx(&attr, mount, is_root))?;
    Ok(Reply::DONE)
}

/// The caller's descriptor `fd`, for a call that works on an open file: `EBADF` if it was opened with
/// `O_PATH`.
pub(super) fn open_file(t: &Task, fd: i32) -> Result<Descriptor> {
    let d = t.descriptor(fd)?;
    let id = BackingId {
        dev: d.stat.st_dev,
        ino: d.stat.st_ino,
    };
    if t.kernel.vfs.is_path_only(id) {
        return Err(Errno::EBADF);
    }
    Ok(d)
}

/// What an `*at` call is about.
pub(super) enum Found<T> {
    /// The open descriptor itself (`AT_EMPTY_PATH`).
    Descriptor(i32),
    /// A node found by path.
    Node(T),
}

/// What an `*at` call is about, if the node is all that is wanted of it.
pub(super) type Target = Found<Location>;

/// Resolves the path in argument `path_arg` from `dirfd` as `AT_*` flags say.
pub(super) fn target(t: &Task, dirfd: i32, path_arg: usize, flags: i32) -> Result<Target> {
    target_by(t, dirfd, path_arg, flags, Vfs::resolve)
}

fn target_by<T>(
    t: &Task,
    dirfd: i32,
    path_arg: usize,
    flags: i32,
    resolve: impl Fn(&Vfs, &Context, &Location, &[u8], Lookup) -> Result<T>,
) -> Result<Found<T>> {
    let by_descriptor = flags & libc::AT_EMPTY_PATH != 0;
    // A null path is an empty one there since Linux 6.11.
    let path = if by_descriptor && t.arg(path_arg) == 0 {
        Vec::new()
    } else {
        t.path(path_arg)?
    };
    if path.is_empty() && by_descriptor && dirfd != libc::AT_FDCWD {
        return Ok(Found::Descriptor(dirfd));
    }
    let mut how = Lookup::empty();
    how.set(Lookup::FOLLOW, flags & libc::AT_SYMLINK_NOFOLLOW == 0);
    how.set(Lookup::EMPTY_PATH, by_descriptor);
    let base = t.base(dirfd, &path)?;
    resolve(&t.kernel.vfs, &t.cx(), &base, &path, how).map(Found::Node)
}

/// As [`target`], for calls that can only be about a node of the tree.
pub(super) fn target_location(
    t: &Task,
    dirfd: i32,
    path_arg: usize,
    flags: i32,
) -> Result<Location> {
    match target(t, dirfd, path_arg, flags)? {
        Found::Descriptor(fd) => t.located(fd),
        Found::Node(l) => Ok(l),
    }
}

fn descriptor_attr(t: &Task, fd: i32) -> Result<Attr> {
    let d = t.descriptor(fd)?;
    match d.location {
        Some(l) => l.attr(),
        None => Ok(host_attr(&d.stat)),
    }
}

/// Attributes of what is no node of the tree; it belongs to whoever runs Duet, who is root inside.
fn host_attr(st: &nix::sys::stat::FileStat) -> Attr {
    let own_uid = nix::unistd::geteuid().as_raw();
    let own_gid = nix::unistd::getegid().as_raw();
    let uid = if st.st_uid == own_uid { 0 } else { st.st_uid };
    let gid = if st.st_gid == own_gid { 0 } else { st.st_gid };
    abi::host_attr(st, uid, gid)
}

pub(super) fn access(t: &Task) -> Result<Reply> {
    do_access(t, libc::AT_FDCWD, 0, t.uint(1), 0)
}

pub(super) fn faccessat(t: &Task) -> Result<Reply> {
    do_access(t, t.int(0), 1, t.uint(2), 0)
}

pub(super) fn faccessat2(t: &Task) -> Result<Reply> {
    do_access(t, t.int(0), 1, t.uint(2), t.int(3))
}

fn do_access(t: &Task, dirfd: i32, path_arg: usize, mode: u32, flags: i32) -> Result<Reply> {
    let allowed = libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    if mode & !7 != 0 || flags & !allowed != 0 {
        return Err(Errno::EINVAL);
    }
    let target = match target(t, dirfd, path_arg, flags & !libc::AT_EACCESS)? {
        Target::Descriptor(fd) => t.descriptor(fd)?.location,
        Target::Node(l) => Some(l),
    };
    let Some(location) = target else {
        return Ok(Reply::DONE);
    };
    if flags & libc::AT_EACCESS != 0 {
        t.kernel.vfs.access(&t.cx(), &location, mode)?;
        return Ok(Reply::DONE);
    }
    // With the real ids; root keeps its capabilities only by its real id (access(2)).
    let mut creds = (*t.state.creds).clone();
    creds.fsuid = creds.uid;
    creds.fsgid = creds.gid;
    creds.effective = match creds.uid {
        0 => creds.permitted,
        _ => duet_vfs::types::Caps::empty(),
    };
    let cx = Context {
        creds: &creds,
        ..t.cx()
    };
    t.kernel.vfs.access(&cx, &location, mode)?;
    Ok(Reply::DONE)
}

pub(super) fn readlink(t: &Task) -> Result<Reply> {
    do_readlink(t, libc::AT_FDCWD, 0)
}

pub(super) fn readlinkat(t: &Task) -> Result<Reply> {
    do_readlink(t, t.int(0), 1)
}

fn do_readlink(t: &Task, dirfd: i32, path_arg: usize) -> Result<Reply> {
    let (addr, size) = (t.arg(path_arg + 1), t.int(path_arg + 2));
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = t.path(path_arg)?;
    let location = if path.is_empty() && dirfd != libc::AT_FDCWD {
        // readlinkat(2) takes an empty path for a descriptor of a link without any flag.
        t.located(dirfd).map_err(|_| Errno::ENOENT)?
    } else {
        let base = t.base(dirfd, &path)?;
        t.kernel
            .vfs
            .resolve(&t.cx(), &base, &path, Lookup::empty())?
    };
    let mut text = match t.kernel.vfs.readlink(&t.cx(), &location) {
        Err(Errno::EINVAL) if path.is_empty() => return Err(Errno::ENOENT),
        other => other?,
    };
    text.truncate(size as usize);
    t.write(addr, &text)?;
    Ok(Reply::Value(text.len() as i64))
}

pub(super) fn statfs(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    let location = t
        .kernel
        .vfs
        .resolve(&t.cx(), &t.state.cwd, &path, Lookup::FOLLOW)?;
    write_statfs(t, &location)
}

pub(super) fn fstatfs(t: &Task) -> Result<Reply> {
    let d = t.descriptor(t.int(0))?;
    match d.location {
        Some(l) => write_statfs(t, &l),
        // Pipes, sockets, what was handed in: the kernel's own answer tells nothing more.
        None => Ok(Reply::Run),
    }
}

fn write_statfs(t: &Task, location: &Location) -> Result<Reply> {
    let s = t.kernel.vfs.statfs(location)?;
    let dev = location.attr()?.dev;
    t.write(
        t.arg(1),
        &abi::statfs(&s, dev, statfs_flags(location.mount.flags())),
    )?;
    Ok(Reply::DONE)
}

/// `f_flags` of statfs(2).
fn statfs_flags(flags: MountFlags) -> u64 {
    const ST_VALID: u64 = 0x20;
    const TABLE: [(MountFlags, u64); 4] = [
        (MountFlags::RDONLY, libc::ST_RDONLY),
        (MountFlags::NOSUID, libc::ST_NOSUID),
        (MountFlags::NODEV, libc::ST_NODEV),
        (MountFlags::NOEXEC, libc::ST_NOEXEC),
    ];
    let set = TABLE.iter().filter(|(flag, _)| flags.contains(*flag));
    set.fold(ST_VALID | libc::ST_RELATIME, |all, (_, bit)| all | bit)
}
