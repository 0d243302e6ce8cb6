//! Making and removing names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::copy_up::Data;
use super::inode::{OverlayInode, Parts, lock_all};
use super::stack::Entry;
use super::{clear, marks};
use crate::inode::Inode;
use crate::types::*;

/// How often an operation is tried anew because a name changed between a look and the lock.
pub(super) const RETRIES: u32 = 64;

impl OverlayInode {
    /// Makes the node `name` with `make`, which is told a directory of the upper tree and a name there.
    pub(super) fn make(
        &self,
        name: &[u8],
        make: impl Fn(&Arc<dyn Inode>, &[u8]) -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        let dir = self.copy_up(Data::Keep)?;
        let _names = self.names.write();
        let node = match self.find(name)? {
            Entry::Upper(_) | Entry::Lower(_) => return Err(Errno::EEXIST),
            Entry::Absent => make(&dir, name)?,
            Entry::Whiteout => {
                let (temp, node) = self.layers.in_work(make)?;
                let kind = node.kind();
                let opaque = match kind {
                    FileType::Directory => marks::set_opaque(&*node),
                    _ => Ok(()),
                };
                opaque
                    .and_then(|()| self.layers.over_whiteout(&temp, kind, &dir, name))
                    .inspect_err(|_| self.layers.discard(&temp))?;
                node
            }
        };
        let inode = self.layers.instantiate_upper(Parts::alone(node));
        self.note_entry(name, &inode);
        Ok(inode)
    }

    /// unlink(2)
    pub(super) fn remove_name(&self, name: &[u8]) -> Result<()> {
        let dir = self.copy_up(Data::Keep)?;
        let _names = self.names.write();
        let (kind, upper) = match self.find(name)? {
            Entry::Absent | Entry::Whiteout => return Err(Errno::ENOENT),
            Entry::Upper(parts) => (parts.upper.kind(), true),
            Entry::Lower(lower) => {
                let top = lower.first().ok_or(Errno::EIO)?;
                (top.dir.kind(), false)
            }
        };
        if kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        if !upper {
            self.layers.whiteout(&dir, name, None)?;
            self.detach(name);
        } else if self.covers(name)? {
            self.layers.whiteout(&dir, name, Some(kind))?;
        } else {
            dir.unlink(name)?;
        }
        self.forget_entry(name);
        Ok(())
    }

    /// rmdir(2)
    pub(super) fn remove_directory(&self, name: &[u8]) -> Result<()> {
        let dir = self.copy_up(Data::Keep)?;
        for _ in 0..RETRIES {
            let victim = {
                let _names = self.names.read();
                self.child(name)?.ok_or(Errno::ENOENT)?
            };
            if victim.kind != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            let _names = lock_all(&[self, &victim]);
            if !self
                .child(name)?
                .is_some_and(|now| Arc::ptr_eq(&now, &victim))
            {
                continue;
            }
            if !victim.is_empty()? {
                return Err(Errno::ENOTEMPTY);
            }
            match victim.upper() {
                None => self.layers.whiteout(&dir, name, None)?,
                Some(_) if self.covers(name)? => {
                    self.layers
                        .whiteout(&dir, name, Some(FileType::Directory))?;
                }
                Some(upper) => match dir.rmdir(name) {
                    Err(Errno::ENOTEMPTY) => {
                        clear(&upper)?;
                        dir.rmdir(name)?;
                    }
                    other => other?,
                },
            }
            victim.detached.store(true, Ordering::Release);
            self.detach(name);
            self.forget_entry(name);
            return Ok(());
        }
        Err(Errno::EBUSY)
    }
}
