//! Permission checks with virtual credentials: `inode_permission()`, `may_delete()` and friends of
//! the kernel's `fs/namei.c`, credentials(7), capabilities(7).

use std::sync::Arc;

use crate::account::{self, Step};
use crate::inode::Inode;
use crate::types::*;

/// Execute a file, search a directory (`X_OK`).
pub const EXEC: u32 = 1;
/// Write (`W_OK`).
pub const WRITE: u32 = 2;
/// Read (`R_OK`).
pub const READ: u32 = 4;

/// Whether the credentials may search a directory: EACCES if not.
pub(crate) fn may_search(creds: &Creds, dir: &Arc<dyn Inode>) -> Result<()> {
    if creds
        .effective
        .intersects(Caps::DAC_OVERRIDE | Caps::DAC_READ_SEARCH)
    {
        return Ok(());
    }
    check(creds, dir, EXEC)
}

/// Whether the credentials give all of `mask` on `inode`: EACCES if not.
pub(crate) fn check(creds: &Creds, inode: &Arc<dyn Inode>, mask: u32) -> Result<()> {
    let is_dir = inode.kind() == FileType::Directory;
    if mask == 0 || creds.has(Caps::DAC_OVERRIDE) && (is_dir || mask & EXEC == 0) {
        return Ok(());
    }
    let (mode, uid, gid) = inode.owner()?;
    let granted = if creds.fsuid == uid {
        mode >> 6
    } else if creds.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    if mask & !granted & 7 == 0 {
        return Ok(());
    }
    let read_only = mask & WRITE == 0;
    if is_dir {
        if creds.has(Caps::DAC_OVERRIDE) || read_only && creds.has(Caps::DAC_READ_SEARCH) {
            return Ok(());
        }
    } else {
        if mask == READ && creds.has(Caps::DAC_READ_SEARCH) {
            return Ok(());
        }
        if creds.has(Caps::DAC_OVERRIDE) && (mask & EXEC == 0 || mode & 0o111 != 0) {
            return Ok(());
        }
    }
    account::note(|| Step::denied(creds, &**inode, mask));
    Err(Errno::EACCES)
}

/// Whether entries may be made in `dir`: EACCES if not.
pub(crate) fn may_create(creds: &Creds, dir: &Arc<dyn Inode>) -> Result<()> {
    check(creds, dir, WRITE | EXEC)
}

/// Whether `victim` may be removed from `dir` (or renamed away, or replaced): EACCES, EPERM in a
/// sticky directory, ENOTDIR or EISDIR if it is not the type that `want_dir` demands.
pub(crate) fn may_delete(
    creds: &Creds,
    dir: &Arc<dyn Inode>,
    victim: &Arc<dyn Inode>,
    want: Victim,
) -> Result<()> {
    may_create(creds, dir)?;
    if !creds.has(Caps::FOWNER) {
        let (mode, uid, _) = dir.owner()?;
        if mode & libc::S_ISVTX != 0 && uid != creds.fsuid && victim.owner()?.1 != creds.fsuid {
            account::note(|| Step::denied(creds, &**victim, WRITE));
            return Err(Errno::EPERM);
        }
    }
    match (want, victim.kind() == FileType::Directory) {
        (Victim::Directory, false) => Err(Errno::ENOTDIR),
        (Victim::Other, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

/// What a removal expects to remove.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Directory,
    Other,
}

/// Whether the credentials act as owner of something owned by `uid`.
pub(crate) fn is_owner(creds: &Creds, uid: u32) -> bool {
    creds.fsuid == uid || creds.has(Caps::FOWNER)
}

/// Whether a node may be made in `dir` (EACCES if not), and its owner and mode: the umask has been
/// applied; a setgid directory hands down its group, and the bit itself to directories (inode(7)).
pub(crate) fn new_node(
    creds: &Creds,
    dir: &Arc<dyn Inode>,
    mode: u32,
    kind: FileType,
) -> Result<NewNode> {
    may_create(creds, dir)?;
    let (dir_mode, _, dir_gid) = dir.owner()?;
    let mut new = NewNode {
        mode: mode & 0o7777,
        uid: creds.fsuid,
        gid: creds.fsgid,
    };
    if dir_mode & libc::S_ISGID != 0 {
        new.gid = dir_gid;
        if kind == FileType::Directory {
            new.mode |= libc::S_ISGID;
        } else if new.mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
            && !creds.in_group(dir_gid)
            && !creds.has(Caps::FSETID)
        {
            new.mode &= !libc::S_ISGID;
        }
    }
    Ok(new)
}

/// Whether a further name may be given to `inode`, with `fs.protected_hardlinks` as everywhere set
/// (proc(5)): EPERM if it is another's and is special, set-id, or not both readable and writable.
pub(crate) fn may_link(creds: &Creds, inode: &Arc<dyn Inode>) -> Result<()> {
    let (mode, uid, _) = inode.owner()?;
    if is_owner(creds, uid) {
        return Ok(());
    }
    let sgid = libc::S_ISGID | libc::S_IXGRP;
    let harmless = inode.kind() == FileType::Regular
        && mode & libc::S_ISUID == 0
        && mode & sgid != sgid
        && check(creds, inode, READ | WRITE).is_ok();
    if harmless { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether `O_CREAT` may open what exists in `dir`: EACCES for another's special file or link in a
/// world-writable sticky directory (`may_create_in_sticky()`; regular files and FIFOs are exempt, as
/// `fs.protected_regular` and `fs.protected_fifos` are 0).
pub(crate) fn may_create_in_sticky(
    creds: &Creds,
    dir: &Arc<dyn Inode>,
    inode: &Arc<dyn Inode>,
) -> Result<()> {
    const STICKY: u32 = libc::S_ISVTX | libc::S_IWOTH;
    if matches!(
        inode.kind(),
        FileType::Regular | FileType::Fifo | FileType::Directory
    ) {
        return Ok(());
    }
    let (mode, dir_uid, _) = dir.owner()?;
    if mode & STICKY != STICKY {
        return Ok(());
    }
    let (_, uid, _) = inode.owner()?;
    if uid == dir_uid || uid == creds.fsuid {
        return Ok(());
    }
    Err(Errno::EACCES)
}
