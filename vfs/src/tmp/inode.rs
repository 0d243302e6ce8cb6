//! The inodes of a [`super::TmpFs`].

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::content::{Content, Serial};
use super::dir::Dir;
use super::{Shared, now};
use crate::host_call;
use crate::inode::{Caller, Inode, OpenedFile};
use crate::types::*;
use crate::unix::Binding;
use crate::watch::{Arrival, Budget, Departure, Place};

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Most bytes of extended attributes of one inode.
const XATTRS_MAX: usize = 65536;
/// What a directory entry adds to a directory's size (`BOGO_DIRENT_SIZE` of the kernel's tmpfs).
const DIRENT_SIZE: u64 = 20;
/// Entries taken from a directory under its lock at a time.
const READ_BATCH: usize = 64;

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
    btime: Timespec,
    xattrs: Option<Box<Xattrs>>,
}

enum Data {
    Regular(Content),
    Directory(RwLock<Dir>),
    Symlink(Box<[u8]>),
    Device(u64),
    /// A FIFO or socket of the host.
    Node(Serial),
}

/// An inode of a [`super::TmpFs`].
pub struct TmpInode {
    fs: Arc<Shared>,
    me: Weak<TmpInode>,
    ino: u64,
    kind: FileType,
    meta: RwLock<Meta>,
    /// Whether somebody knows its times.
    dated: AtomicBool,
    data: Data,
}

/// What a name in a directory takes of the allowance: itself, and its entry in the table.
fn cost(name: &[u8]) -> usize {
    const ENTRY: usize = 64;
    name.len() + ENTRY
}

impl TmpInode {
    pub(super) fn directory(fs: &Arc<Shared>, new: NewNode) -> Result<Arc<TmpInode>> {
        let data = Data::Directory(RwLock::default());
        TmpInode::new(fs, FileType::Directory, data, new)
    }

    fn new(fs: &Arc<Shared>, kind: FileType, data: Data, new: NewNode) -> Result<Arc<TmpInode>> {
        let taken = fs.take_inode();
        if let Err(e) = taken {
            if let Data::Node(serial) = data {
                serial.unlink(&fs.files);
            }
            return Err(e);
        }
        let now = now();
        Ok(Arc::new_cyclic(|me| TmpInode {
            fs: fs.clone(),
            me: me.clone(),
            ino: fs.next_ino.fetch_add(1, Ordering::Relaxed),
            kind,
            meta: RwLock::new(Meta {
                mode: new.mode & 0o7777,
                uid: new.uid,
                gid: new.gid,
                nlink: if kind == FileType::Directory { 2 } else { 1 },
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                xattrs: None,
            }),
            dated: AtomicBool::new(false),
            data,
        }))
    }

