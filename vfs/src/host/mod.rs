//! A directory tree (or a single file) of the host as a file system.
//!
//! Each inode holds an `O_PATH` descriptor that was opened relative to its parent's, one component
//! at a time and without following symbolic links, so nothing that happens on the host can lead an
//! operation out of the tree. What the host user may not set (owners, set-id bits, device numbers)
//! is kept beside the node, in the attribute `user.duet.meta`, and of nodes that can hold none in a file
//! outside of the tree ([`HostFs::with_journal`]) or in memory.
//!
//! A tree that is not `shared` must have no other writer, a second `HostFs` included: what is read of
//! it is remembered.
//!
//! Lock order: an inode's `known`, its `watched`, then the state of the tree's watches ([`changes`]) and the
//! tables of the tree (`inodes`, `devs`, `memory`), which are not held during host I/O.

mod changes;
mod inode;
mod journal;
mod meta;
mod ownership;
mod read_dir;
mod sys;
#[cfg(test)]
pub(crate) mod tests;
mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use self::changes::Changes;
pub use self::inode::HostInode;
use self::inode::Record;
use self::journal::Journal;
pub use self::meta::IdMap;
use self::meta::Meta;
use self::sys::Stat;
use crate::dentry::anonymous_dev;
use crate::inode::{BackingId, DentryPolicy, FileSystem, Inode, StatFs};
use crate::types::*;

/// How a host tree is shown.
#[derive(Clone, Copy, Debug)]
pub struct HostOptions {
    /// Every change fails with EROFS.
    pub read_only: bool,
    /// Others on the host may change the tree meanwhile, so dentries are revalidated.
    pub shared: bool,
    /// The tree is a layer of an overlay: `user.overlay.*` attributes can be read and written. They
    /// are hidden otherwise, as they are not for a guest to forge.
    pub layer: bool,
    /// Whether records of owners, modes and devices are looked for beside nodes. A tree that is not
    /// `read_only` has them.
    pub records: bool,
    /// Host owner shown as root.
    pub ids: IdMap,
}

impl Default for HostOptions {
    /// Writable, with records, not shared, no layer, the invoking user shown as root.
    fn default() -> HostOptions {
        HostOptions {
            read_only: false,
            shared: false,
            layer: false,
            records: true,
            ids: IdMap::invoking_user(),
        }
    }
}

/// A host directory or file as a file system.
pub struct HostFs {
    tree: Arc<Tree>,
    root: Arc<HostInode>,
}

type Memory = HashMap<BackingId, (Option<Timespec>, Meta)>;

/// What the inodes of one `HostFs` share.
struct Tree {
    options: HostOptions,
    /// Whether owners can be set for real.
    privileged: bool,
    /// `O_PATH` descriptor of `/proc/self/fd`.
    proc_fd: OwnedFd,
    inodes: Mutex<HashMap<BackingId, Weak<HostInode>>>,
    /// Host device numbers and the anonymous ones shown for them.
    devs: Mutex<Vec<(u64, u64)>>,
    /// Records of nodes that can hold no attribute, with the node's birth to tell a reused number.
    journal: Option<Journal>,
    memory: Mutex<Memory>,
    /// Length of `memory`, to pass it by without the lock.
    memory_len: AtomicUsize,
    /// Open directory streams kept between two reads.
    streams: AtomicUsize,
    temp: AtomicU64,
    /// What others change, if it is shared.
    changes: Changes,
}

impl HostFs {
    /// The tree below `path` (a directory, or a file to be mounted over a file). Symbolic links in
    /// `path` are followed: it is the user's, not the guest's.
    pub fn open(path: &Path, options: HostOptions) -> std::io::Result<Arc<HostFs>> {
        use std::os::unix::fs::OpenOptionsExt;
        let fd = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)?;
        HostFs::new(fd.into(), options)
    }

    /// The tree whose root is `fd`, which may be an `O_PATH` descriptor.
    pub fn new(fd: OwnedFd, options: HostOptions) -> std::io::Result<Arc<HostFs>> {
        HostFs::with_journal(fd, options, None)
    }

    /// The same; what cannot be kept beside a node is kept in a file in the directory `journals`, which is made
    /// when it is needed.
    pub fn with_journal(
        fd: OwnedFd,
        options: HostOptions,
        journals: Option<&Path>,
    ) -> std::io::Result<Arc<HostFs>> {
        let cwd = nix::fcntl::AT_FDCWD;
        let proc_fd = sys::open_at(cwd, c"/proc/self/fd", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let stat = sys::stat(fd.as_fd(), b"")?;
        let opened = journals.and_then(|dir| match Journal::open(dir, &stat) {
            Ok(opened) => opened,
            // Somebody else's home.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(e) => {
                log::warn!("owners of links, as {} keeps them: {e}", dir.display());
                None
            }
        });
        let (journal, records) = opened.unzip();
        let memory: Memory = records
            .into_iter()
            .flatten()
            .map(|(ino, (birth, meta))| {
                let id = BackingId {
                    dev: stat.id.dev,
                    ino,
                };
                (id, (Some(birth), meta))
            })
            .collect();
        let tree = Arc::new(Tree {
            options,
            privileged: nix::unistd::geteuid().is_root(),
            proc_fd,
            inodes: Mutex::default(),
            devs: Mutex::default(),
            journal,
            memory_len: AtomicUsize::new(memory.len()),
            memory: Mutex::new(memory),
            streams: AtomicUsize::new(0),
            temp: AtomicU64::new(0),
            changes: Changes::new(),
        });
        let root = tree.reopen(fd.as_fd())?;
        let root = tree.instantiate(root, &stat, None, Record::Unknown)?;
        Ok(Arc::new(HostFs { tree, root }))
    }
}

