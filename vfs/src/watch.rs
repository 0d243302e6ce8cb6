//! Watches, inotify(7), on directories that no directory of the host stands for: those of a `tmp`, and of
//! an overlay.
//!
//! The kernel tells of what happens to host files. So a watched directory gets a *shadow*: a host
//! directory in the store in which every entry has a counterpart of the same name. The counterpart of a
//! regular file is the host file that holds its contents, whose opening, reading, writing and closing the
//! kernel then sees there; those of others are empty. What the VFS does to the directory's entries it does
//! to the shadow's, and the kernel makes the events of that, with their cookies and their order.
//!
//! A file is watched by having its directory shadowed. Files of an overlay's lower trees are copied up
//! when their directory is watched, as long as the [`Budget`] lasts.
//!
//! Nobody tells of the end of a watch. With `MAX_SHADOWS` of them, those go that no descriptor of a guest
//! watches any more, [`Vfs::forget_unwatched`].
//!
//! Not told: reading a directory, and reading files of a lower tree beyond the budget.
//!
//! # Locks
//!
//! Entries of a shadow change under the lock of the directory's dentry. `Watches::shadows` is a leaf.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::{AtFlags, OFlag, RenameFlags};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::UnlinkatFlags;
use parking_lot::Mutex;

use crate::counted::{
    fchmodat, fstat, fstatat, mkdirat, mknodat, openat, renameat2, symlinkat, unlinkat, utimensat,
};
use crate::dentry::{Dentry, Super};
use crate::inode::{BackingId, DentryPolicy, Inode, NoCaller};
use crate::mount::Vfs;
use crate::types::*;
use crate::walk::Location;

/// Directories watched at most, and entries that one may have when its watch begins; `ENOSPC` beyond.
const MAX_SHADOWS: usize = 4096;
const MAX_ENTRIES: usize = 1 << 17;

/// Watched files that are remembered; all are forgotten when there are more.
const MAX_FILES: usize = 1 << 14;

/// A name in a shadow.
#[derive(Clone)]
pub struct Place {
    /// The shadow's directory, and nothing that would hold what it shadows: contents hold places.
    dir: Arc<OwnedFd>,
    name: Arc<[u8]>,
}

impl Place {
    /// The shadow.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// The name in it.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn is(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.dir, &other.dir) && self.name == other.name
    }
}

/// How the host file of an inode comes to a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It has been there all the time: nobody watches yet.
    Quiet,
    /// It is there, among other links: it is about to be opened by this name.
    Opened,
    /// As a new name.
    Made,
    /// From a directory that is not shadowed, over what may be there.
    Moved,
}

/// How it leaves one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The name is removed; others remain.
    Removed,
    /// To a directory that is not shadowed.
    Moved,
    /// Something else takes the place, which is not emptied here.
    Replaced,
}

/// What may still be copied from lower trees for the sake of watches.
pub struct Budget {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Budget {
    /// Whether a file of this size may be copied; it then counts.
    pub fn take(&self, size: u64) -> bool {
        let less = |by: u64| move |n: u64| n.checked_sub(by);
        let (ok, not) = (Ordering::Relaxed, Ordering::Relaxed);
        self.files.fetch_update(ok, not, less(1)).is_ok()
            && self.bytes.fetch_update(ok, not, less(size)).is_ok()
    }
}

/// What is to be watched on the host. The watch must be made while this is kept.
pub struct Watched {
    node: OwnedFd,
    _shadow: Option<Arc<Shadow>>,
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.node.as_raw_fd()
    }
}

/// The host directory of a watched one.
struct Shadow {
    sb: Weak<Super>,
    dir: Arc<OwnedFd>,
    /// When a watch was last about to be made, by [`Watches::wanted`].
    wanted: AtomicU64,
    /// Its name in the store, which changes when the directory is moved.
    name: Mutex<String>,
    /// Keeps the place of the directory in the cache.
    dentry: Arc<Dentry>,
    /// Whether files of lower trees have been copied up for it.
    complete: AtomicBool,
}

