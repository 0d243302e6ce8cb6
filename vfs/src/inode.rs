//! The contract of a file system: [`FileSystem`] and [`Inode`].
//!
//! A file system does storage and nothing else. The walk (`walk.rs`) owns path resolution, permission
//! checks, mounts and the dentry cache, and calls an inode only when the operation is allowed. Names
//! handed in are single components: 1..=255 bytes, no `/`, no NUL, never `.` or `..`.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::types::*;
use crate::unix::Binding;
use crate::walk::Location;
use crate::watch::{Arrival, Budget, Departure, Place};

/// How long the dentry cache may believe a directory of this file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DentryPolicy {
    /// Nobody but the VFS changes it: cached entries (negative ones too) hold until the VFS changes them.
    Exclusive,
    /// Others may change it: a cached entry is confirmed with [`Inode::revalidate`] at each use, unless a walk
    /// just passes through it and [`Inode::stamp`] says that it still holds.
    Revalidate,
    /// Entries come and go by themselves (`/proc`): nothing is cached.
    Never,
}

/// Which layer of a file system a node shows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// It has no layers.
    Only,
    /// The upper one, where changes go.
    Upper,
    /// A read-only one, counted from 0, the topmost.
    Lower(usize),
    /// A directory whose entries come from several.
    Merged,
}

/// What `statfs` reports.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// Magic number (`f_type`).
    pub magic: i64,
    /// Block size in bytes.
    pub bsize: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Longest name.
    pub namelen: u64,
}

/// One mounted file system.
pub trait FileSystem: Send + Sync {
    /// The name that `/proc/mounts` shows as type (`overlay`, `tmpfs`, `proc`, …).
    fn type_name(&self) -> &'static str;
    /// The root directory, the same object at each call.
    fn root(&self) -> Arc<dyn Inode>;
    /// Sizes and limits.
    fn statfs(&self) -> Result<StatFs>;
    /// How its dentries may be cached.
    fn dentry_policy(&self) -> DentryPolicy;
    /// With [`DentryPolicy::Revalidate`]: takes note of what others have changed until now. False if that
    /// cannot be said, so that no [`Inode::stamp`] may be relied on.
    fn catch_up(&self) -> bool {
        false
    }
    /// With [`DentryPolicy::Revalidate`]: from now on no stamp may be relied on, as a guest is told of changes as
    /// early as Duet is.
    fn distrust(&self) {}
    /// How many file systems lie on one another in it: 0 unless it is made of others.
    fn stack_depth(&self) -> u32 {
        0
    }
}

/// Who asks, for the few nodes whose meaning depends on it (`/proc/self`, `/dev/tty`).
pub trait Caller {
    /// Process id (thread-group leader) inside the sandbox's pid namespace.
    fn pid(&self) -> i32;
    /// Thread id inside the sandbox's pid namespace.
    fn tid(&self) -> i32;
    /// User and group that own what an open makes (a terminal of `/dev/ptmx`). The walk sees to it.
    fn owner(&self) -> (u32, u32) {
        (0, 0)
    }
    /// Host device number of its controlling terminal; `None` without one.
    fn terminal(&self) -> Option<u64> {
        None
    }
    /// Whether a process of its sandbox has this host file open, as far as is known.
    fn has_open(&self, _id: BackingId) -> bool {
        true
    }
}

/// A caller that is no process: used by set-up and tests.
pub struct NoCaller;

impl Caller for NoCaller {
    fn pid(&self) -> i32 {
        0
    }
    fn tid(&self) -> i32 {
        0
    }
}

/// Where a magic link (`/proc/PID/exe`, `/proc/PID/fd/N`) leads, without a walk by name.
pub enum MagicLink {
    /// A place in the tree.
    Location(Location),
    /// Not a place in the tree (pipe, socket, deleted file): opening it reopens this host descriptor.
    Descriptor(OwnedFd),
}

/// A host file opened for the guest.
pub struct OpenedFile {
    /// The descriptor to hand to the guest.
    pub fd: OwnedFd,
    /// `(st_dev, st_ino)` of the host file behind it, if the file system knows; the walk asks the
    /// host otherwise.
    pub backing: Option<BackingId>,
}

/// Identity of a host inode: `(st_dev, st_ino)` as the host's `fstat` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackingId {
    /// `st_dev`
    pub dev: u64,
    /// `st_ino`
    pub ino: u64,
}