    fn dir(&self) -> Result<&RwLock<Dir>> {
        match &self.data {
            Data::Directory(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<Arc<TmpInode>> {
        let node = inode.as_any().downcast_ref::<TmpInode>();
        node.and_then(|n| n.me.upgrade()).ok_or(Errno::EXDEV)
    }

    fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Times that a host file is to have that is made for the contents; `None` if it may have its own: the kernel
    /// stamps files better than anybody else could, so that what is made later never looks older.
    fn times(&self) -> Option<(Timespec, Timespec)> {
        const JUST_NOW: i64 = 20_000_000;
        let meta = self.meta.read();
        let now = now();
        let age = (now.sec - meta.mtime.sec) * 1_000_000_000 + i64::from(now.nsec)
            - i64::from(meta.mtime.nsec);
        let own = !self.dated.load(Ordering::Relaxed) && (0..JUST_NOW).contains(&age);
        (!own).then_some((meta.atime, meta.mtime))
    }

    /// Adds a node made by `make` under a free name.
    fn add(
        &self,
        name: &[u8],
        make: impl FnOnce() -> Result<Arc<TmpInode>>,
    ) -> Result<Arc<dyn Inode>> {
        let dir = self.dir()?;
        {
            let dir = dir.read();
            dir.alive()?;
            if dir.get(name).is_some() {
                return Err(Errno::EEXIST);
            }
        }
        // Made outside the lock, as it may take host calls; if it comes too late, it goes unused.
        let node = make()?;
        self.enter(name, &node)?;
        Ok(node)
    }

    fn enter(&self, name: &[u8], node: &Arc<TmpInode>) -> Result<()> {
        self.fs.charge(cost(name))?;
        let _names = self.fs.names.lock();
        let mut dir = self.dir()?.write();
        let free = dir.alive().and(match dir.get(name) {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        });
        if let Err(e) = free {
            self.fs.refund(cost(name));
            return Err(e);
        }
        dir.add(name, node.clone());
        drop(dir);
        self.changed(i32::from(node.is_dir()));
        Ok(())
    }

    /// Notes a change of the directory's entries, `subdirs` of them directories.
    fn changed(&self, subdirs: i32) {
        let now = now();
        let mut meta = self.meta.write();
        meta.mtime = now;
        meta.ctime = now;
        meta.nlink = meta.nlink.saturating_add_signed(subdirs);
    }

    /// Takes away one link; the contents lose their name with the last.
    fn unlinked(&self) {
        let mut meta = self.meta.write();
        meta.ctime = now();
        meta.nlink = if self.is_dir() {
            0
        } else {
            meta.nlink.saturating_sub(1)
        };
        let last = meta.nlink == 0;
        drop(meta);
        if let (true, Data::Regular(content)) = (last, &self.data) {
            content.unname(&self.fs.files);
        }
    }

    fn stamp(&self) {
        self.meta.write().ctime = now();
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.fs.return_inode();
        if let Some(xattrs) = &self.meta.get_mut().xattrs {
            self.fs.refund(size_of(xattrs));
        }
        match &mut self.data {
            Data::Regular(content) => content.dispose(&self.fs.files),
            Data::Node(serial) => serial.unlink(&self.fs.files),
            Data::Symlink(text) => self.fs.refund(text.len()),
            Data::Device(_) => (),
            Data::Directory(dir) => {
                // One by one: a guest can nest directories deeper than our stack.
                let mut todo: Vec<_> = dir.get_mut().drain().collect();
                while let Some(node) = todo.pop() {
                    if let Some(mut node) = Arc::into_inner(node)
                        && let Data::Directory(dir) = &mut node.data
                    {
                        todo.extend(dir.get_mut().drain());
                    }
                }
            }
        }
    }
}

fn size_of(xattrs: &Xattrs) -> usize {
    xattrs.iter().map(|(k, v)| k.len() + v.len()).sum()
}

impl Inode for TmpInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn attr(&self) -> Result<Attr> {
        self.dated.store(true, Ordering::Relaxed);
        let host = match &self.data {
            Data::Regular(content) => content.stat(&self.fs.files)?,
            _ => None,
        };
        let size = match &self.data {
            Data::Directory(dir) => DIRENT_SIZE * (dir.read().len() as u64 + 2),
            Data::Symlink(text) => text.len() as u64,
            _ => 0,
        };
        let meta = self.meta.read();
        let mut attr = Attr {
            dev: self.fs.dev,
            ino: self.ino,
            mode: self.kind as u32 | meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev: match self.data {
                Data::Device(rdev) => rdev,
                _ => 0,
            },
            size,
            blksize: 4096,
            blocks: 0,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: Some(meta.btime),
        };
        drop(meta);
        if let Some(stat) = host {
            let host = host_call::attr(&stat);
            attr.size = host.size;
            attr.blocks = host.blocks;
            attr.atime = host.atime;
            attr.mtime = host.mtime;
            attr.ctime = attr.ctime.max(host.ctime);
        }
        Ok(attr)
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        let meta = self.meta.read();
        Ok((self.kind as u32 | meta.mode, meta.uid, meta.gid))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        self.dated.store(true, Ordering::Relaxed);
        let now = now();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(t) => t,
        };
        let (atime, mut mtime) = (changes.atime, changes.mtime);
        if let Some(size) = changes.size {
            let Data::Regular(content) = &self.data else {
                return Err(Errno::EINVAL);
            };
            if self.fs.options.size.is_some_and(|limit| size > limit) {
                return Err(Errno::ENOSPC);
            }
            content.truncate(&self.fs.files, size, self.times())?;
            mtime = mtime.or(Some(SetTime::Now));
        }
        if let Data::Regular(content) = &self.data
            && (atime.is_some() || mtime.is_some())
        {
            content.set_times(&self.fs.files, atime, mtime)?;
        }
        let mut meta = self.meta.write();
        meta.mode = changes.mode.map_or(meta.mode, |m| m & 0o7777);
        meta.uid = changes.uid.unwrap_or(meta.uid);
        meta.gid = changes.gid.unwrap_or(meta.gid);
        meta.atime = atime.map_or(meta.atime, time);
        meta.mtime = mtime.map_or(meta.mtime, time);
        meta.ctime = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        match self.dir()?.read().get(name) {
            Some(node) => Ok(node.clone()),
            None => Err(Errno::ENOENT),
        }
    }

    fn read_dir(
        &self,
        mut cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let dir = self.dir()?;
        loop {
            let batch = dir.read().after(cookie, READ_BATCH);
            if batch.is_empty() {
                return Ok(());
            }
            for (next, (name, node)) in batch {
                cookie = next;
                let entry = DirEntry {
                    ino: node.ino,
                    kind: Some(node.kind),
                    name: name.to_vec(),
                    next,
                };
                if !sink(entry) {
                    return Ok(());
                }
            }
        }
    }

    fn create(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.add(name, || {
            let data = Data::Regular(Content::new());
            TmpInode::new(&self.fs, FileType::Regular, data, new)
        })
    }

    fn tmpfile(&self, new: NewNode) -> Result<Arc<dyn Inode>> {
        self.dir()?.read().alive()?;
        let data = Data::Regular(Content::new());
        let node = TmpInode::new(&self.fs, FileType::Regular, data, new)?;
        node.meta.write().nlink = 0;
        Ok(node)
    }

    fn mkdir(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.add(name, || TmpInode::directory(&self.fs, new))
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.add(name, || {
            self.fs.charge(target.len())?;
            let data = Data::Symlink(target.into());
            TmpInode::new(&self.fs, FileType::Symlink, data, new)
                .inspect_err(|_| self.fs.refund(target.len()))
        })
    }

    fn mknod(
        &self,
        name: &[u8],
        kind: FileType,
        rdev: u64,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        self.add(name, || {
            let data = match kind {
                FileType::CharDevice | FileType::BlockDevice => Data::Device(rdev),
                FileType::Fifo | FileType::Socket => {
                    Data::Node(Serial::make_node(&self.fs.files, kind)?)
                }
                FileType::Regular => Data::Regular(Content::new()),
                FileType::Directory | FileType::Symlink => return Err(Errno::EINVAL),
            };
            TmpInode::new(&self.fs, kind, data, new)
        })
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let node = TmpInode::of(target)?;
        if !Arc::ptr_eq(&node.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        self.enter(name, &node)?;
        let mut meta = node.meta.write();
        meta.nlink = meta.nlink.saturating_add(1);
        meta.ctime = now();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let node = {
            let _names = self.fs.names.lock();
            let mut dir = self.dir()?.write();
            if dir.get(name).ok_or(Errno::ENOENT)?.is_dir() {
                return Err(Errno::EISDIR);
            }
            dir.remove(name).ok_or(Errno::ENOENT)?
        };
        self.fs.refund(cost(name));
        self.changed(0);
        node.unlinked();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let node = {
            let _names = self.fs.names.lock();
            let mut dir = self.dir()?.write();
            {
                let mut victim = dir.get(name).ok_or(Errno::ENOENT)?.dir()?.write();
                if victim.len() != 0 {
                    return Err(Errno::ENOTEMPTY);
                }
                victim.kill();
            }
            dir.remove(name).ok_or(Errno::ENOENT)?
        };
        self.fs.refund(cost(name));
        self.changed(-1);
        node.unlinked();
        Ok(())
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: u32) -> Result<()> {
        let to = TmpInode::of(new_dir)?;
        if !Arc::ptr_eq(&to.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        // Before anything changes. An exchange keeps both names.
        let new_name = if exchange { 0 } else { cost(new) };
        self.fs.charge(new_name)?;
        let whiteout = if flags & libc::RENAME_WHITEOUT != 0 {
            let owner = NewNode {
                mode: 0,
                uid: 0,
                gid: 0,
            };
            let made = self.fs.charge(cost(old)).and_then(|()| {
                TmpInode::new(&self.fs, FileType::CharDevice, Data::Device(0), owner)
                    .inspect_err(|_| self.fs.refund(cost(old)))
            });
            Some(made.inspect_err(|_| self.fs.refund(new_name))?)
        } else {
            None
        };
        let leaves_whiteout = whiteout.is_some();
        let moved = self.rename_entry(old, &to, new, flags, whiteout);
        if leaves_whiteout && moved.is_err() {
            self.fs.refund(cost(old));
        }
        let moved = moved.inspect_err(|_| self.fs.refund(new_name))?;
        let Some((source, target)) = moved else {
            self.fs.refund(new_name);
            return Ok(());
        };
        let same_dir = std::ptr::eq(self, &*to);
        source.stamp();
        let source_dir = i32::from(source.is_dir());
        let target_dir = i32::from(target.as_ref().is_some_and(|t| t.is_dir()));
        if exchange {
            if let Some(target) = target {
                target.stamp();
            }
            let change = if same_dir { 0 } else { source_dir - target_dir };
            self.changed(-change);
            to.changed(change);
            return Ok(());
        }
        // The old name has gone, or is the whiteout's, which has paid for it. A target's is the new one.
        self.fs.refund(cost(old));
        if target.is_some() {
            self.fs.refund(new_name);
        }
        self.changed(-source_dir);
        to.changed(source_dir - target_dir);
        if let Some(target) = target {
            target.unlinked();
        }
        Ok(())
    }

    fn readlink(&self, _caller: &dyn Caller) -> Result<Vec<u8>> {
        match &self.data {
            Data::Symlink(text) => Ok(text.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        let files = &self.fs.files;
        let fd = match &self.data {
            Data::Regular(content) => return content.open(files, flags, self.times()),
            Data::Device(rdev) => crate::dev::open_device(self.kind, *rdev, flags, caller)?,
            Data::Node(serial) if self.kind == FileType::Fifo => serial.open(files, flags)?,
            Data::Node(_) => return Err(Errno::ENXIO),
            Data::Directory(_) => return Err(Errno::EISDIR),
            Data::Symlink(_) => return Err(Errno::ELOOP),
        };
        Ok(OpenedFile { fd, backing: None })
    }

    fn bind_socket(
        &self,
        name: &[u8],
        binding: &Binding<'_>,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        self.add(name, || {
            let data = Data::Node(Serial::bind(&self.fs.files, binding)?);
            TmpInode::new(&self.fs, FileType::Socket, data, new)
        })
    }

    fn host_path(&self) -> Result<OwnedFd> {
        let files = &self.fs.files;
        match &self.data {
            Data::Regular(content) => Ok(content.open(files, libc::O_PATH, self.times())?.fd),
            Data::Node(serial) => serial.open(files, libc::O_PATH),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn arrive(&self, at: &Place, how: Arrival, _budget: Option<&Budget>) -> Result<bool> {
        match &self.data {
            Data::Regular(content) => content.arrive(&self.fs.files, at, how, self.times()),
            _ => Ok(false),
        }
    }

    fn depart(&self, from: &Place, how: Departure) -> Result<bool> {
        match &self.data {
            Data::Regular(content) => content.depart(&self.fs.files, from, how),
            _ => Ok(false),
        }
    }

    fn relocate(&self, from: &Place, to: &Place) {
        if let Data::Regular(content) = &self.data {
            content.relocate(from, to);
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let meta = self.meta.read();
        let value = meta.xattrs.as_ref().and_then(|x| x.get(name));
        value.map(|v| v.to_vec()).ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let mut meta = self.meta.write();
        let xattrs = meta.xattrs.get_or_insert_default();
        let old = xattrs.get(name).map(|v| name.len() + v.len());
        if flags & libc::XATTR_CREATE != 0 && old.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & libc::XATTR_REPLACE != 0 && old.is_none() {
            return Err(Errno::ENODATA);
        }
        let size = name.len() + value.len();
        if size_of(xattrs) - old.unwrap_or(0) + size > XATTRS_MAX {
            return Err(Errno::ENOSPC);
        }
        self.fs.charge(size)?;
        xattrs.insert(name.into(), value.into());
        self.fs.refund(old.unwrap_or(0));
        meta.ctime = now();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        let meta = self.meta.read();
        let names = meta.xattrs.iter().flat_map(|x| x.keys());
        Ok(names.map(|name| name.to_vec()).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let mut meta = self.meta.write();
        let removed = meta.xattrs.as_mut().and_then(|x| x.remove(name));
        let value = removed.ok_or(Errno::ENODATA)?;
        self.fs.refund(name.len() + value.len());
        meta.ctime = now();
        Ok(())
    }
}

/// What a rename moved, and what it replaced or exchanged it with.
type Moved = (Arc<TmpInode>, Option<Arc<TmpInode>>);

impl TmpInode {
    /// The part of a rename under the lock of names; `None` if there was nothing to do.
    fn rename_entry(
        &self,
        old: &[u8],
        to: &TmpInode,
        new: &[u8],
        flags: u32,
        whiteout: Option<Arc<TmpInode>>,
    ) -> Result<Option<Moved>> {
        let _names = self.fs.names.lock();
        let (from, into) = (self.dir()?, to.dir()?);
        let source = from.read().get(old).cloned().ok_or(Errno::ENOENT)?;
        let target = {
            let into = into.read();
            into.alive()?;
            into.get(new).cloned()
        };
        if flags & libc::RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & libc::RENAME_EXCHANGE != 0 {
            let target = target.ok_or(Errno::ENOENT)?;
            from.write().replace(old, target.clone());
            into.write().replace(new, source.clone());
            return Ok(Some((source, Some(target))));
        }
        if let Some(target) = &target {
            if Arc::ptr_eq(&source, target) {
                return match whiteout {
                    // Refused rather than leave the allowance in doubt; Linux does nothing either.
                    Some(_) => Err(Errno::EEXIST),
                    None => Ok(None),
                };
            }
            match (source.is_dir(), target.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) => {
                    let mut victim = target.dir()?.write();
                    if victim.len() != 0 {
                        return Err(Errno::ENOTEMPTY);
                    }
                    victim.kill();
                }
                (false, false) => (),
            }
        }
        match whiteout {
            Some(whiteout) => from.write().replace(old, whiteout),
            None => drop(from.write().remove(old)),
        }
        let mut into = into.write();
        if target.is_some() {
            into.replace(new, source.clone());
        } else {
            into.add(new, source.clone());
        }
        Ok(Some((source, target)))
    }
}
