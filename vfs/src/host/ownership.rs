//! Reading and changing the virtual owner, mode and device of a host inode.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode};
use nix::unistd::{Gid, Uid};

use super::inode::HostInode;
use super::meta::{MAX, META, Meta};
use super::sys::{self, FdPath, Stat};
use crate::counted::{fchmodat, fchownat};
use crate::types::*;

/// What an inode remembers of its record.
#[derive(Default)]
pub(super) struct Known {
    /// The record (`None` inside: there is none), and the host's ctime at which it was read.
    pub(super) meta: Option<(Timespec, Option<Meta>)>,
    /// The directory's stamp before it was read.
    told: Option<u64>,
    /// Mode, user and group for permission checks: in a tree that nobody else changes, or with the
    /// directory's stamp before they were read.
    pub(super) owner: Option<(Option<u64>, (u32, u32, u32))>,
}

/// Whether the host lets this type of node carry `user.*` attributes.
fn holds_attributes(host_mode: u32) -> bool {
    matches!(host_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
}

/// Whether an attribute cannot be kept here at all, so that memory has to do.
fn no_attributes(e: Errno) -> bool {
    matches!(e, Errno::EOPNOTSUPP | Errno::EPERM)
}

impl HostInode {
    /// Reads the record from the node.
    pub(super) fn load_meta(&self, stat: &Stat) -> Result<Option<Meta>> {
        let options = &self.tree.options;
        if options.read_only && !options.records {
            return Ok(None);
        }
        if !holds_attributes(stat.mode) {
            return Ok(self.tree.recall(stat));
        }
        let mut buf = [0; MAX];
        match sys::get_xattr_into(FdPath::new(self.fd()).full(), META, &mut buf) {
            Ok(n) => Ok(buf.get(..n).and_then(Meta::decode)),
            // A record too long is none of ours; a file that may not be read shows as it is.
            Err(Errno::ERANGE | Errno::EACCES) => Ok(None),
            Err(Errno::ENODATA) => Ok(self.tree.recall(stat)),
            Err(e) if no_attributes(e) => Ok(self.tree.recall(stat)),
            Err(e) => Err(e),
        }
    }

    /// Owner, mode and device as shown, given a fresh `stat`.
    pub(super) fn shown(&self, known: &mut Known, stat: &Stat) -> Result<Meta> {
        let shared = self.tree.options.shared;
        let meta = match known.meta {
            Some((ctime, meta)) if !shared || ctime == stat.ctime => meta,
            before => {
                // A directory's ctime changes with its entries; the record has changed only if it is told.
                let told = self.own_stamp();
                let meta = match before {
                    Some((_, meta)) if told.is_some() && told == known.told => meta,
                    _ => self.load_meta(stat)?,
                };
                known.meta = Some((stat.ctime, meta));
                known.told = told;
                meta
            }
        };
        let mut shown = meta.unwrap_or_else(|| self.tree.options.ids.natural(stat));
        shown.mode = self.kind as u32 | shown.mode & 0o7777;
        Ok(shown)
    }

    /// Makes the node look like `want`: for real as far as the host lets us, by a record beyond.
    pub(super) fn apply(&self, known: &mut Known, stat: &Stat, want: Meta) -> Result<()> {
        let done = self.apply_parts(known, stat, want);
        // Counted when all is done: attributes read before must not be remembered.
        self.version.fetch_add(1, Ordering::AcqRel);
        known.owner = None;
        done
    }

    fn apply_parts(&self, known: &mut Known, stat: &Stat, want: Meta) -> Result<()> {
        let mut real = *stat;
        if self.tree.privileged && (real.uid, real.gid) != (want.uid, want.gid) {
            let (uid, gid) = (Uid::from_raw(want.uid), Gid::from_raw(want.gid));
            match fchownat(self.fd(), c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH) {
                Ok(()) => (real.uid, real.gid) = (want.uid, want.gid),
                // Root of a user namespace: an owner that is not mapped there.
                Err(Errno::EPERM | Errno::EINVAL) => (),
                Err(e) => return Err(e),
            }
        }
        let host_type = real.mode & libc::S_IFMT;
        if host_type != libc::S_IFLNK {
            let mode = self.tree.real_mode(host_type, want.mode);
            if real.mode & 0o7777 != mode {
                let path = FdPath::new(self.fd());
                let bits = Mode::from_bits_retain(mode);
                let follow = FchmodatFlags::FollowSymlink;
                fchmodat(&self.tree.proc_fd, path.number(), bits, follow)?;
                real.mode = host_type | mode;
            }
        }
        let record = (self.tree.options.ids.natural(&real) != want).then_some(want);
        let had = match known.meta {
            Some((_, meta)) => meta.is_some(),
            None => self.load_meta(stat)?.is_some(),
        };
        known.meta = None;
        self.tree.store_meta(self.fd(), stat, record, had)?;
        if !self.tree.options.shared {
            known.meta = Some((stat.ctime, record));
        }
        Ok(())
    }

    /// Gives a node just made its owner and mode.
    pub(super) fn adopt(&self, stat: &Stat, new: NewNode, rdev: u64) -> Result<()> {
        let link = self.kind == FileType::Symlink;
        let perm = if link { 0o777 } else { new.mode & 0o7777 };
        let want = Meta {
            mode: self.kind as u32 | perm,
            uid: new.uid,
            gid: new.gid,
            rdev,
        };
        let mut known = self.known.lock();
        if known.meta.is_none() {
            // A fresh node has no record, unless it was made as a stand-in.
            known.meta = Some((stat.ctime, None));
        }
        self.apply(&mut known, stat, want)
    }
}

impl super::Tree {
    /// The permission bits that a node gets on the host: never set-id bits, and for an ordinary
    /// supervisor always enough to reach its own files again.
    pub(super) fn real_mode(&self, host_type: u32, mode: u32) -> u32 {
        let reach = match (self.privileged, host_type) {
            (true, _) => 0,
            (false, libc::S_IFDIR) => 0o700,
            (false, _) => 0o600,
        };
        mode & 0o777 | reach
    }

    /// Writes the record to the node behind `fd`, or removes it if there was one.
    pub(super) fn store_meta(
        &self,
        fd: std::os::fd::BorrowedFd<'_>,
        stat: &Stat,
        record: Option<Meta>,
        had: bool,
    ) -> Result<()> {
        let path = FdPath::new(fd.as_fd());
        if holds_attributes(stat.mode) {
            let done = match record {
                Some(meta) => sys::set_xattr(path.full(), META, meta.encode(&mut [0; MAX]), 0),
                None if had => match sys::remove_xattr(path.full(), META) {
                    Err(Errno::ENODATA) => Ok(()),
                    other => other,
                },
                None => Ok(()),
            };
            match done {
                Ok(()) => {
                    self.remember(stat.id, stat.btime, None);
                    return Ok(());
                }
                Err(e) if no_attributes(e) => (),
                Err(e) => return Err(e),
            }
        }
        self.remember(stat.id, stat.btime, record);
        Ok(())
    }
}
