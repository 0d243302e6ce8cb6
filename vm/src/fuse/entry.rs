//! Names: look-up, and the calls that make, remove and move them.

use std::sync::Arc;

use duet_vfs::{Attr, Errno, FileType, Location, Result};

use super::abi::*;
use super::args::Args;
use super::attr::{attr_of, decode_dev};
use super::{Answer, Server, validity};

impl Server {
    /// The reply that tells the guest of `place`, found as `name` in the directory `parent`; the guest
    /// knows the node from then on.
    pub(super) fn entry(
        &self,
        parent: &Location,
        name: Option<(u64, &[u8])>,
        place: &Location,
    ) -> Result<EntryOut> {
        let attr: Attr = place.attr()?;
        let nodeid = self.nodes.remember(place, attr.ino, attr.nlink, name)?;
        let mut attr = attr_of(&attr);
        let submount = !Arc::ptr_eq(&parent.mount, &place.mount);
        if submount && place.kind() == FileType::Directory {
            attr.flags |= ATTR_SUBMOUNT;
        }
        Ok(EntryOut {
            nodeid,
            entry_valid: validity(parent),
            attr_valid: validity(place),
            attr,
            ..EntryOut::default()
        })
    }

    /// As [`Server::entry`], of what has just been made.
    fn made(&self, node: u64, dir: &Location, name: &[u8]) -> Result<Answer> {
        let place = self.child(dir, name)?;
        Ok(Answer::of(&self.entry(dir, Some((node, name)), &place)?))
    }

    pub(super) fn lookup(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let name = args.name()?;
        let dir = self.directory(node)?;
        match self.child(&dir, name) {
            Ok(place) => Ok(Answer::of(&self.entry(&dir, Some((node, name)), &place)?)),
            Err(Errno::ENOENT) if validity(&dir) > 0 => Ok(Answer::of(&EntryOut {
                entry_valid: validity(&dir),
                ..EntryOut::default()
            })),
            Err(e) => Err(e),
        }
    }

    pub(super) fn symlink(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let name = args.name()?;
        let target = args.text()?;
        let dir = self.directory(header.nodeid)?;
        self.acting_for(header.uid, header.gid, |cx| {
            self.vfs.symlink(cx, target, &dir, name)
        })?;
        self.made(header.nodeid, &dir, name)
    }

    pub(super) fn mknod(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let MknodIn { mode, rdev, .. } = args.take()?;
        let name = args.name()?;
        let dir = self.directory(header.nodeid)?;
        self.acting_for(header.uid, header.gid, |cx| {
            self.vfs.mknod(cx, &dir, name, mode, decode_dev(rdev))
        })?;
        self.made(header.nodeid, &dir, name)
    }

    pub(super) fn mkdir(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let MkdirIn { mode, .. } = args.take()?;
        let name = args.name()?;
        let dir = self.directory(header.nodeid)?;
        self.acting_for(header.uid, header.gid, |cx| {
            self.vfs.mkdir(cx, &dir, name, mode)
        })?;
        self.made(header.nodeid, &dir, name)
    }

    /// A node about to lose its name cannot be found by it any more: it must be held.
    fn hold(&self, node: u64, name: &[u8]) {
        if let Some(id) = self.nodes.named(node, name)
            && let Err(e) = self.place(id)
        {
            log::debug!("virtio-fs: node {id}, about to lose its name, is not there: {e}");
        }
    }

    pub(super) fn unlink(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let name = args.name()?;
        let dir = self.directory(node)?;
        self.hold(node, name);
        self.as_root(|cx| self.vfs.unlink(cx, &dir, name))?;
        self.nodes.removed(node, name);
        Ok(Answer::EMPTY)
    }

    pub(super) fn rmdir(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let name = args.name()?;
        let dir = self.directory(node)?;
        self.hold(node, name);
        self.as_root(|cx| self.vfs.rmdir(cx, &dir, name))?;
        self.nodes.removed(node, name);
        Ok(Answer::EMPTY)
    }

    pub(super) fn rename(
        &self,
        node: u64,
        new_node: u64,
        flags: u32,
        args: &mut Args<'_>,
    ) -> Result<Answer> {
        let old = args.name()?;
        let new = args.name()?;
        let old_dir = self.directory(node)?;
        let new_dir = self.directory(new_node)?;
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        self.hold(new_node, new);
        // Two names of one inode: rename(2) leaves both, and so must the table.
        let same = {
            let (a, b) = (self.child(&old_dir, old), self.child(&new_dir, new));
            matches!((a, b), (Ok(a), Ok(b)) if Arc::ptr_eq(a.inode(), b.inode()))
        };
        self.as_root(|cx| self.vfs.rename(cx, &old_dir, old, &new_dir, new, flags))?;
        if !same {
            self.nodes.renamed((node, old), (new_node, new), exchange);
        }
        Ok(Answer::EMPTY)
    }

    pub(super) fn link(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let LinkIn { oldnodeid } = args.take()?;
        let name = args.name()?;
        let source = self.place(oldnodeid)?;
        let dir = self.directory(node)?;
        self.as_root(|cx| self.vfs.link(cx, &source, &dir, name))?;
        self.made(node, &dir, name)
    }

    pub(super) fn readlink(&self, node: u64) -> Result<Answer> {
        let place = self.place(node)?;
        let text = self.as_root(|cx| self.vfs.readlink(cx, &place))?;
        Ok(Answer::Bytes(text))
    }
}
