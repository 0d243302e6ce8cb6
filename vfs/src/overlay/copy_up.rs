//! Copying a node from a lower tree to the upper one before it is changed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::unistd::Whence;

use super::inode::{Origin, OverlayInode};
use super::{Layers, marks};
use crate::account::{self, Step};
use crate::counted::{copy_file_range, ftruncate, lseek, pread, pwrite};
use crate::haste;
use crate::inode::{Inode, NoCaller};
use crate::types::*;

/// Whether a file's contents are wanted in the copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Copy them.
    Keep,
    /// The file is about to be emptied.
    Drop,
}

impl OverlayInode {
    fn parent(&self) -> Option<(&Arc<OverlayInode>, &[u8])> {
        match &self.origin {
            Some(Origin::Under { parent, name }) => Some((parent, name)),
            _ => None,
        }
    }

    /// The upper part, made now if there is none; that of every ancestor first.
    pub(super) fn copy_up(&self, data: Data) -> Result<Arc<dyn Inode>> {
        if let Some(upper) = self.upper() {
            return Ok(upper);
        }
        if data == Data::Keep && self.kind == FileType::Regular {
            haste::may_copy(|| Ok(self.lower.first().ok_or(Errno::EIO)?.dir.attr()?.size))?;
        }
        let mut ancestors = Vec::new();
        let mut at = self;
        while let Some((parent, _)) = at.parent().filter(|(parent, _)| parent.upper().is_none()) {
            ancestors.push(parent);
            at = parent;
        }
        for ancestor in ancestors.into_iter().rev() {
            ancestor.copy_one(Data::Keep)?;
        }
        self.copy_one(data)
    }

    /// Copies this node, whose parent has an upper part.
    fn copy_one(&self, data: Data) -> Result<Arc<dyn Inode>> {
        let _copying = self.copying.lock();
        if let Some(upper) = self.upper() {
            return Ok(upper);
        }
        let (parent, name) = self.parent().ok_or(Errno::EIO)?;
        let dir = parent.upper().ok_or(Errno::EIO)?;
        let lower = &self.lower.first().ok_or(Errno::EIO)?.dir;
        let before = lower.attr()?;
        account::note(|| Step::CopyUp {
            name: account::cut(name),
            bytes: match data {
                Data::Keep if self.kind == FileType::Regular => before.size,
                _ => 0,
            },
        });
        let (temp, copy) = self
            .layers
            .in_work(|work, name| make_like(lower, &before, work, name))?;
        let placed = fill(lower, &before, &copy, data).and_then(|()| {
            let _names = parent.names.write();
            if self.detached.load(Ordering::Acquire) {
                self.layers.discard(&temp);
            } else {
                place(&self.layers, &temp, &dir, name)?;
            }
            self.set_upper(copy.clone(), &before);
            Ok(copy)
        });
        if placed.is_err() {
            self.layers.discard(&temp);
        }
        placed
    }
}

/// Makes an empty node of the type, owner and mode of `lower`.
fn make_like(
    lower: &Arc<dyn Inode>,
    attr: &Attr,
    work: &Arc<dyn Inode>,
    name: &[u8],
) -> Result<Arc<dyn Inode>> {
    let new = NewNode {
        mode: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
    };
    match lower.kind() {
        FileType::Regular => work.create(name, new),
        FileType::Directory => work.mkdir(name, new),
        FileType::Symlink => work.symlink(name, &lower.readlink(&NoCaller)?, new),
        kind => work.mknod(name, kind, attr.rdev, new),
    }
}

/// Gives the copy its contents, attributes and times.
fn fill(lower: &Arc<dyn Inode>, attr: &Attr, copy: &Arc<dyn Inode>, data: Data) -> Result<()> {
    if lower.kind() == FileType::Regular && data == Data::Keep && attr.size > 0 {
        let from = lower.open(libc::O_RDONLY, &NoCaller)?.fd;
        let to = copy.open(libc::O_WRONLY, &NoCaller)?.fd;
        copy_data(&from, &to, attr.size)?;
    }
    for name in lower.list_xattr()? {
        if marks::is_mark(&name) {
            continue;
        }
        match lower.get_xattr(&name) {
            Ok(value) => match copy.set_xattr(&name, &value, 0) {
                // An upper tree that cannot keep it loses it, as with overlayfs.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => (),
                Err(e) => return Err(e),
            },
            Err(Errno::ENODATA) => (),
            Err(e) => return Err(e),
        }
    }
    set_times(copy, attr)
}

fn set_times(inode: &Arc<dyn Inode>, attr: &Attr) -> Result<()> {
    inode.set_attr(&SetAttr {
        atime: Some(SetTime::At(attr.atime)),
        mtime: Some(SetTime::At(attr.mtime)),
        ..SetAttr::default()
    })
}

/// Moves the finished copy to its name; to the guest the directory has not changed by that.
fn place(layers: &Layers, temp: &[u8], dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
    let times = dir.attr()?;
    match layers.work.rename(temp, dir, name, libc::RENAME_NOREPLACE) {
        // A host file system that cannot tell; we hold the lock on the names.
        Err(Errno::EINVAL) => layers.work.rename(temp, dir, name, 0)?,
        other => other?,
    }
    set_times(dir, &times)
}

/// Copies `size` bytes, leaving holes as holes.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<()> {
    let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
    let mut at = 0;
    while at < size {
        let data = match lseek(from.as_fd(), at, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => break,
            Err(_) => at,
        };
        let hole = lseek(from.as_fd(), data, Whence::SeekHole)
            .unwrap_or(size)
            .min(size);
        copy_range(from, to, data, hole)?;
        at = hole.max(data + 1);
    }
    ftruncate(to.as_fd(), size)
}

/// Copies one extent: inside the kernel where it can (sharing blocks if the file system does).
fn copy_range(from: &OwnedFd, to: &OwnedFd, start: i64, end: i64) -> Result<()> {
    const AT_ONCE: i64 = 1 << 28;
    let mut at = start;
    while at < end {
        let (mut off_in, mut off_out) = (at, at);
        let len = (end - at).min(AT_ONCE) as usize;
        match copy_file_range(
            from.as_fd(),
            Some(&mut off_in),
            to.as_fd(),
            Some(&mut off_out),
            len,
        ) {
            // Some file systems say 0 where they cannot: let read(2) find out.
            Ok(0) | Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                return copy_through_memory(from, to, at, end);
            }
            Ok(n) => at += n as i64,
            Err(Errno::EINTR) => (),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &OwnedFd, to: &OwnedFd, start: i64, end: i64) -> Result<()> {
    let mut buf = vec![0u8; 128 * 1024];
    let mut at = start;
    while at < end {
        let want = buf.len().min((end - at) as usize);
        let got = match pread(from.as_fd(), &mut buf[..want], at) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
        };
        let mut done = 0;
        while done < got {
            match pwrite(to.as_fd(), &buf[done..got], at + done as i64) {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => done += n,
                Err(Errno::EINTR) => (),
                Err(e) => return Err(e),
            }
        }
        at += got as i64;
    }
    Ok(())
}
