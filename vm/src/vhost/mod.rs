//! The vhost-user-fs device: serves the FUSE server to QEMU over a Unix socket.