/// A node of a file system. Every method has a default that answers as Linux does for a file system
/// without the feature, so a file system implements just what it has.
pub trait Inode: Send + Sync + 'static {
    /// For a file system to recognise its own inodes (`link`, `rename`).
    fn as_any(&self) -> &dyn Any;

    /// The type, constant for the life of the inode and answered without a host call.
    fn kind(&self) -> FileType;

    /// Fresh attributes.
    fn attr(&self) -> Result<Attr>;

    /// Links and blocks of 512 bytes, where that is all that is wanted of the attributes.
    fn links_and_blocks(&self) -> Result<(u32, u64)> {
        let a = self.attr()?;
        Ok((a.nlink, a.blocks))
    }

    /// Which layer of its file system it shows from; without a host call.
    fn layer(&self) -> Layer {
        Layer::Only
    }

    /// Attributes sufficient for a permission check: `(mode, uid, gid)`. May be served from a cache.
    fn owner(&self) -> Result<(u32, u32, u32)> {
        let a = self.attr()?;
        Ok((a.mode, a.uid, a.gid))
    }

    /// Changes attributes.
    fn set_attr(&self, _changes: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }

    // ---- directories ----

    /// The child `name`, ENOENT if there is none.
    fn lookup(&self, _name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// With [`DentryPolicy::Revalidate`]: whether `name` still leads to `child` (`None`: to nothing).
    fn revalidate(&self, _name: &[u8], _child: Option<&dyn Inode>) -> bool {
        true
    }

    /// The attributes of `child`, if `name` still leads to it and they come along with that answer. `None` says
    /// nothing.
    fn revalidate_attr(&self, _name: &[u8], _child: &dyn Inode) -> Option<Attr> {
        None
    }

    /// With [`DentryPolicy::Revalidate`], of a name that was there when last asked: a number that is not 0. As
    /// long as it is the same, after [`FileSystem::catch_up`], the name leads where it led. `None` if nobody
    /// would tell.
    fn stamp(&self, _name: &[u8]) -> Option<u64> {
        None
    }

    /// Entries behind `cookie` (0: from the start; `.` and `..` are not among them) in a stable
    /// order, until `sink` returns false (that entry is then not taken).
    fn read_dir(
        &self,
        _cookie: u64,
        _caller: &dyn Caller,
        _sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a regular file, EEXIST if the name is taken.
    fn create(&self, _name: &[u8], _new: NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EACCES)
    }

    /// Makes a regular file without a name (`O_TMPFILE`); [`Inode::link`] may name it later.
    fn tmpfile(&self, _new: NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a directory.
    fn mkdir(&self, _name: &[u8], _new: NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Makes a symbolic link.
    fn symlink(&self, _name: &[u8], _target: &[u8], _new: NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Makes a FIFO, socket node or device node.
    fn mknod(
        &self,
        _name: &[u8],
        _kind: FileType,
        _rdev: u64,
        _new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Gives `target`, an inode of the same file system, a further name.
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes a name that is no directory.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes an empty directory (ENOTEMPTY otherwise).
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Renames within one file system; `flags` are `RENAME_NOREPLACE`, `RENAME_EXCHANGE` or
    /// `RENAME_WHITEOUT` of renameat2(2). Type clashes and ENOTEMPTY are for the file system to find;
    /// moving a directory into its own subtree is ruled out by the walk.
    fn rename(
        &self,
        _old: &[u8],
        _new_dir: &Arc<dyn Inode>,
        _new: &[u8],
        _flags: u32,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }

    // ---- other kinds ----

    /// A symbolic link's text.
    fn readlink(&self, _caller: &dyn Caller) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// A link that is followed by jumping, not by its text.
    fn magic_link(&self, _caller: &dyn Caller) -> Option<Result<MagicLink>> {
        None
    }

    /// Opens a host file for the guest. `flags` are open(2)'s, already checked; the walk has handled
    /// `O_CREAT`, `O_EXCL`, `O_NOFOLLOW`, `O_DIRECTORY`, `O_PATH`. `O_TRUNC` is for here. Never called
    /// for directories. May block on a FIFO unless `O_NONBLOCK` is given.
    fn open(&self, _flags: i32, _caller: &dyn Caller) -> Result<OpenedFile> {
        Err(Errno::ENXIO)
    }

    /// Binds a Unix socket of the guest to a new name in this directory.
    fn bind_socket(
        &self,
        _name: &[u8],
        _binding: &Binding<'_>,
        _new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// For a socket node: an `O_PATH` descriptor of the host socket, to connect through
    /// `/proc/self/fd/N`. For a file or directory: an `O_PATH` descriptor for an inotify watch.
    fn host_path(&self) -> Result<OwnedFd> {
        Err(Errno::ECONNREFUSED)
    }

    // ---- watches (watch.rs) ----

    /// An `O_PATH` descriptor of the host file or directory to which all happens that the guest makes
    /// happen to this one. EOPNOTSUPP if there is none: its directory's shadow then tells.
    fn watched_path(&self) -> Result<OwnedFd> {
        self.host_path()
    }

    /// Brings the host file with this file's contents to a place, and says whether that has been done;
    /// otherwise something empty stands there. With a budget, a file of a lower tree may be copied first.
    fn arrive(&self, _at: &Place, _how: Arrival, _budget: Option<&Budget>) -> Result<bool> {
        Ok(false)
    }

    /// Takes the host file with this file's contents away from a place, if that is where it is, which is
    /// returned. Without effect if no name is left: then the host file lives by those who have it open.
    fn depart(&self, _from: &Place, _how: Departure) -> Result<bool> {
        Ok(false)
    }

    /// What was at one place has been moved to another.
    fn relocate(&self, _from: &Place, _to: &Place) {}

    // ---- extended attributes ----

    /// The value of `name` (ENODATA if there is none).
    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets `name`; `flags` are `XATTR_CREATE`/`XATTR_REPLACE`.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// All names.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// Removes `name`.
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}
