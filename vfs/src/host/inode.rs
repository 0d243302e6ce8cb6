//! The inodes of a host tree.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::fcntl::{AtFlags, RenameFlags};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::UnlinkatFlags;
use parking_lot::{Mutex, RwLock};

use super::Tree;
use super::changes::{self, Directory};
use super::meta::Meta;
use super::ownership::Known;
use super::read_dir::Stream;
use super::sys::{self, FdPath, Stat};
use crate::counted::{
    bind, linkat, mkdirat, mkfifoat, mknodat, readlinkat, renameat2, symlinkat, unlinkat,
};
use crate::inode::{BackingId, Caller, Inode, OpenedFile};
use crate::types::*;
use crate::unix::Binding;

/// Flags of open(2) that mean something when an existing inode is reopened.
const OPEN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_ASYNC
    | libc::O_DIRECT
    | libc::O_DSYNC
    | libc::O_LARGEFILE
    | libc::O_NOATIME
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_TRUNC;

/// Longest path that `struct sockaddr_un` holds, without the NUL.
const SUN_PATH_MAX: usize = 107;

/// How often a directory is asked about before it is watched.
const OFTEN: u32 = 32;
/// Stands for a directory that cannot be.
const NEVER: u32 = u32::MAX;

/// A node of the host.
pub struct HostInode {
    pub(super) tree: Arc<Tree>,
    /// `O_PATH`
    fd: OwnedFd,
    id: BackingId,
    /// The type as shown; that of the host inode may be a regular file standing in.
    pub(super) kind: FileType,
    /// Shown `st_dev`.
    dev: u64,
    /// A directory of a kernel interface (`/proc`, `/sys`, …) mounted inside the tree: shown empty.
    pub(super) sealed: bool,
    /// Counts changes of owner and mode.
    pub(super) version: AtomicU32,
    pub(super) known: Mutex<Known>,
    pub(super) stream: Mutex<Option<Stream>>,
    /// Whether stand-ins may be among the entries: 0 unknown, 1 no, 2 yes.
    pub(super) nodes: AtomicU8,
    /// Of a directory that others may change: the last watch, and how often it was asked about without one,
    /// or [`NEVER`].
    watched: RwLock<Option<Arc<Directory>>>,
    asked: AtomicU32,
}

/// What is known of the record beside a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// It is to be looked for.
    Unknown,
    /// There is none, as the node has just been made.
    None,
}

/// Whether the descriptor lies on a file system through which the kernel shows itself.
fn is_kernel_interface(fd: BorrowedFd<'_>) -> bool {
    /// `f_type` of bpf, binfmt_misc, cgroup, cgroup2, configfs, debugfs, devpts, efivarfs, proc,
    /// pstore, securityfs, selinuxfs, smackfs, sysfs, tracefs.
    const MAGICS: [i64; 15] = [
        0xcafe_4a11,
        0x4249_4e4d,
        0x0027_e0eb,
        0x6367_7270,
        0x6265_6570,
        0x6462_6720,
        0x1cd1,
        0xde5e_81e4,
        0x9fa0,
        0x6165_676c,
        0x7363_6673,
        0xf97c_ff8c,
        0x4341_5d53,
        0x6265_6572,
        0x7472_6163,
    ];
    match crate::counted::fstatfs(fd) {
        Ok(s) => MAGICS.contains(&s.filesystem_type().0),
        Err(_) => true,
    }
}

