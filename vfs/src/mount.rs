//! The mount table.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::{Mutex, RwLock};

use crate::account::{self, Step};
use crate::dentry::{Dentry, DentryCache, Super};
use crate::inode::{BackingId, FileSystem};
use crate::opentable::{FileTable, StandInTable};
use crate::outside::NoFs;
use crate::types::*;
use crate::walk::Location;
use crate::watch::Watches;

bitflags! {
    /// Per-mount flags, mount(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        /// `MS_RDONLY`
        const RDONLY = 1;
        /// `MS_NOSUID`
        const NOSUID = 2;
        /// `MS_NODEV`
        const NODEV = 4;
        /// `MS_NOEXEC`
        const NOEXEC = 8;
    }
}

/// Most mounts in the tree (`/proc/sys/fs/mount-max` is 100,000 on Linux).
const MOUNT_MAX: usize = 10_000;

/// Whether an operation on a mount takes those along that sit in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    /// It does not.
    One,
    /// It does (`MS_REC`, `MNT_DETACH`).
    Tree,
}

/// A tree of dentries, or a part of one, at a place in the name space.
pub struct Mount {
    id: u32,
    sb: Arc<Super>,
    root: Arc<Dentry>,
    flags: AtomicU32,
    /// Flags that a remount cannot take away: [`Vfs::seal`].
    locked: AtomicU32,
    source: Box<str>,
    /// Where it sits; `None` for the root of all and after umount.
    at: RwLock<Option<Location>>,
    /// Mounts on dentries of this mount, by the dentry's address (they hold the dentry).
    children: RwLock<HashMap<usize, Arc<Mount>>>,
}

impl Mount {
    fn detached(
        id: u32,
        sb: Arc<Super>,
        root: Arc<Dentry>,
        flags: MountFlags,
        source: &str,
    ) -> Arc<Mount> {
        Arc::new(Mount {
            id,
            root,
            sb,
            flags: AtomicU32::new(flags.bits()),
            locked: AtomicU32::new(0),
            source: source.into(),
            at: RwLock::new(None),
            children: RwLock::default(),
        })
    }

    /// Mount id as in `/proc/self/mountinfo`.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file system instance.
    pub fn sb(&self) -> &Arc<Super> {
        &self.sb
    }

    /// The dentry that is the mount's root.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// The mount's flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    fn locked(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.locked.load(Ordering::Relaxed))
    }

    /// The mount itself, then all that sit in it at any depth.
    fn tree(self: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut all = vec![self.clone()];
        let mut at = 0;
        while let Some(mount) = all.get(at).cloned() {
            all.extend(mount.children.read().values().cloned());
            at += 1;
        }
        all
    }

    /// The place it is mounted on.
    pub fn at(&self) -> Option<Location> {
        self.at.read().clone()
    }

    /// EROFS if the mount is read-only.
    pub(crate) fn want_write(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) {
            account::note(|| Step::ReadOnly {
                fs: self.sb.fs().type_name(),
            });
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    /// The mount that sits on `dentry` in this mount.
    pub(crate) fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.children.read().get(&key(dentry)).cloned()
    }
}

impl Drop for Vfs {
    /// Mounts hold the mounts that they sit on and those that sit on them, and directories what is cached
    /// of them.
    fn drop(&mut self) {
        let supers = self.supers.get_mut().iter().filter_map(Weak::upgrade);
        let supers: Vec<_> = supers.chain([self.nowhere.sb.clone()]).collect();
        for mount in std::mem::take(self.mounts.get_mut()) {
            drop(std::mem::take(&mut *mount.children.write()));
            drop(mount.at.write().take());
        }
        self.watches.forget_all();
        supers.iter().for_each(|sb| sb.forget());
    }
}

fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry) as usize
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone)]
pub struct MountInfo {
    /// Mount id.
    pub id: u32,
    /// Id of the mount it sits on (its own for the root of all).
    pub parent: u32,
    /// `st_dev` of its files.
    pub dev: u64,
    /// Path within the file system of the mount's root (`/` but for bind mounts).
    pub root: Vec<u8>,
    /// Path of the mount point from the root of all.
    pub mountpoint: Vec<u8>,
    /// The mount's root, for paths from another root ([`Location::path`]).
    pub location: Location,
    /// Flags.
    pub flags: MountFlags,
    /// Type of the file system.
    pub type_name: &'static str,
    /// Source as given.
    pub source: String,
}

/// Two directories on a tmpfs private to Duet.
pub struct Store {
    /// Holds the contents of `tmp` files, FIFOs and sockets.
    pub files: OwnedFd,
    /// Holds the stand-ins for directories and `O_PATH` opens.
    pub dirs: OwnedFd,
}

/// The virtual file system of one sandbox.
pub struct Vfs {
    store: Store,
    root: Arc<Mount>,
    mounts: Mutex<Vec<Arc<Mount>>>,
    supers: Mutex<Vec<Weak<Super>>>,
    next_id: AtomicU32,
    cache: Arc<DentryCache>,
    /// Counts renames, for the walk to notice one.
    pub(crate) renames: AtomicU64,
    /// The mount of places outside the tree.
    pub(crate) nowhere: Arc<Mount>,
    pub(crate) files: FileTable,
    pub(crate) stand_ins: StandInTable,
    pub(crate) watches: Watches,
}

