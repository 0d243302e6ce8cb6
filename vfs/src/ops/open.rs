//! open(2), openat2(2).

use std::os::fd::{AsFd, OwnedFd};

use crate::account::{self, Place, Step};
use crate::counted::fstat;
use crate::dentry::Dentry;
use crate::host_call;
use crate::inode::{BackingId, Caller, OpenedFile};
use crate::mount::{MountFlags, Vfs};
use crate::perm;
use crate::types::*;
use crate::walk::{Context, Followed, Last, Location, Lookup, Walk};

/// How to open a path, as openat2(2) has it.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    /// `O_*` of open(2).
    pub flags: i32,
    /// Mode of a file that is made (07777).
    pub mode: u32,
    /// The `RESOLVE_*` part; following the last link is governed by `flags`.
    pub lookup: Lookup,
}

/// What an open came to.
pub enum Opened {
    /// The descriptor for the guest, of a regular file or a directory, or `O_PATH`.
    File(OwnedFd),
    /// The same, of a device, a FIFO, or whatever else a link of `/proc` leads to.
    Other(OwnedFd),
    /// Would block (a FIFO without `O_NONBLOCK`): call [`Vfs::open_blocking`] with these on a thread
    /// that may wait.
    Blocking(Location, i32),
}

/// Flags that open(2) keeps with `O_PATH`.
const PATH_FLAGS: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// A caller together with the ids that own what it makes.
struct Owner<'a> {
    caller: &'a dyn Caller,
    creds: &'a Creds,
}

impl Caller for Owner<'_> {
    fn pid(&self) -> i32 {
        self.caller.pid()
    }

    fn tid(&self) -> i32 {
        self.caller.tid()
    }

    fn owner(&self) -> (u32, u32) {
        (self.creds.fsuid, self.creds.fsgid)
    }

    fn terminal(&self) -> Option<u64> {
        self.caller.terminal()
    }
}

fn is_tmpfile(flags: i32) -> bool {
    flags & libc::O_TMPFILE == libc::O_TMPFILE
}

/// The access that flags ask for, as a mask of [`perm`].
fn access_of(flags: i32) -> u32 {
    let by_mode = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => perm::READ,
        libc::O_WRONLY => perm::WRITE,
        _ => perm::READ | perm::WRITE,
    };
    if flags & libc::O_TRUNC != 0 {
        by_mode | perm::WRITE
    } else {
        by_mode
    }
}

impl Vfs {
    /// Opens a path. Errors as open(2) and openat2(2).
    pub fn open(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        how: &OpenHow,
    ) -> Result<Opened> {
        let mut flags = how.flags;
        if flags & libc::O_PATH != 0 {
            flags &= PATH_FLAGS;
        }
        let mut lookup = how.lookup & !(Lookup::FOLLOW | Lookup::DIRECTORY);
        if flags & libc::O_DIRECTORY != 0 {
            lookup |= Lookup::DIRECTORY;
        }
        if flags & libc::O_NOFOLLOW == 0 {
            lookup |= Lookup::FOLLOW;
        }
        if is_tmpfile(flags) {
            return self.open_tmpfile(cx, base, path, flags, how.mode, lookup);
        }
        if flags & libc::O_CREAT != 0 {
            if flags & libc::O_DIRECTORY != 0 {
                return Err(Errno::EINVAL);
            }
            return self.open_create(cx, base, path, flags, how.mode, lookup);
        }
        let location = self.resolve(cx, base, path, lookup)?;
        self.open_location(cx, &location, flags)
    }

    /// Opens a node that is known already, with all permission checks. `O_CREAT` means no more than
    /// that a directory is EISDIR and, with `O_EXCL`, everything EEXIST.
    pub fn open_location(&self, cx: &Context, loc: &Location, flags: i32) -> Result<Opened> {
        if flags & libc::O_PATH != 0 {
            if flags & libc::O_DIRECTORY != 0 && loc.kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            let dirs = self.store().dirs.as_fd();
            return Ok(Opened::File(self.stand_ins.open(dirs, loc, flags)?));
        }
        let flags = self.may_open(cx, loc, flags)?;
        if loc.kind() == FileType::Directory {
            let dirs = self.store().dirs.as_fd();
            return Ok(Opened::File(self.stand_ins.open(dirs, loc, flags)?));
        }
        let waits = flags & libc::O_NONBLOCK == 0 && flags & libc::O_ACCMODE != libc::O_RDWR;
        if loc.kind() == FileType::Fifo && waits {
            return Ok(Opened::Blocking(loc.clone(), flags));
        }
        let fd = self.open_inode(cx, loc, flags)?;
        match loc.kind() {
            FileType::Regular => Ok(Opened::File(fd)),
            _ => Ok(Opened::Other(fd)),
        }
    }

    /// Completes an [`Opened::Blocking`]; permission has been checked then.
    pub fn open_blocking(&self, cx: &Context, loc: &Location, flags: i32) -> Result<OwnedFd> {
        self.open_inode(cx, loc, flags)
    }