impl HostInode {
    pub(super) fn new(
        tree: Arc<Tree>,
        fd: OwnedFd,
        stat: &Stat,
        parent: Option<&HostInode>,
        record: Record,
    ) -> Result<HostInode> {
        let same = parent.filter(|p| p.id.dev == stat.id.dev);
        let sealed = parent.is_some() && same.is_none() && is_kernel_interface(fd.as_fd());
        let dev = same.map_or_else(|| tree.guest_dev(stat.id.dev), |p| p.dev);
        let mut inode = HostInode {
            kind: FileType::from_mode(stat.mode).ok_or(Errno::EIO)?,
            tree,
            fd,
            id: stat.id,
            dev,
            sealed,
            version: AtomicU32::new(0),
            known: Mutex::default(),
            stream: Mutex::new(None),
            nodes: AtomicU8::new(0),
            watched: RwLock::new(None),
            asked: AtomicU32::new(0),
        };
        if inode.kind == FileType::Regular && stat.size == 0 {
            let meta = match record {
                Record::Unknown => inode.load_meta(stat)?,
                Record::None => None,
            };
            if let Some(kind) = meta.and_then(|m| FileType::from_mode(m.mode)) {
                // Only nodes that hold nothing themselves have stand-ins.
                if !matches!(kind, FileType::Directory | FileType::Symlink) {
                    inode.kind = kind;
                }
            }
            inode.known.get_mut().meta = Some((stat.ctime, meta));
        }
        Ok(inode)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A regular file of the host shown as another type.
    fn is_stand_in(&self, stat: &Stat) -> bool {
        self.kind as u32 != stat.mode & libc::S_IFMT
    }

    fn directory(&self) -> Result<BorrowedFd<'_>> {
        if self.kind == FileType::Directory {
            Ok(self.fd())
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// The directory for a change of its entries.
    fn changing(&self) -> Result<BorrowedFd<'_>> {
        self.tree.check_writable()?;
        if self.sealed {
            return Err(Errno::EPERM);
        }
        self.directory()
    }

    fn child(&self, name: &[u8]) -> Result<(Arc<HostInode>, Stat)> {
        let fd = sys::open_component(self.directory()?, name)?;
        let stat = sys::stat(fd.as_fd(), b"")?;
        let inode = self
            .tree
            .instantiate(fd, &stat, Some(self), Record::Unknown)?;
        Ok((inode, stat))
    }

    /// The inode of the name just made, with owner and mode set.
    fn made(&self, name: &[u8], kind: FileType, new: NewNode) -> Result<Arc<dyn Inode>> {
        let (inode, stat) = self.child(name)?;
        // In a shared tree somebody may have put another node there meanwhile: do not chown that.
        let ours = || {
            inode.kind == kind
                && stat.uid == nix::unistd::geteuid().as_raw()
                && (stat.nlink == 1 || kind == FileType::Directory)
        };
        if self.tree.options.shared && !ours() {
            return Err(Errno::ESTALE);
        }
        inode.adopt(&stat, new, stat.rdev)?;
        Ok(inode)
    }

    /// The inode of a regular file just made, given a descriptor of it.
    fn made_file(&self, fd: &OwnedFd, new: NewNode) -> Result<Arc<dyn Inode>> {
        let stat = sys::stat(fd.as_fd(), b"")?;
        let path = self.tree.reopen(fd.as_fd())?;
        let inode = self
            .tree
            .instantiate(path, &stat, Some(self), Record::None)?;
        inode.adopt(&stat, new, 0)?;
        Ok(inode)
    }

    fn real_mode(&self, host_type: u32, new: NewNode) -> Mode {
        Mode::from_bits_retain(self.tree.real_mode(host_type, new.mode))
    }

    /// Makes an empty regular file that stands in for a node of type `kind`: complete before it gets
    /// its name, so that nobody sees it as a file.
    fn stand_in(&self, name: &[u8], kind: FileType, rdev: u64, new: NewNode) -> Result<()> {
        let dir = self.changing()?;
        let mode = self.tree.real_mode(libc::S_IFREG, new.mode);
        let record = Meta {
            mode: kind as u32 | new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            rdev,
        };
        self.mark_nodes();
        let name = sys::c_name(name)?;
        match sys::open_at(dir, c".", libc::O_TMPFILE | libc::O_RDWR, mode) {
            Ok(file) => {
                let stat = sys::stat(file.as_fd(), b"")?;
                self.tree
                    .store_meta(file.as_fd(), &stat, Some(record), false)?;
                let path = FdPath::new(file.as_fd());
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(
                    &self.tree.proc_fd,
                    path.number(),
                    dir,
                    name.as_c_str(),
                    follow,
                )
            }
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                let temp = sys::c_name(&self.tree.temp_name())?;
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_NOFOLLOW;
                let file = sys::open_at(dir, &temp, flags, mode)?;
                let stat = sys::stat(file.as_fd(), b"")?;
                let no_replace = RenameFlags::RENAME_NOREPLACE;
                self.tree
                    .store_meta(file.as_fd(), &stat, Some(record), false)
                    .and_then(|()| renameat2(dir, &*temp, dir, &*name, no_replace))
                    .inspect_err(|_| {
                        let _ = unlinkat(dir, &*temp, UnlinkatFlags::NoRemoveDir);
                    })
            }
            Err(e) => Err(e),
        }
    }

