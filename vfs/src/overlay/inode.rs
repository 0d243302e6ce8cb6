//! The inodes of an overlay.

use std::any::Any;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::copy_up::Data;
use super::listing::Listing;
use super::stack::LowerDir;
use super::{Layers, address, marks};
use crate::inode::{Caller, Inode, Layer, OpenedFile};
use crate::types::*;
use crate::unix::Binding;
use crate::watch::{Arrival, Budget, Departure, Place};

/// Where a node's lower part is.
pub(super) enum Origin {
    /// Under this name of the lower part of `parent`. A node without an upper part is at this place of
    /// the overlay too: it is copied up before it is moved.
    Under {
        parent: Arc<OverlayInode>,
        name: Vec<u8>,
    },
    /// At this path from the roots of the lower trees.
    Path(Vec<u8>),
}

/// What an inode with an upper part is made of.
pub(super) struct Parts {
    pub(super) upper: Arc<dyn Inode>,
    pub(super) lower: Vec<LowerDir>,
    pub(super) origin: Option<Origin>,
    /// The lower part is under another name: listings tell the number of the upper part.
    pub(super) moved: bool,
}

impl Parts {
    /// An upper inode with nothing below it.
    pub(super) fn alone(upper: Arc<dyn Inode>) -> Parts {
        Parts {
            upper,
            lower: Vec::new(),
            origin: None,
            moved: false,
        }
    }
}

/// A node of an overlay.
pub struct OverlayInode {
    pub(super) layers: Arc<Layers>,
    this: Weak<OverlayInode>,
    pub(super) kind: FileType,
    /// The upper part, once there is one.
    upper: RwLock<Option<Arc<dyn Inode>>>,
    /// The lower parts, topmost first; more than one only of a directory.
    pub(super) lower: Vec<LowerDir>,
    pub(super) origin: Option<Origin>,
    /// The lower part of a directory is under another name.
    moved: bool,
    /// The inode number from before the copy-up, 0 if that of the topmost part holds.
    ino: AtomicU64,
    /// The name is gone while the node had no upper part (or it is a directory removed).
    pub(super) detached: AtomicBool,
    /// Held while the node is copied up.
    pub(super) copying: Mutex<()>,
    /// Of a directory: held to look names up, exclusively to change them.
    pub(super) names: RwLock<()>,
    /// Of a directory: the children that have, or had when they were found, no upper part.
    pub(super) children: Mutex<HashMap<Vec<u8>, Weak<OverlayInode>>>,
    /// Of a directory with lower parts: its entries, once they have been read.
    pub(super) listing: Mutex<Option<Listing>>,
}

/// Locks the names of several directories for change.
pub(super) fn lock_all<'a>(dirs: &[&'a OverlayInode]) -> Vec<RwLockWriteGuard<'a, ()>> {
    let mut dirs = dirs.to_vec();
    dirs.sort_unstable_by_key(|dir| std::ptr::from_ref(*dir) as usize);
    dirs.dedup_by(|a, b| std::ptr::eq(*a, *b));
    dirs.into_iter().map(|dir| dir.names.write()).collect()
}

impl OverlayInode {
    /// A node without an upper part: `name` of `parent`.
    fn new_lower(
        parent: Arc<OverlayInode>,
        name: &[u8],
        lower: Vec<LowerDir>,
    ) -> Result<Arc<Self>> {
        let kind = lower.first().ok_or(Errno::EIO)?.dir.kind();
        let layers = parent.layers.clone();
        let name = name.to_vec();
        let origin = Some(Origin::Under { parent, name });
        Ok(OverlayInode::new(layers, kind, None, lower, origin, false))
    }

    /// A node with an upper part.
    pub(super) fn new_upper(layers: Arc<Layers>, parts: Parts) -> Arc<OverlayInode> {
        let Parts {
            upper,
            lower,
            origin,
            moved,
        } = parts;
        OverlayInode::new(layers, upper.kind(), Some(upper), lower, origin, moved)
    }

