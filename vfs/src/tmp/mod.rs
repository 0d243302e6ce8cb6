//! `tmpfs`: a tree in memory whose file contents live in Duet's private store.
//!
//! Names, attributes, links and extended attributes are kept here. The contents of a regular file are
//! one host file in `store.files`, made when it is first opened and named by a number, so that the
//! guest's descriptor is a host descriptor. FIFOs and sockets are host nodes there too. The memory
//! that a guest can make us use is bounded by [`TmpOptions`]; contents are bounded by the host tmpfs
//! that is the store.

mod content;
mod dir;
mod inode;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::counted::fstatfs;
use crate::dentry::anonymous_dev;
use crate::inode::{DentryPolicy, FileSystem, Inode, NoCaller, StatFs};
use crate::types::*;

pub use inode::TmpInode;

/// Options of a [`TmpFs`], tmpfs(5).
#[derive(Clone, Copy, Debug)]
pub struct TmpOptions {
    /// Permission bits of the root.
    pub mode: u32,
    /// Owner of the root.
    pub uid: u32,
    /// Group of the root.
    pub gid: u32,
    /// Longest file, and the size that statfs(2) reports, in bytes; `None` for the store's own.
    pub size: Option<u64>,
    /// Most inodes.
    pub inodes: u64,
    /// Most bytes of names, link texts and extended attributes in all.
    pub metadata: u64,
}

impl Default for TmpOptions {
    fn default() -> Self {
        TmpOptions {
            mode: 0o1777,
            uid: 0,
            gid: 0,
            size: None,
            inodes: 1 << 20,
            metadata: 256 << 20,
        }
    }
}

/// What is used of an allowance.
#[derive(Default)]
struct Used {
    inodes: AtomicU64,
    metadata: AtomicU64,
}

/// What several file systems may use together.
struct Pool {
    used: Used,
    inodes: u64,
    metadata: u64,
}

/// What all inodes of one file system share.
struct Shared {
    files: Arc<OwnedFd>,
    dev: u64,
    options: TmpOptions,
    next_ino: AtomicU64,
    used: Used,
    pool: Arc<Pool>,
    /// Held over every change of a directory; in-memory work only, taken before the locks of inodes.
    names: Mutex<()>,
}

impl Shared {
    /// Takes `bytes` of the metadata allowance: ENOSPC if it is used up.
    fn charge(&self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        take(&self.used.metadata, bytes, self.options.metadata)?;
        take(&self.pool.used.metadata, bytes, self.pool.metadata)
            .inspect_err(|_| give_back(&self.used.metadata, bytes))
    }

    fn refund(&self, bytes: usize) {
        give_back(&self.used.metadata, bytes as u64);
        give_back(&self.pool.used.metadata, bytes as u64);
    }

    /// Takes one inode of the allowance: ENOSPC if there is none left.
    fn take_inode(&self) -> Result<()> {
        take(&self.used.inodes, 1, self.options.inodes)?;
        take(&self.pool.used.inodes, 1, self.pool.inodes)
            .inspect_err(|_| give_back(&self.used.inodes, 1))
    }

    fn return_inode(&self) {
        give_back(&self.used.inodes, 1);
        give_back(&self.pool.used.inodes, 1);
    }
}

impl Drop for Shared {
    /// Names in directories go with the whole.
    fn drop(&mut self) {
        give_back(&self.pool.used.metadata, *self.used.metadata.get_mut());
        give_back(&self.pool.used.inodes, *self.used.inodes.get_mut());
    }
}

fn take(counter: &AtomicU64, amount: u64, limit: u64) -> Result<()> {
    if counter.fetch_add(amount, Ordering::Relaxed) + amount > limit {
        give_back(counter, amount);
        return Err(Errno::ENOSPC);
    }
    Ok(())
}

fn give_back(counter: &AtomicU64, amount: u64) {
    counter.fetch_sub(amount, Ordering::Relaxed);
}

/// A file system in memory.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
}

impl TmpFs {
    /// An empty tree. `files` is a directory on a tmpfs private to Duet, not mounted `noexec`; several
    /// file systems may share it.
    pub fn new(files: OwnedFd, options: TmpOptions) -> Result<Arc<TmpFs>> {
        let pool = Arc::new(Pool {
            used: Used::default(),
            inodes: options.inodes,
            metadata: options.metadata,
        });
        TmpFs::with(Arc::new(files), pool, options)
    }

    /// Another empty tree, which keeps its contents where this one does, and together with it may use
    /// what this one was allowed: however many are made, Duet's memory is bounded.
    pub fn beside(&self, options: TmpOptions) -> Result<Arc<TmpFs>> {
        let (files, pool) = (self.shared.files.clone(), self.shared.pool.clone());
        TmpFs::with(files, pool, options)
    }

    fn with(files: Arc<OwnedFd>, pool: Arc<Pool>, options: TmpOptions) -> Result<Arc<TmpFs>> {
        let shared = Arc::new(Shared {
            files,
            dev: anonymous_dev(),
            options,
            next_ino: AtomicU64::new(1),
            used: Used::default(),
            pool,
            names: Mutex::new(()),
        });
        let root = TmpInode::directory(
            &shared,
            NewNode {
                mode: options.mode & 0o7777,
                uid: options.uid,
                gid: options.gid,
            },
        )?;
        Ok(Arc::new(TmpFs { shared, root }))
    }
}

/// A file system in memory that is one regular file: something for a bind mount to show.
pub struct TmpFile {
    fs: Arc<TmpFs>,
    root: Arc<dyn Inode>,
}

impl TmpFile {
    /// A file of root's with this content and these permission bits. `files` as for [`TmpFs::new`].
    pub fn new(files: OwnedFd, content: &[u8], mode: u32) -> Result<Arc<TmpFile>> {
        let fs = TmpFs::new(files, TmpOptions::default())?;
        let (uid, gid) = (0, 0);
        let root = fs.root.create(b"file", NewNode { mode, uid, gid })?;
        let opened = root.open(libc::O_WRONLY, &NoCaller)?;
        let written = std::fs::File::from(opened.fd).write_all(content);
        written.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Arc::new(TmpFile { fs, root }))
    }
}

impl FileSystem for TmpFile {
    fn type_name(&self) -> &'static str {
        self.fs.type_name()
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        self.fs.statfs()
    }

    fn dentry_policy(&self) -> DentryPolicy {
        self.fs.dentry_policy()
    }
}

impl FileSystem for TmpFs {
    fn type_name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        /// `TMPFS_MAGIC`
        const MAGIC: i64 = 0x0102_1994;
        let host = fstatfs(&self.shared.files)?;
        let bsize = u64::try_from(host.block_size()).unwrap_or(4096).max(1);
        let options = &self.shared.options;
        let size = options.size.map_or(host.blocks(), |size| size / bsize);
        let used = self.shared.used.inodes.load(Ordering::Relaxed);
        Ok(StatFs {
            magic: MAGIC,
            bsize,
            blocks: size,
            bfree: host.blocks_free().min(size),
            bavail: host.blocks_available().min(size),
            files: options.inodes,
            ffree: options.inodes.saturating_sub(used),
            namelen: 255,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Exclusive
    }
}

/// The present, by the clock that the kernel stamps files with.
fn now() -> Timespec {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(Timespec::default(), |t| Timespec {
        sec: t.tv_sec(),
        nsec: u32::try_from(t.tv_nsec()).unwrap_or(0),
    })
}
