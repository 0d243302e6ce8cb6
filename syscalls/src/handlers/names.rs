//! Calls that make, move and remove names.

use duet_vfs::types::{Caps, Errno, FileType, Result};
use duet_vfs::walk::Lookup;

use super::stat::{Target, target};
use crate::task::{Reply, Task};

pub(super) fn mkdir(t: &Task) -> Result<Reply> {
    do_mkdir(t, libc::AT_FDCWD, 0)
}

pub(super) fn mkdirat(t: &Task) -> Result<Reply> {
    do_mkdir(t, t.int(0), 1)
}

fn do_mkdir(t: &Task, dirfd: i32, path_arg: usize) -> Result<Reply> {
    let path = t.path(path_arg)?;
    let base = t.base(dirfd, &path)?;
    t.kernel
        .vfs
        .mkdir(&t.cx(), &base, &path, t.uint(path_arg + 1) & 0o1777)?;
    Ok(Reply::DONE)
}

pub(super) fn mknod(t: &Task) -> Result<Reply> {
    do_mknod(t, libc::AT_FDCWD, 0)
}

pub(super) fn mknodat(t: &Task) -> Result<Reply> {
    do_mknod(t, t.int(0), 1)
}

fn do_mknod(t: &Task, dirfd: i32, path_arg: usize) -> Result<Reply> {
    let (mode, dev) = (t.uint(path_arg + 1), t.arg(path_arg + 2));
    let kind = match mode & libc::S_IFMT {
        0 => FileType::Regular,
        libc::S_IFDIR => return Err(Errno::EPERM),
        libc::S_IFLNK => return Err(Errno::EINVAL),
        _ => FileType::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    let device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
    if device && !t.state.creds.has(Caps::MKNOD) {
        return Err(Errno::EPERM);
    }
    let path = t.path(path_arg)?;
    let base = t.base(dirfd, &path)?;
    let rdev = if device { dev & 0xffff_ffff } else { 0 };
    t.kernel
        .vfs
        .mknod(&t.cx(), &base, &path, kind as u32 | (mode & 0o7777), rdev)?;
    Ok(Reply::DONE)
}

pub(super) fn symlink(t: &Task) -> Result<Reply> {
    do_symlink(t, libc::AT_FDCWD, 1)
}

pub(super) fn symlinkat(t: &Task) -> Result<Reply> {
    do_symlink(t, t.int(1), 2)
}

fn do_symlink(t: &Task, dirfd: i32, path_arg: usize) -> Result<Reply> {
    let text = t.path(0)?;
    if text.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = t.path(path_arg)?;
    let base = t.base(dirfd, &path)?;
    t.kernel.vfs.symlink(&t.cx(), &text, &base, &path)?;
    Ok(Reply::DONE)
}

pub(super) fn link(t: &Task) -> Result<Reply> {
    do_link(t, (libc::AT_FDCWD, 0), (libc::AT_FDCWD, 1), 0)
}

pub(super) fn linkat(t: &Task) -> Result<Reply> {
    do_link(t, (t.int(0), 1), (t.int(2), 3), t.int(4))
}

fn do_link(t: &Task, old: (i32, usize), new: (i32, usize), flags: i32) -> Result<Reply> {
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
    let at = (flags & libc::AT_EMPTY_PATH) | if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let source = match target(t, old.0, old.1, at)? {
        Target::Descriptor(fd) => t.located(fd).map_err(|e| match e {
            Errno::EBADF => e,
            _ => Errno::ENOENT,
        })?,
        Target::Node(l) => l,
    };
    let path = t.path(new.1)?;
    let base = t.base(new.0, &path)?;
    t.kernel.vfs.link(&t.cx(), &source, &base, &path)?;
    Ok(Reply::DONE)
}

pub(super) fn unlink(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    t.kernel.vfs.unlink(&t.cx(), &t.state.cwd, &path)?;
    Ok(Reply::DONE)
}

pub(super) fn rmdir(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    t.kernel.vfs.rmdir(&t.cx(), &t.state.cwd, &path)?;
    Ok(Reply::DONE)
}

pub(super) fn unlinkat(t: &Task) -> Result<Reply> {
    let flags = t.int(2);
    if flags & !libc::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = t.path(1)?;
    let base = t.base(t.int(0), &path)?;
    match flags {
        0 => t.kernel.vfs.unlink(&t.cx(), &base, &path)?,
        _ => t.kernel.vfs.rmdir(&t.cx(), &base, &path)?,
    }
    Ok(Reply::DONE)
}

pub(super) fn rename(t: &Task) -> Result<Reply> {
    do_rename(t, (libc::AT_FDCWD, 0), (libc::AT_FDCWD, 1), 0)
}

pub(super) fn renameat(t: &Task) -> Result<Reply> {
    do_rename(t, (t.int(0), 1), (t.int(2), 3), 0)
}

pub(super) fn renameat2(t: &Task) -> Result<Reply> {
    do_rename(t, (t.int(0), 1), (t.int(2), 3), t.uint(4))
}

fn do_rename(t: &Task, old: (i32, usize), new: (i32, usize), flags: u32) -> Result<Reply> {
    const ALONE: u32 = libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT;
    let known = ALONE | libc::RENAME_EXCHANGE;
    if flags & !known != 0 || (flags & libc::RENAME_EXCHANGE != 0 && flags & ALONE != 0) {
        return Err(Errno::EINVAL);
    }
    if flags & libc::RENAME_WHITEOUT != 0 && !t.state.creds.has(Caps::MKNOD) {
        return Err(Errno::EPERM);
    }
    let (old_path, new_path) = (t.path(old.1)?, t.path(new.1)?);
    let old_base = t.base(old.0, &old_path)?;
    let new_base = t.base(new.0, &new_path)?;
    t.kernel
        .vfs
        .rename(&t.cx(), &old_base, &old_path, &new_base, &new_path, flags)?;
    Ok(Reply::DONE)
}

pub(super) fn chdir(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    let how = Lookup::FOLLOW | Lookup::DIRECTORY;
    let cwd = t.kernel.vfs.resolve(&t.cx(), &t.state.cwd, &path, how)?;
    enter(t, cwd)
}

pub(super) fn fchdir(t: &Task) -> Result<Reply> {
    let cwd = t.descriptor(t.int(0))?.location.ok_or(Errno::ENOTDIR)?;
    enter(t, cwd)
}

fn enter(t: &Task, cwd: duet_vfs::walk::Location) -> Result<Reply> {
    if cwd.kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    t.kernel.vfs.access(&t.cx(), &cwd, libc::X_OK as u32)?;
    t.change(|s| s.cwd = cwd);
    Ok(Reply::DONE)
}

pub(super) fn chroot(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    let how = Lookup::FOLLOW | Lookup::DIRECTORY;
    let root = t.kernel.vfs.resolve(&t.cx(), &t.state.cwd, &path, how)?;
    t.kernel.vfs.access(&t.cx(), &root, libc::X_OK as u32)?;
    if !t.state.creds.has(Caps::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    t.change(|s| s.root = root);
    Ok(Reply::DONE)
}

pub(super) fn getcwd(t: &Task) -> Result<Reply> {
    use duet_vfs::walk::{PATH_MAX, PathState};
    let (mut path, state) = t.state.cwd.path(&t.state.root);
    match state {
        PathState::Reachable => (),
        PathState::Unreachable => {
            path.splice(0..0, b"(unreachable)".iter().copied());
        }
        PathState::Deleted => return Err(Errno::ENOENT),
    }
    path.push(0);
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if path.len() as u64 > t.arg(1) {
        return Err(Errno::ERANGE);
    }
    t.write(t.arg(0), &path)?;
    Ok(Reply::Value(path.len() as i64))
}

pub(super) fn umask(t: &Task) -> Result<Reply> {
    let (old, new) = (t.state.umask, t.uint(0) & 0o777);
    if old != new {
        t.change(|s| s.umask = new);
    }
    Ok(Reply::Value(i64::from(old)))
}