/// All shadows of a tree.
pub(crate) struct Watches {
    /// Whether there is any: nothing else is asked otherwise.
    any: AtomicBool,
    shadows: Mutex<HashMap<usize, Arc<Shadow>>>,
    next: AtomicU64,
    /// Counts watches.
    wanted: AtomicU64,
    /// When it was last looked which shadows are watched.
    swept: Mutex<Option<Instant>>,
    /// Host files that have been watched by themselves.
    files: Mutex<HashSet<BackingId>>,
    budget: Budget,
}

/// How often, at most, it is looked which shadows are watched: this goes through all descriptors of a guest.
const SWEEP: Duration = Duration::from_secs(1);

impl Watches {
    pub(crate) fn new() -> Watches {
        Watches {
            any: AtomicBool::new(false),
            shadows: Mutex::default(),
            next: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            swept: Mutex::default(),
            files: Mutex::default(),
            budget: Budget {
                files: AtomicU64::new(1 << 14),
                bytes: AtomicU64::new(256 << 20),
            },
        }
    }

    fn of(&self, dir: &Arc<Dentry>) -> Option<Arc<Shadow>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.shadows.lock().get(&key(dir)).cloned()
    }

    /// Whether this host file has been watched by itself, as far as is remembered.
    pub(crate) fn is_watched_file(&self, id: BackingId) -> bool {
        self.files.lock().contains(&id)
    }

    fn remember_file(&self, id: BackingId) {
        let mut files = self.files.lock();
        if files.len() >= MAX_FILES {
            files.clear();
        }
        files.insert(id);
    }

    pub(crate) fn forget_all(&self) {
        drop(std::mem::take(&mut *self.shadows.lock()));
    }

    fn new_name(&self) -> String {
        format!("w{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry) as usize
}

impl Shadow {
    fn place(&self, name: &[u8]) -> Place {
        Place {
            dir: self.dir.clone(),
            name: Arc::from(name),
        }
    }

    /// Makes an empty counterpart.
    fn make(&self, name: &[u8], kind: FileType) -> Result<()> {
        make_empty(&self.dir, name, kind)
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir),
            other => other,
        }
    }
}

fn make_empty(dir: &OwnedFd, name: &[u8], kind: FileType) -> Result<()> {
    match kind {
        FileType::Directory => mkdirat(dir, name, Mode::S_IRWXU),
        FileType::Symlink => symlinkat("nowhere", dir, name),
        _ => mknodat(dir, name, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0),
    }
}

/// The host inodes that the inotify descriptor watches whose `fdinfo` this is (proc_pid_fdinfo(5)).
pub fn watched_in(fdinfo: &str) -> impl Iterator<Item = BackingId> + '_ {
    fdinfo.lines().filter_map(|line| {
        let fields = line.strip_prefix("inotify ")?;
        let hex = |name: &str| {
            let value = fields.split(' ').find_map(|f| f.strip_prefix(name))?;
            u64::from_str_radix(value, 16).ok()
        };
        // As the kernel keeps it: twenty bits are of the minor number.
        let dev = u32::try_from(hex("sdev:")?).ok()?;
        Some(BackingId {
            dev: libc::makedev(dev >> 20, dev & 0xf_ffff),
            ino: hex("ino:")?,
        })
    })
}

/// What goes wrong with a shadow costs an event, not the operation that it would have told of.
fn note(what: &str, result: Result<()>) {
    if let Err(e) = result {
        log::debug!("a watched directory: {what}: {e}");
    }
}

