//! The root of a kernel that takes no initramfs: the agent and the few places that it and the kernel want. It
//! is served by virtio-fs of its own, so that the program's tree need not have any of this.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use duet_vfs::tmp::{TmpFs, TmpOptions};
use duet_vfs::{Errno, FileSystem, FileType, MountFlags, NewNode, NoCaller, Result, Store, Vfs};
use nix::sys::stat::makedev;

use crate::initramfs::AGENT;

/// The tag under which the kernel mounts it (`root=`).
pub const TAG: &str = "duet-init";

/// Makes the tree, with its contents where `store` has the program's. Nobody can change it.
pub fn build(store: &Store) -> Result<Arc<Vfs>> {
    let share = |fd: &OwnedFd| fd.try_clone().map_err(errno);
    let options = TmpOptions {
        mode: 0o755,
        ..TmpOptions::default()
    };
    let fs = TmpFs::new(share(&store.files)?, options)?;
    let root = fs.root();
    for name in [&b"proc"[..], b"sys", b"root"] {
        root.mkdir(name, owned(0o755))?;
    }
    // What the kernel opens as init's standard streams, and what takes their place where it has no console:
    // it need not mount a devtmpfs by itself.
    let dev = root.mkdir(b"dev", owned(0o755))?;
    for (name, mode, major, minor) in [(&b"console"[..], 0o600, 5, 1), (b"null", 0o666, 1, 3)] {
        dev.mknod(
            name,
            FileType::CharDevice,
            makedev(major, minor),
            owned(mode),
        )?;
    }
    let init = root.create(b"init", owned(0o755))?;
    let opened = init.open(libc::O_WRONLY, &NoCaller)?;
    File::from(opened.fd).write_all(AGENT).map_err(errno)?;
    let store = Store {
        files: share(&store.files)?,
        dirs: share(&store.dirs)?,
    };
    Vfs::new(store, fs, MountFlags::RDONLY, TAG)
}

fn owned(mode: u32) -> NewNode {
    let (uid, gid) = (0, 0);
    NewNode { mode, uid, gid }
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}
