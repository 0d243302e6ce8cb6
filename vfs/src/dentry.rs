//! Dentries: named places in the tree of one file system, and the cache of them.
//!
//! A directory's dentry holds the dentries of those children that have been looked up (negative
//! entries too). A child holds its parent, so a dentry that anyone uses keeps its whole path. The
//! cache is bounded: a clock hand goes over the cached entries and drops those that nobody holds and
//! nobody has used since its last visit.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::inode::{BackingId, DentryPolicy, FileSystem, Inode};
use crate::types::*;

/// Longest component of a path in bytes.
pub const NAME_MAX: usize = 255;

/// The name no longer leads here (unlinked, or a name that never was, as of `O_TMPFILE`).
const UNHASHED: u8 = 1;
/// The directory has been removed: nothing can be made in it.
const DEAD: u8 = 2;
/// A file without a name that linkat(2) may give one (`O_TMPFILE` without `O_EXCL`).
const LINKABLE: u8 = 4;

struct Link {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

/// What a look-up in a file system that others change may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// On nothing: the file system is asked.
    Nothing,
    /// On what has been noted of changes, [`FileSystem::catch_up`] having been called.
    Stamps,
}

/// Whether `name` in `dir`, of a file system that others change, still leads to `child`.
fn confirm(dir: &Dentry, name: &[u8], child: Option<&Dentry>, trust: Trust) -> bool {
    let inode = &dir.inode;
    let (Trust::Stamps, Some(child)) = (trust, child) else {
        return inode.revalidate(name, child.map(|c| &*c.inode));
    };
    let stamp = inode.stamp(name);
    if stamp.is_some_and(|stamp| stamp == child.confirmed.load(Ordering::Acquire)) {
        return true;
    }
    let valid = inode.revalidate(name, Some(&*child.inode));
    if let Some(stamp) = stamp.filter(|_| valid) {
        child.confirmed.store(stamp, Ordering::Release);
    }
    valid
}

/// A cached answer to a look-up.
pub(crate) enum Child {
    Positive(Arc<Dentry>),
    /// There is no such name. The flag is the clock's "used since the last visit".
    Negative(AtomicBool),
}

/// A name in a directory and the inode behind it.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    kind: FileType,
    link: RwLock<Link>,
    children: RwLock<HashMap<Arc<[u8]>, Child>>,
    lock: Mutex<()>,
    /// Mounts that sit on this dentry, in any mount of its file system.
    mounted: AtomicU32,
    state: AtomicU8,
    used: AtomicBool,
    /// The stamp of its name ([`Inode::stamp`]) with which it was last confirmed, 0 if it has none.
    confirmed: AtomicU64,
    /// The host file last opened under this name.
    opened: Mutex<Option<BackingId>>,
}

/// Proof that a directory's `Dentry::lock` is held.
pub(crate) struct DirGuard<'a> {
    pub(crate) dir: &'a Arc<Dentry>,
    _lock: MutexGuard<'a, ()>,
}

impl Dentry {
    pub(crate) fn new(
        inode: Arc<dyn Inode>,
        parent: Option<Arc<Dentry>>,
        name: Arc<[u8]>,
    ) -> Arc<Dentry> {
        Arc::new(Dentry {
            kind: inode.kind(),
            inode,
            link: RwLock::new(Link { parent, name }),
            children: RwLock::default(),
            lock: Mutex::new(()),
            mounted: AtomicU32::new(0),
            state: AtomicU8::new(0),
            used: AtomicBool::new(true),
            confirmed: AtomicU64::new(0),
            opened: Mutex::new(None),
        })
    }

    /// A dentry whose name leads nowhere: a file of `O_TMPFILE`, or something outside the tree.
    pub(crate) fn unhashed(
        inode: Arc<dyn Inode>,
        parent: Option<Arc<Dentry>>,
        name: Arc<[u8]>,
        linkable: bool,
    ) -> Arc<Dentry> {
        let dentry = Dentry::new(inode, parent, name);
        let state = if linkable {
            UNHASHED | LINKABLE
        } else {
            UNHASHED
        };
        dentry.state.store(state, Ordering::Relaxed);
        dentry
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The inode's type.
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// The directory that holds it; `None` for the root of a file system.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.link.read().parent.clone()
    }

    /// Its name in that directory; empty for a root.
    pub fn name(&self) -> Arc<[u8]> {
        self.link.read().name.clone()
    }

    /// Parent and name, read together.
    pub(crate) fn parent_and_name(&self) -> (Option<Arc<Dentry>>, Arc<[u8]>) {
        let link = self.link.read();
        (link.parent.clone(), link.name.clone())
    }