impl Vfs {
    /// The host file or directory that is to be watched for `loc`, as an `O_PATH` descriptor. `EOPNOTSUPP`
    /// for what never changes by the guest's doing; `ENOSPC` with too much of it.
    pub fn watched_path(&self, loc: &Location) -> Result<Watched> {
        let is_dir = loc.kind() == FileType::Directory;
        let exclusive = loc.sb().fs().dentry_policy() != DentryPolicy::Never;
        if loc.sb().is_shared() {
            self.distrust_shared();
        }
        match loc.inode().watched_path() {
            Err(Errno::EOPNOTSUPP | Errno::ECONNREFUSED) if is_dir && exclusive => {
                let shadow = self.shadow(loc.sb(), &loc.dentry, true)?;
                Ok(Watched {
                    node: crate::host_call::o_path(&*shadow.dir)?,
                    _shadow: Some(shadow),
                })
            }
            Err(e) => Err(e),
            Ok(node) => {
                if !is_dir {
                    let st = fstat(&node)?;
                    self.watches.remember_file(crate::host_call::backing(&st));
                }
                let parent = loc.dentry.parent().filter(|_| !loc.dentry.is_deleted());
                let parent =
                    parent.filter(|p| !is_dir && exclusive && p.inode().watched_path().is_err());
                let shadow = parent.map(|p| self.shadow(loc.sb(), &p, false));
                Ok(Watched {
                    node,
                    _shadow: shadow.transpose()?,
                })
            }
        }
    }

    /// Drops the shadows that no descriptor of a guest watches, and whose files none watches. `watched` finds
    /// out which host inodes are watched. Without effect if that was done a moment ago.
    pub fn forget_unwatched(
        &self,
        watched: impl FnOnce() -> Result<HashSet<BackingId>>,
    ) -> Result<()> {
        {
            let mut swept = self.watches.swept.lock();
            if swept.is_some_and(|at| at.elapsed() < SWEEP) {
                return Ok(());
            }
            *swept = Some(Instant::now());
        }
        // What is wanted later may not be among what is found.
        let now = self.watches.wanted.fetch_add(1, Ordering::AcqRel);
        let watched = watched()?;
        let shadows: Vec<_> = self.watches.shadows.lock().values().cloned().collect();
        for shadow in shadows {
            note(
                "an unwatched one",
                self.forget_if_unwatched(&shadow, now, &watched),
            );
        }
        Ok(())
    }