    fn new(
        layers: Arc<Layers>,
        kind: FileType,
        upper: Option<Arc<dyn Inode>>,
        lower: Vec<LowerDir>,
        origin: Option<Origin>,
        moved: bool,
    ) -> Arc<OverlayInode> {
        Arc::new_cyclic(|this| OverlayInode {
            layers,
            this: this.clone(),
            kind,
            upper: RwLock::new(upper),
            lower,
            origin,
            moved,
            ino: AtomicU64::new(0),
            detached: AtomicBool::new(false),
            copying: Mutex::new(()),
            names: RwLock::new(()),
            children: Mutex::default(),
            listing: Mutex::new(None),
        })
    }

    /// This inode as a counted reference (`None` only while it is dropped).
    pub(super) fn this(&self) -> Option<Arc<OverlayInode>> {
        self.this.upgrade()
    }

    pub(super) fn upper(&self) -> Option<Arc<dyn Inode>> {
        self.upper.read().clone()
    }

    /// The part that shows.
    pub(super) fn top(&self) -> Result<Arc<dyn Inode>> {
        if let Some(upper) = self.upper() {
            return Ok(upper);
        }
        self.lower
            .first()
            .map(|lower| lower.dir.clone())
            .ok_or(Errno::EIO)
    }

    /// Gives the node its upper part; `before` are the attributes of the lower one.
    pub(super) fn set_upper(&self, upper: Arc<dyn Inode>, before: &Attr) {
        self.ino
            .store(self.layers.ino(before.dev, before.ino), Ordering::Release);
        let key = address(&upper);
        *self.upper.write() = Some(upper);
        self.layers.by_upper.lock().insert(key, self.this.clone());
    }

    /// The inode of the lower node `name`: the one there is, or a new one.
    pub(super) fn instantiate_lower(
        &self,
        name: &[u8],
        lower: Vec<LowerDir>,
    ) -> Result<Arc<OverlayInode>> {
        let top = lower.first().ok_or(Errno::EIO)?.dir.clone();
        let parent = self.this().ok_or(Errno::ENOENT)?;
        let new = OverlayInode::new_lower(parent, name, lower)?;
        // Declared before the guard, hence dropped after it: dropping an inode takes the lock.
        let known;
        let mut children = self.children.lock();
        known = children.get(name).and_then(Weak::upgrade);
        if let Some(known) = &known
            && known
                .lower
                .first()
                .is_some_and(|l| address(&l.dir) == address(&top))
        {
            return Ok(known.clone());
        }
        children.insert(name.to_vec(), Arc::downgrade(&new));
        Ok(new)
    }

    /// Notes that `name` no longer leads to the node without an upper part that it led to.
    pub(super) fn detach(&self, name: &[u8]) {
        let child = self.children.lock().remove(name);
        if let Some(child) = child.as_ref().and_then(Weak::upgrade) {
            child.detached.store(true, Ordering::Release);
        }
    }

