//! The VM mode: a real Linux kernel in a small virtual machine, on the same tree as the layer.
//!
//! | module | owns |
//! |---|---|
//! | [`machine`] | the contract of a monitor |
//! | [`fuse`] | the FUSE server over a `duet-vfs` tree |
//! | [`virtio`] | the models of virtio devices, independent of the transport |
//! | [`vhost`] | the vhost-user-fs device around it, for QEMU |
//! | [`monitor`] | Duet's own monitor, on `/dev/kvm` |
//! | [`qemu`] | QEMU's smallest machine, where that cannot be |
//! | [`session`] | one run: the agent, the streams, the exit status |
//! | [`kernel`] | the kernels that there are |
//! | [`initramfs`], [`init_tree`] | what a kernel starts init from |
//!
//! This crate may use `duet-vfs`; it knows nothing of the layer.

pub mod error;
pub mod fuse;
pub mod host;
pub mod init_tree;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod monitor;
pub mod passt;
pub mod qemu;
pub mod session;
pub mod vhost;
pub mod virtio;

pub use error::{Error, Result};
