//! Several trees seen as one: changes go to the topmost (*upper*), the others (*lowers*) are only read.
//!
//! Semantics and marks on disk are those of the kernel's overlayfs mounted with `userxattr`
//! (Documentation/filesystems/overlayfs.rst): a removed lower name leaves a *whiteout* (a character
//! device 0:0) in the upper, a directory that hides what lies below it is *opaque*
//! (`user.overlay.opaque` = `y`), a renamed directory that keeps its lower contents carries the path
//! of them in `user.overlay.redirect`. A guest's own `user.overlay.*` attributes are kept escaped.
//!
//! # Lock order
//!
//! 1. `OverlayInode::copying`: held while that inode is copied up, an ancestor's never with it.
//! 2. `OverlayInode::names` of directories: several in order of address (`lock_all`).
//! 3. `OverlayInode::listing`.
//! 4. Leaves, never held during I/O: `upper`, `children`, and the tables of the file system.

mod change;
mod copy_up;
mod inode;
mod listing;
mod marks;
mod rename;
mod stack;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

pub use self::inode::OverlayInode;
use self::inode::{Origin, Parts};
use self::stack::LowerDir;
use crate::dentry::anonymous_dev;
use crate::inode::{DentryPolicy, FileSystem, Inode, NoCaller, StatFs};
use crate::types::*;

/// Where an overlay keeps changes. A [`crate::host::HostFs`] must have been opened with `layer`.
pub struct Upper {
    /// The file system of the two directories.
    pub fs: Arc<dyn FileSystem>,
    /// The tree of changes.
    pub root: Arc<dyn Inode>,
    /// A directory of the same file system outside `root`, for nodes under construction. What is in
    /// it is removed.
    pub work: Arc<dyn Inode>,
}

/// An overlay of one writable tree over any number of others.
pub struct OverlayFs {
    layers: Arc<Layers>,
    root: Arc<OverlayInode>,
    depth: u32,
}

/// Most file systems on one another, as in the kernel (`FILESYSTEM_MAX_STACK_DEPTH`): every operation goes
/// down through all of them.
pub const MAX_STACK_DEPTH: u32 = 2;

/// What the inodes of one overlay share.
struct Layers {
    upper_fs: Arc<dyn FileSystem>,
    work: Arc<dyn Inode>,
    /// The roots of the lower trees, topmost first.
    lowers: Vec<LowerDir>,
    dev: u64,
    /// Devices of the underlying inodes; the position sets a device's inode numbers apart.
    devs: RwLock<Vec<u64>>,
    /// Inodes by the address of their upper inode.
    by_upper: Mutex<HashMap<usize, Weak<OverlayInode>>>,
    last_whiteout: Mutex<Option<Arc<dyn Inode>>>,
    temp: AtomicU64,
}

impl OverlayFs {
    /// The overlay of `upper` over `lowers` (topmost first).
    ///
    /// # Errors
    /// ENOTDIR if one is no directory; what reading and clearing them gives.
    pub fn new(upper: Upper, lowers: Vec<Arc<dyn Inode>>) -> Result<Arc<OverlayFs>> {
        OverlayFs::stacked(upper, lowers, 0)
    }

    /// As [`OverlayFs::new`], over trees of file systems of which the deepest has this
    /// [`FileSystem::stack_depth`]. EINVAL beyond [`MAX_STACK_DEPTH`].
    pub fn stacked(
        upper: Upper,
        lowers: Vec<Arc<dyn Inode>>,
        below: u32,
    ) -> Result<Arc<OverlayFs>> {
        let depth = below.max(upper.fs.stack_depth()) + 1;
        if depth > MAX_STACK_DEPTH {
            return Err(Errno::EINVAL);
        }
        let all = lowers.iter().chain([&upper.root, &upper.work]);
        if all.into_iter().any(|dir| dir.kind() != FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        clear_work(&upper.work)?;
        let bottom = lowers.len().saturating_sub(1);
        let lowers: Vec<LowerDir> = lowers
            .into_iter()
            .enumerate()
            .map(|(layer, dir)| LowerDir {
                layer,
                marked_whiteouts: layer < bottom && marks::holds_marked_whiteouts(&*dir),
                dir,
            })
            .collect();
        let upper_dev = upper.root.attr()?.dev;
        let layers = Arc::new(Layers {
            upper_fs: upper.fs,
            work: upper.work,
            lowers: lowers.clone(),
            dev: anonymous_dev(),
            devs: RwLock::new(vec![upper_dev]),
            by_upper: Mutex::default(),
            last_whiteout: Mutex::new(None),
            temp: AtomicU64::new(0),
        });
        let root = layers.instantiate_upper(Parts {
            upper: upper.root,
            lower: lowers,
            origin: Some(Origin::Path(Vec::new())),
            moved: false,
        });
        Ok(Arc::new(OverlayFs {
            layers,
            root,
            depth,
        }))
    }
}

impl FileSystem for OverlayFs {
    fn type_name(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            magic: libc::OVERLAYFS_SUPER_MAGIC,
            ..self.layers.upper_fs.statfs()?
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        self.layers.upper_fs.dentry_policy()
    }