    /// The path of the lower part from the roots of the lower trees, without a leading slash.
    pub(super) fn lower_path(&self) -> Result<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = self;
        loop {
            match &at.origin {
                Some(Origin::Under { parent, name }) => {
                    names.push(name);
                    at = parent;
                }
                Some(Origin::Path(path)) => {
                    if !path.is_empty() {
                        names.push(path);
                    }
                    names.reverse();
                    return Ok(names.join(&b'/'));
                }
                None => return Err(Errno::EXDEV),
            }
        }
    }

    /// Sets the inode number shown, unless it is set.
    pub(super) fn fix_number(&self, ino: u64) {
        let _ = self
            .ino
            .compare_exchange(0, ino, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The inode number shown, given the attributes of the topmost part.
    fn number(&self, top: &Attr) -> Result<u64> {
        let fixed = self.ino.load(Ordering::Acquire);
        if fixed != 0 {
            return Ok(fixed);
        }
        // A merged directory keeps the number that it had before it was copied up.
        if let Some(lower) = self.lower.first()
            && !self.moved
            && self.upper.read().is_some()
        {
            let attr = lower.dir.attr()?;
            let ino = self.layers.ino(attr.dev, attr.ino);
            self.fix_number(ino);
            return Ok(ino);
        }
        Ok(self.layers.ino(top.dev, top.ino))
    }

    /// The overlay inode behind a trait object, if it belongs to the same overlay.
    pub(super) fn of_same_overlay<'a>(
        &self,
        inode: &'a Arc<dyn Inode>,
    ) -> Result<&'a OverlayInode> {
        let other = inode
            .as_any()
            .downcast_ref::<OverlayInode>()
            .ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&self.layers, &other.layers) {
            Ok(other)
        } else {
            Err(Errno::EXDEV)
        }
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        if let Some(upper) = self.upper.get_mut() {
            let key = address(upper);
            let mut by_upper = self.layers.by_upper.lock();
            if by_upper
                .get(&key)
                .is_some_and(|known| known.strong_count() == 0)
            {
                by_upper.remove(&key);
            }
        }
        // Ancestors that go with this one are dropped in a loop: a tree may be deeper than the stack.
        let mut origin = self.origin.take();
        while let Some(Origin::Under { parent, name }) = origin {
            let mut children = parent.children.lock();
            if children
                .get(&name)
                .is_some_and(|known| known.strong_count() == 0)
            {
                children.remove(&name);
            }
            drop(children);
            origin = Arc::into_inner(parent).and_then(|mut parent| parent.origin.take());
        }
    }
}