    /// What `stamp` says of the watch on this directory. Without a watch, one is made once it is worth it.
    fn told(&self, stamp: impl FnOnce(&Directory) -> Option<u64>) -> Option<u64> {
        if !self.tree.options.shared || self.sealed || self.kind != FileType::Directory {
            return None;
        }
        if let Some(directory) = self.watched.read().as_deref().filter(|d| d.is_live()) {
            return stamp(directory);
        }
        if self.asked.load(Ordering::Relaxed) == NEVER {
            return None;
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) % OFTEN == OFTEN - 1 {
            if !changes::tells(self.fd()) {
                self.asked.store(NEVER, Ordering::Relaxed);
                return None;
            }
            let mut watched = self.watched.write();
            if !watched.as_ref().is_some_and(|d| d.is_live()) {
                *watched = self.tree.changes.watch(self.fd());
            }
        }
        None
    }

    /// A number that stays the same as long as the attributes of this directory do; `None` if nobody would tell.
    pub(super) fn own_stamp(&self) -> Option<u64> {
        let changes = &self.tree.changes;
        self.told(|directory| changes.catch_up().then(|| changes.own_stamp(directory)))
    }

    /// The attributes shown, given a fresh `stat` that was taken at `version`.
    fn attr_from(&self, stat: &Stat, version: u32) -> Result<Attr> {
        let mut known = self.known.lock();
        let meta = self.shown(&mut known, stat)?;
        if !self.tree.options.shared && self.version.load(Ordering::Acquire) == version {
            known.owner = Some((None, (meta.mode, meta.uid, meta.gid)));
        }
        drop(known);
        Ok(Attr {
            dev: self.dev,
            ino: stat.id.ino,
            mode: meta.mode,
            nlink: stat.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev: meta.rdev,
            size: stat.size,
            blksize: stat.blksize,
            blocks: stat.blocks,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.btime,
        })
    }

    fn open_host(&self, flags: i32) -> Result<OwnedFd> {
        let path = FdPath::new(self.fd());
        let flags = flags & OPEN_FLAGS | libc::O_NOCTTY;
        match sys::open_at(self.tree.proc_fd.as_fd(), path.number(), flags, 0) {
            // The guest may leave the access time alone; the supervisor may not, and need not.
            Err(Errno::EPERM) if flags & libc::O_NOATIME != 0 => {
                let flags = flags & !libc::O_NOATIME;
                sys::open_at(self.tree.proc_fd.as_fd(), path.number(), flags, 0)
            }
            other => other,
        }
    }

    fn set_size(&self, size: u64) -> Result<()> {
        match self.kind {
            FileType::Regular => (),
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
        crate::counted::truncate(FdPath::new(self.fd()).full(), size)
    }
}

impl Drop for HostInode {
    fn drop(&mut self) {
        self.tree.forget(self.id);
        if let Some(directory) = self.watched.get_mut().take() {
            self.tree.changes.unwatch(&directory);
        }
        if self.stream.get_mut().is_some() {
            self.tree.streams.fetch_sub(1, Ordering::Relaxed);
        }
        if self.tree.memory_len.load(Ordering::Acquire) != 0
            && sys::stat(self.fd(), b"").is_ok_and(|stat| stat.nlink == 0)
        {
            self.tree.remember(self.id, None, None);
        }
    }
}

impl Inode for HostInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn attr(&self) -> Result<Attr> {
        let version = self.version.load(Ordering::Acquire);
        let stat = sys::stat(self.fd(), b"")?;
        self.attr_from(&stat, version)
    }

