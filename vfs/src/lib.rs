//! Duet's virtual file system: nodes, mounts, the path walk and permissions.
//!
//! A file system ([`FileSystem`], [`Inode`]) does storage only. [`Vfs`] joins file systems in a mount
//! table, resolves guest paths with the semantics of path_resolution(7), checks permissions with the
//! guest's virtual credentials, and remembers which node a descriptor of the guest is
//! ([`Vfs::locate`]). It knows nothing of interception and never touches guest memory.
//!
//! # Lock order
//!
//! Earlier locks are taken first; locks on one line are never held together unless said otherwise.
//!
//! 1. `Super::rename`: one per file system, held by rename(2) only.
//! 2. `Dentry::lock` (the kernel's `i_rwsem`): serialises changes of one directory and the look-ups
//!    that miss its cache; held over host I/O on that directory. Several are taken ancestor first,
//!    two unrelated ones only under `Super::rename`.
//! 3. Locks inside file systems.
//! 4. `Dentry::link`, `Dentry::children`, the mount table, `Mount::children`, `Mount::at`, the open
//!    table, the clock of the dentry cache: leaves, never held over host I/O. (The table of stand-in
//!    directories alone makes its host calls under its lock: they touch a tmpfs private to Duet.)
pub mod account;
pub mod counted;
pub mod dentry;
pub mod dev;
pub mod haste;
pub mod helper;
pub mod host;
mod host_call;
pub mod inode;
pub mod mount;
mod opentable;
mod ops;
mod outside;
pub mod overlay;
pub mod perm;
pub mod proc;
pub mod sys;
pub mod tmp;
pub mod types;
mod unix;
pub mod walk;
pub mod watch;

pub use inode::*;
pub use mount::{MountFlags, MountInfo, Recursion, Store, Vfs};
pub use ops::{OpenHow, Opened};
pub use types::*;
pub use unix::Binding;
pub use walk::{Context, Location, Lookup, PathState};

#[cfg(test)]
mod tests;