impl FileSystem for HostFs {
    fn type_name(&self) -> &'static str {
        "host"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        let s = crate::counted::fstatfs(self.root.fd())?;
        Ok(StatFs {
            magic: s.filesystem_type().0,
            bsize: s.block_size() as u64,
            blocks: s.blocks(),
            bfree: s.blocks_free(),
            bavail: s.blocks_available(),
            files: s.files(),
            ffree: s.files_free(),
            namelen: s.maximum_name_length() as u64,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        if self.tree.options.shared {
            DentryPolicy::Revalidate
        } else {
            DentryPolicy::Exclusive
        }
    }

    fn catch_up(&self) -> bool {
        self.tree.changes.catch_up()
    }

    fn distrust(&self) {
        self.tree.changes.stop();
    }
}

impl Tree {
    /// An `O_PATH` descriptor of the inode behind `fd`.
    fn reopen(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
        let path = sys::FdPath::new(fd);
        sys::open_at(self.proc_fd.as_fd(), path.number(), libc::O_PATH, 0)
    }

    /// EROFS on a read-only tree.
    fn check_writable(&self) -> Result<()> {
        if self.options.read_only {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// The inode behind `fd`, found in directory `parent`: the one there is, or a new one.
    fn instantiate(
        self: &Arc<Tree>,
        fd: OwnedFd,
        stat: &Stat,
        parent: Option<&HostInode>,
        record: Record,
    ) -> Result<Arc<HostInode>> {
        if let Some(known) = self.inodes.lock().get(&stat.id).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(HostInode::new(self.clone(), fd, stat, parent, record)?);
        let mut inodes = self.inodes.lock();
        if let Some(known) = inodes.get(&stat.id).and_then(Weak::upgrade) {
            drop(inodes);
            return Ok(known);
        }
        inodes.insert(stat.id, Arc::downgrade(&new));
        Ok(new)
    }

    /// Forgets an inode that nobody holds any more.
    fn forget(&self, id: BackingId) {
        let mut inodes = self.inodes.lock();
        if inodes
            .get(&id)
            .is_some_and(|known| known.strong_count() == 0)
        {
            inodes.remove(&id);
        }
    }

    /// The anonymous device number for a host device.
    fn guest_dev(&self, host: u64) -> u64 {
        let mut devs = self.devs.lock();
        if let Some((_, dev)) = devs.iter().find(|(known, _)| *known == host) {
            return *dev;
        }
        let dev = anonymous_dev();
        devs.push((host, dev));
        dev
    }

    /// The record kept in memory for the node.
    fn recall(&self, stat: &Stat) -> Option<Meta> {
        if self.memory_len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let memory = self.memory.lock();
        let (birth, meta) = memory.get(&stat.id)?;
        (*birth == stat.btime).then_some(*meta)
    }

    /// Keeps (or with `None` drops) a record in memory.
    fn remember(&self, id: BackingId, birth: Option<Timespec>, meta: Option<Meta>) {
        if meta.is_none() && self.memory_len.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut memory = self.memory.lock();
        let before = match meta {
            Some(meta) => memory.insert(id, (birth, meta)),
            None => memory.remove(&id),
        };
        self.memory_len.store(memory.len(), Ordering::Release);
        drop(memory);
        if before == meta.map(|meta| (birth, meta)) {
            return;
        }
        let birth = birth.or(before.and_then(|(birth, _)| birth));
        if let (Some(journal), Some(birth)) = (&self.journal, birth)
            && journal.dev() == id.dev
            && let Err(e) = journal.add(id.ino, birth, meta)
        {
            log::warn!("owners of links are kept for this run only: {e}");
        }
    }

    /// A name that nobody else uses, for a node that gets its own one step later.
    fn temp_name(&self) -> Vec<u8> {
        let n = self.temp.fetch_add(1, Ordering::Relaxed);
        format!(".duet.{}.{n}", std::process::id()).into_bytes()
    }
}
