//! renameat2(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dentry::{Dentry, DirGuard};
use crate::mount::Vfs;
use crate::perm::{self, Victim};
use crate::types::*;
use crate::walk::{Context, Last, Location, Lookup, Walk};

const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;
const WHITEOUT: u32 = libc::RENAME_WHITEOUT;

fn victim_of(kind: FileType) -> Victim {
    match kind {
        FileType::Directory => Victim::Directory,
        _ => Victim::Other,
    }
}

fn same_inode(a: &Arc<Dentry>, b: &Arc<Dentry>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a.inode()), Arc::as_ptr(b.inode()))
}

impl Vfs {
    /// renameat2(2); `flags` are `RENAME_*`. Follows `do_renameat2()` and `vfs_rename()`.
    pub fn rename(
        &self,
        cx: &Context,
        old_base: &Location,
        old_path: &[u8],
        new_base: &Location,
        new_path: &[u8],
        flags: u32,
    ) -> Result<()> {
        if flags & !(NOREPLACE | EXCHANGE | WHITEOUT) != 0
            || flags & EXCHANGE != 0 && flags & (NOREPLACE | WHITEOUT) != 0
        {
            return Err(Errno::EINVAL);
        }
        let mut old = Walk::new(self, cx, old_base, old_path, Lookup::empty())?;
        let old_last = old.walk_to_last()?;
        let mut new = Walk::new(self, cx, new_base, new_path, Lookup::empty())?;
        let new_last = new.walk_to_last()?;
        if !Arc::ptr_eq(&old.at.mount, &new.at.mount) {
            return Err(Errno::EXDEV);
        }
        let Last::Name { start, end, slash } = old_last else {
            return Err(Errno::EBUSY);
        };
        let (old_name, old_slash) = (old.name(start, end), slash);
        let Last::Name { start, end, slash } = new_last else {
            return Err(match flags & NOREPLACE {
                0 => Errno::EBUSY,
                _ => Errno::EEXIST,
            });
        };
        let (new_name, new_slash) = (new.name(start, end), slash);
        let (old_dir, new_dir) = (&old.at, &new.at);
        old_dir.mount.want_write()?;

        let sb = old_dir.sb();
        let rename = sb.rename.lock();
        let (a, b) = lock_two(&old_dir.dentry, &new_dir.dentry);
        let (old_guard, new_guard) = match (&a, &b) {
            (a, Some(b)) if Arc::ptr_eq(a.dir, &old_dir.dentry) => (a, b),
            (a, Some(b)) => (b, a),
            (a, None) => (a, a),
        };
        let source = sb.lookup_locked(old_guard, old_name, cx.caller)?;
        let source = source.ok_or(Errno::ENOENT)?;
        let target = sb.lookup_locked(new_guard, new_name, cx.caller)?;
        if flags & NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & EXCHANGE != 0 {
            let target = target.as_ref().ok_or(Errno::ENOENT)?;
            if target.kind() != FileType::Directory && new_slash {
                return Err(Errno::ENOTDIR);
            }
        }
        let is_dir = source.kind() == FileType::Directory;
        if !is_dir && (old_slash || new_slash && flags & EXCHANGE == 0) {
            return Err(Errno::ENOTDIR);
        }
        // Into its own subtree; over a directory that holds it.
        if is_dir && source.is_ancestor_of(&new_dir.dentry) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = &target {
            if target.is_ancestor_of(&old_dir.dentry) {
                return Err(match flags & EXCHANGE {
                    0 => Errno::ENOTEMPTY,
                    _ => Errno::EINVAL,
                });
            }
            if same_inode(&source, target) {
                return Ok(());
            }
        }

        let creds = cx.creds;
        perm::may_delete(
            creds,
            old_dir.inode(),
            source.inode(),
            victim_of(source.kind()),
        )?;
        match &target {
            None => {
                if new_dir.dentry.is_dead() {
                    return Err(Errno::ENOENT);
                }
                perm::may_create(creds, new_dir.inode())?;
            }
            Some(target) => {
                let want = if flags & EXCHANGE != 0 {
                    target.kind()
                } else {
                    source.kind()
                };
                perm::may_delete(creds, new_dir.inode(), target.inode(), victim_of(want))?;
            }
        }
        // A directory that changes its parent has its `..` written to.
        if !Arc::ptr_eq(&old_dir.dentry, &new_dir.dentry) {
            if is_dir {
                perm::check(creds, source.inode(), perm::WRITE)?;
            }
            if let Some(target) = target
                .as_ref()
                .filter(|t| flags & EXCHANGE != 0 && t.kind() == FileType::Directory)
            {
                perm::check(creds, target.inode(), perm::WRITE)?;
            }
        }
        if source.is_mount_point() || target.as_ref().is_some_and(|t| t.is_mount_point()) {
            return Err(Errno::EBUSY);
        }

        {
            let replaced_dir = target
                .as_ref()
                .filter(|t| t.kind() == FileType::Directory && flags & EXCHANGE == 0);
            let _replaced_guard = replaced_dir.map(|t| t.lock());
            old_dir
                .inode()
                .rename(old_name, new_dir.inode(), new_name, flags)?;
            self.renames.fetch_add(1, Ordering::AcqRel);
            let (from, to) = (&old_dir.dentry, &new_dir.dentry);
            let exchanged = flags & EXCHANGE != 0;
            let other = target.as_ref();
            self.entry_moved((from, old_name), (to, new_name), &source, other, exchanged);
            match &target {
                Some(target) if flags & EXCHANGE != 0 => sb.exchanged(&source, target),
                _ => {
                    let replaced = target.as_deref();
                    sb.moved(old_guard, &new_dir.dentry, new_name, &source, replaced);
                }
            }
        }
        drop((a, b));
        drop(rename);
        if flags & EXCHANGE == 0
            && let Some(target) = target
            && let Some(id) = target.opened()
        {
            self.unlinked(cx, id, target.inode());
        }
        Ok(())
    }
}

/// Locks two directories, the ancestor first; one only, if they are the same.
fn lock_two<'a>(a: &'a Arc<Dentry>, b: &'a Arc<Dentry>) -> (DirGuard<'a>, Option<DirGuard<'a>>) {
    if Arc::ptr_eq(a, b) {
        (a.lock(), None)
    } else if b.is_ancestor_of(a) {
        let first = b.lock();
        (first, Some(a.lock()))
    } else {
        let first = a.lock();
        (first, Some(b.lock()))
    }
}