impl Vfs {
    /// A name space whose root is `root`. The caches are sized by `RLIMIT_NOFILE`, since a cached
    /// node may hold a descriptor: raise it first.
    pub fn new(
        store: Store,
        root: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &str,
    ) -> Result<Arc<Vfs>> {
        let (nofile, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let nofile = usize::try_from(nofile).unwrap_or(usize::MAX);
        let cache = DentryCache::new((nofile / 2).clamp(256, 65536));
        let sb = Super::new(root, cache.clone());
        let top = sb.root().clone();
        let mount = Mount::detached(1, sb, top, flags, source);
        let nowhere = Super::new(Arc::new(NoFs), cache.clone());
        let nothing = nowhere.root().clone();
        Ok(Arc::new(Vfs {
            store,
            supers: Mutex::new(vec![Arc::downgrade(mount.sb())]),
            mounts: Mutex::new(vec![mount.clone()]),
            root: mount,
            next_id: AtomicU32::new(2),
            cache,
            renames: AtomicU64::new(0),
            nowhere: Mount::detached(0, nowhere, nothing, MountFlags::empty(), "none"),
            files: FileTable::new((nofile / 4).clamp(128, 65536)),
            stand_ins: StandInTable::new((nofile / 8).clamp(64, 16384)),
            watches: Watches::new(),
        }))
    }

    /// Duet's private directories.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The root of all.
    pub fn root(&self) -> Location {
        let mut root = Location {
            mount: self.root.clone(),
            dentry: self.root.root.clone(),
        };
        root.cross_mounts();
        root
    }

    /// A guest is about to be told of changes by the host.
    pub(crate) fn distrust_shared(&self) {
        let supers: Vec<_> = self
            .supers
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        supers
            .iter()
            .filter(|sb| sb.is_shared())
            .for_each(|sb| sb.fs().distrust());
    }

    /// Which place a descriptor of the guest is, by the host inode it leads to; `None` if the VFS has
    /// not made it, or has forgotten it.
    pub fn locate(&self, id: BackingId) -> Option<Location> {
        self.files.get(id).or_else(|| self.stand_ins.get(id))
    }

    /// Whether this is what a guest holds in place of an `O_PATH` descriptor.
    pub fn is_path_only(&self, id: BackingId) -> bool {
        self.stand_ins.is_path_only(id)
    }

    /// Notes that a descriptor which the guest was given from outside leads to `location`.
    pub fn adopt(&self, id: BackingId, location: &Location) {
        self.files.insert(id, location);
    }

    /// Mounts a file system at a directory (or a one-file system at a file): ENOTDIR if only one of
    /// the two is a directory, ENOENT if `at` has been deleted, ENOSPC with too many mounts.
    pub fn mount(
        &self,
        at: &Location,
        fs: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &str,
    ) -> Result<()> {
        let sb = self.sb_of(fs);
        let root = sb.root().clone();
        self.attach(at, Mount::detached(self.new_id(), sb, root, flags, source))
    }

    /// Bind-mounts a directory or file, with the flags of the mount it lies in; `Recursion::Tree` with
    /// what is mounted below it. EINVAL for what is no place of the tree.
    pub fn bind(&self, at: &Location, from: &Location, recursion: Recursion) -> Result<()> {
        if from.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if Arc::ptr_eq(&from.mount, &self.nowhere) {
            return Err(Errno::EINVAL);
        }
        let copy = |of: &Arc<Mount>, root: &Arc<Dentry>| {
            let (sb, root) = (of.sb.clone(), root.clone());
            let copy = Mount::detached(self.new_id(), sb, root, of.flags(), &of.source);
            copy.locked.store(of.locked().bits(), Ordering::Relaxed);
            copy
        };
        let top = copy(&from.mount, &from.dentry);
        // Looked for before the new mount is there: a tree may be bound into itself.
        let mut todo = vec![(from.mount.clone(), top.clone())];
        let mut below = Vec::new();
        while recursion == Recursion::Tree
            && let Some((old, new)) = todo.pop()
        {
            for child in old.children.read().values() {
                let Some(place) = child.at().filter(|p| new.root.is_ancestor_of(&p.dentry)) else {
                    continue;
                };
                let twin = copy(child, &child.root);
                todo.push((child.clone(), twin.clone()));
                let place = Location {
                    mount: new.clone(),
                    dentry: place.dentry,
                };
                below.push((place, twin));
            }
            if below.len() > MOUNT_MAX {
                return Err(Errno::ENOSPC);
            }
        }
        self.attach(at, top)?;
        below
            .into_iter()
            .try_for_each(|(place, twin)| self.attach(&place, twin))
    }

    /// Moves the mount whose root `from` is to another place (`MS_MOVE`): EINVAL if it is none or the
    /// root of all, ELOOP for a place within itself.
    pub fn move_mount(&self, at: &Location, from: &Location) -> Result<()> {
        let mount = self.mount_of(from)?;
        if mount.at().is_none() {
            return Err(Errno::EINVAL);
        }
        let mut place = Some(at.clone());
        while let Some(p) = place {
            if Arc::ptr_eq(&p.mount, &mount) {
                return Err(Errno::ELOOP);
            }
            place = p.mount.at();
        }
        if (mount.root.kind() == FileType::Directory) != (at.kind() == FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        let before = self.detach(&mount)?;
        self.attach(at, mount.clone()).inspect_err(|_| {
            // Where it was, unless something else has taken the place meanwhile.
            if let Err(e) = self.attach(&before, mount) {
                log::warn!("a mount that could not be moved is lost: {e}");
            }
        })
    }

    /// Changes the flags of the mount whose root `at` is (`MS_REMOUNT`): EINVAL if it is none, EPERM
    /// if one would go that [`Vfs::seal`] has fixed.
    pub fn remount(&self, at: &Location, flags: MountFlags) -> Result<()> {
        let mount = self.mount_of(at)?;
        if !flags.contains(mount.locked()) {
            return Err(Errno::EPERM);
        }
        mount.flags.store(flags.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// From now on no mount that is there loses a flag: what the sandbox was made with.
    pub fn seal(&self) {
        for mount in self.mounts.lock().iter() {
            mount.locked.store(mount.flags().bits(), Ordering::Relaxed);
        }
    }

    /// The mount whose root `at` is: EINVAL if it is none's.
    pub fn mount_of(&self, at: &Location) -> Result<Arc<Mount>> {
        let mut top = at.clone();
        top.cross_mounts();
        if !Arc::ptr_eq(&top.mount.root, &top.dentry) || Arc::ptr_eq(&top.mount, &self.nowhere) {
            return Err(Errno::EINVAL);
        }
        Ok(top.mount)
    }

    /// Removes the topmost mount at `at` (EINVAL if `at` is not the root of a mount, EBUSY if it is
    /// the root of all or another mount sits in it). `Recursion::Tree` takes those along (`MNT_DETACH`).
    /// Descriptors and working directories in it stay.
    pub fn umount(&self, at: &Location, recursion: Recursion) -> Result<()> {
        let mount = self.mount_of(at)?;
        if Arc::ptr_eq(&mount, &self.root) {
            return Err(Errno::EBUSY);
        }
        if recursion == Recursion::One && !mount.children.read().is_empty() {
            return Err(Errno::EBUSY);
        }
        let gone = mount.tree();
        self.detach(&mount)?;
        let mut mounts = self.mounts.lock();
        mounts.retain(|m| !gone.iter().any(|g| Arc::ptr_eq(g, m)));
        let unused = |m: &&Arc<Mount>| !mounts.iter().any(|o| Arc::ptr_eq(&o.sb, &m.sb));
        let unused: Vec<_> = gone.iter().filter(unused).map(|m| m.sb.clone()).collect();
        drop(mounts);
        for sb in &unused {
            self.forget_watches(sb);
            sb.forget();
        }
        Ok(())
    }

    /// Takes a mount off its place, which is returned: EINVAL if it has none (any more).
    fn detach(&self, mount: &Arc<Mount>) -> Result<Location> {
        let _mounts = self.mounts.lock();
        let place = mount.at.write().take().ok_or(Errno::EINVAL)?;
        place.mount.children.write().remove(&key(&place.dentry));
        place.dentry.remove_mount();
        Ok(place)
    }

    fn new_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The mount table, parents before children.
    pub fn mounts(&self) -> Vec<MountInfo> {
        let mounts = self.mounts.lock().clone();
        let top = Location {
            mount: self.root.clone(),
            dentry: self.root.root.clone(),
        };
        mounts
            .into_iter()
            .map(|mount| {
                let location = Location {
                    dentry: mount.root.clone(),
                    mount: mount.clone(),
                };
                MountInfo {
                    id: mount.id,
                    parent: mount.at().map_or(mount.id, |at| at.mount.id),
                    dev: location.attr().map_or(mount.sb.dev(), |a| a.dev),
                    root: crate::walk::path_in_fs(&mount.root),
                    mountpoint: location.path(&top).0,
                    flags: mount.flags(),
                    type_name: mount.sb.fs().type_name(),
                    source: mount.source.to_string(),
                    location,
                }
            })
            .collect()
    }

    fn sb_of(&self, fs: Arc<dyn FileSystem>) -> Arc<Super> {
        // One tree of dentries for a file system, however often it is mounted.
        let root = fs.root();
        let mut supers = self.supers.lock();
        supers.retain(|s| s.strong_count() > 0);
        let known = supers
            .iter()
            .filter_map(Weak::upgrade)
            .find(|s| Arc::ptr_eq(s.root().inode(), &root));
        known.unwrap_or_else(|| {
            let sb = Super::new(fs, self.cache.clone());
            supers.push(Arc::downgrade(&sb));
            sb
        })
    }

    /// Puts a mount that has no place on one.
    fn attach(&self, at: &Location, mount: Arc<Mount>) -> Result<()> {
        let mut at = at.clone();
        at.cross_mounts();
        // Under its lock a directory is neither removed nor covered by another mount meanwhile.
        let place = at.dentry.clone();
        let _guard = place.lock();
        let mut mounts = self.mounts.lock();
        if at.dentry.is_mount_point() && at.mount.child_at(&at.dentry).is_some() {
            return Err(Errno::EBUSY);
        }
        if (mount.root.kind() == FileType::Directory) != (at.kind() == FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        if at.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if mounts.len() >= MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        *mount.at.write() = Some(at.clone());
        at.mount
            .children
            .write()
            .insert(key(&at.dentry), mount.clone());
        at.dentry.add_mount();
        at.mount.sb.pin(&at.dentry);
        // A mount that moves is in the table already.
        if !mounts.iter().any(|m| Arc::ptr_eq(m, &mount)) {
            mounts.push(mount);
        }
        Ok(())
    }
}
