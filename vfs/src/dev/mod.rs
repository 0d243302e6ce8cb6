//! `/dev`: the few devices that are harmless, the standard links, and terminals.

mod pts;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::counted::fstat;
use crate::inode::{Caller, FileSystem};
use crate::tmp::{TmpFs, TmpOptions};
use crate::types::*;

pub use pts::PtsFs;

/// Devices that a guest may open: major, minor, the host's node.
const DEVICES: [(u32, u32, &str); 7] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    TTY,
    (5, 2, "/dev/ptmx"),
];

/// The caller's controlling terminal.
const TTY: (u32, u32, &str) = (5, 0, "/dev/tty");

/// Opens a device by its number, wherever its node lies. `flags` are open(2)'s. ENXIO for every
/// device that is not known to be harmless, and for `/dev/tty` if the caller has no controlling
/// terminal.
pub fn open_device(kind: FileType, rdev: u64, flags: i32, caller: &dyn Caller) -> Result<OwnedFd> {
    let number = (libc::major(rdev), libc::minor(rdev));
    let known = DEVICES.iter().find(|d| (d.0, d.1) == number);
    match known {
        Some(&TTY) if kind == FileType::CharDevice => open_terminal(flags, caller),
        Some((_, _, path)) if kind == FileType::CharDevice => open_node(path, rdev, flags),
        _ => Err(Errno::ENXIO),
    }
}

/// Opens the caller's controlling terminal: Duet's own, or one that the sandbox made.
fn open_terminal(flags: i32, caller: &dyn Caller) -> Result<OwnedFd> {
    let terminal = caller.terminal().ok_or(Errno::ENXIO)?;
    let (major, minor) = (libc::major(terminal), libc::minor(terminal));
    // Unix98 terminals have the majors 136 to 143.
    if !(136..144).contains(&major) {
        return open_node(TTY.2, libc::makedev(TTY.0, TTY.1), flags);
    }
    let number = (major - 136) * 256 + minor;
    let fd = open_node(&format!("/dev/pts/{number}"), terminal, flags)?;
    // If it was closed meanwhile, that number may be somebody else's by now.
    if caller.terminal() == Some(terminal) {
        Ok(fd)
    } else {
        Err(Errno::ENXIO)
    }
}

fn open_node(path: &str, rdev: u64, flags: i32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags & !(libc::O_CREAT | libc::O_TRUNC));
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let fd = crate::counted::open(path, flags, Mode::empty())?;
    // The host's /dev may hold anything under that name.
    let stat = fstat(&fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != rdev {
        return Err(Errno::ENXIO);
    }
    Ok(fd)
}

/// A tree for `/dev`: devices and links, and the empty directories `pts` (for a [`PtsFs`]) and `shm`
/// (for a `tmpfs`). `files` as for [`TmpFs::new`].
pub fn new_dev(files: OwnedFd) -> Result<Arc<TmpFs>> {
    let fs = TmpFs::new(
        files,
        TmpOptions {
            mode: 0o755,
            ..TmpOptions::default()
        },
    )?;
    let owner = |mode| NewNode {
        mode,
        uid: 0,
        gid: 0,
    };
    let root = fs.root();
    for (major, minor, path) in DEVICES {
        // The last is a link into `pts`, where its terminals are.
        if (major, minor) != (5, 2) {
            let name = path.trim_start_matches("/dev/").as_bytes();
            let rdev = libc::makedev(major, minor);
            root.mknod(name, FileType::CharDevice, rdev, owner(0o666))?;
        }
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        root.symlink(name.as_bytes(), target.as_bytes(), owner(0o777))?;
    }
    root.mkdir(b"pts", owner(0o755))?;
    root.mkdir(b"shm", owner(0o1777))?;
    Ok(fs)
}
