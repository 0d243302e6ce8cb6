//! The FUSE server: requests of the guest kernel, answered from a `duet-vfs` tree.