    /// `may_open()` of the kernel's `fs/namei.c`; returns the flags that remain.
    fn may_open(&self, cx: &Context, loc: &Location, mut flags: i32) -> Result<i32> {
        if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        let kind = loc.kind();
        if flags & libc::O_DIRECTORY != 0 && kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mask = access_of(flags);
        match kind {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory if flags & libc::O_CREAT != 0 || mask & perm::WRITE != 0 => {
                return Err(Errno::EISDIR);
            }
            FileType::CharDevice | FileType::BlockDevice
                if loc.mount.flags().contains(MountFlags::NODEV) =>
            {
                return Err(Errno::EACCES);
            }
            FileType::Directory | FileType::Regular => (),
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                flags &= !libc::O_TRUNC;
            }
        }
        perm::check(cx.creds, loc.inode(), mask)?;
        if flags & libc::O_NOATIME != 0 && !perm::is_owner(cx.creds, loc.inode().owner()?.1) {
            return Err(Errno::EPERM);
        }
        if mask & perm::WRITE != 0 && matches!(kind, FileType::Regular) {
            loc.mount.want_write()?;
        }
        Ok(flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_DIRECTORY))
    }

    fn open_inode(&self, cx: &Context, loc: &Location, flags: i32) -> Result<OwnedFd> {
        if loc.kind() == FileType::Regular && access_of(flags) & perm::WRITE != 0 {
            // The guest writes to the host file itself, unseen: what a write would clear is
            // cleared when it is opened.
            super::attr::drop_set_ids(cx.creds, loc.inode())?;
        }
        let caller = Owner {
            caller: cx.caller,
            creds: cx.creds,
        };
        account::note(|| Step::Open {
            place: Place::of(loc, cx.root),
            flags,
        });
        self.entry_opened(loc);
        let OpenedFile { fd, backing } = loc
            .inode()
            .open(flags | libc::O_CLOEXEC | libc::O_NOCTTY, &caller)?;
        // A place outside the tree stays known to the host alone.
        if !std::sync::Arc::ptr_eq(&loc.mount, &self.nowhere) {
            match backing {
                Some(id) => self.remember(id, loc),
                None => {
                    let stat = fstat(&fd)?;
                    // Behind `/dev/tty` is a terminal with a node of its own, under which it is known.
                    let another = loc.kind() == FileType::CharDevice
                        && loc.inode().attr()?.rdev != stat.st_rdev;
                    if !another {
                        self.remember(host_call::backing(&stat), loc);
                    }
                }
            }
        }
        Ok(fd)
    }

    fn remember(&self, id: BackingId, loc: &Location) {
        if loc.kind() == FileType::Regular {
            loc.dentry.set_opened(id);
        }
        self.files.insert(id, loc);
    }

    fn open_create(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        flags: i32,
        mode: u32,
        lookup: Lookup,
    ) -> Result<Opened> {
        let exclusive = flags & libc::O_EXCL != 0;
        let mut walk = Walk::new(self, cx, base, path, lookup)?;
        loop {
            let (start, end) = match walk.walk_to_last()? {
                Last::Here | Last::DotDot if exclusive => return Err(Errno::EEXIST),
                Last::Here | Last::DotDot | Last::Name { slash: true, .. } => {
                    return Err(Errno::EISDIR);
                }
                Last::Name { start, end, .. } => (start, end),
            };
            let child = match walk.child(start, end)? {
                Some(child) => child,
                None => {
                    let dir = walk.at.clone();
                    match self.create(cx, &dir, walk.name(start, end), mode) {
                        Ok(new) => {
                            // The mode of a file just made does not bind its maker.
                            let flags = flags
                                & !(libc::O_CREAT
                                    | libc::O_EXCL
                                    | libc::O_TRUNC
                                    | libc::O_NOFOLLOW);
                            return Ok(Opened::File(self.open_inode(cx, &new, flags)?));
                        }
                        Err(Errno::EEXIST) if !exclusive => match walk.child(start, end)? {
                            Some(child) => child,
                            // Made and removed by others meanwhile.
                            None => return Err(Errno::ENOENT),
                        },
                        Err(e) => return Err(e),
                    }
                }
            };
            if exclusive {
                return Err(Errno::EEXIST);
            }
            if child.kind() == FileType::Symlink && lookup.contains(Lookup::FOLLOW) {
                match walk.follow(&child, end)? {
                    Followed::Text => continue,
                    Followed::Jumped => return self.open_location(cx, &walk.at, flags),
                }
            }
            perm::may_create_in_sticky(cx.creds, walk.at.inode(), child.inode())?;
            return self.open_location(cx, &child, flags);
        }
    }

    /// Makes a regular file; EEXIST if another has been quicker.
    fn create(&self, cx: &Context, dir: &Location, name: &[u8], mode: u32) -> Result<Location> {
        let guard = dir.dentry.lock();
        if dir.sb().lookup_locked(&guard, name, cx.caller)?.is_some() {
            return Err(Errno::EEXIST);
        }
        if dir.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        dir.mount.want_write()?;
        let new = perm::new_node(cx.creds, dir.inode(), mode & !cx.umask, FileType::Regular)?;
        account::note(|| Step::make(dir, cx.root, name));
        let inode = dir.inode().create(name, new)?;
        self.entry_made(&dir.dentry, name, &inode);
        Ok(Location {
            mount: dir.mount.clone(),
            dentry: dir.sb().insert(&guard, name, inode),
        })
    }

    fn open_tmpfile(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        flags: i32,
        mode: u32,
        lookup: Lookup,
    ) -> Result<Opened> {
        if flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_CREAT != 0 {
            return Err(Errno::EINVAL);
        }
        let dir = self.resolve(cx, base, path, lookup)?;
        dir.mount.want_write()?;
        if dir.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        let new = perm::new_node(cx.creds, dir.inode(), mode & !cx.umask, FileType::Regular)?;
        let inode = dir.inode().tmpfile(new)?;
        let name = format!("#{}", inode.attr()?.ino);
        let linkable = flags & libc::O_EXCL == 0;
        let name = std::sync::Arc::from(name.into_bytes());
        let dentry = Dentry::unhashed(inode, Some(dir.dentry.clone()), name, linkable);
        let loc = Location {
            mount: dir.mount.clone(),
            dentry,
        };
        let flags = flags & !(libc::O_TMPFILE | libc::O_EXCL | libc::O_NOFOLLOW);
        Ok(Opened::File(self.open_inode(cx, &loc, flags)?))
    }
}
