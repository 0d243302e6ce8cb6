//! Attributes, extended attributes, statfs(2) and access(2).

use std::sync::atomic::Ordering;

use duet_vfs::{Attr, Caps, Creds, Errno, FileType, Location, Result, SetTime, Timespec};

use super::abi::*;
use super::args::Args;
use super::{Answer, Server, validity};

/// The attribute that holds file capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// A device number as the protocol has it (`new_encode_dev()` of the kernel).
fn encode_dev(dev: u64) -> u32 {
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of [`encode_dev`].
pub(super) fn decode_dev(dev: u32) -> u64 {
    libc::makedev(
        (dev & 0xf_ff00) >> 8,
        (dev & 0xff) | ((dev >> 12) & 0xf_ff00),
    )
}

pub(super) fn attr_of(attr: &Attr) -> FuseAttr {
    FuseAttr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.sec as u64,
        mtime: attr.mtime.sec as u64,
        ctime: attr.ctime.sec as u64,
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_dev(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// The time to set, if any: EINVAL if it is none.
fn time(set: bool, now: bool, sec: u64, nsec: u32) -> Result<Option<SetTime>> {
    if !set {
        return Ok(None);
    }
    if now {
        return Ok(Some(SetTime::Now));
    }
    if nsec >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    let sec = sec as i64;
    Ok(Some(SetTime::At(Timespec { sec, nsec })))
}

impl Server {
    fn attr_out(place: &Location) -> Result<Answer> {
        Ok(Answer::of(&AttrOut {
            attr_valid: validity(place),
            attr: attr_of(&place.attr()?),
            ..AttrOut::default()
        }))
    }

    pub(super) fn getattr(&self, node: u64) -> Result<Answer> {
        Server::attr_out(&self.place(node)?)
    }

    /// Root without the privilege to keep set-id bits.
    pub(super) fn creds_without_fsetid(&self) -> Creds {
        let mut creds = self.creds(0, 0);
        creds.effective.remove(Caps::FSETID);
        creds
    }

    pub(super) fn setattr(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let set: SetattrIn = args.take()?;
        let valid = Fattr::from_bits_truncate(set.valid);
        let place = self.place(node)?;
        let now = |flag| valid.contains(flag);
        let atime = valid.intersects(Fattr::ATIME | Fattr::ATIME_NOW);
        let mtime = valid.intersects(Fattr::MTIME | Fattr::MTIME_NOW);
        let atime = time(atime, now(Fattr::ATIME_NOW), set.atime, set.atimensec)?;
        let mtime = time(mtime, now(Fattr::MTIME_NOW), set.mtime, set.mtimensec)?;
        if valid.contains(Fattr::SIZE) {
            let creds = if valid.contains(Fattr::KILL_SUIDGID) {
                self.creds_without_fsetid()
            } else {
                self.creds(0, 0)
            };
            self.with(&creds, |cx| self.vfs.truncate(cx, &place, set.size))?;
            self.drop_capability(node, &place)?;
            // The overlay may have put another file in the place of the one that is open.
            let content = self.nodes.content(node)?;
            if content.opens.load(Ordering::Acquire) > 0 {
                content.epoch.fetch_add(1, Ordering::AcqRel);
            }
        }
        let uid = valid.contains(Fattr::UID).then_some(set.uid);
        let gid = valid.contains(Fattr::GID).then_some(set.gid);
        if uid.is_some() || gid.is_some() {
            self.as_root(|cx| self.vfs.chown(cx, &place, uid, gid))?;
            if place.kind() == FileType::Regular {
                self.clear_set_ids(&place)?;
                self.drop_capability(node, &place)?;
            }
        }
        if valid.contains(Fattr::MODE) {
            self.as_root(|cx| self.vfs.chmod(cx, &place, set.mode & 0o7777))?;
        }
        self.as_root(|cx| self.vfs.utimes(cx, &place, atime, mtime))?;
        Server::attr_out(&place)
    }

    /// Clears the set-id bits that a write by the unprivileged clears.
    pub(super) fn clear_set_ids(&self, place: &Location) -> Result<()> {
        let (mode, ..) = place.inode().owner()?;
        let mut drop = mode & libc::S_ISUID;
        if mode & libc::S_IXGRP != 0 {
            drop |= mode & libc::S_ISGID;
        }
        if drop == 0 {
            return Ok(());
        }
        self.as_root(|cx| self.vfs.chmod(cx, place, mode & 0o7777 & !drop))
    }

    /// Removes file capabilities, as every change of contents or owner does.
    pub(super) fn drop_capability(&self, node: u64, place: &Location) -> Result<()> {
        let content = self.nodes.content(node)?;
        if content.without_capability.load(Ordering::Acquire) {
            return Ok(());
        }
        let removed = self.as_root(|cx| self.vfs.remove_xattr(cx, place, CAPABILITY));
        match removed {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {
                content.without_capability.store(true, Ordering::Release);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn statfs(&self, node: u64) -> Result<Answer> {
        let s = self.vfs.statfs(&self.place(node)?)?;
        let bsize = u32::try_from(s.bsize).unwrap_or(4096);
        Ok(Answer::of(&StatfsOut {
            blocks: s.blocks,
            bfree: s.bfree,
            bavail: s.bavail,
            files: s.files,
            ffree: s.ffree,
            bsize,
            namelen: u32::try_from(s.namelen).unwrap_or(255),
            frsize: bsize,
            ..StatfsOut::default()
        }))
    }

    /// Only a guest kernel without `default_permissions` asks: supplementary groups are not known here.
    pub(super) fn access(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let AccessIn { mask, .. } = args.take()?;
        let place = self.place(header.nodeid)?;
        let creds = Creds::user(header.uid, header.gid, self.no_groups.clone());
        self.with(&creds, |cx| self.vfs.access(cx, &place, mask))?;
        Ok(Answer::EMPTY)
    }

    /// An attribute or list for a caller with room for `size` bytes (0: who asks for the length).
    fn sized(value: Vec<u8>, size: u32) -> Result<Answer> {
        if size == 0 {
            let size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
            return Ok(Answer::of(&GetxattrOut { size, padding: 0 }));
        }
        if value.len() > size as usize {
            return Err(Errno::ERANGE);
        }
        Ok(Answer::Bytes(value))
    }

    pub(super) fn getxattr(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let GetxattrIn { size, .. } = args.take()?;
        let name = args.text()?;
        let place = self.place(node)?;
        let value = self.as_root(|cx| self.vfs.get_xattr(cx, &place, name))?;
        Server::sized(value, size)
    }

    pub(super) fn setxattr(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let SetxattrIn { size, flags } = args.take()?;
        let name = args.text()?;
        let value = args.bytes(size as usize)?;
        let place = self.place(node)?;
        let flags = i32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        self.as_root(|cx| self.vfs.set_xattr(cx, &place, name, value, flags))?;
        if name == CAPABILITY {
            let content = self.nodes.content(node)?;
            content.without_capability.store(false, Ordering::Release);
        }
        Ok(Answer::EMPTY)
    }

    pub(super) fn listxattr(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let GetxattrIn { size, .. } = args.take()?;
        let place = self.place(node)?;
        let mut list = Vec::new();
        for name in self.as_root(|cx| self.vfs.list_xattr(cx, &place))? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Server::sized(list, size)
    }

    pub(super) fn removexattr(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let name = args.text()?;
        let place = self.place(node)?;
        self.as_root(|cx| self.vfs.remove_xattr(cx, &place, name))?;
        Ok(Answer::EMPTY)
    }
}