impl Inode for OverlayInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn layer(&self) -> Layer {
        let upper = self.upper().is_some();
        match self.lower.first() {
            Some(_) if self.kind == FileType::Directory && (upper || self.lower.len() > 1) => {
                Layer::Merged
            }
            Some(lower) if !upper => Layer::Lower(lower.layer),
            _ => Layer::Upper,
        }
    }

    fn attr(&self) -> Result<Attr> {
        let upper = self.upper();
        let mut attr = match &upper {
            Some(upper) => upper.attr()?,
            None => self.top()?.attr()?,
        };
        attr.ino = self.number(&attr)?;
        attr.dev = self.layers.dev;
        if self.kind == FileType::CharDevice && attr.rdev == marks::NO_WHITEOUT {
            attr.rdev = 0;
        }
        if self.kind == FileType::Directory {
            // Nobody counts the subdirectories of merged directories; 1 says so (as overlayfs does).
            if self.lower.len() + usize::from(upper.is_some()) > 1 {
                attr.nlink = 1;
            }
        } else if upper.is_none() && self.detached.load(Ordering::Acquire) {
            attr.nlink = attr.nlink.saturating_sub(1);
        }
        Ok(attr)
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        self.top()?.owner()
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        let data = match (changes.size, self.kind) {
            (Some(_), FileType::Directory) => return Err(Errno::EISDIR),
            (Some(0), _) => Data::Drop,
            _ => Data::Keep,
        };
        self.copy_up(data)?.set_attr(changes)
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        let _names = self.names.read();
        Ok(self.child(name)?.ok_or(Errno::ENOENT)?)
    }

    fn revalidate(&self, name: &[u8], child: Option<&dyn Inode>) -> bool {
        let _names = self.names.read();
        match (self.child(name), child) {
            (Ok(None), None) => true,
            (Ok(Some(found)), Some(known)) => {
                std::ptr::addr_eq(Arc::as_ptr(&found), std::ptr::from_ref(known))
            }
            _ => false,
        }
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.list(cookie, sink)
    }

    fn create(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |dir, name| dir.create(name, new))
    }

    fn tmpfile(&self, new: NewNode) -> Result<Arc<dyn Inode>> {
        let upper = self.layers.work.tmpfile(new)?;
        Ok(self.layers.instantiate_upper(Parts::alone(upper)))
    }

    fn mkdir(&self, name: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |dir, name| dir.mkdir(name, new))
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |dir, name| dir.symlink(name, target, new))
    }

    fn mknod(
        &self,
        name: &[u8],
        kind: FileType,
        rdev: u64,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        let whiteout = kind == FileType::CharDevice && rdev == 0;
        let rdev = if whiteout { marks::NO_WHITEOUT } else { rdev };
        self.make(name, |dir, name| dir.mknod(name, kind, rdev, new))
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = self.of_same_overlay(target)?;
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if target.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        let upper = target.copy_up(Data::Keep)?;
        self.make(name, |dir, name| {
            dir.link(name, &upper).map(|()| upper.clone())
        })
        .map(drop)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove_name(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove_directory(name)
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: u32) -> Result<()> {
        self.rename_to(old, self.of_same_overlay(new_dir)?, new, flags)
    }

    fn readlink(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.top()?.readlink(caller)
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        let truncates = flags & libc::O_TRUNC != 0;
        let writes = truncates || flags & libc::O_ACCMODE != libc::O_RDONLY;
        match self.kind {
            FileType::Regular if writes => {
                let data = if truncates { Data::Drop } else { Data::Keep };
                self.copy_up(data)?.open(flags, caller)
            }
            // The FIFO of a lower tree may have another end outside: the guest gets one of its own.
            FileType::Fifo => self.copy_up(Data::Keep)?.open(flags, caller),
            _ => self.top()?.open(flags, caller),
        }
    }

    fn bind_socket(
        &self,
        name: &[u8],
        binding: &Binding<'_>,
        new: NewNode,
    ) -> Result<Arc<dyn Inode>> {
        self.make(name, |dir, name| dir.bind_socket(name, binding, new))
            .map_err(|e| {
                if e == Errno::EEXIST {
                    Errno::EADDRINUSE
                } else {
                    e
                }
            })
    }

    fn host_path(&self) -> Result<OwnedFd> {
        match self.upper() {
            Some(upper) => upper.host_path(),
            // Whoever listens on the socket of a lower tree is outside.
            None if self.kind == FileType::Socket => Err(Errno::ECONNREFUSED),
            None => self.top()?.host_path(),
        }
    }

    fn watched_path(&self) -> Result<OwnedFd> {
        /// Larger files are watched where they are, and tell nothing of what is written to their copy.
        const MOST: u64 = 64 << 20;
        match self.kind {
            FileType::Directory => Err(Errno::EOPNOTSUPP),
            FileType::Regular if self.upper().is_none() && self.attr()?.size <= MOST => {
                self.copy_up(Data::Keep)?.watched_path()
            }
            _ => self.host_path(),
        }
    }

    fn arrive(&self, at: &Place, how: Arrival, budget: Option<&Budget>) -> Result<bool> {
        let upper = match self.upper() {
            Some(upper) => upper,
            None if budget.is_some_and(|b| self.attr().is_ok_and(|a| b.take(a.size))) => {
                self.copy_up(Data::Keep)?
            }
            None => return Ok(false),
        };
        upper.arrive(at, how, budget)
    }

    fn depart(&self, from: &Place, how: Departure) -> Result<bool> {
        self.upper().map_or(Ok(false), |u| u.depart(from, how))
    }

    fn relocate(&self, from: &Place, to: &Place) {
        if let Some(upper) = self.upper() {
            upper.relocate(from, to);
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.top()?.get_xattr(&marks::escape(name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.copy_up(Data::Keep)?
            .set_xattr(&marks::escape(name), value, flags)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        let names = self.top()?.list_xattr()?;
        Ok(names.into_iter().filter_map(marks::unescape).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let name = marks::escape(name);
        if self.upper().is_none() {
            self.top()?.get_xattr(&name)?;
        }
        self.copy_up(Data::Keep)?.remove_xattr(&name)
    }
}