    /// Whether the name no longer leads here.
    pub fn is_deleted(&self) -> bool {
        self.state.load(Ordering::Acquire) & UNHASHED != 0
    }

    /// Whether it is a removed directory.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.load(Ordering::Acquire) & DEAD != 0
    }

    /// How many removed directories it keeps: those it lies in, counted up to `most`.
    pub(crate) fn dead_ancestors(&self, most: usize) -> usize {
        let above = std::iter::successors(self.parent(), |d| d.parent());
        above.take_while(|d| d.is_dead()).take(most).count()
    }

    /// Whether linkat(2) may give a name to this nameless file.
    pub(crate) fn is_linkable(&self) -> bool {
        self.state.load(Ordering::Acquire) & LINKABLE != 0
    }

    pub(crate) fn mark_deleted(&self) {
        let dead = if self.kind == FileType::Directory {
            DEAD
        } else {
            0
        };
        self.state.fetch_or(UNHASHED | dead, Ordering::AcqRel);
    }

    /// Whether something is mounted here.
    pub fn is_mount_point(&self) -> bool {
        self.mounted.load(Ordering::Acquire) != 0
    }

    pub(crate) fn add_mount(&self) {
        self.mounted.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove_mount(&self) {
        self.mounted.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn lock(self: &Arc<Dentry>) -> DirGuard<'_> {
        DirGuard {
            dir: self,
            _lock: self.lock.lock(),
        }
    }

    /// Whether `self` is `other` or above it. Stable only under `Super::rename`.
    pub(crate) fn is_ancestor_of(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(other.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, self) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    pub(crate) fn set_opened(&self, id: BackingId) {
        *self.opened.lock() = Some(id);
    }

    pub(crate) fn opened(&self) -> Option<BackingId> {
        *self.opened.lock()
    }

    fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Dentry {
    /// Lets go of the ancestors one by one: a guest can nest directories deeper than our stack.
    fn drop(&mut self) {
        let mut parent = self.link.get_mut().parent.take();
        while let Some(mut dentry) = parent.and_then(Arc::into_inner) {
            parent = dentry.link.get_mut().parent.take();
        }
    }
}

/// One instance of a file system with its tree of dentries, shared by all its mounts.
pub struct Super {
    fs: Arc<dyn FileSystem>,
    policy: DentryPolicy,
    root: Arc<Dentry>,
    dev: u64,
    pub(crate) rename: Mutex<()>,
    cache: Arc<DentryCache>,
}

impl Super {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, cache: Arc<DentryCache>) -> Arc<Super> {
        Arc::new(Super {
            policy: fs.dentry_policy(),
            root: Dentry::new(fs.root(), None, Arc::from([])),
            dev: anonymous_dev(),
            fs,
            rename: Mutex::new(()),
            cache,
        })
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Its root.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// Device number for inodes that report none.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// Whether others may change it.
    pub(crate) fn is_shared(&self) -> bool {
        self.policy == DentryPolicy::Revalidate
    }

    /// What is cached of `name` in `dir`: `None` if nothing is.
    fn cached(&self, dir: &Dentry, name: &[u8], trust: Trust) -> Option<Option<Arc<Dentry>>> {
        let child = match dir.children.read().get(name)? {
            Child::Positive(dentry) => {
                dentry.touch();
                Some(dentry.clone())
            }
            Child::Negative(used) => {
                used.store(true, Ordering::Relaxed);
                None
            }
        };
        let valid = match self.policy {
            DentryPolicy::Exclusive => true,
            DentryPolicy::Revalidate => confirm(dir, name, child.as_deref(), trust),
            DentryPolicy::Never => false,
        };
        // What carries a mount stays where it is, whatever its file system says.
        (valid || child.as_ref().is_some_and(|c| c.is_mount_point())).then_some(child)
    }

    /// The child `name` of `dir` (`None`: there is none). ENAMETOOLONG and the file system's errors.
    pub(crate) fn lookup(
        &self,
        dir: &Arc<Dentry>,
        name: &[u8],
        caller: &dyn crate::Caller,
        trust: Trust,
    ) -> Result<Option<Arc<Dentry>>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if let Some(answer) = self.cached(dir, name, trust) {
            return Ok(answer);
        }
        if self.policy == DentryPolicy::Never {
            return match dir.inode.lookup(name, caller) {
                Ok(inode) => Ok(Some(Dentry::new(inode, Some(dir.clone()), Arc::from(name)))),
                Err(Errno::ENOENT) => Ok(None),
                Err(e) => Err(e),
            };
        }
        self.lookup_locked(&dir.lock(), name, caller)
    }

    /// The child `name` of `dir` that is cached, with its attributes, if that and they are had by one question to
    /// a file system that others change.
    pub(crate) fn lookup_attr(&self, dir: &Dentry, name: &[u8]) -> Option<(Arc<Dentry>, Attr)> {
        if !self.is_shared() {
            return None;
        }
        let child = match dir.children.read().get(name)? {
            Child::Positive(dentry) if !dentry.is_mount_point() => dentry.clone(),
            _ => return None,
        };
        child.touch();
        let attr = dir.inode.revalidate_attr(name, &*child.inode)?;
        Some((child, attr))
    }

    /// As [`Super::lookup`], for a caller that holds the directory's lock.
    pub(crate) fn lookup_locked(
        &self,
        guard: &DirGuard<'_>,
        name: &[u8],
        caller: &dyn crate::Caller,
    ) -> Result<Option<Arc<Dentry>>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dir = guard.dir;
        if let Some(answer) = self.cached(dir, name, Trust::Nothing) {
            return Ok(answer);
        }
        if dir.is_dead() {
            return Ok(None);
        }
        match dir.inode.lookup(name, caller) {
            Ok(inode) => Ok(Some(self.insert(guard, name, inode))),
            Err(Errno::ENOENT) => {
                self.insert_negative(guard, name);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Enters a child that has just been found or made.
    pub(crate) fn insert(
        &self,
        guard: &DirGuard<'_>,
        name: &[u8],
        inode: Arc<dyn Inode>,
    ) -> Arc<Dentry> {
        let name: Arc<[u8]> = Arc::from(name);
        let dentry = Dentry::new(inode, Some(guard.dir.clone()), name.clone());
        if self.policy != DentryPolicy::Never {
            self.hash(guard.dir, name, &dentry);
        }
        dentry
    }

    fn hash(&self, dir: &Arc<Dentry>, name: Arc<[u8]>, dentry: &Arc<Dentry>) {
        let old = dir
            .children
            .write()
            .insert(name, Child::Positive(dentry.clone()));
        // A name that others have given to something else: the old dentry keeps its identity for
        // those who hold it, and only its path is lost.
        if let Some(Child::Positive(old)) = old {
            old.state.fetch_or(UNHASHED, Ordering::AcqRel);
        }
        self.cache.admit(Cached::Positive(Arc::downgrade(dentry)));
    }

    fn insert_negative(&self, guard: &DirGuard<'_>, name: &[u8]) {
        if self.policy == DentryPolicy::Never || guard.dir.is_dead() {
            return;
        }
        let name: Arc<[u8]> = Arc::from(name);
        let old = guard
            .dir
            .children
            .write()
            .insert(name.clone(), Child::Negative(AtomicBool::new(true)));
        match old {
            Some(Child::Positive(old)) => {
                old.state.fetch_or(UNHASHED, Ordering::AcqRel);
            }
            Some(Child::Negative(_)) => return,
            None => (),
        }
        self.cache
            .admit(Cached::Negative(Arc::downgrade(guard.dir), name));
    }

    /// Drops what is cached of a name whose inode has just been given to it.
    pub(crate) fn forget_name(&self, guard: &DirGuard<'_>, name: &[u8]) {
        guard.dir.children.write().remove(name);
    }

    /// After an unlink or rmdir of `victim`.
    pub(crate) fn removed(&self, guard: &DirGuard<'_>, name: &[u8], victim: &Dentry) {
        victim.mark_deleted();
        self.insert_negative(guard, name);
        if victim.kind == FileType::Directory {
            victim.children.write().clear();
        }
    }

    /// Moves a dentry to a name whose cached entry, if positive, is gone (replaced).
    pub(crate) fn moved(
        &self,
        old: &DirGuard<'_>,
        new_dir: &Arc<Dentry>,
        new_name: &[u8],
        dentry: &Arc<Dentry>,
        replaced: Option<&Dentry>,
    ) {
        let old_name = dentry.name();
        old.dir.children.write().remove(&*old_name);
        if let Some(replaced) = replaced {
            replaced.mark_deleted();
            new_dir.children.write().remove(new_name);
        }
        self.place(new_dir, new_name, dentry);
    }

    /// Exchanges the places of two dentries.
    pub(crate) fn exchanged(&self, a: &Arc<Dentry>, b: &Arc<Dentry>) {
        let (a_dir, a_name) = a.parent_and_name();
        let (b_dir, b_name) = b.parent_and_name();
        let (Some(a_dir), Some(b_dir)) = (a_dir, b_dir) else {
            return;
        };
        a_dir.children.write().remove(&*a_name);
        b_dir.children.write().remove(&*b_name);
        self.place(&b_dir, &b_name, a);
        self.place(&a_dir, &a_name, b);
    }

    fn place(&self, dir: &Arc<Dentry>, name: &[u8], dentry: &Arc<Dentry>) {
        let name: Arc<[u8]> = Arc::from(name);
        dentry.confirmed.store(0, Ordering::Release);
        *dentry.link.write() = Link {
            parent: Some(dir.clone()),
            name: name.clone(),
        };
        if self.policy != DentryPolicy::Never {
            self.hash(dir, name, dentry);
        }
    }

    /// Keeps a mount point findable in a file system whose dentries are not cached.
    pub(crate) fn pin(&self, dentry: &Arc<Dentry>) {
        if let (Some(parent), name) = dentry.parent_and_name() {
            let mut children = parent.children.write();
            children
                .entry(name)
                .or_insert_with(|| Child::Positive(dentry.clone()));
        }
    }

    /// Empties the cache of a file system that is no longer mounted.
    pub(crate) fn forget(&self) {
        let mut todo = vec![self.root.clone()];
        while let Some(dentry) = todo.pop() {
            let children = std::mem::take(&mut *dentry.children.write());
            todo.extend(children.into_values().filter_map(|c| match c {
                Child::Positive(d) => Some(d),
                Child::Negative(_) => None,
            }));
        }
    }
}

enum Cached {
    Positive(Weak<Dentry>),
    Negative(Weak<Dentry>, Arc<[u8]>),
}

/// The clock over all cached dentries of a [`crate::Vfs`].
pub(crate) struct DentryCache {
    limit: usize,
    clock: Mutex<VecDeque<Cached>>,
}

impl DentryCache {
    pub(crate) fn new(limit: usize) -> Arc<DentryCache> {
        Arc::new(DentryCache {
            limit,
            clock: Mutex::default(),
        })
    }

    fn admit(&self, entry: Cached) {
        /// Entries looked at for each one admitted to a full cache.
        const STEPS: usize = 8;
        // What is evicted is dropped after the lock: it may hold the last reference to an inode.
        let mut dropped = Vec::new();
        let mut clock = self.clock.lock();
        clock.push_back(entry);
        for _ in 0..STEPS {
            if clock.len() <= self.limit {
                break;
            }
            let Some(oldest) = clock.pop_front() else {
                break;
            };
            match evict(&oldest) {
                Verdict::Gone => (),
                Verdict::Evicted(child) => dropped.push(child),
                Verdict::Keep(holder) => {
                    clock.push_back(oldest);
                    dropped.extend(holder.map(Child::Positive));
                }
            }
        }
        drop(clock);
    }
}

enum Verdict {
    Gone,
    Evicted(Child),
    Keep(Option<Arc<Dentry>>),
}

fn evict(entry: &Cached) -> Verdict {
    match entry {
        Cached::Positive(weak) => {
            let Some(dentry) = weak.upgrade() else {
                return Verdict::Gone;
            };
            if dentry.used.swap(false, Ordering::Relaxed) {
                return Verdict::Keep(Some(dentry));
            }
            let (Some(parent), name) = dentry.parent_and_name() else {
                return Verdict::Gone;
            };
            let mut children = parent.children.write();
            match children.get(&*name) {
                Some(Child::Positive(c)) if Arc::ptr_eq(c, &dentry) => {
                    // Two references: the map's and ours. New ones can only come from the map,
                    // which is locked, or from a child, which would itself be a reference.
                    if Arc::strong_count(&dentry) == 2 && !dentry.is_mount_point() {
                        let removed = children.remove(&*name);
                        drop(children);
                        drop(parent);
                        removed.map_or(Verdict::Gone, Verdict::Evicted)
                    } else {
                        drop(children);
                        Verdict::Keep(Some(dentry))
                    }
                }
                _ => Verdict::Gone,
            }
        }
        Cached::Negative(parent, name) => {
            let Some(parent) = parent.upgrade() else {
                return Verdict::Gone;
            };
            let mut children = parent.children.write();
            match children.get(&**name) {
                Some(Child::Negative(used)) => {
                    if used.swap(false, Ordering::Relaxed) {
                        drop(children);
                        Verdict::Keep(Some(parent))
                    } else {
                        let removed = children.remove(&**name);
                        drop(children);
                        removed.map_or(Verdict::Gone, Verdict::Evicted)
                    }
                }
                _ => Verdict::Gone,
            }
        }
    }
}

/// A device number with major 0 that no other caller has got (`st_dev` of a virtual file system).
pub fn anonymous_dev() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(32);
    libc::makedev(0, NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff)
}
