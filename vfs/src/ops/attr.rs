//! access(2), chmod(2), chown(2), utimensat(2), truncate(2), readlink(2), statfs(2).

use std::sync::Arc;

use crate::inode::{Inode, StatFs};
use crate::mount::{MountFlags, Vfs};
use crate::perm;
use crate::types::*;
use crate::walk::{Context, Location};

/// The set-id bits that a change of contents or owner clears: set-user-id always, set-group-id if the
/// group may execute or is none of the caller's (`setattr_should_drop_suidgid()`).
fn set_ids(creds: &Creds, mode: u32, gid: u32) -> u32 {
    let keeps_group = mode & libc::S_IXGRP == 0 && (creds.in_group(gid) || creds.has(Caps::FSETID));
    let gid_bit = if keeps_group { 0 } else { libc::S_ISGID };
    mode & (libc::S_ISUID | gid_bit)
}

/// Clears set-id bits before contents change, for whoever lacks `CAP_FSETID`.
pub(super) fn drop_set_ids(creds: &Creds, inode: &Arc<dyn Inode>) -> Result<()> {
    if creds.has(Caps::FSETID) {
        return Ok(());
    }
    let (mode, _, gid) = inode.owner()?;
    let drop = set_ids(creds, mode, gid);
    if drop == 0 {
        return Ok(());
    }
    inode.set_attr(&SetAttr {
        mode: Some(mode & 0o7777 & !drop),
        ..SetAttr::default()
    })
}

impl Vfs {
    /// Whether `cx.creds` (their file-system ids) give all of `mask` (`R_OK|W_OK|X_OK`): EACCES, EROFS.
    pub fn access(&self, cx: &Context, loc: &Location, mask: u32) -> Result<()> {
        let mask = mask & 7;
        let kind = loc.kind();
        let flags = loc.mount.flags();
        if mask & perm::EXEC != 0 && kind == FileType::Regular && flags.contains(MountFlags::NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        perm::check(cx.creds, loc.inode(), mask)?;
        let stored = matches!(
            kind,
            FileType::Regular | FileType::Directory | FileType::Symlink
        );
        if mask & perm::WRITE != 0 && stored {
            loc.mount.want_write()?;
        }
        Ok(())
    }

    /// chmod(2): EPERM unless owner; EOPNOTSUPP for a symbolic link.
    pub fn chmod(&self, cx: &Context, loc: &Location, mode: u32) -> Result<()> {
        loc.mount.want_write()?;
        if loc.kind() == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        let (_, uid, gid) = loc.inode().owner()?;
        if !perm::is_owner(cx.creds, uid) {
            return Err(Errno::EPERM);
        }
        let mut mode = mode & 0o7777;
        if !cx.creds.in_group(gid) && !cx.creds.has(Caps::FSETID) {
            mode &= !libc::S_ISGID;
        }
        loc.inode().set_attr(&SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        })?;
        self.attributes_changed(loc);
        Ok(())
    }

    /// chown(2): EPERM unless privileged, or an owner that hands a file to a group of its own.
    pub fn chown(
        &self,
        cx: &Context,
        loc: &Location,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        loc.mount.want_write()?;
        let creds = cx.creds;
        let (mode, old_uid, old_gid) = loc.inode().owner()?;
        if !creds.has(Caps::CHOWN) {
            let owns = creds.fsuid == old_uid;
            if uid.is_some_and(|new| !owns || new != old_uid) {
                return Err(Errno::EPERM);
            }
            if gid.is_some_and(|new| !owns || new != old_gid && !creds.in_group(new)) {
                return Err(Errno::EPERM);
            }
        }
        let mut changes = SetAttr {
            uid,
            gid,
            ..SetAttr::default()
        };
        if loc.kind() != FileType::Directory {
            let drop = set_ids(creds, mode, old_gid);
            if drop != 0 {
                // As with every other change of the mode (`setattr_prepare()`).
                if !perm::is_owner(creds, old_uid) {
                    return Err(Errno::EPERM);
                }
                changes.mode = Some(mode & 0o7777 & !drop);
            }
        }
        loc.inode().set_attr(&changes)?;
        self.attributes_changed(loc);
        Ok(())
    }

    /// utimensat(2): EACCES or EPERM unless owner (or, for the present time, allowed to write).
    pub fn utimes(
        &self,
        cx: &Context,
        loc: &Location,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
    ) -> Result<()> {
        if atime.is_none() && mtime.is_none() {
            return Ok(());
        }
        loc.mount.want_write()?;
        let (_, uid, _) = loc.inode().owner()?;
        if !perm::is_owner(cx.creds, uid) {
            if (atime, mtime) != (Some(SetTime::Now), Some(SetTime::Now)) {
                return Err(Errno::EPERM);
            }
            perm::check(cx.creds, loc.inode(), perm::WRITE)?;
        }
        loc.inode().set_attr(&SetAttr {
            atime,
            mtime,
            ..SetAttr::default()
        })?;
        // The times of a regular file are those of the host file.
        if loc.kind() != FileType::Regular {
            self.attributes_changed(loc);
        }
        Ok(())
    }

    /// truncate(2).
    pub fn truncate(&self, cx: &Context, loc: &Location, size: u64) -> Result<()> {
        match loc.kind() {
            FileType::Regular => (),
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        if i64::try_from(size).is_err() {
            return Err(Errno::EINVAL);
        }
        loc.mount.want_write()?;
        perm::check(cx.creds, loc.inode(), perm::WRITE)?;
        drop_set_ids(cx.creds, loc.inode())?;
        loc.inode().set_attr(&SetAttr {
            size: Some(size),
            ..SetAttr::default()
        })
    }

    /// readlink(2): EINVAL if it is no symbolic link.
    pub fn readlink(&self, cx: &Context, loc: &Location) -> Result<Vec<u8>> {
        if loc.kind() != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        loc.inode().readlink(cx.caller)
    }

    /// statfs(2).
    pub fn statfs(&self, loc: &Location) -> Result<StatFs> {
        loc.mount.sb().fs().statfs()
    }
}
