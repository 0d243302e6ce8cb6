//! The mount table.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::{Mutex, RwLock};

use crate::dentry::{Dentry, DentryCache, Super};
use crate::inode::{BackingId, FileSystem};
use crate::opentable::{FileTable, StandInTable};
use crate::outside::NoFs;
use crate::types::*;
use crate::walk::Location;

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

/// A tree of dentries, or a part of one, at a place in the name space.
pub struct Mount {
    id: u32,
    sb: Arc<Super>,
    root: Arc<Dentry>,
    flags: MountFlags,
    source: Box<str>,
    /// Where it sits; `None` for the root of all and after umount.
    at: RwLock<Option<Location>>,
    /// Mounts on dentries of this mount, by the dentry's address (they hold the dentry).
    children: RwLock<HashMap<usize, Arc<Mount>>>,
}

impl Mount {
    fn detached(id: u32, sb: Arc<Super>, flags: MountFlags, source: &str) -> Arc<Mount> {
        Arc::new(Mount {
            id,
            root: sb.root().clone(),
            sb,
            flags,
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
        self.flags
    }

    /// The place it is mounted on.
    pub fn at(&self) -> Option<Location> {
        self.at.read().clone()
    }

    /// EROFS if the mount is read-only.
    pub(crate) fn want_write(&self) -> Result<()> {
        if self.flags.contains(MountFlags::RDONLY) {
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    /// The mount that sits on `dentry` in this mount.
    pub(crate) fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.children.read().get(&key(dentry)).cloned()
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
        let mount = Mount::detached(1, sb, flags, source);
        let nowhere = Super::new(Arc::new(NoFs), cache.clone());
        Ok(Arc::new(Vfs {
            store,
            supers: Mutex::new(vec![Arc::downgrade(mount.sb())]),
            mounts: Mutex::new(vec![mount.clone()]),
            root: mount,
            next_id: AtomicU32::new(2),
            cache,
            renames: AtomicU64::new(0),
            nowhere: Mount::detached(0, nowhere, MountFlags::empty(), "none"),
            files: FileTable::new((nofile / 4).clamp(128, 65536)),
            stand_ins: StandInTable::new((nofile / 8).clamp(64, 16384)),
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
    /// the two is a directory, ENOENT if `at` has been deleted.
    pub fn mount(
        &self,
        at: &Location,
        fs: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &str,
    ) -> Result<()> {
        let sb = self.sb_of(fs);
        let root = sb.root().clone();
        self.attach(at, sb, root, flags, source)
    }

    /// Bind-mounts a directory or file.
    pub fn bind(&self, at: &Location, from: &Location, flags: MountFlags) -> Result<()> {
        if from.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let source = from.mount.source.clone();
        let sb = from.mount.sb.clone();
        self.attach(at, sb, from.dentry.clone(), flags, &source)
    }

    /// Removes the topmost mount at `at` (EINVAL if `at` is not the root of a mount, EBUSY if it is
    /// the root of all or another mount sits in it). Descriptors and working directories in it stay.
    pub fn umount(&self, at: &Location) -> Result<()> {
        let mut top = at.clone();
        top.cross_mounts();
        let mount = top.mount;
        if !Arc::ptr_eq(&mount.root, &top.dentry) {
            return Err(Errno::EINVAL);
        }
        let mut mounts = self.mounts.lock();
        if !mount.children.read().is_empty() || Arc::ptr_eq(&mount, &self.root) {
            return Err(Errno::EBUSY);
        }
        let Some(place) = mount.at.write().take() else {
            return Err(Errno::EINVAL);
        };
        place.mount.children.write().remove(&key(&place.dentry));
        place.dentry.remove_mount();
        mounts.retain(|m| !Arc::ptr_eq(m, &mount));
        let last = !mounts.iter().any(|m| Arc::ptr_eq(&m.sb, &mount.sb));
        drop(mounts);
        if last {
            mount.sb.forget();
        }
        Ok(())
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
                    flags: mount.flags,
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

    fn attach(
        &self,
        at: &Location,
        sb: Arc<Super>,
        root: Arc<Dentry>,
        flags: MountFlags,
        source: &str,
    ) -> Result<()> {
        let mut at = at.clone();
        at.cross_mounts();
        // Under its lock a directory is neither removed nor covered by another mount meanwhile.
        let place = at.dentry.clone();
        let _guard = place.lock();
        let mut mounts = self.mounts.lock();
        if at.dentry.is_mount_point() && at.mount.child_at(&at.dentry).is_some() {
            return Err(Errno::EBUSY);
        }
        if (root.kind() == FileType::Directory) != (at.kind() == FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        if at.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let mount = Arc::new(Mount {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            sb,
            root,
            flags,
            source: source.into(),
            at: RwLock::new(Some(at.clone())),
            children: RwLock::default(),
        });
        at.mount
            .children
            .write()
            .insert(key(&at.dentry), mount.clone());
        at.dentry.add_mount();
        at.mount.sb.pin(&at.dentry);
        mounts.push(mount);
        Ok(())
    }
}
