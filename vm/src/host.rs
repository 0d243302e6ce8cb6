//! What the host offers: programs, and descriptors of processes.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// Where a program is, by `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).map(|dir| dir.join(name));
    all.find(|p| p.is_file() && access(p, AccessFlags::X_OK).is_ok())
}

/// Whether a program can be found.
pub fn is_installed(name: &str) -> bool {
    find_program(name).is_some()
}

/// A descriptor of a child that is readable once it has ended (pidfd_open(2)).
pub fn pidfd(pid: u32) -> nix::Result<OwnedFd> {
    // SAFETY: integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