    fn forget_if_unwatched(
        &self,
        shadow: &Arc<Shadow>,
        now: u64,
        watched: &HashSet<BackingId>,
    ) -> Result<()> {
        // Those of the table and of the caller.
        const NOBODYS: usize = 2;
        let Some(sb) = shadow.sb.upgrade() else {
            return Ok(());
        };
        let guard = shadow.dentry.lock();
        let id = crate::host_call::backing(&fstat(&shadow.dir)?);
        if Arc::strong_count(shadow) > NOBODYS
            || shadow.wanted.load(Ordering::Acquire) > now
            || watched.contains(&id)
        {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(crate::host_call::proc_fd(shadow.dir.as_raw_fd()))
            .map_err(|_| Errno::EIO)?
        {
            use std::os::unix::fs::DirEntryExt;
            let entry = entry.map_err(|_| Errno::EIO)?;
            let (dev, ino) = (id.dev, entry.ino());
            if watched.contains(&BackingId { dev, ino }) {
                return Ok(());
            }
            names.push(entry.file_name());
        }
        // Should this stop half-way, the next watch makes counterparts of what is missing.
        shadow.complete.store(false, Ordering::Relaxed);
        for name in &names {
            let name = name.as_bytes();
            let left = match sb.lookup_locked(&guard, name, &NoCaller)? {
                Some(child) => child
                    .inode()
                    .depart(&shadow.place(name), Departure::Moved)?,
                None => false,
            };
            if !left {
                shadow.remove(name)?;
            }
        }
        self.forget(shadow);
        Ok(())
    }

    /// The shadow of a directory, made now if there is none. `complete`: events of files of lower trees
    /// are wanted.
    fn shadow(&self, sb: &Arc<Super>, dir: &Arc<Dentry>, complete: bool) -> Result<Arc<Shadow>> {
        let guard = dir.lock();
        let known = self.watches.of(dir);
        if let Some(shadow) = &known
            && (!complete || shadow.complete.load(Ordering::Relaxed))
        {
            self.want(shadow);
            return Ok(shadow.clone());
        }
        if dir.is_dead() {
            return Err(Errno::ENOENT);
        }
        let is_new = known.is_none();
        let shadow = match known {
            Some(shadow) => shadow,
            None => self.new_shadow(sb, dir)?,
        };
        self.want(&shadow);
        let filled = (|| {
            let mut names = Vec::new();
            dir.inode().read_dir(0, &NoCaller, &mut |e| {
                names.push(e.name);
                names.len() <= MAX_ENTRIES
            })?;
            if names.len() > MAX_ENTRIES {
                return Err(Errno::ENOSPC);
            }
            for name in &names {
                if let Some(child) = sb.lookup_locked(&guard, name, &NoCaller)? {
                    self.fill(&shadow, name, &child, complete)?;
                }
            }
            Ok(())
        })();
        if let Err(e) = filled {
            if is_new {
                self.discard(&shadow);
            }
            return Err(e);
        }
        shadow.complete.store(complete, Ordering::Relaxed);
        let mut shadows = self.watches.shadows.lock();
        shadows.insert(key(dir), shadow.clone());
        self.watches.any.store(true, Ordering::Release);
        Ok(shadow)
    }

    fn want(&self, shadow: &Shadow) {
        let now = self.watches.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        shadow.wanted.store(now, Ordering::Release);
    }

    fn new_shadow(&self, sb: &Arc<Super>, dir: &Arc<Dentry>) -> Result<Arc<Shadow>> {
        if self.watches.shadows.lock().len() >= MAX_SHADOWS {
            return Err(Errno::ENOSPC);
        }
        let (files, name) = (&self.store().files, self.watches.new_name());
        mkdirat(files, name.as_str(), Mode::S_IRWXU)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(files, name.as_str(), flags, Mode::empty())?;
        Ok(Arc::new(Shadow {
            sb: Arc::downgrade(sb),
            wanted: AtomicU64::new(0),
            dir: Arc::new(opened),
            name: Mutex::new(name),
            dentry: dir.clone(),
            complete: AtomicBool::new(false),
        }))
    }

    /// Makes the counterpart of an entry of a directory that nobody watches yet.
    fn fill(
        &self,
        shadow: &Arc<Shadow>,
        name: &[u8],
        child: &Arc<Dentry>,
        complete: bool,
    ) -> Result<()> {
        let budget = complete.then_some(&self.watches.budget);
        let place = shadow.place(name);
        if child.kind() == FileType::Regular {
            match child.inode().arrive(&place, Arrival::Quiet, budget) {
                Ok(true) => return Ok(()),
                Ok(false) => (),
                // One that the supervisor may not read has a counterpart without content.
                Err(e) => note("a file's counterpart", Err(e)),
            }
        }
        match shadow.make(name, child.kind()) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Drops the shadow of a directory that is gone.
    fn forget(&self, shadow: &Arc<Shadow>) {
        self.watches.shadows.lock().remove(&key(&shadow.dentry));
        let name = shadow.name.lock().clone();
        let removed = unlinkat(&self.store().files, name.as_str(), UnlinkatFlags::RemoveDir);
        note("removing its shadow", removed);
    }

    /// Drops the shadows of a file system that is no longer mounted.
    pub(crate) fn forget_watches(&self, sb: &Arc<Super>) {
        let in_it = |s: &Arc<Shadow>| sb.root().is_ancestor_of(&s.dentry);
        let gone: Vec<Arc<Shadow>> = {
            let shadows = self.watches.shadows.lock();
            shadows.values().filter(|s| in_it(s)).cloned().collect()
        };
        for shadow in gone {
            self.discard(&shadow);
        }
    }

    /// Drops a shadow and what is in it.
    fn discard(&self, shadow: &Arc<Shadow>) {
        let path = crate::host_call::proc_fd(shadow.dir.as_raw_fd());
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            note(
                "emptying its shadow",
                shadow.remove(entry.file_name().as_bytes()),
            );
        }
        self.forget(shadow);
    }

    /// `name` of `dir` has been made and leads to `inode`. The caller holds the lock of the directory.
    pub(crate) fn entry_made(&self, dir: &Arc<Dentry>, name: &[u8], inode: &Arc<dyn Inode>) {
        let Some(shadow) = self.watches.of(dir) else {
            return;
        };
        let arrived = match inode.kind() {
            FileType::Regular => inode.arrive(&shadow.place(name), Arrival::Made, None),
            _ => Ok(false),
        };
        let made = match arrived {
            Ok(true) => Ok(()),
            Ok(false) => shadow.make(name, inode.kind()),
            Err(e) => Err(e),
        };
        note("a new entry", made);
    }

    /// A file is about to be opened by this name.
    pub(crate) fn entry_opened(&self, loc: &Location) {
        if !self.watches.any.load(Ordering::Acquire) || loc.kind() != FileType::Regular {
            return;
        }
        let (parent, name) = loc.dentry.parent_and_name();
        let shadow = parent.filter(|_| !loc.dentry.is_deleted());
        if let Some(shadow) = shadow.and_then(|p| self.watches.of(&p)) {
            let place = shadow.place(&name);
            let opened = loc.inode().arrive(&place, Arrival::Opened, None);
            note("an opened file", opened.map(drop));
        }
    }

    /// `name` of `dir`, which led to `victim`, has been removed. Locks as for [`Vfs::entry_made`].
    pub(crate) fn entry_removed(&self, dir: &Arc<Dentry>, name: &[u8], victim: &Arc<Dentry>) {
        // The kernel tells of the directory's own end first (`d_delete_notify()`).
        if let Some(own) = self.watches.of(victim) {
            self.forget(&own);
        }
        if let Some(shadow) = self.watches.of(dir) {
            let place = shadow.place(name);
            let left = victim.inode().depart(&place, Departure::Removed);
            let removed = left.and_then(|left| match left {
                true => Ok(()),
                false => shadow.remove(name),
            });
            note("a removed entry", removed);
        }
    }

    /// An entry has been renamed; `target` is what was replaced, or what it was exchanged with. Locks as
    /// for [`Vfs::entry_made`].
    pub(crate) fn entry_moved(
        &self,
        (old_dir, old): (&Arc<Dentry>, &[u8]),
        (new_dir, new): (&Arc<Dentry>, &[u8]),
        source: &Arc<Dentry>,
        target: Option<&Arc<Dentry>>,
        exchanged: bool,
    ) {
        if !self.watches.any.load(Ordering::Acquire) {
            return;
        }
        let from = self.watches.of(old_dir).map(|s| s.place(old));
        let to = self.watches.of(new_dir).map(|s| s.place(new));
        let moved = match (from, to, target.filter(|_| exchanged)) {
            (None, None, _) => Ok(()),
            (Some(from), Some(to), other) => self.move_within(&from, &to, source, target, other),
            (Some(from), None, None) => self.move_out(&from, source),
            (None, Some(to), None) => self.move_in(&to, source, target),
            (Some(at), None, Some(other)) => self
                .move_out(&at, source)
                .and_then(|()| self.move_in(&at, other, None)),
            (None, Some(at), Some(other)) => self
                .move_out(&at, other)
                .and_then(|()| self.move_in(&at, source, None)),
        };
        note("a renamed entry", moved);
        self.moved_itself(source);
        match target {
            Some(target) if exchanged => self.moved_itself(target),
            Some(target) => {
                if let Some(own) = self.watches.of(target) {
                    self.forget(&own);
                }
            }
            None => (),
        }
    }

    fn move_within(
        &self,
        from: &Place,
        to: &Place,
        source: &Arc<Dentry>,
        target: Option<&Arc<Dentry>>,
        exchanged: Option<&Arc<Dentry>>,
    ) -> Result<()> {
        if let Some(other) = exchanged {
            let flags = RenameFlags::RENAME_EXCHANGE;
            renameat2(from.dir(), from.name(), to.dir(), to.name(), flags)?;
            other.inode().relocate(to, from);
        } else {
            if let Some(target) = target {
                target.inode().depart(to, Departure::Replaced)?;
            }
            renameat2(
                from.dir(),
                from.name(),
                to.dir(),
                to.name(),
                RenameFlags::empty(),
            )?;
        }
        source.inode().relocate(from, to);
        Ok(())
    }

    fn move_out(&self, from: &Place, source: &Arc<Dentry>) -> Result<()> {
        if source.inode().depart(from, Departure::Moved)? {
            return Ok(());
        }
        let (files, name) = (&self.store().files, self.watches.new_name());
        renameat2(
            from.dir(),
            from.name(),
            files,
            name.as_str(),
            RenameFlags::empty(),
        )?;
        let how = match source.kind() {
            FileType::Directory => UnlinkatFlags::RemoveDir,
            _ => UnlinkatFlags::NoRemoveDir,
        };
        unlinkat(files, name.as_str(), how)
    }

    fn move_in(
        &self,
        to: &Place,
        source: &Arc<Dentry>,
        target: Option<&Arc<Dentry>>,
    ) -> Result<()> {
        if let Some(target) = target {
            target.inode().depart(to, Departure::Replaced)?;
        }
        let kind = source.kind();
        if kind == FileType::Regular && source.inode().arrive(to, Arrival::Moved, None)? {
            return Ok(());
        }
        let (files, name) = (&self.store().files, self.watches.new_name());
        make_empty(files, name.as_bytes(), kind)?;
        renameat2(
            files,
            name.as_str(),
            to.dir(),
            to.name(),
            RenameFlags::empty(),
        )
    }

    /// A watched directory has been moved.
    fn moved_itself(&self, dentry: &Arc<Dentry>) {
        let Some(own) = self.watches.of(dentry) else {
            return;
        };
        let (files, new) = (&self.store().files, self.watches.new_name());
        let mut name = own.name.lock();
        match renameat2(
            files,
            name.as_str(),
            files,
            new.as_str(),
            RenameFlags::empty(),
        ) {
            Ok(()) => *name = new,
            Err(e) => note("moving its shadow", Err(e)),
        }
    }

    /// Attributes of `loc` have changed that the host file behind it does not share.
    pub(crate) fn attributes_changed(&self, loc: &Location) {
        if !self.watches.any.load(Ordering::Acquire) {
            return;
        }
        let (parent, name) = loc.dentry.parent_and_name();
        let shadow = parent.filter(|_| !loc.dentry.is_deleted());
        if let Some(shadow) = shadow.and_then(|p| self.watches.of(&p)) {
            note("changed attributes", touch(&shadow.dir, &name, loc.kind()));
        }
        if let Some(own) = self.watches.of(&loc.dentry) {
            let path = crate::host_call::proc_fd(own.dir.as_raw_fd());
            let touched = fchmodat(
                nix::fcntl::AT_FDCWD,
                path.as_str(),
                Mode::S_IRWXU,
                FchmodatFlags::FollowSymlink,
            );
            note("changed attributes", touched);
        }
    }
}

/// Changes an attribute of a counterpart without any effect.
fn touch(dir: &OwnedFd, name: &[u8], kind: FileType) -> Result<()> {
    match kind {
        FileType::Symlink => {
            let (now, no) = (TimeSpec::UTIME_NOW, UtimensatFlags::NoFollowSymlink);
            utimensat(dir, name, &now, &now, no)
        }
        _ => {
            let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)
        }
    }
}