    fn links_and_blocks(&self) -> Result<(u32, u64)> {
        let stat = sys::stat(self.fd(), b"")?;
        Ok((stat.nlink, stat.blocks))
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        let told = self.own_stamp();
        {
            let known = self.known.lock();
            match known.owner {
                Some((at, owner)) if !self.tree.options.shared || at.is_some() && at == told => {
                    return Ok(owner);
                }
                _ => (),
            }
        }
        let attr = self.attr()?;
        let owner = (attr.mode, attr.uid, attr.gid);
        if told.is_some() {
            self.known.lock().owner = Some((told, owner));
        }
        Ok(owner)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        self.tree.check_writable()?;
        if self.sealed {
            return Err(Errno::EPERM);
        }
        if let Some(size) = changes.size {
            self.set_size(size)?;
        }
        if changes.mode.is_some() || changes.uid.is_some() || changes.gid.is_some() {
            let mut known = self.known.lock();
            let stat = sys::stat(self.fd(), b"")?;
            let now = self.shown(&mut known, &stat)?;
            let perm = match changes.mode {
                Some(_) if self.kind == FileType::Symlink => return Err(Errno::EOPNOTSUPP),
                Some(mode) => mode & 0o7777,
                None => now.mode & 0o7777,
            };
            let want = Meta {
                mode: self.kind as u32 | perm,
                uid: changes.uid.unwrap_or(now.uid),
                gid: changes.gid.unwrap_or(now.gid),
                rdev: now.rdev,
            };
            self.apply(&mut known, &stat, want)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let path = FdPath::new(self.fd());
            let proc_fd = self.tree.proc_fd.as_fd();
            sys::set_times(proc_fd, path.number(), changes.atime, changes.mtime)?;
        }
        Ok(())
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        if self.sealed {
            return Err(Errno::ENOENT);
        }
        Ok(self.child(name)?.0)
    }

    fn revalidate(&self, name: &[u8], child: Option<&dyn Inode>) -> bool {
        if self.sealed {
            return child.is_none();
        }
        let found = sys::stat(self.fd(), name);
        match child.map(|c| c.as_any().downcast_ref::<HostInode>()) {
            None => matches!(found, Err(Errno::ENOENT)),
            Some(Some(known)) => found.is_ok_and(|stat| stat.id == known.id),
            Some(None) => false,
        }
    }

    fn stamp(&self, name: &[u8]) -> Option<u64> {
        let changes = &self.tree.changes;
        self.told(|directory| changes.stamp(directory, self.fd(), name))
    }

    fn revalidate_attr(&self, name: &[u8], child: &dyn Inode) -> Option<Attr> {
        let child = child.as_any().downcast_ref::<HostInode>()?;
        if self.sealed {
            return None;
        }
        let version = child.version.load(Ordering::Acquire);
        let stat = sys::stat(self.fd(), name).ok()?;
        if stat.id != child.id {
            return None;
        }
        child.attr_from(&stat, version).ok()
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.directory()?;
        self.list(cookie, sink)
    }

    fn create(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        let dir = self.changing()?;
        let mode = self.tree.real_mode(libc::S_IFREG, new.mode);
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY | libc::O_NOFOLLOW;
        let file = sys::open_at(dir, &sys::c_name(name)?, flags, mode)?;
        self.made_file(&file, new)
    }

    fn tmpfile(&self, new: NewNode) -> Result<Arc<dyn Inode>> {
        let dir = self.changing()?;
        let mode = self.tree.real_mode(libc::S_IFREG, new.mode);
        let file = sys::open_at(dir, c".", libc::O_TMPFILE | libc::O_RDWR, mode)?;
        self.made_file(&file, new)
    }

    fn mkdir(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        mkdirat(self.changing()?, name, self.real_mode(libc::S_IFDIR, new))?;
        self.made(name, FileType::Directory, new)
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        symlinkat(target, self.changing()?, name)?;
        self.made(name, FileType::Symlink, new)
    }

