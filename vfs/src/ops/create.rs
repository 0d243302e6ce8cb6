//! mkdir(2), mknod(2), symlink(2), link(2), and bind(2) and connect(2) of Unix sockets.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::account::{self, Step};
use crate::inode::Inode;
use crate::mount::Vfs;
use crate::perm;
use crate::types::*;
use crate::unix::Binding;
use crate::walk::{Context, Last, Location, Lookup, Walk};

/// Most hard links of one file; generous for every host file system but ext4's 65000.
const LINK_MAX: u32 = 65000;

impl Vfs {
    /// Makes a new entry at `path` by `make(directory, name)`, which checks permission first. `filename_create()` of the kernel.
    fn make(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        kind: FileType,
        make: impl FnOnce(&Location, &[u8]) -> Result<Option<Arc<dyn Inode>>>,
    ) -> Result<()> {
        let mut walk = Walk::new(self, cx, base, path, Lookup::empty())?;
        let Last::Name { start, end, slash } = walk.walk_to_last()? else {
            return Err(Errno::EEXIST);
        };
        let dir = &walk.at;
        let name = walk.name(start, end);
        // What exists is EEXIST before all else; most often the cache knows.
        let guard = dir.dentry.lock();
        if dir.sb().lookup_locked(&guard, name, cx.caller)?.is_some() {
            return Err(Errno::EEXIST);
        }
        if slash && kind != FileType::Directory {
            return Err(Errno::ENOENT);
        }
        if dir.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        dir.mount.want_write()?;
        account::note(|| Step::make(dir, cx.root, name));
        match make(dir, name)? {
            Some(inode) => {
                self.entry_made(&dir.dentry, name, &inode);
                dir.sb().insert(&guard, name, inode);
            }
            None => dir.sb().forget_name(&guard, name),
        }
        Ok(())
    }

    /// mkdir(2); `mode` is before the umask.
    pub fn mkdir(&self, cx: &Context, base: &Location, path: &[u8], mode: u32) -> Result<()> {
        self.make(cx, base, path, FileType::Directory, |dir, name| {
            let mode = mode & 0o1777 & !cx.umask;
            let new = perm::new_node(cx.creds, dir.inode(), mode, FileType::Directory)?;
            dir.inode().mkdir(name, new).map(Some)
        })
    }

    /// mknod(2): `mode` holds the type (none means a regular file) and is before the umask. Device
    /// nodes need `CAP_MKNOD`, except for character device 0:0, a whiteout.
    pub fn mknod(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        mode: u32,
        rdev: u64,
    ) -> Result<()> {
        let kind = if mode & libc::S_IFMT == 0 {
            FileType::Regular
        } else {
            FileType::from_mode(mode).ok_or(Errno::EINVAL)?
        };
        match kind {
            FileType::Directory => return Err(Errno::EPERM),
            FileType::Symlink => return Err(Errno::EINVAL),
            _ => (),
        }
        self.make(cx, base, path, kind, |dir, name| {
            let mode = mode & 0o7777 & !cx.umask;
            let new = perm::new_node(cx.creds, dir.inode(), mode, kind)?;
            let device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
            let whiteout = kind == FileType::CharDevice && rdev == 0;
            if device && !whiteout && !cx.creds.has(Caps::MKNOD) {
                return Err(Errno::EPERM);
            }
            if kind == FileType::Regular {
                dir.inode().create(name, new).map(Some)
            } else {
                let rdev = if device { rdev } else { 0 };
                dir.inode().mknod(name, kind, rdev, new).map(Some)
            }
        })
    }

    /// symlink(2) with the text `target`.
    pub fn symlink(&self, cx: &Context, target: &[u8], base: &Location, path: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= crate::walk::PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.make(cx, base, path, FileType::Symlink, |dir, name| {
            let new = perm::new_node(cx.creds, dir.inode(), 0o777, FileType::Symlink)?;
            dir.inode().symlink(name, target, new).map(Some)
        })
    }

    /// link(2): gives `src` the further name `path`. A file of `O_TMPFILE` gets its first.
    pub fn link(&self, cx: &Context, src: &Location, base: &Location, path: &[u8]) -> Result<()> {
        self.make(cx, base, path, FileType::Regular, |dir, name| {
            if !Arc::ptr_eq(&src.mount, &dir.mount) {
                return Err(Errno::EXDEV);
            }
            perm::may_link(cx.creds, src.inode())?;
            perm::may_create(cx.creds, dir.inode())?;
            if src.kind() == FileType::Directory {
                return Err(Errno::EPERM);
            }
            let nlink = src.inode().attr()?.nlink;
            if nlink == 0 && !src.dentry.is_linkable() {
                return Err(Errno::ENOENT);
            }
            if nlink >= LINK_MAX {
                return Err(Errno::EMLINK);
            }
            dir.inode().link(name, src.inode())?;
            self.entry_made(&dir.dentry, name, src.inode());
            Ok(None)
        })
    }

    /// bind(2) of a Unix socket of the guest, to its path: EADDRINUSE if that exists. Returns its node.
    pub fn bind_socket(
        &self,
        cx: &Context,
        base: &Location,
        binding: &Binding<'_>,
    ) -> Result<Arc<dyn Inode>> {
        let mut node = None;
        let made = self.make(cx, base, binding.path, FileType::Socket, |dir, name| {
            let mode = 0o777 & !cx.umask;
            let new = perm::new_node(cx.creds, dir.inode(), mode, FileType::Socket)?;
            node = Some(dir.inode().bind_socket(name, binding, new)?);
            Ok(node.clone())
        });
        match made {
            Ok(()) => node.ok_or(Errno::ENOENT),
            Err(Errno::EEXIST) => Err(Errno::EADDRINUSE),
            Err(e) => Err(e),
        }
    }

    /// The host socket for a connect(2) to `path`: EACCES without write permission, ECONNREFUSED if
    /// it is no socket.
    pub fn socket_path(&self, cx: &Context, base: &Location, path: &[u8]) -> Result<OwnedFd> {
        let loc = self.resolve(cx, base, path, Lookup::FOLLOW)?;
        self.socket_node(cx, loc.inode())
    }

    /// As [`Vfs::socket_path`], of a node that is known.
    pub fn socket_node(&self, cx: &Context, node: &Arc<dyn Inode>) -> Result<OwnedFd> {
        perm::check(cx.creds, node, perm::WRITE)?;
        if node.kind() != FileType::Socket {
            return Err(Errno::ECONNREFUSED);
        }
        node.host_path()
    }
}
