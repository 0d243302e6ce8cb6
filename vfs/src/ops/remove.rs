//! unlink(2), rmdir(2).

use crate::account::{self, Step};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::dentry::Dentry;
use crate::inode::{BackingId, Inode};
use crate::mount::Vfs;
use crate::perm::{self, Victim};
use crate::types::*;
use crate::walk::{Context, Last, Location, Lookup, Walk};

impl Vfs {
    /// unlink(2): EISDIR for a directory, ENOTDIR for another thing named with a slash behind.
    pub fn unlink(&self, cx: &Context, base: &Location, path: &[u8]) -> Result<()> {
        let mut walk = Walk::new(self, cx, base, path, Lookup::empty())?;
        let Last::Name { start, end, slash } = walk.walk_to_last()? else {
            return Err(Errno::EISDIR);
        };
        let (dir, name) = (&walk.at, walk.name(start, end));
        let guard = dir.dentry.lock();
        let victim = dir.sb().lookup_locked(&guard, name, cx.caller)?;
        let victim = victim.ok_or(Errno::ENOENT)?;
        if slash {
            return Err(match victim.kind() {
                FileType::Directory => Errno::EISDIR,
                _ => Errno::ENOTDIR,
            });
        }
        dir.mount.want_write()?;
        perm::may_delete(cx.creds, dir.inode(), victim.inode(), Victim::Other)?;
        if victim.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        account::note(|| Step::remove(dir, cx.root, name));
        dir.inode().unlink(name)?;
        self.entry_removed(&dir.dentry, name, &victim);
        dir.sb().removed(&guard, name, &victim);
        drop(guard);
        if let Some(id) = victim.opened() {
            self.unlinked(cx, id, victim.inode());
        }
        self.forget_stand_ins(dir, victim);
        Ok(())
    }

    /// rmdir(2).
    pub fn rmdir(&self, cx: &Context, base: &Location, path: &[u8]) -> Result<()> {
        let mut walk = Walk::new(self, cx, base, path, Lookup::empty())?;
        let (start, end) = match walk.walk_to_last()? {
            Last::Name { start, end, .. } => (start, end),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Here if path.iter().all(|&b| b == b'/') => return Err(Errno::EBUSY),
            Last::Here => return Err(Errno::EINVAL),
        };
        let (dir, name) = (&walk.at, walk.name(start, end));
        let guard = dir.dentry.lock();
        let victim = dir.sb().lookup_locked(&guard, name, cx.caller)?;
        let victim = victim.ok_or(Errno::ENOENT)?;
        dir.mount.want_write()?;
        perm::may_delete(cx.creds, dir.inode(), victim.inode(), Victim::Directory)?;
        let victim_guard = victim.lock();
        if victim.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        account::note(|| Step::remove(dir, cx.root, name));
        dir.inode().rmdir(name)?;
        self.entry_removed(&dir.dentry, name, &victim);
        dir.sb().removed(&guard, name, &victim);
        drop(victim_guard);
        drop(guard);
        self.forget_stand_ins(dir, victim);
        Ok(())
    }

    /// After an opened file has lost a name. Of one that is watched, and that nobody has open, the kernel tells the
    /// end (`IN_DELETE_SELF`) as soon as the table of open files does not hold it.
    pub(crate) fn unlinked(&self, cx: &Context, id: BackingId, inode: &Arc<dyn Inode>) {
        self.files.unlinked(id);
        if self.watches.is_watched_file(id)
            && inode.attr().is_ok_and(|attr| attr.nlink == 0)
            && !cx.caller.has_open(id)
        {
            self.files.closed(id);
        }
    }

    fn forget_stand_ins(&self, dir: &Location, victim: Arc<Dentry>) {
        let gone = Location {
            mount: dir.mount.clone(),
            dentry: victim,
        };
        self.stand_ins.deleted(self.store().dirs.as_fd(), &gone);
    }
}
