//! Duet's virtual file system.
pub mod inode;
pub mod types;
pub mod walk;
