//! The operations, one file per family. Each does what the kernel's `vfs_*` functions do around the
//! call of the file system: resolve, check permission in Linux's order, lock, keep the dentry cache.

mod attr;
mod create;
mod dir;
mod open;
mod remove;
mod rename;
mod xattr;

pub use open::{OpenHow, Opened};
