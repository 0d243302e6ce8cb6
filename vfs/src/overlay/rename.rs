//! rename(2) and its variants.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::change::RETRIES;
use super::copy_up::Data;
use super::inode::{OverlayInode, lock_all};
use super::{marks, remove, stack};
use crate::inode::Inode;
use crate::types::*;

/// A rename with its directories locked and its nodes found.
struct Rename<'a> {
    from: &'a OverlayInode,
    old: &'a [u8],
    to: &'a OverlayInode,
    new: &'a [u8],
    source: Arc<OverlayInode>,
    target: Option<Arc<OverlayInode>>,
}

impl OverlayInode {
    /// Renames `old` of this directory to `new` of `to`.
    pub(super) fn rename_to(
        &self,
        old: &[u8],
        to: &OverlayInode,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let no_replace = flags & libc::RENAME_NOREPLACE != 0;
        if flags & !(libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE) != 0 || exchange && no_replace
        {
            return Err(Errno::EINVAL);
        }
        if self.kind != FileType::Directory || to.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        for _ in 0..RETRIES {
            let source = {
                let _names = self.names.read();
                self.child(old)?.ok_or(Errno::ENOENT)?
            };
            let target = {
                let _names = to.names.read();
                to.child(new)?
            };
            match &target {
                Some(_) if no_replace => return Err(Errno::EEXIST),
                None if exchange => return Err(Errno::ENOENT),
                Some(target) if Arc::ptr_eq(target, &source) => return Ok(()),
                Some(target) if exchange => drop(target.copy_up(Data::Keep)?),
                Some(target) => match (source.kind, target.kind) {
                    (FileType::Directory, FileType::Directory) => (),
                    (FileType::Directory, _) => return Err(Errno::ENOTDIR),
                    (_, FileType::Directory) => return Err(Errno::EISDIR),
                    _ => (),
                },
                None => (),
            }
            source.copy_up(Data::Keep)?;
            self.copy_up(Data::Keep)?;
            to.copy_up(Data::Keep)?;
            let mut dirs = vec![self, to];
            if let Some(target) = target.as_deref().filter(|t| t.kind == FileType::Directory) {
                dirs.push(target);
            }
            let _names = lock_all(&dirs);
            let same_source = self
                .child(old)?
                .is_some_and(|now| Arc::ptr_eq(&now, &source));
            let same_target = match (to.child(new)?, &target) {
                (Some(now), Some(then)) => Arc::ptr_eq(&now, then),
                (now, then) => now.is_none() && then.is_none(),
            };
            if !same_source || !same_target || source.upper().is_none() {
                continue;
            }
            let rename = Rename {
                from: self,
                old,
                to,
                new,
                source,
                target: target.clone(),
            };
            return if exchange {
                rename.exchange()
            } else {
                rename.replace()
            };
        }
        Err(Errno::EBUSY)
    }

    /// Marks the upper part of a directory for a name at which lower trees have something (`covered`)
    /// or not: what shows inside must stay the same there.
    fn mark_for_move(&self, covered: bool) -> Result<()> {
        if self.kind != FileType::Directory {
            return Ok(());
        }
        let upper = self.upper().ok_or(Errno::EIO)?;
        if !self.lower.is_empty() {
            // Where no mark can be kept, the caller has to copy, as without redirect_dir.
            let path = self.lower_path()?;
            return marks::set_redirect(&*upper, &path).map_err(|_| Errno::EXDEV);
        }
        if covered {
            marks::set_opaque(&*upper).map_err(|_| Errno::EXDEV)
        } else {
            Ok(())
        }
    }
}

impl Rename<'_> {
    fn uppers(&self) -> Result<(Arc<dyn Inode>, Arc<dyn Inode>)> {
        Ok((
            self.from.upper().ok_or(Errno::EIO)?,
            self.to.upper().ok_or(Errno::EIO)?,
        ))
    }

    fn exchange(self) -> Result<()> {
        let target = self.target.as_ref().ok_or(Errno::ENOENT)?;
        let (from, to) = self.uppers()?;
        self.source.mark_for_move(self.to.covers(self.new)?)?;
        target.mark_for_move(self.from.covers(self.old)?)?;
        from.rename(self.old, &to, self.new, libc::RENAME_EXCHANGE)?;
        self.from.children.lock().remove(self.old);
        self.to.children.lock().remove(self.new);
        self.from.forget_entry(self.old);
        self.to.forget_entry(self.new);
        self.from.note_entry(self.old, target);
        self.to.note_entry(self.new, &self.source);
        Ok(())
    }

    fn replace(self) -> Result<()> {
        if let Some(target) = &self.target
            && target.kind == FileType::Directory
            && !target.is_empty()?
        {
            return Err(Errno::ENOTEMPTY);
        }
        let (from, to) = self.uppers()?;
        let covered = self.from.covers(self.old)?;
        self.source.mark_for_move(self.to.covers(self.new)?)?;
        // What stands in the way in the upper tree: a node to replace, or a whiteout.
        let obstacle = stack::child(&*to, self.new)?.map(|node| node.kind());
        match obstacle {
            Some(kind) if self.source.kind == FileType::Directory => {
                self.swap_directory(&from, &to, kind, covered)?;
            }
            _ => self.plain(&from, &to, covered)?,
        }
        self.from.children.lock().remove(self.old);
        self.to.detach(self.new);
        if let Some(target) = &self.target
            && target.kind == FileType::Directory
        {
            target.detached.store(true, Ordering::Release);
        }
        self.from.forget_entry(self.old);
        self.to.forget_entry(self.new);
        self.to.note_entry(self.new, &self.source);
        Ok(())
    }

    /// Nothing is in the way that rename(2) would not replace by itself.
    fn plain(&self, from: &Arc<dyn Inode>, to: &Arc<dyn Inode>, covered: bool) -> Result<()> {
        if !covered {
            return from.rename(self.old, to, self.new, 0);
        }
        match from.rename(self.old, to, self.new, libc::RENAME_WHITEOUT) {
            Err(Errno::EINVAL | Errno::EPERM | Errno::EOPNOTSUPP) => {
                from.rename(self.old, to, self.new, 0)?;
                self.from.layers.whiteout(from, self.old, None)
            }
            other => other,
        }
    }

    /// A directory moves to where the upper tree has a whiteout, or a directory that shows empty.
    fn swap_directory(
        &self,
        from: &Arc<dyn Inode>,
        to: &Arc<dyn Inode>,
        obstacle: FileType,
        covered: bool,
    ) -> Result<()> {
        from.rename(self.old, to, self.new, libc::RENAME_EXCHANGE)?;
        match (covered, obstacle) {
            (true, FileType::Directory) => {
                self.from
                    .layers
                    .whiteout(from, self.old, Some(FileType::Directory))
            }
            // The whiteout from there serves here.
            (true, _) => Ok(()),
            (false, _) => remove(from, self.old),
        }
    }
}