    fn stack_depth(&self) -> u32 {
        self.depth
    }
}

/// The address by which an inode of another file system is known.
fn address(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl Layers {
    /// The inode with this upper inode: the one there is, or a new one.
    fn instantiate_upper(self: &Arc<Layers>, parts: Parts) -> Arc<OverlayInode> {
        let key = address(&parts.upper);
        let mut by_upper = self.by_upper.lock();
        if let Some(known) = by_upper.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let new = OverlayInode::new_upper(self.clone(), parts);
        by_upper.insert(key, Arc::downgrade(&new));
        new
    }

    /// An inode number for that of an underlying inode, distinct between devices.
    fn ino(&self, dev: u64, ino: u64) -> u64 {
        let known = self.devs.read().iter().position(|d| *d == dev);
        let index = known.unwrap_or_else(|| {
            let mut devs = self.devs.write();
            devs.iter().position(|d| *d == dev).unwrap_or_else(|| {
                devs.push(dev);
                devs.len() - 1
            })
        });
        ino.wrapping_add((index as u64) << 48)
    }

    /// Runs `make` with a fresh name in the work directory; returns the name with the result.
    fn in_work<T>(
        &self,
        make: impl Fn(&Arc<dyn Inode>, &[u8]) -> Result<T>,
    ) -> Result<(Vec<u8>, T)> {
        loop {
            let n = self.temp.fetch_add(1, Ordering::Relaxed);
            let name = format!("#{n:x}").into_bytes();
            match make(&self.work, &name) {
                Err(Errno::EEXIST) => continue,
                other => return other.map(|made| (name, made)),
            }
        }
    }

    /// Removes a node of the work directory, as far as it goes.
    fn discard(&self, name: &[u8]) {
        if let Err(e) = remove(&self.work, name) {
            log::warn!("overlay: work directory keeps a node: {e}");
        }
    }

    /// Makes a whiteout: a further link of the last one, which is cheaper than an inode of its own
    /// (as overlayfs does).
    fn make_whiteout(&self, dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        let last = self.last_whiteout.lock().clone();
        if let Some(last) = last {
            match dir.link(name, &last) {
                // It may be gone by now, or have all the links that an inode can have.
                Err(e) if e != Errno::EEXIST => (),
                done => return done,
            }
        }
        // The mode that the host gives it in any case, so that nothing need be kept beside it.
        let new = NewNode {
            mode: 0o600,
            uid: 0,
            gid: 0,
        };
        let made = dir.mknod(name, FileType::CharDevice, 0, new)?;
        *self.last_whiteout.lock() = Some(made);
        Ok(())
    }

    /// Puts a whiteout at `name` of the upper directory `dir`, in place of `old` if there is one.
    fn whiteout(&self, dir: &Arc<dyn Inode>, name: &[u8], old: Option<FileType>) -> Result<()> {
        let mknod = |dir: &Arc<dyn Inode>, name: &[u8]| self.make_whiteout(dir, name);
        let Some(old) = old else {
            return mknod(dir, name);
        };
        let (temp, ()) = self.in_work(mknod)?;
        let directory = old == FileType::Directory;
        let flags = if directory { libc::RENAME_EXCHANGE } else { 0 };
        let placed = self.work.rename(&temp, dir, name, flags);
        if placed.is_err() || directory {
            self.discard(&temp);
        }
        placed
    }

    /// Moves a node from the work directory over the whiteout at `name` of the upper `dir`.
    fn over_whiteout(
        &self,
        temp: &[u8],
        kind: FileType,
        dir: &Arc<dyn Inode>,
        name: &[u8],
    ) -> Result<()> {
        if kind != FileType::Directory {
            return self.work.rename(temp, dir, name, 0);
        }
        self.work.rename(temp, dir, name, libc::RENAME_EXCHANGE)?;
        self.discard(temp);
        Ok(())
    }
}

/// Removes `name` from `dir`; a directory may hold whiteouts.
fn remove(dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
    let node = dir.lookup(name, &NoCaller)?;
    if node.kind() != FileType::Directory {
        return dir.unlink(name);
    }
    clear(&node)?;
    dir.rmdir(name)
}

/// Some entries of `dir`, so many that memory stays bounded.
fn some_entries(dir: &Arc<dyn Inode>) -> Result<Vec<DirEntry>> {
    const BATCH: usize = 1024;
    let mut entries = Vec::new();
    dir.read_dir(0, &NoCaller, &mut |entry| {
        if entries.len() == BATCH {
            return false;
        }
        entries.push(entry);
        true
    })?;
    Ok(entries)
}

/// Removes the whiteouts in an upper directory that holds nothing else.
fn clear(dir: &Arc<dyn Inode>) -> Result<()> {
    loop {
        let entries = some_entries(dir)?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            dir.unlink(&entry.name)?;
        }
    }
}

/// Removes what an earlier run, cut short, left in the work directory.
fn clear_work(work: &Arc<dyn Inode>) -> Result<()> {
    loop {
        let entries = some_entries(work)?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            remove(work, &entry.name)?;
        }
    }
}