    fn mknod(
        &self,
        name: &[u8],
        kind: FileType,
        rdev: u64,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        let dir = self.changing()?;
        let real = match kind {
            FileType::Fifo => mkfifoat(dir, name, self.real_mode(libc::S_IFIFO, new)),
            FileType::Socket => mknodat(
                dir,
                name,
                SFlag::S_IFSOCK,
                self.real_mode(libc::S_IFSOCK, new),
                0,
            ),
            // The whiteout of overlayfs, which every user may make since Linux 5.8.
            FileType::CharDevice if rdev == 0 => mknodat(
                dir,
                name,
                SFlag::S_IFCHR,
                self.real_mode(libc::S_IFCHR, new),
                0,
            ),
            FileType::CharDevice | FileType::BlockDevice => Err(Errno::EPERM),
            FileType::Regular => return self.create(name, new),
            FileType::Directory | FileType::Symlink => return Err(Errno::EINVAL),
        };
        match real {
            Ok(()) => self.made(name, kind, new),
            Err(Errno::EPERM | Errno::EOPNOTSUPP) => {
                self.stand_in(name, kind, rdev, new)?;
                let (inode, stat) = self.child(name)?;
                if inode.kind != kind {
                    return Err(Errno::ESTALE);
                }
                inode.adopt(&stat, new, rdev)?;
                Ok(inode)
            }
            Err(e) => Err(e),
        }
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let dir = self.changing()?;
        let target = target
            .as_any()
            .downcast_ref::<HostInode>()
            .ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.tree, &target.tree) {
            return Err(Errno::EXDEV);
        }
        if target.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        if target.kind != FileType::Regular {
            let stat = sys::stat(target.fd(), b"")?;
            if target.is_stand_in(&stat) {
                self.mark_nodes();
            }
        }
        let path = FdPath::new(target.fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        linkat(
            &self.tree.proc_fd,
            path.number(),
            dir,
            &*sys::c_name(name)?,
            follow,
        )
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        unlinkat(self.changing()?, name, UnlinkatFlags::NoRemoveDir)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        unlinkat(self.changing()?, name, UnlinkatFlags::RemoveDir)
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: u32) -> Result<()> {
        let from = self.changing()?;
        let new_dir = new_dir
            .as_any()
            .downcast_ref::<HostInode>()
            .ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.tree, &new_dir.tree) {
            return Err(Errno::EXDEV);
        }
        let to = new_dir.changing()?;
        if self.has_nodes() {
            new_dir.mark_nodes();
        }
        if flags & libc::RENAME_EXCHANGE != 0 && new_dir.has_nodes() {
            self.mark_nodes();
        }
        renameat2(from, old, to, new, RenameFlags::from_bits_retain(flags))
    }

    fn readlink(&self, _caller: &dyn Caller) -> Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        Ok(readlinkat(self.fd(), c"")?.into_vec())
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        match self.kind {
            FileType::Regular if writes => self.tree.check_writable()?,
            FileType::Regular => (),
            FileType::Directory => return Err(Errno::EISDIR),
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Socket => return Err(Errno::ENXIO),
            FileType::Fifo => {
                if self.is_stand_in(&sys::stat(self.fd(), b"")?) {
                    return Err(Errno::ENXIO);
                }
            }
            FileType::CharDevice | FileType::BlockDevice => {
                let rdev = self.attr()?.rdev;
                let fd = crate::dev::open_device(self.kind, rdev, flags, caller)?;
                return Ok(OpenedFile { fd, backing: None });
            }
        }
        Ok(OpenedFile {
            fd: self.open_host(flags)?,
            backing: Some(self.id),
        })
    }

    fn bind_socket(
        &self,
        name: &[u8],
        binding: &Binding<'_>,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        let dir = self.changing()?;
        let prefix = FdPath::new(dir).full().to_bytes().to_vec();
        let address = |name: &[u8]| UnixAddr::new(&[&prefix, b"/".as_slice(), name].concat()[..]);
        let socket = binding.socket.as_raw_fd();
        let named = if binding.is_flat() && binding.name() == name {
            binding.bind_in(dir)
        } else {
            Err(Errno::EPERM)
        };
        match named {
            // The name that the kernel knows is then Duet's.
            Err(Errno::EPERM) if prefix.len() + 1 + name.len() <= SUN_PATH_MAX => {
                bind(socket, &address(name)?)?;
            }
            Err(Errno::EPERM) => {
                let temp = self.tree.temp_name();
                bind(socket, &address(&temp)?)?;
                let no_replace = RenameFlags::RENAME_NOREPLACE;
                renameat2(dir, &temp[..], dir, name, no_replace).map_err(|e| {
                    let _ = unlinkat(dir, &temp[..], UnlinkatFlags::NoRemoveDir);
                    match e {
                        Errno::EEXIST => Errno::EADDRINUSE,
                        e => e,
                    }
                })?;
            }
            named => named?,
        }
        self.made(name, FileType::Socket, new)
    }

    fn host_path(&self) -> Result<OwnedFd> {
        match self.kind {
            FileType::Socket | FileType::Regular | FileType::Directory => sys::duplicate(&self.fd),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.xattr_get(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.xattr_set(name, value, flags)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.xattr_list()
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.xattr_remove(name)
    }
}
